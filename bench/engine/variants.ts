/**
 * The variants of the engine that the bench compares.
 *
 *     empty       no network function: receive, parse, find the flow, forward
 *     monitor, firewall, http, chain
 *     inlined     the chain as one hand-written function on the flat memory, without SDK, views and modules (inlined.ts)
 */

import { defaultTimeouts } from '../../src/base/limits.ts'
import type { Arena } from '../../src/memory/arena.ts'
import type { ChainMember } from '../../src/nf/chain.ts'
import type { AnyNfDefinition } from '../../src/nf/definition.ts'
import { createEngine, defaultPolicy, type Engine } from '../../src/runtime/engine.ts'
import { createInlined } from './inlined.ts'
import { standardRules } from './trace.ts'
import type { WorkerOptions } from './worker.ts'

export async function chainMembers(variant: string): Promise<ChainMember[]> {
  const names = variant === 'chain' || variant === 'inlined' ? ['monitor', 'firewall', 'http']
    : variant === 'empty' ? [] : [variant]
  const members: ChainMember[] = []
  for (const name of names) {
    const { default: definition } = await import(`../../src/nfs/${name}/${name}.ts`) as { default: AnyNfDefinition }
    const config: unknown = definition.config?.parse(name === 'firewall' ? { rules: standardRules() } : {}) ?? {}
    members.push({ definition, config })
  }
  return members
}

/** Enough for every HTTP flow, as far as the arena has room beside four million flows. */
function extentBytes(flows: number): number {
  return Math.min(flows * 400 + 4_194_304, 700_000_000)
}

export async function engineFor(arena: Arena, options: WorkerOptions): Promise<Engine> {
  const chain = await chainMembers(options.variant)
  const limits = {
    // A little more than there are flows: the limit is for flows, the table takes care of its own room.
    flows: Math.max(4096, Math.ceil(options.flows * 1.01)),
    unanswered: 65536,
    packets: 64,
    largePackets: 1,
    extentBytes: chain.at(-1)?.definition.name === 'http' ? extentBytes(options.flows) : 65536,
    recordBytes: 4 * 1024 * 1024,
    heldPerFlow: 64,
    aliases: 64,
    fragmentedDatagrams: 64,
    fragmentsHeld: 64,
    fragmentsHeldPerDatagram: 8,
  }
  const { wasm } = options
  // The bench uses no more of an engine than `InlinedEngine`.
  if (options.variant === 'inlined') return createInlined({ arena, chain, limits, seed: 1, wasm }) as Engine
  return createEngine({ arena, chain, limits, timeouts: defaultTimeouts, policy: defaultPolicy, seed: 1, wasm })
}
