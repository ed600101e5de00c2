/**
 * Contract suite: what every network function owes the framework, checked by running it. Nothing here knows what the function
 * is for; each check compares runs of the same traffic that must not differ, or counts what must not be left over.
 *
 *     repeatable    the same run twice gives the same: no clock, no chance of its own
 *     batches       the size of the batches makes no difference
 *     kernels       nor do WebAssembly kernels or their plain twins
 *     frames only   nor what lies in memory around a frame
 *     snapshot      nor does it when flows are snapshotted, removed and restored between packets
 *     moved         nor when they go on in a fresh instance, which has nothing but the snapshots
 *     flows apart   a flow gives the same alone as in the midst of others
 *     ends          deallocateFlowState runs once for every flow that ends, not for one that moves
 *     nothing left  no record, extent or packet is in use when all flows have ended
 *     conservation  every packet is counted once, at any time
 *     never throws  on ordinary, strange and broken packets
 *
 * A function with shared state is not asked to keep flows apart, and flows that open after a move may differ: what is shared
 * stays where it was. "Gives the same" is: output bytes, records and final decoded state. `context.random` is made a function
 * of the flow for the suite, so that functions may draw from it. A failed check names the trace, the seed and the first
 * difference.
 */

import { Random } from '../base/random.ts'
import type { AnyNfDefinition } from '../nf/definition.ts'
import { FlowWatch, instrument } from './flow-watch.ts'
import { mutatePacket } from './mutate-packet.ts'
import { firstDifference, outcomeOf, type Outcome } from './run-outcome.ts'
import { syntheticTraces } from './synthetic-traces.ts'
import { TEST_START_US, TestRuntime, type TestPacket, type TestRuntimeOptions } from './test-runtime.ts'
import { goOn, readTrace, withinDatagrams } from './trace-reading.ts'

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

interface CutTrace extends ContractTrace {
  /** Where to cut, if that is not left to chance. */
  readonly cuts?: readonly number[]
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
    this.#traces = [...(options.builtIn ?? true) ? syntheticTraces(this.#seed) : [],
      ...(options.traces ?? []).map(inMilliseconds)]
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
    runs('frames only', (trace) => this.#run(trace, { batch: 32, garbage: this.#seed }))
    runs('snapshot', (trace) => this.#run(trace, {}, 'same'))
    if (this.#definition.sharedState === undefined) {
      runs('moved', (trace) => this.#run(trace, {}, 'fresh'))
      this.#check('flows apart', () => this.#apart(straight))
    } else {
      this.#check('moved', () => this.#movedSharing())
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
  #run(trace: CutTrace, options: TestRuntimeOptions, cuts: 'none' | 'same' | 'fresh' = 'none'): Outcome {
    const { packets } = trace
    const at = cuts === 'none' ? new Set<number>()
      : new Set(trace.cuts ?? this.#cuts(trace, cuts === 'fresh' ? 4 : this.#options.cuts ?? 16, cuts))
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
        if (inUse.flows + inUse.extents !== 0) this.#fault('nothing left', trace,
          `after all flows left: ${JSON.stringify(inUse)}`)
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

  /** Where flows are snapshotted; they do not move in the midst of a fragmented datagram. */
  #cuts(trace: ContractTrace, count: number, kind: 'same' | 'fresh'): Set<number> {
    const random = new Random(this.#seed ^ trace.packets.length)
    const closed = kind === 'fresh' ? withinDatagrams(readTrace(trace.packets)) : []
    const cuts = new Set<number>()
    for (let tries = 0; cuts.size < count && tries < count * 8; tries++) {
      const index = random.below(trace.packets.length)
      if (index > 0 && closed[index] !== true) cuts.add(index)
    }
    return cuts
  }

  /** Moves flows once, and then brings only packets of those: flows that open later depend on what is shared. */
  #movedSharing(): string {
    for (const trace of this.#traces) {
      for (const cut of this.#cuts(trace, 4, 'fresh')) {
        const packets = [...trace.packets.slice(0, cut), ...goOn(trace.packets, cut)]
        const part = { name: trace.name, packets, cuts: [cut] }
        const difference = firstDifference(this.#run(part, {}), this.#run(part, {}, 'fresh'))
        if (difference !== '') return `trace "${trace.name}", moved before packet ${cut}: ${difference}`
      }
    }
    return ''
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

function inMilliseconds(trace: ContractTrace): ContractTrace {
  const round = (packets: readonly TestPacket[]): TestPacket[] => {
    let last = 0
    return packets.map((packet) => {
      last = Math.max(last, Math.floor((packet.time ?? (last === 0 ? TEST_START_US : last + 1000)) / 1000) * 1000)
      return { ...packet, time: last }
    })
  }
  return { name: trace.name, packets: round(trace.packets), parts: trace.parts?.map(round) }
}

function describeError(error: unknown): string {
  return error instanceof Error ? `${error.name}: ${error.message}` : String(error)
}
