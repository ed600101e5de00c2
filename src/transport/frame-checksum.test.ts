import { test } from 'node:test'
import assert from 'node:assert/strict'
import { Random } from '../base/random.ts'
import { checksum } from './frame-checksum.ts'

test('a flipped bit shows, and so do two', () => {
  const random = new Random(1)
  const words = new Int32Array(64)
  for (let i = 0; i < words.length; i++) words[i] = random.int32()
  const right = checksum(words, 0, 256, 5)
  for (let bit = 0; bit < 2048; bit++) {
    words[bit >> 5] ^= 1 << (bit & 31)
    assert.notEqual(checksum(words, 0, 256, 5), right)
    for (const distance of [1, 32, 64, 128, 31]) {
      const second = (bit + distance) % 2048
      words[second >> 5] ^= 1 << (second & 31)
      assert.notEqual(checksum(words, 0, 256, 5), right)
      words[second >> 5] ^= 1 << (second & 31)
    }
    words[bit >> 5] ^= 1 << (bit & 31)
  }
  assert.notEqual(checksum(words, 0, 248, 5), right)
  assert.notEqual(checksum(words, 0, 256, 6), right)
})

test('words that change places, or are gone, show', () => {
  const words = new Int32Array(16)
  const sums = new Set<number>()
  for (let i = 0; i < 16; i++) {
    words.fill(0)
    words[i] = 1
    sums.add(checksum(words, 0, 64, 0))
  }
  for (let bytes = 0; bytes <= 64; bytes += 8) sums.add(checksum(words.fill(0), 0, bytes, 0))
  assert.equal(sums.size, 25)
})
