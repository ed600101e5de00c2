import { test } from 'node:test'
import assert from 'node:assert/strict'
import { KEY_WORDS } from '../flow/flow-record.ts'
import { Arena } from '../memory/arena.ts'
import { Departed, DEPARTED_MAX } from './departed.ts'

function setUp() {
  const arena = new Arena(65_536)
  const key = arena.allocate('key', KEY_WORDS * 4)
  const macs = arena.allocate('addresses', 12)
  const departed = new Departed(arena)
  const write = (number: number, mac: number): void => {
    arena.i32.fill(0, key >> 2, (key >> 2) + KEY_WORDS)
    arena.i32[(key >> 2) + 1] = number
    arena.u8.fill(mac, macs, macs + 12)
  }
  return {
    note(number: number, mac: number): void {
      write(number, mac)
      departed.note(key, macs)
    },
    /** The addresses of a flow as their bytes, which are all the same; null when they are not known. */
    read(number: number): number | null {
      write(number, 0)
      // As the key of a packet of IPv4 is, with what there was before in the words that it does not use.
      for (const word of [4, 5, 6, 8, 9, 10]) arena.i32[(key >> 2) + word] = -1
      if (!departed.read(key >> 2, macs)) return null
      const bytes = new Set(arena.u8.subarray(macs, macs + 12))
      assert.equal(bytes.size, 1)
      return [...bytes][0] as number
    },
  }
}

test('the addresses of a flow that has ended are known, of the last one on its key', () => {
  const { note, read } = setUp()
  note(1, 11)
  note(2, 22)
  assert.deepEqual([read(1), read(2), read(3)], [11, 22, null])
  note(1, 33)
  assert.deepEqual([read(1), read(2)], [33, 22])
})

test('as many are kept as may end meanwhile: the oldest are forgotten', () => {
  const { note, read } = setUp()
  for (let number = 1; number <= DEPARTED_MAX + 1; number++) note(number, number & 255)
  assert.deepEqual([read(1), read(2), read(DEPARTED_MAX + 1)], [null, 2, (DEPARTED_MAX + 1) & 255])
})
