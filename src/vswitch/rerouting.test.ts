/** Rerouting: moves, claims and changes of releaser as a switch sees them, with scripted messages. */

import assert from 'node:assert/strict'
import { afterEach, test } from 'node:test'
import { planted } from '../base/planted-bugs.ts'
import { FlowClosed } from '../messages/closing.ts'
import {
  Drained, RerouteFlow, RerouteFlowBuffersAt, RerouteFlowDead, RerouteFlowDeadIncarnation, RerouteFlowOwnerIncarnation,
} from '../messages/migration.ts'
import { Bind, PlaceFlowReply } from '../messages/placement.ts'
import { bindOf, configOf, FIRST, learnt, opened, replyTo, rerouteTo, secured } from './scripted-scenes.ts'
import { defaultSwitchTimes } from './switch-context.ts'
import { EntryPhase } from './switch-table.ts'

afterEach(() => { for (const bug of Object.keys(planted) as (keyof typeof planted)[]) planted[bug] = false })

test('a move: the word behind the last packet, Go when the releaser has drained', () => {
  const one = opened()
  one.control(12, RerouteFlow, rerouteTo(11, 2))
  assert.deepEqual(one.take(), ['=RerouteFlowReply 12'])
  one.external(5)
  one.fromRuntime(5, 12)
  one.fromRuntime(5, 11)
  assert.deepEqual(one.take(), ['packet 5 to 11', 'packet 5 out', 'drop not-releaser'])
  assert.equal(one.steps.drained, 1)
  one.inBand(12, Drained, { flow: FIRST, epoch: 2 })
  assert.deepEqual(one.take(), ['Go 11'])
  one.fromRuntime(5, 11)
  assert.deepEqual(one.take(), ['packet 5 out'])
  assert.equal(one.steps.drained, 0)
})

test('a claim that was given up leaves the flow to whoever claims it next, and to nobody after a while', () => {
  const one = opened()
  const flow = FIRST
  one.control(11, RerouteFlow, rerouteTo(11, 3))
  one.inBand(12, Drained, { flow, epoch: 3 })
  one.control(12, FlowClosed, { flow, epoch: 3, key: 5, code: 2 })
  one.control(11, FlowClosed, { flow, epoch: 2, key: 5, code: 2 })
  assert.equal(one.entry(5)?.owner, 11, 'neither another runtime nor an older claim takes it back')
  one.take()
  one.control(11, FlowClosed, { flow, epoch: 3, key: 5, code: 2 })
  one.inBand(11, Drained, { flow, epoch: 4 })
  one.external(5)
  assert.deepEqual([one.take(), one.context.held, one.steps.orphaned], [[], 1, 1])
  one.control(12, RerouteFlow, rerouteTo(12, 20))
  assert.deepEqual([one.take(), one.steps.orphaned, one.steps.drained], [['=RerouteFlowReply 12', 'Go 12', 'packet 5 to 12'], 0, 0])
  one.control(12, FlowClosed, { flow, epoch: 20, key: 5, code: 2 })
  one.external(5)
  one.pass(defaultSwitchTimes.holdUs + 1)
  assert.deepEqual([one.steps.orphaned, one.context.held, one.drops], [0, 0, {}])
  assert.notEqual(one.entry(5)?.flow, flow, 'its packets open a new flow')
})

test('the end of a flow that a replica has claimed meanwhile is its owner\'s last word about it', () => {
  const one = opened()
  const ends = { flow: FIRST, key: 5, code: 1 }
  one.control(11, RerouteFlow, rerouteTo(11, 9))
  assert.deepEqual([one.take().includes('Go 11'), one.steps.drained], [false, 1], 'the owner may be sending still')
  one.inBand(11, FlowClosed, { ...ends, epoch: 1 })
  one.inBand(12, FlowClosed, { ...ends, epoch: 1, node: 11 })
  assert.equal(one.steps.drained, 1, 'of another, and while its replica releases')
  one.inBand(12, FlowClosed, { ...ends, epoch: 1 })
  assert.deepEqual([one.take(), one.steps.drained, one.entry(5)?.owner], [['Go 11'], 0, 11])
})

test('Drained that overtakes its RerouteFlow counts', () => {
  const one = opened()
  one.inBand(12, Drained, { flow: FIRST, epoch: 2 })
  one.control(12, RerouteFlow, rerouteTo(11, 2))
  assert.deepEqual(one.take(), ['=RerouteFlowReply 12', 'Go 11'])
})

test('a change that overtakes another waits for the last word of whoever has released, at whatever epoch it was said since', () => {
  const one = opened()
  one.control(12, RerouteFlow, rerouteTo(11, 2))
  one.inBand(11, Drained, { flow: FIRST, epoch: 3 })
  one.control(11, RerouteFlow, rerouteTo(11, 3))
  assert.deepEqual(one.take(), ['=RerouteFlowReply 12', '=RerouteFlowReply 11'], 'runtime 11 was never the releaser')
  one.inBand(12, Drained, { flow: FIRST, epoch: 2 })
  assert.deepEqual(one.take(), ['Go 11'])
  one.control(11, RerouteFlow, rerouteTo(12, 4))
  assert.deepEqual([one.take(), one.entry(5)?.awaits], [['=RerouteFlowReply 11'], true], 'that word is from before 11 released')
  one.inBand(11, Drained, { flow: FIRST, epoch: 4 })
  assert.deepEqual(one.take(), ['Go 12'])
})

test('a flow that its home tells of in the middle of a move: who has released it may go on until its last word', () => {
  for (const hasBind of [true, false]) {
    const one = learnt(2)
    one.external(5)
    one.control(1, PlaceFlowReply, { ...replyTo(1), epoch: 2 })
    assert.deepEqual(one.take(), ['PlaceFlow 1', '=FlowOpen 11', 'packet 5 to 11'])
    if (hasBind) one.inBand(12, Bind, bindOf(12))
    one.control(12, RerouteFlow, rerouteTo(11, 2))
    one.fromRuntime(5, 12)
    assert.deepEqual(one.take(), ['=RerouteFlowReply 12', 'packet 5 out'])
    one.inBand(12, Drained, { flow: FIRST, epoch: 2 })
    assert.deepEqual(one.take(), ['Go 11'])
    assert.deepEqual(one.entry(5), { owner: 11, releaser: 11, epoch: 2, flow: FIRST, phase: EntryPhase.active, awaits: false })
  }
})

test('a change of releaser that comes ahead of all else about a flow waits for the one before', () => {
  const one = learnt(2)
  one.external(5)
  one.take()
  one.control(11, RerouteFlow, secured)
  one.inBand(11, Bind, bindOf(11))
  one.fromRuntime(5, 11)
  assert.deepEqual(one.take(), ['=RerouteFlowReply 11', 'packet 5 to 11', 'packet 5 out'])
  one.inBand(11, Drained, { flow: FIRST, epoch: 2 })
  one.fromRuntime(5, 12)
  assert.deepEqual(one.take(), ['Go 11', 'packet 5 out'])
})

test('of two last words about an unknown flow, the one that is waited for counts', () => {
  for (const runtimes of [[11, 12], [12, 11]]) {
    const one = learnt(2)
    for (const runtime of runtimes) one.inBand(runtime, Drained, { flow: FIRST, epoch: 2 })
    one.control(11, RerouteFlow, secured)
    assert.deepEqual(one.take(), ['=RerouteFlowReply 11', 'Go 11'], runtimes.join())
  }
})

test('a flow whose key becomes another flow\'s while its releaser is awaited hears Go: nobody waits for ever', () => {
  const one = opened()
  one.control(12, RerouteFlow, rerouteTo(11, 2))
  assert.deepEqual([one.take(), one.steps.drained], [['=RerouteFlowReply 12'], 1])
  one.inBand(12, Bind, bindOf(12, 12, 1, FIRST + 7))
  assert.deepEqual([one.sent.map(({ name, to, flow, epoch }) => [name, to, flow, epoch]), one.steps.drained], [[['Go', 11, FIRST, 2]], 0])
  one.inBand(12, Drained, { flow: FIRST, epoch: 2 })
  assert.deepEqual([one.entry(5)?.flow, one.entry(5)?.releaser], [FIRST + 7, 12])
})

test('a move back to the releaser: the word goes to the target, Go at once', () => {
  const one = opened()
  one.control(12, RerouteFlow, rerouteTo(11, 2))
  one.take()
  one.control(12, RerouteFlow, rerouteTo(12, 3))
  assert.deepEqual(one.take(), ['=RerouteFlowReply 11', 'Go 12'])
  assert.equal(one.steps.drained, 0)
})

test('RerouteFlow that is said again is answered again, one of an epoch that is over is not', () => {
  const one = opened()
  one.control(12, RerouteFlow, rerouteTo(11, 2))
  one.take()
  one.control(12, RerouteFlow, rerouteTo(11, 2))
  assert.deepEqual(one.take(), ['=RerouteFlowReply 12'])
  one.control(12, RerouteFlow, rerouteTo(12, 1))
  assert.deepEqual([one.take(), one.entry(5)?.owner, one.anomalies['stale-epoch']], [[], 11, 1])
  planted['stale-epoch'] = true
  one.control(12, RerouteFlow, rerouteTo(12, 1))
  assert.equal(one.entry(5)?.owner, 12)
})

test('a switch that does not know the flow makes the entry, and answers to the sender', () => {
  const one = learnt(2)
  one.control(12, RerouteFlow, rerouteTo(11, 2))
  assert.deepEqual(one.take(), ['=RerouteFlowReply 12'])
  assert.deepEqual([one.entry(5)?.owner, one.entry(5)?.releaser], [11, 12])
})

test('planted: the word goes past the data', () => {
  planted['barrier-out-of-band'] = true
  const one = opened()
  one.control(12, RerouteFlow, rerouteTo(11, 2))
  assert.deepEqual(one.take(), ['RerouteFlowReply 12'])
})

test('a replica that goes on for the dead: the word goes to the target that it names, whoever was the owner since, if that one lives', () => {
  const runtimes = [11, 12, 13].map((id) => ({ id, incarnation: 100 + id, isDraining: false }))
  const words = { [RerouteFlowOwnerIncarnation]: 113, [RerouteFlowDead]: 12, [RerouteFlowDeadIncarnation]: 112 }
  const repliesTo = (buffersAt: number, isCalledOff: boolean, isTargetDead = false): string[] => {
    const one = opened()
    one.configure(configOf({ version: 2, runtimes }))
    one.control(12, RerouteFlow, rerouteTo(11, 2))
    if (isCalledOff) one.control(12, RerouteFlow, rerouteTo(12, 3))
    one.configure(configOf({ version: 3, runtimes: runtimes.filter(({ id }) => id !== 12 && !(isTargetDead && id === 11)) }))
    one.take()
    one.control(13, RerouteFlow, { flow: FIRST, epoch: 12, node: 13, key: 5, code: 2, words: { ...words, [RerouteFlowBuffersAt]: buffersAt } })
    assert.equal(one.entry(5)?.owner, 13)
    return one.take().filter((what) => what.startsWith('=RerouteFlowReply'))
  }
  for (const isCalledOff of [true, false]) {
    // A source that has called the move off owns the flow at the switch: its target may have packets in its link all the same.
    assert.deepEqual(repliesTo(11, isCalledOff), ['=RerouteFlowReply 11'])
    assert.deepEqual(repliesTo(11, isCalledOff, true), ['=RerouteFlowReply 13'])
    assert.deepEqual(repliesTo(0, isCalledOff), ['=RerouteFlowReply 13'], 'nobody buffers anything')
  }
})
