/**
 * What a captured frame carries, for the harness alone: link header, VLAN tags, IP, and TCP, UDP or ICMP.
 *
 * Written apart from the engine's own parsers, on purpose, and plainly: objects and strings, one frame at a time. It
 * does not look into tunnels (GRE, MPLS, IP in IP), and neither does the engine when it keys a flow. A datagram whose
 * headers contradict each other comes back as null; nothing here throws.
 */

import type { CapturedFrame } from './capture-frames.ts'

/** An IP datagram, or a fragment of one. */
export interface Datagram {
  /** VLAN identifiers, outermost first. */
  readonly vlans: readonly number[]
  readonly version: 4 | 6
  /** The protocol of `payload`, behind any extension headers. */
  readonly protocol: number
  readonly source: string
  readonly destination: string
  /** Set on fragments. `offset` in bytes. */
  readonly fragment: { readonly id: number, readonly offset: number, readonly more: boolean } | null
  /** The bytes behind the IP headers, without any link-layer trailer. */
  readonly payload: Uint8Array
  /** The length field claims more bytes than the frame has. */
  readonly isCut: boolean
  /** IPv6 extension headers before `payload`. */
  readonly extensionCount: number
}

/** A TCP segment. */
export interface TcpSegment {
  readonly sourcePort: number
  readonly destinationPort: number
  readonly sequence: number
  readonly acknowledgement: number
  readonly flags: number
  readonly payload: Uint8Array
  /** Length of the TCP header. */
  readonly headerLength: number
}

export const TcpFlag = { Fin: 1, Syn: 2, Rst: 4, Psh: 8, Ack: 16, Urg: 32 } as const

export const IpProtocol = { Icmp: 1, Tcp: 6, Udp: 17, Icmpv6: 58, Sctp: 132 } as const

const ETHER_TYPE_IPV4 = 0x0800
const ETHER_TYPE_IPV6 = 0x86dd
const ETHER_TYPES_VLAN = new Set([0x8100, 0x88a8, 0x9100])
const EXTENSION_FRAGMENT = 44
/** Hop-by-hop options, routing, destination options, mobility, HIP, Shim6: all of the same shape. */
const EXTENSIONS = new Set([0, 43, 60, 135, 139, 140])
const EXTENSION_AUTHENTICATION = 51

/** Where layer 3 begins in a frame: its offset, and the VLAN identifiers before it. */
export interface NetworkOffset { readonly offset: number, readonly vlans: readonly number[] }

/** Finds layer 3; null when the frame carries no IP. */
export function networkOffset(frame: CapturedFrame): NetworkOffset | null {
  const bytes = frame.bytes
  switch (frame.linkType) {
    case 0:
    case 108:
      return bytes.length > 4 ? { offset: 4, vlans: [] } : null
    case 9:
      return pppOffset(bytes)
    case 12:
    case 14:
    case 101:
    case 228:
    case 229:
      return { offset: 0, vlans: [] }
    case 113:
      return etherTypeOffset(bytes, 14)
    case 276:
      return isIp(etherTypeAt(bytes, 0)) ? { offset: 20, vlans: [] } : null
    case 1:
      return etherTypeOffset(bytes, 12)
    default:
      return null
  }
}

/** The IP datagram in a frame; null when there is none, or its header is damaged. */
export function dissectFrame(frame: CapturedFrame): Datagram | null {
  const network = networkOffset(frame)
  if (network === null) return null
  return dissectDatagram(frame.bytes.subarray(network.offset), network.vlans)
}

/** The IP datagram at the start of `bytes`. */
export function dissectDatagram(bytes: Uint8Array, vlans: readonly number[] = []): Datagram | null {
  const version = (bytes[0] ?? 0) >> 4
  if (version === 4) return dissectIpv4(bytes, vlans)
  if (version === 6) return dissectIpv6(bytes, vlans)
  return null
}

/** The TCP segment in an unfragmented or first-fragment payload; null when its header is damaged or incomplete. */
export function dissectTcp(payload: Uint8Array): TcpSegment | null {
  if (payload.length < 20) return null
  const view = viewOf(payload)
  const headerLength = ((payload[12] as number) >> 4) * 4
  if (headerLength < 20 || headerLength > payload.length) return null
  return {
    sourcePort: view.getUint16(0),
    destinationPort: view.getUint16(2),
    sequence: view.getUint32(4),
    acknowledgement: view.getUint32(8),
    flags: payload[13] as number,
    payload: payload.subarray(headerLength),
    headerLength,
  }
}

/** The ports of a TCP or UDP payload; null when the header is not wholly there. */
export function transportPorts(protocol: number, payload: Uint8Array): { source: number, destination: number } | null {
  const least = protocol === IpProtocol.Tcp ? 20 : 8
  if (payload.length < least) return null
  const view = viewOf(payload)
  return { source: view.getUint16(0), destination: view.getUint16(2) }
}

function dissectIpv4(bytes: Uint8Array, vlans: readonly number[]): Datagram | null {
  if (bytes.length < 20) return null
  const view = viewOf(bytes)
  const headerLength = ((bytes[0] as number) & 15) * 4
  const totalLength = view.getUint16(2)
  if (headerLength < 20 || headerLength > bytes.length || totalLength < headerLength) return null
  const flagsAndOffset = view.getUint16(6)
  const offset = (flagsAndOffset & 0x1fff) * 8
  const more = (flagsAndOffset & 0x2000) !== 0
  return {
    vlans,
    version: 4,
    protocol: bytes[9] as number,
    source: bytes.subarray(12, 16).join('.'),
    destination: bytes.subarray(16, 20).join('.'),
    fragment: more || offset > 0 ? { id: view.getUint16(4), offset, more } : null,
    payload: bytes.subarray(headerLength, Math.min(totalLength, bytes.length)),
    isCut: totalLength > bytes.length,
    extensionCount: 0,
  }
}

function dissectIpv6(bytes: Uint8Array, vlans: readonly number[]): Datagram | null {
  if (bytes.length < 40) return null
  const view = viewOf(bytes)
  const end = 40 + view.getUint16(4)
  const limit = Math.min(end, bytes.length)
  let next = bytes[6] as number
  let offset = 40
  let fragment: Datagram['fragment'] = null
  let extensionCount = 0
  while (EXTENSIONS.has(next) || next === EXTENSION_FRAGMENT || next === EXTENSION_AUTHENTICATION) {
    if (offset + 8 > limit) return null
    extensionCount++
    if (next === EXTENSION_FRAGMENT) {
      const offsetAndMore = view.getUint16(offset + 2)
      const fragmentOffset = offsetAndMore & 0xfff8
      const more = (offsetAndMore & 1) !== 0
      // An atomic fragment (RFC 6946) is a whole datagram.
      if (fragmentOffset > 0 || more) fragment = { id: view.getUint32(offset + 4), offset: fragmentOffset, more }
      next = bytes[offset] as number
      offset += 8
      if (fragmentOffset > 0) break
    } else {
      const units = bytes[offset + 1] as number
      const length = next === EXTENSION_AUTHENTICATION ? (units + 2) * 4 : (units + 1) * 8
      next = bytes[offset] as number
      offset += length
    }
    if (offset > limit) return null
  }
  return {
    vlans,
    version: 6,
    protocol: next,
    source: ipv6Text(view, 8),
    destination: ipv6Text(view, 24),
    fragment,
    payload: bytes.subarray(offset, limit),
    isCut: end > bytes.length,
    extensionCount,
  }
}

function ipv6Text(view: DataView, offset: number): string {
  const groups: string[] = []
  for (let i = 0; i < 8; i++) groups.push(view.getUint16(offset + i * 2).toString(16))
  return groups.join(':')
}

function etherTypeOffset(bytes: Uint8Array, typeOffset: number): NetworkOffset | null {
  const vlans: number[] = []
  let offset = typeOffset
  let type = etherTypeAt(bytes, offset)
  while (type !== null && ETHER_TYPES_VLAN.has(type) && offset + 6 <= bytes.length) {
    vlans.push((((bytes[offset + 2] as number) << 8) | (bytes[offset + 3] as number)) & 0xfff)
    offset += 4
    type = etherTypeAt(bytes, offset)
  }
  return isIp(type) ? { offset: offset + 2, vlans } : null
}

function pppOffset(bytes: Uint8Array): NetworkOffset | null {
  let offset = bytes[0] === 0xff && bytes[1] === 0x03 ? 2 : 0
  // Protocol field compression (RFC 1661 §6.5): one byte when its lowest bit is set.
  let protocol = bytes[offset] ?? 0
  if ((protocol & 1) === 0) protocol = (protocol << 8) | (bytes[++offset] ?? 0)
  return protocol === 0x21 || protocol === 0x57 ? { offset: offset + 1, vlans: [] } : null
}

function etherTypeAt(bytes: Uint8Array, offset: number): number | null {
  if (offset + 2 > bytes.length) return null
  return ((bytes[offset] as number) << 8) | (bytes[offset + 1] as number)
}

function isIp(type: number | null): boolean {
  return type === ETHER_TYPE_IPV4 || type === ETHER_TYPE_IPV6
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
