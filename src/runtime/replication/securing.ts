/**
 * Securing: what a runtime knows of a change of replica under way, of a flow that is its own (securings.ts). PROTOCOL 9, 15, 18, 20.
 */

import type { PacketQueue } from '../../packet/packet-queue.ts'
import type { Guard } from './guard.ts'

/** A flow that stands still while it gets a replica, or another one. */
export interface Securing {
  readonly flow: number
  readonly record: number
  /** The epoch of the first attempt. */
  readonly firstEpoch: number
  epoch: number
  /** The replicas that it is to have, in order: the last one releases. */
  chain: readonly number[]
  /** How many of them have been asked, and which have it, one bit for each. */
  asked: number
  adopted: number
  /** Who guarded it before knows that it is being replaced, so that not both go on with the flow should we die. */
  isMarked: boolean
  /** Those who have not answered yet that they know so. */
  readonly marking: Set<number>
  /** Runtimes that have a copy of an attempt that was given up, and those of them that switches may take for the releaser. */
  readonly leftovers: Set<number>
  readonly leftTails: Set<number>
  /**
   * There is to be none. Steps are on their way through the chain that was, which is retired when the tail has them; or a runtime with another
   * copy has yet to forget it.
   */
  waitsToRetire: boolean
  /** The only one to be had is the one that has released so far: for a moment we release, so that its frames can be told apart. */
  isBetween: boolean
  /** The switches have been told. */
  isRerouted: boolean
  /** Who has been told to forget the flow, 0 for nobody. */
  forgetting: number
  readonly isPromotion: boolean
  isReleaser: boolean
  /** A runtime beside those of `old` that switches may take for the releaser, 0 for none. */
  readonly former: number
  /** Switches whose `Go` is awaited, and what each had accepted from the releaser before. */
  pending: number
  readonly released: Map<number, number>
  /** Who guarded it before. */
  readonly old: Guard | null
  /** A runtime that buffers packets of the flow, 0 for none, and switches that it is to hear from. */
  readonly target: number
  markers: number
  /** Runtimes that have packets of it still, the newest target first: that one, and others to which no switch has been told to send them. */
  fetching: readonly number[]
  readonly returned: PacketQueue
  readonly held: PacketQueue
  /** How far links had been consumed when the flow was paused. */
  readonly inputs: Int32Array
  /** Whose death has brought the flow here. */
  readonly dead: Deceased | null
  /** Switches whose word is awaited that what they took back has come: it is in `back`, and runs ahead of what the target had buffered. */
  unmarked: number
  /** Those of them that have begun: what comes from the others was sent before, to the target that we were. */
  begun: number
  readonly back: PacketQueue
}

/** One life of a runtime, which is over, and how far it had consumed its links by the record that it has left. */
export interface Deceased {
  readonly owner: number
  readonly ownerIncarnation: number
  /** Null for a target that never had it: what was sent there before is in its record. */
  readonly inputs: Int32Array | null
}

/** Who is to release a flow's frames, 0 for its owner. */
export function tailOf({ chain }: Securing): number {
  return chain.at(-1) ?? 0
}

export function isAdopted({ chain, adopted }: Securing): boolean {
  return adopted === (1 << chain.length) - 1
}
