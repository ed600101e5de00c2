/**
 * Blocks of shared pools, such as the ports of an address translator: leased to incarnations through the store. PROTOCOL 23.
 *
 *     free ──▶ leased to a life ──▶ that life is fenced ──▶ no runtime reports a flow with something in it ──▶ free
 *
 * What a flow holds stays reserved wherever the flow went; so a block of a life that is gone is given out again only when its
 * flows have been recovered, and every runtime, in the present configuration, has said that no flow of its own has anything in it.
 * Reports are not of one moment, and a flow that moves could be missed between two; so they must have said it for `UNUSED_US` on end,
 * far longer than a move takes.
 */

import type { TimeUs } from '../base/clock.ts'
import type { ClusterView } from './cluster-view.ts'
import { plantedInControl } from './control-bugs.ts'

const UNUSED_US = 10e6

export interface LeasedBlock {
  readonly pool: string
  readonly number: number
  readonly incarnation: number
}

/** Since when nobody has anything in a block whose life is gone, by key. */
export type BlockMemory = ReadonlyMap<string, TimeUs>

/** The blocks to be leased now. `pools`: how many blocks each has. */
export function leaseBlocks(
  view: ClusterView, memory: BlockMemory, pools: Readonly<Record<string, number>>,
): { leased: LeasedBlock[]; memory: BlockMemory } {
  const { blocks, runtimes, cluster, fences, scale, now } = view
  const leased: LeasedBlock[] = []
  const living = new Set([...runtimes, ...scale.starting].map(({ incarnation }) => incarnation))
  const hasAllReports = runtimes.every(({ report }) => report !== null && report.configVersion === cluster.config.version) &&
    fences.every(({ isRecovered }) => isRecovered)
  const inUse = new Set(runtimes.flatMap(({ report }) => report?.blocksInUse ?? []))
  const unused = new Map<string, TimeUs>()
  for (const [key, { incarnation }] of blocks) {
    if (!living.has(incarnation) && hasAllReports && !inUse.has(key)) unused.set(key, memory.get(key) ?? now)
  }
  const isFree = (key: string): boolean => {
    if (plantedInControl['block-reused']) return !living.has(blocks.get(key)?.incarnation ?? 0)
    return !blocks.has(key) || now - (unused.get(key) ?? now) >= UNUSED_US
  }
  for (const { incarnation, report } of runtimes) {
    for (const { pool, held } of report?.blocksWanted ?? []) {
      if (blocksOf(view, pool, incarnation).length > held) continue
      for (let number = 0; number < (pools[pool] ?? 0); number++) {
        if (!isFree(`${pool}/${number}`) || leased.some((one) => one.pool === pool && one.number === number)) continue
        leased.push({ pool, number, incarnation })
        break
      }
    }
  }
  return { leased, memory: unused }
}

/** The blocks of a pool that are leased to a life. */
export function blocksOf({ blocks }: ClusterView, pool: string, incarnation: number): number[] {
  return [...blocks].filter(([key, block]) => block.incarnation === incarnation && key.startsWith(`${pool}/`))
    .map(([key]) => Number(key.slice(pool.length + 1))).sort((a, b) => a - b)
}
