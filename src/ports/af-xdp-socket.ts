/**
 * The sockets of an AF_XDP port: a socket per receive queue of the interface, the memory that all of them share, and the program that
 * brings frames to them. Opening and closing; what happens in between is the port's.
 *
 *     window in the arena │ rings of queue 0: rx tx fill completion │ rings of queue 1: rx fill completion │ ...
 *                         │ chunks of queue 0 ... │ chunks of queue 1 ... │ chunks to send from ... │
 *
 * A chunk has room for one frame and, when it is received, 256 bytes before it. Chunks of a queue go round between the fill ring, the
 * kernel, the receive ring and us, so both rings have a place for each; those to send from go round by the transmit ring of queue 0 and
 * its completion ring. Sending by one queue keeps the order.
 *
 * A ring is in pages of the kernel's, mapped over the arena: a producer's and a consumer's position that count up for ever, flags, and
 * a power of two of entries. One end of each is ours.
 *
 * The memory is allocated when it is first known how many queues there are, and again if there are more at a later time.
 *
 * Sources: the kernel's Documentation/networking/af_xdp.rst, linux/if_xdp.h.
 */

import { CodedError } from '../base/coded-error.ts'
import type { Arena } from '../memory/arena.ts'
import { ETHERNET_BYTES, VLAN_TAG_BYTES } from '../wire/ethernet.ts'
import * as sys from './sys.ts'
import { attachXdpProgram, createSocketMap, loadXdpProgram, receiveQueuesOf, setSocketInMap, XdpAttach } from './sys-xdp.ts'
import { bindToInterface, raiseSendBuffer, WatchedInterface } from './watched-interface.ts'
import { redirectProgram } from './xdp-program.ts'

/**
 * How frames come, the quickest first: `zero-copy`, the driver uses our memory; `copy`, the driver runs the program, and the kernel copies;
 * `generic`, the kernel runs it, once it has made its own description of the frame, and copies.
 */
export type AfXdpMode = 'zero-copy' | 'copy' | 'generic'

/** Queues that an interface may have. */
export const QUEUES_MAX = 64
/** What the kernel keeps free before a frame that is received (XDP_PACKET_HEADROOM). */
const HEADROOM_BYTES = 256
const SMALL_CHUNK_BYTES = 2048
const LARGE_CHUNK_BYTES = 4096
/** The largest MTU whose frames, with two VLAN tags, fit a chunk. */
export const MTU_MAX = LARGE_CHUNK_BYTES - HEADROOM_BYTES - ETHERNET_BYTES - 2 * VLAN_TAG_BYTES

const AF_XDP = 44
const SOL_XDP = 283
const XDP_MMAP_OFFSETS = 1
const XDP_RX_RING = 2
const XDP_TX_RING = 3
const XDP_UMEM_REG = 4
const XDP_UMEM_FILL_RING = 5
const XDP_UMEM_COMPLETION_RING = 6
const XDP_STATISTICS = 7
const XDP_OPTIONS = 8
const XDP_SHARED_UMEM = 1
const XDP_COPY = 2
const XDP_USE_NEED_WAKEUP = 8
const OPTION_ZERO_COPY = 1
/** Where each ring is mapped from. */
const RX_OFFSET = 0
const TX_OFFSET = 0x8000_0000
const FILL_OFFSET = 0x1_0000_0000
const COMPLETION_OFFSET = 0x1_8000_0000

/** Bytes of an entry: a description of a frame, or the address of a chunk. */
const DESCRIPTION_BYTES = 16
const ADDRESS_BYTES = 8
/** Bytes that a ring has besides its entries, at most. */
const RING_HEADER_BYTES = sys.PAGE_BYTES

/** A protocol that no frame has (reserved, RFC 1701): the socket that watches the interface gets nothing. */
const NO_PROTOCOL = 0xffff
/**
 * How often a queue that is taken is asked for, and how long to wait in between: the kernel takes its time, some 20 to 100 ms, to let go of the
 * sockets of a port that has been closed, or of a process that has died.
 */
const BUSY_TRIES = 200
const BUSY_MS = 5
/** Nobody ever wakes who waits here. */
const sleeper = new Int32Array(new SharedArrayBuffer(4))

/** One ring, as it lies in the arena. Positions are words of it (indices into `i32`), and so is where the entries begin. */
export interface XdpRing {
  readonly producer: number
  readonly consumer: number
  readonly flags: number
  readonly entries: number
  readonly mask: number
  /** The position of our end. */
  next: number
}

export interface XdpQueue {
  readonly fd: number
  readonly rx: XdpRing
  readonly fill: XdpRing
  /** The kernel's counts of frames lost, as they were when last read: for want of room in rings, for other reasons. */
  missed: number
  dropped: number
}

interface Sending {
  readonly fd: number
  readonly tx: XdpRing
  readonly completion: XdpRing
}

export class AfXdpSocket {
  readonly interface: WatchedInterface
  queues: readonly XdpQueue[] = []
  /** Where frames leave: queue 0. */
  sending: Sending | undefined
  /** What could be had; an empty text while closed. */
  mode: AfXdpMode | '' = ''
  /** Arena offset of the chunks, which rings count from, and bytes of one. */
  chunks = 0
  chunkBytes = 0
  /** The first chunk to send from. */
  firstToSend = 0
  readonly #arena: Arena
  readonly #name: string
  readonly #namespace: string | undefined
  readonly #rxFrames: number
  readonly #txFrames: number
  readonly #wanted: AfXdpMode
  /** What is watched by; -1 while closed. */
  #fd = -1
  /** All descriptors, in the order in which they are closed. */
  #fds: number[] = []
  #window = 0
  #windowBytes = 0
  #usedBytes = 0
  #chunkCount = 0
  readonly #statistics = sys.scratch(48)

  constructor(
    arena: Arena, name: string, interfaceName: string, namespace: string | undefined, rxFrames: number, txFrames: number, mode: AfXdpMode,
  ) {
    this.#arena = arena
    this.#name = name
    this.#namespace = namespace
    this.interface = new WatchedInterface(interfaceName)
    this.#rxFrames = rxFrames
    this.#txFrames = txFrames
    this.#wanted = mode
  }

  get isOpen(): boolean {
    return this.#fd >= 0
  }

  /**
   * @param isPatient waits a little for queues that are taken
   * @throws CodedError `NF_PORT_...`, `NF_LIMIT`
   */
  open(isPatient: boolean): void {
    const open = (): void => { this.#open(isPatient) }
    try {
      if (this.#namespace === undefined) open()
      else sys.inNamespace(this.#namespace, open)
    } catch (error) {
      this.close()
      throw error
    }
    this.interface.look(this.#fd)
  }

  #open(isPatient: boolean): void {
    const keep = (fd: number, what: string, rights = ''): number => {
      if (fd < 0) throw sys.portError(fd, `port ${this.#name} ${what}`, fd === -sys.Errno.EPERM ? rights : '')
      this.#fds.push(fd)
      return fd
    }
    const what = `port ${this.#name}: interface ${this.interface.name}`
    this.#fd = keep(sys.socket(sys.AF_PACKET, sys.SOCK_RAW, 0), 'cannot have a packet socket')
    this.interface.find(this.#fd, what)
    if (this.interface.mtu > MTU_MAX) {
      throw new CodedError('NF_PORT_UNSUPPORTED', `${what} has an MTU of ${this.interface.mtu}`,
        `Over AF_XDP frames of an MTU of up to ${MTU_MAX} can be taken.`)
    }
    bindToInterface(this.#fd, this.interface.index, NO_PROTOCOL, what)
    const count = receiveQueuesOf(this.#fd, this.interface.name)
    if (count > QUEUES_MAX) {
      throw new CodedError('NF_PORT_UNSUPPORTED', `${what} has ${count} queues`, `${QUEUES_MAX} are possible: see \`ethtool -L\`.`)
    }
    const first = keep(sys.socket(AF_XDP, sys.SOCK_RAW, 0), 'cannot have an AF_XDP socket')
    const rights = 'Run it as root or with CAP_BPF and CAP_NET_ADMIN; a user namespace of its own is not enough.'
    const map = keep(withoutSupport(createSocketMap(count)), 'cannot make a map of sockets (XSKMAP)', rights)
    const program = keep(withoutSupport(loadXdpProgram(redirectProgram(map))), 'cannot load its program', rights)
    const isNative = this.#attach(program, isPatient, what)
    this.#takeMemory(count)
    const rings = this.#readOffsets(first, what)
    const queues: XdpQueue[] = []
    for (let queue = 0; queue < count; queue++) {
      const fd = queue === 0 ? first : keep(sys.socket(AF_XDP, sys.SOCK_RAW, 0), 'cannot have an AF_XDP socket')
      if (queue === 0) this.#registerMemory(fd, what)
      queues.push(this.#makeRings(fd, queue, rings, what))
      this.#bind(fd, queue, first, isNative, isPatient, what)
      this.#fillRing(queues[queue].fill, queue)
      const entered = setSocketInMap(map, queue, fd)
      if (entered < 0) throw sys.portError(entered, `${what} cannot have its frames brought to a socket`)
    }
    this.queues = queues
    const options = sys.scratch(4)
    const hasZeroCopy = sys.getOption(first, SOL_XDP, XDP_OPTIONS, options) === 4 && (options.getUint32(0, true) & OPTION_ZERO_COPY) !== 0
    this.mode = hasZeroCopy ? 'zero-copy' : isNative ? 'copy' : 'generic'
  }

  /** Ties the program to the interface. True if the driver runs it. */
  #attach(program: number, isPatient: boolean, what: string): boolean {
    let link = -1
    for (const attach of this.#wanted === 'generic' ? [XdpAttach.generic] : [XdpAttach.native, XdpAttach.generic]) {
      link = withoutSupport(untilFree(isPatient, () => attachXdpProgram(program, this.interface.index, attach)))
      if (link >= 0) {
        // Closed first: no more frames come then.
        this.#fds.unshift(link)
        return attach === XdpAttach.native
      }
      if (isTaken(link)) {
        throw new CodedError('NF_PORT_BUSY', `${what} has an XDP program already`,
          `\`ip link\` shows it; \`ip link set dev ${this.interface.name} xdp off\` takes off one whose owner has gone.`)
      }
    }
    throw sys.portError(link, `${what} takes no XDP program`)
  }

  #takeMemory(queues: number): void {
    const { mtu } = this.interface
    this.chunkBytes = mtu <= MTU_MAX - SMALL_CHUNK_BYTES ? SMALL_CHUNK_BYTES : LARGE_CHUNK_BYTES
    const ringBytes = (entries: number, bytes: number): number => wholePages(RING_HEADER_BYTES + entries * bytes)
    const [rx, tx] = [this.#rxFrames, this.#txFrames]
    const ringsBytes = queues * (ringBytes(rx, DESCRIPTION_BYTES) + ringBytes(rx, ADDRESS_BYTES) + ringBytes(1, ADDRESS_BYTES)) +
      ringBytes(tx, DESCRIPTION_BYTES) + ringBytes(tx, ADDRESS_BYTES)
    this.#chunkCount = queues * this.#rxFrames + this.#txFrames
    const bytes = ringsBytes + this.#chunkCount * this.chunkBytes
    if (bytes > this.#windowBytes) {
      this.#window = this.#arena.allocate(`port ${this.#name}`, bytes, sys.PAGE_BYTES)
      this.#windowBytes = bytes
    }
    this.#usedBytes = 0
    this.chunks = this.#window + ringsBytes
    this.firstToSend = queues * this.#rxFrames * this.chunkBytes
    // Memory of its own for each life: what an earlier one has left is the kernel's for a while yet.
    sys.unmapOver(this.#addressOf(this.#window), bytes)
  }

  #addressOf(offset: number): number {
    return sys.addressOf(this.#arena.u8) + offset
  }

  #registerMemory(fd: number, what: string): void {
    const bytes = this.#chunkCount * this.chunkBytes
    const registration = sys.scratch(24)
    registration.setBigUint64(0, BigInt(this.#addressOf(this.chunks)), true)
    registration.setBigUint64(8, BigInt(bytes), true)
    registration.setUint32(16, this.chunkBytes, true)
    const result = sys.setOption(fd, SOL_XDP, XDP_UMEM_REG, registration)
    if (result === -sys.Errno.ENOBUFS) {
      throw new CodedError('NF_PORT_PRIVILEGE', `${what}: ${Math.ceil(bytes / 2 ** 20)} MiB for its frames may not be locked in memory`,
        'Give the process CAP_IPC_LOCK, raise its limit (`ulimit -l`), or lower the number of frames.')
    }
    if (result < 0) throw sys.portError(withoutSupport(result), `${what} cannot have memory for its frames`)
  }

  /** Where in a ring its parts are: for rx, tx, fill and completion the producer, the consumer, the entries, the flags. */
  #readOffsets(fd: number, what: string): DataView {
    const offsets = sys.scratch(128)
    const bytes = sys.getOption(fd, SOL_XDP, XDP_MMAP_OFFSETS, offsets)
    if (bytes < 0) throw sys.portError(bytes, `${what} cannot have rings`)
    if (bytes !== 128) throw new CodedError('NF_PORT_UNSUPPORTED', `${what}: rings of this kernel have no flags`, 'It takes Linux 5.11.')
    return offsets
  }

  #makeRings(fd: number, queue: number, offsets: DataView, what: string): XdpQueue {
    const make = (option: number, mapOffset: number, place: number, count: number, entryBytes: number): XdpRing => {
      const result = sys.setNumber(fd, SOL_XDP, option, count)
      if (result < 0) throw sys.portError(result, `${what} cannot have a ring of ${count} frames`, 'Lower the number of frames.')
      const at = (part: number): number => Number(offsets.getBigUint64(place * 32 + part * 8, true))
      const base = this.#window + this.#usedBytes
      const bytes = wholePages(at(2) + count * entryBytes)
      this.#usedBytes += bytes
      const mapped = sys.mapOver(this.#addressOf(base), bytes, fd, mapOffset)
      if (mapped < 0) throw sys.portError(mapped, `${what} cannot have its rings mapped`)
      const word = (part: number): number => (base + at(part)) >> 2
      return { producer: word(0), consumer: word(1), entries: word(2), flags: word(3), mask: count - 1, next: 0 }
    }
    const rx = make(XDP_RX_RING, RX_OFFSET, 0, this.#rxFrames, DESCRIPTION_BYTES)
    const fill = make(XDP_UMEM_FILL_RING, FILL_OFFSET, 2, this.#rxFrames, ADDRESS_BYTES)
    const completion = make(XDP_UMEM_COMPLETION_RING, COMPLETION_OFFSET, 3, queue === 0 ? this.#txFrames : 1, ADDRESS_BYTES)
    if (queue === 0) {
      this.sending = { fd, tx: make(XDP_TX_RING, TX_OFFSET, 1, this.#txFrames, DESCRIPTION_BYTES), completion }
      raiseSendBuffer(fd)
    }
    return { fd, rx, fill, missed: 0, dropped: 0 }
  }

  #bind(fd: number, queue: number, first: number, isNative: boolean, isPatient: boolean, what: string): void {
    const address = sys.scratch(16)
    address.setUint16(0, AF_XDP, true)
    // The kernel itself falls back from zero-copy to copying unless it is told which.
    const copy = isNative && this.#wanted === 'zero-copy' ? 0 : XDP_COPY
    address.setUint16(2, queue === 0 ? XDP_USE_NEED_WAKEUP | copy : XDP_SHARED_UMEM, true)
    address.setUint32(4, this.interface.index, true)
    address.setUint32(8, queue, true)
    address.setUint32(12, queue === 0 ? 0 : first, true)
    const result = untilFree(isPatient, () => sys.bind(fd, address))
    if (result >= 0) return
    if (isTaken(result)) {
      throw new CodedError('NF_PORT_BUSY', `${what}: another process has queue ${queue}`, 'Stop that one, or name another interface.')
    }
    throw sys.portError(queue > 0 ? withoutSupport(result) : result, `${what} cannot have a socket at queue ${queue}`)
  }

  /** Gives the kernel all chunks of a queue. */
  #fillRing(fill: XdpRing, queue: number): void {
    const { i32 } = this.#arena
    for (let i = 0; i < this.#rxFrames; i++) i32[fill.entries + 2 * i] = (queue * this.#rxFrames + i) * this.chunkBytes
    fill.next = this.#rxFrames
    Atomics.store(i32, fill.producer, fill.next)
  }

  /** Looks what the interface is like now. Returns why it cannot be used any more, or an empty text. */
  look(): string {
    const reason = this.interface.look(this.#fd)
    if (reason !== '') return reason
    return this.interface.mtu > MTU_MAX ? `interface ${this.interface.name} has an MTU of ${this.interface.mtu} now` : ''
  }

  /** The same for its queues, which is not asked as often: it takes a lock of the kernel's. */
  lookAtQueues(): string {
    const count = receiveQueuesOf(this.#fd, this.interface.name)
    return count === this.queues.length ? '' : `interface ${this.interface.name} has ${count} queues now`
  }

  /** Reads what the kernel has counted at a queue: frames that found no room, and frames dropped for other reasons, such as their length. */
  readStatistics(queue: XdpQueue): void {
    const counts = this.#statistics
    const bytes = sys.getOption(queue.fd, SOL_XDP, XDP_STATISTICS, counts)
    if (bytes < 24) return
    const at = (index: number): number => Number(counts.getBigUint64(index * 8, true))
    // Who copies counts a frame without a chunk as dropped as well; a driver that does not may want chunks long before there are frames.
    const withoutChunk = bytes < 48 || this.mode === 'zero-copy' ? 0 : at(4)
    queue.missed = withoutChunk + (bytes < 48 ? 0 : at(3))
    queue.dropped = Math.max(0, at(0) - withoutChunk)
  }

  /** What becomes readable when something has happened to the interface. */
  get watchFd(): number {
    return this.#fd
  }

  close(): void {
    // Mappings hold their sockets, and sockets the program's map.
    const [link, ...others] = this.#fds
    if (link !== undefined) sys.close(link)
    if (this.#usedBytes > 0) sys.unmapOver(this.#addressOf(this.#window), this.#windowBytes)
    for (const fd of others) sys.close(fd)
    this.#fds = []
    this.#fd = -1
    this.queues = []
    this.sending = undefined
    this.mode = ''
    this.#usedBytes = 0
    this.interface.forget()
  }
}

function wholePages(bytes: number): number {
  return Math.ceil(bytes / sys.PAGE_BYTES) * sys.PAGE_BYTES
}

/** Tries again while what is wanted is taken, if there is time for that. */
function untilFree(isPatient: boolean, action: () => number): number {
  let result = action()
  for (let i = 0; isPatient && isTaken(result) && i < BUSY_TRIES; i++) {
    Atomics.wait(sleeper, 0, 0, BUSY_MS)
    result = action()
  }
  return result
}

function isTaken(result: number): boolean {
  return result === -sys.Errno.EBUSY || result === -sys.Errno.EEXIST
}

/**
 * Of the calls of bpf(2) and of registering, an invalid argument is one that this kernel does not know; and what its verifier refuses uses
 * something of the kind.
 */
function withoutSupport(result: number): number {
  return result === -sys.Errno.EINVAL || result === -sys.Errno.EACCES ? -sys.Errno.EOPNOTSUPP : result
}
