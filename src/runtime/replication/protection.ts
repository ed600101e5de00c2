/**
 * Protection: the owner's side of replication. Paper §5.4.2; PROTOCOL 12-15, 18, 19; docs/protocol.md, "Replication".
 *
 * A flow is guarded by a replica at another runtime. In `commit` its outputs go there with the record behind them, and leave from there;
 * what the replica has not acknowledged is kept. In `async` the record goes there every few packets, and outputs leave from here.
 *
 *     (opened) ─▶ guarded ── its replica is fenced, it has come here, it was bare ──▶ securing ─▶ guarded
 *
 * Which flows are guarded, and which want another replica, is in guards.ts; where they get it, in replica-choice.ts; how, in securings.ts.
 * A replica that lives and is replaced, for its runtime is to become empty, hears so first.
 *
 * With `replicas` 2 a guard is a chain of two, and only the owner changes it: whatever becomes of a member, the flow gets a chain of a new
 * generation, with the whole record, and what no switch has had leaves through that. A flow that finds one runtime alone has a chain of one
 * until there is another (*thin*).
 */

import { AdoptKind, AdoptRefusal, RetireKind } from '../../messages/replication.ts'
import { Descriptor } from '../../packet/descriptor.ts'
import { flowOf, type RuntimeContext } from '../runtime-context.ts'
import { adoptAll, adoptAt, forgetAt, isTooLargeToAdopt } from './adoption.ts'
import { EarlyAdoptions } from './early-adoptions.ts'
import { Forgetting } from './forgetting.ts'
import { living, releaserOf, strike, type Guard } from './guard.ts'
import { Guards } from './guards.ts'
import type { ProtectionHost } from './protection-host.ts'
import { ReplicaChoice } from './replica-choice.ts'
import { sendRetire } from './retiring.ts'
import { tailOf, type Securing } from './securing.ts'
import { Securings } from './securings.ts'
import { Steps } from './steps.ts'

export type ReplicationMode = 'none' | 'async' | 'commit'

/**
 * Flows that are secured in a turn, and at once, but for those whose owner has died. A flow stands still meanwhile; one whose replica has
 * died does so anyway, until it has another.
 */
const SECURED_PER_TURN = 16
const SECURING_MAX = 64
const STRANDED_PER_TURN = 64
const STRANDED_MAX = 512

export class Protection {
  readonly steps: Steps
  readonly securings: Securings
  readonly #context: RuntimeContext
  readonly #host: ProtectionHost
  readonly #guards: Guards
  readonly #choice: ReplicaChoice
  readonly #forgetting: Forgetting
  readonly #early = new EarlyAdoptions()

  constructor(context: RuntimeContext, host: ProtectionHost) {
    this.#context = context
    this.#host = host
    const guards = this.#guards = new Guards(context, host.replicas)
    const forgetting = this.#forgetting = new Forgetting(context, () => host.knownRuntimes())
    this.steps = new Steps(context, {
      mode: host.mode, every: host.every,
      guardOf: (record) => guards.at(record),
      // What has come and waits is not in the record, and is behind what the step would say to be covered.
      isSecuring: (flow) => this.securing.has(flow) || host.isWithheld(flow),
      tellAliases: (guard) => { this.refresh(guard.record) },
      incarnationOf: (runtime) => host.incarnationOf(runtime), held: (guard) => { host.held(guard) },
      release: (switchId, frame, length) => { host.release(switchId, frame, length) },
      guards: () => guards.all(),
      stop: ({ flow, record }) => { if (!this.#isPaused(flow)) context.engine.pauseFlow(record) },
      resume: (guard) => {
        if (guards.get(guard.flow) === guard && !this.#isPaused(guard.flow)) context.engine.resumeFlow(guard.record)
      },
    })
    const choice = this.#choice = new ReplicaChoice(host, (id) => this.steps.backlogs.isSlow(id))
    this.securings = new Securings(context, host, {
      guards, steps: this.steps, early: this.#early, choice, forgetting, ended: (flow) => { this.ended(flow) },
    })
  }

  /** Flows that are being secured. */
  get securing(): ReadonlyMap<number, Securing> {
    return this.securings.flows
  }

  get counts(): Guards['counts'] {
    return this.#guards.counts
  }

  #isPaused(flow: number): boolean {
    return this.securing.has(flow) || this.#host.isPaused(flow)
  }

  /** A packet of a flow that stands still because its replica is slow: true if it is one. */
  refuse(record: number, d: number): boolean {
    const guard = this.#guards.at(record)
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
    if (this.steps.isWaiting || this.#forgetting.isWaiting || (this.#guards.bare.size > 0 && this.#host.candidates().length > 0)) return true
    if (this.securings.isWaiting) return true
    return this.#guards.thin.size > 0 && this.#choice.canGrow
  }

  /** Flows that have fewer replicas than they are to have: no better ones can be had. */
  get degraded(): number {
    let count = this.#guards.thin.size
    for (const [flow] of this.#guards.bare) if (this.#guards.get(flow)?.isDead !== false && !this.#guards.thin.has(flow)) count++
    return count
  }

  /** True when what has changed is on its way to replicas, and every flow that can has one. */
  get isSettled(): boolean {
    return this.securing.size === 0 && !this.steps.hasUnsent && (this.#guards.bare.size === 0 || this.#host.candidates().length === 0)
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
    return chain === undefined ? this.#guards.bare.has(flow) && !this.#guards.has(flow) : chain.length === 0 && this.replicaOf(flow) === 0
  }

  /** True for a flow that has just come here and has as many replicas as it is to have. */
  isCovered(flow: number): boolean {
    return this.#early.isCovered(flow, this.#host.replicas)
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
    return [...this.#guards.bare.keys(), ...this.securing.keys()].filter((flow) => this.replicaOf(flow) === 0).length
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

  /** A flow has opened here. */
  opened(record: number): void {
    if (!this.isOn) return
    const chain = this.#choice.choose()
    const flow = flowOf(this.#context, record)
    if (chain.length === 0 || !adoptAll(this.#context, this.#host, record, chain, AdoptKind.opening)) this.#guards.leaveBare(flow, record)
    else this.#guards.add(flow, record, chain, false)
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
    guard.owesAliases = chain.some((_, index) => !adoptAt(this.#context, this.#host, record, chain, index, kind))
  }

  /** A flow that has just come here: a replica has it before its source forgets it. */
  adoptEarly(record: number, source: number, inputs: Int32Array, done: () => void): void {
    const chain = this.isOn ? this.#choice.choose(source) : []
    if (chain.length === 0 || !adoptAll(this.#context, this.#host, record, chain, AdoptKind.tentative, inputs)) return done()
    this.#early.begin(flowOf(this.#context, record), chain, done)
  }

  /** Who releases the frames of a flow that ends, should that one have refused it even: 0 for us, or for one that is dead. */
  lastReleaserOf(flow: number): number {
    const guard = this.#host.mode === 'commit' ? this.#guards.get(flow) : undefined
    return guard === undefined || guard.isTailDead ? 0 : guard.tail
  }

  /** The flow has ended, or lives elsewhere now. @param lastEpoch of the last word of who released its frames, where switches wait for it */
  ended(flow: number, lastEpoch = 0): void {
    this.#guards.wantsNone(flow)
    this.#early.ended(flow)
    this.#forgetting.ended(flow)
    const guard = this.#guards.get(flow)
    if (guard === undefined) return
    this.steps.forget(guard, ({ slot }, isUnsent) => {
      if (isUnsent) this.#context.drop(slot, 'replica-behind')
      else this.#context.engine.pool.give(slot)
    })
    const releaser = lastEpoch === 0 ? 0 : this.lastReleaserOf(flow)
    if (releaser !== 0) sendRetire(this.#context, releaser, flow, lastEpoch, RetireKind.last)
    this.#guards.remove(guard)
    forgetAt(this.#context, living(guard).filter((id) => id !== releaser), flow)
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

  adoptReply(from: number, flow: number, epoch: number, refusal: number): void {
    const context = this.#context
    if (this.#early.replied(from, flow, refusal) || this.securings.adoptReply(from, flow, epoch, refusal)) return
    const guard = this.#guards.get(flow)
    if (guard === undefined || (guard.replica !== from && guard.tail !== from)) return context.anomaly('late-adoption')
    if (guard.tail !== guard.replica) return this.#memberReply(guard, from, epoch, refusal)
    if (refusal === AdoptRefusal.none) {
      guard.isAdopted = true
      this.steps.acknowledged(guard)
    } else {
      this.#guards.die(guard)
    }
  }

  /** A member of a chain has the flow, and steps may go there when all have; or it refuses the flow, or more steps of it. */
  #memberReply(guard: Guard, from: number, epoch: number, refusal: number): void {
    if (epoch !== guard.generation) return this.#context.anomaly('late-adoption')
    if (refusal !== AdoptRefusal.none) {
      guard.isRefused = true
      return this.#guards.die(guard)
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

  // -- Configuration, time -------------------------------------------------------------------------------------------

  /** Runtimes that are fenced. */
  fenced(runtime: number): void {
    this.#forgetting.fenced(runtime)
    this.#early.fenced(runtime)
    this.securings.fenced(runtime)
    for (const guard of this.#guards.all()) {
      const wasDead = guard.isDead
      if (strike(guard, runtime) && !wasDead) this.#guards.die(guard)
    }
    this.steps.fenced(runtime)
  }

  /** Other runtimes may keep replicas from now on: those that are to be elsewhere go there. */
  keepersChanged(): void {
    for (const guard of this.#guards.all()) {
      const { flow, record, isDead } = guard
      if (!isDead && !this.securing.has(flow) && this.#choice.isMisplaced(guard)) this.#guards.bare.set(flow, record)
    }
  }

  tick(): void {
    this.steps.tick()
    this.securings.tick()
    if (this.#guards.thin.size > 0 && this.#choice.canGrow) {
      for (const [flow, record] of this.#guards.thin) this.#guards.bare.set(flow, record)
      this.#guards.thin.clear()
    }
    if (this.#guards.bare.size > 0) this.#secureBare()
  }

  #secureBare(): void {
    if (this.#context.isStrained()) return
    // One that stands still anyway costs one of a turn's share.
    let left = STRANDED_PER_TURN
    for (const [flow, record] of this.#guards.bare) {
      const guard = this.#guards.get(flow)
      const isStranded = guard?.isDead === true
      left -= isStranded ? 1 : STRANDED_PER_TURN / SECURED_PER_TURN
      if (left < 0 || this.securing.size >= STRANDED_MAX) return
      if (!isStranded && this.securing.size >= SECURING_MAX) continue
      // Without a runtime to keep a replica, flows whose replica has died or is to go run on without one.
      const candidate = this.#host.candidates()[0] ?? 0
      if (guard === undefined && candidate === 0) continue
      if (guard === undefined && isTooLargeToAdopt(this.#context, record, candidate)) {
        // Nor do those that nobody can take keep others from their turn.
        this.#guards.bare.delete(flow)
        this.#guards.bare.set(flow, record)
        continue
      }
      if (guard !== undefined && !guard.isDead) {
        const isThin = guard.tail === guard.replica && this.#host.replicas > 1
        const canGrow = isThin && this.#choice.canGrow && !isTooLargeToAdopt(this.#context, record, candidate, true)
        if (!this.#choice.isMisplaced(guard) && !canGrow) {
          // It stays after all.
          this.#guards.bare.delete(flow)
          if (isThin) this.#guards.thin.set(flow, record)
          continue
        }
        // All that it is to release must have been sent to it, whole steps, ahead of the word that it is to release no more.
        if (!guard.isAdopted || guard.isUnsent) continue
      }
      if (!this.securing.has(flow) && !this.#host.isBusy(flow)) this.securings.secure(record)
    }
  }
}
