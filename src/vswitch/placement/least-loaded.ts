/** Least loaded: the runtime with the fewest flows, those placed since its last report included; of equals the one less busy. */

import { planted } from '../../base/planted-bugs.ts'
import type { PlacementPolicy } from './placement-policy.ts'

export function leastLoaded(): PlacementPolicy {
  return {
    choose(candidates) {
      let best = 0
      for (let index = 1; index < candidates.length; index++) {
        const one = candidates[index]
        const other = candidates[best]
        const difference = one.flows + one.placed - other.flows - other.placed
        if (difference < 0 || (difference === 0 && one.busyPerMille < other.busyPerMille)) best = index
      }
      if (planted['load-for-runtime']) return candidates[best].flows + candidates[best].placed
      return best
    },
  }
}
