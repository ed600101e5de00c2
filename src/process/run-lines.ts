/**
 * The lines that a run writes for other programs, one JSON object each: a flow as it ends, and a record of an NF.
 *
 *     {"key":{"vlan":0,"protocol":"tcp","a":{"address":"192.0.2.1","port":80},"b":{...}},"opener":"b","packets":10,...}
 *     {"nf":"http","event":"request","time":1.5,"flow":{"protocol":"tcp","source":"192.0.2.2",...},"method":"GET",...}
 *
 * Times are seconds since the Unix epoch. Key words and endpoints: flow/flow-record.ts.
 */

import { FlowRecord, keyVersion, keyVlanInner, keyVlanOuter } from '../flow/flow-record.ts'
import type { Arena } from '../memory/arena.ts'
import { formatAddress } from '../memory/struct.ts'
import type { DecodedRecord } from '../nf/record-buffer.ts'
import type { Engine, FlowEnd } from '../runtime/engine.ts'
import { ipProtocolName } from '../wire/ipv4.ts'

export interface FlowEndpoint {
  readonly address: string
  readonly port: number
}

/** A line of `--flows`. */
export interface FlowLine {
  readonly key: {
    /** Outer VLAN id, 0 for none. */
    readonly vlan: number
    /** Inner VLAN id, only of a double-tagged flow. */
    readonly vlanInner?: number
    /** PPPoE session, only of a flow inside one. */
    readonly pppoeSession?: number
    readonly protocol: string
    readonly a: FlowEndpoint
    readonly b: FlowEndpoint
  }
  /** Which endpoint began. */
  readonly opener: 'a' | 'b'
  readonly packets: number
  readonly bytes: number
  readonly firstSeen: number
  readonly lastSeen: number
  /** How it ended; `finished` means that the capture ended first. */
  readonly end: FlowEnd
  /** What each NF that keeps state knew of it. */
  readonly state: Readonly<Record<string, Readonly<Record<string, unknown>>>>
}

/** A line of `--events`; the fields of the record follow those of every line. */
export interface EventLine {
  readonly nf: string
  readonly event: string
  readonly time: number
  readonly flow: {
    readonly protocol: string
    readonly source: string
    readonly sourcePort: number
    readonly destination: string
    readonly destinationPort: number
    readonly vlan: number
  }
  readonly [field: string]: unknown
}

function addressAt({ i32 }: Arena, word: number, version: number): string {
  return formatAddress(version, i32[word], i32[word + 1], i32[word + 2], i32[word + 3])
}

/** The flow whose record is at this offset. */
export function flowLine(engine: Engine, record: number, end: FlowEnd): FlowLine {
  const { arena, extents, chain } = engine
  const { i32, f64, u8 } = arena
  const word = record >> 2
  const tag = i32[word] as number
  const ports = i32[word + 1] as number
  const protocolWord = i32[word + 2] as number
  const version = keyVersion(tag)
  const vlanInner = keyVlanInner(tag)
  const pppoeSession = (protocolWord >>> 8) & 0xffff
  const state: Record<string, Readonly<Record<string, unknown>>> = {}
  for (const nf of chain.nfs) {
    const schema = nf.definition.flowState
    if (schema !== undefined) state[nf.name] = schema.decode({ arena, extents }, record + nf.stateOffset)
  }
  return {
    key: {
      vlan: keyVlanOuter(tag),
      ...vlanInner !== 0 && { vlanInner },
      ...pppoeSession !== 0 && { pppoeSession },
      protocol: ipProtocolName(protocolWord & 255),
      a: { address: addressAt(arena, (record + FlowRecord.addressA) >> 2, version), port: ports >>> 16 },
      b: { address: addressAt(arena, (record + FlowRecord.addressB) >> 2, version), port: ports & 0xffff },
    },
    opener: u8[record + FlowRecord.opener] === 0 ? 'a' : 'b',
    packets: f64[(record + FlowRecord.packets) >> 3] as number,
    bytes: f64[(record + FlowRecord.bytes) >> 3] as number,
    firstSeen: f64[(record + FlowRecord.firstSeen) >> 3] as number / 1e6,
    lastSeen: f64[(record + FlowRecord.lastSeen) >> 3] as number / 1e6,
    end,
    state,
  }
}

/** A record of an NF. A field that is called like one that every line has gets an underscore behind its name. */
export function eventLine({ arena, chain }: Engine, record: DecodedRecord): EventLine {
  const { i32 } = arena
  const { key, fromB } = record
  const tag = i32[key] as number
  const ports = i32[key + 1] as number
  const version = keyVersion(tag)
  const a = addressAt(arena, key + (FlowRecord.addressA >> 2), version)
  const b = addressAt(arena, key + (FlowRecord.addressB >> 2), version)
  const line: Record<string, unknown> & EventLine = {
    nf: chain.nfs[record.nf]?.name ?? '',
    event: record.event,
    time: record.time / 1e6,
    flow: {
      protocol: ipProtocolName(i32[key + 2] as number & 255),
      source: fromB ? b : a,
      sourcePort: fromB ? ports & 0xffff : ports >>> 16,
      destination: fromB ? a : b,
      destinationPort: fromB ? ports >>> 16 : ports & 0xffff,
      vlan: keyVlanOuter(tag),
    },
  }
  for (const [name, value] of Object.entries(record.fields)) line[name in line ? `${name}_` : name] = value
  return line
}
