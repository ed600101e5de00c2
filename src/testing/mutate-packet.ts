/**
 * Damages packets, for tests that bring what no honest sender sends: changed bytes, mostly in headers, and frames cut short.
 */

import type { Random } from '../base/random.ts'
import type { TestPacket } from './test-runtime.ts'

/** A packet with some bytes changed, cut short or repeated; some are left as they are. */
export function mutatePacket(packet: TestPacket, random: Random): TestPacket {
  const frame = packet.frame.slice()
  switch (random.below(6)) {
    case 0: return packet
    case 1: return { ...packet, frame: frame.subarray(0, random.below(frame.length + 1)) }
    case 2: return { ...packet, frame: frame.subarray(0, random.below(frame.length + 1)), wireLength: frame.length }
    default:
      for (let changes = random.between(1, 6); changes > 0; changes--) {
        // Mostly headers: that is where lengths are.
        const at = random.below(random.chance(0.8) ? Math.min(frame.length, 74) : frame.length)
        frame[at] = random.chance(0.3) ? random.pick([0, 1, 0x7f, 0x80, 0xff]) : random.int32()
      }
      return { ...packet, frame }
  }
}
