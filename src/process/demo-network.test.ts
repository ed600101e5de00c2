/**
 * The demo's network in the hands of somebody who is not root: in namespaces of its own, with packet sockets at its interfaces. With
 * NFACTOR_FULL=1 the whole demo.
 */

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chownSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'

const NOBODY = 65534
const root = join(import.meta.dirname, '..', '..')
const asNobody = ['setpriv', '--reuid', `${NOBODY}`, '--regid', `${NOBODY}`, '--clear-groups']
const home = mkdtempSync(join(tmpdir(), 'nfactor-nobody-'))
after(() => { rmSync(home, { recursive: true, force: true }) })

const { NODE_TEST_CONTEXT: _, ...inherited } = process.env
const env = { ...inherited, HOME: home, TMPDIR: home, XDG_CACHE_HOME: home }

const can = (...command: string[]): boolean => spawnSync(command[0], command.slice(1), { env }).status === 0
const skip = process.getuid?.() !== 0 ? 'who is not root cannot become somebody else'
  : !can(...asNobody, process.execPath, '-e', `fs.readdirSync(${JSON.stringify(import.meta.dirname)})`) ? 'nobody cannot read this folder'
  : !can(...asNobody, 'unshare', '--user', '--map-root-user', '--net', '--mount', 'true') && 'user namespaces are not allowed here'

test('who is not root gets the demo\'s network in namespaces of his own', { skip, timeout: 60_000 }, () => {
  chownSync(home, NOBODY, NOBODY)
  const inside = `
import { DemoNetwork } from './src/process/demo-network.ts'
import { Arena } from './src/memory/arena.ts'
import { systemClock } from './src/ports/system-clock.ts'
import { createExternalPort } from './src/process/external-port.ts'
import { externalPortSchema } from './src/process/external-port-schema.ts'
if (DemoNetwork.ownNamespaces() !== undefined || DemoNetwork.obstacle() !== '') throw new Error('root can make what it needs')
const network = new DemoNetwork()
const config = externalPortSchema.parse({ type: 'af-packet', interface: 'in', namespace: network.middle })
const { port } = await createExternalPort(new Arena(), config, '.')
port.open()
for (let look = 0; look < 1000 && !port.isUp; look++) {
  port.maintain(systemClock.now())
  await new Promise((next) => setTimeout(next, 10))
}
console.log(port.isUp ? 'there is a port' : 'no port')
port.close()
network.close()
`
  const outside = `
import { spawnSync } from 'node:child_process'
import { DemoNetwork } from './src/process/demo-network.ts'
const command = DemoNetwork.ownNamespaces()
if (DemoNetwork.obstacle() === '' || command === undefined) throw new Error('nobody needs namespaces of his own')
const [program, ...args] = [...command, process.execPath, '--input-type=module-typescript', '-e', ${JSON.stringify(inside)}]
const { stdout, stderr } = spawnSync(program, args, { encoding: 'utf8' })
console.log(stdout + stderr)
`
  const [program, ...args] = [...asNobody, process.execPath, '--input-type=module-typescript', '-e', outside]
  const { stdout, stderr } = spawnSync(program, args, { encoding: 'utf8', cwd: root, env })
  assert.equal(`${stdout}${stderr}`.trim(), 'there is a port')
})

const fullSkip = skip || (process.env['NFACTOR_FULL'] !== '1' && 'NFACTOR_FULL=1 runs it')
test('the demo shows real programs to who is not root', { skip: fullSkip, timeout: 300_000 }, () => {
  chownSync(home, NOBODY, NOBODY)
  const [program, ...args] = [...asNobody, process.execPath, join(root, 'bin', 'nfactor.js'), 'demo']
  const { status, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8', cwd: home, env })
  assert.equal(status, 0, stdout + stderr)
  assert.match(stdout, /a client and a server, each in a network namespace/)
})
