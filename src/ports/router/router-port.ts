/**
 * Router port: makes the outer side of a switch a router between networks, where without it the switch is a cable. A port around one that
 * leads to an Ethernet: hosts there send to its Ethernet address, and what leaves gets that of the next hop.
 *
 *     in:   for us? ─▶ ARP, neighbour discovery, echo to our own addresses: answered here
 *                   ─▶ IP to others: TTL one less ─▶ switch ─▶ chain
 *     out:  IP: longest prefix ─▶ next hop ─▶ known? ─ yes ─▶ its Ethernet address, ours as the source ─▶ network
 *                                                └─ no ─▶ asked for, the frame waits (bounded)
 *
 * RFC 1812 in as far as a chain between two networks needs it: no routing protocol, no redirects, no ICMP about networks that are not there;
 * both sides have the same MTU; frames with VLAN tags are not routed. Every frame that does not go on is in one of the counts.
 */

import type { Clock, TimeUs } from '../../base/clock.ts'
import type { Arena } from '../../memory/arena.ts'
import { Descriptor, DESCRIPTOR_WORDS } from '../../packet/descriptor.ts'
import { SLOT_BYTES, SLOT_FRAME_OFFSET, type PacketPool } from '../../packet/packet-pool.ts'
import { ETHERNET_BYTES, ETHERNET_DESTINATION, ETHERNET_SOURCE, ETHERNET_TYPE, EtherType, isVlanTag } from '../../wire/ethernet.ts'
import { ICMP_BYTES, ICMP_TYPE } from '../../wire/icmp.ts'
import {
  IpProtocol, IPV4_BYTES_MIN, IPV4_CHECKSUM, IPV4_DESTINATION, IPV4_FRAGMENT, IPV4_PROTOCOL, IPV4_SOURCE, IPV4_TOTAL_LENGTH, IPV4_TTL,
} from '../../wire/ipv4.ts'
import { IPV6_BYTES, IPV6_DESTINATION, IPV6_HOP_LIMIT, IPV6_NEXT_HEADER, IPV6_PAYLOAD_LENGTH, IPV6_SOURCE } from '../../wire/ipv6.ts'
import { SEGMENT_BYTES_OFFSET } from '../link-port.ts'
import { systemClock } from '../system-clock.ts'
import { WrapperPort, type InnerPort } from '../wrapper-port.ts'
import { addressAt, isSameAddress, wordAt, type IpAddress } from './ip-words.ts'
import {
  Arp, ARP_HEAD, ARP_REPLY, ARP_REQUEST, isIcmpv6Whole, NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_OPTIONS, NEIGHBOUR_SOLICITATION, NEIGHBOUR_TARGET,
  OPTION_SOURCE_MAC, OPTION_TARGET_MAC, writeAnswer, writeEchoReply, writeQuestion, writeTimeExceeded,
} from './neighbour-frames.ts'
import { Neighbours, type Neighbour } from './neighbours.ts'
import { fits, type Route, type RouterConfig } from './router-config.ts'

export interface RouterPortOptions<P extends InnerPort> {
  readonly arena: Arena
  readonly inner: P
  readonly config: RouterConfig
  readonly clock?: Clock
}

/** What has become of frames. */
export interface RouterCounts {
  /** Passed on, in and out. */
  in: number
  out: number
  /** Answered here: questions for our addresses, echo requests, packets whose time was over. */
  answered: number
  /** Questions of ours, and answers to them. */
  asked: number
  heard: number
  /** To nobody here: another Ethernet address, multicast, a protocol that is not routed, our own address. */
  notForUs: number
  /** Too short for what they say they are, or a neighbour's message that is not as it must be. */
  malformed: number
  /** Packets out to a network that no route names. */
  noRoute: number
  /** Packets whose next hop did not answer, or that found no room to wait for it. */
  unreachable: number
}

const WORK_US = 100_000
/** Echo requests that are answered at most have so many bytes. */
const ECHO_BYTES_MAX = 1480
const BEFORE = -SEGMENT_BYTES_OFFSET
const ECHO = 8
const ECHO_6 = 128

export class RouterPort<P extends InnerPort = InnerPort> extends WrapperPort<P> {
  readonly counts: RouterCounts = { in: 0, out: 0, answered: 0, asked: 0, heard: 0, notForUs: 0, malformed: 0, noRoute: 0, unreachable: 0 }
  readonly #arena: Arena
  readonly #config: RouterConfig
  readonly #clock: Clock
  readonly #neighbours = new Neighbours()
  /** Where a frame of our own lies, as in a slot. */
  readonly #own: number
  #workAt: TimeUs = 0

  /** @throws CodedError `NF_LIMIT` (no room in the arena) */
  constructor({ arena, inner, config, clock = systemClock }: RouterPortOptions<P>) {
    super(inner)
    this.#arena = arena
    this.#config = config
    this.#clock = clock
    this.#own = arena.allocate('router port', SLOT_BYTES) + SLOT_FRAME_OFFSET
  }

  /** Neighbours that are known or asked for. */
  get neighbours(): number {
    return this.#neighbours.size
  }

  override receive(pool: PacketPool, descriptors: number, max: number): number {
    const came = this.inner.receive(pool, descriptors, max)
    const { i32 } = this.#arena
    let count = 0
    for (let i = 0; i < came; i++) {
      const from = descriptors + i * DESCRIPTOR_WORDS
      if (!this.#goesOn(i32[from + Descriptor.frame], i32[from + Descriptor.length])) {
        pool.give(i32[from + Descriptor.slot])
        continue
      }
      const to = descriptors + count++ * DESCRIPTOR_WORDS
      if (to !== from) i32.copyWithin(to, from, from + DESCRIPTOR_WORDS)
    }
    this.counts.in += count
    return count
  }

  override send(frame: number, length: number): boolean {
    return this.#route(frame, length, false)
  }

  override sendReserved(frame: number, length: number): boolean {
    return this.#route(frame, length, true)
  }

  override maintain(now: TimeUs): void {
    super.maintain(now)
    if (now < this.#workAt) return
    this.#workAt = now + WORK_US
    this.counts.unreachable += this.#neighbours.work(this.#clock.now(), this.#ask)
  }

  // -- In ------------------------------------------------------------------------------------------------------------

  /** True for a packet to others. Hot. */
  #goesOn(frame: number, length: number): boolean {
    const { u8 } = this.#arena
    const { counts } = this
    const ip = frame + ETHERNET_BYTES
    if (length < ETHERNET_BYTES) return this.#refuse('malformed')
    const type = (u8[frame + ETHERNET_TYPE] << 8) | u8[frame + ETHERNET_TYPE + 1]
    if (type === EtherType.arp) return this.#arp(frame, length)
    const isOurs = this.#isOwnMac(frame + ETHERNET_DESTINATION)
    if (type === EtherType.ipv4) {
      if (!isOurs) return this.#refuse('notForUs')
      if (length < ETHERNET_BYTES + IPV4_BYTES_MIN) return this.#refuse('malformed')
      const first = u8[ip + IPV4_DESTINATION]
      if (first >= 224 || first === 127 || first === 0) return this.#refuse('notForUs')
      if (this.#isOwn(4, ip + IPV4_DESTINATION)) return this.#forUs4(frame, length)
      const ttl = u8[ip + IPV4_TTL]
      if (ttl <= 1) return this.#expired(frame, length, 4)
      u8[ip + IPV4_TTL] = ttl - 1
      // RFC 1141: the checksum after the high byte of a word has become one less.
      const sum = ((u8[ip + IPV4_CHECKSUM] << 8) | u8[ip + IPV4_CHECKSUM + 1]) + 0x100
      const checksum = (sum & 0xffff) + (sum >>> 16)
      u8[ip + IPV4_CHECKSUM] = checksum >> 8
      u8[ip + IPV4_CHECKSUM + 1] = checksum
      return true
    }
    if (type === EtherType.ipv6) {
      if (length < ETHERNET_BYTES + IPV6_BYTES) return this.#refuse('malformed')
      if (u8[ip + IPV6_DESTINATION] === 0xff || this.#isOwn(6, ip + IPV6_DESTINATION)) return this.#forUs6(frame, length)
      if (!isOurs) return this.#refuse('notForUs')
      // Addresses of the link itself do not leave it, RFC 4291 §2.5.6.
      if (isLinkLocal(u8, ip + IPV6_DESTINATION) || isLinkLocal(u8, ip + IPV6_SOURCE)) return this.#refuse('notForUs')
      const hops = u8[ip + IPV6_HOP_LIMIT]
      if (hops <= 1) return this.#expired(frame, length, 6)
      u8[ip + IPV6_HOP_LIMIT] = hops - 1
      return true
    }
    counts.notForUs++
    return false
  }

  #refuse(why: 'malformed' | 'notForUs'): false {
    this.counts[why]++
    return false
  }

  #isOwnMac(at: number): boolean {
    const { u8 } = this.#arena
    const { mac } = this.#config
    return u8[at] === mac[0] && u8[at + 1] === mac[1] && u8[at + 2] === mac[2] && u8[at + 3] === mac[3] && u8[at + 4] === mac[4] &&
      u8[at + 5] === mac[5]
  }

  /** True if one of our addresses stands at a place. Hot. */
  #isOwn(version: 4 | 6, at: number): boolean {
    return this.#ownAt(version, at) !== null
  }

  #ownAt(version: 4 | 6, at: number): IpAddress | null {
    const { u8 } = this.#arena
    const { addresses } = this.#config
    for (let i = 0; i < addresses.length; i++) {
      const own = addresses[i]
      const { words } = own
      if (own.version !== version || wordAt(u8, at) !== words[0]) continue
      if (version === 4 || (wordAt(u8, at + 4) === words[1] && wordAt(u8, at + 8) === words[2] && wordAt(u8, at + 12) === words[3])) return own
    }
    return null
  }

  #arp(frame: number, length: number): false {
    const { u8 } = this.#arena
    const arp = frame + ETHERNET_BYTES
    const operation = (u8[arp + Arp.operation] << 8) | u8[arp + Arp.operation + 1]
    if (length < ETHERNET_BYTES + Arp.bytes || ARP_HEAD.some((byte, i) => u8[arp + i] !== byte) ||
      (operation !== ARP_REQUEST && operation !== ARP_REPLY)) return this.#refuse('malformed')
    const own = this.#ownAt(4, arp + Arp.target)
    const sender = addressAt(u8, arp + Arp.sender, 4)
    if (own === null) {
      // Not to us; but who has a new Ethernet address tells everybody.
      const known = this.#neighbours.find(4, sender.words[0], 0, 0, 0)
      if (known === null) return this.#refuse('notForUs')
      if (this.#heard(known, arp + Arp.senderMac)) this.counts.heard++
      return false
    }
    if (!this.#learn(sender, arp + Arp.senderMac)) return false
    if (operation === ARP_REPLY) {
      this.counts.heard++
      return false
    }
    this.counts.answered++
    const mac = u8.slice(arp + Arp.senderMac, arp + Arp.senderMac + 6)
    this.#sendOwn(writeAnswer(u8, this.#own, this.#config.mac, own, sender, mac))
    return false
  }

  /** An IPv4 packet to one of our addresses: echo requests are answered. */
  #forUs4(frame: number, length: number): false {
    const { u8 } = this.#arena
    const ip = frame + ETHERNET_BYTES
    const icmp = ip + (u8[ip] & 15) * 4
    const total = (u8[ip + IPV4_TOTAL_LENGTH] << 8) | u8[ip + IPV4_TOTAL_LENGTH + 1]
    const bytes = ip + total - icmp
    const isFragment = (((u8[ip + IPV4_FRAGMENT] << 8) | u8[ip + IPV4_FRAGMENT + 1]) & 0x3fff) !== 0
    if (u8[ip + IPV4_PROTOCOL] !== IpProtocol.icmp || isFragment) return this.#refuse('notForUs')
    if (icmp < ip + IPV4_BYTES_MIN || bytes < ICMP_BYTES || total > length - ETHERNET_BYTES) return this.#refuse('malformed')
    return this.#echo(frame, 4, icmp, bytes, ECHO, ip + IPV4_SOURCE, ip + IPV4_DESTINATION)
  }

  /** An IPv6 packet to one of our addresses, or to a group: neighbour discovery and echo requests are answered. */
  #forUs6(frame: number, length: number): false {
    const { u8 } = this.#arena
    const ip = frame + ETHERNET_BYTES
    const icmp = ip + IPV6_BYTES
    const bytes = (u8[ip + IPV6_PAYLOAD_LENGTH] << 8) | u8[ip + IPV6_PAYLOAD_LENGTH + 1]
    if (u8[ip + IPV6_NEXT_HEADER] !== IpProtocol.icmpv6) return this.#refuse('notForUs')
    const isWhole = bytes >= ICMP_BYTES && bytes <= length - ETHERNET_BYTES - IPV6_BYTES && isIcmpv6Whole(u8, ip, icmp, bytes)
    if (!isWhole) return this.#refuse('malformed')
    const type = u8[icmp + ICMP_TYPE]
    if (type === NEIGHBOUR_SOLICITATION || type === NEIGHBOUR_ADVERTISEMENT) return this.#neighbourMessage(ip, icmp, bytes, type)
    if (!this.#isOwn(6, ip + IPV6_DESTINATION)) return this.#refuse('notForUs')
    return this.#echo(frame, 6, icmp, bytes, ECHO_6, ip + IPV6_SOURCE, ip + IPV6_DESTINATION)
  }

  #echo(frame: number, version: 4 | 6, icmp: number, bytes: number, request: number, source: number, destination: number): false {
    const { u8 } = this.#arena
    if (u8[icmp + ICMP_TYPE] !== request || bytes > ECHO_BYTES_MAX) return this.#refuse('notForUs')
    const ends = { mac: this.#config.mac, to: u8.slice(frame + ETHERNET_SOURCE, frame + ETHERNET_SOURCE + 6) }
    this.counts.answered++
    this.#sendOwn(writeEchoReply(u8, this.#own, ends, addressAt(u8, destination, version), addressAt(u8, source, version), icmp, bytes))
    return false
  }

  /** RFC 4861 §7.1: what is not as it must be is ignored. */
  #neighbourMessage(ip: number, icmp: number, bytes: number, type: number): false {
    const { u8 } = this.#arena
    if (u8[ip + IPV6_HOP_LIMIT] !== 255 || bytes < NEIGHBOUR_OPTIONS) return this.#refuse('malformed')
    const isQuestion = type === NEIGHBOUR_SOLICITATION
    let mac = 0
    for (let at = icmp + NEIGHBOUR_OPTIONS; at + 8 <= icmp + bytes; at += u8[at + 1] * 8) {
      if (u8[at + 1] === 0) return this.#refuse('malformed')
      if (u8[at] === (isQuestion ? OPTION_SOURCE_MAC : OPTION_TARGET_MAC) && u8[at + 1] === 1) mac = at + 2
    }
    if (!isQuestion) {
      const about = addressAt(u8, icmp + NEIGHBOUR_TARGET, 6)
      const known = this.#neighbours.find(6, about.words[0], about.words[1], about.words[2], about.words[3])
      if (known === null || mac === 0) return this.#refuse('notForUs')
      if (this.#heard(known, mac)) this.counts.heard++
      return false
    }
    const own = this.#ownAt(6, icmp + NEIGHBOUR_TARGET)
    if (own === null) return this.#refuse('notForUs')
    const asker = addressAt(u8, ip + IPV6_SOURCE, 6)
    // Without a source somebody wants to know whether an address is free (RFC 4862 §5.4): it is ours, and everybody is told.
    const isAnybody = asker.words.every((word) => word === 0)
    if (!isAnybody && mac === 0) return this.#refuse('malformed')
    if (!isAnybody && !this.#learn(asker, mac)) return false
    this.counts.answered++
    const to = isAnybody ? Uint8Array.of(0x33, 0x33, 0, 0, 0, 1) : u8.slice(mac, mac + 6)
    const whom: IpAddress = isAnybody ? { version: 6, words: [0xff020000 | 0, 0, 0, 1] } : asker
    this.#sendOwn(writeAnswer(u8, this.#own, this.#config.mac, own, whom, to, !isAnybody))
    return false
  }

  /** A packet that may go no further: its sender is told, unless it is an error itself or comes from nobody in particular. */
  #expired(frame: number, length: number, version: 4 | 6): false {
    const { u8 } = this.#arena
    const ip = frame + ETHERNET_BYTES
    const source = addressAt(u8, ip + (version === 4 ? IPV4_SOURCE : IPV6_SOURCE), version)
    const own = this.#sourceFor(source)
    const protocol = u8[ip + (version === 4 ? IPV4_PROTOCOL : IPV6_NEXT_HEADER)]
    const icmp = ip + (version === 4 ? (u8[ip] & 15) * 4 : IPV6_BYTES)
    const isIcmp = protocol === (version === 4 ? IpProtocol.icmp : IpProtocol.icmpv6)
    const mayBeError = isIcmp && u8[icmp + ICMP_TYPE] !== (version === 4 ? ECHO : ECHO_6)
    if (own === null || mayBeError || source.words.every((word) => word === 0)) return this.#refuse('notForUs')
    const ends = { mac: this.#config.mac, to: u8.slice(frame + ETHERNET_SOURCE, frame + ETHERNET_SOURCE + 6) }
    this.counts.answered++
    this.#sendOwn(writeTimeExceeded(u8, this.#own, ends, own, source, ip, length - ETHERNET_BYTES))
    return false
  }

  // -- Out -----------------------------------------------------------------------------------------------------------

  /** Hot. True for a frame that is on its way, waits, or is counted as one that cannot go on. */
  #route(frame: number, length: number, isReserved: boolean): boolean {
    const { u8 } = this.#arena
    const type = (u8[frame + ETHERNET_TYPE] << 8) | u8[frame + ETHERNET_TYPE + 1]
    const ip = frame + ETHERNET_BYTES
    let version = 4
    let w0 = 0
    let w1 = 0
    let w2 = 0
    let w3 = 0
    if (type === EtherType.ipv4 && length >= ETHERNET_BYTES + IPV4_BYTES_MIN) {
      w0 = wordAt(u8, ip + IPV4_DESTINATION)
    } else if (type === EtherType.ipv6 && length >= ETHERNET_BYTES + IPV6_BYTES) {
      version = 6
      w0 = wordAt(u8, ip + IPV6_DESTINATION)
      w1 = wordAt(u8, ip + IPV6_DESTINATION + 4)
      w2 = wordAt(u8, ip + IPV6_DESTINATION + 8)
      w3 = wordAt(u8, ip + IPV6_DESTINATION + 12)
    } else {
      this.counts[isVlanTag(type) || type === EtherType.arp ? 'notForUs' : 'malformed']++
      return true
    }
    const route = this.#routeTo(version, w0, w1, w2, w3)
    if (route === null) {
      this.counts.noRoute++
      return true
    }
    const { via } = route
    if (via !== null) {
      w0 = via.words[0]
      if (version === 6) {
        w1 = via.words[1]
        w2 = via.words[2]
        w3 = via.words[3]
      }
    }
    const neighbour = this.#neighbours.find(version, w0, w1, w2, w3)
    if (neighbour === null || neighbour.mac === null) {
      return this.#waitFor(version === 4 ? { version, words: [w0] } : { version: 6, words: [w0, w1, w2, w3] }, frame, length)
    }
    return this.#sendTo(neighbour, neighbour.mac, frame, length, isReserved)
  }

  #routeTo(version: number, w0: number, w1: number, w2: number, w3: number): Route | null {
    const { routes } = this.#config
    for (let i = 0; i < routes.length; i++) {
      const route = routes[i]
      const { words, masks } = route
      if (route.version !== version || (w0 & masks[0]) !== words[0]) continue
      if (version === 4) return route
      if ((w1 & masks[1]) === words[1] && (w2 & masks[2]) === words[2] && (w3 & masks[3]) === words[3]) return route
    }
    return null
  }

  #sendTo(neighbour: Neighbour, mac: Uint8Array, frame: number, length: number, isReserved: boolean): boolean {
    const { u8 } = this.#arena
    const own = this.#config.mac
    for (let i = 0; i < 6; i++) {
      u8[frame + ETHERNET_DESTINATION + i] = mac[i]
      u8[frame + ETHERNET_SOURCE + i] = own[i]
    }
    if (!this.#sendInner(frame, length, isReserved)) return false
    neighbour.isUsed = true
    this.counts.out++
    return true
  }

  #sendInner(frame: number, length: number, isReserved: boolean): boolean {
    return isReserved ? this.inner.sendReserved(frame, length) : this.inner.send(frame, length)
  }

  #waitFor(address: IpAddress, frame: number, length: number): true {
    const now = this.#clock.now()
    const { counts } = this
    if (this.#config.addresses.some((own) => isSameAddress(own, address))) {
      counts.notForUs++
      return true
    }
    const neighbour = this.#neighbours.get(address, now)
    if (neighbour === null || length > SLOT_BYTES - SLOT_FRAME_OFFSET ||
      !this.#neighbours.wait(neighbour, this.#arena.u8.slice(frame - BEFORE, frame + length))) counts.unreachable++
    if (neighbour?.questions === 0) this.#neighbours.asked(neighbour, now, this.#ask)
    return true
  }

  readonly #ask = ({ address, mac }: Neighbour): void => {
    const own = this.#sourceFor(address)
    if (own === null) return
    this.counts.asked++
    this.#sendOwn(writeQuestion(this.#arena.u8, this.#own, this.#config.mac, own, address, mac))
  }

  /** Our address in the network of another one, or any of the same IP version. */
  #sourceFor(address: IpAddress): IpAddress | null {
    const { addresses, routes } = this.#config
    const near = routes.find((route) => route.via === null && fits(route, address))
    return addresses.find((own) => own.version === address.version && (near === undefined || fits(near, own))) ??
      addresses.find(({ version }) => version === address.version) ?? null
  }

  // -- Neighbours ----------------------------------------------------------------------------------------------------

  /** Somebody of our networks has said which Ethernet address it has. False if it is none of them, or there is no room for another. */
  #learn(address: IpAddress, mac: number): boolean {
    const isNear = this.#config.routes.some((route) => route.via === null && fits(route, address))
    const isOwn = this.#config.addresses.some((own) => isSameAddress(own, address))
    const neighbour = isNear && !isOwn ? this.#neighbours.get(address, this.#clock.now()) : null
    if (neighbour === null) return this.#refuse('notForUs')
    return this.#heard(neighbour, mac)
  }

  /**
   * @param at where the Ethernet address stands
   * @returns false if that is a group's
   */
  #heard(neighbour: Neighbour, at: number): boolean {
    const { u8 } = this.#arena
    if ((u8[at] & 1) !== 0) return this.#refuse('malformed')
    const mac = u8.slice(at, at + 6)
    for (const bytes of this.#neighbours.heard(neighbour, mac, this.#clock.now())) {
      u8.set(bytes, this.#own - BEFORE)
      if (!this.#sendTo(neighbour, mac, this.#own, bytes.length - BEFORE, false)) this.counts.unreachable++
    }
    return true
  }

  #sendOwn(length: number): void {
    // What is lost for want of room is asked or answered again.
    this.inner.send(this.#own, length)
  }
}

function isLinkLocal(u8: Uint8Array, at: number): boolean {
  return u8[at] === 0xfe && (u8[at + 1] & 0xc0) === 0x80
}
