import { test } from 'node:test'
import assert from 'node:assert/strict'
import { Random } from '../base/random.ts'
import { Arena } from '../memory/arena.ts'
import { Descriptor, DESCRIPTOR_BYTES, DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import { PacketPool } from '../packet/packet-pool.ts'
import { createMemoryPorts, type MemoryPort } from '../transport/memory-port.ts'
import { DataLink } from './data-link.ts'

const sessions = { frameBytes: 600, sendBytes: 4096, ringBytes: 16_384 }

/** Two ends of a link; each writes down what comes, in its order: `d5` a data frame, `m7` a message. */
function pair(frames = 64, reserved = 16, silenceUs = 0) {
  const arena = new Arena(1 << 20)
  const ports = createMemoryPorts(arena, { frames, reserved, frameBytes: 600 })
  const pool = new PacketPool(arena, 256, 0)
  const scratch = arena.allocate('frame', 128) + 2
  const ends = ports.map((port, index) => {
    const descriptors = arena.allocate('batch', 32 * DESCRIPTOR_BYTES) >> 2
    const log: string[] = []
    const link = new DataLink({ arena, clusterId: 1, self: index + 1, selfIncarnation: index + 11, peer: 2 - index, port,
      isSwitch: index === 0, silenceUs: index === 0 ? silenceUs : 0, sessions,
      onRefused: () => { log.push('x') }, onMessage: (offset) => { log.push(`m${arena.i32[offset >> 2]}`) } })
    link.setPeer(12 - index)
    return { port, link, log, descriptors }
  }) as [End, End]
  const [a, b] = ends
  let now = 1000
  return {
    arena, a, b, pool,
    get now() { return now },
    send(from: End, number: number): boolean {
      arena.u8.fill(0, scratch, scratch + 64)
      arena.u8[scratch + 12] = 8
      arena.i32[(scratch + 14) >> 2] = number
      return from.link.send(scratch, 64)
    },
    say(from: End, number: number, bytes = 16): boolean {
      const at = from.link.channel.begin(bytes)
      if (at === 0) return false
      arena.i32[at >> 2] = number
      from.link.channel.commit()
      return true
    },
    /** What a node does in a turn. */
    turn(end: End, max = 32): void {
      for (let batch = 0; batch < 20; batch++) {
        end.link.deliver(now)
        const count = end.link.receive(pool, end.descriptors, max)
        if (count === 0 && !end.link.hasPending) break
        for (let i = 0; i < count; i++) {
          const d = end.descriptors + i * DESCRIPTOR_WORDS
          end.log.push(`d${arena.i32[(arena.i32[d + Descriptor.frame] + 14) >> 2]}`)
          pool.give(arena.i32[d + Descriptor.slot])
        }
      }
      end.link.deliver(now)
      end.link.transmit(now)
    },
    pass(us: number): void {
      now += us
    },
  }
}

interface End { port: MemoryPort; link: DataLink; log: string[]; descriptors: number }

test('which life of the peer has sent what comes is read from that, whoever is meant', () => {
  const { a, b, send, turn } = pair()
  b.link.setPeer(0x1234)
  send(a, 1)
  turn(b)
  assert.deepEqual([b.log, b.link.senderLife], [['d1'], 11])
})

test('a long frame takes as much room as its pieces where a port says so, and as much as any other where not', () => {
  const { a } = pair()
  assert.deepEqual([64, 65_536].map((length) => a.link.roomOf(length)), [1, 1])
  Object.assign(a.port, { bufferBytes: 2112 })
  assert.deepEqual([64, 2112, 2113, 65_536].map((length) => a.link.roomOf(length)), [1, 1, 2, 32])
})

test('in-band messages keep their place among data frames', () => {
  for (let seed = 1; seed <= 30; seed++) {
    const random = new Random(seed)
    const p = pair()
    const sent: string[] = []
    for (let i = 0; i < 500; i++) {
      if (random.chance(0.3)) {
        if (p.say(p.a, i, random.pick([16, 72, 1500]))) sent.push(`m${i}`)
      } else if (p.send(p.a, i)) {
        sent.push(`d${i}`)
      }
      if (random.chance(0.05)) {
        p.a.link.transmit(p.now)
        p.turn(p.b, random.pick([1, 5, 32]))
        p.turn(p.a)
        p.pass(100)
      }
    }
    for (let i = 0; i < 10; i++) {
      p.pass(100)
      p.turn(p.a)
      p.turn(p.b)
    }
    assert.deepEqual(p.b.log, sent, `seed ${seed}`)
    assert.equal(p.a.link.session.statistics.retransmitted, 0)
    assert.equal(p.pool.used, 0)
  }
})

test('on a link that loses frames messages keep their own order, and none overtakes what was sent before it', () => {
  for (let seed = 1; seed <= 30; seed++) {
    const random = new Random(seed)
    const p = pair()
    p.a.port.filter = p.b.port.filter = () => !random.chance(0.2)
    let next = 0
    for (let i = 0; i < 300; i++) {
      if (random.chance(0.3) ? p.say(p.a, next, random.pick([16, 1500])) : p.send(p.a, next)) next++
      if (random.chance(0.1)) {
        p.pass(random.pick([100, 3000]))
        p.turn(p.a)
        p.turn(p.b)
      }
    }
    for (let i = 0; i < 2000 && p.a.link.session.queuedBytes > 0; i++) {
      p.pass(3000)
      p.turn(p.a)
      p.turn(p.b)
    }
    const numbers = (kind: string): number[] =>
      p.b.log.filter((entry) => entry[0] === kind).map((entry) => Number(entry.slice(1)))
    const inOrder = (list: number[]): boolean =>
      list.every((number, index) => index === 0 || number > (list[index - 1] as number))
    assert.ok(inOrder(numbers('d')) && inOrder(numbers('m')), `seed ${seed}`)
    assert.equal(numbers('m').length, p.a.link.session.statistics.messagesSent)
    let seen = -1
    for (const entry of p.b.log) {
      const number = Number(entry.slice(1))
      if (entry[0] === 'd') seen = number
      else assert.ok(seen < number || p.a.link.session.statistics.retransmitted > 0)
    }
  }
})

test('a message is a batch boundary: what is behind it stays inside, in order', () => {
  const p = pair()
  for (const number of [1, 2]) p.send(p.a, number)
  p.say(p.a, 3)
  for (const number of [4, 5, 6]) p.send(p.a, number)
  p.say(p.a, 7)
  p.send(p.a, 8)
  const { link, descriptors } = p.b
  assert.ok(!link.deliver(p.now))
  assert.equal(link.receive(p.pool, descriptors, 32), 2)
  assert.equal(link.receive(p.pool, descriptors, 32), 0)
  assert.deepEqual([link.pending, link.hasPending, link.nextDue()], [4, true, -Infinity])
  assert.ok(link.deliver(p.now))
  assert.ok(!link.deliver(p.now))
  assert.equal(link.receive(p.pool, descriptors, 2), 2)
  assert.equal(link.receive(p.pool, descriptors, 2), 1)
  assert.equal(link.receive(p.pool, descriptors, 2), 0)
  assert.ok(link.deliver(p.now))
  assert.equal(link.receive(p.pool, descriptors, 2), 1)
  assert.deepEqual([link.pending, link.hasPending], [0, false])
  assert.deepEqual(p.b.log, ['m3', 'm7'])
})

test('a new life of the peer loses no data frame that has come', () => {
  const p = pair()
  p.say(p.a, 1)
  for (const number of [2, 3]) p.send(p.a, number)
  assert.equal(p.b.link.receive(p.pool, p.b.descriptors, 32), 0)
  p.b.link.setPeer(0)
  p.b.link.setPeer(99)
  assert.equal(p.b.link.pending, 2)
  p.turn(p.b)
  assert.deepEqual(p.b.log, ['d2', 'd3'])
  assert.equal(p.b.link.session.statistics.stale, 1)
})

test('while the messages before it cannot leave, a data frame does not either', () => {
  const p = pair(8, 2)
  while (p.send(p.a, 1)) { /* Until it is full but for the reserve. */ }
  assert.equal(p.a.link.room, 0)
  p.say(p.a, 2)
  assert.ok(!p.send(p.a, 3), 'the message left, the data frame had no room')
  p.say(p.a, 4)
  p.a.link.transmit(p.now)
  p.say(p.a, 5)
  assert.ok(!p.send(p.a, 6))
  assert.ok(p.a.link.session.hasUnsent)
  p.turn(p.b)
  assert.ok(p.send(p.a, 7))
  p.turn(p.b)
  assert.deepEqual(p.b.log, [...Array(6).fill('d1'), 'm2', 'm4', 'm5', 'd7'])
})

test('a port that takes data but no message gets no data either', () => {
  const p = pair()
  Object.assign(p.a.port, { sendReserved: () => false })
  p.say(p.a, 1)
  assert.ok(!p.send(p.a, 2))
  assert.equal(p.b.port.receive(p.pool, p.b.descriptors, 32), 0)
})

/** A pair that have heard each other, one of which asks the other when that says nothing for a fifth of a millisecond. */
function watching(): ReturnType<typeof pair> {
  const p = pair(64, 16, 1000)
  p.say(p.a, 0)
  p.a.link.transmit(p.now)
  p.turn(p.b)
  p.turn(p.a)
  return p
}

test('a peer that says nothing although it is asked is silent, and frames wait until it says something', () => {
  const p = watching()
  const turns = (ends: readonly End[], count: number): void => {
    for (let i = 0; i < count; i++) {
      p.pass(100)
      for (const end of ends) p.turn(end)
    }
  }
  turns([p.a], 30)
  assert.equal(p.a.link.isSilent, false, 'who was sent nothing need not say anything')
  for (let i = 1; i <= 20; i++) {
    assert.ok(p.send(p.a, i))
    turns([p.a, p.b], 5)
  }
  assert.equal(p.a.link.isSilent, false, 'it answers when it is asked')
  assert.ok(p.send(p.a, 21))
  turns([p.a], 8)
  assert.equal(p.a.link.isSilent, false, 'it has been asked for too short a time')
  turns([p.a], 8)
  assert.equal(p.a.link.isSilent, true)
  assert.equal(p.send(p.a, 22), false)
  assert.equal(p.a.link.room, 0)
  turns([p.a], 30)
  turns([p.a, p.b], 4)
  assert.equal(p.a.link.isSilent, false, 'it is asked again and again')
  assert.ok(p.send(p.a, 22))
  turns([p.a, p.b], 1)
  assert.deepEqual(p.b.log, ['m0', ...Array.from({ length: 22 }, (_, i) => `d${i + 1}`)])
})

test('a node that has stood still itself does not call its peer silent', () => {
  const p = watching()
  assert.ok(p.send(p.a, 1))
  p.turn(p.a)
  p.pass(100_000)
  p.turn(p.a)
  p.pass(100_000)
  p.turn(p.a)
  assert.equal(p.a.link.isSilent, false)
  p.turn(p.b)
  p.turn(p.a)
  assert.equal(p.a.link.isSilent, false)
})
