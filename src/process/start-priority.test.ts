/** A process that begins beside others that work has less priority until it says that it works, in all its threads but V8's helpers. */

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { getPriority } from 'node:os'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { beginYielding, mayRaisePriority, yieldingEnvironment } from './start-priority.ts'

const skip = !mayRaisePriority() && 'a process here could not have its priority back'

test('a process yields while it starts, and no longer', { skip, timeout: 30_000 }, async (context) => {
  const program = `
    import { readdirSync, readFileSync } from 'node:fs'
    import { getPriority } from 'node:os'
    import { once } from 'node:events'
    import { endYielding } from ${JSON.stringify(import.meta.resolve('./start-priority.ts'))}
    const isHelper = (thread) => readFileSync('/proc/self/task/' + thread + '/comm', 'utf8').startsWith('V8Worker')
    const threads = () => readdirSync('/proc/self/task').filter((thread) => !isHelper(thread))
    const all = () => JSON.stringify([...new Set(threads().map((thread) => getPriority(Number(thread))))])
    await once(process.stdin, 'data')
    const before = getPriority()
    endYielding()
    console.log(JSON.stringify([before, all(), Object.keys(process.env).includes('NFACTOR_PRIORITY')]))
    process.exit(0)`
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
    stdio: ['pipe', 'pipe', 'inherit'], env: { ...process.env, ...yieldingEnvironment() } })
  context.after(() => { child.kill('SIGKILL') })
  beginYielding(child.pid as number)
  const own = getPriority()
  assert.equal(getPriority(child.pid), Math.min(19, own + 5))
  await sleep(300)
  child.stdin.write('go\n')
  const [printed] = await once(child.stdout, 'data') as [Buffer]
  assert.deepEqual(JSON.parse(printed.toString()), [Math.min(19, own + 5), `[${own}]`, false])
})

test('one that was not started so keeps what it has', { timeout: 30_000 }, async () => {
  const { endYielding } = await import('./start-priority.ts')
  const before = getPriority()
  endYielding()
  assert.equal(getPriority(), before)
})
