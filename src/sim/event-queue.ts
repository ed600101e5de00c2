/**
 * Event queue: what happens next in simulated time. A binary heap; events of the same time happen in the order they were added, so
 * that a run depends on its seed alone.
 *
 * An alarm is an event that is planned anew again and again, like a node's next turn: only its last time counts.
 *
 * PERF: a simulation takes some ten thousand events, most of them turns and frames. The heap is numbers in flat arrays, and an event may
 * carry what it is about, so that its function need not be made anew for each. Alarms are few: they are not in the heap.
 */

import type { TimeUs } from '../base/clock.ts'

type Run = (about: any, number: number) => void

/** See `EventQueue.alarm`. */
export interface Alarm {
  /** Infinity while it is not set. */
  at: TimeUs
  order: number
  readonly run: () => void
}

const NEVER: Alarm = { at: Infinity, order: Infinity, run: () => undefined }
const FIRST_SIZE = 256

export class EventQueue {
  now: TimeUs = 0
  #order = 0
  #size = 0
  /** The heap: when, and the place of the rest. */
  #times = new Float64Array(FIRST_SIZE)
  #places = new Int32Array(FIRST_SIZE)
  /** By place. */
  #orders = new Float64Array(FIRST_SIZE)
  #numbers = new Float64Array(FIRST_SIZE)
  readonly #runs: (Run | null)[] = []
  readonly #abouts: unknown[] = []
  readonly #free: number[] = []
  readonly #alarms: Alarm[] = []
  /** The next of the alarms. */
  #next: Alarm = NEVER

  get size(): number {
    return this.#size
  }

  at(time: TimeUs, run: () => void): void
  at<A>(time: TimeUs, run: (about: A, number: number) => void, about: A, number?: number): void
  /** Something that happens at a time, or now if that is over. */
  at(time: TimeUs, run: Run, about: unknown = null, number = 0): void {
    const at = Math.max(time, this.now)
    let place = this.#free.pop()
    if (place === undefined) {
      place = this.#runs.length
      if (place === this.#times.length) this.#grow()
    }
    const order = this.#order++
    this.#orders[place] = order
    this.#numbers[place] = number
    this.#runs[place] = run
    this.#abouts[place] = about
    const times = this.#times
    const places = this.#places
    let index = this.#size++
    // What was added before goes first where the times are the same.
    while (index > 0) {
      const parent = (index - 1) >> 1
      if (times[parent] <= at) break
      times[index] = times[parent]
      places[index] = places[parent]
      index = parent
    }
    times[index] = at
    places[index] = place
  }

  after(us: number, run: () => void): void {
    this.at(this.now + us, run)
  }

  /** An alarm, not set yet. */
  alarm(run: () => void): Alarm {
    const alarm = { at: Infinity, order: 0, run }
    this.#alarms.push(alarm)
    return alarm
  }

  /** Sets an alarm to another time; Infinity: it is not to happen. */
  set(alarm: Alarm, time: TimeUs): void {
    alarm.at = Math.max(time, this.now)
    alarm.order = this.#order++
    if (alarm === this.#next) this.#findNext()
    else if (alarm.at < this.#next.at) this.#next = alarm
  }

  #findNext(): void {
    let next = NEVER
    const alarms = this.#alarms
    for (let i = 0; i < alarms.length; i++) {
      const alarm = alarms[i]
      if (alarm.at < next.at || (alarm.at === next.at && alarm.order < next.order)) next = alarm
    }
    this.#next = next
  }

  #grow(): void {
    const larger = <T extends Float64Array | Int32Array>(array: T, next: T): T => {
      next.set(array)
      return next
    }
    const size = this.#times.length * 2
    this.#times = larger(this.#times, new Float64Array(size))
    this.#places = larger(this.#places, new Int32Array(size))
    this.#orders = larger(this.#orders, new Float64Array(size))
    this.#numbers = larger(this.#numbers, new Float64Array(size))
  }

  /** Lets the next event happen; false when there is none up to `until`. */
  step(until: TimeUs): boolean {
    const at = this.#size === 0 ? Infinity : this.#times[0]
    const alarm = this.#next
    const first = Math.min(at, alarm.at)
    if (first > until || first === Infinity) {
      this.now = Math.max(this.now, until)
      return false
    }
    if (alarm.at < at || (alarm.at === at && alarm.order < this.#orders[this.#places[0]])) {
      this.now = alarm.at
      alarm.at = Infinity
      this.#findNext()
      alarm.run()
      return true
    }
    const place = this.#places[0]
    const run = this.#runs[place] as Run
    const about = this.#abouts[place]
    const number = this.#numbers[place]
    this.#runs[place] = this.#abouts[place] = null
    this.#free.push(place)
    if (--this.#size > 0) this.#sink(this.#times[this.#size], this.#places[this.#size])
    this.now = at
    run(about, number)
    return true
  }

  /** Puts the last of the heap where the first was, and from there down to where it belongs. */
  #sink(at: TimeUs, place: number): void {
    const times = this.#times
    const places = this.#places
    const orders = this.#orders
    const size = this.#size
    const order = orders[place]
    let index = 0
    for (;;) {
      let child = index * 2 + 1
      if (child >= size) break
      const other = child + 1
      if (other < size && (times[other] < times[child] || (times[other] === times[child] && orders[places[other]] < orders[places[child]]))) {
        child = other
      }
      if (at < times[child] || (at === times[child] && order < orders[places[child]])) break
      times[index] = times[child]
      places[index] = places[child]
      index = child
    }
    times[index] = at
    places[index] = place
  }
}
