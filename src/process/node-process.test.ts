/**
 * Node processes without a supervisor: what they take, and how they end.
 */

import assert from 'node:assert/strict'
import { spawn, type ChildProcess } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import type { ClusterConfig } from '../messages/cluster-config.ts'
import { callOnce } from './line-rpc.ts'
import { childEnvironment, programArguments } from './node-launcher.ts'
import { NodeExit } from './node-process.ts'
import type { NodeStatus } from './node-status.ts'

const skip = process.platform === 'linux' ? false : 'ports to real links need Linux'
const folder = mkdtempSync(join(tmpdir(), 'nfactor-node-'))
const children: ChildProcess[] = []
after(() => {
  for (const child of children) child.kill('SIGKILL')
  rmSync(folder, { recursive: true })
})

interface Running {
  readonly child: ChildProcess
  readonly ended: Promise<{ status: number | null, stderr: string }>
}

function start(kind: string, config: object): Running {
  const file = join(folder, `${children.length}.json`)
  writeFileSync(file, JSON.stringify(config))
  const child = spawn(process.execPath, [...programArguments, kind, file], { stdio: ['ignore', 'ignore', 'pipe'], env: childEnvironment() })
  children.push(child)
  let stderr = ''
  child.stderr?.setEncoding('utf8').on('data', (text: string) => { stderr += text })
  return { child, ended: new Promise((resolve) => { child.on('close', (status) => { resolve({ status, stderr }) }) }) }
}

const limits = { flows: 4096, packets: 1024, largePackets: 8, extentBytes: 65_536 }
const run = join(folder, 'run.json')
writeFileSync(run, JSON.stringify({ chain: ['monitor'], limits }))
const common = { clusterId: 7, folder }
const ingress = { kind: 'switch', id: 1, name: 'ingress', incarnation: 1, external: { type: 'none' }, ...common }
const runtime = { kind: 'runtime', id: 11, name: 'runtime-1', incarnation: 2, run, ...common }
const cluster = (version: number, life: number): ClusterConfig => ({
  version, clusterId: 7, switches: [{ id: 1, incarnation: 1, side: 'ingress', isHome: true }],
  runtimes: [{ id: 11, incarnation: life, isDraining: false }],
})

async function ask<T>(id: number, method: string, params: Record<string, unknown> = {}): Promise<T> {
  for (const end = performance.now() + 20_000; ;) {
    try {
      return await callOnce<T>(join(folder, `${id}.sock`), method, params)
    } catch (error) {
      if (performance.now() > end || !/nobody answers/.test((error as Error).message)) throw error
      await new Promise((resolve) => { setTimeout(resolve, 20) })
    }
  }
}

async function untilReady(id: number): Promise<NodeStatus> {
  for (const end = performance.now() + 20_000; ;) {
    const status = await ask<NodeStatus>(id, 'GetStatus')
    if (status.isReady) return status
    assert.ok(performance.now() < end, JSON.stringify(status))
    await new Promise((resolve) => { setTimeout(resolve, 20) })
  }
}

test('a switch and a runtime meet, take newer configurations alone, and end as they should', { skip, timeout: 60_000 }, async () => {
  const nodes = { switch: start('switch', ingress), runtime: start('runtime', runtime) }
  await ask(11, 'GetStatus')
  await assert.rejects(ask(11, 'SetMigrationTarget', { target: 12, number: 1 }), { code: 'NF_CLUSTER' })
  await assert.rejects(ask(1, 'NotifyClusterConfig', { config: { version: 1 } }), { code: 'NF_CONFIG_INVALID' })
  assert.deepEqual(await ask(11, 'NotifyClusterConfig', { config: { ...cluster(1, 2), clusterId: 8 } }),
    { accepted: false, code: 'NF_OTHER_CLUSTER' })
  // Another life's configuration is no reason to end before there was one of this life.
  assert.deepEqual(await ask(11, 'NotifyClusterConfig', { config: cluster(1, 9) }), { accepted: false, code: 'NF_FENCED' })
  assert.deepEqual(await ask(11, 'NotifyClusterConfig', { config: cluster(2, 2) }), { accepted: true, code: '' })
  assert.deepEqual(await ask(1, 'NotifyClusterConfig', { config: cluster(2, 2) }), { accepted: true, code: '' })
  const [first, second] = [await untilReady(1), await untilReady(11)]
  assert.deepEqual([first.configVersion, second.configVersion, second.links.length], [2, 2, 1])
  assert.deepEqual(await ask(11, 'NotifyClusterConfig', { config: cluster(2, 2) }), { accepted: false, code: 'NF_CONFIG_OLD' })
  assert.deepEqual(await ask(11, 'SetMigrationTarget', { target: 12, number: 1 }), { accepted: false, code: 'NF_MOVE_UNKNOWN_RUNTIME' })

  assert.deepEqual(await ask(11, 'NotifyClusterConfig', { config: cluster(3, 5) }), { accepted: false, code: 'NF_FENCED' })
  const fenced = await nodes.runtime.ended
  assert.equal(fenced.status, NodeExit.fenced)
  assert.match(fenced.stderr, /^runtime-1 \(incarnation 2\) has been fenced(; it has stood still for \d+ ms.*)?\n$/)

  // The next life finds the switch by itself. It is stopped for a while, and says so when it is fenced.
  const stopped = start('runtime', { ...runtime, incarnation: 5 })
  await ask(11, 'NotifyClusterConfig', { config: cluster(3, 5) })
  await ask(1, 'NotifyClusterConfig', { config: cluster(3, 5) })
  await untilReady(11)
  stopped.child.kill('SIGSTOP')
  setTimeout(() => { stopped.child.kill('SIGCONT') }, 700)
  assert.deepEqual(await ask(11, 'NotifyClusterConfig', { config: cluster(4, 6) }), { accepted: false, code: 'NF_FENCED' })
  const { status, stderr } = await stopped.ended
  const [, ms] = /^runtime-1 \(incarnation 5\) has been fenced; it has stood still for (\d+) ms/.exec(stderr) ?? []
  assert.ok(status === NodeExit.fenced && Number(ms) > 500, stderr)

  const next = start('runtime', { ...runtime, incarnation: 6 })
  await ask(11, 'NotifyClusterConfig', { config: cluster(4, 6) })
  await ask(1, 'NotifyClusterConfig', { config: cluster(4, 6) })
  await untilReady(11)
  next.child.kill('SIGTERM')
  assert.deepEqual(await next.ended, { status: NodeExit.ended, stderr: '' })
  await ask(1, 'Shutdown')
  assert.deepEqual(await nodes.switch.ended, { status: NodeExit.ended, stderr: '' })
  assert.deepEqual(readdirSync(folder).filter((name) => !name.endsWith('.json')), [], 'no socket is left')
})

test('a node that waits for its links ends at once when it is told to, or fenced', { skip, timeout: 60_000 }, async () => {
  const next = { ...cluster(2, 2), switches: [{ id: 1, incarnation: 9, side: 'ingress', isHome: true }] }
  for (const tell of [(child: ChildProcess) => child.kill('SIGTERM'), () => ask(1, 'NotifyClusterConfig', { config: next })]) {
    const { child, ended } = start('switch', ingress)
    await ask(1, 'NotifyClusterConfig', { config: cluster(1, 2) })
    await new Promise((resolve) => { setTimeout(resolve, 50) })
    const began = performance.now()
    await tell(child)
    const { status } = await ended
    assert.ok(status === NodeExit.ended || status === NodeExit.fenced, String(status))
    assert.ok(performance.now() - began < 1200, `${performance.now() - began} ms`)
  }
})

test('a file that is wrong is refused in one line', { skip, timeout: 60_000 }, async () => {
  const cases: [string, object, RegExp][] = [
    ['runtime', ingress, /^error NF_CONFIG_INVALID: .* is for a switch\. Run nfactor switch /],
    ['runtime', { ...runtime, incarnation: 0 }, /^error NF_CONFIG_INVALID: .*:1:\d+: incarnation must/],
    ['switch', { ...ingress, extern: 1 }, /^error NF_CONFIG_INVALID: .*no key "extern"/],
    ['runtime', { ...runtime, run: join(folder, 'none.json') }, /^error NF_FILE_NOT_FOUND: /],
    ['switch', { ...ingress, folder: `/tmp/${'x'.repeat(100)}` }, /^error NF_CONFIG_INVALID: .*too long for a socket/],
  ]
  const results = await Promise.all(cases.map(([kind, config]) => start(kind, config).ended))
  results.forEach(({ status, stderr }, index) => {
    assert.equal(status, NodeExit.failed)
    assert.match(stderr, cases[index][2])
    assert.equal(stderr.trim().split('\n').length, 1, stderr)
  })
  assert.ok(!existsSync(join(folder, '1.sock')))
})
