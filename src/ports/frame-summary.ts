/**
 * Frame summary: what a frame is, in a line for people; and flow filters, which pick frames out. For traces and captures at ports,
 * outside of the fast path: a frame is looked at where it lies, and may be anything.
 *
 *     10.0.0.1:1024 > 10.0.0.2:80 tcp SA seq 7 ack 9 data 0         vlan 5, 2001:db8::1 > 2001:db8::2 icmpv6       EtherType 0x88cc
 */

import { isIPv4, isIPv6 } from 'node:net'
import { CodedError } from '../base/coded-error.ts'
import { formatAddress } from '../memory/struct.ts'
import { EtherType, ETHERNET_BYTES, ETHERNET_TYPE, isVlanTag, VLAN_TAG_BYTES } from '../wire/ethernet.ts'
import { IPV4_BYTES_MIN, IPV4_FRAGMENT, IPV4_OFFSET_MASK, IPV4_PROTOCOL, IPV4_TOTAL_LENGTH, IpProtocol, ipProtocolName } from '../wire/ipv4.ts'
import { IPV6_BYTES, IPV6_EXTENSIONS_MAX, IPV6_NEXT_HEADER, IPV6_PAYLOAD_LENGTH, isIpv6Extension } from '../wire/ipv6.ts'
import { TCP_ACKNOWLEDGEMENT, TCP_BYTES_MIN, TCP_DATA_OFFSET, TCP_FLAGS, TCP_SEQUENCE } from '../wire/tcp.ts'
import { UDP_BYTES } from '../wire/udp.ts'

/** Which frames: those between the two endpoints, in either direction. What is left out fits anything. */
export interface FlowFilter {
  /** An IP protocol by number, or `tcp`, `udp`, `icmp` (ICMPv6 too). */
  readonly protocol?: number | 'tcp' | 'udp' | 'icmp'
  readonly address?: string
  readonly port?: number
  /** The other endpoint. */
  readonly peerAddress?: string
  readonly peerPort?: number
}

/** True if a frame of so many bytes at this offset is wanted. */
export type FramePredicate = (bytes: Uint8Array, frame: number, length: number) => boolean

/** Where the parts of a frame are; 0 for what there is not. */
export class FrameLayers {
  etherType = 0
  vlans = ''
  /** 4, 6, or 0 for what is no IP. */
  version = 0
  network = 0
  protocol = 0
  /** TCP or UDP header, whole; 0 in later fragments. */
  transport = 0
  isFragment = false
  /** End of the IP packet, or of what is there of it. */
  end = 0

  read(bytes: Uint8Array, frame: number, length: number): void {
    const be16 = (at: number): number => (bytes[at] << 8) | bytes[at + 1]
    const end = frame + length
    this.version = this.network = this.protocol = this.transport = this.etherType = 0
    this.vlans = ''
    this.isFragment = false
    this.end = end
    if (length < ETHERNET_BYTES) return
    let at = frame + ETHERNET_BYTES
    this.etherType = be16(frame + ETHERNET_TYPE)
    while (isVlanTag(this.etherType) && at + VLAN_TAG_BYTES <= end) {
      this.vlans += `vlan ${be16(at) & 0xfff}, `
      this.etherType = be16(at + 2)
      at += VLAN_TAG_BYTES
    }
    if (this.etherType === EtherType.ipv4 && at + IPV4_BYTES_MIN <= end && bytes[at] >>> 4 === 4) {
      this.version = 4
      this.network = at
      this.protocol = bytes[at + IPV4_PROTOCOL]
      this.isFragment = (be16(at + IPV4_FRAGMENT) & 0x3fff) !== 0
      this.end = Math.min(end, at + be16(at + IPV4_TOTAL_LENGTH))
      if ((be16(at + IPV4_FRAGMENT) & IPV4_OFFSET_MASK) === 0) this.#setTransport(at + (bytes[at] & 15) * 4)
    } else if (this.etherType === EtherType.ipv6 && at + IPV6_BYTES <= end && bytes[at] >>> 4 === 6) {
      this.version = 6
      this.network = at
      this.protocol = bytes[at + IPV6_NEXT_HEADER]
      this.end = Math.min(end, at + IPV6_BYTES + be16(at + IPV6_PAYLOAD_LENGTH))
      at += IPV6_BYTES
      for (let i = 0; i < IPV6_EXTENSIONS_MAX && isIpv6Extension(this.protocol) && at + 8 <= this.end; i++) {
        if (this.protocol === IpProtocol.fragment) {
          this.isFragment = true
          const isLater = (be16(at + 2) & 0xfff8) !== 0
          this.protocol = bytes[at]
          if (isLater) return
          at += 8
          continue
        }
        const units = this.protocol === IpProtocol.authentication ? (bytes[at + 1] + 2) * 4 : (bytes[at + 1] + 1) * 8
        this.protocol = bytes[at]
        at += units
      }
      this.#setTransport(at)
    }
  }

  #setTransport(at: number): void {
    const need = this.protocol === IpProtocol.tcp ? TCP_BYTES_MIN : this.protocol === IpProtocol.udp ? UDP_BYTES : Infinity
    if (at + need <= this.end) this.transport = at
  }
}

const layers = new FrameLayers()

/** Protocol and both endpoints, as flows are listed: `tcp 10.0.0.1:1024 10.0.0.2:80`; for what is no IP its name. */
export function frameNames(bytes: Uint8Array, frame: number, length: number): string {
  layers.read(bytes, frame, length)
  if (layers.version === 0) return length < ETHERNET_BYTES ? '' : etherTypeName(layers.etherType)
  const [from, to] = endpointsOf(bytes)
  return `${ipProtocolName(layers.protocol)} ${from} ${to}`
}

/** Source and destination of the frame whose layers have been read. */
function endpointsOf(bytes: Uint8Array): [string, string] {
  const { version, network, transport } = layers
  const be16 = (at: number): number => (bytes[at] << 8) | bytes[at + 1]
  const be32 = (at: number): number => ((be16(at) << 16) | be16(at + 2)) >>> 0
  const addressAt = (at: number): string =>
    version === 4 ? formatAddress(4, be32(at)) : formatAddress(6, be32(at), be32(at + 4), be32(at + 8), be32(at + 12))
  const endpoint = (at: number, port: number): string =>
    transport === 0 ? addressAt(at) : version === 4 ? `${addressAt(at)}:${port}` : `[${addressAt(at)}]:${port}`
  const source = network + (version === 4 ? 12 : 8)
  return [endpoint(source, be16(transport)), endpoint(source + (version === 4 ? 4 : 16), be16(transport + 2))]
}

/** A frame in one line. */
export function summariseFrame(bytes: Uint8Array, frame: number, length: number): string {
  layers.read(bytes, frame, length)
  const { vlans, version, protocol, transport, end, etherType } = layers
  if (length < ETHERNET_BYTES) return `${length} bytes, too short for Ethernet`
  if (version === 0) return `${vlans}${etherTypeName(etherType)}`
  const be32 = (at: number): number => (bytes[at] << 24 | bytes[at + 1] << 16 | bytes[at + 2] << 8 | bytes[at + 3]) >>> 0
  const [from, to] = endpointsOf(bytes)
  let text = `${vlans}${from} > ${to} ${ipProtocolName(protocol)}`
  if (layers.isFragment) text += ' fragment'
  if (transport === 0) return text
  if (protocol === IpProtocol.udp) return `${text} data ${end - transport - UDP_BYTES}`
  const flags = bytes[transport + TCP_FLAGS]
  const letters = [...'FSRPAUEW'].filter((_, bit) => flags & (1 << bit)).join('')
  const data = Math.max(0, end - transport - (bytes[transport + TCP_DATA_OFFSET] >>> 4) * 4)
  return `${text} ${letters} seq ${be32(transport + TCP_SEQUENCE)} ack ${be32(transport + TCP_ACKNOWLEDGEMENT)} data ${data}`
}

function etherTypeName(type: number): string {
  if (type === EtherType.nfactor) return 'NFactor message'
  if (type === EtherType.arp) return 'arp'
  if (type === EtherType.ipv4) return 'IPv4, malformed'
  if (type === EtherType.ipv6) return 'IPv6, malformed'
  return `EtherType 0x${type.toString(16).padStart(4, '0')}`
}

/**
 * Makes a filter ready for use.
 *
 * @throws CodedError `NF_CONFIG_INVALID` (an address, port or protocol that is none)
 */
export function compileFlowFilter(filter: FlowFilter): FramePredicate {
  const { port = -1, peerPort = -1 } = filter
  for (const one of [port, peerPort]) {
    if (!(Number.isInteger(one) && one >= -1 && one <= 65_535)) {
      throw new CodedError('NF_CONFIG_INVALID', `flow filter: ${one} is no port`, 'Give a number from 0 to 65,535')
    }
  }
  const protocols = protocolsOf(filter.protocol)
  const own = filter.address === undefined ? null : addressOf(filter.address)
  const peer = filter.peerAddress === undefined ? null : addressOf(filter.peerAddress)
  const wantsPorts = port >= 0 || peerPort >= 0

  return (bytes, frame, length) => {
    layers.read(bytes, frame, length)
    const { version, network, transport, protocol } = layers
    if (version === 0) return protocols === null && own === null && peer === null && !wantsPorts
    if (protocols !== null && !protocols.includes(protocol)) return false
    if (wantsPorts && transport === 0) return false
    const width = version === 4 ? 4 : 16
    const source = network + (version === 4 ? 12 : 8)
    const isAt = (address: Uint8Array | null, wanted: number, at: number, portAt: number): boolean => {
      if (wanted >= 0 && ((bytes[portAt] << 8) | bytes[portAt + 1]) !== wanted) return false
      if (address === null) return true
      if (address.length !== width) return false
      for (let i = 0; i < width; i++) if (bytes[at + i] !== address[i]) return false
      return true
    }
    const destination = source + width
    return (isAt(own, port, source, transport) && isAt(peer, peerPort, destination, transport + 2)) ||
      (isAt(own, port, destination, transport + 2) && isAt(peer, peerPort, source, transport))
  }
}

function protocolsOf(protocol: FlowFilter['protocol']): readonly number[] | null {
  if (protocol === undefined) return null
  if (protocol === 'tcp') return [IpProtocol.tcp]
  if (protocol === 'udp') return [IpProtocol.udp]
  if (protocol === 'icmp') return [IpProtocol.icmp, IpProtocol.icmpv6]
  if (Number.isInteger(protocol) && protocol >= 0 && protocol <= 255) return [protocol]
  throw new CodedError('NF_CONFIG_INVALID', `flow filter: ${String(protocol)} is no IP protocol`,
    'Give tcp, udp, icmp or a number from 0 to 255')
}

function addressOf(text: string): Uint8Array {
  if (isIPv4(text)) return Uint8Array.from(text.split('.'), Number)
  if (!isIPv6(text) || text.includes('%')) {
    throw new CodedError('NF_CONFIG_INVALID', `flow filter: ${text} is no IP address`, 'Give one like 10.0.0.1 or 2001:db8::1')
  }
  // In its canonical form it has groups of hexadecimal digits alone, and at most one gap.
  const [before, after] = new URL(`http://[${text}]`).hostname.slice(1, -1).split('::') as [string, string | undefined]
  const groups = (half = ''): number[] => half === '' ? [] : half.split(':').map((group) => Number.parseInt(group, 16))
  const [head, tail] = [groups(before), groups(after)]
  const words = [...head, ...new Array<number>(8 - head.length - tail.length).fill(0), ...tail]
  return Uint8Array.from(words.flatMap((word) => [word >>> 8, word & 255]))
}
