import { test } from 'node:test'
import assert from 'node:assert/strict'
import { ManualClock } from '../base/clock.ts'
import { Arena } from '../memory/arena.ts'
import { Descriptor, DESCRIPTOR_BYTES, DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import { PacketPool } from '../packet/packet-pool.ts'
import { createMemoryPorts } from '../transport/memory-port.ts'
import { FaultPort, type FaultCounts, type FaultRates } from './fault-port.ts'
import { portContract } from './port-contract.ts'
import { PortDirection } from './wrapper-port.ts'
import { createMemoryPortPair } from './memory-port-pair.ts'
import { createTraffic } from './traffic/traffic-generator.ts'
import type { TrafficTotals } from './traffic/traffic-sink.ts'

const arena = new Arena(64 * 1024 * 1024)

interface Outcome {
  readonly counts: FaultCounts
  readonly totals: TrafficTotals
  readonly sent: number
  readonly latencyUs: readonly [number, number]
  readonly held: number
}

/** 4000 packets of one flow go through the faults of one direction, five each microsecond; then the line runs dry. */
function run(direction: number, rates: FaultRates, options: { packets?: number, held?: number, seed?: number, flows?: number } = {}): Outcome {
  arena.reset()
  const clock = new ManualClock(1e15)
  const pool = new PacketPool(arena, 64, 2)
  const descriptors = arena.allocate('batch', 32 * DESCRIPTOR_BYTES) >> 2
  const [near, far] = createMemoryPorts(arena, { frames: 64, reserved: 8, frameBytes: 2000 })
  const { packets = 4000, held, seed = 1, flows = 1 } = options
  const traffic = createTraffic({ arena, seed, flows, packets, clock, sizes: [[60, 3], [300, 1]] })
  const fault = new FaultPort({
    arena, inner: direction === PortDirection.out ? near : far, seed, clock, [direction === PortDirection.out ? 'out' : 'in']: rates,
    ...held === undefined ? {} : { held },
  })
  const from = direction === PortDirection.out ? fault : near
  const to = direction === PortDirection.out ? far : fault
  const move = (source: { receive: FaultPort['receive'] }, target: { send: FaultPort['send'] }, max: number): void => {
    const count = source.receive(pool, descriptors, max)
    for (let i = 0; i < count; i++) {
      const d = descriptors + i * DESCRIPTOR_WORDS
      assert.ok(target.send(arena.i32[d + Descriptor.frame], arena.i32[d + Descriptor.length]))
      pool.give(arena.i32[d + Descriptor.slot])
    }
  }
  for (let round = 0; round < 20_000 && (traffic.sent.packets < packets || fault.held > 0 || round % 4 !== 0); round++) {
    move(traffic.ports[0], from, Math.min(5, from.room))
    fault.flush()
    move(to, traffic.ports[1], 32)
    clock.advanceBy(1)
  }
  move(to, traffic.ports[1], 32)
  assert.equal(pool.used, 0)
  const { totals, latency } = traffic.sink
  return {
    counts: { ...fault.counts(direction) }, totals: { ...totals }, sent: traffic.sent.packets, held: fault.held,
    latencyUs: [latency.minUs, latency.maxUs],
  }
}

for (const [name, direction] of Object.entries(PortDirection)) {
  test(`${name}: each kind of fault strikes as often as it says, and the sink finds all of it`, () => {
    const about = (count: number, of: number, chance: number): void => {
      assert.ok(Math.abs(count - of * chance) < 5 * Math.sqrt(of * chance), `${count} of ${of}, ${of * chance} expected`)
    }
    const none = { lost: 0, duplicated: 0, corrupted: 0, reordered: 0, delayed: 0, refused: 0 }

    const quiet = run(direction, {})
    assert.equal(quiet.totals.received, 4000)
    assert.deepEqual(quiet.counts, { frames: 0, ...none })

    const loss = run(direction, { loss: 0.1 })
    about(loss.counts.lost, 4000, 0.1)
    assert.deepEqual(loss.counts, { frames: 4000, ...none, lost: loss.counts.lost })
    assert.equal(loss.totals.received, 4000 - loss.counts.lost)
    assert.ok(loss.counts.lost - loss.totals.lost <= 3, 'but for the last ones, which leave no gap')
    assert.equal(loss.totals.duplicated + loss.totals.reordered + loss.totals.corrupted, 0)

    const duplication = run(direction, { duplication: 0.1 })
    about(duplication.counts.duplicated, 4000, 0.1)
    assert.deepEqual(duplication.counts, { frames: 4000, ...none, duplicated: duplication.counts.duplicated })
    assert.equal(duplication.totals.duplicated, duplication.counts.duplicated)
    assert.equal(duplication.totals.received, 4000)
    assert.equal(duplication.totals.lost + duplication.totals.reordered + duplication.totals.corrupted, 0)

    const corruption = run(direction, { corruption: 0.1 })
    about(corruption.counts.corrupted, 4000, 0.1)
    assert.equal(corruption.totals.corrupted + corruption.totals.foreign, corruption.counts.corrupted)
    assert.equal(corruption.totals.duplicated + corruption.totals.reordered, 0)

    const reordering = run(direction, { reordering: 0.1 })
    about(reordering.counts.reordered, 4000, 0.1)
    assert.deepEqual(reordering.counts, { frames: 4000, ...none, reordered: reordering.counts.reordered })
    assert.equal(reordering.totals.reordered, reordering.counts.reordered)
    assert.equal(reordering.totals.received, 4000)
    assert.equal(reordering.totals.lost + reordering.totals.duplicated + reordering.totals.corrupted, 0)

    const delay = run(direction, { delay: 0.01, delayUs: [50, 60] })
    about(delay.counts.delayed, 4000, 0.01)
    assert.equal(delay.totals.received, 4000)
    assert.equal(delay.totals.lost + delay.totals.duplicated + delay.totals.reordered + delay.totals.corrupted, 0)
    assert.ok(delay.latencyUs[0] <= 1 && delay.latencyUs[1] >= 50 && delay.latencyUs[1] <= 62, `${delay.latencyUs} µs`)
  })

  test(`${name}: all kinds at once leave nothing unaccounted for, and the same seed does the same`, () => {
    const rates = { loss: 0.05, duplication: 0.05, corruption: 0.05, reordering: 0.05, delay: 0.05, delayUs: [10, 100] } as const
    const first = run(direction, rates, { seed: 5, flows: 20 })
    const { counts, totals } = first
    assert.equal(totals.frames, counts.frames - counts.lost + counts.duplicated)
    const { received, duplicated, stale, unreadable, foreign } = totals
    assert.equal(totals.frames, received + duplicated + stale + unreadable + foreign)
    assert.equal(first.held, 0)
    assert.deepEqual(run(direction, rates, { seed: 5, flows: 20 }), first)
    assert.notDeepEqual(run(direction, rates, { seed: 6, flows: 20 }).counts, counts)
  })

  test(`${name}: no more frames are held than may be, and none is lost for it`, () => {
    const { totals, counts } = run(direction, { delay: 1, delayUs: [1000, 1000] }, { held: 8, packets: 60 })
    assert.equal(counts.delayed, 60)
    assert.equal(totals.received, 60)
    assert.equal(totals.reordered, 0)
  })
}

test('the frame of the caller is left as it is', () => {
  arena.reset()
  const [near, far] = createMemoryPorts(arena, { frames: 64, reserved: 8, frameBytes: 200 })
  const fault = new FaultPort({ arena, inner: near, seed: 1, clock: new ManualClock(), out: { corruption: 1 } })
  const pool = new PacketPool(arena, 8, 1)
  const descriptors = arena.allocate('batch', 32 * DESCRIPTOR_BYTES) >> 2
  const frame = pool.take(100) + 130
  assert.ok(fault.send(frame, 100))
  assert.ok(fault.sendReserved(frame, 100))
  assert.deepEqual(arena.u8.slice(frame, frame + 100), new Uint8Array(100))
  assert.equal(far.receive(pool, descriptors, 8), 2)
  for (const d of [descriptors, descriptors + DESCRIPTOR_WORDS]) {
    const at = arena.i32[d + Descriptor.frame]
    assert.equal(arena.u8.subarray(at, at + 100).filter((byte) => byte !== 0).length, 1)
  }
})

test('what is said before a long frame about its segments stays with it', () => {
  arena.reset()
  const clock = new ManualClock()
  const seen: number[] = []
  const pool = new PacketPool(arena, 8, 4)
  const descriptors = arena.allocate('batch', 32 * DESCRIPTOR_BYTES) >> 2
  const source = pool.take(5000) + 130
  arena.u16[(source - 2) >> 1] = 1448
  const inner = {
    room: 100,
    send: (frame: number) => seen.push(arena.u16[(frame - 2) >> 1]) > 0,
    sendReserved: () => true,
    receive: () => {
      const slot = pool.take(5000)
      arena.u16[(slot + 128) >> 1] = 1200
      arena.i32.set([slot + 130, 5000], descriptors)
      arena.i32[descriptors + Descriptor.slot] = slot
      return 1
    },
  }
  const fault = new FaultPort({ arena, inner, seed: 1, clock, in: { delay: 1 }, out: { delay: 1 } })
  assert.ok(fault.send(source, 5000))
  assert.equal(fault.receive(pool, descriptors, 1), 0)
  clock.advanceBy(2000)
  fault.flush()
  assert.deepEqual(seen, [1448])
  assert.equal(fault.receive(pool, descriptors, 1), 1)
  assert.equal(arena.u16[(arena.i32[descriptors] - 2) >> 1], 1200)
})

test('a frame that is not taken is counted', () => {
  arena.reset()
  const [near] = createMemoryPorts(arena, { frames: 4, reserved: 1, frameBytes: 200 })
  const clock = new ManualClock()
  const fault = new FaultPort({ arena, inner: near, seed: 1, clock, held: 5, out: { delay: 1 } })
  const taken = (): boolean[] => Array.from({ length: 6 }, () => fault.send(1000, 100))
  assert.deepEqual(taken(), [true, true, true, true, true, false])
  assert.equal(fault.room, 0)
  // Three go on when they are due; the others wait for room behind the full link.
  clock.advanceBy(2000)
  fault.flush()
  assert.equal(fault.held, 2)
  assert.deepEqual(taken(), [true, true, true, false, false, false])
  assert.deepEqual([fault.counts(PortDirection.out).refused, fault.counts(PortDirection.out).frames], [4, 8])
})

test('while frames are held there is no sleeping; a port that closes forgets them', () => {
  arena.reset()
  const [near] = createMemoryPorts(arena, { frames: 64, reserved: 8, frameBytes: 200 })
  const fault = new FaultPort({ arena, inner: near, seed: 1, clock: new ManualClock(), out: { delay: 1 } })
  assert.equal(fault.arm(), true)
  assert.ok(fault.send(1000, 100))
  assert.equal(fault.arm(), false)
  fault.close()
  assert.equal(fault.held, 0)
  fault.setRates(PortDirection.out, {})
  assert.ok(fault.send(1000, 100))
  assert.equal(fault.held, 0)
})

test('rates that are none are refused', () => {
  const make = (rates: FaultRates, held = 8): FaultPort => {
    arena.reset()
    return new FaultPort({ arena, inner: createMemoryPorts(arena, { frames: 8, reserved: 1, frameBytes: 100 })[0], seed: 1, in: rates, held })
  }
  for (const rates of [{ loss: 1.1 }, { corruption: -1 }, { delay: NaN }, { delayUs: [2, 1] as const }, { reorderDepth: 0 }]) {
    assert.throws(() => make(rates), { name: 'CodedError', code: 'NF_CONFIG_INVALID' })
  }
  assert.throws(() => make({}, 0), { name: 'CodedError', code: 'NF_CONFIG_INVALID' })
})

test('a line full of frames still takes our own messages, a reserve of them', () => {
  arena.reset()
  const [near] = createMemoryPorts(arena, { frames: 4, reserved: 1, frameBytes: 200 })
  const fault = new FaultPort({ arena, inner: near, seed: 1, clock: new ManualClock(), held: 5, out: { delay: 1 } })
  while (fault.send(1000, 100)) assert.ok(fault.held <= 5)
  let more = 0
  while (fault.sendReserved(1000, 100)) assert.ok(++more <= 64)
  assert.deepEqual([more, fault.held, fault.room], [64, 69, 0])
  assert.equal(fault.send(1000, 100), false)
})

/** Goes on with every look, so that what is late is late by looks. */
class LookClock {
  #now = 0
  now(): number {
    return this.#now += 1
  }
}

for (const [shape, rates, seeds] of [['without faults', {}, 1], ['with delay', { delay: 0.05, delayUs: [1, 50] as const }, 20]] as const) {
  for (const [name, check] of Object.entries(portContract)) {
    test(`fault port ${shape}: ${name}`, () => {
      for (let seed = 1; seed <= seeds; seed++) {
        const clock = new LookClock()
        check(createMemoryPortPair((inner, ownArena) => new FaultPort({ arena: ownArena, inner, seed, clock, in: rates, out: rates })))
      }
    })
  }
}
