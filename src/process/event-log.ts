/**
 * Event log: what has happened to a cluster, a line of JSON each, in memory and in a file.
 */

import { appendFileSync } from 'node:fs'

export interface ClusterEvent {
  /** Counts from 1. */
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

export class EventLog {
  readonly #file: string
  readonly #events: ClusterEvent[] = []
  #count = 0

  constructor(file: string) {
    this.#file = file
  }

  add(event: string, text: string, fields: Readonly<Record<string, unknown>> = {}): void {
    const entry: ClusterEvent = { number: ++this.#count, time: new Date().toISOString(), event, text, ...fields }
    this.#events.push(entry)
    if (this.#events.length > EVENTS_MAX) this.#events.shift()
    try {
      appendFileSync(this.#file, `${JSON.stringify(entry)}\n`, { mode: 0o600 })
    } catch {
      // A full disk is no reason to stop a cluster.
    }
  }

  /** The events behind this number that there still are, the last `limit` of them. */
  since(number: number, limit: number): ClusterEvent[] {
    return this.#events.filter((entry) => entry.number > number).slice(-limit)
  }
}
