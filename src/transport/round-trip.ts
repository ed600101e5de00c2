/**
 * Round trip: how long to wait for an acknowledgement. RFC 6298, with bounds for a network inside one site; the caller keeps
 * Karn's rule and measures nothing that was sent twice.
 */

const RTO_MIN_US = 1000
const RTO_FIRST_US = 20_000
const RTO_MAX_US = 250_000

export class RoundTrip {
  readonly #minUs: number
  /** The smoothed round trip; 0 before the first measurement. */
  smoothed = 0
  /** Retransmission time-out, with back-off. */
  rto = RTO_FIRST_US
  /** Time-outs since anything was heard. */
  timeouts = 0
  #variation = 0
  #base = RTO_FIRST_US

  /** @param minUs the shortest time-out */
  constructor(minUs = RTO_MIN_US) {
    this.#minUs = minUs
  }

  reset(): void {
    this.smoothed = this.#variation = 0
    this.rto = this.#base = RTO_FIRST_US
    this.timeouts = 0
  }

  /** RFC 6298 §2. */
  measured(us: number): void {
    if (this.smoothed === 0) {
      this.smoothed = Math.max(us, 1)
      this.#variation = us / 2
    } else {
      this.#variation += (Math.abs(us - this.smoothed) - this.#variation) / 4
      this.smoothed += (us - this.smoothed) / 8
    }
    this.#base = Math.min(RTO_MAX_US, Math.max(this.#minUs, this.smoothed + 4 * this.#variation))
    this.rto = this.#base
  }

  /** RFC 6298 §5.5. */
  timedOut(): void {
    this.timeouts++
    this.rto = Math.min(this.rto * 2, RTO_MAX_US)
  }

  /** The path works again: what was backed off for silence is not kept. */
  heard(): void {
    this.timeouts = 0
    this.rto = this.#base
  }

  /** How long a frame may come after its successors before it is taken for lost (RFC 8985 §6.2, a quarter of a round trip). */
  get reorderingUs(): number {
    return Math.max(this.smoothed / 4, RTO_MIN_US / 4)
  }
}
