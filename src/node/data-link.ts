/**
 * Data link: one data port between a switch and a runtime, with the in-band session on it. PROTOCOL 26.
 *
 * What is sent keeps its order: in-band messages that have been made leave before the next data frame. What is received is split at
 * in-band frames: `receive` gives the data frames before one, `deliver` hands it over, and so on, so that everything before an
 * in-band message has run when it is handled.
 */

import type { TimeUs } from '../base/clock.ts'
import type { Arena } from '../memory/arena.ts'
import { Descriptor, DESCRIPTOR_BYTES, DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import type { PacketPool } from '../packet/packet-pool.ts'
import type { Port } from '../packet/port.ts'
import { EtherType, ETHERNET_BYTES, ETHERNET_TYPE } from '../wire/ethernet.ts'
import { Stream } from '../transport/frame-header.ts'
import type { MessageChannel } from '../transport/message-channel.ts'
import { Session, type SessionSizes } from '../transport/session.ts'

const BATCH = 32

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
  /** Frames received and not yet handed on: descriptors `first` to `end` of a small batch. */
  readonly #descriptors: number
  #first = 0
  #end = 0
  #pool: PacketPool | null = null

  constructor(options: DataLinkOptions) {
    const { arena, clusterId, self, selfIncarnation, peer, sessions } = options
    this.peer = peer
    this.#arena = arena
    this.#port = options.port
    this.#descriptors = arena.allocate('link batch', BATCH * DESCRIPTOR_BYTES) >> 2
    this.session = new Session({ arena, clusterId, self, selfIncarnation, peer, stream: Stream.inBand, sizes: sessions,
      onMessage: (offset, bytes) => { options.onMessage(offset, bytes) } })
  }

  get channel(): MessageChannel {
    return this.session
  }

  setPeer(incarnation: number): void {
    this.session.setPeer(incarnation)
  }

  /** Sends a data frame behind all in-band messages made before it; false when there is no room. Hot. */
  send(frame: number, length: number): boolean {
    if (this.session.hasUnsent && !this.#flush()) return false
    return this.#port.send(frame, length)
  }

  #flush(): boolean {
    this.session.transmit(this.#port, this.#now)
    return !this.session.hasUnsent
  }

  #now: TimeUs = 0

  /** Data frames that `send` would take now. */
  get room(): number {
    return this.#port.room
  }

  /** Data frames received and still in here. */
  get pending(): number {
    let count = 0
    for (let index = this.#first; index < this.#end; index++) if (!this.#isInBand(index)) count++
    return count
  }

  #isInBand(index: number): boolean {
    const { i32, u8 } = this.#arena
    const d = this.#descriptors + index * DESCRIPTOR_WORDS
    const type = i32[d + Descriptor.frame] + ETHERNET_TYPE
    return i32[d + Descriptor.length] >= ETHERNET_BYTES && u8[type] === EtherType.nfactor >> 8 &&
      u8[type + 1] === (EtherType.nfactor & 255)
  }

  /** Takes at most `max` data frames, up to the next in-band frame, into descriptors from word index `target` on. Hot. */
  receive(pool: PacketPool, target: number, max: number): number {
    const { i32 } = this.#arena
    this.#pool = pool
    if (this.#first === this.#end) {
      this.#first = 0
      this.#end = this.#port.receive(pool, this.#descriptors, BATCH)
    }
    let count = 0
    while (count < max && this.#first < this.#end && !this.#isInBand(this.#first)) {
      const from = this.#descriptors + this.#first++ * DESCRIPTOR_WORDS
      i32.copyWithin(target + count++ * DESCRIPTOR_WORDS, from, from + DESCRIPTOR_WORDS)
    }
    return count
  }

  /** Hands over the in-band frames that are next. True if there were any. */
  deliver(now: TimeUs): boolean {
    const { i32 } = this.#arena
    this.#now = now
    let isAny = false
    while (this.#first < this.#end && this.#isInBand(this.#first)) {
      const d = this.#descriptors + this.#first++ * DESCRIPTOR_WORDS
      this.session.receive(i32[d + Descriptor.frame] + ETHERNET_BYTES, i32[d + Descriptor.length] - ETHERNET_BYTES, this.#port, now)
      ;(this.#pool as PacketPool).give(i32[d + Descriptor.slot])
      isAny = true
    }
    return isAny
  }

  /** True while frames that have been received wait in here. */
  get hasPending(): boolean {
    return this.#first < this.#end
  }

  transmit(now: TimeUs): void {
    this.#now = now
    this.session.transmit(this.#port, now)
  }

  nextDue(): TimeUs {
    if (this.#first < this.#end) return -Infinity
    const due = this.session.nextDue()
    return this.session.isBlocked ? Math.max(due, this.#now + 50) : due
  }
}
