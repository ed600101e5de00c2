import { test } from 'node:test'
import assert from 'node:assert/strict'
import fc from 'fast-check'
import { Random } from '../base/random.ts'
import { Arena } from './arena.ts'
import { EXTENT_HEADER_BYTES, ExtentPool } from './extent-pool.ts'
import { chain, struct } from './struct.ts'

test('a block starts empty, chained to nothing, whatever it held before', () => {
  const arena = new Arena(65536)
  const pool = new ExtentPool(arena, 2, 64)
  const block = pool.take()
  arena.u8.fill(0xff, block, block + 64)
  pool.give(block)
  const again = pool.take()
  assert.equal(again, block)
  assert.deepEqual([pool.next(again), pool.tag(again), pool.length(again)], [0, 0, 0])
  assert.equal(pool.dataOffset(again), again + EXTENT_HEADER_BYTES)
  assert.equal(pool.dataBytes, 48)
  pool.setTag(again, -5)
  pool.setLength(again, 48)
  pool.setNext(again, 128)
  assert.deepEqual([pool.next(again), pool.tag(again), pool.length(again)], [128, -5, 48])
})

test('a pool that is empty says so, and counts', () => {
  const pool = new ExtentPool(new Arena(65536), 2, 64)
  const blocks = [pool.take(), pool.take()]
  assert.equal(pool.take(), 0)
  assert.equal(pool.refused, 1)
  assert.equal(pool.available, 0)
  pool.give(blocks[0])
  assert.equal(pool.used, 1)
  assert.ok(pool.take() !== 0)
})

test('chains against byte lists: append, copy, clear, export, import; bounds of chain and pool hold (property)', () => {
  fc.assert(fc.property(fc.integer(), fc.integer({ min: 1, max: 6 }), fc.integer({ min: 1, max: 20 }),
    (seed, blocksMax, blocks) => {
    const random = new Random(seed)
    const arena = new Arena(1 << 17)
    const pool = new ExtentPool(arena, blocks, 64)
    const schema = struct({ a: chain({ blocks: blocksMax }), b: chain({ blocks: blocksMax }) })
    const state = schema.bind({ arena, extents: pool })
    state.o = arena.allocate('state', schema.bytes)
    const scratch = arena.allocate('scratch', 4096)
    const model: Record<'a' | 'b', number[]> = { a: [], b: [] }
    const needed = (bytes: number): number => Math.ceil(bytes / pool.dataBytes)
    for (let i = 0; i < 60; i++) {
      const which = random.pick(['a', 'b'] as const)
      const view = state[which]
      const list = model[which]
      switch (random.below(5)) {
        case 0: case 1: {
          const bytes = random.fill(new Uint8Array(random.below(random.pick([10, 200]))))
          arena.u8.set(bytes, scratch)
          const total = needed(list.length + bytes.length)
          const fits = total <= blocksMax && total - needed(list.length) <= pool.available
          assert.equal(view.append(scratch, bytes.length), fits)
          if (fits) list.push(...bytes)
          break
        }
        case 2: {
          const limit = random.below(300)
          arena.u8.fill(0xee, scratch, scratch + 400)
          const copied = view.copyTo(scratch, limit)
          assert.equal(copied, Math.min(limit, list.length))
          assert.deepEqual([...arena.u8.subarray(scratch, scratch + copied)], list.slice(0, copied))
          assert.equal(arena.u8[scratch + copied], 0xee)
          break
        }
        case 3: {
          if (random.chance(0.5)) break
          view.clear()
          list.length = 0
          break
        }
        default: {
          const snapshot = new Uint8Array(view.blocks * 64 + 5)
          assert.equal(pool.exportChain(view.head, snapshot, 5), view.blocks * 64)
          const count = view.blocks
          view.clear()
          // Others may take blocks in between: the chain comes back elsewhere.
          const other = random.chance(0.5) && pool.available > count ? pool.take() : 0
          view.head = pool.importChain(snapshot, 5, count)
          if (other !== 0) pool.give(other)
        }
      }
      for (const key of ['a', 'b'] as const) {
        assert.equal(state[key].length, model[key].length)
        assert.equal(state[key].isEmpty, model[key].length === 0)
        assert.ok(state[key].blocks <= blocksMax)
      }
      assert.equal(pool.used, state.a.blocks + state.b.blocks)
    }
    assert.equal(schema.decode({ arena, extents: pool }, state.o).a, model.a.length)
    state.a.clear()
    state.b.clear()
    assert.equal(pool.used, 0)
  }), { seed: 2, numRuns: 60 })
})

test('a chain that does not fit is not imported at all', () => {
  const pool = new ExtentPool(new Arena(65536), 3, 64)
  pool.take()
  assert.equal(pool.importChain(new Uint8Array(192), 0, 3), 0)
  assert.equal(pool.used, 1)
  assert.equal(pool.refused, 3)
  assert.equal(pool.importChain(new Uint8Array(0), 0, 0), 0, 'an empty chain is no chain')
})
