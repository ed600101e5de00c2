/**
 * Scaling: the next step from the runtimes there are to those that are wanted. A step is one transaction; the processes follow it.
 *
 *     wanted more             launcher, its report says ready
 *     ───────────▶ starting ─────────────────────────────────▶ serving ◀────────────┐ wanted again
 *                     │ ended, or not ready in time               │ wanted fewer    │
 *                     ▼                                           ▼                 │
 *                   fenced                                     draining ────────────┘
 *                                                                 │ empty, as its report in the present configuration says
 *                                                                 ▼
 *                                                              fenced, stopped
 *
 * What is wanted stands in the store as a number, and what is being started too; so a controller that dies between any two steps leaves
 * nothing half done, and the number is reached once, whoever goes on. Dead runtimes are replaced in the same way: they are fenced, and
 * one is missing. What people have drained stays empty as long as they like (`held`), and counts among the wanted.
 */

import { plantedInControl as planted } from './control-bugs.ts'
import type { FencedNow } from './fencing.ts'
import { fence } from './fencing.ts'
import { chooseRuntimeId, isMachineUp, isUneven, onFullest } from './machines.ts'
import { demandOf, isReachable, type ClusterView, type RuntimeView, type StartingView } from './cluster-view.ts'
import { chainToStart, goalOf } from './rollout.ts'
import type { Draft } from './state-mirror.ts'
import { INCARNATION_LIMIT } from '../messages/cluster-config.ts'

export interface ScalingLimits {
  /** A start that takes longer has failed, µs. */
  readonly startUs: number
  /** After a runtime's death, how long its flows have the processors for themselves before another one is started in its place, µs. */
  readonly recoveryUs: number
  /** Ids of runtimes begin here. */
  readonly firstId: number
}

export const defaultScalingLimits: ScalingLimits = { startUs: 30e6, recoveryUs: 2e6, firstId: 10 }

export type ScalingStep =
  | { readonly kind: 'start'; readonly id: number; readonly chain: number }
  | { readonly kind: 'admit'; readonly starting: StartingView }
  | { readonly kind: 'give-up'; readonly starting: StartingView }
  | { readonly kind: 'drain'; readonly runtime: RuntimeView }
  | { readonly kind: 'keep'; readonly runtime: RuntimeView }
  | { readonly kind: 'remove'; readonly runtime: RuntimeView }

/** Whether a runtime was drained by people and stays. The old ones of a rollout go all the same. */
export function isHeld(view: ClusterView, { incarnation, chain }: RuntimeView): boolean {
  const goal = goalOf(view)
  return view.scale.held.includes(incarnation) && (goal === null || chain === goal)
}

export function decideScaling(view: ClusterView, limits: ScalingLimits = defaultScalingLimits): ScalingStep | null {
  const { now, runtimes, starting, scale, rollout, cluster, machines } = view
  const ready = starting.find(({ isReady, hasEnded }) => isReady && !hasEnded)
  if (ready !== undefined) return { kind: 'admit', starting: ready }
  // Begun in the future: by a leader whose clock was ahead of ours. It is begun anew.
  const failed = starting.find(({ hasEnded, runtime }) => hasEnded || Math.abs(now - runtime.since) > limits.startUs ||
    !isMachineUp(machines, runtime.id, limits.firstId))
  if (failed !== undefined) return { kind: 'give-up', starting: failed }
  const goal = goalOf(view)
  const serving = runtimes.filter(({ isDraining }) => !isDraining)
  const held = runtimes.filter((one) => one.isDraining && isHeld(view, one))
  const draining = runtimes.filter((one) => one.isDraining && !held.includes(one))
  const wanted = Math.max(1, scale.desired - held.length)
  const leaving = goal === null ? [] : serving.filter(({ chain }) => chain !== goal)
  const isPaused = rollout?.phase === 'paused'
  const kept = draining.find((one) => isReachable(one) && !scale.leaving.includes(one.incarnation) &&
    (isPaused || (serving.length + starting.length < wanted &&
    (goal === null || one.chain === goal))))
  if (kept !== undefined) return { kind: 'keep', runtime: kept }
  const empty = draining.find((one) => isReachable(one) && one.report !== null && serving.length > 0 &&
    ((one.report.isEmpty && one.report.flows === 0 && one.report.order.open === 0) || planted['removed-full']) &&
    one.report.configVersion === cluster.config.version)
  if (empty !== undefined) return { kind: 'remove', runtime: empty }
  // What people have drained has its place on its machine, as it has for whoever looks for one for a new runtime.
  const placed = [...serving, ...held].map(({ id }) => id)
  // One more than wanted, while an old one is there to be replaced in a rollout, or a machine has too many.
  const isSurplus = leaving.length > 0 || (goal === null && isUneven(machines, serving.map(({ id }) => id), placed, limits.firstId))
  const surge = isSurplus && draining.length === 0 ? 1 : 0
  if (serving.length + starting.length < wanted + surge) {
    if (serving.length > 1 && isSoonAfterDeath(view, limits)) return null
    const id = freeId(view, limits)
    if (id !== 0) return cluster.incarnation + 1 >= INCARNATION_LIMIT ? null : { kind: 'start', id, chain: chainToStart(view) }
    // No machine has room: an old one of a rollout makes it.
    if (leaving.length === 0) return null
  } else if (serving.length <= wanted) {
    return null
  }
  if (starting.length > 0 || draining.length > 0 || isPaused || serving.length < 2) return null
  const [least] = (leaving.length > 0 ? leaving : onFullest(machines, serving, placed, limits.firstId)).filter(isReachable)
    .sort((a, b) => demandOf(a) - demandOf(b) || b.incarnation - a.incarnation)
  return least === undefined ? null : { kind: 'drain', runtime: least }
}

/**
 * True shortly after a runtime's death. Its flows resume meanwhile, each gets a replica, and what their connections have lost comes again; a
 * process that starts beside takes the processors from all of that. With a single runtime left there is nobody to keep replicas.
 */
function isSoonAfterDeath({ now, fences }: ClusterView, { recoveryUs }: ScalingLimits): boolean {
  return fences.some(({ chain, reason, at = -Infinity }) => chain > 0 && reason !== 'drained' && reason !== 'not-started' &&
    Math.abs(now - at) < recoveryUs)
}

/** True where a runtime could be started: there is a machine with room. */
export function hasRoom(view: ClusterView, limits: ScalingLimits = defaultScalingLimits): boolean {
  return freeId(view, limits) !== 0
}

/** An id that no node has, nor had before its flows were recovered, on the machine that has fewest. */
function freeId({ runtimes, switches, starting, fences, machines }: ClusterView, { firstId }: ScalingLimits): number {
  const taken = new Set([...runtimes, ...switches].map(({ id }) => id))
  for (const { runtime } of starting) taken.add(runtime.id)
  for (const { node, isRecovered } of fences) if (!isRecovered) taken.add(node)
  return chooseRuntimeId(machines, [...runtimes, ...starting.map(({ runtime }) => runtime)].map(({ id }) => id), taken, firstId)
}

export function carryOutStep(draft: Draft, view: ClusterView, step: ScalingStep): Draft {
  const { cluster, scale, now, term } = view
  const { config } = cluster
  const without = (starting: StartingView): typeof scale => ({
    ...scale, starting: scale.starting.filter(({ incarnation }) => incarnation !== starting.runtime.incarnation) })
  switch (step.kind) {
    case 'start': {
      const incarnation = cluster.incarnation + 1
      return draft.put('cluster', '', planted['incarnation-reused'] ? cluster : { ...cluster, incarnation }).put('scale', '', {
        ...scale, starting: [...scale.starting, { id: step.id, incarnation, chain: step.chain, since: now }] })
    }
    case 'admit': {
      const { id, incarnation, chain } = step.starting.runtime
      return draft.put('scale', '', without(step.starting)).put('cluster', '', {
        ...cluster, chains: { ...cluster.chains, [incarnation]: chain },
        config: { ...config, version: config.version + 1, runtimes: [...config.runtimes, { id, incarnation, isDraining: false }] } })
    }
    case 'give-up': {
      const { id, incarnation, chain } = step.starting.runtime
      // Nobody has ever accepted anything of it, so nobody has to cut it off.
      return draft.put('scale', '', without(step.starting)).put('fence', incarnation, {
        node: id, incarnation, generation: cluster.generation, term, chain, reason: 'not-started', isRecovered: true })
    }
    case 'drain':
    case 'keep': {
      const isDraining = step.kind === 'drain'
      return draft.put('cluster', '', { ...cluster, config: {
        ...config, version: config.version + 1,
        runtimes: config.runtimes.map((one) => (one.incarnation === step.runtime.incarnation ? { ...one, isDraining } : one)) } })
    }
    case 'remove': {
      const gone: FencedNow = { node: step.runtime.id, incarnation: step.runtime.incarnation, reason: 'drained' }
      return fence(draft, view, [gone])
    }
  }
}
