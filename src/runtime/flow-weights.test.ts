/** Flow weights: samples tell who sends most, and an order for a share of the load moves those flows that make it up. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Random } from '../base/random.ts'
import { chooseFlows, FlowWeights, type FlowChoice, type HeavyFlow } from './flow-weights.ts'

/** Shows so many batches of packets, each of a flow that `pick` names, one batch every so many microseconds. */
function show(weights: FlowWeights, batches: number, sizeOf: () => number, pick: () => number, us: number, from = 0): number {
  let now = from
  for (let batch = 0; batch < batches; batch++, now += us) {
    const flows = Array.from({ length: sizeOf() }, pick)
    for (let index = weights.begin(flows.length); index < flows.length;) {
      index = weights.take(index, flows.length, flows[index] * 320, flows[index], now)
    }
  }
  return now
}

/** Flow 1 sends 45% of the packets, flow 2 30%, 400 others the rest. */
function pickOf(random: Random): () => number {
  return () => {
    const draw = random.below(100)
    return draw < 45 ? 1 : draw < 75 ? 2 : 10 + random.below(400)
  }
}

test('heavy flows are found with their shares, whatever the rate and the size of batches', () => {
  const random = new Random(7)
  for (const [batches, size, us] of [[20_000, 32, 100], [4000, 1, 400], [300, 128, 10_000]] as const) {
    const weights = new FlowWeights()
    const now = show(weights, batches, () => 1 + random.below(size), pickOf(random), us)
    const heavy = weights.heavy(now)
    assert.deepEqual(heavy.map(({ flow, record }) => [flow, record]), [[1, 320], [2, 640]])
    for (const [index, share] of [0.45, 0.3].entries()) {
      assert.ok(Math.abs(heavy[index].share - share) < 0.12, `${heavy[index].share} for ${share}`)
    }
  }
})

test('packets of no flow are nobody\'s, and count all the same', () => {
  const random = new Random(5)
  const weights = new FlowWeights()
  const now = show(weights, 4000, () => 8, () => random.below(2), 200)
  const [{ flow, share }, ...others] = weights.heavy(now)
  assert.ok(flow === 1 && Math.abs(share - 0.5) < 0.12 && others.length === 0, `${flow} ${share}`)
})

test('what comes in a rhythm is sampled all the same', () => {
  const weights = new FlowWeights()
  let turn = 0
  // Every eighth packet is of flow 1, and the batches are of eight packets.
  const now = show(weights, 4000, () => 8, () => (turn++ % 8 === 0 ? 1 : 10 + turn % 400), 200)
  const [{ flow, share }] = weights.heavy(now)
  assert.ok(flow === 1 && Math.abs(share - 0.125) < 0.06, `${flow} ${share}`)
})

test('samples are of the last second, and at high rates of a good part of it', () => {
  const random = new Random(3)
  const weights = new FlowWeights()
  let now = show(weights, 50_000, () => 32, () => 1, 32)
  assert.deepEqual(weights.heavy(now).map(({ flow }) => flow), [1])
  // A million packets a second: a burst of 30 ms is a small part of what is known.
  now = show(weights, 1000, () => 32, () => 2, 32, now)
  const [first, second] = weights.heavy(now)
  assert.ok(first.flow === 1 && first.share > 0.8 && (second?.share ?? 0) < 0.2)
  assert.deepEqual(weights.heavy(now + 1_100_000), [], 'too long ago')
  // Where little comes it is sampled again as before, after a while: of 200 packets a second too few to tell, of 1,000 enough.
  now = show(weights, 6000, () => 1, pickOf(random), 1000, now + 2_000_000)
  assert.deepEqual(weights.heavy(now).map(({ flow }) => flow), [1, 2])
  now = show(weights, 400, () => 1, pickOf(random), 5000, now)
  assert.deepEqual(weights.heavy(now), [])
})

const heavyOf = (...shares: number[]): HeavyFlow[] => shares.map((share, index) => ({ flow: index + 1, record: 0, share }))
const brief = ({ heavy, spared, light }: FlowChoice): unknown => [heavy.map(({ flow }) => flow), [...spared], light]

test('a share of the load is made up of heavy flows that fit, and of so many light ones as the rest takes', () => {
  // Two equal ones: one goes, and half of what little the others weigh.
  assert.deepEqual(brief(chooseFlows(0.5, 200, 402, heavyOf(0.48, 0.48))), [[1], [2], 200])
  // Of three that weigh about a third each, one and no more.
  assert.deepEqual(brief(chooseFlows(0.33, 2, 4, heavyOf(0.34, 0.33, 0.32))), [[1], [2, 3], 0])
  // One that is all the load stays, and those that wait behind it go: all of them, if they are not many more than were thought.
  assert.deepEqual(brief(chooseFlows(0.5, 50, 100, heavyOf(0.99))), [[], [1], 99])
  assert.deepEqual(brief(chooseFlows(0.1, 10, 101, heavyOf(0.99))), [[], [1], 20])
  // A little too heavy is better than none, much too heavy is not.
  assert.deepEqual(brief(chooseFlows(0.4, 40, 100, heavyOf(0.48))), [[1], [], 0])
  assert.deepEqual(brief(chooseFlows(0.3, 30, 100, heavyOf(0.48))), [[], [1], 58])
  // Smaller ones fit where larger ones do not.
  assert.deepEqual(brief(chooseFlows(0.2, 2, 10, heavyOf(0.7, 0.15, 0.05))), [[2, 3], [1], 0])
})

test('where nobody is known to be heavy it is the number that goes', () => {
  assert.deepEqual(brief(chooseFlows(0.5, 200, 400, [])), [[], [], 200])
})

test('a choice moves the load nearer to even, never past it by more than it was off', () => {
  const random = new Random(11)
  for (let round = 0; round < 1000; round++) {
    const raw = Array.from({ length: 1 + random.below(6) }, () => 1 + random.below(100))
    const rest = random.below(100)
    const all = raw.reduce((sum, one) => sum + one, rest)
    const heavy = heavyOf(...raw.map((one) => one / all).sort((a, b) => b - a))
    const flows = heavy.length + 100
    const share = (1 + random.below(50)) / 100
    const choice = chooseFlows(share, Math.ceil(share * flows), flows, heavy)
    const moved = choice.heavy.reduce((sum, one) => sum + one.share, choice.light * rest / all / 100)
    assert.ok(moved <= share * 1.25 + rest / all / 100 + 1e-9, `${moved} for ${share}`)
    assert.equal(choice.heavy.length + choice.spared.size, heavy.length)
    assert.ok(choice.light <= 100)
  }
})
