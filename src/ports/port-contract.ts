/**
 * Port contract: what every port keeps, whatever is behind it. A suite that any implementation is put through, as a list of named
 * checks on a pair of ports that are each other's ends.
 *
 * Every wait in here is bounded in time and ends with what it waited for.
 */

import assert from 'node:assert/strict'
import { Random } from '../base/random.ts'
import type { Arena } from '../memory/arena.ts'
import { Descriptor, DESCRIPTOR_BYTES, DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import { PacketPool, SLOT_FRAME_OFFSET } from '../packet/packet-pool.ts'
import type { Port } from '../packet/port.ts'
import type { PortStatistics } from './link-port.ts'

/** One end of a link under test. The optional members are left out by ports that have no such thing. */
export interface PortEnd {
  readonly arena: Arena
  readonly port: Port & {
    readonly statistics?: PortStatistics
    readonly isUp?: boolean
    open?(): void
    close?(): void
    flush?(): void
    maintain?(now: number): void
    arm?(): boolean
    disarm?(): void
  }
}

export interface PortPair {
  readonly ends: readonly [PortEnd, PortEnd]
  /** Frames of at most `frameBytes.ordinary` that the link holds in one direction without a loss while nobody receives. */
  readonly capacity: number
  /** True if `send` has to refuse once the other end lets frames lie. Elsewhere somebody in between drops them. */
  readonly refusesWhenFull: boolean
  /** Bytes of frames that may be sent: the shortest, the longest that count as one of `capacity`, the longest. */
  readonly frameBytes: { readonly min: number, readonly ordinary: number, readonly max: number }
  /** Takes everything down. */
  close(): void
}

const SLOTS = 256
const LARGE_SLOTS = 8
const BATCH = 32
const PATIENCE_MS = 5000

/** A pool and a batch per end, memory to send from, and what is on its way. */
class Rig {
  readonly pair: PortPair
  readonly random: Random
  readonly sides: readonly [Side, Side]
  #now = 1

  constructor(pair: PortPair, seed: number) {
    this.pair = pair
    this.random = new Random(seed)
    this.sides = [new Side(pair.ends[0]), new Side(pair.ends[1])]
  }

  /** Both ends get a turn for what is not packets. */
  turn(): void {
    this.#now += 1000
    for (const { port } of this.pair.ends) {
      port.flush?.()
      port.maintain?.(performance.now() * 1000 + this.#now)
    }
  }

  until(what: string, isTrue: () => boolean): void {
    const end = performance.now() + PATIENCE_MS
    while (!isTrue()) {
      assert.ok(performance.now() < end, `in ${PATIENCE_MS} ms: ${what}`)
      this.turn()
    }
  }

  connect(): void {
    this.until('both ends are up', () => this.pair.ends.every(({ port }) => port.isUp !== false))
    this.until('both ends have room', () => this.pair.ends.every(({ port }) => port.room > 0))
  }

  /** Some length that takes one place. */
  ordinary(): number {
    return this.random.between(this.pair.frameBytes.min, this.pair.frameBytes.ordinary)
  }

  /** Sends a frame from one side to the other. */
  send(from: 0 | 1, length: number, isReserved = false): boolean {
    return this.sides[from].send(length, this.random, this.sides[1 - from].expected, isReserved)
  }

  /** Receives until nothing is expected any more. */
  settle(): void {
    this.until('everything that was sent arrives', () => {
      for (const side of this.sides) side.receive(BATCH)
      return this.sides.every(({ expected }) => expected.length === 0)
    })
    // And nothing else.
    for (let i = 0; i < 3; i++) {
      this.turn()
      for (const side of this.sides) assert.equal(side.receive(BATCH), 0)
    }
    for (const side of this.sides) assert.equal(side.pool.used, 0, 'every slot has come back')
  }
}

class Side {
  readonly end: PortEnd
  readonly pool: PacketPool
  readonly descriptors: number
  readonly expected: Uint8Array[] = []
  readonly #source: number
  #count = 0

  constructor(end: PortEnd) {
    this.end = end
    this.pool = new PacketPool(end.arena, SLOTS, LARGE_SLOTS)
    this.descriptors = end.arena.allocate('contract: batch', (BATCH + 1) * DESCRIPTOR_BYTES) >> 2
    this.#source = end.arena.allocate('contract: frame', 1 << 17) + SLOT_FRAME_OFFSET
  }

  send(length: number, random: Random, expected: Uint8Array[], isReserved: boolean): boolean {
    const { arena, port } = this.end
    const frame = this.#source
    const bytes = arena.u8.subarray(frame, frame + length)
    bytes.fill(this.#count & 255)
    // Addresses and an EtherType that mean nothing to anybody, a number, and ends that differ.
    for (let at = 0; at < Math.min(length, 12); at++) bytes[at] = at % 6 === 0 ? 2 : this.#count & 255
    if (length > 20) {
      bytes.set([0x88, 0xb6], 12)
      arena.view.setUint32(frame + 14, this.#count, true)
    }
    bytes[length - 1] = random.below(256)
    const copy = Uint8Array.from(bytes)
    const isSent = isReserved ? port.sendReserved(frame, length) : port.send(frame, length)
    // The port has copied it: the place can be used again.
    bytes.fill(0xee)
    if (!isSent) return false
    this.#count++
    expected.push(copy)
    return true
  }

  /** Receives a batch, checks it against what is expected, and gives the slots back. */
  receive(max: number): number {
    const { arena, port } = this.end
    const { i32, u8 } = arena
    const guard = this.descriptors + max * DESCRIPTOR_WORDS
    i32.fill(-77, this.descriptors, this.descriptors + (BATCH + 1) * DESCRIPTOR_WORDS)
    const count = port.receive(this.pool, this.descriptors, max)
    assert.ok(count >= 0 && count <= max, `${count} frames, at most ${max} were asked for`)
    for (let at = guard; at < guard + DESCRIPTOR_WORDS; at++) assert.equal(i32[at], -77, 'descriptors behind the batch are left alone')
    for (let i = 0; i < count; i++) {
      const d = this.descriptors + i * DESCRIPTOR_WORDS
      const slot = i32[d + Descriptor.slot]
      const frame = i32[d + Descriptor.frame]
      const length = i32[d + Descriptor.length]
      const wanted = this.expected.shift()
      assert.ok(wanted !== undefined, 'a frame that nobody has sent')
      assert.equal(frame, slot + SLOT_FRAME_OFFSET)
      assert.equal(length, wanted.length)
      assert.ok(length <= this.pool.capacity(slot))
      assert.equal(i32[d + Descriptor.wireLength], length)
      assert.equal(i32[d + Descriptor.linkType], 1)
      assert.ok(Buffer.compare(u8.subarray(frame, frame + length), wanted) === 0, 'a frame arrives as it was sent')
      this.pool.give(slot)
    }
    return count
  }
}

const statisticsOf = (end: PortEnd): PortStatistics | undefined => end.port.statistics

/** The checks. Each one gets a pair of its own. */
export const portContract: Record<string, (pair: PortPair) => void> = {
  'frames arrive whole and in order, both ways': (pair) => {
    const rig = new Rig(pair, 1)
    rig.connect()
    const { min, ordinary, max } = pair.frameBytes
    for (const length of [min, min + 1, min + 7, 64, 65, 300, ordinary - 1, ordinary, Math.min(max, ordinary + 1), max - 1, max]) {
      for (const side of [0, 1] as const) assert.ok(rig.send(side, length), `${length} bytes`)
      rig.settle()
    }
    for (let i = 0; i < Math.min(200, pair.capacity); i++) {
      for (const side of [0, 1] as const) assert.ok(rig.send(side, rig.ordinary()))
    }
    rig.settle()
  },

  'any interleaving of sending and receiving loses nothing': (pair) => {
    const rig = new Rig(pair, 2)
    rig.connect()
    const rounds = Math.max(400, Math.ceil(pair.capacity / 4))
    for (let round = 0; round < rounds; round++) {
      const from = rig.random.below(2) as 0 | 1
      for (let i = rig.random.between(0, 40); i > 0 && rig.sides[1 - from].expected.length < pair.capacity; i--) {
        rig.send(from, rig.random.chance(0.9) ? rig.ordinary() : rig.random.between(pair.frameBytes.min, pair.frameBytes.max))
      }
      rig.sides[rig.random.below(2)].receive(rig.random.between(1, BATCH))
      if (round % 16 === 0) rig.turn()
    }
    rig.settle()
  },

  'a batch is never larger than asked for': (pair) => {
    const rig = new Rig(pair, 3)
    rig.connect()
    const frames = Math.min(20, pair.capacity)
    for (let i = 0; i < frames; i++) assert.ok(rig.send(0, 100))
    assert.equal(rig.sides[1].receive(0), 0)
    let left = frames
    rig.until('one at a time', () => {
      left -= rig.sides[1].receive(1)
      return left === 0
    })
    rig.settle()
  },

  'frames for which there is no slot stay where they are': (pair) => {
    const rig = new Rig(pair, 4)
    rig.connect()
    const { pool } = rig.sides[1]
    const taken: number[] = []
    for (let slot = pool.take(100); slot !== 0; slot = pool.take(100)) taken.push(slot)
    const frames = Math.min(20, pair.capacity)
    for (let i = 0; i < frames; i++) assert.ok(rig.send(0, 100))
    for (let i = 0; i < 5; i++) {
      rig.turn()
      assert.equal(rig.sides[1].receive(BATCH), 0)
    }
    for (const slot of taken.splice(0, 3)) pool.give(slot)
    rig.until('as many as there are slots', () => {
      rig.sides[1].receive(3)
      return rig.sides[1].expected.length <= frames - 3
    })
    for (const slot of taken) pool.give(slot)
    rig.settle()
  },

  'what fits is taken, and what does not is refused and counted': (pair) => {
    const rig = new Rig(pair, 5)
    rig.connect()
    const before = statisticsOf(pair.ends[0])?.txFull ?? 0
    for (let i = 0; i < pair.capacity; i++) assert.ok(rig.send(0, 100), `frame ${i} of ${pair.capacity}`)
    if (pair.refusesWhenFull) {
      let more = 0
      while (rig.send(0, 100)) assert.ok(++more < 1 << 20, 'at some point a link is full')
      assert.equal(pair.ends[0].port.room, 0)
      assert.equal(rig.send(0, 100), false)
      const statistics = statisticsOf(pair.ends[0])
      if (statistics !== undefined) assert.equal(statistics.txFull - before, 2)
      // Our own messages still go, until their reserve is used up as well.
      assert.ok(rig.send(0, 100, true), 'there is a reserve')
      for (let i = 0; rig.send(0, 100, true); i++) assert.ok(i < 1 << 20, 'the reserve ends')
    }
    rig.settle()
    assert.ok(pair.ends[0].port.room >= Math.min(pair.capacity, 1))
    assert.ok(rig.send(0, 100))
    rig.settle()
  },

  'a frame that is too long is refused and counted, and nothing else suffers': (pair) => {
    // Ports without statistics are for tests, and take what they are given.
    if (statisticsOf(pair.ends[0]) === undefined) return
    const rig = new Rig(pair, 6)
    rig.connect()
    const { max } = pair.frameBytes
    assert.ok(rig.send(0, 100))
    assert.equal(rig.send(0, max + 1), false)
    const statistics = statisticsOf(pair.ends[0])
    if (statistics !== undefined) assert.equal(statistics.txOversize, 1)
    rig.settle()
    assert.ok(rig.send(0, max))
    rig.settle()
    assert.ok(rig.send(0, 100))
    rig.settle()
  },

  'every frame is in the statistics': (pair) => {
    const [a, b] = pair.ends.map(statisticsOf)
    if (a === undefined || b === undefined) return
    const rig = new Rig(pair, 7)
    rig.connect()
    let bytes = 0
    const frames = Math.min(20, pair.capacity)
    for (let i = 0; i < frames; i++) {
      const length = rig.ordinary()
      bytes += length
      assert.ok(rig.send(0, length))
    }
    rig.settle()
    assert.deepEqual([a.txFrames, a.txBytes, b.rxFrames, b.rxBytes], [frames, bytes, frames, bytes])
    assert.deepEqual([a.txFull, a.txOversize, a.txLost, b.rxInvalid, b.rxOversize, b.rxMissed], [0, 0, 0, 0, 0, 0])
  },

  'an end can be closed and opened again': (pair) => {
    if (pair.ends[0].port.close === undefined) return
    const rig = new Rig(pair, 8)
    for (const index of [0, 1, 0, 1] as const) {
      rig.connect()
      const { port } = pair.ends[index]
      for (let i = 0; i < 3; i++) assert.ok(rig.send(0, 100) && rig.send(1, 200))
      rig.settle()
      port.close?.()
      port.close?.()
      assert.equal(port.isUp, false)
      assert.equal(port.room, 0)
      assert.equal(rig.send(index, 100), false)
      assert.equal(port.receive(rig.sides[index].pool, rig.sides[index].descriptors, 1), 0)
      for (let i = 0; i < 3; i++) rig.turn()
      port.open?.()
    }
    rig.connect()
    for (let i = 0; i < 3; i++) assert.ok(rig.send(0, 100) && rig.send(1, 200))
    rig.settle()
  },

  'who asks to be woken learns what is there already': (pair) => {
    const { port } = pair.ends[1]
    if (port.arm === undefined) return
    const rig = new Rig(pair, 9)
    rig.connect()
    assert.equal(port.arm(), true)
    assert.ok(rig.send(0, 100))
    rig.until('the frame is seen', () => port.arm?.() === false)
    port.disarm?.()
    rig.settle()
  },
}
