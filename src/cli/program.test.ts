import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { createReadStream, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { errorCodes } from '../base/coded-error.ts'
import { captureBytes, webPackets } from '../process/sample-capture.ts'
import { buildFrame } from '../testing/packet-builder.ts'
import { schemaText } from './schema-command.ts'

const folder = mkdtempSync(join(tmpdir(), 'nfactor-cli-'))
after(() => rmSync(folder, { recursive: true }))

const main = fileURLToPath(new URL('./main.ts', import.meta.url))
const root = fileURLToPath(new URL('../../', import.meta.url))
const { NODE_TEST_CONTEXT: _, ...inherited } = process.env
const env = { ...inherited, XDG_CACHE_HOME: folder, NO_COLOR: '1' }

function write(name: string, content: string | Uint8Array): string {
  const path = join(folder, name)
  writeFileSync(path, content)
  return path
}

const web = write('web.pcap', captureBytes(webPackets()))

interface Run {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

function nfactor(args: readonly string[], input?: Uint8Array): Run {
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...args],
    { cwd: folder, env, encoding: 'utf8', timeout: 30_000, ...input !== undefined && { input } })
  return { status, stdout, stderr }
}

/** Checks that it failed with this code in one line on standard error, and nothing else. */
function assertFails({ status, stdout, stderr }: Run, code: keyof typeof errorCodes, message: RegExp): void {
  assert.equal(status, code === 'NF_USAGE' ? 2 : 1, stderr)
  assert.equal(stdout, '')
  assert.match(stderr, new RegExp(`^error ${code}: [^\\n]+\\n(\\(Did you mean [^\\n]+\\)\\n)?$`))
  assert.match(stderr, message)
}

test('version and help', () => {
  const version = (JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string }).version
  assert.deepEqual(nfactor(['--version']), { status: 0, stdout: `${version}\n`, stderr: '' })
  const help = nfactor(['--help'])
  assert.equal(help.status, 0)
  const words = ['run', 'check', 'schema', 'nf', 'bench', 'Exit status', 'Examples']
  for (const word of words) assert.ok(help.stdout.includes(word), word)
  assert.match(nfactor(['help', 'run']).stdout, /--chain <names>/)
})

test('wrong command lines', () => {
  assertFails(nfactor(['rum']), 'NF_USAGE', /unknown command 'rum'\n\(Did you mean run\?\)/)
  assertFails(nfactor(['run']), 'NF_USAGE', /missing required argument 'capture'/)
  assertFails(nfactor(['run', web, '--jsn']), 'NF_USAGE', /unknown option '--jsn'\n\(Did you mean --json\?\)/)
  assertFails(nfactor(['run', web, '--seed', 'x']), 'NF_USAGE', /whole number/)
  assertFails(nfactor(['run', web, '--set', 'flows=1']), 'NF_USAGE', /there is no "flows"/)
})

test('run prints a summary for people', () => {
  const { status, stdout, stderr } = nfactor(['run', 'web.pcap'])
  assert.equal(status, 0)
  assert.equal(stderr, '')
  assert.match(stdout, /^web\.pcap {2}pcap, \d.* of traffic, processed in /)
  assert.match(stdout, /packets +12 +received\n +12 +forwarded/)
  assert.match(stdout, /flows +2 +1 TCP, 1 UDP; 1 closed, 1 open at the end/)
  assert.match(stdout, /\nhttp {2}.*\n {2}1 {2}requests +requests read\n {2}1 {2}responses/)
})

test('drops are named and explained', () => {
  const rules = 'chain.firewall.rules=["drop udp to port 53"]'
  const { stdout } = nfactor(['run', web, '--chain', 'firewall', '--set', rules])
  assert.match(stdout, /\ndropped: 2 packets\n +2 {2}firewall-denied {2}\w+/)
})

test('run --json prints one document', () => {
  const { status, stdout, stderr } = nfactor(['run', web, '--chain', 'monitor,http', '--json'])
  assert.equal(status, 0)
  assert.equal(stderr, '')
  assert.equal(stdout.trimEnd().split('\n').length, 1)
  const document = JSON.parse(stdout) as Record<string, any>
  assert.deepEqual(Object.keys(document), ['capture', 'packets', 'dropReasons', 'bytes', 'flows', 'nfs', 'records',
    'nfErrors', 'warnings', 'elapsedSeconds', 'packetsPerSecond'])
  assert.deepEqual(document['packets'], { received: 12, forwarded: 12, dropped: 0, emitted: 0, buffered: 0 })
  assert.deepEqual(document['dropReasons'], {})
  assert.equal(document['flows'].created, 2)
  assert.equal(document['nfs'].monitor.packets, 12)
  assert.equal(document['nfs'].http.requests, 1)
  assert.equal(typeof document['elapsedSeconds'], 'number')
  assert.equal(typeof document['packetsPerSecond'], 'number')
})

test('outputs', () => {
  const [out, flows, events] = [join(folder, 'out.pcap'), join(folder, 'flows'), join(folder, 'events')]
  assert.equal(nfactor(['run', web, '--out', out, '--flows', flows, '--events', events]).status, 0)
  assert.deepEqual(readFileSync(out), readFileSync(web))
  const flow = JSON.parse(readFileSync(flows, 'utf8').split('\n')[0] as string) as Record<string, any>
  assert.deepEqual(Object.keys(flow), ['key', 'opener', 'packets', 'bytes', 'firstSeen', 'lastSeen', 'end', 'state'])
  assert.deepEqual(Object.keys(flow['state']), ['monitor', 'firewall', 'http'])
  const [request, response] = readFileSync(events, 'utf8').trim().split('\n')
    .map((line) => JSON.parse(line) as Record<string, any>)
  assert.deepEqual([request?.['nf'], request?.['event'], request?.['uri']], ['http', 'request', '/index.html'])
  assert.deepEqual([response?.['event'], response?.['status'], response?.['flow'].source],
    ['response', 200, '10.0.0.2'])
})

test('bad captures: one line and a code', () => {
  assertFails(nfactor(['run', 'missing.pcap']), 'NF_FILE_NOT_FOUND', /missing\.pcap does not exist/)
  assertFails(nfactor(['run', write('empty.pcap', '')]), 'NF_CAPTURE_EMPTY', /is empty/)
  const text = write('text.pcap', 'no capture, only text of some length')
  assertFails(nfactor(['run', text]), 'NF_CAPTURE_FORMAT', /looks like text/)
  assertFails(nfactor(['run', '-'], new Uint8Array(0)), 'NF_CAPTURE_EMPTY', /standard input is empty/)
})

test('a file that may not be read', (t) => {
  if (process.getuid?.() === 0) return t.skip('root may read everything')
  const path = write('secret.pcap', captureBytes(webPackets()))
  spawnSync('chmod', ['000', path])
  assertFails(nfactor(['run', path]), 'NF_FILE_UNREADABLE', /permission denied/)
})

test('a capture that breaks off: a warning in one line, and exit status 0', () => {
  const bytes = captureBytes(webPackets())
  const { status, stdout, stderr } = nfactor(['run', write('cut.pcap', bytes.subarray(0, -10)), '--json'])
  assert.equal(status, 0)
  assert.match(stderr, /^warning [^\n]*cut\.pcap: the capture ends in the middle of the last record[^\n]*\n$/)
  const document = JSON.parse(stdout) as Record<string, any>
  assert.equal(document['packets'].received, 11)
  assert.equal(document['capture'].state, 'truncated')
  assert.equal(document['warnings'].length, 1)
})

test('standard input', () => {
  const { status, stdout } = nfactor(['run', '-', '--chain', 'monitor', '--json'], captureBytes(webPackets()))
  assert.equal(status, 0)
  const document = JSON.parse(stdout) as Record<string, any>
  assert.equal(document['packets'].received, 12)
  assert.equal(document['capture'].name, 'standard input')
})

test('outputs that cannot be written: one line and a code', (t) => {
  assertFails(nfactor(['run', web, '--out', 'no/out.pcap']), 'NF_FILE_UNWRITABLE', /its folder does not exist/)
  assertFails(nfactor(['run', web, '--flows', 'same', '--events', './same']), 'NF_USAGE', /cannot take two outputs/)
  if (!existsSync('/dev/full')) return t.skip('needs /dev/full')
  assertFails(nfactor(['run', web, '--flows', '/dev/full']), 'NF_FILE_UNWRITABLE', /the disk is full/)
})

test('standard output on a full disk', (t) => {
  if (!existsSync('/dev/full')) return t.skip('needs /dev/full')
  const { status, stderr } = spawnSync('sh', ['-c', '"$0" "$@" > /dev/full', process.execPath, main, 'run', web, '--json'],
    { env, encoding: 'utf8' })
  assert.equal(status, 1)
  assert.match(stderr, /^error NF_FILE_UNWRITABLE: standard output cannot be written: the disk is full\. [^\n]+\n$/)
})

test('a reader of the output that has gone', async () => {
  const child = spawn(process.execPath, [main, 'run', web, '--json'], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  child.stdout.destroy()
  let stderr = ''
  child.stderr.on('data', (text: Buffer) => { stderr += text.toString() })
  const [status] = await once(child, 'close') as [number]
  assert.deepEqual([status, stderr], [0, ''])
})

for (const [signal, expected] of [['SIGINT', 130], ['SIGTERM', 143]] as const) {
  test(`${signal} ends a run with everything complete`, async (t) => {
    const pipe = join(folder, `${signal}.fifo`)
    if (spawnSync('mkfifo', [pipe]).status !== 0) return t.skip('needs mkfifo')
    const [out, flows] = [join(folder, `${signal}.pcap`), join(folder, `${signal}.flows`)]
    const child = spawn(process.execPath,
      [main, 'run', '-', '--chain', 'monitor,http', '--json', '--out', out, '--flows', flows, '--events', pipe],
      { env })
    let stdout = ''
    child.stdout.on('data', (text: Buffer) => { stdout += text.toString() })
    const closed = once(child, 'close') as Promise<[number]>
    // The input stays open; the first event says that the packets have been processed.
    child.stdin.on('error', () => undefined)
    child.stdin.write(captureBytes(webPackets()))
    await once(createReadStream(pipe), 'data')
    child.kill(signal)
    const [status] = await closed
    assert.equal(status, expected)
    const document = JSON.parse(stdout) as Record<string, any>
    assert.equal(document['capture'].state, 'aborted')
    assert.equal(document['packets'].received, 12)
    assert.deepEqual(readFileSync(out), readFileSync(web))
    assert.equal(readFileSync(flows, 'utf8').trim().split('\n').length, 2)
  })
}

const throwing = `
import { defineNf, Verdict } from 'nfactor'
export default defineNf({ name: 'throwing', version: 1, create: () => ({
  processPacket(packet) {
    if (packet.protocol === 17) throw new Error('no UDP, please')
    return Verdict.Forward
  },
}) })
`

test('an NF that throws: reported once with its stack, and the run goes on', () => {
  const { status, stdout, stderr } = nfactor(['run', web, '--chain', write('throwing.ts', throwing), '--json'])
  assert.equal(status, 0)
  assert.equal(stderr.match(/no UDP, please/g)?.length, 1)
  assert.match(stderr, /^warning network function throwing failed, the flow's packets are dropped/)
  assert.match(stderr, /at .*throwing\.ts:5:\d+/)
  assert.deepEqual((JSON.parse(stdout) as Record<string, any>)['dropReasons'], { 'nf-error': 2 })
})

test('an NF file with a mistake: one line with its place', () => {
  write('broken.ts', 'const a = 1\nconst b: number = ;\n')
  assertFails(nfactor(['run', web, '--chain', './broken.ts']), 'NF_NF_LOAD', /broken\.ts:2:19: Expression expected/)
  assertFails(nfactor(['run', web, '--chain', 'monitr']), 'NF_NF_UNKNOWN', /Did you mean monitor\?/)
})

test('a configuration file', () => {
  const file = write('run.yaml', 'chain:\n  - throwing.ts\n  - monitor\npolicy: { nfError: bypass }\n')
  const { status, stdout, stderr } = nfactor(['run', web, '--config', file, '--json'])
  assert.equal(status, 0)
  assert.match(stderr, /the flow goes on without it/)
  assert.deepEqual((JSON.parse(stdout) as Record<string, any>)['dropReasons'], { 'nf-error': 1 })
  const bad = write('bad.yaml', 'limits:\n  flow: 5\npolicy: { nonIp: 1 }\n')
  assertFails(nfactor(['run', web, '--config', bad]), 'NF_CONFIG_INVALID',
    /bad\.yaml:2:3: there is no key "flow" in limits \(and 1 more/)
})

test('check: OK, or every problem with its place', () => {
  const good = nfactor(['check', write('good.yaml', 'chain: [monitor, http]\n')])
  assert.deepEqual(good,
    { status: 0, stdout: `${join(folder, 'good.yaml')}: OK (chain monitor, http)\n`, stderr: '' })
  write('bad.yaml', 'limits:\n  flow: 5\npolicy: { nonIp: 1 }\n')
  const bad = nfactor(['check', 'bad.yaml'])
  assert.equal(bad.status, 1)
  assert.match(bad.stdout,
    /^bad\.yaml:2:3: NF_CONFIG_INVALID: there is no key "flow"[^\n]*\nbad\.yaml:3:18: [^\n]*\n2 problems\n$/)
  const json = nfactor(['check', 'bad.yaml', '--json'])
  const document = JSON.parse(json.stdout) as { ok: boolean; problems: Record<string, unknown>[] }
  assert.equal(json.status, 1)
  assert.equal(document.ok, false)
  const { line, column, key } = document.problems[0] ?? {}
  assert.deepEqual([line, column, key], [2, 3, 'limits.flow'])
  assertFails(nfactor(['check', 'missing.yaml']), 'NF_FILE_NOT_FOUND', /missing\.yaml/)
})

test('the committed JSON Schema is current', async () => {
  const text = await schemaText()
  assert.equal(readFileSync(join(root, 'docs', 'config.schema.json'), 'utf8'), text, 'run: npm run schema')
  const schema = JSON.parse(text) as Record<string, any>
  assert.deepEqual(Object.keys(schema['properties']), ['$schema', 'chain', 'limits', 'timeouts', 'policy',
    'name', 'runtimes', 'placement', 'replication', 'replicas', 'scale', 'patience', 'controllers', 'etcd', 'api', 'token',
    'machines', 'launcher', 'container', 'cpus', 'ingress', 'egress'])
  const ofFirewall = schema['properties'].chain.items.anyOf.find((one: any) => one.properties?.nf.const === 'firewall')
  assert.ok('rules' in ofFirewall.properties.config.properties)
  assert.equal(nfactor(['schema']).stdout, text)
})

test('nf new writes an NF that passes its tests and runs; nothing is written over', () => {
  const made = nfactor(['nf', 'new', 'first-ten', '--dir', 'made'])
  assert.equal(made.status, 0, made.stderr)
  assert.match(made.stdout, /^made\/first-ten\.ts\nmade\/first-ten\.test\.ts\n/)
  const again = nfactor(['nf', 'new', 'first-ten', '--dir', 'made'])
  assertFails(again, 'NF_EXISTS', /made\/first-ten\.ts exists already/)
  const tested = nfactor(['nf', 'test', 'made/first-ten.ts'])
  assert.equal(tested.status, 0, tested.stdout + tested.stderr)
  assert.match(tested.stdout, /^first-ten {2}\d+ checks passed\n/)
  assert.match(tested.stdout, /pass 1/)
  const ran = nfactor(['run', web, '--chain', './made/first-ten.ts', '--set', 'chain.first-ten.packets=9', '--json'])
  assert.deepEqual((JSON.parse(ran.stdout) as Record<string, any>)['dropReasons'], { 'first-ten-too-many': 1 })
  assertFails(nfactor(['nf', 'new', 'First']), 'NF_USAGE', /cannot be the name/)
  assertFails(nfactor(['nf', 'new', 'first', '--dir', 'made/first-ten.ts/x']), 'NF_FILE_UNWRITABLE', /is a file/)
  assertFails(nfactor(['nf', 'new', 'http']), 'NF_EXISTS', /built-in/)
})

test('nf test finds what breaks the contract, and tests that fail', () => {
  const nf = (name: string, verdict: string): string => write(`${name}.ts`, `
import { defineNf, Verdict } from 'nfactor'
export default defineNf({
  name: '${name}', version: 1, dropReasons: { no: 'no' },
  create: (_config, { drop }) => ({ processPacket: () => ${verdict} }),
})
`)
  const random = nfactor(['nf', 'test', nf('moody', 'Math.random() < 0.5 ? drop.no : Verdict.Forward'), '--json'])
  assert.equal(random.status, 1)
  assert.match(random.stderr, /^error NF_NF_CONTRACT: moody failed/)
  const [report] = JSON.parse(random.stdout) as { ok: boolean; checks: { check: string; ok: boolean }[] }[]
  assert.equal(report?.ok, false)
  assert.equal(report?.checks.find(({ check }) => check === 'repeatable')?.ok, false)
  const plain = nf('plain', 'Verdict.Forward')
  write('plain.test.ts', "import { test } from 'node:test'\ntest('fails', () => { throw new Error('as it must') })\n")
  const failing = nfactor(['nf', 'test', plain])
  assert.equal(failing.status, 1)
  assert.match(failing.stdout, /plain {2}\d+ checks passed[^]*as it must/)
})

test('nf list describes the built-in ones', () => {
  const { stdout, status } = nfactor(['nf', 'list'])
  assert.equal(status, 0)
  for (const name of ['monitor', 'firewall', 'http']) assert.match(stdout, new RegExp(`^${name} {2}\\w`, 'm'))
  const described = JSON.parse(nfactor(['nf', 'list', 'firewall', '--json']).stdout) as Record<string, any>[]
  assert.equal(described[0]?.['name'], 'firewall')
  assert.ok('denied' in described[0]?.['dropReasons'])
})

test('the launcher runs the command, also from a Node that is too old', (t) => {
  const launcher = join(root, 'bin', 'nfactor.js')
  const started = spawnSync(process.execPath, [launcher, 'run', web, '--json'], { env, encoding: 'utf8' })
  assert.equal((JSON.parse(started.stdout) as Record<string, any>)['packets'].received, 12)
  const old = (process.env['PATH'] ?? '').split(delimiter).map((one) => join(one, 'node')).find((node) => {
    const version = existsSync(node) ? spawnSync(node, ['--version'], { encoding: 'utf8' }).stdout : ''
    return Number(/^v(\d+)/.exec(version)?.[1] ?? 24) < 24
  })
  if (old === undefined) return t.skip('there is no older Node on this machine')
  const bridged = spawnSync(old, [launcher, 'run', web, '--json'], { env, encoding: 'utf8' })
  assert.equal(bridged.status, 0, bridged.stderr)
  assert.equal((JSON.parse(bridged.stdout) as Record<string, any>)['packets'].received, 12)
  assert.equal(spawnSync(old, [launcher, 'run', 'missing.pcap'], { env, encoding: 'utf8' }).status, 1)
})

test('long captures are processed without a word on standard error, unless that is a terminal', () => {
  const packets = Array.from({ length: 20_000 }, (_unused, i) =>
    ({ frame: buildFrame({ udp: { sourcePort: i % 100 } }), time: 1e6 + i }))
  const { status, stderr } = nfactor(['run', write('long.pcap', captureBytes(packets)), '--chain', 'monitor'])
  assert.deepEqual([status, stderr], [0, ''])
})
