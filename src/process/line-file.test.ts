import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { CodedError } from '../base/coded-error.ts'
import { LineFile } from './line-file.ts'

const folder = mkdtempSync(join(tmpdir(), 'nfactor-line-file-'))
after(() => rmSync(folder, { recursive: true }))

test('lines come out as they went in, also across blocks', () => {
  const path = join(folder, 'lines')
  const file = new LineFile(path)
  const lines = Array.from({ length: 5000 }, (_, i) => `line ${i} ${'é'.repeat(i % 50)}`)
  for (const line of lines) file.write(line)
  assert.equal(file.lineCount, 5000)
  file.close()
  file.close()
  file.write('ignored')
  assert.equal(readFileSync(path, 'utf8'), `${lines.join('\n')}\n`)
})

test('flush lets others read what there is', () => {
  const path = join(folder, 'flushed')
  const file = new LineFile(path)
  file.write('one')
  assert.equal(statSync(path).size, 0)
  file.flush()
  assert.equal(readFileSync(path, 'utf8'), 'one\n')
  file.close()
})

test('what cannot be written says why', () => {
  const missing = assertUnwritable(() => new LineFile(join(folder, 'no', 'file')))
  assert.match(missing.message, /its folder does not exist/)
  assert.match(assertUnwritable(() => new LineFile(folder)).message, /it is a directory/)
})

test('on a full disk whole lines remain', (t) => {
  const disk = join(folder, 'disk')
  mkdirSync(disk)
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=128k', 'tmpfs', disk])
  if (mounted.status !== 0) return t.skip('needs to mount a tmpfs, which takes root')
  try {
    const path = join(disk, 'lines')
    const file = new LineFile(path)
    const error = assertUnwritable(() => {
      for (let i = 0; i < 100_000; i++) file.write(`line ${i}`)
    })
    assert.match(error.message, /the disk is full/)
    file.write('ignored')
    file.close()
    const text = readFileSync(path, 'utf8')
    assert.ok(text.length > 60_000)
    const lines = text.split('\n')
    assert.equal(lines.pop(), '')
    assert.deepEqual(lines, lines.map((_, i) => `line ${i}`))
  } finally {
    spawnSync('umount', [disk])
  }
})

function assertUnwritable(action: () => unknown): CodedError {
  try {
    action()
  } catch (error) {
    assert.ok(error instanceof CodedError, String(error))
    assert.equal(error.code, 'NF_FILE_UNWRITABLE')
    return error
  }
  assert.fail('there should be an error')
}
