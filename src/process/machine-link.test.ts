/**
 * Links between machines, over a bridge between namespaces: each end gets what is for it and nothing else, whole and in order; a cable that
 * is pulled holds nobody up; sessions of nodes on different machines lose no message.
 */

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { Arena } from '../memory/arena.ts'
import { createControlPlane } from '../node/control-plane.ts'
import { systemClock } from '../ports/system-clock.ts'
import { networkSkip, TestNetwork, until } from '../ports/test-network.ts'
import { hex, TestPortEnd } from '../ports/test-port-end.ts'
import { nodeMac } from '../transport/frame-header.ts'
import { ClusterFolder } from './cluster-folder.ts'
import { ControlNetwork } from './control-network.ts'
import { clusterTag, MachineLink } from './machine-link.ts'

const skip = networkSkip()
const network = new TestNetwork()
after(() => { network.close() })

/** Machines that a bridge joins, each with an interface `link0`. */
function addMachines(count: number, mtu = 1500): string[] {
  const hub = network.addNamespace()
  network.run(hub, 'ip', 'link', 'add', 'bridge', 'mtu', String(mtu), 'type', 'bridge')
  network.run(hub, 'ip', 'link', 'set', 'bridge', 'up')
  return Array.from({ length: count }, (_, index) => {
    const machine = network.addNamespace()
    network.addVeth(machine, 'link0', hub, `m${index}`, mtu)
    network.run(hub, 'ip', 'link', 'set', `m${index}`, 'master', 'bridge')
    return machine
  })
}

const linkOn = (namespace: string, node: number, link: number, clusterId = 1): TestPortEnd<MachineLink> =>
  new TestPortEnd((arena) => new MachineLink({ arena, name: `link ${node}-${link}`, clusterId, interface: 'link0', namespace, node, link }))

test('frames go to their end of their link, whole and in order; to nobody else', { skip }, async () => {
  const [one, two] = addMachines(2)
  const [a, b] = [linkOn(one, 1, 11), linkOn(two, 11, 1)]
  const others = [linkOn(two, 11, 2), linkOn(two, 12, 1), linkOn(two, 11, 0), linkOn(two, 11, 1, 2), linkOn(one, 11, 1)]
  const all = [a, b, ...others]
  for (const { port } of all) port.open()
  const turn = (): void => { for (const end of all) end.turn() }
  await until('all are up', turn, () => all.every(({ port }) => port.isUp))
  // IPv4, tagged IPv6 on top of the longest, NFactor's own, others.
  const kinds = [['0800 45', 1514], ['8100 0005 86dd 60', 1518], ['88b5', 900], ['8864 11', 60], ['0800 46', 60]] as const
  const addresses = [nodeMac(11, 1, 70_000), nodeMac(1, 11, 3)]
  const received: Uint8Array[] = []
  for (let number = 0; number < 600; number++) {
    const [kind, length] = kinds[number % kinds.length] as typeof kinds[number]
    const head = hex(kind)
    const size = a.put(...addresses.map((mac) => Uint8Array.from(mac)), head, new Uint8Array(length - 12 - head.length).fill(number & 255))
    await until('there is room', turn, () => a.port.send(a.frame, size))
    received.push(...b.receive())
  }
  await until('all have come', () => { turn(); received.push(...b.receive()) }, () => received.length >= 600)
  const tag = Buffer.from([clusterTag(1) >> 8, clusterTag(1) & 255]).toString('hex')
  const marked = addresses.map((mac) => `${tag}${Buffer.from(mac.slice(2)).toString('hex')}`).join('')
  for (const [number, frame] of received.entries()) {
    const [kind, length] = kinds[number % kinds.length] as typeof kinds[number]
    const text = Buffer.from(frame).toString('hex')
    const head = `${marked}${kind.replaceAll(' ', '')}`
    assert.deepEqual([frame.length, text.slice(0, head.length), frame.at(-1)], [length, head, number & 255])
  }
  for (const end of others) assert.equal(end.receive().length, 0, end.port.name)
  for (const { port } of all) port.close()
})

test('tags of clusters are local unicast addresses, and differ', () => {
  const tags = new Set(Array.from({ length: 2000 }, (_, id) => clusterTag(id + 1)))
  assert.equal(tags.size, 2000)
  for (const tag of tags) assert.equal((tag >> 8) & 3, 2)
})

test('a link without a cable refuses frames and holds nobody up; plugged in, it goes on', { skip }, async () => {
  const [one, two] = addMachines(2)
  const [a, b] = [linkOn(one, 1, 11), linkOn(two, 11, 1)]
  const turn = (): void => { a.turn(); b.turn() }
  for (const { port } of [a, b]) port.open()
  await until('both are up', turn, () => a.port.isUp && b.port.isUp)
  network.run(one, 'ip', 'link', 'set', 'link0', 'down')
  await until('it is down', turn, () => !a.port.isUp)
  const size = a.put(Uint8Array.from(nodeMac(11, 1, 1)), Uint8Array.from(nodeMac(1, 11, 1)), hex('88b7'), new Uint8Array(50))
  assert.equal(a.port.send(a.frame, size), false)
  assert.ok(a.port.room > 1000)
  network.run(one, 'ip', 'link', 'set', 'link0', 'up')
  const received: Uint8Array[] = []
  await until('a frame comes', () => { turn(); if (a.port.isUp) a.port.send(a.frame, size); received.push(...b.receive()) },
    () => received.length > 0)
  for (const { port } of [a, b]) port.close()
})

test('rings of a link are bounded: what finds no room is refused, and what nobody fetches is lost and counted as missed', { skip }, async () => {
  const [one, two] = addMachines(2)
  const [a, b] = [linkOn(one, 1, 11), linkOn(two, 11, 1)]
  const turn = (): void => { a.turn(); b.turn() }
  for (const { port } of [a, b]) port.open()
  await until('both are up', turn, () => a.port.isUp && b.port.isUp)
  const size = a.put(Uint8Array.from(nodeMac(11, 1, 1)), Uint8Array.from(nodeMac(1, 11, 1)), hex('88b5'), new Uint8Array(50))
  const sent = 3000
  for (let number = 0; number < sent; number++) await until('there is room', turn, () => a.port.send(a.frame, size))
  await until('all have come or are missed', turn, () => b.port.statistics.rxMissed >= sent - 1024)
  let received = 0
  await until('it is fetched', turn, () => {
    const count = b.receive().length
    received += count
    return count === 0
  })
  assert.deepEqual([received, b.port.statistics.rxMissed], [1024, sent - 1024])
  assert.equal(a.port.send(a.frame, size), true)
  await until('there is room again', turn, () => b.receive().length === 1)
  // A network that takes some frames and then next to nothing.
  network.run(one, 'tc', 'qdisc', 'add', 'dev', 'link0', 'root', 'tbf', 'rate', '8bit', 'burst', '1600', 'limit', '1000000')
  let waiting = 0
  while (waiting < 2000 && a.port.send(a.frame, size)) waiting++
  let reserved = 0
  while (reserved < 2000 && a.port.sendReserved(a.frame, size)) reserved++
  const both = waiting + reserved
  assert.ok(reserved >= 32 && both >= 512 && both <= 512 + 1600 / size + 1, `${waiting} and ${reserved} were taken`)
  assert.deepEqual([a.port.room, a.port.statistics.txFull], [0, 2])
  network.run(one, 'tc', 'qdisc', 'del', 'dev', 'link0', 'root')
  await until('there is room again', turn, () => { b.receive(); return a.port.room > 400 })
  for (const { port } of [a, b]) port.close()
})

test('an interface that is too narrow is refused', { skip }, () => {
  const [narrow] = addMachines(1, 1400)
  assert.throws(() => { linkOn(narrow, 1, 11).port.open() }, { code: 'NF_PORT_INTERFACE', message: /takes 1400 bytes, 1500 are needed/ })
})

test('control sessions between machines lose nothing and tell nothing twice', { skip }, async () => {
  const folders = ['one', 'two'].map((name) => mkdtempSync(join(tmpdir(), `nfactor-machine-${name}-`)))
  after(() => { for (const folder of folders) rmSync(folder, { recursive: true }) })
  const machines = addMachines(2)
  const heard: number[] = []
  const nodes = [1, 12].map((self, index) => {
    const arena = new Arena(48 << 20)
    const port = new MachineLink({ arena, name: 'control', clusterId: 7, interface: 'link0', namespace: machines[index], node: self, link: 0 })
    const control = new ControlNetwork({ arena, folder: new ClusterFolder(folders[index] as string), node: self,
      far: { port, isFar: (node) => node === (self === 1 ? 12 : 1) } })
    control.open()
    const plane = createControlPlane({ arena, clusterId: 7, self, selfIncarnation: self, port: control, sessions: { timeoutUsMin: 20_000 },
      onMessage: (_peer, at, bytes) => { heard.push(arena.u32[at >> 2] as number, bytes) } })
    plane.setPeers([{ id: self === 1 ? 12 : 1, incarnation: self === 1 ? 12 : 1 }])
    return { arena, control, plane }
  })
  const turn = (): void => {
    for (const { control, plane } of nodes) {
      plane.receive(64, systemClock.now())
      plane.transmit(systemClock.now())
      control.flush()
      control.maintain(systemClock.now())
    }
  }
  const [{ arena, plane, control }] = nodes as [typeof nodes[number]]
  await until('both are up', turn, () => nodes.every((node) => node.control.isUp))
  const said: number[] = []
  for (let number = 0; number < 100; number++) {
    const bytes = 8 + (number * 7919) % 60_000
    let at = 0
    await until('there is room', turn, () => (at = plane.channel(12)?.begin(bytes) ?? 0) !== 0)
    arena.u32[at >> 2] = number
    plane.channel(12)?.commit()
    said.push(number, bytes)
  }
  await until('all has come', turn, () => heard.length >= said.length)
  assert.deepEqual(heard, said)
  assert.equal(control.datagrams.txFrames, 0)
  assert.equal(control.frameBytesTo(12), 1514)
  for (const node of nodes) node.control.close()
})
