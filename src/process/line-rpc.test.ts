/**
 * Commands over a socket: answers, errors with their codes, and what bad input gets.
 */

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { CodedError } from '../base/coded-error.ts'
import { callOnce, LineRpcClient, LineRpcServer } from './line-rpc.ts'

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
