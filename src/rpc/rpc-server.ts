/**
 * RPC server: services at a UNIX socket, at TCP, or both. Any client of Connect (JSON or binary), gRPC or gRPC-Web may call.
 *
 *     new RpcServer({
 *       socket: '/run/user/1000/nfactor/web/11.sock',
 *       tcp: { port: 7700, access: { tokenFile: '/run/user/1000/nfactor/web/token' } },
 *       services: [serve(Node, { pollWorkload: () => workload(), listFlows: ({ filter }) => ... })],
 *     })
 *
 * What a method throws as a CodedError is the caller's. Plain calls go the short way of `unary-call.ts`, everything else through Connect.
 *
 * Who may call: at the UNIX socket its owner (mode 600, in a folder of mode 700), who shows nothing; at TCP who shows the token, and only
 * from this machine unless there is TLS. Nothing of a request is looked at before that. Health may be asked by anybody: gRPC's health
 * protocol, `GET /healthz` (the process answers), `GET /readyz` (it can do its work).
 */

import { Code, ConnectError, createConnectRouter, type HandlerContext, type Interceptor } from '@connectrpc/connect'
import { universalRequestFromNodeRequest, universalResponseToNodeResponse } from '@connectrpc/connect-node'
import { chmodSync, unlinkSync } from 'node:fs'
import type { IncomingMessage } from 'node:http'
import { connect } from 'node:net'
import { CodedError } from '../base/coded-error.ts'
import { makeAccessToken, tokenCheck } from './access-token.ts'
import { Health, HealthCheckResponse_ServingStatus } from './generated/grpc/health/v1/health_pb.ts'
import { HttpListener, type HttpHandler, type HttpRequest, type HttpResponse, type ServerTls } from './http-listener.ts'
import { isLoopback } from './loopback.ts'
import { connectErrorFrom, connectErrorOf } from './rpc-error.ts'
import { defaultRpcLimits, type RpcLimits } from './rpc-limits.ts'
import { serve, type RpcService } from './rpc-service.ts'
import { answerUnary, breakOff, isPlainUnary, type UnaryMethod } from './unary-call.ts'

export interface TcpDoor {
  /** 0: any that is free. */
  readonly port: number
  /** A UNIX socket instead of host and port, for one who hands connections on that he has accepted at TCP. */
  readonly path?: string
  /** 127.0.0.1 unless told. Others than this machine's own need TLS. */
  readonly host?: string
  readonly tls?: ServerTls
  /**
   * Who may call: who shows the token (that of a file is made at the start, and its file removed at the end); who has a certificate of
   * `tls.clientAuthority`; or anybody.
   */
  readonly access: { readonly tokenFile: string } | { readonly token: string } | 'certificate' | 'anybody'
}

export interface RpcServerOptions {
  readonly services: readonly RpcService[]
  /** Path of a UNIX socket. One that a dead process has left is taken over. */
  readonly socket?: string
  readonly tcp?: TcpDoor
  /** Whether the process answers, and whether it can do its work now; it does and can unless told. */
  readonly isAlive?: () => boolean | Promise<boolean>
  readonly isReady?: () => boolean | Promise<boolean>
  readonly limits?: Partial<RpcLimits>
  /** Called with what methods throw that is no CodedError. */
  readonly onDefect?: (reason: unknown) => void
}

/** How long answers have to go out when the server is closed. */
const GRACE_MS = 500

export class RpcServer {
  readonly #options: RpcServerOptions
  readonly #limits: RpcLimits
  readonly #listeners: HttpListener[] = []
  readonly #shutdown = new AbortController()
  readonly #services = new Set<string>([''])
  #tokenFile: string | undefined
  #port = 0
  #calls = 0

  constructor(options: RpcServerOptions) {
    this.#options = options
    this.#limits = { ...defaultRpcLimits, ...options.limits }
  }

  /** @throws CodedError `NF_PORT_BUSY`, `NF_PORT_FAILED`, `NF_CONFIG_INVALID`, `NF_FILE_UNWRITABLE`; then nothing is left open */
  async open(): Promise<void> {
    const { socket, tcp } = this.#options
    if (tcp !== undefined) checkDoor(tcp)
    try {
      if (socket !== undefined) await this.#openSocket(socket)
      if (tcp !== undefined) await this.#openTcp(tcp)
    } catch (error) {
      await this.close(0)
      throw error
    }
  }

  /** Where it listens at TCP; 0: nowhere. */
  get port(): number {
    return this.#port
  }

  /** Lets nobody in any more; streams end, answers on their way still go out, for so long. */
  async close(graceMs = GRACE_MS): Promise<void> {
    this.#shutdown.abort(connectErrorOf(new CodedError('NF_NODE_GONE', 'the process ends')))
    await Promise.all(this.#listeners.splice(0).map((listener) => listener.close(graceMs)))
    if (this.#tokenFile !== undefined) removeFile(this.#tokenFile)
    this.#tokenFile = undefined
  }

  async #openSocket(path: string): Promise<void> {
    if (await isAnswered(path)) throw new CodedError('NF_PORT_BUSY', `somebody listens at ${path} already`, 'Stop that process first')
    removeFile(path)
    const listener = new HttpListener(this.#handler(() => true), this.#limits)
    await listen(listener, { path }, path)
    this.#listeners.push(listener)
    chmodSync(path, 0o600)
  }

  async #openTcp({ host = '127.0.0.1', port, path, tls, access }: TcpDoor): Promise<void> {
    let isAllowed = (_: string | null | undefined): boolean => true
    if (typeof access === 'object' && 'token' in access) {
      isAllowed = tokenCheck(access.token)
    } else if (typeof access === 'object') {
      isAllowed = tokenCheck(makeAccessToken(access.tokenFile))
      this.#tokenFile = access.tokenFile
    }
    const name = path ?? `${host}:${port}`
    let listener: HttpListener
    try {
      listener = new HttpListener(this.#handler(isAllowed), this.#limits, tls)
    } catch (cause) {
      throw new CodedError('NF_CONFIG_INVALID', `the certificate or key for ${name} cannot be used: ${(cause as Error).message}`,
        'Both are PEM, and belong together', { cause })
    }
    if (path !== undefined) removeFile(path)
    await listen(listener, path === undefined ? { host, port } : { path }, name)
    this.#listeners.push(listener)
    if (path !== undefined) chmodSync(path, 0o600)
    this.#port = listener.port
  }

  /** What answers at one address. */
  #handler(isAllowed: (authorization: string | null | undefined) => boolean): HttpHandler {
    const { onDefect = () => {} } = this.#options
    const limits = this.#limits
    const { requestBytesMax, answerBytesMax, callMs, requestMs } = limits
    const services = [...this.#options.services, serve(Health, { check: async ({ service }) => ({ status: await this.#healthOf(service) }) })]
    const refusal = (isHealth: boolean, authorization: string | null | undefined): CodedError | undefined =>
      isHealth || isAllowed(authorization) ? this.#crowded() : new CodedError('NF_RPC_TOKEN',
        'this address is called with a token, as Authorization: Bearer TOKEN', 'It is in the token file, for the owner of the process')
    const router = createConnectRouter({
      acceptCompression: [], readMaxBytes: requestBytesMax, writeMaxBytes: answerBytesMax, jsonOptions: { alwaysEmitImplicit: true },
      shutdownSignal: this.#shutdown.signal, interceptors: [answering(callMs, onDefect)],
      requestGate: ({ service, requestHeader }: HandlerContext) => {
        const error = refusal(service === Health, requestHeader.get('authorization'))
        if (error !== undefined) throw connectErrorOf(error)
      },
    })
    for (const { service, methods } of services) {
      this.#services.add(service.typeName)
      router.service(service, methods as object)
    }
    const plain = new Map(services.flatMap((own) => plainMethods(own)))
    const others = new Map(router.handlers.map((handler) => [handler.requestPath, handler]))

    return (request, response) => {
      request.on('error', () => undefined)
      response.on('error', () => undefined)
      const { url = '' } = request
      const end = url.indexOf('?')
      const path = end < 0 ? url : url.slice(0, end)
      const handler = others.get(path)
      if (handler === undefined) return afterRequest(request, response, limits, () => { void this.#answerPlainly(path, request, response) })
      if (request.method === 'POST' && !handler.supportedContentType(request.headers['content-type'] ?? '')) {
        return afterRequest(request, response, limits, () => { sendText(response, 415, 'a call is application/json, or a like type\n') })
      }
      this.#calls++
      response.once('close', () => { this.#calls-- })
      const method = plain.get(path)
      if (method !== undefined && isPlainUnary(request, requestBytesMax)) {
        const error = refusal(handler.service === Health, request.headers.authorization)
        return answerUnary(method, request, response, limits, error, onDefect)
      }
      let call: ReturnType<typeof universalRequestFromNodeRequest>
      try {
        call = universalRequestFromNodeRequest(request, response, undefined, undefined)
      } catch {
        // Without a host, or with one that is none.
        return afterRequest(request, response, limits, () => { sendText(response, 400, 'the request names no host\n') })
      }
      const isStream = handler.method.methodKind !== 'unary'
      let timer = setTimeout(() => {
        if (!request.complete) breakOff(request, response)
        else if (!isStream) timer = setTimeout(() => { breakOff(request, response) }, 2 * callMs)
      }, requestMs)
      response.once('close', () => { clearTimeout(timer) })
      handler(call).then((answer) => universalResponseToNodeResponse(answer, response)).catch(() => { breakOff(request, response) })
    }
  }

  #crowded(): CodedError | undefined {
    const { callsMax } = this.#limits
    return this.#calls <= callsMax ? undefined
      : new CodedError('NF_RPC_LIMIT', `${callsMax} calls are being answered, more are not taken`, 'Try again later')
  }

  async #healthOf(service: string): Promise<HealthCheckResponse_ServingStatus> {
    if (!this.#services.has(service)) throw new ConnectError(`there is no service ${service}`, Code.NotFound)
    return await this.#isSo('isReady') ? HealthCheckResponse_ServingStatus.SERVING : HealthCheckResponse_ServingStatus.NOT_SERVING
  }

  /** What fails to say is not so. */
  async #isSo(question: 'isAlive' | 'isReady'): Promise<boolean> {
    try {
      return (question === 'isAlive' || !this.#shutdown.signal.aborted) && (await this.#options[question]?.() ?? true)
    } catch {
      return false
    }
  }

  /** Answers what is no method. */
  async #answerPlainly(path: string, request: HttpRequest, response: HttpResponse): Promise<void> {
    const isQuestion = request.method === 'GET' || request.method === 'HEAD'
    if (isQuestion && path === '/healthz') {
      return await this.#isSo('isAlive') ? sendText(response, 200, 'ok\n') : sendText(response, 503, 'no answer\n')
    }
    if (isQuestion && path === '/readyz') {
      return await this.#isSo('isReady') ? sendText(response, 200, 'ready\n') : sendText(response, 503, 'not ready\n')
    }
    // gRPC's clients, too, take 404 for an unknown method.
    sendText(response, 404, JSON.stringify({ code: 'unimplemented', message: 'there is no such method' }), 'application/json')
  }
}

/** The methods that one message answers, by their paths. */
function plainMethods({ service, methods }: RpcService): [string, UnaryMethod][] {
  return service.methods.flatMap((method): [string, UnaryMethod][] => {
    const own = methods[method.localName]
    if (method.methodKind !== 'unary' || own === undefined) return []
    return [[`/${service.typeName}/${method.name}`, { method, call: (request, context) => own.call(methods, request, context) }]]
  })
}

/** Holds answers to their time, and makes of what methods throw what their callers are to see. */
function answering(callMs: number, onDefect: (reason: unknown) => void): Interceptor {
  return (next) => async (request) => {
    try {
      const answer = await (request.stream ? next(request) : inTime(next(request), callMs, request.signal))
      if (!answer.stream) return answer
      const { message } = answer
      return { ...answer, message: (async function* () {
        try {
          yield* message
        } catch (error) {
          throw connectErrorFrom(error, onDefect)
        }
      })() }
    } catch (error) {
      throw connectErrorFrom(error, onDefect)
    }
  }
}

/** The same promise, given up after a time, or when the caller has gone or does not want to wait longer. */
function inTime<T>(promise: Promise<T>, ms: number, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      reject(connectErrorOf(new CodedError('NF_NODE_GONE', `the call was not done in ${ms} ms`), Code.DeadlineExceeded))
    }, ms)
    const leave = (): void => {
      clearTimeout(timer)
      reject(ConnectError.from(signal.reason, Code.Canceled))
    }
    signal.addEventListener('abort', leave)
    promise.then(resolve, reject).finally(() => {
      clearTimeout(timer)
      signal.removeEventListener('abort', leave)
    })
  })
}

/** Answers what is no call. What comes with it is not looked at, but its sender may not listen before he has said it. */
function afterRequest(request: HttpRequest, response: HttpResponse, { requestBytesMax, requestMs }: RpcLimits, answer: () => void): void {
  const timer = setTimeout(() => { breakOff(request, response) }, requestMs)
  response.once('close', () => { clearTimeout(timer) })
  let bytes = 0
  let isAnswered = false
  const end = (): void => {
    if (!isAnswered) answer()
    isAnswered = true
  }
  const body = request as IncomingMessage
  body.on('data', (chunk: Buffer) => {
    bytes += chunk.length
    if (bytes > requestBytesMax) end()
  })
  body.on('end', end)
}

function sendText(response: HttpResponse, status: number, text: string, type = 'text/plain'): void {
  const headers = { 'content-type': type, 'cache-control': 'no-store' }
  if ('stream' in response) response.writeHead(status, headers)
  // HTTP/1.1 has no other way to be rid of what else the caller has to say.
  else response.writeHead(status, status < 400 ? headers : { ...headers, connection: 'close' })
  response.end(text)
}

function checkDoor({ host = '127.0.0.1', path, tls, access }: TcpDoor): void {
  if (tls === undefined && path === undefined && !isLoopback(host)) {
    throw new CodedError('NF_CONFIG_INVALID', `${host} can be reached by others, who could read the token`, 'Use TLS, or listen at 127.0.0.1')
  }
  if (access === 'certificate' && tls?.clientAuthority === undefined) {
    throw new CodedError('NF_CONFIG_INVALID', 'certificates of clients cannot be checked', 'Name their authority, or use a token')
  }
}

async function listen(listener: HttpListener, where: { path?: string, host?: string, port?: number }, name: string): Promise<void> {
  try {
    await listener.listen(where)
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException
    if (code === 'EADDRINUSE') throw new CodedError('NF_PORT_BUSY', `somebody listens at ${name} already`, 'Stop that process first', { cause })
    throw new CodedError('NF_PORT_FAILED', `cannot listen at ${name}: ${message}`, '', { cause })
  }
}

function isAnswered(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path)
    socket.on('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.on('error', () => { resolve(false) })
  })
}

function removeFile(path: string): void {
  try {
    unlinkSync(path)
  } catch {
    // There is none.
  }
}
