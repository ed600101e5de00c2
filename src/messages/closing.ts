/**
 * Closing messages: a flow ends everywhere, behind its last packet. PROTOCOL 3.
 *
 *     runtime ── CloseFlow ─▶ every switch ══ CloseFlowReply ═▶ runtime ══ FlowClosed ═▶ every switch
 *
 * A switch that has answered holds the key's packets until FlowClosed says that the flow has ended (they open another one), or
 * goes on after all.
 */

import { u32 } from '../memory/struct.ts'
import { fieldOf, message } from './message.ts'

/** The flow is about to end. */
export const CloseFlow = message(6, 'CloseFlow', { withKey: true })
/** In-band: no packet of the flow follows. `code` 1: packets of it wait at this switch, so it should not end. */
export const CloseFlowReply = message(7, 'CloseFlowReply')
/**
 * `code` 1: it has ended; 0: it goes on; 2: it was claimed in vain at this epoch, and lives on elsewhere. What has ended and has a replica
 * which releases its packets, `node`, has ended behind the last of these: behind ══Drained of a later epoch.
 */
export const FlowClosed = message(8, 'FlowClosed', { withKey: true, fields: { releaserIncarnation: u32 } })
export const FlowClosedReleaserIncarnation = fieldOf(FlowClosed, 'releaserIncarnation')
