/**
 * Scripted scenes: what tests of a virtual switch begin with, and messages that they say again and again. Key 5 is the flow that they are about.
 */

import { type ClusterConfig, flowIdOf } from '../messages/cluster-config.ts'
import {
  RerouteFlowOwnerIncarnation, RerouteFlowReleaser, RerouteFlowReleaserIncarnation, RerouteFlowReleaserNow,
  RerouteFlowReleaserNowIncarnation,
} from '../messages/migration.ts'
import {
  BindOwnerIncarnation, BindReleaser, BindReleaserIncarnation, PlaceFlowReplyOwnerIncarnation, PlaceFlowReplyQuestion,
} from '../messages/placement.ts'
import { roundRobin } from './placement/round-robin.ts'
import { type Said, ScriptedSwitch } from './scripted-switch.ts'
import type { SwitchLimits } from './switch-context.ts'

/** Switches 1 and 2, the first home to all keys; runtimes 11 and 12 with the incarnations 111 and 112. */
export function configOf(change: Partial<ClusterConfig> = {}): ClusterConfig {
  return {
    version: 1, clusterId: 1,
    switches: [{ id: 1, incarnation: 101, side: 'ingress', isHome: true },
      { id: 2, incarnation: 102, side: 'egress', isHome: false }],
    runtimes: [{ id: 11, incarnation: 111, isDraining: false }, { id: 12, incarnation: 112, isDraining: false }],
    ...change,
  }
}

export const FIRST = flowIdOf(101, 1)

export function learnt(self: number, limits: Partial<SwitchLimits> = {}, policy = roundRobin()): ScriptedSwitch {
  const one = new ScriptedSwitch(configOf(), self, policy, limits)
  for (const { id } of configOf().runtimes) one.announced(id)
  one.take()
  return one
}

/** The home with flow 5, id `FIRST`, at runtime 12. */
export function opened(): ScriptedSwitch {
  const one = learnt(1)
  one.external(5)
  one.take()
  return one
}

export const rerouteTo = (node: number, epoch: number, flow = FIRST) =>
  ({ flow, epoch, node, key: 5, words: { [RerouteFlowOwnerIncarnation]: 100 + node } })

/** The home's answer to a question of switch 2: flow 5, by its id, is at runtime 11. */
export const replyTo = (question: number, flow = FIRST): Said => ({ flow, epoch: 1, node: 11, key: 5,
  words: { [PlaceFlowReplyOwnerIncarnation]: 111, [PlaceFlowReplyQuestion]: question } })

/** An owner, or its replica, says who serves a flow with key 5. */
export const bindOf = (owner: number, releaser = owner, epoch = 1, flow = FIRST): Said => ({ flow, epoch, node: owner, key: 5,
  halves: { [BindReleaser]: releaser }, words: { [BindReleaserIncarnation]: 100 + releaser, [BindOwnerIncarnation]: 100 + owner } })

/** The owner 11 of a flow gets a replica at 12, and has released its frames itself so far. */
export const secured: Said = { flow: FIRST, epoch: 2, node: 11, key: 5, words: {
  [RerouteFlowOwnerIncarnation]: 111, [RerouteFlowReleaser]: 12, [RerouteFlowReleaserIncarnation]: 112, [RerouteFlowReleaserNow]: 11,
  [RerouteFlowReleaserNowIncarnation]: 111 } }

export const without12 = configOf({ version: 2, runtimes: [{ id: 11, incarnation: 111, isDraining: false }] })
