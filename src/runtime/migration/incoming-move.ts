/** A flow on its way here, as its target knows it. The states are those of docs/protocol.md. */

import type { PacketQueue } from '../../packet/packet-queue.ts'

export type IncomingState = 'prepared' | 'waiting' | 'returning' | 'inheriting'

/** A flow on its way here. */
export interface IncomingMove {
  readonly flow: number
  epoch: number
  /** The runtime that it comes from; when that one is dead, the one that has its replica. */
  source: number
  /** The source that has died, 0 for none, and in which life: later ones may have died, too, before all switches have been told. */
  dead: { readonly runtime: number; readonly incarnation: number }
  /** The runtimes that keep the flow's replicas, in the order of its chain, and in which lives. */
  readonly replicas: readonly number[]
  readonly replicaLives: readonly number[]
  /** The one of them that it goes on at, 0 for none. */
  heir: number
  /** The record is refused: its source is dead, and the packets buffered here are for its replica. */
  yields: boolean
  /** Hash of the record layout it comes in. */
  readonly layout: number
  state: IncomingState
  /** Block in the table of absent flows, until the record is installed. */
  block: number
  record: number
  /** Switches that have said `Go`, and ids of those that must, in the configuration with this version. */
  gone: number
  named: number[]
  version: number
  /** Switches whose in-band word is awaited when it goes back. */
  awaited: number
  /** When going back: switches that have sent their in-band word at that epoch. */
  marked: number
  /** When inheriting: switches that are to be told when their sessions have room. */
  untold: number
  readonly since: number
  /** How far links had been consumed before the first packet that is buffered. */
  readonly inputs: Int32Array
  readonly queue: PacketQueue
  /** Its alias keys, as they came, and their blocks in the table of absent flows. */
  readonly aliases: Int32Array
  readonly aliasBlocks: number[]
}

/** The runtimes of a PrepareFlow's replicas. */
export function replicasIn(packed: number): number[] {
  return [packed & 255, packed >>> 8].filter((id) => id !== 0)
}
