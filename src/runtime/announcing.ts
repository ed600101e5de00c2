/**
 * Announcing: a switch that has come (back) knowing nothing is told of all flows and openings here, as far as there is room, and then that
 * this was all. PROTOCOL 21. A flow that comes here meanwhile is announced to it as it comes.
 *
 *     switch (new life) ──▶ AnnounceFlow, for each flow and each opening ──▶ what each protocol has under way, again ──▶ AnnounceDone
 */

import { FlowPhase, FlowRecord } from '../flow/flow-record.ts'
import { KeyBlock } from '../flow/key-table.ts'
import {
  AnnouncedPhase, AnnounceDone, AnnounceFlow, AnnounceFlowOwnerIncarnation, AnnounceFlowReleaser, AnnounceFlowReleaserIncarnation,
} from '../messages/announcing.ts'
import { MessageField } from '../messages/message.ts'
import type { MessageChannel } from '../transport/message-channel.ts'
import { ALIAS_BYTES, aliasCount, writeAliases, type AliasClaims } from './alias-claims.ts'
import type { Closings } from './closings.ts'
import type { IncomingMoves } from './migration/incoming-moves.ts'
import type { OutgoingMove } from './migration/outgoing-move.ts'
import type { OutgoingMoves } from './migration/outgoing-moves.ts'
import type { Protection } from './replication/protection.ts'
import { AbsentBlock, AbsentKind, begin, epochOf, flowOf, sendHead, writeKey, writeKeyFrom, type RuntimeContext } from './runtime-context.ts'

interface Announcement {
  readonly flows: Iterator<number>
  /** A flow that found no room yet; 0 if there is none. */
  record: number
  /** The same for openings, behind the flows. */
  readonly openings: Iterator<number>
  block: number
  readonly since: number
  /** All flows have been told of; `AnnounceDone` waits for what is on its way here. */
  isTold: boolean
}

/** Whose words say where a flow is, and what is under way with it. */
export interface AnnouncingHost {
  readonly outgoing: OutgoingMoves
  readonly incoming: IncomingMoves
  readonly closings: Closings
  readonly claims: AliasClaims
  readonly protection: Protection
  /** Incarnation of another runtime of the configuration, 0 for none. */
  incarnationOf(runtime: number): number
}

export class Announcing {
  readonly #context: RuntimeContext
  readonly #host: AnnouncingHost
  /** By switch. */
  readonly #announcements = new Map<number, Announcement>()

  constructor(context: RuntimeContext, host: AnnouncingHost) {
    this.#context = context
    this.#host = host
  }

  /** True while a switch has not been told of everything. */
  has(switchId: number): boolean {
    return this.#announcements.has(switchId)
  }

  get isUnderWay(): boolean {
    return this.#announcements.size > 0
  }

  /** False while a switch that has come (back) is being told of our flows: its word about one would be of before it knew it. */
  get isKnownToAll(): boolean {
    for (const { isTold } of this.#announcements.values()) if (!isTold) return false
    return true
  }

  /** A switch is there anew: it is to hear of all flows. */
  begin(switchId: number): void {
    const context = this.#context
    if (!this.#announcements.has(switchId)) context.step('announcing', 1)
    const [flows, openings] = [context.engine.flows(), context.absent.blocks()]
    this.#announcements.set(switchId, { flows, record: 0, openings, block: 0, since: context.now, isTold: false })
  }

  /** Gives up on switches that are gone. */
  configured(): void {
    const context = this.#context
    for (const id of [...this.#announcements.keys()]) {
      if (context.switches.bitOf(id) !== 0) continue
      this.#announcements.delete(id)
      context.step('announcing', -1)
    }
  }

  tick(): void {
    for (const id of this.#announcements.keys()) this.#announce(id)
  }

  /** Goes on announcing all flows to a switch that has come (back), as far as there is room. */
  #announce(switchId: number): void {
    const context = this.#context
    const announcement = this.#announcements.get(switchId) as Announcement
    for (;;) {
      if (announcement.record === 0) {
        const next = announcement.flows.next()
        if (next.done === true) break
        announcement.record = next.value
      }
      const phase = context.arena.u8[announcement.record + FlowRecord.phase]
      const isFlow = (phase === FlowPhase.active || phase === FlowPhase.lingering) && !this.#isToClaim(announcement.record)
      if (isFlow && !this.announceFlow(switchId, announcement.record)) return
      announcement.record = 0
    }
    while (!announcement.isTold) {
      if (announcement.block === 0) {
        const next = announcement.openings.next()
        if (next.done === true) break
        announcement.block = next.value
      }
      const isOpening = context.arena.u8[announcement.block + KeyBlock.kind] === AbsentKind.opening
      if (isOpening && !this.#announceOpening(switchId, announcement.block)) return
      announcement.block = 0
    }
    if (!announcement.isTold) {
      announcement.isTold = true
      this.#host.closings.repeatTo(switchId)
      this.#host.outgoing.repeatTo(switchId)
      this.#host.incoming.repeatTo(switchId)
      this.#host.protection.securings.repeatTo(switchId)
      this.#host.claims.repeatTo(switchId)
    }
    // What is yet to be claimed has not been announced: its claim goes ahead of our last word.
    if (this.#host.protection.securings.isClaiming) return
    // A flow that was on its way here, or whose opening is in a link yet, may have been announced neither by its source nor, so far, by us.
    if (this.#host.incoming.hasPreparedBefore(announcement.since) || !context.hasRead(announcement.since)) return
    // Nothing is placed here before every switch knows us, or it would refuse what we send.
    for (const id of context.switches.idsIn(context.switches.all)) if (!context.hasHeard(id)) return
    sendHead(context, context.control(switchId), AnnounceDone, 0, 0)
    this.#announcements.delete(switchId)
    context.step('announcing', -1)
  }

  /**
   * True for a flow whose owner has died and that is yet to be claimed: to a switch that has come back, too, the claim says all. Should the
   * flow live on elsewhere, we take back what we said at the claim's epoch; what had been announced before that would stay for ever.
   */
  #isToClaim(record: number): boolean {
    const securing = this.#host.protection.securing.get(flowOf(this.#context, record))
    return securing?.isPromotion === true && !securing.isRerouted
  }

  /** Tells a switch of a flow; false when there is no room. */
  announceFlow(switchId: number, record: number, reserved = false): boolean {
    const context = this.#context
    const { arena } = context
    const flow = flowOf(context, record)
    const move = this.#host.outgoing.moves.get(flow)
    const { epoch, owner, phase } = this.#standing(record, flow, move)
    if (move?.state === 'rerouting') this.#host.outgoing.rerouteAgain(move, switchId)
    const channel = context.control(switchId)
    const at = begin(context, channel, AnnounceFlow, flow, epoch, reserved, aliasCount(context, record) * ALIAS_BYTES)
    if (at === 0) return false
    arena.u8[at + MessageField.code] = phase
    arena.u16[(at + MessageField.node) >> 1] = owner
    arena.u32[(at + AnnounceFlowOwnerIncarnation) >> 2] = owner === context.self ? context.incarnation : this.#host.incarnationOf(owner)
    // What is being taken back was released by its replica for the last time.
    const releaser = owner === context.self && move?.state !== 'takingBack' ? this.#host.protection.releaserOf(flow) : 0
    arena.u32[(at + AnnounceFlowReleaser) >> 2] = releaser
    arena.u32[(at + AnnounceFlowReleaserIncarnation) >> 2] = this.#host.incarnationOf(releaser)
    writeKey(context, at, record)
    writeAliases(context, at + AnnounceFlow.bytes, record)
    ;(channel as MessageChannel).commit()
    return true
  }

  /** Who has a flow, and how, in the words of a switch. */
  #standing(record: number, flow: number, move: OutgoingMove | undefined): { epoch: number; owner: number; phase: number } {
    const isGiven = move?.state === 'handing' || move?.state === 'rerouting'
    if (isGiven) return { epoch: move.before + 1, owner: move.target, phase: AnnouncedPhase.handedOver }
    const securing = this.#host.protection.securing.get(flow)
    // No switch has been told of the change yet.
    if (securing?.isRerouted === false) return { epoch: securing.epoch - 1, owner: this.#context.self, phase: AnnouncedPhase.owned }
    const isWaiting = this.#host.incoming.moves.get(flow)?.state === 'waiting' || move?.state === 'takingBack' || securing !== undefined
    return { epoch: epochOf(this.#context, record), owner: this.#context.self, phase: isWaiting ? AnnouncedPhase.waiting : AnnouncedPhase.owned }
  }

  /** The same for a flow whose first packet has not come. */
  #announceOpening(switchId: number, block: number): boolean {
    const context = this.#context
    const { arena } = context
    const channel = context.control(switchId)
    const at = begin(context, channel, AnnounceFlow, arena.f64[(block + KeyBlock.flow) >> 3], arena.u32[(block + KeyBlock.epoch) >> 2], false)
    if (at === 0) return false
    arena.u8[at + MessageField.code] = AnnouncedPhase.owned
    arena.u16[(at + MessageField.node) >> 1] = context.self
    arena.u32[(at + AnnounceFlowOwnerIncarnation) >> 2] = context.incarnation
    writeKeyFrom(context, at, block >> 2, block + AbsentBlock.macs)
    ;(channel as MessageChannel).commit()
    return true
  }
}
