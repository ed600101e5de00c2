/**
 * Taking back, at a switch: what a dead runtime had not given back on its link becomes packets again. PROTOCOL 20; vswitch/taken-back.ts
 * keeps them until it is known who goes on.
 */

import { addBounded } from '../base/bounded.ts'
import { Descriptor, DESCRIPTOR_WORDS, Meta } from '../packet/descriptor.ts'
import { FragmentOutcome, type FragmentTracker } from '../packet/fragment-tracker.ts'
import type { PacketPool } from '../packet/packet-pool.ts'
import { ParseResult, type Parser } from '../packet/parse.ts'
import type { SwitchContext } from '../vswitch/switch-context.ts'
import { Entry, EntryFlag } from '../vswitch/switch-table.ts'
import type { VirtualSwitch } from '../vswitch/virtual-switch.ts'
import { ETHERNET_TYPE, NFACTOR_TYPE_WORD } from '../wire/ethernet.ts'
import type { DataLink } from './data-link.ts'

export interface TakingBackHost {
  readonly context: SwitchContext
  readonly virtualSwitch: VirtualSwitch
  readonly pool: PacketPool
  readonly parser: Parser
  readonly fragments: FragmentTracker
  /** Word index of a batch of descriptors. Between batches it is free. */
  readonly descriptors: number
  /** The entry of a packet's key, an alias's too; 0 if there is none. */
  find(d: number): number
}

const BATCH = 32
/** Positions of packets that have come back which are kept of a link: of as many frames as it holds. */
const RETURNED_MAX = 4096
/** What the parser says of packets that have a flow's key, or that a fragment before them gives it. */
const FLOW_RESULTS = new Set<number>([ParseResult.flow, ParseResult.related, ParseResult.firstFragment, ParseResult.laterFragment])

export class TakingBack {
  readonly #host: TakingBackHost
  /** By runtime: positions of packets on its link that have come back in messages. */
  readonly #returned = new Map<number, Set<number>>()

  constructor(host: TakingBackHost) {
    this.#host = host
  }

  /** A packet of a link has come back in a message. */
  returned(runtime: number, position: number): void {
    if (position === 0) return
    const positions = this.#returned.get(runtime) ?? new Set()
    this.#returned.set(runtime, positions)
    addBounded(positions, position, RETURNED_MAX)
  }

  /** What a dead runtime has not given back is ours again: by flow, until it is known who goes on with it. */
  takeBack(runtime: number, link: DataLink, life: number): void {
    const begun = link.beginTakeBack()
    if (begun === null) return
    const { pool, descriptors, virtualSwitch } = this.#host
    const { port } = begun
    for (let position = begun.first; port.takeBackLeft > 0;) {
      const count = port.takeBack(pool, descriptors, BATCH)
      if (count === 0) break
      for (let i = 0, d = descriptors; i < count; i++, d += DESCRIPTOR_WORDS, position++) this.#packet(d, runtime, life, position)
    }
    port.endTakeBack()
    this.#returned.delete(runtime)
    virtualSwitch.takenBack.forgetNotes(runtime)
  }

  /** An ICMP error went with the flow that it is about, or by its own key if nobody knew that one then. */
  #entryOf(d: number, runtime: number, life: number, position: number): number {
    const { context: { arena: { i32 } }, parser } = this.#host
    const entry = this.#host.find(d)
    if (((i32[d + Descriptor.meta] as number) & Meta.related) === 0 || entry === 0 || this.#isOf(entry, runtime, life, position)) return entry
    parser.useOwnKey(d)
    const own = this.#host.find(d)
    if (own !== 0 && this.#isOf(own, runtime, life, position) && !(this.#isUnheard(own) && this.#livedAt(entry, runtime, life))) return own
    parser.parse(d)
    return entry
  }

  /** True when an entry's flow lived there as that frame was sent. It may have come since, and the error was a flow of its own. */
  #isOf(entry: number, runtime: number, life: number, position: number): boolean {
    const { context: { table }, virtualSwitch } = this.#host
    return this.#livedAt(entry, runtime, life) && virtualSwitch.takenBack.cameAhead(runtime, life, table.mainOf(entry), position)
  }

  #livedAt(entry: number, runtime: number, life: number): boolean {
    const { context: { arena: { u16, u32 }, table } } = this.#host
    const main = table.mainOf(entry)
    return u16[(main + Entry.owner) >> 1] === runtime && u32[(main + Entry.ownerIncarnation) >> 2] === life
  }

  /** Nobody has said that it serves a flow: a runtime that knew the one which an error is about took it for part of that. */
  #isUnheard(entry: number): boolean {
    const { context: { arena: { u8 }, table } } = this.#host
    return ((u8[table.mainOf(entry) + Entry.flags] as number) & EntryFlag.fresh) !== 0
  }

  #packet(d: number, runtime: number, life: number, position: number): void {
    const { context, virtualSwitch, pool, parser, fragments } = this.#host
    const { i32, u16, f64 } = context.arena
    const slot = i32[d + Descriptor.slot] as number
    if (u16[((i32[d + Descriptor.frame] as number) + ETHERNET_TYPE) >> 1] === NFACTOR_TYPE_WORD) {
      pool.give(slot)
      return
    }
    f64[(d + Descriptor.time) >> 1] = context.now
    i32[d + Descriptor.wireLength] = i32[d + Descriptor.length] as number
    i32[d + Descriptor.switch] = 0
    i32[d + Descriptor.record] = 0
    const result = parser.parse(d)
    if (result === ParseResult.laterFragment && fragments.later(d) === FragmentOutcome.held) {
      context.countForwarded(-1)
      return
    }
    const isOurs = FLOW_RESULTS.has(result) && this.#returned.get(runtime)?.has(position) !== true
    const entry = isOurs ? this.#entryOf(d, runtime, life, position) : 0
    // It may open a flow anew, which learns them from it.
    if (entry !== 0) virtualSwitch.addresses.restore(d, entry)
    i32.copyWithin(slot >> 2, d, d + DESCRIPTOR_WORDS)
    virtualSwitch.takenBack.add(runtime, life, entry === 0 ? 0 : context.table.mainOf(entry), slot, position)
  }
}
