import { test } from 'node:test'
import assert from 'node:assert/strict'
import { Random } from '../base/random.ts'
import { FaultyStore, noStoreFaults } from './faulty-store.ts'
import { MemoryStore } from './memory-store.ts'
import { storeContract, type StoreHarness } from './store-contract.ts'

function harness(connect: (store: MemoryStore) => ReturnType<MemoryStore['connect']>): StoreHarness {
  const store = new MemoryStore()
  let now = 1e6
  return { connect: () => connect(store), now: () => now, pass: (us) => { now += us } }
}

for (const { name, run } of storeContract) {
  test(`memory store: ${name}`, () => run(harness((store) => store.connect())))
  // Slow, but nothing is lost: then the contract holds as well.
  test(`slow store: ${name}`, () => {
    const random = new Random(3)
    return run(harness((store) => new FaultyStore(store.connect(), random, { ...noStoreFaults, delayUsMax: 3000 })))
  })
}

test('memory store: a watch from before its history ends, and its user reads again', () => {
  const store = new MemoryStore()
  const asker = store.connect()
  for (let id = 1; id <= 1100; id++) {
    asker.submit({ kind: 'transact', id, compare: [], changes: [{ key: 'a', value: `${id}` }] }, 0)
    asker.poll(0)
  }
  asker.submit({ kind: 'watch', id: 2000, prefix: '', after: 50 }, 0)
  assert.deepEqual(asker.poll(0), { kind: 'watch-ended', id: 2000 })
  asker.submit({ kind: 'watch', id: 2001, prefix: '', after: 1098 }, 0)
  assert.deepEqual([asker.poll(0), asker.poll(0)].map((answer) => answer?.kind === 'changed' && answer.revision), [1099, 1100])
})

test('faulty store: whatever is lost, a transaction is done once or not at all, and watches miss nothing without saying so', () => {
  const random = new Random(11)
  const store = new MemoryStore()
  const faults = { delayUsMax: 5000, late: 0, requestLost: 0.1, answerLost: 0.1, refused: 0.1, watchEnds: 0.05, isDown: false }
  const asker = new FaultyStore(store.connect(), random, faults)
  const answers = { done: 0, refused: 0, none: 0 }
  let watched = 0
  let ended = 0
  asker.submit({ kind: 'watch', id: 1_000_000, prefix: '', after: 0 }, 0)
  let now = 0
  for (let id = 1; id <= 500; id++) {
    asker.submit({ kind: 'transact', id, compare: [], changes: [{ key: 'a', value: `${id}` }] }, now)
    let kind = 'none'
    for (const end = now + 20_000; now < end; now += 500) {
      for (let answer = asker.poll(now); answer !== undefined; answer = asker.poll(now)) {
        if (answer.id === id) kind = answer.kind
        if (answer.kind === 'changed') assert.equal(answer.revision, ++watched)
        if (answer.kind === 'watch-ended') ended++
      }
    }
    answers[kind === 'transacted' ? 'done' : kind === 'failed' ? 'refused' : 'none']++
  }
  assert.ok(answers.done > 300 && answers.refused > 20 && answers.none > 50)
  assert.ok(store.revision >= answers.done && store.revision <= answers.done + answers.none)
  assert.equal(ended, 1)
  asker.faults = { ...faults, isDown: true }
  const { revision } = store
  asker.submit({ kind: 'transact', id: 501, compare: [], changes: [{ key: 'a', value: '' }] }, now)
  assert.equal(asker.poll(now + 1e6), undefined)
  assert.equal(store.revision, revision)
})
