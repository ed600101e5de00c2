/**
 * Seeded pseudo-random numbers: xoshiro128** (Blackman and Vigna, "Scrambled linear pseudorandom number generators",
 * 2021) seeded through splitmix32. The same seed gives the same sequence on every machine. Not for secrets.
 */

export class Random {
  #a = 0
  #b = 0
  #c = 0
  #d = 0

  constructor(seed: number) {
    let state = seed | 0
    const next = (): number => {
      state = (state + 0x9e3779b9) | 0
      let z = state
      z = Math.imul(z ^ (z >>> 16), 0x21f0aaad)
      z = Math.imul(z ^ (z >>> 15), 0x735a2d97)
      return z ^ (z >>> 15)
    }
    this.#a = next()
    this.#b = next()
    this.#c = next()
    this.#d = next() | 1
  }

  /** A uniformly distributed signed 32-bit integer. */
  int32(): number {
    const t = this.#b << 9
    let r = Math.imul(this.#b, 5)
    r = Math.imul((r << 7) | (r >>> 25), 9)
    this.#c ^= this.#a
    this.#d ^= this.#b
    this.#b ^= this.#c
    this.#a ^= this.#d
    this.#c ^= t
    this.#d = (this.#d << 11) | (this.#d >>> 21)
    return r
  }

  /** A uniformly distributed integer in `0 <= n < bound`, `bound` at most 2^32. */
  below(bound: number): number {
    return Math.floor(((this.int32() >>> 0) / 4294967296) * bound)
  }

  /** A uniformly distributed integer in `low <= n <= high`. */
  between(low: number, high: number): number {
    return low + this.below(high - low + 1)
  }

  /** A double in `0 <= x < 1`. */
  fraction(): number {
    return (this.int32() >>> 0) / 4294967296
  }

  /** True with the given probability. */
  chance(probability: number): boolean {
    return this.fraction() < probability
  }

  /** One element of a non-empty list. */
  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)] as T
  }

  /** Puts the list into a random order, in place. */
  shuffle<T>(items: T[]): T[] {
    for (let i = items.length - 1; i > 0; i--) {
      const j = this.below(i + 1)
      const x = items[i] as T
      items[i] = items[j] as T
      items[j] = x
    }
    return items
  }

  /** Fills a byte array. */
  fill(bytes: Uint8Array): Uint8Array {
    for (let i = 0; i < bytes.length; i++) bytes[i] = this.int32()
    return bytes
  }
}
