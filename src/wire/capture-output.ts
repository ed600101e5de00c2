/**
 * The buffer between a capture writer and wherever its bytes go. Records are laid out in one block that is handed on
 * whenever it is full; a block always ends at a record's end, so that what reached the output is a valid capture at any
 * time, whatever happens to the rest.
 */

import { CAPTURED_LENGTH_MAX } from './capture-sink.ts'

/** Takes `bytes[0..length)`, which are lent for the duration of the call. */
export interface ByteOutput {
  write(bytes: Uint8Array, length: number): void
}

/** Bytes after which a block is handed on. */
const BLOCK_LENGTH = 256 * 1024
/** Room for one more record, whatever its headers. */
const BLOCK_CAPACITY = BLOCK_LENGTH + CAPTURED_LENGTH_MAX + 1024

/** A block under construction. */
export class CaptureOutput {
  /** Over the block; the offsets that {@link reserve} returns are offsets into it. */
  readonly view: DataView
  readonly #block = new Uint8Array(BLOCK_CAPACITY)
  readonly #output: ByteOutput
  #length = 0

  constructor(output: ByteOutput) {
    this.#output = output
    this.view = new DataView(this.#block.buffer)
  }

  /** Makes room for `length` more bytes of the current record, and says where they start. */
  reserve(length: number): number {
    const at = this.#length
    this.#length = at + length
    return at
  }

  /** Copies packet bytes into the block, to an offset inside of what was reserved. Hot. */
  copy(bytes: Uint8Array, offset: number, at: number, length: number): void {
    // PERF: allocates a view per packet all the same. A loop of 4-byte steps leaves no garbage, but takes 23 ns for 64
    // bytes and 430 ns for 1500, where this takes 40 ns for either.
    this.#block.set(bytes.subarray(offset, offset + length), at)
  }

  /** Ends a record; hands the block on if it is full. */
  recordDone(): void {
    if (this.#length >= BLOCK_LENGTH) this.flush()
  }

  /** Hands on what there is. To be called between records. */
  flush(): void {
    const length = this.#length
    if (length === 0) return
    // Forgotten first: if the output throws, the same bytes are not written twice.
    this.#length = 0
    this.#output.write(this.#block, length)
  }
}
