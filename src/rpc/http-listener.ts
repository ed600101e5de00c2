/**
 * HTTP listener: HTTP/1.1 and HTTP/2 at one address. In clear text the first bytes say which of them a connection speaks (HTTP/2 "with prior
 * knowledge" begins with its preface); over TLS it is agreed in the handshake (ALPN).
 *
 *     UNIX socket, TCP ─▶ first bytes ─▶ "PRI * HTTP/2.0..." ─▶ HTTP/2 session ─┐
 *                              └───────▶ anything else ───────▶ HTTP/1.1 ───────┴─▶ handle(request, response)
 *     TLS ─▶ handshake ─▶ h2 or not
 *
 * Connections are bounded in number, and in the time that they may say nothing.
 */

import { createServer as createHttp1Server, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { createServer as createHttp2Server, type Http2ServerRequest, type Http2ServerResponse, type ServerHttp2Session } from 'node:http2'
import { createServer as createTlsServer } from 'node:https'
import type { ListenOptions, Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import type { RpcLimits } from './rpc-limits.ts'

export type HttpRequest = IncomingMessage | Http2ServerRequest
export type HttpResponse = ServerResponse | Http2ServerResponse
export type HttpHandler = (request: HttpRequest, response: HttpResponse) => void

export interface ServerTls {
  /** PEM: the certificate with its chain, and its key. */
  readonly certificate: string | Buffer
  readonly key: string | Buffer
  /** PEM. With it, clients must show a certificate that this authority has signed. */
  readonly clientAuthority?: string | Buffer
}

const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
/** How often connections are looked at whose requests take too long. */
const CHECK_MS = 500
const CLOSE_POLL_MS = 10

export class HttpListener {
  readonly #limits: RpcLimits
  readonly #server: Server
  readonly #http2: ReturnType<typeof createHttp2Server>
  readonly #serveHttp1: (socket: Socket) => void
  readonly #sockets = new Set<Socket>()
  readonly #sessions = new Set<ServerHttp2Session>()

  constructor(handle: HttpHandler, limits: RpcLimits, tls?: ServerTls) {
    this.#limits = limits
    const { headerBytesMax, headersMs, requestMs, idleMs } = limits
    const options = {
      maxHeaderSize: headerBytesMax, headersTimeout: headersMs, requestTimeout: requestMs, keepAliveTimeout: idleMs, keepAlive: true,
      connectionsCheckingInterval: CHECK_MS,
    }
    this.#server = tls === undefined ? createHttp1Server(options, handle) : createTlsServer({
      ...options, cert: tls.certificate, key: tls.key, ca: tls.clientAuthority, handshakeTimeout: headersMs, minVersion: 'TLSv1.2',
      requestCert: tls.clientAuthority !== undefined, rejectUnauthorized: tls.clientAuthority !== undefined, ALPNProtocols: ['h2', 'http/1.1'],
    }, handle)
    this.#server.maxConnections = limits.connectionsMax
    this.#http2 = createHttp2Server({
      settings: { maxConcurrentStreams: limits.streamsMax, maxHeaderListSize: headerBytesMax, enablePush: false },
    }, handle)
    this.#http2.on('session', (session) => { this.#guard(session) })
    // The HTTP/1.1 server keeps its own way of serving a connection, and its time-outs; it only gets to see the connections that are its.
    const event = tls === undefined ? 'connection' : 'secureConnection'
    const [serve] = this.#server.listeners(event)
    this.#serveHttp1 = (socket) => { serve.call(this.#server, socket) }
    this.#server.removeAllListeners(event)
    this.#server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket)
      socket.on('close', () => { this.#sockets.delete(socket) })
    })
    if (tls === undefined) this.#server.on('connection', (socket: Socket) => { this.#sort(socket) })
    else this.#server.on('secureConnection', (socket: TLSSocket) => { this.#serve(socket, socket.alpnProtocol === 'h2') })
  }

  /** @throws the system's error */
  async listen(where: ListenOptions): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject)
      this.#server.listen(where, () => {
        this.#server.off('error', reject)
        resolve()
      })
    })
  }

  /** Of a listener at TCP. */
  get port(): number {
    const address = this.#server.address()
    return typeof address === 'object' && address !== null ? address.port : 0
  }

  /** Lets nobody in any more, and waits so long for the answers that are on their way. */
  async close(graceMs: number): Promise<void> {
    let isClosed = false
    const closed = new Promise<void>((resolve) => {
      this.#server.close(() => {
        isClosed = true
        resolve()
      })
    })
    for (const session of this.#sessions) session.close()
    for (const end = performance.now() + graceMs; !isClosed && performance.now() < end;) {
      this.#server.closeIdleConnections()
      await new Promise((resolve) => { setTimeout(resolve, CLOSE_POLL_MS) })
    }
    for (const socket of this.#sockets) socket.destroy()
    await closed
  }

  /** Waits for as many bytes as tell which protocol it is. */
  #sort(socket: Socket): void {
    let head: Buffer = Buffer.alloc(0)
    const timer = setTimeout(() => { socket.destroy() }, this.#limits.headersMs)
    const drop = (): void => { socket.destroy() }
    socket.on('error', drop)
    socket.on('end', drop)
    socket.on('close', () => { clearTimeout(timer) })
    const look = (): void => {
      const bytes = socket.read() as Buffer | null
      if (bytes === null) return
      head = Buffer.concat([head, bytes])
      const length = Math.min(head.length, PREFACE.length)
      const isHttp2 = head.subarray(0, length).equals(PREFACE.subarray(0, length))
      if (isHttp2 && length < PREFACE.length) return
      clearTimeout(timer)
      socket.off('readable', look)
      socket.off('end', drop)
      socket.unshift(head)
      this.#serve(socket, isHttp2)
    }
    socket.on('readable', look)
  }

  #serve(socket: Socket, isHttp2: boolean): void {
    if (isHttp2) this.#http2.emit('connection', socket)
    else this.#serveHttp1(socket)
  }

  /** Ends sessions that do not begin with anything, or have had nothing to do for long. */
  #guard(session: ServerHttp2Session): void {
    const { headersMs, idleMs } = this.#limits
    let open = 0
    const first = setTimeout(() => { session.destroy() }, headersMs)
    this.#sessions.add(session)
    session.on('stream', (stream) => {
      clearTimeout(first)
      open++
      stream.once('close', () => { open-- })
    })
    session.on('close', () => {
      clearTimeout(first)
      this.#sessions.delete(session)
    })
    session.setTimeout(idleMs)
    session.on('timeout', () => {
      if (open === 0) session.close()
      else session.setTimeout(idleMs)
    })
  }
}
