/**
 * TCP stream: the bytes of one direction of a connection in order, from segments in any order. RFC 9293 §3.4, §3.10.7.4.
 *
 * A stream is two words in the flow's state: the next sequence number, and a chain of extent blocks with what came too early,
 * sorted, without overlaps, each block tagged with the sequence number of its first byte.
 *
 *     ──────delivered──────┤next      ┌tag────┐ ┌tag──────┐
 *                            a hole   │pending│ │ pending │
 *
 *     segment at next      delivered at once, without copying; then whatever has become next in the chain
 *     before next          a retransmission: only what is new counts
 *     beyond next          kept, within the chain's bound; the reader may say that it need not see the missing bytes
 *     acknowledged hole    the receiver has what we have not: those bytes are lost to us, and reading goes on behind them
 *     no room              the hole is given up in the same way
 *
 * Where two segments disagree about a byte (overlap), policy `first` keeps what came first, `last` what came last; what has
 * been delivered stays delivered under both.
 */

import { chain, i32, struct, type ChainView, type StructView } from '../memory/struct.ts'

/** The state of one direction, 8 bytes. At most `blocks` extent blocks are kept. */
export function tcpStream(blocks: number) {
  return struct({ next: i32, pending: chain({ blocks }) })
}

export interface TcpStreamState extends StructView {
  next: number
  readonly pending: ChainView
}

export type OverlapPolicy = 'first' | 'last'

/** Who reads a stream. `direction` is handed through. */
export interface StreamReader {
  /** Bytes in order, at `offset` up to `end` in the arena; valid only during the call. */
  streamData(direction: number, offset: number, end: number): void
  /** `bytes` bytes will never come. */
  streamGap(direction: number, bytes: number): void
  /** How many of the next bytes the reader does not have to see (a body it only counts). */
  streamSkippable(direction: number): number
  /** `bytes` bytes, at most as many as were skippable, are passed over unseen. */
  streamSkip(direction: number, bytes: number): void
}

export class TcpStreams {
  /** Holes given up because they were acknowledged or there was no room. */
  gaps = 0
  /** Bytes in those holes. */
  gapBytes = 0
  readonly #overlap: OverlapPolicy
  readonly #reader: StreamReader

  constructor(reader: StreamReader, overlap: OverlapPolicy) {
    this.#reader = reader
    this.#overlap = overlap
  }

  /** A segment's payload: `length` bytes at `offset` in the arena, the first with this sequence number. */
  segment(stream: TcpStreamState, direction: number, sequence: number, offset: number, length: number): void {
    const reader = this.#reader
    let ahead = (sequence - stream.next) | 0
    if (ahead !== 0) {
      if (ahead < 0) {
        if (length + ahead <= 0) return
        offset -= ahead
        length += ahead
        sequence = stream.next
        ahead = 0
      } else {
        // A hole that begins in what the reader skips, and that pending data does not interrupt.
        if (ahead > reader.streamSkippable(direction)) {
          this.#keep(stream, direction, sequence, offset, length)
          return
        }
        reader.streamSkip(direction, ahead)
        stream.next = sequence
      }
    }
    if (stream.pending.isEmpty) {
      reader.streamData(direction, offset, offset + length)
      stream.next = (sequence + length) | 0
    } else {
      this.#merge(stream, direction, sequence, offset, length)
    }
  }

  /** Delivers a segment that is next while others are pending. */
  #merge(stream: TcpStreamState, direction: number, sequence: number, offset: number, length: number): void {
    const pending = stream.pending
    const before = (pending.extents.tag(pending.head) - sequence) | 0
    // What is pending came first.
    const part = this.#overlap === 'first' && before < length ? Math.max(0, before) : length
    if (part > 0) {
      this.#reader.streamData(direction, offset, offset + part)
      stream.next = (sequence + part) | 0
    }
    this.#drain(stream, direction)
    if (part < length) this.segment(stream, direction, (sequence + part) | 0, offset + part, length - part)
  }

  /** The receiver has acknowledged everything before `acknowledgement`: it has seen what is missing here. */
  acknowledged(stream: TcpStreamState, direction: number, acknowledgement: number): void {
    for (;;) {
      const missing = (acknowledgement - stream.next) | 0
      if (missing <= 0) return
      const head = stream.pending.head
      const before = head === 0 ? missing : (stream.pending.extents.tag(head) - stream.next) | 0
      this.#gap(stream, direction, before < missing ? before : missing)
      this.#drain(stream, direction)
    }
  }

  /** Forgets what is pending. */
  clear(stream: TcpStreamState): void {
    stream.pending.clear()
  }

  #gap(stream: TcpStreamState, direction: number, bytes: number): void {
    if (bytes <= 0) return
    const reader = this.#reader
    if (bytes <= reader.streamSkippable(direction)) {
      reader.streamSkip(direction, bytes)
    } else {
      this.gaps++
      this.gapBytes += bytes
      reader.streamGap(direction, bytes)
    }
    stream.next = (stream.next + bytes) | 0
  }

  /** Delivers what is pending and has become next. */
  #drain(stream: TcpStreamState, direction: number): void {
    const pending = stream.pending
    const pool = pending.extents
    const reader = this.#reader
    for (;;) {
      const head = pending.head
      if (head === 0) return
      const ahead = (pool.tag(head) - stream.next) | 0
      if (ahead > 0) {
        if (ahead > reader.streamSkippable(direction)) return
        reader.streamSkip(direction, ahead)
        stream.next = (stream.next + ahead) | 0
      }
      const length = pool.length(head)
      const known = ahead < 0 ? -ahead : 0
      if (known < length) {
        const data = pool.dataOffset(head)
        reader.streamData(direction, data + known, data + length)
        stream.next = (stream.next + length - known) | 0
      }
      // The reader may have cleared the stream.
      if (pending.head !== head) continue
      pending.head = pool.next(head)
      pool.give(head)
    }
  }

  /** Keeps bytes that came too early. */
  #keep(stream: TcpStreamState, direction: number, sequence: number, offset: number, length: number): void {
    const pending = stream.pending
    const pool = pending.extents
    let previous = 0
    let block = pending.head
    let blocks = pending.blocks
    const last = this.#overlap === 'last'
    while (length > 0) {
      const distance = block === 0 ? length : (pool.tag(block) - sequence) | 0
      if (distance > 0) {
        // Free space before this block.
        let part = distance < length ? distance : length
        if (part > pool.dataBytes) part = pool.dataBytes
        const fresh = blocks >= pending.blocksMax ? 0 : pool.take()
        if (fresh === 0) {
          this.#overflow(stream, direction, sequence, offset, length)
          return
        }
        blocks++
        pool.setTag(fresh, sequence)
        pool.setLength(fresh, part)
        pool.arena.u8.copyWithin(pool.dataOffset(fresh), offset, offset + part)
        pool.setNext(fresh, block)
        if (previous === 0) pending.head = fresh
        else pool.setNext(previous, fresh)
        previous = fresh
        sequence = (sequence + part) | 0
        offset += part
        length -= part
      } else {
        // Within this block, or behind it.
        const inside = pool.length(block) + distance
        if (inside > 0) {
          const part = inside < length ? inside : length
          if (last) pool.arena.u8.copyWithin(pool.dataOffset(block) - distance, offset, offset + part)
          sequence = (sequence + part) | 0
          offset += part
          length -= part
        }
        previous = block
        block = pool.next(block)
      }
    }
  }

  /** No room for more: the hole is given up, and the rest of the segment is tried again. */
  #overflow(stream: TcpStreamState, direction: number, sequence: number, offset: number, length: number): void {
    const pending = stream.pending
    const head = pending.head
    const to = head === 0 ? sequence : pending.extents.tag(head)
    const before = (to - stream.next) | 0
    const own = (sequence - stream.next) | 0
    this.#gap(stream, direction, own < before ? own : before)
    this.#drain(stream, direction)
    this.segment(stream, direction, sequence, offset, length)
  }
}
