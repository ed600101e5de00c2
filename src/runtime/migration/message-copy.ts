/**
 * Message copy: bytes of a message as bytes of their own, until the next one. PERF: for records of flows that come, most of which are as
 * long as the one before: nothing is allocated for them, and they are copied by words, for V8 copies shared memory byte by byte.
 */

import type { Arena } from '../../memory/arena.ts'

export class MessageCopy {
  readonly #arena: Arena
  #bytes = new Uint8Array(0)
  #words = new Int32Array(0)

  constructor(arena: Arena) {
    this.#arena = arena
  }

  /** @param at 4-aligned */
  take(at: number, bytes: number): Uint8Array {
    if (this.#bytes.length !== bytes) {
      this.#bytes = new Uint8Array(bytes)
      this.#words = new Int32Array(this.#bytes.buffer, 0, bytes >> 2)
    }
    const { i32, u8 } = this.#arena
    const copy = this.#bytes
    const words = this.#words
    const from = at >> 2
    for (let word = 0; word < words.length; word++) words[word] = i32[from + word]
    for (let byte = words.length << 2; byte < bytes; byte++) copy[byte] = u8[at + byte]
    return copy
  }
}
