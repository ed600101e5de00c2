/**
 * What a cluster file says of scaling, and what the autoscaler makes of it.
 */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { defaultAutoscalerLimits } from '../controller/autoscaler.ts'
import { clusterSchema, specOf } from './cluster-file.ts'
import { limitsOf } from './controller-process.ts'
import type { RunConfig } from './run-config.ts'

const scalingOf = (scale: unknown): unknown =>
  limitsOf({ clusterId: 1, spec: specOf(clusterSchema.parse({ scale }), { chain: [] } as unknown as RunConfig, undefined) }).autoscaler

test('defaults of the file are those of the autoscaler', () => {
  assert.deepEqual(scalingOf({}), defaultAutoscalerLimits)
})

test('all times follow the pause, what a runtime aims for lies between low and high', () => {
  assert.deepEqual(scalingOf({ min: 1, max: 3, high: 0.5, low: 0.3, pause: 3 }), {
    ...defaultAutoscalerLimits, runtimesMin: 1, runtimesMax: 3, high: 0.5, low: 0.3, target: 0.35,
    slowUs: 1e6, peakUs: 12e6, outPauseUs: 0.5e6, inAfterOutUs: 6e6, inPauseUs: 3e6 })
})

test('what cannot be is refused', () => {
  for (const [scale, reason] of [
    [{ min: 3, max: 2 }, /min is more than max/], [{ low: 0.8 }, /low is not below high/], [{ pause: 0 }, /pause/],
  ] as const) assert.match(clusterSchema.safeParse({ scale }).error?.message ?? '', reason)
})

test('containers and their ports are as they can be', () => {
  const problemOf = (content: object): string =>
    clusterSchema.safeParse(content).error?.issues.map(({ path, message }) => `${path.join('.')}: ${message}`).join('; ') ?? ''
  assert.equal(problemOf({ launcher: 'container' }), '')
  assert.match(problemOf({ container: {} }), /^container: nothing is in a container without launcher: container$/)
  const port = { type: 'af-packet', interface: 'in', namespace: 'middle' }
  assert.match(problemOf({ launcher: 'container', ingress: port }), /^ingress\.namespace: a container has the engine's network namespace/)
  assert.match(problemOf({ launcher: 'container', egress: { type: 'tap', interface: 'nf0' } }), /^egress\.type: .*use af-packet$/)
})
