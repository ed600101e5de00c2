/**
 * Capture file port: plays a capture into the data plane, and writes what the data plane sends into another.
 *
 *     file ─▶ reader ─▶ staging ─(when due)─▶ receive        send ─▶ writer ─▶ file
 *
 * Reading is asynchronous, polling is not: between two turns of the event loop the port plays what lies in one of two staging
 * buffers in the arena, while the next chunk is read into the other. So a poll loop must let the event loop run now and then;
 * at most 256 KiB of capture are played in between.
 *
 * A packet is due at its own distance from the first one, divided by `speed`; timestamps that go back make it due at once. What is
 * written bears the time of sending.
 */

import { assert } from '../base/assert.ts'
import type { Clock, TimeUs } from '../base/clock.ts'
import { CodedError } from '../base/coded-error.ts'
import type { Arena } from '../memory/arena.ts'
import { Descriptor, DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import { FRAME_BYTES_MAX, SLOT_FRAME_OFFSET, type PacketPool } from '../packet/packet-pool.ts'
import { CAPTURED_LENGTH_MAX, type CaptureSink } from '../wire/capture-sink.ts'
import { LinkType } from '../wire/link-type.ts'
import { openCaptureReader, type CaptureEnding, type CaptureFileReader } from './capture-file-reader.ts'
import { CaptureFileWriter } from './capture-file-writer.ts'
import { DevicePort } from './device-port.ts'
import { SEGMENT_BYTES_OFFSET } from './link-port.ts'
import { systemClock } from './system-clock.ts'

export interface CaptureFilePortOptions {
  readonly arena: Arena
  readonly name?: string
  /** Capture to play, `-` for standard input. Without one nothing is received. */
  readonly input?: string
  /** Capture to write; its name says the format. Without one, what is sent is counted and forgotten. */
  readonly output?: string
  /** How many times faster than recorded; `Infinity`, the default: as fast as frames are taken. */
  readonly speed?: number
  /** Packets per second, evenly; in place of `speed`. */
  readonly packetsPerSecond?: number
  readonly clock?: Clock
}

/**
 * A staged packet, at a multiple of 8: time (double), length, wire length, link type, then the frame. PERF: the frame lies as far
 * from a multiple of 8 as in a slot, for V8 copies shared memory byte by byte between places that do not.
 */
const STAGED_LENGTH = 8
const STAGED_WIRE_LENGTH = 12
const STAGED_LINK_TYPE = 16
const STAGED_FRAME = 26
/** A chunk of 256 KiB and a packet begun before it, all as packets without bytes: 16 bytes each in the file, 32 here. */
const STAGING_BYTES = 2 * (256 * 1024 + CAPTURED_LENGTH_MAX + 64)
/** Frames that `send` takes at any time: a file has no end. */
const ROOM = 4096

/**
 * Opens the files; the input is read far enough to know that it is a capture.
 *
 * @throws CodedError `NF_CONFIG_INVALID` (speed, rate), `NF_USAGE` (name of the output), `NF_FILE_NOT_FOUND`,
 *   `NF_FILE_UNREADABLE`, `NF_FILE_UNWRITABLE`, `NF_CAPTURE_EMPTY`, `NF_CAPTURE_FORMAT`
 */
export async function openCaptureFilePort(options: CaptureFilePortOptions): Promise<CaptureFilePort> {
  const { input, output, speed = Infinity, packetsPerSecond } = options
  if (!(speed > 0)) {
    throw new CodedError('NF_CONFIG_INVALID', `a capture cannot be played at speed ${speed}`, 'Give a number above 0')
  }
  if (packetsPerSecond !== undefined && !(packetsPerSecond > 0)) {
    throw new CodedError('NF_CONFIG_INVALID', `a capture cannot be played at ${packetsPerSecond} packets per second`,
      'Give a number above 0')
  }
  const port = new CaptureFilePort(options, input === undefined ? undefined : await openCaptureReader(input))
  try {
    await port.started
    if (port.problem !== undefined) throw port.problem
    // Only now: a file that is there is not emptied for a capture that is none.
    if (output !== undefined) port.writeTo(new CaptureFileWriter(output, { inputs: input === undefined ? [] : [input] }))
  } catch (error) {
    await port.close()
    throw error
  }
  return port
}

/** Made by {@link openCaptureFilePort}; to be closed. */
export class CaptureFilePort extends DevicePort {
  readonly isPatient = true
  /** Settled once it is known that the input is a capture, or that it is none. */
  readonly started: Promise<void>
  /** How the capture ended, once it has been read to its end. */
  ending: CaptureEnding | undefined
  /** Why nothing more is read or written. */
  problem: Error | undefined
  readonly #arena: Arena
  readonly #clock: Clock
  readonly #speed: number
  readonly #intervalUs: number
  readonly #reader: CaptureFileReader | undefined
  #writer: CaptureFileWriter | undefined
  readonly #reading: Promise<void>
  /** The buffer that is played from: next packet and end; and the one that is filled: start and end. */
  #at = 0
  #end = 0
  #fillStart = 0
  #fillEnd = 0
  #spare = 0
  #isRead = false
  #resume: (() => void) | null = null
  /** When the first packet was played, and its own time. */
  #origin: TimeUs = -1
  #firstTime: TimeUs = 0

  constructor(options: CaptureFilePortOptions, reader: CaptureFileReader | undefined) {
    super(options.name ?? 'capture file')
    this.#arena = options.arena
    this.#clock = options.clock ?? systemClock
    this.#speed = options.speed ?? Infinity
    this.#intervalUs = options.packetsPerSecond === undefined ? 0 : 1e6 / options.packetsPerSecond
    this.#reader = reader
    let started = (): void => undefined
    this.started = new Promise((resolve) => { started = resolve })
    this.#reading = reader === undefined ? Promise.resolve() : this.#read(reader, started)
    if (reader === undefined) {
      this.#isRead = true
      started()
    }
  }

  /** What is sent from now on goes into this file, which becomes the port's. */
  writeTo(writer: CaptureFileWriter): void {
    writer.interfaceAdded(0, LinkType.Ethernet, 0, true)
    this.#writer = writer
  }

  /** True once the last packet of the capture has been played. */
  get isOver(): boolean {
    return this.#isRead && this.#at === this.#end && this.#fillEnd === this.#fillStart
  }

  /** Frames are written at once, there is no queue. */
  get room(): number {
    return this.problem === undefined ? ROOM : 0
  }

  receive(pool: PacketPool, descriptors: number, max: number): number {
    const { i32, u8, u16, f64 } = this.#arena
    if (this.#at === this.#end && !this.#turn()) return 0
    const now = this.#clock.now()
    const { statistics } = this
    let count = 0
    while (count < max && (this.#at !== this.#end || this.#turn())) {
      const at = this.#at
      const time = f64[at >> 3]
      if (this.#origin < 0) {
        this.#origin = now
        this.#firstTime = time
      }
      const afterUs = this.#intervalUs > 0 ? statistics.rxFrames * this.#intervalUs : (time - this.#firstTime) / this.#speed
      if (this.#origin + afterUs > now) break
      const length = i32[(at + STAGED_LENGTH) >> 2]
      const slot = pool.take(length)
      if (slot === 0) break
      const frame = slot + SLOT_FRAME_OFFSET
      const d = descriptors + count++ * DESCRIPTOR_WORDS
      u8.copyWithin(frame, at + STAGED_FRAME, at + STAGED_FRAME + length)
      u16[(frame + SEGMENT_BYTES_OFFSET) >> 1] = 0
      i32[d + Descriptor.frame] = frame
      i32[d + Descriptor.length] = length
      i32[d + Descriptor.wireLength] = i32[(at + STAGED_WIRE_LENGTH) >> 2]
      i32[d + Descriptor.slot] = slot
      i32[d + Descriptor.linkType] = i32[(at + STAGED_LINK_TYPE) >> 2]
      this.#at = (at + STAGED_FRAME + length + 7) & ~7
      this.countIn(1, length)
    }
    return count
  }

  send(frame: number, length: number): boolean {
    return this.countOut(this.problem === undefined && length <= this.frameBytesMax && this.#write(frame, length), length)
  }

  #write(frame: number, length: number): boolean {
    const writer = this.#writer
    if (writer === undefined) return true
    const now = this.#clock.now()
    const seconds = Math.floor(now / 1e6)
    try {
      writer.packet(this.#arena.u8, frame, length, length, seconds, Math.floor((now - seconds * 1e6) * 1000), 0)
    } catch (error) {
      this.problem = error as Error
      return false
    }
    return true
  }

  arm(): boolean {
    return this.isOver
  }

  /** Writes out what is buffered, so that others can read it. @throws CodedError `NF_FILE_UNWRITABLE` */
  writeOut(): void {
    this.#writer?.flush()
  }

  /** Gives both files back; may be called more than once. @throws CodedError `NF_FILE_UNWRITABLE` */
  override async close(): Promise<void> {
    this.#at = this.#end = this.#fillEnd = this.#fillStart = 0
    const resume = this.#resume
    this.#resume = null
    const closed = this.#reader?.close()
    resume?.()
    await closed
    await this.#reading
    this.#writer?.close()
  }

  /** Goes over to the buffer that has been filled; false if there is none yet. */
  #turn(): boolean {
    if (this.#fillEnd === this.#fillStart || (this.#resume === null && !this.#isRead)) return false
    this.#swap()
    const resume = this.#resume
    this.#resume = null
    resume?.()
    return true
  }

  #swap(): void {
    this.#at = this.#fillStart
    this.#end = this.#fillEnd
    this.#fillStart = this.#fillEnd = this.#spare
    this.#spare = this.#at
  }

  async #read(reader: CaptureFileReader, started: () => void): Promise<void> {
    this.#fillStart = this.#fillEnd = this.#arena.allocate('capture staging', STAGING_BYTES)
    this.#spare = this.#arena.allocate('capture staging', STAGING_BYTES)
    try {
      this.ending = await reader.readInto(this.#staging(started), () => {
        if (this.#fillEnd === this.#fillStart) return undefined
        if (this.#at === this.#end) return this.#swap()
        return new Promise<void>((resolve) => { this.#resume = resolve })
      })
    } catch (error) {
      this.problem = error as Error
    }
    this.#isRead = true
    started()
  }

  #staging(started: () => void): CaptureSink {
    const { i32, u8, f64 } = this.#arena
    const linkTypes: number[] = []
    return {
      interfaceAdded: (index, linkType) => {
        linkTypes[index] = linkType
        started()
      },
      packet: (bytes, offset, length, wireLength, seconds, nanoseconds, interfaceIndex) => {
        if (length > FRAME_BYTES_MAX) {
          this.statistics.rxOversize++
          return
        }
        const at = this.#fillEnd
        const end = (at + STAGED_FRAME + length + 7) & ~7
        assert(end - this.#fillStart <= STAGING_BYTES, 'a chunk of a capture fits its staging buffer')
        f64[at >> 3] = seconds * 1e6 + nanoseconds / 1000
        i32[(at + STAGED_LENGTH) >> 2] = length
        i32[(at + STAGED_WIRE_LENGTH) >> 2] = Math.max(length, wireLength)
        i32[(at + STAGED_LINK_TYPE) >> 2] = linkTypes[interfaceIndex] as number
        u8.set(bytes.subarray(offset, offset + length), at + STAGED_FRAME)
        this.#fillEnd = end
      },
    }
  }
}
