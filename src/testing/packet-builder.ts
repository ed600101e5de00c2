/**
 * Packet builder: frames for tests, from plain options to bytes, with every length and checksum right unless told otherwise.
 *
 *     buildFrame({ source: '10.0.0.1', destination: '10.0.0.2', tcp: { sourcePort: 1234, destinationPort: 80, flags: 'SA' } })
 *     buildFrame({ vlans: [100, 7], source: '2001:db8::1', destination: '2001:db8::2', udp: { ... , payload: 'text' } })
 *     buildFragments({ source, destination, identification: 7, udp: { payload: new Uint8Array(3000) } }, 1400)
 *
 * A frame is built from the outside in: link header, IP header, transport header, payload; the address texts say whether it is
 * IPv4 or IPv6. What is not given has a harmless default, so that a test says only what it is about. For broken packets
 * build a right one and change its bytes; `layersOf` says where they are.
 */

import { checksumOf, sumBytes } from '../wire/checksum.ts'
import { IpProtocol } from '../wire/ipv4.ts'
import { isVlanTag } from '../wire/ethernet.ts'
import { addressBytes, macBytes } from './address-bytes.ts'

/** Bytes, or a text whose characters are taken as bytes (Latin-1). */
export type Payload = Uint8Array | string

export interface TcpOptions {
  sourcePort?: number
  destinationPort?: number
  sequence?: number
  acknowledgement?: number
  /** Letters of the flags, as tcpdump writes them: S, F, R, P, A, U, E, W; or their bits. `A` unless told. */
  flags?: string | number
  window?: number
  urgent?: number
  /** Option bytes, padded with "end of options" to a multiple of 4. */
  options?: Uint8Array
  payload?: Payload
}

export interface UdpOptions {
  sourcePort?: number
  destinationPort?: number
  payload?: Payload
  /** False: checksum 0, "none" (IPv4 only). */
  checksum?: boolean
}

export interface IcmpOptions {
  type?: number
  code?: number
  /** Bytes 4-7 of the header: identifier and sequence number of an echo, MTU of "too big", ... */
  rest?: number
  /** The packet that an error quotes: a layer-3 packet (`buildPacket`). */
  quote?: Uint8Array
  payload?: Payload
}

export interface FragmentOptions {
  /** Bytes of the datagram before this fragment, a multiple of 8. */
  offset: number
  /** True for all but the last fragment. */
  more: boolean
}

export interface Ipv6Extension {
  /** Its own number: 0 hop-by-hop, 43 routing, 51 authentication, 60 destination options, ... */
  type: number
  /** What follows its two first bytes, zero-padded to the unit of its length field. */
  body?: Uint8Array
}

/** A layer-3 packet. At most one of `tcp`, `udp`, `icmp` and `payload` says what it carries. */
export interface PacketOptions {
  /** IPv4 or IPv6; `10.0.0.1` unless told. */
  source?: string
  /** Of the same version; `10.0.0.2` unless told. */
  destination?: string
  /** TTL or hop limit. */
  ttl?: number
  /** DSCP and ECN, or traffic class. */
  trafficClass?: number
  flowLabel?: number
  /** Of IPv4, or of the IPv6 fragment header. */
  identification?: number
  dontFragment?: boolean
  /** IPv4 options, padded with "end of options" to a multiple of 4. */
  ipOptions?: Uint8Array
  /** IPv6 extension headers in order. A fragment header goes where `fragment` is told, behind them. */
  extensions?: readonly Ipv6Extension[]
  /** IPv6 extension headers behind the fragment header. */
  innerExtensions?: readonly Ipv6Extension[]
  /** Makes the packet a fragment: what it carries is taken as the fragment's bytes, with checksums as for a whole one. */
  fragment?: FragmentOptions
  tcp?: TcpOptions
  udp?: UdpOptions
  /** ICMP, or ICMPv6 between IPv6 addresses. */
  icmp?: IcmpOptions
  /** IP protocol of `payload`; 253 (experimental) unless told. */
  protocol?: number
  payload?: Payload
}

export interface VlanTag {
  id: number
  priority?: number
  /** EtherType of the tag; 0x88a8 for the outer one of two, else 0x8100. */
  type?: number
}

export interface FrameOptions extends PacketOptions {
  sourceMac?: string
  destinationMac?: string
  /** Outermost first. */
  vlans?: readonly (number | VlanTag)[]
  /** PPPoE session number. */
  pppoe?: number
  /** EtherType; follows from the packet unless told. */
  etherType?: number
  /** Bytes behind the packet (padding of short frames, a checksum). */
  trailer?: Uint8Array
}

/** The bytes of a payload. */
export function payloadBytes(payload: Payload | undefined): Uint8Array {
  if (payload === undefined) return new Uint8Array(0)
  return typeof payload === 'string' ? Uint8Array.from(payload, (letter) => letter.charCodeAt(0)) : payload
}

function concat(...parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    bytes.set(part, at)
    at += part.length
  }
  return bytes
}

function padded(bytes: Uint8Array | undefined, unit: number): Uint8Array {
  if (bytes === undefined) return new Uint8Array(0)
  return concat(bytes, new Uint8Array((unit - (bytes.length % unit)) % unit))
}

/** An Ethernet frame. */
export function buildFrame(options: FrameOptions = {}): Uint8Array {
  const packet = buildPacket(options)
  const isIpv6 = packet[0] >>> 4 === 6
  const tags = (options.vlans ?? []).map((tag) => (typeof tag === 'number' ? { id: tag } : tag)) as VlanTag[]
  const link: number[] = [
    ...macBytes(options.destinationMac ?? '02:00:00:00:00:02'), ...macBytes(options.sourceMac ?? '02:00:00:00:00:01'),
  ]
  tags.forEach(({ id, priority = 0, type }, index) => {
    link.push(...u16(type ?? (index === 0 && tags.length > 1 ? 0x88a8 : 0x8100)), ...u16((priority << 13) | id))
  })
  if (options.pppoe === undefined) {
    link.push(...u16(options.etherType ?? (isIpv6 ? 0x86dd : 0x0800)))
  } else {
    link.push(...u16(options.etherType ?? 0x8864), 0x11, 0, ...u16(options.pppoe), ...u16(packet.length + 2),
      ...u16(isIpv6 ? 0x57 : 0x21))
  }
  return concat(Uint8Array.from(link), packet, options.trailer ?? new Uint8Array(0))
}

/** A layer-3 packet without a link header. */
export function buildPacket(options: PacketOptions = {}): Uint8Array {
  const source = addressBytes(options.source ?? '10.0.0.1')
  const destination = addressBytes(options.destination ?? (source.length === 16 ? '2001:db8::2' : '10.0.0.2'))
  if (source.length !== destination.length) throw new RangeError('source and destination are of one IP version')
  const { protocol, bytes } = buildTransport(options, source, destination)
  return source.length === 4
    ? buildIpv4(options, source, destination, protocol, bytes)
    : buildIpv6(options, source, destination, protocol, bytes)
}

function u16(value: number): [number, number] {
  return [(value >>> 8) & 255, value & 255]
}

function u32(value: number): [number, number, number, number] {
  return [(value >>> 24) & 255, (value >>> 16) & 255, (value >>> 8) & 255, value & 255]
}

function buildIpv4(options: PacketOptions, source: Uint8Array, destination: Uint8Array, protocol: number,
    body: Uint8Array): Uint8Array {
  const ipOptions = padded(options.ipOptions, 4)
  const headerBytes = 20 + ipOptions.length
  const { offset = 0, more = false } = options.fragment ?? {}
  const header = Uint8Array.from([
    0x40 | (headerBytes >>> 2), options.trafficClass ?? 0, ...u16(headerBytes + body.length),
    ...u16(options.identification ?? 0),
    ...u16((options.dontFragment ? 0x4000 : 0) | (more ? 0x2000 : 0) | (offset >>> 3)),
    options.ttl ?? 64, protocol, 0, 0, ...source, ...destination, ...ipOptions,
  ])
  header.set(u16(checksumOf(sumBytes(header, 0, headerBytes))), 10)
  return concat(header, body)
}

function buildIpv6(options: PacketOptions, source: Uint8Array, destination: Uint8Array, protocol: number,
    body: Uint8Array): Uint8Array {
  let next = protocol
  let inner = body
  const wrap = (extensions: readonly Ipv6Extension[] = []): void => {
    for (const { type, body: content = new Uint8Array(6) } of [...extensions].reverse()) {
      const header = padded(concat(Uint8Array.of(next, 0), content), type === IpProtocol.authentication ? 4 : 8)
      header[1] = type === IpProtocol.authentication ? header.length / 4 - 2 : header.length / 8 - 1
      inner = concat(header, inner)
      next = type
    }
  }
  wrap(options.innerExtensions)
  if (options.fragment !== undefined) {
    const { offset, more } = options.fragment
    inner = concat(Uint8Array.from([next, 0, ...u16(offset | (more ? 1 : 0)), ...u32(options.identification ?? 0)]), inner)
    next = IpProtocol.fragment
  }
  wrap(options.extensions)
  const first = (6 << 28) | ((options.trafficClass ?? 0) << 20) | (options.flowLabel ?? 0)
  return concat(
    Uint8Array.from([...u32(first), ...u16(inner.length), next, options.ttl ?? 64, ...source, ...destination]), inner)
}

function buildTransport(options: PacketOptions, source: Uint8Array, destination: Uint8Array):
    { protocol: number; bytes: Uint8Array } {
  const isIpv6 = source.length === 16
  if (options.tcp !== undefined) {
    const bytes = buildTcp(options.tcp)
    bytes.set(u16(transportChecksum(bytes, source, destination, IpProtocol.tcp)), 16)
    return { protocol: IpProtocol.tcp, bytes }
  }
  if (options.udp !== undefined) {
    const bytes = buildUdp(options.udp)
    if (options.udp.checksum ?? true) {
      const checksum = transportChecksum(bytes, source, destination, IpProtocol.udp)
      bytes.set(u16(checksum === 0 ? 0xffff : checksum), 6)
    }
    return { protocol: IpProtocol.udp, bytes }
  }
  if (options.icmp !== undefined) {
    const { type = isIpv6 ? 128 : 8, code = 0, rest = 0, quote, payload } = options.icmp
    const bytes = concat(Uint8Array.from([type, code, 0, 0, ...u32(rest)]), quote ?? payloadBytes(payload))
    const checksum = isIpv6 ? transportChecksum(bytes, source, destination, IpProtocol.icmpv6)
      : checksumOf(sumBytes(bytes, 0, bytes.length))
    bytes.set(u16(checksum), 2)
    return { protocol: isIpv6 ? IpProtocol.icmpv6 : IpProtocol.icmp, bytes }
  }
  return { protocol: options.protocol ?? 253, bytes: payloadBytes(options.payload) }
}

const flagLetters: Record<string, number> = { F: 1, S: 2, R: 4, P: 8, A: 16, U: 32, E: 64, W: 128 }

/** The bits of TCP flags given as letters. */
export function tcpFlagBits(flags: string | number): number {
  if (typeof flags === 'number') return flags
  let bits = 0
  for (const letter of flags) {
    const bit = flagLetters[letter]
    if (bit === undefined) throw new RangeError(`${JSON.stringify(letter)} is not a TCP flag`)
    bits |= bit
  }
  return bits
}

function buildTcp(tcp: TcpOptions): Uint8Array {
  const options = padded(tcp.options, 4)
  return concat(Uint8Array.from([
    ...u16(tcp.sourcePort ?? 1024), ...u16(tcp.destinationPort ?? 80), ...u32(tcp.sequence ?? 0),
    ...u32(tcp.acknowledgement ?? 0), ((20 + options.length) >>> 2) << 4, tcpFlagBits(tcp.flags ?? 'A'),
    ...u16(tcp.window ?? 65535), 0, 0, ...u16(tcp.urgent ?? 0),
  ]), options, payloadBytes(tcp.payload))
}

function buildUdp(udp: UdpOptions): Uint8Array {
  const payload = payloadBytes(udp.payload)
  return concat(Uint8Array.from([
    ...u16(udp.sourcePort ?? 1024), ...u16(udp.destinationPort ?? 53), ...u16(8 + payload.length), 0, 0,
  ]), payload)
}

/** The checksum of a transport header and its payload, with the pseudo-header of RFC 9293 §3.1 or RFC 8200 §8.1. */
export function transportChecksum(bytes: Uint8Array, source: Uint8Array, destination: Uint8Array, protocol: number): number {
  return checksumOf(sumBytes(source, 0, source.length) + sumBytes(destination, 0, destination.length) + protocol +
    (bytes.length & 0xffff) + (bytes.length >>> 16) + sumBytes(bytes, 0, bytes.length))
}

/**
 * The datagram of these options as fragments, in order, each carrying at most `fragmentBytes` bytes (rounded down to a
 * multiple of 8) of it.
 */
export function buildFragments(options: FrameOptions, fragmentBytes: number): Uint8Array[] {
  const source = addressBytes(options.source ?? '10.0.0.1')
  const destination = addressBytes(options.destination ?? (source.length === 16 ? '2001:db8::2' : '10.0.0.2'))
  const { innerExtensions, tcp: _tcp, udp: _udp, icmp: _icmp, ...outside } = options
  let { protocol, bytes } = buildTransport(options, source, destination)
  if (innerExtensions !== undefined && innerExtensions.length > 0) {
    const whole = buildPacket({ source: options.source, destination: options.destination, extensions: innerExtensions, protocol,
      payload: bytes })
    protocol = innerExtensions[0].type
    bytes = whole.subarray(40)
  }
  const step = fragmentBytes & ~7
  if (step <= 0) throw new RangeError('a fragment carries at least 8 bytes')
  const fragments: Uint8Array[] = []
  for (let offset = 0; offset < bytes.length; offset += step) {
    const more = offset + step < bytes.length
    fragments.push(buildFrame({ ...outside, protocol, payload: bytes.subarray(offset, offset + step),
      fragment: { offset, more } }))
  }
  return fragments
}

/** Where the parts of a frame made by {@link buildFrame} start; an absent part is -1. */
export interface Layers {
  network: number
  transport: number
  protocol: number
  /** Behind the IP packet: the rest of the frame is padding. */
  end: number
}

/** Finds the layers of a well-formed Ethernet frame, or with `linkBytes` given of a packet behind so many bytes. */
export function layersOf(frame: Uint8Array, linkBytes?: number): Layers {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength)
  let network = linkBytes ?? 14
  if (linkBytes === undefined) {
    let type = view.getUint16(12)
    while (isVlanTag(type)) {
      type = view.getUint16(network + 2)
      network += 4
    }
    if (type === 0x8864) network += 8
  }
  if (frame[network] >>> 4 === 4) {
    const headerBytes = (frame[network] & 15) * 4
    const later = (view.getUint16(network + 6) & 0x1fff) !== 0
    return {
      network, transport: later ? -1 : network + headerBytes, protocol: frame[network + 9],
      end: network + view.getUint16(network + 2),
    }
  }
  let next = frame[network + 6]
  let at = network + 40
  let later = false
  while ([0, 43, 44, 51, 60, 135, 139, 140].includes(next) && !later) {
    if (next === IpProtocol.fragment) later = (view.getUint16(at + 2) & 0xfff8) !== 0
    const bytes = next === IpProtocol.fragment ? 8
      : next === IpProtocol.authentication ? (frame[at + 1] + 2) * 4 : (frame[at + 1] + 1) * 8
    next = frame[at]
    at += bytes
  }
  return { network, transport: later ? -1 : at, protocol: next, end: network + 40 + view.getUint16(network + 4) }
}

/**
 * Checks the checksums of a whole, unfragmented frame.
 * @returns what is wrong, or an empty text
 */
export function checksumFault(frame: Uint8Array, linkBytes?: number): string {
  const { network, transport, protocol, end } = layersOf(frame, linkBytes)
  const isIpv4 = frame[network] >>> 4 === 4
  if (isIpv4) {
    const headerBytes = (frame[network] & 15) * 4
    if (checksumOf(sumBytes(frame, network, headerBytes)) !== 0) return 'IPv4 header checksum'
  }
  const bytes = frame.subarray(transport, end)
  const source = isIpv4 ? frame.subarray(network + 12, network + 16) : frame.subarray(network + 8, network + 24)
  const destination = isIpv4 ? frame.subarray(network + 16, network + 20) : frame.subarray(network + 24, network + 40)
  switch (protocol) {
    case IpProtocol.udp:
      if (isIpv4 && bytes[6] === 0 && bytes[7] === 0) return ''
      return transportChecksum(bytes, source, destination, protocol) === 0 ? '' : 'UDP checksum'
    case IpProtocol.tcp: return transportChecksum(bytes, source, destination, protocol) === 0 ? '' : 'TCP checksum'
    case IpProtocol.icmpv6: return transportChecksum(bytes, source, destination, protocol) === 0 ? '' : 'ICMPv6 checksum'
    case IpProtocol.icmp: return checksumOf(sumBytes(bytes, 0, bytes.length)) === 0 ? '' : 'ICMP checksum'
    default: return ''
  }
}
