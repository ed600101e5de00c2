/**
 * Byte scanning over the arena, in AssemblyScript with 128-bit SIMD: find a byte, find the end of an HTTP head,
 * compare, copy, sum. The plain TypeScript twin of every function is in scan-twin.ts.
 *
 * Where a function works on blocks of 16 or 64 bytes it may read a few bytes beyond `end`, never beyond the memory, and
 * what it reads there is masked off: results depend on [offset, end) alone.
 */

import { memoryBytes } from './memory-bytes.as'

const LF: u32 = 0x0a
const CR: u32 = 0x0d

/** A bit per byte of the 64 at `at` that equals `x`. */
// @ts-ignore: decorator
@inline
function equals64(at: i32, x: v128): u64 {
  const a = <u32>i8x16.bitmask(i8x16.eq(v128.load(at), x))
  const b = <u32>i8x16.bitmask(i8x16.eq(v128.load(at, 16), x))
  const c = <u32>i8x16.bitmask(i8x16.eq(v128.load(at, 32), x))
  const d = <u32>i8x16.bitmask(i8x16.eq(v128.load(at, 48), x))
  return <u64>(a | (b << 16)) | (<u64>(c | (d << 16)) << 32)
}

/** The first `byte` in [offset, end), or -1. */
export function findByte(offset: i32, end: i32, byte: i32): i32 {
  const x = i8x16.splat(<i8>byte)
  const whole = min(end, memoryBytes() - 15)
  let at = offset
  for (; at < whole; at += 16) {
    const hits = i8x16.bitmask(i8x16.eq(v128.load(at), x))
    if (hits != 0) {
      at += ctz(hits)
      return at < end ? at : -1
    }
  }
  for (; at < end; at++) if (<i32>load<u8>(at) == (byte & 0xff)) return at
  return -1
}

/** The offset just after the first LF LF or LF CR LF in [offset, end), or -1. */
export function findHeadEnd(offset: i32, end: i32): i32 {
  const x = i8x16.splat(<i8>LF)
  const whole = min(end, memoryBytes() - 63)
  let at = offset
  for (; at < whole; at += 64) {
    let hits = equals64(at, x)
    while (hits != 0) {
      const next = at + <i32>ctz(hits) + 1
      if (next >= end) return -1
      const c = <u32>load<u8>(next)
      if (c == LF) return next + 1
      if (c == CR && next + 1 < end && <u32>load<u8>(next + 1) == LF) return next + 2
      hits &= hits - 1
    }
  }
  for (; at + 1 < end; at++) {
    if (<u32>load<u8>(at) != LF) continue
    const c = <u32>load<u8>(at + 1)
    if (c == LF) return at + 2
    if (c == CR && at + 2 < end && <u32>load<u8>(at + 2) == LF) return at + 3
  }
  return -1
}

/** 1 if the `length` bytes at `a` and `b` are the same, else 0. */
export function equalBytes(a: i32, b: i32, length: i32): i32 {
  let i = 0
  for (; i + 16 <= length; i += 16) {
    if (!i8x16.all_true(i8x16.eq(v128.load(a + i), v128.load(b + i)))) return 0
  }
  if (i + 8 <= length) {
    if (load<u64>(a + i) != load<u64>(b + i)) return 0
    i += 8
  }
  for (; i < length; i++) if (load<u8>(a + i) != load<u8>(b + i)) return 0
  return 1
}

/** Copies `length` bytes; the two may overlap. */
export function copy(to: i32, from: i32, length: i32): void {
  memory.copy(to, from, length)
}

/**
 * Ones' complement sum of the big-endian 16-bit words of `length` bytes, folded to 16 bits (RFC 1071).
 *
 * Sums little-endian words, 8 at a time into 32-bit lanes, and swaps the bytes of the folded sum (RFC 1071 §2 (B)).
 */
export function checksum16(offset: i32, length: i32): i32 {
  let lanes = i32x4.splat(0)
  let at = offset
  const end = offset + length
  // A lane gains less than 2^17 per step, so it must be emptied before 2^15 steps.
  let sum: u64 = 0
  while (at + 16 <= end) {
    const pause = end - at > 0x40000 ? at + 0x40000 : end - 15
    for (; at < pause; at += 16) {
      lanes = i32x4.add(lanes, i32x4.extadd_pairwise_i16x8_u(v128.load(at)))
    }
    sum += <u64><u32>i32x4.extract_lane(lanes, 0) + <u64><u32>i32x4.extract_lane(lanes, 1) +
      <u64><u32>i32x4.extract_lane(lanes, 2) + <u64><u32>i32x4.extract_lane(lanes, 3)
    lanes = i32x4.splat(0)
  }
  for (; at + 2 <= end; at += 2) sum += <u64>load<u16>(at)
  if (at < end) sum += <u64>load<u8>(at)
  sum = (sum & 0xffffffff) + (sum >> 32)
  sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32)
  sum = (sum & 0xffff) + (sum >> 16)
  sum = (sum & 0xffff) + (sum >> 16)
  return <i32>(((sum & 0xff) << 8) | (sum >> 8))
}
