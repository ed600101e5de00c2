/** Flow manager: who decides about an engine's flows in a cluster. */

import type { Parser } from '../packet/parse.ts'

/**
 * Decides about flows in the engine's place: a node of a cluster, where flows are placed, moved and ended together with others.
 * Called between packets, off the fast path; may not call the engine but for `hashKey` and `resumeFlow`. A packet that it takes has its
 * number in the order of arrival in its descriptor.
 */
export interface FlowManager {
  /**
   * A packet whose key is no flow's here.
   *
   * @returns a record to run it on (its direction made to fit), 0 to open a flow, -1 when the packet was taken, slot and all
   */
  unknown(d: number): number
  /** True if the flow that an ICMP error quotes is to be here, although it is not, and the error is no packet of a flow of its own. */
  expects(d: number, parser: Parser): boolean
  /** A flow has been opened for a packet: it is to get its identity. */
  opened(record: number, d: number): void
  /** The network functions have begun the state of the flow that was opened. */
  begun?(record: number): void
  /** Nothing has come for the flow's idle timeout, or room is wanted. It stays until `endFlow`; called again while it is idle. */
  idle(record: number): void
  /** A packet of a paused flow. True: taken, slot and all; false: it is to run. */
  paused(d: number, record: number): boolean
  /**
   * A network function claims the key in descriptor `d` as an alias of a flow; nobody here has it. `aliasAnswered` is to be
   * called later if it is {@link AliasClaim.pending}.
   */
  claimAlias(record: number, d: number, flip: boolean, nf: number): number
  /** A timer of a flow has fired, or a claim of it has been answered: its state may have changed without a packet of a batch. */
  rang?(record: number): void
}
