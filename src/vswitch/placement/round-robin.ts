/** Round-robin: one runtime after another. Paper §5.2. */

import type { PlacementPolicy } from './placement-policy.ts'

export function roundRobin(): PlacementPolicy {
  let next = 0
  return {
    choose(candidates) {
      next = (next + 1) % candidates.length
      return next
    },
  }
}
