/**
 * Session pair: two sessions, each in an arena of its own, and a network between them that is as bad as it is told to be. The
 * model that they are held against is a plain queue: whatever is sent is expected at the other end, whole, once and in order. For
 * tests and benches.
 */

import { assert } from '../base/assert.ts'
import { Random } from '../base/random.ts'
import { Arena } from '../memory/arena.ts'
import type { Port } from '../packet/port.ts'
import { Stream } from './frame-header.ts'
import { Session, type SessionSizes } from './session.ts'

export interface NetworkFaults {
  /** Probabilities per frame. */
  loss?: number
  duplication?: number
  /** A bit flips, or the end is missing. */
  corruption?: number
  /** Delay of a frame: at least, and by chance up to that much more, so that frames overtake each other. */
  delayUs?: number
  jitterUs?: number
  /** Frames under way at once; a port has no room for more. */
  frames?: number
}

interface Frame { readonly bytes: Uint8Array; readonly at: number; readonly order: number }
interface Expected { readonly seed: number; readonly bytes: number }

export class SessionEnd {
  readonly arena = new Arena(1 << 20)
  session: Session
  readonly port: Port
  /** What this end has sent and the other has not received. */
  readonly expected: Expected[] = []
  /** Frames from this end that are under way. */
  readonly wire: Frame[] = []
  readonly faults: NetworkFaults
  /** Decides about each frame from here; false loses it. */
  filter: (frame: Uint8Array) => boolean = () => true
  /** Called for each message that has come and was right. */
  onMessage: (bytes: number) => void = () => {}
  received = 0
  now = 0
  readonly #create: (incarnation: number) => Session
  #order = 0
  #count = 0

  constructor(index: number, sizes: Partial<SessionSizes>, stream: number, faults: NetworkFaults, random: Random,
    other: () => SessionEnd) {
    this.faults = faults
    this.#create = (selfIncarnation) => new Session({
      arena: this.arena, clusterId: 7, self: index + 1, selfIncarnation, peer: 2 - index, stream, sizes,
      onMessage: (offset, bytes) => { this.#check(offset, bytes, other().expected.shift()) },
    })
    this.session = this.#create(index + 11)
    const { wire, arena } = this
    this.port = {
      receive: () => 0, send: () => false, room: 0,
      sendReserved: (offset, length) => {
        if (wire.length >= (faults.frames ?? 1000)) return false
        const bytes = arena.u8.slice(offset, offset + length)
        if (!this.filter(bytes) || random.chance(faults.loss ?? 0)) return true
        for (let copies = random.chance(faults.duplication ?? 0) ? 2 : 1; copies > 0; copies--) {
          const at = this.now + (faults.delayUs ?? 0) + random.below((faults.jitterUs ?? 0) + 1)
          wire.push({ bytes: random.chance(faults.corruption ?? 0) ? damaged(bytes, random) : bytes, at, order: this.#order++ })
        }
        return true
      },
    }
  }

  /** Sends a message of `bytes` bytes whose content follows from its number; false when there was no room. */
  send(bytes: number, reserved = false): boolean {
    const at = this.session.begin(bytes, reserved)
    if (at === 0) return false
    const seed = ++this.#count
    const { u8 } = this.arena
    for (let i = 0; i < bytes; i++) assert(u8[at + i] === 0, 'room for a message is zeroed')
    for (let i = 0; i < bytes; i++) u8[at + i] = byteOf(seed, i)
    this.session.commit()
    this.expected.push({ seed, bytes })
    return true
  }

  /** The process ends, and a new one in a new life takes its place. Frames stay under way. */
  restart(incarnation: number, peerIncarnation: number): void {
    this.session = this.#create(incarnation)
    this.session.setPeer(peerIncarnation)
    this.expected.length = 0
  }

  #check(offset: number, bytes: number, expected: Expected | undefined): void {
    assert(expected !== undefined, 'a message was received that was not sent, or twice')
    assert(expected.bytes === bytes, 'a message has the length that it was sent with')
    assert(offset % 8 === 0, 'a message is aligned')
    const { u8 } = this.arena
    for (let i = 0; i < bytes; i++) {
      assert(u8[offset + i] === byteOf(expected.seed, i), 'a message has the content that it was sent with')
    }
    this.received++
    this.onMessage(bytes)
  }
}

export class SessionPair {
  readonly a: SessionEnd
  readonly b: SessionEnd
  now = 1_000_000
  readonly #rooms: readonly [number, number]

  constructor(options: { sizes?: Partial<SessionSizes>; stream?: number; faults?: NetworkFaults; seed?: number } = {}) {
    const { stream = Stream.control, faults = {}, seed = 1 } = options
    const sizes = { frameBytes: 600, sendBytes: 4096, ringBytes: 16_384, ...options.sizes }
    const random = new Random(seed)
    this.a = new SessionEnd(0, sizes, stream, { ...faults }, random, () => this.b)
    this.b = new SessionEnd(1, sizes, stream, { ...faults }, random, () => this.a)
    this.#rooms = [this.a.arena.allocate('frame', 66_000) + 2, this.b.arena.allocate('frame', 66_000) + 2]
    this.a.session.setPeer(12)
    this.b.session.setPeer(11)
  }

  /** Puts a frame before an end. */
  give(to: SessionEnd, frame: Uint8Array): void {
    const room = this.#rooms[to === this.a ? 0 : 1]
    to.arena.u8.set(frame, room)
    to.session.receive(room + 14, frame.length - 14, this.now)
  }

  /** Time passes, what is due arrives, and both ends transmit. */
  step(us = 100): void {
    this.now += us
    for (const [from, to] of [[this.a, this.b], [this.b, this.a]] as const) {
      const due = from.wire.filter((frame) => frame.at <= this.now).sort((x, y) => x.at - y.at || x.order - y.order)
      const later = from.wire.filter((frame) => frame.at > this.now)
      from.wire.splice(0, from.wire.length, ...later)
      for (const { bytes } of due) this.give(to, bytes)
    }
    for (const end of [this.a, this.b]) {
      end.now = this.now
      end.session.transmit(end.port, this.now)
    }
  }

  /** Steps until everything sent has arrived; false if it has not after so many steps. */
  settle(steps = 2000, us = 500): boolean {
    for (let i = 0; i < steps; i++) {
      if (this.isSettled) return true
      this.step(us)
    }
    return this.isSettled
  }

  get isSettled(): boolean {
    const { a, b } = this
    return a.expected.length === 0 && b.expected.length === 0 && a.session.queuedBytes === 0 && b.session.queuedBytes === 0
  }
}

function byteOf(seed: number, index: number): number {
  return (Math.imul(seed, 0x9e3779b1) >>> 24) + index & 255
}

function damaged(bytes: Uint8Array, random: Random): Uint8Array {
  if (random.chance(0.2)) return bytes.slice(0, random.between(14, bytes.length - 1))
  const copy = bytes.slice()
  copy[random.between(14, copy.length - 1)] ^= 1 << random.below(8)
  return copy
}
