/**
 * Frames that a router port says of its own: questions for neighbours and answers to theirs (ARP, RFC 826; neighbour discovery, RFC 4861
 * §4.3 and §4.4), echo replies (RFC 792, RFC 4443 §4.2), and that a packet's time is over (RFC 792, RFC 4443 §3.3). Each is made at a
 * place of the caller's, and its length returned.
 */

import { checksumOf, sumBytes } from '../../wire/checksum.ts'
import { ETHERNET_BYTES, ETHERNET_DESTINATION, ETHERNET_SOURCE, ETHERNET_TYPE, EtherType } from '../../wire/ethernet.ts'
import { ICMP_BYTES, ICMP_CHECKSUM, ICMP_TYPE } from '../../wire/icmp.ts'
import {
  IpProtocol, IPV4_BYTES_MIN, IPV4_CHECKSUM, IPV4_DESTINATION, IPV4_PROTOCOL, IPV4_SOURCE, IPV4_TOTAL_LENGTH, IPV4_TTL,
} from '../../wire/ipv4.ts'
import { IPV6_BYTES, IPV6_DESTINATION, IPV6_SOURCE } from '../../wire/ipv6.ts'
import { writeAddress, type IpAddress } from './ip-words.ts'

/** Offsets from the first byte behind the Ethernet header. */
export const Arp = { operation: 6, senderMac: 8, sender: 14, targetMac: 18, target: 24, bytes: 28 } as const
export const ARP_REQUEST = 1
export const ARP_REPLY = 2
/** Hardware type Ethernet, protocol type IPv4, lengths 6 and 4. */
export const ARP_HEAD = [0, 1, 8, 0, 6, 4] as const
export const NEIGHBOUR_SOLICITATION = 135
export const NEIGHBOUR_ADVERTISEMENT = 136
/** Of a solicitation or advertisement, from its ICMP header on: the target, then options of 8 bytes. */
export const NEIGHBOUR_TARGET = 8
export const NEIGHBOUR_OPTIONS = 24
export const OPTION_SOURCE_MAC = 1
export const OPTION_TARGET_MAC = 2
/** Flags of an advertisement: from a router, asked for, in place of what was known. */
const ADVERTISEMENT_FLAGS = 0xe0
const ADVERTISEMENT_SOLICITED = 0x40
const BROADCAST = [255, 255, 255, 255, 255, 255]
const ECHO_REPLY = 0
const ECHO_REPLY_6 = 129
const TIME_EXCEEDED = 11
const TIME_EXCEEDED_6 = 3
const TTL = 64
/** What an ICMP error quotes at most, so that it stays shorter than any link's frame. */
const QUOTED_BYTES = 512

/** Who is at both ends of a frame. */
interface Ends {
  readonly mac: ArrayLike<number>
  readonly to: ArrayLike<number>
}

function writeEthernet(u8: Uint8Array, at: number, { mac, to }: Ends, type: number): number {
  u8.set(to, at + ETHERNET_DESTINATION)
  u8.set(mac, at + ETHERNET_SOURCE)
  u8[at + ETHERNET_TYPE] = type >> 8
  u8[at + ETHERNET_TYPE + 1] = type
  return at + ETHERNET_BYTES
}

/** @param to whom to ask; everybody where it is not known */
export function writeQuestion(u8: Uint8Array, at: number, mac: Uint8Array, own: IpAddress, wanted: IpAddress,
    to: Uint8Array | null): number {
  if (wanted.version === 4) return writeArp(u8, at, ARP_REQUEST, { mac, to: to ?? BROADCAST }, own, wanted, [0, 0, 0, 0, 0, 0])
  const last = wanted.words[3]
  // The solicited-node multicast address, RFC 4291 §2.7.1.
  const group: IpAddress = { version: 6, words: [0xff020000 | 0, 0, 1, 0xff000000 | (last & 0xffffff)] }
  const groupMac = [0x33, 0x33, 0xff, last >>> 16 & 255, last >>> 8 & 255, last & 255]
  return writeNeighbourMessage(u8, at, { mac, to: to ?? groupMac }, NEIGHBOUR_SOLICITATION, 0, own, to === null ? group : wanted, wanted)
}

/** Says which Ethernet address our own address has. */
export function writeAnswer(u8: Uint8Array, at: number, mac: Uint8Array, own: IpAddress, asker: IpAddress, to: Uint8Array,
    isAsked = true): number {
  if (own.version === 4) return writeArp(u8, at, ARP_REPLY, { mac, to }, own, asker, to)
  const flags = isAsked ? ADVERTISEMENT_FLAGS : ADVERTISEMENT_FLAGS & ~ADVERTISEMENT_SOLICITED
  return writeNeighbourMessage(u8, at, { mac, to }, NEIGHBOUR_ADVERTISEMENT, flags, own, asker, own)
}

function writeArp(u8: Uint8Array, at: number, operation: number, ends: Ends, sender: IpAddress, target: IpAddress,
    targetMac: ArrayLike<number>): number {
  const arp = writeEthernet(u8, at, ends, EtherType.arp)
  u8.set(ARP_HEAD, arp)
  u8[arp + Arp.operation] = 0
  u8[arp + Arp.operation + 1] = operation
  u8.set(ends.mac, arp + Arp.senderMac)
  writeAddress(u8, arp + Arp.sender, sender)
  u8.set(targetMac, arp + Arp.targetMac)
  writeAddress(u8, arp + Arp.target, target)
  // The shortest frame that Ethernet has.
  u8.fill(0, arp + Arp.bytes, at + 60)
  return 60
}

function writeNeighbourMessage(u8: Uint8Array, at: number, ends: Ends, type: number, flags: number, from: IpAddress,
    to: IpAddress, target: IpAddress): number {
  const ip = writeEthernet(u8, at, ends, EtherType.ipv6)
  const icmp = ip + IPV6_BYTES
  const length = NEIGHBOUR_OPTIONS + 8
  u8.set([type, 0, 0, 0, flags, 0, 0, 0], icmp)
  writeAddress(u8, icmp + NEIGHBOUR_TARGET, target)
  u8.set([type === NEIGHBOUR_SOLICITATION ? OPTION_SOURCE_MAC : OPTION_TARGET_MAC, 1], icmp + NEIGHBOUR_OPTIONS)
  u8.set(ends.mac, icmp + NEIGHBOUR_OPTIONS + 2)
  writeIpv6(u8, ip, from, to, length, 255)
  return ETHERNET_BYTES + IPV6_BYTES + length
}

/** An IPv6 header in front of an ICMP message whose checksum is still to be computed. */
function writeIpv6(u8: Uint8Array, ip: number, from: IpAddress, to: IpAddress, length: number, hops: number): void {
  u8.set([0x60, 0, 0, 0, length >> 8, length & 255, IpProtocol.icmpv6, hops], ip)
  writeAddress(u8, ip + IPV6_SOURCE, from)
  writeAddress(u8, ip + IPV6_DESTINATION, to)
  writeChecksum(u8, ip + IPV6_BYTES + ICMP_CHECKSUM, icmpv6Sum(u8, ip, ip + IPV6_BYTES, length))
}

/** Sum of an ICMPv6 message and its pseudo-header, RFC 8200 §8.1. */
function icmpv6Sum(u8: Uint8Array, ip: number, icmp: number, length: number): number {
  return sumBytes(u8, ip + IPV6_SOURCE, 32) + length + IpProtocol.icmpv6 + sumBytes(u8, icmp, length)
}

/** True if an ICMPv6 message is as its sender made it. */
export function isIcmpv6Whole(u8: Uint8Array, ip: number, icmp: number, length: number): boolean {
  return checksumOf(icmpv6Sum(u8, ip, icmp, length)) === 0
}

function writeChecksum(u8: Uint8Array, at: number, sum: number): void {
  const checksum = checksumOf(sum)
  u8[at] = checksum >> 8
  u8[at + 1] = checksum
}

function writeIpv4(u8: Uint8Array, ip: number, from: IpAddress, to: IpAddress, length: number): void {
  const total = IPV4_BYTES_MIN + length
  u8.fill(0, ip, ip + IPV4_BYTES_MIN)
  u8[ip] = 0x45
  u8[ip + IPV4_TOTAL_LENGTH] = total >> 8
  u8[ip + IPV4_TOTAL_LENGTH + 1] = total
  u8[ip + IPV4_TTL] = TTL
  u8[ip + IPV4_PROTOCOL] = IpProtocol.icmp
  writeAddress(u8, ip + IPV4_SOURCE, from)
  writeAddress(u8, ip + IPV4_DESTINATION, to)
  writeChecksum(u8, ip + IPV4_CHECKSUM, sumBytes(u8, ip, IPV4_BYTES_MIN))
}

/** Answers an echo request. `icmp`, `length`: the request's message. */
export function writeEchoReply(u8: Uint8Array, at: number, ends: Ends, own: IpAddress, to: IpAddress, icmp: number,
    length: number): number {
  const isIpv4 = own.version === 4
  const ip = writeEthernet(u8, at, ends, isIpv4 ? EtherType.ipv4 : EtherType.ipv6)
  const reply = ip + (isIpv4 ? IPV4_BYTES_MIN : IPV6_BYTES)
  u8.copyWithin(reply, icmp, icmp + length)
  u8[reply + ICMP_TYPE] = isIpv4 ? ECHO_REPLY : ECHO_REPLY_6
  u8.fill(0, reply + ICMP_CHECKSUM, reply + ICMP_CHECKSUM + 2)
  if (isIpv4) {
    writeIpv4(u8, ip, own, to, length)
    writeChecksum(u8, reply + ICMP_CHECKSUM, sumBytes(u8, reply, length))
  } else {
    writeIpv6(u8, ip, own, to, length, TTL)
  }
  return reply + length - at
}

/** Says that a packet has gone through too many routers. `packet`, `length`: that packet, from its IP header on. */
export function writeTimeExceeded(u8: Uint8Array, at: number, ends: Ends, own: IpAddress, to: IpAddress, packet: number,
    length: number): number {
  const isIpv4 = own.version === 4
  const ip = writeEthernet(u8, at, ends, isIpv4 ? EtherType.ipv4 : EtherType.ipv6)
  const icmp = ip + (isIpv4 ? IPV4_BYTES_MIN : IPV6_BYTES)
  const quoted = Math.min(length, QUOTED_BYTES)
  u8.fill(0, icmp, icmp + ICMP_BYTES)
  u8[icmp + ICMP_TYPE] = isIpv4 ? TIME_EXCEEDED : TIME_EXCEEDED_6
  u8.copyWithin(icmp + ICMP_BYTES, packet, packet + quoted)
  const bytes = ICMP_BYTES + quoted
  if (isIpv4) {
    writeIpv4(u8, ip, own, to, bytes)
    writeChecksum(u8, icmp + ICMP_CHECKSUM, sumBytes(u8, icmp, bytes))
  } else {
    writeIpv6(u8, ip, own, to, bytes, TTL)
  }
  return icmp + bytes - at
}
