/**
 * A cluster whose nodes are containers, between two namespaces: packets pass its packet sockets, nodes and controllers that are killed are
 * replaced or come back to the others, and nothing is left under the engine when it ends. With NFACTOR_FULL=1.
 *
 *     namespace client ─ veth ─ [ engine's namespace: ingress ═ runtimes ═ egress, in containers ] ─ veth ─ namespace server
 */

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { networkSkip, TestNetwork } from '../ports/test-network.ts'
import { ClusterFolder } from '../process/cluster-folder.ts'
import { ownImage } from '../process/container-image.ts'
import type { ClusterFlow } from '../process/operator.ts'
import { engineSkip, TestEngine } from '../process/testing/test-engine.ts'
import { TestCluster } from './test-cluster.ts'

const skip = process.env['NFACTOR_FULL'] !== '1' ? 'NFACTOR_FULL=1 runs it'
  : networkSkip() || engineSkip() || (spawnSync('ping', ['-V']).error !== undefined && 'ping is not installed')

const PATIENCE_MS = 60_000

test('a cluster of containers', { skip, timeout: 300_000 }, async (context) => {
  const network = new TestNetwork()
  const cluster = new TestCluster('boxes')
  const [client, middle, server] = [network.addNamespace(), network.addNamespace(), network.addNamespace()]
  network.addVeth(client, 'c0', middle, 'in')
  network.addVeth(server, 's0', middle, 'out')
  network.addAddresses(client, 'c0', '10.77.0.1/24')
  network.addAddresses(server, 's0', '10.77.0.2/24')
  const own = await TestEngine.start(['nsenter', `--net=/run/netns/${middle}`])
  context.after(async () => {
    cluster.close()
    await own.close()
    network.close()
  })
  const file = cluster.write('cluster.yaml', `
name: boxes
launcher: container
container: { socket: ${own.engine.socket} }
chain: [monitor, ./count-packets.ts]
ingress: { type: af-packet, interface: in }
egress: { type: af-packet, interface: out }
patience: 10
`)
  writeFileSync(join(cluster.folder, 'count-packets.ts'), `import { defineNf, struct, u64, Verdict } from 'nfactor'
export default defineNf({
  name: 'count-packets', version: 1, flowState: struct({ packets: u64 }),
  create: () => ({ processPacket(_packet, fs) { fs.packets++; return Verdict.Forward } }),
})
`)
  // `up` makes one too, but a slow machine may need a while.
  await ownImage(own.engine)
  cluster.must('up', file, '--detach')
  const folder = new ClusterFolder(cluster.runFolder)
  const running = async (): Promise<number> =>
    (await own.engine.list(`nfactor.folder=${folder.path}`)).filter(({ State }) => State === 'running').length
  assert.equal(await running(), 4)

  const before = await cluster.status()
  assert.equal(before.launcher, 'container')
  for (const { name, bootMs, pid } of before.nodes) {
    assert.ok(bootMs > 0, `${name} has been measured`)
    assert.match(readFileSync(`/proc/${pid}/status`, 'utf8'), /^NSpid:\s+\d+\s+1$/m, `${name} has process ids of its own`)
  }
  const ping = (): string => network.run(client, 'ping', '-c', '3', '-i', '0.1', '-W', '5', '10.77.0.2')
  assert.match(ping(), / 3 received/)
  const { flows } = await cluster.ask<{ flows: ClusterFlow[] }>('Flows', { filter: 'icmp', state: true })
  assert.ok(flows.some(({ state }) => 'count-packets' in (state ?? {})), 'a network function of a file counts')

  cluster.must('kill', 'runtime-1')
  const killed = before.nodes.find(({ name }) => name === 'runtime-1')?.incarnation
  await cluster.until('another runtime comes', async () => {
    const { isReady, nodes } = await cluster.status()
    return isReady && nodes.every(({ incarnation }) => incarnation !== killed)
  }, PATIENCE_MS)
  assert.match(ping(), / 3 received/)

  const pids = async (): Promise<number[]> => (await cluster.status()).nodes.map(({ pid }) => pid)
  const present = await pids()
  const [controller] = folder.livingProcesses().filter(({ kind }) => kind === 'controller')
  process.kill(controller.pid, 'SIGKILL')
  await cluster.until('a controller is back', async () => (await cluster.status()).isReady, PATIENCE_MS)
  assert.deepEqual(await pids(), present, 'nodes are taken up, not started')

  cluster.must('down')
  await cluster.until('no container is left', async () => (await running()) === 0, PATIENCE_MS)
  assert.equal(existsSync(folder.path), false)
})
