/**
 * Reading watch: in `commit` a runtime reads nothing while too much waits for its replicas. One that takes nothing for long stops its own flows
 * and no others (PROTOCOL 16): so a runtime that keeps flows at several does not leave its links unread for long.
 *
 *     share   while switches and links do what they should, and no node stands still, frames do not wait for a runtime that reads none
 *
 * The control network may do what it likes: what is cut off, or late, is what makes a replica slow.
 */

import type { RuntimeNode } from '../node/runtime-node.ts'
import type { SimNode, Simulation } from './simulation.ts'
import { hasTrailer } from './trailer.ts'

/** Longer than a replica may take nothing before it is slow, and than the turns take in which that is found out. */
const UNREAD_US = 8000

export class ReadingWatch {
  readonly #simulation: Simulation
  /** By a runtime's incarnation: frames that it had read when it was looked at, and since when it has read no more while some wait. */
  #before = new Map<number, { readonly received: number; readonly since: number }>()

  constructor(simulation: Simulation) {
    this.#simulation = simulation
  }

  /** False while a runtime may wait for a switch, for room in a link, or for its own turn. */
  get #isFluent(): boolean {
    const { network, nodes } = this.#simulation
    const { faults } = network
    return !network.isFull && faults['link-loss'] + faults['link-delay'] + faults['link-duplication'] + faults['link-reordering'] === 0 &&
      nodes.every(({ isPaused, slowUs, node, isSwitch }) => !isPaused && slowUs === 0 && (node !== null || !isSwitch))
  }

  /** True for a runtime for which packets wait, and not in-band messages alone, and whose flows have replicas at several others. */
  #couldRead({ node, links }: SimNode): boolean {
    if (!links.values().some((link) => link.hasWaiting(hasTrailer))) return false
    const { flows, replicaOf } = node as RuntimeNode
    const replicas = new Set<number>()
    for (const { flow } of flows()) replicas.add(replicaOf(flow))
    replicas.delete(0)
    return replicas.size > 1
  }

  look(): void {
    const { queue, ledger } = this.#simulation
    const next = new Map<number, { readonly received: number; readonly since: number }>()
    if (this.#isFluent) {
      for (const one of this.#simulation.liveRuntimes()) {
        if (!this.#couldRead(one)) continue
        const received = one.links.values().reduce((sum, link) => sum + link.received, 0)
        const before = this.#before.get(one.incarnation)
        const since = before?.received === received ? before.since : queue.now
        next.set(one.incarnation, { received, since })
        if (queue.now - since < UNREAD_US) continue
        ledger.violate('share', `runtime ${one.id} has read nothing for ${(queue.now - since) / 1000} ms, though not all its flows' replicas ` +
          'are out of reach')
        next.delete(one.incarnation)
      }
    }
    this.#before = next
  }
}
