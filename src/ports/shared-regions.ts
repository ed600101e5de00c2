/**
 * Shared regions: files in memory that another process made or gets, mapped over a window of our arena, so that their bytes are
 * offsets like all others.
 *
 *     window │ region 0 ... │ region 1 ... │ never mapped, or given back: zeroes of our own │
 *
 * A file that its owner can make shorter would kill whoever touches it (SIGBUS), so an unsealed one is refused.
 */

import { fstatSync } from 'node:fs'
import type { Arena } from '../memory/arena.ts'
import * as sys from './sys.ts'

export class SharedRegions {
  /** Arena offset and bytes of each region. */
  readonly offsets: Int32Array
  readonly lengths: Int32Array
  count = 0
  /** Arena offset and bytes of the whole window. */
  readonly window: number
  readonly windowBytes: number
  readonly #address: number
  #used = 0

  constructor(arena: Arena, name: string, windowBytes: number, regionsMax: number) {
    this.windowBytes = Math.ceil(windowBytes / sys.PAGE_BYTES) * sys.PAGE_BYTES
    this.window = arena.allocate(name, this.windowBytes, sys.PAGE_BYTES)
    this.#address = sys.addressOf(arena.u8) + this.window
    this.offsets = new Int32Array(regionsMax)
    this.lengths = new Int32Array(regionsMax)
  }

  /**
   * Maps a file as the next region. The descriptor stays the caller's.
   *
   * @returns an empty text, or why not
   */
  map(fd: number, bytes: number, acceptsUnsealed: boolean): string {
    if (this.count === this.offsets.length) return 'too many regions'
    const seals = sys.sealsOf(fd)
    if (!acceptsUnsealed && (seals < 0 || (seals & sys.F_SEAL_SHRINK) === 0)) return 'region is not sealed against shrinking'
    const { size, blksize } = fstatSync(fd)
    if (!(bytes > 0 && bytes <= size)) return 'region is longer than its file'
    // A file of huge pages is mapped in whole ones.
    const page = Math.max(blksize, sys.PAGE_BYTES)
    const offset = Math.ceil((this.#address + this.#used) / page) * page - this.#address
    const mapped = Math.ceil(bytes / page) * page
    if (offset + mapped > this.windowBytes) return `regions need more than ${this.windowBytes} bytes`
    const result = sys.mapOver(this.#address + offset, mapped, fd)
    if (result < 0) return `region cannot be mapped (${sys.errnoText(result)})`
    this.offsets[this.count] = this.window + offset
    this.lengths[this.count] = bytes
    this.count++
    this.#used = offset + mapped
    return ''
  }

  /** Gives everything back; the window reads as zeroes. */
  clear(): void {
    if (this.#used > 0) sys.unmapOver(this.#address, this.#used)
    this.#used = 0
    this.count = 0
  }
}
