/** What is taken back from the links of the dead, and in what order it goes to who goes on. PROTOCOL 20. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ConfigApplied } from '../messages/announcing.ts'
import { BindAlias } from '../messages/aliasing.ts'
import { CloseFlow, FlowClosed } from '../messages/closing.ts'
import { type ClusterConfig, flowIdOf } from '../messages/cluster-config.ts'
import {
  RerouteFlow, RerouteFlowDead, RerouteFlowDeadIncarnation, RerouteFlowMarks, RerouteFlowOwnerIncarnation,
} from '../messages/migration.ts'
import { Bind, BindOwnerIncarnation, BindReleaser, BindReleaserIncarnation } from '../messages/placement.ts'
import { Descriptor } from '../packet/descriptor.ts'
import { roundRobin } from './placement/round-robin.ts'
import { type Said, ScriptedSwitch } from './scripted-switch.ts'

const FLOW = flowIdOf(101, 1)

/** Switch 2 of two; runtimes have 100 and their id for an incarnation. */
function configOf(version: number, runtimes: readonly number[]): ClusterConfig {
  return {
    version, clusterId: 1,
    switches: [{ id: 1, incarnation: 101, side: 'ingress', isHome: true }, { id: 2, incarnation: 102, side: 'egress', isHome: false }],
    runtimes: runtimes.map((id) => ({ id, incarnation: 100 + id, isDraining: false })),
  }
}

/** A runtime goes on with flow 5 for a dead one, and has a target's buffer to fetch. */
const claimOf = (node: number, epoch: number, dead: number): Said => ({ flow: FLOW, epoch, node, key: 5, code: 2, words: {
  [RerouteFlowOwnerIncarnation]: 100 + node, [RerouteFlowDead]: dead, [RerouteFlowDeadIncarnation]: 100 + dead, [RerouteFlowMarks]: 1 } })

test('what was sent to who goes on for the dead is from ahead of a target\'s buffer up to the mark, and from behind it from then on', () => {
  const one = new ScriptedSwitch(configOf(1, [11, 12, 13]), 2, roundRobin())
  // The scripted links count no frames: as many as have been sent to runtime 12.
  let sent = 5
  Object.assign(one.context, { positionTo: () => sent })
  const { toRuntime } = one.context
  Object.assign(one.context, { toRuntime: (d: number, runtime: number) => {
    if (runtime === 12) sent++
    toRuntime(d, runtime)
  } })
  const takeBack = (runtime: number, ...positions: number[]): void => {
    for (const position of positions) {
      const d = one.packetOf(position)
      one.logic.takenBack.add(runtime, 100 + runtime, one.entryOf(5), one.arena.i32[d + Descriptor.slot] as number, position)
    }
  }
  one.inBand(11, Bind, { flow: FLOW, epoch: 1, node: 11, key: 5, halves: { [BindReleaser]: 11 },
    words: { [BindReleaserIncarnation]: 111, [BindOwnerIncarnation]: 111 } })
  one.configure(configOf(2, [12, 13]))
  takeBack(11, 6)
  one.control(12, RerouteFlow, claimOf(12, 9, 11))
  assert.deepEqual(one.take(),
    ['=RerouteFlowReply 12', 'Go 12', '=RerouteFlowReply 12 code 2', 'packet 6 to 12', '=RerouteFlowReply 12 code 1'])
  one.configure(configOf(3, [13]))
  // The one from above again, and one that came later: the target had been sent nothing any more by then.
  takeBack(12, 6, 7)
  one.control(13, RerouteFlow, claimOf(13, 18, 12))
  assert.deepEqual(one.take(), ['=RerouteFlowReply 13', 'Go 13', '=RerouteFlowReply 13 code 2', 'packet 6 to 13',
    '=RerouteFlowReply 13 code 1', 'packet 7 to 13'])
})

const NOTES_MAX = 4096
const HEIRS_MAX = 1024

/** The owner of a flow says so. */
const bindOf = (flow: number, key: number, owner: number): Said => ({ flow, epoch: 1, node: owner, key, halves: { [BindReleaser]: owner },
  words: { [BindReleaserIncarnation]: 100 + owner, [BindOwnerIncarnation]: 100 + owner } })

/** A packet of a key, whose number it is in the log, is taken back from the link to a runtime. */
function takeBack(one: ScriptedSwitch, runtime: number, key: number, position: number): void {
  const slot = one.arena.i32[one.packetOf(key) + Descriptor.slot] as number
  one.logic.takenBack.add(runtime, 100 + runtime, one.entryOf(key), slot, position)
}

test('notes of when flows came to a runtime are bounded, for each: of the oldest, all that is taken back is of its present stay', () => {
  const one = new ScriptedSwitch(configOf(1, [11, 12]), 2, roundRobin(), { entries: 10_000 })
  const { takenBack } = one.logic
  Object.assign(one.context, { positionTo: () => 7 })
  for (const key of [5, 6]) one.inBand(11, Bind, bindOf(flowIdOf(101, key), key, 11))
  // Those of others are their own.
  for (let flow = 1; flow <= NOTES_MAX; flow++) takenBack.cameTo(12, 112, flow, 9, false)
  for (let key = 7; key < 5 + NOTES_MAX; key++) one.inBand(11, Bind, bindOf(flowIdOf(101, key), key, 11))
  takeBack(one, 11, 5, 7)
  assert.deepEqual([takenBack.counts, one.context.held], [{ taken: 0, covered: 1 }, 0], 'it was sent before the flow came')
  one.inBand(11, Bind, bindOf(flowIdOf(101, 9000), 9000, 11))
  for (const key of [5, 6]) takeBack(one, 11, key, 7)
  assert.deepEqual([takenBack.counts, one.context.held], [{ taken: 1, covered: 2 }, 1])
  assert.deepEqual([5, 6].map((key) => takenBack.has(flowIdOf(101, key))), [true, false])
})

test('flows whose key another one had are bounded: what is taken back for the oldest counts as consumed, others get theirs', () => {
  const one = new ScriptedSwitch(configOf(1, [11, 12]), 2, roundRobin(), { entries: 2000 })
  const olderOf = (key: number): number => flowIdOf(101, key)
  const newerOf = (key: number): number => flowIdOf(101, 5000 + key)
  for (let key = 1; key <= HEIRS_MAX + 1; key++) {
    one.inBand(11, Bind, bindOf(olderOf(key), key, 11))
    one.inBand(12, Bind, bindOf(newerOf(key), key, 12))
  }
  one.take()
  for (const key of [1, 2, HEIRS_MAX + 1]) takeBack(one, 11, key, 3)
  assert.deepEqual([one.logic.takenBack.counts, one.context.held], [{ taken: 3, covered: 0 }, 3])
  one.configure(configOf(2, [12]))
  assert.deepEqual(one.take(), ['packet 2 to 12', `packet ${HEIRS_MAX + 1} to 12`])
  one.announced(12)
  assert.deepEqual([one.take(), one.logic.takenBack.counts, one.context.held, one.pool.used], [[], { taken: 2, covered: 1 }, 0, 0])
})

test('what was sent to the dead by an alias of a flow whose key a newer one has by then goes there, and back from there', () => {
  const one = new ScriptedSwitch(configOf(1, [11, 12]), 2, roundRobin())
  one.inBand(11, Bind, bindOf(FLOW, 5, 11))
  one.control(1, BindAlias, { flow: FLOW, key: 6 })
  one.inBand(12, Bind, bindOf(flowIdOf(101, 2), 5, 12))
  assert.equal(one.entryOf(6), 0, 'the alias has gone with its flow')
  one.take()
  takeBack(one, 11, 6, 3)
  takeBack(one, 11, 7, 4)
  takeBack(one, 12, 6, 3)
  assert.deepEqual([one.logic.takenBack.counts, one.context.held], [{ taken: 1, covered: 2 }, 1])
  one.configure(configOf(2, [12]))
  assert.deepEqual(one.take(), ['packet 6 to 12'])
  one.announced(12)
  assert.deepEqual([one.take(), one.context.held, one.pool.used], [[], 0, 0])
})

test('what was taken back for one whose link is down is ahead of what waits', () => {
  const one = new ScriptedSwitch(configOf(1, [11, 12, 13]), 2, roundRobin())
  const { toRuntime } = one.context
  // As a node does: what does not fit comes back.
  Object.assign(one.context, { hasRoomTo: (runtime: number) => runtime !== 12, isDown: (runtime: number) => runtime === 12,
    toRuntime: (d: number, runtime: number) => { if (runtime === 12) one.logic.unsent(d); else toRuntime(d, runtime) } })
  one.inBand(11, Bind, bindOf(FLOW, 5, 11))
  one.control(1, BindAlias, { flow: FLOW, key: 6 })
  one.logic.takenBack.add(11, 111, one.entryOf(5), one.arena.i32[one.packetOf(6) + Descriptor.slot] as number, 3)
  one.configure(configOf(2, [12, 13]))
  one.external(5)
  one.take()
  one.control(12, RerouteFlow, claimOf(12, 9, 11))
  assert.deepEqual(one.take().filter((line) => line.startsWith('packet')), [])
  // That one has died, too, and who goes on for it is well.
  one.configure(configOf(3, [13]))
  one.control(13, RerouteFlow, claimOf(13, 18, 12))
  assert.deepEqual(one.take().filter((line) => line.startsWith('packet')), ['packet 6 to 13', 'packet 5 to 13'])
  assert.equal(one.context.held, 0)
})

test('of three flows on a key, one after the other, the last has what the dead owners of both others had been sent, in their order', () => {
  for (const isAlias of [false, true]) {
    for (const dead of [[11], [11, 12]]) {
      const one = new ScriptedSwitch(configOf(1, [11, 12, 13]), 2, roundRobin())
      one.inBand(11, Bind, bindOf(FLOW, 5, 11))
      if (isAlias) one.control(1, BindAlias, { flow: FLOW, key: 6 })
      one.inBand(12, Bind, bindOf(flowIdOf(101, 2), 5, 12))
      one.inBand(13, Bind, bindOf(flowIdOf(101, 3), 5, 13))
      one.take()
      takeBack(one, 12, 5, 2)
      takeBack(one, 11, isAlias ? 6 : 5, 3)
      assert.deepEqual([one.logic.takenBack.counts.taken, one.context.held], [2, 2])
      one.configure(configOf(2, [11, 12, 13].filter((id) => !dead.includes(id))))
      const first = `packet ${isAlias ? 6 : 5} to 13`
      assert.deepEqual(one.take(), dead.length === 1 ? [first] : [first, 'packet 5 to 13'])
    }
  }
})

test('what an heir is to have of the dead goes to the flow that has its key by the time that they are called dead', () => {
  const one = new ScriptedSwitch(configOf(1, [11, 12, 13]), 2, roundRobin())
  one.inBand(11, Bind, bindOf(FLOW, 5, 11))
  one.inBand(12, Bind, bindOf(flowIdOf(101, 2), 5, 12))
  // Another flow's new owner has told of that death, ahead of the configuration.
  takeBack(one, 11, 5, 3)
  one.control(12, ConfigApplied, { epoch: 2 })
  one.inBand(13, Bind, bindOf(flowIdOf(101, 3), 5, 13))
  one.external(5)
  one.take()
  one.configure(configOf(2, [12, 13]))
  assert.deepEqual(one.take(), ['=FlowOpen 13', 'packet 5 to 13', 'packet 5 to 13'])
  assert.deepEqual([one.context.held, one.pool.used, one.logic.takenBack.isEmpty], [0, 0, true])
})

test('a flow that is to have what the dead was sent does not end before it has it', () => {
  for (const isBehind of [true, false]) {
    const one = new ScriptedSwitch(configOf(1, [11, 12]), 2, roundRobin())
    const newer = flowIdOf(101, 2)
    const close = (): string[] => {
      one.take()
      one.control(12, CloseFlow, { flow: newer, epoch: 1, key: 5 })
      return one.take()
    }
    one.inBand(11, Bind, bindOf(FLOW, 5, 11))
    if (isBehind) one.control(12, ConfigApplied, { epoch: 2 })
    one.inBand(12, Bind, bindOf(newer, 5, 12))
    if (!isBehind) takeBack(one, 11, 5, 3)
    assert.deepEqual(close(), ['=CloseFlowReply 12 code 1'])
    one.control(12, FlowClosed, { flow: newer, epoch: 1, key: 5 })
    if (isBehind) takeBack(one, 11, 5, 3)
    one.configure(configOf(2, [12]))
    assert.ok(one.take().includes('packet 5 to 12'))
    assert.deepEqual(close(), ['=CloseFlowReply 12'])
  }
})

test('of a move to who is dead already, what the flow had been sent there before that is in its record', () => {
  const one = new ScriptedSwitch(configOf(1, [11, 12]), 2, roundRobin())
  const reroute = (node: number, epoch: number, dead = 0): void => {
    one.control(11, RerouteFlow, { flow: FLOW, epoch, node, key: 5, words: {
      [RerouteFlowOwnerIncarnation]: 100 + node, [RerouteFlowDead]: dead, [RerouteFlowDeadIncarnation]: dead === 0 ? 0 : 100 + dead } })
  }
  Object.assign(one.context, { positionTo: () => 2 })
  one.inBand(12, Bind, bindOf(FLOW, 5, 12))
  reroute(11, 2)
  one.configure(configOf(2, [11]))
  one.take()
  // It has run there, and the runtime that has the flow since has it in its record.
  takeBack(one, 12, 5, 3)
  reroute(12, 3)
  reroute(11, 4, 12)
  assert.deepEqual(one.take().filter((what) => what.startsWith('packet')), [])
  assert.deepEqual([one.logic.takenBack.counts, one.context.held, one.pool.used], [{ taken: 0, covered: 1 }, 0, 0])
})
