import { test } from 'node:test'
import assert from 'node:assert/strict'
import { Random } from '../base/random.ts'
import { Arena } from '../memory/arena.ts'
import {
  addressBytes, buildFragments, buildFrame, buildPacket, checksumFault, layersOf, type FrameOptions, type TcpOptions,
} from '../testing/index.ts'
import { Descriptor as D, DESCRIPTOR_BYTES, Meta } from './descriptor.ts'
import { createPacketView, type PacketCursor } from './packet-view.ts'
import { createParser, ParseResult } from './parse.ts'

const arena = new Arena(1 << 20)
const { parse } = createParser(arena, 5)
const frameAt = arena.allocate('frame', 70_000) + 2
const scratch = arena.allocate('scratch', 4096)
const d = arena.allocate('descriptor', DESCRIPTOR_BYTES) >> 2
const view = createPacketView(arena)
view.d = d

/** A view of this frame, which lies in the arena at `frameAt`. */
function show(frame: Uint8Array, wireLength = frame.length): PacketCursor {
  arena.u8.fill(0xa5, frameAt - 2, frameAt + 4096)
  arena.u8.set(frame, frameAt)
  arena.i32.fill(0x5a5a5a5a, d, d + 32)
  arena.i32[d + D.frame] = frameAt
  arena.i32[d + D.length] = frame.length
  arena.i32[d + D.wireLength] = wireLength
  arena.i32[d + D.linkType] = 1
  arena.i32[d + D.port] = 3
  arena.f64[(d + D.time) >> 1] = 123456789
  assert.ok(parse(d) >= 0)
  return view
}

const shown = (length: number): Uint8Array => arena.u8.slice(frameAt, frameAt + length)
const word = (address: string, index = 0): number => new DataView(addressBytes(address).buffer).getInt32(index * 4)

const six = { source: '2001:db8::1', destination: '2001:db8::2' }

test('what a TCP packet says', () => {
  const frame = buildFrame({ vlans: [5, 6], source: '192.0.2.1', destination: '198.51.100.200', ttl: 17, trafficClass: 0xb9,
    tcp: { sourcePort: 1, destinationPort: 65535, sequence: 0xfffffffe, acknowledgement: 0x80000000,
      flags: 'SFRPAUEW', window: 4321,
      payload: 'hello' }, trailer: new Uint8Array(4) })
  const p = show(frame, 1000)
  assert.deepEqual([p.length, p.frameLength, p.frameOffset, p.time, p.port], [1000, frame.length, frameAt, 123456789, 3])
  assert.deepEqual([p.isIpv4, p.isIpv6, p.protocol, p.isTcp, p.isUdp, p.isRelated, p.isFragment, p.isLaterFragment],
    [true, false, 6, true, false, false, false, false])
  assert.deepEqual([p.vlan, p.vlanInner], [5, 6])
  assert.deepEqual([p.formatSource(), p.formatDestination()], ['192.0.2.1', '198.51.100.200'])
  assert.deepEqual([p.sourceWord(0), p.sourceWord(1), p.destinationWord(0)], [word('192.0.2.1'), 0, word('198.51.100.200')])
  assert.deepEqual([p.ttl, p.dscp, p.sourcePort, p.destinationPort], [17, 46, 1, 65535])
  assert.deepEqual([p.tcpFlags, p.sequence, p.acknowledgement, p.window, p.icmpType], [255, -2, -0x80000000, 4321, -1])
  assert.deepEqual([p.networkOffset, p.transportOffset, p.payloadOffset, p.payloadLength],
    [22, 42, 62, 5].map((n, i) => (i < 3 ? n + frameAt : n)))
  assert.deepEqual([-1, 0, 4, 5, NaN].map((i) => p.payloadByte(i)), [0, 104, 111, 0, 0])
})

test('what an IPv6 packet, a UDP datagram and an ICMP message say', () => {
  const p = show(buildFrame({ ...six, ttl: 3, trafficClass: 0xb9, udp: { sourcePort: 9, destinationPort: 10, payload: 'x' } }))
  assert.deepEqual([p.isIpv4, p.isIpv6, p.isUdp, p.ttl, p.dscp, p.sourcePort, p.destinationPort],
    [false, true, true, 3, 46, 9, 10])
  assert.deepEqual([p.formatSource(), p.formatDestination(), p.sourceWord(3), p.destinationWord(0)],
    ['2001:db8::1', '2001:db8::2', 1, 0x20010db8])
  assert.deepEqual([p.tcpFlags, p.sequence, p.acknowledgement, p.window, p.tcpOption(2), p.icmpType], [0, 0, 0, 0, 0, -1])
  assert.equal(show(buildFrame({ icmp: { type: 3, code: 4 } })).icmpType, 0x304)
  assert.equal(show(buildFrame({ ...six, icmp: { type: 128, code: 0 } })).icmpType, 0x8000)
  const other = show(buildFrame({ protocol: 47, payload: 'abcdef' }))
  assert.deepEqual([other.sourcePort, other.destinationPort, other.icmpType, other.payloadLength], [0, 0, -1, 6])
  // The other version's ICMP is nothing that is known: even a message of one byte is not read beyond.
  assert.equal(show(buildFrame({ protocol: 58, payload: 'a' })).icmpType, -1)
  assert.equal(show(buildFrame({ ...six, protocol: 1, payload: 'a' })).icmpType, -1)
})

test('TCP options are found, and a list that is broken ends the search', () => {
  const options = (bytes: number[]): PacketCursor => show(buildFrame({ tcp: { options: Uint8Array.from(bytes),
    payload: '\u0003\u0003\u0003' } }))
  const p = options([2, 4, 5, 180, 1, 3, 3, 7, 4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8])
  const at = (kind: number): number => (p.tcpOption(kind) === 0 ? 0 : p.tcpOption(kind) - p.transportOffset - 20)
  assert.deepEqual([2, 3, 4, 8, 5, 1].map(at), [2, 7, 10, 12, 0, 0])
  assert.equal(options([1, 1, 1, 1]).tcpOption(3), 0)
  assert.equal(options([0, 3, 3, 7]).tcpOption(3), 0, 'behind the end')
  assert.equal(options([9, 0, 3, 3, 7, 1, 1, 1]).tcpOption(3), 0, 'a length of 0')
  assert.equal(options([9, 1, 3, 3, 7, 1, 1, 1]).tcpOption(3), 0, 'a length of 1')
  assert.equal(options([1, 3, 4, 1]).tcpOption(3), 0, 'longer than the header')
  assert.equal(options([1, 1, 1, 3]).tcpOption(3), 0, 'no length')
  assert.equal(options([1, 1, 9, 2]).tcpOption(9) - view.transportOffset, 24, 'the last two bytes')
})

const kinds: ((random: Random) => FrameOptions)[] = [
  (r) => ({ tcp: { sequence: r.int32() >>> 0, payload: r.fill(new Uint8Array(r.below(50))) } }),
  (r) => ({ tcp: { options: new Uint8Array(r.below(10) * 4).fill(1), payload: r.fill(new Uint8Array(r.below(50))) } }),
  (r) => ({ udp: { payload: r.fill(new Uint8Array(r.below(50))) } }),
  (r) => ({ udp: { checksum: false, payload: r.fill(new Uint8Array(9)) } }),
  (r) => ({ icmp: { payload: r.fill(new Uint8Array(r.below(50))) } }),
  (r) => ({ protocol: 47, payload: r.fill(new Uint8Array(r.below(50))) }),
  (r) => ({ icmp: { type: 3, quote: buildPacket({ udp: { payload: r.fill(new Uint8Array(9)) } }) } }),
]

test('whatever is rewritten, the packet is as if it had been built so, checksums and all (property)', () => {
  for (let seed = 1; seed <= 400; seed++) {
    const random = new Random(seed)
    const isIpv6 = random.chance(0.5)
    const made = random.pick(kinds)(random)
    if (isIpv6 && made.udp?.checksum === false) made.udp.checksum = true
    if (isIpv6 && made.icmp?.quote !== undefined) made.icmp.type = 1
    const options: FrameOptions = {
      ...made, ...(isIpv6 ? six : {}), ttl: 64, trafficClass: 0,
      ...(!random.chance(0.3) ? {}
        : isIpv6 ? { extensions: [{ type: 0 }, { type: 60 }] } : { ipOptions: new Uint8Array(8).fill(1) }),
      vlans: random.chance(0.2) ? [7] : [], pppoe: random.chance(0.2) ? 9 : undefined,
    }
    const carried = (options.tcp ?? options.udp ?? options.icmp ?? options) as TcpOptions
    const frame = buildFrame(options)
    const p = show(frame)
    const group = (): string => random.pick(['0', 'ffff', random.below(65536).toString(16)])
    const address = (): string => (isIpv6 ? Array.from({ length: 8 }, group).join(':')
      : Array.from({ length: 4 }, () => random.pick([0, 255, random.below(256)])).join('.'))
    for (let change = 0; change < 12; change++) {
      switch (random.below(8)) {
        case 0: {
          const to = options.source = address()
          if (isIpv6) p.setSourceIpv6(word(to), word(to, 1), word(to, 2), word(to, 3))
          else p.setSourceIpv4(word(to))
          break
        }
        case 1: {
          const to = options.destination = address()
          if (isIpv6) p.setDestinationIpv6(word(to), word(to, 1), word(to, 2), word(to, 3))
          else p.setDestinationIpv4(word(to))
          break
        }
        case 2: p.ttl = options.ttl = random.below(256); break
        case 3: {
          p.dscp = random.below(64)
          options.trafficClass = p.dscp << 2
          break
        }
        case 4: {
          const port = random.pick([0, 65535, random.below(65536)])
          p.sourcePort = port
          if (options.tcp ?? options.udp) carried.sourcePort = port
          break
        }
        case 5: {
          const port = random.below(65536)
          p.destinationPort = port
          if (options.tcp ?? options.udp) carried.destinationPort = port
          break
        }
        case 6: {
          const { payload } = carried
          if (!(payload instanceof Uint8Array)) break
          const index = random.below(payload.length + 2) - 1
          const value = random.below(256)
          p.setPayloadByte(index, value)
          payload[index] = value
          break
        }
        default: {
          const { payload } = carried
          if (!(payload instanceof Uint8Array) || payload.length === 0) break
          const index = random.below(payload.length)
          const bytes = random.fill(new Uint8Array(random.below(60)))
          arena.u8.set(bytes, scratch)
          p.overwritePayload(index, scratch, bytes.length)
          payload.set(bytes.subarray(0, payload.length - index), index)
        }
      }
      // The wrong version's setters do nothing.
      if (isIpv6) p.setSourceIpv4(1)
      else p.setDestinationIpv6(1, 2, 3, 4)
    }
    assert.deepEqual(shown(frame.length), buildFrame(options), `seed ${seed}`)
    assert.equal(arena.u8[frameAt + frame.length], 0xa5)
    assert.equal(checksumFault(shown(frame.length)), '')
  }
})

test('a UDP checksum never becomes 0, whatever the payload', () => {
  const frame = buildFrame({ udp: { payload: 'ab' } })
  const p = show(frame)
  const { transport } = layersOf(frame)
  for (let value = 0; value < 65536; value += value < 65000 ? 7 : 1) {
    p.setPayloadByte(0, value >>> 8)
    p.setPayloadByte(1, value & 255)
    assert.notEqual(arena.view.getUint16(frameAt + transport + 6), 0)
    if (value % 101 === 0) assert.equal(checksumFault(shown(frame.length)), '')
  }
  // Every value of one word passes through the case: there is one payload for which the sum is 0.
  let allOnes = 0
  for (let value = 0; value < 65536; value++) {
    p.setPayloadByte(0, value >>> 8)
    p.setPayloadByte(1, value & 255)
    if (arena.view.getUint16(frameAt + transport + 6) === 0xffff) allOnes++
  }
  assert.equal(allOnes, 1)
})

test('fragments: rewritten addresses and ports, and payload of the first one, leave the datagram whole', () => {
  for (const base of [{}, { ...six, extensions: [{ type: 0 }] }]) {
    for (const carried of [{ udp: { payload: 'x'.repeat(101) } }, { tcp: { payload: 'x'.repeat(101) } }]) {
      const options: FrameOptions = { ...base, ...carried, identification: 9 }
      const isIpv6 = 'source' in base
      const pieces: Uint8Array[] = []
      for (const frame of buildFragments(options, 40)) {
        const p = show(frame)
        assert.equal(p.isFragment, true)
        if (isIpv6) p.setSourceIpv6(1, 2, 3, 4)
        else p.setSourceIpv4(0x01020304)
        p.sourcePort = 4242
        p.ttl = 9
        if (!p.isLaterFragment) p.setPayloadByte(3, 0x21)
        const { network, transport } = layersOf(frame)
        assert.equal(p.isLaterFragment, transport < 0)
        const start = isIpv6 ? network + 40 + 8 + 8 : network + 20
        if (p.isLaterFragment) assert.deepEqual([p.sourcePort, p.tcpFlags, p.window, p.icmpType, p.transportOffset],
          [0, 0, 0, -1, 0])
        pieces.push(shown(frame.length).subarray(start))
        if (!isIpv6) {
          let sum = 0
          for (let at = network; at < network + 20; at += 2) sum += (shown(frame.length)[at] << 8) | shown(frame.length)[at + 1]
          assert.equal((sum & 0xffff) + (sum >>> 16), 0xffff, 'the IPv4 header checksum')
        }
      }
      const whole = buildFrame({ ...options, ttl: 9, source: isIpv6 ? '0:1:0:2:0:3:0:4' : '1.2.3.4',
        udp: carried.udp && { ...carried.udp, sourcePort: 4242, payload: 'xxx!' + 'x'.repeat(97) },
        tcp: carried.tcp && { ...carried.tcp, sourcePort: 4242, payload: 'xxx!' + 'x'.repeat(97) } })
      assert.deepEqual(Buffer.concat(pieces), Buffer.from(whole.subarray(layersOf(whole).transport)))
    }
  }
})

test('a packet that was cut short by the capture keeps its checksum right for what was there', () => {
  const options: FrameOptions = { tcp: { payload: 'x'.repeat(100) } }
  const frame = buildFrame(options)
  const p = show(frame.subarray(0, 60), frame.length)
  assert.ok(arena.i32[d + D.meta] & Meta.cut)
  p.setSourceIpv4(0x7f000001)
  p.sourcePort = 77
  p.setPayloadByte(5, 0x79)
  p.setPayloadByte(6, 0x79)
  const wanted = buildFrame({ source: '127.0.0.1', tcp: { sourcePort: 77, payload: 'xxxxxy' + 'x'.repeat(94) } })
  assert.deepEqual(shown(60), wanted.subarray(0, 60))
})

test('an ICMP error about a flow is shown as such', () => {
  const p = show(buildFrame({ icmp: { type: 11, quote: buildPacket({ tcp: {} }) } }))
  assert.equal(arena.i32[d + D.result], ParseResult.related)
  assert.deepEqual([p.isRelated, p.isTcp, p.protocol, p.icmpType, p.sourcePort, p.tcpFlags, p.acknowledgement],
    [true, false, 1, 0x0b00, 0, 0, 0])
})
