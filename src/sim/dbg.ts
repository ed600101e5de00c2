import { simulate } from './simulation.ts'
import { allFaultKinds } from './fault-kinds.ts'
const [from, to, faults] = process.argv.slice(2)
const kinds = faults === undefined ? [] : faults === 'all' ? allFaultKinds : faults.split(',')
const t = performance.now()
let bad = 0
for (let seed = Number(from); seed <= Number(to); seed++) {
  const r = simulate({ seed, faults: kinds as any, follow: Number(process.env.FOLLOW ?? 0) })
  if (r.violations.length > 0) { bad++; if (bad < 6) console.log(seed, JSON.stringify(r.violations.slice(0, 3)).slice(0, 700)) }
  if (from === to) { console.log(r.story.join('\n')); console.log({ ...r, story: 0 }) }
}
console.log(bad, 'bad;', ((performance.now() - t) / (Number(to) - Number(from) + 1)).toFixed(1), 'ms per seed')
