/**
 * Event log: what has happened to a cluster, a line of JSON each, in a file that all its processes append to. Who reads it (`since`) keeps
 * the last lines in memory, and looks for new ones only. A long file is put aside by one of the processes (`bound`), and a short one
 * goes on, which begins with how many events came before (who adds one just then is not counted); the one put aside before that is gone.
 */

import { closeSync, fstatSync, linkSync, openSync, readSync, renameSync, rmSync, statSync, writeFileSync, writeSync } from 'node:fs'

export interface ClusterEvent {
  /** Counts from 1, in the order of the file. */
  readonly number: number
  /** ISO 8601, UTC. */
  readonly time: string
  /** What: `node-started`, `node-ready`, `node-died`, `drained` ... */
  readonly event: string
  readonly node?: string
  /** In words. */
  readonly text: string
  readonly [field: string]: unknown
}

/** Events kept in memory. */
const EVENTS_MAX = 10_000
/** The file is read in pieces of so many bytes. */
const PIECE_BYTES = 1 << 16
/** A file that is longer is put aside: more than {@link EVENTS_MAX} events. */
const FILE_BYTES_MAX = 4 << 20

export class EventLog {
  readonly #file: string
  readonly #events: ClusterEvent[] = []
  #count = 0
  #offset = 0
  /** Which file that is in: its inode; 0 before any. */
  #inode = 0
  /** Bytes behind the last whole line. */
  #rest: Buffer = Buffer.alloc(0)

  constructor(file: string) {
    this.#file = file
  }

  add(event: string, text: string, fields: Readonly<Record<string, unknown>> = {}): void {
    const line = `${JSON.stringify({ time: new Date().toISOString(), event, text, ...fields })}\n`
    try {
      const file = openSync(this.#file, 'a+', 0o600)
      try {
        // One write at the end of the file: lines of several processes do not mix. One that a full disk has cut is left to itself.
        writeSync(file, isCut(file) ? `\n${line}` : line)
      } finally {
        closeSync(file)
      }
    } catch {
      // A full disk is no reason to stop a cluster.
    }
  }

  /** The events behind this number that there still are, the last `limit` of them. */
  since(number: number, limit: number): ClusterEvent[] {
    this.#read()
    return this.#events.filter((entry) => entry.number > number).slice(-limit)
  }

  /** Puts a long file aside. To be called now and then, by one process of the cluster. */
  bound(bytesMax = FILE_BYTES_MAX): void {
    const next = `${this.#file}.next`
    try {
      if (statSync(this.#file).size <= bytesMax) return
      this.#read()
      writeFileSync(next, `${JSON.stringify({ eventsBefore: this.#count })}\n`, { mode: 0o600 })
      // At no time is there no file: who has this one open adds to it what is read all the same.
      rmSync(this.#aside, { force: true })
      linkSync(this.#file, this.#aside)
      renameSync(next, this.#file)
    } catch {
      // A full disk: it is longer for a while.
    }
  }

  get #aside(): string {
    return `${this.#file}.old`
  }

  #read(): void {
    if (inodeOf(this.#file) !== this.#inode) {
      const aside = inodeOf(this.#aside)
      // The rest of the one that we have read so far; all of it if this is our first look.
      if (aside !== 0 && (this.#inode === 0 || aside === this.#inode)) this.#readFile(this.#aside)
      this.#offset = 0
      this.#rest = Buffer.alloc(0)
    }
    this.#readFile(this.#file)
  }

  #readFile(path: string): void {
    try {
      const file = openSync(path, 'r')
      try {
        const { ino, size } = fstatSync(file)
        this.#inode = ino
        if (size <= this.#offset) return
        const piece = Buffer.alloc(PIECE_BYTES)
        for (let bytes = 1; bytes > 0;) {
          bytes = readSync(file, piece, 0, PIECE_BYTES, this.#offset)
          this.#offset += bytes
          this.#take(piece.subarray(0, bytes))
        }
      } finally {
        closeSync(file)
      }
    } catch {
      // There is none yet.
    }
  }

  #take(piece: Buffer): void {
    let rest = Buffer.concat([this.#rest, piece])
    for (let end = rest.indexOf(10); end >= 0; end = rest.indexOf(10)) {
      try {
        const entry = JSON.parse(rest.subarray(0, end).toString()) as ClusterEvent & { readonly eventsBefore?: number }
        if (typeof entry.event === 'string' && typeof entry.text === 'string') this.#events.push({ ...entry, number: ++this.#count })
        else if (typeof entry.eventsBefore === 'number') this.#count = Math.max(this.#count, entry.eventsBefore)
        if (this.#events.length > EVENTS_MAX) this.#events.shift()
      } catch {
        // A line that a full disk has cut.
      }
      rest = rest.subarray(end + 1)
    }
    this.#rest = rest
  }
}

/** Whether the file does not end with a whole line. */
function isCut(file: number): boolean {
  const { size } = fstatSync(file)
  const last = Buffer.alloc(1)
  return size > 0 && readSync(file, last, 0, 1, size - 1) === 1 && last[0] !== 10
}

/** 0 if there is no such file. */
function inodeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.ino ?? 0
}
