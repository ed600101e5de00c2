/** The engine's side of the digest (digest.ts): records after each chunk, flows and counters at the end. */

import { FlowRecord } from '../../src/flow/flow-record.ts'
import type { Engine } from '../../src/runtime/engine.ts'
import { flowDigest, mix, type VariantDigest } from './digest.ts'

/** Which fields of a record are texts, by kind of record; the others are numbers. */
const texts: Record<string, readonly boolean[]> = {
  request: [true, true, true, true],
  response: [false, true],
}

/** Takes the records of HTTP messages into the hash and empties the buffer. Reads them raw: decoding would disturb the heap. */
export function digestRecords({ arena, records }: Engine, hash: number): number {
  const { i32, u8, f64 } = arena
  for (let at = records.base; at < records.end; at += (i32[at >> 2] + 7) & ~7) {
    const name = records.eventName(i32[(at >> 2) + 1] >>> 16)
    const kinds = texts[name]
    if (kinds === undefined) continue
    hash = mix(hash, name.length)
    for (let slot = 0; slot < kinds.length; slot++) {
      const field = at + 64 + slot * 8
      if (!kinds[slot]) {
        hash = mix(hash, f64[field >> 3])
        continue
      }
      const from = i32[field >> 2]
      const end = from + i32[(field >> 2) + 1]
      for (let i = from; i < end; i++) hash = Math.imul(hash ^ u8[i], 0x01000193)
    }
  }
  records.clear()
  return hash
}

/** Fields of each NF's decoded state that count, in order. */
const fields: Record<string, (state: Record<string, unknown>) => number[]> = {
  monitor: (s) => [...s.packets as number[], ...s.bytes as number[], s.lengthMin, s.lengthMax,
    ...s.tcpFlags as number[]] as number[],
  firewall: (s) => [s.verdict === 'accept' ? 1 : 2, s.tcp === 'established' ? 1 : 0],
  http: (s) => [s.requests, s.responses] as number[],
}

export function digestEngine(engine: Engine, state: { output: number; records: number }): VariantDigest {
  let states = 0
  for (const record of engine.flows()) {
    const words = engine.arena.i32
    const values = [words[(record + FlowRecord.ports) >> 2], words[(record + FlowRecord.addressA) >> 2],
      words[(record + FlowRecord.addressB) >> 2]]
    for (const nf of engine.chain.nfs) {
      const schema = nf.definition.flowState
      const decoded = schema.decode({ arena: engine.arena, extents: engine.extents }, record + nf.stateOffset)
      values.push(...(fields[nf.name] as (typeof fields)[string])(decoded))
    }
    states = (states + flowDigest(values as number[])) | 0
  }
  const { forwarded, dropped } = engine.statistics
  return { forwarded, dropped, flows: engine.table.size, output: state.output, states, records: state.records }
}
