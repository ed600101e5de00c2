/** Flows that are announced to a switch which cannot take them: whoever waits for its word gets it all the same. PROTOCOL 9, 21. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { KEY_WORDS } from '../flow/flow-record.ts'
import { AnnouncedPhase, AnnounceFlow, AnnounceFlowOwnerIncarnation } from '../messages/announcing.ts'
import { flowIdOf } from '../messages/cluster-config.ts'
import { roundRobin } from './placement/round-robin.ts'
import { ScriptedSwitch, type Said } from './scripted-switch.ts'

const FIRST = flowIdOf(99, 1)
const ALIAS = 50

/** A switch that has just come back, and one other; runtimes 11 and 12. */
function comeBack(entries = 100): ScriptedSwitch {
  return new ScriptedSwitch({
    version: 1, clusterId: 1,
    switches: [{ id: 1, incarnation: 101, side: 'ingress', isHome: true }, { id: 2, incarnation: 102, side: 'egress', isHome: false }],
    runtimes: [11, 12].map((id) => ({ id, incarnation: 100 + id, isDraining: false })),
  }, 1, roundRobin(), { entries })
}

/** A flow on a key is at a runtime. */
const flowAt = (node: number, key: number, flow: number, epoch: number, code: number): Said =>
  ({ flow, epoch, node, key, code, words: { [AnnounceFlowOwnerIncarnation]: 100 + node } })

const { owned, waiting, handedOver } = AnnouncedPhase

test('its key is another flow\'s alias: the target of its move gets Go, whoever announces it, and nothing changes', () => {
  const one = comeBack()
  const alias = [...one.arena.i32.slice(one.keyOf(ALIAS), one.keyOf(ALIAS) + KEY_WORDS), 0]
  one.control(11, AnnounceFlow, { ...flowAt(11, 5, FIRST + 1, 1, owned), tail: alias })
  one.take()
  one.control(12, AnnounceFlow, flowAt(12, ALIAS, FIRST, 3, waiting))
  assert.deepEqual([one.sent.map(({ name, to, flow, epoch }) => ({ name, to, flow, epoch })), one.anomalies],
    [[{ name: 'Go', to: 12, flow: FIRST, epoch: 3 }], { 'key-is-alias': 1 }])
  one.take()
  one.control(11, AnnounceFlow, flowAt(12, ALIAS, FIRST, 3, handedOver))
  assert.deepEqual([one.take(), one.table.mainOf(one.entryOf(ALIAS))], [['Go 12'], one.entryOf(5)])
  one.control(12, AnnounceFlow, flowAt(12, ALIAS, FIRST, 4, owned))
  assert.deepEqual(one.take(), [])
})

test('its key is a newer flow\'s: Go; but not for what is known of it at a later epoch', () => {
  const one = comeBack()
  one.control(11, AnnounceFlow, flowAt(11, 5, FIRST + 1, 7, owned))
  one.take()
  one.control(12, AnnounceFlow, flowAt(12, 5, FIRST, 3, waiting))
  assert.deepEqual([one.take(), one.entry(5)?.flow], [['Go 12'], FIRST + 1])
  one.control(12, AnnounceFlow, flowAt(12, 5, FIRST + 1, 6, waiting))
  assert.deepEqual([one.take(), one.anomalies['stale-epoch']], [[], 2])
})

test('there is no room for it: Go', () => {
  const one = comeBack(1)
  let key = 5
  for (; one.anomalies['flow-table-full'] === undefined; key++) one.control(11, AnnounceFlow, flowAt(11, key, FIRST + key, 1, owned))
  one.take()
  one.control(12, AnnounceFlow, flowAt(12, key, FIRST, 3, waiting))
  assert.deepEqual(one.take(), ['Go 12'])
})
