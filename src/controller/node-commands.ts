/**
 * What controllers and nodes say to each other. Paper §5.3, table 2. Both ways it is state rather than events: a report says where the
 * node stands, a command says where it should stand, and is repeated until a report shows it. So every message may be lost,
 * doubled or late, and every controller may die.
 *
 * Every command carries its leader's term. A node takes nothing of a lower term than it has seen, no older configuration, and no order
 * to move flows but the one that follows its last: {@link judgeCommand}.
 */

import type { ClusterConfig } from '../messages/cluster-config.ts'
import { plantedInControl as planted } from './control-bugs.ts'
import type { PeerWord } from './failure-detector.ts'

export interface FencedLife {
  readonly node: number
  readonly incarnation: number
  readonly generation: number
}

export type NodeCommand =
  /** The configuration, and all fenced lives whose flows have not been recovered. */
  | { readonly kind: 'configure'; readonly term: number; readonly config: ClusterConfig; readonly generation: number
    readonly fenced: readonly FencedLife[] }
  /** To a runtime: place replicas of your flows on these, in turn. */
  | { readonly kind: 'set-replicas'; readonly term: number; readonly version: number; readonly replicas: readonly number[] }
  /** To a runtime: promote your replicas of flows of these dead. All of them are named, every time. */
  | { readonly kind: 'recover'; readonly term: number; readonly generation: number; readonly dead: readonly FencedLife[] }
  /**
   * To a runtime: move so many flows there, or, if `share` is not 0, those that make up such a share of its load. `order` is one more than the
   * last that it has taken.
   */
  | { readonly kind: 'move'; readonly term: number; readonly order: number; readonly target: number; readonly flows: number
    readonly share: number }
  /** To a switch that has said hello: this is your incarnation. */
  | { readonly kind: 'welcome'; readonly term: number; readonly nonce: string; readonly incarnation: number }
  /** To a runtime that has asked: this block is yours. */
  | { readonly kind: 'grant-block'; readonly term: number; readonly pool: string; readonly block: number }

export interface NodeReport {
  readonly node: number
  readonly incarnation: number
  /** Longest standstill since the report before, µs. */
  readonly pausedUs: number
  /** For how long of that it was ready to run and had no processor core, µs, where that is known. */
  readonly coreWaitUs?: number
  readonly words: readonly PeerWord[]
  /** Version of the configuration that it has applied. */
  readonly configVersion: number
  /** It has cut off all lives fenced up to here, and drained what they had published. */
  readonly generation: number
}

export interface RuntimeReport extends NodeReport {
  readonly kind: 'runtime'
  /** It has links to all switches and can be given flows. */
  readonly isReady: boolean
  /** 0 to 1000. */
  readonly busyPerMille: number
  readonly flows: number
  readonly packetsPerSecond: number
  /** Packets per second dropped for want of room or time. */
  readonly dropsPerSecond: number
  readonly queueDepth: number
  /** Failures of network functions per second. */
  readonly nfErrorsPerSecond: number
  /** Of the list of replica runtimes that it works by. */
  readonly replicasVersion: number
  /** It has promoted all replicas of lives fenced up to here. */
  readonly recovered: number
  /** The last order taken, how many of its flows are still to move, how many have moved, how many were refused. */
  readonly order: { readonly number: number; readonly open: number; readonly moved: number; readonly refused: number }
  /** Every switch has stopped placing flows there, and no actor is owned, prepared, closing or a replica (PROTOCOL 24). */
  readonly isEmpty: boolean
  /** Blocks of shared pools in which one of its flows has something, as `POOL/NUMBER`. */
  readonly blocksInUse: readonly string[]
  /** It needs one more block of these pools than the `held` that it has. */
  readonly blocksWanted: readonly { readonly pool: string; readonly held: number }[]
}

export interface SwitchReport extends NodeReport {
  readonly kind: 'switch'
  /** Of what has lately come to its interface, the share that was lost there before it could come in. */
  readonly missed: number
  /** Of what it has lately had for a runtime, the share for which the link had no room; runtimes without any are left out. */
  readonly refused: readonly { readonly runtime: number; readonly share: number }[]
}

export type Report = RuntimeReport | SwitchReport

/** A switch's process that has no incarnation yet. */
export interface Hello {
  readonly node: number
  /** Chosen by the process at random, once. */
  readonly nonce: string
}

/** How a controller reaches nodes. Nothing is promised; false: it was not even tried, for nobody of this life is there yet. */
export interface NodeLinks {
  send(node: number, incarnation: number, command: NodeCommand): void | false
}

/** What a node remembers of commands. */
export interface CommandMemory {
  readonly term: number
  readonly configVersion: number
  readonly generation: number
  readonly replicasVersion: number
  readonly order: number
}

export const noCommands: CommandMemory = { term: 0, configVersion: 0, generation: 0, replicasVersion: 0, order: 0 }

/** A node takes commands of the highest term that it has seen, and of higher ones. */
export function acceptsTerm(highest: number, term: number): boolean {
  return term >= highest
}

export type CommandVerdict = 'take' | 'lower-term' | 'older' | 'repeated'

/** Whether a node takes a command, and what it remembers from then on. */
export function judgeCommand(memory: CommandMemory, command: NodeCommand): { verdict: CommandVerdict; memory: CommandMemory } {
  const { term } = command
  if (!acceptsTerm(memory.term, term) && !planted['term-ignored']) return { verdict: 'lower-term', memory }
  const seen = { ...memory, term }
  switch (command.kind) {
    case 'configure': {
      const { config: { version }, generation } = command
      const isOlder = version < memory.configVersion || generation < memory.generation
      if (isOlder && !planted['older-config']) return { verdict: 'older', memory: seen }
      return { verdict: version === memory.configVersion && generation === memory.generation ? 'repeated' : 'take',
        memory: { ...seen, configVersion: version, generation } }
    }
    case 'set-replicas': {
      const { version } = command
      if (version <= memory.replicasVersion) {
        return { verdict: version === memory.replicasVersion ? 'repeated' : 'older', memory: seen }
      }
      return { verdict: 'take', memory: { ...seen, replicasVersion: version } }
    }
    case 'move':
      if (command.order <= memory.order) return { verdict: 'repeated', memory: seen }
      // A gap would mean that the leader counts by something else than this node's reports.
      if (command.order !== memory.order + 1) return { verdict: 'older', memory: seen }
      return { verdict: 'take', memory: { ...seen, order: command.order } }
    case 'recover':
      // It names the fenced of a generation; the node must have cut them off first.
      return { verdict: command.generation > memory.generation ? 'older' : 'take', memory: seen }
    case 'welcome':
    case 'grant-block':
      return { verdict: 'take', memory: seen }
  }
}
