import { test } from 'node:test'
import assert from 'node:assert/strict'
import { Random } from '../base/random.ts'
import { keyVersion, keyVlanInner, keyVlanOuter } from '../flow/flow-record.ts'
import { Arena } from '../memory/arena.ts'
import { formatAddress } from '../memory/struct.ts'
import {
  buildFragments, buildFrame, buildPacket, layersOf, mutatePacket, syntheticTraces, type FrameOptions, type TestPacket,
} from '../testing/index.ts'
import { Descriptor as D, DESCRIPTOR_BYTES, Meta } from './descriptor.ts'
import { ENGINE_DROP_REASONS, engineDropReasons } from './drop-reason.ts'
import { createParser, dropReasonOf, dropResult } from './parse.ts'

const arena = new Arena(1 << 20)
const { i32, u8 } = arena
const { parse, useOwnKey, hashKey } = createParser(arena, 99)
const frameAt = arena.allocate('frame', 200_000) + 1024 + 2
const d = arena.allocate('descriptor', DESCRIPTOR_BYTES) >> 2

const kinds = ['flow', 'firstFragment', 'laterFragment', 'related', 'pass']
const reasons = Object.keys(engineDropReasons)

interface Parsed {
  /** Kind of packet, or the reason to drop it. */
  kind: string
  version: number
  protocol: number
  source: string
  sourcePort: number
  destination: string
  destinationPort: number
  vlan: number
  vlanInner: number
  session: number
  /** Offsets within the frame; -1 for none. */
  network: number
  transport: number
  payload: number
  payloadLength: number
  flags: number
  meta: number
  sequence: number
  hash: number
  key: string
}

/** Parses a frame that lies amid garbage from the given seed. */
function parseFrame({ frame, linkType = 1, wireLength }: TestPacket, garbage = 1): Parsed {
  const random = new Random(garbage)
  random.fill(u8.subarray(frameAt - 64, frameAt + frame.length + 128))
  u8.set(frame, frameAt)
  for (let word = 0; word < 32; word++) i32[d + word] = random.int32()
  i32[d + D.frame] = frameAt
  i32[d + D.length] = frame.length
  i32[d + D.wireLength] = wireLength ?? frame.length
  i32[d + D.linkType] = linkType
  const result = parse(d)
  assert.equal(i32[d + D.result], result)
  return read()
}

function read(): Parsed {
  const result = i32[d + D.result]
  const tag = i32[d + D.key]
  const version = keyVersion(tag)
  const meta = i32[d + D.meta]
  const fromB = (meta & Meta.fromB) !== 0
  const ports = i32[d + D.key + 1]
  const a = formatAddress(version, i32[d + D.key + 3], i32[d + D.key + 4], i32[d + D.key + 5], i32[d + D.key + 6])
  const b = formatAddress(version, i32[d + D.key + 7], i32[d + D.key + 8], i32[d + D.key + 9], i32[d + D.key + 10])
  const words = version === 4 ? [0, 1, 2, 3, 7] : [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
  return {
    kind: result >= 0 ? kinds[result] : reasons[dropReasonOf(result)],
    version, protocol: i32[d + D.key + 2] & 255, session: i32[d + D.key + 2] >>> 8,
    source: fromB ? b : a, destination: fromB ? a : b,
    sourcePort: fromB ? ports & 0xffff : ports >>> 16, destinationPort: fromB ? ports >>> 16 : ports & 0xffff,
    vlan: keyVlanOuter(tag), vlanInner: keyVlanInner(tag),
    network: i32[d + D.network] - frameAt, transport: i32[d + D.transport] === 0 ? -1 : i32[d + D.transport] - frameAt,
    payload: i32[d + D.payload] - frameAt, payloadLength: i32[d + D.payloadLength],
    flags: (meta >>> 8) & 255, meta, sequence: i32[d + D.sequence], hash: i32[d + D.hash],
    key: words.map((word) => i32[d + D.key + word]).join(),
  }
}

const six: FrameOptions = { source: '2001:db8::1', destination: '2001:db8::2' }
const tcp = { sourcePort: 40000, destinationPort: 80, sequence: 0x80000001, flags: 'PA', payload: 'payload!' }
const udp = { sourcePort: 5353, destinationPort: 53, payload: 'question' }
const ICMP_PAYLOAD = 'ping'

/** Whole packets of every protocol, by name. */
const whole: Record<string, FrameOptions> = {
  tcp: { tcp }, 'tcp with options': { tcp: { ...tcp, options: new Uint8Array(40).fill(1) } },
  'tcp without payload': { tcp: { ...tcp, payload: '' } },
  'tcp syn': { tcp: { ...tcp, flags: 'S', options: Uint8Array.of(2, 4, 5, 180) } },
  udp: { udp }, 'udp without payload': { udp: { ...udp, payload: '' } }, 'udp without checksum': { udp: { ...udp,
    checksum: false } },
  'icmp echo': { icmp: { type: 8, rest: 0x12340001, payload: ICMP_PAYLOAD } },
  'icmp timestamp': { icmp: { type: 13, rest: 0x12340001 } },
  'icmp router': { icmp: { type: 10 } }, gre: { protocol: 47, payload: 'whatever' }, 'no payload at all': { protocol: 253 },
  'ipv4 options': { ipOptions: new Uint8Array(40).fill(1), tcp }, 'ipv4 options, udp': { ipOptions: Uint8Array.of(7, 3, 4), udp },
  'reserved and do-not-fragment bits': { dontFragment: true, udp },
  'ipv6 tcp': { ...six, tcp }, 'ipv6 udp': { ...six, udp }, 'ipv6 icmp echo': { ...six,
    icmp: { type: 128, rest: 0x12340001, payload: ICMP_PAYLOAD } },
  'ipv6 neighbour': { ...six, icmp: { type: 135, payload: new Uint8Array(16) } },
  'ipv6 esp': { ...six, protocol: 50, payload: 'encrypted' },
  'ipv6 no next header': { ...six, protocol: 59 },
  'ipv6 hop-by-hop': { ...six, extensions: [{ type: 0 }], tcp },
  'ipv6 many': { ...six, extensions: [{ type: 0, body: new Uint8Array(22) }, { type: 43 }, { type: 60 },
    { type: 135 }, { type: 139 }, { type: 140 }], udp },
  'ipv6 authentication': { ...six, extensions: [{ type: 51, body: new Uint8Array(22) }], tcp },
  'ipv6 atomic fragment': { ...six, extensions: [{ type: 60 }], fragment: { offset: 0, more: false },
    innerExtensions: [{ type: 60 }], udp },
  'ipv6 sixteen': { ...six, extensions: new Array(16).fill({ type: 60 }), udp },
}

/** What may stand before layer 3. */
const links: Record<string, FrameOptions> = {
  ethernet: {}, vlan: { vlans: [100] }, 'priority tag': { vlans: [{ id: 0, priority: 7 }] }, qinq: { vlans: [4095, 1] },
  'old qinq': { vlans: [{ id: 5, type: 0x9100 }, 6] }, 'three tags': { vlans: [1, 2, 3] }, pppoe: { pppoe: 0xabcd },
  'vlan and pppoe': { vlans: [7], pppoe: 1 },
}

for (const [linkName, link] of Object.entries(links)) {
  test(`${linkName}: every protocol, with and without padding, both directions`, () => {
    for (const [name, options] of Object.entries(whole)) {
      for (const trailer of [new Uint8Array(0), new Uint8Array(7).fill(0xee)]) {
        const frame = buildFrame({ ...link, ...options, trailer })
        const layers = layersOf(frame)
        const p = parseFrame({ frame })
        const label = `${name} ${trailer.length}`
        assert.equal(p.kind, 'flow', label)
        const isIpv6 = options.source !== undefined
        const carried = options.tcp ?? options.udp
        const id = options.icmp !== undefined && [8, 13, 128].includes(options.icmp.type as number) ? 0x1234 : 0
        assert.deepEqual({ version: p.version, protocol: p.protocol, source: p.source, destination: p.destination,
          sourcePort: p.sourcePort, destinationPort: p.destinationPort, session: p.session }, {
          version: isIpv6 ? 6 : 4, protocol: layers.protocol, source: isIpv6 ? '2001:db8::1' : '10.0.0.1',
          destination: isIpv6 ? '2001:db8::2' : '10.0.0.2', sourcePort: carried?.sourcePort ?? id,
          destinationPort: carried?.destinationPort ?? id, session: link.pppoe ?? 0,
        }, label)
        const tags = (link.vlans ?? []).map((tag) => (typeof tag === 'number' ? tag : tag.id))
        assert.deepEqual([p.vlan, p.vlanInner], [tags[0] ?? 0, tags[1] ?? 0])
        const header = options.tcp ? 20 + (options.tcp.options?.length ?? 0) : options.udp || options.icmp ? 8 : 0
        assert.deepEqual([p.network, p.transport, p.payload, p.payload + p.payloadLength],
          [layers.network, layers.transport, layers.transport + header, layers.end], label)
        assert.equal(p.meta & 255, layers.protocol)
        assert.equal((p.meta & Meta.ipv6) !== 0, isIpv6)
        assert.equal(p.meta & (Meta.fragment | Meta.laterFragment | Meta.related | Meta.emitted | Meta.cut), 0)
        assert.equal(p.flags, options.tcp === undefined ? 0 : options.tcp.flags === 'S' ? 2 : 0x18)
        if (options.tcp !== undefined) assert.equal(p.sequence, 0x80000001 | 0)
        assert.equal(hashKey(d), p.hash, label)
        // The other direction.
        const back = parseFrame({ frame: buildFrame({
          ...link, ...options, source: isIpv6 ? six.destination : '10.0.0.2', destination: isIpv6 ? six.source : '10.0.0.1',
          tcp: options.tcp && { ...options.tcp, sourcePort: 80, destinationPort: 40000 },
          udp: options.udp && { ...options.udp, sourcePort: 53, destinationPort: 5353 },
        }) })
        assert.deepEqual([back.key, back.hash], [p.key, p.hash], label)
        assert.notEqual(back.meta & Meta.fromB, p.meta & Meta.fromB, label)
      }
    }
  })
}

test('the key is canonical for any addresses and ports (property)', () => {
  const random = new Random(4)
  const part = (): number => random.pick([0, 1, 127, 128, 255, random.below(256)])
  const v4 = (): string => [part(), part(), part(), part()].join('.')
  const v6 = (): string => Array.from({ length: 8 }, () => random.pick(['0', '1', '7fff', '8000', 'ffff'])).join(':')
  for (let i = 0; i < 3000; i++) {
    const make = random.chance(0.5) ? v4 : v6
    const source = make()
    const destination = random.chance(0.1) ? source : make()
    const sourcePort = random.pick([0, 1, 32768, 65535, random.below(65536)])
    const destinationPort = random.chance(0.1) ? sourcePort : random.below(65536)
    const kind = random.pick(['tcp', 'udp'] as const)
    const there = parseFrame({ frame: buildFrame({ source, destination, [kind]: { sourcePort, destinationPort } }) })
    const back = parseFrame({ frame: buildFrame({ source: destination, destination: source,
      [kind]: { sourcePort: destinationPort, destinationPort: sourcePort } }) })
    assert.deepEqual([back.key, back.hash], [there.key, there.hash])
    assert.deepEqual([there.sourcePort, there.destinationPort], [sourcePort, destinationPort])
    const palindrome = source === destination && sourcePort === destinationPort
    assert.equal((there.meta & Meta.fromB) === (back.meta & Meta.fromB), palindrome)
    const words = there.key.split(',').map(Number)
    const [a, b] = there.version === 4 ? [words.slice(3, 4), words.slice(4)] : [words.slice(3, 7), words.slice(7)]
    const order = (list: number[], port: number): string => [...list, port].map((w) =>
      (w >>> 0).toString(16).padStart(8, '0')).join()
    assert.ok(order(a, words[1] >>> 16) <= order(b, words[1] & 0xffff), 'the smaller endpoint is a')
  }
})

/** Whatever the parser says of a frame must lie in it. */
function assertInside(p: Parsed, length: number, label: string): void {
  assert.ok(p.kind !== undefined, label)
  if (reasons.includes(p.kind)) return
  assert.ok(p.network >= 0 && p.network <= length, label)
  assert.ok(p.payload >= p.network && p.payloadLength >= 0 && p.payload + p.payloadLength <= length, label)
  if (p.kind === 'pass') return
  assert.ok(p.network + (p.version === 6 ? 40 : 20) <= length, label)
  if (p.transport < 0) return
  const protocol = p.meta & 255
  const header = protocol === 6 ? 20 : protocol === 17 || protocol === (p.version === 6 ? 58 : 1) ? 8 : 0
  assert.ok(p.transport >= p.network + (p.version === 6 ? 40 : 20) && p.transport + header <= p.payload, label)
}

const comparable = (p: Parsed): unknown => (reasons.includes(p.kind) ? p.kind
  : p.kind === 'pass' ? [p.kind, p.network, p.transport, p.payload, p.payloadLength, p.meta]
    : { ...p, sequence: (p.meta & 255) === 6 || p.kind === 'laterFragment' ? p.sequence : 0,
      key: p.kind === 'laterFragment' ? '' : p.key, hash: p.kind === 'laterFragment' ? 0 : p.hash,
      ...p.kind === 'laterFragment' ? { source: '', destination: '', sourcePort: 0, destinationPort: 0 } : {} })

function parseTwice(packet: TestPacket, label: string): Parsed {
  const first = parseFrame(packet, 11)
  const second = parseFrame(packet, 12)
  assert.deepEqual(comparable(second), comparable(first), `${label}: depends on what is around it`)
  assertInside(first, packet.frame.length, label)
  return first
}

test('every length of every packet: nothing is read outside, headers are whole or the packet is dropped', () => {
  const quote = buildPacket({ ipOptions: new Uint8Array(8).fill(1), tcp })
  const frames: [string, Uint8Array][] = [
    ...Object.entries(whole).flatMap(([name, options]) => Object.entries(links).map(([link, l]) =>
      [`${link} ${name}`, buildFrame({ ...l, ...options })] as [string, Uint8Array])),
    ...buildFragments({ udp: { ...udp, payload: 'x'.repeat(100) } }, 64).map((f, i) => [`fragment ${i}`,
      f] as [string, Uint8Array]),
    ...buildFragments({ ...six, extensions: [{ type: 0 }], innerExtensions: [{ type: 60 }],
      tcp: { ...tcp, payload: 'x'.repeat(100) } }, 64)
      .map((f, i) => [`ipv6 fragment ${i}`, f] as [string, Uint8Array]),
    ['error', buildFrame({ icmp: { type: 3, quote } })],
    ['ipv6 error', buildFrame({ ...six, icmp: { type: 1, quote: buildPacket({ ...six,
      extensions: [{ type: 0 }, { type: 51 }], udp }) } })],
  ]
  for (const [name, frame] of frames) {
    const all = parseFrame({ frame })
    for (let length = 0; length < frame.length; length++) {
      const label = `${name} cut to ${length} of ${frame.length}`
      const cut = frame.subarray(0, length)
      // The frame was as short on the wire: something that is announced is not there.
      const short = parseTwice({ frame: cut }, label)
      assert.ok(reasons.includes(short.kind), `${label}: ${short.kind}`)
      // The capture kept only so much: good as far as the headers reach.
      const kept = parseTwice({ frame: cut, wireLength: frame.length }, label)
      if (!reasons.includes(kept.kind)) {
        assert.ok(kept.meta & Meta.cut, label)
        assert.ok(length >= all.payload || all.kind === 'related' || kept.protocol !== 6, label)
      } else if (all.kind !== 'related' && !name.includes('fragment')) {
        assert.ok(length < all.payload, `${label}: ${kept.kind}`)
      }
    }
  }
})

test('damaged packets: whatever the parser says lies in the frame, and depends on nothing else', () => {
  const random = new Random(6)
  const packets = syntheticTraces(6).flatMap((trace) => trace.packets)
  for (let i = 0; i < 15_000; i++) parseTwice(mutatePacket(random.pick(packets), random), `round ${i}`)
})

/** A frame with some bytes behind layer 3's start changed. */
function patched(options: FrameOptions, patches: Record<number, number>): Uint8Array {
  const frame = buildFrame(options)
  for (const [at, byte] of Object.entries(patches)) frame[14 + Number(at)] = byte
  return frame
}

test('malformed packets have a reason', () => {
  const cases: [string, Uint8Array][] = [
    ['malformed-ipv4', patched({ tcp }, { 0: 0x44 })], ['malformed-ipv4', patched({ tcp }, { 0: 0x65 })],
    ['malformed-ipv4', patched({ tcp }, { 0: 0x4f }).subarray(0, 60)], ['malformed-ipv4', patched({ udp }, { 2: 0xff })],
    ['malformed-ipv4', patched({ udp }, { 2: 0, 3: 19 })],
    ['malformed-ipv6', patched({ ...six, tcp }, { 0: 0x40 })], ['malformed-ipv6', patched({ ...six, tcp }, { 4: 0xff })],
    ['malformed-ipv6', patched({ ...six, extensions: [{ type: 0 }], tcp }, { 41: 200 })],
    ['malformed-ipv6', buildFrame({ ...six, extensions: new Array(18).fill({ type: 60 }), udp })],
    ['malformed-tcp', patched({ tcp }, { 32: 0x40 })], ['malformed-tcp', patched({ tcp }, { 32: 0xf0 })],
    ['malformed-tcp', buildFrame({ protocol: 6, payload: new Uint8Array(19) })],
    ['malformed-tcp', patched({ ...six, tcp }, { 52: 0x00 })], ['malformed-tcp',
      buildFrame({ ...six, protocol: 6, payload: new Uint8Array(19) })],
    ['malformed-udp', buildFrame({ protocol: 17, payload: new Uint8Array(7) })],
    ['malformed-udp', patched({ udp }, { 24: 0, 25: 7 })],
    ['malformed-udp', patched({ udp }, { 24: 0, 25: 17 })], ['malformed-udp', patched({ ...six, udp }, { 44: 1 })],
    ['malformed-icmp', buildFrame({ protocol: 1, payload: new Uint8Array(7) })],
    ['malformed-icmp', buildFrame({ ...six, protocol: 58, payload: new Uint8Array(7) })],
    ['own-ethertype', buildFrame({ etherType: 0x88b5, tcp })], ['own-ethertype',
      buildFrame({ vlans: [1], etherType: 0x88b5, tcp })],
    ['malformed-link', buildFrame({ vlans: [1, 2, 3, 4, 5, 6, 7, 8, 9], tcp })],
    // Fragments.
    ['malformed-fragment', buildFrame({ protocol: 17, payload: '', fragment: { offset: 8, more: false } })],
    ['malformed-fragment', buildFrame({ protocol: 17, payload: 'x'.repeat(9), fragment: { offset: 8, more: true } })],
    ['malformed-fragment', buildFrame({ protocol: 17, payload: 'x'.repeat(8), fragment: { offset: 65528, more: false } })],
    ['malformed-fragment', buildFrame({ protocol: 6, payload: 'x'.repeat(16), fragment: { offset: 0, more: true } })],
    ['malformed-fragment', buildFrame({ protocol: 17, payload: '', fragment: { offset: 0, more: true } })],
    ['malformed-fragment', buildFrame({ ...six, protocol: 17, payload: '', fragment: { offset: 8, more: false } })],
    ['malformed-fragment', buildFrame({ ...six, protocol: 17, payload: 'x'.repeat(9), fragment: { offset: 8, more: true } })],
    ['malformed-fragment', buildFrame({ ...six, protocol: 6, payload: 'x'.repeat(16), fragment: { offset: 0, more: true } })],
    ['malformed-fragment', buildFrame({ ...six, protocol: 0, payload: new Uint8Array([17, 9, 0, 0, 0, 0, 0, 0]),
      fragment: { offset: 0, more: true } })],
    ['malformed-fragment', buildFrame({ ...six, protocol: 44, payload: new Uint8Array(16),
      fragment: { offset: 0, more: true } })],
  ]
  for (const [reason, frame] of cases) assert.equal(parseTwice({ frame }, reason).kind, reason,
    Buffer.from(frame).toString('hex'))
  assert.equal(reasons.length, ENGINE_DROP_REASONS)
  for (let reason = 0; reason < reasons.length; reason++) assert.equal(dropReasonOf(dropResult(reason)), reason)
})

test('what is not IP passes, whole', () => {
  for (const etherType of [0x0806, 0x88cc, 0x8863, 0x86dc, 0, 46]) {
    const frame = buildFrame({ etherType, tcp })
    const p = parseTwice({ frame }, `${etherType}`)
    assert.equal(p.kind, 'pass')
    assert.equal(p.meta, 0)
  }
  const lcp = buildFrame({ pppoe: 5, tcp })
  lcp[20] = 0xc0
  assert.equal(parseTwice({ frame: lcp }, 'ppp lcp').kind, 'pass')
  const version = buildFrame({ pppoe: 5, tcp })
  version[14] = 0x21
  assert.equal(parseTwice({ frame: version }, 'pppoe version').kind, 'pass')
})

test('a length of zero means the rest of the frame: segments that a card was to cut up', () => {
  for (const frame of [patched({ tcp }, { 2: 0, 3: 0 }), patched({ udp }, { 2: 0, 3: 0, 24: 0, 25: 0 }),
    patched({ ...six, tcp }, { 4: 0, 5: 0 }), patched({ ...six, udp }, { 4: 0, 5: 0, 44: 0, 45: 0 })]) {
    const p = parseTwice({ frame }, 'zero')
    assert.equal(p.kind, 'flow')
    assert.equal(p.payload + p.payloadLength, frame.length)
  }
  const large = buildFrame({ tcp: { ...tcp, payload: new Uint8Array(64000) } })
  assert.equal(parseTwice({ frame: large }, 'large').payloadLength, 64000)
})

test('UDP may be shorter than its IP packet', () => {
  const frame = patched({ udp: { ...udp, payload: 'x'.repeat(30) } }, { 24: 0, 25: 18 })
  const p = parseTwice({ frame }, 'udp')
  assert.deepEqual([p.kind, p.payloadLength], ['flow', 10])
})

test('every link type', () => {
  const v4 = buildPacket({ tcp })
  const v6 = buildPacket({ ...six, tcp })
  const join = (...parts: (readonly number[] | Uint8Array)[]): Uint8Array => Uint8Array.from(parts.flatMap((part) => [...part]))
  const sll = (type: number): number[] => [0, 0, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0, type >> 8, type & 255]
  const sll2 = (type: number): number[] => [type >> 8, type & 255, 0, 0, 0, 0, 0, 1, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0]
  const heads: [number, number[], number[]][] = [
    [12, [], []], [14, [], []], [101, [], []], [0, [2, 0, 0, 0], [30, 0, 0, 0]], [0, [0, 0, 0, 2], [0, 0, 0, 24]],
    [108, [0, 0, 0, 2], [0, 0, 0, 10]], [9, [0xff, 3, 0, 0x21], [0xff, 3, 0, 0x57]], [9, [0x21], [0x57]],
    [9, [0, 0x21], [0, 0x57]],
    [50, [0xff, 3, 0, 0x21], [0xff, 3, 0, 0x57]], [50, [0x0f, 0, 8, 0], [0x0f, 0, 0x86, 0xdd]],
    [113, sll(0x0800), sll(0x86dd)], [276, sll2(0x0800), sll2(0x86dd)],
    [113, [...sll(0x8100), 0, 5, 8, 0], [...sll(0x8100), 0, 5, 0x86, 0xdd]],
  ]
  for (const [linkType, four, sixHead] of heads) {
    for (const [head, packet] of [[four, v4], [sixHead, v6]] as const) {
      const frame = join(head, packet)
      const p = parseTwice({ frame, linkType }, `link type ${linkType}`)
      assert.equal(p.kind, 'flow', `link type ${linkType}`)
      assert.deepEqual([p.network, p.payloadLength, p.sourcePort], [head.length, 8, 40000])
      const plain = parseFrame({ frame: buildFrame({ ...(packet === v6 ? six : {}), tcp }) })
      if (p.vlan === 0) assert.deepEqual([p.key, p.hash], [plain.key, plain.hash])
      for (let length = 0; length < frame.length; length++) {
        const label = `link type ${linkType} cut to ${length}`
        assert.notEqual(parseTwice({ frame: frame.subarray(0, length), linkType }, label).kind, 'flow', label)
        parseTwice({ frame: frame.subarray(0, length), linkType, wireLength: frame.length }, label)
      }
    }
  }
  for (const [linkType, good, bad] of [[228, v4, v6], [229, v6, v4]] as const) {
    assert.equal(parseTwice({ frame: good, linkType }, `${linkType}`).kind, 'flow')
    assert.equal(parseTwice({ frame: bad, linkType }, `${linkType}`).kind, 'pass')
  }
  assert.equal(parseTwice({ frame: v4, linkType: 105 }, 'wi-fi').kind, 'pass')
})

test('first and later fragments', () => {
  for (const base of [{ identification: 77 }, { ...six, identification: 0x12345678, extensions: [{ type: 0 }] }]) {
    for (const carried of [{ udp: { ...udp, payload: 'x'.repeat(200) } }, { tcp: { ...tcp, payload: 'x'.repeat(200) } }]) {
      const options: FrameOptions = { ...base, ...carried }
      const frames = buildFragments(options, 64)
      const wholeKey = parseFrame({ frame: buildFrame(options) })
      frames.forEach((frame, index) => {
        const p = parseTwice({ frame }, `fragment ${index}`)
        assert.ok(p.meta & Meta.fragment)
        if (index === 0) {
          assert.equal(p.kind, 'firstFragment')
          assert.deepEqual([p.key, p.hash], [wholeKey.key, wholeKey.hash])
          assert.equal(p.payloadLength, 64 - (carried.tcp ? 20 : 8))
        } else {
          assert.equal(p.kind, 'laterFragment')
          assert.ok(p.meta & Meta.laterFragment)
          assert.deepEqual([p.transport, p.sequence, p.protocol, p.flags], [-1, index * 64, layersOf(frame).protocol, 0])
          assert.equal(p.payloadLength, Math.min(64, 200 + (carried.tcp ? 20 : 8) - index * 64))
        }
      })
    }
  }
})

test('ICMP errors have the key of what they quote, and the opposite direction', () => {
  const sources: FrameOptions[] = [{ tcp }, { udp }, { icmp: { rest: 0x00070001 } }, { protocol: 50, payload: 'x' },
    { ipOptions: new Uint8Array(12), tcp },
    { fragment: { offset: 0, more: true }, udp: { ...udp, payload: 'x'.repeat(8) } }]
  for (const isIpv6 of [false, true]) {
    for (const original of sources) {
      const { ipOptions: _, ...rest } = original
      const options: FrameOptions = isIpv6 ? { ...rest, ...six, extensions: [{ type: 60 }] } : original
      const quoted = parseFrame({ frame: buildFrame(options) })
      const types = isIpv6 ? [1, 2, 3, 4, 100, 127] : [3, 4, 5, 11, 12]
      for (const type of types) {
        for (const vlans of [[], [9]]) {
          const error = parseTwice({ frame: buildFrame({ ...(isIpv6 ? six : {}),
            source: isIpv6 ? 'fe80::1' : '192.168.0.1', vlans,
            destination: isIpv6 ? six.source : '10.0.0.1', icmp: { type, quote: buildPacket(options) } }) }, `type ${type}`)
          assert.equal(error.kind, 'related')
          if (vlans.length === 0) assert.deepEqual([error.key, error.hash], [quoted.key, quoted.hash])
          assert.notEqual(error.meta & Meta.fromB, quoted.meta & Meta.fromB)
          assert.equal(error.meta & 255, isIpv6 ? 58 : 1)
          assert.ok(error.meta & Meta.related)
          assert.equal(error.flags, 0)
          assert.ok(error.transport > 0)
          // Without that flow: its own addresses.
          useOwnKey(d)
          const own = read()
          assert.equal(own.kind, 'flow')
          assert.deepEqual([own.source, own.destination, own.sourcePort, own.destinationPort, own.protocol, own.vlan],
            [isIpv6 ? 'fe80::1' : '192.168.0.1', isIpv6 ? '2001:db8::1' : '10.0.0.1', 0, 0, isIpv6 ? 58 : 1, vlans[0] ?? 0])
          assert.equal(own.hash, hashKey(d))
          assert.equal(own.meta & Meta.related, 0)
        }
      }
    }
  }
})

test('a quote that cannot be read makes the error a flow of its own', () => {
  const later = buildPacket({ udp, fragment: { offset: 800, more: false } })
  const quotes = [new Uint8Array(0), buildPacket({ tcp }).subarray(0, 23), later, buildPacket({ ...six, tcp }),
    new Uint8Array(40)]
  for (const quote of quotes) {
    const p = parseTwice({ frame: buildFrame({ icmp: { type: 3, quote } }) }, 'quote')
    assert.deepEqual([p.kind, p.protocol, p.sourcePort], ['flow', 1, 0])
  }
  for (const quote of [buildPacket({ tcp }), buildPacket({ ...six, fragment: { offset: 800, more: false }, udp }),
    buildPacket({ ...six, tcp }).subarray(0, 43)]) {
    assert.deepEqual(parseTwice({ frame: buildFrame({ ...six, icmp: { type: 1, quote } }) }, 'quote').kind, 'flow')
  }
  // Not an error.
  assert.equal(parseFrame({ frame: buildFrame({ icmp: { type: 8, quote: buildPacket({ tcp }) } }) }).kind, 'flow')
  assert.equal(parseFrame({ frame: buildFrame({ ...six, icmp: { type: 128,
    quote: buildPacket({ ...six, tcp }) } }) }).kind, 'flow')
})

test('the hash depends on the seed', () => {
  const other = createParser(arena, 100)
  const p = parseFrame({ frame: buildFrame({ tcp }) })
  assert.notEqual(other.hashKey(d), p.hash)
})
