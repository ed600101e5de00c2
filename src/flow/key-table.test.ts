import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Arena } from '../memory/arena.ts'
import { KEY_WORDS } from './flow-record.ts'
import { KeyBlock, KeyTable } from './key-table.ts'

test('a block that is removed is of no kind any more, for those who had it in hand', () => {
  const arena = new Arena(2 ** 20)
  const key = arena.allocate('key', KEY_WORDS * 4 + 4) >> 2
  arena.i32.fill(7, key, key + KEY_WORDS)
  const table = new KeyTable(arena, 'keys', 4, 8)
  const block = table.add(key, 5)
  arena.u8[block + KeyBlock.kind] = 1
  assert.deepEqual([table.find(key, 5), [...table.blocks()], table.size], [block, [block], 1])
  table.remove(block)
  assert.deepEqual([table.find(key, 5), [...table.blocks()], table.size, arena.u8[block + KeyBlock.kind]], [0, [], 0, 0])
})
