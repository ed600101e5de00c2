/**
 * The documents are held to what they say: commands run, configurations are valid, code is that of the examples, links lead
 * somewhere.
 */

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../../', import.meta.url))
const main = fileURLToPath(new URL('./main.ts', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'nfactor-documents-'))
after(() => rmSync(folder, { recursive: true }))

const read = (path: string): string => readFileSync(join(root, path), 'utf8')
const documents = ['README.md', 'CHANGELOG.md', 'examples/captures/README.md',
  ...readdirSync(join(root, 'docs'), { recursive: true, encoding: 'utf8' }).filter((path) => path.endsWith('.md'))
    .map((path) => join('docs', path))]

/** The code blocks of a document in this language; the plain ones without. */
const blocks = (path: string, language = ''): string[] =>
  [...read(path).matchAll(/^```(\w*)\n([^]*?)^```$/gm)].filter((match) => match[1] === language)
    .map((match) => match[2] as string)

/** The commands of a document's plain blocks, as arguments of `nfactor`. */
const commands = (path: string): string[][] => blocks(path).join('\n').replaceAll('\\\n', ' ').split('\n')
  .filter((line) => line.startsWith('npx nfactor ')).map((line) => line.replace(/ #.*/, '').trim().split(/\s+/).slice(2))

function mustSucceed(args: readonly string[]): void {
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...args], {
    cwd: root, encoding: 'utf8', env: { ...process.env, NODE_TEST_CONTEXT: undefined, XDG_CACHE_HOME: folder } })
  assert.equal(status, 0, `nfactor ${args.join(' ')}\n${stdout}${stderr}`)
}

test('the guide: its network function is the example, and its commands run', () => {
  const [code] = blocks('docs/nf-guide.md', 'ts')
  const example = read('examples/nfs/udp-limit.ts')
  assert.ok(example.endsWith(`*/\n\n${code}`), 'the code of the guide is not that of examples/nfs/udp-limit.ts')
  const found = commands('docs/nf-guide.md').filter((args) => args.some((argument) => argument.includes('udp-limit')))
  assert.deepEqual(found.map((args) => args[0]), ['run', 'nf'])
  for (const args of found) mustSucceed(args)
})

test('configurations of the documents are valid', () => {
  const configs = documents.flatMap((path) => blocks(path, 'yaml'))
  assert.ok(configs.length > 0)
  configs.forEach((text, index) => {
    const file = join(folder, `${index}.yaml`)
    writeFileSync(file, text)
    mustSucceed(['check', file])
  })
})

test('links of the documents lead to files', () => {
  const broken = documents.flatMap((path) => [...read(path).matchAll(/\]\(([^)#]+)/g)].map((match) => match[1] as string)
    .filter((link) => !/^https?:/.test(link) && !existsSync(join(root, dirname(path), link))).map((link) => `${path}: ${link}`))
  assert.deepEqual(broken, [])
})

test('what the README names among scripts and options is there', () => {
  const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> }
  const named = [...read('README.md').matchAll(/npm (?:run )?(test:full|fuzz|start|test)\b/g)].map((match) => match[1] as string)
  assert.deepEqual(named.filter((name) => scripts[name] === undefined), [])
  const { stdout } = spawnSync(process.execPath, [main, 'run', '--help'], { encoding: 'utf8' })
  const options = [...read('README.md').matchAll(/^\| `(--\w+)/gm)].map((match) => match[1] as string)
  assert.ok(options.length >= 6)
  assert.deepEqual(options.filter((option) => !stdout.includes(option)), [])
})
