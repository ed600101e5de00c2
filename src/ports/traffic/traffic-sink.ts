/**
 * Traffic sink: looks at every frame that comes back, and knows what has been lost, doubled, reordered, damaged or late, per flow and
 * in sum.
 *
 * Per flow and side it keeps the next sequence number and which of the last 128 have come. A packet below the next one is *reordered*
 * (RFC 4737), or *duplicated* if it has been here, or *stale* if it is older than those 128 or its flow has made way for a newer one;
 * what has not come below the next one is *lost*. Packets at the end of a flow that are lost leave no gap: compare with what the
 * generator has sent.
 *
 * A packet is *corrupted* if its pattern, a checksum or a length is wrong. While its tag can be read it counts as received too; if not,
 * it is *unreadable*, and missing like a lost one. Frames that do not look like the generator's at all are *foreign*. So
 *
 *     frames = received + duplicated + stale + unreadable + foreign + astray
 */

import type { Clock } from '../../base/clock.ts'
import type { Arena } from '../../memory/arena.ts'
import { loadKernels } from '../../memory/kernels/kernels.ts'
import type { PacketPool } from '../../packet/packet-pool.ts'
import { EtherType, ETHERNET_BYTES, ETHERNET_TYPE, isVlanTag, VLAN_TAG_BYTES } from '../../wire/ethernet.ts'
import { IPV4_FRAGMENT, IPV4_PROTOCOL, IPV4_SOURCE, IPV4_TOTAL_LENGTH, IpProtocol } from '../../wire/ipv4.ts'
import { IPV6_BYTES, IPV6_NEXT_HEADER, IPV6_PAYLOAD_LENGTH, IPV6_SOURCE } from '../../wire/ipv6.ts'
import { TCP_BYTES_MIN, TCP_DATA_OFFSET } from '../../wire/tcp.ts'
import { UDP_BYTES, UDP_CHECKSUM, UDP_LENGTH } from '../../wire/udp.ts'
import { DevicePort } from '../device-port.ts'
import { systemClock } from '../system-clock.ts'
import { LatencyHistogram, TICKS_PER_US } from './latency-histogram.ts'
import {
  createPatternTable, patternStart, tagCheck, tagMagic, TAG_BYTES, TAG_OPTION_BYTES, TAG_OPTION_WORD, type PatternTable,
} from './traffic-tag.ts'

export interface TrafficSinkOptions {
  readonly arena: Arena
  /** The generator's. */
  readonly seed: number
  /** The generator's flows at once. 128 bytes each, up to 512 if flows follow each other. */
  readonly flows: number
  /** Bytes of the longest frame; 9,216 unless told. */
  readonly frameBytes?: number
  /** Addresses of client and server, 6 bytes each: frames with others are corrupted. Not looked at unless given. */
  readonly macs?: readonly [Uint8Array, Uint8Array]
  readonly clock?: Clock
}

/** Counts of one side of one flow, or of all. */
export interface TrafficCounts {
  /** Packets, each once. */
  received: number
  lost: number
  duplicated: number
  reordered: number
  corrupted: number
  stale: number
}

/** What came of one side of one flow, with its latency. */
export interface FlowCounts extends TrafficCounts {
  readonly latencyMeanUs: number
  readonly latencyMaxUs: number
}

export interface TrafficTotals extends TrafficCounts {
  /** Of all frames, whatever they are. */
  frames: number
  bytes: number
  foreign: number
  /** Those of the corrupted that cannot be told. */
  unreadable: number
  /** Came out on the side that sent them; not counted as received. */
  astray: number
}

/** A word each of what is known about one side of a flow. */
const Cell = {
  flow: 0, next: 1, received: 2, duplicated: 3, reordered: 4, corrupted: 5, stale: 6, latencyMax: 7, window: 8, isUsed: 12,
  /** Packets whose latency is in the sum. */
  timed: 13,
  /** A double: ticks. */
  latencySum: 14,
} as const
const CELL_WORDS = 16
const WINDOW = 128
/** Flows that follow each other in one of the generator's slots, and are told apart. */
const GENERATIONS = 4

/** Frames of a turn that share a reading of the clock, which costs as much as a third of all the rest. */
const FRAMES_PER_READING = 8

// PERF: module constants fold, imported ones do not (see packet/descriptor.ts).
const IPV4 = EtherType.ipv4
const IPV6 = EtherType.ipv6
const UDP = IpProtocol.udp
const TCP = IpProtocol.tcp
const TYPE = ETHERNET_TYPE
const LINK = ETHERNET_BYTES
const VLAN = VLAN_TAG_BYTES
const TAG = TAG_BYTES
const TICKS = TICKS_PER_US
/** Bytes up to which a loop here is faster than a call of a kernel. */
const SHORT = 16
const FLOW = Cell.flow
const NEXT = Cell.next
const RECEIVED = Cell.received
const BITS = Cell.window
const IS_USED = Cell.isUsed
const TIMED = Cell.timed
const LATENCY_MAX = Cell.latencyMax
const LATENCY_SUM = Cell.latencySum

export type TrafficSink = ReturnType<typeof createTrafficSink>

/** Makes a sink. */
export function createTrafficSink(options: TrafficSinkOptions, table?: PatternTable) {
  const { arena, seed, flows, macs, frameBytes = 9216, clock = systemClock } = options
  const { u8, u16, i32 } = arena
  const { equalBytes } = loadKernels(arena)
  const { base, sums } = table ?? createPatternTable(arena, seed, frameBytes)
  const magic = tagMagic(seed)
  const cells = new Int32Array(flows * GENERATIONS * 2 * CELL_WORDS)
  const doubles = new Float64Array(cells.buffer)
  const latency = new LatencyHistogram()
  const totals: TrafficTotals = {
    received: 0, lost: 0, duplicated: 0, reordered: 0, corrupted: 0, stale: 0, frames: 0, bytes: 0, foreign: 0,
    unreadable: 0, astray: 0,
  }
  const links = macs === undefined ? undefined : Uint8Array.of(...macs[1], ...macs[0], ...macs[0], ...macs[1])
  let nowTicks = 0
  let readingLeft = 0
  // Of the last frame.
  let flow = 0
  let side = 0
  let sequence = -1

  const be16 = (at: number): number => (u8[at] << 8) | u8[at + 1]
  const le32 = (at: number): number =>
    (at & 3) === 0 ? i32[at >> 2] : u8[at] | (u8[at + 1] << 8) | (u8[at + 2] << 16) | (u8[at + 3] << 24)

  /** Sum of the 16-bit words, as they lie in memory (little-endian); their checksum is the same but for the byte order. */
  function sumWords(at: number, bytes: number): number {
    let sum = 0
    const end = at + (bytes & ~1)
    if ((at & 1) === 0) for (let i = at >> 1; i < end >> 1; i++) sum += u16[i]
    else for (; at < end; at += 2) sum += u8[at] | (u8[at + 1] << 8)
    return (bytes & 1) === 0 ? sum : sum + u8[end]
  }

  /** True if so many bytes are those of the table. */
  function isPattern(at: number, start: number, bytes: number): boolean {
    let from = base + start
    if (bytes > SHORT) return equalBytes(at, from, bytes) === 1
    for (const end = at + bytes; at < end; at++, from++) if (u8[at] !== u8[from]) return false
    return true
  }

  /** Whether the link addresses are those of the packet's side. */
  function hasLinks(frame: number, expected: Uint8Array): boolean {
    const at = side * 12
    for (let i = 0; i < 12; i++) if (u8[frame + i] !== expected[at + i]) return false
    return true
  }

  /** Where a flow's side has its cell. */
  function cellAt(number: number, ofSide: number): number {
    const generation = Math.floor(number / flows)
    return (((generation % GENERATIONS) * flows + number - generation * flows) * 2 + ofSide) * CELL_WORDS
  }

  /** The cell of the packet's flow and side; -1 if a newer flow has it. */
  function cellOf(): number {
    const cell = cellAt(flow >>> 0, side)
    if (cells[cell + FLOW] === flow && cells[cell + IS_USED] === 1) return cell
    if (cells[cell + IS_USED] === 1 && ((flow - cells[cell + FLOW]) | 0) < 0) return -1
    cells.fill(0, cell, cell + CELL_WORDS)
    cells[cell + FLOW] = flow
    cells[cell + IS_USED] = 1
    return cell
  }

  /** Judges the packet's place in its flow. */
  function place(cell: number): void {
    const next = cells[cell + NEXT]
    const word = cell + BITS + ((sequence & (WINDOW - 1)) >>> 5)
    const bit = 1 << (sequence & 31)
    if (sequence >= next) {
      if (sequence - next >= WINDOW) cells.fill(0, cell + BITS, cell + BITS + WINDOW / 32)
      else for (let s = next; s < sequence; s++) cells[cell + BITS + ((s & (WINDOW - 1)) >>> 5)] &= ~(1 << (s & 31))
      cells[cell + NEXT] = sequence + 1
      totals.lost += sequence - next
    } else if (next - sequence > WINDOW) {
      cells[cell + Cell.stale]++
      totals.stale++
      return
    } else if ((cells[word] & bit) !== 0) {
      cells[cell + Cell.duplicated]++
      totals.duplicated++
      return
    } else {
      cells[cell + Cell.reordered]++
      totals.reordered++
      totals.lost--
    }
    cells[word] |= bit
    cells[cell + RECEIVED]++
    totals.received++
  }

  /**
   * Takes a frame that lies in the arena and has come out at this side (of client 0 or server 1; -1: at either). Afterwards `flow`,
   * `side` and `sequence` say which packet it was. Hot.
   *
   * @returns true if it is a packet of the generator that can be told, corrupted or not
   */
  function take(frame: number, length: number, atSide: number): boolean {
    totals.frames++
    totals.bytes += length
    const end = frame + length
    let network = frame + LINK
    if (network + 20 > end) return foreign()
    let type = be16(frame + TYPE)
    while (type !== IPV4 && isVlanTag(type) && network + VLAN + 20 <= end) {
      type = be16(network + 2)
      network += VLAN
    }
    let protocol: number
    let transport: number
    let packetEnd: number
    let sum: number
    let isDamaged = false
    if (type === IPV4) {
      transport = network + (u8[network] & 15) * 4
      packetEnd = network + be16(network + IPV4_TOTAL_LENGTH)
      if (u8[network] >>> 4 !== 4 || transport < network + 20 || transport > end) return foreign()
      if ((be16(network + IPV4_FRAGMENT) & 0x3fff) !== 0) return foreign()
      protocol = u8[network + IPV4_PROTOCOL]
      isDamaged = fold(sumWords(network, transport - network)) !== 0xffff
      sum = sumWords(network + IPV4_SOURCE, 8)
    } else if (type === IPV6) {
      transport = network + IPV6_BYTES
      if (transport > end || u8[network] >>> 4 !== 6) return foreign()
      packetEnd = transport + be16(network + IPV6_PAYLOAD_LENGTH)
      protocol = u8[network + IPV6_NEXT_HEADER]
      sum = sumWords(network + IPV6_SOURCE, 32)
    } else {
      return foreign()
    }
    if (packetEnd > end) {
      packetEnd = end
      isDamaged = true
    }
    let tag: number
    let isChecked = true
    if (protocol === UDP) {
      tag = transport + UDP_BYTES
      if (tag + TAG > packetEnd) return foreign()
      if (be16(transport + UDP_LENGTH) !== packetEnd - transport) isDamaged = true
      isChecked = be16(transport + UDP_CHECKSUM) !== 0 || type === IPV6
    } else if (protocol === TCP) {
      if (transport + TCP_BYTES_MIN > packetEnd) return foreign()
      const payload = transport + (u8[transport + TCP_DATA_OFFSET] >>> 4) * 4
      tag = payload
      if (payload >= packetEnd) {
        tag = transport + TCP_BYTES_MIN + TAG_OPTION_BYTES - TAG
        if (tag + TAG > packetEnd || le32(transport + TCP_BYTES_MIN) !== TAG_OPTION_WORD) return foreign()
      }
      if (tag + TAG > packetEnd) return foreign()
      if (tag !== payload && payload !== packetEnd) isDamaged = true
    } else {
      return foreign()
    }
    const word = le32(tag)
    if ((word & 0xffff) !== magic) return foreign()
    const numbered = le32(tag + 8)
    const time = le32(tag + 12)
    flow = le32(tag + 4)
    if (word >>> 16 !== tagCheck(seed, flow, numbered, time)) {
      totals.corrupted++
      totals.unreadable++
      sequence = -1
      return false
    }
    side = numbered >>> 31
    sequence = numbered & 0x7fffffff
    if (side === atSide) {
      totals.astray++
      return false
    }
    // Behind the tag: the pattern, or further TCP options.
    const pattern = tag + TAG
    const bytes = packetEnd - pattern
    if (protocol === TCP && tag < transport + (u8[transport + TCP_DATA_OFFSET] >>> 4) * 4) {
      sum += sumWords(pattern, bytes)
    } else {
      const start = patternStart(flow, numbered)
      const firstWord = start >> 1
      if ((start + bytes) >> 1 >= sums.length || !isPattern(pattern, start, bytes)) isDamaged = true
      else sum += fold(sums[firstWord + (bytes >> 1)] - sums[firstWord]) + ((bytes & 1) === 0 ? 0 : u8[packetEnd - 1])
    }
    if (isChecked && !isDamaged) {
      sum += (protocol << 8) + swapped(packetEnd - transport) + sumWords(transport, pattern - transport)
      isDamaged = fold(sum) !== 0xffff
    }
    if (links !== undefined && !hasLinks(frame, links)) isDamaged = true
    const cell = cellOf()
    if (isDamaged) {
      totals.corrupted++
      if (cell >= 0) cells[cell + Cell.corrupted]++
    }
    if (cell < 0) {
      totals.stale++
      return true
    }
    place(cell)
    if (--readingLeft < 0) {
      readingLeft = FRAMES_PER_READING - 1
      nowTicks = (clock.now() * TICKS) | 0
    }
    const ticks = Math.max(0, (nowTicks - time) | 0)
    latency.record(ticks)
    if (ticks > cells[cell + LATENCY_MAX]) cells[cell + LATENCY_MAX] = ticks
    doubles[(cell + LATENCY_SUM) >> 1] += ticks
    cells[cell + TIMED]++
    return true
  }

  function foreign(): boolean {
    totals.foreign++
    sequence = -1
    return false
  }

  return {
    take,
    /** A turn of the poll loop begins: the time is read anew. To be called before the frames of each turn. */
    beginTurn(): void { readingLeft = 0 },
    /** What came so far, in sum. Live. */
    totals: totals as Readonly<TrafficTotals>,
    /** Of all packets that could be told. */
    latency,
    get flow() { return flow },
    get side() { return side },
    get sequence() { return sequence },
    /** What came of one side of a flow; undefined if nothing did, or a newer flow has taken its place. */
    countsOf(number: number, ofSide: number): FlowCounts | undefined {
      const cell = cellAt(number >>> 0, ofSide)
      if (cells[cell + IS_USED] !== 1 || cells[cell + FLOW] !== (number | 0)) return undefined
      return {
        received: cells[cell + RECEIVED], lost: cells[cell + NEXT] - cells[cell + RECEIVED],
        duplicated: cells[cell + Cell.duplicated], reordered: cells[cell + Cell.reordered],
        corrupted: cells[cell + Cell.corrupted], stale: cells[cell + Cell.stale],
        latencyMeanUs: doubles[(cell + LATENCY_SUM) >> 1] / Math.max(1, cells[cell + TIMED]) / TICKS_PER_US,
        latencyMaxUs: cells[cell + LATENCY_MAX] / TICKS_PER_US,
      }
    },
    /** Calls back for each side of each flow that is known, in no order: for reports. */
    forEachFlow(visit: (flow: number, side: number) => void): void {
      for (let cell = 0; cell < cells.length; cell += CELL_WORDS) {
        if (cells[cell + IS_USED] === 1) visit(cells[cell + FLOW] >>> 0, (cell / CELL_WORDS) & 1)
      }
    },
  }
}

const swapped = (half: number): number => ((half & 0xff) << 8) | (half >>> 8)

/** A sum of 16-bit words, less than 2^32, as 16 bits. */
const fold = (sum: number): number => {
  sum = (sum & 0xffff) + (sum >>> 16)
  return ((sum & 0xffff) + (sum >>> 16)) & 0xffff
}

/** Frames that `send` takes at any time: the sink looks at each at once. */
export const SINK_ROOM = 4096

/** A port that gives what it is sent to a sink, and receives nothing. */
export class SinkPort extends DevicePort {
  readonly sink: TrafficSink
  readonly #side: number

  /** @param side on which it stands: 0 the clients', 1 the servers', -1 either */
  constructor(sink: TrafficSink, side = -1) {
    super('sink')
    this.sink = sink
    this.#side = side
  }

  get room(): number {
    return SINK_ROOM
  }

  /** Begins a turn of the sink: the time of frames is exact only if the port is polled. */
  receive(_pool: PacketPool, _descriptors: number, _max: number): number {
    this.sink.beginTurn()
    return 0
  }

  send(frame: number, length: number): boolean {
    if (length > this.frameBytesMax) return this.countOut(false, length)
    this.sink.take(frame, length, this.#side)
    return this.countOut(true, length)
  }

  arm(): boolean {
    return true
  }
}
