/**
 * Capture port: writes every (Ethernet) frame that passes a port into a capture file, up to a bound, for any tool that reads captures. Frames
 * that come in are of the capture's first interface, those that go out of its second.
 *
 * Traffic goes on whatever happens to the file: if it cannot be written any more, or the bound is reached, the capture ends.
 */

import type { Clock, TimeUs } from '../base/clock.ts'
import { CodedError } from '../base/coded-error.ts'
import type { Arena } from '../memory/arena.ts'
import { Descriptor, DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import type { PacketPool } from '../packet/packet-pool.ts'
import { LinkType } from '../wire/link-type.ts'
import { CaptureFileWriter } from './capture-file-writer.ts'
import { compileFlowFilter, type FlowFilter, type FramePredicate } from './frame-summary.ts'
import { systemClock } from './system-clock.ts'
import { PortDirection, WrapperPort, type InnerPort } from './wrapper-port.ts'

/** What is buffered reaches the file after this time, if the port is maintained. */
const FLUSH_US = 1e6

export interface CapturePortOptions<P extends InnerPort> {
  readonly arena: Arena
  readonly inner: P
  /** The file; its name says the format. */
  readonly path: string
  /** The capture ends after so many frames, or before the one that would make it longer than so many bytes of frames. */
  readonly framesMax?: number
  readonly bytesMax?: number
  /** Bytes kept of each frame; all unless told. */
  readonly snapBytes?: number
  /** Only these. */
  readonly filter?: FlowFilter
  readonly clock?: Clock
}

export class CapturePort<P extends InnerPort = InnerPort> extends WrapperPort<P> {
  /** Frames and bytes of frames that have been written. */
  frames = 0
  bytes = 0
  /** Why the capture ended early, if it did: the file. */
  problem: CodedError | undefined
  readonly #arena: Arena
  readonly #clock: Clock
  readonly #writer: CaptureFileWriter
  readonly #wanted: FramePredicate | null
  readonly #framesMax: number
  readonly #bytesMax: number
  readonly #snapBytes: number
  #isOver = false
  #flushAt: TimeUs = 0

  /** @throws CodedError `NF_CONFIG_INVALID` (bounds, filter), `NF_USAGE` (name of the file), `NF_FILE_UNWRITABLE` */
  constructor(options: CapturePortOptions<P>) {
    super(options.inner)
    const { arena, path, framesMax = 1e9, bytesMax = 1e9, snapBytes = 262_144, filter, clock = systemClock } = options
    for (const [what, bound] of [['frames', framesMax], ['bytes', bytesMax], ['bytes of a frame', snapBytes]] as const) {
      if (!(bound >= 1)) {
        throw new CodedError('NF_CONFIG_INVALID', `capture port: ${bound} ${what} cannot be captured`, 'Give at least 1')
      }
    }
    this.#arena = arena
    this.#clock = clock
    this.#framesMax = framesMax
    this.#bytesMax = bytesMax
    this.#snapBytes = snapBytes
    this.#wanted = filter === undefined ? null : compileFlowFilter(filter)
    this.#writer = new CaptureFileWriter(path)
    for (const direction of [PortDirection.in, PortDirection.out]) {
      this.#writer.interfaceAdded(direction, LinkType.Ethernet, snapBytes, true)
    }
  }

  /** True when nothing more is written: the bound is reached, the file has failed, or the capture has been ended. */
  get isOver(): boolean {
    return this.#isOver
  }

  override receive(pool: PacketPool, descriptors: number, max: number): number {
    const count = this.inner.receive(pool, descriptors, max)
    if (count === 0 || this.#isOver) return count
    const { i32 } = this.#arena
    const now = this.#clock.now()
    for (let i = 0; i < count; i++) {
      const d = descriptors + i * DESCRIPTOR_WORDS
      if (i32[d + Descriptor.linkType] !== LinkType.Ethernet) continue
      this.#write(i32[d + Descriptor.frame], i32[d + Descriptor.length], PortDirection.in, now)
    }
    return count
  }

  override send(frame: number, length: number): boolean {
    const isSent = this.inner.send(frame, length)
    if (isSent && !this.#isOver) this.#write(frame, length, PortDirection.out, this.#clock.now())
    return isSent
  }

  override sendReserved(frame: number, length: number): boolean {
    const isSent = this.inner.sendReserved(frame, length)
    if (isSent && !this.#isOver) this.#write(frame, length, PortDirection.out, this.#clock.now())
    return isSent
  }

  override maintain(now: TimeUs): void {
    super.maintain(now)
    if (this.#isOver || now < this.#flushAt) return
    this.#flushAt = now + FLUSH_US
    this.#guard(() => { this.#writer.flush() })
  }

  /** Ends the capture: the file is whole, traffic goes on. May be called more than once; what fails is in `problem`. */
  endCapture(): void {
    this.#isOver = true
    this.#guard(() => { this.#writer.close() })
  }

  /** Ends the capture and closes the inner port. */
  override close(): void {
    this.endCapture()
    super.close()
  }

  #write(frame: number, length: number, direction: number, now: TimeUs): void {
    const { u8 } = this.#arena
    if (this.#isOver || (this.#wanted !== null && !this.#wanted(u8, frame, length))) return
    const kept = Math.min(length, this.#snapBytes)
    if (this.bytes + kept > this.#bytesMax) {
      this.endCapture()
      return
    }
    const seconds = Math.floor(now / 1e6)
    const nanoseconds = Math.floor((now - seconds * 1e6) * 1000)
    try {
      this.#writer.packet(u8, frame, kept, length, seconds, nanoseconds, direction)
    } catch (error) {
      this.#fail(error)
      return
    }
    this.bytes += kept
    if (++this.frames >= this.#framesMax) this.endCapture()
  }

  #guard(act: () => void): void {
    try {
      act()
    } catch (error) {
      this.#fail(error)
    }
  }

  #fail(error: unknown): void {
    if (!(error instanceof CodedError)) throw error
    this.problem ??= error
    this.#isOver = true
  }
}
