/**
 * Memory link: two ports joined by a ring in plain memory each way, for benches. A frame is copied in and copied out, as over shared
 * memory between two processes.
 */

import type { Arena } from '../../src/memory/arena.ts'
import { DESCRIPTOR_WORDS } from '../../src/packet/descriptor.ts'
import { describeFrame, type PacketPool, SLOT_FRAME_OFFSET } from '../../src/packet/packet-pool.ts'
import type { Port } from '../../src/packet/port.ts'

const SLOT_BYTES = 2048
/** Of the control network, which carries long frames, as between processes. */
const LONG_SLOT_BYTES = 66_560
const LONG_FRAME_BYTES = 65_024
const RESERVE = 64

/** One direction. */
class Ring {
  readonly slots: number
  readonly slotBytes: number
  readonly words: Int32Array
  readonly lengths: Int32Array
  head = 0
  tail = 0

  constructor(slots: number, slotBytes = SLOT_BYTES) {
    this.slots = slots
    this.slotBytes = slotBytes
    this.words = new Int32Array(slots * slotBytes / 4)
    this.lengths = new Int32Array(slots)
  }

  get free(): number {
    return this.slots - (this.head - this.tail)
  }
}

export class MemoryPort implements Port {
  readonly #arena: Arena
  readonly #in: Ring
  readonly #out: Ring

  constructor(arena: Arena, input: Ring, output: Ring) {
    this.#arena = arena
    this.#in = input
    this.#out = output
  }

  receive(pool: PacketPool, descriptors: number, max: number): number {
    const { i32, u16 } = this.#arena
    const ring = this.#in
    let count = 0
    while (count < max && ring.tail !== ring.head) {
      const index = ring.tail % ring.slots
      const length = ring.lengths[index]
      const slot = pool.take(length)
      if (slot === 0) break
      ring.tail++
      const frame = slot + SLOT_FRAME_OFFSET
      // Frames lie at 2 modulo 4 in the arena, at 0 modulo 4 in the ring, 2 bytes in.
      let from = index * (ring.slotBytes / 4)
      const end = (frame + length + 3) >> 2
      u16[frame >> 1] = ring.words[from] >>> 16
      for (let to = (frame + 2) >> 2; to < end; to++) i32[to] = ring.words[++from]
      const d = descriptors + count++ * DESCRIPTOR_WORDS
      describeFrame(i32, d, slot, length)
    }
    return count
  }

  send(frame: number, length: number): boolean {
    return this.#out.free > RESERVE && this.sendReserved(frame, length)
  }

  sendReserved(frame: number, length: number): boolean {
    const ring = this.#out
    if (ring.free === 0 || length > ring.slotBytes - 4) return false
    const { i32, u16 } = this.#arena
    const index = ring.head++ % ring.slots
    let to = index * (ring.slotBytes / 4)
    const end = (frame + length + 3) >> 2
    ring.words[to] = u16[frame >> 1] << 16
    for (let from = (frame + 2) >> 2; from < end; from++) ring.words[++to] = i32[from]
    ring.lengths[index] = length
    return true
  }

  get room(): number {
    return Math.max(0, this.#out.free - RESERVE)
  }

  /** Frames waiting to be received. */
  get waiting(): number {
    return this.#in.head - this.#in.tail
  }
}

/** Two joined ports, one on each arena. */
export function memoryLink(a: Arena, b: Arena, slots: number): [MemoryPort, MemoryPort] {
  const there = new Ring(slots)
  const back = new Ring(slots)
  return [new MemoryPort(a, back, there), new MemoryPort(b, there, back)]
}

/** A control port with many peers: frames go to the node that their destination address ends with. */
export class MemoryHub {
  readonly #rings = new Map<number, Ring>()

  /** The control port of a node. */
  attach(node: number, arena: Arena, slots: number): Port {
    const ring = new Ring(slots, LONG_SLOT_BYTES)
    const nothing = new Ring(1)
    const inbox = new MemoryPort(arena, ring, nothing)
    const rings = this.#rings
    rings.set(node, ring)
    /** Ends of ours towards the others, by node. */
    const wires: (MemoryPort | undefined)[] = []
    return {
      receive: (pool, descriptors, max) => inbox.receive(pool, descriptors, max),
      send: () => false,
      sendReserved(frame, length) {
        const to = arena.u8[frame + 5] as number
        const target = rings.get(to)
        if (target === undefined) return false
        return (wires[to] ??= new MemoryPort(arena, nothing, target)).sendReserved(frame, length)
      },
      frameBytesTo: () => LONG_FRAME_BYTES,
      room: 1000,
    }
  }
}
