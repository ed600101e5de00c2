/**
 * Captures through a cluster of processes with three runtimes give for each flow what `nfactor run` gives: packets, bytes, and all that
 * each network function knows of it. Nothing expires meanwhile on either side, for a capture is played faster than it was recorded.
 */

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { TestCluster } from '../cli/test-cluster.ts'
import type { ClusterFlow } from '../process/operator.ts'
import type { FlowLine } from '../process/run-lines.ts'
import { corpusCaptures, corpusMissing } from '../testing/corpus/corpus-location.ts'

const skip = process.platform !== 'linux' ? 'ports to real links need Linux'
  : corpusMissing() || (process.env['NFACTOR_FULL'] === undefined && 'NFACTOR_FULL is not set')

/** More would take too long. */
const PACKETS_MAX = 5_000
/** A capture is played in so many seconds, if it is longer, and with so many packets per second: what comes before its flow is open is
 * held, and not without bound. */
const PLAY_SECONDS = 15
const PACKETS_PER_SECOND = 150
const captures = corpusCaptures().filter(({ linkType, packets }) => linkType === 'ether' && packets <= PACKETS_MAX)

const settings = `
chain: [monitor, firewall, http]
timeouts: { tcpOpening: 1000000, tcp: 1000000, tcpClosed: 1000000, udp: 1000000, icmp: 1000000, other: 1000000 }
`

type Known = Pick<FlowLine, 'packets' | 'bytes' | 'state'>

test('captures through a cluster', { skip, timeout: 3_000_000 }, async (context) => {
  assert.ok(captures.length > 10)
  for (const { name, path, packets } of captures) {
    await context.test(name, { timeout: 120_000 }, async (own) => {
      const cluster = new TestCluster('capture')
      own.after(() => { cluster.close() })
      const config = cluster.write('run.yaml', settings)
      const { status, stderr } = cluster.call('run', path, '--config', config, '--flows', 'flows.jsonl', '--quiet')
      assert.equal(status, 0, stderr)
      const expected = new Map<string, Known>()
      let [first, last] = [Infinity, 0]
      // Of connections that followed each other on the same ports, the last.
      for (const line of readFileSync(`${cluster.folder}/flows.jsonl`, 'utf8').trim().split('\n').filter((text) => text !== '')) {
        const { key: { vlan, protocol, a, b }, packets: count, bytes, state, firstSeen, lastSeen } = JSON.parse(line) as FlowLine
        first = Math.min(first, firstSeen)
        last = Math.max(last, lastSeen)
        const endpoint = ({ address, port }: typeof a): string => `${address.includes(':') ? `[${address}]` : address}:${port}`
        expected.set(`${protocol} ${vlan} ${endpoint(a)} ${endpoint(b)}`, { packets: count, bytes, state })
      }
      const seconds = Math.max(0.001, last - first)
      const speed = Math.min(Math.max(1, seconds / PLAY_SECONDS), PACKETS_PER_SECOND * seconds / packets)
      cluster.must('up', cluster.write('cluster.yaml', `name: capture
${settings}
ingress: { type: capture, input: ${JSON.stringify(path)}, speed: ${speed} }
egress: { type: none }
runtimes: 3
`), '--detach')
      await cluster.until('all has been played', async () => {
        const { nodes } = await cluster.status()
        return nodes[0].status?.external?.rxFrames === packets && nodes.every(({ status: of }) => of?.workload.buffered === 0)
      }, 60_000)
      // What is in the links has arrived when two looks see the same.
      let seen = -1
      await cluster.until('it has arrived', async () => {
        const before = seen
        seen = (await cluster.status()).nodes.reduce((sum, one) => sum + (one.workload?.received ?? 0), 0)
        await new Promise((resolve) => { setTimeout(resolve, 200) })
        return seen === before
      })
      const { flows } = await cluster.ask<{ flows: ClusterFlow[] }>('Flows', { state: true, limit: 100_000 })
      for (const { name: node, status: of } of (await cluster.status()).nodes) assert.deepEqual(of?.dropReasons, {}, node)
      assert.deepEqual(new Map(flows.map(({ protocol, vlan, a, b, packets: count, bytes, state }) =>
        [`${protocol} ${vlan} ${a} ${b}`, { packets: count, bytes, state }] as const).toSorted()), new Map([...expected].toSorted()))
      own.diagnostic(`${packets} packets, ${flows.length} flows on ${new Set(flows.map(({ node }) => node)).size} runtimes`)
    })
  }
})
