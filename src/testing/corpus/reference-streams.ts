/**
 * TCP streams of a whole capture, put together off-line: the harness' reference for what a stream holds.
 *
 * All segments of a connection are collected first and then laid out by sequence number, so that nothing depends on
 * windows, buffers or acknowledgements, which is where an on-line reassembly can go wrong. Of bytes that arrive twice
 * the first to arrive stay. Bytes that never arrive leave a hole. A SYN with another initial sequence number starts
 * another connection on the same tuple (RFC 9293 §3.4.1); a repeated SYN does not.
 */

import type { CapturedFrame } from './capture-frames.ts'
import { FragmentAssembly } from './fragment-assembly.ts'
import { directedTuple, flowTuple } from './flow-tuple.ts'
import { dissectFrame, dissectTcp, IpProtocol, TcpFlag, type Datagram, type TcpSegment } from './frame-dissection.ts'

/** One direction of one TCP connection. */
export interface ReferenceStream {
  /** The direction, as a directed tuple. */
  readonly directed: string
  /** The stream's bytes; zero where nothing arrived. */
  readonly bytes: Uint8Array
  /** Ranges that never arrived, as start and end offsets, in order. */
  readonly holes: readonly { readonly start: number, readonly end: number }[]
  /** Offsets at which a segment began, ascending. */
  readonly segmentStarts: readonly number[]
  /** False when the capture starts in mid-connection, so that offset 0 need not be the stream's first byte. */
  readonly isStartKnown: boolean
  /** Number of the frame that brought the direction's first bytes, from 1; 0 without bytes. */
  readonly firstDataFrame: number
}

/** One TCP connection. */
export interface ReferenceConnection {
  readonly tuple: string
  /** Both directions; the one seen first comes first. One is missing when its side sent nothing. */
  readonly streams: readonly ReferenceStream[]
}

interface Collected {
  readonly directed: string
  initialSequence: number | null
  readonly segments: { readonly sequence: number, readonly payload: Uint8Array, readonly frame: number }[]
}

interface Connection { readonly tuple: string, readonly directions: Map<string, Collected> }

/** Further from the stream's start than this, a segment is taken for damaged and left out. */
const STREAM_BYTES_MAX = 1 << 24
/** How far before the first seen byte a stream without SYN may turn out to begin. */
const REORDER_BYTES_MAX = 1 << 17

/** All TCP connections of a capture, in the order of their first frames. */
export function reassembleStreams(frames: readonly CapturedFrame[]): ReferenceConnection[] {
  const assembly = new FragmentAssembly()
  const connections: Connection[] = []
  const current = new Map<string, Connection>()
  frames.forEach((frame, index) => {
    const datagram = dissectFrame(frame)
    if (datagram === null || datagram.isCut) return
    const whole = datagram.fragment === null ? datagram : assembly.add(datagram)
    if (whole === null || whole.protocol !== IpProtocol.Tcp) return
    const segment = dissectTcp(whole.payload)
    if (segment !== null) collect(whole, segment, index + 1, connections, current)
  })
  return connections.map(connection => ({
    tuple: connection.tuple,
    streams: [...connection.directions.values()].map(layOut),
  }))
}

function collect(
  datagram: Datagram, segment: TcpSegment, frame: number, connections: Connection[], current: Map<string, Connection>,
): void {
  const { source, destination } = datagram
  const { sourcePort, destinationPort } = segment
  const tuple = flowTuple('tcp', source, sourcePort, destination, destinationPort)
  const directed = directedTuple('tcp', source, sourcePort, destination, destinationPort)
  const isSyn = (segment.flags & TcpFlag.Syn) !== 0
  const isOpening = isSyn && (segment.flags & TcpFlag.Ack) === 0
  let connection = current.get(tuple)
  const known = connection?.directions.get(directed)
  const isAnother = isOpening && known !== undefined && known.initialSequence !== segment.sequence
    && (known.initialSequence !== null || known.segments.length > 0)
  if (connection === undefined || isAnother) {
    connection = { tuple, directions: new Map() }
    connections.push(connection)
    current.set(tuple, connection)
  }
  let direction = connection.directions.get(directed)
  if (direction === undefined) {
    direction = { directed, initialSequence: null, segments: [] }
    connection.directions.set(directed, direction)
  }
  // Another SYN-ACK before any data replaces the first: an answer to an earlier life of the tuple.
  if (isSyn && (direction.initialSequence === null || direction.segments.length === 0)) {
    direction.initialSequence = segment.sequence
  }
  const isReset = (segment.flags & TcpFlag.Rst) !== 0
  if (segment.payload.length > 0 && !isReset) {
    const sequence = (segment.sequence + (isSyn ? 1 : 0)) >>> 0
    direction.segments.push({ sequence, payload: segment.payload, frame })
  }
}

function layOut(direction: Collected): ReferenceStream {
  const { segments, initialSequence, directed } = direction
  const isStartKnown = initialSequence !== null
  const anchor = isStartKnown ? (initialSequence + 1) >>> 0 : segments[0]?.sequence ?? 0
  let first = 0
  if (!isStartKnown) {
    for (const segment of segments) {
      const offset = (segment.sequence - anchor) | 0
      if (offset < first && offset > -REORDER_BYTES_MAX) first = offset
    }
  }
  const placed = segments
    .map(segment => ({ ...segment, offset: ((segment.sequence - anchor) | 0) - first }))
    .filter(segment => segment.offset < STREAM_BYTES_MAX && segment.offset + segment.payload.length > 0)
  const length = placed.reduce((most, segment) => Math.max(most, segment.offset + segment.payload.length), 0)
  const bytes = new Uint8Array(length)
  const known = new Uint8Array(length)
  for (const { offset, payload } of placed) {
    for (let i = Math.max(0, -offset); i < payload.length; i++) {
      if (known[offset + i] !== 0) continue
      known[offset + i] = 1
      bytes[offset + i] = payload[i] as number
    }
  }
  return {
    directed,
    bytes,
    holes: findHoles(known),
    segmentStarts: [...new Set(placed.map(segment => Math.max(0, segment.offset)))].sort((a, b) => a - b),
    isStartKnown,
    firstDataFrame: placed[0]?.frame ?? 0,
  }
}

function findHoles(known: Uint8Array): { start: number, end: number }[] {
  const holes: { start: number, end: number }[] = []
  let start = known.indexOf(0)
  while (start >= 0) {
    const next = known.indexOf(1, start)
    const end = next < 0 ? known.length : next
    holes.push({ start, end })
    start = next < 0 ? -1 : known.indexOf(0, next)
  }
  return holes
}
