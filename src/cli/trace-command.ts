/**
 * `nfactor trace`: the way of packets through a running cluster, hop by hop, in one timeline over all nodes.
 */

import { compileFrameWords } from '../ports/frame-words.ts'
import type { TraceTaken } from '../process/trace-recorder.ts'
import { PacketTrace, type PlacedEvent, type TracedPacket } from '../process/packet-trace.ts'
import { traceText } from '../process/trace-text.ts'
import { monotonicUs } from '../process/monotonic-clock.ts'
import { WatchClient } from '../process/watch-client.ts'
import { clusterOf, print, type ClusterCommandOptions } from './cluster-commands.ts'
import { interruption } from './interruption.ts'
import { countOf } from './number-text.ts'

export interface TraceOptions extends ClusterCommandOptions {
  readonly packets: number
  readonly seconds: number
}

interface Hop {
  /** Microseconds since the packet's first hop. */
  readonly us: number
  readonly node: string
  readonly what: string
}

export async function traceCommand(words: readonly string[], options: TraceOptions): Promise<number> {
  const { packets: wanted, seconds } = options
  compileFrameWords(words)
  const client = await WatchClient.open(clusterOf(options))
  const trace = new PacketTrace(wanted)
  const lost = new Map<number, number>()
  const interrupted = interruption()
  try {
    // Switches last: packets that are shown come in when all nodes are watched.
    const ready = client.nodes.filter(({ isReady }) => isReady).toSorted((a, b) => a.kind.localeCompare(b.kind))
    for (const node of ready) await client.start(node, { kind: 'trace', filter: words })
    trace.since = monotonicUs()
    process.stderr.write(`tracing at ${countOf(ready.length, 'node')}, for ${seconds} s or until ${countOf(wanted, 'packet')} are through\n`)
    await client.run<TraceTaken>(seconds, interrupted.signal, ({ node }, taken) => {
      trace.add(node.id, taken.events)
      lost.set(node.id, taken.lost)
    }, () => {
      const packets = trace.packets()
      return packets.length >= wanted && packets.every(({ end }) => end !== 'under way')
    })
  } finally {
    interrupted.end()
    await client.close()
  }
  trace.lost += [...lost.values()].reduce((sum, one) => sum + one, 0)
  return report(client, trace, options)
}

function report(client: WatchClient, trace: PacketTrace, options: TraceOptions): number {
  const packets = trace.packets()
  const start = packets[0]?.start ?? 0
  const moves = trace.messages(new Set(packets.flatMap(({ flow }) => (flow === 0 ? [] : [flow]))))
    .map(({ time, node, peer, name, flow, epoch }) =>
      ({ us: round(time - start), node: client.nameOf(node), from: client.nameOf(peer), message: name, flow, epoch }))
  const ways = packets.map((packet) => ({
    packet: packet.id, us: round(packet.start - start), end: packet.end, flow: packet.flow,
    hops: packet.hops.map((hop) => hopOf(client, packet, hop)),
  }))
  const lines = ways.flatMap(({ us, end, hops }, index) => [
    `packet ${index + 1}, at ${us} µs: ${textOf(packets[index])}`,
    ...hops.map((hop) => `  ${`+${hop.us}`.padStart(9)} µs  ${hop.node.padEnd(10)}  ${hop.what}`),
    ...end === 'under way' ? ['              it has not left, and nobody has dropped it, by the end of the trace'] : [],
  ])
  const moveLines = moves.length === 0 ? [] : ['what nodes said of these flows meanwhile, since the first packet:',
    ...moves.map(({ us, node, from, message, epoch }) =>
      `  ${String(us).padStart(9)} µs  ${node.padEnd(10)}  ${message} from ${from}, epoch ${epoch}`)]
  const ends = (['sent', 'dropped', 'refused', 'under way'] as const).flatMap((end) => {
    const count = packets.filter((packet) => packet.end === end).length
    return count === 0 ? [] : [`${count} ${end}`]
  })
  const missed = trace.lost === 0 ? '' : `; ${countOf(trace.lost, 'event')} found no room, so hops may be missing`
  return print(options, { packets: ways, moves, lost: trace.lost },
    [...lines, ...moveLines, `${countOf(packets.length, 'packet')}${ends.length === 0 ? '' : `: ${ends.join(', ')}`}${missed}`])
}

function textOf(packet: TracedPacket | undefined): string {
  const first = packet?.hops[0]
  return first?.at === 'in' ? first.text : ''
}

function hopOf(client: WatchClient, packet: TracedPacket, event: PlacedEvent): Hop & Record<string, unknown> {
  const { time, node, id: _, ...rest } = event
  return { us: round(time - packet.start), node: client.nameOf(node), what: hopText(client, packet, event), ...rest }
}

function hopText(client: WatchClient, packet: TracedPacket, event: PlacedEvent): string {
  const text = traceText(event, (node) => client.nameOf(node))
  if (event.at !== 'out') return text
  if (event.port !== 'link') return `${text}${changeOf(packet, event.text)}`
  const isReplica = !packet.hops.some((hop) => hop.node === event.node && hop.at === 'chain') &&
    packet.hops.some((hop) => hop.at === 'step' && hop.replica === event.node)
  return `${isReplica ? 'released by the replica ' : ''}${text}`
}

/** What it looks like now, if not as it came. */
function changeOf(packet: TracedPacket, text: string): string {
  return text === textOf(packet) ? '' : `: ${text}`
}

const round = (us: number): number => Math.round(us * 10) / 10
