/** The data path of a switch node: addresses, what is not a flow's packet, full ports, and that every packet is counted once. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Arena } from '../memory/arena.ts'
import { AnnounceDone, ConfigApplied } from '../messages/announcing.ts'
import type { ClusterConfig } from '../messages/cluster-config.ts'
import { MessageField } from '../messages/message.ts'
import { ReturnPacket } from '../messages/placement.ts'
import { Descriptor, DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import { SLOT_FRAME_OFFSET, type PacketPool } from '../packet/packet-pool.ts'
import type { Port } from '../packet/port.ts'
import { buildFragments, buildFrame, type FrameOptions } from '../testing/packet-builder.ts'
import type { MessageChannel } from '../transport/message-channel.ts'
import { nodeMac } from '../transport/frame-header.ts'
import { roundRobin } from '../vswitch/placement/round-robin.ts'
import { createControlPlane } from './control-plane.ts'
import { DataLink } from './data-link.ts'
import { createSwitchNode, type SwitchNode } from './switch-node.ts'

const OWN = 0x88b5

class ListPort implements Port {
  readonly inbox: Uint8Array[] = []
  outbox: Uint8Array[] = []
  isFull = false
  free = 1000
  isPatient = false
  readonly #arena: Arena

  constructor(arena: Arena) {
    this.#arena = arena
  }

  get room(): number {
    return this.isFull ? 0 : this.free
  }

  receive(pool: PacketPool, descriptors: number, max: number): number {
    const { i32, u8 } = this.#arena
    let count = 0
    for (; count < max && this.inbox.length > 0; count++) {
      const frame = this.inbox[0]
      const slot = pool.take(frame.length)
      if (slot === 0) break
      this.inbox.shift()
      u8.set(frame, slot + SLOT_FRAME_OFFSET)
      const d = descriptors + count * DESCRIPTOR_WORDS
      i32[d + Descriptor.frame] = slot + SLOT_FRAME_OFFSET
      i32[d + Descriptor.length] = i32[d + Descriptor.wireLength] = frame.length
      i32[d + Descriptor.slot] = slot
      i32[d + Descriptor.linkType] = 1
    }
    return count
  }

  send(frame: number, length: number): boolean {
    return !this.isFull && this.sendReserved(frame, length)
  }

  sendReserved(frame: number, length: number): boolean {
    this.outbox.push(this.#arena.u8.slice(frame, frame + length))
    return true
  }

  /** Data frames that were sent since it was last asked. */
  take(): Uint8Array[] {
    const frames = this.outbox.filter((frame) => frame[12] * 256 + frame[13] !== OWN)
    this.outbox = []
    return frames
  }
}

interface Setup {
  readonly node: SwitchNode
  readonly external: ListPort
  readonly links: ListPort[]
  readonly bypass: ListPort
  /** Runtime 12 says something in-band. */
  say(message: Uint8Array): void
  run(): void
  wait(us: number): void
}

function setUp(options: { wasm?: boolean; bypass?: boolean; limits?: object } = {}): Setup {
  const arena = new Arena(48 * 2 ** 20)
  const [external, control, first, second, bypass] = Array.from({ length: 5 }, () => new ListPort(arena))
  const configOf = (version: number, runtimes: ClusterConfig['runtimes']): ClusterConfig => ({ version, clusterId: 1, runtimes,
    switches: [{ id: 1, incarnation: 101, side: 'ingress', isHome: true }] })
  const node = createSwitchNode({
    arena, id: 1, incarnation: 101, clusterId: 1, policy: roundRobin(), seed: 7, config: configOf(1, []), wasm: options.wasm,
    limits: { entries: 1000, packets: 256, largePackets: 1, ...options.limits },
    ports: { external, control, links: new Map([[11, first], [12, second]]), ...options.bypass === true ? { bypass } : {} },
  })
  node.notifyClusterConfig(configOf(2, [11, 12].map((id) => ({ id, incarnation: 100 + id, isDraining: false }))), 0)
  for (const id of [11, 12]) announceNothing(arena, id, control)
  let now = 1000
  const port = new ListPort(arena)
  const peer = new DataLink({ arena, clusterId: 1, self: 12, selfIncarnation: 112, peer: 1, port, isSwitch: false, onRefused: () => {},
    onMessage: () => {} })
  peer.setPeer(101)
  const say = (message: Uint8Array): void => {
    arena.u8.set(message, peer.channel.begin(message.length, true))
    peer.channel.commit()
    peer.transmit(now)
    second.inbox.push(...port.outbox.splice(0))
  }
  const wait = (us: number): void => { now += us }
  return { node, external, links: [first, second], bypass, say, wait, run: () => {
    while (node.poll(now += 10));
    const { received, emitted, takenOver, forwarded, dropped, buffered, handedOver } = node.packets
    assert.equal(received + emitted + takenOver, forwarded + dropped + buffered + handedOver, 'every packet is counted once')
    assert.equal(node.slotsUsed, buffered, 'slots are given back')
  } }
}

/** What a runtime says first to a switch when it has no flows. */
function announceNothing(arena: Arena, id: number, to: ListPort): void {
  const port = new ListPort(arena)
  const plane = createControlPlane({ arena, clusterId: 1, self: id, selfIncarnation: 100 + id, port, onMessage: () => undefined })
  plane.setPeers([{ id: 1, incarnation: 101 }])
  const channel = plane.channel(1) as MessageChannel
  for (const { type, bytes } of [AnnounceDone, ConfigApplied]) {
    const at = channel.begin(bytes, true)
    arena.u8[at] = type
    arena.u32[(at + MessageField.epoch) >> 2] = 1
    channel.commit()
  }
  plane.transmit(1)
  to.inbox.push(...port.outbox)
}

const client = '02:00:00:00:00:0a'
const server = '02:00:00:00:00:0b'
const request: FrameOptions = { sourceMac: client, destinationMac: server, source: '10.0.0.1', destination: '10.0.0.2',
  udp: { sourcePort: 1000, destinationPort: 53, payload: 'x' } }
const response: FrameOptions = { sourceMac: server, destinationMac: client, source: '10.0.0.2', destination: '10.0.0.1',
  udp: { sourcePort: 53, destinationPort: 1000, payload: 'y' } }
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')
const toRuntime = (runtime: number): string => hex(Uint8Array.from([...nodeMac(runtime, 1, 100 + runtime), ...nodeMac(1, runtime, 101)]))

for (const wasm of [true, false]) {
  test(`addresses are rewritten to the runtime and restored behind it, both ways (${wasm ? 'kernel' : 'without kernel'})`, () => {
    const { external, links, run } = setUp({ wasm })
    for (const frame of [request, response, request]) external.inbox.push(buildFrame(frame))
    run()
    const [frames] = [links[1].take()]
    assert.deepEqual(frames.map((frame) => hex(frame.subarray(0, 12))), [toRuntime(12), toRuntime(12), toRuntime(12)])
    assert.equal(hex(frames[0].subarray(12)), hex(buildFrame(request).subarray(12)))
    links[1].inbox.push(frames[0], frames[1])
    run()
    assert.deepEqual(external.take().map(hex), [hex(buildFrame(request)), hex(buildFrame(response))])
  })
}

test('a frame from a runtime that does not release the flow, or of no flow, is dropped', () => {
  const { node, external, links, run } = setUp()
  external.inbox.push(buildFrame(request))
  run()
  const [frame] = links[1].take()
  links[0].inbox.push(frame, buildFrame({ ...request, source: '10.0.0.99' }))
  run()
  assert.deepEqual([node.dropReasons(), external.take()], [{ 'not-releaser': 2 }, []])
})

test('our own EtherType and malformed frames from outside are dropped', () => {
  const { node, external, bypass, run } = setUp({ bypass: true })
  external.inbox.push(buildFrame({ ...request, etherType: OWN }), buildFrame(request).subarray(0, 20))
  run()
  assert.equal(node.dropReasons()['own-ethertype'], 1)
  assert.equal(node.packets.dropped, 2)
  assert.deepEqual(bypass.take(), [])
})

test('what is not IP goes around the chain, where there is a way', () => {
  const arp = buildFrame({ ...request, etherType: 0x0806 })
  const { external, bypass, run } = setUp({ bypass: true })
  external.inbox.push(arp)
  bypass.inbox.push(arp)
  run()
  assert.deepEqual([bypass.take().map(hex), external.take().map(hex)], [[hex(arp)], [hex(arp)]])
  const without = setUp()
  without.external.inbox.push(arp)
  without.run()
  assert.deepEqual(without.node.dropReasons(), { 'non-ip': 1 })
})

test('fragments go where their first one goes, those that come before it too', () => {
  const { node, external, links, run } = setUp()
  const udp = { sourcePort: 1000, destinationPort: 53, payload: 'x'.repeat(3000) }
  const fragments = buildFragments({ ...request, udp }, 1000)
  external.inbox.push(fragments[1])
  run()
  assert.equal(node.packets.buffered, 1)
  external.inbox.push(fragments[0], ...fragments.slice(2))
  run()
  assert.deepEqual([links[0].take().length, links[1].take().length], [0, fragments.length])
})

test('a turn takes a bounded number of frames from each port and link, and of batches, which in-band messages end', () => {
  const { node, external, links, say, run } = setUp({ limits: { packets: 1024 } })
  external.inbox.push(buildFrame(request))
  run()
  const second = links[1]
  const [back] = second.take()
  external.inbox.push(...Array.from({ length: 300 }, () => buildFrame(request)))
  second.inbox.push(...Array.from({ length: 300 }, () => back))
  let before = node.packets.received
  assert.equal(node.poll(2000), true)
  assert.deepEqual([external.inbox.length, second.inbox.length, node.packets.received - before], [300 - 128, 300 - 128, 256])
  run()
  for (let number = 0; number < 100; number++) {
    say(new Uint8Array(16))
    second.inbox.push(back)
  }
  before = node.packets.received
  assert.equal(node.poll(3000), true)
  assert.ok(node.packets.received - before <= 64 && node.packets.received - before >= 32, `${node.packets.received - before}`)
  run()
  assert.equal(node.packets.received - before, 100)
})

test('of a runtime that is fenced a bounded number of frames still counts, more than a link holds', () => {
  const { node, external, links, run } = setUp()
  external.inbox.push(buildFrame(request))
  run()
  const second = links[1]
  const [back] = second.take()
  second.inbox.push(...Array.from({ length: 16_384 + 100 }, () => back))
  const before = node.packets.received
  const config: ClusterConfig = { version: 3, clusterId: 1, runtimes: [{ id: 11, incarnation: 111, isDraining: false }],
    switches: [{ id: 1, incarnation: 101, side: 'ingress', isHome: true }] }
  assert.equal(node.notifyClusterConfig(config, 3000), true)
  assert.deepEqual([second.inbox.length, node.packets.received - before, external.take().length], [100, 16_384, 16_384])
  run()
  assert.deepEqual([second.inbox.length, external.take().length, node.dropReasons()], [0, 0, { 'not-releaser': 100 }])
})

test('full links and ports cost the packet, and nobody waits', () => {
  const { node, external, links, run } = setUp()
  external.inbox.push(buildFrame(request))
  run()
  const [frame] = links[1].take()
  links[1].isFull = external.isFull = true
  external.inbox.push(buildFrame(request))
  links[1].inbox.push(frame)
  run()
  assert.deepEqual(node.dropReasons(), { 'link-full': 1, 'port-full': 1 })
})

test('while a link fills up, a flow that sends more than its share loses packets, and no other', () => {
  const { node, external, links, run, wait } = setUp()
  const [{ udp }] = [request]
  const other = buildFrame({ ...request, udp: { ...udp, sourcePort: 1002, destinationPort: 53 } })
  for (const sourcePort of [1000, 1001, 1002]) {
    external.inbox.push(buildFrame({ ...request, udp: { ...udp, sourcePort, destinationPort: 53 } }))
    run()
  }
  links[1].take()
  const send = (): Uint8Array[] => {
    for (let i = 0; i < 200; i++) external.inbox.push(buildFrame(request), ...i % 10 === 0 ? [other] : [])
    run()
    return links[1].take()
  }
  links[1].free = 450
  assert.equal(send().length, 220, 'nobody knows yet who sends how much')
  wait(20_000)
  links[1].free = 400
  const count = (frames: readonly Uint8Array[], port: number): number => frames.filter((frame) => frame[34] * 256 + frame[35] === port).length
  // Of the 220 that had come 50 are still there; a tenth less comes in than has left, for more wait than should.
  const frames = send()
  assert.deepEqual([count(frames, 1000), count(frames, 1002)], [132, 20])
  assert.deepEqual([node.dropReasons(), node.refusedTo[12], node.refusedTo[11]], [{ 'over-share': 68 }, 68, 0])
  links[1].free = 900
  assert.equal(send().length, 220, 'there is room')
})

test('what can wait in its port is taken when all links have room, and when no packet waits for who serves its flow', () => {
  const { node, external, links, run } = setUp()
  external.isPatient = true
  const frames = Array.from({ length: 40 }, (_, i) => buildFrame({ ...request, udp: { sourcePort: i, destinationPort: 53 } }))
  external.inbox.push(...frames)
  links[0].isFull = true
  run()
  assert.equal(external.inbox.length, 40)
  links[0].isFull = false
  run()
  assert.deepEqual([external.inbox.length, links[0].take().length + links[1].take().length], [0, 40])
  const config = (version: number, isDraining: boolean): ClusterConfig => ({ version, clusterId: 1,
    switches: [{ id: 1, incarnation: 101, side: 'ingress', isHome: true }],
    runtimes: [11, 12].map((id) => ({ id, incarnation: 100 + id, isDraining })) })
  node.notifyClusterConfig(config(3, true), 2000)
  external.inbox.push(...Array.from({ length: 4 }, () => frames).flat().map((frame, i) => buildFrame({ ...request,
    source: '10.0.0.9', udp: { sourcePort: i, destinationPort: 53, payload: frame.subarray(0, 1) } })))
  run()
  const waiting = node.packets.buffered
  assert.ok(waiting > 0 && waiting <= 32 && external.inbox.length === 160 - waiting, `${waiting} wait`)
  node.notifyClusterConfig(config(4, false), 3000)
  for (let turns = 0; external.inbox.length + node.packets.buffered > 0; turns++) {
    run()
    assert.ok(turns < 10_000)
  }
  assert.deepEqual(node.dropReasons(), {})
})

test('fragments that come before their first one are bounded, per datagram and in total', () => {
  const { node, external, links, run } = setUp({ limits: { packets: 512 } })
  const fragmentsOf = (identification: number) => buildFragments({ ...request, identification,
    udp: { sourcePort: 1000, destinationPort: 53, payload: 'x'.repeat(8 * 70) } }, 8)
  const [first, ...later] = fragmentsOf(1)
  external.inbox.push(...later)
  run()
  assert.deepEqual([node.packets.buffered, node.dropReasons()], [64, { 'fragment-limit': later.length - 64 }])
  external.inbox.push(first as Uint8Array)
  run()
  assert.deepEqual([node.packets.buffered, links[1].take().length], [0, 65], 'more leave than a batch has')
  for (let identification = 2; identification < 7; identification++) external.inbox.push(...fragmentsOf(identification).slice(1, 61))
  run()
  assert.deepEqual([node.packets.buffered, node.dropReasons()], [256, { 'fragment-limit': later.length - 64 + 44 }])
})

test('packets that come back without a slot for them, or cut short, cost no more than themselves', () => {
  const { node, external, links, run, say } = setUp({ limits: { packets: 8, largePackets: 1 } })
  const returned = (frame: Uint8Array | number[]): void => {
    say(Uint8Array.from([ReturnPacket.type, ...new Uint8Array(ReturnPacket.bytes - 1), ...frame]))
  }
  returned(buildFrame(request))
  returned([])
  returned([1, 2, 3])
  say(Uint8Array.of(ReturnPacket.type, 0, 0))
  run()
  assert.deepEqual([node.anomalies, links[1].take().length], [{ 'malformed-message': 1 }, 0])
  // Nor is one of a flow that was never here known by its addresses.
  assert.deepEqual(node.dropReasons(), { 'no-owner': 3 })
  const [, ...later] = buildFragments({ ...request, udp: { sourcePort: 1000, destinationPort: 53, payload: 'x'.repeat(8 * 20) } }, 8)
  external.inbox.push(...later.slice(0, 8))
  run()
  returned(buildFrame(request))
  run()
  assert.deepEqual([node.packets.buffered, node.dropReasons()], [8, { 'no-owner': 3, 'no-slot': 1 }])
})

test('a full table refuses new flows and leaves the others alone', () => {
  const { node, external, links, run } = setUp({ limits: { entries: 4 } })
  for (let round = 0; round < 2; round++) {
    for (let flow = 1; flow <= 6; flow++) external.inbox.push(buildFrame({ ...request, source: `10.1.0.${flow}` }))
  }
  run()
  assert.deepEqual([node.entries, links[0].take().length + links[1].take().length, node.dropReasons()],
    [4, 8, { 'flow-table-full': 4 }])
})

test('an older configuration, one of another cluster, and one without this switch are refused', () => {
  const { node } = setUp()
  const next: ClusterConfig = { version: 3, clusterId: 1, runtimes: [],
    switches: [{ id: 1, incarnation: 101, side: 'ingress', isHome: true }] }
  assert.equal(node.notifyClusterConfig({ ...next, version: 2 }, 0), false)
  assert.equal(node.notifyClusterConfig({ ...next, clusterId: 2 }, 0), false)
  assert.equal(node.notifyClusterConfig({ ...next, switches: [{ ...next.switches[0], incarnation: 102 }] }, 0), false)
  assert.equal(node.notifyClusterConfig({ ...next, runtimes: [{ id: 1, incarnation: 9, isDraining: false }] }, 0), false, 'an id twice')
  assert.equal(node.notifyClusterConfig({ ...next, runtimes: [{ id: 256, incarnation: 9, isDraining: false }] }, 0), false)
  assert.equal(node.notifyClusterConfig(next, 0), true)
})
