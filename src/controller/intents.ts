/**
 * Intents: what people ask of the leader. Each says how things should be, not what to do, so that it can be tried again when the outcome
 * of a transaction is unknown: what is so already is done.
 */

import type { AutoscalerLimits } from './autoscaler.ts'
import type { ClusterView } from './cluster-view.ts'
import { fence } from './fencing.ts'
import { goalOf } from './rollout.ts'
import type { Draft } from './state-mirror.ts'

export type Intent =
  /** So many runtimes, until somebody or the autoscaler changes it. */
  | { readonly kind: 'scale'; readonly desired: number }
  | { readonly kind: 'automatic'; readonly isAutomatic: boolean }
  | { readonly kind: 'roll-out'; readonly to: number; readonly isReversible: boolean; readonly onFailure: 'pause' | 'roll-back' }
  | { readonly kind: 'pause' }
  | { readonly kind: 'resume' }
  | { readonly kind: 'roll-back' }
  /** This runtime gets no new flows, and those that it has leave it; then it stays empty, or ends and one fewer is wanted. */
  | { readonly kind: 'drain'; readonly incarnation: number; readonly isEnded: boolean }
  /** It gets flows again. */
  | { readonly kind: 'undrain'; readonly incarnation: number }
  /** This life ends for good. */
  | { readonly kind: 'fence'; readonly incarnation: number }

export type IntentRefusal = 'not-leader' | 'out-of-limits' | 'rollout-under-way' | 'no-rollout' | 'same-version' | 'unknown-node' |
  'last-runtime'

/** 'done': it is so. Otherwise why not, or the draft that makes it so. */
export function carryOutIntent(intent: Intent, view: ClusterView, limits: AutoscalerLimits, draft: Draft): 'done' | IntentRefusal | Draft {
  const { scale, rollout, cluster, now } = view
  const isUnderWay = rollout !== undefined && ['rolling', 'paused', 'rolling-back'].includes(rollout.phase)
  switch (intent.kind) {
    case 'scale': {
      const { desired } = intent
      if (!Number.isInteger(desired) || desired < limits.runtimesMin || desired > limits.runtimesMax) return 'out-of-limits'
      return desired === scale.desired ? 'done'
        : draft.put('scale', '', { ...scale, desired, decision: scale.decision + 1, decidedAt: now })
    }
    case 'automatic':
      return intent.isAutomatic === scale.isAutomatic ? 'done' : draft.put('scale', '', { ...scale, isAutomatic: intent.isAutomatic })
    case 'roll-out': {
      const { to, isReversible, onFailure } = intent
      if (isUnderWay) return rollout.to === to && rollout.phase === 'rolling' ? 'done' : 'rollout-under-way'
      if (to === scale.chain) return rollout?.to === to && rollout.phase === 'done' ? 'done' : 'same-version'
      return draft.put('rollout', '', { number: (rollout?.number ?? 0) + 1, from: scale.chain, to, phase: 'rolling',
        sinceGeneration: cluster.generation, sinceIncarnation: cluster.incarnation, isReversible, onFailure, stage: 0, reason: '' })
    }
    case 'pause':
      if (!isUnderWay || rollout.phase === 'rolling-back') return 'no-rollout'
      return rollout.phase === 'paused' ? 'done' : draft.put('rollout', '', { ...rollout, phase: 'paused', reason: 'ordered' })
    case 'resume':
      if (!isUnderWay || rollout.phase === 'rolling-back') return 'no-rollout'
      return rollout.phase === 'rolling' ? 'done'
        : draft.put('rollout', '', { ...rollout, phase: 'rolling', sinceGeneration: cluster.generation,
          sinceIncarnation: cluster.incarnation, reason: '' })
    case 'roll-back':
      if (!isUnderWay) return rollout?.phase === 'rolled-back' ? 'done' : 'no-rollout'
      return rollout.phase === 'rolling-back' ? 'done' : draft.put('rollout', '', { ...rollout, phase: 'rolling-back', reason: 'ordered' })
    case 'drain': {
      const { incarnation, isEnded } = intent
      const one = view.runtimes.find((runtime) => runtime.incarnation === incarnation)
      if (one === undefined) return view.fences.some((gone) => gone.incarnation === incarnation) ? 'done' : 'unknown-node'
      const isSo = one.isDraining && (isEnded ? scale.leaving : scale.held).includes(incarnation)
      if (isSo) return 'done'
      if (!view.runtimes.some((other) => other !== one && !other.isDraining)) return 'last-runtime'
      // One that is to go anyway, by whatever was decided before, is not among the wanted any more; one that stays empty is,
      // and one that a rollout replaces anyway has been.
      const goal = goalOf(view)
      const isReplaced = goal !== null && one.chain !== goal && !scale.leaving.includes(incarnation)
      const isWanted = !one.isDraining || isReplaced || scale.held.includes(incarnation)
      const desired = Math.max(1, scale.desired + Number(!isEnded) - Number(isWanted))
      return withDraining(draft, view, incarnation, true).put('scale', '', { ...scale,
        held: isEnded ? without(scale.held, incarnation) : [...present(view, scale.held), incarnation],
        leaving: isEnded ? [...present(view, scale.leaving), incarnation] : without(scale.leaving, incarnation),
        ...desired !== scale.desired && { desired, decision: scale.decision + 1, decidedAt: now } })
    }
    case 'undrain': {
      const { incarnation } = intent
      const one = view.runtimes.find((runtime) => runtime.incarnation === incarnation)
      if (one === undefined) return 'unknown-node'
      const [isHeld, wasLeaving] = [scale.held.includes(incarnation), scale.leaving.includes(incarnation)]
      if (!one.isDraining && !wasLeaving && !isHeld) return 'done'
      const goal = goalOf(view)
      if (goal !== null && one.chain !== goal && !isHeld && !wasLeaving) return 'rollout-under-way'
      return withDraining(draft, view, incarnation, false).put('scale', '', { ...scale,
        held: without(scale.held, incarnation), leaving: without(scale.leaving, incarnation),
        // One that was to go had been counted out.
        ...!isHeld && { desired: scale.desired + 1, decision: scale.decision + 1, decidedAt: now } })
    }
    case 'fence': {
      const { incarnation } = intent
      if (view.fences.some((one) => one.incarnation === incarnation)) return 'done'
      const node = [...view.runtimes, ...view.switches].find((one) => one.incarnation === incarnation && incarnation !== 0)
      return node === undefined ? 'unknown-node' : fence(draft, view, [{ node: node.id, incarnation, reason: 'dead' }])
    }
  }
}

function without(list: readonly number[], incarnation: number): number[] {
  return list.filter((one) => one !== incarnation)
}

/** Those of the list that are there still. */
function present({ runtimes }: ClusterView, list: readonly number[]): number[] {
  return list.filter((one) => runtimes.some(({ incarnation }) => incarnation === one))
}

function withDraining(draft: Draft, { cluster }: ClusterView, incarnation: number, isDraining: boolean): Draft {
  const { config } = cluster
  return draft.put('cluster', '', { ...cluster, config: { ...config, version: config.version + 1,
    runtimes: config.runtimes.map((one) => (one.incarnation === incarnation ? { ...one, isDraining } : one)) } })
}
