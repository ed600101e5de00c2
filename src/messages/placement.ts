/**
 * Placement messages: who serves a flow. PROTOCOL 1, 2, 4. Paper §5.2.
 *
 *     switch ── PlaceFlow ─▶ home ── PlaceFlowReply ─▶ switch ══ FlowOpen ═▶ runtime ══ Bind ═▶ the other switches
 *
 * ══ is in-band: in order with the data frames of that link.
 */

import { u16, u32 } from '../memory/struct.ts'
import { fieldOf, message } from './message.ts'

/** To the home switch: place the flow with this key (`flow` and `epoch` are 0). `question` is a number of the sender's. */
export const PlaceFlow = message(1, 'PlaceFlow', { withKey: true, fields: { question: u32 } })
export const PlaceFlowQuestion = fieldOf(PlaceFlow, 'question')

/**
 * Where it is: `node` is the owner, or `code` a {@link PlaceRefusal} and `flow` 0. `question` tells it from the answer to an earlier
 * question about the key, whose flow may have ended since.
 */
export const PlaceFlowReply = message(2, 'PlaceFlowReply', { withKey: true, fields: { ownerIncarnation: u32, question: u32 } })
export const PlaceFlowReplyOwnerIncarnation = fieldOf(PlaceFlowReply, 'ownerIncarnation')
export const PlaceFlowReplyQuestion = fieldOf(PlaceFlowReply, 'question')
export const PlaceRefusal = { none: 0, noRuntime: 1, tableFull: 2 } as const

/** In-band, ahead of the flow's first packet on this link: a runtime may make an actor. `node` is its home switch. */
export const FlowOpen = message(3, 'FlowOpen', { withKey: true })

/**
 * In-band, ahead of the first packet that a switch gets of this flow from this owner: learn who serves it. `node` is the owner, which may
 * have died, and come back, by the time that the word of a replica arrives.
 */
export const Bind = message(4, 'Bind', { withKey: true, fields: { releaser: u16, releaserIncarnation: u32, ownerIncarnation: u32 } })
export const BindOwnerIncarnation = fieldOf(Bind, 'ownerIncarnation')
export const BindReleaserIncarnation = fieldOf(Bind, 'releaserIncarnation')
export const BindReleaser = fieldOf(Bind, 'releaser')

/** In-band: a data packet without a flow goes back to its switch. `epoch` is its position on the link, 0 if not known. The tail is the frame. */
export const ReturnPacket = message(5, 'ReturnPacket', { hasTail: true })
