/** Placing: which runtimes get new flows, and what waits while none can. */

import assert from 'node:assert/strict'
import { afterEach, test } from 'node:test'
import { planted } from '../base/planted-bugs.ts'
import { Random } from '../base/random.ts'
import { StopPlacing, Workload, WorkloadBusy, WorkloadFlows } from '../messages/announcing.ts'
import { leastLoaded } from './placement/least-loaded.ts'
import { rendezvous } from './placement/rendezvous.ts'
import { configOf, learnt } from './scripted-scenes.ts'
import { defaultSwitchTimes } from './switch-context.ts'
import { EntryPhase } from './switch-table.ts'

afterEach(() => { for (const bug of Object.keys(planted) as (keyof typeof planted)[]) planted[bug] = false })

test('StopPlacing is answered in-band and kept; draining runtimes get nothing new', () => {
  const one = learnt(1)
  one.control(12, StopPlacing, { code: 1 })
  for (let flow = 1; flow < 5; flow++) one.external(flow)
  assert.deepEqual(one.take(), ['=StopPlacingReply 12',
    ...[1, 2, 3, 4].flatMap((flow) => ['=FlowOpen 11', `packet ${flow} to 11`])])
  one.control(12, StopPlacing, { code: 0 })
  one.configure(configOf({ version: 2, runtimes: [{ id: 11, incarnation: 111, isDraining: true },
    { id: 12, incarnation: 112, isDraining: false }] }))
  one.external(9)
  assert.deepEqual(one.take(), ['=FlowOpen 12', 'packet 9 to 12'])
})

test('without a runtime packets are held, for a while', () => {
  const one = learnt(1)
  for (const runtime of [11, 12]) one.control(runtime, StopPlacing, { code: 1 })
  one.take()
  one.external(5)
  one.pass(defaultSwitchTimes.sweepUs)
  assert.deepEqual([one.take(), one.steps.placing], [[], 1])
  one.control(11, StopPlacing, { code: 0 })
  one.pass(defaultSwitchTimes.sweepUs)
  assert.deepEqual(one.take(), ['=FlowOpen 11', 'packet 5 to 11'])
  one.control(11, StopPlacing, { code: 1 })
  one.external(6)
  one.pass(defaultSwitchTimes.holdUs + 1)
  assert.deepEqual([one.drops, one.entry(6), one.steps.placing], [{ 'no-runtime': 1 }, null, 0])
})

test('least loaded: by reports and by what was placed since', () => {
  const one = learnt(1, {}, leastLoaded())
  const load = (flows: number, busy: number) => ({ words: { [WorkloadFlows]: flows, [WorkloadBusy]: busy } })
  one.control(11, Workload, load(10, 500))
  one.control(12, Workload, load(8, 500))
  for (let flow = 1; flow < 5; flow++) one.external(flow)
  assert.deepEqual([1, 2, 3, 4].map((flow) => one.entry(flow)?.owner), [12, 12, 11, 12])
  planted['load-for-runtime'] = true
  one.external(5)
  assert.deepEqual([one.anomalies['placement-policy'], one.entry(5)?.phase], [1, EntryPhase.placing])
})

test('rendezvous: a runtime that goes moves only its own keys', () => {
  const candidates = [11, 12, 13].map((id) => ({ id, busyPerMille: 0, flows: 0, placed: 0 }))
  const policy = rendezvous()
  const random = new Random(3)
  const counts = [0, 0, 0]
  for (let i = 0; i < 3000; i++) {
    const hash = random.int32()
    const before = policy.choose(candidates, hash)
    counts[before]++
    if (before !== 2) assert.equal(policy.choose(candidates.slice(0, 2), hash), before)
  }
  assert.ok(counts.every((count) => count > 850 && count < 1150), counts.join())
})
