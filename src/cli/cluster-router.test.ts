/**
 * Two networks joined by a cluster as if by a router, with real stacks and real programs: hosts that know it as their gateway only.
 *
 *     namespace client ─ veth ─ ingress ═ runtimes ═ egress ─ veth ─ namespace server         10.81.1.0/24 and 10.81.2.0/24, IPv6 likewise
 */

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { test } from 'node:test'
import { networkSkip, TestNetwork } from '../ports/test-network.ts'
import { TestCluster } from './test-cluster.ts'
import { TestPrograms } from './test-programs.ts'

const skip = networkSkip() || (spawnSync('ping', ['-V']).error !== undefined && 'ping is not installed')

test('two networks joined by a cluster that routes', { skip, timeout: 90_000 }, async (context) => {
  const network = new TestNetwork()
  const cluster = new TestCluster('router')
  context.after(() => {
    cluster.close()
    network.close()
  })
  const [client, middle, server] = [network.addNamespace(), network.addNamespace(), network.addNamespace()]
  network.addVeth(client, 'c0', middle, 'in')
  network.addVeth(server, 's0', middle, 'out')
  network.addAddresses(client, 'c0', '10.81.1.2/24', 'fd81:1::2/64')
  network.addAddresses(server, 's0', '10.81.2.2/24', 'fd81:2::2/64')
  for (const [namespace, side] of [[client, 1], [server, 2]] as const) {
    network.run(namespace, 'ip', 'route', 'add', 'default', 'via', `10.81.${side}.1`)
    network.run(namespace, 'ip', '-6', 'route', 'add', 'default', 'via', `fd81:${side}::1`)
  }
  cluster.must('up', cluster.write('cluster.yaml', `
name: router
chain: [monitor, firewall, http]
ingress: { type: af-packet, interface: in, namespace: ${middle}, router: { addresses: [10.81.1.1/24, 'fd81:1::1/64'] } }
egress: { type: af-packet, interface: out, namespace: ${middle}, router: { addresses: [10.81.2.1/24, 'fd81:2::1/64'] } }
runtimes: 2
limits: { flows: 4096 }
`), '--detach')
  const ping = (...args: string[]): string =>
    spawnSync('ip', ['netns', 'exec', client, 'ping', '-i', '0.05', '-W', '2', ...args], { encoding: 'utf8', timeout: 20_000 }).stdout

  await context.test('pings go through, one hop further', () => {
    assert.match(ping('-c', '3', '10.81.2.2'), /ttl=63[^]* 3 received/)
    assert.match(ping('-6', '-c', '3', 'fd81:2::2'), /ttl=63[^]* 3 received/)
    assert.match(ping('-c', '1', '10.81.1.1'), / 1 received/)
    assert.match(ping('-6', '-c', '1', 'fd81:1::1'), / 1 received/)
    assert.match(ping('-c', '1', '-t', '1', '10.81.2.2'), /From 10\.81\.1\.1 .*Time to live exceeded/)
    assert.match(ping('-6', '-c', '1', '-t', '1', 'fd81:2::2'), /From fd81:1::1 .*Time exceeded: Hop limit/)
    assert.match(ping('-c', '1', '10.81.2.99'), / 0 received/)
  })

  await context.test('downloads are whole, with the offloads that are there by default', async () => {
    const programs = new TestPrograms()
    try {
      await programs.serve(server)
      for (const host of ['10.81.2.2', 'fd81:2::2']) {
        const downloads = await programs.download(client, host, 3, 2_000_000, 1)
        assert.deepEqual(downloads.map(({ received, same, error }) => ({ received, same, error })),
          Array.from({ length: 3 }, () => ({ received: 2_000_000, same: true, error: undefined })))
      }
    } finally {
      programs.close()
    }
  })

  await context.test('status says what has become of frames', async () => {
    const { ingress, egress } = await cluster.until('the packet for nobody is given up', async () => {
      const { nodes } = await cluster.status()
      const of = (name: string) => nodes.find((node) => node.name === name)?.status?.external?.router ?? {}
      return of('egress').unreachable > 0 && { ingress: of('ingress'), egress: of('egress') }
    })
    assert.deepEqual([ingress.unreachable, ingress.noRoute, ingress.malformed, egress.malformed], [0, 0, 0, 0])
    assert.ok(ingress.in > 100 && ingress.out > 100 && egress.in > 100 && egress.out > 100 && ingress.answered >= 6)
    assert.equal(egress.unreachable, 1)
  })
})
