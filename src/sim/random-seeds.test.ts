import { test } from 'node:test'
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { allFaultKinds } from './fault-kinds.ts'
import {
  addTo, emptyCells, type FailingSeed, faultsOfSeed, newSummary, phaseTable, replicationOfSeed, type SimulationSummary,
} from './simulation-report.ts'
import { simulate } from './simulation.ts'

const root = join(import.meta.dirname, '..', '..')
/** Seeds of a run. A process per half, so that two cores are used. */
const SEEDS = process.env.NFACTOR_FULL === '1' ? 20_000 : 800
/** The same with two replicas. */
const CHAIN_SEEDS = process.env.NFACTOR_FULL === '1' ? 1000 : 24
const start = Number(process.env.NFACTOR_SEED ?? 1)

function simulateInChild(first: number, last: number): Promise<SimulationSummary> {
  return new Promise((resolve, reject) => {
    const parameters = [join(root, 'bin/nfactor.js'), 'simulate', '--seeds', `${first}..${last}`, '--json']
    execFile(process.execPath, parameters, { maxBuffer: 2 ** 28 }, (error, output) => {
      try {
        resolve(JSON.parse(output) as SimulationSummary)
      } catch {
        reject(error ?? new Error('no JSON came'))
      }
    })
  })
}

const told = ({ violations }: { readonly violations: readonly SimulationSummary['violations'][number][] }): string[] =>
  violations.map(({ seed, checker, detail }) => `nfactor simulate --seed ${seed}: ${checker}: ${detail}`)

test('random seeds over all kinds of faults, none with a violation, every phase struck by every fault', async (t) => {
  const half = SEEDS / 2
  const summary = newSummary()
  const halves = [simulateInChild(start, start + half - 1), simulateInChild(start + half, start + SEEDS - 1)]
  for (const part of await Promise.all(halves)) addTo(summary, part)
  for (const line of phaseTable(summary, allFaultKinds)) t.diagnostic(line)
  t.diagnostic(`${summary.seeds} seeds from ${start}, ${summary.counted} counted`)
  assert.equal(summary.seeds, SEEDS)
  assert.ok(summary.counted >= SEEDS * 0.8, `only ${summary.counted} seeds counted`)
  await t.test('no violation', () => { assert.deepEqual(told(summary), []) })
  await t.test('no empty cell', () => { assert.deepEqual(emptyCells(summary), []) })
})

test('random seeds with two replicas, which two runtimes that die at once are not too many for', (t) => {
  const summary = newSummary()
  for (let seed = start; seed < start + CHAIN_SEEDS; seed++) {
    addTo(summary, simulate({ seed, replicas: 2, replication: seed % 6 === 0 ? 'async' : 'commit', faults: faultsOfSeed(seed, 2) }))
  }
  t.diagnostic(`${summary.seeds} seeds from ${start}, ${summary.counted} counted`)
  assert.deepEqual(told(summary), [])
})

test('seeds that failed once', () => {
  const seeds = JSON.parse(readFileSync(join(root, 'testdata/failing-seeds.json'), 'utf8')) as FailingSeed[]
  const run = (one: FailingSeed) => {
    const [seed, replication, replicas = 1] = typeof one === 'number' ? [one, replicationOfSeed(one)] : one
    return simulate({ seed, faults: faultsOfSeed(seed, replicas), replication, replicas })
  }
  assert.deepEqual(seeds.flatMap((seed) => told(run(seed)).slice(0, 1).map((line) => `${JSON.stringify(seed)}: ${line}`)), [])
})
