/** V8's helper threads of a cluster's process: one, and the thread that runs the node goes before it. */

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { test } from 'node:test'
import { HELPER_FLAGS } from './helper-threads.ts'

const PROGRAM = `
  import { readdirSync, readFileSync } from 'node:fs'
  import { getPriority } from 'node:os'
  import { lowerHelpers } from ${JSON.stringify(import.meta.resolve('./helper-threads.ts'))}
  import { endYielding } from ${JSON.stringify(import.meta.resolve('./start-priority.ts'))}
  const look = () => {
    const all = readdirSync('/proc/self/task').map((thread) => ({
      isHelper: readFileSync('/proc/self/task/' + thread + '/comm', 'utf8').startsWith('V8Worker'), priority: getPriority(Number(thread)) }))
    return { helpers: all.filter(({ isHelper }) => isHelper).map(({ priority }) => priority),
      others: [...new Set(all.filter(({ isHelper }) => !isHelper).map(({ priority }) => priority))] }
  }
  lowerHelpers()
  const first = look()
  process.env.NFACTOR_PRIORITY = String(getPriority())
  endYielding()
  console.log(JSON.stringify([first, look(), getPriority()]))`

test('there is one, with less priority, also when the process has taken its own back', {
  skip: process.platform !== 'linux' && 'threads have priorities of their own on Linux only', timeout: 30_000,
}, () => {
  const { stdout, stderr } = spawnSync(process.execPath, [...HELPER_FLAGS, '--input-type=module', '-e', PROGRAM], { encoding: 'utf8' })
  assert.notEqual(stdout, '', stderr)
  const [first, second, own] = JSON.parse(stdout) as [object, object, number]
  assert.deepEqual(first, { helpers: [Math.min(19, own + 10)], others: [own] })
  assert.deepEqual(second, first)
})
