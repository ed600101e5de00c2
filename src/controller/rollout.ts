/**
 * Rollout of a new version of the chain, flow by flow: a runtime with the new version is started besides those there are, one of the
 * old ones is drained towards it (a move upgrades a flow), taken down when it is empty, and so on until none is left. Where no machine has
 * room for one more, an old one makes room first: its flows go to other old ones.
 *
 *                        failure                     resume
 *     ┌─────────┐──────────────────────▶┌────────┐──────────▶ rolling
 *     │ rolling │  (policy: pause)      │ paused │
 *     └─────────┘                       └────────┘
 *       │     │   failure (policy: roll back), or an order        │ order
 *       │     └──────────────────────────▶┌──────────────┐◀───────┘
 *       │ no old runtime left             │ rolling back │
 *       ▼                                 └──────────────┘
 *     done                                  │ no new runtime left: rolled back
 *
 * The first flows go in batches of 1, 10, 100 and 1,000, each of which has to prove well for `bakeUs`; then the rest. A failure is a life of
 * the new version that is fenced, two that do not start, more failures of network functions per second than the old version has by
 * `errorsMax`, or a batch of which nothing could be moved, five times: a single flow may end just then, or the target be slow to answer.
 * While it is paused nothing is drained and both versions serve. Rolling back is the same with the versions exchanged, without batches; if
 * flows cannot go back (`isReversible`), new runtimes get no new flows and end when theirs have.
 */

import type { TimeUs } from '../base/clock.ts'
import type { RolloutDocument } from './cluster-state.ts'
import type { ClusterView, RuntimeView } from './cluster-view.ts'

export interface RolloutLimits {
  readonly bakeUs: number
  /** Failures of network functions per second beyond those of the old version. */
  readonly errorsMax: number
}

export const defaultRolloutLimits: RolloutLimits = { bakeUs: 5e6, errorsMax: 1 }

const BATCHES = [1, 10, 100, 1000]
/** A process may fail to start for reasons of its own, once. */
const STARTS = 2
/** From here on flows move without waiting. */
const STAGES = BATCHES.length

/** So often nothing of a batch may be moved, one order behind the other. */
const TRIES = 5

/** The version that all are to have in the end; null: no rollout is going on. */
export function goalOf({ rollout }: ClusterView): number | null {
  return rollout?.phase === 'rolling' ? rollout.to : rollout?.phase === 'rolling-back' ? rollout.from : null
}

/** The version that new runtimes get. */
export function chainToStart(view: ClusterView): number {
  return goalOf(view) ?? view.scale.chain
}

/** How many flows may leave a draining runtime now, as far as a rollout is concerned. */
export function batchOf(view: ClusterView, memory: RolloutMemory | null, { chain, incarnation, report }: RuntimeView): number {
  const { rollout } = view
  const goal = goalOf(view)
  if (rollout === undefined || goal === null || chain === goal || !hasServing(view, goal)) return Infinity
  if (rollout.phase === 'rolling-back') return rollout.isReversible ? Infinity : 0
  const batch = BATCHES[rollout.stage]
  if (batch === undefined) return Infinity
  const ordered = memory?.stage === rollout.stage ? memory.orders.get(incarnation) : undefined
  // One batch per stage; it is on its way, or bakes. One of which nothing could be moved is ordered again.
  return ordered === undefined || ((report?.order.number ?? 0) > ordered && !hasFailed(report)) ? 0 : batch
}

/** Whether there is a runtime with that version to take flows. */
export function hasServing({ runtimes }: ClusterView, version: number): boolean {
  return runtimes.some(({ chain, isDraining }) => chain === version && !isDraining)
}

/** Nothing of the last order could be moved. */
function hasFailed(report: RuntimeView['report']): boolean {
  return report !== null && report.order.open === 0 && report.order.moved === 0 && report.order.refused > 0
}

/** Orders, one behind the other up to this one, of which nothing could be moved. */
interface FailedOrders {
  readonly number: number
  readonly count: number
}

function failedOrders(memory: RolloutMemory | null, leaving: readonly RuntimeView[]): Map<number, FailedOrders> {
  const failed = new Map<number, FailedOrders>()
  for (const { isDraining, incarnation, report } of leaving) {
    const before = memory?.failed.get(incarnation) ?? { number: 0, count: 0 }
    if (!isDraining || report === null) failed.set(incarnation, before)
    else if (report.order.moved > 0) failed.set(incarnation, { number: report.order.number, count: 0 })
    else if (hasFailed(report) && report.order.number > before.number) {
      failed.set(incarnation, { number: report.order.number, count: before.count + 1 })
    } else failed.set(incarnation, before)
  }
  return failed
}

/** What has to be remembered of the batch under way. */
export interface RolloutMemory {
  /** Orders of old runtimes when this stage began, by incarnation. */
  readonly orders: ReadonlyMap<number, number>
  readonly stage: number
  /** By incarnation of old runtimes. */
  readonly failed: ReadonlyMap<number, FailedOrders>
  /** Since when the batch has been done; Infinity: it is not. */
  readonly doneSince: TimeUs
}

/**
 * The rollout as it is to stand, or null if it goes on as it is.
 *
 * @param hasRoom whether a machine has room for one more runtime
 */
export function decideRollout(
  view: ClusterView, memory: RolloutMemory | null, limits: RolloutLimits = defaultRolloutLimits, hasRoom = true,
): { rollout: RolloutDocument | null; memory: RolloutMemory | null } {
  const { rollout, runtimes, starting, now } = view
  const goal = goalOf(view)
  if (rollout === undefined || goal === null) return { rollout: null, memory: null }
  const fresh = runtimes.filter(({ chain }) => chain === goal)
  const leaving = runtimes.filter(({ chain }) => chain !== goal)
  if (leaving.length === 0 && fresh.some(({ isDraining }) => !isDraining) && starting.every(({ runtime }) => runtime.chain === goal)) {
    return { rollout: { ...rollout, phase: rollout.phase === 'rolling' ? 'done' : 'rolled-back' }, memory: null }
  }
  if (rollout.phase === 'rolling-back') return { rollout: null, memory: null }
  const failed = failedOrders(memory, leaving)
  const isStuck = !hasRoom && fresh.length + starting.length === 0 && leaving.length === 1
  const reason = isStuck ? 'no machine has room for a second runtime' : failureOf(view, rollout, failed, fresh, leaving, limits)
  if (reason !== '') {
    return { rollout: { ...rollout, phase: rollout.onFailure === 'pause' ? 'paused' : 'rolling-back', reason }, memory: null }
  }
  // What goes from old ones to old ones proves nothing.
  if (!hasServing(view, goal)) return { rollout: null, memory: { orders: new Map(), stage: rollout.stage, failed, doneSince: Infinity } }
  const drained = leaving.filter(({ isDraining }) => isDraining)
  const orders = new Map(drained.map(({ incarnation, report }) => [incarnation, memory?.stage === rollout.stage
    ? memory.orders.get(incarnation) ?? report?.order.number ?? 0 : report?.order.number ?? 0]))
  const isDone = drained.some(({ incarnation, report }) =>
    report !== null && report.order.number > (orders.get(incarnation) as number) && !hasFailed(report)) &&
    drained.every(({ report }) => report !== null && report.order.open === 0)
  const doneSince = isDone ? Math.min(memory?.stage === rollout.stage ? memory.doneSince : Infinity, now) : Infinity
  const next = { orders, stage: rollout.stage, failed, doneSince }
  return { rollout: rollout.stage < STAGES && now - doneSince >= limits.bakeUs ? { ...rollout, stage: rollout.stage + 1 } : null, memory: next }
}

function failureOf(view: ClusterView, { to, sinceGeneration, sinceIncarnation }: RolloutDocument, failed: ReadonlyMap<number, FailedOrders>,
  fresh: readonly RuntimeView[], leaving: readonly RuntimeView[], { errorsMax }: RolloutLimits): string {
  const fenced = view.fences.find(({ chain, generation, reason }) => chain === to && generation > sinceGeneration && reason !== 'drained' &&
    reason !== 'not-started')
  if (fenced !== undefined) return `runtime ${fenced.node} with version ${to} is gone: ${fenced.reason}`
  const unstarted = view.fences.filter(({ chain, incarnation, reason }) =>
    chain === to && incarnation > sinceIncarnation && reason === 'not-started')
  if (unstarted.length >= STARTS) return `runtimes with version ${to} do not start`
  const errors = (of: readonly RuntimeView[]): number => Math.max(0, ...of.map(({ report }) => report?.nfErrorsPerSecond ?? 0))
  const [now, before] = [errors(fresh), errors(leaving)]
  if (now > before + errorsMax) return `network functions fail ${now.toFixed(1)} times a second, ${before.toFixed(1)} with the version before`
  const stuck = leaving.find(({ incarnation }) => (failed.get(incarnation)?.count ?? 0) >= TRIES)
  return stuck === undefined ? '' : `no flow could be moved off runtime ${stuck.id}`
}
