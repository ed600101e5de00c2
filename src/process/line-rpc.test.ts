/**
 * Commands over a socket: answers, errors with their codes, and what bad input gets.
 */

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { connect, createServer, Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { CodedError } from '../base/coded-error.ts'
import { answerLines, callOnce, LineRpcClient, LineRpcServer } from './line-rpc.ts'

const folder = mkdtempSync(join(tmpdir(), 'nfactor-rpc-'))
after(() => { rmSync(folder, { recursive: true }) })
const path = join(folder, 'a.sock')

const methods = {
  Echo: (params: unknown) => params,
  Nothing: () => undefined,
  Slow: () => new Promise((resolve) => { setTimeout(() => { resolve({ slow: true }) }, 30) }),
  Refuse: () => { throw new CodedError('NF_CLUSTER', 'there is no node 5', 'Name another one') },
  Break: () => { throw new Error('oh') },
}

test('methods answer, in any order, and their errors keep their codes', async () => {
  const server = new LineRpcServer(path, methods)
  await server.open()
  assert.equal(statSync(path).mode & 0o777, 0o600)
  const client = await LineRpcClient.connect(path)
  const slow = client.call('Slow')
  const text = 'ü'.repeat(100_000)
  assert.deepEqual(await client.call('Echo', { text }), { text })
  assert.deepEqual(await client.call('Nothing'), {})
  assert.deepEqual(await slow, { slow: true })
  await assert.rejects(client.call('Refuse'), { code: 'NF_CLUSTER', message: 'there is no node 5', mend: 'Name another one' })
  await assert.rejects(client.call('Break'), { code: 'NF_INTERNAL' })
  await assert.rejects(client.call('toString'), { code: 'NF_USAGE' })
  await assert.rejects(client.call('Slow', {}, 1), { code: 'NF_NODE_GONE' })
  let isClosed = false
  client.onClose = () => { isClosed = true }
  const late = assert.rejects(client.call('Slow'), { code: 'NF_NODE_GONE' })
  client.close()
  await late
  assert.ok(isClosed)
  await assert.rejects(client.call('Echo'), { code: 'NF_NODE_GONE' })
  server.close()
  await assert.rejects(callOnce(path, 'Echo'), { code: 'NF_NODE_GONE' })
})

test('a socket that somebody listens at is left to him; one that is left over is taken', async () => {
  const server = new LineRpcServer(path, methods)
  await server.open()
  await assert.rejects(new LineRpcServer(path, methods).open(), { code: 'NF_PORT_BUSY' })
  assert.deepEqual(await callOnce(path, 'Echo', { a: 1 }), { a: 1 })
  server.close()
  writeFileSync(path, '')
  const next = new LineRpcServer(path, methods)
  await next.open()
  assert.deepEqual(await callOnce(path, 'Nothing'), {})
  next.close()
})

test('what is no request ends the connection and nothing else', async () => {
  const other = join(folder, 'b.sock')
  const server = new LineRpcServer(other, methods)
  await server.open()
  for (const text of ['no JSON\n', '[]\n', '{"id":"1","method":"Echo"}\n', '{"id":1}\n', 'x'.repeat(2 << 20)]) {
    const socket = connect(other)
    socket.on('error', () => undefined)
    socket.write(text)
    await new Promise((resolve) => { socket.on('close', resolve); socket.resume() })
  }
  assert.deepEqual(await callOnce(other, 'Echo', { a: 1 }), { a: 1 })
  server.close()
})

test('calls under way are bounded: a client refuses the next one, and who takes no answers loses its connection', async () => {
  let isLetGo = (): void => undefined
  const gate = new Promise<void>((resolve) => { isLetGo = resolve })
  let asked = 0
  const other = join(folder, 'c.sock')
  const server = new LineRpcServer(other, { ...methods, Wait: () => {
    asked++
    return gate
  } })
  await server.open()
  const client = await LineRpcClient.connect(other)
  const calls = Array.from({ length: 1024 }, () => client.call('Wait'))
  await assert.rejects(client.call('Echo'), { code: 'NF_RPC_LIMIT' })
  const greedy = connect(other).on('error', () => undefined)
  greedy.write('{"id":1,"method":"Wait"}\n'.repeat(4097))
  await new Promise((resolve) => { greedy.on('close', resolve).resume() })
  assert.equal(asked, 1024 + 4096)
  isLetGo()
  await Promise.all(calls)
  assert.deepEqual(await client.call('Echo', { a: 1 }), { a: 1 })
  // Answers of which the kernel takes no more count as well.
  const deaf = connect(other).on('error', () => undefined)
  const isEnded = new Promise((resolve) => { deaf.on('close', resolve) })
  deaf.pause()
  const line = `${JSON.stringify({ id: 1, method: 'Echo', params: { text: 'x'.repeat(4_000) } })}\n`
  for (let i = 0; i < 8000 && !deaf.destroyed; i++) if (!deaf.write(line)) await new Promise((resolve) => { setImmediate(resolve) })
  deaf.resume()
  await isEnded
  assert.deepEqual(await client.call('Echo', { a: 2 }), { a: 2 })
  client.close()
  server.close()
})

test('a line of an answer that does not end is given up', async () => {
  const other = join(folder, 'e.sock')
  const server = createServer((socket) => {
    socket.on('error', () => undefined)
    const chunk = Buffer.alloc(1 << 20, 'x')
    const fill = (error?: Error | null): void => { if (error == null) socket.write(chunk, fill) }
    fill()
  })
  await new Promise<void>((resolve) => { server.listen(other, resolve) })
  const client = await LineRpcClient.connect(other)
  await assert.rejects(client.call('Echo', {}, 30_000), { code: 'NF_NODE_GONE', message: /has closed the connection/ })
  server.close()
})

test('requests, lines and connections are bounded', async () => {
  const other = join(folder, 'd.sock')
  const server = new LineRpcServer(other, methods)
  await server.open()
  const client = await LineRpcClient.connect(other)
  assert.equal((await client.call<{ text: string }>('Echo', { text: 'x'.repeat((1 << 20) - 100) })).text.length, (1 << 20) - 100)
  await assert.rejects(client.call('Echo', { text: 'x'.repeat(2 << 20) }), { code: 'NF_RPC_LIMIT' })
  assert.deepEqual(await client.call('Echo', { a: 1 }), { a: 1 }, 'what is not sent costs nothing')
  client.close()
  const clients = await Promise.all(Array.from({ length: 256 }, () => LineRpcClient.connect(other)))
  const late = connect(other).on('error', () => undefined).resume()
  await new Promise((resolve) => { late.on('close', resolve) })
  assert.deepEqual(await (clients[0] as LineRpcClient).call('Echo', { a: 1 }), { a: 1 })
  for (const one of clients) one.close()
  server.close()
})

test('an answer that cannot be sent is an error, and costs nothing else', async () => {
  const other = join(folder, 'f.sock')
  const round: { self?: unknown } = {}
  round.self = round
  const server = new LineRpcServer(other, { ...methods, Round: () => round, Big: () => ({ big: 1n }), Long: () => 'x'.repeat(65 << 20) })
  await server.open()
  const client = await LineRpcClient.connect(other)
  await assert.rejects(client.call('Round'), { code: 'NF_INTERNAL' })
  await assert.rejects(client.call('Big'), { code: 'NF_INTERNAL' })
  await assert.rejects(client.call('Long'), { code: 'NF_RPC_LIMIT', message: 'the answer to Long is too long' })
  assert.deepEqual(await client.call('Echo', { a: 1 }), { a: 1 })
  client.close()
  server.close()
})

test('a server that has ended a connection follows nothing any more that comes by it', async () => {
  const other = join(folder, 'g.sock')
  let asked = 0
  const { promise: taken, resolve: take } = Promise.withResolvers<Socket>()
  const server = createServer((socket) => {
    answerLines(socket, { Ask: () => { asked++ } })
    take(socket)
  })
  await new Promise<void>((resolve) => { server.listen(other, resolve) })
  // One that does not end its side.
  const socket = connect({ path: other, allowHalfOpen: true }).on('error', () => undefined).resume()
  const ask = '{"id":1,"method":"Ask"}\n'
  socket.write(ask)
  await new Promise((resolve) => { socket.once('data', resolve) })
  const served = await taken
  const isOver = new Promise((resolve) => { served.once('close', resolve) })
  socket.once('end', () => { socket.end(ask) })
  served.end()
  await isOver
  assert.equal(asked, 1)
  server.close()
})

test('connections that cannot be taken end nothing', async (context) => {
  const other = join(folder, 'h.sock')
  const { listen } = Server.prototype
  let inner: Server | undefined
  context.mock.method(Server.prototype, 'listen', function(this: Server, ...where: Parameters<typeof listen>) {
    inner = this
    return listen.apply(this, where)
  })
  const server = new LineRpcServer(other, methods)
  await server.open()
  // As Node says that there are no descriptors, again and again.
  for (let i = 0; i < 2; i++) inner?.emit('error', new Error('accept EMFILE'))
  assert.deepEqual(await callOnce(other, 'Echo', { a: 1 }), { a: 1 })
  server.close()
})
