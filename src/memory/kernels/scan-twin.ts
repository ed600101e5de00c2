/**
 * Plain TypeScript twin of the byte-scanning kernels in scan.as.ts: the fallback where WebAssembly SIMD is missing, and
 * the oracle in tests. Same signatures, same results.
 *
 * Bytes are looked for four at a time in aligned words of the arena: with `x` XORed by the byte wanted in every
 * position, `(x - 0x01010101) & ~x & 0x80808080` has the top bit of every zero byte set (Mycroft 1987). A borrow can
 * set bits wrongly above a true hit, never below it, so the lowest set bit is exact. Bytes of the first word that lie
 * before the start are masked off; hits at or after the end are too late and count as none.
 */

import type { Arena } from '../arena.ts'

export interface ScanKernels {
  /** The first `byte` in [offset, end), or -1. */
  findByte(offset: number, end: number, byte: number): number
  /**
   * The offset just after the first empty line that follows a line in [offset, end): after LF LF or LF CR LF; -1 if
   * there is none. To go on when more bytes have come, start 2 bytes before the former end.
   */
  findHeadEnd(offset: number, end: number): number
  /** 1 if the `length` bytes at `a` and `b` are the same, else 0. */
  equalBytes(a: number, b: number, length: number): number
  /** Copies `length` bytes; the two may overlap. */
  copy(to: number, from: number, length: number): void
  /**
   * Ones' complement sum of the big-endian 16-bit words of `length` bytes (an odd last byte is the high half), folded
   * to 16 bits, not inverted (RFC 1071).
   */
  checksum16(offset: number, length: number): number
}

const LF = 0x0a
const CR = 0x0d

export function createScanTwin(arena: Arena): ScanKernels {
  const { u8, i32 } = arena

  const findByte = (offset: number, end: number, byte: number): number => {
    if (offset >= end) return -1
    const pattern = Math.imul(byte & 0xff, 0x01010101)
    let at = offset >> 2
    const last = (end - 1) >> 2
    let x = (i32[at] ^ pattern) | ((1 << ((offset & 3) << 3)) - 1)
    let hits = (x - 0x01010101) & ~x & 0x80808080
    while (hits === 0) {
      if (at === last) return -1
      x = i32[++at] ^ pattern
      hits = (x - 0x01010101) & ~x & 0x80808080
    }
    const found = (at << 2) + ((31 - Math.clz32(hits & -hits)) >> 3)
    return found < end ? found : -1
  }

  const findHeadEnd = (offset: number, end: number): number => {
    for (let at = findByte(offset, end, LF); at !== -1; at = findByte(at + 1, end, LF)) {
      if (at + 1 >= end) return -1
      if (u8[at + 1] === LF) return at + 2
      if (u8[at + 1] === CR && at + 2 < end && u8[at + 2] === LF) return at + 3
    }
    return -1
  }

  const equalBytes = (a: number, b: number, length: number): number => {
    for (let i = 0; i < length; i++) if (u8[a + i] !== u8[b + i]) return 0
    return 1
  }

  const copy = (to: number, from: number, length: number): void => {
    u8.copyWithin(to, from, from + length)
  }

  const checksum16 = (offset: number, length: number): number => {
    let sum = 0
    const end = offset + length
    let at = offset
    for (; at + 2 <= end; at += 2) {
      sum += (u8[at] << 8) | u8[at + 1]
      if (sum > 0x3fff0000) sum = (sum & 0xffff) + (sum >>> 16)
    }
    if (at < end) sum += u8[at] << 8
    sum = (sum & 0xffff) + (sum >>> 16)
    return (sum & 0xffff) + (sum >>> 16)
  }

  return { findByte, findHeadEnd, equalBytes, copy, checksum16 }
}
