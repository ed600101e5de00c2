/**
 * Cache hints: what memory a network function is going to need for which packets, so that the engine can touch it for a whole
 * batch before it runs the first packet. With many flows, memory that was not touched in time is most of what a packet costs.
 *
 * A hint looks at one byte of the flow state, for the packet's direction, and applies when it has a given value and the packet
 * has payload. It changes nothing but time: a wrong hint is only slow.
 *
 *     hint in the arena, 6 words   │ field │ stride │ value │ payload bytes │ extent │ extent bytes │
 */

import type { Arena } from '../memory/arena.ts'
import { offsetIn, type Struct } from '../memory/struct.ts'

/** Declared by a network function in its definition. */
export interface CacheHint {
  /** A `pair` in the flow state, and a one-byte field of its struct. */
  readonly pair: string
  readonly field: string
  /** The value of the field for which the hint applies. */
  readonly equals: number
  /** Bytes of payload that will be read. */
  readonly payloadBytes: number
  /** A field of the flow state that is in an extent, and bytes of it that will be written or read. */
  readonly extent?: string
  readonly extentBytes?: number
}

export const CACHE_HINT_BYTES = 24

/** Writes hints as the engine and its kernel read them. */
export function writeCacheHints(
  arena: Arena, hints: readonly { hint: CacheHint; schema: Struct<any>; stateOffset: number }[],
): number {
  const table = arena.allocate('cache hints', Math.max(1, hints.length) * CACHE_HINT_BYTES)
  hints.forEach(({ hint, schema, stateOffset }, index) => {
    const side = (schema.fields as Record<string, { element?: Struct<any> }>)[hint.pair]?.element as Struct<any>
    const word = (table >> 2) + index * (CACHE_HINT_BYTES >> 2)
    arena.i32[word] = stateOffset + offsetIn(schema, hint.pair) + offsetIn(side, hint.field)
    arena.i32[word + 1] = side.bytes
    arena.i32[word + 2] = hint.equals
    arena.i32[word + 3] = hint.payloadBytes
    arena.i32[word + 4] = hint.extent === undefined ? 0 : stateOffset + offsetIn(schema, hint.extent)
    arena.i32[word + 5] = hint.extent === undefined ? 0 : (hint.extentBytes ?? 64)
  })
  return table
}
