/**
 * A candidate for the lead, for tests: a mirror and a leadership over a real store, in real time. As a program (`node candidate.ts SPEC`, the
 * store's specification as JSON) it runs one in a process of its own, and prints the term that it leads in, 0 when it does not, at every change.
 */

import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { Leadership } from '../../../controller/leadership.ts'
import { StateMirror, type Draft } from '../../../controller/state-mirror.ts'
import type { Store, StoreAnswer, StoreRequest } from '../../../controller/store.ts'
import { openStore, type StoreSpec } from './store-spec.ts'

export const realNow = (): number => performance.now() * 1000

export class Candidate {
  readonly store: Store
  readonly mirror: StateMirror
  readonly leadership: Leadership
  readonly #answers = new Map<number, StoreAnswer>()
  #lastId = 0

  constructor(store: Store, name: string) {
    this.store = store
    this.mirror = new StateMirror(() => ++this.#lastId)
    this.leadership = new Leadership(name, `${name}-${randomUUID()}`, this.mirror, () => ++this.#lastId)
  }

  get term(): number {
    return this.leadership.term(realNow())
  }

  poll(): void {
    const now = realNow()
    const submit = (request: StoreRequest): void => { this.store.submit(request, now) }
    for (let answer = this.store.poll(now); answer !== undefined; answer = this.store.poll(now)) {
      if (!this.mirror.receive(answer, submit) && !this.leadership.receive(answer)) this.#answers.set(answer.id, answer)
    }
    this.mirror.poll(now, submit)
    this.leadership.poll(now, submit)
  }

  submit(draft: Draft): number {
    const id = ++this.#lastId
    this.store.submit(draft.toRequest(id), realNow())
    return id
  }

  /** What has come for a draft. */
  answer(id: number): StoreAnswer | undefined {
    return this.#answers.get(id)
  }
}

if (process.argv[1] === import.meta.filename) {
  const candidate = new Candidate(await openStore(JSON.parse(process.argv[2] as string) as StoreSpec), `candidate-${process.pid}`)
  for (let last = -1; ; await sleep(5)) {
    candidate.poll()
    if (candidate.term === last) continue
    last = candidate.term
    process.stdout.write(`${last}\n`)
  }
}
