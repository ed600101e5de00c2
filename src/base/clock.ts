/**
 * Time as everything below the process layer sees it: handed in, never read.
 *
 * The unit is the microsecond since the Unix epoch, held in a double: exact to a quarter of a microsecond until the
 * year 2255, and one load or store in flat memory.
 */

/** Microseconds since the Unix epoch. */
export type TimeUs = number

/** Source of the current time. */
export interface Clock {
  /** The current time, microseconds since the Unix epoch; never goes back. */
  now(): TimeUs
}

/** A clock that moves only when told to: for tests, the simulator and captures. */
export class ManualClock implements Clock {
  #now: TimeUs

  constructor(startUs: TimeUs = 0) {
    this.#now = startUs
  }

  now(): TimeUs {
    return this.#now
  }

  /** Moves the clock to `timeUs`; an earlier time leaves it where it is. */
  advanceTo(timeUs: TimeUs): void {
    if (timeUs > this.#now) this.#now = timeUs
  }

  advanceBy(durationUs: number): void {
    this.#now += durationUs
  }
}
