/**
 * Held lists: packets that wait at a switch entry, oldest first, as slots linked through their headroom. Bounded per flow and in
 * total.
 */

import { Descriptor, DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import type { SwitchContext } from './switch-context.ts'
import { Entry } from './switch-table.ts'

/** Holds the packet of a descriptor at an entry, or drops it when there are too many. */
export function hold(context: SwitchContext, entry: number, d: number): void {
  const { i32, u16 } = context.arena
  const slot = i32[d + Descriptor.slot]
  const count = (entry + Entry.heldCount) >> 1
  if (u16[count] >= context.limits.heldPerFlow || context.held >= context.limits.held || context.isScarce(slot)) {
    context.drop(slot, 'hold-limit')
    return
  }
  if (slot >> 2 !== d) i32.copyWithin(slot >> 2, d, d + DESCRIPTOR_WORDS)
  i32[(slot >> 2) + Descriptor.nextHeld] = 0
  const last = i32[(entry + Entry.heldLast) >> 2]
  if (last === 0) i32[(entry + Entry.heldFirst) >> 2] = slot
  else i32[(last >> 2) + Descriptor.nextHeld] = slot
  i32[(entry + Entry.heldLast) >> 2] = slot
  u16[count]++
  context.held++
  context.watch?.held(slot, context.arena.u8[entry + Entry.phase])
}

/** Holds packets ahead of those that an entry holds: slots with their descriptors, counted as held already. No bound but their own. */
export function prependHeld({ arena }: SwitchContext, entry: number, slots: readonly number[]): void {
  const { i32, u16 } = arena
  for (const slot of slots.toReversed()) {
    const first = i32[(entry + Entry.heldFirst) >> 2]
    i32[(slot >> 2) + Descriptor.nextHeld] = first
    i32[(entry + Entry.heldFirst) >> 2] = slot
    if (first === 0) i32[(entry + Entry.heldLast) >> 2] = slot
    u16[(entry + Entry.heldCount) >> 1]++
  }
}

/** Takes all packets from an entry: their first slot, linked by `nextHeld`; 0 if there are none. */
export function takeHeld(context: SwitchContext, entry: number): number {
  const { i32, u16 } = context.arena
  const first = i32[(entry + Entry.heldFirst) >> 2]
  i32[(entry + Entry.heldFirst) >> 2] = 0
  i32[(entry + Entry.heldLast) >> 2] = 0
  context.held -= u16[(entry + Entry.heldCount) >> 1]
  u16[(entry + Entry.heldCount) >> 1] = 0
  return first
}

export function heldCount(context: SwitchContext, entry: number): number {
  return context.arena.u16[(entry + Entry.heldCount) >> 1]
}
