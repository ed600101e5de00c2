/**
 * Fencing: which lives are to end for good, and the one transaction that ends them. PROTOCOL 7, 18.
 *
 *     health of a node                          fenced
 *     dead, its process is known to have ended  at once
 *     dead                                      at once; but if more than half of all nodes go silent together, after `massUs`
 *     partitioned from us, heard by others      a runtime after `partitionedUs`; a switch never (held flows, never two owners)
 *     unknown (we are cut off)                  never
 *     well, but others do not hear it           after `lastingUs`, one of each two: the one that more others miss; a runtime before a
 *                                               switch; the younger
 *
 * All that are to be fenced at one time go in one transaction, so that `Recover` names all the dead. It raises the configuration's
 * version and the fence generation, and needs no answer from the fenced. Fencing the living is safe: it costs a recovery.
 */

import type { TimeUs } from '../base/clock.ts'
import type { FenceReason } from './cluster-state.ts'
import { isReachable, type ClusterView, type RuntimeView, type SwitchView } from './cluster-view.ts'
import { plantedInControl as planted } from './control-bugs.ts'
import type { Draft } from './state-mirror.ts'

export interface FencingLimits {
  readonly massUs: number
  readonly partitionedUs: number
  readonly lastingUs: number
}

export const defaultFencingLimits: FencingLimits = { massUs: 2e6, partitionedUs: 30e6, lastingUs: 2e6 }

export interface FencedNow {
  readonly node: number
  readonly incarnation: number
  readonly reason: FenceReason
}

/** Since when what lasts has lasted, by what it is. */
export type FencingMemory = ReadonlyMap<string, TimeUs>

export function decideFencing(
  view: ClusterView, memory: FencingMemory, limits: FencingLimits = defaultFencingLimits,
): { fenced: FencedNow[]; memory: FencingMemory } {
  const { now } = view
  const since = new Map<string, TimeUs>()
  const lasts = (what: string): number => {
    const began = memory.get(what) ?? now
    since.set(what, began)
    return now - began
  }
  const nodes: (SwitchView | RuntimeView)[] = [...view.switches.filter(({ incarnation }) => incarnation !== 0), ...view.runtimes]
  const fenced: FencedNow[] = []
  const silent = nodes.filter(({ health, hasEnded }) => health === 'dead' && !hasEnded)
  const isMass = silent.length * 2 > nodes.length
  for (const one of nodes) {
    const { id, incarnation, health, hasEnded, silenceUs } = one
    if (hasEnded || (health === 'dead' && (!isMass || silenceUs >= limits.massUs))) {
      fenced.push({ node: id, incarnation, reason: 'dead' })
    } else if (health === 'partitioned' && lasts(`partitioned ${incarnation}`) >= limits.partitionedUs && 'chain' in one) {
      fenced.push({ node: id, incarnation, reason: 'partitioned' })
    }
  }
  // Silence between two that we hear both. One at a time: it may be the cause of all of it.
  const missed = new Map<number, Set<number>>()
  for (const { id, unheardBy } of nodes.filter(isReachable)) {
    for (const other of unheardBy) {
      if (!nodes.some((one) => one.id === other && isReachable(one))) continue
      if (lasts(`silent ${id} ${other}`) < limits.lastingUs) continue
      for (const [a, b] of [[id, other], [other, id]] as const) missed.set(a, (missed.get(a) ?? new Set()).add(b))
    }
  }
  const [worst] = nodes.filter(({ id }) => missed.has(id)).sort((a, b) => Number('chain' in b) - Number('chain' in a) ||
    (missed.get(b.id)?.size ?? 0) - (missed.get(a.id)?.size ?? 0) || b.incarnation - a.incarnation)
  if (fenced.length === 0 && worst !== undefined) fenced.push({ node: worst.id, incarnation: worst.incarnation, reason: 'silent' })
  return { fenced, memory: since }
}

/** The fencing itself: configuration, generation and fence list in one transaction. */
export function fence(draft: Draft, view: ClusterView, fenced: readonly FencedNow[]): Draft {
  const { cluster, term, now } = view
  const { config } = cluster
  const gone = new Set(fenced.map(({ incarnation }) => incarnation))
  const generation = cluster.generation + 1
  for (const { node, incarnation, reason } of fenced) {
    draft.put('fence', incarnation, { node, incarnation, generation, term, chain: cluster.chains[incarnation] ?? 0, reason,
      isRecovered: reason === 'drained', at: now })
  }
  return draft.put('cluster', '', {
    ...cluster, generation,
    chains: Object.fromEntries(Object.entries(cluster.chains).filter(([incarnation]) => !gone.has(Number(incarnation)))),
    config: {
      ...config, version: config.version + (planted['version-reused'] ? 0 : 1),
      runtimes: config.runtimes.filter(({ incarnation }) => !gone.has(incarnation)),
      // A switch that is down keeps its place, so that flow keys keep their homes.
      switches: config.switches.map((one) => (gone.has(one.incarnation) ? { ...one, incarnation: 0 } : one)),
    },
  })
}

/** How a recovery stands: PROTOCOL 18, (b) and (c). */
export interface RecoveryState {
  /** Every node that can be reached has cut off all that are fenced: replicas may be promoted. */
  readonly isAcknowledged: boolean
  /** Every runtime has promoted what it had of them. */
  readonly isRecovered: boolean
}

export function recoveryState({ cluster, runtimes, switches }: ClusterView): RecoveryState {
  const { generation } = cluster
  const living = [...switches.filter(({ incarnation }) => incarnation !== 0), ...runtimes]
  return {
    isAcknowledged: living.every((one) => !isReachable(one) || (one.report?.generation ?? 0) >= generation),
    isRecovered: runtimes.every(({ report }) => (report?.recovered ?? 0) >= generation),
  }
}
