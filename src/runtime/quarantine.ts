/**
 * Quarantine: flows whose packets are not run any more, or with care, for one of them has killed a runtime. PROTOCOL 22.
 *
 *     poisoned   packets and timers do not run: each packet is shown to the host, which may save it, and dropped. The flow ends like an idle one
 *     suspect    was in a batch with the one that did: runs off the fast path, where each packet is noted before it runs
 */

import { setBounded } from '../base/bounded.ts'
import { planted } from '../base/planted-bugs.ts'
import { KEY_WORDS, keyVersion } from '../flow/flow-record.ts'

export const Quarantined = { no: 0, suspect: 1, poisoned: 2 } as const

/** Flows remembered at once; the oldest is forgotten. */
export const QUARANTINED_MAX = 1024
/** How long: a sender that sends the packet again has given up by then. */
const QUARANTINE_US = 600e6

export class Quarantine {
  readonly #flows = new Map<string, { readonly kind: number; readonly until: number }>()

  get size(): number {
    return this.#flows.size
  }

  add(key: Int32Array, kind: number, now: number): void {
    const name = nameOf(key, 0)
    const before = this.of(key, 0, now)
    setBounded(this.#flows, name, { kind: Math.max(before, kind), until: now + QUARANTINE_US }, QUARANTINED_MAX)
  }

  /** What is known of the flow with the key at a word index: a {@link Quarantined}. */
  of(words: Int32Array, key: number, now: number): number {
    if (this.#flows.size === 0 || planted['poison-reruns']) return Quarantined.no
    const flow = this.#flows.get(nameOf(words, key))
    return flow === undefined || flow.until < now ? Quarantined.no : flow.kind
  }
}

function nameOf(words: Int32Array, key: number): string {
  if (keyVersion(words[key]) === 6) return words.subarray(key, key + KEY_WORDS).join()
  return `${words[key]},${words[key + 1]},${words[key + 2]},${words[key + 3]},${words[key + 7]}`
}
