import { test } from 'node:test'
import assert from 'node:assert/strict'
import { Random } from '../base/random.ts'
import type { ClusterView, RuntimeView, SwitchView } from './cluster-view.ts'
import { demandOf, totalDemandOf } from './cluster-view.ts'
import type { FenceDocument, RolloutDocument, ScaleDocument } from './cluster-state.ts'
import { decideFencing, defaultFencingLimits, fence, recoveryState, type FencingMemory } from './fencing.ts'
import { decideMoves, type MoveMemory } from './flow-moves.ts'
import { MemoryStore } from './memory-store.ts'
import { acceptsTerm, judgeCommand, noCommands, type NodeCommand, type RuntimeReport, type SwitchReport } from './node-commands.ts'
import { leaseBlocks } from './port-blocks.ts'
import { assignReplicas, sameLists, type AssignedRuntime } from './replica-assignment.ts'
import { batchOf, decideRollout, type RolloutMemory } from './rollout.ts'
import { decideScaling, defaultScalingLimits } from './scaling.ts'
import { Draft, StateMirror } from './state-mirror.ts'

const report = (node: number, more: Partial<RuntimeReport> = {}): RuntimeReport => ({
  kind: 'runtime', node, incarnation: node + 100, pausedUs: 0, words: [], configVersion: 5, generation: 3, isReady: true, busyPerMille: 500,
  flows: 1000, packetsPerSecond: 1e6, dropsPerSecond: 0, queueDepth: 0, nfErrorsPerSecond: 0, replicasVersion: 1, recovered: 3,
  order: { number: 0, open: 0, moved: 0, refused: 0 }, isEmpty: false, blocksInUse: [], blocksWanted: [], ...more,
})

const runtime = (id: number, more: Partial<RuntimeView> = {}, reported: Partial<RuntimeReport> = {}): RuntimeView => ({
  id, incarnation: id + 100, health: 'well', hasEnded: false, silenceUs: 0, unheardBy: [], isDraining: false, chain: 1,
  report: report(id, reported), refused: 0, ...more,
})

const gateway = (id: number, more: Partial<SwitchView> = {}): SwitchView => ({
  id, incarnation: id + 100, health: 'well', hasEnded: false, silenceUs: 0, unheardBy: [],
  report: { kind: 'switch', node: id, incarnation: id + 100, pausedUs: 0, words: [], configVersion: 5, generation: 3,
    missed: 0, refused: [] }, ...more,
})

function view(runtimes: readonly RuntimeView[], more: Partial<ClusterView> & { scale?: ScaleDocument } = {}): ClusterView {
  const switches = more.switches ?? [gateway(1), gateway(2)]
  return {
    now: 100e6, term: 4, scale: scale(runtimes.length),
    cluster: { generation: 3, incarnation: 500, chains: Object.fromEntries(runtimes.map(({ incarnation, chain }) => [incarnation, chain])),
      config: { version: 5, clusterId: 1,
        switches: switches.map(({ id, incarnation }) => ({ id, incarnation, side: 'ingress', isHome: true })),
        runtimes: runtimes.map(({ id, incarnation, isDraining }) => ({ id, incarnation, isDraining })) } },
    rollout: undefined, replicas: { version: 0, of: {} }, fences: [], blocks: new Map(), switches, runtimes, starting: [], machines: [], ...more,
  }
}

const scale = (desired: number, more: Partial<ScaleDocument> = {}): ScaleDocument =>
  ({ desired, isAutomatic: true, decision: 1, decidedAt: 0, chain: 1, starting: [], held: [], leaving: [], ...more })

// -- Terms and commands ------------------------------------------------------------------------------------------------

test('a node takes commands of the highest term and higher ones, newer configurations, and each order once', () => {
  assert.deepEqual([acceptsTerm(3, 2), acceptsTerm(3, 3), acceptsTerm(3, 4)], [false, true, true])
  const { config } = view([]).cluster
  const configure = (term: number, version: number, generation: number): NodeCommand =>
    ({ kind: 'configure', term, config: { ...config, version }, generation, fenced: [] })
  const move = (term: number, order: number): NodeCommand => ({ kind: 'move', term, order, target: 1, flows: 1, share: 0 })
  let memory = noCommands
  const verdicts = [configure(2, 5, 1), configure(2, 4, 1), configure(1, 9, 9), configure(2, 5, 1), configure(3, 5, 2), move(3, 1), move(3, 1),
    move(3, 3), move(2, 2), move(4, 2), configure(3, 6, 3),
    { kind: 'set-replicas', term: 4, version: 1, replicas: [] } as const, { kind: 'set-replicas', term: 4, version: 1, replicas: [] } as const,
    { kind: 'recover', term: 4, generation: 3, dead: [] } as const, { kind: 'recover', term: 4, generation: 2, dead: [] } as const,
  ].map((command) => {
    const judged = judgeCommand(memory, command)
    memory = judged.memory
    return judged.verdict
  })
  assert.deepEqual(verdicts, ['take', 'older', 'lower-term', 'repeated', 'take', 'take', 'repeated', 'older', 'lower-term', 'take', 'lower-term',
    'take', 'repeated', 'older', 'take'])
  assert.deepEqual(memory, { term: 4, configVersion: 5, generation: 2, replicasVersion: 1, order: 2 })
})

// -- Fencing -----------------------------------------------------------------------------------------------------------

/** Who is fenced, when a view lasts for some seconds. */
function fencedAfter(seconds: number, of: ClusterView): string[] {
  let memory: FencingMemory = new Map()
  for (let now = of.now; now <= of.now + seconds * 1e6; now += 100_000) {
    const decided = decideFencing({ ...of, now }, memory)
    memory = decided.memory
    if (decided.fenced.length > 0) return decided.fenced.map(({ node, reason }) => `${node} ${reason}`)
  }
  return []
}

test('the dead are fenced together and at once, the partitioned late, those whom we may be cut off from never', () => {
  const well = [3, 4, 5, 6].map((id) => runtime(id))
  assert.deepEqual(fencedAfter(60, view(well)), [])
  assert.deepEqual(fencedAfter(0, view([...well, runtime(7, { health: 'dead' }), runtime(8, { health: 'dead' })])), ['7 dead', '8 dead'])
  assert.deepEqual(fencedAfter(60, view([...well, runtime(7, { health: 'unknown' })])), [])
  const apart = view([...well, runtime(7, { health: 'partitioned' })])
  assert.deepEqual([fencedAfter(29, apart), fencedAfter(30, apart)], [[], ['7 partitioned']])
  assert.deepEqual(fencedAfter(60, view(well, { switches: [gateway(1, { health: 'partitioned' }), gateway(2)] })), [])
  assert.deepEqual(fencedAfter(0, view(well, { switches: [gateway(1, { health: 'dead' }), gateway(2, { incarnation: 0, health: 'unknown' })] })),
    ['1 dead'])
})

test('when most go silent at once it may be the network: they are fenced later; ended processes are not doubted', () => {
  const dead = (silenceUs: number, hasEnded = false): RuntimeView[] => [3, 4, 5, 6].map((id) => runtime(id, {
    health: 'dead', silenceUs, hasEnded }))
  assert.deepEqual(fencedAfter(0, view(dead(500_000))), [])
  assert.equal(fencedAfter(0, view(dead(defaultFencingLimits.massUs))).length, 4)
  assert.equal(fencedAfter(0, view(dead(0, true))).length, 4)
})

test('of two that do not hear each other one is fenced: the one that more miss, a runtime rather than a switch, the younger', () => {
  const switches = (unheardBy: number[]): SwitchView[] => [gateway(1, { unheardBy }), gateway(2)]
  assert.deepEqual(fencedAfter(1.9, view([runtime(3, { unheardBy: [4] }), runtime(4)])), [])
  assert.deepEqual(fencedAfter(2, view([runtime(3, { unheardBy: [4] }), runtime(4)])), ['4 silent'])
  assert.deepEqual(fencedAfter(2, view([runtime(3, { unheardBy: [4, 5] }), runtime(4), runtime(5)])), ['3 silent'])
  assert.deepEqual(fencedAfter(2, view([runtime(3), runtime(4)], { switches: switches([3]) })), ['3 silent'])
  // What one says of itself and we cannot hear either is another matter.
  assert.deepEqual(fencedAfter(9, view([runtime(3, { unheardBy: [4] }), runtime(4, { health: 'unknown' })])), [])
})

test('one transaction fences: configuration without them, the next version, one generation, a list entry each', () => {
  const draft = fence(new Draft(new StateMirror(() => 1), 'test'), view([3, 4, 5].map((id) => runtime(id))), [
    { node: 3, incarnation: 103, reason: 'dead' }, { node: 2, incarnation: 102, reason: 'dead' }])
  const request = draft.toRequest(1)
  assert.ok(request.kind === 'transact')
  const written = new Map(request.changes.map(({ key, value }) => [key, JSON.parse(value as string)]))
  assert.deepEqual([...written.keys()].sort(), ['cluster', 'fence/102', 'fence/103'])
  const { config, generation, chains } = written.get('cluster')
  assert.deepEqual([config.version, generation, Object.keys(chains)], [6, 4, ['104', '105']])
  assert.deepEqual(config.runtimes.map(({ id }: { id: number }) => id), [4, 5])
  assert.deepEqual(config.switches.map(({ id, incarnation }: { id: number; incarnation: number }) => [id, incarnation]), [[1, 101], [2, 0]])
  assert.deepEqual(written.get('fence/103'), { node: 3, incarnation: 103, generation: 4, term: 4, chain: 1, reason: 'dead', isRecovered: false,
    at: view([]).now })
  const store = new MemoryStore().connect()
  store.submit(request, 0)
  assert.equal(store.poll(0)?.kind, 'transacted')
})

test('replicas are promoted when all who can be reached have cut off the dead; it is over when all runtimes say so', () => {
  const stands = (a: Partial<RuntimeReport>, b: Partial<RuntimeView>): unknown => recoveryState(view([runtime(3, {}, a), runtime(4, b)]))
  assert.deepEqual(stands({ generation: 2, recovered: 2 }, {}), { isAcknowledged: false, isRecovered: false })
  assert.deepEqual(stands({ recovered: 2 }, {}), { isAcknowledged: true, isRecovered: false })
  assert.deepEqual(stands({}, { health: 'partitioned', report: null }), { isAcknowledged: true, isRecovered: false })
  assert.deepEqual(stands({}, {}), { isAcknowledged: true, isRecovered: true })
})

// -- Replicas ----------------------------------------------------------------------------------------------------------

const assigned = (ids: readonly number[], draining: readonly number[] = []): AssignedRuntime[] =>
  ids.map((id) => ({ id, incarnation: id + 100, isDraining: draining.includes(id) }))

test('replicas: never itself, nor the draining, nor who is not there; everyone serves as many as the others', () => {
  assert.deepEqual(assignReplicas([], {}), {})
  assert.deepEqual(assignReplicas(assigned([3]), {}), { 3: { incarnation: 103, replicas: [] } })
  const three = assignReplicas(assigned([3, 4, 5]), {})
  assert.deepEqual(Object.values(three).map(({ replicas }) => replicas), [[4, 5], [5, 3], [3, 4]])
  const drained = assignReplicas(assigned([3, 4, 5], [4]), three)
  assert.deepEqual(Object.values(drained).map(({ replicas }) => replicas), [[5], [5, 3], [3]])
})

test('replicas: when one goes, only lists that named it change, by that one; when one comes, it takes its share and no more', () => {
  for (const fanOut of [2, 3, 8]) {
    const before = assignReplicas(assigned([3, 4, 5, 6, 7, 8, 9]), {}, fanOut)
    const without = assignReplicas(assigned([3, 4, 5, 7, 8, 9]), before, fanOut)
    for (const id of [3, 4, 5, 7, 8, 9]) {
      const [old, now] = [before[id]?.replicas ?? [], without[id]?.replicas ?? []]
      assert.deepEqual(old.filter((one) => one !== 6 && !now.includes(one)), [], `fan-out ${fanOut}, ${id}`)
    }
    const again = assignReplicas(assigned([3, 4, 5, 7, 8, 9, 10]), without, fanOut)
    const changed = [3, 4, 5, 7, 8, 9].flatMap((id) => (without[id]?.replicas ?? []).filter((one) => !again[id]?.replicas.includes(one)))
    assert.ok(changed.length <= fanOut, `fan-out ${fanOut}: ${changed.length} moved`)
    assert.ok([3, 4, 5, 7, 8, 9].some((id) => again[id]?.replicas.includes(10)))
  }
})

test('replicas: random changes keep the rules, and move no more than they have to', () => {
  for (let seed = 1; seed <= 200; seed++) {
    const random = new Random(seed)
    const fanOut = random.between(1, 5)
    let ids = Array.from({ length: random.between(1, 12) }, (_, index) => index + 3)
    let lists = assignReplicas(assigned(ids), {}, fanOut)
    for (let change = 0; change < 20; change++) {
      const before = lists
      const draining = ids.filter(() => random.chance(0.1))
      if (random.chance(0.5)) ids = ids.filter(() => random.chance(0.9))
      else ids = [...ids, Math.max(2, ...ids) + 1]
      const runtimes = assigned(ids, draining)
      lists = assignReplicas(runtimes, before, fanOut)
      assert.ok(sameLists(lists, assignReplicas(runtimes, lists, fanOut)), `seed ${seed}: not stable`)
      const partners = runtimes.filter(({ isDraining }) => !isDraining).map(({ id }) => id)
      const served = new Map(partners.map((id) => [id, 0]))
      let moved = 0
      for (const { id } of runtimes) {
        const { replicas } = lists[id] as { replicas: number[] }
        assert.equal(new Set(replicas).size, replicas.length)
        assert.equal(replicas.length, Math.min(fanOut, partners.filter((partner) => partner !== id).length))
        for (const partner of replicas) {
          assert.ok(partner !== id && served.has(partner), `seed ${seed}`)
          served.set(partner, (served.get(partner) as number) + 1)
        }
        moved += before[id]?.replicas.filter((partner) => served.has(partner) && !replicas.includes(partner)).length ?? 0
      }
      const loads = [...served.values()]
      const most = Math.max(0, ...loads)
      assert.ok(most - Math.min(most, ...loads) <= 2, `seed ${seed}: ${loads.join()}`)
      // What moves between runtimes that stay is no more than levels the load: what the newcomers take, and what those that left had to get.
      assert.ok(moved <= runtimes.length * fanOut * 0.5 + fanOut, `seed ${seed}: ${moved} moved`)
    }
  }
})

// -- Moves -------------------------------------------------------------------------------------------------------------

test('demand counts what was dropped', () => {
  assert.equal(demandOf(runtime(3, { report: null })), 0)
  assert.equal(demandOf(runtime(3, {}, { busyPerMille: 600 })), 0.6)
  assert.equal(demandOf(runtime(3, {}, { busyPerMille: 1000, packetsPerSecond: 1e6, dropsPerSecond: 5e5 })), 1.5)
  assert.equal(demandOf(runtime(3, {}, { busyPerMille: 1000, packetsPerSecond: 1, dropsPerSecond: 5e5 })), 4)
})

test('demand counts what switches and interfaces had to drop, whatever the busy fraction says', () => {
  const idle = { busyPerMille: 200, packetsPerSecond: 1e6 }
  const refused = (share: number): number => demandOf(runtime(3, { refused: share }, idle))
  assert.equal(refused(0), 0.2)
  // A few packets in a burst are no overload, one in a hundred is.
  assert.ok(refused(0.001) < 0.3)
  assert.ok(refused(0.01) >= 1)
  assert.equal(refused(0.2), 1.25)
  assert.equal(refused(0.9), 2)
  const total = (missed: number): number => totalDemandOf({ runtimes: [runtime(3, {}, idle), runtime(4, {}, idle)],
    switches: [gateway(1), { ...gateway(2), report: { ...gateway(2).report as SwitchReport, missed } }] })
  assert.equal(total(0), 0.4)
  assert.equal(total(0.2), 0.5)
  assert.equal(total(0.9), 0.8)
})

test('just enough flows move off an overloaded runtime, as far as the others have room', () => {
  const order = (...runtimes: RuntimeView[]): string[] => decideMoves(view(runtimes), new Map(), null).orders
    .map(({ source, target, order: number, flows }) => `${source.id}>${target} #${number} ${flows}`)
  assert.deepEqual(order(runtime(3, {}, { busyPerMille: 790 }), runtime(4, {}, { busyPerMille: 100 })), [])
  // From 0.9 to 0.65 of 900 flows: 250.
  assert.deepEqual(order(runtime(3, {}, { busyPerMille: 900, flows: 900 }), runtime(4, {}, { busyPerMille: 100 })), ['3>4 #1 250'])
  // The one with most room has 0.15.
  assert.deepEqual(order(runtime(3, {}, { busyPerMille: 900, flows: 900, order: { number: 7, open: 0, moved: 0, refused: 0 } }),
    runtime(4, {}, { busyPerMille: 550 }), runtime(5, {}, { busyPerMille: 500 })), ['3>5 #8 150'])
  // All are over it: as far as the mean.
  assert.deepEqual(order(runtime(3, {}, { busyPerMille: 1000, flows: 1000 }), runtime(4, {}, { busyPerMille: 700 })), ['3>4 #1 150'])
  assert.deepEqual(order(runtime(3, {}, { busyPerMille: 900, flows: 1 }), runtime(4, {}, { busyPerMille: 100 })), [])
  // Not to the draining, nor to another chain, nor to one that is out of reach; and one order at a time.
  for (const other of [runtime(4, { isDraining: true }, { flows: 0 }), runtime(4, { chain: 2 }, { busyPerMille: 100 }),
    runtime(4, { health: 'partitioned' }, { busyPerMille: 100 })]) {
    assert.deepEqual(order(runtime(3, {}, { busyPerMille: 900 }), other), [])
  }
  assert.deepEqual(order(runtime(3, {}, { busyPerMille: 900, order: { number: 1, open: 5, moved: 1, refused: 0 } }),
    runtime(4, {}, { busyPerMille: 100 })), [])
})

test('an order says what share of the load is to go, for its runtime to choose by; who is emptied gives all by number', () => {
  const shares = (...runtimes: RuntimeView[]): [number, number][] => decideMoves(view(runtimes), new Map(), null).orders
    .map(({ flows, share }) => [flows, Math.round(share * 1000)])
  // Of 0.9 it has 0.25 too many.
  assert.deepEqual(shares(runtime(3, {}, { busyPerMille: 900, flows: 900 }), runtime(4, {}, { busyPerMille: 100 })), [[250, 278]])
  // More flows than one order is for: their part of it.
  assert.deepEqual(shares(runtime(3, {}, { busyPerMille: 900, flows: 90_000 }), runtime(4, {}, { busyPerMille: 100 })), [[10_000, 111]])
  assert.deepEqual(shares(runtime(3, { isDraining: true }, { busyPerMille: 300, flows: 40 }), runtime(4, {}, { busyPerMille: 100 })), [[40, 0]])
})

test('an order is repeated under its number until it is taken, and the next comes after it has settled', () => {
  let memory: MoveMemory = new Map()
  const numbers: (number | undefined)[] = []
  const at = (seconds: number, source: Partial<RuntimeReport>): void => {
    const decided = decideMoves(view([runtime(3, {}, { busyPerMille: 900, ...source }), runtime(4, {}, { busyPerMille: 100 })],
      { now: 100e6 + seconds * 1e6 }), memory, null)
    memory = decided.memory
    numbers.push(decided.orders[0]?.order)
  }
  at(0, {})
  at(1.1, {})
  at(1.2, { order: { number: 1, open: 100, moved: 0, refused: 0 } })
  at(2, { order: { number: 1, open: 10, moved: 240, refused: 0 } })
  at(2.9, { order: { number: 1, open: 0, moved: 250, refused: 0 } })
  at(3, { order: { number: 1, open: 0, moved: 250, refused: 0 } })
  // The order may have been lost; it is repeated, but not at once.
  at(3.5, { order: { number: 1, open: 0, moved: 250, refused: 0 } })
  at(4.1, { order: { number: 1, open: 0, moved: 250, refused: 0 } })
  assert.deepEqual(numbers, [1, 1, undefined, undefined, undefined, 2, undefined, 2])
})

// -- Scaling -----------------------------------------------------------------------------------------------------------

test('a machine that is back gets its share: one comes there, one goes where there are too many', () => {
  const limits = { ...defaultScalingLimits, firstId: 10 }
  const up = { isUp: true, runtimesMax: 64 }
  // Of two machines, the first has 10, 12, 14, the other one none.
  const all = [10, 12, 14].map((id) => runtime(id, {}, { busyPerMille: 1000 - id }))
  const decide = (runtimes: readonly RuntimeView[], more: Partial<ClusterView> = {}): unknown => {
    const step = decideScaling(view(runtimes, { scale: scale(3), machines: [up, up], ...more }), limits)
    return step === null ? null : [step.kind, 'id' in step ? step.id : 'runtime' in step ? step.runtime.id : 0]
  }
  assert.deepEqual(decide(all), ['start', 11])
  assert.equal(decide(all, { machines: [up, { isUp: false, runtimesMax: 64 }] }), null)
  assert.equal(decide(all, { machines: [up, { isUp: true, runtimesMax: 0 }] }), null)
  const begun = { runtime: { id: 11, incarnation: 300, chain: 1, since: 100e6 }, isReady: false, hasEnded: false }
  assert.equal(decide(all, { starting: [begun] }), null)
  const idle = runtime(11, {}, { busyPerMille: 0 })
  assert.deepEqual(decide([...all, idle]), ['drain', 14], 'not the one with least to do, which has just come')
  assert.equal(decide([...all.slice(0, 2), idle]), null, 'two and one are even')
  assert.deepEqual(decide([...all.slice(0, 2), idle], { scale: scale(2) }), ['drain', 12], 'but the one that goes is of the two')
  assert.equal(decide([runtime(10)], { scale: scale(1) }), null)
  // What people have drained has its place: with two on each machine there is no less full one, however little those of one do.
  const held = [11, 13].map((id) => runtime(id, { isDraining: true }))
  const stays = (runtimes: readonly RuntimeView[], desired: number, ...ids: number[]): unknown =>
    decide(runtimes, { scale: scale(desired, { held: ids.map((id) => id + 100) }) })
  assert.equal(stays([...all.slice(0, 2), ...held], 4, 11, 13), null)
  assert.deepEqual(stays([...all, held[0] as RuntimeView], 4, 11), ['start', 13])
  assert.deepEqual(stays([...all, held[0] as RuntimeView, runtime(13, {}, { busyPerMille: 0 })], 4, 11), ['drain', 14])
  assert.equal(stays([runtime(11), ...[10, 12, 14].map((id) => runtime(id, { isDraining: true }))], 4, 10, 12, 14), null, 'none of them can go')
})

test('scaling: the flows of the dead go on before another runtime is started in its place', () => {
  const died: FenceDocument = { node: 12, incarnation: 99, generation: 3, term: 1, chain: 1, reason: 'dead', isRecovered: true, at: 90e6 }
  const decide = (runtimes: RuntimeView[], fence: FenceDocument, now: number): string | undefined =>
    decideScaling({ ...view(runtimes, { scale: scale(3), fences: [fence] }), now })?.kind
  const two = [runtime(10), runtime(11)]
  assert.deepEqual([91e6, 92.1e6].map((now) => decide(two, died, now)), [undefined, 'start'])
  assert.equal(decide(two, died, 80e6), 'start', 'the leader of then had a clock that was ahead')
  assert.equal(decide([runtime(10)], died, 91e6), 'start', 'nobody can keep replicas')
  assert.equal(decide(two, { ...died, reason: 'drained' }, 91e6), 'start')
  assert.equal(decide(two, { ...died, chain: 0 }, 91e6), 'start', 'it was a switch')
})

test('scaling: one step at a time, and an empty runtime is one that says so in the present configuration', () => {
  const step = (of: ClusterView): string | undefined => decideScaling(of)?.kind
  const two = [runtime(10), runtime(11)]
  const draining = (reported: Partial<RuntimeReport>): RuntimeView => runtime(12, { isDraining: true }, reported)
  assert.equal(step(view(two)), undefined)
  assert.deepEqual(decideScaling(view(two, { scale: scale(3) })), { kind: 'start', id: 12, chain: 1 })
  const fenced: FenceDocument = { node: 12, incarnation: 99, generation: 3, term: 1, chain: 1, reason: 'dead', isRecovered: false }
  assert.deepEqual(decideScaling(view(two, { scale: scale(3), fences: [fenced] })), { kind: 'start', id: 13, chain: 1 })
  const machines = [{ isUp: true, runtimesMax: 64 }, { isUp: false, runtimesMax: 64 }]
  assert.deepEqual(decideScaling(view(two, { scale: scale(3), machines })), { kind: 'start', id: 12, chain: 1 })
  assert.equal(decideScaling(view(two, { scale: scale(3), machines: [{ isUp: true, runtimesMax: 1 }] })), null, 'there is no room')
  const begun = { runtime: { id: 11, incarnation: 300, chain: 1, since: 100e6 }, isReady: false, hasEnded: false }
  assert.equal(step(view([runtime(10)], { scale: scale(2), starting: [begun], machines: machines.slice(0, 1) })), undefined)
  assert.equal(step(view([runtime(10)], { scale: scale(2), starting: [begun], machines })), 'give-up', 'its machine is gone')
  const starting = (isReady: boolean, hasEnded: boolean, since: number): ClusterView['starting'] =>
    [{ runtime: { id: 12, incarnation: 112, chain: 1, since }, isReady, hasEnded }]
  assert.equal(step(view(two, { scale: scale(3), starting: starting(false, false, 99e6) })), undefined)
  assert.equal(step(view(two, { scale: scale(3), starting: starting(true, false, 99e6) })), 'admit')
  assert.equal(step(view(two, { scale: scale(3), starting: starting(true, true, 99e6) })), 'give-up')
  assert.equal(step(view(two, { scale: scale(3), starting: starting(false, false, 1e6) })), 'give-up')
  const drain = decideScaling(view([runtime(10), runtime(11, {}, { busyPerMille: 100 })], { scale: scale(1) }))
  assert.ok(drain?.kind === 'drain' && drain.runtime.id === 11)
  assert.equal(step(view([...two, draining({ flows: 5 })], { scale: scale(2) })), undefined)
  assert.equal(step(view([...two, draining({ flows: 0, isEmpty: true, configVersion: 4 })], { scale: scale(2) })), undefined)
  assert.equal(step(view([...two, draining({ flows: 0, isEmpty: false })], { scale: scale(2) })), undefined)
  assert.equal(step(view([...two, draining({ flows: 0, isEmpty: true })], { scale: scale(2) })), 'remove')
  assert.equal(step(view([...two, draining({ flows: 5 })], { scale: scale(3) })), 'keep')
  assert.equal(step(view([runtime(10)], { scale: scale(0) })), undefined)
})

// -- Rollout -----------------------------------------------------------------------------------------------------------

const rollout: RolloutDocument = {
  number: 1, from: 1, to: 2, phase: 'rolling', sinceGeneration: 3, sinceIncarnation: 20,
  isReversible: true, onFailure: 'pause', stage: 0, reason: '',
}

test('rollout: a batch, a pause to see whether it proves well, the next batch', () => {
  let memory: RolloutMemory | null = null
  let stage = 0
  const batches: number[] = []
  const at = (seconds: number, number: number, open: number): void => {
    const source = runtime(10, { isDraining: true }, { order: { number, open, moved: 1, refused: 0 } })
    const of = view([source, runtime(11, { chain: 2 })], { now: 100e6 + seconds * 1e6, rollout: { ...rollout, stage } })
    const decided = decideRollout(of, memory)
    memory = decided.memory
    if (decided.rollout !== null) ({ stage } = decided.rollout)
    batches.push(batchOf(of, memory, source))
  }
  at(0, 4, 0)
  at(1, 5, 1)
  at(2, 5, 0)
  at(6.9, 5, 0)
  at(7, 5, 0)
  at(7.1, 5, 0)
  at(8, 6, 10)
  assert.deepEqual([batches, stage], [[1, 0, 0, 0, 0, 10, 0], 1])
})

test('rollout: where no machine has room for one more, an old one goes first, to other old ones', () => {
  const limits = { ...defaultScalingLimits, firstId: 10 }
  const old = [10, 11, 12].map((id) => runtime(id, {}, { busyPerMille: id }))
  const full = { scale: scale(3), rollout, machines: [{ isUp: true, runtimesMax: 2 }, { isUp: true, runtimesMax: 1 }] }
  const step = (runtimes: readonly RuntimeView[], more: Partial<ClusterView> = {}): unknown => {
    const decided = decideScaling(view(runtimes, { ...full, ...more }), limits)
    return decided === null ? null : { ...decided, ...'runtime' in decided && { runtime: decided.runtime.id } }
  }
  assert.deepEqual(step(old), { kind: 'drain', runtime: 10 })
  assert.deepEqual(step(old, { scale: scale(5) }), { kind: 'drain', runtime: 10 }, 'more are wanted in vain')
  assert.equal(step(old, { rollout: undefined }), null)
  assert.equal(step(old, { rollout: { ...rollout, phase: 'paused' } }), null)
  const [first, ...others] = old as [RuntimeView, RuntimeView, RuntimeView]
  const going = { ...first, isDraining: true }
  const during = view([going, ...others], full)
  assert.equal(step(during.runtimes), null)
  assert.equal(batchOf(during, null, going), Infinity)
  assert.deepEqual(decideMoves(during, new Map(), null).orders.map(({ source, target, flows }) => [source.id, target, flows]), [[10, 11, 1000]])
  const { rollout: decided, memory } = decideRollout(during, null, undefined, false)
  assert.deepEqual([decided, memory?.orders.size], [null, 0], 'no batch of the new version')
  const gone = { ...going, report: report(10, { isEmpty: true, flows: 0 }) }
  assert.deepEqual(step([gone, ...others]), { kind: 'remove', runtime: 10 })
  assert.deepEqual(step(others), { kind: 'start', id: 10, chain: 2 })
  assert.deepEqual(step([runtime(14, { chain: 2 }), ...others]), { kind: 'drain', runtime: 11 })

  const alone = view([first], { ...full, machines: [{ isUp: true, runtimesMax: 1 }] })
  assert.equal(decideScaling(alone, limits), null)
  assert.equal(decideRollout(alone, null, undefined, false).rollout?.reason, 'no machine has room for a second runtime')
})

test('rollout: a batch of which nothing could be moved is ordered again, five times in all', () => {
  let memory: RolloutMemory | null = null
  const seen: string[] = []
  const at = (number: number, open: number, moved: number, refused: number): void => {
    const source = runtime(10, { isDraining: true }, { order: { number, open, moved, refused } })
    const of = view([source, runtime(11, { chain: 2 })], { rollout })
    const decided = decideRollout(of, memory)
    memory = decided.memory
    seen.push(decided.rollout?.reason ?? `${batchOf(of, memory, source)}`)
  }
  at(4, 0, 1, 0)
  for (const number of [5, 6, 7, 8]) {
    at(number, 1, 0, 0)
    at(number, 0, 0, 1)
    at(number, 0, 0, 1)
  }
  // One that moves something makes good for all before it.
  at(9, 0, 1, 0)
  at(10, 0, 0, 1)
  assert.deepEqual(seen, ['1', ...Array.from({ length: 4 }, () => ['0', '1', '1']).flat(), '0', '1'])
  for (const number of [11, 12, 13, 14]) at(number, 0, 0, 1)
  assert.equal(seen.at(-1), 'no flow could be moved off runtime 10')
})

test('rollout: what counts as failure, and what follows', () => {
  let failed = new Map([[110, { number: 3, count: 0 }]])
  const outcome = (runtimes: RuntimeView[], more: Partial<RolloutDocument> = {}, fences: FenceDocument[] = []): unknown => {
    const { rollout: next } = decideRollout(view(runtimes, { rollout: { ...rollout, ...more }, fences }), {
      orders: new Map([[110, 3]]), stage: 0, failed, doneSince: Infinity })
    return next === null ? null : `${next.phase}: ${next.reason}`
  }
  const old = runtime(10, { isDraining: true })
  const next = (nfErrorsPerSecond: number): RuntimeView => runtime(11, { chain: 2 }, { nfErrorsPerSecond })
  assert.equal(outcome([old, next(0.9)]), null)
  assert.equal(outcome([old, next(5)]), 'paused: network functions fail 5.0 times a second, 0.0 with the version before')
  assert.match(`${outcome([old, next(5)], { onFailure: 'roll-back' })}`, /^rolling-back: /)
  assert.equal(outcome([runtime(10, {}, { nfErrorsPerSecond: 4.5 }), next(5)]), null)
  const gone: FenceDocument = { node: 12, incarnation: 112, generation: 4, term: 1, chain: 2, reason: 'dead', isRecovered: true }
  assert.equal(outcome([old, next(0)], {}, [gone]), 'paused: runtime 12 with version 2 is gone: dead')
  const unstarted = (incarnation: number): FenceDocument => ({ ...gone, incarnation, generation: 3, reason: 'not-started', isRecovered: true })
  assert.equal(outcome([old], {}, [unstarted(19), unstarted(20), unstarted(21)]), null, 'one, and some of before')
  // An old one that was replaced has raised the generation since.
  assert.equal(outcome([old, next(0)], {}, [{ ...unstarted(21), generation: 4 }]), null, 'one may fail to start, at any time')
  assert.equal(outcome([old], {}, [unstarted(21), unstarted(23)]), 'paused: runtimes with version 2 do not start')
  assert.equal(outcome([old, next(0)], {}, [{ ...gone, generation: 3 }, { ...gone, reason: 'drained' }, { ...gone, chain: 1 }]), null)
  const stuck = runtime(10, { isDraining: true }, { order: { number: 4, open: 0, moved: 0, refused: 1 } })
  assert.equal(outcome([stuck, next(0)]), null)
  failed = new Map([[110, { number: 4, count: 4 }]])
  assert.equal(outcome([stuck, next(0)]), null)
  failed = new Map([[110, { number: 3, count: 4 }]])
  assert.equal(outcome([stuck, next(0)]), 'paused: no flow could be moved off runtime 10')
  assert.equal(outcome([next(0)]), 'done: ')
  assert.equal(outcome([runtime(10)], { phase: 'rolling-back' }), 'rolled-back: ')
  const back = (isReversible: boolean): number =>
    batchOf(view([runtime(10)], { rollout: { ...rollout, phase: 'rolling-back', isReversible } }), null, runtime(11, { chain: 2 }))
  assert.deepEqual([back(true), back(false)], [Infinity, 0])
})

// -- Shared pools ------------------------------------------------------------------------------------------------------

test('blocks: free ones first; those of the gone when all runtimes have long reported no use', () => {
  const wants = runtime(3, {}, { blocksWanted: [{ pool: 'ports', held: 0 }] })
  const lease = (of: ClusterView, pools = { ports: 2 }, since = 80e6): string[] =>
    leaseBlocks(of, new Map([...of.blocks.keys()].map((key) => [key, since])), pools).leased
      .map(({ number, incarnation }) => `${number} to ${incarnation}`)
  assert.deepEqual(lease(view([wants])), ['0 to 103'])
  const blocks = new Map([['ports/0', { incarnation: 90 }], ['ports/1', { incarnation: 104 }]])
  assert.deepEqual(lease(view([wants, runtime(4)], { blocks })), ['0 to 103'])
  assert.deepEqual(lease(view([wants, runtime(4)], { blocks }), { ports: 2 }, 95e6), [])
  assert.deepEqual(lease(view([wants, runtime(4, {}, { blocksInUse: ['ports/0'] })], { blocks })), [])
  assert.deepEqual(lease(view([wants, runtime(4, { report: null })], { blocks })), [])
  assert.deepEqual(lease(view([wants, runtime(4, {}, { configVersion: 4 })], { blocks })), [])
  const open: FenceDocument = { node: 9, incarnation: 90, generation: 3, term: 1, chain: 1, reason: 'dead', isRecovered: false }
  assert.deepEqual(lease(view([wants, runtime(4)], { blocks, fences: [open] })), [])
  // It has been given already; its report is behind.
  assert.deepEqual(lease(view([wants], { blocks: new Map([['ports/0', { incarnation: 103 }]]) })), [])
})
