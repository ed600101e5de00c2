/**
 * Report of simulated seeds, summed up for people and programs: the table "protocol phase x fault kind", and what was violated.
 */

import { allFaultKinds, looseOrder, type FaultKind } from './fault-kinds.ts'
import type { ReplicationMode } from '../runtime/replication/protection.ts'
import type { SimulationResult } from './simulation.ts'

/** Every phase of the protocols that can be open, in the order of docs/protocol.md. */
export const protocolPhases = [
  'asking', 'opening', 'placing', 'closing', 'preparing', 'cancelling', 'rerouting', 'handing', 'aborting', 'takingBack', 'prepared',
  'returning', 'inheriting', 'waiting', 'drained', 'securing', 'orphaned', 'learning', 'relearning', 'announcing', 'claiming', 'draining',
] as const

export interface SimulationSummary {
  seeds: number
  /** Seeds in which a fault struck an open protocol step. */
  counted: number
  /** In seeds with `async`: flows that lost state with their owners, the packets of it, the most of one; packets that left again. */
  readonly async: { seeds: number; flows: number; packets: number; most: number; repeated: number }
  readonly violations: { seed: number; checker: string; detail: string }[]
  readonly phases: Record<string, Partial<Record<FaultKind, number>>>
}

/** A seed of testdata/failing-seeds.json, with the mode of its replication where that is not the seed's own, and 2 where it has two replicas. */
export type FailingSeed = number | readonly [seed: number, replication: ReplicationMode, replicas?: number]

export function newSummary(): SimulationSummary {
  return { seeds: 0, counted: 0, async: { seeds: 0, flows: 0, packets: 0, most: 0, repeated: 0 }, violations: [], phases: {} }
}

/** Adds a seed's result, or another summary. */
export function addTo(summary: SimulationSummary, result: SimulationResult | SimulationSummary): void {
  if ('seeds' in result) {
    summary.seeds += result.seeds
    summary.counted += result.counted
  } else {
    summary.seeds++
    if (result.counted) summary.counted++
  }
  if (result.async !== null) {
    const { async } = summary
    const { flows, packets, most, repeated } = result.async
    async.seeds += 'seeds' in result.async ? result.async.seeds : 1
    async.flows += flows
    async.packets += packets
    async.most = Math.max(async.most, most)
    async.repeated += repeated
  }
  summary.violations.push(...result.violations)
  for (const [phase, row] of Object.entries(result.phases)) {
    const sums = summary.phases[phase] ??= {}
    for (const [fault, count] of Object.entries(row) as [FaultKind, number][]) sums[fault] = (sums[fault] ?? 0) + count
  }
}

/** Cells of the table that no fault has struck: `phase x fault`. */
export function emptyCells(summary: SimulationSummary, faults: readonly FaultKind[] = allFaultKinds): string[] {
  return protocolPhases.flatMap((phase) =>
    faults.filter((fault) => (summary.phases[phase]?.[fault] ?? 0) === 0).map((fault) => `${phase} x ${fault}`))
}

/** The table, strikes shortened to three figures. */
export function phaseTable(summary: SimulationSummary, faults: readonly FaultKind[]): string[] {
  const rows = [['phase', ...faults], ...protocolPhases.map((phase) =>
    [phase, ...faults.map((fault) => short(summary.phases[phase]?.[fault] ?? 0))])]
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => (row[column] as string).length)))
  return rows.map((row) => row.map((cell, column) =>
    (column === 0 ? cell.padEnd(widths[0]) : cell.padStart(widths[column] as number))).join('  '))
}

function short(count: number): string {
  if (count === 0) return '-'
  return count < 1000 ? `${count}` : count < 1e6 ? `${Math.floor(count / 1000)}k` : `${Math.floor(count / 1e6)}M`
}

/** How the flows of a random seed are replicated: not at all in half of them. */
export function replicationOfSeed(seed: number): ReplicationMode {
  // Those that hunt flows whose state is lost have no replicas.
  if (seed % 8 === 2) return 'none'
  if (huntsLearners(seed)) return 'commit'
  return (['none', 'commit', 'none', 'async', 'commit', 'none'] as const)[(Math.imul(seed, 0x9e3779b1) >>> 16) % 6] ?? 'none'
}

/** Faults of a random seed: a few kinds, so that every pair meets sooner or later; with two replicas mostly two crashes at once. */
export function faultsOfSeed(seed: number, replicas = 1): FaultKind[] {
  const kinds = someKinds(seed)
  if (replicas === 1 || seed % 4 === 0) return kinds
  return [...kinds.filter((kind) => seed % 4 === 1 || (kind !== 'crash' && kind !== 'poison')), 'crash-pair']
}

/** Some seeds hunt switches that learn all flows anew while those of a dead runtime are being recovered; two of three with no other faults. */
export function huntsLearners(seed: number): boolean {
  return seed % 16 === 4 || seed % 32 === 12
}
const learnersFaults: readonly FaultKind[] = ['crash', 'restart', 'pause']

function someKinds(seed: number): FaultKind[] {
  if (seed % 16 === 4) return [...learnersFaults]
  const mixed = Math.imul(seed ^ (seed >>> 16), 0x45d9f3b)
  return allFaultKinds.filter((kind, index) => {
    // Lossy links loosen what can be checked: only some seeds have them.
    const odds = looseOrder.includes(kind) ? 12 : 4
    if (huntsLearners(seed) && learnersFaults.includes(kind)) return true
    if (kind === 'crash' && (seed % 4 === 0 || seed % 8 === 2)) return true
    return (Math.imul(mixed ^ Math.imul(index + 1, 0x9e3779b1), 0x85ebca6b) >>> 16) % odds === 0
  })
}
