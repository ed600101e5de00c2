/** Connections of a controller to node processes, with nodes that are played: which process is, or was, which life. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { NodeConnections, type NodeClient, type NodePlace } from './node-connections.ts'

test('lives of processes are bounded: the one that was noted first is forgotten', async () => {
  const clients: NodeClient[] = []
  const ids = Array.from({ length: 250 }, (_, i) => i + 1)
  let round = 0
  const pidOf = (id: number, life: number): number => life * 1000 + id
  const place: NodePlace = {
    nodeIds: () => ids,
    connect: (id) => {
      const status = { id, kind: 'runtime', pid: pidOf(id, round), startTicks: 1, incarnation: pidOf(id, round) }
      const client: NodeClient = { onClose: undefined, close: () => undefined,
        call: <T>(method: string) => (method === 'GetStatus' ? Promise.resolve(status as T) : new Promise<T>(() => undefined)) }
      clients.push(client)
      return Promise.resolve(client)
    },
    processOf: ({ pid }) => pid,
  }
  const connections = new NodeConnections({ places: [place], controller: 'one', onReport: () => undefined, onHello: () => undefined })
  for (round = 1; round <= 5; round++) {
    for (const end = performance.now() + 10_000; ids.some((id) => connections.node(id) === undefined);) {
      assert.ok(performance.now() < end)
      connections.look()
      await new Promise((resolve) => { setImmediate(resolve) })
    }
    for (const client of clients.splice(0)) client.onClose?.()
  }
  const isKnown = (id: number, pid: number): boolean => connections.incarnationOf({ id, pid }) === pid
  const known = [1, 2, 3, 4, 5].map((life) => ids.filter((id) => isKnown(id, pidOf(id, life))).length)
  assert.deepEqual(known, [1024 - 4 * 250, 250, 250, 250, 250])
  connections.close()
})
