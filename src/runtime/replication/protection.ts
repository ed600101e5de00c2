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
 *
 * With `replicas` 2 a guard is a chain of two, and only the owner changes it: whatever becomes of a member, the flow gets a chain of a new
 * generation, with the whole record, and what no switch has had leaves through that. A flow that finds one runtime alone has a chain of one
 * until there is another (*thin*).
 */

import { planted } from '../../base/planted-bugs.ts'
import { RerouteMark } from '../../messages/migration.ts'
import { AdoptKind, AdoptRefusal, ForgetFlow, MovingFlow, RetireKind } from '../../messages/replication.ts'
import { Descriptor } from '../../packet/descriptor.ts'
import { PacketQueue } from '../../packet/packet-queue.ts'
import {
  COMPANION_REPLICA, companionOf, epochOf, flowOf, sayClosed, sayDrained, sendHead, setFlow, type RuntimeContext,
} from '../runtime-context.ts'
import { Forgetting } from './forgetting.ts'
import { createGuard, isPiped, living, releaserOf, strike, type Guard } from './guard.ts'
import { isAdopted, tailOf, type Deceased, type Securing } from './securing.ts'
import { fetchBuffer, sayRerouted } from './securing-words.ts'
import { Steps } from './steps.ts'
import { isTooLargeToAdopt, sendAdoption } from './adoption.ts'
import { sendRetire } from './retiring.ts'

export type ReplicationMode = 'none' | 'async' | 'commit'

export interface ProtectionHost {
  readonly mode: ReplicationMode
  /** In `async`: outputs of a flow between two copies of its record. */
  readonly every: number
  /** How many replicas a flow is to have, 1 or 2. */
  readonly replicas: number
  /** Runtimes that can keep a replica now. */
  candidates(): readonly number[]
  /** True for a runtime that does not die when our machine does. */
  isApart(runtime: number): boolean
  /** The other runtimes that have told what chain they have. */
  knownRuntimes(): Iterable<number>
  /** True for a runtime that is to become empty. */
  isLeaving(runtime: number): boolean
  incarnationOf(runtime: number): number
  /** The tail of a chain whose first replica is here has released more. */
  held(guard: Guard): void
  /** Sends a frame to a switch and counts it. */
  release(switchId: number, frame: number, length: number): void
  /** True for a flow of which no step is sent: its move is called off, and packets of it wait for others; or a claim of it is open. */
  isWithheld(flow: number): boolean
  /** True for flows that move, close or claim. */
  isBusy(flow: number): boolean
  /** True for flows that stand still because they move or close. */
  isPaused(flow: number): boolean
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
  readonly #forgetting: Forgetting
  readonly #guards = new Map<number, Guard>()
  /** The same by the records' places in their slab. PERF: looked up per packet; undefined where there is none. */
  readonly #guardAt: (Guard | undefined)[] = []
  /** Flows without a replica, or whose replica is dead or at a runtime that is to become empty: to be secured as soon as that can be. */
  readonly #bare = new Map<number, number>()
  /** Flows that have fewer replicas than they are to have. */
  readonly #thin = new Map<number, number>()
  readonly #adoptions = new Map<number, { readonly replicas: Set<number>; done(): void }>()
  /** Runtimes that have adopted a flow which has just come here, and is to be secured. */
  readonly #early = new Map<number, readonly number[]>()
  /** Those of them of which a runtime has died since, or has refused. */
  readonly #uncovered = new Set<number>()
  #next = 0

  constructor(context: RuntimeContext, host: ProtectionHost) {
    this.#context = context
    this.#host = host
    this.#forgetting = new Forgetting(context, () => host.knownRuntimes())
    this.steps = new Steps(context, {
      mode: host.mode, every: host.every,
      guardOf: (record) => this.#guardAt[context.engine.slab.indexOf(record)],
      // What has come and waits is not in the record, and is behind what the step would say to be covered.
      isSecuring: (flow) => this.securing.has(flow) || host.isWithheld(flow),
      tellAliases: (guard) => { this.refresh(guard.record) },
      incarnationOf: (runtime) => host.incarnationOf(runtime), held: (guard) => { host.held(guard) },
      release: (switchId, frame, length) => { host.release(switchId, frame, length) },
      guards: () => this.#guards.values(),
      stop: ({ flow, record }) => { if (!this.#isPaused(flow)) context.engine.pauseFlow(record) },
      resume: (guard) => {
        if (this.#guards.get(guard.flow) === guard && !this.#isPaused(guard.flow)) context.engine.resumeFlow(guard.record)
      },
    })
  }

  #isPaused(flow: number): boolean {
    return this.securing.has(flow) || this.#host.isPaused(flow)
  }

  /** A packet of a flow that stands still because its replica is slow: true if it is one. */
  refuse(record: number, d: number): boolean {
    const guard = this.#guardAt[this.#context.engine.slab.indexOf(record)]
    if (guard === undefined || !this.steps.backlogs.isStopped(guard)) return false
    this.#context.drop(this.#context.arena.i32[d + Descriptor.slot], 'replica-slow')
    return true
  }

  get isOn(): boolean {
    return this.#host.mode !== 'none'
  }

  /** False while so much waits for room in sessions that nothing more should be read. */
  get hasRoom(): boolean {
    return this.steps.backlogs.hasRoom
  }

  /** True while something here waits for room, an acknowledgement or a runtime. */
  get isWaiting(): boolean {
    if (this.steps.isWaiting || this.#forgetting.isWaiting || (this.#bare.size > 0 && this.#host.candidates().length > 0)) return true
    for (const { asked, chain, waitsToRetire } of this.securing.values()) if (asked < chain.length || waitsToRetire) return true
    return this.#thin.size > 0 && this.#host.candidates().length > 1
  }

  /** Flows that have fewer replicas than they are to have: no better ones can be had. */
  get degraded(): number {
    let count = this.#thin.size
    for (const [flow] of this.#bare) if (this.#guards.get(flow)?.isDead !== false && !this.#thin.has(flow)) count++
    return count
  }

  /** True when what has changed is on its way to replicas, and every flow that can has one. */
  get isSettled(): boolean {
    return this.securing.size === 0 && !this.steps.hasUnsent && (this.#bare.size === 0 || this.#host.candidates().length === 0)
  }

  /** True while a switch has yet to hear of a flow whose owner, or target, has died that it is ours. */
  get isClaiming(): boolean {
    for (const { isPromotion, dead, isRerouted } of this.securing.values()) if ((isPromotion || dead !== null) && !isRerouted) return true
    return false
  }

  /** True for a flow of which no replica was left, until a new one, to be replaced again or not, has its state and what is to leave, too. */
  isExposed(flow: number): boolean {
    const securing = this.securing.get(flow)
    if (securing !== undefined && living(securing.old).length === 0) return true
    const guard = securing?.old ?? this.#guards.get(flow)
    return guard !== undefined && guard.given < guard.resent
  }

  /** True for a flow whose replicas, or whose owner and all others that had it, are dead, while nobody has said that it has it now. */
  isAlone(flow: number): boolean {
    const securing = this.securing.get(flow)
    if (securing === undefined || (securing.old === null && !securing.isPromotion)) return false
    return living(securing.old).length === 0 && securing.adopted === 0
  }

  /** True for a flow of which nobody else has a copy. */
  isBare(flow: number): boolean {
    const chain = this.securing.get(flow)?.chain
    return chain === undefined ? this.#bare.has(flow) && !this.#guards.has(flow) : chain.length === 0 && this.replicaOf(flow) === 0
  }

  /** True for a flow that has just come here and has as many replicas as it is to have. */
  isCovered(flow: number): boolean {
    const early = this.#early.get(flow) ?? []
    return early.length >= this.#host.replicas && !this.#adoptions.has(flow) && !this.#uncovered.has(flow)
  }

  /** The runtime that keeps the flow's replica, 0 for none. */
  replicaOf(flow: number): number {
    const guard = this.#guards.get(flow)
    const isGone = guard === undefined || guard.isDead || this.securing.get(flow)?.forgetting === guard.replica
    return isGone ? 0 : guard.replica
  }

  /** True when what has come on links stays there until others know what it has changed. */
  get givesBackLate(): boolean {
    return this.#host.mode === 'commit'
  }

  /** The runtimes that keep the flow's replicas, in the order of its chain: when one of them is dead, the other. */
  replicasOf(flow: number): readonly number[] {
    return living(this.#guards.get(flow) ?? null)
  }

  /** True for a flow promoted here from a chain of this generation whose tail is at that runtime, before it has others. */
  isSecuringFrom(flow: number, tail: number, generation: number): boolean {
    const old = this.securing.get(flow)?.old
    return old != null && old.generation !== 0 && old.tail === tail && (old.generation & 0xffff) === generation
  }

  /** Who releases the frames of a flow, 0 for us. */
  releaserOf(flow: number): number {
    if (this.#host.mode !== 'commit') return 0
    const securing = this.securing.get(flow)
    if (securing !== undefined && !securing.isRerouted && securing.isReleaser) return 0
    return securing?.isRerouted === true ? tailOf(securing) : releaserOf(this.#guards.get(flow) ?? null)
  }

  /** Flows here that no replica covers now: in `async` they run all the same, in `commit` those alone for which there is no runtime. */
  get unprotected(): number {
    return [...this.#bare.keys(), ...this.securing.keys()].filter((flow) => this.replicaOf(flow) === 0).length
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

  /**
   * The next replicas in turn, at different runtimes, on other machines if there are any; the last one is not who has released so far, if
   * that can be.
   */
  #choose(except = 0, releaser = 0): number[] {
    const others = this.#host.candidates().filter((id) => id !== except)
    const inTime = others.filter((id) => !this.steps.backlogs.isSlow(id))
    const possible = inTime.length > 0 ? inTime : others
    if (possible.length === 0) return []
    const apart = possible.filter((id) => this.#host.isApart(id))
    const candidates = apart.length > 0 ? apart : possible
    const hand = this.#next++
    const chain = [candidates[hand % candidates.length]]
    if (this.#host.replicas > 1 && possible.length > 1) {
      const others = candidates.length > 1 ? candidates : possible.filter((id) => id !== chain[0])
      chain.push(others[(hand + (candidates.length > 1 ? 1 : 0)) % others.length])
    }
    if (chain[1] === releaser && chain[1] !== undefined) chain.reverse()
    return chain
  }

  /** A flow has opened here. */
  opened(record: number): void {
    if (!this.isOn) return
    const chain = this.#choose()
    const flow = flowOf(this.#context, record)
    if (chain.length === 0 || !this.#adoptAll(record, chain, AdoptKind.opening)) this.#leaveBare(flow, record)
    else this.#guard(flow, record, chain, false)
  }

  #leaveBare(flow: number, record: number): void {
    this.#bare.set(flow, record)
    this.counts.bare++
  }

  #guard(flow: number, record: number, chain: readonly number[], isAdopted: boolean): Guard {
    const context = this.#context
    const replica = chain[0]
    const guard = createGuard(flow, record, replica, isAdopted, { tail: chain.at(-1), generation: epochOf(context, record) })
    if (chain.length < this.#host.replicas) this.#thin.set(flow, record)
    this.#note(guard)
    this.counts.guarded++
    context.arena.u16[(companionOf(context, record) + COMPANION_REPLICA) >> 1] = replica
    return guard
  }

  #note(guard: Guard): void {
    const { flow, record } = guard
    const context = this.#context
    this.#guards.set(flow, guard)
    const index = context.engine.slab.indexOf(record)
    while (this.#guardAt.length <= index) this.#guardAt.push(undefined)
    this.#guardAt[index] = guard
  }

  /** Sends the whole flow to a runtime that is to be a member of a chain; false when there is no room. */
  #adopt(record: number, chain: readonly number[], index: number, kind: number, former = 0, inputs = this.#context.inputs.words,
      buffersAt = 0): boolean {
    const host = this.#host
    const formerIncarnation = former === 0 ? 0 : host.incarnationOf(former)
    const at = (id: number | undefined): readonly [number, number] => (id === undefined ? [0, 0] : [id, host.incarnationOf(id)])
    const [successor, successorIncarnation] = at(chain[index + 1])
    const [predecessor, predecessorIncarnation] = at(chain[index - 1])
    const place = chain.length === 1 ? null : { successor, successorIncarnation, predecessor, predecessorIncarnation }
    const releases = host.mode === 'commit' && successor === 0
    return sendAdoption(this.#context, record, chain[index], { kind, releases, former, formerIncarnation, place, inputs, buffersAt })
  }

  /** The same to all of a chain. */
  #adoptAll(record: number, chain: readonly number[], kind: number, inputs = this.#context.inputs.words): boolean {
    for (const index of chain.keys()) {
      if (this.#adopt(record, chain, index, kind, 0, inputs)) continue
      this.#forgetAt(chain.slice(0, index), flowOf(this.#context, record))
      return false
    }
    return true
  }

  /** Runtimes that have a copy of a flow need it no more. */
  #forgetAt(runtimes: Iterable<number>, flow: number): void {
    for (const id of runtimes) sendHead(this.#context, this.#context.control(id), ForgetFlow, flow, 0)
  }

  /** The flow's aliases have changed. */
  refresh(record: number): void {
    const guard = this.#guards.get(flowOf(this.#context, record))
    if (guard === undefined || guard.isDead) return
    const chain = living(guard)
    const isTooLarge = chain.some((id) => isTooLargeToAdopt(this.#context, record, id, chain.length > 1))
    if (isTooLarge) return this.#context.anomaly('alias-not-replicated')
    // What has no room yet must not be in the record ahead of its step.
    const kind = chain.length === 1 && !guard.isUnsent ? AdoptKind.settled : AdoptKind.aliases
    guard.owesAliases = chain.some((_, index) => !this.#adopt(record, chain, index, kind))
  }

  /** A flow that has just come here: a replica has it before its source forgets it. */
  adoptEarly(record: number, source: number, inputs: Int32Array, done: () => void): void {
    const chain = this.isOn ? this.#choose(source) : []
    if (chain.length === 0 || !this.#adoptAll(record, chain, AdoptKind.tentative, inputs)) return done()
    const flow = flowOf(this.#context, record)
    this.#adoptions.set(flow, { replicas: new Set(chain), done })
    this.#early.set(flow, chain)
  }

  /** Who releases the frames of a flow that ends, should that one have refused it even: 0 for us, or for one that is dead. */
  lastReleaserOf(flow: number): number {
    const guard = this.#host.mode === 'commit' ? this.#guards.get(flow) : undefined
    return guard === undefined || guard.isTailDead ? 0 : guard.tail
  }

  /** The flow has ended, or lives elsewhere now. @param lastEpoch of the last word of who released its frames, where switches wait for it */
  ended(flow: number, lastEpoch = 0): void {
    this.#bare.delete(flow)
    this.#thin.delete(flow)
    this.#adoptions.delete(flow)
    this.#early.delete(flow)
    this.#uncovered.delete(flow)
    this.#forgetting.ended(flow)
    const guard = this.#guards.get(flow)
    if (guard === undefined) return
    this.steps.forget(guard, ({ slot }, isUnsent) => {
      if (isUnsent) this.#context.drop(slot, 'replica-behind')
      else this.#context.engine.pool.give(slot)
    })
    const releaser = lastEpoch === 0 ? 0 : this.lastReleaserOf(flow)
    if (releaser !== 0) sendRetire(this.#context, releaser, flow, lastEpoch, RetireKind.last)
    this.#guards.delete(flow)
    this.#clear(guard)
    this.#forgetAt(living(guard).filter((id) => id !== releaser), flow)
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
   *   the move that failed; former: who kept the replica before us, when its owner died in the middle of the change; kept: what the first of
   *   a chain, which we were, keeps for the tail; dead: who has died, and how far it had consumed its links; inputs: how far ours had been
   *   when the first of the held packets came
   */
  secure(record: number, held: PacketQueue | null = null,
      { target = 0, isPromotion = false, isReleaser = false, former = 0, kept = null as Guard | null,
        dead = null as Deceased | null, inputs = this.#context.inputs.words } = {}): void {
    const context = this.#context
    // We were the target, too: what switches have sent us so may be unread yet.
    const hasOlder = isPromotion && held !== null
    const flow = flowOf(context, record)
    this.#bare.delete(flow)
    this.#thin.delete(flow)
    if (kept !== null) {
      kept.record = record
      kept.copy = null
      this.#note(kept)
    }
    const old = this.#guards.get(flow) ?? (former === 0 ? null : createGuard(flow, record, former, true))
    context.engine.pauseFlow(record)
    const isMarked = old === null || living(old).length === 0 || isReleaser || isPromotion || planted['replaced-unmarked'] ||
      planted['retired-early']
    const securing: Securing = {
      flow, record, firstEpoch: epochOf(context, record) + 1, epoch: 0, chain: [], asked: 0, adopted: 0, isMarked, marking: new Set(),
      leftovers: new Set(), leftTails: new Set(), waitsToRetire: false, isBetween: false, isRerouted: false, forgetting: 0, isPromotion,
      isReleaser, former: kept === null ? 0 : former, pending: 0, released: new Map(), old, target,
      targetDone: target === 0, markers: 0, returned: hasOlder ? held : new PacketQueue(context.arena),
      held: held !== null && !hasOlder ? held : new PacketQueue(context.arena), inputs: inputs.slice(), dead,
      unmarked: dead !== null && (!isPromotion || target !== 0 || hasOlder) ? context.switches.all : 0, begun: 0,
      back: new PacketQueue(context.arena),
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
    this.#giveUp(securing, except)
    const { old, isReleaser } = securing
    const early = this.#early.get(flow) ?? []
    this.#early.delete(flow)
    this.#uncovered.delete(flow)
    const candidates = this.#host.candidates()
    const isEarly = early.length > 0 && early.every((id) => id !== except && candidates.includes(id))
    // Its copy would stay for ever.
    if (!isEarly) this.#forgetAt(early, flow)
    const releaser = isReleaser ? 0 : releaserOf(old)
    securing.chain = isEarly ? early : this.#staysBare(securing) ? [] : this.#choose(except, releaser)
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
    return !this.isOn || (planted['bare-after-recovery'] && isPromotion)
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
    const securing = this.securing.get(flow)
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
    if (!securing.targetDone) fetchBuffer(this.#context, securing)
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
      const buffersAt = securing.targetDone ? 0 : securing.target
      if (!this.#adopt(record, chain, securing.asked, AdoptKind.settled, isFormer ? 0 : former, securing.inputs, buffersAt)) return
    }
  }

  /**
   * A move is called off, and the flow keeps its replica. Should that be dead, a switch that knows so counts its frames no more: what it
   * says of them with this epoch is the last of it.
   */
  goesBack(flow: number, epoch: number): void {
    const guard = this.#guards.get(flow)
    if (guard !== undefined) guard.backAt = epoch
  }

  accepted(switchId: number, flow: number, epoch: number, released: number): void {
    const guard = this.#guards.get(flow)
    if (guard?.backAt === epoch) guard.accepted.set(switchId, Math.max(released, guard.accepted.get(switchId) ?? 0))
  }

  /** A switch says that we may go on; it has accepted `released` frames of the releaser before. */
  go(switchId: number, flow: number, epoch: number, released: number): boolean {
    const securing = this.securing.get(flow)
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
    const securing = this.securing.get(flow)
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
    if (epoch === securing.epoch && securing.isRerouted && !securing.targetDone && (securing.markers & bit) !== 0) {
      securing.markers &= ~bit
      fetchBuffer(this.#context, securing)
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
    if (context.buffered >= context.limits.buffered) context.drop(0, 'secure-buffer')
    else if (securing.returned.pushFrame(context.arena, context.engine.pool, frame, length, switchId)) context.buffered++
    else context.drop(0, 'no-slot')
    return true
  }

  adoptReply(from: number, flow: number, epoch: number, refusal: number): void {
    const context = this.#context
    const adoption = this.#adoptions.get(flow)
    if (adoption?.replicas.delete(from) === true) {
      if (refusal !== AdoptRefusal.none) this.#uncovered.add(flow)
      if (adoption.replicas.size > 0) return
      this.#adoptions.delete(flow)
      adoption.done()
      return
    }
    const securing = this.securing.get(flow)
    if (securing !== undefined) {
      const index = securing.chain.indexOf(from)
      if (index < 0 || epoch !== securing.epoch) return
      if (refusal === AdoptRefusal.none) {
        securing.adopted |= 1 << index
        if (isAdopted(securing)) this.#changeReleaser(securing)
      } else {
        this.#begin(securing, from)
      }
      return
    }
    const guard = this.#guards.get(flow)
    if (guard === undefined || (guard.replica !== from && guard.tail !== from)) return context.anomaly('late-adoption')
    if (guard.tail !== guard.replica) return this.#memberReply(guard, from, epoch, refusal)
    if (refusal === AdoptRefusal.none) {
      guard.isAdopted = true
      this.steps.acknowledged(guard)
    } else {
      this.#die(guard)
    }
  }

  /** A member of a chain has the flow, and steps may go there when all have; or it refuses the flow, or more steps of it. */
  #memberReply(guard: Guard, from: number, epoch: number, refusal: number): void {
    if (epoch !== guard.generation) return this.#context.anomaly('late-adoption')
    if (refusal !== AdoptRefusal.none) {
      guard.isRefused = true
      return this.#die(guard)
    }
    guard.adopted |= from === guard.replica ? 1 : 2
    if (guard.adopted !== 3 || guard.isAdopted) return
    guard.isAdopted = true
    this.steps.send(guard)
  }

  /** The tail of a flow's chain has released so many of its outputs. */
  held(from: number, flow: number, generation: number, outputs: number): void {
    const guard = this.#guards.get(flow)
    if (guard === undefined || guard.replica !== from || guard.generation !== generation || guard.tail === from) {
      return this.#context.anomaly('late-steps-held')
    }
    this.steps.held(guard, outputs)
  }

  #finish(securing: Securing): void {
    const context = this.#context
    const { flow, record, chain, old, released, returned, held, back } = securing
    if (!securing.isRerouted || securing.pending !== 0 || securing.unmarked !== 0) return
    // While there is no switch it may be done as soon as it is asked for.
    if (this.securing.get(flow) !== securing) return
    if (!securing.targetDone || !isAdopted(securing)) return
    // The switches know by now that it is ours, so what others have of it is old.
    if (chain.length === 0 && securing.isPromotion && !this.#mayBeBare(securing, securing.forgetting)) return
    if (securing.isBetween) {
      securing.isReleaser = true
      return this.#begin(securing, 0)
    }
    this.securing.delete(flow)
    context.step('securing', -1)
    if (old !== null) {
      this.#guards.delete(flow)
      this.#clear(old)
    }
    this.#forgetAt(new Set([...living(old), ...securing.leftovers].filter((id) => !chain.includes(id))), flow)
    if (chain.length === 0 && !this.#staysBare(securing)) this.#leaveBare(flow, record)
    const guard = chain.length === 0 ? null : this.#guard(flow, record, chain, true)
    if (chain.some((id) => this.#host.isLeaving(id))) this.#bare.set(flow, record)
    context.engine.resumeFlow(record)
    this.counts.secured++
    if (old !== null) this.#resend(old, guard, released)
    context.buffered -= back.count + returned.count + held.count
    context.run(back, returned, held)
    if (guard !== null && this.#guards.get(flow) === guard) this.steps.send(guard)
  }

  /** Outputs that no switch has had from the replica before leave now. */
  #resend(old: Guard, guard: Guard | null, released: ReadonlyMap<number, number>): void {
    const context = this.#context
    this.steps.forget(old, (output, isUnsent) => {
      const { switchId, index, slot, frame, length } = output
      if (!isUnsent) {
        const left = Math.max(released.get(switchId) ?? Infinity, old.accepted.get(switchId) ?? 0)
        if (index <= left && !planted['everything-resent']) return context.engine.pool.give(slot)
        // It was handed over to nobody.
        context.countTakenOver(1)
        this.counts.resent++
      }
      if (guard === null) return this.steps.releaseNow(output)
      this.steps.keep(guard, switchId, slot, frame, length)
      if (living(old).length === 0) guard.resent++
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
      const isBack = (securing.unmarked & securing.begun & from) !== 0 && !planted['take-back-order']
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
    this.#forgetting.fenced(runtime)
    for (const [flow, early] of this.#early) if (early.includes(runtime)) this.#uncovered.add(flow)
    for (const [flow, { replicas, done }] of [...this.#adoptions]) {
      if (!replicas.delete(runtime) || replicas.size > 0) continue
      this.#adoptions.delete(flow)
      done()
    }
    for (const securing of [...this.securing.values()]) {
      if (securing.target === runtime) securing.targetDone = true
      if (securing.old !== null) strike(securing.old, runtime)
      securing.leftovers.delete(runtime)
      securing.leftTails.delete(runtime)
      const wasAwaited = securing.marking.delete(runtime)
      if (securing.marking.size === 0 && (wasAwaited || living(securing.old).length === 0)) securing.isMarked = true
      if (securing.chain.includes(runtime)) this.#begin(securing, runtime)
      else if (securing.waitsToRetire) this.#changeReleaser(securing)
      else this.#finish(securing)
    }
    for (const guard of this.#guards.values()) {
      const wasDead = guard.isDead
      if (strike(guard, runtime) && !wasDead) this.#die(guard)
    }
    this.steps.fenced(runtime)
  }

  /** Switches that are gone: their word does not come. */
  withoutSwitches(mask: number): void {
    for (const securing of [...this.securing.values()]) {
      securing.pending &= ~mask
      securing.markers &= ~mask
      securing.unmarked &= ~mask
      if (securing.isRerouted && !securing.targetDone) fetchBuffer(this.#context, securing)
      this.#finish(securing)
    }
  }

  /** A switch has come back knowing nothing. */
  repeatTo(switchId: number): void {
    const bit = this.#context.switches.bitOf(switchId)
    for (const securing of this.securing.values()) {
      if (!securing.isRerouted) continue
      securing.pending |= bit
      sayRerouted(this.#context, this.#host, securing, bit)
    }
  }

  /** True for replicas that are to be elsewhere: a runtime is to become empty, or all are on our machine while another one has room. */
  #isMisplaced({ replica, tail }: Guard): boolean {
    const { isLeaving, isApart, candidates } = this.#host
    return isLeaving(replica) || isLeaving(tail) || (!isApart(replica) && !isApart(tail) && candidates().some((id) => isApart(id)))
  }

  /** Other runtimes may keep replicas from now on: those that are to be elsewhere go there. */
  keepersChanged(): void {
    for (const guard of this.#guards.values()) {
      const { flow, record, isDead } = guard
      if (!isDead && !this.securing.has(flow) && this.#isMisplaced(guard)) this.#bare.set(flow, record)
    }
  }

  tick(): void {
    this.steps.tick()
    for (const securing of this.securing.values()) {
      this.#ask(securing)
      if (securing.waitsToRetire) this.#changeReleaser(securing)
      else if (this.#forgetting.isWaiting) this.#finish(securing)
    }
    if (this.#thin.size > 0 && this.#host.candidates().length > 1) {
      for (const [flow, record] of this.#thin) this.#bare.set(flow, record)
      this.#thin.clear()
    }
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
        const isThin = guard.tail === guard.replica && this.#host.replicas > 1
        const canGrow = isThin && this.#host.candidates().length > 1 && !isTooLargeToAdopt(this.#context, record, candidate, true)
        if (!this.#isMisplaced(guard) && !canGrow) {
          // It stays after all.
          this.#bare.delete(flow)
          if (isThin) this.#thin.set(flow, record)
          continue
        }
        // All that it is to release must have been sent to it, whole steps, ahead of the word that it is to release no more.
        if (!guard.isAdopted || guard.isUnsent) continue
      }
      if (!this.securing.has(flow) && !this.#host.isBusy(flow)) this.secure(record)
    }
  }
}
