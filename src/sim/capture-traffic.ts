/**
 * Capture traffic: the frames of a capture as what comes to a cluster from outside. Each frame gets a flow, a side and a time.
 *
 *     flow    both directions of a connection; fragments go with their datagram's first one, ICMP errors with what they quote
 *     side    whoever is seen first in a flow is on the ingress side, the other on the egress side
 *     frame   as captured when that is Ethernet; else the IP datagram behind an Ethernet header of ours
 *
 * What has neither IP nor Ethernet is left out. The dissection is the test kit's own, not that of the engine.
 */

import type { CapturedFrame } from '../testing/corpus/capture-frames.ts'
import {
  dissectDatagram, dissectFrame, IpProtocol, networkOffset, transportPorts, type Datagram,
} from '../testing/corpus/frame-dissection.ts'
import { hasIcmpIdentifier, hasIcmpv6Identifier } from '../wire/icmp.ts'

export interface TrafficPacket {
  /** Microseconds since the first packet. */
  readonly time: number
  /** 0: from the ingress side, 1: from the egress side. */
  readonly side: 0 | 1
  /** The same for all packets of a flow, and for what a chain answers to them. */
  readonly flow: string
  readonly frame: Uint8Array
}

/** How a capture's time is kept: as it was, or with no two packets further apart than this. */
export interface Pace {
  readonly gapUsMax: number
  readonly gapUsMin: number
}

const ETHERNET = 1
const OPENER = [2, 0, 0, 0, 0, 1]
const OTHER = [2, 0, 0, 0, 0, 2]
const PORTS = new Set<number>([IpProtocol.Tcp, IpProtocol.Udp])
const ICMP_ERRORS = new Set([3, 4, 5, 11, 12])
const ICMPV6_ERROR_MAX = 127

/** Names the flow of each frame that it is shown, in order. */
export class FlowNames {
  /** Flow of each fragmented datagram whose first fragment has been seen. */
  readonly #datagrams = new Map<string, string>()

  /** The frame's flow and its sender, as texts, and whether it is an ICMP error about the flow. */
  name(frame: CapturedFrame): { readonly flow: string; readonly source: string; readonly isError: boolean } {
    const datagram = dissectFrame(frame)
    if (datagram === null) {
      const { bytes } = frame
      const ends = [bytes.subarray(0, 6).join('.'), bytes.subarray(6, 12).join('.')]
      return { flow: `other ${ends.toSorted().join(' ')}`, source: ends[1] as string, isError: false }
    }
    return { flow: this.#flow(datagram), source: datagram.source, isError: datagram.fragment === null && this.#quoted(datagram) !== null }
  }

  #flow(datagram: Datagram): string {
    const { protocol, source, destination, fragment, payload, vlans } = datagram
    const id = fragment === null ? '' : `${source} ${destination} ${fragment.id} ${vlans.join(' ')}`
    if (fragment !== null && fragment.offset > 0) return this.#datagrams.get(id) ?? `fragments ${id}`
    const flow = this.#quoted(datagram) ?? `${protocol} ${ends(protocol, source, destination, payload)} ${vlans.join(' ')}`
    if (fragment !== null) this.#datagrams.set(id, flow)
    return flow
  }

  /** The flow that an ICMP error is about. */
  #quoted({ protocol, payload, vlans }: Datagram): string | null {
    const type = payload[0] ?? 0
    const isError = (protocol === IpProtocol.Icmp && ICMP_ERRORS.has(type)) ||
      (protocol === IpProtocol.Icmpv6 && type <= ICMPV6_ERROR_MAX)
    const quoted = isError ? dissectDatagram(payload.subarray(8), vlans) : null
    return quoted === null ? null
      : `${quoted.protocol} ${ends(quoted.protocol, quoted.source, quoted.destination, quoted.payload)} ${vlans.join(' ')}`
  }
}

function ends(protocol: number, source: string, destination: string, payload: Uint8Array): string {
  const ports = PORTS.has(protocol) ? portsOf(payload) : identifierOf(protocol, payload)
  return [`${source}:${ports?.[0] ?? 0}`, `${destination}:${ports?.[1] ?? 0}`].toSorted().join(' ')
}

/** The identifier of an ICMP message that has one, for both ends. */
function identifierOf(protocol: number, payload: Uint8Array): [number, number] | null {
  const type = payload[0] ?? 0
  const hasOne = protocol === IpProtocol.Icmp ? hasIcmpIdentifier(type)
    : protocol === IpProtocol.Icmpv6 && hasIcmpv6Identifier(type)
  if (!hasOne || payload.length < 6) return null
  const identifier = ((payload[4] as number) << 8) | (payload[5] as number)
  return [identifier, identifier]
}

/** Also of what an ICMP error quotes, which may be no more than the first eight bytes. */
function portsOf(payload: Uint8Array): [number, number] | null {
  const ports = transportPorts(IpProtocol.Udp, payload)
  return ports === null ? null : [ports.source, ports.destination]
}

/** Traffic of a capture's frames, at most so many packets and bytes. */
export function trafficOf(frames: readonly CapturedFrame[], pace: Pace, packetsMax = Infinity, bytesMax = Infinity): TrafficPacket[] {
  const names = new FlowNames()
  // Later fragments may come before their first one.
  for (const frame of frames) names.name(frame)
  const openers = new Map<string, string>()
  const traffic: TrafficPacket[] = []
  let time = 0
  let last: number | null = null
  let bytes = 0
  for (const captured of frames) {
    const { flow, source } = names.name(captured)
    if (!openers.has(flow)) openers.set(flow, source)
    const side = openers.get(flow) === source ? 0 : 1
    const frame = framed(captured, side)
    if (frame === null) continue
    if (last !== null) time += Math.min(pace.gapUsMax, Math.max(pace.gapUsMin, captured.timeUs - last))
    last = captured.timeUs
    bytes += frame.length
    if (traffic.length >= packetsMax || bytes > bytesMax) break
    traffic.push({ time, side, flow, frame })
  }
  return traffic
}

function framed(captured: CapturedFrame, side: 0 | 1): Uint8Array | null {
  if (captured.linkType === ETHERNET) return captured.bytes.length >= 14 ? captured.bytes : null
  const network = networkOffset(captured)
  if (network === null) return null
  const datagram = captured.bytes.subarray(network.offset)
  const frame = new Uint8Array(14 + datagram.length)
  frame.set(side === 0 ? [...OTHER, ...OPENER] : [...OPENER, ...OTHER])
  const isIpv6 = (datagram[0] as number) >> 4 === 6
  frame.set(isIpv6 ? [0x86, 0xdd] : [8, 0], 12)
  frame.set(datagram, 14)
  return frame
}
