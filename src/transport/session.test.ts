import { test } from 'node:test'
import assert from 'node:assert/strict'
import { Random } from '../base/random.ts'
import { Arena } from '../memory/arena.ts'
import { Stream } from './frame-header.ts'
import { Session } from './session.ts'
import type { Port } from '../packet/port.ts'

interface Faults { loss?: number; duplication?: number; corruption?: number; reordering?: number }

/** Two sessions on arenas of their own, and what lies on the wire between them. */
function pair(faults: Faults = {}, seed = 1) {
  const random = new Random(seed)
  const sizes = { frameBytes: 600, sendBytes: 4096, ringBytes: 16384 }
  const ends = [0, 1].map((index) => {
    const arena = new Arena(1 << 18)
    const room = arena.allocate('received', 2048) + 2
    const wire: Uint8Array[] = []
    const got: string[] = []
    const port: Port = {
      receive: () => 0, send: () => false, room: 0,
      sendReserved(frame, length) {
        if (wire.length >= 200) return false
        const copy = arena.u8.slice(frame, frame + length)
        if (random.chance(faults.loss ?? 0)) return true
        if (random.chance(faults.corruption ?? 0)) copy[random.below(copy.length)] ^= 1 << random.below(8)
        wire.push(copy)
        if (random.chance(faults.duplication ?? 0)) wire.push(copy.slice())
        if (random.chance(faults.reordering ?? 0) && wire.length > 1) wire.unshift(wire.pop() as Uint8Array)
        return true
      },
    }
    const session: Session = new Session({
      arena, clusterId: 7, self: index + 1, selfIncarnation: index + 11, peer: 2 - index, stream: Stream.control, sizes,
      onMessage(offset, bytes) {
        assert.equal(offset % 8, 0)
        const text = new TextDecoder().decode(arena.u8.slice(offset, offset + bytes))
        got.push(`${bytes} ${text.replaceAll('\0', '')}`)
      },
    })
    session.setPeer(12 - index)
    return { arena, room, wire, got, port, session }
  })
  const [a, b] = ends as [(typeof ends)[0], (typeof ends)[0]]
  let now = 1000
  return {
    a, b,
    send(from: typeof a, text: string, bytes = text.length, reserved = false): boolean {
      const at = from.session.begin(bytes, reserved)
      if (at === 0) return false
      from.arena.u8.set(new TextEncoder().encode(text), at)
      from.session.commit()
      return true
    },
    step(us = 100): void {
      now += us
      for (const [from, to] of [[a, b], [b, a]]) {
        from.session.transmit(from.port, now)
        for (const frame of from.wire.splice(0)) {
          to.arena.u8.set(frame, to.room)
          to.session.receive(to.room + 14, frame.length - 14, now)
        }
      }
    },
  }
}

test('messages arrive in order, small ones together in a frame, long ones in several', () => {
  const p = pair()
  const sent: string[] = []
  for (const bytes of [1, 8, 16, 100, 3000, 17, 64]) {
    assert.ok(p.send(p.a, `m${bytes}`, bytes + 8))
    sent.push(`${bytes + 8} m${bytes}`)
  }
  p.step()
  p.step()
  assert.deepEqual(p.b.got, sent)
  assert.ok(p.a.session.statistics.framesSent <= 8)
  assert.equal(p.a.session.queuedBytes, 0)
})

test('whatever the network does, every message arrives once and in order (property)', () => {
  for (let seed = 1; seed <= 40; seed++) {
    const random = new Random(seed)
    const p = pair({ loss: random.pick([0, 0.1, 0.3]), duplication: random.pick([0, 0.2]), corruption: random.pick([0, 0.1]),
      reordering: random.pick([0, 0.3]) }, seed)
    const sent: [string[], string[]] = [[], []]
    let steps = 0
    while (sent[0].length < 150 || p.b.got.length < sent[0].length || p.a.got.length < sent[1].length) {
      assert.ok(steps++ < 20_000, `seed ${seed}: ${p.b.got.length} of ${sent[0].length} arrived`)
      for (const [index, from] of [p.a, p.b].entries()) {
        if (sent[0].length >= 150 || !random.chance(0.5)) continue
        const bytes = random.pick([16, 72, 500, 3000])
        const text = `${index}:${sent[index as 0 | 1].length}`
        if (p.send(from, text, bytes)) sent[index as 0 | 1].push(`${bytes} ${text}`)
      }
      p.step(random.pick([50, 1000, 5000]))
    }
    assert.deepEqual(p.b.got, sent[0], `seed ${seed}`)
    assert.deepEqual(p.a.got, sent[1], `seed ${seed}`)
  }
})

test('a new incarnation of the peer begins anew; frames of the old one are ignored', () => {
  const p = pair()
  p.send(p.a, 'before')
  p.a.session.transmit(p.a.port, 2000)
  p.b.session.setPeer(99)
  p.step()
  assert.deepEqual(p.b.got, [])
  assert.ok(p.b.session.statistics.stale > 0)
  p.b.session.setPeer(11)
  p.a.session.setPeer(0)
  assert.equal(p.a.session.begin(8), 0)
  p.a.session.setPeer(12)
  p.send(p.a, 'after')
  p.step()
  assert.deepEqual(p.b.got, ['5 after'])
})

test('ordinary room is bounded, and replies find room beyond it', () => {
  const p = pair()
  let count = 0
  while (p.send(p.a, 'x', 200)) count++
  assert.ok(count >= 15 && count <= 20)
  for (let i = 0; i < 20; i++) assert.ok(p.send(p.a, 'reply', 200, true))
  for (let i = 0; i < 20; i++) p.step(1000)
  assert.equal(p.b.got.length, count + 20)
})
