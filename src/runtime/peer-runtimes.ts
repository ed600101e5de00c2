/**
 * Peer runtimes: the other runtimes of the configuration, each in its life; which chains they have, and which of them may keep replicas of
 * flows here. PROTOCOL 15, 24. Each is told of our chain, so that it can take our flows and leave us replicas of its own.
 */

import type { RuntimeEntry } from '../messages/cluster-config.ts'
import { AnnounceChain } from '../messages/migration.ts'
import type { MessageChannel } from '../transport/message-channel.ts'
import { isChainLayout, layoutHash, type ChainLayout } from './flow-snapshot.ts'
import { begin, isTooLong, type RuntimeContext } from './runtime-context.ts'

/** What a configuration has changed. */
export interface PeerChange {
  /** Runtimes of which a life is over, with that life. */
  readonly fenced: readonly (readonly [id: number, incarnation: number])[]
  /** Those that are there anew. */
  readonly come: readonly number[]
}

export class PeerRuntimes {
  readonly #context: RuntimeContext
  /** Incarnations by id. */
  #lives = new Map<number, number>()
  /** Layouts of their chains, of those whose flows ours can take. */
  readonly #layouts = new Map<number, ChainLayout>()
  readonly #ownLayout: Uint8Array
  /** Runtimes that have been told of our chain. */
  readonly #told = new Set<number>()
  /** Runtimes of the configuration that are to get no new flows. */
  #draining = new Set<number>()
  /** Runtimes that have asked for no more replicas, for they are to be emptied. */
  readonly #stopped = new Set<number>()
  #keepers: readonly number[] = []

  constructor(context: RuntimeContext) {
    this.#context = context
    this.#ownLayout = new TextEncoder().encode(JSON.stringify(context.engine.layout))
  }

  /** Takes a configuration's runtimes. */
  configure(entries: readonly RuntimeEntry[]): PeerChange {
    const before = this.#lives
    const lives = new Map(entries.filter(({ id }) => id !== this.#context.self).map((r) => [r.id, r.incarnation]))
    this.#lives = lives
    this.#draining = new Set(entries.filter(({ isDraining }) => isDraining).map(({ id }) => id))
    const fenced = [...before].filter(([id, incarnation]) => lives.get(id) !== incarnation)
    for (const [id] of fenced) {
      this.#layouts.delete(id)
      this.#told.delete(id)
      this.#stopped.delete(id)
    }
    this.#findKeepers()
    return { fenced, come: [...lives.keys()].filter((id) => before.get(id) !== lives.get(id)) }
  }

  get ids(): IterableIterator<number> {
    return this.#lives.keys()
  }

  has(id: number): boolean {
    return this.#lives.has(id)
  }

  /** The life that a runtime is in, 0 for one that there is not. */
  incarnationOf(id: number): number {
    return this.#lives.get(id) ?? 0
  }

  isThere(id: number, incarnation: number): boolean {
    return this.#lives.get(id) === incarnation
  }

  // -- Chains --------------------------------------------------------------------------------------------------------

  /** Runtimes that have told what chain they have, of those whose flows ours can take. */
  get known(): IterableIterator<number> {
    return this.#layouts.keys()
  }

  /** Layout of a source's chain, null for one like ours, undefined when its flows cannot be taken. */
  layoutOf(source: number, hash: number): ChainLayout | null | undefined {
    if (hash === this.#context.engine.layoutHash) return null
    const layout = this.#layouts.get(source)
    return layout !== undefined && layoutHash(layout) === hash ? layout : undefined
  }

  /** AnnounceChain: false if it makes no sense. */
  chainAnnounced(peer: number, at: number, bytes: number): boolean {
    const { arena, engine } = this.#context
    let layout: unknown
    try {
      const text = arena.u8.slice(at + AnnounceChain.bytes, at + bytes)
      const own = this.#ownLayout
      // As a rule all have the same chain.
      const isOwn = text.length === own.length && own.every((byte, index) => byte === text[index])
      layout = isOwn ? engine.layout : JSON.parse(new TextDecoder().decode(text))
    } catch {
      return false
    }
    this.#layouts.delete(peer)
    const takes = isChainLayout(layout) ? engine.takesLayout(layout) : null
    if (takes === true) this.#layouts.set(peer, layout as ChainLayout)
    this.#findKeepers()
    return takes !== null
  }

  /** True while a runtime has not been told of our chain. */
  get isTelling(): boolean {
    return this.#told.size < this.#lives.size
  }

  /** Tells the layout of our chain to those that have not heard it. */
  tick(): void {
    if (!this.isTelling) return
    const context = this.#context
    // The frames of a replica would overtake our word about it at a switch that does not know us yet.
    for (const id of context.switches.idsIn(context.switches.all)) if (!context.hasHeard(id)) return
    const own = this.#ownLayout
    for (const id of this.#lives.keys()) {
      if (this.#told.has(id)) continue
      const channel = context.control(id)
      const at = begin(context, channel, AnnounceChain, 0, 0, false, own.length)
      // Without it other versions of this chain refuse our flows.
      if (isTooLong(channel, AnnounceChain, own.length)) this.#told.add(id)
      if (at === 0) continue
      context.arena.u8.set(own, at + AnnounceChain.bytes)
      ;(channel as MessageChannel).commit()
      this.#told.add(id)
    }
  }

  // -- Who may keep replicas -----------------------------------------------------------------------------------------

  /** Runtimes that may keep replicas of flows here: those with the same chain that are to stay. */
  get keepers(): readonly number[] {
    return this.#keepers
  }

  #findKeepers(): void {
    const { engine } = this.#context
    this.#keepers = [...this.#lives.keys()].filter((id) => {
      const layout = this.#layouts.get(id)
      return layout !== undefined && !this.isLeaving(id) && layoutHash(layout) === engine.layoutHash
    })
  }

  /** True for a runtime that is to become empty: what it keeps for others is to be kept elsewhere. */
  isLeaving(id: number): boolean {
    return this.#draining.has(id) || this.#stopped.has(id)
  }

  /** A runtime wants no more replicas, or does again. */
  stopKeeping(id: number, isStopped: boolean): void {
    if (isStopped) this.#stopped.add(id)
    else this.#stopped.delete(id)
    this.#findKeepers()
  }
}
