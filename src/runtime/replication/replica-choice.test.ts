/** Replica choice: in turn, at different runtimes, rather on other machines and rather not where what is sent piles up. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { createGuard } from './guard.ts'
import type { ProtectionHost } from './protection-host.ts'
import { ReplicaChoice } from './replica-choice.ts'

interface Scene {
  readonly candidates: readonly number[]
  readonly replicas: number
  readonly apart?: readonly number[]
  readonly slow?: readonly number[]
  readonly leaving?: readonly number[]
}

function choiceOf({ candidates, replicas, apart = [], slow = [], leaving = [] }: Scene): ReplicaChoice {
  const host = { replicas, candidates: () => candidates, isApart: (id: number) => apart.includes(id),
    isLeaving: (id: number) => leaving.includes(id) } as Partial<ProtectionHost> as ProtectionHost
  return new ReplicaChoice(host, (id) => slow.includes(id))
}

const scenes = fc.uniqueArray(fc.integer({ min: 1, max: 20 }), { maxLength: 6 }).chain((candidates) => fc.record({
  candidates: fc.constant(candidates), replicas: fc.constantFrom(1, 2), apart: fc.subarray(candidates), slow: fc.subarray(candidates),
  except: fc.integer({ min: 0, max: 20 }), releaser: fc.integer({ min: 0, max: 20 }),
}))

test('as many as there are to be and can be had, different ones, of those that may be; and the last is not who has released so far', () => {
  fc.assert(fc.property(scenes, ({ except, releaser, ...scene }) => {
    const choice = choiceOf(scene)
    const others = scene.candidates.filter((id) => id !== except)
    const inTime = others.filter((id) => !scene.slow.includes(id))
    const possible = inTime.length > 0 ? inTime : others
    const apart = possible.filter((id) => scene.apart.includes(id))
    for (let turn = 0; turn < 12; turn++) {
      const chain = choice.choose(except, releaser)
      assert.equal(chain.length, Math.min(scene.replicas, possible.length))
      assert.equal(new Set(chain).size, chain.length)
      assert.ok(chain.every((id) => possible.includes(id)))
      // Two on other machines where there are two, else one.
      assert.equal(chain.filter((id) => apart.includes(id)).length, Math.min(chain.length, apart.length))
      if (chain.length > 1) assert.notEqual(chain[1], releaser)
    }
  }))
})

test('in turn: each runtime is the first, and the last, as often as any other', () => {
  fc.assert(fc.property(scenes, fc.integer({ min: 0, max: 5 }), ({ candidates, replicas, slow }, begun) => {
    const choice = choiceOf({ candidates, replicas, slow })
    const { length } = slow.length < candidates.length ? candidates.filter((id) => !slow.includes(id)) : candidates
    for (let turn = 0; turn < begun; turn++) choice.choose()
    for (const place of [0, replicas - 1]) {
      const turns = Array.from({ length: 3 * length }, () => choice.choose()[place])
      for (const id of new Set(turns)) if (id !== undefined) assert.equal(turns.filter((one) => one === id).length, 3)
    }
  }))
})

test('with one runtime on another machine it has a replica of every flow, and those here have the other in turn', () => {
  const choice = choiceOf({ candidates: [2, 3, 4], replicas: 2, apart: [3] })
  assert.deepEqual(Array.from({ length: 4 }, () => choice.choose()), [[3, 2], [3, 4], [3, 2], [3, 4]])
  assert.deepEqual(choice.choose(0, 2), [2, 3], 'who has released so far is the first')
})

test('a flow with one replica may get two where two runtimes keep up, and not where it would get one again', () => {
  const canGrow = (replicas: number, candidates: number[], slow: number[] = []): boolean => choiceOf({ candidates, replicas, slow }).canGrow
  assert.deepEqual([canGrow(2, [2, 3]), canGrow(2, [2, 3], [2, 3]), canGrow(2, [2, 3, 4], [3])], [true, true, true])
  assert.deepEqual([canGrow(1, [2, 3]), canGrow(2, [2]), canGrow(2, []), canGrow(2, [2, 3], [3])], [false, false, false, false])
  fc.assert(fc.property(scenes, (scene) => {
    const choice = choiceOf(scene)
    assert.equal(choice.canGrow, choice.choose().length === 2)
  }))
})

test('replicas are elsewhere when one of them is to become empty, or when none is on another machine though one could be', () => {
  const isMisplaced = (scene: Partial<Scene>, ...chain: number[]): boolean =>
    choiceOf({ candidates: [2, 3, 4], replicas: 2, ...scene }).isMisplaced(createGuard(1, 0, chain[0] as number, true, { tail: chain.at(-1) }))
  assert.deepEqual([isMisplaced({}, 2, 3), isMisplaced({}, 2)], [false, false])
  assert.deepEqual([isMisplaced({ leaving: [2] }, 2, 3), isMisplaced({ leaving: [3] }, 2, 3), isMisplaced({ leaving: [4] }, 2, 3)],
    [true, true, false])
  assert.deepEqual([isMisplaced({ apart: [4] }, 2, 3), isMisplaced({ apart: [3, 4] }, 2, 3), isMisplaced({ apart: [7] }, 2, 3)],
    [true, false, false])
})
