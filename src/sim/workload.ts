/**
 * Workload: flows through a simulated cluster. UDP and TCP, opened from either side or from both at once, with bursts and with silences
 * about as long as the idle timeout, so that expiry races with packets; ports are used again after a close; some datagrams come in
 * fragments, some packets are answered by an ICMP error.
 */

import type { Random } from '../base/random.ts'
import { buildFragments, buildFrame, buildPacket, layersOf, type FrameOptions } from '../testing/packet-builder.ts'
import { ERROR_FLOWS, hasTrailer, isTranslated, TRAILER_BYTES, trailerFlow, trailerSide, writeTrailer } from './trailer.ts'

export interface WorkloadOptions {
  readonly flows: number
  /** Packets of one flow, at most. */
  readonly packetsMax: number
  /** When flows begin, at most, and about how long a silence is that meets the idle timeout. Microseconds. */
  readonly spreadUs: number
  readonly silenceUs: number
}

export interface Sent {
  /** 0: comes in at the clients' side. */
  readonly side: 0 | 1
  readonly frame: Uint8Array
  readonly id: number
}

interface Flow {
  readonly number: number
  readonly isTcp: boolean
  readonly isIpv6: boolean
  readonly templates: readonly [Uint8Array, Uint8Array]
  left: number
  /** Packets of TCP since the connection was opened; its closing steps. */
  step: number
  /** Sequence numbers given, by side; then those of ICMP errors. */
  readonly sequences: number[]
  readonly opener: 0 | 1
  /** The port that it is translated to as far as its server knows, 0 before that; -1: it is not translated. */
  port: number
}

/** Packets of a run that are poison, at most. */
const POISON_MAX = 32
/** Where the flags of TCP are in a template. */
const TCP_FLAGS = 14 + 20 + 13
const TCP_FLAGS_IPV6 = 14 + 40 + 13
const PAYLOAD = '-'.repeat(TRAILER_BYTES + 8)

/** What flows send, by their number and kind: built once for all seeds. Copied before anything is written. */
const templatesBuilt = new Map<number, readonly [Uint8Array, Uint8Array]>()

/** The number of the flow with the key at a word index. */
export function flowNumberOf(words: Int32Array, key: number): number {
  const ports = words[key + 1]
  return ((ports >>> 16) === 80 ? ports & 0xffff : ports >>> 16) - 1024
}

export class Workload {
  /** Packets sent so far: the last id given. */
  packets = 0
  #poison = 0
  /** Those of all datagrams in fragments. */
  readonly #identifications = new Set<number>()
  readonly packetsMax: number
  readonly #flows = new Map<number, Flow>()
  readonly #random: Random
  readonly #options: WorkloadOptions

  constructor(random: Random, options: WorkloadOptions) {
    this.#random = random
    this.#options = options
    // A turn of a flow sends four packets at most.
    this.packetsMax = options.flows * (options.packetsMax + 8) + POISON_MAX
  }

  /** Starts all flows: `at` is called with when a flow takes its next turn, `send` with what it sends then. */
  start(at: (us: number, turn: () => void) => void, send: (sent: Sent) => void): void {
    for (let number = 1; number <= this.#options.flows; number++) {
      const flow = this.#make(number)
      this.#flows.set(number, flow)
      const turn = (): void => {
        const pause = this.#turn(flow, send)
        if (pause >= 0) at(pause, turn)
      }
      at(this.#random.below(this.#options.spreadUs), turn)
    }
  }

  #make(number: number): Flow {
    const random = this.#random
    const isTcp = random.chance(0.5)
    const isIpv6 = random.chance(0.2)
    const isBehind = !isTcp && !isIpv6 && isTranslated(number)
    return { number, port: isBehind ? 0 : -1, isTcp, isIpv6, templates: this.#templates(number, isTcp, isIpv6, isBehind), step: 0,
      sequences: [0, 0, 0, 0], left: 1 + random.below(this.#options.packetsMax), opener: isBehind ? 0 : random.pick([0, 0, 1]) }
  }

  #templates(number: number, isTcp: boolean, isIpv6: boolean, isBehind: boolean): [Uint8Array, Uint8Array] {
    const kind = number * 4 + (isTcp ? 2 : 0) + (isIpv6 ? 1 : 0)
    const built = templatesBuilt.get(kind)
    if (built !== undefined) return [built[0].slice(), built[1].slice()]
    // Translated flows differ in ports alone.
    const client = isIpv6 ? 'fd00::1' : isBehind ? '10.0.0.4' : `10.0.${number >> 8 & 255}.${number & 255}`
    const server = isIpv6 ? 'fd00::2' : isBehind ? '10.1.0.4' : `10.1.0.${1 + number % 200}`
    const port = 1024 + (number % 60_000)
    const of = (side: 0 | 1): FrameOptions => {
      const ports = { sourcePort: side === 0 ? port : 80, destinationPort: side === 0 ? 80 : port, payload: PAYLOAD }
      return { source: side === 0 ? client : server, destination: side === 0 ? server : client,
        ...isTcp ? { tcp: ports } : { udp: ports } }
    }
    templatesBuilt.set(kind, [buildFrame(of(0)), buildFrame(of(1))])
    return this.#templates(number, isTcp, isIpv6, isBehind)
  }

  /** One turn of a flow. Returns how long until its next, -1 when it is over. */
  #turn(flow: Flow, send: (sent: Sent) => void): number {
    const random = this.#random
    const { silenceUs } = this.#options
    if (flow.isTcp) this.#tcpTurn(flow, send)
    else this.#udpTurn(flow, send)
    flow.left--
    if (flow.left <= 0) return -1
    const kind = random.below(100)
    if (kind < 40) return random.below(60)
    if (kind < 85) return random.below(4000)
    // A silence that ends about when the flow expires.
    if (kind < 97) return silenceUs - 2500 + random.below(5000)
    return silenceUs * 2 + random.below(silenceUs)
  }

  /** What has left towards the servers: they answer to the port that it came from. */
  heard(frame: Uint8Array): void {
    if (!hasTrailer(frame) || trailerSide(frame, frame.length) !== 0) return
    const flow = this.#flows.get(trailerFlow(frame, frame.length))
    if (flow === undefined || flow.port < 0) return
    const { transport } = layersOf(frame)
    const [high, low] = [frame[transport], frame[transport + 1]]
    flow.port = high << 8 | low
    const answer = flow.templates[1]
    const at = layersOf(answer).transport + 2
    answer[at] = high
    answer[at + 1] = low
  }

  #udpTurn(flow: Flow, send: (sent: Sent) => void): void {
    const random = this.#random
    if (flow.port >= 0) return this.#packet(flow, flow.port === 0 ? 0 : random.pick([0, 1] as const), send)
    const side = flow.step++ === 0 ? flow.opener : random.pick([0, 1] as const)
    if (flow.step === 1 && random.chance(0.2)) {
      // From both sides at once.
      this.#packet(flow, 0, send)
      this.#packet(flow, 1, send)
    } else if (random.chance(0.04)) {
      this.#fragments(flow, side, send)
    } else if (flow.step > 1 && random.chance(0.03)) {
      this.#icmpError(flow, side, send)
    } else {
      this.#packet(flow, side, send)
    }
  }

  /** SYN, SYN ACK, data, FIN from both sides, and perhaps another connection on the same ports. */
  #tcpTurn(flow: Flow, send: (sent: Sent) => void): void {
    const random = this.#random
    const closing = 8 + (flow.number % 9)
    const answerer = (1 - flow.opener) as 0 | 1
    if (flow.step === 0) this.#packet(flow, flow.opener, send, 0x02)
    else if (flow.step === 1) this.#packet(flow, answerer, send, 0x12)
    else if (flow.step === closing) this.#packet(flow, random.pick([0, 1] as const), send, random.chance(0.2) ? 0x04 : 0x11)
    else if (flow.step === closing + 1) {
      this.#packet(flow, flow.opener, send, 0x11)
      this.#packet(flow, answerer, send, 0x11)
    } else this.#packet(flow, random.pick([0, 1] as const), send, 0x10)
    flow.step = flow.step > closing ? 0 : flow.step + 1
  }

  /** Sends a packet that its runtime dies of, of a flow with packets to come, or of this one again; the flow's number, 0: none was sent. */
  poison(send: (sent: Sent) => void, again = 0): number {
    const flows = [...this.#flows.values()].filter(({ number, left, sequences }) =>
      (again === 0 ? left > 0 && sequences[0] + sequences[1] > 0 : number === again))
    if (flows.length === 0 || this.#poison++ >= POISON_MAX) return 0
    const flow = this.#random.pick(flows)
    const side = flow.port >= 0 ? 0 : this.#random.pick([0, 1] as const)
    send(this.#stamp(flow, side, (flow.templates[side] as Uint8Array).slice(), false, true))
    return flow.number
  }

  #stamp(flow: Flow, side: 0 | 1, frame: Uint8Array, isError = false, isPoison = false): Sent {
    const id = ++this.packets
    const sequence = ++flow.sequences[side + (isError ? 2 : 0)]
    writeTrailer(frame, { id, flow: flow.number + (isError ? ERROR_FLOWS : 0), side, sequence, isPoison })
    return { side, frame, id }
  }

  #packet(flow: Flow, side: 0 | 1, send: (sent: Sent) => void, flags = -1): void {
    const frame = (flow.templates[side] as Uint8Array).slice()
    if (flags >= 0) frame[flow.isIpv6 ? TCP_FLAGS_IPV6 : TCP_FLAGS] = flags
    send(this.#stamp(flow, side, frame))
  }

  /** A datagram in fragments, the later one first now and then. */
  #fragments(flow: Flow, side: 0 | 1, send: (sent: Sent) => void): void {
    const { source, destination, sourcePort, destinationPort } = this.#ends(flow, side)
    const frames = buildFragments({ source, destination, identification: this.#identification(),
      udp: { sourcePort, destinationPort, payload: '-'.repeat(88) } }, 48).map((frame) => this.#stamp(flow, side, frame))
    if (this.#random.chance(0.3)) frames.reverse()
    for (const sent of frames) send(sent)
  }

  /** Flows share hosts, and a host gives no two datagrams the same while both may be on their way (RFC 8200 §4.5). */
  #identification(): number {
    let identification = this.#random.below(65_536)
    while (this.#identifications.has(identification)) identification = (identification + 1) % 65_536
    this.#identifications.add(identification)
    return identification
  }

  #icmpError(flow: Flow, side: 0 | 1, send: (sent: Sent) => void): void {
    const { source, destination, sourcePort, destinationPort } = this.#ends(flow, side)
    const quote = buildPacket({ source: destination, destination: source,
      udp: { sourcePort: destinationPort, destinationPort: sourcePort, payload: PAYLOAD } })
    send(this.#stamp(flow, side, buildFrame({ source, destination, icmp: { type: flow.isIpv6 ? 1 : 3, code: 1, quote } }), true))
  }

  #ends(flow: Flow, side: 0 | 1): { source: string; destination: string; sourcePort: number; destinationPort: number } {
    const client = flow.isIpv6 ? 'fd00::1' : `10.0.${flow.number >> 8 & 255}.${flow.number & 255}`
    const server = flow.isIpv6 ? 'fd00::2' : `10.1.0.${1 + flow.number % 200}`
    const port = 1024 + (flow.number % 60_000)
    return side === 0 ? { source: client, destination: server, sourcePort: port, destinationPort: 80 }
      : { source: server, destination: client, sourcePort: 80, destinationPort: port }
  }
}
