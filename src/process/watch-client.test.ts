/** Captures and traces of several nodes go on when one of them dies or stands still. */

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { ClusterFolder, startTicksOf } from './cluster-folder.ts'
import { LineRpcServer } from './line-rpc.ts'
import { WatchClient } from './watch-client.ts'

/** For so long a node remembers who does not ask. */
const LEASE_MS = 5_000

test('a node that is stopped is watched no more, before the others forget who watches them', async (context) => {
  const home = mkdtempSync(join(tmpdir(), 'nfactor-watch-'))
  const folder = new ClusterFolder(home)
  const { pid } = process
  const gaps: number[] = []
  let last = 0
  const servers = [11, 12].map((id) => {
    folder.noteProcess({ kind: 'runtime', id, name: `runtime-${id}`, incarnation: id, startedAt: 0, pid, startTicks: startTicksOf(pid) })
    return new LineRpcServer(folder.nodeSocket(id), {
      StartWatch: () => ({ watch: 1, ports: [] }),
      TakeWatch: () => {
        if (id === 12) return new Promise(() => undefined)
        if (last !== 0) gaps.push(performance.now() - last)
        last = performance.now()
        return { isOver: false }
      },
    })
  })
  for (const server of servers) await server.open()
  context.after(() => {
    for (const server of servers) server.close()
    rmSync(home, { recursive: true })
  })
  const client = WatchClient.among(folder)
  for (const node of client.nodes) await client.start(node, {})
  let rounds = 0
  await client.run<{ isOver: boolean }>(60, new AbortController().signal, () => undefined, () => ++rounds === 3)
  await client.close()
  assert.equal(gaps.length, 2)
  assert.ok(Math.max(...gaps) < LEASE_MS, `${Math.max(...gaps)} ms`)
})
