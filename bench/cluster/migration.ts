/**
 * `nfactor bench migration`: what moving flows costs, in CPU time of all nodes together.
 *
 *     node bench/cluster/migration.ts [--quick] [--flows 100,1000,10000,100000] [--moves 40000] [--runs N] [--json FILE]
 *
 * Two switches and two runtimes with the standard chain, joined by memory links, take turns in one process. Flows are opened by one
 * UDP packet each at one runtime; then all of them are ordered to the other, and back, and so on: until so many moves have warmed the
 * code up, and then for as many that count. A cluster with few flows moves them oftener. What counts is the CPU time of the process
 * from the order until the source has the last answer, without traffic; the polling of nodes that have nothing to do is part of it.
 */

import { writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { CodedError } from '../../src/base/coded-error.ts'
import { runBenchProgram } from '../../src/cli/bench-program.ts'
import { setEngineFlags } from '../../src/process/engine-flags.ts'

const HELP = `nfactor bench migration [--quick] [--flows N,N,...] [--moves N] [--runs N] [--json FILE]

CPU time per flow that moves between two runtimes with the standard chain, all four nodes of the cluster together;
so many moves (--moves) warm up, and as many count.`

/** Moves that warm up, and moves that count, at least. */
const MOVES_MIN = 40_000

interface Row {
  readonly flows: number
  /** Microseconds per flow: median, lowest and highest run. */
  readonly us: number
  readonly low: number
  readonly high: number
  readonly messages: number
}

export async function main(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({ args: [...args], options: {
    quick: { type: 'boolean', default: false }, flows: { type: 'string' }, moves: { type: 'string' }, runs: { type: 'string' },
    json: { type: 'string' }, help: { type: 'boolean', default: false },
  } })
  if (values.help) {
    console.log(HELP)
    return 0
  }
  const counts = (values.flows ?? (values.quick ? '100,1000,10000' : '100,1000,10000,100000')).split(',').map(Number)
  const runs = Number(values.runs ?? (values.quick ? 1 : 3))
  const moves = Number(values.moves ?? MOVES_MIN)
  if (!(runs >= 1 && moves >= 1) || counts.some((flows) => !(flows >= 1 && flows <= 1_000_000))) {
    throw new CodedError('NF_USAGE', 'bench migration: --runs and --moves take a number from 1, --flows numbers from 1 to 1000000')
  }
  setEngineFlags()
  const { BenchCluster } = await import('./bench-cluster.ts')
  /** The cost per flow of moving all of them, and the messages for one. */
  const measure = (flows: number): { us: number; messages: number } => {
    const cluster = new BenchCluster(flows)
    cluster.openFlows(flows)
    let [source, target] = cluster.runtimes
    const rounds = Math.ceil(moves / flows)
    const move = (): number => {
      let us = 0
      for (let round = 0; round < rounds; round++) {
        us += cluster.move(source, target, flows)
        ;[source, target] = [target, source]
      }
      return us / flows / rounds
    }
    move()
    const before = cluster.messages
    const us = move()
    cluster.check(flows)
    return { us, messages: (cluster.messages - before) / flows / rounds }
  }
  console.log(`${cpus()[0]?.model ?? 'unknown CPU'}, Node ${process.version}; CPU time per flow that moves, median of ${runs} run${
    runs === 1 ? '' : 's'} (lowest to highest)\n`)
  const rows: Row[] = []
  for (const flows of counts) {
    const all = Array.from({ length: runs }, () => measure(flows)).sort((a, b) => a.us - b.us)
    const { us, messages } = all[runs >> 1] as { us: number; messages: number }
    const row: Row = { flows, us, low: all[0]?.us ?? 0, high: all.at(-1)?.us ?? 0, messages }
    rows.push(row)
    console.log(`${flows.toLocaleString('en').padStart(9)} flows  ${us.toFixed(1).padStart(6)} µs each ` +
      `(${row.low.toFixed(1)} to ${row.high.toFixed(1)}), ${(us * flows / 1000).toFixed(0).padStart(6)} ms in all, ` +
      `${messages.toFixed(1)} messages each`)
  }
  if (values.json !== undefined) {
    writeFileSync(values.json, `${JSON.stringify({ node: process.version, cpu: cpus()[0]?.model, runs, rows }, null, 1)}\n`)
    console.log(`written to ${values.json}`)
  }
  return 0
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await runBenchProgram(main)
