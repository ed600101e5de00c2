/**
 * Message reader: HTTP/1.x messages in the two streams of a connection. RFC 9112.
 *
 *                 head complete                               1xx, no body
 *      start ──▶ head ──────────┬──▶ head                     Content-Length: 0, 204, 304, answer to HEAD
 *        │         ▲            ├──▶ body ──▶ head            Content-Length
 *        ▼         │            ├──▶ chunk-size ⇄ chunk-data, then trailer ──▶ head
 *      other       │            ├──▶ until-close              response without a length
 *                  │            └──▶ tunnel                   101, answer to CONNECT
 *                lost  ◀── a gap in the stream, or bytes that are not a message
 *
 * Heads that lie whole in a segment are parsed where they lie. What does not is kept in the side's chain until the head is
 * complete, and then parsed once: a head that comes byte by byte costs no more than linear time. Bodies are only counted, so
 * segments may be missing or out of order inside one without being kept. After a gap the reader looks for a start line at
 * the start of each segment; when the gap lies inside a body of known length nothing is lost at all.
 *
 * Which of the two directions carries requests is not assumed: it follows from what the messages are.
 */

import type { Arena } from '../../memory/arena.ts'
import type { Kernels } from '../../memory/kernels/kernels.ts'
import { TcpStreams, type OverlapPolicy, type StreamReader } from '../../flow/tcp-stream.ts'
import { createChunkParser, type ChunkParser } from './head-chunk.ts'
import { Anomaly, createHeadParser, HeadResult, Method, MessageKind, type HeadParser } from './head.ts'
import {
  HEAD_BLOCKS, OUTSTANDING_MAX, Phase, RequestKind, SideFlag, type HttpState, type Last, type Side,
} from './http-state.ts'

/** Who wants to know of messages. The head parser's fields describe the message during the call. */
export interface MessageSink {
  request(state: HttpState, last: Last | null, head: HeadParser, direction: number): void
  response(state: HttpState, last: Last | null, head: HeadParser, direction: number): void
  /** Something was not as it should be: counted by name. */
  anomaly(what: 'badMessages' | 'gaps' | 'oversizedHeads' | 'noRoom' | 'upgrades'): void
}

// PERF: looked up once; a table by name is not (bench engine, http).
const HEAD_METHOD = Method.HEAD as number
const CONNECT_METHOD = Method.CONNECT as number
const PRI_METHOD = Method.PRI as number
const CONFLICTING = Anomaly['conflicting-content-length']
const START = Phase.start
const HEAD = Phase.head
const BODY = Phase.body
const CHUNK_SIZE = Phase['chunk-size']
const CHUNK_DATA = Phase['chunk-data']
const TRAILER = Phase.trailer
const UNTIL_CLOSE = Phase['until-close']
const TUNNEL = Phase.tunnel
const LOST = Phase.lost
const OTHER = Phase.other

export class MessageReader implements StreamReader {
  readonly streams: TcpStreams
  readonly #sink: MessageSink
  readonly #arena: Arena
  readonly #kernels: Kernels
  readonly #head: HeadParser
  readonly #chunk: ChunkParser
  /** Where a head that was kept in pieces is put together. */
  readonly #scratch: number
  readonly #scratchBytes: number
  #state!: HttpState
  /** True while the data at hand is the start of a segment. */
  #segmentStart = true

  constructor(arena: Arena, kernels: Kernels, extentDataBytes: number, overlap: OverlapPolicy, sink: MessageSink) {
    this.#arena = arena
    this.#kernels = kernels
    this.#sink = sink
    this.#head = createHeadParser(arena, kernels)
    this.#chunk = createChunkParser(arena, kernels)
    this.#scratchBytes = HEAD_BLOCKS * extentDataBytes
    this.#scratch = arena.allocate('http head in pieces', this.#scratchBytes)
    this.streams = new TcpStreams(this, overlap)
  }

  /** A SYN: the stream begins behind it. */
  begin(side: Side, sequence: number): void {
    if (side.phase !== START) return
    side.stream.next = (sequence + 1) | 0
    side.flags |= SideFlag.synchronised
  }

  /** A segment with payload. */
  segment(state: HttpState, side: Side, direction: number, sequence: number, offset: number, length: number): void {
    this.#state = state
    if (side.phase === START && (side.flags & SideFlag.synchronised) === 0) {
      side.stream.next = sequence
      side.phase = LOST
    }
    this.#segmentStart = true
    this.streams.segment(side.stream, direction, sequence, offset, length)
  }

  /** The other side acknowledges what `side` has sent. */
  acknowledged(state: HttpState, side: Side, direction: number, acknowledgement: number): void {
    this.#state = state
    this.streams.acknowledged(side.stream, direction, acknowledgement)
  }

  #side(direction: number): Side {
    return this.#state.sides.at(direction)
  }

  // -- Stream ----------------------------------------------------------------------------------------------------------

  streamSkippable(direction: number): number {
    const side = this.#side(direction)
    switch (side.phase) {
      case BODY: case CHUNK_DATA: return side.remainingHigh !== 0 ? 0x7fffffff : side.remaining
      case UNTIL_CLOSE: case TUNNEL: case OTHER: return 0x7fffffff
      default: return 0
    }
  }

  streamSkip(direction: number, bytes: number): void {
    const side = this.#side(direction)
    if (side.phase === BODY || side.phase === CHUNK_DATA) this.#consume(side, bytes)
  }

  streamGap(direction: number, _bytes: number): void {
    const side = this.#side(direction)
    side.head.clear()
    side.flags &= SideFlag.synchronised | SideFlag.finished
    if (side.phase === START && (side.flags & SideFlag.synchronised) !== 0) side.phase = LOST
    else this.#lose(side)
    this.#sink.anomaly('gaps')
    this.#segmentStart = true
  }

  streamData(direction: number, offset: number, end: number): void {
    const side = this.#side(direction)
    while (offset < end) {
      switch (side.phase) {
        case BODY: case CHUNK_DATA: {
          const available = end - offset
          const left = side.remainingHigh !== 0 ? available : side.remaining
          const part = left < available ? left : available
          this.#consume(side, part)
          offset += part
          break
        }
        case UNTIL_CLOSE: case TUNNEL: case OTHER: return
        case CHUNK_SIZE: offset = this.#chunkLine(side, offset, end); break
        case TRAILER: offset = this.#trailer(side, offset, end); break
        case LOST:
          if (!this.#segmentStart || this.#head.detect(offset, end) === HeadResult.Invalid) return
          side.phase = HEAD
          offset = this.#messageHead(side, direction, offset, end)
          break
        default: offset = this.#messageHead(side, direction, offset, end)
      }
      this.#segmentStart = false
    }
  }

  // -- Messages --------------------------------------------------------------------------------------------------------

  /** Parses a head, or keeps its beginning. Returns where to go on. */
  #messageHead(side: Side, direction: number, offset: number, end: number): number {
    const head = this.#head
    if (side.head.isEmpty) {
      const result = head.parse(offset, end, MessageKind.Either)
      if (result === HeadResult.Complete) {
        const next = head.headEnd
        this.#message(side, direction)
        return next
      }
      if (result === HeadResult.Invalid) {
        this.#notMessage(side)
        return end
      }
      return this.#keep(side, offset, end) ? end : this.#notKept(side, end)
    }
    // The head goes on: is its end in these bytes?
    const stop = this.#headEnd(side, offset, end)
    if (!this.#keep(side, offset, stop === 0 ? end : stop)) return this.#notKept(side, end)
    if (stop === 0) return end
    const kept = side.head.copyTo(this.#scratch, this.#scratchBytes)
    const result = head.parse(this.#scratch, this.#scratch + kept, MessageKind.Either)
    if (result === HeadResult.Incomplete) return stop
    side.head.clear()
    if (result === HeadResult.Invalid) {
      this.#notMessage(side)
      return end
    }
    const unused = this.#scratch + kept - head.headEnd
    this.#message(side, direction)
    return stop - unused
  }

  /** Offset behind the first empty line, going on from what was kept before; 0 if there is none. Notes the last bytes. */
  #headEnd(side: Side, offset: number, end: number): number {
    const u8 = this.#arena.u8
    const flags = side.flags & ~(SideFlag.afterLf | SideFlag.afterLfCr)
    let after = side.flags & (SideFlag.afterLf | SideFlag.afterLfCr)
    for (let at = offset; at < end; at++) {
      const byte = u8[at]
      if (byte === 10) {
        if (after !== 0) {
          side.flags = flags | SideFlag.afterLf
          return at + 1
        }
        after = SideFlag.afterLf
      } else if (byte === 13 && after === SideFlag.afterLf) {
        after = SideFlag.afterLfCr
      } else {
        if (after !== 0) after = 0
        // PERF: most bytes are not line ends; the kernel finds the next one.
        const next = this.#kernels.findByte(at, end, 10)
        if (next < 0) break
        at = next - 1
      }
    }
    side.flags = flags | after
    return 0
  }

  /** Adds bytes to those kept of a head; false, and counted, if it is longer than its bound or there is no room. */
  #keep(side: Side, offset: number, end: number): boolean {
    if (side.head.isEmpty) {
      const u8 = this.#arena.u8
      side.flags &= ~(SideFlag.afterLf | SideFlag.afterLfCr)
      if (u8[end - 1] === 10) side.flags |= SideFlag.afterLf
      else if (end - offset >= 2 && u8[end - 1] === 13 && u8[end - 2] === 10) side.flags |= SideFlag.afterLfCr
    }
    if (side.head.append(offset, end - offset)) return true
    this.#sink.anomaly(side.head.length + end - offset > this.#scratchBytes ? 'oversizedHeads' : 'noRoom')
    return false
  }

  /** The beginning of a head could not be kept. */
  #notKept(side: Side, end: number): number {
    side.head.clear()
    this.#lose(side)
    return end
  }

  /** What is here is not the beginning of a message. */
  #notMessage(side: Side): void {
    if (side.phase === START && (side.flags & SideFlag.synchronised) !== 0) {
      side.phase = OTHER
      return
    }
    this.#sink.anomaly('badMessages')
    this.#lose(side)
  }

  /** The place in the stream of messages is lost. */
  #lose(side: Side): void {
    if (side.phase === UNTIL_CLOSE || side.phase === TUNNEL || side.phase === OTHER) return
    side.phase = LOST
    // Which response answers which request is not known any more.
    this.#state.outstanding = 0
  }

  #message(side: Side, direction: number): void {
    const head = this.#head
    const state = this.#state
    if (head.kind === MessageKind.Request) {
      if (head.methodId === PRI_METHOD) {
        this.#tunnel(direction)
        return
      }
      state.requests++
      const last = state.last.create()
      if (last === null) this.#sink.anomaly('noRoom')
      this.#expect(state, head.methodId === HEAD_METHOD ? RequestKind.head
        : head.methodId === CONNECT_METHOD ? RequestKind.connect : RequestKind.plain)
      this.#sink.request(state, last, head, direction)
      if (head.chunked) side.phase = CHUNK_SIZE
      // Where such a message ends is not known, and the server must close the connection (RFC 9112 §6.3).
      else if (head.otherCoding || (head.anomalies & CONFLICTING) !== 0) side.phase = UNTIL_CLOSE
      else this.#body(side, head.contentLength > 0 ? head.contentLength : 0)
      return
    }
    state.responses++
    const status = head.status
    const interim = status >= 100 && status < 200 && status !== 101
    const last = state.last.create()
    const request = interim ? RequestKind.plain : this.#answered(state)
    this.#sink.response(state, last, head, direction)
    if (status === 101 || (request === RequestKind.connect && status >= 200 && status < 300)) {
      this.#sink.anomaly('upgrades')
      this.#tunnel(direction)
    } else if (interim || status === 204 || status === 304 || request === RequestKind.head) {
      this.#body(side, 0)
    } else if (head.chunked) {
      side.phase = CHUNK_SIZE
    } else if (head.otherCoding || head.contentLength < 0 || (head.anomalies & CONFLICTING) !== 0) {
      side.phase = UNTIL_CLOSE
    } else {
      this.#body(side, head.contentLength)
    }
  }

  #body(side: Side, length: number): void {
    this.#setRemaining(side, length)
    side.phase = length > 0 ? BODY : HEAD
  }

  #tunnel(direction: number): void {
    for (let i = 0; i < 2; i++) {
      // The direction at hand last: its callers hold this very view.
      const side = this.#side(i === 0 ? 1 - direction : direction)
      side.phase = TUNNEL
      side.head.clear()
      this.streams.clear(side.stream)
    }
  }

  /** Notes a request that waits for its response. */
  #expect(state: HttpState, kind: number): void {
    const word = state.outstanding
    const count = word & 15
    if (count < OUTSTANDING_MAX) state.outstanding = (word + 1) | (kind << (4 + 2 * count))
  }

  /** What the oldest request that waits is; plain when none is known. */
  #answered(state: HttpState): number {
    const word = state.outstanding
    const count = word & 15
    if (count === 0) return RequestKind.plain
    state.outstanding = ((word >>> 6) << 4) | (count - 1)
    return (word >>> 4) & 3
  }

  // -- Bodies ----------------------------------------------------------------------------------------------------------

  #setRemaining(side: Side, bytes: number): void {
    side.remainingHigh = bytes < 2147483648 ? 0 : Math.min(65535, Math.floor(bytes / 2147483648))
    side.remaining = bytes & 0x7fffffff
  }

  /** Passes over `bytes` bytes of the body or chunk. */
  #consume(side: Side, bytes: number): void {
    const left = side.remaining - bytes
    if (left < 0) {
      side.remainingHigh--
      side.remaining = left & 0x7fffffff
    } else {
      side.remaining = left
      if (left === 0 && side.remainingHigh === 0) side.phase = side.phase === BODY ? HEAD : CHUNK_SIZE
    }
  }

  /** A chunk's size, after the line end that closes the chunk before. */
  #chunkLine(side: Side, offset: number, end: number): number {
    let from = offset
    let to = end
    const kept = !side.head.isEmpty
    if (!kept) {
      // The line end behind the data of the chunk before; some senders leave it out, or send too many.
      const u8 = this.#arena.u8
      while (offset < end && (u8[offset] === 13 || u8[offset] === 10)) offset++
      if (offset === end) return end
      from = offset
    } else {
      const lf = this.#kernels.findByte(offset, end, 10)
      if (!this.#keep(side, offset, lf < 0 ? end : lf + 1)) return this.#notKept(side, end)
      if (lf < 0) return end
      from = this.#scratch
      to = from + side.head.copyTo(from, this.#scratchBytes)
    }
    const result = this.#chunk.parseChunkSize(from, to)
    if (result === HeadResult.Incomplete) {
      if (!kept) return this.#keep(side, offset, end) ? end : this.#notKept(side, end)
      return offset + (this.#kernels.findByte(offset, end, 10) - offset) + 1
    }
    if (result === HeadResult.Invalid) {
      // Nobody can say where the next message begins (RFC 9112 §7.1).
      side.head.clear()
      this.#sink.anomaly('badMessages')
      side.phase = UNTIL_CLOSE
      return end
    }
    const size = this.#chunk.size
    const next = kept ? this.#kernels.findByte(offset, end, 10) + 1 : this.#chunk.dataOffset
    side.head.clear()
    if (size === 0) {
      side.phase = TRAILER
    } else {
      this.#setRemaining(side, size)
      side.phase = CHUNK_DATA
    }
    return next
  }

  #trailer(side: Side, offset: number, end: number): number {
    if (side.head.isEmpty) {
      const stop = this.#chunk.findTrailerEnd(offset, end)
      if (stop >= 0) {
        side.phase = HEAD
        return stop
      }
      return this.#keep(side, offset, end) ? end : this.#notKept(side, end)
    }
    const before = side.head.length
    if (!this.#keep(side, offset, end)) return this.#notKept(side, end)
    const kept = side.head.copyTo(this.#scratch, this.#scratchBytes)
    const stop = this.#chunk.findTrailerEnd(this.#scratch, this.#scratch + kept)
    if (stop < 0) return end
    side.head.clear()
    side.phase = HEAD
    return offset + (stop - this.#scratch) - before
  }
}
