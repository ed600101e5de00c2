/**
 * What the stores of controllers cost: `node bench/stores/main.ts [--quick]`. Transactions one after another and 32 at a time, and the time
 * from a put by one asker to the watch of another with a connection of its own; beside them, in turns, what a disk asks for: appending 4 KiB
 * and waiting until they are there. Every figure is the median of the rounds. etcd, if it is installed, runs here too, with one member.
 */

import { closeSync, fdatasyncSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { MemoryStore } from '../../src/controller/memory-store.ts'
import type { Store, StoreAnswer } from '../../src/controller/store.ts'
import { EtcdStore } from '../../src/process/stores/etcd-store.ts'
import { SqliteStore } from '../../src/process/stores/sqlite-store.ts'
import { EtcdServers, noEtcd } from '../../src/process/stores/testing/etcd-servers.ts'

const isQuick = process.argv.includes('--quick')
const ROUNDS = isQuick ? 3 : 7
const TRANSACTIONS = isQuick ? 60 : 200
const now = (): number => performance.now() * 1000
const value = 'x'.repeat(500)

interface Subject {
  readonly name: string
  readonly one: Store
  readonly other: Store
  close(): Promise<void>
}

let lastId = 0

function put(store: Store): number {
  store.submit({ kind: 'transact', id: ++lastId, compare: [], changes: [{ key: `k${lastId % 50}`, value }] }, now())
  return lastId
}

async function answer(store: Store, isIt: (answer: StoreAnswer) => boolean): Promise<void> {
  for (const end = now() + 10e6; now() < end; await setImmediate()) {
    for (let one = store.poll(now()); one !== undefined; one = store.poll(now())) {
      if (one.kind === 'failed' || one.kind === 'watch-ended') throw new Error(`the store has answered ${one.kind}`)
      if (isIt(one)) return
    }
  }
  throw new Error('no answer for 10 s')
}

/** Transactions per second, with so many under way. */
async function rate(store: Store, width: number): Promise<number> {
  const begin = now()
  let begun = 0
  let ended = 0
  while (ended < TRANSACTIONS) {
    for (; begun < TRANSACTIONS && begun - ended < width; begun++) put(store)
    await answer(store, ({ kind }) => kind === 'transacted')
    ended++
  }
  return TRANSACTIONS / (now() - begin) * 1e6
}

/** From put to watch, µs, median. */
async function delay({ one, other }: Subject): Promise<number> {
  other.submit({ kind: 'read', id: ++lastId, prefix: '' }, now())
  let revision = 0
  await answer(other, (entries) => {
    if (entries.kind === 'entries') revision = entries.revision
    return entries.kind === 'entries'
  })
  const watch = ++lastId
  other.submit({ kind: 'watch', id: watch, prefix: '', after: revision }, now())
  const delays: number[] = []
  for (let i = 0; i < TRANSACTIONS / 4; i++) {
    const begin = now()
    const id = put(one)
    await answer(other, (told) => told.kind === 'changed' && told.id === watch)
    delays.push(now() - begin)
    await answer(one, (done) => done.id === id)
  }
  other.submit({ kind: 'unwatch', id: ++lastId, watch }, now())
  return median(delays)
}

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] as number

/** Appends to a file that wait for the disk, per second. */
function disk(path: string): number {
  const file = openSync(path, 'a')
  const block = Buffer.alloc(4096)
  const begin = now()
  for (let i = 0; i < TRANSACTIONS; i++) {
    writeSync(file, block)
    fdatasyncSync(file)
  }
  closeSync(file)
  return TRANSACTIONS / (now() - begin) * 1e6
}

const folder = mkdtempSync(join(tmpdir(), 'nfactor-stores-'))
const memory = new MemoryStore()
const path = join(folder, 'store.db')
const [one, other] = await Promise.all([SqliteStore.open(path), SqliteStore.open(path)])
const subjects: Subject[] = [
  { name: 'memory', one: memory.connect(), other: memory.connect(), close: () => Promise.resolve() },
  { name: 'SQLite', one, other, close: async () => { await Promise.all([one.close(), other.close()]) } },
]
if (noEtcd === false) {
  const etcd = await EtcdServers.start({ isDurable: true })
  const { endpoints } = etcd
  const [first, second] = await Promise.all([EtcdStore.open({ endpoints }), EtcdStore.open({ endpoints })])
  const close = async (): Promise<void> => {
    await Promise.all([first.close(), second.close()])
    await etcd.close()
  }
  subjects.push({ name: 'etcd', one: first, other: second, close })
} else {
  console.log(noEtcd)
}

try {
  const appends: number[] = []
  const found = subjects.map(() => ({ single: [] as number[], wide: [] as number[], delay: [] as number[] }))
  for (let round = 0; round < ROUNDS; round++) {
    appends.push(disk(join(folder, 'plain')))
    for (const [index, subject] of subjects.entries()) {
      found[index]?.single.push(await rate(subject.one, 1))
      found[index]?.wide.push(await rate(subject.one, 32))
      found[index]?.delay.push(await delay(subject))
    }
  }
  const base = median(appends)
  console.log(`an append and a sync: ${Math.round(base)} per second`)
  for (const [index, { name }] of subjects.entries()) {
    const { single, wide, delay: delays } = found[index] as (typeof found)[number]
    const figure = (values: readonly number[]): string => `${Math.round(median(values))}/s (${(median(values) / base).toFixed(2)} x)`
    const toWatch = (median(delays) / 1000).toFixed(2)
    console.log(`${name.padEnd(7)} one at a time ${figure(single)}, 32 at a time ${figure(wide)}, put to watch ${toWatch} ms`)
  }
} finally {
  for (const { close } of subjects) await close()
  rmSync(folder, { recursive: true, force: true })
}
