import assert from 'node:assert/strict'
import { test } from 'node:test'
import { defaultTimeouts, type IdleTimeouts } from '../base/limits.ts'
import { Random } from '../base/random.ts'
import { Arena } from '../memory/arena.ts'
import { defineNf, struct, time, u32, Verdict } from '../nf/index.ts'
import type { AnyNfDefinition } from '../nf/definition.ts'
import { FRAME_BYTES_MAX } from '../packet/packet-pool.ts'
import { createEngine, defaultPolicy, type FlowEnd } from '../runtime/engine.ts'
import { buildFrame } from '../testing/packet-builder.ts'
import { testLimits } from '../testing/test-runtime.ts'
import { CaptureRecorder } from '../wire/capture-recorder.ts'
import { createCaptureDriver } from './capture-driver.ts'
import { eventLine, flowLine, type EventLine, type FlowLine } from './run-lines.ts'
import type { SamplePacket } from './sample-capture.ts'

const START = 1_700_000_000e6
const DAY = 86_400e6

/** Reports every packet, and 5 ms after a packet that the flow was quiet. */
const quiet = defineNf({
  name: 'quiet',
  version: 1,
  flowState: struct({ packets: u32, last: time }),
  records: { packet: { seen: time }, quiet: { packets: u32 } },
  create: (_config, context) => ({
    processPacket(_packet, state) {
      state.packets++
      state.last = context.now
      context.timer.set(5000)
      context.record('packet', { seen: context.now })
      return Verdict.Forward
    },
    timerFired(state) {
      context.record('quiet', { packets: state.packets })
    },
  }),
})

const silent = defineNf({ name: 'silent', version: 1, create: () => ({ processPacket: () => Verdict.Forward }) })

/** Keeps every packet until the flow ends. */
const hoarder = defineNf({ name: 'hoarder', version: 1, create: () => ({ processPacket: () => Verdict.Hold }) })

interface Played {
  readonly flows: readonly FlowLine[]
  readonly events: readonly EventLine[]
  readonly output: CaptureRecorder
  readonly driver: ReturnType<typeof createCaptureDriver>
  readonly dropped: number
}

interface PlayOptions {
  readonly nf?: AnyNfDefinition
  readonly timeouts?: Partial<IdleTimeouts>
  /** Flushes after packets for which this says so. */
  readonly flushAfter?: (index: number) => boolean
  readonly packets?: number
}

function play(packets: readonly SamplePacket[], options: PlayOptions = {}): Played {
  const { nf = silent, flushAfter = () => false } = options
  const timeouts = { ...defaultTimeouts, ...options.timeouts }
  const flows: FlowLine[] = []
  const events: EventLine[] = []
  const output = new CaptureRecorder()
  output.interfaceAdded(0, 1, 0, true)
  const engine = createEngine({
    arena: new Arena(256 * 2 ** 20),
    chain: [{ definition: nf, config: {} }],
    limits: { ...testLimits, packets: options.packets ?? testLimits.packets, largePackets: 2, heldPerFlow: 1000 },
    timeouts, policy: defaultPolicy, seed: 1,
    events: { flowEnded: (record: number, end: FlowEnd) => void flows.push(flowLine(engine, record, end)) },
  })
  const driver = createCaptureDriver({
    engine, timeouts, output, takeRecord: (record) => events.push(eventLine(engine, record)),
  })
  driver.interfaceAdded(0, 1)
  packets.forEach(({ frame, time: at, wireLength = frame.length }, index) => {
    const seconds = Math.floor(at / 1e6)
    driver.packet(frame, 0, frame.length, wireLength, seconds, Math.round((at - seconds * 1e6) * 1000), 0)
    if (flushAfter(index)) driver.flush()
  })
  driver.finish()
  const { statistics } = engine
  assert.equal(statistics.received + statistics.emitted, statistics.forwarded + statistics.dropped + engine.buffered)
  return { flows, events, output, driver, dropped: statistics.dropped }
}

function udp(sourcePort: number, at: number): SamplePacket {
  return { frame: buildFrame({ udp: { sourcePort, destinationPort: 53, payload: `from ${sourcePort}` } }), time: at }
}

test('packets leave as they came, with their own times', () => {
  const packets = Array.from({ length: 100 }, (_, i) => udp(1000 + i % 7, START + i * 1.25))
  const { output, driver } = play(packets)
  assert.deepEqual(output.packets.map((p) => Buffer.from(p.bytes).toString('hex')),
    packets.map((p) => Buffer.from(p.frame).toString('hex')))
  assert.deepEqual(output.packets.map((p) => p.seconds * 1e9 + p.nanoseconds), packets.map((p) => p.time * 1000))
  assert.equal(driver.packetCount, 100)
  assert.equal(driver.firstTime, START)
  assert.equal(driver.lastTime, START + 99 * 1.25)
})

test('how packets fall into batches makes no difference', () => {
  const random = new Random(3)
  let at = START
  const packets = Array.from({ length: 2000 }, () => {
    at += random.chance(0.1) ? random.below(12_000) : random.chance(0.01) ? random.below(4e6) : random.below(300) / 4
    return udp(random.below(12), at)
  })
  // Two seconds idle end a flow, so flows end and open again all the time; timers fire between packets of a batch.
  const options = { nf: quiet, timeouts: { udp: 2 } }
  const whole = play(packets, options)
  assert.ok(whole.flows.length > 40, `${whole.flows.length} flows`)
  assert.ok(whole.events.filter((event) => event.event === 'quiet').length > 100)
  for (const flushAfter of [() => true, (i: number) => i % 7 === 3]) {
    const cut = play(packets, { ...options, flushAfter })
    assert.deepEqual(cut.flows, whole.flows)
    assert.deepEqual(cut.events, whole.events)
  }
})

test('the same without timers', () => {
  const random = new Random(4)
  let at = START
  const packets = Array.from({ length: 1000 }, () => udp(random.below(8), at += random.below(1_500_000)))
  const whole = play(packets, { timeouts: { udp: 5 } })
  assert.ok(whole.flows.filter((flow) => flow.end === 'expired').length > 50)
  assert.deepEqual(play(packets, { timeouts: { udp: 5 }, flushAfter: () => true }).flows, whole.flows)
})

test('a flow ends exactly when its time is up, not at the end of a batch', () => {
  const packets = [udp(1, START), udp(2, START + 1e6), udp(1, START + 59e6), udp(2, START + 62e6), udp(1, START + 63e6)]
  const { flows } = play(packets, { timeouts: { udp: 60 } })
  assert.deepEqual(flows.map((flow) => [flow.key.a.port, flow.packets, flow.end]),
    [[2, 1, 'expired'], [1, 3, 'finished'], [2, 1, 'finished']])
})

test('a timer fires at its own time, however late the next packet is', () => {
  const { events } = play([udp(1, START), udp(2, START + 2000), udp(1, START + 3600e6)],
    { nf: quiet, timeouts: { udp: 7000 } })
  const fired = events.filter((event) => event.event === 'quiet').map((event) => Math.round(event.time * 1e6 - START))
  assert.deepEqual(fired, [5000, 7000])
})

/** Lets packets wait for 5 ms. */
const delay = defineNf({
  name: 'delay',
  version: 1,
  create: (_config, context) => ({
    processPacket() {
      if (!context.timer.isSet) context.timer.set(5000)
      return Verdict.Hold
    },
    timerFired: () => context.held.release(),
  }),
})

test('packets that many timers release at once all leave', () => {
  const packets = Array.from({ length: 600 }, (_, i) => udp(i % 100, START + Math.floor(i / 100)))
  const { output, dropped } = play([...packets, udp(1, START + 1e6), udp(1, START + 2e6)], { nf: delay, packets: 1024 })
  assert.equal(output.packets.length, 601)
  assert.equal(dropped, 1, 'the last one is held when the capture ends')
})

test('time never goes back: an earlier packet has the time of the one before', () => {
  const { events, driver } = play([udp(1, START), udp(1, START - 3e6), udp(1, START + 1)], { nf: quiet })
  const times = events.filter((event) => event.event === 'packet').map((event) => event['seen'])
  assert.deepEqual(times, [START / 1e6, START / 1e6, (START + 1) / 1e6])
  assert.equal(driver.wrongTimestamps, 0)
})

for (const [what, wrong] of [['future', START + 21 * 365 * DAY], ['past', START - 21 * 365 * DAY]] as const) {
  test(`one timestamp far in the ${what} ends no flow and moves no clock`, () => {
    const packets = [udp(1, START), udp(1, START + 1000), udp(1, wrong), udp(1, START + 2000), udp(1, START + 3000)]
    const { flows, driver, output } = play(packets)
    assert.deepEqual(flows.map((flow) => [flow.packets, flow.firstSeen, flow.lastSeen]),
      [[5, START / 1e6, (START + 3000) / 1e6]])
    assert.equal(driver.wrongTimestamps, 1)
    assert.equal(driver.clockResets, 0)
    assert.equal(output.packets[2]?.seconds, Math.floor(wrong / 1e6), 'the packet keeps its own timestamp')
  })
}

test('a gap that the next packet confirms is real', () => {
  const later = START + 40 * DAY
  const { flows, driver } = play([udp(1, START), udp(1, later), udp(1, later + 1000), udp(1, later + 2000)])
  assert.deepEqual(flows.map((flow) => [flow.packets, flow.firstSeen, flow.end]),
    [[1, START / 1e6, 'expired'], [3, later / 1e6, 'finished']])
  assert.equal(driver.wrongTimestamps, 0)
  assert.equal(driver.lastTime, later + 2000)
})

for (const days of [20, 26, 40, 51, 76, 30 * 365]) {
  test(`a gap of ${days} days is passed over, with timeouts still exact behind it`, () => {
    const later = START + days * DAY
    const packets = [udp(1, START), udp(2, later), udp(3, later + 1e6), udp(2, later + 61.5e6), udp(3, later + 63e6)]
    const { flows } = play(packets, { timeouts: { udp: 61.8 } })
    assert.deepEqual(flows.map((flow) => [flow.key.a.port, flow.packets, flow.end]),
      [[1, 1, 'expired'], [3, 1, 'expired'], [2, 2, 'finished'], [3, 1, 'finished']])
  })
}

test('a clock that was set back goes on from where it was', () => {
  const back = START - 300 * DAY
  const packets = [udp(1, START), udp(1, back), udp(1, back + 5e6), udp(1, back + 5e6 + 30e6)]
  const { flows, driver } = play(packets, { timeouts: { udp: 31 } })
  assert.deepEqual(flows.map((flow) => [flow.packets, flow.lastSeen - flow.firstSeen]), [[4, 35]])
  assert.equal(driver.clockResets, 1)
})

test('after the clock was set back, timeouts are those of the new clock', () => {
  const back = START - 300 * DAY
  const packets = [udp(1, START), udp(1, back), udp(2, back + 5e6), udp(1, back + 5e6 + 30e6)]
  const { flows } = play(packets, { timeouts: { udp: 20 } })
  assert.deepEqual(flows.map((flow) => [flow.key.a.port, flow.end]), [[1, 'expired'], [2, 'expired'], [1, 'finished']])
})

test('timestamps without end do not stop the run', () => {
  for (const wrong of [2 ** 53, 1.8e22]) {
    const { flows, driver } = play([udp(1, START), udp(1, wrong), udp(1, wrong), udp(1, START + 1)])
    assert.equal(flows.length, 1)
    assert.equal(driver.packetCount, 4)
    assert.equal(driver.wrongTimestamps, 2)
    assert.equal(play([udp(1, wrong), udp(1, wrong)]).flows.length, 1)
  }
})

test('a doubtful packet at the end is processed all the same', () => {
  const { output, flows } = play([udp(1, START), udp(1, START + 3 * DAY)])
  assert.equal(output.packets.length, 2)
  assert.equal(flows[0]?.packets, 2)
})

test('a capture whose times start at zero works', () => {
  const { events } = play([udp(1, 0), udp(1, 10_000), udp(1, 20_000)], { nf: quiet })
  assert.deepEqual(events.map((event) => event.event), ['packet', 'quiet', 'packet', 'quiet', 'packet'])
})

test('a frame longer than any slot is counted, not lost', () => {
  const long = new Uint8Array(FRAME_BYTES_MAX + 1)
  long.set(udp(1, 0).frame)
  const fits = long.subarray(0, FRAME_BYTES_MAX)
  const { driver, output } = play([
    udp(1, START), { frame: long, time: START + 1, wireLength: 100_000 }, { frame: fits, time: START + 2 },
  ])
  assert.deepEqual(driver.refused, { 'frame-too-long': 1, 'no-packet-slot': 0 })
  assert.equal(driver.refusedBytes, 100_000)
  assert.equal(driver.packetCount, 3)
  assert.deepEqual(output.packets.map((packet) => packet.bytes.length), [udp(1, 0).frame.length, FRAME_BYTES_MAX])
})

test('packets that find no slot are counted', () => {
  const packets = Array.from({ length: 100 }, (_, i) => udp(1, START + i))
  const { driver, dropped, output } = play(packets, { nf: hoarder, packets: 64 })
  // The large slots are taken too before one goes without.
  assert.equal(driver.refused['no-packet-slot'], 100 - 64 - 2)
  assert.equal(dropped, 66)
  assert.equal(output.packets.length, 0)
})

test('slots of the batch itself are found again', () => {
  const { driver, output } = play(Array.from({ length: 100 }, (_, i) => udp(1, START + i)), { packets: 16 })
  assert.deepEqual(driver.refused, { 'frame-too-long': 0, 'no-packet-slot': 0 })
  assert.equal(output.packets.length, 100)
})

test('the array of one chunk may hold the next one, once the driver knows', () => {
  const output = new CaptureRecorder()
  output.interfaceAdded(0, 1, 0, true)
  const engine = createEngine({
    arena: new Arena(256 * 2 ** 20), chain: [{ definition: silent, config: {} }], limits: testLimits,
    timeouts: defaultTimeouts, policy: defaultPolicy, seed: 1,
  })
  const driver = createCaptureDriver({ engine, timeouts: defaultTimeouts, output })
  driver.interfaceAdded(0, 1)
  const chunk = new Uint8Array(200)
  const sent = [udp(1, 0).frame, udp(2, 0).frame]
  sent.forEach((frame, index) => {
    chunk.set(frame, 10)
    driver.packet(chunk, 10, frame.length, frame.length, index, 0, 0)
    driver.chunkDone()
  })
  // Larger than the stage: packets are taken from where they lie.
  const huge = new Uint8Array(2 ** 20)
  const [first] = sent as [Uint8Array]
  huge.set(first, huge.length - first.length)
  driver.packet(huge, huge.length - first.length, first.length, first.length, 3, 0, 0)
  driver.finish()
  assert.deepEqual(output.packets.map((packet) => Buffer.from(packet.bytes)),
    [...sent, first].map((frame) => Buffer.from(frame)))
})
