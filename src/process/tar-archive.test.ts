/**
 * Archives as `tar` takes them: what went in comes out.
 */

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { after, test } from 'node:test'
import { tarArchive, type TarEntry } from './tar-archive.ts'

const folder = mkdtempSync(join(tmpdir(), 'nfactor-tar-'))
after(() => { rmSync(folder, { recursive: true, force: true }) })
const skip = spawnSync('tar', ['--version']).error !== undefined && 'tar is not installed'

test('files of all sizes, folders, modes and long names', { skip }, async () => {
  const long = `${'a'.repeat(60)}/${'b'.repeat(60)}/${'c'.repeat(60)}`
  const sizes = [0, 1, 511, 512, 513, 3 << 20]
  const files: TarEntry[] = sizes.map((size) => {
    const file = join(folder, `in-${size}`)
    writeFileSync(file, Buffer.alloc(size, `${size} bytes `))
    return { path: `files/${size}`, file, mode: 0o640 }
  })
  const entries: TarEntry[] = [{ path: 'files/', mode: 0o755 }, ...files, { path: long, text: 'deep down: ü', mode: 0o600 },
    { path: 'run', text: '', mode: 0o755 }]
  const archive = join(folder, 'archive.tar')
  writeFileSync(archive, await buffer(tarArchive(entries)))
  const { status, stderr } = spawnSync('tar', ['-x', '-p', '-f', archive, '-C', folder], { encoding: 'utf8' })
  assert.deepEqual([status, stderr], [0, ''])
  for (const { path, file, text, mode } of entries) {
    const found = statSync(join(folder, path))
    assert.equal(found.mode & 0o777, mode, path)
    if (!found.isFile()) continue
    assert.ok(readFileSync(join(folder, path)).equals(file === undefined ? Buffer.from(text ?? '') : readFileSync(file)), path)
  }
  assert.deepEqual(await buffer(tarArchive(entries)), readFileSync(archive), 'the same once more')
})

test('a name that has no place in the format is refused', async () => {
  await assert.rejects(buffer(tarArchive([{ path: 'd'.repeat(101), text: '', mode: 0o644 }])), /is too long for an archive/)
})
