/**
 * Event log: what has happened to a cluster, a line of JSON each, in a file that all its processes append to. Who reads it (`since`) keeps
 * the last lines in memory, and looks for new ones only.
 */

import { closeSync, fstatSync, openSync, readSync, statSync, writeSync } from 'node:fs'

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

export class EventLog {
  readonly #file: string
  readonly #events: ClusterEvent[] = []
  #count = 0
  #offset = 0
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

  #read(): void {
    try {
      if (statSync(this.#file).size <= this.#offset) return
      const file = openSync(this.#file, 'r')
      try {
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
        const entry = JSON.parse(rest.subarray(0, end).toString()) as ClusterEvent
        if (typeof entry.event === 'string' && typeof entry.text === 'string') this.#events.push({ ...entry, number: ++this.#count })
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
