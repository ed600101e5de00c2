/**
 * Cluster decider: what a supervisor asks what is to be done. Pure: it sees a view of the cluster and says commands; detectors,
 * autoscalers and rollouts are plugged in here.
 */

import type { NodeWorkload } from './node-status.ts'

/**
 *     starting ─▶ ready ─▶ down ─▶ starting ...        a process that ended is started again, in another life
 *                   └────▶ silent ─▶ ready             it lives and does not answer
 */
export type MemberState = 'starting' | 'ready' | 'silent' | 'down' | 'removed'

export interface MemberView {
  readonly kind: 'switch' | 'runtime'
  readonly id: number
  readonly name: string
  readonly incarnation: number
  readonly state: MemberState
  readonly isDraining: boolean
  readonly restarts: number
  /** As last polled; undefined before the first time in this life. */
  readonly workload: NodeWorkload | undefined
  /** Since the poll before: share of time at work (0 to 1), packets per second. */
  readonly busy: number
  readonly packetsPerSecond: number
}

export interface ClusterView {
  /** Milliseconds since the Unix epoch. */
  readonly time: number
  readonly configVersion: number
  readonly members: readonly MemberView[]
}

export type ClusterCommand =
  | { readonly command: 'migrate', readonly from: number, readonly to: number, readonly number: number }
  | { readonly command: 'drain', readonly node: number, readonly on: boolean }
  | { readonly command: 'kill', readonly node: number }

export interface ClusterDecider {
  readonly name: string
  /** Called after each poll of the nodes. */
  decide(view: ClusterView): readonly ClusterCommand[]
}
