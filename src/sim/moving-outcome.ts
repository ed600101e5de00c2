/**
 * What comes of a run that is to be compared with another: frames, records, ends of flows, counts; as texts where people have to read
 * them.
 */

import { FlowRecord, KEY_WORDS } from '../flow/flow-record.ts'
import type { Arena } from '../memory/arena.ts'
import { formatAddress, type Struct } from '../memory/struct.ts'
import type { ChainNf } from '../nf/chain.ts'
import type { DecodedRecord } from '../nf/record-buffer.ts'
import type { Engine, FlowEnd } from '../runtime/engine.ts'

export interface MovingOutcome {
  /** Frames that left, in order, by the switch and the flow. */
  readonly outputs: Map<string, Uint8Array[]>
  /** What network functions reported, in order, by flow key. */
  readonly records: Map<string, string[]>
  /** How flows ended and what their state was then, in order, by flow key. */
  readonly flows: Map<string, string[]>
  /** Packets dropped by any node, by reason. */
  readonly drops: Record<string, number>
  /** Counters of the network functions, over all runtimes. */
  readonly counters: Record<string, number>
  readonly moves: {
    readonly completed: number; readonly refused: number; readonly aborted: number; readonly takenBack: number; readonly cancelled: number
    /** Records that came with extents or held packets. */
    readonly laden: number
  }
  /** Runtimes that have ended without a word. */
  readonly crashes?: number
  /** What is left in the nodes when every flow should have ended, and what went wrong there. */
  readonly faults: readonly string[]
  readonly events: number
}

/** How a flow ended, and what was known of it, to the last byte; without times. */
export function flowText(engine: Engine, record: number, end: FlowEnd): string {
  const { arena, chain, extents } = engine
  const { u8, f64 } = arena
  const state = Object.fromEntries(chain.nfs.map((nf) => [nf.name, {
    ...nf.definition.flowState?.decode({ arena, extents }, record + nf.stateOffset), inside: stateBytes(arena, record, nf),
  }]))
  return `${end}, opened by ${u8[record + FlowRecord.opener]}, ${f64[(record + FlowRecord.packets) >> 3]} packets, ` +
    `${f64[(record + FlowRecord.bytes) >> 3]} bytes, ${JSON.stringify(state)}`
}

export function recordText({ chain }: Engine, { nf, event, fromB, fields }: DecodedRecord): string {
  return `${chain.nfs[nf]?.name} ${event} from ${fromB ? 'b' : 'a'} ${JSON.stringify(fields)}`
}

/** Adds an engine's counters to those of others. */
export function addCounters({ chain }: Engine, counters: Record<string, number>): void {
  for (const nf of chain.nfs) {
    for (const name of Object.keys(nf.definition.counters ?? {})) {
      counters[`${nf.name} ${name}`] = (counters[`${nf.name} ${name}`] ?? 0) + (nf.counters[name] as number)
    }
  }
}

/** The bytes of an NF's state in a record, also those that are not shown; without addresses of extents, and times. */
function stateBytes({ u8 }: Arena, record: number, { definition, stateOffset, stateBytes: length }: ChainNf): string {
  const bytes = u8.slice(record + stateOffset, record + stateOffset + length)
  const { extents = [], times = [] } = (definition.flowState ?? {}) as Partial<Struct<any>>
  for (const { offset } of extents) bytes.fill(0, offset, offset + 4)
  for (const offset of times) bytes.fill(0, offset, offset + 8)
  return bytes.join(' ')
}

export function append<T>(lists: Map<string, T[]>, key: string, item: T): void {
  const list = lists.get(key)
  if (list === undefined) lists.set(key, [item])
  else list.push(item)
}

/** From a byte on. */
export function sameBytes(a: Uint8Array, b: Uint8Array, from: number): boolean {
  if (a.length !== b.length) return false
  for (let i = from; i < a.length; i++) if (a[i] !== b[i]) return false
  return true
}

/** A flow key as text, with its addresses where they can be read. */
export function keyText(i32: Int32Array, key: number): string {
  const version = i32[key] >>> 24
  const [a, b] = [FlowRecord.addressA, FlowRecord.addressB].map((offset) => {
    const at = key + (offset >> 2)
    return formatAddress(version, i32[at], i32[at + 1], i32[at + 2], i32[at + 3])
  })
  const others = [...i32.subarray(key, key + KEY_WORDS)].slice(0, 3)
  return `${a}:${i32[key + 1] >>> 16} ${b}:${i32[key + 1] & 0xffff} ${others.map((word) => word.toString(16)).join('.')}`
}

/**
 * The first difference between what came of an undisturbed run and of one with moves; empty when there is none.
 *
 * @param from the first byte of frames that counts
 */
export function movedDifference(expected: MovingOutcome, found: MovingOutcome, from = 0): string {
  if (expected.faults.length > 0) return `undisturbed: ${expected.faults.join('; ')}`
  if (found.faults.length > 0) return found.faults.join('; ')
  for (const what of ['drops', 'counters'] as const) {
    const texts = [expected[what], found[what]].map((counts) =>
      JSON.stringify(Object.fromEntries(Object.entries(counts).filter(([, count]) => count !== 0).toSorted())))
    if (texts[0] !== texts[1]) return `${what}: ${texts[0]} undisturbed, ${texts[1]} with moves`
  }
  return listDifference('output', expected.outputs, found.outputs, (a, b) => sameBytes(a, b, from),
    (frame) => frame.subarray(from, 96).join(' ')) ||
    listDifference('record', expected.records, found.records, Object.is, String) ||
    listDifference('flow', expected.flows, found.flows, Object.is, String)
}

function listDifference<T>(what: string, expected: Map<string, T[]>, found: Map<string, T[]>, same: (a: T, b: T) => boolean,
  show: (item: T) => string): string {
  for (const key of new Set([...expected.keys(), ...found.keys()])) {
    const e = expected.get(key) ?? []
    const f = found.get(key) ?? []
    for (let i = 0; i < Math.max(e.length, f.length); i++) {
      const [before, after] = [e[i], f[i]]
      if (before !== undefined && after !== undefined && same(before, after)) continue
      return `${what} ${i} of ${e.length} and ${f.length} of ${key}: ${before === undefined ? 'nothing' : show(before)} undisturbed, ` +
        `${after === undefined ? 'nothing' : show(after)} with moves`
    }
  }
  return ''
}
