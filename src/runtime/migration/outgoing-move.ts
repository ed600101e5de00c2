/** A flow on its way out, as its source knows it, and what a source counts of its moves. The states are those of docs/protocol.md. */

import type { PacketQueue } from '../../packet/packet-queue.ts'

export type MoveState = 'preparing' | 'cancelling' | 'rerouting' | 'handing' | 'aborting' | 'takingBack'

/** A flow on its way out. */
export interface OutgoingMove {
  readonly flow: number
  readonly record: number
  /** The flow's epoch when the move began; the move's is one more, the move back's two more. */
  readonly before: number
  readonly target: number
  readonly startedAt: number
  /** Its replica is being told that it moves. */
  isMarking: boolean
  state: MoveState
  deadline: number
  /** Switches whose word is awaited: to RerouteFlow, or when taking back their `Go`. */
  pending: number
  /** Switches that have sent their last packet before the move: behind it their packets wait. */
  passed: number
  /** Switches, in their present life, that have been sent RerouteFlow: that of the move, or when it goes back the one back. */
  told: number
  /** Switches that the target is to hear from while the move is aborted. */
  markers: number
  /** The target has given everything back, or is fenced. */
  targetDone: boolean
  /** The target is fenced, in which life; 0 while it lives. */
  deadIncarnation: number
  /** It is, and the switches that were told that the flow goes back did not hear so. */
  mustClaim: boolean
  readonly returned: PacketQueue
  readonly held: PacketQueue
}

export interface MoveCounts {
  started: number
  completed: number
  refused: number
  cancelled: number
  aborted: number
  takenBack: number
  /** Packets that flows held and that were lost with the target, which may have released them. */
  heldLost: number
  stragglers: number
  /** Sum over completed moves, microseconds. */
  durationUs: number
}
