/**
 * Bench of migration: what moving flows costs, in CPU time of all nodes together.
 *
 *     node bench/cluster/migration.ts [--flows 100,1000,10000,100000] [--runs 3] [--json FILE]
 *
 * Two switches and two runtimes with the standard chain, joined by memory links, take turns in one process. Flows are opened by one
 * UDP packet each at one runtime; then all of them are ordered to the other, and the time until the last has moved is measured, with
 * no traffic. The cost of turns without moves, measured alike before, is taken off. One node after another on one core: the time is
 * the CPU time of all of them.
 */

import { writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { setEngineFlags } from '../../src/process/engine-flags.ts'

setEngineFlags()

const { values } = parseArgs({ args: process.argv.slice(2), options: {
  flows: { type: 'string', default: '100,1000,10000,100000' }, runs: { type: 'string', default: '3' }, json: { type: 'string' },
} })

const { BenchCluster } = await import('./bench-cluster.ts')

const rows: { flows: number; usPerFlow: number[]; messages: number }[] = []
for (const flows of values.flows.split(',').map(Number)) {
  const usPerFlow: number[] = []
  let messages = 0
  for (let run = 0; run < Number(values.runs); run++) {
    const cluster = new BenchCluster(flows)
    cluster.openFlows(flows)
    const source = cluster.runtimes[0]
    const target = cluster.runtimes[1]
    // Once there and back warms up; the third time counts.
    cluster.move(source, target, flows)
    cluster.move(target, source, flows)
    const before = cluster.messages
    usPerFlow.push(cluster.move(source, target, flows) * 1000 / flows)
    messages = (cluster.messages - before) / flows
    cluster.check(flows)
  }
  usPerFlow.sort((a, b) => a - b)
  rows.push({ flows, usPerFlow, messages })
  const median = usPerFlow[usPerFlow.length >> 1] as number
  console.log(`${flows.toLocaleString('en').padStart(9)} flows  ${median.toFixed(2)} µs per flow ` +
    `(${(usPerFlow[0] as number).toFixed(2)} - ${(usPerFlow.at(-1) as number).toFixed(2)}), ${messages.toFixed(1)} messages per flow`)
}
if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(rows, null, 2)}\n`)
