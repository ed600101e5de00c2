/**
 * memif receiver: takes frames out of the ring of one direction.
 *
 *     positions:   consumed ≤ taken ≤ produced           (descriptors)
 *                     │ copied, but not yet given back │ the other side's news
 *
 * A copy is made of each frame, so its buffers could be given back at once, and are, unless the owner wants to do that itself
 * (`isReleaseManual`): then the sender can take back what was copied here and perished with this process.
 *
 * Nothing that the other side has written is trusted: every word is read once and checked before it is used.
 */

import type { Arena } from '../memory/arena.ts'
import { DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import { describeFrame, FRAME_BYTES_MAX, type PacketPool, SLOT_FRAME_OFFSET } from '../packet/packet-pool.ts'
import { loadFrameBytes, type FrameBytes } from './kernels/frame-bytes.ts'
import { SEGMENT_BYTES_OFFSET, type PortStatistics } from './link-port.ts'
import {
  DESCRIPTOR_BYTES, DESCRIPTOR_FLAG_NEXT, RING_DESCRIPTORS, RING_FLAG_MASK_INTERRUPT, RING_FLAGS, RING_HEAD, RING_TAIL,
} from './memif-protocol.ts'
import type { RingPlace } from './memif-sender.ts'
import type { SharedRegions } from './shared-regions.ts'

/** Words of a descriptor in the ring. */
const RING_WORDS = DESCRIPTOR_BYTES >> 2

export class MemifReceiver {
  /** True once the other side has written what cannot be. */
  isBroken = false
  /** Position of the last frame taken: 1 is the first since the link came up. Frames that were not right count. */
  receivedFrames = 0
  readonly #arena: Arena
  readonly #bytes: FrameBytes
  readonly #regions: SharedRegions
  readonly #size: number
  readonly #isS2m: boolean
  /** Word index of the first descriptor; buffers of our own, see RingPlace. */
  readonly #descriptors: number
  readonly #buffers: number
  readonly #bufferBytes: number
  readonly #statistics: PortStatistics
  readonly #knowsSegments: boolean
  readonly #mask: number
  readonly #producedAt: number
  readonly #consumedAt: number
  readonly #flagsAt: number
  #taken = 0
  #consumed = 0
  /** With manual release: the position behind each frame taken, and the last frame given back. */
  readonly #ends: Uint16Array | null
  #releasedFrames = 0
  /** What `#locate` and `#chainOf` found. */
  #foundBytes = 0
  #chainBytes = 0

  constructor(
    arena: Arena, regions: SharedRegions, place: RingPlace, isReleaseManual: boolean, knowsSegments: boolean,
    statistics: PortStatistics,
  ) {
    const { ring, size, isS2m } = place
    this.#arena = arena
    this.#bytes = loadFrameBytes(arena)
    this.#regions = regions
    this.#size = size
    this.#isS2m = isS2m
    this.#descriptors = (ring + RING_DESCRIPTORS) >> 2
    this.#buffers = place.buffers
    this.#bufferBytes = place.bufferBytes
    this.#knowsSegments = knowsSegments
    this.#statistics = statistics
    this.#mask = size - 1
    this.#flagsAt = (ring + RING_FLAGS) >> 1
    this.#producedAt = (ring + (isS2m ? RING_HEAD : RING_TAIL)) >> 1
    this.#consumedAt = (ring + (isS2m ? RING_TAIL : RING_HEAD)) >> 1
    this.#ends = isReleaseManual ? new Uint16Array(size) : null
    Atomics.store(arena.u16, this.#flagsAt, RING_FLAG_MASK_INTERRUPT)
    if (place.bufferBytes > 0) this.#offer(0, size)
    Atomics.store(arena.u16, this.#consumedAt, isS2m ? 0 : size)
  }

  /** Writes the descriptors of free buffers, as a client does. */
  #offer(from: number, count: number): void {
    const { i32 } = this.#arena
    const bufferBytes = this.#bufferBytes
    const base = this.#buffers - this.#regions.offsets[0]
    for (let i = 0; i < count; i++) {
      const index = (from + i) & this.#mask
      const at = this.#descriptors + index * RING_WORDS
      i32[at] = 0
      i32[at + 1] = bufferBytes
      i32[at + 2] = base + index * bufferBytes
    }
  }

  /** Descriptors that wait. */
  #countWaiting(): number {
    const waiting = (Atomics.load(this.#arena.u16, this.#producedAt) - this.#taken) & 0xffff
    if (waiting <= this.#size) return waiting
    this.isBroken = true
    return 0
  }

  /** True when buffers that have been copied and not given back are most of the ring. */
  get isCrowded(): boolean {
    return ((this.#taken - this.#consumed) & 0xffff) > this.#size * 0.75
  }

  /** True while frames wait. */
  get hasFrames(): boolean {
    return !this.isBroken && this.#countWaiting() > 0
  }

  /** Where a descriptor's buffer is, 0 if it points nowhere; how many bytes it has goes to `#foundBytes`. */
  #locate(index: number, word: number, at: number): number {
    const { i32 } = this.#arena
    const bufferBytes = this.#bufferBytes
    const bytes = this.#foundBytes = i32[at + 1]
    if (bufferBytes > 0) return bytes > 0 && bytes <= bufferBytes ? this.#buffers + index * bufferBytes : 0
    const region = word >>> 16
    const offset = i32[at + 2]
    const { offsets, lengths, count } = this.#regions
    return region < count && bytes > 0 && offset >= 0 && offset <= lengths[region] - bytes ? offsets[region] + offset : 0
  }

  /** See Port. Hot. */
  receive(pool: PacketPool, descriptors: number, max: number): number {
    let waiting = this.isBroken ? 0 : this.#countWaiting()
    if (waiting === 0) return 0
    const { i32, u16 } = this.#arena
    const ring = this.#descriptors
    let count = 0
    let bytes = 0
    let d = descriptors
    while (count < max && waiting > 0) {
      const index = this.#taken & this.#mask
      const at = ring + index * RING_WORDS
      const word = i32[at]
      let used = 1
      let slot = 0
      let length: number
      if ((word & DESCRIPTOR_FLAG_NEXT) === 0) {
        const buffer = this.#locate(index, word, at)
        length = this.#foundBytes
        if (buffer === 0) {
          this.#statistics.rxInvalid++
        } else if (length > FRAME_BYTES_MAX) {
          this.#statistics.rxOversize++
        } else {
          slot = pool.take(length)
          if (slot === 0) break
          this.#bytes.copyBytes(slot + SLOT_FRAME_OFFSET, buffer, length)
        }
      } else {
        used = this.#chainOf(waiting)
        if (used === 0) break
        length = this.#chainBytes
        if (length <= 0) {
          this.#statistics.rxInvalid++
        } else if (length > FRAME_BYTES_MAX) {
          this.#statistics.rxOversize++
        } else {
          slot = pool.take(length)
          if (slot === 0) break
          if (!this.#copyChain(slot + SLOT_FRAME_OFFSET, length, used)) {
            pool.give(slot)
            slot = 0
            this.#statistics.rxInvalid++
          }
        }
      }
      if (slot !== 0) {
        const frame = slot + SLOT_FRAME_OFFSET
        u16[(frame + SEGMENT_BYTES_OFFSET) >> 1] = this.#knowsSegments ? i32[at + 3] : 0
        describeFrame(i32, d, slot, length)
        d += DESCRIPTOR_WORDS
        bytes += length
        count++
      }
      this.#taken = (this.#taken + used) & 0xffff
      waiting -= used
      if (this.#ends !== null) this.#ends[this.receivedFrames & this.#mask] = this.#taken
      this.receivedFrames++
    }
    this.#statistics.rxFrames += count
    this.#statistics.rxBytes += bytes
    if (this.#ends === null && this.#taken !== this.#consumed) this.#giveBack(this.#taken)
    return count
  }

  /** Descriptors of the frame that is next, 0 while it is not all there; its length goes to `#chainBytes`, -1 if it is not right. */
  #chainOf(waiting: number): number {
    const { i32 } = this.#arena
    const ring = this.#descriptors
    this.#chainBytes = 0
    for (let used = 0; used < waiting; used++) {
      const index = (this.#taken + used) & this.#mask
      const at = ring + index * RING_WORDS
      const word = i32[at]
      if (this.#locate(index, word, at) === 0) this.#chainBytes = -Infinity
      this.#chainBytes += this.#foundBytes
      if ((word & DESCRIPTOR_FLAG_NEXT) === 0) return used + 1
    }
    // A ring full of one frame without an end: it never comes.
    this.#chainBytes = -1
    return waiting > this.#mask ? waiting : 0
  }

  #copyChain(frame: number, length: number, used: number): boolean {
    const { i32 } = this.#arena
    const ring = this.#descriptors
    let done = 0
    for (let i = 0; i < used; i++) {
      const index = (this.#taken + i) & this.#mask
      const at = ring + index * RING_WORDS
      const buffer = this.#locate(index, i32[at], at)
      // The sum was right a moment ago; the other side can change its mind.
      if (buffer === 0 || done + this.#foundBytes > length) return false
      this.#bytes.copyBytes(frame + done, buffer, this.#foundBytes)
      done += this.#foundBytes
      // DPDK, as a client, never clears this flag in the first buffer of a frame: it would chain frames when it comes round again.
      i32[at] &= ~DESCRIPTOR_FLAG_NEXT
    }
    return done === length
  }

  /** Gives buffers back up to a position. */
  #giveBack(to: number): void {
    if (this.#bufferBytes > 0) this.#offer(this.#consumed, (to - this.#consumed) & 0xffff)
    this.#consumed = to
    Atomics.store(this.#arena.u16, this.#consumedAt, this.#isS2m ? to : to + this.#size)
  }

  /** With manual release: gives back the buffers of all frames up to this position (see `receivedFrames`). */
  release(position: number): void {
    if (this.#ends === null || position <= this.#releasedFrames) return
    this.#releasedFrames = Math.min(position, this.receivedFrames)
    this.#giveBack(this.#ends[(this.#releasedFrames - 1) & this.#mask])
  }

  /** Asks the other side to wake us for what comes; false if there is something already. */
  arm(): boolean {
    Atomics.store(this.#arena.u16, this.#flagsAt, 0)
    return !this.hasFrames
  }

  disarm(): void {
    Atomics.store(this.#arena.u16, this.#flagsAt, RING_FLAG_MASK_INTERRUPT)
  }
}
