/** Bounded maps and sets against a list that says what they are. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { addBounded, setBounded } from './bounded.ts'

test('the oldest goes, what is set again is the newest, and nothing else changes', () => {
  const map = new Map<string, number>()
  assert.deepEqual(['a', 'b', 'c'].map((key, at) => setBounded(map, key, at, 3)), [false, false, false])
  assert.equal(setBounded(map, 'a', 7, 3), false, 'nothing has to go for what is there')
  assert.deepEqual([setBounded(map, 'd', 3, 3), [...map]], [true, [['c', 2], ['a', 7], ['d', 3]]])
  const set = new Set<number>()
  assert.deepEqual([1, 2, 1, 3].map((value) => addBounded(set, value, 2)), [false, false, false, true])
  assert.deepEqual([...set], [1, 3])
  // A key may be anything that a map takes.
  const odd = new Map<number | undefined, string>([[undefined, 'first']])
  assert.deepEqual([setBounded(odd, NaN, 'second', 1), [...odd]], [true, [[NaN, 'second']]])
  assert.throws(() => setBounded(map, 'e', 1, 0))
  assert.throws(() => addBounded(set, 1, 0))
})

test('whatever is set, the last of them are there, in their order', () => {
  fc.assert(fc.property(fc.array(fc.integer({ min: 0, max: 9 })), fc.integer({ min: 1, max: 8 }), (keys, max) => {
    const map = new Map<number, number>()
    const set = new Set<number>()
    let expected: number[] = []
    for (const [turn, key] of keys.entries()) {
      const others = expected.filter((one) => one !== key)
      expected = [...others, key].slice(-max)
      const isFull = others.length >= max
      assert.deepEqual([setBounded(map, key, turn, max), addBounded(set, key, max)], [isFull, isFull])
      assert.deepEqual([[...map.keys()], [...set], map.get(key)], [expected, expected, turn])
    }
  }))
})
