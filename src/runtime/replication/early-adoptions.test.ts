/** Early adoptions: who has answered for a flow that has just come, who has died since, and what is kept of it. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { AdoptRefusal } from '../../messages/replication.ts'
import { EarlyAdoptions } from './early-adoptions.ts'

test('done when each of a chain has answered; covered when all have it, and they are as many as there are to be', () => {
  const early = new EarlyAdoptions()
  let done = 0
  early.begin(1, [11, 12], () => { done++ })
  assert.deepEqual([early.replied(13, 1, AdoptRefusal.none), early.replied(11, 2, AdoptRefusal.none)], [false, false], 'nobody asked them')
  assert.deepEqual([early.replied(11, 1, AdoptRefusal.none), done, early.isCovered(1, 2)], [true, 0, false])
  assert.equal(early.replied(11, 1, AdoptRefusal.none), false, 'its second answer is to another question')
  assert.deepEqual([early.replied(12, 1, AdoptRefusal.none), done], [true, 1])
  assert.deepEqual([early.isCovered(1, 2), early.isCovered(1, 1), early.isCovered(1, 3), early.isCovered(2, 1)], [true, true, false, false])
  assert.deepEqual([early.take(1), early.isCovered(1, 1), early.take(1)], [[11, 12], false, []])
})

test('a refusal is an answer, but the flow is not covered; nor when one of the chain dies, before its answer or after it', () => {
  for (const how of ['refuses', 'dies', 'dies later']) {
    const early = new EarlyAdoptions()
    let done = 0
    early.begin(1, [11, 12], () => { done++ })
    early.begin(2, [12], () => {})
    early.replied(11, 1, AdoptRefusal.none)
    if (how === 'refuses') early.replied(12, 1, AdoptRefusal.noRoom)
    if (how === 'dies later') early.replied(12, 1, AdoptRefusal.none)
    if (how !== 'refuses') early.fenced(12)
    early.fenced(13)
    assert.deepEqual([done, early.isCovered(1, 2), early.isCovered(2, 1)], [1, false, false], how)
    assert.equal(early.replied(12, 1, AdoptRefusal.none), false, 'late')
    assert.deepEqual(early.take(1), [11, 12], 'those that have it are to forget it, or to be its replicas')
    // The next time it comes is another matter.
    early.begin(1, [11], () => {})
    early.replied(11, 1, AdoptRefusal.none)
    assert.equal(early.isCovered(1, 1), true, how)
  }
})

test('whatever happens, each flow is done once, unless it ends before; and nothing is left of one that has been taken and has ended', () => {
  const flow = fc.integer({ min: 1, max: 3 })
  const runtime = fc.integer({ min: 11, max: 13 })
  const refusal = fc.constantFrom(AdoptRefusal.none, AdoptRefusal.noRoom)
  const step = fc.oneof(
    fc.record({ kind: fc.constant('begin' as const), flow, chain: fc.uniqueArray(runtime, { minLength: 1, maxLength: 2 }) }),
    fc.record({ kind: fc.constant('replied' as const), flow, runtime, refusal }),
    fc.record({ kind: fc.constant('fenced' as const), runtime }),
    fc.record({ kind: fc.constantFrom('take' as const, 'ended' as const), flow }))
  fc.assert(fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
    const early = new EarlyAdoptions()
    /** What is asked about each flow: who has yet to answer, who has said yes and lives, and those that were asked. */
    const asked = new Map<number, { readonly left: Set<number>; readonly yes: Set<number>; readonly chain: number[]; dones: number }>()
    for (const one of steps) {
      const known = 'flow' in one ? asked.get(one.flow) : undefined
      if (one.kind === 'begin' && known === undefined) {
        const { chain } = one
        const question = { left: new Set(chain), yes: new Set<number>(), chain, dones: 0 }
        asked.set(one.flow, question)
        early.begin(one.flow, chain, () => { question.dones++ })
      } else if (one.kind === 'replied') {
        const isAwaited = known?.left.delete(one.runtime) === true
        assert.equal(early.replied(one.runtime, one.flow, one.refusal), isAwaited)
        if (isAwaited && one.refusal === AdoptRefusal.none) known.yes.add(one.runtime)
      } else if (one.kind === 'fenced') {
        early.fenced(one.runtime)
        for (const { left, yes } of asked.values()) for (const set of [left, yes]) set.delete(one.runtime)
      } else if (one.kind === 'take' && known?.left.size === 0) {
        assert.deepEqual(early.take(one.flow), known.chain)
        asked.delete(one.flow)
      } else if (one.kind === 'ended') {
        early.ended(one.flow)
        asked.delete(one.flow)
      }
      for (const id of [1, 2, 3]) {
        const question = asked.get(id)
        if (question === undefined) {
          assert.equal(early.isCovered(id, 1), false)
          continue
        }
        assert.equal(question.dones, question.left.size === 0 ? 1 : 0)
        assert.equal(early.isCovered(id, question.chain.length), question.yes.size === question.chain.length)
      }
    }
    for (const id of [1, 2, 3]) early.ended(id)
    for (const id of [1, 2, 3]) assert.deepEqual([early.take(id), early.isCovered(id, 0)], [[], true])
  }))
})
