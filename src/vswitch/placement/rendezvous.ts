/**
 * Rendezvous hashing: the same key goes to the same runtime as long as that is there, on every switch and after every restart.
 * Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998.
 */

import type { PlacementPolicy } from './placement-policy.ts'

export function rendezvous(): PlacementPolicy {
  return {
    choose(candidates, keyHash) {
      let best = 0
      let bestScore = -1
      for (let index = 0; index < candidates.length; index++) {
        let score = Math.imul(keyHash ^ Math.imul(candidates[index].id, 0x9e3779b1), 0x85ebca6b)
        score = Math.imul(score ^ (score >>> 15), 0xc2b2ae35)
        score = (score ^ (score >>> 13)) >>> 0
        if (score > bestScore) {
          best = index
          bestScore = score
        }
      }
      return best
    },
  }
}
