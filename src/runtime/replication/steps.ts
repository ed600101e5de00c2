/**
 * Steps: the unit of commit. A flow's outputs of a batch and its record behind them go to its replica as one message; what has not been
 * acknowledged is kept, in the packet's own slot. PROTOCOL 12, 13, 16. Nothing is sent past its place: without room in the session outputs
 * gather, and go as one step with the record as it is then.
 *
 *     outputs of a guard:  acknowledged: gone │ sent, in steps │ ahead of their step │ not sent ─▶ last
 *                                              first            stepless              unsent
 *
 * The first replica of a chain of two keeps what it hands on in the same way: its guard has the copy of the record that is kept there. What
 * the tail has acknowledged it tells the owner, whose outputs nothing else acknowledges.
 */

import { planted } from '../../base/planted-bugs.ts'
import { loadFrameBytes } from '../../memory/kernels/frame-bytes.ts'
import { CommitStep, CommitStepFrames, CommitStepInputs, CommitStepSnapshotBytes, padded, ReleasePacket } from '../../messages/replication.ts'
import { Descriptor, DESCRIPTOR_WORDS } from '../../packet/descriptor.ts'
import { SLOT_FRAME_OFFSET } from '../../packet/packet-pool.ts'
import type { MessageChannel } from '../../transport/message-channel.ts'
import { begin, epochOf, sendFrame, type RuntimeContext } from '../runtime-context.ts'
import { Backlogs } from './backlogs.ts'
import type { Guard, Output } from './guard.ts'
import type { ReplicationMode } from './protection.ts'

/** Steps sent to one replica and not acknowledged, in their order: rings of guards and of positions. */
class SentSteps {
  #guards: (Guard | null)[] = [null, null, null, null]
  #positions = [0, 0, 0, 0]
  #head = 0
  count = 0

  push(guard: Guard, position: number): void {
    const size = this.#guards.length
    if (this.count === size) {
      // Twice as long, with the oldest at the start.
      this.#guards = [...this.#guards.slice(this.#head), ...this.#guards.slice(0, this.#head), ...new Array<null>(size).fill(null)]
      this.#positions = [...this.#positions.slice(this.#head), ...this.#positions.slice(0, this.#head), ...new Array<number>(size).fill(0)]
      this.#head = 0
    }
    const at = (this.#head + this.count++) & (this.#guards.length - 1)
    this.#guards[at] = guard
    this.#positions[at] = position
  }

  get firstPosition(): number {
    return this.#positions[this.#head]
  }

  shift(): Guard {
    const guard = this.#guards[this.#head] as Guard
    this.#guards[this.#head] = null
    this.#head = (this.#head + 1) & (this.#guards.length - 1)
    this.count--
    return guard
  }
}

export interface StepsHost {
  readonly mode: ReplicationMode
  /** In `async`: outputs of a flow between two copies of its record. */
  readonly every: number
  /** The guard of the flow at a record. */
  guardOf(record: number): Guard | undefined
  isSecuring(flow: number): boolean
  /** Tells replicas of the aliases that a guard owes them, if there is room. */
  tellAliases(guard: Guard): void
  incarnationOf(runtime: number): number
  /** The tail has released more outputs of a flow whose copy is kept here, all told so many. */
  held(guard: Guard): void
  /** Sends a frame to a switch and counts it. */
  release(switchId: number, frame: number, length: number): void
  guards(): IteratorObject<Guard>
  /** A flow stands still until its replica takes more, unless it does for another reason. */
  stop(guard: Guard): void
  resume(guard: Guard): void
}

/** What an output takes in a step. */
const stepBytes = (length: number): number => 8 + padded(length)

export class Steps {
  sent = 0
  readonly backlogs: Backlogs
  /**
   * In `async`: outputs that have left ahead of the records behind them, which would be lost with us; and how many have left although the
   * record was due, for it had no room.
   */
  readonly lead = { ahead: 0, overdue: 0 }
  readonly #context: RuntimeContext
  readonly #host: StepsHost
  readonly #copyBytes: (to: number, from: number, bytes: number) => void
  /** Guards of this batch with something to send; those for which there was no room. */
  readonly #batch: Guard[] = []
  readonly #unsent = new Set<Guard>()
  /** By replica. */
  readonly #sentSteps = new Map<number, SentSteps>()
  #free: Output | null = null
  /** Outputs of the batch: descriptor, record, switch. */
  readonly #collected: number[] = []
  #isGathering = false

  constructor(context: RuntimeContext, host: StepsHost) {
    this.#context = context
    this.#host = host
    const { times, limits, engine } = context
    this.backlogs = new Backlogs({
      now: () => context.now, slots: engine.limits, unacknowledged: limits.unacknowledged, slowUs: times.slowReplicaUs,
      guards: () => host.guards(), withheld: () => [...this.#unsent].filter(({ flow }) => host.isSecuring(flow)),
      stop: (guard) => { host.stop(guard) }, resume: (guard) => { host.resume(guard) },
    })
    this.#copyBytes = loadFrameBytes(context.arena).copyBytes
  }

  /** Outputs that have been sent and are kept: no packets of this node any more, but in its slots. */
  get kept(): number {
    return this.backlogs.kept
  }

  /** True while a state has changed and is not on its way to its replica. */
  get hasUnsent(): boolean {
    return this.#unsent.size > 0 || this.#batch.length > 0
  }

  /** True while something waits for room, or for an acknowledgement. */
  get isWaiting(): boolean {
    return this.kept > 0 || this.#unsent.size > 0 || this.#batch.length > 0
  }

  /**
   * A guard is given up, with its outputs: who wants them takes them, and gives their slots back; none of them counts any more.
   *
   * @param take whether it has not been sent is its second argument
   */
  forget(guard: Guard, take: (output: Output, isUnsent: boolean) => void): void {
    this.#unsent.delete(guard)
    guard.isUnsent = false
    this.#caughtUp(guard)
    this.backlogs.forget(guard)
    const { unsent } = guard
    let output = guard.first
    guard.first = guard.stepless = guard.unsent = guard.last = null
    guard.unsentCount = guard.unsentBytes = 0
    for (let isUnsent = false; output !== null;) {
      isUnsent ||= output === unsent
      if (isUnsent) this.#takeUnsent(guard, output)
      else this.#countKept(guard, output, -1)
      take(output, isUnsent)
      output = this.#recycle(output)
    }
  }

  /** The replica is fenced: it acknowledges nothing any more. */
  fenced(replica: number): void {
    this.#sentSteps.delete(replica)
    this.backlogs.fenced(replica)
  }

  /** Returns the next one. */
  #recycle(output: Output): Output | null {
    const { next } = output
    output.next = this.#free
    this.#free = output
    return next
  }

  #countKept(guard: Guard, { slot }: Output, by: number): void {
    this.backlogs.countKept(this.backlogs.of(guard), by, this.#context.engine.pool.isLarge(slot))
  }

  #takeUnsent(guard: Guard, { length }: Output): void {
    this.backlogs.countBehind(this.backlogs.of(guard), -1, -length)
    this.#context.buffered--
  }

  /** An output of a guarded flow. True: it leaves from elsewhere. */
  collect(record: number, d: number, switchId: number): boolean {
    if (this.#host.mode === 'commit' && !planted['released-before-stored']) {
      this.#collected.push(d, record, switchId)
      return true
    }
    const guard = this.#host.guardOf(record)
    if (guard === undefined || guard.isDead) return false
    const { lead } = this
    lead.ahead++
    if (++guard.since < this.#host.every || (planted['async-once'] && guard.hasSent)) return false
    if (guard.since > this.#host.every) lead.overdue++
    guard.isUnsent = true
    this.send(guard)
    if (guard.isUnsent) this.#unsent.add(guard)
    return false
  }

  /** Nothing of a guard's flow has left ahead of its record any more. */
  #caughtUp(guard: Guard): void {
    this.lead.ahead -= guard.since
    guard.since = 0
  }

  /**
   * Packets of a batch that was not simply forwarded: the states behind those dropped or held are to be replicated, too.
   *
   * @param outputs where in the arena the descriptors of what came of the batch are listed
   */
  touch(d: number, count: number, outputs: number, outputCount: number): void {
    const { i32 } = this.#context.arena
    const end = outputs + outputCount
    for (let i = 0; i < count; i++, d += DESCRIPTOR_WORDS) {
      const record = i32[d + Descriptor.record]
      // In `async` outputs are counted, and what makes none is rare.
      if (record !== 0 && (this.#host.mode === 'commit' || !this.#isListed(d, outputs, end))) this.changed(record)
    }
  }

  #isListed(d: number, from: number, end: number): boolean {
    const { i32 } = this.#context.arena
    let at = from
    while (at < end && i32[at] !== d) at++
    return at < end
  }

  /** A flow's state has changed: it is replicated, with outputs or without. */
  changed(record: number): void {
    if (planted['async-outputs-alone'] && this.#host.mode === 'async') return
    const guard = this.#host.guardOf(record)
    if (guard === undefined || guard.isUnsent || guard.isDead) return
    guard.isUnsent = true
    this.#batch.push(guard)
  }

  /** What was collected goes to the replicas, the slots of these packets with it. Behind a batch. */
  commitSteps(): void {
    const collected = this.#collected
    if (collected.length === 0 && this.#batch.length === 0) return
    const { i32 } = this.#context.arena
    for (let i = 0; i < collected.length; i += 3) {
      const d = collected[i]
      const switchId = collected[i + 2]
      const frame = i32[d + Descriptor.frame]
      const length = i32[d + Descriptor.length]
      const guard = this.#host.guardOf(collected[i + 1])
      if (guard === undefined) {
        this.#host.release(switchId, frame, length)
        continue
      }
      this.keep(guard, switchId, i32[d + Descriptor.slot], frame, length)
      i32[d + Descriptor.slot] = 0
    }
    collected.length = 0
    if (!this.#isGathering) this.#sendBatch()
  }

  #sendBatch(): void {
    const batch = this.#batch
    for (let i = 0; i < batch.length; i++) {
      const guard = batch[i]
      this.send(guard)
      if (guard.isUnsent) this.#unsent.add(guard)
    }
    batch.length = 0
  }

  /**
   * Runs packets that were set aside, in several batches perhaps. What comes of them is one step: the links have been read beyond all of them,
   * and a step of some would say that the rest had been processed, too, which nobody would take back then should we die.
   */
  gather(run: () => void): void {
    this.#isGathering = true
    run()
    this.#isGathering = false
    this.#sendBatch()
  }

  /** Sends an output that nobody guards any more, and gives its slot back. */
  releaseNow({ switchId, slot, frame, length }: Output): void {
    this.#host.release(switchId, frame, length)
    this.#context.engine.pool.give(slot)
  }

  /** Keeps an output until its replica has released it. Its slot is ours from now on. */
  keep(guard: Guard, switchId: number, slot: number, frame: number, length: number): void {
    const index = (guard.counts.get(switchId) ?? 0) + 1
    guard.counts.set(switchId, index)
    const output = this.#take(switchId, index, slot, frame, length)
    if (guard.last === null) guard.first = output
    else guard.last.next = output
    guard.last = output
    guard.stepless ??= output
    guard.unsent ??= output
    guard.unsentCount++
    guard.unsentBytes += stepBytes(length)
    const backlog = this.backlogs.of(guard)
    this.backlogs.countBehind(backlog, 1, length)
    if (backlog.isSlow) this.backlogs.overrun(guard)
    this.#context.buffered++
    this.mark(guard)
  }

  /** Keeps a copy of a frame until the tail has released it; false without a slot for it. */
  keepCopy(guard: Guard, switchId: number, frame: number, length: number): boolean {
    const slot = this.#context.engine.pool.take(length)
    if (slot === 0) return false
    this.#copyBytes(slot + SLOT_FRAME_OFFSET, frame, length)
    this.keep(guard, switchId, slot, slot + SLOT_FRAME_OFFSET, length)
    return true
  }

  /** The record of a guard is to be sent, with outputs or without. */
  mark(guard: Guard): void {
    if (guard.isUnsent) return
    guard.isUnsent = true
    this.#batch.push(guard)
  }

  #take(switchId: number, index: number, slot: number, frame: number, length: number): Output {
    const output = this.#free
    if (output === null) return { switchId, index, slot, frame, length, position: 0, next: null }
    this.#free = output.next
    output.switchId = switchId
    output.index = index
    output.slot = slot
    output.frame = frame
    output.length = length
    output.next = null
    return output
  }

  /** Sends what a guard has not sent, and the record behind it, as far as there is room. */
  send(guard: Guard): void {
    if (!guard.isUnsent || guard.isDead || this.#host.isSecuring(guard.flow)) return
    if (guard.owesAliases) this.#host.tellAliases(guard)
    if (guard.owesAliases) return
    const context = this.#context
    const { engine, arena } = context
    const { flow, record, copy } = guard
    // A step that is ahead of the flow itself at the tail would be lost there.
    if (copy === null ? guard.tail !== guard.replica && !guard.isAdopted
      : this.#host.incarnationOf(guard.replica) !== guard.incarnation) return
    const channel = context.control(guard.replica)
    const epoch = copy === null ? epochOf(context, record) : copy.epoch
    const snapshotBytes = copy === null ? engine.exportBytes(record) : copy.snapshotBytes
    const inputs = copy === null ? context.inputs.words : copy.inputs
    const headBytes = CommitStep.bytes + inputs.length * 4 + padded(snapshotBytes)
    const limit = channel?.messageBytesMax ?? Infinity
    while (headBytes + guard.unsentBytes > limit && guard.unsent !== null) {
      const output: Output = guard.unsent
      if (!sendFrame(context, channel, ReleasePacket, flow, epoch, output.frame, output.length, false, 0, output.switchId)) return
      this.#handed(guard, output)
    }
    const bytes = headBytes + guard.unsentBytes
    const at = bytes > limit ? 0 : begin(context, channel, CommitStep, flow, epoch, false, bytes - CommitStep.bytes)
    if (at === 0) {
      if (planted['full-queue-loses']) this.#lose(guard)
      return
    }
    arena.u32[(at + CommitStepSnapshotBytes) >> 2] = snapshotBytes
    arena.u32[(at + CommitStepFrames) >> 2] = guard.unsentCount
    arena.u32[(at + CommitStepInputs) >> 2] = inputs.length * 4
    let to = at + CommitStep.bytes
    for (let word = 0; word < inputs.length; word++) arena.i32[(to >> 2) + word] = inputs[word]
    to += inputs.length * 4
    if (copy === null) engine.exportFlowTo(record, to)
    else arena.i32.set(copy.words, to >> 2)
    to += padded(snapshotBytes)
    for (let output = guard.unsent; output !== null; output = output.next) {
      arena.u32[to >> 2] = output.length
      arena.u32[(to + 4) >> 2] = output.switchId
      this.#copyBytes(to + 8, output.frame, output.length)
      to += stepBytes(output.length)
      this.#handed(guard, output)
    }
    ;(channel as MessageChannel).commit()
    const position = channel?.position ?? 0
    const hasOutputs = guard.stepless !== null
    for (let output = guard.stepless; output !== null; output = output.next) output.position = position
    guard.stepless = null
    this.sent++
    guard.hasSent = true
    this.#caughtUp(guard)
    guard.isUnsent = false
    this.#unsent.delete(guard)
    if (hasOutputs && (copy !== null || guard.tail === guard.replica)) this.#note(guard, position)
  }

  /** Planted bug. */
  #lose(guard: Guard): void {
    this.forget(guard, ({ slot }) => { this.#context.engine.pool.give(slot) })
  }

  #note(guard: Guard, position: number): void {
    let steps = this.#sentSteps.get(guard.replica)
    if (steps === undefined) this.#sentSteps.set(guard.replica, steps = new SentSteps())
    steps.push(guard, position)
  }

  #handed(guard: Guard, output: Output): void {
    this.#takeUnsent(guard, output)
    guard.unsent = output.next
    guard.unsentCount--
    guard.unsentBytes -= stepBytes(output.length)
    this.#countKept(guard, output, 1)
    this.#context.countHandedOver(1)
  }

  /** Sends what has room, forgets what has been acknowledged. */
  tick(): void {
    this.#sendBatch()
    for (const guard of this.#unsent) this.send(guard)
    for (const [replica, steps] of this.#sentSteps) {
      const channel = this.#context.control(replica)
      while (steps.count > 0 && channel?.hasReached?.(steps.firstPosition) === true) this.acknowledged(steps.shift())
    }
    this.backlogs.tick()
  }

  /** Gives up what a replica that has the flow has acknowledged. */
  acknowledged(guard: Guard): void {
    if (!guard.isAdopted || guard.isDead) return
    const channel = this.#context.control(guard.replica)
    let output = guard.first
    while (output !== null && output !== guard.stepless && channel?.hasReached?.(output.position) === true) {
      this.#countKept(guard, output, -1)
      this.#context.engine.pool.give(output.slot)
      output = this.#recycle(output)
      guard.given++
    }
    if (output !== guard.first) this.backlogs.progressed(this.backlogs.of(guard))
    guard.first = output
    if (output === null) guard.last = null
    if (guard.copy !== null && !planted['chain-ack-early']) this.#host.held(guard)
  }

  /** The tail of a guard's chain has stored and released its first `outputs`. */
  held(guard: Guard, outputs: number): void {
    let output = guard.first
    while (output !== null && output !== guard.stepless && guard.given < outputs) {
      this.#countKept(guard, output, -1)
      this.#context.engine.pool.give(output.slot)
      output = this.#recycle(output)
      guard.given++
    }
    if (output !== guard.first) this.backlogs.progressed(this.backlogs.of(guard))
    guard.first = output
    if (output === null) guard.last = null
  }
}
