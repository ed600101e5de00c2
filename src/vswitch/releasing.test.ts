/** What a switch keeps of flows that have no entry here, each within its bound: the oldest is forgotten. PROTOCOL 9; docs/limits.md. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type ClusterConfig, flowIdOf } from '../messages/cluster-config.ts'
import { RerouteFlow, RerouteFlowOwnerIncarnation } from '../messages/migration.ts'
import { Bind, BindOwnerIncarnation, BindReleaser, BindReleaserIncarnation } from '../messages/placement.ts'
import { roundRobin } from './placement/round-robin.ts'
import { type Said, ScriptedSwitch } from './scripted-switch.ts'

const MAX = 1024
const flowOf = (number: number): number => flowIdOf(101, number)

/** Switch 2 of two; runtimes have 100 and their id for an incarnation. */
function configOf(version: number, runtimes: readonly number[]): ClusterConfig {
  return {
    version, clusterId: 1,
    switches: [{ id: 1, incarnation: 101, side: 'ingress', isHome: true }, { id: 2, incarnation: 102, side: 'egress', isHome: false }],
    runtimes: runtimes.map((id) => ({ id, incarnation: 100 + id, isDraining: false })),
  }
}

const bindOf = (number: number, key: number): Said => ({ flow: flowOf(number), epoch: 1, node: 11, key, halves: { [BindReleaser]: 11 },
  words: { [BindReleaserIncarnation]: 111, [BindOwnerIncarnation]: 111 } })

/** Key 5 is that of a flow which is newer than all others of the test: they can have no entry. */
function among(): ScriptedSwitch {
  const one = new ScriptedSwitch(configOf(1, [11, 12]), 2, roundRobin())
  one.inBand(11, Bind, bindOf(9000, 5))
  one.take()
  return one
}

/** Runtime 11 says that a flow moves to another runtime. */
function reroute(one: ScriptedSwitch, number: number, to: number): void {
  one.control(11, RerouteFlow, { flow: flowOf(number), epoch: 2, node: to, key: 5, words: { [RerouteFlowOwnerIncarnation]: 100 + to } })
}

test('words to owners that are not known yet are bounded: the oldest is forgotten, and counted', () => {
  const one = among()
  for (let number = 1; number <= MAX; number++) reroute(one, number, 13)
  assert.deepEqual([one.take().every((line) => line === '=RerouteFlowReply 11'), one.anomalies['late-go-limit']], [true, undefined])
  for (const number of [MAX + 1, MAX + 2]) reroute(one, number, 13)
  assert.equal(one.anomalies['late-go-limit'], 2)
  one.take()
  one.configure(configOf(2, [11, 12, 13]))
  assert.deepEqual(one.sent.filter(({ name, to }) => name === 'Go' && to === 13).map(({ flow }) => flow),
    Array.from({ length: MAX }, (_, index) => flowOf(index + 3)))
  one.take()
  one.configure(configOf(3, [11, 12, 13]))
  assert.deepEqual(one.take(), [], 'each is said once')
})

test('flows that were answered without an entry are bounded: of the oldest an opener\'s word of before counts again', () => {
  const one = among()
  for (let number = 1; number <= MAX; number++) reroute(one, number, 12)
  // Said again: it takes no other's place, and is the newest.
  reroute(one, 2, 12)
  one.inBand(11, Bind, bindOf(1, 101))
  assert.deepEqual([one.anomalies['stale-epoch'], one.entry(101)], [MAX + 2, null])
  reroute(one, MAX + 1, 12)
  one.inBand(11, Bind, bindOf(1, 101))
  assert.equal(one.entry(101)?.flow, flowOf(1))
  for (const number of [2, 3]) one.inBand(11, Bind, bindOf(number, 100 + number))
  assert.deepEqual([one.entry(102), one.entry(103)], [null, null])
})
