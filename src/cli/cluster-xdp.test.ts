/**
 * A cluster whose outer sides are AF_XDP ports, as its file has them: one that can be had, and one that cannot, for which a packet socket
 * is used. With two hosts' own stacks at its ends.
 */

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { pingCommand, TestNetwork } from '../ports/test-network.ts'
import { xdpSkip } from '../ports/test-xdp.ts'
import { TestCluster } from './test-cluster.ts'

test('a cluster with AF_XDP at its outer sides', { skip: xdpSkip(), timeout: 60_000 }, async (context) => {
  const network = new TestNetwork()
  const cluster = new TestCluster('xdp')
  context.after(() => {
    cluster.close()
    network.close()
  })
  const [client, middle, server] = [network.addNamespace(), network.addNamespace(), network.addNamespace()]
  network.addVeth(client, 'c0', middle, 'in', 1500, 2)
  network.addVeth(server, 's0', middle, 'out', 9000)
  network.addAddresses(client, 'c0', '10.78.0.1/24')
  network.addAddresses(server, 's0', '10.78.0.2/24')
  const file = cluster.write('cluster.yaml', `
name: xdp
chain: [monitor]
ingress: { type: af-xdp, interface: in, namespace: ${middle} }
egress: { type: af-xdp, interface: out, namespace: ${middle} }
runtimes: 1
limits: { flows: 1024 }
`)
  await context.test('says what it uses, and packets pass', async () => {
    cluster.must('up', file, '--detach')
    const status = cluster.must('status')
    assert.match(status, /^ {2}ingress: AF_XDP, copy, 2 queues \(in\)$/m)
    assert.match(status, /^ {2}egress: AF_PACKET in place of AF_XDP: NF_PORT_UNSUPPORTED: .* \(out\)$/m)
    const log = readFileSync(join(cluster.runFolder, '2.log'), 'utf8')
    assert.match(log, /^port out: AF_PACKET in place of AF_XDP: NF_PORT_UNSUPPORTED: /)
    network.run(client, ...pingCommand('10.78.0.2'))
    const external = (await cluster.status()).nodes[0]?.status?.external
    assert.ok(external !== undefined && external.rxFrames >= 4 && external.rxInvalid === 0)
  })

  await context.test('a switch that was killed has its frames again', async () => {
    cluster.must('kill', 'ingress')
    await cluster.until('the cluster is ready', async () => {
      const { isReady, nodes } = await cluster.status()
      return isReady && nodes[0].restarts === 1
    })
    network.run(client, ...pingCommand('10.78.0.2'))
    cluster.must('down')
    assert.doesNotMatch(network.run(middle, 'ip', 'link', 'show', 'in'), /xdp/)
  })
})
