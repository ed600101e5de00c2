/**
 * Struct: a schema of flat, fixed-size state, and the typed view that reads and writes it in the arena.
 *
 *     const flowState = struct({ packets: array(u64, 2), opened: time, kind: enumeration('none', 'web') })
 *     type FlowState = StateOf<typeof flowState>          // { packets: ArrayView, opened: number, kind: number }
 *
 * A schema knows its size and layout (fields in order, each at its natural alignment), makes views for one arena
 * (`bind`), decodes to plain values for people (`decode`), and describes itself for comparison between versions
 * (`fingerprint`). State is never an object: a view is one reused cursor with an offset, its accessors compiled per binding
 * so that they are single loads and stores on constant arrays (PERF: bench engine, "modularity").
 *
 * Variable-size state lives in extents: `inExtent(struct)` is a struct that is only there when needed, `chain({ blocks })`
 * a bounded chain of blocks. The word in the record is part of this layout, the blocks come from the pool bound with it.
 *
 * 64-bit integers are "safe numbers": whole numbers up to 2^53 - 1, stored as IEEE 754 doubles, so that counting is one
 * load, one addition and one store. Times are microseconds since the Unix epoch in a double (see base/clock.ts) and have
 * a type of their own, so that a flow that moves to another clock can be rebased.
 */

import { assert } from '../base/assert.ts'
import type { Arena } from './arena.ts'
import type { ExtentPool } from './extent-pool.ts'

/** What a view needs: the arena its offsets point into and, for fields in extents, the pool of their blocks. */
export interface StructBinding {
  readonly arena: Arena
  readonly extents?: ExtentPool
  /** View classes already compiled for this binding, shared by fields of the same schema. */
  readonly classes?: Map<Struct<any>, new (children: readonly { o: number }[]) => StructView>
  /** True: a class that was compiled for this arena before is used again. Cheap to make, slower to use: for many short lives. */
  readonly reusesCode?: boolean
}

/** A field that holds references to extents, found by walking a schema. */
export interface ExtentReference {
  /** Byte offset of the reference word within the outermost struct. */
  readonly offset: number
  readonly path: string
  /** The most blocks that the field may hold. */
  readonly blocks: number
}

/** One kind of field. `View` is what an accessor gives, `Plain` what `decode` gives. */
export interface Field<View, Plain = View> {
  readonly kind: string
  readonly bytes: number
  readonly alignment: number
  /** Identity for comparing layouts. */
  readonly fingerprint: string
  /** Source of the accessors of a field `name` at `offset`; `child` names the object made by `makeChild`, if any. */
  accessors(name: string, offset: number, child: string): string
  /** The reused object behind a field that is not a plain number. */
  makeChild?(binding: StructBinding): { o: number }
  decode(binding: StructBinding, offset: number): Plain
  readonly extents?: readonly ExtentReference[]
  /** Byte offsets of times within the field. */
  readonly times?: readonly number[]
  /** True for fields that `decode` leaves out. */
  readonly isInternal?: boolean
  /** True for fields whose decoded fields stand among those of the struct around them. */
  readonly isFlat?: boolean
  /** For the types alone. */
  readonly example?: View
}

/** A field that people need not see: `decode` leaves it out. */
export function internal<V, P>(field: Field<V, P>): Field<V, P> {
  return { ...field, accessors: field.accessors.bind(field), makeChild: field.makeChild?.bind(field),
    decode: field.decode.bind(field), kind: field.kind, bytes: field.bytes, alignment: field.alignment,
    fingerprint: field.fingerprint, extents: field.extents, times: field.times, isInternal: true }
}

export type ViewOf<F> = F extends Field<infer V, unknown> ? V : never
export type PlainOf<F> = F extends Field<never, infer P> ? P : F extends Field<infer _V, infer P> ? P : never

type Fields = Record<string, Field<any, any>>
/** Fields whose accessor can be assigned to. */
type Assignable = number | boolean
type ViewShape<F extends Fields> = {
  -readonly [K in keyof F as ViewOf<F[K]> extends Assignable ? K : never]: ViewOf<F[K]>
} & {
  readonly [K in keyof F as ViewOf<F[K]> extends Assignable ? never : K]: ViewOf<F[K]>
}
type PlainShape<F extends Fields> = { [K in keyof F]: PlainOf<F[K]> }

/** A view of a struct: its fields, and the cursor. */
export type View<F extends Fields> = ViewShape<F> & StructView

export interface StructView {
  /** Byte offset in the arena of the state this view shows. Set by whoever owns the view. */
  o: number
}

/** The type of a schema's view: what a network function's methods receive. */
export type StateOf<S> = S extends Struct<infer F> ? View<F> : never
/** The type of a schema's decoded plain value. */
export type PlainStateOf<S> = S extends Struct<infer F> ? PlainShape<F> : never

const align = (offset: number, alignment: number): number => Math.ceil(offset / alignment) * alignment

function scalar(kind: string, bytes: number, array: string, shift: number): Field<number> {
  const index = (offset: number): string => (shift === 0 ? `this.o + ${offset}` : `(this.o + ${offset}) >> ${shift}`)
  const read = reader(array)
  return {
    kind,
    bytes,
    alignment: bytes,
    fingerprint: kind,
    accessors: (name, offset) =>
      `get ${name}() { return ${array}[${index(offset)}] }\n set ${name}(v) { ${array}[${index(offset)}] = v }`,
    decode: ({ arena }, offset) => read(arena, offset),
  }
}

function reader(array: string): (arena: Arena, offset: number) => number {
  switch (array) {
    case 'U8': return (arena, offset) => arena.u8[offset]
    case 'I8': return (arena, offset) => (arena.u8[offset] << 24) >> 24
    case 'U16': return (arena, offset) => arena.u16[offset >> 1]
    case 'I16': return (arena, offset) => (arena.u16[offset >> 1] << 16) >> 16
    case 'U32': return (arena, offset) => arena.u32[offset >> 2]
    case 'I32': return (arena, offset) => arena.i32[offset >> 2]
    default: return (arena, offset) => arena.f64[offset >> 3]
  }
}

/** Unsigned integer, 1 byte. */
export const u8 = scalar('u8', 1, 'U8', 0)
/** Unsigned integer, 2 bytes. */
export const u16 = scalar('u16', 2, 'U16', 1)
/** Unsigned integer, 4 bytes. */
export const u32 = scalar('u32', 4, 'U32', 2)
/** Signed integer, 1 byte. */
export const i8 = scalar('i8', 1, 'I8', 0)
/** Signed integer, 2 bytes. */
export const i16 = scalar('i16', 2, 'I16', 1)
/** Signed integer, 4 bytes; the fastest, also for 32-bit values taken as unsigned. */
export const i32 = scalar('i32', 4, 'I32', 2)
/** Whole number from 0 to 2^53 - 1, 8 bytes. */
export const u64 = scalar('u64', 8, 'F64', 3)
/** Whole number from -(2^53 - 1) to 2^53 - 1, 8 bytes. */
export const i64 = scalar('i64', 8, 'F64', 3)

/** A point in time: microseconds since the Unix epoch, 8 bytes; 0 is "never". Decodes to seconds. */
export const time: Field<number> = {
  ...scalar('time', 8, 'F64', 3),
  decode: ({ arena }, offset) => arena.f64[offset >> 3] / 1e6,
  times: [0],
}

/** True or false, 1 byte. */
export const bool: Field<boolean> = {
  kind: 'bool',
  bytes: 1,
  alignment: 1,
  fingerprint: 'bool',
  accessors: (name, offset) =>
    `get ${name}() { return U8[this.o + ${offset}] !== 0 }\n set ${name}(v) { U8[this.o + ${offset}] = v ? 1 : 0 }`,
  decode: ({ arena }, offset) => arena.u8[offset] !== 0,
}

/** A closed set of names. The state holds the number, people see the name. */
export interface Enumeration<N extends string> extends Field<number, string> {
  /** The number of each name: `kind.values.web`. */
  readonly values: { readonly [K in N]: number }
  readonly names: readonly N[]
}

/** One of the given names, 1 byte; a fresh state has the first. At most 256 names. */
export function enumeration<const N extends string>(...names: N[]): Enumeration<N> {
  assert(names.length > 0 && names.length <= 256, 'an enumeration has 1 to 256 names')
  return {
    ...u8,
    kind: 'enumeration',
    fingerprint: `enum(${names.join('|')})`,
    decode: ({ arena }, offset) => names[arena.u8[offset]] ?? `${arena.u8[offset]}`,
    values: Object.fromEntries(names.map((name, index) => [name, index])) as { [K in N]: number },
    names,
  }
}

/** A view of an IP address in the state. Words are big-endian 32-bit integers; IPv4 uses word 0 alone. */
export class AddressView {
  o = 0
  readonly #arena: Arena

  constructor(binding: StructBinding) {
    this.#arena = binding.arena
  }

  /** 4, 6, or 0 when no address was set. */
  get version(): number {
    return this.#arena.i32[this.o >> 2]
  }

  word(index: 0 | 1 | 2 | 3): number {
    return this.#arena.i32[(this.o >> 2) + 1 + index]
  }

  set(version: number, word0: number, word1 = 0, word2 = 0, word3 = 0): void {
    const at = this.o >> 2
    const i32 = this.#arena.i32
    i32[at] = version
    i32[at + 1] = word0
    i32[at + 2] = word1
    i32[at + 3] = word2
    i32[at + 4] = word3
  }

  toString(): string {
    const at = this.o >> 2
    const i32 = this.#arena.i32
    return formatAddress(i32[at], i32[at + 1], i32[at + 2], i32[at + 3], i32[at + 4])
  }
}

/**
 * Text of an address (RFC 5952 for IPv6).
 * @param version 4 or 6; anything else gives an empty text
 */
export function formatAddress(version: number, w0: number, w1 = 0, w2 = 0, w3 = 0): string {
  if (version === 4) return `${w0 >>> 24}.${(w0 >>> 16) & 255}.${(w0 >>> 8) & 255}.${w0 & 255}`
  if (version !== 6) return ''
  const groups = [w0 >>> 16, w0 & 65535, w1 >>> 16, w1 & 65535, w2 >>> 16, w2 & 65535, w3 >>> 16, w3 & 65535]
  if (w0 === 0 && w1 === 0 && w2 === 0xffff) return `::ffff:${formatAddress(4, w3)}`
  let bestStart = -1
  let bestLength = 1
  for (let i = 0; i < 8; i++) {
    let j = i
    while (j < 8 && groups[j] === 0) j++
    if (j - i > bestLength) {
      bestStart = i
      bestLength = j - i
    }
    if (j > i) i = j
  }
  const hex = (from: number, to: number): string => groups.slice(from, to).map((g) => g.toString(16)).join(':')
  if (bestStart < 0) return hex(0, 8)
  return `${hex(0, bestStart)}::${hex(bestStart + bestLength, 8)}`
}

/** An IPv4 or IPv6 address, 20 bytes. */
export const address: Field<AddressView, string> = {
  kind: 'address',
  bytes: 20,
  alignment: 4,
  fingerprint: 'address',
  accessors: childAccessor,
  makeChild: (binding) => new AddressView(binding),
  decode: ({ arena }, offset) => {
    const at = offset >> 2
    return formatAddress(arena.i32[at], arena.i32[at + 1], arena.i32[at + 2], arena.i32[at + 3], arena.i32[at + 4])
  },
}

function childAccessor(name: string, offset: number, child: string): string {
  return `get ${name}() { const c = this.${child}; c.o = this.o + ${offset}; return c }`
}

/** A view of a fixed-capacity byte string. */
export class BytesView {
  o = 0
  /** The most bytes it can hold. */
  readonly capacity: number
  readonly #arena: Arena

  constructor(binding: StructBinding, capacity: number) {
    this.#arena = binding.arena
    this.capacity = capacity
  }

  /** Bytes held. */
  get length(): number {
    return this.#arena.u16[this.o >> 1]
  }

  byte(index: number): number {
    return index >= 0 && index < this.length ? this.#arena.u8[this.o + 2 + index] : 0
  }

  /** Takes up to `capacity` bytes from the arena; what does not fit is cut off. */
  copyFrom(offset: number, length: number): void {
    const kept = length > this.capacity ? this.capacity : length
    const u8 = this.#arena.u8
    const to = this.o + 2
    // PERF: short strings; `copyWithin` costs 18 ns whatever the length (bench engine, chain).
    if (kept < 24) for (let i = 0; i < kept; i++) u8[to + i] = u8[offset + i]
    else u8.copyWithin(to, offset, offset + kept)
    this.#arena.u16[this.o >> 1] = kept
  }

  /** Takes a text's characters as bytes (Latin-1), cut to the capacity. */
  write(text: string): void {
    const kept = Math.min(text.length, this.capacity)
    for (let i = 0; i < kept; i++) this.#arena.u8[this.o + 2 + i] = text.charCodeAt(i)
    this.#arena.u16[this.o >> 1] = kept
  }

  clear(): void {
    this.#arena.u16[this.o >> 1] = 0
  }

  toString(): string {
    return latin1(this.#arena, this.o + 2, this.length)
  }
}

/** Bytes of the arena as text, one character a byte. Allocates; not for the packet path. */
export function latin1(arena: Arena, offset: number, length: number): string {
  let text = ''
  for (let at = offset; at < offset + length; at += 4096) {
    text += String.fromCharCode(...arena.u8.subarray(at, Math.min(at + 4096, offset + length)))
  }
  return text
}

/** A byte string of up to `capacity` bytes that is text: decodes to a string. 2 + capacity bytes. */
export function text(capacity: number): Field<BytesView, string> {
  assert(capacity > 0 && capacity < 65536, 'a text holds 1 to 65535 bytes')
  return {
    kind: 'text',
    bytes: align(2 + capacity, 2),
    alignment: 2,
    fingerprint: `text(${capacity})`,
    accessors: childAccessor,
    makeChild: (binding) => new BytesView(binding, capacity),
    decode: ({ arena }, offset) => latin1(arena, offset + 2, arena.u16[offset >> 1]),
  }
}

/** A byte string of up to `capacity` bytes: decodes to hexadecimal. 2 + capacity bytes. */
export function bytes(capacity: number): Field<BytesView, string> {
  return {
    ...text(capacity),
    kind: 'bytes',
    fingerprint: `bytes(${capacity})`,
    decode: ({ arena }, offset) =>
      Array.from(arena.u8.subarray(offset + 2, offset + 2 + arena.u16[offset >> 1]), (b) =>
        b.toString(16).padStart(2, '0'),
      ).join(''),
  }
}

/** A view of a small array of numbers. An index outside it throws, which the framework contains like any NF error. */
export interface ArrayView {
  o: number
  readonly length: number
  get(index: number): number
  set(index: number, value: number): void
  /** Adds `amount` (1 unless told) to an element. */
  add(index: number, amount?: number): void
  fill(value: number): void
}

let bindings = 0

/** `length` numbers of one kind. */
export function array(element: Field<number, any>, length: number): Field<ArrayView, unknown[]> {
  assert(length > 0 && length <= 256 && Number.isInteger(length), 'an array has 1 to 256 elements')
  assert(element.makeChild === undefined, 'an array holds numbers')
  const { bytes: size, alignment } = element
  return {
    kind: 'array',
    bytes: size * length,
    alignment,
    fingerprint: `${element.fingerprint}[${length}]`,
    accessors: childAccessor,
    makeChild: (binding) => {
      const one = element.accessors('value', 0, '')
      const source = `return class {
        constructor() { this.o = 0 }
        ${one.replaceAll('get value()', 'at(i)').replaceAll('set value(v)', 'put(i, v)')
             .replaceAll('this.o + 0', `this.o + (i * ${size})`)}
        check(i) {
          if (i >>> 0 !== i || i >= ${length}) throw new RangeError('index ' + i + ' is outside an array of ${length}')
        }
        get length() { return ${length} }
        get(i) { this.check(i); return this.at(i) }
        set(i, v) { this.check(i); this.put(i, v) }
        add(i, n = 1) { this.check(i); this.put(i, this.at(i) + n) }
        fill(v) { for (let i = 0; i < ${length}; i++) this.put(i, v) }
      }`
      const Made = compile(source, binding) as new () => ArrayView
      return new Made()
    },
    decode: (binding, offset) =>
      Array.from({ length }, (_, i) => element.decode(binding, offset + i * size) as unknown),
    times: element.times === undefined ? undefined : Array.from({ length }, (_, i) => i * size),
  }
}

/** Classes that may be used again, by their source. */
const reusable = new WeakMap<Arena, Map<string, unknown>>()

function compile(source: string, { arena, reusesCode }: StructBinding): unknown {
  let made: Map<string, unknown> | undefined
  if (reusesCode === true) {
    made = reusable.get(arena)
    if (made === undefined) reusable.set(arena, made = new Map<string, unknown>())
    const before = made.get(source)
    if (before !== undefined) return before
  }
  const i8 = new Int8Array(arena.buffer)
  const i16 = new Int16Array(arena.buffer)
  // The number makes it code of its own, which V8 shares with no other binding.
  const result: unknown = new Function('U8', 'I8', 'U16', 'I16', 'U32', 'I32', 'F64', `/* ${++bindings} */ ${source}`)(
    arena.u8, i8, arena.u16, i16, arena.u32, arena.i32, arena.f64,
  )
  made?.set(source, result)
  return result
}

/** A struct that is there only while needed, in one extent block. */
export class ExtentView<V extends StructView> {
  o = 0
  readonly #i32: Int32Array
  readonly #extents: ExtentPool
  readonly #view: V
  readonly #bytes: number

  constructor(binding: StructBinding, schema: Struct<any>) {
    assert(binding.extents !== undefined, 'a struct with extents is bound with their pool')
    this.#i32 = binding.arena.i32
    this.#extents = binding.extents
    this.#view = schema.bind(binding) as unknown as V
    this.#bytes = schema.bytes
    assert(this.#bytes <= this.#extents.dataBytes, 'a struct in an extent fits one block')
  }

  /** True if the struct is there. */
  get present(): boolean {
    return this.#i32[this.o >> 2] !== 0
  }

  /** The struct, or `null` while it is not there. */
  get view(): V | null {
    const block = this.#i32[this.o >> 2]
    if (block === 0) return null
    this.#view.o = this.#extents.dataOffset(block)
    return this.#view
  }

  /** The struct, made (zeroed) if it is not there yet; `null` when no extent is left. */
  create(): V | null {
    const at = this.o >> 2
    if (this.#i32[at] === 0) {
      const block = this.#extents.take()
      if (block === 0) return null
      this.#i32.fill(0, this.#extents.dataOffset(block) >> 2, (this.#extents.dataOffset(block) + this.#bytes + 3) >> 2)
      this.#extents.setLength(block, this.#bytes)
      this.#i32[at] = block
    }
    return this.view
  }

  /** Gives the struct's block back. */
  release(): void {
    const at = this.o >> 2
    if (this.#i32[at] !== 0) this.#extents.give(this.#i32[at])
    this.#i32[at] = 0
  }
}

/**
 * A struct in an extent of its own: 4 bytes in the record, one block while present. Decodes to `null` when absent.
 *
 * @param options.flat its decoded fields stand among those of the struct around it, as `null` when it is absent
 */
export function inExtent<F extends Fields>(schema: Struct<F>, options: { readonly flat?: boolean } = {}):
Field<ExtentView<View<F>>, PlainShape<F> | null> {
  const absent = Object.fromEntries(schema.layout.filter((l) => !l.field.isInternal).map((l) => [l.name, null]))
  assert(schema.extents.length === 0, 'an extent does not hold extents')
  assert(schema.times.length === 0, 'an extent does not hold times')
  return {
    kind: 'inExtent',
    bytes: 4,
    alignment: 4,
    fingerprint: `extent${schema.fingerprint}`,
    accessors: childAccessor,
    makeChild: (binding) => new ExtentView<View<F>>(binding, schema),
    decode: (binding, offset) => {
      const block = binding.arena.i32[offset >> 2]
      if (block === 0 || binding.extents === undefined) return options.flat ? (absent as PlainShape<F>) : null
      return schema.decode(binding, binding.extents.dataOffset(block))
    },
    extents: [{ offset: 0, path: '', blocks: 1 }],
    isFlat: options.flat,
  }
}

/** The head word of a bounded chain of extent blocks. */
export class ChainView {
  o = 0
  /** The most blocks this chain may have. */
  readonly blocksMax: number
  readonly extents: ExtentPool
  readonly #i32: Int32Array

  constructor(binding: StructBinding, blocksMax: number) {
    assert(binding.extents !== undefined, 'a struct with extents is bound with their pool')
    this.extents = binding.extents
    this.#i32 = binding.arena.i32
    this.blocksMax = blocksMax
  }

  /** First block, or 0. */
  get head(): number {
    return this.#i32[this.o >> 2]
  }

  set head(block: number) {
    this.#i32[this.o >> 2] = block
  }

  get isEmpty(): boolean {
    return this.#i32[this.o >> 2] === 0
  }

  /** Blocks in the chain. Walks it. */
  get blocks(): number {
    return this.extents.chainBlocks(this.head)
  }

  /** Bytes in the chain. Walks it. */
  get length(): number {
    let length = 0
    for (let block = this.head; block !== 0; block = this.extents.next(block)) length += this.extents.length(block)
    return length
  }

  /** Adds bytes at the end; false, with nothing added, when the chain or the pool has no room for them. */
  append(offset: number, length: number): boolean {
    const pool = this.extents
    const u8 = pool.arena.u8
    let blocks = 0
    let last = 0
    for (let block = this.head; block !== 0; block = pool.next(block)) {
      last = block
      blocks++
    }
    let room = last === 0 ? 0 : pool.dataBytes - pool.length(last)
    const wanted = Math.max(0, Math.ceil((length - room) / pool.dataBytes))
    if (blocks + wanted > this.blocksMax || pool.available < wanted) {
      if (pool.available < wanted) pool.refused++
      return false
    }
    while (length > 0) {
      if (room === 0) {
        const block = pool.take()
        if (last === 0) this.head = block
        else pool.setNext(last, block)
        last = block
        room = pool.dataBytes
      }
      const part = length < room ? length : room
      const used = pool.length(last)
      u8.copyWithin(pool.dataOffset(last) + used, offset, offset + part)
      pool.setLength(last, used + part)
      offset += part
      length -= part
      room -= part
    }
    return true
  }

  /** Copies up to `limit` bytes of the chain to `offset`. Returns how many. */
  copyTo(offset: number, limit: number): number {
    const pool = this.extents
    let copied = 0
    for (let block = this.head; block !== 0 && copied < limit; block = pool.next(block)) {
      const from = pool.dataOffset(block)
      const part = Math.min(pool.length(block), limit - copied)
      pool.arena.u8.copyWithin(offset + copied, from, from + part)
      copied += part
    }
    return copied
  }

  /** Gives every block back. */
  clear(): void {
    const head = this.head
    if (head !== 0) {
      this.extents.giveChain(head)
      this.head = 0
    }
  }
}

/** A chain of at most `blocks` extent blocks: 4 bytes in the record. Decodes to the number of bytes held. */
export function chain(options: { readonly blocks: number }): Field<ChainView, number> {
  return {
    kind: 'chain',
    bytes: 4,
    alignment: 4,
    fingerprint: `chain(${options.blocks})`,
    accessors: childAccessor,
    makeChild: (binding) => new ChainView(binding, options.blocks),
    decode: (binding, offset) => {
      let length = 0
      const pool = binding.extents
      if (pool === undefined) return 0
      for (let block = binding.arena.i32[offset >> 2]; block !== 0; block = pool.next(block)) length += pool.length(block)
      return length
    },
    extents: [{ offset: 0, path: '', blocks: options.blocks }],
  }
}

/** The same struct twice: for what a flow keeps for each of its directions. */
export class PairView<V extends StructView> {
  o = 0
  readonly #own: V
  readonly #other: V
  readonly #any: V
  readonly #bytes: number

  constructor(own: V, other: V, any: V, bytes: number) {
    this.#own = own
    this.#other = other
    this.#any = any
    this.#bytes = bytes
  }

  /** The struct of this direction. PERF: computed, not chosen: directions are as good as random (bench engine, http). */
  own(direction: number): V {
    const view = this.#own
    view.o = this.o + direction * this.#bytes
    return view
  }

  /** The struct of the opposite direction; may be used together with `own`. */
  other(direction: number): V {
    const view = this.#other
    view.o = this.o + (1 - direction) * this.#bytes
    return view
  }

  /** The struct of any direction, by a third view, for code that is called while `own` and `other` are in use. */
  at(direction: number): V {
    const view = this.#any
    view.o = this.o + direction * this.#bytes
    return view
  }
}

/** A field made of two structs. */
export interface PairField<F extends Fields> extends
  Field<PairView<View<F>>, { forward: PlainShape<F>; reverse: PlainShape<F> }> {
  readonly element: Struct<F>
}

/** Two structs, one for each direction of a flow. Decodes to `{ forward, reverse }`. */
export function pair<F extends Fields>(schema: Struct<F>): PairField<F> {
  const bytes = schema.bytes
  return {
    kind: 'pair',
    element: schema,
    bytes: bytes * 2,
    alignment: schema.alignment,
    fingerprint: `pair${schema.fingerprint}`,
    accessors: childAccessor,
    makeChild: (binding) =>
      new PairView<View<F>>(schema.bind(binding), schema.bind(binding), schema.bind(binding), bytes),
    decode: (binding, offset) =>
      ({ forward: schema.decode(binding, offset), reverse: schema.decode(binding, offset + bytes) }),
    extents: [0, 1].flatMap((i) => schema.extents.map((e) =>
      ({ offset: i * bytes + e.offset, path: `${i === 0 ? 'forward' : 'reverse'}.${e.path}`, blocks: e.blocks }))),
    times: [0, 1].flatMap((i) => schema.times.map((t) => i * bytes + t)),
  }
}

/** Where a field lies. */
export interface FieldLayout {
  readonly name: string
  readonly offset: number
  readonly bytes: number
  readonly field: Field<any, any>
}

export class Struct<F extends Fields = Fields> implements Field<View<F>, PlainShape<F>> {
  readonly kind = 'struct'
  readonly fields: F
  readonly layout: readonly FieldLayout[]
  /** Size in bytes, a multiple of the alignment. */
  readonly bytes: number
  readonly alignment: number
  readonly fingerprint: string
  readonly extents: readonly ExtentReference[]
  readonly times: readonly number[]
  /** For the types alone. */
  declare readonly example?: View<F>

  constructor(fields: F) {
    const layout: FieldLayout[] = []
    const extents: ExtentReference[] = []
    const times: number[] = []
    let offset = 0
    let alignment = 1
    for (const [name, field] of Object.entries(fields)) {
      assert(/^[A-Za-z][A-Za-z0-9]*$/.test(name) && name !== 'o' && name !== 'constructor',
        'a field name is letters and digits, and not "o"')
      offset = align(offset, field.alignment)
      layout.push({ name, offset, bytes: field.bytes, field })
      for (const e of field.extents ?? []) {
        extents.push({ offset: offset + e.offset, path: e.path === '' ? name : `${name}.${e.path}`, blocks: e.blocks })
      }
      for (const t of field.times ?? []) times.push(offset + t)
      offset += field.bytes
      alignment = Math.max(alignment, field.alignment)
    }
    this.fields = fields
    this.layout = layout
    this.alignment = alignment
    this.bytes = align(offset, alignment)
    this.fingerprint = `{${layout.map((l) => `${l.name}:${l.field.fingerprint}`).join(',')}}`
    this.extents = extents
    this.times = times
  }

  /**
   * Makes a view class for one arena and returns one instance. Every call compiles a class of its own, so that a call site
   * that uses one view stays monomorphic; fields of the same schema within a struct share one.
   */
  bind(binding: StructBinding): View<F> {
    const classes = binding.classes ?? new Map<Struct<any>, new (children: readonly { o: number }[]) => StructView>()
    const inner: StructBinding = { ...binding, classes }
    const childFields = this.layout.filter((l) => l.field.makeChild !== undefined)
    const children = childFields.map((l) => (l.field.makeChild as NonNullable<Field<any>['makeChild']>)(inner))
    let Made = classes.get(this)
    if (Made === undefined) {
      const childName = (name: string): string => `$${name}`
      const source = `return class StructView {
        constructor(children) {
          this.o = 0
          ${childFields.map((l, i) => `this.${childName(l.name)} = children[${i}]`).join('\n')}
        }
        ${this.layout.map((l) => l.field.accessors(l.name, l.offset, childName(l.name))).join('\n')}
      }`
      Made = compile(source, binding) as new (children: readonly { o: number }[]) => StructView
      classes.set(this, Made)
    }
    return new Made(children) as View<F>
  }

  accessors(name: string, offset: number, child: string): string {
    return childAccessor(name, offset, child)
  }

  makeChild(binding: StructBinding): { o: number } {
    return this.bind(binding)
  }

  /** The state at `offset` as plain values, for people and files. Allocates. */
  decode(binding: StructBinding, offset: number): PlainShape<F> {
    const plain: Record<string, unknown> = {}
    for (const l of this.layout) {
      if (l.field.isInternal) continue
      const value: unknown = l.field.decode(binding, offset + l.offset)
      if (l.field.isFlat) Object.assign(plain, value)
      else plain[l.name] = value
    }
    return plain as PlainShape<F>
  }
}

/** Byte offset of a field of a struct. */
export function offsetIn(schema: Struct<any>, name: string): number {
  const found = schema.layout.find((field) => field.name === name)
  assert(found !== undefined, 'a struct has the field whose offset is asked for')
  return found.offset
}

/** Declares a struct. Fields keep their order; each lies at its natural alignment. */
export function struct<F extends Fields>(fields: F): Struct<F> {
  return new Struct(fields)
}
