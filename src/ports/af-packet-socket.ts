/**
 * The packet socket of an AF_PACKET port: opening, rings, and what the interface is like. Not hot, but for `rxFrame` and `txFrame`.
 *
 *     window in the arena │ receive ring: frames of 68 KiB │ transmit ring: the same │
 *
 * A frame has room for a segment of 64 KiB, its headers and those of the ring, unless it is told to be smaller. Blocks are made so
 * that one follows the other without a gap. Source: packet(7), Documentation/networking/packet_mmap.rst.
 */

import type { Arena } from '../memory/arena.ts'
import { ETHERNET_BYTES } from '../wire/ethernet.ts'
import * as sys from './sys.ts'
import { acceptOnly, bindToInterface, raiseSendBuffer, WatchedInterface, type Destination } from './watched-interface.ts'

/** Bytes of a frame that holds every segment: 17 pages. */
export const SEGMENT_FRAME_BYTES = 69_632
/** Bytes of a block, at most: what the kernel can easily have in one piece. */
const BLOCK_BYTES_MAX = 1 << 20
/** What the ring itself takes of a frame that is sent: header, then the vnet header. */
const TX_OVERHEAD = 42

const ETH_P_ALL_BIG_ENDIAN = 0x0300

const SOL_PACKET = 263
const PACKET_RX_RING = 5
const PACKET_STATISTICS = 6
const PACKET_VERSION = 10
const PACKET_TX_RING = 13
const PACKET_LOSS = 14
const PACKET_VNET_HDR = 15
const PACKET_IGNORE_OUTGOING = 23
const TPACKET_V2 = 1
export class AfPacketSocket {
  /** The socket; -1 while closed. */
  fd = -1
  /** Bytes of the longest frame that is not cut and has no tags. */
  plainBytesMax = 0
  readonly rxFrames: number
  readonly txFrames: number
  readonly frameBytes: number
  readonly #framesPerBlock: number
  readonly #name: string
  readonly #interface: WatchedInterface
  readonly #namespace: string | undefined
  readonly #destination: Destination | undefined
  readonly #window: number
  readonly #address: number
  readonly #statistics = sys.scratch(8)

  constructor(
    arena: Arena, name: string, interfaceName: string, namespace: string | undefined, rxFrames: number, txFrames: number,
    frameBytes: number, destination?: Destination,
  ) {
    this.#name = name
    this.#destination = destination
    this.#interface = new WatchedInterface(interfaceName)
    this.#namespace = namespace
    this.frameBytes = frameBytes
    // Whole frames and whole pages: a power of two, or a multiple of a page.
    const perBlock = this.#framesPerBlock = Math.floor(BLOCK_BYTES_MAX / frameBytes)
    this.rxFrames = Math.ceil(rxFrames / perBlock) * perBlock
    this.txFrames = Math.ceil(txFrames / perBlock) * perBlock
    this.#window = arena.allocate(`port ${name}`, this.#bytes, sys.PAGE_BYTES)
    this.#address = sys.addressOf(arena.u8) + this.#window
  }

  get #bytes(): number {
    return (this.rxFrames + this.txFrames) * this.frameBytes
  }

  /** True while the interface is up and has a carrier. */
  get isRunning(): boolean {
    return this.#interface.isRunning
  }

  get mtu(): number {
    return this.#interface.mtu
  }

  /** Bytes of the longest frame that fits the transmit ring. */
  get sendBytesMax(): number {
    return this.frameBytes - TX_OVERHEAD
  }

  /** Arena offset of a frame in the receive ring. */
  rxFrame(index: number): number {
    return this.#window + index * this.frameBytes
  }

  /** Arena offset of a frame in the transmit ring. */
  txFrame(index: number): number {
    return this.#window + (this.rxFrames + index) * this.frameBytes
  }

  /** Throws a CodedError `NF_PORT_...`. */
  open(): void {
    const create = (): number => sys.socket(sys.AF_PACKET, sys.SOCK_RAW, 0)
    const fd = this.#namespace === undefined ? create() : sys.inNamespace(this.#namespace, create)
    if (fd < 0) throw sys.portError(fd, `port ${this.#name} cannot have a packet socket`)
    try {
      this.#setUp(fd)
    } catch (error) {
      sys.unmapOver(this.#address, this.#bytes)
      sys.close(fd)
      throw error
    }
    this.fd = fd
    this.check()
  }

  #setUp(fd: number): void {
    const what = `port ${this.#name}: interface ${this.#interface.name}`
    const must = (result: number, task: string, mend = ''): number => {
      if (result < 0) throw sys.portError(result, `${what}${task}`, mend)
      return result
    }
    this.#interface.find(fd, what)
    const set = (option: number, value: number, task: string): void => {
      must(sys.setNumber(fd, SOL_PACKET, option, value), ` cannot be used: ${task}`)
    }
    set(PACKET_VERSION, TPACKET_V2, 'TPACKET_V2')
    set(PACKET_VNET_HDR, 1, 'PACKET_VNET_HDR')
    // Frames that the kernel finds wrong are left out; the others behind them still go.
    set(PACKET_LOSS, 1, 'PACKET_LOSS')
    set(PACKET_IGNORE_OUTGOING, 1, 'PACKET_IGNORE_OUTGOING')
    const ring = (option: number, frames: number): void => {
      const request = sys.scratch(16)
      request.setUint32(0, this.#framesPerBlock * this.frameBytes, true)
      request.setUint32(4, frames / this.#framesPerBlock, true)
      request.setUint32(8, this.frameBytes, true)
      request.setUint32(12, frames, true)
      must(sys.setOption(fd, SOL_PACKET, option, request), ` cannot have a ring of ${frames} frames`, 'Lower the number of frames.')
    }
    ring(PACKET_RX_RING, this.rxFrames)
    ring(PACKET_TX_RING, this.txFrames)
    must(sys.mapOver(this.#address, this.#bytes, fd), ' cannot have its rings mapped')
    raiseSendBuffer(fd)
    if (this.#destination !== undefined) must(acceptOnly(fd, this.#destination), ' cannot have a filter')
    bindToInterface(fd, this.#interface.index, ETH_P_ALL_BIG_ENDIAN, what)
    // An interface that is down says so here.
    sys.takeSocketError(fd)
  }

  /** Looks what the interface is like now. Returns why it cannot be used any more, or an empty text. */
  check(): string {
    const reason = this.#interface.look(this.fd)
    this.plainBytesMax = Math.min(this.mtu + ETHERNET_BYTES, this.sendBytesMax)
    return reason
  }

  /** Frames that came while the receive ring was full, since the last call. */
  takeMissed(): number {
    return sys.getOption(this.fd, SOL_PACKET, PACKET_STATISTICS, this.#statistics) === 8 ? this.#statistics.getUint32(4, true) : 0
  }

  close(): void {
    if (this.fd < 0) return
    sys.unmapOver(this.#address, this.#bytes)
    sys.close(this.fd)
    this.fd = -1
    this.#interface.forget()
    this.plainBytesMax = 0
  }
}
