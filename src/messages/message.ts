/**
 * Messages between nodes: a closed, numbered table. A message lies in the arena, 8-aligned, and begins like all others, so that
 * reading one is reading numbers at constant offsets:
 *
 *      0 type u8 │ 1 code u8 │ 2 node u16 │ 4 epoch u32 │ 8 flow f64                                      the head, 16 bytes
 *     16 flow key, 11 words │ 60 Ethernet addresses of the flow, 12 bytes                        with `withKey`, 72 bytes
 *        fields of its own, at the offsets of its schema │ tail: a frame, a snapshot, more keys
 *
 * `code` is a refusal, a phase or a flag, `node` the node that it is about; what they mean stands with each kind. Each protocol
 * has a file in this folder; the table is the whole of it, for decoders, transcripts and counters. Nothing is allocated.
 */

import { assert } from '../base/assert.ts'
import type { Arena } from '../memory/arena.ts'
import { array, i32, struct, u16, u32, u64, u8, type Field, type Struct } from '../memory/struct.ts'
import { KEY_WORDS } from '../flow/flow-record.ts'

/** Byte offsets of the fields that messages share. */
export const MessageField = { type: 0, code: 1, node: 2, epoch: 4, flow: 8, key: 16, macs: 60 } as const
/** Bytes of a message's head; with key and Ethernet addresses. */
export const HEAD_BYTES = 16
export const KEYED_BYTES = 72
/** Bytes of the Ethernet addresses: destination and source of a frame from endpoint a of the key to endpoint b. */
export const MACS_BYTES = 12

/** Copies Ethernet addresses between places that are 4-aligned. PERF: V8 copies shared memory byte by byte. Hot where flows move. */
export function copyMacs({ i32 }: Arena, from: number, to: number): void {
  const a = from >> 2
  const b = to >> 2
  i32[b] = i32[a]
  i32[b + 1] = i32[a + 1]
  i32[b + 2] = i32[a + 2]
}

export interface MessageKind {
  readonly type: number
  readonly name: string
  readonly schema: Struct<any>
  /** Bytes without the tail. */
  readonly bytes: number
  readonly hasTail: boolean
}

const kinds: (MessageKind | undefined)[] = []
const head = { type: u8, code: u8, node: u16, epoch: u32, flow: u64 }
const keyed = { ...head, key: array(i32, KEY_WORDS), macs: array(u8, MACS_BYTES) }

interface MessageOptions {
  /** True: flow key and Ethernet addresses follow the head. */
  readonly withKey?: boolean
  /** Fields of its own. */
  readonly fields?: Record<string, Field<any, any>>
  /** True: any number of bytes may follow. */
  readonly hasTail?: boolean
}

/** Declares a kind of message. */
export function message(type: number, name: string, options: MessageOptions = {}): MessageKind {
  assert(kinds[type] === undefined && type > 0 && type < 256, 'a message type is given once')
  const schema = struct({ ...options.withKey === true ? keyed : head, ...options.fields })
  const kind = { type, name, schema, bytes: schema.bytes, hasTail: options.hasTail ?? false }
  kinds[type] = kind
  return kind
}

/** The kind of a type number, if there is one. */
export function messageKind(type: number): MessageKind | undefined {
  return kinds[type]
}

/** All kinds, by type. */
export function messageKinds(): readonly MessageKind[] {
  return kinds.filter((kind) => kind !== undefined)
}

/** True when a message of `bytes` bytes at `offset` is of a known type and long enough for it. */
export function isWellFormed(arena: Arena, offset: number, bytes: number): boolean {
  if (bytes < HEAD_BYTES) return false
  const kind = kinds[arena.u8[offset]]
  return kind !== undefined && (kind.hasTail ? bytes >= kind.bytes : bytes === kind.bytes)
}

/** Byte offset of a message's own field. */
export function fieldOf(kind: MessageKind, name: string): number {
  const found = kind.schema.layout.find((field) => field.name === name)
  assert(found !== undefined, 'a message has the field whose offset is asked for')
  return found.offset
}
