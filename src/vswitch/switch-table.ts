/**
 * Switch table: what a virtual switch knows of each flow, the record of its actor there. An entry is a block of two cache lines
 * that begins like a flow record, so that the kernel that classifies a batch finds entries as it finds flows (packet/kernels/classify).
 *
 *      0 flow key, 11 words │ 44 phase u8, flags u8 │ 48 since f64 │ 56 hash i32 │ 60 owner u16, releaser u16
 *     64 flow id f64 │ 72 epoch u32 │ 76 Ethernet addresses, 12 bytes │ 88 held: first, 92 last, 96 count u16,
 *     98 packets returned u16
 *     100 main entry (of an alias), 104 next alias │ 108 drained: epoch u32, 112 by u16, 114 epoch since when the
 *     releaser is it, lower half u16 │ 116 owner's incarnation u32,
 *     while asking the number of the question
 *     120 next releaser u16, its life u16 │
 *     124 frames accepted from this releaser u32
 *
 * An alias has an entry of its own, with its key and addresses; all else stands in its flow's entry. A second table finds
 * entries by flow id, for messages that name no key.
 */

import { assert } from '../base/assert.ts'
import type { Arena } from '../memory/arena.ts'
import { Slab } from '../memory/slab.ts'
import { copyFlowKey, flowKeysEqual } from '../flow/flow-key.ts'
import { FlowTable } from '../flow/flow-table.ts'
import { Departed } from './departed.ts'

export const Entry = {
  key: 0, phase: 44, flags: 45, since: 48, hash: 56, owner: 60, releaser: 62, flow: 64, epoch: 72, macs: 76, heldFirst: 88,
  heldLast: 92, heldCount: 96, returns: 98, main: 100, nextAlias: 104, drainedEpoch: 108, drainedBy: 112, releaserSince: 114,
  ownerIncarnation: 116, question: 116,
  nextReleaser: 120, releaserLife: 122, released: 124,
} as const

export const ENTRY_BYTES = 128

export const EntryPhase = {
  /** Its packets go to the owner. */
  active: 1,
  /** The home has been asked who serves it. */
  asking: 2,
  /** The owner is about to end it: its packets are held. */
  closing: 3,
  /** Its owner is fenced, or not known yet: its packets are held until somebody claims it. */
  orphaned: 4,
  /** There is no runtime to place it at. */
  placing: 5,
  /** This switch has come back and does not know yet whether anybody serves it. */
  learning: 6,
  /** There is no room on the way to its owner, or the owner has not been heard from yet, or is gone and not yet known to be dead. */
  stalled: 7,
} as const

export const EntryFlag = {
  alias: 1,
  /** The releaser before has yet to send its last packet. */
  awaitsDrained: 2,
  /** Placed here, and nobody has said yet that frames of it may leave. */
  fresh: 4,
  /** What came first of its flow came from a runtime: its Ethernet addresses are not known yet. */
  unaddressed: 8,
  /** Known from its home alone, which may have heard of a move ahead of us: who has released its frames so far says so in-band. */
  hearsay: 16,
  /** Its owner is dead, and whoever may go on with it has been told that packets wait. */
  hurried: 32,
} as const

export class SwitchTable {
  readonly table: FlowTable
  readonly slab: Slab
  readonly departed: Departed
  readonly #byId: FlowTable
  readonly #i32: Int32Array
  readonly #u8: Uint8Array
  readonly #f64: Float64Array

  constructor(arena: Arena, limit: number) {
    this.#i32 = arena.i32
    this.#u8 = arena.u8
    this.#f64 = arena.f64
    this.table = new FlowTable(arena, 'switch table', limit)
    this.#byId = new FlowTable(arena, 'switch table by flow', limit)
    this.departed = new Departed(arena)
    this.slab = new Slab(arena, 'switch entries', limit, ENTRY_BYTES)
  }

  get size(): number {
    return this.table.size
  }

  get isFull(): boolean {
    return this.slab.available === 0
  }

  /** The entry of the key at a word index, an alias's too; 0 if there is none. */
  find(key: number, hash: number): number {
    let entry = this.table.find(hash, this.table.home(hash))
    while (entry !== 0 && !flowKeysEqual(this.#i32, key, entry >> 2)) entry = this.table.find(hash, this.table.lastSlot + 1)
    return entry
  }

  /** The entry of a flow by its id, 0 if there is none. */
  findFlow(flow: number): number {
    const hash = idHash(flow)
    let entry = this.#byId.find(hash, this.#byId.home(hash))
    while (entry !== 0 && this.#f64[(entry + Entry.flow) >> 3] !== flow) entry = this.#byId.find(hash, this.#byId.lastSlot + 1)
    return entry
  }

  /** A new, zeroed entry for a key that has none; 0 when the table is full. */
  add(key: number, hash: number): number {
    const entry = this.slab.take()
    if (entry === 0) return 0
    this.#i32.fill(0, entry >> 2, (entry + ENTRY_BYTES) >> 2)
    copyFlowKey(this.#i32, key, entry >> 2)
    this.#i32[(entry + Entry.hash) >> 2] = hash
    this.table.insert(hash, entry)
    return entry
  }

  /** Gives an entry its flow's id, or another one, whose aliases the former's are not; 0 takes it away. */
  setFlow(entry: number, flow: number): void {
    const before = this.#f64[(entry + Entry.flow) >> 3]
    if (before === flow) return
    if (before !== 0) {
      this.#byId.remove(idHash(before), entry)
      this.removeAliases(entry)
      this.#i32[(entry + Entry.drainedEpoch) >> 2] = this.#i32[(entry + Entry.drainedBy) >> 2] = 0
    }
    this.#f64[(entry + Entry.flow) >> 3] = flow
    if (flow !== 0) this.#byId.insert(idHash(flow), entry)
  }

  /** Makes the entry at `alias` an alias of a flow's entry. */
  link(alias: number, main: number): void {
    this.#u8[alias + Entry.flags] = EntryFlag.alias
    this.#u8[alias + Entry.phase] = EntryPhase.active
    this.#i32[(alias + Entry.main) >> 2] = main
    this.#i32[(alias + Entry.nextAlias) >> 2] = this.#i32[(main + Entry.nextAlias) >> 2]
    this.#i32[(main + Entry.nextAlias) >> 2] = alias
  }

  /** The flow's entry, for an alias's entry or its own. */
  mainOf(entry: number): number {
    return (this.#u8[entry + Entry.flags] & EntryFlag.alias) !== 0 ? this.#i32[(entry + Entry.main) >> 2] : entry
  }

  /** Removes a flow's entry and its aliases; its held packets have been taken. */
  remove(entry: number): void {
    assert(this.#i32[(entry + Entry.heldFirst) >> 2] === 0, 'an entry that goes holds nothing')
    this.setFlow(entry, 0)
    this.removeAliases(entry)
    this.#removeOne(entry)
  }

  /** Removes the aliases of a flow's entry. */
  removeAliases(entry: number): void {
    for (let at = this.#i32[(entry + Entry.nextAlias) >> 2]; at !== 0;) {
      const next = this.#i32[(at + Entry.nextAlias) >> 2]
      this.#removeOne(at)
      at = next
    }
    this.#i32[(entry + Entry.nextAlias) >> 2] = 0
  }

  #removeOne(entry: number): void {
    this.departed.note(entry, entry + Entry.macs)
    this.table.remove(this.#i32[(entry + Entry.hash) >> 2], entry)
    // A batch that has been classified may still point here: no packet has this key.
    this.#i32[entry >> 2] = -1
    this.slab.give(entry)
  }

  /** Every flow's entry. */
  *entries(): Generator<number> {
    for (let index = 0; index < this.slab.highWater; index++) {
      if (!this.slab.isTaken(index)) continue
      const entry = this.slab.offsetOf(index)
      if ((this.#u8[entry + Entry.flags] & EntryFlag.alias) === 0) yield entry
    }
  }
}

function idHash(flow: number): number {
  const low = flow | 0
  const high = (flow / 4294967296) | 0
  const hash = Math.imul(low ^ Math.imul(high, 0x85ebca6b), 0x9e3779b1)
  return hash ^ (hash >>> 15)
}
