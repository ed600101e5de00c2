/**
 * In progress: which flow's packet, or timer, a runtime is running at this moment, in memory that outlives it. PROTOCOL 22.
 *
 * A packet that kills a runtime, or keeps it in a loop for ever, would come again and kill the next one, which has the flow's replica. So the
 * engine writes down whose packet it is about to run, before it does; who ends up with the flow is told (`Engine.quarantine`) before it runs
 * anything of it. The memory is handed in: that of a file, mapped by whoever runs the process, is still there when the process has died
 * in a packet, in a loop, or by a signal.
 *
 *     words   0 magic │ 1 flows noted: 0 nothing is running │ 2, 3 unused │ then per flow its key, of which IPv4 needs words 0-3 and 7
 *
 * One flow is noted: it was its packet. Several: the packets of a batch that the fast path runs in one go; it was one of them.
 */

import { BATCH_PACKETS } from '../base/limits.ts'
import { KEY_WORDS } from '../flow/flow-record.ts'

const MAGIC = 0x4e465052
const COUNT = 1
const FIRST = 4
const ENTRY_WORDS = 12

/** Bytes of the memory that is handed in. */
export const IN_PROGRESS_BYTES = (FIRST + BATCH_PACKETS * ENTRY_WORDS) * 4

export class InProgress {
  readonly #words: Int32Array

  /** @param words memory of {@link IN_PROGRESS_BYTES}; what it said is forgotten */
  constructor(words: Int32Array) {
    this.#words = words
    words[0] = MAGIC
    words[COUNT] = 0
  }

  /** The flow with the key at a word index is about to run. Hot. */
  begin(i32: Int32Array, key: number): void {
    const words = this.#words
    this.#write(i32, key, FIRST)
    words[COUNT] = 1
  }

  /** Flows of a batch, beside those that are noted. */
  add(i32: Int32Array, key: number): void {
    const words = this.#words
    if (words[COUNT] >= BATCH_PACKETS) return
    this.#write(i32, key, FIRST + words[COUNT] * ENTRY_WORDS)
    words[COUNT]++
  }

  #write(i32: Int32Array, key: number, to: number): void {
    const words = this.#words
    words[to] = i32[key]
    words[to + 1] = i32[key + 1]
    words[to + 2] = i32[key + 2]
    words[to + 3] = i32[key + 3]
    words[to + 7] = i32[key + 7]
    if (i32[key] >>> 24 !== 6) return
    for (let i = 4; i < KEY_WORDS; i++) words[to + i] = i32[key + i]
  }

  /** Nothing is running. Hot. */
  end(): void {
    this.#words[COUNT] = 0
  }
}

/**
 * What a runtime that has died was running: keys of flows. One: its packet or timer has killed it. Several: that of one of them. None: it
 * died of something else, or the memory is not a note at all.
 */
export function readInProgress(words: Int32Array): Int32Array[] {
  const count = words[COUNT]
  if (words.byteLength < IN_PROGRESS_BYTES || words[0] !== MAGIC || count < 0 || count > BATCH_PACKETS) return []
  const keys = new Map<string, Int32Array>()
  for (let i = 0, at = FIRST; i < count; i++, at += ENTRY_WORDS) {
    const key = words.slice(at, at + KEY_WORDS)
    // Left over from another flow.
    if (key[0] >>> 24 !== 6) for (const word of [4, 5, 6, 8, 9, 10]) key[word] = 0
    keys.set(key.join(), key)
  }
  return [...keys.values()]
}
