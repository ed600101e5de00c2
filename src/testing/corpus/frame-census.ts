/**
 * Which frames of a capture belong to which flow, counted apart from the engine.
 *
 * Other tools count a flow's datagrams. NFactor counts its packets, that is frames, and gives a flow two kinds of
 * frames that datagram counts leave out:
 *
 *  - every fragment of a datagram, not the reassembled datagram once: a later fragment belongs to the flow of its first
 *    fragment. One that arrives before its first fragment may be held or be left out, so there is a lower and an
 *    upper count;
 *  - an ICMP or ICMPv6 error that quotes a packet of the flow (RFC 792, RFC 4443 §2.4).
 *
 * The census gives these numbers per flow tuple, beside the datagram count with which it is itself held against the
 * other tools.
 */

import type { CapturedFrame } from './capture-frames.ts'
import { FragmentAssembly, fragmentKey } from './fragment-assembly.ts'
import { directedTuple, flowTuple } from './flow-tuple.ts'
import {
  dissectDatagram, dissectFrame, dissectTcp, IpProtocol, networkOffset, TcpFlag, transportPorts, type Datagram,
} from './frame-dissection.ts'

/** What a capture holds of one TCP or UDP flow tuple. */
export interface CensusEntry {
  /** Whole datagrams, reassembled ones counted once: what other tools call packets. */
  datagrams: number
  /** Frames that name the tuple in their own header, or are later fragments of one that did so before. */
  frames: number
  /** Later fragments that arrived before their first fragment, or after their datagram was complete. */
  earlyFragments: number
  /** ICMP errors that quote the tuple after it was seen. */
  quotes: number
  /** Frames among `frames` whose IP or TCP lengths contradict the frame: the engine may drop them as malformed. */
  malformed: number
  /** VLAN identifier of the outermost tag, or 0, of every frame. */
  readonly vlans: Set<number>
  /** Direction of the opening side, as a directed tuple; null when the capture starts in mid-flow. */
  opener: string | null
}

/** A node may refuse a packet with more extension headers than this (RFC 8504 §5.3). */
const EXTENSION_HEADERS_MAX = 8

export class FrameCensus {
  readonly entries = new Map<string, CensusEntry>()
  /** The directed tuple that each frame belongs to by its own header or its completed datagram; null for others. */
  readonly frameTuples: (string | null)[] = []
  /** Frames with an IP, TCP, UDP or ICMP header that is cut short or whose lengths contradict the frame. */
  malformedFrames = 0
  readonly #assembly = new FragmentAssembly()
  /** Fragments that came before their first fragment, by the datagram they are parts of. */
  readonly #early = new Map<string, number>()
  /** Tuples of datagrams that were put together. */
  readonly #completed = new Map<string, CensusEntry>()

  constructor(frames: readonly CapturedFrame[]) {
    for (const frame of frames) {
      const datagram = dissectFrame(frame)
      if (datagram === null ? networkOffset(frame) !== null : isMalformed(datagram)) this.malformedFrames++
      this.frameTuples.push(datagram === null ? null : this.#count(datagram))
    }
  }

  #count(datagram: Datagram): string | null {
    if (datagram.fragment !== null) return datagram.isCut ? null : this.#countFragment(datagram)
    if (datagram.protocol === IpProtocol.Icmp || datagram.protocol === IpProtocol.Icmpv6) {
      this.#countQuote(datagram)
      return null
    }
    const found = this.#entryOf(datagram, datagram.payload)
    if (found === null) return null
    found.entry.frames++
    found.entry.datagrams++
    if (datagram.protocol === IpProtocol.Tcp) noteOpening(found.entry, found.directed, found.reverse, datagram.payload)
    return found.directed
  }

  #countFragment(datagram: Datagram): string | null {
    const key = fragmentKey(datagram)
    const isFirst = datagram.fragment?.offset === 0
    const header = isFirst ? datagram.payload : this.#assembly.firstPayload(datagram)
    const whole = this.#assembly.add(datagram)
    const found = this.#entryOf(datagram, header ?? new Uint8Array(0))
    if (found === null) {
      // A fragment of a datagram that was complete: a duplicate, or the next datagram with the same identification. A
      // node that remembers the datagram may lead it there.
      const completed = this.#completed.get(key)
      if (completed !== undefined) completed.earlyFragments++
      this.#early.set(key, (this.#early.get(key) ?? 0) + 1)
      // A first fragment too short for a transport header: only the whole datagram names the flow.
      const late = whole === null ? null : this.#entryOf(whole, whole.payload)
      if (late !== null) {
        late.entry.datagrams++
        late.entry.earlyFragments += this.#takeEarly(key)
      }
      return late?.directed ?? null
    }
    found.entry.frames++
    if (isFirst) found.entry.earlyFragments += this.#takeEarly(key)
    if (whole === null) return null
    this.#completed.set(key, found.entry)
    found.entry.datagrams++
    if (datagram.protocol === IpProtocol.Tcp) noteOpening(found.entry, found.directed, found.reverse, whole.payload)
    return found.directed
  }

  #takeEarly(key: string): number {
    const count = this.#early.get(key) ?? 0
    this.#early.delete(key)
    return count
  }

  #countQuote(datagram: Datagram): void {
    const type = datagram.payload[0] ?? 0
    const isError = datagram.protocol === IpProtocol.Icmp ? [3, 4, 5, 11, 12].includes(type) : type < 128
    if (!isError || datagram.payload.length < 8) return
    const quoted = dissectDatagram(datagram.payload.subarray(8))
    if (quoted === null || (quoted.fragment !== null && quoted.fragment.offset > 0)) return
    if (quoted.protocol !== IpProtocol.Tcp && quoted.protocol !== IpProtocol.Udp) return
    // 8 bytes of the transport header must be quoted; they hold the ports of TCP as well.
    const ports = transportPorts(IpProtocol.Udp, quoted.payload)
    if (ports === null) return
    const tuple = flowTuple(quoted.protocol, quoted.source, ports.source, quoted.destination, ports.destination)
    const entry = this.entries.get(tuple)
    if (entry !== undefined) entry.quotes++
  }

  #entryOf(
    datagram: Datagram, header: Uint8Array,
  ): { entry: CensusEntry, directed: string, reverse: string } | null {
    const { protocol, source, destination } = datagram
    if (protocol !== IpProtocol.Tcp && protocol !== IpProtocol.Udp) return null
    const ports = transportPorts(protocol, header)
    if (ports === null) return null
    const tuple = flowTuple(protocol, source, ports.source, destination, ports.destination)
    let entry = this.entries.get(tuple)
    if (entry === undefined) {
      entry = {
        datagrams: 0, frames: 0, earlyFragments: 0, quotes: 0, malformed: 0, vlans: new Set(), opener: null,
      }
      this.entries.set(tuple, entry)
    }
    entry.vlans.add(datagram.vlans[0] ?? 0)
    const isTcpDamaged = protocol === IpProtocol.Tcp && datagram.fragment === null && dissectTcp(header) === null
    if (isTcpDamaged || datagram.isCut) entry.malformed++
    return {
      entry,
      directed: directedTuple(protocol, source, ports.source, destination, ports.destination),
      reverse: directedTuple(protocol, destination, ports.destination, source, ports.source),
    }
  }
}

/** A first SYN names the opener, and so does a first SYN-ACK, from the other side (RFC 9293 §3.5). */
function noteOpening(entry: CensusEntry, directed: string, reverse: string, payload: Uint8Array): void {
  if (entry.datagrams > 1 || entry.opener !== null) return
  const segment = dissectTcp(payload)
  if (segment === null || (segment.flags & TcpFlag.Syn) === 0) return
  entry.opener = (segment.flags & TcpFlag.Ack) === 0 ? directed : reverse
}

/** True when a datagram or fragment cannot be taken at its headers' word. */
function isMalformed(datagram: Datagram): boolean {
  const { protocol, fragment, payload, isCut, extensionCount } = datagram
  if (isCut || extensionCount > EXTENSION_HEADERS_MAX) return true
  // Suspicious are fragments beyond 65,535 bytes, empty ones, ones that end in the middle of an 8-byte unit although
  // more follow (RFC 8200 §4.5), and first ones without the transport header.
  if (fragment !== null) {
    const isShortFirst = fragment.offset === 0 && transportPorts(IpProtocol.Tcp, payload) === null
    const isUneven = fragment.more && payload.length % 8 !== 0
    return payload.length === 0 || fragment.offset + payload.length > 0xffff || isUneven || isShortFirst
  }
  if (protocol === IpProtocol.Tcp) return dissectTcp(payload) === null
  if (protocol === IpProtocol.Icmp || protocol === IpProtocol.Icmpv6) return payload.length < 8
  if (protocol !== IpProtocol.Udp) return false
  const length = ((payload[4] ?? 0) << 8) | (payload[5] ?? 0)
  return payload.length < 8 || length < 8 || length > payload.length
}
