/**
 * Memory ports: the two ends of a link inside one arena, for tests and benches. Frames are copied into cells of a ring, and out
 * of them into slots, as a link of shared memory does.
 */

import type { Arena } from '../memory/arena.ts'
import { DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import { describeFrame, type PacketPool, SLOT_FRAME_OFFSET } from '../packet/packet-pool.ts'
import type { Port } from '../packet/port.ts'

export interface MemoryPortOptions {
  /** Frames that a direction holds, a power of two, and how many of them are for NFactor's own messages alone. */
  readonly frames: number
  readonly reserved: number
  readonly frameBytes: number
}

/**
 * Where the frame lies in a cell. PERF: as far from a multiple of 8 as in a slot, for V8 copies shared memory byte by byte
 * between places that are not (bench transport).
 */
const FRAME = 10

class Direction {
  readonly cellBytes: number
  readonly mask: number
  readonly base: number
  head = 0
  tail = 0

  constructor(arena: Arena, { frames, frameBytes }: MemoryPortOptions) {
    this.cellBytes = (frameBytes + FRAME + 63) & ~63
    this.mask = frames - 1
    this.base = arena.allocate('memory port', frames * this.cellBytes)
  }
}

export class MemoryPort implements Port {
  /** Sees each frame that leaves; false loses it on the way. */
  filter: ((frame: number, length: number) => boolean) | null = null
  readonly #arena: Arena
  readonly #out: Direction
  readonly #in: Direction
  readonly #reserved: number

  constructor(arena: Arena, out: Direction, into: Direction, reserved: number) {
    this.#arena = arena
    this.#out = out
    this.#in = into
    this.#reserved = reserved
  }

  receive(pool: PacketPool, descriptors: number, max: number): number {
    const { i32, u8 } = this.#arena
    const ring = this.#in
    let count = 0
    for (; count < max && ring.head !== ring.tail; count++) {
      const cell = ring.base + (ring.head & ring.mask) * ring.cellBytes
      const length = i32[cell >> 2]
      const slot = pool.take(length)
      if (slot === 0) break
      const d = descriptors + count * DESCRIPTOR_WORDS
      const frame = slot + SLOT_FRAME_OFFSET
      u8.copyWithin(frame, cell + FRAME, cell + FRAME + length)
      describeFrame(i32, d, slot, length)
      ring.head++
    }
    return count
  }

  get room(): number {
    return Math.max(0, this.#out.mask + 1 - this.#reserved - (this.#out.tail - this.#out.head))
  }

  send(frame: number, length: number): boolean {
    return this.#out.tail - this.#out.head < this.#out.mask + 1 - this.#reserved && this.#put(frame, length)
  }

  sendReserved(frame: number, length: number): boolean {
    return this.#out.tail - this.#out.head <= this.#out.mask && this.#put(frame, length)
  }

  #put(frame: number, length: number): boolean {
    if (this.filter !== null && !this.filter(frame, length)) return true
    const ring = this.#out
    const cell = ring.base + (ring.tail & ring.mask) * ring.cellBytes
    this.#arena.i32[cell >> 2] = length
    this.#arena.u8.copyWithin(cell + FRAME, frame, frame + length)
    ring.tail++
    return true
  }
}

/** The two ends of a link. */
export function createMemoryPorts(arena: Arena, options: MemoryPortOptions): [MemoryPort, MemoryPort] {
  const there = new Direction(arena, options)
  const back = new Direction(arena, options)
  return [new MemoryPort(arena, there, back, options.reserved), new MemoryPort(arena, back, there, options.reserved)]
}
