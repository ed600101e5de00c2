/**
 * The cluster folder: who it belongs to, and what becomes of files whose writing fails.
 */

import assert from 'node:assert/strict'
import { chmodSync, chownSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import type { CodedError } from '../base/coded-error.ts'
import { ClusterFolder, startTicksOf } from './cluster-folder.ts'

const home = mkdtempSync(join(tmpdir(), 'nfactor-folder-'))
after(() => { rmSync(home, { recursive: true, force: true }) })

const notRoot = process.getuid?.() === 0 ? false : 'only root can give a folder to somebody else'
const modeOf = (path: string): number => statSync(path).mode & 0o7777

test('a folder is for its owner alone, and what it is in stays as it is', () => {
  const base = join(home, 'shared')
  mkdirSync(base)
  chmodSync(base, 0o755)
  const folder = new ClusterFolder(join(base, 'web'))
  folder.createBase()
  assert.equal(modeOf(base), 0o755)
  folder.create()
  assert.equal(modeOf(base), 0o755)
  assert.equal(modeOf(folder.path), 0o700)
  const deep = new ClusterFolder(join(home, 'new', 'web'))
  deep.createBase()
  assert.equal(modeOf(join(home, 'new')), 0o700)
})

test('a folder is not made where others could put another in its place', { skip: notRoot }, () => {
  const base = join(home, 'foreign')
  mkdirSync(base)
  const folder = new ClusterFolder(join(base, 'web'))
  const refused = (why: RegExp): void => {
    assert.throws(() => { folder.create() }, (error: CodedError) => error.code === 'NF_FILE_UNWRITABLE' && why.test(error.message))
  }
  chmodSync(base, 0o777)
  refused(/anybody can change what is in/)
  chmodSync(base, 0o1777)
  folder.create()
  chmodSync(base, 0o755)
  chownSync(base, 12_345, 12_345)
  refused(/belongs to somebody else/)
})

test('a file that cannot be written leaves nothing, and says why in one line', () => {
  const folder = new ClusterFolder(join(home, 'files'))
  folder.create()
  const path = join(folder.path, 'file')
  folder.write(path, 'one')
  assert.equal(modeOf(path), 0o600)
  // Another process is writing the same file.
  writeFileSync(`${path}.new`, 'half')
  folder.write(path, 'two')
  assert.deepEqual([readFileSync(path, 'utf8'), readFileSync(`${path}.new`, 'utf8')], ['two', 'half'])
  rmSync(`${path}.new`)
  mkdirSync(join(folder.path, 'taken'))
  for (const place of ['taken', 'nowhere/file']) {
    assert.throws(() => { folder.write(join(folder.path, place), 'text') }, (error: CodedError) => error.code === 'NF_FILE_UNWRITABLE')
  }
  assert.deepEqual(readdirSync(folder.path).toSorted(), ['file', 'taken'])
})

test('a life is claimed once, and notes of lives that are over do not add up', () => {
  const folder = new ClusterFolder(join(home, 'lives'))
  folder.create()
  const notes = (): string[] => readdirSync(join(folder.path, 'processes')).toSorted()
  const note = (name: string, incarnation: number, startTicks: number): void => {
    folder.noteProcess({ kind: 'runtime', id: 11, name, incarnation, startedAt: 0, pid: process.pid, startTicks })
  }
  const living = startTicksOf(process.pid)
  for (let life = 1; life <= 100; life++) {
    assert.equal(folder.claimLife('runtime-1', life), true)
    assert.equal(folder.claimLife('runtime-1', life), false, 'it has been claimed')
    note('runtime-1', life, life === 50 ? living : living + 1)
  }
  assert.equal(folder.claimLife('runtime-1', 7), false, 'another life is there')
  assert.equal(folder.claimLife('runtime-11', 8), true, 'of another node')
  assert.deepEqual(notes(), ['runtime-1-100.json', 'runtime-1-50.json', 'runtime-11-8.json'])
  assert.deepEqual(folder.livingProcesses().map(({ incarnation }) => incarnation), [50])
  assert.equal(folder.claimLife('runtime-11', 9), true)
  assert.equal(notes().includes('runtime-11-8.json'), true, 'somebody may be about to start it')
})
