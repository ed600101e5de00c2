/**
 * Virtual switch: which runtime serves each flow, and what that asks of a switch. Paper §5.2; PROTOCOL 1-6, 9, 18, 21, 24. The states are
 * those of docs/protocol.md; releasing and the questions of other switches are files of their own.
 *
 *     unknown key ── home: place ─────────────────────────▶ active ◀──── RerouteFlow: another owner
 *           │ another switch: ask                           │  ▲
 *           └──▶ asking ── PlaceFlowReply, Bind ────────────┘  │ it goes on
 *                                             CloseFlow ──▶ closing ── FlowClosed ──▶ removed
 *     owner fenced ──▶ orphaned ── claimed by a source that takes it back ──▶ active;  by nobody ──▶ removed
 *     after a restart: unknown key ──▶ learning ── AnnounceFlow ──▶ active; nobody announces it ──▶ unknown
 *
 * Everything here runs off the fast path: packets of active flows never come here. A switch waits for nobody: what cannot go on
 * now is held within bounds, or dropped and counted.
 */

import { assert } from '../base/assert.ts'
import { planted } from '../base/planted-bugs.ts'
import type { ClusterConfig, SwitchEntry } from '../messages/cluster-config.ts'
import { flowIdOf } from '../messages/cluster-config.ts'
import {
  AnnouncedPhase, AnnounceDone, AnnounceFlow, AnnounceFlowOwnerIncarnation, AnnounceFlowReleaser, AnnounceFlowReleaserIncarnation,
  ConfigApplied, StopPlacing, StopPlacingReply, Workload, WorkloadBusy, WorkloadFlows,
} from '../messages/announcing.ts'
import { BindAlias, BindAliasReply, ClaimAlias } from '../messages/aliasing.ts'
import { CloseFlow, CloseFlowReply, FlowClosed } from '../messages/closing.ts'
import { homeSwitchOf, sharedKeyHash } from '../messages/home-switch.ts'
import { isWellFormed, MessageField } from '../messages/message.ts'
import {
  Drained, Go, RerouteFlow, RerouteFlowBuffersAt, RerouteFlowCovered, RerouteFlowDead, RerouteFlowDeadIncarnation, RerouteFlowMarks,
  RerouteFlowOwnerIncarnation, RerouteFlowReleaser, RerouteFlowReleaserIncarnation,
  RerouteFlowReleaserNow, RerouteFlowReleaserNowIncarnation, RerouteFlowReply, RerouteMark,
} from '../messages/migration.ts'
import {
  Bind, BindOwnerIncarnation, BindReleaser, BindReleaserIncarnation, FlowOpen, PlaceFlow, PlaceFlowQuestion, PlaceFlowReply,
  PlaceFlowReplyOwnerIncarnation, PlaceFlowReplyQuestion, PlaceRefusal, ReturnPacket,
} from '../messages/placement.ts'
import { Descriptor, Meta } from '../packet/descriptor.ts'
import type { MessageChannel } from '../transport/message-channel.ts'
import { Addresses } from './addresses.ts'
import { AliasHome } from './alias-home.ts'
import { Endings } from './endings.ts'
import { heldCount, hold, takeHeld } from './held-list.ts'
import { hurry } from './hurrying.ts'
import type { PlacementPolicy } from './placement/placement-policy.ts'
import { Questions } from './questions.ts'
import { Releasing } from './releasing.ts'
import { RuntimeLives } from './runtime-lives.ts'
import { begin, isActive, sendHead, writeEntryKey, type SwitchContext } from './switch-context.ts'
import { Entry, EntryFlag, EntryPhase } from './switch-table.ts'
import { TakenBack } from './taken-back.ts'

/** Packets of one flow that may come back from runtimes that do not know it; every few the runtime is told of it again. */
const RETURNS_MAX = 64
const RETURNS_TO_OPEN = 8
/** Between looks whether there is room for what waits for it. */
const STALLED_US = 100

export class VirtualSwitch {
  readonly aliases: AliasHome
  readonly #context: SwitchContext
  readonly #policy: PlacementPolicy
  readonly #lives = new RuntimeLives()
  #switches: readonly SwitchEntry[] = []
  #version = 0
  /** The last configuration that fenced a runtime: we know all flows when each of the others has done with what that one left. */
  #recoveredIn = 0
  /** Until every runtime has announced its flows. */
  #isLearning = true
  #counter = 0
  /** Entries whose packets are held, but for those that close. */
  readonly #waiting = new Set<number>()
  /** Entries whose owner is to be told of them when it can be; they are stalled until then. */
  readonly #unopened = new Set<number>()
  /** Entries that hold packets until there is room on the way to their owner. */
  readonly #stalled = new Set<number>()
  /** Runtimes that give link slots back late: what they leave there may have been processed. */
  readonly #givesBackLate = new Set<number>()
  readonly takenBack: TakenBack
  readonly addresses: Addresses
  readonly #questions: Questions
  readonly #releasing: Releasing
  readonly #endings: Endings
  #lastQuestion = 0
  #nextSweep = 0

  constructor(context: SwitchContext, policy: PlacementPolicy) {
    assert(context.limits.heldPerFlow <= 0xffff, 'an entry counts its packets in 16 bits')
    this.#context = context
    this.#policy = policy
    this.addresses = new Addresses(context)
    this.takenBack = new TakenBack(context, (runtime) => this.#givesBackLate.has(runtime))
    const isLearning = (): boolean => this.#isLearning
    this.aliases = new AliasHome(context, () => this.#switches, isLearning, (entry, then) => { this.#remove(entry, '', then) })
    this.#questions = new Questions(context, {
      get isLearning() { return isLearning() },
      place: (entry) => { this.#place(entry) },
      remind: (switchId, alias) => { this.aliases.remind(switchId, alias) },
    })
    this.#releasing = new Releasing(context, this.#lives)
    this.#endings = new Endings(context, this.#lives, this.#releasing, (entry) => {
      this.#remove(entry, '')
      this.#questions.askAgain()
    })
    context.step('relearning', 1)
  }

  get isLearning(): boolean {
    return this.#isLearning
  }

  // -- Packets -------------------------------------------------------------------------------------------------------

  /** A packet from outside whose key has no entry. */
  unknown(d: number): void {
    const context = this.#context
    const { arena, table } = context
    const key = d + Descriptor.key
    // What can only wait needs room to.
    if (context.held >= context.limits.held && (this.#isLearning || !this.#isHomeOf(key))) {
      return context.drop(arena.i32[d + Descriptor.slot], 'hold-limit')
    }
    const entry = table.add(key, arena.i32[d + Descriptor.hash])
    if (entry === 0) return context.drop(arena.i32[d + Descriptor.slot], 'flow-table-full')
    this.addresses.learn(entry, d)
    arena.f64[(entry + Entry.since) >> 3] = context.now
    if (this.#isLearning && !planted['relearn-at-once']) {
      this.#wait(entry, EntryPhase.learning)
      hold(context, entry, d)
      return
    }
    this.#serve(entry)
    this.packet(entry, d)
  }

  /** A packet from a runtime whose key has no entry: after a restart its releaser may not have been announced yet. */
  unknownFromRuntime(d: number): void {
    const context = this.#context
    const { arena, table } = context
    const entry = this.#isLearning ? table.add(d + Descriptor.key, arena.i32[d + Descriptor.hash]) : 0
    if (entry === 0) return context.drop(arena.i32[d + Descriptor.slot], 'not-releaser')
    this.addresses.expect(entry)
    arena.f64[(entry + Entry.since) >> 3] = context.now
    this.#wait(entry, EntryPhase.learning)
    hold(context, entry, d)
  }

  /** Finds somebody to serve a flow that has an entry and no owner: places it, or asks its home. */
  #serve(entry: number): void {
    if (this.#isHomeOf(entry >> 2)) this.#place(entry)
    else this.#ask(entry, homeSwitchOf(this.#context.arena.i32, entry >> 2, this.#switches))
  }

  #isHomeOf(key: number): boolean {
    const { arena, self } = this.#context
    return planted['switch-places-itself'] || homeSwitchOf(arena.i32, key, this.#switches) === self
  }

  /** True for a runtime that can be told of a flow now. One that does not keep up with what it is told gets no more of them. */
  #canOpenAt(runtime: number): boolean {
    const channel = this.#context.inBand(runtime)
    return channel !== null && channel.isStrained !== true
  }

  /** A packet of an entry, from outside or held before: to the owner, or held. */
  packet(entry: number, d: number): void {
    const { arena } = this.#context
    if (arena.u8[entry + Entry.phase] === EntryPhase.active) return this.#context.toRuntime(d, arena.u16[(entry + Entry.owner) >> 1])
    if (this.addresses.isExpected(entry)) this.addresses.learn(entry, d)
    hold(this.#context, entry, d)
    hurry(this.#context, entry)
  }

  /** A packet that a runtime sends: out, if it is the one that may. */
  fromRuntime(entry: number, shown: number, d: number, runtime: number): void {
    const context = this.#context
    const { arena } = context
    if (planted['learn-from-data']) arena.u16[(entry + Entry.owner) >> 1] = arena.u16[(entry + Entry.releaser) >> 1] = runtime
    if (arena.u16[(entry + Entry.releaser) >> 1] === runtime) {
      arena.u32[(entry + Entry.released) >> 2]++
      context.toExternal(d, shown)
    } else if (arena.u8[entry + Entry.phase] === EntryPhase.learning) hold(context, entry, d)
    else context.drop(arena.i32[d + Descriptor.slot], 'not-releaser')
  }

  /** Sends on what an entry has held: from outside to the owner, from a runtime out. What finds no room to its owner waits for it. */
  #flush(entry: number): void {
    const context = this.#context
    const { i32, u8, u16 } = context.arena
    for (let slot = takeHeld(context, entry); slot !== 0;) {
      const d = slot >> 2
      slot = i32[d + Descriptor.nextHeld]
      const from = i32[d + Descriptor.switch]
      if (from !== 0) {
        this.fromRuntime(entry, entry, d, from)
        continue
      }
      if (u8[entry + Entry.phase] === EntryPhase.active && !context.hasRoomTo(u16[(entry + Entry.owner) >> 1])) this.#stall(entry)
      this.packet(entry, d)
    }
  }

  #stall(entry: number): void {
    this.#setPhase(entry, EntryPhase.stalled)
    this.#stalled.add(entry)
  }

  /** True for a runtime that leaves slots of its link in use until others know what their frames have changed. */
  givesBackLate(runtime: number): boolean {
    return this.#givesBackLate.has(runtime)
  }

  /** The link to the owner of a packet's flow is down: it waits, for the owner to be there again, or to be called dead. */
  unsent(d: number): void {
    const { arena, table } = this.#context
    const found = table.find(d + Descriptor.key, this.#context.hashOf(d + Descriptor.key))
    const entry = table.mainOf(found)
    if (entry === 0) return this.#context.drop(arena.i32[d + Descriptor.slot], 'link-full')
    this.addresses.restore(d, found)
    if (arena.u8[entry + Entry.phase] === EntryPhase.active) this.#stall(entry)
    hold(this.#context, entry, d)
  }

  // -- Who serves ----------------------------------------------------------------------------------------------------

  #wait(entry: number, phase: number): void {
    this.#setPhase(entry, phase)
    this.#waiting.add(entry)
  }

  #setPhase(entry: number, phase: number): void {
    const { arena, step } = this.#context
    if (arena.u8[entry + Entry.phase] === EntryPhase.stalled) this.#stalled.delete(entry)
    if (phase !== EntryPhase.closing) this.#endings.forget(entry)
    const before = STEP_OF[arena.u8[entry + Entry.phase]]
    const after = STEP_OF[phase]
    if (before !== undefined) step(before, -1)
    if (after !== undefined) step(after, 1)
    arena.u8[entry + Entry.phase] = phase
    arena.u8[entry + Entry.flags] &= ~EntryFlag.hurried
  }

  /** The entry's key is a flow's; what belongs to the flow that had it before, which has ended, goes. */
  #setFlow(entry: number, flow: number): void {
    const { arena, table } = this.#context
    const before = arena.f64[(entry + Entry.flow) >> 3]
    if (before === flow) return
    if (before !== 0 && arena.u8[entry + Entry.phase] !== EntryPhase.closing) this.#inherit(entry, flow)
    // Its owner waits for nobody here any more.
    if (this.#releasing.awaitsDrained(entry)) this.#releasing.go(entry)
    this.#releasing.forget(entry)
    table.setFlow(entry, flow)
    arena.u8[entry + Entry.flags] &= ~EntryFlag.fresh
    arena.u16[(entry + Entry.owner) >> 1] = 0
    if (before !== 0) this.aliases.flowEnded(before)
  }

  /**
   * Another flow has an entry's key, and the one before was not closed: it has died with its owner. Had anybody gone on with it, what was
   * taken back of it would have been claimed: now it is the new one's.
   */
  #inherit(entry: number, by: number): void {
    const context = this.#context
    const owner = context.arena.u16[(entry + Entry.owner) >> 1]
    const incarnation = context.arena.u32[(entry + Entry.ownerIncarnation) >> 2]
    // We have not heard of that death yet.
    if (this.#lives.isLive(owner, incarnation) && context.isDown(owner)) context.takeBack(owner, incarnation)
    if (!this.#lives.isLive(owner, incarnation) || context.isDown(owner)) this.takenBack.orphaned(entry)
    else this.takenBack.succeeded(entry, by, this.#lives.list.some(({ applied }) => applied > this.#version))
  }

  /** The home places a flow. */
  #place(entry: number): void {
    const context = this.#context
    const { arena } = context
    const candidates = this.#lives.list.filter((runtime) => !runtime.isDraining && !runtime.isStopped &&
      (runtime.hasAnnounced || planted['relearn-at-once']) && this.#canOpenAt(runtime.id))
    if (candidates.length === 0) return this.#wait(entry, EntryPhase.placing)
    if (this.#counter >= context.limits.flowIds) {
      // Only a new life has new ones.
      context.anomaly('flow-ids-spent')
      return this.#wait(entry, EntryPhase.placing)
    }
    const chosen = candidates[this.#policy.choose(candidates, sharedKeyHash(arena.i32, entry >> 2))]
    if (chosen === undefined) {
      context.anomaly('placement-policy')
      return this.#wait(entry, EntryPhase.placing)
    }
    chosen.placed++
    this.#setFlow(entry, flowIdOf(context.incarnation, ++this.#counter))
    this.#own(entry, chosen.id, chosen.incarnation, 1)
    this.#releasing.set(entry, chosen.id, 1)
    arena.u8[entry + Entry.flags] |= EntryFlag.fresh
    this.#open(entry)
  }

  /** Tells the owner, in-band, that the flow's packets follow. */
  #open(entry: number): void {
    const context = this.#context
    const { arena } = context
    const owner = arena.u16[(entry + Entry.owner) >> 1]
    const channel = context.inBand(owner)
    const at = !this.#canOpenAt(owner) ? 0
      : begin(context, channel, FlowOpen, arena.f64[(entry + Entry.flow) >> 3], arena.u32[(entry + Entry.epoch) >> 2])
    if (at === 0) {
      this.#unopened.add(entry)
      // Packets ahead of it would come back, each behind others that are sent meanwhile.
      if (arena.u8[entry + Entry.phase] === EntryPhase.active) this.#stall(entry)
      return
    }
    this.#unopened.delete(entry)
    arena.u16[(at + MessageField.node) >> 1] = homeSwitchOf(arena.i32, entry >> 2, this.#switches)
    writeEntryKey(context, at, entry)
    ;(channel as MessageChannel).commit()
  }

  /** The flow has an owner: its packets go there, unless that one is not there (yet, or any more). */
  #own(entry: number, owner: number, incarnation: number, epoch: number, isBack = false): void {
    const { arena } = this.#context
    const before = arena.u16[(entry + Entry.owner) >> 1]
    if (before !== owner || arena.u32[(entry + Entry.ownerIncarnation) >> 2] !== incarnation) {
      const flow = arena.f64[(entry + Entry.flow) >> 3]
      this.takenBack.left(before, flow)
      this.takenBack.cameTo(owner, flow, this.#context.positionTo(owner), isBack)
    }
    arena.u16[(entry + Entry.owner) >> 1] = owner
    arena.u32[(entry + Entry.ownerIncarnation) >> 2] = incarnation
    arena.u32[(entry + Entry.epoch) >> 2] = epoch
    arena.u16[(entry + Entry.returns) >> 1] = 0
    this.#waiting.delete(entry)
    this.#unopened.delete(entry)
    const waits = this.takenBack.waits(arena.f64[(entry + Entry.flow) >> 3])
    if (this.#lives.isLive(owner, incarnation) && !waits) this.#activate(entry)
    else this.#wait(entry, EntryPhase.orphaned)
  }

  /** Its packets go to its owner, as soon as that one has been heard from: what is to be said of them in-band they would overtake. */
  #activate(entry: number): void {
    this.#setPhase(entry, EntryPhase.active)
    if (this.#context.inBand(this.#context.arena.u16[(entry + Entry.owner) >> 1]) === null) this.#stall(entry)
  }

  #ask(entry: number, home: number): void {
    const context = this.#context
    const channel = context.control(home)
    if (channel?.isStrained === true) return this.#wait(entry, EntryPhase.placing)
    this.#wait(entry, EntryPhase.asking)
    const at = begin(context, channel, PlaceFlow, 0, 0)
    if (at === 0) return
    const { u32 } = context.arena
    u32[(at + PlaceFlowQuestion) >> 2] = u32[(entry + Entry.question) >> 2] = ++this.#lastQuestion >>> 0
    writeEntryKey(context, at, entry)
    ;(channel as MessageChannel).commit()
  }

  /** The home's answer. */
  #answered(at: number): void {
    const context = this.#context
    const { arena, table } = context
    const key = (at + MessageField.key) >> 2
    const entry = table.find(key, context.hashOf(key))
    const isAnswer = entry !== 0 && arena.u8[entry + Entry.phase] === EntryPhase.asking &&
      arena.u32[(entry + Entry.question) >> 2] === arena.u32[(at + PlaceFlowReplyQuestion) >> 2]
    if (!isAnswer) return context.anomaly('late-placement')
    if (arena.u8[at + MessageField.code] !== PlaceRefusal.none) {
      this.#remove(entry, 'flow-table-full')
      return
    }
    const owner = arena.u16[(at + MessageField.node) >> 1]
    const incarnation = arena.u32[(at + PlaceFlowReplyOwnerIncarnation) >> 2]
    // It is asked again when the owner keeps up, and where it has died since and all has been said of that: nobody will claim the flow.
    const isTooLate = this.#lives.isFenced(owner, incarnation) && this.#lives.haveApplied(this.#version)
    if (context.inBand(owner)?.isStrained === true || isTooLate) return this.#wait(entry, EntryPhase.placing)
    this.#setFlow(entry, arena.f64[(at + MessageField.flow) >> 3])
    const epoch: number = arena.u32[(at + MessageField.epoch) >> 2]
    this.#own(entry, owner, incarnation, epoch)
    this.#releasing.set(entry, this.#lives.unlessFenced(owner, incarnation), epoch)
    if (epoch > 1) arena.u8[entry + Entry.flags] |= EntryFlag.hearsay
    if (!isActive(this.#context, entry)) return
    this.#open(entry)
    this.#flush(entry)
  }

  /** Removes an entry and does `then`; what it holds is dropped for a reason, or with none steered anew. */
  #remove(entry: number, reason: string, then?: () => void): void {
    const context = this.#context
    const { i32 } = context.arena
    this.#releasing.forget(entry)
    this.#setPhase(entry, 0)
    this.#waiting.delete(entry)
    this.#unopened.delete(entry)
    let slot = takeHeld(context, entry)
    const flow = context.arena.f64[(entry + Entry.flow) >> 3]
    context.table.remove(entry)
    if (then !== undefined) then()
    else this.aliases.flowEnded(flow)
    while (slot !== 0) {
      const d = slot >> 2
      slot = i32[d + Descriptor.nextHeld]
      if (reason !== '') context.drop(i32[d + Descriptor.slot], reason)
      else if (i32[d + Descriptor.switch] !== 0) context.drop(i32[d + Descriptor.slot], 'not-releaser')
      else this.steer(d)
    }
  }

  /** A packet from outside that was held or has come back: by its key's entry as it is now. */
  steer(d: number): void {
    const { arena, table } = this.#context
    const hash = this.#context.hashOf(d + Descriptor.key)
    arena.i32[d + Descriptor.hash] = hash
    const entry = table.mainOf(table.find(d + Descriptor.key, hash))
    if (entry !== 0) return this.packet(entry, d)
    if ((arena.i32[d + Descriptor.meta] & Meta.related) === 0) return this.unknown(d)
    // An ICMP error about a flow that is gone is a flow of its own.
    this.#context.useOwnKey(d)
    this.steer(d)
  }

  // -- Messages ------------------------------------------------------------------------------------------------------

  /** A message of the control session with a node. */
  onControl(peer: number, at: number, bytes: number): void {
    const context = this.#context
    const { arena } = context
    if (!isWellFormed(arena, at, bytes)) return context.anomaly('malformed-message')
    const flow = arena.f64[(at + MessageField.flow) >> 3]
    const epoch = arena.u32[(at + MessageField.epoch) >> 2]
    const code = arena.u8[at + MessageField.code]
    switch (arena.u8[at]) {
      case PlaceFlow.type:
        return this.#questions.ask(peer, (at + MessageField.key) >> 2, at + MessageField.macs, arena.u32[(at + PlaceFlowQuestion) >> 2],
          context.now)
      case PlaceFlowReply.type: return this.#answered(at)
      case CloseFlow.type: return this.#closeFlow(peer, at, flow, epoch)
      case FlowClosed.type: return code === 2 ? this.#givenUp(peer, flow, epoch) : this.#flowClosed(at, flow, code !== 0)
      case RerouteFlow.type: return this.#reroute(peer, at, flow, epoch)
      case AnnounceFlow.type: return this.#announced(peer, at, bytes, flow, epoch, code)
      case AnnounceDone.type: return this.#announceDone(peer)
      case ConfigApplied.type: return this.#configApplied(peer, epoch, arena.u8[at + MessageField.code] === 1)
      case StopPlacing.type: return this.#stopPlacing(peer, code !== 0)
      case Workload.type:
        return this.#lives.workload(peer, arena.u32[(at + WorkloadBusy) >> 2], arena.u32[(at + WorkloadFlows) >> 2])
      case ClaimAlias.type: return this.aliases.claim(peer, at, flow)
      case BindAlias.type: return this.aliases.bind(peer, at, flow)
      case BindAliasReply.type:
        this.#questions.forget(peer, (at + MessageField.key) >> 2)
        return this.aliases.bound(peer, flow, (at + MessageField.key) >> 2)
    }
    context.anomaly('unexpected-message')
  }

  /** A message in-band from a runtime. */
  onInBand(runtime: number, at: number, bytes: number): void {
    const context = this.#context
    const { arena } = context
    if (!isWellFormed(arena, at, bytes)) return context.anomaly('malformed-message')
    const flow = arena.f64[(at + MessageField.flow) >> 3]
    const epoch = arena.u32[(at + MessageField.epoch) >> 2]
    switch (arena.u8[at]) {
      case Bind.type: return this.#bind(at, flow, epoch)
      case Drained.type:
        this.#releasing.drained(runtime, flow, epoch)
        return this.#endings.drained(flow)
      case FlowClosed.type: return this.#flowClosed(at, flow, true)
    }
    context.anomaly('unexpected-message')
  }

  /** A runtime has made the actor of a flow: learn who serves it. */
  #bind(at: number, flow: number, epoch: number): void {
    const context = this.#context
    const { arena } = context
    const owner = arena.u16[(at + MessageField.node) >> 1]
    const incarnation = arena.u32[(at + BindOwnerIncarnation) >> 2]
    if (this.#releasing.isOld(flow, epoch)) return context.anomaly('stale-epoch')
    const releaser = this.#lives.unlessFenced(arena.u16[(at + BindReleaser) >> 1], arena.u32[(at + BindReleaserIncarnation) >> 2])
    const heard = context.table.findFlow(flow)
    // Its owner has ended it by now.
    if (heard !== 0 && this.#endings.has(heard) && epoch <= arena.u32[(heard + Entry.epoch) >> 2]) return
    // A move is on its way here, ahead of which our home has told us of the flow.
    if (heard !== 0 && this.#isHearsay(heard) && epoch < arena.u32[(heard + Entry.epoch) >> 2]) {
      return this.#releasing.set(heard, releaser, epoch)
    }
    const entry = this.#entryFor(at, (at + MessageField.key) >> 2, flow, epoch)
    if (entry === 0) return
    this.#setFlow(entry, flow)
    arena.u8[entry + Entry.flags] &= ~(EntryFlag.fresh | EntryFlag.hearsay)
    this.#setNextReleaser(entry, releaser === owner ? 0 : releaser, arena.u32[(at + BindReleaserIncarnation) >> 2])
    if (arena.u16[(entry + Entry.releaser) >> 1] !== releaser) arena.u32[(entry + Entry.released) >> 2] = 0
    this.#releasing.set(entry, releaser, epoch)
    this.#own(entry, owner, incarnation, epoch)
    this.#flush(entry)
    this.aliases.flowKnown(flow, entry)
  }

  #isHearsay(entry: number): boolean {
    return (this.#context.arena.u8[entry + Entry.flags] & EntryFlag.hearsay) !== 0
  }

  /** The entry for what a message says of a flow, made if need be; 0 if something newer is known of its key or of it, or without room. */
  #entryFor(at: number, key: number, flow: number, epoch: number): number {
    const context = this.#context
    const { arena, table } = context
    const hash = context.hashOf(key)
    const found = table.find(key, hash)
    const entry = table.mainOf(found)
    if (entry !== found) {
      context.anomaly('key-is-alias')
      return 0
    }
    if (entry !== 0) {
      const known = arena.f64[(entry + Entry.flow) >> 3]
      if (known > flow || (known === flow && epoch < arena.u32[(entry + Entry.epoch) >> 2] && !planted['stale-epoch'])) {
        context.anomaly('stale-epoch')
        return 0
      }
      if (this.addresses.isExpected(entry)) this.addresses.hear(entry, at)
      return entry
    }
    const made = table.add(key, hash)
    if (made === 0) {
      context.anomaly('flow-table-full')
      return 0
    }
    this.addresses.hear(made, at)
    arena.f64[(made + Entry.since) >> 3] = context.now
    return made
  }

  #closeFlow(runtime: number, at: number, flow: number, epoch: number): void {
    const context = this.#context
    const { arena, table } = context
    const key = (at + MessageField.key) >> 2
    const entry = table.mainOf(table.find(key, context.hashOf(key)))
    let isBusy = false
    if (entry !== 0) {
      const isSame = arena.f64[(entry + Entry.flow) >> 3] === flow && arena.u32[(entry + Entry.epoch) >> 2] === epoch
      if (isSame && isActive(context, entry)) this.#setPhase(entry, EntryPhase.closing)
      isBusy = heldCount(context, entry) > 0
    }
    sendHead(context, context.inBand(runtime), CloseFlowReply, flow, epoch, 0, isBusy ? 1 : 0)
  }

  #flowClosed(at: number, flow: number, hasEnded: boolean): void {
    const context = this.#context
    const { arena, table } = context
    const key = (at + MessageField.key) >> 2
    const entry = table.mainOf(table.find(key, context.hashOf(key)))
    const isSame = entry !== 0 && arena.f64[(entry + Entry.flow) >> 3] === flow &&
      arena.u32[(entry + Entry.epoch) >> 2] <= arena.u32[(at + MessageField.epoch) >> 2]
    if (entry === 0 || (!isSame && !planted['stale-close'])) {
      if (hasEnded) this.aliases.flowEnded(flow)
      return
    }
    if (hasEnded) {
      if (!this.#endings.end(entry, at)) return
      this.#waiting.delete(entry)
      this.#setPhase(entry, EntryPhase.closing)
    } else if (arena.u8[entry + Entry.phase] === EntryPhase.closing) {
      this.#setPhase(entry, EntryPhase.active)
      this.#flush(entry)
    }
    this.#questions.askAgain()
  }

  /** A runtime has claimed a flow in vain: where we took its word, packets wait for the claim of whoever has the flow. */
  #givenUp(runtime: number, flow: number, epoch: number): void {
    const { arena, table, now } = this.#context
    const entry = table.findFlow(flow)
    if (entry === 0 || arena.u16[(entry + Entry.owner) >> 1] !== runtime || arena.u32[(entry + Entry.epoch) >> 2] !== epoch) return
    arena.u16[(entry + Entry.owner) >> 1] = 0
    arena.f64[(entry + Entry.since) >> 3] = now
    this.#wait(entry, EntryPhase.orphaned)
  }

  // -- Moves ---------------------------------------------------------------------------------------------------------

  #reroute(sender: number, at: number, flow: number, epoch: number): void {
    const context = this.#context
    const { arena, table } = context
    const key = (at + MessageField.key) >> 2
    const found = table.mainOf(table.find(key, context.hashOf(key)))
    const owner = arena.u16[(at + MessageField.node) >> 1]
    const incarnation = arena.u32[(at + RerouteFlowOwnerIncarnation) >> 2]
    const isKnown = found !== 0 && arena.f64[(found + Entry.flow) >> 3] === flow
    const isHearsay = isKnown && this.#isHearsay(found)
    if (isKnown && !isHearsay && arena.u32[(found + Entry.epoch) >> 2] === epoch && arena.u16[(found + Entry.owner) >> 1] === owner) {
      // Said again, after our restart: what was to be learnt has been announced.
      this.#answerReroute(sender, sender, flow, epoch)
      if (!this.#releasing.awaitsDrained(found)) this.#releasing.go(found)
      this.#mark(sender, at, flow, epoch)
      return
    }
    const entry = this.#entryFor(at, key, flow, epoch)
    if (entry === 0) {
      // Who takes it over from the dead does not know that it has ended: its key is a newer flow's.
      const hasEnded = found !== 0 && arena.f64[(found + Entry.flow) >> 3] > flow && arena.u8[at + MessageField.code] === 2
      // Its key is another flow's here, or there is no room: nothing was sent to anybody, and nobody may wait for us.
      if (!isKnown && !hasEnded) {
        this.#answerReroute(sender, sender, flow, epoch)
        this.#releasing.goWithout(owner, incarnation, flow, epoch)
        this.#mark(sender, at, flow, epoch)
      } else if (arena.u8[at + MessageField.code] !== 0) {
        // Who takes it over from the dead comes too late: it lives on elsewhere, or has ended.
        sendHead(context, context.control(owner), Go, flow, epoch, 0, hasEnded ? 2 : 1)
      }
      return
    }
    const dead = arena.u32[(at + RerouteFlowDead) >> 2]
    const deadIncarnation = arena.u32[(at + RerouteFlowDeadIncarnation) >> 2]
    // We have not heard of that death yet: what is in the link of the dead comes ahead of what is to come.
    if (dead !== 0 && this.#lives.isLive(dead, deadIncarnation)) context.takeBack(dead, deadIncarnation)
    const previous = isKnown && !isHearsay ? arena.u16[(entry + Entry.owner) >> 1] : 0
    const previousIncarnation = arena.u32[(entry + Entry.ownerIncarnation) >> 2]
    if (isHearsay && arena.u16[(entry + Entry.releaser) >> 1] === owner) this.#releasing.set(entry, 0, epoch - 1)
    this.#setFlow(entry, flow)
    arena.u8[entry + Entry.flags] &= ~(EntryFlag.fresh | EntryFlag.hearsay)
    // The owner has it without its state, so without its aliases.
    if (arena.u8[at + MessageField.code] === 1) {
      table.removeAliases(entry)
      this.aliases.flowEnded(flow)
    }
    // The replica's own word may be on its way here: it has released what there was, and its owner nothing.
    const now = this.#lives.unlessFenced(arena.u32[(at + RerouteFlowReleaserNow) >> 2], arena.u32[(at + RerouteFlowReleaserNowIncarnation) >> 2])
    const isOfOwner = isKnown && arena.u8[at + MessageField.code] !== 2 && arena.u16[(entry + Entry.releaser) >> 1] === previous
    if (now !== 0 && isOfOwner) this.#releasing.set(entry, now, epoch - 1)
    // A replica that is dead has nothing more to send, and the owner never had.
    const isReplicaDead = now === 0 && arena.u32[(at + RerouteFlowReleaserNow) >> 2] !== 0
    const releaser = arena.u32[(at + RerouteFlowReleaser) >> 2]
    this.#setNextReleaser(entry, releaser, arena.u32[(at + RerouteFlowReleaserIncarnation) >> 2])
    const hadNone = arena.u16[(entry + Entry.releaser) >> 1] === 0
    // Whoever releases its frames until the change may have some on their way here, before which it was to have been heard of.
    if (!isKnown || hadNone) this.#releasing.set(entry, now || (owner === sender || isReplicaDead ? releaser || owner : sender), epoch - 1)
    // A source that takes back what it was giving away; who goes on for the dead says so.
    this.#own(entry, owner, incarnation, epoch, owner === sender && arena.u8[at + MessageField.code] === 0)
    // The target of a dead owner's move gives back what it buffers when it has read all that it was sent, whoever was the owner since.
    const target = arena.u8[at + MessageField.code] === 2 ? arena.u32[(at + RerouteFlowBuffersAt) >> 2] as number : previous
    const isThere = target === previous ? this.#lives.isLive(target, previousIncarnation) : this.#lives.has(target)
    this.#answerReroute(isThere ? target : sender, sender, flow, epoch)
    const isNewReplica = hadNone && releaser !== 0 && this.#lives.isLife(releaser, arena.u16[(entry + Entry.releaserLife) >> 1])
    this.#releasing.release(entry, isNewReplica)
    if (dead !== 0) this.#mark(sender, at, flow, epoch, RerouteMark.begin)
    if (dead !== 0 && arena.u8[at + MessageField.code] === 1) this.takenBack.drop(entry, dead, deadIncarnation)
    else if (dead !== 0) {
      const isMarked = arena.u32[(at + RerouteFlowMarks) >> 2] !== 0 && arena.u8[entry + Entry.phase] === EntryPhase.active
      const covered = arena.u8[at + MessageField.code] === 0 ? null : arena.u32[(at + RerouteFlowCovered) >> 2] as number
      this.takenBack.claim(entry, dead, deadIncarnation, covered,
        isMarked ? (slot) => { context.toRuntime(slot >> 2, owner) } : undefined)
    }
    this.#mark(sender, at, flow, epoch)
    // Should the owner die before it has fetched what the target has: what it is sent from now on is from behind that.
    if (arena.u32[(at + RerouteFlowMarks) >> 2] !== 0) this.takenBack.cameTo(owner, flow, context.positionTo(owner), true)
    this.#flush(entry)
    if (!isKnown) this.aliases.flowKnown(flow, entry)
    this.#questions.askAgain()
  }

  /** In-band, ahead of what was taken back or behind it: the sender waits for it. */
  #mark(sender: number, at: number, flow: number, epoch: number, mark: number = RerouteMark.end): void {
    const context = this.#context
    if (context.arena.u32[(at + RerouteFlowMarks) >> 2] !== 0) sendHead(context, context.inBand(sender), RerouteFlowReply, flow, epoch, 0, mark)
  }

  /** Who is to release the flow's frames when the one who does now has sent its last: a replica, or with 0 the owner. */
  #setNextReleaser(entry: number, replica: number, incarnation: number): void {
    const { u16 } = this.#context.arena
    const life = incarnation & 0xffff
    const releaser = u16[(entry + Entry.releaser) >> 1]
    const isOfEntry = releaser !== 0 && releaser === u16[(entry + Entry.nextReleaser) >> 1]
    // Who has released so far, in a life that is over, has nothing more to say.
    if (isOfEntry && !this.#lives.isLife(releaser, u16[(entry + Entry.releaserLife) >> 1])) u16[(entry + Entry.releaser) >> 1] = 0
    u16[(entry + Entry.nextReleaser) >> 1] = replica
    u16[(entry + Entry.releaserLife) >> 1] = life
  }

  /** In-band, behind the last packet that went to the owner before. */
  #answerReroute(before: number, sender: number, flow: number, epoch: number): void {
    const context = this.#context
    const channel = planted['barrier-out-of-band'] ? context.control(before) : context.inBand(before) ?? context.inBand(sender)
    sendHead(context, channel, RerouteFlowReply, flow, epoch)
  }

  // -- Packets that come back ----------------------------------------------------------------------------------------

  /** True for a message in-band that is a packet coming back; the node makes a packet of it and calls `returned`. */
  isReturnedPacket(at: number, bytes: number): boolean {
    return this.#context.arena.u8[at] === ReturnPacket.type && isWellFormed(this.#context.arena, at, bytes)
  }

  /** A packet without a flow at the runtime that we sent it to, parsed anew. */
  returned(d: number): void {
    const context = this.#context
    const { arena, table } = context
    const hash = context.hashOf(d + Descriptor.key)
    const found = table.find(d + Descriptor.key, hash)
    if (!this.addresses.restore(d, found)) return context.drop(arena.i32[d + Descriptor.slot], 'no-owner')
    const entry = table.mainOf(found)
    if (entry !== 0) {
      const returns = Math.min(arena.u16[(entry + Entry.returns) >> 1] + 1, 0xffff)
      arena.u16[(entry + Entry.returns) >> 1] = returns
      if (returns > RETURNS_MAX) return context.drop(arena.i32[d + Descriptor.slot], 'no-owner')
      if (returns > RETURNS_TO_OPEN && (arena.i32[d + Descriptor.meta] & Meta.related) !== 0) context.useOwnKey(d)
      if (returns % RETURNS_TO_OPEN === 0 && arena.u8[entry + Entry.phase] === EntryPhase.active) this.#open(entry)
    }
    this.steer(d)
  }

  // -- Configuration, restarts, draining -----------------------------------------------------------------------------

  configure(config: ClusterConfig): void {
    const context = this.#context
    const { arena } = context
    const switchesBefore = this.#switches
    this.#version = config.version
    this.#switches = config.switches
    const isFirst = this.#lives.list.length === 0
    const fenced = this.#lives.configure(config.runtimes)
    // Whom the first one that we hear of lacks may have died just before.
    if (fenced.length > 0 || isFirst) this.#recoveredIn = config.version
    if (fenced.length > 0) this.#fence(new Set(fenced.map(({ id }) => id)))
    this.takenBack.inherit((runtime, incarnation) => this.#lives.isFenced(runtime, incarnation), (entry) => {
      if (arena.u8[entry + Entry.phase] === EntryPhase.active) this.#flush(entry)
    })
    this.#endings.configured()
    for (const entry of [...this.#waiting]) this.#reconsider(entry, switchesBefore)
    this.#releasing.configured()
    this.aliases.configure()
    this.#checkLearnt()
    this.#removeOrphans()
    this.#questions.askAgain()
  }

  /** Flows of fenced runtimes wait for whoever claims them. */
  #fence(fenced: ReadonlySet<number>): void {
    const { arena, table } = this.#context
    for (const entry of table.entries()) {
      const owner = arena.u16[(entry + Entry.owner) >> 1]
      const phase = arena.u8[entry + Entry.phase]
      if ((phase === EntryPhase.active || phase === EntryPhase.closing || phase === EntryPhase.stalled) &&
          !this.#lives.isLive(owner, arena.u32[(entry + Entry.ownerIncarnation) >> 2])) this.#wait(entry, EntryPhase.orphaned)
      const releaser = arena.u16[(entry + Entry.releaser) >> 1]
      // A newer life of it may be known here already.
      const isNewer = releaser === owner ? this.#lives.isLive(owner, arena.u32[(entry + Entry.ownerIncarnation) >> 2])
        : arena.u16[(entry + Entry.releaserLife) >> 1] === (this.#lives.incarnationOf(releaser) & 0xffff) && this.#lives.has(releaser)
      if (!fenced.has(releaser) || isNewer) continue
      if (this.#releasing.awaitsDrained(entry)) {
        arena.u16[(entry + Entry.releaser) >> 1] = 0
        this.#releasing.release(entry)
      } else {
        // Whoever claims the flow waits for nobody, even when the fenced one's next life is here.
        arena.u16[(entry + Entry.releaser) >> 1] = 0
      }
    }
  }

  /** What waits may go on now. */
  #reconsider(entry: number, switchesBefore: readonly SwitchEntry[]): void {
    const { arena } = this.#context
    switch (arena.u8[entry + Entry.phase]) {
      case EntryPhase.placing:
        this.#waiting.delete(entry)
        this.#serve(entry)
        break
      case EntryPhase.asking: {
        const home = homeSwitchOf(arena.i32, entry >> 2, this.#switches)
        const incarnation = (switches: readonly SwitchEntry[]): number => switches.find(({ id }) => id === home)?.incarnation ?? 0
        if (incarnation(this.#switches) === incarnation(switchesBefore)) return
        this.#waiting.delete(entry)
        this.#serve(entry)
        break
      }
      case EntryPhase.orphaned:
        if (!this.#lives.isLive(arena.u16[(entry + Entry.owner) >> 1], arena.u32[(entry + Entry.ownerIncarnation) >> 2])) return
        this.#waiting.delete(entry)
        this.#activate(entry)
        // What was to be said to an owner that we had not heard of.
        if (arena.u32[(entry + Entry.epoch) >> 2] === 1) this.#open(entry)
        else if (!this.#releasing.awaitsDrained(entry)) this.#releasing.go(entry)
    }
    if (arena.u8[entry + Entry.phase] === EntryPhase.active) this.#flush(entry)
  }

  #configApplied(runtime: number, version: number, givesBackLate: boolean): void {
    const state = this.#lives.get(runtime)
    if (state === undefined) return
    state.applied = Math.max(state.applied, version)
    if (givesBackLate) this.#givesBackLate.add(runtime)
    this.#checkLearnt()
    this.#removeOrphans()
  }

  /** When every runtime has said its word about the fenced, flows that nobody has claimed are gone. */
  #removeOrphans(): void {
    const { arena } = this.#context
    if (!this.#lives.haveApplied(this.#version)) return
    for (const entry of [...this.#waiting]) {
      if (arena.u8[entry + Entry.phase] !== EntryPhase.orphaned) continue
      if (!this.#lives.isFenced(arena.u16[(entry + Entry.owner) >> 1], arena.u32[(entry + Entry.ownerIncarnation) >> 2])) continue
      this.takenBack.orphaned(entry)
      this.#remove(entry, '')
    }
    this.takenBack.settle((runtime, incarnation) => this.#lives.isFenced(runtime, incarnation))
    // Announced flows that waited for a claim of what was taken back, and need not.
    for (const entry of [...this.#waiting]) {
      const flow = arena.f64[(entry + Entry.flow) >> 3]
      const isReady = arena.u8[entry + Entry.phase] === EntryPhase.orphaned && !this.takenBack.waits(flow) && !this.takenBack.has(flow)
      if (isReady) this.#reconsider(entry, this.#switches)
    }
    this.#questions.askAgain()
  }

  #announced(sender: number, at: number, bytes: number, flow: number, epoch: number, phase: number): void {
    const context = this.#context
    const { arena, table } = context
    const key = (at + MessageField.key) >> 2
    const entry = this.#entryFor(at, key, flow, epoch)
    const owner = arena.u16[(at + MessageField.node) >> 1]
    const incarnation = arena.u32[(at + AnnounceFlowOwnerIncarnation) >> 2]
    // As in RerouteFlow: whoever waits for our word about a flow that can have no entry here would wait for ever.
    if (entry === 0 && phase !== AnnouncedPhase.owned && table.findFlow(flow) === 0) this.#releasing.goWithout(owner, incarnation, flow, epoch)
    if (entry === 0) return
    const isNew = arena.f64[(entry + Entry.flow) >> 3] !== flow || arena.u32[(entry + Entry.epoch) >> 2] !== epoch
    if (isNew) {
      this.addresses.hear(entry, at)
      this.#setFlow(entry, flow)
      arena.u8[entry + Entry.flags] &= ~EntryFlag.hearsay
      const life = arena.u32[(at + AnnounceFlowReleaserIncarnation) >> 2]
      const named = arena.u32[(at + AnnounceFlowReleaser) >> 2]
      const releaser = this.#lives.unlessFenced(named, life)
      this.#setNextReleaser(entry, releaser, life)
      // A replica that has died since has nothing more to send, and the owner never had.
      this.#releasing.set(entry, named !== 0 ? releaser : this.#lives.unlessFenced(owner, incarnation), epoch)
      this.#own(entry, owner, incarnation, epoch)
      // What was taken back comes ahead of what is held, and its claim is on its way.
      if (this.takenBack.has(flow) && isActive(this.#context, entry)) this.#wait(entry, EntryPhase.orphaned)
      this.#flush(entry)
      this.aliases.flowKnown(flow, entry)
      // It may have ended there by now, before we were known: then it ends here as an opening does.
      if (phase === AnnouncedPhase.handedOver && isActive(this.#context, entry)) this.#open(entry)
    }
    this.aliases.announced(at, bytes, entry)
    if (phase !== AnnouncedPhase.owned && !this.#releasing.awaitsDrained(entry)) this.#releasing.go(entry)
    if (sender !== owner && phase === AnnouncedPhase.owned) context.anomaly('announced-for-another')
  }

  #announceDone(runtime: number): void {
    const state = this.#lives.get(runtime)
    if (state === undefined) return
    state.hasAnnounced = true
    this.#checkLearnt()
  }

  #checkLearnt(): void {
    const context = this.#context
    if (!this.#isLearning || this.#switches.length === 0) return
    const recoveredIn = planted['relearn-unrecovered'] ? 0 : this.#recoveredIn
    if (this.#lives.list.some(({ hasAnnounced, applied }) => !hasAnnounced || applied < recoveredIn)) return
    this.#isLearning = false
    context.step('relearning', -1)
    for (const entry of [...this.#waiting]) {
      if (context.arena.u8[entry + Entry.phase] === EntryPhase.learning) this.#remove(entry, '')
    }
    this.aliases.learnt()
    this.#questions.askAgain()
  }

  #stopPlacing(runtime: number, isStopped: boolean): void {
    if (this.#lives.stopPlacing(runtime, isStopped) && isStopped) sendHead(this.#context, this.#context.inBand(runtime), StopPlacingReply, 0, 0)
  }

  // -- Time ----------------------------------------------------------------------------------------------------------

  nextDue(): number {
    if (this.#stalled.size > 0) return this.#context.now + STALLED_US
    return this.#waiting.size > 0 || this.#unopened.size > 0 || this.#questions.size > 0 ? this.#nextSweep : Infinity
  }

  /** Gives up on what has been held too long; places what could not be placed. */
  tick(): void {
    const { now, times, arena } = this.#context
    for (const entry of this.#stalled) {
      if (this.#unopened.has(entry)) this.#open(entry)
      if (this.#unopened.has(entry) || !this.#context.hasRoomTo(arena.u16[(entry + Entry.owner) >> 1])) continue
      this.#setPhase(entry, EntryPhase.active)
      this.#flush(entry)
    }
    if (now < this.#nextSweep) return
    this.#nextSweep = now + times.sweepUs
    this.#questions.expire()
    // Their owners have said something of them meanwhile, or are dead.
    for (const entry of this.#unopened) if (arena.u8[entry + Entry.phase] !== EntryPhase.stalled) this.#unopened.delete(entry)
    // What was said late of flows of the dead has made entries which nobody is going to claim.
    this.#removeOrphans()
    for (const entry of [...this.#waiting]) {
      if (!this.#waiting.has(entry)) continue
      const phase = arena.u8[entry + Entry.phase]
      const isLate = now - arena.f64[(entry + Entry.since) >> 3] > times.holdUs
      const isGivenUp = phase === EntryPhase.orphaned && arena.u16[(entry + Entry.owner) >> 1] === 0
      if (isLate && (phase !== EntryPhase.orphaned || isGivenUp)) {
        this.#remove(entry, isGivenUp ? ''
          : phase === EntryPhase.placing ? 'no-runtime' : phase === EntryPhase.asking ? 'no-home' : 'hold-timeout')
      } else if (phase === EntryPhase.placing) {
        this.#waiting.delete(entry)
        this.#serve(entry)
        if (arena.u8[entry + Entry.phase] === EntryPhase.active) this.#flush(entry)
      }
    }
    this.#questions.askAgain()
  }
}

/** The name under which an entry in this phase counts as an open step. */
const STEP_OF: readonly (string | undefined)[] = [
  undefined, undefined, 'asking', 'closing', 'orphaned', 'placing', 'learning', undefined,
]
