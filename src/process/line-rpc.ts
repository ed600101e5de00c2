/**
 * Line RPC: commands between processes of one machine, over a UNIX socket; between machines over TCP, when either end has proved who it is
 * (machine-connection.ts). A request and its reply are a line of JSON each.
 *
 *     ─▶ {"id": 7, "method": "SetMigrationTarget", "params": {"target": 12, "number": 100}}
 *     ◀─ {"id": 7, "result": {"accepted": true, "code": ""}}       or    {"id": 7, "error": {"code": "NF_...", "message": "..."}}
 *
 * The socket is for its owner alone (mode 600, in a folder of mode 700). A line that is no request ends the connection, and so does a peer
 * that asks more and more and takes no answers; nothing that comes in can end the process.
 */

import { chmodSync, unlinkSync } from 'node:fs'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { CodedError, errorCodes, type ErrorCode } from '../base/coded-error.ts'

/**
 * Longest line, and longest request, characters. What is longer is refused by whoever would send it: at the other end it would cost the
 * connection, and all that goes over it.
 */
const LINE_MAX = 64 << 20
const REQUEST_MAX = 1 << 20
const CALL_MS = 10_000
/**
 * Calls that one client has under way, the next one is refused: to an agent there are those to all nodes of its machine. And those that a
 * connection may bring: more are not ours, and end it.
 */
const CALLS_MAX = 1024
const SERVED_MAX = 4096
/** Connections to one socket. */
const CONNECTIONS_MAX = 256

export type RpcParams = Readonly<Record<string, unknown>>
export type RpcMethods = Readonly<Record<string, (params: RpcParams) => unknown>>

/** Serves methods at a socket. A method may return a promise; what it throws is the caller's error. */
export class LineRpcServer {
  readonly path: string
  readonly #methods: RpcMethods
  readonly #sockets = new Set<Socket>()
  readonly #server: Server

  constructor(path: string, methods: RpcMethods) {
    this.path = path
    this.#methods = methods
    this.#server = createServer((socket) => { this.#serve(socket) })
    this.#server.maxConnections = CONNECTIONS_MAX
  }

  /** @throws CodedError `NF_PORT_BUSY`, `NF_PORT_FAILED` */
  async open(): Promise<void> {
    if (await isAnswered(this.path)) {
      throw new CodedError('NF_PORT_BUSY', `somebody listens at ${this.path} already`, 'Stop that process first')
    }
    removeFile(this.path)
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', (cause) => {
        reject(new CodedError('NF_PORT_FAILED', `cannot listen at ${this.path}: ${cause.message}`, '', { cause }))
      })
      this.#server.listen(this.path, resolve)
    })
    // An error of a connection that could not be taken ends nothing.
    this.#server.removeAllListeners('error').on('error', () => undefined)
    chmodSync(this.path, 0o600)
  }

  /** Answers that are on their way still go out. */
  close(): void {
    this.#server.close()
    for (const socket of this.#sockets) socket.end()
    removeFile(this.path)
  }

  #serve(socket: Socket): void {
    this.#sockets.add(socket)
    socket.on('close', () => { this.#sockets.delete(socket) })
    answerLines(socket, this.#methods)
  }
}

/** Answers the requests that come by a connection, until it ends. */
export function answerLines(socket: Socket, methods: RpcMethods): void {
  // Until the kernel has the answer.
  let underWay = 0
  socket.on('error', () => { socket.destroy() })
  readLines(socket, REQUEST_MAX, (line) => {
    // We have ended it: what still comes is not followed, for nobody could hear what has become of it.
    if (!socket.writable) return
    const request = parseObject(line)
    if (request === undefined || typeof request.id !== 'number' || typeof request.method !== 'string') return socket.destroy()
    if (underWay >= SERVED_MAX) return socket.destroy()
    underWay++
    void answerOf(methods, request.method, isObject(request.params) ? request.params : {}).then((answer) => {
      if (socket.writable) socket.write(`${answerLine(request.id as number, request.method as string, answer)}\n`, () => { underWay-- })
    })
  })
}

function answerLine(id: number, method: string, answer: object): string {
  try {
    const line = JSON.stringify({ id, ...answer })
    if (line.length <= LINE_MAX) return line
  } catch (error) {
    // Longer than any text can be; all else is no JSON.
    if (!(error instanceof RangeError)) return JSON.stringify({ id, error: errorOf(error) })
  }
  return JSON.stringify({ id, error: errorOf(new CodedError('NF_RPC_LIMIT', `the answer to ${method} is too long`, 'Ask for less')) })
}

async function answerOf(methods: RpcMethods, name: string, params: RpcParams): Promise<object> {
  const method = Object.hasOwn(methods, name) ? methods[name] : undefined
  try {
    if (method === undefined) throw new CodedError('NF_USAGE', `there is no method ${JSON.stringify(name)}`)
    return { result: await method(params) ?? {} }
  } catch (error) {
    return { error: errorOf(error) }
  }
}

function errorOf(error: unknown): object {
  if (error instanceof CodedError) return { code: error.code, message: error.message, mend: error.mend }
  return { code: 'NF_INTERNAL', message: error instanceof Error ? error.stack : String(error) }
}

/** A client that is connected to one socket, until it or the other side closes. */
export class LineRpcClient {
  readonly path: string
  /** Called once when the connection ends, whoever ended it. */
  onClose: (() => void) | undefined
  readonly #socket: Socket
  readonly #calls = new Map<number, { resolve(value: unknown): void, reject(error: Error): void, timer: NodeJS.Timeout }>()
  #count = 0

  /** @param path what errors call the other end, @param socket a connection, open */
  constructor(path: string, socket: Socket) {
    this.path = path
    this.#socket = socket
    socket.on('error', () => { socket.destroy() })
    socket.on('close', () => {
      for (const call of this.#calls.values()) {
        clearTimeout(call.timer)
        call.reject(new CodedError('NF_NODE_GONE', `${path} has closed the connection`))
      }
      this.#calls.clear()
      this.onClose?.()
    })
    readLines(socket, LINE_MAX, (line) => { this.#take(line) })
  }

  /** @throws CodedError `NF_NODE_GONE` when nobody listens there */
  static connect(path: string): Promise<LineRpcClient> {
    return new Promise((resolve, reject) => {
      const socket = connect(path)
      const refuse = (cause: Error): void => { reject(new CodedError('NF_NODE_GONE', `nobody answers at ${path}`, '', { cause })) }
      socket.once('error', refuse)
      socket.once('connect', () => {
        socket.off('error', refuse)
        resolve(new LineRpcClient(path, socket))
      })
    })
  }

  get isOpen(): boolean {
    return this.#socket.writable
  }

  /**
   * @throws CodedError what the method threw, `NF_NODE_GONE` when there is no answer, `NF_RPC_LIMIT` with too many calls under way, or for
   *   one that is too long
   */
  call<T>(method: string, params: RpcParams = {}, timeoutMs = CALL_MS): Promise<T> {
    return new Promise<unknown>((resolve, reject) => {
      if (this.#calls.size >= CALLS_MAX) {
        return reject(new CodedError('NF_RPC_LIMIT', `${this.path} has ${CALLS_MAX} calls to answer, and gets no more until it has`))
      }
      const id = ++this.#count
      const line = JSON.stringify({ id, method, params })
      if (line.length > REQUEST_MAX) {
        return reject(new CodedError('NF_RPC_LIMIT', `${method} is longer than ${this.path} takes: ${line.length} characters of ${REQUEST_MAX}`))
      }
      const timer = setTimeout(() => {
        this.#calls.delete(id)
        reject(new CodedError('NF_NODE_GONE', `${this.path} has not answered ${method} for ${timeoutMs} ms`))
      }, timeoutMs)
      this.#calls.set(id, { resolve, reject, timer })
      if (this.#socket.destroyed) this.#socket.emit('close')
      else this.#socket.write(`${line}\n`)
    }) as Promise<T>
  }

  close(): void {
    this.#socket.destroy()
  }

  #take(line: string): void {
    const reply = parseObject(line)
    const call = reply === undefined ? undefined : this.#calls.get(Number(reply.id))
    if (reply === undefined || call === undefined) return
    this.#calls.delete(Number(reply.id))
    clearTimeout(call.timer)
    if (!isObject(reply.error)) return call.resolve(reply.result)
    const { code, message, mend } = reply.error
    const isKnown = typeof code === 'string' && Object.hasOwn(errorCodes, code)
    call.reject(new CodedError(isKnown ? code as ErrorCode : 'NF_INTERNAL', String(message), typeof mend === 'string' ? mend : ''))
  }
}

/** One call over a connection of its own. */
export async function callOnce<T>(path: string, method: string, params: RpcParams = {}, timeoutMs = CALL_MS): Promise<T> {
  const client = await LineRpcClient.connect(path)
  try {
    return await client.call<T>(method, params, timeoutMs)
  } finally {
    client.close()
  }
}

function isAnswered(path: string): Promise<boolean> {
  return LineRpcClient.connect(path).then((client) => {
    client.close()
    return true
  }, () => false)
}

function readLines(socket: Socket, bytesMax: number, take: (line: string) => void): void {
  let chunks: string[] = []
  let bytes = 0
  socket.setEncoding('utf8')
  socket.on('data', (text: string) => {
    let rest = text
    for (let end = rest.indexOf('\n'); end >= 0 && !socket.destroyed; end = rest.indexOf('\n')) {
      const line = chunks.join('') + rest.slice(0, end)
      chunks = []
      bytes = 0
      rest = rest.slice(end + 1)
      take(line)
    }
    chunks.push(rest)
    bytes += rest.length
    if (bytes > bytesMax) socket.destroy()
  })
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function parseObject(line: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line)
    return isObject(value) ? value : undefined
  } catch {
    return undefined
  }
}

function removeFile(path: string): void {
  try {
    unlinkSync(path)
  } catch {
    // There is none.
  }
}
