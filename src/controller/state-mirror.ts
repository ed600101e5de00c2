/**
 * State mirror: the whole store as this controller knows it, at one revision, kept by a reading and a watch from there on. And the
 * draft of a transaction on it.
 *
 *     ┌─────────┐ read ┌─────────┐ entries, watch ┌───────────┐
 *     │ nothing │─────▶│ reading │───────────────▶│ following │── changes
 *     └─────────┘      └─────────┘                └───────────┘
 *                          ▲   no answer: again        │ watch ended, `refresh`, or every now and then
 *                          └───────────────────────────┘
 *
 * The mirror only ever goes forward, and each of its states is one that the store was in. It may be behind: a transaction drafted
 * on it then is refused as a whole.
 */

import type { TimeUs } from '../base/clock.ts'
import { decodeDocument, type Document, type DocumentKind } from './cluster-state.ts'
import { plantedInControl as planted } from './control-bugs.ts'
import type { Change, Comparison, StoreAnswer, StoreEntry, StoreRequest } from './store.ts'

/** Asked again without an answer for so long, µs; and after a reading that has failed, counted from its beginning. */
const PATIENCE_US = 500_000
const RETRY_US = 50_000
/** Read anew at least so often, µs: a watch that has died without a word costs no more. */
const REREAD_US = 10e6

export class StateMirror {
  readonly #nextId: () => number
  #entries = new Map<string, StoreEntry>()
  /** By entry, and gone with it. */
  readonly #decoded = new WeakMap<StoreEntry, unknown>()
  #revision = -1
  #readId = 0
  #readAt: TimeUs = 0
  #hasFailed = false
  #watchId = 0
  #isStale = true
  /** A reading that is under way may be older than what it is to show. */
  #isStaleAgain = false

  /** @param nextId numbers for requests, shared with others on the same connection */
  constructor(nextId: () => number) {
    this.#nextId = nextId
  }

  /** Of the state at hand; -1: nothing has been read yet. */
  get revision(): number {
    return this.#revision
  }

  /** False while a reading is awaited: better not decide anything. */
  get isFresh(): boolean {
    return this.#revision >= 0 && !this.#isStale
  }

  /** The outcome of something is unknown, or it was refused: read anew. */
  refresh(): void {
    if (this.#readId !== 0) this.#isStaleAgain = true
    this.#isStale = true
  }

  poll(now: TimeUs, submit: (request: StoreRequest) => void): void {
    if (now - this.#readAt > REREAD_US && this.#readId === 0) this.#isStale = true
    if (this.#readId !== 0 && now - this.#readAt > PATIENCE_US) this.#readId = 0
    if (!this.#isStale || this.#readId !== 0 || (this.#hasFailed && now - this.#readAt < RETRY_US)) return
    this.#isStaleAgain = false
    this.#readId = this.#nextId()
    this.#readAt = now
    submit({ kind: 'read', id: this.#readId, prefix: '' })
  }

  /** True if the answer was for the mirror. */
  receive(answer: StoreAnswer, submit: (request: StoreRequest) => void): boolean {
    if (answer.kind === 'changed') {
      if (answer.id === this.#watchId && answer.revision > this.#revision) this.#apply(answer.revision, answer.changes)
      return true
    }
    if (answer.kind === 'watch-ended') {
      if (answer.id === this.#watchId) {
        this.#watchId = 0
        this.refresh()
      }
      return true
    }
    if (answer.id !== this.#readId) return answer.kind === 'entries'
    this.#readId = 0
    this.#hasFailed = answer.kind !== 'entries'
    if (answer.kind !== 'entries') return true
    if (answer.revision >= this.#revision) {
      this.#revision = answer.revision
      const before = this.#entries
      // What has not changed is not decoded again.
      this.#entries = new Map(answer.entries.map((entry) => {
        const known = before.get(entry.key)
        return [entry.key, known?.revision === entry.revision ? known : entry]
      }))
    }
    this.#isStale = this.#isStaleAgain
    if (this.#watchId !== 0) submit({ kind: 'unwatch', id: this.#nextId(), watch: this.#watchId })
    this.#watchId = this.#nextId()
    submit({ kind: 'watch', id: this.#watchId, prefix: '', after: answer.revision })
    return true
  }

  #apply(revision: number, changes: readonly Change[]): void {
    this.#revision = revision
    for (const { key, value, lease = 0 } of changes) {
      if (value === null) this.#entries.delete(key)
      else this.#entries.set(key, { key, value, revision, lease })
    }
  }

  entry(key: string): StoreEntry | undefined {
    return this.#entries.get(key)
  }

  /** @throws CodedError NF_STORE_CONTENT */
  get<K extends DocumentKind>(kind: K, name = ''): Document<K> | undefined {
    const entry = this.#entries.get(keyOf(kind, name))
    return entry === undefined ? undefined : this.#decode(kind, entry)
  }

  /** All documents of a kind, by their names. */
  all<K extends DocumentKind>(kind: K): Map<string, Document<K>> {
    const found = new Map<string, Document<K>>()
    const prefix = `${kind}/`
    for (const entry of this.#entries.values()) {
      if (entry.key.startsWith(prefix)) found.set(entry.key.slice(prefix.length), this.#decode(kind, entry))
    }
    return found
  }

  #decode<K extends DocumentKind>(kind: K, entry: StoreEntry): Document<K> {
    const known = this.#decoded.get(entry)
    if (known !== undefined) return known as Document<K>
    const document = decodeDocument(kind, entry.key, entry.value)
    this.#decoded.set(entry, document)
    return document
  }
}

function keyOf(kind: DocumentKind, name: string | number): string {
  return name === '' ? kind : `${kind}/${name}`
}

/**
 * A transaction in the making. It writes on the condition that nothing has been written since the state that the mirror has: every
 * transaction puts `term` anew, and compares it. One that was given up for lost and comes late after all is refused too.
 */
export class Draft {
  readonly #mirror: StateMirror
  readonly #changes = new Map<string, Change>()
  /** What it does, for the log. */
  readonly reason: string

  constructor(mirror: StateMirror, reason: string) {
    this.#mirror = mirror
    this.reason = reason
  }

  put<K extends DocumentKind>(kind: K, name: string | number, document: Document<K>, lease = 0): this {
    const key = keyOf(kind, name)
    this.#changes.set(key, { key, value: JSON.stringify(document), lease })
    return this
  }

  remove(kind: DocumentKind, name: string | number = ''): this {
    const key = keyOf(kind, name)
    this.#changes.set(key, { key, value: null })
    return this
  }

  toRequest(id: number): StoreRequest {
    const term = this.#mirror.entry('term')
    if (term !== undefined && !this.#changes.has('term')) this.#changes.set('term', { key: 'term', value: term.value })
    const keys = new Set(['term', ...this.#changes.keys()])
    const compare: Comparison[] = [...keys].map((key) => ({ key, revision: this.#mirror.entry(key)?.revision ?? 0 }))
    return { kind: 'transact', id, compare: planted.unconditional ? [] : compare, changes: [...this.#changes.values()] }
  }
}
