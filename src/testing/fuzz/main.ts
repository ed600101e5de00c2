/**
 * Fuzzing for as long as one likes:
 *
 *     npm run fuzz                                     every target, a minute each
 *     npm run fuzz -- http chain --seconds 3600        these, an hour each
 *     npm run fuzz -- http --seed 12345 --rounds 1     a failure again
 *
 * Round n of a target has the seed `seed + n`; unless told, the first seed comes from the clock. It stops at the first failure
 * with exit code 1.
 */

import { parseArgs } from 'node:util'
import { setEngineFlags } from '../../process/engine-flags.ts'

setEngineFlags()
const { runRound } = await import('./fuzz-target.ts')
const { fuzzTargets } = await import('./targets.ts')

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { seconds: { type: 'string', default: '60' }, seed: { type: 'string' }, rounds: { type: 'string' } },
})
const unknown = positionals.find((name) => !fuzzTargets.some((target) => target.name === name))
const numbers = [values.seconds, values.seed ?? '0', values.rounds ?? '0'].map(Number)
if (unknown !== undefined || numbers.some((number) => !Number.isInteger(number) || number < 0)) {
  process.stderr.write(`usage: npm run fuzz -- [TARGET ...] [--seconds N] [--seed N] [--rounds N]\ntargets: ${
    fuzzTargets.map((target) => target.name).join(', ')}\n`)
  process.exit(2)
}
const first = values.seed === undefined ? Date.now() % 2 ** 31 : Number(values.seed)
const roundsMax = values.rounds === undefined ? Infinity : Number(values.rounds)

for (const target of fuzzTargets.filter(({ name }) => positionals.length === 0 || positionals.includes(name))) {
  const end = performance.now() + Number(values.seconds) * 1000
  let rounds = 0
  try {
    for (; rounds < roundsMax && performance.now() < end; rounds++) runRound(target, (first + rounds) | 0)
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`)
    process.exit(1)
  }
  console.log(`${target.name}: ${rounds} rounds from seed ${first}, nothing found`)
}
