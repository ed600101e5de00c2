/**
 * Outgoing moves: the source's side of migration. Paper §5.4.1, PROTOCOL 6-10; the states are those of docs/protocol.md.
 *
 *     preparing ─▶ rerouting ─▶ handing ─▶ (gone)
 *         │timeout     │timeout     │refused, or target fenced
 *         ▼            ▼            ▼
 *     cancelling    aborting    takingBack          each ends with the flow here, as it was, the last two at epoch E + 1
 *
 * The source goes on processing until every switch has sent its in-band word. Sending the record is the commit point: from then on
 * no timer gives the flow back, only the target's refusal or its fencing. While the outcome is open the record stays here, paused,
 * so taking the flow back cannot fail for want of room.
 */

import { setBounded } from '../../base/bounded.ts'
import { FlowRecord, FlowFlag } from '../../flow/flow-record.ts'
import { planted } from '../../base/planted-bugs.ts'
import { MessageField } from '../../messages/message.ts'
import {
  AbortFlow, AbortFlowSwitches, BufferedPacket, InstallFlow, InstallFlowConfigVersion, InstallFlowSwitches, MoveRefusal,
  PrepareFlow, PrepareFlowLayout, PrepareFlowReplica, PrepareFlowReplicaIncarnation, PrepareFlowSecondIncarnation,
  PrepareFlowSnapshotBytes, RerouteFlow, RerouteFlowDead, RerouteFlowDeadIncarnation, RerouteFlowOwnerIncarnation,
  RerouteFlowReleaser, RerouteFlowReleaserNow, RerouteFlowReleaserNowIncarnation, RerouteFlowReleaserIncarnation,
} from '../../messages/migration.ts'
import { MovingFlow } from '../../messages/replication.ts'
import { Descriptor } from '../../packet/descriptor.ts'
import { PacketQueue } from '../../packet/packet-queue.ts'
import type { MessageChannel } from '../../transport/message-channel.ts'
import { ALIAS_BYTES, aliasCount, writeAliases } from '../alias-claims.ts'
import { sendRetire } from '../replication/retiring.ts'
import type { Protection } from '../replication/protection.ts'
import {
  begin, COMPANION_MOVED_MS, companionOf, epochOf, flowOf, sayDrained, sendFrame, sendHead, setFlow, writeKey, type RuntimeContext,
} from '../runtime-context.ts'
import { MoveOrders } from './move-orders.ts'
import type { MoveCounts, MoveState, OutgoingMove } from './outgoing-move.ts'

const WINDOW_FIRST = 16
/** Flows that have moved on from here and are remembered; the oldest goes first. */
const GIVEN_MAX = 1024

export class OutgoingMoves {
  readonly moves = new Map<number, OutgoingMove>()
  readonly counts: MoveCounts = {
    started: 0, completed: 0, refused: 0, cancelled: 0, aborted: 0, takenBack: 0, heldLost: 0, stragglers: 0, durationUs: 0,
  }
  readonly refusals: Record<string, number> = {}
  readonly orders: MoveOrders
  readonly #context: RuntimeContext
  readonly #incarnationOf: (runtime: number) => number
  readonly #isBusy: (flow: number) => boolean
  readonly #protection: Protection
  /** By flow: how often each of its replicas was told of moves and has not answered yet. */
  readonly #told = new Map<number, Map<number, number>>()
  readonly #hasRoom = (): boolean => this.moves.size < this.#window && !this.#context.isStrained()
  readonly #isThere = (runtime: number): boolean => this.#incarnationOf(runtime) !== 0
  readonly #start = (record: number, target: number): 'begun' | 'busy' | 'no-room' => this.start(record, target)
  /** Moves at once; grows with success, halves with refusal and timeout. */
  #window: number
  /** Moves whose record waits for room in the session. */
  #ready: OutgoingMove[] = []
  #nextDeadline = Infinity
  /** Flows that have moved on from here, and the epochs that they had: a replica of before may ask late who has them. */
  readonly #given = new Map<number, number>()

  /**
   * @param incarnationOf incarnation of a runtime that is in the configuration, 0 for others
   * @param isBusy true for flows that are closing, have just come or are being secured
   */
  constructor(context: RuntimeContext, incarnationOf: (runtime: number) => number, isBusy: (flow: number) => boolean,
      protection: Protection) {
    this.#protection = protection
    this.#context = context
    this.orders = new MoveOrders(context)
    this.#window = Math.min(WINDOW_FIRST, context.limits.movesOut)
    this.#incarnationOf = incarnationOf
    this.#isBusy = isBusy
  }

  get isIdle(): boolean {
    return this.moves.size === 0 && this.orders.isEmpty
  }

  /** Begins to move one flow, if it can move now. */
  start(record: number, target: number): 'begun' | 'busy' | 'no-room' {
    const context = this.#context
    const { arena, engine, now } = context
    const flow = flowOf(context, record)
    const moving = this.moves.has(flow)
    const flags = arena.u8[record + FlowRecord.flags] & FlowFlag.paused
    if (!(planted['busy-ignored'] && moving) && (moving || flags !== 0 || this.#isBusy(flow))) return 'busy'
    // First it needs another replica.
    if (this.#protection.isDead(flow) || (planted['guarded-stays'] && this.#protection.replicaOf(flow) !== 0)) return 'busy'
    const movedMs = arena.u32[(companionOf(context, record) + COMPANION_MOVED_MS) >> 2]
    if (movedMs !== 0 && ((now / 1000) >>> 0) - movedMs < context.times.residenceUs / 1000) return 'busy'
    const channel = context.control(target)
    if (!this.#fits(record, channel)) {
      this.#countRefusal(MoveRefusal.tooLarge)
      return 'busy'
    }
    const epoch = epochOf(context, record)
    const at = begin(context, channel, PrepareFlow, flow, epoch + 1, false, aliasCount(context, record) * ALIAS_BYTES)
    if (at === 0) return 'no-room'
    writeKey(context, at, record)
    writeAliases(context, at + PrepareFlow.bytes, record)
    arena.i32[(at + PrepareFlowLayout) >> 2] = engine.layoutHash
    arena.u32[(at + PrepareFlowSnapshotBytes) >> 2] = engine.chain.recordBytes
    const [first = 0, second = 0] = this.#protection.replicasOf(flow)
    arena.u32[(at + PrepareFlowReplica) >> 2] = first | second << 8
    arena.u32[(at + PrepareFlowReplicaIncarnation) >> 2] = this.#incarnationOf(first)
    arena.u32[(at + PrepareFlowSecondIncarnation) >> 2] = this.#incarnationOf(second)
    ;(channel as MessageChannel).commit()
    this.#markMoved(record)
    const move: OutgoingMove = {
      flow, record, before: epoch, target, startedAt: now, isMarking: false, state: 'preparing', deadline: 0, pending: 0, passed: 0, told: 0,
      markers: 0, targetDone: false, deadIncarnation: 0, mustClaim: false, returned: new PacketQueue(arena), held: new PacketQueue(arena),
    }
    this.moves.set(flow, move)
    context.step('preparing', 1)
    this.#arm(move)
    this.counts.started++
    return 'begun'
  }

  #markMoved(record: number): void {
    const { arena, now } = this.#context
    arena.u32[(companionOf(this.#context, record) + COMPANION_MOVED_MS) >> 2] = (now / 1000) >>> 0 || 1
  }

  #arm(move: OutgoingMove): void {
    move.deadline = this.#context.now + this.#context.times.moveTimeoutUs
    if (move.deadline < this.#nextDeadline) this.#nextDeadline = move.deadline
  }

  /** True for a flow that stands still because its record is on its way, or comes back. */
  isPaused(flow: number): boolean {
    const state = this.moves.get(flow)?.state
    return state === 'handing' || state === 'aborting' || state === 'takingBack'
  }

  #become(move: OutgoingMove, state: MoveState): void {
    this.#context.step(move.state, -1)
    this.#context.step(state, 1)
    move.state = state
    this.#arm(move)
  }

  /** The move is over; the flow is here, or gone. */
  #end(move: OutgoingMove): void {
    this.#context.step(move.state, -1)
    this.moves.delete(move.flow)
  }

  #shrink(): void {
    this.#window = Math.max(1, this.#window >> 1)
  }

  // -- Messages ------------------------------------------------------------------------------------------------------

  prepareReply(flow: number, epoch: number, refusal: number): void {
    const move = this.#find(flow, epoch, 1, 'preparing')
    if (move === null) return
    if (refusal !== MoveRefusal.none) {
      this.#countRefusal(refusal)
      this.#end(move)
      return
    }
    const replicas = this.#protection.replicasOf(flow)
    if (replicas.length === 0) return this.#startRerouting(move)
    move.isMarking = true
    this.#tellReplicas(move.flow, replicas, epoch, move.target)
  }

  /** Tells a flow's replicas where it is about to move, 0 for nowhere. */
  #tellReplicas(flow: number, replicas: readonly number[], epoch: number, target: number): void {
    const before = this.#told.get(flow)
    this.#told.set(flow, new Map(replicas.map((replica) => [replica, (before?.get(replica) ?? 0) + 1])))
    for (const replica of replicas) sendHead(this.#context, this.#context.control(replica), MovingFlow, flow, epoch, 0, target)
  }

  /** A replica of the flow knows that it moves. */
  movingReply(replica: number, flow: number): void {
    const told = this.#told.get(flow)
    const count = told?.get(replica)
    if (told === undefined || count === undefined) return
    // Only the answer to the last word counts: others are of moves that are off.
    if (count > 1) {
      told.set(replica, count - 1)
      return
    }
    told.delete(replica)
    if (told.size > 0) return
    this.#told.delete(flow)
    const move = this.moves.get(flow)
    if (move?.state === 'preparing' && move.isMarking) this.#startRerouting(move)
  }

  /** True while one of a flow's replicas has not answered what it was told. */
  isTelling(flow: number): boolean {
    return this.#told.has(flow)
  }

  /** True for a flow whose record is on its way, or on its way back. */
  mayTakeBack(flow: number): boolean {
    const state = this.moves.get(flow)?.state
    return state === 'handing' || state === 'takingBack'
  }

  /** True for a flow that has moved on from here, and was here at this epoch or a higher one. */
  gaveOn(flow: number, epoch: number): boolean {
    return (this.#given.get(flow) ?? 0) >= epoch
  }

  /** The flow's replica hears that it stays. */
  #tellReplicaStays(move: OutgoingMove, epoch: number): void {
    const replicas = this.#protection.replicasOf(move.flow)
    if (replicas.length > 0) this.#tellReplicas(move.flow, replicas, epoch, 0)
  }

  #startRerouting(move: OutgoingMove): void {
    this.#become(move, 'rerouting')
    move.pending = this.#context.switches.all
    this.#reroute(move, move.pending)
    if (move.pending === 0) this.#ready.push(move)
  }

  #countRefusal(refusal: number): void {
    this.counts.refused++
    const name = Object.entries(MoveRefusal).find(([, number]) => number === refusal)?.[0] ?? 'unknown'
    this.refusals[name] = (this.refusals[name] ?? 0) + 1
    // A flow that is too large says nothing of the target.
    if (refusal !== MoveRefusal.tooLarge) this.#shrink()
  }

  /** Tells the switches in `mask` where the flow's packets are to go at this stage of the move. */
  #reroute(move: OutgoingMove, mask: number): void {
    const context = this.#context
    const back = move.state === 'aborting' || move.state === 'takingBack'
    const owner = back ? context.self : move.target
    const now = this.#protection.releaserOf(move.flow)
    // Going back before anything has left, the flow keeps its replica.
    const releaser = move.state === 'aborting' ? now : 0
    for (const id of context.switches.idsIn(mask)) {
      const channel = context.control(id)
      const at = begin(context, channel, RerouteFlow, move.flow, move.before + (back ? 2 : 1), true)
      if (at === 0) continue
      context.arena.u16[(at + MessageField.node) >> 1] = owner
      context.arena.u32[(at + RerouteFlowOwnerIncarnation) >> 2] = back ? context.incarnation : this.#incarnationOf(owner)
      context.arena.u32[(at + RerouteFlowDead) >> 2] = back && move.deadIncarnation !== 0 ? move.target : 0
      context.arena.u32[(at + RerouteFlowDeadIncarnation) >> 2] = move.deadIncarnation
      context.arena.u32[(at + RerouteFlowReleaser) >> 2] = releaser
      context.arena.u32[(at + RerouteFlowReleaserNow) >> 2] = back ? 0 : now
      context.arena.u32[(at + RerouteFlowReleaserNowIncarnation) >> 2] = back || now === 0 ? 0 : this.#incarnationOf(now)
      context.arena.u32[(at + RerouteFlowReleaserIncarnation) >> 2] = releaser === 0 ? 0 : this.#incarnationOf(releaser)
      writeKey(context, at, move.record)
      ;(channel as MessageChannel).commit()
      move.told |= context.switches.bitOf(id)
    }
  }

  /** A switch has sent its last packet before the change, in-band. */
  rerouteReply(switchId: number, flow: number, epoch: number): void {
    const move = this.moves.get(flow)
    if (move === undefined) return this.#context.anomaly('late-reroute-reply')
    const bit = this.#context.switches.bitOf(switchId)
    if (epoch === move.before + 1) {
      move.passed |= bit
      if (move.state === 'aborting') return this.#finishGoingBack(move)
      if (move.state !== 'rerouting') return
      move.pending &= ~bit
      if (move.pending === 0) this.#ready.push(move)
    } else if (epoch === move.before + 2 && (move.markers & bit) !== 0) {
      // A restarted switch: it had sent the target nothing, so its word comes here.
      move.markers &= ~bit
      this.#sendAbort(move)
    } else {
      this.#context.anomaly('stale-reroute-reply')
    }
  }

  /** True if a flow's record is not longer than a message to its target may be. */
  #fits(record: number, channel: MessageChannel | null): boolean {
    return channel?.messageBytesMax === undefined ||
      InstallFlow.bytes + this.#context.engine.exportBytes(record) <= channel.messageBytesMax
  }

  /** Step 3: the record leaves. False when there is no room for it yet. */
  #hand(move: OutgoingMove): boolean {
    const context = this.#context
    const { arena, engine } = context
    const channel = context.control(move.target)
    if (this.#protection.isDead(move.flow)) {
      // Its replica has died: it needs another before it goes anywhere.
      this.#abort(move, false)
      return true
    }
    // What has not left yet would be lost with us.
    if (this.#protection.hasKept(move.flow)) return false
    if (!this.#fits(move.record, channel)) {
      // It has grown meanwhile.
      this.#countRefusal(MoveRefusal.tooLarge)
      this.#abort(move, false)
      return true
    }
    const at = begin(context, channel, InstallFlow, move.flow, move.before + 1, false, engine.exportBytes(move.record))
    if (at === 0) return false
    engine.exportFlowTo(move.record, at + InstallFlow.bytes)
    this.#writeSwitches(at + InstallFlowSwitches, context.switches.all)
    arena.u32[(at + InstallFlowConfigVersion) >> 2] = context.configVersion
    ;(channel as MessageChannel).commit()
    engine.pauseFlow(move.record)
    this.#sayDrained(move, move.before + 1)
    this.#become(move, 'handing')
    return true
  }

  /** Whoever releases the flow's frames has sent the last one. */
  #sayDrained(move: OutgoingMove, epoch: number): void {
    const context = this.#context
    const releaser = this.#protection.releaserOf(move.flow)
    if (releaser !== 0) return sendRetire(context, releaser, move.flow, epoch)
    sayDrained(context, move.flow, epoch)
  }

  #writeSwitches(at: number, mask: number): void {
    for (const id of this.#context.switches.idsIn(mask)) this.#context.arena.u8[at++] = id
  }

  installReply(flow: number, epoch: number, refusal: number): void {
    const move = this.#find(flow, epoch, 1, 'handing')
    if (move === null) return
    if (refusal !== MoveRefusal.none) {
      this.#countRefusal(refusal)
      this.#takeBack(move, false)
      return
    }
    if (planted['state-left-behind']) {
      this.#end(move)
      return
    }
    this.#complete(move)
  }

  /**
   * The key of a flow whose record is on its way has been placed anew: so that flow has lived on at its target, and has ended there,
   * although the target's answer has not come yet. True if it was so.
   */
  supersede(flow: number, newer: number): boolean {
    const move = this.moves.get(flow)
    if (move?.state !== 'handing' || newer <= flow) return false
    this.#complete(move)
    return true
  }

  #complete(move: OutgoingMove): void {
    setBounded(this.#given, move.flow, move.before, GIVEN_MAX)
    this.#told.delete(move.flow)
    this.#protection.ended(move.flow)
    this.#context.engine.removeFlow(move.record)
    this.#end(move)
    this.counts.completed++
    this.counts.durationUs += this.#context.now - move.startedAt
    if (this.#window < this.#context.limits.movesOut) this.#window++
  }

  // -- When it goes wrong --------------------------------------------------------------------------------------------

  /** Behind step 2, before step 3: a move back at the next epoch (PROTOCOL 8). */
  #abort(move: OutgoingMove, targetIsGone: boolean): void {
    this.counts.aborted++
    this.#shrink()
    this.#ready = this.#ready.filter((ready) => ready !== move)
    this.#become(move, 'aborting')
    this.#context.engine.pauseFlow(move.record)
    this.#protection.goesBack(move.flow, move.before + 2)
    this.#goBack(move, targetIsGone)
  }

  /** Behind step 3. */
  #takeBack(move: OutgoingMove, targetIsGone: boolean): void {
    this.counts.takenBack++
    // The target may have released what the flow held before it died: rather lost with it than sent twice.
    const { engine } = this.#context
    const { handedOver } = engine.statistics
    if (targetIsGone) engine.giveHeldAway(move.record)
    this.counts.heldLost += engine.statistics.handedOver - handedOver
    this.#become(move, 'takingBack')
    this.#goBack(move, targetIsGone)
    // The switches may still await the replica's last word of the move that failed.
    if (this.#protection.releaserOf(move.flow) !== 0) this.#sayDrained(move, move.before + 2)
  }

  #goBack(move: OutgoingMove, targetIsGone: boolean): void {
    const context = this.#context
    setFlow(context, move.record, move.flow, move.before + 2)
    move.pending = context.switches.all
    move.markers = context.switches.all
    move.targetDone = targetIsGone
    if (targetIsGone) move.deadIncarnation = context.ended.get(move.target) ?? 0
    // Those in a new life that have not heard of the move have sent nothing before it.
    move.passed |= context.switches.all & ~move.told
    move.told = 0
    this.#reroute(move, context.switches.all)
    if (!targetIsGone) this.#sendAbort(move)
    if (planted['abort-without-buffer']) move.targetDone = true
    this.#finishGoingBack(move)
  }

  #sendAbort(move: OutgoingMove): void {
    const context = this.#context
    const channel = context.control(move.target)
    const at = begin(context, channel, AbortFlow, move.flow, move.before + 2, true)
    if (at === 0) return
    this.#writeSwitches(at + AbortFlowSwitches, move.markers)
    ;(channel as MessageChannel).commit()
  }

  /** The target has given back all that it had. */
  abortReply(flow: number, epoch: number): void {
    const move = this.moves.get(flow)
    if (move?.state === 'cancelling' && epoch === move.before + 1) {
      this.#end(move)
    } else if (move !== undefined && epoch === move.before + 2) {
      move.targetDone = true
      this.#finishGoingBack(move)
    } else {
      this.#context.anomaly('late-abort-reply')
    }
  }

  /** A switch accepts our packets again; it has accepted `released` frames of the flow's replica. */
  go(switchId: number, flow: number, epoch: number, released: number): boolean {
    this.#protection.accepted(switchId, flow, epoch, released)
    const move = this.moves.get(flow)
    if (move === undefined || epoch !== move.before + 2) return false
    move.pending &= ~this.#context.switches.bitOf(switchId)
    this.#finishGoingBack(move)
    return true
  }

  #finishGoingBack(move: OutgoingMove): void {
    if (!move.targetDone || (move.state === 'takingBack' && move.pending !== 0)) return
    const context = this.#context
    // What a switch sent here before the move comes ahead of what it sent to the target.
    const isLate = (move.returned.count > 0 || move.mustClaim) && (context.switches.all & ~move.passed) !== 0
    if (move.state === 'aborting' && isLate && !planted['abort-without-buffer']) return
    this.#end(move)
    const isTakenBack = move.state === 'takingBack'
    if ((isTakenBack && this.#protection.isOn) || move.mustClaim) {
      // Its replica is to be replaced, and goes on asking should we die.
      move.returned.takeAll(move.held)
      const dead = move.mustClaim ? { owner: move.target, ownerIncarnation: move.deadIncarnation, inputs: null } : null
      return this.#protection.securings.secure(move.record, move.returned, { isReleaser: isTakenBack, dead })
    }
    this.#tellReplicaStays(move, move.before + 2)
    context.engine.resumeFlow(move.record)
    context.buffered -= move.returned.count + move.held.count
    context.run(move.returned, move.held)
  }

  /** A packet that the target had buffered comes back. */
  returnedPacket(flow: number, frame: number, length: number, switchId: number): void {
    const context = this.#context
    const move = this.moves.get(flow)
    const back = move !== undefined && (move.state === 'aborting' || move.state === 'takingBack') && !move.targetDone
    const queue = back ? move.returned : new PacketQueue(context.arena)
    context.countTakenOver(1)
    if (back && context.buffered >= context.limits.buffered) {
      context.drop(0, 'move-buffer')
    } else if (!queue.pushFrame(context.arena, context.engine.pool, frame, length, switchId)) {
      context.drop(0, 'no-slot')
    } else if (back) {
      context.buffered++
    } else {
      context.anomaly('late-buffered-packet')
      context.run(queue)
    }
  }

  // -- Packets of flows that move ------------------------------------------------------------------------------------

  /** A packet of a paused flow. True: taken. */
  take(move: OutgoingMove, d: number): boolean {
    const context = this.#context
    const { i32 } = context.arena
    const slot = i32[d + Descriptor.slot]
    if (move.state === 'handing') {
      this.counts.stragglers++
      if (planted['straggler-lost']) {
        context.engine.pool.give(slot)
      } else if (sendFrame(context, context.control(move.target), BufferedPacket, move.flow, move.before + 1,
        i32[d + Descriptor.frame], i32[d + Descriptor.length], true, 1, i32[d + Descriptor.switch])) {
        context.countHandedOver(1)
        context.engine.pool.give(slot)
      } else {
        context.drop(slot, 'straggler')
      }
      return true
    }
    const from = context.switches.bitOf(i32[d + Descriptor.switch])
    // One that is gone may have sent it behind packets that are held, or ahead of all.
    const isAhead = from === 0 ? move.held.count === 0 : (move.passed & from) === 0
    if (move.state === 'aborting' && isAhead) return false
    if (move.held.count >= context.limits.bufferedPerFlow || context.buffered >= context.limits.buffered) {
      context.drop(slot, 'move-buffer')
    } else {
      move.held.push(d)
      context.buffered++
    }
    return true
  }

  // -- Time, configuration -------------------------------------------------------------------------------------------

  #find(flow: number, epoch: number, above: number, state: MoveState): OutgoingMove | null {
    const move = this.moves.get(flow)
    if (move !== undefined && move.before + above === epoch && move.state === state) return move
    this.#context.anomaly('late-move-reply')
    return null
  }

  /** A time before which nothing is due here. */
  nextDue(): number {
    const isWorking = this.#ready.length > 0 || (!this.orders.isEmpty && this.moves.size < this.#window)
    return isWorking ? this.#context.now + 100 : this.#nextDeadline
  }

  /** @param mayHand false while a switch has yet to hear what it is to do about moves: none ends before it has */
  tick(mayHand = true): void {
    if (this.#ready.length > 0 && mayHand) {
      const ready = this.#ready
      this.#ready = []
      for (const move of ready) if (move.state === 'rerouting' && !this.#hand(move)) this.#ready.push(move)
    }
    if (this.#nextDeadline <= this.#context.now) this.#timeouts()
    this.#work()
  }

  #timeouts(): void {
    const { now } = this.#context
    this.#nextDeadline = Infinity
    for (const move of this.moves.values()) {
      if (move.deadline <= now) this.#late(move)
      if (this.moves.has(move.flow) && move.deadline < this.#nextDeadline) this.#nextDeadline = move.deadline
    }
  }

  /** Calls a move off, if it still can be: something happens to the flow that does not go with moving. */
  callOff(flow: number): void {
    const move = this.moves.get(flow)
    if (move?.state === 'preparing') this.#cancel(move)
    else if (move?.state === 'rerouting') this.#abort(move, false)
  }

  #cancel(move: OutgoingMove): void {
    const context = this.#context
    this.counts.cancelled++
    this.#shrink()
    this.#become(move, 'cancelling')
    const channel = context.control(move.target)
    const at = begin(context, channel, AbortFlow, move.flow, move.before + 1, true)
    if (at !== 0) (channel as MessageChannel).commit()
    this.#tellReplicaStays(move, move.before)
  }

  #late(move: OutgoingMove): void {
    const context = this.#context
    move.deadline = context.now + context.times.moveTimeoutUs
    switch (move.state) {
      case 'preparing':
        this.#cancel(move)
        return
      case 'rerouting':
        this.#abort(move, false)
        return
      case 'handing':
        if (planted['take-back-by-timer']) {
          this.#takeBack(move, false)
          move.targetDone = true
          move.pending = 0
          this.#finishGoingBack(move)
          return
        }
        context.anomaly('silent-target')
        return
      default:
        context.anomaly(`slow-${move.state}`)
    }
  }

  /** Begins ordered moves while the window has room. */
  #work(): void {
    if (!this.orders.isEmpty) this.orders.work(this.#hasRoom, this.#isThere, this.#start)
  }

  /** Runtimes that are fenced. */
  fenced(runtime: number): void {
    for (const move of [...this.moves.values()]) {
      if (move.target !== runtime) continue
      switch (move.state) {
        case 'preparing': case 'cancelling': this.#end(move); break
        case 'rerouting': this.#abort(move, true); break
        case 'handing': this.#takeBack(move, true); break
        default:
          if (!move.targetDone) this.#claimFromDead(move)
          move.targetDone = true
          this.#finishGoingBack(move)
      }
    }
  }

  /** The switches have been told that the flow goes back, and not yet that its target is dead: what they take back of it is asked for. */
  #claimFromDead(move: OutgoingMove): void {
    const context = this.#context
    move.deadIncarnation = context.ended.get(move.target) ?? 0
    move.mustClaim = true
    // What has not been given back, as some of the buffer has not, is in the links from its beginning on.
    if (!this.#protection.givesBackLate) return
    context.buffered -= move.returned.count
    for (let slot = move.returned.shift(); slot !== 0; slot = move.returned.shift()) context.drop(slot, 'former-life')
  }

  /** True while the switches are to hear of a flow whose target is dead. */
  get isClaiming(): boolean {
    for (const { mustClaim } of this.moves.values()) if (mustClaim) return true
    return false
  }

  /** What these runtimes, which are fenced, were told is not answered: what was told them as they were being fenced included. */
  forgetTold(runtimes: readonly number[]): void {
    for (const [flow, told] of this.#told) {
      for (const runtime of runtimes) told.delete(runtime)
      if (told.size === 0) this.#told.delete(flow)
    }
  }

  /** Switches that are gone for good. */
  withoutSwitches(mask: number): void {
    for (const move of [...this.moves.values()]) {
      const waited = move.pending !== 0
      move.pending &= ~mask
      move.markers &= ~mask
      if (move.state === 'rerouting' && waited && move.pending === 0) this.#ready.push(move)
      else if (move.state === 'aborting' || move.state === 'takingBack') {
        if (!move.targetDone) this.#sendAbort(move)
        this.#finishGoingBack(move)
      }
    }
  }

  /** Switches in a new life: they have sent nothing before a move that goes back, and their packets go behind those of the life before. */
  switchesCame(mask: number): void {
    for (const move of this.moves.values()) {
      move.told &= ~mask
      if (move.state === 'aborting') move.passed |= mask
    }
  }

  /** A switch has come back. Its life before may have sent the target packets already: those to come go behind them, not here. */
  rerouteAgain(move: OutgoingMove, switchId: number): void {
    const bit = this.#context.switches.bitOf(switchId)
    if ((move.told & bit) !== 0) return
    move.pending |= bit
    this.#ready = this.#ready.filter((ready) => ready !== move)
    this.#reroute(move, bit)
  }

  /** A switch has come back knowing nothing: what it was to do is said again. */
  repeatTo(switchId: number): void {
    const bit = this.#context.switches.bitOf(switchId)
    for (const move of this.moves.values()) {
      if (move.state === 'rerouting') this.rerouteAgain(move, switchId)
      else if (move.state === 'aborting' || move.state === 'takingBack') {
        // Said again, it would answer us, and not the target, behind what it may have sent there.
        if ((move.told & bit) !== 0) continue
        if (move.state === 'takingBack') move.pending |= bit
        else move.passed |= bit
        this.#reroute(move, bit)
      }
    }
  }
}
