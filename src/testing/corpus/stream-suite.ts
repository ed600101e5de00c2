/**
 * PcapPlusPlus' TCP reassembly suite: captures, edits of them, and the bytes that reassembly must give.
 *
 * The suite has few files: its cases are edits of two captures. {@link streamCases} makes the same edits:
 *
 *     plain, no handshake     one_tcp_stream_output.txt; also with sequence numbers that pass 2^32
 *     retransmission          one_tcp_stream_retransmission_output.txt: repeats of six segments, shorter, longer and
 *                             shifted; a longer repeat brings new bytes first, and those stay (`*` in the output)
 *     missing data            one_tcp_stream_missing_data_output.txt; a hole is shown as `[1360 bytes missing]`
 *     out of order            one_tcp_stream_out_of_order_output.txt: swapped segments, and the last answer backwards
 *     three streams           three_http_streams_conn_{1,2,3}_output.txt: one file per connection
 *     IPv6 streams            one_ipv6_http_stream{2,3,4}.txt for three connections of the capture v6-http4
 *
 * An output file holds both directions of a connection, laid into each other message by message.
 */

import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { decodeCapture, type CapturedFrame } from './capture-frames.ts'
import { corpusCaptures, suiteFolder } from './corpus-location.ts'
import { dissectFrame, dissectTcp } from './frame-dissection.ts'
import { setIpv4Checksum, setTcpChecksum } from './tcp-checksum.ts'

/** What a reassembly made of one direction of a connection. */
export interface ReassembledStream {
  /** The bytes, with anything at all where bytes never arrived. */
  readonly bytes: Uint8Array
  /** Where bytes never arrived, as start and end offsets. */
  readonly holes: readonly { readonly start: number, readonly end: number }[]
}

/** A reassembly under test: the connections of a capture, with their one or two directions. */
export type Reassembly = (
  frames: readonly CapturedFrame[],
) => readonly { readonly streams: readonly ReassembledStream[] }[]

/** One case: a capture and the files of its connections, in any order. */
export interface StreamCase {
  readonly name: string
  readonly frames: readonly CapturedFrame[]
  /** Connections that carry data. The suite need not have a file for each. */
  readonly connectionCount: number
  readonly outputs: readonly Uint8Array[]
  /** Acknowledgements come before what they acknowledge: a reassembly that gives up such bytes must not be blamed. */
  readonly isAcknowledgedEarly: boolean
}

/** The suite's cases; empty without a corpus. */
export function streamCases(): StreamCase[] {
  const folder = suiteFolder('pcapplusplus-reassembly')
  if (!existsSync(folder)) return []
  const readFile = (name: string): Uint8Array => new Uint8Array(readFileSync(join(folder, name)))
  const one = decodeCapture(readFile('one_tcp_stream.pcap'))
  const oneOutput = (name: string): Uint8Array[] => [readFile(`one_tcp_stream_${name}.txt`)]
  const makeOne = (name: string, frames: readonly CapturedFrame[], output: string): StreamCase =>
    ({ name, frames, connectionCount: 1, outputs: oneOutput(output), isAcknowledgedEarly: false })
  const cases: StreamCase[] = [
    makeOne('plain', one, 'output'),
    makeOne('no handshake', one.slice(2), 'output'),
    makeOne('retransmission', withRetransmissions(one), 'retransmission_output'),
    makeOne('missing data', withMissingData(one), 'missing_data_output'),
    { ...makeOne('out of order', outOfOrder(one), 'out_of_order_output'), isAcknowledgedEarly: true },
    makeOne('sequence wrap', withSequenceWrap(one), 'output'),
    {
      name: 'three streams',
      frames: decodeCapture(readFile('three_http_streams.pcap')),
      connectionCount: 3,
      outputs: [1, 2, 3].map(number => readFile(`three_http_streams_conn_${number}_output.txt`)),
      isAcknowledgedEarly: false,
    },
  ]
  const ipv6 = corpusCaptures().find(capture => capture.name === 'v6-http4')
  if (ipv6 !== undefined) {
    cases.push({
      name: 'IPv6 streams',
      frames: decodeCapture(new Uint8Array(readFileSync(ipv6.path))),
      connectionCount: 4,
      outputs: [2, 3, 4].map(number =>
        new Uint8Array(readFileSync(join(ipv6.oraclePath, `one_ipv6_http_stream${number}.txt`)))),
      isAcknowledgedEarly: false,
    })
  }
  return cases
}

/** Says what is wrong with a reassembly of a case, or null when all is well. */
export function judgeStreamCase(subject: StreamCase, reassembly: Reassembly): string | null {
  const connections = reassembly(subject.frames)
    .map(connection => connection.streams.map(streamText).filter(text => text !== ''))
    .filter(texts => texts.length > 0)
  if (connections.length !== subject.connectionCount) {
    return `${subject.name}: ${connections.length} connections with data, not ${subject.connectionCount}`
  }
  for (const [index, output] of subject.outputs.entries()) {
    const expected = Buffer.from(output).toString('latin1')
    const reach = connections.map(texts => interleavedLength(expected, texts[0] ?? '', texts[1] ?? ''))
    const best = Math.max(...reach)
    if (best < expected.length) {
      const where = JSON.stringify(expected.slice(Math.max(0, best - 20), best + 40))
      return `${subject.name}: output ${index + 1} is followed for ${best} of ${expected.length} bytes, up to ${where}`
    }
  }
  return null
}

/** A stream's bytes as text, with the suite's mark in the place of a hole. */
function streamText(stream: ReassembledStream): string {
  const text = Buffer.from(stream.bytes).toString('latin1')
  let result = ''
  let at = 0
  for (const { start, end } of stream.holes) {
    result += `${text.slice(at, start)}[${end - start} bytes missing]`
    at = end
  }
  return result + text.slice(at)
}

/** How much of `whole` can be made by laying `a` and `b` into each other, all of both being used for all of it. */
function interleavedLength(whole: string, a: string, b: string): number {
  if (whole.length !== a.length + b.length) return 0
  // The amounts of `a` that can have been used at each length of `whole`; the rest of it is `b`.
  let used = new Set([0])
  for (let at = 0; at < whole.length; at++) {
    const next = new Set<number>()
    for (const fromA of used) {
      if (a[fromA] === whole[at]) next.add(fromA + 1)
      if (b[at - fromA] === whole[at]) next.add(fromA)
    }
    if (next.size === 0) return at
    used = next
  }
  return whole.length
}

function withRetransmissions(frames: readonly CapturedFrame[]): CapturedFrame[] {
  const edited = [...frames]
  // Which frame is repeated, from which byte of it on, how many bytes (0: all), and where the repeat comes.
  const repeats: readonly (readonly [number, number, number, number])[] = [
    [4, 0, 0, 5], [10, 10, 0, 12], [13, 0, 1340, 16], [21, 0, 1430, 25], [28, 10, 1370, 33], [34, 10, 91, 40],
  ]
  for (const [index, from, length, place] of repeats) {
    edited.splice(place, 0, repeatSegment(frames[index] as CapturedFrame, from, length))
  }
  return edited
}

function withMissingData(frames: readonly CapturedFrame[]): CapturedFrame[] {
  const edited = [...frames]
  // The suite's edit of the first segment keeps the request's body before the copy of the whole: those bytes come
  // first, and the segment overlaps the ones behind it with other bytes.
  const first = frames[3] as CapturedFrame
  const payload = payloadOf(first)
  const body = payload.subarray(Buffer.from(payload).indexOf('\r\n\r\n') + 4)
  edited[3] = withPayload(first, 20, Buffer.concat([body, payload.subarray(20)]))
  edited[20] = repeatSegment(frames[20] as CapturedFrame, 0, 1390)
  edited.splice(28, 1)
  edited.splice(30, 1)
  return edited
}

function outOfOrder(frames: readonly CapturedFrame[]): CapturedFrame[] {
  const edited = [...frames]
  const move = (from: number, to: number): void => {
    const [frame] = edited.splice(from, 1)
    edited.splice(to, 0, frame as CapturedFrame)
  }
  move(10, 9)
  move(18, 23)
  for (let i = 0; i < 12; i++) move(35, 24 + i)
  return edited
}

/** The same conversation with other initial sequence numbers: 3,000 and 5,000 bytes before the end of their space. */
function withSequenceWrap(frames: readonly CapturedFrame[]): CapturedFrame[] {
  const tcp = 34
  const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const fromClient = (bytes: Uint8Array): boolean => viewOf(bytes).getUint16(tcp + 2) === 80
  const firstOf = (isClient: boolean): number => {
    const first = frames.find(frame => fromClient(frame.bytes) === isClient)
    return first === undefined ? 0 : viewOf(first.bytes).getUint32(tcp + 4)
  }
  const shifts = { client: -3000 - firstOf(true), server: -5000 - firstOf(false) }
  return frames.map(frame => {
    const bytes = frame.bytes.slice(0, 14 + viewOf(frame.bytes).getUint16(16))
    const view = viewOf(bytes)
    const [own, other] = fromClient(bytes) ? [shifts.client, shifts.server] : [shifts.server, shifts.client]
    const isAcknowledging = (view.getUint8(tcp + 13) & 16) !== 0
    view.setUint32(tcp + 4, (view.getUint32(tcp + 4) + own) >>> 0)
    if (isAcknowledging) view.setUint32(tcp + 8, (view.getUint32(tcp + 8) + other) >>> 0)
    setTcpChecksum(bytes, 14, tcp)
    return { ...frame, bytes, wireLength: bytes.length }
  })
}

/** A copy of a data segment's bytes from `from` on; with more than it has, `*` follows. */
function repeatSegment(frame: CapturedFrame, from: number, length: number): CapturedFrame {
  const payload = payloadOf(frame)
  const repeated = new Uint8Array(length === 0 ? payload.length - from : length).fill('*'.charCodeAt(0))
  repeated.set(payload.subarray(from, from + repeated.length))
  return withPayload(frame, from, repeated)
}

function payloadOf(frame: CapturedFrame): Uint8Array {
  const datagram = dissectFrame(frame)
  return (datagram === null ? null : dissectTcp(datagram.payload))?.payload ?? new Uint8Array(0)
}

/** An Ethernet and IPv4 segment with another payload, which starts `shift` bytes later in the stream. */
function withPayload(frame: CapturedFrame, shift: number, payload: Uint8Array): CapturedFrame {
  const old = payloadOf(frame)
  const headers = old.byteOffset - frame.bytes.byteOffset
  const bytes = new Uint8Array(headers + payload.length)
  bytes.set(frame.bytes.subarray(0, headers))
  bytes.set(payload, headers)
  const view = new DataView(bytes.buffer)
  view.setUint16(16, bytes.length - 14)
  const tcp = 14 + ((bytes[14] as number) & 15) * 4
  view.setUint32(tcp + 4, (view.getUint32(tcp + 4) + shift) >>> 0)
  setIpv4Checksum(bytes, 14)
  setTcpChecksum(bytes, 14, tcp)
  return { ...frame, bytes, wireLength: bytes.length }
}
