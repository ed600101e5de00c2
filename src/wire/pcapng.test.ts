import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Random } from '../base/random.ts'
import { CaptureParser } from './capture-parser.ts'
import { CaptureRecorder } from './capture-recorder.ts'
import { CAPTURED_LENGTH_MAX } from './capture-sink.ts'
import { PcapngWriter } from './pcapng.ts'

/** Lays out pcapng blocks in one byte order. */
class Blocks {
  readonly #littleEndian: boolean

  constructor(littleEndian: boolean) {
    this.#littleEndian = littleEndian
  }

  /** A number is 32 bits wide, `[n]` 16 bits, bytes are padded to 32 bits. */
  layOut(...fields: (number | [number] | Uint8Array)[]): Buffer {
    return Buffer.concat(fields.map(field => {
      if (field instanceof Uint8Array) return Buffer.concat([field, Buffer.alloc(-field.length & 3)])
      const view = new DataView(new ArrayBuffer(typeof field === 'number' ? 4 : 2))
      if (typeof field === 'number') view.setUint32(0, field, this.#littleEndian)
      else view.setUint16(0, field[0], this.#littleEndian)
      return Buffer.from(view.buffer)
    }))
  }

  block(type: number, ...fields: (number | [number] | Uint8Array)[]): Buffer {
    const body = this.layOut(...fields)
    return Buffer.concat([this.layOut(type, body.length + 12), body, this.layOut(body.length + 12)])
  }

  section(minor = 0): Buffer {
    return this.block(0x0a0d0d0a, 0x1a2b3c4d, [1], [minor], 0xffffffff, 0xffffffff)
  }

  interface(linkType: number, snapLength: number, ...options: (number | [number] | Uint8Array)[]): Buffer {
    return this.block(1, [linkType], [0], snapLength, ...options)
  }

  resolution(value: number): Uint8Array {
    return this.layOut([9], [1], Uint8Array.of(value))
  }

  offset(seconds: bigint): Uint8Array {
    const value = Buffer.alloc(8)
    if (this.#littleEndian) value.writeBigInt64LE(seconds)
    else value.writeBigInt64BE(seconds)
    return this.layOut([14], [8], value)
  }

  packet(
    index: number, ticks: bigint, bytes: Uint8Array, originalLength = bytes.length,
    options: Uint8Array = new Uint8Array(0),
  ): Buffer {
    const high = Number(ticks >> 32n)
    const low = Number(ticks & 0xffffffffn)
    return this.block(6, index, high, low, bytes.length, originalLength, bytes, options)
  }
}

function parse(...parts: Uint8Array[]): { parser: CaptureParser, capture: CaptureRecorder } {
  const capture = new CaptureRecorder()
  const parser = new CaptureParser(capture)
  parser.push(Buffer.concat(parts))
  parser.end()
  return { parser, capture }
}

const abc = Uint8Array.of(0x41, 0x42, 0x43)

for (const littleEndian of [true, false]) {
  const order = littleEndian ? 'little' : 'big'
  const b = new Blocks(littleEndian)

  test(`${order} endian: all kinds of packet blocks, and blocks that are skipped`, () => {
    const { parser, capture } = parse(
      b.section(), b.block(4, [0], [0]), b.interface(1, 96, [2], [4], Buffer.from('eth0'), [0], [0]),
      b.block(0x0bad, 0x12345678, abc), b.interface(101, 0),
      b.packet(1, 1_700_000_000_123_456n, abc, 60, b.layOut([1], [5], Buffer.from('hello'), [0], [0])),
      b.block(5, 0, 0, 0), b.block(0x40000bad, 0), b.block(0x80000001), b.block(0xffffffff, 7, 8, 9),
      b.block(2, [0], [17], 395_812, 2_264_922_240, 2, 70, abc.subarray(0, 2)),
      b.block(3, 3, abc), b.block(3, 500, new Uint8Array(500)),
    )
    assert.equal(parser.reason, '')
    assert.equal(parser.state, 'complete')
    assert.equal(parser.format, 'pcapng')
    assert.deepEqual(capture.interfaces, [
      { linkType: 1, snapLength: 96, nanosecondResolution: false },
      { linkType: 101, snapLength: 0, nanosecondResolution: false },
    ])
    const old = (395_812n << 32n) + 2_264_922_240n
    const oldTime = { seconds: Number(old / 1_000_000n), nanoseconds: Number(old % 1_000_000n) * 1000 }
    assert.deepEqual(capture.packets, [
      { bytes: abc, originalLength: 60, seconds: 1_700_000_000, nanoseconds: 123_456_000, interfaceIndex: 1 },
      { bytes: abc.subarray(0, 2), originalLength: 70, ...oldTime, interfaceIndex: 0 },
      { bytes: abc, originalLength: 3, ...oldTime, interfaceIndex: 0 },
      { bytes: new Uint8Array(96), originalLength: 500, ...oldTime, interfaceIndex: 0 },
    ])
  })

  test(`${order} endian: interfaces of later sections get numbers of their own`, () => {
    const other = new Blocks(!littleEndian)
    const { parser, capture } = parse(
      b.section(), b.interface(1, 0), b.interface(0, 0), b.packet(1, 1n, abc),
      other.section(2), other.interface(113, 0), other.packet(0, 2n, abc),
      b.section(), b.interface(276, 0), b.packet(0, 3n, abc), b.block(3, 3, abc),
    )
    assert.equal(parser.state, 'complete')
    assert.deepEqual(capture.interfaces.map(i => i.linkType), [1, 0, 113, 276])
    assert.deepEqual(capture.packets.map(p => [p.interfaceIndex, p.nanoseconds]), [
      [1, 1000], [2, 2000], [3, 3000], [3, 3000],
    ])
    const { parser: parserOfGap } = parse(b.section(), b.interface(1, 0), b.section(), b.packet(0, 0n, abc))
    assert.match(parserOfGap.reason, /interface 0, which is not described/)
  })

  test(`${order} endian: every resolution and offset gives the time that BigInt gives`, () => {
    const random = new Random(7)
    for (let resolution = 0; resolution < 256; resolution++) {
      const unit = resolution > 127 ? 2n ** BigInt(resolution & 127) : 10n ** BigInt(resolution)
      const offset = BigInt(random.between(-100_000, 100_000))
      const ticks: bigint[] = [0n, 1n, unit - 1n, unit, 999_999_999n * unit / 1_000_000_000n]
      for (const seconds of [1_700_000_000n, 4_294_967_295n, 4_294_967_296n]) {
        ticks.push(seconds * unit, seconds * unit + unit - 1n, seconds * unit + unit / 3n)
      }
      for (let i = 0; i < 10; i++) {
        const bits = BigInt(random.int32() >>> 0) << 32n | BigInt(random.int32() >>> 0)
        ticks.push(bits >> BigInt(random.below(64)), (1_700_000_000n * unit) + bits % unit)
      }
      const inRange = ticks.filter(t => t < 1n << 64n)
      const { capture, parser } = parse(
        b.section(), b.interface(1, 0, b.resolution(resolution), b.offset(offset), [0], [0]),
        ...inRange.map(t => b.packet(0, t, abc)),
      )
      assert.equal(parser.state, 'complete')
      assert.equal(capture.interfaces[0]?.nanosecondResolution, unit > 1_000_000n)
      capture.packets.forEach((packet, i) => {
        const t = inRange[i] as bigint
        const what = `resolution ${resolution}, ticks ${t}`
        assert.equal(packet.nanoseconds, Number(t % unit * 1_000_000_000n / unit), what)
        // Beyond 2^53 seconds a double has no room; no capture is that far away.
        if (t / unit < 1n << 50n) assert.equal(packet.seconds, Number(t / unit + offset), what)
      })
    }
  })

  test(`${order} endian: damage stops the reading at the place where it is`, () => {
    const start = Buffer.concat([b.section(), b.interface(1, 0), b.packet(0, 0n, abc)])
    const badTrailer = b.packet(0, 0n, abc)
    badTrailer.set(b.layOut(40), badTrailer.length - 4)
    const badSkippedTrailer = b.block(4, 0)
    badSkippedTrailer.set(b.layOut(20), badSkippedTrailer.length - 4)
    const badMark = b.section()
    badMark.set([1, 2, 3, 4], 8)
    const cases: [Uint8Array, number, RegExp][] = [
      [b.layOut(6, 35, 0, 0), 4, /block claims a length of 35/],
      [b.layOut(4, 8, 0, 0), 4, /length of 8/],
      [b.layOut(4, 0, 0, 0), 4, /length of 0/],
      [b.layOut(6, 28, 0, 0), 4, /length of 28/],
      [b.layOut(6, 0xfffffffc, 0, 0), 4, /length of 4294967292/],
      [badTrailer, 32, /two lengths/],
      [badSkippedTrailer, 12, /two lengths/],
      [b.block(6, 0, 0, 0, 8, 8, abc), 20, /claims 8 captured bytes/],
      [b.block(6, 1, 0, 0, 3, 3, abc), 8, /interface 1, which is not described/],
      [b.block(6, 0xffffffff, 0, 0, 3, 3, abc), 8, /interface 4294967295/],
      [b.block(2, [1], [0], 0, 0, 3, 3, abc), 8, /interface 1/],
      [b.interface(1, 0, [9], [9], 0), 18, /longer than its block/],
      [badMark, 8, /byte order mark/],
      [b.block(0x0a0d0d0a, 0x1a2b3c4d, [2], [0], 0, 0), 12, /version 2.0/],
    ]
    for (const [bytes, position, reason] of cases) {
      const { parser, capture } = parse(start, bytes, b.packet(0, 0n, abc))
      assert.equal(parser.state, 'damaged', String(reason))
      assert.match(parser.reason, reason)
      assert.equal(parser.faultPosition, start.length + position, String(reason))
      assert.equal(capture.packets.length, 1)
    }
  })
}

test('options of an interface: a name as long as an offset, and no end mark', () => {
  const b = new Blocks(true)
  const name = b.layOut([2], [8], Buffer.from('ethernet'))
  const { capture, parser } = parse(
    b.section(), b.interface(1, 0, b.resolution(0), name, b.offset(7n)), b.packet(0, 1n, abc),
    b.interface(1, 0, b.resolution(9), [0], [0], b.resolution(3)), b.packet(1, 1n, abc),
  )
  assert.equal(parser.state, 'complete')
  assert.deepEqual(capture.packets.map(p => [p.seconds, p.nanoseconds]), [[8, 0], [0, 1]])
})

test('what the writer writes, byte by byte', () => {
  for (const littleEndian of [true, false]) {
    const b = new Blocks(littleEndian)
    const parts: Buffer[] = []
    const writer = new PcapngWriter(
      { write: (bytes, length) => void parts.push(Buffer.from(bytes.subarray(0, length))) }, { littleEndian },
    )
    writer.interfaceAdded(0, 276, 96, true)
    writer.interfaceAdded(1, 1, 0, false)
    // The block is used again: what was in it must not show in the padding.
    writer.packet(new Uint8Array(300).fill(0xff), 0, 300, 300, 0, 0, 0)
    writer.flush()
    writer.packet(Uint8Array.of(1, 2, 3, 4, 5, 6), 1, 5, 60, 1_700_000_000, 123_456_789, 0)
    writer.packet(Uint8Array.of(1, 2, 3, 4), 0, 4, 4, 1_700_000_000, 123_456_789, 1)
    writer.flush()
    assert.deepEqual(Buffer.concat(parts), Buffer.concat([
      b.section(), b.interface(276, 96, b.resolution(9), [0], [0]), b.interface(1, 0),
      b.packet(0, 0n, new Uint8Array(300).fill(0xff)),
      b.packet(0, 1_700_000_000_123_456_789n, Uint8Array.of(2, 3, 4, 5, 6), 60),
      b.packet(1, 1_700_000_000_123_456n, Uint8Array.of(1, 2, 3, 4)),
    ]))
  }
})

test('a packet before any interface is damage', () => {
  const b = new Blocks(true)
  assert.equal(parse(b.section(), b.block(3, 3, abc)).parser.state, 'damaged')
  assert.equal(parse(b.section(), b.packet(0, 0n, abc)).parser.state, 'damaged')
})

test('a long block that is skipped needs no memory, one that is wanted has a limit', () => {
  const b = new Blocks(true)
  const long = b.block(10, new Uint8Array(4 << 20))
  const { parser, capture } = parse(b.section(), b.interface(1, 0), long, b.packet(0, 0n, abc))
  assert.equal(parser.state, 'complete')
  assert.equal(capture.packets.length, 1)
  const longest = new Uint8Array(CAPTURED_LENGTH_MAX).fill(1)
  assert.deepEqual(parse(b.section(), b.interface(1, 0), b.packet(0, 0n, longest)).capture.packets[0]?.bytes, longest)
  const tooLong = b.packet(0, 0n, new Uint8Array(CAPTURED_LENGTH_MAX + 1))
  assert.match(parse(b.section(), b.interface(1, 0), tooLong).parser.reason, /captured bytes/)
  const commented = b.packet(0, 0n, abc, 3, Buffer.alloc(2 * CAPTURED_LENGTH_MAX))
  assert.match(parse(b.section(), b.interface(1, 0), commented).parser.reason, /claims a length/)
})

test('the number of interfaces has a limit', () => {
  const b = new Blocks(true)
  const sections = Buffer.concat(Array.from({ length: 256 }, () => Buffer.concat([
    b.section(), ...Array.from({ length: 256 }, () => b.interface(1, 0)),
  ])))
  const { parser, capture } = parse(sections, b.packet(0, 0n, abc), b.interface(1, 0))
  assert.equal(parser.state, 'damaged')
  assert.match(parser.reason, /more than 65536 interfaces/)
  assert.equal(capture.packets[0]?.interfaceIndex, 65_280)
})

test('the writer writes times exactly, and clamps what 64 bits cannot hold', () => {
  const times: [number, number][] = [
    [0, 0], [0, 999_999_999], [1, 0], [1_700_000_000, 123_456_789], [4_294_967_295, 999_999_999],
    [4_294_967_296, 1], [17_999_999_999, 999_999_999],
  ]
  const random = new Random(3)
  for (let i = 0; i < 500; i++) times.push([random.below(2 ** 32) * random.between(0, 4), random.below(1e9)])
  const parts: Buffer[] = []
  const writer = new PcapngWriter({ write: (bytes, length) => void parts.push(Buffer.from(bytes.subarray(0, length))) })
  writer.interfaceAdded(0, 1, 0, true)
  writer.interfaceAdded(1, 1, 0, false)
  for (const [seconds, nanoseconds] of times) {
    writer.packet(abc, 0, 3, 3, seconds, nanoseconds, 0)
    writer.packet(abc, 0, 3, 3, seconds, nanoseconds, 1)
  }
  writer.packet(abc, 0, 3, 3, 1e30, 0, 0)
  writer.packet(abc, 0, 3, 3, -5, 0, 0)
  writer.packet(abc, 0, 3, 3, Number.NaN, 0, 0)
  writer.flush()
  const { capture } = parse(...parts)
  times.forEach(([seconds, nanoseconds], i) => {
    const fine = capture.packets[2 * i]
    const coarse = capture.packets[2 * i + 1]
    assert.deepEqual([fine?.seconds, fine?.nanoseconds], [seconds, nanoseconds])
    assert.deepEqual([coarse?.seconds, coarse?.nanoseconds], [seconds, nanoseconds - nanoseconds % 1000])
  })
  assert.deepEqual(capture.packets.slice(-3).map(p => p.seconds), [18_000_000_000, 0, 0])
})
