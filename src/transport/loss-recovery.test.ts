import { test } from 'node:test'
import assert from 'node:assert/strict'
import { LossRecovery } from './loss-recovery.ts'

/** What would be sent again now, in frames of at most 20 units. */
function missing(recovery: LossRecovery, next = 200): string[] {
  const list: string[] = []
  while (recovery.budget > 0) {
    const units = recovery.findMissing(20)
    if (units === 0) break
    list.push(`${recovery.from}-${recovery.from + units}`)
    recovery.sent(units, next)
  }
  recovery.budget = 0
  return list
}

function told(recovery: LossRecovery, una: number, next: number, ...stretches: number[]): void {
  recovery.takeStretches(new Int32Array(stretches), 0, stretches.length / 2, una, next)
}

test('at a time-out what has come early is left out, and a few frames go at once', () => {
  const recovery = new LossRecovery()
  recovery.reset(0)
  told(recovery, 0, 200, 10, 20, 30, 40)
  recovery.timedOut(0, 200)
  assert.deepEqual(missing(recovery), ['0-10', '20-30', '40-60', '60-80'])
  recovery.advance(20)
  assert.deepEqual(missing(recovery), ['80-100', '100-120', '120-140', '140-160', '160-180', '180-200'])
})

test('frames that go again are bounded, at a time-out and in each turn behind it: the rest follows', () => {
  const recovery = new LossRecovery()
  recovery.reset(0)
  recovery.timedOut(0, 1000)
  assert.equal(missing(recovery).at(-1), '60-80')
  for (const [from, last] of [[20, '380-400'], [100, '700-720'], [120, '980-1000']] as const) {
    recovery.advance(from)
    assert.equal(missing(recovery).at(-1), last)
  }
})

test('a little that has come early may be late, much of it shows a loss', () => {
  const recovery = new LossRecovery()
  recovery.reset(0)
  told(recovery, 0, 200, 10, 20)
  recovery.judge(20, 1000, 250)
  assert.deepEqual([recovery.budget, recovery.lateUntil], [0, 1250])
  recovery.judge(20, 1100, 250)
  assert.deepEqual([recovery.budget, recovery.lateUntil], [0, 1250])
  recovery.judge(20, 1200, 250)
  assert.deepEqual(missing(recovery), ['0-10'])
  told(recovery, 0, 200, 10, 20, 30, 95)
  recovery.judge(20, 1300, 250)
  assert.deepEqual(missing(recovery), ['20-30'])
  recovery.advance(95)
  assert.deepEqual(missing(recovery), [])
  told(recovery, 95, 200, 100, 110)
  recovery.judge(20, 2000, 250)
  assert.deepEqual([recovery.budget, recovery.lateUntil], [0, 2250], 'evidence counts anew')
  recovery.judge(20, 2250, 250)
  assert.deepEqual(missing(recovery), ['95-100'])
})

test('what was sent again and is overtaken by what was first sent behind it is sent once more', () => {
  const recovery = new LossRecovery()
  recovery.reset(0)
  told(recovery, 0, 60, 20, 40)
  recovery.judge(20, 1000, 250)
  recovery.presumeLost(1250)
  assert.deepEqual(missing(recovery, 60), ['0-20'])
  for (const now of [1300, 1400, 1500]) {
    told(recovery, 0, 80, 20, 60)
    recovery.judge(20, now, 250)
    assert.deepEqual(missing(recovery, 80), [], 'that was under way by then')
  }
  told(recovery, 0, 80, 20, 60, 70, 80)
  recovery.judge(20, 1600, 250)
  assert.deepEqual([missing(recovery, 80), recovery.lateUntil], [['60-70'], 1850], 'it may be late')
  told(recovery, 0, 100, 20, 60, 70, 100)
  recovery.judge(20, 1700, 250)
  assert.deepEqual([missing(recovery, 100), recovery.lateUntil], [[], 1850])
  recovery.presumeLost(1850)
  assert.deepEqual([missing(recovery, 100), recovery.lateUntil], [['0-20', '60-70'], Infinity])
  told(recovery, 0, 120, 20, 60, 70, 120)
  recovery.judge(20, 2000, 250)
  recovery.advance(60)
  assert.equal(recovery.lateUntil, Infinity, 'it was late')
})

test('what the peer cannot have got is not believed', () => {
  const recovery = new LossRecovery()
  recovery.reset(50)
  for (const stretch of [[40, 60], [50, 60], [60, 60], [70, 60], [90, 101]]) {
    told(recovery, 50, 100, ...stretch)
    recovery.judge(1, 1000, 250)
    recovery.timedOut(50, 100)
    assert.deepEqual(missing(recovery), ['50-70', '70-90', '90-100'], `${stretch}`)
  }
})
