import { test } from 'node:test'
import assert from 'node:assert/strict'
import { Random } from '../base/random.ts'
import { Arena } from '../memory/arena.ts'
import { FlowTable } from './flow-table.ts'

/** All records with this hash, as a search for a key would meet them. */
function search(table: FlowTable, hash: number): number[] {
  const found: number[] = []
  let record = table.find(hash, table.home(hash))
  while (record !== 0) {
    found.push(record)
    record = table.find(hash, table.lastSlot + 1)
  }
  return found
}

/** Every entry can be reached from its home without an empty slot between, and nothing else is there. */
function checkSlots(arena: Arena, table: FlowTable, model: ReadonlyMap<number, number>): void {
  const { i32 } = arena
  let entries = 0
  for (let slot = 0; slot < table.slots; slot++) {
    const hash = i32[table.base + slot * 2]
    const record = i32[table.base + slot * 2 + 1]
    if (record === 0) continue
    entries++
    assert.equal(model.get(record), hash)
    for (let at = table.home(hash); at !== slot; at = (at + 1) & (table.slots - 1)) {
      assert.notEqual(i32[table.base + at * 2 + 1], 0, 'no hole between home and entry')
    }
  }
  assert.equal(entries, model.size)
}

/** Ways to draw hashes: spread, crowded around one slot, at the table's end, all the same. */
const draws: Record<string, (random: Random, shift: number) => number> = {
  spread: (random) => random.int32(),
  crowded: (random, shift) => (((7 + random.below(3)) << shift) | random.below(1 << shift)) | 0,
  'at the end': (random, shift) => (-1 << shift) | random.below(1 << shift) | 0,
  few: (random) => [0, -1, 0x7fffffff, -0x80000000, 12345][random.below(5)],
}

for (const [name, draw] of Object.entries(draws)) {
  test(`a flow table against a map, with many departures: hashes ${name}`, () => {
    for (const seed of [1, 2, 3]) {
      const random = new Random(seed)
      const arena = new Arena(1 << 20)
      const limit = random.between(1, 60)
      const table = new FlowTable(arena, 'table', limit)
      const after = arena.allocate('after', 64, 1)
      /** Record to hash. */
      const model = new Map<number, number>()
      let next = 64
      for (let round = 0; round < 3000; round++) {
        if (random.chance(0.5)) {
          const hash = draw(random, table.shift)
          const record = next
          next += 64
          assert.equal(table.insert(hash, record), model.size < limit)
          if (model.size < limit) model.set(record, hash)
        } else if (model.size > 0) {
          const record = random.pick([...model.keys()])
          table.remove(model.get(record) as number, record)
          model.delete(record)
        }
        assert.equal(table.size, model.size)
        if (round % 50 === 0) checkSlots(arena, table, model)
        const hash = model.size > 0 && random.chance(0.7) ? random.pick([...model.values()]) : draw(random, table.shift)
        const expected = [...model].filter(([, h]) => h === hash).map(([record]) => record)
        assert.deepEqual(search(table, hash).toSorted((a, b) => a - b), expected.toSorted((a, b) => a - b))
      }
      for (const [record, hash] of model) table.remove(hash, record)
      checkSlots(arena, table, new Map())
      assert.ok(arena.u8.subarray(after, after + 64).every((byte) => byte === 0))
    }
  })
}

test('the table is at most half full, and its home slots cover it', () => {
  for (const limit of [1, 2, 31, 32, 33, 1000]) {
    const table = new FlowTable(new Arena(1 << 20), 'table', limit)
    assert.ok(table.slots >= limit * 2 && (table.slots & (table.slots - 1)) === 0)
    assert.equal(table.home(-1), table.slots - 1)
    assert.equal(table.home(0), 0)
    assert.equal(table.limit, limit)
    assert.equal(search(table, 5).length, 0)
  }
  for (const limit of [0, -1, 2 ** 26 + 1]) {
    assert.throws(() => new FlowTable(new Arena(1 << 20), 'table', limit), { name: 'AssertionError' })
  }
})

test('removing what is not there is a defect', () => {
  const table = new FlowTable(new Arena(1 << 20), 'table', 4)
  table.insert(5, 64)
  assert.throws(() => table.remove(6 << table.shift, 64), { name: 'AssertionError' })
  assert.throws(() => table.remove(5, 128), { name: 'AssertionError' })
  assert.deepEqual(search(table, 5), [64])
})
