/**
 * Plain objects and messages. A message is made from a plain object as it is (`create`, and what methods return); this is the way back,
 * for code that knows nothing of protobuf and for schemas that allow no other key.
 */

import type { JsonObject, Message } from '@bufbuild/protobuf'

/** A message's fields, and those of the messages in it. */
export type Plain<T> = T extends Uint8Array ? T
  : T extends readonly (infer E)[] ? Plain<E>[]
  : T extends Message ? { [K in keyof T as K extends '$typeName' | '$unknown' ? never : K]: Plain<T[K]> }
  : T extends object ? { [K in keyof T]: Plain<T[K]> } : T

export function plainOf<T extends object>(message: T): Plain<T> {
  return strip(message) as Plain<T>
}

function strip(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return value
  if (Array.isArray(value)) return value.map(strip)
  return Object.fromEntries(Object.entries(value).flatMap(([key, one]) =>
    key === '$typeName' || key === '$unknown' || one === undefined ? [] : [[key, strip(one)]]))
}

/** An object with anything in it, as JSON would have it: what a `google.protobuf.Struct` takes. */
export function structOf(value: object): JsonObject {
  return JSON.parse(JSON.stringify(value)) as JsonObject
}
