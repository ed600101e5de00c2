/**
 * The pcap format (draft-ietf-opsawg-pcap), read and written.
 *
 *     file header, 24 bytes                            record header, 16 bytes (24 in the "modified" kind)
 *      0 magic: byte order, resolution, kind            0 seconds
 *      4 version major (2 bytes), minor (2 bytes)       4 microseconds or nanoseconds
 *      8 two unused fields                              8 captured length
 *     16 snap length                                   12 original length
 *     20 link type (low 16 bits), FCS length (high)    16 modified kind: interface, protocol, packet type
 *
 * All fields have the byte order of the machine that wrote the file; the magic number tells which. Files older than
 * version 2.4 may have the two lengths the other way round, so there the smaller one is the captured length.
 */

import { assert } from '../base/assert.ts'
import { CodedError } from '../base/coded-error.ts'
import { CaptureDecoder } from './capture-decoder.ts'
import { CaptureOutput } from './capture-output.ts'
import type { ByteOutput } from './capture-output.ts'
import { CAPTURED_LENGTH_MAX } from './capture-sink.ts'
import type { CaptureSink } from './capture-sink.ts'
import { LinkType, linkTypeName } from './link-type.ts'

const MAGIC_MICROSECONDS = 0xa1b2c3d4
const MAGIC_NANOSECONDS = 0xa1b23c4d
/** Written by the patched libpcap of some Linux distributions around the year 2000. */
const MAGIC_MODIFIED = 0xa1b2cd34

const FILE_HEADER_LENGTH = 24
const RECORD_HEADER_LENGTH = 16
const MODIFIED_RECORD_HEADER_LENGTH = 24
const VERSION_MAJOR = 2
const VERSION_MINOR = 4

/** True if the number, read in either byte order, starts a pcap file. */
export function isPcapMagic(magic: number): boolean {
  return isPlainMagic(magic) || isPlainMagic(swap32(magic))
}

function isPlainMagic(magic: number): boolean {
  return magic === MAGIC_MICROSECONDS || magic === MAGIC_NANOSECONDS || magic === MAGIC_MODIFIED
}

function swap32(n: number): number {
  return ((n >>> 24) | ((n >>> 8) & 0xff00) | ((n << 8) & 0xff0000) | (n << 24)) >>> 0
}

/** Takes packets out of a pcap stream; see `CaptureParser`, which drives it. */
export class PcapDecoder extends CaptureDecoder {
  readonly format = 'pcap'
  readonly #sink: CaptureSink
  #littleEndian = true
  #ticksPerSecond = 1e6
  #nanosecondsPerTick = 1000
  #recordHeaderLength = RECORD_HEADER_LENGTH
  #lengthsMayBeSwapped = false

  constructor(sink: CaptureSink) {
    super()
    this.#sink = sink
  }

  decode(bytes: Uint8Array, view: DataView, start: number, end: number, base: number): number {
    let at = start
    if (!this.headerAccepted) {
      this.recordPosition = base + at
      this.need = FILE_HEADER_LENGTH
      if (end - at < FILE_HEADER_LENGTH || !this.#acceptHeader(view, at, base)) return at
      at += FILE_HEADER_LENGTH
    }
    const sink = this.#sink
    const little = this.#littleEndian
    const ticksPerSecond = this.#ticksPerSecond
    const nanosecondsPerTick = this.#nanosecondsPerTick
    const headerLength = this.#recordHeaderLength
    const lengthsMayBeSwapped = this.#lengthsMayBeSwapped
    while (end - at >= headerLength) {
      let seconds = view.getUint32(at, little)
      let ticks = view.getUint32(at + 4, little)
      let capturedLength = view.getUint32(at + 8, little)
      let originalLength = view.getUint32(at + 12, little)
      if (lengthsMayBeSwapped && capturedLength > originalLength) {
        const length = capturedLength
        capturedLength = originalLength
        originalLength = length
      }
      if (capturedLength > CAPTURED_LENGTH_MAX) {
        this.fail(base + at + 8, `a packet claims ${capturedLength} captured bytes`)
        return at
      }
      const data = at + headerLength
      if (capturedLength > end - data) {
        this.need = headerLength + capturedLength
        this.recordPosition = base + at
        return at
      }
      if (ticks >= ticksPerSecond) {
        const excess = Math.floor(ticks / ticksPerSecond)
        seconds += excess
        ticks -= excess * ticksPerSecond
      }
      sink.packet(bytes, data, capturedLength, originalLength, seconds, ticks * nanosecondsPerTick, 0)
      at = data + capturedLength
    }
    this.need = headerLength
    this.recordPosition = base + at
    return at
  }

  #acceptHeader(view: DataView, at: number, base: number): boolean {
    const little = isPlainMagic(view.getUint32(at, true))
    const magic = view.getUint32(at, little)
    const major = view.getUint16(at + 4, little)
    const minor = view.getUint16(at + 6, little)
    const snapLength = view.getUint32(at + 16, little)
    const linkType = view.getUint32(at + 20, little) & 0xffff
    if (major !== VERSION_MAJOR) {
      this.fail(base + at + 4, `pcap version ${major}.${minor} is not known`)
      return false
    }
    this.#littleEndian = little
    this.#ticksPerSecond = magic === MAGIC_NANOSECONDS ? 1e9 : 1e6
    this.#nanosecondsPerTick = magic === MAGIC_NANOSECONDS ? 1 : 1000
    this.#recordHeaderLength = magic === MAGIC_MODIFIED ? MODIFIED_RECORD_HEADER_LENGTH : RECORD_HEADER_LENGTH
    this.#lengthsMayBeSwapped = minor < VERSION_MINOR
    this.headerAccepted = true
    this.#sink.interfaceAdded?.(0, linkType, snapLength, magic === MAGIC_NANOSECONDS)
    return true
  }
}

/** How a {@link PcapWriter} lays out its file. */
export interface PcapWriterOptions {
  /** Byte order of the file; little by default. */
  readonly littleEndian?: boolean
}

/**
 * Writes a pcap file. The format holds one link type and one resolution for all packets: the link type of the first
 * packet's interface, and nanoseconds if any interface announced before it has them.
 *
 * A packet of another link type throws `NF_CAPTURE_LINK_TYPE`; what was written before it is intact.
 */
export class PcapWriter implements CaptureSink {
  readonly #output: CaptureOutput
  readonly #littleEndian: boolean
  readonly #linkTypes: number[] = []
  #snapLength = 0
  #linkType = -1
  #nanoseconds = false

  constructor(output: ByteOutput, options: PcapWriterOptions = {}) {
    this.#output = new CaptureOutput(output)
    this.#littleEndian = options.littleEndian ?? true
  }

  interfaceAdded(index: number, linkType: number, snapLength: number, nanosecondResolution: boolean): void {
    assert(index === this.#linkTypes.length, 'capture interfaces must be announced in order')
    this.#linkTypes.push(linkType)
    if (this.#linkType >= 0) return
    this.#nanoseconds ||= nanosecondResolution
    // No limit outweighs every limit.
    if (index === 0) this.#snapLength = snapLength
    else if (snapLength === 0 || this.#snapLength === 0) this.#snapLength = 0
    else this.#snapLength = Math.max(this.#snapLength, snapLength)
  }

  packet(
    bytes: Uint8Array, offset: number, capturedLength: number, originalLength: number,
    seconds: number, nanoseconds: number, interfaceIndex: number,
  ): void {
    const linkType = this.#linkTypes[interfaceIndex]
    assert(linkType !== undefined, 'a captured packet names an interface that was not announced')
    assert(capturedLength <= CAPTURED_LENGTH_MAX, 'a captured packet is too long to be written')
    if (linkType !== this.#linkType) this.#startWith(linkType)
    const output = this.#output
    const little = this.#littleEndian
    const at = output.reserve(RECORD_HEADER_LENGTH + capturedLength)
    const view = output.view
    view.setUint32(at, seconds, little)
    view.setUint32(at + 4, this.#nanoseconds ? nanoseconds : Math.floor(nanoseconds / 1000), little)
    view.setUint32(at + 8, capturedLength, little)
    view.setUint32(at + 12, originalLength, little)
    output.copy(bytes, offset, at + RECORD_HEADER_LENGTH, capturedLength)
    output.recordDone()
  }

  /** Hands everything written so far to the output, the file header included. */
  flush(): void {
    if (this.#linkType < 0) this.#startWith(this.#linkTypes[0] ?? LinkType.Ethernet)
    this.#output.flush()
  }

  #startWith(linkType: number): void {
    if (this.#linkType >= 0) {
      throw new CodedError('NF_CAPTURE_LINK_TYPE',
        `A pcap file holds one link type: ${linkTypeName(linkType)} cannot follow ${linkTypeName(this.#linkType)}`,
        'Write to a file that ends in .pcapng')
    }
    this.#linkType = linkType
    const little = this.#littleEndian
    const at = this.#output.reserve(FILE_HEADER_LENGTH)
    const view = this.#output.view
    view.setUint32(at, this.#nanoseconds ? MAGIC_NANOSECONDS : MAGIC_MICROSECONDS, little)
    view.setUint16(at + 4, VERSION_MAJOR, little)
    view.setUint16(at + 6, VERSION_MINOR, little)
    view.setUint32(at + 8, 0, little)
    view.setUint32(at + 12, 0, little)
    view.setUint32(at + 16, this.#snapLength === 0 ? 262_144 : this.#snapLength, little)
    view.setUint32(at + 20, linkType, little)
    this.#output.recordDone()
  }
}
