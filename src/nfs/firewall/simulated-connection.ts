/**
 * Simulated connection, for tests: two TCP endpoints, a network that loses, delays, reorders and repeats, and an
 * observer in its middle that sees every segment that gets so far. Everything the endpoints send is valid (RFC 9293,
 * RFC 5961, RFC 7323, RFC 7413).
 *
 *     endpoint ── loss, delay ──▶ observer ── loss, delay ──▶ endpoint
 *
 * Endpoints number their stream from 0 (the SYN) in whole numbers; only what the observer sees has 32-bit sequence
 * numbers, from random initial ones. They keep to the offered window, keep early segments, acknowledge at once or late,
 * read at random, close and reopen the window, probe a closed one, send keep-alives, retransmit in other portions, and
 * close in any order.
 */

import type { Random } from '../../base/random.ts'

/** What the observer sees. */
export interface SeenSegment {
  readonly direction: number
  readonly flags: number
  readonly sequence: number
  readonly acknowledgement: number
  readonly window: number
  readonly length: number
  /** Shift of the window scale option, or -1. */
  readonly scale: number
}

export interface SimulationOptions {
  /** Probability that a segment is lost, on each half of the way. */
  readonly loss: number
  /** The most milliseconds that a segment is late, on each half of the way. */
  readonly jitter: number
  /** Size of the receive buffers. */
  readonly bufferBytes: number
  /** The first SYN carries data. */
  readonly fastOpen: boolean
  /** Both sides open. */
  readonly simultaneous: boolean
}

interface Segment {
  readonly position: number
  readonly length: number
  readonly syn: boolean
  readonly fin: boolean
  /** -1: none. */
  readonly ack: number
  readonly window: number
  readonly scale: number
}

const RETRANSMIT_MS = 250
const TIME_LIMIT_MS = 3_600_000

class Endpoint {
  readonly initialSequence: number
  readonly offeredScale: number
  readonly #random: Random
  readonly #options: SimulationOptions
  readonly #send: (segment: Segment) => void
  readonly #segmentBytes: number
  /** Position behind the last byte of data; the FIN stands there. */
  readonly #dataEnd: number
  #peerScale = -1
  #synReceived = false
  #unacknowledged = 0
  #next = 0
  /** What has been sent at most. */
  #highest = 0
  /** The largest window that the peer has offered. */
  #peerWindow = 0
  /** Position that the peer has room up to. */
  #edge = 0
  #receiveNext = 0
  #unread = 0
  #early: Array<[number, number]> = []
  #finAt = -1
  #ackDue = false

  constructor(random: Random, options: SimulationOptions, send: (segment: Segment) => void) {
    this.#random = random
    this.#options = options
    this.#send = send
    this.initialSequence = random.chance(0.5) ? random.int32() : (-1 - random.below(20_000)) | 0
    // Coarser than this the window would always be 0.
    const scaleMax = Math.min(14, Math.floor(Math.log2(options.bufferBytes / 32)))
    this.offeredScale = random.chance(0.75) ? random.between(0, scaleMax) : -1
    this.#segmentBytes = random.between(100, options.bufferBytes > 150_000 ? 40_000 : 1460)
    this.#dataEnd = 1 + random.below(Math.min(options.bufferBytes * 5, this.#segmentBytes * 60))
  }

  /** Everything is sent and acknowledged, and the peer's FIN has come. */
  get isDone(): boolean {
    return this.#unacknowledged > this.#dataEnd && this.#finAt >= 0 && this.#receiveNext > this.#finAt
  }

  open(): void {
    this.#transmit(0, this.#options.fastOpen ? Math.min(this.#dataEnd - 1, 500) : 0, true)
  }

  receive(segment: Segment): void {
    if (segment.syn && this.#synReceived && this.#unacknowledged > 0) {
      // RFC 5961 §4.2.
      this.#acknowledge()
      return
    }
    if (segment.syn) this.#receiveSyn(segment)
    if (!this.#synReceived) return
    if (segment.ack >= 0 && segment.ack < this.#unacknowledged - this.#peerWindow) {
      // RFC 5961 §5.2.
      this.#acknowledge()
      return
    }
    if (segment.ack > this.#unacknowledged && segment.ack <= this.#highest) {
      this.#unacknowledged = segment.ack
      if (this.#next < segment.ack) this.#next = segment.ack
    }
    if (segment.ack >= 0 && segment.ack === this.#unacknowledged) {
      const scale = segment.syn || this.#peerScale < 0 || this.offeredScale < 0 ? 0 : this.#peerScale
      this.#peerWindow = Math.max(this.#peerWindow, segment.window * 2 ** scale)
      this.#edge = Math.max(this.#edge, segment.ack + segment.window * 2 ** scale)
    }
    const start = segment.position + (segment.syn ? 1 : 0)
    const end = start + segment.length
    if (segment.fin && end <= this.#receiveNext + this.#room()) this.#finAt = end
    if (segment.length > 0) this.#receiveData(start, end)
    if (this.#finAt === this.#receiveNext) this.#receiveNext++
    const wantsAck = (segment.syn && segment.ack >= 0) || segment.length > 0 || segment.fin ||
      segment.position !== this.#receiveNext
    if (wantsAck && this.#unacknowledged > 0) {
      if (this.#random.chance(0.5)) this.#acknowledge()
      else this.#ackDue = true
    }
    this.#sendData()
  }

  /** Time passes: late acknowledgements, reading, keep-alives. */
  tick(): void {
    if (!this.#synReceived) return
    const wasFull = this.#room() < this.#segmentBytes
    if (this.#random.chance(0.4)) {
      this.#unread -= Math.min(this.#unread, this.#random.below(this.#options.bufferBytes) + 1)
    }
    if ((wasFull && this.#room() >= this.#segmentBytes) || this.#ackDue) this.#acknowledge()
    if (this.#random.chance(0.02) && this.#unacknowledged > 0 && this.#unacknowledged === this.#next) {
      const isByte = this.#random.chance(0.5) && this.#next > 1 && this.#next <= this.#dataEnd
      this.#transmit(this.#next - 1, isByte ? 1 : 0, false)
    }
    this.#sendData()
  }

  /** The retransmission timer has fired. */
  retransmit(): void {
    if (this.#unacknowledged === 0) {
      if (this.#highest > 0) this.#transmit(0, 0, true)
    } else if (this.#unacknowledged < this.#highest) {
      // One segment from the first byte that is missing, or everything from there on.
      if (this.#random.chance(0.3)) {
        this.#next = this.#unacknowledged
        this.#sendData()
      } else {
        const missing = this.#highest - this.#unacknowledged
        this.#sendFrom(this.#unacknowledged, Math.min(missing, this.#random.between(1, this.#segmentBytes)))
      }
    } else if (this.#next < this.#dataEnd && this.#edge <= this.#next) {
      this.#transmit(this.#next, 1, false)
      this.#next++
    }
  }

  #receiveSyn(segment: Segment): void {
    if (!this.#synReceived) {
      this.#synReceived = true
      this.#peerScale = segment.scale
      this.#receiveNext = 1
      this.#edge = segment.window
    }
    if (this.#unacknowledged === 0 && segment.ack < 0) {
      // Data on the SYN may be refused.
      if (this.#random.chance(0.7) && segment.length > 0) this.#receiveData(1, 1 + segment.length)
      this.#transmit(0, 0, true)
    }
  }

  #receiveData(start: number, end: number): void {
    const room = this.#receiveNext + this.#room()
    if (start > room) return
    this.#early.push([start, Math.min(end, room)])
    this.#early.sort((a, b) => a[0] - b[0])
    while (this.#early.length > 0 && this.#early[0][0] <= this.#receiveNext) {
      const [, upTo] = this.#early.shift() as [number, number]
      if (upTo <= this.#receiveNext) continue
      this.#unread += upTo - this.#receiveNext
      this.#receiveNext = upTo
    }
  }

  #room(): number {
    return this.#options.bufferBytes - this.#unread
  }

  #sendData(): void {
    if (this.#unacknowledged === 0) return
    while (this.#next < this.#edge && this.#next <= this.#dataEnd) {
      const room = this.#edge - this.#next
      this.#next = this.#sendFrom(this.#next, Math.min(room, this.#random.between(1, this.#segmentBytes)))
      // Not always as much as possible.
      if (this.#random.chance(0.2)) return
    }
  }

  /** Sends up to `bytes` from a position on, with the FIN if that is where they end. Returns the position behind. */
  #sendFrom(position: number, bytes: number): number {
    const length = Math.max(0, Math.min(bytes, this.#dataEnd - position))
    const fin = position + length === this.#dataEnd && (length === 0 || this.#random.chance(0.5))
    this.#transmit(position, length, false, fin)
    return position + length + (fin ? 1 : 0)
  }

  #acknowledge(): void {
    this.#transmit(this.#next, 0, false)
  }

  #transmit(position: number, length: number, syn: boolean, fin = false): void {
    this.#ackDue = false
    const end = position + length + (syn || fin ? 1 : 0)
    this.#highest = Math.max(this.#highest, end)
    if (syn) this.#next = Math.max(this.#next, 1)
    const isScaled = !syn && this.offeredScale >= 0 && this.#peerScale >= 0
    this.#send({
      position, length, syn, fin,
      ack: this.#synReceived ? this.#receiveNext : -1,
      window: Math.min(65535, Math.floor(this.#room() / 2 ** (isScaled ? this.offeredScale : 0))),
      // An answer has the option only when the SYN had it (RFC 7323 §2.2).
      scale: syn && (!this.#synReceived || this.#peerScale >= 0) ? this.offeredScale : -1,
    })
  }
}

export class SimulatedConnection {
  readonly #random: Random
  readonly #options: SimulationOptions
  readonly #events: Array<{ readonly at: number; readonly run: () => void }> = []
  #now = 0

  constructor(random: Random, options: SimulationOptions) {
    this.#random = random
    this.#options = options
  }

  /** Runs the connection from its opening until both sides have closed, and everything on the way has arrived. */
  run(observe: (segment: SeenSegment) => void): void {
    const ends: Endpoint[] = []
    for (const direction of [0, 1]) {
      ends.push(new Endpoint(this.#random, this.#options, (segment) => {
        this.#travel(() => {
          observe({
            direction,
            flags: (segment.syn ? 2 : 0) | (segment.fin ? 1 : 0) | (segment.ack >= 0 ? 16 : 0),
            sequence: (ends[direction].initialSequence + segment.position) | 0,
            acknowledgement: segment.ack < 0 ? 0 : (ends[1 - direction].initialSequence + segment.ack) | 0,
            window: segment.window, length: segment.length, scale: segment.scale,
          })
          this.#travel(() => ends[1 - direction].receive(segment))
        })
      }))
    }
    ends[0].open()
    if (this.#options.simultaneous) ends[1].open()
    const isOver = (): boolean => (ends[0].isDone && ends[1].isDone) || this.#now > TIME_LIMIT_MS
    for (const end of ends) {
      this.#every(20, isOver, () => end.tick())
      this.#every(RETRANSMIT_MS, isOver, () => end.retransmit())
    }
    for (;;) {
      const event = this.#events.shift()
      if (event === undefined) return
      this.#now = event.at
      event.run()
    }
  }

  #travel(arrive: () => void): void {
    for (let copies = this.#random.chance(this.#options.loss / 10) ? 2 : 1; copies > 0; copies--) {
      const delayMs = 5 + this.#random.fraction() * this.#options.jitter
      if (!this.#random.chance(this.#options.loss)) this.#after(delayMs, arrive)
    }
  }

  #every(ms: number, isOver: () => boolean, run: () => void): void {
    this.#after(ms, () => {
      if (isOver()) return
      run()
      this.#every(ms, isOver, run)
    })
  }

  #after(ms: number, run: () => void): void {
    const event = { at: this.#now + ms, run }
    let low = 0
    let high = this.#events.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.#events[middle].at <= event.at) low = middle + 1
      else high = middle
    }
    this.#events.splice(low, 0, event)
  }
}
