/**
 * RPC client: typed calls to one server, over one connection that is kept, many at a time.
 *
 *     const peer = new RpcClient({ socket: '/run/user/1000/nfactor/web/11.sock' })
 *     const node = peer.service(Node)
 *     const { flows } = await node.pollWorkload({})
 *     for await (const event of peer.service(Controller).events({ follow: true }, { signal })) ...
 *     peer.close()
 *
 * What goes wrong is a CodedError: what the method threw, or `NF_NODE_GONE` when there is no answer, or none in time. The connection is made
 * with the first call; after it has been lost, with the next one. So a client outlives the process at the other end: who means one life of
 * a node asks it (`GetStatus`: pid, incarnation), and closes the client when that has ended.
 */

import type { DescMessage, DescService } from '@bufbuild/protobuf'
import { Code, ConnectError, createClient, type CallOptions, type Client, type Interceptor, type Transport } from '@connectrpc/connect'
import { createConnectTransport, createGrpcTransport, Http2SessionManager } from '@connectrpc/connect-node'
import { Agent } from 'node:http'
import { Agent as TlsAgent } from 'node:https'
import { connect } from 'node:net'
import { CodedError } from '../base/coded-error.ts'
import { readAccessToken } from './access-token.ts'
import { codedErrorFrom } from './rpc-error.ts'
import { defaultRpcLimits } from './rpc-limits.ts'

export interface ClientTls {
  /** PEM. Who has signed the server's certificate, if that is none of the authorities that are known to all. */
  readonly authority?: string | Buffer
  /** PEM. What this client shows, if the server wants to know who calls. */
  readonly certificate?: string | Buffer
  readonly key?: string | Buffer
  /** The name in the server's certificate, if it is not that of the URL. */
  readonly serverName?: string
}

export type RpcAddress =
  | { readonly socket: string }
  /** `http://127.0.0.1:7700` or `https://...`. The token, or the file that it is in. */
  | { readonly url: string, readonly token?: string, readonly tokenFile?: string, readonly tls?: ClientTls }

export interface RpcClientOptions {
  /** A call that answers once is given up after so long; 10 s unless told. Each call may say otherwise (`timeoutMs`). */
  readonly timeoutMs?: number
  /** How to speak. `connect`: HTTP/2, one connection. `json`: HTTP/1.1, a connection for each call at a time; easier to read on the wire. */
  readonly protocol?: 'connect' | 'json' | 'grpc'
}

const CALL_MS = 10_000
const CONNECT_MS = 5_000
/** A server that we wait for is asked for a sign of life so often, and has so long for it. */
const PING_MS = 10_000
const PING_ANSWER_MS = 5_000

export class RpcClient {
  /** Who is called, for messages. */
  readonly name: string
  readonly #timeoutMs: number
  readonly #address: RpcAddress
  readonly #transport: Transport
  readonly #end: () => void
  readonly #closing = new AbortController()
  #token: string | undefined

  constructor(address: RpcAddress, options: RpcClientOptions = {}) {
    const { timeoutMs = CALL_MS, protocol = 'connect' } = options
    this.name = 'socket' in address ? address.socket : address.url
    this.#timeoutMs = timeoutMs
    this.#address = address
    const baseUrl = urlOf(address)
    const tls = 'url' in address ? address.tls : undefined
    const secure = tls === undefined ? {} : { ca: tls.authority, cert: tls.certificate, key: tls.key, servername: tls.serverName }
    const common = {
      baseUrl, acceptCompression: [], readMaxBytes: defaultRpcLimits.answerBytesMax, writeMaxBytes: defaultRpcLimits.answerBytesMax,
      interceptors: 'socket' in address ? [] : [this.#authorize()],
    }
    if (protocol === 'json') {
      const agent = baseUrl.startsWith('https:') ? new TlsAgent({ keepAlive: true }) : new Agent({ keepAlive: true })
      const nodeOptions = { agent, ...secure, ...'socket' in address && { socketPath: address.socket } }
      this.#transport = createConnectTransport({ ...common, httpVersion: '1.1', useBinaryFormat: false, nodeOptions })
      this.#end = () => { agent.destroy() }
    } else {
      const pings = { pingIntervalMs: PING_MS, pingTimeoutMs: PING_ANSWER_MS, connectTimeoutMs: CONNECT_MS }
      const sessionManager = new Http2SessionManager(baseUrl, pings,
        'socket' in address ? { createConnection: () => connect(address.socket) } : secure)
      this.#transport = protocol === 'grpc' ? createGrpcTransport({ ...common, sessionManager })
        : createConnectTransport({ ...common, httpVersion: '2', sessionManager })
      this.#end = () => { sessionManager.abort() }
    }
  }

  /** The methods of a service. */
  service<T extends DescService>(service: T): Client<T> {
    const client = createClient(service, this.#transport) as Record<string, (request: unknown, options?: CallOptions) => unknown>
    return Object.fromEntries(service.methods.map(({ localName, methodKind }) => {
      const method = client[localName]
      return [localName, methodKind === 'unary'
        ? (request: unknown, options: CallOptions = {}) =>
            this.#once(localName, options, (given) => method(request, given) as Promise<DescMessage>)
        : (request: unknown, options: CallOptions = {}) =>
            this.#stream(localName, options, (given) => method(request, given) as AsyncIterable<DescMessage>)]
    })) as unknown as Client<T>
  }

  /** Ends the connection; calls that wait fail. */
  close(): void {
    this.#closing.abort()
    this.#end()
  }

  async #once<T>(name: string, options: CallOptions, call: (options: CallOptions) => Promise<T>): Promise<T> {
    const { timeoutMs = this.#timeoutMs } = options
    this.#checkOpen()
    const once = (): Promise<T> => call({ ...options, timeoutMs })
    try {
      return await once().catch((error: unknown) => (isRefusedStream(error) ? once() : Promise.reject(error as Error)))
    } catch (error) {
      throw this.#errorOf(error, name, timeoutMs, options.signal)
    }
  }

  async *#stream<T>(name: string, options: CallOptions, call: (options: CallOptions) => AsyncIterable<T>): AsyncGenerator<T, undefined> {
    this.#checkOpen()
    const signal = options.signal === undefined ? this.#closing.signal : AbortSignal.any([options.signal, this.#closing.signal])
    try {
      for await (const message of call({ ...options, signal })) yield message
    } catch (error) {
      throw this.#errorOf(error, name, options.timeoutMs ?? 0, options.signal)
    }
  }

  #checkOpen(): void {
    if (this.#closing.signal.aborted) throw new CodedError('NF_NODE_GONE', `the connection to ${this.name} has been closed`)
  }

  /** What the caller is told; what he has called off himself is his own reason. */
  #errorOf(error: unknown, name: string, timeoutMs: number, signal: AbortSignal | undefined): unknown {
    if (signal?.aborted === true) return signal.reason
    if (this.#closing.signal.aborted) return new CodedError('NF_NODE_GONE', `the connection to ${this.name} has been closed`)
    const { code, metadata } = ConnectError.from(error)
    if (code === Code.DeadlineExceeded && metadata.keys().next().done === true) {
      return new CodedError('NF_NODE_GONE', `${this.name} has not answered ${name} for ${timeoutMs} ms`, '', { cause: error })
    }
    if (isUnreachable(error)) return new CodedError('NF_NODE_GONE', `nobody answers at ${this.name}`, '', { cause: error })
    const coded = codedErrorFrom(error, this.name)
    // A server that was started again has another token, in the same file.
    if (coded.code === 'NF_RPC_TOKEN') this.#token = undefined
    return coded
  }

  #authorize(): Interceptor {
    // Async: what it throws is to reject the call, so that its timer ends with it.
    return (next) => async (request) => {
      const token = this.#token ??= this.#readToken()
      if (token !== '') request.header.set('authorization', `Bearer ${token}`)
      return await next(request)
    }
  }

  #readToken(): string {
    const { token, tokenFile } = this.#address as { token?: string, tokenFile?: string }
    return token ?? (tokenFile === undefined ? '' : readAccessToken(tokenFile))
  }
}

function urlOf(address: RpcAddress): string {
  if ('socket' in address) return 'http://localhost'
  const url = URL.parse(address.url)
  if (url === null || !/^https?:$/.test(url.protocol)) {
    throw new CodedError('NF_USAGE', `${address.url} is no URL of a server`, 'Give one like http://127.0.0.1:7700')
  }
  return url.origin
}

/** The server has ended a connection that nobody used just as the call came: it has not begun it, so it may be made again (RFC 9113 §8.7). */
function isRefusedStream(error: unknown): boolean {
  return ConnectError.from(error).rawMessage.includes('REFUSED_STREAM')
}

/** True if there was nobody to connect to. */
function isUnreachable(error: unknown): boolean {
  for (let one = error; one instanceof Error; one = one.cause) {
    if (one instanceof CodedError) return false
    if (['ECONNREFUSED', 'ENOENT', 'EHOSTUNREACH', 'ENETUNREACH', 'ENOTFOUND'].includes((one as NodeJS.ErrnoException).code ?? '')) return true
  }
  return false
}
