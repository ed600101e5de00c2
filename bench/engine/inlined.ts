/**
 * The chain monitor-firewall-http as one hand-written function over the flat memory: what it would cost without the SDK. The
 * baseline for what modularity costs.
 *
 * The fast path of a packet is one function: no views, no chain compiler, no NF modules, every field by its number. It works on
 * the engine's own memory layout, batch stages, parser, tables and record buffer, so that what differs from the engine is only
 * how the code is put together. Rare paths (a flow opens, SYN, FIN and RST, streams that are not in order, odd messages) are the
 * modules'.
 *
 *     line 0   0 key   44 phase, opener, tcp   48 last seen   56 hash
 *     line 1  64 packets   72 bytes
 *     line 2 128 monitor   168 firewall: verdict, tcp, rule; sides at 172, 184; 196 flags, scales
 *     line 3 200 http: requests, responses; 208 outstanding; sides at 212, 232; 252 last
 */

import { assert } from '../../src/base/assert.ts'
import { BATCH_PACKETS, defaultTimeouts, type EngineLimits } from '../../src/base/limits.ts'
import { Random } from '../../src/base/random.ts'
import type { Arena } from '../../src/memory/arena.ts'
import { ExtentPool } from '../../src/memory/extent-pool.ts'
import {
  AT_ATTRIBUTES, AT_CONTENT_LENGTH, AT_HEAD_END, AT_HOST, AT_HOST_LENGTH, AT_KIND, AT_METHOD, AT_METHOD_ID, AT_METHOD_LENGTH,
  AT_STATUS, AT_URI, AT_URI_LENGTH, AT_VERSION_MAJOR, AT_VERSION_MINOR, HAS_TRANSFER_ENCODING, HEAD_BLOCK_BYTES, HEAD_COMPLETE,
  KIND_EITHER, KIND_REQUEST, METHOD_CONNECT, METHOD_HEAD,
} from '../../src/memory/kernels/http-head-block.ts'
import { loadKernels } from '../../src/memory/kernels/kernels.ts'
import { Slab } from '../../src/memory/slab.ts'
import type { Struct } from '../../src/memory/struct.ts'
import { TimingWheel } from '../../src/memory/timing-wheel.ts'
import { FlowPhase, FlowRecord, TcpLife } from '../../src/flow/flow-record.ts'
import { FlowTable } from '../../src/flow/flow-table.ts'
import { Descriptor, DESCRIPTOR_BYTES } from '../../src/packet/descriptor.ts'
import { createParser } from '../../src/packet/parse.ts'
import { createPacketView } from '../../src/packet/packet-view.ts'
import { compileChain, type ChainHost, type ChainMember, type ChainNf } from '../../src/nf/chain.ts'
import { RecordBuffer, type RecordOrigin } from '../../src/nf/record-buffer.ts'
import { OUTSTANDING_MAX as HTTP_OUTSTANDING_MAX, Phase, SideFlag } from '../../src/nfs/http/http-state.ts'
import { TcpState } from '../../src/nfs/firewall/tcp-tracking.ts'
import type { Engine } from '../../src/runtime/engine.ts'

// PERF: module constants fold, imported ones do not (see packet/descriptor.ts).
const FRAME = Descriptor.frame
const LENGTH = Descriptor.length
const PAYLOAD = Descriptor.payload
const PAYLOAD_LENGTH = Descriptor.payloadLength
const TRANSPORT = Descriptor.transport
const META = Descriptor.meta
const RESULT = Descriptor.result
const HASH = Descriptor.hash
const RECORD = Descriptor.record
const TIME = Descriptor.time
const KEY = Descriptor.key
const WIRE_LENGTH = Descriptor.wireLength
const SEQUENCE = Descriptor.sequence
const WORDS = 32

const STATE = 44
const LAST_SEEN = 48
const PACKETS = 64
const BYTES = 72
const MONITOR = 128
const FIREWALL = 168
const HTTP = 200
const RECORD_BYTES = 256

/** Phase active and no flags. */
const ACTIVE = FlowPhase.active
const SYN_FIN_RST = 7 << 8
const CONTROL = 0x17 << 8
const ACK = 0x10 << 8
const ACCEPT = 1
const ESTABLISHED = TcpState.established
/** How far an acknowledgement may lie behind. */
const ACK_SLACK = 66_000
const IN_BODY = Phase.body << 16
const IN_HEAD = Phase.head << 16
const AT_START = (Phase.start << 16) | (SideFlag.synchronised << 24)
const AT_OTHER = Phase.other
const OUTSTANDING_MAX = HTTP_OUTSTANDING_MAX
/** Within the last message's extent: status and texts. */
const LAST_METHOD = 2
const LAST_HOST = 28
const LAST_URI = 158
const LAST_BYTES = 416
/** The bytes of an extent before its data. */
const EXTENT_HEADER = 16

interface Text { copyFrom(offset: number, length: number): void, write(text: string): void }
interface RequestRecord { method: Text, host: Text, uri: Text, version: Text, begin(direction: number): void, commit(): void }
interface ResponseRecord { status: number, version: Text, begin(direction: number): void, commit(): void }

/** What the bench uses of an engine. */
export type InlinedEngine = Pick<Engine, 'arena' | 'extents' | 'records' | 'chain' | 'table' | 'batchPackets' | 'descriptor' |
  'batchCount' | 'process' | 'outputs' | 'clearOutput' | 'flows'> & { statistics: { forwarded: number, dropped: number } }

export interface InlinedOptions {
  readonly arena: Arena
  /** The modules, for the rare paths. */
  readonly chain: readonly ChainMember[]
  readonly limits: EngineLimits
  readonly seed: number
  readonly wasm: boolean
}

/** The numbers in this file are those of the modules' schemas. */
function checkLayout(nf: ChainNf, offset: number, fields: Readonly<Record<string, number>>): void {
  assert(nf.stateOffset === offset, 'a state lies where it is taken to lie')
  for (const [name, at] of Object.entries(fields)) {
    const schema = nf.definition.flowState as Struct<any>
    assert(schema.layout.find((field) => field.name === name)?.offset === at, 'a field lies where it is taken to lie')
  }
}

export function createInlined({ arena, chain: members, limits, seed, wasm }: InlinedOptions): InlinedEngine {
  const { i32, u8, u16, u32, f64, view } = arena
  const timeouts = defaultTimeouts
  const kernels = loadKernels(arena, { wasm })
  const { parseHttpHead } = kernels
  const random = new Random(seed)
  const parser = createParser(arena, random.int32())
  const parse = parser.parse
  const packet = createPacketView(arena)
  const extents = new ExtentPool(arena, Math.max(1, Math.floor(limits.extentBytes / 512)), 512)
  const descriptors = arena.allocate('batch', BATCH_PACKETS * DESCRIPTOR_BYTES) >> 2
  const outputs = arena.allocate('output', BATCH_PACKETS * 4) >> 2
  const sink = arena.allocate('touch', 64) >> 2
  const block = arena.allocate('http head result', HEAD_BLOCK_BYTES, 64)
  packet.d = descriptors
  const origin: RecordOrigin = {
    get record() { return i32[packet.d + RECORD] },
    get fromB() { return (i32[packet.d + META] >>> 16) & 1 },
    get opener() { return u8[i32[packet.d + RECORD] + FlowRecord.opener] },
    get timeIndex() { return (packet.d + TIME) >> 1 },
  }
  const records = new RecordBuffer(arena, limits.recordBytes, origin, kernels.copy)
  const unused = (): never => { throw new Error('not part of this bench') }
  const host: ChainHost = {
    arena, extents, kernels, records, origin, packet, flow: {} as ChainHost['flow'],
    emit: { copy: unused, frame: unused, send: unused },
    timer: () => ({ set: unused, clear: unused, isSet: false }),
    held: () => ({ count: 0, retry: unused, release: unused, drop: unused }),
    alias: () => ({ claim: unused }),
    random: () => random.int32(),
    reconsider: unused,
  }
  const chain = compileChain(members, host)
  const [monitor, firewall, http] = chain.nfs
  checkLayout(monitor, MONITOR, { packets: 0, bytes: 16, lengthMin: 32, lengthMax: 34, tcpFlags: 36 })
  checkLayout(firewall, FIREWALL, { verdict: 0, tcp: 1, forward: 4, reverse: 16, scales: 30 })
  checkLayout(http, HTTP, { requests: 0, responses: 4, outstanding: 8, sides: 12, last: 52 })
  assert(chain.recordBytes === RECORD_BYTES, 'a flow record has four lines')
  const { methods: firewallMethods, state: firewallState } = firewall
  const { methods: httpMethods, state: httpState } = http
  const monitorCounters = (monitor.counters as unknown as { o: number }).o
  const httpCounters = (http.counters as unknown as { o: number }).o
  const request = records.writer(2, 'request', http.definition.records.request) as unknown as RequestRecord
  const response = records.writer(2, 'response', http.definition.records.response) as unknown as ResponseRecord
  const table = new FlowTable(arena, 'flow table', limits.flows)
  const slab = new Slab(arena, 'flow records', limits.flows, RECORD_BYTES)
  const wheel = new TimingWheel(arena, 'flow timers', {
    next: FlowRecord.wheelNext, previous: FlowRecord.wheelPrevious, deadline: FlowRecord.wheelDeadline,
  })
  const tableBase = table.base
  const tableShift = table.shift
  const tableMask = table.slots - 1
  const statistics = { forwarded: 0, dropped: 0, received: 0, bytesReceived: 0, bytesForwarded: 0, flowsCreated: 0 }
  let batchCount = 0
  let outputCount = 0
  let epochUs = -1

  // -- Batch, in the engine's stages -----------------------------------------------------------------------------------

  function process(time = -1): number {
    const end = descriptors + batchCount * WORDS
    let touched = 0
    let bytes = 0
    for (let d = descriptors; d < end; d += WORDS) touched ^= u8[i32[d + FRAME] + 14]
    for (let d = descriptors; d < end; d += WORDS) {
      f64[(d + TIME) >> 1] = time
      i32[d + WIRE_LENGTH] = i32[d + LENGTH]
      bytes += i32[d + WIRE_LENGTH]
      parse(d)
    }
    for (let d = descriptors; d < end; d += WORDS) touched ^= i32[tableBase + (i32[d + HASH] >>> tableShift) * 2]
    for (let d = descriptors; d < end; d += WORDS) i32[d + RECORD] = guess(i32[d + HASH])
    for (let d = descriptors; d < end; d += WORDS) {
      const at = i32[d + RECORD] >> 2
      touched ^= i32[at] ^ i32[at + 16] ^ i32[at + 32] ^ i32[at + 48]
    }
    i32[sink] = touched
    for (let d = descriptors; d < end; d += WORDS) {
      const result = i32[d + RESULT]
      if (result === 0) actor(d)
      else if (result < 0) statistics.dropped++
      else forward(d)
    }
    let leaving = 0
    for (let i = 0; i < outputCount; i++) leaving += i32[i32[outputs + i] + WIRE_LENGTH]
    statistics.forwarded += outputCount
    statistics.bytesForwarded += leaving
    statistics.received += batchCount
    statistics.bytesReceived += bytes
    batchCount = 0
    return outputCount
  }

  function guess(hash: number): number {
    let slot = hash >>> tableShift
    for (;;) {
      const at = tableBase + slot * 2
      const record = i32[at + 1]
      if (record === 0 || i32[at] === hash) return record
      slot = (slot + 1) & tableMask
    }
  }

  function forward(d: number): void {
    i32[outputs + outputCount] = d
    outputCount++
  }

  /** One packet, from its flow to its verdict. */
  function actor(d: number): void {
    let record = i32[d + RECORD]
    const at = record >> 2
    if (record === 0 || i32[at] !== i32[d + KEY] || i32[at + 1] !== i32[d + KEY + 1] || i32[at + 2] !== i32[d + KEY + 2] ||
        i32[at + 3] !== i32[d + KEY + 3] || i32[at + 7] !== i32[d + KEY + 7]) {
      record = findOrOpen(d)
      if (record === 0) return
    }
    const meta = i32[d + META]
    if ((i32[(record + STATE) >> 2] & 0xffff) !== ACTIVE || (meta & SYN_FIN_RST) !== 0) {
      record = tcpLife(d, record)
      if (record === 0) return
    }
    const direction = ((meta >>> 16) ^ u8[record + FlowRecord.opener]) & 1
    const length = i32[d + WIRE_LENGTH]
    f64[(record + LAST_SEEN) >> 3] = f64[(d + TIME) >> 1]
    f64[(record + PACKETS) >> 3] += 1
    f64[(record + BYTES) >> 3] += length

    // Monitor.
    const counts = ((record + MONITOR) >> 3) + direction
    f64[counts] += 1
    f64[counts + 2] += length
    const lengths = (record + MONITOR + 32) >> 1
    if (length < u16[lengths]) u16[lengths] = length
    if (length > u16[lengths + 1]) u16[lengths + 1] = length
    u8[record + MONITOR + 36 + direction] |= meta >>> 8
    const counters = monitorCounters >> 3
    f64[counters] += 1
    f64[counters + 1] += length

    // Firewall.
    const transport = i32[d + TRANSPORT]
    const payloadLength = i32[d + PAYLOAD_LENGTH]
    const sequence = i32[d + SEQUENCE]
    const acknowledgement = transport !== 0 ? view.getInt32(transport + 8) : 0
    if (!isExpected(record, direction, meta, transport, sequence, acknowledgement, payloadLength)) {
      packet.d = d
      packet.direction = direction
      firewallState.o = record + FIREWALL
      if (firewallMethods.processPacket(packet, firewallState) !== 0) {
        statistics.dropped++
        return
      }
    }

    // HTTP.
    const side = ((record + HTTP + 12) >> 2) + direction * 5
    const place = i32[side + 4]
    const other = ((record + HTTP + 12) >> 2) + 5 - direction * 5
    if ((meta & CONTROL) === ACK && (meta & 255) === 6 && i32[side + 1] === 0 &&
        ((acknowledgement - i32[other]) | 0) <= 0) {
      if (payloadLength === 0 || ((place >>> 16) & 255) === AT_OTHER) {
        forward(d)
        return
      }
      if (sequence === i32[side]) {
        if ((place & 0xffffff) === IN_BODY) {
          const left = i32[side + 3] - payloadLength
          if (left >= 0) {
            i32[side] = (sequence + payloadLength) | 0
            i32[side + 3] = left
            if (left === 0) i32[side + 4] = (place & ~0xffffff) | IN_HEAD
            forward(d)
            return
          }
        } else if (((place & 0xffffff) === IN_HEAD || place === AT_START) && i32[side + 2] === 0 &&
            head(d, record, direction, side, sequence, payloadLength)) {
          forward(d)
          return
        }
      }
    }
    packet.d = d
    packet.direction = direction
    httpState.o = record + HTTP
    httpMethods.processPacket(packet, httpState)
    forward(d)
  }

  /** Whether this is the next segment of an established connection of an accepted flow; takes note of it. */
  function isExpected(record: number, direction: number, meta: number, transport: number, sequence: number,
      acknowledgement: number, payloadLength: number): boolean {
    const state = (record + FIREWALL) >> 2
    if ((i32[state] & 0xffff) !== (ACCEPT | (ESTABLISHED << 8)) || (meta & CONTROL) !== ACK) return false
    const sender = state + 1 + direction * 3
    const receiver = state + 4 - direction * 3
    const receiverWindow = i32[receiver + 2]
    if (((sequence - i32[receiver + 1] - receiverWindow) | 0) > 0) return false
    const end = (sequence + payloadLength) | 0
    const ahead = (end - i32[sender]) | 0
    if (((ahead + receiverWindow) | 0) < 0) return false
    if (((acknowledgement - i32[receiver]) | 0) > 0) return false
    const senderWindow = i32[sender + 2]
    const acknowledged = i32[sender + 1]
    const fresh = (acknowledgement - acknowledged) | 0
    if (fresh < -ACK_SLACK && fresh < -senderWindow) return false
    // PERF: sums, not branches: whether a segment has data is as good as random.
    i32[sender] = end - (ahead & (ahead >> 31))
    i32[sender + 1] = acknowledged + (fresh & ~(fresh >> 31))
    const scaled = view.getUint16(transport + 14) << ((u8[record + FIREWALL + 30] >>> (direction << 2)) & 15)
    if (scaled > senderWindow) i32[sender + 2] = scaled
    return true
  }

  /**
   * A whole head at the start of a segment, and a body that fills at least the rest of it. False, with nothing changed, if
   * not.
   */
  function head(d: number, record: number, direction: number, side: number, sequence: number,
      payloadLength: number): boolean {
    const payload = i32[d + PAYLOAD]
    if (parseHttpHead(payload, payload + payloadLength, KIND_EITHER, block) !== HEAD_COMPLETE) return false
    const left = payload + payloadLength - i32[(block + AT_HEAD_END) >> 2]
    const body = f64[(block + AT_CONTENT_LENGTH) >> 3]
    if ((i32[(block + AT_ATTRIBUTES) >> 2] & HAS_TRANSFER_ENCODING) !== 0 || body < left || body > 0x7fffffff) return false
    const state = (record + HTTP) >> 2
    const last = i32[state + 13] === 0 ? createLast(state + 13) : i32[state + 13] + EXTENT_HEADER
    if (last === 0) return false
    packet.d = d
    if (i32[(block + AT_KIND) >> 2] === KIND_REQUEST) {
      const method = i32[(block + AT_METHOD_ID) >> 2]
      if (method === METHOD_HEAD || method === METHOD_CONNECT || left === 0) return false
      u32[state]++
      if ((i32[state + 2] & 15) < OUTSTANDING_MAX) i32[state + 2]++
      f64[httpCounters >> 3] += 1
      request.begin(direction)
      request.method.copyFrom(i32[(block + AT_METHOD) >> 2], i32[(block + AT_METHOD_LENGTH) >> 2])
      request.host.copyFrom(i32[(block + AT_HOST) >> 2], i32[(block + AT_HOST_LENGTH) >> 2])
      request.uri.copyFrom(i32[(block + AT_URI) >> 2], i32[(block + AT_URI_LENGTH) >> 2])
      writeVersion(request.version)
      request.commit()
      copyText(last + LAST_METHOD, i32[(block + AT_METHOD) >> 2], i32[(block + AT_METHOD_LENGTH) >> 2], 24)
      copyText(last + LAST_HOST, i32[(block + AT_HOST) >> 2], i32[(block + AT_HOST_LENGTH) >> 2], 128)
      copyText(last + LAST_URI, i32[(block + AT_URI) >> 2], i32[(block + AT_URI_LENGTH) >> 2], 256)
    } else {
      const status = i32[(block + AT_STATUS) >> 2]
      const outstanding = i32[state + 2]
      const count = outstanding & 15
      if (status < 200 || status === 204 || status === 304 || body < 0 || left === 0 || (outstanding & 0x30) !== 0) return false
      u32[state + 1]++
      if (count > 0) i32[state + 2] = ((outstanding >>> 6) << 4) | (count - 1)
      f64[(httpCounters >> 3) + 1] += 1
      response.begin(direction)
      response.status = status
      writeVersion(response.version)
      response.commit()
      u16[last >> 1] = status
    }
    i32[side] = (sequence + payloadLength) | 0
    i32[side + 3] = body - left
    i32[side + 4] = (i32[side + 4] & ~0xffffff) | (body === left ? IN_HEAD : IN_BODY)
    return true
  }

  function writeVersion(text: Text): void {
    const major = i32[(block + AT_VERSION_MAJOR) >> 2]
    const minor = i32[(block + AT_VERSION_MINOR) >> 2]
    text.write(major === 1 && minor === 1 ? 'HTTP/1.1' : major === 0 ? '' : `HTTP/${major}.${minor}`)
  }

  /** Length and bytes, cut to the field's capacity. */
  function copyText(to: number, from: number, length: number, capacity: number): void {
    const kept = length > capacity ? capacity : length
    u16[to >> 1] = kept
    kernels.copy(to + 2, from, kept)
  }

  function createLast(word: number): number {
    const extent = extents.take()
    if (extent === 0) return 0
    i32.fill(0, (extent + EXTENT_HEADER) >> 2, (extent + EXTENT_HEADER + LAST_BYTES) >> 2)
    extents.setLength(extent, LAST_BYTES)
    i32[word] = extent
    return extent + EXTENT_HEADER
  }

  // -- Flows begin and end ---------------------------------------------------------------------------------------------

  function findOrOpen(d: number): number {
    const hash = i32[d + HASH]
    let record = table.find(hash, table.home(hash))
    while (record !== 0 && !keyEquals(d, record)) record = table.find(hash, table.lastSlot + 1)
    if (record === 0) record = open(d)
    i32[d + RECORD] = record
    return record
  }

  function keyEquals(d: number, record: number): boolean {
    for (let i = 0; i < 11; i++) if (i32[(record >> 2) + i] !== (i < 4 || i === 7 ? i32[d + KEY + i] : 0)) return false
    return true
  }

  function tickOf(time: number): number {
    return Math.ceil((time - epochUs) / 1000) | 0
  }

  function open(d: number): number {
    const record = table.size < limits.flows ? slab.take() : 0
    if (record === 0) {
      statistics.dropped++
      return 0
    }
    const at = record >> 2
    for (let i = 0; i < RECORD_BYTES >> 2; i++) i32[at + i] = 0
    for (let i = 0; i < 8; i++) if (i < 4 || i === 7) i32[at + i] = i32[d + KEY + i]
    const flags = (i32[d + META] >>> 8) & 255
    const time = f64[(d + TIME) >> 1]
    if (epochUs < 0) {
      epochUs = time
      wheel.start(0)
    }
    const isTcp = (i32[at + 2] & 255) === 6
    const fromB = (i32[d + META] >>> 16) & 1
    const timeout = isTcp ? (flags & 0x12) === 2 ? timeouts.tcpOpening : timeouts.tcp : timeouts.udp
    u8[record + FlowRecord.phase] = FlowPhase.active
    u8[record + FlowRecord.opener] = isTcp && (flags & 0x12) === 0x12 ? 1 - fromB : fromB
    f64[(record + FlowRecord.firstSeen) >> 3] = time
    i32[(record + FlowRecord.hash) >> 2] = i32[d + HASH]
    u32[(record + FlowRecord.idleTimeoutMs) >> 2] = timeout * 1000
    i32[(record + FlowRecord.idLow) >> 2] = ++statistics.flowsCreated
    table.insert(i32[d + HASH], record)
    wheel.add(record, tickOf(time + timeout * 1e6))
    u16[(record + MONITOR + 32) >> 1] = 65535
    return record
  }

  function end(record: number): void {
    for (const field of http.definition.flowState.extents as { offset: number }[]) {
      const word = (record + HTTP + field.offset) >> 2
      if (i32[word] !== 0) extents.giveChain(i32[word])
    }
    wheel.remove(record)
    table.remove(i32[(record + FlowRecord.hash) >> 2], record)
    u8[record + FlowRecord.phase] = FlowPhase.free
    slab.give(record)
  }

  /** SYN, FIN and RST, and packets of a flow that is over. Returns the record; 0 if there is none. */
  function tcpLife(d: number, record: number): number {
    const meta = i32[d + META]
    const flags = (meta >>> 8) & 255
    if (u8[record + FlowRecord.phase] === FlowPhase.lingering && (flags & 0x16) === 2) {
      end(record)
      i32[d + RECORD] = record = open(d)
      if (record === 0) return 0
    }
    let life = u8[record + FlowRecord.tcp]
    if ((flags & 2) !== 0) {
      life |= TcpLife.synSeen
      if ((flags & 16) !== 0 && (life & TcpLife.answered) === 0) {
        life |= TcpLife.answered
        u32[(record + FlowRecord.idleTimeoutMs) >> 2] = timeouts.tcp * 1000
      }
    }
    if ((flags & 1) !== 0) life |= (meta & 0x10000) !== 0 ? TcpLife.finFromB : TcpLife.finFromA
    if ((flags & 4) !== 0) life |= TcpLife.reset
    u8[record + FlowRecord.tcp] = life
    const both = TcpLife.finFromA | TcpLife.finFromB
    if (u8[record + FlowRecord.phase] === FlowPhase.active && ((life & both) === both || (life & TcpLife.reset) !== 0)) {
      u8[record + FlowRecord.phase] = FlowPhase.lingering
      u32[(record + FlowRecord.idleTimeoutMs) >> 2] = timeouts.tcpClosed * 1000
      wheel.move(record, tickOf(f64[(d + TIME) >> 1] + timeouts.tcpClosed * 1e6))
    }
    return record
  }

  return {
    arena, extents, records, chain, table, statistics, process, outputs,
    batchPackets: BATCH_PACKETS,
    descriptor: (index) => descriptors + index * WORDS,
    get batchCount() { return batchCount },
    set batchCount(count: number) { batchCount = count },
    clearOutput() { outputCount = 0 },
    *flows() {
      for (let index = 0; index < slab.highWater; index++) if (slab.isTaken(index)) yield slab.offsetOf(index)
    },
  }
}
