/**
 * Stream receiver: the receiving half of a session (session.ts). It puts stretches of the peer's stream into their order and
 * delivers the messages in it, each once, in one piece and 8-aligned.
 *
 *     ... | delivered | part of a message | - - missing - - | came early | - - ...
 *                delivered            contiguous
 *
 * A stretch that comes in its turn is delivered from where it lies. Only what is early, or the part of a message, is copied into
 * the ring; the area behind the ring lets a message lie in one piece where the ring begins again. No length in it is trusted:
 * what cannot be a message is treated as if it and all behind it had not come.
 */

import type { Arena } from '../memory/arena.ts'
import { planted } from '../base/planted-bugs.ts'
import type { SessionStatistics } from './session-statistics.ts'
import { StretchList } from './stretch-list.ts'

/** Where a stream begins: not far from where positions wrap around, so that every session and every test gets there. */
export const STREAM_START = 0x7fffff00
/** Stretches that came early, kept at most. */
const EARLY_MAX = 32

export class StreamReceiver {
  /** All before this has come. */
  contiguous = STREAM_START
  /** All messages before this have been delivered. */
  delivered = STREAM_START
  readonly early = new StretchList(EARLY_MAX)
  readonly #arena: Arena
  readonly #mask: number
  readonly #ringUnits: number
  readonly #messageBytesMax: number
  readonly #in: number
  readonly #statistics: SessionStatistics
  readonly #onMessage: (offset: number, bytes: number) => void
  /** Counts new beginnings, so that a delivery notices one from within a message. */
  #life = 0
  /** Where the last stretch began that was delivered from where it lay. */
  #lastTaken = 0

  constructor(arena: Arena, ringBytes: number, messageBytesMax: number, statistics: SessionStatistics,
    onMessage: (offset: number, bytes: number) => void) {
    this.#arena = arena
    this.#mask = ringBytes - 1
    this.#ringUnits = ringBytes >> 3
    this.#messageBytesMax = messageBytesMax
    this.#in = arena.allocate('session: received', ringBytes + ((messageBytesMax + 15) & ~7))
    this.#statistics = statistics
    this.#onMessage = onMessage
  }

  /** Begins anew with a stream of another life. */
  reset(): void {
    this.contiguous = this.delivered = STREAM_START
    this.early.clear()
    this.#life++
    this.#lastTaken = 0
  }

  /** Takes `units` units at `data` that stand at `sequence` in the stream. Messages may be delivered from within it. Hot. */
  take(sequence: number, units: number, data: number): void {
    const ahead = (sequence - this.contiguous) | 0
    if (ahead + units <= 0) {
      this.#statistics.duplicates++
      if (planted['duplicates-delivered'] && sequence === this.#lastTaken) this.#deliverFrom(data, units)
      return
    }
    if (((sequence + units - this.delivered) | 0) > this.#ringUnits) {
      this.#statistics.beyondWindow++
      return
    }
    if (ahead > 0) {
      this.#statistics.early++
      if (this.early.add(sequence, (sequence + units) | 0)) this.#keep(data, sequence, units)
      else this.#statistics.beyondWindow++
      return
    }
    if (ahead === 0 && this.delivered === sequence) {
      this.#lastTaken = sequence
      const life = this.#life
      const used = this.#deliverFrom(data, units)
      if (this.#life !== life) return
      if (used < 0) {
        this.delivered = this.contiguous = (sequence - used - 1) | 0
        return
      }
      this.delivered = (sequence + used) | 0
      if (used < units) this.#keep(data + (used << 3), this.delivered, units - used)
    } else {
      // Some of it may be there already, and its place in the ring may be in use for what came early.
      this.#keep(data - (ahead << 3), this.contiguous, units + ahead)
    }
    this.contiguous = (sequence + units) | 0
    if (this.early.count > 0) this.contiguous = this.early.advance(this.contiguous)
    if (this.contiguous !== this.delivered) this.#deliverFromRing()
  }

  /** Copies units of the stream into the ring. */
  #keep(data: number, sequence: number, units: number): void {
    const { u8 } = this.#arena
    const start = (sequence << 3) & this.#mask
    const bytes = units << 3
    const first = Math.min(bytes, this.#mask + 1 - start)
    u8.copyWithin(this.#in + start, data, data + first)
    if (first < bytes) u8.copyWithin(this.#in, data + first, data + bytes)
  }

  /** Delivers the whole messages of a frame. Returns their units, or, if one cannot be, minus those before it minus 1. */
  #deliverFrom(data: number, units: number): number {
    const { i32 } = this.#arena
    const life = this.#life
    let used = 0
    while (used < units) {
      const at = data + (used << 3)
      const bytes = i32[at >> 2]
      if (!this.#isPossible(at, bytes)) return -used - 1
      const message = 1 + ((bytes + 7) >> 3)
      if (used + message > units) break
      used += message
      this.#statistics.messagesReceived++
      this.#onMessage(at + 8, bytes)
      if (this.#life !== life) break
    }
    return used
  }

  #isPossible(at: number, bytes: number): boolean {
    if (bytes > 0 && bytes <= this.#messageBytesMax && this.#arena.i32[(at >> 2) + 1] === 0) return true
    this.#statistics.malformed++
    return false
  }

  #deliverFromRing(): void {
    const { i32, u8 } = this.#arena
    const life = this.#life
    const ringEnd = this.#in + this.#mask + 1
    while (this.delivered !== this.contiguous) {
      const start = this.#in + ((this.delivered << 3) & this.#mask)
      const bytes = i32[start >> 2]
      if (!this.#isPossible(start, bytes)) {
        // As if nothing from here on had come.
        this.contiguous = this.delivered
        this.early.clear()
        return
      }
      const units = 1 + ((bytes + 7) >> 3)
      if (((this.contiguous - this.delivered) | 0) < units) return
      const over = start + (units << 3) - ringEnd
      if (over > 0) u8.copyWithin(ringEnd, this.#in, this.#in + over)
      this.delivered = (this.delivered + units) | 0
      this.#statistics.messagesReceived++
      this.#onMessage(start + 8, bytes)
      if (this.#life !== life) return
    }
  }
}
