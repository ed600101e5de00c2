import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { Random } from '../../base/random.ts'
import { Arena } from '../../memory/arena.ts'
import { syntheticTraces } from '../../testing/synthetic-traces.ts'
import { mutatePacket } from '../../testing/mutate-packet.ts'
import { Descriptor, DESCRIPTOR_BYTES } from '../descriptor.ts'
import { createParser, ParseResult } from '../parse.ts'
import { classifyBinary } from './classify-binary.ts'
import { loadClassifyKernel, UNPARSED } from './classify.ts'

const D = Descriptor

/** Words that a parsed packet's descriptor must agree in. The unused address words of IPv4 keep what was there. */
const compared = (isIpv6: boolean): number[] => [
  D.network, D.transport, D.payload, D.payloadLength, D.meta, D.hash, D.key, D.key + 1, D.key + 2, D.key + 3, D.key + 7,
  ...(isIpv6 ? [D.key + 4, D.key + 5, D.key + 6, D.key + 8, D.key + 9, D.key + 10] : []),
]

test('the kernel parses as the parser does, or leaves the packet to it', (t) => {
  const arena = new Arena(4 << 20)
  const kernel = loadClassifyKernel(arena)
  if (kernel === null) return t.skip('no WebAssembly here')
  const seed = 0x1234567
  const parser = createParser(arena, seed)
  const { i32, u8, view } = arena
  const kernelDescriptor = arena.allocate('kernel', DESCRIPTOR_BYTES)
  const parserDescriptor = arena.allocate('parser', DESCRIPTOR_BYTES)
  const table = arena.allocate('table', 64 * 8)
  const sink = arena.allocate('sink', 64)
  const frame = arena.allocate('frame', 70000) + 2
  const random = new Random(5)
  const packets = syntheticTraces(3).flatMap((trace) => trace.packets)
  let parsed = 0
  let left = 0
  for (let round = 0; round < 40_000; round++) {
    const original = random.pick(packets)
    const bytes = (round % 3 === 0 ? original : mutatePacket(original, random)).frame
    if (bytes.length > 65000) continue
    u8.set(bytes, frame)
    // What lies behind the frame must not matter.
    for (let i = 0; i < 64; i++) u8[frame + bytes.length + i] = random.int32()
    for (const d of [kernelDescriptor >> 2, parserDescriptor >> 2]) {
      i32.fill(0, d, d + 32)
      i32[d + D.frame] = frame
      i32[d + D.length] = bytes.length
      i32[d + D.wireLength] = bytes.length
      i32[d + D.linkType] = 1
    }
    const count: number = kernel(kernelDescriptor, 1, seed, table, 32 - 6, 4, sink, -1, 0, 0)
    const result = i32[(kernelDescriptor >> 2) + D.result]
    assert.equal(count, result === 0 ? 0 : 1)
    const wanted = parser.parse(parserDescriptor >> 2)
    if (result === UNPARSED) {
      left++
      continue
    }
    parsed++
    assert.equal(wanted, ParseResult.flow)
    const isIpv6 = view.getUint16(frame + 12) === 0x86dd
    const isTcp = (i32[(parserDescriptor >> 2) + D.meta] & 255) === 6
    for (const word of [...compared(isIpv6), ...(isTcp ? [D.sequence] : [])]) {
      assert.equal(i32[(kernelDescriptor >> 2) + word], i32[(parserDescriptor >> 2) + word], `word ${word}, round ${round}`)
    }
  }
  assert.ok(parsed > 5000 && left > 5000, `${parsed} parsed, ${left} left`)
})

test('the embedded kernel is what its source compiles to', async (t) => {
  const build = await import('../../../scripts/build-kernels.ts').catch(() => null)
  if (build === null) return t.skip('AssemblyScript is not installed')
  const module = build.modules.find((one) => one.name === 'classifyBinary') as (typeof build.modules)[number]
  const binary = await build.compileKernels(module)
  assert.equal(Buffer.from(binary).toString('base64'), classifyBinary, 'run `node scripts/build-kernels.ts`')
  assert.match(readFileSync(build.targetOf(module), 'utf8'), /not to be edited/)
})
