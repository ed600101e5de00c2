/**
 * Securings: the changes of replica that are under way, of flows that are our own. Paper §5.4.2; PROTOCOL 9, 15, 18-20; docs/protocol.md,
 * "Replication". A change of releaser: the flow is paused, a replica adopts it, every switch is told who releases from now on and says `Go`
 * when the one before has sent its last. Then what that one never released is released, and what came meanwhile runs.
 *
 *     secure ─▶ who had it before knows so ─▶ the new chain has it ─▶ switches are told, the one before retires ─▶ every Go ─▶ guarded
 *        ▲            marking                       asked, adopted            isRerouted, pending                  │
 *        └──────────────────────── a runtime of the new chain has died, or refuses: the next epoch ────────────────┘
 *
 * With `replicas` 2 it is a chain that changes, whole. Where there is no runtime for a replica the flow goes on without one, when nobody else
 * has a copy that could be promoted.
 */

import { planted } from '../../base/planted-bugs.ts'
import { RerouteMark } from '../../messages/migration.ts'
import { AdoptKind, AdoptRefusal, MovingFlow, RetireKind } from '../../messages/replication.ts'
import { Descriptor } from '../../packet/descriptor.ts'
import { PacketQueue } from '../../packet/packet-queue.ts'
import {
  companionOf, epochOf, flowOf, sayClosed, sayDrained, sendHead, setFlow, type RuntimeContext,
} from '../runtime-context.ts'
import { adoptAt, forgetAt, isTooLargeToAdopt } from './adoption.ts'
import type { EarlyAdoptions } from './early-adoptions.ts'
import type { Forgetting } from './forgetting.ts'
import { createGuard, isPiped, living, releaserOf, strike, type Guard } from './guard.ts'
import type { Guards } from './guards.ts'
import type { ProtectionHost } from './protection-host.ts'
import type { ReplicaChoice } from './replica-choice.ts'
import { sendRetire } from './retiring.ts'
import { isAdopted, tailOf, type Deceased, type Securing } from './securing.ts'
import { fetchBuffer, sayRerouted } from './securing-words.ts'
import type { Steps } from './steps.ts'

/** What a change of replica works on. */
export interface SecuringParts {
  readonly guards: Guards
  readonly steps: Steps
  readonly early: EarlyAdoptions
  readonly choice: ReplicaChoice
  readonly forgetting: Forgetting
  /** A flow lives elsewhere: nothing is to be left of it. */
  ended(flow: number): void
}

export class Securings {
  /** Those that are under way, by flow. */
  readonly flows = new Map<number, Securing>()
  readonly #context: RuntimeContext
  readonly #host: ProtectionHost
  readonly #guards: Guards
  readonly #steps: Steps
  readonly #early: EarlyAdoptions
  readonly #choice: ReplicaChoice
  readonly #forgetting: Forgetting
  readonly #ended: (flow: number) => void

  constructor(context: RuntimeContext, host: ProtectionHost, { guards, steps, early, choice, forgetting, ended }: SecuringParts) {
    this.#context = context
    this.#host = host
    this.#guards = guards
    this.#steps = steps
    this.#early = early
    this.#choice = choice
    this.#forgetting = forgetting
    this.#ended = ended
  }

  /** True while something here waits for room. */
  get isWaiting(): boolean {
    for (const { asked, chain, waitsToRetire } of this.flows.values()) if (asked < chain.length || waitsToRetire) return true
    return false
  }

  /** True while a switch has yet to hear of a flow whose owner, or target, has died that it is ours. */
  get isClaiming(): boolean {
    for (const { isPromotion, dead, isRerouted } of this.flows.values()) if ((isPromotion || dead !== null) && !isRerouted) return true
    return false
  }

  /**
   * Gives a flow that is paused, or is paused now, a replica; then it runs.
   *
   * @param held packets to run then, counted as buffered
   * @param options targets: runtimes that buffer packets of the flow and are to hand them over, the newest first; isPromotion: its owner has
   *   died, and no switch knows yet that it is ours; isReleaser: the switches accept our frames, although it had a replica that lives, which
   *   knows of the move that failed; former: who kept the replica before us, when its owner died in the middle of the change; kept: what the
   *   first of a chain, which we were, keeps for the tail; dead: who has died, and how far it had consumed its links; inputs: how far ours had
   *   been when the first of the held packets came
   */
  secure(record: number, held: PacketQueue | null = null,
      { targets = [] as readonly number[], isPromotion = false, isReleaser = false, former = 0, kept = null as Guard | null,
        dead = null as Deceased | null, inputs = this.#context.inputs.words } = {}): void {
    const context = this.#context
    // We were the target, too: what switches have sent us so may be unread yet.
    const hasOlder = isPromotion && held !== null
    const flow = flowOf(context, record)
    this.#guards.wantsNone(flow)
    if (kept !== null) {
      kept.record = record
      kept.copy = null
      this.#guards.note(kept)
    }
    const old = this.#guards.get(flow) ?? (former === 0 ? null : createGuard(flow, record, former, true))
    context.engine.pauseFlow(record)
    const isMarked = old === null || living(old).length === 0 || isReleaser || isPromotion || planted['replaced-unmarked'] ||
      planted['retired-early']
    const securing: Securing = {
      flow, record, firstEpoch: epochOf(context, record) + 1, epoch: 0, chain: [], asked: 0, adopted: 0, isMarked, marking: new Set(),
      leftovers: new Set(), leftTails: new Set(), waitsToRetire: false, isBetween: false, isRerouted: false, forgetting: 0, isPromotion,
      isReleaser, former: kept === null ? 0 : former, pending: 0, released: new Map(), old, target: targets[0] ?? 0,
      fetching: targets, markers: 0, returned: hasOlder ? held : new PacketQueue(context.arena),
      held: held !== null && !hasOlder ? held : new PacketQueue(context.arena), inputs: inputs.slice(), dead,
      unmarked: dead !== null && (!isPromotion || targets.length > 0 || hasOlder) ? context.switches.all : 0, begun: 0,
      back: new PacketQueue(context.arena),
    }
    this.flows.set(flow, securing)
    context.step('securing', 1)
    this.#begin(securing, 0)
  }

  #begin(securing: Securing, except: number): void {
    const context = this.#context
    const { record, flow } = securing
    securing.epoch = epochOf(context, record) + 1
    setFlow(context, record, flow, securing.epoch)
    this.#giveUp(securing, except)
    const { old, isReleaser } = securing
    const early = this.#early.take(flow)
    const candidates = this.#host.candidates()
    const isEarly = early.length > 0 && early.every((id) => id !== except && candidates.includes(id))
    // Its copy would stay for ever.
    if (!isEarly) forgetAt(context, early, flow)
    const releaser = isReleaser ? 0 : releaserOf(old)
    securing.chain = isEarly ? early : this.#staysBare(securing) ? [] : this.#choice.choose(except, releaser)
    // A copy that is old by now must not be promoted: rather one at a runtime that is to become empty than none while that one may remain.
    if (securing.chain.length === 0 && isReleaser) securing.chain = living(old).filter((id) => id !== except).slice(0, 1)
    const isMember = securing.chain.length > 1
    if (securing.chain.some((id) => isTooLargeToAdopt(context, record, id, isMember))) {
      context.anomaly('too-large-to-replicate')
      securing.chain = []
    }
    securing.isBetween = this.#host.replicas > 1 && this.#host.mode === 'commit' && releaser !== 0 && tailOf(securing) === releaser
    if (securing.isBetween) securing.chain = []
    const isBare = securing.chain.length === 0
    if (isBare && !this.#mayOutlive(securing)) return this.#changeReleaser(securing)
    if (!securing.isMarked) for (const id of living(old)) securing.marking.add(id)
    for (const id of securing.marking) {
      sendHead(context, context.control(id), MovingFlow, flow, securing.epoch, this.#host.replicas > 1 || isBare ? 1 : 0, context.self)
    }
    if (securing.marking.size === 0) securing.isMarked = true
    this.#ask(securing)
  }

  /** True for a flow that gets no replica: without replication it is secured only for switches to hear who goes on for the dead. */
  #staysBare({ isPromotion }: Securing): boolean {
    return this.#host.mode === 'none' || (planted['bare-after-recovery'] && isPromotion)
  }

  /**
   * True for a flow that is to have no replica while someone has a copy of it that may hear so late, when the flow has another already: all
   * but a single replica that releases, whose last word is waited for.
   */
  #mayOutlive({ old, isBetween, marking }: Securing): boolean {
    return !isBetween && (this.#host.mode === 'async' || living(old).length > 1 || marking.size > 0)
  }

  /** An attempt has failed at one of its runtimes; copies at others must not be promoted unasked, nor stay. */
  #giveUp(securing: Securing, except: number): void {
    const { chain, asked } = securing
    securing.marking.clear()
    for (const id of chain.slice(0, asked)) {
      if (id === except) continue
      securing.leftovers.add(id)
      if (securing.isRerouted && id === tailOf(securing)) securing.leftTails.add(id)
    }
    for (const id of securing.leftovers) securing.marking.add(id)
    securing.chain = []
    securing.asked = securing.adopted = 0
    securing.waitsToRetire = securing.isRerouted = false
  }

  /** A replica that is to be replaced knows so. False when that was not asked here. */
  movingReply(replica: number, flow: number): boolean {
    const securing = this.flows.get(flow)
    if (securing === undefined || !securing.marking.delete(replica)) return false
    if (securing.marking.size > 0) return true
    securing.isMarked = true
    this.#ask(securing)
    return true
  }

  /** A replica has the flow, or there is none to be had: the switches hear who releases its frames from now on. */
  #changeReleaser(securing: Securing): void {
    const context = this.#context
    const { old, flow, epoch, isReleaser, chain } = securing
    const releaser = isReleaser ? 0 : releaserOf(old)
    const mustWait = (): boolean => (old !== null && isPiped(old)) || (!securing.isPromotion && !this.#mayBeBare(securing, releaser))
    securing.waitsToRetire = chain.length === 0 && mustWait()
    if (securing.waitsToRetire) return
    securing.isRerouted = true
    securing.pending = securing.markers = context.switches.all
    sayRerouted(context, this.#host, securing, context.switches.all)
    const isOldReleaser = releaser !== 0
    if (chain.length === 0 && !securing.isBetween) securing.forgetting = releaser
    if (isOldReleaser) sendRetire(context, releaser, flow, epoch, securing.forgetting !== 0 ? RetireKind.last : RetireKind.stays)
    for (const id of [...securing.leftTails, securing.former]) {
      if (id !== 0 && id !== tailOf(securing) && id !== releaser) sendRetire(context, id, flow, epoch)
    }
    // Where the owner has died in the middle of a change, some switches may take us for the releaser.
    if (!isOldReleaser || securing.isPromotion) sayDrained(context, flow, epoch)
    for (const target of securing.fetching) fetchBuffer(context, securing, target)
    if (planted['secured-without-go']) securing.pending = 0
    this.#finish(securing)
  }

  /** True for a flow that may go on without a replica: nobody has a copy but, perhaps, who releases so far, whose last word is waited for. */
  #mayBeBare({ flow, epoch, isBetween }: Securing, releaser: number): boolean {
    return this.#host.mode !== 'commit' || isBetween || this.#forgetting.isForgotten(flow, epoch, releaser)
  }

  #ask(securing: Securing): void {
    const { chain, record, old } = securing
    // A member that is to be one again would forget what it keeps for the tail.
    if (!securing.isMarked || securing.marking.size > 0 || (old !== null && isPiped(old))) return
    if (chain.length === 0 && !securing.isRerouted) return this.#changeReleaser(securing)
    if (planted['retired-early'] && securing.asked === 0) {
      for (const id of living(old)) if (!chain.includes(id)) sendRetire(this.#context, id, securing.flow, securing.epoch, RetireKind.last)
    }
    for (; securing.asked < chain.length; securing.asked++) {
      const former = releaserOf(old)
      const isFormer = former === chain[securing.asked]
      const options = { former: isFormer ? 0 : former, inputs: securing.inputs, buffersAt: securing.fetching[0] ?? 0 }
      if (!adoptAt(this.#context, this.#host, record, chain, securing.asked, AdoptKind.settled, options)) return
    }
  }

  /** A switch says that we may go on; it has accepted `released` frames of the releaser before. */
  go(switchId: number, flow: number, epoch: number, released: number): boolean {
    const securing = this.flows.get(flow)
    if (securing === undefined) return false
    if (epoch !== securing.epoch) {
      // Of an attempt that was given up: who had released so much is the same. Not so of a move before, behind which the replica went on.
      const isOfUs = epoch >= securing.firstEpoch && epoch < securing.epoch
      if (isOfUs && !securing.released.has(switchId)) securing.released.set(switchId, released)
      return true
    }
    if (!securing.released.has(switchId)) securing.released.set(switchId, released)
    securing.pending &= ~this.#context.switches.bitOf(switchId)
    this.#finish(securing)
    return true
  }

  /** A switch knows better: a flow whose owner has died lives on elsewhere. */
  superseded(flow: number, epoch: number, hasEnded: boolean): boolean {
    const securing = this.flows.get(flow)
    if (securing === undefined || !securing.isPromotion || securing.epoch !== epoch) return false
    const context = this.#context
    this.flows.delete(flow)
    context.step('securing', -1)
    this.#ended(flow)
    for (const queue of [securing.back, securing.returned, securing.held]) {
      for (let slot = queue.shift(); slot !== 0; slot = queue.shift()) {
        context.buffered--
        context.drop(slot, 'source-fenced')
      }
    }
    const { record } = securing
    // A switch that took our word may take us or our replica for who releases until whoever has the flow claims it there.
    sayDrained(context, flow, epoch + 1)
    sayClosed(context, flow, epoch, hasEnded ? 1 : 2, record >> 2, companionOf(context, record))
    context.engine.removeFlow(record)
    for (const id of new Set([...securing.chain, ...securing.leftovers])) sendRetire(context, id, flow, epoch + 1, RetireKind.last)
    return true
  }

  /** In-band: a switch had nobody to tell but us, so the target need not wait for it; or all that it took back for us has come. */
  rerouteReply(switchId: number, flow: number, epoch: number, mark: number): boolean {
    const securing = this.flows.get(flow)
    if (securing === undefined) return mark !== RerouteMark.none
    const bit = this.#context.switches.bitOf(switchId)
    if (mark === RerouteMark.begin) {
      securing.begun |= bit
      return true
    }
    if (mark === RerouteMark.end) {
      securing.unmarked &= ~bit
      this.#finish(securing)
      return true
    }
    if (epoch === securing.epoch && securing.isRerouted && (securing.markers & bit) !== 0 && securing.fetching.includes(securing.target)) {
      securing.markers &= ~bit
      fetchBuffer(this.#context, securing, securing.target)
    }
    return true
  }

  /** A target has handed over all that it had. */
  abortReply(target: number, flow: number, epoch: number): boolean {
    const securing = this.flows.get(flow)
    if (securing === undefined) return false
    if (epoch === securing.epoch) {
      securing.fetching = securing.fetching.filter((id) => id !== target)
      this.#finish(securing)
    }
    return true
  }

  /** A packet that a target had. */
  returnedPacket(flow: number, frame: number, length: number, switchId: number): boolean {
    const securing = this.flows.get(flow)
    if (securing === undefined) return false
    const context = this.#context
    context.countTakenOver(1)
    if (context.buffered >= context.limits.buffered) context.drop(0, 'secure-buffer')
    else if (securing.returned.pushFrame(context.arena, context.engine.pool, frame, length, switchId)) context.buffered++
    else context.drop(0, 'no-slot')
    return true
  }

  /** A runtime has the flow, or has refused it; false when the flow is not being secured. */
  adoptReply(from: number, flow: number, epoch: number, refusal: number): boolean {
    const securing = this.flows.get(flow)
    if (securing === undefined) return false
    const index = securing.chain.indexOf(from)
    if (index < 0 || epoch !== securing.epoch) return true
    if (refusal === AdoptRefusal.none) {
      securing.adopted |= 1 << index
      if (isAdopted(securing)) this.#changeReleaser(securing)
    } else {
      this.#begin(securing, from)
    }
    return true
  }

  #finish(securing: Securing): void {
    const context = this.#context
    const { flow, record, chain, old, released, returned, held, back } = securing
    if (!securing.isRerouted || securing.pending !== 0 || securing.unmarked !== 0) return
    // While there is no switch it may be done as soon as it is asked for.
    if (this.flows.get(flow) !== securing) return
    if (securing.fetching.length > 0 || !isAdopted(securing)) return
    // The switches know by now that it is ours, so what others have of it is old.
    if (chain.length === 0 && securing.isPromotion && !this.#mayBeBare(securing, securing.forgetting)) return
    if (securing.isBetween) {
      securing.isReleaser = true
      return this.#begin(securing, 0)
    }
    this.flows.delete(flow)
    context.step('securing', -1)
    if (old !== null) this.#guards.remove(old)
    forgetAt(context, new Set([...living(old), ...securing.leftovers].filter((id) => !chain.includes(id))), flow)
    if (chain.length === 0 && !this.#staysBare(securing)) this.#guards.leaveBare(flow, record)
    const guard = chain.length === 0 ? null : this.#guards.add(flow, record, chain, true)
    if (chain.some((id) => this.#host.isLeaving(id))) this.#guards.bare.set(flow, record)
    context.engine.resumeFlow(record)
    this.#guards.counts.secured++
    if (old !== null) this.#resend(old, guard, released)
    context.buffered -= back.count + returned.count + held.count
    context.run(back, returned, held)
    if (guard !== null && this.#guards.get(flow) === guard) this.#steps.send(guard)
  }

  /** Outputs that no switch has had from the replica before leave now. */
  #resend(old: Guard, guard: Guard | null, released: ReadonlyMap<number, number>): void {
    const context = this.#context
    this.#steps.forget(old, (output, isUnsent) => {
      const { switchId, index, slot, frame, length } = output
      if (!isUnsent) {
        const left = Math.max(released.get(switchId) ?? Infinity, old.accepted.get(switchId) ?? 0)
        if (index <= left && !planted['everything-resent']) return context.engine.pool.give(slot)
        // It was handed over to nobody.
        context.countTakenOver(1)
        this.#guards.counts.resent++
      }
      if (guard === null) return this.#steps.releaseNow(output)
      this.#steps.keep(guard, switchId, slot, frame, length)
      if (living(old).length === 0) guard.resent++
    })
  }

  /** A packet of a flow that is being secured. */
  take(flow: number, d: number): boolean {
    const securing = this.flows.get(flow)
    if (securing === undefined) return false
    const context = this.#context
    if (securing.held.count >= context.limits.bufferedPerFlow || context.buffered >= context.limits.buffered) {
      context.drop(context.arena.i32[d + Descriptor.slot], 'secure-buffer')
    } else {
      const from = context.switches.bitOf(context.arena.i32[d + Descriptor.switch] as number)
      const isBack = (securing.unmarked & securing.begun & from) !== 0 && !planted['take-back-order']
      ;(isBack ? securing.back : securing.held).push(d)
      context.buffered++
    }
    return true
  }

  // -- Configuration, time -------------------------------------------------------------------------------------------

  fenced(runtime: number): void {
    for (const securing of [...this.flows.values()]) {
      securing.fetching = securing.fetching.filter((id) => id !== runtime)
      if (securing.old !== null) strike(securing.old, runtime)
      securing.leftovers.delete(runtime)
      securing.leftTails.delete(runtime)
      const wasAwaited = securing.marking.delete(runtime)
      if (securing.marking.size === 0 && (wasAwaited || living(securing.old).length === 0)) securing.isMarked = true
      if (securing.chain.includes(runtime)) this.#begin(securing, runtime)
      else if (securing.waitsToRetire) this.#changeReleaser(securing)
      else this.#finish(securing)
    }
  }

  /** Switches that are gone: their word does not come. */
  withoutSwitches(mask: number): void {
    for (const securing of [...this.flows.values()]) {
      securing.pending &= ~mask
      securing.markers &= ~mask
      securing.unmarked &= ~mask
      if (securing.isRerouted && securing.fetching.includes(securing.target)) fetchBuffer(this.#context, securing, securing.target)
      this.#finish(securing)
    }
  }

  /** A switch has come back knowing nothing. */
  repeatTo(switchId: number): void {
    const bit = this.#context.switches.bitOf(switchId)
    for (const securing of this.flows.values()) {
      if (!securing.isRerouted) continue
      securing.pending |= bit
      sayRerouted(this.#context, this.#host, securing, bit)
    }
  }

  tick(): void {
    for (const securing of this.flows.values()) {
      this.#ask(securing)
      if (securing.waitsToRetire) this.#changeReleaser(securing)
      else if (this.#forgetting.isWaiting) this.#finish(securing)
    }
  }
}
