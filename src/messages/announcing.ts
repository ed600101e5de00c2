/**
 * Announcing messages: a restarted switch learns every flow anew. PROTOCOL 21. Draining: PROTOCOL 24. Loads: paper §5.3.
 */

import { u32, u64 } from '../memory/struct.ts'
import { fieldOf, message } from './message.ts'

/** A flow that lives at, or is on its way to, `node`. `code` is an {@link AnnouncedPhase}. The tail is its alias keys. */
export const AnnounceFlow = message(20, 'AnnounceFlow', { withKey: true, fields: { ownerIncarnation: u32, releaser: u32,
  releaserIncarnation: u32 },
  hasTail: true })
export const AnnounceFlowReleaserIncarnation = fieldOf(AnnounceFlow, 'releaserIncarnation')
/** Who releases its frames, 0: the owner does. */
export const AnnounceFlowReleaser = fieldOf(AnnounceFlow, 'releaser')
export const AnnounceFlowOwnerIncarnation = fieldOf(AnnounceFlow, 'ownerIncarnation')
export const AnnouncedPhase = {
  /** The sender owns it and releases its packets. */
  owned: 0,
  /** The sender has given it to `node` and releases nothing more. */
  handedOver: 1,
  /** The sender waits for the switches' `Go`. */
  waiting: 2,
} as const
/** The sender has announced all its flows. */
export const AnnounceDone = message(21, 'AnnounceDone')

/**
 * The sender has taken the configuration with version `epoch`, and has said all that it has to say about flows of those fenced by it:
 * what nobody has claimed by then is nobody's. `code` 1: it gives link slots back only when what their frames have changed is known elsewhere.
 */
export const ConfigApplied = message(30, 'ConfigApplied')

/** Place no new flow, nor, at a runtime, a new replica, at the sender (`code` 1), or do again (0). */
export const StopPlacing = message(22, 'StopPlacing')
/** Of a switch in-band, behind the last `FlowOpen` of a flow placed at the receiver; of a runtime behind its last `AdoptFlow`. */
export const StopPlacingReply = message(23, 'StopPlacingReply')

/** The sender's load, from each runtime to the switches now and then. */
export const Workload = message(24, 'Workload', {
  fields: { busyPerMille: u32, flows: u32, packetsPerSecond: u64, drops: u64, queueDepth: u32 },
})
export const WorkloadBusy = fieldOf(Workload, 'busyPerMille')
export const WorkloadFlows = fieldOf(Workload, 'flows')
export const WorkloadPackets = fieldOf(Workload, 'packetsPerSecond')
export const WorkloadDrops = fieldOf(Workload, 'drops')
export const WorkloadQueue = fieldOf(Workload, 'queueDepth')
