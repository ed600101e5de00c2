/**
 * Which flows move where, by number: off overloaded runtimes, just enough of them, and off those that are being drained, all.
 *
 *     load │            ┌──┐ demand
 *     high ┼─────────── │▓▓│ ──────────────     ▓ moves: what the source has over the goal,
 *     goal ┼─────────── │░░│ ── ┌╌╌┐ ──────     at most what the target has below it
 *          │            │░░│    ╎▓▓╎
 *          │            │░░│    │░░│            goal: `target`, or the mean if that is higher
 *                       source  target
 *
 * Nothing moves between runtimes below `high`: new flows even loads out, and moving costs. Each runtime has one order at a time; the
 * next is given when it is done and reports have caught up with it (`settledUs`). Orders are numbered by the runtime's own reports, so
 * an order may be repeated, and a new leader neither doubles nor forgets one. What flows weigh is for their runtime to know, which is told
 * what share of its load is to go; here a flow weighs what flows of its runtime weigh on average.
 */

import type { TimeUs } from '../base/clock.ts'
import { demandOf, isReachable, type ClusterView, type RuntimeView } from './cluster-view.ts'
import type { RuntimeReport } from './node-commands.ts'
import { batchOf, goalOf, hasServing, type RolloutMemory } from './rollout.ts'

export interface MoveLimits {
  readonly high: number
  readonly target: number
  /** Flows in one order at most. */
  readonly flowsMax: number
  /** After an order is done, before the next from the same source or to the same target, µs. */
  readonly settledUs: number
  /** Loads are averaged over about so long, µs. */
  readonly smoothUs: number
}

export const defaultMoveLimits: MoveLimits = { high: 0.8, target: 0.65, flowsMax: 10_000, settledUs: 1e6, smoothUs: 1e6 }

interface Remembered {
  readonly load: number
  readonly at: TimeUs
  /** When its last order was done, or flows were last sent to it. */
  readonly busyAt: TimeUs
  readonly order: number
}

/** By incarnation. */
export type MoveMemory = ReadonlyMap<number, Remembered>

export interface MoveOrder {
  readonly source: RuntimeView
  readonly target: number
  readonly order: number
  /** How many, if they are of mean weight. */
  readonly flows: number
  /** Of the source's load, which knows what its flows weigh; 0: it is the number that counts. */
  readonly share: number
}

interface Candidate {
  readonly one: RuntimeView
  readonly report: RuntimeReport
  load: number
  isSettled: boolean
}

export function decideMoves(
  view: ClusterView, memory: MoveMemory, rollout: RolloutMemory | null, limits: MoveLimits = defaultMoveLimits,
): { orders: MoveOrder[]; memory: MoveMemory } {
  const { now } = view
  const remembered = new Map<number, Remembered>()
  const candidates: Candidate[] = []
  for (const one of view.runtimes) {
    const { report, incarnation } = one
    if (report === null || !isReachable(one)) continue
    const former = memory.get(incarnation)
    const demand = demandOf(one)
    const load = former === undefined ? demand : former.load + (demand - former.load) * (1 - Math.exp(-(now - former.at) / limits.smoothUs))
    const isMoving = report.order.open > 0
    const isNew = former !== undefined && report.order.number !== former.order
    const busyAt = isMoving || isNew ? now : former?.busyAt ?? now - limits.settledUs
    remembered.set(incarnation, { load, at: now, busyAt, order: report.order.number })
    candidates.push({ one, report, load, isSettled: !isMoving && now - busyAt >= limits.settledUs })
  }
  const goal = goalOf(view)
  const isTarget = ({ chain }: RuntimeView): boolean => goal === null || chain === goal || !hasServing(view, goal)
  const targets = candidates.filter(({ one, report }) => !one.isDraining && report.isReady && isTarget(one))
  const serving = candidates.filter(({ one }) => !one.isDraining)
  const total = candidates.reduce((sum, { load }) => sum + load, 0)
  const level = Math.max(limits.target, total / Math.max(1, serving.length))
  const orders: MoveOrder[] = []
  const order = (source: Candidate, target: Candidate, wanted: number, load = 0): void => {
    const flows = Math.min(Math.floor(wanted), limits.flowsMax, source.report.flows)
    if (flows < 1) return
    const weight = source.load / source.report.flows
    const share = Math.min(load / source.load, flows / source.report.flows) || 0
    orders.push({ source: source.one, target: target.one.id, order: source.report.order.number + 1, flows, share })
    source.load -= flows * weight
    target.load += flows * weight
    source.isSettled = target.isSettled = false
    // It is filled up as its reports show it, not faster.
    const filled = remembered.get(target.one.incarnation) as Remembered
    remembered.set(target.one.incarnation, { ...filled, busyAt: now })
  }
  const emptiest = (source: Candidate): Candidate | undefined => targets
    .filter((one) => one !== source && (goal !== null || one.one.chain === source.one.chain))
    .sort((a, b) => Number(b.isSettled) - Number(a.isSettled) || a.load - b.load || a.one.id - b.one.id)[0]
  for (const source of candidates.filter(({ one, report, isSettled }) => one.isDraining && isSettled && report.flows > 0)) {
    const target = emptiest(source)
    if (target === undefined) continue
    const { flows } = source.report
    const weight = source.load / flows
    const share = Math.ceil(flows / targets.length)
    const room = weight > 0 ? (level - target.load) / weight : Infinity
    order(source, target, Math.min(batchOf(view, rollout, source.one), room < 1 ? share : Math.max(room, share)))
  }
  for (const source of candidates.filter(({ one, isSettled }) => !one.isDraining && isSettled).sort((a, b) => b.load - a.load)) {
    const { flows } = source.report
    if (source.load <= limits.high || flows < 2) continue
    const target = emptiest(source)
    if (target === undefined || !target.isSettled) continue
    const moved = Math.min(source.load - level, level - target.load)
    // A flow more than needed is none too many, a rounding error is.
    if (moved > 0) order(source, target, Math.ceil(moved / (source.load / flows) - 1e-6), moved)
  }
  return { orders, memory: remembered }
}
