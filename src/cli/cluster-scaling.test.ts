/**
 * A runtime that does not get the core: it says that it has little to do, while its links are full. The cluster grows by what its switch has
 * to drop.
 */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { TestCluster } from './test-cluster.ts'

const skip = process.platform !== 'linux' ? 'ports to real links need Linux'
  : process.env['NFACTOR_FULL'] === undefined && 'NFACTOR_FULL is not set'

/** More than its ring holds comes while it is stopped. */
const STOPPED_MS = 500
const RUNNING_MS = 60

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
  let isGrown = false
  const starved = (async () => {
    for (const end = performance.now() + 60_000; !isGrown && performance.now() < end;) {
      process.kill(pid, 'SIGSTOP')
      await sleep(STOPPED_MS)
      process.kill(pid, 'SIGCONT')
      await sleep(RUNNING_MS)
    }
  })()
  try {
    const scaled = await cluster.until('the cluster has grown', async () =>
      (await cluster.events()).find(({ event, text }) => event === 'scaled' && text.includes('2')), 60_000)
    const { nodes } = await cluster.status()
    const { 'link-full': full = 0, 'over-share': over = 0 } = nodes[0].status?.dropReasons ?? {}
    const refused = full + over
    const busy = nodes.find(({ name }) => name === 'runtime-1')?.busy
    context.diagnostic(`${scaled.text}; ${refused} packets dropped for want of room, busy ${busy}`)
    assert.ok(refused > 0)
  } finally {
    isGrown = true
    await starved
  }
})
