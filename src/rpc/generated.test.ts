/**
 * What is generated is what the protocol's files say: made anew, it is the same. The document has what the protocol has.
 */

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { Controller } from './generated/nfactor/v1/controller_pb.ts'
import { Node } from './generated/nfactor/v1/node_pb.ts'

const root = join(import.meta.dirname, '../..')

test('the document has every method', () => {
  const document = readFileSync(join(root, 'docs/rpc.md'), 'utf8')
  for (const service of [Node, Controller]) {
    const [, part] = document.split(`### ${service.name}\n`)
    const rows = part.split('\n#')[0].matchAll(/^\| `(\w+)` \|.*?\|(?: (stream) of)?/gm)
    const listed = [...rows].map(([, name, stream]) => [name, stream !== undefined])
    assert.deepEqual(listed, service.methods.map(({ name, methodKind }) => [name, methodKind === 'server_streaming']))
  }
})

/** They are 125 MB: whoever changes the protocol has them, nobody else. */
const packages = ['--package', '@bufbuild/buf@1.75.0', '--package', '@bufbuild/protoc-gen-es@2.17.0']
const skip = process.env.NFACTOR_FULL !== '1' && 'npx would fetch buf: only with NFACTOR_FULL=1'

function filesIn(folder: string): Record<string, string> {
  return Object.fromEntries(readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name)).sort().map((path) => [path.slice(folder.length), readFileSync(path, 'utf8')]))
}

test('generated sources are those of npm run proto', { skip }, (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'nfactor-proto-'))
  try {
    const { status, stderr } = spawnSync('npx', ['--yes', ...packages, '--', 'buf', 'generate', '--template', 'src/rpc/buf.gen.yaml',
      '--output', folder], { cwd: root, encoding: 'utf8', timeout: 120_000 })
    if (status !== 0 && /E404|ENOTFOUND|ECONNREFUSED|ETIMEDOUT/.test(stderr)) return context.skip('buf cannot be fetched')
    assert.equal(status, 0, stderr)
    const made = filesIn(join(folder, 'src/rpc/generated'))
    assert.ok(Object.keys(made).length >= 4)
    assert.deepEqual(filesIn(join(root, 'src/rpc/generated')), made)
  } finally {
    rmSync(folder, { recursive: true })
  }
})
