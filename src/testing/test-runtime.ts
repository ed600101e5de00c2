/**
 * Test runtime: one engine with a chain, fed frame by frame, everything that comes of it kept as plain values.
 *
 *     frame ─▶ batch of the wanted size ─▶ engine.process ─▶ outputs, records, flows that ended
 *        └─ what is due before its time happens first: engine.advance, from one due time to the next
 *
 * Results do not depend on the size of the batches: a batch ends early where something could become due within it. Time is that
 * of the frames and never goes back. Tests of network functions mostly want `runPackets`, which does it all at once; this
 * class is for tests that look in between, or move flows about.
 */

import { assert } from '../base/assert.ts'
import { defaultLimits, defaultTimeouts, type EngineLimits, type IdleTimeouts } from '../base/limits.ts'
import { Random } from '../base/random.ts'
import { FlowPhase, FlowRecord, keyVersion, keyVlanInner, keyVlanOuter } from '../flow/flow-record.ts'
import { Arena } from '../memory/arena.ts'
import { formatAddress } from '../memory/struct.ts'
import type { ChainMember } from '../nf/chain.ts'
import type { AnyNfDefinition } from '../nf/definition.ts'
import { Descriptor, Meta } from '../packet/descriptor.ts'
import { SLOT_FRAME_OFFSET } from '../packet/packet-pool.ts'
import {
  createEngine, defaultPolicy, type Engine, type EnginePolicy, type EngineStatistics, type FlowEnd,
} from '../runtime/engine.ts'

/** A network function alone (its configuration is `config`), or several; with a configuration each, or their defaults. */
export type TestChain = AnyNfDefinition | readonly (AnyNfDefinition | ChainMember)[]

/** A frame, and what is known of it besides its bytes. */
export interface TestPacket {
  readonly frame: Uint8Array
  /** Microseconds since the Unix epoch; `stepUs` after the packet before unless told. */
  readonly time?: number
  /** The port it comes in by. */
  readonly port?: number
  /** LINKTYPE_ number, 1 (Ethernet) unless told. */
  readonly linkType?: number
  /** Length on the wire when the frame was cut short. */
  readonly wireLength?: number
}

export interface TestRuntimeOptions {
  /** Configuration of a chain that is one definition alone. */
  readonly config?: unknown
  /** Packets per batch, 1 to 32 (unless told: 32). */
  readonly batch?: number
  /** Limits that differ from {@link testLimits}. */
  readonly limits?: Partial<EngineLimits>
  readonly timeouts?: Partial<IdleTimeouts>
  readonly policy?: Partial<EnginePolicy>
  readonly seed?: number
  /** False: plain TypeScript instead of the WebAssembly kernels. */
  readonly wasm?: boolean
  /** Time of the first packet that names none, and time between those. */
  readonly startUs?: number
  readonly stepUs?: number
  /** Fills what lies around the frames with garbage from this seed: nothing may depend on it. */
  readonly garbage?: number
}

/** A packet that left. */
export interface OutputPacket {
  readonly frame: Uint8Array
  /** Time of arrival; for an emitted packet that of the packet or timer it was made at. */
  readonly time: number
  readonly port: number
  readonly wireLength: number
  /** True for a packet made by a network function. */
  readonly emitted: boolean
  /** The engine's time when it left. */
  readonly leftAt: number
  /** True if it left because time passed, not because a packet came. */
  readonly byTimer: boolean
}

/** A flow, source first: the side that opened it. */
export interface FlowTuple {
  readonly version: 4 | 6
  readonly protocol: number
  readonly source: string
  readonly sourcePort: number
  readonly destination: string
  readonly destinationPort: number
  readonly vlan: number
  readonly vlanInner: number
  readonly pppoeSession: number
}

export interface FlowResult {
  readonly tuple: FlowTuple
  readonly packets: number
  readonly bytes: number
  readonly firstSeen: number
  readonly lastSeen: number
  /** How it ended; `open` for a flow that is still there. */
  readonly end: FlowEnd | 'open'
  /** The engine's time when it ended. */
  readonly endedAt: number
  /** Decoded flow state by the name of the network function. */
  readonly state: Record<string, any>
}

export interface RecordResult {
  readonly nf: string
  readonly event: string
  readonly time: number
  /** Whom it is about, source first. */
  readonly tuple: FlowTuple
  readonly fields: Record<string, string | number | boolean>
}

export interface TestResult {
  readonly outputs: readonly OutputPacket[]
  /** Flows in the order in which they ended; behind them those that are still there. */
  readonly flows: readonly FlowResult[]
  readonly records: readonly RecordResult[]
  /** Counter values by network function and name. */
  readonly counters: Record<string, Record<string, number>>
  /** Packets dropped by reason, without zeroes. */
  readonly dropReasons: Record<string, number>
  readonly statistics: EngineStatistics
  /** First error of each network function that threw. */
  readonly errors: readonly { readonly nf: string; readonly error: unknown }[]
  /** What is in use: all zeroes when every flow has ended. */
  readonly inUse: { readonly flows: number; readonly extents: number; readonly packets: number; readonly buffered: number }
}

/** Limits that suit tests: small enough to be reached. */
export const testLimits: EngineLimits = {
  ...defaultLimits, flows: 1024, packets: 512, largePackets: 8, extentBytes: 2 ** 21, recordBytes: 2 ** 20,
  fragmentedDatagrams: 64, fragmentsHeld: 64, fragmentsHeldPerDatagram: 16,
}

export const TEST_START_US = 1_700_000_000_000_000
const TICK_US = 1000
/** Address space, reserved and not touched. */
const ARENA_BYTES = 256 * 2 ** 20

/** Arenas that are not in use: a process can reserve only so many. */
const arenas: Arena[] = []

function members(chain: TestChain, config: unknown): ChainMember[] {
  const list = (Array.isArray(chain) ? chain : [chain]) as readonly (AnyNfDefinition | ChainMember)[]
  return list.map((item) => {
    const definition = 'definition' in item ? item.definition : item
    const given = 'definition' in item ? item.config : (list.length === 1 ? config : undefined)
    return { definition, config: definition.config === undefined ? given ?? {} : definition.config.parse(given ?? {}) }
  })
}

export class TestRuntime {
  readonly engine: Engine
  /** All of what left, was reported and ended so far. */
  readonly outputs: OutputPacket[] = []
  readonly records: RecordResult[] = []
  readonly ended: FlowResult[] = []
  readonly errors: { nf: string; error: unknown }[] = []
  readonly #batch: number
  readonly #timeouts: IdleTimeouts
  readonly #stepUs: number
  readonly #garbage: Random | null
  #time: number
  #started = false
  #count = 0
  /** A packet at or after this time finds the batch processed. */
  #deadline = Infinity
  #epoch = -1
  #byTimer = false

  constructor(chain: TestChain, options: TestRuntimeOptions = {}) {
    const { batch = 32, seed = 1, startUs = TEST_START_US, stepUs = 1000, wasm } = options
    if (!(batch >= 1 && batch <= 32)) throw new RangeError('a batch has 1 to 32 packets')
    this.#batch = batch
    this.#timeouts = { ...defaultTimeouts, ...options.timeouts }
    this.#stepUs = stepUs
    this.#time = startUs - stepUs
    this.#garbage = options.garbage === undefined ? null : new Random(options.garbage)
    this.engine = createEngine({
      arena: arenas.pop() ?? new Arena(ARENA_BYTES),
      chain: members(chain, options.config),
      limits: { ...testLimits, ...options.limits },
      timeouts: this.#timeouts,
      policy: { ...defaultPolicy, ...options.policy },
      seed, wasm,
      events: {
        flowEnded: (record, end) => { this.ended.push(this.describeFlow(record, end)) },
        nfFailed: (nf, error) => { this.errors.push({ nf, error }) },
      },
    })
  }

  /** Time of the last packet, or to which time was advanced. */
  get time(): number {
    return this.#time
  }

  /** Takes a packet; it is processed when its batch is full, or time passes, or at `flush`. */
  feed(packet: Uint8Array | TestPacket): void {
    const { frame, time = this.#time + this.#stepUs, port = 0, linkType = 1, wireLength = 0 } =
      packet instanceof Uint8Array ? { frame: packet } as TestPacket : packet
    this.#passTo(time)
    if (time >= this.#deadline) this.flush()
    if (this.#count === 0) this.#goTo(time)
    const { i32, u8, f64 } = this.engine.arena
    const slot = this.#slotFor(frame.length)
    if (this.#count === 0) this.#limitSpan(time)
    const at = slot + SLOT_FRAME_OFFSET
    if (this.#garbage !== null) this.#garbage.fill(u8.subarray(slot, slot + this.engine.pool.capacity(slot)))
    u8.set(frame, at)
    const d = this.engine.descriptor(this.#count++)
    i32[d + Descriptor.frame] = at
    i32[d + Descriptor.length] = frame.length
    i32[d + Descriptor.wireLength] = Math.max(frame.length, wireLength)
    i32[d + Descriptor.slot] = slot
    i32[d + Descriptor.seconds] = Math.floor(time / 1e6)
    i32[d + Descriptor.nanoseconds] = Math.round((time % 1e6) * 1000)
    i32[d + Descriptor.port] = port
    i32[d + Descriptor.linkType] = linkType
    f64[(d + Descriptor.time) >> 1] = time
    if (this.#count === this.#batch) this.flush()
  }

  feedAll(packets: Iterable<Uint8Array | TestPacket>): void {
    for (const packet of packets) this.feed(packet)
  }

  /** Processes what has been taken. */
  flush(): void {
    if (this.#count === 0) return
    this.engine.batchCount = this.#count
    this.#count = 0
    this.engine.process()
    this.#deliver()
    this.#deadline = this.engine.nextDue()
    // The engine's time starts in the batch that opens the first flow.
    if (this.#epoch < 0 && this.#deadline !== Infinity) this.#epoch = this.engine.now
  }

  /** Processes what has been taken, and lets time pass. */
  advanceTo(time: number): void {
    this.flush()
    this.#passTo(time)
    this.#goTo(time)
    this.#deadline = this.engine.nextDue()
  }

  /** Processes the rest and ends every flow. */
  finish(): void {
    this.flush()
    this.#goTo(Math.max(0, this.#time))
    this.engine.finish()
    this.#deliver()
  }

  /** Every flow as a snapshot; with `remove` they are gone afterwards. */
  exportFlows(remove: boolean): Uint8Array[] {
    // A snapshot is taken at the engine's time.
    this.advanceTo(this.#time)
    const records = [...this.engine.flows()]
    const snapshots = records.map((record) => {
      const bytes = this.engine.exportBytes(record)
      const snapshot = this.engine.exportFlow(record)
      assert(snapshot.length === bytes, 'a snapshot is as long as it was said to be')
      return snapshot
    })
    if (remove) {
      for (const record of records) this.engine.removeFlow(record)
      this.#deliver()
    }
    return snapshots
  }

  /** Installs flows that were exported, here or elsewhere, at the given time of the other runtime. */
  importFlows(snapshots: readonly Uint8Array[], now: number): void {
    this.flush()
    if (snapshots.length === 0) return
    if (this.#epoch < 0) this.#epoch = now
    this.#passTo(this.#started ? Math.max(this.#time, now) : now)
    for (const snapshot of snapshots) this.engine.importFlow(snapshot, now)
    this.#deliver()
    this.#deadline = this.engine.nextDue()
  }

  /** What does not add up, or an empty text: packets in = packets out, dropped or kept. */
  get conservationFault(): string {
    const { received, emitted, takenOver, forwarded, dropped, handedOver } = this.engine.statistics
    const { buffered } = this.engine
    const reasons = this.engine.dropCounts.reduce((sum, count) => sum + count, 0)
    if (received + emitted + takenOver !== forwarded + dropped + buffered + handedOver) {
      return `received ${received} + emitted ${emitted} + taken over ${takenOver} is not forwarded ${forwarded} + dropped ` +
        `${dropped} + buffered ${buffered} + handed over ${handedOver}`
    }
    return reasons === dropped ? '' : `${dropped} packets were dropped, ${reasons} have a reason`
  }

  result(): TestResult {
    this.flush()
    const { engine } = this
    const living = [...engine.flows()].map((record) => this.describeFlow(record, 'open'))
    return {
      outputs: this.outputs,
      flows: [...this.ended, ...living],
      records: this.records,
      counters: Object.fromEntries(engine.chain.nfs.map((nf) => [nf.name,
        Object.fromEntries(Object.keys(nf.definition.counters ?? {}).map((name) => [name, nf.counters[name] as number]))])),
      dropReasons: Object.fromEntries(engine.chain.dropReasons
        .map((reason, index) => [reason, engine.dropCounts[index]] as const).filter(([, count]) => count !== 0)),
      statistics: { ...engine.statistics },
      errors: this.errors,
      inUse: {
        flows: engine.slab.used, extents: engine.extents.used, packets: engine.pool.used, buffered: engine.buffered,
      },
    }
  }

  /** A flow record as plain values. */
  describeFlow(record: number, end: FlowEnd | 'open'): FlowResult {
    const { arena, chain, extents } = this.engine
    const { f64, u8 } = arena
    return {
      tuple: this.#describeKey(record >> 2, u8[record + FlowRecord.opener] === 1),
      packets: f64[(record + FlowRecord.packets) >> 3],
      bytes: f64[(record + FlowRecord.bytes) >> 3],
      firstSeen: f64[(record + FlowRecord.firstSeen) >> 3],
      lastSeen: f64[(record + FlowRecord.lastSeen) >> 3],
      end, endedAt: this.engine.now,
      state: Object.fromEntries(chain.nfs.map((nf) =>
        [nf.name, nf.definition.flowState?.decode({ arena, extents }, record + nf.stateOffset) ?? {}])),
    }
  }

  /** True for a flow that is closed and waits out its time-wait. */
  isLingering(record: number): boolean {
    return this.engine.arena.u8[record + FlowRecord.phase] === FlowPhase.lingering
  }

  /** Lets another runtime have the arena. Nothing of this one may be used afterwards, except what was kept. */
  dispose(): void {
    this.engine.arena.reset()
    arenas.push(this.engine.arena)
  }

  #passTo(time: number): void {
    if (this.#started && time < this.#time) throw new RangeError('time does not go back')
    this.#started = true
    this.#time = time
  }

  #slotFor(length: number): number {
    let slot = this.engine.pool.take(length)
    if (slot === 0) {
      this.flush()
      slot = this.engine.pool.take(length)
    }
    if (slot === 0) throw new RangeError(`no packet slot for a frame of ${length} bytes`)
    return slot
  }

  /** A batch may not last longer than it takes for something to become due because of it. */
  #limitSpan(time: number): void {
    const hasTimers = this.engine.chain.nfs.some((nf) => nf.timerOffset !== 0)
    let end = time + Math.min(...Object.values(this.#timeouts).map((seconds) => seconds * 1e6))
    if (hasTimers) {
      end = this.#epoch < 0 ? time : this.#epoch + (Math.floor((time - this.#epoch) / TICK_US) + 1) * TICK_US
    }
    this.#deadline = Math.min(this.engine.nextDue(), end)
  }

  /** Everything that is due up to `time`, each at its own time. */
  #goTo(time: number): void {
    const { engine } = this
    this.#byTimer = true
    for (;;) {
      const due = engine.nextDue()
      if (due > time) break
      const done = engine.advance(due, 1)
      this.#deliver()
      if (done && engine.nextDue() === due) break
    }
    while (!engine.advance(time, 1)) this.#deliver()
    this.#deliver()
    this.#byTimer = false
  }

  #deliver(): void {
    const { engine } = this
    const { i32, u8, f64 } = engine.arena
    for (let i = 0; i < engine.outputCount; i++) {
      const d = engine.output(i)
      const frame = i32[d + Descriptor.frame]
      this.outputs.push({
        frame: u8.slice(frame, frame + i32[d + Descriptor.length]),
        time: f64[(d + Descriptor.time) >> 1],
        port: i32[d + Descriptor.port],
        wireLength: i32[d + Descriptor.wireLength],
        emitted: (i32[d + Descriptor.meta] & Meta.emitted) !== 0,
        leftAt: engine.now,
        byTimer: this.#byTimer,
      })
    }
    engine.clearOutput()
    engine.records.drain((record) => {
      this.records.push({
        nf: engine.chain.nfs[record.nf].name, event: record.event, time: record.time,
        tuple: this.#describeKey(record.key, record.fromB), fields: record.fields,
      })
    })
  }

  #describeKey(at: number, fromB: boolean): FlowTuple {
    const { i32 } = this.engine.arena
    const tag = i32[at]
    const version = keyVersion(tag) as 4 | 6
    const ports = i32[at + 1]
    const a = formatAddress(version, i32[at + 3], i32[at + 4], i32[at + 5], i32[at + 6])
    const b = formatAddress(version, i32[at + 7], i32[at + 8], i32[at + 9], i32[at + 10])
    return {
      version, protocol: i32[at + 2] & 255,
      source: fromB ? b : a, sourcePort: fromB ? ports & 0xffff : ports >>> 16,
      destination: fromB ? a : b, destinationPort: fromB ? ports >>> 16 : ports & 0xffff,
      vlan: keyVlanOuter(tag), vlanInner: keyVlanInner(tag), pppoeSession: i32[at + 2] >>> 8,
    }
  }
}
