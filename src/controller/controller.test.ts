import { test } from 'node:test'
import assert from 'node:assert/strict'
import { runControlFaults } from './control-faults.ts'
import { ControlSimulation } from './control-simulation.ts'
import { ModelRuntime, ModelSwitch } from './model-nodes.ts'
import type { Intent } from './intents.ts'

/** A cluster with so many runtimes, settled, that is scaled by people. */
function settled(seed: number, desired: number, demand = 1): ControlSimulation {
  const world = new ControlSimulation(seed, undefined, 3, desired, false)
  world.demand = demand
  world.run(30e6)
  assertSettled(world)
  return world
}

function assertSettled(world: ControlSimulation): void {
  assert.deepEqual([world.unsettled(), world.violations], [[], []])
}

function operate(world: ControlSimulation, intent: Intent): void {
  const leader = world.leader()
  assert.ok(leader !== undefined)
  leader.operate(intent)
}

const ids = (world: ControlSimulation): number[] => world.document('cluster')?.config.runtimes.map(({ incarnation }) => incarnation) ?? []

test('a cluster is founded, grows with its load and shrinks again', () => {
  const world = new ControlSimulation(1)
  world.demand = 3.5
  world.run(80e6)
  assertSettled(world)
  const { desired } = world.document('scale') ?? { desired: 0 }
  assert.ok(desired >= 5 && desired <= 6, `${desired} runtimes for a load of 3.5`)
  assert.ok(world.runtimes().every(({ flows }) => flows > 300 && flows < 900))
  const { drained } = world.counts
  world.demand = 0.3
  world.run(120e6)
  assertSettled(world)
  assert.equal(world.document('scale')?.desired, 1)
  assert.equal(world.counts.drained - drained, desired - 1)
})

test('a cluster grows by what its switches drop, though its runtimes say that they have little to do', () => {
  const world = new ControlSimulation(21)
  world.areCoresShared = true
  world.demand = 3.5
  // Once nothing is dropped any more nothing speaks for them: they may be fewer again, but not before.
  let most = 0
  for (let seconds = 0; seconds < 60; seconds++) {
    world.run(1e6)
    if (world.runtimes().every(({ refused }) => refused.length === 0)) most = Math.max(most, world.runtimes().length)
  }
  assert.ok(most >= 4, `${most} runtimes when nothing was dropped`)
  assert.deepEqual(world.violations, [])
  // What an interface loses would be load too, if it came in.
  const other = new ControlSimulation(22)
  other.demand = 1.5
  other.run(60e6)
  const before = other.runtimes().length
  other.missed = 0.9
  other.run(40e6)
  assert.ok(other.runtimes().length > before, `${before} and ${other.runtimes().length} runtimes`)
})

test('a runtime that dies is fenced, recovered and replaced; a switch that comes back gets another life', () => {
  const world = settled(2, 3)
  const [first] = world.runtimes()
  assert.ok(first !== undefined)
  world.end(first, false)
  const gateway = world.nodes.get('switch 1') as ModelSwitch
  const { incarnation } = gateway
  world.run(1e6)
  assert.ok(!ids(world).includes(first.incarnation))
  gateway.restart()
  world.run(10e6)
  assertSettled(world)
  assert.equal(ids(world).length, 3)
  assert.ok(gateway.incarnation > incarnation)
  assert.ok(world.events.some((event) => event.includes('has recovered')))
})

test('a runtime that stands still for 300 ms is not fenced; one that does for long is, and never comes back', () => {
  const world = settled(3, 3)
  const [first, second] = world.runtimes()
  assert.ok(first !== undefined && second !== undefined)
  first.pausedUntil = world.now + 300_000
  world.run(5e6)
  assert.equal(world.counts.fenced, 0)
  second.pausedUntil = world.now + 3e6
  world.run(10e6)
  assert.equal(world.counts.fenced, 1)
  assert.ok(ids(world).includes(first.incarnation) && !ids(world).includes(second.incarnation))
  assertSettled(world)
})

test('who is heard by others is not dead; of two that do not hear each other one goes', () => {
  const world = settled(4, 3)
  const leader = world.hosts.find(({ controller }) => controller === world.leader())
  const [first, second] = world.runtimes()
  assert.ok(leader !== undefined && first !== undefined && second !== undefined)
  world.cut.add(`${leader.name}|${first.id}`)
  world.run(3e6)
  assert.equal(world.counts.fenced, 0)
  world.cut.clear()
  world.run(1e6)
  world.cut.add(`${first.id}|${second.id}`)
  world.run(10e6)
  assert.equal(world.counts.fenced, 1)
  assertSettled(world)
})

test('a leader that hears nobody fences nobody, and gives way to one that does', () => {
  const world = settled(5, 3)
  const leader = world.hosts.find(({ controller }) => controller === world.leader())
  assert.ok(leader !== undefined)
  for (const { id } of world.nodes.values()) world.cut.add(`${leader.name}|${id}`)
  world.run(6e6)
  assert.equal(world.counts.fenced, 0)
  assert.ok(world.leader() !== undefined && world.leader() !== leader.controller)
})

test('two leaders at once: nodes and launcher refuse the deposed', () => {
  const world = settled(6, 2)
  const old = world.hosts.find(({ controller }) => controller === world.leader())
  assert.ok(old?.controller !== undefined && old.controller !== null)
  // Its clock is far too slow, so that its lease seems to last, and it does not hear from the store.
  old.clockSlowUntil = Infinity
  old.store.faults = { ...old.store.faults, isDown: true }
  world.run(8e6)
  const leaders = world.hosts.flatMap(({ controller }) => (controller !== null && controller.term !== 0 ? [controller.term] : []))
  assert.deepEqual(leaders.sort(), [1, 2])
  // The old one sees that flows have to move, the new one cannot say so; the runtime has heard of the new one all the same.
  const next = world.hosts.find(({ controller }) => controller?.term === 2)
  const [first] = world.runtimes()
  assert.ok(first !== undefined && next !== undefined)
  world.cut.add(`${next.name}|${first.id}`)
  first.flows += 1900
  const { flows } = first
  world.run(4e6)
  assert.ok(world.counts.refusedTerms > 0)
  assert.ok(first.flows > flows * 0.7)
  world.cut.clear()
  world.run(10e6)
  assert.ok(first.flows < flows * 0.5)
  world.end(first)
  world.run(20e6)
  assert.equal(ids(world).length, 2)
  old.clockSlowUntil = old.behindUs = 0
  old.store.faults = { ...old.store.faults, isDown: false }
  world.run(5e6)
  assertSettled(world)
})

test('a rollout replaces runtime by runtime, in batches that prove well', () => {
  const world = settled(7, 3, 1.5)
  const before = ids(world)
  operate(world, { kind: 'roll-out', to: 2, isReversible: true, onFailure: 'pause' })
  let most = 0
  for (let i = 0; i < 120; i++) {
    world.run(500_000)
    most = Math.max(most, ids(world).length)
  }
  assertSettled(world)
  assert.equal(world.document('rollout')?.phase, 'done')
  assert.equal(world.document('scale')?.chain, 2)
  assert.ok(world.runtimes().every(({ chain }) => chain === 2))
  assert.ok(ids(world).every((incarnation) => !before.includes(incarnation)))
  assert.equal(most, 4)
  assert.deepEqual(world.events.filter((event) => event.includes('stage')).map((event) => event.slice(-1)), ['1', '2', '3', '3'])
  operate(world, { kind: 'roll-out', to: 2, isReversible: true, onFailure: 'pause' })
  operate(world, { kind: 'pause' })
  world.run(1e6)
  assert.deepEqual(world.outcomes.slice(-2), ['done', 'no-rollout'])
})

/** A cluster in which the new version fails. */
function failing(onFailure: 'pause' | 'roll-back'): ControlSimulation {
  const world = settled(8, 2, 1)
  operate(world, { kind: 'roll-out', to: 2, isReversible: true, onFailure })
  for (let i = 0; i < 200; i++) {
    world.run(100_000)
    for (const one of world.runtimes()) one.nfErrors = one.chain === 2 && one.flows > 0 ? 30 : 0
  }
  return world
}

test('a rollout that fails pauses with few flows hurt, and goes on or back as ordered', () => {
  const world = failing('pause')
  assert.equal(world.document('rollout')?.phase, 'paused')
  assert.match(world.document('rollout')?.reason ?? '', /fail 30\.0 times a second/)
  assert.ok(world.runtimes().filter(({ chain }) => chain === 1).length === 2)
  operate(world, { kind: 'roll-back' })
  world.run(30e6)
  assertSettled(world)
  assert.equal(world.document('rollout')?.phase, 'rolled-back')
  assert.ok(world.runtimes().every(({ chain }) => chain === 1))
})

test('a rollout that fails goes back by itself where it is told to', () => {
  const world = failing('roll-back')
  world.run(20e6)
  assertSettled(world)
  assert.equal(world.document('rollout')?.phase, 'rolled-back')
  assert.equal(world.document('scale')?.chain, 1)
})

test('what people ask for is refused where it makes no sense', () => {
  const world = settled(9, 2)
  for (const intent of [{ kind: 'scale', desired: 0 }, { kind: 'scale', desired: 7 }, { kind: 'scale', desired: 1.5 }, { kind: 'resume' },
    { kind: 'roll-back' }, { kind: 'roll-out', to: 1, isReversible: true, onFailure: 'pause' }, { kind: 'fence', incarnation: 999 },
    { kind: 'fence', incarnation: 0 }] as const) operate(world, intent)
  world.run(1e6)
  assert.deepEqual(world.outcomes, ['out-of-limits', 'out-of-limits', 'out-of-limits', 'no-rollout', 'no-rollout', 'same-version',
    'unknown-node', 'unknown-node'])
  const follower = world.hosts.find(({ controller }) => controller !== world.leader())?.controller
  follower?.operate({ kind: 'scale', desired: 3 })
  world.run(1e6)
  assert.equal(world.outcomes.at(-1), 'not-leader')
  operate(world, { kind: 'fence', incarnation: ids(world)[0] as number })
  operate(world, { kind: 'scale', desired: 3 })
  world.run(10e6)
  assert.deepEqual(world.outcomes.slice(-2), ['done', 'done'])
  assert.equal(ids(world).length, 3)
  assertSettled(world)
})

test('blocks of a pool: each life gets what it wants, and those of the dead come back when nobody uses them', () => {
  const world = settled(10, 3)
  const blocks = (): string[] => world.runtimes().flatMap((one) => [...one.blocks])
  assert.deepEqual([blocks().length, new Set(blocks()).size], [6, 6])
  for (let i = 0; i < 6; i++) {
    world.end(world.runtimes()[0] as ModelRuntime)
    world.run(20e6)
    assert.deepEqual([blocks().length, new Set(blocks()).size], [6, 6])
  }
  assertSettled(world)
})

test('controllers that die at any moment, a bad store, a bad network and dying nodes: nothing is ever wrong, and all settles', (t) => {
  const seeds = process.env.NFACTOR_FULL === '1' ? 1000 : 4
  const from = Number(process.env.NFACTOR_SEED ?? 1)
  const totals: Record<string, number> = {}
  const times: number[] = []
  for (let seed = from; seed < from + seeds; seed++) {
    const { violations, settledUs, unsettled, counts } = runControlFaults(seed)
    assert.deepEqual([violations, settledUs < 0 ? unsettled : []], [[], []], `seed ${seed}`)
    times.push(settledUs)
    for (const [name, count] of Object.entries(counts)) totals[name] = (totals[name] ?? 0) + count
  }
  times.sort((a, b) => a - b)
  t.diagnostic(`${seeds} seeds: ${JSON.stringify(totals)}; settled after ${(times[seeds >> 1] as number) / 1e6} s (median), ` +
    `${(times[seeds - 1] as number) / 1e6} s (longest)`)
  assert.ok((totals.leaders as number) > seeds * 3)
})

test('the same seed is the same run', () => {
  assert.deepEqual(runControlFaults(4), runControlFaults(4))
})
