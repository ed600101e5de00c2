/**
 * Node reporter: a node's side of what controllers and nodes say to each other (`controller/node-commands.ts`). It remembers what the node
 * has taken, refuses what is older, and says where the node stands.
 *
 * Reports are asked for, once per heartbeat, by every controller. Rates are those since the report before to the same controller, so that
 * several of them do not shorten each other's view.
 */

import type { TimeUs } from '../base/clock.ts'
import { judgeCommand, noCommands, type CommandMemory, type CommandVerdict, type NodeCommand, type Report } from '../controller/node-commands.ts'
import type { RuntimeNode } from '../node/runtime-node.ts'
import type { SwitchNode } from '../node/switch-node.ts'
import type { ExecutorStatistics } from './executor.ts'

/** Reasons of drops that mean that a runtime had no room or time. */
const OVERLOAD = ['link-full', 'no-room', 'no-room-to-open', 'no-slot', 'hold-limit', 'move-buffer', 'replica-behind', 'flow-table-full']
const NF_ERROR = 'nf-error'
/** Controllers that are remembered; each is one that asks. */
const ASKERS_MAX = 16
/** Rates over less than this would be noise, µs. */
const RATE_US = 40_000

interface Counts {
  readonly at: TimeUs
  readonly busyUs: number
  readonly packets: number
  readonly drops: number
  readonly nfErrors: number
}

interface Rates {
  readonly busyPerMille: number
  readonly packetsPerSecond: number
  readonly dropsPerSecond: number
  readonly nfErrorsPerSecond: number
}

interface Asker {
  readonly counts: Counts
  readonly rates: Rates
}

const noRates: Rates = { busyPerMille: 0, packetsPerSecond: 0, dropsPerSecond: 0, nfErrorsPerSecond: 0 }

/** What there is to say about a runtime, or a switch, that is there; undefined before it is. */
export interface ReportedNode {
  readonly runtime: RuntimeNode | undefined
  readonly switch: SwitchNode | undefined
  readonly statistics: ExecutorStatistics | undefined
  /** Longest standstill since the last call, µs. */
  takePausedUs(): number
}

export class NodeReporter {
  readonly #askers = new Map<string, Asker>()
  #memory: CommandMemory = noCommands
  /** The moves' counts when the last order was taken. */
  #orderBase = { moved: 0, refused: 0 }

  /** The highest term seen. */
  get term(): number {
    return this.#memory.term
  }

  get configVersion(): number {
    return this.#memory.configVersion
  }

  /** Whether a command is to be followed. What it says is remembered then. */
  judge(command: NodeCommand): CommandVerdict {
    const { verdict, memory } = judgeCommand(this.#memory, command)
    this.#memory = memory
    return verdict
  }

  /** An order to move flows begins: what has moved before is not part of it. */
  beginOrder(runtime: RuntimeNode): void {
    const { out } = runtime.moves
    this.#orderBase = { moved: out.completed, refused: out.refused + out.cancelled }
  }

  /** @param asker the controller that asks, @param isReady of a runtime: it can be given flows, or be let in */
  report(asker: string, kind: Report['kind'], id: number, incarnation: number, node: ReportedNode, isReady: boolean, now: TimeUs): Report {
    const { runtime, switch: own } = node
    const { configVersion, generation, replicasVersion, order } = this.#memory
    const words = (runtime ?? own)?.peerWords(now) ?? []
    const common = { node: id, incarnation, pausedUs: node.takePausedUs(), words, configVersion, generation }
    if (kind === 'switch') return { kind, ...common }
    const rates = this.#rates(asker, runtime, node.statistics, now)
    const out = runtime?.moves.out
    // Whoever has inherited flows is at it until none of them waits for anybody any more.
    const isRecovering = (runtime?.openSteps.inheriting ?? 0) > 0
    return {
      kind, ...common, isReady, ...rates,
      flows: runtime?.engine.slab.used ?? 0, queueDepth: runtime?.packets.buffered ?? 0, replicasVersion,
      recovered: isRecovering ? generation - 1 : generation,
      order: {
        number: order, open: runtime?.movesOpen ?? 0,
        moved: (out?.completed ?? 0) - this.#orderBase.moved, refused: (out?.refused ?? 0) + (out?.cancelled ?? 0) - this.#orderBase.refused,
      },
      isEmpty: runtime?.isEmpty ?? false, blocksInUse: [], blocksWanted: [],
    }
  }

  #rates(asker: string, runtime: RuntimeNode | undefined, statistics: ExecutorStatistics | undefined, now: TimeUs): Rates {
    if (runtime === undefined || statistics === undefined) return noRates
    const before = this.#askers.get(asker)
    if (before !== undefined && now - before.counts.at < RATE_US) return before.rates
    const reasons = runtime.dropReasons()
    const counts: Counts = {
      at: now, busyUs: statistics.busyUs, packets: runtime.packets.received, nfErrors: reasons[NF_ERROR] ?? 0,
      drops: OVERLOAD.reduce((sum, reason) => sum + (reasons[reason] ?? 0), 0),
    }
    if (before === undefined && this.#askers.size >= ASKERS_MAX) this.#askers.clear()
    const rates = before === undefined ? noRates : ratesOf(before.counts, counts)
    this.#askers.set(asker, { counts, rates })
    return rates
  }
}

function ratesOf(before: Counts, now: Counts): Rates {
  const us = now.at - before.at
  const perSecond = (count: number): number => count * 1e6 / us
  return {
    busyPerMille: Math.min(1000, Math.round((now.busyUs - before.busyUs) * 1000 / us)),
    packetsPerSecond: perSecond(now.packets - before.packets), dropsPerSecond: perSecond(now.drops - before.drops),
    nfErrorsPerSecond: perSecond(now.nfErrors - before.nfErrors),
  }
}
