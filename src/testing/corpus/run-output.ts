/**
 * What `nfactor run` says of a capture: the JSON document, the flow lines and the event lines, as records.
 *
 * Reads liberally what the command may spell in more than one way (a protocol as name or number, a version with or
 * without `HTTP/`), and strictly what the comparisons rest on: a missing counter or address is an error, thrown with
 * the line it is in.
 */

import { directedTuple, flowTuple, protocolName } from './flow-tuple.ts'

/** The document that `--json` prints. */
export interface RunDocument {
  readonly packets: {
    readonly received: number
    readonly forwarded: number
    readonly dropped: number
    readonly emitted: number
  }
  readonly dropReasons: Readonly<Record<string, number>>
  readonly bytes: { readonly received: number, readonly forwarded: number }
  readonly flows: {
    readonly created: number
    readonly tcp: number
    readonly udp: number
    readonly icmp: number
    readonly other: number
  }
  readonly nfs: Readonly<Record<string, Readonly<Record<string, number>>>>
  readonly elapsedSeconds: number
  readonly packetsPerSecond: number
}

/** One line of `--flows`. */
export interface RunFlow {
  readonly protocol: string
  readonly tuple: string
  readonly vlan: number
  readonly packets: number
  readonly bytes: number
  /** The direction of the side that opened the flow, as a directed tuple. */
  readonly opener: string
  /** Both ports are zero: the flow is keyed by addresses, because its packets show no ports. */
  readonly isWithoutPorts: boolean
  readonly end: string
}

/** One HTTP line of `--events`. */
export interface RunMessage {
  readonly kind: 'request' | 'response'
  readonly directed: string
  readonly protocol: string
  readonly method: string
  readonly uri: string
  readonly host: string
  readonly status: number
  /** `1.1` or the like. */
  readonly version: string
}

/** All that one run gives. */
export interface RunOutput {
  readonly document: RunDocument
  readonly flows: readonly RunFlow[]
  readonly messages: readonly RunMessage[]
}

/** Reads the three outputs of a run; throws when one lacks what the comparisons need. */
export function parseRunOutput(document: string, flows: string, events: string): RunOutput {
  const parsed = JSON.parse(document) as RunDocument
  for (const key of ['received', 'forwarded', 'dropped', 'emitted'] as const) {
    if (typeof parsed.packets?.[key] !== 'number') throw new Error(`run document: packets.${key} is no number`)
  }
  return {
    document: parsed,
    flows: parseLines(flows, parseFlow),
    messages: parseLines(events, parseMessage).filter(message => message !== null),
  }
}

function parseLines<T>(text: string, parse: (record: Json) => T): T[] {
  return text.split('\n').filter(line => line.trim() !== '').map(line => {
    try {
      return parse(JSON.parse(line) as Json)
    } catch (error) {
      throw new Error(`${(error as Error).message} in the line ${line.slice(0, 300)}`)
    }
  })
}

type Json = Readonly<Record<string, unknown>>

function parseFlow(record: Json): RunFlow {
  const key = record['key'] as Json
  const a = key['a'] as Json
  const b = key['b'] as Json
  const protocol = protocolName(key['protocol'] as number | string)
  const [aAddress, aPort] = [textOf(a, 'address'), portOf(a, 'port')]
  const [bAddress, bPort] = [textOf(b, 'address'), portOf(b, 'port')]
  return {
    protocol,
    tuple: flowTuple(protocol, aAddress, aPort, bAddress, bPort),
    vlan: Number(key['vlan'] ?? 0),
    packets: numberOf(record, 'packets'),
    bytes: numberOf(record, 'bytes'),
    opener: record['opener'] === 'b'
      ? directedTuple(protocol, bAddress, bPort, aAddress, aPort)
      : directedTuple(protocol, aAddress, aPort, bAddress, bPort),
    isWithoutPorts: aPort === 0 && bPort === 0,
    end: String(record['end'] ?? ''),
  }
}

function parseMessage(record: Json): RunMessage | null {
  const kind = record['event']
  if (record['nf'] !== 'http' || (kind !== 'request' && kind !== 'response')) return null
  const flow = record['flow'] as Json
  const protocol = protocolName(flow['protocol'] as number | string)
  const isRequest = kind === 'request'
  return {
    kind,
    protocol,
    directed: directedTuple(
      protocol, textOf(flow, 'source'), portOf(flow, 'sourcePort'),
      textOf(flow, 'destination'), portOf(flow, 'destinationPort'),
    ),
    method: isRequest ? textOf(record, 'method') : '',
    uri: isRequest ? textOf(record, 'uri') : '',
    host: isRequest ? String(record['host'] ?? '') : '',
    status: isRequest ? 0 : numberOf(record, 'status'),
    version: String(record['version'] ?? '').replace(/^HTTP\//, ''),
  }
}

function textOf(record: Json, key: string): string {
  const value = record[key]
  if (typeof value !== 'string') throw new Error(`${key} is no text`)
  return value
}

function numberOf(record: Json, key: string): number {
  const value = record[key]
  // 64-bit counters may be written as text, which JSON numbers cannot hold exactly.
  const number = typeof value === 'string' && value !== '' ? Number(value) : value
  if (typeof number !== 'number' || Number.isNaN(number)) throw new Error(`${key} is no number`)
  return number
}

function portOf(record: Json, key: string): number {
  return record[key] === undefined || record[key] === null ? 0 : numberOf(record, key)
}
