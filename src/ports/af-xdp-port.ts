/**
 * AF_XDP port: frames of a network interface, taken by a program in the kernel right where they come in, through rings that the kernel
 * and we share. For external interfaces, and for links between nodes over a veth.
 *
 *     receive    fill ring (ours: free chunks) → kernel → receive ring → a slot of the pool, the chunk goes back to the fill ring
 *     send       a free chunk → transmit ring → kernel → completion ring → free again
 *
 * Every receive queue of the interface has its rings; they take turns. Frames leave by the first queue, and so in order.
 *
 * The program takes every frame: the host's own stack sees nothing of what comes in. Frames come as they are in memory, with nothing said
 * about them. So what a sender on this machine leaves to a card can be seen only in part: a checksum that is not finished is found by what
 * it holds, and finished; a segment that was to be cut is longer than a chunk, and dropped and counted (`rxOversize`). Such a segment
 * that comes from another port is cut when it leaves here.
 */

import type { TimeUs } from '../base/clock.ts'
import { CodedError } from '../base/coded-error.ts'
import type { Arena } from '../memory/arena.ts'
import { DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import { describeFrame, type PacketPool, SLOT_FRAME_OFFSET } from '../packet/packet-pool.ts'
import { ETHERNET_BYTES, ETHERNET_TYPE, isVlanTag, NFACTOR_TYPE_WORD, VLAN_TAG_BYTES } from '../wire/ethernet.ts'
import { AfXdpSocket, type AfXdpMode, type XdpQueue } from './af-xdp-socket.ts'
import { loadFrameBytes, type FrameBytes } from './kernels/frame-bytes.ts'
import { PortStatistics, SEGMENT_BYTES_OFFSET, type InterfacePortOptions, type LinkPort } from './link-port.ts'
import { SegmentCutter } from './segment-cutter.ts'
import * as sys from './sys.ts'
import { completeFoundChecksum, locateTcp, TcpPlace } from './virtio-net-header.ts'

export interface AfXdpPortOptions extends InterfacePortOptions {
  /** Frames in the rings of each receive queue, and in the transmit ring: powers of two. Memory for each is locked. */
  readonly rxFrames?: number
  readonly txFrames?: number
  /** Frames that data leaves free in the transmit ring for NFactor's own messages. */
  readonly reserved?: number
  /** The quickest way to have frames that is tried: `zero-copy` unless told. What the interface cannot do, the next one is taken for. */
  readonly mode?: AfXdpMode
}

const RX_FRAMES = 4096
const TX_FRAMES = 1024
const RESERVED = 32
/** How long to wait before looking again for an interface that has gone, and between looks at its queues, microseconds. */
const RETRY_US = 100_000
const QUEUES_US = 1_000_000
/** Frames that the kernel is told of at the latest, and frames that it sends at one call where it copies. */
const KICK_FRAMES = 32
/** Longest segment that is to be cut: over IPv6, with a tag. */
const SEGMENT_BYTES_MAX = 65_535 + 40 + ETHERNET_BYTES + VLAN_TAG_BYTES
/** Words of an entry: address (64 bits), length, options; or an address alone. */
const DESCRIPTION_WORDS = 4
const DESCRIPTION_LENGTH = 2
const ADDRESS_WORDS = 2
const NEEDS_WAKEUP = 1

export class AfXdpPort implements LinkPort {
  readonly name: string
  readonly statistics = new PortStatistics()
  /** Longest frame: a TCP segment of 64 KiB, which is cut. Anything else is bounded by the interface's MTU. */
  readonly frameBytesMax = SEGMENT_BYTES_MAX
  /** Why the port went down, for people. */
  lastEnd = ''
  readonly #arena: Arena
  readonly #bytes: FrameBytes
  readonly #socket: AfXdpSocket
  readonly #reserved: number
  readonly #isOutside: boolean
  readonly #cutter: SegmentCutter
  readonly #place = new TcpPlace()
  /** Chunks that can be sent from: the first `#freeCount`. */
  readonly #free: Int32Array
  #freeCount = 0
  /** Frames that the kernel has not been told of, and whether it has left some of the others. */
  #txWaiting = 0
  #hasLeft = false
  #isOpen = false
  /** The queue that is next to be looked at first. */
  #turn = 0
  #plainBytesMax = 0
  #retryAt = -Infinity
  #queuesAt = -Infinity

  /** @throws CodedError `NF_CONFIG_INVALID` */
  constructor(options: AfXdpPortOptions) {
    const { arena, rxFrames = RX_FRAMES, txFrames = TX_FRAMES, mode = 'zero-copy' } = options
    this.name = options.name ?? options.interface
    for (const frames of [rxFrames, txFrames]) {
      if (!(Number.isInteger(frames) && (frames & (frames - 1)) === 0 && frames >= 64 && frames <= 32_768)) {
        throw new CodedError('NF_CONFIG_INVALID',
          `port ${this.name}: a ring of ${frames} frames is not possible, powers of two from 64 to 32768 are`)
      }
    }
    this.#arena = arena
    this.#bytes = loadFrameBytes(arena)
    this.#socket = new AfXdpSocket(arena, this.name, options.interface, options.namespace, rxFrames, txFrames, mode)
    this.#reserved = Math.min(options.reserved ?? RESERVED, txFrames >> 1)
    this.#isOutside = options.leads !== 'inside'
    this.#cutter = new SegmentCutter(arena, this.#bytes)
    this.#free = new Int32Array(txFrames)
  }

  get isUp(): boolean {
    return this.#socket.interface.isRunning
  }

  /** The interface's maximum transmission unit, 0 while the port is closed. */
  get mtu(): number {
    return this.#socket.interface.mtu
  }

  /** How frames come; an empty text while the port is closed. */
  get mode(): AfXdpMode | '' {
    return this.#socket.mode
  }

  /** Receive queues of the interface. */
  get queues(): number {
    return this.#socket.queues.length
  }

  // -- Receiving -----------------------------------------------------------------------------------------------------------

  receive(pool: PacketPool, descriptors: number, max: number): number {
    this.flush()
    const { queues } = this.#socket
    let count = 0
    for (let i = 0; i < queues.length && count < max; i++) {
      const turn = this.#turn + i
      const queue = queues[turn < queues.length ? turn : turn - queues.length]
      count += this.#receiveBy(queue, pool, descriptors + count * DESCRIPTOR_WORDS, max - count)
    }
    this.#turn = this.#turn + 1 < queues.length ? this.#turn + 1 : 0
    return count
  }

  #receiveBy(queue: XdpQueue, pool: PacketPool, descriptors: number, max: number): number {
    const { i32 } = this.#arena
    const { chunks, chunkBytes } = this.#socket
    const { rx, fill } = queue
    const ready = (Atomics.load(i32, rx.producer) - rx.next) | 0
    let looked = 0
    let count = 0
    // Frames that are not right take their turn as well: there is an end to every call.
    for (; looked < ready && count < max; looked++) {
      const at = rx.entries + ((rx.next + looked) & rx.mask) * DESCRIPTION_WORDS
      const address = i32[at]
      const got = this.#take(chunks + address, i32[at + DESCRIPTION_LENGTH], pool, descriptors + count * DESCRIPTOR_WORDS)
      if (got < 0) break
      count += got
      // The upper half of an address is never written, and 0.
      i32[fill.entries + ((fill.next + looked) & fill.mask) * ADDRESS_WORDS] = address & -chunkBytes
    }
    if (looked > 0) {
      rx.next = (rx.next + looked) | 0
      fill.next = (fill.next + looked) | 0
      Atomics.store(i32, rx.consumer, rx.next)
      Atomics.store(i32, fill.producer, fill.next)
    }
    if (this.#socket.mode === 'zero-copy' && (Atomics.load(i32, fill.flags) & NEEDS_WAKEUP) !== 0) sys.receiveDatagram(queue.fd, 0, 0)
    return count
  }

  /** Takes a frame from its chunk. Returns 1 if it has become one of the batch, 0 if it is not right, -1 if there is no slot for it. */
  #take(from: number, length: number, pool: PacketPool, d: number): number {
    const { statistics } = this
    const arena = this.#arena
    if (length < ETHERNET_BYTES) {
      statistics.rxInvalid++
      return 0
    }
    if (this.#isOutside && arena.u16[(from + ETHERNET_TYPE) >> 1] === NFACTOR_TYPE_WORD) {
      statistics.rxForeign++
      return 0
    }
    const slot = pool.take(length)
    if (slot === 0) return -1
    const frame = slot + SLOT_FRAME_OFFSET
    this.#bytes.copyBytes(frame, from, length)
    completeFoundChecksum(arena, this.#bytes, frame, length, this.#place)
    arena.u16[(frame + SEGMENT_BYTES_OFFSET) >> 1] = 0
    describeFrame(arena.i32, d, slot, length)
    statistics.rxFrames++
    statistics.rxBytes += length
    return 1
  }

  // -- Sending -------------------------------------------------------------------------------------------------------------

  send(frame: number, length: number): boolean {
    return this.#send(frame, length, this.#reserved)
  }

  sendReserved(frame: number, length: number): boolean {
    return this.#send(frame, length, 0)
  }

  #send(frame: number, length: number, reserve: number): boolean {
    return length > this.#plainBytesMax || length < ETHERNET_BYTES
      ? this.#sendLong(frame, length, reserve) : this.#sendWhole(frame, length, reserve)
  }

  #sendWhole(frame: number, length: number, reserve: number): boolean {
    if (!this.#hasRoom(reserve + 1)) return this.#refuse()
    const chunk = this.#free[--this.#freeCount]
    this.#bytes.copyBytes(this.#socket.chunks + chunk, frame, length)
    this.#submit(chunk, length)
    return true
  }

  #refuse(): boolean {
    this.statistics.txFull++
    return false
  }

  /** A frame that is longer than the interface's MTU, unless it has tags: a TCP segment that was to be cut, which is cut here. */
  #sendLong(frame: number, length: number, reserve: number): boolean {
    const arena = this.#arena
    if (!this.isUp) return this.#refuse()
    const place = this.#place
    // One tag may come on top of the MTU.
    const isTagged = length >= ETHERNET_BYTES + VLAN_TAG_BYTES && isVlanTag(arena.view.getUint16(frame + ETHERNET_TYPE))
    if (isTagged && length <= this.#plainBytesMax + VLAN_TAG_BYTES) return this.#sendWhole(frame, length, reserve)
    if (length <= this.frameBytesMax && locateTcp(arena, frame, length, place)) {
      const wanted = (frame & 1) === 0 ? arena.u16[(frame + SEGMENT_BYTES_OFFSET) >> 1] : 0
      const fitting = this.mtu - (place.payload - place.network)
      const segmentBytes = wanted === 0 || wanted > fitting ? fitting : wanted
      const count = segmentBytes > 0 ? Math.ceil((place.end - place.payload) / segmentBytes) : Infinity
      if (count <= this.#free.length - reserve && this.#cutter.begin(frame, place.end, place.network, place.transport, segmentBytes, true)) {
        if (!this.#hasRoom(reserve + count)) return this.#refuse()
        for (let bytes = this.#cutter.nextLength; bytes > 0; bytes = this.#cutter.nextLength) {
          const chunk = this.#free[--this.#freeCount]
          this.#cutter.write(this.#socket.chunks + chunk)
          this.#submit(chunk, bytes)
        }
        return true
      }
    }
    this.statistics.txOversize++
    return false
  }

  /** Whether so many chunks can be sent from. */
  #hasRoom(wanted: number): boolean {
    if (!this.isUp) return false
    if (this.#freeCount >= wanted || this.#reclaim() >= wanted) return true
    // Those that the kernel has not been told of cannot come back.
    this.flush()
    return this.#reclaim() >= wanted
  }

  /** Takes chunks that have been sent from back. Returns how many are free. */
  #reclaim(): number {
    const { sending } = this.#socket
    if (sending === undefined) return 0
    const { completion } = sending
    const { i32 } = this.#arena
    const end = Atomics.load(i32, completion.producer)
    if (end === completion.next) return this.#freeCount
    for (let at = completion.next; at !== end; at = (at + 1) | 0) {
      this.#free[this.#freeCount++] = i32[completion.entries + (at & completion.mask) * ADDRESS_WORDS]
    }
    completion.next = end
    Atomics.store(i32, completion.consumer, end)
    return this.#freeCount
  }

  #submit(chunk: number, length: number): void {
    const { sending } = this.#socket
    if (sending === undefined) return
    const { i32 } = this.#arena
    const { tx } = sending
    const at = tx.entries + (tx.next & tx.mask) * DESCRIPTION_WORDS
    i32[at] = chunk
    i32[at + DESCRIPTION_LENGTH] = length
    tx.next = (tx.next + 1) | 0
    this.statistics.txFrames++
    this.statistics.txBytes += length
    if (++this.#txWaiting >= KICK_FRAMES) this.flush()
  }

  get room(): number {
    return this.isUp ? Math.max(0, this.#reclaim() - this.#reserved) : 0
  }

  flush(): void {
    if (this.#txWaiting === 0 && !this.#hasLeft) return
    const { sending } = this.#socket
    if (sending === undefined) return
    const { i32 } = this.#arena
    const { fd, tx } = sending
    Atomics.store(i32, tx.producer, tx.next)
    this.#txWaiting = 0
    this.#hasLeft = false
    if (this.#socket.mode === 'zero-copy') {
      if ((Atomics.load(i32, tx.flags) & NEEDS_WAKEUP) !== 0) sys.kick(fd)
      this.#hasLeft = Atomics.load(i32, tx.consumer) !== tx.next
      return
    }
    // One call sends a part only. Out of buffers or down, the kernel leaves some: they go with the next call.
    for (let before = Atomics.load(i32, tx.consumer); before !== tx.next;) {
      sys.kick(fd)
      const after = Atomics.load(i32, tx.consumer)
      this.#hasLeft = after !== tx.next
      if (after === before) break
      before = after
    }
  }

  // -- Opening, closing and the state of the interface -------------------------------------------------------------------

  /**
   * @throws CodedError `NF_PORT_PRIVILEGE`, `NF_PORT_UNSUPPORTED` (of the kernel, or an MTU too large), `NF_PORT_INTERFACE`, `NF_PORT_BUSY`
   *   (another program has the interface), `NF_LIMIT` (no room in the arena), `NF_PORT_FAILED`
   */
  open(): void {
    if (this.#isOpen) return
    this.#begin(true)
    this.#isOpen = true
    this.#retryAt = -Infinity
  }

  #begin(isPatient: boolean): void {
    const socket = this.#socket
    socket.open(isPatient)
    this.#freeCount = this.#free.length
    for (let i = 0; i < this.#freeCount; i++) this.#free[i] = socket.firstToSend + (this.#freeCount - 1 - i) * socket.chunkBytes
    this.#txWaiting = this.#turn = 0
    this.#hasLeft = false
    this.#plainBytesMax = this.mtu + ETHERNET_BYTES
    if (this.isUp) this.statistics.connections++
  }

  close(): void {
    if (!this.#isOpen) return
    this.#isOpen = false
    this.#leave()
  }

  #leave(): void {
    const { sending } = this.#socket
    if (sending === undefined) return
    this.flush()
    this.statistics.txLost += (sending.tx.next - Atomics.load(this.#arena.i32, sending.tx.consumer)) | 0
    this.#count()
    this.#socket.close()
    this.#freeCount = this.#plainBytesMax = this.#txWaiting = 0
    this.#hasLeft = false
  }

  /** Takes up what the kernel has counted since the last time. */
  #count(): void {
    const { statistics } = this
    for (const queue of this.#socket.queues) {
      const { missed, dropped } = queue
      this.#socket.readStatistics(queue)
      statistics.rxMissed += queue.missed - missed
      statistics.rxOversize += queue.dropped - dropped
    }
  }

  maintain(now: TimeUs): void {
    if (!this.#isOpen) return
    if (this.#socket.isOpen) this.#look(now)
    else if (now >= this.#retryAt) this.#retry(now)
  }

  #look(now: TimeUs): void {
    const socket = this.#socket
    this.flush()
    this.#count()
    const wasUp = this.isUp
    let reason = socket.look()
    if (reason === '' && now >= this.#queuesAt) {
      this.#queuesAt = now + QUEUES_US
      reason = socket.lookAtQueues()
    }
    this.#plainBytesMax = this.mtu + ETHERNET_BYTES
    if (reason !== '') {
      this.lastEnd = reason
      this.#leave()
      this.#retryAt = now + RETRY_US
    } else if (!wasUp && this.isUp) {
      this.statistics.connections++
    }
  }

  #retry(now: TimeUs): void {
    this.#retryAt = now + RETRY_US
    try {
      this.#begin(false)
    } catch (error) {
      if (!(error instanceof CodedError)) throw error
      this.lastEnd = error.message
    }
  }

  // -- Waiting -------------------------------------------------------------------------------------------------------------

  arm(): boolean {
    this.flush()
    const { i32 } = this.#arena
    for (const { rx } of this.#socket.queues) {
      if (Atomics.load(i32, rx.producer) !== rx.next) return false
    }
    return true
  }

  disarm(): void {
    // The kernel wakes whoever waits, and costs nothing while nobody does.
  }

  waitDescriptors(list: number[]): void {
    if (!this.#socket.isOpen) return
    list.push(this.#socket.watchFd)
    for (const { fd } of this.#socket.queues) list.push(fd)
  }
}
