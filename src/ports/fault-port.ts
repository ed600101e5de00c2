/**
 * Fault port: a bad link around a good port. By chance, from a seed, it loses, doubles, damages, delays and reorders frames, each
 * direction with its own rates, and counts what it does. In a frame's order:
 *
 *     frame ─▶ lost? ─▶ bit changed? ─▶ put aside, until others have passed? ─▶ line ─(due)─▶ out
 *                                        doubled? the copy joins the line ──────┘
 *
 * The *line* is first in, first out: a frame that is late makes those behind it late, so delay alone never reorders. A frame put
 * aside comes back when 1 to `reorderDepth` frames have passed it, or after `reorderUs`.
 *
 * What waits is copied. While as many frames are held as may be, `room` is 0 and nothing is received; only our own messages may still
 * join, RESERVED_PLACES of them. Held frames move on at `receive`, `send`, `flush` and `maintain`. The same seed does the same to the same
 * calls. Not for the fast path: it allocates.
 */

import type { Clock, TimeUs } from '../base/clock.ts'
import { CodedError } from '../base/coded-error.ts'
import { Random } from '../base/random.ts'
import type { Arena } from '../memory/arena.ts'
import { Descriptor, DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import { FRAME_BYTES_MAX, LARGE_SLOT_BYTES, SLOT_FRAME_OFFSET, type PacketPool } from '../packet/packet-pool.ts'
import { SEGMENT_BYTES_OFFSET } from './link-port.ts'
import { systemClock } from './system-clock.ts'
import { PortDirection, WrapperPort, type InnerPort } from './wrapper-port.ts'

/** What goes wrong in one direction. Chances are per frame, 0 to 1, and 0 unless told. */
export interface FaultRates {
  readonly loss?: number
  readonly duplication?: number
  readonly corruption?: number
  readonly reordering?: number
  /** Frames that a reordered one is overtaken by, at most; 3 unless told. And how long it waits for them; a millisecond. */
  readonly reorderDepth?: number
  readonly reorderUs?: number
  readonly delay?: number
  /** How late a delayed frame is, least and most; 100 and 1,000 microseconds unless told. */
  readonly delayUs?: readonly [number, number]
}

export interface FaultPortOptions<P extends InnerPort> {
  readonly arena: Arena
  readonly inner: P
  readonly seed: number
  /** Frames that come in, and frames that go out. */
  readonly in?: FaultRates
  readonly out?: FaultRates
  /** Frames held at once in each direction; 4,096 unless told. */
  readonly held?: number
  readonly clock?: Clock
}

/** What has been done to frames of one direction. */
export interface FaultCounts {
  /** Frames that came. */
  frames: number
  lost: number
  duplicated: number
  corrupted: number
  reordered: number
  delayed: number
  /** Not taken: too many are held, or the inner port is full. Not among `frames`. */
  refused: number
}

/** Bytes before a frame that belong to it. */
const BEFORE = -SEGMENT_BYTES_OFFSET
/** Note of a held frame that may use the reserve. */
const RESERVED = 1
/** Frames that may use the reserve and are held besides as many as may be. */
const RESERVED_PLACES = 64

export class FaultPort<P extends InnerPort = InnerPort> extends WrapperPort<P> {
  readonly #arena: Arena
  readonly #in: FaultLine
  readonly #out: FaultLine
  readonly #clock: Clock
  /** Where a held frame lies while it is sent, as in a slot. */
  readonly #scratch: number

  /** @throws CodedError `NF_CONFIG_INVALID` (a chance or time that is none), `NF_LIMIT` (no room in the arena) */
  constructor(options: FaultPortOptions<P>) {
    super(options.inner)
    const { arena, seed, held = 4096, clock = systemClock } = options
    this.#arena = arena
    this.#clock = clock
    this.#scratch = arena.allocate('fault port', LARGE_SLOT_BYTES) + SLOT_FRAME_OFFSET
    this.#in = new FaultLine(arena, seed, held, options.in ?? {})
    this.#out = new FaultLine(arena, seed ^ 0x6f757421, held, options.out ?? {})
  }

  /** Counts per kind; `direction` as in `PortDirection`. Live. */
  counts(direction: number): Readonly<FaultCounts> {
    return (direction === PortDirection.in ? this.#in : this.#out).counts
  }

  /** Changes what goes wrong from now on; frames that are held keep their times. @throws CodedError `NF_CONFIG_INVALID` */
  setRates(direction: number, rates: FaultRates): void {
    (direction === PortDirection.in ? this.#in : this.#out).setRates(rates)
  }

  /** Frames held now, in both directions. */
  get held(): number {
    return this.#in.held + this.#out.held
  }

  override get room(): number {
    const line = this.#out
    return line.isIdle ? this.inner.room : Math.max(0, line.isWaiting ? line.free : Math.min(this.inner.room, line.free))
  }

  override receive(pool: PacketPool, descriptors: number, max: number): number {
    this.#release()
    const line = this.#in
    if (line.isIdle) return this.inner.receive(pool, descriptors, max)
    const now = this.#clock.now()
    let count = this.#takeHeld(pool, descriptors, 0, max, now)
    // Each frame may have to be held; what is not held is put where it came, behind those before it.
    const wanted = Math.min(max - count, line.free)
    if (wanted <= 0) return count
    const first = descriptors + count * DESCRIPTOR_WORDS
    const came = this.inner.receive(pool, first, wanted)
    const { i32 } = this.#arena
    for (let i = 0; i < came; i++) {
      const from = first + i * DESCRIPTOR_WORDS
      const slot = i32[from + Descriptor.slot]
      if (line.take(i32[from + Descriptor.frame], i32[from + Descriptor.length], i32[from + Descriptor.linkType], true, false, now)) {
        const to = descriptors + count++ * DESCRIPTOR_WORDS
        if (to !== from) i32.copyWithin(to, from, from + DESCRIPTOR_WORDS)
      } else {
        pool.give(slot)
      }
    }
    return this.#takeHeld(pool, descriptors, count, max, now)
  }

  override send(frame: number, length: number): boolean {
    return this.#send(frame, length, false)
  }

  override sendReserved(frame: number, length: number): boolean {
    return this.#send(frame, length, true)
  }

  override flush(): void {
    this.#release()
    super.flush()
  }

  override maintain(now: TimeUs): void {
    this.#release()
    super.maintain(now)
  }

  /** While frames are held there is something to do soon: false. */
  override arm(): boolean {
    return this.held === 0 && super.arm()
  }

  override close(): void {
    this.#in.forget()
    this.#out.forget()
    super.close()
  }

  #send(frame: number, length: number, isReserved: boolean): boolean {
    const line = this.#out
    const { inner } = this
    if (line.isIdle) return isReserved ? inner.sendReserved(frame, length) : inner.send(frame, length)
    if (length > Math.min(FRAME_BYTES_MAX, this.frameBytesMax) || !this.isUp) return inner.send(frame, length)
    // While some wait for room, others may wait behind them.
    const { isWaiting } = line
    this.#release()
    const isFull = !isReserved && inner.room <= 0
    if (line.free <= (isReserved ? -RESERVED_PLACES : 0) || (isFull && !isWaiting)) {
      line.counts.refused++
      return false
    }
    const now = this.#clock.now()
    // A damaged frame is a copy: the caller's is not ours to change.
    if (line.take(frame, length, isReserved ? RESERVED : 0, false, isFull, now)) {
      return isReserved ? inner.sendReserved(frame, length) : inner.send(frame, length)
    }
    this.#release()
    return true
  }

  /** Sends what is due. */
  #release(): void {
    const line = this.#out
    if (line.held === 0) return
    const now = this.#clock.now()
    for (let held = line.due(now); held !== null; held = line.due(now)) {
      const { bytes, note } = held
      const length = bytes.length - BEFORE
      this.#arena.u8.set(bytes, this.#scratch - BEFORE)
      if (!(note === RESERVED ? this.inner.sendReserved(this.#scratch, length) : this.inner.send(this.#scratch, length))) return
      line.drop()
    }
  }

  /** Puts received frames that are due into the batch; returns its new length. */
  #takeHeld(pool: PacketPool, descriptors: number, count: number, max: number, now: TimeUs): number {
    const line = this.#in
    const { i32, u8 } = this.#arena
    for (let held: HeldFrame | null; count < max && (held = line.due(now)) !== null; count++) {
      const { bytes, note } = held
      const length = bytes.length - BEFORE
      const slot = pool.take(length)
      if (slot === 0) break
      const d = descriptors + count * DESCRIPTOR_WORDS
      u8.set(bytes, slot + SLOT_FRAME_OFFSET - BEFORE)
      i32[d + Descriptor.frame] = slot + SLOT_FRAME_OFFSET
      i32[d + Descriptor.length] = length
      i32[d + Descriptor.wireLength] = length
      i32[d + Descriptor.slot] = slot
      i32[d + Descriptor.linkType] = note
      line.drop()
    }
    return count
  }
}

/** A copy of a frame that waits. */
interface HeldFrame {
  /** What is said before the frame about its segments (SEGMENT_BYTES_OFFSET), then the frame. */
  readonly bytes: Uint8Array
  /** Incoming: its link type. Outgoing: whether it may use the reserve. */
  readonly note: number
  due: TimeUs
  /** Frames that are still to pass it, while it is put aside. */
  toPass: number
}

/** One direction: what is held, and what chance does. */
class FaultLine {
  readonly counts: FaultCounts = { frames: 0, lost: 0, duplicated: 0, corrupted: 0, reordered: 0, delayed: 0, refused: 0 }
  readonly #u8: Uint8Array
  readonly #random: Random
  readonly #most: number
  #line: HeldFrame[] = []
  /** Frames of the line that have gone. */
  #gone = 0
  #lastDue: TimeUs = 0
  readonly #aside: HeldFrame[] = []
  #rates: Required<FaultRates> = noFaults
  #isFaultless = true

  constructor(arena: Arena, seed: number, held: number, rates: FaultRates) {
    if (!(Number.isInteger(held) && held >= 2 && held <= 65_536)) {
      throw new CodedError('NF_CONFIG_INVALID', `fault port: ${held} frames cannot be held`, 'Give a whole number from 2 to 65,536')
    }
    this.#u8 = arena.u8
    this.#random = new Random(seed)
    this.#most = held
    this.setRates(rates)
  }

  setRates(rates: FaultRates): void {
    const all = { ...noFaults, ...rates }
    const { loss, duplication, corruption, reordering, delay, delayUs, reorderDepth, reorderUs } = all
    for (const chance of [loss, duplication, corruption, reordering, delay]) {
      if (!(chance >= 0 && chance <= 1)) throw new CodedError('NF_CONFIG_INVALID', `fault port: ${chance} is no chance`, 'Give 0 to 1')
    }
    if (!(delayUs[0] >= 0 && delayUs[1] >= delayUs[0] && reorderUs >= 0 && Number.isInteger(reorderDepth) && reorderDepth >= 1)) {
      throw new CodedError('NF_CONFIG_INVALID', 'fault port: a delay or the depth of reordering is not possible',
        'Give times of at least 0 and a depth of at least 1')
    }
    this.#rates = all
    this.#isFaultless = loss + duplication + corruption + reordering + delay === 0
  }

  get held(): number {
    return this.#line.length - this.#gone + this.#aside.length
  }

  /** Nothing goes wrong, and nothing is held. */
  get isIdle(): boolean {
    return this.#isFaultless && this.held === 0
  }

  /** There are frames in the line, which go first. */
  get isWaiting(): boolean {
    return this.#line.length > this.#gone
  }

  /** Frames that can be held besides those that are. Below 0 while some hold places of the reserve. */
  get free(): number {
    return this.#most - this.held
  }

  /**
   * Decides about a frame. True: it goes on at once, from where it lies, and may have been changed there if `mayChange`. False: it has
   * been lost, or is held as a copy, as it is in any case if it must wait.
   */
  take(frame: number, length: number, note: number, mayChange: boolean, mustWait: boolean, now: TimeUs): boolean {
    const random = this.#random
    const { loss, duplication, corruption, reordering, reorderDepth, reorderUs, delay, delayUs } = this.#rates
    this.counts.frames++
    if (loss > 0 && random.chance(loss)) {
      this.counts.lost++
      return false
    }
    const isCorrupt = corruption > 0 && random.chance(corruption)
    const isReordered = reordering > 0 && random.chance(reordering)
    const isDouble = duplication > 0 && random.chance(duplication)
    let due = Math.max(now, this.#lastDue)
    if (delay > 0 && random.chance(delay)) {
      due = Math.max(due, now + delayUs[0] + random.fraction() * (delayUs[1] - delayUs[0]))
      this.counts.delayed++
    }
    this.#lastDue = due
    let held: HeldFrame | null = null
    if (mustWait || due > now || this.isWaiting || isReordered || (isCorrupt && !mayChange)) {
      held = { bytes: this.#u8.slice(frame - BEFORE, frame + length), note, due, toPass: 0 }
    }
    if (isCorrupt) {
      this.counts.corrupted++
      const bit = random.below(length * 8)
      if (held !== null) held.bytes[BEFORE + (bit >>> 3)] ^= 1 << (bit & 7)
      else this.#u8[frame + (bit >>> 3)] ^= 1 << (bit & 7)
    }
    const copy = isDouble ? { bytes: held?.bytes ?? this.#u8.slice(frame - BEFORE, frame + length), note, due, toPass: 0 } : null
    if (isReordered && held !== null) {
      this.counts.reordered++
      held.toPass = random.between(1, reorderDepth)
      held.due = now + reorderUs
      this.#aside.push(held)
    } else {
      if (held !== null) this.#line.push(held)
      this.#pass(due)
    }
    if (copy !== null && this.free > 0) {
      this.counts.duplicated++
      this.#line.push(copy)
    }
    return held === null
  }

  /** The first frame that is due, if there is one. */
  due(now: TimeUs): HeldFrame | null {
    for (let i = 0; i < this.#aside.length; i++) if ((this.#aside[i] as HeldFrame).due <= now) this.#comeBack(i--, now)
    const first = this.#line[this.#gone]
    return first !== undefined && first.due <= now ? first : null
  }

  /** Takes the first frame of the line away. */
  drop(): void {
    if (++this.#gone === this.#line.length || this.#gone === 1024) {
      this.#line.splice(0, this.#gone)
      this.#gone = 0
    }
  }

  /** Loses all that is held. */
  forget(): void {
    this.#line = []
    this.#gone = 0
    this.#aside.length = 0
    this.#lastDue = 0
  }

  /** A frame passes those put aside. */
  #pass(due: TimeUs): void {
    for (let i = 0; i < this.#aside.length; i++) if (--(this.#aside[i] as HeldFrame).toPass === 0) this.#comeBack(i--, due)
  }

  #comeBack(index: number, due: TimeUs): void {
    const [frame] = this.#aside.splice(index, 1) as [HeldFrame]
    frame.due = due
    this.#line.push(frame)
  }
}

const noFaults: Required<FaultRates> = {
  loss: 0, duplication: 0, corruption: 0, reordering: 0, reorderDepth: 3, reorderUs: 1000, delay: 0, delayUs: [100, 1000],
}
