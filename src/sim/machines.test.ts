/**
 * Replicas that are kept apart on machines: the same faults as everywhere, and nothing of what is promised is broken by where replicas are.
 */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { faultsOfSeed } from './simulation-report.ts'
import { simulate } from './simulation.ts'

const SEEDS = process.env['NFACTOR_FULL'] === '1' ? 200 : 5

test('random seeds with runtimes on two machines and replicas at the other one', () => {
  const faults: string[] = []
  for (let seed = 1; seed <= SEEDS; seed++) {
    const { violations } = simulate({ seed, faults: faultsOfSeed(seed), replication: 'commit', machines: 2 })
    for (const { checker, detail } of violations) faults.push(`seed ${seed}: ${checker}: ${detail}`)
  }
  assert.deepEqual(faults, [])
})
