/** A process in stock becomes the node that it is told to be, with its output in that node's log; one that is not needed ends. */

import assert from 'node:assert/strict'
import { spawn, type ChildProcess } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { LaunchedNode, NodeLauncher } from './node-launcher.ts'
import { WarmLauncher } from './warm-launcher.ts'

const skip = process.platform !== 'linux' && 'processes in stock need Linux'

test('a process in stock takes the place of a start', { skip, timeout: 60_000 }, async (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'nfactor-warm-'))
  const cold: string[] = []
  const other: NodeLauncher = {
    name: 'process',
    launch: (kind) => {
      cold.push(kind)
      return Promise.resolve({} as LaunchedNode)
    },
  }
  const launcher = new WarmLauncher(other, 0)
  context.after(async () => {
    await launcher.close()
    rmSync(folder, { recursive: true })
  })
  const warm = async (): Promise<void> => {
    for (const end = performance.now() + 30_000; !launcher.isWarm; await sleep(10)) {
      launcher.keepWarm()
      assert.ok(performance.now() < end, 'it has loaded')
    }
  }
  await launcher.launch('switch', 'a', 'a')
  await launcher.launch('runtime', 'b', 'b')
  assert.deepEqual(cold, ['switch', 'runtime'])
  await warm()
  const [file, log] = [join(folder, 'node.json'), join(folder, 'node.log')]
  writeFileSync(file, JSON.stringify({ kind: 'switch', id: 0 }))
  const { ended, pid } = await launcher.launch('switch', file, log)
  assert.ok(pid > 0 && !launcher.isWarm)
  const end = await ended
  assert.ok(end !== undefined)
  const { status, signal, lastLines } = end
  assert.deepEqual([status, signal, cold.length], [1, null, 2])
  assert.match(lastLines, /^error NF_CONFIG_INVALID: .*node\.json/)
  assert.equal(readFileSync(log, 'utf8').trim(), lastLines)
  await warm()
  // What yields to those that work does not start beside them: it waits for the next spare, for as long as somebody makes one.
  const keeping = setInterval(() => { launcher.keepWarm() }, 10)
  const started = await Promise.all([launcher.launch('runtime', file, log, true), launcher.launch('runtime', file, log, true)])
  clearInterval(keeping)
  assert.deepEqual([started.every((one) => one.pid > 0), cold.length], [true, 2])
  for (const one of started) await one.ended
  await sleep(1100)
  await launcher.launch('runtime', file, log, true)
  assert.equal(cold.length, 3)
  assert.equal(await launcher.close(), undefined)
})

test('where no process can be had for stock, whoever would start one goes on without', { skip }, async (context) => {
  const cold: string[] = []
  const other: NodeLauncher = { name: 'process', launch: (kind) => (cold.push(kind), Promise.resolve({} as LaunchedNode)) }
  // Out of memory, it throws; out of descriptors, there is a child without a number, and an error later.
  const failures: (() => ChildProcess)[] = [() => { throw new Error('spawn ENOMEM') }, () => spawn('/nowhere/no-program')]
  for (const spawnOne of failures) {
    let tries = 0
    const launcher = new WarmLauncher(other, 0, () => (tries++, spawnOne()))
    context.after(() => launcher.close())
    for (let turn = 0; turn < 5; turn++) launcher.keepWarm()
    assert.deepEqual([tries, launcher.isWarm], [1, false], 'once, and again only after a while')
    await launcher.launch('switch', 'a', 'a')
    await sleep(10)
  }
  assert.deepEqual(cold, ['switch', 'switch'])
})
