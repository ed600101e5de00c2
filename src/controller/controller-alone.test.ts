/** One controller with a store and nodes that are played: what it makes of what is there. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { TimeUs } from '../base/clock.ts'
import type { Document, DocumentKind } from './cluster-state.ts'
import { quickLimits, STEP_US } from './control-simulation.ts'
import { Controller, type Founding } from './controller.ts'
import type { MachineView } from './machines.ts'
import { MemoryStore, type StoreStep } from './memory-store.ts'
import type { StoreAnswer, StoreRequest } from './store.ts'

const founding: Founding = { clusterId: 1, desired: 1, isAutomatic: false, chain: 1,
  switches: [{ id: 1, side: 'ingress', isHome: true }, { id: 2, side: 'egress', isHome: false }] }

/** What runtimes report, besides who they are and what they have applied. */
const idle = {
  pausedUs: 0, words: [], isReady: true, busyPerMille: 20, flows: 0, packetsPerSecond: 1, dropsPerSecond: 0, queueDepth: 0, nfErrorsPerSecond: 0,
  replicasVersion: 99, order: { number: 0, open: 0, moved: 0, refused: 0 }, isEmpty: true, blocksInUse: [], blocksWanted: [],
} as const

class Alone {
  now: TimeUs = 1e6
  readonly store = new MemoryStore()
  readonly steps: StoreStep[] = []
  readonly outcomes: string[] = []
  readonly controller: Controller
  /** Its watch tells nothing while this is set. */
  isWatchSlow = false
  /** The store carries out no transactions while this is set; how many it has refused. */
  isFull = false
  refused = 0
  readonly events: string[] = []
  /** Runtimes whose processes there are; they do nothing. */
  readonly runtimes: { readonly id: number; readonly incarnation: number }[] = []
  readonly #held: StoreAnswer[] = []

  constructor(more: Partial<Founding> = {}, machines: readonly MachineView[] = []) {
    this.store.onStep = (step) => { this.steps.push(step) }
    const connection = this.store.connect()
    const submit = (request: StoreRequest, now: TimeUs): void => {
      if (!this.isFull || request.kind !== 'transact') return connection.submit(request, now)
      this.refused++
      this.#held.push({ kind: 'failed', id: request.id })
    }
    const poll = (now: TimeUs): StoreAnswer | undefined => {
      if (!this.isWatchSlow && this.#held.length > 0) return this.#held.shift()
      const answer = connection.poll(now)
      if (!this.isWatchSlow || answer?.kind !== 'changed') return answer
      this.#held.push(answer)
      return poll(now)
    }
    this.controller = new Controller({ name: 'a', life: 'a1', founding: { ...founding, ...more }, limits: quickLimits,
      onIntent: (_id, outcome) => { this.outcomes.push(outcome) },
      onEvent: ({ what }) => { this.events.push(what) },
    }, { submit, poll }, { send: () => undefined }, {
      startRuntime: (_term, one) => { this.runtimes.push(one) },
      stopRuntime: (_term, { incarnation }) => { this.runtimes.splice(this.runtimes.findIndex((one) => one.incarnation === incarnation), 1) },
      running: () => this.runtimes, machines: () => machines,
    })
    this.run(1e6)
  }

  document<K extends DocumentKind>(kind: K, name = ''): Document<K> {
    return JSON.parse(this.store.entry(name === '' ? kind : `${kind}/${name}`)?.value ?? 'null') as Document<K>
  }

  run(us: TimeUs): void {
    for (const end = this.now + us; this.now < end; this.now += STEP_US) {
      const { config, generation } = this.document('cluster') ?? { config: { version: 0 }, generation: 0 }
      for (const { id, incarnation } of this.runtimes) {
        this.controller.receive({ kind: 'runtime', node: id, incarnation, configVersion: config.version, generation, recovered: generation,
          ...idle }, this.now)
      }
      this.controller.poll(this.now)
    }
  }
}

test('what was fenced long ago is forgotten, also where nothing had to be recovered; a few in each transaction', () => {
  const world = new Alone()
  const other = world.store.connect()
  for (let incarnation = 1000; incarnation < 1600; incarnation++) {
    const value = JSON.stringify({ node: 12, incarnation, generation: 1, term: 1, chain: 1, reason: 'drained', isRecovered: true })
    other.submit({ kind: 'transact', id: incarnation, compare: [], changes: [{ key: `fence/${incarnation}`, value }] }, world.now)
  }
  world.steps.length = 0
  world.run(2e6)
  const left = Array.from({ length: 600 }, (_, i) => 1000 + i).filter((incarnation) => world.store.entry(`fence/${incarnation}`) !== undefined)
  assert.ok(left.length >= 256 && left.length < 320, `${left.length} are left`)
  assert.deepEqual([left[0], left.at(-1)], [1600 - left.length, 1599], 'the newest are')
  assert.ok(world.steps.length >= 4 && world.steps.every(({ changes }) => changes.length <= 65), 'stores bound what a transaction may change')
})

/** A world with one runtime; a second one has just been admitted, and the mirror does not show it. */
function admittedUnseen(): Alone {
  const world = new Alone()
  const runUntil = (isSo: () => boolean): void => {
    for (let i = 0; i < 100 && !isSo(); i++) world.run(STEP_US)
    assert.ok(isSo())
  }
  runUntil(() => world.document('cluster').config.runtimes.length === 1)
  world.controller.operate({ kind: 'scale', desired: 2 })
  runUntil(() => world.runtimes.length === 2)
  world.isWatchSlow = true
  runUntil(() => world.document('cluster').config.runtimes.length === 2)
  world.outcomes.length = 0
  return world
}

test('what people ask for is not judged by what was so before the last decision', () => {
  const world = admittedUnseen()
  const { incarnation } = world.document('cluster').config.runtimes[1] ?? { incarnation: 0 }
  world.controller.operate({ kind: 'fence', incarnation })
  world.run(500_000)
  assert.deepEqual(world.outcomes, [], 'the mirror does not show that life yet')
  world.isWatchSlow = false
  world.run(200_000)
  assert.deepEqual([world.outcomes, world.document('fence', `${incarnation}`).reason], [['done'], 'dead'])
})

test('a watch that says nothing of what has been carried out is not waited for', () => {
  const world = admittedUnseen()
  const runtimes = (): number => world.controller.view(world.now)?.runtimes.length ?? 0
  world.run(500_000)
  assert.equal(runtimes(), 1)
  world.run(600_000)
  assert.equal(runtimes(), 2)
})

test('a transaction that the store refuses is tried again after a while, and told once', () => {
  const world = new Alone()
  world.run(1e6)
  world.isFull = true
  world.events.length = 0
  world.controller.operate({ kind: 'scale', desired: 2 })
  world.run(2e6)
  assert.ok(world.refused >= 5 && world.refused <= 11, `${world.refused} tries`)
  assert.deepEqual([world.events, world.outcomes], [['as ordered: scale'], []])
  world.isFull = false
  world.run(1e6)
  assert.deepEqual([world.outcomes, world.events.slice(0, 2)], [['done'], ['as ordered: scale', 'runtimes: start']])
  world.controller.operate({ kind: 'scale', desired: 3 })
  world.run(1e6)
  assert.equal(world.events.filter((what) => what === 'as ordered: scale').length, 2, 'another one is told')
})

test('what is wanted in vain, for no machine has room, is less again when there is little to do', () => {
  for (const runtimesMax of [2, 8]) {
    const world = new Alone({ desired: 4, isAutomatic: true }, [{ isUp: true, runtimesMax }])
    world.run(3e6)
    assert.deepEqual([world.runtimes.length, world.document('scale').desired], [Math.min(4, runtimesMax), 4])
    world.run(60e6)
    assert.deepEqual([world.runtimes.length, world.document('scale').desired], [1, 1], `${runtimesMax} at most`)
  }
})
