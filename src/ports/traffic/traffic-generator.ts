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
 * come in; else at once. Which packets are made, and in which order, depends on the seed and on the order of polling alone.
 *
 * Time in the tag is when the packet was due, not when it was taken, so that a data plane that stalls is seen to (no coordinated
 * omission); as fast as possible, it is when it was taken.
 */

import { Random } from '../../base/random.ts'
import { DESCRIPTOR_WORDS } from '../../packet/descriptor.ts'
import { describeFrame, type PacketPool, SLOT_FRAME_OFFSET } from '../../packet/packet-pool.ts'
import { DevicePort } from '../device-port.ts'
import { systemClock } from '../system-clock.ts'
import { TICKS_PER_US } from './latency-histogram.ts'
import { FLOW_WORDS, FlowStep, FlowWord } from './traffic-flow.ts'
import { createFrameWriter, swap16, swap32 } from './traffic-frames.ts'
import { checkTrafficOptions, defaultMacs, SIZE_SLOTS, sizeTable, type TrafficOptions } from './traffic-options.ts'
import { createTrafficSink, SINK_ROOM, type TrafficSink } from './traffic-sink.ts'
import { createPatternTable, TAG_BYTES, TAG_OPTION_BYTES } from './traffic-tag.ts'

// PERF: module constants fold, imported ones do not (see packet/descriptor.ts).
const WORDS = DESCRIPTOR_WORDS
const FRAME_OFFSET = SLOT_FRAME_OFFSET
const TAG = TAG_BYTES

const { syn: SYN, synAck: SYN_ACK, ack: ACK, reply: REPLY, request: REQUEST, finAck: FIN_ACK, fin: FIN, lastAck: LAST_ACK } = FlowStep
const NONE = FlowStep.none
const { number: NUMBER, step: STEP, left: LEFT, turns: TURNS, sent: SENT, stream: STREAM, awaited: AWAITED, since: SINCE } = FlowWord
const { kind: KIND, clientAddress: CLIENT_ADDRESS, serverAddress: SERVER_ADDRESS, clientPort: CLIENT_PORT } = FlowWord
const STATE_WORDS = FLOW_WORDS

/** Ports of a client. */
const PORTS = 64_512
/** Slots looked at for stalled flows at each poll. */
const STALL_LOOKS = 8
/** A side that has sent so many packets ends its flow after the turn: sequence numbers have 31 bits. */
const SENT_MAX = 2 ** 30

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
  /** Packets per second of each side from now on. @throws CodedError `NF_CONFIG_INVALID` */
  setRate(packetsPerSecond: number): void
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
  const { i32 } = arena
  const table = sizeTable(sizes)
  const longest = Math.max(128, ...table)
  const pattern = createPatternTable(arena, seed, longest)
  const sink = createTrafficSink({ arena, seed, flows, frameBytes: longest, macs, clock }, pattern)
  const sent: TrafficSent = { packets: 0, bytes: 0, opened: 0, ended: 0, stalled: 0 }

  const states = new Int32Array(flows * STATE_WORDS)
  const numbersEnd = Math.floor(2 ** 32 / flows) * flows
  const replies = replyPackets
  const turnsMax = turns === Infinity ? 0x7fffffff : turns
  const tcpBelow = tcpShare * 65536
  const ipv6Below = ipv6Share * 65536
  let interval = 1e6 / packetsPerSecond
  const stallTicks = stallUs * TICKS_PER_US
  const write = createFrameWriter({ arena, seed, states, pattern, macs, serverPort, hasReplies: replies > 0 })

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
  /** Length of each side's next packet, when it has been drawn and there was no slot for it. */
  const drawn = new Int32Array(2)
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
      const isOver = states[s + SENT] >= SENT_MAX || states[s + SENT + 1] >= SENT_MAX
      const isLast = isOver || (turnsMax !== 0x7fffffff && --states[s + TURNS] <= 0)
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
    const isEndless = interval === 0
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
      const length = drawn[side] !== 0 ? drawn[side] : lengthOf(s, side)
      const packet = pool.take(length)
      drawn[side] = packet === 0 ? length : 0
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
      describeFrame(i32, d, packet, length)
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

  return {
    ports: [new TrafficPort(0), new TrafficPort(1)],
    sink,
    sent,
    drain() { isDraining = true },
    stop() { isStopped = true },
    setRate(packetsPerSecond) {
      checkTrafficOptions({ ...options, packetsPerSecond })
      interval = 1e6 / packetsPerSecond
      // What was due under the old rate is not owed under the new one.
      dues.fill(-1)
    },
    get openFlows() { return open },
  }
}
