/**
 * Rejection: the packet that tells a sender that its packet was refused.
 *
 *     TCP segment    RST (RFC 9293 §3.5.2), so that a connection attempt fails at once and not by timeout
 *     other IPv4     ICMP destination unreachable, communication administratively prohibited (RFC 1812 §5.2.7.1)
 *     other IPv6     ICMPv6 destination unreachable, the same (RFC 4443 §3.1)
 *
 * The answer comes from the address that the refused packet was sent to, because a firewall that forwards
 * transparently has no address of its own. An ICMP error quotes as much of the packet as the RFCs allow. There is no
 * answer to a RST, to an ICMP error, to a later fragment, and to what did not come from one host or go to one host
 * (RFC 1122 §3.2.2, RFC 4443 §2.4). Limiting the rate is the caller's work.
 */

import { IpProtocol, TcpFlag, type Packet } from '../../nf/index.ts'
import type { Emitter } from '../../nf/definition.ts'
import type { Arena } from '../../memory/arena.ts'
import { checksumOf, sumBytes } from '../../wire/checksum.ts'
import { isIcmpError, isIcmpv6Error } from '../../wire/icmp.ts'
import * as ip4 from '../../wire/ipv4.ts'
import * as ip6 from '../../wire/ipv6.ts'
import * as tcp from '../../wire/tcp.ts'

/** What was answered. */
export const Answer = { none: 0, tcpReset: 1, icmpProhibited: 2 } as const

const IPV4_BYTES = ip4.IPV4_BYTES_MIN
const IPV6_BYTES = ip6.IPV6_BYTES
const TCP_BYTES = tcp.TCP_BYTES_MIN
const ICMP_BYTES = 8
/** RFC 1812 §4.3.2.3: an ICMP datagram is not longer than this. */
const ICMPV4_DATAGRAM_MAX = 576
/** RFC 4443 §3.1: nor an ICMPv6 packet than the least MTU. */
const ICMPV6_PACKET_MAX = 1280
const HOP_LIMIT = 64
/** Precedence "internetwork control" (RFC 1812 §4.3.2.5). */
const ICMP_DSCP_BYTE = 0xc0
const DONT_FRAGMENT = 0x4000
const ICMPV6_REDIRECT = 137

export class Rejection {
  readonly #arena: Arena
  readonly #emit: Emitter

  constructor(arena: Arena, emit: Emitter) {
    this.#arena = arena
    this.#emit = emit
  }

  /**
   * Sends the answer to a refused packet, if it gets one, towards its sender.
   *
   * @returns one of {@link Answer}: what has been sent
   */
  answer(packet: Packet): number {
    if (!this.#isAnswerable(packet)) return Answer.none
    if (packet.isTcp) return this.#sendReset(packet) ? Answer.tcpReset : Answer.none
    return this.#sendProhibited(packet) ? Answer.icmpProhibited : Answer.none
  }

  #isAnswerable(packet: Packet): boolean {
    if (packet.isRelated || packet.isLaterFragment) return false
    const { u8 } = this.#arena
    const { frameOffset, networkOffset } = packet
    // Behind an Ethernet header: sent to one station.
    if (networkOffset - frameOffset >= 14 && (u8[frameOffset] & 1) !== 0) return false
    const source = packet.sourceWord(0)
    if (packet.isIpv6) {
      if (source >>> 24 === 255 || packet.destinationWord(0) >>> 24 === 255) return false
      if ((source | packet.sourceWord(1) | packet.sourceWord(2) | packet.sourceWord(3)) === 0) return false
      const type = packet.icmpType >> 8
      return type < 0 || !(isIcmpv6Error(type) || type === ICMPV6_REDIRECT || type === 0)
    }
    // Multicast, class E and broadcast are the addresses from 224.0.0.0 on.
    if (source >>> 24 >= 224 || source >>> 24 === 0 || packet.destinationWord(0) >>> 24 >= 224) return false
    return !isIcmpError(packet.icmpType >> 8)
  }

  #sendReset(packet: Packet): boolean {
    const flags = packet.tcpFlags
    const hasAck = (flags & TcpFlag.ack) !== 0
    if ((flags & TcpFlag.rst) !== 0 || packet.transportOffset === 0) return false
    // How long a segment is that comes in fragments is not known.
    if (packet.isFragment && !hasAck) return false
    const length = packet.payloadLength + ((flags >>> 1) & 1) + (flags & 1)
    const headerBytes = packet.isIpv6 ? IPV6_BYTES : IPV4_BYTES
    const direction = 1 - packet.direction
    const frame = this.#emit.frame(packet, headerBytes + TCP_BYTES, direction)
    if (frame === null) return false
    const { u8, view } = this.#arena
    const at = frame.networkOffset + headerBytes
    view.setUint16(at + tcp.TCP_SOURCE_PORT, packet.destinationPort)
    view.setUint16(at + tcp.TCP_DESTINATION_PORT, packet.sourcePort)
    view.setInt32(at + tcp.TCP_SEQUENCE, hasAck ? packet.acknowledgement : 0)
    view.setInt32(at + tcp.TCP_ACKNOWLEDGEMENT, hasAck ? 0 : (packet.sequence + length) | 0)
    u8[at + tcp.TCP_DATA_OFFSET] = TCP_BYTES << 2
    u8[at + tcp.TCP_FLAGS] = hasAck ? TcpFlag.rst : TcpFlag.rst | TcpFlag.ack
    const pseudoHeader = this.#writeIpHeader(packet, frame.networkOffset, IpProtocol.tcp, TCP_BYTES)
    view.setUint16(at + tcp.TCP_CHECKSUM, checksumOf(pseudoHeader + sumBytes(u8, at, TCP_BYTES)))
    this.#emit.send(direction)
    return true
  }

  #sendProhibited(packet: Packet): boolean {
    const { isIpv6 } = packet
    const headerBytes = isIpv6 ? IPV6_BYTES : IPV4_BYTES
    const quoteMax = (isIpv6 ? ICMPV6_PACKET_MAX : ICMPV4_DATAGRAM_MAX) - headerBytes - ICMP_BYTES
    const bytes = ICMP_BYTES + Math.min(this.#packetBytes(packet), quoteMax)
    const direction = 1 - packet.direction
    const frame = this.#emit.frame(packet, headerBytes + bytes, direction)
    if (frame === null) return false
    const { u8, view } = this.#arena
    const at = frame.networkOffset + headerBytes
    u8[at] = isIpv6 ? 1 : 3
    u8[at + 1] = isIpv6 ? 1 : 13
    u8.copyWithin(at + ICMP_BYTES, packet.networkOffset, packet.networkOffset + bytes - ICMP_BYTES)
    const protocol = isIpv6 ? IpProtocol.icmpv6 : IpProtocol.icmp
    const pseudoHeader = this.#writeIpHeader(packet, frame.networkOffset, protocol, bytes)
    view.setUint16(at + 2, checksumOf((isIpv6 ? pseudoHeader : 0) + sumBytes(u8, at, bytes)))
    this.#emit.send(direction)
    return true
  }

  /** Bytes of the packet in memory from its IP header on, without what follows it in the frame. */
  #packetBytes(packet: Packet): number {
    const { view } = this.#arena
    const at = packet.networkOffset
    const captured = packet.frameOffset + packet.frameLength - at
    const stated = packet.isIpv6
      ? view.getUint16(at + ip6.IPV6_PAYLOAD_LENGTH) + IPV6_BYTES
      : view.getUint16(at + ip4.IPV4_TOTAL_LENGTH)
    return stated > IPV4_BYTES && stated < captured ? stated : captured
  }

  /**
   * Writes the IP header of an answer: `packet`'s addresses exchanged.
   * @returns the sum of the pseudo-header (RFC 9293 §3.1, RFC 8200 §8.1)
   */
  #writeIpHeader(packet: Packet, at: number, protocol: number, bytes: number): number {
    const { u8, view } = this.#arena
    if (packet.isIpv6) {
      u8[at] = 0x60
      view.setUint16(at + ip6.IPV6_PAYLOAD_LENGTH, bytes)
      u8[at + ip6.IPV6_NEXT_HEADER] = protocol
      u8[at + ip6.IPV6_HOP_LIMIT] = HOP_LIMIT
      for (let i = 0; i < 4; i++) {
        view.setInt32(at + ip6.IPV6_SOURCE + i * 4, packet.destinationWord(i))
        view.setInt32(at + ip6.IPV6_DESTINATION + i * 4, packet.sourceWord(i))
      }
      return sumBytes(u8, at + ip6.IPV6_SOURCE, 32) + protocol + bytes
    }
    u8[at] = 0x45
    if (protocol === IpProtocol.icmp) u8[at + ip4.IPV4_DSCP] = ICMP_DSCP_BYTE
    view.setUint16(at + ip4.IPV4_TOTAL_LENGTH, IPV4_BYTES + bytes)
    view.setUint16(at + ip4.IPV4_FRAGMENT, DONT_FRAGMENT)
    u8[at + ip4.IPV4_TTL] = HOP_LIMIT
    u8[at + ip4.IPV4_PROTOCOL] = protocol
    view.setInt32(at + ip4.IPV4_SOURCE, packet.destinationWord(0))
    view.setInt32(at + ip4.IPV4_DESTINATION, packet.sourceWord(0))
    view.setUint16(at + ip4.IPV4_CHECKSUM, checksumOf(sumBytes(u8, at, IPV4_BYTES)))
    return sumBytes(u8, at + ip4.IPV4_SOURCE, 8) + protocol + bytes
  }
}
