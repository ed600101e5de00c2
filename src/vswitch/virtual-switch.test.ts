/** The rules of docs/protocol.md that concern a switch, each with scripted messages; limits; what is ignored; fuzzing. */

import assert from 'node:assert/strict'
import { afterEach, test } from 'node:test'
import { planted } from '../base/planted-bugs.ts'
import { Random } from '../base/random.ts'
import {
  AnnounceDone, AnnouncedPhase, AnnounceFlow, AnnounceFlowOwnerIncarnation, ConfigApplied, StopPlacing, Workload, WorkloadBusy,
  WorkloadFlows,
} from '../messages/announcing.ts'
import { CloseFlow, FlowClosed } from '../messages/closing.ts'
import { type ClusterConfig, flowIdOf } from '../messages/cluster-config.ts'
import { messageKinds } from '../messages/message.ts'
import {
  Drained, RerouteFlow, RerouteFlowOwnerIncarnation, RerouteFlowReleaser, RerouteFlowReleaserIncarnation, RerouteFlowReleaserNow,
  RerouteFlowReleaserNowIncarnation, RerouteFlowReply,
} from '../messages/migration.ts'
import {
  Bind, BindOwnerIncarnation, BindReleaser, BindReleaserIncarnation, PlaceFlow, PlaceFlowQuestion, PlaceFlowReply,
  PlaceFlowReplyOwnerIncarnation, PlaceFlowReplyQuestion, PlaceRefusal,
} from '../messages/placement.ts'
import { leastLoaded } from './placement/least-loaded.ts'
import { rendezvous } from './placement/rendezvous.ts'
import { roundRobin } from './placement/round-robin.ts'
import { type Said, ScriptedSwitch } from './scripted-switch.ts'
import type { SwitchLimits } from './switch-context.ts'
import { defaultSwitchTimes } from './switch-context.ts'
import { EntryPhase } from './switch-table.ts'

afterEach(() => { for (const bug of Object.keys(planted) as (keyof typeof planted)[]) planted[bug] = false })

/** Switches 1 and 2, the first home to all keys; runtimes 11 and 12 with the incarnations 111 and 112. */
function configOf(change: Partial<ClusterConfig> = {}): ClusterConfig {
  return {
    version: 1, clusterId: 1,
    switches: [{ id: 1, incarnation: 101, side: 'ingress', isHome: true },
      { id: 2, incarnation: 102, side: 'egress', isHome: false }],
    runtimes: [{ id: 11, incarnation: 111, isDraining: false }, { id: 12, incarnation: 112, isDraining: false }],
    ...change,
  }
}

const FIRST = flowIdOf(101, 1)

function learnt(self: number, limits: Partial<SwitchLimits> = {}, policy = roundRobin()): ScriptedSwitch {
  const one = new ScriptedSwitch(configOf(), self, policy, limits)
  for (const { id } of configOf().runtimes) one.announced(id)
  one.take()
  return one
}

/** The home with flow 5, id `FIRST`, at runtime 12. */
function opened(): ScriptedSwitch {
  const one = learnt(1)
  one.external(5)
  one.take()
  assert.deepEqual(one.entry(5), { owner: 12, releaser: 12, epoch: 1, flow: FIRST, phase: EntryPhase.active, awaits: false })
  return one
}

const rerouteTo = (node: number, epoch: number, flow = FIRST) =>
  ({ flow, epoch, node, key: 5, words: { [RerouteFlowOwnerIncarnation]: 100 + node } })

/** The home's answer to a question of switch 2: flow 5, by its id, is at runtime 11. */
const replyTo = (question: number, flow = FIRST): Said => ({ flow, epoch: 1, node: 11, key: 5,
  words: { [PlaceFlowReplyOwnerIncarnation]: 111, [PlaceFlowReplyQuestion]: question } })

/** An owner, or its replica, says who serves a flow with key 5. */
const bindOf = (owner: number, releaser = owner, epoch = 1, flow = FIRST): Said => ({ flow, epoch, node: owner, key: 5,
  halves: { [BindReleaser]: releaser }, words: { [BindReleaserIncarnation]: 100 + releaser, [BindOwnerIncarnation]: 100 + owner } })

// -- Opening -----------------------------------------------------------------------------------------------------------

test('the home places an unknown flow: FlowOpen in-band, then the packet', () => {
  const one = learnt(1)
  one.external(5)
  one.external(5)
  one.external(6)
  assert.deepEqual(one.take(), ['=FlowOpen 12', 'packet 5 to 12', 'packet 5 to 12', '=FlowOpen 11', 'packet 6 to 11'])
})

test('another switch asks the home, holds, and sends what it holds behind FlowOpen', () => {
  const one = learnt(2)
  one.external(5)
  one.external(5)
  assert.deepEqual(one.take(), ['PlaceFlow 1'])
  assert.deepEqual([one.steps.asking, one.context.held], [1, 2])
  one.control(1, PlaceFlowReply, replyTo(1))
  assert.deepEqual(one.take(), ['=FlowOpen 11', 'packet 5 to 11', 'packet 5 to 11'])
  assert.deepEqual([one.steps.asking, one.context.held], [0, 0])
  one.control(1, PlaceFlowReply, replyTo(1))
  assert.equal(one.anomalies['late-placement'], 1)
})

test('an answer to an earlier question, about a flow that has ended since, is not taken for that to a later one', () => {
  const one = learnt(2)
  one.external(5)
  one.inBand(11, Bind, bindOf(11))
  one.control(11, FlowClosed, { flow: FIRST, epoch: 1, code: 1, key: 5 })
  one.external(5)
  assert.deepEqual(one.take(), ['PlaceFlow 1', 'packet 5 to 11', 'PlaceFlow 1'])
  one.control(1, PlaceFlowReply, replyTo(1))
  assert.deepEqual([one.take(), one.anomalies['late-placement'], one.steps.asking], [[], 1, 1])
  one.control(1, PlaceFlowReply, replyTo(2, FIRST + 1))
  assert.deepEqual([one.take(), one.entry(5)?.flow], [['=FlowOpen 11', 'packet 5 to 11'], FIRST + 1])
  const home = learnt(1)
  home.control(2, PlaceFlow, { key: 5, words: { [PlaceFlowQuestion]: 77 } })
  assert.equal(home.sent.at(-1)?.name, 'PlaceFlowReply')
  assert.equal(home.lastWord(PlaceFlowReplyQuestion), 77)
})

test('an answer that names a life which all have done with is asked for again, and one that some have not waits for their word', () => {
  const without11 = configOf({ version: 2, runtimes: [{ id: 12, incarnation: 112, isDraining: false }] })
  for (const isAll of [true, false]) {
    const one = learnt(2)
    one.external(5)
    one.configure(without11)
    if (isAll) one.control(12, ConfigApplied, { epoch: 2 })
    one.control(1, PlaceFlowReply, replyTo(1))
    assert.deepEqual([one.take(), one.context.held, one.steps.placing ?? 0], [['PlaceFlow 1'], 1, isAll ? 1 : 0])
    if (isAll) one.pass(defaultSwitchTimes.sweepUs + 1)
    else one.control(12, ConfigApplied, { epoch: 2 })
    assert.deepEqual(one.take(), ['PlaceFlow 1'])
    one.control(1, PlaceFlowReply, { ...replyTo(2, FIRST + 1), node: 12,
      words: { [PlaceFlowReplyOwnerIncarnation]: 112, [PlaceFlowReplyQuestion]: 2 } })
    assert.deepEqual([one.take(), one.steps.orphaned ?? 0, one.steps.placing ?? 0], [['=FlowOpen 12', 'packet 5 to 12'], 0, 0])
  }
})

test('the home answers from the entry, whoever asks first', () => {
  const one = learnt(1)
  one.control(2, PlaceFlow, { key: 5 })
  assert.deepEqual(one.sent.map(({ to, name, node, flow }) => [to, name, node, flow]),
    [[12, '=FlowOpen', 1, FIRST], [2, 'PlaceFlowReply', 12, FIRST]])
  one.take()
  one.control(2, PlaceFlow, { key: 5 })
  assert.deepEqual(one.take(), ['PlaceFlowReply 2'])
})

test('a switch that is asking learns the owner from Bind and sends what it holds', () => {
  const one = learnt(2)
  one.external(5)
  one.inBand(11, Bind, bindOf(11))
  assert.deepEqual(one.take(), ['PlaceFlow 1', 'packet 5 to 11'])
  one.fromRuntime(5, 11)
  one.fromRuntime(5, 12)
  assert.deepEqual(one.take(), ['packet 5 out', 'drop not-releaser'])
})

test('a replica that says late who owns a flow means the life that has died, not the one that has come since', () => {
  const next12 = configOf({ version: 2, runtimes: [11, 12].map((id) => ({ id, incarnation: id === 12 ? 122 : 111, isDraining: false })) })
  for (const isClaimed of [true, false]) {
    const one = learnt(2)
    one.external(5)
    one.configure(next12)
    // All has been said of that death where the flow has been claimed, and has ended since.
    if (!isClaimed) for (const id of [11, 12]) one.control(id, ConfigApplied, { epoch: 2 })
    one.inBand(11, Bind, bindOf(12, 11))
    assert.deepEqual([one.take(), one.context.held, one.entry(5)?.phase], [['PlaceFlow 1', 'HurryFlow 11'], 1, EntryPhase.orphaned])
    one.fromRuntime(5, 11)
    assert.deepEqual(one.take(), ['packet 5 out'])
    if (!isClaimed) {
      one.pass(defaultSwitchTimes.sweepUs)
      assert.deepEqual([one.take(), one.context.held, one.entry(5)?.phase], [['PlaceFlow 1'], 1, EntryPhase.asking])
      continue
    }
    one.control(11, RerouteFlow, { ...rerouteTo(11, 10), code: 2 })
    assert.deepEqual(one.take(), ['=RerouteFlowReply 11', 'Go 11', 'packet 5 to 11'])
  }
})

test('a Bind of an epoch or a flow that is over changes nothing', () => {
  const one = opened()
  one.control(12, RerouteFlow, rerouteTo(11, 2))
  one.inBand(12, Bind, bindOf(12))
  one.inBand(12, Bind, bindOf(12, 12, 9, FIRST - 1))
  assert.equal(one.entry(5)?.owner, 11)
  assert.equal(one.anomalies['stale-epoch'], 2)
})

test('planted: a switch that places itself, and one that learns from data', () => {
  planted['switch-places-itself'] = true
  const one = learnt(2)
  one.external(5)
  assert.deepEqual(one.take(), ['=FlowOpen 12', 'packet 5 to 12'])
  planted['learn-from-data'] = true
  one.fromRuntime(5, 11)
  assert.deepEqual([one.take(), one.entry(5)?.owner], [['packet 5 out'], 11])
})

// -- Packets that come back --------------------------------------------------------------------------------------------

test('a packet that comes back is steered by its entry, opened anew now and then, and dropped in the end', () => {
  const one = opened()
  for (let i = 0; i < 64; i++) one.returned(5)
  const log = one.take()
  assert.equal(log.filter((line) => line === 'packet 5 to 12').length, 64)
  assert.equal(log.filter((line) => line === '=FlowOpen 12').length, 8)
  one.returned(5)
  assert.deepEqual(one.take(), ['drop no-owner'])
  for (let i = 0; i < 70_000; i++) one.returned(5)
  assert.ok(one.take().every((line) => line === 'drop no-owner'), 'the count does not begin anew')
  one.control(12, RerouteFlow, rerouteTo(11, 2))
  one.take()
  one.returned(5)
  assert.deepEqual(one.take(), ['packet 5 to 11'])
})

// -- Closing -----------------------------------------------------------------------------------------------------------

test('closing: the reply in-band, packets held, and a new flow for them when it has ended', () => {
  const one = opened()
  one.control(12, CloseFlow, { flow: FIRST, epoch: 1, key: 5 })
  one.external(5)
  assert.deepEqual(one.take(), ['=CloseFlowReply 12'])
  one.control(2, PlaceFlow, { key: 5 })
  assert.deepEqual(one.take(), [], 'the question waits while it closes')
  one.fromRuntime(5, 12)
  one.inBand(12, FlowClosed, { flow: FIRST, epoch: 1, code: 1, key: 5 })
  assert.deepEqual(one.take(), ['packet 5 out', '=FlowOpen 11', 'packet 5 to 11', 'PlaceFlowReply 2'])
  assert.equal(one.entry(5)?.flow, FIRST + 1)
  assert.equal(one.steps.closing, 0)
})

test('closing that is cancelled: what was held goes to the owner', () => {
  const one = opened()
  one.control(12, CloseFlow, { flow: FIRST, epoch: 1, key: 5 })
  one.external(5)
  one.take()
  one.control(12, FlowClosed, { flow: FIRST, epoch: 1, key: 5 })
  assert.deepEqual(one.take(), ['packet 5 to 12'])
})

test('a switch that holds packets of the key says that it is busy', () => {
  const one = learnt(2)
  one.external(5)
  one.take()
  one.control(12, CloseFlow, { flow: FIRST, epoch: 1, key: 5 })
  assert.deepEqual(one.take(), ['=CloseFlowReply 12 code 1'])
})

test('the close of a flow that is over leaves the next one alone, but for the planted bug', () => {
  const one = opened()
  one.control(12, FlowClosed, { flow: FIRST - 1, epoch: 1, code: 1, key: 5 })
  assert.equal(one.entry(5)?.flow, FIRST)
  planted['stale-close'] = true
  one.control(12, FlowClosed, { flow: FIRST - 1, epoch: 1, code: 1, key: 5 })
  assert.equal(one.entry(5), null)
})

// -- Moving ------------------------------------------------------------------------------------------------------------

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

/** The owner 11 of a flow gets a replica at 12, and has released its frames itself so far. */
const secured: Said = { flow: FIRST, epoch: 2, node: 11, key: 5, words: {
  [RerouteFlowOwnerIncarnation]: 111, [RerouteFlowReleaser]: 12, [RerouteFlowReleaserIncarnation]: 112, [RerouteFlowReleaserNow]: 11,
  [RerouteFlowReleaserNowIncarnation]: 111 } }

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

// -- Fencing -----------------------------------------------------------------------------------------------------------

const without12 = configOf({ version: 2, runtimes: [{ id: 11, incarnation: 111, isDraining: false }] })

test('a fenced owner: packets are held until all have spoken, then they open another flow', () => {
  const one = opened()
  one.configure(without12)
  one.external(5)
  assert.deepEqual([one.take(), one.context.held, one.steps.orphaned], [[], 1, 1])
  one.control(11, ConfigApplied, { epoch: 2 })
  assert.deepEqual(one.take(), ['=FlowOpen 11', 'packet 5 to 11'])
  assert.equal(one.entry(5)?.flow, FIRST + 1)
})

test('a fenced target: the source claims the flow', () => {
  const one = opened()
  one.control(12, RerouteFlow, rerouteTo(11, 2))
  one.configure(configOf({ version: 2, runtimes: [{ id: 12, incarnation: 112, isDraining: false }] }))
  one.external(5)
  one.take()
  one.control(12, RerouteFlow, rerouteTo(12, 3))
  assert.deepEqual(one.take(), ['=RerouteFlowReply 12', 'Go 12', 'packet 5 to 12'])
  one.control(12, ConfigApplied, { epoch: 2 })
  assert.equal(one.entry(5)?.owner, 12)
})

test('a fenced releaser: Go at once', () => {
  const one = opened()
  one.control(12, RerouteFlow, rerouteTo(11, 2))
  one.take()
  one.configure(without12)
  assert.deepEqual(one.take(), ['Go 11'])
  assert.deepEqual([one.steps.drained, one.entry(5)?.releaser], [0, 11])
})

test('what a dead replica had released is told when the flow is released anew, also after a move that was given up', () => {
  const runtimes = [11, 12, 13].map((id) => ({ id, incarnation: 100 + id, isDraining: false }))
  const one = new ScriptedSwitch(configOf({ runtimes }), 2, roundRobin())
  one.inBand(11, Bind, bindOf(11, 12))
  for (let frame = 0; frame < 2; frame++) one.fromRuntime(5, 12)
  one.control(11, RerouteFlow, { flow: FIRST, epoch: 2, node: 13, key: 5, words: { [RerouteFlowOwnerIncarnation]: 113 } })
  one.configure(configOf({ version: 2, runtimes: runtimes.filter(({ id }) => id !== 12) }))
  one.control(11, RerouteFlow, { flow: FIRST, epoch: 3, node: 11, key: 5, words: { [RerouteFlowOwnerIncarnation]: 111 } })
  one.inBand(13, Drained, { flow: FIRST, epoch: 3 })
  one.control(11, RerouteFlow, { ...secured, epoch: 4,
    words: { ...secured.words, [RerouteFlowReleaser]: 13, [RerouteFlowReleaserIncarnation]: 113 } })
  one.inBand(11, Drained, { flow: FIRST, epoch: 4 })
  assert.deepEqual(one.sent.filter(({ name }) => name === 'Go').map(({ to, epoch, released }) => [to, epoch, released]),
    [[13, 2, 2], [11, 3, 2], [11, 4, 2]])
})

test('the word of a replica that comes when its owner has died and come back is about the dead: its frames leave, and the entry goes', () => {
  const runtimes = [11, 12].map((id) => ({ id, incarnation: id === 11 ? 211 : 112, isDraining: false }))
  const one = new ScriptedSwitch(configOf({ version: 2, runtimes }), 2, roundRobin())
  for (const { id } of runtimes) one.announced(id)
  one.inBand(12, Bind, bindOf(11, 12))
  one.fromRuntime(5, 12)
  one.external(5)
  assert.deepEqual([one.take(), one.entry(5)?.phase], [['packet 5 out', 'HurryFlow 12'], EntryPhase.orphaned])
  one.pass(defaultSwitchTimes.sweepUs)
  assert.deepEqual([one.take(), one.steps.orphaned, one.entry(5)?.flow], [['PlaceFlow 1'], 0, 0])
})

test('a fenced releaser whose next life is here already is not waited for', () => {
  const one = opened()
  one.control(12, RerouteFlow, rerouteTo(11, 2))
  one.inBand(12, Drained, { flow: FIRST, epoch: 2 })
  one.configure(configOf({ version: 2, runtimes: [{ id: 11, incarnation: 211, isDraining: false },
    { id: 12, incarnation: 112, isDraining: false }] }))
  one.take()
  one.control(12, RerouteFlow, rerouteTo(12, 3))
  assert.deepEqual(one.take(), ['=RerouteFlowReply 12', 'Go 12'])
  assert.equal(one.entry(5)?.releaser, 12)
})

// -- Restart -----------------------------------------------------------------------------------------------------------

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

// -- Placement ---------------------------------------------------------------------------------------------------------

test('StopPlacing is answered in-band and kept; draining runtimes get nothing new', () => {
  const one = learnt(1)
  one.control(12, StopPlacing, { code: 1 })
  for (let flow = 1; flow < 5; flow++) one.external(flow)
  assert.deepEqual(one.take(), ['=StopPlacingReply 12',
    ...[1, 2, 3, 4].flatMap((flow) => ['=FlowOpen 11', `packet ${flow} to 11`])])
  one.control(12, StopPlacing, { code: 0 })
  one.configure(configOf({ version: 2, runtimes: [{ id: 11, incarnation: 111, isDraining: true },
    { id: 12, incarnation: 112, isDraining: false }] }))
  one.external(9)
  assert.deepEqual(one.take(), ['=FlowOpen 12', 'packet 9 to 12'])
})

test('without a runtime packets are held, for a while', () => {
  const one = learnt(1)
  for (const runtime of [11, 12]) one.control(runtime, StopPlacing, { code: 1 })
  one.take()
  one.external(5)
  one.pass(defaultSwitchTimes.sweepUs)
  assert.deepEqual([one.take(), one.steps.placing], [[], 1])
  one.control(11, StopPlacing, { code: 0 })
  one.pass(defaultSwitchTimes.sweepUs)
  assert.deepEqual(one.take(), ['=FlowOpen 11', 'packet 5 to 11'])
  one.control(11, StopPlacing, { code: 1 })
  one.external(6)
  one.pass(defaultSwitchTimes.holdUs + 1)
  assert.deepEqual([one.drops, one.entry(6), one.steps.placing], [{ 'no-runtime': 1 }, null, 0])
})

test('least loaded: by reports and by what was placed since', () => {
  const one = learnt(1, {}, leastLoaded())
  const load = (flows: number, busy: number) => ({ words: { [WorkloadFlows]: flows, [WorkloadBusy]: busy } })
  one.control(11, Workload, load(10, 500))
  one.control(12, Workload, load(8, 500))
  for (let flow = 1; flow < 5; flow++) one.external(flow)
  assert.deepEqual([1, 2, 3, 4].map((flow) => one.entry(flow)?.owner), [12, 12, 11, 12])
  planted['load-for-runtime'] = true
  one.external(5)
  assert.deepEqual([one.anomalies['placement-policy'], one.entry(5)?.phase], [1, EntryPhase.placing])
})

test('rendezvous: a runtime that goes moves only its own keys', () => {
  const candidates = [11, 12, 13].map((id) => ({ id, busyPerMille: 0, flows: 0, placed: 0 }))
  const policy = rendezvous()
  const random = new Random(3)
  const counts = [0, 0, 0]
  for (let i = 0; i < 3000; i++) {
    const hash = random.int32()
    const before = policy.choose(candidates, hash)
    counts[before]++
    if (before !== 2) assert.equal(policy.choose(candidates.slice(0, 2), hash), before)
  }
  assert.ok(counts.every((count) => count > 850 && count < 1150), counts.join())
})

// -- Limits ------------------------------------------------------------------------------------------------------------

test('a runtime that does not keep up with what it is told gets no new flows', () => {
  const one = learnt(1)
  one.strained.add('=12')
  for (const flow of [5, 6]) one.external(flow)
  assert.deepEqual(one.take(), ['=FlowOpen 11', 'packet 5 to 11', '=FlowOpen 11', 'packet 6 to 11'])
  one.strained.add('=11')
  one.external(7)
  assert.deepEqual([one.take(), one.steps.placing, one.context.held], [[], 1, 1])
  one.strained.clear()
  one.pass(defaultSwitchTimes.sweepUs + 1)
  assert.deepEqual(one.take().map((line) => line.split(' ')[0]), ['=FlowOpen', 'packet'])
})

test('what a switch is to ask and to open waits while who is to hear it does not keep up', () => {
  const one = learnt(2)
  one.strained.add('1')
  one.external(5)
  assert.deepEqual([one.take(), one.context.held], [[], 1])
  one.strained.clear()
  one.pass(defaultSwitchTimes.sweepUs + 1)
  assert.deepEqual(one.take(), ['PlaceFlow 1'])
  one.strained.add('=11')
  one.control(1, PlaceFlowReply, replyTo(1))
  assert.deepEqual([one.take(), one.context.held], [[], 1])
  one.strained.clear()
  one.pass(defaultSwitchTimes.sweepUs + 1)
  assert.deepEqual(one.take(), ['PlaceFlow 1'])
  one.control(1, PlaceFlowReply, replyTo(2))
  assert.deepEqual(one.take(), ['=FlowOpen 11', 'packet 5 to 11'])
})

test('packets of a flow wait while its owner cannot be told of it: none goes ahead of FlowOpen, to come back behind another', () => {
  const one = learnt(2)
  one.external(5)
  one.external(5)
  one.take()
  one.control(1, PlaceFlowReply, { ...replyTo(1), node: 13, words: { [PlaceFlowReplyOwnerIncarnation]: 113, [PlaceFlowReplyQuestion]: 1 } })
  one.strained.add('=13')
  one.configure(configOf({ version: 2, runtimes: [...configOf().runtimes, { id: 13, incarnation: 113, isDraining: false }] }))
  one.pass(defaultSwitchTimes.sweepUs + 1)
  assert.deepEqual([one.take(), one.context.held], [[], 2])
  one.strained.clear()
  one.pass(100)
  assert.deepEqual(one.take(), ['=FlowOpen 13', 'packet 5 to 13', 'packet 5 to 13'])
})

test('a flow that could only wait does not begin while there is no room to wait', () => {
  const one = learnt(2, { held: 2 })
  for (const flow of [5, 6, 7, 8]) one.external(flow)
  assert.deepEqual([one.drops, one.table.size, one.take().length], [{ 'hold-limit': 2 }, 2, 4])
})

test('held packets are bounded per flow and in total, and in time', () => {
  const one = learnt(2, { heldPerFlow: 3, held: 5 })
  for (let i = 0; i < 4; i++) one.external(5)
  assert.deepEqual(one.drops, { 'hold-limit': 1 })
  for (let i = 0; i < 3; i++) one.external(6)
  assert.deepEqual([one.drops, one.context.held], [{ 'hold-limit': 2 }, 5])
  one.pass(defaultSwitchTimes.holdUs + 1)
  assert.deepEqual(one.drops, { 'hold-limit': 2, 'no-home': 5 })
  assert.deepEqual([one.context.held, one.pool.used, one.table.size, one.steps.asking], [0, 0, 0, 0])
})

test('a full table drops new flows and leaves those that are there alone', () => {
  const one = learnt(1, { entries: 2 })
  for (const flow of [5, 6, 7, 5]) one.external(flow)
  assert.deepEqual(one.drops, { 'flow-table-full': 1 })
  one.take()
  one.external(5)
  one.control(2, PlaceFlow, { key: 8 })
  assert.deepEqual(one.take(), ['packet 5 to 12', `PlaceFlowReply 2 code ${PlaceRefusal.tableFull}`])
  const other = learnt(2)
  other.external(8)
  other.control(1, PlaceFlowReply, { key: 8, code: PlaceRefusal.tableFull, words: { [PlaceFlowReplyQuestion]: 1 } })
  assert.deepEqual([other.drops, other.table.size], [{ 'flow-table-full': 1 }, 0])
  one.inBand(11, Bind, { ...bindOf(11, 11, 1, 999), key: 9 })
  assert.equal(one.anomalies['flow-table-full'], 1)
})

test('a life of a switch has a bounded number of flow ids: flows beyond wait for its next one, for a while', () => {
  const one = learnt(1, { flowIds: 2 })
  for (const flow of [5, 6, 7, 5]) one.external(flow)
  one.control(2, PlaceFlow, { key: 8 })
  assert.deepEqual(one.take(), ['=FlowOpen 12', 'packet 5 to 12', '=FlowOpen 11', 'packet 6 to 11', 'packet 5 to 12'])
  assert.deepEqual([one.anomalies['flow-ids-spent'], one.steps.placing], [2, 2])
  one.pass(defaultSwitchTimes.holdUs + 1)
  assert.deepEqual([one.drops, one.table.size, one.context.held], [{ 'no-runtime': 1 }, 2, 0])
})

test('questions that wait are bounded', () => {
  const one = new ScriptedSwitch(configOf(), 1, roundRobin(), { questions: 2 })
  for (const key of [5, 6, 7]) one.control(2, PlaceFlow, { key })
  assert.deepEqual(one.take(), [`PlaceFlowReply 2 code ${PlaceRefusal.tableFull}`])
})

test('questions that wait are given up when who asked has', () => {
  const one = new ScriptedSwitch(configOf(), 1, roundRobin())
  one.control(2, PlaceFlow, { key: 5 })
  one.pass(defaultSwitchTimes.holdUs + 1)
  for (const { id } of configOf().runtimes) one.announced(id)
  assert.deepEqual([one.take(), one.anomalies['question-timeout'], one.logic.nextDue()], [[], 1, Infinity])
})

// -- What is ignored ---------------------------------------------------------------------------------------------------

test('short, long, unknown and misplaced messages are counted and ignored', () => {
  const one = opened()
  one.raw(false, 12, new Uint8Array(3))
  one.raw(true, 12, Uint8Array.of(200, ...new Uint8Array(15)))
  one.raw(false, 12, Uint8Array.of(CloseFlow.type, ...new Uint8Array(CloseFlow.bytes)))
  one.raw(true, 12, Uint8Array.of(Bind.type, ...new Uint8Array(20)))
  assert.equal(one.anomalies['malformed-message'], 4)
  one.inBand(12, RerouteFlow, rerouteTo(11, 2))
  one.control(12, RerouteFlowReply)
  assert.equal(one.anomalies['unexpected-message'], 2)
  one.inBand(12, Drained, { flow: 12345 })
  assert.equal(one.anomalies['unknown-flow'], 1)
  assert.deepEqual(one.entry(5)?.owner, 12)
})

test('last words about unknown flows are bounded', () => {
  const one = opened()
  for (let flow = 1; flow <= 1024; flow++) one.inBand(12, Drained, { flow: 50_000 + flow, epoch: 1 })
  assert.equal(one.anomalies['early-drained-limit'], undefined)
  one.inBand(12, Drained, { flow: 49_000, epoch: 1 })
  assert.equal(one.anomalies['early-drained-limit'], 1)
})

test('fuzz: whatever the messages, packets are all accounted for and steps end as often as they begin', () => {
  for (let seed = 1; seed <= 40; seed++) {
    const random = new Random(seed)
    const one = new ScriptedSwitch(configOf(), 1 + seed % 2, roundRobin(),
      { entries: 24, held: 40, heldPerFlow: 8, questions: 4 })
    const kinds = messageKinds()
    let packets = 0
    let gone = 0
    for (let step = 0; step < 3000; step++) {
      const draw = random.below(20)
      const flow = 1 + random.below(12)
      if (draw < 4) {
        one.external(flow)
        packets++
      } else if (draw < 6) {
        one.fromRuntime(flow, 11 + random.below(2))
        packets++
      } else if (draw === 6) {
        one.returned(flow)
        packets++
      } else if (draw === 7) {
        one.pass(random.below(600_000))
      } else if (draw === 8) {
        const version = step + 2
        const runtimes = configOf().runtimes.filter(() => random.chance(0.8))
        one.configure(configOf({ version, runtimes }))
        if (random.chance(0.7)) for (const { id } of runtimes) one.control(id, ConfigApplied, { epoch: version })
      } else {
        const kind = kinds[random.below(kinds.length)]
        const node = random.chance(0.9) ? 11 + random.below(2) : random.below(20)
        const said: Said = { flow: random.chance(0.8) ? flowIdOf(101, 1 + random.below(40)) : random.below(1e6),
          epoch: random.below(5), node, code: random.below(3), key: kind.bytes >= 72 ? flow : undefined,
          words: kind.bytes >= 76 ? { 72: 100 + node } : {} as Record<number, number>,
          tail: kind.hasTail ? Array.from({ length: random.below(30) }, () => random.below(100)) : [] }
        const peer = [1, 2, 11, 12, 77][random.below(5)]
        if (random.chance(0.4)) one.inBand(11 + random.below(2), kind, said)
        else one.control(peer, kind, said)
      }
      gone += one.take().filter((line) => line.startsWith('packet') || line.startsWith('drop')).length
      assert.equal(packets, gone + one.context.held, `seed ${seed} step ${step}`)
      assert.equal(one.pool.used, one.context.held)
    }
    one.configure(configOf({ version: 1e6 }))
    for (const { id } of configOf().runtimes) {
      one.announced(id)
    }
    for (let i = 0; i < 3; i++) one.pass(defaultSwitchTimes.holdUs + 1)
    for (const name of ['asking', 'placing', 'learning', 'relearning']) {
      assert.equal(one.steps[name] ?? 0, 0, `seed ${seed}: ${name}`)
    }
  }
})
