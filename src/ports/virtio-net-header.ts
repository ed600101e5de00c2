/**
 * The header that the kernel puts before a frame when it has left work to somebody else: a checksum that is not finished, a
 * segment that is still to be cut. And the work itself. For packet sockets (PACKET_VNET_HDR) and TAP devices (IFF_VNET_HDR).
 * And the same where there is no such header (AF_XDP).
 *
 *     0 flags   1 segmentation type   2 bytes of headers   4 bytes of payload per segment   6 checksum start   8 checksum offset
 *
 * 10 bytes, little-endian on the machines that we run on. Source: linux/virtio_net.h, virtio 1.2 §5.1.6.
 */

import type { Arena } from '../memory/arena.ts'
import { checksumOf, foldSum } from '../wire/checksum.ts'
import { ETHERNET_BYTES, ETHERNET_TYPE, EtherType, isVlanTag, VLAN_TAG_BYTES } from '../wire/ethernet.ts'
import { TCP_BYTES_MIN, TCP_CHECKSUM, TCP_DATA_OFFSET, TCP_FLAGS, TcpFlag } from '../wire/tcp.ts'
import { crc32c } from './crc32c.ts'
import type { FrameBytes } from './kernels/frame-bytes.ts'

export const VNET_HEADER_BYTES = 10
export const VNET_FLAGS = 0
export const VNET_SEGMENTATION = 1
export const VNET_HEADERS_BYTES = 2
export const VNET_SEGMENT_BYTES = 4
export const VNET_CHECKSUM_START = 6
export const VNET_CHECKSUM_OFFSET = 8

/** Flag: the checksum field holds the sum of the pseudo header; what comes from the start on is still to be added. */
export const VNET_NEEDS_CHECKSUM = 1

export const Segmentation = { none: 0, tcp4: 1, udpFragments: 3, tcp6: 4, udp: 5, ecn: 0x80 } as const

const PROTOCOL_TCP = 6
const PROTOCOL_UDP = 17
const UDP_CHECKSUM = 6
const IPV4_BYTES_MIN = 20
const IPV6_BYTES = 40
const TRANSPORT_BYTES_MIN = 8

/** Where SCTP has its checksum, which is another one: no other protocol has one there. */
const SCTP_CHECKSUM = 8

/**
 * Finishes a checksum: the Internet checksum, or SCTP's.
 *
 * @param start where the sum begins, and `field` where it goes, both from the start of the frame
 * @returns false if they do not lie in the frame
 */
export function completeChecksum(
  { u8, view }: Arena, bytes: FrameBytes, frame: number, length: number, start: number, field: number,
): boolean {
  if (start < ETHERNET_BYTES || field < start || field + 2 > length) return false
  if (field === start + SCTP_CHECKSUM) {
    if (field + 4 > length) return false
    view.setUint32(frame + field, 0)
    view.setUint32(frame + field, crc32c(u8, frame + start, length - start), true)
    return true
  }
  // The field is part of the sum: it holds the pseudo header's. A zero would mean "no checksum" in UDP.
  const checksum = checksumOf(bytes.sumBytes(frame + start, length - start)) || 0xffff
  u8[frame + field] = checksum >> 8
  u8[frame + field + 1] = checksum
  return true
}

/** Where the headers of a frame are; see `locateTransport` and `locateTcp`. Offsets from the start of the frame. */
export class TcpPlace {
  /** What follows the IP header: 6 is TCP. */
  protocol = 0
  isIpv6 = false
  /** Tags before the IP header. */
  vlanTags = 0
  network = 0
  transport = 0
  /** Behind the TCP header. */
  payload = 0
  /** Behind the last byte of the IP datagram. */
  end = 0
}

/**
 * Finds what follows the IP header of an Ethernet frame, behind VLAN tags and IPv6 extension headers.
 *
 * @returns false if this is no whole IP datagram, or there are not 8 bytes of transport header
 */
export function locateTransport({ u8, view }: Arena, frame: number, length: number, place: TcpPlace): boolean {
  let at = ETHERNET_TYPE
  let tags = 0
  while (at + 2 <= length && isVlanTag(view.getUint16(frame + at)) && tags < 4) {
    at += VLAN_TAG_BYTES
    tags++
  }
  const network = at + 2
  if (network + IPV4_BYTES_MIN + TRANSPORT_BYTES_MIN > length) return false
  const etherType = view.getUint16(frame + at)
  let transport: number
  if (etherType === EtherType.ipv4) {
    transport = network + (u8[frame + network] & 15) * 4
    // Not a fragment: neither "more fragments" nor an offset.
    if (transport < network + IPV4_BYTES_MIN || (view.getUint16(frame + network + 6) & 0x3fff) !== 0) return false
    place.protocol = u8[frame + network + 9]
    place.end = network + view.getUint16(frame + network + 2)
    place.isIpv6 = false
  } else if (etherType === EtherType.ipv6 && network + IPV6_BYTES <= length) {
    transport = network + IPV6_BYTES
    let next = u8[frame + network + 6]
    // Hop-by-hop options, routing, destination options: 8 bytes and more, 8 at a time.
    for (let i = 0; i < 8 && (next === 0 || next === 43 || next === 60) && transport + 8 <= length; i++) {
      next = u8[frame + transport]
      transport += (u8[frame + transport + 1] + 1) * 8
    }
    place.protocol = next
    place.end = network + IPV6_BYTES + view.getUint16(frame + network + 4)
    place.isIpv6 = true
  } else {
    return false
  }
  if (transport + TRANSPORT_BYTES_MIN > place.end || place.end > length) return false
  place.vlanTags = tags
  place.network = network
  place.transport = transport
  return true
}

/** The same for TCP alone. False if this is no whole TCP segment. */
export function locateTcp(arena: Arena, frame: number, length: number, place: TcpPlace): boolean {
  if (!locateTransport(arena, frame, length, place) || place.protocol !== PROTOCOL_TCP) return false
  const { transport } = place
  if (transport + TCP_BYTES_MIN > length) return false
  place.payload = transport + (arena.u8[frame + transport + TCP_DATA_OFFSET] >> 4) * 4
  return place.payload >= transport + TCP_BYTES_MIN && place.payload <= place.end
}

/** Sum of the pseudo header of what `locateTransport` has found, folded (RFC 9293 §3.1, RFC 8200 §8.1). */
export function pseudoHeaderSum(bytes: FrameBytes, frame: number, place: TcpPlace): number {
  const addresses = place.isIpv6 ? bytes.sumBytes(frame + place.network + 8, 32) : bytes.sumBytes(frame + place.network + 12, 8)
  return foldSum(addresses + place.protocol + place.end - place.transport)
}

/**
 * Writes the header for a TCP frame that the kernel or the card is to cut, and makes its checksum an unfinished one.
 *
 * @param header where the 10 bytes go; `frame` is the copy of the frame that leaves
 * @param segmentBytes payload per segment
 */
export function writeSegmentationHeader(
  { u8, view }: Arena, bytes: FrameBytes, header: number, frame: number, place: TcpPlace, segmentBytes: number,
): void {
  const field = frame + place.transport + TCP_CHECKSUM
  const sum = pseudoHeaderSum(bytes, frame, place)
  u8[field] = sum >> 8
  u8[field + 1] = sum
  const congestion = (u8[frame + place.transport + TCP_FLAGS] & TcpFlag.cwr) !== 0 ? Segmentation.ecn : 0
  u8[header + VNET_FLAGS] = VNET_NEEDS_CHECKSUM
  u8[header + VNET_SEGMENTATION] = (place.isIpv6 ? Segmentation.tcp6 : Segmentation.tcp4) | congestion
  view.setUint16(header + VNET_HEADERS_BYTES, place.payload, true)
  view.setUint16(header + VNET_SEGMENT_BYTES, segmentBytes, true)
  view.setUint16(header + VNET_CHECKSUM_START, place.transport, true)
  view.setUint16(header + VNET_CHECKSUM_OFFSET, TCP_CHECKSUM, true)
}

/**
 * Finishes the checksum of a TCP or UDP frame that nobody says of whether it is finished: one that is not holds the sum of the pseudo
 * header. Where a right checksum is the same number, finishing it gives that number again. A wrong one is it in one of 65,536 damaged
 * frames, which pass for unfinished.
 */
export function completeFoundChecksum(arena: Arena, bytes: FrameBytes, frame: number, length: number, place: TcpPlace): void {
  if (!locateTransport(arena, frame, length, place)) return
  const { protocol, transport, end } = place
  if (protocol !== PROTOCOL_TCP && protocol !== PROTOCOL_UDP) return
  const field = transport + (protocol === PROTOCOL_TCP ? TCP_CHECKSUM : UDP_CHECKSUM)
  if (field + 2 > end || arena.view.getUint16(frame + field) !== pseudoHeaderSum(bytes, frame, place)) return
  completeChecksum(arena, bytes, frame, end, transport, field)
}
