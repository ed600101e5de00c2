import { test } from 'node:test'
import assert from 'node:assert/strict'
import { Random } from '../base/random.ts'
import { KEY_WORDS } from '../flow/flow-record.ts'
import { Arena } from '../memory/arena.ts'
import { array, bool, bytes, chain, enumeration, i32, text, time, u16, u32, u64, u8 } from '../memory/struct.ts'
import { RecordBuffer, type DecodedRecord, type RecordFields, type RecordOrigin } from './record-buffer.ts'

function setup(size: number) {
  const arena = new Arena(1 << 18)
  const origin: RecordOrigin = { record: arena.allocate('flow', 64), fromB: 0, opener: 0,
    timeIndex: arena.allocate('time', 8) >> 3 }
  const buffer = new RecordBuffer(arena, size, origin, (to, from, length) => { arena.u8.copyWithin(to, from, from + length) })
  const after = arena.allocate('after', 64, 1)
  const source = arena.allocate('source', 65536)
  const drain = (): DecodedRecord[] => {
    const list: DecodedRecord[] = []
    buffer.drain((record) => list.push(record))
    assert.equal(arena.u8.subarray(after, after + 64).findIndex((byte) => byte !== 0), -1, 'nothing is written behind the buffer')
    return list
  }
  return { arena, origin, buffer, source, drain }
}

test('a record comes out as it went in: numbers, texts, time, flow and direction', () => {
  const { arena, origin, buffer, source, drain } = setup(4096)
  const kind = enumeration('none', 'web')
  const writer = buffer.writer(3, 'request', { status: u16, size: u64, signed: i32, ok: bool, kind, when: time,
    host: text(10), id: bytes(4) }) as any
  for (let i = 0; i < KEY_WORDS; i++) arena.i32[(origin.record >> 2) + i] = 1000 + i
  arena.f64[origin.timeIndex] = 77
  origin.fromB = 1
  for (let i = 0; i < 20; i++) arena.u8[source + i] = 97 + i
  writer.begin()
  Object.assign(writer, { status: 404, size: 2 ** 53 - 1, signed: -5, ok: true, kind: kind.values.web, when: 1_500_000 })
  assert.equal(writer.status, 404)
  writer.host.copyFrom(source, 20)
  writer.id.write('xyz')
  writer.commit()
  assert.deepEqual([buffer.count, buffer.made, buffer.lost], [1, 1, 0])
  const [record] = drain()
  assert.deepEqual({ ...record, key: 0 }, { nf: 3, event: 'request', time: 77, fromB: true, key: 0,
    fields: { status: 404, size: 2 ** 53 - 1, signed: -5, ok: true, kind: 'web', when: 1.5, host: 'abcdefghij',
      id: record.fields.id } })
  assert.deepEqual([...arena.i32.subarray(record.key, record.key + KEY_WORDS)],
    Array.from({ length: KEY_WORDS }, (_, i) => 1000 + i))
  assert.equal(buffer.count, 0)
  assert.deepEqual(drain(), [])
})

test('fields start empty, whatever was in the buffer', () => {
  const { buffer, drain } = setup(1024)
  const writer = buffer.writer(0, 'e', { n: u32, t: text(5), b: bool, k: enumeration('zero', 'one') }) as any
  for (let i = 0; i < 3; i++) {
    writer.begin()
    Object.assign(writer, { n: 9, b: true, k: 1 })
    writer.t.write('hello')
    writer.commit()
  }
  drain()
  writer.begin()
  writer.commit()
  assert.deepEqual(drain()[0].fields, { n: 0, t: '', b: false, k: 'zero' })
})

test('the direction is that of the packet, or the one given', () => {
  for (const [fromB, opener, direction, expected] of [[0, 0, undefined, false], [1, 0, undefined, true],
    [0, 0, 1, true], [1, 1, 0, true],
    [0, 1, 1, false]] as const) {
    const { origin, buffer, drain } = setup(1024)
    const writer = buffer.writer(0, 'e', {})
    Object.assign(origin, { fromB, opener })
    writer.begin(direction)
    writer.commit()
    assert.equal(drain()[0].fromB, expected)
  }
})

test('a record that is begun and not committed never was', () => {
  const { buffer, drain } = setup(1024)
  const writer = buffer.writer(0, 'e', { n: u8 }) as any
  writer.begin()
  writer.n = 1
  writer.begin()
  writer.n = 2
  writer.commit()
  assert.deepEqual(drain().map((r) => r.fields.n), [2])
})

test('a full buffer counts what it loses and damages nothing; drained it takes more (property)', () => {
  for (const seed of [1, 2, 3, 4, 5]) {
    const random = new Random(seed)
    const { arena, buffer, source, drain } = setup(random.between(400, 3000))
    const schemas: RecordFields[] = [{ n: u32 }, { n: u32, t: text(40) }, { t: text(1), u: text(90), n: u32 }]
    const writers = schemas.map((fields, i) => buffer.writer(i, `event${i}`, fields) as any)
    let expected: unknown[] = []
    let made = 0
    let lost = 0
    for (let round = 0; round < 500; round++) {
      const which = random.below(3)
      const writer = writers[which]
      const before = buffer.count
      writer.begin()
      writer.n = round
      const fields: Record<string, unknown> = {}
      for (const name of Object.keys(schemas[which])) {
        if (name === 'n') fields.n = round
        else {
          const length = random.below(100)
          random.fill(arena.u8.subarray(source, source + length))
          if (random.chance(0.5)) {
            writer[name].copyFrom(source, length)
          } else {
            writer[name].write(String.fromCharCode(...arena.u8.subarray(source, source + length)))
          }
          const kept = Math.min(length, name === 't' ? (which === 1 ? 40 : 1) : 90)
          fields[name] = String.fromCharCode(...arena.u8.subarray(source, source + kept))
        }
      }
      writer.commit()
      if (buffer.count > before) {
        expected.push({ event: `event${which}`, fields })
        made++
      } else {
        lost++
        assert.equal(writer.n, 0)
      }
      assert.deepEqual([buffer.made, buffer.lost, buffer.count], [made, lost, expected.length])
      if (random.chance(0.05)) {
        assert.deepEqual(drain().map(({ event, fields: f }) => ({ event, fields: f })), expected)
        expected = []
      }
    }
    assert.ok(lost > 0 && made > 50)
  }
})

test('a text that is written twice has what was written last, and takes no more room than it may', () => {
  const { buffer, drain } = setup(512)
  const writer = buffer.writer(0, 'e', { t: text(100), u: text(10) }) as any
  for (const times of [2, 30]) {
    writer.begin()
    for (let i = 0; i < times; i++) writer.t.write(`${i}`.padEnd(100, 'x'))
    writer.u.write('end')
    writer.commit()
    const [{ fields }] = drain()
    assert.ok((fields.t as string).length <= 100 && (fields.u as string).length <= 10)
    if (times === 2) assert.equal(fields.t, '1'.padEnd(100, 'x'))
  }
})

test('of two records in the making at once each is whole, or counted as lost', () => {
  const { buffer, drain } = setup(2048)
  const [one, two] = ['one', 'two'].map((name, i) => buffer.writer(i, name, { n: u32, t: text(10) }) as any)
  one.begin()
  one.n = 1
  two.begin()
  two.n = 2
  two.t.write('second')
  two.commit()
  one.t.write('first')
  one.commit()
  const whole: Record<string, unknown> = { one: { n: 1, t: 'first' }, two: { n: 2, t: 'second' } }
  const records = drain()
  for (const { event, fields } of records) assert.deepEqual(fields, whole[event])
  assert.equal(records.length + buffer.lost, 2)
  assert.ok(records.length >= 1)
})

test('what a record cannot hold is refused where it is declared', () => {
  const { buffer } = setup(1024)
  for (const fields of [{ a: array(u8, 2) }, { c: chain({ blocks: 1 }) }, { begin: u8 }, { commit: u8 }, { big: text(2000) }]) {
    assert.throws(() => buffer.writer(0, 'e', fields as unknown as RecordFields), { name: 'AssertionError' })
  }
})
