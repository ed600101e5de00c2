import { test } from 'node:test'
import assert from 'node:assert/strict'
import { Arena } from '../memory/arena.ts'
import { Descriptor } from './descriptor.ts'
import { PacketPool } from './packet-pool.ts'
import { PacketQueue } from './packet-queue.ts'

/** The order in which packets with these numbers of arrival leave a queue that they are pushed to. */
function leave(arrivals: readonly number[]): number[] {
  const arena = new Arena(1 << 20)
  const pool = new PacketPool(arena, 16, 1)
  const queue = new PacketQueue(arena)
  for (const arrival of arrivals) {
    const slot = pool.take(60)
    arena.i32[(slot >> 2) + Descriptor.slot] = slot
    arena.i32[(slot >> 2) + Descriptor.arrival] = arrival
    queue.push(slot >> 2)
  }
  assert.equal(queue.count, arrivals.length)
  const left: number[] = []
  for (let slot = queue.shift(); slot !== 0; slot = queue.shift()) {
    left.push(arena.i32[(slot >> 2) + Descriptor.arrival])
    pool.give(slot)
  }
  assert.deepEqual([queue.count, pool.used], [0, 0])
  return left
}

test('packets leave a queue as they were pushed', () => {
  assert.deepEqual(leave([]), [])
  assert.deepEqual(leave([3, 4, 9]), [3, 4, 9])
  assert.deepEqual(leave([0, 0, 5, 0, 6, 0]), [0, 0, 5, 0, 6, 0])
})

test('one that came earlier than the last takes its place', () => {
  assert.deepEqual(leave([3, 5, 9, 4]), [3, 4, 5, 9])
  assert.deepEqual(leave([3, 5, 2, 1, 7]), [1, 2, 3, 5, 7])
  assert.deepEqual(leave([0, 5, 0, 9, 7]), [0, 5, 0, 7, 9])
  assert.deepEqual(leave([5, 9, 9, 5]), [5, 5, 9, 9])
})

test('numbers of arrival may wrap around', () => {
  const late = 0x7fffffff
  const early = -0x80000000
  assert.deepEqual(leave([late, early, late]), [late, late, early])
})
