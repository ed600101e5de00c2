/**
 * Packet trace: the events of all nodes, put together into the way of each packet.
 *
 * Events fall into one order by their times, which are of one clock. A packet begins where it comes in at an external port; every other
 * event belongs to the oldest packet of its identity that has not ended and has no such event yet: packets that are alike to the last
 * byte stay apart that way. An identity that a network function has changed is followed as far as the node that has changed it.
 */

import type { TraceEvent } from './trace-recorder.ts'

/** An event, and where. */
export type PlacedEvent = TraceEvent & { readonly node: number }

export type PacketEnd = 'sent' | 'dropped' | 'refused' | 'under way'

export interface TracedPacket {
  readonly id: string
  readonly start: number
  readonly hops: PlacedEvent[]
  end: PacketEnd
  /** The flow that a runtime knows it by; 0 if none has seen it. */
  flow: number
}

/** Events that are kept. */
const EVENTS_MAX = 200_000

export class PacketTrace {
  readonly #packetsMax: number
  readonly #events: PlacedEvent[] = []
  /** Events that nodes, or this, had no room for. */
  lost = 0
  /** Nothing that came in before is shown: some nodes were not watched yet. */
  since = -Infinity

  constructor(packetsMax: number) {
    this.#packetsMax = packetsMax
  }

  add(node: number, events: readonly TraceEvent[]): void {
    for (const event of events) {
      if (this.#events.length < EVENTS_MAX) this.#events.push({ ...event, node })
      else this.lost++
    }
  }

  /** The first packets that came in, each with its way. */
  packets(): TracedPacket[] {
    const all: TracedPacket[] = []
    const byId = new Map<string, TracedPacket[]>()
    for (const event of this.#events.toSorted((a, b) => a.time - b.time)) {
      if (event.at === 'message') continue
      if (event.at === 'in' && event.port === 'external') {
        const packet: TracedPacket = { id: event.id, start: event.time, hops: [event], end: 'under way', flow: 0 }
        all.push(packet)
        byId.set(event.id, [...byId.get(event.id) ?? [], packet])
        continue
      }
      const alike = byId.get(event.id) ?? []
      const open = alike.filter(({ end }) => end === 'under way')
      const packet = event.at === 'refused' ? alike.findLast(({ hops }) => hops.some((hop) => isSame(hop, event, 'out')))
        : open.find(({ hops }) => !hops.some((hop) => isSame(hop, event, event.at))) ?? open.at(-1)
      if (packet === undefined) continue
      packet.hops.push(event)
      if (event.at === 'chain') {
        packet.flow ||= event.flow
        if (event.verdict === 'drop') packet.end = 'dropped'
        if (event.becomes !== undefined) byId.set(event.becomes, [...byId.get(event.becomes) ?? [], packet])
      } else if (event.at === 'drop') packet.end = 'dropped'
      else if (event.at === 'refused') packet.end = 'refused'
      else if (event.at === 'out' && event.port === 'external') packet.end = 'sent'
    }
    return all.filter(({ start }) => start >= this.since).slice(0, this.#packetsMax)
  }

  /** Messages between nodes about these flows. */
  messages(flows: ReadonlySet<number>): (PlacedEvent & { readonly at: 'message' })[] {
    return this.#events.filter((event) => event.at === 'message').filter(({ flow }) => flows.has(flow)).toSorted((a, b) => a.time - b.time)
  }
}

function isSame(hop: PlacedEvent, event: PlacedEvent, at: TraceEvent['at']): boolean {
  if (hop.at !== at || hop.node !== event.node) return false
  return !('port' in hop && 'port' in event) || (hop.port === event.port && hop.peer === event.peer)
}
