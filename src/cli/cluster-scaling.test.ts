/**
 * A runtime that does not get the core: it says that it has little to do, while its links are full. The cluster grows by what its switch has
 * to drop.
 */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ClusterFolder } from '../process/cluster-folder.ts'
import { callOnce } from '../process/line-rpc.ts'
import type { NodeStatus } from '../process/node-status.ts'
import { TestCluster } from './test-cluster.ts'

const skip = process.platform !== 'linux' ? 'ports to real links need Linux'
  : process.env['NFACTOR_FULL'] === undefined && 'NFACTOR_FULL is not set'

/** It is stopped until its switch has dropped so many packets for want of room in its ring. */
const REFUSED = 5_000
/** Then it runs until it has slept so long, that is, for want of work. */
const ASLEEP_US = 40_000

test('a runtime without a core has more to do than it says', { skip, timeout: 120_000 }, async (context) => {
  const cluster = new TestCluster('starved')
  context.after(() => { cluster.close() })
  cluster.must('up', cluster.write('cluster.yaml', `
name: starved
chain: [monitor]
ingress: { type: generator, flows: 50, packetsPerSecond: 20000 }
egress: { type: sink, flows: 50 }
runtimes: 1
scale: { min: 1, max: 2, pause: 8 }
patience: 10
limits: { flows: 4096 }
`), '--detach')
  const pid = (await cluster.status()).nodes.find(({ name }) => name === 'runtime-1')?.pid ?? 0
  assert.ok(pid > 0)
  const folder = new ClusterFolder(cluster.runFolder)
  const ask = (id: number): Promise<NodeStatus> => callOnce(folder.nodeSocket(id), 'GetStatus')
  const refusedBy = ({ dropReasons }: NodeStatus): number => (dropReasons['link-full'] ?? 0) + (dropReasons['over-share'] ?? 0)
  const ingress = (await cluster.status()).nodes.find(({ name }) => name === 'ingress')?.id ?? 0
  const runtime = (await cluster.status()).nodes.find(({ name }) => name === 'runtime-1')?.id ?? 0
  let isGrown = false
  const starved = (async () => {
    for (const end = performance.now() + 60_000; !isGrown && performance.now() < end;) {
      const before = refusedBy(await ask(ingress))
      process.kill(pid, 'SIGSTOP')
      try {
        await cluster.until('its ring is full', async () => refusedBy(await ask(ingress)) >= before + REFUSED)
      } finally {
        process.kill(pid, 'SIGCONT')
      }
      const { workload: { asleepUs } } = await ask(runtime)
      await cluster.until('it has little to do', async () => (await ask(runtime)).workload.asleepUs > asleepUs + ASLEEP_US)
    }
  })()
  try {
    const scaled = await cluster.until('the cluster has grown', async () =>
      (await cluster.events()).find(({ event, text }) => event === 'scaled' && text.includes('2')), 60_000)
    const { nodes } = await cluster.status()
    const refused = refusedBy(await ask(ingress))
    const busy = nodes.find(({ name }) => name === 'runtime-1')?.busy
    context.diagnostic(`${scaled.text}; ${refused} packets dropped for want of room, busy ${busy}`)
    assert.ok(refused > 0)
  } finally {
    isGrown = true
    await starved
  }
})
