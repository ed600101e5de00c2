/** What a node reports, to controllers that ask: rates are over the time since the same one asked before. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { NodeReporter, type ReportedNode } from './node-reporter.ts'

test('controllers that ask are bounded: who has asked longest ago starts anew', () => {
  const reporter = new NodeReporter()
  let now = 0
  const busyFor = (asker: string): number => {
    now += 1e6
    // Half of the time.
    const node = { runtime: undefined, switch: undefined, statistics: { busyUs: now / 2 }, external: undefined, links: new Map(),
      takePause: () => ({ us: 0, coreWaitUs: 0 }) } as unknown as ReportedNode
    const report = reporter.report(asker, 'runtime', 11, 1, node, true, now)
    return report.kind === 'runtime' ? report.busyPerMille : -1
  }
  assert.deepEqual([busyFor('leader'), busyFor('leader')], [0, 500])
  for (let other = 1; other <= 15; other++) assert.equal(busyFor(`other-${other}`), 0)
  assert.equal(busyFor('leader'), 500)
  // The sixteen of whom it knows: the leader, and all others but the first.
  assert.equal(busyFor('late'), 0)
  assert.deepEqual([busyFor('leader'), busyFor('other-2'), busyFor('other-1')], [500, 500, 0])
})
