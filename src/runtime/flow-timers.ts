/**
 * Flow timers: when something is due for each flow of an engine, its idle timeout or a timer that an NF has set. One timing wheel for all
 * flows; a flow is in it once, at the earliest of them.
 *
 *     time of the engine, µs:   epoch ──────── tick ──────── tick ──── now
 *     in the wheel:             record at the first tick at which it has something to do
 *
 * A flow that is paused keeps its place and is looked at again later. While a flow is out of the wheel (`isOff`), what is set for it is looked
 * at when it goes back.
 */

import { assert } from '../base/assert.ts'
import type { TimeUs } from '../base/clock.ts'
import { FlowRecord } from '../flow/flow-record.ts'
import type { Arena } from '../memory/arena.ts'
import { TimingWheel } from '../memory/timing-wheel.ts'
import type { ChainNf } from '../nf/chain.ts'
import type { FlowTimer } from '../nf/definition.ts'
import { Descriptor } from '../packet/descriptor.ts'
import type { PacketCursor } from '../packet/packet-view.ts'

const TICK_US = 1000

export class FlowTimers {
  /** Set while the flow that is spoken of is out of the wheel. */
  isOff = false
  /** Index of 64 bits of the time that the engine has reached. PERF: in flat memory, a variable would be a new box each time. */
  readonly clock: number
  readonly wheel: TimingWheel
  readonly #arena: Arena
  readonly #packet: PacketCursor
  #nfs: readonly ChainNf[] = []
  #epoch: TimeUs = -1

  /** @param packet the packet, or the flow without one, that NFs are called for */
  constructor(arena: Arena, packet: PacketCursor) {
    this.#arena = arena
    this.#packet = packet
    this.wheel = new TimingWheel(arena, 'flow timers', {
      next: FlowRecord.wheelNext, previous: FlowRecord.wheelPrevious, deadline: FlowRecord.wheelDeadline,
    })
    this.clock = arena.allocate('clock', 64) >> 3
  }

  /** The chain, which is made with timers from here. */
  useChain(nfs: readonly ChainNf[]): void {
    this.#nfs = nfs
  }

  get hasStarted(): boolean {
    return this.#epoch >= 0
  }

  get now(): TimeUs {
    return this.#arena.f64[this.clock]
  }

  /** The clock is at least here; it starts with the first time that it is told. */
  pass(time: TimeUs): void {
    const { f64 } = this.#arena
    if (this.#epoch < 0) {
      this.#epoch = time
      f64[this.clock] = time
      this.wheel.start(0)
    }
    if (time > f64[this.clock]) f64[this.clock] = time
  }

  /** Puts a flow into the wheel, to be looked at then. */
  add(record: number, time: TimeUs): void {
    this.wheel.add(record, this.#tickOf(time))
  }

  /** When something is due for a flow. */
  due(record: number): TimeUs {
    const { f64, u32 } = this.#arena
    let due = f64[(record + FlowRecord.lastSeen) >> 3] + u32[(record + FlowRecord.idleTimeoutMs) >> 2] * 1000
    for (let i = 0; i < this.#nfs.length; i++) {
      const offset = (this.#nfs[i] as ChainNf).timerOffset
      if (offset === 0) continue
      const timer = f64[(record + offset) >> 3]
      if (timer !== 0 && timer < due) due = timer
    }
    return due
  }

  /** Moves a flow in the wheel to where it belongs. */
  moveToDue(record: number): void {
    this.wheel.move(record, this.#tickOf(this.due(record)))
  }

  /** Something is due for a flow at this time: it is looked at no later. */
  hasten(record: number, time: TimeUs): void {
    const tick = this.#tickOf(time)
    if (!this.isOff && ((tick - this.wheel.deadlineOf(record)) | 0) < 0) this.wheel.move(record, tick)
  }

  /**
   * Calls `fire` for flows of which something may be due, out of the wheel: at most `budget` steps.
   * @returns true if everything due by now is done
   */
  advance(budget: number, fire: (record: number) => void): boolean {
    return this.wheel.advance(Math.floor((this.now - this.#epoch) / TICK_US) | 0, budget, fire) < budget
  }

  /** Before this time there is nothing to do. */
  nextDue(): TimeUs {
    return this.wheel.size === 0 ? Infinity : this.#epoch + this.wheel.nextTick() * TICK_US
  }

  #tickOf(time: TimeUs): number {
    return Math.ceil((time - this.#epoch) / TICK_US) | 0
  }

  /** The timer of one NF of the chain, for the flow that it is called for. */
  of(nf: number): FlowTimer {
    const { i32, f64 } = this.#arena
    const packet = this.#packet
    const offset = (): number => (this.#nfs[nf] as ChainNf).timerOffset
    const record = (): number => i32[packet.d + Descriptor.record]
    return {
      set: (delayUs) => {
        assert(offset() !== 0, 'an NF that sets timers has a timerFired method')
        const due = f64[(packet.d + Descriptor.time) >> 1] + Math.max(0, delayUs)
        f64[(record() + offset()) >> 3] = due
        this.hasten(record(), due)
      },
      clear() { f64[(record() + offset()) >> 3] = 0 },
      get isSet() { return f64[(record() + offset()) >> 3] !== 0 },
    }
  }
}
