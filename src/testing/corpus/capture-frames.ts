/**
 * Capture files as lists of frames, for the harness alone.
 *
 * This reader and writer know nothing of the engine's own: a fault in those must not hide itself from the tests that
 * hold the engine against other tools. They favour plainness over speed and read a whole file at once. Formats: pcap
 * of either byte order with micro- or nanoseconds, pcapng (section header, interface description, enhanced and simple
 * packet blocks), each also gzipped.
 */

import { gunzipSync } from 'node:zlib'

/** One captured frame. */
export interface CapturedFrame {
  /** Microseconds since the Unix epoch. */
  readonly timeUs: number
  readonly bytes: Uint8Array
  /** Length on the wire; more than `bytes` when the capture was cut by a snap length. */
  readonly wireLength: number
  /** What `bytes` begins with: the link type's number in capture files. */
  readonly linkType: number
}

const PCAP_HEADER_LENGTH = 24
const PCAP_RECORD_HEADER_LENGTH = 16
const BLOCK_SECTION = 0x0a0d0d0a
const BLOCK_INTERFACE = 1
const BLOCK_SIMPLE = 3
const BLOCK_ENHANCED = 6
const OPTION_END = 0
const OPTION_TIME_RESOLUTION = 9
const SNAP_LENGTH = 262144

/** All frames of a capture file; a damaged tail ends the list. */
export function decodeCapture(file: Uint8Array): CapturedFrame[] {
  const bytes = file[0] === 0x1f && file[1] === 0x8b ? new Uint8Array(gunzipSync(file)) : file
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const magic = view.getUint32(0)
  if (magic === BLOCK_SECTION) return decodePcapng(bytes, view)
  if (magic === 0xd4c3b2a1) return decodePcap(bytes, view, true, 1)
  if (magic === 0xa1b2c3d4) return decodePcap(bytes, view, false, 1)
  if (magic === 0x4d3cb2a1) return decodePcap(bytes, view, true, 1000)
  if (magic === 0xa1b23c4d) return decodePcap(bytes, view, false, 1000)
  throw new Error(`not a capture file: magic ${magic.toString(16)}`)
}

/**
 * A pcap file, little-endian, in microseconds. All frames must have the same link type; an empty list is Ethernet.
 */
export function encodePcap(frames: readonly CapturedFrame[]): Uint8Array {
  let length = PCAP_HEADER_LENGTH
  for (const frame of frames) length += PCAP_RECORD_HEADER_LENGTH + frame.bytes.length
  const bytes = new Uint8Array(length)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, 0xa1b2c3d4, true)
  view.setUint16(4, 2, true)
  view.setUint16(6, 4, true)
  view.setUint32(16, SNAP_LENGTH, true)
  view.setUint32(20, frames[0]?.linkType ?? 1, true)
  let offset = PCAP_HEADER_LENGTH
  for (const frame of frames) {
    view.setUint32(offset, Math.floor(frame.timeUs / 1e6), true)
    view.setUint32(offset + 4, Math.floor(frame.timeUs % 1e6), true)
    view.setUint32(offset + 8, frame.bytes.length, true)
    view.setUint32(offset + 12, frame.wireLength, true)
    bytes.set(frame.bytes, offset + PCAP_RECORD_HEADER_LENGTH)
    offset += PCAP_RECORD_HEADER_LENGTH + frame.bytes.length
  }
  return bytes
}

function decodePcap(bytes: Uint8Array, view: DataView, little: boolean, unitsPerUs: number): CapturedFrame[] {
  const linkType = view.getUint32(20, little) & 0xffff
  const frames: CapturedFrame[] = []
  let offset = PCAP_HEADER_LENGTH
  while (offset + PCAP_RECORD_HEADER_LENGTH <= bytes.length) {
    const captured = view.getUint32(offset + 8, little)
    const start = offset + PCAP_RECORD_HEADER_LENGTH
    if (start + captured > bytes.length) break
    frames.push({
      timeUs: view.getUint32(offset, little) * 1e6 + view.getUint32(offset + 4, little) / unitsPerUs,
      bytes: bytes.subarray(start, start + captured),
      wireLength: view.getUint32(offset + 12, little),
      linkType,
    })
    offset = start + captured
  }
  return frames
}

interface CaptureInterface { linkType: number, ticksPerUs: number }

function decodePcapng(bytes: Uint8Array, view: DataView): CapturedFrame[] {
  const frames: CapturedFrame[] = []
  let interfaces: CaptureInterface[] = []
  let little = true
  let offset = 0
  while (offset + 12 <= bytes.length) {
    if (view.getUint32(offset) === BLOCK_SECTION) {
      little = view.getUint32(offset + 8, true) === 0x1a2b3c4d
      interfaces = []
    }
    const type = view.getUint32(offset, little)
    const length = view.getUint32(offset + 4, little)
    if (length < 12 || offset + length > bytes.length) break
    if (type === BLOCK_INTERFACE) {
      interfaces.push({
        linkType: view.getUint16(offset + 8, little),
        ticksPerUs: readTicksPerUs(bytes, view, offset + 16, offset + length - 4, little),
      })
    } else if (type === BLOCK_ENHANCED) {
      const source = interfaces[view.getUint32(offset + 8, little)] ?? { linkType: 1, ticksPerUs: 1 }
      const ticks = view.getUint32(offset + 12, little) * 4294967296 + view.getUint32(offset + 16, little)
      const captured = view.getUint32(offset + 20, little)
      frames.push({
        timeUs: ticks / source.ticksPerUs,
        bytes: bytes.subarray(offset + 28, offset + 28 + captured),
        wireLength: view.getUint32(offset + 24, little),
        linkType: source.linkType,
      })
    } else if (type === BLOCK_SIMPLE) {
      const wireLength = view.getUint32(offset + 8, little)
      const captured = Math.min(wireLength, length - 16)
      frames.push({
        timeUs: frames.at(-1)?.timeUs ?? 0,
        bytes: bytes.subarray(offset + 12, offset + 12 + captured),
        wireLength,
        linkType: interfaces[0]?.linkType ?? 1,
      })
    }
    offset += length
  }
  return frames
}

function readTicksPerUs(bytes: Uint8Array, view: DataView, from: number, end: number, little: boolean): number {
  let offset = from
  while (offset + 4 <= end) {
    const code = view.getUint16(offset, little)
    const length = view.getUint16(offset + 2, little)
    if (code === OPTION_END) break
    if (code === OPTION_TIME_RESOLUTION) {
      const resolution = bytes[offset + 4] as number
      const perSecond = resolution & 0x80 ? 2 ** (resolution & 0x7f) : 10 ** resolution
      return perSecond / 1e6
    }
    offset += 4 + Math.ceil(length / 4) * 4
  }
  return 1
}
