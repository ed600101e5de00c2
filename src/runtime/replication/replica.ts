/**
 * Replica: a flow of another runtime as it is kept here (replicas.ts).
 */

import {
  AdoptMemberPredecessor, AdoptMemberPredecessorIncarnation, AdoptMemberSuccessor, AdoptMemberSuccessorIncarnation,
} from '../../messages/replication.ts'
import type { PacketQueue } from '../../packet/packet-queue.ts'
import type { RuntimeContext } from '../runtime-context.ts'
import type { ChainPlace } from './adoption.ts'
import type { Buffering } from './buffering.ts'
import { createGuard, type Guard } from './guard.ts'

/** A flow of another runtime. */
export interface Replica {
  readonly flow: number
  /** The highest epoch that its owner has told of. */
  epoch: number
  readonly owner: number
  /** In which life: others of the same runtime may have died before it is promoted. */
  readonly ownerIncarnation: number
  readonly key: Int32Array
  readonly macs: Uint8Array
  aliases: Int32Array
  /** The epoch at which it was adopted. */
  readonly generation: number
  /** Its neighbours, where it is a member of a chain of two. */
  readonly place: ChainPlace | null
  /** At the first of a chain: what the tail has not released yet. */
  guard: Guard | null
  /** Outputs of its steps so far, at the first of a chain. */
  outputs: number
  /** The first of a chain had no room for a step: it takes no more of them. */
  isFull: boolean
  /** Its owner is dead, and its predecessor is to go on with the flow. */
  isWaiting: boolean
  /** Its predecessor alone has been asked. */
  isAskingOne: boolean
  /** Packets of the flow wait at a switch: should its owner be dead, it goes ahead of others. */
  isHurried: boolean
  /** Others may have gone on with the flow before. */
  hasAsked: boolean
  /** The flow's snapshot, padded. */
  words: Int32Array
  snapshotBytes: number
  /** How far its owner had consumed links with that. */
  inputs: Int32Array
  /** True when its frames leave from here. */
  readonly releases: boolean
  /** Outputs of the next step. */
  readonly pending: PacketQueue
  /** Its owner has just got it, and whoever gave it may yet take it back. */
  readonly isTentative: boolean
  /** The copy in whose place this one is, while whoever gave the flow may take it back; null for none. */
  before: Replica | null
  /** Who kept its replica before and may not have been told by the owner to release no more; 0 for nobody. */
  former: number
  readonly formerIncarnation: number
  /** Where its owner is moving it, 0 for nowhere, and the epoch of that move. */
  movingTo: number
  movingEpoch: number
  /** Runtimes whose answer is awaited, and how often they have been asked: the owner has died in the middle of a move. Null while it lives. */
  asking: Map<number, number> | null
  /** Targets of that move, or of ones of owners before, that are known to buffer the flow's packets: the newest first. */
  buffersAt: readonly Buffering[]
}

/** The neighbours that a message names. */
export function placeIn({ arena: { u32 } }: RuntimeContext, at: number): ChainPlace {
  return {
    successor: u32[(at + AdoptMemberSuccessor) >> 2], successorIncarnation: u32[(at + AdoptMemberSuccessorIncarnation) >> 2],
    predecessor: u32[(at + AdoptMemberPredecessor) >> 2], predecessorIncarnation: u32[(at + AdoptMemberPredecessorIncarnation) >> 2],
  }
}

/** What the first of a chain keeps for the tail. */
export function guardOf(replica: Replica, { successor, successorIncarnation }: ChainPlace): Guard {
  return createGuard(replica.flow, 0, successor, true, { generation: replica.generation, copy: replica, incarnation: successorIncarnation })
}
