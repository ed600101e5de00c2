/**
 * Packet queue: packets set aside in order, as a list of slots. Each keeps its descriptor in its slot's headroom, as held packets do;
 * the queue owns the slots. Nothing is allocated per packet.
 */

import type { Arena } from '../memory/arena.ts'
import { loadFrameBytes } from '../memory/kernels/frame-bytes.ts'
import { Descriptor, DESCRIPTOR_WORDS } from './descriptor.ts'
import { describeFrame, type PacketPool, SLOT_FRAME_OFFSET } from './packet-pool.ts'

const NEXT = Descriptor.nextHeld
const ARRIVAL = Descriptor.arrival

export class PacketQueue {
  /** Packets in it. */
  count = 0
  #first = 0
  #last = 0
  readonly #i32: Int32Array

  constructor(arena: Arena) {
    this.#i32 = arena.i32
  }

  /**
   * Puts the packet of a descriptor, which lies in a slot, at the end; one that came before those there (a fragment whose datagram
   * was not known) in its place among them.
   */
  push(d: number): void {
    const i32 = this.#i32
    const slot = i32[d + Descriptor.slot]
    if (slot >> 2 !== d) i32.copyWithin(slot >> 2, d, d + DESCRIPTOR_WORDS)
    if (this.#last === 0 || !this.#comesBefore(slot, this.#last)) this.#append(slot)
    else this.#insert(slot)
  }

  #comesBefore(slot: number, other: number): boolean {
    const i32 = this.#i32
    const a = i32[(slot >> 2) + ARRIVAL]
    const b = i32[(other >> 2) + ARRIVAL]
    return a !== 0 && b !== 0 && ((a - b) | 0) < 0
  }

  #insert(slot: number): void {
    const i32 = this.#i32
    let before = 0
    let behind = this.#first
    while (!this.#comesBefore(slot, behind)) {
      before = behind
      behind = i32[(behind >> 2) + NEXT]
    }
    i32[(slot >> 2) + NEXT] = behind
    if (before === 0) this.#first = slot
    else i32[(before >> 2) + NEXT] = slot
    this.count++
  }

  /**
   * Puts a copy of a frame that lies anywhere in the arena at the end.
   *
   * @param from id of the switch that it came from
   * @returns false when the pool has no slot for it
   */
  pushFrame(arena: Arena, pool: PacketPool, frame: number, length: number, from: number): boolean {
    const slot = pool.take(length)
    if (slot === 0) return false
    const i32 = this.#i32
    const d = slot >> 2
    i32.fill(0, d, d + DESCRIPTOR_WORDS)
    loadFrameBytes(arena).copyBytes(slot + SLOT_FRAME_OFFSET, frame, length)
    describeFrame(i32, d, slot, length)
    i32[d + Descriptor.switch] = from
    this.#append(slot)
    return true
  }

  #append(slot: number): void {
    const i32 = this.#i32
    i32[(slot >> 2) + NEXT] = 0
    if (this.#last === 0) this.#first = slot
    else i32[(this.#last >> 2) + NEXT] = slot
    this.#last = slot
    this.count++
  }

  /** Takes the oldest packet: its slot, with the descriptor at its start; 0 when there is none. */
  shift(): number {
    const slot = this.#first
    if (slot === 0) return 0
    this.#first = this.#i32[(slot >> 2) + NEXT]
    if (this.#first === 0) this.#last = 0
    this.count--
    return slot
  }

  /** The oldest packet's slot, left where it is; 0 when there is none. */
  get first(): number {
    return this.#first
  }

  /** Puts all packets of another queue at the end of this one. */
  takeAll(other: PacketQueue): void {
    for (let slot = other.shift(); slot !== 0; slot = other.shift()) this.#append(slot)
  }
}
