/**
 * A store that is being opened, for tests: what is asked meanwhile waits.
 */

import type { Store, StoreAnswer, StoreRequest } from '../../../controller/store.ts'
import type { TimeUs } from '../../../base/clock.ts'

export interface ClosableStore extends Store {
  close(): Promise<void>
}

export class StoreWhileOpening implements ClosableStore {
  readonly #opening: Promise<ClosableStore>
  readonly #waiting: [StoreRequest, TimeUs][] = []
  #store: ClosableStore | undefined

  constructor(opening: Promise<ClosableStore>) {
    this.#opening = opening.then((store) => {
      for (const [request, now] of this.#waiting) store.submit(request, now)
      this.#store = store
      return store
    })
  }

  submit(request: StoreRequest, now: TimeUs): void {
    if (this.#store === undefined) this.#waiting.push([request, now])
    else this.#store.submit(request, now)
  }

  poll(now: TimeUs): StoreAnswer | undefined {
    return this.#store?.poll(now)
  }

  /** @throws whatever made the opening fail */
  async close(): Promise<void> {
    await (await this.#opening).close()
  }
}
