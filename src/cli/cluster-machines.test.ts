/**
 * A cluster on two machines, with real links between them: network namespaces, a bridge, packet sockets, TCP. What the end-to-end matrix
 * tries with real programs is here in some seconds.
 *
 *     machine one: controller, ingress, egress, runtime-1 ─ veth ─ bridge ─ veth ─ runtime-2, agent: machine two
 */

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test, type TestContext } from 'node:test'
import { networkSkip, TestNetwork } from '../ports/test-network.ts'
import type { ClusterFlow } from '../process/operator.ts'
import { TestCluster } from './test-cluster.ts'
import { TestMachines } from './test-machines.ts'

const RATE = 400

const skip = networkSkip()

function makeMachines(context: TestContext): { readonly cluster: TestCluster, readonly machines: TestMachines, readonly file: string } {
  const network = new TestNetwork()
  const one = network.addNamespace()
  const cluster = new TestCluster('machines', one)
  const machines = new TestMachines(network, cluster, 'machines', one)
  context.after(() => {
    cluster.close()
    machines.close()
    network.close()
  })
  const file = cluster.write('cluster.yaml', `
name: machines
chain: [monitor, firewall]
runtimes: 2
replication: commit
patience: 2
ingress: { type: generator, flows: 40, packetsPerSecond: ${RATE} }
egress: { type: sink, flows: 40 }
limits: { flows: 4096 }
${machines.lines()}`)
  return { cluster, machines, file }
}

test('a machine is lost: its flows go on where their replicas are', { skip, timeout: 120_000 }, async (context) => {
  const { cluster, machines, file } = makeMachines(context)
  const alone = cluster.call('up', file, '--detach')
  assert.match(alone.stderr, /^error NF_MACHINE: machine two at 10\.78\.0\.2:7090 cannot be reached: .*Start it there: nfactor machine FILE/)
  await machines.start(1)
  cluster.must('up', file, '--detach')
  const { nodes, machines: seen } = await cluster.status()
  assert.deepEqual(nodes.map(({ name, machine }) => [name, machine]),
    [['ingress', 'one'], ['egress', 'one'], ['runtime-1', 'one'], ['runtime-2', 'two']])
  assert.deepEqual(seen.map(({ name, isUp, runtimes }) => [name, isUp, runtimes]), [['one', true, 1], ['two', true, 1]])
  assert.deepEqual(machines.processes(1).map(({ name }) => name), ['runtime-2'])
  const sink = async (): Promise<Record<string, number>> =>
    (await cluster.status()).nodes.find(({ name }) => name === 'egress')?.status?.traffic as Record<string, number>
  await cluster.until('both have flows', async () => (await cluster.status()).nodes.every(({ kind, workload }) =>
    kind === 'switch' || (workload?.flows ?? 0) >= 20) && (await sink()).received > RATE, 20_000)
  const theirs = (await cluster.flows('udp')).find(({ node }) => node === 'runtime-2')
  const before = await sink()

  const traced = cluster.must('trace', theirs?.a ?? '', theirs?.b ?? '', '--packets', '1')
  assert.match(traced, /runtime-2 +in from ingress/, 'what nodes of the other machine do is seen')

  machines.lose(1)
  await cluster.until('what it had is recovered', async () => (await cluster.events()).some(({ event, text }) =>
    event === 'recovered' && text.includes('runtime-2')), 20_000)
  const flows = await cluster.until('all flows live on machine one', async () => {
    const list = await cluster.flows('udp')
    return list.length === 40 && list.every(({ node }) => node !== 'runtime-2') && list
  }, 20_000)
  assert.ok(flows.filter(({ epoch }) => epoch > 1).length >= 20, 'those of machine two are the same flows, later')
  const { received } = await sink()
  await cluster.until('packets go on', async () => (await sink()).received > received + RATE, 20_000)
  const after = await sink()
  for (const what of ['duplicated', 'reordered', 'corrupted', 'stale']) assert.equal(after[what], 0, `${what}: ${JSON.stringify(after)}`)
  const status = await cluster.status()
  assert.deepEqual(status.machines.map(({ isUp }) => isUp), [true, false])
  // Whoever ends the cluster finds nobody there, at once.
  machines.plug(1)
  context.diagnostic(`before ${JSON.stringify(before)}, after ${JSON.stringify(after)}`)
})

const fullSkip = skip || (process.env['NFACTOR_FULL'] === undefined && 'NFACTOR_FULL is not set')

test('an agent that was killed finds its runtimes; a machine that was cut off ends what is fenced, and gets its share again',
  { skip: fullSkip, timeout: 180_000 }, async (context) => {
    const { cluster, machines, file } = makeMachines(context)
    await machines.start(1)
    cluster.must('up', file, '--detach')
    const lives = async (): Promise<[string, number][]> => (await cluster.status()).nodes.map(({ name, incarnation }) => [name, incarnation])
    const before = await lives()
    const [first] = machines.processes(1)

    machines.killAgent(1)
    await cluster.until('it is missed', async () => (await cluster.status()).machines.some(({ isUp }) => !isUp), 20_000)
    await machines.start(1)
    await cluster.until('it answers again', async () => {
      const { isReady, machines: seen } = await cluster.status()
      return isReady && seen.every(({ isUp }) => isUp)
    }, 30_000)
    assert.deepEqual([await lives(), machines.processes(1)], [before, [first]])

    machines.setCable(1, false)
    await cluster.until('another is in its place', async () => {
      const { isReady, nodes } = await cluster.status()
      return isReady && nodes.every(({ machine }) => machine === 'one')
    }, 40_000)
    assert.deepEqual(machines.processes(1), [first], 'it lives, and nobody hears it')
    machines.setCable(1, true)
    await cluster.until('it has ended', () => Promise.resolve(machines.processes(1).every(({ pid }) => pid !== first?.pid)), 30_000)
    await cluster.until('each machine has one', async () => {
      const { isReady, nodes } = await cluster.status()
      return isReady && nodes.filter(({ kind }) => kind === 'runtime').map(({ machine }) => machine).toSorted().join() === 'one,two'
    }, 60_000)
    assert.equal((await cluster.flows('udp')).length, 40)
  })

const countNf = (version: number, fields: string, upgrades: string): string => `
import { defineNf, struct, u32, Verdict } from 'nfactor'

export default defineNf({
  name: 'count',
  version: ${version},
  flowState: struct({ ${fields} }),${upgrades}
  create: () => ({ processPacket(packet, state) {
    state.packets++
    return Verdict.Forward
  } }),
})
`

test('an update and more runtimes, over both machines: nothing is lost', { skip: fullSkip, timeout: 120_000 }, async (context) => {
  const { cluster, machines, file } = makeMachines(context)
  await machines.start(1)
  cluster.write('count-1.ts', countNf(1, 'packets: u32', ''))
  cluster.write('count-2.ts', countNf(2, 'packets: u32, more: u32', `
  upgrades: [{ from: 1, flowState: struct({ packets: u32 }), upgrade(old, now) { now.packets = old.packets } }],`))
  const configOf = (version: number): string => cluster.write(`version-${version}.yaml`,
    readFileSync(file, 'utf8').replace('[monitor, firewall]', `[monitor, firewall, ./count-${version}.ts]`))
  cluster.must('up', configOf(1), '--detach')
  await cluster.until('all flows are there', async () => (await cluster.flows('udp')).length === 40, 20_000)
  const before = (await cluster.flows('udp')).map(({ flow, packets = 0 }) => ({ flow, packets }))
  const { status, stdout, stderr } = await cluster.callSlowly('update', configOf(2), '--name', 'machines')
  assert.equal(status, 0, stderr)
  assert.match(stdout, /^done: all flows are on version 2/)
  const { flows } = await cluster.ask<{ flows: ClusterFlow[] }>('Flows', { filter: 'udp', state: true })
  for (const { flow, packets } of before) {
    const state = flows.find((one) => one.flow === flow)?.state?.['count'] as { packets: number, more: number } | undefined
    assert.ok(state !== undefined && state.more === 0 && state.packets >= packets, `flow ${flow}: ${JSON.stringify(state)}, ${packets} before`)
  }
  cluster.must('scale', '4')
  await cluster.until('two runtimes are on each machine', async () => {
    const { isReady, nodes } = await cluster.status()
    return isReady && nodes.filter(({ kind }) => kind === 'runtime').map(({ machine }) => machine).toSorted().join() === 'one,one,two,two'
  }, 40_000)
  assert.equal(machines.processes(1).length, 2)
  const { traffic } = (await cluster.status()).nodes.find(({ name }) => name === 'egress')?.status as { traffic: Record<string, number> }
  for (const what of ['lost', 'duplicated', 'reordered', 'corrupted']) assert.equal(traffic[what], 0, `${what}: ${JSON.stringify(traffic)}`)
})
