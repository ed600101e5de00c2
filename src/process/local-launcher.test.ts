/**
 * What the local launcher does where the machine does not do as it should: its clock is set, its disk is full, a process goes between two looks.
 * What it is to do otherwise is in launcher-contract.test.ts.
 */

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test, type TestContext } from 'node:test'
import { CodedError } from '../base/coded-error.ts'
import { ageOf, ClusterFolder, startTime, type ProcessEntry } from './cluster-folder.ts'
import type { RuntimeMember, SwitchMember } from './cluster-members.ts'
import { LocalLauncher } from './local-launcher.ts'
import type { LaunchedNode, NodeEnd, NodeLauncher } from './node-launcher.ts'
import { sleepers } from './testing/sleepers.ts'

const home = mkdtempSync(join(tmpdir(), 'nfactor-local-'))
after(() => { rmSync(home, { recursive: true, force: true }) })

const PATIENCE_MS = 10_000

async function until<T>(what: string, look: () => T | undefined | false): Promise<T> {
  for (const end = performance.now() + PATIENCE_MS; performance.now() < end;) {
    const found = look()
    if (found !== undefined && found !== false) return found
    await new Promise((next) => { setTimeout(next, 5) })
  }
  return assert.fail(`waited in vain: ${what}`)
}

let folders = 0

/** A launcher whose nodes are processes that sleep. */
class Bench {
  readonly folder = new ClusterFolder(join(home, `${++folders}`))
  readonly launched: LaunchedNode[] = []
  readonly started: ProcessEntry[] = []
  readonly ended: { readonly entry: ProcessEntry, readonly end: NodeEnd | undefined }[] = []
  readonly launcher: LocalLauncher

  constructor(context: TestContext) {
    this.folder.create()
    const common = { clusterId: 1, folder: this.folder.path, seed: 1 }
    const member: SwitchMember = { kind: 'switch', ...common, id: 1, name: 'ingress', external: { type: 'none' }, externalFolder: home,
      placement: 'round-robin', limits: {} }
    const launch: NodeLauncher['launch'] = async (...order) => {
      const one = await sleepers.launch(...order)
      this.launched.push(one)
      return one
    }
    this.launcher = new LocalLauncher({
      folder: this.folder, launcher: { ...sleepers, launch }, switches: [member],
      runtime: (id, incarnation): RuntimeMember => ({ kind: 'runtime', ...common, id, incarnation, name: `runtime-${id}`, chainVersion: 1,
        replication: 'none', replicas: 1 }),
      onStarted: (entry) => { this.started.push(entry) },
      onEnded: (entry, end) => { this.ended.push({ entry, end }) },
    })
    context.after(() => { for (const one of this.launched) one.kill('SIGKILL') })
  }

  /** Starts the switch, for the time of this number. */
  async start(times: number): Promise<ProcessEntry> {
    return await until('the switch is started', () => {
      this.launcher.tick()
      this.launcher.startSwitches(1)
      return this.started[times - 1]
    })
  }
}

test('a node that dies is started again also when the time of day has gone back', async (context) => {
  const bench = new Bench(context)
  const first = await bench.start(1)
  assert.ok(bench.launcher.kill(first.pid, 'SIGKILL'))
  await until('its end', () => bench.ended.length === 1)
  const { now } = Date
  context.mock.method(Date, 'now', () => now() - 3_600_000)
  const second = await bench.start(2)
  assert.ok(ageOf(second) < PATIENCE_MS)
  assert.equal(ageOf({ startedAt: startTime() + 3_600_000 }), 0, 'noted before the clock was set')
})

test('a node that cannot end does not keep its next life out', async (context) => {
  const bench = new Bench(context)
  const life = (incarnation: number): number => bench.started.find((one) => one.incarnation === incarnation)?.pid ?? 0
  const start = (incarnation: number): Promise<number> => until(`life ${incarnation}`, () => {
    bench.launcher.tick()
    bench.launcher.startRuntime(1, { id: 12, incarnation, chain: 1 })
    return life(incarnation) !== 0 && life(incarnation)
  })
  const first = await start(2)
  const other = await until('another node', () => {
    bench.launcher.startRuntime(1, { id: 13, incarnation: 3, chain: 1 })
    return life(3) !== 0 && life(3)
  })
  const began = performance.now()
  await start(6)
  assert.deepEqual(bench.ended.map(({ entry, end }) => [entry.pid, end?.signal]), [[first, 'SIGKILL']])
  assert.ok(performance.now() - began >= 240, 'it has had a moment to end by itself')
  assert.deepEqual(bench.launcher.running().map(({ incarnation }) => incarnation).toSorted(), [3, 6])
  assert.ok(other !== 0)
  // An order of before, that comes late, ends nothing.
  bench.launcher.startRuntime(1, { id: 12, incarnation: 2, chain: 1 })
  assert.equal(bench.ended.length, 1)
})

test('what cannot be written is an end like others, and is tried again', async (context) => {
  const bench = new Bench(context)
  const { folder, launcher, ended } = bench
  const fault = (): never => { throw new CodedError('NF_FILE_UNWRITABLE', 'the disk is full') }
  const term = context.mock.method(folder, 'write', fault)
  launcher.startSwitches(1)
  assert.deepEqual([bench.launched.length, ended.length], [0, 0], 'whose term cannot be noted does not act')
  term.mock.restore()
  folder.write(folder.termFile, '1')
  const file = context.mock.method(folder, 'write', fault)
  launcher.startSwitches(1)
  await until('its end', () => ended.length === 1)
  assert.deepEqual([ended[0]?.entry.pid, ended[0]?.end?.lastLines], [0, 'error NF_FILE_UNWRITABLE: the disk is full'])
  file.mock.restore()
  const note = context.mock.method(folder, 'noteProcess', fault)
  const first = await bench.start(1)
  await until('that of a process that nobody else knows of', () => ended.length === 2)
  assert.deepEqual([ended[1]?.entry.pid, ended[1]?.end?.signal], [first.pid, 'SIGKILL'])
  note.mock.restore()
  const second = await bench.start(2)
  assert.deepEqual(folder.livingProcesses().map(({ pid }) => pid), [second.pid])
})
