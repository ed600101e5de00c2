/**
 * Held packets: what network functions keep back (verdict `Hold`), as a list of slots per flow, oldest first.
 *
 *     record.heldFirst ──▶ slot ──nextHeld──▶ slot ──▶ 0          record.heldLast: the newest
 *
 * A held packet's descriptor lies in its slot's headroom; its word `nf` says which network function holds it. Released packets go
 * on with the network function behind, inside the activation of the one that releases them, so that they leave before the
 * packet at hand.
 */

import type { Arena } from '../memory/arena.ts'
import { FlowRecord } from '../flow/flow-record.ts'
import { Descriptor, DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import type { PacketCursor } from '../packet/packet-view.ts'
import type { HeldPackets } from '../nf/definition.ts'
import type { Verdict } from '../nf/verdict.ts'

const D = Descriptor

export interface HoldingHost {
  readonly arena: Arena
  readonly packet: PacketCursor
  /** Most packets held per flow. */
  readonly limit: number
  /** Word index of an extra descriptor of the batch, 0 when there is none left. */
  takeExtra(): number
  hasExtra(): boolean
  /** Runs a packet through the chain from NF `first` on. */
  resume(descriptor: number, record: number, first: number): void
  /** Drops a held packet by the verdict of the NF that held it. */
  drop(descriptor: number, verdict: Verdict): void
}

export class HeldPacketLists {
  /** Packets held now, of all flows. */
  count = 0
  /** Packets that have been held, ever. */
  begun = 0
  readonly #host: HoldingHost
  readonly #i32: Int32Array
  readonly #u16: Uint16Array

  constructor(host: HoldingHost) {
    this.#host = host
    this.#i32 = host.arena.i32
    this.#u16 = host.arena.u16
  }

  /** Keeps a packet; false when it lies in no slot or the flow has too many. */
  hold(d: number, record: number, nf: number): boolean {
    const i32 = this.#i32
    const slot = i32[d + D.slot]
    const count = (record + FlowRecord.heldCount) >> 1
    if (slot === 0 || this.#u16[count] >= this.#host.limit) return false
    i32.copyWithin(slot >> 2, d, d + DESCRIPTOR_WORDS)
    i32[(slot >> 2) + D.nextHeld] = 0
    i32[(slot >> 2) + D.nf] = nf
    const last = i32[(record + FlowRecord.heldLast) >> 2]
    if (last === 0) i32[(record + FlowRecord.heldFirst) >> 2] = slot
    else i32[(last >> 2) + D.nextHeld] = slot
    i32[(record + FlowRecord.heldLast) >> 2] = slot
    this.#u16[count]++
    this.count++
    this.begun++
    return true
  }

  /** Takes every packet from a flow, for good: hands each slot over. */
  takeAll(record: number, take: (slot: number) => void): void {
    const i32 = this.#i32
    for (let slot = i32[(record + FlowRecord.heldFirst) >> 2]; slot !== 0;) {
      const held = slot
      slot = i32[(slot >> 2) + D.nextHeld]
      this.count--
      take(held)
    }
    i32[(record + FlowRecord.heldFirst) >> 2] = 0
    i32[(record + FlowRecord.heldLast) >> 2] = 0
    this.#u16[(record + FlowRecord.heldCount) >> 1] = 0
  }

  /** What an NF sees and may do, of the flow at hand. */
  of(nf: number): HeldPackets {
    const i32 = this.#i32
    const host = this.#host
    const flow = (): number => i32[host.packet.d + D.record]
    const takeOldest = (): number => this.#takeOldest(flow(), nf)
    const resumeFrom = (first: number, count: number): void => {
      for (let i = 0; i < count && host.hasExtra(); i++) {
        const slot = takeOldest()
        if (slot === 0) return
        const d = host.takeExtra()
        i32.copyWithin(d, slot >> 2, (slot >> 2) + DESCRIPTOR_WORDS)
        host.resume(d, flow(), first)
      }
    }
    const countHeld = (): number => {
      let count = 0
      for (let slot = i32[(flow() + FlowRecord.heldFirst) >> 2]; slot !== 0; slot = i32[(slot >> 2) + D.nextHeld]) {
        if (i32[(slot >> 2) + D.nf] === nf) count++
      }
      return count
    }
    return {
      get count() { return countHeld() },
      // Those that it holds again are not shown twice.
      retry(count = Infinity) { resumeFrom(nf, Math.min(count, countHeld())) },
      release(count = Infinity) { resumeFrom(nf + 1, count) },
      drop(verdict, count = Infinity) {
        for (let i = 0; i < count; i++) {
          const slot = takeOldest()
          if (slot === 0) return
          host.drop(slot >> 2, verdict)
        }
      },
    }
  }

  /** Unlinks the oldest packet that this NF holds of a flow; returns its slot, or 0. */
  #takeOldest(record: number, nf: number): number {
    const i32 = this.#i32
    let previous = 0
    for (let slot = i32[(record + FlowRecord.heldFirst) >> 2]; slot !== 0; slot = i32[(slot >> 2) + D.nextHeld]) {
      if (i32[(slot >> 2) + D.nf] === nf) {
        const next = i32[(slot >> 2) + D.nextHeld]
        if (previous === 0) i32[(record + FlowRecord.heldFirst) >> 2] = next
        else i32[(previous >> 2) + D.nextHeld] = next
        if (next === 0) i32[(record + FlowRecord.heldLast) >> 2] = previous
        this.#u16[(record + FlowRecord.heldCount) >> 1]--
        this.count--
        return slot
      }
      previous = slot
    }
    return 0
  }
}
