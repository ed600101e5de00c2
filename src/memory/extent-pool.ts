/**
 * Extents: bounded variable-size state of a flow, in blocks from one slab, chained from a word in the flow's record.
 *
 *     record word ──▶ ┌ next u32 │ tag i32 │ length u16, - │ data ... ┐ ──▶ ┌ next = 0 ... ┐
 *                     0          4         8               16       blockBytes
 *
 * `tag` belongs to the user of the chain (TCP reassembly keeps a sequence number there). A word of 0 is an empty chain.
 * Whoever owns the word owns the chain; a chain is copied whole when its flow moves. The pool is bounded in total, each
 * field that holds a chain is bounded by its own schema; when either bound is met, taking a block fails and says so.
 */

import type { Arena } from './arena.ts'
import { Slab } from './slab.ts'

/** Bytes of a block before its data. */
export const EXTENT_HEADER_BYTES = 16

export class ExtentPool {
  readonly arena: Arena
  readonly blockBytes: number
  /** Data bytes in one block. */
  readonly dataBytes: number
  /** How often a block was wanted and none was left. */
  refused = 0
  readonly #slab: Slab
  readonly #i32: Int32Array
  readonly #u16: Uint16Array
  readonly #u8: Uint8Array

  constructor(arena: Arena, blocks: number, blockBytes = 512) {
    this.arena = arena
    this.blockBytes = blockBytes
    this.dataBytes = blockBytes - EXTENT_HEADER_BYTES
    this.#slab = new Slab(arena, 'extents', blocks, blockBytes)
    this.#i32 = arena.i32
    this.#u16 = arena.u16
    this.#u8 = arena.u8
  }

  /** Blocks in use. */
  get used(): number {
    return this.#slab.used
  }

  get blocks(): number {
    return this.#slab.count
  }

  get available(): number {
    return this.#slab.available
  }

  /** Takes an empty block that is chained to nothing, or 0 when none is left (counted in `refused`). */
  take(): number {
    const block = this.#slab.take()
    if (block === 0) {
      this.refused++
      return 0
    }
    this.#i32[block >> 2] = 0
    this.#i32[(block >> 2) + 1] = 0
    this.#i32[(block >> 2) + 2] = 0
    return block
  }

  /** Gives one block back (not the rest of its chain). */
  give(block: number): void {
    this.#slab.give(block)
  }

  /** Gives back every block of a chain. */
  giveChain(block: number): void {
    while (block !== 0) {
      const next = this.#i32[block >> 2]
      this.#slab.give(block)
      block = next
    }
  }

  next(block: number): number {
    return this.#i32[block >> 2]
  }

  setNext(block: number, next: number): void {
    this.#i32[block >> 2] = next
  }

  tag(block: number): number {
    return this.#i32[(block >> 2) + 1]
  }

  setTag(block: number, tag: number): void {
    this.#i32[(block >> 2) + 1] = tag
  }

  /** Bytes of data in the block. */
  length(block: number): number {
    return this.#u16[(block >> 1) + 4]
  }

  setLength(block: number, length: number): void {
    this.#u16[(block >> 1) + 4] = length
  }

  /** Where the block's data starts. */
  dataOffset(block: number): number {
    return block + EXTENT_HEADER_BYTES
  }

  /** Blocks in a chain. */
  chainBlocks(block: number): number {
    let count = 0
    for (; block !== 0; block = this.#i32[block >> 2]) count++
    return count
  }

  /**
   * Copies a chain, block by block, into `target` (16 + dataBytes each, next words meaningless).
   * @returns bytes written
   */
  exportChain(block: number, target: Uint8Array, at: number): number {
    const start = at
    for (; block !== 0; block = this.#i32[block >> 2]) {
      target.set(this.#u8.subarray(block, block + this.blockBytes), at)
      at += this.blockBytes
    }
    return at - start
  }

  /** Rebuilds a chain of `blocks` blocks written by {@link exportChain}. Returns its head, or 0 when there is no room. */
  importChain(source: Uint8Array, at: number, blocks: number): number {
    if (this.#slab.available < blocks) {
      this.refused += blocks
      return 0
    }
    let head = 0
    let last = 0
    for (let i = 0; i < blocks; i++) {
      const block = this.#slab.take()
      this.#u8.set(source.subarray(at, at + this.blockBytes), block)
      this.#i32[block >> 2] = 0
      if (last === 0) head = block
      else this.#i32[last >> 2] = block
      last = block
      at += this.blockBytes
    }
    return head
  }
}
