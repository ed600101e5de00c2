/**
 * Switch context: what the parts of a virtual switch share. The node (node/switch-node.ts) builds it.
 */

import type { TimeUs } from '../base/clock.ts'
import type { Arena } from '../memory/arena.ts'
import { copyFlowKey } from '../flow/flow-key.ts'
import { copyMacs, MessageField, type MessageKind } from '../messages/message.ts'
import type { PacketWatch } from '../packet/packet-watch.ts'
import type { MessageChannel } from '../transport/message-channel.ts'
import { Entry, EntryFlag, EntryPhase, type SwitchTable } from './switch-table.ts'

export interface SwitchLimits {
  /** Flows and aliases. */
  readonly entries: number
  /** Packets held for one flow. */
  readonly heldPerFlow: number
  /** The same, of all flows. */
  readonly held: number
  /** Questions of other switches that wait. */
  readonly questions: number
  /** Claims of aliases that other switches have yet to hear of. */
  readonly claims: number
  /** Aliases that wait for their flow, or for another one's end. */
  readonly earlyAliases: number
  /** Flows that it places in one life: a flow's id has 32 bits for them. */
  readonly flowIds: number
  /** Packet slots for ordinary frames, and for large segments. */
  readonly packets: number
  readonly largePackets: number
}

export const defaultSwitchLimits: SwitchLimits = {
  entries: 1_000_000, heldPerFlow: 512, held: 4096, questions: 1024, claims: 1024, earlyAliases: 1024, flowIds: 0xffff_ffff, packets: 8192,
  largePackets: 1024,
}

export interface SwitchTimes {
  /** How long packets are held before they are given up, microseconds. */
  readonly holdUs: number
  /** Between looks at what is held and waits. */
  readonly sweepUs: number
  /** How long a runtime may say nothing, though asked, before packets wait for it: on a link that cannot tell whether anybody is there. */
  readonly silenceUs: number
}

export const defaultSwitchTimes: SwitchTimes = { holdUs: 5_000_000, sweepUs: 50_000, silenceUs: 100_000 }

export interface SwitchContext {
  readonly arena: Arena
  readonly self: number
  readonly incarnation: number
  readonly limits: SwitchLimits
  readonly times: SwitchTimes
  readonly table: SwitchTable
  now: TimeUs
  /** Packets held now. */
  held: number
  /** Who sees what is dropped and held, while somebody looks. */
  watch?: PacketWatch | null
  /** Control session to a node, null when it is not in the configuration. */
  control(peer: number): MessageChannel | null
  /** In-band session on the link to a runtime. */
  inBand(runtime: number): MessageChannel | null
  /** Sends the packet of a descriptor to a runtime, or out of the external port; counts it, drops it when there is no room. */
  toRuntime(d: number, runtime: number): void
  toExternal(d: number, entry: number): void
  /** Gives a packet that was sent on a link, or was to be, its flow's Ethernet addresses again, which are at this offset. */
  restoreAddresses(d: number, macs: number): void
  /** True when a packet to a runtime would be taken now; false also while its link is down or silent, or nothing has been heard from it. */
  hasRoomTo(runtime: number): boolean
  /** The other end of the link to a runtime is gone. */
  isDown(runtime: number): boolean
  /** The last frame on the link to a runtime; 0 where positions are not known. */
  positionTo(runtime: number): number
  /** A runtime is dead, which we had not heard yet: what its link has is taken back. */
  takeBack(runtime: number, incarnation: number): void
  /** Packets that have not gone where they were sent, or have after all. */
  countForwarded(packets: number): void
  drop(slot: number, reason: string): void
  giveSlot(slot: number): void
  /** True for the slot of a large segment when no more of those are to wait: half of them are for packets that go on. */
  isScarce(slot: number): boolean
  anomaly(what: string): void
  step(phase: string, by: 1 | -1): void
  /** Hash of the key at a word index, by this switch's secret. */
  hashOf(key: number): number
  /** Gives an ICMP error its own key in the place of that of the flow that it quotes. */
  useOwnKey(d: number): void
  countTakenOver(packets: number): void
  countHandedOver(packets: number): void
}

/** True for an entry whose packets go to its owner, at once or as soon as they can. */
export function isActive({ arena }: SwitchContext, entry: number): boolean {
  const phase = arena.u8[entry + Entry.phase]
  return phase === EntryPhase.active || phase === EntryPhase.stalled
}

/** True for an entry that is known from its flow's home alone. */
export function isHearsay({ arena }: SwitchContext, entry: number): boolean {
  return (arena.u8[entry + Entry.flags] & EntryFlag.hearsay) !== 0
}

/** A new message with its head filled in, 0 when there is no peer or no room. None of a switch's has a tail, so all fit. */
export function begin({ arena }: SwitchContext, channel: MessageChannel | null, kind: MessageKind, flow: number, epoch: number,
    node = 0, code = 0): number {
  const at = channel === null ? 0 : channel.begin(kind.bytes, true)
  if (at === 0) return 0
  arena.u8[at + MessageField.type] = kind.type
  arena.u8[at + MessageField.code] = code
  arena.u16[(at + MessageField.node) >> 1] = node
  arena.u32[(at + MessageField.epoch) >> 2] = epoch
  arena.f64[(at + MessageField.flow) >> 3] = flow
  return at
}

export function sendHead(context: SwitchContext, channel: MessageChannel | null, kind: MessageKind, flow: number, epoch: number,
    node = 0, code = 0): void {
  if (begin(context, channel, kind, flow, epoch, node, code) !== 0) (channel as MessageChannel).commit()
}

/** Fills in key and Ethernet addresses: the key from a word index, the addresses from a byte offset. */
export function writeKey({ arena }: SwitchContext, at: number, key: number, macs: number): void {
  copyFlowKey(arena.i32, key, (at + MessageField.key) >> 2)
  copyMacs(arena, macs, at + MessageField.macs)
}

export function writeEntryKey(context: SwitchContext, at: number, entry: number): void {
  writeKey(context, at, entry >> 2, entry + Entry.macs)
}
