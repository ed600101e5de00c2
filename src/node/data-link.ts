/**
 * Data link: one data port between a switch and a runtime, with the in-band session on it. PROTOCOL 26.
 *
 * What is sent keeps its order: in-band messages that have been made leave before the next data frame. What is received is split
 * at in-band frames: `receive` gives the data frames before one, `deliver` hands it over, and so on, so that everything before an
 * in-band message has run when it is handled.
 *
 * Data frames carry the incarnations of both ends in their Ethernet addresses. A runtime refuses those for a former life of its own:
 * returned, they would come to their flow behind newer ones. A switch refuses those of a life that is fenced (PROTOCOL 4, 18).
 *
 *     from the port:   d d d M d d M M d     receive → d d d, deliver → M, receive → d d, deliver → M M, receive → d
 */

import { assert } from '../base/assert.ts'
import type { TimeUs } from '../base/clock.ts'
import { BATCH_PACKETS } from '../base/limits.ts'
import type { Arena } from '../memory/arena.ts'
import { Descriptor, DESCRIPTOR_BYTES, DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import type { PacketPool } from '../packet/packet-pool.ts'
import type { Port, TakeBackPort } from '../packet/port.ts'
import { ETHERNET_BYTES, ETHERNET_SOURCE, ETHERNET_TYPE, NFACTOR_TYPE_WORD } from '../wire/ethernet.ts'
import { nodeMac, Stream } from '../transport/frame-header.ts'
import type { MessageChannel } from '../transport/message-channel.ts'
import { Session, type SessionSizes } from '../transport/session.ts'

const FRAME = Descriptor.frame
const LENGTH = Descriptor.length
/** While the peer says nothing it is asked so many times until it is silent. */
const QUESTIONS = 5
/** How long a link whose other end has gone waits to hear that it is dead, microseconds. */
const LET_GO_US = 10_000_000
/** Where the incarnation is in an Ethernet address, and how it stands there, read as one little-endian number. */
const MAC_LIFE = 2
const lifeOf = (incarnation: number): number => ((incarnation >> 8) & 255) | ((incarnation & 255) << 8)

/**
 * What a source address begins with in the place of `02:4e`, as a little-endian number, where a runtime sends an ICMP error that was a flow of
 * its own there. The switch may know the flow that it quotes by then, and would count it as one of that flow's.
 */
const OWN_KEY_MAC = 0x4f02

/** Marks a frame so at the runtime that has run it: it keeps the mark wherever it is released. */
export function markOwnKey(u16: Uint16Array, frame: number): void {
  u16[(frame + ETHERNET_SOURCE) >> 1] = OWN_KEY_MAC
}

export function isMarkedOwnKey(u16: Uint16Array, frame: number): boolean {
  return u16[(frame + ETHERNET_SOURCE) >> 1] === OWN_KEY_MAC
}

export interface DataLinkOptions {
  readonly arena: Arena
  readonly clusterId: number
  readonly self: number
  readonly selfIncarnation: number
  readonly peer: number
  readonly port: Port
  readonly sessions?: Partial<SessionSizes>
  /** Which end this is. */
  readonly isSwitch: boolean
  /** How long the peer may say nothing, though asked, before it is silent: where frames are lost with it. Else it is never called so. */
  readonly silenceUs?: number
  onMessage(offset: number, bytes: number): void
  /** A data frame of, or for, a life that is over has come, and its slot was given back. */
  onRefused(): void
}

export class DataLink {
  readonly peer: number
  readonly session: Session
  readonly #arena: Arena
  readonly #port: Port
  /** The port, where its frames can be taken back. */
  readonly #back: TakeBackPort | null
  /** Position of the first frame that the last `receive` gave; 0 when it is not known. */
  firstPosition = 0
  /** The lower half of its sender's incarnation, of the last frame that `receive` gave: configurations tell of a next life later, or before. */
  senderLife = 0
  /** Frames from an in-band one on that came together with others: descriptors `first` to `end`. */
  readonly #descriptors: number
  #first = 0
  #end = 0
  /** None of the frames that came together was refused: their positions are known. */
  #isWhole = true
  #pool: PacketPool | null = null
  #now: TimeUs = 0
  readonly #options: DataLinkOptions
  /** Ethernet addresses of what is sent, at a word index of 16 bits. */
  readonly #macs: number
  /** Time between questions to a peer that says nothing; 0 where nobody asks. */
  readonly #questionUs: number
  /** Something has been sent, and something has come, since the last turn. */
  #hasSent = false
  #hasHeard = false
  /** For how long the peer has said nothing since it was sent something, in turns of ours: what we stood still does not count. */
  #quietUs = 0
  #watchedAt: TimeUs = 0
  #nextQuestion: TimeUs = Infinity
  /** The peer says nothing although it is asked: packets had better wait for it here. */
  isSilent = false
  /** In received frames: which 16 bits are looked at, and what makes the frame refused: this (a switch), or not this (a runtime). */
  readonly #lifeAt: number
  #life: number
  readonly #refusesOthers: boolean

  constructor(options: DataLinkOptions) {
    const { arena, clusterId, self, selfIncarnation, peer, sessions } = options
    this.#options = options
    this.#macs = arena.allocate('link: addresses', 16) >> 1
    this.#refusesOthers = !options.isSwitch
    this.#lifeAt = MAC_LIFE + (options.isSwitch ? ETHERNET_SOURCE : 0)
    this.#life = options.isSwitch ? -1 : lifeOf(selfIncarnation)
    this.peer = peer
    this.#arena = arena
    this.#port = options.port
    this.#back = 'beginTakeBack' in options.port ? options.port as TakeBackPort : null
    this.#questionUs = this.#back === null ? (options.silenceUs ?? 0) / QUESTIONS : 0
    this.#descriptors = arena.allocate('link: frames pending', BATCH_PACKETS * DESCRIPTOR_BYTES) >> 2
    this.session = new Session({ arena, clusterId, self, selfIncarnation, peer, stream: Stream.inBand, sizes: sessions,
      onMessage: (offset, bytes) => { options.onMessage(offset, bytes) } })
  }

  get channel(): MessageChannel {
    return this.session
  }

  /** Which life of the peer the in-band messages are for; 0 for none. Frames already received stay. */
  setPeer(incarnation: number): void {
    const { self, selfIncarnation, isSwitch } = this.#options
    const before = this.session.peerIncarnation
    if (isSwitch && before !== 0 && before !== incarnation) this.#life = lifeOf(before)
    if (before !== incarnation) {
      this.isCut = false
      this.#heard()
    }
    this.session.setPeer(incarnation)
    this.#arena.u8.set([...nodeMac(this.peer, self, incarnation), ...nodeMac(self, this.peer, selfIncarnation)], this.#macs << 1)
  }

  // -- Sending -------------------------------------------------------------------------------------------------------

  /**
   * Sends a data frame behind all in-band messages made before it, with the link's Ethernet addresses; false when there is no room for
   * them or for it. Hot.
   */
  send(frame: number, length: number): boolean {
    if (this.isCut || this.isSilent) return false
    this.#hasSent = true
    const { u16 } = this.#arena
    const to = frame >> 1
    const macs = this.#macs
    u16[to] = u16[macs]
    u16[to + 1] = u16[macs + 1]
    u16[to + 2] = u16[macs + 2]
    if (u16[to + 3] !== OWN_KEY_MAC || this.#options.isSwitch) u16[to + 3] = u16[macs + 3]
    u16[to + 4] = u16[macs + 4]
    u16[to + 5] = u16[macs + 5]
    if (this.session.hasUnsent) {
      this.session.transmit(this.#port, this.#now)
      if (this.session.hasUnsent) return false
    }
    return this.#port.send(frame, length)
  }

  /** Data frames that `send` would take now. */
  get room(): number {
    return this.isSilent ? 0 : this.#port.room
  }

  /** How much of `room` a frame takes. */
  roomOf(length: number): number {
    const { bufferBytes = Infinity } = this.#port
    return length <= bufferBytes ? 1 : Math.ceil(length / bufferBytes)
  }

  /** Sends what the in-band session has to send: once at the end of a turn. */
  transmit(now: TimeUs): void {
    if (this.#questionUs > 0) this.#watchPeer(now)
    this.#now = now
    this.session.transmit(this.#port, now)
  }

  /** When there is something to do if nothing comes; -Infinity for at once. */
  nextDue(): TimeUs {
    return this.#first < this.#end ? -Infinity : Math.min(this.#nextQuestion, this.session.nextDue())
  }

  // -- Is anybody there ----------------------------------------------------------------------------------------------

  /**
   * Once in a turn, behind what has come: a peer that was sent something and has said nothing since is asked, and after some questions it is
   * silent, until something comes. A link that is memory knows when its other end is gone; one that is a network loses what is sent to nobody.
   */
  #watchPeer(now: TimeUs): void {
    if (this.#hasHeard) this.#heard()
    else if (this.#nextQuestion !== Infinity) this.#quietUs += Math.min(now - this.#watchedAt, this.#questionUs)
    this.#watchedAt = now
    if (this.#hasSent && this.#nextQuestion === Infinity && this.session.lastHeard !== 0) this.#nextQuestion = now + this.#questionUs
    this.#hasSent = false
    if (now < this.#nextQuestion) return
    this.session.probe()
    this.#nextQuestion = now + this.#questionUs
    if (this.#quietUs >= this.#questionUs * QUESTIONS) this.isSilent = true
  }

  #heard(): void {
    this.#hasHeard = this.isSilent = false
    this.#quietUs = 0
    this.#nextQuestion = Infinity
  }

  // -- Receiving -----------------------------------------------------------------------------------------------------

  /**
   * Takes at most `max` data frames (not more than a batch), up to the next in-band frame, into the descriptors from word index
   * `target` on. Hot.
   */
  receive(pool: PacketPool, target: number, max: number): number {
    assert(max <= BATCH_PACKETS, 'a link is read by the batch')
    const count = this.#receive(pool, target, max)
    if (count === 0) return 0
    const last = this.#arena.i32[target + (count - 1) * DESCRIPTOR_WORDS + FRAME]
    this.senderLife = lifeOf(this.#arena.u16[(last + ETHERNET_SOURCE + MAC_LIFE) >> 1])
    return count
  }

  #receive(pool: PacketPool, target: number, max: number): number {
    if (this.#first < this.#end) {
      this.firstPosition = this.#isWhole ? this.position + 1 : 0
      return this.#receivePending(target, max)
    }
    const { i32, u16 } = this.#arena
    this.#pool = pool
    const count = this.#port.receive(pool, target, max)
    if (count > 0) this.#hasHeard = true
    if (this.#back !== null) {
      this.#isWhole = true
      this.firstPosition = this.#back.receivedPosition - count + 1
    }
    const lifeAt = this.#lifeAt
    const life = this.#life
    const refusesOthers = this.#refusesOthers
    for (let index = 0, d = target; index < count; index++, d += DESCRIPTOR_WORDS) {
      const frame = i32[d + FRAME]
      const isPlain = u16[(frame + ETHERNET_TYPE) >> 1] !== NFACTOR_TYPE_WORD && (u16[(frame + lifeAt) >> 1] === life) === refusesOthers
      if (!isPlain && i32[d + LENGTH] >= ETHERNET_BYTES) return this.#sift(target, index, count)
    }
    return count
  }

  /** The frames from `index` on, some of which are not simply data: what is refused goes, what is behind an in-band one waits. */
  #sift(target: number, index: number, count: number): number {
    const { i32, u16 } = this.#arena
    let end = index
    let split = -1
    for (; index < count; index++) {
      const d = target + index * DESCRIPTOR_WORDS
      const frame = i32[d + FRAME]
      if (this.#isInBandAt(d)) {
        if (split < 0) split = end
      } else if ((u16[(frame + this.#lifeAt) >> 1] === this.#life) !== this.#refusesOthers && i32[d + LENGTH] >= ETHERNET_BYTES) {
        ;(this.#pool as PacketPool).give(i32[d + Descriptor.slot])
        this.#options.onRefused()
        this.#isWhole = false
        this.firstPosition = 0
        continue
      }
      const to = target + end++ * DESCRIPTOR_WORDS
      if (to !== d) i32.copyWithin(to, d, d + DESCRIPTOR_WORDS)
    }
    if (split < 0) return end
    i32.copyWithin(this.#descriptors, target + split * DESCRIPTOR_WORDS, target + end * DESCRIPTOR_WORDS)
    this.#first = 0
    this.#end = end - split
    return split
  }

  #receivePending(target: number, max: number): number {
    const first = this.#first
    while (this.#first - first < max && this.#first < this.#end && !this.#isInBand(this.#first)) this.#first++
    const from = this.#descriptors + first * DESCRIPTOR_WORDS
    this.#arena.i32.copyWithin(target, from, from + (this.#first - first) * DESCRIPTOR_WORDS)
    return this.#first - first
  }

  #isInBand(index: number): boolean {
    return this.#isInBandAt(this.#descriptors + index * DESCRIPTOR_WORDS)
  }

  #isInBandAt(d: number): boolean {
    const { i32, u16 } = this.#arena
    return u16[(i32[d + FRAME] + ETHERNET_TYPE) >> 1] === NFACTOR_TYPE_WORD && i32[d + LENGTH] >= ETHERNET_BYTES
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

  // -- Giving back, taking back --------------------------------------------------------------------------------------------

  /** True when frames stay in the link until they are given back. */
  get canRelease(): boolean {
    return this.#back !== null
  }

  /** The last frame that has been handed over. */
  get position(): number {
    return this.#back === null ? 0 : this.#back.receivedPosition - (this.#end - this.#first)
  }

  get connection(): number {
    return this.#back?.connection ?? 0
  }

  get isCrowded(): boolean {
    return this.#back?.isCrowded === true
  }

  release(position: number): void {
    this.#back?.release(position)
  }

  /** The last frame sent. */
  get sentPosition(): number {
    return this.#back?.sentPosition ?? 0
  }

  /** What the peer has not given back was taken back before the configuration said that it is dead: nothing goes there any more. */
  isCut = false
  /** When the other end was seen to be gone, 0 while it is not. */
  #gone = 0

  /** True while packets wait here for the other end. */
  get isWaiting(): boolean {
    return this.isSilent || this.isDown
  }

  /** True while the other end is gone, and its next life is not there yet. */
  get isDown(): boolean {
    return this.#back !== null && (this.isCut || !this.#back.isUp)
  }

  /**
   * Gives up what was sent to an end that has gone and is not the life which is meant: that one has never been heard on this link. And to
   * one that nobody calls dead for so long that the link alone has failed.
   */
  letGo(now: TimeUs): void {
    const back = this.#back
    if (back === null || !back.canTakeBack) {
      this.#gone = 0
      return
    }
    if (this.#gone === 0) this.#gone = now
    if (this.session.peerIncarnation !== 0 && this.session.lastHeard !== 0 && now - this.#gone < LET_GO_US) return
    back.endTakeBack()
  }

  /** Cuts the link to a peer that is dead, and begins to take back what it has not given back: the port, and its first position. */
  beginTakeBack(): { readonly port: TakeBackPort; readonly first: number } | null {
    const back = this.#back
    if (back === null) return null
    back.sever()
    return back.canTakeBack ? { port: back, first: back.beginTakeBack() } : null
  }

  /** True for a received data frame of the life of the peer that is meant now. */
  isOfPeer(frame: number): boolean {
    return this.#arena.u16[(frame + ETHERNET_SOURCE + MAC_LIFE) >> 1] === lifeOf(this.session.peerIncarnation)
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
