/**
 * Where packets go in a running cluster: traces and captures of real processes. The second test needs privileges for its namespaces.
 */

import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'node:test'
import { openCaptureReader } from '../ports/capture-file-reader.ts'
import { networkSkip, TestNetwork } from '../ports/test-network.ts'
import { CaptureRecorder } from '../wire/capture-recorder.ts'
import { TestCluster } from './test-cluster.ts'

const linux = process.platform === 'linux' ? false : 'ports to real links need Linux'
const hasTshark = spawnSync('tshark', ['--version']).error === undefined

interface Hop { readonly us: number, readonly node: string, readonly what: string, readonly at: string, readonly reason?: string }
interface Report {
  readonly packets: readonly { readonly packet: string, readonly end: string, readonly flow: number, readonly hops: readonly Hop[] }[]
  readonly moves: readonly { readonly from: string, readonly message: string, readonly flow: number, readonly epoch: number }[]
  readonly lost: number
}

/** Traces while something is done, once the trace is on. */
async function traceWhile(cluster: TestCluster, args: readonly string[], act: () => Promise<unknown>): Promise<Report> {
  const child = spawn(process.execPath, cluster.arguments('trace', ...args, '--json'),
    { env: cluster.environment, stdio: ['ignore', 'pipe', 'pipe'] })
  let text = ''
  child.stdout.setEncoding('utf8').on('data', (part: string) => { text += part })
  const closed = new Promise((resolve) => { child.on('close', resolve) })
  try {
    await Promise.race([new Promise((resolve) => { child.stderr.once('data', resolve) }), closed])
    await act()
    await closed
  } finally {
    child.kill()
  }
  return JSON.parse(text) as Report
}

test('traces and captures of a cluster of processes', { skip: linux, timeout: 120_000 }, async (context) => {
  const cluster = new TestCluster('watched')
  context.after(() => { cluster.close() })
  const file = cluster.write('cluster.yaml', `
name: watched
chain:
  - monitor
  - { nf: firewall, config: { default: accept, rules: [drop udp from 198.18.0.3] } }
ingress: { type: generator, flows: 8, packetsPerSecond: 400 }
egress: { type: sink, flows: 8 }
runtimes: 2
limits: { flows: 4096, packets: 2048 }
`)
  cluster.must('up', file, '--detach')
  await cluster.until('all flows are open', async () => (await cluster.flows('udp')).length === 8)

  await context.test('a packet is followed through all nodes', () => {
    const report = JSON.parse(cluster.must('trace', 'udp', 'host', '198.18.0.5', '--packets', '2', '--json')) as Report
    assert.deepEqual(report.packets.map(({ end }) => end), ['sent', 'sent'])
    for (const { hops, packet } of report.packets) {
      assert.match(packet, /^udp 198\.18\.0\.5:1024 198\.19\.0\.1:5001 #/)
      const runtime = hops[2]?.node ?? ''
      assert.match(runtime, /^runtime-[12]$/)
      assert.deepEqual(hops.map(({ node, at }) => [node, at]),
        [['ingress', 'in'], ['ingress', 'out'], [runtime, 'in'], [runtime, 'chain'], [runtime, 'out'], ['egress', 'in'], ['egress', 'out']])
      assert.ok(hops.every(({ us }, i) => us >= (hops[i - 1]?.us ?? 0)), 'in the order of time')
      assert.match(hops[3]?.what ?? '', /^monitor forward \(packets \+1, bytes \+60\); firewall forward, epoch \d+$/)
      assert.match(hops[6]?.what ?? '', /^out of the external port, 02:4e:46:00:00:01 > 02:4e:46:00:00:02$/)
    }
    assert.equal(report.lost, 0)
  })

  await context.test('a packet that a rule drops says where and why', () => {
    const text = cluster.must('trace', '198.18.0.3', '--packets', '1')
    assert.match(text, /runtime-[12] +monitor forward \(packets \+1, bytes \+60\); firewall drop.*; dropped: firewall-\S+/)
    assert.match(text, /\n1 packet: 1 dropped\n$/)
  })

  await context.test('a flow that moves says so', async () => {
    const [flow] = await cluster.flows('198.18.0.5')
    assert.ok(flow !== undefined)
    const to = flow.node === 'runtime-1' ? 'runtime-2' : 'runtime-1'
    const report = await traceWhile(cluster, ['198.18.0.5', '--packets', '10000', '--seconds', '3'], async () => {
      const before = (await cluster.flows('198.18.0.5'))[0]?.packets ?? 0
      await cluster.until('it has packets', async () => ((await cluster.flows('198.18.0.5'))[0]?.packets ?? 0) > before + 5)
      await cluster.ask('Migrate', { from: flow.node, to })
    })
    const chains = report.packets.flatMap(({ hops }) => hops.filter(({ at, what }) => at === 'chain' && what.includes('forward')))
    assert.deepEqual(chains.map(({ node }) => node).filter((node, i, all) => node !== all[i - 1]), [flow.node, to])
    assert.match(chains.at(-1)?.what ?? '', new RegExp(`epoch ${flow.epoch + 1}`))
    const of = report.moves.filter((move) => move.flow === flow.flow)
    for (const message of ['RerouteFlow', 'InstallFlow']) {
      assert.ok(of.some((move) => move.message === message && move.from === flow.node), message)
    }
    assert.ok(report.packets.slice(0, -1).every(({ end }) => end === 'sent' || end === 'under way'))
  })

  await context.test('a capture is read by our own reader and by tshark', async () => {
    const [flow] = await cluster.flows('198.18.0.5')
    cluster.must('capture', flow?.node ?? '', '--filter', 'udp', '--packets', '40', '--seconds', '10', '--out', 'one.pcapng')
    const path = join(cluster.folder, 'one.pcapng')
    const capture = new CaptureRecorder()
    const ending = await (await openCaptureReader(path)).readInto(capture)
    assert.equal(ending.reason, '')
    assert.equal(capture.packets.length, 40)
    assert.deepEqual([capture.interfaces.length, capture.packets[0]?.bytes.length], [2, 60])
    if (!hasTshark) return
    const fields = ['frame.interface_name', 'frame.packet_flags_direction', 'ip.src', 'frame.comment']
    const { stdout, status } = spawnSync('tshark', ['-r', path, '-T', 'fields', ...fields.flatMap((field) => ['-e', field])],
      { encoding: 'utf8' })
    assert.equal(status, 0)
    const rows = stdout.trimEnd().split('\n').map((line) => line.split('\t'))
    assert.equal(rows.length, 40)
    assert.ok(rows.every(([name, direction]) => (name === 'link ingress' ? direction === '0x00000001' : direction === '0x00000002')))
    assert.ok(rows.some(([name]) => name === 'link egress'))
  })

  await context.test('why frames are dropped stands with them; - is standard output', () => {
    const dropping = cluster.must('trace', '198.18.0.3', '--packets', '1').match(/runtime-[12]/)?.[0] ?? ''
    const { status, stdout, stderr } = cluster.call('capture', dropping, '--port', 'link', 'ingress', '--filter', 'host', '198.18.0.3',
      '--packets', '3', '--seconds', '10', '--out', '-', '--name', 'watched')
    assert.equal(status, 0, stderr)
    assert.match(stdout, /dropped: firewall-/)
    assert.match(stderr, /^3 frames of runtime-[12] \(link ingress\) in standard output\n$/)
  })

  await context.test('what there is not is one clear line', () => {
    for (const [args, error] of [
      [['capture', 'runtime-9'], /^error NF_CLUSTER: there is no node "runtime-9"\. Did you mean runtime-\d\? .*\n$/],
      [['capture', 'runtime-1', '--port', 'external'], /^error NF_CLUSTER: runtime-1 has no port "external"\. Its ports are .*\n$/],
      [['capture', 'ingress', '--port', 'door'], /^error NF_USAGE: "door" is no port\. .*\n$/],
      [['capture', 'ingress', '--out', 'a.txt'], /^error NF_USAGE: a\.txt is no name of a pcapng file\. .*\n$/],
      [['trace', 'host', 'here'], /^error NF_CONFIG_INVALID: flow filter: here is no IP address\. .*\n$/],
    ] as const) {
      const { stderr, status } = cluster.call(...args, '--name', 'watched')
      assert.match(stderr, error)
      assert.notEqual(status, 0)
    }
  })
})

test('a trace over two namespaces: a ping there and back', { skip: networkSkip(), timeout: 120_000 }, async (context) => {
  const network = new TestNetwork()
  const cluster = new TestCluster('pinged')
  context.after(() => {
    cluster.close()
    network.close()
  })
  const [client, middle, server] = [network.addNamespace(), network.addNamespace(), network.addNamespace()]
  network.addVeth(client, 'c0', middle, 'in')
  network.addVeth(server, 's0', middle, 'out')
  network.addAddresses(client, 'c0', '10.78.0.1/24')
  network.addAddresses(server, 's0', '10.78.0.2/24')
  const file = cluster.write('cluster.yaml', `
name: pinged
chain: [monitor, { nf: firewall, config: { default: accept, rules: [drop udp to port 9999] } }]
ingress: { type: af-packet, interface: in, namespace: ${middle} }
egress: { type: af-packet, interface: out, namespace: ${middle} }
runtimes: 1
limits: { flows: 4096, packets: 2048 }
`)
  cluster.must('up', file, '--detach')
  const send = "const s = require('dgram').createSocket('udp4'); let n = 0; setInterval(() => { s.send('x' + n++, 9999, '10.78.0.2'); " +
    "if (n > 80) process.exit() }, 50)"
  const report = await traceWhile(cluster, ['10.78.0.2', '--packets', '40', '--seconds', '4'], async () => {
    const dropped = spawn('ip', ['netns', 'exec', client, process.execPath, '-e', send])
    network.run(client, 'ping', '-c', '20', '-i', '0.15', '-W', '2', '10.78.0.2')
    await new Promise((resolve) => { dropped.on('close', resolve) })
  })
  const pings = report.packets.filter(({ packet }) => packet.startsWith('icmp'))
  assert.ok(pings.some(({ hops, end }) => hops[0]?.node === 'ingress' && hops.at(-1)?.node === 'egress' && end === 'sent'))
  assert.ok(pings.some(({ hops, end }) => hops[0]?.node === 'egress' && hops.at(-1)?.node === 'ingress' && end === 'sent'))
  const drop = report.packets.find(({ packet }) => packet.includes(':9999'))
  assert.equal(drop?.end, 'dropped')
  assert.deepEqual([drop.hops.at(-1)?.node, drop.hops.at(-1)?.at], ['runtime-1', 'chain'])
  assert.match(drop.hops.at(-1)?.reason ?? '', /^firewall-/)
})
