/** docs/limits.md is held to what there is: defaults, codes, and the tests that reach each bound. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { MoveRefusal } from '../messages/migration.ts'
import { defaultRuntimeLimits, defaultRuntimeTimes } from '../runtime/runtime-context.ts'
import { defaultSessionSizes } from '../transport/session.ts'
import { defaultSwitchLimits, defaultSwitchTimes } from '../vswitch/switch-context.ts'

const source = join(import.meta.dirname, '..')
const text = readFileSync(join(source, '../docs/limits.md'), 'utf8')
const sections = new Map(text.split(/^## /m).map((section) => [/\(`(src\/\w+)`\)/.exec(section)?.[1] ?? '', section]))
const files = readdirSync(source, { recursive: true, encoding: 'utf8' }).filter((path) => path.endsWith('.test.ts'))

/** Names between backquotes in the first column, with the number in the second. */
function bounds(section: string): Map<string, string> {
  const rows = [...section.matchAll(/^\| ([^|]*`(\w+)`[^|]*) \| ([^|]*) \|/gm)]
  return new Map(rows.map(([, , name, value]) => [name as string, (value as string).replaceAll(',', '')]))
}

for (const [section, defaults, elsewhere] of [
  ['src/vswitch', { ...defaultSwitchLimits, ...defaultSwitchTimes }, ['packets', 'largePackets', 'sweepUs']],
  ['src/runtime', { ...defaultRuntimeLimits, ...defaultRuntimeTimes }, ['workloadUs']],
  ['src/transport', defaultSessionSizes, []],
] as const) {
  test(`the bounds of ${section} are listed with their defaults`, () => {
    const listed = bounds(sections.get(section) as string)
    for (const [name, value] of Object.entries(defaults)) {
      if ((elsewhere as readonly string[]).includes(name)) continue
      assert.equal(listed.get(name), String(value), name)
    }
  })
}

test('the tests that are named are there', () => {
  const named = [...text.matchAll(/([a-z-]+): ((?:"[^"]+"(?:,\s+)?)+)/g)]
  assert.ok(named.length > 50)
  for (const [, file, titles] of named) {
    const path = files.find((one) => one.endsWith(`/${file}.test.ts`))
    assert.ok(path !== undefined, `${file}.test.ts`)
    const tests = readFileSync(join(source, path), 'utf8').replaceAll("\\'", "'")
    for (const [, title] of (titles as string).matchAll(/"([^"]+)"/g)) {
      const start = (title as string).replace(/\s+/g, ' ')
      assert.ok(tests.includes(`test('${start}`) || tests.includes(`test(\`${start}`), `${file}: ${start}`)
    }
  }
})

test('every bound has a test', () => {
  const tables = text.matchAll(/^\| Bound \|.*\| Test \|\n\|[-|]+\|\n((?:\|.*\n)+)/gm)
  const rows = [...tables].flatMap(([, table]) => (table as string).trim().split('\n'))
  assert.ok(rows.length > 100, `${rows.length}`)
  for (const row of rows) assert.match(row.split(' | ').at(-1) as string, /^[a-z-]+: "|^as above |^the same test |^[a-z-]+: the same /, row)
})

test('every refusal and code is named', () => {
  for (const name of Object.keys(MoveRefusal)) if (name !== 'none') assert.ok(text.includes(`\`${name}\``), name)
  const node = readFileSync(join(source, 'node/runtime-node.ts'), 'utf8')
  for (const [, code] of node.matchAll(/refused\('(NF_\w+)'\)/g)) assert.ok(text.includes(`| \`${code}\` |`), code)
})
