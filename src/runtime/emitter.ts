/**
 * Emitter: packets that network functions make. A packet gets a slot from the pool and one of the batch's extra descriptors,
 * is shown to the network function as a packet view, and leaves when it is sent. One that is never sent is given back with the
 * next one, or at the end of the batch. What finds no room is counted as emitted and dropped (`emit-limit`).
 */

import type { Arena } from '../memory/arena.ts'
import { FlowRecord } from '../flow/flow-record.ts'
import { Descriptor, DESCRIPTOR_WORDS, Meta } from '../packet/descriptor.ts'
import { SLOT_FRAME_OFFSET, type PacketPool } from '../packet/packet-pool.ts'
import { createPacketView, type Packet, type PacketCursor } from '../packet/packet-view.ts'
import type { Emitter } from '../nf/definition.ts'

const D = Descriptor

export interface EmitterHost {
  readonly arena: Arena
  readonly pool: PacketPool
  /** The packet at hand. */
  readonly packet: PacketCursor
  /** See `EngineOptions.reusesCode`. */
  readonly reusesCode?: boolean
  /** The NF that runs. */
  nf(): number
  /** Word index of an extra descriptor of the batch, 0 when there is none left. */
  takeExtra(): number
  /** Takes back the extra descriptor that was taken last. */
  giveExtra(): void
  /** A packet was made and is to leave. */
  sent(descriptor: number): void
  /** A packet could not be made. */
  refused(): void
}

export interface EngineEmitter extends Emitter {
  /** Gives back a packet that was made and never sent. */
  giveUp(): void
}

export function createEmitter(host: EmitterHost): EngineEmitter {
  const { pool, packet } = host
  const { i32, u8 } = host.arena
  const made = createPacketView(host.arena, host.reusesCode)
  let pending = 0

  function giveUp(): void {
    if (pending === 0) return
    pool.give(i32[pending + D.slot])
    pending = 0
  }

  /** A descriptor like that of the packet at hand, with a slot of its own; 0 when there is no room. */
  function make(length: number): number {
    giveUp()
    const d = host.takeExtra()
    const slot = d === 0 ? 0 : pool.take(length)
    if (slot === 0) {
      if (d !== 0) host.giveExtra()
      host.refused()
      return 0
    }
    i32.copyWithin(d, packet.d, packet.d + DESCRIPTOR_WORDS)
    i32[d + D.slot] = slot
    i32[d + D.frame] = slot + SLOT_FRAME_OFFSET
    i32[d + D.nf] = host.nf()
    return d
  }

  function show(d: number, direction: number): Packet {
    pending = d
    made.d = d
    made.direction = direction
    return made
  }

  return {
    giveUp,
    copy(original) {
      const length = original.frameLength
      const d = make(length)
      if (d === 0) return null
      const by = i32[d + D.frame] - original.frameOffset
      u8.copyWithin(i32[d + D.frame], original.frameOffset, original.frameOffset + length)
      i32[d + D.network] += by
      if (i32[d + D.transport] !== 0) i32[d + D.transport] += by
      i32[d + D.payload] += by
      i32[d + D.length] = length
      i32[d + D.meta] |= Meta.emitted
      return show(d, packet.direction)
    },
    frame(original, networkBytes, direction) {
      const linkBytes = original.networkOffset - original.frameOffset
      const d = make(linkBytes + networkBytes)
      if (d === 0) return null
      const frame = i32[d + D.frame]
      u8.copyWithin(frame, original.frameOffset, original.frameOffset + linkBytes)
      u8.fill(0, frame + linkBytes, frame + linkBytes + networkBytes)
      if (direction !== original.direction && i32[d + D.linkType] === 1) {
        for (let i = 0; i < 6; i++) {
          u8[frame + i] = u8[original.frameOffset + 6 + i]
          u8[frame + 6 + i] = u8[original.frameOffset + i]
        }
      }
      i32[d + D.length] = linkBytes + networkBytes
      i32[d + D.wireLength] = linkBytes + networkBytes
      i32[d + D.network] = frame + linkBytes
      i32[d + D.transport] = 0
      i32[d + D.payload] = frame + linkBytes
      i32[d + D.payloadLength] = 0
      i32[d + D.meta] = (i32[d + D.meta] & (Meta.ipv6 | 255)) | Meta.emitted
      return show(d, direction)
    },
    send(direction) {
      const d = pending
      if (d === 0) return
      pending = 0
      const opener = u8[i32[d + D.record] + FlowRecord.opener]
      i32[d + D.meta] = (i32[d + D.meta] & ~Meta.fromB) | ((direction ^ opener) << 16)
      host.sent(d)
    },
  }
}
