/**
 * Closings: flows end everywhere behind their last packet. PROTOCOL 3; docs/protocol.md, "Closing".
 *
 *     idle ─▶ closing ── every switch has answered, nothing came ──▶ ended
 *               │ a packet, or a switch that holds one
 *               ▼
 *            cancelled ── every switch has answered ──▶ (an ordinary flow; only now may it close again or move)
 *
 * A flow is paused while it closes, so that the packet that cancels it is seen. An opening whose packet never came closes alike.
 */

import { planted } from '../base/planted-bugs.ts'
import { FlowRecord } from '../flow/flow-record.ts'
import { KeyBlock } from '../flow/key-table.ts'
import { CloseFlow, FlowClosed, FlowClosedReleaserIncarnation } from '../messages/closing.ts'
import { MessageField, type MessageKind } from '../messages/message.ts'
import type { MessageChannel } from '../transport/message-channel.ts'
import { AbsentBlock, begin, companionOf, epochOf, flowOf, writeKeyFrom, type RuntimeContext } from './runtime-context.ts'

interface Closing {
  readonly flow: number
  readonly epoch: number
  /** The flow's record; 0 for an opening, which has a block instead. */
  readonly record: number
  readonly block: number
  /** Switches whose answer is awaited. */
  pending: number
  isCancelled: boolean
}

export interface ClosingsHost {
  /** A flow is about to end, at this epoch. */
  ended(flow: number, epoch: number): void
  /** Who releases a flow's packets and lives, 0 for us; and the life that another runtime is in. */
  releaserOf(flow: number): number
  incarnationOf(runtime: number): number
  /** True while packets of a flow are still to leave elsewhere. */
  hasMore(flow: number): boolean
}

export class Closings {
  readonly #context: RuntimeContext
  readonly #closings = new Map<number, Closing>()
  readonly counts = { started: 0, ended: 0, cancelled: 0 }

  readonly #host: ClosingsHost

  constructor(context: RuntimeContext, host: ClosingsHost) {
    this.#context = context
    this.#host = host
  }

  get size(): number {
    return this.#closings.size
  }

  has(flow: number): boolean {
    return this.#closings.has(flow)
  }

  /** The same but for those that are cancelled: such a flow runs, and may get a replica before every switch has answered. */
  isUnderWay(flow: number): boolean {
    return this.#closings.get(flow)?.isCancelled === false
  }

  /** Begins to end a flow that is idle; nothing when there are too many at once: it is idle again later. */
  start(record: number): void {
    const context = this.#context
    if (this.#isFull()) return
    context.engine.pauseFlow(record)
    this.#begin({ flow: flowOf(context, record), epoch: epochOf(context, record), record, block: 0,
      pending: context.switches.all, isCancelled: false })
  }

  /** The same for an opening. */
  startOpening(block: number): void {
    const { arena, switches } = this.#context
    const flow = arena.f64[(block + KeyBlock.flow) >> 3]
    if (this.#isFull() || this.#closings.has(flow)) return
    this.#begin({ flow, epoch: arena.u32[(block + KeyBlock.epoch) >> 2], record: 0, block, pending: switches.all,
      isCancelled: false })
  }

  #isFull(): boolean {
    return this.#closings.size >= this.#context.limits.closings || this.#context.isStrained()
  }

  #begin(closing: Closing): void {
    const context = this.#context
    this.#closings.set(closing.flow, closing)
    this.counts.started++
    context.step('closing', 1)
    if (planted['close-without-barrier']) closing.pending = 0
    this.#tell(closing, CloseFlow, closing.pending)
    if (closing.pending === 0) this.#finish(closing)
  }

  #tell(closing: Closing, kind: MessageKind, mask: number, code = 0): void {
    const context = this.#context
    const { record, block } = closing
    const releaser = code === 1 && record !== 0 ? this.#host.releaserOf(closing.flow) : 0
    for (const id of context.switches.idsIn(mask)) {
      // The end comes behind what the flow has sent.
      const channel = code === 1 && record !== 0 ? context.inBand(id) ?? context.control(id) : context.control(id)
      const at = begin(context, channel, kind, closing.flow, closing.epoch, true)
      if (at === 0) continue
      context.arena.u8[at + MessageField.code] = code
      if (releaser !== 0) {
        context.arena.u16[(at + MessageField.node) >> 1] = releaser
        context.arena.u32[(at + FlowClosedReleaserIncarnation) >> 2] = this.#host.incarnationOf(releaser)
      }
      if (record !== 0) writeKeyFrom(context, at, record >> 2, companionOf(context, record))
      else writeKeyFrom(context, at, block >> 2, block + AbsentBlock.macs)
      ;(channel as MessageChannel).commit()
    }
  }

  /** In-band: a switch sends no more of this flow, or holds a packet of it. */
  reply(switchId: number, flow: number, isBusy: boolean): void {
    const closing = this.#closings.get(flow)
    if (closing === undefined) return this.#context.anomaly('late-close-reply')
    closing.pending &= ~this.#context.switches.bitOf(switchId)
    if (isBusy && this.cancel(flow)) return
    if (closing.pending === 0) this.#finish(closing)
  }

  /** A packet has come: the flow goes on. True if it was closing. Runs within batches. */
  cancel(flow: number): boolean {
    const closing = this.#closings.get(flow)
    if (closing === undefined || closing.isCancelled) return false
    const { engine, arena, now, switches } = this.#context
    closing.isCancelled = true
    this.counts.cancelled++
    if (closing.record !== 0) {
      engine.resumeFlow(closing.record)
      arena.f64[(closing.record + FlowRecord.lastSeen) >> 3] = now
    } else {
      arena.f64[(closing.block + AbsentBlock.since) >> 3] = now
    }
    this.#tell(closing, FlowClosed, switches.all, 0)
    if (closing.pending === 0) this.#finish(closing)
    return true
  }

  #finish(closing: Closing): void {
    const context = this.#context
    const { arena } = context
    this.#closings.delete(closing.flow)
    context.step('closing', -1)
    if (closing.isCancelled) return
    if (closing.record !== 0 && this.#host.hasMore(closing.flow)) {
      // A timer has put out a packet meanwhile, and its replica has not released it yet.
      this.#tell(closing, FlowClosed, context.switches.all, 0)
      context.engine.resumeFlow(closing.record)
      arena.f64[(closing.record + FlowRecord.lastSeen) >> 3] = context.now
      this.counts.cancelled++
      return
    }
    this.counts.ended++
    this.#tell(closing, FlowClosed, context.switches.all, 1)
    if (closing.record !== 0) {
      this.#host.ended(closing.flow, closing.epoch)
      context.engine.endFlow(closing.record)
    } else {
      context.absent.remove(closing.block)
      context.step('opening', -1)
    }
  }

  withoutSwitches(mask: number): void {
    for (const closing of [...this.#closings.values()]) {
      closing.pending &= ~mask
      if (closing.pending === 0) this.#finish(closing)
    }
  }

  /** A switch has come back. What we tell it of a flow may come behind the flow's end, so none ends before it has heard that it closes. */
  switchCame(switchId: number): void {
    const bit = this.#context.switches.bitOf(switchId)
    for (const closing of this.#closings.values()) if (!closing.isCancelled) closing.pending |= bit
  }

  /** It has been told of all flows. */
  repeatTo(switchId: number): void {
    const bit = this.#context.switches.bitOf(switchId)
    for (const closing of [...this.#closings.values()]) {
      if (!closing.isCancelled) {
        closing.pending |= bit
        this.#tell(closing, CloseFlow, bit)
        continue
      }
      // Its former self will not answer any more.
      closing.pending &= ~bit
      if (closing.pending === 0) this.#finish(closing)
    }
  }
}
