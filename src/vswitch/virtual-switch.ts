/**
 * Virtual switch: which runtime serves each flow, and what that asks of a switch. Paper §5.2; PROTOCOL 1-6, 9, 18, 21, 24. Here packets and
 * messages come in, flows close, and runtimes are fenced; the states of entries (docs/protocol.md), and each thing that changes them, are
 * files of their own: entry-states.ts, placing.ts, rerouting.ts, relearning.ts, releasing.ts, endings.ts, questions.ts, alias-home.ts.
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
import {
  AnnounceDone, AnnounceFlow, ConfigApplied, StopPlacing, StopPlacingReply, Workload, WorkloadBusy, WorkloadFlows,
} from '../messages/announcing.ts'
import { BindAlias, BindAliasReply, ClaimAlias } from '../messages/aliasing.ts'
import { CloseFlow, CloseFlowReply, FlowClosed } from '../messages/closing.ts'
import { isWellFormed, MessageField } from '../messages/message.ts'
import { Drained, RerouteFlow } from '../messages/migration.ts'
import {
  Bind, BindOwnerIncarnation, BindReleaser, BindReleaserIncarnation, PlaceFlow, PlaceFlowQuestion, PlaceFlowReply, ReturnPacket,
} from '../messages/placement.ts'
import { Descriptor, Meta } from '../packet/descriptor.ts'
import { Addresses } from './addresses.ts'
import { AliasHome } from './alias-home.ts'
import { Endings } from './endings.ts'
import { EntryStates } from './entry-states.ts'
import { heldCount, hold, takeHeld } from './held-list.ts'
import { hurry } from './hurrying.ts'
import type { PlacementPolicy } from './placement/placement-policy.ts'
import { Placing } from './placing.ts'
import { Questions } from './questions.ts'
import { Relearning } from './relearning.ts'
import { Releasing } from './releasing.ts'
import { Rerouting } from './rerouting.ts'
import { RuntimeLives } from './runtime-lives.ts'
import { isActive, isHearsay, sendHead, type SwitchContext } from './switch-context.ts'
import { Entry, EntryFlag, EntryPhase } from './switch-table.ts'
import { TakenBack } from './taken-back.ts'

/** Packets of one flow that may come back from runtimes that do not know it; every few the runtime is told of it again. */
const RETURNS_MAX = 64
const RETURNS_TO_OPEN = 8
/** Between looks whether there is room for what waits for it. */
const STALLED_US = 100

export class VirtualSwitch {
  readonly aliases: AliasHome
  readonly addresses: Addresses
  readonly takenBack: TakenBack
  readonly #context: SwitchContext
  readonly #lives = new RuntimeLives()
  /** Runtimes that give link slots back late: what they leave there may have been processed. */
  readonly #givesBackLate = new Set<number>()
  readonly #states: EntryStates
  readonly #placing: Placing
  readonly #questions: Questions
  readonly #relearning: Relearning
  readonly #releasing: Releasing
  readonly #rerouting: Rerouting
  readonly #endings: Endings
  #nextSweep = 0

  constructor(context: SwitchContext, policy: PlacementPolicy) {
    assert(context.limits.heldPerFlow <= 0xffff, 'an entry counts its packets in 16 bits')
    this.#context = context
    const lives = this.#lives
    const flush = (entry: number): void => { this.#flush(entry) }
    const isLearning = (): boolean => this.isLearning
    const addresses = this.addresses = new Addresses(context)
    const takenBack = this.takenBack = new TakenBack(context, (runtime) => this.#givesBackLate.has(runtime))
    const aliases = this.aliases = new AliasHome(context, () => this.#placing.switches, isLearning,
      (entry, then) => { this.#states.remove(entry, '', then) })
    const questions = this.#questions = new Questions(context, {
      get isLearning() { return isLearning() },
      place: (entry) => { this.#placing.place(entry) },
      remind: (switchId, alias) => { aliases.remind(switchId, alias) },
    })
    const releasing = this.#releasing = new Releasing(context, lives)
    const endings = this.#endings = new Endings(context, lives, releasing, (entry) => {
      this.#states.remove(entry, '')
      questions.askAgain()
    })
    const states = this.#states = new EntryStates(context, {
      lives, addresses, takenBack, aliases, releasing, endings, steer: (d) => { this.steer(d) },
    })
    const placing = this.#placing = new Placing(context, policy, { lives, states, releasing, flush })
    this.#rerouting = new Rerouting(context, { lives, states, releasing, takenBack, aliases, questions, flush })
    this.#relearning = new Relearning(context, { lives, addresses, takenBack, aliases, states, releasing, questions, placing, flush })
  }

  get isLearning(): boolean {
    return this.#relearning.isLearning
  }

  // -- Packets -------------------------------------------------------------------------------------------------------

  /** A packet from outside whose key has no entry. */
  unknown(d: number): void {
    const context = this.#context
    const { arena, table } = context
    const key = d + Descriptor.key
    // What can only wait needs room to.
    if (context.held >= context.limits.held && (this.isLearning || !this.#placing.isHomeOf(key))) {
      return context.drop(arena.i32[d + Descriptor.slot], 'hold-limit')
    }
    const entry = table.add(key, arena.i32[d + Descriptor.hash])
    if (entry === 0) return context.drop(arena.i32[d + Descriptor.slot], 'flow-table-full')
    this.addresses.learn(entry, d)
    arena.f64[(entry + Entry.since) >> 3] = context.now
    if (this.isLearning && !planted['relearn-at-once']) {
      this.#states.wait(entry, EntryPhase.learning)
      hold(context, entry, d)
      return
    }
    this.#placing.serve(entry)
    this.packet(entry, d)
  }

  /** A packet from a runtime whose key has no entry: after a restart its releaser may not have been announced yet. */
  unknownFromRuntime(d: number): void {
    const context = this.#context
    const { arena, table } = context
    const entry = this.isLearning ? table.add(d + Descriptor.key, arena.i32[d + Descriptor.hash]) : 0
    if (entry === 0) return context.drop(arena.i32[d + Descriptor.slot], 'not-releaser')
    this.addresses.expect(entry)
    arena.f64[(entry + Entry.since) >> 3] = context.now
    this.#states.wait(entry, EntryPhase.learning)
    hold(context, entry, d)
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
      if (u8[entry + Entry.phase] === EntryPhase.active && !context.hasRoomTo(u16[(entry + Entry.owner) >> 1])) this.#states.stall(entry)
      this.packet(entry, d)
    }
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
    if (arena.u8[entry + Entry.phase] === EntryPhase.active) this.#states.stall(entry)
    hold(this.#context, entry, d)
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
      case PlaceFlowReply.type: return this.#placing.answered(at)
      case CloseFlow.type: return this.#closeFlow(peer, at, flow, epoch)
      case FlowClosed.type: return code === 2 ? this.#givenUp(peer, flow, epoch) : this.#flowClosed(at, flow, code !== 0)
      case RerouteFlow.type: return this.#rerouting.reroute(peer, at, flow, epoch)
      case AnnounceFlow.type: return this.#relearning.announced(peer, at, bytes, flow, epoch, code)
      case AnnounceDone.type: return this.#relearning.announceDone(peer)
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
      case FlowClosed.type:
        this.#flowClosed(at, flow, true)
        // A replica that had not heard of the end may have claimed the flow since: what its owner has released of it ends here as well.
        if (arena.u16[(at + MessageField.node) >> 1] === 0) this.#releasing.closed(runtime, flow, epoch)
        return
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
    if (heard !== 0 && isHearsay(this.#context, heard) && epoch < arena.u32[(heard + Entry.epoch) >> 2]) {
      return this.#releasing.set(heard, releaser, epoch)
    }
    const entry = this.#states.entryFor(at, (at + MessageField.key) >> 2, flow, epoch)
    if (entry === 0) return
    this.#states.setFlow(entry, flow)
    arena.u8[entry + Entry.flags] &= ~(EntryFlag.fresh | EntryFlag.hearsay)
    this.#releasing.setNext(entry, releaser === owner ? 0 : releaser, arena.u32[(at + BindReleaserIncarnation) >> 2])
    if (arena.u16[(entry + Entry.releaser) >> 1] !== releaser) arena.u32[(entry + Entry.released) >> 2] = 0
    this.#releasing.set(entry, releaser, epoch)
    this.#states.own(entry, owner, incarnation, epoch)
    this.#flush(entry)
    this.aliases.flowKnown(flow, entry)
  }

  #closeFlow(runtime: number, at: number, flow: number, epoch: number): void {
    const context = this.#context
    const { arena, table } = context
    const key = (at + MessageField.key) >> 2
    const entry = table.mainOf(table.find(key, context.hashOf(key)))
    let isBusy = false
    if (entry !== 0) {
      const isSame = arena.f64[(entry + Entry.flow) >> 3] === flow && arena.u32[(entry + Entry.epoch) >> 2] === epoch
      if (isSame && isActive(context, entry)) this.#states.setPhase(entry, EntryPhase.closing)
      // Packets may be about to come for it that the dead owner of the flow before was sent.
      isBusy = heldCount(context, entry) > 0 || (isSame && (this.takenBack.waits(flow) || this.takenBack.has(flow)))
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
      this.#states.waiting.delete(entry)
      this.#states.setPhase(entry, EntryPhase.closing)
    } else if (arena.u8[entry + Entry.phase] === EntryPhase.closing) {
      this.#states.setPhase(entry, EntryPhase.active)
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
    this.#states.wait(entry, EntryPhase.orphaned)
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
      if (returns % RETURNS_TO_OPEN === 0 && arena.u8[entry + Entry.phase] === EntryPhase.active) this.#placing.open(entry)
    }
    this.steer(d)
  }

  // -- Configuration, restarts, draining -----------------------------------------------------------------------------

  configure(config: ClusterConfig): void {
    const context = this.#context
    const { arena } = context
    const switchesBefore = this.#placing.switches
    this.#placing.switches = config.switches
    const isFirst = this.#lives.list.length === 0
    const fenced = this.#lives.configure(config.runtimes, config.version)
    // Whom the first one that we hear of lacks may have died just before.
    if (fenced.length > 0 || isFirst) this.#relearning.fenced(config.version)
    if (fenced.length > 0) this.#fence(new Set(fenced.map(({ id }) => id)))
    this.takenBack.inherit((runtime, incarnation) => this.#lives.isFenced(runtime, incarnation), (entry) => {
      if (arena.u8[entry + Entry.phase] === EntryPhase.active) this.#flush(entry)
    })
    this.#endings.configured()
    for (const entry of [...this.#states.waiting]) this.#reconsider(entry, switchesBefore)
    this.#releasing.configured()
    this.aliases.configure()
    this.#relearning.check()
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
          !this.#lives.isLive(owner, arena.u32[(entry + Entry.ownerIncarnation) >> 2])) this.#states.wait(entry, EntryPhase.orphaned)
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
        this.#states.waiting.delete(entry)
        this.#placing.serve(entry)
        break
      case EntryPhase.asking: {
        const home = this.#placing.homeOf(entry >> 2)
        const incarnation = (switches: readonly SwitchEntry[]): number => switches.find(({ id }) => id === home)?.incarnation ?? 0
        if (incarnation(this.#placing.switches) === incarnation(switchesBefore)) return
        this.#states.waiting.delete(entry)
        this.#placing.serve(entry)
        break
      }
      case EntryPhase.orphaned:
        if (!this.#lives.isLive(arena.u16[(entry + Entry.owner) >> 1], arena.u32[(entry + Entry.ownerIncarnation) >> 2])) return
        this.#states.waiting.delete(entry)
        this.#states.activate(entry)
        // What was to be said to an owner that we had not heard of.
        if (arena.u32[(entry + Entry.epoch) >> 2] === 1) this.#placing.open(entry)
        else if (!this.#releasing.awaitsDrained(entry)) this.#releasing.go(entry)
    }
    if (arena.u8[entry + Entry.phase] === EntryPhase.active) this.#flush(entry)
  }

  #configApplied(runtime: number, version: number, givesBackLate: boolean): void {
    const state = this.#lives.get(runtime)
    if (state === undefined) return
    state.applied = Math.max(state.applied, version)
    if (givesBackLate) this.#givesBackLate.add(runtime)
    this.#relearning.check()
    this.#removeOrphans()
  }

  /** When every runtime has said its word about the fenced, flows that nobody has claimed are gone. */
  #removeOrphans(): void {
    const { arena } = this.#context
    if (!this.#lives.haveApplied) return
    for (const entry of [...this.#states.waiting]) {
      if (arena.u8[entry + Entry.phase] !== EntryPhase.orphaned) continue
      if (!this.#lives.isFenced(arena.u16[(entry + Entry.owner) >> 1], arena.u32[(entry + Entry.ownerIncarnation) >> 2])) continue
      this.takenBack.orphaned(entry)
      this.#states.remove(entry, '')
    }
    this.takenBack.settle((runtime, incarnation) => this.#lives.isFenced(runtime, incarnation))
    // Announced flows that waited for a claim of what was taken back, and need not.
    for (const entry of [...this.#states.waiting]) {
      const flow = arena.f64[(entry + Entry.flow) >> 3]
      const isReady = arena.u8[entry + Entry.phase] === EntryPhase.orphaned && !this.takenBack.waits(flow) && !this.takenBack.has(flow)
      if (isReady) this.#reconsider(entry, this.#placing.switches)
    }
    this.#questions.askAgain()
  }

  #stopPlacing(runtime: number, isStopped: boolean): void {
    if (this.#lives.stopPlacing(runtime, isStopped) && isStopped) sendHead(this.#context, this.#context.inBand(runtime), StopPlacingReply, 0, 0)
  }

  // -- Time ----------------------------------------------------------------------------------------------------------

  nextDue(): number {
    if (this.#states.stalled.size > 0) return this.#context.now + STALLED_US
    return this.#states.waiting.size > 0 || this.#states.unopened.size > 0 || this.#questions.size > 0 ? this.#nextSweep : Infinity
  }

  /** Gives up on what has been held too long; places what could not be placed. */
  tick(): void {
    const { now, times, arena } = this.#context
    for (const entry of this.#states.stalled) {
      if (this.#states.unopened.has(entry)) this.#placing.open(entry)
      if (this.#states.unopened.has(entry) || !this.#context.hasRoomTo(arena.u16[(entry + Entry.owner) >> 1])) continue
      this.#states.setPhase(entry, EntryPhase.active)
      this.#flush(entry)
    }
    if (now < this.#nextSweep) return
    this.#nextSweep = now + times.sweepUs
    this.#questions.expire()
    // Their owners have said something of them meanwhile, or are dead.
    for (const entry of this.#states.unopened) if (arena.u8[entry + Entry.phase] !== EntryPhase.stalled) this.#states.unopened.delete(entry)
    // What was said late of flows of the dead has made entries which nobody is going to claim.
    this.#removeOrphans()
    for (const entry of [...this.#states.waiting]) {
      if (!this.#states.waiting.has(entry)) continue
      const phase = arena.u8[entry + Entry.phase]
      const isLate = now - arena.f64[(entry + Entry.since) >> 3] > times.holdUs
      const isGivenUp = phase === EntryPhase.orphaned && arena.u16[(entry + Entry.owner) >> 1] === 0
      if (isLate && (phase !== EntryPhase.orphaned || isGivenUp)) {
        this.#states.remove(entry, isGivenUp ? ''
          : phase === EntryPhase.placing ? 'no-runtime' : phase === EntryPhase.asking ? 'no-home' : 'hold-timeout')
      } else if (phase === EntryPhase.placing) {
        this.#states.waiting.delete(entry)
        this.#placing.serve(entry)
        if (arena.u8[entry + Entry.phase] === EntryPhase.active) this.#flush(entry)
      }
    }
    this.#questions.askAgain()
  }
}
