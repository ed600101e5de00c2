/**
 * Which cores nodes get, and what is said of cores that there are not. That processes stay on theirs is in `launcher-contract.test.ts`.
 */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { clusterSchema } from './cluster-file.ts'
import { allowedCpus, cpusOfCluster, cpusOfNode } from './node-cpus.ts'

test('a node has a core of its own while there are enough; then all of them, until one is free', () => {
  const taken: (readonly number[] | undefined)[] = [undefined]
  for (let node = 0; node < 3; node++) taken.push(cpusOfNode([2, 5], taken))
  assert.deepEqual(taken.slice(1), [[2], [5], [2, 5]])
  taken[1] = undefined
  assert.deepEqual(cpusOfNode([2, 5], taken), [2])
})

test('a cluster has the cores that its file names, if it may use them', () => {
  const allowed = allowedCpus()
  assert.ok(allowed.length > 0)
  assert.deepEqual(cpusOfCluster({ cpus: undefined }), [])
  assert.deepEqual(cpusOfCluster({ cpus: 'auto' }), allowed)
  assert.deepEqual(cpusOfCluster({ cpus: allowed.slice(0, 1) }), allowed.slice(0, 1))
  assert.throws(() => cpusOfCluster({ cpus: [1023] }), { code: 'NF_CONFIG_INVALID', message: 'cpus: there is no core 1023 that we may use' })
  for (const wrong of [[], [-1], [0.5], [1024], [1, 1], 'all', 3]) {
    assert.equal(clusterSchema.safeParse({ cpus: wrong }).success, false, `${String(wrong)}`)
  }
})
