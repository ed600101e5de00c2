/**
 * Which store a test means, as data, so that processes can be told.
 */

import { EtcdStore } from '../etcd-store.ts'
import { SqliteStore } from '../sqlite-store.ts'
import type { ClosableStore } from './store-while-opening.ts'

export type StoreSpec =
  | { readonly kind: 'sqlite'; readonly path: string }
  | { readonly kind: 'etcd'; readonly endpoints: readonly string[]; readonly prefix: string }

export function openStore(spec: StoreSpec): Promise<ClosableStore> {
  return spec.kind === 'sqlite' ? SqliteStore.open(spec.path) : EtcdStore.open(spec)
}
