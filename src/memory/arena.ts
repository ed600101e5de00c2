/**
 * The arena: one flat memory that holds all packets, tables, flow records and rings of a process.
 *
 * It is a shared WebAssembly memory of fixed size, so that a packet or a flow record is an integer offset into one set of
 * typed arrays, kernels in WebAssembly work on the same bytes, and regions can later be mapped over parts of it. Address
 * space is only reserved: a page costs nothing until it is first touched, and starts as zeroes.
 *
 *     0        64                                                        size
 *     | never  | region | region | ...                  free ->          |
 *
 * Offset 0 belongs to no region, so 0 can mean "none" everywhere. Regions are handed out once and never given back one
 * by one; `reset` takes all of them back at once (for tests and benches).
 *
 * PERF: bind the typed arrays to local constants in the function that creates your closures
 * (`const { i32, u8 } = arena`): reading them through an object or another module costs about a fifth (bench engine).
 */

import { assert } from '../base/assert.ts'
import { CodedError } from '../base/coded-error.ts'

const PAGE_BYTES = 65536
/** The largest arena: just under 2 GiB, so that every offset is a positive 32-bit integer. */
export const ARENA_BYTES_MAX = 32767 * PAGE_BYTES

export interface Region {
  readonly name: string
  readonly offset: number
  readonly bytes: number
}

export class Arena {
  readonly memory: WebAssembly.Memory
  readonly buffer: SharedArrayBuffer
  readonly u8: Uint8Array
  readonly u16: Uint16Array
  readonly i32: Int32Array
  readonly u32: Uint32Array
  readonly f64: Float64Array
  readonly view: DataView
  readonly bytes: number
  #next = 64
  #regions: Region[] = []
  /** Regions that are perhaps untouched but for a part. */
  #sparse: { readonly offset: number; readonly bytes: number; readonly touched: () => number }[] = []

  /**
   * @param bytes size, rounded up to whole 64 KiB pages; at most {@link ARENA_BYTES_MAX}
   */
  constructor(bytes: number = ARENA_BYTES_MAX) {
    const pages = Math.ceil(bytes / PAGE_BYTES)
    if (!(pages > 0 && pages <= 32767)) {
      throw new CodedError('NF_LIMIT', `an arena of ${bytes} bytes is not possible`, 'Lower the limits: 2 GiB is the most.')
    }
    try {
      this.memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true })
    } catch (cause) {
      throw new CodedError('NF_LIMIT', `the machine refused an arena of ${bytes} bytes`, 'Lower the limits.', { cause })
    }
    this.buffer = this.memory.buffer as unknown as SharedArrayBuffer
    this.u8 = new Uint8Array(this.buffer)
    this.u16 = new Uint16Array(this.buffer)
    this.i32 = new Int32Array(this.buffer)
    this.u32 = new Uint32Array(this.buffer)
    this.f64 = new Float64Array(this.buffer)
    this.view = new DataView(this.buffer)
    this.bytes = this.u8.length
  }

  /**
   * Reserves a region, zeroed.
   *
   * @param alignment a power of two, 64 (a cache line) unless told
   * @param touched how many bytes, from its beginning, may have been written: the others `reset` need not zero
   * @returns its offset
   * @throws CodedError `NF_LIMIT` when the arena has no room left
   */
  allocate(name: string, bytes: number, alignment = 64, touched?: () => number): number {
    assert(bytes >= 0 && Number.isInteger(bytes), 'a region has a whole number of bytes')
    assert(alignment > 0 && (alignment & (alignment - 1)) === 0, 'an alignment is a power of two')
    const offset = Math.ceil(this.#next / alignment) * alignment
    if (offset + bytes > this.bytes) {
      throw new CodedError(
        'NF_LIMIT',
        `no room for ${name}: ${bytes} bytes wanted, ${Math.max(0, this.bytes - offset)} of ${this.bytes} left`,
        'Lower the limits (flows, packets, extents).',
      )
    }
    this.#next = offset + bytes
    this.#regions.push({ name, offset, bytes })
    if (touched !== undefined) this.#sparse.push({ offset, bytes, touched })
    return offset
  }

  /** Bytes not yet reserved. */
  get remaining(): number {
    return this.bytes - this.#next
  }

  /** What has been reserved, in order. */
  get regions(): readonly Region[] {
    return this.#regions
  }

  /** Takes every region back and zeroes what they covered. Everything that held an offset is void afterwards. */
  reset(): void {
    // PERF: V8 fills shared memory element by element, so the fewer the better.
    let from = 0
    for (const { offset, bytes, touched } of this.#sparse) {
      this.f64.fill(0, from >> 3, (offset + touched() + 7) >> 3)
      from = offset + bytes
    }
    this.f64.fill(0, from >> 3, (this.#next + 7) >> 3)
    this.#next = 64
    this.#regions = []
    this.#sparse = []
  }
}
