/** The replica of a flow whose owner is dead hears, once, that packets of it wait. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { flowIdOf, type ClusterConfig } from '../messages/cluster-config.ts'
import { Bind, BindOwnerIncarnation, BindReleaser, BindReleaserIncarnation } from '../messages/placement.ts'
import { roundRobin } from './placement/round-robin.ts'
import { ScriptedSwitch } from './scripted-switch.ts'

const configOf = (version: number, ...runtimes: number[]): ClusterConfig => ({ version, clusterId: 1,
  switches: [{ id: 1, incarnation: 101, side: 'ingress', isHome: true }, { id: 2, incarnation: 102, side: 'egress', isHome: false }],
  runtimes: runtimes.map((id) => ({ id, incarnation: 100 + id, isDraining: false })) })

/** A switch that knows flow 5 at runtime 11, where `releaser` releases its frames, and then hears that 11 is dead. */
function orphaned(releaser: number, strained = ''): ScriptedSwitch {
  const one = new ScriptedSwitch(configOf(1, 11, 12), 1, roundRobin())
  for (const id of [11, 12]) one.announced(id)
  one.inBand(11, Bind, { flow: flowIdOf(101, 1), epoch: 1, node: 11, key: 5, halves: { [BindReleaser]: releaser },
    words: { [BindReleaserIncarnation]: 100 + releaser, [BindOwnerIncarnation]: 111 } })
  if (strained !== '') one.strained.add(strained)
  one.configure(configOf(2, 12))
  one.take()
  return one
}

test('the replica hears of the first packet, and of no other', () => {
  const one = orphaned(12)
  for (let i = 0; i < 3; i++) one.external(5)
  assert.deepEqual([one.take(), one.context.held], [['HurryFlow 12'], 3])
})

test('while it has more to hear than it takes the wish waits for another packet', () => {
  const one = orphaned(12, '12')
  for (let i = 0; i < 3; i++) one.external(5)
  assert.deepEqual([one.take(), one.context.held], [[], 3])
  one.strained.clear()
  one.external(5)
  one.external(5)
  assert.deepEqual(one.take(), ['HurryFlow 12'])
})

test('of a flow whose owner has released its frames nobody is known to have a replica', () => {
  const one = orphaned(11)
  one.external(5)
  assert.deepEqual([one.take(), one.context.held], [[], 1])
})
