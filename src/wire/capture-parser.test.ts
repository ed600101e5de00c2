import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Random } from '../base/random.ts'
import { readDamaged } from '../testing/fuzz/captures.ts'
import { CaptureParser } from './capture-parser.ts'
import type { CaptureState } from './capture-parser.ts'
import { CaptureRecorder } from './capture-recorder.ts'
import { PcapWriter } from './pcap.ts'
import { PcapngWriter } from './pcapng.ts'

type Format = 'pcap' | 'pcapng'

function write(capture: CaptureRecorder, format: Format, littleEndian: boolean): Buffer {
  const parts: Buffer[] = []
  const output = {
    write: (bytes: Uint8Array, length: number): void => void parts.push(Buffer.from(bytes.subarray(0, length))),
  }
  const Writer = format === 'pcap' ? PcapWriter : PcapngWriter
  const writer = new Writer(output, { littleEndian })
  capture.replay(writer)
  writer.flush()
  return Buffer.concat(parts)
}

interface Parsed {
  readonly parser: CaptureParser
  readonly capture: CaptureRecorder
}

/** Pushes the bytes in pieces of the given lengths, over and over; each piece is overwritten after its push. */
function parse(bytes: Uint8Array, pieceLengths: readonly number[] = [Infinity]): Parsed {
  const capture = new CaptureRecorder()
  const parser = new CaptureParser(capture)
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const length = Math.min(pieceLengths[i % pieceLengths.length] as number, bytes.length - at)
    const piece = Uint8Array.from(bytes.subarray(at, at + length))
    parser.push(piece)
    piece.fill(0xdd)
    at += length
  }
  parser.end()
  return { parser, capture }
}

function ending({ parser }: Parsed): [CaptureState, string, number] {
  return [parser.state, parser.reason, parser.faultPosition]
}

const packets = fc.array(fc.record({
  bytes: fc.oneof(
    fc.uint8Array({ maxLength: 80 }),
    fc.integer({ min: 0, max: 3000 }).map(n => new Uint8Array(n).fill(n)),
  ),
  more: fc.nat(5000),
  seconds: fc.integer({ min: 0, max: 0xffffffff }),
  nanoseconds: fc.nat(999_999_999),
  interface: fc.nat(2),
}), { maxLength: 30 })

type DrawnPackets = typeof packets extends fc.Arbitrary<infer T> ? T : never

/** A capture as the format can hold it: a pcap file has one interface. */
function captureOf(drawn: DrawnPackets, format: Format): CaptureRecorder {
  const capture = new CaptureRecorder()
  const interfaces = format === 'pcap' ? [1] : [1, 101, 276]
  interfaces.forEach((linkType, i) => capture.interfaceAdded(i, linkType, 1000 * (i + 1), true))
  for (const p of drawn) {
    const index = p.interface % interfaces.length
    capture.packet(p.bytes, 0, p.bytes.length, p.bytes.length + p.more, p.seconds, p.nanoseconds, index)
  }
  return capture
}

for (const format of ['pcap', 'pcapng'] as const) {
  test(`${format}: what was written is read again, however the stream is cut`, () => {
    fc.assert(fc.property(
      packets, fc.boolean(), fc.array(fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 5000 })), {
        minLength: 1, maxLength: 5,
      }),
      (drawn, littleEndian, pieceLengths) => {
        const capture = captureOf(drawn, format)
        const bytes = write(capture, format, littleEndian)
        for (const lengths of [[Infinity], pieceLengths, [1]]) {
          const parsed = parse(bytes, lengths)
          assert.deepEqual(ending(parsed), ['complete', '', 0])
          assert.equal(parsed.parser.format, format)
          assert.equal(parsed.parser.bytesConsumed, bytes.length)
          assert.deepEqual(parsed.capture.interfaces, capture.interfaces)
          assert.deepEqual(parsed.capture.packets, capture.packets)
        }
      },
    ), { seed: 1, numRuns: 60 })
  })

  test(`${format}: a stream that ends anywhere gives all packets before the end, and says where the rest broke`, () => {
    const drawn = fc.sample(packets, { seed: 2, numRuns: 20 }).flat().slice(0, 25)
      .map(p => ({ ...p, bytes: p.bytes.subarray(0, 70) }))
    const capture = captureOf(drawn, format)
    const bytes = write(capture, format, true)
    // Where each record ends: found by writing one packet fewer each time.
    const starts: number[] = []
    for (let count = 0; count <= capture.packets.length; count++) {
      const part = new CaptureRecorder()
      part.interfaces.push(...capture.interfaces)
      part.packets.push(...capture.packets.slice(0, count))
      starts.push(write(part, format, true).length)
    }
    assert.equal(starts.at(-1), bytes.length)
    for (let length = 0; length <= bytes.length; length++) {
      const whole = starts.findLastIndex(start => start <= length)
      for (const pieces of [[Infinity], [7, 100, 1]]) {
        const parsed = parse(bytes.subarray(0, length), pieces)
        assert.deepEqual(parsed.capture.packets, capture.packets.slice(0, Math.max(whole, 0)))
        const { state, faultPosition } = parsed.parser
        if (length === 0) assert.equal(state, 'empty')
        else if (length < 4) assert.equal(state, 'foreign')
        else if (whole < 0) assert.ok(state === 'truncated' || (format === 'pcapng' && state === 'complete'))
        else if (starts[whole] === length) assert.equal(state, 'complete')
        else assert.deepEqual([state, faultPosition], ['truncated', starts[whole]])
      }
    }
  })
}

test('the end of a skipped block may be cut off, too', () => {
  const section = write(new CaptureRecorder(), 'pcapng', true)
  const skipped = Buffer.alloc(40)
  skipped.writeUInt32LE(99, 0)
  skipped.writeUInt32LE(40, 4)
  skipped.writeUInt32LE(40, 36)
  const bytes = Buffer.concat([section, skipped])
  for (let length = section.length + 1; length < bytes.length; length++) {
    for (const pieces of [[Infinity], [1], [5]]) {
      assert.deepEqual(ending(parse(bytes.subarray(0, length), pieces)),
        ['truncated', 'the capture ends in the middle of the last record', section.length])
    }
  }
  assert.equal(parse(bytes, [3]).parser.state, 'complete')
})

test('a foreign file is found out by its first four bytes', () => {
  for (const pieces of [[Infinity], [1]]) {
    assert.equal(parse(Buffer.from('\x7fELF\x02\x01\x01'), pieces).parser.state, 'foreign')
    assert.equal(parse(Buffer.from('ab'), pieces).parser.state, 'foreign')
  }
  const parser = new CaptureParser(new CaptureRecorder())
  parser.push(new Uint8Array(4))
  assert.equal(parser.state, 'foreign')
  assert.equal(parser.format, undefined)
})

test('packets that lie wholly in a chunk are not copied', () => {
  const capture = new CaptureRecorder()
  capture.interfaceAdded(0, 1, 0, true)
  for (let i = 0; i < 10; i++) capture.packet(new Uint8Array(50).fill(i), 0, 50, 50, 0, i, 0)
  for (const format of ['pcap', 'pcapng'] as const) {
    const bytes = write(capture, format, true)
    let inPlace = 0
    const parser = new CaptureParser({ packet: lent => { if (lent === first || lent === second) inPlace++ } })
    const first = bytes.subarray(0, bytes.length >> 1)
    const second = bytes.subarray(bytes.length >> 1)
    parser.push(first)
    parser.push(second)
    assert.equal(inPlace, 9)
  }
})

test('what the sink throws passes through', () => {
  const capture = new CaptureRecorder()
  capture.interfaceAdded(0, 1, 0, true)
  capture.packet(new Uint8Array(5), 0, 5, 5, 0, 0, 0)
  const parser = new CaptureParser({ packet: () => { throw new Error('no more') } })
  assert.throws(() => parser.push(write(capture, 'pcap', true)), /no more/)
})

test('fuzz: mutated captures never throw, never lead out of bounds, and give the same however they are cut', () => {
  const random = new Random(20)
  const seeds: Buffer[] = []
  for (const drawn of fc.sample(packets, { seed: 3, numRuns: 12 })) {
    for (const format of ['pcap', 'pcapng'] as const) {
      seeds.push(write(captureOf(drawn.slice(0, 8), format), format, seeds.length % 3 > 0))
    }
  }
  const states = new Set<CaptureState>()
  for (let round = 0; round < 40_000; round++) states.add(readDamaged(random, seeds))
  assert.deepEqual([...states].sort(), ['complete', 'damaged', 'empty', 'foreign', 'truncated'])
})

