/**
 * TAP port: a network interface of this machine whose other end is this process. What the machine's stack, a bridge or a guest sends
 * on the interface is received here, what is sent here comes in there.
 *
 *     stack, bridge, guest ─▶ interface ─queue of the kernel─▶ receive          send ─▶ interface ─▶ stack, bridge, guest
 *
 * The device is made when the port opens, unless there is one of that name, and goes with it, unless it is a persistent one
 * (`ip tuntap add`). It takes CAP_NET_ADMIN, or a persistent device that belongs to the user.
 *
 * With headers (the default) the kernel leaves work to us, and we to it: checksums that are not finished are finished on the way in;
 * TCP segments of up to 64 KiB come in whole, with the size of what they are to be cut to (SEGMENT_BYTES_OFFSET), unless
 * `segments` says that the kernel is to cut them. One system call per frame: for links to the outside, not between nodes.
 */

import { openSync, readSync } from 'node:fs'
import type { TimeUs } from '../base/clock.ts'
import { CodedError } from '../base/coded-error.ts'
import type { Arena } from '../memory/arena.ts'
import { DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import { describeFrame, FRAME_BYTES_MAX, LARGE_SLOT_BYTES, type PacketPool, SLOT_FRAME_OFFSET } from '../packet/packet-pool.ts'
import { ETHERNET_BYTES, ETHERNET_TYPE, isVlanTag, NFACTOR_TYPE_WORD, VLAN_TAG_BYTES } from '../wire/ethernet.ts'
import { loadFrameBytes, type FrameBytes } from './kernels/frame-bytes.ts'
import { PortStatistics, SEGMENT_BYTES_OFFSET, type InterfacePortOptions, type LinkPort } from './link-port.ts'
import * as sys from './sys.ts'
import { bringUp, MemoryVector, openInterfaceSocket, openTap, setMtu, TapOffload } from './sys-tap.ts'
import {
  completeChecksum, locateTcp, Segmentation, TcpPlace, VNET_CHECKSUM_OFFSET, VNET_CHECKSUM_START, VNET_FLAGS, VNET_HEADER_BYTES,
  VNET_NEEDS_CHECKSUM, VNET_SEGMENT_BYTES, VNET_SEGMENTATION, writeSegmentationHeader,
} from './virtio-net-header.ts'

export interface TapPortOptions extends InterfacePortOptions {
  /** 1 to 15 characters. */
  readonly interface: string
  /** Its maximum transmission unit, 68 to 65,521; left as it is unless told. */
  readonly mtu?: number
  /** False: frames come and go without headers, and nothing is left undone on either side. */
  readonly hasHeaders?: boolean
  /** What becomes of TCP segments that were to be cut: the kernel cuts them without headers in any case. */
  readonly segments?: 'pass' | 'cut'
  /** False: the interface is not brought up; somebody else does. */
  readonly bringsUp?: boolean
}

const IFF_UP_AND_RUNNING = 0x41
/** Errno of a device that is gone. */
const EBADFD = 77
/** Frames that the interface takes in one turn: it has no queue on this side, but memory has an end. */
const ROOM = 4096
/** How long to wait before looking again for a device that has gone, microseconds. */
const RETRY_US = 100_000
/** How often the kernel's counters are read. */
const COUNT_US = 100_000

export class TapPort implements LinkPort {
  readonly name: string
  readonly statistics = new PortStatistics()
  /** Longest frame: a TCP segment of 64 KiB, which will be cut. Anything else is bounded by the interface's MTU. */
  readonly frameBytesMax: number = 65_535 + 40 + ETHERNET_BYTES + VLAN_TAG_BYTES
  /** Why the port went down, for people. */
  lastEnd = ''
  readonly #options: TapPortOptions
  readonly #arena: Arena
  readonly #bytes: FrameBytes
  readonly #base: number
  readonly #headerBytes: number
  readonly #isOutside: boolean
  readonly #place = new TcpPlace()
  /** Where a frame lies that is too long for the slot it was read to, and where one is made ready for being cut. As in a slot. */
  readonly #long: number
  readonly #cut: number
  /** Bytes of a frame there that no slot could be had for. */
  #waiting = 0
  readonly #zeroes: number
  #reading: MemoryVector | undefined
  #writing: MemoryVector | undefined
  #fd = -1
  #interfaceFd = -1
  /** The kernel's table of counters of interfaces; and how many frames had found the queue full when the device was opened. */
  #counters = -1
  #missedBefore = -1
  #countAt: TimeUs = 0
  #isOpen = false
  #isRunning = false
  #isFull = false
  readonly #text = Buffer.alloc(65_536)
  #plainBytesMax = 0
  #retryAt: TimeUs = 0

  /** @throws CodedError `NF_CONFIG_INVALID`, `NF_LIMIT` (no room in the arena), `NF_PORT_UNSUPPORTED` (no Linux, no glibc) */
  constructor(options: TapPortOptions) {
    const { arena, mtu, hasHeaders = true } = options
    this.name = options.name ?? options.interface
    if (!/^[^\s/:%]{1,15}$/.test(options.interface) || /^\.{1,2}$/.test(options.interface)) {
      throw new CodedError('NF_CONFIG_INVALID', `port ${this.name}: ${options.interface} cannot be the name of an interface`,
        'Give 1 to 15 characters without spaces, / : and %.')
    }
    if (mtu !== undefined && !(Number.isInteger(mtu) && mtu >= 68 && mtu <= 65_521)) {
      throw new CodedError('NF_CONFIG_INVALID', `port ${this.name}: an MTU of ${mtu} is not possible, 68 to 65521 are`)
    }
    this.#options = options
    this.#arena = arena
    this.#bytes = loadFrameBytes(arena)
    this.#base = sys.addressOf(arena.u8)
    this.#isOutside = options.leads !== 'inside'
    this.#headerBytes = hasHeaders ? VNET_HEADER_BYTES : 0
    this.#long = arena.allocate(`port ${this.name}`, LARGE_SLOT_BYTES) + SLOT_FRAME_OFFSET
    this.#cut = arena.allocate(`port ${this.name}`, LARGE_SLOT_BYTES) + SLOT_FRAME_OFFSET
    this.#zeroes = arena.allocate(`port ${this.name}: header`, VNET_HEADER_BYTES)
  }

  get isUp(): boolean {
    return this.#isRunning
  }

  /** The interface's maximum transmission unit, 0 while the port is closed. */
  get mtu(): number {
    return Math.max(0, this.#plainBytesMax - ETHERNET_BYTES)
  }

  get room(): number {
    return this.#isRunning && !this.#isFull ? ROOM : 0
  }

  // -- Receiving -------------------------------------------------------------------------------------------------------

  receive(pool: PacketPool, descriptors: number, max: number): number {
    this.#isFull = false
    let count = 0
    if (this.#waiting > 0 && count < max) {
      if (!this.#deliverLong(pool, descriptors)) return 0
      count = 1
    }
    // Frames that are not right take their turn as well: there is an end to every call.
    for (let looked = count; looked < max && this.#fd >= 0; looked++) {
      const got = this.#readOne(pool, descriptors + count * DESCRIPTOR_WORDS)
      if (got < 0) break
      count += got
    }
    return count
  }

  /** Reads a frame. Returns 1 if it has become one of the batch, 0 if it is not right, -1 if there is none or no slot for it. */
  #readOne(pool: PacketPool, d: number): number {
    const slot = pool.take(1)
    if (slot === 0) return -1
    const reading = this.#reading as MemoryVector
    const header = this.#headerBytes
    const capacity = pool.capacity(slot)
    const frame = slot + SLOT_FRAME_OFFSET
    // The header lies before the frame, in the slot's headroom.
    reading.set(0, this.#base + frame - header, header + capacity)
    reading.set(1, this.#base + this.#long + capacity, FRAME_BYTES_MAX - Math.min(capacity, FRAME_BYTES_MAX))
    const length = reading.read(this.#fd) - header
    if (length < ETHERNET_BYTES) {
      pool.give(slot)
      if (length + header >= 0) {
        this.statistics.rxInvalid++
        return 0
      }
      this.#failed(length + header)
      return -1
    }
    if (this.#isOutside && this.#arena.u16[(frame + ETHERNET_TYPE) >> 1] === NFACTOR_TYPE_WORD) {
      pool.give(slot)
      this.statistics.rxForeign++
      return 0
    }
    // A frame that is too long for the slot is put together elsewhere.
    const at = length <= capacity ? frame : this.#long
    if (at !== frame) this.#bytes.copyBytes(at, frame, capacity)
    const segmentBytes = header === 0 ? 0 : this.#finish(frame - header, at, length)
    if (segmentBytes < 0) {
      pool.give(slot)
      this.statistics.rxInvalid++
      return 0
    }
    this.#arena.u16[(at + SEGMENT_BYTES_OFFSET) >> 1] = segmentBytes
    if (at === frame) {
      this.#describe(d, slot, length)
      return 1
    }
    pool.give(slot)
    this.#waiting = length
    return this.#deliverLong(pool, d) ? 1 : -1
  }

  /**
   * Does what a header says.
   *
   * @returns payload per segment, if the frame is one that is to be cut; -1 if the header makes no sense
   */
  #finish(header: number, frame: number, length: number): number {
    const { u8 } = this.#arena
    const half = (field: number): number => u8[header + field] | (u8[header + field + 1] << 8)
    const segmentation = u8[header + VNET_SEGMENTATION] & ~Segmentation.ecn
    const segmentBytes = segmentation === Segmentation.none ? 0 : half(VNET_SEGMENT_BYTES)
    if ((u8[header + VNET_FLAGS] & VNET_NEEDS_CHECKSUM) === 0) return segmentBytes
    const start = half(VNET_CHECKSUM_START)
    const field = start + half(VNET_CHECKSUM_OFFSET)
    return completeChecksum(this.#arena, this.#bytes, frame, length, start, field) ? segmentBytes : -1
  }

  /** Puts the long frame that waits into a slot; false if there is none. */
  #deliverLong(pool: PacketPool, d: number): boolean {
    const slot = pool.take(this.#waiting)
    if (slot === 0) return false
    this.#bytes.copyBytes(slot + SLOT_FRAME_OFFSET + SEGMENT_BYTES_OFFSET, this.#long + SEGMENT_BYTES_OFFSET,
      this.#waiting - SEGMENT_BYTES_OFFSET)
    this.#describe(d, slot, this.#waiting)
    this.#waiting = 0
    return true
  }

  #describe(d: number, slot: number, length: number): void {
    const { i32 } = this.#arena
    describeFrame(i32, d, slot, length)
    this.statistics.rxFrames++
    this.statistics.rxBytes += length
  }

  // -- Sending ---------------------------------------------------------------------------------------------------------

  send(frame: number, length: number): boolean {
    if (!this.#isRunning) return this.#refuse()
    if (length > this.#plainBytesMax || length < ETHERNET_BYTES) return this.#sendLong(frame, length)
    return this.#write(this.#zeroes, frame, length)
  }

  /** There is no queue, so there is no reserve. */
  sendReserved(frame: number, length: number): boolean {
    return this.send(frame, length)
  }

  /** A frame that is longer than the MTU allows: a TCP segment for the kernel to cut, or one with VLAN tags. */
  #sendLong(frame: number, length: number): boolean {
    const { view } = this.#arena
    const statistics = this.statistics
    if (length >= ETHERNET_BYTES && length <= this.frameBytesMax) {
      let tags = 0
      while (tags < 2 && isVlanTag(view.getUint16(frame + ETHERNET_TYPE + tags * VLAN_TAG_BYTES))) tags++
      if (length <= this.#plainBytesMax + tags * VLAN_TAG_BYTES) return this.#write(this.#zeroes, frame, length)
      const place = this.#place
      if (this.#headerBytes > 0 && locateTcp(this.#arena, frame, length, place)) {
        const most = this.#plainBytesMax + place.vlanTags * VLAN_TAG_BYTES - place.payload
        const wanted = this.#arena.u8[frame + SEGMENT_BYTES_OFFSET] | (this.#arena.u8[frame + SEGMENT_BYTES_OFFSET + 1] << 8)
        const segmentBytes = wanted === 0 ? most : Math.min(wanted, most)
        if (segmentBytes > 0) {
          const header = this.#cut - VNET_HEADER_BYTES
          this.#bytes.copyBytes(this.#cut, frame, length)
          writeSegmentationHeader(this.#arena, this.#bytes, header, this.#cut, place, segmentBytes)
          return this.#write(header, this.#cut, length)
        }
      }
    }
    statistics.txOversize++
    return false
  }

  #write(header: number, frame: number, length: number): boolean {
    const writing = this.#writing as MemoryVector
    const headers = this.#headerBytes > 0 ? 1 : 0
    if (headers > 0) writing.set(0, this.#base + header, VNET_HEADER_BYTES)
    writing.set(headers, this.#base + frame, length)
    const result = writing.write(this.#fd, headers + 1)
    if (result < 0) {
      this.#failed(result)
      this.#isFull = true
      return this.#refuse()
    }
    this.statistics.txFrames++
    this.statistics.txBytes += length
    return true
  }

  #refuse(): boolean {
    this.statistics.txFull++
    return false
  }

  flush(): void {}

  // -- Opening and closing ---------------------------------------------------------------------------------------------

  /**
   * @throws CodedError `NF_PORT_PRIVILEGE`, `NF_PORT_INTERFACE` (an interface of that name is no TAP device), `NF_PORT_BUSY` (another
   *   process has it), `NF_PORT_UNSUPPORTED` (no /dev/net/tun), `NF_PORT_FAILED`
   */
  open(): void {
    if (this.#isOpen) return
    this.#attach()
    this.#isOpen = true
  }

  #attach(): void {
    const { namespace } = this.#options
    if (namespace === undefined) this.#openDevice()
    else sys.inNamespace(namespace, () => { this.#openDevice() })
    this.#look()
  }

  #openDevice(): void {
    const { interface: device, hasHeaders = true, segments = 'pass', bringsUp = true, mtu } = this.#options
    const offloads = TapOffload.checksum | (segments === 'pass' ? TapOffload.tcp4 | TapOffload.tcp6 : 0)
    this.#fd = openTap(device, hasHeaders, offloads)
    if (this.#fd < 0) throw openError(this.#fd, `port ${this.name} cannot open the TAP device ${device}`)
    this.#interfaceFd = openInterfaceSocket()
    const socket = this.#interfaceFd
    let result = Math.min(0, socket)
    if (result === 0 && mtu !== undefined) result = setMtu(socket, device, mtu)
    if (result === 0 && bringsUp && (sys.interfaceFlags(socket, device) & 1) === 0) result = bringUp(socket, device)
    const bytes = result < 0 ? result : sys.interfaceMtu(socket, device)
    if (bytes < 0) {
      this.#release()
      throw sys.portError(bytes, `port ${this.name} cannot set up the TAP device ${device}`)
    }
    this.#plainBytesMax = bytes + ETHERNET_BYTES
    this.#reading = new MemoryVector(2)
    this.#writing = new MemoryVector(2)
    this.#counters = openSync('/proc/thread-self/net/dev', 'r')
    this.#missedBefore = -1
    this.#readCounters()
  }

  close(): void {
    this.#isOpen = false
    this.#release()
  }

  #release(): void {
    sys.close(this.#fd)
    sys.close(this.#interfaceFd)
    sys.close(this.#counters)
    this.#fd = this.#interfaceFd = this.#counters = -1
    this.#isRunning = false
    this.#waiting = 0
    this.#plainBytesMax = 0
  }

  /** A call has failed. If the device is gone, so is the port, until there is one again. */
  #failed(result: number): void {
    if (result === -sys.Errno.EAGAIN || result === -sys.Errno.ENOBUFS || result === -sys.Errno.ENOMEM) return
    if (result === -sys.Errno.EIO) {
      this.#isRunning = false
      return
    }
    if (result !== -EBADFD && result !== -sys.Errno.ENODEV) return
    this.lastEnd = 'the device is gone'
    this.#release()
  }

  maintain(now: TimeUs): void {
    if (!this.#isOpen) return
    if (this.#fd >= 0) {
      this.#look()
      if (now >= this.#countAt) {
        this.#countAt = now + COUNT_US
        this.#readCounters()
      }
      return
    }
    if (now < this.#retryAt) return
    this.#retryAt = now + RETRY_US
    try {
      this.#attach()
    } catch (error) {
      if (!(error instanceof CodedError)) throw error
      this.lastEnd = error.message
    }
  }

  /** Whether frames can go through now, and how long they may be. */
  #look(): void {
    const { interface: device } = this.#options
    const flags = sys.interfaceFlags(this.#interfaceFd, device)
    const wasRunning = this.#isRunning
    this.#isRunning = flags > 0 && (flags & IFF_UP_AND_RUNNING) === IFF_UP_AND_RUNNING
    const mtu = sys.interfaceMtu(this.#interfaceFd, device)
    if (mtu > 0) this.#plainBytesMax = mtu + ETHERNET_BYTES
    if (this.#isRunning && !wasRunning) {
      this.statistics.connections++
      this.lastEnd = ''
    } else if (!this.#isRunning && wasRunning) {
      this.lastEnd = 'the interface is down'
    }
  }

  /** Frames that the kernel has dropped because its queue was full. */
  #readCounters(): void {
    const length = readSync(this.#counters, this.#text, 0, this.#text.length, 0)
    const line = this.#text.toString('latin1', 0, length).split('\n').find((one) => one.trimStart().startsWith(`${this.#options.interface}:`))
    // Behind the name eight columns of reception, then bytes, packets, errors, drops of transmission: to us.
    const missed = Number(line?.slice(line.indexOf(':') + 1).trim().split(/\s+/)[11])
    if (!(missed >= 0)) return
    if (this.#missedBefore < 0) this.#missedBefore = missed - this.statistics.rxMissed
    this.statistics.rxMissed = missed - this.#missedBefore
  }

  // -- Waiting ---------------------------------------------------------------------------------------------------------

  arm(): boolean {
    return this.#fd < 0 || (this.#waiting === 0 && (sys.pollNow(this.#fd) & sys.POLLIN) === 0)
  }

  disarm(): void {}

  waitDescriptors(list: number[]): void {
    if (this.#fd >= 0) list.push(this.#fd)
  }
}

function openError(errno: number, what: string): CodedError {
  const number = -errno
  if (number === sys.Errno.ENOENT || number === sys.Errno.ENODEV || number === sys.Errno.ENXIO) {
    return new CodedError('NF_PORT_UNSUPPORTED', `${what}: there is no /dev/net/tun`, 'Load the module tun, or give the container the device')
  }
  if (number === sys.Errno.EBUSY) {
    return new CodedError('NF_PORT_BUSY', `${what}: another process has it`, 'Stop that one, or name another interface')
  }
  if (number === sys.Errno.EINVAL) {
    return new CodedError('NF_PORT_INTERFACE', `${what}: there is such an interface, and it is none, or one of another kind`,
      'Name another interface, or remove that one')
  }
  const isForbidden = number === sys.Errno.EPERM || number === sys.Errno.EACCES
  return sys.portError(errno, what, isForbidden ? 'Run it with CAP_NET_ADMIN, or let `ip tuntap add` make the device for its user' : '')
}
