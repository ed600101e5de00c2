/**
 * A store in memory, for tests, the simulator, and a single controller that may forget. Paper §3 has ZooKeeper in this place.
 *
 * The last transactions are kept as history, so that a watch can begin in the past; one that begins before it is told to read again.
 * Leases end when time passes them, at the next call of any connection.
 */

import type { TimeUs } from '../base/clock.ts'
import type { Change, Store, StoreAnswer, StoreEntry, StoreRequest } from './store.ts'

export interface StoreStep {
  readonly revision: number
  readonly changes: readonly Change[]
}

interface Lease {
  readonly ttlUs: number
  until: TimeUs
}

interface Watch {
  readonly answers: StoreAnswer[]
  readonly id: number
  readonly prefix: string
}

/** Transactions that a watch may begin before. */
const HISTORY_MAX = 1000

export class MemoryStore {
  readonly #entries = new Map<string, StoreEntry>()
  readonly #leases = new Map<number, Lease>()
  readonly #watches = new Set<Watch>()
  readonly #history: StoreStep[] = []
  #revision = 0
  #lastLease = 0
  /** Told of every step as it is made: for checkers. */
  onStep: (step: StoreStep) => void = () => {}

  get revision(): number {
    return this.#revision
  }

  entry(key: string): StoreEntry | undefined {
    return this.#entries.get(key)
  }

  /** A new asker. */
  connect(): Store {
    const answers: StoreAnswer[] = []
    return {
      submit: (request, now) => {
        this.#expire(now)
        const answer = this.#carryOut(request, answers, now)
        if (answer !== undefined) answers.push(answer)
      },
      poll: (now) => {
        this.#expire(now)
        return answers.shift()
      },
    }
  }

  #carryOut(request: StoreRequest, answers: StoreAnswer[], now: TimeUs): StoreAnswer | undefined {
    const { id } = request
    switch (request.kind) {
      case 'transact': {
        const isDone = request.compare.every(({ key, revision }) => (this.#entries.get(key)?.revision ?? 0) === revision) &&
          request.changes.every(({ lease = 0 }) => lease === 0 || this.#leases.has(lease))
        if (isDone) this.#apply(request.changes)
        return { kind: 'transacted', id, isDone, revision: this.#revision }
      }
      case 'read': {
        const entries = [...this.#entries.values()].filter(({ key }) => key.startsWith(request.prefix))
        return { kind: 'entries', id, revision: this.#revision, entries: entries.sort((a, b) => (a.key < b.key ? -1 : 1)) }
      }
      case 'watch': {
        const oldest = this.#history[0]?.revision ?? this.#revision + 1
        if (request.after + 1 < oldest || request.after > this.#revision) return { kind: 'watch-ended', id }
        const watch = { answers, id, prefix: request.prefix }
        this.#watches.add(watch)
        for (const step of this.#history) if (step.revision > request.after) this.#tell(watch, step)
        return undefined
      }
      case 'unwatch':
        for (const watch of this.#watches) if (watch.answers === answers && watch.id === request.watch) this.#watches.delete(watch)
        return undefined
      case 'grant':
        this.#leases.set(++this.#lastLease, { ttlUs: request.ttlUs, until: now + request.ttlUs })
        return { kind: 'granted', id, lease: this.#lastLease }
      case 'keep': {
        const lease = this.#leases.get(request.lease)
        if (lease !== undefined) lease.until = now + lease.ttlUs
        return { kind: 'kept', id, isAlive: lease !== undefined }
      }
      case 'revoke':
        this.#end(request.lease)
        return { kind: 'revoked', id }
    }
  }

  #apply(changes: readonly Change[]): void {
    const real = changes.filter(({ key, value }) => value !== null || this.#entries.has(key))
    if (real.length === 0) return
    const revision = ++this.#revision
    for (const { key, value, lease = 0 } of real) {
      if (value === null) this.#entries.delete(key)
      else this.#entries.set(key, { key, value, revision, lease })
    }
    const step = { revision, changes: real }
    this.#history.push(step)
    if (this.#history.length > HISTORY_MAX) this.#history.shift()
    for (const watch of this.#watches) this.#tell(watch, step)
    this.onStep(step)
  }

  #tell({ answers, id, prefix }: Watch, { revision, changes }: StoreStep): void {
    const seen = changes.filter(({ key }) => key.startsWith(prefix))
    if (seen.length > 0) answers.push({ kind: 'changed', id, revision, changes: seen })
  }

  #end(lease: number): void {
    if (!this.#leases.delete(lease)) return
    this.#apply([...this.#entries.values()].filter((entry) => entry.lease === lease).map(({ key }) => ({ key, value: null })))
  }

  #expire(now: TimeUs): void {
    for (const [lease, { until }] of this.#leases) if (now >= until) this.#end(lease)
  }
}
