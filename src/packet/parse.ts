/**
 * Parser: from a frame to its flow key, once per packet.
 *
 * `parse(descriptor)` reads the headers of one frame and fills the descriptor: where the headers and the payload are, the
 * canonical flow key with the direction, and its hash. The common case, Ethernet with IPv4 or IPv6 and TCP or UDP, runs straight
 * through; VLAN tags, PPPoE, other link types, options, extension headers, fragments and ICMP take the slower branches.
 *
 * Every length is checked here, against the frame and against the headers' own length fields, so that nothing behind the
 * parser has to check again: whatever the descriptor says is inside the frame. A malformed packet gives a drop reason,
 * never an exception.
 *
 *     result >= 0   what kind of packet it is, see {@link ParseResult}
 *     result <  0   drop it: reason number `-1 - result`
 *
 * For first fragments the word `nextHeld`, which only means something while a packet is held, tells the fragment tracker where the
 * fragmentable part starts.
 */

import type { Arena } from '../memory/arena.ts'
import { DropReason } from './drop-reason.ts'
import { Descriptor, Meta } from './descriptor.ts'
import { hashKey4, hashKey6 } from '../flow/flow-hash.ts'
import { EtherType, isVlanTag, PppProtocol } from '../wire/ethernet.ts'
import { linkPayload } from '../wire/link-type.ts'
import { IPV4_MORE_FRAGMENTS, IPV4_OFFSET_MASK, IpProtocol } from '../wire/ipv4.ts'
import { IPV6_BYTES, IPV6_EXTENSIONS_MAX, isIpv6Extension } from '../wire/ipv6.ts'
import { hasIcmpIdentifier, hasIcmpv6Identifier, isIcmpError, isIcmpv6Error } from '../wire/icmp.ts'

/** Kinds of packet that the parser tells apart. */
export const ParseResult = {
  /** A packet of a flow: key and hash are ready. */
  flow: 0,
  /** The first fragment of a datagram: key and hash are ready, later fragments will ask for them. */
  firstFragment: 1,
  /** A later fragment: only addresses, protocol and identification are known. `hash` is that of the datagram. */
  laterFragment: 2,
  /** An ICMP error: key and hash are those of the flow it quotes. */
  related: 3,
  /** Not IP: no flow. */
  pass: 4,
} as const

/** The result word for a drop. */
export const dropResult = (reason: number): number => -1 - reason
/** The drop reason of a negative result word. */
export const dropReasonOf = (result: number): number => -1 - result

// PERF: module constants fold, imported ones do not (see descriptor.ts).
const FRAME = Descriptor.frame
const LENGTH = Descriptor.length
const NETWORK = Descriptor.network
const TRANSPORT = Descriptor.transport
const PAYLOAD = Descriptor.payload
const PAYLOAD_LENGTH = Descriptor.payloadLength
const META = Descriptor.meta
const RESULT = Descriptor.result
const HASH = Descriptor.hash
const KEY = Descriptor.key
const WIRE_LENGTH = Descriptor.wireLength
const LINK_TYPE = Descriptor.linkType
const SEQUENCE = Descriptor.sequence
const NEXT_HELD = Descriptor.nextHeld
const FROM_B = Meta.fromB
const IPV6 = Meta.ipv6
const FRAGMENT = Meta.fragment
const LATER_FRAGMENT = Meta.laterFragment
const RELATED = Meta.related
const CUT = Meta.cut
const OWN_KEY = Meta.ownKey
const BAD_LINK = dropResult(DropReason['malformed-link'])
const BAD_IPV4 = dropResult(DropReason['malformed-ipv4'])
const BAD_IPV6 = dropResult(DropReason['malformed-ipv6'])
const BAD_TCP = dropResult(DropReason['malformed-tcp'])
const BAD_UDP = dropResult(DropReason['malformed-udp'])
const BAD_ICMP = dropResult(DropReason['malformed-icmp'])
const BAD_FRAGMENT = dropResult(DropReason['malformed-fragment'])
const OWN_ETHERTYPE = dropResult(DropReason['own-ethertype'])
const FLOW = ParseResult.flow
const PASS = ParseResult.pass

export interface Parser {
  /** Parses the frame of one descriptor (its word index) and returns its result word. */
  parse(descriptor: number): number
  /**
   * Replaces the quoted flow's key of a `related` packet by the key of the ICMP message itself (by address pair). Done when
   * there is no such flow.
   */
  useOwnKey(descriptor: number): void
  /** The hash of the key in a descriptor. */
  hashKey(descriptor: number): number
}

/**
 * @param seed secret of the hash
 */
export function createParser(arena: Arena, seed: number): Parser {
  const { i32, u8, view } = arena

  function parse(d: number): number {
    const frame = i32[d + FRAME]
    const length = i32[d + LENGTH]
    let result: number
    if (i32[d + LINK_TYPE] === 1) {
      if (length < 14) result = BAD_LINK
      else {
        const etherType = view.getUint16(frame + 12)
        if (etherType === 0x0800) {
          // PERF: TCP in an IPv4 header of 20 bytes, whole and not a fragment, in one go (bench engine, empty).
          const network = frame + 14
          const total = length >= 54 && u8[network] === 0x45 && u8[network + 9] === 6 &&
            (view.getUint16(network + 6) & 0x3fff) === 0 ? view.getUint16(network + 2) : 0
          const payload = network + 20 + ((u8[network + 32] >>> 4) << 2)
          if (total >= 40 && total <= length - 14 && payload >= network + 40 && payload <= network + total) {
            const ports = view.getInt32(network + 20)
            i32[d + NETWORK] = network
            i32[d + TRANSPORT] = network + 20
            i32[d + PAYLOAD] = payload
            i32[d + PAYLOAD_LENGTH] = network + total - payload
            i32[d + SEQUENCE] = view.getInt32(network + 24)
            result = setKey4(d, 6 | (u8[network + 33] << 8), view.getInt32(network + 12), view.getInt32(network + 16),
              ports >>> 16, ports & 0xffff, 0, 0)
          } else {
            result = parseIpv4(d, network, frame + length, 0, 0)
          }
        } else if (etherType === 0x86dd) result = parseIpv6(d, frame + 14, frame + length, 0, 0)
        else result = parseTagged(d, etherType, frame + 14, frame + length)
      }
    } else {
      result = parseOtherLink(d, frame, length)
    }
    i32[d + RESULT] = result
    return result
  }

  /** VLAN tags, PPPoE and everything that is not plain IP. `network` is what follows the EtherType. */
  function parseTagged(d: number, etherType: number, network: number, end: number): number {
    let vlan = 0
    let tags = 0
    while (isVlanTag(etherType)) {
      if (network + 4 > end || tags >= 8) return BAD_LINK
      const id = view.getUint16(network) & 0xfff
      if (tags === 0) vlan = id
      else if (tags === 1) vlan |= id << 12
      tags++
      etherType = view.getUint16(network + 2)
      network += 4
    }
    let session = 0
    if (etherType === EtherType.pppoeSession) {
      if (network + 8 > end) return BAD_LINK
      if (u8[network] !== 0x11 || u8[network + 1] !== 0) return pass(d, network, end)
      session = view.getUint16(network + 2)
      const protocol = view.getUint16(network + 6)
      if (protocol === PppProtocol.ipv4) etherType = EtherType.ipv4
      else if (protocol === PppProtocol.ipv6) etherType = EtherType.ipv6
      else return pass(d, network, end)
      const pppEnd = network + 4 + view.getUint16(network + 4) + 2
      if (pppEnd < end) end = pppEnd
      network += 8
    } else if (etherType === EtherType.nfactor) {
      return OWN_ETHERTYPE
    }
    if (etherType === EtherType.ipv4) return parseIpv4(d, network, end, vlan, session)
    if (etherType === EtherType.ipv6) return parseIpv6(d, network, end, vlan, session)
    return pass(d, network, end)
  }

  function parseOtherLink(d: number, frame: number, length: number): number {
    const found = linkPayload(u8, frame, length, i32[d + LINK_TYPE])
    if (found === 0) return length < 4 ? BAD_LINK : pass(d, frame, frame + length)
    return parseTagged(d, found >>> 16, frame + (found & 0xffff), frame + length)
  }

  function pass(d: number, network: number, end: number): number {
    i32[d + NETWORK] = network
    i32[d + TRANSPORT] = 0
    i32[d + PAYLOAD] = network
    i32[d + PAYLOAD_LENGTH] = end > network ? end - network : 0
    i32[d + META] = 0
    return PASS
  }

  function parseIpv4(d: number, network: number, end: number, vlan: number, session: number): number {
    if (end - network < 20) return BAD_IPV4
    const first = u8[network]
    const headerBytes = (first & 15) << 2
    const total = view.getUint16(network + 2)
    if (first >>> 4 !== 4 || headerBytes < 20 || network + headerBytes > end) return BAD_IPV4
    let meta = u8[network + 9]
    if (network + total < end) {
      if (total >= headerBytes) end = network + total
      // A total length of 0 is a segment that the sender's card was to cut up: its length is the frame's.
      else if (total !== 0) return BAD_IPV4
    } else if (network + total > end) {
      if (i32[d + WIRE_LENGTH] <= i32[d + LENGTH]) return BAD_IPV4
      meta |= CUT
    }
    i32[d + NETWORK] = network
    const fragment = view.getUint16(network + 6)
    if ((fragment & (IPV4_MORE_FRAGMENTS | IPV4_OFFSET_MASK)) !== 0) {
      return parseIpv4Fragment(d, network, headerBytes, end, fragment, meta, vlan, session)
    }
    return parseTransport4(d, network, network + headerBytes, end, meta, vlan, session)
  }

  function parseTransport4(d: number, network: number, transport: number, end: number, meta: number, vlan: number,
      session: number): number {
    const source = view.getInt32(network + 12)
    const destination = view.getInt32(network + 16)
    const protocol = meta & 255
    let sourcePort = 0
    let destinationPort = 0
    let payload = transport
    if (protocol === 6) {
      if (end - transport < 20) return tooShort(meta, BAD_TCP)
      const word = view.getInt32(transport)
      sourcePort = word >>> 16
      destinationPort = word & 0xffff
      payload = transport + ((u8[transport + 12] >>> 4) << 2)
      if (payload < transport + 20 || payload > end) return tooShort(meta, BAD_TCP)
      meta |= u8[transport + 13] << 8
      i32[d + SEQUENCE] = view.getInt32(transport + 4)
    } else if (protocol === 17) {
      if (end - transport < 8) return tooShort(meta, BAD_UDP)
      const word = view.getInt32(transport)
      sourcePort = word >>> 16
      destinationPort = word & 0xffff
      payload = transport + 8
      const udpLength = view.getUint16(transport + 4)
      if (udpLength < 8) {
        if (udpLength !== 0) return BAD_UDP
      } else if (transport + udpLength < end) {
        end = transport + udpLength
      } else if (transport + udpLength > end && (meta & (CUT | FRAGMENT)) === 0) {
        return BAD_UDP
      }
    } else if (protocol === 1) {
      return parseIcmp4(d, network, transport, end, meta, vlan, session)
    }
    i32[d + TRANSPORT] = transport
    i32[d + PAYLOAD] = payload
    i32[d + PAYLOAD_LENGTH] = end - payload
    return setKey4(d, meta, source, destination, sourcePort, destinationPort, vlan, session)
  }

  /** A header that does not fit: in a first fragment it is the fragmentation that is to blame (RFC 1858). */
  function tooShort(meta: number, reason: number): number {
    return (meta & FRAGMENT) !== 0 ? BAD_FRAGMENT : reason
  }

  function setKey4(d: number, meta: number, source: number, destination: number, sourcePort: number,
      destinationPort: number, vlan: number, session: number): number {
    const tag = vlan | (4 << 24)
    const protocol = (meta & 255) | (session << 8)
    const order = (source ^ 0x80000000) - (destination ^ 0x80000000)
    let a = source
    let b = destination
    let ports = (sourcePort << 16) | destinationPort
    if (order > 0 || (order === 0 && sourcePort > destinationPort)) {
      a = destination
      b = source
      ports = (destinationPort << 16) | sourcePort
      meta |= FROM_B
    }
    i32[d + META] = meta
    i32[d + KEY] = tag
    i32[d + KEY + 1] = ports
    i32[d + KEY + 2] = protocol
    i32[d + KEY + 3] = a
    i32[d + KEY + 7] = b
    i32[d + HASH] = hashKey4(seed, tag, ports, protocol, a, b)
    return FLOW
  }

  function parseIpv4Fragment(d: number, network: number, headerBytes: number, end: number, fragment: number,
      meta: number, vlan: number, session: number): number {
    const offset = (fragment & IPV4_OFFSET_MASK) << 3
    const transport = network + headerBytes
    const bytes = end - transport
    meta |= FRAGMENT
    if (bytes <= 0 || offset + bytes > 65535) return BAD_FRAGMENT
    if ((fragment & IPV4_MORE_FRAGMENTS) !== 0 && (bytes & 7) !== 0 && (meta & CUT) === 0) return BAD_FRAGMENT
    if (offset === 0) {
      i32[d + NEXT_HELD] = transport
      const result = parseTransport4(d, network, transport, end, meta, vlan, session)
      return result === FLOW ? ParseResult.firstFragment : result
    }
    i32[d + TRANSPORT] = 0
    i32[d + PAYLOAD] = transport
    i32[d + PAYLOAD_LENGTH] = bytes
    i32[d + META] = meta | LATER_FRAGMENT
    i32[d + SEQUENCE] = offset
    i32[d + KEY] = vlan | (4 << 24)
    i32[d + KEY + 2] = (meta & 255) | (session << 8)
    return ParseResult.laterFragment
  }

  function parseIcmp4(d: number, network: number, transport: number, end: number, meta: number, vlan: number,
      session: number): number {
    if (end - transport < 8) return tooShort(meta, BAD_ICMP)
    const type = u8[transport]
    i32[d + TRANSPORT] = transport
    i32[d + PAYLOAD] = transport + 8
    i32[d + PAYLOAD_LENGTH] = end - transport - 8
    if (isIcmpError(type) && quoted4(d, transport + 8, end, meta, vlan, session)) return ParseResult.related
    const identifier = hasIcmpIdentifier(type) ? view.getUint16(transport + 4) : 0
    return setKey4(d, meta, view.getInt32(network + 12), view.getInt32(network + 16), identifier, identifier, vlan,
      session)
  }

  /**
   * The key of the packet that an ICMP error quotes. The error travels towards the quoted packet's source, so its direction
   * is the opposite one. False when the quote is too short or is not the first fragment.
   */
  function quoted4(d: number, at: number, end: number, meta: number, vlan: number, session: number): boolean {
    if (end - at < 20) return false
    const headerBytes = (u8[at] & 15) << 2
    if (u8[at] >>> 4 !== 4 || headerBytes < 20 || (view.getUint16(at + 6) & IPV4_OFFSET_MASK) !== 0) return false
    const protocol = u8[at + 9]
    const ports = quotedPorts(at + headerBytes, end, protocol, false)
    if (ports < 0) return false
    const source = view.getInt32(at + 12)
    const destination = view.getInt32(at + 16)
    setKey4(d, (meta & ~255) | protocol, source, destination, quotedSourcePort, quotedDestinationPort, vlan, session)
    // The packet itself is ICMP, and goes the other way.
    i32[d + META] = ((i32[d + META] & ~255) ^ FROM_B) | (meta & 255) | RELATED
    return true
  }

  let quotedSourcePort = 0
  let quotedDestinationPort = 0

  function quotedPorts(at: number, end: number, protocol: number, ipv6: boolean): number {
    quotedSourcePort = 0
    quotedDestinationPort = 0
    if (protocol === 6 || protocol === 17) {
      if (end - at < 4) return -1
      quotedSourcePort = view.getUint16(at)
      quotedDestinationPort = view.getUint16(at + 2)
    } else if (protocol === (ipv6 ? 58 : 1)) {
      if (end - at < 8) return -1
      const shared = ipv6 ? hasIcmpv6Identifier(u8[at]) : hasIcmpIdentifier(u8[at])
      if (shared) quotedSourcePort = quotedDestinationPort = view.getUint16(at + 4)
    }
    return 0
  }

  function parseIpv6(d: number, network: number, end: number, vlan: number, session: number): number {
    if (end - network < IPV6_BYTES || u8[network] >>> 4 !== 6) return BAD_IPV6
    const payloadBytes = view.getUint16(network + 4)
    let meta = IPV6
    const stop = network + IPV6_BYTES + payloadBytes
    if (stop < end) {
      // A payload length of 0 is a jumbogram or a segment that the sender's card was to cut up.
      if (payloadBytes !== 0) end = stop
      else if (u8[network + 6] === IpProtocol.noNext) end = stop
    } else if (stop > end) {
      if (i32[d + WIRE_LENGTH] <= i32[d + LENGTH]) return BAD_IPV6
      meta |= CUT
    }
    i32[d + NETWORK] = network
    const next = u8[network + 6]
    if (next === 6 || next === 17) {
      return parseTransport6(d, network, network + IPV6_BYTES, end, meta | next, vlan, session)
    }
    return parseExtensions(d, network, end, meta, vlan, session)
  }

  function parseExtensions(d: number, network: number, end: number, meta: number, vlan: number, session: number): number {
    let next = u8[network + 6]
    let at = network + IPV6_BYTES
    for (let count = 0; ; count++) {
      if (count > IPV6_EXTENSIONS_MAX) return BAD_IPV6
      if (next === IpProtocol.fragment) {
        if (end - at < 8) return BAD_IPV6
        const field = view.getUint16(at + 2)
        next = u8[at]
        const offset = field & 0xfff8
        // An atomic fragment (offset 0, no more) is a whole packet (RFC 6946).
        if (offset !== 0 || (field & 1) !== 0) {
          return parseIpv6Fragment(d, network, at, end, offset, (field & 1) !== 0, next, meta, vlan, session)
        }
        at += 8
      } else if (isIpv6Extension(next)) {
        if (end - at < 8) return (meta & FRAGMENT) !== 0 ? BAD_FRAGMENT : BAD_IPV6
        const bytes = next === IpProtocol.authentication ? (u8[at + 1] + 2) << 2 : (u8[at + 1] + 1) << 3
        if (at + bytes > end) return (meta & FRAGMENT) !== 0 ? BAD_FRAGMENT : BAD_IPV6
        next = u8[at]
        at += bytes
      } else {
        return parseTransport6(d, network, at, end, meta | next, vlan, session)
      }
    }
  }

  function parseIpv6Fragment(d: number, network: number, at: number, end: number, offset: number, more: boolean,
      next: number, meta: number, vlan: number, session: number): number {
    const bytes = end - at - 8
    meta |= FRAGMENT
    // For the fragment tracker: where the fragmentable part starts.
    i32[d + NEXT_HELD] = at + 8
    if (bytes <= 0 || offset + bytes > 65535) return BAD_FRAGMENT
    if (more && (bytes & 7) !== 0 && (meta & CUT) === 0) return BAD_FRAGMENT
    if (offset === 0) {
      // The whole header chain must be in the first fragment (RFC 7112).
      let count = 0
      at += 8
      while (isIpv6Extension(next)) {
        if (++count > IPV6_EXTENSIONS_MAX || end - at < 8) return BAD_FRAGMENT
        const length = next === IpProtocol.authentication ? (u8[at + 1] + 2) << 2 : (u8[at + 1] + 1) << 3
        if (at + length > end) return BAD_FRAGMENT
        next = u8[at]
        at += length
      }
      if (next === IpProtocol.fragment) return BAD_FRAGMENT
      const result = parseTransport6(d, network, at, end, meta | next, vlan, session)
      return result === FLOW ? ParseResult.firstFragment : result
    }
    i32[d + TRANSPORT] = 0
    i32[d + PAYLOAD] = at + 8
    i32[d + PAYLOAD_LENGTH] = bytes
    i32[d + META] = meta | next | LATER_FRAGMENT
    i32[d + SEQUENCE] = offset
    i32[d + KEY] = vlan | (6 << 24)
    i32[d + KEY + 2] = next | (session << 8)
    return ParseResult.laterFragment
  }

  function parseTransport6(d: number, network: number, transport: number, end: number, meta: number, vlan: number,
      session: number): number {
    const protocol = meta & 255
    let sourcePort = 0
    let destinationPort = 0
    let payload = transport
    if (protocol === 6) {
      if (end - transport < 20) return tooShort(meta, BAD_TCP)
      sourcePort = view.getUint16(transport)
      destinationPort = view.getUint16(transport + 2)
      payload = transport + ((u8[transport + 12] >>> 4) << 2)
      if (payload < transport + 20 || payload > end) return tooShort(meta, BAD_TCP)
      meta |= u8[transport + 13] << 8
      i32[d + SEQUENCE] = view.getInt32(transport + 4)
    } else if (protocol === 17) {
      if (end - transport < 8) return tooShort(meta, BAD_UDP)
      sourcePort = view.getUint16(transport)
      destinationPort = view.getUint16(transport + 2)
      payload = transport + 8
      const udpLength = view.getUint16(transport + 4)
      if (udpLength < 8) {
        if (udpLength !== 0) return BAD_UDP
      } else if (transport + udpLength < end) {
        end = transport + udpLength
      } else if (transport + udpLength > end && (meta & (CUT | FRAGMENT)) === 0) {
        return BAD_UDP
      }
    } else if (protocol === 58) {
      if (end - transport < 8) return tooShort(meta, BAD_ICMP)
      const type = u8[transport]
      payload = transport + 8
      if (isIcmpv6Error(type)) {
        i32[d + TRANSPORT] = transport
        i32[d + PAYLOAD] = payload
        i32[d + PAYLOAD_LENGTH] = end - payload
        if (quoted6(d, payload, end, meta, vlan, session)) return ParseResult.related
      } else if (hasIcmpv6Identifier(type)) {
        sourcePort = destinationPort = view.getUint16(transport + 4)
      }
    }
    i32[d + TRANSPORT] = transport
    i32[d + PAYLOAD] = payload
    i32[d + PAYLOAD_LENGTH] = end - payload
    return setKey6(d, meta, network + 8, network + 24, sourcePort, destinationPort, vlan, session)
  }

  function quoted6(d: number, at: number, end: number, meta: number, vlan: number, session: number): boolean {
    if (end - at < IPV6_BYTES || u8[at] >>> 4 !== 6) return false
    let next = u8[at + 6]
    let inner = at + IPV6_BYTES
    for (let count = 0; isIpv6Extension(next) || next === IpProtocol.fragment; count++) {
      if (count > IPV6_EXTENSIONS_MAX || end - inner < 8) return false
      if (next === IpProtocol.fragment && (view.getUint16(inner + 2) & 0xfff8) !== 0) return false
      const bytes = next === IpProtocol.fragment ? 8
        : next === IpProtocol.authentication ? (u8[inner + 1] + 2) << 2 : (u8[inner + 1] + 1) << 3
      next = u8[inner]
      inner += bytes
    }
    if (quotedPorts(inner, end, next, true) < 0) return false
    setKey6(d, (meta & ~255) | next, at + 8, at + 24, quotedSourcePort, quotedDestinationPort, vlan, session)
    i32[d + META] = ((i32[d + META] & ~255) ^ FROM_B) | (meta & 255) | RELATED
    return true
  }

  /** `source` and `destination` are where the addresses lie. */
  function setKey6(d: number, meta: number, source: number, destination: number, sourcePort: number,
      destinationPort: number, vlan: number, session: number): number {
    let order = 0
    for (let i = 0; i < 16 && order === 0; i += 4) order = view.getUint32(source + i) - view.getUint32(destination + i)
    let a = source
    let b = destination
    let ports = (sourcePort << 16) | destinationPort
    if (order > 0 || (order === 0 && sourcePort > destinationPort)) {
      a = destination
      b = source
      ports = (destinationPort << 16) | sourcePort
      meta |= FROM_B
    }
    i32[d + META] = meta
    i32[d + KEY] = vlan | (6 << 24)
    i32[d + KEY + 1] = ports
    i32[d + KEY + 2] = (meta & 255) | (session << 8)
    i32[d + KEY + 3] = view.getInt32(a)
    i32[d + KEY + 4] = view.getInt32(a + 4)
    i32[d + KEY + 5] = view.getInt32(a + 8)
    i32[d + KEY + 6] = view.getInt32(a + 12)
    i32[d + KEY + 7] = view.getInt32(b)
    i32[d + KEY + 8] = view.getInt32(b + 4)
    i32[d + KEY + 9] = view.getInt32(b + 8)
    i32[d + KEY + 10] = view.getInt32(b + 12)
    i32[d + HASH] = hashKey6(seed, i32, d + KEY)
    return FLOW
  }

  function useOwnKey(d: number): void {
    const tag = i32[d + KEY]
    const session = i32[d + KEY + 2] >>> 8
    const network = i32[d + NETWORK]
    const meta = (i32[d + META] & ~(RELATED | FROM_B)) | OWN_KEY
    if ((meta & IPV6) !== 0) setKey6(d, meta, network + 8, network + 24, 0, 0, tag & 0xffffff, session)
    else setKey4(d, meta, view.getInt32(network + 12), view.getInt32(network + 16), 0, 0, tag & 0xffffff, session)
    i32[d + RESULT] = FLOW
  }

  function hashKey(d: number): number {
    if (i32[d + KEY] >>> 24 === 6) return hashKey6(seed, i32, d + KEY)
    return hashKey4(seed, i32[d + KEY], i32[d + KEY + 1], i32[d + KEY + 2], i32[d + KEY + 3], i32[d + KEY + 7])
  }

  return { parse, useOwnKey, hashKey }
}
