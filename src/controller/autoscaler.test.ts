import { test } from 'node:test'
import assert from 'node:assert/strict'
import { Random } from '../base/random.ts'
import { autoscale, defaultAutoscalerLimits as limits, type AutoscalerMemory } from './autoscaler.ts'
import { runDay, type DayShape } from './day-load.ts'

/** What the autoscaler does with a load, second by second: `[second, desired]` of each decision. */
function decisions(load: (second: number) => number, seconds: number, desired: number, isBusy = false): [number, number][] {
  let memory: AutoscalerMemory | null = null
  let decidedAt = -1e9
  const made: [number, number][] = []
  for (let second = 0; second < seconds; second += 0.25) {
    const now = second * 1e6
    const result = autoscale({ now, demand: load(second), desired, decidedAt, isBusy }, memory, limits)
    memory = result.memory
    if (result.decision === null) continue
    desired = result.decision.desired
    decidedAt = now
    made.push([second, desired])
  }
  return made
}

test('scales out on overload, by as much as is needed at once, and not on a spike', () => {
  const [[at, desired]] = decisions((second) => (second < 10 ? 1.2 : 3.1), 60, 2) as [[number, number]]
  assert.ok(at > 10 && at < 14)
  assert.ok(desired >= 3 && desired <= 5)
  assert.deepEqual(decisions((second) => (second < 10 ? 1.2 : 3.1), 300, 2).at(-1)?.[1], 4)
  assert.deepEqual(decisions((second) => (second % 60 < 0.5 ? 3 : 1.2), 600, 2), [])
})

test('scales in one by one, long after the load has gone, and not below the least', () => {
  const made = decisions((second) => (second < 30 ? 2.2 : 0.2), 900, 4)
  assert.deepEqual(made.map(([, desired]) => desired), [3, 2, 1])
  assert.ok((made[0]?.[0] as number) >= 150)
  assert.ok(made.every(([second], index) => index === 0 || second - (made[index - 1] as [number, number])[0] >= limits.inPauseUs / 1e6))
})

test('while something is under way nothing is scaled in, but out', () => {
  assert.deepEqual(decisions(() => 0.1, 900, 4, true), [])
  assert.equal(decisions(() => 3.9, 60, 4, true).length, 1)
})

test('limits hold, and are brought about', () => {
  assert.deepEqual(decisions(() => 100, 60, 16), [])
  assert.deepEqual(decisions(() => 3, 10, 20), [[0, 16]])
  assert.deepEqual(decisions(() => 0, 10, 0), [[0, 1]])
})

test('a new leader starts from the store: it neither repeats a scale-out nor scales in before it has looked long enough', () => {
  const out = autoscale({ now: 10e6, demand: 3, desired: 3, decidedAt: 9.5e6, isBusy: true }, null, limits)
  const soon = autoscale({ now: 12e6, demand: 3, desired: 3, decidedAt: 9.5e6, isBusy: true }, out.memory, limits)
  assert.deepEqual([out.decision, soon.decision], [null, null])
  // The one before had a clock that was far ahead.
  let memory: AutoscalerMemory | null = null
  let at = 10e6
  for (; at < 30e6; at += 250_000) {
    const result = autoscale({ now: at, demand: 3, desired: 3, decidedAt: 5000e6, isBusy: false }, memory, limits)
    memory = result.memory
    if (result.decision !== null) break
  }
  assert.ok(at < 20e6)
  const calm = decisions(() => 0.5, 119, 3)
  assert.deepEqual(calm, [])
})

test('noise about a steady load moves nothing, whatever its rhythm and the load', () => {
  for (let load = 0.3; load < 4; load += 0.3) {
    for (const period of [0.5, 3, 20, 120, 600]) {
      const made = decisions((second) => load * (1 + 0.12 * Math.sin((2 * Math.PI * second) / period)), 3600, Math.ceil(load / 0.7))
      // It may find its place first; then nothing.
      assert.ok(made.filter(([second]) => second > 600).length === 0, `load ${load.toFixed(1)}, period ${period}: ${JSON.stringify(made)}`)
      assert.ok(made.length <= 1, `load ${load.toFixed(1)}, period ${period}: ${JSON.stringify(made)}`)
    }
  }
  const random = new Random(1)
  assert.ok(decisions(() => 2 * (0.7 + 0.6 * random.fraction()), 7200, 3).length === 0)
})

const day: DayShape = { seed: 5, night: 0.8, peak: 6, noise: 0.1, crowdSeconds: 60, hours: 24 }

test('a day: next to nothing is lost, few runtimes more than the ideal are used, few flows move', (t) => {
  // Without hysteresis, for comparison.
  const nervous = { ...limits, low: 0.79, peakUs: 2e6, slowUs: 2e6, inAfterOutUs: 0, inPauseUs: 0 }
  const all: [string, DayShape, typeof limits][] = [
    ['noise 10%, crowds within 60 s', day, limits], ['noise 10%, crowds within 5 s', { ...day, crowdSeconds: 5 }, limits],
    ['the same without hysteresis', { ...day, crowdSeconds: 5 }, nervous],
    ['no noise', { ...day, noise: 0, crowdSeconds: 0 }, limits], ['noise 20%, crowds within 60 s', { ...day, noise: 0.2 }, limits]]
  const cases = process.env.NFACTOR_FULL === '1' ? all : all.slice(1, 2)
  for (const [name, shape, rule] of cases) {
    const { asked, lost, lossSecondsMax, used, ideal, scaledOut, scaledIn, regretted, flowsMoved, flowsSeen, runtimesMax } = runDay(shape, rule)
    t.diagnostic(`${name}: lost ${((lost / asked) * 1e6).toFixed(1)} of a million (longest ${lossSecondsMax} s), ` +
      `runtimes ${(used / ideal).toFixed(2)} x ideal (at most ${runtimesMax}), out ${scaledOut} in ${scaledIn}, ${regretted} regretted, ` +
      `moved ${((flowsMoved / flowsSeen) * 100).toFixed(2)}% of ${(flowsSeen / 1e6).toFixed(1)} million flows`)
    if (rule === nervous) continue
    assert.ok(lost / asked < 1e-4)
    assert.ok(used / ideal < 1.3)
    assert.ok(regretted <= 8)
    assert.ok(flowsMoved / flowsSeen < 0.01)
  }
})
