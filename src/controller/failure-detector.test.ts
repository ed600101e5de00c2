import { test } from 'node:test'
import assert from 'node:assert/strict'
import { Random } from '../base/random.ts'
import { ArrivalEstimator, deviationsAt, phiOf } from './arrival-estimator.ts'
import {
  defaultDetectorLimits, FailureDetector, quickDetectorLimits, type DetectorLimits, type Health, type PeerWord,
} from './failure-detector.ts'
import { HeartbeatSimulation } from './heartbeat-model.ts'

const HOURS = process.env.NFACTOR_FULL === '1' ? 10 : 0.1
const HOUR_US = 3600e6
const limits = defaultDetectorLimits

/** Healths by node. */
function healths(detector: FailureDetector, now: number): Record<number, Health> {
  return Object.fromEntries(detector.judge(now).map(({ node, health }) => [node, health]))
}

/** Three nodes with heartbeats from `from` to `until`; `words` for each node. */
function beat(detector: FailureDetector, nodes: readonly number[], from: number, until: number,
  words: (node: number, now: number) => PeerWord[] = () => []): void {
  for (let now = from; now < until; now += limits.tickUs) {
    detector.tick(now)
    if ((now - from) % limits.heartbeatUs !== 0) continue
    for (const node of nodes) detector.heartbeat(node, node + 100, 0, words(node, now), now)
  }
}

function threeNodes(): FailureDetector {
  const detector = new FailureDetector(limits)
  detector.watch([1, 2, 3].map((id) => ({ id, incarnation: id + 100 })), 0)
  beat(detector, [1, 2, 3], 0, 2e6)
  return detector
}

test('phi grows with the silence, and its threshold is where it says', () => {
  assert.ok(phiOf(0) > 0.3 && phiOf(0) < 0.31)
  assert.ok(Math.abs(phiOf(deviationsAt(8)) - 8) < 1e-6)
  assert.ok(phiOf(40) > phiOf(39) && Number.isFinite(phiOf(1e6)))
  const arrivals = new ArrivalEstimator(limits, 0)
  for (let now = 0; now < 4e6; now += limits.heartbeatUs) arrivals.heartbeat(now, 0)
  const heard = arrivals.heardAt
  assert.equal(arrivals.isSuspect(heard + arrivals.silenceLimit - 1), false)
  assert.equal(arrivals.isSuspect(heard + arrivals.silenceLimit), true)
  assert.ok(Math.abs(arrivals.phi(heard + arrivals.silenceLimit) - limits.phi) < 1e-3)
  assert.ok(arrivals.isLate(heard + limits.heartbeatUs * 3))
})

test('a node that is known to have been stopped is dead after a short silence, though others heard it a moment ago', () => {
  const detector = threeNodes()
  beat(detector, [2, 3], 2e6, 2.06e6, (_node, now) => [{ peer: 1, heardAgoUs: now - 2e6, owedUs: 0 }])
  assert.deepEqual([...detector.late(2.06e6)], [{ id: 1, incarnation: 101 }])
  detector.learn(1, 101, true, undefined)
  assert.deepEqual(healths(detector, 2.06e6), { 1: 'slow', 2: 'well', 3: 'well' })
  beat(detector, [2, 3], 2.06e6, 2.1e6)
  assert.deepEqual(healths(detector, 2.1e6), { 1: 'dead', 2: 'well', 3: 'well' })
  detector.learn(1, 101, false, undefined)
  assert.deepEqual(healths(detector, 2.1e6), { 1: 'slow', 2: 'well', 3: 'well' }, 'it has been let go on')
  detector.learn(1, 101, true, undefined)
  detector.heartbeat(1, 101, 0, [], 2.1e6)
  assert.deepEqual(healths(detector, 2.1e6), { 1: 'well', 2: 'well', 3: 'well' }, 'it is heard')
})

test('a node whose machine does not answer either is dead after a shorter silence, unless another one hears it, or we hear nobody', () => {
  const silent = (others: readonly number[], words: (node: number, now: number) => PeerWord[] = () => []): [number, Health?][] => {
    const detector = threeNodes()
    const seen: [number, Health?][] = []
    for (let now = 2e6; now < 2.6e6; now += 20_000) {
      beat(detector, others, now, now + 20_000, words)
      for (const { id, incarnation } of detector.late(now + 20_000)) detector.learn(id, incarnation, false, id === 1 ? 1 : undefined)
      const health = healths(detector, now + 20_000)[1]
      if (seen.at(-1)?.[1] !== health) seen.push([now + 20_000 - 2e6, health])
    }
    return seen
  }
  // The last heartbeat came 20 ms before the silence is looked at.
  assert.deepEqual(silent([2, 3]), [[20_000, 'well'], [40_000, 'slow'], [180_000, 'dead']])
  assert.deepEqual(silent([2, 3], (node) => (node === 2 ? [{ peer: 1, heardAgoUs: 50_000, owedUs: 0 }] : [])).map(([, health]) => health),
    ['well', 'slow', 'partitioned'])
  assert.deepEqual(silent([]).map(([, health]) => health), ['well', 'slow', 'unknown'])
})

test('of a machine that does not answer nodes are dead together, but for one that was heard a moment ago', () => {
  for (const [heardAgoUs, isTogether] of [[110_000, true], [70_000, false]] as const) {
    const detector = new FailureDetector(limits)
    detector.watch([1, 2, 3, 4].map((id) => ({ id, incarnation: id + 100 })), 0)
    beat(detector, [1, 2, 3, 4], 0, 2e6)
    // Node 3 has heard node 2 later than node 1.
    const last = 2.18e6 - heardAgoUs
    beat(detector, [3, 4], 2e6, 2.18e6, (node, now) => (node === 3 && now >= last ? [{ peer: 2, heardAgoUs: now - last, owedUs: 0 }] : []))
    for (const { id, incarnation } of detector.late(2.18e6)) detector.learn(id, incarnation, false, 1)
    assert.deepEqual(healths(detector, 2.18e6), { 1: 'dead', 2: isTogether ? 'dead' : 'slow', 3: 'well', 4: 'well' })
    // Each by itself would have to be silent for as long as the first.
    for (const { id, incarnation } of detector.late(2.18e6)) detector.learn(id, incarnation, false, id === 1 ? 2 : 1)
    assert.deepEqual(healths(detector, 2.18e6), { 1: 'dead', 2: 'slow', 3: 'well', 4: 'well' }, 'on another machine')
  }
})

test('a node that owns up to longer pauses is allowed longer silence, within the bound and for a while', () => {
  const arrivals = new ArrivalEstimator(limits, 0)
  let now = 0
  const beats = (until: number, pausedUs: number): void => {
    for (; now < until; now += limits.heartbeatUs) arrivals.heartbeat(now, pausedUs)
  }
  beats(2e6, 0)
  assert.equal(arrivals.allowance, 300_000)
  beats(2.1e6, 400_000)
  assert.equal(arrivals.allowance, 500_000)
  beats(2.2e6, 5e6)
  assert.equal(arrivals.allowance, limits.pauseUsMax)
  beats(700e6, 0)
  assert.equal(arrivals.allowance, 300_000)
})

test('a silent node is dead when nobody hears it, and partitioned when another does', () => {
  for (const isHeardElsewhere of [false, true]) {
    const detector = threeNodes()
    const words = (node: number, now: number): PeerWord[] => (node === 1 ? [] :
      [{ peer: 1, heardAgoUs: isHeardElsewhere ? 1000 : now - 2e6, owedUs: isHeardElsewhere ? 0 : now - 2e6 }])
    beat(detector, [2, 3], 2e6, 2e6 + 200_000, words)
    assert.equal(healths(detector, 2.2e6)[1], 'slow')
    beat(detector, [2, 3], 2.2e6, 2.6e6, words)
    assert.deepEqual(healths(detector, 2.6e6), { 1: isHeardElsewhere ? 'partitioned' : 'dead', 2: 'well', 3: 'well' })
    // It comes back before anybody fenced it.
    beat(detector, [1, 2, 3], 2.6e6, 3e6)
    assert.deepEqual(healths(detector, 3e6), { 1: 'well', 2: 'well', 3: 'well' })
  }
})

test('one who hears nobody is cut off, and calls nobody dead', () => {
  const detector = threeNodes()
  beat(detector, [], 2e6, 4e6)
  assert.equal(detector.isCutOff(4e6), true)
  assert.deepEqual(healths(detector, 4e6), { 1: 'unknown', 2: 'unknown', 3: 'unknown' })
  detector.ended(2, 102)
  assert.equal(healths(detector, 4e6)[2], 'dead')
})

test('when all fall silent together, the one that seems to do so first is not dead', () => {
  const detector = threeNodes()
  // The last heartbeats of two of them come late.
  beat(detector, [], 2e6, 2.15e6)
  beat(detector, [2, 3], 2.15e6, 2.16e6)
  const seen = new Set<Health | undefined>()
  for (let now = 2.16e6; now < 5e6; now += limits.tickUs) {
    detector.tick(now)
    seen.add(healths(detector, now)[1])
  }
  assert.deepEqual([...seen], ['slow', 'unknown'])
})

test('one who hears a minority, while that hears the rest, is cut off', () => {
  const detector = threeNodes()
  beat(detector, [2], 2e6, 3e6, () => [1, 3].map((peer) => ({ peer, heardAgoUs: 1000, owedUs: 0 })))
  assert.equal(detector.isCutOff(3e6), true)
  assert.deepEqual(healths(detector, 3e6), { 1: 'unknown', 2: 'well', 3: 'unknown' })
})

test('the word of the one that is gone counts no longer than its silence', () => {
  const detector = threeNodes()
  // 1 heard 2 until the moment when both go; 3 remains and hears neither.
  beat(detector, [1, 3], 2e6, 2.02e6, (node) => (node === 1 ? [{ peer: 2, heardAgoUs: 0, owedUs: 0 }] : []))
  beat(detector, [3], 2.02e6, 3e6)
  assert.deepEqual(healths(detector, 3e6), { 1: 'dead', 2: 'dead', 3: 'well' })
})

test('acknowledgements are signs of life: a node whose heartbeats stay away is slow', () => {
  const detector = threeNodes()
  for (let now = 2e6; now < 4e6; now += limits.tickUs) {
    detector.tick(now)
    detector.heard(1, 101, now)
    for (const node of [2, 3]) if (now % limits.heartbeatUs === 0) detector.heartbeat(node, node + 100, 0, [], now)
  }
  assert.deepEqual(healths(detector, 4e6), { 1: 'slow', 2: 'well', 3: 'well' })
})

test('lasting silence between two nodes that we hear is reported', () => {
  const detector = threeNodes()
  const words = (node: number, now: number): PeerWord[] => (node === 2 ? [{ peer: 1, heardAgoUs: now - 2e6, owedUs: now - 2e6 }] : [])
  beat(detector, [1, 2, 3], 2e6, 2.3e6, words)
  assert.deepEqual(detector.judge(2.3e6)[0]?.unheardBy, [])
  beat(detector, [1, 2, 3], 2.3e6, 3e6, words)
  assert.deepEqual(detector.judge(3e6).map(({ health, unheardBy }) => [health, unheardBy]), [['well', [2]], ['well', []], ['well', []]])
})

test('a standstill of the observer is nobody\'s silence, and another life no sign of life', () => {
  const detector = threeNodes()
  detector.tick(4e6)
  assert.deepEqual(healths(detector, 4e6), { 1: 'well', 2: 'well', 3: 'well' })
  beat(detector, [2, 3], 4e6, 5e6)
  detector.heartbeat(1, 100, 0, [], 5e6)
  detector.heard(1, 99, 5e6)
  assert.equal(healths(detector, 5e6)[1], 'dead')
  detector.watch([{ id: 1, incarnation: 201 }, { id: 2, incarnation: 102 }, { id: 3, incarnation: 0 }], 5e6)
  assert.deepEqual(healths(detector, 5e6), { 1: 'well', 2: 'well' })
})

/** Wrong verdicts per hour and node, and verdicts of `slow`, in a model without deaths. */
function falseSuspicions(model: DetectorLimits, pauseUsMax: number, hours: number): { dead: number; slow: number } {
  const nodes = 4
  const run = new HeartbeatSimulation({ nodes, limits: model, pauseUsMax, observerPauses: true }, new Random(7))
  const state = new Map<number, [Health, number]>()
  const count = { dead: 0, slow: 0 }
  run.run(hours * HOUR_US, (node, health, now) => {
    const [former, at] = state.get(node) ?? ['well', 0]
    state.set(node, [health, now])
    if (former === health && now - at < 3 * model.tickUs) return
    if (health === 'dead' || health === 'unknown') count.dead++
    else if (health === 'slow') count.slow++
  })
  return { dead: count.dead / hours / nodes, slow: count.slow / hours / nodes }
}

/** Times from a node's end to the verdict, sorted, ms. */
function detectionTimes(model: DetectorLimits, pauseUsMax: number, trials: number): number[] {
  const times: number[] = []
  for (let trial = 0; trial < trials; trial++) {
    const run = new HeartbeatSimulation({ nodes: 2, limits: model, pauseUsMax, observerPauses: true }, new Random(1000 + trial))
    run.run(5e6, () => {})
    const dies = run.now + trial * 137 % model.heartbeatUs
    const [first] = run.nodes
    assert.ok(first !== undefined)
    first.stopsAt = dies
    let found = 0
    while (found === 0 && run.now < dies + 5e6) {
      run.run(run.now + model.tickUs, (node, health, now) => { if (node === 1 && health === 'dead') found ||= now })
    }
    times.push((found - dies) / 1000)
  }
  return times.sort((a, b) => a - b)
}

test('no wrong suspicion under load, bursts, losses and pauses, and death is found in time', (t) => {
  const profiles: [string, DetectorLimits, number][] = [
    ['default, pauses of up to 300 ms', limits, 300_000], ['quick, no pauses', quickDetectorLimits, 0],
    ['quick, pauses of up to 300 ms', quickDetectorLimits, 300_000]]
  for (const [name, model, pauseUsMax] of profiles) {
    const wrong = falseSuspicions(model, pauseUsMax, HOURS)
    const times = detectionTimes(model, pauseUsMax, HOURS < 1 ? 40 : 1000)
    const at = (share: number): number => times[Math.min(times.length - 1, Math.floor(times.length * share))] as number
    t.diagnostic(`${name}: per node and hour ${wrong.dead.toFixed(2)} wrong suspicions, ${wrong.slow.toFixed(0)} times slow; ` +
      `death found after ${at(0.5).toFixed(0)} ms (median), ${at(0.99).toFixed(0)} (p99), ${at(1).toFixed(0)} (longest)`)
    if (name.startsWith('default')) {
      assert.equal(wrong.dead, 0)
      assert.ok(at(1) < 1000)
    } else if (name.endsWith('no pauses')) {
      assert.equal(wrong.dead, 0)
      assert.ok(at(0.99) < 150)
    } else {
      // What it is not made for: pauses that it learns of only by their coming. They are few.
      assert.ok(wrong.dead < 60)
    }
  }
})
