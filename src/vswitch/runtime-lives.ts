/**
 * Runtime lives: which runtimes a switch knows of, in which life (incarnation) each is, and which lives are over. What configurations have
 * named, and what the runtimes have said of themselves since.
 */

import type { RuntimeEntry } from '../messages/cluster-config.ts'

export interface RuntimeState {
  readonly id: number
  readonly incarnation: number
  isDraining: boolean
  /** It has asked not to get new flows. */
  isStopped: boolean
  busyPerMille: number
  flows: number
  /** Flows that were placed there since it last said how many it has. */
  placed: number
  /** It has announced all its flows to us. */
  hasAnnounced: boolean
  /** The newest configuration that it has taken. */
  applied: number
}

export class RuntimeLives {
  /** The newest configuration. */
  #version = 0
  #byId = new Map<number, RuntimeState>()
  /** Those of the configuration, in its order. */
  list: readonly RuntimeState[] = []
  /** The newest incarnation of each runtime that any configuration has named, those that are gone included. */
  readonly #newest = new Map<number, number>()

  /** Takes a configuration's runtimes. Returns those whose life is over now. */
  configure(entries: readonly RuntimeEntry[], version: number): RuntimeState[] {
    this.#version = version
    const before = this.#byId
    this.#byId = new Map(entries.map((entry) => [entry.id, stateOf(entry, before.get(entry.id))]))
    this.list = [...this.#byId.values()]
    for (const { id, incarnation } of entries) this.#newest.set(id, Math.max(incarnation, this.#newest.get(id) ?? 0))
    return [...before.values()].filter((old) => !this.isLive(old.id, old.incarnation))
  }

  /** True when every runtime has said all that it has to say of those that the configuration has fenced. */
  get haveApplied(): boolean {
    return !this.list.some(({ applied }) => applied < this.#version)
  }

  /** True when a runtime has taken a configuration that we have not heard of. */
  get isBehind(): boolean {
    return this.list.some(({ applied }) => applied > this.#version)
  }

  get(runtime: number): RuntimeState | undefined {
    return this.#byId.get(runtime)
  }

  /** True for a runtime of the configuration, in whatever life. */
  has(runtime: number): boolean {
    return this.#byId.has(runtime)
  }

  isLive(runtime: number, incarnation: number): boolean {
    return this.#byId.get(runtime)?.incarnation === incarnation
  }

  /** True for a life that is over; one that we have not heard of yet is not. */
  isFenced(runtime: number, incarnation: number): boolean {
    return !this.isLive(runtime, incarnation) && incarnation <= (this.#newest.get(runtime) ?? 0)
  }

  /** True for a life, by the lower 16 bits of its incarnation, that is not over as far as is known here. */
  isLife(runtime: number, life: number): boolean {
    const newer = (life - (this.#newest.get(runtime) ?? 0)) & 0xffff
    return newer === 0 ? this.#byId.has(runtime) : newer < 0x8000
  }

  /** A runtime, unless this life of it is over, though its next may be here: then 0. */
  unlessFenced(runtime: number, incarnation: number): number {
    return runtime !== 0 && this.isFenced(runtime, incarnation) ? 0 : runtime
  }

  /** A runtime has said how much it has to do. */
  workload(runtime: number, busyPerMille: number, flows: number): void {
    const state = this.#byId.get(runtime)
    if (state !== undefined) Object.assign(state, { busyPerMille, flows, placed: 0 })
  }

  /** A runtime gets no new flows any more, or does again. False if there is none of this id. */
  stopPlacing(runtime: number, isStopped: boolean): boolean {
    const state = this.#byId.get(runtime)
    if (state !== undefined) state.isStopped = isStopped
    return state !== undefined
  }

  /** The life that a runtime of the configuration is in, 0 for others. */
  incarnationOf(runtime: number): number {
    return this.#byId.get(runtime)?.incarnation ?? 0
  }
}

/** What is known of a runtime from now on: of a life that goes on, what was. */
function stateOf({ id, incarnation, isDraining }: RuntimeEntry, old: RuntimeState | undefined): RuntimeState {
  if (old !== undefined && old.incarnation === incarnation) {
    old.isDraining = isDraining
    return old
  }
  return { id, incarnation, isDraining, isStopped: false, busyPerMille: 0, flows: 0, placed: 0, hasAnnounced: false, applied: 0 }
}
