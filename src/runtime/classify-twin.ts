/**
 * The first stages of a batch in TypeScript: parse and hash, touch table slots, guess records, touch records. The twin of the kernel
 * packet/kernels/classify.as.ts, for machines without WebAssembly and for simulated nodes. Each stage is a loop over the whole batch, so that
 * its cache misses overlap; what has been read only to be in the cache goes into the sink, or it would be optimised away.
 */

import type { Arena } from '../memory/arena.ts'
import { FlowRecord } from '../flow/flow-record.ts'
import type { FlowTable } from '../flow/flow-table.ts'
import { CACHE_HINT_BYTES } from '../nf/cache-hint.ts'
import { Descriptor, DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import { ParseResult } from '../packet/parse.ts'

const { frame: FRAME, hash: HASH, record: RECORD, result: RESULT, meta: META, payload: PAYLOAD, payloadLength: PAYLOAD_LENGTH,
  wireLength: WIRE_LENGTH } = Descriptor
const WORDS = DESCRIPTOR_WORDS
const PASS = ParseResult.pass

export interface ClassifyTwinOptions {
  readonly arena: Arena
  readonly table: FlowTable
  /** Cache lines of a flow record. */
  readonly lines: number
  /** Word index of a place for what nobody reads. */
  readonly sink: number
  /** Offset of the cache hints. */
  readonly hints: number
  parse(d: number): number
  /** A packet that is not simply one of a flow: what `parse` gave, above 0. */
  special(d: number, result: number): void
}

export interface ClassifyTwin {
  /** Runs the stages over the descriptors from `first` to `end`, with so many of the hints. Returns how many bytes they are on the wire. */
  classify(first: number, end: number, hintCount: number): number
  /** The record whose entry has this hash, most likely; 0 if there is none. */
  guess(hash: number): number
}

export function createClassifyTwin({ arena: { i32, u8 }, table, lines, sink, hints, parse, special }: ClassifyTwinOptions): ClassifyTwin {
  const tableBase = table.base
  const tableShift = table.shift
  const tableMask = table.slots - 1

  function classify(first: number, end: number, hintCount: number): number {
    let touched = 0
    let bytes = 0
    for (let d = first; d < end; d += WORDS) touched ^= u8[i32[d + FRAME] + 14]
    for (let d = first; d < end; d += WORDS) {
      bytes += i32[d + WIRE_LENGTH]
      const result = parse(d)
      if (result > 0 && result !== PASS) special(d, result)
    }
    for (let d = first; d < end; d += WORDS) touched ^= i32[tableBase + (i32[d + HASH] >>> tableShift) * 2]
    for (let d = first; d < end; d += WORDS) i32[d + RECORD] = guess(i32[d + HASH])
    if (lines === 4) {
      for (let d = first; d < end; d += WORDS) {
        const at = i32[d + RECORD] >> 2
        touched ^= i32[at] ^ i32[at + 16] ^ i32[at + 32] ^ i32[at + 48]
      }
    } else {
      for (let d = first; d < end; d += WORDS) {
        for (let line = 0, at = i32[d + RECORD] >> 2; line < lines; line++, at += 16) touched ^= i32[at]
      }
    }
    for (let i = 0; i < hintCount; i++) touched ^= followHint((hints >> 2) + i * (CACHE_HINT_BYTES >> 2), first, end)
    i32[sink] = touched
    return bytes
  }

  /** Touches what a hint says for the packets that it is about (nf/cache-hint.ts). */
  function followHint(hint: number, first: number, end: number): number {
    const field = i32[hint]
    const stride = i32[hint + 1]
    const value = i32[hint + 2]
    const payloadBytes = i32[hint + 3]
    const extent = i32[hint + 4]
    const extentBytes = i32[hint + 5]
    let touched = 0
    for (let d = first; d < end; d += WORDS) {
      const record = i32[d + RECORD]
      const length = i32[d + PAYLOAD_LENGTH]
      if (record === 0 || i32[d + RESULT] !== 0 || length <= 0) continue
      const direction = ((i32[d + META] >>> 16) ^ u8[record + FlowRecord.opener]) & 1
      if (u8[record + field + direction * stride] !== value) continue
      const payload = i32[d + PAYLOAD]
      const last = length < payloadBytes ? length : payloadBytes
      for (let at = 0; at < last; at += 64) touched ^= u8[payload + at]
      const block = extentBytes !== 0 ? i32[(record + extent) >> 2] : 0
      if (block !== 0) for (let at = 0; at < extentBytes; at += 64) touched ^= i32[(block + at) >> 2]
    }
    return touched
  }

  function guess(hash: number): number {
    let slot = hash >>> tableShift
    for (;;) {
      const at = tableBase + slot * 2
      const record = i32[at + 1]
      if (record === 0 || i32[at] === hash) return record
      slot = (slot + 1) & tableMask
    }
  }

  return { classify, guess }
}
