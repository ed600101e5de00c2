/**
 * Kernel of the ports: bytes of frames, copied and summed. V8 copies shared memory byte by byte between places that are not
 * equally aligned, which is the rule with rings that others lay out; `memory.copy` does not care.
 */

/** Copies `bytes` bytes within the memory. */
export function copyBytes(to: i32, from: i32, bytes: i32): void {
  memory.copy(to, from, bytes)
}

/**
 * Ones' complement sum (RFC 1071) of the big-endian 16-bit words of `bytes` bytes, folded to 16 bits; an odd last byte is a high
 * half. The sum is made of little-endian words and turned at its end (RFC 1071, section 2: byte order independence).
 */
export function sumBytes(from: i32, bytes: i32): i32 {
  let sum: u64 = 0
  const end = from + bytes
  const wide = from + (bytes & ~31)
  for (; from < wide; from += 32) {
    sum += u64(load<u32>(from)) + u64(load<u32>(from, 4)) + u64(load<u32>(from, 8)) + u64(load<u32>(from, 12))
    sum += u64(load<u32>(from, 16)) + u64(load<u32>(from, 20)) + u64(load<u32>(from, 24)) + u64(load<u32>(from, 28))
  }
  for (; from + 2 <= end; from += 2) sum += u64(load<u16>(from))
  if (from < end) sum += u64(load<u8>(from))
  sum = (sum & 0xffffffff) + (sum >> 32)
  sum = (sum & 0xffffffff) + (sum >> 32)
  sum = (sum & 0xffff) + (sum >> 16)
  sum = (sum & 0xffff) + (sum >> 16)
  sum = (sum & 0xffff) + (sum >> 16)
  const folded = i32(sum)
  return ((folded & 255) << 8) | (folded >> 8)
}
