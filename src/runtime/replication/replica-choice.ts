/**
 * Replica choice: at which runtimes a flow is to have its replicas. In turn, at different runtimes, rather on other machines than ours, rather
 * not where what is sent piles up.
 */

import type { Guard } from './guard.ts'
import type { ProtectionHost } from './protection-host.ts'

export class ReplicaChoice {
  readonly #host: ProtectionHost
  readonly #isSlow: (runtime: number) => boolean
  #next = 0

  /** @param isSlow true for a runtime that does not keep up with what it is to store */
  constructor(host: ProtectionHost, isSlow: (runtime: number) => boolean) {
    this.#host = host
    this.#isSlow = isSlow
  }

  /**
   * The next replicas in turn, at different runtimes, on other machines if there are any; the last one is not who has released so far, if
   * that can be.
   */
  choose(except = 0, releaser = 0): number[] {
    const possible = this.#possible(except)
    if (possible.length === 0) return []
    const apart = possible.filter((id) => this.#host.isApart(id))
    const candidates = apart.length > 0 ? apart : possible
    const hand = this.#next++
    const chain = [candidates[hand % candidates.length]]
    if (this.#host.replicas > 1 && possible.length > 1) {
      const others = candidates.length > 1 ? candidates : possible.filter((id) => id !== chain[0])
      chain.push(others[(hand + (candidates.length > 1 ? 1 : 0)) % others.length])
    }
    if (chain[1] === releaser && chain[1] !== undefined) chain.reverse()
    return chain
  }

  /** Those that keep up with what they are to store, if any does. */
  #possible(except: number): number[] {
    const others = this.#host.candidates().filter((id) => id !== except)
    const inTime = others.filter((id) => !this.#isSlow(id))
    return inTime.length > 0 ? inTime : others
  }

  /** True when a flow that has one replica would get two. */
  get canGrow(): boolean {
    return this.#host.replicas > 1 && this.#possible(0).length > 1
  }

  /** True for replicas that are to be elsewhere: a runtime is to become empty, or all are on our machine while another one has room. */
  isMisplaced({ replica, tail }: Guard): boolean {
    const { isLeaving, isApart, candidates } = this.#host
    return isLeaving(replica) || isLeaving(tail) || (!isApart(replica) && !isApart(tail) && candidates().some((id) => isApart(id)))
  }
}
