import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, test } from 'node:test'
import { CodedError } from '../base/coded-error.ts'
import { defaultLimits, defaultTimeouts } from '../base/limits.ts'
import { defaultPolicy } from '../runtime/engine.ts'
import { configError, resolveRunConfig, type RunConfig, type RunConfigSources } from './run-config.ts'

const folder = mkdtempSync(join(tmpdir(), 'nfactor-run-config-'))
after(() => rmSync(folder, { recursive: true }))

function write(name: string, text: string): string {
  const path = join(folder, name)
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, text)
  return path
}

const limiter = `
import { defineNf, Verdict, z } from 'nfactor'
export default defineNf({
  name: 'limiter', version: 1,
  config: z.object({
    packets: z.int().min(1).default(10),
    mode: z.enum(['soft', 'hard']).default('soft'),
    list: z.array(z.union([z.string(), z.object({ port: z.int() })])).default([]),
    nested: z.object({ on: z.boolean() }).optional(),
  }),
  create: () => ({ processPacket: () => Verdict.Forward }),
})
`
write('nfs/limiter.ts', limiter)

async function resolved(sources: RunConfigSources): Promise<RunConfig> {
  const { config, problems } = await resolveRunConfig(sources)
  assert.deepEqual(problems, [])
  assert.ok(config)
  return config
}

/** Problems as `PLACE: MESSAGE. MEND`, the file's name left out. */
async function problemsOf(sources: RunConfigSources): Promise<string[]> {
  const { config, problems } = await resolveRunConfig(sources)
  assert.equal(config, undefined)
  return problems.map(({ place, message, mend }) =>
    `${place.startsWith(folder) ? place.replace(/^.*?:/, '') : place}: ${message}${mend === '' ? '' : `. ${mend}`}`)
}

function chainOf(config: RunConfig): unknown[] {
  return config.chain.map(({ definition, config: own }) => [definition.name, own])
}

test('without anything: the standard chain and the defaults', async () => {
  const config = await resolved({})
  assert.deepEqual(config.chain.map(({ definition }) => definition.name), ['monitor', 'firewall', 'http'])
  assert.deepEqual(config.limits, defaultLimits)
  assert.deepEqual(config.timeouts, defaultTimeouts)
  assert.deepEqual(config.policy, defaultPolicy)
})

test('a YAML file', async () => {
  const file = write('run.yaml', `
chain:
  - monitor
  - nf: nfs/limiter.ts        # relative to this file
    config: { packets: 3 }
limits: { flows: 1000 }
timeouts:
  udp: 0.5
policy: { nonIp: drop }
`)
  const config = await resolved({ file })
  assert.deepEqual(chainOf(config), [['monitor', {}], ['limiter', { packets: 3, mode: 'soft', list: [] }]])
  assert.deepEqual(config.chain[1]?.given, { packets: 3 })
  assert.deepEqual(config.limits, { ...defaultLimits, flows: 1000 })
  assert.deepEqual(config.timeouts, { ...defaultTimeouts, udp: 0.5 })
  assert.deepEqual(config.policy, { ...defaultPolicy, nonIp: 'drop' })
})

test('the same as JSON, indented with tabs', async () => {
  const file = write('run.json',
    '{\n\t"$schema": "x.json",\n\t"chain": ["monitor"],\n\t"limits": {\n\t\t"flows": 5\n\t}\n}\n')
  assert.equal((await resolved({ file })).limits.flows, 5)
})

test('an empty file is all defaults', async () => {
  for (const text of ['', '# nothing\n', '{}']) {
    assert.equal((await resolved({ file: write('empty.yaml', text) })).chain.length, 3)
  }
})

test('a chain on the command line chooses, and keeps the configuration of those that the file has', async () => {
  const file = write('pick.yaml', `
chain:
  - monitor
  - { nf: ./nfs/limiter.ts, config: { packets: 7 } }
`)
  const limited = ['limiter', { packets: 7, mode: 'soft', list: [] }]
  assert.deepEqual(chainOf(await resolved({ file, chain: ['limiter'] })), [limited])
  const byPath = await resolved({ file, chain: [join(folder, 'nfs/limiter.ts'), 'monitor'] })
  assert.deepEqual(chainOf(byPath), [limited, ['monitor', {}]])
  const others = await resolved({ file, chain: ['monitor', 'http'] })
  assert.deepEqual(others.chain.map(({ definition }) => definition.name), ['monitor', 'http'])
})

test('single settings go over the file', async () => {
  const file = write('set.yaml',
    'chain: [monitor, { nf: nfs/limiter.ts, config: { packets: 3, list: [a] } }]\nlimits: { flows: 5 }\n')
  const settings = ['limits.flows=6', 'timeouts.tcp=1.5', 'policy.whenFull=evict', 'chain.limiter.packets=4',
    'chain.limiter.mode=hard', 'chain.limiter.list.0={ port: 5 }', 'chain.limiter.list.1=b',
    'chain.limiter.nested.on=true']
  const config = await resolved({ file, settings })
  assert.equal(config.limits.flows, 6)
  assert.equal(config.timeouts.tcp, 1.5)
  assert.equal(config.policy.whenFull, 'evict')
  assert.deepEqual(config.chain[1]?.config,
    { packets: 4, mode: 'hard', list: [{ port: 5 }, 'b'], nested: { on: true } })
})

test('every problem of the file, with its place, what is allowed and what was meant', async () => {
  const file = write('bad.yaml', `chain:
  - nf: 5
  - monitor
limits:
  flow: 10
  packets: "many"
  flows: 0
timeouts: { udp: -1, tcp: soon }
policy:
  nonIp: dropp
what: 1
`)
  assert.deepEqual(await problemsOf({ file }), [
    '2:9: chain[0].nf must be text, not 5',
    '5:3: there is no key "flow" in limits. Did you mean flows? Allowed are flows, unanswered, packets, ' +
      'largePackets, extentBytes, recordBytes, heldPerFlow, aliases, fragmentedDatagrams, fragmentsHeld, fragmentsHeldPerDatagram',
    '6:12: limits.packets must be a number, not "many"',
    '7:10: limits.flows must be at least 1. It is 0',
    '8:18: timeouts.udp must be at least 0.001. It is -1',
    '8:27: timeouts.tcp must be a number, not "soon"',
    '10:10: policy.nonIp must be pass or drop, not "dropp". Did you mean drop?',
    '11:1: there is no key "what". Allowed are chain, limits, timeouts, policy',
  ])
})

test('problems of the chain: names, files, and the configuration of each NF', async () => {
  write('nfs/broken.ts', 'const x: number = ;\n')
  const file = write('bad-chain.yaml', `chain:
  - monitr
  - nf: monitor
    config: { x: 1 }
  - nfs/broken.ts
  - nf: nfs/limiter.ts
    config:
      packets: 1.5
      moed: hard
      mode: hrad
      list: [80, { port: http }]
      nested: {}
`)
  const problems = await problemsOf({ file })
  assert.match(problems[0] as string, /^2:5: there is no network function "monitr"\. Did you mean monitor\?/)
  assert.equal(problems[1], '4:15: monitor: there is no key "x". It takes no configuration')
  assert.match(problems[2] as string, /^5:5: .*nfs\/broken\.ts:1:19: Expression expected\. Mend the line that is named$/)
  assert.deepEqual(problems.slice(3), [
    '8:16: limiter: packets must be a whole number, not 1.5',
    '9:7: limiter: there is no key "moed". Did you mean mode? Allowed are packets, mode, list, nested',
    '10:13: limiter: mode must be soft or hard, not "hrad". Did you mean hard?',
    '11:14: limiter: list[0] must be text or a mapping (key: value), not 80',
    '11:26: limiter: list[1].port must be a number, not "http"',
    '12:15: limiter: nested.on is missing. It must be true or false',
  ])
})

test('problems of settings and of the command line name the option', async () => {
  assert.deepEqual(await problemsOf({ chain: ['monitor'], settings: ['limits.flow=1', 'policy.nonIp=x'] }), [
    '--set limits.flow=1: there is no key "flow" in limits. Did you mean flows? Allowed are flows, unanswered, packets, ' +
      'largePackets, extentBytes, recordBytes, heldPerFlow, aliases, fragmentedDatagrams, fragmentsHeld, ' +
      'fragmentsHeldPerDatagram',
    '--set policy.nonIp=x: policy.nonIp must be pass or drop, not "x"',
  ])
  assert.deepEqual(await problemsOf({ chain: ['monitor'], settings: ['chain.monitr.x=1', 'chain.monitor.y=1'] }), [
    '--set chain.monitr.x=1: "monitr" is not in the chain. Did you mean monitor? The chain is monitor',
    '--set chain.monitor.y=1: monitor: there is no key "y". It takes no configuration',
  ])
  assert.match((await problemsOf({ chain: ['nope'] })).join(), /^--chain: there is no network function "nope"/)
  const file = write('fine.yaml', 'limits:\n  flows: 5\n')
  assert.deepEqual(await problemsOf({ file, settings: ['limits.flows.x=3'] }),
    ['--set limits.flows.x=3: limits.flows must be a number, not a mapping'])
})

test('a setting that is none', async () => {
  for (const [setting, message] of [
    ['limits', /it is not KEY=VALUE/], ['=5', /it is not KEY=VALUE/], ['limits.=5', /it is not KEY=VALUE/],
    ['limits=5', /the key is not complete/], ['chain.monitor=5', /the key is not complete/],
    ['limit.flows=5', /there is no "limit"/],
    ['limits.flows={', /the value is not valid/],
  ] as const) {
    await assert.rejects(resolveRunConfig({ settings: [setting] }),
      (error) => error instanceof CodedError && error.code === 'NF_USAGE' && message.test(error.message), setting)
  }
})

test('what is not YAML', async () => {
  const file = write('syntax.yaml', 'chain:\n  - a\n - b\n')
  const { problems } = await resolveRunConfig({ file })
  assert.ok(problems.length > 0)
  assert.ok(problems.every((problem) => problem.code === 'NF_CONFIG_SYNTAX' && problem.line === 3))
  const double = write('double.yaml', 'limits: {}\nlimits: {}\n')
  assert.deepEqual(await problemsOf({ file: double }), ['2:1: Map keys must be unique'])
  for (const [text, what] of [['- monitor\n', 'a list'], ['text\n', '"text"'], ['5\n', '5']]) {
    assert.deepEqual(await problemsOf({ file: write('kind.yaml', text as string) }),
      [`1:1: the configuration must be a mapping (key: value), not ${what}`])
  }
})

test('aliases are followed to where the value stands', async () => {
  const file = write('alias.yaml',
    'limits: &l\n  flows: no\ntimeouts: {}\npolicy: {}\nchain:\n  - { nf: monitor, config: *l }\n')
  assert.deepEqual(await problemsOf({ file }), ['2:10: limits.flows must be a number, not "no"'])
  const letter = (index: number): string => String.fromCharCode(97 + index)
  const levels = Array.from({ length: 12 }, (_, i) =>
    `${letter(i + 1)}: &${letter(i + 1)} [${`*${letter(i)}, `.repeat(9)}]\n`)
  const bomb = `a: &a [x, x, x, x, x, x, x, x, x]\n${levels.join('')}`
  await assert.rejects(resolveRunConfig({ file: write('bomb.yaml', bomb) }),
    (error) => error instanceof CodedError && error.code === 'NF_CONFIG_SYNTAX')
})

test('files that cannot be read', async () => {
  const code = (expected: string) => (error: unknown) => error instanceof CodedError && error.code === expected
  await assert.rejects(resolveRunConfig({ file: join(folder, 'missing.yaml') }), code('NF_FILE_NOT_FOUND'))
  await assert.rejects(resolveRunConfig({ file: folder }), code('NF_FILE_UNREADABLE'))
})

test('as one error: the first problem, and how to see the others', async () => {
  const file = write('two.yaml', 'limits: { flows: 0, packets: 0 }\n')
  const { problems } = await resolveRunConfig({ file })
  assert.equal(configError(problems, file).toLine(),
    `NF_CONFIG_INVALID: ${file}:1:18: limits.flows must be at least 1 (and 1 more: nfactor check ${file}). It is 0`)
})
