/**
 * Steps: the unit of commit. A flow's outputs of a batch and its record behind them go to its replica as one message; what has not been
 * acknowledged is kept. PROTOCOL 12, 13, 16. Nothing is sent past its place: without room in the session outputs gather, and go as one
 * step with the record as it is then.
 */

import { planted } from '../../base/planted-bugs.ts'
import { CommitStep, CommitStepFrames, CommitStepSnapshotBytes, padded, ReleasePacket } from '../../messages/replication.ts'
import { Descriptor } from '../../packet/descriptor.ts'
import type { MessageChannel } from '../../transport/message-channel.ts'
import { begin, epochOf, flowOf, sendFrame, type RuntimeContext } from '../runtime-context.ts'
import type { ReplicationMode } from './protection.ts'

/** An output that its replica may not have released. */
export interface Output {
  readonly switchId: number
  /** Which one it is of those to this switch since the replica releases. */
  readonly index: number
  readonly frame: Uint8Array
  state: 'unsent' | 'ahead' | 'sent'
  /** Where the session's stream ended behind its step. */
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
  /** Outputs so far, by switch. */
  readonly counts: Map<number, number>
  /** In `async`: outputs since the record was sent. */
  since: number
}

export function newGuard(flow: number, record: number, replica: number, isAdopted: boolean): Guard {
  return { flow, record, replica, isAdopted, isDead: false, outputs: [], counts: new Map(), since: 0 }
}

export interface StepsHost {
  readonly mode: ReplicationMode
  /** In `async`: outputs of a flow between two copies of its record. */
  readonly every: number
  guardOf(flow: number): Guard | undefined
  isSecuring(flow: number): boolean
  /** Sends a frame to a switch and counts it. */
  release(switchId: number, frame: number, length: number): void
}

/** Outputs that wait for room in sessions before no more packets are read. */
const BEHIND_MAX = 256

export class Steps {
  sent = 0
  readonly #context: RuntimeContext
  readonly #host: StepsHost
  /** Guards with outputs that are kept, and those of them with a step that has not been sent. */
  readonly #kept = new Set<Guard>()
  readonly #unsent = new Set<Guard>()
  #behind = 0
  /** Outputs of the batch: descriptor, record, switch. */
  readonly #collected: number[] = []
  readonly #scratch: number

  constructor(context: RuntimeContext, host: StepsHost) {
    this.#context = context
    this.#host = host
    this.#scratch = context.arena.allocate('protection: frame', 65_536 + 8)
  }

  /** False while so much waits for room in sessions that nothing more should be read. */
  get hasRoom(): boolean {
    return this.#behind < BEHIND_MAX
  }

  /** True while outputs are kept. */
  get isWaiting(): boolean {
    return this.#kept.size > 0 || this.#unsent.size > 0
  }

  /** True while a step of a guard waits for room. */
  isUnsent(guard: Guard): boolean {
    return this.#unsent.has(guard)
  }

  /** A guard is given up, and its outputs are no longer kept here: those that were never sent are no longer counted either. */
  forget(guard: Guard): void {
    this.#kept.delete(guard)
    this.#unsent.delete(guard)
  }

  /** An output that was not sent is not here any more. */
  takeUnsent(): void {
    this.#behind--
    this.#context.buffered--
  }

  /** An output of a guarded flow. True: it leaves from elsewhere. */
  collect(record: number, d: number, switchId: number): boolean {
    if (this.#host.mode === 'commit' && !planted['released-before-stored']) {
      this.#collected.push(d, record, switchId)
      return true
    }
    const guard = this.#host.guardOf(flowOf(this.#context, record))
    if (guard === undefined || guard.isDead) return false
    if (++guard.since >= this.#host.every) {
      guard.since = 0
      this.#unsent.add(guard)
      this.send(guard)
    }
    return false
  }

  /** What was collected goes to the replicas. Behind a batch. */
  commitSteps(): void {
    const collected = this.#collected
    if (collected.length === 0) return
    const { i32, u8 } = this.#context.arena
    for (let i = 0; i < collected.length; i += 3) {
      const d = collected[i] as number
      const record = collected[i + 1] as number
      const switchId = collected[i + 2] as number
      const frame = i32[d + Descriptor.frame]
      const bytes = u8.slice(frame, frame + i32[d + Descriptor.length])
      const guard = this.#host.guardOf(flowOf(this.#context, record))
      if (guard === undefined) {
        this.releaseNow(switchId, bytes)
        continue
      }
      this.keep(guard, switchId, bytes)
    }
    collected.length = 0
    for (const guard of this.#unsent) this.send(guard)
  }

  /** Sends a frame that nobody guards. */
  releaseNow(switchId: number, bytes: Uint8Array): void {
    this.#context.arena.u8.set(bytes, this.#scratch + 2)
    this.#host.release(switchId, this.#scratch + 2, bytes.length)
  }

  /** Keeps an output until its replica has released it. */
  keep(guard: Guard, switchId: number, frame: Uint8Array): void {
    const index = (guard.counts.get(switchId) ?? 0) + 1
    guard.counts.set(switchId, index)
    guard.outputs.push({ switchId, index, frame, state: 'unsent', position: 0 })
    this.#behind++
    this.#context.buffered++
    this.#kept.add(guard)
    this.#unsent.add(guard)
  }

  /** Sends what a guard has not sent, and the record behind it, as far as there is room. */
  send(guard: Guard): void {
    if (!this.#unsent.has(guard) || guard.isDead || this.#host.isSecuring(guard.flow)) return
    const unsent = guard.outputs.filter(({ state }) => state === 'unsent')
    const context = this.#context
    const { engine, arena } = context
    const channel = context.control(guard.replica)
    const epoch = epochOf(context, guard.record)
    const snapshotBytes = engine.exportBytes(guard.record)
    const limit = channel?.messageBytesMax ?? Infinity
    let bytes = CommitStep.bytes + padded(snapshotBytes) + unsent.reduce((sum, { frame }) => sum + 8 + padded(frame.length), 0)
    while (unsent.length > 0 && bytes > limit) {
      const output = unsent[0] as Output
      arena.u8.set(output.frame, this.#scratch + 2)
      if (!sendFrame(context, channel, ReleasePacket, guard.flow, epoch, this.#scratch + 2, output.frame.length, false, 0,
        output.switchId)) return
      output.state = 'ahead'
      this.#handed()
      bytes -= 8 + padded(output.frame.length)
      unsent.shift()
    }
    const at = bytes > limit ? 0 : begin(context, channel, CommitStep, guard.flow, epoch, false, bytes - CommitStep.bytes)
    if (at === 0) return
    arena.u32[(at + CommitStepSnapshotBytes) >> 2] = snapshotBytes
    arena.u32[(at + CommitStepFrames) >> 2] = unsent.length
    let to = at + CommitStep.bytes
    arena.u8.set(engine.exportFlow(guard.record), to)
    to += padded(snapshotBytes)
    for (const output of unsent) {
      arena.u32[to >> 2] = output.frame.length
      arena.u32[(to + 4) >> 2] = output.switchId
      arena.u8.set(output.frame, to + 8)
      to += 8 + padded(output.frame.length)
      output.state = 'sent'
      this.#handed()
    }
    ;(channel as MessageChannel).commit()
    const position = channel?.position ?? 0
    for (const output of guard.outputs) {
      if (output.state === 'unsent') continue
      if (output.state === 'ahead' || output.position === 0) output.position = position
      output.state = 'sent'
    }
    this.sent++
    this.#unsent.delete(guard)
  }

  #handed(): void {
    this.#behind--
    this.#context.buffered--
    this.#context.countHandedOver(1)
  }

  /** Sends what has room, forgets what has been acknowledged. */
  tick(): void {
    for (const guard of this.#unsent) this.send(guard)
    for (const guard of this.#kept) {
      const { outputs } = guard
      while (outputs.length > 0 && guard.isAdopted && !guard.isDead) {
        const { state, position } = outputs[0] as Output
        if (state !== 'sent' || this.#context.control(guard.replica)?.hasReached?.(position) !== true) break
        outputs.shift()
      }
      if (outputs.length === 0) this.#kept.delete(guard)
    }
  }
}
