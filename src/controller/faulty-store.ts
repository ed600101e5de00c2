/**
 * A connection to a store on a bad day, for tests: requests and answers take time and overtake each other, are lost on either way, or
 * are refused; watches stay in order, but end without notice. Seeded.
 */

import type { TimeUs } from '../base/clock.ts'
import type { Random } from '../base/random.ts'
import type { Store, StoreAnswer, StoreRequest } from './store.ts'

export interface StoreFaults {
  /** Each way, µs. */
  delayUsMax: number
  /** Chances, per request. Late: it reaches the store after up to five seconds, when its asker has given it up. */
  late: number
  requestLost: number
  answerLost: number
  refused: number
  /** Per change told to a watch: the watch ends. */
  watchEnds: number
  /** Nothing comes through. */
  isDown: boolean
}

export const noStoreFaults: StoreFaults = {
  delayUsMax: 0, late: 0, requestLost: 0, answerLost: 0, refused: 0, watchEnds: 0, isDown: false,
}

interface Timed<T> {
  readonly at: TimeUs
  readonly what: T
}

export class FaultyStore implements Store {
  faults: StoreFaults
  readonly #store: Store
  readonly #random: Random
  readonly #requests: Timed<StoreRequest>[] = []
  readonly #answers: Timed<StoreAnswer>[] = []
  readonly #lostAnswers = new Set<number>()
  readonly #endedWatches = new Set<number>()
  #watchAt: TimeUs = 0

  constructor(store: Store, random: Random, faults: StoreFaults = { ...noStoreFaults }) {
    this.#store = store
    this.#random = random
    this.faults = faults
  }

  submit(request: StoreRequest, now: TimeUs): void {
    const { delayUsMax, late, requestLost, answerLost, refused, isDown } = this.faults
    if (isDown || this.#random.chance(requestLost)) return
    const at = now + this.#random.below(delayUsMax + 1)
    if (this.#random.chance(refused)) {
      this.#answers.push({ at, what: request.kind === 'watch' ? { kind: 'watch-ended', id: request.id } : { kind: 'failed', id: request.id } })
      return
    }
    if (this.#random.chance(answerLost)) this.#lostAnswers.add(request.id)
    this.#requests.push({ at: this.#random.chance(late) ? at + this.#random.below(5e6) : at, what: request })
  }

  poll(now: TimeUs): StoreAnswer | undefined {
    this.pass(now)
    const index = this.#answers.findIndex(({ at }) => at <= now)
    return index < 0 ? undefined : this.#answers.splice(index, 1)[0]?.what
  }

  /** Requests that are on their way reach the store, whether or not the asker still lives. */
  pass(now: TimeUs): void {
    for (let i = 0; i < this.#requests.length; i++) {
      const { at, what } = this.#requests[i] as Timed<StoreRequest>
      if (at > now) continue
      this.#requests.splice(i--, 1)
      this.#store.submit(what, now)
    }
    for (let answer = this.#store.poll(now); answer !== undefined; answer = this.#store.poll(now)) this.#return(answer, now)
  }

  #return(answer: StoreAnswer, now: TimeUs): void {
    const { delayUsMax, watchEnds, isDown } = this.faults
    const at = now + this.#random.below(delayUsMax + 1)
    if (answer.kind === 'changed' || answer.kind === 'watch-ended') {
      if (this.#endedWatches.has(answer.id)) return
      this.#watchAt = Math.max(at, this.#watchAt)
      const isEnd = answer.kind === 'watch-ended' || isDown || this.#random.chance(watchEnds)
      if (isEnd) this.#endedWatches.add(answer.id)
      this.#answers.push({ at: this.#watchAt, what: isEnd ? { kind: 'watch-ended', id: answer.id } : answer })
      return
    }
    if (isDown || this.#lostAnswers.delete(answer.id)) return
    this.#answers.push({ at, what: answer })
  }
}
