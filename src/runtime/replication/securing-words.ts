/**
 * Securing words: what others are told of a change of replica (securings.ts): the switches who releases the flow's frames from now on, and the
 * target of a dead owner's move that it is to hand over what it buffers. PROTOCOL 9, 18, 20.
 */

import { planted } from '../../base/planted-bugs.ts'
import { MessageField } from '../../messages/message.ts'
import {
  AbortFlow, AbortFlowSwitches, RerouteFlow, RerouteFlowBuffersAt, RerouteFlowCovered, RerouteFlowDead, RerouteFlowDeadIncarnation,
  RerouteFlowMarks, RerouteFlowOwnerIncarnation, RerouteFlowReleaser, RerouteFlowReleaserIncarnation, RerouteFlowReleaserNow,
  RerouteFlowReleaserNowIncarnation,
} from '../../messages/migration.ts'
import type { MessageChannel } from '../../transport/message-channel.ts'
import { announceAliases } from '../alias-claims.ts'
import { begin, writeKey, type RuntimeContext } from '../runtime-context.ts'
import { releaserOf } from './guard.ts'
import { coveredBy } from './inputs.ts'
import type { ProtectionHost } from './protection-host.ts'
import { tailOf, type Securing } from './securing.ts'

/** Tells switches who has the flow, and who releases its frames from now on. */
export function sayRerouted(context: RuntimeContext, { mode, incarnationOf }: ProtectionHost, securing: Securing, mask: number): void {
  const { record, flow, epoch, isPromotion, target, dead, unmarked } = securing
  const { arena } = context
  const releaser = mode === 'commit' ? tailOf(securing) : 0
  const now = mode === 'commit' ? releaserBefore(context, securing) : 0
  for (const id of context.switches.idsIn(mask)) {
    const channel = context.control(id)
    const at = begin(context, channel, RerouteFlow, flow, epoch, true)
    if (at === 0) continue
    arena.u16[(at + MessageField.node) >> 1] = context.self
    if (isPromotion) arena.u8[at + MessageField.code] = 2
    arena.u32[(at + RerouteFlowBuffersAt) >> 2] = target
    arena.u32[(at + RerouteFlowOwnerIncarnation) >> 2] = context.incarnation
    arena.u32[(at + RerouteFlowDead) >> 2] = dead?.owner ?? 0
    arena.u32[(at + RerouteFlowDeadIncarnation) >> 2] = dead?.ownerIncarnation ?? 0
    const covered = planted['take-back-repeats'] ? null : dead?.inputs ?? null
    arena.u32[(at + RerouteFlowCovered) >> 2] = coveredBy(covered, id, context.switches.incarnationOf(id))
    arena.u32[(at + RerouteFlowMarks) >> 2] = (unmarked & context.switches.bitOf(id)) === 0 ? 0 : 1
    arena.u32[(at + RerouteFlowReleaser) >> 2] = releaser
    arena.u32[(at + RerouteFlowReleaserIncarnation) >> 2] = releaser === 0 ? 0 : incarnationOf(releaser)
    arena.u32[(at + RerouteFlowReleaserNow) >> 2] = now
    arena.u32[(at + RerouteFlowReleaserNowIncarnation) >> 2] = now === context.self ? context.incarnation : incarnationOf(now)
    writeKey(context, at, record)
    ;(channel as MessageChannel).commit()
    if (isPromotion) announceAliases(context, id, record, epoch)
  }
}

/**
 * Who has released the flow's frames so far and lives: a switch that is told of the change before it has heard of the flow still has
 * those coming. 0: whoever it was is dead.
 */
function releaserBefore({ self }: RuntimeContext, { old, isReleaser, isPromotion }: Securing): number {
  // Who was the first of a chain has not released anything.
  return old === null || isReleaser || (isPromotion && old.generation === 0) ? self : releaserOf(old)
}

/** A target of a dead owner's move hands over what it buffers; the one that switches know of when it has heard from them. */
export function fetchBuffer(context: RuntimeContext, { flow, epoch, target: known, markers }: Securing, target: number): void {
  const channel = context.control(target)
  let at = begin(context, channel, AbortFlow, flow, epoch, true)
  if (at === 0) return
  at += AbortFlowSwitches
  for (const id of context.switches.idsIn(target === known ? markers : 0)) context.arena.u8[at++] = id
  ;(channel as MessageChannel).commit()
}
