/**
 * Backlogs: what each replica is still to get or to acknowledge, and the packet slots that this takes. While too much waits, a runtime reads
 * no more packets; when that is for a replica which has acknowledged nothing for a while, it is slow: the flows that it guards stop, their
 * packets are counted drops (`replica-slow`), and all others go on. PROTOCOL 16.
 *
 *     in time ── too much waits, nothing was acknowledged for a while ──▶ slow ── it acknowledges, or is fenced ──▶ in time
 *
 * So it is with flows whose replica is dead, while they cannot have another yet.
 */

import { planted } from '../../base/planted-bugs.ts'
import type { Guard } from './guard.ts'

/** What waits for one replica. */
export interface Backlog {
  /** Outputs, and bytes of them, that wait for room in the session. */
  behind: number
  behindBytes: number
  /** Outputs that have been sent and not acknowledged; those of them in large slots. */
  kept: number
  keptLarge: number
  /** When it has acknowledged something, or began to have something to acknowledge, or it was seen that nobody else waits for it. */
  progressedAt: number
  isSlow: boolean
  /** Guards whose flows stand still for it. */
  readonly stopped: Set<Guard>
}

export interface BacklogsHost {
  now(): number
  /** How many packet slots there are, of both kinds. */
  readonly slots: { readonly packets: number; readonly largePackets: number }
  /** How many outputs may wait for replicas in all. */
  readonly unacknowledged: number
  /** After how many microseconds without an acknowledgement a replica is slow. */
  readonly slowUs: number
  /** All flows of this runtime that have replicas. */
  guards(): IteratorObject<Guard>
  /** Those whose outputs wait, but not for room: until a move that is called off, or a change of replica, has ended. */
  withheld(): Iterable<Guard>
  /** Stops a flow, unless it stands still for another reason. */
  stop(guard: Guard): void
  /** A flow that was stopped goes on, unless it stands still for another reason, or is here no more. */
  resume(guard: Guard): void
}

/** Outputs, and bytes of them, that wait for room in sessions before no more packets are read. */
const BEHIND_MAX = 256
const BEHIND_BYTES_MAX = 1 << 20

export class Backlogs {
  /** Outputs that have been sent and are kept, of all. */
  kept = 0
  readonly #host: BacklogsHost
  readonly #byReplica = new Map<number, Backlog>()
  /** Of replicas that are dead, whose flows are to have others. What is in a flow's way may be a move that waits for what is to be read. */
  readonly #dead = new Set<Backlog>()
  readonly #slow = new Set<Backlog>()
  /** Guards of slow replicas that have more to send. */
  readonly #overrun: Guard[] = []
  #behind = 0
  #behindBytes = 0
  #keptLarge = 0

  constructor(host: BacklogsHost) {
    this.#host = host
  }

  /**
   * False while so much waits for replicas that are in time, in sessions or in the slots of packets, that nothing more should be read: half
   * of the slots that slow ones leave is for others. What waits until a move has ended does not count, for that may be waiting for what is to be
   * read.
   */
  get hasRoom(): boolean {
    let { packets, largePackets } = this.#host.slots
    let behind = this.#behind
    let behindBytes = this.#behindBytes
    let { kept } = this
    let large = this.#keptLarge
    for (const slow of this.#slow) {
      behind -= slow.behind
      behindBytes -= slow.behindBytes
      kept -= slow.kept
      large -= slow.keptLarge
      packets -= slow.kept - slow.keptLarge + slow.behind
      largePackets -= slow.keptLarge
    }
    if (kept * 2 > packets || large * 2 > largePackets) return false
    if (this.#isFew(behind, behindBytes, kept)) return true
    const all = behind
    for (const { unsentCount, unsentBytes, backlog } of this.#host.withheld()) {
      if (backlog?.isSlow === true) continue
      behind -= unsentCount
      behindBytes -= unsentBytes
    }
    return this.#isFew(behind, behindBytes, kept) && all * 2 <= packets
  }

  #isFew(behind: number, behindBytes: number, kept: number): boolean {
    return behind < BEHIND_MAX && behindBytes < BEHIND_BYTES_MAX && kept + behind < this.#host.unacknowledged
  }

  /** Where a guard's outputs count, also when its replica's next life has a backlog of its own. */
  of(guard: Guard): Backlog {
    const one = guard.backlog ??= this.#find(guard)
    if (guard.isFirstDead) this.#dead.add(one)
    return one
  }

  #find({ replica, isFirstDead }: Guard): Backlog {
    let one = isFirstDead ? undefined : this.#byReplica.get(replica)
    if (one === undefined) {
      one = { behind: 0, behindBytes: 0, kept: 0, keptLarge: 0, progressedAt: 0, isSlow: false, stopped: new Set() }
      if (!isFirstDead) this.#byReplica.set(replica, one)
    }
    return one
  }

  countBehind(one: Backlog, by: number, bytes: number): void {
    if (one.behind + one.kept === 0) one.progressedAt = this.#host.now()
    one.behind += by
    one.behindBytes += bytes
    this.#behind += by
    this.#behindBytes += bytes
  }

  countKept(one: Backlog, by: number, isLarge: boolean): void {
    one.kept += by
    this.kept += by
    if (!isLarge) return
    one.keptLarge += by
    this.#keptLarge += by
  }

  /** It has acknowledged something. */
  progressed(one: Backlog): void {
    one.progressedAt = this.#host.now()
    if (one.isSlow) this.#goOn(one)
  }

  /** Finds out for whom everybody waits. Where all flows have the same replica there is nobody else. */
  tick(): void {
    for (const guard of this.#overrun.splice(0)) if (guard.backlog?.isSlow === true) this.#stop(guard.backlog, guard)
    for (const one of this.#dead) if (one.behind + one.kept === 0) this.#bury(one)
    if (this.hasRoom || planted['slow-stops-all']) return
    for (const one of this.#dead) this.#judge(one, ({ backlog }) => backlog === one)
    for (const [id, one] of this.#byReplica) this.#judge(one, ({ replica }) => replica === id)
  }

  #judge(one: Backlog, isOf: (guard: Guard) => boolean): void {
    if (one.isSlow || one.behind + one.kept === 0 || this.#host.now() - one.progressedAt < this.#host.slowUs) return
    if (!this.#dead.has(one) && !this.#host.guards().some((guard) => !guard.isDead && !isOf(guard))) {
      one.progressedAt = this.#host.now()
      return
    }
    one.isSlow = true
    this.#slow.add(one)
    for (const guard of this.#host.guards()) if (isOf(guard)) this.#stop(one, guard)
  }

  #bury(one: Backlog): void {
    this.#dead.delete(one)
    this.#goOn(one)
  }

  #stop(one: Backlog, guard: Guard): void {
    if ((guard.isDead && !this.#dead.has(one)) || guard.copy !== null) return
    one.stopped.add(guard)
    this.#host.stop(guard)
  }

  /** A flow that had been stopped has gone on, for another reason. */
  overrun(guard: Guard): void {
    this.#overrun.push(guard)
  }

  #goOn(one: Backlog): void {
    one.isSlow = false
    this.#slow.delete(one)
    const stopped = [...one.stopped]
    one.stopped.clear()
    for (const guard of stopped) this.#host.resume(guard)
  }

  /** True for a flow that stands still because its replica is slow. */
  isStopped(guard: Guard): boolean {
    return guard.backlog?.stopped.has(guard) === true
  }

  /** True while a replica is slow: no more flows for it. */
  isSlow(replica: number): boolean {
    return this.#byReplica.get(replica)?.isSlow === true
  }

  /** The flow is not guarded by it any more. */
  forget(guard: Guard): void {
    guard.backlog?.stopped.delete(guard)
  }

  /** What waits for it is given up guard by guard. */
  fenced(replica: number): void {
    const one = this.#byReplica.get(replica)
    if (one === undefined) return
    this.#byReplica.delete(replica)
    this.#goOn(one)
    one.progressedAt = this.#host.now()
    if (one.behind + one.kept > 0) this.#dead.add(one)
  }
}
