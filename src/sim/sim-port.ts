/**
 * Simulated ports and wires. A frame that is sent leaves the node's arena as bytes, travels for a while, and lies in the other port's
 * inbox until that node's turn.
 *
 *     node ─send─▶ wire ─(latency, faults)─▶ inbox ─receive─▶ node
 *
 * A data link is a FIFO without loss and of bounded room, like a shared-memory ring, unless a fault says otherwise; the control
 * network is a network.
 */

import type { Arena } from '../memory/arena.ts'
import { DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import { describeFrame, type PacketPool, SLOT_FRAME_OFFSET } from '../packet/packet-pool.ts'
import type { Port } from '../packet/port.ts'

/** Where a port's frames go. */
export interface Outlet {
  /** Frames on their way and in the inbox at the other end. */
  load: number
  /** Frames that it takes. */
  capacity: number
  send(frame: Uint8Array): void
}

/** Slots that are kept for NFactor's own frames. */
const RESERVE = 64

/** Room for frames on their way: a new piece when one is full; the old one lives as long as a frame in it. */
const CHUNK_BYTES = 65_536
let chunk = new Uint8Array(CHUNK_BYTES)
let chunkWords = new Int32Array(chunk.buffer)
let chunkNext = 0

/** A copy of a frame. PERF: a frame is short, and memory of its own for each costs a tenth of a simulation. */
function copyOut(words: Int32Array, frame: number, length: number): Uint8Array {
  const first = frame >> 2
  const count = ((frame + length + 3) >> 2) - first
  if (chunkNext + count * 4 > CHUNK_BYTES) {
    chunk = new Uint8Array(Math.max(CHUNK_BYTES, count * 4))
    chunkWords = new Int32Array(chunk.buffer)
    chunkNext = 0
  }
  const to = chunkNext >> 2
  for (let i = 0; i < count; i++) chunkWords[to + i] = words[first + i]
  const start = chunkNext + (frame & 3)
  chunkNext += count * 4
  return chunk.subarray(start, start + length)
}

export class SimPort implements Port {
  readonly #arena: Arena
  readonly #outlet: Outlet | ((frame: Uint8Array) => Outlet | undefined)
  #inbox: Uint8Array[] = []
  #taken = 0
  /** The outlets that the frames in the inbox came by, in their order. */
  #from: (Outlet | undefined)[] = []

  constructor(arena: Arena, outlet: Outlet | ((frame: Uint8Array) => Outlet | undefined)) {
    this.#arena = arena
    this.#outlet = outlet
  }

  /** A frame has arrived. */
  arrive(frame: Uint8Array, from?: Outlet): void {
    this.#inbox.push(frame)
    this.#from.push(from)
  }

  get waiting(): number {
    return this.#inbox.length - this.#taken
  }

  /** What is in the inbox is lost. */
  lose(): Uint8Array[] {
    const lost = this.#inbox.slice(this.#taken)
    for (let i = this.#taken; i < this.#from.length; i++) if (this.#from[i] !== undefined) (this.#from[i] as Outlet).load--
    this.#inbox = []
    this.#from = []
    this.#taken = 0
    return lost
  }

  receive(pool: PacketPool, descriptors: number, max: number): number {
    const { i32, u8 } = this.#arena
    let count = 0
    while (count < max && this.#taken < this.#inbox.length) {
      const frame = this.#inbox[this.#taken] as Uint8Array
      const slot = pool.take(frame.length)
      if (slot === 0) break
      const from = this.#from[this.#taken++]
      if (from !== undefined) from.load--
      const d = descriptors + count++ * DESCRIPTOR_WORDS
      u8.set(frame, slot + SLOT_FRAME_OFFSET)
      describeFrame(i32, d, slot, frame.length)
    }
    if (this.#taken === this.#inbox.length && this.#taken > 0) {
      this.#inbox = []
      this.#from = []
      this.#taken = 0
    }
    return count
  }

  send(frame: number, length: number): boolean {
    return this.room > 0 && this.#send(frame, length, 0)
  }

  sendReserved(frame: number, length: number): boolean {
    return this.#send(frame, length, RESERVE)
  }

  #send(frame: number, length: number, reserve: number): boolean {
    const bytes = copyOut(this.#arena.i32, frame, length)
    const outlet = typeof this.#outlet === 'function' ? this.#outlet(bytes) : this.#outlet
    if (outlet === undefined) return true
    if (outlet.load >= outlet.capacity + reserve) return false
    outlet.send(bytes)
    return true
  }

  get room(): number {
    return typeof this.#outlet === 'function' ? 1000 : Math.max(0, this.#outlet.capacity - this.#outlet.load)
  }
}
