/**
 * The file of a SQLite store: what is in it, and every request as one transaction on it. Synchronous; `sqlite-thread.ts` keeps that away from
 * its users. Several processes of one machine may have the file open.
 *
 *     state    one row: revision of the store, up to where the log is pruned, the last lease given, the boot that leases are of
 *     entry    key, value, revision of the last change, lease
 *     lease    time to live, and when it ends by the machine's boot clock
 *     log      the changes of the last LOG_MAX revisions, for watches
 *
 * Writers take the file's lock at once (BEGIN IMMEDIATE), and a process that dies gives it back: SQLite rolls back what it left. A
 * transaction is on the disk before it is answered (synchronous FULL); leases are not, for a crash of the machine ends them all
 * anyway. The revision only rises with transactions that are on the disk.
 *
 * Two things would make two stores out of one, and every write looks for them: another file under the name (somebody has
 * deleted ours; readings look too), and leases of another boot (somebody shares or copies the file over machines). Then nothing
 * is carried out.
 */

import { linkSync, openSync, closeSync, accessSync, constants, statfsSync, statSync, unlinkSync } from 'node:fs'
import { dirname } from 'node:path'
import { DatabaseSync, type StatementSync } from 'node:sqlite'
import { CodedError, type ErrorCode } from '../../base/coded-error.ts'
import type { Change, Comparison, StoreEntry } from '../../controller/store.ts'
import { fileUnwritable } from '../file-unwritable.ts'
import { bootId, bootTimeUs } from './boot-clock.ts'

/** "NFst" */
const APPLICATION_ID = 0x4e467374
const FORMAT = 1
/** Revisions that a watch may begin before. */
export const LOG_MAX = 1000
/** At open others are waited for so long, ms. */
const OPEN_PATIENCE_MS = 3000
/** With less than this left, an input or output error is put down to a full disk, bytes. */
const FULL_BELOW = 65_536

const SCHEMA = `
  CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), revision INTEGER NOT NULL, pruned INTEGER NOT NULL,
    last_lease INTEGER NOT NULL, boot TEXT NOT NULL) STRICT;
  CREATE TABLE entry (key TEXT PRIMARY KEY, value TEXT NOT NULL, revision INTEGER NOT NULL, lease INTEGER NOT NULL)
    STRICT, WITHOUT ROWID;
  CREATE INDEX entry_lease ON entry (lease) WHERE lease <> 0;
  CREATE TABLE lease (id INTEGER PRIMARY KEY, ttl_us INTEGER NOT NULL, until_us INTEGER NOT NULL) STRICT;
  CREATE TABLE log (revision INTEGER, position INTEGER, key TEXT NOT NULL, value TEXT, lease INTEGER NOT NULL,
    PRIMARY KEY (revision, position)) STRICT, WITHOUT ROWID;
`

/** SQLite's primary result codes that mean something to us. */
const Sqlite = { BUSY: 5, READONLY: 8, IOERR: 10, CORRUPT: 11, FULL: 13, CANTOPEN: 14, NOTADB: 26 } as const

/** A commit failed: it may be carried out or not. */
export class UnknownOutcome extends Error {
  override readonly name = 'UnknownOutcome'
}

export interface LogStep {
  readonly revision: number
  readonly changes: readonly Change[]
}

interface State {
  readonly revision: number
  readonly pruned: number
  readonly boot: string
}

const errorCodeOf = (error: unknown): number => ((error as { errcode?: number }).errcode ?? 0) & 0xff

/** What went wrong with a store's file, for people. What is no error of SQLite comes back as it is. */
export function sqliteProblem(path: string, error: unknown): unknown {
  if (error instanceof UnknownOutcome) return sqliteProblem(path, error.cause)
  if (!(error instanceof Error) || (error as NodeJS.ErrnoException).code !== 'ERR_SQLITE_ERROR') return error
  const problem = (code: ErrorCode, what: string, mend: string): CodedError =>
    new CodedError(code, `store ${path}: ${what}`, mend, { cause: error })
  const full = (): CodedError => problem('NF_STORE_FULL', 'the disk is full', 'Make room; what is in the store is intact')
  switch (errorCodeOf(error)) {
    case Sqlite.BUSY:
      return problem('NF_STORE_BUSY', 'another process keeps it locked',
        `End it, or let it go on if it is stopped (\`fuser ${path}\` says who it is)`)
    case Sqlite.FULL:
      return full()
    case Sqlite.CORRUPT:
      return problem('NF_STORE_CORRUPT', `the file is damaged (${error.message})`,
        'Move it away with its -wal and -shm, and put back a copy or begin anew')
    case Sqlite.NOTADB:
      return problem('NF_STORE_FOREIGN', 'this is no file of a store', 'Name another file, or move this one away')
    case Sqlite.READONLY:
      return problem('NF_STORE_FAILED', 'it cannot be written',
        'See to the permissions of the file and its folder, and that its disk is not read-only')
    case Sqlite.IOERR:
      if (isFull(path)) return full()
  }
  return problem('NF_STORE_FAILED', error.message, 'See to its disk and folder')
}

function isFull(path: string): boolean {
  try {
    const { bavail, bsize } = statfsSync(dirname(path))
    return bavail * bsize < FULL_BELOW
  } catch {
    return false
  }
}

const toEntry = ({ key, value, revision, lease }: StoreEntry): StoreEntry => ({ key, value, revision, lease })

export class SqliteFile {
  readonly #path: string
  readonly #db: DatabaseSync
  readonly #boot: string
  readonly #place: string
  readonly #statements = new Map<string, StatementSync>()
  #isDurable = true
  #dataVersion = -1

  /**
   * Opens the file, and makes it if there is none.
   *
   * @param busyMs for how long a request waits while another process writes
   * @throws CodedError NF_STORE_BUSY, _FULL, _CORRUPT, _FOREIGN, _VERSION, _FAILED, NF_FILE_UNWRITABLE
   */
  constructor(path: string, busyMs: number) {
    this.#path = path
    this.#boot = bootId()
    makeFile(path)
    let db: DatabaseSync | undefined
    try {
      this.#db = db = new DatabaseSync(path, { timeout: OPEN_PATIENCE_MS })
      this.#place = placeOf(path)
      this.#prepareFile()
      this.#takeOverBoot()
      db.exec(`PRAGMA busy_timeout = ${busyMs}`)
    } catch (error) {
      db?.close()
      if (errorCodeOf(error) === Sqlite.CANTOPEN) checkAccess(path)
      throw sqliteProblem(path, error)
    }
  }

  close(): void {
    this.#db.close()
  }

  #wrong(code: ErrorCode, what: string, mend: string): CodedError {
    return new CodedError(code, `store ${this.#path}: ${what}`, mend)
  }

  #prepareFile(): void {
    const number = (pragma: string): number => Object.values(this.#db.prepare(`PRAGMA ${pragma}`).get() ?? {})[0] as number
    const isOurs = (): boolean => {
      const id = number('application_id')
      const { tables } = this.#db.prepare('SELECT count(*) AS tables FROM sqlite_schema').get() as { tables: number }
      if (id === 0 && tables === 0) return false
      if (id !== APPLICATION_ID) {
        throw this.#wrong('NF_STORE_FOREIGN', 'this is a database of another program', 'Name another file, or move this one away')
      }
      const format = number('user_version')
      if (format === FORMAT) return true
      throw this.#wrong('NF_STORE_VERSION', `its format is ${format}, this version of NFactor has ${FORMAT}`,
        'Use the version that wrote it, or another file')
    }
    // What is foreign is not touched, not even by a change of its journal. Another process may be making it at this moment.
    const isNew = !this.#read(isOurs)
    const { journal_mode: mode } = whileBusy(() => this.#db.prepare('PRAGMA journal_mode = WAL').get()) as { journal_mode: string }
    if (mode !== 'wal') throw this.#wrong('NF_STORE_FAILED', 'its file system cannot share memory', 'Put it on a local disk')
    this.#db.exec('PRAGMA synchronous = FULL')
    if (isNew) {
      this.#db.exec('BEGIN IMMEDIATE')
      if (!isOurs()) {
        this.#db.exec(SCHEMA)
        this.#db.prepare('INSERT INTO state VALUES (1, 0, 0, 0, ?)').run(this.#boot)
        this.#db.exec(`PRAGMA application_id = ${APPLICATION_ID}; PRAGMA user_version = ${FORMAT}`)
      }
      this.#db.exec('COMMIT')
    }
    const check = Object.values(this.#db.prepare('PRAGMA quick_check(1)').get() ?? {})[0]
    if (check !== 'ok') throw this.#damaged(String(check))
  }

  #damaged(how: string): CodedError {
    return this.#wrong('NF_STORE_CORRUPT', `the file is damaged (${how.replaceAll(/\s+/g, ' ')})`,
      'Move it away with its -wal and -shm, and put back a copy or begin anew')
  }

  /** The machine was started anew: whoever had a lease is gone. */
  #takeOverBoot(): void {
    if (this.#state().boot === this.#boot) return
    this.#transaction(() => {
      if (this.#state().boot === this.#boot) return
      for (const { id } of this.#sql('SELECT id FROM lease').all() as { id: number }[]) this.#end(id)
      this.#sql('UPDATE state SET boot = ?').run(this.#boot)
    })
  }

  #sql(text: string): StatementSync {
    let statement = this.#statements.get(text)
    if (statement === undefined) {
      statement = this.#db.prepare(text)
      this.#statements.set(text, statement)
    }
    return statement
  }

  #state(): State {
    const state = this.#sql('SELECT revision, pruned, boot FROM state').get() as unknown as State | undefined
    if (state === undefined) throw this.#damaged('it has lost its state')
    return state
  }

  /** @throws UnknownOutcome; after any other error nothing has changed */
  #transaction<T>(action: () => T): T {
    this.#sql('BEGIN IMMEDIATE').run()
    let result: T
    try {
      result = action()
    } catch (error) {
      this.#rollBack()
      throw error
    }
    try {
      this.#sql('COMMIT').run()
    } catch (error) {
      this.#rollBack()
      throw new UnknownOutcome('a commit has failed', { cause: error })
    }
    return result
  }

  #checkPlace(): void {
    if (placeOf(this.#path) === this.#place) return
    throw this.#wrong('NF_STORE_FAILED', 'its file has been taken away', 'Stop all controllers before a store is put back or removed')
  }

  #write<T>(isDurable: boolean, action: (nowUs: number) => T): T {
    this.#checkPlace()
    if (isDurable !== this.#isDurable) this.#db.exec(`PRAGMA synchronous = ${isDurable ? 'FULL' : 'NORMAL'}`)
    this.#isDurable = isDurable
    return this.#transaction(() => {
      if (this.#state().boot !== this.#boot) {
        throw this.#wrong('NF_STORE_FAILED', 'another machine has opened it', 'Controllers of several machines need etcd')
      }
      return action(bootTimeUs())
    })
  }

  #rollBack(): void {
    try {
      if (this.#db.isTransaction) this.#sql('ROLLBACK').run()
    } catch {
      // It has rolled back by itself.
    }
  }

  /** All of it is of one moment. */
  #read<T>(action: () => T): T {
    this.#sql('BEGIN').run()
    try {
      return action()
    } finally {
      this.#rollBack()
    }
  }

  transact(compare: readonly Comparison[], changes: readonly Change[]): { readonly isDone: boolean; readonly revision: number } {
    return this.#write(true, (nowUs) => {
      this.#endDue(nowUs)
      const isAt = this.#sql('SELECT revision FROM entry WHERE key = ?')
      const isDone = compare.every(({ key, revision }) => ((isAt.get(key)?.revision ?? 0) as number) === revision) &&
        changes.every(({ lease = 0 }) => lease === 0 || this.#sql('SELECT 1 FROM lease WHERE id = ?').get(lease) !== undefined)
      if (isDone) this.#apply(changes)
      return { isDone, revision: this.#state().revision }
    })
  }

  #apply(changes: readonly Change[]): void {
    const isThere = this.#sql('SELECT 1 FROM entry WHERE key = ?')
    const real = changes.filter(({ key, value }) => value !== null || isThere.get(key) !== undefined)
    if (real.length === 0) return
    const revision = this.#state().revision + 1
    for (const [position, { key, value, lease = 0 }] of real.entries()) {
      if (value === null) this.#sql('DELETE FROM entry WHERE key = ?').run(key)
      else this.#sql('INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?)').run(key, value, revision, lease)
      this.#sql('INSERT INTO log VALUES (?, ?, ?, ?, ?)').run(revision, position, key, value, value === null ? 0 : lease)
    }
    const pruned = Math.max(0, revision - LOG_MAX)
    this.#sql('DELETE FROM log WHERE revision <= ?').run(pruned)
    this.#sql('UPDATE state SET revision = ?, pruned = max(pruned, ?)').run(revision, pruned)
  }

  #end(lease: number): void {
    if (this.#sql('DELETE FROM lease WHERE id = ?').run(lease).changes === 0) return
    const keys = this.#sql('SELECT key FROM entry WHERE lease = ? AND lease <> 0 ORDER BY key').all(lease) as { key: string }[]
    this.#apply(keys.map(({ key }) => ({ key, value: null })))
  }

  #endDue(nowUs: number): void {
    const due = this.#sql('SELECT id FROM lease WHERE until_us <= ? ORDER BY until_us, id').all(nowUs) as { id: number }[]
    for (const { id } of due) this.#end(id)
  }

  /** Ends the leases that are due; false: there are none. */
  expire(): boolean {
    const { next } = this.#sql('SELECT min(until_us) AS next FROM lease').get() as { next: number | null }
    if (next === null || bootTimeUs() < next) return false
    this.#write(true, (nowUs) => { this.#endDue(nowUs) })
    return true
  }

  read(prefix: string): { readonly revision: number; readonly entries: readonly StoreEntry[] } {
    this.#checkPlace()
    return this.#read(() => {
      const entries: StoreEntry[] = []
      for (const row of this.#sql('SELECT key, value, revision, lease FROM entry WHERE key >= ? ORDER BY key').iterate(prefix)) {
        const entry = toEntry(row as unknown as StoreEntry)
        if (!entry.key.startsWith(prefix)) break
        entries.push(entry)
      }
      return { revision: this.#state().revision, entries }
    })
  }

  /** What has changed after a revision, or undefined if the log does not go back so far, or the store has not come so far. */
  changesAfter(after: number): { readonly revision: number; readonly steps: readonly LogStep[] } | undefined {
    return this.#read(() => {
      const { revision, pruned } = this.#state()
      if (after < pruned || after > revision) return undefined
      const steps: { revision: number; changes: Change[] }[] = []
      const rows = this.#sql('SELECT revision, key, value, lease FROM log WHERE revision > ? ORDER BY revision, position').all(after)
      for (const row of rows as unknown as { revision: number; key: string; value: string | null; lease: number }[]) {
        if (steps.at(-1)?.revision !== row.revision) steps.push({ revision: row.revision, changes: [] })
        steps.at(-1)?.changes.push({ key: row.key, value: row.value, lease: row.lease })
      }
      return { revision, steps }
    })
  }

  grant(ttlUs: number): number {
    return this.#write(false, (nowUs) => {
      const { lease } = this.#sql('UPDATE state SET last_lease = last_lease + 1 RETURNING last_lease AS lease').get() as { lease: number }
      this.#sql('INSERT INTO lease VALUES (?, ?, ?)').run(lease, Math.ceil(ttlUs), Math.ceil(nowUs + ttlUs))
      return lease
    })
  }

  keep(lease: number): boolean {
    return this.#write(false, (nowUs) =>
      this.#sql('UPDATE lease SET until_us = ceil(?1 + ttl_us) WHERE id = ?2 AND until_us > ?1').run(nowUs, lease).changes > 0)
  }

  revoke(lease: number): void {
    this.#write(true, () => { this.#end(lease) })
  }

  /** Whether another connection has changed the file since the last call. A few microseconds. */
  isChanged(): boolean {
    const { data_version: version } = this.#sql('PRAGMA data_version').get() as { data_version: number }
    const isChanged = version !== this.#dataVersion
    this.#dataVersion = version
    return isChanged
  }
}

/**
 * An empty file for its owner alone. It is made under another name and closed before it gets its own: closing a file gives up all
 * locks that this process has on it, also those of a connection that another thread opens meanwhile.
 */
function makeFile(path: string): void {
  if (statSync(path, { throwIfNoEntry: false }) !== undefined) return
  const draft = `${path}.${process.pid}.${Math.random().toString(36).slice(2)}`
  try {
    closeSync(openSync(draft, 'wx', 0o600))
    try {
      linkSync(draft, path)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    } finally {
      unlinkSync(draft)
    }
  } catch (error) {
    throw fileUnwritable(path, error)
  }
}

/** Which file it is that has this name. */
function placeOf(path: string): string {
  const stat = statSync(path, { throwIfNoEntry: false })
  return stat === undefined ? '' : `${stat.dev}:${stat.ino}`
}

/** @throws CodedError NF_FILE_UNWRITABLE if that is why it cannot be opened */
function checkAccess(path: string): void {
  try {
    if (statSync(path).isDirectory()) throw Object.assign(new Error('a folder'), { code: 'EISDIR' })
    accessSync(path, constants.R_OK | constants.W_OK)
    accessSync(dirname(path), constants.W_OK)
  } catch (error) {
    throw fileUnwritable(path, error)
  }
}

/** A change of the journal does not wait by itself. */
function whileBusy<T>(action: () => T): T {
  for (const end = performance.now() + OPEN_PATIENCE_MS; ;) {
    try {
      return action()
    } catch (error) {
      if (errorCodeOf(error) !== Sqlite.BUSY || performance.now() > end) throw error
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5)
    }
  }
}
