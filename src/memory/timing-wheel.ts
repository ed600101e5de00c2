/**
 * Hierarchical timing wheel (Varghese and Lauck, "Hashed and hierarchical timing wheels", 1987), scheme 7: constant work
 * to start and stop a timer and, amortised, per tick, whatever the number of timers.
 *
 *     level 0   256 slots of 1 tick           a timer waits in the slot of its deadline, on the lowest level whose
 *     level 1   256 slots of 256 ticks        span covers its distance; when the level below has gone round once,
 *     level 2   256 slots of 65,536 ticks     the next slot's timers move down ("cascade")
 *     level 3   256 slots of 16,777,216 ticks
 *
 * Timers are intrusive: an item is a block in the arena with three words of its own (next, previous, deadline), and is
 * in the wheel at most once. Ticks are 32-bit and wrap; a deadline may lie at most 2^31 - 1 ticks ahead. Every step, also a
 * cascade, moves one item at a time and stops at the budget, so that a million timers in one slot make no pause. Bitmaps
 * of the occupied slots let time jump over empty spans (a capture's night) at once.
 *
 * The deadline is a lower bound on when an item fires: lazily armed timers (idle expiry) are checked by their owner when
 * they fire, and started again if they are not due yet.
 */

import { assert } from '../base/assert.ts'
import type { Arena } from './arena.ts'

const LEVELS = 4
const SLOTS = 256

/** Byte offsets, within an item's block, of the three words that the wheel owns there. */
export interface TimerFields {
  readonly next: number
  readonly previous: number
  readonly deadline: number
}

export class TimingWheel {
  /** Items in the wheel. */
  size = 0
  /** The tick up to which (inclusive) everything has fired, unless the last advance ran out of budget. */
  current = 0
  readonly #i32: Int32Array
  readonly #heads: number
  readonly #bitmap: Int32Array
  readonly #next: number
  readonly #previous: number
  readonly #deadline: number
  /** Levels whose slot at `current` is still to be cascaded, as bits; level 0's bit means its slot is still firing. */
  #pending = 0

  constructor(arena: Arena, name: string, fields: TimerFields) {
    this.#i32 = arena.i32
    this.#heads = arena.allocate(name, LEVELS * SLOTS * 4) >> 2
    this.#bitmap = new Int32Array(LEVELS * SLOTS / 32)
    this.#next = fields.next >> 2
    this.#previous = fields.previous >> 2
    this.#deadline = fields.deadline >> 2
  }

  /** Sets the current tick of an empty wheel. */
  start(tick: number): void {
    assert(this.size === 0, 'only an empty wheel is started')
    this.current = tick | 0
    this.#pending = 0
  }

  /** The deadline of an item that is in the wheel. */
  deadlineOf(item: number): number {
    return this.#i32[(item >> 2) + this.#deadline]
  }

  /** Puts an item in the wheel, to fire at `deadline`; one that is not in the future fires at the next tick. */
  add(item: number, deadline: number): void {
    const i32 = this.#i32
    let distance = (deadline - this.current) | 0
    if (distance <= 0) {
      deadline = (this.current + 1) | 0
      distance = 1
    }
    let level = 0
    if (distance >= 16777216) level = 3
    else if (distance >= 65536) level = 2
    else if (distance >= 256) level = 1
    const slot = (level << 8) | ((deadline >>> (level << 3)) & 255)
    const at = item >> 2
    const head = this.#heads + slot
    const first = i32[head]
    i32[at + this.#deadline] = deadline
    i32[at + this.#next] = first
    i32[at + this.#previous] = -1 - slot
    if (first !== 0) i32[(first >> 2) + this.#previous] = item
    else this.#bitmap[slot >> 5] |= 1 << (slot & 31)
    i32[head] = item
    this.size++
  }

  /** Takes an item out of the wheel. */
  remove(item: number): void {
    const i32 = this.#i32
    const at = item >> 2
    const next = i32[at + this.#next]
    const previous = i32[at + this.#previous]
    if (next !== 0) i32[(next >> 2) + this.#previous] = previous
    if (previous >= 0) {
      i32[(previous >> 2) + this.#next] = next
    } else {
      const slot = -1 - previous
      i32[this.#heads + slot] = next
      if (next === 0) this.#bitmap[slot >> 5] &= ~(1 << (slot & 31))
    }
    this.size--
  }

  /** Moves an item to another deadline. */
  move(item: number, deadline: number): void {
    this.remove(item)
    this.add(item, deadline)
  }

  /**
   * A tick before which nothing fires: the deadline of the earliest item, or an earlier tick at which items must be
   * cascaded. Constant work. Only meaningful when the wheel is not empty.
   */
  nextTick(): number {
    if (this.#pending !== 0) return this.current
    let best = 0
    for (let level = 0; level < LEVELS; level++) {
      const shift = level << 3
      const index = (this.current >>> shift) & 255
      const steps = this.#distanceToOccupied(level, (index + 1) & 255)
      if (steps < 0) continue
      // A slot of level n is reached when the current tick's upper digits become its index, lower digits zero.
      const ticks = ((((this.current >>> shift) + 1 + steps) << shift) - this.current) | 0
      if (best === 0 || ticks < best) best = ticks
    }
    return best === 0 ? (this.current + 0x7fffffff) | 0 : (this.current + best) | 0
  }

  /** Steps from slot `from` (0 to 255) to the next occupied slot of a level, going round; -1 if all are empty. */
  #distanceToOccupied(level: number, from: number): number {
    const base = level << 3
    const bitmap = this.#bitmap
    let word = from >> 5
    let bits = bitmap[base + word] & (-1 << (from & 31))
    for (let i = 0; i <= 8; i++) {
      if (bits !== 0) return ((word << 5) + (31 - Math.clz32(bits & -bits)) - from) & 255
      word = (word + 1) & 7
      bits = bitmap[base + word]
    }
    return -1
  }

  /**
   * Advances to `tick`, firing every item whose deadline has come, at most `budget` steps (an item fired or moved down).
   * The item is out of the wheel when `fire` is called, which may add and remove any items.
   *
   * @returns steps taken; equal to `budget` when there may be more to do
   */
  advance(tick: number, budget: number, fire: (item: number) => void): number {
    const i32 = this.#i32
    let steps = 0
    for (;;) {
      while (this.#pending !== 0) {
        const level = 31 - Math.clz32(this.#pending)
        const slot = (level << 8) | ((this.current >>> (level << 3)) & 255)
        const item = i32[this.#heads + slot]
        if (item === 0) {
          this.#pending &= ~(1 << level)
          continue
        }
        if (steps >= budget) return steps
        steps++
        this.remove(item)
        const deadline = i32[(item >> 2) + this.#deadline]
        if (((deadline - this.current) | 0) <= 0) fire(item)
        else this.add(item, deadline)
      }
      const left = (tick - this.current) | 0
      if (left <= 0) return steps
      if (this.size === 0) {
        this.current = tick | 0
        return steps
      }
      const jump = (this.nextTick() - this.current) | 0
      if (jump > left) {
        this.current = tick | 0
        return steps
      }
      this.current = (this.current + jump) | 0
      this.#pending = 1
      for (let level = 1; level < LEVELS; level++) {
        if ((this.current & ((1 << (level << 3)) - 1)) !== 0) break
        this.#pending |= 1 << level
      }
    }
  }
}
