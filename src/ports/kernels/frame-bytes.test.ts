import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Random } from '../../base/random.ts'
import { Arena } from '../../memory/arena.ts'
import { frameBytesTwin, loadFrameBytes } from './frame-bytes.ts'

test('the kernel copies and sums like its twin', () => {
  const arena = new Arena(1 << 20)
  const random = new Random(7)
  const kernel = loadFrameBytes(arena)
  const twin = frameBytesTwin(arena)
  assert.notEqual(kernel.sumBytes, twin.sumBytes)
  random.fill(arena.u8.subarray(64, 200_000) as unknown as Uint8Array<ArrayBuffer>)
  arena.u8.fill(0xff, 100_000, 130_000)
  for (let round = 0; round < 2000; round++) {
    const from = random.between(64, 130_000)
    const length = round < 100 ? round : random.between(0, 65_535)
    assert.equal(kernel.sumBytes(from, length), twin.sumBytes(from, length), `sum of ${length} bytes at ${from}`)
    if (round % 10 !== 0) continue
    const to = random.between(300_000, 400_000)
    kernel.copyBytes(to, from, length)
    const copied = arena.u8.slice(to, to + length + 1)
    arena.u8.fill(0, to, to + length + 1)
    twin.copyBytes(to, from, length)
    copied[length] = 0
    assert.deepEqual(copied, arena.u8.slice(to, to + length + 1))
  }
})
