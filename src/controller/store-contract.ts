/**
 * What every store keeps, as a suite of cases to be run against an implementation. A case is given new connections to one store that
 * is empty at its start, and a way to let time pass; it throws where the store breaks the contract.
 */

import { assert } from '../base/assert.ts'
import type { Change, Comparison, Store, StoreAnswer, StoreEntry, StoreRequest } from './store.ts'

export interface StoreHarness {
  /** A new asker of the store under test. */
  connect(): Store
  now(): number
  /** Lets so much time pass, really or not, µs. */
  pass(us: number): Promise<void> | void
}

export interface StoreCase {
  readonly name: string
  /** It waits for leases to end; where that takes real time, such cases may run beside each other. */
  readonly isLong?: true
  run(harness: StoreHarness): Promise<void>
}

type Wanted<K extends StoreAnswer['kind']> = Extract<StoreAnswer, { kind: K }>
type Without<T> = T extends unknown ? Omit<T, 'id'> : never

/** Leases of the cases, µs: no shorter than what a networked store can grant. */
const TTL_US = 2e6
const PATIENCE = 2000
const STEP_US = 5000

/** An asker that waits for its answers. */
class Asker {
  readonly #store: Store
  readonly #harness: StoreHarness
  readonly #others: StoreAnswer[] = []
  #lastId = 0

  constructor(harness: StoreHarness) {
    this.#harness = harness
    this.#store = harness.connect()
  }

  /** Answers that nobody has waited for yet, such as changes. */
  others(): StoreAnswer[] {
    for (let more = this.#poll(); more !== undefined; more = this.#poll()) this.#others.push(more)
    return this.#others.splice(0)
  }

  #poll(): StoreAnswer | undefined {
    return this.#store.poll(this.#harness.now())
  }

  submit(request: Without<StoreRequest>): number {
    const id = ++this.#lastId
    this.#store.submit({ ...request, id } as StoreRequest, this.#harness.now())
    return id
  }

  async #ask<K extends StoreAnswer['kind']>(request: Without<StoreRequest>, kind: K): Promise<Wanted<K>> {
    const id = this.submit(request)
    for (let i = 0; i < PATIENCE; i++) {
      for (let answer = this.#poll(); answer !== undefined; answer = this.#poll()) {
        if (answer.id === id && answer.kind === kind) return answer as Wanted<K>
        this.#others.push(answer)
      }
      await this.#harness.pass(STEP_US)
    }
    throw new Error(`no answer to ${request.kind}`)
  }

  /** The changes told to watches, once `count` have come. */
  async changes(count: number): Promise<Wanted<'changed'>[]> {
    const seen: Wanted<'changed'>[] = []
    for (let i = 0; i < PATIENCE && seen.length < count; i++) {
      for (const answer of this.others()) if (answer.kind === 'changed') seen.push(answer)
      if (seen.length < count) await this.#harness.pass(STEP_US)
    }
    return seen
  }

  transact(compare: readonly Comparison[], changes: readonly Change[]): Promise<Wanted<'transacted'>> {
    return this.#ask({ kind: 'transact', compare, changes }, 'transacted')
  }

  read(prefix = ''): Promise<Wanted<'entries'>> {
    return this.#ask({ kind: 'read', prefix }, 'entries')
  }

  async grant(): Promise<number> {
    return (await this.#ask({ kind: 'grant', ttlUs: TTL_US }, 'granted')).lease
  }

  async keep(lease: number): Promise<boolean> {
    return (await this.#ask({ kind: 'keep', lease }, 'kept')).isAlive
  }

  async revoke(lease: number): Promise<void> {
    await this.#ask({ kind: 'revoke', lease }, 'revoked')
  }
}

const plain = (entries: readonly StoreEntry[]): string => entries.map(({ key, value }) => `${key}=${value}`).join(' ')
const told = (changes: readonly Change[]): string => changes.map(({ key, value }) => `${key}=${value}`).sort().join(' ')

export const storeContract: readonly StoreCase[] = [
  {
    name: 'an entry is made once, changed at its revision, and removed',
    async run(harness) {
      const asker = new Asker(harness)
      const made = await asker.transact([{ key: 'a', revision: 0 }], [{ key: 'a', value: '1' }])
      assert(made.isDone, 'an entry that is not there can be made')
      const again = await asker.transact([{ key: 'a', revision: 0 }], [{ key: 'a', value: '2' }])
      assert(!again.isDone, 'an entry that is there cannot be made anew')
      const [entry] = (await asker.read()).entries
      assert(entry?.value === '1' && entry.revision === made.revision && entry.lease === 0, 'the entry is as it was made')
      const changed = await asker.transact([{ key: 'a', revision: made.revision }], [{ key: 'a', value: '3' }])
      assert(changed.isDone && changed.revision > made.revision, 'a change raises the revision')
      assert(!(await asker.transact([{ key: 'a', revision: made.revision }], [{ key: 'a', value: null }])).isDone, 'an old revision is refused')
      assert((await asker.transact([{ key: 'a', revision: changed.revision }], [{ key: 'a', value: null }])).isDone, 'removed at its revision')
      assert((await asker.read()).entries.length === 0, 'nothing is left')
      assert((await asker.transact([{ key: 'a', revision: 0 }], [{ key: 'a', value: '4' }])).isDone, 'what was removed can be made')
    },
  },
  {
    name: 'a transaction is carried out whole or not at all, at one revision',
    async run(harness) {
      const asker = new Asker(harness)
      const first = await asker.transact([], [{ key: 'a', value: '1' }, { key: 'b', value: '1' }])
      const before = await asker.read()
      assert(before.entries.every(({ revision }) => revision === first.revision), 'all changes have the revision of the transaction')
      const refused = await asker.transact([{ key: 'a', revision: first.revision }, { key: 'c', revision: 1 }],
        [{ key: 'a', value: '2' }, { key: 'c', value: '2' }])
      assert(!refused.isDone, 'one comparison that fails is enough')
      const after = await asker.read()
      assert(plain(after.entries) === 'a=1 b=1' && after.revision === before.revision, 'a refused transaction changes nothing')
      const idle = await asker.transact([], [{ key: 'x', value: null }])
      assert(idle.isDone && idle.revision === before.revision, 'removing what is not there changes nothing')
    },
  },
  {
    name: 'of many who make the same entry at once, one succeeds',
    async run(harness) {
      const askers = Array.from({ length: 8 }, () => new Asker(harness))
      const results = await Promise.all(askers.map((asker, index) =>
        asker.transact([{ key: 'leader', revision: 0 }], [{ key: 'leader', value: `${index}` }])))
      assert(results.filter(({ isDone }) => isDone).length === 1, 'exactly one succeeds')
      const winner = results.findIndex(({ isDone }) => isDone)
      assert((await (askers[0] as Asker).read()).entries[0]?.value === `${winner}`, 'the entry is the winner\'s')
    },
  },
  {
    name: 'counting by compare-and-set loses nothing',
    async run(harness) {
      const askers = Array.from({ length: 3 }, () => new Asker(harness))
      await (askers[0] as Asker).transact([], [{ key: 'count', value: '0' }])
      await Promise.all(askers.map(async (asker) => {
        for (let done = 0; done < 10;) {
          const [entry] = (await asker.read('count')).entries
          assert(entry !== undefined, 'the count is there')
          const { key, revision, value } = entry
          if ((await asker.transact([{ key, revision }], [{ key, value: `${Number(value) + 1}` }])).isDone) done++
        }
      }))
      assert((await (askers[0] as Asker).read()).entries[0]?.value === '30', 'every success has counted')
    },
  },
  {
    name: 'reading is by prefix, in the order of keys',
    async run(harness) {
      const asker = new Asker(harness)
      await asker.transact([], ['b/2', 'a', 'b/10', 'c', 'b'].map((key) => ({ key, value: '' })))
      assert(plain((await asker.read('b/')).entries) === 'b/10= b/2=', 'only what begins so, sorted')
      assert((await asker.read()).entries.length === 5, 'an empty prefix reads all')
    },
  },
  {
    name: 'a watch tells every change from its revision on, in order, whole, and nothing else',
    async run(harness) {
      const asker = new Asker(harness)
      const watcher = new Asker(harness)
      const { revision } = await asker.transact([], [{ key: 'w/a', value: '1' }])
      await asker.transact([], [{ key: 'w/a', value: '2' }, { key: 'v', value: '2' }, { key: 'w/b', value: '2' }])
      const watch = watcher.submit({ kind: 'watch', prefix: 'w/', after: revision })
      await asker.transact([], [{ key: 'v', value: '3' }])
      await asker.transact([], [{ key: 'w/a', value: null }])
      const seen = await watcher.changes(2)
      assert(seen.map(({ changes }) => told(changes)).join('; ') === 'w/a=2 w/b=2; w/a=null', 'past and present changes, in order')
      assert(seen.every(({ id }) => id === watch), 'changes name their watch')
      assert((seen[0] as Wanted<'changed'>).revision < (seen[1] as Wanted<'changed'>).revision, 'revisions rise')
      watcher.submit({ kind: 'unwatch', watch })
      await watcher.read()
      await asker.transact([], [{ key: 'w/c', value: '4' }])
      await watcher.read()
      assert(watcher.others().every(({ kind }) => kind !== 'changed'), 'after unwatch nothing is told')
    },
  },
  {
    name: 'a reading and a watch from its revision make a whole',
    async run(harness) {
      const asker = new Asker(harness)
      const watcher = new Asker(harness)
      for (let i = 0; i < 5; i++) await asker.transact([], [{ key: 'k', value: `${i}` }])
      const { revision, entries } = await watcher.read()
      watcher.submit({ kind: 'watch', prefix: '', after: revision })
      for (let i = 5; i < 10; i++) await asker.transact([], [{ key: 'k', value: `${i}` }])
      const seen = await watcher.changes(5)
      assert(`${plain(entries)}; ${seen.map(({ changes }) => told(changes)).join('; ')}` ===
        'k=4; k=5; k=6; k=7; k=8; k=9', 'nothing twice, nothing missing')
    },
  },
  {
    name: 'a watch that begins too early or in the future is told so',
    async run(harness) {
      const asker = new Asker(harness)
      const watch = asker.submit({ kind: 'watch', prefix: '', after: 1e9 })
      for (let i = 0; i < PATIENCE; i++) {
        if (asker.others().some(({ kind, id }) => kind === 'watch-ended' && id === watch)) return
        await harness.pass(STEP_US)
      }
      throw new Error('the watch is not refused')
    },
  },
  {
    name: 'entries live as long as their lease is kept, and go with it at once',
    isLong: true,
    async run(harness) {
      const asker = new Asker(harness)
      const watcher = new Asker(harness)
      const lease = await asker.grant()
      const { revision } = await asker.transact([], [{ key: 'l/a', value: '1', lease }, { key: 'l/b', value: '1', lease }])
      assert((await watcher.read()).entries.every((entry) => entry.lease === lease), 'entries name their lease')
      watcher.submit({ kind: 'watch', prefix: 'l/', after: revision })
      for (let i = 0; i < 6; i++) {
        await harness.pass(TTL_US / 4)
        assert(await asker.keep(lease), 'a lease that is kept lives')
      }
      assert((await watcher.read('l/')).entries.length === 2, 'and so do its entries')
      await harness.pass(TTL_US * 2)
      assert((await watcher.read('l/')).entries.length === 0, 'a lease that is not kept ends')
      const seen = await watcher.changes(1)
      assert(seen.map(({ changes }) => told(changes)).join('; ') === 'l/a=null l/b=null', 'its end is one change')
      assert(!(await asker.keep(lease)), 'what has ended is not kept')
      assert(!(await asker.transact([], [{ key: 'l/a', value: '2', lease }])).isDone, 'nothing is put under a lease that has ended')
    },
  },
  {
    name: 'a lease is given back; an entry put without it no longer depends on it',
    async run(harness) {
      const asker = new Asker(harness)
      const lease = await asker.grant()
      const other = await asker.grant()
      assert(lease !== other, 'every lease is its own')
      await asker.transact([], [{ key: 'a', value: '1', lease }, { key: 'b', value: '1', lease }, { key: 'c', value: '1', lease: other }])
      await asker.transact([], [{ key: 'b', value: '2' }])
      await asker.revoke(lease)
      assert(plain((await asker.read()).entries) === 'b=2 c=1', 'only what is still under the lease goes')
      await asker.revoke(lease)
      assert(!(await asker.keep(lease)), 'what was given back is not kept')
      assert(!(await asker.transact([], [{ key: 'd', value: '1', lease }])).isDone, 'nothing is put under what was given back')
    },
  },
  {
    name: 'whoever has a lease, its end is seen by all; anybody may keep it',
    isLong: true,
    async run(harness) {
      const owner = new Asker(harness)
      const [keeper, watcher] = [new Asker(harness), new Asker(harness)]
      const [left, kept] = [await owner.grant(), await owner.grant()]
      const { revision } = await owner.transact([], [{ key: 'left', value: '', lease: left }, { key: 'kept', value: '', lease: kept }])
      watcher.submit({ kind: 'watch', prefix: '', after: revision })
      // The owner does nothing from now on.
      for (let i = 0; i < 6; i++) {
        await harness.pass(TTL_US / 4)
        assert(await keeper.keep(kept), 'a lease that another keeps lives')
      }
      const [end] = await watcher.changes(1)
      assert(end !== undefined && told(end.changes) === 'left=null', 'the one that is not kept has ended, alone')
      assert(plain((await keeper.read()).entries) === 'kept=', 'the other has not')
    },
  },
  {
    name: 'keys and values are any text, and prefixes are meant literally',
    async run(harness) {
      const asker = new Asker(harness)
      const texts = ['', '"', '\'; --', '\\n\n', 'λ', '\u{1f600}', ' ', 'x'.repeat(200_000)]
      await asker.transact([], texts.map((value, index) => ({ key: `p/${index}`, value })))
      const found = (await asker.read('p/')).entries
      assert(found.length === texts.length && found.every(({ value }, index) => value === texts[index]), 'values come back as they were')
      const keys = ['%', '%a', '_', 'a', 'aé', 'A', 'a\u{1f600}', '*', 'a?', 'ab']
      await asker.transact([], keys.map((key) => ({ key: `k${key}`, value: '' })))
      for (const prefix of [...keys.map((key) => `k${key}`), 'k', 'K']) {
        const expected = keys.map((key) => `k${key}`).filter((key) => key.startsWith(prefix)).sort()
        const { entries } = await asker.read(prefix)
        assert(entries.map(({ key }) => key).sort().join(' ') === expected.join(' '), 'what begins so, and nothing else')
      }
    },
  },
  {
    name: 'a reading is of one moment, while others write',
    async run(harness) {
      const [writer, reader] = [new Asker(harness), new Asker(harness)]
      await writer.transact([], [{ key: 'a', value: '0' }, { key: 'b', value: '0' }])
      let isOver = false
      const writing = (async () => {
        for (let i = 1; i <= 40; i++) await writer.transact([], [{ key: 'a', value: `${i}` }, { key: 'b', value: `${i}` }])
        isOver = true
      })()
      let last = 0
      while (!isOver) {
        const { entries, revision } = await reader.read()
        const [a, b] = entries as [StoreEntry, StoreEntry]
        assert(a.value === b.value && a.revision === b.revision, 'both are of the same transaction')
        assert(revision >= last && a.revision <= revision, 'the store never goes back')
        last = revision
      }
      await writing
    },
  },
  {
    name: 'what a watch tells is what a reading shows, leases and large transactions included',
    async run(harness) {
      const [asker, watcher] = [new Asker(harness), new Asker(harness)]
      const { revision } = await watcher.read()
      watcher.submit({ kind: 'watch', prefix: 'm/', after: revision })
      const lease = await asker.grant()
      const many = Array.from({ length: 100 }, (_, index) => ({ key: `m/${index}`, value: `${index}`, lease: index % 2 === 0 ? lease : 0 }))
      const made = await asker.transact(many.map(({ key }) => ({ key, revision: 0 })), many)
      assert(made.isDone, 'a hundred changes are carried out')
      const mirror = new Map<string, StoreEntry>()
      const [step] = await watcher.changes(1)
      assert(step?.revision === made.revision && step.changes.length === 100, 'and told as one step')
      for (const { key, value, lease = 0 } of step.changes) mirror.set(key, { key, value: value ?? '', revision: step.revision, lease })
      const { entries } = await asker.read('m/')
      assert(entries.length === mirror.size, 'nothing is missing')
      for (const entry of entries) {
        const known = mirror.get(entry.key)
        assert(known?.value === entry.value && known.revision === entry.revision && known.lease === entry.lease, 'entry by entry')
      }
      await asker.revoke(lease)
      const [end] = await watcher.changes(1)
      assert(end?.changes.length === 50 && end.changes.every(({ value }) => value === null), 'the end of a lease is one step')
    },
  },
  {
    name: 'several watches of one asker are apart',
    async run(harness) {
      const [asker, watcher] = [new Asker(harness), new Asker(harness)]
      const { revision } = await asker.transact([], [{ key: 'x', value: '' }])
      const [a, b] = ['a', 'b'].map((prefix) => watcher.submit({ kind: 'watch', prefix, after: revision }))
      await asker.transact([], [{ key: 'a', value: '1' }, { key: 'b', value: '1' }])
      const both = await watcher.changes(2)
      assert(both.map(({ id, changes }) => `${id === a ? 'a' : 'b'}: ${told(changes)}`).sort().join(', ') === 'a: a=1, b: b=1', 'each its own')
      watcher.submit({ kind: 'unwatch', watch: a as number })
      await watcher.read()
      await asker.transact([], [{ key: 'a', value: '2' }])
      await asker.transact([], [{ key: 'b', value: '2' }])
      const [rest] = await watcher.changes(1)
      assert(rest?.id === b && told(rest.changes) === 'b=2', 'the end of one is not that of the other')
    },
  },
]
