/**
 * Frame recorder: copies of the frames of some ports of a node, until somebody takes them, within bounds. A frame that came in and was
 * dropped by the node says why, if it has not been taken before.
 */

import type { Arena } from '../memory/arena.ts'
import { Descriptor } from '../packet/descriptor.ts'
import type { PacketWatch } from '../packet/packet-watch.ts'
import type { FramePredicate } from '../ports/frame-summary.ts'
import type { PortWatch } from '../ports/port-watch.ts'
import { systemClock } from '../ports/system-clock.ts'
import type { RuntimeNode } from '../node/runtime-node.ts'

/** Copies that wait to be taken, bytes; what comes on top is lost to the capture. */
const WAITING_BYTES_MAX = 4 << 20

export interface CapturedFrame {
  /** Microseconds since the Unix epoch. */
  readonly time: number
  /** Index of the port in the answer to `StartWatch`. */
  readonly port: number
  readonly isOut: boolean
  /** In base64. */
  readonly bytes: string
  readonly comment?: string
}

export interface CaptureTaken {
  readonly frames: readonly CapturedFrame[]
  /** Frames that found no room since the capture began. */
  readonly lost: number
  readonly isOver: boolean
}

interface Copy {
  readonly time: number
  readonly port: number
  readonly isOut: boolean
  readonly bytes: Buffer
  comment?: string
}

export class FrameRecorder implements Partial<PacketWatch> {
  readonly #arena: Arena
  readonly #node: RuntimeNode | undefined
  readonly #wants: FramePredicate
  readonly #packetsMax: number
  readonly #bytesMax: number
  #copies: Copy[] = []
  #waiting = 0
  #packets = 0
  #bytes = 0
  #lost = 0
  #isOver = false
  /** Copies of what came in, by slot, until they are taken. */
  readonly #bySlot = new Map<number, Copy>()
  #before: Float64Array | undefined

  constructor(arena: Arena, wants: FramePredicate, packets: number, bytes: number, node?: RuntimeNode) {
    this.#arena = arena
    this.#wants = wants
    this.#packetsMax = packets
    this.#bytesMax = bytes
    this.#node = node
  }

  portWatch(port: number): PortWatch {
    return {
      received: (frame, length, slot) => {
        const copy = this.#copy(port, false, frame, length)
        if (copy === undefined) this.#bySlot.delete(slot)
        else this.#bySlot.set(slot, copy)
      },
      sending: (frame, length) => { this.#copy(port, true, frame, length) },
      refused: (frame, length) => {
        const last = this.#copies.at(-1)
        if (last?.isOut === true && last.bytes.length === length && this.#wants(this.#arena.u8, frame, length)) {
          last.comment = 'not sent: the port has no room'
        }
      },
    }
  }

  running(): void {
    this.#before = this.#node?.engine.dropCounts.slice()
  }

  ran(d: number): void {
    const { engine } = this.#node ?? {}
    const index = engine?.dropCounts.findIndex((count, i) => count > (this.#before?.[i] ?? Infinity)) ?? -1
    if (index >= 0) this.dropped(this.#arena.i32[d + Descriptor.slot] as number, engine?.chain.dropReasons[index] ?? '')
  }

  dropped(slot: number, reason: string): void {
    const copy = this.#bySlot.get(slot)
    if (copy !== undefined) copy.comment = `dropped: ${reason}`
  }

  take(): CaptureTaken {
    const frames = this.#copies.map(({ bytes, ...copy }) => ({ ...copy, bytes: bytes.toString('base64') }))
    this.#copies = []
    this.#waiting = 0
    this.#bySlot.clear()
    return { frames, lost: this.#lost, isOver: this.#isOver }
  }

  #copy(port: number, isOut: boolean, frame: number, length: number): Copy | undefined {
    const { u8 } = this.#arena
    if (this.#isOver || !this.#wants(u8, frame, length)) return undefined
    if (this.#bytes + length > this.#bytesMax) {
      this.#isOver = true
      return undefined
    }
    if (this.#waiting + length > WAITING_BYTES_MAX) {
      this.#lost++
      return undefined
    }
    const copy = { time: systemClock.now(), port, isOut, bytes: Buffer.from(u8.subarray(frame, frame + length)) }
    this.#copies.push(copy)
    this.#waiting += length
    this.#bytes += length
    if (++this.#packets >= this.#packetsMax) this.#isOver = true
    return copy
  }
}
