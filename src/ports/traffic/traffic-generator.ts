/**
 * Traffic generator: flows between clients and servers, made packet by packet as a data plane takes them from its two ports.
 *
 *     port 0 (clients) ─receive─▶ data plane ─send─▶ port 1 (servers): the sink looks at it
 *     port 0: the sink    ◀─send─ data plane ◀─receive─ port 1
 *
 * A flow is a script of steps, each of one side; `-` stands for a segment without data:
 *
 *     UDP                          ┌────────── turns ──────────┐
 *     TCP   SYN │ SYN ACK │ ACK -  │ requests (0) │ replies (1) │  FIN │ FIN ACK │ ACK -
 *           (0)    (1)      (0)    └───────────────────────────┘  (0)    (1)      (0)
 *
 * A TCP server that has no replies acknowledges. A flow that has a packet to send waits in its side's ready list, a ring, and goes
 * to its end after each packet: flows take turns. In a closed loop a step of the other side begins when the last packet before it has
 * come in; else at once. Which packets are made depends on seed and polling alone, never on chance.
 *
 * Time in the tag is when the packet was due, not when it was taken, so that a data plane that stalls is seen to (no coordinated
 * omission); as fast as possible, it is when it was taken.
 *
 * PERF: a frame is written as words; sums are of words as they lie in memory, so nothing is swapped (little-endian machines only).
 * The frame starts at 2 modulo 4 in its slot (packet/packet-pool.ts), so all fields behind the first two bytes are aligned.
 */

import { assert } from '../../base/assert.ts'
import { Random } from '../../base/random.ts'
import { loadKernels } from '../../memory/kernels/kernels.ts'
import { Descriptor, DESCRIPTOR_WORDS } from '../../packet/descriptor.ts'
import { SLOT_FRAME_OFFSET, type PacketPool } from '../../packet/packet-pool.ts'
import { DevicePort } from '../device-port.ts'
import { systemClock } from '../system-clock.ts'
import { TICKS_PER_US } from './latency-histogram.ts'
import { checkTrafficOptions, defaultMacs, SIZE_SLOTS, sizeTable, type TrafficOptions } from './traffic-options.ts'
import { createTrafficSink, SINK_ROOM, type TrafficSink } from './traffic-sink.ts'
import {
  createPatternTable, patternStart, tagCheck, TAG_BYTES, TAG_MAGIC, TAG_OPTION_BYTES, TAG_OPTION_WORD,
} from './traffic-tag.ts'

// PERF: module constants fold, imported ones do not (see packet/descriptor.ts).
const FRAME = Descriptor.frame
const LENGTH = Descriptor.length
const WIRE_LENGTH = Descriptor.wireLength
const SLOT = Descriptor.slot
const LINK_TYPE = Descriptor.linkType
const WORDS = DESCRIPTOR_WORDS
const FRAME_OFFSET = SLOT_FRAME_OFFSET
const MAGIC = TAG_MAGIC
const TAG = TAG_BYTES

/** Steps of a flow; odd ones are the server's. */
const SYN = 0
const SYN_ACK = 1
const ACK = 2
const REPLY = 3
const REQUEST = 4
const FIN_ACK = 5
const FIN = 6
const LAST_ACK = 8
/** A slot that has no flow yet. */
const NONE = -1

/** Words of a flow's state, 64 bytes. */
const NUMBER = 0
const STEP = 1
/** Packets left of this step, turns left after this one. */
const LEFT = 2
const TURNS = 3
/** Packets sent by each side, and the next byte of each side's TCP stream. */
const SENT = 4
const STREAM = 6
/** Waits for the other side's packet of this number; -1 if it does not. */
const AWAITED = 8
/** When it began to wait, ticks. */
const SINCE = 9
/** Bit 0 TCP, bit 1 IPv6. */
const KIND = 10
/** As they lie in memory: client's and server's address (IPv6: its last word), client's port and server's port. */
const CLIENT_ADDRESS = 11
const SERVER_ADDRESS = 12
const CLIENT_PORT = 13
const STATE_WORDS = 16

const TCP_FLAGS: readonly number[] = [0x02, 0x12, 0x10, 0x18, 0x18, 0x11, 0x11, 0, 0x10]
const PORTS = 64_512
/** Slots looked at for stalled flows at each poll. */
const STALL_LOOKS = 8
/** IPv6 addresses: 2001:2:0:side::number, the first two words as they lie in memory. */
const IPV6_WORD_0 = 0x02000120
const IPV6_SIDE = [0x01000000, 0x02000000]
/** TCP options of a SYN behind the tag: maximum segment size 1460, window scale 7. */
const OPTION_MSS = 0xb4050402 | 0
const OPTION_SCALE = 0x07030301

const swap16 = (x: number): number => ((x & 0xff) << 8) | ((x >>> 8) & 0xff)
const swap32 = (x: number): number => (x << 24) | ((x & 0xff00) << 8) | ((x >>> 8) & 0xff00) | (x >>> 24)
const halves = (x: number): number => (x & 0xffff) + (x >>> 16)
const fold = (x: number): number => {
  x = (x & 0xffff) + (x >>> 16)
  return ((x & 0xffff) + (x >>> 16)) & 0xffff
}

export interface TrafficSent {
  packets: number
  bytes: number
  /** Flows begun, ended as they should, and given up (closed loop). */
  opened: number
  ended: number
  stalled: number
}

export interface Traffic {
  /** The clients' port and the servers'. */
  readonly ports: readonly [DevicePort, DevicePort]
  /** What came in at either. */
  readonly sink: TrafficSink
  /** Live. */
  readonly sent: Readonly<TrafficSent>
  /** Opens no more flows; those that are open go on to their end. */
  drain(): void
  /** Sends nothing more. */
  stop(): void
  /** Flows open now. */
  readonly openFlows: number
}

/**
 * Makes a generator.
 *
 * @throws CodedError `NF_CONFIG_INVALID`, `NF_LIMIT` (no room in the arena)
 */
export function createTraffic(options: TrafficOptions): Traffic {
  checkTrafficOptions(options)
  const {
    arena, seed, flows, packetsPerSecond = Infinity, arrivals = 'constant', burst = 32, sizes = 60, tcpShare = 0, ipv6Share = 0,
    requestPackets = 1, replyPackets = 0, turns = Infinity, isClosedLoop = false, stallUs = 1e6, packets = Infinity, clients = 250,
    servers = 250, serverPort = 5001, macs = defaultMacs, clock = systemClock,
  } = options
  const { u8, u16, i32 } = arena
  const table = sizeTable(sizes)
  const longest = Math.max(128, ...table)
  const pattern = createPatternTable(arena, seed, longest)
  const { base, sums } = pattern
  const { copy } = loadKernels(arena)
  const sink = createTrafficSink({ arena, seed, flows, frameBytes: longest, macs, clock }, pattern)
  const sent: TrafficSent = { packets: 0, bytes: 0, opened: 0, ended: 0, stalled: 0 }

  const states = new Int32Array(flows * STATE_WORDS)
  const numbersEnd = Math.floor(2 ** 32 / flows) * flows
  const replies = replyPackets
  const turnsMax = turns === Infinity ? 0x7fffffff : turns
  const tcpBelow = tcpShare * 65536
  const ipv6Below = ipv6Share * 65536
  const interval = 1e6 / packetsPerSecond
  const isEndless = interval === 0
  const stallTicks = stallUs * TICKS_PER_US
  const linkWords = [linkOf(macs[1], macs[0]), linkOf(macs[0], macs[1])]

  // Ready lists: rings of slots, one per side.
  const ringMask = 2 ** Math.ceil(Math.log2(flows)) - 1
  const rings = [new Int32Array(ringMask + 1), new Int32Array(ringMask + 1)]
  const heads = new Int32Array(2)
  const tails = new Int32Array(2)
  const sizeRandoms = [new Random(seed ^ 0x512e), new Random(seed ^ 0x512f)]
  const timeRandoms = [new Random(seed ^ 0x717e), new Random(seed ^ 0x717f)]
  /** When each side's next packet is due, and how many more are due then. */
  const dues = new Float64Array(2).fill(-1)
  const burstsLeft = new Int32Array(2)
  let isDraining = false
  let isStopped = false
  let open = 0
  let stallAt = 0

  for (let slot = 0; slot < flows; slot++) {
    states[slot * STATE_WORDS + STEP] = NONE
    states[slot * STATE_WORDS + NUMBER] = slot
    states[slot * STATE_WORDS + AWAITED] = -1
    push(0, slot)
  }

  function push(side: number, slot: number): void {
    const ring = rings[side] as Int32Array
    ring[tails[side] & ringMask] = slot
    tails[side]++
  }

  // -- Flows -----------------------------------------------------------------------------------------------------------

  function openFlow(s: number): void {
    const number = states[s + NUMBER] >>> 0
    let mixed = Math.imul((number ^ seed) + 0x632be5ab, 0x2c1b3c6d)
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x297a2d39)
    mixed ^= mixed >>> 15
    const isTcp = (mixed & 0xffff) < tcpBelow
    const isIpv6 = (mixed >>> 16) < ipv6Below
    const row = Math.floor(number / clients)
    const client = 1 + number % clients
    const server = 1 + Math.floor(row / PORTS) % servers
    states[s + KIND] = (isTcp ? 1 : 0) | (isIpv6 ? 2 : 0)
    states[s + CLIENT_ADDRESS] = swap32(isIpv6 ? client : (198 << 24 | 18 << 16) + client)
    states[s + SERVER_ADDRESS] = swap32(isIpv6 ? server : (198 << 24 | 19 << 16) + server)
    states[s + CLIENT_PORT] = swap16(1024 + row % PORTS)
    states[s + SENT] = 0
    states[s + SENT + 1] = 0
    states[s + STREAM] = mixed
    states[s + STREAM + 1] = Math.imul(mixed, 0x9e3779b1)
    states[s + TURNS] = turnsMax
    states[s + STEP] = isTcp ? SYN : REQUEST
    states[s + LEFT] = isTcp ? 1 : requestPackets
    open++
    sent.opened++
  }

  /** The slot's next flow, if there is to be one. */
  function renew(slot: number): void {
    const s = slot * STATE_WORDS
    const number = (states[s + NUMBER] >>> 0) + flows
    states[s + NUMBER] = number >= numbersEnd ? slot : number
    states[s + STEP] = NONE
    states[s + AWAITED] = -1
    open--
    if (!isDraining) push(0, slot)
  }

  /** A packet of the flow has been sent: what comes next, and who may send it. */
  function goOn(slot: number, s: number, side: number, ticks: number): void {
    if (--states[s + LEFT] > 0) return push(side, slot)
    const isTcp = (states[s + KIND] & 1) !== 0
    let step = states[s + STEP]
    if (step === SYN) step = SYN_ACK
    else if (step === SYN_ACK) step = ACK
    else if (step === ACK) step = REQUEST
    else if (step === REQUEST && (replies > 0 || isTcp)) step = REPLY
    else if (step === REQUEST || step === REPLY) {
      const isLast = turnsMax !== 0x7fffffff && --states[s + TURNS] <= 0
      step = !isLast ? REQUEST : isTcp ? FIN : NONE
    } else if (step === FIN) step = FIN_ACK
    else if (step === FIN_ACK) step = LAST_ACK
    else step = NONE
    if (step === NONE) {
      sent.ended++
      return renew(slot)
    }
    states[s + STEP] = step
    states[s + LEFT] = step === REQUEST ? requestPackets : step === REPLY && replies > 0 ? replies : 1
    const next = step & 1
    if (!isClosedLoop || next === side) return push(next, slot)
    states[s + AWAITED] = states[s + SENT + side] - 1
    states[s + SINCE] = ticks
  }

  /** Takes what came out at a side; in a closed loop it may be what a flow waits for. */
  function takeIn(frame: number, length: number, atSide: number): void {
    if (!sink.take(frame, length, atSide) || !isClosedLoop) return
    const slot = (sink.flow >>> 0) % flows
    const s = slot * STATE_WORDS
    if (states[s + NUMBER] !== sink.flow || states[s + AWAITED] !== sink.sequence || (states[s + STEP] & 1) === sink.side) return
    states[s + AWAITED] = -1
    push(states[s + STEP] & 1, slot)
  }

  /** Gives up flows that have waited for too long, a few slots at a time. */
  function lookForStalled(ticks: number): void {
    for (let i = 0; i < STALL_LOOKS; i++) {
      stallAt = stallAt + 1 < flows ? stallAt + 1 : 0
      const s = stallAt * STATE_WORDS
      if (states[s + AWAITED] < 0 || ((ticks - states[s + SINCE]) | 0) < stallTicks) continue
      sent.stalled++
      renew(stallAt)
    }
  }

  // -- Frames ----------------------------------------------------------------------------------------------------------

  /** Bytes of the flow's next packet. */
  function lengthOf(s: number, side: number): number {
    const kind = states[s + KIND]
    const step = states[s + STEP]
    const link = (kind & 2) !== 0 ? 54 : 34
    if ((kind & 1) === 0 || step === REQUEST || (step === REPLY && replies > 0)) {
      const least = link + ((kind & 1) !== 0 ? 20 : 8) + TAG
      const size = table[(sizeRandoms[side] as Random).int32() & (SIZE_SLOTS - 1)]
      return size > least ? size : least
    }
    return link + 20 + TAG_OPTION_BYTES + (step <= SYN_ACK ? 8 : 0)
  }

  /** Writes the flow's next packet, `length` bytes from `frame`. */
  function write(frame: number, length: number, s: number, side: number, ticks: number): void {
    const kind = states[s + KIND]
    const isTcp = (kind & 1) !== 0
    const links = linkWords[side] as Int32Array
    const sequence = states[s + SENT + side]++
    const from = states[s + CLIENT_ADDRESS + side]
    const to = states[s + SERVER_ADDRESS - side]
    const client = states[s + CLIENT_PORT]
    const ports = side === 0 ? client | serverPortWord << 16 : serverPortWord | client << 16
    let w = (frame + 2) >> 2
    u16[frame >> 1] = links[0]
    i32[w] = links[1]
    i32[w + 1] = links[2]
    let sum = halves(from) + halves(to) + halves(ports)
    let bytes: number
    if ((kind & 2) === 0) {
      bytes = length - 34
      const lengthWord = 0x0045 | swap16(bytes + 20) << 16
      const idWord = swap16(sequence & 0xffff) | 0x0040 << 16
      const life = 0x40 | (isTcp ? 6 : 17) << 8
      i32[w + 2] = links[3] | 0x0008 << 16
      i32[w + 3] = lengthWord
      i32[w + 4] = idWord
      i32[w + 5] = life | (~fold(halves(lengthWord) + halves(idWord) + life + halves(from) + halves(to)) & 0xffff) << 16
      i32[w + 6] = from
      i32[w + 7] = to
      w += 8
    } else {
      bytes = length - 54
      i32[w + 2] = links[3] | 0xdd86 << 16
      i32[w + 3] = 0x60
      i32[w + 4] = swap16(bytes) | (isTcp ? 6 : 17) << 16 | 0x40 << 24
      i32[w + 5] = i32[w + 9] = IPV6_WORD_0
      i32[w + 6] = IPV6_SIDE[side]
      i32[w + 10] = IPV6_SIDE[side ^ 1]
      i32[w + 7] = i32[w + 11] = 0
      i32[w + 8] = from
      i32[w + 12] = to
      sum += IPV6_SUM
      w += 13
    }
    const checksumAt = isTcp ? (w + 4) << 1 : ((w + 1) << 1) + 1
    i32[w] = ports
    if (isTcp) {
      const step = states[s + STEP]
      const isData = step === REQUEST || (step === REPLY && replies > 0)
      const headerBytes = isData ? 20 : step <= SYN_ACK ? 48 : 40
      const own = states[s + STREAM + side]
      const ownWord = swap32(own)
      const ackWord = step === SYN ? 0 : swap32(states[s + STREAM + 1 - side])
      const flags = headerBytes << 2 | (step === REPLY && !isData ? 0x10 : TCP_FLAGS[step]) << 8 | 0xffff << 16
      const isFlagged = step <= SYN_ACK || step === FIN || step === FIN_ACK
      states[s + STREAM + side] = own + bytes - headerBytes + (isFlagged ? 1 : 0)
      i32[w + 1] = ownWord
      i32[w + 2] = ackWord
      i32[w + 3] = flags
      i32[w + 4] = 0
      sum += halves(ownWord) + halves(ackWord) + halves(flags) + swap16(bytes) + (6 << 8)
      w += 5
      if (!isData) {
        i32[w++] = TAG_OPTION_WORD
        sum += OPTION_SUM
        if (step <= SYN_ACK) {
          i32[w + 4] = OPTION_MSS
          i32[w + 5] = OPTION_SCALE
          sum += SYN_SUM
        }
        writeTag(w, states[s + NUMBER], sequence | side << 31, ticks, sum, checksumAt)
        return
      }
    } else {
      const lengthField = swap16(bytes)
      i32[w + 1] = lengthField
      sum += 2 * lengthField + (17 << 8)
      w += 2
    }
    // The pattern.
    const number = states[s + NUMBER]
    const numbered = sequence | side << 31
    const start = patternStart(number, numbered)
    const at = (w << 2) + TAG
    const rest = frame + length - at
    const source = base + start
    if (rest <= 16) for (let i = 0; i < rest; i += 4) i32[(at + i) >> 2] = i32[(source + i) >> 2]
    else copy(at, source, rest)
    const word = start >> 1
    sum += fold(sums[word + (rest >> 1)] - sums[word])
    if ((rest & 1) !== 0) sum += u8[source + rest - 1]
    writeTag(w, number, numbered, ticks, sum, checksumAt)
  }

  /** Writes the tag and, as the sum of all the rest is known, the checksum. */
  function writeTag(w: number, number: number, numbered: number, ticks: number, sum: number, checksumAt: number): void {
    const first = MAGIC | tagCheck(seed, number, numbered, ticks) << 16
    i32[w] = first
    i32[w + 1] = number
    i32[w + 2] = numbered
    i32[w + 3] = ticks
    const checksum = ~fold(sum + halves(first) + halves(number) + halves(numbered) + halves(ticks)) & 0xffff
    // RFC 768: a UDP checksum of 0 is sent as its equal.
    u16[checksumAt] = checksum === 0 ? 0xffff : checksum
  }

  const serverPortWord = swap16(serverPort)
  const IPV6_SUM = 2 * halves(IPV6_WORD_0) + halves(IPV6_SIDE[0] as number) + halves(IPV6_SIDE[1] as number)
  const OPTION_SUM = halves(TAG_OPTION_WORD)
  const SYN_SUM = halves(OPTION_MSS) + halves(OPTION_SCALE)

  // -- Time ------------------------------------------------------------------------------------------------------------

  /** Sets when the side's next packet is due. */
  function schedule(side: number): void {
    if (arrivals === 'constant') dues[side] += interval
    else if (arrivals === 'poisson') dues[side] -= Math.log(1 - (timeRandoms[side] as Random).fraction()) * interval
    else if (--burstsLeft[side] <= 0) {
      burstsLeft[side] = burst
      dues[side] -= Math.log(1 - (timeRandoms[side] as Random).fraction()) * interval * burst
    }
  }

  function receive(side: number, pool: PacketPool, descriptors: number, max: number): number {
    sink.beginTurn()
    const now = clock.now()
    const nowTicks = (now * TICKS_PER_US) | 0
    if (isClosedLoop) lookForStalled(nowTicks)
    if (isStopped) return 0
    if (dues[side] < 0) {
      dues[side] = now
      burstsLeft[side] = burst
    }
    const ring = rings[side] as Int32Array
    let count = 0
    while (count < max && (isEndless || dues[side] <= now) && sent.packets < packets) {
      if (heads[side] === tails[side]) {
        dues[side] = Math.max(dues[side], now)
        break
      }
      const slot = ring[heads[side] & ringMask]
      const s = slot * STATE_WORDS
      if (states[s + STEP] === NONE) {
        if (isDraining) {
          heads[side]++
          continue
        }
        openFlow(s)
      }
      const length = lengthOf(s, side)
      const packet = pool.take(length)
      if (packet === 0) break
      heads[side]++
      const ticks = isEndless ? nowTicks : (dues[side] * TICKS_PER_US) | 0
      const frame = packet + FRAME_OFFSET
      write(frame, length, s, side, ticks)
      goOn(slot, s, side, nowTicks)
      if (!isEndless) schedule(side)
      sent.packets++
      sent.bytes += length
      const d = descriptors + count++ * WORDS
      i32[d + FRAME] = frame
      i32[d + LENGTH] = length
      i32[d + WIRE_LENGTH] = length
      i32[d + SLOT] = packet
      i32[d + LINK_TYPE] = 1
    }
    return count
  }

  class TrafficPort extends DevicePort {
    readonly #side: number

    constructor(side: number) {
      super(side === 0 ? 'clients' : 'servers')
      this.#side = side
    }

    get room(): number {
      return SINK_ROOM
    }

    receive(pool: PacketPool, descriptors: number, max: number): number {
      const bytes = sent.bytes
      const count = receive(this.#side, pool, descriptors, max)
      this.countIn(count, sent.bytes - bytes)
      return count
    }

    send(frame: number, length: number): boolean {
      if (length > this.frameBytesMax) return this.countOut(false, length)
      takeIn(frame, length, this.#side)
      return this.countOut(true, length)
    }

    arm(): boolean {
      return isStopped || sent.packets >= packets
    }
  }

  assert(new Uint8Array(Uint16Array.of(1).buffer)[0] === 1, 'the generator runs on little-endian machines')
  return {
    ports: [new TrafficPort(0), new TrafficPort(1)],
    sink,
    sent,
    drain() { isDraining = true },
    stop() { isStopped = true },
    get openFlows() { return open },
  }
}

/** The 14 bytes of a link header but its type, as four words that lie at 2 modulo 4: 2, 4, 4 and 2 bytes. */
function linkOf(to: Uint8Array, from: Uint8Array): Int32Array {
  const word = (bytes: readonly number[]): number => bytes.reduce((sum, byte, index) => sum | byte << (8 * index), 0)
  const bytes = [...to, ...from]
  return Int32Array.of(word(bytes.slice(0, 2)), word(bytes.slice(2, 6)), word(bytes.slice(6, 10)), word(bytes.slice(10, 12)))
}
