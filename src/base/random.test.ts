import { test } from 'node:test'
import assert from 'node:assert/strict'
import { Random } from './random.ts'

test('the same seed gives the same numbers, for good', () => {
  const draw = (seed: number): number[] => {
    const random = new Random(seed)
    return Array.from({ length: 5 }, () => random.int32())
  }
  assert.deepEqual(draw(1), draw(1))
  assert.notDeepEqual(draw(1), draw(2))
  // Recorded traces and failing seeds rely on these.
  assert.deepEqual(draw(1), [393288148, -2120864283, -480208205, 2092745082, 1865176206])
})

test('numbers are in range and spread evenly', () => {
  const random = new Random(3)
  for (const bound of [1, 2, 7, 100, 2 ** 31, 2 ** 32]) {
    const seen = new Map<number, number>()
    for (let i = 0; i < 7000; i++) {
      const n = random.below(bound)
      assert.ok(Number.isInteger(n) && n >= 0 && n < bound)
      const bucket = Math.floor(n / bound * Math.min(bound, 7))
      seen.set(bucket, (seen.get(bucket) ?? 0) + 1)
    }
    for (const count of seen.values()) assert.ok(Math.abs(count - 7000 / Math.min(bound, 7)) < 200, `${bound}: ${count}`)
    assert.equal(seen.size, Math.min(bound, 7))
  }
  for (let i = 0; i < 1000; i++) {
    const n = random.between(-3, 3)
    assert.ok(n >= -3 && n <= 3)
    const f = random.fraction()
    assert.ok(f >= 0 && f < 1)
  }
})

test('every bit of a number is set half of the time', () => {
  const random = new Random(4)
  const counts = new Array<number>(32).fill(0)
  for (let i = 0; i < 4000; i++) {
    const n = random.int32()
    assert.equal(n, n | 0)
    for (let bit = 0; bit < 32; bit++) counts[bit] += (n >>> bit) & 1
  }
  counts.forEach((count, bit) => assert.ok(Math.abs(count - 2000) < 160, `bit ${bit}: ${count}`))
})

test('chance, pick, shuffle and fill', () => {
  const random = new Random(5)
  assert.equal(random.chance(0), false)
  assert.equal(random.chance(1), true)
  let hits = 0
  for (let i = 0; i < 4000; i++) if (random.chance(0.25)) hits++
  assert.ok(Math.abs(hits - 1000) < 120)
  const items = [1, 2, 3, 4, 5]
  const firsts = new Set<number>()
  for (let i = 0; i < 100; i++) {
    const shuffled = random.shuffle([...items])
    assert.deepEqual(shuffled.toSorted(), items)
    firsts.add(shuffled[0])
    assert.ok(items.includes(random.pick(items)))
  }
  assert.equal(firsts.size, 5)
  const bytes = random.fill(new Uint8Array(4096))
  assert.ok(new Set(bytes).size > 250)
})
