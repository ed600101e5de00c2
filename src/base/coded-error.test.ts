import { test } from 'node:test'
import assert from 'node:assert/strict'
import { assert as invariant, AssertionError } from './assert.ts'
import { ManualClock } from './clock.ts'
import { CodedError, errorCodes } from './coded-error.ts'

test('an error says in one line what is wrong and how to mend it', () => {
  const cause = new Error('below')
  const error = new CodedError('NF_LIMIT', 'no room for flows', 'Lower the limits.', { cause })
  assert.equal(error.toLine(), 'NF_LIMIT: no room for flows. Lower the limits.')
  assert.equal(new CodedError('NF_USAGE', 'no such option').toLine(), 'NF_USAGE: no such option')
  assert.ok(error instanceof Error && error.cause === cause && error.name === 'CodedError' && error.code === 'NF_LIMIT')
})

test('every code is explained', () => {
  for (const [code, meaning] of Object.entries(errorCodes)) {
    assert.match(code, /^NF_[A-Z]+(_[A-Z]+)*$/)
    assert.match(meaning, /^[A-Z].*\.$/s)
  }
})

test('an invariant that does not hold stops', () => {
  invariant(true, 'fine')
  assert.throws(() => invariant(false, 'broken'), (error) => error instanceof AssertionError && error.message === 'broken')
})

test('a manual clock moves only when told to, and never back', () => {
  const clock = new ManualClock(5)
  assert.equal(clock.now(), 5)
  clock.advanceTo(9)
  clock.advanceTo(7)
  assert.equal(clock.now(), 9)
  clock.advanceBy(1)
  assert.equal(clock.now(), 10)
  assert.equal(new ManualClock().now(), 0)
})
