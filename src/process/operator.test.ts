/** What people ask of a cluster, with nodes that are played. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ControllerProcess } from './controller-process.ts'
import type { RpcParams } from './line-rpc.ts'
import { operatorMethods, type ClusterFlow } from './operator.ts'

/** A controller with one runtime. */
function hostOf(call: (method: string, params: RpcParams) => unknown): ControllerProcess {
  const runtime = { id: 11, incarnation: 1, chain: 1, health: 'well', hasEnded: false, report: { kind: 'runtime' } }
  return {
    leaderView: () => ({ runtimes: [runtime], switches: [], starting: [] }), nameOf: () => 'runtime-1',
    connections: { call: async (_id: number, _name: string, method: string, params: RpcParams) => call(method, params) },
  } as unknown as ControllerProcess
}

test('replicas of many flows are asked for in pieces that a request can hold', async () => {
  const flows = Array.from({ length: 90_000 }, (_, i) => ({ flow: 2 ** 52 + i }))
  const lengths: number[] = []
  const { Flows } = operatorMethods(hostOf((method, params) => {
    lengths.push(JSON.stringify(params).length)
    if (method === 'ListFlows') return { total: flows.length, flows }
    return (params.flows as number[]).map((flow) => ({ flow, epoch: 1, packets: 1, bytes: 1, state: {} }))
  }))
  const list = await Flows?.({ limit: 100_000, state: true }) as { total: number, flows: ClusterFlow[] }
  assert.deepEqual([list.flows.length, list.flows.filter(({ replicas }) => replicas?.length === 1).length], [90_000, 90_000])
  assert.ok(Math.max(...lengths) < 1 << 19, `${Math.max(...lengths)} characters`)
})
