import { test } from 'node:test'
import assert from 'node:assert/strict'
import { Random } from '../base/random.ts'
import { Arena } from '../memory/arena.ts'
import { createSessionStatistics } from './session-statistics.ts'
import { STREAM_START, StreamReceiver } from './stream-receiver.ts'

const RING_UNITS = 128

/** A receiver with a small ring, and a stream of numbered messages of known lengths in front of it. */
function createStream(random: Random, messages: number) {
  const arena = new Arena(1 << 18)
  const statistics = createSessionStatistics()
  const got: string[] = []
  const receiver = new StreamReceiver(arena, RING_UNITS * 8, 400, statistics, (offset, bytes) => {
    assert.equal(offset % 8, 0)
    for (let i = 4; i + 4 <= bytes; i += 4) assert.equal(arena.i32[(offset + i) >> 2], arena.i32[offset >> 2])
    got.push(`${arena.i32[offset >> 2]} (${bytes})`)
  })
  const sent: string[] = []
  const words: number[] = []
  for (let number = 1; number <= messages; number++) {
    const bytes = random.pick([4, 16, 72, 72, 396])
    words.push(bytes, 0)
    for (let i = 0; i < (bytes + 7 & ~7) / 4; i++) words.push(i * 4 < bytes ? number : 0)
    sent.push(`${number} (${bytes})`)
  }
  const data = arena.allocate('stream', words.length * 4)
  arena.i32.set(words, data >> 2)
  const copy = arena.allocate('frame', 8192)
  return {
    arena, receiver, statistics, got, sent, data, units: words.length / 2,
    /** The stretch of units `from` to `to`, as a frame would bring it. */
    take(from: number, to: number): void {
      arena.u8.copyWithin(copy, data + from * 8, data + to * 8)
      receiver.take((STREAM_START + from) | 0, to - from, copy)
    },
  }
}

test('stretches in any order, overlapping, repeated and from far ahead, give each message once (property)', () => {
  for (let seed = 1; seed <= 150; seed++) {
    const random = new Random(seed)
    const s = createStream(random, 60)
    for (let steps = 0; s.got.length < s.sent.length; steps++) {
      assert.ok(steps < 20_000, `seed ${seed}`)
      const contiguous = (s.receiver.contiguous - STREAM_START) | 0
      const from = Math.max(0, Math.min(s.units - 1, contiguous + random.between(-20, random.pick([3, 30, 160]))))
      s.take(from, Math.min(s.units, from + random.between(1, random.pick([4, 60]))))
      assert.ok(((s.receiver.contiguous - s.receiver.delivered) | 0) >= 0)
    }
    assert.deepEqual(s.got, s.sent, `seed ${seed}`)
    assert.equal(s.statistics.malformed, 0)
  }
})

test('what is ahead of the ring is not taken', () => {
  const s = createStream(new Random(1), 60)
  s.take(RING_UNITS - 2, RING_UNITS)
  assert.equal(s.receiver.early.count, 1)
  s.take(RING_UNITS - 1, RING_UNITS + 1)
  assert.deepEqual([s.receiver.early.count, s.statistics.beyondWindow], [1, 1])
})

test('what is behind something that cannot be a message is as if it had not come', () => {
  const s = createStream(new Random(2), 60)
  const { i32 } = s.arena
  const second = s.data + 8 + (i32[s.data >> 2] + 7 & ~7)
  const right = i32[second >> 2]
  i32[second >> 2] = 401
  const unit = (second - s.data) / 8
  s.take(unit + 1, unit + 3)
  s.take(unit + 6, unit + 7)
  s.take(0, 1)
  s.take(1, unit + 1)
  assert.deepEqual([s.got.length, s.statistics.malformed, s.receiver.early.count], [1, 1, 0])
  assert.equal((s.receiver.contiguous - STREAM_START) | 0, unit)
  i32[second >> 2] = right
  for (let from = unit; from < s.units; from += 20) s.take(from, Math.min(s.units, from + 20))
  assert.deepEqual(s.got, s.sent)
})
