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
 * Some captures always, those of NFACTOR_CORPUS and many more crashes with NFACTOR_FULL=1. NFACTOR_SEED says when runtimes die.
 */

import assert from 'node:assert/strict'
import { after, test } from 'node:test'
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
const CAPTURES = isFull ? Infinity : 4
const total = { runs: 0, crashes: 0 }

/** Frames of a life that is over are refused by switches: who sent them is dead, and they leave again, so that none is lost. */
function told(outcome: MovingOutcome): MovingOutcome {
  const { 'former-life': _, ...drops } = outcome.drops
  return { ...outcome, drops }
}

function traffic(capture: Capture): TrafficPacket[] {
  return trafficOf(capture.frames(), { gapUsMin: 40, gapUsMax: 250 }, PACKETS_MAX, BYTES_MAX)
}

/** What an abrupt end leaves alone. */
function essential(outcome: MovingOutcome): MovingOutcome {
  return { ...outcome, drops: {}, counters: {}, records: new Map() }
}

function compare(name: string, packets: readonly TrafficPacket[], chain: string, switches: 1 | 2, seed: number, isAbrupt = false,
    at?: number): MovingOutcome {
  const random = new Random(seed)
  const options = { traffic: packets, chain: chain === 'standard' ? standard : chains[chain] as typeof standard, switches, wasm: seed % 2 === 0,
    replication: 'commit' } as const
  const still = runMovingCluster({ ...options, seed: 0 })
  const crashes = at === undefined ? Array.from({ length: CRASHES }, () => random.below(packets.length)) : [at]
  const struck = runMovingCluster({ ...options, seed, crashes, isAbrupt })
  const [expected, found] = [still, struck].map(isAbrupt ? essential : told) as [MovingOutcome, MovingOutcome]
  assert.equal(movedDifference(expected, found), '', `${name}, ${chain}, ${switches} switches, seed ${seed}, crashes at ${crashes.join(', ')}`)
  total.runs++
  total.crashes += struck.crashes ?? 0
  return struck
}

const names = ['standard', ...Object.keys(chains)]
for (const [index, capture] of [...sampleCaptures, ...isFull ? corpus : []].entries()) {
  if (index % Math.ceil((sampleCaptures.length + corpus.length) / CAPTURES) !== 0) continue
  test(`${capture.name}: flows outlive their runtimes as they were`, () => {
    const packets = traffic(capture)
    const some = isFull ? names : [names[(index + SEED) % names.length] as string]
    for (const [i, chain] of some.entries()) {
      for (const isAbrupt of [false, true]) compare(capture.name, packets, chain, i % 2 === 0 ? 2 : 1, SEED * 1000 + index * 10 + i, isAbrupt)
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

/** Packets between two crashes that are tried. */
const STEP = isFull ? 1 : 12

for (const chain of isFull ? names : ['standard']) {
  test(`${web.name} through ${chain}: a runtime may die at any packet`, () => {
    const packets = traffic(web)
    for (let at = 0; at < packets.length; at += STEP) compare(web.name, packets, chain, at % 2 === 0 ? 1 : 2, at + 1, true, at)
  })
}

after(() => { if (total.runs > 10) assert.ok(total.crashes > total.runs, JSON.stringify(total)) })

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
