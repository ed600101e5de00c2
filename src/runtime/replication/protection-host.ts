/** Protection host: what protection.ts, and the changes of replica, need of the runtime around them. */

import type { Guard } from './guard.ts'
import type { ReplicationMode } from './protection.ts'

export interface ProtectionHost {
  readonly mode: ReplicationMode
  /** In `async`: outputs of a flow between two copies of its record. */
  readonly every: number
  /** How many replicas a flow is to have, 1 or 2. */
  readonly replicas: number
  /** Runtimes that can keep a replica now. */
  candidates(): readonly number[]
  /** True for a runtime that does not die when our machine does. */
  isApart(runtime: number): boolean
  /** The other runtimes that have told what chain they have. */
  knownRuntimes(): Iterable<number>
  /** True for a runtime that is to become empty. */
  isLeaving(runtime: number): boolean
  incarnationOf(runtime: number): number
  /** The tail of a chain whose first replica is here has released more. */
  held(guard: Guard): void
  /** Sends a frame to a switch and counts it. */
  release(switchId: number, frame: number, length: number): void
  /** True for a flow of which no step is sent: its move is called off, and packets of it wait for others; or a claim of it is open. */
  isWithheld(flow: number): boolean
  /** True for flows that move, close or claim. */
  isBusy(flow: number): boolean
  /** True for flows that stand still because they move or close. */
  isPaused(flow: number): boolean
}
