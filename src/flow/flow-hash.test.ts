import { test } from 'node:test'
import assert from 'node:assert/strict'
import { Random } from '../base/random.ts'
import { hashKey4, hashKey6 } from './flow-hash.ts'

type Hash = (seed: number, words: readonly number[]) => number

/** Keys as lists of words: tag, ports, protocol, then the addresses. */
const hashes: Record<string, { words: number; hash: Hash }> = {
  IPv4: { words: 5, hash: (seed, [tag, ports, protocol, a, b]) => hashKey4(seed, tag, ports, protocol, a, b) },
  IPv6: { words: 11, hash: (seed, words) => hashKey6(seed, Int32Array.from([99, ...words]), 1) },
}

for (const [name, { words, hash }] of Object.entries(hashes)) {
  test(`${name}: a signed 32-bit integer, the same for the same key, another for another seed`, () => {
    const random = new Random(1)
    let same = 0
    for (let i = 0; i < 1000; i++) {
      const key = Array.from({ length: words }, () => random.int32())
      const h = hash(7, key)
      assert.equal(h, h | 0)
      assert.equal(hash(7, key), h)
      if (hash(8, key) === h) same++
    }
    assert.equal(same, 0)
  })

  test(`${name}: every bit of the key and of the seed changes about half of the hash`, () => {
    const random = new Random(2)
    for (let bit = 0; bit <= words * 32; bit++) {
      let flips = 0
      const samples = 40
      for (let i = 0; i < samples; i++) {
        const key = Array.from({ length: words }, () => random.int32())
        const seed = random.int32()
        const other = [...key]
        if (bit < words * 32) other[bit >> 5] ^= 1 << (bit & 31)
        let difference = hash(seed, key) ^ (bit < words * 32 ? hash(seed, other) : hash(seed ^ (1 << random.below(32)), key))
        assert.notEqual(difference, 0, `bit ${bit}`)
        for (; difference !== 0; difference &= difference - 1) flips++
      }
      // Half of 32 bits in 40 samples: 640 expected, deviation 18.
      assert.ok(flips > 480 && flips < 800, `bit ${bit}: ${flips}`)
    }
  })

  test(`${name}: ordinary traffic spreads evenly over the slots`, () => {
    const slots = 4096
    for (const step of [1, 64, 256, 65536]) {
      const counts = new Uint32Array(slots)
      for (let i = 0; i < slots; i++) {
        // Clients of one network, ports in sequence, one server.
        const key = new Array<number>(words).fill(0)
        key[0] = (words === 5 ? 4 : 6) << 24
        key[1] = ((32768 + (i & 1023)) << 16) | 443
        key[2] = 6
        key[words === 5 ? 3 : 6] = 0x0a000000 + Math.imul(i >> 2, step)
        key[words - 1] = 0xc0000201 | 0
        counts[hash(0x1234567, key) >>> 20]++
      }
      // As for random numbers: about 1/e of the slots empty, no long pile.
      const empty = counts.filter((count) => count === 0).length
      assert.ok(Math.abs(empty / slots - 1 / Math.E) < 0.04, `${empty} empty`)
      assert.ok(Math.max(...counts) < 10, `${Math.max(...counts)} on one slot`)
    }
  })
}
