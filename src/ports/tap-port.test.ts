/**
 * TAP ports in namespaces of the test's own: two of them with a bridge in between for the contract, and real TCP between hosts whose
 * interfaces they are.
 */

import assert from 'node:assert/strict'
import { spawn, type ChildProcess } from 'node:child_process'
import { after, test } from 'node:test'
import { Arena } from '../memory/arena.ts'
import { Descriptor, DESCRIPTOR_BYTES, DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import { PacketPool } from '../packet/packet-pool.ts'
import type { Port } from '../packet/port.ts'
import { checksumFault } from '../testing/packet-builder.ts'
import { portContract, type PortPair } from './port-contract.ts'
import { waitForPorts } from './port-waiter.ts'
import { TapPort, type TapPortOptions } from './tap-port.ts'
import { networkSkip, TestNetwork, until } from './test-network.ts'
import { createTraffic } from './traffic/traffic-generator.ts'
import { defaultMacs } from './traffic/traffic-options.ts'
import { createTrafficSink, SinkPort } from './traffic/traffic-sink.ts'

const skip = networkSkip()
const network = new TestNetwork()
const children = new Set<ChildProcess>()
after(() => {
  for (const child of children) child.kill('SIGKILL')
  network.close()
})

/** A namespace with persistent TAP devices, up and silent. */
function addTaps(mtu: number, hasHeaders: boolean, ...names: string[]): string {
  const namespace = network.addNamespace()
  network.run(namespace, 'sh', '-c', 'for i in all default; do echo 1 > /proc/sys/net/ipv6/conf/$i/disable_ipv6 || true; done')
  for (const name of names) {
    network.run(namespace, 'ip', 'tuntap', 'add', 'dev', name, 'mode', 'tap', ...(hasHeaders ? ['vnet_hdr'] : []))
    network.run(namespace, 'ip', 'link', 'set', name, 'mtu', String(mtu), 'addrgenmode', 'none')
    network.run(namespace, 'ip', 'link', 'set', name, 'up')
  }
  return namespace
}

function createPair(mtu: number, options: Partial<TapPortOptions>): PortPair {
  const namespace = addTaps(mtu, options.hasHeaders ?? true, 'left', 'right')
  network.run(namespace, 'ip', 'link', 'add', 'between', 'type', 'bridge', 'mcast_snooping', '0')
  network.run(namespace, 'ip', 'link', 'set', 'between', 'mtu', String(mtu), 'addrgenmode', 'none')
  for (const name of ['left', 'right']) {
    network.run(namespace, 'ip', 'link', 'set', name, 'master', 'between')
    // Sender and receiver of the contract's frames have the same address.
    network.run(namespace, 'ip', 'link', 'set', name, 'type', 'bridge_slave', 'learning', 'off')
  }
  network.run(namespace, 'ip', 'link', 'set', 'between', 'up')
  const ends = ['left', 'right'].map((name) => {
    const arena = new Arena(64 << 20)
    const port = new TapPort({ arena, interface: name, namespace, ...options })
    port.open()
    return { arena, port }
  })
  return {
    ends: [ends[0], ends[1]],
    capacity: 200,
    refusesWhenFull: false,
    frameBytes: { min: 60, ordinary: Math.min(1514, mtu + 14), max: mtu + 14 },
    close: () => { for (const { port } of ends) port.close() },
  }
}

for (const [mtu, options] of [[1500, {}], [9000, {}], [1500, { hasHeaders: false }], [9000, { hasHeaders: false }]] as const) {
  for (const [name, check] of Object.entries(portContract)) {
    test(`TAP, MTU ${mtu} ${JSON.stringify(options)}: ${name}`, { skip }, () => {
      const pair = createPair(mtu, options)
      try {
        check(pair)
      } finally {
        pair.close()
      }
    })
  }
}

/** A program of its own in a namespace. */
function start(namespace: string, program: string, ...args: string[]): { output: string, isOver: boolean } {
  const child = spawn('ip', ['netns', 'exec', namespace, process.execPath, '-e', program, ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
  const state = { output: '', isOver: false }
  children.add(child)
  child.stdout.on('data', (data: Buffer) => { state.output += String(data) })
  child.on('exit', () => {
    state.isOver = true
    children.delete(child)
  })
  return state
}

/** Sends back what comes. */
const SERVER = `require('net').createServer((socket) => socket.pipe(socket)).listen(9000, '10.8.0.2', () => console.log('ready'))`

/** Sends so many bytes to the server, and says whether they come back as they were. */
const CLIENT = `
  const data = require('crypto').randomBytes(Number(process.argv[1])), parts = []
  const socket = require('net').connect({ host: '10.8.0.2', port: 9000 }, () => socket.end(data))
  socket.on('data', (part) => parts.push(part))
  socket.on('end', () => { console.log(Buffer.concat(parts).equals(data) ? 'the same' : 'another') })`

const BYTES = 4 << 20

/** Two hosts with TAP devices, and this process as the wire. What passes it: the longest frame, and what checksums are wrong. */
async function converse(options: Partial<TapPortOptions>): Promise<{ longest: number, faults: string[], ports: TapPort[] }> {
  const arena = new Arena(64 << 20)
  const pool = new PacketPool(arena, 1024, 64)
  const descriptors = arena.allocate('batch', 32 * DESCRIPTOR_BYTES) >> 2
  const hosts = [network.addNamespace(), network.addNamespace()]
  const ports = hosts.map((namespace, index) => {
    const port = new TapPort({ arena, name: `host ${index}`, interface: 'tap0', namespace, mtu: 1400, ...options })
    port.open()
    network.addAddresses(namespace, 'tap0', `10.8.0.${index + 1}/24`)
    return port
  })
  let longest = 0
  const faults = new Set<string>()
  const turn = (): void => {
    for (const [index, port] of ports.entries()) {
      for (let got = 32; got === 32;) {
        got = port.receive(pool, descriptors, 32)
        for (let d = descriptors; d < descriptors + got * DESCRIPTOR_WORDS; d += DESCRIPTOR_WORDS) {
          const frame = arena.i32[d + Descriptor.frame]
          const length = arena.i32[d + Descriptor.length]
          longest = Math.max(longest, length)
          const bytes = arena.u8.subarray(frame, frame + length)
          if (bytes[12] === 8 && bytes[13] === 0 && (bytes[23] === 6 || bytes[23] === 17)) faults.add(checksumFault(bytes))
          ports[1 - index].send(frame, length)
          pool.give(arena.i32[d + Descriptor.slot])
        }
      }
    }
    for (const port of ports) port.maintain(performance.now() * 1000)
  }
  await until('the interfaces are up', turn, () => ports.every(({ isUp }) => isUp))
  const server = start(hosts[1], SERVER)
  await until('the server is ready', turn, () => server.output !== '')
  const client = start(hosts[0], CLIENT, String(BYTES))
  await until('all bytes have come back', turn, () => client.isOver || client.output !== '')
  assert.equal(client.output, 'the same\n')
  for (const port of ports) port.close()
  return { longest, faults: [...faults], ports }
}

test('TCP passes two TAP ports in long segments, which the kernel cuts', { skip }, async () => {
  const { longest, faults, ports } = await converse({})
  assert.ok(longest > 20_000, `${longest} bytes`)
  assert.deepEqual(faults, [''], 'every checksum has been finished')
  assert.ok(ports[0].statistics.rxBytes > BYTES)
  assert.equal(ports[0].statistics.rxInvalid + ports[0].statistics.txOversize, 0)
})

for (const options of [{ segments: 'cut' }, { hasHeaders: false }] as const) {
  test(`TCP passes two TAP ports in ordinary frames: ${JSON.stringify(options)}`, { skip }, async () => {
    const { longest, faults } = await converse(options)
    assert.equal(longest, 1414)
    assert.deepEqual(faults, [''], 'every checksum has been finished')
  })
}

test('the generator\'s traffic passes two TAP ports and a bridge unharmed', { skip }, async () => {
  const pair = createPair(1500, {})
  const [near, far] = pair.ends
  await until('the interfaces are up', () => { for (const { port } of pair.ends) port.maintain?.(0) }, () => near.port.room * far.port.room > 0)
  const pools = pair.ends.map(({ arena }) => new PacketPool(arena, 256, 4))
  const batches = pair.ends.map(({ arena }) => arena.allocate('batch', 32 * DESCRIPTOR_BYTES) >> 2)
  const traffic = createTraffic({
    arena: near.arena, seed: 1, flows: 50, sizes: 'imix', tcpShare: 0.5, ipv6Share: 0.5, turns: 4, requestPackets: 3, packets: 5000,
  })
  const sink = new SinkPort(createTrafficSink({ arena: far.arena, seed: 1, flows: 50, macs: defaultMacs }))
  const move = (end: number, from: Port, to: Port): void => {
    const { i32 } = (pair.ends[end] as typeof near).arena
    const [pool, batch] = [pools[end] as PacketPool, batches[end] as number]
    const count = from.receive(pool, batch, 32)
    for (let d = batch; d < batch + count * DESCRIPTOR_WORDS; d += DESCRIPTOR_WORDS) {
      assert.ok(to.send(i32[d + Descriptor.frame], i32[d + Descriptor.length]))
      pool.give(i32[d + Descriptor.slot])
    }
  }
  const turn = (): void => {
    for (const port of traffic.ports) move(0, port, near.port)
    sink.receive(pools[1] as PacketPool, 0, 0)
    move(1, far.port, sink)
    move(1, far.port, sink)
  }
  await until('all packets have come through', turn, () => sink.sink.totals.received >= 5000)
  const { frames, lost, duplicated, reordered, corrupted, stale, foreign } = sink.sink.totals
  assert.deepEqual([frames, lost, duplicated, reordered, corrupted, stale, foreign], [5000, 0, 0, 0, 0, 0, 0])
  pair.close()
})

/** Sends every datagram back to where it came from. */
const ECHO = `
  for (const family of ['udp4', 'udp6']) {
    const socket = require('dgram').createSocket({ type: family, ipv6Only: family === 'udp6' })
    socket.on('message', (data, from) => socket.send(data, from.port, from.address))
    socket.bind(5001, () => console.log(family))
  }`

test('the machine\'s own stack takes the generator\'s datagrams, and what it sends back is known again', { skip }, async () => {
  const namespace = network.addNamespace()
  const arena = new Arena(16 << 20)
  const port = new TapPort({ arena, interface: 'tap0', namespace })
  port.open()
  network.addAddresses(namespace, 'tap0', '198.19.0.1/15', '2001:2:0:2::1/48')
  for (const client of ['198.18.0.1', '2001:2:0:1::1']) {
    network.run(namespace, 'ip', 'neigh', 'add', client, 'lladdr', '02:4e:46:00:00:01', 'dev', 'tap0', 'nud', 'permanent')
  }
  const mac = network.run(namespace, 'cat', '/sys/class/net/tap0/address').trim().split(':').map((byte) => Number.parseInt(byte, 16))
  const macs = [defaultMacs[0], Uint8Array.from(mac)] as const
  const traffic = createTraffic({ arena, seed: 4, flows: 40, ipv6Share: 0.5, sizes: [[60, 2], [599, 1], [1514, 1]], clients: 1, servers: 1,
    packets: 2000, macs })
  const pool = new PacketPool(arena, 64, 2)
  const descriptors = arena.allocate('batch', 32 * DESCRIPTOR_BYTES) >> 2
  const move = (from: Port, to: Port): void => {
    const count = from.receive(pool, descriptors, 32)
    for (let d = descriptors; d < descriptors + count * DESCRIPTOR_WORDS; d += DESCRIPTOR_WORDS) {
      assert.ok(to.send(arena.i32[d + Descriptor.frame], arena.i32[d + Descriptor.length]))
      pool.give(arena.i32[d + Descriptor.slot])
    }
  }
  const { totals } = traffic.sink
  const turn = (): void => {
    port.maintain(0)
    move(port, traffic.ports[0])
    if (traffic.sent.packets - totals.astray < 32) move(traffic.ports[0], port)
  }
  const echo = start(namespace, ECHO)
  await until('the interface is up and the program ready', () => { port.maintain(0) }, () => port.isUp && echo.output.includes('udp4') &&
    echo.output.includes('udp6'))
  // They come back to the side that sent them.
  await until('all datagrams have come back', turn, () => totals.astray === 2000)
  assert.equal(totals.corrupted, 0)
  port.close()
})

test('a TAP port tells what it cannot open', { skip }, () => {
  const namespace = addTaps(1500, true, 'tap0')
  const arena = new Arena(8 << 20)
  const make = (device: string, rest: Partial<TapPortOptions> = {}): TapPort => {
    arena.reset()
    return new TapPort({ arena, interface: device, namespace, ...rest })
  }
  for (const device of ['', 'a name', 'sixteen-letters-', 'a/b', '..', 'tap%d']) {
    assert.throws(() => make(device), { name: 'CodedError', code: 'NF_CONFIG_INVALID' })
  }
  assert.throws(() => make('tap0', { mtu: 10 }), { code: 'NF_CONFIG_INVALID' })
  assert.throws(() => { make('tap0', { namespace: 'no-such-namespace' }).open() }, { name: 'CodedError', code: 'NF_PORT_INTERFACE' })
  assert.throws(() => { make('lo').open() }, { name: 'CodedError', code: 'NF_PORT_INTERFACE' })
  const first = make('tap0')
  first.open()
  first.open()
  assert.throws(() => { new TapPort({ arena: new Arena(8 << 20), interface: 'tap0', namespace }).open() }, { code: 'NF_PORT_BUSY' })
  first.close()
})

test('a TAP port whose device is taken down or away says so, and comes back', { skip }, async () => {
  const namespace = addTaps(1500, true, 'tap0')
  const arena = new Arena(8 << 20)
  const port = new TapPort({ arena, interface: 'tap0', namespace })
  let now = 0
  const turn = (): void => { port.maintain(now += 100_000) }
  port.open()
  await until('the interface is up', turn, () => port.isUp)
  network.run(namespace, 'ip', 'link', 'set', 'tap0', 'mtu', '3000', 'down')
  await until('the interface is down', turn, () => !port.isUp)
  assert.equal(port.lastEnd, 'the interface is down')
  assert.equal(port.send(64, 100), false)
  network.run(namespace, 'ip', 'link', 'set', 'tap0', 'up')
  await until('the interface is up again', turn, () => port.isUp && port.mtu === 3000)
  network.run(namespace, 'ip', 'link', 'del', 'tap0')
  const pool = new PacketPool(arena, 8, 1)
  const descriptors = arena.allocate('batch', DESCRIPTOR_BYTES) >> 2
  await until('the device is gone', turn, () => port.receive(pool, descriptors, 1) === 0 && (!port.isUp || port.lastEnd !== ''))
  await until('there is another', turn, () => port.receive(pool, descriptors, 1) === 0 && port.isUp)
  assert.ok(port.statistics.connections >= 3)
  assert.equal(pool.used, 0)
  port.close()
})

test('frames of our own are taken from inside alone; who waits is woken', { skip }, async () => {
  for (const leads of ['outside', 'inside'] as const) {
    const pair = createPair(1500, { leads })
    const [near, far] = pair.ends as [{ arena: Arena, port: TapPort }, { arena: Arena, port: TapPort }]
    const pool = new PacketPool(far.arena, 8, 1)
    const descriptors = far.arena.allocate('batch', 32 * DESCRIPTOR_BYTES) >> 2
    const frame = near.arena.allocate('frame', 128) + 2
    await until('the interfaces are up', () => { for (const { port } of pair.ends) port.maintain?.(0) }, () => near.port.isUp && far.port.isUp)
    assert.equal(await waitForPorts([far.port], 5), false)
    const waiting = waitForPorts([far.port], 10_000)
    near.arena.u8.fill(2, frame, frame + 60)
    for (const type of [0x88b5, 0x88b6]) {
      near.arena.view.setUint16(frame + 12, type)
      assert.ok(near.port.send(frame, 60))
    }
    assert.equal(await waiting, true)
    let received = 0
    await until('both frames have come', () => { received += far.port.receive(pool, descriptors, 32) },
      () => received + far.port.statistics.rxForeign === 2)
    assert.equal(received, leads === 'inside' ? 2 : 1)
    pair.close()
  }
})

test('frames that nobody fetches in time are counted', { skip }, () => {
  const namespace = addTaps(1500, true, 'tap0')
  const port = new TapPort({ arena: new Arena(8 << 20), interface: 'tap0', namespace })
  port.open()
  network.addAddresses(namespace, 'tap0', '10.8.0.1/24')
  network.run(namespace, 'ip', 'neigh', 'add', '10.8.0.2', 'lladdr', '02:00:00:00:00:02', 'dev', 'tap0')
  network.run(namespace, process.execPath, '-e', `const s = require('dgram').createSocket('udp4'); let n = 0
    const next = () => s.send(Buffer.alloc(100), 9, '10.8.0.2', () => { if (++n < 1500) next(); else s.close() }); next()`)
  port.maintain(1e9)
  const { rxMissed } = port.statistics
  assert.ok(rxMissed >= 400 && rxMissed <= 520, `${rxMissed} of 1500 with a queue of 1000`)
  port.close()
})
