/**
 * The outputs of a run that never happened: what `nfactor run` would say of a capture if it made no mistake.
 *
 * Made from the census and the expected messages alone, so that the comparisons can be tested without the command, and
 * in particular be shown to fail: a test takes these texts, breaks one thing, and must see it noticed.
 */

import type { FrameCensus } from './frame-census.ts'
import type { ReferenceMessage } from './reference-http.ts'

/** The texts that a run leaves behind, each line apart where the output is lines. */
export interface FabricatedRun {
  readonly document: Record<string, Record<string, unknown>>
  readonly flows: Record<string, unknown>[]
  readonly events: Record<string, unknown>[]
}

/** The outputs of a faultless run over a capture of `packets` frames. */
export function fabricateRun(
  packets: number, census: FrameCensus, messages: readonly ReferenceMessage[],
): FabricatedRun {
  const flows = [...census.entries].map(([tuple, entry]) => {
    const [protocol = '', a = '', b = ''] = tuple.split(' ')
    return {
      key: { vlan: [...entry.vlans][0], protocol, a: endpoint(a), b: endpoint(b) },
      opener: entry.opener === null || entry.opener.startsWith(`${protocol} ${a} >`) ? 'a' : 'b',
      packets: entry.frames + entry.earlyFragments + entry.quotes,
      bytes: 0,
      end: 'finished',
      state: {},
    }
  })
  const events = messages.map(message => {
    const [protocol, source = '', , destination = ''] = message.directed.split(' ')
    const [from, to] = [endpoint(source), endpoint(destination)]
    return {
      nf: 'http',
      event: message.kind,
      flow: {
        protocol, source: from.address, sourcePort: from.port, destination: to.address, destinationPort: to.port,
      },
      ...(message.kind === 'request'
        ? { method: message.method, uri: message.uri, host: message.host }
        : { status: message.status }),
      version: message.version,
    }
  })
  const tcp = flows.filter(flow => flow.key.protocol === 'tcp').length
  const requests = events.filter(event => event.event === 'request').length
  return {
    document: {
      packets: { received: packets, forwarded: packets, dropped: 0, emitted: 0 },
      dropReasons: {},
      bytes: { received: 1, forwarded: 1 },
      flows: { created: flows.length, tcp, udp: flows.length - tcp, icmp: 0, other: 0 },
      nfs: { http: { requests, responses: events.length - requests } },
    },
    flows,
    events,
  }
}

/** The texts as the command prints and writes them. */
export function printRun(run: FabricatedRun): { document: string, flows: string, events: string } {
  const lines = (records: readonly object[]): string => records.map(record => `${JSON.stringify(record)}\n`).join('')
  return { document: JSON.stringify(run.document), flows: lines(run.flows), events: lines(run.events) }
}

function endpoint(text: string): { address: string, port: number } {
  const colon = text.lastIndexOf(':')
  return { address: text.slice(0, colon).replace(/^\[|\]$/g, ''), port: Number(text.slice(colon + 1)) }
}
