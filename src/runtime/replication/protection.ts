/**
 * Protection: the owner's side of replication. Paper §5.4.2; PROTOCOL 12-15, 18, 19; docs/protocol.md, "Replication".
 *
 * A flow is guarded by a replica at another runtime. In `commit` its outputs go there with the record behind them, and leave from there;
 * what the replica has not acknowledged is kept. In `async` the record goes there every few packets, and outputs leave from here.
 *
 *     (opened) ─▶ guarded ── its replica is fenced, it has come here, it was bare ──▶ securing ─▶ guarded
 *
 * Securing is a change of releaser: the flow is paused, a replica adopts it, every switch is told who releases from now on and says
 * `Go` when the one before has sent its last. Then what that one never released is released, and what came meanwhile runs. A replica that
 * lives and is replaced, for its runtime is to become empty, hears so first.
 */

import { planted } from '../../base/planted-bugs.ts'
import {
  AbortFlow, AbortFlowSwitches, RerouteFlow, RerouteFlowBuffersAt, RerouteFlowCovered, RerouteFlowDead, RerouteFlowDeadIncarnation,
  RerouteFlowMarks, RerouteFlowOwnerIncarnation, RerouteFlowReleaser,
  RerouteFlowReleaserIncarnation, RerouteFlowReleaserNow, RerouteFlowReleaserNowIncarnation,
} from '../../messages/migration.ts'
import { MessageField } from '../../messages/message.ts'
import { AdoptKind, AdoptRefusal, ForgetFlow, MovingFlow } from '../../messages/replication.ts'
import { Descriptor } from '../../packet/descriptor.ts'
import { PacketQueue } from '../../packet/packet-queue.ts'
import type { MessageChannel } from '../../transport/message-channel.ts'
import {
  begin, COMPANION_REPLICA, companionOf, epochOf, flowOf, sayDrained, sendHead, setFlow, writeKey, type RuntimeContext,
} from '../runtime-context.ts'
import { coveredBy } from './inputs.ts'
import { createGuard, Steps, type Guard } from './steps.ts'
import { isTooLargeToAdopt, sendAdoption } from './adoption.ts'
import { sendRetire } from './replicas.ts'

export type ReplicationMode = 'none' | 'async' | 'commit'

interface Securing {
  readonly flow: number
  readonly record: number
  epoch: number
  replica: number
  /** Who guarded it before knows that it is being replaced, so that not both go on with the flow should we die. */
  isMarked: boolean
  isAsked: boolean
  isAdopted: boolean
  /** The switches have been told. */
  isRerouted: boolean
  readonly isPromotion: boolean
  readonly isReleaser: boolean
  /** Switches whose `Go` is awaited, and what each had accepted from the releaser before. */
  pending: number
  readonly released: Map<number, number>
  /** Who guarded it before. */
  readonly old: Guard | null
  /** A runtime that buffers packets of the flow, 0 for none, and switches that it is to hear from. */
  readonly target: number
  targetDone: boolean
  markers: number
  readonly returned: PacketQueue
  readonly held: PacketQueue
  /** How far links had been consumed when the flow was paused. */
  readonly inputs: Int32Array
  /** Whose death has brought the flow here, 0 for nobody's, and how far that one had consumed its links by the record. */
  readonly dead: number
  readonly covered: Int32Array | null
  /** Switches whose word is awaited that what they took back has come: it is in `back`, and runs ahead of what the target had buffered. */
  unmarked: number
  readonly back: PacketQueue
}

export interface ProtectionHost {
  readonly mode: ReplicationMode
  /** In `async`: outputs of a flow between two copies of its record. */
  readonly every: number
  /** Runtimes that can keep a replica now. */
  candidates(): readonly number[]
  /** True for a runtime that is to become empty. */
  isLeaving(runtime: number): boolean
  incarnationOf(runtime: number): number
  /** Sends a frame to a switch and counts it. */
  release(switchId: number, frame: number, length: number): void
  /** True for a flow whose move is called off, while packets of it wait for others. */
  isGoingBack(flow: number): boolean
  /** True for flows that move, close or claim. */
  isBusy(flow: number): boolean
}

const BARE_PER_TURN = 16
/** Flows that are secured at once, but for those whose owner has died: each stands still meanwhile. */
const SECURING_MAX = 64

export class Protection {
  readonly counts = { guarded: 0, bare: 0, secured: 0, resent: 0 }
  readonly steps: Steps
  readonly securing = new Map<number, Securing>()
  readonly #context: RuntimeContext
  readonly #host: ProtectionHost
  readonly #guards = new Map<number, Guard>()
  /** The same by the records' places in their slab. PERF: looked up per packet; undefined where there is none. */
  readonly #guardAt: (Guard | undefined)[] = []
  /** Flows without a replica, or whose replica is dead or at a runtime that is to become empty: to be secured as soon as that can be. */
  readonly #bare = new Map<number, number>()
  readonly #adoptions = new Map<number, { readonly replica: number; done(): void }>()
  /** Runtimes that have adopted a flow which has just come here, and is to be secured. */
  readonly #early = new Map<number, number>()
  #next = 0

  constructor(context: RuntimeContext, host: ProtectionHost) {
    this.#context = context
    this.#host = host
    this.steps = new Steps(context, {
      mode: host.mode, every: host.every,
      guardOf: (record) => this.#guardAt[context.engine.slab.indexOf(record)],
      // What has come and waits is not in the record, and is behind what the step would say to be covered.
      isSecuring: (flow) => this.securing.has(flow) || host.isGoingBack(flow),
      release: (switchId, frame, length) => { host.release(switchId, frame, length) },
    })
  }

  get isOn(): boolean {
    return this.#host.mode !== 'none'
  }

  /** False while so much waits for room in sessions that nothing more should be read. */
  get hasRoom(): boolean {
    return this.steps.hasRoom
  }

  /** True while something here waits for room, an acknowledgement or a runtime. */
  get isWaiting(): boolean {
    if (this.steps.isWaiting || (this.#bare.size > 0 && this.#host.candidates().length > 0)) return true
    for (const { isAsked, replica } of this.securing.values()) if (replica !== 0 && !isAsked) return true
    return false
  }

  /** True when what has changed is on its way to replicas, and every flow that can has one. */
  get isSettled(): boolean {
    return this.securing.size === 0 && !this.steps.hasUnsent && (this.#bare.size === 0 || this.#host.candidates().length === 0)
  }

  /** True while a switch has yet to hear of a flow whose owner has died that it is ours. */
  get isClaiming(): boolean {
    for (const { isPromotion, isRerouted } of this.securing.values()) if (isPromotion && !isRerouted) return true
    return false
  }

  /** The runtime that keeps the flow's replica, 0 for none. */
  replicaOf(flow: number): number {
    const guard = this.#guards.get(flow)
    return guard === undefined || guard.isDead ? 0 : guard.replica
  }

  /** Who releases the frames of a flow, 0 for us. */
  releaserOf(flow: number): number {
    if (this.#host.mode !== 'commit') return 0
    const securing = this.securing.get(flow)
    if (securing !== undefined && !securing.isRerouted && securing.isReleaser) return 0
    return securing?.isRerouted === true ? securing.replica : this.replicaOf(flow)
  }

  /** True while outputs of a flow have not been acknowledged. */
  hasKept(flow: number): boolean {
    const guard = this.#guards.get(flow)
    return guard !== undefined && (guard.first !== null || !guard.isAdopted)
  }

  isDead(flow: number): boolean {
    return this.#guards.get(flow)?.isDead === true
  }

  // -- Flows come and go ---------------------------------------------------------------------------------------------

  #choose(except = 0): number {
    const candidates = this.#host.candidates().filter((id) => id !== except)
    return candidates.length === 0 ? 0 : candidates[this.#next++ % candidates.length] as number
  }

  /** A flow has opened here. */
  opened(record: number): void {
    if (!this.isOn) return
    const replica = this.#choose()
    const flow = flowOf(this.#context, record)
    if (replica === 0 || !this.#adopt(record, replica, AdoptKind.opening)) this.#leaveBare(flow, record)
    else this.#guard(flow, record, replica, false)
  }

  #leaveBare(flow: number, record: number): void {
    this.#bare.set(flow, record)
    this.counts.bare++
  }

  #guard(flow: number, record: number, replica: number, isAdopted: boolean): Guard {
    const context = this.#context
    const guard = createGuard(flow, record, replica, isAdopted)
    this.#guards.set(flow, guard)
    const index = context.engine.slab.indexOf(record)
    while (this.#guardAt.length <= index) this.#guardAt.push(undefined)
    this.#guardAt[index] = guard
    this.counts.guarded++
    context.arena.u16[(companionOf(context, record) + COMPANION_REPLICA) >> 1] = replica
    return guard
  }

  /** Sends the whole flow to a runtime; false when there is no room. */
  #adopt(record: number, replica: number, kind: number = AdoptKind.settled, former = 0, inputs = this.#context.inputs.words): boolean {
    const formerIncarnation = former === 0 ? 0 : this.#host.incarnationOf(former)
    return sendAdoption(this.#context, record, replica, { kind, releases: this.#host.mode === 'commit', former, formerIncarnation, inputs })
  }

  /** The flow's aliases have changed. */
  refresh(record: number): void {
    const guard = this.#guards.get(flowOf(this.#context, record))
    if (guard === undefined || guard.isDead) return
    // No room: the next time it is secured.
    if (!this.#adopt(record, guard.replica)) this.#context.anomaly('alias-not-replicated')
  }

  /** A flow that has just come here: a replica has it before its source forgets it. */
  adoptEarly(record: number, source: number, inputs: Int32Array, done: () => void): void {
    const replica = this.isOn ? this.#choose(source) : 0
    if (replica === 0 || !this.#adopt(record, replica, AdoptKind.tentative, 0, inputs)) return done()
    const flow = flowOf(this.#context, record)
    this.#adoptions.set(flow, { replica, done })
    this.#early.set(flow, replica)
  }

  /** The flow has ended, or lives elsewhere now. */
  ended(flow: number): void {
    this.#bare.delete(flow)
    this.#adoptions.delete(flow)
    this.#early.delete(flow)
    const guard = this.#guards.get(flow)
    if (guard === undefined) return
    this.steps.forget(guard, ({ slot }, isUnsent) => {
      if (isUnsent) this.#context.drop(slot, 'replica-behind')
      else this.#context.engine.pool.give(slot)
    })
    this.#guards.delete(flow)
    this.#clear(guard)
    if (!guard.isDead) sendHead(this.#context, this.#context.control(guard.replica), ForgetFlow, flow, 0)
  }

  #clear({ record }: Guard): void {
    this.#context.arena.u16[(companionOf(this.#context, record) + COMPANION_REPLICA) >> 1] = 0
    this.#guardAt[this.#context.engine.slab.indexOf(record)] = undefined
  }

  // -- Securing ------------------------------------------------------------------------------------------------------

  /**
   * Gives a flow that is paused, or is paused now, a replica; then it runs.
   *
   * @param held packets to run then, counted as buffered
   * @param options target: a runtime that buffers packets of the flow and is to hand them over; isPromotion: its owner has died, and no
   *   switch knows yet that it is ours; isReleaser: the switches accept our frames, although it had a replica that lives, which knows of
   *   the move that failed; former: who kept the replica before us, when its owner died in the middle of the change; dead: that owner, and
   *   how far it had consumed its links; inputs: how far ours had been when the first of the held packets came
   */
  secure(record: number, held: PacketQueue | null = null, { target = 0, isPromotion = false, isReleaser = false, former = 0, dead = 0,
    covered = null as Int32Array | null, inputs = this.#context.inputs.words } = {}): void {
    const context = this.#context
    const hasOlder = isPromotion && held !== null && held.count > 0
    const flow = flowOf(context, record)
    this.#bare.delete(flow)
    const old = this.#guards.get(flow) ?? (former === 0 ? null : createGuard(flow, record, former, true))
    context.engine.pauseFlow(record)
    const isMarked = old === null || old.isDead || isReleaser || isPromotion
    const securing: Securing = {
      flow, record, epoch: 0, replica: 0, isMarked, isAsked: false, isAdopted: false, isRerouted: false, isPromotion, isReleaser,
      pending: 0, released: new Map(), old, target,
      targetDone: target === 0, markers: 0, returned: hasOlder ? held : new PacketQueue(context.arena),
      held: held !== null && !hasOlder ? held : new PacketQueue(context.arena), inputs: inputs.slice(), dead, covered,
      unmarked: dead !== 0 && (target !== 0 || hasOlder) ? context.switches.all : 0, back: new PacketQueue(context.arena),
    }
    this.securing.set(flow, securing)
    context.step('securing', 1)
    this.#begin(securing, 0)
  }

  #begin(securing: Securing, except: number): void {
    const context = this.#context
    const { record, flow } = securing
    securing.epoch = epochOf(context, record) + 1
    setFlow(context, record, flow, securing.epoch)
    const early = this.#early.get(flow) ?? 0
    this.#early.delete(flow)
    const isEarly = early !== 0 && early !== except && this.#host.candidates().includes(early)
    // Its copy would stay for ever.
    if (early !== 0 && !isEarly) sendHead(context, context.control(early), ForgetFlow, flow, 0)
    securing.replica = isEarly ? early : this.#choose(except)
    const { old: before, isReleaser } = securing
    // A copy that is old by now must not be promoted: rather one at a runtime that is to become empty than none while that one may remain.
    if (securing.replica === 0 && isReleaser && before?.isDead === false && before.replica !== except) securing.replica = before.replica
    if (securing.replica !== 0 && isTooLargeToAdopt(context, record, securing.replica)) {
      context.anomaly('too-large-to-replicate')
      securing.replica = 0
    }
    securing.isAsked = securing.isAdopted = securing.isRerouted = false
    if (securing.replica === 0) return this.#changeReleaser(securing)
    const { old, isMarked, epoch } = securing
    if (isMarked || old === null) this.#ask(securing)
    else sendHead(context, context.control(old.replica), MovingFlow, flow, epoch, 0, context.self)
  }

  /** The replica that is to be replaced knows so. False when that was not asked here. */
  movingReply(replica: number, flow: number): boolean {
    const securing = this.securing.get(flow)
    if (securing === undefined || securing.isMarked || securing.old?.replica !== replica) return false
    securing.isMarked = true
    this.#ask(securing)
    return true
  }

  /** A replica has the flow, or there is none to be had: the switches hear who releases its frames from now on. */
  #changeReleaser(securing: Securing): void {
    const context = this.#context
    const { old, flow, epoch, isReleaser } = securing
    securing.isRerouted = true
    securing.pending = securing.markers = context.switches.all
    this.#reroute(securing, context.switches.all)
    const isOldReleaser = old !== null && !old.isDead && !isReleaser
    if (isOldReleaser) sendRetire(context, old.replica, flow, epoch, securing.replica === 0)
    // Where the owner has died in the middle of a change, some switches may take us for the releaser.
    if (!isOldReleaser || securing.isPromotion) sayDrained(context, flow, epoch)
    if (!securing.targetDone) this.#sendAbort(securing)
    if (planted['secured-without-go']) securing.pending = 0
    this.#finish(securing)
  }

  #ask(securing: Securing): void {
    const { replica, record, old } = securing
    if (replica === 0 || securing.isAsked || !securing.isMarked) return
    const hasFormer = old !== null && !old.isDead && old.replica !== replica
    securing.isAsked = this.#adopt(record, replica, AdoptKind.settled, hasFormer ? old.replica : 0, securing.inputs)
  }

  #reroute(securing: Securing, mask: number): void {
    const { record, flow, epoch, replica, isPromotion, target, dead, covered, unmarked } = securing
    const context = this.#context
    const { arena } = context
    const releaser = this.#host.mode === 'commit' ? replica : 0
    const now = this.#releaserBefore(securing)
    for (const id of context.switches.idsIn(mask)) {
      const channel = context.control(id)
      const at = begin(context, channel, RerouteFlow, flow, epoch, true)
      if (at === 0) continue
      arena.u16[(at + MessageField.node) >> 1] = context.self
      if (isPromotion) arena.u8[at + MessageField.code] = 2
      arena.u32[(at + RerouteFlowBuffersAt) >> 2] = target
      arena.u32[(at + RerouteFlowOwnerIncarnation) >> 2] = context.incarnation
      arena.u32[(at + RerouteFlowDead) >> 2] = dead
      arena.u32[(at + RerouteFlowDeadIncarnation) >> 2] = context.ended.get(dead) ?? 0
      arena.u32[(at + RerouteFlowCovered) >> 2] = planted['take-back-repeats'] ? 0 : coveredBy(covered, id, context.switches.incarnationOf(id))
      arena.u32[(at + RerouteFlowMarks) >> 2] = (unmarked & context.switches.bitOf(id)) === 0 ? 0 : 1
      arena.u32[(at + RerouteFlowReleaser) >> 2] = releaser
      arena.u32[(at + RerouteFlowReleaserIncarnation) >> 2] = releaser === 0 ? 0 : this.#host.incarnationOf(releaser)
      arena.u32[(at + RerouteFlowReleaserNow) >> 2] = now
      arena.u32[(at + RerouteFlowReleaserNowIncarnation) >> 2] = now === context.self ? context.incarnation : this.#host.incarnationOf(now)
      writeKey(context, at, record)
      ;(channel as MessageChannel).commit()
    }
  }

  /**
   * Who has released the flow's frames so far and lives: a switch that is told of the change before it has heard of the flow still has
   * those coming. 0: whoever it was is dead.
   */
  #releaserBefore({ old, isReleaser, isPromotion }: Securing): number {
    if (this.#host.mode !== 'commit') return 0
    if (old === null || isReleaser || isPromotion) return this.#context.self
    return old.isDead ? 0 : old.replica
  }

  /** The target of the dead owner's move hands over what it buffers when it has heard from these switches. */
  #sendAbort({ flow, epoch, target, markers }: Securing): void {
    const context = this.#context
    const channel = context.control(target)
    let at = begin(context, channel, AbortFlow, flow, epoch, true)
    if (at === 0) return
    at += AbortFlowSwitches
    for (const id of context.switches.idsIn(markers)) context.arena.u8[at++] = id
    ;(channel as MessageChannel).commit()
  }

  /** A switch says that we may go on; it has accepted `released` frames of the releaser before. */
  go(switchId: number, flow: number, epoch: number, released: number): boolean {
    const securing = this.securing.get(flow)
    if (securing === undefined) return false
    if (epoch !== securing.epoch) {
      // Of an attempt that was given up: who had released so much is the same.
      if (epoch < securing.epoch && !securing.released.has(switchId)) securing.released.set(switchId, released)
      return true
    }
    if (!securing.released.has(switchId)) securing.released.set(switchId, released)
    securing.pending &= ~this.#context.switches.bitOf(switchId)
    this.#finish(securing)
    return true
  }

  /** A switch knows better: a flow whose owner has died lives on elsewhere. */
  superseded(flow: number, epoch: number): boolean {
    const securing = this.securing.get(flow)
    if (securing === undefined || !securing.isPromotion || securing.epoch !== epoch) return false
    const context = this.#context
    this.securing.delete(flow)
    context.step('securing', -1)
    this.ended(flow)
    for (const queue of [securing.back, securing.returned, securing.held]) {
      for (let slot = queue.shift(); slot !== 0; slot = queue.shift()) {
        context.buffered--
        context.drop(slot, 'source-fenced')
      }
    }
    context.engine.removeFlow(securing.record)
    if (securing.replica !== 0) sendHead(context, context.control(securing.replica), ForgetFlow, flow, 0)
    return true
  }

  /** In-band: a switch had nobody to tell but us, so the target need not wait for it; or all that it took back for us has come. */
  rerouteReply(switchId: number, flow: number, epoch: number, isMark: boolean): boolean {
    const securing = this.securing.get(flow)
    if (securing === undefined) return isMark
    const bit = this.#context.switches.bitOf(switchId)
    if (isMark) {
      securing.unmarked &= ~bit
      this.#finish(securing)
      return true
    }
    if (epoch === securing.epoch && securing.isRerouted && !securing.targetDone && (securing.markers & bit) !== 0) {
      securing.markers &= ~bit
      this.#sendAbort(securing)
    }
    return true
  }

  /** The target has handed over all that it had. */
  abortReply(flow: number, epoch: number): boolean {
    const securing = this.securing.get(flow)
    if (securing === undefined) return false
    if (epoch === securing.epoch) {
      securing.targetDone = true
      this.#finish(securing)
    }
    return true
  }

  /** A packet that the target had. */
  returnedPacket(flow: number, frame: number, length: number, switchId: number): boolean {
    const securing = this.securing.get(flow)
    if (securing === undefined) return false
    const context = this.#context
    context.countTakenOver(1)
    if (securing.returned.pushFrame(context.arena, context.engine.pool, frame, length, switchId)) context.buffered++
    else context.drop(0, 'no-slot')
    return true
  }

  adoptReply(from: number, flow: number, epoch: number, refusal: number): void {
    const context = this.#context
    const adoption = this.#adoptions.get(flow)
    if (adoption?.replica === from) {
      this.#adoptions.delete(flow)
      adoption.done()
      return
    }
    const securing = this.securing.get(flow)
    if (securing !== undefined) {
      if (securing.replica !== from || epoch !== securing.epoch) return
      if (refusal === AdoptRefusal.none) {
        securing.isAdopted = true
        this.#changeReleaser(securing)
      } else {
        this.#begin(securing, from)
      }
      return
    }
    const guard = this.#guards.get(flow)
    if (guard === undefined || guard.replica !== from) return context.anomaly('late-adoption')
    if (refusal === AdoptRefusal.none) {
      guard.isAdopted = true
      this.steps.acknowledged(guard)
    } else {
      this.#die(guard)
    }
  }

  #finish(securing: Securing): void {
    const context = this.#context
    const { flow, record, replica, old, released, returned, held, back } = securing
    if (!securing.isRerouted || securing.pending !== 0 || securing.unmarked !== 0) return
    if (!securing.targetDone || (replica !== 0 && !securing.isAdopted)) return
    this.securing.delete(flow)
    context.step('securing', -1)
    if (old !== null) {
      this.#guards.delete(flow)
      this.#clear(old)
      if (!old.isDead && old.replica !== replica) sendHead(context, context.control(old.replica), ForgetFlow, flow, 0)
    }
    if (replica === 0) this.#leaveBare(flow, record)
    const guard = replica === 0 ? null : this.#guard(flow, record, replica, true)
    if (this.#host.isLeaving(replica)) this.#bare.set(flow, record)
    context.engine.resumeFlow(record)
    this.counts.secured++
    if (old !== null) this.#resend(old, guard, released)
    context.buffered -= back.count + returned.count + held.count
    context.run(back)
    context.run(returned)
    context.run(held)
    if (guard !== null && this.#guards.get(flow) === guard) this.steps.send(guard)
  }

  /** Outputs that no switch has had from the replica before leave now. */
  #resend(old: Guard, guard: Guard | null, released: ReadonlyMap<number, number>): void {
    const context = this.#context
    this.steps.forget(old, (output, isUnsent) => {
      const { switchId, index, slot, frame, length } = output
      if (!isUnsent) {
        if (index <= (released.get(switchId) ?? Infinity) && !planted['everything-resent']) return context.engine.pool.give(slot)
        // It was handed over to nobody.
        context.countTakenOver(1)
        this.counts.resent++
      }
      if (guard === null) this.steps.releaseNow(output)
      else this.steps.keep(guard, switchId, slot, frame, length)
    })
  }

  /** A packet of a flow that is being secured. */
  take(flow: number, d: number): boolean {
    const securing = this.securing.get(flow)
    if (securing === undefined) return false
    const context = this.#context
    if (securing.held.count >= context.limits.bufferedPerFlow || context.buffered >= context.limits.buffered) {
      context.drop(context.arena.i32[d + Descriptor.slot], 'secure-buffer')
    } else {
      const from = context.switches.bitOf(context.arena.i32[d + Descriptor.switch] as number)
      const isBack = (securing.unmarked & from) !== 0 && !planted['take-back-order']
      ;(isBack ? securing.back : securing.held).push(d)
      context.buffered++
    }
    return true
  }

  #die(guard: Guard): void {
    guard.isDead = true
    this.#bare.set(guard.flow, guard.record)
  }

  // -- Configuration, time -------------------------------------------------------------------------------------------

  /** Runtimes that are fenced. */
  fenced(runtime: number): void {
    for (const [flow, { replica, done }] of [...this.#adoptions]) {
      if (replica !== runtime) continue
      this.#adoptions.delete(flow)
      done()
    }
    for (const securing of [...this.securing.values()]) {
      if (securing.target === runtime) securing.targetDone = true
      if (securing.old?.replica === runtime) {
        securing.old.isDead = true
        securing.isMarked = true
      }
      if (securing.replica === runtime) this.#begin(securing, runtime)
      else this.#finish(securing)
    }
    for (const guard of this.#guards.values()) if (guard.replica === runtime && !guard.isDead) this.#die(guard)
    this.steps.fenced(runtime)
  }

  /** Switches that are gone: their word does not come. */
  withoutSwitches(mask: number): void {
    for (const securing of [...this.securing.values()]) {
      securing.pending &= ~mask
      securing.markers &= ~mask
      securing.unmarked &= ~mask
      if (securing.isRerouted && !securing.targetDone) this.#sendAbort(securing)
      this.#finish(securing)
    }
  }

  /** A switch has come back knowing nothing. */
  repeatTo(switchId: number): void {
    const bit = this.#context.switches.bitOf(switchId)
    for (const securing of this.securing.values()) {
      if (!securing.isRerouted) continue
      securing.pending |= bit
      this.#reroute(securing, bit)
    }
  }

  /** Other runtimes may keep replicas from now on: those at runtimes that are to become empty go elsewhere. */
  keepersChanged(): void {
    for (const { flow, record, replica, isDead } of this.#guards.values()) {
      if (!isDead && !this.securing.has(flow) && this.#host.isLeaving(replica)) this.#bare.set(flow, record)
    }
  }

  tick(): void {
    this.steps.tick()
    for (const securing of this.securing.values()) this.#ask(securing)
    if (this.#bare.size > 0) this.#secureBare()
  }

  #secureBare(): void {
    if (this.#context.isStrained()) return
    let left = BARE_PER_TURN
    for (const [flow, record] of this.#bare) {
      if (left-- === 0 || this.securing.size >= SECURING_MAX) return
      const guard = this.#guards.get(flow)
      // Without a runtime to keep a replica, flows whose replica has died or is to go run on without one.
      const candidate = this.#host.candidates()[0] ?? 0
      if (guard === undefined && (candidate === 0 || isTooLargeToAdopt(this.#context, record, candidate))) continue
      if (guard !== undefined && !guard.isDead) {
        if (!this.#host.isLeaving(guard.replica)) {
          // It stays after all.
          this.#bare.delete(flow)
          continue
        }
        // All that it is to release must have been sent to it, whole steps, ahead of the word that it is to release no more.
        if (!guard.isAdopted || guard.isUnsent) continue
      }
      if (!this.securing.has(flow) && !this.#host.isBusy(flow)) this.secure(record)
    }
  }
}
