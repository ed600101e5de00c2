/**
 * Alias messages: a translated tuple becomes a second key of its flow. PROTOCOL 5.
 *
 *     runtime ── ClaimAlias ─▶ home of the alias ── BindAlias ─▶ the other switches ── BindAliasReply ─▶ home
 *                                               ── ClaimAliasReply ─▶ runtime
 *
 * The key in these messages is the alias; `flow` is the flow that has it. Aliases end with their flow.
 */

import { u32 } from '../memory/struct.ts'
import { fieldOf, message } from './message.ts'

export const ClaimAlias = message(25, 'ClaimAlias', { withKey: true })
/** `code`: an {@link AliasRefusal}. */
export const ClaimAliasReply = message(26, 'ClaimAliasReply', { withKey: true })
export const AliasRefusal = { none: 0, taken: 1, tableFull: 2, unknownFlow: 3 } as const
/** `node` is the flow's owner. */
export const BindAlias = message(27, 'BindAlias', { withKey: true, fields: { ownerIncarnation: u32 } })
export const BindAliasOwnerIncarnation = fieldOf(BindAlias, 'ownerIncarnation')
export const BindAliasReply = message(28, 'BindAliasReply', { withKey: true })
