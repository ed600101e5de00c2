/**
 * A short run of every fuzz target, always with the same seeds; `npm run fuzz` looks further.
 */

import { test } from 'node:test'
import { runRound } from './fuzz-target.ts'
import { fuzzTargets } from './targets.ts'

/** Seeds that have failed before, by target. */
const failedOnce: Record<string, readonly number[]> = { chain: [5019] }

const TIMES = process.env['NFACTOR_FULL'] === undefined ? 1 : 30

for (const target of fuzzTargets) {
  test(`fuzz: ${target.about}`, () => {
    for (const seed of failedOnce[target.name] ?? []) runRound(target, seed)
    for (let seed = 1; seed <= target.rounds * TIMES; seed++) runRound(target, seed)
  })
}
