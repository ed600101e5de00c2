/**
 * Makes another capture of the same TCP streams: what a run reports of the streams must not change.
 *
 * Data segments are cut into smaller ones, doubled, brought out of order within a window, enlarged backwards over bytes
 * that were sent before, and sent again later, whole or with wrong bytes once the receiver has acknowledged them: old
 * sequence numbers must not be delivered twice (RFC 9293 §3.10.7.4). Nothing is moved past an acknowledgement that
 * covers it, past a SYN, FIN or RST, or past a segment of the other direction, because then the capture would no longer
 * be one of the same conversation.
 *
 * Left as they are: connections whose start was not captured, those with holes, and fragments, because for these a
 * parser's search for the next message may go by where segments begin.
 */

import type { Random } from '../../base/random.ts'
import type { CapturedFrame } from './capture-frames.ts'
import { flowTuple } from './flow-tuple.ts'
import { dissectFrame, dissectTcp, IpProtocol, networkOffset, TcpFlag } from './frame-dissection.ts'
import { reassembleStreams } from './reference-streams.ts'
import { setIpv4Checksum, setTcpChecksum } from './tcp-checksum.ts'

/** A data segment on its way into the new capture. */
interface DataSegment {
  readonly frame: CapturedFrame
  /** Offset of the TCP header in the frame. */
  readonly tcp: number
  readonly sequence: number
  readonly payload: Uint8Array
}

interface Run {
  readonly directed: string
  readonly segments: DataSegment[]
}

/** How far, in segments, reordering moves a segment. */
const WINDOW_SEGMENTS = 6
/** Into how many pieces, about, a segment is cut at most. */
const PIECES_MAX = 16
/** Segments of a direction that may be sent again. */
const HISTORY_SEGMENTS = 12

/** An equivalent of a capture; the same random numbers give the same one. */
export function makeEquivalent(frames: readonly CapturedFrame[], random: Random): CapturedFrame[] {
  const whole = findWholeConnections(frames)
  const out: CapturedFrame[] = []
  const runs = new Map<string, Run>()
  const acknowledged = new Map<string, DataSegment[]>()
  const emit = (frame: CapturedFrame): void => {
    const before = out.at(-1)?.timeUs ?? frame.timeUs
    out.push(frame.timeUs < before ? { ...frame, timeUs: before } : frame)
  }
  const flush = (tuple: string): void => {
    const run = runs.get(tuple)
    runs.delete(tuple)
    if (run === undefined) return
    for (const segment of disturb(run.segments, random)) emit(encode(segment))
    const history = acknowledged.get(run.directed) ?? []
    acknowledged.set(run.directed, [...history, ...run.segments].slice(-HISTORY_SEGMENTS))
  }
  for (const frame of frames) {
    const found = dataSegmentOf(frame)
    if (found === null || !whole.has(found.tuple)) {
      emit(frame)
      continue
    }
    const { tuple, directed, reverse, segment, isPlainData } = found
    const run = runs.get(tuple)
    if (isPlainData && (run === undefined || run.directed === directed)) {
      if (run === undefined) runs.set(tuple, { directed, segments: [segment] })
      else run.segments.push(segment)
      continue
    }
    flush(tuple)
    if (isPlainData) runs.set(tuple, { directed, segments: [segment] })
    else emit(frame)
    // The other side has spoken: what it acknowledges may come again, and with other bytes.
    const old = (acknowledged.get(reverse) ?? []).filter(past => isAcknowledged(past, frame))
    if (old.length > 0 && random.chance(0.15)) emit(encode(garble(random.pick(old), random)))
  }
  for (const tuple of [...runs.keys()]) flush(tuple)
  return out
}

/** Tuples of the connections that may be altered: the start captured, no holes, and one connection on the tuple. */
function findWholeConnections(frames: readonly CapturedFrame[]): Set<string> {
  const tuples = new Set<string>()
  const excluded = new Set<string>()
  for (const connection of reassembleStreams(frames)) {
    const isWhole = connection.streams.every(stream => stream.isStartKnown && stream.holes.length === 0)
    if (!isWhole || tuples.has(connection.tuple)) excluded.add(connection.tuple)
    tuples.add(connection.tuple)
  }
  return tuples.difference(excluded)
}

function dataSegmentOf(frame: CapturedFrame): {
  tuple: string, directed: string, reverse: string, segment: DataSegment, isPlainData: boolean,
} | null {
  const datagram = dissectFrame(frame)
  if (datagram === null || datagram.isCut || datagram.fragment !== null) return null
  if (datagram.protocol !== IpProtocol.Tcp) return null
  const tcp = dissectTcp(datagram.payload)
  if (tcp === null) return null
  const { source, destination } = datagram
  const [from, to] = [`${source} ${tcp.sourcePort}`, `${destination} ${tcp.destinationPort}`]
  return {
    tuple: flowTuple('tcp', source, tcp.sourcePort, destination, tcp.destinationPort),
    directed: `${from} ${to}`,
    reverse: `${to} ${from}`,
    segment: {
      frame, tcp: datagram.payload.byteOffset - frame.bytes.byteOffset, sequence: tcp.sequence, payload: tcp.payload,
    },
    isPlainData: tcp.payload.length > 0
      && (tcp.flags & (TcpFlag.Syn | TcpFlag.Fin | TcpFlag.Rst | TcpFlag.Urg)) === 0,
  }
}

function disturb(segments: readonly DataSegment[], random: Random): DataSegment[] {
  const pieces = segments.flatMap(segment => random.chance(0.5) ? cut(segment, random) : [segment])
  const overlapping = pieces.map((piece, index) => {
    const before = pieces[index - 1]
    return before !== undefined && random.chance(0.2) ? enlarge(piece, before, random) : piece
  })
  const doubled = overlapping.flatMap(piece => random.chance(0.15) ? [piece, piece] : [piece])
  const ordered = doubled.map((piece, index) => ({ piece, place: index + random.fraction() * WINDOW_SEGMENTS }))
  if (random.chance(0.7)) ordered.sort((a, b) => a.place - b.place)
  const sent = ordered.map(({ piece }) => piece)
  if (random.chance(0.3)) sent.push(random.pick(sent))
  return sent
}

function cut(segment: DataSegment, random: Random): DataSegment[] {
  const pieces: DataSegment[] = []
  const longest = Math.max(random.pick([1, 5, 100, 700]), Math.ceil(segment.payload.length / PIECES_MAX))
  for (let offset = 0; offset < segment.payload.length;) {
    const length = Math.min(random.between(1, longest), segment.payload.length - offset)
    pieces.push(part(segment, offset, segment.payload.subarray(offset, offset + length)))
    offset += length
  }
  return pieces
}

/** A segment that repeats the end of the one before it. */
function enlarge(segment: DataSegment, before: DataSegment, random: Random): DataSegment {
  if (((before.sequence + before.payload.length) >>> 0) !== segment.sequence) return segment
  const length = random.between(1, Math.min(before.payload.length, 100))
  const repeated = before.payload.subarray(before.payload.length - length)
  const payload = new Uint8Array(length + segment.payload.length)
  payload.set(repeated)
  payload.set(segment.payload, length)
  return part(segment, -length, payload)
}

function garble(segment: DataSegment, random: Random): DataSegment {
  return part(segment, 0, random.fill(new Uint8Array(segment.payload.length)))
}

function part(segment: DataSegment, offset: number, payload: Uint8Array): DataSegment {
  return { ...segment, sequence: (segment.sequence + offset) >>> 0, payload }
}

function isAcknowledged(segment: DataSegment, frame: CapturedFrame): boolean {
  const datagram = dissectFrame(frame)
  const tcp = datagram === null ? null : dissectTcp(datagram.payload)
  if (tcp === null || (tcp.flags & TcpFlag.Ack) === 0) return false
  return ((tcp.acknowledgement - segment.sequence - segment.payload.length) | 0) >= 0
}

function encode(segment: DataSegment): CapturedFrame {
  const { frame, tcp, payload } = segment
  const ip = networkOffset(frame)?.offset ?? 0
  const headerEnd = tcp + ((frame.bytes[tcp + 12] as number) >> 4) * 4
  const bytes = new Uint8Array(headerEnd + payload.length)
  bytes.set(frame.bytes.subarray(0, headerEnd))
  bytes.set(payload, headerEnd)
  const view = new DataView(bytes.buffer)
  view.setUint32(tcp + 4, segment.sequence)
  const isIpv4 = (bytes[ip] as number) >> 4 === 4
  if (isIpv4) view.setUint16(ip + 2, bytes.length - ip)
  else view.setUint16(ip + 4, bytes.length - ip - 40)
  if (isIpv4) setIpv4Checksum(bytes, ip)
  setTcpChecksum(bytes, ip, tcp)
  return { ...frame, bytes, wireLength: bytes.length }
}
