/**
 * A day of load on a cluster of fluid runtimes, for the autoscaler's test and figures: what it loses, uses and moves.
 *
 *     demand  ▁▁▁▁▂▄▆▇▇▆▆▇█▇▆▅▄▃▂▁   a day of two humps, with noise (a slow wander, and bursts of seconds), and two flash crowds
 *
 * A runtime is a number of flows that weigh all the same and end after their time; new ones go to the least loaded. What a
 * runtime is asked beyond 1 it loses. Runtimes take 2 s to start. Flows that move cost the source and the target time.
 */

import { Random } from '../base/random.ts'
import { autoscale, type AutoscalerLimits, type AutoscalerMemory } from './autoscaler.ts'
import type { ClusterDocument, ScaleDocument } from './cluster-state.ts'
import type { ClusterView, RuntimeView } from './cluster-view.ts'
import { totalDemandOf } from './cluster-view.ts'
import { decideMoves, type MoveMemory } from './flow-moves.ts'
import { decideScaling } from './scaling.ts'

export interface DayOutcome {
  /** In runtimes' worth times seconds. */
  readonly asked: number
  readonly lost: number
  /** The longest time on end with losses, s. */
  readonly lossSecondsMax: number
  /** Runtimes' seconds used, and the fewest with which each had at most `high` to do. */
  readonly used: number
  readonly ideal: number
  readonly scaledOut: number
  readonly scaledIn: number
  /** A scale-in that was taken back within five minutes, or the other way round. */
  readonly regretted: number
  readonly flowsMoved: number
  readonly flowsSeen: number
  readonly runtimesMax: number
}

export interface DayShape {
  readonly seed: number
  /** In runtimes' worth. */
  readonly night: number
  readonly peak: number
  /** Amplitude of the noise, as a share of the load. */
  readonly noise: number
  /** Two flash crowds of 1.5 runtimes' worth come within so many seconds; 0: none. */
  readonly crowdSeconds: number
  readonly hours: number
}

interface FluidRuntime {
  readonly id: number
  readonly readyAt: number
  flows: number
  isDraining: boolean
  order: { number: number; open: number; moved: number; refused: number; target: number }
  emptySince: number
}

const FLOWS_PER_RUNTIME = 10_000
const FLOW_S = 60
const STEP_S = 0.5
/** Flows that a runtime moves in a step, and what moving one costs it, in runtimes' worth of a step. */
const MOVES_PER_STEP = 20_000
const MOVE_COST = 20e-6 / STEP_S
const START_S = 2
const HIGH = 0.8

/** Demand at a time of the day, without noise, in runtimes' worth. */
export function dayCurve({ night, peak, crowdSeconds }: DayShape, seconds: number): number {
  const hour = (seconds / 3600) % 24
  const hump = (at: number, width: number): number => Math.exp(-(((hour - at) / width) ** 2))
  const shape = Math.min(1, hump(11, 3) * 0.8 + hump(20, 2.5))
  // They stay for a quarter of an hour, and go within a minute.
  const crowd = (at: number): number => {
    const since = (hour - at) * 3600
    return crowdSeconds === 0 || since < 0 || since > 960 ? 0 : 1.5 * Math.min(1, since / crowdSeconds, (960 - since) / 60)
  }
  return night + (peak - night) * shape + crowd(4) + crowd(15.5)
}

export function runDay(shape: DayShape, limits: AutoscalerLimits): DayOutcome {
  const random = new Random(shape.seed)
  const runtimes: FluidRuntime[] = []
  let nextId = 1
  let scale: ScaleDocument = { desired: 2, isAutomatic: true, decision: 1, decidedAt: 0, chain: 1, starting: [], held: [], leaving: [] }
  let memory: AutoscalerMemory | null = null
  let moves: MoveMemory = new Map()
  let wander = 0
  let burst = 0
  let lossSeconds = 0
  let lastChange = { at: -1e9, by: 0 }
  const out = { asked: 0, lost: 0, lossSecondsMax: 0, used: 0, ideal: 0, scaledOut: 0, scaledIn: 0, regretted: 0, flowsMoved: 0, flowsSeen: 0,
    runtimesMax: 0 }
  const start = (readyAt: number): void => {
    runtimes.push({ id: nextId++, readyAt, flows: 0, isDraining: false, emptySince: Infinity,
      order: { number: 0, open: 0, moved: 0, refused: 0, target: 0 } })
  }
  for (let i = 0; i < scale.desired; i++) start(0)
  for (let second = 0; second < shape.hours * 3600; second += STEP_S) {
    // Noise: a wander with a memory of a minute, and bursts of some seconds.
    wander += -wander * (STEP_S / 60) + (random.fraction() - 0.5) * Math.sqrt(STEP_S / 60) * 2
    burst = burst > 0.01 ? burst * (1 - STEP_S / 4) : random.chance(STEP_S / 120) ? random.fraction() * 2 : 0
    const demand = dayCurve(shape, second) * Math.max(0.1, 1 + shape.noise * (wander + burst))
    const now = second * 1e6
    const serving = runtimes.filter(({ readyAt }) => readyAt <= second)
    // Flows: each gets heavier or lighter with the noise; their number follows the curve.
    const flows = dayCurve(shape, second) * FLOWS_PER_RUNTIME
    const arriving = flows * (STEP_S / FLOW_S)
    out.flowsSeen += arriving
    for (const one of serving) one.flows -= one.flows * (STEP_S / FLOW_S)
    const taking = serving.filter(({ isDraining }) => !isDraining).sort((a, b) => a.flows - b.flows)
    pour(taking, arriving + Math.max(0, flows - runtimes.reduce((sum, one) => sum + one.flows, 0) - arriving))
    const all = Math.max(1, runtimes.reduce((sum, one) => sum + one.flows, 0))
    let lost = 0
    const costs = new Map<number, number>()
    for (const one of serving) {
      const moving = Math.min(one.order.open, MOVES_PER_STEP, Math.floor(one.flows))
      const target = taking.find(({ id }) => id === one.order.target)
      if (one.order.open > 0) {
        one.order = { ...one.order, open: moving === 0 || target === undefined ? 0 : one.order.open - moving, moved: one.order.moved + moving }
      }
      if (moving === 0 || target === undefined) continue
      one.flows -= moving
      target.flows += moving
      out.flowsMoved += moving
      for (const { id } of [one, target]) costs.set(id, (costs.get(id) ?? 0) + moving * MOVE_COST)
    }
    const views = serving.map((one): RuntimeView => {
      const load = (one.flows / all) * demand + (costs.get(one.id) ?? 0)
      lost += Math.max(0, load - 1)
      if (one.flows < 1 && one.isDraining) one.flows = 0
      one.emptySince = one.flows === 0 && one.isDraining ? Math.min(one.emptySince, second) : Infinity
      return { id: one.id, incarnation: one.id, health: 'well', hasEnded: false, silenceUs: 0, unheardBy: [], isDraining: one.isDraining,
        chain: 1, report: { kind: 'runtime', node: one.id, incarnation: one.id, pausedUs: 0, words: [], configVersion: 1, generation: 0,
          isReady: true,
          busyPerMille: Math.min(1000, load * 1000), flows: Math.floor(one.flows), packetsPerSecond: 1e6 * Math.min(1, load),
          dropsPerSecond: 1e6 * Math.max(0, load - 1), queueDepth: 0, nfErrorsPerSecond: 0, replicasVersion: 0, recovered: 0,
          order: one.order, isEmpty: second - one.emptySince >= 1, blocksInUse: [], blocksWanted: [] }, refused: 0 }
    })
    const cluster: ClusterDocument = { generation: 0, incarnation: 0, chains: {}, config: {
      version: 1, clusterId: 1, switches: [], runtimes: views.map(({ id, incarnation, isDraining }) => ({ id, incarnation, isDraining })) } }
    const starting = runtimes.filter(({ readyAt }) => readyAt > second)
    const view: ClusterView = { now, term: 1, cluster, scale, rollout: undefined, replicas: { version: 0, of: {} }, fences: [],
      blocks: new Map(), machines: [], switches: [], runtimes: views, starting: starting.map(({ id, readyAt }) => ({
        runtime: { id, incarnation: id, chain: 1, since: (readyAt - START_S) * 1e6 }, isReady: false, hasEnded: false })) }
    const scaled = autoscale({ now, demand: totalDemandOf(view), desired: scale.desired,
      decidedAt: scale.decidedAt, isBusy: starting.length > 0 || runtimes.some(({ isDraining }) => isDraining) }, memory, limits)
    memory = scaled.memory
    if (scaled.decision !== null) {
      const by = scaled.decision.desired - scale.desired
      if (by > 0) out.scaledOut++
      else out.scaledIn++
      if (second - lastChange.at < 300 && by * lastChange.by < 0) out.regretted++
      lastChange = { at: second, by }
      scale = { ...scale, desired: scaled.decision.desired, decision: scale.decision + 1, decidedAt: now }
    }
    const step = decideScaling(view)
    if (step?.kind === 'start') start(second + START_S)
    else if (step?.kind === 'drain' || step?.kind === 'keep') {
      for (const one of runtimes) if (one.id === step.runtime.id) one.isDraining = step.kind === 'drain'
    } else if (step?.kind === 'remove') runtimes.splice(runtimes.findIndex(({ id }) => id === step.runtime.id), 1)
    const decided = decideMoves(view, moves, null)
    moves = decided.memory
    for (const { source, target, order, flows: number } of decided.orders) {
      const one = runtimes.find(({ id }) => id === source.id)
      if (one !== undefined && order === one.order.number + 1) one.order = { number: order, open: number, moved: 0, refused: 0, target }
    }
    out.asked += demand * STEP_S
    out.lost += lost * STEP_S
    lossSeconds = lost > 0 ? lossSeconds + STEP_S : 0
    out.lossSecondsMax = Math.max(out.lossSecondsMax, lossSeconds)
    out.used += runtimes.length * STEP_S
    out.ideal += Math.max(limits.runtimesMin, Math.ceil(demand / HIGH)) * STEP_S
    out.runtimesMax = Math.max(out.runtimesMax, runtimes.length)
  }
  return out
}

/** New flows go to the least loaded, until they are level. */
function pour(taking: readonly FluidRuntime[], flows: number): void {
  let left = flows
  for (let count = 1; count <= taking.length && left > 0; count++) {
    const level = (taking[0] as FluidRuntime).flows
    const next = taking[count]?.flows ?? Infinity
    const each = Math.min(left / count, next - level)
    for (let i = 0; i < count; i++) (taking[i] as FluidRuntime).flows += each
    left -= each * count
  }
}
