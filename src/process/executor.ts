/**
 * Executor: runs one node on this thread, in slices between turns of the event loop, so that commands are answered while packets
 * flow. DESIGN: one thread per node.
 *
 *              frames come                       nothing for IDLE_TURNS turns
 *     ┌─▶ slice: poll, flush, poll ... ─▶ event loop ─┬──────────────▶ doze: armed, on the ports' descriptors
 *     │        (at most SLICE_US)                     │                     │ a frame, a command, or the node's next due time
 *     └───────────────────────────────────────────────┴─────────────────────┘
 *
 * What ends a doze is done at once, in the very callback, and only then is the sleep cleared up: packets that come one by one find each
 * node on their way asleep.
 *
 * A turn that found nothing lets another process have the core: processes that poll on the same core without that are two hundred
 * times slower. So does one that left work which it could not do (a link is full, a replica has not answered): whoever it waits for
 * needs a core. Where somebody has taken the core lately it dozes after a few turns: a core on which somebody polls without end looks busy to
 * the kernel, which then leaves those who have work in the queue of another one. Ports that cannot be waited for (a generator) are looked
 * at every millisecond once there has been nothing for long.
 *
 * A broken invariant ends `run` with the error: the process is to end at once.
 */

import type { Clock, TimeUs } from '../base/clock.ts'
import type { LinkPort } from '../ports/link-port.ts'
import { PortWaiter } from '../ports/port-waiter.ts'
import { yieldCore } from '../ports/sys.ts'
import { systemClock } from '../ports/system-clock.ts'

/** What an executor runs: a node, as far as it matters here. */
export interface Pollable {
  poll(now: TimeUs): boolean
  nextDue(): TimeUs
}

export interface ExecutorOptions {
  readonly node: Pollable
  readonly ports: readonly LinkPort[]
  readonly clock?: Clock
  /** The longest sleep, milliseconds; 50 unless told. */
  readonly dozeMsMax?: number
  /** Slice between two turns of the event loop, microseconds; 200 unless told. */
  readonly sliceUs?: number
}

const SLICE_US = 200
/** Turns without a frame before the executor sleeps. With fewer, the next packet of a conversation finds it asleep. */
const IDLE_TURNS = 200
/** A yield that takes longer than this has given the core to somebody, and counts for so many turns. */
const SHARED_US = 20
const SHARED_TURNS = 50
/** For how long cores count as shared after that, microseconds. */
const SHARED_FOR_US = 50_000
/** While they do, turns without a frame before the executor sleeps. */
const SHARED_IDLE_TURNS = 10
const MAINTAIN_US = 5_000
/** What is due within this time is waited for awake: timers of the event loop count milliseconds. */
const NEAR_US = 300
const DOZE_MS_MAX = 50
/** Idle turns in a row that a port could not be armed, before the executor dozes by the clock alone. */
const STUBBORN_TURNS = 16

export interface ExecutorStatistics {
  /** Calls of the node's `poll`, and those that brought frames or left work. */
  polls: number
  busyPolls: number
  /** Time in polls that brought frames or left work, and time asleep, microseconds. */
  busyUs: number
  asleepUs: number
  sleeps: number
}

export class Executor {
  readonly statistics: ExecutorStatistics = { polls: 0, busyPolls: 0, busyUs: 0, asleepUs: 0, sleeps: 0 }
  readonly #node: Pollable
  readonly #ports: LinkPort[]
  readonly #clock: Clock
  readonly #dozeMsMax: number
  readonly #sliceUs: number
  #stopAt = Infinity
  #isStopping = false
  #maintainAt: TimeUs = -Infinity
  #received = -1
  /** Until when somebody else is taken to want our core. */
  #sharedUntil: TimeUs = -Infinity
  /** The last poll has left work, and no frame came in it. */
  #isStuck = false
  readonly #waiter = new PortWaiter()
  /** What has come has been seen to as soon as it woke us; or what that has thrown. */
  #wasServed = false
  #awakeAt: TimeUs = 0
  #defect: unknown
  readonly #serve = (): void => {
    try {
      this.#awakeAt = this.#clock.now()
      if (this.#slice()) this.#wasServed = true
    } catch (error) {
      this.#defect = error
    }
  }

  #wake: (() => void) | undefined

  constructor(options: ExecutorOptions) {
    this.#node = options.node
    this.#ports = [...options.ports]
    this.#clock = options.clock ?? systemClock
    this.#dozeMsMax = options.dozeMsMax ?? DOZE_MS_MAX
    this.#sliceUs = options.sliceUs ?? SLICE_US
  }

  /** A port that has come later. */
  addPort(port: LinkPort): void {
    this.#ports.push(port)
  }

  /**
   * Ends `run`: at once when nothing is on its way through the node any more, at the latest after `drainMs`.
   */
  stop(drainMs = 0): void {
    this.#isStopping = true
    this.#stopAt = Math.min(this.#stopAt, this.#clock.now() + drainMs * 1000)
    this.wake()
  }

  /** Ends a sleep: there is something to do that no port tells of. */
  wake(): void {
    this.#wake?.()
  }

  /** Runs the node until `stop`. Rejects with what the node throws. */
  async run(): Promise<void> {
    try {
      await this.#run()
    } finally {
      this.#waiter.close()
    }
  }

  async #run(): Promise<void> {
    let idle = 0
    let stubborn = 0
    for (;;) {
      const hasWorked = this.#slice()
      if (this.#isStuck) yieldCore()
      if (this.#isStopping && (!hasWorked || this.#clock.now() >= this.#stopAt)) {
        if (this.#clock.now() >= this.#stopAt || ++idle > IDLE_TURNS) return
      } else if (hasWorked) {
        idle = stubborn = 0
      } else {
        idle += this.#yield()
      }
      const now = this.#clock.now()
      const isLong = idle > IDLE_TURNS
      if (this.#isStopping || (!isLong && (idle <= SHARED_IDLE_TURNS || now >= this.#sharedUntil))) {
        await turn()
        continue
      }
      const dueUs = this.#nextDue() - now
      if (dueUs < NEAR_US) {
        await turn()
        continue
      }
      const ms = Math.max(1, Math.min(this.#dozeMsMax, Math.floor(dueUs / 1000)))
      const isByClock = isLong && stubborn > STUBBORN_TURNS
      const wasAsleep = await this.#doze(isByClock ? 1 : ms, isByClock)
      // Unless there is something now, or was, back to sleep.
      if (this.#wasServed) idle = stubborn = 0
      else if (wasAsleep || isLong) idle = IDLE_TURNS
      if (wasAsleep) continue
      if (isLong) stubborn++
      else await turn()
    }
  }

  /** When there is something to do that no descriptor tells of. */
  #nextDue(): TimeUs {
    let due = this.#node.nextDue()
    const ports = this.#ports
    for (let i = 0; i < ports.length; i++) {
      const { retryDue = Infinity } = ports[i]
      // What is overdue waits for the next maintenance.
      if (retryDue < due) due = Math.max(retryDue, this.#maintainAt)
    }
    return due
  }

  /**
   * Lets another process have the core. Returns for how many idle turns that counts: where somebody else wanted it, who sleeps is
   * sooner back at a frame's arrival than who competes.
   */
  #yield(): number {
    const before = this.#clock.now()
    yieldCore()
    const now = this.#clock.now()
    if (now - before <= SHARED_US) return 1
    this.#sharedUntil = now + SHARED_FOR_US
    return SHARED_TURNS
  }

  /** Polls while there is more, for a slice at most. True if there was anything. */
  #slice(): boolean {
    const { statistics } = this
    const start = this.#clock.now()
    let now = start
    let hasWorked = false
    for (;;) {
      const isMore = this.#node.poll(now)
      const ports = this.#ports
      let received = 0
      for (let i = 0; i < ports.length; i++) {
        ports[i].flush()
        received += ports[i].statistics.rxFrames
      }
      this.#isStuck = isMore && received === this.#received
      const isBusy = isMore || received !== this.#received
      this.#received = received
      statistics.polls++
      const before = now
      now = this.#clock.now()
      if (isBusy) {
        statistics.busyPolls++
        statistics.busyUs += now - before
        hasWorked = true
      }
      if (now >= this.#maintainAt) this.#maintain(now)
      if (!isBusy || this.#isStuck || now - start >= this.#sliceUs) return hasWorked
    }
  }

  #maintain(now: TimeUs): void {
    this.#maintainAt = now + MAINTAIN_US
    for (const port of this.#ports) port.maintain(now)
  }

  /** Sleeps until something comes, is due, or somebody wakes us. False if a port would not let us. */
  async #doze(ms: number, isByClock: boolean): Promise<boolean> {
    const { statistics } = this
    const start = this.#clock.now()
    this.#wasServed = false
    this.#awakeAt = 0
    try {
      if (isByClock) {
        await new Promise<void>((resolve) => {
          this.#wake = resolve
          setTimeout(resolve, ms)
        })
      } else {
        this.#wake = () => { this.#waiter.interrupt() }
        await this.#waiter.wait(this.#ports, ms, this.#serve)
        if (this.#defect !== undefined) throw this.#defect
        // Awake all the time, and the ports as before.
        if (!this.#waiter.hasSlept) return false
      }
    } finally {
      this.#wake = undefined
    }
    const now = this.#clock.now()
    statistics.sleeps++
    statistics.asleepUs += (this.#awakeAt || now) - start
    // What a port's connection has to say is no work of the node: if that is what woke us it is looked at now, and else in its time.
    if (!this.#wasServed) this.#maintain(now)
    return true
  }
}

/** A turn of the event loop. */
function turn(): Promise<void> {
  return new Promise((resolve) => { setImmediate(resolve) })
}
