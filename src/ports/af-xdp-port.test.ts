/**
 * AF_XDP ports on veths in namespaces of the test's own: the contract in each mode that a veth has, what becomes of frames that are not
 * ordinary, interfaces that come and go, and what is left of a process that was killed.
 */

import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { cpus } from 'node:os'
import { after, test } from 'node:test'
import { Arena } from '../memory/arena.ts'
import { buildFrame, checksumFault, layersOf, type FrameOptions } from '../testing/packet-builder.ts'
import { foldSum, sumBytes } from '../wire/checksum.ts'
import { AfXdpPort, type AfXdpPortOptions } from './af-xdp-port.ts'
import type { AfXdpMode } from './af-xdp-socket.ts'
import {
  assertFailsToOpen, interfaceContract, openEnds, receiveFrames, type Ends, type InterfaceSubject,
} from './interface-contract.ts'
import { portContract } from './port-contract.ts'
import { waitForPorts } from './port-waiter.ts'
import * as sys from './sys.ts'
import { run, TestNetwork, until } from './test-network.ts'
import { hex, TestPortEnd } from './test-port-end.ts'
import { ethtoolSkip, xdpSkip } from './test-xdp.ts'

const skip = xdpSkip()
const network = new TestNetwork()
after(() => { network.close() })

/** The rings of both ends of a veth, and the modes in which frames can come over one. */
const RINGS = { rxFrames: 256, txFrames: 64, reserved: 16 } as const
const MODES = ['copy', 'generic'] as const

for (const [mode, mtu] of [['copy', 1500], ['generic', 1500], ['copy', 3400]] as const) {
  for (const [name, check] of Object.entries(portContract)) {
    // Larger chunks differ in nothing else.
    if (mtu > 1500 && !/whole and in order|too long/.test(name)) continue
    test(`AF_XDP, ${mode}, MTU ${mtu}: ${name}`, { skip }, () => {
      const namespace = network.addNamespace()
      network.addVeth(namespace, 'left', namespace, 'right', mtu)
      const [left, right] = ['left', 'right'].map((side) => {
        const arena = new Arena(48 << 20)
        return { arena, port: new AfXdpPort({ arena, interface: side, namespace, mode, ...RINGS }) }
      })
      try {
        for (const { port } of [left, right]) {
          port.open()
          assert.equal(port.mode, mode)
        }
        check({
          ends: [left, right], capacity: 200, refusesWhenFull: false, close: () => {},
          frameBytes: { min: 21, ordinary: Math.min(1514, mtu + 14), max: mtu + 14 },
        })
      } finally {
        for (const { port } of [left, right]) port.close()
      }
    })
  }
}

type End = TestPortEnd<AfXdpPort>

function createEnd(name: string, namespace: string, options: Partial<AfXdpPortOptions> = {}): End {
  return new TestPortEnd((arena) => new AfXdpPort({ arena, interface: name, namespace, ...RINGS, ...options }))
}

for (const mode of MODES) {
  const subject: InterfaceSubject = { network, createEnd: (name, namespace, options) => createEnd(name, namespace, { mode, ...options }) }
  for (const [name, check] of Object.entries(interfaceContract)) {
    test(`AF_XDP, ${mode}: ${name}`, { skip }, async () => { await check(subject) })
  }
}

async function createEnds(mode: AfXdpMode = 'zero-copy'): Promise<Ends<AfXdpPort>> {
  return await openEnds({ network, createEnd: (name, namespace, options) => createEnd(name, namespace, { mode, ...options }) })
}

const HEAD = hex('020000000001 020000000002 88b6')

/** Where a frame has its checksum of TCP or UDP, and what it would hold if that were not finished. */
function unfinished(frame: Uint8Array): { field: number, sum: number } {
  const { network: ip, transport, protocol, end } = layersOf(frame)
  const addresses = frame[ip] >> 4 === 4 ? sumBytes(frame, ip + 12, 8) : sumBytes(frame, ip + 8, 32)
  return { field: transport + (protocol === 6 ? 16 : 6), sum: foldSum(addresses + protocol + end - transport) }
}

test('AF_XDP: a checksum that the sender has left to its card is finished, any other stays', { skip }, async () => {
  const { left, right, close } = await createEnds()
  const view = (frame: Uint8Array): DataView => new DataView(frame.buffer, frame.byteOffset)
  const pass = async (frame: Uint8Array): Promise<Uint8Array> => {
    assert.ok(left.port.send(left.frame, left.put(frame)))
    const [got] = await receiveFrames(left, right, 1)
    return got
  }
  const ipv6 = { source: 'fd00::1', destination: 'fd00::2' }
  const options: FrameOptions[] = [
    { tcp: { payload: 'some text' } }, { udp: { payload: 'odd' } }, { ...ipv6, tcp: { payload: 'x'.repeat(700) } },
    { ...ipv6, extensions: [{ type: 60 }], udp: { payload: 'even' } }, { vlans: [7], tcp: { payload: 'tagged' } },
    { udp: { payload: 'padded' }, trailer: new Uint8Array(20).fill(3) },
  ]
  for (const one of options) {
    const right = buildFrame(one)
    assert.deepEqual(await pass(right), right, 'a right one stays')
    const { field, sum } = unfinished(right)
    const left = right.slice()
    view(left).setUint16(field, sum)
    assert.deepEqual(await pass(left), right, 'an unfinished one is finished')
    const damaged = right.slice()
    damaged[field] ^= 1
    assert.notEqual(checksumFault(damaged), '')
    assert.deepEqual(await pass(damaged), damaged, 'a wrong one stays wrong')
  }
  // A right checksum that looks like an unfinished one: a word of the payload makes up the difference.
  const plain = buildFrame({ tcp: { payload: '\0\0' } })
  const { field, sum } = unfinished(plain)
  const word = (view(plain).getUint16(field) - sum + 0xffff) % 0xffff
  const alike = buildFrame({ tcp: { payload: String.fromCharCode(word >> 8, word & 255) } })
  assert.equal(view(alike).getUint16(field), sum)
  assert.equal(checksumFault(alike), '')
  assert.deepEqual(await pass(alike), alike)
  // No checksum at all, and fragments, which have none of their own.
  for (const one of [{ udp: { checksum: false, payload: 'none' } }, { fragment: { offset: 0, more: true }, udp: { payload: '12345678' } }]) {
    const frame = buildFrame(one)
    assert.deepEqual(await pass(frame), frame)
  }
  close()
})

test('AF_XDP: a segment that another port has left whole is cut', { skip }, async () => {
  const { left, right, close } = await createEnds()
  const payload = Uint8Array.from({ length: 20_000 }, (_, i) => (i * 7) >> 3)
  for (const [one, segmentBytes, expected] of [
    [{ tcp: { sequence: 0xffff_ff00, flags: 'PA', payload } }, 1000, 20], [{ tcp: { payload } }, 0, Math.ceil(20_000 / 1460)],
    [{ source: 'fd00::1', destination: 'fd00::2', tcp: { payload } }, 5000, Math.ceil(20_000 / 1440)],
  ] as const) {
    const length = left.put(buildFrame(one))
    left.arena.u16[(left.frame - 2) >> 1] = segmentBytes
    assert.ok(left.port.send(left.frame, length))
    const frames = await receiveFrames(left, right, expected)
    assert.equal(frames.length, expected)
    for (const frame of frames) assert.equal(checksumFault(frame), '')
    assert.ok(Buffer.concat(frames.map((frame) => frame.subarray(layersOf(frame).transport + 20))).equals(payload))
  }
  const tiny = left.put(buildFrame({ tcp: { payload: payload.subarray(0, 2000) } }))
  left.arena.u16[(left.frame - 2) >> 1] = 20
  assert.equal(left.port.send(left.frame, tiny), false, '100 frames never have room')
  assert.equal(left.port.statistics.txOversize, 1)
  close()
})

test('AF_XDP: a segment is cut whole or not at all, and what has not left is counted as lost', { skip }, async () => {
  const { namespace, left, right, close } = await createEnds()
  await until('the kernel has given all back', left.turn, () => left.port.room === 64 - 16)
  const { txFrames: before } = left.port.statistics
  // The port has not noticed yet; the kernel takes nothing.
  network.run(namespace, 'ip', 'link', 'set', 'left', 'down')
  for (let i = 0; i < 40; i++) assert.ok(left.port.send(left.frame, left.put(HEAD, new Uint8Array(60))))
  assert.equal(left.port.room, 8)
  const length = left.put(buildFrame({ tcp: { payload: new Uint8Array(20_000) } }))
  assert.equal(left.port.send(left.frame, length), false)
  assert.deepEqual([left.port.room, left.port.statistics.txFrames - before, left.port.statistics.txFull], [8, 40, 1])
  assert.ok(left.port.sendReserved(left.frame, length), 'there is room in the reserve')
  assert.equal(left.port.room, 0)
  const sent = left.port.statistics.txFrames - before
  close()
  assert.deepEqual([sent, left.port.statistics.txLost, right.receive().length], [40 + 14, 54, 0])
})

test('AF_XDP: what finds no room is counted, and so is what is too long', { skip }, async () => {
  for (const mode of MODES) {
    const { left, right, close } = await createEnds(mode)
    for (let i = 0; i < 300; i++) assert.ok(left.port.send(left.frame, left.put(HEAD, new Uint8Array(60))))
    left.turn()
    for (let i = 0; i < 3; i++) right.port.maintain(i)
    assert.equal(right.port.statistics.rxMissed, 300 - 256, mode)
    assert.equal((await receiveFrames(left, right, 256)).length, 256)
    assert.deepEqual([right.port.statistics.rxOversize, left.port.statistics.txFull, right.pool.used], [0, 0, 0])
    close()
  }
})

/** A host whose interface leads to a port, and whose stack believes that there is another host. */
async function createHost(queues: number, mode: AfXdpMode = 'zero-copy'): Promise<{ end: End, host: string, namespace: string }> {
  const [namespace, host] = [network.addNamespace(), network.addNamespace()]
  network.addVeth(host, 'eth0', namespace, 'left', 1500, queues)
  network.addAddresses(host, 'eth0', '10.8.0.1/24')
  network.run(host, 'ip', 'neigh', 'add', '10.8.0.2', 'lladdr', '02:00:00:00:00:09', 'dev', 'eth0')
  const end = createEnd('left', namespace, { mode })
  end.port.open()
  await until('it is up', end.turn, () => end.port.isUp)
  return { end, host, namespace }
}

/** A UDP socket of that host's stack, connected to a port of the other one. */
function connectUdp(host: string, port: number): number {
  const socket = sys.inNamespace(host, () => sys.socket(2, 2, 0))
  const address = sys.scratch(16)
  address.setUint16(0, 2, true)
  new Uint8Array(address.buffer).set([port >> 8, port & 255, 10, 8, 0, 2], 2)
  assert.equal(sys.connect(socket, address), 0)
  return socket
}

test('AF_XDP: datagrams that UDP has put together come one by one, or are counted where they come as one', { skip }, async () => {
  for (const mode of MODES) {
    const { end, host } = await createHost(1, mode)
    const socket = connectUdp(host, 9000)
    try {
      // SOL_UDP, UDP_SEGMENT.
      assert.equal(sys.setNumber(socket, 17, 103, 1000), 0)
      assert.equal(sys.write(socket, sys.scratch(30_300)), 30_300)
      if (mode === 'copy') {
        // The kernel lets nobody send such over a veth whose other end has a program of the driver's.
        const frames = await receiveFrames(end, end, 31)
        for (const frame of frames) assert.equal(checksumFault(frame), '')
      } else {
        await until('it is counted', end.turn, () => end.port.statistics.rxOversize === 1, 3000)
        assert.equal(end.port.statistics.rxMissed, 0)
      }
    } finally {
      sys.close(socket)
      end.port.close()
    }
  }
})

test('AF_XDP: frames come by every queue of the interface', { skip: ethtoolSkip() }, async () => {
  const { end, host, namespace } = await createHost(4)
  assert.deepEqual([end.port.queues, end.port.mode], [4, 'copy'])
  const send = `const socket = require('dgram').createSocket('udp4')
    socket.bind(() => socket.connect(9000, '10.8.0.2', async () => {
      for (let i = 0; i < 10; i++) await new Promise((resolve) => socket.send(Buffer.from([i]), resolve))
      socket.close() }))`
  const program = `for (let n = 0; n < 40; n++) { ${send} }`
  assert.equal(spawnSync('ip', ['netns', 'exec', host, process.execPath, '-e', program], { encoding: 'utf8', timeout: 10_000 }).stderr, '')
  const frames = await receiveFrames(end, end, 400)
  const next = new Map<number, number>()
  for (const frame of frames) {
    assert.equal(checksumFault(frame), '')
    const from = (frame[34] << 8) | frame[35]
    assert.equal(frame[42], next.get(from) ?? 0, 'the frames of a flow are in order')
    next.set(from, frame[42] + 1)
  }
  assert.equal(next.size, 40)
  const counts = [...run('ip', 'netns', 'exec', namespace, 'ethtool', '-S', 'left').matchAll(/rx_queue_(\d)_xdp_packets: (\d+)/g)]
  assert.equal(counts.length, 4)
  assert.ok(counts.filter(([, , count]) => Number(count) > 0).length > 1, `${counts}`)
  end.port.close()
})

test('AF_XDP: queues take turns, and each of them wakes who sleeps', { skip: ethtoolSkip() }, async () => {
  const { end, host } = await createHost(2)
  const everyCpu = ((1n << BigInt(cpus().length)) - 1n).toString(16).replaceAll(/(?<=.)(?=(?:.{8})+$)/g, ',')
  /** Sends datagrams by one of the queues, to a port whose number ends in the queue's. */
  const send = (queue: number, count: number): void => {
    const steer = [0, 1].map((one) => `echo ${one === queue ? everyCpu : 0} > /sys/class/net/eth0/queues/tx-${one}/xps_cpus`)
    network.run(host, 'sh', '-c', steer.join('; '))
    const socket = connectUdp(host, 0x2400 + queue)
    for (let i = 0; i < count; i++) assert.equal(sys.write(socket, sys.scratch(20)), 20)
    sys.close(socket)
  }
  for (const queue of [1, 0]) {
    assert.equal(await waitForPorts([end.port], 20), false)
    const waiting = waitForPorts([end.port], 5000)
    send(queue, 1)
    assert.equal(await waiting, true)
    assert.deepEqual((await receiveFrames(end, end, 1)).map((frame) => frame[37]), [queue])
  }
  for (const queue of [0, 1]) send(queue, 12)
  const batches = Array.from({ length: 6 }, () => end.receive(4).map((frame) => frame[37]))
  assert.deepEqual(batches.map((batch) => batch.length), [4, 4, 4, 4, 4, 4])
  for (let i = 0; i < 6; i++) assert.deepEqual(new Set(batches[i]), new Set([i % 2 === 0 ? batches[0][0] : 1 - batches[0][0]]))
  end.port.close()
})

test('AF_XDP: an interface that gets more queues has sockets at all of them', { skip: ethtoolSkip() }, async () => {
  const namespace = network.addNamespace()
  network.addVeth(namespace, 'left', namespace, 'right', 1500, 4)
  for (const name of ['right', 'left']) network.run(namespace, 'ethtool', '-L', name, 'rx', '2', 'tx', '2')
  const end = createEnd('left', namespace)
  end.port.open()
  await until('it has two queues', end.turn, () => end.port.queues === 2 && end.port.isUp)
  // What comes behind the port's memory is not touched when it needs more.
  const behind = end.arena.allocate('behind', 4 << 20)
  end.arena.u8.fill(0x5a, behind, behind + (4 << 20))
  network.run(namespace, 'ethtool', '-L', 'left', 'rx', '3')
  // The port may have to try again, for another reason: while the kernel has not let go of the old sockets their queues are taken.
  const ends = new Set<string>()
  await until('it has three queues', () => { ends.add(end.port.lastEnd); return end.turn() }, () => end.port.queues === 3 && end.port.isUp)
  ends.add(end.port.lastEnd)
  assert.match([...ends].join('; '), /interface left has 3 queues now/)
  end.port.close()
  assert.ok(end.arena.u8.subarray(behind, behind + (4 << 20)).every((byte) => byte === 0x5a))
})

/** Whether an interface has a program. */
function hasProgram(namespace: string, name: string): boolean {
  return /\bxdp/.test(run('ip', '-n', namespace, 'link', 'show', name))
}

const OPENS = (name: string, namespace: string | undefined): string => `
  import { AfXdpPort } from ${JSON.stringify(new URL('./af-xdp-port.ts', import.meta.url))}
  import { Arena } from ${JSON.stringify(new URL('../memory/arena.ts', import.meta.url))}
  const arena = new Arena(64 << 20)
  try { new AfXdpPort({ arena, interface: '${name}', namespace: ${JSON.stringify(namespace)} }).open() }
  catch (error) { console.log(error.toLine()); process.exit() }
  console.log('open')`

test('AF_XDP: nothing is left of a process that was killed', { skip, timeout: 20_000 }, async () => {
  const namespace = network.addNamespace()
  network.addVeth(namespace, 'left', namespace, 'right')
  const child = spawn(process.execPath, ['--input-type=module', '-e', `${OPENS('left', namespace)}; setInterval(() => {}, 1000)`],
    { stdio: ['ignore', 'pipe', 'inherit'] })
  try {
    assert.equal(String(await new Promise((resolve) => { child.stdout.once('data', resolve) })), 'open\n')
    assert.ok(hasProgram(namespace, 'left'))
    const end = createEnd('left', namespace)
    assert.throws(() => { end.port.open() }, { code: 'NF_PORT_BUSY', message: /interface left has an XDP program already/ })
    const gone = new Promise((resolve) => { child.once('exit', resolve) })
    child.kill('SIGKILL')
    await gone
    assert.equal(hasProgram(namespace, 'left'), false)
    end.port.open()
    end.port.close()
    assert.equal(hasProgram(namespace, 'left'), false)
  } finally {
    child.kill('SIGKILL')
  }
})

test('AF_XDP: an interface whose frames are too long is not taken, and left when they become so', { skip }, async () => {
  const namespace = network.addNamespace()
  network.addVeth(namespace, 'left', namespace, 'right', 9000)
  assertFailsToOpen(createEnd('left', namespace), 'NF_PORT_UNSUPPORTED', /interface left has an MTU of 9000\. .*up to 3818/)
  assert.equal(hasProgram(namespace, 'left'), false)
  for (const rxFrames of [0, 100, 65_536]) assert.throws(() => createEnd('left', namespace, { rxFrames }), { code: 'NF_CONFIG_INVALID' })
  network.run(namespace, 'ip', 'link', 'set', 'left', 'mtu', '1500')
  const end = createEnd('left', namespace, { mode: 'generic' })
  end.port.open()
  await until('it is up', end.turn, () => end.port.isUp)
  network.run(namespace, 'ip', 'link', 'set', 'left', 'mtu', '9000')
  await until('it is down', end.turn, () => !end.port.isUp)
  assert.match(end.port.lastEnd, /MTU of 9000/)
  network.run(namespace, 'ip', 'link', 'set', 'left', 'mtu', '3818')
  await until('it is up', end.turn, () => end.port.isUp)
  end.port.close()
})

test('AF_XDP: without the privilege the port says which', { skip }, (context) => {
  const namespace = network.addNamespace()
  network.addVeth(namespace, 'left', namespace, 'right')
  const options = { encoding: 'utf8', timeout: 20_000 } as const
  const nobody = { ...options, uid: 65_534, gid: 65_534 }
  const node = [process.execPath, '--input-type=module', '-e']
  const said = ([program, ...args]: readonly string[], settings: typeof options): string => spawnSync(program, args, settings).stdout
  if (said([process.execPath, '-p', `require('fs').readFileSync(${JSON.stringify(import.meta.filename)}).length`], nobody) === '') {
    return context.skip('the sources cannot be read by another user')
  }
  assert.match(said([...node, OPENS('lo', undefined)], nobody), /^NF_PORT_PRIVILEGE: port lo cannot have a packet socket: EPERM: .*\n$/)
  const own = `import { execFileSync } from 'node:child_process'
    execFileSync('ip', ['link', 'add', 'name', 'left', 'type', 'veth', 'peer', 'name', 'right'])`
  if (spawnSync('unshare', ['-Urn', 'true'], nobody).status === 0) {
    assert.match(said(['unshare', '-Urn', ...node, `${own}; ${OPENS('left', undefined)}`], nobody),
      /^NF_PORT_PRIVILEGE: port left cannot make a map of sockets \(XSKMAP\): EPERM: .*CAP_BPF.*\n$/)
  }
  if (spawnSync('setpriv', ['--version']).error === undefined) {
    const without = ['setpriv', '--bounding-set', '-ipc_lock', '--inh-caps', '-ipc_lock', 'prlimit', '--memlock=65536:65536']
    assert.match(said([...without, ...node, OPENS('left', namespace)], options),
      /^NF_PORT_PRIVILEGE: port left: .* MiB for its frames may not be locked in memory\. .*CAP_IPC_LOCK.*\n$/)
    assert.equal(hasProgram(namespace, 'left'), false)
  }
})
