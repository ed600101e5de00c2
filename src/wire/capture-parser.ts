/**
 * Reads a capture, pcap or pcapng, from chunks as they come: any way of cutting the stream gives the same packets.
 *
 *     push(chunk):  [ rest of a record | record | record | ... | start of a record ]
 *                     to the carry       handed on in place       to the carry
 *
 * Packets that lie wholly in a chunk are handed on where they are; only a record that straddles two chunks is put
 * together in the carry buffer. That buffer grows with the bytes that arrive, never with a length that a file claims.
 *
 * Bad input never throws. The state says how the stream ended, and everything in front of the bad place was delivered:
 *
 *     open --end()--> complete | truncated (in the middle of a record) | empty (no byte at all)
 *     open --push()-> damaged (a field is impossible) | foreign (not a capture; also by end(), if too short to tell)
 */

import type { CaptureDecoder, CaptureFormat } from './capture-decoder.ts'
import type { CaptureSink } from './capture-sink.ts'
import { PcapDecoder, isPcapMagic } from './pcap.ts'
import { PcapngDecoder, isPcapngMagic } from './pcapng.ts'

/** How far a {@link CaptureParser} is. */
export type CaptureState = 'open' | 'complete' | 'truncated' | 'damaged' | 'foreign' | 'empty'

const MAGIC_LENGTH = 4
const CARRY_LENGTH_INITIAL = 4096

export class CaptureParser {
  readonly #sink: CaptureSink
  #decoder: CaptureDecoder | undefined
  #state: CaptureState = 'open'
  #reason = ''
  #faultPosition = 0
  /** Bytes pushed before the current chunk. */
  #position = 0
  #carry = new Uint8Array(CARRY_LENGTH_INITIAL)
  #carryView = new DataView(this.#carry.buffer)
  #carryLength = 0

  constructor(sink: CaptureSink) {
    this.#sink = sink
  }

  /** Whether the stream goes on, or how it ended. Once it is not `open` any more, {@link push} does nothing. */
  get state(): CaptureState {
    return this.#state
  }

  /** The format, as soon as the file header has been read and accepted. */
  get format(): CaptureFormat | undefined {
    return this.#decoder?.headerAccepted ? this.#decoder.format : undefined
  }

  /** What is wrong with the stream, one line without a full stop; empty if nothing is. */
  get reason(): string {
    return this.#reason
  }

  /** Position in the stream of what is wrong: the impossible field, or the start of the record that is cut off. */
  get faultPosition(): number {
    return this.#faultPosition
  }

  /** Bytes taken so far, those of an unfinished record included. */
  get bytesConsumed(): number {
    return this.#position
  }

  /**
   * Takes the next bytes of the stream and hands on the packets that are complete with them. The chunk is not kept.
   *
   * What the sink throws passes through, and leaves the parser unusable.
   */
  push(chunk: Uint8Array): void {
    let at = 0
    while (this.#carryLength > 0 && at < chunk.length && this.#state === 'open') at = this.#completeCarry(chunk, at)
    if (at < chunk.length && this.#state === 'open') {
      const view = new DataView(chunk.buffer, chunk.byteOffset, chunk.byteLength)
      at = this.#decode(chunk, view, at, chunk.length, this.#position)
      if (this.#state === 'open') this.#keep(chunk, at, chunk.length)
    }
    if (this.#state === 'open') this.#position += chunk.length
  }

  /** Says that the stream is over. */
  end(): void {
    if (this.#state !== 'open') return
    const decoder = this.#decoder
    if (this.#position === 0) {
      this.#state = 'empty'
      this.#reason = 'there are no bytes'
    } else if (decoder === undefined) {
      this.#state = 'foreign'
      this.#reason = `${this.#position} bytes are too short for a capture`
    } else if (!decoder.headerAccepted || decoder.insideRecord || this.#carryLength > 0) {
      this.#state = 'truncated'
      this.#faultPosition = decoder.recordPosition
      const what = decoder.headerAccepted ? 'the last record' : 'the file header'
      this.#reason = `the capture ends in the middle of ${what}`
    } else {
      this.#state = 'complete'
    }
  }

  /** Adds to the carry what its record needs, and decodes it. Returns how much of the chunk is used up. */
  #completeCarry(chunk: Uint8Array, start: number): number {
    const need = this.#decoder?.need ?? MAGIC_LENGTH
    const end = start + Math.min(need - this.#carryLength, chunk.length - start)
    const carryPosition = this.#position + start - this.#carryLength
    this.#keep(chunk, start, end)
    if (this.#carryLength === need) {
      // Either the record is whole and used up, or only now its length is known and nothing is used.
      const used = this.#decode(this.#carry, this.#carryView, 0, this.#carryLength, carryPosition)
      if (used > 0) this.#carryLength = 0
    }
    return end
  }

  #decode(bytes: Uint8Array, view: DataView, start: number, end: number, base: number): number {
    let decoder = this.#decoder
    if (decoder === undefined) {
      if (end - start < MAGIC_LENGTH) return start
      const magic = view.getUint32(start)
      if (isPcapMagic(magic)) decoder = new PcapDecoder(this.#sink)
      else if (isPcapngMagic(magic)) decoder = new PcapngDecoder(this.#sink)
      else {
        this.#state = 'foreign'
        this.#reason = 'the first bytes are not those of a capture'
        return start
      }
      this.#decoder = decoder
    }
    const at = decoder.decode(bytes, view, start, end, base)
    if (decoder.fault !== '') {
      this.#state = 'damaged'
      this.#reason = decoder.fault
      this.#faultPosition = decoder.faultPosition
    }
    return at
  }

  #keep(chunk: Uint8Array, start: number, end: number): void {
    const length = this.#carryLength + end - start
    if (length > this.#carry.length) {
      const carry = new Uint8Array(Math.max(length, 2 * this.#carry.length))
      carry.set(this.#carry.subarray(0, this.#carryLength))
      this.#carry = carry
      this.#carryView = new DataView(carry.buffer)
    }
    this.#carry.set(chunk.subarray(start, end), this.#carryLength)
    this.#carryLength = length
  }
}
