/** Bounds of a machine's agent, and of how controllers wait for it: each is reached, and who is within it goes on. docs/limits.md lists them. */

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, test } from 'node:test'
import { ClusterFolder, type ProcessEntry } from './cluster-folder.ts'
import { answerLines, type LineRpcClient, LineRpcServer } from './line-rpc.ts'
import { MachineAgent, type MachineAgentLimits, type MachineState } from './machine-agent.ts'
import { readMachineConfig } from './machine-config.ts'
import { newNonce, openMachine, proofOf } from './machine-connection.ts'
import { RemoteMachine } from './remote-machine.ts'
import { sleepers } from './testing/sleepers.ts'

const root = mkdtempSync(join(tmpdir(), 'nfactor-bounds-'))
process.env['NFACTOR_DIR'] = join(root, 'far')
after(() => { rmSync(root, { recursive: true, force: true }) })

const TOKEN = 'a-token-that-nobody-guesses-in-a-test'
writeFileSync(join(root, 'token.txt'), `${TOKEN}\n`)

async function listen(server: Server): Promise<number> {
  server.listen(0, '127.0.0.1')
  cleanUps.push(() => { server.close() })
  await once(server, 'listening')
  return (server.address() as AddressInfo).port
}

interface Door {
  readonly port: number
  readonly folder: ClusterFolder
}

/** What a test leaves open when it fails would hold the process. */
const cleanUps: (() => unknown)[] = []
afterEach(async () => { for (const one of cleanUps.splice(0)) await one() })

/** An agent with bounds that are soon reached. */
async function agentWith(name: string, limits: Partial<MachineAgentLimits>): Promise<Door> {
  const probe = createServer()
  const port = await listen(probe)
  await new Promise((resolve) => { probe.close(resolve) })
  const file = join(root, `${name}.yaml`)
  writeFileSync(file, `{ cluster: ${name}, port: ${port}, token: token.txt }`)
  const agent = new MachineAgent(readMachineConfig(file), sleepers, limits)
  const ready = Promise.withResolvers<void>()
  const ended = agent.run(ready.resolve)
  await Promise.race([ready.promise, ended])
  cleanUps.push(() => {
    agent.stop()
    return ended
  })
  return { port, folder: new ClusterFolder(join(root, 'far', `${name}.machine`)) }
}

const addressOf = (port: number) => ({ name: 'two', host: '127.0.0.1', port })

async function proved(port: number): Promise<LineRpcClient> {
  const client = await openMachine(addressOf(port), TOKEN, 1)
  cleanUps.push(() => { client.close() })
  return client
}

async function opened(port: number): Promise<Socket> {
  const socket = connect({ host: '127.0.0.1', port })
  socket.on('error', () => undefined).resume()
  cleanUps.push(() => socket.destroy())
  await once(socket, 'connect')
  return socket
}

async function closed(socket: Socket): Promise<void> {
  if (!socket.closed) await once(socket, 'close')
}

/** Again and again until it can be done: room is made when the other side has noticed. */
async function eventually(what: () => Promise<unknown>): Promise<void> {
  for (const end = performance.now() + 30_000; performance.now() < end;) {
    if (await what().then(() => true, () => false)) return
  }
  await what()
}

test('connections to an agent are bounded: others are closed, and come in when there is room again', async () => {
  const { port } = await agentWith('connections', { connections: 3 })
  const client = await proved(port)
  const others = [await opened(port), await opened(port)]
  await closed(await opened(port))
  await assert.rejects(openMachine(addressOf(port), TOKEN, 1), { code: 'NF_MACHINE' })
  assert.deepEqual(others.map(({ closed }) => closed), [false, false])
  assert.deepEqual((await client.call<MachineState>('Poll', { after: 0 })).nodes, [])
  others[0]?.destroy()
  await eventually(() => proved(port))
})

test('who does not prove in time that it has the token is left, by either side', { timeout: 30_000 }, async () => {
  const { port } = await agentWith('proof', { proofMs: 100 })
  const client = await proved(port)
  const silent = await opened(port)
  const talker = await opened(port)
  talker.write(`${JSON.stringify({ id: 1, method: 'Hello', params: {} })}\n`)
  await Promise.all([closed(silent), closed(talker)])
  assert.deepEqual((await client.call<MachineState>('Poll', { after: 0 })).nodes, [], 'it has proved it before')
  // Something that takes connections and says nothing.
  const server = createServer((socket) => {
    socket.on('error', () => undefined).resume()
    cleanUps.push(() => socket.destroy())
  })
  await assert.rejects(openMachine(addressOf(await listen(server)), TOKEN, 1, 100), { code: 'NF_MACHINE' })
})

test('connections to nodes are bounded for each controller, also those that are being made', async () => {
  const { port, folder } = await agentWith('channels', { channels: 2 })
  const one = await proved(port)
  const other = await proved(port)
  const node = new LineRpcServer(folder.nodeSocket(12), { Echo: (params) => params })
  cleanUps.push(() => { node.close() })
  await node.open()
  const make = (client = one): Promise<{ channel: number }> => client.call('Connect', { node: 12 })
  const made = await Promise.allSettled([make(), make(), make(), make()])
  assert.deepEqual(made.map(({ status }) => status), ['fulfilled', 'fulfilled', 'rejected', 'rejected'])
  await assert.rejects(make(), { code: 'NF_RPC_LIMIT', message: /there are 2 connections to nodes already/ })
  assert.equal(typeof (await make(other)).channel, 'number', 'that is another controller')
  assert.deepEqual(await one.call('Call', { channel: 2, method: 'Echo', params: { a: 1 } }), { a: 1 })
  await one.call('Disconnect', { channel: 1 })
  await eventually(() => make())
  await assert.rejects(make(), { code: 'NF_RPC_LIMIT' })
  // One that could not be made does not count.
  await other.call('Connect', { node: 99 }).catch(() => undefined)
  await make(other)
})

test('ends of processes are remembered, so many of them: the oldest are forgotten, and counted', async () => {
  const { port } = await agentWith('ends', { ends: 2 })
  const client = await proved(port)
  const member = (incarnation: number): object => ({
    kind: 'runtime', id: 11 + incarnation, name: `runtime-${incarnation}`, clusterId: 1, folder: '/somewhere', incarnation, chainVersion: 1,
    seed: 1, run: '/somewhere/run.json', nfFolder: '/somewhere', replication: 'none' })
  const pids: number[] = []
  for (let incarnation = 1; incarnation <= 4; incarnation++) {
    pids.push((await client.call<{ entry: ProcessEntry }>('Start', { term: 1, member: member(incarnation), run: {} })).entry.pid)
  }
  let state: MachineState | undefined
  for (const [index, pid] of pids.entries()) {
    await client.call('Kill', { pid, signal: 'SIGKILL' })
    do state = await client.call<MachineState>('Poll', { after: 0 })
    while (state.ended <= index)
  }
  assert.deepEqual([state?.ended, state?.ends.map(({ entry, end }) => [entry.incarnation, end?.signal])], [4, [[3, 'SIGKILL'], [4, 'SIGKILL']]])
  const { ends } = await client.call<MachineState>('Poll', { after: 3 })
  assert.deepEqual(ends.map(({ entry }) => entry.incarnation), [4])
})

test('an agent that says nothing any more is left after a while, and tried again', async () => {
  let connections = 0
  let polls = 0
  const nonce = newNonce()
  const state: MachineState = { life: 'one', processes: [], nodes: [12], ended: 0, ends: [] }
  const server = createServer((socket) => {
    cleanUps.push(() => socket.destroy())
    connections++
    answerLines(socket, {
      Hello: () => ({ nonce }),
      Prove: (params) => ({ proof: proofOf('agent', TOKEN, String(params['nonce']), nonce) }),
      // The connection stays, as to a machine that stands still.
      Poll: () => (connections === 1 && ++polls > 1 ? new Promise(() => undefined) : state),
    })
  })
  const port = await listen(server)
  const changes: [boolean, string][] = []
  const machine = new RemoteMachine({
    address: addressOf(port), token: TOKEN, clusterId: 1, folder: new ClusterFolder(join(root, 'near')), answerMs: 100,
    runtime: () => { throw new Error('nothing is started') }, onStarted: () => undefined, onEnded: () => undefined,
    onChange: (isUp, why) => { changes.push([isUp, why]) },
  })
  cleanUps.push(() => { machine.close() })
  for (const end = performance.now() + 30_000; changes.length < 3;) {
    machine.tick()
    assert.ok(performance.now() < end, JSON.stringify(changes))
    await new Promise((resolve) => { setTimeout(resolve, 5) })
  }
  assert.deepEqual(changes.map(([isUp]) => isUp), [true, false, true])
  assert.match(changes[1]?.[1] ?? '', /has not answered Poll for 100 ms/)
  assert.deepEqual([connections, machine.nodeIds()], [2, [12]])
})
