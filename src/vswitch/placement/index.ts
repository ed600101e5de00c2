/** The placement policies by name. */

import { leastLoaded } from './least-loaded.ts'
import type { PlacementPolicy } from './placement-policy.ts'
import { rendezvous } from './rendezvous.ts'
import { roundRobin } from './round-robin.ts'

export const placementPolicies = {
  'round-robin': roundRobin,
  'least-loaded': leastLoaded,
  rendezvous,
} as const satisfies Record<string, () => PlacementPolicy>

export type PlacementPolicyName = keyof typeof placementPolicies
