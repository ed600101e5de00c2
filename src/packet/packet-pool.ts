/**
 * Packet pool: the slots that frames lie in.
 *
 *     slot     0            128 (headroom)    130
 *              │ descriptor │ - -             │ frame ...                              slotBytes │
 *
 * A slot's first 128 bytes keep the packet's descriptor while the packet is held. The frame starts at 2 modulo 4, so that the IP
 * and TCP fields behind an Ethernet header are aligned. Two sizes: small slots for ordinary frames, large ones for segments
 * that a card was to cut up (up to 64 KiB and headers). Whoever takes a slot owns it until it is given back.
 */

import type { Arena } from '../memory/arena.ts'
import { Slab } from '../memory/slab.ts'
import { Descriptor } from './descriptor.ts'

/** Where the frame starts in a slot. */
export const SLOT_FRAME_OFFSET = 130

/** Bytes of a small slot: frames up to 1,982 bytes. 33 cache lines, so that headers do not all fall into the same cache sets. */
export const SLOT_BYTES = 2112
/** Bytes of a large slot. */
export const LARGE_SLOT_BYTES = 73728
/** The longest frame that fits a large slot. */
export const FRAME_BYTES_MAX = LARGE_SLOT_BYTES - SLOT_FRAME_OFFSET

// PERF: a property of an imported object is not folded by the compiler.
const FRAME = Descriptor.frame
const LENGTH = Descriptor.length
const WIRE_LENGTH = Descriptor.wireLength
const SLOT = Descriptor.slot
const LINK_TYPE = Descriptor.linkType

/** Fills in the descriptor at word index `d` for an Ethernet frame that has been received, whole, into a slot. Hot. */
export function describeFrame(i32: Int32Array, d: number, slot: number, length: number): void {
  i32[d + FRAME] = slot + SLOT_FRAME_OFFSET
  i32[d + LENGTH] = length
  i32[d + WIRE_LENGTH] = length
  i32[d + SLOT] = slot
  i32[d + LINK_TYPE] = 1
}

export class PacketPool {
  readonly #small: Slab
  readonly #large: Slab
  readonly #largeBase: number

  constructor(arena: Arena, slots: number, largeSlots: number) {
    this.#small = new Slab(arena, 'packets', slots, SLOT_BYTES)
    this.#large = new Slab(arena, 'large packets', largeSlots, LARGE_SLOT_BYTES)
    this.#largeBase = this.#large.base
  }

  /** Takes a slot for a frame of `length` bytes; 0 when there is none or the frame is longer than any slot. */
  take(length: number): number {
    if (length <= SLOT_BYTES - SLOT_FRAME_OFFSET) {
      const slot = this.#small.take()
      if (slot !== 0) return slot
    }
    return length <= FRAME_BYTES_MAX ? this.#large.take() : 0
  }

  give(slot: number): void {
    if (slot >= this.#largeBase) this.#large.give(slot)
    else this.#small.give(slot)
  }

  isLarge(slot: number): boolean {
    return slot >= this.#largeBase
  }

  /** Bytes a frame in this slot may have. */
  capacity(slot: number): number {
    return (this.isLarge(slot) ? LARGE_SLOT_BYTES : SLOT_BYTES) - SLOT_FRAME_OFFSET
  }

  /** Slots taken now. */
  get used(): number {
    return this.#small.used + this.#large.used
  }

  get available(): number {
    return this.#small.available
  }

  get availableLarge(): number {
    return this.#large.available
  }
}
