/**
 * Which store a test means, as data, so that processes can be told.
 */

import { SqliteStore } from '../sqlite-store.ts'
import type { ClosableStore } from './store-while-opening.ts'

export interface StoreSpec {
  readonly kind: 'sqlite'
  readonly path: string
}

export function openStore(spec: StoreSpec): Promise<ClosableStore> {
  return SqliteStore.open(spec.path)
}
