/**
 * The door of a public API: its thread begins with the first caller, of all callers at once; when it fails, the next one wakes another.
 */

import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readFileSync, rmdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { once } from 'node:events'
import { createServer, connect, type AddressInfo, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { CodedError } from '../base/coded-error.ts'
import { keepAccessToken } from '../rpc/access-token.ts'
import { Node } from '../rpc/generated/nfactor/v1/node_pb.ts'
import { RpcClient, type RpcAddress } from '../rpc/rpc-client.ts'
import { ApiDoor } from './api-door.ts'
import { LineRpcServer } from './line-rpc.ts'

const folder = mkdtempSync(join(tmpdir(), 'nfactor-door-'))
const workload = { busyUs: 1, asleepUs: 2, timeUs: 3, received: 7, forwarded: 5, dropped: 2, buffered: 0, flows: 1, replicas: 0, isEmpty: false }
const line = new LineRpcServer(join(folder, '11.sock'), {
  PollWorkload: () => workload,
  GetStatus: () => ({ isReady: false }),
  Drain: () => { throw new CodedError('NF_CLUSTER', 'it is no runtime', 'Name one') },
  SetMigrationTarget: () => { throw new Error('oh') },
})
await line.open()
const path = join(folder, '11.api')
const door = new ApiDoor({ kind: 'node', id: 11, name: 'runtime-1', folder }, path)
await door.open()
after(async () => {
  await door.close()
  line.close()
  rmSync(folder, { recursive: true })
})

async function receivedAt(address: RpcAddress): Promise<number> {
  const client = new RpcClient(address)
  try {
    return (await client.service(Node).pollWorkload({})).received
  } finally {
    client.close()
  }
}

/** How a connection on which nothing is said ends. */
function knock(): Promise<void> {
  return new Promise((resolve) => {
    const socket = connect(path).on('error', () => undefined).resume()
    socket.on('close', () => { resolve() })
  })
}

test('a thread that cannot begin ends its callers, and the next one wakes another', async () => {
  // In its way.
  mkdirSync(`${path}.new`)
  await Promise.all([knock(), knock()])
  rmdirSync(`${path}.new`)
  const end = performance.now() + 10_000
  for (let received = 0; received !== 7;) {
    assert.ok(performance.now() < end)
    received = await receivedAt({ socket: path }).catch(() => 0)
    if (received === 0) await new Promise((resolve) => { setTimeout(resolve, 50) })
  }
})

test('later callers come to the thread itself; errors are what the process says, without a stack', async () => {
  assert.equal(statSync(path).mode & 0o777, 0o600)
  const client = new RpcClient({ socket: path }, { protocol: 'json' })
  const node = client.service(Node)
  const answers = await Promise.all(Array.from({ length: 20 }, () => node.pollWorkload({})))
  assert.ok(answers.every(({ received }) => received === 7))
  await assert.rejects(node.drain({}), { code: 'NF_CLUSTER', message: 'it is no runtime', mend: 'Name one' })
  await assert.rejects(node.setMigrationTarget({}), { code: 'NF_INTERNAL', message: 'Error: oh' })
  client.close()
})

test('TCP can come later; a port that is taken is told', async () => {
  const other = createServer()
  await new Promise<void>((resolve) => { other.listen(0, '127.0.0.1', resolve) })
  const { port } = other.address() as AddressInfo
  const access = { path: join(folder, '11.tcp'), token: 'x'.repeat(40), tls: undefined }
  await assert.rejects(door.openTcp({ host: '127.0.0.1', port }, access), { code: 'NF_PORT_BUSY' })
  await new Promise((resolve) => { other.close(resolve) })
  await door.openTcp({ host: '127.0.0.1', port }, access)
  const url = `http://127.0.0.1:${port}`
  assert.equal(await receivedAt({ url, token: access.token }), 7)
  for (const token of ['', 'x'.repeat(39)]) await assert.rejects(receivedAt({ url, token }), { code: 'NF_RPC_TOKEN' })
  assert.equal(await receivedAt({ socket: path }), 7)
  const answers = await Promise.all(['healthz', 'readyz'].map(async (name) => (await fetch(`${url}/${name}`)).status))
  assert.deepEqual(answers, [200, 503])
})

test('connections at TCP are bounded; who is there already is served, and so are others when some have gone', async () => {
  const token = 'x'.repeat(40)
  const second = new ApiDoor({ kind: 'node', id: 11, name: 'runtime-1', folder }, join(folder, 'second.api'))
  const server = createServer()
  await new Promise<void>((resolve) => { server.listen(0, '127.0.0.1', resolve) })
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => { server.close(resolve) })
  await second.open()
  await second.openTcp({ host: '127.0.0.1', port }, { path: join(folder, 'second.tcp'), token, tls: undefined })
  const come = (): Promise<Socket> => new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => { resolve(socket) }).on('error', reject)
  })
  const idle = await Promise.all(Array.from({ length: 256 }, come))
  const late = connect(port, '127.0.0.1').on('error', () => undefined).resume()
  await new Promise((resolve) => { late.on('close', resolve) })
  const [first] = idle as [Socket]
  first.write('GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n')
  const [answer] = await once(first, 'data') as [Buffer]
  assert.match(String(answer), /^HTTP\/1.1 200/)
  await once(first, 'close')
  for (const socket of idle.slice(1, 9)) socket.destroy()
  const end = performance.now() + 10_000
  for (let received = 0; received !== 7;) {
    assert.ok(performance.now() < end)
    received = await receivedAt({ url: `http://127.0.0.1:${port}`, token }).catch(() => 0)
  }
  for (const socket of idle) socket.destroy()
  await second.close()
})

test('a token is made once, and none is taken that could be guessed', () => {
  const file = join(folder, 'token')
  const token = keepAccessToken(file)
  assert.match(token, /^[\w-]{43}$/)
  assert.deepEqual([keepAccessToken(file), readFileSync(file, 'utf8'), statSync(file).mode & 0o777], [token, `${token}\n`, 0o600])
  for (const text of ['', '\n', 'secret', `${'a '.repeat(40)}`]) {
    writeFileSync(file, text)
    assert.throws(() => keepAccessToken(file), { code: 'NF_FILE_UNREADABLE' }, text)
  }
})
