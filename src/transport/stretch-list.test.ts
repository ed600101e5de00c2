import { test } from 'node:test'
import assert from 'node:assert/strict'
import { Random } from '../base/random.ts'
import { StretchList } from './stretch-list.ts'

const stretches = (list: StretchList): [number, number][] =>
  Array.from({ length: list.count }, (_, index) => [list.from(index), list.to(index)])

test('stretches are kept in order and become one where they meet', () => {
  const list = new StretchList(4)
  assert.ok(list.add(10, 12) && list.add(20, 22) && list.add(14, 16))
  assert.deepEqual(stretches(list), [[10, 12], [14, 16], [20, 22]])
  assert.ok(list.add(12, 14))
  assert.deepEqual(stretches(list), [[10, 16], [20, 22]])
  assert.ok(list.add(5, 30))
  assert.deepEqual(stretches(list), [[5, 30]])
  assert.equal(list.advance(4), 4)
  assert.equal(list.advance(5), 30)
  assert.equal(list.count, 0)
})

test('one too many is refused, and changes nothing', () => {
  const list = new StretchList(2)
  assert.ok(list.add(0, 1) && list.add(4, 5))
  assert.ok(!list.add(2, 3))
  assert.deepEqual(stretches(list), [[0, 1], [4, 5]])
  assert.ok(list.add(1, 4))
  assert.deepEqual(stretches(list), [[0, 5]])
})

test('a stretch list is the same as a set of numbers, around the end of the numbers too (property)', () => {
  for (let seed = 1; seed <= 200; seed++) {
    const random = new Random(seed)
    const base = random.pick([0, 2 ** 31 - 30, -20])
    const list = new StretchList(6)
    const model = new Set<number>()
    let at = 0
    for (let step = 0; step < 60; step++) {
      const from = at + random.between(1, 60)
      const to = from + random.between(1, 12)
      const isTaken = list.add((base + from) | 0, (base + to) | 0)
      if (isTaken) for (let i = from; i < to; i++) model.add(i)
      else assert.equal(list.count, 6)
      if (random.chance(0.2)) {
        at += random.between(0, 10)
        while (model.has(at)) at++
        for (const i of model) if (i < at) model.delete(i)
        const before = at
        while (model.has(at)) at++
        assert.equal(list.advance((base + before) | 0), (base + at) | 0)
        for (const i of model) if (i < at) model.delete(i)
      }
      const flat = stretches(list).flatMap(([a, b]) => Array.from({ length: (b - a) | 0 }, (_, i) => ((a + i) | 0) - base | 0))
      assert.deepEqual(flat.filter((i) => i >= at), [...model].sort((a, b) => a - b), `seed ${seed}`)
      for (let i = 1; i < list.count; i++) assert.ok(((list.from(i) - list.to(i - 1)) | 0) > 0)
    }
  }
})
