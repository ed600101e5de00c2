/**
 * All fuzz targets, by name.
 */

import { captures } from './captures.ts'
import { chain } from './chain.ts'
import { firewallRules } from './firewall-rules.ts'
import type { FuzzTarget } from './fuzz-target.ts'
import { httpMessages } from './http.ts'
import { packets } from './packets.ts'
import { snapshots } from './snapshots.ts'

export const fuzzTargets: readonly FuzzTarget[] = [captures, packets, chain, httpMessages, snapshots, firewallRules]
