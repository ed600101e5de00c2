/**
 * Synthetic traces: traffic of many kinds, made from a seed, for the contract suite and other tests that want variety rather
 * than a particular packet.
 *
 * A trace is the merger, by time, of parts that do not share a flow, so that running a part alone must give what it gives in
 * the midst of the others. All times are whole milliseconds: a flow that moves finds the same ticks where it arrives.
 */

import { Random } from '../base/random.ts'
import { buildFragments, buildFrame, buildPacket, type FrameOptions } from './packet-builder.ts'
import { TcpConversation, type TcpConversationOptions, type TimedFrame } from './tcp-conversation.ts'
import { TEST_START_US, type TestPacket } from './test-runtime.ts'

export interface SyntheticTrace {
  readonly name: string
  /** Everything in the order of arrival. */
  readonly packets: readonly TestPacket[]
  /** The same by part; parts share no flow. */
  readonly parts: readonly (readonly TestPacket[])[]
}

/** Lists of packets merged by time; packets of the same time stay in the order of the lists. */
export function mergeByTime(parts: readonly (readonly TestPacket[])[]): TestPacket[] {
  return parts.flat().sort((x, y) => (x.time ?? 0) - (y.time ?? 0))
}

/** One trace of each kind. The same seed gives the same traces. */
export function syntheticTraces(seed: number): SyntheticTrace[] {
  const random = new Random(seed)
  const make = (name: string, count: number, part: (random: Random, index: number) => TestPacket[]): SyntheticTrace => {
    const parts = Array.from({ length: count }, (_, index) => mergeByTime([part(random, index)]))
    return { name, packets: mergeByTime(parts), parts }
  }
  return [
    make('web', 5, (r, i) => webConversation(r, addresses(r, i)).packets),
    make('disordered', 5, (r, i) => disorder(r, webConversation(r, addresses(r, i)).packets)),
    make('overlapping', 3, overlapping),
    make('datagrams', 5, datagrams),
    make('fragments', 4, fragments),
    make('ipv6', 3, ipv6),
    make('encapsulated', 6, encapsulated),
    make('beginnings and ends', 8, beginningsAndEnds),
    make('opaque payload', 3, opaque),
  ]
}

/** Its own client address for each part, and times that interleave with the others'. */
function addresses(random: Random, index: number): TcpConversationOptions {
  return {
    client: `10.1.${random.below(256)}.${index + 1}`, server: `192.0.2.${random.between(1, 250)}`,
    clientPort: random.between(1024, 65535), serverPort: random.pick([80, 80, 8080, 443, 22]),
    clientSequence: random.int32() >>> 0, serverSequence: random.int32() >>> 0,
    startUs: TEST_START_US + random.below(40) * 1000, stepUs: random.between(1, 20) * 1000,
    segmentBytes: random.pick([13, 90, 300, 536, 1460]), acknowledge: random.chance(0.7),
  }
}

function letters(random: Random, length: number): string {
  let text = ''
  for (let i = 0; i < length; i++) text += String.fromCharCode(97 + random.below(26))
  return text
}

/** An HTTP message with a body. Its length is told, it is chunked, or there is none. */
export function httpMessage(random: Random, first: string, bodyBytes: number): string {
  const head = `${first}\r\nHost: ${letters(random, 8)}.example\r\nX-Fill: ${letters(random, random.below(60))}\r\n`
  if (bodyBytes === 0) return `${head}Content-Length: 0\r\n\r\n`
  const body = letters(random, bodyBytes)
  if (random.chance(0.5)) return `${head}Content-Length: ${bodyBytes}\r\n\r\n${body}`
  const cut = random.below(bodyBytes)
  const chunk = (text: string): string => (text === '' ? '' : `${text.length.toString(16)}\r\n${text}\r\n`)
  return `${head}Transfer-Encoding: chunked\r\n\r\n${chunk(body.slice(0, cut))}${chunk(body.slice(cut))}0\r\n\r\n`
}

function webConversation(random: Random, options: TcpConversationOptions): TcpConversation {
  const conversation = new TcpConversation(options).open()
  for (let round = random.between(1, 2); round > 0; round--) {
    const pipelined = random.between(1, 3)
    let requests = ''
    let responses = ''
    for (let i = 0; i < pipelined; i++) {
      requests += httpMessage(random, `${random.pick(['GET', 'POST', 'PUT'])} /${letters(random, 5)} HTTP/1.1`,
        random.pick([0, 0, 30, 700]))
      responses += httpMessage(random, `HTTP/1.1 ${random.pick(['200 OK', '404 Not Found'])}`, random.pick([0, 100, 1600]))
    }
    conversation.client(requests).server(responses)
  }
  return random.chance(0.8) ? conversation.close(random.pick(['client', 'server'])) : conversation.reset()
}

/** Moves, doubles and loses packets; the times stay in order. */
export function disorder(random: Random, packets: readonly TimedFrame[]): TimedFrame[] {
  const frames: Uint8Array[] = []
  const late: { frame: Uint8Array; after: number }[] = []
  const put = (frame: Uint8Array): void => {
    frames.push(frame)
    for (let i = 0; i < late.length; i++) if (--late[i].after <= 0) frames.push(...late.splice(i--, 1).map((l) => l.frame))
  }
  for (const { frame } of packets) {
    const what = random.fraction()
    if (what < 0.05) continue
    if (what < 0.25) late.push({ frame, after: random.between(1, 5) })
    else put(frame)
    if (what > 0.9) late.push({ frame, after: random.between(1, 8) })
  }
  frames.push(...late.map((l) => l.frame))
  const start = packets[0].time
  const step = packets.length > 1 ? packets[1].time - start : 1000
  return frames.map((frame, index) => ({ frame, time: start + index * step }))
}

/** Segments that repeat, extend and contradict each other. */
function overlapping(random: Random, index: number): TestPacket[] {
  const conversation = new TcpConversation({ ...addresses(random, index), acknowledge: false }).open()
  const stream = httpMessage(random, 'POST /overlap HTTP/1.1', 400)
  const other = letters(random, stream.length)
  for (let i = 0; i < 40; i++) {
    const from = random.below(stream.length)
    const length = random.between(1, 120)
    conversation.resend('client', from, (random.chance(0.8) ? stream : other).slice(from, from + length))
  }
  for (let at = 0; at < stream.length; at += 50) conversation.resend('client', at, stream.slice(at, at + 60))
  return conversation.segment('server', 'A').packets
}

function datagrams(random: Random, index: number): TestPacket[] {
  const source = `10.2.0.${index + 1}`
  const destination = `198.51.100.${random.between(1, 250)}`
  const ports = { sourcePort: random.between(1024, 65535), destinationPort: random.pick([53, 123, 4433]) }
  const packets: TestPacket[] = []
  let time = TEST_START_US + random.below(50) * 1000
  const add = (frame: Uint8Array): void => {
    packets.push({ frame, time })
    time += random.between(1, 400) * 1000
  }
  for (let i = 0; i < 12; i++) {
    const payload = random.fill(new Uint8Array(random.below(200)))
    const there: FrameOptions = { source, destination, identification: random.below(65536),
      udp: { ...ports, payload, checksum: random.chance(0.8) } }
    switch (random.below(6)) {
      case 0: case 1: add(buildFrame(there)); break
      case 2: add(buildFrame({ source: destination, destination: source,
        udp: { sourcePort: ports.destinationPort, destinationPort: ports.sourcePort, payload } })); break
      case 3: add(buildFrame({ source, destination, icmp: { type: random.pick([8, 0]), rest: (index << 16) | i,
        payload } })); break
      case 4: add(buildFrame({ source: random.pick([destination, '203.0.113.1']), destination: source,
        icmp: { type: random.pick([3, 11]), code: random.below(4), quote: buildPacket(there).subarray(0,
          28 + random.below(20)) } }))
        break
      default: add(buildFrame({ source, destination, protocol: random.pick([47, 50, 132, 253]), payload }))
    }
    // Long enough for ICMP flows to expire, now and then.
    if (random.chance(0.1)) time += 70e6
  }
  return packets
}

function fragments(random: Random, index: number): TestPacket[] {
  const isIpv6 = index % 2 === 1
  const source = isIpv6 ? `2001:db8:3::${index + 1}` : `10.3.0.${index + 1}`
  const destination = isIpv6 ? '2001:db8:ffff::9' : '192.0.2.9'
  const packets: TestPacket[] = []
  let time = TEST_START_US + random.below(50) * 1000
  for (let i = 0; i < 8; i++) {
    const payload = random.fill(new Uint8Array(random.between(60, 1200)))
    const ports = { sourcePort: 5000 + random.below(3), destinationPort: 9999 }
    const carried: FrameOptions = random.chance(0.5) ? { udp: { ...ports, payload } }
      : { tcp: { ...ports, sequence: i * 5000, flags: 'PA', payload } }
    const frames = buildFragments({ source, destination, identification: index * 1000 + i, ...carried },
      random.between(3, 60) * 8)
    if (random.chance(0.5)) random.shuffle(frames)
    if (random.chance(0.1)) frames.pop()
    // Between the fragments, packets of the same flows.
    for (const frame of frames) {
      packets.push({ frame, time })
      if (random.chance(0.2)) packets.push({ frame: buildFrame({ source, destination, udp: { ...ports, payload: 'x' } }), time })
      time += random.below(30) * 1000
    }
    if (random.chance(0.1)) time += 61e6
  }
  return packets
}

function ipv6(random: Random, index: number): TestPacket[] {
  const client = `2001:db8::${(index + 1).toString(16)}`
  const server = '2001:db8:1::80'
  const extensions = [[], [{ type: 0 }], [{ type: 60 }, { type: 43, body: new Uint8Array(14) }]][index % 3]
  const conversation = webConversation(random, { ...addresses(random, index), client, server, frame: { extensions } })
  const packets: TestPacket[] = [...conversation.packets]
  const time = conversation.timeUs
  const echo = (type: number, from: string, to: string): Uint8Array =>
    buildFrame({ source: from, destination: to, icmp: { type, rest: index << 16, payload: 'echo' } })
  packets.push({ frame: echo(128, client, server), time }, { frame: echo(129, server, client), time: time + 5000 })
  const datagram: FrameOptions = { source: client, destination: server, udp: { sourcePort: 4000, destinationPort: 53 } }
  packets.push({ frame: buildFrame(datagram), time: time + 6000 })
  packets.push({ frame: buildFrame({ source: server, destination: client,
    icmp: { type: 1, code: 4, quote: buildPacket(datagram) } }), time: time + 7000 })
  return packets
}

function encapsulated(random: Random, index: number): TestPacket[] {
  const frame: FrameOptions = [
    { vlans: [100 + index] }, { vlans: [100 + index, 7] }, { pppoe: 500 + index }, { vlans: [9], pppoe: 600 + index },
    { ipOptions: Uint8Array.of(7, 7, 4, 0, 0, 0, 0) }, { trailer: new Uint8Array(6) },
  ][index % 6]
  // The same addresses and ports for all: only what is around them tells the flows apart.
  return webConversation(random, {
    ...addresses(random, index), client: index === 4 ? '10.4.0.2' : index === 5 ? '10.4.0.3' : '10.4.0.1', server: '192.0.2.4',
    clientPort: 4444, serverPort: 80, frame,
  }).packets
}

function beginningsAndEnds(random: Random, index: number): TestPacket[] {
  const options = addresses(random, index)
  const conversation = webConversation(random, options)
  const { packets } = conversation
  switch (index) {
    // The beginning was not seen.
    case 0: return packets.slice(3)
    case 1: return packets.slice(random.between(4, 8))
    // Only one direction is seen.
    case 2: return packets.filter((_, i) => i % 2 === 0)
    // Again on the same ports, within the time-wait and after it.
    case 3: case 4: {
      const again = webConversation(random, { ...options, startUs: conversation.timeUs + (index === 3 ? 5e6 : 200e6) })
      return [...packets, ...again.packets]
    }
    // Nobody answers, twice, minutes apart.
    case 5: return [packets[0], { frame: packets[0].frame, time: packets[0].time + 3e6 },
      { frame: packets[0].frame, time: packets[0].time + 400e6 }]
    // Packets after the end.
    case 6: return [...packets, ...packets.slice(-4).map(({ frame, time }) => ({ frame, time: time + 7000 }))]
    // Hours of silence in the midst.
    default: return packets.map(({ frame, time }, i) => ({ frame, time: i > packets.length / 2 ? time + 8000e6 : time }))
  }
}

function opaque(random: Random, index: number): TestPacket[] {
  const conversation = new TcpConversation(addresses(random, index)).open()
  for (let i = 0; i < 8; i++) {
    const bytes = random.fill(new Uint8Array(random.between(1, 900)))
    if (random.chance(0.5)) conversation.client(bytes)
    else conversation.server(bytes)
  }
  conversation.client(`GET / HTTP/9.9\r\n: \r\n${'\u00ff'.repeat(50)}\r\n\r\n`).server('HTTP/1.1 \u0000\r\n\r\nrest')
  return conversation.close().packets
}
