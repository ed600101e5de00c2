/**
 * memif sender: puts frames into the ring of one direction, and knows afterwards what the other side has not consumed.
 *
 *     positions:   consumed ≤ published ≤ produced ≤ consumed + size           (descriptors; 16 bits of them are in the ring)
 *                     │ the other side's │ not yet shown │ free
 *
 * Who owns the memory (the client) has the buffers where it put them; a server finds them in the descriptors that the client
 * offers, and checks each. Of every buffer filled a note is kept in memory of our own, so that a peer that dies, or that writes
 * where it should not, cannot spoil what is taken back.
 */

import type { Arena } from '../memory/arena.ts'
import { DESCRIPTOR_WORDS as BATCH_WORDS } from '../packet/descriptor.ts'
import { describeFrame, FRAME_BYTES_MAX, type PacketPool, SLOT_FRAME_OFFSET } from '../packet/packet-pool.ts'
import { loadFrameBytes, type FrameBytes } from './kernels/frame-bytes.ts'
import { PLAIN_FRAME_BYTES, SEGMENT_BYTES_OFFSET } from './link-port.ts'
import {
  DESCRIPTOR_BYTES, DESCRIPTOR_FLAG_NEXT, RING_DESCRIPTORS, RING_FLAG_MASK_INTERRUPT, RING_FLAGS, RING_HEAD, RING_TAIL,
} from './memif-protocol.ts'
import type { SharedRegions } from './shared-regions.ts'
import { signalEvent } from './sys.ts'

/** What both directions know of their ring. */
export interface RingPlace {
  /** Arena offset of the ring, and how many descriptors it has (a power of two). */
  readonly ring: number
  readonly size: number
  /** True for the ring that the client sends on. */
  readonly isS2m: boolean
  /** On the client: arena offset of the first buffer, and the bytes of each. On the server both are 0. */
  readonly buffers: number
  readonly bufferBytes: number
}

/** Words of a note. */
const NOTE_WORDS = 4
const NOTE_OFFSET = 0
const NOTE_BYTES = 1
const NOTE_FLAGS = 2
const NOTE_METADATA = 3
/** Flag in a note, beside DESCRIPTOR_FLAG_NEXT: a frame begins here. */
const NOTE_FIRST = 2
/** Words of a descriptor in the ring. */
const DESCRIPTOR_WORDS = DESCRIPTOR_BYTES >> 2

/** Frames shown to the other side at the latest. */
const PUBLISH_FRAMES = 32

export class MemifSender {
  /** True once the other side has written what cannot be. */
  isBroken = false
  /** Frames sent since the link came up. */
  sentFrames = 0
  readonly #u16: Uint16Array
  readonly #i32: Int32Array
  readonly #bytes: FrameBytes
  readonly #regions: SharedRegions
  readonly #size: number
  readonly #isS2m: boolean
  /** Word index of the first descriptor; buffers of our own, see RingPlace. */
  readonly #descriptors: number
  readonly #buffers: number
  readonly #bufferBytes: number
  readonly #regionBase: number
  readonly #eventFd: number
  readonly #reserved: number
  readonly #mask: number
  readonly #producedAt: number
  readonly #consumedAt: number
  readonly #flagsAt: number
  readonly #consumedBias: number
  /** Positions, 16 bits each. */
  #produced = 0
  #published = 0
  #free = 0
  #offeredBytes = 0
  #unpublishedFrames = 0
  /** Four words per descriptor filled: where, how many bytes, whether a frame begins here and whether it goes on, what segments. */
  readonly #notes: Int32Array
  /** Descriptors filled since the link came up, at most `size`: notes before them mean nothing. */
  #noted = 0
  #takeBackAt = 0
  #takeBackLeft = 0

  constructor(arena: Arena, regions: SharedRegions, place: RingPlace, reserved: number, eventFd: number) {
    const { ring, size, isS2m } = place
    this.#u16 = arena.u16
    this.#i32 = arena.i32
    this.#bytes = loadFrameBytes(arena)
    this.#regions = regions
    this.#size = size
    this.#isS2m = isS2m
    this.#descriptors = (ring + RING_DESCRIPTORS) >> 2
    this.#buffers = place.buffers
    this.#bufferBytes = place.bufferBytes
    this.#regionBase = regions.offsets[0]
    this.#eventFd = eventFd
    this.#reserved = Math.min(reserved, size >> 1)
    this.#mask = size - 1
    this.#flagsAt = (ring + RING_FLAGS) >> 1
    this.#producedAt = (ring + (isS2m ? RING_HEAD : RING_TAIL)) >> 1
    this.#consumedAt = (ring + (isS2m ? RING_TAIL : RING_HEAD)) >> 1
    this.#consumedBias = isS2m ? 0 : size
    this.#notes = new Int32Array(size * NOTE_WORDS)
    Atomics.store(this.#u16, this.#producedAt, 0)
  }

  /** Looks how far the other side is. Returns the descriptors that are free. */
  #refresh(): number {
    const consumed = Atomics.load(this.#u16, this.#consumedAt) - this.#consumedBias
    const used = (this.#produced - consumed) & 0xffff
    // A server's peer that has offered no buffers yet reads as one that has consumed nothing of a full ring.
    if (used > this.#size) {
      this.isBroken = true
      return this.#free = 0
    }
    return this.#free = this.#size - used
  }

  /** Frames of one buffer for which there is room besides the reserve. */
  get room(): number {
    return Math.max(0, this.#refresh() - this.#reserved)
  }

  /** Copies a frame into the ring; false when there is no room, or the buffers are not what they should be. Hot. */
  send(frame: number, length: number, isReserved: boolean, knowsSegments: boolean): boolean {
    const reserve = isReserved ? 0 : this.#reserved
    if (this.#free <= reserve && this.#refresh() <= reserve) return false
    const index = this.#produced & this.#mask
    const at = this.#descriptors + index * DESCRIPTOR_WORDS
    let room = this.#bufferBytes
    let offset = this.#buffers + index * room
    if (room === 0) {
      offset = this.#offered(at)
      if (offset === 0) return false
      room = this.#offeredBytes
    }
    if (length > room) return this.#sendChained(frame, length, reserve, knowsSegments)
    const metadata = knowsSegments && length > PLAIN_FRAME_BYTES && (frame & 1) === 0
      ? this.#u16[(frame + SEGMENT_BYTES_OFFSET) >> 1] : 0
    this.#bytes.copyBytes(offset, frame, length)
    this.#fill(index, at, offset, length, 0, NOTE_FIRST, metadata)
    this.#produced = (this.#produced + 1) & 0xffff
    this.#free--
    this.#sent(1)
    return true
  }

  /** Where the buffer is that a client offers, 0 if that is nowhere; how long it is goes to `#offeredBytes`. Reads each word once. */
  #offered(at: number): number {
    const region = this.#i32[at] >>> 16
    const bytes = this.#i32[at + 1]
    const offset = this.#i32[at + 2]
    const { offsets, lengths, count } = this.#regions
    if (region >= count || bytes <= 0 || offset < 0 || offset > lengths[region] - bytes) {
      this.isBroken = true
      return 0
    }
    this.#offeredBytes = bytes
    return offsets[region] + offset
  }

  #fill(index: number, at: number, offset: number, bytes: number, next: number, first: number, metadata: number): void {
    const i32 = this.#i32
    // A client's descriptors say where its buffers are, region 0; a server leaves that as it found it.
    i32[at] = this.#bufferBytes === 0 ? (i32[at] & ~0xffff) | next : next
    i32[at + 1] = bytes
    if (this.#isS2m) i32[at + 2] = offset - this.#regionBase
    i32[at + 3] = metadata
    const notes = this.#notes
    const note = index * NOTE_WORDS
    notes[note + NOTE_OFFSET] = offset
    notes[note + NOTE_BYTES] = bytes
    notes[note + NOTE_FLAGS] = next | first
    notes[note + NOTE_METADATA] = metadata
  }

  #sendChained(frame: number, length: number, reserve: number, knowsSegments: boolean): boolean {
    const descriptors = this.#descriptors
    const buffers = this.#buffers
    const bufferBytes = this.#bufferBytes
    // How many buffers, before the first is written.
    let needed = 0
    for (let left = length; left > 0; needed++) {
      if (this.#free - reserve <= needed && this.#refresh() - reserve <= needed) return false
      const at = descriptors + ((this.#produced + needed) & this.#mask) * DESCRIPTOR_WORDS
      if (bufferBytes === 0 && this.#offered(at) === 0) return false
      left -= bufferBytes === 0 ? this.#offeredBytes : bufferBytes
    }
    const metadata = knowsSegments && (frame & 1) === 0 ? this.#u16[(frame + SEGMENT_BYTES_OFFSET) >> 1] : 0
    let done = 0
    for (let count = 0; count < needed; count++) {
      const index = (this.#produced + count) & this.#mask
      const at = descriptors + index * DESCRIPTOR_WORDS
      // What a client offers was right before; it can change its mind. Then notes of old frames have been lost for nothing.
      const offset = bufferBytes === 0 ? this.#offered(at) : buffers + index * bufferBytes
      if (offset === 0) break
      const bytes = Math.min(bufferBytes === 0 ? this.#offeredBytes : bufferBytes, length - done)
      this.#bytes.copyBytes(offset, frame + done, bytes)
      done += bytes
      this.#fill(index, at, offset, bytes, count + 1 < needed ? DESCRIPTOR_FLAG_NEXT : 0, count === 0 ? NOTE_FIRST : 0, metadata)
    }
    if (done < length) {
      this.isBroken = true
      this.#noted = Math.min(this.#noted, this.#size - needed)
      return false
    }
    this.#produced = (this.#produced + needed) & 0xffff
    this.#free -= needed
    this.#sent(needed)
    return true
  }

  #sent(buffers: number): void {
    this.sentFrames++
    if (this.#noted <= this.#mask) this.#noted += buffers
    if (++this.#unpublishedFrames >= PUBLISH_FRAMES) this.publish()
  }

  /** Shows the other side what there is, and wakes it if it asked for that. Hot. */
  publish(): void {
    if (this.#published === this.#produced) return
    this.#published = this.#produced
    this.#unpublishedFrames = 0
    Atomics.store(this.#u16, this.#producedAt, this.#produced)
    // The other side first asks to be woken and then looks once more: one of us sees the other.
    if ((Atomics.load(this.#u16, this.#flagsAt) & RING_FLAG_MASK_INTERRUPT) === 0 && this.#eventFd >= 0) signalEvent(this.#eventFd)
  }

  // -- When the other side is gone -----------------------------------------------------------------------------------------

  #note(position: number, word: number): number {
    return this.#notes[(position & this.#mask) * NOTE_WORDS + word]
  }

  /** Frames that the other side has not consumed, as far as it said. */
  get unconsumedFrames(): number {
    const consumed = Atomics.load(this.#u16, this.#consumedAt) - this.#consumedBias
    let left = Math.min((this.#produced - consumed) & 0xffff, this.#noted)
    let frames = 0
    for (; left > 0; left--) if ((this.#note(this.#produced - left, NOTE_FLAGS) & DESCRIPTOR_FLAG_NEXT) === 0) frames++
    return frames
  }

  /**
   * Sets where taking back begins: at the frame with this position (1 is the first that was sent), or as early as the ring still
   * holds frames. Without one: at the first frame that the other side has not consumed.
   *
   * @returns the position of the first frame that will come
   */
  beginTakeBack(position?: number): number {
    const wanted = Math.max(0, this.sentFrames + 1 - Math.max(1, position ?? this.sentFrames + 1 - this.unconsumedFrames))
    const held = Math.min(this.#noted, this.#size)
    let frames = 0
    let buffers = 0
    for (let back = 1; back <= held && frames < wanted; back++) {
      if ((this.#note(this.#produced - back, NOTE_FLAGS) & NOTE_FIRST) === 0) continue
      frames++
      buffers = back
    }
    this.#takeBackAt = (this.#produced - buffers) & 0xffff
    this.#takeBackLeft = frames
    return this.sentFrames + 1 - frames
  }

  /** Frames that are still to be taken back. */
  get takeBackLeft(): number {
    return this.#takeBackLeft
  }

  /** Takes back at most `max` frames, oldest first, as `receive` would. */
  takeBack(pool: PacketPool, descriptors: number, max: number): number {
    const i32 = this.#i32
    let count = 0
    for (; count < max && this.#takeBackLeft > 0; count++) {
      let end = this.#takeBackAt
      let length = 0
      do length += this.#note(end, NOTE_BYTES)
      while ((this.#note(end++, NOTE_FLAGS) & DESCRIPTOR_FLAG_NEXT) !== 0)
      const slot = length <= FRAME_BYTES_MAX ? pool.take(length) : 0
      if (slot === 0) break
      const frame = slot + SLOT_FRAME_OFFSET
      this.#u16[(frame + SEGMENT_BYTES_OFFSET) >> 1] = this.#note(this.#takeBackAt, NOTE_METADATA)
      let done = 0
      for (let at = this.#takeBackAt; at !== end; at++) {
        this.#bytes.copyBytes(frame + done, this.#note(at, NOTE_OFFSET), this.#note(at, NOTE_BYTES))
        done += this.#note(at, NOTE_BYTES)
      }
      const d = descriptors + count * BATCH_WORDS
      describeFrame(i32, d, slot, length)
      this.#takeBackAt = end & 0xffff
      this.#takeBackLeft--
    }
    return count
  }
}
