/**
 * Data link: one data port between a switch and a runtime, with the in-band session on it. PROTOCOL 26.
 *
 * What is sent keeps its order: in-band messages that have been made leave before the next data frame. What is received is split
 * at in-band frames: `receive` gives the data frames before one, `deliver` hands it over, and so on, so that everything before an
 * in-band message has run when it is handled.
 *
 *     from the port:   d d d M d d M M d     receive → d d d, deliver → M, receive → d d, deliver → M M, receive → d
 */

import { assert } from '../base/assert.ts'
import type { TimeUs } from '../base/clock.ts'
import { BATCH_PACKETS } from '../base/limits.ts'
import type { Arena } from '../memory/arena.ts'
import { Descriptor, DESCRIPTOR_BYTES, DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import type { PacketPool } from '../packet/packet-pool.ts'
import type { Port } from '../packet/port.ts'
import { EtherType, ETHERNET_BYTES, ETHERNET_TYPE } from '../wire/ethernet.ts'
import { Stream } from '../transport/frame-header.ts'
import type { MessageChannel } from '../transport/message-channel.ts'
import { Session, type SessionSizes } from '../transport/session.ts'

const FRAME = Descriptor.frame
const LENGTH = Descriptor.length
/** The EtherType of in-band frames as two bytes read as one little-endian number. */
const IN_BAND = (EtherType.nfactor >> 8) | ((EtherType.nfactor & 255) << 8)

export interface DataLinkOptions {
  readonly arena: Arena
  readonly clusterId: number
  readonly self: number
  readonly selfIncarnation: number
  readonly peer: number
  readonly port: Port
  readonly sessions?: Partial<SessionSizes>
  onMessage(offset: number, bytes: number): void
}

export class DataLink {
  readonly peer: number
  readonly session: Session
  readonly #arena: Arena
  readonly #port: Port
  /** Frames from an in-band one on that came together with others: descriptors `first` to `end`. */
  readonly #descriptors: number
  #first = 0
  #end = 0
  #pool: PacketPool | null = null
  #now: TimeUs = 0

  constructor(options: DataLinkOptions) {
    const { arena, clusterId, self, selfIncarnation, peer, sessions } = options
    this.peer = peer
    this.#arena = arena
    this.#port = options.port
    this.#descriptors = arena.allocate('link: frames pending', BATCH_PACKETS * DESCRIPTOR_BYTES) >> 2
    this.session = new Session({ arena, clusterId, self, selfIncarnation, peer, stream: Stream.inBand, sizes: sessions,
      onMessage: (offset, bytes) => { options.onMessage(offset, bytes) } })
  }

  get channel(): MessageChannel {
    return this.session
  }

  /** Which life of the peer the in-band messages are for; 0 for none. Frames already received stay. */
  setPeer(incarnation: number): void {
    this.session.setPeer(incarnation)
  }

  // -- Sending -------------------------------------------------------------------------------------------------------

  /** Sends a data frame behind all in-band messages made before it; false when there is no room for them or for it. Hot. */
  send(frame: number, length: number): boolean {
    if (this.session.hasUnsent) {
      this.session.transmit(this.#port, this.#now)
      if (this.session.hasUnsent) return false
    }
    return this.#port.send(frame, length)
  }

  /** Data frames that `send` would take now. */
  get room(): number {
    return this.#port.room
  }

  /** Sends what the in-band session has to send: once at the end of a turn. */
  transmit(now: TimeUs): void {
    this.#now = now
    this.session.transmit(this.#port, now)
  }

  /** When there is something to do if nothing comes; -Infinity for at once. */
  nextDue(): TimeUs {
    return this.#first < this.#end ? -Infinity : this.session.nextDue()
  }

  // -- Receiving -----------------------------------------------------------------------------------------------------

  /**
   * Takes at most `max` data frames (not more than a batch), up to the next in-band frame, into the descriptors from word index
   * `target` on. Hot.
   */
  receive(pool: PacketPool, target: number, max: number): number {
    assert(max <= BATCH_PACKETS, 'a link is read by the batch')
    if (this.#first < this.#end) return this.#receivePending(target, max)
    const { i32, u16 } = this.#arena
    this.#pool = pool
    const count = this.#port.receive(pool, target, max)
    for (let index = 0, d = target; index < count; index++, d += DESCRIPTOR_WORDS) {
      if (u16[(i32[d + FRAME] + ETHERNET_TYPE) >> 1] !== IN_BAND || i32[d + LENGTH] < ETHERNET_BYTES) continue
      i32.copyWithin(this.#descriptors, d, target + count * DESCRIPTOR_WORDS)
      this.#first = 0
      this.#end = count - index
      return index
    }
    return count
  }

  #receivePending(target: number, max: number): number {
    const first = this.#first
    while (this.#first - first < max && this.#first < this.#end && !this.#isInBand(this.#first)) this.#first++
    const from = this.#descriptors + first * DESCRIPTOR_WORDS
    this.#arena.i32.copyWithin(target, from, from + (this.#first - first) * DESCRIPTOR_WORDS)
    return this.#first - first
  }

  #isInBand(index: number): boolean {
    const { i32, u16 } = this.#arena
    const d = this.#descriptors + index * DESCRIPTOR_WORDS
    return u16[(i32[d + FRAME] + ETHERNET_TYPE) >> 1] === IN_BAND && i32[d + LENGTH] >= ETHERNET_BYTES
  }

  /** Hands over the in-band frames that are next. Between batches. True if there were any. */
  deliver(now: TimeUs): boolean {
    const { i32 } = this.#arena
    this.#now = now
    let isAny = false
    while (this.#first < this.#end && this.#isInBand(this.#first)) {
      const d = this.#descriptors + this.#first++ * DESCRIPTOR_WORDS
      const slot = i32[d + Descriptor.slot]
      this.session.receive(i32[d + FRAME] + ETHERNET_BYTES, i32[d + LENGTH] - ETHERNET_BYTES, now)
      ;(this.#pool as PacketPool).give(slot)
      isAny = true
    }
    return isAny
  }

  /** Data frames received and still in here. */
  get pending(): number {
    let count = 0
    for (let index = this.#first; index < this.#end; index++) if (!this.#isInBand(index)) count++
    return count
  }

  /** True while frames that have been received wait in here. */
  get hasPending(): boolean {
    return this.#first < this.#end
  }
}
