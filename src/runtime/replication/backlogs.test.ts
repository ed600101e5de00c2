/** For whom a runtime that reads nothing waits: the flows of a replica that is slow stop, where others could go on. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Backlogs } from './backlogs.ts'
import type { Guard } from './guard.ts'

const SLOW_US = 1000

function guardAt(replica: number): Guard {
  return { flow: replica, replica, isFirstDead: false, isDead: false, copy: null, backlog: undefined } as unknown as Guard
}

/** Backlogs of these guards, of which the first one's replica takes nothing; who was stopped by the time that is asked for. */
function waiting(guards: readonly Guard[]): (us: number) => Guard[] {
  let now = 0
  const stopped: Guard[] = []
  const backlogs = new Backlogs({
    now: () => now, slots: { packets: 64, largePackets: 4 }, unacknowledged: 12, slowUs: SLOW_US,
    guards: () => guards.values(), withheld: () => [],
    stop: (guard) => { stopped.push(guard) }, resume: () => {},
  })
  backlogs.countBehind(backlogs.of(guards[0] as Guard), 12, 1200)
  assert.equal(backlogs.hasRoom, false)
  return (us) => {
    now = us
    backlogs.tick()
    assert.equal(backlogs.hasRoom, stopped.length > 0)
    return stopped
  }
}

test('a flow goes on beside one whose replica is slow, also if nothing of it has ever waited', () => {
  const [one, other] = [guardAt(11), guardAt(12)]
  const stoppedAt = waiting([one, other])
  assert.deepEqual(stoppedAt(SLOW_US - 1), [])
  assert.deepEqual(stoppedAt(SLOW_US), [one])
})

test('where all flows have the same replica none is stopped, until another one comes', () => {
  const guards = [guardAt(11), guardAt(11)]
  const stoppedAt = waiting(guards)
  assert.deepEqual(stoppedAt(SLOW_US), [])
  guards.push(guardAt(12))
  assert.deepEqual(stoppedAt(2 * SLOW_US - 1), [], 'it is looked for now and then')
  assert.deepEqual(stoppedAt(2 * SLOW_US), guards.slice(0, 2))
})
