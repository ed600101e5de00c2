/**
 * Store: the little that controllers must not forget, with compare-and-set transactions, revisions, watches and leases. What etcd
 * offers, and what can be had from SQLite; `store-contract.ts` says what every implementation keeps.
 *
 * A protocol like the others: requests in, answers out, no promise. `submit` never blocks and never answers by itself; answers are
 * taken with `poll`. An answer may never come (a lost connection, a store that is down): then nobody knows whether the request was
 * carried out, and the asker looks again. Transactions are atomic, and all requests are linearizable.
 *
 *     revision   one number for the whole store, raised by every transaction that changes something (by more than one, where a store has
 *                users besides us)
 *     entry      {key, value, the revision of its last change, its lease}
 *     lease      a number that lives as long as it is kept alive; entries under it go with it, in one transaction
 */

import type { TimeUs } from '../base/clock.ts'

export interface StoreEntry {
  readonly key: string
  readonly value: string
  /** Of its last change. */
  readonly revision: number
  /** 0: none. */
  readonly lease: number
}

/** The entry's last change has this revision; 0: there is no such entry. */
export interface Comparison {
  readonly key: string
  readonly revision: number
}

/** `value` null: remove (what is not there is removed already). A transaction changes a key at most once. */
export interface Change {
  readonly key: string
  readonly value: string | null
  readonly lease?: number
}

/** Ids are the asker's, unique on its connection. */
export type StoreRequest =
  /** Carried out if every comparison holds and every lease named is alive. */
  | { readonly kind: 'transact'; readonly id: number; readonly compare: readonly Comparison[]; readonly changes: readonly Change[] }
  /** All entries whose key begins with `prefix`, by key. */
  | { readonly kind: 'read'; readonly id: number; readonly prefix: string }
  /** All changes to such entries after revision `after`, in order, until `unwatch`. */
  | { readonly kind: 'watch'; readonly id: number; readonly prefix: string; readonly after: number }
  | { readonly kind: 'unwatch'; readonly id: number; readonly watch: number }
  | { readonly kind: 'grant'; readonly id: number; readonly ttlUs: number }
  | { readonly kind: 'keep'; readonly id: number; readonly lease: number }
  | { readonly kind: 'revoke'; readonly id: number; readonly lease: number }

export type StoreAnswer =
  /** `revision`: of the store, after it. Not done: nothing has changed. */
  | { readonly kind: 'transacted'; readonly id: number; readonly isDone: boolean; readonly revision: number }
  | { readonly kind: 'entries'; readonly id: number; readonly revision: number; readonly entries: readonly StoreEntry[] }
  /** What one transaction, or the end of one lease, has changed. `id`: the watch's. */
  | { readonly kind: 'changed'; readonly id: number; readonly revision: number; readonly changes: readonly Change[] }
  /** The watch cannot be given, or goes no further: read again. `id`: the watch's. */
  | { readonly kind: 'watch-ended'; readonly id: number }
  | { readonly kind: 'granted'; readonly id: number; readonly lease: number }
  | { readonly kind: 'kept'; readonly id: number; readonly isAlive: boolean }
  | { readonly kind: 'revoked'; readonly id: number }
  /** It was not carried out, for certain. */
  | { readonly kind: 'failed'; readonly id: number }

/** One asker's connection to a store. */
export interface Store {
  submit(request: StoreRequest, now: TimeUs): void
  /** The next answer, if one has come. */
  poll(now: TimeUs): StoreAnswer | undefined
}
