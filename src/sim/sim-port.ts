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
import type { Port, TakeBackPort } from '../packet/port.ts'

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
/** Frames that have been received and not given back with which a ring is nearly full. */
const CROWDED = 200

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

/** A link whose memory outlives the node that reads it, like a ring in shared memory: frames stay until they are given back. */
export class SimRing {
  /** Frames that have not been given back, and the position of the first of them. */
  kept: Uint8Array[] = []
  first = 1
  /** Position of the last frame that the reader has received. */
  received = 0
  /** The first frame of the present writer. */
  #since = 1
  connection = 1
  /** The reader is gone; what is sent is kept until that is known, too. */
  isDead = false
  isDown = false
  #hasReader = true
  /** The reader lives and is not meant any more. */
  #isReaderCut = false
  /** The reader has come while what the one before had left was still here: it reads what is sent behind that. */
  #isReaderNext = false
  /** Frames of packets taken back that the reader had received. */
  again = 0
  /** There is a new connection: what a reader has not received of the one before does not come to it any more. */
  onRenewed: () => void = () => undefined
  readonly #isPacket: (frame: Uint8Array) => boolean
  readonly #onTakenBack: (frame: Uint8Array, isAgain: boolean) => void
  readonly #onGivenBack: (frames: readonly Uint8Array[]) => void

  /**
   * @param onTakenBack sees each packet that is taken back, and whether the reader had had it
   * @param onGivenBack sees the frames that the reader has given back: they cannot be taken back any more
   */
  constructor(isPacket: (frame: Uint8Array) => boolean, onTakenBack: (frame: Uint8Array, isAgain: boolean) => void,
    onGivenBack: (frames: readonly Uint8Array[]) => void) {
    this.#isPacket = isPacket
    this.#onTakenBack = onTakenBack
    this.#onGivenBack = onGivenBack
  }

  get sent(): number {
    return this.first + this.kept.length - 1
  }

  /** A life of the reader has come. */
  readerCame(): void {
    this.#hasReader = true
    if (!this.isDead) this.isDown = false
    this.#isReaderNext = this.isDead
    this.#isReaderCut = false
  }

  /** The reader has gone. Returns what nobody has received, when it was not meant any more. */
  readerWent(): Uint8Array[] {
    this.#hasReader = this.#isReaderNext = false
    if (this.#isReaderCut) return this.renew()
    this.isDead = true
    return []
  }

  push(frame: Uint8Array): void {
    this.kept.push(frame)
  }

  release(position: number): void {
    const count = Math.min(position, this.received) + 1 - this.first
    if (count <= 0 || this.isDead) return
    this.#onGivenBack(this.kept.splice(0, count))
    this.first += count
  }

  /** Another writer has come: what the one before had sent cannot be taken back any more. Returns what nobody has received. */
  restart(): Uint8Array[] {
    this.#since = this.sent + 1
    if (!this.isDead) return []
    const lost = this.renew()
    // Whoever reads now is the next life, which the new writer means.
    this.#isReaderCut = false
    return lost
  }

  /** What a writer before had sent stays behind. Returns what nobody has received of that; `first` is the first to be taken back. */
  beginTakeBack(): Uint8Array[] {
    const from = Math.max(this.first, this.#since)
    const behind = this.kept.splice(0, from - this.first)
    const lost = behind.slice(Math.max(0, this.received + 1 - this.first))
    this.first = from
    return lost
  }

  takeBack(): Uint8Array | undefined {
    const frame = this.kept.shift()
    if (frame === undefined) return frame
    if (this.#isPacket(frame)) {
      const isAgain = this.first <= this.received
      if (isAgain) this.again++
      this.#onTakenBack(frame, isAgain)
    }
    this.first++
    return frame
  }

  /** A new connection. Returns what nobody has received of the one before. */
  renew(): Uint8Array[] {
    const lost = this.kept.slice(Math.max(0, this.received + 1 - this.first))
    this.kept = []
    this.first = this.#since = 1
    this.received = 0
    this.isDead = false
    this.isDown = !this.#hasReader
    this.#isReaderCut = this.#hasReader && !this.#isReaderNext
    this.#isReaderNext = false
    this.connection++
    this.onRenewed()
    return lost
  }
}

export class SimPort implements Port {
  readonly #arena: Arena
  readonly #outlet: Outlet | ((frame: Uint8Array) => Outlet | undefined)
  #inbox: Uint8Array[] = []
  #taken = 0
  /** Frames that were taken, in all. */
  received = 0
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

  /** True if a frame waits of which this is true. */
  hasWaiting(is: (frame: Uint8Array) => boolean): boolean {
    return this.#inbox.slice(this.#taken).some((frame) => is(frame))
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
      this.received++
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

/** The writing end of a ring. */
export class SimRingWriter extends SimPort implements TakeBackPort {
  readonly #ring: SimRing
  readonly #lose: (frame: Uint8Array) => void
  readonly #words: Arena

  constructor(arena: Arena, outlet: Outlet, ring: SimRing, lose: (frame: Uint8Array) => void) {
    super(arena, outlet)
    this.#ring = ring
    this.#lose = lose
    this.#words = arena
  }

  get isUp(): boolean {
    return !this.#ring.isDown
  }

  override send(frame: number, length: number): boolean {
    return !this.#ring.isDown && super.send(frame, length)
  }

  override sendReserved(frame: number, length: number): boolean {
    return !this.#ring.isDown && super.sendReserved(frame, length)
  }

  get connection(): number {
    return this.#ring.connection
  }

  readonly receivedPosition = 0
  readonly isCrowded = false

  get sentPosition(): number {
    return this.#ring.sent
  }

  release(): void {
    // What is received on this port is of another link.
  }

  sever(): void {
    this.#ring.isDead = this.#ring.isDown = true
  }

  get canTakeBack(): boolean {
    return this.#ring.isDead
  }

  beginTakeBack(): number {
    for (const frame of this.#ring.beginTakeBack()) this.#lose(frame)
    return this.#ring.first
  }

  get takeBackLeft(): number {
    return this.#ring.kept.length
  }

  takeBack(pool: PacketPool, descriptors: number, max: number): number {
    const { i32, u8 } = this.#words
    let count = 0
    for (; count < max && this.#ring.kept.length > 0; count++) {
      const length = (this.#ring.kept[0] as Uint8Array).length
      const slot = pool.take(length)
      if (slot === 0) break
      u8.set(this.#ring.takeBack() as Uint8Array, slot + SLOT_FRAME_OFFSET)
      describeFrame(i32, descriptors + count * DESCRIPTOR_WORDS, slot, length)
    }
    return count
  }

  endTakeBack(): void {
    for (const frame of this.#ring.renew()) this.#lose(frame)
  }
}

/** The reading end of a ring: what it receives stays there until it is given back. */
export class SimRingReader extends SimPort implements TakeBackPort {
  readonly #ring: SimRing
  readonly #crowded: number

  /** @param crowded with more frames that have been received and not given back the ring is nearly full */
  constructor(arena: Arena, outlet: Outlet, ring: SimRing, crowded = CROWDED) {
    super(arena, outlet)
    this.#ring = ring
    this.#crowded = crowded
    ring.readerCame()
    ring.onRenewed = () => { super.lose() }
  }

  override receive(pool: PacketPool, descriptors: number, max: number): number {
    const count = super.receive(pool, descriptors, max)
    this.#ring.received += count
    return count
  }

  /** It stays in the ring. */
  override lose(): Uint8Array[] {
    super.lose()
    return []
  }

  readonly isUp = true
  readonly sentPosition = 0
  readonly canTakeBack = false
  readonly takeBackLeft = 0

  get isCrowded(): boolean {
    return this.#ring.received + 1 - this.#ring.first > this.#crowded
  }

  get connection(): number {
    return this.#ring.connection
  }

  get receivedPosition(): number {
    return this.#ring.received
  }

  release(position: number): void {
    this.#ring.release(position)
  }

  sever(): void {
    // Switches do.
  }

  beginTakeBack(): number {
    return 0
  }

  takeBack(): number {
    return 0
  }

  endTakeBack(): void {
    // Nothing is taken back here.
  }
}
