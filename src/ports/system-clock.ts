/**
 * The machine's clock: microseconds since the Unix epoch at the start of the process, and monotonic from there, so that a clock
 * that is set meanwhile moves nothing. A reading costs some 30 ns and allocates nothing.
 */

import type { Clock, TimeUs } from '../base/clock.ts'

const ORIGIN_US = performance.timeOrigin * 1000

export const systemClock: Clock = {
  now: (): TimeUs => ORIGIN_US + performance.now() * 1000,
}
