/**
 * The standard trace of the engine bench: frames made from a seed into a fixed pool of 4,096 slots (8 MiB), chunk by chunk, so
 * that every variant sees the same bytes in the same order. Making a chunk is never timed.
 *
 *     flows       TCP over IPv4, each with its own state (sequence numbers, place in its script): 60% HTTP on port 80, 0.5% to a
 *                 port that a rule drops, the rest other ports with opaque payload
 *     packets     half 60 B (pure acknowledgements), half 1,514 B (the next segment of the flow's script), both directions;
 *                 so 30% of all packets carry HTTP bytes
 *     HTTP        a POST of 1 to 8 segments, then a response of 1 to 8 segments, and again; heads of about 420 and 300 B
 *     SYN/FIN/RST about 1%: a connection ends by RST or by FIN on both sides, and a new one opens on the same ports
 *     choice      the flow of each packet is drawn uniformly, or by a Zipf law with exponent 1
 */

import { Random } from '../../src/base/random.ts'
import type { Arena } from '../../src/memory/arena.ts'

export const CHUNK_PACKETS = 4096
/** 33 cache lines, so that headers do not all fall into the same sets of the caches. */
export const SLOT_BYTES = 2112
const SMALL = 60
const SYN = 62
const LARGE = 1514
const SEGMENT = LARGE - 54

export interface TraceOptions {
  readonly flows: number
  readonly distribution: 'uniform' | 'zipf'
  readonly seed: number
}

/** The 50 rules that go with the trace: it is the last but one that drops. */
export function standardRules(): object[] {
  const rules: object[] = []
  for (let i = 0; i < 48; i++) {
    rules.push(i % 3 === 0
      ? { action: 'drop', source: `172.${16 + (i % 16)}.${i}.0/24`, protocol: 'tcp', destinationPort: 6000 + i }
      : i % 3 === 1
        ? { action: 'accept', destination: `198.18.${i}.0/24`, protocol: 'udp', destinationPort: `${1000 + i}-${2000 + i}` }
        : { action: 'drop', source: `203.0.113.${i}`, protocol: 'tcp' })
  }
  rules.push({ action: 'drop', protocol: 'tcp', destinationPort: 23 })
  rules.push({ action: 'accept', source: '10.0.0.0/8' })
  return rules
}

const requestHead = [
  'POST /upload/00000000 HTTP/1.1', 'Host: h0000.example.com', 'User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0)',
  'Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8', 'Accept-Language: en-US,en;q=0.5',
  'Accept-Encoding: gzip, deflate, br', 'Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; consent=yes',
  'Content-Type: application/octet-stream', 'Connection: keep-alive', 'Content-Length: 0000000', '', '',
].join('\r\n')
const responseHead = [
  'HTTP/1.1 200 OK', 'Date: Tue, 01 Jan 2030 00:00:00 GMT', 'Server: example/1.0', 'Last-Modified: Mon, 31 Dec 2029 00:00:00 GMT',
  'ETag: "0123456789abcdef"', 'Accept-Ranges: bytes', 'Cache-Control: max-age=3600', 'Content-Type: application/octet-stream',
  'Connection: keep-alive', 'Content-Length: 0000000', '', '',
].join('\r\n')

/** What a flow does next. */
const CLOSED = 0
const SYN_SENT = 1
const SYN_RECEIVED = 2
const IDLE = 3
/** 4 to 10: so many segments of a request left, plus 3; 12 to 18: of a response, plus 11. */
const REQUEST = 3
const RESPONSE = 11
const RESPONSE_START = 19
const FIN_SENT = 20

export class Trace {
  readonly options: TraceOptions
  /** Arena offset of slot 0; the frame of slot i starts 2 bytes behind `pool + i * 2112`. */
  readonly pool: number
  /** Word index of the frame lengths. */
  readonly lengths: number
  /** Packets made so far. */
  made = 0
  readonly #arena: Arena
  readonly #random: Random
  readonly #clientSequence: Int32Array
  readonly #serverSequence: Int32Array
  readonly #step: Uint8Array
  readonly #request: Uint8Array
  readonly #response: Uint8Array

  constructor(arena: Arena, options: TraceOptions) {
    this.options = options
    this.#arena = arena
    this.#random = new Random(options.seed)
    this.pool = arena.allocate('trace frames', CHUNK_PACKETS * SLOT_BYTES, 4096)
    this.lengths = arena.allocate('trace lengths', CHUNK_PACKETS * 4) >> 2
    this.#clientSequence = new Int32Array(options.flows)
    this.#serverSequence = new Int32Array(options.flows)
    this.#step = new Uint8Array(options.flows)
    this.#request = Uint8Array.from(requestHead, (c) => c.charCodeAt(0))
    this.#response = Uint8Array.from(responseHead, (c) => c.charCodeAt(0))
    for (let i = 0; i < CHUNK_PACKETS; i++) this.#template(this.frame(i))
  }

  frame(index: number): number {
    return this.pool + index * SLOT_BYTES + 2
  }

  #template(frame: number): void {
    const { u8, view } = this.#arena
    for (let i = 0; i < 12; i++) u8[frame + i] = 0x02
    view.setUint16(frame + 12, 0x0800)
    u8[frame + 14] = 0x45
    u8[frame + 22] = 64
    u8[frame + 23] = 6
    view.setUint16(frame + 20, 0x4000)
    u8.fill(0x78, frame + 54, frame + LARGE)
  }

  /** Opens every flow, in order: three packets each. Returns the flow to go on with. */
  openNext(from: number): number {
    let index = 0
    let flow = from
    while (flow < this.options.flows && index + 3 <= CHUNK_PACKETS) {
      for (let i = 0; i < 3; i++) this.#packet(index++, flow)
      flow++
    }
    this.made += index
    this.#count = index
    return flow
  }

  #count = 0

  /** Packets in the chunk at hand. */
  get count(): number {
    return this.#count
  }

  /** Makes the next chunk. */
  next(): void {
    this.#fill()
    this.made += CHUNK_PACKETS
    this.#count = CHUNK_PACKETS
  }

  /** PERF: a loop and nothing behind it: code entered in the middle of a loop has no feedback for what follows it. */
  #fill(): void {
    const { flows, distribution } = this.options
    const random = this.#random
    const log = Math.log(flows)
    for (let index = 0; index < CHUNK_PACKETS; index++) {
      let flow: number
      if (distribution === 'uniform') {
        flow = random.below(flows)
      } else {
        // The inverse of a continuous Zipf law with exponent 1; the multiplier spreads the popular flows.
        const rank = Math.min(flows - 1, Math.floor(Math.exp(random.fraction() * log)) - 1)
        flow = (rank * 7919) % flows
      }
      this.#packet(index, flow)
    }
  }

  #packet(index: number, flow: number): void {
    const random = this.#random
    const step = this.#step[flow]
    switch (step) {
      case CLOSED:
        this.#clientSequence[flow] = random.int32()
        this.#step[flow] = SYN_SENT
        this.#segment(index, flow, true, 0x02, SYN, 0)
        this.#clientSequence[flow]++
        return
      case SYN_SENT:
        this.#serverSequence[flow] = random.int32()
        this.#step[flow] = SYN_RECEIVED
        this.#segment(index, flow, false, 0x12, SYN, 0)
        this.#serverSequence[flow]++
        return
      case SYN_RECEIVED:
        this.#step[flow] = IDLE
        this.#segment(index, flow, true, 0x10, SMALL, 0)
        return
      case FIN_SENT:
        this.#step[flow] = CLOSED
        this.#segment(index, flow, false, 0x11, SMALL, 0)
        return
      default:
    }
    const draw = random.below(600)
    if (draw === 0) {
      this.#step[flow] = CLOSED
      this.#segment(index, flow, true, 0x14, SMALL, 0)
      return
    }
    if (draw === 1) {
      this.#step[flow] = FIN_SENT
      this.#segment(index, flow, true, 0x11, SMALL, 0)
      this.#clientSequence[flow]++
      return
    }
    if ((draw & 1) === 0) {
      this.#segment(index, flow, random.chance(0.5), 0x10, SMALL, 0)
      return
    }
    this.#data(index, flow, step)
  }

  /** The next full segment of the flow. */
  #data(index: number, flow: number, step: number): void {
    const random = this.#random
    const { u8, view } = this.#arena
    const payload = this.frame(index) + 54
    if (!this.isHttp(flow)) {
      this.#segment(index, flow, random.chance(0.5), 0x10, LARGE, SEGMENT)
      // As a TLS record begins; the slot may still hold the head of a message.
      view.setInt32(payload, 0x17030305)
      view.setInt32(payload + 4, flow)
      return
    }
    if (step === IDLE) {
      const segments = 1 + random.below(8)
      this.#segment(index, flow, true, 0x18, LARGE, SEGMENT)
      u8.set(this.#request, payload)
      this.#digits(payload + 13, 8, flow)
      this.#digits(payload + 39, 4, flow % 10000)
      this.#digits(payload + this.#request.length - 11, 7, segments * SEGMENT - this.#request.length)
      this.#step[flow] = segments === 1 ? RESPONSE_START : REQUEST + segments - 1
    } else if (step > REQUEST && step < RESPONSE) {
      this.#segment(index, flow, true, 0x10, LARGE, SEGMENT)
      this.#step[flow] = step === REQUEST + 1 ? RESPONSE_START : step - 1
    } else if (step === RESPONSE_START) {
      const segments = 1 + random.below(8)
      this.#segment(index, flow, false, 0x18, LARGE, SEGMENT)
      u8.set(this.#response, payload)
      this.#digits(payload + this.#response.length - 11, 7, segments * SEGMENT - this.#response.length)
      this.#step[flow] = segments === 1 ? IDLE : RESPONSE + segments - 1
    } else {
      this.#segment(index, flow, false, 0x10, LARGE, SEGMENT)
      this.#step[flow] = step === RESPONSE + 1 ? IDLE : step - 1
    }
  }

  isHttp(flow: number): boolean {
    return flow % 10 < 6
  }

  /** Every 200th flow goes to a port that a rule drops. */
  isDenied(flow: number): boolean {
    return flow % 200 === 7
  }

  #digits(at: number, count: number, value: number): void {
    const { u8 } = this.#arena
    for (let i = count - 1; i >= 0; i--) {
      u8[at + i] = 48 + (value % 10)
      value = Math.floor(value / 10)
    }
  }

  #segment(index: number, flow: number, fromClient: boolean, flags: number, length: number, payload: number): void {
    const { view, i32, u8 } = this.#arena
    const frame = this.frame(index)
    const client = 0x0a000000 + flow
    const server = 0x64400000 + (Math.imul(flow, 2654435761) >>> 12)
    const clientPort = 1024 + (flow % 60000)
    const serverPort = this.isDenied(flow) ? 23 : this.isHttp(flow) ? 80 : 8000 + (flow % 16)
    view.setUint16(frame + 16, length - 14)
    view.setInt32(frame + 26, fromClient ? client : server)
    view.setInt32(frame + 30, fromClient ? server : client)
    view.setUint16(frame + 34, fromClient ? clientPort : serverPort)
    view.setUint16(frame + 36, fromClient ? serverPort : clientPort)
    view.setInt32(frame + 38, fromClient ? this.#clientSequence[flow] : this.#serverSequence[flow])
    view.setInt32(frame + 42, (flags & 0x10) === 0 ? 0 : fromClient ? this.#serverSequence[flow] : this.#clientSequence[flow])
    u8[frame + 47] = flags
    view.setUint16(frame + 48, 0xffff)
    if ((flags & 2) !== 0) {
      // Options: maximum segment size 1460, window scale 7.
      u8[frame + 46] = 0x70
      view.setInt32(frame + 54, 0x020405b4)
      view.setInt32(frame + 58, 0x03030701)
    } else {
      u8[frame + 46] = 0x50
      if (payload === 0) {
        // Ethernet padding behind the IP datagram.
        view.setUint16(frame + 16, 40)
      }
    }
    i32[this.lengths + index] = length
    if (payload > 0) {
      if (fromClient) this.#clientSequence[flow] += payload
      else this.#serverSequence[flow] += payload
    }
  }
}
