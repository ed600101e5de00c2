/**
 * Guards: which replicas each flow here has, and which flows want others. A flow is guarded; or *bare*, without a replica or with one that is
 * dead or at a runtime that is to become empty, to be secured as soon as that can be; or *thin*, with fewer than it is to have.
 */

import { COMPANION_REPLICA, companionOf, epochOf, type RuntimeContext } from '../runtime-context.ts'
import { createGuard, type Guard } from './guard.ts'

export class Guards {
  readonly counts = { guarded: 0, bare: 0, secured: 0, resent: 0 }
  /** Records of flows that are to be secured, by flow; and of those that have fewer replicas than they are to have. */
  readonly bare = new Map<number, number>()
  readonly thin = new Map<number, number>()
  readonly #context: RuntimeContext
  readonly #replicas: number
  readonly #guards = new Map<number, Guard>()
  /** The same by the records' places in their slab. PERF: looked up per packet; undefined where there is none. */
  readonly #byRecord: (Guard | undefined)[] = []

  /** @param replicas how many a flow is to have */
  constructor(context: RuntimeContext, replicas: number) {
    this.#context = context
    this.#replicas = replicas
  }

  get(flow: number): Guard | undefined {
    return this.#guards.get(flow)
  }

  has(flow: number): boolean {
    return this.#guards.has(flow)
  }

  /** The guard of the flow at a record. */
  at(record: number): Guard | undefined {
    return this.#byRecord[this.#context.engine.slab.indexOf(record)]
  }

  all(): IteratorObject<Guard> {
    return this.#guards.values()
  }

  /** A flow's outputs go to a chain of replicas from now on. */
  add(flow: number, record: number, chain: readonly number[], isAdopted: boolean): Guard {
    const context = this.#context
    const replica = chain[0] as number
    const guard = createGuard(flow, record, replica, isAdopted, { tail: chain.at(-1), generation: epochOf(context, record) })
    if (chain.length < this.#replicas) this.thin.set(flow, record)
    this.note(guard)
    this.counts.guarded++
    context.arena.u16[(companionOf(context, record) + COMPANION_REPLICA) >> 1] = replica
    return guard
  }

  /** Notes the guard of a flow whose record is here. */
  note(guard: Guard): void {
    const { flow, record } = guard
    this.#guards.set(flow, guard)
    const index = this.#context.engine.slab.indexOf(record)
    while (this.#byRecord.length <= index) this.#byRecord.push(undefined)
    this.#byRecord[index] = guard
  }

  /** A flow has this guard, noted or not, no more. */
  remove({ flow, record }: Guard): void {
    this.#guards.delete(flow)
    this.#context.arena.u16[(companionOf(this.#context, record) + COMPANION_REPLICA) >> 1] = 0
    this.#byRecord[this.#context.engine.slab.indexOf(record)] = undefined
  }

  /** No replica is to be had for a flow. */
  leaveBare(flow: number, record: number): void {
    this.bare.set(flow, record)
    this.counts.bare++
  }

  /** A replica is dead, or has refused: the flow is to get another. */
  die(guard: Guard): void {
    guard.isDead = true
    this.bare.set(guard.flow, guard.record)
  }

  /** The flow wants no replica for now. */
  wantsNone(flow: number): void {
    this.bare.delete(flow)
    this.thin.delete(flow)
  }
}
