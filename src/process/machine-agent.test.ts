/**
 * The agent of a machine, with processes that only sleep: who may speak to it, what it starts and ends, what controllers hear of it, and
 * what becomes of it when either end goes away.
 */

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { ClusterFolder, type ProcessEntry } from './cluster-folder.ts'
import { callOnce, LineRpcServer } from './line-rpc.ts'
import { MachineAgent } from './machine-agent.ts'
import { readMachineConfig } from './machine-config.ts'
import { openMachine } from './machine-connection.ts'
import type { NodeEnd } from './node-launcher.ts'
import { RemoteMachine } from './remote-machine.ts'
import { sleepers } from './testing/sleepers.ts'

const root = mkdtempSync(join(tmpdir(), 'nfactor-agent-'))
process.env['NFACTOR_DIR'] = join(root, 'far')
after(() => { rmSync(root, { recursive: true, force: true }) })

const TOKEN = 'a-token-that-nobody-guesses-in-a-test'
writeFileSync(join(root, 'token.txt'), `${TOKEN}\n`)
writeFileSync(join(root, 'short.txt'), 'short\n')

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => { server.listen(0, '127.0.0.1', resolve) })
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => { server.close(resolve) })
  return port
}

function write(name: string, text: string): string {
  const file = join(root, name)
  writeFileSync(file, text)
  return file
}

async function until<T>(what: string, look: () => T | undefined | false): Promise<T> {
  for (const end = performance.now() + 30_000; ;) {
    const found = look()
    if (found !== undefined && found !== false) return found
    assert.ok(performance.now() < end, what)
    await new Promise((resolve) => { setTimeout(resolve, 5) })
  }
}

async function startAgent(name: string, port: number, more = ''): Promise<{ readonly agent: MachineAgent, readonly ended: Promise<void> }> {
  const file = write(`${name}.yaml`, `{ cluster: ${name}, port: ${port}, token: token.txt${more} }`)
  const agent = new MachineAgent(readMachineConfig(file), sleepers)
  const ready = Promise.withResolvers<void>()
  const ended = agent.run(ready.resolve)
  await Promise.race([ready.promise, ended])
  return { agent, ended }
}

const member = (clusterId: number, id: number, incarnation: number): object => ({
  kind: 'runtime', id, name: `runtime-${id - 10}`, clusterId, folder: '/somewhere/else', incarnation, chainVersion: 1, seed: 1,
  run: '/somewhere/else/run.json', nfFolder: '/somewhere/else', replication: 'none' })

test('files of agents: what is wrong is said in a line', () => {
  const fails = (text: string, code: string, message: RegExp): void => {
    assert.throws(() => new MachineAgent(readMachineConfig(write('wrong.yaml', text)), sleepers), { code, message })
  }
  fails('{ cluster: web, host: 192.0.2.1, token: token.txt }', 'NF_CONFIG_INVALID', /needs tls, or clear: true on a network that is trusted/)
  fails('{ cluster: web, token: none.txt }', 'NF_FILE_NOT_FOUND', /token file/)
  fails('{ cluster: web, token: short.txt }', 'NF_FILE_UNREADABLE', /at least 32 characters/)
  fails('{ cluster: web }', 'NF_CONFIG_INVALID', /token is missing/)
  fails('{ cluster: web, token: token.txt, tokne: 1 }', 'NF_CONFIG_INVALID', /there is no key "tokne"/)
})

test('who does not have the token does nothing, and an agent without it is not believed', async () => {
  const port = await freePort()
  const { agent, ended } = await startAgent('door', port)
  const address = { name: 'two', host: '127.0.0.1', port }
  await assert.rejects(openMachine(address, 'another-token-of-at-least-32-characters', 1), { code: 'NF_RPC_TOKEN', message: /another token/ })
  await assert.rejects(openMachine({ ...address, port: await freePort() }, TOKEN, 1), { code: 'NF_MACHINE', message: /cannot be reached/ })
  const lines = await new Promise<string>((resolve) => {
    const socket = connect({ host: '127.0.0.1', port })
    let text = ''
    socket.setEncoding('utf8').on('data', (part: string) => {
      text += part
      if (text.split('\n').length === 4) socket.end()
    }).on('close', () => { resolve(text) })
    for (const method of ['Poll', 'Start', 'Kill']) socket.write(`${JSON.stringify({ id: 1, method, params: {} })}\n`)
  })
  assert.equal(lines.match(/NF_RPC_TOKEN/g)?.length, 3, lines)
  const dropped = await new Promise<string>((resolve) => {
    const socket = connect({ host: '127.0.0.1', port }, () => { socket.write('what is this\n') })
    socket.on('error', () => undefined).resume().on('close', () => { resolve('closed') })
  })
  assert.equal(dropped, 'closed')
  // Somebody else at that address, who takes every proof.
  const liar = createServer((socket) => {
    socket.setEncoding('utf8').on('data', (text: string) => {
      const { id } = JSON.parse(text) as { id: number }
      socket.write(`${JSON.stringify({ id, result: { nonce: 'x', proof: 'y' } })}\n`)
    }).on('error', () => undefined)
  })
  await new Promise<void>((resolve) => { liar.listen(0, '127.0.0.1', resolve) })
  await assert.rejects(openMachine({ ...address, port: (liar.address() as AddressInfo).port }, TOKEN, 1),
    { code: 'NF_RPC_TOKEN', message: /does not have the cluster's token/ })
  liar.close()
  agent.stop()
  await ended
})

const noOpenssl = spawnSync('openssl', ['version']).status !== 0 && 'openssl is not here'

test('over TLS the agent is the one that the authority has signed, or it is not spoken to', { skip: noOpenssl }, async () => {
  for (const name of ['own', 'other']) {
    const { status, stderr } = spawnSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes',
      '-keyout', `${name}.key`, '-out', `${name}.pem`, '-days', '2', '-subj', `/CN=${name}`, '-addext', 'subjectAltName=IP:127.0.0.1'],
    { cwd: root, encoding: 'utf8' })
    assert.equal(status, 0, stderr)
  }
  const port = await freePort()
  const { agent, ended } = await startAgent('tls', port, ', tls: { certificate: own.pem, key: own.key }')
  const [own, other] = ['own', 'other'].map((name) => readFileSync(join(root, `${name}.pem`), 'utf8'))
  const address = { name: 'two', host: '127.0.0.1', port }
  const client = await openMachine({ ...address, authority: own }, TOKEN, 1)
  assert.deepEqual((await client.call<{ nodes: number[] }>('Poll', { after: 0 })).nodes, [])
  client.close()
  await assert.rejects(openMachine({ ...address, authority: other }, TOKEN, 1),
    { code: 'NF_MACHINE', message: /cannot be reached: .*certificate/ })
  await assert.rejects(openMachine(address, TOKEN, 1), { code: 'NF_MACHINE' })
  agent.stop()
  await ended
})

test('lives are started once, their ends are told, and nodes are spoken to through the agent', async () => {
  const port = await freePort()
  const first = await startAgent('work', port)
  const near = new ClusterFolder(join(root, 'near'))
  near.create()
  near.write(near.runFile(1), '{ "chain": ["monitor"] }')
  const started: ProcessEntry[] = []
  const gone: [number, NodeEnd | undefined][] = []
  const changes: boolean[] = []
  const machine = new RemoteMachine({
    address: { name: 'two', host: '127.0.0.1', port }, token: TOKEN, clusterId: 5, folder: near,
    runtime: (id, incarnation) => member(5, id, incarnation) as never,
    onStarted: (entry) => { started.push(entry) }, onEnded: (entry, end) => { gone.push([entry.incarnation, end]) },
    onChange: (isUp) => { if (changes.at(-1) !== isUp) changes.push(isUp) },
  })
  const timer = setInterval(() => { machine.tick() }, 10)
  const far = new ClusterFolder(join(root, 'far', 'work.machine'))
  const life = (incarnation: number): ProcessEntry | undefined => [...machine.processes.values()].find((one) => one.incarnation === incarnation)
  try {
    await until('it answers', () => changes.at(-1))
    machine.startRuntime(3, { id: 12, incarnation: 7, chain: 1 })
    machine.startRuntime(3, { id: 12, incarnation: 7, chain: 1 })
    await until('it is started', () => life(7))
    assert.deepEqual([started.map(({ incarnation }) => incarnation), machine.startsOf('runtime-2'), machine.running()],
      [[7], 1, [{ id: 12, incarnation: 7 }]])
    // A former leader is not heard; another start of the same life, of which nobody knows any more, does nothing.
    machine.startRuntime(2, { id: 14, incarnation: 8, chain: 1 })
    const agent = await openMachine({ name: 'two', host: '127.0.0.1', port }, TOKEN, 5)
    assert.deepEqual(await agent.call('Start', { term: 3, member: member(5, 12, 7), run: {} }), { entry: null })
    assert.deepEqual(await agent.call('Start', { term: 2, member: member(5, 14, 8), run: {} }), { entry: null })
    await assert.rejects(agent.call('Start', { term: 3, member: member(6, 14, 9), run: {} }), { code: 'NF_MACHINE' })
    const elsewhere = { ...member(5, 14, 9), name: '../x' }
    await assert.rejects(agent.call('Start', { term: 3, member: elsewhere, run: {} }), { code: 'NF_CONFIG_INVALID' })
    await assert.rejects(openMachine({ name: 'two', host: '127.0.0.1', port }, TOKEN, 6),
      { code: 'NF_MACHINE', message: /runs another cluster/ })

    const node = new LineRpcServer(far.nodeSocket(12), { Echo: (params) => params, Fail: () => { throw new Error('no') } })
    await node.open()
    await until('its socket is seen', () => machine.nodeIds().includes(12))
    const client = await machine.connect(12)
    let closed = 0
    client.onClose = () => { closed++ }
    assert.deepEqual(await client.call('Echo', { text: 'ä\n', list: [1, { a: null }] }), { text: 'ä\n', list: [1, { a: null }] })
    await assert.rejects(client.call('Fail'), { code: 'NF_INTERNAL' })
    await assert.rejects(machine.connect(99), { code: 'NF_NODE_GONE' })
    node.close()
    await assert.rejects(async () => { for (;;) await client.call('Echo') }, { code: 'NF_NODE_GONE' })
    assert.equal(closed, 1)

    far.write(far.noteFile(7), 'what it was running')
    assert.ok(machine.kill((life(7) as ProcessEntry).pid, 'SIGKILL'))
    await until('its end is told', () => gone.length === 1)
    assert.deepEqual([gone[0]?.[0], gone[0]?.[1]?.signal, machine.running()], [7, 'SIGKILL', []])
    assert.equal(readFileSync(near.noteFile(7), 'utf8'), 'what it was running')

    machine.startRuntime(4, { id: 14, incarnation: 9, chain: 1 })
    await until('another is started', () => life(9))
    assert.deepEqual(await agent.call('End', {}), { killed: 0 })
    await until('all have ended', () => machine.running().length === 0)
    agent.close()
    first.agent.stop()
    await first.ended
    await until('the agent is gone', () => changes.at(-1) === false)
    assert.equal(machine.kill(1, 'SIGTERM'), false)
    const second = await startAgent('work', port)
    await until('its next life answers', () => changes.at(-1))
    second.agent.stop()
    await second.ended
  } finally {
    clearInterval(timer)
    machine.close()
  }
})

test('an agent that cannot listen ends, and is in nobody\'s way', async () => {
  const other = createServer()
  await new Promise<void>((resolve) => { other.listen(0, '127.0.0.1', resolve) })
  const { port } = other.address() as AddressInfo
  await assert.rejects(startAgent('busy', port), { code: 'NF_PORT_BUSY' })
  const { path, supervisorSocket } = ClusterFolder.ofCluster('busy.machine')
  await assert.rejects(callOnce(supervisorSocket, 'Any'), { code: 'NF_NODE_GONE' })
  assert.equal(existsSync(path), false)
  await new Promise((resolve) => { other.close(resolve) })
  const { agent, ended } = await startAgent('busy', port)
  agent.stop()
  await ended
})
