/**
 * The control network of one machine: nodes that talk much get a link, whatever dies leaves the others whole and is met again, nothing grows
 * without bound.
 */

import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { Arena } from '../memory/arena.ts'
import { createControlPlane, longSessionSizes, type ControlPlane } from '../node/control-plane.ts'
import { Descriptor, DESCRIPTOR_BYTES, DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import { PacketPool } from '../packet/packet-pool.ts'
import { waitForPorts } from '../ports/port-waiter.ts'
import { systemClock } from '../ports/system-clock.ts'
import { ClusterFolder } from './cluster-folder.ts'
import { CONTROL_LINKS_MAX, ControlNetwork, TALKATIVE_FRAMES } from './control-network.ts'

const skip = process.platform === 'linux' ? false : 'needs Linux'
const folder = new ClusterFolder(mkdtempSync(join(tmpdir(), 'nfactor-control-')))
after(() => { rmSync(folder.path, { recursive: true }) })

const LONG = 65_024

class Node {
  readonly id: number
  readonly arena: Arena
  readonly network: ControlNetwork
  readonly #pool: PacketPool
  readonly #descriptors: number
  readonly #frame: number

  constructor(id: number, megabytes = 8) {
    this.id = id
    const arena = this.arena = new Arena(megabytes << 20)
    this.#pool = new PacketPool(arena, 64, 16)
    this.#descriptors = arena.allocate('batch', 32 * DESCRIPTOR_BYTES) >> 2
    this.#frame = arena.allocate('frame', 1 << 17)
    this.network = new ControlNetwork({ arena, folder, node: id })
    this.network.open()
  }

  /** Sends a frame that carries a number behind its addresses. */
  send(to: number, number: number, length = 64): boolean {
    const { u8 } = this.arena
    u8.fill(0, this.#frame, this.#frame + 16)
    u8[this.#frame + 5] = to
    u8[this.#frame + 11] = this.id
    this.arena.view.setUint32(this.#frame + 14, number)
    this.arena.view.setUint32(this.#frame + length - 4, number)
    return this.network.sendReserved(this.#frame, length)
  }

  /** The numbers of the frames that have come, whole. */
  receive(): number[] {
    const { i32, view } = this.arena
    const count = this.network.receive(this.#pool, this.#descriptors, 32)
    return Array.from({ length: count }, (_, index) => {
      const d = this.#descriptors + index * DESCRIPTOR_WORDS
      const frame = i32[d + Descriptor.frame]
      const number = view.getUint32(frame + 14)
      assert.equal(view.getUint32(frame + i32[d + Descriptor.length] - 4), number)
      this.#pool.give(i32[d + Descriptor.slot])
      return number
    })
  }

  turn(): number[] {
    this.network.maintain(systemClock.now())
    const numbers = this.receive()
    this.network.flush()
    return numbers
  }
}

async function until(what: string, isTrue: () => boolean): Promise<void> {
  for (const end = performance.now() + 10_000; !isTrue();) {
    assert.ok(performance.now() < end, what)
    await new Promise((resolve) => { setTimeout(resolve, 1) })
  }
}

/** Two nodes say so much that they get a link. */
async function join2(one: Node, two: Node): Promise<void> {
  for (let i = 0; i < TALKATIVE_FRAMES; i++) {
    assert.ok(one.send(two.id, i))
    two.turn()
    one.turn()
  }
  await untilUp(one, two)
}

async function untilUp(one: Node, two: Node): Promise<void> {
  await until('the link is up', () => {
    one.turn()
    two.turn()
    return one.network.linkTo(two.id)?.isUp === true && two.network.linkTo(one.id)?.isUp === true
  })
}

test('nodes talk by datagrams at once; those that talk much get a link, which takes long frames in order', { skip }, async () => {
  const [one, two, three] = [new Node(1), new Node(2), new Node(3)]
  assert.equal(one.network.frameBytesTo(2), 1514)
  assert.ok(!one.send(2, 1, 1515), 'a datagram carries ordinary frames')
  assert.ok(one.send(3, 7))
  assert.deepEqual(three.turn(), [7])
  await join2(one, two)
  assert.equal(three.network.links.length, 0, 'who says little has none')
  assert.deepEqual([one.network.frameBytesTo(2), two.network.frameBytesTo(1), one.network.frameBytesTo(3)], [LONG, LONG, 1514])
  const { txFrames } = one.network.datagrams
  const lengths = [64, LONG, 1514, 30_000, LONG]
  lengths.forEach((length, index) => { assert.ok(one.send(2, index, length)) })
  one.network.flush()
  assert.deepEqual(two.turn(), [0, 1, 2, 3, 4])
  assert.equal(one.network.datagrams.txFrames, txFrames)
  assert.ok(!one.send(2, 1, LONG + 10_000), 'longer than any')
  for (const { network } of [one, two, three]) network.close()
  assert.deepEqual(readdirSync(folder.path), [], 'no socket is left')
})

test('a full ring refuses, and takes frames again when there is room', { skip }, async () => {
  const [one, two] = [new Node(1), new Node(2)]
  await join2(one, two)
  let sent = 0
  while (one.send(2, sent, LONG)) assert.ok(++sent < 100)
  assert.ok(sent >= 8)
  const { txFrames } = one.network.datagrams
  while (one.send(2, sent)) assert.ok(++sent < 300)
  assert.equal(one.network.datagrams.txFrames, txFrames, 'nor by a datagram, for it would come first')
  assert.equal(one.network.statistics.txFull, 2)
  one.network.flush()
  let received = 0
  while (two.turn().length > 0) received++
  assert.ok(received > 0 && one.send(2, 0, LONG))
  for (const { network } of [one, two]) network.close()
})

for (const dies of [1, 2]) {
  const which = dies === 1 ? 'listens' : 'connects'
  test(`the end that ${which} dies and comes back: datagrams meanwhile, then the link again`, { skip }, async () => {
    const [one, two] = [new Node(1), new Node(2)]
    await join2(one, two)
    const [dead, alive] = dies === 1 ? [one, two] : [two, one]
    dead.network.close()
    await until('the link is down', () => (alive.turn(), alive.network.linkTo(dead.id)?.isUp === false))
    assert.equal(alive.network.frameBytesTo(dead.id), 1514)
    assert.ok(alive.send(dead.id, 1), 'lost, as on a wire')
    assert.equal(alive.network.datagrams.txLost, 1)
    const next = new Node(dead.id)
    assert.ok(alive.send(dead.id, 2))
    assert.deepEqual(next.turn(), [2])
    for (let i = 0; i < TALKATIVE_FRAMES; i++) {
      assert.ok(next.send(alive.id, i))
      alive.turn()
    }
    await untilUp(alive, next)
    assert.equal(alive.network.links.length, 1)
    assert.ok(alive.send(next.id, 3, LONG))
    alive.network.flush()
    assert.deepEqual(next.turn(), [3])
    for (const { network } of [alive, next]) network.close()
  })
}

test('an end that cannot be opened, for a former life is there still, is tried again', { skip }, async () => {
  const [former, two] = [new Node(1), new Node(2)]
  await join2(former, two)
  const one = new Node(1)
  for (let i = 0; i < TALKATIVE_FRAMES; i++) assert.ok(one.send(2, i) && (two.turn(), true))
  one.turn()
  assert.ok(one.network.linkTo(2)?.isUp === false)
  assert.match(one.network.linkTo(2)?.lastEnd ?? '', /EADDRINUSE/)
  former.network.linkTo(2)?.close()
  for (let i = 0; i < TALKATIVE_FRAMES; i++) assert.ok(one.send(2, i) && (two.turn(), true))
  await untilUp(one, two)
  assert.equal(one.network.links.length, 1)
  for (const { network } of [former, one, two]) network.close()
})

test('nodes beyond a number get no links', { skip }, () => {
  const one = new Node(1, 192)
  for (let to = 100; to < 100 + CONTROL_LINKS_MAX + 5; to++) for (let i = 0; i <= TALKATIVE_FRAMES; i++) assert.ok(one.send(to, i))
  one.turn()
  assert.equal(one.network.links.length, CONTROL_LINKS_MAX)
  one.turn()
  assert.equal(one.network.links.length, CONTROL_LINKS_MAX)
  one.network.close()
})

test('who sleeps is woken by a frame over the link', { skip }, async () => {
  const [one, two] = [new Node(1), new Node(2)]
  await join2(one, two)
  while (two.turn().length > 0);
  const woken = waitForPorts([two.network], 10_000)
  one.send(2, 1)
  one.network.flush()
  assert.equal(await woken, true)
  assert.equal(await waitForPorts([two.network], 10_000), true, 'there is one already')
  assert.deepEqual(two.turn(), [1])
  for (const { network } of [one, two]) network.close()
})

test('sessions go over from datagrams to a link and back without losing a message or sending one twice', { skip }, async () => {
  const numbers: number[] = []
  const create = (self: number): { network: ControlNetwork, plane: ControlPlane, arena: Arena } => {
    const arena = new Arena(32 << 20)
    const network = new ControlNetwork({ arena, folder, node: self })
    network.open()
    const plane = createControlPlane({ arena, clusterId: 1, self, selfIncarnation: self, port: network,
      sessions: { ...longSessionSizes, timeoutUsMin: 20_000 },
      onMessage: (_peer, at, bytes) => { numbers.push(arena.u32[at >> 2], bytes) } })
    plane.setPeers([{ id: 3 - self, incarnation: 3 - self }])
    return { network, plane, arena }
  }
  const nodes = [create(1), create(2)]
  const [{ plane, arena, network }] = nodes
  const turn = (): void => {
    for (const { network: own, plane: control } of nodes) {
      control.receive(64, systemClock.now())
      control.transmit(systemClock.now())
      own.flush()
      own.maintain(systemClock.now())
    }
  }
  const expected: number[] = []
  const say = async (count: number): Promise<void> => {
    for (const end = expected.length + count * 2; expected.length < end; turn()) {
      const bytes = 8 + (expected.length * 7919) % 120_000
      const at = plane.channel(2)?.begin(bytes) ?? 0
      if (at === 0) continue
      arena.u32[at >> 2] = expected.length
      plane.channel(2)?.commit()
      expected.push(expected.length, bytes)
    }
    await until('all has come', () => (turn(), numbers.length === expected.length))
  }
  await say(200)
  assert.deepEqual(numbers, expected)
  assert.ok(network.linkTo(2)?.isUp === true)
  assert.equal(plane.totals().retransmitted, 0)
  const { framesSent } = plane.totals()
  await say(50)
  assert.ok(plane.totals().framesSent - framesSent < 50 * 4, 'frames are long')
  // The link is gone for a while, with what was on its way; the nodes live.
  nodes[1].network.linkTo(1)?.close()
  await say(50)
  nodes[1].network.linkTo(1)?.open()
  await until('the link is up again', () => (turn(), network.linkTo(2)?.isUp === true))
  await say(50)
  assert.deepEqual(numbers, expected)
  for (const { network: own } of nodes) own.close()
})
