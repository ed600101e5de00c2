/**
 * What a fuzz target is: one round makes input from random numbers, brings it to a part of the system, and throws when that
 * part threw, read what is not its own, or contradicted itself. A round depends on its random numbers alone, so that its seed is
 * all that is needed to see a failure again.
 */

import { Random } from '../../base/random.ts'

export interface FuzzTarget {
  readonly name: string
  /** What is fuzzed, and what must hold. */
  readonly about: string
  /** Rounds of a short run, about a second. */
  readonly rounds: number
  round(random: Random): void
}

/** Runs one round; an error names the target and the seed to run it again. */
export function runRound(target: FuzzTarget, seed: number): void {
  try {
    target.round(new Random(seed))
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error)
    throw new Error(`${target.name}: ${text} (again: npm run fuzz -- ${target.name} --seed ${seed} --rounds 1)`, { cause: error })
  }
}

/** For what a round finds: throws unless `found` is what was expected. */
export function mustEqual(found: unknown, expected: unknown, what: string): void {
  const [a, b] = [found, expected].map((value) => JSON.stringify(value)) as [string, string]
  if (a === b) return
  let same = 0
  while (a[same] === b[same]) same++
  const from = Math.max(0, same - 60)
  throw new Error(`${what}: ...${a.slice(from, same + 200)}, expected ...${b.slice(from, same + 200)}`)
}
