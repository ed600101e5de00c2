/**
 * Fuzzing of the packet parser, on every link type: whatever it says of a damaged packet lies within the packet, and depends on
 * nothing that lies around it.
 */

import type { Random } from '../../base/random.ts'
import { Arena } from '../../memory/arena.ts'
import { Descriptor as D, DESCRIPTOR_BYTES, DESCRIPTOR_WORDS } from '../../packet/descriptor.ts'
import { createParser, ParseResult } from '../../packet/parse.ts'
import { mutatePacket } from '../mutate-packet.ts'
import { syntheticTraces } from '../synthetic-traces.ts'
import type { TestPacket } from '../test-runtime.ts'
import { mustEqual, type FuzzTarget } from './fuzz-target.ts'

/** Where the frame lies; the same room before and behind it. */
const MARGIN = 64
const FRAME_BYTES_MAX = 65_536

const arena = new Arena(1 << 18)
const { i32, u8 } = arena
const { parse } = createParser(arena, 99)
const frameAt = arena.allocate('frame', MARGIN * 2 + FRAME_BYTES_MAX) + MARGIN + 2
const d = arena.allocate('descriptor', DESCRIPTOR_BYTES) >> 2

/** Headers by link type, for an EtherType. */
const headers: readonly (readonly [linkType: number, header: (etherType: number) => readonly number[]])[] = [
  [0, (type) => [type === 0x0800 ? 2 : 30, 0, 0, 0]],
  [9, (type) => [0xff, 3, 0, type === 0x0800 ? 0x21 : 0x57]],
  [9, (type) => [type === 0x0800 ? 0x21 : 0x57]],
  [50, (type) => [0x0f, 0, type >> 8, type & 255]],
  [12, () => []], [14, () => []], [101, () => []], [228, () => []], [229, () => []],
  [108, (type) => [0, 0, 0, type === 0x0800 ? 2 : 24]],
  [113, (type) => [0, 0, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0, type >> 8, type & 255]],
  [276, (type) => [type >> 8, type & 255, 0, 0, 0, 0, 0, 2, 0, 1, 4, 6, 1, 2, 3, 4, 5, 6, 0, 0]],
]

/** An Ethernet packet as another link type would bring it, or, now and then, as it is. */
export function onAnyLink(random: Random, packet: TestPacket): TestPacket {
  if (packet.frame.length < 14 || random.chance(0.2)) return packet
  const [linkType, header] = random.pick(headers)
  const bytes = header((packet.frame[12] << 8) | packet.frame[13])
  const frame = new Uint8Array(bytes.length + packet.frame.length - 14)
  frame.set(bytes)
  frame.set(packet.frame.subarray(14), bytes.length)
  return { ...packet, frame, linkType: random.chance(0.02) ? random.below(300) : linkType }
}

/** What the parser says of a frame amid garbage: all words of its descriptor, or only the reason to drop it. */
function parsed({ frame, linkType = 1, wireLength = 0 }: TestPacket, random: Random): readonly number[] {
  random.fill(u8.subarray(frameAt - MARGIN, frameAt))
  random.fill(u8.subarray(frameAt + frame.length, frameAt + frame.length + MARGIN))
  u8.set(frame, frameAt)
  i32.fill(0, d, d + DESCRIPTOR_WORDS)
  i32[d + D.frame] = frameAt
  i32[d + D.length] = frame.length
  i32[d + D.wireLength] = Math.max(frame.length, wireLength)
  i32[d + D.linkType] = linkType
  const result = parse(d)
  return result < 0 ? [result] : [...i32.subarray(d, d + DESCRIPTOR_WORDS)]
}

function mustLieInside(words: readonly number[], length: number): void {
  const [network, transport, payload] = [D.network, D.transport, D.payload].map((word) => words[word] - frameAt)
  const isInside = network >= 0 && payload >= network && words[D.payloadLength] >= 0 &&
    payload + words[D.payloadLength] <= length
  const hasTransport = words[D.transport] !== 0 && words[D.result] !== ParseResult.pass
  if (!isInside || (hasTransport && (transport < network || transport > payload))) {
    throw new Error(`headers at ${network}, ${transport}, payload at ${payload}, ${words[D.payloadLength]} bytes, of ${length}`)
  }
}

export const packets: FuzzTarget = {
  name: 'packets',
  about: 'packet headers on every link type: all offsets lie in the packet and depend on nothing around it',
  rounds: 10,
  round(random) {
    for (const trace of syntheticTraces(random.int32())) {
      for (const original of trace.packets) {
        const packet = mutatePacket(onAnyLink(random, original), random)
        if (packet.frame.length > FRAME_BYTES_MAX) continue
        const first = parsed(packet, random)
        mustEqual(parsed(packet, random), first, 'the same packet amid other bytes')
        if (first.length > 1) mustLieInside(first, packet.frame.length)
      }
    }
  },
}
