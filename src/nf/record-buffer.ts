/**
 * Records: what network functions report, as flat entries in a bounded buffer that the host drains after every batch.
 *
 *     entry   0 bytes u32 │ 4 nf u16, event u16 │ 8 time f64 │ 16 flow key, 11 words │ 60 from b u32
 *            64 one double word per field, in the order of the schema: a number, or offset and length of a text
 *               texts ...
 *
 * Making a record allocates nothing: `begin`, assign the fields, `commit`. When the buffer is full until the host drains it,
 * records are counted as lost, never waited for.
 */

import { assert } from '../base/assert.ts'
import type { TimeUs } from '../base/clock.ts'
import type { Arena } from '../memory/arena.ts'
import { latin1, type Field, type PlainOf, type ViewOf } from '../memory/struct.ts'
import { KEY_WORDS } from '../flow/flow-record.ts'

/** Fields of a record: numbers, booleans, enumerations and texts (whose capacity bounds what is kept). */
export type RecordFields = Record<string, Field<any, any>>

/** What may be assigned to a text field. */
export interface RecordText {
  /** Takes bytes from the arena, cut to the field's capacity. */
  copyFrom(offset: number, length: number): void
  /** Takes a text, one byte a character (Latin-1), cut to the field's capacity. */
  write(text: string): void
}

export type RecordWriter<F extends RecordFields> = {
  -readonly [K in keyof F as ViewOf<F[K]> extends number | boolean ? K : never]: ViewOf<F[K]>
} & {
  readonly [K in keyof F as ViewOf<F[K]> extends number | boolean ? never : K]: RecordText
} & {
  /** Starts a record of the flow at hand; fields start as 0 and empty. `direction` is that of the packet unless told. */
  begin(direction?: number): void
  /** Hands the record over. */
  commit(): void
  readonly place: RecordPlace
}

/** Where a kernel makes records of a kind: how the entry is laid out stands at the top. */
export interface RecordPlace {
  /** Byte offset of three words: the buffer's end i32, records in it i32, records made f64. */
  readonly cursor: number
  /** NF and event of the entry. */
  readonly which: number
  /** The last offset at which such an entry may begin. */
  readonly limit: number
}

/** The plain values of a record, as `context.record` takes them and hosts see them. */
export type PlainRecord<F extends RecordFields> = { [K in keyof F]?: PlainOf<F[K]> }

/** A record as the host sees it. */
export interface DecodedRecord {
  readonly nf: number
  readonly event: string
  readonly time: TimeUs
  /** Word index of the flow key in the arena; valid until the buffer is drained. */
  readonly key: number
  /** True if the record's source is endpoint b. */
  readonly fromB: boolean
  readonly fields: Record<string, string | number | boolean>
}

interface EventSchema {
  readonly name: string
  readonly nf: number
  readonly fields: readonly { readonly name: string; readonly field: Field<any, any>; readonly capacity: number }[]
}

/** Where a record is about: set by the engine before it runs a network function. */
export interface RecordOrigin {
  /** Arena offset of the flow record. */
  record: number
  /** 1 if the packet at hand comes from endpoint b. */
  fromB: number
  /** 1 if endpoint b opened the flow. */
  opener: number
  /** Where the time at hand is, as an index of doubles. PERF: a double that a function returns may be boxed. */
  timeIndex: number
}

const HEADER_BYTES = 64
/** In the place of NF and event numbers: begun, not committed. */
const NOT_COMMITTED = -1

/** Where a record being made is, and its end so far; `at` is 0 while there is none. */
interface Cursor {
  at: number
  end: number
  /** The end of the room that was reserved for it. */
  limit: number
}

class RecordTextWriter implements RecordText {
  readonly #i32: Int32Array
  readonly #u8: Uint8Array
  readonly #copy: (to: number, from: number, length: number) => void
  readonly #cursor: Cursor
  readonly #field: number
  readonly #capacity: number

  constructor(arena: Arena, copy: (to: number, from: number, length: number) => void, cursor: Cursor, slot: number,
      capacity: number) {
    this.#i32 = arena.i32
    this.#u8 = arena.u8
    this.#copy = copy
    this.#cursor = cursor
    this.#field = HEADER_BYTES + slot * 8
    this.#capacity = capacity
  }

  copyFrom(offset: number, length: number): void {
    const cursor = this.#cursor
    if (cursor.at === 0) return
    const kept = this.#place(cursor, length)
    // PERF: `copyWithin` costs 18 ns whatever the length, the kernel 8 (bench engine, http).
    this.#copy(cursor.end, offset, kept)
    cursor.end += kept
  }

  write(text: string): void {
    const cursor = this.#cursor
    if (cursor.at === 0) return
    const kept = this.#place(cursor, text.length)
    for (let i = 0; i < kept; i++) this.#u8[cursor.end + i] = text.charCodeAt(i)
    cursor.end += kept
  }

  /** Notes a text of `length` bytes that begins at the cursor; returns how many of them are kept. */
  #place(cursor: Cursor, length: number): number {
    const word = (cursor.at + this.#field) >> 2
    // Written before: what was written last counts, in the same room if nothing came behind it.
    if (this.#i32[word + 1] !== 0 && this.#i32[word] + this.#i32[word + 1] === cursor.end) cursor.end = this.#i32[word]
    if (length > this.#capacity) length = this.#capacity
    if (length > cursor.limit - cursor.end) length = cursor.limit - cursor.end
    this.#i32[word] = cursor.end
    this.#i32[word + 1] = length
    return length
  }
}

export class RecordBuffer {
  /** Records that found no room. */
  lost = 0
  readonly #arena: Arena
  readonly #base: number
  readonly #bytes: number
  readonly #origin: RecordOrigin
  readonly #copy: (to: number, from: number, length: number) => void
  readonly #events: EventSchema[] = []
  /** Word index of the end, in the arena for kernels that make records: end, records in the buffer, records made (double). */
  readonly #cursor: number

  /** @param copy copies bytes within the arena: (to, from, length) */
  constructor(arena: Arena, bytes: number, origin: RecordOrigin, copy: (to: number, from: number, length: number) => void) {
    this.#copy = copy
    this.#arena = arena
    this.#bytes = bytes
    this.#base = arena.allocate('records', bytes)
    this.#cursor = arena.allocate('record cursor', 64) >> 2
    arena.i32[this.#cursor] = this.#base
    this.#origin = origin
  }

  /** Makes the writer of one kind of record. */
  writer(nf: number, event: string, fields: RecordFields): RecordWriter<RecordFields> {
    const schema: EventSchema = {
      name: event,
      nf,
      fields: Object.entries(fields).map(([name, field]) => {
        assert(name !== 'begin' && name !== 'commit', 'a record field is not called begin or commit')
        const capacity = /^(?:text|bytes)\((\d+)\)$/.exec(field.fingerprint)?.[1]
        assert(capacity !== undefined || field.makeChild === undefined, 'a record holds numbers, enumerations and texts')
        return { name, field, capacity: capacity === undefined ? -1 : Number(capacity) }
      }),
    }
    const number = this.#events.push(schema) - 1
    const worst = HEADER_BYTES + schema.fields.reduce((sum, f) => sum + 8 + Math.max(0, f.capacity), 0) + 8
    assert(worst <= this.#bytes, 'a record fits the buffer')
    return this.#compile(schema, number, worst)
  }

  /** PERF: a class made for this kind of record: its fields are plain properties and accessors (bench engine, http). */
  #compile(schema: EventSchema, event: number, worst: number): RecordWriter<RecordFields> {
    const { i32, f64 } = this.#arena
    const buffer = this
    const cursor = this.#cursor
    const made = (cursor >> 1) + 1
    const origin = this.#origin
    const which = schema.nf | (event << 16)
    const fieldsBytes = schema.fields.length * 8
    const reserved = (worst + 7) & ~7
    const limit = this.#base + this.#bytes - reserved

    class Writer implements Cursor {
      at = 0
      end = 0
      limit = 0

      /** What a kernel needs to make such a record: see {@link RecordPlace}. */
      get place(): RecordPlace { return { cursor: cursor << 2, which, limit } }

      begin(direction?: number): void {
        const at = i32[cursor]
        if (at > limit) {
          this.at = 0
          return
        }
        const word = at >> 2
        const end = at + HEADER_BYTES + fieldsBytes
        for (let w = word + (HEADER_BYTES >> 2); w < end >> 2; w++) i32[w] = 0
        // Until it is committed, an entry that the host passes over.
        i32[word] = reserved
        i32[word + 1] = NOT_COMMITTED
        i32[cursor] = at + reserved
        f64[(at >> 3) + 1] = f64[origin.timeIndex]
        const key = origin.record >> 2
        for (let i = 0; i < KEY_WORDS; i++) i32[word + 4 + i] = i32[key + i]
        i32[word + 15] = direction === undefined ? origin.fromB : direction ^ origin.opener
        this.at = at
        this.end = end
        this.limit = at + worst
      }

      commit(): void {
        if (this.at === 0) {
          buffer.lost++
          return
        }
        i32[(this.at >> 2) + 1] = which
        // Another record may have begun behind this one; if not, the room that was not needed is free again.
        if (i32[cursor] === this.at + reserved) {
          i32[this.at >> 2] = this.end - this.at
          i32[cursor] = (this.end + 7) & ~7
        }
        i32[cursor + 1]++
        f64[made]++
        this.at = 0
      }
    }

    const accessors = schema.fields.map(({ name, capacity }, slot) => {
      const place = `(this.at + ${HEADER_BYTES + slot * 8}) >> 3`
      return capacity >= 0 ? '' : `get ${name}() { return this.at === 0 ? 0 : F64[${place}] }
        set ${name}(v) { if (this.at !== 0) F64[${place}] = +v }`
    })
    const texts = schema.fields.map(({ name, capacity }, slot) => capacity < 0 ? '' : `this.${name} = makeText(this, ${slot})`)
    const Made = new Function('Writer', 'F64', 'makeText', `/* record ${schema.nf} ${schema.name} */
      return class extends Writer { constructor() { super()
        ${texts.filter((t) => t !== '').join('\n')} }
        ${accessors.join('\n')} }`)(Writer, f64, (writer: Writer, slot: number) =>
      new RecordTextWriter(this.#arena, this.#copy, writer, slot, (schema.fields[slot] as { capacity: number }).capacity)) as
      new () => RecordWriter<RecordFields>
    return new Made()
  }

  /** Arena offset of the oldest entry; entries follow each other at multiples of 8 up to `end`. For hosts that read raw. */
  get base(): number {
    return this.#base
  }

  get end(): number {
    return this.#arena.i32[this.#cursor]
  }

  /** Records in the buffer. */
  get count(): number {
    return this.#arena.i32[this.#cursor + 1]
  }

  /** Records made. */
  get made(): number {
    return this.#arena.f64[(this.#cursor >> 1) + 1]
  }

  /** Name of the kind of record that an entry's event number stands for. */
  eventName(event: number): string {
    return (this.#events[event] as EventSchema).name
  }

  /** Hands every record to `take`, oldest first, and empties the buffer. */
  drain(take: (record: DecodedRecord) => void): void {
    const { i32, f64 } = this.#arena
    for (let at = this.#base; at < this.end; at += (i32[at >> 2] + 7) & ~7) {
      const which = i32[(at >> 2) + 1]
      if (which === NOT_COMMITTED) continue
      const schema = this.#events[which >>> 16]
      const fields: Record<string, string | number | boolean> = {}
      schema.fields.forEach(({ name, field, capacity }, slot) => {
        const place = at + HEADER_BYTES + slot * 8
        if (capacity >= 0) fields[name] = latin1(this.#arena, i32[place >> 2], i32[(place >> 2) + 1])
        else if (field.kind === 'bool') fields[name] = f64[place >> 3] !== 0
        else if (field.kind === 'time') fields[name] = f64[place >> 3] / 1e6
        else if ('names' in field) fields[name] = (field.names as string[])[f64[place >> 3]] ?? ''
        else fields[name] = f64[place >> 3]
      })
      take({
        nf: which & 0xffff,
        event: schema.name,
        time: f64[(at >> 3) + 1],
        key: (at >> 2) + 4,
        fromB: i32[(at >> 2) + 15] !== 0,
        fields,
      })
    }
    this.clear()
  }

  /** Empties the buffer without looking. */
  clear(): void {
    this.#arena.i32[this.#cursor] = this.#base
    this.#arena.i32[this.#cursor + 1] = 0
  }
}
