import { test } from 'node:test'
import assert from 'node:assert/strict'
import fc from 'fast-check'
import { Random } from '../base/random.ts'
import { Arena } from './arena.ts'
import { ExtentPool } from './extent-pool.ts'
import {
  address, array, bool, bytes, chain, enumeration, formatAddress, i16, i32, i64, i8, inExtent, internal, latin1,
  struct, text, time,
  u16, u32, u64, u8, type Field,
} from './struct.ts'

const integers: { field: Field<number>; bytes: number; low: number; high: number }[] = [
  { field: u8, bytes: 1, low: 0, high: 255 }, { field: i8, bytes: 1, low: -128, high: 127 },
  { field: u16, bytes: 2, low: 0, high: 65535 }, { field: i16, bytes: 2, low: -32768, high: 32767 },
  { field: u32, bytes: 4, low: 0, high: 2 ** 32 - 1 }, { field: i32, bytes: 4, low: -(2 ** 31), high: 2 ** 31 - 1 },
  { field: u64, bytes: 8, low: 0, high: Number.MAX_SAFE_INTEGER },
  { field: i64, bytes: 8, low: Number.MIN_SAFE_INTEGER, high: Number.MAX_SAFE_INTEGER },
  { field: time, bytes: 8, low: 0, high: 2 ** 52 },
]

const kinds: Field<any, any>[] = [
  ...integers.map((i) => i.field), bool, enumeration('a', 'b', 'c'), address, text(5), bytes(4), array(u16, 3),
  array(i64, 2), array(u8, 7),
  chain({ blocks: 3 }), inExtent(struct({ x: u16 })), struct({ p: u8, q: u32 }),
]

test('layout: in order, each field at its alignment, none over another, the size a multiple of the alignment (property)', () => {
  fc.assert(fc.property(fc.array(fc.constantFrom(...kinds), { maxLength: 20 }), (fields) => {
    const schema = struct(Object.fromEntries(fields.map((field, i) => [`f${i}`, field])))
    let end = 0
    schema.layout.forEach(({ name, offset, bytes: size, field }, i) => {
      assert.equal(name, `f${i}`)
      assert.equal(field, fields[i])
      assert.equal(offset % field.alignment, 0)
      assert.ok(offset >= end && offset - end < field.alignment, 'no more padding than needed')
      assert.equal(size, field.bytes)
      end = offset + size
    })
    assert.ok(schema.bytes >= end && schema.bytes - end < schema.alignment)
    assert.equal(schema.bytes % schema.alignment, 0)
    assert.equal(schema.alignment, Math.max(1, ...fields.map((f) => f.alignment)))
  }), { seed: 3, numRuns: 200 })
})

test('numbers: what was written is read, decoded, and lies where the layout says; neighbours stay (property)', () => {
  fc.assert(fc.property(fc.array(fc.constantFrom(...integers), { minLength: 1, maxLength: 12 }), fc.integer(), (list, seed) => {
    const random = new Random(seed)
    const schema = struct(Object.fromEntries(list.map(({ field }, i) => [`f${i}`, field])))
    const arena = new Arena(65536)
    const view = schema.bind({ arena }) as unknown as Record<string, number>
    const places = [0, 1].map((i) => arena.allocate(`state ${i}`, schema.bytes, 64))
    const values = places.map(() => list.map(({ low, high }) =>
      random.pick([low, high, 0, low + Math.floor(random.fraction() * (high - low))])))
    places.forEach((place, p) => {
      view.o = place
      list.forEach((_, i) => { view[`f${i}`] = values[p][i] })
    })
    places.forEach((place, p) => {
      view.o = place
      list.forEach(({ field, bytes: size }, i) => {
        assert.equal(view[`f${i}`], values[p][i])
        const { offset } = schema.layout[i]
        const raw = new DataView(arena.u8.slice(place + offset, place + offset + size).buffer)
        const read = size === 1 ? (field === i8 ? raw.getInt8(0) : raw.getUint8(0))
          : size === 2 ? (field === i16 ? raw.getInt16(0, true) : raw.getUint16(0, true))
            : size === 4 ? (field === i32 ? raw.getInt32(0, true) : raw.getUint32(0, true)) : raw.getFloat64(0, true)
        assert.equal(read, values[p][i])
      })
      const plain = schema.decode({ arena }, place) as Record<string, number>
      list.forEach(({ field }, i) => assert.equal(plain[`f${i}`], field === time ? values[p][i] / 1e6 : values[p][i]))
    })
  }), { seed: 4, numRuns: 200 })
})

function bound<S extends ReturnType<typeof struct<any>>>(schema: S, blocks = 8) {
  const arena = new Arena(1 << 17)
  const extents = new ExtentPool(arena, blocks, 64)
  const view = schema.bind({ arena, extents })
  const before = arena.allocate('before', 64)
  view.o = arena.allocate('state', schema.bytes)
  const after = arena.allocate('after', 64, 1)
  const intact = (): void => {
    assert.ok(arena.u8.subarray(before, before + 64).every((b) => b === 0), 'nothing before the state is touched')
    assert.ok(arena.u8.subarray(after, after + 64).every((b) => b === 0), 'nothing behind the state is touched')
  }
  return { arena, extents, view: view as any, binding: { arena, extents },
    decode: () => schema.decode({ arena, extents }, view.o) as any,
    intact }
}

test('small fields wrap as their bits do', () => {
  const { view } = bound(struct({ a: u8, b: i8, c: u16, d: i16, e: u32, f: i32 }))
  Object.assign(view, { a: 256 + 7, b: 200, c: -1, d: 40000, e: -1, f: 2 ** 31 })
  assert.deepEqual([view.a, view.b, view.c, view.d, view.e, view.f], [7, -56, 65535, -25536, 2 ** 32 - 1, -(2 ** 31)])
  view.a++
  assert.equal(view.a, 8)
})

test('booleans and enumerations', () => {
  const kind = enumeration('none', 'web', 'mail')
  assert.deepEqual(kind.values, { none: 0, web: 1, mail: 2 })
  const { view, decode, arena } = bound(struct({ open: bool, kind, other: kind }))
  assert.deepEqual(decode(), { open: false, kind: 'none', other: 'none' })
  view.open = true
  view.kind = kind.values.mail
  assert.deepEqual([view.open, view.kind], [true, 2])
  assert.deepEqual(decode(), { open: true, kind: 'mail', other: 'none' })
  arena.u8[view.o] = 7
  assert.equal(view.open, true)
  view.kind = 9
  assert.equal(decode().kind, '9', 'a number without a name')
  assert.throws(() => enumeration(), { name: 'AssertionError' })
})

test('texts and byte strings: cut to their capacity, never beyond it', () => {
  for (const capacity of [1, 2, 5, 23, 24, 25, 40]) {
    const { arena, view, decode, intact } = bound(struct({ guard: u8, word: text(capacity), tail: u8,
      raw: bytes(capacity), end: u8 }))
    const source = arena.allocate('source', 128)
    for (let i = 0; i < 128; i++) arena.u8[source + i] = 65 + (i % 26)
    for (const length of [0, 1, capacity - 1, capacity, capacity + 1, 60]) {
      for (const field of ['word', 'raw']) {
        view[field].copyFrom(source, length)
        const kept = Math.min(length, capacity)
        const expected = latin1(arena, source, kept)
        assert.equal(view[field].length, kept)
        assert.equal(view[field].capacity, capacity)
        assert.equal(view[field].toString(), expected)
        assert.equal(view[field].byte(0), kept > 0 ? 65 : 0)
        assert.equal(view[field].byte(kept), 0)
        assert.equal(view[field].byte(-1), 0)
        assert.equal(decode()[field], field === 'word' ? expected : Buffer.from(expected).toString('hex'))
      }
    }
    view.word.write('héllo, world, and whatever else there is to say')
    assert.equal(decode().word, 'héllo, world, and whatever else there is to say'.slice(0, capacity))
    view.word.clear()
    assert.equal(decode().word, '')
    assert.deepEqual([view.guard, view.tail, view.end], [0, 0, 0])
    intact()
  }
  for (const capacity of [0, 65536, -1]) assert.throws(() => text(capacity), { name: 'AssertionError' })
})

test('long texts decode in pieces', () => {
  const arena = new Arena(1 << 17)
  arena.u8.fill(120, 64, 64 + 20000)
  assert.equal(latin1(arena, 64, 20000), 'x'.repeat(20000))
  assert.equal(latin1(arena, 64, 0), '')
})

test('addresses: stored and printed (RFC 5952)', () => {
  const { view, decode } = bound(struct({ x: u8, where: address }))
  assert.equal(decode().where, '')
  assert.equal(view.where.version, 0)
  view.where.set(4, 0xc0000201 | 0)
  assert.equal(decode().where, '192.0.2.1')
  assert.equal(view.where.toString(), '192.0.2.1')
  view.where.set(6, 0x20010db8, 0, 0, 1)
  assert.deepEqual([view.where.version, view.where.word(0), view.where.word(3)], [6, 0x20010db8, 1])
  const cases: [number[], string][] = [
    [[0x20010db8, 0, 0, 1], '2001:db8::1'], [[0, 0, 0, 0], '::'], [[0, 0, 0, 1], '::1'], [[0x20010db8, 0, 0, 0], '2001:db8::'],
    [[0x20010db8, 0x00000001, 0x00010001, 0x00010001], '2001:db8:0:1:1:1:1:1'],
    [[0x20010000, 0x00000001, 0, 1], '2001:0:0:1::1'], [[0x20010db8, 0, 0x00010000, 1], '2001:db8::1:0:0:1'],
    [[0, 0, 0xffff, 0xc0000280 | 0], '::ffff:192.0.2.128'], [[-1, -1, -1, -1], 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'],
    [[0xfe800000 | 0, 0, 0x02aabbff, 0xfeccddee | 0], 'fe80::2aa:bbff:fecc:ddee'],
  ]
  for (const [words, expected] of cases) assert.equal(formatAddress(6, words[0], words[1], words[2], words[3]), expected)
  assert.equal(formatAddress(4, -1), '255.255.255.255')
  assert.equal(formatAddress(5, 1), '')
})

test('arrays of every kind of number, and their bounds', () => {
  for (const { field, low, high } of integers) {
    for (const length of [1, 2, 3, 7, 256]) {
      const { view, decode, intact } = bound(struct({ pad: u8, list: array(field, length), tail: u8 }))
      const { list } = view
      assert.equal(list.length, length)
      for (let i = 0; i < length; i++) view.list.set(i, i % 2 === 0 ? low : high)
      for (let i = 0; i < length; i++) assert.equal(view.list.get(i), i % 2 === 0 ? low : high)
      view.list.set(0, 3)
      view.list.add(0)
      view.list.add(0, 4)
      assert.equal(view.list.get(0), 8)
      assert.equal(decode().list.length, length)
      assert.equal(decode().list[0], field === time ? 8 / 1e6 : 8)
      for (const index of [-1, length, 0.5, NaN, Infinity, -Infinity, undefined, 2 ** 31, 2 ** 32]) {
        assert.throws(() => view.list.get(index), RangeError, `get ${index}`)
        assert.throws(() => view.list.set(index, 1), RangeError)
        assert.throws(() => view.list.add(index), RangeError)
      }
      view.list.fill(1)
      assert.ok(decode().list.every((v: number) => v === (field === time ? 1e-6 : 1)))
      assert.deepEqual([view.pad, view.tail], [0, 0])
      intact()
    }
  }
  const kind = enumeration('no', 'yes')
  const { view, decode } = bound(struct({ kinds: array(kind, 3) }))
  view.kinds.set(1, kind.values.yes)
  assert.deepEqual(decode().kinds, ['no', 'yes', 'no'])
  for (const length of [0, 257, 1.5, -1]) assert.throws(() => array(u8, length), { name: 'AssertionError' })
  assert.throws(() => array(address as never, 2), { name: 'AssertionError' })
})

test('structs within structs, several of one schema side by side', () => {
  const side = struct({ count: u32, flags: u8, words: array(u16, 2), name: text(6) })
  const schema = struct({ tag: u8, forward: side, reverse: side, deep: struct({ inner: side }) })
  const { view, decode, intact } = bound(schema)
  view.forward.count = 1
  view.reverse.count = 2
  view.deep.inner.count = 3
  view.reverse.words.set(1, 7)
  view.forward.name.write('front')
  view.deep.inner.name.write('deep')
  assert.deepEqual(decode(), {
    tag: 0, forward: { count: 1, flags: 0, words: [0, 0], name: 'front' },
    reverse: { count: 2, flags: 0, words: [0, 7], name: '' },
    deep: { inner: { count: 3, flags: 0, words: [0, 0], name: 'deep' } },
  })
  assert.equal(view.forward.count + view.reverse.count, 3, 'two children of one view at once')
  intact()
})

test('two views of one schema are two cursors', () => {
  const schema = struct({ n: u32, side: struct({ m: u32 }) })
  const arena = new Arena(65536)
  const [a, b] = [schema.bind({ arena }), schema.bind({ arena })]
  a.o = arena.allocate('a', schema.bytes)
  b.o = arena.allocate('b', schema.bytes)
  a.n = 1
  b.n = 2
  a.side.m = 3
  b.side.m = 4
  assert.deepEqual([a.n, b.n, a.side.m, b.side.m], [1, 2, 3, 4])
})

test('a struct in an extent is there while it is needed', () => {
  const more = struct({ n: u32, label: text(20) })
  const { view, decode, extents, arena } = bound(struct({ id: u8, more: inExtent(more),
    flat: inExtent(struct({ x: u16, hidden: internal(u8) }), { flat: true }) }))
  assert.deepEqual(decode(), { id: 0, more: null, x: null })
  assert.deepEqual([view.more.present, view.more.view], [false, null])
  const made = view.more.create()
  made.n = 5
  made.label.write('hello')
  assert.equal(view.more.create().n, 5, 'made once')
  assert.equal(view.more.present, true)
  assert.equal(extents.used, 1)
  view.flat.create().x = 9
  assert.deepEqual(decode(), { id: 0, more: { n: 5, label: 'hello' }, x: 9 })
  view.more.release()
  view.more.release()
  assert.equal(extents.used, 1)
  assert.equal(decode().more, null)
  // A block that others have used is zeroed.
  const other = extents.take()
  arena.u8.fill(0xff, other, other + 64)
  extents.give(other)
  assert.deepEqual([view.more.create().n, decode().more], [0, { n: 0, label: '' }])
  while (extents.take() !== 0);
  view.more.release()
  extents.take()
  assert.equal(view.more.create(), null)
  assert.equal(view.more.present, false)
})

test('what an extent cannot hold is refused where it is declared or bound', () => {
  const nested = struct({ c: chain({ blocks: 1 }) })
  assert.throws(() => inExtent(nested), { name: 'AssertionError' })
  assert.throws(() => inExtent(struct({ t: time })), { name: 'AssertionError' })
  const arena = new Arena(65536)
  const extents = new ExtentPool(arena, 2, 64)
  assert.throws(() => struct({ big: inExtent(struct({ b: text(60) })) }).bind({ arena, extents }), { name: 'AssertionError' })
  assert.throws(() => struct({ c: chain({ blocks: 1 }) }).bind({ arena }), { name: 'AssertionError' })
})

test('references to extents and times are found wherever they are', () => {
  const inner = struct({ pad: u8, when: time, chain: chain({ blocks: 4 }) })
  const schema = struct({ a: u8, more: inExtent(struct({ x: u8 })), first: inner, second: inner,
    log: chain({ blocks: 9 }), at: time,
    times: array(time, 2) })
  assert.deepEqual(schema.extents.map((e) => [e.offset, e.path, e.blocks]), [
    [4, 'more', 1], [24, 'first.chain', 4], [48, 'second.chain', 4], [56, 'log', 9],
  ])
  assert.deepEqual(schema.times, [16, 40, 64, 72, 80])
})

test('internal fields are there but not shown', () => {
  const { view, decode } = bound(struct({ shown: u8, hidden: internal(u32), side: internal(struct({ n: u8 })),
    words: internal(array(u8, 2)) }))
  view.hidden = 7
  view.side.n = 8
  view.words.set(1, 9)
  assert.deepEqual([view.hidden, view.side.n, view.words.get(1)], [7, 8, 9])
  assert.deepEqual(decode(), { shown: 0 })
})

test('the fingerprint tells layouts apart', () => {
  const schemas = [
    struct({}), struct({ a: u8 }), struct({ b: u8 }), struct({ a: i8 }), struct({ a: u8, b: u8 }), struct({ b: u8, a: u8 }),
    struct({ a: time }), struct({ a: u64 }), struct({ a: i64 }), struct({ a: text(3) }), struct({ a: text(4) }),
    struct({ a: bytes(3) }),
    struct({ a: array(u8, 2) }), struct({ a: array(u8, 3) }), struct({ a: array(u16, 2) }), struct({ a: enumeration('x', 'y') }),
    struct({ a: enumeration('x', 'z') }), struct({ a: chain({ blocks: 1 }) }), struct({ a: chain({ blocks: 2 }) }),
    struct({ a: inExtent(struct({ x: u8 })) }), struct({ a: inExtent(struct({ x: u16 })) }),
    struct({ a: struct({ x: u8 }) }), struct({ a: bool }),
    struct({ a: address }),
  ]
  assert.equal(new Set(schemas.map((s) => s.fingerprint)).size, schemas.length)
  assert.equal(struct({ a: u8, b: text(3) }).fingerprint, struct({ a: u8, b: text(3) }).fingerprint)
})

test('field names are identifiers, and not the cursor', () => {
  for (const name of ['o', '', 'a-b', '1a', 'a b', '__proto__x', 'a;b', 'ä']) {
    assert.throws(() => struct({ [name]: u8 }), { name: 'AssertionError' }, name)
  }
})
