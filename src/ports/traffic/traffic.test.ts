import { test } from 'node:test'
import assert from 'node:assert/strict'
import { ManualClock } from '../../base/clock.ts'
import { Random } from '../../base/random.ts'
import { Arena } from '../../memory/arena.ts'
import { Descriptor, DESCRIPTOR_BYTES, DESCRIPTOR_WORDS } from '../../packet/descriptor.ts'
import { PacketPool } from '../../packet/packet-pool.ts'
import { checksumFault } from '../../testing/packet-builder.ts'
import { createTraffic, type Traffic } from './traffic-generator.ts'
import type { TrafficOptions } from './traffic-options.ts'
import { formatTrafficReport, reportTraffic } from './traffic-report.ts'
import { createTrafficSink, SinkPort, type TrafficCounts } from './traffic-sink.ts'

const arena = new Arena(64 * 1024 * 1024)

interface Bench {
  readonly traffic: Traffic
  readonly clock: ManualClock
  readonly pool: PacketPool
  /** Takes up to `max` frames from a side. */
  take(side: 0 | 1, max?: number): Uint8Array[]
  /** Gives a frame to a side. */
  give(side: 0 | 1, frame: Uint8Array): void
  /** All that is sent comes in at the other side, until there is nothing or so many rounds are over. */
  run(rounds: number, onFrame?: (frame: Uint8Array, side: 0 | 1) => void): void
}

function bench(options: Partial<TrafficOptions> = {}): Bench {
  arena.reset()
  const clock = new ManualClock(1.7e15)
  const pool = new PacketPool(arena, 256, 8)
  const descriptors = arena.allocate('descriptors', 32 * DESCRIPTOR_BYTES) >> 2
  const scratch = arena.allocate('scratch', 70_000) + 2
  const traffic = createTraffic({ arena, seed: 1, flows: 4, clock, ...options })
  const take = (side: 0 | 1, max = 32): Uint8Array[] => {
    const count = traffic.ports[side].receive(pool, descriptors, max)
    return Array.from({ length: count }, (_, index) => {
      const d = descriptors + index * DESCRIPTOR_WORDS
      const frame = arena.i32[d + Descriptor.frame]
      const bytes = arena.u8.slice(frame, frame + arena.i32[d + Descriptor.length])
      pool.give(arena.i32[d + Descriptor.slot])
      return bytes
    })
  }
  const give = (side: 0 | 1, frame: Uint8Array): void => {
    arena.u8.set(frame, scratch)
    assert.ok(traffic.ports[side].send(scratch, frame.length))
  }
  return {
    traffic, clock, pool, take, give,
    run(rounds, onFrame = () => undefined) {
      for (let round = 0; round < rounds; round++) {
        let count = 0
        for (const side of [0, 1] as const) {
          for (const frame of take(side)) {
            count++
            onFrame(frame, side)
            give(side === 0 ? 1 : 0, frame)
          }
        }
        if (count === 0) return
        clock.advanceBy(10)
      }
    },
  }
}

const shapes: Record<string, Partial<TrafficOptions>> = {
  'small UDP': {},
  'IMIX over all kinds of flows': {
    flows: 200, sizes: 'imix', tcpShare: 0.5, ipv6Share: 0.5, requestPackets: 3, replyPackets: 2, turns: 2,
  },
  'odd sizes': { flows: 50, sizes: [[61, 1], [99, 1], [601, 1], [1001, 1]], tcpShare: 0.5, ipv6Share: 0.5, turns: 3 },
  'closed loop': { flows: 20, tcpShare: 1, requestPackets: 2, replyPackets: 3, turns: 2, sizes: 200, isClosedLoop: true },
  'long frames': { sizes: [[9014, 1], [65_549, 1]], flows: 4, tcpShare: 0.5 },
}

for (const [name, options] of Object.entries(shapes)) {
  test(`${name}: every checksum is right, and all packets are recognised`, () => {
    const { traffic, run } = bench(options)
    run(40, (frame) => { assert.equal(checksumFault(frame), '') })
    const { totals, latency } = traffic.sink
    assert.ok(totals.received > 100, `${totals.received} packets`)
    assert.deepEqual({ ...totals, bytes: 0 }, { received: traffic.sent.packets, frames: traffic.sent.packets, bytes: 0, lost: 0,
      duplicated: 0, reordered: 0, corrupted: 0, stale: 0, foreign: 0, unreadable: 0, astray: 0 })
    assert.equal(totals.bytes, traffic.sent.bytes)
    assert.equal(latency.count, totals.received)
    assert.equal(latency.maxUs, 0)
  })
}

test('the same seed gives the same packets, another gives others', () => {
  const trace = (seed: number): string[] => {
    const frames: string[] = []
    bench({ ...shapes['IMIX over all kinds of flows'], seed }).run(20, (frame, side) => {
      frames.push(`${side}${Buffer.from(frame).toString('hex')}`)
    })
    return frames
  }
  const first = trace(7)
  assert.deepEqual(trace(7), first)
  assert.notDeepEqual(trace(8), first)
})

test('a TCP flow shakes hands, carries data both ways and ends; then another takes its place', () => {
  const { traffic, run } = bench({ flows: 1, tcpShare: 1, requestPackets: 2, replyPackets: 1, turns: 2, sizes: 100, isClosedLoop: true })
  const steps: string[] = []
  const next = [-1, -1]
  run(7, (frame, side) => {
    const view = new DataView(frame.buffer)
    const flags = frame[47]
    const payload = frame.length - 34 - (frame[46] >>> 4) * 4
    const sequence = view.getUint32(38)
    if ((flags & 2) === 0) assert.equal(sequence, next[side], 'no byte is skipped')
    if (flags !== 2) assert.equal(view.getUint32(42), next[1 - side], 'all bytes are acknowledged')
    next[side] = (sequence + payload + (flags & 3 ? 1 : 0)) >>> 0
    steps.push(`${side} ${flags.toString(16)} ${payload}`)
  })
  const turn = ['0 18 46', '0 18 46', '1 18 46']
  assert.deepEqual(steps.slice(0, 12), ['0 2 0', '1 12 0', '0 10 0', ...turn, ...turn, '0 11 0', '1 11 0', '0 10 0'])
  assert.equal(traffic.sent.ended, 1)
  assert.equal(traffic.sent.opened, 2)
  assert.equal(steps[12], '0 2 0')
  assert.equal(traffic.sink.countsOf(0, 0)?.received, 8)
  assert.equal(traffic.sink.countsOf(0, 1)?.received, 4)
  assert.equal(traffic.sink.countsOf(2, 0), undefined)
})

test('in a closed loop a flow whose packet is lost is given up', () => {
  const { traffic, clock, take, run } = bench({ flows: 1, tcpShare: 1, turns: 1, isClosedLoop: true, stallUs: 1000 })
  assert.equal(take(0).length, 1)
  run(5)
  assert.equal(traffic.sent.packets, 1)
  clock.advanceBy(1001)
  run(5)
  assert.equal(traffic.sent.stalled, 1)
  assert.equal(traffic.sink.totals.corrupted, 0)
  traffic.drain()
  run(50)
  assert.equal(traffic.openFlows, 0)
  assert.equal(traffic.sent.opened, traffic.sent.ended + 1)
  run(1)
  assert.equal(traffic.sink.totals.received, traffic.sent.packets - 1)
})

/** 60 packets that have been sent; the test does with them what it likes. */
function frames(options: Partial<TrafficOptions> = {}): Bench & { list: Uint8Array[]; give1(...numbers: number[]): void } {
  const one = bench({ flows: 1, sizes: 80, ...options })
  const list = [...one.take(0), ...one.take(0, 28)]
  return { ...one, list, give1(...numbers) { for (const n of numbers) one.give(1, list[n]) } }
}

test('the sink tells loss, duplication and order', () => {
  const { traffic, give1 } = frames()
  const { totals } = traffic.sink
  const counts = (): number[] => [totals.received, totals.lost, totals.duplicated, totals.reordered]
  give1(0, 1, 3)
  assert.deepEqual(counts(), [3, 1, 0, 0])
  give1(2)
  assert.deepEqual(counts(), [4, 0, 0, 1])
  give1(2, 0)
  assert.deepEqual(counts(), [4, 0, 2, 1])
  give1(9)
  assert.deepEqual(counts(), [5, 5, 2, 1])
  give1(4, 5, 9)
  assert.deepEqual(counts(), [7, 3, 3, 3])
  const { received, lost, duplicated, reordered } = traffic.sink.countsOf(0, 0) as TrafficCounts
  assert.deepEqual([received, lost, duplicated, reordered], counts())
})

test('loss, duplication and order are those of a list that remembers all', () => {
  const random = new Random(3)
  const { traffic, list, give } = frames({ flows: 3 })
  const seen = new Set<string>()
  const next = [0, 0, 0]
  const expected = { received: 0, duplicated: 0, reordered: 0 }
  for (let i = 0; i < 500; i++) {
    const frame = list[Math.min(59, Math.max(0, Math.floor(i / 9) + random.between(-4, 4)))]
    const view = new DataView(frame.buffer)
    const flow = view.getUint32(46, true)
    const sequence = view.getUint32(50, true)
    if (seen.has(`${flow} ${sequence}`)) expected.duplicated++
    else {
      expected.received++
      if (sequence < next[flow]) expected.reordered++
    }
    next[flow] = Math.max(next[flow], sequence + 1)
    seen.add(`${flow} ${sequence}`)
    give(1, frame)
  }
  const { received, duplicated, reordered, lost } = traffic.sink.totals
  assert.deepEqual({ received, duplicated, reordered }, expected)
  assert.equal(lost, next.reduce((a, b) => a + b) - expected.received)
})

test('what is older than the window, or of a flow that has made way, is stale', () => {
  const one = bench({ flows: 1 })
  const list: Uint8Array[] = []
  while (list.length < 300) list.push(...one.take(0))
  one.give(1, list[0])
  one.give(1, list[200])
  one.give(1, list[72])
  one.give(1, list[73])
  const { totals } = one.traffic.sink
  assert.deepEqual([totals.received, totals.lost, totals.stale, totals.reordered], [3, 198, 1, 1])
  one.give(1, list[299])
  one.give(1, list[172])
  assert.deepEqual([totals.received, totals.lost, totals.stale, totals.reordered], [5, 295, 1, 2])

  const short = bench({ flows: 1, turns: 1 })
  const flowsFrames = short.take(0)
  assert.equal(flowsFrames.length, 32)
  short.give(1, flowsFrames[31])
  short.give(1, flowsFrames[31 - 4])
  assert.equal(short.traffic.sink.totals.stale, 1)
})

test('every changed bit is found', () => {
  for (const options of [{ tcpShare: 0 }, { tcpShare: 1 }, { ipv6Share: 1 }]) {
    const { traffic, run, give } = bench({ flows: 1, sizes: 101, ...options })
    const { totals } = traffic.sink
    const list: Uint8Array[] = []
    run(8, (frame, side) => { if (side === 0) list.push(frame) })
    for (const frame of [list[0], list[1], list[4]]) {
      for (let bit = 0; bit < frame.length * 8; bit++) {
        const isUnchecked = 'ipv6Share' in options && bit >= 112 && (bit < 144 || (bit >= 168 && bit < 176))
        const before = totals.corrupted + totals.foreign
        const changed = frame.slice()
        changed[bit >> 3] ^= 1 << (bit & 7)
        give(1, changed)
        // Nothing covers traffic class, flow label and hop limit of IPv6.
        if (!isUnchecked) assert.equal(totals.corrupted + totals.foreign, before + 1, `bit ${bit} of ${frame.length * 8}`)
      }
    }
  }
})

test('whatever comes in is counted once, and no bytes make the sink fail', () => {
  const random = new Random(11)
  for (const options of [{}, { tcpShare: 1 }, { ipv6Share: 1, tcpShare: 0.5 }]) {
    const { traffic, run, give } = bench({ flows: 8, sizes: [[60, 1], [200, 1]], turns: 3, ...options })
    const list: [Uint8Array, 0 | 1][] = []
    run(20, (frame, side) => { list.push([frame, side]) })
    for (let i = 0; i < 3000; i++) {
      const [frame, side] = random.pick(list)
      const changed = frame.slice(0, random.chance(0.2) ? random.below(frame.length + 1) : frame.length)
      for (let changes = random.below(4); changes > 0 && changed.length > 0; changes--) {
        changed[random.below(Math.min(changed.length, random.chance(0.7) ? 60 : 200))] = random.chance(0.3) ? 255 : random.below(256)
      }
      give(random.chance(0.9) ? side === 0 ? 1 : 0 : side, changed)
    }
    const { frames: all, received, duplicated, stale, unreadable, foreign, astray, corrupted } = traffic.sink.totals
    assert.equal(all, received + duplicated + stale + unreadable + foreign + astray)
    assert.ok(corrupted > 100 && foreign > 100 && astray > 10 && duplicated > 100)
  }
})

test('a changed pattern is found though the checksum has been made to fit', () => {
  const { traffic, list, give } = frames({ sizes: 1000 })
  const frame = list[0]
  // Two changes that leave the sum as it is.
  const at = frame.length - 20
  const view = new DataView(frame.buffer)
  const [a, b] = [view.getUint16(at), view.getUint16(at + 2)]
  view.setUint16(at, b)
  view.setUint16(at + 2, a)
  assert.equal(checksumFault(frame), '')
  give(1, frame)
  assert.equal(traffic.sink.totals.corrupted, 1)
  assert.equal(traffic.sink.countsOf(0, 0)?.corrupted, 1)
  assert.equal(traffic.sink.totals.received, 1)
})

test('foreign and astray frames are told from the generator\'s', () => {
  const { traffic, list, give, clock } = frames()
  const { totals } = traffic.sink
  give(0, list[0])
  assert.equal(totals.astray, 1)
  give(1, new Uint8Array(60))
  give(1, new Uint8Array(5))
  assert.equal(totals.foreign, 2)
  const other = createTraffic({ arena, seed: 2, flows: 1, clock })
  arena.u8.set(list[0], 66)
  other.ports[1].send(66, list[0].length)
  assert.deepEqual([other.sink.totals.foreign, other.sink.totals.corrupted], [1, 0])
  assert.deepEqual([totals.received, totals.corrupted], [0, 0])
})

test('latency is counted from when the packet was due', () => {
  const one = bench({ flows: 1, packetsPerSecond: 1000 })
  assert.equal(one.take(0).length, 1)
  one.clock.advanceBy(3500)
  const late = one.take(0)
  assert.equal(late.length, 3)
  for (const frame of late) one.give(1, frame)
  const { latency } = one.traffic.sink
  assert.deepEqual([latency.minUs, latency.maxUs], [500, 2500])
  assert.ok(Math.abs(latency.percentileUs(50) - 1500) < 12)
  const flow = one.traffic.sink.countsOf(0, 0)
  assert.deepEqual([flow?.latencyMeanUs, flow?.latencyMaxUs], [1500, 2500])
})

test('the rate can be changed', () => {
  const one = bench({ flows: 4, packetsPerSecond: 1000 })
  const countIn = (ms: number): number => {
    let count = 0
    for (let i = 0; i < ms; i++) {
      one.clock.advanceBy(1000)
      for (let got = 32; got === 32; count += got) got = one.take(0).length
    }
    return count
  }
  one.take(0)
  assert.equal(countIn(100), 100)
  one.clock.advanceBy(1e6)
  one.traffic.setRate(50_000)
  one.take(0)
  assert.equal(countIn(100), 5000)
  assert.throws(() => { one.traffic.setRate(0) }, { code: 'NF_CONFIG_INVALID' })
})

test('packets arrive evenly, at random or in bursts, at the given rate', () => {
  for (const [arrivals, low, high] of [['constant', 0, 0.01], ['poisson', 0.8, 1.25], ['bursty', 15, 70]] as const) {
    const one = bench({ flows: 4, packetsPerSecond: 100_000, arrivals })
    const counts: number[] = []
    for (let ms = 0; ms < 1000; ms++) {
      let count = 0
      for (let got = 32; got === 32; count += got) got = one.take(0).length
      counts.push(count)
      one.clock.advanceBy(1000)
    }
    counts.shift()
    const mean = counts.reduce((a, b) => a + b) / counts.length
    const variance = counts.reduce((a, b) => a + (b - mean) ** 2, 0) / counts.length
    assert.ok(Math.abs(mean - 100) < (arrivals === 'bursty' ? 8 : 2), `${arrivals}: ${mean} per ms`)
    assert.ok(variance / mean >= low && variance / mean <= high, `${arrivals}: index of dispersion ${variance / mean}`)
  }
})

test('sizes and packets are as told; without a free slot nothing is lost', () => {
  const one = bench({ flows: 4, sizes: 'imix', packets: 3000 })
  const lengths = new Map<number, number>()
  one.run(500, (frame) => { lengths.set(frame.length, (lengths.get(frame.length) ?? 0) + 1) })
  assert.equal(one.traffic.sent.packets, 3000)
  assert.deepEqual([...lengths.keys()].sort((a, b) => a - b), [60, 590, 1514])
  assert.ok(Math.abs((lengths.get(60) as number) / 3000 - 7 / 12) < 0.03)
  const other = bench({ flows: 4 })
  const slots = Array.from({ length: 264 }, () => other.pool.take(60))
  assert.equal(other.take(0).length, 0)
  assert.equal(other.traffic.sent.packets, 0)
  for (const slot of slots) other.pool.give(slot)
  other.run(10)
  assert.equal(other.traffic.sink.totals.lost, 0)
  other.traffic.stop()
  assert.equal(other.take(0).length, 0)
})

test('many flows follow each other, each on its own addresses', () => {
  const tuples = new Set<string>()
  const one = bench({ flows: 16, turns: 1, requestPackets: 1, clients: 3, servers: 2 })
  one.run(100, (frame) => { tuples.add(Buffer.from(frame.subarray(26, 38)).toString('hex')) })
  assert.equal(tuples.size, one.traffic.sent.opened)
  assert.equal(one.traffic.sent.opened, 3200)
  assert.equal(one.traffic.sink.totals.lost, 0)
})

test('a sink of its own, elsewhere, needs to know seed and flows alone', () => {
  const { traffic, clock, run } = bench({ flows: 10, sizes: 'imix', tcpShare: 0.5, replyPackets: 1, turns: 5, seed: 9 })
  const other = new Arena(4 << 20)
  const clients = new SinkPort(createTrafficSink({ arena: other, seed: 9, flows: 10, clock }), 0)
  const servers = new SinkPort(clients.sink, 1)
  const at = other.allocate('frame', 4096) + 2
  run(50, (frame, side) => {
    other.u8.set(frame, at)
    const port = side === 0 ? servers : clients
    port.receive(undefined as never, 0, 32)
    assert.ok(port.send(at, frame.length))
  })
  assert.deepEqual(clients.sink.totals, traffic.sink.totals)
  assert.equal(clients.statistics.txFrames + servers.statistics.txFrames, traffic.sent.packets)
})

test('the report says what was sent and seen, and with which flows something was wrong', () => {
  const { traffic, list, give, clock } = frames({ flows: 2 })
  clock.advanceBy(40)
  list.forEach((frame, index) => {
    if (index === 7) return
    give(1, frame)
    if (index === 9 || index === 11 || index === 12) give(1, frame)
  })
  const report = reportTraffic(traffic)
  assert.equal(report.missing, 1)
  assert.deepEqual(report.worstFlows.map(({ flow, side, lost, duplicated }) => [flow, side, lost, duplicated]),
    [[1, 'client', 1, 2], [0, 'client', 0, 1]])
  const lines = formatTrafficReport(report).split('\n')
  assert.deepEqual(lines, [
    'sent      60 packets, 4800 bytes, 2 flows of which 0 have ended and 0 were given up',
    'received  59, missing 1, duplicated 3, reordered 0, corrupted 0 (unreadable 0)',
    'besides   stale 0, foreign 0, astray 0',
    'latency   min 40.00 µs, mean 40.00 µs, 50% 40.00 µs, 90% 40.00 µs, 99% 40.00 µs, 99.9% 40.00 µs, max 40.00 µs',
    'flow 1, client: received 29, lost 1, duplicated 2, reordered 0, corrupted 0, stale 0, latency mean 40.00 µs, max 40.00 µs',
    'flow 0, client: received 30, lost 0, duplicated 1, reordered 0, corrupted 0, stale 0, latency mean 40.00 µs, max 40.00 µs',
  ])
  assert.equal(reportTraffic(traffic, 1).worstFlows.length, 1)
})

test('options out of range are refused', () => {
  const cases: Partial<TrafficOptions>[] = [{ flows: 0 }, { flows: 1.5 }, { packetsPerSecond: 0 }, { sizes: 59 }, { sizes: [] },
    { sizes: [[60, -1]] }, { tcpShare: 2 }, { clients: 0 }, { serverPort: 70_000 }, { turns: 0 }, { burst: 0 },
    { stallUs: 1e9 }, { sizes: 100_000 }]
  for (const options of cases) assert.throws(() => bench(options), { name: 'CodedError', code: 'NF_CONFIG_INVALID' }, JSON.stringify(options))
})
