/**
 * Coordinator: the one actor of a runtime that speaks with other nodes. Paper §5.1, §6.2. It opens flows where switches have placed
 * them, ends them, moves them, and tells restarted switches of them; docs/protocol.md is its specification.
 *
 *     switch ══FlowOpen══▶ opening ──first packet──▶ flow (in the engine) ──idle──▶ closing ──▶ gone
 *     source ──PrepareFlow──▶ prepared ──InstallFlow──▶ waiting ──Go──▶ flow ──order──▶ an outgoing move
 *
 * It is the engine's flow manager: packets of unknown and of paused flows come here. Messages are handled between batches, one at
 * a time; what cannot be sent for want of room is tried again at the next tick.
 */

import { planted } from '../base/planted-bugs.ts'
import { FlowRecord, KEY_WORDS } from '../flow/flow-record.ts'
import { KeyBlock } from '../flow/key-table.ts'
import { copyFlowKey, flowKeysEqual } from '../flow/flow-key.ts'
import {
  ConfigApplied, StopPlacing, StopPlacingReply, Workload, WorkloadBusy, WorkloadDrops, WorkloadFlows, WorkloadPackets, WorkloadQueue,
} from '../messages/announcing.ts'
import { CloseFlowReply } from '../messages/closing.ts'
import type { ClusterConfig, SwitchEntry } from '../messages/cluster-config.ts'
import { isWellFormed, MessageField } from '../messages/message.ts'
import {
  AbortFlow, AbortFlowReply, AnnounceChain, BufferedPacket, Go, GoReleased, InstallFlow, InstallFlowReply, PrepareFlow,
  PrepareFlowReply, RerouteFlowReply,
} from '../messages/migration.ts'
import {
  AdoptFlow, AdoptFlowReply, AdoptMember, AskFlow, AskFlowReply, CommitStep, ForgetFlow, MovingFlow, MovingFlowReply, ReleasePacket,
  RetireFlow, RetireFlowConfigVersion, HurryFlow, StepsHeld, StepsHeldOutputs, YieldFlow,
} from '../messages/replication.ts'
import { ClaimAliasReply } from '../messages/aliasing.ts'
import { homeSwitchOf } from '../messages/home-switch.ts'
import { FlowOpen, ReturnPacket } from '../messages/placement.ts'
import { Descriptor, DESCRIPTOR_BYTES, Meta } from '../packet/descriptor.ts'
import { PacketQueue } from '../packet/packet-queue.ts'
import type { MessageChannel } from '../transport/message-channel.ts'
import { ALIAS_WORDS, AliasClaims } from './alias-claims.ts'
import { Announcing } from './announcing.ts'
import { Closings } from './closings.ts'
import { Draining } from './draining.ts'
import type { FlowManager } from './flow-manager.ts'
import { IncomingMoves } from './migration/incoming-moves.ts'
import { OutgoingMoves } from './migration/outgoing-moves.ts'
import { Openings } from './openings.ts'
import { PeerRuntimes } from './peer-runtimes.ts'
import { Protection, type ReplicationMode } from './replication/protection.ts'
import type { Replica } from './replication/replica.ts'
import { Replicas } from './replication/replicas.ts'
import type { Guard } from './replication/guard.ts'
import {
  AbsentKind, begin, beginBind, COMPANION_BYTES, companionOf, epochOf, expectsQuoted, flowOf, sendFrame, sendHead, setFlow, writeKey,
  type RuntimeContext,
} from './runtime-context.ts'

/**
 * How far above the last epoch that it knows of a promoted replica begins: an owner may have tried so often since its last word. Twice as far
 * where it had to ask: another may have been promoted before, and have died.
 */
const PROMOTION_EPOCHS = 8

/** Result of asking a flow to go somewhere. */
export type MoveAnswer = '' | 'unknown-runtime' | 'self' | 'no-such-flow'

export interface CoordinatorOptions {
  readonly replication: ReplicationMode
  /** In `async`: outputs of a flow between two copies of its record. */
  readonly every: number
  /** True for a runtime that does not die when our machine does. */
  readonly isApart?: ((runtime: number) => boolean) | undefined
  /** How many replicas a flow has, 1 or 2. */
  readonly replicas: number
  /** Sends a frame to a switch and counts it. */
  release(switchId: number, frame: number, length: number): void
}

export interface CoordinatorLoad {
  /** Share of the time that the node works, in thousandths. */
  busyPerMille: number
  packets: number
  drops: number
  queueDepth: number
}

export class Coordinator {
  readonly outgoing: OutgoingMoves
  readonly incoming: IncomingMoves
  readonly closings: Closings
  readonly claims: AliasClaims
  readonly replicas: Replicas
  readonly protection: Protection
  readonly draining: Draining
  readonly #context: RuntimeContext
  readonly #runtimes: PeerRuntimes
  readonly #openings: Openings
  readonly #announcing: Announcing
  readonly #scratch: number
  #switches: readonly SwitchEntry[] = []
  #nextWorkload = 0
  /** Switches that are still to hear that we have taken the configuration. */
  #applying = 0

  constructor(context: RuntimeContext, options: CoordinatorOptions) {
    this.#context = context
    this.draining = new Draining(context)
    const runtimes = this.#runtimes = new PeerRuntimes(context)
    const incarnationOf = (id: number): number => runtimes.incarnationOf(id)
    this.replicas = new Replicas(context, {
      release: (switchId, frame, length) => { options.release(switchId, frame, length) },
      // What is being taken back, or may yet be, lives here too.
      owns: (key, flow, epoch) => this.outgoing.mayTakeBack(flow) || this.#owns(key, flow, epoch),
      gaveOn: (flow, epoch) => this.outgoing.gaveOn(flow, epoch),
      yields: (flow, replica) => this.incoming.yields(flow, replica),
      isContested: (key) => {
        const here = this.#findKept(key)
        return here !== 0 && this.protection.securing.get(flowOf(context, here))?.isPromotion === true
      },
      promote: (replica, kept) => { this.#promote(replica, kept) },
      steps: () => this.protection.steps, incarnationOf,
      isSecuring: (flow, tail, generation) => this.protection.isSecuringFrom(flow, tail, generation),
      securing: () => this.protection.securing.size, secured: () => this.protection.counts.secured,
      runtimes: () => runtimes.ids,
    })
    this.protection = new Protection(context, {
      mode: options.replication, every: options.every, replicas: options.replicas,
      candidates: () => runtimes.keepers, knownRuntimes: () => runtimes.known,
      isApart: options.isApart ?? (() => false), isLeaving: (id) => runtimes.isLeaving(id),
      isWithheld: (flow) => this.outgoing.moves.get(flow)?.state === 'aborting' || this.claims.has(flow),
      incarnationOf,
      held: (guard) => { this.replicas.handingOn.held(guard) },
      release: (switchId, frame, length) => { options.release(switchId, frame, length) },
      isBusy: (flow) => this.closings.isUnderWay(flow) || this.outgoing.moves.has(flow) || this.outgoing.isTelling(flow) ||
        this.incoming.has(flow) || this.claims.has(flow),
      isPaused: (flow) => this.closings.has(flow) || this.incoming.moves.has(flow) || this.outgoing.isPaused(flow),
    })
    this.#scratch = context.arena.allocate('coordinator: key', DESCRIPTOR_BYTES) >> 2
    this.closings = new Closings(context, {
      ended: (flow, epoch) => { this.protection.ended(flow, epoch + 1) },
      hasMore: (flow) => this.protection.hasKept(flow), releaserOf: (flow) => this.protection.lastReleaserOf(flow),
      incarnationOf,
    })
    this.#openings = new Openings(context, this.closings)
    const hashOf = (key: number): number => {
      this.#find(key)
      return context.arena.i32[this.#scratch + Descriptor.hash]
    }
    this.claims = new AliasClaims(context, (key) => homeSwitchOf(context.arena.i32, key, this.#switches), hashOf)
    this.outgoing = new OutgoingMoves(context, incarnationOf,
      (flow) => this.closings.has(flow) || this.incoming.has(flow) || this.claims.has(flow) || this.protection.securing.has(flow),
      this.protection)
    this.incoming = new IncomingMoves(context, {
      isDraining: () => this.draining.isOn,
      announce: (record, switchId) => { this.#announcing.announceFlow(switchId, record, true) },
      recordOf: (key) => this.#find(key),
      hashOf,
      layoutOf: (source, hash) => runtimes.layoutOf(source, hash),
      installed: (flow) => { this.replicas.owned(flow) },
      hasReplica: (flow) => this.replicas.has(flow),
      isThere: (runtime, incarnation) => runtimes.isThere(runtime, incarnation),
      runtimes: () => runtimes.ids,
    }, this.protection)
    const { outgoing, incoming, closings, claims, protection } = this
    this.#announcing = new Announcing(context, { outgoing, incoming, closings, claims, protection, incarnationOf })
  }

  /** The record of the key at a word index, 0 if there is none. Leaves the key's hash in the scratch descriptor. */
  #find(key: number): number {
    copyFlowKey(this.#context.arena.i32, key, this.#scratch + Descriptor.key)
    return this.#context.engine.findFlow(this.#scratch)
  }

  // -- Replication ---------------------------------------------------------------------------------------------------

  /** Runtimes that may keep replicas of flows here. */
  get keepers(): readonly number[] {
    return this.#runtimes.keepers
  }

  /** A runtime wants no more replicas, or does again. */
  #stopKeeping(runtime: number, isStopped: boolean): void {
    this.#runtimes.stopKeeping(runtime, isStopped)
    this.protection.keepersChanged()
    if (isStopped) sendHead(this.#context, this.#context.control(runtime), StopPlacingReply, 0, 0)
  }

  #findKept(key: Int32Array): number {
    this.#context.arena.i32.set(key, this.#scratch + Descriptor.key)
    return this.#context.engine.findFlow(this.#scratch)
  }

  #owns(key: Int32Array, flow: number, epoch: number): boolean {
    const record = this.#findKept(key)
    return record !== 0 && flowOf(this.#context, record) === flow && epochOf(this.#context, record) >= epoch
  }

  /** A flow whose owner is dead is ours now. */
  #promote(replica: Replica, kept: Guard | null): void {
    const context = this.#context
    const { arena, engine } = context
    const record = engine.importFlow(new Uint8Array(replica.words.buffer, 0, replica.snapshotBytes), context.now)
    // Above whatever its owner may have told the switches since its last word to us.
    const above = PROMOTION_EPOCHS * (replica.hasAsked ? 2 : 1)
    setFlow(context, record, replica.flow, replica.epoch + (planted['promoted-low'] ? 0 : above))
    const companion = companionOf(context, record)
    arena.u8.fill(0, companion, companion + COMPANION_BYTES)
    arena.u8.set(replica.macs, companion)
    for (let i = 0; i < replica.aliases.length; i += ALIAS_WORDS) {
      arena.i32.set(replica.aliases.subarray(i, i + KEY_WORDS), this.#scratch + Descriptor.key)
      engine.addAlias(record, this.#scratch + Descriptor.key, replica.aliases[i + KEY_WORDS] !== 0)
    }
    const targets = replica.buffersAt.map(({ target }) => target).filter((target) => this.#runtimes.has(target))
    const former = this.#runtimes.isThere(replica.former, replica.formerIncarnation) ? replica.former : 0
    const held = this.incoming.takeOver(replica.flow)
    this.protection.securings.secure(record, held, { targets, isPromotion: true, former, kept, dead: replica })
  }

  // -- The engine's flow manager -------------------------------------------------------------------------------------

  readonly manager: FlowManager = {
    unknown: (d) => this.#unknown(d),
    expects: (d, parser) => expectsQuoted(this.#context, d, parser),
    opened: (record, d) => { this.#opened(record, d) },
    begun: (record) => { this.#begun(record) },
    idle: (record) => { this.#idle(record) },
    paused: (d, record) => this.#paused(d, record),
    claimAlias: (record, d, flip, nf) => {
      this.outgoing.callOff(flowOf(this.#context, record))
      return this.claims.claim(record, d, flip, nf)
    },
  }

  #unknown(d: number): number {
    const context = this.#context
    const { i32, u8, f64 } = context.arena
    const block = context.absent.find(d + Descriptor.key, i32[d + Descriptor.hash])
    if (block !== 0) {
      const flow = f64[(block + KeyBlock.flow) >> 3]
      const kind = u8[block + KeyBlock.kind]
      if (kind !== AbsentKind.opening) {
        if (kind === AbsentKind.prepared) this.incoming.take(flow, d)
        else this.claims.take(flow, d)
        return -1
      }
      // An ICMP error opens no flow, least of all the one that it is about: it comes again.
      if ((i32[d + Descriptor.meta] & Meta.related) === 0) {
        this.closings.cancel(flow)
        return 0
      }
    }
    if (planted['ghost-actor']) return 0
    const from = i32[d + Descriptor.switch]
    const slot = i32[d + Descriptor.slot]
    // The present life of a restarted switch may have sent newer packets of the flow elsewhere.
    if (context.isOfPresentSwitch(d) &&
        sendFrame(context, context.inBand(from), ReturnPacket, 0, context.positionOf(d), i32[d + Descriptor.frame],
          i32[d + Descriptor.length], true)) {
      context.countHandedOver(1)
      context.engine.pool.give(slot)
    } else {
      context.drop(slot, 'no-owner')
    }
    return -1
  }

  /** The switch that has opened the flow that is being opened. */
  #opener = 0

  /** The first packet of an opening has made its actor. */
  #opened(record: number, d: number): void {
    this.#opener = this.#openings.finish(record, d)
    if (planted['replicated-unbegun']) this.protection.opened(record)
  }

  /** Its replica gets the state as it begins. Every other switch hears of the flow ahead of what leaves. */
  #begun(record: number): void {
    const context = this.#context
    const { switches } = context
    if (!planted['replicated-unbegun']) this.protection.opened(record)
    // The opener knows it, unless that was a former life; where no replica says so, it hears that frames may leave before they do.
    const isBare = this.protection.givesBackLate && this.protection.replicaOf(flowOf(context, record)) === 0
    for (const id of switches.idsIn(switches.all)) if (id !== this.#opener || isBare || this.#announcing.has(id)) this.#bind(record, id)
    if (isBare) context.publish(this.#opener)
  }

  #bind(record: number, switchId: number): void {
    const context = this.#context
    const { self, incarnation } = context
    const channel = context.inBand(switchId)
    const flow = flowOf(context, record)
    const replica = this.protection.releaserOf(flow)
    const at = beginBind(context, channel, flow, epochOf(context, record), self, incarnation, replica || self,
      replica === 0 ? incarnation : this.#runtimes.incarnationOf(replica))
    if (at === 0) return
    writeKey(context, at, record)
    ;(channel as MessageChannel).commit()
  }

  #idle(record: number): void {
    if (!this.#announcing.isKnownToAll) return
    const flow = flowOf(this.#context, record)
    if (this.closings.has(flow) || this.outgoing.moves.has(flow) || this.incoming.has(flow) || this.claims.has(flow) ||
        this.protection.securing.has(flow) || this.protection.hasKept(flow)) return
    this.closings.start(record)
  }

  #paused(d: number, record: number): boolean {
    const flow = flowOf(this.#context, record)
    if (this.closings.cancel(flow)) return false
    if (this.protection.securings.take(flow, d)) return true
    if (this.incoming.moves.has(flow)) {
      this.incoming.take(flow, d)
      return true
    }
    const move = this.outgoing.isPaused(flow) ? this.outgoing.moves.get(flow) : undefined
    return move === undefined ? this.protection.refuse(record, d) : this.outgoing.take(move, d)
  }

  // -- Messages ------------------------------------------------------------------------------------------------------

  /** A message of a control session. */
  onControl(peer: number, at: number, bytes: number): void {
    const context = this.#context
    const { arena } = context
    if (!isWellFormed(arena, at, bytes)) return context.anomaly('malformed-message')
    const flow = arena.f64[(at + MessageField.flow) >> 3]
    const epoch = arena.u32[(at + MessageField.epoch) >> 2]
    const code = arena.u8[at + MessageField.code]
    switch (arena.u8[at]) {
      case PrepareFlow.type: return this.incoming.prepare(peer, at, bytes)
      case PrepareFlowReply.type: return this.outgoing.prepareReply(flow, epoch, code)
      case InstallFlow.type: return this.incoming.install(peer, at, bytes)
      case InstallFlowReply.type: return this.outgoing.installReply(flow, epoch, code)
      case AbortFlow.type: return this.incoming.abort(peer, at)
      case AbortFlowReply.type:
        if (!this.protection.securings.abortReply(peer, flow, epoch)) this.outgoing.abortReply(flow, epoch)
        return
      case BufferedPacket.type: return this.#bufferedPacket(at, bytes, flow, code)
      case Go.type:
        if (code !== 0) {
          const isDropped = this.incoming.superseded(flow, epoch, code === 2) || this.protection.securings.superseded(flow, epoch, code === 2)
          return isDropped ? undefined : context.anomaly('late-go')
        }
        if (!this.incoming.go(peer, flow, epoch) && !this.outgoing.go(peer, flow, epoch, arena.u32[(at + GoReleased) >> 2]) &&
            !this.protection.securings.go(peer, flow, epoch, arena.u32[(at + GoReleased) >> 2])) context.anomaly('late-go')
        return
      case ClaimAliasReply.type: return this.claims.reply(at, (record) => { this.protection.refresh(record) })
      case AdoptFlow.type:
      case AdoptMember.type: return this.replicas.adopt(peer, at, bytes)
      case AdoptFlowReply.type: return this.protection.adoptReply(peer, flow, epoch, code)
      case StepsHeld.type: return this.protection.held(peer, flow, epoch, arena.u32[(at + StepsHeldOutputs) >> 2])
      case CommitStep.type: return this.replicas.step(peer, at, bytes, flow, epoch)
      case ReleasePacket.type: return this.replicas.releasePacket(peer, at, bytes, flow, epoch)
      case RetireFlow.type: return this.replicas.retire(peer, flow, epoch, arena.u32[(at + RetireFlowConfigVersion) >> 2], code)
      case ForgetFlow.type: return this.replicas.forget(peer, flow, epoch)
      case MovingFlow.type: return this.replicas.moving(peer, flow, epoch, arena.u16[(at + MessageField.node) >> 1], code !== 0)
      case MovingFlowReply.type:
        if (!this.protection.securings.movingReply(peer, flow)) this.outgoing.movingReply(peer, flow)
        return
      case AskFlow.type: return this.replicas.asked(peer, at, flow, epoch)
      case AskFlowReply.type:
        if (!this.incoming.answered(peer, flow, arena.u16[(at + MessageField.node) >> 1], code)) this.replicas.answer(peer, flow, epoch, code)
        return
      case YieldFlow.type: return this.#yielded(peer, flow, epoch, code)
      case HurryFlow.type: return this.replicas.hurry(flow, epoch)
      case AnnounceChain.type:
        if (!this.#runtimes.chainAnnounced(peer, at, bytes)) context.anomaly('malformed-message')
        return this.protection.keepersChanged()
      case StopPlacing.type: return this.#stopKeeping(peer, code !== 0)
      case StopPlacingReply.type: return this.draining.stopped(0, peer)
      // Planted bug: the answer has come past the data.
      case RerouteFlowReply.type:
        if (planted['barrier-out-of-band']) return this.#rerouteReply(peer, flow, epoch)
    }
    context.anomaly('unexpected-message')
  }

  /** A message in-band from a switch: everything that it sent here before has been handled. */
  onInBand(switchId: number, at: number, bytes: number): void {
    const context = this.#context
    const { arena } = context
    if (!isWellFormed(arena, at, bytes)) return context.anomaly('malformed-message')
    const flow = arena.f64[(at + MessageField.flow) >> 3]
    const epoch = arena.u32[(at + MessageField.epoch) >> 2]
    switch (arena.u8[at]) {
      case FlowOpen.type: return this.#flowOpen(switchId, at)
      case CloseFlowReply.type: return this.closings.reply(switchId, flow, arena.u8[at + MessageField.code] !== 0)
      case RerouteFlowReply.type: return this.#rerouteReply(switchId, flow, epoch, arena.u8[at + MessageField.code])
      case StopPlacingReply.type: return this.draining.stopped(context.switches.bitOf(switchId))
    }
    context.anomaly('unexpected-message')
  }

  /** A target that holds a prepared flow for a dead source: what it buffers is asked for elsewhere, and else it may forget it. */
  #yielded(target: number, flow: number, epoch: number, code: number): void {
    if (code === 2) return this.incoming.heirGoesOn(flow)
    const securing = this.protection.securing.get(flow)
    // One that has answered ahead of the news that its source is dead did not know what we meant.
    const goesOn = this.replicas.goesOn(flow, target, epoch, code === 1) || securing?.fetching.includes(target) === true
    sendHead(this.#context, this.#context.control(target), goesOn ? YieldFlow : AbortFlow, flow, epoch, goesOn ? 2 : code)
  }

  #rerouteReply(switchId: number, flow: number, epoch: number, code = 0): void {
    if (this.protection.securings.rerouteReply(switchId, flow, epoch, code)) return
    if (this.incoming.moves.has(flow)) this.incoming.rerouteReply(switchId, flow, epoch)
    else this.outgoing.rerouteReply(switchId, flow, epoch)
  }

  #flowOpen(switchId: number, at: number): void {
    const context = this.#context
    const { arena } = context
    const flow = arena.f64[(at + MessageField.flow) >> 3]
    const key = (at + MessageField.key) >> 2
    let record = this.#find(key)
    if (record !== 0 && this.outgoing.supersede(flowOf(context, record), flow)) record = this.#find(key)
    if (record !== 0) {
      const old = flowOf(context, record)
      const isAlias = !flowKeysEqual(arena.i32, key, (record + FlowRecord.tag) >> 2)
      if (old === flow || (old > flow && !isAlias)) return
      // Its home takes the flow that is here for ended: what was to end it was lost with a node.
      context.anomaly('open-over-flow')
      const isBusy = isAlias || this.closings.has(old) || this.outgoing.moves.has(old) || this.incoming.has(old) || this.claims.has(old)
      if (!isBusy && !this.protection.securing.has(old)) {
        this.protection.ended(old)
        context.engine.endFlow(record)
      }
    }
    this.#openings.begin(switchId, at, arena.i32[this.#scratch + Descriptor.hash])
  }

  /** A packet from the other side of a move: one that strayed runs like any, one that was buffered goes where it is waited for. */
  #bufferedPacket(at: number, bytes: number, flow: number, code: number): void {
    const context = this.#context
    const frame = at + BufferedPacket.bytes
    const length = bytes - BufferedPacket.bytes
    const from = context.arena.u16[(at + MessageField.node) >> 1]
    if (code === 0) {
      if (!this.protection.securings.returnedPacket(flow, frame, length, from)) this.outgoing.returnedPacket(flow, frame, length, from)
      return
    }
    const queue = new PacketQueue(context.arena)
    context.countTakenOver(1)
    if (queue.pushFrame(context.arena, context.engine.pool, frame, length, from)) context.run(queue)
    else context.drop(0, 'no-slot')
  }

  // -- Configuration -------------------------------------------------------------------------------------------------

  /** A new configuration. Sessions to nodes that are gone have been closed already. */
  configure(config: ClusterConfig): void {
    const context = this.#context
    const runtimes = this.#runtimes.configure(config.runtimes)
    const fenced = runtimes.fenced.map(([id]) => id)
    this.#switches = config.switches
    context.inputs.forget()
    for (const [id, incarnation] of runtimes.fenced) {
      context.ended.set(id, incarnation)
      this.draining.stopped(0, id)
    }
    for (const id of fenced) {
      this.outgoing.fenced(id)
      this.incoming.fenced(id)
      this.protection.fenced(id)
      this.replicas.fenced(id)
    }
    this.outgoing.forgetTold(fenced)
    const { gone, come } = context.switches.update(config.switches, config.version)
    this.claims.refuseWithout(config.switches.filter((entry) => entry.incarnation !== 0))
    for (const mask of gone) {
      this.draining.stopped(mask)
      this.closings.withoutSwitches(mask)
      this.outgoing.withoutSwitches(mask)
      this.protection.securings.withoutSwitches(mask)
    }
    this.incoming.configured(gone.reduce((mask, bit) => mask | bit, 0))
    this.outgoing.switchesCame(come.reduce((mask, id) => mask | context.switches.bitOf(id), 0))
    for (const id of come) {
      this.closings.switchCame(id)
      this.#announcing.begin(id)
    }
    this.#announcing.configured()
    this.draining.come(come, runtimes.come)
    this.protection.keepersChanged()
    this.replicas.configured()
    this.#applying = context.switches.all
    this.#sayApplied()
  }

  /**
   * The switches hear that all that is to be said of those fenced has been said: not before every replica has been promoted, and each
   * behind all that it is to hear of them.
   */
  #sayApplied(): void {
    const context = this.#context
    const isClaiming = this.protection.securings.isClaiming || this.outgoing.isClaiming
    const isRecovering = (this.replicas.isRecovering || isClaiming) && !planted['applied-early']
    if (this.#applying === 0 || isRecovering) return
    for (const id of context.switches.idsIn(this.#applying)) {
      if (this.incoming.isUntold(id)) continue
      this.#applying &= ~context.switches.bitOf(id)
      sendHead(context, context.control(id), ConfigApplied, 0, context.configVersion, this.protection.givesBackLate ? 1 : 0)
    }
  }

  setDraining(on: boolean): void {
    this.draining.set(on, this.#runtimes.ids)
  }

  /** True when all that was said on the control network has been heard: packets that went back with moves, too. */
  get isHeard(): boolean {
    for (const id of [...this.#runtimes.ids, ...this.#switches.map((entry) => entry.id)]) {
      const channel = this.#context.control(id)
      if (channel?.hasReached?.(channel.position ?? 0) === false) return false
    }
    return true
  }

  /** True when nothing of any flow is here, and nothing can come (PROTOCOL 24). */
  get isEmpty(): boolean {
    const { engine, absent, buffered } = this.#context
    const isNoFlow = engine.table.size === 0 && absent.size === 0 && this.incoming.isIdle && this.closings.size === 0 &&
      this.outgoing.moves.size === 0 && this.replicas.size === 0
    return this.draining.isAnswered && isNoFlow && engine.buffered === 0 && buffered === 0 &&
      (this.isHeard || planted['drained-early'])
  }

  // -- Time ----------------------------------------------------------------------------------------------------------

  /** Everything that is due or was waiting for room. */
  tick(load: CoordinatorLoad): void {
    const context = this.#context
    this.#announcing.tick()
    this.#runtimes.tick()
    this.outgoing.tick(this.#announcing.isKnownToAll)
    this.incoming.tick()
    this.replicas.work()
    this.protection.tick()
    this.replicas.handingOn.tellHeld()
    this.#sayApplied()
    context.inputs.tick(context.buffered === 0 && this.protection.isSettled, () => this.#channels())
    if (this.#announcing.isKnownToAll) this.#openings.sweep()
    if (context.now >= this.#nextWorkload) this.#reportWorkload(load)
  }

  nextDue(): number {
    const soon = this.#applying !== 0 || this.protection.isWaiting || this.replicas.handingOn.isTelling || this.#announcing.isUnderWay ||
      this.incoming.isWaiting || this.#runtimes.isTelling
    return Math.min(soon ? this.#context.now + 100 : Infinity, this.outgoing.nextDue(), this.#nextWorkload,
      this.#openings.nextDue())
  }

  /** Sessions with all that may keep replicas of our flows. */
  *#channels(): Generator<MessageChannel> {
    for (const id of this.#runtimes.ids) {
      const channel = this.#context.control(id)
      if (channel !== null) yield channel
    }
  }

  #reportWorkload(load: CoordinatorLoad): void {
    const context = this.#context
    this.#nextWorkload = context.now + context.times.workloadUs
    for (const id of context.switches.idsIn(context.switches.all)) {
      const channel = context.control(id)
      const at = begin(context, channel, Workload, 0, 0, false)
      if (at === 0) continue
      const { u32, f64 } = context.arena
      u32[(at + WorkloadBusy) >> 2] = load.busyPerMille
      u32[(at + WorkloadFlows) >> 2] = context.engine.table.size
      f64[(at + WorkloadPackets) >> 3] = load.packets
      f64[(at + WorkloadDrops) >> 3] = load.drops
      u32[(at + WorkloadQueue) >> 2] = load.queueDepth
      ;(channel as MessageChannel).commit()
    }
  }
}
