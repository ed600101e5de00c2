/** Alias keys: claimed at their home, known everywhere before they are granted, gone with their flow. PROTOCOL 5. */

import assert from 'node:assert/strict'
import { afterEach, test } from 'node:test'
import { planted } from '../base/planted-bugs.ts'
import { KEY_WORDS } from '../flow/flow-record.ts'
import { AliasRefusal, BindAlias, BindAliasReply, ClaimAlias } from '../messages/aliasing.ts'
import { AnnounceFlow, AnnounceFlowOwnerIncarnation, ConfigApplied } from '../messages/announcing.ts'
import { FlowClosed } from '../messages/closing.ts'
import { type ClusterConfig, flowIdOf } from '../messages/cluster-config.ts'
import { RerouteFlow, RerouteFlowOwnerIncarnation } from '../messages/migration.ts'
import { Bind, BindOwnerIncarnation, BindReleaser, BindReleaserIncarnation, PlaceFlow } from '../messages/placement.ts'
import { roundRobin } from './placement/round-robin.ts'
import { ScriptedSwitch } from './scripted-switch.ts'
import type { SwitchLimits } from './switch-context.ts'

afterEach(() => { for (const bug of Object.keys(planted) as (keyof typeof planted)[]) planted[bug] = false })

const FIRST = flowIdOf(101, 1)
const ALIAS = 50

function configOf(change: Partial<ClusterConfig> = {}): ClusterConfig {
  return {
    version: 1, clusterId: 1,
    switches: [{ id: 1, incarnation: 101, side: 'ingress', isHome: true },
      { id: 2, incarnation: 102, side: 'egress', isHome: false }],
    runtimes: [{ id: 11, incarnation: 111, isDraining: false }],
    ...change,
  }
}

/** The home with flow `FIRST` (key 5) and the next (key 6) at runtime 11. */
function home(entries = 100, limits: Partial<SwitchLimits> = {}): ScriptedSwitch {
  const one = new ScriptedSwitch(configOf(), 1, roundRobin(), { entries, ...limits })
  one.announced(11)
  one.external(5)
  one.external(6)
  one.take()
  return one
}

/** Switch 2, which knows the same flows. */
function other(limits: Partial<SwitchLimits> = {}): ScriptedSwitch {
  const one = new ScriptedSwitch(configOf(), 2, roundRobin(), limits)
  one.announced(11)
  for (const key of [5, 6]) one.inBand(11, Bind, bindOf(key))
  one.take()
  return one
}

const bindOf = (key: number) => ({ flow: FIRST + key - 5, epoch: 1, node: 11, key, halves: { [BindReleaser]: 11 },
  words: { [BindReleaserIncarnation]: 111, [BindOwnerIncarnation]: 111 } })
const refused = (reason: number) => [`ClaimAliasReply 11 code ${reason}`]

test('a claim is granted when every other switch has the alias', () => {
  const one = home()
  one.control(11, ClaimAlias, { flow: FIRST, key: ALIAS })
  assert.deepEqual([one.take(), one.steps.claiming], [['BindAlias 2'], 1])
  one.control(2, BindAliasReply, { flow: FIRST, key: ALIAS + 1 })
  assert.deepEqual([one.take(), one.anomalies], [[], { 'late-alias-reply': 1 }])
  one.control(2, BindAliasReply, { flow: FIRST, key: ALIAS })
  assert.deepEqual([one.take(), one.steps.claiming], [['ClaimAliasReply 11'], 0])
  one.external(ALIAS)
  one.fromRuntime(ALIAS, 11)
  assert.deepEqual(one.take(), [`packet ${ALIAS} to 11`, `packet ${ALIAS} out`])
})

test('planted: granted before it is bound, and twice', () => {
  planted['alias-before-bound'] = true
  const one = home()
  one.control(11, ClaimAlias, { flow: FIRST, key: ALIAS })
  assert.deepEqual(one.take(), ['BindAlias 2', 'ClaimAliasReply 11'])
  planted['alias-granted-twice'] = true
  one.control(11, ClaimAlias, { flow: FIRST + 1, key: ALIAS })
  assert.deepEqual(one.take(), ['BindAlias 2', 'ClaimAliasReply 11'])
})

test('refused: taken by a flow or an alias, of an unknown flow, no room', () => {
  const one = home(3)
  one.control(11, ClaimAlias, { flow: FIRST, key: 6 })
  assert.deepEqual(one.take(), refused(AliasRefusal.taken))
  one.control(11, ClaimAlias, { flow: 12345, key: ALIAS })
  assert.deepEqual(one.take(), refused(AliasRefusal.unknownFlow))
  one.control(11, ClaimAlias, { flow: FIRST, key: ALIAS })
  one.control(2, BindAliasReply, { flow: FIRST, key: ALIAS })
  one.take()
  one.control(11, ClaimAlias, { flow: FIRST + 1, key: ALIAS })
  assert.deepEqual(one.take(), refused(AliasRefusal.taken))
  one.control(11, ClaimAlias, { flow: FIRST + 1, key: ALIAS + 1 })
  assert.deepEqual(one.take(), refused(AliasRefusal.tableFull))
})

test('claims that other switches have yet to hear of are bounded', () => {
  const one = home(100, { claims: 1 })
  one.control(11, ClaimAlias, { flow: FIRST, key: ALIAS })
  one.control(11, ClaimAlias, { flow: FIRST, key: ALIAS })
  assert.deepEqual(one.take(), ['BindAlias 2', 'BindAlias 2'], 'said again it is the same claim')
  one.control(11, ClaimAlias, { flow: FIRST + 1, key: ALIAS + 1 })
  assert.deepEqual(one.take(), refused(AliasRefusal.tableFull))
  assert.equal(one.entryOf(ALIAS + 1), 0)
  one.control(2, BindAliasReply, { flow: FIRST, key: ALIAS })
  one.take()
  one.control(11, ClaimAlias, { flow: FIRST + 1, key: ALIAS + 1 })
  assert.deepEqual(one.take(), ['BindAlias 2'])
})

test('while the home learns after a restart claims wait: the key may be that of a flow which has yet to be announced', () => {
  const one = new ScriptedSwitch(configOf(), 1, roundRobin())
  const announce = (key: number, alias?: number): void => {
    one.control(11, AnnounceFlow, { flow: FIRST + key - 5, epoch: 1, node: 11, key, words: { [AnnounceFlowOwnerIncarnation]: 111 },
      ...(alias === undefined ? {} : { tail: [...one.arena.i32.slice(one.keyOf(alias), one.keyOf(alias) + KEY_WORDS), 0] }) })
  }
  announce(6)
  one.control(11, ClaimAlias, { flow: FIRST + 1, key: ALIAS })
  one.control(11, ClaimAlias, { flow: FIRST + 2, key: ALIAS + 1 })
  announce(5, ALIAS)
  announce(7)
  assert.deepEqual([one.take(), one.table.mainOf(one.entryOf(ALIAS)), one.entryOf(ALIAS + 1)], [[], one.entryOf(5), 0])
  one.announced(11)
  assert.deepEqual([one.take(), one.steps.claiming], [[...refused(AliasRefusal.taken), 'BindAlias 2'], 1])
  assert.equal(one.table.mainOf(one.entryOf(ALIAS + 1)), one.entryOf(7))
})

test('claims that wait while the home learns are bounded, and end with their flow and their runtime', () => {
  const one = new ScriptedSwitch(configOf({ runtimes: [11, 12].map((id) => ({ id, incarnation: 100 + id, isDraining: false })) }), 1,
    roundRobin(), { claims: 2 })
  one.control(11, ClaimAlias, { flow: FIRST, key: ALIAS })
  one.control(12, ClaimAlias, { flow: FIRST + 1, key: ALIAS + 1 })
  one.control(11, ClaimAlias, { flow: FIRST, key: ALIAS + 2 })
  assert.deepEqual(one.take(), [])
  one.control(11, ClaimAlias, { flow: FIRST + 2, key: ALIAS + 3 })
  assert.deepEqual(one.take(), refused(AliasRefusal.tableFull))
  one.control(11, FlowClosed, { flow: FIRST, epoch: 1, code: 1, key: 5 })
  one.configure(configOf({ version: 2 }))
  one.announced(11)
  assert.deepEqual([one.logic.isLearning, one.take()], [false, []])
})

test('an alias follows its flow and ends with it', () => {
  const one = other()
  one.control(1, BindAlias, { flow: FIRST, key: ALIAS })
  assert.deepEqual(one.take(), ['BindAliasReply 1'])
  one.configure(configOf({ version: 2, runtimes: [11, 12].map((id) => ({ id, incarnation: 100 + id, isDraining: false })) }))
  one.control(11, RerouteFlow, { flow: FIRST, epoch: 2, node: 12, key: 5, words: { [RerouteFlowOwnerIncarnation]: 112 } })
  one.take()
  one.external(ALIAS)
  assert.deepEqual(one.take(), [`packet ${ALIAS} to 12`])
  one.control(12, FlowClosed, { flow: FIRST, epoch: 2, code: 1, key: 5 })
  assert.deepEqual([one.entryOf(5), one.entryOf(ALIAS), one.table.size], [0, 0, 1])
})

test('an alias that comes before its flow waits for it, and is forgotten if that ends', () => {
  const one = new ScriptedSwitch(configOf(), 2, roundRobin())
  one.announced(11)
  one.control(1, BindAlias, { flow: FIRST, key: ALIAS })
  assert.deepEqual(one.take(), [])
  one.inBand(11, Bind, bindOf(5))
  assert.deepEqual(one.take(), ['BindAliasReply 1'])
  one.control(1, BindAlias, { flow: FIRST + 1, key: ALIAS + 1 })
  one.control(11, FlowClosed, { flow: FIRST + 1, epoch: 1, code: 1, key: 6 })
  one.inBand(11, Bind, bindOf(6))
  assert.deepEqual(one.take(), [])
})

test('early aliases are bounded: the oldest is forgotten', () => {
  const one = other({ earlyAliases: 3 })
  for (let key = 7; key < 11; key++) one.control(1, BindAlias, { flow: FIRST + key - 5, key: 100 + key })
  assert.deepEqual(one.anomalies, { 'early-alias-limit': 1 })
  for (let key = 7; key < 11; key++) one.inBand(11, Bind, bindOf(key))
  assert.deepEqual([7, 8, 9, 10].map((key) => one.entryOf(100 + key) !== 0), [false, true, true, true])
})

test('a key that another flow still has here is taken when that one has ended', () => {
  const one = other()
  one.control(1, BindAlias, { flow: FIRST, key: ALIAS })
  one.take()
  // The home has heard that the first flow is over, this switch has not.
  one.control(1, BindAlias, { flow: FIRST + 1, key: ALIAS })
  assert.deepEqual(one.take(), [])
  one.control(11, FlowClosed, { flow: FIRST, epoch: 1, code: 1, key: 5 })
  assert.deepEqual(one.take(), ['BindAliasReply 1'])
  one.external(ALIAS)
  assert.deepEqual([one.take(), one.table.mainOf(one.entryOf(ALIAS))], [[`packet ${ALIAS} to 11`], one.entryOf(6)])
})

test('packets that came for the key before the flow had it go to the flow', () => {
  const one = other()
  one.external(ALIAS)
  one.external(ALIAS)
  one.control(1, BindAlias, { flow: FIRST, key: ALIAS })
  assert.deepEqual(one.take(), ['PlaceFlow 1', `packet ${ALIAS} to 11`, `packet ${ALIAS} to 11`, 'BindAliasReply 1'])
  assert.deepEqual([one.steps.asking, one.context.held, one.table.size], [0, 0, 3])
})

test('who asks for an alias is told of the alias', () => {
  const one = home()
  one.control(11, ClaimAlias, { flow: FIRST, key: ALIAS })
  one.take()
  one.control(2, PlaceFlow, { key: ALIAS })
  assert.deepEqual(one.take(), ['BindAlias 2'])
})

test('a switch that goes need not answer, one that has come back must', () => {
  const one = home()
  const switches = configOf().switches
  one.control(11, ClaimAlias, { flow: FIRST, key: ALIAS })
  one.take()
  one.configure(configOf({ version: 2, switches: [switches[0], { ...switches[1], incarnation: 202 }] }))
  assert.deepEqual(one.take(), ['BindAlias 2'])
  one.configure(configOf({ version: 3, switches: [switches[0], { ...switches[1], incarnation: 0 }] }))
  assert.deepEqual([one.take(), one.steps.claiming], [['ClaimAliasReply 11'], 0])
})

test('a claim of a flow that ends is over', () => {
  const one = home()
  one.control(11, ClaimAlias, { flow: FIRST, key: ALIAS })
  one.control(11, FlowClosed, { flow: FIRST, epoch: 1, code: 1, key: 5 })
  assert.deepEqual([one.steps.claiming, one.entryOf(ALIAS)], [0, 0])
})

test('a key whose flow has died with its owner is refused until nobody goes on with that one; then the first that claims it has it', () => {
  const runtimes = [11, 12].map((id) => ({ id, incarnation: 100 + id, isDraining: false }))
  for (const isPromoted of [false, true]) {
    const one = new ScriptedSwitch(configOf({ runtimes }), 1, roundRobin())
    for (const { id } of runtimes) one.announced(id)
    for (const key of [5, 6, 7]) one.external(key)
    const dead = one.entry(5)?.owner ?? 0
    const left = dead === 11 ? 12 : 11
    const claim = (key: number): void => { one.control(left, ClaimAlias, { flow: FIRST + key - 5, key: ALIAS }) }
    one.control(dead, ClaimAlias, { flow: FIRST, key: ALIAS })
    one.control(2, BindAliasReply, { flow: FIRST, key: ALIAS })
    for (const key of [6, 7]) one.inBand(left, Bind, { ...bindOf(key), node: left, halves: { [BindReleaser]: left },
      words: { [BindReleaserIncarnation]: 100 + left, [BindOwnerIncarnation]: 100 + left } })
    const isRefused = (key: number): void => {
      one.take()
      claim(key)
      assert.deepEqual(one.take(), [`ClaimAliasReply ${left} code ${AliasRefusal.taken}`])
    }
    // That death has not been heard of, and then it has.
    for (const key of [6, 7]) isRefused(key)
    one.configure(configOf({ version: 2, runtimes: runtimes.filter(({ id }) => id === left) }))
    for (const key of [6, 7]) isRefused(key)
    if (isPromoted) {
      one.control(left, RerouteFlow, { flow: FIRST, epoch: 9, node: left, key: 5, code: 2,
        words: { [RerouteFlowOwnerIncarnation]: 100 + left } })
    }
    one.control(left, ConfigApplied, { epoch: 2 })
    one.take()
    if (isPromoted) {
      for (const key of [6, 7]) isRefused(key)
      assert.equal(one.table.mainOf(one.entryOf(ALIAS)), one.entryOf(5))
      continue
    }
    claim(6)
    assert.deepEqual(one.take(), ['BindAlias 2'])
    isRefused(7)
    one.control(2, BindAliasReply, { flow: FIRST + 1, key: ALIAS })
    assert.deepEqual([one.take(), one.steps.claiming], [[`ClaimAliasReply ${left}`], 0])
    isRefused(7)
    assert.equal(one.table.mainOf(one.entryOf(ALIAS)), one.entryOf(6))
  }
})

test('a switch that has not heard of a death gives the key to the next flow, and to the third, in their turn', () => {
  const one = other()
  one.configure(configOf({ version: 2, runtimes: [11, 12].map((id) => ({ id, incarnation: 100 + id, isDraining: false })) }))
  const of12 = { node: 12, halves: { [BindReleaser]: 12 }, words: { [BindReleaserIncarnation]: 112, [BindOwnerIncarnation]: 112 } }
  for (const key of [7, 8]) one.inBand(12, Bind, { ...bindOf(key), ...of12 })
  one.control(1, BindAlias, { flow: FIRST, key: ALIAS })
  one.take()
  // The home knows that runtime 11 is dead. It grants the key to flow 7, and, when that has ended, to flow 8.
  one.control(1, BindAlias, { flow: FIRST + 2, key: ALIAS })
  one.control(1, BindAlias, { flow: FIRST + 3, key: ALIAS })
  one.external(ALIAS)
  assert.deepEqual(one.take(), [`packet ${ALIAS} to 11`])
  one.configure(configOf({ version: 3, runtimes: [{ id: 12, incarnation: 112, isDraining: false }] }))
  one.external(ALIAS)
  assert.deepEqual([one.take(), one.context.held], [[], 1], 'somebody may go on with the flow')
  one.control(12, ConfigApplied, { epoch: 3 })
  assert.deepEqual([one.take(), one.table.mainOf(one.entryOf(ALIAS))], [['BindAliasReply 1', `packet ${ALIAS} to 12`], one.entryOf(7)])
  one.inBand(12, FlowClosed, { flow: FIRST + 2, epoch: 1, code: 1, key: 7 })
  assert.deepEqual([one.take(), one.table.mainOf(one.entryOf(ALIAS))], [['BindAliasReply 1'], one.entryOf(8)])
  one.external(ALIAS)
  assert.deepEqual([one.take(), one.context.held], [[`packet ${ALIAS} to 12`], 0])
})
