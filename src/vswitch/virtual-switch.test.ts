/** The rules of docs/protocol.md that concern a switch, each with scripted messages; limits; what is ignored; fuzzing. */

import assert from 'node:assert/strict'
import { afterEach, test } from 'node:test'
import { planted } from '../base/planted-bugs.ts'
import { Random } from '../base/random.ts'
import { ConfigApplied } from '../messages/announcing.ts'
import { CloseFlow, FlowClosed } from '../messages/closing.ts'
import { flowIdOf } from '../messages/cluster-config.ts'
import { messageKinds } from '../messages/message.ts'
import {
  Drained, RerouteFlow, RerouteFlowOwnerIncarnation, RerouteFlowReleaser, RerouteFlowReleaserIncarnation, RerouteFlowReply,
} from '../messages/migration.ts'
import {
  Bind, PlaceFlow, PlaceFlowQuestion, PlaceFlowReply, PlaceFlowReplyOwnerIncarnation, PlaceFlowReplyQuestion, PlaceRefusal,
} from '../messages/placement.ts'
import { roundRobin } from './placement/round-robin.ts'
import { bindOf, configOf, FIRST, learnt, opened, replyTo, rerouteTo, secured, without12 } from './scripted-scenes.ts'
import { type Said, ScriptedSwitch } from './scripted-switch.ts'
import { defaultSwitchTimes } from './switch-context.ts'
import { EntryPhase } from './switch-table.ts'

afterEach(() => { for (const bug of Object.keys(planted) as (keyof typeof planted)[]) planted[bug] = false })

// -- Opening -----------------------------------------------------------------------------------------------------------

test('the scene that most tests begin with', () => {
  assert.deepEqual(opened().entry(5), { owner: 12, releaser: 12, epoch: 1, flow: FIRST, phase: EntryPhase.active, awaits: false })
})

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

// -- Fencing -----------------------------------------------------------------------------------------------------------

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

test('segments that wait leave half of the large slots to those that go on', () => {
  const one = learnt(2, { largePackets: 8 })
  for (let flow = 5; flow < 12; flow++) one.external(flow, 20_000)
  assert.deepEqual([one.drops, one.context.held, one.pool.availableLarge], [{ 'hold-limit': 3 }, 4, 4])
  one.external(12)
  assert.equal(one.context.held, 5, 'a small one waits all the same')
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
