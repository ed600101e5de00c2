/**
 * Replica assignment: on which runtimes the flows of each are replicated, in turn. Paper §5.4.2.
 *
 * Each runtime has a list of partners and gives its flows to them round-robin. Partners are never itself, nor draining, nor fenced;
 * the draining have partners, since they own flows still. With few runtimes every other is a partner; with many,
 * `fanOut` are, and every runtime is partner of as many as any other, or one more.
 *
 * Least movement: partners that still may be one stay, unless one serves two more than another that could take its place. A flow stays
 * with its replica as long as that is on the list, so a change moves only what has to move.
 */

import type { ReplicasDocument } from './cluster-state.ts'

export interface AssignedRuntime {
  readonly id: number
  readonly incarnation: number
  readonly isDraining: boolean
}

export type ReplicaLists = ReplicasDocument['of']

export const FAN_OUT = 8

export function assignReplicas(runtimes: readonly AssignedRuntime[], former: ReplicaLists, fanOut: number = FAN_OUT): ReplicaLists {
  const primaries = [...runtimes].sort((a, b) => a.id - b.id)
  const partners = primaries.filter(({ isDraining }) => !isDraining).map(({ id }) => id)
  const lives = new Map(runtimes.map(({ id, incarnation }) => [id, incarnation]))
  const lists = new Map<number, number[]>()
  const served = new Map(partners.map((id) => [id, 0]))
  const load = (id: number): number => served.get(id) as number
  const serve = (id: number, by: number): void => { served.set(id, load(id) + by) }
  for (const { id, incarnation } of primaries) {
    const before = former[id]?.incarnation === incarnation ? former[id].replicas : []
    // A partner in another life than before has nothing; it is as good as any other, and its place is kept all the same.
    const kept = before.filter((partner) => partner !== id && served.has(partner)).slice(0, fanOut)
    lists.set(id, kept)
    for (const partner of kept) serve(partner, 1)
  }
  // In turn behind the primary, the least used first.
  const candidates = (id: number, list: readonly number[]): number[] => partners.filter((partner) => partner !== id && !list.includes(partner))
    .sort((a, b) => load(a) - load(b) || Number(a < id) - Number(b < id) || a - b)
  for (let round = 0; round < fanOut; round++) {
    for (const { id } of primaries) {
      const list = lists.get(id) as number[]
      if (list.length > round) continue
      const [next] = candidates(id, list)
      if (next === undefined) continue
      list.push(next)
      serve(next, 1)
    }
  }
  for (let isBetter = true; isBetter;) {
    isBetter = false
    for (const { id } of primaries) {
      const list = lists.get(id) as number[]
      const [least] = candidates(id, list)
      const [most] = [...list].sort((a, b) => load(b) - load(a) || a - b)
      if (least === undefined || most === undefined || load(most) - load(least) < 2) continue
      list[list.indexOf(most)] = least
      serve(most, -1)
      serve(least, 1)
      isBetter = true
    }
  }
  return Object.fromEntries([...lists].map(([id, replicas]) => [id, { incarnation: lives.get(id) as number, replicas }]))
}

/** True if both say the same. */
export function sameLists(a: ReplicaLists, b: ReplicaLists): boolean {
  const keys = Object.keys(a)
  return keys.length === Object.keys(b).length && keys.every((key) => a[key]?.incarnation === b[key]?.incarnation &&
    a[key]?.replicas.join() === b[key]?.replicas.join())
}
