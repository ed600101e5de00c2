/**
 * Departed: the Ethernet addresses of the flows that have ended last. A packet that a runtime gives back because its flow has just ended opens
 * a new one, and has the addresses of a link by then.
 */

import { flowKeysEqual } from '../flow/flow-key.ts'
import { KEY_WORDS } from '../flow/flow-record.ts'
import type { Arena } from '../memory/arena.ts'
import { MACS_BYTES } from '../messages/message.ts'

/** About as many as may end while a packet goes to a runtime and comes back. */
export const DEPARTED_MAX = 1024
/** A key and the addresses. */
const WORDS = KEY_WORDS + MACS_BYTES / 4

export class Departed {
  readonly #i32: Int32Array
  /** A ring; the newest is ahead of `#count`. */
  readonly #words = new Int32Array(DEPARTED_MAX * WORDS)
  #count = 0

  constructor({ i32 }: Arena) {
    this.#i32 = i32
  }

  /** The entry of a key is about to go, a flow's or an alias's. Byte offsets of both. */
  note(key: number, macs: number): void {
    const i32 = this.#i32
    const at = (this.#count++ % DEPARTED_MAX) * WORDS
    for (let word = 0; word < KEY_WORDS; word++) this.#words[at + word] = i32[(key >> 2) + word] as number
    for (let word = KEY_WORDS; word < WORDS; word++) this.#words[at + word] = i32[(macs >> 2) + word - KEY_WORDS] as number
  }

  /** Writes the addresses of the flow that had the key at a word index last to a byte offset; false if they are not known. */
  read(key: number, to: number): boolean {
    const i32 = this.#i32
    const oldest = Math.max(0, this.#count - DEPARTED_MAX)
    for (let i = this.#count - 1; i >= oldest; i--) {
      const at = (i % DEPARTED_MAX) * WORDS
      if (!flowKeysEqual(i32, key, at, this.#words)) continue
      for (let word = KEY_WORDS; word < WORDS; word++) i32[(to >> 2) + word - KEY_WORDS] = this.#words[at + word] as number
      return true
    }
    return false
  }
}
