/**
 * Key table: what is known of flow keys that have no flow record here. Fixed-size blocks from a slab, found by key.
 *
 *      0 flow key, 11 words │ 44 kind u8 │ 48 hash i32 │ 52 epoch u32 │ 56 flow id f64 │ 64 what the owner of the table keeps ...
 *
 * One look for a packet that no flow claims tells whether the flow is about to open, on its way here, or has just left.
 */

import { assert } from '../base/assert.ts'
import type { Arena } from '../memory/arena.ts'
import { Slab } from '../memory/slab.ts'
import { FlowTable } from './flow-table.ts'
import { copyFlowKey, flowKeysEqual } from './flow-key.ts'

/** Byte offsets within a block. */
export const KeyBlock = { key: 0, kind: 44, hash: 48, epoch: 52, flow: 56, own: 64 } as const

export class KeyTable {
  readonly #i32: Int32Array
  readonly #table: FlowTable
  readonly #slab: Slab
  readonly #blockBytes: number

  /**
   * @param ownBytes bytes of a block behind {@link KeyBlock.own}, a multiple of 8
   */
  constructor(arena: Arena, name: string, limit: number, ownBytes: number) {
    assert(ownBytes % 8 === 0, 'what a key table keeps is a whole number of double words')
    this.#i32 = arena.i32
    this.#blockBytes = KeyBlock.own + ownBytes
    this.#table = new FlowTable(arena, `${name}: table`, limit)
    this.#slab = new Slab(arena, name, limit, this.#blockBytes)
  }

  get size(): number {
    return this.#table.size
  }

  /** Blocks that can still be added. */
  get available(): number {
    return this.#slab.available
  }

  /** The block of the key at word index `key`, 0 if there is none. */
  find(key: number, hash: number): number {
    const i32 = this.#i32
    let block = this.#table.find(hash, this.#table.home(hash))
    while (block !== 0 && !flowKeysEqual(i32, key, block >> 2)) block = this.#table.find(hash, this.#table.lastSlot + 1)
    return block
  }

  /** Adds a zeroed block for a key that has none; 0 when the limit is reached. */
  add(key: number, hash: number): number {
    const block = this.#slab.take()
    if (block === 0) return 0
    const i32 = this.#i32
    const at = block >> 2
    i32.fill(0, at, at + (this.#blockBytes >> 2))
    copyFlowKey(i32, key, at)
    i32[at + (KeyBlock.hash >> 2)] = hash
    this.#table.insert(hash, block)
    return block
  }

  /** Its kind is 0 from then on, for whoever had it in hand. */
  remove(block: number): void {
    this.#i32[(block + KeyBlock.kind) >> 2] = 0
    this.#table.remove(this.#i32[(block + KeyBlock.hash) >> 2], block)
    this.#slab.give(block)
  }

  /** Every block there is. */
  *blocks(): Generator<number> {
    for (let index = 0; index < this.#slab.highWater; index++) {
      if (this.#slab.isTaken(index)) yield this.#slab.offsetOf(index)
    }
  }
}
