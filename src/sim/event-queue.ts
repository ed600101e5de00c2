/**
 * Event queue: what happens next in simulated time. A binary heap; events of the same time happen in the order they were added, so
 * that a run depends on its seed alone.
 */

import type { TimeUs } from '../base/clock.ts'

interface Event {
  readonly at: TimeUs
  readonly order: number
  readonly run: () => void
}

export class EventQueue {
  now: TimeUs = 0
  #order = 0
  readonly #heap: Event[] = []

  get size(): number {
    return this.#heap.length
  }

  /** Something that happens at a time, or now if that is over. */
  at(time: TimeUs, run: () => void): void {
    const event = { at: Math.max(time, this.now), order: this.#order++, run }
    const heap = this.#heap
    let index = heap.length
    heap.push(event)
    while (index > 0) {
      const parent = (index - 1) >> 1
      if (before(heap[parent] as Event, event)) break
      heap[index] = heap[parent] as Event
      index = parent
    }
    heap[index] = event
  }

  after(us: number, run: () => void): void {
    this.at(this.now + us, run)
  }

  /** Lets the next event happen; false when there is none up to `until`. */
  step(until: TimeUs): boolean {
    const heap = this.#heap
    const first = heap[0]
    if (first === undefined || first.at > until) {
      this.now = Math.max(this.now, until)
      return false
    }
    const last = heap.pop() as Event
    if (heap.length > 0) this.#sink(last)
    this.now = first.at
    first.run()
    return true
  }

  #sink(event: Event): void {
    const heap = this.#heap
    let index = 0
    for (;;) {
      let child = index * 2 + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && before(heap[child + 1] as Event, heap[child] as Event)) child++
      if (before(event, heap[child] as Event)) break
      heap[index] = heap[child] as Event
      index = child
    }
    heap[index] = event
  }
}

function before(a: Event, b: Event): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order)
}
