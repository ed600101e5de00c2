import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Random } from '../base/random.ts'
import type { AnyNfDefinition } from '../nf/definition.ts'
import { mutatePacket } from '../testing/mutate-packet.ts'
import { outcomeOf, firstDifference } from '../testing/run-outcome.ts'
import { runPackets } from '../testing/run-packets.ts'
import { syntheticTraces } from '../testing/synthetic-traces.ts'
import { fastPathBinary } from './fast-path-binary.ts'
import firewall from './firewall/firewall.ts'
import http from './http/http.ts'
import monitor from './monitor/monitor.ts'

const chains: Record<string, { definition: AnyNfDefinition; config: unknown }[]> = {
  'monitor-firewall-http': [monitor, firewall, http].map(withDefaults),
  'http alone': [withDefaults(http)],
  'a chain in another order': [http, monitor].map(withDefaults),
  'strict firewall': [withDefaults(monitor), {
    definition: firewall,
    config: firewall.config?.parse({ rules: ['drop udp to port 53'], tracking: { invalid: 'drop', midStream: 'drop' } }),
  }],
  'firewall without tracking': [{ definition: firewall, config: firewall.config?.parse({ tracking: { enabled: false } }) },
    withDefaults(http)],
}

function withDefaults(definition: AnyNfDefinition): { definition: AnyNfDefinition; config: unknown } {
  return { definition, config: definition.config?.parse({}) ?? {} }
}

for (const [name, chain] of Object.entries(chains)) {
  test(`the fast path gives what the chain gives: ${name}`, () => {
    for (const seed of [1, 2]) {
      const random = new Random(seed)
      for (const trace of syntheticTraces(seed)) {
        const damaged = trace.packets.map((packet) => (random.chance(0.1) ? mutatePacket(packet, random) : packet))
        for (const packets of [trace.packets, damaged]) {
          for (const limits of [{}, { flows: 3 }]) {
            const run = (wasm: boolean) => {
              const result = runPackets(chain, packets, { wasm, limits, policy: { whenFull: 'evict' } })
              const { counters, dropReasons, statistics } = result
              const outcome = outcomeOf(result.outputs, result.flows, result.records)
              return { outcome, counts: { counters, dropReasons, statistics } }
            }
            const expected = run(false)
            const found = run(true)
            assert.equal(firstDifference(expected.outcome, found.outcome), '', `${trace.name}, seed ${seed}`)
            assert.deepEqual(found.counts, expected.counts, `${trace.name}, seed ${seed}`)
          }
        }
      }
    }
  })
}

test('the embedded kernel is what its source compiles to', async (t) => {
  const build = await import('../../scripts/build-kernels.ts').catch(() => null)
  if (build === null) return t.skip('AssemblyScript is not installed')
  const module = build.modules.find((one) => one.name === 'fastPathBinary') as (typeof build.modules)[number]
  const binary = await build.compileKernels(module)
  assert.equal(Buffer.from(binary).toString('base64'), fastPathBinary, 'run `node scripts/build-kernels.ts`')
})
