/**
 * CRC32c, the checksum of SCTP (RFC 9260, appendix A): kernels leave it to the card like other checksums. A byte at a time; SCTP is
 * rare, and so is a card's work that comes to us.
 */

const table = Int32Array.from({ length: 256 }, (_, byte) => {
  let remainder = byte
  for (let bit = 0; bit < 8; bit++) remainder = (remainder >>> 1) ^ ((remainder & 1) !== 0 ? 0x82f63b78 : 0)
  return remainder
})

/** Of `length` bytes from `offset`; unsigned. It is stored little-endian. */
export function crc32c(bytes: Uint8Array, offset: number, length: number): number {
  let crc = -1
  for (let at = offset; at < offset + length; at++) crc = (crc >>> 8) ^ table[(crc ^ bytes[at]) & 255]
  return ~crc >>> 0
}
