/**
 * Forgetting: a flow that is to go on without a replica has every other runtime forget whatever copy of it there may be. PROTOCOL 15. Such a
 * copy, of a replica before the last one that has not heard yet that it is none any more, of an attempt that failed, of a target that has died,
 * asks who has the flow before it goes on in its owner's place; and when the owner of a flow without a replica has died nobody can say so. What
 * had left since that copy was made would leave again.
 */

import { ForgetFlow } from '../../messages/replication.ts'
import { sendHead, type RuntimeContext } from '../runtime-context.ts'

/** A runtime that was told, and where the session's stream ended behind that word. */
interface Told {
  readonly runtime: number
  readonly position: number
}

export class Forgetting {
  readonly #context: RuntimeContext
  readonly #runtimes: () => Iterable<number>
  /** By flow: those who have not acknowledged that they were told. */
  readonly #told = new Map<number, readonly Told[]>()

  /** @param runtimes the other ones, but those that cannot have copies yet */
  constructor(context: RuntimeContext, runtimes: () => Iterable<number>) {
    this.#context = context
    this.#runtimes = runtimes
  }

  get isWaiting(): boolean {
    return this.#told.size > 0
  }

  /** Tells all but one runtime, once; true when they have heard. */
  isForgotten(flow: number, epoch: number, except: number): boolean {
    const left = (this.#told.get(flow) ?? this.#tell(flow, epoch, except))
      .filter(({ runtime, position }) => this.#context.control(runtime)?.hasReached?.(position) === false)
    this.#told.set(flow, left)
    return left.length === 0 && this.#told.delete(flow)
  }

  #tell(flow: number, epoch: number, except: number): Told[] {
    const told: Told[] = []
    for (const runtime of this.#runtimes()) {
      if (runtime === except) continue
      const channel = this.#context.control(runtime)
      sendHead(this.#context, channel, ForgetFlow, flow, epoch)
      if (channel?.position !== undefined) told.push({ runtime, position: channel.position })
    }
    return told
  }

  ended(flow: number): void {
    this.#told.delete(flow)
  }

  /** A runtime is fenced, and its copies with it. */
  fenced(runtime: number): void {
    for (const [flow, told] of this.#told) this.#told.set(flow, told.filter((one) => one.runtime !== runtime))
  }
}
