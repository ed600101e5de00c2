/**
 * Pause watch: sees that this thread has stood still, and why. A timer that comes late by half a second means that nothing else was done
 * either; of that time the kernel says for how long the thread was ready to run and had no core (`/proc/thread-self/schedstat`, the second
 * number). The rest is a stopped process, memory that had to be read from disk, or a long turn of its own.
 *
 * To be used by the thread that is watched. Who asks is told the longest pause since it asked before.
 */

import { closeSync, openSync, readSync } from 'node:fs'
import { setBounded } from '../base/bounded.ts'

export interface Pause {
  readonly us: number
  /** For how long of that it waited for a core; 0 where the kernel does not say. */
  readonly coreWaitUs: number
}

const NO_PAUSE: Pause = { us: 0, coreWaitUs: 0 }
const RHYTHM_MS = 20
const ASKERS_MAX = 16
/** So long a pause is part of what has just happened. */
const RECENT_MS = 10_000
const WAITS = '/proc/thread-self/schedstat'

export interface PauseWatchOptions {
  /** Milliseconds. */
  readonly now?: () => number
  /** Nanoseconds that this thread has waited for cores in its life. */
  readonly coreWaitNs?: () => number
}

export class PauseWatch {
  readonly #now: () => number
  readonly #coreWaitNs: () => number
  readonly #longest = new Map<string, Pause>()
  #last: Pause & { readonly at: number } = { ...NO_PAUSE, at: -Infinity }
  #lookedAt = 0
  #waitedNs = 0
  #timer: NodeJS.Timeout | undefined
  #waits = -1
  readonly #text = Buffer.alloc(64)

  constructor({ now = () => performance.now(), coreWaitNs }: PauseWatchOptions = {}) {
    this.#now = now
    this.#coreWaitNs = coreWaitNs ?? (() => this.#readWait())
  }

  /** Begins to look every {@link RHYTHM_MS}. */
  start(): void {
    this.#lookedAt = this.#now()
    this.#waitedNs = this.#coreWaitNs()
    this.#timer = setInterval(() => { this.look() }, RHYTHM_MS)
  }

  close(): void {
    clearInterval(this.#timer)
    if (this.#waits >= 0) closeSync(this.#waits)
    this.#waits = -1
  }

  /** Sees for how long it has stood still since it looked before. */
  look(): void {
    const now = this.#now()
    const waited = this.#coreWaitNs()
    const us = Math.round((now - this.#lookedAt - RHYTHM_MS) * 1000)
    const pause = { us, coreWaitUs: Math.max(0, Math.min(us, Math.round((waited - this.#waitedNs) / 1000))) }
    this.#lookedAt = now
    this.#waitedNs = waited
    if (us <= 0) return
    this.#last = now - this.#last.at < RECENT_MS && this.#last.us > us ? this.#last : { ...pause, at: now }
    for (const [asker, { us: longest }] of this.#longest) if (us > longest) this.#longest.set(asker, pause)
  }

  /** The longest since the same one asked before; lately, if it has not. */
  take(asker: string): Pause {
    const { us, coreWaitUs } = this.#longest.get(asker) ?? this.#lately()
    setBounded(this.#longest, asker, NO_PAUSE, ASKERS_MAX)
    return { us, coreWaitUs }
  }

  /** The longest one lately, until now. */
  recent(): Pause {
    this.look()
    return this.#lately()
  }

  #lately(): Pause {
    return this.#now() - this.#last.at < RECENT_MS ? this.#last : NO_PAUSE
  }

  #readWait(): number {
    try {
      if (this.#waits < 0) this.#waits = openSync(WAITS, 'r')
      const length = readSync(this.#waits, this.#text, 0, this.#text.length, 0)
      return Number(this.#text.toString('latin1', 0, length).split(' ')[1] ?? 0)
    } catch {
      return 0
    }
  }
}

/** In words: `812 ms, 790 ms of it waiting for a processor core`. */
export function pauseText({ us, coreWaitUs }: Pause): string {
  return `${Math.round(us / 1000)} ms, ${Math.round(coreWaitUs / 1000)} ms of it waiting for a processor core`
}
