/**
 * What a program of the client has seen, and the clock by which it measures how long nothing came.
 */

export interface Outcome {
  readonly program: string
  /** Transfers, answers or echoes that are complete, each checked. */
  readonly complete: number
  readonly connections: number
  /** The longest time without anything, on a connection that was open, milliseconds. */
  readonly stallMs: number
  /** Of half a second and more, of connections that open too, the first hundred: milliseconds since stalls count, and how long. */
  readonly stalls: readonly (readonly [number, number])[]
  /** The longest time until a new connection gave its first answer, milliseconds. */
  readonly openMs: number
  /** Datagrams that came twice. */
  readonly duplicates: number
  /** Datagrams that never came. TCP's programs lose nothing, or have a fault. */
  readonly lost: number
  /** What went wrong, one line each: a reset, a digest that differs, an end too early. */
  readonly faults: readonly string[]
}

/** Stalls that are told of, with the time of each. */
const LONG_MS = 500
const STALLS_MAX = 100

/** Measures between one sign of life and the next. */
export class StallClock {
  static readonly #all = new Set<StallClock>()
  static #begunAt = 0
  longestMs = 0
  longestOpenMs = 0
  readonly stalls: (readonly [number, number])[] = []

  constructor() {
    StallClock.#all.add(this)
  }

  /** What counts begins now: the many programs have started. */
  static begin(): void {
    StallClock.#begunAt = performance.now()
    for (const clock of StallClock.#all) {
      clock.longestMs = clock.longestOpenMs = 0
      clock.stalls.length = 0
    }
  }

  /** A connection begins. Call what this returns whenever something has come, or is asked for after a pause of our own. */
  open(): (what?: 'asking') => void {
    let last = performance.now()
    let isOpen = false
    return (what) => {
      const now = performance.now()
      if (what === 'asking') {
        last = now
        return
      }
      if (isOpen) this.longestMs = Math.max(this.longestMs, now - last)
      else this.longestOpenMs = Math.max(this.longestOpenMs, now - last)
      if (now - last >= LONG_MS && this.stalls.length < STALLS_MAX) {
        this.stalls.push([Math.round(last - StallClock.#begunAt), Math.round(now - last)])
      }
      isOpen = true
      last = now
    }
  }
}

/** A program of the client: it works until it is told to stop, and then brings to an end what it has begun. */
export interface Session {
  stop(): Promise<Outcome>
}

/** A file of the web server. */
export interface WebFile {
  readonly name: string
  readonly bytes: number
  /** SHA-256. */
  readonly digest: string
}

/** What all programs are told. */
export interface ClientPlan {
  readonly hosts: readonly string[]
  readonly downloads: number
  readonly keepAlive: number
  readonly webSockets: number
  readonly streams: number
  /** How long iperf3 runs; 0: not at all. */
  readonly iperfSeconds: number
  /** Folder with the key of the ssh client; empty: no ssh session. */
  readonly keyFile: string
  /** What the web server has. */
  readonly files: readonly WebFile[]
}

export const Port = {
  web: 8080, web2: 8081, webSocket: 8082, http2: 8083, dns: 5353, ssh: 2222,
  /** The first of five; the last one is for load. */
  iperf: 5201,
} as const

const FAULTS_MAX = 20

/** Counts and faults that every program has. */
export class Tally {
  readonly clock = new StallClock()
  readonly faults: string[] = []
  complete = 0
  connections = 0
  duplicates = 0
  lost = 0

  fault(text: unknown): void {
    if (this.faults.length === FAULTS_MAX) return
    this.faults.push(text instanceof Error ? `${(text as NodeJS.ErrnoException).code ?? ''} ${text.message}` : String(text))
  }

  outcome(program: string): Outcome {
    const { clock: { longestMs, longestOpenMs, stalls }, faults, complete, connections, duplicates, lost } = this
    return { program, complete, connections, duplicates, lost, faults, stalls,
      stallMs: Math.round(longestMs), openMs: Math.round(longestOpenMs) }
  }
}
