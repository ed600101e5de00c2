/**
 * Replicas that are kept apart on machines: the same faults as everywhere, and nothing of what is promised is broken by where replicas are.
 */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { faultsOfSeed } from './simulation-report.ts'
import { simulate } from './simulation.ts'

/** Some, with those that have failed once. */
const seeds = process.env['NFACTOR_FULL'] === '1' ? Array.from({ length: 200 }, (_, index) => index + 1) : [1, 2, 3, 4, 20]

test('random seeds with runtimes on two machines and replicas at the other one', () => {
  const faults: string[] = []
  for (const seed of seeds) {
    const { violations } = simulate({ seed, faults: faultsOfSeed(seed), replication: 'commit', machines: 2 })
    for (const { checker, detail } of violations) faults.push(`seed ${seed}: ${checker}: ${detail}`)
  }
  assert.deepEqual(faults, [])
})
