/**
 * What comes from those who mean harm, or know no better: it is refused with the proper code, bounded in time and number, and never ends the
 * process, nor does it keep others waiting.
 */

import assert from 'node:assert/strict'
import { connect as connectHttp2, type ClientHttp2Session } from 'node:http2'
import { connect, type Socket } from 'node:net'
import { after, test } from 'node:test'
import { Random } from '../base/random.ts'
import { Controller } from './generated/nfactor/v1/controller_pb.ts'
import { Node } from './generated/nfactor/v1/node_pb.ts'
import { RpcClient } from './rpc-client.ts'
import { RpcTestPeer, until } from './rpc-test-peer.ts'

const limits = {
  headersMs: 300, requestMs: 400, idleMs: 500, callMs: 300, connectionsMax: 40, callsMax: 20, requestBytesMax: 4096, answerBytesMax: 20_000,
}
const peer = new RpcTestPeer({ limits })
await peer.server.open()
const client = new RpcClient({ socket: peer.socket })
const node = client.service(Node)

after(async () => {
  assert.equal((await node.pollWorkload({})).received, 7)
  assert.deepEqual(peer.defects, [])
  client.close()
  await peer.close()
})

const POLL = '/nfactor.v1.Node/PollWorkload'
const headersOf = (...more: string[]): string =>
  [`POST ${POLL} HTTP/1.1`, 'host: x', 'content-type: application/json', ...more, '', ''].join('\r\n')

/** When it has been closed, by an error or not. */
function closing(one: { readonly destroyed: boolean, once(event: 'close', heard: () => void): unknown }): Promise<void> {
  return new Promise((resolve) => {
    one.once('close', () => { resolve() })
    if ('closed' in one && one.closed === true && one.destroyed) setImmediate(resolve)
  })
}

/** What comes back, in pieces of which nothing is waited for, until the connection is closed. */
async function exchange(...parts: (string | Buffer)[]): Promise<string> {
  const socket = connect(peer.socket)
  let answer = ''
  socket.on('error', () => undefined)
  socket.on('data', (bytes) => { answer += bytes.toString('latin1') })
  for (const part of parts) socket.write(part)
  await closing(socket)
  return answer
}

/** The same call while something goes on. */
async function isAnswering(): Promise<boolean> {
  return (await node.pollWorkload({}, { timeoutMs: 2000 })).received === 7
}

test('bytes that are no request', async () => {
  const random = new Random(1)
  const garbage = Array.from({ length: 200 }, () => Buffer.from(Array.from({ length: 1 + random.below(400) }, () => random.below(256))))
  const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
  const parts = [...garbage, ...garbage.slice(0, 50).map((bytes) => Buffer.concat([preface, bytes])),
    ...garbage.slice(0, 50).map((bytes) => Buffer.concat([preface.subarray(0, bytes.length % 24), bytes])),
    Buffer.from('\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', 'latin1'),
    Buffer.from(headersOf('transfer-encoding: chunked', 'content-length: 3')),
    Buffer.from('GET / HTTP/9.9\r\n\r\n'), Buffer.from('CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n')]
  for (let i = 0; i < parts.length; i += 20) await Promise.all(parts.slice(i, i + 20).map((bytes) => exchange(bytes)))
  assert.ok(await isAnswering())
})

test('requests without a host, or with one that is none', async () => {
  const type = 'content-type: application/json\r\ncontent-encoding: gzip'
  assert.match(await exchange(`POST ${POLL} HTTP/1.0\r\n${type}\r\ncontent-length: 2\r\n\r\n{}`), /^HTTP\/1.1 400 /)
  for (const host of ['[', 'a b', '%', '//', ':x']) {
    assert.match(await exchange(`POST ${POLL} HTTP/1.1\r\nhost: ${host}\r\n${type}\r\ncontent-length: 2\r\n\r\n{}`), /^HTTP\/1.1 400 /, host)
  }
  assert.ok(await isAnswering())
})

test('messages that are too long, in either direction, and such that are none', async () => {
  for (const protocol of ['connect', 'json', 'grpc'] as const) {
    const other = new RpcClient({ socket: peer.socket }, { protocol })
    const own = other.service(Node)
    await assert.rejects(own.listFlows({ filter: 'x'.repeat(5000) }), { code: 'NF_RPC_LIMIT' })
    await assert.rejects(own.listFlows({ limit: 5000 }), { code: 'NF_RPC_LIMIT' })
    assert.equal((await own.listFlows({ filter: 'x'.repeat(3500) })).total, 3)
    other.close()
  }
  const long = `{"x": "${'x'.repeat(100_000)}"}`
  assert.match(await exchange(headersOf(`content-length: ${long.length}`), long), /^HTTP\/1.1 429 .*resource_exhausted/s)
  const chunk = `${long.length.toString(16)}\r\n${long}\r\n0\r\n\r\n`
  assert.match(await exchange(headersOf('transfer-encoding: chunked'), chunk), /^HTTP\/1.1 429 /)
  const nested = `{"config": ${'['.repeat(2000)}`
  assert.match(await exchange(headersOf('connection: close', `content-length: ${nested.length}`), nested), /^HTTP\/1.1 400 /)
  assert.match(await exchange(headersOf(`big: ${'x'.repeat(40_000)}`)), /^HTTP\/1.1 431 /)
  assert.ok(await isAnswering())
})

test('messages as deep as a message can be', async () => {
  const own = new RpcTestPeer()
  await own.server.open()
  const path = '/nfactor.v1.Controller/Update'
  const json = `{"rollOut": {"run": ${'{"a":'.repeat(100_000)}1${'}'.repeat(100_002)}`
  // Struct ─▶ entry ─▶ value ─▶ struct ...
  let deep: Buffer = Buffer.alloc(0)
  const part = (tag: number, bytes: Buffer): Buffer => Buffer.concat([Buffer.from([tag]), lengthOf(bytes), bytes])
  for (let i = 0; i < 5000; i++) deep = part(0x0a, Buffer.concat([Buffer.from([0x0a, 1, 0x61]), part(0x12, part(0x2a, deep))]))
  for (const [type, body] of [['json', Buffer.from(json)], ['proto', part(0x0a, part(0x0a, deep))]] as const) {
    assert.ok(body.length < 1 << 20)
    const response = await new Promise<string>((resolve) => {
      const socket = connect(own.socket)
      let text = ''
      socket.on('data', (bytes) => { text += bytes.toString() }).on('close', () => { resolve(text) }).on('error', () => undefined)
      socket.write([`POST ${path} HTTP/1.1`, 'host: x', 'connection: close', `content-type: application/${type}`,
        `content-length: ${body.length}`, '', ''].join('\r\n'))
      socket.write(body)
    })
    assert.match(response, /^HTTP\/1.1 400 .*invalid_argument/s, type)
  }
  await own.close()
})

function lengthOf(bytes: Buffer): Buffer {
  const digits: number[] = []
  for (let rest = bytes.length; digits.length === 0 || rest > 0; rest >>= 7) digits.push((rest & 127) | (rest > 127 ? 128 : 0))
  return Buffer.from(digits)
}

test('those who say nothing, or say it slowly, are sent away; nobody waits for them', async (context) => {
  const socket = (...parts: (string | Buffer)[]): Socket => {
    const one = connect(peer.socket)
    one.on('error', () => undefined)
    one.resume()
    for (const part of parts) one.write(part)
    return one
  }
  const preface = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'
  const settings = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0])
  const slow = [socket(), socket('P'), socket('PRI * HTTP/2'), socket('POST '), socket(headersOf('content-length: 9').slice(0, -2)),
    socket(headersOf('content-length: 9'), '{'), socket(preface), socket(Buffer.concat([Buffer.from(preface), settings]))]
  const drip = setInterval(() => { for (const one of slow) if (one.writable) one.write(' ') }, 50)
  context.after(() => { clearInterval(drip) })
  assert.ok(await isAnswering())
  const began = performance.now()
  await Promise.all(slow.map(closing))
  assert.ok(performance.now() - began < 3000)

  // A body that does not come, over HTTP/2: the stream ends, the session is as good as before.
  const session = connectHttp2('http://x', { createConnection: () => connect(peer.socket) })
  const stream = session.request({ ':method': 'POST', ':path': POLL, 'content-type': 'application/json' })
  stream.on('error', () => undefined)
  stream.write('{')
  await closing(stream)
  assert.equal(await post(session), 200)
  // Without a call it ends.
  await closing(session)
})

async function post(session: ClientHttp2Session, path = POLL): Promise<number> {
  const stream = session.request({ ':method': 'POST', ':path': path, 'content-type': 'application/json' })
  stream.on('error', () => undefined)
  stream.end('{}')
  stream.resume()
  return await new Promise((resolve, reject) => {
    stream.once('response', (headers) => { resolve(headers[':status'] ?? 0) })
    stream.once('close', () => { reject(new Error('no answer')) })
  })
}

test('methods that take too long are given up', async () => {
  const before = peer.calledOff
  for (const protocol of ['connect', 'grpc'] as const) {
    const other = new RpcClient({ socket: peer.socket }, { protocol })
    await assert.rejects(other.service(Node).getStatus({}), { code: 'NF_NODE_GONE', message: 'the call was not done in 300 ms' })
    other.close()
  }
  await until('they know', () => peer.calledOff === before + 2)
})

test('more calls than can be answered at a time are refused, and more connections', async () => {
  const end = new AbortController()
  const streams = await Promise.all(Array.from({ length: limits.callsMax }, async () => {
    const events = client.service(Controller).events({ follow: true }, { signal: end.signal })[Symbol.asyncIterator]()
    await events.next()
    return events
  }))
  for (const protocol of ['connect', 'grpc'] as const) {
    const other = new RpcClient({ socket: peer.socket }, { protocol })
    await assert.rejects(other.service(Node).pollWorkload({}), { code: 'NF_RPC_LIMIT' })
    other.close()
  }
  end.abort()
  await Promise.all(streams.map((events) => assert.rejects(events.next())))
  for (let isThere = false; !isThere;) isThere = await isAnswering().catch(() => false)

  const many = Array.from({ length: 3 * limits.connectionsMax }, () => connect(peer.socket))
  for (const one of many) one.on('error', () => undefined).resume()
  assert.ok(await isAnswering())
  await until('they are gone', () => many.every(({ closed }) => closed))
  assert.ok(await isAnswering())
})

test('streams that are opened and reset at once, and paths that there are not', async () => {
  const session = connectHttp2('http://x', { createConnection: () => connect(peer.socket) })
  session.on('error', () => undefined)
  for (let i = 0; i < 2000 && !session.destroyed; i++) {
    const stream = session.request({ ':method': 'POST', ':path': POLL, 'content-type': 'application/json' })
    stream.on('error', () => undefined)
    stream.close(8)
  }
  assert.ok(await isAnswering())
  session.destroy()
  const next = connectHttp2('http://x', { createConnection: () => connect(peer.socket) })
  const paths = ['/', '//', '/..', '/nfactor.v1.Node', '/nfactor.v1.Node/', '/nfactor.v1.Node/toString', '/__proto__/x', `/${'x'.repeat(4000)}`]
  for (const path of paths) {
    assert.equal(await post(next, path), 404, path)
  }
  next.destroy()
})

test('a call that comes just as its unused connection is ended is made again', async () => {
  const own = new RpcTestPeer({ limits: { ...limits, idleMs: 40 } })
  await own.server.open()
  const caller = new RpcClient({ socket: own.socket })
  try {
    for (let call = 0; call < 30; call++) {
      await caller.service(Node).pollWorkload({})
      await new Promise((resolve) => { setTimeout(resolve, 37 + call % 6) })
    }
  } finally {
    caller.close()
    await own.close()
  }
})

test('the event loop goes on meanwhile', async () => {
  let longest = 0
  let last = performance.now()
  const timer = setInterval(() => {
    longest = Math.max(longest, performance.now() - last)
    last = performance.now()
  }, 1)
  const long = headersOf('content-length: 4000') + '['.repeat(4000)
  for (let i = 0; i < 20; i++) {
    await Promise.all([exchange(long.replace('host: x', 'host: x\r\nconnection: close')), exchange('\x00'.repeat(60_000)), isAnswering()])
  }
  clearInterval(timer)
  assert.ok(longest < 500, `the event loop stood still for ${longest} ms`)
})
