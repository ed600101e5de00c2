/**
 * Hash of a flow key: a keyed mixing of its words, 32 bits, signed.
 *
 * The seed is secret to the process (a caller gives a random one in production), so that nobody outside can aim packets at
 * one table slot. Each step is a bijection of the running value, and the finaliser is that of MurmurHash3.
 */

const M1 = 0x9e3779b1 | 0
const M2 = 0x85ebca6b | 0

/** IPv4: the unused address words do not take part. */
export function hashKey4(seed: number, tag: number, ports: number, protocol: number, a: number, b: number): number {
  let h = Math.imul(seed ^ a, M1)
  h = Math.imul((h ^ (h >>> 15)) + b, M2)
  h = Math.imul((h ^ (h >>> 13)) + ports, M1)
  h = Math.imul((h ^ (h >>> 15)) + (tag ^ Math.imul(protocol, 0x01000193)), M2)
  h ^= h >>> 13
  h = Math.imul(h, 0xc2b2ae35)
  return h ^ (h >>> 16)
}

/** IPv6: `words` holds the key from word `at`, in the order of the flow record. */
export function hashKey6(seed: number, words: Int32Array, at: number): number {
  let h = Math.imul(seed ^ words[at + 3], M1)
  for (let i = 4; i < 11; i++) h = Math.imul((h ^ (h >>> 15)) + words[at + i], i & 1 ? M1 : M2)
  h = Math.imul((h ^ (h >>> 13)) + words[at + 1], M1)
  h = Math.imul((h ^ (h >>> 15)) + (words[at] ^ Math.imul(words[at + 2], 0x01000193)), M2)
  h ^= h >>> 13
  h = Math.imul(h, 0xc2b2ae35)
  return h ^ (h >>> 16)
}
