/**
 * Packet view: what a network function sees of a packet. One reused view walks over the descriptors of a batch.
 *
 * Reading never goes out of the frame: the parser has checked every length that an accessor relies on, and accessors of
 * headers that a packet does not have give 0. Ports, addresses and flags are read from the packet itself, so that a network
 * function sees what those before it have written.
 *
 * Writing keeps the IP header checksum and the TCP, UDP or ICMPv6 checksum right incrementally (RFC 1624; a UDP checksum of 0
 * stays 0). In a later fragment there is no layer-4 checksum: the first fragment carries it for all. The flow a packet
 * belongs to does not change when its addresses are rewritten.
 *
 * A view is valid until the method that received it returns; what has to stay is copied into the flow state.
 */

import type { Arena } from '../memory/arena.ts'
import { formatAddress } from '../memory/struct.ts'
import { updateChecksum16, updateChecksum32 } from '../wire/checksum.ts'
import { Descriptor, Meta } from './descriptor.ts'

/** Direction of a packet in its flow. */
export const Direction = {
  /** From the side that opened the flow. */
  forward: 0,
  /** From the other side. */
  reverse: 1,
} as const

// PERF: module constants fold, imported ones do not (see descriptor.ts).
const FRAME = Descriptor.frame
const LENGTH = Descriptor.length
const NETWORK = Descriptor.network
const TRANSPORT = Descriptor.transport
const PAYLOAD = Descriptor.payload
const PAYLOAD_LENGTH = Descriptor.payloadLength
const META = Descriptor.meta
const TIME = Descriptor.time
const KEY = Descriptor.key
const WIRE_LENGTH = Descriptor.wireLength
const PORT = Descriptor.port
const SEQUENCE = Descriptor.sequence
const IPV6 = Meta.ipv6
const FRAGMENT = Meta.fragment
const LATER_FRAGMENT = Meta.laterFragment
const RELATED = Meta.related

export interface Packet {
  /** Length of the frame on the wire, bytes, link header included. */
  readonly length: number
  /** {@link Direction.forward} when it comes from the side that opened the flow, else {@link Direction.reverse}. */
  readonly direction: number
  /** Time of arrival, microseconds since the Unix epoch. */
  readonly time: number
  /** The port it came in by: 0 towards the clients (ingress), 1 towards the servers (egress); in captures the interface. */
  readonly port: number

  readonly isIpv4: boolean
  readonly isIpv6: boolean
  /** IP protocol number, after extension headers. */
  readonly protocol: number
  /** True for TCP segments, also for a later fragment of one. */
  readonly isTcp: boolean
  readonly isUdp: boolean
  /** True for an ICMP error that belongs to this flow because it quotes one of its packets. */
  readonly isRelated: boolean
  /** True for any fragment of an IP datagram. */
  readonly isFragment: boolean
  /** True for a fragment other than the first: no ports, flags or header fields of layer 4, only payload. */
  readonly isLaterFragment: boolean
  /** Outer VLAN id, 0 for none. */
  readonly vlan: number
  /** Inner VLAN id of a double-tagged frame, 0 for none. */
  readonly vlanInner: number

  /** Words of the source address, big-endian: all four for IPv6, the first for IPv4. */
  sourceWord(index: number): number
  destinationWord(index: number): number
  /** The source address as text. Allocates. */
  formatSource(): string
  /** The destination address as text. Allocates. */
  formatDestination(): string
  setSourceIpv4(address: number): void
  setDestinationIpv4(address: number): void
  setSourceIpv6(word0: number, word1: number, word2: number, word3: number): void
  setDestinationIpv6(word0: number, word1: number, word2: number, word3: number): void
  /** Time to live, or hop limit. */
  ttl: number
  /** Differentiated services code point, 0 to 63 (RFC 2474). */
  dscp: number

  /** TCP or UDP source port; 0 for other protocols. */
  sourcePort: number
  /** TCP or UDP destination port; 0 for other protocols. */
  destinationPort: number
  /** TCP flags (see `TcpFlag`); 0 for other protocols. */
  readonly tcpFlags: number
  /** TCP sequence number, a signed 32-bit integer: of this segment, or of a later fragment's first byte; else 0. */
  readonly sequence: number
  /** TCP acknowledgement number, a signed 32-bit integer. */
  readonly acknowledgement: number
  /** TCP window as it stands in the header, unscaled. */
  readonly window: number
  /** Where the body of a TCP option of this kind starts (its length is the byte before), or 0 if it is not there. */
  tcpOption(kind: number): number
  /** ICMP or ICMPv6 type and code, `type << 8 | code`; -1 for other protocols. */
  readonly icmpType: number

  /** Arena offset of the payload's first byte. */
  readonly payloadOffset: number
  /** Bytes of payload in memory. */
  readonly payloadLength: number
  /** One byte of the payload; 0 outside it. */
  payloadByte(index: number): number
  /** Overwrites a byte of the payload; nothing outside it. */
  setPayloadByte(index: number, value: number): void
  /** Overwrites payload from `index` on with `length` bytes from the arena, cut at the payload's end. */
  overwritePayload(index: number, offset: number, length: number): void

  /** Arena offset of the frame's first byte. */
  readonly frameOffset: number
  /** Bytes of the frame in memory. */
  readonly frameLength: number
  /** Arena offset of the layer-3 header. */
  readonly networkOffset: number
  /** Arena offset of the layer-4 header, 0 if there is none. */
  readonly transportOffset: number
}

/** The engine's side of the view. */
export interface PacketCursor extends Packet {
  /** Word index of the descriptor shown. */
  d: number
  direction: number
}

/** View classes that may be used again. */
const reusable = new WeakMap<Arena, new () => PacketCursor>()

/** @param reusesCode see `EngineOptions.reusesCode` */
export function createPacketView(arena: Arena, reusesCode = false): PacketCursor {
  let Made = reusesCode ? reusable.get(arena) : undefined
  if (Made === undefined) {
    Made = makeClass(arena)
    if (reusesCode) reusable.set(arena, Made)
  }
  return new Made()
}

function makeClass(arena: Arena): new () => PacketCursor {
  const { i32, u8, f64, view } = arena

  class PacketView implements PacketCursor {
    d = 0
    direction = 0

    get length(): number { return i32[this.d + WIRE_LENGTH] }
    get time(): number { return f64[(this.d + TIME) >> 1] }
    get port(): number { return i32[this.d + PORT] }
    get isIpv4(): boolean { return (i32[this.d + META] & IPV6) === 0 }
    get isIpv6(): boolean { return (i32[this.d + META] & IPV6) !== 0 }
    get protocol(): number { return i32[this.d + META] & 255 }
    get isTcp(): boolean { return (i32[this.d + META] & 255) === 6 }
    get isUdp(): boolean { return (i32[this.d + META] & 255) === 17 }
    get isRelated(): boolean { return (i32[this.d + META] & RELATED) !== 0 }
    get isFragment(): boolean { return (i32[this.d + META] & FRAGMENT) !== 0 }
    get isLaterFragment(): boolean { return (i32[this.d + META] & LATER_FRAGMENT) !== 0 }
    get vlan(): number { return i32[this.d + KEY] & 0xfff }
    get vlanInner(): number { return (i32[this.d + KEY] >>> 12) & 0xfff }

    sourceWord(index: number): number {
      const at = i32[this.d + NETWORK]
      if (this.isIpv6) return view.getInt32(at + 8 + (index & 3) * 4)
      return index === 0 ? view.getInt32(at + 12) : 0
    }

    destinationWord(index: number): number {
      const at = i32[this.d + NETWORK]
      if (this.isIpv6) return view.getInt32(at + 24 + (index & 3) * 4)
      return index === 0 ? view.getInt32(at + 16) : 0
    }

    formatSource(): string {
      return formatAddress(this.isIpv6 ? 6 : 4, this.sourceWord(0), this.sourceWord(1), this.sourceWord(2), this.sourceWord(3))
    }

    formatDestination(): string {
      return formatAddress(this.isIpv6 ? 6 : 4, this.destinationWord(0), this.destinationWord(1), this.destinationWord(2),
        this.destinationWord(3))
    }

    setSourceIpv4(address: number): void {
      if (!this.isIpv6) this.#setAddressWord(i32[this.d + NETWORK] + 12, address)
    }

    setDestinationIpv4(address: number): void {
      if (!this.isIpv6) this.#setAddressWord(i32[this.d + NETWORK] + 16, address)
    }

    setSourceIpv6(word0: number, word1: number, word2: number, word3: number): void {
      if (!this.isIpv6) return
      const at = i32[this.d + NETWORK] + 8
      this.#setAddressWord(at, word0)
      this.#setAddressWord(at + 4, word1)
      this.#setAddressWord(at + 8, word2)
      this.#setAddressWord(at + 12, word3)
    }

    setDestinationIpv6(word0: number, word1: number, word2: number, word3: number): void {
      if (!this.isIpv6) return
      const at = i32[this.d + NETWORK] + 24
      this.#setAddressWord(at, word0)
      this.#setAddressWord(at + 4, word1)
      this.#setAddressWord(at + 8, word2)
      this.#setAddressWord(at + 12, word3)
    }

    get ttl(): number {
      return u8[i32[this.d + NETWORK] + (this.isIpv6 ? 7 : 8)]
    }

    set ttl(value: number) {
      const network = i32[this.d + NETWORK]
      if (this.isIpv6) {
        u8[network + 7] = value
        return
      }
      const before = view.getUint16(network + 8)
      u8[network + 8] = value
      view.setUint16(network + 10, updateChecksum16(view.getUint16(network + 10), before, view.getUint16(network + 8)))
    }

    get dscp(): number {
      const network = i32[this.d + NETWORK]
      return this.isIpv6 ? (view.getUint16(network) >>> 6) & 63 : u8[network + 1] >>> 2
    }

    set dscp(value: number) {
      const network = i32[this.d + NETWORK]
      const before = view.getUint16(network)
      if (this.isIpv6) {
        view.setUint16(network, (before & 0xf03f) | ((value & 63) << 6))
        return
      }
      view.setUint16(network, (before & 0xff03) | ((value & 63) << 2))
      view.setUint16(network + 10, updateChecksum16(view.getUint16(network + 10), before, view.getUint16(network)))
    }

    get sourcePort(): number {
      const at = i32[this.d + TRANSPORT]
      return at !== 0 && this.#hasPorts() ? view.getUint16(at) : 0
    }

    set sourcePort(port: number) {
      const at = i32[this.d + TRANSPORT]
      if (at !== 0 && this.#hasPorts()) this.#setPort(at, port)
    }

    get destinationPort(): number {
      const at = i32[this.d + TRANSPORT]
      return at !== 0 && this.#hasPorts() ? view.getUint16(at + 2) : 0
    }

    set destinationPort(port: number) {
      const at = i32[this.d + TRANSPORT]
      if (at !== 0 && this.#hasPorts()) this.#setPort(at + 2, port)
    }

    get tcpFlags(): number { return (i32[this.d + META] >>> 8) & 255 }

    get sequence(): number { return this.isTcp ? i32[this.d + SEQUENCE] : 0 }

    get acknowledgement(): number {
      const at = i32[this.d + TRANSPORT]
      return at !== 0 && this.isTcp ? view.getInt32(at + 8) : 0
    }

    get window(): number {
      const at = i32[this.d + TRANSPORT]
      return at !== 0 && this.isTcp ? view.getUint16(at + 14) : 0
    }

    tcpOption(kind: number): number {
      const transport = i32[this.d + TRANSPORT]
      if (transport === 0 || !this.isTcp) return 0
      const end = i32[this.d + PAYLOAD]
      let at = transport + 20
      while (at < end) {
        const found = u8[at]
        if (found === 0) return 0
        if (found === 1) {
          at++
          continue
        }
        if (at + 1 >= end) return 0
        const bytes = u8[at + 1]
        if (bytes < 2 || at + bytes > end) return 0
        if (found === kind) return at + 2
        at += bytes
      }
      return 0
    }

    get icmpType(): number {
      const protocol = this.protocol
      const at = i32[this.d + TRANSPORT]
      return at !== 0 && protocol === (this.isIpv6 ? 58 : 1) ? view.getUint16(at) : -1
    }

    get payloadOffset(): number { return i32[this.d + PAYLOAD] }
    get payloadLength(): number { return i32[this.d + PAYLOAD_LENGTH] }

    payloadByte(index: number): number {
      return index >= 0 && index < i32[this.d + PAYLOAD_LENGTH] ? u8[i32[this.d + PAYLOAD] + index] : 0
    }

    setPayloadByte(index: number, value: number): void {
      if (!(index >= 0 && index < i32[this.d + PAYLOAD_LENGTH])) return
      const payload = i32[this.d + PAYLOAD]
      const transport = i32[this.d + TRANSPORT]
      const at = payload + index
      const field = this.#checksumField()
      if (field === 0) {
        u8[at] = value
        return
      }
      // The word of the checksum that covers this byte: words count from the layer-4 header.
      const odd = (at - transport) & 1
      const before = odd !== 0 ? u8[at] : u8[at] << 8
      u8[at] = value
      const after = odd !== 0 ? u8[at] : u8[at] << 8
      this.#updateTransportChecksum16(field, before, after)
    }

    overwritePayload(index: number, offset: number, length: number): void {
      const room = i32[this.d + PAYLOAD_LENGTH] - index
      if (length > room) length = room
      for (let i = 0; i < length; i++) this.setPayloadByte(index + i, u8[offset + i])
    }

    get frameOffset(): number { return i32[this.d + FRAME] }
    get frameLength(): number { return i32[this.d + LENGTH] }
    get networkOffset(): number { return i32[this.d + NETWORK] }
    get transportOffset(): number { return i32[this.d + TRANSPORT] }

    #hasPorts(): boolean {
      const protocol = i32[this.d + META] & 255
      return protocol === 6 || protocol === 17
    }

    /** Where the checksum that covers the payload and pseudo-header is; 0 if there is none. */
    #checksumField(): number {
      const transport = i32[this.d + TRANSPORT]
      if (transport === 0) return 0
      const end = i32[this.d + PAYLOAD]
      switch (i32[this.d + META] & 255) {
        case 6: return transport + 16
        case 17: return view.getUint16(transport + 6) === 0 && !this.isIpv6 ? 0 : transport + 6
        case 1: case 58: return end - transport >= 4 ? transport + 2 : 0
        default: return 0
      }
    }

    #updateTransportChecksum16(field: number, before: number, after: number): void {
      this.#storeChecksum(field, updateChecksum16(view.getUint16(field), before, after))
    }

    /** A UDP checksum that comes out as 0 is sent as 0xffff (RFC 768). */
    #storeChecksum(field: number, checksum: number): void {
      view.setUint16(field, checksum === 0 && (i32[this.d + META] & 255) === 17 ? 0xffff : checksum)
    }

    #setAddressWord(at: number, word: number): void {
      const before = view.getInt32(at)
      if (before === word) return
      view.setInt32(at, word)
      const network = i32[this.d + NETWORK]
      if (!this.isIpv6) {
        view.setUint16(network + 10, updateChecksum32(view.getUint16(network + 10), before, word))
        // ICMPv4 has no pseudo-header.
        if ((i32[this.d + META] & 255) === 1) return
      }
      const field = this.#checksumField()
      if (field !== 0) this.#storeChecksum(field, updateChecksum32(view.getUint16(field), before, word))
    }

    #setPort(at: number, port: number): void {
      const before = view.getUint16(at)
      view.setUint16(at, port)
      const field = this.#checksumField()
      if (field !== 0) this.#updateTransportChecksum16(field, before, port & 0xffff)
    }
  }

  return PacketView
}
