/** Replicas host: what replicas.ts needs of the runtime around it. */

import type { Guard } from './guard.ts'
import type { Replica } from './replica.ts'
import type { Steps } from './steps.ts'

export interface ReplicasHost {
  /** What is handed on to tails. */
  steps(): Steps
  /** Incarnation of another runtime of the configuration, 0 for none. */
  incarnationOf(runtime: number): number
  /** True for a flow that was promoted here from a chain of this generation whose tail is at that runtime, and is not secured yet. */
  isSecuring(flow: number, tail: number, generation: number): boolean
  /** Flows that are being secured now, and how many have been. */
  securing(): number
  secured(): number
  /** Sends a frame to a switch and counts it. */
  release(switchId: number, frame: number, length: number): void
  /** True when this runtime owns the flow with this key at this epoch or a higher one. */
  owns(key: Int32Array, flow: number, epoch: number): boolean
  /** True when a flow has moved on from here that was here at this epoch or a higher one. */
  gaveOn(flow: number, epoch: number): boolean
  /** True when packets of a flow on its way here are buffered, and its record is refused from now on: whose replica is elsewhere. */
  yields(flow: number, replica: number): number
  /** True while it is not known whether a flow that was promoted here on the same key lives, or ended before its owner could say so. */
  isContested(key: Int32Array): boolean
  /** Makes a replica the flow itself, with what the first of a chain keeps. */
  promote(replica: Replica, guard: Guard | null): void
  /** The other runtimes that there are. */
  runtimes(): Iterable<number>
}
