/**
 * How surprising it is not to have heard from a node: phi-accrual (Hayashibara, Défago, Yared, Katayama, "The phi accrual failure
 * detector", 2004) over the last heartbeats, with an allowance for pauses.
 *
 *     phi(t) = -log10 P(a heartbeat comes later than t after the last sign of life)
 *
 *     ──♥────♥────♥───────────────────────────────────▶ silence
 *              mean│ jitter │ allowance for pauses │ jitter: phi passes the threshold
 *                    late ▲                          suspect ▲
 *
 * Ordinary jitter and pauses are kept apart, since a mixture of both has no useful variance: intervals enter mean and deviation
 * clipped at four heartbeats, and pauses enter as an allowance that is subtracted from the silence. The allowance is the configured
 * one, or a quarter more than the longest pause that the node itself has owned up to lately, within a bound. What the node
 * does not own up to was the network's doing and teaches nothing about the node.
 */

import type { TimeUs } from '../base/clock.ts'

export interface ArrivalLimits {
  /** Between two heartbeats of a node, µs. */
  readonly heartbeatUs: number
  /** Pauses that are taken for ordinary before any was seen, µs. */
  readonly pauseUs: number
  /** The allowance does not grow beyond this, µs. */
  readonly pauseUsMax: number
  /** Suspicion from here on: 8 is one wrong suspicion in 10^8 intervals, were they normally distributed. */
  readonly phi: number
}

/** Heartbeats that mean and deviation are taken over. */
const WINDOW = 128
/** Until this many have come, the configured interval stands for the mean. */
const SAMPLES_MIN = 8
/** A pause is remembered for one to two of these. */
const MEMORY_US = 300e6
const SMALLEST_PAUSE_US = 1000

/** The chance of a normally distributed value beyond `y` deviations, as -log10. Bowling's logistic approximation (2009). */
export function phiOf(y: number): number {
  const x = y * (1.5976 + 0.070566 * y * y)
  return x > 30 ? x / Math.LN10 : Math.log10(1 + Math.exp(x))
}

/** The number of deviations at which {@link phiOf} reaches `phi`. */
export function deviationsAt(phi: number): number {
  let low = 0
  let high = 100
  for (let i = 0; i < 50; i++) {
    const middle = (low + high) / 2
    if (phiOf(middle) < phi) low = middle
    else high = middle
  }
  return high
}

export class ArrivalEstimator {
  readonly #limits: ArrivalLimits
  readonly #deviations: number
  readonly #intervals = new Float64Array(WINDOW)
  #samples = 0
  #sum = 0
  #squares = 0
  #heartbeatAt: TimeUs
  #heardAt: TimeUs
  /** Longest pauses of this and the last stretch of time. */
  #pause = 0
  #formerPause = 0
  #memoryUntil: TimeUs

  constructor(limits: ArrivalLimits, now: TimeUs) {
    this.#limits = limits
    this.#deviations = deviationsAt(limits.phi)
    this.#heartbeatAt = this.#heardAt = now
    this.#memoryUntil = now + MEMORY_US
  }

  /** The last sign of life, of whatever kind. */
  get heardAt(): TimeUs {
    return this.#heardAt
  }

  /** The last heartbeat. */
  get heartbeatAt(): TimeUs {
    return this.#heartbeatAt
  }

  /** A heartbeat has come; the node says that it stood still for as long as `pausedUs` since the one before. */
  heartbeat(now: TimeUs, pausedUs: number): void {
    const interval = Math.min(Math.max(0, now - this.#heartbeatAt - pausedUs), 4 * this.#limits.heartbeatUs)
    const at = this.#samples % WINDOW
    if (this.#samples >= WINDOW) {
      const old = this.#intervals[at] as number
      this.#sum -= old
      this.#squares -= old * old
    }
    this.#intervals[at] = interval
    this.#sum += interval
    this.#squares += interval * interval
    this.#samples++
    this.#heartbeatAt = now
    this.heard(now)
    if (pausedUs >= SMALLEST_PAUSE_US) this.#pause = Math.max(this.#pause, pausedUs)
    if (now >= this.#memoryUntil) {
      this.#formerPause = this.#pause
      this.#pause = 0
      this.#memoryUntil = now + MEMORY_US
    }
  }

  /** Some other sign of life: an acknowledgement, a message. */
  heard(now: TimeUs): void {
    if (now > this.#heardAt) this.#heardAt = now
  }

  /** The observer itself stood still until `now`; nobody's silence counts for that long. */
  excuse(pausedUs: number, now: TimeUs): void {
    this.#heardAt = Math.min(now, this.#heardAt + pausedUs)
    this.#heartbeatAt = Math.min(now, this.#heartbeatAt + pausedUs)
  }

  /** Between two heartbeats, µs. */
  get mean(): number {
    return this.#samples < SAMPLES_MIN ? this.#limits.heartbeatUs : this.#sum / Math.min(this.#samples, WINDOW)
  }

  /** Standard deviation of the interval, µs; at least a quarter of the configured one. */
  get deviation(): number {
    const least = this.#limits.heartbeatUs / 4
    if (this.#samples < SAMPLES_MIN) return this.#limits.heartbeatUs / 2
    const count = Math.min(this.#samples, WINDOW)
    const mean = this.#sum / count
    return Math.max(least, Math.sqrt(Math.max(0, this.#squares / count - mean * mean)))
  }

  /** Silence that is put down to a pause, µs. */
  get allowance(): number {
    const { pauseUs, pauseUsMax } = this.#limits
    return Math.max(pauseUs, Math.min(pauseUsMax, 1.25 * Math.max(this.#pause, this.#formerPause)))
  }

  /** Surprise at the silence, pauses allowed for. */
  phi(now: TimeUs): number {
    return phiOf((now - this.#heardAt - this.allowance - this.mean) / this.deviation)
  }

  /** The silence at which phi passes the threshold, µs. */
  get silenceLimit(): number {
    return this.mean + this.allowance + this.#deviations * this.deviation
  }

  isSuspect(now: TimeUs): boolean {
    return now - this.#heardAt >= this.silenceLimit
  }

  /** True while heartbeats are later than jitter explains: a pause, a node with too much to do, or the beginning of silence. */
  isLate(now: TimeUs): boolean {
    return now - this.#heartbeatAt >= this.mean + this.#deviations * this.deviation
  }
}
