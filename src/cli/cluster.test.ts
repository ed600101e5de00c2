/**
 * A cluster of processes from one command, with made traffic: nothing is lost while flows move and runtimes are drained; what is killed
 * comes back as another life; nothing is left behind. No privilege is needed.
 */

import assert from 'node:assert/strict'
import { existsSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { ClusterFolder, isRunning } from '../process/cluster-folder.ts'
import type { ClusterFlow, ClusterStatus } from '../process/operator.ts'
import { flowSizeAfter, flowSizeBefore } from './demo-nfs.ts'
import { TestCluster } from './test-cluster.ts'

const skip = process.platform === 'linux' ? false : 'ports to real links need Linux'

interface SinkCounts {
  readonly received: number
  readonly [count: string]: unknown
}

const nodeOf = (status: ClusterStatus, name: string): ClusterStatus['nodes'][number] => {
  const node = status.nodes.find((one) => one.name === name)
  assert.ok(node !== undefined)
  return node
}

/** What the sink has found wrong. */
function wrongs(status: ClusterStatus): Record<string, unknown> {
  const { lost, duplicated, reordered, corrupted, stale, foreign, unreadable, astray } = nodeOf(status, 'egress').status?.traffic as SinkCounts
  return { lost, duplicated, reordered, corrupted, stale, foreign, unreadable, astray }
}
const nothingWrong = { lost: 0, duplicated: 0, reordered: 0, corrupted: 0, stale: 0, foreign: 0, unreadable: 0, astray: 0 }

test('a cluster runs, moves flows and drains without a loss, and survives kills', { skip, timeout: 60_000 }, async (context) => {
  const cluster = new TestCluster('small')
  context.after(() => { cluster.close() })
  const file = cluster.write('cluster.yaml', `
name: small
chain: [monitor, firewall]
ingress: { type: generator, flows: 40, packetsPerSecond: 3000 }
egress: { type: sink, flows: 40 }
runtimes: 2
limits: { flows: 4096, packets: 2048 }
`)
  cluster.must('up', file, '--detach')
  const first = await cluster.status()
  assert.ok(first.isReady)
  assert.deepEqual(first.nodes.map(({ name, state }) => [name, state]),
    [['ingress', 'ready'], ['egress', 'ready'], ['runtime-1', 'ready'], ['runtime-2', 'ready']])
  assert.equal(new Set(first.nodes.map(({ incarnation }) => incarnation)).size, 4)
  assert.equal(statSync(cluster.runFolder).mode & 0o777, 0o700)
  for (const name of readdirSync(cluster.runFolder)) {
    assert.equal(statSync(join(cluster.runFolder, name)).mode & 0o077, 0, `${name} is for its owner alone`)
  }

  await context.test('flows are placed on both runtimes', async () => {
    await cluster.until('all flows are open', async () => (await cluster.flows('udp')).length === 40)
    const flows = await cluster.flows('')
    assert.deepEqual([...new Set(flows.map(({ node }) => node))].toSorted(), ['runtime-1', 'runtime-2'])
    assert.match(cluster.must('flows', 'udp', '198.18.0.1:', '--state'), /runtime-\d +udp +198\.18\.0\.1:\d+ .*\n.*"monitor"/)
  })

  await context.test('they move there and back', async () => {
    cluster.must('migrate', 'runtime-1', 'runtime-2')
    await cluster.until('all are on runtime-2', async () => (await cluster.flows('')).every(({ node }) => node === 'runtime-2'))
    await cluster.ask('Migrate', { from: 'runtime-2', to: 11, number: 15 })
    await cluster.until('15 are back', async () => (await cluster.flows('')).filter(({ node }) => node === 'runtime-1').length === 15)
  })

  await context.test('a runtime is drained, and gets flows again', async () => {
    const text = cluster.must('drain', 'runtime-2')
    assert.match(text, /^runtime-2 is empty: 25 flows left it in [\d.]+ s\n$/)
    assert.ok((await cluster.flows('')).every(({ node }) => node === 'runtime-1'))
    assert.ok(nodeOf(await cluster.status(), 'runtime-2').isDraining)
    const { status, stderr } = cluster.call('migrate', 'runtime-1', 'runtime-2', '--name', 'small')
    assert.equal(status, 1)
    assert.match(stderr, /^error NF_CLUSTER: .*NF_MOVE_DRAINING/)
    cluster.must('drain', 'runtime-2', '--undo')
    cluster.must('migrate', 'runtime-1', 'runtime-2', '20')
    await cluster.until('it has flows', async () => (await cluster.flows('')).filter(({ node }) => node === 'runtime-2').length === 20)
  })

  await context.test('nothing was lost, doubled or reordered', async () => {
    const status = await cluster.status()
    assert.deepEqual(wrongs(status), nothingWrong)
    assert.ok((nodeOf(status, 'egress').status?.traffic as SinkCounts).received > 1000)
    for (const { name, status: own } of status.nodes) assert.deepEqual(own?.dropReasons, {}, name)
  })

  await context.test('a runtime that is killed is replaced by another', async () => {
    cluster.must('kill', 'runtime-1')
    const runtimes = await cluster.until('another is ready', async () => {
      const { isReady, nodes } = await cluster.status()
      const names = nodes.filter(({ kind }) => kind === 'runtime').map(({ name }) => name)
      return isReady && !names.includes('runtime-1') && names
    })
    assert.deepEqual(runtimes, ['runtime-2', 'runtime-3'])
    await cluster.until('the cluster serves all flows', async () => (await cluster.flows('udp')).length === 40)
    const events = (await cluster.events()).filter(({ node }) => node === 'runtime-1').map(({ event }) => event)
    assert.deepEqual(events.filter((event) => event !== 'node-silent').slice(-4), ['node-killed', 'node-died', 'node-fenced', 'recovered'])
    assert.match(cluster.must('events'), /node-died +runtime-1 \(incarnation \d\) ended by SIGKILL\n/)
  })

  await context.test('so does a switch, which learns the flows from the runtimes', async () => {
    cluster.must('kill', 'egress')
    await cluster.until('it is ready again', async () => {
      const { isReady, nodes } = await cluster.status()
      return isReady && nodes.find(({ name }) => name === 'egress')?.restarts === 1
    })
    const { received } = nodeOf(await cluster.status(), 'egress').status?.traffic as SinkCounts
    await cluster.until('packets arrive', async () =>
      (nodeOf(await cluster.status(), 'egress').status?.traffic as SinkCounts).received > received + 1000)
  })

  await context.test('a second one of that name is refused, and wrong commands are', () => {
    for (const [args, error] of [
      [['up', file], /^error NF_CLUSTER_RUNNING: /], [['up', file, '--detach'], /^error NF_CLUSTER_RUNNING: /],
      [['kill', 'runtime-9', '--name', 'small'], /^error NF_CLUSTER: there is no node "runtime-9"\. Did you mean runtime-\d\?/],
      [['drain', 'ingress', '--name', 'small'], /^error NF_CLUSTER: ingress is a switch/],
      [['migrate', '12', '12', '3', '--name', 'small'], /^error NF_CLUSTER: .*NF_MOVE_SELF/],
      [['status', '--name', 'other'], /^error NF_CLUSTER_NOT_RUNNING: /], [['down', '--name', 'other'], /^error NF_CLUSTER_NOT_RUNNING: /],
    ] as const) {
      const { status, stderr, stdout } = cluster.call(...args)
      assert.equal(status, 1, args.join(' '))
      assert.equal(stdout, '')
      assert.match(stderr, error)
    }
  })

  await context.test('there can be more runtimes, and one leaves the cluster for good', async () => {
    assert.equal(cluster.must('scale', '3'), '3 runtimes\n')
    await cluster.until('there are three', async () => {
      const { isReady, nodes } = await cluster.status()
      return isReady && nodes.filter(({ kind }) => kind === 'runtime').length === 3
    })
    cluster.must('drain', 'runtime-2', '--remove')
    await cluster.until('two are left', async () => {
      const { isReady, desired, nodes } = await cluster.status()
      return isReady && desired === 2 && nodes.map(({ name }) => name).join() === 'ingress,egress,runtime-1,runtime-3'
    })
  })

  await context.test('a runtime that stands still is fenced, and another takes its place', async () => {
    const { incarnation } = nodeOf(await cluster.status(), 'runtime-1')
    cluster.must('kill', 'runtime-1', '--signal', 'SIGSTOP')
    await cluster.until('it is fenced', async () => (await cluster.events()).some((one) =>
      one.event === 'node-fenced' && one.incarnation === incarnation && one.reason === 'dead'))
    await cluster.until('the cluster serves all flows', async () => {
      const { isReady, nodes } = await cluster.status()
      return isReady && nodes.every((one) => one.incarnation !== incarnation) && (await cluster.flows('udp')).length === 40
    })
    await cluster.until('its process has been ended', () => Promise.resolve(
      !new ClusterFolder(cluster.runFolder).livingProcesses().some((one) => one.incarnation === incarnation)))
  })

  await context.test('a controller that is killed comes back, and knows what was', async () => {
    const before = await cluster.status()
    const controller = new ClusterFolder(cluster.runFolder).livingProcesses().find(({ kind }) => kind === 'controller')
    process.kill(controller?.pid ?? 0, 'SIGKILL')
    const { received } = nodeOf(before, 'egress').status?.traffic as SinkCounts
    const after = await cluster.until('another life of it leads', async () => {
      const status = await cluster.status()
      return status.term > before.term && status.isReady && status
    })
    const lives = ({ nodes }: ClusterStatus): unknown => nodes.map(({ name, incarnation }) => [name, incarnation])
    assert.deepEqual(lives(after), lives(before))
    assert.ok((nodeOf(after, 'egress').status?.traffic as SinkCounts).received > received)
  })

  await context.test('nothing is left, also when the supervisor was killed', async () => {
    const processes = new ClusterFolder(cluster.runFolder).livingProcesses()
    assert.deepEqual(processes.map(({ kind }) => kind).toSorted(), ['controller', 'runtime', 'runtime', 'supervisor', 'switch', 'switch'])
    for (const { kind, pid } of processes) if (kind === 'supervisor' || kind === 'controller') process.kill(pid, 'SIGKILL')
    await cluster.until('they are gone', () => Promise.resolve(new ClusterFolder(cluster.runFolder).livingProcesses().length === 4), 5000)
    assert.match(cluster.call('status', '--name', 'small').stderr, /^error NF_CLUSTER_NOT_RUNNING: the controllers .*nfactor down --name small/)
    cluster.must('down')
    assert.deepEqual(processes.filter(isRunning), [])
    assert.ok(!existsSync(cluster.runFolder))
  })
})

/** Kills runtimes of a cluster whose flows have replicas: the same flows go on elsewhere, and remember what was before. */
async function killRuntimes(cluster: TestCluster, settings: string, victims: readonly string[]): Promise<void> {
  cluster.must('up', cluster.write('cluster.yaml', `
name: ${cluster.name}
chain: [monitor]
ingress: { type: generator, flows: 30, packetsPerSecond: 2000 }
egress: { type: sink, flows: 30 }
replication: commit
${settings}
limits: { flows: 4096, packets: 2048 }
`), '--detach')
  await cluster.until('all flows are open', async () => (await cluster.flows('udp')).length === 30)
  await cluster.until('every flow has its replicas', async () =>
    (await cluster.status()).nodes.every(({ status }) => (status?.replication?.degraded ?? 0) === 0))
  const { flows } = await cluster.ask<{ flows: ClusterFlow[] }>('Flows', { state: true })
  for (const { node, epoch, replicas = [], packets = 0 } of flows) {
    // A runtime is asked after the other, while packets come.
    assert.deepEqual(replicas.map((replica) => [replica.epoch, replica.node !== node]), victims.map(() => [epoch, true]))
    const monitor = replicas[0].state.monitor as { packets: readonly number[] }
    assert.ok(Math.abs(replicas[0].packets - packets) < 1000 && monitor.packets[0] === replicas[0].packets)
  }
  // What every replica of a flow has seen is never lost; what its owner has seen beyond that has not left yet.
  const before = (await cluster.ask<{ flows: ClusterFlow[] }>('Flows', { state: true })).flows.filter(({ node }) => victims.includes(node))
  assert.ok(before.length > 0)
  const processes = new ClusterFolder(cluster.runFolder).livingProcesses().filter(({ name }) => victims.includes(name))
  assert.equal(processes.length, victims.length)
  for (const { pid } of processes) process.kill(pid, 'SIGKILL')
  const after = await cluster.until('their flows live elsewhere', async () => {
    const flows = (await cluster.flows('')).filter(({ flow }) => before.some((one) => one.flow === flow))
    return flows.length === before.length && flows.every(({ phase, node }) => phase === 'active' && !victims.includes(node)) && flows
  })
  for (const { flow, epoch, packets = 0 } of after) {
    const { epoch: former = Infinity, replicas = [] } = before.find((one) => one.flow === flow) ?? {}
    const kept = Math.min(...replicas.map((replica) => replica.packets))
    assert.ok(epoch > former && replicas.length > 0 && packets >= kept, `${flow}: ${packets} packets, ${kept} at its replicas before`)
  }
  const { received } = nodeOf(await cluster.status(), 'egress').status?.traffic as SinkCounts
  await cluster.until('packets arrive', async () =>
    (nodeOf(await cluster.status(), 'egress').status?.traffic as SinkCounts).received > received + 1000)
  const status = await cluster.status()
  const { duplicated, reordered, corrupted } = wrongs(status)
  assert.deepEqual({ duplicated, reordered, corrupted }, { duplicated: 0, reordered: 0, corrupted: 0 })
  if (victims.length > 1) return
  // What had been sent to the dead was taken back: nothing is lost.
  assert.deepEqual(wrongs(status), nothingWrong)
  const { dropReasons } = nodeOf(status, 'ingress').status ?? {}
  assert.deepEqual(dropReasons, {})
}

test('with replication, flows outlive the runtime that is killed', { skip, timeout: 60_000 }, async (context) => {
  const cluster = new TestCluster('twice')
  context.after(() => { cluster.close() })
  await killRuntimes(cluster, 'runtimes: 3', ['runtime-2'])
})

test('with two replicas, flows outlive two runtimes that are killed at once', { skip, timeout: 60_000 }, async (context) => {
  const cluster = new TestCluster('thrice')
  context.after(() => { cluster.close() })
  await killRuntimes(cluster, 'runtimes: 4\nreplicas: 2', ['runtime-2', 'runtime-3'])
})

test('a network function is updated while its flows live; of several controllers the leader may die', { skip, timeout: 90_000 },
  async (context) => {
    const cluster = new TestCluster('update')
    context.after(() => { cluster.close() })
    cluster.write('flow-size-1.ts', flowSizeBefore)
    cluster.write('flow-size-2.ts', flowSizeAfter)
    const yaml = (version: number): string => cluster.write(`cluster-${version}.yaml`, `
name: update
chain: [monitor, ./flow-size-${version}.ts]
ingress: { type: generator, flows: 30, packetsPerSecond: 2000 }
egress: { type: sink, flows: 30 }
runtimes: 1
controllers: 2
limits: { flows: 4096, packets: 2048 }
`)
    cluster.must('up', yaml(1), '--detach')
    await cluster.until('all flows are open', async () => (await cluster.flows('udp')).length === 30)
    const before = new Map((await cluster.flows('')).map(({ flow, packets = 0 }) => [flow, packets]))

    await context.test('another controller leads when the leader is killed', async () => {
      const { leader, term } = await cluster.status()
      const process_ = new ClusterFolder(cluster.runFolder).livingProcesses().find(({ name }) => name === leader)
      process.kill(process_?.pid ?? 0, 'SIGKILL')
      const after = await cluster.until('another leads', async () => {
        const status = await cluster.status()
        return status.term > term && status.isReady && status
      })
      assert.equal(after.nodes.find(({ kind }) => kind === 'runtime')?.incarnation, 1)
    })

    await context.test('flows keep what was known of them, in the new layout', async () => {
      assert.match(cluster.must('update', yaml(2)), /^done: all flows are on version 2 of the chain, after [\d.]+ s\n$/)
      const { flows } = await cluster.ask<{ flows: ClusterFlow[] }>('Flows', { state: true })
      assert.equal(flows.length, 30)
      for (const { flow, node, packets = 0, state } of flows) {
        const own = state?.['flow-size'] as { packets: number, bytes: number }
        assert.notEqual(node, 'runtime-1')
        assert.ok(packets > (before.get(flow) ?? Infinity) && own.packets === packets && own.bytes > 0, JSON.stringify(own))
      }
      assert.deepEqual(wrongs(await cluster.status()), nothingWrong)
    })

    await context.test('one that cannot take the flows is paused, and taken back', async () => {
      // Without the upgrade nothing can become of the old state.
      cluster.write('flow-size-3.ts', flowSizeAfter.replace(/ *upgrades.*\n/, '').replace('version: 2', 'version: 3'))
      const { status, stdout } = cluster.call('update', yaml(3), '--name', 'update')
      assert.equal(status, 1)
      assert.match(stdout, /^paused: some flows are on version 3 .*: no flow could be moved off runtime \d+\n$/)
      assert.match(cluster.must('update', '--roll-back'), /^rolled-back: no flow is on version 3 /)
      const { status: again, stderr } = cluster.call('update', '--resume', '--name', 'update')
      assert.equal(again, 1)
      assert.match(stderr, /^error NF_CLUSTER: no update is under way/)
      await cluster.until('all is as it was', async () => (await cluster.status()).isReady)
      assert.deepEqual(wrongs(await cluster.status()), nothingWrong)
    })

    await context.test('a cluster whose supervisor is gone goes on, and is taken up again', async () => {
      const supervisor = new ClusterFolder(cluster.runFolder).livingProcesses().find(({ kind }) => kind === 'supervisor')
      process.kill(supervisor?.pid ?? 0, 'SIGKILL')
      assert.ok((await cluster.status()).isReady)
      assert.match(cluster.call('up', yaml(3), '--detach').stderr, /^error NF_CLUSTER_RUNNING: .*with another configuration/)
      cluster.must('up', yaml(1), '--detach')
      assert.ok((await cluster.events()).some(({ event }) => event === 'cluster-adopted'))
      assert.deepEqual(wrongs(await cluster.status()), nothingWrong)
    })
  })

test('what cannot be started leaves nothing behind', { skip, timeout: 30_000 }, (context) => {
  const cluster = new TestCluster('wrong')
  context.after(() => { cluster.close() })
  for (const [text, error] of [
    ['name: wrong\nruntime: 2\n', /^error NF_CONFIG_INVALID: .*wrong\.yaml:2:1: there is no key "runtime"\. Did you mean runtimes\?/],
    ['name: wrong\ningress: { type: tab }\n', /^error NF_CONFIG_INVALID: .*wrong\.yaml:2:\d+: ingress/],
    ['name: wrong\nchain: [monitr]\n', /^error NF_NF_UNKNOWN: .*wrong\.yaml:2:9: .*Did you mean monitor\?/],
    ['name: wrong\nruntimes: 1\ningress: { type: capture, input: none.pcap }\negress: { type: none }\n',
      /^error NF_FILE_NOT_FOUND: ingress: .*none\.pcap/],
  ] as const) {
    const { status, stderr } = cluster.call('up', cluster.write('wrong.yaml', text))
    assert.equal(status, 1)
    assert.match(stderr, error)
    assert.equal(stderr.trim().split('\n').length, 1, stderr)
    assert.ok(!existsSync(cluster.runFolder))
  }
})
