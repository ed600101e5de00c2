/**
 * The pcapng format (draft-ietf-opsawg-pcapng), read and written.
 *
 *     +0 block type    +4 length of the whole block    +8 body ...    end-4 the length again
 *
 *     section header   byte order of everything up to the next one; interfaces are numbered from 0 again
 *     interface        link type, snap length; options: resolution and offset of its timestamps
 *     enhanced packet  interface, 64-bit timestamp, both lengths, bytes      (the usual one)
 *     simple packet    original length, bytes; interface 0, no timestamp
 *     packet           the obsolete forerunner of the enhanced packet
 *     anything else    skipped: names, statistics, decryption secrets, custom and unknown blocks
 *
 * A timestamp counts units of 10^-n or 2^-n seconds. 64 bits do not fit into a double, so the division into seconds and
 * nanoseconds is done in two 32-bit halves, exactly; resolutions that are too fine even for that go through BigInt.
 * Whatever is finer than a nanosecond is cut off. A simple packet gets the time of the packet before it.
 *
 * A block that is of interest must fit into a bounded buffer; a block that is skipped may be of any length.
 */

import { assert } from '../base/assert.ts'
import { CaptureDecoder } from './capture-decoder.ts'
import { CaptureOutput } from './capture-output.ts'
import type { ByteOutput } from './capture-output.ts'
import { CAPTURED_LENGTH_MAX } from './capture-sink.ts'
import type { CaptureSink } from './capture-sink.ts'

const BLOCK_SECTION_HEADER = 0x0a0d0d0a
const BLOCK_INTERFACE = 1
const BLOCK_PACKET = 2
const BLOCK_SIMPLE_PACKET = 3
const BLOCK_ENHANCED_PACKET = 6

const BYTE_ORDER_MAGIC = 0x1a2b3c4d
const BYTE_ORDER_MAGIC_SWAPPED = 0x4d3c2b1a

/** Type, length, length again. */
const BLOCK_OVERHEAD = 12
const SECTION_HEADER_LENGTH = 28
const INTERFACE_LENGTH = 20
const SIMPLE_PACKET_LENGTH = 16
const PACKET_LENGTH = 32
const PACKET_DATA_OFFSET = 28
const SIMPLE_PACKET_DATA_OFFSET = 12

const OPTION_END = 0
const OPTION_COMMENT = 1
const OPTION_INTERFACE_NAME = 2
const OPTION_PACKET_FLAGS = 2
const OPTION_TIMESTAMP_RESOLUTION = 9
const OPTION_TIMESTAMP_OFFSET = 14

/** A packet of the longest kind, and as much again for its options. */
const BLOCK_LENGTH_MAX = 2 * CAPTURED_LENGTH_MAX
/** Interfaces in a whole file. */
const INTERFACES_MAX = 65_536

const TWO_TO_32 = 4_294_967_296

/** How the timestamps of an interface become seconds and nanoseconds. */
const TimeUnit = { Decimal: 0, Binary: 1, Finer: 2 } as const

/** True if the number, read in either byte order, starts a pcapng file. */
export function isPcapngMagic(magic: number): boolean {
  return magic === BLOCK_SECTION_HEADER
}

/** An interface of the current section. */
class Interface {
  snapLength = 0
  /** One of {@link TimeUnit}. */
  unit: number = TimeUnit.Decimal
  /** The resolution is 10^-exponent or 2^-exponent seconds. */
  exponent = 6
  isBinary = false
  ticksPerSecond = 1e6
  nanosecondsPerTick = 1000
  offsetSeconds = 0

  /** @param resolution as in the option if_tsresol: an exponent of ten, or of two if the top bit is set */
  setResolution(resolution: number): void {
    this.exponent = resolution & 0x7f
    this.isBinary = resolution > 0x7f
    if (this.isBinary) {
      // With up to 32 bits of fraction all products below stay under 2^53.
      this.unit = this.exponent <= 32 ? TimeUnit.Binary : TimeUnit.Finer
    } else {
      this.unit = this.exponent <= 9 ? TimeUnit.Decimal : TimeUnit.Finer
    }
    this.ticksPerSecond = (this.isBinary ? 2 : 10) ** this.exponent
    this.nanosecondsPerTick = 1e9 / this.ticksPerSecond
  }

  get isFinerThanMicrosecond(): boolean {
    return this.ticksPerSecond > 1e6
  }
}

/** Takes packets out of a pcapng stream; see `CaptureParser`, which drives it. */
export class PcapngDecoder extends CaptureDecoder {
  readonly format = 'pcapng'
  readonly #sink: CaptureSink
  #littleEndian = true
  #interfaces: Interface[] = []
  /** Interfaces of the sections before this one. */
  #interfaceBase = 0
  /** Bytes of a block that are still to be passed over, its last length field not among them. */
  #skipLength = 0
  /** That field's right value; 0 if no block is being skipped. */
  #skippedBlockLength = 0
  #seconds = 0
  #nanoseconds = 0

  constructor(sink: CaptureSink) {
    super()
    this.#sink = sink
  }

  decode(bytes: Uint8Array, view: DataView, start: number, end: number, base: number): number {
    let at = start
    for (;;) {
      if (this.#skippedBlockLength > 0) {
        at = this.#skip(view, at, end, base)
        if (this.#skippedBlockLength > 0 || this.fault !== '') return at
      }
      this.need = BLOCK_OVERHEAD
      this.recordPosition = base + at
      if (end - at < BLOCK_OVERHEAD) return at
      const type = view.getUint32(at, this.#littleEndian)
      if (type === BLOCK_SECTION_HEADER && !this.#readByteOrder(view, at, base)) return at
      const little = this.#littleEndian
      const length = view.getUint32(at + 4, little)
      if (length < BLOCK_OVERHEAD || (length & 3) !== 0) {
        this.fail(base + at + 4, `a block claims a length of ${length}`)
        return at
      }
      const lengthMin = blockLengthMin(type)
      if (lengthMin === 0) {
        this.#skipLength = length - 4
        this.#skippedBlockLength = length
        this.insideRecord = true
        continue
      }
      if (length < lengthMin || length > BLOCK_LENGTH_MAX) {
        this.fail(base + at + 4, `a block of type ${type} claims a length of ${length}`)
        return at
      }
      if (length > end - at) {
        this.need = length
        return at
      }
      if (view.getUint32(at + length - 4, little) !== length) {
        this.fail(base + at + length - 4, 'the two lengths of a block differ')
        return at
      }
      switch (type) {
        case BLOCK_ENHANCED_PACKET:
          this.#packet(bytes, view, at, length, base, view.getUint32(at + 8, little))
          break
        case BLOCK_PACKET:
          this.#packet(bytes, view, at, length, base, view.getUint16(at + 8, little))
          break
        case BLOCK_SIMPLE_PACKET:
          this.#simplePacket(bytes, view, at, length, base)
          break
        case BLOCK_INTERFACE:
          this.#interface(view, at, length, base)
          break
        default:
          this.#section(view, at, base)
      }
      if (this.fault !== '') return at
      at += length
    }
  }

  /** Passes over what there is of a block that is of no interest, and checks its last field. */
  #skip(view: DataView, start: number, end: number, base: number): number {
    const passed = Math.min(this.#skipLength, end - start)
    const at = start + passed
    this.#skipLength -= passed
    this.need = this.#skipLength > 0 ? 1 : 4
    if (this.#skipLength > 0 || end - at < 4) return at
    if (view.getUint32(at, this.#littleEndian) !== this.#skippedBlockLength) {
      this.fail(base + at, 'the two lengths of a block differ')
    }
    this.#skippedBlockLength = 0
    this.insideRecord = false
    return at + 4
  }

  /** The byte order must be known before even the length of a section header can be read. */
  #readByteOrder(view: DataView, at: number, base: number): boolean {
    const magic = view.getUint32(at + 8, true)
    if (magic !== BYTE_ORDER_MAGIC && magic !== BYTE_ORDER_MAGIC_SWAPPED) {
      this.fail(base + at + 8, 'a section header has no byte order mark')
      return false
    }
    this.#littleEndian = magic === BYTE_ORDER_MAGIC
    return true
  }

  #section(view: DataView, at: number, base: number): void {
    const major = view.getUint16(at + 12, this.#littleEndian)
    const minor = view.getUint16(at + 14, this.#littleEndian)
    // Minor version 2 means the same as 0 (draft-ietf-opsawg-pcapng §4.1).
    if (major !== 1 || (minor !== 0 && minor !== 2)) {
      this.fail(base + at + 12, `pcapng version ${major}.${minor} is not known`)
      return
    }
    this.headerAccepted = true
    this.#interfaceBase += this.#interfaces.length
    this.#interfaces = []
  }

  #interface(view: DataView, at: number, length: number, base: number): void {
    const little = this.#littleEndian
    const index = this.#interfaceBase + this.#interfaces.length
    if (index >= INTERFACES_MAX) {
      this.fail(base + at, `more than ${INTERFACES_MAX} interfaces`)
      return
    }
    const added = new Interface()
    added.snapLength = view.getUint32(at + 12, little)
    const end = at + length - 4
    for (let option = at + 16; option + 4 <= end;) {
      const code = view.getUint16(option, little)
      const valueLength = view.getUint16(option + 2, little)
      if (code === OPTION_END) break
      if (valueLength > end - option - 4) {
        this.fail(base + option + 2, 'an option of an interface is longer than its block')
        return
      }
      if (code === OPTION_TIMESTAMP_RESOLUTION && valueLength === 1) added.setResolution(view.getUint8(option + 4))
      if (code === OPTION_TIMESTAMP_OFFSET && valueLength === 8) {
        const high = view.getInt32(option + (little ? 8 : 4), little)
        const low = view.getUint32(option + (little ? 4 : 8), little)
        added.offsetSeconds = high * TWO_TO_32 + low
      }
      option += 4 + ((valueLength + 3) & ~3)
    }
    this.#interfaces.push(added)
    this.#sink.interfaceAdded?.(index, view.getUint16(at + 8, little), added.snapLength, added.isFinerThanMicrosecond)
  }

  /** An enhanced packet and its obsolete forerunner differ only in how they name the interface. */
  #packet(bytes: Uint8Array, view: DataView, at: number, length: number, base: number, index: number): void {
    const little = this.#littleEndian
    const capturedLength = view.getUint32(at + 20, little)
    const seen = this.#interfaces[index]
    if (seen === undefined) {
      this.fail(base + at + 8, `a packet names interface ${index}, which is not described`)
      return
    }
    if (capturedLength > length - PACKET_LENGTH || capturedLength > CAPTURED_LENGTH_MAX) {
      this.fail(base + at + 20, `a packet claims ${capturedLength} captured bytes`)
      return
    }
    this.#setTime(seen, view.getUint32(at + 12, little), view.getUint32(at + 16, little))
    this.#sink.packet(
      bytes, at + PACKET_DATA_OFFSET, capturedLength, view.getUint32(at + 24, little),
      this.#seconds, this.#nanoseconds, this.#interfaceBase + index,
    )
  }

  #simplePacket(bytes: Uint8Array, view: DataView, at: number, length: number, base: number): void {
    const originalLength = view.getUint32(at + 8, this.#littleEndian)
    const first = this.#interfaces[0]
    if (first === undefined) {
      this.fail(base + at, 'a packet comes before its interface is described')
      return
    }
    const snapLength = first.snapLength === 0 ? CAPTURED_LENGTH_MAX : first.snapLength
    // The captured length is not written down (draft-ietf-opsawg-pcapng §4.4); up to three bytes are padding.
    const capturedLength = Math.min(originalLength, snapLength, length - SIMPLE_PACKET_LENGTH, CAPTURED_LENGTH_MAX)
    this.#sink.packet(
      bytes, at + SIMPLE_PACKET_DATA_OFFSET, capturedLength, originalLength,
      this.#seconds, this.#nanoseconds, this.#interfaceBase,
    )
  }

  #setTime(seen: Interface, high: number, low: number): void {
    let seconds = 0
    let nanoseconds = 0
    if (seen.unit === TimeUnit.Decimal) {
      const ticksPerSecond = seen.ticksPerSecond
      let ticks: number
      if (high < 0x200000) { // all 64 bits fit into a double: microseconds until the year 2255
        const all = high * TWO_TO_32 + low
        seconds = Math.floor(all / ticksPerSecond)
        ticks = all - seconds * ticksPerSecond
      } else { // long division, 16 bits at a time: a remainder is below 2^30, so no step exceeds 2^46
        const first = Math.floor(high / ticksPerSecond)
        const upper = (high - first * ticksPerSecond) * 65536 + (low >>> 16)
        const second = Math.floor(upper / ticksPerSecond)
        const lower = (upper - second * ticksPerSecond) * 65536 + (low & 0xffff)
        const third = Math.floor(lower / ticksPerSecond)
        ticks = lower - third * ticksPerSecond
        seconds = first * TWO_TO_32 + second * 65536 + third
      }
      nanoseconds = ticks * seen.nanosecondsPerTick
    } else if (seen.unit === TimeUnit.Binary) {
      const ticksPerSecond = seen.ticksPerSecond
      const second = Math.floor(low / ticksPerSecond)
      seconds = high * (TWO_TO_32 / ticksPerSecond) + second
      // 10^9 / 2^n = 5^9 / 2^(n-9): the product stays below 2^53, and dividing by a power of two is exact.
      nanoseconds = Math.floor((low - second * ticksPerSecond) * 1_953_125 / (ticksPerSecond / 512))
    } else {
      const ticks = (BigInt(high) << 32n) | BigInt(low)
      const ticksPerSecond = (seen.isBinary ? 2n : 10n) ** BigInt(seen.exponent)
      seconds = Number(ticks / ticksPerSecond)
      nanoseconds = Number(ticks % ticksPerSecond * 1_000_000_000n / ticksPerSecond)
    }
    this.#seconds = seconds + seen.offsetSeconds
    this.#nanoseconds = nanoseconds
  }
}

/** The shortest length of a block that is of interest; 0 for one that is skipped. */
function blockLengthMin(type: number): number {
  switch (type) {
    case BLOCK_ENHANCED_PACKET:
    case BLOCK_PACKET:
      return PACKET_LENGTH
    case BLOCK_SIMPLE_PACKET:
      return SIMPLE_PACKET_LENGTH
    case BLOCK_INTERFACE:
      return INTERFACE_LENGTH
    case BLOCK_SECTION_HEADER:
      return SECTION_HEADER_LENGTH
    default:
      return 0
  }
}

const encoder = new TextEncoder()

/** Bytes of an option that is a text; none for an empty one. */
function textOptionBytes(text: string): number {
  return text === '' ? 0 : 4 + ((encoder.encode(text).length + 3) & ~3)
}

/** What a {@link PcapngWriter} can say of a packet besides its bytes. */
export interface PacketNotes {
  /** It was sent by the interface, not received. */
  readonly isOut: boolean
  readonly comment?: string
}

/** How a {@link PcapngWriter} lays out its file. */
export interface PcapngWriterOptions {
  /** Byte order of the file; little by default. */
  readonly littleEndian?: boolean
}

/** With nanoseconds a timestamp's 64 bits last this long. */
const SECONDS_MAX = 18_000_000_000

/**
 * Writes a pcapng file: one section, an interface block per announced interface, an enhanced packet block per packet.
 * Nanoseconds are kept for interfaces that have them, microseconds for the others.
 */
export class PcapngWriter implements CaptureSink {
  readonly #output: CaptureOutput
  readonly #littleEndian: boolean
  readonly #ticksPerSecond: number[] = []

  constructor(output: ByteOutput, options: PcapngWriterOptions = {}) {
    this.#output = new CaptureOutput(output)
    this.#littleEndian = options.littleEndian ?? true
    const at = this.#startBlock(BLOCK_SECTION_HEADER, SECTION_HEADER_LENGTH)
    const view = this.#output.view
    view.setUint32(at + 8, BYTE_ORDER_MAGIC, this.#littleEndian)
    view.setUint16(at + 12, 1, this.#littleEndian)
    view.setUint16(at + 14, 0, this.#littleEndian)
    view.setInt32(at + 16, -1, this.#littleEndian) // the section's length is not known
    view.setInt32(at + 20, -1, this.#littleEndian)
    this.#output.recordDone()
  }

  /** @param name of the interface; none is written when it is empty */
  interfaceAdded(index: number, linkType: number, snapLength: number, nanosecondResolution: boolean, name = ''): void {
    assert(index === this.#ticksPerSecond.length, 'capture interfaces must be announced in order')
    const little = this.#littleEndian
    const named = textOptionBytes(name)
    const resolution = nanosecondResolution ? 8 : 0
    const end = named + resolution > 0 ? 4 : 0
    const at = this.#startBlock(BLOCK_INTERFACE, INTERFACE_LENGTH + resolution + named + end)
    const view = this.#output.view
    view.setUint16(at + 8, linkType, little)
    view.setUint16(at + 10, 0, little)
    view.setUint32(at + 12, snapLength, little)
    if (nanosecondResolution) {
      view.setUint16(at + 16, OPTION_TIMESTAMP_RESOLUTION, little)
      view.setUint16(at + 18, 1, little)
      view.setUint32(at + 20, 9 << 24, false) // the value's byte, then three of padding
    }
    if (named > 0) this.#textOption(at + 16 + resolution, OPTION_INTERFACE_NAME, name)
    if (end > 0) view.setUint32(at + 16 + resolution + named, OPTION_END, little)
    this.#output.recordDone()
    this.#ticksPerSecond.push(nanosecondResolution ? 1e9 : 1e6)
  }

  packet(
    bytes: Uint8Array, offset: number, capturedLength: number, originalLength: number,
    seconds: number, nanoseconds: number, interfaceIndex: number, notes?: PacketNotes,
  ): void {
    const ticksPerSecond = this.#ticksPerSecond[interfaceIndex]
    assert(ticksPerSecond !== undefined, 'a captured packet names an interface that was not announced')
    assert(capturedLength <= CAPTURED_LENGTH_MAX, 'a captured packet is too long to be written')
    const little = this.#littleEndian
    const paddedLength = (capturedLength + 3) & ~3
    const comment = notes?.comment ?? ''
    const options = notes === undefined ? 0 : 8 + textOptionBytes(comment) + 4
    const at = this.#startBlock(BLOCK_ENHANCED_PACKET, PACKET_LENGTH + paddedLength + options)
    const view = this.#output.view
    // seconds * ticksPerSecond + ticks in 64 bits: 16 bits of the seconds at a time, no product exceeds 2^53.
    const whole = seconds > 0 ? Math.min(seconds, SECONDS_MAX) : 0
    const ticks = ticksPerSecond === 1e9 ? nanoseconds : Math.floor(nanoseconds / 1000)
    const upperSeconds = Math.floor(whole / 65536)
    const upper = upperSeconds * ticksPerSecond
    const lower = (whole - upperSeconds * 65536) * ticksPerSecond + ticks
    const upperHigh = Math.floor(upper / 65536)
    const low = (upper - upperHigh * 65536) * 65536 + lower
    const lowHigh = Math.floor(low / TWO_TO_32)
    view.setUint32(at + 8, interfaceIndex, little)
    view.setUint32(at + 12, upperHigh + lowHigh, little)
    view.setUint32(at + 16, low - lowHigh * TWO_TO_32, little)
    view.setUint32(at + 20, capturedLength, little)
    view.setUint32(at + 24, originalLength, little)
    if (paddedLength !== capturedLength) view.setUint32(at + PACKET_DATA_OFFSET + paddedLength - 4, 0, little)
    this.#output.copy(bytes, offset, at + PACKET_DATA_OFFSET, capturedLength)
    if (notes !== undefined) {
      const option = at + PACKET_DATA_OFFSET + paddedLength
      view.setUint16(option, OPTION_PACKET_FLAGS, little)
      view.setUint16(option + 2, 4, little)
      view.setUint32(option + 4, notes.isOut ? 2 : 1, little)
      if (comment !== '') this.#textOption(option + 8, OPTION_COMMENT, comment)
      view.setUint32(option + options - 4, OPTION_END, little)
    }
    this.#output.recordDone()
  }

  #textOption(at: number, code: number, text: string): void {
    const { view } = this.#output
    const bytes = encoder.encode(text)
    view.setUint16(at, code, this.#littleEndian)
    view.setUint16(at + 2, bytes.length, this.#littleEndian)
    for (let i = 0; i < (bytes.length + 3 & ~3); i++) view.setUint8(at + 4 + i, bytes[i] ?? 0)
  }

  /** Hands everything written so far to the output, the section header included. */
  flush(): void {
    this.#output.flush()
  }

  /** Reserves a block and fills in its type and both its lengths. */
  #startBlock(type: number, length: number): number {
    const at = this.#output.reserve(length)
    const view = this.#output.view
    view.setUint32(at, type, this.#littleEndian)
    view.setUint32(at + 4, length, this.#littleEndian)
    view.setUint32(at + length - 4, length, this.#littleEndian)
    return at
  }
}
