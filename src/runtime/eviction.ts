/**
 * Eviction: which flow goes when another one wants its room (policy `whenFull: evict`). A hand goes round over the records, and of those
 * that it passes the best one goes: one that is closed, else a TCP flow that nobody has answered, else the one that is idle for longest.
 */

import type { Arena } from '../memory/arena.ts'
import type { Slab } from '../memory/slab.ts'
import { FlowPhase, FlowRecord, TcpLife } from '../flow/flow-record.ts'

/** Records that are looked at each time. */
const LOOKS = 64
const TCP = 6

export class Eviction {
  readonly #arena: Arena
  readonly #slab: Slab
  #hand = 0

  constructor(arena: Arena, slab: Slab) {
    this.#arena = arena
    this.#slab = slab
  }

  /** The flow to go; 0 if there was none among those that were looked at. */
  choose(): number {
    const { i32, u8, f64 } = this.#arena
    const slab = this.#slab
    let best = 0
    let bestRank = Infinity
    for (let i = 0; i < LOOKS; i++) {
      if (this.#hand >= slab.highWater) this.#hand = 0
      const index = this.#hand++
      if (!slab.isTaken(index)) continue
      const record = slab.offsetOf(index)
      const age = f64[(record + FlowRecord.lastSeen) >> 3] / 1e15
      const tcp = u8[record + FlowRecord.tcp]
      const unanswered = (i32[(record + FlowRecord.protocol) >> 2] & 255) === TCP && (tcp & TcpLife.synSeen) !== 0 &&
        (tcp & TcpLife.answered) === 0
      const rank = (u8[record + FlowRecord.phase] === FlowPhase.lingering ? 0 : unanswered ? 100 : 200) + age
      if (rank < bestRank) {
        best = record
        bestRank = rank
      }
    }
    return best
  }
}
