import { test } from 'node:test'
import assert from 'node:assert/strict'
import { planted, plantedBugs, type PlantedBug } from '../base/planted-bugs.ts'
import { faultsOfSeed, replicationOfSeed } from './simulation-report.ts'
import { simulate } from './simulation.ts'

/** Random seeds within which a planted bug is seen; fewer are tried where time is short. */
const SEEDS = process.env.NFACTOR_FULL === '1' ? 1000 : 60
const start = Number(process.env.NFACTOR_SEED ?? 1)

const isClean = (seed: number): boolean =>
  simulate({ seed, faults: faultsOfSeed(seed), replication: replicationOfSeed(seed) }).violations.length === 0

for (const name of Object.keys(plantedBugs) as PlantedBug[]) {
  test(`planted: ${name}, ${plantedBugs[name]}`, (t) => {
    for (let seed = start; seed < start + SEEDS; seed++) {
      planted[name] = true
      let isSeen: boolean
      try {
        isSeen = !isClean(seed)
      } finally {
        planted[name] = false
      }
      // What fails anyhow says nothing of the bug.
      if (!isSeen || !isClean(seed)) continue
      t.diagnostic(`seen in seed ${seed}, after ${seed - start + 1}`)
      return
    }
    if (process.env.NFACTOR_FULL === '1') assert.fail(`not seen in ${SEEDS} seeds from ${start}`)
    t.skip(`not seen in ${SEEDS} seeds; NFACTOR_FULL=1 tries 1000`)
  })
}
