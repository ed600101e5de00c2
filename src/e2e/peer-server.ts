/**
 * Program of the server's namespace: DNS over UDP, WebSocket echo, HTTP/2 streams that tick. Says `ready` when all of them listen.
 */

import { createHash } from 'node:crypto'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { createServer as createHttp2Server } from 'node:http2'
import type { Duplex } from 'node:stream'
import { Port } from './outcome.ts'

const TICK_MS = 20

/** Answers every question with one address record: the header with the response bits, the question, a pointer to its name. */
function answerOf(query: Buffer): Buffer {
  const answer = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1])
  const response = Buffer.concat([query, answer])
  response.writeUInt16BE(0x8180, 2)
  response.writeUInt16BE(1, 6)
  return response
}

async function serveDns(): Promise<void> {
  for (const type of ['udp4', 'udp6'] as const) {
    const socket = createSocket({ type, ipv6Only: type === 'udp6' })
    socket.on('message', (query, from) => { socket.send(answerOf(query), from.port, from.address) })
    socket.bind(Port.dns)
    await once(socket, 'listening')
  }
}

/** Echoes text frames of less than 126 bytes; closes when it is asked to. */
function echoFrames(socket: Duplex): void {
  let pending = Buffer.alloc(0)
  socket.on('data', (part: Buffer) => {
    pending = Buffer.concat([pending, part])
    while (pending.length >= 6) {
      const length = pending[1] & 0x7f
      if (pending.length < 6 + length) break
      const mask = pending.subarray(2, 6)
      const content = Buffer.from(pending.subarray(6, 6 + length).map((byte, index) => byte ^ mask[index % 4]))
      socket.write(Buffer.concat([Buffer.from([pending[0], length]), content]))
      if ((pending[0] & 0xf) === 8) socket.end()
      pending = pending.subarray(6 + length)
    }
  })
  socket.on('error', () => { socket.destroy() })
}

async function serveWebSocket(): Promise<void> {
  const server = createServer()
  server.on('upgrade', (request, socket) => {
    const key = createHash('sha1').update(`${request.headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64')
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${key}\r\n\r\n`)
    echoFrames(socket)
  })
  await once(server.listen(Port.webSocket, '::'), 'listening')
}

/** A stream of numbers, one each tick, until the client closes it. */
async function serveHttp2(): Promise<void> {
  const server = createHttp2Server()
  server.on('stream', (stream) => {
    stream.respond({ ':status': 200 })
    let count = 0
    const timer = setInterval(() => { stream.write(`${count++}\n`) }, TICK_MS)
    stream.on('close', () => { clearInterval(timer) })
    stream.on('error', () => { clearInterval(timer) })
  })
  await once(server.listen(Port.http2, '::'), 'listening')
}

await Promise.all([serveDns(), serveWebSocket(), serveHttp2()])
console.log('ready')
