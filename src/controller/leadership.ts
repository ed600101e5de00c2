/**
 * Leadership: one controller leads at a time, in a term of its own. PROTOCOL 18: the lease only says when another may try; what is
 * decided by terms does not depend on any clock.
 *
 *     ┌──────────┐ no `leader` in the store, our lease alive: put leader, raise term ┌─────────┐
 *     │ follower │──────────────────────────────────────────────────────────────────▶│ leader  │
 *     └──────────┘◀──────────────────────────────────────────────────────────────────└─────────┘
 *                   the entry is another's or gone, or the lease may have ended by now
 *
 * Who leads is read off the mirror, never off an answer: one who was elected and does not know it, since the answer was lost, leads as
 * soon as it sees the entry. A leader stops acting when so much of its lease has passed since the last renewal was *sent* that the
 * store may have ended it; should clocks betray it, its transactions are refused by the term, and so are its commands.
 */

import type { TimeUs } from '../base/clock.ts'
import { plantedInControl as planted } from './control-bugs.ts'
import { Draft, type StateMirror } from './state-mirror.ts'
import type { StoreAnswer, StoreRequest } from './store.ts'

export interface LeadershipLimits {
  /** A leader that dies is missed for so long at most, µs. */
  readonly leaseUs: number
  /** Renewed so often, µs. */
  readonly renewUs: number
  /** An answer that has not come by then will not come, µs. */
  readonly patienceUs: number
}

export const defaultLeadershipLimits: LeadershipLimits = { leaseUs: 3e6, renewUs: 500_000, patienceUs: 500_000 }

/** Share of the lease that is relied on: the rest is for clocks that run at different speeds. */
const RELIED_ON = 0.9

export class Leadership {
  readonly #name: string
  readonly #life: string
  readonly #mirror: StateMirror
  readonly #nextId: () => number
  readonly #limits: LeadershipLimits
  #lease = 0
  #leaseUntil: TimeUs = 0
  #askId = 0
  #askedAt: TimeUs = 0
  #isGrant = false
  #renewAt: TimeUs = 0
  #campaignId = 0
  #campaignAt: TimeUs = 0

  /**
   * @param name of the controller, for people
   * @param life unique to this life of its process
   */
  constructor(name: string, life: string, mirror: StateMirror, nextId: () => number, limits = defaultLeadershipLimits) {
    this.#name = name
    this.#life = life
    this.#mirror = mirror
    this.#nextId = nextId
    this.#limits = limits
  }

  /** The term that we lead in; 0: we do not. */
  term(now: TimeUs): number {
    if (now >= this.#leaseUntil) return 0
    const leader = this.#mirror.get('leader')
    return leader?.life === this.#life && this.#mirror.entry('leader')?.lease === this.#lease ? leader.term : 0
  }

  poll(now: TimeUs, submit: (request: StoreRequest) => void): void {
    const { patienceUs, leaseUs, renewUs } = this.#limits
    if (this.#askId !== 0 && now - this.#askedAt > patienceUs) this.#askId = 0
    if (this.#askId === 0 && now >= this.#renewAt) {
      this.#askId = this.#nextId()
      this.#askedAt = now
      this.#renewAt = now + renewUs
      this.#isGrant = this.#lease === 0
      submit(this.#isGrant ? { kind: 'grant', id: this.#askId, ttlUs: leaseUs } : { kind: 'keep', id: this.#askId, lease: this.#lease })
    }
    if (this.#campaignId !== 0 && now - this.#campaignAt > patienceUs) {
      this.#campaignId = 0
      this.#mirror.refresh()
    }
    if (!this.#mirror.isFresh || this.#campaignId !== 0 || now >= this.#leaseUntil) return
    if (this.#mirror.entry('leader') !== undefined && !planted['elected-twice']) return
    const term = (this.#mirror.get('term')?.term ?? 0) + 1
    this.#campaignId = this.#nextId()
    this.#campaignAt = now
    submit(new Draft(this.#mirror, 'campaign').put('term', '', { term })
      .put('leader', '', { name: this.#name, life: this.#life, term }, this.#lease).toRequest(this.#campaignId))
  }

  /** Gives up the lead, and lets others try for two leases. */
  resign(now: TimeUs, submit: (request: StoreRequest) => void): void {
    if (this.#lease === 0) return
    submit({ kind: 'revoke', id: this.#nextId(), lease: this.#lease })
    this.#lease = 0
    this.#leaseUntil = 0
    this.#askId = 0
    this.#renewAt = now + 2 * this.#limits.leaseUs
  }

  /** True if the answer was for us. */
  receive(answer: StoreAnswer): boolean {
    if (answer.id === this.#campaignId) {
      this.#campaignId = 0
      // Won or lost, the mirror is going to show it; if it does not, it has to read anew.
      if (answer.kind !== 'transacted' || answer.revision > this.#mirror.revision) this.#mirror.refresh()
      return true
    }
    if (answer.id !== this.#askId) return false
    this.#askId = 0
    if (answer.kind === 'granted' && this.#isGrant) {
      this.#lease = answer.lease
      this.#leaseUntil = this.#askedAt + this.#limits.leaseUs * RELIED_ON
    } else if (answer.kind === 'kept') {
      if (answer.isAlive) {
        this.#leaseUntil = this.#askedAt + this.#limits.leaseUs * RELIED_ON
      } else {
        this.#lease = 0
        this.#leaseUntil = 0
        this.#renewAt = 0
      }
    }
    return true
  }
}
