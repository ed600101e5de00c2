import { test } from 'node:test'
import assert from 'node:assert/strict'
import { Random } from '../base/random.ts'
import { Arena, ARENA_BYTES_MAX } from './arena.ts'

test('regions are aligned, zeroed, do not overlap, and never start at 0', () => {
  for (const seed of [1, 2, 3]) {
    const random = new Random(seed)
    const arena = new Arena(1 << 20)
    let end = 0
    for (let i = 0; i < 200; i++) {
      const bytes = random.below(3000)
      const alignment = 1 << random.below(13)
      const offset = arena.allocate(`region ${i}`, bytes, alignment)
      assert.ok(offset > 0 && offset >= end)
      assert.equal(offset % alignment, 0)
      assert.ok(arena.u8.subarray(offset, offset + bytes).every((byte) => byte === 0))
      arena.u8.fill(0xaa, offset, offset + bytes)
      assert.equal(arena.remaining, arena.bytes - offset - bytes)
      end = offset + bytes
    }
    assert.equal(arena.regions.length, 200)
    assert.deepEqual(arena.regions.map((r) => r.name).slice(0, 2), ['region 0', 'region 1'])
  }
})

test('a region starts at a cache line unless told otherwise', () => {
  const arena = new Arena(65536)
  arena.allocate('a', 1)
  assert.equal(arena.allocate('b', 1) % 64, 0)
  assert.equal(arena.allocate('c', 1, 4) % 64, 4)
})

test('all views show the same bytes, little-endian', () => {
  const { u8, u16, i32, u32, f64, view, bytes, buffer } = new Arena(65536)
  view.setFloat64(128, 1.5, true)
  assert.equal(f64[16], 1.5)
  i32[40] = -2
  assert.deepEqual([u32[40], u16[80], u8[160], view.getUint32(160, true)], [0xfffffffe, 0xfffe, 0xfe, 0xfffffffe])
  assert.equal(bytes, buffer.byteLength)
})

test('size: whole pages, up to just under 2 GiB', () => {
  assert.equal(new Arena(1).bytes, 65536)
  assert.equal(new Arena(65537).bytes, 131072)
  assert.equal(ARENA_BYTES_MAX, 2 ** 31 - 65536)
  for (const bytes of [0, -1, NaN, Infinity, ARENA_BYTES_MAX + 1]) assert.throws(() => new Arena(bytes), { code: 'NF_LIMIT' })
})

test('a region that does not fit is refused, with what is left', () => {
  const arena = new Arena(65536)
  arena.allocate('a', 60000)
  assert.throws(() => arena.allocate('b', 10000), { code: 'NF_LIMIT', message: /b: 10000 bytes wanted, 5440 of 65536 left/ })
  const rest = arena.allocate('rest', arena.remaining, 1)
  assert.equal(arena.remaining, 0)
  assert.equal(rest, 60064)
  assert.throws(() => arena.allocate('more', 1, 1), { code: 'NF_LIMIT' })
  assert.equal(arena.regions.length, 2)
})

test('what cannot be a region is a defect of the caller', () => {
  const arena = new Arena(65536)
  for (const [bytes, alignment] of [[-1, 64], [1.5, 64], [NaN, 64], [1, 3], [1, 0], [1, -64]]) {
    assert.throws(() => arena.allocate('a', bytes, alignment), { name: 'AssertionError' })
  }
})

test('reset takes everything back, zeroed', () => {
  const arena = new Arena(65536)
  const first = arena.allocate('a', 1000)
  arena.u8.fill(1, first, first + 1000)
  arena.reset()
  assert.equal(arena.regions.length, 0)
  assert.equal(arena.allocate('a', 1000), first)
  assert.ok(arena.u8.every((byte) => byte === 0))
})
