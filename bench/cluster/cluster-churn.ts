/**
 * Cluster churn: flows come and go through a whole cluster, one packet each, and what the nodes keep is looked at when none is left,
 * before and after.
 */

import { BenchCluster } from './bench-cluster.ts'

/** What is in use, in all nodes together. */
export interface Kept {
  readonly heapBytes: number
  /** Flow records and switch entries that have ever been used. */
  readonly records: number
  readonly extents: number
  readonly slots: number
  readonly flows: number
}

export interface ChurnResult {
  readonly arrivals: number
  readonly before: Kept
  readonly after: Kept
  /** Most flows alive at once, at both runtimes. */
  readonly alive: number
  /** CPU time per flow, from its first packet to its last entry. */
  readonly us: number
}

const ROUND = 10_000
const ROUNDS_BEFORE = 10
const TIMEOUT_S = 0.004

/** @param collect collects garbage */
export function churnCluster(arrivals: number, collect: () => void): ChurnResult {
  const cluster = new BenchCluster(2 * ROUND, TIMEOUT_S)
  let next = 0
  let alive = 0
  const run = (flows: number): void => {
    for (const end = next + flows; next < end; next += ROUND) {
      cluster.arrive(next, ROUND)
      alive = Math.max(alive, cluster.runtimes[0].engine.table.size + cluster.runtimes[1].engine.table.size)
    }
    cluster.empty()
  }
  const kept = (): Kept => {
    collect()
    const { runtimes, switches } = cluster
    const nodes = [...runtimes, ...switches]
    return {
      heapBytes: process.memoryUsage().heapUsed,
      records: runtimes.reduce((sum, { engine }) => sum + engine.slab.highWater, 0),
      extents: runtimes.reduce((sum, { engine }) => sum + engine.extents.used, 0),
      slots: nodes.reduce((sum, node) => sum + node.slotsUsed, 0),
      flows: nodes.reduce((sum, node) => sum + [...node.flows()].length, 0),
    }
  }
  run(ROUND * ROUNDS_BEFORE)
  const before = kept()
  const started = process.cpuUsage()
  run(arrivals)
  const { user, system } = process.cpuUsage(started)
  const drops = [...cluster.runtimes, ...cluster.switches].map((node) => node.dropReasons())
  if (drops.some((reasons) => Object.keys(reasons).length > 0)) throw new Error(`packets were dropped: ${JSON.stringify(drops)}`)
  return { arrivals, before, after: kept(), alive, us: (user + system) / arrivals }
}
