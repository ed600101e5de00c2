/**
 * A store in one SQLite file, for the controllers of one machine. What is in the file, `sqlite-file.ts` says; a thread works on it
 * (`sqlite-thread.ts`), so that no request waits for the disk.
 *
 * Answers: `failed` if the file is locked for longer than `busyMs`, or the disk is full, or the file is not what it was at open; none
 * if a commit failed (nobody knows what is on the disk then) or the thread has died. `problem` says what is wrong.
 */

import { extname } from 'node:path'
import { MessageChannel, receiveMessageOnPort, Worker, type MessagePort } from 'node:worker_threads'
import { CodedError } from '../../base/coded-error.ts'
import type { Store, StoreAnswer, StoreRequest } from '../../controller/store.ts'
import type { ThreadOptions, ThreadOrder, ThreadReport, ThreadStart } from './sqlite-thread.ts'

export interface SqliteStoreOptions {
  /** For how long a request waits while another process writes, ms. Default 300. */
  readonly busyMs?: number
  /** How often changes by other processes and leases that are due are looked for, ms. Default 5. */
  readonly pollMs?: number
}

/** Requests on their way to the file; more are refused. */
const PENDING_MAX = 256

/** The thread's program: TypeScript in a source tree, JavaScript in a package. */
const threadUrl = new URL(`./sqlite-thread${extname(import.meta.filename)}`, import.meta.url)

export class SqliteStore implements Store {
  readonly #worker: Worker
  readonly #port: MessagePort
  readonly #ended: Promise<unknown>
  #answers: StoreAnswer[] = []
  #next = 0
  #pending = 0
  #isOpen = true
  #problem: CodedError | undefined

  private constructor(worker: Worker, port: MessagePort) {
    this.#worker = worker
    this.#port = port
    this.#ended = new Promise((resolve) => worker.once('exit', resolve))
    worker.on('error', (error) => {
      this.#problem = new CodedError('NF_INTERNAL', `the thread of the store has died: ${String(error)}`, '', { cause: error })
    })
    worker.once('exit', () => { this.#isOpen = false })
    worker.unref()
  }

  /**
   * Opens the file, and makes it (mode 600) if there is none; its folder must be there.
   *
   * @throws CodedError NF_STORE_BUSY, _FULL, _CORRUPT, _FOREIGN, _VERSION, _FAILED, NF_FILE_UNWRITABLE
   */
  static async open(path: string, { busyMs = 300, pollMs = 5 }: SqliteStoreOptions = {}): Promise<SqliteStore> {
    const { port1, port2 } = new MessageChannel()
    const worker = new Worker(threadUrl, {
      workerData: { path, busyMs, pollMs, port: port2 } satisfies ThreadOptions, transferList: [port2],
    })
    const { problem } = await new Promise<ThreadStart>((resolve, reject) => {
      worker.once('message', resolve)
      worker.once('error', reject)
      worker.once('exit', (code) => { reject(new CodedError('NF_INTERNAL', `the thread of the store has ended at once (${code})`)) })
    })
    if (problem !== null) {
      port1.close()
      throw new CodedError(problem.code, problem.message, problem.mend)
    }
    return new SqliteStore(worker, port1)
  }

  /** What is wrong with the store now, or was when it was last asked. */
  get problem(): CodedError | undefined {
    return this.#problem
  }

  submit(request: StoreRequest): void {
    if (this.#isOpen && this.#pending < PENDING_MAX) {
      this.#pending++
      this.#port.postMessage(request satisfies ThreadOrder)
    } else if (request.kind === 'watch') {
      this.#answers.push({ kind: 'watch-ended', id: request.id })
    } else if (request.kind !== 'unwatch') {
      this.#answers.push({ kind: 'failed', id: request.id })
    }
  }

  poll(): StoreAnswer | undefined {
    if (this.#next === this.#answers.length) this.#take()
    return this.#next < this.#answers.length ? this.#answers[this.#next++] : undefined
  }

  #take(): void {
    this.#answers = []
    this.#next = 0
    while (this.#answers.length === 0) {
      const report = receiveMessageOnPort(this.#port)?.message as ThreadReport | undefined
      if (report === undefined) return
      this.#pending -= report.handled
      this.#answers = [...report.answers]
      if (report.problem === null) this.#problem = undefined
      else if (report.problem !== undefined) this.#problem = new CodedError(report.problem.code, report.problem.message, report.problem.mend)
    }
  }

  /** Lets requests that are on their way be carried out, and closes the file. Leases are not given back. */
  async close(): Promise<void> {
    if (this.#isOpen) this.#port.postMessage({ kind: 'close' } satisfies ThreadOrder)
    this.#isOpen = false
    this.#worker.ref()
    await this.#ended
  }
}
