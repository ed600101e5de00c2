/**
 * The thread of a SQLite store: takes requests in order, carries each out on the file, and looks every few milliseconds whether another
 * process has changed it or a lease is due. A disk that is slow or a file that is locked stops this thread, not the controller.
 */

import { isMainThread, parentPort, workerData, type MessagePort } from 'node:worker_threads'
import { CodedError, type ErrorCode } from '../../base/coded-error.ts'
import type { StoreAnswer, StoreRequest } from '../../controller/store.ts'
import { sqliteProblem, SqliteFile, UnknownOutcome, type LogStep } from './sqlite-file.ts'

export interface ThreadOptions {
  readonly path: string
  readonly busyMs: number
  readonly pollMs: number
  readonly port: MessagePort
}

export interface ThreadProblem {
  readonly code: ErrorCode
  readonly message: string
  readonly mend: string
}

/** From the store to its thread. */
export type ThreadOrder = StoreRequest | { readonly kind: 'close' }

/** From the thread to its store. */
export interface ThreadReport {
  /** Requests that nothing more comes for. */
  readonly handled: number
  readonly answers: readonly StoreAnswer[]
  /** What is wrong with the store; null: nothing any more. */
  readonly problem?: ThreadProblem | null
}

/** Whether the store could be opened, told once. */
export type ThreadStart = { readonly problem: ThreadProblem | null }

interface Watch {
  readonly id: number
  readonly prefix: string
  readonly after: number
}

function toProblem(path: string, thrown: unknown): ThreadProblem {
  const error = sqliteProblem(path, thrown)
  if (error instanceof CodedError) return { code: error.code, message: error.message, mend: error.mend }
  return { code: 'NF_INTERNAL', message: `store ${path}: ${String(error)}`, mend: '' }
}

/** One asker's connection to the file. */
export class SqliteAsker {
  readonly #file: SqliteFile
  readonly #path: string
  readonly #report: (report: ThreadReport) => void
  readonly #watches = new Map<number, Watch>()
  /** All watches have been told the changes up to here. */
  #seen = 0
  #answers: StoreAnswer[] = []
  #problem: ThreadProblem | null = null

  constructor(file: SqliteFile, path: string, report: (report: ThreadReport) => void) {
    this.#file = file
    this.#path = path
    this.#report = report
  }

  submit(request: StoreRequest): void {
    this.#turn()
    try {
      const answer = this.#carryOut(request)
      this.#problem = null
      // What the request itself has changed comes before its answer: who has the answer has seen it.
      this.#catchUp()
      if (answer !== undefined) this.#answers.push(answer)
    } catch (error) {
      this.#problem = toProblem(this.#path, error)
      if (request.kind === 'watch') this.#endWatch(request.id)
      else if (!(error instanceof UnknownOutcome) && request.kind !== 'unwatch') this.#answers.push({ kind: 'failed', id: request.id })
    }
    this.#send(1)
  }

  /** To be called every few milliseconds. */
  tick(): void {
    this.#turn()
    if (this.#answers.length > 0) this.#send(0)
  }

  #turn(): void {
    try {
      if (this.#file.expire() || this.#file.isChanged()) this.#catchUp()
    } catch (error) {
      // Others may be writing, and it is tried again. What a request meets it says itself.
      this.#problem = toProblem(this.#path, error)
      if (this.#problem.code !== 'NF_STORE_BUSY') this.#endWatches()
    }
  }

  #send(handled: number): void {
    this.#report({ handled, answers: this.#answers, problem: this.#problem })
    this.#answers = []
  }

  #endWatch(id: number): void {
    this.#watches.delete(id)
    this.#answers.push({ kind: 'watch-ended', id })
  }

  #endWatches(): void {
    for (const id of [...this.#watches.keys()]) this.#endWatch(id)
  }

  /** Never throws: what has been carried out stays so. */
  #catchUp(): void {
    if (this.#watches.size === 0) return
    let more: ReturnType<SqliteFile['changesAfter']>
    try {
      more = this.#file.changesAfter(this.#seen)
    } catch (error) {
      this.#problem = toProblem(this.#path, error)
    }
    if (more === undefined) {
      this.#endWatches()
      return
    }
    for (const step of more.steps) for (const watch of this.#watches.values()) this.#tell(watch, step)
    this.#seen = more.revision
  }

  #tell({ id, prefix, after }: Watch, { revision, changes }: LogStep): void {
    if (revision <= after) return
    const seen = changes.filter(({ key }) => key.startsWith(prefix))
    if (seen.length > 0) this.#answers.push({ kind: 'changed', id, revision, changes: seen })
  }

  #carryOut(request: StoreRequest): StoreAnswer | undefined {
    const { id } = request
    switch (request.kind) {
      case 'transact':
        return { kind: 'transacted', id, ...this.#file.transact(request.compare, request.changes) }
      case 'read':
        return { kind: 'entries', id, ...this.#file.read(request.prefix) }
      case 'watch': {
        // Others may have written since the turn began: the new watch starts where the old ones are.
        this.#catchUp()
        const past = this.#file.changesAfter(request.after)
        if (past === undefined) return { kind: 'watch-ended', id }
        const watch = { id, prefix: request.prefix, after: request.after }
        if (this.#watches.size === 0) this.#seen = past.revision
        for (const step of past.steps) if (step.revision <= this.#seen) this.#tell(watch, step)
        this.#watches.set(id, watch)
        return undefined
      }
      case 'unwatch':
        this.#watches.delete(request.watch)
        return undefined
      case 'grant':
        return { kind: 'granted', id, lease: this.#file.grant(request.ttlUs) }
      case 'keep':
        return { kind: 'kept', id, isAlive: this.#file.keep(request.lease) }
      case 'revoke':
        this.#file.revoke(request.lease)
        return { kind: 'revoked', id }
    }
  }
}

function runThread({ path, busyMs, pollMs, port }: ThreadOptions): void {
  const start = (problem: ThreadProblem | null): void => { parentPort?.postMessage({ problem } satisfies ThreadStart) }
  let file: SqliteFile
  try {
    file = new SqliteFile(path, busyMs)
  } catch (error) {
    start(toProblem(path, error))
    port.close()
    return
  }
  const asker = new SqliteAsker(file, path, (report) => { port.postMessage(report) })
  const timer = setInterval(() => { asker.tick() }, pollMs)
  port.on('message', (order: ThreadOrder) => {
    if (order.kind !== 'close') return asker.submit(order)
    clearInterval(timer)
    file.close()
    port.close()
  })
  start(null)
}

if (!isMainThread && (workerData as Partial<ThreadOptions> | null)?.port !== undefined) runThread(workerData as ThreadOptions)
