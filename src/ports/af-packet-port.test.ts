import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { after, test } from 'node:test'
import { Arena } from '../memory/arena.ts'
import { foldSum } from '../wire/checksum.ts'
import { AfPacketPort, type AfPacketPortOptions } from './af-packet-port.ts'
import { loadFrameBytes } from './kernels/frame-bytes.ts'
import { interfaceContract, openEnds } from './interface-contract.ts'
import { portContract, type PortPair } from './port-contract.ts'
import * as sys from './sys.ts'
import { networkSkip, TestNetwork, until } from './test-network.ts'
import { hex, TestPortEnd } from './test-port-end.ts'

const skip = networkSkip()
const network = new TestNetwork()
after(() => { network.close() })

function createPair(mtu: number, frameBytes?: number): PortPair {
  const namespace = network.addNamespace()
  network.addVeth(namespace, 'left', namespace, 'right', mtu)
  const ends = ['left', 'right'].map((name) => {
    const arena = new Arena(48 << 20)
    const port = new AfPacketPort({ arena, interface: name, namespace, rxFrames: 240, txFrames: 60, reserved: 16, frameBytes })
    port.open()
    return { arena, port }
  })
  return {
    ends: [ends[0], ends[1]],
    capacity: 200,
    refusesWhenFull: false,
    frameBytes: { min: 21, ordinary: Math.min(1514, mtu + 14), max: mtu + 14 },
    close: () => { for (const { port } of ends) port.close() },
  }
}

for (const [mtu, frameBytes] of [[1500, undefined], [9000, undefined], [1500, 2048]]) {
  for (const [name, check] of Object.entries(portContract)) {
    test(`AF_PACKET, MTU ${mtu}${frameBytes === undefined ? '' : `, ring frames of ${frameBytes}`}: ${name}`, { skip }, () => {
      const pair = createPair(mtu as number, frameBytes)
      try {
        check(pair)
      } finally {
        pair.close()
      }
    })
  }
}

const CHILD = `
  import { AfPacketPort } from ${JSON.stringify(new URL('./af-packet-port.ts', import.meta.url))}
  import { Arena } from ${JSON.stringify(new URL('../memory/arena.ts', import.meta.url))}
  try { new AfPacketPort({ arena: new Arena(64 << 20), interface: 'lo', rxFrames: 15, txFrames: 15 }).open() }
  catch (error) { console.log(error.toLine()) }`

/** A port, with what it takes to use it. */
function createEnd(name: string, namespace: string, options: Partial<AfPacketPortOptions> = {}): TestPortEnd<AfPacketPort> {
  return new TestPortEnd((arena) => new AfPacketPort({ arena, interface: name, namespace, rxFrames: 240, txFrames: 60, ...options }))
}

const subject = { network, createEnd }
for (const [name, check] of Object.entries(interfaceContract)) {
  test(`AF_PACKET: ${name}`, { skip }, async () => { await check(subject) })
}

test('AF_PACKET: frames too long for the ring are counted, both ways', { skip }, async () => {
  const createSmall: typeof createEnd = (name, namespace) => createEnd(name, namespace, { frameBytes: 2048 })
  const { namespace, left, right } = await openEnds({ network, createEnd: createSmall }, {}, 3000)
  const big = createEnd('left', namespace)
  big.port.open()
  await until('it is up', big.turn, () => big.port.isUp)
  const head = hex('020000000001 020000000002 88b6')
  assert.equal(left.port.frameBytesMax, 2006)
  assert.equal(left.port.send(left.frame, left.put(head, new Uint8Array(2006 - 13))), false)
  assert.ok(left.port.send(left.frame, left.put(head, new Uint8Array(1900))))
  assert.ok(big.port.send(big.frame, big.put(head, new Uint8Array(2500))))
  const frames: Uint8Array[] = []
  const turn = (): void => { left.turn(); big.turn(); frames.push(...right.receive()) }
  await until('both have come', turn, () => frames.length + right.port.statistics.rxOversize === 2, 3000)
  assert.deepEqual([frames.length, right.port.statistics.rxOversize, left.port.statistics.txOversize], [1, 1, 1])
  assert.throws(() => createEnd('left', namespace, { frameBytes: 3000 }), { code: 'NF_CONFIG_INVALID' })
  for (const { port } of [left, right, big]) port.close()
})

test('AF_PACKET: datagrams that UDP has put together are received one by one', { skip }, async () => {
  const namespace = network.addNamespace()
  const host = network.addNamespace()
  network.addVeth(host, 'eth0', namespace, 'left')
  network.addAddresses(host, 'eth0', '10.8.0.1/24')
  network.run(host, 'ip', 'neigh', 'add', '10.8.0.2', 'lladdr', '02:00:00:00:00:09', 'dev', 'eth0')
  const end = createEnd('left', namespace)
  end.port.open()
  await until('it is up', end.turn, () => end.port.isUp)
  const socket = sys.inNamespace(host, () => sys.socket(2, 2, 0))
  try {
    const address = sys.scratch(16)
    address.setUint16(0, 2, true)
    new Uint8Array(address.buffer).set([0x23, 0x28, 10, 8, 0, 2], 2)
    assert.equal(sys.connect(socket, address), 0)
    // SOL_UDP, UDP_SEGMENT.
    assert.equal(sys.setNumber(socket, 17, 103, 1000), 0)
    const data = sys.scratch(30_300)
    for (let i = 0; i < data.byteLength; i++) data.setUint8(i, (i * 7) >> 3)
    assert.equal(sys.write(socket, data), data.byteLength)
    const frames: Uint8Array[] = []
    // In small batches, so that the frame is left and taken up again.
    await until('all have come', () => { frames.push(...end.receive(4)) }, () => frames.length === 31, 3000)
    const bytes = loadFrameBytes(end.arena)
    const payloads = frames.map((frame) => {
      end.put(frame)
      const at = end.frame
      assert.equal(end.arena.view.getUint16(at + 16), frame.length - 14)
      assert.equal(end.arena.view.getUint16(at + 38), frame.length - 34)
      assert.equal(foldSum(bytes.sumBytes(at + 26, 8) + 17 + frame.length - 34 + bytes.sumBytes(at + 34, frame.length - 34)), 0xffff)
      return frame.subarray(42)
    })
    assert.ok(Buffer.concat(payloads).equals(new Uint8Array(data.buffer)))
    assert.equal(end.port.statistics.rxFrames, 31)
    assert.equal(end.pool.used, 0)
  } finally {
    sys.close(socket)
    end.port.close()
  }
})

test('AF_PACKET: rings that are not possible are refused', { skip }, () => {
  assert.throws(() => createEnd('left', network.addNamespace(), { rxFrames: 0 }), { code: 'NF_CONFIG_INVALID' })
})

const OWN_NAMESPACE = `
  import { execFileSync } from 'node:child_process'
  import { AfPacketPort } from ${JSON.stringify(new URL('./af-packet-port.ts', import.meta.url))}
  import { Arena } from ${JSON.stringify(new URL('../memory/arena.ts', import.meta.url))}
  import { portContract } from ${JSON.stringify(new URL('./port-contract.ts', import.meta.url))}
  execFileSync('ip', ['link', 'add', 'name', 'left', 'type', 'veth', 'peer', 'name', 'right'])
  for (const end of ['left', 'right']) execFileSync('ip', ['link', 'set', end, 'addrgenmode', 'none', 'up'])
  for (const check of Object.values(portContract)) {
    const ends = ['left', 'right'].map((name) => {
      const arena = new Arena(48 << 20)
      const port = new AfPacketPort({ arena, interface: name, rxFrames: 240, txFrames: 60 })
      port.open()
      return { arena, port }
    })
    check({ ends, capacity: 200, refusesWhenFull: false, frameBytes: { min: 21, ordinary: 1514, max: 1514 } })
    for (const { port } of ends) port.close()
  }
  console.log('done')`

test('AF_PACKET: in a user namespace of its own it needs no privilege', { skip }, (context) => {
  const options = { uid: 65_534, gid: 65_534, encoding: 'utf8', timeout: 60_000 } as const
  if (spawnSync('unshare', ['-Urn', process.execPath, '--version'], options).status !== 0) {
    context.skip('user namespaces, or the sources, are closed to other users')
    return
  }
  const { stdout, stderr } = spawnSync('unshare', ['-Urn', process.execPath, '--input-type=module', '-e', OWN_NAMESPACE], options)
  assert.equal(stdout, 'done\n', stderr)
})

test('AF_PACKET: without the privilege the port says so', { skip }, (context) => {
  const { stdout, stderr, status } = spawnSync(process.execPath, ['--input-type=module', '-e', CHILD],
    { uid: 65_534, gid: 65_534, encoding: 'utf8', timeout: 20_000 })
  if (status !== 0 && /EACCES|ERR_MODULE_NOT_FOUND|permission denied/i.test(stderr)) {
    context.skip('the sources cannot be read by another user')
    return
  }
  assert.match(stdout, /^NF_PORT_PRIVILEGE: port lo cannot have a packet socket: EPERM: .*CAP_NET_RAW.*\n$/, stderr)
})
