/**
 * Hurrying: an owner with many flows has died, and replicas go on with them one after another, while packets come for some of them.
 * Those go first.
 *
 *     packet ─▶ entry whose owner is dead ── HurryFlow ─▶ the replica that has released its frames so far ─▶ promoted ahead of others
 */

import { HurryFlow } from '../messages/replication.ts'
import { sendHead, type SwitchContext } from './switch-context.ts'
import { Entry, EntryFlag, EntryPhase } from './switch-table.ts'

/**
 * A packet has come to wait at an entry. If its owner is dead and that has not been said, it is. Where nobody but the owner has released,
 * nobody is known to have a replica.
 */
export function hurry(context: SwitchContext, entry: number): void {
  const { u8, u16, u32, f64 } = context.arena
  if (u8[entry + Entry.phase] !== EntryPhase.orphaned || (u8[entry + Entry.flags] & EntryFlag.hurried) !== 0) return
  const releaser = u16[(entry + Entry.releaser) >> 1]
  const owner = u16[(entry + Entry.owner) >> 1]
  if (owner === 0 || releaser === 0 || releaser === owner) return
  const channel = context.control(releaser)
  // It is a wish: what must be said has the room, and the next packet may find some.
  if (channel === null || channel.isStrained === true) return
  sendHead(context, channel, HurryFlow, f64[(entry + Entry.flow) >> 3], u32[(entry + Entry.epoch) >> 2])
  u8[entry + Entry.flags] |= EntryFlag.hurried
}
