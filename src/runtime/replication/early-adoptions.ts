/**
 * Early adoptions: a flow that has just come here has replicas before its source forgets it, and before it is secured here. PROTOCOL 11.
 */

import { AdoptRefusal } from '../../messages/replication.ts'

export class EarlyAdoptions {
  /** Runtimes whose answers are awaited, and what is to be done then. */
  readonly #awaited = new Map<number, { readonly replicas: Set<number>; done(): void }>()
  /** Runtimes that have adopted a flow which has just come here, and is to be secured. */
  readonly #chains = new Map<number, readonly number[]>()
  /** Those of the flows of which a runtime has died since, or has refused. */
  readonly #uncovered = new Set<number>()

  /** A flow has been offered to a chain; `done` when each of it has answered or is dead. */
  begin(flow: number, chain: readonly number[], done: () => void): void {
    this.#awaited.set(flow, { replicas: new Set(chain), done })
    this.#chains.set(flow, chain)
  }

  /** True for a flow that at least so many runtimes have adopted. */
  isCovered(flow: number, replicas: number): boolean {
    const chain = this.#chains.get(flow) ?? []
    return chain.length >= replicas && !this.#awaited.has(flow) && !this.#uncovered.has(flow)
  }

  /** A runtime has answered; false if its answer is not one to this. */
  replied(from: number, flow: number, refusal: number): boolean {
    const awaited = this.#awaited.get(flow)
    if (awaited?.replicas.delete(from) !== true) return false
    if (refusal !== AdoptRefusal.none) this.#uncovered.add(flow)
    if (awaited.replicas.size > 0) return true
    this.#awaited.delete(flow)
    awaited.done()
    return true
  }

  /** The flow is being secured: the chain that was asked. */
  take(flow: number): readonly number[] {
    const chain = this.#chains.get(flow) ?? []
    this.#chains.delete(flow)
    this.#uncovered.delete(flow)
    return chain
  }

  ended(flow: number): void {
    this.#awaited.delete(flow)
    this.#chains.delete(flow)
    this.#uncovered.delete(flow)
  }

  fenced(runtime: number): void {
    for (const [flow, chain] of this.#chains) if (chain.includes(runtime)) this.#uncovered.add(flow)
    for (const [flow, { replicas, done }] of [...this.#awaited]) {
      if (!replicas.delete(runtime) || replicas.size > 0) continue
      this.#awaited.delete(flow)
      done()
    }
  }
}
