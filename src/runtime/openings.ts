/**
 * Openings: flows that a switch has placed here, and whose first packet is on its way behind that word. PROTOCOL 2, 3. That packet makes the
 * actor; where it never comes, the opening closes as a flow does.
 *
 *     switch ══FlowOpen══▶ opening (a block among absent flows) ── first packet ──▶ flow;  ── openingTimeoutUs ──▶ closing
 */

import { assert } from '../base/assert.ts'
import { planted } from '../base/planted-bugs.ts'
import { FlowRecord } from '../flow/flow-record.ts'
import { KeyBlock } from '../flow/key-table.ts'
import { copyMacs, MessageField } from '../messages/message.ts'
import { Descriptor } from '../packet/descriptor.ts'
import type { Closings } from './closings.ts'
import { AbsentBlock, AbsentKind, COMPANION_BYTES, companionOf, setFlow, type RuntimeContext } from './runtime-context.ts'

export class Openings {
  readonly #context: RuntimeContext
  readonly #closings: Closings
  /** When to look next for those whose packet has not come. */
  #nextSweep = 0

  constructor(context: RuntimeContext, closings: Closings) {
    this.#context = context
    this.#closings = closings
  }

  /** FlowOpen: a flow whose key, with this hash, has no record here. */
  begin(switchId: number, at: number, hash: number): void {
    const context = this.#context
    const { arena, absent } = context
    const flow = arena.f64[(at + MessageField.flow) >> 3]
    const key = (at + MessageField.key) >> 2
    let block = absent.find(key, hash)
    if (block === 0) {
      block = absent.add(key, hash)
      // No room: its packets go back to the switch, which gives up on them in the end.
      if (block === 0) return context.anomaly('no-room-to-open')
      context.step('opening', 1)
    } else if (arena.u8[block + KeyBlock.kind] === AbsentKind.claimed) {
      // The tuple is claimed here in vain: it is a flow of its own.
      context.step('opening', 1)
    } else if (arena.u8[block + KeyBlock.kind] !== AbsentKind.opening) {
      return
    } else if (arena.f64[(block + KeyBlock.flow) >> 3] < flow) {
      context.anomaly('opening-replaced')
    } else {
      return
    }
    arena.u8[block + KeyBlock.kind] = AbsentKind.opening
    arena.f64[(block + KeyBlock.flow) >> 3] = flow
    arena.u32[(block + KeyBlock.epoch) >> 2] = arena.u32[(at + MessageField.epoch) >> 2]
    arena.i32[(block + AbsentBlock.switch) >> 2] = switchId
    arena.f64[(block + AbsentBlock.since) >> 3] = context.now
    copyMacs(arena, at + MessageField.macs, block + AbsentBlock.macs)
  }

  /** The first packet of an opening has made its actor, which gets the flow's identity. Returns the switch that has opened it. */
  finish(record: number, d: number): number {
    const context = this.#context
    const { arena, switches } = context
    const from = arena.i32[d + Descriptor.switch]
    const hash = arena.i32[d + Descriptor.hash]
    const block = context.absent.find(d + Descriptor.key, hash)
    const companion = companionOf(context, record)
    // What has come may be an answer: the opener is at the other end then.
    const direction = ((arena.i32[d + Descriptor.meta] >>> 16) & 1) ^ arena.u8[record + FlowRecord.opener]
    arena.u8[record + FlowRecord.outputs + direction] = switches.across(from, hash)
    arena.u8[record + FlowRecord.outputs + 1 - direction] = from
    arena.u8.fill(0, companion, companion + COMPANION_BYTES)
    if (block === 0) {
      assert(planted['ghost-actor'], 'an actor is made for an opening')
      setFlow(context, record, 0, 0)
      return from
    }
    setFlow(context, record, arena.f64[(block + KeyBlock.flow) >> 3], arena.u32[(block + KeyBlock.epoch) >> 2])
    copyMacs(arena, block + AbsentBlock.macs, companion)
    const opener = arena.i32[(block + AbsentBlock.switch) >> 2]
    context.absent.remove(block)
    context.step('opening', -1)
    return opener
  }

  nextDue(): number {
    return this.#context.absent.size > 0 ? this.#nextSweep : Infinity
  }

  /** Closes those whose first packet should have come by now. */
  sweep(): void {
    const { absent, arena, now, times } = this.#context
    if (now < this.#nextSweep) return
    this.#nextSweep = now + times.openingTimeoutUs / 4
    if (absent.size === 0) return
    for (const block of absent.blocks()) {
      if (arena.u8[block + KeyBlock.kind] !== AbsentKind.opening) continue
      if (now - arena.f64[(block + AbsentBlock.since) >> 3] >= times.openingTimeoutUs) this.#closings.startOpening(block)
    }
  }
}
