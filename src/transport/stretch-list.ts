/**
 * Stretch list: which parts of a stream are there although something before them is missing. A sorted list of at most `max`
 * stretches [from, to) of 32-bit sequence numbers, which wrap around; stretches that meet become one. Nothing is allocated.
 */

export class StretchList {
  readonly #max: number
  readonly #bounds: Int32Array
  #count = 0

  constructor(max: number) {
    this.#max = max
    this.#bounds = new Int32Array(max * 2)
  }

  get count(): number {
    return this.#count
  }

  from(index: number): number {
    return this.#bounds[index * 2]
  }

  to(index: number): number {
    return this.#bounds[index * 2 + 1]
  }

  clear(): void {
    this.#count = 0
  }

  /** Enters a stretch that is not empty; false, and nothing is changed, when it would be one too many. */
  add(from: number, to: number): boolean {
    const bounds = this.#bounds
    // Those from `first` up to, not including, `last` meet the new one. Most often it is at the end.
    let last = this.#count
    while (last > 0 && ((bounds[last * 2 - 2] - to) | 0) > 0) last--
    let first = last
    while (first > 0 && ((bounds[first * 2 - 1] - from) | 0) >= 0) first--
    if (first === last) {
      if (this.#count === this.#max) return false
      bounds.copyWithin(first * 2 + 2, first * 2, this.#count * 2)
      this.#count++
    } else {
      if (((bounds[first * 2] - from) | 0) < 0) from = bounds[first * 2]
      if (((bounds[last * 2 - 1] - to) | 0) > 0) to = bounds[last * 2 - 1]
      bounds.copyWithin(first * 2 + 2, last * 2, this.#count * 2)
      this.#count -= last - first - 1
    }
    bounds[first * 2] = from
    bounds[first * 2 + 1] = to
    return true
  }

  /** Takes off what is at or before `at`; returns how far from there on nothing is missing. */
  advance(at: number): number {
    const bounds = this.#bounds
    let used = 0
    while (used < this.#count && ((bounds[used * 2] - at) | 0) <= 0) {
      if (((bounds[used * 2 + 1] - at) | 0) > 0) at = bounds[used * 2 + 1]
      used++
    }
    if (used > 0) {
      bounds.copyWithin(0, used * 2, this.#count * 2)
      this.#count -= used
    }
    return at
  }
}
