/**
 * Steps: the unit of commit. A flow's outputs of a batch and its record behind them go to its replica as one message; what has not been
 * acknowledged is kept, in the packet's own slot. PROTOCOL 12, 13, 16. Nothing is sent past its place: without room in the session outputs
 * gather, and go as one step with the record as it is then.
 *
 *     outputs of a guard:  acknowledged: gone │ sent, in steps │ ahead of their step │ not sent
 *                                              0          sent           sent + ahead
 */

import { planted } from '../../base/planted-bugs.ts'
import { loadFrameBytes } from '../../memory/kernels/frame-bytes.ts'
import { CommitStep, CommitStepFrames, CommitStepSnapshotBytes, padded, ReleasePacket } from '../../messages/replication.ts'
import { Descriptor } from '../../packet/descriptor.ts'
import type { MessageChannel } from '../../transport/message-channel.ts'
import { begin, epochOf, sendFrame, type RuntimeContext } from '../runtime-context.ts'
import type { ReplicationMode } from './protection.ts'

/** An output that its replica may not have released. */
export interface Output {
  readonly switchId: number
  /** Which one it is of those to this switch since the replica releases. */
  readonly index: number
  /** The packet's slot, which is the output's, and where the frame is in it. */
  readonly slot: number
  readonly frame: number
  readonly length: number
  /** Where the session's stream ended behind its step, once that has been sent. */
  position: number
}

/** A flow and its replica. */
export interface Guard {
  readonly flow: number
  readonly record: number
  readonly replica: number
  /** The replica has said that it has the flow. */
  isAdopted: boolean
  isDead: boolean
  readonly outputs: Output[]
  /** How many of them have been sent with their step, how many more have gone ahead of theirs. */
  sent: number
  ahead: number
  /** Bytes that the others take in a step. */
  unsentBytes: number
  /** Outputs so far, by switch. */
  readonly counts: Map<number, number>
  /** In `async`: outputs since the record was sent. */
  since: number
}

export interface StepsHost {
  readonly mode: ReplicationMode
  /** In `async`: outputs of a flow between two copies of its record. */
  readonly every: number
  /** The guard of the flow at a record. */
  guardOf(record: number): Guard | undefined
  isSecuring(flow: number): boolean
  /** Sends a frame to a switch and counts it. */
  release(switchId: number, frame: number, length: number): void
}

/** Outputs, and bytes of them, that wait for room in sessions before no more packets are read. */
const BEHIND_MAX = 256
const BEHIND_BYTES_MAX = 1 << 20

/** What an output takes in a step. */
const stepBytes = (length: number): number => 8 + padded(length)

export class Steps {
  sent = 0
  /** Outputs that have been sent and are kept: no packets of this node any more, but in its slots. */
  kept = 0
  readonly #context: RuntimeContext
  readonly #host: StepsHost
  readonly #copyBytes: (to: number, from: number, bytes: number) => void
  /** Guards with outputs that are kept, and those of them with a step that has not been sent. */
  readonly #kept = new Set<Guard>()
  readonly #unsent = new Set<Guard>()
  #behind = 0
  #behindBytes = 0
  /** Of the outputs that are kept and sent, those in large slots. */
  #keptLarge = 0
  /** Outputs of the batch: descriptor, record, switch. */
  readonly #collected: number[] = []

  constructor(context: RuntimeContext, host: StepsHost) {
    this.#context = context
    this.#host = host
    this.#copyBytes = loadFrameBytes(context.arena).copyBytes
  }

  /**
   * False while so much waits for room in sessions, or for acknowledgements in the slots of packets, that nothing more should be read:
   * half of the slots are for others.
   */
  get hasRoom(): boolean {
    const { packets, largePackets } = this.#context.engine.limits
    return this.#behind < BEHIND_MAX && this.#behindBytes < BEHIND_BYTES_MAX && this.kept * 2 <= packets &&
      this.#keptLarge * 2 <= largePackets
  }

  /** True while outputs are kept. */
  get isWaiting(): boolean {
    return this.#kept.size > 0 || this.#unsent.size > 0
  }

  /**
   * A guard is given up, with its outputs: who wants them takes them, and gives their slots back; none of them counts any more.
   *
   * @param take whether it has not been sent is its second argument
   */
  forget(guard: Guard, take: (output: Output, isUnsent: boolean) => void): void {
    this.#kept.delete(guard)
    this.#unsent.delete(guard)
    const outputs = guard.outputs.splice(0)
    const away = guard.sent + guard.ahead
    guard.sent = guard.ahead = guard.unsentBytes = 0
    outputs.forEach((output, index) => {
      if (index >= away) this.#takeUnsent(output)
      else this.#countKept(output, -1)
      take(output, index >= away)
    })
  }

  #countKept({ slot }: Output, by: number): void {
    this.kept += by
    if (this.#context.engine.pool.isLarge(slot)) this.#keptLarge += by
  }

  #takeUnsent({ length }: Output): void {
    this.#behind--
    this.#behindBytes -= length
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
    if (++guard.since >= this.#host.every) {
      guard.since = 0
      this.#unsent.add(guard)
      this.send(guard)
    }
    return false
  }

  /** What was collected goes to the replicas, the slots of these packets with it. Behind a batch. */
  commitSteps(): void {
    const collected = this.#collected
    if (collected.length === 0) return
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
    for (const guard of this.#unsent) this.send(guard)
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
    guard.outputs.push({ switchId, index, slot, frame, length, position: 0 })
    guard.unsentBytes += stepBytes(length)
    this.#behind++
    this.#behindBytes += length
    this.#context.buffered++
    this.#kept.add(guard)
    this.#unsent.add(guard)
  }

  /** Sends what a guard has not sent, and the record behind it, as far as there is room. */
  send(guard: Guard): void {
    if (!this.#unsent.has(guard) || guard.isDead || this.#host.isSecuring(guard.flow)) return
    const context = this.#context
    const { engine, arena } = context
    const { outputs, flow, record } = guard
    const channel = context.control(guard.replica)
    const epoch = epochOf(context, record)
    const snapshotBytes = engine.exportBytes(record)
    const headBytes = CommitStep.bytes + padded(snapshotBytes)
    const limit = channel?.messageBytesMax ?? Infinity
    while (headBytes + guard.unsentBytes > limit && guard.sent + guard.ahead < outputs.length) {
      const output = outputs[guard.sent + guard.ahead]
      if (!sendFrame(context, channel, ReleasePacket, flow, epoch, output.frame, output.length, false, 0, output.switchId)) return
      guard.ahead++
      this.#handed(guard, output)
    }
    const bytes = headBytes + guard.unsentBytes
    const at = bytes > limit ? 0 : begin(context, channel, CommitStep, flow, epoch, false, bytes - CommitStep.bytes)
    if (at === 0) return
    const first = guard.sent + guard.ahead
    arena.u32[(at + CommitStepSnapshotBytes) >> 2] = snapshotBytes
    arena.u32[(at + CommitStepFrames) >> 2] = outputs.length - first
    let to = at + CommitStep.bytes
    engine.exportFlowTo(record, to)
    to += padded(snapshotBytes)
    for (let i = first; i < outputs.length; i++) {
      const output = outputs[i]
      arena.u32[to >> 2] = output.length
      arena.u32[(to + 4) >> 2] = output.switchId
      this.#copyBytes(to + 8, output.frame, output.length)
      to += stepBytes(output.length)
      this.#handed(guard, output)
    }
    ;(channel as MessageChannel).commit()
    const position = channel?.position ?? 0
    for (let i = guard.sent; i < outputs.length; i++) outputs[i].position = position
    guard.sent = outputs.length
    guard.ahead = 0
    this.sent++
    this.#unsent.delete(guard)
  }

  #handed(guard: Guard, output: Output): void {
    this.#takeUnsent(output)
    guard.unsentBytes -= stepBytes(output.length)
    this.#countKept(output, 1)
    this.#context.countHandedOver(1)
  }

  /** Sends what has room, forgets what has been acknowledged. */
  tick(): void {
    for (const guard of this.#unsent) this.send(guard)
    for (const guard of this.#kept) {
      if (!guard.isAdopted || guard.isDead) continue
      const { outputs } = guard
      const channel = this.#context.control(guard.replica)
      let done = 0
      while (done < guard.sent && channel?.hasReached?.(outputs[done].position) === true) {
        const output = outputs[done++]
        this.#countKept(output, -1)
        this.#context.engine.pool.give(output.slot)
      }
      if (done === outputs.length) outputs.length = 0
      else if (done > 0) outputs.splice(0, done)
      guard.sent -= done
      if (outputs.length === 0) this.#kept.delete(guard)
    }
  }
}
