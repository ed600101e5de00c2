/**
 * Frame player: a faster source and sink than the traffic generator, with the generator's own frames. For each flow it keeps the packet that
 * the client sends next, and the one with which the server answers, and plays them round after round; in TCP both sides' sequence numbers go
 * on, so that a firewall sees connections that live.
 *
 *     client side   0 1 2 ... N-1 0 1 ...                 a flow's answer goes out half a round behind its question, and before the
 *     server side               0 1 2 ... N-1 0 1 ...     next one: a seat, which keeps order on each way, sees them in turn
 *
 * What comes out is held against what went in: each frame must be the next one that was sent on its way, by flow and length; every 32nd is
 * compared byte by byte behind its Ethernet addresses. So a frame that is lost, doubled, out of order or changed is counted as such.
 */

import type { Arena } from '../../src/memory/arena.ts'
import { loadKernels } from '../../src/memory/kernels/kernels.ts'
import { Descriptor, DESCRIPTOR_WORDS } from '../../src/packet/descriptor.ts'
import type { PacketPool } from '../../src/packet/packet-pool.ts'
import type { LinkPort } from '../../src/ports/link-port.ts'
import { LatencyHistogram, TICKS_PER_US } from '../../src/ports/traffic/latency-histogram.ts'

const BATCH = 32
/** From one frame to the next: short frames alone are played. */
const STRIDE = 128
const FRAME_MAX = 120
const MACS = 12
/** Where a frame's tag has its flow number, in UDP and in TCP over IPv4, and what TCP has before it. */
const UDP_FLOW = 46
const TCP_FLOW = 58
const TCP_SEQUENCE = 38
const TCP_ACKNOWLEDGEMENT = 42
const TCP_CHECKSUM = 50
const HEADERS_TCP = 54
/** Frames of each way that may be inside the seat: far fewer than its rings take, so that nothing has to be dropped. */
const WINDOW = 1024
/** Frames by which the answers are further behind than half a round when they begin, so that neither way waits for the other. */
const HEADROOM = 1024

export interface PlayedCounts {
  sent: number
  received: number
  lost: number
  /** Came again, or behind a later one. */
  outOfOrder: number
  corrupted: number
  foreign: number
}

export interface PlayerOptions {
  readonly arena: Arena
  readonly pool: PacketPool
  readonly flows: number
  readonly isTcp: boolean
  /** Client side and server side. */
  readonly ports: readonly [LinkPort, LinkPort]
  now(): number
  /** Takes a frame that is not data, such as a message of a node: with its slot. */
  onOther(side: number, slot: number, frame: number, length: number): void
}

interface Way {
  readonly base: number
  length: number
  /** Frames made ready. */
  ready: number
  sent: number
  /** Frames accounted for at the other side. */
  arrived: number
  dueUs: number
  readonly dues: Float64Array
  readonly placeOf: Int32Array
}

export class FramePlayer {
  readonly counts: PlayedCounts = { sent: 0, received: 0, lost: 0, outOfOrder: 0, corrupted: 0, foreign: 0 }
  readonly latency = new LatencyHistogram()
  /** Microseconds between frames of a way; 0: as fast as they are taken. */
  intervalUs = 0
  readonly #options: PlayerOptions
  readonly #ways: Way[]
  readonly #flowAt: number
  readonly #payload: readonly number[] = [0, 0]
  readonly #descriptors: number
  readonly #equalBytes: (a: number, b: number, bytes: number) => number
  #isStopped = true

  constructor(options: PlayerOptions) {
    const { arena, flows, isTcp } = options
    this.#options = options
    this.#flowAt = isTcp ? TCP_FLOW : UDP_FLOW
    this.#descriptors = arena.allocate('player batch', BATCH * 128) >> 2
    this.#equalBytes = loadKernels(arena).equalBytes as (a: number, b: number, bytes: number) => number
    this.#ways = (isTcp ? [0, 1] : [0]).map((side) => ({
      base: arena.allocate(`player frames ${side}`, flows * STRIDE + 64) + 2, length: 0, ready: 0, sent: 0, arrived: 0, dueUs: 0,
      dues: new Float64Array(flows), placeOf: new Int32Array(flows),
    }))
  }

  get ways(): number {
    return this.#ways.length
  }

  /** Keeps a frame of the generator as the next one of its flow. Frames are played in the order in which they are kept. */
  keep(side: number, frame: number, length: number): void {
    const { arena: { u8, i32 }, flows } = this.#options
    const way = this.#ways[side] as Way
    if (length > FRAME_MAX || (way.length !== 0 && way.length !== length) || way.ready === flows) {
      throw new Error(`a frame of ${length} bytes cannot be played behind ${way.ready} of ${way.length}`)
    }
    way.length = length
    const at = way.base + way.ready * STRIDE
    u8.copyWithin(at, frame, frame + length)
    const flow = (i32[(at + this.#flowAt) >> 2] as number) >>> 0
    way.placeOf[flow % flows] = way.ready++
    ;(this.#payload as number[])[side] = length - HEADERS_TCP
  }

  /** Begins: every flow's frame of each side has been kept, and sent once. @param macs Ethernet addresses of what enters at each side */
  start(macs: readonly (readonly number[])[]): void {
    const { arena: { u8 }, flows } = this.#options
    this.#ways.forEach((way, side) => {
      if (way.ready !== flows) throw new Error(`${way.ready} of ${flows} flows are ready at side ${side}`)
      for (let i = 0; i < flows; i++) u8.set(macs[side] as readonly number[], way.base + i * STRIDE)
    })
    this.#isStopped = false
  }

  /** Sends no more; what is inside still comes out. */
  pause(isPaused: boolean): void {
    this.#isStopped = isPaused
    for (const way of this.#ways) way.dueUs = 0
  }

  get inside(): number {
    return this.#ways.reduce((sum, { sent, arrived }) => sum + sent - arrived, 0)
  }

  /** What has not come by now never will. */
  giveUp(): void {
    for (const way of this.#ways) {
      this.counts.lost += way.sent - way.arrived
      way.arrived = way.sent
    }
  }

  /** Sends a batch each way, and takes one. Returns how many frames that were. */
  turn(now: number): number {
    let moved = 0
    const ways = this.#ways
    for (let side = 0; side < ways.length; side++) moved += this.#send(side, now)
    for (let side = 0; side < 2; side++) moved += this.#receive(side)
    return moved
  }

  #send(side: number, now: number): number {
    if (this.#isStopped) return 0
    const { flows, isTcp, ports } = this.#options
    const way = this.#ways[side] as Way
    const port = ports[side] as LinkPort
    const isTimed = this.intervalUs > 0
    const { base, length, dues } = way
    let most = isTimed ? flows >> 2 : WINDOW
    most -= way.sent - way.arrived
    if (most > BATCH) most = BATCH
    if (side === 1) {
      const behind = (this.#ways[0] as Way).sent - way.sent
      if (way.sent === 0 && behind < (flows >> 1) + HEADROOM) return 0
      most = Math.min(most, behind - (flows >> 1))
    }
    // A question must not be asked again before it has been answered.
    else if (isTcp) most = Math.min(most, (this.#ways[1] as Way).sent + (flows >> 1) + 2 * HEADROOM - way.sent)
    if (way.dueUs === 0) way.dueUs = now
    let place = way.sent % flows
    let count = 0
    for (; count < most; count++) {
      if (isTimed && way.dueUs > now) break
      const frame = base + place * STRIDE
      if (isTcp) this.#goOn(frame, side)
      if (!port.send(frame, length)) {
        if (isTcp) this.#goBack(frame, side)
        break
      }
      dues[place] = isTimed ? way.dueUs : now
      way.dueUs += this.intervalUs
      if (++place === flows) place = 0
    }
    if (count === 0) return 0
    port.flush()
    way.sent += count
    this.counts.sent += count
    return count
  }

  /** The next round's sequence numbers, and the checksum that goes with them. */
  #goOn(frame: number, side: number): void {
    this.#shift(frame, this.#payload[side] as number, this.#payload[1 - side] as number)
  }

  #goBack(frame: number, side: number): void {
    this.#shift(frame, -(this.#payload[side] as number), -(this.#payload[1 - side] as number))
  }

  #shift(frame: number, own: number, others: number): void {
    const { i32, u16 } = this.#options.arena
    const a = (frame + TCP_SEQUENCE) >> 2
    const b = (frame + TCP_ACKNOWLEDGEMENT) >> 2
    const c = (frame + TCP_CHECKSUM) >> 1
    const oldA = i32[a] as number
    const oldB = i32[b] as number
    const newA = swap(swap(oldA) + own)
    const newB = swap(swap(oldB) + others)
    i32[a] = newA
    i32[b] = newB
    // RFC 1624, equation 3; the sum of 16-bit words is the same in either byte order.
    let sum = (~(u16[c] as number) & 0xffff) + (~oldA & 0xffff) + (~oldA >>> 16) + (newA & 0xffff) + (newA >>> 16)
    sum += (~oldB & 0xffff) + (~oldB >>> 16) + (newB & 0xffff) + (newB >>> 16)
    sum = (sum & 0xffff) + (sum >>> 16)
    u16[c] = ~((sum & 0xffff) + (sum >>> 16))
  }

  /** Frames that come out at a side: those of the way that begins at the other one. */
  #receive(side: number): number {
    const { arena, pool, ports, onOther } = this.#options
    const { i32, u16 } = arena
    const port = ports[side] as LinkPort
    const descriptors = this.#descriptors
    const count = port.receive(pool, descriptors, BATCH)
    if (count === 0) return 0
    const way = this.#ways[1 - side]
    const now = this.intervalUs > 0 ? this.#options.now() : 0
    for (let d = descriptors, end = descriptors + count * DESCRIPTOR_WORDS; d < end; d += DESCRIPTOR_WORDS) {
      const frame = i32[d + Descriptor.frame] as number
      const length = i32[d + Descriptor.length] as number
      const slot = i32[d + Descriptor.slot] as number
      if (u16[(frame + MACS) >> 1] !== 8 || way === undefined) {
        onOther(side, slot, frame, length)
        continue
      }
      this.#check(way, frame, length, now)
      pool.give(slot)
    }
    return count
  }

  #check(way: Way, frame: number, length: number, now: number): void {
    const { arena: { i32 }, flows } = this.#options
    const { counts } = this
    const flowAt = this.#flowAt
    let place = way.arrived % flows
    let kept = way.base + place * STRIDE
    if (i32[(frame + flowAt) >> 2] !== i32[(kept + flowAt) >> 2]) {
      const found = way.placeOf[((i32[(frame + flowAt) >> 2] as number) >>> 0) % flows] as number
      const ahead = (found - place + flows) % flows
      kept = way.base + found * STRIDE
      if (i32[(frame + flowAt) >> 2] !== i32[(kept + flowAt) >> 2]) {
        counts.foreign++
        return
      }
      if (ahead > way.sent - way.arrived) {
        counts.outOfOrder++
        return
      }
      counts.lost += ahead
      way.arrived += ahead
      place = found
    }
    if (length !== way.length || ((way.arrived & 31) === 0 && this.#equalBytes(frame + MACS, kept + MACS, length - MACS) !== 1)) {
      counts.corrupted++
    }
    if (now !== 0) this.latency.record(Math.max(0, ((now - (way.dues[place] as number)) * TICKS_PER_US) | 0))
    way.arrived++
    counts.received++
  }
}

/** A word with its bytes in the other order. */
function swap(word: number): number {
  return ((word & 0xff) << 24) | ((word & 0xff00) << 8) | ((word >>> 8) & 0xff00) | (word >>> 24)
}
