/**
 * Flow table: from a flow key to its record.
 *
 * Open addressing with linear probing, 8 bytes a slot: the key's whole hash, and the record's offset (0: empty). The load is
 * at most one half, so that nearly every search ends in the cache line it started in. Deletion shifts later entries back,
 * so there are no tombstones and the table is as fast after a million departures as when it was new. Its size is fixed by
 * the limit on flows: it never grows, so it never pauses; memory that was never touched costs nothing.
 *
 *     slot    home(hash) = hash >>> shift
 *             │ hash i32 │ record i32 │ hash │ record │ ...
 *
 * The hash is compared first and the key in the record decides. A batch reads the slots of all its packets before any
 * record (see runtime/engine.ts), which is why slots and records are looked at in separate steps.
 */

import { assert } from '../base/assert.ts'
import type { Arena } from '../memory/arena.ts'

export class FlowTable {
  /** Entries now. */
  size = 0
  /** Most entries allowed. */
  readonly limit: number
  /** Slots, a power of two, at least twice the limit. */
  readonly slots: number
  /** Home slot of a hash: `hash >>> shift`. */
  readonly shift: number
  /** Word index of slot 0. */
  readonly base: number
  readonly #i32: Int32Array

  constructor(arena: Arena, name: string, limit: number) {
    assert(limit >= 1 && limit <= 1 << 26, 'a flow table has 1 to 2^26 entries')
    this.limit = limit
    const bits = Math.max(6, Math.ceil(Math.log2(limit * 2)))
    this.slots = 2 ** bits
    this.shift = 32 - bits
    this.base = arena.allocate(name, this.slots * 8, 64) >> 2
    this.#i32 = arena.i32
  }

  /**
   * The next record whose entry has this hash, searching from slot `slot` on; 0 if there is none. `lastSlot` is set to
   * the slot it was found in, so that the search can go on from `lastSlot + 1` when the key turns out to differ.
   */
  find(hash: number, slot: number): number {
    const i32 = this.#i32
    const mask = this.slots - 1
    for (;;) {
      slot &= mask
      const at = this.base + slot * 2
      const record = i32[at + 1]
      if (record === 0) return 0
      if (i32[at] === hash) {
        this.lastSlot = slot
        return record
      }
      slot++
    }
  }

  lastSlot = 0

  home(hash: number): number {
    return hash >>> this.shift
  }

  /** Adds an entry; the caller has made sure that its key is not there yet. False when the limit is reached. */
  insert(hash: number, record: number): boolean {
    if (this.size >= this.limit) return false
    const i32 = this.#i32
    const mask = this.slots - 1
    let slot = hash >>> this.shift
    let at = this.base + slot * 2
    while (i32[at + 1] !== 0) {
      slot = (slot + 1) & mask
      at = this.base + slot * 2
    }
    i32[at] = hash
    i32[at + 1] = record
    this.size++
    return true
  }

  /** Removes the entry of this record. */
  remove(hash: number, record: number): void {
    const i32 = this.#i32
    const base = this.base
    const mask = this.slots - 1
    let hole = hash >>> this.shift
    for (;;) {
      const found = i32[base + hole * 2 + 1]
      assert(found !== 0, 'a flow that ends is in the table')
      if (found === record) break
      hole = (hole + 1) & mask
    }
    let slot = hole
    for (;;) {
      slot = (slot + 1) & mask
      const at = base + slot * 2
      const moved = i32[at + 1]
      if (moved === 0) break
      const home = i32[at] >>> this.shift
      // The entry may move back into the hole unless its home lies after the hole, up to its own slot.
      if (((slot - home) & mask) >= ((slot - hole) & mask)) {
        i32[base + hole * 2] = i32[at]
        i32[base + hole * 2 + 1] = moved
        hole = slot
      }
    }
    i32[base + hole * 2] = 0
    i32[base + hole * 2 + 1] = 0
    this.size--
  }
}
