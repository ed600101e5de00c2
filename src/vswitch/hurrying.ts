/**
 * Hurrying: an owner with many flows has died, and replicas go on with them one after another, while packets come for some of them.
 * Those go first.
 *
 *     packet ─▶ entry whose owner is dead ── HurryFlow ─▶ the replica that has released its frames so far ─▶ promoted ahead of others
 */

import { HurryFlow } from '../messages/replication.ts'
import { sendHead, type SwitchContext } from './switch-context.ts'
import { Entry, EntryPhase } from './switch-table.ts'

/**
 * The first packet has come to wait at an entry whose owner is dead. Where nobody but the owner has released, nobody is known to have a
 * replica.
 */
export function hurry(context: SwitchContext, entry: number): void {
  const { u8, u16, u32, f64 } = context.arena
  const releaser = u16[(entry + Entry.releaser) >> 1]
  const owner = u16[(entry + Entry.owner) >> 1]
  if (u8[entry + Entry.phase] !== EntryPhase.orphaned || owner === 0 || releaser === 0 || releaser === owner) return
  const channel = context.control(releaser)
  // It is a wish: what must be said has the room.
  if (channel?.isStrained === true) return
  sendHead(context, channel, HurryFlow, f64[(entry + Entry.flow) >> 3], u32[(entry + Entry.epoch) >> 2])
}
