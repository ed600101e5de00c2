import { after, describe, test } from 'node:test'
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { setTimeout as sleep } from 'node:timers/promises'
import { CodedError, type ErrorCode } from '../../base/coded-error.ts'
import { storeContract } from '../../controller/store-contract.ts'
import type { StoreAnswer, StoreRequest } from '../../controller/store.ts'
import { LOG_MAX, SqliteFile, UnknownOutcome } from './sqlite-file.ts'
import { SqliteStore } from './sqlite-store.ts'
import { SqliteAsker } from './sqlite-thread.ts'
import { countsThroughKills, deposedLeaderWritesNothing, holds, leadPassesOnWhenKilled } from './testing/real-store-suite.ts'

const folder = mkdtempSync(join(tmpdir(), 'nfactor-sqlite-'))
after(() => { rmSync(folder, { recursive: true, force: true }) })

const BUSY_MS = 20

/** The file without its thread, and what it has answered. */
class Direct {
  readonly file: SqliteFile
  readonly asker: SqliteAsker
  readonly answers: StoreAnswer[] = []
  problem: ErrorCode | undefined

  constructor(path: string) {
    this.file = new SqliteFile(path, BUSY_MS)
    this.asker = new SqliteAsker(this.file, path, ({ answers, problem }) => {
      this.answers.push(...answers)
      this.problem = problem?.code
    })
  }

  /** What comes by this request. */
  ask(request: StoreRequest): StoreAnswer[] {
    this.asker.submit(request)
    return this.answers.splice(0)
  }

  put(id: number, key: string, value: string, lease = 0): StoreAnswer[] {
    return this.ask({ kind: 'transact', id, compare: [], changes: [{ key, value, lease }] })
  }
}

const kinds = (answers: readonly StoreAnswer[]): string[] => answers.map(({ kind }) => kind)

async function assertRefused(path: string, code: ErrorCode, text: RegExp): Promise<void> {
  await assert.rejects(async () => { await (await SqliteStore.open(path)).close() }, (error) => {
    assert.ok(error instanceof CodedError, String(error))
    assert.equal(error.code, code)
    assert.match(error.toLine(), text)
    assert.ok(error.toLine().includes(path) && !error.toLine().includes('\n'))
    return true
  })
}

const spec = (name: string) => ({ kind: 'sqlite' as const, path: join(folder, name) })

describe('contract', { concurrency: 4 }, () => {
  for (const [index, one] of storeContract.entries()) test(one.name, () => holds(one, spec(`contract-${index}.db`)))
})

describe('several processes', { concurrency: true }, () => {
  test('processes that are killed while they write leave whole transactions', () => countsThroughKills(spec('count.db')))
  test('a leader that is killed is followed by another', async (t) => {
    for (const gap of await leadPassesOnWhenKilled(spec('lead.db'))) t.diagnostic(`nobody led for ${Math.round(gap)} ms`)
  })
  test('a leader that stands still is deposed, and writes nothing', () => deposedLeaderWritesNothing(spec('deposed.db')))
})

test('a store is for its owner alone, and is what it was when it is opened again', async () => {
  const path = join(folder, 'again.db')
  const first = new Direct(path)
  first.put(1, 'a', '1')
  first.put(2, 'a', '2')
  for (const suffix of ['', '-wal', '-shm']) assert.equal(statSync(`${path}${suffix}`).mode & 0o777, 0o600)
  // As a kill would leave it.
  for (const suffix of ['', '-wal']) copyFileSync(`${path}${suffix}`, `${path}.copy${suffix}`)
  first.file.close()
  for (const file of [path, `${path}.copy`]) {
    const second = new Direct(file)
    assert.deepEqual(second.ask({ kind: 'read', id: 1, prefix: '' }),
      [{ kind: 'entries', id: 1, revision: 2, entries: [{ key: 'a', value: '2', revision: 2, lease: 0 }] }])
    assert.deepEqual(second.ask({ kind: 'watch', id: 2, prefix: '', after: 1 }),
      [{ kind: 'changed', id: 2, revision: 2, changes: [{ key: 'a', value: '2', lease: 0 }] }])
    second.file.close()
  }
})

test('a watch that begins before the log ends, and so does one that falls behind it', () => {
  const path = join(folder, 'log.db')
  const [writer, watcher] = [new Direct(path), new Direct(path)]
  writer.put(1, 'a', '0')
  assert.deepEqual(watcher.ask({ kind: 'watch', id: 1, prefix: '', after: 1 }), [])
  for (let i = 0; i < LOG_MAX + 1; i++) writer.put(2, 'a', `${i}`)
  watcher.asker.tick()
  assert.deepEqual(watcher.answers.splice(0), [{ kind: 'watch-ended', id: 1 }])
  assert.deepEqual(watcher.ask({ kind: 'watch', id: 2, prefix: '', after: 1 }), [{ kind: 'watch-ended', id: 2 }])
  assert.equal(watcher.ask({ kind: 'watch', id: 3, prefix: '', after: 2 }).length, LOG_MAX)
  const log = new DatabaseSync(path)
  assert.equal(log.prepare('SELECT count(*) AS n FROM log').get()?.n, LOG_MAX)
  log.close()
  writer.file.close()
  watcher.file.close()
})

test('leases of an earlier boot are over, and whoever is of another boot does nothing', () => {
  const path = join(folder, 'boot.db')
  const before = new Direct(path)
  const [granted] = before.ask({ kind: 'grant', id: 1, ttlUs: 1e9 }) as [Extract<StoreAnswer, { kind: 'granted' }>]
  before.put(2, 'leader', 'x', granted.lease)
  const other = new DatabaseSync(path)
  other.exec("UPDATE state SET boot = 'of yesterday'")
  // Another machine has opened the file.
  assert.deepEqual(kinds(before.put(3, 'a', '')), ['failed'])
  assert.deepEqual(kinds(before.ask({ kind: 'keep', id: 4, lease: granted.lease })), ['failed'])
  assert.equal(before.problem, 'NF_STORE_FAILED')
  before.file.close()
  other.close()
  const now = new Direct(path)
  assert.deepEqual(now.ask({ kind: 'read', id: 1, prefix: '' }), [{ kind: 'entries', id: 1, revision: 2, entries: [] }])
  assert.deepEqual(now.ask({ kind: 'keep', id: 2, lease: granted.lease }), [{ kind: 'kept', id: 2, isAlive: false }])
  now.file.close()
})

test('while another process has the lock requests fail in time, readings do not; then all goes on', async () => {
  const path = join(folder, 'busy.db')
  const store = new Direct(path)
  store.put(1, 'a', '1')
  const other = new DatabaseSync(path)
  other.exec('BEGIN IMMEDIATE')
  const start = performance.now()
  assert.deepEqual(kinds(store.put(2, 'a', '2')), ['failed'])
  assert.ok(performance.now() - start < 1000)
  assert.equal(store.problem, 'NF_STORE_BUSY')
  assert.deepEqual(kinds(store.ask({ kind: 'read', id: 3, prefix: '' })), ['entries'])
  const empty = join(folder, 'busy-new.db')
  const holder = new DatabaseSync(empty)
  holder.exec('BEGIN EXCLUSIVE')
  await assertRefused(empty, 'NF_STORE_BUSY', /another process keeps it locked/)
  holder.close()
  other.exec('ROLLBACK')
  other.close()
  assert.deepEqual(kinds(store.put(4, 'a', '2')), ['transacted'])
  assert.equal(store.problem, undefined)
  store.file.close()
})

test('what is no store is refused in one line, and left as it is', async () => {
  const text = join(folder, 'text.db')
  writeFileSync(text, 'no database, but long enough for a header of one\n'.repeat(50))
  const content = readFileSync(text)
  await assertRefused(text, 'NF_STORE_FOREIGN', /no file of a store/)
  assert.deepEqual(readFileSync(text), content)
  const foreign = join(folder, 'foreign.db')
  const other = new DatabaseSync(foreign)
  other.exec('CREATE TABLE a (b)')
  other.close()
  await assertRefused(foreign, 'NF_STORE_FOREIGN', /another program/)
  const newer = join(folder, 'newer.db')
  new Direct(newer).file.close()
  const edit = new DatabaseSync(newer)
  edit.exec('PRAGMA user_version = 2')
  edit.close()
  await assertRefused(newer, 'NF_STORE_VERSION', /format is 2/)
  await assertRefused(join(folder, 'no', 'store.db'), 'NF_FILE_UNWRITABLE', /its folder does not exist/)
  await assertRefused(folder, 'NF_FILE_UNWRITABLE', /it is a directory/)
})

test('a damaged file is refused at open, and fails later without a throw', async () => {
  const path = join(folder, 'damaged.db')
  const store = new Direct(path)
  for (let i = 0; i < 300; i++) store.put(1, `key/${i}`, 'x'.repeat(500))
  store.file.close()
  const bytes = readFileSync(path)
  bytes.fill(0xa5, 4096)
  writeFileSync(path, bytes)
  await assertRefused(path, 'NF_STORE_CORRUPT', /damaged/)
  // While it is open: what is in no cache is read anew.
  const [clean, late] = [join(folder, 'clean.db'), join(folder, 'late.db')]
  const first = new Direct(clean)
  for (let i = 0; i < 3000; i++) first.put(1, `key/${i}`, 'x'.repeat(2000))
  first.file.close()
  copyFileSync(clean, late)
  const open = new Direct(late)
  const damage = readFileSync(late)
  damage.fill(0xa5, 8192)
  writeFileSync(late, damage)
  assert.deepEqual(kinds(open.ask({ kind: 'read', id: 2, prefix: '' })), ['failed'])
  assert.equal(open.problem, 'NF_STORE_CORRUPT')
  open.file.close()
})

test('a file that was put in the place of an open one makes no second store', () => {
  const path = join(folder, 'moved.db')
  const old = new Direct(path)
  old.put(1, 'a', '1')
  for (const suffix of ['', '-wal', '-shm']) renameSync(`${path}${suffix}`, `${path}.old${suffix}`)
  const fresh = new Direct(path)
  assert.deepEqual(kinds(fresh.put(1, 'a', '2')), ['transacted'])
  assert.deepEqual(kinds(old.put(2, 'a', '3')), ['failed'])
  assert.deepEqual(kinds(old.ask({ kind: 'read', id: 3, prefix: '' })), ['failed'])
  assert.equal(old.problem, 'NF_STORE_FAILED')
  old.file.close()
  fresh.file.close()
})

test('on a full disk what was confirmed remains, and the rest has failed', async (t) => {
  const disk = join(folder, 'disk')
  mkdirSync(disk)
  if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', disk]).status !== 0) return t.skip('needs to mount a tmpfs, which takes root')
  try {
    const path = join(disk, 'store.db')
    const store = new Direct(path)
    let confirmed = 0
    let answers: StoreAnswer[] = []
    for (let i = 1; i <= 2000; i++) {
      answers = store.put(i, `key/${i}`, 'x'.repeat(1000))
      if (answers[0]?.kind !== 'transacted') break
      confirmed = i
    }
    assert.ok(confirmed > 50 && confirmed < 1000, `${confirmed}`)
    assert.equal(store.problem, 'NF_STORE_FULL')
    const [found] = store.ask({ kind: 'read', id: 5000, prefix: '' }) as [Extract<StoreAnswer, { kind: 'entries' }>]
    assert.equal(found.entries.length, confirmed)
    writeFileSync(join(disk, 'rest'), '')
    spawnSync('dd', ['if=/dev/zero', `of=${join(disk, 'rest')}`, 'bs=4k'])
    await assertRefused(join(disk, 'another.db'), 'NF_STORE_FULL', /the disk is full/)
    rmSync(join(disk, 'rest'))
    spawnSync('mount', ['-o', 'remount,size=8m', disk])
    assert.deepEqual(kinds(store.put(5001, 'more', '')), ['transacted'])
    store.file.close()
  } finally {
    // Lazily: after a failure the store is still open.
    spawnSync('umount', ['-l', disk])
  }
})

test('a store that is closed, or asked for too much at once, refuses', async () => {
  const store = await SqliteStore.open(join(folder, 'closed.db'))
  for (let id = 1; id <= 300; id++) store.submit({ kind: 'read', id, prefix: '' })
  const answers: StoreAnswer[] = []
  for (const end = performance.now() + 20_000; answers.length < 300 && performance.now() < end; await sleep(1)) {
    for (let answer = store.poll(); answer !== undefined; answer = store.poll()) answers.push(answer)
  }
  assert.deepEqual(['entries', 'failed'].map((kind) => answers.filter((answer) => answer.kind === kind).length), [256, 44])
  await store.close()
  store.submit({ kind: 'read', id: 301, prefix: '' })
  store.submit({ kind: 'watch', id: 302, prefix: '', after: 0 })
  assert.deepEqual([store.poll(), store.poll(), store.poll()],
    [{ kind: 'failed', id: 301 }, { kind: 'watch-ended', id: 302 }, undefined])
})

test('a commit that fails is answered by nothing, and an error after a commit takes nothing back', () => {
  const path = join(folder, 'unknown.db')
  const file = new SqliteFile(path, BUSY_MS)
  const answers: StoreAnswer[] = []
  let handled = 0
  let problem: string | undefined
  const asker = new SqliteAsker(file, path, (report) => {
    handled += report.handled
    answers.push(...report.answers)
    problem = report.problem?.message
  })
  const put: StoreRequest = { kind: 'transact', id: 2, compare: [], changes: [{ key: 'a', value: '1' }] }
  asker.submit({ kind: 'watch', id: 1, prefix: '', after: 0 })
  const { changesAfter, transact } = file
  file.transact = () => { throw new UnknownOutcome('a commit has failed', { cause: new Error('no disk') }) }
  asker.submit(put)
  assert.deepEqual([handled, answers], [2, []])
  assert.match(problem ?? '', /no disk/)
  file.transact = transact
  file.changesAfter = () => { throw new Error('no disk') }
  asker.submit(put)
  assert.deepEqual(kinds(answers.splice(0)), ['watch-ended', 'transacted'])
  file.changesAfter = changesAfter
  // A file that can no longer be looked at ends what is to be told of it; one that is only locked does not.
  asker.submit({ kind: 'watch', id: 3, prefix: '', after: 1 })
  assert.equal(problem, undefined)
  const { isChanged } = file
  file.isChanged = () => { throw Object.assign(new Error('locked'), { code: 'ERR_SQLITE_ERROR', errcode: 5 }) }
  asker.tick()
  assert.deepEqual(answers, [])
  file.isChanged = () => { throw Object.assign(new Error('damaged'), { code: 'ERR_SQLITE_ERROR', errcode: 11 }) }
  asker.tick()
  assert.deepEqual(answers, [{ kind: 'watch-ended', id: 3 }])
  file.isChanged = isChanged
  file.close()
})
