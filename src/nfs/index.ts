/**
 * The built-in network functions, by name. Each is loaded only when a chain asks for it.
 */

import type { AnyNfDefinition } from '../nf/definition.ts'

type Load = () => Promise<{ readonly default: AnyNfDefinition }>

export const builtInNfs: Readonly<Record<string, Load>> = {
  monitor: () => import('./monitor/monitor.ts'),
  firewall: () => import('./firewall/firewall.ts'),
  http: () => import('./http/http.ts'),
}
