/** State mirror: what is kept of what it has shown, and how often it asks. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { MemoryStore } from './memory-store.ts'
import { StateMirror } from './state-mirror.ts'
import type { StoreRequest } from './store.ts'

test('a document is decoded once, also when all is read again; nothing is kept of entries that are gone', async () => {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  const store = new MemoryStore()
  const connection = store.connect()
  let id = 0
  const mirror = new StateMirror(() => ++id)
  let now = 0
  const follow = (): void => {
    const submit = (request: StoreRequest): void => { connection.submit(request, now) }
    mirror.poll(now, submit)
    for (let answer = connection.poll(now); answer !== undefined; answer = connection.poll(now)) mirror.receive(answer, submit)
  }
  const put = (key: string, value: string | null): void => {
    store.connect().submit({ kind: 'transact', id: 1, compare: [], changes: [{ key, value }] }, now)
    follow()
  }
  follow()
  for (const number of [1, 2]) put(`block/ports/${number}`, JSON.stringify({ incarnation: 7 }))
  const stays = mirror.get('block', 'ports/1')
  const goes = new WeakRef(mirror.get('block', 'ports/2') as object)
  mirror.refresh()
  now = 1e6
  follow()
  assert.ok(mirror.isFresh)
  assert.equal(mirror.get('block', 'ports/1'), stays)
  assert.equal(mirror.get('block', 'ports/2'), goes.deref())
  put('block/ports/2', null)
  await turn()
  collect()
  assert.deepEqual([mirror.get('block', 'ports/2'), goes.deref()], [undefined, undefined])
  put('block/ports/1', JSON.stringify({ incarnation: 8 }))
  assert.deepEqual(mirror.get('block', 'ports/1'), { incarnation: 8 })
})

test('a store that fails is asked again after a while, one that does not answer later', () => {
  for (const [hasFailed, reads] of [[true, 20], [false, 2]] as const) {
    let id = 0
    const mirror = new StateMirror(() => ++id)
    const asked: number[] = []
    for (let now = 0; now < 1e6; now += 5000) {
      mirror.poll(now, (request) => { asked.push(request.id) })
      if (hasFailed && asked.at(-1) === id) mirror.receive({ kind: 'failed', id }, () => {})
    }
    assert.equal(asked.length, reads)
    const last = asked.at(-1) as number
    mirror.poll(2e6, (request) => { asked.push(request.id) })
    mirror.receive({ kind: 'entries', id: last + 1, revision: 3, entries: [] }, () => {})
    assert.equal(mirror.isFresh, true)
  }
})
