/**
 * Contract suite: what every network function owes the framework, checked by running it. Nothing here knows what the function
 * is for; each check compares runs of the same traffic that must not differ, or counts what must not be left over.
 *
 *     repeatable    the same run twice gives the same: no clock, no chance of its own
 *     batches       the size of the batches makes no difference
 *     kernels       nor do WebAssembly kernels or their plain twins
 *     snapshot      nor does it when flows are snapshotted, removed and restored between packets
 *     moved         nor when they go on in a fresh instance, which has nothing but the snapshots
 *     flows apart   a flow gives the same alone as in the midst of others (not asked of functions with shared state)
 *     ends          deallocateFlowState runs once for every flow that ends, not for one that moves
 *     nothing left  no record, extent or packet is in use when all flows have ended
 *     conservation  every packet is counted once, at any time
 *     never throws  on ordinary, strange and broken packets
 *
 * "Gives the same" is: output bytes, records and final decoded state. `context.random` is made a function of the flow for the
 * suite, so that functions may draw from it. A failed check names the trace, the seed and the first difference.
 */

import type { AnyNfDefinition, NfContext, NfMethods } from '../nf/definition.ts'
import { Random } from '../base/random.ts'
import { Arena } from '../memory/arena.ts'
import { DESCRIPTOR_WORDS, Descriptor } from '../packet/descriptor.ts'
import { createParser, ParseResult } from '../packet/parse.ts'
import { syntheticTraces } from './synthetic-traces.ts'
import {
  TestRuntime, type FlowResult, type FlowTuple, type OutputPacket, type RecordResult, type TestPacket, type TestRuntimeOptions,
} from './test-runtime.ts'

export interface ContractTrace {
  readonly name: string
  readonly packets: readonly TestPacket[]
  /** The same, flow by flow or group by group, when it is known. */
  readonly parts?: readonly (readonly TestPacket[])[]
  /** When it ends, if that is after its last packet. */
  readonly endUs?: number
}

export interface ContractOptions {
  readonly config?: unknown
  /** Traces besides the built-in ones (captures, say). Times are rounded to milliseconds. */
  readonly traces?: readonly ContractTrace[]
  /** False: only `traces`. */
  readonly builtIn?: boolean
  readonly seed?: number
  /** How often flows are snapshotted in a run. */
  readonly cuts?: number
  readonly limits?: TestRuntimeOptions['limits']
}

export interface ContractCheck {
  readonly check: string
  readonly ok: boolean
  /** What is wrong, and with which trace; for a check that was left out, why. */
  readonly detail: string
  readonly seed: number
}

export interface ContractReport {
  readonly nf: string
  readonly ok: boolean
  readonly checks: readonly ContractCheck[]
}

/** What a run gave, in a form that does not depend on anything that may differ. */
interface Outcome {
  readonly outputs: string[]
  readonly flows: string[]
  readonly records: string[]
}

/**
 * Runs the contract suite on one network function. Throws nothing: what fails is in the report.
 */
export async function runContractSuite(definition: AnyNfDefinition, options: ContractOptions = {}): Promise<ContractReport> {
  const suite = new ContractSuite(definition, options)
  suite.run()
  return { nf: definition.name, ok: suite.checks.every((check) => check.ok), checks: suite.checks }
}

class ContractSuite {
  readonly checks: ContractCheck[] = []
  readonly #definition: AnyNfDefinition
  readonly #watch: FlowWatch
  readonly #options: ContractOptions
  readonly #seed: number
  readonly #traces: readonly ContractTrace[]
  /** Faults found while running for other checks: check, first fault. */
  readonly #faults = new Map<string, string>()

  constructor(definition: AnyNfDefinition, options: ContractOptions) {
    this.#watch = new FlowWatch()
    this.#definition = instrument(definition, this.#watch)
    this.#options = options
    this.#seed = options.seed ?? 1
    this.#traces = [...(options.builtIn ?? true) ? syntheticTraces(this.#seed) : [], ...(options.traces ?? []).map(inMilliseconds)]
  }

  run(): void {
    const straight = new Map<ContractTrace, Outcome>()
    const runs = (check: string, other: (trace: ContractTrace) => Outcome): void => {
      this.#check(check, () => {
        for (const trace of this.#traces) {
          const expected = straight.get(trace)
          if (expected === undefined) continue
          const difference = firstDifference(expected, other(trace))
          if (difference !== '') return `trace "${trace.name}": ${difference}`
        }
        return ''
      })
    }
    this.#check('never throws', () => {
      for (const trace of this.#traces) {
        straight.set(trace, this.#run(trace, { batch: 1 }))
        if (this.#faults.has('never throws')) return ''
      }
      for (const trace of this.#traces) this.#run(this.#mutated(trace), { batch: 32 })
      return ''
    })
    runs('repeatable', (trace) => this.#run(trace, { batch: 1 }))
    runs('batches', (trace) => {
      const seven = this.#run(trace, { batch: 7 })
      return firstDifference(straight.get(trace) as Outcome, seven) === '' ? this.#run(trace, { batch: 32 }) : seven
    })
    runs('kernels', (trace) => this.#run(trace, { wasm: false }))
    runs('snapshot', (trace) => this.#run(trace, {}, 'same'))
    runs('moved', (trace) => this.#run(trace, {}, 'fresh'))
    if (this.#definition.sharedState === undefined) {
      this.#check('flows apart', () => this.#apart(straight))
    } else {
      this.checks.push({ check: 'flows apart', ok: true, detail: 'left out: flows share state', seed: this.#seed })
    }
    for (const check of ['ends', 'nothing left', 'conservation']) this.#check(check, () => '')
  }

  #check(check: string, run: () => string): void {
    let detail: string
    try {
      detail = run()
    } catch (error) {
      detail = `stopped: ${describeError(error)}`
    }
    if (detail === '') detail = this.#faults.get(check) ?? ''
    this.checks.push({ check, ok: detail === '', detail, seed: this.#seed })
  }

  #fault(check: string, trace: ContractTrace, what: string): void {
    if (!this.#faults.has(check)) this.#faults.set(check, `trace "${trace.name}": ${what}`)
  }

  /** A trace straight through, or with flows snapshotted at random cuts and restored in the same or in a fresh instance. */
  #run(trace: ContractTrace, options: TestRuntimeOptions, cuts: 'none' | 'same' | 'fresh' = 'none'): Outcome {
    const { packets } = trace
    const at = cuts === 'none' ? new Set<number>() : this.#cuts(trace, cuts === 'fresh' ? 4 : this.#options.cuts ?? 16, cuts)
    const make = (): TestRuntime => new TestRuntime(this.#definition,
      { batch: 1, config: this.#options.config, limits: this.#options.limits, seed: this.#seed, ...options })
    this.#watch.clear()
    let runtime = make()
    const all = [runtime]
    packets.forEach((packet, index) => {
      if (at.has(index)) {
        runtime.advanceTo(packet.time ?? 0)
        const snapshots = runtime.exportFlows(true)
        const { inUse } = runtime.result()
        if (inUse.flows + inUse.extents !== 0) this.#fault('nothing left', trace, `after all flows left: ${JSON.stringify(inUse)}`)
        if (cuts === 'fresh') {
          runtime = make()
          all.push(runtime)
        }
        runtime.importFlows(snapshots, packet.time ?? 0)
      }
      runtime.feed(packet)
      const fault = runtime.conservationFault
      if (fault !== '' && options.batch === 1) this.#fault('conservation', trace, `at packet ${index}: ${fault}`)
    })
    const end = trace.endUs ?? packets.at(-1)?.time ?? 0
    for (const each of all) {
      if (end > each.time) each.advanceTo(end)
      each.finish()
    }
    if (this.#watch.fault !== '') this.#fault('ends', trace, this.#watch.fault)
    if (this.#watch.living !== 0) this.#fault('ends', trace, `${this.#watch.living} flows ended without deallocateFlowState`)
    for (const each of all) this.#inspect(trace, each)
    const outcome = outcomeOf(all.flatMap((r) => r.outputs), all.flatMap((r) => r.ended), all.flatMap((r) => r.records))
    for (const each of all) each.dispose()
    return outcome
  }

  #inspect(trace: ContractTrace, runtime: TestRuntime): void {
    for (const { error } of runtime.errors) this.#fault('never throws', trace, describeError(error))
    const fault = runtime.conservationFault
    if (fault !== '') this.#fault('conservation', trace, `at the end: ${fault}`)
    const { inUse } = runtime.result()
    const left = Object.entries(inUse).filter(([, count]) => count !== 0).map(([what, count]) => `${count} ${what}`)
    if (left.length > 0) this.#fault('nothing left', trace, `in use after all flows ended: ${left.join(', ')}`)
  }

  #cuts(trace: ContractTrace, count: number, kind: 'same' | 'fresh'): Set<number> {
    const random = new Random(this.#seed ^ trace.packets.length)
    const closed = kind === 'fresh' ? withinDatagrams(trace.packets) : []
    const cuts = new Set<number>()
    for (let tries = 0; cuts.size < count && tries < count * 8; tries++) {
      const index = random.below(trace.packets.length)
      if (index > 0 && closed[index] !== true) cuts.add(index)
    }
    return cuts
  }

  /** Each part of a trace alone, against the same flows in the midst of the others. */
  #apart(straight: ReadonlyMap<ContractTrace, Outcome>): string {
    for (const trace of this.#traces) {
      const expected = straight.get(trace)
      if (trace.parts === undefined || expected === undefined) continue
      const alone = trace.parts.map((packets) => this.#run({ name: trace.name, packets, endUs: trace.packets.at(-1)?.time }, {}))
      // The order between parts is not asked about.
      const together = { ...expected, outputs: expected.outputs.toSorted() }
      const difference = firstDifference(together, {
        outputs: alone.flatMap((o) => o.outputs).toSorted(),
        flows: alone.flatMap((o) => o.flows).toSorted(),
        records: alone.flatMap((o) => o.records).toSorted(),
      })
      if (difference !== '') return `trace "${trace.name}": ${difference}`
    }
    return ''
  }

  /** The trace with damaged packets. */
  #mutated(trace: ContractTrace): ContractTrace {
    const random = new Random(this.#seed ^ 0x5eed)
    return { name: `${trace.name}, damaged`, packets: trace.packets.map((packet) => mutatePacket(packet, random)) }
  }
}

/** A packet with some bytes changed, cut short or repeated; some are left as they are. */
export function mutatePacket(packet: TestPacket, random: Random): TestPacket {
  const frame = packet.frame.slice()
  switch (random.below(6)) {
    case 0: return packet
    case 1: return { ...packet, frame: frame.subarray(0, random.below(frame.length + 1)) }
    case 2: return { ...packet, frame: frame.subarray(0, random.below(frame.length + 1)), wireLength: frame.length }
    default:
      for (let changes = random.between(1, 6); changes > 0; changes--) {
        // Mostly headers: that is where lengths are.
        const at = random.below(random.chance(0.8) ? Math.min(frame.length, 74) : frame.length)
        frame[at] = random.chance(0.3) ? random.pick([0, 1, 0x7f, 0x80, 0xff]) : random.int32()
      }
      return { ...packet, frame }
  }
}

/** For each index of a trace: true if a fragmented datagram has fragments on both sides of it. Those stay where they are. */
function withinDatagrams(packets: readonly TestPacket[]): boolean[] {
  const within = new Array<boolean>(packets.length).fill(false)
  const arena = new Arena(2 ** 18)
  const { parse } = createParser(arena, 1)
  const frameAt = arena.allocate('frame', 2 ** 17)
  const d = arena.allocate('descriptor', DESCRIPTOR_WORDS * 4) >> 2
  const first = new Map<string, number>()
  packets.forEach(({ frame, linkType = 1, wireLength = 0 }, index) => {
    arena.u8.set(frame, frameAt)
    arena.i32[d + Descriptor.frame] = frameAt
    arena.i32[d + Descriptor.length] = frame.length
    arena.i32[d + Descriptor.wireLength] = Math.max(wireLength, frame.length)
    arena.i32[d + Descriptor.linkType] = linkType
    const result = parse(d)
    if (result !== ParseResult.firstFragment && result !== ParseResult.laterFragment) return
    const network = arena.i32[d + Descriptor.network]
    const identification = arena.i32[d + Descriptor.key] >>> 24 === 4 ? arena.view.getUint16(network + 4)
      : arena.view.getInt32(arena.i32[d + Descriptor.nf])
    const start = first.get(`${identification}`)
    if (start === undefined) first.set(`${identification}`, index)
    else within.fill(true, start + 1, index + 1)
  })
  return within
}

function inMilliseconds(trace: ContractTrace): ContractTrace {
  const round = (packets: readonly TestPacket[]): TestPacket[] => {
    let last = 0
    return packets.map((packet) => {
      last = Math.max(last, Math.floor((packet.time ?? last) / 1000) * 1000)
      return { ...packet, time: last }
    })
  }
  return { name: trace.name, packets: round(trace.packets), parts: trace.parts?.map(round) }
}

// -- Comparing -----------------------------------------------------------------------------------------------------

const hex = (bytes: Uint8Array): string => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')

/** The same for both directions. */
function tupleText(t: FlowTuple): string {
  const ends = [`${t.source} ${t.sourcePort}`, `${t.destination} ${t.destinationPort}`].toSorted()
  return `${t.protocol} ${ends.join(' - ')} vlan ${t.vlan}/${t.vlanInner} pppoe ${t.pppoeSession}`
}

function outcomeOf(outputs: readonly OutputPacket[], flows: readonly FlowResult[], records: readonly RecordResult[]): Outcome {
  const lines: { text: string; leftAt: number; byTimer: boolean }[] = outputs.map((o) => ({
    text: `${o.time} port ${o.port}${o.emitted ? ' emitted' : ''} ${o.wireLength} ${hex(o.frame)}`,
    leftAt: o.leftAt, byTimer: o.byTimer,
  }))
  // Timers of one tick fire in no particular order.
  for (let from = 0; from < lines.length;) {
    let to = from + 1
    if (lines[from].byTimer) while (to < lines.length && lines[to].byTimer && lines[to].leftAt === lines[from].leftAt) to++
    const sorted = lines.slice(from, to).toSorted((x, y) => (x.text < y.text ? -1 : 1))
    lines.splice(from, to - from, ...sorted)
    from = to
  }
  // Records of one flow have an order, those of different flows need none.
  const byFlow = new Map<string, number>()
  const recordLines = records.map((r) => {
    const flow = tupleText(r.tuple)
    const number = byFlow.get(flow) ?? 0
    byFlow.set(flow, number + 1)
    return `${flow}: record ${String(number).padStart(6, '0')} ${r.event} from ${r.tuple.source} ${r.tuple.sourcePort} at ` +
      `${r.time} ${JSON.stringify(r.fields)}`
  })
  return {
    outputs: lines.map((line) => line.text),
    flows: flows.map((f) => `${tupleText(f.tuple)} opened by ${f.tuple.source} ${f.tuple.sourcePort}: from ${f.firstSeen} to ` +
      `${f.lastSeen}, ${f.packets} packets, ${f.bytes} bytes, ${f.end}, ${JSON.stringify(f.state)}`).toSorted(),
    records: recordLines.toSorted(),
  }
}

/** The first difference in words, or an empty text. */
function firstDifference(expected: Outcome, found: Outcome): string {
  for (const what of ['flows', 'records', 'outputs'] as const) {
    const e = expected[what]
    const f = found[what]
    for (let i = 0; i < Math.max(e.length, f.length); i++) {
      if (e[i] === f[i]) continue
      const show = (text: string | undefined): string => {
        if (text === undefined) return 'nothing'
        return text.length > 400 ? `${text.slice(0, 400)}...` : text
      }
      return `${what} differ, number ${i} of ${e.length} and ${f.length}: expected ${show(e[i])}, found ${show(f[i])}`
    }
  }
  return ''
}

function describeError(error: unknown): string {
  return error instanceof Error ? `${error.name}: ${error.message}` : String(error)
}

// -- Watching ------------------------------------------------------------------------------------------------------

/** Follows which flows are there, by where their states lie. */
class FlowWatch {
  fault = ''
  readonly #here = new Map<object, Set<number>>()

  clear(): void {
    this.fault = ''
    this.#here.clear()
  }

  get living(): number {
    return this.#here.values().reduce((sum, set) => sum + set.size, 0)
  }

  came(instance: object, state: number, how: string): void {
    let set = this.#here.get(instance)
    if (set === undefined) this.#here.set(instance, set = new Set())
    if (set.has(state) && this.fault === '') this.fault = `${how} for a flow that is there already`
    set.add(state)
  }

  went(instance: object, state: number, how: string): void {
    if (this.#here.get(instance)?.delete(state) !== true && this.fault === '') this.fault = `${how} for a flow that is not there`
  }
}

/** The definition with its flows watched and its random numbers a function of the flow. */
function instrument(definition: AnyNfDefinition, watch: FlowWatch): AnyNfDefinition {
  return {
    ...definition,
    create(config: unknown, context: NfContext<any, any, any, any>): NfMethods<any> {
      let draws = 0
      const { flow } = context
      const own = Object.create(context, {
        random: { value: () => new Random(flow.packets * 31 + flow.bytes * 7 + flow.firstSeen % 65521 + draws++).int32() },
      }) as NfContext<any, any, any, any>
      const methods = definition.create(config, own)
      const instance = {}
      const enter = <T>(run: () => T): T => {
        draws = 0
        return run()
      }
      const watched: NfMethods<any> = {
        allocateFlowState(state, packet) {
          watch.came(instance, state.o, 'allocateFlowState')
          enter(() => methods.allocateFlowState?.(state, packet))
        },
        deallocateFlowState(state) {
          watch.went(instance, state.o, 'deallocateFlowState')
          enter(() => methods.deallocateFlowState?.(state))
        },
        processPacket: (packet, state) => enter(() => methods.processPacket(packet, state)),
        flowMovedIn(state) {
          watch.came(instance, state.o, 'flowMovedIn')
          enter(() => methods.flowMovedIn?.(state))
        },
        flowMovedOut(state) {
          watch.went(instance, state.o, 'flowMovedOut')
          enter(() => methods.flowMovedOut?.(state))
        },
      }
      if (methods.timerFired !== undefined) watched.timerFired = (state) => enter(() => methods.timerFired?.(state))
      if (methods.migrationTarget !== undefined) {
        watched.migrationTarget = (cluster, state) => methods.migrationTarget?.(cluster, state) ?? null
      }
      return watched
    },
  }
}
