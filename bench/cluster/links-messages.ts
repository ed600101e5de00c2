/**
 * What the bench on real links and its load (links-load.ts) say to each other.
 */

import type { ClusterConfig } from '../../src/messages/cluster-config.ts'
import type { TrafficTotals } from '../../src/ports/traffic/traffic-sink.ts'
import type { PlayedCounts } from './frame-player.ts'

export interface LoadOptions {
  readonly folder: string
  readonly clusterId: number
  /** Runtimes by id; none: two plain links, `west` and `east` in the folder, for a program that forwards from one to the other. */
  readonly runtimes: readonly number[]
  readonly flows: number
  readonly isTcp: boolean
}

/** What the parent can ask for. */
export type LoadCommand =
  | { readonly what: 'configure', readonly config: ClusterConfig }
  /** Through the switches: so many packets per second of each side, until told otherwise, and no more on their way than `window`. */
  | { readonly what: 'send', readonly packetsPerSecond: number, readonly window?: number }
  /** Sends nothing more, and waits until nothing is on its way. */
  | { readonly what: 'settle' }
  /** Straight from now on, with every flow's next frames ready to be played. */
  | { readonly what: 'straighten' }
  /** Plays for so long, as fast as it goes or at a rate of each way. */
  | { readonly what: 'play', readonly seconds: number, readonly packetsPerSecond?: number, readonly packets?: number }
  /** The first packet that comes from this runtime from now on. */
  | { readonly what: 'await', readonly runtime: number }
  /** Notes the first packet of each flow that was due after now. */
  | { readonly what: 'mark' }
  | { readonly what: 'marked' }
  | { readonly what: 'status' }

export interface PlayResult {
  readonly packetsPerSecond: number
  /** What the load could have done had it never waited for the seat. */
  readonly topPacketsPerSecond: number
  readonly counts: PlayedCounts
  readonly p50Us: number
  readonly p99Us: number
  readonly p999Us: number
  readonly maxUs: number
}

export interface LoadStatus {
  readonly sent: number
  readonly opened: number
  readonly totals: TrafficTotals
  readonly latency: { readonly p50Us: number, readonly p99Us: number, readonly maxUs: number }
  readonly busyUs: number
  readonly drops: Readonly<Record<string, number>>
  readonly anomalies: Readonly<Record<string, number>>
  readonly openSteps: number
  readonly isUp: boolean
}

/** What has come of flows since the mark. */
export interface Marked {
  /** Flows of which a packet due after the mark has come. */
  readonly flows: number
  /** From the mark to that packet, and from when it was due, milliseconds. */
  readonly sinceMark: readonly [p50: number, p99: number, max: number]
  readonly sinceDue: readonly [p50: number, p99: number, max: number]
}
