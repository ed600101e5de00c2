/**
 * Holds the order of the source tree: the layer table, what each layer may import, and the marks of unfinished or careless
 * work. A new folder is entered here first; an exception stands here with its reason.
 */

import { test } from 'node:test'
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize, relative, sep } from 'node:path'

const root = join(import.meta.dirname, '..')

interface Layer {
  readonly level: number
  /** Folders of the same level that it may import from, besides all below. */
  readonly siblings?: readonly string[]
  /** Packages it may import. `*`: any. */
  readonly packages?: readonly string[]
  /** True if it may import from `node:` and read clocks. */
  readonly outside?: boolean
}

/** Folders of src/, from the bottom up. Imports go downwards. */
const layers: Record<string, Layer> = {
  base: { level: 0 },
  memory: { level: 1 },
  wire: { level: 1 },
  flow: { level: 2 },
  packet: { level: 2, siblings: ['flow'] },
  messages: { level: 2, siblings: ['flow', 'packet'] },
  nf: { level: 3, packages: ['zod'] },
  transport: { level: 3 },
  nfs: { level: 4, packages: ['zod'] },
  runtime: { level: 4, packages: ['zod'] },
  vswitch: { level: 4, packages: ['zod'] },
  controller: { level: 4, packages: ['zod'] },
  node: { level: 5, packages: ['zod'] },
  // Beside the line: the test kit and the simulator drive what is below them, and nothing in production needs them.
  testing: { level: 5, packages: ['zod'] },
  sim: { level: 5, siblings: ['node', 'testing'], packages: ['zod'] },
  ports: { level: 6, packages: ['koffi', 'zod'], outside: true },
  rpc: { level: 6, packages: ['@bufbuild/protobuf', '@connectrpc/connect', '@connectrpc/connect-node'], outside: true },
  process: { level: 6, siblings: ['ports', 'rpc'], packages: ['*'], outside: true },
  cli: { level: 7, siblings: ['dashboard'], packages: ['*'], outside: true },
  dashboard: { level: 7, packages: ['*'], outside: true },
  // Tests alone: nothing in production may need it.
  e2e: { level: 8, packages: ['*'], outside: true },
}

/** Programs and suites within a layer that stand outside of it. */
const outsiders = ['src/testing/corpus/', 'src/testing/fuzz/main.ts']

/** What protoc-gen-es has written: held to the layers, and to nothing else. */
const written = 'src/rpc/generated/'

/** Sources longer than 510 lines: how long they may be, and why. */
const longFiles: Record<string, [number, string]> = {
  'src/ports/sys.ts': [560, 'every call of the C library in one module'],
  'src/runtime/engine.ts': [1150, 'one closure: the hot path binds the arena and its helpers as constants'],
  'src/runtime/coordinator.ts': [580, 'the one actor that every message of a runtime comes to; closing, moving and claiming are apart'],
  'src/runtime/migration/incoming-moves.ts': [630, 'one state machine'],
  'src/runtime/migration/outgoing-moves.ts': [720, 'one state machine'],
  'src/runtime/replication/replicas.ts': [600, 'one state machine'],
  'src/node/runtime-node.ts': [550, 'what a runtime is wired of, in one place'],
  'src/node/switch-node.ts': [565, 'what a switch is wired of, in one place'],
  'src/sim/ledger.ts': [530, 'all that is known of every packet, in one place'],
  'src/sim/simulation.ts': [620, 'one simulation: its nodes, its clock, its configuration'],
  'src/memory/struct.ts': [800, 'every kind of field, each a few lines, compiled by one class'],
  'src/packet/parse.ts': [600, 'one closure: all branches of the parser share its constants'],
  'src/memory/kernels/http-head.as.ts': [800, 'a kernel is one module: AssemblyScript compiles it whole'],
  'src/memory/kernels/http-head-twin.ts': [800, 'the kernel\'s twin, line by line'],
  'src/nfs/firewall/tcp-tracking.ts': [550, 'the state table of TCP and its tests for windows, in one place'],
}

const LINES_MAX = 510
const TEST_LINES_MAX = 800
const COLUMNS_MAX = 145

interface Source {
  readonly path: string
  readonly text: string
  readonly isTest: boolean
}

function sourcesIn(folder: string): Source[] {
  return readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith('.ts') && !entry.parentPath.includes('node_modules'))
    .map((entry) => {
      const path = relative(root, join(entry.parentPath, entry.name)).split(sep).join('/')
      return { path, text: readFileSync(join(root, path), 'utf8'), isTest: path.endsWith('.test.ts') }
    })
}

const sources = sourcesIn('src')
const everything = [...sources, ...sourcesIn('bench'), ...sourcesIn('scripts')].filter(({ path }) => !path.startsWith(written))

/** The modules that a source imports, in its code (not in its comments). */
function importsOf(text: string): string[] {
  const named = /^(?:import|export)\s+(?:type\s+)?(?:\{[^}]*\}|\*(?:\s+as\s+\w+)?|\w+(?:\s*,\s*\{[^}]*\})?)\s+from\s+'([^']+)'/gm
  const others = [/^import\s+'([^']+)'/gm, /^(?!\s*(?:\*|\/\/)).*\bimport\('([^']+)'\)/gm]
  return [named, ...others].flatMap((pattern) => [...text.matchAll(pattern)].map((match) => match[1]))
}

/** What is wrong with this import, or an empty text. */
function importFault(path: string, target: string): string {
  const own = path.split('/')[1]
  const layer = layers[own]
  if (target.startsWith('node:')) return layer.outside ? '' : `layer ${layer.level} imports nothing from node:`
  if (!target.startsWith('.')) {
    const name = target.split('/').slice(0, target.startsWith('@') ? 2 : 1).join('/')
    return layer.packages?.some((allowed) => allowed === '*' || allowed === name) ? '' : 'this layer does not import that package'
  }
  const [top, folder, ...rest] = normalize(join(dirname(path), target)).split(sep)
  if (top !== 'src') return 'sources import from src/ alone'
  const other = layers[folder]
  if (other === undefined) return `src/${folder} is not in the layer table`
  if (folder === own) {
    const mine = path.split('/')[2]
    return own === 'nfs' && path.split('/').length > 3 && rest.length > 1 && rest[0] !== mine
      ? 'network functions do not import each other' : ''
  }
  return other.level < layer.level || layer.siblings?.includes(folder) ? '' : `layer ${layer.level} imports downwards only`
}

const isOutsider = (path: string): boolean => outsiders.some((outsider) => path.startsWith(outsider))

/** Sources that are held to the layers. */
const layered = sources.filter(({ path, isTest }) => !isTest && !isOutsider(path) && path.split('/').length > 2)

function assertNone(faults: readonly string[]): void {
  assert.deepEqual(faults, [])
}

test('imports go downwards, and only to what the layer may use', () => {
  assertNone(sources.filter(({ path }) => path.split('/').length > 2 && layers[path.split('/')[1]] === undefined)
    .map(({ path }) => `${path}: its folder is not in the layer table`))
  assertNone(layered.flatMap(({ path, text }) => importsOf(text).flatMap((target) => {
    const fault = importFault(path, target)
    return fault === '' ? [] : [`${path} imports ${target}: ${fault}`]
  })))
})

test('below the outermost layers nobody reads a clock, draws by chance or waits', () => {
  const forbidden = new RegExp(String.raw`\b(?:Date\.now|new Date\(\)|Math\.random|performance\.|setTimeout|setInterval|` +
    String.raw`setImmediate|queueMicrotask|process\.(?:hrtime|env|argv|nextTick))`)
  assertNone(layered.filter(({ path }) => !layers[path.split('/')[1]].outside)
    .flatMap(({ path, text }) => text.split('\n').flatMap((line, index) =>
      forbidden.test(line) ? [`${path}:${index + 1}: ${line.trim()}`] : [])))
})

test('every source says at its top what it is', () => {
  const generated = /^\/\/ .*generated|^\/\*\*/
  assertNone(everything.filter(({ isTest, text }) => !isTest && !generated.test(text.replace(/^#!.*\n/, '')))
    .map(({ path }) => path))
})

test('files are short enough to be read', () => {
  assertNone(everything.flatMap(({ path, text, isTest }) => {
    const lines = text.split('\n').length - 1
    const most = longFiles[path]?.[0] ?? (isTest ? TEST_LINES_MAX : LINES_MAX)
    return lines > most ? [`${path} has ${lines} lines, ${most} are allowed`] : []
  }))
  for (const path of Object.keys(longFiles)) assert.ok(sources.some((source) => source.path === path), `${path} is gone`)
})

test('lines are short enough, without white space at their ends', () => {
  assertNone(everything.flatMap(({ path, text }) => text.split('\n').flatMap((line, index) => {
    // What a program has written for a program.
    if (path.endsWith('-binary.ts')) return []
    if (line.length > COLUMNS_MAX) return [`${path}:${index + 1} has ${line.length} characters`]
    return line.trimEnd() !== line || line.includes('\t') ? [`${path}:${index + 1} has stray white space`] : []
  })))
})

test('nothing is marked as unfinished, and nothing names the machine it was written on', () => {
  const marks = /\b(?:TODO|FIXME|XXX|HACK)\b|(?:^|[\s'"`(:])\/(?:work|root|home)\//
  assertNone(everything.filter(({ path }) => path !== 'src/tidy.test.ts').flatMap(({ path, text }) =>
    text.split('\n').flatMap((line, index) => (marks.test(line) ? [`${path}:${index + 1}: ${line.trim()}`] : []))))
})

test('files are named after what they hold', () => {
  assertNone(everything.map(({ path }) => path).filter((path) => {
    const name = path.slice(path.lastIndexOf('/') + 1)
    return !/^[a-z0-9]+(?:-[a-z0-9]+)*(?:\.(?:test|as|d))?\.ts$/.test(name) ||
      /^(?:utils?|types?|helpers?|misc|common)\.ts$/.test(name)
  }))
})

test('this test sees what it is to see', () => {
  const text = [
    'import { a,', "  b } from './x.ts'", "import type C from 'zod'", "export * from '../y.ts'", "import 'node:fs'",
    " * import { d } from 'no'", "  const e = await import('./z.ts')", "// import('./no.ts')",
    "export function f(from: string) { return from + 'no' }",
  ].join('\n')
  assert.deepEqual(importsOf(text), ['./x.ts', 'zod', '../y.ts', 'node:fs', './z.ts'])
  const faults: [string, string, boolean][] = [
    ['src/memory/slab.ts', '../base/assert.ts', false], ['src/memory/slab.ts', './arena.ts', false],
    ['src/memory/slab.ts', '../wire/tcp.ts', true],
    ['src/base/clock.ts', '../memory/arena.ts', true], ['src/packet/parse.ts', '../flow/flow-hash.ts', false],
    ['src/flow/flow-table.ts', '../packet/parse.ts', true], ['src/nf/chain.ts', 'zod', false],
    ['src/packet/parse.ts', 'zod', true],
    ['src/runtime/engine.ts', 'node:fs', true], ['src/ports/sys.ts', 'node:fs', false],
    ['src/nfs/http/http.ts', '../firewall/rule.ts', true],
    ['src/nfs/http/http.ts', './head.ts', false], ['src/nfs/index.ts', './http/http.ts', false],
    ['src/nfs/http/http.ts', '../index.ts', false],
    ['src/cli/main.ts', '../process/run.ts', false], ['src/process/run.ts', '../cli/main.ts', true],
    ['src/base/a.ts', '../../bench/b.ts', true],
  ]
  for (const [path, target, isFault] of faults) assert.equal(importFault(path, target) !== '', isFault, `${path} ${target}`)
})
