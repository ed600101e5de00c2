import { test } from 'node:test'
import assert from 'node:assert/strict'
import { Random } from '../../base/random.ts'
import { buildFrame, checksumFault, type FrameOptions } from '../../testing/packet-builder.ts'
import { createMemoryPorts, type MemoryPort } from '../../transport/memory-port.ts'
import { hex, TestPortEnd } from '../test-port-end.ts'
import { WrapperPort } from '../wrapper-port.ts'
import { NEIGHBOURS_MAX, Neighbours, UNKNOWN_MAX, WAITING_ALL_MAX, WAITING_MAX } from './neighbours.ts'
import { readRouterConfig, type RouterText } from './router-config.ts'
import { RouterPort } from './router-port.ts'

const MAC = '02:00:00:00:00:01'
const HOST = '02:00:00:00:00:99'
const OTHER = '02:00:00:00:00:77'
const TEXT: RouterText = {
  addresses: ['10.1.0.1/24', '2001:db8:1::1/64'],
  routes: { '0.0.0.0/0': '10.1.0.254', '10.9.0.0/16': '10.1.0.7', '::/0': '2001:db8:1::fe' },
  mac: MAC,
}

/** A router port, and a host's end of the Ethernet that it leads to. */
class Bed {
  now = 1e12
  readonly end: TestPortEnd<RouterPort<WrapperPort>>
  readonly #host: MemoryPort

  constructor(text: RouterText = TEXT) {
    const read = readRouterConfig(text)
    assert.ok('config' in read)
    let host: MemoryPort | undefined
    this.end = new TestPortEnd((arena) => {
      const [near, far] = createMemoryPorts(arena, { frames: 64, reserved: 8, frameBytes: 2000 })
      host = far
      return new RouterPort({ arena, inner: new WrapperPort(near), config: read.config, clock: { now: () => this.now } })
    })
    this.#host = host as unknown as MemoryPort
  }

  /** The host sends. Returns what gets to the switch. */
  comes(...frames: (Uint8Array | FrameOptions)[]): Uint8Array[] {
    return frames.flatMap((frame) => {
      assert.ok(this.#host.send(this.end.frame, this.end.put(frame instanceof Uint8Array ? frame : buildFrame(frame))))
      return this.end.receive()
    })
  }

  /** The switch sends. */
  leaves(frame: Uint8Array | FrameOptions): void {
    assert.ok(this.end.port.send(this.end.frame, this.end.put(frame instanceof Uint8Array ? frame : buildFrame(frame))))
  }

  /** What the host gets. */
  heard(): Uint8Array[] {
    const { arena, pool, descriptors } = this.end
    return TestPortEnd.prototype.receive.call({ arena, pool, descriptors, port: this.#host } as never)
  }

  after(seconds: number): void {
    this.now += seconds * 1e6
    this.end.port.maintain(this.now)
  }
}

const bytesOf = (mac: string): Uint8Array => hex(mac.replaceAll(':', ''))
const macs = (frame: Uint8Array): [string, string] => {
  const text = (at: number): string => Buffer.from(frame.subarray(at, at + 6)).toString('hex').replaceAll(/(?<=.)(?=(?:..)+$)/g, ':')
  return [text(0), text(6)]
}
const address = (text: string): Uint8Array => Uint8Array.from(text.split('.').map(Number))
function arp(operation: 1 | 2, from: string, fromIp: string, to: string, toIp: string): Uint8Array {
  return Uint8Array.of(...bytesOf(operation === 1 ? 'ff:ff:ff:ff:ff:ff' : to), ...bytesOf(from), 8, 6, 0, 1, 8, 0, 6, 4, 0, operation,
    ...bytesOf(from), ...address(fromIp), ...bytesOf(to), ...address(toIp), ...new Uint8Array(18))
}
const udp = (destination: string, rest: Partial<FrameOptions> = {}): FrameOptions => ({
  source: destination.includes(':') ? '2001:db8:5::5' : '10.0.0.1', destination, destinationMac: MAC, sourceMac: HOST,
  udp: { payload: 'x' }, ...rest,
})

test('packets to others go on with a hop less; what is not for us does not', () => {
  const bed = new Bed()
  const frame = buildFrame(udp('10.5.0.1', { ttl: 64 }))
  const [came] = bed.comes(frame)
  assert.deepEqual(came, buildFrame(udp('10.5.0.1', { ttl: 63 })))
  for (const ttl of [2, 0x80, 255]) {
    const [one] = bed.comes(udp('10.5.0.1', { ttl }))
    assert.equal(checksumFault(one), '', `${ttl}`)
  }
  assert.deepEqual(bed.comes(udp('2001:db8:9::1', { ttl: 9 })), [buildFrame(udp('2001:db8:9::1', { ttl: 8 }))])
  const [away4, away6] = ['10.5.0.1', '2001:db8:9::1'].map((destination) => udp(destination, { destinationMac: OTHER }))
  const near = ['224.0.0.5', '127.0.0.1', 'fe80::1', '10.1.0.1'].map((destination) => udp(destination))
  const lldp = hex(`${'ff'.repeat(6)}02000000009988cc0011`)
  assert.deepEqual(bed.comes(away4, away6, ...near, udp('10.5.0.1', { vlans: [7] }), lldp), [])
  assert.deepEqual(bed.comes(hex('0200000000010200000000'), buildFrame(udp('10.5.0.1')).subarray(0, 30)), [])
  assert.deepEqual(bed.end.port.counts,
    { in: 5, out: 0, answered: 0, asked: 0, heard: 0, notForUs: 8, malformed: 2, noRoute: 0, unreachable: 0 })
  assert.equal(bed.end.pool.used, 0)
})

test('ARP: who asks for our address is answered, and known from then on', () => {
  const bed = new Bed()
  assert.deepEqual(bed.comes(arp(1, HOST, '10.1.0.9', '00:00:00:00:00:00', '10.1.0.1')), [])
  assert.deepEqual(bed.heard(), [arp(2, MAC, '10.1.0.1', HOST, '10.1.0.9')])
  bed.leaves(udp('10.1.0.9', { sourceMac: OTHER }))
  assert.deepEqual(bed.heard(), [buildFrame(udp('10.1.0.9', { destinationMac: HOST, sourceMac: MAC }))])
  // Whoever asks for others, or is of another network, is none of our neighbours.
  bed.comes(arp(1, OTHER, '10.1.0.8', '00:00:00:00:00:00', '10.1.0.2'), arp(1, OTHER, '10.2.0.8', '00:00:00:00:00:00', '10.1.0.1'))
  assert.equal(bed.end.port.neighbours, 1)
  // One who has moved tells everybody.
  bed.comes(arp(1, OTHER, '10.1.0.9', '00:00:00:00:00:00', '10.1.0.9'))
  bed.leaves(udp('10.1.0.9'))
  assert.deepEqual(bed.heard().map(macs), [[OTHER, MAC]])
})

test('the longest prefix says where packets go; they wait until the next hop is known', () => {
  const bed = new Bed()
  for (const destination of ['10.9.3.3', '8.8.8.8', '10.1.0.20', '9.9.9.9']) bed.leaves(udp(destination))
  const asked = bed.heard()
  assert.deepEqual(asked, ['10.1.0.7', '10.1.0.254', '10.1.0.20'].map((ip) => arp(1, MAC, '10.1.0.1', '00:00:00:00:00:00', ip)))
  bed.comes(arp(2, HOST, '10.1.0.254', MAC, '10.1.0.1'))
  assert.deepEqual(bed.heard(), ['8.8.8.8', '9.9.9.9'].map((ip) => buildFrame(udp(ip, { destinationMac: HOST, sourceMac: MAC }))))
  bed.comes(arp(2, OTHER, '10.1.0.7', MAC, '10.1.0.1'))
  assert.deepEqual(bed.heard().map(macs), [[OTHER, MAC]])
  // The third one never answers.
  for (let i = 0; i < 4; i++) bed.after(1.1)
  assert.equal(bed.heard().length, 2)
  const { unreachable, out, asked: questions } = bed.end.port.counts
  assert.deepEqual([unreachable, out, questions], [1, 3, 5])
  const noWay = new Bed({ addresses: ['10.1.0.1/24'], routes: {} })
  noWay.leaves(udp('8.8.8.8'))
  noWay.leaves(udp('2001:db8::1'))
  noWay.leaves(udp('10.1.0.1'))
  noWay.leaves(arp(1, HOST, '10.1.0.9', '00:00:00:00:00:00', '10.1.0.1'))
  assert.deepEqual([noWay.end.port.counts.noRoute, noWay.end.port.counts.notForUs, noWay.heard()], [2, 2, []])
})

test('what waits is bounded; a neighbour in use is asked again, itself first, and used meanwhile', () => {
  const bed = new Bed()
  for (let i = 0; i < WAITING_MAX + 3; i++) bed.leaves(udp('10.1.0.20', { udp: { payload: `${i}` } }))
  assert.equal(bed.end.port.counts.unreachable, 3)
  assert.equal(bed.heard().length, 1)
  bed.comes(arp(2, HOST, '10.1.0.20', MAC, '10.1.0.1'))
  assert.deepEqual(bed.heard().map((frame) => String.fromCharCode(frame[42])), ['0', '1', '2', '3'])
  bed.leaves(udp('10.1.0.20'))
  bed.after(31)
  const [packet, question] = bed.heard()
  assert.deepEqual([macs(packet)[0], macs(question)[0]], [HOST, HOST])
  bed.leaves(udp('10.1.0.20'))
  assert.equal(bed.heard().length, 1)
  for (let i = 0; i < 4; i++) bed.after(1.1)
  assert.equal(bed.end.port.neighbours, 0)
  // One that nobody needs is forgotten without being asked.
  bed.heard()
  bed.comes(arp(1, HOST, '10.1.0.9', '00:00:00:00:00:00', '10.1.0.1'))
  bed.heard()
  bed.after(31)
  assert.deepEqual([bed.heard().length, bed.end.port.neighbours], [0, 1])
  bed.after(300)
  assert.equal(bed.end.port.neighbours, 0)
})

test('what waits for neighbours is bounded over all: more is unreachable, until some has left', () => {
  const bed = new Bed()
  const send = (host: number, packets = WAITING_MAX): void => { for (let i = 0; i < packets; i++) bed.leaves(udp(`10.1.0.${host}`)) }
  const hosts = WAITING_ALL_MAX / WAITING_MAX
  for (let host = 20; host < 20 + hosts; host++) send(host)
  assert.equal(bed.end.port.counts.unreachable, 0)
  send(200)
  assert.equal(bed.end.port.counts.unreachable, WAITING_MAX)
  while (bed.heard().length > 0);
  bed.comes(arp(2, HOST, '10.1.0.20', MAC, '10.1.0.1'))
  assert.equal(bed.heard().length, WAITING_MAX)
  send(200, WAITING_MAX + 1)
  assert.equal(bed.end.port.counts.unreachable, WAITING_MAX + 1)
})

test('a scan of the network fills no table, and pushes nobody out', () => {
  const bed = new Bed({ addresses: ['10.1.0.1/16'], routes: {}, mac: MAC })
  bed.comes(arp(1, HOST, '10.1.0.9', '00:00:00:00:00:00', '10.1.0.1'))
  for (let i = 0; i < 3000; i++) {
    bed.leaves(udp(`10.1.${(i >> 8) + 1}.${i & 255}`))
    if (i % 16 === 0) bed.heard()
  }
  assert.equal(bed.end.port.neighbours, UNKNOWN_MAX + 1)
  assert.equal(bed.end.port.counts.unreachable, 3000 - UNKNOWN_MAX)
  bed.heard()
  bed.leaves(udp('10.1.0.9'))
  assert.deepEqual(bed.heard().map(macs), [[HOST, MAC]])
  const many = new Neighbours()
  const words = (i: number): { version: 4, words: number[] } => ({ version: 4, words: [i * 7919] })
  for (let i = 1; i <= 2 * NEIGHBOURS_MAX; i++) {
    const one = many.get(words(i), 0)
    if (one !== null) many.heard(one, bytesOf(HOST), 0)
  }
  assert.equal(many.size, NEIGHBOURS_MAX)
  for (let i = 1; i <= NEIGHBOURS_MAX; i++) assert.deepEqual(many.find(4, i * 7919, 0, 0, 0)?.address.words, [i * 7919])
})

test('neighbour discovery: questions are answered, and asked', () => {
  const bed = new Bed()
  const question = new Bed({ addresses: ['2001:db8:1::9/64'], routes: {}, mac: HOST })
  question.leaves(udp('2001:db8:1::1', { source: '2001:db8:5::5' }))
  const [asked] = question.heard()
  assert.equal(checksumFault(asked), '')
  assert.equal(macs(asked)[0], '33:33:ff:00:00:01')
  assert.deepEqual(bed.comes(asked), [])
  const [answer] = bed.heard()
  assert.equal(checksumFault(answer), '')
  assert.deepEqual(macs(answer), [HOST, MAC])
  question.comes(answer)
  assert.deepEqual(question.heard().map(macs), [[MAC, HOST]])
  // Through the default route, by the neighbour that the question has made known.
  bed.leaves(udp('2001:db8:1::9'))
  assert.deepEqual(bed.heard().map(macs), [[HOST, MAC]])
  bed.leaves(udp('2a00::1'))
  assert.equal(macs(bed.heard()[0])[0], '33:33:ff:00:00:fe')
  // Damaged, from another link, or cut short: none of them counts.
  for (const change of [(f: Uint8Array) => { f[60] ^= 1 }, (f: Uint8Array) => { f[21] = 254 }, (f: Uint8Array) => { f[79] = 0 }]) {
    const bad = asked.slice()
    change(bad)
    bed.comes(bad)
  }
  assert.deepEqual([bed.heard(), bed.end.port.counts.malformed], [[], 3])
})

test('echo requests to us are answered; who has used up its hops is told', () => {
  const bed = new Bed()
  bed.comes(udp('10.1.0.1', { source: '10.1.0.9', udp: undefined, icmp: { type: 8, rest: 0x12340001, payload: 'ping' } }),
    udp('2001:db8:1::1', { source: '2001:db8:1::9', udp: undefined, icmp: { type: 128, rest: 0x12340001, payload: 'ping' } }))
  const replies = bed.heard()
  assert.deepEqual(replies.map((frame) => [checksumFault(frame), ...macs(frame), Buffer.from(frame).toString('latin1').slice(-4)]),
    [['', HOST, MAC, 'ping'], ['', HOST, MAC, 'ping']])
  assert.deepEqual([replies[0][34], replies[1][54]], [0, 129])
  assert.deepEqual(bed.comes(udp('10.5.0.1', { source: '10.1.0.9', ttl: 1 }), udp('2001:db8:9::1', { source: '2001:db8:1::9', ttl: 0 })), [])
  const told = bed.heard()
  assert.deepEqual(told.map((frame) => checksumFault(frame)), ['', ''])
  assert.deepEqual([told[0][34], told[1][54]], [11, 3])
  assert.deepEqual([...told[0].subarray(26, 34)], [10, 1, 0, 1, 10, 1, 0, 9])
  // No error about an error.
  bed.comes(udp('10.5.0.1', { source: '10.1.0.9', ttl: 1, udp: undefined, icmp: { type: 3, payload: 'x'.repeat(28) } }))
  assert.deepEqual(bed.heard(), [])
})

test('frames of any kind do no harm, and each is in one of the counts', () => {
  const random = new Random(4)
  const bed = new Bed()
  const good = [buildFrame(udp('10.5.0.1')), buildFrame(udp('2001:db8:9::1')), arp(1, HOST, '10.1.0.9', '00:00:00:00:00:00', '10.1.0.1'),
    buildFrame(udp('10.1.0.1', { udp: undefined, icmp: { type: 8, payload: 'abc' } })),
    buildFrame(udp('2001:db8:1::1', { udp: undefined, icmp: { type: 135, payload: new Uint8Array(24).fill(1) } })),
    arp(2, HOST, '10.1.0.254', MAC, '10.1.0.1')]
  let came = 0
  for (let i = 0; i < 4000; i++) {
    const frame = good[random.below(good.length)].slice(0, random.below(3) === 0 ? 1 + random.below(90) : undefined)
    for (let n = random.below(6); n > 0; n--) frame[random.below(frame.length)] = random.below(256)
    bed.comes(frame)
    came++
    const leaving = good[random.below(2)].slice(0, random.below(3) === 0 ? 14 + random.below(60) : undefined)
    for (let n = random.below(3); n > 0; n--) leaving[random.below(leaving.length)] = random.below(256)
    bed.leaves(leaving)
    bed.heard()
    if (i % 50 === 0) bed.after(random.below(3))
  }
  const { counts } = bed.end.port
  const inward = counts.in + counts.answered + counts.heard
  const { in: passed, answered, malformed, notForUs, out } = counts
  assert.ok(passed > 100 && answered > 10 && malformed > 100 && notForUs > 100 && out > 10, JSON.stringify(counts))
  assert.ok(inward <= came)
  for (let i = 0; i < 5; i++) bed.after(1.1)
  const all = inward + counts.notForUs + counts.malformed + counts.noRoute + counts.unreachable + counts.out
  assert.equal(all, came + 4000)
  assert.equal(bed.end.pool.used, 0)
})

test('mistakes in the configuration are told, each with its place', () => {
  const mistakes = (text: Partial<RouterText>): string[] => {
    const read = readRouterConfig({ addresses: ['10.1.0.1/24'], routes: {}, ...text })
    return 'mistakes' in read ? read.mistakes.map(({ path, message }) => `${path.join('.')}: ${message}`) : []
  }
  assert.deepEqual(mistakes({}), [])
  assert.match(mistakes({ addresses: ['10.1.0.1'] })[0], /^addresses\.0: "10\.1\.0\.1" is no address with the length of its network/)
  for (const wrong of ['10.1.0.1/33', '224.0.0.1/4', '::/64', 'ff02::1/16', '10.1.0.01/24', 'fd00::1/129', '']) {
    assert.equal(mistakes({ addresses: [wrong] }).length, 1, wrong)
  }
  const routes = {
    '10.2.0.0/33': '10.1.0.2', '10.2.0.1/24': '10.1.0.2', '10.3.0.0/16': 'x', '::/0': '10.1.0.2', '0.0.0.0/0': '10.2.0.1',
    '10.4.0.0/16': '10.1.0.1',
  }
  assert.deepEqual(mistakes({ routes }).map((one) => one.slice(0, 7)), Array(6).fill('routes.'))
})
