/**
 * External ports that may turn out to be others than they were configured as.
 */

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { after, test } from 'node:test'
import { Arena } from '../memory/arena.ts'
import { AfPacketPort } from '../ports/af-packet-port.ts'
import { AfXdpPort } from '../ports/af-xdp-port.ts'
import { TestNetwork } from '../ports/test-network.ts'
import { xdpSkip } from '../ports/test-xdp.ts'
import { createExternalPort, type ExternalPort } from './external-port.ts'
import { externalPortSchema } from './external-port-schema.ts'

const skip = xdpSkip()
const network = new TestNetwork()
after(() => { network.close() })

async function create(config: Record<string, unknown>): Promise<ExternalPort> {
  return await createExternalPort(new Arena(128 << 20), externalPortSchema.parse({ type: 'af-xdp', ...config }), '.')
}

test('a packet socket takes the place of AF_XDP where that cannot be had, unless it must not', { skip }, async () => {
  const namespace = network.addNamespace()
  network.addVeth(namespace, 'left', namespace, 'right')
  const external = await create({ interface: 'left', namespace, mode: 'generic', frames: 256 })
  assert.ok(external.port instanceof AfXdpPort)
  assert.deepEqual([external.warning, external.how?.()], [undefined, 'AF_XDP, generic, 1 queue'])
  // Somebody else has the interface: a packet socket would get no frames.
  await assert.rejects(create({ interface: 'left', namespace }), { code: 'NF_PORT_BUSY' })
  await assert.rejects(create({ interface: 'none', namespace }), { code: 'NF_PORT_INTERFACE' })
  external.port.close()
  assert.equal(external.how?.(), 'AF_XDP, not open: ')

  network.addVeth(namespace, 'long', namespace, 'other', 9000)
  const instead = await create({ interface: 'long', namespace })
  assert.ok(instead.port instanceof AfPacketPort)
  assert.match(instead.warning ?? '', /^port long: AF_PACKET in place of AF_XDP: NF_PORT_UNSUPPORTED: .* MTU of 9000\. .*3818 can be taken\.$/)
  instead.port.open()
  instead.port.close()
  await assert.rejects(create({ interface: 'long', namespace, fallback: false }), { code: 'NF_PORT_UNSUPPORTED', message: /MTU of 9000/ })
})

const PROGRAM = `
  import { execFileSync } from 'node:child_process'
  import { Arena } from ${JSON.stringify(new URL('../memory/arena.ts', import.meta.url))}
  import { createExternalPort } from ${JSON.stringify(new URL('./external-port.ts', import.meta.url))}
  execFileSync('ip', ['link', 'add', 'name', 'left', 'type', 'veth', 'peer', 'name', 'right'])
  for (const fallback of [true, false]) {
    await createExternalPort(new Arena(128 << 20), { type: 'af-xdp', interface: 'left', fallback }, '.').then(({ port, warning }) => {
      port.open()
      console.log(warning)
    }, (error) => { console.log(error.toLine()) })
  }`

test('without the privilege for AF_XDP a packet socket does', { skip }, (context) => {
  const { status, stdout, stderr } = spawnSync('unshare', ['-Urn', process.execPath, '--input-type=module', '-e', PROGRAM],
    { uid: 65_534, gid: 65_534, encoding: 'utf8', timeout: 20_000 })
  if (status !== 0 && /EACCES|ERR_MODULE_NOT_FOUND|permission denied|unshare/i.test(stderr)) {
    return context.skip('user namespaces, or the sources, are closed to other users')
  }
  const [instead, failed, ...rest] = stdout.split('\n')
  assert.match(instead, /^port left: AF_PACKET in place of AF_XDP: NF_PORT_PRIVILEGE: .*EPERM.*CAP_BPF/, stderr)
  assert.match(failed, /^NF_PORT_PRIVILEGE: .*EPERM/)
  assert.deepEqual(rest, [''])
})
