/**
 * Node reporter: a node's side of what controllers and nodes say to each other (`controller/node-commands.ts`). It remembers what the node
 * has taken, refuses what is older, and says where the node stands.
 *
 * Reports are asked for, once per heartbeat, by every controller. Rates are those since the report before to the same controller, so that
 * several of them do not shorten each other's view.
 */

import { setBounded } from '../base/bounded.ts'
import type { TimeUs } from '../base/clock.ts'
import {
  judgeCommand, noCommands, type CommandMemory, type CommandVerdict, type NodeCommand, type Report, type SwitchReport,
} from '../controller/node-commands.ts'
import type { RuntimeNode } from '../node/runtime-node.ts'
import type { SwitchNode } from '../node/switch-node.ts'
import type { PortStatistics } from '../ports/link-port.ts'
import type { ExecutorStatistics } from './executor.ts'
import type { Pause } from './pause-watch.ts'

/** Reasons of drops that mean that a runtime had no room or time. */
const OVERLOAD = ['link-full', 'over-share', 'no-room', 'no-room-to-open', 'no-slot', 'hold-limit', 'move-buffer', 'replica-behind',
  'flow-table-full']
const NF_ERROR = 'nf-error'
/** Controllers that are remembered; the one that has asked longest ago goes first. */
const ASKERS_MAX = 16
/** Rates over less than this would be noise, µs. */
const RATE_US = 40_000
/** Links are full in bursts: what share is lost shows over such a time, µs. */
const SMOOTH_US = 1e6
/** Shares of fewer packets per second say nothing. */
const PACKETS_MIN = 1000

/** Counters at some time, and how fast each of them has risen until then. */
interface Asker {
  readonly at: TimeUs
  readonly counts: readonly number[]
  readonly perSecond: readonly number[]
  /** The same, averaged. */
  readonly smooth: readonly number[]
}

/** What there is to say about a runtime, or a switch, that is there; undefined before it is. */
export interface ReportedNode {
  readonly runtime: RuntimeNode | undefined
  readonly switch: SwitchNode | undefined
  readonly statistics: ExecutorStatistics | undefined
  /** What the external port of a switch has counted, and its links by the runtime behind them. */
  readonly external: PortStatistics | undefined
  readonly links: ReadonlyMap<number, { readonly statistics: PortStatistics }>
  /** Longest standstill since the last call. */
  takePause(): Pause
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
    const { us: pausedUs, coreWaitUs } = node.takePause()
    const common = { node: id, incarnation, pausedUs, coreWaitUs, words, configVersion, generation }
    if (kind === 'switch') return { kind, ...common, ...this.#losses(asker, node, now) }
    const reasons = runtime?.dropReasons() ?? {}
    const [busyUs, packetsPerSecond, dropsPerSecond, nfErrorsPerSecond] = this.#rates(asker, [
      node.statistics?.busyUs ?? 0, runtime?.packets.received ?? 0, OVERLOAD.reduce((sum, reason) => sum + (reasons[reason] ?? 0), 0),
      reasons[NF_ERROR] ?? 0], now).perSecond
    const rates = { busyPerMille: Math.min(1000, Math.round(busyUs / 1000)), packetsPerSecond, dropsPerSecond, nfErrorsPerSecond }
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

  /** What a switch has lost outside and towards runtimes, as shares. */
  #losses(asker: string, { switch: own, external, links }: ReportedNode, now: TimeUs): Pick<SwitchReport, 'missed' | 'refused'> {
    const peers = [...links.keys()]
    const { rxFrames = 0, rxMissed = 0 } = external ?? {}
    const { smooth: [received, missed, ...refusals] } = this.#rates(asker, [rxFrames, rxMissed,
      ...peers.flatMap((peer) => [links.get(peer)?.statistics.txFrames ?? 0, own?.refusedTo[peer] ?? 0])], now)
    const share = (lost: number, passed: number): number => lost / Math.max(PACKETS_MIN, lost + passed)
    return {
      missed: share(missed, received),
      refused: peers.map((runtime, i) => ({ runtime, share: share(refusals[i * 2 + 1], refusals[i * 2]) })).filter((one) => one.share > 0),
    }
  }

  /** How fast counters have risen since the same asker's report before; zeroes in its first one, and of counters that are new. */
  #rates(asker: string, counts: readonly number[], now: TimeUs): Asker {
    const before = this.#askers.get(asker)
    if (before !== undefined && now - before.at < RATE_US) return before
    const us = now - (before?.at ?? now)
    const perSecond = counts.map((count, i) => (us === 0 ? 0 : (count - (before?.counts[i] ?? count)) * 1e6 / us))
    const weight = 1 - Math.exp(-us / SMOOTH_US)
    const smooth = perSecond.map((rate, i) => (before?.smooth[i] ?? 0) + (rate - (before?.smooth[i] ?? 0)) * weight)
    const next = { at: now, counts, perSecond, smooth }
    setBounded(this.#askers, asker, next, ASKERS_MAX)
    return next
  }
}
