import { test } from 'node:test'
import assert from 'node:assert/strict'
import { Random } from '../base/random.ts'
import { Arena } from '../memory/arena.ts'
import { FRAME_BYTES_MAX, LARGE_SLOT_BYTES, PacketPool, SLOT_BYTES, SLOT_FRAME_OFFSET } from './packet-pool.ts'

const SMALL_MAX = SLOT_BYTES - SLOT_FRAME_OFFSET

test('frames get the smallest slot that holds them, and a large one when the small ones are gone', () => {
  const pool = new PacketPool(new Arena(1 << 20), 2, 3)
  const taken = [SMALL_MAX, SMALL_MAX + 1, 0].map((length) => pool.take(length))
  assert.deepEqual(taken.map((slot) => pool.capacity(slot)), [SMALL_MAX, FRAME_BYTES_MAX, SMALL_MAX])
  assert.equal(pool.available, 0)
  assert.equal(pool.capacity(pool.take(60)), FRAME_BYTES_MAX)
  assert.equal(pool.capacity(pool.take(FRAME_BYTES_MAX)), FRAME_BYTES_MAX)
  assert.equal(pool.take(60), 0)
  assert.equal(pool.take(FRAME_BYTES_MAX + 1), 0)
  assert.equal(pool.used, 5)
  for (const slot of taken) pool.give(slot)
  assert.equal(pool.used, 2)
  assert.equal(pool.take(FRAME_BYTES_MAX + 1), 0, 'longer than any slot')
})

test('a 64 KiB segment with its headers fits, and frames lie at 2 modulo 4', () => {
  assert.ok(FRAME_BYTES_MAX >= 65536 + 64)
  assert.equal(SLOT_FRAME_OFFSET % 4, 2)
  assert.equal(SLOT_BYTES % 64 + LARGE_SLOT_BYTES % 64, 0)
})

test('slots do not overlap, whatever is taken and given back (property)', () => {
  const random = new Random(3)
  const arena = new Arena(1 << 20)
  const pool = new PacketPool(arena, 20, 4)
  const held = new Map<number, { length: number; mark: number }>()
  for (let round = 0; round < 2000; round++) {
    if (random.chance(0.55)) {
      const length = random.pick([0, 60, SMALL_MAX, SMALL_MAX + 1, random.below(FRAME_BYTES_MAX)])
      const slot = pool.take(length)
      if (slot !== 0) {
        assert.ok(!held.has(slot) && slot % 64 === 0)
        const mark = random.below(256)
        arena.u8.fill(mark, slot, slot + SLOT_FRAME_OFFSET + length)
        held.set(slot, { length, mark })
      } else {
        assert.ok(held.size >= 4)
      }
    } else if (held.size > 0) {
      const slot = random.pick([...held.keys()])
      const { length, mark } = held.get(slot) as { length: number; mark: number }
      assert.equal(arena.u8.subarray(slot, slot + SLOT_FRAME_OFFSET + length).findIndex((byte) => byte !== mark), -1)
      pool.give(slot)
      held.delete(slot)
    }
    assert.equal(pool.used, held.size)
  }
})

test('a slot is given back once', () => {
  const pool = new PacketPool(new Arena(1 << 20), 2, 2)
  for (const length of [60, 10_000]) {
    const slot = pool.take(length)
    pool.give(slot)
    assert.throws(() => pool.give(slot), { name: 'AssertionError' })
  }
})
