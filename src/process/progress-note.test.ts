/** A progress note outlives who writes it, and is done without where the disk is full. */

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'

const isRoot = process.getuid?.() === 0 && spawnSync('unshare', ['-m', 'true']).status === 0
const module = (path: string): string => new URL(path, import.meta.url).href

test('on a full disk a runtime begins without a note', { skip: !isRoot && 'only root can mount a small disk' }, (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'nfactor-note-'))
  context.after(() => { rmSync(folder, { recursive: true }) })
  const program = `
    const { Arena } = await import('${module('../memory/arena.ts')}')
    const { openProgressNote } = await import('${module('./progress-note.ts')}')
    const { rmSync } = await import('node:fs')
    const note = (name) => openProgressNote(new Arena(1 << 18), '${folder}/' + name) !== undefined
    const full = note('full')
    rmSync('${folder}/filler')
    console.log(full, note('room'))`
  const { status, signal, stdout, stderr } = spawnSync('unshare', ['-m', 'sh', '-c',
    `mount -t tmpfs -o size=16k none ${folder} && head -c 16384 /dev/zero > ${folder}/filler && exec "$@"`, 'sh',
    process.execPath, '--input-type=module', '-e', program], { encoding: 'utf8' })
  assert.deepEqual({ status, signal, stdout, stderr }, { status: 0, signal: null, stdout: 'false true\n', stderr: '' })
})
