import { test } from 'node:test'
import assert from 'node:assert/strict'
import { AssertionError } from '../base/assert.ts'
import { planted, type PlantedBug } from '../base/planted-bugs.ts'
import { Random } from '../base/random.ts'
import { Arena } from '../memory/arena.ts'
import { checksum } from './frame-checksum.ts'
import { Stream } from './frame-header.ts'
import { SessionPair, type NetworkFaults } from './session-pair.ts'
import { Session, SessionHeader } from './session.ts'

const isData = (frame: Uint8Array): boolean => new DataView(frame.buffer).getUint16(14 + SessionHeader.dataBytes, true) > 0

test('messages arrive in order, small ones together in a frame, long ones in several', () => {
  const p = new SessionPair()
  const sizes = [1, 8, 16, 100, 3000, 17, 64]
  for (const bytes of sizes) assert.ok(p.a.send(bytes))
  p.step()
  p.step()
  p.step()
  assert.ok(p.isSettled)
  const { statistics } = p.a.session
  assert.equal(statistics.messagesSent, sizes.length)
  assert.equal(p.b.session.statistics.messagesReceived, sizes.length)
  // Four before the long one, six for it, two behind it.
  assert.equal(statistics.framesSent, 8)
  assert.equal(statistics.retransmitted, 0)
  assert.equal(p.b.session.statistics.framesSent, 1, 'one acknowledgement for a turn')
  assert.equal(statistics.bytesSent, p.b.session.statistics.bytesReceived)
})

test('every size of message arrives', () => {
  const p = new SessionPair({ sizes: { messageBytesMax: 4000 } })
  for (let bytes = 1; bytes <= 4000; bytes += bytes < 1100 ? 1 : 97) {
    assert.ok(p.a.send(bytes))
    for (let i = 0; i < 3; i++) p.step()
  }
  assert.ok(p.a.send(4000))
  assert.ok(p.settle())
  assert.throws(() => p.a.session.begin(4001), AssertionError)
})

/** Traffic of both kinds in both directions over a bad network, held against two queues. */
function modelRun(seed: number): SessionPair {
  const random = new Random(seed)
  const faults: NetworkFaults = {
    loss: random.pick([0, 0.02, 0.1, 0.3]), duplication: random.pick([0, 0.05, 0.3]), corruption: random.pick([0, 0.05]),
    delayUs: random.pick([0, 20, 300, 3000]), jitterUs: random.pick([0, 0, 100, 2000]), frames: random.pick([4, 40, 1000]),
  }
  const sizes = random.pick([
    { frameBytes: 600, sendBytes: 4096, ringBytes: 16_384 }, { frameBytes: 1514, sendBytes: 8192, ringBytes: 32_768 },
    { frameBytes: 100, sendBytes: 1024, ringBytes: 4096 },
  ])
  const p = new SessionPair({ sizes, faults, seed, stream: seed & 1 })
  const messages = random.pick([[16, 72, 100], [16, 500], [900, 17, 1000], [80]])
  // Replies stay behind what the reserve is for: each end answers some of what it gets.
  const answers = random.chance(0.5)
  for (const end of [p.a, p.b]) {
    let owed = 0
    end.onMessage = (bytes) => {
      // Every second message is an answer's size of its own, so that answers are not answered.
      if (answers && bytes % 8 === 0 && owed++ % 2 === 0) assert.ok(end.send(Math.max(1, (bytes >> 1) | 1), true))
    }
  }
  let left = 150
  for (let steps = 0; left > 0; steps++) {
    assert.ok(steps < 50_000, `seed ${seed}: stuck with ${left} messages to send`)
    for (const end of [p.a, p.b]) {
      for (let burst = random.below(6); burst > 0; burst--) if (end.send(random.pick(messages))) left--
      assert.ok(end.session.queuedBytes <= sizes.ringBytes)
    }
    p.step(random.pick([20, 200, 2000]))
  }
  assert.ok(p.settle(20_000), `seed ${seed}: ${p.a.expected.length} and ${p.b.expected.length} messages did not arrive`)
  return p
}

test('frames are as long as the port says that they reach the peer, whenever that changes, and never longer', () => {
  for (let seed = 1; seed <= 40; seed++) {
    const random = new Random(seed)
    const [loss, duplication, jitterUs] = [random.pick([0, 0.1]), random.pick([0, 0.2]), random.pick([0, 2000])]
    const faults: NetworkFaults = { loss, duplication, delayUs: 100, jitterUs }
    const p = new SessionPair({ sizes: { frameBytes: 600, longFrameBytes: 3000, sendBytes: 8192, ringBytes: 32_768 }, faults, seed })
    const lengths = new Set<string>()
    const pick = (): number => random.pick([0, 600, 1514, 5000])
    for (const end of [p.a, p.b]) {
      let most = pick()
      ;(end.port as { frameBytesTo?: (node: number) => number }).frameBytesTo = (node) => {
        assert.equal(node, end.session.peer)
        return most = random.chance(0.9) ? most : pick()
      }
      end.filter = ({ length }) => {
        assert.ok(length <= Math.max(600, Math.min(most, 3000)), `seed ${seed}: ${length} bytes where ${most} reach the peer`)
        lengths.add(length > 1514 ? 'long' : length > 600 ? 'middle' : 'short')
        return true
      }
    }
    for (let left = 120, steps = 0; left > 0; steps++) {
      assert.ok(steps < 50_000)
      for (const end of [p.a, p.b]) if (end.send(random.pick([16, 900, 4000]))) left--
      p.step(200)
    }
    assert.ok(p.settle(20_000), `seed ${seed}`)
    assert.equal(lengths.size, 3)
  }
})

test('whatever the network does, every message arrives once, whole and in order (property)', () => {
  const total: Record<string, number> = {}
  for (let seed = 1; seed <= 150; seed++) {
    const p = modelRun(seed)
    for (const { session } of [p.a, p.b]) {
      for (const [name, count] of Object.entries(session.statistics)) total[name] = (total[name] ?? 0) + count
    }
  }
  for (const name of ['retransmitted', 'timeouts', 'duplicates', 'early', 'corrupted', 'refused']) {
    assert.ok(total[name] as number > 0, name)
  }
  assert.equal(total.malformed, 0)
  assert.equal(total.lost, 0)
})

test('the same seed gives the same run', () => {
  const [first, second] = [modelRun(7), modelRun(7)]
  assert.equal(first.now, second.now)
  assert.deepEqual(first.a.session.statistics, second.a.session.statistics)
})

for (const bug of ['duplicates-delivered', 'long-message-cut', 'replies-dropped'] satisfies PlantedBug[]) {
  test(`the model sees the planted bug ${bug}`, () => {
    planted[bug] = true
    try {
      let seen = 0
      for (let seed = 1; seed <= 40; seed++) {
        try {
          modelRun(seed)
        } catch (error) {
          assert.ok(error instanceof Error)
          if (/^a message |^seed \d+: /.test(error.message)) seen++
        }
      }
      assert.ok(seen >= 10, `seen in ${seen} of 40 runs`)
    } finally {
      planted[bug] = false
    }
  })
}

test('a lost frame is sent again after a round trip, not after a time-out', () => {
  const p = new SessionPair({ faults: { delayUs: 100 } })
  for (let i = 0; i < 20; i++) {
    p.a.send(100)
    p.step(200)
  }
  p.settle()
  let lost = 0
  p.a.filter = (frame) => !isData(frame) || lost++ !== 1
  for (let i = 0; i < 8; i++) p.a.send(500)
  const since = p.now
  assert.ok(p.settle(100, 50))
  assert.equal(p.a.session.statistics.retransmitted, 1)
  assert.equal(p.a.session.statistics.timeouts, 0)
  assert.ok(p.now - since < 900, `${p.now - since} µs`)
})

test('a frame that is lost again is sent once more as soon as later ones have come, not after a time-out', () => {
  const p = new SessionPair({ faults: { delayUs: 100 }, sizes: { timeoutUsMin: 20_000 } })
  for (let i = 0; i < 20; i++) {
    p.a.send(100)
    p.step(200)
  }
  p.settle()
  let first = -1
  let lost = 0
  p.a.filter = (frame) => {
    const sequence = new DataView(frame.buffer, frame.byteOffset).getUint32(14 + SessionHeader.sequence, true)
    if (isData(frame) && first < 0) first = sequence
    return sequence !== first || !isData(frame) || lost++ >= 2
  }
  const since = p.now
  for (let i = 0; i < 12; i++) {
    p.a.send(500)
    for (let step = 0; step < 4; step++) p.step(50)
  }
  assert.ok(p.settle(100, 50))
  assert.deepEqual([p.a.session.statistics.retransmitted, p.a.session.statistics.timeouts], [2, 0])
  assert.ok(p.now - since < 4000, `${p.now - since} µs`)
})

test('the last but one frame, if lost, is sent again as soon as it cannot be late any more', () => {
  const p = new SessionPair({ faults: { delayUs: 1000 } })
  for (let i = 0; i < 30; i++) {
    p.a.send(100)
    p.step(2000)
  }
  p.settle()
  const { statistics } = p.a.session
  const before = statistics.retransmitted
  let lost = 0
  p.a.filter = (frame) => !isData(frame) || lost++ !== 0
  for (let i = 0; i < 2; i++) p.a.send(500)
  const since = p.now
  assert.ok(p.settle(100, 100))
  assert.equal(statistics.retransmitted, before + 1)
  assert.equal(statistics.timeouts, 0)
  assert.ok(p.now - since < 5500, `${p.now - since} µs`)
})

test('retransmission backs off, and a peer that is back is served at once', () => {
  const p = new SessionPair({ faults: { delayUs: 10 } })
  p.a.send(16)
  assert.ok(p.settle(10, 100))
  p.b.filter = p.a.filter = () => false
  p.a.send(16)
  const { statistics } = p.a.session
  for (let us = 0; us < 31_000; us += 100) {
    assert.ok(p.a.session.nextDue() > p.now || p.a.session.hasUnsent)
    p.step(100)
  }
  // 1, 2, 4, 8 and 16 ms.
  assert.ok(statistics.timeouts >= 4 && statistics.timeouts <= 6, `${statistics.timeouts} time-outs`)
  for (let us = 0; us < 10_000_000; us += 10_000) p.step(10_000)
  assert.ok(statistics.timeouts < 60, 'a long silence is not filled with frames')
  assert.ok(p.a.session.isSilent)
  const heard = p.a.session.lastHeard
  assert.ok(heard < p.now - 10_000_000)
  p.b.filter = p.a.filter = () => true
  p.b.send(16)
  const since = p.now
  assert.ok(p.settle(100, 100))
  assert.ok(p.now - since < 5000)
  assert.ok(!p.a.session.isSilent && p.a.session.lastHeard > heard)
})

test('who transmits while a message is handled does not forget to acknowledge it', () => {
  const p = new SessionPair()
  p.b.onMessage = () => { p.b.session.transmit(p.b.port, p.now) }
  for (let i = 0; i < 10; i++) {
    p.a.send(16)
    for (let turn = 0; turn < 3; turn++) p.step()
  }
  assert.ok(p.isSettled)
  assert.equal(p.a.session.statistics.retransmitted, 0)
})

test('a session with nothing to say is silent on the wire, and never due', () => {
  const p = new SessionPair()
  p.a.send(16)
  p.settle()
  const frames = p.a.session.statistics.framesSent + p.b.session.statistics.framesSent
  for (let i = 0; i < 100; i++) p.step(100_000)
  assert.equal(p.a.session.statistics.framesSent + p.b.session.statistics.framesSent, frames)
  assert.equal(p.a.session.nextDue(), Infinity)
  assert.ok(!p.a.session.isSilent)
})

test('in a new life of the peer the stream begins anew; frames from and to the former are ignored', () => {
  for (let seed = 1; seed <= 30; seed++) {
    const random = new Random(seed)
    const p = new SessionPair({ seed, faults: { loss: 0.1, delayUs: 500, jitterUs: 1000, duplication: 0.2 } })
    for (let life = 20; life < 25; life++) {
      for (let i = 0; i < 20; i++) {
        p.a.send(random.pick([16, 700, 3000]))
        p.b.send(random.pick([16, 700]))
        p.step(random.pick([100, 1000]))
      }
      p.a.session.setPeer(0)
      p.b.restart(life, 11)
      // What comes of the new life before the configuration that tells of it is ignored, and sent again.
      p.b.send(100)
      for (let i = 0; i < random.below(3); i++) p.step(1000)
      p.a.session.setPeer(life)
      p.a.expected.length = 0
      assert.equal(p.a.session.queuedBytes, 0)
    }
    p.a.send(100)
    assert.ok(p.settle(5000), `seed ${seed}`)
    assert.ok(p.a.session.statistics.stale + p.b.session.statistics.stale > 0)
  }
})

test('setting the same life again changes nothing; without a peer nothing is taken', () => {
  const p = new SessionPair()
  p.a.send(16)
  p.a.session.setPeer(12)
  assert.ok(p.a.session.hasUnsent)
  p.a.session.setPeer(0)
  assert.ok(!p.a.session.hasUnsent && p.a.session.nextDue() === Infinity)
  assert.equal(p.a.session.begin(8), 0)
  assert.equal(p.a.session.begin(8, true), 0)
  assert.equal(p.a.session.transmit(p.a.port, p.now), 0)
})

test('ordinary room is bounded, and replies find room beyond it', () => {
  const p = new SessionPair()
  let count = 0
  while (p.a.send(200)) count++
  assert.equal(count, Math.floor(4096 / 208))
  for (let i = 0; i < 20; i++) assert.ok(p.a.send(200, true))
  assert.ok(p.settle())
  assert.equal(p.a.session.statistics.refused, 1)
})

/** Both ends send requests as fast as there is room, and answer each with as much. */
function flood(p: SessionPair, steps: number, stepUs: number): number {
  let answered = 0
  for (const end of [p.a, p.b]) {
    end.onMessage = (bytes) => {
      if ((bytes & 1) === 0) assert.ok(end.send(bytes - 1, true))
      else answered++
    }
  }
  for (let i = 0; i < steps; i++) {
    for (const end of [p.a, p.b]) while (end.send(208)) { /* As much as there is room for. */ }
    p.step(stepUs)
  }
  return answered
}

test('replies always find room, however both ends flood each other', () => {
  for (let seed = 1; seed <= 20; seed++) {
    const random = new Random(seed)
    const faults = { loss: random.pick([0, 0.1, 0.3]), delayUs: random.pick([10, 1000]), jitterUs: random.pick([0, 500]),
      frames: random.pick([3, 20, 1000]) }
    const p = new SessionPair({ seed, faults, sizes: { frameBytes: 600, sendBytes: 4096, ringBytes: 16_384 } })
    assert.ok(flood(p, 400, 500) > 50, `seed ${seed}`)
    assert.ok(p.settle(20_000), `seed ${seed}`)
  }
})

test('while its reserve is strained an end allows no new requests, and allows them again later', () => {
  const p = new SessionPair({ faults: { delayUs: 10 } })
  // Acknowledgements pass, replies do not: b fills up with replies.
  p.b.filter = (frame) => !isData(frame)
  flood(p, 300, 500)
  assert.ok(p.b.session.isStrained)
  assert.equal(p.a.session.begin(208), 0)
  assert.ok(p.b.session.queuedBytes <= 16_384)
  assert.equal(p.a.session.queuedBytes, 0, 'all that came was acknowledged')
  // The word that room is there again is lost; the sender asks.
  p.b.filter = (frame) => isData(frame)
  for (const end of [p.a, p.b]) end.onMessage = () => {}
  for (let i = 0; i < 100; i++) p.step(500)
  assert.ok(!p.b.session.isStrained)
  p.b.filter = () => true
  for (let i = 0; i < 1000 && !p.a.send(208); i++) p.step(500)
  assert.ok(p.settle())
})

test('when the strain is over requests are allowed at once, before the peer asks', () => {
  const p = new SessionPair({ faults: { delayUs: 10 } })
  while (!p.b.session.isStrained) p.b.send(201, true)
  for (let count = 0; count < 18; count++) assert.ok(p.a.send(208))
  p.step()
  // Everything arrives, but b does not hear that it did.
  p.a.filter = () => false
  for (let i = 0; i < 5; i++) p.step()
  assert.equal(p.a.expected.length + p.b.expected.length + p.a.session.queuedBytes, 0)
  assert.ok(p.b.session.isStrained)
  p.a.filter = () => true
  for (let us = 0; us < 50_000; us += 500) p.step(500)
  assert.equal(p.b.session.queuedBytes, 0)
  assert.ok(p.a.send(208))
  assert.equal(p.a.session.statistics.refused, 0)
})

test('two strained ends recover', () => {
  const p = new SessionPair({ faults: { delayUs: 50, loss: 0.2 } })
  for (const end of [p.a, p.b]) while (!end.session.isStrained) assert.ok(end.send(201, true))
  assert.ok(!p.a.send(16) && !p.b.send(16))
  assert.ok(flood(p, 300, 500) > 50)
  assert.ok(p.settle(5000))
})

test('a peer that answers nothing breaks the session in the end, but not the node', () => {
  const p = new SessionPair()
  p.a.filter = () => false
  let count = 0
  for (; count < 10_000 && p.a.send(200, true); count++) p.step(1000)
  assert.equal(count, Math.floor(16_384 / 208))
  const { session } = p.a
  assert.ok(session.isBroken && session.isSilent && session.statistics.lost === 1)
  assert.equal(session.begin(8, true), 0)
  assert.equal(session.nextDue(), Infinity)
  const frames = session.statistics.framesSent
  p.step(1_000_000)
  assert.equal(session.statistics.framesSent, frames)
  session.setPeer(13)
  assert.ok(!session.isBroken && session.begin(8) !== 0)
})

test('what one end may have to keep of what comes early is bounded', () => {
  const p = new SessionPair({ stream: Stream.inBand })
  let index = 0
  p.a.filter = () => index++ % 2 === 1
  for (let i = 0; i < 100; i++) {
    assert.ok(p.a.send(16))
    p.a.session.transmit(p.a.port, p.now)
  }
  p.step()
  assert.ok(p.b.session.statistics.beyondWindow > 0)
  const told = p.b.wire.map(({ bytes }) => bytes[14 + SessionHeader.stretchCount] as number)
  assert.equal(Math.max(...told), 3, 'more than that it has, and tells later')
  assert.equal(p.b.received, 0)
  p.a.filter = () => true
  assert.ok(p.settle())
})

test('in-band messages leave at the next transmit, all of them, in the order in which they were made', () => {
  const p = new SessionPair({ stream: Stream.inBand, sizes: { frameBytes: 1514, sendBytes: 65_536, ringBytes: 262_144 } })
  let count = 0
  while (p.a.send(600)) count++
  while (count < 300 && p.a.send(600, true)) count++
  assert.equal(count, 300)
  // Nothing has been heard of the peer, and nothing will be.
  assert.equal(p.a.session.transmit(p.a.port, p.now), 150)
  assert.ok(!p.a.session.hasUnsent)
  assert.ok(p.settle())
})

test('a port without room loses nothing and is tried again soon', () => {
  const p = new SessionPair({ faults: { frames: 2 } })
  for (let i = 0; i < 6; i++) p.a.send(500)
  p.a.session.transmit(p.a.port, p.now)
  assert.ok(p.a.session.isBlocked && p.a.session.hasUnsent)
  assert.ok(p.a.session.nextDue() > p.now && p.a.session.nextDue() < p.now + 1000)
  assert.ok(p.settle())
})

test('ends with different sizes understand each other', () => {
  const p = new SessionPair()
  const arena = new Arena(1 << 18)
  let got = 0
  const small = new Session({ arena, clusterId: 7, self: 2, selfIncarnation: 12, peer: 1, stream: Stream.control,
    sizes: { frameBytes: 200, sendBytes: 1024, ringBytes: 4096, messageBytesMax: 1000 },
    onMessage: (_, bytes) => { assert.equal(p.a.expected.shift()?.bytes, bytes); got++ } })
  small.setPeer(11)
  const room = arena.allocate('frame', 2048) + 2
  const port = { receive: () => 0, send: () => false, room: 0, sendReserved: (offset: number, length: number) => {
    p.give(p.a, arena.u8.slice(offset, offset + length))
    return true
  } }
  for (let i = 0, sent = 0; got < 200; i++) {
    assert.ok(i < 10_000)
    while (sent < 200 && p.a.send(900)) sent++
    p.now += 1000
    p.a.session.transmit(p.a.port, p.now)
    for (const { bytes } of p.a.wire.splice(0)) {
      arena.u8.set(bytes, room)
      small.receive(room + 14, bytes.length - 14, p.now)
    }
    small.transmit(port, p.now)
  }
})

// -- Frames that are none of ours --------------------------------------------------------------------------------------

/** A data frame of `a`. */
function frameOf(p: SessionPair, bytes = 64): Uint8Array {
  p.a.send(bytes)
  p.a.session.transmit(p.a.port, p.now)
  return p.a.wire.pop()?.bytes as Uint8Array
}

test('frames that are none of ours are counted by reason and ignored', () => {
  const p = new SessionPair()
  const frame = frameOf(p)
  const changes: [string, (copy: Uint8Array) => Uint8Array | void][] = [
    ['short', (copy) => copy.slice(0, 40)],
    ['otherMagic', (copy) => { copy[14] ^= 1 }],
    ['otherVersion', (copy) => { copy[16] = 9 }],
    ['otherStream', (copy) => { copy[17] = Stream.inBand }],
    ['otherCluster', (copy) => { copy[18] = 8 }],
    ['otherNode', (copy) => { copy[22] = 3 }],
    ['otherNode', (copy) => { copy[24] = 3 }],
    ['stale', (copy) => { copy[26] = 10 }],
    ['stale', (copy) => { copy[30] = 13 }],
    ['corrupted', (copy) => { copy[34] ^= 4 }],
    ['corrupted', (copy) => { copy[copy.length - 1] ^= 4 }],
    ['corrupted', (copy) => copy.slice(0, -8)],
  ]
  const { statistics } = p.b.session
  for (const [name, change] of changes) {
    const copy = frame.slice()
    const before = (statistics as unknown as Record<string, number>)[name] as number
    p.give(p.b, change(copy) ?? copy)
    assert.equal((statistics as unknown as Record<string, number>)[name], before + 1, name)
  }
  assert.equal(statistics.framesReceived, 0)
  assert.equal(p.b.session.lastHeard, 0)
  p.give(p.b, frame)
  assert.equal(p.b.received, 1)
  p.give(p.b, frame)
  assert.equal(statistics.duplicates, 1)
})

/** A frame as it would be sealed by node 1 in life 11 for node 2 in life 12. */
function sealed(frame: Uint8Array): Uint8Array {
  const copy = new Uint8Array(frame.length + 2 & ~7 | 8)
  copy.set(frame.subarray(14, frame.length))
  const words = new Int32Array(copy.buffer)
  const seed = Math.imul(11, 31) + Math.imul(12, 17) + 1 | 0
  const dataBytes = Math.min(new Uint16Array(copy.buffer)[SessionHeader.dataBytes >> 1], frame.length - 78) & ~7
  const head = checksum(words, SessionHeader.sequence, SessionHeader.bytes - SessionHeader.sequence, seed)
  const sum = dataBytes <= 0 ? head : checksum(words, SessionHeader.bytes, dataBytes, head)
  new DataView(frame.buffer).setInt32(14 + 20, sum, true)
  return frame
}

test('a probe is answered, and acknowledgements of what was never sent are not believed', () => {
  const p = new SessionPair()
  p.b.send(100)
  p.b.session.transmit(p.b.port, p.now)
  p.b.wire.length = 0
  const frame = frameOf(p)
  p.give(p.b, frame)
  p.b.session.transmit(p.b.port, p.now)
  const due = p.b.session.nextDue()
  assert.ok(due > p.now && due < Infinity)
  const view = new DataView(frame.buffer)
  view.setUint16(14 + SessionHeader.dataBytes, 0, true)
  view.setUint8(14 + SessionHeader.flags, 1)
  view.setInt32(14 + SessionHeader.acknowledged, view.getInt32(14 + SessionHeader.acknowledged, true) + 100, true)
  const queued = p.b.session.queuedBytes
  p.give(p.b, sealed(frame))
  assert.equal(p.b.session.statistics.corrupted, 0)
  assert.equal(p.b.session.queuedBytes, queued)
  assert.equal(p.b.session.nextDue(), -Infinity)
  assert.equal(p.b.session.transmit(p.b.port, p.now), 1)
})

test('a new life may begin while a message is handled', () => {
  const p = new SessionPair()
  p.b.onMessage = () => {
    p.b.session.setPeer(0)
    p.b.session.setPeer(11)
  }
  for (let round = 0; round < 3; round++) {
    p.a.send(16)
    p.a.send(16)
    p.a.session.transmit(p.a.port, p.now)
    p.a.expected.length = 1
    p.step()
    assert.equal(p.b.received, round + 1)
    p.a.session.setPeer(0)
    p.a.session.setPeer(12)
    p.b.wire.length = 0
  }
})

test('data that cannot be a message is not taken, nor what is behind it', () => {
  for (const change of [{ at: 78, value: 0 }, { at: 78, value: -1 }, { at: 78, value: 5000 }, { at: 82, value: 1 }]) {
    const p = new SessionPair()
    const frame = frameOf(p)
    const copy = frame.slice()
    new DataView(copy.buffer).setInt32(change.at, change.value, true)
    p.give(p.b, sealed(copy))
    assert.equal(p.b.session.statistics.malformed, 1)
    assert.equal(p.b.received, 0)
    p.give(p.b, frame)
    assert.equal(p.b.received, 1, 'the right frame still comes')
    assert.ok(p.settle())
  }
})

test('random and mutated frames never break a session (fuzz)', () => {
  const random = new Random(99)
  const p = new SessionPair({ stream: Stream.control })
  for (let i = 0; i < 4000; i++) {
    const frame = frameOf(p, random.between(1, 500))
    const copy = random.chance(0.1) ? random.fill(new Uint8Array(random.between(14, 600))) : frame.slice()
    for (let changes = random.between(1, 4); changes > 0; changes--) copy[random.between(14, copy.length - 1)] = random.int32()
    p.give(p.b, copy)
    p.give(p.b, frame)
    p.step()
  }
  assert.ok(p.settle())
  assert.equal(p.b.received, 4000)
  assert.ok(p.b.session.statistics.corrupted > 1000)
})

test('frames that are sealed but make no sense never break the node (fuzz)', () => {
  for (let seed = 1; seed <= 20; seed++) {
    const random = new Random(seed)
    const source = new SessionPair()
    const arena = new Arena(1 << 18)
    const session = new Session({ arena, clusterId: 7, self: 2, selfIncarnation: 12, peer: 1, stream: Stream.control,
      sizes: { frameBytes: 600, sendBytes: 4096, ringBytes: 16_384 },
      onMessage: (offset, bytes) => {
        assert.ok(offset > 0 && offset % 8 === 0 && bytes > 0 && bytes <= 4088 && offset + bytes <= arena.bytes)
      } })
    session.setPeer(11)
    const room = arena.allocate('frame', 2048) + 2
    const port = { receive: () => 0, send: () => false, room: 0, sendReserved: () => random.chance(0.9) }
    for (let i = 0; i < 500; i++) {
      const frame = frameOf(source, random.between(1, 500)).slice()
      source.a.session.setPeer(0)
      source.a.session.setPeer(12)
      for (let changes = random.between(0, 3); changes > 0; changes--) {
        frame[random.between(38, random.pick([78, frame.length - 1]))] = random.pick([0, 1, 127, 255, random.int32()])
      }
      arena.u8.set(sealed(frame), room)
      session.receive(room + 14, frame.length - 14, i * 100)
      const at = session.begin(random.between(1, 100))
      if (at !== 0) session.commit()
      session.transmit(port, i * 100)
    }
    assert.ok(session.statistics.framesReceived > 100)
  }
})
