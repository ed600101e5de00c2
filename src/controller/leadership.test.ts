import { test } from 'node:test'
import assert from 'node:assert/strict'
import { Random } from '../base/random.ts'
import { CodedError } from '../base/coded-error.ts'
import { decodeDocument } from './cluster-state.ts'
import { FaultyStore, noStoreFaults } from './faulty-store.ts'
import { Leadership } from './leadership.ts'
import { MemoryStore } from './memory-store.ts'
import { Draft, StateMirror } from './state-mirror.ts'

class Candidate {
  readonly store: FaultyStore
  readonly mirror: StateMirror
  readonly leadership: Leadership
  #lastId = 0
  /** Results of transactions by request id. */
  readonly results = new Map<number, boolean>()
  isPaused = false
  skewUs = 0

  constructor(store: MemoryStore, name: string, random: Random) {
    this.store = new FaultyStore(store.connect(), random, { ...noStoreFaults, delayUsMax: 5000 })
    this.mirror = new StateMirror(() => ++this.#lastId)
    this.leadership = new Leadership(name, `${name}-${random.int32()}`, this.mirror, () => ++this.#lastId)
  }

  poll(now: number): void {
    this.store.pass(now)
    if (this.isPaused) return
    for (let answer = this.store.poll(now); answer !== undefined; answer = this.store.poll(now)) {
      if (this.mirror.receive(answer, (request) => { this.store.submit(request, now) }) || this.leadership.receive(answer)) continue
      if (answer.kind === 'transacted') this.results.set(answer.id, answer.isDone)
    }
    const submit = (request: Parameters<FaultyStore['submit']>[0]): void => { this.store.submit(request, now) }
    this.mirror.poll(now, submit)
    this.leadership.poll(now, submit)
  }

  submit(draft: Draft, now: number): number {
    const id = ++this.#lastId
    this.store.submit(draft.toRequest(id), now)
    return id
  }
}

const STEP_US = 10_000

test('one leads; when it goes, another does, in a higher term', () => {
  const store = new MemoryStore()
  const candidates = ['a', 'b', 'c'].map((name, index) => new Candidate(store, name, new Random(index)))
  let now = 0
  const run = (us: number): void => { for (const end = now + us; now < end; now += STEP_US) for (const one of candidates) one.poll(now) }
  const leaders = (): Candidate[] => candidates.filter((one) => one.leadership.term(now) !== 0)
  run(1e6)
  assert.equal(leaders().length, 1)
  const [first] = leaders() as [Candidate]
  assert.equal(first.leadership.term(now), 1)
  run(20e6)
  assert.equal(leaders()[0], first)
  first.isPaused = true
  run(2e6)
  run(3e6)
  const [second] = leaders() as [Candidate]
  assert.equal(leaders().length, 1)
  assert.ok(second !== first && second.leadership.term(now) === 2)
  first.isPaused = false
  run(2e6)
  assert.deepEqual(leaders(), [second])
})

test('two leaders at once, by a clock that stands still: the deposed one writes nothing', () => {
  const store = new MemoryStore()
  const old = new Candidate(store, 'old', new Random(1))
  const next = new Candidate(store, 'next', new Random(2))
  let now = 0
  for (; now < 1e6; now += STEP_US) old.poll(now)
  const oldNow = now
  assert.equal(old.leadership.term(oldNow), 1)
  // It stands still, and its clock with it.
  for (; now < 10e6; now += STEP_US) next.poll(now)
  assert.deepEqual([old.leadership.term(oldNow), next.leadership.term(now)], [1, 2])
  const life = { nonce: 'x', incarnation: 1 }
  const refused = old.submit(new Draft(old.mirror, 'test').put('life', 1, life), now)
  const done = next.submit(new Draft(next.mirror, 'test').put('life', 1, life), now)
  for (const end = now + 1e6; now < end; now += STEP_US) {
    next.poll(now)
    old.poll(now)
  }
  assert.equal(old.results.get(refused), false)
  assert.equal(next.results.get(done), true)
  assert.equal(old.leadership.term(now), 0)
})

test('of two drafts on one state only one is carried out, whatever they write', () => {
  const store = new MemoryStore()
  const one = new Candidate(store, 'one', new Random(1))
  let now = 0
  for (; now < 1e6; now += STEP_US) one.poll(now)
  const ids = [3, 4].map((node) => one.submit(new Draft(one.mirror, 'test').put('life', node, { nonce: '', incarnation: node }), now))
  for (const end = now + 1e6; now < end; now += STEP_US) one.poll(now)
  assert.deepEqual(ids.map((id) => one.results.get(id)).sort(), [false, true])
})

test('with a bad store there is never more than one leader per term, and a leader once it is better', () => {
  for (let seed = 1; seed <= 30; seed++) {
    const random = new Random(seed)
    const store = new MemoryStore()
    const candidates = ['a', 'b', 'c'].map((name) => new Candidate(store, name, random))
    const byTerm = new Map<number, Candidate>()
    let now = 0
    const step = (): void => {
      now += STEP_US
      for (const one of candidates) {
        one.poll(now)
        const term = one.leadership.term(now)
        if (term === 0) continue
        assert.equal(byTerm.get(term) ?? one, one, `seed ${seed}`)
        byTerm.set(term, one)
      }
    }
    for (const one of candidates) {
      one.store.faults = { delayUsMax: 300_000, late: 0.05, requestLost: 0.1, answerLost: 0.1, refused: 0.1, watchEnds: 0.1, isDown: false }
    }
    while (now < 60e6) {
      step()
      if (random.chance(0.003)) random.pick(candidates).isPaused = true
      if (random.chance(0.01)) random.pick(candidates).isPaused = false
      if (random.chance(0.002)) {
        const { store: one } = random.pick(candidates)
        one.faults = { ...one.faults, isDown: !one.faults.isDown }
      }
    }
    for (const one of candidates) {
      one.isPaused = false
      one.store.faults = { ...noStoreFaults }
    }
    while (now < 80e6) step()
    assert.equal(candidates.filter((one) => one.leadership.term(now) !== 0).length, 1, `seed ${seed}`)
    for (const one of candidates) assert.equal(one.mirror.revision, store.revision, `seed ${seed}`)
  }
})

test('what another version has left in the store is refused with a code', () => {
  for (const value of ['{', '{}', '{"term":-1}', '{"term":1,"more":2}']) {
    assert.throws(() => decodeDocument('term', 'term', value), (error) => error instanceof CodedError && error.code === 'NF_STORE_CONTENT')
  }
  assert.deepEqual(decodeDocument('term', 'term', '{"term":4}'), { term: 4 })
})
