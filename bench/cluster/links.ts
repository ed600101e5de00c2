/**
 * `nfactor bench cluster`: a cluster's processes on real links, each figure beside its baseline.
 *
 *     node bench/cluster/links.ts [--part p4,p6,p7,p8,p9] [--quick] [--flows N] [--runs N] [--json FILE]
 *
 *     p4   throughput of one runtime, memif in and memif out, against dpdk-testpmd in the same seat
 *     p6   one flow moves in an idle cluster
 *     p7   all flows of a runtime move while packets go on
 *     p8   a runtime with replicas elsewhere is killed, or stopped
 *     p9   latency through one runtime at half load, against dpdk-testpmd; collections of garbage
 *
 * The numbers of the parts are those of our aims. Exit status 1 if packets were lost, doubled, changed or out of order where none may be.
 */

import { writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { CodedError } from '../../src/base/coded-error.ts'
import { runBenchProgram, runsOf } from '../../src/cli/bench-program.ts'
import { tableLines } from '../../src/cli/text-table.ts'
import { linksObstacle } from './links-bed.ts'
import { latency, manyFlows, oneFlow, recovery, throughput, type PartOptions, type PartResult } from './links-parts.ts'

const HELP = `nfactor bench cluster [--part p4,p6,p7,p8,p9] [--quick] [--flows N] [--runs N] [--json FILE]

Processes of a cluster on real links: throughput of a runtime (p4) and latency through it (p9) against dpdk-testpmd, moves of one flow (p6)
and of all (p7), recovery of a runtime that is killed or stopped (p8). Six minutes; --quick one and a half.`

const parts: Record<string, (options: PartOptions) => Promise<PartResult>> =
  { p4: throughput, p6: oneFlow, p7: manyFlows, p8: recovery, p9: latency }
const FLOWS_MAX = 500_000
const FLOWS_MIN = 1000

export async function main(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({ args: [...args], options: {
    part: { type: 'string' }, quick: { type: 'boolean', default: false }, flows: { type: 'string' }, runs: { type: 'string' },
    json: { type: 'string' }, help: { type: 'boolean', default: false },
  } })
  if (values.help) {
    console.log(HELP)
    return 0
  }
  const names = (values.part ?? Object.keys(parts).join(',')).split(',')
  const wrongName = names.find((name) => !Object.hasOwn(parts, name))
  if (wrongName !== undefined) {
    const all = Object.keys(parts).join(', ')
    throw new CodedError('NF_USAGE', `bench cluster: there is no part ${JSON.stringify(wrongName)}`, `The parts are ${all}`)
  }
  const flows = Number(values.flows ?? (values.quick ? 10_000 : 100_000))
  if (!Number.isInteger(flows) || flows < FLOWS_MIN || flows > FLOWS_MAX) {
    throw new CodedError('NF_USAGE', `bench cluster: --flows takes a number from ${FLOWS_MIN} to ${FLOWS_MAX}`)
  }
  const runs = runsOf(values.runs, values.quick ? 3 : 5)
  const obstacle = linksObstacle()
  if (obstacle !== '') throw new CodedError('NF_BENCH', `bench cluster: ${obstacle}`)
  const cpu = cpus()[0]?.model ?? 'unknown CPU'
  console.log(`${cpu}, ${cpus().length} cores, Node ${process.version}; medians of ${runs} runs, ${flows} flows`)
  const results: Record<string, PartResult['measured']> = {}
  let isWrong = false
  for (const name of names) {
    const run = parts[name] as (typeof parts)[string]
    const began = performance.now()
    // A part that fails, as on a machine with too much to do, does not cost the others.
    const { rows, measured, notes, wrong } = await run({ isQuick: values.quick, runs, flows, say: progress }).catch(failed)
    progress('')
    results[name] = { ...measured, seconds: (performance.now() - began) / 1000, wrong }
    const table = [['', 'figure', 'baseline', 'ratio', 'aim'], ...rows.map((row) => [row.what, row.figure, row.baseline, row.ratio, row.aim])]
    console.log(`\n${name}`)
    for (const line of tableLines(table, [{}, { align: 'right' }, { align: 'right' }, { align: 'right' }, {}])) console.log(line)
    for (const note of notes) console.log(`  ${note}`)
    for (const line of wrong) console.log(`  WRONG: ${line}`)
    isWrong ||= wrong.length > 0
  }
  if (values.json !== undefined) {
    writeFileSync(values.json, `${JSON.stringify({ node: process.version, cpu, runs, flows, parts: results }, null, 1)}\n`)
    console.log(`written to ${values.json}`)
  }
  return isWrong ? 1 : 0
}

function failed(error: unknown): PartResult {
  return { rows: [], measured: {}, notes: [], wrong: [`it has not ended: ${error instanceof Error ? error.message : String(error)}`] }
}

/** What it is at, where somebody watches. */
function progress(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await runBenchProgram(main)
