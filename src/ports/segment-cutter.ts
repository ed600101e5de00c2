/**
 * Segment cutter: makes of a segment that a card was to cut up the frames that it would have sent, one after the other.
 *
 *     │ headers │ payload ............................ │      →      │ headers' │ payload │  │ headers'' │ payload │ ...
 *
 * TCP over IPv4 and IPv6 (sequence numbers, FIN and PSH on the last frame alone, CWR on the first) and UDP (each datagram with a
 * length of its own). IPv4 identifications count up. Lengths and checksums are made new.
 */

import type { Arena } from '../memory/arena.ts'
import { checksumOf, foldSum } from '../wire/checksum.ts'
import { TCP_BYTES_MIN, TCP_CHECKSUM, TCP_DATA_OFFSET, TCP_FLAGS, TCP_SEQUENCE, TcpFlag } from '../wire/tcp.ts'
import type { FrameBytes } from './kernels/frame-bytes.ts'

const UDP_BYTES = 8
const UDP_CHECKSUM = 6
const PROTOCOL_TCP = 6
const PROTOCOL_UDP = 17

export class SegmentCutter {
  readonly #arena: Arena
  readonly #bytes: FrameBytes
  #frame = 0
  #network = 0
  #transport = 0
  #headers = 0
  #end = 0
  #segmentBytes = 0
  #isTcp = true
  #done = 0
  #count = 0

  constructor(arena: Arena, bytes: FrameBytes) {
    this.#arena = arena
    this.#bytes = bytes
  }

  /**
   * Begins with a frame at arena offset `frame`, which stays where it is until the last segment has been made.
   *
   * @param network where the IP header begins, `transport` where TCP or UDP does, both from the start of the frame
   * @param segmentBytes payload per segment
   * @returns false if the headers make no sense
   */
  begin(frame: number, length: number, network: number, transport: number, segmentBytes: number, isTcp: boolean): boolean {
    const { u8 } = this.#arena
    if (network < 14 || transport < network + 20 || transport + (isTcp ? TCP_BYTES_MIN : UDP_BYTES) > length) return false
    const version = u8[frame + network] >> 4
    if (version === 4 ? transport !== network + (u8[frame + network] & 15) * 4 : version !== 6 || transport < network + 40) return false
    this.#headers = transport + (isTcp ? (u8[frame + transport + TCP_DATA_OFFSET] >> 4) * 4 : UDP_BYTES)
    if (segmentBytes === 0 || this.#headers < transport + UDP_BYTES || this.#headers >= length) return false
    this.#frame = frame
    this.#network = network
    this.#transport = transport
    this.#end = length
    this.#segmentBytes = segmentBytes
    this.#isTcp = isTcp
    this.#done = this.#count = 0
    return true
  }

  /** Bytes of the next frame; 0 when there is none. */
  get nextLength(): number {
    const left = this.#end - this.#headers - this.#done
    return left <= 0 ? 0 : this.#headers + Math.min(left, this.#segmentBytes)
  }

  /** Writes the next frame at arena offset `to`. */
  write(to: number): void {
    const { u8, view } = this.#arena
    const length = this.nextLength
    const payload = length - this.#headers
    this.#bytes.copyBytes(to, this.#frame, this.#headers)
    this.#bytes.copyBytes(to + this.#headers, this.#frame + this.#headers + this.#done, payload)
    const network = to + this.#network
    const transport = to + this.#transport
    const bytes = length - this.#transport
    const isIpv4 = u8[network] >> 4 === 4
    if (isIpv4) {
      view.setUint16(network + 2, length - this.#network)
      view.setUint16(network + 4, view.getUint16(network + 4) + this.#count)
      view.setUint16(network + 10, 0)
      view.setUint16(network + 10, checksumOf(this.#bytes.sumBytes(network, transport - network)))
    } else {
      view.setUint16(network + 4, length - this.#network - 40)
    }
    const isLast = this.#done + payload === this.#end - this.#headers
    if (this.#isTcp) {
      view.setUint32(transport + TCP_SEQUENCE, view.getUint32(transport + TCP_SEQUENCE) + this.#done)
      if (!isLast) u8[transport + TCP_FLAGS] &= ~(TcpFlag.fin | TcpFlag.psh)
      if (this.#count > 0) u8[transport + TCP_FLAGS] &= ~TcpFlag.cwr
    } else {
      view.setUint16(transport + 4, bytes)
    }
    const field = transport + (this.#isTcp ? TCP_CHECKSUM : UDP_CHECKSUM)
    const addresses = isIpv4 ? this.#bytes.sumBytes(network + 12, 8) : this.#bytes.sumBytes(network + 8, 32)
    view.setUint16(field, 0)
    const sum = foldSum(addresses + (this.#isTcp ? PROTOCOL_TCP : PROTOCOL_UDP) + bytes) + this.#bytes.sumBytes(transport, bytes)
    view.setUint16(field, checksumOf(sum) || 0xffff)
    this.#done += payload
    this.#count++
  }
}
