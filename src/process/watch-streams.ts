/**
 * Watch streams: captures and traces as the public API gives them, piece by piece, until the caller goes, the bound is reached or the node
 * does not watch any more.
 *
 *     node ─ bounded list ─ TakeWatch, 20 times a second ─▶ stream ─▶ caller
 *
 * What a caller does not take stays where it is: nothing is asked of the nodes meanwhile, whose lists are bounded. Who takes nothing for
 * 5 s is watched for no more, and the stream ends with an error.
 */

import type { MessageInitShape } from '@bufbuild/protobuf'
import { CodedError } from '../base/coded-error.ts'
import { systemClock } from '../ports/system-clock.ts'
import type {
  CaptureChunkSchema, CaptureRequest, FlowFilter, TracedPacketSchema, TracePacketRequest,
} from '../rpc/generated/nfactor/v1/node_pb.ts'
import { structOf } from '../rpc/plain-message.ts'
import { LinkType } from '../wire/link-type.ts'
import { PcapngWriter } from '../wire/pcapng.ts'
import type { CaptureTaken } from './frame-recorder.ts'
import type { RpcParams } from './line-rpc.ts'
import { monotonicUs } from './monotonic-clock.ts'
import type { TraceEvent, TraceTaken } from './trace-recorder.ts'
import { traceText } from './trace-text.ts'
import type { StartedWatch, WatchableNode, WatchClient } from './watch-client.ts'

const SNAP_BYTES = 262_144
/** First bytes of a frame that a trace shows. */
const HEAD_BYTES = 64
/** When so many packets as are wanted have been seen, what happens to them within this time is still told. */
const SETTLE_US = 500_000

type Chunk = MessageInitShape<typeof CaptureChunkSchema>
type Traced = MessageInitShape<typeof TracedPacketSchema>
type CaptureWish = Pick<CaptureRequest, 'filter' | 'port' | 'frames' | 'bytes' | 'seconds' | 'snapBytes'>
type TraceWish = Pick<TracePacketRequest, 'filter' | 'packets' | 'seconds'>

/** Frames of a node's ports, as a pcapng file in pieces. Closes the client. */
export async function* captureStream(client: WatchClient, node: WatchableNode, wish: CaptureWish, signal: AbortSignal): AsyncGenerator<Chunk> {
  const { port, frames, bytes, seconds, snapBytes = SNAP_BYTES, filter } = wish
  try {
    const { ports } = await client.start(node, {
      kind: 'capture', flow: flowOf(filter), port: portOf(client, port),
      packets: frames ?? Number.MAX_SAFE_INTEGER, bytes: bytes ?? Number.MAX_SAFE_INTEGER,
    })
    const pieces: Uint8Array[] = []
    const file = new PcapngWriter({ write: (block, length) => { pieces.push(block.slice(0, length)) } })
    ports.forEach(({ kind, peer }, index) => {
      file.interfaceAdded(index, LinkType.Ethernet, snapBytes, true, kind === 'link' ? `link ${client.nameOf(peer)}` : kind)
    })
    file.flush()
    for await (const { taken: [first] } of client.rounds<CaptureTaken>(seconds ?? Infinity, signal)) {
      if (first?.taken === undefined) throw gone(node)
      for (const { time, port: index, isOut, bytes: text, comment } of first.taken.frames) {
        const frame = Buffer.from(text, 'base64')
        const whole = Math.floor(time / 1e6)
        file.packet(frame, 0, Math.min(frame.length, snapBytes), frame.length, whole, Math.floor((time - whole * 1e6) * 1000), index,
          { isOut, comment })
      }
      file.flush()
      for (const piece of pieces.splice(0)) yield { bytes: piece }
    }
  } finally {
    await client.close()
  }
}

/**
 * What nodes do with packets, in the order of time over all of them. Of so many packets as are wanted: those that are seen first. Closes
 * the client.
 */
export async function* traceStream(client: WatchClient, nodes: readonly WatchableNode[], wish: TraceWish,
    signal: AbortSignal): AsyncGenerator<Traced> {
  const { packets = Infinity, seconds = Infinity, filter } = wish
  const wanted = new Set<string>()
  /** Packets that a network function has changed, and flows. */
  const followed = new Set<string>()
  const flows = new Set<number>()
  const epochUs = systemClock.now() - monotonicUs()
  const lost = new Map<string, number>()
  let sinceUs = Infinity
  let settled = Infinity
  let waiting: PlacedEvent[] = []
  const isWanted = ({ event }: PlacedEvent): boolean => {
    const { id } = event
    if (event.at === 'message') return flows.has(event.flow)
    // Of some packets the whole way is shown, as far as all nodes are watched.
    const isFirst = nodes.length === 1 || packets === Infinity || (event.at === 'in' && event.port === 'external' && event.time >= sinceUs)
    if (!followed.has(id)) {
      if (isFirst && wanted.size < packets) wanted.add(id)
      if (!wanted.has(id)) return false
    }
    if (event.at === 'chain') {
      if (event.flow !== 0) flows.add(event.flow)
      if (event.becomes !== undefined) followed.add(event.becomes)
    }
    if (wanted.size >= packets) settled = Math.min(settled, event.time + SETTLE_US)
    return true
  }
  try {
    // Switches last: packets that come in then are seen by all nodes.
    for (const node of nodes.toSorted((a, b) => a.kind.localeCompare(b.kind))) {
      await client.start(node, { kind: 'trace', flow: flowOf(filter), headBytes: HEAD_BYTES })
    }
    sinceUs = monotonicUs()
    for await (const { begunUs, taken, isLast } of client.rounds<TraceTaken>(seconds, signal)) {
      for (const { watch, taken: seen } of taken) {
        if (seen === undefined) {
          if (nodes.length === 1) throw gone(watch.node)
          continue
        }
        waiting.push(...seen.events.map((event) => ({ event, watch })))
        const more = seen.lost - (lost.get(watch.node.name) ?? 0)
        lost.set(watch.node.name, seen.lost)
        if (more > 0) yield lostEvents(watch, more, epochUs)
      }
      // What was seen before this round began has come from all nodes.
      const isOver = isLast || begunUs >= settled
      const ready = waiting.filter(({ event }) => isOver || event.time < begunUs).toSorted((a, b) => a.event.time - b.event.time)
      waiting = waiting.filter(({ event }) => !isOver && event.time >= begunUs)
      for (const placed of ready) if (isWanted(placed)) yield tracedPacket(client, placed, epochUs)
      if (isOver) return
    }
  } finally {
    await client.close()
  }
}

interface PlacedEvent {
  readonly event: TraceEvent
  readonly watch: StartedWatch
}

function tracedPacket(client: WatchClient, { event, watch }: PlacedEvent, epochUs: number): Traced {
  const { time, id, at, ...details } = event
  const hasPort = 'port' in event
  const nameOf = (node: number): string => client.nameOf(node)
  const seen = hasPort ? event.text : ''
  return {
    timeUs: epochUs + time, node: watch.node.name, direction: at,
    port: !hasPort ? '' : event.port === 'link' ? `link ${nameOf(event.peer)}` : event.port,
    length: hasPort ? event.length : 0, bytes: hasPort && event.head !== undefined ? Buffer.from(event.head, 'base64') : new Uint8Array(),
    summary: seen === '' ? traceText(event, nameOf) : seen,
    details: structOf({ packet: id, ...details, head: undefined, text: undefined, length: undefined, port: undefined }),
  }
}

function lostEvents({ node }: StartedWatch, events: number, epochUs: number): Traced {
  return {
    timeUs: epochUs + monotonicUs(), node: node.name, direction: 'lost', port: '', summary: `${events} events found no room`,
    details: structOf({ lost: events }),
  }
}

function gone({ name }: WatchableNode): CodedError {
  return new CodedError('NF_NODE_GONE', `${name} watches no more: it has ended, or nothing was taken for five seconds`, 'Begin again')
}

function flowOf(filter: FlowFilter | undefined): RpcParams | undefined {
  if (filter === undefined) return undefined
  const { protocol, address, port, peerAddress, peerPort } = filter
  const isNumber = protocol !== undefined && /^\d+$/.test(protocol)
  return { protocol: isNumber ? Number(protocol) : protocol?.toLowerCase(), address, port, peerAddress, peerPort }
}

/** `external`, `bypass`, or the node behind a link, by name or id, `link` before it or not. */
function portOf(client: WatchClient, port: string | undefined): string | number | undefined {
  return port === undefined || port === 'external' || port === 'bypass' ? port : client.nodeNamed(port.replace(/^link /, '')).id
}
