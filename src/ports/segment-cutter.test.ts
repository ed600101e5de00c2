import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Random } from '../base/random.ts'
import { Arena } from '../memory/arena.ts'
import { foldSum } from '../wire/checksum.ts'
import { crc32c } from './crc32c.ts'
import { loadFrameBytes } from './kernels/frame-bytes.ts'
import { SegmentCutter } from './segment-cutter.ts'
import { completeChecksum, locateTcp, pseudoHeaderSum, TcpPlace, VNET_HEADER_BYTES, writeSegmentationHeader } from './virtio-net-header.ts'

const arena = new Arena(1 << 20)
const { u8, view } = arena
const bytes = loadFrameBytes(arena)
const frame = arena.allocate('frame', 70_000) + 2
const cut = arena.allocate('cut', 70_000) + 6

interface Shape { readonly ipv6: boolean, readonly tags: number, readonly options: number, readonly isTcp: boolean }

/** A frame with a payload of random bytes, as it stands before it is cut: with the pseudo header's sum where the checksum goes. */
function build({ ipv6, tags, options, isTcp }: Shape, payload: number, random: Random): { length: number, network: number, transport: number } {
  random.fill(u8.subarray(frame, frame + 12) as Uint8Array<ArrayBuffer>)
  for (let i = 0; i < tags; i++) view.setUint32(frame + 12 + 4 * i, 0x81000000 | random.below(4096))
  const network = 14 + 4 * tags
  view.setUint16(frame + network - 2, ipv6 ? 0x86dd : 0x0800)
  const transport = network + (ipv6 ? 40 : 20)
  const headers = isTcp ? 20 + options : 8
  const length = transport + headers + payload
  random.fill(u8.subarray(frame + network, frame + length) as Uint8Array<ArrayBuffer>)
  if (ipv6) {
    view.setUint32(frame + network, 0x60000000)
    view.setUint16(frame + network + 4, length - network - 40)
    u8[frame + network + 6] = isTcp ? 6 : 17
  } else {
    u8[frame + network] = 0x45
    view.setUint16(frame + network + 2, length - network)
    view.setUint16(frame + network + 6, 0x4000)
    u8[frame + network + 9] = isTcp ? 6 : 17
  }
  if (isTcp) {
    u8[frame + transport + 12] = ((20 + options) / 4) << 4
    u8[frame + transport + 13] = 0x99
  }
  return { length, network, transport }
}

/** True if the checksum of the TCP or UDP header is right. */
function isRight(at: number, length: number, ipv6: boolean, network: number, transport: number, isTcp: boolean): boolean {
  const addresses = ipv6 ? bytes.sumBytes(at + network + 8, 32) : bytes.sumBytes(at + network + 12, 8)
  const sum = addresses + (isTcp ? 6 : 17) + length - transport + bytes.sumBytes(at + transport, length - transport)
  return foldSum(sum) === 0xffff && (ipv6 || foldSum(bytes.sumBytes(at + network, 20)) === 0xffff)
}

test('what is cut has right headers, and put together it is what it was', () => {
  const random = new Random(3)
  const cutter = new SegmentCutter(arena, bytes)
  for (let round = 0; round < 300; round++) {
    const shape = { ipv6: random.chance(0.5), tags: random.below(3), options: 4 * random.below(11), isTcp: random.chance(0.7) }
    const { length, network, transport } = build(shape, random.between(1, round < 20 ? 64_000 : 9000), random)
    const headers = transport + (shape.isTcp ? 20 + shape.options : 8)
    const segmentBytes = random.between(Math.ceil((length - headers) / 60), 1460)
    const sequence = view.getUint32(frame + transport + 4)
    const identification = view.getUint16(frame + network + 4)
    assert.ok(cutter.begin(frame, length, network, transport, segmentBytes, shape.isTcp))
    let done = 0
    for (let count = 0; cutter.nextLength > 0; count++) {
      const piece = cutter.nextLength
      u8.fill(0xcc, cut, cut + piece + 1)
      cutter.write(cut)
      const payload = piece - headers
      const isLast = headers + done + payload === length
      assert.equal(payload, Math.min(segmentBytes, length - headers - done))
      assert.equal(u8[cut + piece], 0xcc)
      assert.ok(isRight(cut, piece, shape.ipv6, network, transport, shape.isTcp), JSON.stringify(shape))
      assert.deepEqual(u8.slice(cut, cut + network), u8.slice(frame, frame + network))
      assert.deepEqual(u8.slice(cut + headers, cut + piece), u8.slice(frame + headers + done, frame + headers + done + payload))
      if (shape.ipv6) assert.equal(view.getUint16(cut + network + 4), piece - network - 40)
      else assert.equal(view.getUint16(cut + network + 2), piece - network)
      if (!shape.ipv6) assert.equal(view.getUint16(cut + network + 4), (identification + count) & 0xffff)
      if (shape.isTcp) {
        assert.equal(view.getUint32(cut + transport + 4), (sequence + done) >>> 0)
        // FIN and PSH at the end, CWR at the beginning, ACK always.
        assert.equal(u8[cut + transport + 13], 0x10 | (isLast ? 0x09 : 0) | (count === 0 ? 0x80 : 0))
      } else {
        assert.equal(view.getUint16(cut + transport + 4), piece - transport)
      }
      done += payload
    }
    assert.equal(done, length - headers)
  }
})

test('headers that make no sense are not cut', () => {
  const random = new Random(4)
  const cutter = new SegmentCutter(arena, bytes)
  const { length, network, transport } = build({ ipv6: false, tags: 0, options: 0, isTcp: true }, 5000, random)
  assert.ok(cutter.begin(frame, length, network, transport, 1000, true))
  assert.equal(cutter.begin(frame, length, network, transport, 0, true), false)
  assert.equal(cutter.begin(frame, length, network, transport + 4, 1000, true), false)
  assert.equal(cutter.begin(frame, 40, network, transport, 1000, true), false)
  u8[frame + network] = 0x75
  assert.equal(cutter.begin(frame, length, network, transport, 1000, true), false)
  u8[frame + network] = 0x45
  u8[frame + transport + 12] = 0x10
  assert.equal(cutter.begin(frame, length, network, transport, 1000, true), false)
})

test('a checksum that was left undone is done', () => {
  const random = new Random(5)
  for (let round = 0; round < 100; round++) {
    const shape = { ipv6: random.chance(0.5), tags: random.below(3), options: 4 * random.below(11), isTcp: true }
    const { length, network, transport } = build(shape, random.between(0, 3000), random)
    const place = new TcpPlace()
    assert.ok(locateTcp(arena, frame, length, place))
    assert.deepEqual([place.network, place.transport, place.payload, place.end, place.vlanTags, place.isIpv6],
      [network, transport, transport + 20 + shape.options, length, shape.tags, shape.ipv6])
    // As the kernel leaves it; and as we leave it to the kernel.
    const header = frame - 2 - VNET_HEADER_BYTES
    writeSegmentationHeader(arena, bytes, header, frame, place, 1000)
    assert.equal(view.getUint16(frame + transport + 16), pseudoHeaderSum(bytes, frame, place))
    assert.deepEqual([u8[header], u8[header + 1] & 0x7f, view.getUint16(header + 2, true), view.getUint16(header + 4, true),
      view.getUint16(header + 6, true), view.getUint16(header + 8, true)],
    [1, shape.ipv6 ? 4 : 1, place.payload, 1000, transport, 16])
    assert.ok(completeChecksum(arena, bytes, frame, length, transport, transport + 16))
    if (!shape.ipv6) {
      view.setUint16(frame + network + 10, 0)
      view.setUint16(frame + network + 10, ~bytes.sumBytes(frame + network, 20) & 0xffff)
    }
    assert.ok(isRight(frame, length, shape.ipv6, network, transport, true))
    assert.equal(completeChecksum(arena, bytes, frame, length, transport, length - 1), false)
    assert.equal(completeChecksum(arena, bytes, frame, length, 4, 20), false)
  }
})

test('SCTP has a checksum of another kind', () => {
  // The check value of CRC-32C, and RFC 3720 B.4: 32 bytes of zeroes.
  assert.equal(crc32c(new TextEncoder().encode('123456789'), 0, 9), 0xe3069283)
  assert.equal(crc32c(new Uint8Array(40), 4, 32), 0x8a9136aa)
  u8.fill(1, frame, frame + 100)
  assert.ok(completeChecksum(arena, bytes, frame, 90, 34, 42))
  const copy = u8.slice(frame + 34, frame + 90)
  copy.fill(0, 8, 12)
  assert.equal(view.getUint32(frame + 42, true), crc32c(copy, 0, 56))
  assert.deepEqual([u8[frame + 41], u8[frame + 46]], [1, 1])
  assert.equal(completeChecksum(arena, bytes, frame, 45, 34, 42), false)
})

test('random bytes are not taken for TCP where they do not hold one', () => {
  const random = new Random(6)
  const place = new TcpPlace()
  for (let round = 0; round < 20_000; round++) {
    const length = random.between(14, 200)
    random.fill(u8.subarray(frame, frame + length) as Uint8Array<ArrayBuffer>)
    view.setUint16(frame + 12, random.chance(0.5) ? 0x0800 : 0x86dd)
    if (random.chance(0.9)) u8[frame + (view.getUint16(frame + 12) === 0x0800 ? 23 : 20)] = random.pick([6, 0, 43, 60])
    if (random.chance(0.9)) view.setUint32(frame + 16, random.below(200))
    if (!locateTcp(arena, frame, length, place)) continue
    assert.ok(place.network < place.transport && place.transport + 20 <= place.payload && place.payload <= place.end && place.end <= length)
  }
})
