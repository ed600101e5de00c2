/** Endings: a flow of a runtime whose replica, another one, releases its packets on a link of its own. */

import { test } from 'node:test'
import assert from 'node:assert/strict'
import { CloseFlow, FlowClosed, FlowClosedReleaserIncarnation } from '../messages/closing.ts'
import { flowIdOf, type ClusterConfig } from '../messages/cluster-config.ts'
import { Drained } from '../messages/migration.ts'
import { Bind, BindOwnerIncarnation, BindReleaser, BindReleaserIncarnation } from '../messages/placement.ts'
import { roundRobin } from './placement/round-robin.ts'
import { ScriptedSwitch } from './scripted-switch.ts'

const config: ClusterConfig = {
  version: 1, clusterId: 1, switches: [{ id: 1, incarnation: 101, side: 'ingress', isHome: true }],
  runtimes: [11, 12].map((id) => ({ id, incarnation: 100 + id, isDraining: false })),
}
const FIRST = flowIdOf(101, 1)

function learnt(): ScriptedSwitch {
  const one = new ScriptedSwitch(config, 1, roundRobin())
  for (const id of [11, 12]) one.announced(id)
  one.take()
  return one
}

/** Flow 5 is at runtime 12, and its packets leave from runtime 11. */
const bind = { flow: FIRST, epoch: 1, node: 12, key: 5, halves: { [BindReleaser]: 11 },
  words: { [BindReleaserIncarnation]: 111, [BindOwnerIncarnation]: 112 } }

test('closing: what a replica has released leaves before the flow is gone, whoever is heard of first', () => {
  const one = learnt()
  const ends = { flow: FIRST, epoch: 1, code: 1, key: 5, node: 11, words: { [FlowClosedReleaserIncarnation]: 111 } }
  one.external(5)
  one.inBand(11, Bind, bind)
  one.control(12, CloseFlow, { flow: FIRST, epoch: 1, key: 5 })
  one.inBand(12, FlowClosed, ends)
  one.external(5)
  one.take()
  one.fromRuntime(5, 11)
  one.inBand(11, Drained, { flow: FIRST, epoch: 9 })
  assert.deepEqual([one.take(), one.entry(5)?.flow], [['packet 5 out'], FIRST], 'that is of another change')
  one.inBand(11, Drained, { flow: FIRST, epoch: 2 })
  assert.deepEqual([one.take(), one.entry(5)?.flow], [['=FlowOpen 11', 'packet 5 to 11'], FIRST + 1])
  // The replica's word of its flow, and its packets, come behind the end; or its last word ahead of that; or it is dead.
  const other = learnt()
  other.external(5)
  other.inBand(12, FlowClosed, ends)
  other.inBand(11, Bind, bind)
  other.take()
  other.fromRuntime(5, 11)
  assert.deepEqual([other.take(), other.steps.closing], [['packet 5 out'], 1])
  other.inBand(11, Drained, { flow: FIRST, epoch: 2 })
  assert.deepEqual([other.entry(5), other.steps.closing], [null, 0])
  const third = learnt()
  third.external(5)
  third.inBand(11, Bind, bind)
  third.inBand(11, Drained, { flow: FIRST, epoch: 2 })
  third.inBand(12, FlowClosed, ends)
  assert.equal(third.entry(5), null)
  const last = learnt()
  last.external(5)
  last.inBand(11, Bind, bind)
  last.inBand(12, FlowClosed, ends)
  assert.equal(last.entry(5)?.flow, FIRST)
  last.configure({ ...config, version: 2, runtimes: config.runtimes.slice(1) })
  assert.equal(last.entry(5), null)
})
