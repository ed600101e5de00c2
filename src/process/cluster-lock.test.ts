/**
 * Who holds a cluster: one at a time, and nobody else touches what it has made.
 */

import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { CodedError } from '../base/coded-error.ts'
import { readCluster } from './cluster-file.ts'
import { ClusterFolder } from './cluster-folder.ts'
import { ClusterLock } from './cluster-lock.ts'
import { endCluster, runCluster } from './supervisor.ts'

const home = mkdtempSync(join(tmpdir(), 'nfactor-lock-'))
after(() => { rmSync(home, { recursive: true, force: true }) })

const isCode = (code: string) => (error: unknown): boolean => error instanceof CodedError && error.code === code

function take(folder: ClusterFolder): ClusterLock {
  const lock = ClusterLock.take(folder)
  assert.ok(lock !== undefined)
  return lock
}

test('one has the lock at a time, and nothing is left of it', () => {
  const folder = new ClusterFolder(join(home, 'one'))
  const lock = take(folder)
  assert.equal(ClusterLock.take(folder), undefined)
  // Somebody has removed the file: then it locks nothing, also for who has it open.
  rmSync(folder.lockFile)
  const next = take(folder)
  lock.release()
  assert.equal(ClusterLock.take(folder), undefined)
  next.release()
  assert.equal(existsSync(folder.lockFile), false)
})

test('who begins or ends a cluster that another is about to start leaves its folder alone', async () => {
  const spec = { ...await readCluster(undefined), name: 'two' }
  const folder = new ClusterFolder(join(home, 'two'))
  const lock = take(folder)
  folder.create()
  const made = join(folder.path, 'made')
  writeFileSync(made, '')
  await assert.rejects(runCluster({ spec, folder, signal: AbortSignal.timeout(3_000) }), isCode('NF_CLUSTER_RUNNING'))
  await assert.rejects(endCluster('two', folder), isCode('NF_CLUSTER_NOT_RUNNING'))
  assert.equal(existsSync(made), true)
  lock.release()
  await assert.rejects(endCluster('two', folder), isCode('NF_CLUSTER_NOT_RUNNING'))
  assert.equal(existsSync(folder.path), false)
  assert.equal(existsSync(folder.lockFile), false)
})

test('who is told to end before it has begun starts nothing', async () => {
  const spec = { ...await readCluster(undefined), name: 'three' }
  // It could not be started.
  Object.assign(spec, { ingress: { type: 'capture', input: 'missing.pcap', speed: 1 } })
  const folder = new ClusterFolder(join(home, 'three'))
  await runCluster({ spec, folder, signal: AbortSignal.abort() })
  assert.equal(folder.isThere, false)
})
