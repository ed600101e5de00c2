/**
 * The embedded module is what its sources compile to and touches nothing but the memory it is given; the scanning
 * kernels do what plain loops do, at any place and any length, and the loader falls back to the twins by itself.
 */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Random } from '../../base/random.ts'
import { Arena, ARENA_BYTES_MAX } from '../arena.ts'
import { loadKernels, type Kernels } from './kernels.ts'
import { kernelsBinary } from './kernels-binary.ts'

const binary = new Uint8Array(Buffer.from(kernelsBinary, 'base64'))

/** Numbers of the sections of a module: 2 imports, 5 memory, 8 start, 11 data, 12 data count. */
function sectionsOf(bytes: Uint8Array): number[] {
  const sections: number[] = []
  let at = 8
  while (at < bytes.length) {
    sections.push(bytes[at++])
    let length = 0
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[at++]
      length |= (byte & 0x7f) << shift
      if (byte < 0x80) break
    }
    at += length
  }
  return sections
}

test('the module imports the memory and has no memory, data or start function of its own', () => {
  const sections = sectionsOf(binary)
  for (const section of [5, 8, 11, 12]) assert.ok(!sections.includes(section), `section ${section}`)
  const module = new WebAssembly.Module(binary)
  assert.deepEqual(WebAssembly.Module.imports(module), [{ module: 'env', name: 'memory', kind: 'memory' }])
  assert.deepEqual(
    WebAssembly.Module.exports(module).map(({ name }) => name).sort(),
    ['checksum16', 'copy', 'detectHttp', 'equalBytes', 'findByte', 'findHeadEnd', 'parseHttpHead', 'setHttpTables'],
  )
})

test('loading writes nothing to the arena but the tables', () => {
  const arena = new Arena(1 << 16)
  loadKernels(arena)
  const [{ offset, bytes }] = arena.regions
  assert.equal(arena.regions.length, 1)
  arena.u8.fill(0, offset, offset + bytes)
  assert.ok(arena.u8.every((byte) => byte === 0))
})

test('the embedded module is what the sources compile to', async (t) => {
  const build = await import('../../../scripts/build-kernels.ts').catch(() => null)
  if (build === null) return t.skip('the AssemblyScript compiler is not installed')
  assert.ok(
    Buffer.from(await build.compileKernels()).equals(binary),
    'kernels-binary.ts is out of date: run `node scripts/build-kernels.ts`',
  )
})

test('where SIMD is missing the twins take over', async () => {
  const { validate } = WebAssembly
  WebAssembly.validate = () => false
  try {
    const fresh = './kernels.ts?without-simd'
    const { loadKernels: load } = (await import(fresh)) as { loadKernels: typeof loadKernels }
    assert.equal(load(new Arena(1 << 16)).wasm, false)
  } finally {
    WebAssembly.validate = validate
  }
  assert.equal(loadKernels(new Arena(1 << 16)).wasm, true)
})

const arena = new Arena(1 << 17)
const { u8 } = arena
const both: [string, Kernels][] = [['kernel', loadKernels(arena)], ['twin', loadKernels(arena, { wasm: false })]]
const low = arena.allocate('low', 4096)
const high = u8.length - 4096

/** Ranges of every length up to a few blocks, at every alignment, in the middle and at the very end of the memory. */
function* ranges(): Generator<[offset: number, end: number]> {
  for (let length = 0; length <= 150; length++) {
    for (let shift = 0; shift < 17; shift++) yield [low + shift, low + shift + length]
    yield [u8.length - length, u8.length]
  }
}

test('findByte', () => {
  const random = new Random(1)
  for (const [, kernels] of both) {
    for (const [offset, end] of ranges()) {
      u8.fill(0x41, low, low + 512)
      u8.fill(0x41, high)
      u8[offset - 1] = 0x0a
      if (end < u8.length) u8[end] = 0x0a
      assert.equal(kernels.findByte(offset, end, 0x0a), -1)
      if (end === offset) continue
      const at = random.between(offset, end - 1)
      // Neighbours of the byte wanted, which differ from it in one bit or borrow from it.
      u8[Math.max(at - 1, offset)] = 0x0b
      u8[at] = 0x0a
      u8[Math.min(at + 1, end - 1)] = at + 1 < end ? 0x8a : 0x0a
      assert.equal(kernels.findByte(offset, end, 0x0a), at, `${offset} ${end}`)
      assert.equal(kernels.findByte(offset, end, 0x10a), at, 'only the low byte counts')
    }
  }
})

test('findByte finds every value', () => {
  for (const [, kernels] of both) {
    for (let byte = 0; byte < 256; byte++) {
      u8.fill(byte ^ 1, low, low + 64)
      u8[low + 37] = byte
      assert.equal(kernels.findByte(low + 3, low + 64, byte), low + 37)
    }
  }
})

test('findHeadEnd', () => {
  const plain = (offset: number, end: number): number => {
    const text = Buffer.from(u8.slice(offset, end)).toString('latin1')
    const match = /\n\r?\n/.exec(text)
    return match === null ? -1 : offset + match.index + match[0].length
  }
  const random = new Random(2)
  for (let round = 0; round < 20000; round++) {
    const length = random.below(200)
    const [offset, end] = random.chance(0.5) ? [low + random.below(20), 0] : [u8.length - length, u8.length]
    const to = end === 0 ? offset + length : end
    const density = random.pick([2, 8, 40])
    for (let at = offset; at < Math.min(to + 4, u8.length); at++) {
      u8[at] = random.chance(1 / density) ? random.pick([10, 13]) : 65
    }
    const expected = plain(offset, to)
    for (const [name, kernels] of both) assert.equal(kernels.findHeadEnd(offset, to), expected, name)
    // To go on from 2 bytes before a former end finds the same.
    if (length <= 2 || expected === -1) continue
    const cut = random.between(offset + 2, to)
    if (plain(offset, cut) !== -1) continue
    for (const [name, kernels] of both) assert.equal(kernels.findHeadEnd(cut - 2, to), expected, name)
  }
})

test('equalBytes', () => {
  const random = new Random(3)
  for (const [name, kernels] of both) {
    for (const [offset, end] of ranges()) {
      const length = end - offset
      const other = low + 2048 + random.below(16)
      for (let i = 0; i < length; i++) u8[offset + i] = u8[other + i] = random.below(256)
      assert.equal(kernels.equalBytes(offset, other, length), 1, name)
      if (length === 0) continue
      u8[other + random.below(length)] ^= 1 << random.below(8)
      assert.equal(kernels.equalBytes(offset, other, length), 0, name)
    }
  }
})

test('copy, also onto itself', () => {
  const random = new Random(4)
  for (const [name, kernels] of both) {
    for (let round = 0; round < 500; round++) {
      for (let i = 0; i < 300; i++) u8[low + i] = random.below(256)
      const model = Array.from(u8.subarray(low, low + 300))
      const [to, from, length] = [random.below(100), random.below(100), random.below(200)]
      model.copyWithin(to, from, from + length)
      kernels.copy(low + to, low + from, length)
      assert.deepEqual(Array.from(u8.subarray(low, low + 300)), model, name)
    }
  }
})

test('checksum16', () => {
  const plain = (offset: number, length: number): number => {
    let sum = 0
    for (let i = 0; i < length; i++) sum += i % 2 === 0 ? u8[offset + i] * 256 : u8[offset + i]
    while (sum > 0xffff) sum = (sum % 65536) + Math.floor(sum / 65536)
    return sum
  }
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(16), fc.boolean(), (bytes, shift, last) => {
      const offset = last ? u8.length - bytes.length : low + shift
      u8.set(bytes, offset)
      const sum = plain(offset, bytes.length)
      for (const [name, kernels] of both) assert.equal(kernels.checksum16(offset, bytes.length), sum, name)
    }),
    { seed: 5, numRuns: 2000 },
  )
  for (const fill of [0, 0xff]) {
    u8.fill(fill, low)
    for (const length of [0, 1, 2, 65535, 65536, 100001]) {
      const sum = plain(low, length)
      for (const [name, kernels] of both) assert.equal(kernels.checksum16(low, length), sum, `${name} ${length}`)
    }
  }
})

test('at the top of the largest arena', () => {
  const large = new Arena(ARENA_BYTES_MAX)
  const end = large.u8.length
  for (const wasm of [true, false]) {
    const kernels = loadKernels(large, { wasm })
    const block = large.allocate('block', 128)
    const head = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n'
    for (let i = 0; i < head.length; i++) large.u8[end - head.length + i] = head.charCodeAt(i)
    assert.equal(kernels.parseHttpHead(end - head.length, end, 3, block), 1)
    assert.equal(kernels.findByte(end - head.length, end, 0x2f), end - head.length + 4)
    assert.equal(kernels.findHeadEnd(end - head.length, end), end)
    assert.equal(kernels.checksum16(end - 2, 2), 0x0d0a)
    assert.equal(kernels.checksum16(end - 300000, 300000 - head.length), 0)
    assert.equal(kernels.equalBytes(end - 40000, end - 30000, 9000), 1)
  }
})
