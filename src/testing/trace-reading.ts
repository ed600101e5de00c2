/**
 * Trace reading: what the parser makes of the packets of a trace, and what follows from that for where a run may be cut: a
 * fragmented datagram is known to the node that saw its first fragment, so flows do not move in the midst of one.
 */

import { KEY_WORDS } from '../flow/flow-record.ts'
import { Arena } from '../memory/arena.ts'
import { Descriptor, DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import { createParser, ParseResult } from '../packet/parse.ts'
import { ipv6Identification } from '../wire/ipv6.ts'
import type { TestPacket } from './test-runtime.ts'

export interface ReadPacket {
  /** A fragment of this datagram, or an empty text. */
  readonly datagram: string
  /** The flow it belongs to, as far as it shows. */
  readonly flow: string
  /** An ICMP error: it belongs to the flow that it quotes, if that is there. */
  readonly isRelated: boolean
  readonly isSyn: boolean
  readonly time: number
}

/** What the parser makes of the packets. */
export function readTrace(packets: readonly TestPacket[]): ReadPacket[] {
  const arena = new Arena(2 ** 18)
  const { i32, u8, view } = arena
  const { parse } = createParser(arena, 1)
  const frameAt = arena.allocate('frame', 2 ** 17)
  const d = arena.allocate('descriptor', DESCRIPTOR_WORDS * 4) >> 2
  return packets.map(({ frame, linkType = 1, wireLength = 0, time = 0 }) => {
    u8.set(frame, frameAt)
    i32.fill(0, d, d + DESCRIPTOR_WORDS)
    i32[d + Descriptor.frame] = frameAt
    i32[d + Descriptor.length] = frame.length
    i32[d + Descriptor.wireLength] = Math.max(wireLength, frame.length)
    i32[d + Descriptor.linkType] = linkType
    const result = parse(d)
    const isFragment = result === ParseResult.firstFragment || result === ParseResult.laterFragment
    const network = i32[d + Descriptor.network]
    const isIpv4 = i32[d + Descriptor.key] >>> 24 === 4
    const identification = !isFragment ? 0 : isIpv4 ? view.getUint16(network + 4) : ipv6Identification(view, network, frameAt + frame.length)
    const addresses = isIpv4 ? u8.subarray(network + 12, network + 20) : u8.subarray(network + 8, network + 40)
    return {
      datagram: isFragment ? `${identification} ${addresses.join()}` : '',
      flow: i32.subarray(d + Descriptor.key, d + Descriptor.key + KEY_WORDS).join(),
      isRelated: result === ParseResult.related,
      isSyn: (i32[d + Descriptor.meta] & 0x1200) === 0x0200,
      time,
    }
  })
}

/** For each index of a trace: true if a fragmented datagram has fragments on both sides of it. */
export function withinDatagrams(packets: readonly ReadPacket[]): boolean[] {
  const within = new Array<boolean>(packets.length).fill(false)
  const last = new Map<string, number>()
  packets.forEach(({ datagram, time }, index) => {
    if (datagram === '') return
    const before = last.get(datagram)
    // Identifications are used again after a while.
    if (before !== undefined && time - packets[before].time < 120e6) within.fill(true, before + 1, index + 1)
    last.set(datagram, index)
  })
  return within
}

/**
 * The packets from `cut` on that go on with a flow from before: no fragments, ICMP errors, new connections, or flows long
 * silent.
 */
export function goOn(packets: readonly TestPacket[], cut: number): TestPacket[] {
  const seen = new Map<string, number>()
  const read = readTrace(packets)
  return packets.filter((_, index) => {
    const { datagram, flow, isRelated, isSyn, time } = read[index]
    if (datagram !== '' || isRelated) return false
    const last = seen.get(flow)
    if (index >= cut && (isSyn || last === undefined || time - last > 50e6)) return false
    seen.set(flow, time)
    return index >= cut
  })
}
