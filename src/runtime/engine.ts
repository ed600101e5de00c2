/**
 * Engine: classifier, flow actors and chain execution of one runtime, without clock, file or socket. Paper §5.1, §6.1.
 *
 * The host fills a batch of descriptors with received frames, calls `process`, takes what is to leave from `output`, and
 * calls `clearOutput`. A batch runs in stages, each a loop over all of its packets, because with many flows the cost is
 * cache misses and independent misses overlap:
 *
 *     parse + hash ─▶ touch table slots ─▶ find records ─▶ touch records ─▶ flow actors, one packet at a time
 *
 * The lookup in the middle stages is a guess: it compares hashes only. The actor compares the key, and searches again when the
 * guess is wrong or when a packet before it in the batch has opened or ended the flow.
 *
 * Flow actor: a flow record in flat memory and its phase. Fast path: phase active, no flags, no SYN, FIN or RST.
 *
 *               first packet          RST, or FIN from both          idle for the time-wait
 *     (no flow) ───────────▶ active ───────────────────────▶ lingering ───────────▶ ended "closed"
 *                              │ idle                            │ a new SYN: ended "closed", and another flow opens
 *                              ▼
 *                        ended "expired"
 *
 * Conservation, at any time: received + emitted + taken over = forwarded + dropped + buffered + handed over.
 */

import { assert, AssertionError } from '../base/assert.ts'
import type { TimeUs } from '../base/clock.ts'
import { BATCH_EXTRA_PACKETS, BATCH_PACKETS, type EngineLimits, type IdleTimeouts } from '../base/limits.ts'
import { planted } from '../base/planted-bugs.ts'
import { Random } from '../base/random.ts'
import type { Arena } from '../memory/arena.ts'
import { loadKernels } from '../memory/kernels/kernels.ts'
import { ExtentPool } from '../memory/extent-pool.ts'
import { Slab } from '../memory/slab.ts'
import { FlowFlag, FlowPhase, FlowRecord, KEY_WORDS, TcpLife } from '../flow/flow-record.ts'
import { FlowTable } from '../flow/flow-table.ts'
import { OpeningList } from '../flow/opening-list.ts'
import { Descriptor, DESCRIPTOR_BYTES, DESCRIPTOR_WORDS, Meta } from '../packet/descriptor.ts'
import { DropReason } from '../packet/drop-reason.ts'
import { FragmentTracker, FragmentOutcome } from '../packet/fragment-tracker.ts'
import { loadClassifyKernel, UNPARSED as KERNEL_UNPARSED } from '../packet/kernels/classify.ts'
import { createParser, dropReasonOf, ParseResult } from '../packet/parse.ts'
import { PacketPool } from '../packet/packet-pool.ts'
import type { PacketWatch } from '../packet/packet-watch.ts'
import { createPacketView, type PacketCursor } from '../packet/packet-view.ts'
import { compileChain, type Chain, type ChainHost, type ChainMember, type ChainNf } from '../nf/chain.ts'
import { takesLayout, type ChainLayout } from './flow-snapshot.ts'
import { FastPathWord } from '../nf/fast-path.ts'
import { AliasClaim, type ClusterView, type FlowView } from '../nf/definition.ts'
import { Eviction } from './eviction.ts'
import { FlowAliases } from './flow-aliases.ts'
import { writeCacheHints, type CacheHint } from '../nf/cache-hint.ts'
import { createClassifyTwin } from './classify-twin.ts'
import { createEmitter } from './emitter.ts'
import type { FlowManager } from './flow-manager.ts'
import { FlowTimers } from './flow-timers.ts'
import { createFlowTransfer } from './flow-transfer.ts'
import type { InProgress } from './in-progress.ts'
import { NfCalls } from './nf-calls.ts'
import { Quarantine, Quarantined } from './quarantine.ts'
import { HeldPacketLists } from './held-packets.ts'
import { RecordBuffer, type RecordOrigin } from '../nf/record-buffer.ts'
import { dropReasonOfVerdict, Verdict } from '../nf/verdict.ts'

/** How a flow ended. */
export type FlowEnd = 'expired' | 'closed' | 'finished'

export interface EnginePolicy {
  /** After an NF threw on a flow: drop the flow's packets, or go on without that NF. */
  readonly nfError: 'drop' | 'bypass'
  /** Frames that are not IP. */
  readonly nonIp: 'pass' | 'drop'
  /** When the limit on flows is reached: drop packets of new flows, or end a flow that is closed, unanswered or long idle. */
  readonly whenFull: 'drop' | 'evict'
}

export const defaultPolicy: EnginePolicy = { nfError: 'drop', nonIp: 'pass', whenFull: 'drop' }

/** What the engine tells its host as it happens. Called between packets; may not call the engine. */
export interface EngineEvents {
  /** A flow is about to end; its record is still whole. */
  flowEnded?(record: number, end: FlowEnd): void
  /** A packet of a flow in quarantine is about to be dropped: its frame is at this offset, for a capture. */
  quarantined?(frame: number, length: number): void
  /** An NF threw for the first time. */
  nfFailed?(nf: string, error: unknown): void
}

export interface EngineOptions {
  readonly arena: Arena
  readonly chain: readonly ChainMember[]
  readonly limits: EngineLimits
  readonly timeouts: IdleTimeouts
  readonly policy: EnginePolicy
  /** Secret of the flow hash and seed of what NFs draw. */
  readonly seed: number
  /** False: plain TypeScript instead of the WebAssembly kernels. */
  readonly wasm?: boolean
  /**
   * True: code that was generated for an engine like this one in this process is used again. Such an engine is quickly made and runs
   * packets more slowly: for simulated nodes, which live for milliseconds.
   */
  readonly reusesCode?: boolean
  readonly events?: EngineEvents
  readonly manager?: FlowManager
  /** Where it is noted whose packet is about to run, for whoever comes after a process that has died in one. */
  readonly inProgress?: InProgress
}

export interface EngineStatistics {
  received: number
  forwarded: number
  dropped: number
  emitted: number
  bytesReceived: number
  bytesForwarded: number
  flowsCreated: number
  flowsTcp: number
  flowsUdp: number
  flowsIcmp: number
  flowsOther: number
  flowsEnded: number
  flowsEvicted: number
  /** Held packets that left with a flow that moved out. */
  handedOver: number
  /** Held packets that came with a flow that moved in. */
  takenOver: number
  /** Packets that the manager has taken. */
  taken: number
  nfErrors: number
}


// PERF: module constants fold, imported ones do not (see packet/descriptor.ts).
const FRAME = Descriptor.frame
const LENGTH = Descriptor.length
const META = Descriptor.meta
const RESULT = Descriptor.result
const HASH = Descriptor.hash
const RECORD = Descriptor.record
const TIME = Descriptor.time
const KEY = Descriptor.key
const WIRE_LENGTH = Descriptor.wireLength
const SLOT = Descriptor.slot
const NEXT_HELD = Descriptor.nextHeld
const ARRIVAL = Descriptor.arrival
const WORDS = DESCRIPTOR_WORDS
const OUTPUTS = FastPathWord.outputs
const STOPPED = FastPathWord.stopped
const R_PHASE = FlowRecord.phase
const R_LAST_SEEN = FlowRecord.lastSeen
const R_PACKETS = FlowRecord.packets
const R_BYTES = FlowRecord.bytes
const TCP_CHANGES = (1 | 2 | 4) << 8
const PASS = ParseResult.pass
const UNPARSED = KERNEL_UNPARSED
const CONSUMED = 100
/** What of a flow record says which flow of the cluster it is. */
const IDENTITY = [FlowRecord.epoch, FlowRecord.idLow, FlowRecord.idHigh, FlowRecord.outputs]
/** How long an idle or paused flow waits before it is looked at again. */
const IDLE_RETRY_US = 50_000
/** With fewer flows what hints are about is in the second-level cache anyway, and looking costs more (bench engine). */
const HINT_FLOWS_MIN = 4096

export type Engine = ReturnType<typeof createEngine>

export function createEngine(options: EngineOptions) {
  const { arena, limits, timeouts, policy, events = {}, manager = null, inProgress = null } = options
  const { i32, u8, u16, f64, u32 } = arena

  const statistics: EngineStatistics = {
    received: 0, forwarded: 0, dropped: 0, emitted: 0, bytesReceived: 0, bytesForwarded: 0, flowsCreated: 0, flowsTcp: 0,
    flowsUdp: 0, flowsIcmp: 0, flowsOther: 0, flowsEnded: 0, flowsEvicted: 0, handedOver: 0, takenOver: 0, taken: 0, nfErrors: 0,
  }
  const random = new Random(options.seed)
  const kernels = loadKernels(arena, { wasm: options.wasm ?? true })
  const hashSeed = random.int32()
  const parser = createParser(arena, hashSeed)
  const kernel = (options.wasm ?? true) ? loadClassifyKernel(arena) : null
  const parse = parser.parse
  const packet = createPacketView(arena, options.reusesCode)
  const extents = new ExtentPool(arena, Math.max(1, Math.floor(limits.extentBytes / 512)), 512)
  const pool = new PacketPool(arena, limits.packets, limits.largePackets)
  const descriptors = arena.allocate('batch', BATCH_PACKETS * DESCRIPTOR_BYTES) >> 2
  const extraDescriptors = arena.allocate('extra descriptors', BATCH_EXTRA_PACKETS * DESCRIPTOR_BYTES) >> 2
  /** The descriptor that stands for "no packet" while timers fire and flows end. */
  const idleDescriptor = arena.allocate('idle descriptor', DESCRIPTOR_BYTES) >> 2
  const outputs = arena.allocate('output', (BATCH_PACKETS + BATCH_EXTRA_PACKETS) * 4) >> 2
  const sink = arena.allocate('touch', 64) >> 2
  packet.d = idleDescriptor
  const timers = new FlowTimers(arena, packet)
  const { clock } = timers

  const origin: RecordOrigin = {
    get record() { return i32[packet.d + RECORD] },
    get fromB() { return (i32[packet.d + META] >>> 16) & 1 },
    get opener() { return u8[i32[packet.d + RECORD] + FlowRecord.opener] },
    get timeIndex() { return (packet.d + TIME) >> 1 },
  }
  const records = new RecordBuffer(arena, limits.recordBytes, origin, kernels.copy)

  const flowView: FlowView = {
    get packets() { return f64[(i32[packet.d + RECORD] + FlowRecord.packets) >> 3] },
    get bytes() { return f64[(i32[packet.d + RECORD] + FlowRecord.bytes) >> 3] },
    get firstSeen() { return f64[(i32[packet.d + RECORD] + FlowRecord.firstSeen) >> 3] },
    get protocol() { return i32[(i32[packet.d + RECORD] + FlowRecord.protocol) >> 2] & 255 },
    get isIpv6() { return i32[i32[packet.d + RECORD] >> 2] >>> 24 === 6 },
  }

  const emitter = createEmitter({
    arena, pool, packet, takeExtra, reusesCode: options.reusesCode,
    nf: () => progress.nf,
    giveExtra: () => { extraCount-- },
    sent(d) {
      statistics.emitted++
      forward(d)
    },
    refused() {
      dropCounts[DropReason['emit-limit']]++
      statistics.emitted++
      statistics.dropped++
    },
  })
  const held = new HeldPacketLists({
    arena, packet, takeExtra, resume,
    limit: limits.heldPerFlow,
    hasExtra: () => extraCount < BATCH_EXTRA_PACKETS,
    drop: (d, verdict) =>
      drop(d, verdict >= 2 && verdict - 2 < dropCounts.length ? verdict - 2 : DropReason['nf-error'], true),
  })
  const host: ChainHost = {
    arena, extents, kernels, records, origin, packet, flow: flowView, emit: emitter, timer: (nf) => timers.of(nf),
    reusesCode: options.reusesCode,
    held: (nf) => held.of(nf),
    alias: (nf) => ({ claim: (shown) => claimAlias(nf, (shown as PacketCursor).d) }),
    random: () => random.int32(),
    reconsider: () => {
      const record = i32[packet.d + RECORD]
      if (manager !== null && reconsidered.at(-1) !== record) reconsidered.push(record)
    },
  }
  /** Flows whose NF asked for `migrationTarget`; a node takes them after a batch. */
  const reconsidered: number[] = []
  const chain: Chain = compileChain(options.chain, host)
  const { run, runFrom, tails, fastPath, progress, nfs } = chain
  const fastPathProgram = fastPath === null ? 0 : fastPath.program >> 2
  const runFastPath = fastPath === null ? null : fastPath.run
  const nfOfPart = fastPath === null ? new Int32Array(1) : fastPath.nfOfPart
  progress.nf = -1
  timers.useChain(nfs)
  const dropCounts = new Float64Array(chain.dropReasons.length)
  const extentFields = nfs.flatMap((nf) =>
    (nf.definition.flowState?.extents ?? []).map((e: { offset: number }) => nf.stateOffset + e.offset))

  const hinted = nfs.flatMap((nf) => (nf.definition.cacheHints ?? []).map((hint: CacheHint) =>
    ({ hint, schema: nf.definition.flowState, stateOffset: nf.stateOffset })))
  const hints = writeCacheHints(arena, hinted)
  const hintCount = hinted.length
  const recordBytes = chain.recordBytes
  const lines = recordBytes >> 6
  const table = new FlowTable(arena, 'flow table', limits.flows)
  const slab = new Slab(arena, 'flow records', limits.flows, recordBytes)
  const eviction = new Eviction(arena, slab)
  const unansweredMax = Math.min(limits.unanswered, limits.flows)
  const openings = new OpeningList(arena, unansweredMax)
  const aliases = new FlowAliases(arena, slab, limits.aliases)
  const aliasDescriptor = arena.allocate('alias descriptor', DESCRIPTOR_BYTES) >> 2
  const fragments = new FragmentTracker(arena, limits, timeouts.fragment * 1e6)
  const tableBase = table.base
  const tableShift = table.shift
  const twin = createClassifyTwin({ arena, table, lines, sink, hints, parse, special })

  let batchCount = 0
  /** Who sees each packet before and behind the chain, if anybody does. */
  let watch: PacketWatch | null = null
  /** Batches so far: with its place in one, a packet's number in the order of arrival. */
  let batches = 0
  /** The record words of the batch are guesses: the keys have not been compared, or flows have opened or ended since. */
  let guessed = true
  let outputCount = 0
  let countedOutput = 0
  let extraCount = 0
  const calls = new NfCalls({
    arena, nfs,
    nfError: policy.nfError,
    failed(nf, error, isFirst) {
      statistics.nfErrors++
      if (isFirst) events.nfFailed?.((nfs[nf] as ChainNf).name, error)
    },
  })
  const quarantine = new Quarantine()

  // -- Batch ---------------------------------------------------------------------------------------------------------

  /**
   * Runs the batch and empties it.
   *
   * @param time when all its packets arrived, none of them cut short: then the host need not fill in `time` and `wireLength`
   * @returns how many packets are to leave
   */
  function process(time = -1): number {
    const count = batchCount
    batchCount = 0
    batches++
    const end = descriptors + count * WORDS
    if (kernel !== null) {
      guessed = false
      const left = kernel(descriptors << 2, count, hashSeed, tableBase << 2, tableShift, lines, sink << 2, time,
        hints, hintsToFollow())
      if (left > 0) parseLeft(end)
      statistics.bytesReceived += i32[sink + 1]
    } else {
      guessed = true
      if (time >= 0) {
        for (let d = descriptors; d < end; d += WORDS) {
          f64[(d + TIME) >> 1] = time
          i32[d + WIRE_LENGTH] = i32[d + LENGTH]
        }
      }
      statistics.bytesReceived += twin.classify(descriptors, end, hintsToFollow())
    }
    // Fragments that run behind their first one come between packets.
    const fast = injectCount > 0 ? null : runFastPath
    for (let d = watch === null ? descriptors : runWatched(watch, end); d < end; d += WORDS) {
      if (fast !== null) {
        i32[fastPathProgram + OUTPUTS] = (outputs + outputCount) << 2
        if (inProgress !== null) noteBatch(d, end)
        d = fast(d << 2, end << 2, fastPathProgram << 2, guessed ? 1 : 0) >> 2
        outputCount = (i32[fastPathProgram + OUTPUTS] >> 2) - outputs
        if (d === end) break
        const part = i32[fastPathProgram + STOPPED]
        if (part >= 0) {
          goOn(d, part)
          continue
        }
      }
      const result = i32[d + RESULT]
      if (result === 0) actor(d)
      else notForActor(d, result)
      if (injectCount > 0) runInjected(d)
    }
    injectCount = 0
    if (inProgress !== null) inProgress.end()
    packet.d = idleDescriptor
    if (count > 0) {
      if (!timers.hasStarted) passTime(descriptors)
      passTime(end - WORDS)
    }
    if (manager === null && openings.size > unansweredMax) endOldestOpenings(Infinity)
    countOutput()
    statistics.received += count
    return outputCount
  }

  /** The fast path runs as many as it can of these, and says only then which. */
  function noteBatch(first: number, end: number): void {
    const note = inProgress as InProgress
    note.end()
    for (let d = first; d < end; d += WORDS) if (i32[d + RESULT] === 0 && i32[d + RECORD] !== 0) note.add(i32, i32[d + RECORD] >> 2)
  }

  /** The batch while somebody watches: packet by packet, and none on the fast path. Returns its end. */
  function runWatched(seen: PacketWatch, end: number): number {
    for (let d = descriptors; d < end; d += WORDS) {
      seen.running(d)
      if (i32[d + RESULT] === 0) actor(d)
      else notForActor(d, i32[d + RESULT])
      seen.ran(d)
      if (injectCount > 0) runInjected(d)
    }
    return end
  }

  /** Cache hints are worth their time when records are not in the cache anyhow. */
  function hintsToFollow(): number {
    return table.size < HINT_FLOWS_MIN ? 0 : hintCount
  }

  /** Packets that the kernel does not parse. */
  function parseLeft(end: number): void {
    for (let d = descriptors; d < end; d += WORDS) {
      if (i32[d + RESULT] !== UNPARSED) continue
      const result = parse(d)
      if (result > 0 && result !== PASS) special(d, result)
      i32[d + RECORD] = i32[d + RESULT] === 0 ? twin.guess(i32[d + HASH]) : 0
    }
    guessed = true
  }

  /** Flow actor: one packet of a flow. */
  function actor(d: number): void {
    try {
      let record = i32[d + RECORD]
      if (guessed || record === 0) {
        const at = record >> 2
        if (record === 0 || i32[at] !== i32[d + KEY] || i32[at + 1] !== i32[d + KEY + 1] ||
            i32[at + 2] !== i32[d + KEY + 2] || i32[at + 3] !== i32[d + KEY + 3] || i32[at + 7] !== i32[d + KEY + 7] ||
            (i32[d + META] & Meta.ipv6) !== 0) {
          record = findOrOpen(d)
          if (record === 0) return
        }
      }
      const meta = i32[d + META]
      const state = i32[(record + R_PHASE) >> 2]
      if ((state & 0xffff) !== FlowPhase.active || (meta & TCP_CHANGES) !== 0) {
        slowActor(d, record)
        return
      }
      f64[(record + R_LAST_SEEN) >> 3] = f64[(d + TIME) >> 1]
      f64[(record + R_PACKETS) >> 3] += 1
      f64[(record + R_BYTES) >> 3] += i32[d + WIRE_LENGTH]
      packet.d = d
      packet.direction = ((meta >>> 16) ^ (state >>> 16)) & 1
      if (inProgress !== null) inProgress.begin(i32, record >> 2)
      const verdict = run(record)
      if (verdict === 0) {
        progress.nf = -1
        forward(d)
      } else {
        notForwarded(d, record, verdict)
      }
    } catch (error) {
      nfFailed(d, error)
    }
  }

  /** A packet that the fast path has taken up to this part: flow actor and NFs before it have done theirs. */
  function goOn(d: number, part: number): void {
    try {
      const record = i32[d + RECORD]
      packet.d = d
      packet.direction = ((i32[d + META] >>> 16) ^ (i32[(record + R_PHASE) >> 2] >>> 16)) & 1
      if (inProgress !== null) inProgress.begin(i32, record >> 2)
      const verdict = tails[nfOfPart[part]](record)
      if (verdict === 0) {
        progress.nf = -1
        forward(d)
      } else {
        notForwarded(d, record, verdict)
      }
    } catch (error) {
      nfFailed(d, error)
    }
  }

  function forward(d: number): void {
    i32[outputs + outputCount] = d
    outputCount++
  }

  /** Counts what has been put into the output since the last time; its bytes are counted when it leaves. */
  function countOutput(): void {
    statistics.forwarded += outputCount - countedOutput
    countedOutput = outputCount
  }

  /** @param isOfFlow it had come to its flow: of a first fragment, the rest of the datagram is dropped where it would leave */
  function drop(d: number, reason: number, isOfFlow = false): void {
    if (isOfFlow && (i32[d + META] & (Meta.fragment | Meta.laterFragment)) === Meta.fragment) fragments.dropped(d)
    dropCounts[reason]++
    statistics.dropped++
    const slot = i32[d + SLOT]
    if (slot !== 0) pool.give(slot)
  }

  function notForActor(d: number, result: number): void {
    if (result === ParseResult.pass) {
      if (policy.nonIp === 'pass') forward(d)
      else drop(d, DropReason['non-ip'])
    } else if (result < 0) {
      drop(d, dropReasonOf(result))
    }
  }

  /** A verdict other than forward, of the NF that ran last. */
  function notForwarded(d: number, record: number, verdict: number): void {
    if (planted['drop-ignored'] && verdict >= 2) forward(d)
    else if (verdict >= 2 && verdict - 2 < dropCounts.length && Number.isInteger(verdict)) drop(d, dropReasonOfVerdict(verdict), true)
    else if (verdict === Verdict.Hold) {
      if (!held.hold(d, record, progress.nf)) drop(d, DropReason['hold-limit'], true)
    }
    else throw new TypeError(`processPacket returned ${String(verdict)}, which is not a verdict`)
    progress.nf = -1
  }

  // -- Finding, opening and ending flows -----------------------------------------------------------------------------

  function keyEquals(d: number, record: number): boolean {
    const at = record >> 2
    for (let i = 0; i < 3; i++) if (i32[at + i] !== i32[d + KEY + i]) return false
    if (i32[at] >>> 24 === 4) return i32[at + 3] === i32[d + KEY + 3] && i32[at + 7] === i32[d + KEY + 7]
    for (let i = 3; i < KEY_WORDS; i++) if (i32[at + i] !== i32[d + KEY + i]) return false
    return true
  }

  function find(d: number): number {
    const hash = i32[d + HASH]
    let record = table.find(hash, table.home(hash))
    while (record !== 0 && !keyEquals(d, record)) record = table.find(hash, table.lastSlot + 1)
    return record
  }

  /** The packet's flow, opened if need be; 0 if it could not be (the packet has been dropped). */
  function findOrOpen(d: number): number {
    let record = i32[d + RECORD]
    if (record === 0 || !keyEquals(d, record)) record = find(d)
    if (record === 0 && aliases.size > 0) record = aliases.find(d)
    if (record === 0 && (i32[d + META] & Meta.related) !== 0 && (manager === null || !manager.expects(d, parser))) {
      parser.useOwnKey(d)
      record = find(d)
    }
    if (record === 0 && quarantine.of(i32, d + KEY, f64[(d + TIME) >> 1]) === Quarantined.poisoned) {
      dropQuarantined(d)
      return 0
    }
    if (record === 0) {
      if (manager !== null) {
        noteArrival(d)
        record = manager.unknown(d)
      }
      if (record < 0) {
        statistics.taken++
        return 0
      }
      if (record === 0) record = open(d)
    }
    i32[d + RECORD] = record
    return record
  }

  function open(d: number): number {
    if (table.size >= limits.flows) {
      passTime(d)
      if (policy.whenFull !== 'evict' || !evict()) {
        drop(d, DropReason['flow-table-full'])
        return 0
      }
    }
    const record = slab.take()
    assert(record !== 0, 'there are as many flow records as table entries')
    guessed = true
    const at = record >> 2
    for (let i = 0; i < recordBytes >> 2; i++) i32[at + i] = 0
    const version = i32[d + KEY] >>> 24
    if (version === 6) {
      for (let i = 0; i < KEY_WORDS; i++) i32[at + i] = i32[d + KEY + i]
    } else {
      i32[at] = i32[d + KEY]
      i32[at + 1] = i32[d + KEY + 1]
      i32[at + 2] = i32[d + KEY + 2]
      i32[at + 3] = i32[d + KEY + 3]
      i32[at + 7] = i32[d + KEY + 7]
    }
    const meta = i32[d + META]
    const protocol = i32[at + 2] & 255
    const flags = (meta >>> 8) & 255
    const time = f64[(d + TIME) >> 1]
    if (!timers.hasStarted) timers.pass(time)
    let fromB = (meta >>> 16) & 1
    // The first packet seen of a handshake may be its answer.
    if (protocol === 6 && (flags & 0x12) === 0x12) fromB ^= 1
    let timeout: number
    if (protocol === 6) {
      timeout = (flags & 0x12) === 2 ? timeouts.tcpOpening : timeouts.tcp
      statistics.flowsTcp++
    } else if (protocol === 17) {
      timeout = timeouts.udp
      statistics.flowsUdp++
    } else if (protocol === 1 || protocol === 58) {
      timeout = timeouts.icmp
      statistics.flowsIcmp++
    } else {
      timeout = timeouts.other
      statistics.flowsOther++
    }
    u8[record + FlowRecord.phase] = FlowPhase.active
    u8[record + FlowRecord.opener] = fromB
    f64[(record + FlowRecord.firstSeen) >> 3] = time
    f64[(record + FlowRecord.lastSeen) >> 3] = time
    i32[(record + FlowRecord.hash) >> 2] = i32[d + HASH]
    u32[(record + FlowRecord.idleTimeoutMs) >> 2] = timeout * 1000
    statistics.flowsCreated++
    i32[(record + FlowRecord.idLow) >> 2] = statistics.flowsCreated | 0
    i32[(record + FlowRecord.idHigh) >> 2] = Math.floor(statistics.flowsCreated / 4294967296)
    table.insert(i32[d + HASH], record)
    timers.add(record, time + timeout * 1e6)
    i32[d + RECORD] = record
    if (inherited !== null) {
      IDENTITY.forEach((offset, i) => { i32[(record + offset) >> 2] = (inherited as readonly number[])[i] as number })
    } else if (manager !== null) {
      manager.opened(record, d)
    }
    if (quarantine.size > 0) applyQuarantine(record, time)
    packet.d = d
    packet.direction = ((meta >>> 16) & 1) ^ fromB
    if (inProgress !== null) inProgress.begin(i32, record >> 2)
    for (let i = 0; i < nfs.length; i++) {
      const nf = nfs[i] as ChainNf
      if (nf.methods.allocateFlowState === undefined) continue
      nf.state.o = record + nf.stateOffset
      try {
        nf.methods.allocateFlowState(nf.state, packet)
      } catch (error) {
        calls.failOn(record, i, error)
      }
    }
    if (inherited === null) manager?.begun?.(record)
    return record
  }

  /** The identity in the cluster that a new connection takes over from the one that lingered on its ports. */
  let inherited: readonly number[] | null = null

  function reopen(record: number, d: number): number {
    if (manager === null) {
      end(record, 'closed', true)
      return open(d)
    }
    inherited = IDENTITY.map((offset) => i32[(record + offset) >> 2])
    const opener = u8[record + FlowRecord.opener]
    const paused = u8[record + FlowRecord.flags] & FlowFlag.paused
    end(record, 'closed', true)
    const opened = open(d)
    inherited = null
    assert(opened === record, 'the block freed last is the next one taken')
    u8[record + FlowRecord.flags] |= paused
    if (u8[record + FlowRecord.opener] !== opener) {
      // The other side has opened it this time.
      const forward = u8[record + FlowRecord.outputs]
      u8[record + FlowRecord.outputs] = u8[record + FlowRecord.outputs + 1]
      u8[record + FlowRecord.outputs + 1] = forward
    }
    return record
  }

  /** Ends a flow to make room: the best of a few records under the hand. False if none may go. */
  function evict(): boolean {
    const best = eviction.choose()
    if (best === 0) return false
    if (manager !== null) {
      manager.idle(best)
      return false
    }
    statistics.flowsEvicted++
    end(best, u8[best + FlowRecord.phase] === FlowPhase.lingering ? 'closed' : 'expired', true)
    return true
  }

  /** Ends the TCP flows that have waited longest for an answer, while there are too many of them. */
  function endOldestOpenings(budget: number): void {
    openings.shrinkTo(unansweredMax, budget, (record) => {
      if (manager !== null) return manager.idle(record)
      statistics.flowsEvicted++
      end(record, 'expired', true)
    })
  }

  /** Ends a flow: `inWheel` unless its timer has just fired. */
  function end(record: number, how: FlowEnd, inWheel: boolean): void {
    events.flowEnded?.(record, how)
    const shown = packet.d
    const direction = packet.direction
    useIdle(record)
    // A timer set now would never fire.
    timers.isOff = true
    calls.each(record, 'deallocateFlowState')
    timers.isOff = false
    release(record, inWheel)
    packet.d = shown
    packet.direction = direction
    statistics.flowsEnded++
  }

  /** Gives back everything a flow has here. */
  function release(record: number, inWheel: boolean): void {
    guessed = true
    openings.remove(record)
    if (i32[(record + FlowRecord.heldFirst) >> 2] !== 0) {
      held.takeAll(record, (slot) => drop(slot >> 2, DropReason['hold-ended'], true))
    }
    for (let i = 0; i < extentFields.length; i++) {
      const word = (record + (extentFields[i] as number)) >> 2
      if (i32[word] !== 0) {
        extents.giveChain(i32[word])
        i32[word] = 0
      }
    }
    aliases.removeAll(record)
    if (inWheel) timers.wheel.remove(record)
    table.remove(i32[(record + FlowRecord.hash) >> 2], record)
    u8[record + FlowRecord.phase] = FlowPhase.free
    slab.give(record)
  }

  /** Lets `context` speak of this flow although there is no packet. */
  function useIdle(record: number): void {
    packet.d = idleDescriptor
    i32[idleDescriptor + RECORD] = record
    i32[idleDescriptor + META] = u8[record + FlowRecord.opener] << 16
    f64[(idleDescriptor + TIME) >> 1] = f64[clock]
    packet.direction = 0
  }

  // -- Off the fast path ---------------------------------------------------------------------------------------------

  /** A packet that changes the connection's phase, or a flow that is not on the fast path. */
  function slowActor(d: number, record: number): void {
    if ((u8[record + FlowRecord.flags] & FlowFlag.paused) !== 0 && manager !== null) {
      noteArrival(d)
      if (manager.paused(d, record)) {
        statistics.taken++
        return
      }
    }
    if ((u8[record + FlowRecord.flags] & FlowFlag.poisoned) !== 0) {
      dropQuarantined(d)
      return
    }
    const meta = i32[d + META]
    if ((meta & TCP_CHANGES) !== 0) {
      const reopened = tcpLife(d, record, (meta >>> 8) & 255, (meta >>> 16) & 1)
      if (reopened === 0) return
      record = reopened
    }
    f64[(record + R_LAST_SEEN) >> 3] = f64[(d + TIME) >> 1]
    f64[(record + R_PACKETS) >> 3] += 1
    f64[(record + R_BYTES) >> 3] += i32[d + WIRE_LENGTH]
    packet.d = d
    packet.direction = ((meta >>> 16) & 1) ^ u8[record + FlowRecord.opener]
    const flags = u8[record + FlowRecord.flags]
    if ((flags & FlowFlag.dropAll) !== 0) {
      drop(d, DropReason['nf-error'], true)
      return
    }
    if (inProgress !== null) inProgress.begin(i32, record >> 2)
    const verdict = (flags & FlowFlag.bypass) !== 0
      ? runFrom(record, 0, u16[(record + FlowRecord.bypass) >> 1])
      : run(record)
    if (verdict === 0) {
      progress.nf = -1
      forward(d)
    } else {
      notForwarded(d, record, verdict)
    }
  }

  function dropQuarantined(d: number): void {
    events.quarantined?.(i32[d + FRAME], i32[d + LENGTH])
    drop(d, DropReason['quarantined'])
  }

  /** A flow that is here now: it may be one that has killed a runtime. */
  function applyQuarantine(record: number, now: TimeUs): void {
    const kind = quarantine.of(i32, record >> 2, now)
    if (kind === Quarantined.no) return
    u8[record + FlowRecord.flags] |= kind === Quarantined.poisoned ? FlowFlag.poisoned : FlowFlag.careful
  }

  /**
   * Runs no packet of the flow with this key from now on, whether it is here or comes here (PROTOCOL 22). To be called with what
   * {@link readInProgress} says of a runtime that has died, before the flow can be promoted here.
   *
   * @param isSuspect one of several, of which one has done it: it runs with care
   */
  function quarantineFlow(key: Int32Array, isSuspect: boolean, now: TimeUs): void {
    quarantine.add(key, isSuspect ? Quarantined.suspect : Quarantined.poisoned, now)
    i32.set(key, idleDescriptor + KEY)
    i32[idleDescriptor + HASH] = parser.hashKey(idleDescriptor)
    const record = find(idleDescriptor)
    if (record !== 0) applyQuarantine(record, now)
  }

  /** Numbers a packet of the batch that the manager may set aside. */
  function noteArrival(d: number): void {
    const place = (d - descriptors) / WORDS
    if (place >= 0 && place < BATCH_PACKETS) i32[d + ARRIVAL] = (batches * 2 * BATCH_PACKETS + place) | 0 || 1
  }

  /** The clock is at least where this packet is. */
  function passTime(d: number): void {
    const time = f64[(d + TIME) >> 1]
    if (time > f64[clock] || !timers.hasStarted) timers.pass(time)
  }

  /** Follows SYN, FIN and RST. Returns the flow's record: another one if a new connection begins on the same ports. */
  function tcpLife(d: number, record: number, flags: number, fromB: number): number {
    let life: number = u8[record + FlowRecord.tcp]
    const lingering = u8[record + FlowRecord.phase] === FlowPhase.lingering
    if (lingering && (flags & 0x16) === 2) {
      passTime(d)
      record = reopen(record, d)
      if (record === 0) return 0
      life = 0
    }
    if ((flags & 2) !== 0) {
      life |= TcpLife.synSeen
      if ((flags & 16) !== 0 && (life & TcpLife.answered) === 0) {
        life = (life | TcpLife.answered) & ~TcpLife.opening
        u32[(record + FlowRecord.idleTimeoutMs) >> 2] = timeouts.tcp * 1000
      }
      // A SYN into a connection that was not seen to open says nothing about that one.
      if ((flags & 16) === 0 && f64[(record + R_PACKETS) >> 3] === 0) life |= TcpLife.opening
    }
    if ((flags & 1) !== 0) life |= fromB !== 0 ? TcpLife.finFromB : TcpLife.finFromA
    if ((flags & 4) !== 0) life |= TcpLife.reset
    u8[record + FlowRecord.tcp] = life
    if ((life & TcpLife.opening) === 0 || (flags & 5) !== 0) openings.remove(record)
    else openings.add(record)
    const both = TcpLife.finFromA | TcpLife.finFromB
    if (u8[record + FlowRecord.phase] === FlowPhase.active && ((life & both) === both || (life & TcpLife.reset) !== 0)) {
      u8[record + FlowRecord.phase] = FlowPhase.lingering
      u32[(record + FlowRecord.idleTimeoutMs) >> 2] = timeouts.tcpClosed * 1000
      timers.moveToDue(record)
    }
    return record
  }

  /** An NF threw, or returned nonsense. The packet is dropped; the flow goes on by policy. */
  function nfFailed(d: number, error: unknown): void {
    // Outside of an NF it is our own defect.
    if (error instanceof AssertionError || progress.nf < 0) throw error
    const failed = progress.nf
    progress.nf = -1
    const record = i32[d + RECORD]
    if (record !== 0) calls.failOn(record, failed, error)
    else calls.report(failed, error)
    drop(d, DropReason['nf-error'], true)
  }

  // -- Fragments -----------------------------------------------------------------------------------------------------

  const INJECT_MAX = BATCH_EXTRA_PACKETS
  let injectCount = 0
  const injected = new Int32Array(INJECT_MAX)
  /** The first fragment that each has waited for: it runs right behind it. */
  const injectedAfter = new Int32Array(INJECT_MAX)

  /** First and later fragments, and ICMP errors: become ordinary packets of a flow, or wait, or are dropped. */
  function special(d: number, result: number): void {
    if (result === ParseResult.related) {
      i32[d + RESULT] = 0
      return
    }
    if (result === ParseResult.firstFragment) {
      i32[d + RESULT] = 0
      let held = fragments.first(d)
      while (held !== 0) {
        const next = i32[(held >> 2) + NEXT_HELD]
        const extra = takeExtra()
        if (extra === 0 || injectCount === INJECT_MAX) {
          drop(held >> 2, DropReason['fragment-limit'])
        } else {
          i32.copyWithin(extra, held >> 2, (held >> 2) + WORDS)
          // It reaches its flow only now.
          f64[(extra + TIME) >> 1] = f64[(d + TIME) >> 1]
          if (manager !== null) i32[extra + ARRIVAL] = 0
          injectedAfter[injectCount] = d
          injected[injectCount++] = extra
        }
        held = next
      }
      return
    }
    if (manager !== null) noteArrival(d)
    switch (fragments.later(d)) {
      case FragmentOutcome.flow: i32[d + RESULT] = 0; return
      case FragmentOutcome.held: i32[d + RESULT] = CONSUMED; return
      case FragmentOutcome.malformed: i32[d + RESULT] = -1 - DropReason['malformed-fragment']; return
      default: i32[d + RESULT] = -1 - DropReason['fragment-limit']
    }
  }

  /** Runs the fragments that had waited for this first fragment. */
  function runInjected(first: number): void {
    for (let i = 0; i < injectCount; i++) {
      if (injectedAfter[i] !== first) continue
      const d = injected[i] as number
      const outcome = fragments.later(d)
      if (outcome === FragmentOutcome.flow) {
        i32[d + RECORD] = 0
        actor(d)
      } else if (outcome !== FragmentOutcome.held) {
        // Held: other datagrams of the batch have taken the first one's place, it waits again.
        drop(d, DropReason[outcome === FragmentOutcome.malformed ? 'malformed-fragment' : 'fragment-limit'])
      }
    }
  }

  function takeExtra(): number {
    if (extraCount >= BATCH_EXTRA_PACKETS) return 0
    return extraDescriptors + extraCount++ * WORDS
  }

  // -- Held packets --------------------------------------------------------------------------------------------------

  /** Runs a packet that was held through the rest of the chain, inside the activation of the NF that releases it. */
  function resume(d: number, record: number, first: number): void {
    const shown = packet.d
    const direction = packet.direction
    const nf = progress.nf
    i32[d + RECORD] = record
    packet.d = d
    packet.direction = ((i32[d + META] >>> 16) & 1) ^ u8[record + FlowRecord.opener]
    try {
      const verdict = runFrom(record, first, u16[(record + FlowRecord.bypass) >> 1])
      if (verdict === 0) forward(d)
      else notForwarded(d, record, verdict)
    } catch (error) {
      nfFailed(d, error)
    }
    packet.d = shown
    packet.direction = direction
    progress.nf = nf
  }

  // -- Timers --------------------------------------------------------------------------------------------------------

  function fire(record: number): void {
    const now = f64[clock]
    if ((u8[record + FlowRecord.flags] & FlowFlag.paused) !== 0) {
      timers.add(record, now + IDLE_RETRY_US)
      return
    }
    const lingering = u8[record + FlowRecord.phase] === FlowPhase.lingering
    const idleUntil = f64[(record + FlowRecord.lastSeen) >> 3] + u32[(record + FlowRecord.idleTimeoutMs) >> 2] * 1000
    const isPoisoned = (u8[record + FlowRecord.flags] & FlowFlag.poisoned) !== 0
    if (inProgress !== null) inProgress.begin(i32, record >> 2)
    for (let i = 0; i < nfs.length && !isPoisoned; i++) {
      const nf = nfs[i] as ChainNf
      if (nf.timerOffset === 0) continue
      const timer = f64[(record + nf.timerOffset) >> 3]
      if (timer === 0 || timer > now) continue
      f64[(record + nf.timerOffset) >> 3] = 0
      useIdle(record)
      nf.state.o = record + nf.stateOffset
      timers.isOff = true
      progress.nf = i
      try {
        nf.methods.timerFired?.(nf.state)
        manager?.rang?.(record)
      } catch (error) {
        calls.failOn(record, i, error)
      }
      progress.nf = -1
      timers.isOff = false
    }
    if (inProgress !== null) inProgress.end()
    if (idleUntil > now) {
      timers.add(record, isPoisoned ? idleUntil : timers.due(record))
    } else if (manager === null) {
      end(record, lingering ? 'closed' : 'expired', false)
    } else {
      timers.add(record, now + IDLE_RETRY_US)
      manager.idle(record)
    }
    packet.d = idleDescriptor
  }

  /**
   * Lets time pass: expires flows, fires timers, gives up on fragments. At most `budget` steps.
   * @returns true if everything due by `now` is done
   */
  function advance(now: TimeUs, budget = 1 << 30): boolean {
    if (!timers.hasStarted) return true
    timers.pass(now)
    const isDone = timers.advance(budget, fire)
    if (openings.size > unansweredMax) endOldestOpenings(budget)
    expireFragments(f64[clock])
    countOutput()
    return isDone
  }

  function expireFragments(now: TimeUs): void {
    for (;;) {
      const held = fragments.expire(now)
      if (held === 0) return
      if (held < 0) continue
      for (let slot = held; slot !== 0;) {
        const at = slot >> 2
        slot = i32[at + NEXT_HELD]
        drop(at, DropReason['fragment-timeout'])
      }
    }
  }

  /** A time before which `advance` has nothing to do. */
  function nextDue(): TimeUs {
    return timers.hasStarted ? Math.min(timers.nextDue(), fragments.nextExpiry()) : Infinity
  }

  // -- Moving flows --------------------------------------------------------------------------------------------------

  const transfer = createFlowTransfer({
    arena, extents, pool, chain, fragments, table, slab, timers, openings, held, calls, parser, packet, idleDescriptor, statistics,
    aliases, flowsMax: limits.flows, isManaged: manager !== null, find, useIdle, takeExtra, actor, drop, countOutput,
    applyQuarantine: (record, now) => { if (quarantine.size > 0) applyQuarantine(record, now) },
    release: (record) => { release(record, true) },
  })

  // -- Alias keys ----------------------------------------------------------------------------------------------------

  function claimAlias(nf: number, shown: number): number {
    const record = i32[shown + RECORD]
    const d = aliasDescriptor
    i32.copyWithin(d, shown, shown + WORDS)
    const result = record === 0 ? ParseResult.pass : parse(d)
    // A first fragment has its ports as a whole packet has.
    if (result !== ParseResult.flow && result !== ParseResult.firstFragment) return AliasClaim.refused
    if (keyEquals(d, record)) return AliasClaim.granted
    const hash = i32[d + HASH]
    const owner = aliases.ownerOf(d + KEY, hash)
    if (owner === record) return AliasClaim.granted
    if (owner !== 0 || find(d) !== 0) return AliasClaim.refused
    const flip = ((i32[d + META] ^ i32[shown + META]) & Meta.fromB) !== 0
    if (manager !== null) return manager.claimAlias(record, d, flip, nf)
    return aliases.add(record, d + KEY, hash, flip) ? AliasClaim.granted : AliasClaim.refused
  }

  /** Gives a flow an alias key (a word index) that nobody has. */
  function addAlias(record: number, key: number, flip: boolean): boolean {
    i32.copyWithin(aliasDescriptor + KEY, key, key + KEY_WORDS)
    const hash = parser.hashKey(aliasDescriptor)
    if (aliases.ownerOf(key, hash) !== 0) return true
    return aliases.add(record, key, hash, flip)
  }

  /** Tells a network function the answer to a claim that was pending. What comes of it is output. */
  function aliasAnswered(record: number, nf: number, granted: boolean): void {
    const member = nfs[nf] as ChainNf
    if (member.methods.aliasClaimed === undefined || (u8[record + FlowRecord.flags] & FlowFlag.poisoned) !== 0) return
    useIdle(record)
    member.state.o = record + member.stateOffset
    progress.nf = nf
    if (inProgress !== null) inProgress.begin(i32, record >> 2)
    try {
      member.methods.aliasClaimed(member.state, granted)
      manager?.rang?.(record)
    } catch (error) {
      calls.failOn(record, nf, error)
    }
    progress.nf = -1
    if (inProgress !== null) inProgress.end()
    packet.d = idleDescriptor
    countOutput()
  }

  /** Ends a flow that the manager was told to be idle. */
  function endFlow(record: number): void {
    end(record, u8[record + FlowRecord.phase] === FlowPhase.lingering ? 'closed' : 'expired', true)
    packet.d = idleDescriptor
  }

  /** The record of the flow with the key in this descriptor, 0 if there is none. Writes the descriptor's hash. */
  function findFlow(d: number): number {
    i32[d + HASH] = parser.hashKey(d)
    return find(d)
  }

  /** Where the chain's network functions want the flow to live: a runtime's id, or null to stay. */
  function migrationTargetOf(record: number, cluster: ClusterView): number | null {
    useIdle(record)
    let target: number | null = null
    for (let i = 0; i < nfs.length && target === null; i++) {
      const nf = nfs[i] as ChainNf
      if (nf.methods.migrationTarget === undefined) continue
      nf.state.o = record + nf.stateOffset
      try {
        target = nf.methods.migrationTarget(cluster, nf.state)
      } catch (error) {
        calls.report(i, error)
      }
    }
    packet.d = idleDescriptor
    return target
  }

  // -- Host's side ---------------------------------------------------------------------------------------------------

  /** Word index of descriptor `index` of the batch, for the host to fill. */
  function descriptor(index: number): number {
    return descriptors + index * WORDS
  }

  /** Gives back the packets that left. Call after they were sent, before the next batch. */
  function clearOutput(): void {
    emitter.giveUp()
    let bytes = 0
    for (let i = 0; i < outputCount; i++) {
      const d = i32[outputs + i]
      bytes += i32[d + WIRE_LENGTH]
      const slot = i32[d + SLOT]
      if (slot !== 0) pool.give(slot)
    }
    statistics.bytesForwarded += bytes
    outputCount = 0
    countedOutput = 0
    extraCount = 0
  }

  function* flows(): Generator<number> {
    for (let index = 0; index < slab.highWater; index++) if (slab.isTaken(index)) yield slab.offsetOf(index)
  }

  /** Ends every flow: those whose connection is over as closed, others as finished. */
  function finish(): void {
    for (const record of flows()) {
      end(record, u8[record + FlowRecord.phase] === FlowPhase.lingering ? 'closed' : 'finished', true)
    }
    expireFragments(Infinity)
    countOutput()
    packet.d = idleDescriptor
  }

  return {
    arena, pool, extents, records, chain, statistics, dropCounts, table, slab, limits,
    /** Room for this many packets per batch. */
    batchPackets: BATCH_PACKETS,
    descriptor,
    /** How many descriptors of the batch are filled. */
    get batchCount() { return batchCount },
    set batchCount(count: number) { batchCount = count },
    process,
    watchPackets: (next: PacketWatch | null): void => { watch = next },
    advance,
    nextDue,
    get outputCount() { return outputCount },
    /** Word index of the list of packets that are to leave: word indexes of their descriptors. PERF: for hosts' loops. */
    outputs,
    /** Word index of the descriptor of packet `index` that is to leave. */
    output: (index: number): number => i32[outputs + index],
    clearOutput,
    aliases, addAlias, aliasAnswered,
    ...transfer,
    /** True if flows of a chain with this layout can be imported. */
    takesLayout: (other: ChainLayout): boolean => takesLayout(chain, other),
    endFlow, findFlow, quarantine: quarantineFlow,
    migrationTargetOf,
    /** True when a network function of the chain says where its flows want to live. */
    choosesTargets: nfs.some((nf) => nf.methods.migrationTarget !== undefined),
    /** Flows whose NF asked for `migrationTarget` since this was last emptied: their records. The host empties it in every turn. */
    reconsidered,
    flows,
    finish,
    /** Packets held by NFs: they travel with their flows. */
    get heldPackets() { return held.count },
    get holds() { return held.begun },
    /** Packets kept: held by NFs, or fragments waiting for their first one. */
    get buffered() { return held.count + fragments.held },
    isRestOfDropped: (d: number): boolean => fragments.isRestOfDropped(d),
    get now() { return f64[clock] },
  }
}
