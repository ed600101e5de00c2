/** Command sender: what is sent again, and what is remembered of it. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ClusterView, RuntimeView } from './cluster-view.ts'
import { CommandSender } from './command-sender.ts'

function viewOf(now: number, incarnations: readonly number[]): ClusterView {
  const runtimes = incarnations.map((incarnation): RuntimeView => ({ id: incarnation, incarnation, isDraining: false, chain: 1, health: 'well',
    hasEnded: false, silenceUs: 0, unheardBy: [], report: null, refused: 0 }))
  return {
    now, term: 1, rollout: undefined, replicas: { version: 0, of: {} }, fences: [], blocks: new Map(), switches: [], runtimes, starting: [],
    machines: [],
    scale: { desired: 1, isAutomatic: false, decision: 1, decidedAt: 0, chain: 1, starting: [], held: [], leaving: [] },
    cluster: { generation: 1, incarnation: 99, chains: {}, config: { version: 1, clusterId: 1, switches: [], runtimes: [] } },
  }
}

test('a command is sent again after a while; of lives that are gone nothing is remembered, but of those that still speak', () => {
  const sent: string[] = []
  const sender = new CommandSender({ send: (_node, incarnation, { kind }) => { sent.push(`${kind} ${incarnation}`) } })
  const take = (): string[] => sent.splice(0)
  sender.send(viewOf(0, [11, 12]), [], [])
  sender.welcome(1, 'x', 5, 1, 0)
  assert.deepEqual([take(), sender.size], [['configure 11', 'configure 12', 'welcome 0'], 3])
  sender.send(viewOf(100_000, [11, 12]), [], [])
  assert.deepEqual(take(), [])
  sender.send(viewOf(200_000, [11, 12]), [], [])
  assert.deepEqual(take(), ['configure 11', 'configure 12'])
  // Life after life comes and goes.
  for (let incarnation = 13; incarnation < 1000; incarnation++) {
    sender.send(viewOf(300_000, [11, incarnation]), [{ node: 9, incarnation: incarnation - 1 }], [])
    assert.equal(sender.size, 4)
  }
  take()
  sender.welcome(1, 'x', 5, 1, 100_000)
  assert.deepEqual(take(), [], 'a switch that has no life yet is none of those')
})
