/**
 * What a node process says of itself.
 */

import type { LinkPort, PortStatistics } from '../ports/link-port.ts'
import type { NodeConfig } from './node-config.ts'

/** `PollWorkload`: counters since the process began; who polls makes rates of them. Paper §5.3, table 2. */
export interface NodeWorkload {
  /** Time spent with packets and messages, and asleep, microseconds; and when this was. */
  readonly busyUs: number
  readonly asleepUs: number
  readonly timeUs: number
  readonly received: number
  readonly forwarded: number
  readonly dropped: number
  readonly buffered: number
  /** Made by network functions; came and left inside messages: see `PacketCounts`, which says what must add up. */
  readonly emitted: number
  readonly takenOver: number
  readonly handedOver: number
  /** Memory that the process has in use. */
  readonly memoryBytes: number
  /** Flows of a runtime, entries of a switch. */
  readonly flows: number
  /** Replicas of other runtimes' flows that a runtime keeps. */
  readonly replicas: number
  /** A draining runtime that may be let go. */
  readonly isEmpty: boolean
}

/** `GetStatus`. */
export interface NodeStatus {
  readonly kind: NodeConfig['kind']
  readonly id: number
  readonly name: string
  readonly incarnation: number
  /** As it sees itself: in a container, 1. */
  readonly pid: number
  /** When it began, in the kernel's ticks since boot: the same from wherever it is seen. */
  readonly startTicks: number
  /** Of a runtime: version of the chain that it runs. */
  readonly chainVersion?: number
  /** 0 while there is no configuration. */
  readonly configVersion: number
  /** Configured, with all links up. */
  readonly isReady: boolean
  readonly workload: NodeWorkload
  readonly dropReasons: Readonly<Record<string, number>>
  readonly anomalies: Readonly<Record<string, number>>
  /** Steps of protocols that are open now. */
  readonly openSteps: Readonly<Record<string, number>>
  readonly links: readonly ({ readonly peer: number, readonly isUp: boolean, readonly lastEnd: string } & PortStatistics)[]
  /** What has gone over the control network: sums over the sessions, frames refused and frames sent by datagrams, links to other nodes. */
  readonly control: Readonly<Record<string, unknown>>
  /** `how`: how frames come and go there, where that is not certain beforehand; `router`: what has become of them, where it is one. */
  readonly external?: Pick<LinkPort, 'name' | 'isUp'> & PortStatistics & { readonly how?: string, readonly router?: Record<string, number> }
  /** What a generator or sink has counted. */
  readonly traffic?: Readonly<Record<string, unknown>>
  readonly moves?: Readonly<Record<string, unknown>>
  /** Replicas of other runtimes' flows that are here, own flows that none covers now, and what has happened to both. */
  readonly replication?: Readonly<Record<string, unknown>> & { readonly unprotected: number }
}
