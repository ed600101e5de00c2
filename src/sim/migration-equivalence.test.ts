/**
 * Migration equivalence: a flow that moves gives what it would have given had it stayed. Captures go through clusters of real nodes
 * twice, once undisturbed and once while flows move all the time, and nothing that comes out may differ: frames and their order,
 * records, counters, drops, the state at a flow's end to its last byte. Where one switch keeps the packets' order, an engine alone is to
 * give the same as well.
 *
 * Not compared are times, since a packet that waits for its flow is processed later. Network functions whose results depend on the
 * fraction of a second at which a packet is processed need a trace that leaves them no choice.
 *
 * The captures of the project always; those of NFACTOR_CORPUS when it is set, of each its beginning, and much more of it with
 * NFACTOR_FULL=1. NFACTOR_SEED says when flows move, and which captures go through which chains.
 */

import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { Random } from '../base/random.ts'
import { planted, type PlantedBug } from '../base/planted-bugs.ts'
import type { ChainMember } from '../nf/chain.ts'
import { defineNf, struct, u32, Verdict } from '../nf/index.ts'
import { corpus, sampleCaptures, web, type Capture } from '../testing/corpus/capture-sets.ts'
import { corpusMissing } from '../testing/corpus/corpus-location.ts'
import { buildFragments } from '../testing/index.ts'
import { trafficOf, type TrafficPacket } from './capture-traffic.ts'
import { ALIAS_BIT, chains, standard } from './equivalence-chains.ts'
import { runEngineAlone } from './engine-alone.ts'
import { runMovingCluster } from './moving-cluster.ts'
import { movedDifference, type MovingOutcome } from './moving-outcome.ts'

const isFull = process.env['NFACTOR_FULL'] === '1'
const PACKETS_MAX = isFull ? 1500 : 220
const BYTES_MAX = isFull ? 3_000_000 : 160_000
const SEED = Number(process.env['NFACTOR_SEED'] ?? 1)

/** So dense that packets come while their flow is on its way; at the captured times, with flows that end in between. */
const paces = {
  dense: { gapUsMin: 40, gapUsMax: 250 },
  captured: { gapUsMin: 0, gapUsMax: Infinity },
} as const

interface Run {
  readonly chain: string
  readonly pace: keyof typeof paces
  readonly switches: 1 | 2
  readonly wasm?: boolean
  /** Steps of moves may take no longer than messages often do: many moves are called off, and undone. */
  readonly hasty?: boolean
}

const total = { completed: 0, laden: 0, undone: 0, runs: 0 }

function compare(capture: Capture, run: Run, seed: number): MovingOutcome {
  const traffic = trafficOf(capture.frames(), paces[run.pace], PACKETS_MAX, BYTES_MAX)
  const chain = run.chain === 'standard' ? standard : chains[run.chain] as () => ChainMember[]
  return comparedRun(`${capture.name}, ${run.chain}, ${run.pace}, ${run.switches} switches, seed ${seed}`, traffic, chain, run, seed)
}

function comparedRun(what: string, traffic: readonly TrafficPacket[], chain: () => ChainMember[], run: Omit<Run, 'chain' | 'pace'>,
  seed: number): MovingOutcome {
  const options = { traffic, chain, switches: run.switches, wasm: run.wasm ?? false }
  const still = runMovingCluster({ ...options, seed: 0 })
  const moved = runMovingCluster({ ...options, seed, movesPerCent: 60, moveTimeoutUs: run.hasty === true ? 600 : undefined })
  assert.equal(movedDifference(still, moved), '', what)
  // Two switches let packets of both directions out apart.
  if (run.switches === 1) assert.equal(movedDifference(runEngineAlone(traffic, chain()), still, 12), '', `${what}: engine alone`)
  total.completed += moved.moves.completed
  total.laden += moved.moves.laden
  total.undone += moved.moves.aborted + moved.moves.takenBack + moved.moves.cancelled
  total.runs++
  return moved
}

/** What a capture is run with: the standard chain with dense traffic, and one other way that differs from capture to capture. */
function runsOf(index: number): Run[] {
  const names = Object.keys(chains)
  if (isFull) {
    return ['standard', ...names].flatMap((chain) => (['dense', 'captured'] as const).flatMap((pace) => ([1, 2] as const)
      .filter((switches) => chain === 'standard' || (switches === 1) === (pace === 'dense'))
      .map((switches) => ({ chain, pace, switches, wasm: chain === 'standard' && switches === 2 }))))
  }
  const others: Run = { chain: names[index % names.length] as string, pace: index % 4 < 2 ? 'dense' : 'captured',
    switches: index % 3 === 0 ? 1 : 2 }
  return [{ chain: 'standard', pace: 'dense', switches: index % 2 === 0 ? 1 : 2, wasm: index % 4 === 0 }, others]
}

for (const [index, capture] of [...sampleCaptures, ...corpus].entries()) {
  test(`${capture.name}: flows that move give what they would have given`, () => {
    for (const run of runsOf(index + SEED)) compare(capture, run, SEED * 1000 + index)
  })
}
test('the corpus', { skip: corpusMissing() }, () => { assert.ok(corpus.length > 0) })

for (const chain of Object.keys(chains)) {
  test(`${web.name} through ${chain}: flows that move give what they would have given`, () => {
    for (const switches of [1, 2] as const) {
      const { moves, counters } = compare(web, { chain, pace: 'dense', switches }, 5)
      assert.ok(moves.completed > 50, `only ${moves.completed} moves`)
      if (chain === 'juggling') assert.ok((counters['juggler rings'] ?? 0) > 10)
      if (chain === 'renaming') assert.ok((counters['renamer granted'] ?? 0) > 5 && counters['renamer refused'] === 0)
    }
  })
}

// -- Fragments, and moves that are called off --------------------------------------------------------------------------

/** Three UDP flows whose datagrams come in two to four fragments, some of them late, with others in between. */
function fragmentTraffic(seed: number): TrafficPacket[] {
  const random = new Random(seed)
  const queues = [1, 2, 3].map((flow) => Array.from({ length: 40 }, (_, i) => {
    const frames = buildFragments({ source: '10.0.0.1', destination: `10.0.1.${flow}`, identification: i + 1,
      udp: { sourcePort: 1000 + flow, destinationPort: 53, payload: `${flow}, ${i} `.padEnd(60 + random.below(120), '.') } }, 48)
    // The last one before the others now and then.
    return random.chance(0.15) ? [frames.at(-1) as Uint8Array, ...frames.slice(0, -1)] : frames
  }).flat().map((frame) => ({ flow: `flow ${flow}`, frame })))
  const traffic: TrafficPacket[] = []
  for (let time = 0; queues.some((queue) => queue.length > 0); time += 40 + random.below(200)) {
    const next = random.pick(queues.filter((queue) => queue.length > 0)).shift()
    if (next !== undefined) traffic.push({ ...next, time, side: 0 })
  }
  return traffic
}

/** Datagrams as above, translated by `renaming`, and soon others that come back to the translated ports. */
function translatedFragments(seed: number): TrafficPacket[] {
  const random = new Random(seed)
  const there = fragmentTraffic(seed)
  const back = [1, 2, 3].flatMap((flow) => Array.from({ length: 40 }, (_, i) => buildFragments({ source: `10.0.1.${flow}`,
    destination: '10.0.0.1', identification: i + 1,
    udp: { sourcePort: 53, destinationPort: (1000 + flow) ^ ALIAS_BIT, payload: `back ${i} `.padEnd(60 + random.below(120), '.') } }, 48)
    .map((frame): TrafficPacket => ({ flow: `back ${flow}`, frame, side: 1, time: 15_000 + i * 1000 + random.below(900) }))))
  return [...there, ...back.flat()].toSorted((a, b) => a.time - b.time)
}

for (const switches of [1, 2] as const) {
  test(`fragments that come back to a translated port find their flow wherever it is, ${switches} switches`, () => {
    for (const seed of [1, 2, 3]) {
      const chain = chains['renaming'] as () => ChainMember[]
      const moved = comparedRun(`seed ${seed}`, translatedFragments(seed), chain, { switches }, seed)
      assert.ok(moved.moves.completed > 50 && moved.counters['renamer granted'] === 3)
    }
  })

  test(`fragments find their flow wherever it is, ${switches} switches`, () => {
    for (const seed of [1, 2, 3]) {
      const moved = comparedRun(`seed ${seed}`, fragmentTraffic(seed), chains['monitor'] as () => ChainMember[], { switches }, seed)
      assert.ok(moved.moves.completed > 50)
    }
  })

  for (const chain of ['standard', 'juggling', 'renaming']) {
    test(`moves that are called off leave no trace: ${chain}, ${switches} switches`, () => {
      for (const seed of [1, 2]) {
        const { moves } = compare(web, { chain, pace: 'dense', switches, hasty: true }, seed)
        assert.ok(moves.completed > 20 && moves.aborted >= 3 && moves.cancelled > 3, JSON.stringify(moves))
      }
    })
  }

  // A later fragment that has come to the target, which does not know its datagram, does not go back with the other packets. Where it
  // comes among those of other datagrams is nobody's promise when a move is called off.
  test(`fragments amid moves that are called off, ${switches} switches`, () => {
    for (let seed = 1; seed <= 25; seed++) {
      const options = { traffic: fragmentTraffic(seed), chain: chains['monitor'] as () => ChainMember[], switches }
      const still = runMovingCluster({ ...options, seed: 0 })
      const moved = runMovingCluster({ ...options, seed, movesPerCent: 12, moveTimeoutUs: 600 })
      assert.equal(movedDifference(sorted(still), sorted(moved)), '', `seed ${seed}`)
    }
  })
}

function sorted(outcome: MovingOutcome): MovingOutcome {
  const outputs = [...outcome.outputs].map(([flow, frames]): [string, Uint8Array[]] =>
    [flow, frames.toSorted((a, b) => (a.join() < b.join() ? -1 : 1))])
  return { ...outcome, outputs: new Map(outputs) }
}

after(() => {
  if (total.runs > 60) assert.ok(total.completed > total.runs * 10 && total.laden > total.runs, JSON.stringify(total))
})

// -- That it can fail --------------------------------------------------------------------------------------------------

/** True if a comparison finds something within a few seeds. */
function isSeen(chain: () => ChainMember[], switches: 1 | 2): boolean {
  const traffic = trafficOf(web.frames(), paces.dense, 200)
  return [1, 2, 3, 4].some((seed) => {
    try {
      comparedRun('', traffic, chain, { switches }, seed)
      return false
    } catch (error) {
      if (error instanceof assert.AssertionError) return true
      throw error
    }
  })
}

const bugs: PlantedBug[] = ['busy-ignored', 'state-left-behind', 'release-without-go', 'barrier-out-of-band']
for (const bug of bugs) {
  test(`the comparison sees a planted bug: ${bug}`, () => {
    planted[bug] = true
    try {
      assert.ok([1, 2].some((switches) => isSeen(standard, switches as 1 | 2)))
    } finally {
      planted[bug] = false
    }
  })
}

test('the comparison sees state that does not travel', () => {
  // Counts in a map of its own instead of in its flow state.
  const forgetful = defineNf({
    name: 'forgetful', version: 1, flowState: struct({ packets: u32 }),
    create() {
      const counts = new Map<number, number>()
      return {
        processPacket(_packet, state) {
          const count = (counts.get(state.o) ?? 0) + 1
          counts.set(state.o, count)
          state.packets = count
          return Verdict.Forward
        },
        deallocateFlowState(state) { counts.delete(state.o) },
        flowMovedOut(state) { counts.delete(state.o) },
      }
    },
  })
  assert.ok(isSeen(() => [{ definition: forgetful, config: {} }], 1))
})
