/**
 * API door: where the public API of a process is called, a UNIX socket and, for controllers, TCP. All it does is to listen. The first caller
 * wakes a thread of its own (`api-thread.ts`), which has the server, and everything that is loaded for it:
 *
 *     first callers ─▶ door (this thread) ─ their bytes, as they are ─▶ ┐
 *     later callers ─────────────── by the same path, at once ────────▶ API's thread ─ lines of JSON ─▶ the process's own socket
 *     callers at TCP ─▶ door (this thread) ─ their bytes ─────────────▶ ┘
 *
 * So whoever calls nothing costs nothing, and what comes in is read, decrypted, checked and refused where no packet waits for it: the
 * process's own thread gets the commands that are left (`line-rpc.ts`). A thread that ends, of a defect or of too much memory, takes its
 * calls with it and nothing else; the next caller wakes another.
 */

import { chmodSync, rmSync } from 'node:fs'
import { connect, createServer, type ListenOptions, type Server, type Socket } from 'node:net'
import { extname } from 'node:path'
import type { Worker } from 'node:worker_threads'
import { CodedError } from '../base/coded-error.ts'
import type { ServerTls } from '../rpc/http-listener.ts'
import type { ApiOwner } from './api-services.ts'

/** What the thread is started with. */
export interface ApiThreadData {
  readonly owner: ApiOwner
  readonly socket: string
  readonly tcp: TcpAccess | undefined
}

/** At which socket the thread takes connections that have come by TCP, and from whom. */
export interface TcpAccess {
  readonly path: string
  readonly token: string
  readonly tls: ServerTls | undefined
}

export interface ApiTcp {
  readonly host: string
  readonly port: number
}

/** Callers that wait for the thread, and callers at TCP. */
const CONNECTIONS_MAX = 256
/** A list of 100,000 flows fits, also two at a time. */
const HEAP_MB = 512
const GRACE_MS = 500
/** A thread that has ended is not started again sooner. */
const REST_MS = 1_000

export class ApiDoor {
  readonly #owner: ApiOwner
  readonly #path: string
  readonly #sockets = new Set<Socket>()
  #server: Server | undefined
  #tcp: Server | undefined
  #access: TcpAccess | undefined
  #thread: Worker | undefined
  #isOpen: Promise<void> | undefined
  #startedAt = -Infinity
  #isClosing = false

  /** @param path of the UNIX socket */
  constructor(owner: ApiOwner, path: string) {
    this.#owner = owner
    this.#path = path
  }

  /** Listens at the UNIX socket. @throws CodedError `NF_PORT_FAILED` */
  async open(): Promise<void> {
    const path = this.#path
    rmSync(path, { force: true })
    this.#server = await listen({ path }, (socket) => { this.#handOn(socket, path) })
    chmodSync(path, 0o600)
  }

  /** Listens at TCP. @throws CodedError `NF_PORT_BUSY`, `NF_PORT_FAILED` */
  async openTcp(where: ApiTcp, access: TcpAccess): Promise<void> {
    const server = await listenTcp(where, (socket) => { this.#handOn(socket, access.path) })
    if (this.#isClosing) return void server.close()
    this.#tcp = server
    this.#access = access
    // A thread that is there already knows nothing of it.
    await this.#thread?.terminate()
    this.#startedAt = -Infinity
  }

  /** Ends calls; answers that are on their way have so long to go out. */
  async close(graceMs = GRACE_MS): Promise<void> {
    this.#isClosing = true
    this.#tcp?.close()
    const thread = this.#thread
    if (thread !== undefined) {
      const ended = new Promise((resolve) => { thread.once('exit', resolve) })
      thread.postMessage(graceMs)
      const timer = setTimeout(() => { void thread.terminate() }, 2 * graceMs)
      await ended
      clearTimeout(timer)
    }
    for (const socket of this.#sockets) socket.destroy()
    this.#server?.close()
    for (const path of [this.#path, this.#access?.path]) if (path !== undefined) rmSync(path, { force: true })
  }

  #handOn(socket: Socket, path: string): void {
    this.#sockets.add(socket)
    socket.on('close', () => { this.#sockets.delete(socket) })
    socket.on('error', () => { socket.destroy() })
    this.#awake().then(() => {
      if (socket.destroyed) return
      const inner = connect({ path, allowHalfOpen: true })
      inner.on('error', () => { inner.destroy() })
      socket.pipe(inner).pipe(socket)
      // What is on its way to the other one still gets there.
      socket.on('close', () => { inner.destroySoon() })
      inner.on('close', () => { socket.destroySoon() })
    }).catch(() => { socket.destroy() })
  }

  /** Resolves when the thread listens. */
  #awake(): Promise<void> {
    if (this.#isOpen !== undefined) return this.#isOpen
    if (this.#isClosing || performance.now() - this.#startedAt < REST_MS) return Promise.reject(new Error('not yet'))
    this.#startedAt = performance.now()
    const isOpen = this.#start()
    this.#isOpen = isOpen
    // Also of one that could not be made at all.
    isOpen.catch(() => { if (this.#isOpen === isOpen) this.#isOpen = undefined })
    return isOpen
  }

  async #start(): Promise<void> {
    const { Worker } = await import('node:worker_threads')
    if (this.#isClosing) throw new Error('it is closing')
    const workerData: ApiThreadData = { owner: this.#owner, socket: this.#path, tcp: this.#access }
    const thread = new Worker(new URL(`./api-thread${extname(import.meta.filename)}`, import.meta.url),
      { workerData, resourceLimits: { maxOldGenerationSizeMb: HEAP_MB } })
    this.#thread = thread
    await new Promise<void>((resolve, reject) => {
      thread.on('message', () => { resolve() })
      thread.on('error', (error: Error) => {
        process.stderr.write(`the API's thread has failed: ${error.message}\n`)
        reject(error)
      })
      thread.on('exit', () => {
        reject(new Error('it has ended'))
        // One that has failed may still be ending when the next one has begun.
        if (this.#thread !== thread) return
        this.#thread = this.#isOpen = undefined
        if (!this.#isClosing) this.#openAgain()
      })
    })
  }

  /** The socket's name has gone to the thread, and with it. */
  #openAgain(): void {
    this.#server?.close()
    this.open().catch((error: unknown) => {
      process.stderr.write(`the API cannot be called any more: ${error instanceof Error ? error.message : String(error)}\n`)
    })
  }
}

/** Listens at TCP. @throws CodedError `NF_PORT_BUSY`, `NF_PORT_FAILED` */
export async function listenTcp({ host, port }: ApiTcp, take: (socket: Socket) => void): Promise<Server> {
  try {
    return await listen({ host, port }, take)
  } catch (error) {
    if (!(error instanceof CodedError) || (error.cause as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error
    throw new CodedError('NF_PORT_BUSY', `somebody listens at ${host}:${port} already, where the API was to be`,
      'Stop that process, or set api.port to another port', { cause: error })
  }
}

function listen(where: ListenOptions, take: (socket: Socket) => void): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer({ pauseOnConnect: true, allowHalfOpen: true }, take)
    server.maxConnections = CONNECTIONS_MAX
    server.once('error', (cause) => {
      const name = where.path ?? `${where.host}:${where.port}`
      reject(new CodedError('NF_PORT_FAILED', `the API cannot listen at ${name}: ${cause.message}`, '', { cause }))
    })
    server.listen(where, () => {
      // An error of a connection that could not be taken ends nothing.
      server.removeAllListeners('error').on('error', () => undefined)
      resolve(server)
    })
  })
}
