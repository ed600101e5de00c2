/**
 * Fragment tracker: leads the later fragments of an IP datagram to the flow of its first one. RFC 791, RFC 8200 §4.5.
 *
 * Fragments are not put together: each goes its way as a packet of its flow, and is forwarded as it came. The tracker keeps,
 * per datagram (addresses, protocol, identification, VLAN), the flow key that only the first fragment shows, and for TCP the
 * sequence number, so that a later fragment carries the stream position of its payload and stream reassembly needs no
 * datagram reassembly.
 *
 *     first fragment ──▶ entry "known": later ones get its key
 *     later fragment before the first ──▶ entry "waiting": the packet is kept, bounded per datagram and in total, until the
 *     first comes, or until the time is up and it is dropped
 *
 * Entries live for a fixed time, so the oldest is always the next to go; when there is no room the oldest goes early.
 */

import { assert } from '../base/assert.ts'
import type { EngineLimits } from '../base/limits.ts'
import type { TimeUs } from '../base/clock.ts'
import type { Arena } from '../memory/arena.ts'
import { Slab } from '../memory/slab.ts'
import { flowKeysEqual } from '../flow/flow-key.ts'
import { KEY_WORDS } from '../flow/flow-record.ts'
import { FlowTable } from '../flow/flow-table.ts'
import { ipv6Identification } from '../wire/ipv6.ts'
import { Descriptor, DESCRIPTOR_WORDS, Meta } from './descriptor.ts'

export const FragmentOutcome = {
  /** The descriptor has its flow's key and hash now. */
  flow: 0,
  /** The packet is kept until the first fragment comes. */
  held: 1,
  /** There was no room to keep it. */
  limit: 2,
  /** It cannot belong to the datagram. */
  malformed: 3,
} as const

/** Bounds of a tracker. */
export type FragmentLimits = Pick<EngineLimits, 'fragmentedDatagrams' | 'fragmentsHeld' | 'fragmentsHeldPerDatagram'>

const D = Descriptor
/** What is known of a datagram's first fragment. Its flow has dropped it: what comes behind belongs to its flow all the same. */
const Known = { nothing: 0, key: 1, dropped: 2 } as const
/** Words of an entry. */
const E = {
  hash: 0, next: 1, previous: 2, known: 3, datagram: 4, heldFirst: 15, heldLast: 16, heldCount: 17, key: 18, flowHash: 29,
  meta: 30, sequence: 31, expiry: 32, headerBytes: 34, firstTime: 36,
} as const
const ENTRY_BYTES = 192
/** Bytes of an entry that travels with its flow. */
export const FRAGMENT_ENTRY_BYTES = ENTRY_BYTES

export class FragmentTracker {
  /** Fragments kept because they came before their first one, those given up and not yet handed out included. */
  held = 0
  readonly #i32: Int32Array
  readonly #f64: Float64Array
  readonly #view: DataView
  readonly #limits: FragmentLimits
  readonly #lifetimeUs: number
  readonly #table: FlowTable
  readonly #slab: Slab
  /** The datagram key of the packet at hand: tag, identification, protocol, source, destination. */
  readonly #datagram = new Int32Array(11)
  #oldest = 0
  #newest = 0
  /** Packets of entries that went early, as a list of slots. */
  #abandoned = 0
  #abandonedCount = 0

  constructor(arena: Arena, limits: FragmentLimits, lifetimeUs: number) {
    this.#i32 = arena.i32
    this.#f64 = arena.f64
    this.#view = arena.view
    this.#limits = limits
    this.#lifetimeUs = lifetimeUs
    this.#table = new FlowTable(arena, 'fragmented datagrams', limits.fragmentedDatagrams)
    this.#slab = new Slab(arena, 'fragmented datagram entries', limits.fragmentedDatagrams, ENTRY_BYTES)
  }

  /**
   * Notes the flow key of a first fragment.
   * @returns the packets that waited for it, as a list of slots (linked by the descriptors' `nextHeld`), or 0
   */
  first(d: number): number {
    const i32 = this.#i32
    const hash = this.#readDatagram(d, this.#identification(d))
    let entry = this.#find(hash)
    if (entry === 0) entry = this.#add(hash, d)
    const at = entry >> 2
    i32[at + E.known] = Known.key
    for (let i = 0; i < 11; i++) i32[at + E.key + i] = i32[d + D.key + i]
    i32[at + E.flowHash] = i32[d + D.hash]
    const meta = i32[d + D.meta]
    i32[at + E.meta] = meta & (Meta.fromB | 255)
    // The parser left where the fragmentable part starts in `nextHeld`.
    const headerBytes = i32[d + D.payload] - i32[d + D.nextHeld]
    i32[at + E.headerBytes] = headerBytes
    i32[at + E.firstTime] = i32[d + D.time]
    i32[at + E.firstTime + 1] = i32[d + D.time + 1]
    const syn = (meta >>> 9) & 1
    i32[at + E.sequence] = (meta & 255) === 6 ? (i32[d + D.sequence] + syn - headerBytes) | 0 : 0
    return this.#takeWaiting(at)
  }

  /** Gives a later fragment its flow's key, or keeps it. */
  later(d: number): number {
    const i32 = this.#i32
    const hash = this.#readDatagram(d, this.#identification(d))
    let entry = this.#find(hash)
    if (entry !== 0 && i32[(entry >> 2) + E.known] !== Known.nothing) {
      const at = entry >> 2
      const offset = i32[d + D.sequence]
      if (offset < i32[at + E.headerBytes]) return FragmentOutcome.malformed
      for (let i = 0; i < 11; i++) i32[d + D.key + i] = i32[at + E.key + i]
      i32[d + D.hash] = i32[at + E.flowHash]
      i32[d + D.meta] = (i32[d + D.meta] & ~(Meta.fromB | 255)) | i32[at + E.meta]
      i32[d + D.sequence] = (i32[at + E.sequence] + offset) | 0
      return FragmentOutcome.flow
    }
    const slot = i32[d + D.slot]
    if (slot === 0 || this.held >= this.#limits.fragmentsHeld) return FragmentOutcome.limit
    if (entry === 0) entry = this.#add(hash, d)
    const at = entry >> 2
    if (i32[at + E.heldCount] >= this.#limits.fragmentsHeldPerDatagram) return FragmentOutcome.limit
    i32.copyWithin(slot >> 2, d, d + DESCRIPTOR_WORDS)
    i32[(slot >> 2) + D.nextHeld] = 0
    if (i32[at + E.heldLast] === 0) i32[at + E.heldFirst] = slot
    else i32[(i32[at + E.heldLast] >> 2) + D.nextHeld] = slot
    i32[at + E.heldLast] = slot
    i32[at + E.heldCount]++
    this.held++
    return FragmentOutcome.held
  }

  /**
   * A flow has dropped a first fragment: a switch that sees the rest of the datagram cannot tell whose it is. One that was held for long says
   * nothing of a later datagram of the same identification: what is known must come from the very fragment, by its time of arrival.
   */
  dropped(d: number): void {
    const i32 = this.#i32
    const at = this.#find(this.#readDatagram(d, this.#identification(d))) >> 2
    if (at === 0 || i32[at + E.known] !== Known.key) return
    if (i32[at + E.firstTime] !== i32[d + D.time] || i32[at + E.firstTime + 1] !== i32[d + D.time + 1]) return
    i32[at + E.known] = Known.dropped
  }

  /** True for a later fragment of a datagram whose first one has been dropped so. */
  isRestOfDropped(d: number): boolean {
    const entry = this.#find(this.#readDatagram(d, this.#identification(d)))
    return entry !== 0 && this.#i32[(entry >> 2) + E.known] === Known.dropped
  }

  /**
   * Removes one entry whose time is up.
   * @returns the packets that waited in it, as a list of slots; -1 if there were none; 0 when no entry's time is up
   */
  expire(now: TimeUs): number {
    if (this.#abandoned !== 0) {
      const list = this.#abandoned
      this.#abandoned = 0
      this.held -= this.#abandonedCount
      this.#abandonedCount = 0
      return list
    }
    const entry = this.#oldest
    if (entry === 0 || this.#f64[(entry >> 3) + E.expiry / 2] > now) return 0
    const list = this.#remove(entry)
    return list === 0 ? -1 : list
  }

  /** A time before which `expire` has nothing to do. */
  nextExpiry(): TimeUs {
    if (this.#abandoned !== 0) return -Infinity
    return this.#oldest === 0 ? Infinity : this.#f64[(this.#oldest >> 3) + E.expiry / 2]
  }

  /** Datagrams tracked now. */
  get size(): number {
    return this.#table.size
  }

  /**
   * Entries of datagrams whose first fragment belonged to the flow with this key (a word index). Those that came by an alias key of it have its
   * own from then on: where the flow goes, that is what is known of it, and its hash.
   *
   * @param flowHash hash of that key
   * @param flipOf tells of another key and its hash whether it is an alias of the flow: -1 if not, 1 if it begins with the flow's other end
   */
  datagramsOf(key: number, flowHash: number, flipOf: ((key: number, hash: number) => number) | null): number[] {
    const i32 = this.#i32
    const found: number[] = []
    for (let entry = this.#oldest; entry !== 0; entry = i32[(entry >> 2) + E.next]) {
      const at = entry >> 2
      if (i32[at + E.known] === Known.nothing) continue
      if (!flowKeysEqual(i32, key, at + E.key)) {
        const flip = flipOf === null ? -1 : flipOf(at + E.key, i32[at + E.flowHash])
        if (flip < 0) continue
        for (let i = 0; i < KEY_WORDS; i++) i32[at + E.key + i] = i32[key + i]
        i32[at + E.flowHash] = flowHash
        if (flip === 1) i32[at + E.meta] ^= Meta.fromB
      }
      found.push(entry)
    }
    return found
  }

  /** Writes an entry as {@link FRAGMENT_ENTRY_BYTES} bytes, with the time it has left. */
  exportEntry(entry: number, now: TimeUs, target: DataView, at: number): void {
    for (let word = 0; word < ENTRY_BYTES >> 2; word++) target.setInt32(at + word * 4, this.#i32[(entry >> 2) + word], true)
    target.setFloat64(at + E.expiry * 4, this.#f64[(entry >> 3) + E.expiry / 2] - now, true)
  }

  /**
   * Takes over a datagram of a flow that has come here, written by {@link exportEntry}.
   * @returns fragments of it that came here before the flow did, as a list of slots, or 0
   */
  importEntry(source: DataView, at: number, now: TimeUs, flowHash: number): number {
    const i32 = this.#i32
    const hash = source.getInt32(at + E.hash * 4, true)
    for (let i = 0; i < 11; i++) this.#datagram[i] = source.getInt32(at + (E.datagram + i) * 4, true)
    const found = this.#find(hash)
    if (found !== 0 && i32[(found >> 2) + E.known] !== Known.nothing) return 0
    const entry = (found !== 0 ? found
      : this.#insert(hash, now + Math.min(this.#lifetimeUs, source.getFloat64(at + E.expiry * 4, true)))) >> 2
    for (let word = E.key; word < E.expiry; word++) i32[entry + word] = source.getInt32(at + word * 4, true)
    i32[entry + E.known] = source.getInt32(at + E.known * 4, true)
    i32[entry + E.flowHash] = flowHash
    // The time too is as it was there, like that of a packet that the flow holds.
    for (const word of [E.headerBytes, E.firstTime, E.firstTime + 1]) i32[entry + word] = source.getInt32(at + word * 4, true)
    return this.#takeWaiting(entry)
  }

  /**
   * Takes the packets that wait for a first fragment and may be of the flow with this key (a word index): they come from one of its
   * ends to the other.
   *
   * @returns lists of slots
   */
  takeWaitingOf(key: number): number[] {
    const i32 = this.#i32
    const lists: number[] = []
    for (let entry = this.#oldest; entry !== 0; entry = i32[(entry >> 2) + E.next]) {
      const at = entry >> 2
      if (i32[at + E.heldCount] > 0 && this.#isBetween(at + E.datagram, key)) lists.push(this.#takeWaiting(at))
    }
    return lists
  }

  /** True for a datagram from one end of a flow to the other. */
  #isBetween(datagram: number, key: number): boolean {
    const i32 = this.#i32
    // The protocol of IPv6 is not part of a datagram's key.
    if (i32[datagram] !== i32[key] || (i32[datagram + 2] & ~255) !== (i32[key + 2] & ~255)) return false
    const isIpv4 = i32[key] >>> 24 === 4
    if (isIpv4 && i32[datagram + 2] !== i32[key + 2]) return false
    const equal = (a: number, b: number): boolean => {
      for (let i = 0; i < (isIpv4 ? 1 : 4); i++) if (i32[a + i] !== i32[b + i]) return false
      return true
    }
    const [source, destination, a, b] = [datagram + 3, datagram + 7, key + 3, key + 7] as const
    return (equal(source, a) && equal(destination, b)) || (equal(source, b) && equal(destination, a))
  }

  /** The packets that wait in the entry at a word index, as a list of slots; they do so no longer. */
  #takeWaiting(entry: number): number {
    const i32 = this.#i32
    const waiting = i32[entry + E.heldFirst]
    this.held -= i32[entry + E.heldCount]
    i32[entry + E.heldFirst] = 0
    i32[entry + E.heldLast] = 0
    i32[entry + E.heldCount] = 0
    return waiting
  }

  #identification(d: number): number {
    const i32 = this.#i32
    const network = i32[d + D.network]
    if (i32[d + D.key] >>> 24 === 4) return this.#view.getUint16(network + 4)
    return ipv6Identification(this.#view, network, i32[d + D.frame] + i32[d + D.length])
  }

  /** Reads the datagram key of a packet; returns its hash. */
  #readDatagram(d: number, identification: number): number {
    const i32 = this.#i32
    const view = this.#view
    const key = this.#datagram
    const network = i32[d + D.network]
    key[0] = i32[d + D.key]
    key[1] = identification
    key.fill(0, 3)
    if (key[0] >>> 24 === 4) {
      key[2] = i32[d + D.key + 2]
      key[3] = view.getInt32(network + 12)
      key[7] = view.getInt32(network + 16)
    } else {
      // Not the protocol: it is that of the first header after the fragment header, which RFC 8200 leaves out of the key.
      key[2] = i32[d + D.key + 2] & ~255
      for (let i = 0; i < 8; i++) key[3 + i] = view.getInt32(network + 8 + i * 4)
    }
    let hash = 0x2545f491
    for (let i = 0; i < 11; i++) hash = Math.imul((hash ^ (hash >>> 15)) + key[i], 0x85ebca6b)
    return hash ^ (hash >>> 13)
  }

  #find(hash: number): number {
    const table = this.#table
    let entry = table.find(hash, table.home(hash))
    while (entry !== 0 && !this.#same(entry)) entry = table.find(hash, table.lastSlot + 1)
    return entry
  }

  #same(entry: number): boolean {
    const at = (entry >> 2) + E.datagram
    for (let i = 0; i < 11; i++) if (this.#i32[at + i] !== this.#datagram[i]) return false
    return true
  }

  #add(hash: number, d: number): number {
    return this.#insert(hash, this.#f64[(d + D.time) >> 1] + this.#lifetimeUs)
  }

  /** Adds an entry for the datagram at hand. */
  #insert(hash: number, expiry: TimeUs): number {
    const i32 = this.#i32
    if (this.#table.size >= this.#limits.fragmentedDatagrams) this.#abandon(this.#oldest)
    const entry = this.#slab.take()
    assert(entry !== 0, 'there are as many entries as the fragment table holds')
    const at = entry >> 2
    i32.fill(0, at, at + (ENTRY_BYTES >> 2))
    i32[at + E.hash] = hash
    for (let i = 0; i < 11; i++) i32[at + E.datagram + i] = this.#datagram[i]
    this.#f64[(entry >> 3) + E.expiry / 2] = expiry
    i32[at + E.previous] = this.#newest
    if (this.#newest === 0) this.#oldest = entry
    else i32[(this.#newest >> 2) + E.next] = entry
    this.#newest = entry
    this.#table.insert(hash, entry)
    return entry
  }

  /** Removes the entry; returns the list of packets that waited in it. */
  #remove(entry: number): number {
    const i32 = this.#i32
    const at = entry >> 2
    const list = i32[at + E.heldFirst]
    this.held -= i32[at + E.heldCount]
    const next = i32[at + E.next]
    const previous = i32[at + E.previous]
    if (previous === 0) this.#oldest = next
    else i32[(previous >> 2) + E.next] = next
    if (next === 0) this.#newest = previous
    else i32[(next >> 2) + E.previous] = previous
    this.#table.remove(i32[at + E.hash], entry)
    this.#slab.give(entry)
    return list
  }

  #abandon(entry: number): void {
    const i32 = this.#i32
    const last = i32[(entry >> 2) + E.heldLast]
    const count = i32[(entry >> 2) + E.heldCount]
    const list = this.#remove(entry)
    if (list === 0) return
    this.held += count
    this.#abandonedCount += count
    i32[(last >> 2) + D.nextHeld] = this.#abandoned
    this.#abandoned = list
  }
}
