/**
 * A process that counts in a store by compare-and-set, for tests that kill it: `node counter.ts SPEC`. A line for every count that the
 * store has confirmed.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import type { StoreAnswer, StoreRequest } from '../../../controller/store.ts'
import { realNow } from './candidate.ts'
import { openStore, type StoreSpec } from './store-spec.ts'

const store = await openStore(JSON.parse(process.argv[2] as string) as StoreSpec)
let lastId = 0

async function ask(request: { kind: 'read'; prefix: string } | Omit<Extract<StoreRequest, { kind: 'transact' }>, 'id'>): Promise<StoreAnswer> {
  const id = ++lastId
  store.submit({ ...request, id }, realNow())
  for (;;) {
    const answer = store.poll(realNow())
    if (answer?.id === id) return answer
    if (answer === undefined) await sleep(1)
  }
}

for (;;) {
  const found = await ask({ kind: 'read', prefix: 'count' })
  if (found.kind !== 'entries') continue
  const { revision, value } = found.entries[0] ?? { revision: 0, value: '0' }
  const next = `${Number(value) + 1}`
  const answer = await ask({ kind: 'transact', compare: [{ key: 'count', revision }], changes: [{ key: 'count', value: next }] })
  if (answer.kind === 'transacted' && answer.isDone) process.stdout.write(`${next}\n`)
}
