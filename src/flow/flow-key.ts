/**
 * Flow keys as words in the arena: comparing and copying them. IPv4 uses one word of each address; the other words of an IPv4 key
 * mean nothing in a descriptor, and are zero everywhere else.
 */

import { KEY_WORDS, keyVersion } from './flow-record.ts'

/** True if the keys at two word indexes are the same; the second may be in other memory. */
export function flowKeysEqual(words: Int32Array, a: number, b: number, others: Int32Array = words): boolean {
  for (let i = 0; i < 4; i++) if (words[a + i] !== others[b + i]) return false
  if (words[a + 7] !== others[b + 7]) return false
  if (keyVersion(words[a]) !== 6) return true
  for (let i = 4; i < KEY_WORDS; i++) if (words[a + i] !== others[b + i]) return false
  return true
}

/** Copies a key between word indexes. */
export function copyFlowKey(words: Int32Array, from: number, to: number): void {
  for (let i = 0; i < 4; i++) words[to + i] = words[from + i]
  const isIpv6 = keyVersion(words[from]) === 6
  for (let i = 4; i < KEY_WORDS; i++) words[to + i] = isIpv6 || i === 7 ? words[from + i] : 0
}
