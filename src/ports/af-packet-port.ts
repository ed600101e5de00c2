/**
 * Packet socket port: frames of a network interface through rings that the kernel and we share (packet(7), TPACKET_V2), mapped over
 * the arena. For external interfaces, and for links between nodes over a veth.
 *
 *     rx ring │ header 32.. │ vnet header 10 │ frame ... │ next        status: kernel's → user's → kernel's
 *     tx ring │ header 32 │ vnet header 10 │ frame ...   │ next        status: available → send request → sending → available
 *
 * Every frame has a vnet header (PACKET_VNET_HDR): the kernel says there what it has left undone. Checksums that are not finished
 * are finished on the way in, so that what network functions see is right and can leave anywhere. A TCP segment that a card was to cut
 * is passed on as the one long frame that it is, with the size of its segments before it (see SEGMENT_BYTES_OFFSET), and leaves by a
 * port like this one to be cut by the kernel or the card; or it is cut on the way in (`segments: 'cut'`). UDP datagrams that were to be
 * cut always are: they are several. A VLAN tag that the kernel has taken off is put back. With all that TCP works with the offloads
 * that an interface has by default.
 *
 * Frames that the host itself sends on the interface are not received; the host's own stack still sees what comes in, so the
 * interface should have no addresses.
 */

import type { TimeUs } from '../base/clock.ts'
import { CodedError } from '../base/coded-error.ts'
import type { Arena } from '../memory/arena.ts'
import { DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import { describeFrame, FRAME_BYTES_MAX, type PacketPool, SLOT_FRAME_OFFSET } from '../packet/packet-pool.ts'
import { ETHERNET_BYTES, ETHERNET_TYPE, EtherType, isVlanTag, NFACTOR_TYPE_WORD, VLAN_TAG_BYTES } from '../wire/ethernet.ts'
import { AfPacketSocket, SEGMENT_FRAME_BYTES } from './af-packet-socket.ts'
import { loadFrameBytes, type FrameBytes } from './kernels/frame-bytes.ts'
import { PortStatistics, SEGMENT_BYTES_OFFSET, type InterfacePortOptions, type LinkPort } from './link-port.ts'
import { SegmentCutter } from './segment-cutter.ts'
import * as sys from './sys.ts'
import type { Destination } from './watched-interface.ts'
import {
  completeChecksum, locateTcp, Segmentation, TcpPlace, VNET_CHECKSUM_OFFSET, VNET_CHECKSUM_START, VNET_FLAGS, VNET_HEADER_BYTES,
  VNET_NEEDS_CHECKSUM, VNET_SEGMENT_BYTES, VNET_SEGMENTATION, writeSegmentationHeader,
} from './virtio-net-header.ts'

export interface AfPacketPortOptions extends InterfacePortOptions {
  /** Frames in the rings, at least; the kernel keeps the memory of each. */
  readonly rxFrames?: number
  readonly txFrames?: number
  /**
   * Bytes of a frame in the rings: 69,632, which holds every segment; or a power of two from 2,048 to 65,536 where no segments come,
   * as on links between nodes. Some 100 bytes of it are the ring's own.
   */
  readonly frameBytes?: number
  /** Frames that data leaves free in the transmit ring for NFactor's own messages. */
  readonly reserved?: number
  /** What becomes of TCP segments that were to be cut. */
  readonly segments?: 'pass' | 'cut'
  /** Frames to these addresses alone are received: the kernel leaves out all others. */
  readonly destination?: Destination
}

/** Longest segment that is to be cut: over IPv6, with a tag. */
const SEGMENT_BYTES_MAX = 65_535 + 40 + ETHERNET_BYTES + VLAN_TAG_BYTES
/** Enough for some 20 ms of 50,000 packets a second: where cores are shared a switch may have to wait so long for one. */
const RX_FRAMES = 1020
const TX_FRAMES = 255
const RESERVED = 32
/** How long to wait before looking again for an interface that has gone, microseconds. */
const RETRY_US = 100_000
/** Frames that the kernel is told of at the latest. */
const KICK_FRAMES = 32

// Frames in the rings: tpacket2_hdr.
const STATUS = 0
const TP_LENGTH = 4
const TP_SNAP_LENGTH = 8
const TP_MAC = 12
const TP_VLAN_TCI = 24
const TP_VLAN_TPID = 26
const STATUS_KERNEL = 0
const STATUS_USER = 1
const STATUS_VLAN_VALID = 0x10
const STATUS_VLAN_TPID_VALID = 0x40
const STATUS_SEND_REQUEST = 1
const STATUS_SENDING = 2
/** Where the data of a frame to be sent begins: the header without the address behind it. */
const TX_DATA = 32

export class AfPacketPort implements LinkPort {
  readonly name: string
  readonly statistics = new PortStatistics()
  /** Longest frame: a TCP segment of 64 KiB, which will be cut. Anything else is bounded by the interface's MTU. */
  readonly frameBytesMax: number
  /** Why the port went down, for people. */
  lastEnd = ''
  readonly #arena: Arena
  readonly #bytes: FrameBytes
  readonly #socket: AfPacketSocket
  readonly #reserved: number
  readonly #isCutting: boolean
  readonly #isOutside: boolean
  readonly #cutter: SegmentCutter
  readonly #place = new TcpPlace()
  #isOpen = false
  #isCut = false
  /** Numbers of frames in the rings: the next to look at, the next to fill, the oldest that has not come back. */
  #rxNext = 0
  #txNext = 0
  #txOldest = 0
  #txInFlight = 0
  /** Frames that the kernel has not been told of, and the last frame filled. */
  #txWaiting = 0
  #txLast = 0
  #retryAt = -Infinity

  constructor(options: AfPacketPortOptions) {
    const { arena, rxFrames = RX_FRAMES, txFrames = TX_FRAMES, frameBytes = SEGMENT_FRAME_BYTES } = options
    this.name = options.name ?? options.interface
    for (const frames of [rxFrames, txFrames]) {
      if (!(Number.isInteger(frames) && frames >= 1 && frames <= 8192)) {
        throw new CodedError('NF_CONFIG_INVALID', `port ${this.name}: a ring of ${frames} frames is not possible, 1 to 8192 are`)
      }
    }
    const isPowerOfTwo = Number.isInteger(frameBytes) && (frameBytes & (frameBytes - 1)) === 0 && frameBytes >= 2048 && frameBytes <= 65_536
    if (!isPowerOfTwo && frameBytes !== SEGMENT_FRAME_BYTES) {
      throw new CodedError('NF_CONFIG_INVALID',
        `port ${this.name}: ring frames of ${frameBytes} bytes are not possible, ${SEGMENT_FRAME_BYTES} or a power of two from 2048 are`)
    }
    this.#arena = arena
    this.#bytes = loadFrameBytes(arena)
    this.#socket = new AfPacketSocket(arena, this.name, options.interface, options.namespace, rxFrames, txFrames, frameBytes,
      options.destination)
    this.frameBytesMax = Math.min(SEGMENT_BYTES_MAX, this.#socket.sendBytesMax)
    this.#reserved = Math.min(options.reserved ?? RESERVED, this.#socket.txFrames >> 1)
    this.#isCutting = options.segments === 'cut'
    this.#isOutside = options.leads !== 'inside'
    this.#cutter = new SegmentCutter(arena, this.#bytes)
  }

  get isUp(): boolean {
    return this.#socket.isRunning
  }

  /** The interface's maximum transmission unit, 0 while the port is closed. */
  get mtu(): number {
    return this.#socket.mtu
  }

  // -- Receiving -----------------------------------------------------------------------------------------------------------

  receive(pool: PacketPool, descriptors: number, max: number): number {
    this.flush()
    const socket = this.#socket
    if (socket.fd < 0) return 0
    const { i32 } = this.#arena
    const { rxFrames } = socket
    let count = 0
    // Frames that are not right take their turn as well: there is an end to every call.
    for (let looked = 0; looked < rxFrames && count < max; looked++) {
      const at = socket.rxFrame(this.#rxNext)
      const status = Atomics.load(i32, (at + STATUS) >> 2)
      if ((status & STATUS_USER) === 0) break
      const got = this.#take(at, status, pool, descriptors + count * DESCRIPTOR_WORDS, max - count)
      if (got < 0) break
      count += got
      // One of several segments: the frame stays until the last of them has been taken.
      if (this.#isCut) break
      Atomics.store(i32, (at + STATUS) >> 2, STATUS_KERNEL)
      this.#rxNext = this.#rxNext + 1 === rxFrames ? 0 : this.#rxNext + 1
    }
    return count
  }

  /** True while frames wait. */
  get #hasFrames(): boolean {
    const { fd } = this.#socket
    return fd >= 0 && (Atomics.load(this.#arena.i32, this.#socket.rxFrame(this.#rxNext) >> 2) & STATUS_USER) !== 0
  }

  /** Takes one frame of the ring. Returns how many frames it has become, -1 if it has to stay for want of a slot. */
  #take(at: number, status: number, pool: PacketPool, d: number, max: number): number {
    const { i32, u16, u8 } = this.#arena
    const statistics = this.statistics
    const length = i32[(at + TP_LENGTH) >> 2]
    const from = at + u16[(at + TP_MAC) >> 1]
    // A frame cut short is of no use.
    if (length !== i32[(at + TP_SNAP_LENGTH) >> 2]) {
      statistics.rxOversize++
      return 0
    }
    if (length < ETHERNET_BYTES) {
      statistics.rxInvalid++
      return 0
    }
    if (this.#isOutside && u16[(from + ETHERNET_TYPE) >> 1] === NFACTOR_TYPE_WORD) {
      statistics.rxForeign++
      return 0
    }
    const header = from - VNET_HEADER_BYTES
    const segmentation = u8[header + VNET_SEGMENTATION] & ~Segmentation.ecn
    const tag = (status & STATUS_VLAN_VALID) !== 0 ? VLAN_TAG_BYTES : 0
    if (segmentation === Segmentation.udp || (this.#isCutting && segmentation !== Segmentation.none)) {
      return this.#takeSegments(at, status, from, length, segmentation, pool, d, max)
    }
    const total = length + tag
    if (total > FRAME_BYTES_MAX) {
      statistics.rxOversize++
      return 0
    }
    const slot = pool.take(total)
    if (slot === 0) return -1
    const frame = slot + SLOT_FRAME_OFFSET
    this.#copyIn(at, status, from, length, frame)
    if ((u8[header + VNET_FLAGS] & VNET_NEEDS_CHECKSUM) !== 0) {
      const start = this.#header16(header + VNET_CHECKSUM_START) + tag
      if (!completeChecksum(this.#arena, this.#bytes, frame, total, start, start + this.#header16(header + VNET_CHECKSUM_OFFSET))) {
        statistics.rxInvalid++
        pool.give(slot)
        return 0
      }
    }
    u16[(frame + SEGMENT_BYTES_OFFSET) >> 1] = segmentation === Segmentation.none ? 0 : this.#header16(header + VNET_SEGMENT_BYTES)
    this.#describe(d, slot, total)
    return 1
  }

  #header16(at: number): number {
    const { u8 } = this.#arena
    return u8[at] | (u8[at + 1] << 8)
  }

  #describe(d: number, slot: number, length: number): void {
    const { i32 } = this.#arena
    describeFrame(i32, d, slot, length)
    this.statistics.rxFrames++
    this.statistics.rxBytes += length
  }

  /** Copies a frame out of the ring, and puts its VLAN tag back where it was. */
  #copyIn(at: number, status: number, from: number, length: number, frame: number): void {
    if ((status & STATUS_VLAN_VALID) === 0) {
      this.#bytes.copyBytes(frame, from, length)
      return
    }
    const { u16, view } = this.#arena
    this.#bytes.copyBytes(frame, from, ETHERNET_TYPE)
    const tpid = (status & STATUS_VLAN_TPID_VALID) !== 0 ? u16[(at + TP_VLAN_TPID) >> 1] : EtherType.vlan
    view.setUint16(frame + ETHERNET_TYPE, tpid)
    view.setUint16(frame + ETHERNET_TYPE + 2, u16[(at + TP_VLAN_TCI) >> 1])
    this.#bytes.copyBytes(frame + ETHERNET_TYPE + VLAN_TAG_BYTES, from + ETHERNET_TYPE, length - ETHERNET_TYPE)
  }

  /** Takes segments of a frame that is cut here, as many as there are places and slots for. */
  #takeSegments(
    at: number, status: number, from: number, length: number, segmentation: number, pool: PacketPool, d: number, max: number,
  ): number {
    const { u16, view } = this.#arena
    const cutter = this.#cutter
    const header = from - VNET_HEADER_BYTES
    if (!this.#isCut) {
      let network = ETHERNET_TYPE
      while (network < length && isVlanTag(view.getUint16(from + network))) network += VLAN_TAG_BYTES
      const transport = this.#header16(header + VNET_CHECKSUM_START)
      const segmentBytes = this.#header16(header + VNET_SEGMENT_BYTES)
      if (!cutter.begin(from, length, network + 2, transport, segmentBytes, segmentation !== Segmentation.udp)) {
        this.statistics.rxInvalid++
        return 0
      }
      this.#isCut = true
    }
    const tag = (status & STATUS_VLAN_VALID) !== 0 ? VLAN_TAG_BYTES : 0
    let count = 0
    for (; count < max; count++) {
      const bytes = cutter.nextLength
      if (bytes === 0) {
        this.#isCut = false
        break
      }
      const slot = pool.take(bytes + tag)
      if (slot === 0) break
      const frame = slot + SLOT_FRAME_OFFSET
      if (tag === 0) {
        cutter.write(frame)
      } else {
        cutter.write(frame + tag)
        this.#copyIn(at, status, frame + tag, ETHERNET_TYPE, frame)
      }
      u16[(frame + SEGMENT_BYTES_OFFSET) >> 1] = 0
      this.#describe(d + count * DESCRIPTOR_WORDS, slot, bytes + tag)
    }
    if (this.#isCut && cutter.nextLength === 0) this.#isCut = false
    return count
  }

  // -- Sending -------------------------------------------------------------------------------------------------------------

  send(frame: number, length: number): boolean {
    return this.#send(frame, length, this.#reserved)
  }

  sendReserved(frame: number, length: number): boolean {
    return this.#send(frame, length, 0)
  }

  #send(frame: number, length: number, reserve: number): boolean {
    if (length > this.#socket.plainBytesMax || length < ETHERNET_BYTES) return this.#sendLong(frame, length, reserve)
    const at = this.#nextPlace(reserve)
    if (at === 0) {
      this.statistics.txFull++
      return false
    }
    this.#clearHeader(at + TX_DATA)
    this.#bytes.copyBytes(at + TX_DATA + VNET_HEADER_BYTES, frame, length)
    this.#submit(at, length)
    return true
  }

  /** A frame that is longer than the interface's MTU, unless it has tags: to be cut into segments on the way, if it can be. */
  #sendLong(frame: number, length: number, reserve: number): boolean {
    const { u16, view } = this.#arena
    const { plainBytesMax, mtu } = this.#socket
    const statistics = this.statistics
    // One tag may come on top of the MTU.
    const tagBytes = length > ETHERNET_BYTES && isVlanTag(view.getUint16(frame + ETHERNET_TYPE)) ? VLAN_TAG_BYTES : 0
    const place = this.#place
    let segmentBytes = 0
    if (length > plainBytesMax + tagBytes || length < ETHERNET_BYTES) {
      if (length > this.frameBytesMax || length < ETHERNET_BYTES || !locateTcp(this.#arena, frame, length, place)) {
        statistics.txOversize++
        return false
      }
      const fitting = mtu - (place.payload - place.network)
      segmentBytes = (frame & 1) === 0 ? u16[(frame + SEGMENT_BYTES_OFFSET) >> 1] : 0
      if (segmentBytes === 0 || segmentBytes > fitting) segmentBytes = fitting
      if (segmentBytes <= 0) {
        statistics.txOversize++
        return false
      }
    }
    const at = this.#nextPlace(reserve)
    if (at === 0) {
      statistics.txFull++
      return false
    }
    const header = at + TX_DATA
    const copy = header + VNET_HEADER_BYTES
    this.#clearHeader(header)
    this.#bytes.copyBytes(copy, frame, length)
    if (segmentBytes > 0) writeSegmentationHeader(this.#arena, this.#bytes, header, copy, place, segmentBytes)
    this.#submit(at, length)
    return true
  }

  #clearHeader(at: number): void {
    const { i32, u16 } = this.#arena
    i32[at >> 2] = 0
    i32[(at + 4) >> 2] = 0
    u16[(at + 8) >> 1] = 0
  }

  /** The next frame of the transmit ring, 0 when there are none but `reserve`. */
  #nextPlace(reserve: number): number {
    const socket = this.#socket
    if (!socket.isRunning) return 0
    const limit = socket.txFrames - reserve
    if (this.#txInFlight >= limit && this.#reclaim() >= limit) {
      // Those that the kernel has not been told of cannot come back.
      this.flush()
      if (this.#reclaim() >= limit) return 0
    }
    return socket.txFrame(this.#txNext)
  }

  /** Looks which frames have come back. Returns how many have not. */
  #reclaim(): number {
    const { i32 } = this.#arena
    const socket = this.#socket
    while (this.#txInFlight > 0) {
      const status = Atomics.load(i32, socket.txFrame(this.#txOldest) >> 2)
      if (status === STATUS_SEND_REQUEST || status === STATUS_SENDING) break
      this.#txOldest = this.#txOldest + 1 === socket.txFrames ? 0 : this.#txOldest + 1
      this.#txInFlight--
    }
    return this.#txInFlight
  }

  #submit(at: number, length: number): void {
    const { i32 } = this.#arena
    i32[(at + TP_LENGTH) >> 2] = length + VNET_HEADER_BYTES
    Atomics.store(i32, (at + STATUS) >> 2, STATUS_SEND_REQUEST)
    this.#txLast = at
    this.#txNext = this.#txNext + 1 === this.#socket.txFrames ? 0 : this.#txNext + 1
    this.#txInFlight++
    this.statistics.txFrames++
    this.statistics.txBytes += length
    if (++this.#txWaiting >= KICK_FRAMES) this.flush()
  }

  get room(): number {
    const { isRunning, txFrames } = this.#socket
    return isRunning ? Math.max(0, txFrames - this.#reserved - this.#reclaim()) : 0
  }

  flush(): void {
    if (this.#txWaiting === 0) return
    sys.kick(this.#socket.fd)
    // Out of buffers or down, the kernel leaves some: they go with the next call.
    this.#txWaiting = Atomics.load(this.#arena.i32, this.#txLast >> 2) === STATUS_SEND_REQUEST ? 1 : 0
  }

  // -- Opening, closing and the state of the interface -------------------------------------------------------------------

  open(): void {
    if (this.#isOpen) return
    this.#socket.open()
    this.#isOpen = true
    this.#retryAt = -Infinity
    this.#begin()
  }

  #begin(): void {
    this.#rxNext = this.#txNext = this.#txOldest = this.#txInFlight = this.#txWaiting = 0
    this.#isCut = false
    if (this.#socket.isRunning) this.statistics.connections++
  }

  close(): void {
    if (!this.#isOpen) return
    this.#isOpen = false
    this.#leave()
  }

  #leave(): void {
    if (this.#socket.fd < 0) return
    this.flush()
    const { i32 } = this.#arena
    for (let i = 0; i < this.#socket.txFrames; i++) {
      if (Atomics.load(i32, this.#socket.txFrame(i) >> 2) === STATUS_SEND_REQUEST) this.statistics.txLost++
    }
    this.statistics.rxMissed += this.#socket.takeMissed()
    this.#socket.close()
    this.#txInFlight = this.#txWaiting = 0
    this.#isCut = false
  }

  maintain(now: TimeUs): void {
    if (!this.#isOpen) return
    const socket = this.#socket
    if (socket.fd >= 0) {
      this.flush()
      this.statistics.rxMissed += socket.takeMissed()
      const wasRunning = socket.isRunning
      const reason = socket.check()
      if (reason !== '') {
        this.lastEnd = reason
        this.#leave()
        this.#retryAt = now + RETRY_US
      } else if (!wasRunning && socket.isRunning) {
        this.statistics.connections++
      }
    } else if (now >= this.#retryAt) {
      this.#retryAt = now + RETRY_US
      try {
        socket.open()
        this.#begin()
      } catch (error) {
        if (!(error instanceof CodedError)) throw error
        this.lastEnd = error.message
      }
    }
  }

  // -- Waiting -------------------------------------------------------------------------------------------------------------

  arm(): boolean {
    this.flush()
    return !this.#hasFrames
  }

  disarm(): void {
    // The kernel wakes whoever waits, and costs nothing while nobody does.
  }

  waitDescriptors(list: number[]): void {
    if (this.#socket.fd >= 0) list.push(this.#socket.fd)
  }
}
