/**
 * Simulated rings: what a dead reader had not given back, with readers and writers that come and go at any time.
 */

import assert from 'node:assert/strict'
import test from 'node:test'
import { Arena } from '../memory/arena.ts'
import { SimRing, SimRingReader } from './sim-port.ts'

const frames = [1, 2, 3].map((byte) => Uint8Array.of(byte))
const ring = (): SimRing => {
  const made = new SimRing(() => true, () => undefined, () => undefined)
  for (const frame of frames) made.push(frame)
  return made
}

test('what a life has not received that came before the one ahead of it was taken back can be taken back, too', () => {
  const one = ring()
  one.readerWent()
  one.readerCame()
  assert.deepEqual(one.beginTakeBack(), [])
  while (one.takeBack() !== undefined);
  assert.deepEqual(one.renew(), [])
  one.push(frames[0] as Uint8Array)
  assert.deepEqual(one.readerWent(), [])
  assert.ok(one.isDead)
  assert.equal(one.takeBack(), frames[0])
})

test('what was sent while a reader lived that was not meant is lost with it, and told so', () => {
  const one = ring()
  one.received = 1
  one.isDead = true
  assert.deepEqual(one.renew(), frames.slice(1))
  for (const frame of frames) one.push(frame)
  one.received = 2
  assert.deepEqual(one.readerWent(), frames.slice(2))
  assert.ok(!one.isDead)
})

test('what a writer before had sent and nobody has received is lost with the reader, and told so', () => {
  const one = ring()
  one.received = 1
  one.restart()
  one.push(frames[0] as Uint8Array)
  one.readerWent()
  assert.deepEqual(one.beginTakeBack(), frames.slice(1))
  assert.equal(one.first, 4)
  assert.equal(one.takeBack(), frames[0])
})

test('what has come to a reader and was taken back before it looked does not come to it', () => {
  const one = ring()
  const reader = new SimRingReader(new Arena(65_536), { load: 0, capacity: 9, send: () => undefined }, one)
  for (const frame of frames) reader.arrive(frame)
  one.isDead = true
  while (one.takeBack() !== undefined);
  assert.equal(one.again, 0)
  assert.deepEqual([one.renew(), reader.waiting], [[], 0])
})
