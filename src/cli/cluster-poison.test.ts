/**
 * A packet that keeps a network function in a loop for ever: the runtime that had it is replaced, and so is no other; its flow is
 * quarantined, all others live. PROTOCOL 22, with processes.
 */

import assert from 'node:assert/strict'
import { existsSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { TestCluster } from './test-cluster.ts'

const skip = process.platform === 'linux' ? false : 'ports to real links need Linux'

/** Loops at the hundredth packet of one flow of the generator's. */
const looping = `import { defineNf, struct, u64, Verdict } from 'nfactor'

export default defineNf({
  name: 'looping',
  version: 1,
  flowState: struct({ packets: u64 }),
  create: () => ({
    processPacket(packet, fs) {
      fs.packets++
      while (packet.sourceWord(0) >>> 0 === 0xc6120003 && fs.packets === 100) {}
      return Verdict.Forward
    },
  }),
})
`

test('a packet on which a network function loops for ever ends one runtime, and its flow', { skip, timeout: 60_000 }, async (context) => {
  const cluster = new TestCluster('poison')
  context.after(() => { cluster.close() })
  cluster.write('looping.ts', looping)
  cluster.must('up', cluster.write('cluster.yaml', `
name: poison
chain: [monitor, ./looping.ts]
ingress: { type: generator, flows: 30, packetsPerSecond: 1000 }
egress: { type: sink, flows: 30 }
runtimes: 3
replication: commit
limits: { flows: 4096, packets: 2048 }
`), '--detach')
  const before = await cluster.until('all flows are open', async () => {
    const flows = await cluster.flows('udp')
    return flows.length === 30 && flows
  })
  const [poisoned] = before.filter(({ a }) => a.startsWith('198.18.0.3:'))
  const event = await cluster.until('the flow is quarantined', async () =>
    (await cluster.events()).find(({ event: what }) => what === 'flow-quarantined'), 30_000)
  assert.match(event.text, /^a packet of udp 198\.18\.0\.3:\d+ .* has ended incarnation \d+; the flow is quarantined$/)
  await cluster.until('the cluster is ready', async () => (await cluster.status()).isReady, 20_000)
  const after = await cluster.flows('udp')
  const alive = (flow: number): boolean => after.some((one) => one.flow === flow)
  assert.deepEqual(before.filter(({ flow }) => flow !== poisoned?.flow && !alive(flow)), [], 'all others live')
  const fenced = (await cluster.events()).filter(({ event: what }) => what === 'node-fenced')
  assert.equal(fenced.length, 1, JSON.stringify(fenced))
  const { nodes } = await cluster.status()
  const dropped = nodes.reduce((sum, { status }) => sum + (status?.dropReasons.quarantined ?? 0), 0)
  assert.ok(dropped > 0)
  const captures = nodes.map(({ id }) => join(cluster.runFolder, `quarantine-${id}.pcap`)).filter((path) => existsSync(path))
  assert.ok(captures.length > 0 && captures.every((path) => statSync(path).size > 24), 'its packets are kept')
})
