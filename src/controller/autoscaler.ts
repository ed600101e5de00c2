/**
 * Autoscaler: how many runtimes there should be. Paper §5.3; docs/decisions/0015 says why this rule.
 *
 * Demand is the sum of the runtimes' loads in runtimes' worth, with what they had to drop. It is smoothed twice:
 *
 *     fast   average over about 2 s: what has to be served now
 *     peak   the highest of the last 2 minutes of an average over about 10 s: what had to be served lately
 *
 *     scale out  if fast / n > high for 1 s, to ceil(fast / target), at least n + 1; n counts those that are being started
 *     scale in   if peak / (n - 1) < low, to n - 1; a minute after the last scale-out, half a minute after any scale-in, and only
 *                while nothing else is under way
 *
 *     0        low 0.6     target 0.65     high 0.8      1
 *     ├───────────┼──────────────┼─────────────┼─────────┤  load of each runtime
 *      one less   │ nothing      │ what a scale-out aims for
 *      would do   │ happens      │              │ one more is needed
 *
 * No oscillation: after a scale-in each runtime has less than `low` of the demand of the last two minutes, and another comes only if the
 * fast average then exceeds `high`, a third more. Noise that stays below that never moves anything, whatever its rhythm; after
 * a scale-out to n the load is at least high * (n - 1) / n, and goes below low * (n - 1) / n only when demand falls by a quarter.
 */

import type { TimeUs } from '../base/clock.ts'

export interface AutoscalerLimits {
  readonly runtimesMin: number
  readonly runtimesMax: number
  /** Load of each runtime, 0 to 1. */
  readonly high: number
  readonly target: number
  readonly low: number
  /** Over `high` for so long before anything is done, µs. */
  readonly sustainedUs: number
  readonly fastUs: number
  readonly slowUs: number
  /** The peak is that of so long, µs. */
  readonly peakUs: number
  /** After a scale-out before the next, so that what was started counts, µs. */
  readonly outPauseUs: number
  /** After a scale-out before a scale-in, µs. */
  readonly inAfterOutUs: number
  /** After a scale-in before the next, µs. */
  readonly inPauseUs: number
}

export const defaultAutoscalerLimits: AutoscalerLimits = {
  runtimesMin: 1, runtimesMax: 16, high: 0.8, target: 0.65, low: 0.6, sustainedUs: 1e6, fastUs: 2e6, slowUs: 10e6, peakUs: 120e6,
  outPauseUs: 5e6, inAfterOutUs: 60e6, inPauseUs: 30e6,
}

const PEAK_BUCKETS = 12

export interface LoadSample {
  readonly now: TimeUs
  /** In runtimes' worth. */
  readonly demand: number
  /** Wanted at present: those that serve, and those that are being started. */
  readonly desired: number
  /** When `desired` was changed last. */
  readonly decidedAt: TimeUs
  /** A start, a drain, a recovery or a rollout is under way. */
  readonly isBusy: boolean
}

export interface AutoscalerMemory {
  readonly at: TimeUs
  /** The first sample of this memory. */
  readonly since: TimeUs
  readonly fast: number
  readonly slow: number
  /** Highest slow averages of the last stretches of time, the latest first. */
  readonly peaks: readonly number[]
  readonly bucketAt: TimeUs
  /** Since when the load has been over `high`; Infinity: it is not. */
  readonly overSince: TimeUs
  readonly outAt: TimeUs
  readonly changedAt: TimeUs
  readonly desired: number
}

export interface ScaleDecision {
  readonly desired: number
  readonly reason: string
}

/** The decision, or null, and what to remember. Without memory (a new leader) nothing is scaled in for a while. */
export function autoscale(
  sample: LoadSample, memory: AutoscalerMemory | null, limits: AutoscalerLimits = defaultAutoscalerLimits,
): { decision: ScaleDecision | null; memory: AutoscalerMemory } {
  const { now, demand, desired, decidedAt, isBusy } = sample
  const passed = memory === null ? Infinity : now - memory.at
  const smooth = (former: number, us: number): number => former + (demand - former) * (1 - Math.exp(-passed / us))
  // One sample is no overload yet.
  const fast = memory === null ? Math.min(demand, limits.target * desired) : smooth(memory.fast, limits.fastUs)
  const slow = memory === null ? demand : smooth(memory.slow, limits.slowUs)
  const since = memory?.since ?? now
  let peaks = memory?.peaks ?? [0]
  let bucketAt = memory?.bucketAt ?? now
  if (now - bucketAt >= limits.peakUs / PEAK_BUCKETS) {
    peaks = [0, ...peaks].slice(0, PEAK_BUCKETS + 1)
    bucketAt = now
  }
  peaks = [Math.max(peaks[0] as number, slow), ...peaks.slice(1)]
  const peak = Math.max(...peaks)
  const isOver = fast > limits.high * desired
  const overSince = isOver ? Math.min(memory?.overSince ?? now, now) : Infinity
  // Somebody has changed it since, another leader perhaps, by a clock that may be ahead of ours.
  const changed = Math.min(decidedAt, now)
  const outAt = memory === null || desired > memory.desired ? changed : memory.outAt
  const changedAt = memory === null || desired !== memory.desired ? changed : memory.changedAt
  const next = { at: now, since, fast, slow, peaks, bucketAt, overSince, outAt, changedAt, desired }
  const decide = (wanted: number, reason: string): { decision: ScaleDecision | null; memory: AutoscalerMemory } => {
    const bounded = Math.min(limits.runtimesMax, Math.max(limits.runtimesMin, wanted))
    return { decision: bounded === desired ? null : { desired: bounded, reason }, memory: next }
  }
  if (desired < limits.runtimesMin || desired > limits.runtimesMax) return decide(desired, 'limits')
  if (isOver && now - overSince >= limits.sustainedUs && now - outAt >= limits.outPauseUs) {
    return decide(Math.max(desired + 1, Math.ceil(fast / limits.target)), `load ${(fast / desired).toFixed(2)} each`)
  }
  if (!isBusy && desired > limits.runtimesMin && peak < limits.low * (desired - 1) && now - since >= limits.peakUs &&
    now - outAt >= limits.inAfterOutUs && now - changedAt >= limits.inPauseUs) {
    return decide(desired - 1, `peak ${peak.toFixed(2)} of ${limits.peakUs / 1e6} s`)
  }
  return { decision: null, memory: next }
}
