import { test } from 'node:test'
import assert from 'node:assert/strict'
import fc from 'fast-check'
import { Random } from '../base/random.ts'
import { Arena } from './arena.ts'
import { Slab } from './slab.ts'

test('a slab against a set of taken blocks, with their content (property)', () => {
  fc.assert(fc.property(fc.integer({ min: 1, max: 70 }), fc.integer({ min: 1, max: 40 }), fc.integer(), (count, words, seed) => {
    const random = new Random(seed)
    const arena = new Arena(1 << 17)
    const slab = new Slab(arena, 'blocks', count, words * 4)
    const after = arena.allocate('after', 64)
    const taken = new Map<number, number>()
    for (let i = 0; i < 400; i++) {
      if (random.chance(0.55)) {
        const block = slab.take()
        if (taken.size === count) {
          assert.equal(block, 0)
        } else {
          assert.ok(block > 0 && !taken.has(block))
          assert.equal(slab.offsetOf(slab.indexOf(block)), block)
          const mark = random.int32()
          arena.i32.fill(mark, block >> 2, (block >> 2) + words)
          taken.set(block, mark)
        }
      } else if (taken.size > 0) {
        const block = random.pick([...taken.keys()])
        slab.give(block)
        taken.delete(block)
      }
      assert.equal(slab.used, taken.size)
      assert.equal(slab.available, count - taken.size)
      assert.ok(slab.highWater >= taken.size && slab.highWater <= count)
    }
    for (let index = 0; index < count; index++) assert.equal(slab.isTaken(index), taken.has(slab.offsetOf(index)))
    for (const [block, mark] of taken) for (let w = 0; w < words; w++) assert.equal(arena.i32[(block >> 2) + w], mark)
    assert.ok(arena.u8.subarray(after, after + 64).every((byte) => byte === 0))
  }), { seed: 1, numRuns: 60 })
})

test('blocks start where they were asked to, and the last one given back is the next one taken', () => {
  const slab = new Slab(new Arena(65536), 'blocks', 10, 64, 4096)
  const blocks = [slab.take(), slab.take(), slab.take()]
  assert.equal(blocks[0] % 4096, 0)
  slab.give(blocks[1])
  slab.give(blocks[0])
  assert.deepEqual([slab.take(), slab.take()], [blocks[0], blocks[1]])
  assert.equal(slab.highWater, 3, 'blocks that were free are used again before untouched ones')
})

test('giving back what is not taken is a defect, caught at once', () => {
  const slab = new Slab(new Arena(65536), 'blocks', 3, 64)
  const block = slab.take()
  const other = slab.take()
  slab.give(block)
  assert.throws(() => slab.give(block), { name: 'AssertionError' })
  assert.throws(() => slab.give(slab.offsetOf(2)), { name: 'AssertionError' })
  assert.throws(() => slab.give(slab.offsetOf(3)), { name: 'AssertionError' })
  assert.throws(() => slab.give(slab.base - 64), { name: 'AssertionError' })
  slab.give(other)
  assert.equal(slab.used, 0)
})

test('blocks are whole words', () => {
  for (const bytes of [0, 2, 6, 63]) {
    assert.throws(() => new Slab(new Arena(65536), 'blocks', 3, bytes), { name: 'AssertionError' })
  }
})
