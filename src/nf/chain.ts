/**
 * Chain: network functions in order, compiled into one function per chain.
 *
 * The chain lays the NFs' states out behind the flow record's header, binds a view to each, makes the instances, and generates
 * the source of `run(record)`: one direct call per NF on objects that are constants of that function, so that the compiler
 * can inline them (PERF: a loop over an array of NFs costs 45% more, composed closures 50%; bench engine, "modularity").
 * For two NFs:
 *
 *     progress.nf = 0; state0.o = record + 128
 *     if ((verdict = nf0.processPacket(packet, state0)) !== 0) return verdict
 *     progress.nf = 1; state1.o = record + 168
 *     return nf1.processPacket(packet, state1)
 *
 * `progress.nf` says which NF was running when one throws, drops or holds.
 */

import { assert } from '../base/assert.ts'
import { CodedError } from '../base/coded-error.ts'
import type { Arena } from '../memory/arena.ts'
import type { Kernels } from '../memory/kernels/kernels.ts'
import type { ExtentPool } from '../memory/extent-pool.ts'
import { struct, u64, type StructView } from '../memory/struct.ts'
import { FlowRecord } from '../flow/flow-record.ts'
import { ENGINE_DROP_REASONS, engineDropReasons } from '../packet/drop-reason.ts'
import type { Packet } from '../packet/packet-view.ts'
import type {
  AliasKeys, AnyNfDefinition, Emitter, FlowTimer, FlowView, HeldPackets, NfContext, NfMethods,
} from './definition.ts'
import { loadFastPath, type FastPath } from './fast-path.ts'
import type { RecordBuffer, RecordOrigin, RecordFields, RecordWriter } from './record-buffer.ts'
import { dropVerdict, type Verdict } from './verdict.ts'

/** A network function and its checked configuration. */
export interface ChainMember {
  readonly definition: AnyNfDefinition
  readonly config: unknown
}

/** What the chain needs of the engine that runs it. */
export interface ChainHost {
  readonly arena: Arena
  readonly extents: ExtentPool
  readonly kernels: Kernels
  readonly records: RecordBuffer
  /** Which flow and time is at hand; also the origin of records. */
  readonly origin: RecordOrigin
  readonly packet: Packet
  readonly flow: FlowView
  readonly emit: Emitter
  /** See `EngineOptions.reusesCode`. */
  readonly reusesCode?: boolean
  timer(nf: number): FlowTimer
  held(nf: number): HeldPackets
  alias(nf: number): AliasKeys
  random(): number
  reconsider(): void
}

export interface ChainNf {
  /** The definition's name, with a number behind it when the chain has the same NF more than once. */
  readonly name: string
  readonly definition: AnyNfDefinition
  readonly config: unknown
  readonly methods: NfMethods<StructView>
  readonly state: StructView
  /** Offset of the state within the flow record. */
  readonly stateOffset: number
  readonly stateBytes: number
  /** Offset of the timer's deadline (f64) within the flow record, or 0 when the NF has no timer. */
  readonly timerOffset: number
  /** Counter values by name. */
  readonly counters: Record<string, number>
}

/** Which NF is running. */
export interface Progress {
  nf: number
}

export interface Chain {
  readonly nfs: readonly ChainNf[]
  /** Size of a flow record, a multiple of a cache line. */
  readonly recordBytes: number
  /** Runs the packet at hand through the whole chain. */
  run(record: number): Verdict
  /** Runs the packet at hand through the chain from NF `first` on, leaving out those whose bit is set in `bypass`. */
  runFrom(record: number, first: number, bypass: number): Verdict
  /** For each NF: runs the packet at hand through the chain from this NF on. */
  readonly tails: readonly ((record: number) => Verdict)[]
  /** Most packets of a batch in one call; null when not every NF of the chain has a part in it. */
  readonly fastPath: FastPath | null
  readonly progress: Progress
  /** Names of all drop reasons, by number. */
  readonly dropReasons: readonly string[]
  /** Identity of the record layout: two chains with the same one can exchange flow records. */
  readonly fingerprint: string
}

let compiled = 0

/** The most NFs in a chain: each has a bit in the record's bypass word. */
export const CHAIN_NFS_MAX = 16

export function compileChain(members: readonly ChainMember[], host: ChainHost): Chain {
  if (members.length > CHAIN_NFS_MAX) {
    throw new CodedError('NF_CONFIG_INVALID', `the chain has ${members.length} network functions`,
      `At most ${CHAIN_NFS_MAX} are allowed.`)
  }
  const dropReasons: string[] = Object.keys(engineDropReasons)
  assert(dropReasons.length === ENGINE_DROP_REASONS, 'the engine reasons come first')
  const nfs: ChainNf[] = []
  const seen = new Map<string, number>()
  let offset: number = FlowRecord.state
  members.forEach(({ definition, config }, index) => {
    const times = (seen.get(definition.name) ?? 0) + 1
    seen.set(definition.name, times)
    const name = times === 1 ? definition.name : `${definition.name}-${times}`
    const schema = definition.flowState ?? struct({})
    const { context, counters } = makeContext(definition, config, index, name, host, dropReasons)
    const methods = definition.create(config, context) as NfMethods<StructView>
    if (typeof methods?.processPacket !== 'function') {
      throw new CodedError('NF_NF_INVALID', `network function ${name}: create did not return a processPacket method`)
    }
    let timerOffset = 0
    if (methods.timerFired !== undefined) {
      timerOffset = Math.ceil(offset / 8) * 8
      offset = timerOffset + 8
    }
    offset = Math.ceil(offset / schema.alignment) * schema.alignment
    nfs.push({
      name, definition, config, methods, counters, timerOffset,
      state: schema.bind({ arena: host.arena, extents: host.extents, reusesCode: host.reusesCode }) as unknown as StructView,
      stateOffset: offset,
      stateBytes: schema.bytes,
    })
    offset += schema.bytes
  })
  const recordBytes = Math.ceil(offset / 64) * 64
  const progress: Progress = { nf: 0 }
  const fastPath = host.kernels.wasm ? loadFastPath(host.arena, nfs.map(({ methods, stateOffset, counters }) =>
    ({ step: methods.fastPath, stateOffset, counters: (counters as unknown as StructView).o }))) : null
  return {
    nfs,
    recordBytes,
    run: generateRun(nfs, host, progress, 0),
    tails: nfs.map((_, first) => generateRun(nfs, host, progress, first)),
    fastPath,
    runFrom: makeRunFrom(nfs, host.packet, progress),
    progress,
    dropReasons,
    fingerprint: nfs.map((nf) =>
      `${nf.name}@${nf.definition.version}+${nf.stateOffset}/${nf.timerOffset}${nf.definition.flowState?.fingerprint ?? '{}'}`,
    ).join(' '),
  }
}

type Run = (record: number) => Verdict
type MakeRun = (nfs: readonly ChainNf[], packet: Packet, progress: Progress) => Run

/** What has been generated and may be used again, by its source. */
const reusable = new Map<string, MakeRun>()

function generateRun(nfs: readonly ChainNf[], host: ChainHost, progress: Progress, first: number): Run {
  const lines = nfs.map((nf, i) => i < first ? '' : [
    `  progress.nf = ${i}; state${i}.o = record + ${nf.stateOffset}`,
    i === nfs.length - 1
      ? `  return nf${i}.processPacket(packet, state${i})`
      : `  if ((verdict = nf${i}.processPacket(packet, state${i})) !== 0) return verdict`,
  ].join('\n'))
  const source = `// ${nfs.map((nf) => nf.name).join(', ')}
${nfs.map((_, i) => `const nf${i} = nfs[${i}].methods, state${i} = nfs[${i}].state`).join('\n')}
return function run(record) {
  let verdict = 0
${lines.join('\n')}
${nfs.length === 0 ? '  return verdict' : ''}
}`
  let make = host.reusesCode === true ? reusable.get(source) : undefined
  if (make === undefined) {
    make = new Function('nfs', 'packet', 'progress', `/* chain ${++compiled} */ ${source}`) as MakeRun
    if (host.reusesCode === true) reusable.set(source, make)
  }
  return make(nfs, host.packet, progress)
}

function makeRunFrom(nfs: readonly ChainNf[], packet: Packet, progress: Progress): Chain['runFrom'] {
  return (record, first, bypass) => {
    for (let i = first; i < nfs.length; i++) {
      if ((bypass & (1 << i)) !== 0) continue
      const nf = nfs[i] as ChainNf
      progress.nf = i
      nf.state.o = record + nf.stateOffset
      const verdict = nf.methods.processPacket(packet, nf.state)
      if (verdict !== 0) return verdict
    }
    return 0
  }
}

function makeContext(definition: AnyNfDefinition, config: unknown, index: number, name: string, host: ChainHost,
    dropReasons: string[]): { context: NfContext<any, any, any, unknown>; counters: Record<string, number> } {
  const counterSchema = struct(Object.fromEntries(Object.keys(definition.counters ?? {}).map((key) => [key, u64])))
  const counters = counterSchema.bind({ arena: host.arena, reusesCode: host.reusesCode }) as unknown as Record<string, number> & StructView
  counters.o = host.arena.allocate(`counters of ${name}`, counterSchema.bytes)
  const drop: Record<string, Verdict> = {}
  for (const reason of Object.keys(definition.dropReasons ?? {})) {
    const kebab = reason.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
    drop[reason] = dropVerdict(dropReasons.push(`${name}-${kebab}`) - 1)
  }
  const records: Record<string, RecordWriter<RecordFields>> = {}
  for (const [event, fields] of Object.entries((definition.records ?? {}) as Record<string, RecordFields>)) {
    records[event] = host.records.writer(index, event, fields)
  }
  const shared: unknown = definition.sharedState?.(config)
  const origin = host.origin
  const { f64 } = host.arena
  const context: NfContext<any, any, any, unknown> = {
    counters,
    drop,
    records,
    record(event, values) {
      const writer = records[event]
      if (writer === undefined) throw new TypeError(`record ${JSON.stringify(event)} is not declared`)
      writer.begin()
      const fields = (definition.records as Record<string, RecordFields>)[event]
      for (const [key, value] of Object.entries(values)) {
        const field = fields[key]
        if (field === undefined) throw new TypeError(`record ${event} has no field ${JSON.stringify(key)}`)
        const target = writer as unknown as Record<string, unknown>
        if (field.makeChild !== undefined) (target[key] as { write(text: string): void }).write(String(value))
        else if ('values' in field && typeof value === 'string') target[key] = (field.values as Record<string, number>)[value]
        else target[key] = value
      }
      writer.commit()
    },
    shared,
    get now() { return f64[origin.timeIndex] },
    timer: host.timer(index),
    held: host.held(index),
    alias: host.alias(index),
    emit: host.emit,
    flow: host.flow,
    arena: host.arena,
    extents: host.extents,
    kernels: host.kernels,
    random: () => host.random(),
    reconsider: () => host.reconsider(),
  }
  return { context, counters }
}
