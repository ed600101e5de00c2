/** What is left of a cluster ends, whatever has become of its files. */

import assert from 'node:assert/strict'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test, type TestContext } from 'node:test'
import { CodedError } from '../base/coded-error.ts'
import { readCluster } from './cluster-file.ts'
import { ClusterFolder, isRunning, startTicksOf, type ProcessEntry } from './cluster-folder.ts'
import { endProcesses } from './end-processes.ts'
import { LineRpcServer } from './line-rpc.ts'
import { endCluster, readIdentity, runCluster } from './supervisor.ts'
import { sleepers } from './testing/sleepers.ts'

const home = mkdtempSync(join(tmpdir(), 'nfactor-end-'))
after(() => { rmSync(home, { recursive: true, force: true }) })

let folders = 0
/** A folder with so many nodes that do nothing. */
async function clusterOf(context: TestContext, nodes: number): Promise<{ folder: ClusterFolder, entries: ProcessEntry[] }> {
  const folder = new ClusterFolder(join(home, `${++folders}`))
  folder.create()
  const entries: ProcessEntry[] = []
  for (let id = 11; id < 11 + nodes; id++) {
    const { pid, kill } = await sleepers.launch('runtime', '', '')
    context.after(() => { kill('SIGKILL') })
    const entry: ProcessEntry = { kind: 'runtime', id, name: `runtime-${id}`, incarnation: id, startedAt: 0, pid, startTicks: startTicksOf(pid) }
    folder.noteProcess(entry)
    entries.push(entry)
  }
  return { folder, entries }
}

test('a cluster ends also when the files that lead to its machines are gone', async (context) => {
  const { folder, entries } = await clusterOf(context, 1)
  const agent = { host: '127.0.0.1', port: 9, authority: 'gone.pem', clear: false }
  const spec = { ...await readCluster(undefined), machines: [{ name: 'one', interface: 'lo' }, { name: 'two', interface: 'lo', agent }] }
  writeFileSync(folder.clusterFile, JSON.stringify({ clusterId: 1, spec }))
  assert.deepEqual(await endCluster('one', folder), { killed: 0 })
  assert.deepEqual([entries.some(isRunning), existsSync(folder.path)], [false, false])
})

test('a cluster ends also when people have been at its files', async (context) => {
  for (const text of ['', 'null', '{}', '{"clusterId":1,"spec":{}}', '{"clusterId":1,"spec":{"machines":[{}]}}']) {
    const { folder, entries } = await clusterOf(context, 1)
    for (const [name, note] of [['a', 'null'], ['b', '7'], ['c', '{"pid":"1"}'], ['d', '{"pid":']]) {
      writeFileSync(join(folder.path, 'processes', `${name}.json`), note as string)
    }
    writeFileSync(folder.clusterFile, text)
    assert.throws(() => readIdentity(folder), (error) => error instanceof CodedError && error.code === 'NF_FILE_UNREADABLE')
    assert.deepEqual(await endCluster('two', folder), { killed: 0 })
    assert.deepEqual([entries.some(isRunning), existsSync(folder.path)], [false, false], text)
  }
})

test('a process that goes between look and signal does not keep the others', async (context) => {
  const { folder, entries } = await clusterOf(context, 2)
  const { kill } = process
  context.mock.method(process, 'kill', (pid: number, signal: NodeJS.Signals) => {
    kill(pid, signal)
    // As if it had gone before.
    if (pid === entries[0]?.pid) throw Object.assign(new Error('kill ESRCH'), { code: 'ESRCH' })
    return true
  })
  assert.equal(await endProcesses(folder), 0)
  assert.equal(entries.some(isRunning), false)
})

test('a cluster that is taken up again is not ended because something is wrong', async (context) => {
  // One of its nodes is not ready in time.
  const { folder, entries } = await clusterOf(context, 1)
  const spec = { ...await readCluster(undefined), controllers: 0 }
  writeFileSync(folder.clusterFile, JSON.stringify({ clusterId: 1, spec }))
  const status = { isReady: false, failure: null, nodes: [{ name: 'runtime-11', state: 'starting' }] }
  writeFileSync(folder.controllerFile(1), '{}')
  const controller = new LineRpcServer(folder.controllerSocket(1), { Leader: () => ({}), Status: () => status })
  await controller.open()
  context.after(() => { controller.close() })
  const stop = new AbortController()
  const ready = Promise.withResolvers<void>()
  const end = runCluster({ spec, folder, signal: stop.signal, readyMs: 100, onReady: () => { ready.resolve() } })
  await Promise.race([ready.promise, end])
  assert.ok(entries.every(isRunning) && existsSync(folder.clusterFile))
  stop.abort()
  await end
  assert.ok(!entries.some(isRunning), 'who is told to end it does')

  // The supervisor cannot begin.
  const second = await clusterOf(context, 1)
  writeFileSync(second.folder.clusterFile, JSON.stringify({ clusterId: 1, spec }))
  mkdirSync(join(second.folder.supervisorSocket, 'taken'), { recursive: true })
  await assert.rejects(runCluster({ spec, folder: second.folder }))
  assert.ok(second.entries.every(isRunning) && readFileSync(second.folder.clusterFile, 'utf8') !== '')
  rmSync(second.folder.supervisorSocket, { recursive: true })
  await endCluster('second', second.folder)
  assert.ok(!second.entries.some(isRunning))
})
