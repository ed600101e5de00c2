/**
 * Addresses: the Ethernet addresses of a flow, as its entry keeps them: as they are from endpoint a to b. On links packets have those of the
 * link, so whatever comes from there, or was meant to go there, gets its own again before a switch takes it for one from outside.
 */

import { planted } from '../base/planted-bugs.ts'
import { copyMacs, MACS_BYTES, MessageField } from '../messages/message.ts'
import { Descriptor, Meta } from '../packet/descriptor.ts'
import type { SwitchContext } from './switch-context.ts'
import { Entry, EntryFlag } from './switch-table.ts'

export class Addresses {
  readonly #context: SwitchContext
  /** Room for those of a flow that has ended. */
  readonly #departed: number

  constructor(context: SwitchContext) {
    this.#context = context
    this.#departed = context.arena.allocate('switch: addresses of a departed flow', MACS_BYTES)
  }

  /** From a packet from outside. */
  learn(entry: number, d: number): void {
    const { i32, u8 } = this.#context.arena
    const frame = i32[d + Descriptor.frame] as number
    const fromB = ((i32[d + Descriptor.meta] as number) & Meta.fromB) !== 0
    for (let byte = 0; byte < MACS_BYTES; byte++) u8[entry + Entry.macs + byte] = u8[frame + (fromB ? (byte + 6) % MACS_BYTES : byte)] as number
    u8[entry + Entry.flags] &= ~EntryFlag.unaddressed
  }

  /** What came first of a flow came from a runtime. */
  expect(entry: number): void {
    this.#context.arena.u8[entry + Entry.flags] |= EntryFlag.unaddressed
  }

  isExpected(entry: number): boolean {
    return ((this.#context.arena.u8[entry + Entry.flags] as number) & EntryFlag.unaddressed) !== 0
  }

  /** From a message about the flow. */
  hear(entry: number, at: number): void {
    copyMacs(this.#context.arena, at + MessageField.macs, entry + Entry.macs)
    this.#context.arena.u8[entry + Entry.flags] &= ~EntryFlag.unaddressed
  }

  /** Gives a packet from a link its own again; `entry` is its key's, 0 for none. False if they are not known. */
  restore(d: number, entry: number): boolean {
    const context = this.#context
    if (entry === 0 && !context.table.departed.read(d + Descriptor.key, this.#departed)) return false
    if (!planted['link-addresses']) context.restoreAddresses(d, entry === 0 ? this.#departed : entry + Entry.macs)
    return true
  }
}
