/**
 * Handing on: what the first replica of a chain does with a step that it has stored. It keeps the frames, as the owner does, sends the tail the
 * step, and tells the owner what the tail has released. PROTOCOL 14, 16. Without slots for a step it takes no more of them: the owner, which
 * keeps them, gives the flow another chain.
 */

import { planted } from '../../base/planted-bugs.ts'
import { AdoptFlowReply, AdoptRefusal, padded, StepsHeld, StepsHeldOutputs } from '../../messages/replication.ts'
import { Descriptor } from '../../packet/descriptor.ts'
import { SLOT_BYTES, SLOT_FRAME_OFFSET } from '../../packet/packet-pool.ts'
import { begin, sendHead, type RuntimeContext } from '../runtime-context.ts'
import type { Guard } from './guard.ts'
import type { Replica } from './replica.ts'
import type { Steps } from './steps.ts'

export class HandingOn {
  readonly #context: RuntimeContext
  readonly #steps: () => Steps
  /** First replicas whose owners are to hear what the tail has released. */
  readonly #toTell = new Set<Replica>()

  constructor(context: RuntimeContext, steps: () => Steps) {
    this.#context = context
    this.#steps = steps
  }

  /** True while an owner is to hear what the tail of its chain has released. */
  get isTelling(): boolean {
    return this.#toTell.size > 0
  }

  /** True if there are slots for the frames of a step. */
  hasSlots(frame: number, frames: number): boolean {
    const { arena, engine } = this.#context
    let long = 0
    for (let i = 0; i < frames; i++) {
      const length = arena.u32[frame >> 2]
      if (length > SLOT_BYTES - SLOT_FRAME_OFFSET) long++
      frame += 8 + padded(length)
    }
    return engine.pool.available >= frames - long && engine.pool.availableLarge >= long
  }

  /** The first of a chain keeps what it hands on until the tail has released it. */
  handOn(replica: Replica, guard: Guard, frame: number, frames: number): void {
    const context = this.#context
    const { i32, u32 } = context.arena
    const steps = this.#steps()
    replica.outputs += replica.pending.count + frames
    for (let slot = replica.pending.shift(); slot !== 0; slot = replica.pending.shift()) {
      const d = slot >> 2
      context.buffered--
      steps.keep(guard, i32[d + Descriptor.switch], slot, i32[d + Descriptor.frame], i32[d + Descriptor.length])
    }
    for (let i = 0; i < frames; i++) {
      const length = u32[frame >> 2]
      steps.keepCopy(guard, u32[(frame + 4) >> 2], frame + 8, length)
      frame += 8 + padded(length)
    }
    steps.mark(guard)
    if (planted['chain-ack-early']) this.#toTell.add(replica)
  }

  /** The tail has released more: the owner is to hear so. */
  held({ copy }: Guard): void {
    this.#toTell.add(copy as Replica)
  }

  /** The first of a chain has no room for a step: its owner hears so when the tail has all that came before. */
  fill(replica: Replica): void {
    const context = this.#context
    replica.isFull = true
    for (let slot = replica.pending.shift(); slot !== 0; slot = replica.pending.shift()) {
      // Its owner keeps them.
      context.buffered--
      context.countHandedOver(1)
      context.engine.pool.give(slot)
    }
    this.#toTell.add(replica)
  }

  /** Tells owners how far the tails of their chains have come. */
  tellHeld(): void {
    const context = this.#context
    for (const replica of this.#toTell) {
      const { guard, owner, flow, generation } = replica
      const channel = context.control(owner)
      if (guard === null || channel === null) {
        this.#toTell.delete(replica)
        continue
      }
      const at = begin(context, channel, StepsHeld, flow, generation, true)
      if (at === 0) return
      context.arena.u32[(at + StepsHeldOutputs) >> 2] = planted['chain-ack-early'] ? replica.outputs : guard.given
      channel.commit()
      this.#toTell.delete(replica)
      if (replica.isFull && guard.first === null) sendHead(context, channel, AdoptFlowReply, flow, generation, AdoptRefusal.noRoom)
    }
  }

  /** A replica goes, with what it keeps: its owner has that, too, or it is lost with the owner. */
  forget(replica: Replica): void {
    this.#toTell.delete(replica)
    if (replica.guard === null) return
    this.#steps().forget(replica.guard, ({ slot }, isUnsent) => {
      if (isUnsent) this.#context.countHandedOver(1)
      this.#context.engine.pool.give(slot)
    })
    replica.guard = null
  }
}
