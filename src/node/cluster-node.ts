/**
 * Cluster node: what a process, the simulator and the tests see of a switch or a runtime, whatever it is inside.
 */

import type { TimeUs } from '../base/clock.ts'
import type { PeerWord } from '../controller/failure-detector.ts'
import type { ClusterConfig } from '../messages/cluster-config.ts'

/**
 * Packets of one node, since it began. At any time
 * `received + emitted + takenOver = forwarded + dropped + buffered + handedOver`.
 */
export interface PacketCounts {
  /** Data frames from links and external ports. Packets that come inside messages are `takenOver`. */
  received: number
  /** Made by network functions. */
  emitted: number
  forwarded: number
  dropped: number
  /** In the node now: held, buffered, waiting. */
  buffered: number
  /** Left inside messages (moved, returned, strayed). */
  handedOver: number
  /** Came inside messages. */
  takenOver: number
}

/** A flow as a node knows it. */
export interface NodeFlow {
  readonly flow: number
  readonly epoch: number
  /** The phase, by its name in docs/protocol.md. */
  readonly phase: string
  /** The owner as this node knows it. */
  readonly owner: number
  /** Word index in `arena.i32` of the flow key. */
  readonly key: number
}

export interface ClusterNode {
  readonly kind: 'switch' | 'runtime'
  readonly id: number
  readonly incarnation: number
  /**
   * One turn: everything that has come is handled, within budgets, and everything due is sent.
   * @returns true when there may be more to do at once
   */
  poll(now: TimeUs): boolean
  /** A time before which `poll` has nothing to do unless something comes. */
  nextDue(): TimeUs
  /** A newer configuration is taken, an older one refused (false). Paper §5.3. */
  notifyClusterConfig(config: ClusterConfig, now: TimeUs): boolean
  readonly packets: Readonly<PacketCounts>
  /** Dropped packets by reason, without zeroes. */
  dropReasons(): Record<string, number>
  /** Protocol steps open now, by their phase's name in docs/protocol.md; names with 0 may stand there. */
  readonly openSteps: Readonly<Record<string, number>>
  /** Data frames that have been received and not been counted yet. */
  readonly pendingFrames: number
  /** When it has last heard each of the others, on the control network. */
  peerWords(now: TimeUs): PeerWord[]
  /** Packet slots in use. */
  readonly slotsUsed: number
  /** The flows that it knows. For checkers and people, not for the packet path. */
  flows(): Iterable<NodeFlow>
  /** Counters of ignored messages and the like, by reason. */
  readonly anomalies: Readonly<Record<string, number>>
}

/** Sees a message that has come: from whom, on which kind of session, and where it lies in the node's arena. */
export type MessageObserver = (peer: number, inBand: boolean, at: number, bytes: number) => void

/** The answer to a command: `code` is empty, or an `NF_...` code or refusal. */
export interface CommandResult {
  readonly accepted: boolean
  readonly code: string
}
