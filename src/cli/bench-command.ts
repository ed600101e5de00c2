/**
 * `nfactor bench`: the benches are programs of the source tree, next to `src`; packages do not carry them.
 */

import { existsSync } from 'node:fs'
import { CodedError } from '../base/coded-error.ts'
import { asUsageError } from './bench-program.ts'
import { ExitStatus } from './exit-status.ts'

/** The benches by name: what each measures, and where it is. */
export const benches = {
  engine: { about: 'the engine alone, in memory, against its twin in C', file: 'engine/main.ts' },
  transport: { about: 'messages between two nodes, against a plain copy', file: 'transport/main.ts' },
  switch: { about: 'a virtual switch against a runtime; what a flow costs it, and what stays behind', file: 'vswitch/main.ts' },
  migration: { about: 'CPU time per flow that moves from one runtime to another', file: 'cluster/migration.ts' },
  cluster: { about: 'processes on real links: throughput, latency, moves and recovery, against DPDK', file: 'cluster/links.ts' },
  replication: { about: 'what replicas cost: CPU time and memory, TCP and pings through processes', file: 'cluster/replication.ts' },
} as const

export async function benchCommand(name: keyof typeof benches, args: readonly string[]): Promise<number> {
  const file = new URL(`../../bench/${benches[name].file}`, import.meta.url)
  if (!existsSync(file)) {
    throw new CodedError('NF_BENCH', 'the benches are not part of the installed package', 'Run this in the source tree')
  }
  const { main } = await import(file.href) as { main(args: readonly string[]): Promise<number | void> }
  try {
    return await main(args) ?? ExitStatus.ok
  } catch (error) {
    throw asUsageError(error, `See nfactor bench ${name} -- --help`)
  }
}
