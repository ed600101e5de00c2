import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync, rmSync, mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test, type TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { benchCommand, benches } from './bench-command.ts'

const folder = mkdtempSync(join(tmpdir(), 'nfactor-bench-'))
after(() => rmSync(folder, { recursive: true }))

/** What a bench prints. */
async function printed(t: TestContext, name: keyof typeof benches, args: readonly string[]): Promise<string> {
  const log = t.mock.method(console, 'log', () => undefined)
  assert.equal(await benchCommand(name, args), 0)
  const text = log.mock.calls.map((call) => call.arguments.join(' ')).join('\n')
  log.mock.restore()
  return text
}

for (const name of Object.keys(benches) as (keyof typeof benches)[]) {
  test(`bench ${name} tells its options, and refuses others`, async (t) => {
    assert.match(await printed(t, name, ['--help']), new RegExp(`^nfactor bench ${name} .*--json FILE`))
    await assert.rejects(benchCommand(name, ['--no-such']), { code: 'NF_USAGE' })
    await assert.rejects(benchCommand(name, [name === 'switch' ? '--chunks=x' : '--runs=x']), { code: 'NF_USAGE' })
  })
}

for (const name of ['ports', 'traffic']) {
  test(`the script of bench ${name} refuses a wrong command line in one line`, () => {
    for (const wrong of ['--no-such', '--runs=0']) {
      const file = fileURLToPath(new URL(`../../bench/${name}/main.ts`, import.meta.url))
      const { status, stdout, stderr } = spawnSync(process.execPath, [file, wrong], { encoding: 'utf8', timeout: 20_000 })
      assert.deepEqual([status, stdout], [2, ''])
      assert.match(stderr, /^error NF_USAGE: .*--(?:no-such|runs).*\n$/)
    }
  })
}

test('bench replication measures a small cluster', async (t) => {
  const json = join(folder, 'replication.json')
  const text = await printed(t, 'replication', ['--part', 'memory', '--flows', '512', '--recover', '200', '--runs', '1', '--json', json])
  assert.match(text, /async costs -?\d+\.\d of it, commit -?\d+\.\d/)
  assert.match(text, /recovery of 200 flows: \d+\.\d µs/)
  const { memory } = JSON.parse(readFileSync(json, 'utf8')) as { memory: { commit: number; none: number; replicaBytes: number } }
  assert.ok(memory.commit > 0 && memory.none > 0)
  assert.ok(memory.replicaBytes > 300, 'a record, at least')
})

const skipCluster = process.env.NFACTOR_FULL !== '1' ? 'with NFACTOR_FULL=1' : process.platform !== 'linux' ? 'needs Linux' : false

test('bench cluster moves a flow between processes, and loses nothing', { skip: skipCluster, timeout: 120_000 }, async (t) => {
  const json = join(folder, 'cluster.json')
  const text = await printed(t, 'cluster', ['--part', 'p6', '--quick', '--json', json])
  assert.match(text, /one flow moves, order to first packet, p50 +\d+ µs/)
  const { parts } = JSON.parse(readFileSync(json, 'utf8')) as { parts: { p6: { took: number[]; wrong: string[] } } }
  assert.deepEqual(parts.p6.wrong, [])
  assert.ok(parts.p6.took.length > 20 && parts.p6.took.every((us) => us > 0))
})

test('bench migration measures a small cluster', async (t) => {
  const json = join(folder, 'migration.json')
  const text = await printed(t, 'migration', ['--flows', '500', '--moves', '1000', '--runs', '1', '--json', json])
  assert.match(text, /500 flows +\d+\.\d µs each/)
  const { rows } = JSON.parse(readFileSync(json, 'utf8')) as { rows: { flows: number; us: number; messages: number }[] }
  assert.equal(rows.length, 1)
  assert.ok((rows[0]?.us ?? 0) > 0)
  assert.equal(rows[0]?.messages, 12, 'prepare, install and their replies; per switch a re-pointing and its reply, Drained and Go')
})
