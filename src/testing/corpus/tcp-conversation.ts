/**
 * Synthetic captures of TCP conversations, from the bytes that both sides say.
 *
 *     client   SYN ------> SYN-ACK <------ ACK ------>  | turns: data, ACK of the other side | FIN, FIN-ACK, ACK
 *
 * A conversation is a list of turns; each turn's bytes are cut into segments by a cutter, so that the same
 * conversation comes whole, byte by byte or at random cuts. Many conversations go into one capture, each on a port of
 * its own, so that one run judges them all. Frames are Ethernet and IPv4 with right checksums.
 */

import type { Random } from '../../base/random.ts'
import type { CapturedFrame } from './capture-frames.ts'
import { setIpv4Checksum, setTcpChecksum } from './tcp-checksum.ts'

/** What one side says before the other one answers. */
export interface Turn {
  readonly from: 'client' | 'server'
  readonly bytes: Uint8Array
}

/** Where a turn's bytes are cut: the lengths of its segments, in order. */
export type Cutter = (length: number) => number[]

/** Lengths for segments as large as a link takes. */
export const cutWhole: Cutter = length => cutEvery(length, 1400)

/** One byte per segment. */
export const cutBytes: Cutter = length => cutEvery(length, 1)

/** Segments of random lengths, most of them short. */
export function cutAtRandom(random: Random): Cutter {
  return length => {
    const lengths: number[] = []
    for (let left = length; left > 0;) {
      const next = Math.min(left, random.chance(0.2) ? random.between(1, 400) : random.between(1, 12))
      lengths.push(next)
      left -= next
    }
    return lengths
  }
}

const CLIENT = [10, 1, 0, 1] as const
const SERVER = [10, 2, 0, 1] as const
const SERVER_PORT = 80
const CLIENT_PORT_FIRST = 10_000
const START_US = 1_700_000_000_000_000
const FRAME_INTERVAL_US = 100
const FIN = 1
const SYN = 2
const PSH = 8
const ACK = 16

/** The client's directed tuple of a conversation in {@link captureConversations}, and the server's. */
export function conversationDirections(index: number): { client: string, server: string } {
  const client = `${CLIENT.join('.')}:${CLIENT_PORT_FIRST + index}`
  const server = `${SERVER.join('.')}:${SERVER_PORT}`
  return { client: `tcp ${client} > ${server}`, server: `tcp ${server} > ${client}` }
}

/** One capture of all conversations, one after the other. */
export function captureConversations(conversations: readonly (readonly Turn[])[], cut: Cutter): CapturedFrame[] {
  const frames: CapturedFrame[] = []
  conversations.forEach((turns, index) => captureOne(turns, CLIENT_PORT_FIRST + index, index, cut, frames))
  return frames
}

function captureOne(
  turns: readonly Turn[], clientPort: number, index: number, cut: Cutter, frames: CapturedFrame[],
): void {
  // The first conversation starts just below 2^32, so that its sequence numbers wrap.
  const sequence = { client: (0xffffff00 + index * 0x10001) >>> 0, server: (0xfffffff0 + index * 0x30003) >>> 0 }
  const send = (from: Turn['from'], flags: number, payload: Uint8Array): void => {
    const to = from === 'client' ? 'server' : 'client'
    const acknowledgement = (flags & ACK) === 0 ? 0 : sequence[to]
    const timeUs = START_US + frames.length * FRAME_INTERVAL_US
    const bytes = encodeSegment(from, clientPort, sequence[from], acknowledgement, flags, payload)
    frames.push({ timeUs, bytes, wireLength: bytes.length, linkType: 1 })
    sequence[from] = (sequence[from] + payload.length + ((flags & (SYN | FIN)) === 0 ? 0 : 1)) >>> 0
  }
  const nothing = new Uint8Array(0)
  send('client', SYN, nothing)
  send('server', SYN | ACK, nothing)
  send('client', ACK, nothing)
  for (const turn of turns) {
    let offset = 0
    for (const length of cut(turn.bytes.length)) {
      send(turn.from, PSH | ACK, turn.bytes.subarray(offset, offset + length))
      offset += length
    }
    send(turn.from === 'client' ? 'server' : 'client', ACK, nothing)
  }
  send('client', FIN | ACK, nothing)
  send('server', FIN | ACK, nothing)
  send('client', ACK, nothing)
}

function cutEvery(length: number, size: number): number[] {
  const lengths: number[] = []
  for (let left = length; left > 0; left -= size) lengths.push(Math.min(left, size))
  return lengths
}

function encodeSegment(
  from: Turn['from'], clientPort: number, sequence: number, acknowledgement: number, flags: number,
  payload: Uint8Array,
): Uint8Array {
  const bytes = new Uint8Array(54 + payload.length)
  const view = new DataView(bytes.buffer)
  const isClient = from === 'client'
  bytes.set(isClient ? [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0] : [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0])
  view.setUint16(14, 0x4500)
  view.setUint16(16, 40 + payload.length)
  view.setUint16(20, 0x4000)
  view.setUint16(22, 0x4006)
  bytes.set(isClient ? CLIENT : SERVER, 26)
  bytes.set(isClient ? SERVER : CLIENT, 30)
  setIpv4Checksum(bytes, 14)
  view.setUint16(34, isClient ? clientPort : SERVER_PORT)
  view.setUint16(36, isClient ? SERVER_PORT : clientPort)
  view.setUint32(38, sequence)
  view.setUint32(42, acknowledgement)
  view.setUint16(46, 0x5000 | flags)
  view.setUint16(48, 0xffff)
  bytes.set(payload, 54)
  setTcpChecksum(bytes, 14, 34)
  return bytes
}
