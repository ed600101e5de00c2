/**
 * Calls of etcd (version 3.4 and newer) over its HTTP/JSON gateway: which endpoint is asked, for how long, as whom, and what is known when no
 * reply has come.
 *
 *     done       etcd's reply
 *     refused    etcd has said no, or no endpoint was reached: nothing was carried out, for certain
 *     unknown    it was sent, and nobody knows what became of it
 *
 * One endpoint is asked as long as it answers. One that is not there, hangs or has no leader is left for the next, with its watches. A call
 * that may be repeated (`isRepeatable`) is tried there again; any other only if it was certainly not sent.
 */

import { Agent, request as requestHttp, type ClientRequest, type IncomingMessage } from 'node:http'
import { Agent as TlsAgent, request as requestHttps } from 'node:https'
import type { Socket } from 'node:net'
import { CodedError } from '../../base/coded-error.ts'

export interface EtcdTls {
  /** Certificates in PEM. */
  readonly ca?: Buffer
  readonly cert?: Buffer
  readonly key?: Buffer
}

export interface EtcdGatewayOptions {
  readonly endpoints: readonly URL[]
  readonly tls: EtcdTls
  readonly user?: { readonly name: string; readonly password: string }
  /** A call takes no longer, all tries together, ms. */
  readonly timeoutMs: number
  /** A reply, or a line of a stream, is no longer, characters. Default 64 million. */
  readonly replyMax?: number
}

export type EtcdOutcome<T> =
  | { readonly kind: 'done'; readonly body: T }
  /** `code`: of gRPC; 0: no endpoint was reached. */
  | { readonly kind: 'refused'; readonly code: number; readonly reason: string }
  | { readonly kind: 'unknown'; readonly reason: string }

/** gRPC's codes that say something to us. */
export const Grpc = {
  INVALID_ARGUMENT: 3, NOT_FOUND: 5, DENIED: 7, EXHAUSTED: 8, PRECONDITION: 9, UNAVAILABLE: 14, UNAUTHENTICATED: 16,
} as const

/** By these codes etcd says that a request was not carried out: invalid, denied, no room, out of range, unknown here. */
const CERTAIN = new Set<number>([Grpc.INVALID_ARGUMENT, Grpc.NOT_FOUND, Grpc.DENIED, Grpc.EXHAUSTED, Grpc.PRECONDITION, 11, 12,
  Grpc.UNAUTHENTICATED])
const REPLY_MAX = 64e6
/** A connection that is not there by then will not be, ms. */
const CONNECT_MS = 300
/** A connection on which nothing comes is asked by the kernel after so long whether it still is one, ms. */
const KEEP_ALIVE_MS = 2000

/** What came of one try at one endpoint. */
type Try =
  | { readonly kind: 'reply'; readonly status: number; readonly text: string }
  | { readonly kind: 'not-sent'; readonly reason: string }
  | { readonly kind: 'broken'; readonly reason: string }

interface GrpcReply {
  readonly code?: number
  readonly message?: string
  /** Of a call that could give a stream. */
  readonly error?: string | GrpcReply
  readonly grpc_code?: number
}

export interface EtcdStream {
  end(): void
}

export class EtcdGateway {
  readonly #options: EtcdGatewayOptions
  readonly #replyMax: number
  readonly #agents: { readonly http: Agent; readonly https: TlsAgent }
  readonly #streams = new Map<EtcdStream, URL>()
  readonly #requests = new Set<ClientRequest>()
  #current: URL
  #token: string | undefined
  #login: Promise<EtcdOutcome<unknown> | undefined> | undefined
  #isClosed = false
  #problem: CodedError | undefined

  constructor(options: EtcdGatewayOptions) {
    this.#options = options
    this.#replyMax = options.replyMax ?? REPLY_MAX
    this.#current = options.endpoints[0] as URL
    this.#agents = { http: new Agent({ keepAlive: true }), https: new TlsAgent({ keepAlive: true, ...options.tls }) }
  }

  /** Why the last call was not done. */
  get problem(): CodedError | undefined {
    return this.#problem
  }

  async call<T>(path: string, body: unknown, isRepeatable: boolean): Promise<EtcdOutcome<T>> {
    const end = performance.now() + this.#options.timeoutMs
    let outcome = await this.#asUser(end) ?? await this.#try(path, body, isRepeatable, end)
    if (outcome.kind === 'refused' && this.#isStaleToken(outcome)) {
      this.#token = undefined
      outcome = await this.#asUser(end) ?? await this.#try(path, body, isRepeatable, end)
    }
    this.#problem = outcome.kind === 'done' ? undefined : problemOf(outcome, this.#options)
    return outcome as EtcdOutcome<T>
  }

  #isStaleToken({ code, reason }: { readonly code: number; readonly reason: string }): boolean {
    return this.#options.user !== undefined && (code === Grpc.UNAUTHENTICATED || /user name is empty|auth store is old/.test(reason))
  }

  /** Logs in where that is needed; what has gone wrong with it, if something has. */
  async #asUser(end: number): Promise<EtcdOutcome<unknown> | undefined> {
    if (this.#options.user === undefined || this.#token !== undefined) return undefined
    this.#login ??= this.#logIn(end).finally(() => { this.#login = undefined })
    return this.#login
  }

  async #logIn(end: number): Promise<EtcdOutcome<unknown> | undefined> {
    const outcome = await this.#try('/v3/auth/authenticate', this.#options.user, true, end)
    if (outcome.kind === 'done') this.#token = (outcome.body as { token: string }).token
    else if (outcome.kind === 'refused' && /authentication is not enabled/.test(outcome.reason)) this.#token = ''
    // Whatever became of the login, what was to follow it was not sent.
    else return { kind: 'refused', code: outcome.kind === 'refused' ? outcome.code : 0, reason: outcome.reason }
    return undefined
  }

  async #try(path: string, body: unknown, isRepeatable: boolean, end: number): Promise<EtcdOutcome<unknown>> {
    const text = JSON.stringify(body)
    const reasons: string[] = []
    let isSent = false
    for (let tries = 0; tries <= this.#options.endpoints.length && !this.#isClosed; tries++) {
      const left = end - performance.now()
      if (left <= 0) break
      const endpoint = this.#current
      const result = await this.#post(endpoint, path, text, isRepeatable ? Math.min(left, this.#options.timeoutMs / 2) : left)
      if (result.kind === 'reply') {
        const reply = parse(result.text) as GrpcReply | undefined
        const isStreamError = typeof reply?.error === 'object'
        if (result.status === 200 && reply !== undefined && !isStreamError) return { kind: 'done', body: reply }
        const said: GrpcReply = (isStreamError ? reply.error as GrpcReply : reply) ?? {}
        const { code = said.grpc_code ?? -1, message = `status ${result.status}` } = said
        if (CERTAIN.has(code)) return { kind: 'refused', code, reason: message }
        reasons.push(`${endpoint.host}: ${message}`)
        // It says so before it does anything.
        if (code !== Grpc.UNAVAILABLE || !/no leader/.test(message)) isSent = true
      } else {
        reasons.push(`${endpoint.host}: ${result.reason}`)
        if (result.kind === 'broken') isSent = true
      }
      this.#leave(endpoint)
      if (isSent && !isRepeatable) break
    }
    const reason = reasons.length === 0 ? 'no time was left' : [...new Set(reasons)].join(', ')
    return isSent ? { kind: 'unknown', reason } : { kind: 'refused', code: 0, reason }
  }

  /** The next one is asked from now on. */
  #leave(endpoint: URL): void {
    const { endpoints } = this.#options
    if (this.#current === endpoint) this.#current = endpoints[(endpoints.indexOf(endpoint) + 1) % endpoints.length] as URL
    for (const [stream, at] of this.#streams) if (at === endpoint) stream.end()
  }

  #request(endpoint: URL, path: string, isStream: boolean): ClientRequest {
    const headers: Record<string, string> = { 'content-type': 'application/json', 'grpc-metadata-hasleader': 'true' }
    if (this.#token !== undefined && this.#token !== '') headers.authorization = this.#token
    const url = new URL(path, endpoint)
    const options = { method: 'POST', headers }
    const request = url.protocol === 'https:'
      ? requestHttps(url, { ...options, agent: isStream ? new TlsAgent(this.#options.tls) : this.#agents.https })
      : requestHttp(url, { ...options, agent: isStream ? new Agent() : this.#agents.http })
    this.#requests.add(request)
    request.on('close', () => { this.#requests.delete(request) })
    return request
  }

  #post(endpoint: URL, path: string, text: string, timeoutMs: number): Promise<Try> {
    return new Promise((resolve) => {
      const request = this.#request(endpoint, path, false)
      let isSent = false
      const fail = (reason: string): void => {
        clearTimeout(timer)
        resolve({ kind: isSent ? 'broken' : 'not-sent', reason })
        request.destroy()
      }
      let timer = setTimeout(() => { fail('no connection') }, Math.min(CONNECT_MS, timeoutMs))
      whenConnected(request, () => {
        isSent = true
        clearTimeout(timer)
        timer = setTimeout(() => { fail('no answer') }, timeoutMs)
      })
      request.on('error', (error) => { fail(reasonOf(error)) })
      request.on('response', (response) => {
        let answer = ''
        response.setEncoding('utf8')
        response.on('data', (part: string) => {
          answer += part
          if (answer.length > this.#replyMax) fail('its answer is too long')
        })
        response.on('error', (error) => { fail(reasonOf(error)) })
        response.on('end', () => {
          clearTimeout(timer)
          resolve({ kind: 'reply', status: response.statusCode ?? 0, text: answer })
        })
      })
      request.end(text)
    })
  }

  /** A call whose reply goes on: `onMessage` for every line of it, the first in time; `onEnd` once, unless its caller ends it. */
  stream(path: string, body: unknown, onMessage: (message: unknown) => void, onEnd: () => void): EtcdStream {
    const endpoint = this.#current
    const request = this.#request(endpoint, path, true)
    let isOver = false
    const stop = (isOurs: boolean): void => {
      if (isOver) return
      isOver = true
      clearTimeout(timer)
      this.#streams.delete(stream)
      request.destroy()
      if (!isOurs) onEnd()
    }
    const timer = setTimeout(() => { stop(false) }, this.#options.timeoutMs)
    /** Left by the gateway: its owner is told. */
    const stream: EtcdStream = { end: () => { stop(false) } }
    this.#streams.set(stream, endpoint)
    request.on('socket', (socket: Socket) => { socket.setKeepAlive(true, KEEP_ALIVE_MS) })
    request.on('error', () => { stop(false) })
    request.on('response', (response: IncomingMessage) => {
      let rest = ''
      response.setEncoding('utf8')
      response.on('data', (part: string) => {
        // Each part is looked through once, however long its line gets.
        const ends = part.split('\n')
        for (const [index, text] of ends.entries()) {
          rest += text
          if (rest.length > this.#replyMax) stop(false)
          if (isOver || index === ends.length - 1) return
          const line = rest
          rest = ''
          if (line === '') continue
          clearTimeout(timer)
          const message = (parse(line) as { result?: unknown } | undefined)?.result
          try {
            if (message === undefined) stop(false)
            else onMessage(message)
          } catch {
            // It is nothing that etcd says.
            stop(false)
          }
        }
      })
      response.on('error', () => { stop(false) })
      response.on('end', () => { stop(false) })
    })
    request.end(JSON.stringify(body))
    return { end: () => { stop(true) } }
  }

  /** Whatever is under way gets no answer. */
  close(): void {
    this.#isClosed = true
    for (const stream of [...this.#streams.keys()]) stream.end()
    for (const request of this.#requests) request.destroy()
    this.#agents.http.destroy()
    this.#agents.https.destroy()
  }
}

/** Before this nothing of the request can have left. */
function whenConnected(request: ClientRequest, action: () => void): void {
  request.on('socket', (socket: Socket & { encrypted?: boolean }) => {
    if (!socket.connecting && request.reusedSocket) action()
    else socket.once(socket.encrypted === true ? 'secureConnect' : 'connect', action)
  })
}

function parse(text: string): unknown {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? value : undefined
  } catch {
    return undefined
  }
}

/** A connection that fails on every address of a name has an error for each, and no words of its own; OpenSSL has too many. */
function reasonOf(error: Error & { readonly code?: string; readonly reason?: string }): string {
  if (error.code === 'ECONNREFUSED') return 'nobody listens there'
  return [error.reason, error.message, error.code].find((text) => text !== undefined && text !== '') ?? error.name
}

/** What hinders calls, for people. */
function problemOf(outcome: EtcdOutcome<unknown> & { readonly reason: string }, { endpoints }: EtcdGatewayOptions): CodedError {
  const reason = outcome.reason.trim().replaceAll(/\s+/g, ' ')
  const where = `etcd at ${endpoints.map(({ host }) => host).join(', ')}`
  const code = outcome.kind === 'refused' ? outcome.code : 0
  if (/status 404/.test(reason)) {
    return new CodedError('NF_STORE_VERSION', `${where} does not offer the interface that is needed (${reason})`, 'etcd 3.4 or newer is')
  }
  if (/certificate|self-signed|altname|alert/i.test(reason)) {
    return new CodedError('NF_STORE_DENIED', `${where}: ${reason}`, 'See to the files with certificates, the key and the CA')
  }
  if (code === Grpc.DENIED || code === Grpc.UNAUTHENTICATED || /authentication failed|user name is empty/.test(reason)) {
    return new CodedError('NF_STORE_DENIED', `${where}: ${reason}`, 'See to user and password, and that the user may read and write the prefix')
  }
  if (/space exceeded/.test(reason)) {
    return new CodedError('NF_STORE_FULL', `${where}: ${reason}`, 'Compact and defragment it, and disarm its alarm (etcdctl)')
  }
  if (code !== 0) return new CodedError('NF_STORE_FAILED', `${where}: ${reason}`)
  return new CodedError('NF_STORE_UNREACHABLE', `${where}: ${reason}`, 'Start it, or see to the endpoints')
}
