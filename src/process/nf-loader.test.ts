import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { CodedError, type ErrorCode } from '../base/coded-error.ts'
import { defineNf } from '../nf/index.ts'
import { builtInNfs } from '../nfs/index.ts'
import { loadNf } from './nf-loader.ts'

const folder = mkdtempSync(join(tmpdir(), 'nfactor-nf-loader-'))
after(() => rmSync(folder, { recursive: true }))

function write(name: string, text: string): string {
  const path = join(folder, name)
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, text)
  return path
}

const source = (name: string): string => `
import { defineNf, Verdict } from 'nfactor'
export default defineNf({ name: '${name}', version: 1, create: () => ({ processPacket: () => Verdict.Forward }) })
`

async function fails(code: ErrorCode, name: string, from = folder): Promise<CodedError> {
  const error = await loadNf(name, from).then(() => undefined, (reason: unknown) => reason)
  assert.ok(error instanceof CodedError, `${name} should fail with ${code}, not ${String(error)}`)
  assert.equal(error.code, code, error.toLine())
  assert.ok(!error.toLine().includes('\n'), 'one line')
  return error
}

test('built-in ones load by name', async () => {
  for (const name of Object.keys(builtInNfs)) assert.equal((await loadNf(name)).name, name)
})

test('a file gets the running copy of the SDK, wherever it lies', async () => {
  write('own/node_modules/nfactor/package.json', '{ "name": "nfactor", "exports": "./index.js", "type": "module" }')
  write('own/node_modules/nfactor/index.js', 'throw new Error("this copy must not be loaded")')
  const path = write('own/probe.ts', `${source('probe')}
import { runPackets } from 'nfactor/testing'
export { defineNf, runPackets }
`)
  assert.equal((await loadNf('./own/probe.ts', folder)).name, 'probe')
  const module = await import(pathToFileURL(path).href) as Record<string, unknown>
  assert.equal(module['defineNf'], defineNf)
  assert.equal(typeof module['runPackets'], 'function')
})

test('TypeScript and JavaScript, absolute and relative, in folders of any module type', async () => {
  write('cjs/package.json', '{ "type": "commonjs" }')
  write('bare/package.json', '{}')
  const names = ['cjs/a.ts', 'cjs/a.mts', 'bare/b.ts', 'bare/b.js', 'none/c.ts', 'none/c.js', 'none/c.mjs',
    'odd #1?/d.ts']
  for (const name of names) {
    const nfName = `nf-${name.replace(/[^a-z0-9]/g, '')}`
    const path = write(name, source(nfName))
    assert.equal((await loadNf(`./${name}`, folder)).name, nfName)
    assert.equal((await loadNf(path, '/')).name, nfName)
  }
})

test('a file may import others next to it', async () => {
  write('parts/helper.ts', 'export const helperName: string = "with-parts"')
  write('parts/nf.ts', `import { helperName } from './helper.ts'\n${source('x').replace("'x'", 'helperName')}`)
  assert.equal((await loadNf('parts/nf.ts', folder)).name, 'with-parts')
})

test('a package is found from the folder of the chain', async () => {
  write('project/node_modules/@acme/nf-nat/package.json', '{ "type": "module", "exports": "./main.js" }')
  write('project/node_modules/@acme/nf-nat/main.js', source('nat'))
  assert.equal((await loadNf('@acme/nf-nat', join(folder, 'project'))).name, 'nat')
  await fails('NF_NF_UNKNOWN', '@acme/nf-nat')
})

test('a package must be JavaScript', async () => {
  write('node_modules/typed/package.json', '{ "type": "module", "exports": "./main.ts" }')
  write('node_modules/typed/main.ts', source('typed'))
  assert.match((await fails('NF_NF_LOAD', 'typed')).message, /inside node_modules must be JavaScript/)
})

test('an unknown name gets a guess', async () => {
  assert.match((await fails('NF_NF_UNKNOWN', 'firewal')).mend,
    /^Did you mean firewall\? Built in are monitor, firewall, http/)
  write('mine.ts', source('mine'))
  assert.match((await fails('NF_NF_UNKNOWN', 'mine')).mend, /Did you mean \.\/mine\.ts\?/)
  assert.match((await fails('NF_NF_UNKNOWN', './mime.ts')).mend, /Did you mean mine\.ts\?/)
  for (const name of ['', ' ', 'a b', 'no-such-package-here', '@', '%']) await fails('NF_NF_UNKNOWN', name)
})

const broken: readonly (readonly [string, string, RegExp])[] = [
  ['syntax.ts', 'const a = 1\nconst x: number = ;\n', /syntax\.ts:2:19: Expression expected/],
  ['syntax.js', 'export default 1\nlet b = = 2\n', /syntax\.js:2:9: Unexpected token/],
  ['enum.ts', 'const a = 1\n\nenum Colour { red }\n', /enum\.ts:3:1: TypeScript enum is not supported/],
  ['export.ts', "import { nothing } from 'nfactor'\n", /export\.ts:1:\d+: .*not provide an export named 'nothing'/],
  ['throws.ts', 'const a: any = null\nexport default a.b\n', /throws\.ts:2:\d+: Cannot read properties of null/],
  ['import.ts', "import './not-there.ts'\n", /import\.ts: Cannot find module .*not-there\.ts/],
  ['package.ts', "import 'not-a-package-at-all'\n", /package\.ts: Cannot find package 'not-a-package-at-all'/],
  ['empty.ts', '', /has no network function as its default export/],
  ['other.ts', 'export default { name: "x" }\n', /has no network function as its default export/],
]

for (const [name, text, message] of broken) {
  test(`${name}: what is wrong, and where`, async () => {
    write(name, text)
    assert.match((await fails('NF_NF_LOAD', `./${name}`)).message, message)
  })
}

test('syntax that Node cannot strip comes with what to write instead', async () => {
  write('enum-again.ts', 'enum Colour { red }\n')
  assert.match((await fails('NF_NF_LOAD', './enum-again.ts')).mend, /union of literals/)
})

test('a definition that breaks a rule says which file', async () => {
  write('bad-name.ts', source('Bad Name'))
  assert.match((await fails('NF_NF_INVALID', './bad-name.ts')).message, /bad-name\.ts: .*the name is not valid/)
  write('plain.ts', 'export default { name: "ok", version: 0, create() {} }')
  assert.match((await fails('NF_NF_INVALID', './plain.ts')).message, /version 0 is not valid/)
})

test('what is no source file', async () => {
  write('notes.txt', 'text')
  await fails('NF_NF_LOAD', './notes.txt')
  await fails('NF_NF_LOAD', folder)
})
