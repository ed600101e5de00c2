/**
 * Latency histogram: counts of values by size, exact up to 255 ticks and to 0.8% above, as an HDR histogram keeps them.
 *
 *     value      0 ..127 │128 ..255 │256 ..511 │512 ..1023 │ ...        each range in 128 buckets, that get twice as
 *     bucket     1 wide  │1         │2         │4          │            wide from range to range
 *
 * A tick is a quarter of a microsecond, the resolution of time in NFactor. Recording allocates nothing and takes a few nanoseconds.
 */

/** Ticks in a microsecond. */
export const TICKS_PER_US = 4
const SUB_BUCKETS = 128
const BUCKETS = 26 * SUB_BUCKETS

export class LatencyHistogram {
  readonly #counts = new Float64Array(BUCKETS)
  #count = 0
  #sum = 0
  #max = 0
  #min = Infinity

  /** Takes a value in ticks, a whole number `0 <= ticks < 2^31`. Hot. */
  record(ticks: number): void {
    let bucket = ticks
    if (ticks >= SUB_BUCKETS) {
      const shift = 24 - Math.clz32(ticks)
      bucket = ((shift + 1) << 7) + (ticks >>> shift) - SUB_BUCKETS
    }
    this.#counts[bucket]++
    this.#count++
    this.#sum += ticks
    if (ticks > this.#max) this.#max = ticks
    if (ticks < this.#min) this.#min = ticks
  }

  get count(): number {
    return this.#count
  }

  /** Microseconds; 0 while there is no value, as all of these. */
  get meanUs(): number {
    return this.#count === 0 ? 0 : this.#sum / this.#count / TICKS_PER_US
  }

  get maxUs(): number {
    return this.#max / TICKS_PER_US
  }

  get minUs(): number {
    return this.#count === 0 ? 0 : this.#min / TICKS_PER_US
  }

  /**
   * The value that `percent` of all values do not exceed, in microseconds: the upper end of its bucket, but no more than the
   * largest value.
   */
  percentileUs(percent: number): number {
    if (this.#count === 0) return 0
    let left = Math.max(1, Math.ceil((percent / 100) * this.#count - 1e-9))
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      left -= this.#counts[bucket]
      if (left <= 0) return Math.min(upperEnd(bucket), this.#max) / TICKS_PER_US
    }
    return this.maxUs
  }

  /** Adds all values of another histogram. */
  add(other: LatencyHistogram): void {
    for (let bucket = 0; bucket < BUCKETS; bucket++) this.#counts[bucket] += other.#counts[bucket]
    this.#count += other.#count
    this.#sum += other.#sum
    this.#max = Math.max(this.#max, other.#max)
    this.#min = Math.min(this.#min, other.#min)
  }

  clear(): void {
    this.#counts.fill(0)
    this.#count = this.#sum = this.#max = 0
    this.#min = Infinity
  }
}

/** The largest value that falls into a bucket. */
function upperEnd(bucket: number): number {
  if (bucket < SUB_BUCKETS) return bucket
  const shift = (bucket >>> 7) - 1
  return ((bucket & 127) + SUB_BUCKETS + 1) * 2 ** shift - 1
}
