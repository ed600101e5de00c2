/**
 * Slab: blocks of one fixed size, taken and given back in constant time.
 *
 * Free blocks form a stack threaded through their own first words, so that an empty slab of millions of blocks costs no
 * memory and no start-up time: blocks above the high-water mark have never been touched. The last block freed is the next
 * one taken, while its lines are still in the cache.
 *
 *     base                      high water                     base + count * blockBytes
 *     | used | free -> | used | free -> 0 | never used ...     |
 *
 * A bit per block tells taken from free, so that giving a block back twice is caught at once.
 */

import { assert } from '../base/assert.ts'
import type { Arena } from './arena.ts'

export class Slab {
  readonly blockBytes: number
  readonly count: number
  readonly base: number
  readonly #i32: Int32Array
  readonly #bits: number
  #freeHead = 0
  #highWater = 0
  #used = 0

  /**
   * @param count how many blocks there are at most
   * @param blockBytes size of one block, a multiple of 4; blocks start at multiples of `alignment`
   */
  constructor(arena: Arena, name: string, count: number, blockBytes: number, alignment = 64) {
    assert(blockBytes >= 4 && blockBytes % 4 === 0, 'a slab block is a whole number of words')
    this.blockBytes = blockBytes
    this.count = count
    this.#i32 = arena.i32
    this.base = arena.allocate(name, count * blockBytes, alignment, () => this.#highWater * blockBytes)
    this.#bits = arena.allocate(`${name}: taken bits`, Math.ceil(count / 32) * 4) >> 2
  }

  /** Blocks taken now. */
  get used(): number {
    return this.#used
  }

  /** Blocks that can still be taken. */
  get available(): number {
    return this.count - this.#used
  }

  /** How many blocks have ever been in use at once: those below this index may hold something. */
  get highWater(): number {
    return this.#highWater
  }

  /** Takes a block. Its content is whatever was there before. Returns its offset, or 0 when none is left. */
  take(): number {
    const i32 = this.#i32
    let offset = this.#freeHead
    if (offset !== 0) {
      this.#freeHead = i32[offset >> 2]
    } else {
      if (this.#highWater === this.count) return 0
      offset = this.base + this.#highWater * this.blockBytes
      this.#highWater++
    }
    const index = this.indexOf(offset)
    i32[this.#bits + (index >>> 5)] |= 1 << (index & 31)
    this.#used++
    return offset
  }

  /** Gives a block back. */
  give(offset: number): void {
    const i32 = this.#i32
    const index = this.indexOf(offset)
    assert(index >= 0 && index < this.#highWater, 'a block belongs to its slab')
    const word = this.#bits + (index >>> 5)
    const bit = 1 << (index & 31)
    assert((i32[word] & bit) !== 0, 'a block is given back once')
    i32[word] &= ~bit
    i32[offset >> 2] = this.#freeHead
    this.#freeHead = offset
    this.#used--
  }

  /** True if the block at this index is taken. */
  isTaken(index: number): boolean {
    return index < this.#highWater && (this.#i32[this.#bits + (index >>> 5)] & (1 << (index & 31))) !== 0
  }

  indexOf(offset: number): number {
    return ((offset - this.base) / this.blockBytes) | 0
  }

  offsetOf(index: number): number {
    return this.base + index * this.blockBytes
  }
}
