/** Relearning: what a switch that has come back takes for known, and when. */

import assert from 'node:assert/strict'
import { afterEach, test } from 'node:test'
import { planted } from '../base/planted-bugs.ts'
import { AnnounceDone, AnnouncedPhase, AnnounceFlow, AnnounceFlowOwnerIncarnation, ConfigApplied } from '../messages/announcing.ts'
import { RerouteFlow } from '../messages/migration.ts'
import { PlaceFlow } from '../messages/placement.ts'
import { roundRobin } from './placement/round-robin.ts'
import { configOf, FIRST, rerouteTo, without12 } from './scripted-scenes.ts'
import { ScriptedSwitch } from './scripted-switch.ts'
import { EntryPhase } from './switch-table.ts'

afterEach(() => { for (const bug of Object.keys(planted) as (keyof typeof planted)[]) planted[bug] = false })

test('a flow announced at a life of its owner that is over waits for nobody when its source takes it back', () => {
  const one = new ScriptedSwitch(configOf({ runtimes: [{ id: 11, incarnation: 111, isDraining: false },
    { id: 12, incarnation: 212, isDraining: false }] }), 1, roundRobin())
  one.control(11, AnnounceFlow, { flow: FIRST, epoch: 2, node: 12, code: AnnouncedPhase.handedOver, key: 5,
    words: { [AnnounceFlowOwnerIncarnation]: 112 } })
  assert.deepEqual([one.entry(5)?.phase, one.entry(5)?.releaser], [EntryPhase.orphaned, 0])
  one.take()
  one.control(11, RerouteFlow, rerouteTo(11, 3))
  assert.deepEqual(one.take(), ['=RerouteFlowReply 11', 'Go 11'])
  assert.equal(one.steps.drained ?? 0, 0)
})

test('a restarted switch holds unknown flows until every runtime has announced its own', () => {
  const one = new ScriptedSwitch(configOf(), 1, roundRobin())
  one.external(5)
  one.external(6)
  one.control(2, PlaceFlow, { key: 7 })
  one.control(11, AnnounceFlow, { flow: 77, epoch: 4, node: 11, key: 5, words: { [AnnounceFlowOwnerIncarnation]: 111 } })
  assert.deepEqual(one.take(), ['packet 5 to 11'])
  one.announced(11)
  assert.deepEqual([one.take(), one.logic.isLearning, one.steps.relearning], [[], true, 1])
  one.announced(12)
  assert.deepEqual(one.take(), ['=FlowOpen 12', 'packet 6 to 12', '=FlowOpen 11', 'PlaceFlowReply 2'])
  assert.deepEqual([one.logic.isLearning, one.steps.relearning, one.context.held], [false, 0, 0])
})

test('a restarted switch holds them, too, until those of a runtime that has died have been claimed', () => {
  for (const isKnown of [true, false]) {
    const one = new ScriptedSwitch(isKnown ? configOf() : without12, 1, roundRobin())
    one.external(5)
    one.external(6)
    one.control(11, AnnounceDone)
    if (isKnown) {
      one.control(11, ConfigApplied, { epoch: 1 })
      one.configure(without12)
    }
    assert.deepEqual([one.take(), one.logic.isLearning], [[], true])
    one.control(11, RerouteFlow, rerouteTo(11, 9, 77))
    assert.deepEqual(one.take(), ['=RerouteFlowReply 11', 'Go 11', 'packet 5 to 11'])
    one.control(11, ConfigApplied, { epoch: 2 })
    assert.deepEqual(one.take(), ['=FlowOpen 11', 'packet 6 to 11'])
    assert.equal(one.entry(5)?.flow, 77)
  }
})

test('announced by two: the higher epoch wins; a new owner that waits gets its Go', () => {
  const one = new ScriptedSwitch(configOf(), 1, roundRobin())
  const announce = (epoch: number, node: number, code: number) =>
    ({ flow: 77, epoch, node, key: 5, code, words: { [AnnounceFlowOwnerIncarnation]: 100 + node } })
  one.control(11, AnnounceFlow, announce(4, 12, AnnouncedPhase.handedOver))
  assert.ok(one.log.includes('Go 12'))
  one.control(11, AnnounceFlow, announce(3, 11, AnnouncedPhase.owned))
  assert.deepEqual([one.entry(5)?.owner, one.anomalies['stale-epoch']], [12, 1])
  one.take()
  one.control(12, AnnounceFlow, announce(4, 12, AnnouncedPhase.waiting))
  assert.ok(one.log.includes('Go 12'))
})

test('nobody hangs where no runtime is configured; planted: nothing is learnt', () => {
  const one = new ScriptedSwitch(configOf({ runtimes: [] }), 1, roundRobin())
  assert.equal(one.logic.isLearning, false)
  planted['relearn-at-once'] = true
  const other = new ScriptedSwitch(configOf(), 1, roundRobin())
  other.external(5)
  assert.deepEqual(other.take(), ['=FlowOpen 12', 'packet 5 to 12'])
})

test('what a runtime sends of a flow that is not announced yet waits for its announcement', () => {
  const one = new ScriptedSwitch(configOf(), 2, roundRobin())
  one.fromRuntime(5, 11)
  one.fromRuntime(6, 11)
  assert.deepEqual(one.take(), [])
  one.control(11, AnnounceFlow, { flow: 77, epoch: 4, node: 11, key: 5, words: { [AnnounceFlowOwnerIncarnation]: 111 } })
  one.announced(11)
  one.announced(12)
  assert.deepEqual(one.take(), ['packet 5 out', 'drop not-releaser'])
})
