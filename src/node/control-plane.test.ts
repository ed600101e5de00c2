import { test } from 'node:test'
import assert from 'node:assert/strict'
import { Random } from '../base/random.ts'
import { Arena } from '../memory/arena.ts'
import { Descriptor, DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import { PacketPool, SLOT_FRAME_OFFSET } from '../packet/packet-pool.ts'
import type { Port } from '../packet/port.ts'
import { createControlPlane, type ControlPlane } from './control-plane.ts'

const sessions = { frameBytes: 600, sendBytes: 1024, ringBytes: 4096, messageBytesMax: 512 }

/** Nodes on one segment: a frame goes to the node that its destination address names. */
function segment(ids: readonly number[], random = new Random(1), loss = 0) {
  const queues = new Map<number, Uint8Array[]>()
  const nodes = new Map(ids.map((id) => {
    const arena = new Arena(1 << 19)
    const pool = new PacketPool(arena, 64, 0)
    const log: string[] = []
    queues.set(id, [])
    const port: Port = {
      room: 0, send: () => false,
      sendReserved: (frame, length) => {
        const to = queues.get(arena.u8[frame + 5])
        if (to !== undefined && !random.chance(loss)) to.push(arena.u8.slice(frame, frame + length))
        return true
      },
      receive: (into, descriptors, max) => {
        const frames = (queues.get(id) as Uint8Array[]).splice(0, max)
        frames.forEach((bytes, index) => {
          const slot = into.take(bytes.length)
          arena.u8.set(bytes, slot + SLOT_FRAME_OFFSET)
          arena.i32[descriptors + index * DESCRIPTOR_WORDS + Descriptor.frame] = slot + SLOT_FRAME_OFFSET
          arena.i32[descriptors + index * DESCRIPTOR_WORDS + Descriptor.length] = bytes.length
          arena.i32[descriptors + index * DESCRIPTOR_WORDS + Descriptor.slot] = slot
        })
        return frames.length
      },
    }
    const plane = createControlPlane({ arena, clusterId: 1, self: id, selfIncarnation: id * 10, port, sessions,
      onMessage: (peer, offset, bytes) => { log.push(`${peer}: ${arena.i32[offset >> 2]} (${bytes})`) } })
    return [id, { id, arena, pool, log, plane }] as const
  }))
  let now = 1000
  return {
    queues,
    node: (id: number) => nodes.get(id) as { arena: Arena; pool: PacketPool; log: string[]; plane: ControlPlane },
    get now() { return now },
    say(from: number, to: number, number: number, bytes = 16): boolean {
      const { arena, plane } = nodes.get(from) as { arena: Arena; plane: ControlPlane }
      const channel = plane.channel(to)
      const at = channel?.begin(bytes) ?? 0
      if (at === 0) return false
      arena.i32[at >> 2] = number
      channel?.commit()
      return true
    },
    turn(us = 500): void {
      now += us
      for (const { plane, pool } of nodes.values()) {
        plane.receive(64, now)
        plane.transmit(now)
        assert.equal(pool.used, 0)
      }
    },
  }
}

const all = (ids: readonly number[], self: number): { id: number; incarnation: number }[] =>
  ids.filter((id) => id !== self).map((id) => ({ id, incarnation: id * 10 }))

test('every node talks to every other over one port, on a network that loses frames', () => {
  const ids = [1, 2, 3, 4]
  const s = segment(ids, new Random(3), 0.1)
  for (const id of ids) s.node(id).plane.setPeers(all(ids, id))
  const expected = new Map(ids.map((id) => [id, [] as string[]]))
  for (let number = 0; number < 200; number++) {
    for (const from of ids) {
      const to = ids[(ids.indexOf(from) + 1 + number % 3) % 4] as number
      if (s.say(from, to, number, 16 + number % 400)) expected.get(to)?.push(`${from}: ${number} (${16 + number % 400})`)
    }
    s.turn()
  }
  for (let i = 0; i < 300; i++) s.turn(2000)
  for (const id of ids) {
    for (const from of ids) {
      const of = (log: string[]): string[] => log.filter((entry) => entry.startsWith(`${from}:`))
      assert.deepEqual(of(s.node(id).log), of(expected.get(id) as string[]))
    }
    assert.equal(s.node(id).plane.nextDue(), Infinity)
    assert.ok(s.node(id).plane.lastHeard(id % 4 + 1) > 1000)
  }
})

test('peers come and go; a session is used again for another peer', () => {
  const ids = [1, 2, 3]
  const s = segment(ids)
  const { plane, arena } = s.node(1)
  plane.setPeers([{ id: 2, incarnation: 20 }])
  for (const id of [2, 3]) s.node(id).plane.setPeers(all(ids, id))
  assert.ok(plane.channel(2) !== null && plane.channel(3) === null)
  s.say(1, 2, 5)
  s.say(3, 1, 6)
  s.turn()
  s.turn()
  assert.deepEqual(s.node(2).log, ['1: 5 (16)'])
  assert.deepEqual([s.node(1).log, plane.statistics.unknownPeer], [[], 1])
  const { remaining } = arena
  plane.setPeers([{ id: 3, incarnation: 30 }])
  assert.equal(arena.remaining, remaining)
  assert.ok(plane.channel(2) === null && plane.lastHeard(2) === 0)
  for (let i = 0; i < 60; i++) s.turn()
  assert.deepEqual(s.node(1).log, ['3: 6 (16)'])
  s.say(1, 3, 7)
  for (let i = 0; i < 3; i++) s.turn()
  assert.deepEqual(s.node(3).log, ['1: 7 (16)'])
  plane.setPeers(all(ids, 1))
  assert.ok(plane.channel(2) !== null && arena.remaining < remaining)
})

test('a peer that is not there is reported as silent', () => {
  const s = segment([1])
  const { plane } = s.node(1)
  plane.setPeers([{ id: 2, incarnation: 20 }])
  s.turn()
  assert.deepEqual(plane.silentPeers(), [])
  s.say(1, 2, 1)
  for (let i = 0; i < 1000; i++) s.turn(1000)
  assert.deepEqual(plane.silentPeers(), [2])
  plane.setPeers([])
  assert.deepEqual(plane.silentPeers(), [])
})

test('frames of no session are counted, whatever they are', () => {
  const s = segment([1])
  const { plane, pool } = s.node(1)
  plane.setPeers([{ id: 2, incarnation: 20 }])
  const random = new Random(5)
  const queue = s.queues.get(1) as Uint8Array[]
  for (let i = 0; i < 100; i++) {
    const frame = random.fill(new Uint8Array(random.between(0, 200)))
    if (frame.length > 14 && i % 2 === 0) frame.set([0x88, 0xb5], 12)
    queue.push(frame)
  }
  assert.ok(plane.receive(32, 1))
  assert.ok(!plane.receive(100, 1))
  assert.equal(plane.statistics.otherFrames + plane.statistics.unknownPeer, 100)
  assert.ok(plane.statistics.unknownPeer > 10)
  assert.equal(pool.used, 0)
})

test('frames have a few slots, and fewer where they are long: what is more waits in the port', () => {
  for (const [isLong, most] of [[false, 16], [true, 4]] as const) {
    const arena = new Arena(1 << 20)
    const bytes = isLong ? 60_000 : 600
    const taken: number[] = []
    let left = 40
    // It gives all for which there are slots.
    const receive = (pool: PacketPool, descriptors: number, max: number): number => {
      let count = 0
      for (; count < max && left > 0; count++, left--) {
        const slot = pool.take(bytes)
        if (slot === 0) break
        const d = descriptors + count * DESCRIPTOR_WORDS
        arena.i32[d + Descriptor.frame] = slot + SLOT_FRAME_OFFSET
        arena.i32[d + Descriptor.length] = bytes
        arena.i32[d + Descriptor.slot] = slot
      }
      taken.push(count)
      return count
    }
    const port = { room: 0, receive, ...isLong && { frameBytesTo: () => 65_024 } } as unknown as Port
    const plane = createControlPlane({ arena, clusterId: 1, self: 1, selfIncarnation: 10, port, sessions, onMessage: () => {} })
    assert.equal(plane.receive(24, 1), true)
    assert.deepEqual([taken, left], [isLong ? [4, 4, 4, 4, 4, 4] : [16, 8], 16])
    assert.equal(plane.receive(64, 1), false)
    assert.deepEqual([Math.max(...taken), left, plane.statistics.otherFrames], [most, 0, 40])
  }
})

test('making and taking back all sessions of a node is cheap in memory', () => {
  const arena = new Arena(1 << 19)
  createControlPlane({ arena, clusterId: 1, self: 1, selfIncarnation: 1, port: { receive: () => 0 } as unknown as Port, sessions,
    onMessage: () => {} }).setPeers([2, 3, 4, 5, 6].map((id) => ({ id, incarnation: id })))
  assert.ok(arena.bytes - arena.remaining < 96 * 1024)
})
