/**
 * The public API of a cluster of processes: curl, gRPC, TCP with token and TLS, health; whichever controller is asked; bytes that are no call
 * cost no packet; what cannot listen does not start.
 */

import assert from 'node:assert/strict'
import { execFile, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { connect, createServer, type AddressInfo, type Server } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { Random } from '../base/random.ts'
import { ClusterFolder } from '../process/cluster-folder.ts'
import { eventOf } from '../rpc/event-message.ts'
import { Health, HealthCheckResponse_ServingStatus } from '../rpc/generated/grpc/health/v1/health_pb.ts'
import { Controller } from '../rpc/generated/nfactor/v1/controller_pb.ts'
import { Node } from '../rpc/generated/nfactor/v1/node_pb.ts'
import { CaptureParser } from '../wire/capture-parser.ts'
import { CaptureRecorder } from '../wire/capture-recorder.ts'
import { RpcClient, type RpcClientOptions } from '../rpc/rpc-client.ts'
import { TestCluster } from './test-cluster.ts'

const skip = process.platform === 'linux' ? false : 'ports to real links need Linux'
const has = (program: string, option: string): boolean => spawnSync(program, [option]).status === 0
const noCurl = !has('curl', '--version') && 'curl is not here'
const noOpenssl = !has('openssl', 'version')

function listenAt(port: number): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer().on('error', reject).listen(port, '127.0.0.1', () => { resolve(server) })
  })
}

/** A port that is free, and the next one too. */
async function freePorts(): Promise<number> {
  for (let tries = 0; ; tries++) {
    const first = await listenAt(0)
    const { port } = first.address() as AddressInfo
    const second = await listenAt(port + 1).catch(() => undefined)
    first.close()
    second?.close()
    if (second !== undefined) return port
    assert.ok(tries < 20)
  }
}

/** Places where `found` lacks something that `wanted` has, and that is not null. */
function lacks(wanted: unknown, found: unknown, place = ''): string[] {
  if (typeof wanted !== 'object' || wanted === null) return wanted === null || typeof found === typeof wanted ? [] : [place]
  if (typeof found !== 'object' || found === null) return [place]
  return Object.entries(wanted).flatMap(([key, value]) => lacks(value, (found as Record<string, unknown>)[key], `${place}.${key}`))
}

/** Makes a certificate for 127.0.0.1 in a cluster's folder; what the file says of it. */
function certificate(cluster: TestCluster): string {
  if (noOpenssl) return ''
  const { status, stderr } = spawnSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes',
    '-days', '2', '-keyout', 'api.key', '-out', 'api.pem', '-subj', '/CN=api', '-addext', 'subjectAltName=IP:127.0.0.1'],
  { cwd: cluster.folder, encoding: 'utf8' })
  assert.equal(status, 0, stderr)
  return ', tls: { certificate: api.pem, key: api.key }'
}

test('the API of a cluster', { skip, timeout: 120_000 }, async (context) => {
  const cluster = new TestCluster('open')
  const port = await freePorts()
  const tls = certificate(cluster)
  const clients: RpcClient[] = []
  context.after(() => {
    for (const client of clients) client.close()
    cluster.close()
  })
  cluster.must('up', cluster.write('cluster.yaml', `
name: open
chain: [monitor]
controllers: 2
ingress: { type: generator, flows: 40, packetsPerSecond: 3000 }
egress: { type: sink, flows: 40 }
runtimes: 2
limits: { flows: 4096, packets: 2048 }
api: { port: ${port}${tls} }
`), '--detach')
  const folder = new ClusterFolder(cluster.runFolder)
  const at = (socket: string, options?: RpcClientOptions): RpcClient => {
    clients.push(new RpcClient({ socket }, options))
    return clients.at(-1) as RpcClient
  }
  const json = ['-H', 'content-type: application/json']
  const curl = async (...args: string[]): Promise<string> =>
    (await promisify(execFile)('curl', ['-sS', '--max-time', '10', '-w', ' %{http_code}', ...args])).stdout
  const wrong = async (): Promise<unknown[]> => {
    const { received, lost, duplicated, reordered, corrupted, stale } = (await cluster.status()).nodes
      .find(({ name }) => name === 'egress')?.status?.traffic as Record<string, number>
    assert.ok(received > 0)
    return [lost, duplicated, reordered, corrupted, stale]
  }

  await context.test('curl, at UNIX sockets', { skip: noCurl }, async () => {
    const { pid } = folder.livingProcesses().find(({ name }) => name === 'runtime-1') ?? { pid: 0 }
    // Others come and go as the process likes: those of its thread pool, of signals.
    const workers = (): number => readdirSync(`/proc/${pid}/task`).filter((thread) => {
      const name = `/proc/${pid}/task/${thread}/comm`
      return existsSync(name) && readFileSync(name, 'utf8').trim() === 'WorkerThread'
    }).length
    const status = await cluster.status()
    for (const id of [1, 2]) {
      const answer = await curl('--unix-socket', folder.controllerApi(id), ...json, '-d', '{}',
        'http://nfactor/nfactor.v1.Controller/GetCluster')
      assert.match(answer, /\} 200$/)
      const found = JSON.parse(answer.slice(0, -4)) as object
      assert.deepEqual(lacks(status, found), [])
      assert.deepEqual(Object.entries(found).filter(([, value]) => value === 'controller-1' || value === 'controller-2'),
        [['leader', status.leader]])
    }
    assert.equal(workers(), 0, 'who is not called has no thread for it')
    const workload = await curl('--unix-socket', folder.nodeApi(11), ...json, '-d', '{}', 'http://nfactor/nfactor.v1.Node/PollWorkload')
    assert.match(workload, /^\{"busyUs":.*"flows":20,.*\} 200$/)
    assert.equal(workers(), 1)
    for (const [path, pattern] of [['healthz', /^ok\n 200$/], ['readyz', /^ready\n 200$/]] as const) {
      for (const socket of [folder.nodeApi(11), folder.controllerApi(1)]) {
        assert.match(await curl('--unix-socket', socket, `http://nfactor/${path}`), pattern)
      }
    }
    const refused = await curl('--unix-socket', folder.controllerApi(1), ...json, '-d', '{"node": "runtme-1"}',
      'http://nfactor/nfactor.v1.Controller/Drain')
    assert.match(refused, /"failed_precondition".*"NF_CLUSTER".*Did you mean runtime-1\?.* 400$/)
    for (const name of readdirSync(cluster.runFolder)) assert.equal(statSync(join(cluster.runFolder, name)).mode & 0o077, 0, name)
  })

  await context.test('gRPC: flows, orders, events as they come', async () => {
    const controller = at(folder.controllerApi(1), { protocol: 'grpc' }).service(Controller)
    const other = at(folder.controllerApi(2)).service(Controller)
    const client = at(folder.nodeApi(11), { protocol: 'grpc' })
    const node = client.service(Node)
    const { total, flows: [flow] } = await controller.listFlows({ filter: 'udp', limit: 1, state: true, node: 'runtime-1' })
    assert.deepEqual([total, flow.node, flow.owner, Object.keys(flow.state ?? {})], [20, 'runtime-1', 11, ['monitor']])
    const again = await node.getFlow({ flow: flow.flow })
    assert.deepEqual([again.a, again.b, Object.keys(again.state ?? {})], [flow.a, flow.b, ['monitor']])
    await assert.rejects(node.getFlow({ flow: 5 }), { code: 'NF_CLUSTER' })
    const health = await client.service(Health).check({ service: 'nfactor.v1.Node' })
    assert.equal(health.status, HealthCheckResponse_ServingStatus.SERVING)

    const calledOff = new AbortController()
    const followed = (async () => {
      for await (const event of other.events({ limit: 0, follow: true }, { signal: calledOff.signal })) return eventOf(event)
    })()
    const past: string[] = []
    for await (const { event } of other.events({})) past.push(event)
    assert.ok(past.includes('cluster-ready') && past[0] === 'cluster-starting')
    assert.deepEqual((await controller.migrate({ from: 'runtime-1', to: '12', number: 5 })).number, 5)
    const ordered = await followed
    assert.deepEqual([ordered?.event, ordered?.node, ordered?.target], ['migration-ordered', 'runtime-1', 'runtime-2'])
    assert.equal(ordered?.number, past.length + 1)
    calledOff.abort()
    assert.deepEqual({ ...await other.scale({ desired: 2 }) }, { $typeName: 'nfactor.v1.ScaleState', desired: 2, isAutomatic: false })
    for (const request of [{}, { desired: 2, isAutomatic: true }]) await assert.rejects(other.scale(request), { code: 'NF_USAGE' })
    await assert.rejects(other.update({ action: { case: 'rollOut', value: { run: { chain: ['monitr'] } } } }),
      { code: 'NF_NF_UNKNOWN', message: 'run: there is no network function "monitr"' })
    await assert.rejects(other.update({ action: { case: 'pause', value: {} } }), { code: 'NF_CLUSTER' })
  })

  await context.test('captures, of a node and by way of a controller, in every protocol', async () => {
    const filter = { protocol: 'udp', address: '198.18.0.5' }
    for (const [protocol, frames] of [['connect', 30], ['json', 20], ['grpc', 10]] as const) {
      const node = at(folder.nodeApi(1), { protocol }).service(Node)
      const controller = at(folder.controllerApi(2), { protocol }).service(Controller)
      for (const chunks of [node.capture({ filter, frames, port: 'external', snapBytes: 40 }),
        controller.capture({ node: 'ingress', capture: { filter, frames, port: 'external', snapBytes: 40 } })]) {
        const capture = new CaptureRecorder()
        const parser = new CaptureParser(capture)
        for await (const { bytes } of chunks) parser.push(bytes)
        parser.end()
        assert.equal(capture.packets.length, frames)
        assert.ok(capture.packets.every(({ bytes, originalLength }) => bytes.length === 40 && originalLength === 60))
      }
    }
    const node = at(folder.nodeApi(11)).service(Node)
    const begin = performance.now()
    let bytes = 0
    for await (const chunk of node.capture({ seconds: 0.5, port: 'link egress' })) bytes += chunk.bytes.length
    assert.ok(bytes > 1000 && performance.now() - begin >= 500)
    const read = async (chunks: AsyncIterable<unknown>): Promise<void> => { for await (const _ of chunks); }
    await assert.rejects(read(node.capture({ port: 'external' })), { code: 'NF_CLUSTER', message: 'runtime-1 has no port "external"' })
    await assert.rejects(read(node.capture({ port: 'runtime-9' })), { code: 'NF_CLUSTER' })
    await assert.rejects(read(node.capture({ filter: { address: 'here' } })), { code: 'NF_CONFIG_INVALID' })
  })

  await context.test('traces: the way of packets over all nodes, in the order of time', async () => {
    for (const protocol of ['json', 'grpc'] as const) {
      const trace = at(folder.controllerApi(1), { protocol }).service(Controller)
        .trace({ trace: { packets: 2, seconds: 20, filter: { address: '198.18.0.7' } } })
      const ways = new Map<string, string[]>()
      let last = 0
      for await (const { timeUs, node, direction, port: name, length, bytes, details } of trace) {
        assert.ok(timeUs >= last && Math.abs(timeUs / 1000 - Date.now()) < 60_000)
        last = timeUs
        const packet = String(details?.packet)
        ways.set(packet, [...ways.get(packet) ?? [], `${node} ${direction} ${name}`.trim()])
        if (name !== '') assert.deepEqual([length, bytes.length], [60, 60])
      }
      assert.equal(ways.size, 2)
      for (const hops of ways.values()) {
        const runtime = /runtime-[12]/.exec(hops.join())?.[0]
        assert.deepEqual(hops, ['ingress in external', `ingress out link ${runtime}`, `${runtime} in link ingress`, `${runtime} chain`,
          `${runtime} out link egress`, `egress in link ${runtime}`, 'egress out external'])
      }
    }
    const seen: string[] = []
    for await (const { direction, summary } of at(folder.nodeApi(11)).service(Node).tracePacket({ packets: 3, seconds: 20 })) {
      if (direction === 'chain') seen.push(summary)
    }
    assert.ok(seen.length >= 3 && seen.every((text) => text.startsWith('monitor forward (packets +1')), seen.join('\n'))
  })

  await context.test('who goes is watched for no more; more than a few at a time are refused', async () => {
    const node = at(folder.nodeApi(12)).service(Node)
    const gone = Array.from({ length: 8 }, () => new AbortController())
    for (const { signal } of gone) {
      await new Promise<void>((resolve, reject) => {
        const read = async (): Promise<void> => { for await (const _ of node.capture({ filter: { protocol: 'tcp' } }, { signal })) resolve() }
        read().catch(reject)
      })
    }
    const another = async (): Promise<boolean> => {
      for await (const _ of node.capture({ frames: 1 }));
      return true
    }
    await assert.rejects(another(), { code: 'NF_CLUSTER', message: 'runtime-2 has 8 captures and traces already' })
    for (const controller of gone) controller.abort()
    await cluster.until('there is room again', () => another().catch(() => false), 30_000)
  })

  await context.test('bytes that are no call cost no packet', async () => {
    const random = new Random(7)
    const before = await cluster.status()
    const garbage = Array.from({ length: 60 }, (_, i) => Buffer.concat([Buffer.from(i % 2 === 0 ? '' : 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
      Buffer.from(Array.from({ length: 1 + random.below(20_000) }, () => random.below(256)))]))
    // Of the switch, these are the first bytes ever.
    const nodes = [1, 11].map((id) => ({ id, node: at(folder.nodeApi(id)).service(Node) }))
    await Promise.all(nodes.flatMap(({ id, node }) => garbage.map(async (bytes) => {
      const socket = connect(folder.nodeApi(id)).on('error', () => undefined)
      const isClosed = new Promise((resolve) => { socket.on('close', resolve) })
      socket.resume().end(bytes)
      // Some look like the beginning of something, which the server waits for: it has had its turn when it answers who comes behind them.
      const isPassed = once(socket, 'finish').then(() => node.getStatus({}), () => isClosed)
      await Promise.race([isClosed, isPassed])
      socket.destroy()
      await isClosed
    })))
    const after = await cluster.status()
    const received = ({ nodes }: typeof after): number => nodes.find(({ name }) => name === 'egress')?.workload?.received ?? 0
    assert.ok(received(after) > received(before) + 100)
    const lives = ({ nodes }: typeof after): unknown => nodes.map(({ incarnation, pid }) => [incarnation, pid])
    assert.deepEqual(lives(after), lives(before))
    assert.deepEqual(await wrong(), [0, 0, 0, 0, 0])
    assert.equal((await at(folder.nodeApi(1)).service(Node).getStatus({})).id, 1)
  })

  await context.test('TCP: the token is demanded, and the certificate shown', async () => {
    const scheme = tls === '' ? 'http' : 'https'
    const trust = tls === '' ? {} : { tls: { authority: readFileSync(join(cluster.folder, 'api.pem')) } }
    const url = `${scheme}://127.0.0.1:${port}`
    const token = readFileSync(folder.tokenFile, 'utf8').trim()
    const answers = async (address: string, given: object): Promise<string> => {
      const client = new RpcClient({ url: address, ...given }, { protocol: 'json' })
      try {
        return (await client.service(Controller).getCluster({})).name
      } finally {
        client.close()
      }
    }
    assert.equal(await answers(url, { token, ...trust }), 'open')
    assert.equal(await answers(`${scheme}://127.0.0.1:${port + 1}`, { tokenFile: folder.tokenFile, ...trust }), 'open')
    for (const given of [{}, { token: '' }, { token: `${token}x` }, { token: token.slice(1) }]) {
      await assert.rejects(answers(url, { ...given, ...trust }), { code: 'NF_RPC_TOKEN' })
    }
    if (tls !== '') {
      await assert.rejects(answers(url, { token }), { code: 'NF_NODE_GONE' }, 'a certificate that nobody we know has signed')
      await assert.rejects(answers(url.replace('https', 'http'), { token }), { code: 'NF_NODE_GONE' })
    }
  })

  await context.test('when the leader is killed another one answers', async () => {
    const { leader, term } = await cluster.status()
    const [own, other] = leader === 'controller-1' ? [1, 2] : [2, 1]
    const token = readFileSync(folder.tokenFile, 'utf8')
    const client = at(folder.controllerApi(other))
    process.kill(folder.livingProcesses().find(({ name }) => name === leader)?.pid ?? 0, 'SIGKILL')
    const after = await client.service(Controller).getCluster({}, { timeoutMs: 12_000 })
    assert.ok(after.term > term)
    // The one that was killed comes back, at its socket, with the same token.
    const back = at(folder.controllerApi(own))
    await cluster.until('it answers', () => back.service(Controller).getCluster({}).then(({ name }) => name === 'open', () => false))
    assert.equal(readFileSync(folder.tokenFile, 'utf8'), token)
    assert.deepEqual(await wrong(), [0, 0, 0, 0, 0])
  })

  await context.test('a cluster that cannot do its work is not ready, and says so', async () => {
    const client = at(folder.controllerApi(1))
    const isReady = async (): Promise<boolean> =>
      (await client.service(Health).check({})).status === HealthCheckResponse_ServingStatus.SERVING
    await cluster.until('it is ready', isReady)
    await client.service(Controller).kill({ node: 'egress', signal: 'SIGSTOP' })
    await cluster.until('it is not', async () => !await isReady())
    await cluster.until('the switch has been replaced, and it is again', isReady)
  })

  await context.test('it ends the cluster, and nothing is left', async () => {
    await at(folder.controllerApi(1)).service(Controller).down({})
    const end = performance.now() + 10_000
    while (existsSync(cluster.runFolder)) {
      assert.ok(performance.now() < end, 'the folder is still there')
      await new Promise((resolve) => { setTimeout(resolve, 20) })
    }
  })
})

test('an API that cannot listen, or should not, does not start', { skip, timeout: 30_000 }, async (context) => {
  const cluster = new TestCluster('shut')
  const port = await freePorts()
  const server = await listenAt(port + 1)
  context.after(() => {
    server.close()
    cluster.close()
  })
  for (const [api, error] of [
    [`{ port: ${port} }`, new RegExp(`^error NF_PORT_BUSY: somebody listens at 127\\.0\\.0\\.1:${port + 1} already.*api\\.port`)],
    [`{ port: ${port}, host: 0.0.0.0 }`, /^error NF_CONFIG_INVALID: .*shut\.yaml:3:\d+: api.* needs tls/],
    [`{ port: ${port}, tls: { certificate: none.pem, key: none.key } }`, /^error NF_FILE_NOT_FOUND: .*none\.pem, which api\.tls names/],
  ] as const) {
    const { status, stderr } = cluster.call('up', cluster.write('shut.yaml', `name: shut\ncontrollers: 2\napi: ${api}\n`))
    assert.equal(status, 1)
    assert.match(stderr, error)
    assert.equal(stderr.trim().split('\n').length, 1, stderr)
    assert.ok(!existsSync(cluster.runFolder))
  }
})
