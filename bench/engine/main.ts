/**
 * `nfactor bench engine`: the engine against its baselines, in one run. See docs/evaluation.md for the method.
 *
 *     node bench/engine/main.ts [--quick] [--runs N] [--flows 1000,100000] [--json FILE]
 *
 * Every measurement is a process of its own (worker.ts). Compared variants take turns, `runs` times; the table shows the median
 * of their medians and the spread, and the ratio of medians. Variants that are compared must have done the same: their digests
 * are held against each other, and a difference makes the comparison void and the exit code 1.
 */

import { spawn } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { CodedError } from '../../src/base/coded-error.ts'
import { runBenchProgram } from '../../src/cli/bench-program.ts'
import type { ChurnResult } from './churn.ts'
import type { WorkerOptions, WorkerResult } from './worker.ts'

const workerFile = fileURLToPath(new URL('worker.ts', import.meta.url))
const churnFile = fileURLToPath(new URL('churn.ts', import.meta.url))

interface Comparison {
  readonly title: string
  readonly flows: number
  readonly distribution: 'uniform' | 'zipf'
  readonly variants: readonly { readonly name: string; readonly variant: string; readonly wasm: boolean }[]
  /** Whether the variants do the same work, so that their digests must be equal. */
  readonly same: boolean
}

interface Row {
  readonly title: string
  readonly name: string
  readonly flows: number
  readonly distribution: string
  readonly median: number
  readonly low: number
  readonly high: number
  readonly runs: WorkerResult[]
}

const chainVariants = [
  { name: 'C twin, prefetching', variant: 'twin', wasm: false },
  { name: 'C twin, by packet', variant: 'twin-packet', wasm: false },
  { name: 'TypeScript, inlined by hand', variant: 'inlined', wasm: false },
  { name: 'NFactor, plain TypeScript', variant: 'chain', wasm: false },
  { name: 'NFactor, with kernels', variant: 'chain', wasm: true },
]

const nfVariants = ['empty', 'monitor', 'firewall', 'http', 'chain'].map((variant) =>
  ({ name: variant === 'empty' ? 'no NF' : variant === 'chain' ? 'all three' : variant, variant, wasm: true }))

export async function main(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      quick: { type: 'boolean', default: false },
      runs: { type: 'string' },
      flows: { type: 'string' },
      json: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) {
    console.log('nfactor bench engine [--quick] [--runs N] [--flows N,N,...] [--json FILE]')
    return 0
  }
  const runs = Number(values.runs ?? (values.quick ? 1 : 3))
  const flows = values.flows?.split(',').map(Number) ?? (values.quick ? [1000, 100_000] : [1000, 100_000, 1_000_000, 4_000_000])
  if (!(runs >= 1) || flows.some((n) => !(n >= 100 && n <= 5_000_000))) {
    throw new CodedError('NF_USAGE', 'bench engine: --runs takes a number from 1, --flows numbers from 100 to 5000000')
  }
  const comparisons: Comparison[] = flows.map((n) =>
    ({ title: `chain, ${n.toLocaleString('en')} flows`, flows: n, distribution: 'uniform', variants: chainVariants, same: true }))
  if (!values.quick && flows.includes(1_000_000)) {
    comparisons.push({ title: 'chain, 1,000,000 flows, Zipf', flows: 1_000_000, distribution: 'zipf', variants: chainVariants,
      same: true })
  }
  comparisons.push({ title: `each NF alone, ${(flows[0] as number).toLocaleString('en')} flows`, flows: flows[0] as number,
    distribution: 'uniform', variants: nfVariants, same: false })

  console.log(`${cpus()[0]?.model ?? 'unknown CPU'}, Node ${process.version}; time per packet, median of ${runs} run${
    runs === 1 ? '' : 's'} (lowest to highest)\n`)
  const rows: Row[] = []
  let isVoid = false
  for (const comparison of comparisons) {
    const { found, missing } = await compare(comparison, runs, values.quick)
    for (const [name, why] of missing) console.log(`${comparison.title}: ${name} left out: ${why}`)
    print(comparison, found)
    rows.push(...found)
    if (comparison.same && !sameDigests(found)) {
      isVoid = true
      console.log('The variants disagree about what they did: this comparison is void.\n')
    }
  }
  const churn = await measure<ChurnResult>(churnFile, { flows: values.quick ? 100_000 : 1_000_000 })
  console.log(`flow set-up and end under churn, ${churn.flows.toLocaleString('en')} flows alive:
  ${(1e3 / churn.perFlow).toFixed(2)} million new flows per second (${churn.perFlow.toFixed(0)} ns each, expiry included)
  a batch of 32 takes ${churn.p50.toFixed(1)} µs (median), ${churn.p999.toFixed(1)} µs (p99.9), ${
    churn.max.toFixed(1)} µs (longest)\n`)
  const chain = rows.filter((row) => row.name === 'NFactor, with kernels').sort((a, b) => b.flows - a.flows)[0]?.runs[0]
  if (chain !== undefined) {
    console.log(`memory: ${chain.recordBytes} B per flow record and ${Math.round(chain.tableBytes / chain.flows)} B of table;`,
      `JavaScript heap: ${chain.allocated.toFixed(2)} B per packet, ${chain.scavenges} collections`)
  }
  if (values.json !== undefined) {
    writeFileSync(values.json, `${JSON.stringify({ node: process.version, cpu: cpus()[0]?.model, rows, churn }, null, 1)}\n`)
    console.log(`written to ${values.json}`)
  }
  return isVoid ? 1 : 0
}

async function compare(comparison: Comparison, runs: number, quick: boolean):
Promise<{ found: Row[]; missing: Map<string, string> }> {
  const results = new Map<string, WorkerResult[]>()
  const missing = new Map<string, string>()
  // Enough for every flow to have been through all of its states, and at least a second or so.
  const chunks = Math.max(quick ? 600 : 1500, Math.ceil(comparison.flows * 9 / 4096))
  for (let run = 0; run < runs; run++) {
    for (const { name, variant, wasm } of comparison.variants) {
      if (missing.has(name)) continue
      const options: WorkerOptions = { variant, wasm, flows: comparison.flows, distribution: comparison.distribution, chunks }
      try {
        const list = results.get(name) ?? []
        list.push(await measure<WorkerResult>(workerFile, options))
        results.set(name, list)
      } catch (error) {
        missing.set(name, (error as Error).message)
      }
    }
  }
  const found = comparison.variants.flatMap(({ name }) => {
    const list = results.get(name)
    if (list === undefined) return []
    const medians = list.map((r) => r.median).sort((a, b) => a - b)
    return [{ title: comparison.title, name, flows: comparison.flows, distribution: comparison.distribution, runs: list,
      median: medians[medians.length >> 1] as number, low: medians[0] as number, high: medians.at(-1) as number }]
  })
  return { found, missing }
}

/** Runs one measurement in a process of its own. */
function measure<T>(file: string, options: object): Promise<T> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [file, JSON.stringify(options)],
      { stdio: ['ignore', 'pipe', 'pipe'], timeout: 600_000 })
    let out = ''
    let err = ''
    child.stdout.on('data', (data: Buffer) => { out += data.toString() })
    child.stderr.on('data', (data: Buffer) => { err += data.toString() })
    child.on('error', reject)
    child.on('close', (code) => {
      if (code === 0) resolve(JSON.parse(out) as T)
      else reject(new CodedError('NF_BENCH', lastLine(err) || `the measurement ended with exit code ${code}`))
    })
  })
}

function lastLine(text: string): string {
  const lines = text.trim().split('\n')
  return (lines.find((line) => /Error|NF_/.test(line)) ?? lines.at(-1) ?? '').trim()
}

function sameDigests(rows: readonly Row[]): boolean {
  const digests = rows.flatMap((row) => row.runs.map((run) => JSON.stringify(run.digest)))
  return digests.every((digest) => digest === digests[0])
}

function print(comparison: Comparison, rows: readonly Row[]): void {
  if (rows.length === 0) return
  const base = comparison.same
    ? rows.filter((row) => row.name.startsWith('C twin')).sort((a, b) => a.median - b.median)[0]
    : rows[0]
  console.log(comparison.title)
  for (const row of rows) {
    const ratio = base === undefined ? '' : `${(row.median / base.median).toFixed(2)} x`
    console.log(`  ${row.name.padEnd(30)} ${row.median.toFixed(1).padStart(7)} ns  ${
      `(${row.low.toFixed(1)} - ${row.high.toFixed(1)})`.padEnd(20)} ${
      (1000 / row.median).toFixed(2).padStart(6)} Mpps  ${ratio}`)
  }
  console.log()
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await runBenchProgram(main)
