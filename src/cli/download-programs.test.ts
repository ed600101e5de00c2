/** Programs beside a cluster: a session of their own each, and none is left behind. */

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { missingPrograms } from '../e2e/services.ts'
import { KEEPER, spawnApart } from '../e2e/spawn-apart.ts'
import { networkSkip, TestNetwork } from '../ports/test-network.ts'

const skip = networkSkip() || (missingPrograms.includes(KEEPER) && `not installed: ${KEEPER}`)

/** State and session of a process, from `/proc/PID/stat` behind the name; undefined if it is gone. */
function statOf(pid: number): { readonly state: string, readonly session: number } | undefined {
  try {
    const [state, , , session] = (readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1] as string).split(' ')
    return { state, session: Number(session) }
  } catch {
    return undefined
  }
}

/** Nothing of it runs any more, though nobody may have asked how it ended. */
const hasEnded = (pid: number): boolean => (statOf(pid)?.state ?? 'Z') === 'Z'

test('programs have sessions of their own, and end with who has started them', { skip, timeout: 30_000 }, async (context) => {
  const network = new TestNetwork()
  context.after(() => { network.close() })
  const namespace = network.addNamespace()
  // Stands for a demonstration, or a test, that is killed.
  const starter = `
    import { serverProgram, startProgram } from '${join(import.meta.dirname, 'download-programs.ts')}'
    import { spawnApart } from '${join(import.meta.dirname, '../e2e/spawn-apart.ts')}'
    const server = startProgram('${namespace}', serverProgram)
    const sleeper = spawnApart('sleep', ['60'], { stdio: 'ignore' })
    server.stdout.once('data', () => { console.log(server.pid, sleeper.pid) })`
  const parent = spawn(process.execPath, ['--input-type=module', '-e', starter], { stdio: ['ignore', 'pipe', 'inherit'] })
  context.after(() => { parent.kill('SIGKILL') })
  const said = await new Promise<string>((resolve) => { parent.stdout.setEncoding('utf8').once('data', resolve) })
  const pids = said.trim().split(' ').map(Number)
  for (const pid of pids) assert.equal(statOf(pid)?.session, pid)
  parent.kill('SIGKILL')
  for (let left = 100; left > 0 && !pids.every(hasEnded); left--) await sleep(50)
  assert.ok(pids.every(hasEnded))
})

test('a program that is killed says so', { skip }, async () => {
  const child = spawnApart('sleep', ['60'], { stdio: 'ignore' })
  const signal = new Promise((resolve) => { child.on('close', (_, by) => { resolve(by) }) })
  child.kill('SIGTERM')
  assert.equal(await signal, 'SIGTERM')
})
