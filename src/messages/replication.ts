/**
 * Replication messages. Paper §5.4.2; PROTOCOL 11-15, 19. From the runtime that owns a flow to the one that keeps its replica:
 *
 *     owner ── AdoptFlow ─▶ replica ── AdoptFlowReply ─▶ owner               the whole flow; in `commit` the replica releases from now on
 *     owner ── ReleasePacket ... CommitStep ─▶ replica ── frames ─▶ switch    one step: its outputs, and the record behind it
 *     owner ── MovingFlow ─▶ replica ── MovingFlowReply ─▶ owner              ahead of a move's step 2
 *     owner ── RetireFlow ─▶ replica ══ Drained ═▶ every switch               behind the last step
 *     owner ── ForgetFlow ─▶ replica
 *
 * When the owner has died:
 *
 *     switch ── HurryFlow ─▶ replica                                          packets of this flow wait
 *
 * With two replicas they are a chain. Both adopt the flow from its owner; the first, which the owner speaks to, hands steps on to the tail,
 * which releases:
 *
 *     owner ── AdoptMember ─▶ first, tail ── AdoptFlowReply ─▶ owner
 *     owner ── CommitStep ─▶ first ── CommitStep ─▶ tail ── frames ─▶ switch;   first ── StepsHeld ─▶ owner
 *
 * and when an owner has died in the middle of a move:
 *
 *     replica ── AskFlow ─▶ every runtime ── AskFlowReply ─▶ replica;  target ── YieldFlow ─▶ replica
 *
 * Between two neighbours there is no acknowledgement of a step of its own: a session hands over what it acknowledges first, and handing over
 * a step is storing and, at the tail, releasing it. Only the owner of a longer chain is told, by StepsHeld.
 */

import { u32 } from '../memory/struct.ts'
import { fieldOf, message } from './message.ts'

/** What an {@link AdoptFlow} is about. */
export const AdoptKind = {
  settled: 0,
  /** It has just opened, and nothing of it has left anywhere. */
  opening: 1,
  /** It has just moved to its owner, and its source may not know so yet: should the owner die, ask. */
  tentative: 2,
  /** Nothing but its aliases is new. */
  aliases: 3,
} as const

/**
 * Keep this flow's record. `code` is an {@link AdoptKind}. `node` 1: you release its frames. The tail is `inputs` bytes that say how far links
 * had been consumed (as in {@link CommitStep}), `aliases` alias keys of 12 words, then the snapshot. `former`
 * is the runtime whose replica yours replaces, 0 for none: should the owner die, it is to release no more. `buffersAt` is the target of a
 * move of the owner before, which is dead, that has packets of the flow, 0 for none: should the owner die, they are to be had there.
 */
export const AdoptFlow = message(31, 'AdoptFlow', { withKey: true, fields: { layout: u32, aliases: u32, former: u32,
  formerIncarnation: u32, inputs: u32, buffersAt: u32 }, hasTail: true })
export const AdoptFlowBuffersAt = fieldOf(AdoptFlow, 'buffersAt')
export const AdoptFlowInputs = fieldOf(AdoptFlow, 'inputs')
export const AdoptFlowFormer = fieldOf(AdoptFlow, 'former')
export const AdoptFlowFormerIncarnation = fieldOf(AdoptFlow, 'formerIncarnation')
export const AdoptFlowLayout = fieldOf(AdoptFlow, 'layout')
export const AdoptFlowAliases = fieldOf(AdoptFlow, 'aliases')
/**
 * The same to a member of a chain of two: its `successor` (0: it is the tail and releases) and its `predecessor` (0: it is the first), each
 * in the life meant. The epoch is the chain's generation: what a member says of another is refused.
 */
export const AdoptMember = message(48, 'AdoptMember', { withKey: true, fields: { layout: u32, aliases: u32, former: u32,
  formerIncarnation: u32, inputs: u32, buffersAt: u32, successor: u32, successorIncarnation: u32, predecessor: u32,
  predecessorIncarnation: u32 }, hasTail: true })
export const AdoptMemberSuccessor = fieldOf(AdoptMember, 'successor')
export const AdoptMemberSuccessorIncarnation = fieldOf(AdoptMember, 'successorIncarnation')
export const AdoptMemberPredecessor = fieldOf(AdoptMember, 'predecessor')
export const AdoptMemberPredecessorIncarnation = fieldOf(AdoptMember, 'predecessorIncarnation')
/** Of the outputs of the chain's generation `epoch`, the tail has stored and released the first `outputs`. */
export const StepsHeld = message(49, 'StepsHeld', { fields: { outputs: u32 } })
export const StepsHeldOutputs = fieldOf(StepsHeld, 'outputs')
/** `code`: an {@link AdoptRefusal}. With `noRoom` at a chain's first replica also later: it takes no more steps, and has none under way. */
export const AdoptFlowReply = message(32, 'AdoptFlowReply')
export const AdoptRefusal = { none: 0, noRoom: 1, otherChain: 2, itself: 3, stale: 4 } as const

/**
 * A step: `inputs` bytes, for each link from a switch its id u16, the lower half of its incarnation u16, and the position u32 up to which the
 * owner had consumed it; the flow's record behind it, `snapshotBytes`, padded to 8; and `frames` outputs, each as bytes u32, switch u32, the
 * frame, padded to 8. Outputs that found no room came ahead as {@link ReleasePacket}.
 */
export const CommitStep = message(33, 'CommitStep', { fields: { snapshotBytes: u32, frames: u32, inputs: u32 }, hasTail: true })
export const CommitStepSnapshotBytes = fieldOf(CommitStep, 'snapshotBytes')
export const CommitStepInputs = fieldOf(CommitStep, 'inputs')
export const CommitStepFrames = fieldOf(CommitStep, 'frames')
/** Bytes of a part of that tail. */
export const padded = (bytes: number): number => (bytes + 7) & ~7
/** An output of the next step. `node` is the switch that it leaves by. */
export const ReleasePacket = message(34, 'ReleasePacket', { hasTail: true })

/**
 * Say `Drained` at this epoch on every link, behind what you have released, as soon as you know the configuration `configVersion`. `code`: a
 * {@link RetireKind}.
 */
export const RetireFlow = message(35, 'RetireFlow', { fields: { configVersion: u32 } })
export const RetireFlowConfigVersion = fieldOf(RetireFlow, 'configVersion')
/** The copy stays for now; it is to be forgotten; so it is if it was for the target of a move, who is dead: one of the source's counts again. */
export const RetireKind = { stays: 0, last: 1, ofTarget: 2 } as const
/**
 * The flow has ended, or its replica is elsewhere; with an epoch, it has none from then on, and whatever copy there is from before is old,
 * whoever left it.
 */
export const ForgetFlow = message(36, 'ForgetFlow')

/**
 * The flow is about to move to `node` at `epoch`, or, if that is its owner, to another replica: should its owner die, ask before you promote
 * yourself. `node` 0: it stays. `code` 1: answer even if you have no replica of it.
 */
export const MovingFlow = message(37, 'MovingFlow')
export const MovingFlowReply = message(38, 'MovingFlowReply')

/**
 * Have you installed this flow, or its replica, at this epoch or a higher one? If not you refuse its record from now on. Answered when the
 * configuration `configVersion` is known, from which on nothing comes from the owner that is dead by it. `node`: the lower 16 bits of the
 * generation of the asker's chain, 0 without one. `code` 1: the asker is the target, and both the source and the replica that it knew are dead:
 * have you the flow, or any copy of it?
 */
export const AskFlow = message(39, 'AskFlow', { withKey: true, fields: { configVersion: u32 } })
export const AskFlowConfigVersion = fieldOf(AskFlow, 'configVersion')
/**
 * `code` 1: it lives here, or its replica is here. 2: its packets are buffered here, to be had by `AbortFlow`; `epoch`: that of the move to
 * here. 3: wait for me, your predecessor.
 * To a target 1: it lives here, or has gone on from here; 2: a copy is here; `node`: the lower 16 bits of `configVersion`.
 */
export const AskFlowReply = message(40, 'AskFlowReply')
/**
 * The source of a move to here has died before its record came; you have its replica. `code` 1: or the flow, as you have answered. 2: the
 * answer of who goes on with it; who knows nothing of it says `AbortFlow`.
 */
export const YieldFlow = message(41, 'YieldFlow')
/**
 * From a switch to the replica that has released a flow's frames: its owner is dead, and packets of it wait. Go on with it ahead of others
 * that nobody waits for. A wish, said once: whoever has no such replica any more need not answer.
 */
export const HurryFlow = message(50, 'HurryFlow')

