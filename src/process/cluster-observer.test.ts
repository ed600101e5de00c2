/** What people are told, from one view of a controller to the next: once, however many lives a cluster has seen. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ClusterView } from '../controller/cluster-view.ts'
import type { Report } from '../controller/node-commands.ts'
import { ClusterObserver } from './cluster-observer.ts'

type Fence = Pick<ClusterView['fences'][number], 'node' | 'incarnation' | 'reason' | 'isRecovered'>

/** What an observer looks at in a view. */
function viewOf(fences: readonly Fence[], desired = 1): ClusterView {
  return { fences, switches: [], runtimes: [], rollout: undefined, scale: { decision: 1, desired } } as unknown as ClusterView
}

test('a fence is told, and its recovery; what a new leader finds is no news', () => {
  const events: string[] = []
  const observer = new ClusterObserver((event) => { events.push(event) }, (id) => `runtime-${id}`, () => 0)
  const fence = (incarnation: number, isRecovered: boolean): Fence => ({ node: 11, incarnation, reason: 'silent', isRecovered })
  observer.observe(viewOf([fence(1, false), fence(2, true)]))
  assert.deepEqual(events, [])
  observer.observe(viewOf([fence(1, true), fence(2, true), fence(3, false)], 2))
  assert.deepEqual(events, ['recovered', 'node-fenced', 'scaled'])
  observer.begin()
  observer.observe(viewOf([fence(4, true)], 2))
  assert.equal(events.length, 3)
})

test('lives that a view names no more are forgotten, those that it names are not told of again', () => {
  const events: string[] = []
  const observer = new ClusterObserver((event) => { events.push(event) }, (id) => `runtime-${id}`, () => 0)
  observer.observe(viewOf([]))
  // As many recovered fences as a controller keeps, and two more with each view.
  for (let last = 2; last <= 3000; last += 2) {
    observer.observe(viewOf(Array.from({ length: Math.min(256, last) }, (_, i) =>
      ({ node: 11, incarnation: last - i, reason: 'silent', isRecovered: true }))))
    assert.ok(observer.lives <= 1024 + 2, `${observer.lives} lives`)
  }
  assert.equal(events.length, 3000)
})

test('a node that is ready and stands still is told of, once in a while', () => {
  const events: string[] = []
  const observer = new ClusterObserver((_, text) => { events.push(text) }, (id) => `runtime-${id}`, () => 5)
  const report = (pausedUs: number, coreWaitUs = 0): Report =>
    ({ kind: 'switch', node: 11, incarnation: 3, pausedUs, coreWaitUs, words: [], configVersion: 1, generation: 0, missed: 0, refused: [] })
  observer.observe(viewOf([]))
  observer.reported(report(900_000))
  assert.deepEqual(events, [], 'not there yet')
  const one = { id: 11, incarnation: 3, health: 'well', report: report(0) }
  observer.observe({ ...viewOf([]), switches: [one] } as unknown as ClusterView)
  observer.reported(report(200_000))
  observer.reported(report(812_000, 790_400))
  observer.reported(report(2_000_000))
  assert.deepEqual(events, ['runtime-11 is ready after 5 ms',
    'runtime-11 has stood still for 812 ms, 790 ms of it waiting for a processor core'])
})
