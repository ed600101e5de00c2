import { test } from 'node:test'
import assert from 'node:assert/strict'
import { controlBugs, plantedInControl, type ControlBug } from './control-bugs.ts'
import { runControlFaults } from './control-faults.ts'

/** A seed that shows each soon. With `NFACTOR_FULL=1` they are looked for from the first on. */
const seeds: Partial<Record<ControlBug, number>> = { 'term-ignored': 4, 'removed-full': 2, 'orphans': 2 }
const SEEDS_MAX = 60

test('planted bugs: the control simulation sees each', async (t) => {
  for (const bug of Object.keys(controlBugs) as ControlBug[]) {
    await t.test(`${bug}: ${controlBugs[bug]}`, (one) => {
      plantedInControl[bug] = true
      try {
        const from = process.env.NFACTOR_FULL === '1' ? 1 : seeds[bug] ?? 1
        for (let seed = from; seed < from + SEEDS_MAX; seed++) {
          const { violations, settledUs, unsettled } = runControlFaults(seed, true)
          if (violations.length === 0 && settledUs >= 0) continue
          one.diagnostic(`seed ${seed}: ${violations[0] ?? `not settled: ${unsettled.join(', ')}`}`)
          return
        }
        assert.fail(`not seen in ${SEEDS_MAX} seeds`)
      } finally {
        plantedInControl[bug] = false
      }
    })
  }
})
