/**
 * Opening list: TCP flows whose SYN nobody has answered yet, in the order in which they came, so that a flood of SYNs takes its room from
 * itself: the one that has waited longest goes first. The answer to an honest SYN is there after a round trip; with room for N
 * openings a flood of R per second leaves N / R seconds for that.
 *
 * A ring of record and time of the flow's first packet; what has been answered or has ended since is passed over when its turn comes.
 * Whether a flow is counted stands in its record (`TcpLife.listed`).
 */

import { assert } from '../base/assert.ts'
import type { Arena } from '../memory/arena.ts'
import { FlowFlag, FlowPhase, FlowRecord, TcpLife } from './flow-record.ts'

export class OpeningList {
  /** Flows that are in the list and not answered. */
  size = 0
  readonly #u8: Uint8Array
  readonly #i32: Int32Array
  readonly #f64: Float64Array
  readonly #records: number
  readonly #times: number
  readonly #mask: number
  #first = 0
  #count = 0

  /** @param limit how many are to be in it at most; there is room for as many that are passed over */
  constructor(arena: Arena, limit: number) {
    this.#u8 = arena.u8
    this.#i32 = arena.i32
    this.#f64 = arena.f64
    const slots = 2 ** Math.ceil(Math.log2(Math.max(2, limit * 2)))
    this.#mask = slots - 1
    this.#records = arena.allocate('openings', slots * 4) >> 2
    this.#times = arena.allocate('times of openings', slots * 8) >> 3
  }

  /** Puts a flow behind all others, unless it is in the list. */
  add(record: number): void {
    const u8 = this.#u8
    if ((u8[record + FlowRecord.tcp] & TcpLife.listed) !== 0) return
    u8[record + FlowRecord.tcp] |= TcpLife.listed
    this.size++
    if (this.#count > this.#mask) this.remove(this.#takeOldest())
    const at = (this.#first + this.#count++) & this.#mask
    this.#i32[this.#records + at] = record
    this.#f64[this.#times + at] = this.#f64[(record + FlowRecord.firstSeen) >> 3]
  }

  /** A flow is answered, over, or leaves. */
  remove(record: number): void {
    if (record === 0 || (this.#u8[record + FlowRecord.tcp] & TcpLife.listed) === 0) return
    this.#u8[record + FlowRecord.tcp] &= ~TcpLife.listed
    this.size--
  }

  /**
   * Ends those that have waited longest, while there are too many.
   *
   * @param end ends a flow, or pauses it until its end, or does nothing: then it stays the next one
   */
  shrinkTo(limit: number, budget: number, end: (record: number) => void): void {
    for (let steps = 0; steps < budget && this.size > limit; steps++) {
      const record = this.#takeOldest()
      assert(record !== 0, 'an opening that is counted is in the list')
      end(record)
      const isThere = this.#u8[record + FlowRecord.phase] !== FlowPhase.free
      if (isThere && (this.#u8[record + FlowRecord.flags] & FlowFlag.paused) === 0) return this.#putBack(record)
      this.remove(record)
    }
  }

  /** The flow that has waited longest; it keeps its mark. 0 if there is none. */
  #takeOldest(): number {
    while (this.#count > 0) {
      const at = this.#first
      const record = this.#i32[this.#records + at]
      this.#first = (at + 1) & this.#mask
      this.#count--
      const isSame = this.#u8[record + FlowRecord.phase] !== FlowPhase.free &&
        this.#f64[(record + FlowRecord.firstSeen) >> 3] === this.#f64[this.#times + at]
      if (isSame && (this.#u8[record + FlowRecord.tcp] & TcpLife.listed) !== 0) return record
    }
    return 0
  }

  /** Puts back the flow that was taken last: it is still the oldest. */
  #putBack(record: number): void {
    this.#first = (this.#first - 1) & this.#mask
    this.#count++
    this.#i32[this.#records + this.#first] = record
    this.#f64[this.#times + this.#first] = this.#f64[(record + FlowRecord.firstSeen) >> 3]
  }
}
