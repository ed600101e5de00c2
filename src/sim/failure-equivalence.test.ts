/**
 * Failure equivalence: a runtime that dies takes nothing along. Captures go through clusters of real nodes with replication `commit`
 * twice, once undisturbed and once while runtimes end without a word, and nothing that comes out may differ: frames and their order,
 * records, counters, drops, the state at a flow's end to its last byte.
 *
 * A crash waits until all that the runtime was given has been processed and replicated, and the switches know of it at once: so what is
 * compared is what the record and the replica make of a flow. Or it is abrupt: the runtime ends in the middle of what it does, and what
 * it has read and not stored comes back out of its links. Then what leaves and the last state of each flow are compared, and no more: what a
 * network function has counted and reported in a step that nobody has stored it counts and reports again.
 *
 * Some captures always; with NFACTOR_FULL=1 all of them, those of NFACTOR_CORPUS too: every one through every chain, with runtimes that die
 * again and again, quietly and abruptly, and once more for many single packets at which one dies, for every packet of short captures. The
 * last test says how many that were. NFACTOR_SEED says when runtimes die.
 */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Random } from '../base/random.ts'
import { planted, type PlantedBug } from '../base/planted-bugs.ts'
import { corpus, sampleCaptures, web, type Capture } from '../testing/corpus/capture-sets.ts'
import { corpusMissing } from '../testing/corpus/corpus-location.ts'
import { trafficOf, type TrafficPacket } from './capture-traffic.ts'
import { chains, standard } from './equivalence-chains.ts'
import { runMovingCluster } from './moving-cluster.ts'
import { movedDifference, type MovingOutcome } from './moving-outcome.ts'

const isFull = process.env['NFACTOR_FULL'] === '1'
const SEED = Number(process.env['NFACTOR_SEED'] ?? 1)
const PACKETS_MAX = isFull ? 1500 : 220
const BYTES_MAX = isFull ? 3_000_000 : 160_000
const CRASHES = isFull ? 12 : 4
/** Captures of the project that are tried where not all are. */
const CAPTURES = 4
/** Packets that a capture's runs with a single crash may come to, for one chain: how many of its packets are tried depends on its length. */
const SINGLE_PACKETS = 8000
const total = { runs: 0, crashes: 0, packets: 0, captures: new Set<string>() }
/** Of each capture, chain and way to die: how many runtimes died so. */
const died = new Map<string, number>()

/** Frames of a life that is over are refused by switches: who sent them is dead, and they leave again, so that none is lost. */
function told(outcome: MovingOutcome): MovingOutcome {
  const { 'former-life': _, ...drops } = outcome.drops
  return { ...outcome, drops }
}

const traffics = new Map<string, TrafficPacket[]>()

function traffic(capture: Capture): TrafficPacket[] {
  const known = traffics.get(capture.name)
  if (known !== undefined) return known
  const packets = trafficOf(capture.frames(), { gapUsMin: 40, gapUsMax: 250 }, PACKETS_MAX, BYTES_MAX)
  traffics.set(capture.name, packets)
  return packets
}

/** What an abrupt end leaves alone. */
function essential(outcome: MovingOutcome): MovingOutcome {
  return { ...outcome, drops: {}, counters: {}, records: new Map() }
}

/** The last undisturbed runs, by what they depend on: many runs are compared with the same one. */
const undisturbed = new Map<string, MovingOutcome>()

function compare(name: string, packets: readonly TrafficPacket[], chain: string, switches: 1 | 2, seed: number, isAbrupt = false,
    at?: number): MovingOutcome {
  const random = new Random(seed)
  const wasm = seed % 2 === 0
  const options = { traffic: packets, chain: chain === 'standard' ? standard : chains[chain] as typeof standard, switches, wasm,
    replication: 'commit' } as const
  const id = `${name}, ${chain}, ${switches}, ${wasm}`
  const still = undisturbed.get(id) ?? runMovingCluster({ ...options, seed: 0 })
  if (undisturbed.size > 8) undisturbed.clear()
  if (name !== '') undisturbed.set(id, still)
  const crashes = at === undefined ? Array.from({ length: CRASHES }, () => random.below(packets.length)) : [at]
  const struck = runMovingCluster({ ...options, seed, crashes, isAbrupt })
  const [expected, found] = [still, struck].map(isAbrupt ? essential : told) as [MovingOutcome, MovingOutcome]
  total.runs++
  total.crashes += struck.crashes ?? 0
  total.packets += packets.length
  total.captures.add(name)
  const way = `${name}, ${chain}, ${isAbrupt ? 'abruptly' : 'quietly'}`
  if (still.flows.size > 0) died.set(way, (died.get(way) ?? 0) + (struck.crashes ?? 0))
  assert.equal(movedDifference(expected, found), '', `${name}, ${chain}, ${switches} switches, seed ${seed}, crashes at ${crashes.join(', ')}`)
  return struck
}

/** Packets of a capture at which a runtime is to die, in a run for each: all, or one of each so many, by chance. */
function singles(packets: readonly TrafficPacket[], random: Random): number[] {
  const step = Math.max(1, packets.length ** 2 / SINGLE_PACKETS)
  const found: number[] = []
  for (let from = 0; from < packets.length; from += step) {
    const [first, end] = [Math.ceil(from), Math.min(packets.length, Math.ceil(from + step))]
    found.push(first + random.below(Math.max(1, end - first)))
  }
  return found
}

const names = ['standard', ...Object.keys(chains)]
const captures = isFull ? [...sampleCaptures, ...corpus] : sampleCaptures
for (const [index, capture] of captures.entries()) {
  if (!isFull && index % Math.ceil(captures.length / CAPTURES) !== 0) continue
  test(`${capture.name}: flows outlive their runtimes as they were`, () => {
    const packets = traffic(capture)
    const some = isFull ? names : [names[(index + SEED) % names.length] as string]
    for (const [i, chain] of some.entries()) {
      const switches = (i + (index >> 1)) % 2 === 0 ? 2 : 1
      for (const isAbrupt of [false, true]) compare(capture.name, packets, chain, switches, SEED * 1000 + index * 11 + i, isAbrupt)
    }
  })
  if (!isFull) continue
  test(`${capture.name}: a runtime may die at any packet`, () => {
    const packets = traffic(capture)
    for (const [i, chain] of names.entries()) {
      const seed = SEED * 1000 + index * 11 + i
      for (const at of singles(packets, new Random(seed))) {
        compare(capture.name, packets, chain, (at + i) % 2 === 0 ? 1 : 2, seed + (at >> 1) * 1000, true, at)
      }
    }
  })
}
test('the corpus', { skip: isFull ? corpusMissing() : 'NFACTOR_FULL=1 runs it' }, () => { assert.ok(corpus.length > 0) })

for (const chain of names) {
  test(`${web.name} through ${chain}: flows outlive their runtimes as they were`, () => {
    const packets = traffic(web)
    for (const switches of [1, 2] as const) {
      for (const seed of isFull ? [1, 2, 3, 4] : [1]) {
        for (const isAbrupt of [false, true]) compare(web.name, packets, chain, switches, seed, isAbrupt)
      }
    }
  })
}

test(`${web.name} through standard: a runtime may die at any packet`, { skip: isFull && 'tried with the captures' }, () => {
  const packets = traffic(web)
  for (let at = 0; at < packets.length; at += 12) compare(web.name, packets, 'standard', at % 2 === 0 ? 1 : 2, at + 1, true, at)
})

test('what was compared', (t) => {
  const { runs, crashes, packets, captures: { size } } = total
  t.diagnostic(`${runs} runs in which ${crashes} runtimes died were compared with undisturbed ones: ${size} captures, ${packets} packets`)
  if (!isFull) return assert.ok(crashes > runs, JSON.stringify(total))
  // Every capture that has flows met every chain in both ways, and a runtime died.
  assert.deepEqual([...died].filter(([, count]) => count === 0).map(([way]) => way), [])
  assert.ok(size === captures.length && died.size <= size * names.length * 2 && died.size > size * names.length, `${size}, ${died.size}`)
})

/** True if a comparison finds something within a few seeds. */
function isSeen(chain: string, isAbrupt = false): boolean {
  const packets = traffic(web)
  return [1, 2, 3, 4].some((seed) => {
    try {
      compare('', packets, chain, 1, seed, isAbrupt)
      return false
    } catch (error) {
      if (error instanceof assert.AssertionError) return true
      throw error
    }
  })
}

const bugs: readonly (readonly [PlantedBug, boolean])[] = [['step-not-stored', false], ['published-refused', false], ['step-not-stored', true],
  ['take-back-skipped', true], ['take-back-repeats', true], ['take-back-order', true]]
for (const [bug, isAbrupt] of bugs) {
  test(`the comparison sees a planted bug: ${bug}${isAbrupt ? ', where runtimes die abruptly' : ''}`, () => {
    planted[bug] = true
    try {
      assert.ok(isSeen('standard', isAbrupt) || isSeen('juggling', isAbrupt))
    } finally {
      planted[bug] = false
    }
  })
}
