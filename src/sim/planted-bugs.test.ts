import { test } from 'node:test'
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { chainBugs, planted, plantedBugs, type PlantedBug } from '../base/planted-bugs.ts'
import { faultsOfSeed, replicationOfSeed } from './simulation-report.ts'
import { simulate } from './simulation.ts'

/**
 * Random seeds within which a planted bug is seen. Where time is short, first the one in which it was seen the last time
 * (testdata/planted-seeds.json), and then only a few, for a change of anything changes what happens in a seed.
 */
const isHunt = process.env.NFACTOR_FULL === '1' || process.env.NFACTOR_SEED !== undefined
const SEEDS = isHunt ? 1000 : 40
const start = Number(process.env.NFACTOR_SEED ?? 1)
const known = JSON.parse(readFileSync(new URL('../../testdata/planted-seeds.json', import.meta.url), 'utf8')) as Record<string, number>

/** The seeds to try, in this order. */
function seedsFor(name: PlantedBug): number[] {
  const inOrder = Array.from({ length: SEEDS }, (_, index) => start + index)
  return isHunt || known[name] === undefined ? inOrder : [known[name], ...inOrder]
}

const isClean = (seed: number, replicas: number): boolean => simulate({
  seed, replicas, faults: faultsOfSeed(seed, replicas), replication: replicas === 1 ? replicationOfSeed(seed) : 'commit',
}).violations.length === 0

for (const name of Object.keys(plantedBugs) as PlantedBug[]) {
  test(`planted: ${name}, ${plantedBugs[name]}`, (t) => {
    const replicas = chainBugs.includes(name) ? 2 : 1
    for (const [tried, seed] of seedsFor(name).entries()) {
      planted[name] = true
      let isSeen: boolean
      try {
        isSeen = !isClean(seed, replicas)
      } finally {
        planted[name] = false
      }
      // What fails anyhow says nothing of the bug.
      if (!isSeen || !isClean(seed, replicas)) continue
      t.diagnostic(`seen in seed ${seed}, after ${tried + 1}`)
      return
    }
    if (isHunt) assert.fail(`not seen in ${SEEDS} seeds from ${start}`)
    t.skip(`not seen in ${SEEDS} seeds; NFACTOR_FULL=1 tries 1000`)
  })
}
