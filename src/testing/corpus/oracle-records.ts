/**
 * What tshark says of the corpus' captures: flows and HTTP messages, as records.
 *
 *  - `tshark.flows.tsv`: a line per TCP or UDP tuple, in the direction of its first packet, with the number of packets
 *    each way. Reassembled datagrams count once, ICMP is left out.
 *  - `tshark.http.jsonl`: a line per HTTP message, at the frame in which tshark completed it. A response is listed only
 *    when its body is complete.
 */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { CorpusCapture } from './corpus-location.ts'
import { flowTuple } from './flow-tuple.ts'

/** One tuple of tshark's flow table. */
export interface OracleFlow {
  readonly tuple: string
  readonly protocol: 'tcp' | 'udp'
  readonly packets: number
}

/** One HTTP message of tshark's. */
export interface OracleMessage {
  /** Number of the frame that completed it, from 1. */
  readonly frame: number
  readonly kind: 'request' | 'response'
  readonly method: string
  readonly uri: string
  readonly host: string
  readonly status: number
  readonly version: string
}

/** tshark's flow table of a capture. */
export function readOracleFlows(capture: CorpusCapture): OracleFlow[] {
  const lines = readFileSync(join(capture.oraclePath, 'tshark.flows.tsv'), 'utf8').split('\n')
  const names = (lines[0] ?? '').split('\t')
  return lines.slice(1).filter(line => line !== '').map(line => {
    const fields = line.split('\t')
    const field = (name: string): string => fields[names.indexOf(name)] ?? ''
    const protocol = field('proto') as OracleFlow['protocol']
    return {
      tuple: flowTuple(protocol, field('src'), Number(field('sport')), field('dst'), Number(field('dport'))),
      protocol,
      packets: Number(field('pkts_fwd')) + Number(field('pkts_rev')),
    }
  })
}

/** tshark's HTTP messages of a capture, in order. */
export function readOracleMessages(capture: CorpusCapture): OracleMessage[] {
  const lines = readFileSync(join(capture.oraclePath, 'tshark.http.jsonl'), 'utf8').split('\n')
  return lines.filter(line => line !== '').map(line => {
    const record = JSON.parse(line) as Record<string, unknown>
    return {
      frame: Number(record['frame']),
      kind: record['kind'] as OracleMessage['kind'],
      method: String(record['method'] ?? ''),
      uri: String(record['uri'] ?? ''),
      host: String(record['host'] ?? ''),
      status: Number(record['status'] ?? 0),
      version: String(record['version'] ?? ''),
    }
  })
}
