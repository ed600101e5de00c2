/**
 * Alias keys: further tuples under which packets of a flow come once a network function has translated it. DESIGN §1, PROTOCOL 5.
 *
 *     alias key ──▶ block { record, flip, next } ◀── head, by the record's index
 *
 * `flip` tells that the alias's endpoint a is the flow's endpoint b. Looked up only for packets whose own key is no flow's. Aliases
 * end with their flow, and go with it when it moves.
 */

import type { Arena } from '../memory/arena.ts'
import type { Slab } from '../memory/slab.ts'
import { KeyBlock, KeyTable } from '../flow/key-table.ts'
import { Descriptor, Meta } from '../packet/descriptor.ts'

const RECORD = KeyBlock.own
const FLIP = KeyBlock.own + 4
const NEXT = KeyBlock.own + 8
const OWN_BYTES = 16

export class FlowAliases {
  readonly #i32: Int32Array
  readonly #slab: Slab
  readonly #table: KeyTable
  /** Word index of the head for record 0. */
  readonly #heads: number

  constructor(arena: Arena, slab: Slab, limit: number) {
    this.#i32 = arena.i32
    this.#slab = slab
    this.#table = new KeyTable(arena, 'alias keys', limit, OWN_BYTES)
    this.#heads = arena.allocate('alias heads', slab.count * 4) >> 2
  }

  get size(): number {
    return this.#table.size
  }

  /** Aliases that can still be added. */
  get available(): number {
    return this.#table.available
  }

  /** The record of a packet whose key is an alias, 0 if it is none. The packet's direction becomes that of the flow's own key. */
  find(d: number): number {
    const i32 = this.#i32
    const block = this.#table.find(d + Descriptor.key, i32[d + Descriptor.hash])
    if (block === 0) return 0
    if (i32[(block + FLIP) >> 2] !== 0) i32[d + Descriptor.meta] ^= Meta.fromB
    return i32[(block + RECORD) >> 2]
  }

  /** The record that has an alias key, 0 if none has. */
  ownerOf(key: number, hash: number): number {
    const block = this.#table.find(key, hash)
    return block === 0 ? 0 : this.#i32[(block + RECORD) >> 2]
  }

  /** Whether a key is an alias of this record: -1 if not, 1 if the alias's endpoint a is the flow's endpoint b, else 0. */
  flipOf(record: number, key: number, hash: number): number {
    const block = this.#table.find(key, hash)
    return block === 0 || this.#i32[(block + RECORD) >> 2] !== record ? -1 : this.#i32[(block + FLIP) >> 2]
  }

  /** Gives a record an alias that nobody has; false when there is no room. */
  add(record: number, key: number, hash: number, flip: boolean): boolean {
    const i32 = this.#i32
    const block = this.#table.add(key, hash)
    if (block === 0) return false
    const head = this.#heads + this.#slab.indexOf(record)
    i32[(block + RECORD) >> 2] = record
    i32[(block + FLIP) >> 2] = flip ? 1 : 0
    i32[(block + NEXT) >> 2] = i32[head]
    i32[head] = block
    return true
  }

  /** The blocks of a record's aliases: each begins with the key. */
  *of(record: number): Generator<number> {
    const i32 = this.#i32
    for (let block = i32[this.#heads + this.#slab.indexOf(record)]; block !== 0; block = i32[(block + NEXT) >> 2]) yield block
  }

  /** True when the alias's endpoint a is the flow's endpoint b. */
  isFlipped(block: number): boolean {
    return this.#i32[(block + FLIP) >> 2] !== 0
  }

  /** Takes all aliases from a record. */
  removeAll(record: number): void {
    const i32 = this.#i32
    const head = this.#heads + this.#slab.indexOf(record)
    for (let block = i32[head]; block !== 0;) {
      const next = i32[(block + NEXT) >> 2]
      this.#table.remove(block)
      block = next
    }
    i32[head] = 0
  }
}
