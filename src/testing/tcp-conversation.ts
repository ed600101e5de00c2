/**
 * TCP conversation: a whole connection as timed frames, for tests: handshake, data both ways, end.
 *
 *     const web = new TcpConversation({ clientPort: 40000, serverPort: 80 })
 *     web.open().client('GET / HTTP/1.1\r\n\r\n').server('HTTP/1.1 200 OK\r\n...').close()
 *     web.packets                 // [{ frame, time }, ...]
 *
 * Each call appends frames and moves on: sequence numbers, acknowledgements and time are kept by the conversation. Long
 * data is cut into segments, and every one is acknowledged unless told otherwise. Reordering, loss and duplication are the
 * test's own work on the list.
 */

import { buildFrame, payloadBytes, type FrameOptions, type Payload } from './packet-builder.ts'

/** A frame and when it arrives, microseconds since the Unix epoch. */
export interface TimedFrame {
  readonly frame: Uint8Array
  readonly time: number
}

export interface TcpConversationOptions {
  client?: string
  server?: string
  clientPort?: number
  serverPort?: number
  /** Initial sequence numbers. */
  clientSequence?: number
  serverSequence?: number
  /** When the first frame comes, microseconds since the Unix epoch. */
  startUs?: number
  /** Time between frames. */
  stepUs?: number
  /** Most bytes of payload in a segment. */
  segmentBytes?: number
  /** False: data is not acknowledged by frames of its own. */
  acknowledge?: boolean
  /** More options of every frame: VLANs, PPPoE, IP options, ... */
  frame?: FrameOptions
}

export class TcpConversation {
  /** The frames so far, in the order in which they were sent. */
  readonly packets: TimedFrame[] = []
  /** Time of the next frame. */
  timeUs: number
  readonly #options: Required<TcpConversationOptions>
  /** The next sequence number of client and server. */
  readonly #next: [number, number]

  constructor(options: TcpConversationOptions = {}) {
    const isIpv6 = options.client?.includes(':') ?? false
    this.#options = {
      client: '10.0.0.1', server: isIpv6 ? '2001:db8::2' : '10.0.0.2', clientPort: 40000, serverPort: 80,
      clientSequence: 1000, serverSequence: 500_000, startUs: 1_700_000_000_000_000, stepUs: 1000, segmentBytes: 1460,
      acknowledge: true, frame: {}, ...options,
    }
    this.timeUs = this.#options.startUs
    this.#next = [this.#options.clientSequence, this.#options.serverSequence]
  }

  /** SYN, SYN+ACK, ACK. */
  open(): this {
    return this.segment('client', 'S').segment('server', 'SA').segment('client', 'A')
  }

  /** The client sends this. */
  client(payload: Payload): this {
    return this.#data('client', payloadBytes(payload))
  }

  /** The server sends this. */
  server(payload: Payload): this {
    return this.#data('server', payloadBytes(payload))
  }

  /** FIN from both sides, the client first unless told. */
  close(first: 'client' | 'server' = 'client'): this {
    const second = first === 'client' ? 'server' : 'client'
    return this.segment(first, 'FA').segment(second, 'FA').segment(first, 'A')
  }

  /** RST from one side. */
  reset(from: 'client' | 'server' = 'client'): this {
    return this.segment(from, 'RA')
  }

  /** Sends bytes of the stream again, or others in their place: `offset` counts from the side's first byte of data. */
  resend(from: 'client' | 'server', offset: number, payload: Payload): this {
    const own = from === 'client' ? 0 : 1
    const next = this.#next[own]
    const first = own === 0 ? this.#options.clientSequence : this.#options.serverSequence
    this.#next[own] = (first + 1 + offset) >>> 0
    this.segment(from, 'PA', payload)
    this.#next[own] = next
    return this
  }

  /** Lets time pass. */
  wait(us: number): this {
    this.timeUs += us
    return this
  }

  /** One segment with the given flags. */
  segment(from: 'client' | 'server', flags: string, payload: Payload = ''): this {
    const { client, server, clientPort, serverPort, frame, stepUs } = this.#options
    const bytes = payloadBytes(payload)
    const own = from === 'client' ? 0 : 1
    this.packets.push({
      frame: buildFrame({
        ...frame,
        source: own === 0 ? client : server,
        destination: own === 0 ? server : client,
        tcp: {
          sourcePort: own === 0 ? clientPort : serverPort,
          destinationPort: own === 0 ? serverPort : clientPort,
          sequence: this.#next[own], acknowledgement: flags.includes('A') ? this.#next[1 - own] : 0, flags, payload: bytes,
        },
      }),
      time: this.timeUs,
    })
    this.timeUs += stepUs
    const phantom = (flags.includes('S') ? 1 : 0) + (flags.includes('F') ? 1 : 0)
    this.#next[own] = (this.#next[own] + bytes.length + phantom) >>> 0
    return this
  }

  #data(from: 'client' | 'server', bytes: Uint8Array): this {
    const { segmentBytes, acknowledge } = this.#options
    for (let at = 0; at < bytes.length; at += segmentBytes) {
      this.segment(from, 'PA', bytes.subarray(at, at + segmentBytes))
      if (acknowledge) this.segment(from === 'client' ? 'server' : 'client', 'A')
    }
    return this
  }
}
