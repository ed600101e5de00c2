/**
 * Calls: every protocol gets the same answers and errors, streams end at both ends, sockets are taken over from the dead, tokens are demanded,
 * and a peer that is gone is told as such.
 */

import assert from 'node:assert/strict'
import { execFile, fork, spawnSync } from 'node:child_process'
import { existsSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { after, test } from 'node:test'
import { Health, HealthCheckResponse_ServingStatus } from './generated/grpc/health/v1/health_pb.ts'
import { Controller } from './generated/nfactor/v1/controller_pb.ts'
import { Node } from './generated/nfactor/v1/node_pb.ts'
import { plainOf } from './plain-message.ts'
import { RpcClient } from './rpc-client.ts'
import { RpcServer } from './rpc-server.ts'
import { RpcTestPeer, testWorkload, until } from './rpc-test-peer.ts'

const peer = new RpcTestPeer()
await peer.server.open()
after(() => peer.close())
const protocols = ['connect', 'json', 'grpc'] as const

for (const protocol of protocols) {
  test(`${protocol}: answers, errors and streams`, async () => {
    const client = new RpcClient({ socket: peer.socket }, { protocol })
    const node = client.service(Node)
    assert.deepEqual(plainOf(await node.pollWorkload({})), testWorkload)
    const flow = plainOf(await node.getFlow({ flow: 2 ** 50 + 1 }))
    assert.deepEqual([flow.flow, flow.state, flow.packets], [2 ** 50 + 1, { of: { any: ['kind', 1, null, true] } }, undefined])
    assert.equal((await node.listFlows({ filter: 'ü', limit: 2000 })).flows.at(-1)?.a, 'ü')
    assert.equal((await node.listFlows({})).total, 3)

    await assert.rejects(node.setMigrationTarget({ target: 5 }),
      { name: 'CodedError', code: 'NF_CLUSTER', message: 'there is no node 5', mend: 'Name another one' })
    const before = peer.defects.length
    await assert.rejects(node.drain({}), { name: 'CodedError', code: 'NF_INTERNAL', message: 'oh' })
    assert.equal(peer.defects.length, before + 1)
    await assert.rejects(node.shutdown({}), { name: 'CodedError', code: 'NF_USAGE' })

    const chunks: number[] = []
    for await (const { bytes } of node.capture({ frames: 3 })) chunks.push(...bytes)
    assert.deepEqual(chunks, [0, 1, 2])
    await assert.rejects(async () => { for await (const { bytes } of node.capture({ frames: 13 })) chunks.push(...bytes) },
      { name: 'CodedError', code: 'NF_PORT_FAILED', message: 'the port is gone' })
    assert.equal(chunks.length, 16)
    client.close()
    await assert.rejects(node.pollWorkload({}), { code: 'NF_NODE_GONE' })
  })

  test(`${protocol}: what the caller calls off, or does not wait for longer, is called off for the method`, async () => {
    const client = new RpcClient({ socket: peer.socket }, { protocol })
    const before = peer.calledOff
    await assert.rejects(client.service(Node).getStatus({}, { timeoutMs: 50 }),
      { code: 'NF_NODE_GONE', message: /not (answered getStatus for|done in) 50 ms|timed out/ })
    await until('called off by time', () => peer.calledOff === before + 1)
    const controller = new AbortController()
    const reason = new Error('I want no more')
    const call = assert.rejects(client.service(Node).getStatus({}, { signal: controller.signal }), reason)
    setTimeout(() => { controller.abort(reason) }, 20)
    await call
    await until('called off by the caller', () => peer.calledOff === before + 2)
    for await (const { number } of client.service(Controller).events({ after: 4, follow: true })) {
      assert.equal(number, 5)
      break
    }
    await until('a stream left', () => peer.calledOff === before + 3)
    const waiting = assert.rejects(client.service(Node).getStatus({}), { code: 'NF_NODE_GONE' })
    setTimeout(() => { client.close() }, 20)
    await waiting
    await until('the connection gone', () => peer.calledOff === before + 4)
  })

  test(`${protocol}: several hundred calls at a time, a stream among them`, async () => {
    const client = new RpcClient({ socket: peer.socket }, { protocol })
    const node = client.service(Node)
    const end = new AbortController()
    const events = client.service(Controller).events({ follow: true }, { signal: end.signal })[Symbol.asyncIterator]()
    assert.equal((await events.next()).value?.number, 1)
    // HTTP/1.1 has a connection for each, and a server takes 256.
    const flows = Array.from({ length: protocol === 'json' ? 200 : 500 }, (_, index) => index)
    assert.deepEqual(await Promise.all(flows.map(async (flow) => (await node.getFlow({ flow })).flow)), flows)
    end.abort()
    await assert.rejects(events.next())
    client.close()
  })
}

test('a server that stops for a while, and one that dies in the middle of calls', async () => {
  const program = fileURLToPath(new URL('./rpc-test-process.ts', import.meta.url))
  for (const protocol of protocols) {
    const child = fork(program)
    const socket = await new Promise<string>((resolve) => { child.once('message', (path) => { resolve(path as string) }) })
    const client = new RpcClient({ socket }, { protocol })
    // One that has only stopped says nothing.
    assert.equal((await client.service(Node).pollWorkload({})).received, 7)
    child.kill('SIGSTOP')
    await assert.rejects(client.service(Node).pollWorkload({}, { timeoutMs: 100 }),
      { code: 'NF_NODE_GONE', message: `${socket} has not answered pollWorkload for 100 ms` })
    child.kill('SIGCONT')
    assert.equal((await client.service(Node).pollWorkload({})).received, 7)
    const calls = [1, 2, 3].map(() => assert.rejects(client.service(Node).getStatus({}), { name: 'CodedError', code: 'NF_NODE_GONE' }))
    const events = client.service(Controller).events({ follow: true })[Symbol.asyncIterator]()
    await events.next()
    const stream = assert.rejects(events.next(), { name: 'CodedError', code: 'NF_NODE_GONE' })
    child.kill('SIGKILL')
    await Promise.all([...calls, stream])
    // The first to come may still meet the end of the connection.
    await assert.rejects(client.service(Node).pollWorkload({}), { code: 'NF_NODE_GONE' })
    await assert.rejects(client.service(Node).pollWorkload({}), { code: 'NF_NODE_GONE', message: `nobody answers at ${socket}` })
    // Its next life takes the socket over, and the same client finds it.
    const next = new RpcTestPeer({ socket })
    await next.server.open()
    assert.equal((await client.service(Node).pollWorkload({})).received, 7)
    client.close()
    await next.close()
    rmSync(dirname(socket), { recursive: true })
  }
})

test('a socket that somebody listens at is left to him; one that is left over is taken; both are for the owner alone', async () => {
  assert.equal(statSync(peer.socket).mode & 0o777, 0o600)
  await assert.rejects(new RpcServer({ socket: peer.socket, services: [] }).open(), { code: 'NF_PORT_BUSY' })
  const client = new RpcClient({ socket: peer.socket })
  assert.equal((await client.service(Node).pollWorkload({})).received, 7)
  client.close()
  const socket = `${peer.folder}/left.sock`
  writeFileSync(socket, '')
  const server = new RpcServer({ socket, services: [] })
  await server.open()
  assert.equal(statSync(socket).mode & 0o777, 0o600)
  await server.close()
  assert.ok(!existsSync(socket))
  await assert.rejects(new RpcServer({ socket: `${peer.folder}/no/such/folder`, services: [] }).open(), { code: 'NF_PORT_FAILED' })
})

test('a server that is closed ends its streams, and lets answers out', async () => {
  const own = new RpcTestPeer()
  await own.server.open()
  const client = new RpcClient({ socket: own.socket })
  const events = client.service(Controller).events({ follow: true })[Symbol.asyncIterator]()
  await events.next()
  const call = client.service(Node).getFlow({ flow: 3 })
  // It is under way when its neighbour has come back.
  await client.service(Node).pollWorkload({})
  const end = assert.rejects(events.next(), { code: 'NF_NODE_GONE', message: 'the process ends' })
  const began = performance.now()
  await own.server.close(5000)
  assert.ok(performance.now() - began < 4000, 'it waits no longer than it must')
  assert.equal((await call).flow, 3)
  await end
  client.close()
  await own.close()
})

test('at TCP the token is demanded, by every protocol; health is not secret', async () => {
  const own = new RpcTestPeer()
  const server = new RpcServer({
    tcp: { port: 0, access: { tokenFile: own.tokenFile } }, isReady: () => own.isReady,
    services: [{ service: Node, methods: { pollWorkload: () => testWorkload } }],
  })
  await server.open()
  const url = `http://127.0.0.1:${server.port}`
  assert.equal(statSync(own.tokenFile).mode & 0o777, 0o600)
  const token = readFileSync(own.tokenFile, 'utf8').trim()
  assert.ok(token.length >= 43)
  for (const protocol of protocols) {
    for (const address of [{ url }, { url, token: '' }, { url, token: `${token}x` }, { url, token: token.slice(1) }]) {
      const client = new RpcClient(address, { protocol })
      await assert.rejects(client.service(Node).pollWorkload({}), { name: 'CodedError', code: 'NF_RPC_TOKEN' })
      await assert.rejects(async () => { for await (const _ of client.service(Node).capture({})) assert.fail('it has been let in') },
        { name: 'CodedError', code: 'NF_RPC_TOKEN' })
      assert.equal((await client.service(Health).check({})).status, HealthCheckResponse_ServingStatus.SERVING)
      client.close()
    }
    const client = new RpcClient({ url, tokenFile: own.tokenFile }, { protocol })
    assert.equal((await client.service(Node).pollWorkload({})).received, 7)
    client.close()
  }
  // Started again, it has another token, which a client finds in the file.
  const kept = new RpcClient({ url, tokenFile: own.tokenFile })
  assert.equal((await kept.service(Node).pollWorkload({})).received, 7)
  const { port } = server
  await server.close()
  assert.ok(!existsSync(own.tokenFile))
  const next = new RpcServer({ tcp: { port, access: { tokenFile: own.tokenFile } },
    services: [{ service: Node, methods: { pollWorkload: () => testWorkload } }] })
  await next.open()
  assert.notEqual(readFileSync(own.tokenFile, 'utf8').trim(), token)
  await assert.rejects(kept.service(Node).pollWorkload({}), { code: 'NF_RPC_TOKEN' })
  assert.equal((await kept.service(Node).pollWorkload({})).received, 7)
  kept.close()
  await assert.rejects(new RpcServer({ tcp: { port, access: { tokenFile: `${own.folder}/t` } }, services: [] }).open(), { code: 'NF_PORT_BUSY' })
  await next.close()
  await own.close()
})

test('doors that are not safe are not opened', async () => {
  const open = (tcp: ConstructorParameters<typeof RpcServer>[0]['tcp']): Promise<void> => new RpcServer({ tcp, services: [] }).open()
  await assert.rejects(open({ port: 0, host: '0.0.0.0', access: { tokenFile: `${peer.folder}/t` } }),
    { code: 'NF_CONFIG_INVALID', message: /0\.0\.0\.0/ })
  await assert.rejects(open({ port: 0, access: 'certificate' }), { code: 'NF_CONFIG_INVALID' })
  await assert.rejects(open({ port: 0, access: { tokenFile: `${peer.folder}/no/folder` } }), { code: 'NF_FILE_UNWRITABLE' })
  assert.throws(() => new RpcClient({ url: 'here' }), { code: 'NF_USAGE' })
  const client = new RpcClient({ url: 'http://127.0.0.1:1', tokenFile: `${peer.folder}/none` })
  await assert.rejects(client.service(Node).pollWorkload({}), { code: 'NF_FILE_NOT_FOUND' })
  client.close()
})

const isThere = (program: string): boolean => spawnSync(program, ['--version']).status === 0

test('curl', { skip: !isThere('curl') }, async () => {
  const curl = async (...args: string[]): Promise<string> =>
    (await promisify(execFile)('curl', ['-sS', '--max-time', '5', '--unix-socket', peer.socket, '-w', ' %{http_code}', ...args])).stdout
  const json = ['-H', 'content-type: application/json']
  for (const version of ['--http1.1', '--http2-prior-knowledge']) {
    const answer = await curl(version, ...json, '-d', '{}', 'http://x/nfactor.v1.Node/PollWorkload')
    assert.ok(answer.endsWith(' 200'))
    assert.deepEqual(JSON.parse(answer.slice(0, -4)), testWorkload)
    assert.equal(await curl(version, 'http://x/nfactor.v1.Node/PollWorkload?encoding=json&message=%7B%7D'), answer)
    assert.equal(await curl(version, ...json, '-H', 'content-encoding: identity', '-d', '{}', 'http://x/nfactor.v1.Node/PollWorkload'), answer)
    const refusal = await curl(version, ...json, '-d', '{"target": 9}', 'http://x/nfactor.v1.Node/SetMigrationTarget')
    assert.match(refusal, /^\{"code":"failed_precondition","message":"there is no node 9","details":\[.*\} 400$/)
    assert.equal(await curl(version, 'http://x/healthz'), 'ok\n 200')
    assert.equal(await curl(version, 'http://x/readyz'), 'ready\n 200')
    peer.isReady = false
    assert.equal(await curl(version, 'http://x/readyz'), 'not ready\n 503')
    assert.equal(await curl(version, ...json, '-d', '{}', 'http://x/grpc.health.v1.Health/Check'), '{"status":"NOT_SERVING"} 200')
    peer.isReady = true
    assert.equal(await curl(version, ...json, '-d', '{"service": "nfactor.v1.Node"}', 'http://x/grpc.health.v1.Health/Check'),
      '{"status":"SERVING"} 200')
    assert.match(await curl(version, ...json, '-d', '{"service": "other"}', 'http://x/grpc.health.v1.Health/Check'), /"not_found".* 404$/)
    assert.match(await curl(version, ...json, '-d', '{}', 'http://x/nfactor.v1.Node/Shutdown'), /"unimplemented".* 501$/)
    assert.match(await curl(version, ...json, '-d', '{}', 'http://x/nfactor.v1.Node/NoSuch'), /"unimplemented".* 404$/)
    assert.match(await curl(version, ...json, '-d', '{', 'http://x/nfactor.v1.Node/PollWorkload'), /"invalid_argument".* 400$/)
    assert.match(await curl(version, ...json, '-d', '{"limit": -1}', 'http://x/nfactor.v1.Node/ListFlows'), /"invalid_argument".* 400$/)
    assert.match(await curl(version, '-d', '{}', 'http://x/nfactor.v1.Node/PollWorkload'), /application\/json.* 415$/s)
  }
})
