import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CodedError } from '../base/coded-error.ts'
import { CaptureParser } from './capture-parser.ts'
import { CaptureRecorder } from './capture-recorder.ts'
import { CAPTURED_LENGTH_MAX } from './capture-sink.ts'
import { LinkType } from './link-type.ts'
import { PcapWriter } from './pcap.ts'

/** Lays out fields: a number is 32 bits wide, `[n]` 16 bits, a string is hex. */
function layOut(littleEndian: boolean, ...fields: (number | [number] | string)[]): Uint8Array {
  return Buffer.concat(fields.map(field => {
    if (typeof field === 'string') return Buffer.from(field, 'hex')
    const view = new DataView(new ArrayBuffer(typeof field === 'number' ? 4 : 2))
    if (typeof field === 'number') view.setUint32(0, field, littleEndian)
    else view.setUint16(0, field[0], littleEndian)
    return Buffer.from(view.buffer)
  }))
}

function parse(bytes: Uint8Array): { parser: CaptureParser, capture: CaptureRecorder } {
  const capture = new CaptureRecorder()
  const parser = new CaptureParser(capture)
  parser.push(bytes)
  parser.end()
  return { parser, capture }
}

/** What a writer puts out. */
class Collected {
  bytes: Uint8Array = new Uint8Array(0)

  write(bytes: Uint8Array, length: number): void {
    this.bytes = Buffer.concat([this.bytes, bytes.subarray(0, length)])
  }
}

for (const littleEndian of [true, false]) {
  const order = littleEndian ? 'little' : 'big'
  const header = (magic: number, minor = 4, linkType = 1): (number | [number])[] =>
    [magic, [2], [minor], 0, 0, 0x1234, linkType]

  test(`${order} endian: microseconds, nanoseconds, and the modified record header`, () => {
    for (const [magic, perTick, extra] of [
      [0xa1b2c3d4, 1000, ''], [0xa1b23c4d, 1, ''], [0xa1b2cd34, 1000, '0000000000000000'],
    ] as const) {
      const { parser, capture } = parse(layOut(littleEndian,
        ...header(magic), 1_700_000_000, 999_999, 3, 60, extra, '414243', 0xfffffffe, 0, 0, 0, extra))
      assert.equal(parser.state, 'complete')
      assert.equal(parser.format, 'pcap')
      assert.deepEqual(capture.interfaces, [{ linkType: 1, snapLength: 0x1234, nanosecondResolution: perTick === 1 }])
      assert.deepEqual(capture.packets, [{
        bytes: new Uint8Array([0x41, 0x42, 0x43]), originalLength: 60,
        seconds: 1_700_000_000, nanoseconds: 999_999 * perTick, interfaceIndex: 0,
      }, {
        bytes: new Uint8Array(0), originalLength: 0, seconds: 0xfffffffe, nanoseconds: 0, interfaceIndex: 0,
      }])
    }
  })

  test(`${order} endian: the FCS bits are no part of the link type`, () => {
    assert.equal(parse(layOut(littleEndian, ...header(0xa1b2c3d4, 4, 0x54000071))).capture.interfaces[0]?.linkType, 113)
  })

  test(`${order} endian: before version 2.4 the lengths may be swapped`, () => {
    const packet = [0, 0, 60, 2, '4142', 0, 0, 2, 60, '4344']
    const { capture } = parse(layOut(littleEndian, ...header(0xa1b2c3d4, 3), ...packet))
    assert.deepEqual(capture.packets.map(p => [p.bytes.length, p.originalLength]), [[2, 60], [2, 60]])
    assert.equal(parse(layOut(littleEndian, ...header(0xa1b2c3d4, 4), ...packet)).capture.packets.length, 0)
  })

  test(`${order} endian: a fraction of a second and more is carried over`, () => {
    const { capture } = parse(layOut(littleEndian,
      ...header(0xa1b2c3d4), 10, 1_000_000, 0, 0, 10, 0xffffffff, 0, 0, ...[]))
    assert.deepEqual(capture.packets.map(p => [p.seconds, p.nanoseconds]), [[11, 0], [4304, 967_295_000]])
  })
}

test('an absurd length is damage, and costs no memory', () => {
  const start = layOut(true, 0xa1b2c3d4, [2], [4], 0, 0, 0, 1, 0, 0, 1, 1, '41')
  for (const length of [CAPTURED_LENGTH_MAX + 1, 0x7fffffff, 0xffffffff]) {
    const { parser, capture } = parse(Buffer.concat([start, layOut(true, 0, 0, length, length, '4242')]))
    assert.equal(parser.state, 'damaged')
    assert.equal(parser.faultPosition, 24 + 17 + 8)
    assert.match(parser.reason, new RegExp(`claims ${length} captured bytes`))
    assert.equal(capture.packets.length, 1)
  }
  const longest = new Uint8Array(CAPTURED_LENGTH_MAX).fill(9)
  const { parser, capture } = parse(Buffer.concat([
    start, layOut(true, 0, 0, longest.length, longest.length), longest,
  ]))
  assert.equal(parser.state, 'complete')
  assert.deepEqual(capture.packets[1]?.bytes, longest)
})

test('another version is damage', () => {
  const { parser } = parse(layOut(true, 0xa1b2c3d4, [3], [0], 0, 0, 0, 1))
  assert.equal(parser.state, 'damaged')
  assert.equal(parser.format, undefined)
  assert.equal(parser.reason, 'pcap version 3.0 is not known')
  assert.equal(parser.faultPosition, 4)
})

test('the writer writes a header even without packets, and the link type it was told', () => {
  const output = new Collected()
  const writer = new PcapWriter(output)
  writer.interfaceAdded(0, LinkType.LinuxSll2, 96, false)
  writer.flush()
  assert.deepEqual(parse(output.bytes).capture.interfaces, [
    { linkType: LinkType.LinuxSll2, snapLength: 96, nanosecondResolution: false },
  ])
  const bare = new Collected()
  new PcapWriter(bare).flush()
  assert.equal(parse(bare.bytes).capture.interfaces[0]?.linkType, LinkType.Ethernet)
})

test('the writer keeps nanoseconds if any interface has them, and cuts them off if none has', () => {
  for (const nanosecondResolution of [true, false]) {
    const output = new Collected()
    const writer = new PcapWriter(output)
    writer.interfaceAdded(0, 1, 96, false)
    writer.interfaceAdded(1, 1, 200, nanosecondResolution)
    writer.packet(new Uint8Array(2), 0, 2, 2, 5, 999_999_999, 0)
    writer.flush()
    const { capture } = parse(output.bytes)
    assert.equal(capture.packets[0]?.nanoseconds, nanosecondResolution ? 999_999_999 : 999_999_000)
    assert.equal(capture.interfaces[0]?.snapLength, 200)
  }
})

test('the writer refuses a second link type, and what came before is intact', () => {
  const output = new Collected()
  const writer = new PcapWriter(output)
  writer.interfaceAdded(0, LinkType.Raw, 0, true)
  writer.interfaceAdded(1, LinkType.Null, 0, true)
  writer.packet(new Uint8Array([1, 2, 3]), 1, 2, 2, 5, 6, 1)
  assert.throws(() => writer.packet(new Uint8Array(2), 0, 2, 2, 5, 7, 0), (error: unknown) => {
    assert.ok(error instanceof CodedError)
    assert.equal(error.code, 'NF_CAPTURE_LINK_TYPE')
    assert.match(error.message, /raw IP cannot follow BSD loopback/)
    return true
  })
  writer.flush()
  const { capture, parser } = parse(output.bytes)
  assert.equal(parser.state, 'complete')
  assert.equal(capture.interfaces[0]?.linkType, LinkType.Null)
  assert.deepEqual(capture.packets.map(p => [...p.bytes]), [[2, 3]])
})

test('what the writer writes, byte by byte', () => {
  for (const littleEndian of [true, false]) {
    const output = new Collected()
    const writer = new PcapWriter(output, { littleEndian })
    writer.interfaceAdded(0, LinkType.Raw, 0x1234, false)
    writer.packet(new Uint8Array([1, 2, 3]), 1, 2, 0x500, 0xf0000001, 5999, 0)
    writer.flush()
    assert.deepEqual(output.bytes, layOut(littleEndian,
      0xa1b2c3d4, [2], [4], 0, 0, 0x1234, 101, 0xf0000001, 5, 2, 0x500, '0203'))
  }
})

test('the output gets large blocks that end with a record', () => {
  const blocks: Uint8Array[] = []
  const writer = new PcapWriter({ write: (bytes, length) => void blocks.push(Buffer.from(bytes.subarray(0, length))) })
  writer.interfaceAdded(0, LinkType.Raw, 0, false)
  for (let i = 0; i < 2000; i++) writer.packet(new Uint8Array(1000), 0, 1000, 1000, i, 0, 0)
  writer.packet(new Uint8Array(CAPTURED_LENGTH_MAX), 0, CAPTURED_LENGTH_MAX, CAPTURED_LENGTH_MAX, 2000, 0, 0)
  writer.flush()
  assert.equal(blocks.length, 8)
  let start: Uint8Array = new Uint8Array(0)
  for (const block of blocks) {
    assert.ok(block.length >= 256 * 1024 || block === blocks.at(-1))
    start = Buffer.concat([start, block])
    assert.equal(parse(start).parser.state, 'complete')
  }
  assert.equal(parse(start).capture.packets.length, 2001)
})
