/** What people ask for, where something else has been decided before. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { defaultAutoscalerLimits } from './autoscaler.ts'
import type { Document, ScaleDocument } from './cluster-state.ts'
import type { ClusterView, RuntimeView } from './cluster-view.ts'
import { carryOutIntent, type Intent } from './intents.ts'
import { Draft, StateMirror } from './state-mirror.ts'

/** Runtimes by incarnation; those that drain are named. */
function viewOf(runtimes: readonly number[], draining: readonly number[], scale: Partial<ScaleDocument>): ClusterView {
  return {
    now: 1e6, term: 1, rollout: undefined, replicas: { version: 0, of: {} }, fences: [], blocks: new Map(), switches: [], starting: [],
    machines: [],
    scale: { desired: 0, isAutomatic: false, decision: 1, decidedAt: 0, chain: 1, starting: [], held: [], leaving: [], ...scale },
    cluster: { generation: 1, incarnation: 99, chains: {}, config: { version: 1, clusterId: 1, switches: [],
      runtimes: runtimes.map((incarnation) => ({ id: incarnation, incarnation, isDraining: draining.includes(incarnation) })) } },
    runtimes: runtimes.map((incarnation): RuntimeView => ({ id: incarnation, incarnation, isDraining: draining.includes(incarnation), chain: 1,
      health: 'well', hasEnded: false, silenceUs: 0, unheardBy: [], report: null, refused: 0 })),
  }
}

/** How many are wanted, held and leaving, if something changes. */
function scaleAfter(intent: Intent, view: ClusterView): unknown {
  const outcome = carryOutIntent(intent, view, defaultAutoscalerLimits, new Draft(new StateMirror(() => 0), 'test'))
  if (!(outcome instanceof Draft)) return outcome
  const request = outcome.toRequest(1)
  assert.ok(request.kind === 'transact')
  const { desired, held, leaving } = JSON.parse(request.changes.find(({ key }) => key === 'scale')?.value ?? '') as Document<'scale'>
  return [desired, held, leaving]
}

test('a runtime that is drained counts among the wanted as long as it stays, and is counted out once', () => {
  const drain = (isEnded: boolean, draining: readonly number[], scale: Partial<ScaleDocument>): unknown =>
    scaleAfter({ kind: 'drain', incarnation: 13, isEnded }, viewOf([11, 12, 13], draining, scale))
  // It serves.
  assert.deepEqual(drain(false, [], { desired: 3 }), [3, [13], []])
  assert.deepEqual(drain(true, [], { desired: 3 }), [2, [], [13]])
  // It is drained already, for two are wanted: those that serve go on.
  assert.deepEqual(drain(false, [13], { desired: 2 }), [3, [13], []])
  assert.deepEqual(drain(true, [13], { desired: 2 }), [2, [], [13]])
  // People have drained it before, the other way.
  assert.deepEqual(drain(true, [13], { desired: 3, held: [13] }), [2, [], [13]])
  assert.deepEqual(drain(false, [13], { desired: 2, leaving: [13] }), [3, [13], []])
  assert.deepEqual([drain(false, [13], { desired: 3, held: [13] }), drain(true, [13], { desired: 2, leaving: [13] })], ['done', 'done'])
  assert.equal(drain(true, [11, 12], { desired: 1 }), 'last-runtime')
  // It gets flows again, and goes on getting them.
  const undrain = (scale: Partial<ScaleDocument>, draining = [13]): unknown =>
    scaleAfter({ kind: 'undrain', incarnation: 13 }, viewOf([11, 12, 13], draining, scale))
  assert.deepEqual([undrain({ desired: 3, held: [13] }), undrain({ desired: 2, leaving: [13] }), undrain({ desired: 2 })],
    [[3, [], []], [3, [], []], [3, [], []]])
  assert.deepEqual([undrain({ desired: 3 }, []), undrain({ desired: 2 }, [12])], ['done', 'done'])
  // An old one of a rollout is drained and replaced whatever is asked.
  const rolling = { ...viewOf([11, 12, 13], [13], { desired: 2 }), rollout: { number: 1, from: 1, to: 2, phase: 'rolling' as const,
    sinceGeneration: 1, sinceIncarnation: 1, isReversible: true, onFailure: 'pause' as const, stage: 0, reason: '' } }
  assert.deepEqual(scaleAfter({ kind: 'drain', incarnation: 13, isEnded: false }, rolling), [2, [13], []])
  assert.equal(scaleAfter({ kind: 'undrain', incarnation: 13 }, rolling), 'rollout-under-way')
})
