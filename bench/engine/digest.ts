/**
 * Digest of what a variant has done: forwarded packets in order, counters, records, and the final state of every flow. Compared
 * variants must print the same one, or their comparison is void.
 *
 * The digest is made of sums and hashes that do not depend on how a variant lays out its memory; the C twin computes the same.
 */

/** FNV-1a step over a 32-bit word. */
export function mix(hash: number, word: number): number {
  hash = Math.imul(hash ^ (word & 0xffff), 0x01000193)
  return Math.imul(hash ^ (word >>> 16), 0x01000193)
}

export const DIGEST_START = 0x811c9dc5 | 0

/** What one flow contributes. `values` are the fields of its state in the agreed order. */
export function flowDigest(values: readonly number[]): number {
  let hash = DIGEST_START
  for (const value of values) hash = mix(hash, value | 0)
  return hash
}

export interface VariantDigest {
  readonly forwarded: number
  readonly dropped: number
  readonly flows: number
  /** Hash over the chunk positions of forwarded packets, in order. */
  readonly output: number
  /** Sum of the flows' digests. */
  readonly states: number
  /** Hash over all records, in order. */
  readonly records: number
}
