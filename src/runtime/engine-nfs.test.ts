import { test } from 'node:test'
import assert from 'node:assert/strict'
import { bool, defineNf, Direction, struct, text, u32, u8, Verdict } from '../nf/index.ts'
import type { AnyNfDefinition } from '../nf/definition.ts'
import {
  buildFrame, buildPacket, checksumFault, gate, payloads, recorder, runPackets, saw, sideCounter, TEST_START_US, TestRuntime,
  type TestPacket,
} from '../testing/index.ts'

const SECOND = 1e6
/** A UDP datagram from 10.0.0.1 to 10.0.0.2, or back. */
const udp = (sourcePort: number, payload = 'x'): Uint8Array => buildFrame({ udp: { sourcePort, destinationPort: 53, payload } })
const udpBack = (port: number, payload = 'y'): Uint8Array =>
  buildFrame({ source: '10.0.0.2', destination: '10.0.0.1', udp: { sourcePort: 53, destinationPort: port, payload } })

const counter = sideCounter()

// -- Verdicts, holding, errors -------------------------------------------------------------------------------------------

test('a drop is a drop: later functions do not see the packet, nothing leaves, and the reason is counted', () => {
  const { records, outputs, dropReasons, statistics } =
    runPackets([gate('first'), gate('second'), recorder()], [udp(1, 'a'), udp(1, 'refuse'), udp(1, 'b')])
  assert.deepEqual(saw({ records }), ['a', 'b'])
  assert.deepEqual(payloads(outputs), ['a', 'b'])
  assert.deepEqual(dropReasons, { 'first-unwanted': 1 })
  assert.equal(statistics.dropped, 1)
})

test('held packets go on in order, through the functions behind the one that held them', () => {
  const chainOf = [recorder('before'), gate(), recorder('behind')]
  const words = ['a', 'hold1', 'hold2', 'hold3', 'b', 'go 1', 'c', 'go', 'd']
  for (const batch of [1, 7, 32]) {
    const result = runPackets(chainOf, words.map((word) => udp(1, word)), { batch })
    assert.deepEqual(saw(result, 'before'), words)
    assert.deepEqual(saw(result, 'behind'), ['a', 'b', 'hold1', 'go 1', 'c', 'hold2', 'hold3', 'go', 'd'])
    assert.deepEqual(payloads(result.outputs), saw(result, 'behind'))
    assert.equal(result.outputs[2].time, TEST_START_US + 1000, 'with its own time of arrival')
    assert.equal(result.flows[0].packets, words.length)
  }
})

test('a held packet can be held again further on, and each function has its own', () => {
  const words = ['hold1', 'hold2', 'go', 'go']
  const runtime = new TestRuntime([gate('one'), gate('two'), recorder()], { batch: 1 })
  runtime.feed(udp(1, 'hold1'))
  runtime.feed(udp(1, 'hold2'))
  assert.equal(runtime.engine.buffered, 2)
  runtime.feed(udp(1, 'go'))
  // "one" released two, "two" held them; then "go" itself made "two" release them.
  assert.equal(runtime.engine.buffered, 0)
  assert.deepEqual(payloads(runtime.outputs), ['hold1', 'hold2', 'go'])
  assert.equal(words.length, 4)
  runtime.finish()
  runtime.dispose()
})

test('held packets can be dropped, run into a limit, and end with their flow', () => {
  const hold = [1, 2, 3, 4, 5].map((i) => udp(1, `hold${i}`))
  const dropped = runPackets([gate(), recorder()], [...hold, udp(1, 'drop 2'), udp(1, 'go')])
  assert.deepEqual(payloads(dropped.outputs), ['drop 2', 'hold3', 'hold4', 'hold5', 'go'])
  assert.deepEqual(dropped.dropReasons, { 'gate-unwanted': 2 })
  const limited = runPackets([gate()], [...hold, udp(1, 'go')], { limits: { heldPerFlow: 3 } })
  assert.deepEqual(payloads(limited.outputs), ['hold1', 'hold2', 'hold3', 'go'])
  assert.deepEqual(limited.dropReasons, { 'hold-limit': 2 })
  for (const waitUs of [undefined, 400 * SECOND]) {
    const ended = runPackets([gate()], [...hold, udp(2, 'other')], { waitUs })
    assert.deepEqual(payloads(ended.outputs), ['other'])
    assert.deepEqual(ended.dropReasons, { 'hold-ended': 5 })
    assert.deepEqual(ended.inUse, { flows: 0, extents: 0, packets: 0, buffered: 0 })
  }
})

test('more packets are released at once than a batch has room for: the rest waits', () => {
  const packets = Array.from({ length: 300 }, (_, i) => udp(1, `hold${i}`))
  const { outputs, dropReasons } = runPackets(gate(), [...packets, udp(1, 'go'), udp(1, 'go')],
    { limits: { heldPerFlow: 1000, packets: 1000 }, batch: 1 })
  assert.deepEqual(payloads(outputs),
    [...packets.slice(0, 256).map((_, i) => `hold${i}`), 'go', ...packets.slice(256).map((_, i) => `hold${i + 256}`), 'go'])
  assert.deepEqual(dropReasons, {})
})

test('after a failure the packets of the flow are dropped, and those of others are not', () => {
  const { outputs, dropReasons, errors, statistics } = runPackets([recorder('before'), gate(), recorder()],
    [udp(1, 'a'), udp(1, 'fail'), udp(1, 'b'), udp(2, 'c'), udpBack(1), udp(2, 'fail'), udp(3, 'd')])
  assert.deepEqual(payloads(outputs), ['a', 'c', 'd'])
  assert.deepEqual(dropReasons, { 'nf-error': 4 })
  assert.deepEqual(errors.map(({ nf, error }) => [nf, String(error)]), [['gate', 'Error: told to fail']])
  assert.equal(statistics.nfErrors, 2)
})

test('or the function that failed is left out for the flow', () => {
  const result = runPackets([recorder('before'), gate(), recorder('behind')],
    [udp(1, 'a'), udp(1, 'fail'), udp(1, 'hold'), udp(2, 'refuse'), udp(1, 'refuse')], { policy: { nfError: 'bypass' } })
  assert.deepEqual(payloads(result.outputs), ['a', 'hold', 'refuse'])
  assert.deepEqual(result.dropReasons, { 'nf-error': 1, 'gate-unwanted': 1 })
  assert.deepEqual(saw(result, 'behind'), ['a', 'hold', 'refuse'])
  assert.equal(result.flows.find((f) => f.tuple.sourcePort === 1)?.state.before.packets, 4)
})

test('nonsense for a verdict is a failure', () => {
  for (const nonsense of [undefined, null, NaN, -1, 1.5, 2.5, 1e9, '0', 'forward', true, {}, Infinity]) {
    const silly = defineNf({ name: 'silly', version: 1, create: () => ({ processPacket: () => nonsense as number }) })
    for (const nfs of [[silly], [silly, counter], [counter, silly]]) {
      const { outputs, dropReasons, errors } = runPackets(nfs, [udp(1), udp(1)])
      assert.equal(outputs.length, 0)
      assert.deepEqual(dropReasons, { 'nf-error': 2 })
      assert.match(String(errors[0].error), /TypeError: .*not a verdict/)
    }
  }
})

test('failures when flows begin, end, and when timers fire are contained', () => {
  const failing = (where: string): AnyNfDefinition => defineNf({
    name: 'failing', version: 1,
    create: (_config, { timer }) => ({
      allocateFlowState() { if (where === 'begin') throw new Error(where) },
      deallocateFlowState() { if (where === 'end') throw new Error(where) },
      processPacket() {
        timer.set(1000)
        return Verdict.Forward
      },
      timerFired() { if (where === 'timer') throw new Error(where) },
    }),
  })
  for (const where of ['begin', 'end', 'timer']) {
    for (const nfError of ['drop', 'bypass'] as const) {
      const { errors, inUse, flows, records, statistics } = runPackets([recorder('before'), failing(where), recorder('behind')],
        [udp(1), udp(1), udp(2)], { policy: { nfError }, waitUs: SECOND })
      assert.equal(String(errors[0]?.error), `Error: ${where}`)
      assert.ok(statistics.nfErrors >= 2)
      assert.deepEqual(inUse, { flows: 0, extents: 0, packets: 0, buffered: 0 })
      assert.equal(flows.length, 2)
      // The others are begun and ended all the same.
      for (const nf of ['before', 'behind']) {
        for (const event of ['began', 'ended']) {
          assert.equal(records.filter((r) => r.nf === nf && r.event === event).length, 2, `${where} ${nf} ${event}`)
        }
      }
    }
  }
})

// -- Timers, emission, records, context ----------------------------------------------------------------------------------

const timed: AnyNfDefinition = defineNf({
  name: 'timed', version: 1,
  flowState: struct({ fired: u32, word: text(16) }),
  records: { fired: { number: u32, isSet: bool } },
  create: (_config, context) => ({
    processPacket(packet, state) {
      state.word.copyFrom(packet.payloadOffset, packet.payloadLength)
      const [word, value] = state.word.toString().split(' ')
      if (word === 'set') context.timer.set(Number(value))
      if (word === 'clear') context.timer.clear()
      return Verdict.Forward
    },
    timerFired(state) {
      const { fired } = context.records
      fired.begin()
      fired.number = ++state.fired
      fired.isSet = context.timer.isSet
      fired.commit()
      if (state.word.toString().startsWith('every')) context.timer.set(10_000)
    },
  }),
})

/** When the timer fired, microseconds after the start. */
function firings(packets: TestPacket[], waitUs = SECOND): number[] {
  return runPackets([timed], packets, { waitUs }).records.map((r) => {
    assert.equal(r.fields.isSet, false, 'a timer that fires is not set')
    return r.time - TEST_START_US
  })
}

const at = (ms: number, payload: string): TestPacket => ({ frame: udp(1, payload), time: TEST_START_US + ms * 1000 })

test('a timer fires once, not before its time and at most a millisecond after it', () => {
  assert.deepEqual(firings([at(0, 'set 5000')]), [5000])
  assert.deepEqual(firings([at(0, 'set 5001')]), [6000])
  assert.deepEqual(firings([at(0, 'set 1')]), [1000])
  assert.deepEqual(firings([at(0, 'set 0')]), [1000])
  assert.deepEqual(firings([at(0, 'set -7')]), [1000])
  assert.deepEqual(firings([at(0, 'x'), at(3, 'set 250000')]), [253_000])
  assert.deepEqual(firings([at(0, 'set 5000'), at(10, 'set 5000')]), [5000, 15_000])
})

test('a timer can be set anew, sooner or later, and stopped', () => {
  assert.deepEqual(firings([at(0, 'set 50000'), at(1, 'set 5000')]), [6000])
  assert.deepEqual(firings([at(0, 'set 5000'), at(1, 'set 50000')]), [51_000])
  assert.deepEqual(firings([at(0, 'set 5000'), at(1, 'clear')]), [])
  assert.deepEqual(firings([at(0, 'set 5000'), at(1, 'clear'), at(2, 'set 90000')]), [92_000])
  assert.deepEqual(firings([at(0, 'set 10000'), at(1, 'every')], 45_000), [10_000, 20_000, 30_000, 40_000])
})

test('timers do not keep a flow alive, and do not fire after its end', () => {
  const { flows, records } = runPackets([timed], [at(0, 'set 400000000')], { waitUs: 500 * SECOND })
  assert.deepEqual(flows.map((f) => [f.end, (f.endedAt - f.lastSeen) / SECOND]), [['expired', 300]])
  assert.deepEqual(records, [])
  const both = runPackets([timed], [at(0, 'set 300000000')], { waitUs: 500 * SECOND })
  assert.deepEqual(both.flows.map((f) => [f.end, f.state.timed.fired]), [['expired', 1]], 'a timer due with the end fires')
})

test('each function and each flow has its own timer', () => {
  const { records } = runPackets([timed, timed], [
    { frame: udp(1, 'set 5000'), time: TEST_START_US }, { frame: udp(2, 'set 3000'), time: TEST_START_US },
    { frame: udp(3, 'x'), time: TEST_START_US },
  ], { waitUs: SECOND })
  assert.deepEqual(records.map((r) => `${r.nf} ${r.tuple.sourcePort} ${(r.time - TEST_START_US) / 1000}`),
    ['timed 2 3', 'timed-2 2 3', 'timed 1 5', 'timed-2 1 5'])
})

test('a timer can release, drop and emit', () => {
  const delay = defineNf({
    name: 'delay', version: 1,
    create: (_config, context) => ({
      processPacket() {
        if (!context.timer.isSet) context.timer.set(20_000)
        return Verdict.Hold
      },
      timerFired() { context.held.release() },
    }),
  })
  for (const batch of [1, 32]) {
    const { outputs, records } = runPackets([delay, recorder()], [at(0, 'a'), at(5, 'b'), at(19, 'c'), at(21, 'd')],
      { waitUs: SECOND, batch })
    assert.deepEqual(payloads(outputs), ['a', 'b', 'c', 'd'])
    assert.deepEqual(outputs.map((o) => (o.leftAt - TEST_START_US) / 1000), [20, 20, 20, 41])
    assert.deepEqual(saw({ records }), ['a', 'b', 'c', 'd'])
  }
})

test('a copy can be changed and sent; the function behind does not see it', () => {
  const mirror = defineNf({
    name: 'mirror', version: 1,
    create: (_config, { emit }) => ({
      processPacket(packet) {
        const copy = emit.copy(packet)
        if (copy !== null) {
          copy.sourcePort = 9
          copy.setPayloadByte(0, 0x7a)
          emit.send(packet.direction)
        }
        return Verdict.Forward
      },
    }),
  })
  const { outputs, statistics, records } = runPackets([mirror, recorder()], [udp(1, 'abc'), udpBack(1, 'def')])
  assert.deepEqual(payloads(outputs), ['zbc', 'abc', 'zef', 'def'])
  assert.deepEqual(outputs.map((o) => o.emitted), [true, false, true, false])
  for (const { frame } of outputs) assert.equal(checksumFault(frame), '')
  assert.deepEqual([statistics.received, statistics.emitted, statistics.forwarded], [2, 2, 4])
  assert.deepEqual(saw({ records }), ['abc', 'def'])
})

test('a frame can be made behind the link header, towards either side', () => {
  const answer = (reply: boolean): AnyNfDefinition => defineNf({
    name: 'answer', version: 1,
    create: (_config, { emit, arena }) => ({
      processPacket(packet) {
        const direction = reply ? 1 - packet.direction : packet.direction
        const made = emit.frame(packet, 28, direction)
        if (made === null) return Verdict.Forward
        assert.equal(made.direction, direction)
        const bytes = buildPacket({ source: '10.0.0.2', destination: '10.0.0.1', icmp: { type: 3 } })
        arena.u8.set(bytes, made.networkOffset)
        emit.send(direction)
        return Verdict.Forward
      },
    }),
  })
  for (const link of [{}, { vlans: [5] }]) {
    for (const reply of [true, false]) {
      const { outputs } = runPackets(answer(reply), [buildFrame({ ...link, udp: {} })])
      const macs = reply ? { sourceMac: '02:00:00:00:00:02', destinationMac: '02:00:00:00:00:01' } : {}
      assert.deepEqual(outputs[0].frame,
        buildFrame({ ...link, ...macs, source: '10.0.0.2', destination: '10.0.0.1', icmp: { type: 3 } }))
      assert.equal(outputs[0].wireLength, outputs[0].frame.length)
    }
  }
})

test('what is not sent is given back; what is too much is counted', () => {
  const careless = (times: number, send: boolean, fail = false): AnyNfDefinition => defineNf({
    name: 'careless', version: 1,
    create: (_config, { emit }) => ({
      processPacket(packet) {
        for (let i = 0; i < times; i++) {
          emit.copy(packet)
          if (send) emit.send(0)
        }
        if (fail) throw new Error('between copy and send')
        emit.send(0)
        return Verdict.Forward
      },
    }),
  })
  const given = runPackets(careless(3, false), [udp(1), udp(2)])
  assert.deepEqual([given.outputs.length, given.inUse.packets], [4, 0])
  const failed = runPackets(careless(1, false, true), [udp(1), udp(2)])
  assert.deepEqual([failed.outputs.length, failed.inUse.packets], [0, 0])
  const many = runPackets(careless(300, true), [udp(1)])
  assert.deepEqual([many.outputs.length, many.dropReasons], [257, { 'emit-limit': 44 }])
  const tight = runPackets(careless(30, true), [udp(1)], { limits: { packets: 8, largePackets: 1 } })
  assert.deepEqual([tight.outputs.length, tight.dropReasons], [9, { 'emit-limit': 22 }])
})

test('records that find no room are counted, and the others are whole', () => {
  const runtime = new TestRuntime(recorder(), { limits: { recordBytes: 1024 } })
  for (let i = 0; i < 32; i++) runtime.feed(udp(1, `packet ${i}`))
  runtime.flush()
  const { made, lost } = runtime.engine.records
  assert.equal(made + lost, 33)
  assert.ok(lost > 0 && made > 3)
  assert.deepEqual(saw(runtime), Array.from({ length: made - 1 }, (_, i) => `packet ${i}`))
  runtime.feed(udp(1, 'after'))
  runtime.flush()
  assert.equal(saw(runtime).at(-1), 'after')
  runtime.dispose()
})

test('the context speaks of the packet at hand', () => {
  const asks = defineNf({
    name: 'asks', version: 1,
    records: { said: { packets: u32, bytes: u32, protocol: u8, ipv6: bool, port: u8, sinceFirst: u32 } },
    create: (_config, { records: { said }, flow, ...context }) => ({
      processPacket(packet) {
        said.begin()
        said.packets = flow.packets
        said.bytes = flow.bytes
        said.protocol = flow.protocol
        said.ipv6 = flow.isIpv6
        said.port = packet.port
        said.sinceFirst = packet.time - flow.firstSeen
        said.commit()
        return packet.direction === Direction.forward ? Verdict.Forward : context.drop.never ?? Verdict.Forward
      },
    }),
    dropReasons: { never: 'never' },
  })
  const six = buildFrame({ source: '::1', destination: '::2', udp: {} })
  const { records } = runPackets(asks, [{ frame: udp(1), port: 1 }, { frame: udp(1), port: 2 }, { frame: six, port: 3 }])
  assert.deepEqual(records.map((r) => Object.values(r.fields)), [
    [1, 43, 17, false, 1, 0], [2, 86, 17, false, 2, 1000], [1, 62, 17, true, 3, 0],
  ])
  assert.deepEqual(records.map((r) => r.time), [0, 1000, 2000].map((us) => TEST_START_US + us))
})

test('captured time, wire length and link type go with the packet', () => {
  const packet = buildPacket({ udp: { sourcePort: 5 } })
  const { outputs, flows } = runPackets(counter, [
    { frame: packet, linkType: 101, wireLength: 500, port: 4, time: TEST_START_US + 17 }, { frame: udp(5) },
  ])
  assert.equal(flows.length, 1)
  assert.deepEqual([outputs[0].wireLength, outputs[0].port, outputs[0].time], [500, 4, TEST_START_US + 17])
  assert.deepEqual(outputs[0].frame, packet)
  assert.equal(flows[0].bytes, 500 + 43)
})
