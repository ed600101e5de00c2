/**
 * Loss recovery: which parts of a stream are to be sent again. After RFC 6675 (what the peer says has come early shows what is
 * missing) and RFC 8985 (it may be late instead of lost, for a while; what was sent again and is overtaken, too, has been lost again).
 *
 *     una ..... from ......... to ........ next
 *         sent again  │ to be sent again    sent once         what has come early is left out
 */

import type { TimeUs } from '../base/clock.ts'
import { StretchList } from './stretch-list.ts'

/** Stretches that a frame names, at most. */
export const STRETCHES_MAX = 3
/** Evidence that a frame is lost: so many frames behind it have come. */
const LOSS_EVIDENCE = 3
/** Frames sent again at a time-out, and in a turn in which an acknowledgement shows that more are missing. */
const RESENT_AT_TIMEOUT = 4
const RESENT_PER_TURN = 16

export class LossRecovery {
  /** Frames to be sent again now. */
  budget = 0
  /** When what is missing counts as lost; Infinity when nothing is missing. */
  lateUntil: TimeUs = Infinity
  /** The next stretch to be sent again, see {@link findMissing}. */
  from = 0
  #to = 0
  #evidence = 0
  /** The first unit that had not been sent when something was sent again last. */
  #mark = 0
  #una = 0
  #isAgain = false
  /** When what was sent again counts as lost, too, for what was first sent behind it has come. */
  #overtakenUntil: TimeUs = Infinity
  readonly #early = new StretchList(STRETCHES_MAX)

  /** Begins anew with a stream that begins at `start`. */
  reset(start: number): void {
    this.budget = this.#evidence = 0
    this.from = this.#to = this.#una = start
    this.#isAgain = false
    this.lateUntil = this.#overtakenUntil = Infinity
    this.#early.clear()
  }

  /** No acknowledgement in time: all that was sent may be lost. */
  timedOut(una: number, next: number): void {
    this.from = una
    this.#to = next
    this.budget = RESENT_AT_TIMEOUT
  }

  /** All before `una` has come. */
  advance(una: number): void {
    this.#evidence = 0
    this.#una = una
    this.lateUntil = this.#overtakenUntil = Infinity
    if (((this.from - una) | 0) < 0) this.from = una
    if (((this.#to - una) | 0) < 0) this.#to = una
    if (this.#to !== this.from) this.budget = RESENT_PER_TURN
  }

  /** What the peer says has come early, as pairs of words from `at` on. What cannot be is left out. */
  takeStretches(i32: Int32Array, at: number, count: number, una: number, next: number): void {
    this.#early.clear()
    for (let word = at >> 2; word < (at >> 2) + Math.min(count, STRETCHES_MAX) * 2; word += 2) {
      const from = i32[word]
      const to = i32[word + 1]
      if (((from - una) | 0) > 0 && ((to - from) | 0) > 0 && ((next - to) | 0) >= 0) this.#early.add(from, to)
    }
  }

  /** Judges what it says: `frameUnits` is a full frame, `reorderingUs` how late a frame may be. */
  judge(frameUnits: number, now: TimeUs, reorderingUs: number): void {
    const { count } = this.#early
    if (count === 0) return
    let units = 0
    for (let i = 0; i < count; i++) units += (this.#early.to(i) - this.#early.from(i)) | 0
    this.#evidence++
    const isBehind = this.#isAgain && ((this.#early.to(count - 1) - this.#mark) | 0) > 0
    if (isBehind && this.#overtakenUntil === Infinity) this.#overtakenUntil = now + reorderingUs
    if (this.#evidence >= LOSS_EVIDENCE || units >= LOSS_EVIDENCE * frameUnits || now >= this.lateUntil) this.presumeLost(now)
    else if (this.lateUntil === Infinity) this.lateUntil = now + reorderingUs
  }

  /** All that is missing before the last stretch that has come is lost. */
  presumeLost(now: TimeUs): void {
    const isOvertaken = now >= this.#overtakenUntil
    if (isOvertaken) this.#overtakenUntil = Infinity
    this.lateUntil = this.#overtakenUntil
    const { count } = this.#early
    if (count === 0) return
    if (isOvertaken) {
      this.#isAgain = false
      this.from = this.#una
    }
    const to = this.#early.from(count - 1)
    if (((to - this.#to) | 0) > 0) this.#to = to
    if (((this.#to - this.from) | 0) > 0) this.budget = RESENT_PER_TURN
  }

  /** Units missing from `from` on, at most `max`; 0 when nothing more is to be sent again. */
  findMissing(max: number): number {
    let to = this.#to
    for (let i = 0; i < this.#early.count; i++) {
      if (((this.#early.to(i) - this.from) | 0) <= 0) continue
      if (((this.#early.from(i) - this.from) | 0) <= 0) {
        this.from = this.#early.to(i)
      } else {
        if (((to - this.#early.from(i)) | 0) > 0) to = this.#early.from(i)
        break
      }
    }
    return Math.max(0, Math.min((to - this.from) | 0, max))
  }

  /** `units` from `from` on have been sent again; what comes next for the first time begins at `next`. */
  sent(units: number, next: number): void {
    this.from = (this.from + units) | 0
    this.#mark = next
    this.#isAgain = true
    this.budget--
  }
}
