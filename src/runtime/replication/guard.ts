/**
 * Guard: a flow and its replica, or the two of its chain, as its owner sees them; and, at the first of a chain, the copy that is kept there
 * and the tail. With it goes what has come of the flow and is not known to have left. PROTOCOL 13, 14.
 */

import type { Backlog } from './backlogs.ts'

/** An output that its replica may not have released. PERF: used again and again, in lists, for there is one for each packet. */
export interface Output {
  switchId: number
  /** Which one it is of those to this switch since the replica releases. */
  index: number
  /** The packet's slot, which is the output's, and where the frame is in it. */
  slot: number
  frame: number
  length: number
  /** Where the session's stream ended behind its step, once that has been sent. */
  position: number
  next: Output | null
}

/** The record of a flow that lives elsewhere, as it is kept here. */
export interface StoredRecord {
  /** The highest epoch that its owner has told of. */
  readonly epoch: number
  /** Its snapshot, padded. */
  readonly words: Int32Array
  readonly snapshotBytes: number
  /** How far its owner had consumed links with that. */
  readonly inputs: Int32Array
}

/** A flow and its replica, or the first and the second of a chain. */
export interface Guard {
  readonly flow: number
  /** Where the flow's record is, 0 while it is not here but only its copy. */
  record: number
  readonly replica: number
  /** Who releases in `commit`: the replica itself, or its successor in a chain. */
  readonly tail: number
  /** The epoch at which they adopted the flow. */
  readonly generation: number
  /** At the first replica of a chain, whose own is the tail: what it keeps, and the life of the tail that is meant. */
  copy: StoredRecord | null
  readonly incarnation: number
  /** Each replica has said that it has the flow. */
  isAdopted: boolean
  /** True when one of them is, or has refused. */
  isDead: boolean
  /** Which of them are. */
  isFirstDead: boolean
  isTailDead: boolean
  /** A replica has refused the flow, or more steps of it. */
  isRefused: boolean
  /** Replicas that have said that they have it, one bit for each. */
  adopted: number
  /** Outputs that are kept: the first, the first one whose step has not been sent, the first one that has not been sent itself, the last. */
  first: Output | null
  stepless: Output | null
  unsent: Output | null
  last: Output | null
  /** Those that have not been sent, and the bytes that they take in a step. */
  unsentCount: number
  unsentBytes: number
  /** Its record, with outputs or without, is to be sent. */
  isUnsent: boolean
  /** A replica has not been told of its newest aliases, for want of room: no step that may have used them goes ahead of that. */
  owesAliases: boolean
  /** Outputs so far, by switch. */
  readonly counts: Map<number, number>
  /** In `async`: outputs since the record was sent; whether it has been since the flow was adopted. */
  since: number
  hasSent: boolean
  /** Outputs of this generation that have been acknowledged. */
  given: number
  /** What waits for this replica, of all flows; null before there was anything. */
  backlog: Backlog | null
  /** So many of the first ones are of a generation that has died: their state came ahead of them. */
  resent: number
  /** The epoch at which a move was called off last, the flow keeping its replica, and how many outputs switches had accepted then. */
  backAt: number
  readonly accepted: Map<number, number>
}

export function createGuard(flow: number, record: number, replica: number, isAdopted: boolean,
    { tail = replica, generation = 0, copy = null as StoredRecord | null, incarnation = 0 } = {}): Guard {
  return {
    flow, record, replica, tail, generation, copy, incarnation, isAdopted, isDead: false, isFirstDead: false, isTailDead: false,
    isRefused: false, adopted: 0, given: 0, resent: 0, first: null, stepless: null, unsent: null, last: null, unsentCount: 0, unsentBytes: 0,
    isUnsent: false, owesAliases: false, counts: new Map(), since: 0, hasSent: false, backlog: null, backAt: 0, accepted: new Map(),
  }
}

/** The replicas of a guard that live, in the order of their chain. */
export function living(guard: Guard | null): number[] {
  if (guard === null) return []
  if (guard.tail === guard.replica) return guard.isDead ? [] : [guard.replica]
  const chain: number[] = []
  if (!guard.isFirstDead) chain.push(guard.replica)
  if (!guard.isTailDead) chain.push(guard.tail)
  return chain
}

/** Who releases what a guard has, 0 if that one is dead. */
export function releaserOf(guard: Guard | null): number {
  if (guard === null) return 0
  return (guard.tail === guard.replica ? guard.isDead : guard.isTailDead) ? 0 : guard.tail
}

/** A runtime is dead; true if the guard has it. */
export function strike(guard: Guard, runtime: number): boolean {
  if (guard.replica !== runtime && guard.tail !== runtime) return false
  if (guard.replica === runtime) guard.isFirstDead = true
  if (guard.tail === runtime) guard.isTailDead = true
  guard.isDead = true
  return true
}

/** True while steps may be on their way from the first of a chain to the tail, and both go on with them. */
export function isPiped(guard: Guard): boolean {
  return guard.tail !== guard.replica && living(guard).length === 2 && !guard.isRefused && guard.first !== null && guard.first !== guard.unsent
}
