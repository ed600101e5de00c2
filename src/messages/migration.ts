/**
 * Migration messages. Paper §5.4.1; PROTOCOL 7-10.
 *
 *     1  source ── PrepareFlow ─▶ target ── PrepareFlowReply ─▶ source
 *     2  source ── RerouteFlow ─▶ every switch ══ RerouteFlowReply ═▶ previous owner
 *     3  source ── InstallFlow ─▶ target ── InstallFlowReply ─▶ source;  source ══ Drained ═▶ every switch ── Go ─▶ target
 *
 * `epoch` is that of the new ownership throughout. An abort behind step 2 is a move back at the next epoch:
 *
 *     source ── AbortFlow ─▶ target ── BufferedPacket ... AbortFlowReply ─▶ source
 */

import { array, u32, u8 } from '../memory/struct.ts'
import { SWITCHES_MAX } from './cluster-config.ts'
import { fieldOf, message } from './message.ts'

/** Why a target does not take a flow. */
export const MoveRefusal = {
  none: 0, noRoom: 1, otherChain: 2, draining: 3, exists: 4, damaged: 5, busy: 6, unknown: 7, tooLarge: 8,
} as const

/** Make room for the flow. The tail is its alias keys, 11 words each. */
export const PrepareFlow = message(9, 'PrepareFlow', { withKey: true, fields: { layout: u32, snapshotBytes: u32, replica: u32,
  replicaIncarnation: u32, secondIncarnation: u32 }, hasTail: true })
export const PrepareFlowLayout = fieldOf(PrepareFlow, 'layout')
/** The runtimes that keep the flow's replicas, 8 bits each, the first of the chain lowest; 0 for none. Their next lives know nothing of it. */
export const PrepareFlowReplica = fieldOf(PrepareFlow, 'replica')
export const PrepareFlowReplicaIncarnation = fieldOf(PrepareFlow, 'replicaIncarnation')
export const PrepareFlowSecondIncarnation = fieldOf(PrepareFlow, 'secondIncarnation')
export const PrepareFlowSnapshotBytes = fieldOf(PrepareFlow, 'snapshotBytes')
/** `code`: a {@link MoveRefusal}. */
export const PrepareFlowReply = message(10, 'PrepareFlowReply')

/**
 * Send the flow's packets to `node` from now on. `releaser` releases its frames, 0: the owner does. `code` 1: its state is lost; 2: its
 * owner before is dead, unless that is `buffersAt`.
 */
export const RerouteFlow = message(11, 'RerouteFlow', { withKey: true, fields: { ownerIncarnation: u32, releaser: u32,
  releaserIncarnation: u32, buffersAt: u32,
  releaserNow: u32, releaserNowIncarnation: u32, dead: u32, deadIncarnation: u32, covered: u32, marks: u32 } })
/**
 * Whose death this is about, 0 for nobody's: what lies in its link goes to the owner, but for frames up to the position `covered`. `marks` 1:
 * a {@link RerouteMark} is to come ahead of them, and one behind.
 */
export const RerouteFlowDead = fieldOf(RerouteFlow, 'dead')
export const RerouteFlowDeadIncarnation = fieldOf(RerouteFlow, 'deadIncarnation')
export const RerouteFlowCovered = fieldOf(RerouteFlow, 'covered')
export const RerouteFlowMarks = fieldOf(RerouteFlow, 'marks')
export const RerouteFlowReleaserNowIncarnation = fieldOf(RerouteFlow, 'releaserNowIncarnation')
/** Who has released its frames so far, although the switch may not have heard so; 0: the owner. */
export const RerouteFlowReleaserNow = fieldOf(RerouteFlow, 'releaserNow')
export const RerouteFlowBuffersAt = fieldOf(RerouteFlow, 'buffersAt')
export const RerouteFlowReleaserIncarnation = fieldOf(RerouteFlow, 'releaserIncarnation')
export const RerouteFlowReleaser = fieldOf(RerouteFlow, 'releaser')
export const RerouteFlowOwnerIncarnation = fieldOf(RerouteFlow, 'ownerIncarnation')
/** In-band, on the link to the owner before: behind the last packet that it gets. Or, by `code`, a {@link RerouteMark} to the new one. */
export const RerouteFlowReply = message(12, 'RerouteFlowReply')
/** Around what was taken back. */
export const RerouteMark = { none: 0, end: 1, begin: 2 } as const

/** Ids of switches, 0 behind the last. */
const switches = array(u8, SWITCHES_MAX)

/**
 * The flow. The tail is its snapshot. Each of `switches`, those of the configuration `configVersion`, was re-pointed, and will say
 * `Go`.
 */
export const InstallFlow = message(13, 'InstallFlow', { fields: { switches, configVersion: u32 }, hasTail: true })
export const InstallFlowSwitches = fieldOf(InstallFlow, 'switches')
export const InstallFlowConfigVersion = fieldOf(InstallFlow, 'configVersion')
/** `code`: a {@link MoveRefusal}; with one the flow is the source's again. */
export const InstallFlowReply = message(14, 'InstallFlowReply')

/**
 * The move is off. `epoch` is that of the move back; each of `switches` sends its in-band word to the target, which waits for them.
 * May be repeated with fewer switches: the others have answered to the source. From the flow's replica, at the epoch of the move itself: it is
 * not known there, or, with `code` 1, has ended.
 */
export const AbortFlow = message(15, 'AbortFlow', { fields: { switches } })
export const AbortFlowSwitches = fieldOf(AbortFlow, 'switches')
/** All that the target had buffered has been sent back. */
export const AbortFlowReply = message(16, 'AbortFlowReply')
/** A packet that the target had buffered (`code` 0) or that strayed to the source (`code` 1). `node` is the switch it came from. */
export const BufferedPacket = message(17, 'BufferedPacket', { hasTail: true })

/** In-band: behind the last frame that this node releases of the flow. */
export const Drained = message(18, 'Drained')
/**
 * From now on the new releaser may release frames of the flow to this switch, which has accepted `released` from the one before. `code` 1:
 * no, the flow lives on elsewhere at a higher epoch; 2: no, it has ended.
 */
export const Go = message(19, 'Go', { fields: { released: u32 } })
export const GoReleased = fieldOf(Go, 'released')

/** The record layout of the sender's chain, ahead of its first `PrepareFlow`. `flow` is its hash. The tail is JSON. */
export const AnnounceChain = message(29, 'AnnounceChain', { hasTail: true })
