/**
 * Framing inside a chunked body (RFC 9112 §7.1): the line with a chunk's size, and the trailer after the last chunk.
 *
 *     chunk-size [BWS] [; extensions] CRLF   chunk-data CRLF   ...   0 CRLF   trailer fields CRLF
 *     └──────── parseChunkSize ─────────┘                                    └─ findTrailerEnd ─┘
 *
 * Lines are short, so this is plain TypeScript. Lenient as servers must be: bare LF, spaces after the size and before
 * extensions, leading zeros. Strict where tolerance lets two receivers disagree about where a chunk ends: a CR without
 * LF, a control byte, an empty size, a sign or `0x`, a size beyond 2^53 - 1, more than {@link CHUNK_LINE_BYTES_MAX}
 * bytes.
 */

import type { Arena } from '../../memory/arena.ts'
import type { Kernels } from '../../memory/kernels/kernels.ts'
import { HeadResult } from './head.ts'

/** Longest line with a chunk's size, its line end included. */
export const CHUNK_LINE_BYTES_MAX = 4096

/** Parser of the framing of chunked bodies. Not allocating. */
export interface ChunkParser {
  /**
   * Parses the line with a chunk's size at [offset, end).
   *
   * @returns of {@link HeadResult}; after Complete `size` and `dataOffset` are set
   */
  parseChunkSize(offset: number, end: number): number
  /** Bytes in the chunk that was parsed last; 0 for the last chunk. */
  readonly size: number
  /** First byte after the line that was parsed last. */
  readonly dataOffset: number
  /**
   * The end of the trailer section that starts at `offset`: just after its empty line, or -1 if that has not come yet.
   */
  findTrailerEnd(offset: number, end: number): number
}

const HT = 0x09
const LF = 0x0a
const CR = 0x0d
const SP = 0x20
const SEMICOLON = 0x3b

export function createChunkParser(arena: Arena, kernels: Kernels): ChunkParser {
  const { u8 } = arena
  const { findHeadEnd } = kernels
  let size = 0
  let dataOffset = 0

  const parseChunkSize = (offset: number, limit: number): number => {
    const end = limit - offset > CHUNK_LINE_BYTES_MAX ? offset + CHUNK_LINE_BYTES_MAX : limit
    const short = end === limit && limit - offset < CHUNK_LINE_BYTES_MAX ? HeadResult.Incomplete : HeadResult.Invalid
    let value = 0
    let at = offset
    for (; at < end; at++) {
      const c = u8[at]
      let digit = c - 0x30
      if (digit < 0 || digit > 9) {
        digit = (c | 0x20) - 0x57
        if (digit < 10 || digit > 15) break
      }
      value = value * 16 + digit
      if (value > Number.MAX_SAFE_INTEGER) return HeadResult.Invalid
    }
    if (at >= end) return short
    if (at === offset) return HeadResult.Invalid
    while (at < end && (u8[at] === SP || u8[at] === HT)) at++
    if (at >= end) return short
    if (u8[at] === SEMICOLON) {
      while (at < end && (u8[at] >= 0x20 || u8[at] === HT)) at++
      if (at >= end) return short
    }
    if (u8[at] === CR) {
      at++
      if (at >= end) return short
    }
    if (u8[at] !== LF) return HeadResult.Invalid
    size = value
    dataOffset = at + 1
    return HeadResult.Complete
  }

  const findTrailerEnd = (offset: number, end: number): number => {
    if (offset < end && u8[offset] === LF) return offset + 1
    if (offset + 1 < end && u8[offset] === CR && u8[offset + 1] === LF) return offset + 2
    return findHeadEnd(offset, end)
  }

  return {
    parseChunkSize,
    findTrailerEnd,
    get size() { return size },
    get dataOffset() { return dataOffset },
  }
}
