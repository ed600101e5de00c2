/**
 * The Internet checksum: ones' complement sum of 16-bit words (RFC 1071), and its incremental update (RFC 1624).
 */

/** Folds a sum of 16-bit words to 16 bits. */
export function foldSum(sum: number): number {
  sum = (sum & 0xffff) + (sum >>> 16)
  sum = (sum & 0xffff) + (sum >>> 16)
  return sum & 0xffff
}

/** Sum of the big-endian 16-bit words of `length` bytes (an odd last byte is the high half), at most 64 KiB, not folded. */
export function sumBytes(bytes: Uint8Array, offset: number, length: number): number {
  let sum = 0
  const even = offset + (length & ~1)
  for (let at = offset; at < even; at += 2) sum += (bytes[at] << 8) | bytes[at + 1]
  if (length & 1) sum += bytes[even] << 8
  return sum
}

/** The checksum field for a folded or unfolded sum. */
export function checksumOf(sum: number): number {
  return ~foldSum(sum) & 0xffff
}

/**
 * The checksum after one 16-bit word of what it covers has changed: RFC 1624, equation 3.
 */
export function updateChecksum16(checksum: number, before: number, after: number): number {
  return ~foldSum((~checksum & 0xffff) + (~before & 0xffff) + after) & 0xffff
}

/** The checksum after one 32-bit word has changed. */
export function updateChecksum32(checksum: number, before: number, after: number): number {
  const sum = (~checksum & 0xffff) + (~(before >>> 16) & 0xffff) + (~before & 0xffff) + (after >>> 16) + (after & 0xffff)
  return ~foldSum(sum) & 0xffff
}
