/**
 * One end of a link, for tests that look at single frames: a port with an arena, a pool and a place to send from.
 */

import { Arena } from '../memory/arena.ts'
import { Descriptor, DESCRIPTOR_BYTES, DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import { PacketPool } from '../packet/packet-pool.ts'
import type { LinkPort } from './link-port.ts'

export class TestPortEnd<P extends LinkPort> {
  readonly arena = new Arena(48 << 20)
  readonly pool = new PacketPool(this.arena, 256, 8)
  readonly descriptors = this.arena.allocate('batch', 32 * DESCRIPTOR_BYTES) >> 2
  readonly frame = this.arena.allocate('frame', 1 << 17) + 2
  readonly port: P

  constructor(createPort: (arena: Arena) => P) {
    this.port = createPort(this.arena)
  }

  /** Puts bytes where frames are sent from. Returns how many. */
  put(...parts: readonly Uint8Array[]): number {
    let at = this.frame
    for (const part of parts) {
      this.arena.u8.set(part, at)
      at += part.length
    }
    return at - this.frame
  }

  receive(max = 32): Uint8Array[] {
    const { i32, u8 } = this.arena
    const count = this.port.receive(this.pool, this.descriptors, max)
    return Array.from({ length: count }, (_, i) => {
      const d = this.descriptors + i * DESCRIPTOR_WORDS
      this.pool.give(i32[d + Descriptor.slot])
      return u8.slice(i32[d + Descriptor.frame], i32[d + Descriptor.frame] + i32[d + Descriptor.length])
    })
  }

  turn = (): void => {
    this.port.flush()
    this.port.maintain(performance.now() * 1000)
  }
}

export const hex = (text: string): Uint8Array => Buffer.from(text.replaceAll(' ', ''), 'hex')
