/**
 * Trace port: remembers the last frames that passed a port, each with its time, direction and first bytes. What a frame is, is
 * worked out only when somebody asks.
 *
 * An entry, 152 bytes in the arena; the newest overwrites the oldest:
 *
 *     0 time (double)   8 length   12 direction; 2: refused on its way out   18 the first 128 bytes
 */

import type { Clock, TimeUs } from '../base/clock.ts'
import { CodedError } from '../base/coded-error.ts'
import type { Arena } from '../memory/arena.ts'
import { Descriptor, DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import type { PacketPool } from '../packet/packet-pool.ts'
import { compileFlowFilter, summariseFrame, type FlowFilter, type FramePredicate } from './frame-summary.ts'
import { systemClock } from './system-clock.ts'
import { PortDirection, WrapperPort, type InnerPort } from './wrapper-port.ts'

const ENTRY_BYTES = 152
/** PERF: as far from a multiple of 8 as a frame in its slot, or the copy is made byte by byte. */
const ENTRY_FRAME = 18
const KEPT_BYTES = 128
const REFUSED = 2

export interface TracePortOptions<P extends InnerPort> {
  readonly arena: Arena
  readonly inner: P
  /** Frames to remember, at most; 1,024 unless told. */
  readonly frames?: number
  /** Only these. */
  readonly filter?: FlowFilter
  readonly clock?: Clock
}

/** A frame that has passed. */
export interface TraceEntry {
  readonly time: TimeUs
  readonly direction: 'in' | 'out' | 'refused'
  /** Of the whole frame. */
  readonly length: number
  /** Its first bytes, at most 128. */
  readonly bytes: Uint8Array
  /** In a line for people. */
  readonly summary: string
}

export class TracePort<P extends InnerPort = InnerPort> extends WrapperPort<P> {
  readonly #arena: Arena
  readonly #clock: Clock
  readonly #ring: number
  readonly #frames: number
  /** Frames that have been remembered, those forgotten since among them. */
  #count = 0
  #wanted: FramePredicate | null = null

  /** @throws CodedError `NF_CONFIG_INVALID` (number of frames, filter), `NF_LIMIT` (no room in the arena) */
  constructor(options: TracePortOptions<P>) {
    super(options.inner)
    const { arena, frames = 1024, clock = systemClock } = options
    if (!(Number.isInteger(frames) && frames >= 1 && frames <= 1_000_000)) {
      throw new CodedError('NF_CONFIG_INVALID', `trace port: ${frames} frames cannot be remembered`, 'Give a whole number from 1 to 1,000,000')
    }
    this.#arena = arena
    this.#clock = clock
    this.#frames = frames
    this.setFilter(options.filter)
    this.#ring = arena.allocate('trace', frames * ENTRY_BYTES)
  }

  /** Remembers only such frames from now on; all without a filter. @throws CodedError `NF_CONFIG_INVALID` */
  setFilter(filter?: FlowFilter): void {
    this.#wanted = filter === undefined ? null : compileFlowFilter(filter)
  }

  /** How many frames have been remembered, those that later ones have overwritten among them. */
  get count(): number {
    return this.#count
  }

  /** What is remembered, oldest first. */
  entries(): TraceEntry[] {
    const { f64, i32, u8 } = this.#arena
    const entries: TraceEntry[] = []
    for (let index = Math.max(0, this.#count - this.#frames); index < this.#count; index++) {
      const at = this.#ring + (index % this.#frames) * ENTRY_BYTES
      const length = i32[(at + 8) >> 2]
      const bytes = u8.slice(at + ENTRY_FRAME, at + ENTRY_FRAME + Math.min(length, KEPT_BYTES))
      entries.push({
        time: f64[at >> 3], direction: (['in', 'out', 'refused'] as const)[i32[(at + 12) >> 2]], length, bytes,
        summary: summariseFrame(bytes, 0, bytes.length),
      })
    }
    return entries
  }

  forget(): void {
    this.#count = 0
  }

  override receive(pool: PacketPool, descriptors: number, max: number): number {
    const count = this.inner.receive(pool, descriptors, max)
    if (count === 0) return 0
    const { i32 } = this.#arena
    const now = this.#clock.now()
    for (let i = 0; i < count; i++) {
      const d = descriptors + i * DESCRIPTOR_WORDS
      this.#remember(i32[d + Descriptor.frame], i32[d + Descriptor.length], PortDirection.in, now)
    }
    return count
  }

  override send(frame: number, length: number): boolean {
    const isSent = this.inner.send(frame, length)
    this.#remember(frame, length, isSent ? PortDirection.out : REFUSED, this.#clock.now())
    return isSent
  }

  override sendReserved(frame: number, length: number): boolean {
    const isSent = this.inner.sendReserved(frame, length)
    this.#remember(frame, length, isSent ? PortDirection.out : REFUSED, this.#clock.now())
    return isSent
  }

  #remember(frame: number, length: number, direction: number, now: TimeUs): void {
    const { f64, i32, u8 } = this.#arena
    if (this.#wanted !== null && !this.#wanted(u8, frame, length)) return
    const at = this.#ring + (this.#count++ % this.#frames) * ENTRY_BYTES
    f64[at >> 3] = now
    i32[(at + 8) >> 2] = length
    i32[(at + 12) >> 2] = direction
    u8.copyWithin(at + ENTRY_FRAME, frame, frame + (length < KEPT_BYTES ? length : KEPT_BYTES))
  }
}
