import { test } from 'node:test'
import assert from 'node:assert/strict'
import { Random } from '../base/random.ts'
import { hashKey4 } from '../flow/flow-hash.ts'
import { bool, chain, defineNf, Direction, struct, text, u32, u8, Verdict } from '../nf/index.ts'
import type { AnyNfDefinition } from '../nf/definition.ts'
import monitor from '../nfs/monitor/monitor.ts'
import {
  buildFragments, buildFrame, buildPacket, checksumFault, layersOf, runPackets, syntheticTraces, TcpConversation, TEST_START_US,
  TestRuntime, type FrameOptions, type TestPacket,
} from '../testing/index.ts'
import { firstDifference, outcomeOf } from '../testing/run-outcome.ts'

const SECOND = 1e6
/** A UDP datagram from 10.0.0.1 to 10.0.0.2, or back. */
const udp = (sourcePort: number, payload = 'x'): Uint8Array => buildFrame({ udp: { sourcePort, destinationPort: 53, payload } })
const udpBack = (port: number, payload = 'y'): Uint8Array =>
  buildFrame({ source: '10.0.0.2', destination: '10.0.0.1', udp: { sourcePort: 53, destinationPort: port, payload } })

/** Keeps what it sees: a record for each packet, and one for the end of each flow. */
const recorder = (name = 'recorder'): AnyNfDefinition => defineNf({
  name, version: 1,
  flowState: struct({ packets: u32 }),
  records: { saw: { payload: text(40), direction: u8, number: u32 }, began: {}, ended: { packets: u32 } },
  create: (_config, { records }) => ({
    allocateFlowState() {
      records.began.begin()
      records.began.commit()
    },
    deallocateFlowState(state) {
      records.ended.begin()
      records.ended.packets = state.packets
      records.ended.commit()
    },
    processPacket(packet, state) {
      state.packets++
      records.saw.begin()
      records.saw.payload.copyFrom(packet.payloadOffset, packet.payloadLength)
      records.saw.direction = packet.direction
      records.saw.number = state.packets
      records.saw.commit()
      return Verdict.Forward
    },
  }),
})

const saw = (result: { records: readonly { nf: string; event: string; fields: Record<string, unknown> }[] }, nf = 'recorder'):
    string[] => result.records.filter((r) => r.nf === nf && r.event === 'saw').map((r) => r.fields.payload as string)

/** Holds packets that begin with "hold"; "go N" releases N, "drop N" drops N, "fail" throws; the rest passes. */
const gate = (name = 'gate'): AnyNfDefinition => defineNf({
  name, version: 1,
  flowState: struct({ held: u32, word: text(8) }),
  dropReasons: { unwanted: 'dropped by command' },
  create: (_config, context) => ({
    processPacket(packet, state) {
      state.word.copyFrom(packet.payloadOffset, packet.payloadLength)
      const [word, count] = state.word.toString().split(' ')
      if (word === 'fail') throw new Error('told to fail')
      if (word === 'go') context.held.release(count === undefined ? undefined : Number(count))
      if (word === 'drop') context.held.drop(context.drop.unwanted, count === undefined ? undefined : Number(count))
      if (word === 'refuse') return context.drop.unwanted
      state.held = context.held.count
      return word.startsWith('hold') ? Verdict.Hold : Verdict.Forward
    },
  }),
})

const payloads = (outputs: readonly { frame: Uint8Array }[]): string[] => outputs.map(({ frame }) => {
  const { transport, end } = layersOf(frame)
  return String.fromCharCode(...frame.subarray(transport + 8, end))
})

// -- Everything at once --------------------------------------------------------------------------------------------------

const busy: AnyNfDefinition = defineNf({
  name: 'busy', version: 1,
  flowState: struct({ log: chain({ blocks: 3 }), timers: u32, waits: bool }),
  dropReasons: { drawn: 'every so often' },
  records: { released: { count: u32 } },
  create: (_config, context) => ({
    processPacket(packet, state) {
      const kind = (packet.length * 7 + context.flow.packets * 13) % 16
      state.log.append(packet.payloadOffset, Math.min(packet.payloadLength, 100))
      if (kind === 1) return context.drop.drawn
      if (kind === 2 && context.emit.copy(packet) !== null) context.emit.send(packet.direction)
      if (kind === 3) context.emit.copy(packet)
      if (kind === 4) throw new Error('sometimes')
      if (kind > 4 && kind < 8) {
        context.timer.set(kind * 1500)
        return Verdict.Hold
      }
      if (kind === 8) context.held.release(1)
      return Verdict.Forward
    },
    timerFired(state) {
      state.timers++
      const { released } = context.records
      released.begin()
      released.count = context.held.count
      released.commit()
      context.held.release()
    },
  }),
})

for (const nfError of ['drop', 'bypass'] as const) {
  test(`batches of 1, 7 and 32 give the same; all is counted and given back (${nfError})`, () => {
    for (const seed of [11, 12]) {
      for (const trace of syntheticTraces(seed)) {
        const outcomes = [1, 7, 32].map((batch) => {
          const runtime = new TestRuntime([monitor, busy, recorder()], {
            batch, policy: { nfError }, limits: { extentBytes: 16384, recordBytes: 2 ** 21, heldPerFlow: 5 },
          })
          trace.packets.forEach((packet, index) => {
            runtime.feed(packet)
            // The packets of a batch that is not full yet are not known to the engine.
            assert.equal(runtime.conservationFault, '', `packet ${index} of ${trace.name}`)
          })
          runtime.finish()
          const result = runtime.result()
          assert.equal(runtime.conservationFault, '')
          assert.deepEqual(result.inUse, { flows: 0, extents: 0, packets: 0, buffered: 0 })
          assert.equal(result.statistics.flowsEnded, result.statistics.flowsCreated)
          assert.equal(result.statistics.received, trace.packets.length)
          for (const event of ['began', 'ended']) {
            assert.equal(result.records.filter((r) => r.event === event).length, result.statistics.flowsCreated)
          }
          runtime.dispose()
          return outcomeOf(result.outputs, result.flows, result.records)
        })
        assert.equal(firstDifference(outcomes[0], outcomes[1]), '', trace.name)
        assert.equal(firstDifference(outcomes[0], outcomes[2]), '', trace.name)
      }
    }
  })
}

test('the fields of the statistics', () => {
  const packets = [udp(1), udp(1), udpBack(1), buildFrame({ tcp: {} }), buildFrame({ icmp: {} }), buildFrame({ protocol: 47 }),
    buildFrame({ etherType: 0x0806 }), buildFrame({ source: '2001:db8::1', icmp: {} })]
  const { statistics, dropReasons } = runPackets(monitor, packets)
  assert.deepEqual(statistics, {
    ...statistics, received: 8, forwarded: 8, dropped: 0, emitted: 0, flowsCreated: 5, flowsTcp: 1, flowsUdp: 1, flowsIcmp: 2,
    flowsOther: 1, flowsEnded: 5, flowsEvicted: 0, nfErrors: 0,
    bytesReceived: packets.reduce((sum, p) => sum + p.length, 0), bytesForwarded: packets.reduce((sum, p) => sum + p.length, 0),
  })
  assert.deepEqual(dropReasons, {})
})

// -- Flows ---------------------------------------------------------------------------------------------------------------

test('both directions of a conversation are one flow, seen from the side that opened it', () => {
  for (const swap of [false, true]) {
    const [client, server] = swap ? ['10.0.0.9', '10.0.0.2'] : ['10.0.0.2', '10.0.0.9']
    const { flows } = runPackets(monitor, new TcpConversation({ client, server }).open().client('abc').server('defgh').close().packets)
    assert.equal(flows.length, 1)
    assert.equal(flows[0].tuple.source, client)
    assert.equal(flows[0].tuple.sourcePort, 40000)
    assert.equal(flows[0].tuple.destinationPort, 80)
    assert.equal(flows[0].packets, 10)
    assert.deepEqual([flows[0].state.monitor.packetsForward, flows[0].state.monitor.packetsReverse], [6, 4])
  }
})

test('a SYN+ACK that is seen first comes from the side that did not open the flow', () => {
  const { packets } = new TcpConversation().open().client('abc')
  const { flows } = runPackets(monitor, packets.slice(1))
  assert.equal(flows[0].tuple.source, '10.0.0.1')
  assert.deepEqual([flows[0].state.monitor.packetsForward, flows[0].state.monitor.packetsReverse], [2, 2])
})

test('equal addresses: the ports tell the directions; equal ports too: one flow all the same', () => {
  const there = buildFrame({ source: '10.0.0.1', destination: '10.0.0.1', udp: { sourcePort: 5, destinationPort: 6 } })
  const back = buildFrame({ source: '10.0.0.1', destination: '10.0.0.1', udp: { sourcePort: 6, destinationPort: 5 } })
  const { flows } = runPackets(monitor, [there, back, there])
  assert.equal(flows.length, 1)
  assert.deepEqual([flows[0].state.monitor.packetsForward, flows[0].state.monitor.packetsReverse], [2, 1])
  const same = buildFrame({ source: '10.0.0.1', destination: '10.0.0.1', udp: { sourcePort: 5, destinationPort: 5 } })
  assert.equal(runPackets(monitor, [same, same]).flows[0].state.monitor.packetsForward, 2)
})

test('whatever is in the key keeps flows apart', () => {
  const options: FrameOptions[] = [
    {}, { vlans: [1] }, { vlans: [2] }, { vlans: [1, 2] }, { vlans: [2, 1] }, { pppoe: 1 }, { pppoe: 2 }, { vlans: [1], pppoe: 1 },
    { source: '10.0.0.3' }, { destination: '10.0.0.3' }, { source: '::a00:1', destination: '::a00:2' },
    { source: '::ffff:10.0.0.1', destination: '::ffff:10.0.0.2' }, { source: 'a00:1::', destination: 'a00:2::' },
  ]
  const frames = options.flatMap((o) => [
    buildFrame({ ...o, udp: { sourcePort: 1, destinationPort: 2 } }), buildFrame({ ...o, udp: { sourcePort: 1, destinationPort: 3 } }),
    buildFrame({ ...o, tcp: { sourcePort: 1, destinationPort: 2 } }), buildFrame({ ...o, protocol: 50 }),
  ])
  for (const batch of [1, 32]) assert.equal(runPackets(monitor, [...frames, ...frames], { batch }).flows.length, frames.length)
})

test('two keys with one hash are two flows, and the end of one leaves the other', () => {
  const seed = 4
  const secret = new Random(seed).int32()
  const b = 0x0a000002
  // The hash is a bijection of each word of the key: two words have to differ.
  const random = new Random(1)
  const byHash = new Map<number, [number, number, number]>()
  let pair: [[number, number, number], [number, number, number]] | undefined
  for (let tries = 0; tries < 2e6 && pair === undefined; tries++) {
    const key: [number, number, number] = [random.between(1, 200), random.below(0x10000), random.below(0x10000)]
    const hash = hashKey4(secret, 4 << 24, (key[1] << 16) | key[2], 17, 0x09000000 | key[0], b)
    const before = byHash.get(hash)
    if (before !== undefined && before.join() !== key.join()) pair = [before, key]
    byHash.set(hash, key)
  }
  assert.ok(pair !== undefined)
  const frame = ([host, sourcePort, destinationPort]: [number, number, number], payload: string): Uint8Array =>
    buildFrame({ source: `9.0.0.${host}`, udp: { sourcePort, destinationPort, payload } })
  for (const batch of [1, 32]) {
    const [one, two] = pair
    const runtime = new TestRuntime(recorder(), { seed, batch, timeouts: { udp: 10 } })
    runtime.feedAll([frame(one, 'a'), frame(two, 'b'), frame(two, 'c'), frame(one, 'd')])
    runtime.flush()
    assert.equal(runtime.engine.table.size, 2)
    runtime.advanceTo(runtime.time + 8 * SECOND)
    runtime.feed(frame(two, 'e'))
    runtime.advanceTo(runtime.time + 5 * SECOND)
    assert.equal(runtime.engine.table.size, 1)
    runtime.feedAll([frame(two, 'f'), frame(one, 'g')])
    runtime.finish()
    assert.deepEqual(runtime.ended.map((f) => f.packets).toSorted(), [1, 2, 4])
    runtime.dispose()
  }
})

test('TCP ends by FIN from both sides or by RST, lingers for its time-wait, and is closed', () => {
  const timeouts = { tcpClosed: 100 }
  const closes: [string, TestPacket[]][] = [
    ['fin', new TcpConversation().open().close().packets],
    ['server first', new TcpConversation().open().close('server').packets],
    ['rst', new TcpConversation().open().reset().packets],
    ['refused', new TcpConversation().segment('client', 'S').segment('server', 'RA').packets],
  ]
  for (const [name, packets] of closes) {
    const runtime = new TestRuntime(monitor, { timeouts })
    runtime.feedAll(packets)
    runtime.flush()
    const [record] = [...runtime.engine.flows()]
    assert.equal(runtime.isLingering(record), true, name)
    const last = runtime.time
    runtime.advanceTo(last + 99 * SECOND)
    assert.equal(runtime.ended.length, 0, name)
    runtime.advanceTo(last + 101 * SECOND)
    assert.deepEqual(runtime.ended.map((f) => f.end), ['closed'], name)
    assert.ok(runtime.ended[0].endedAt - last - 100 * SECOND <= 1000, name)
    assert.equal(runtime.engine.table.size, 0)
    runtime.dispose()
  }
  // One FIN alone does not end it.
  const half = new TestRuntime(monitor, { timeouts })
  half.feedAll(new TcpConversation().open().segment('client', 'FA').segment('server', 'A').packets)
  half.flush()
  assert.equal(half.isLingering([...half.engine.flows()][0]), false)
  half.dispose()
})

test('in the time-wait only a new SYN opens another flow; the old one keeps its own numbers', () => {
  const old = new TcpConversation().open().client('old').close()
  const oldPackets = [...old.packets]
  const again = new TcpConversation({ startUs: old.timeUs + 10 * SECOND, clientSequence: 9_000_000 }).open().client('new').packets
  const late = { frame: oldPackets[3].frame, time: old.timeUs + 5 * SECOND }
  const synAck = { frame: oldPackets[1].frame, time: old.timeUs + 6 * SECOND }
  for (const batch of [1, 32]) {
    const { flows } = runPackets([monitor, recorder()], [...oldPackets, late, synAck, ...again], { batch })
    assert.deepEqual(flows.map((f) => [f.end, f.packets, f.state.recorder.packets]),
      [['closed', oldPackets.length + 2, oldPackets.length + 2], ['finished', 5, 5]])
    assert.equal(flows[0].lastSeen, synAck.time)
    assert.equal(flows[0].bytes, [...oldPackets, late, synAck].reduce((sum, p) => sum + p.frame.length, 0))
    assert.equal(flows[1].firstSeen, again[0].time)
  }
  // From the other side: the new flow's directions follow its own SYN.
  const back = new TcpConversation({ client: '10.0.0.2', server: '10.0.0.1', clientPort: 80, serverPort: 40000,
    startUs: old.timeUs + 1000 }).open().packets
  const { flows } = runPackets(monitor, [...oldPackets, ...back])
  assert.deepEqual(flows.map((f) => f.tuple.source), ['10.0.0.1', '10.0.0.2'])
  // A SYN on a connection that is open is a packet of it.
  assert.equal(runPackets(monitor, [...oldPackets.slice(0, 4), ...again]).flows.length, 1)
})

test('idle flows expire after the time of their protocol, to the millisecond', () => {
  const timeouts = { tcpOpening: 10, tcp: 20, udp: 30, icmp: 40, other: 50 }
  const kinds: [string, TestPacket[], number][] = [
    ['opening', [{ frame: buildFrame({ tcp: { flags: 'S' } }) }], 10],
    ['opened', new TcpConversation().open().packets, 20],
    ['answered', new TcpConversation().open().packets.slice(0, 2), 20],
    ['midstream', [{ frame: buildFrame({ tcp: { flags: 'A' } }) }], 20],
    ['udp', [{ frame: udp(1) }], 30],
    ['icmp', [{ frame: buildFrame({ icmp: {} }) }], 40],
    ['icmpv6', [{ frame: buildFrame({ source: '::1', icmp: {} }) }], 40],
    ['other', [{ frame: buildFrame({ protocol: 132 }) }], 50],
  ]
  for (const [name, packets, seconds] of kinds) {
    const runtime = new TestRuntime(recorder(), { timeouts })
    runtime.feedAll(packets)
    runtime.flush()
    const start = runtime.time
    assert.ok(runtime.engine.nextDue() <= start + seconds * SECOND)
    runtime.advanceTo(start + seconds * SECOND - 1)
    assert.equal(runtime.ended.length, 0, name)
    runtime.advanceTo(start + seconds * SECOND + 1000)
    assert.deepEqual(runtime.ended.map((f) => [f.end, f.endedAt - start]), [['expired', seconds * SECOND]], name)
    assert.equal(runtime.records.filter((r) => r.event === 'ended').length, 1)
    assert.equal(runtime.engine.nextDue(), Infinity)
    runtime.dispose()
  }
  // Each packet starts the time anew, also the last one that could.
  for (const [gap, count] of [[29.999, 1], [30.001, 2]] as const) {
    const { flows } = runPackets(monitor, [0, 1, 2].map((i) => ({ frame: udp(1), time: TEST_START_US + (i > 1 ? gap : i * 0) * SECOND })),
      { timeouts })
    assert.equal(flows.length, count)
  }
})

test('a million milliseconds of flows: each expires at its own time', () => {
  const random = new Random(5)
  const runtime = new TestRuntime(monitor, { timeouts: { udp: 7 }, limits: { flows: 300 } })
  const last = new Map<number, number>()
  let time = TEST_START_US
  for (let i = 0; i < 2000; i++) {
    time += random.below(200) * 1000
    const port = random.between(1, 200)
    runtime.feed({ frame: udp(port), time })
    last.set(port, time)
    runtime.flush()
    for (const [p, t] of last) if (t + 7 * SECOND <= time) last.delete(p)
    assert.equal(runtime.engine.table.size, last.size)
  }
  for (const flow of runtime.ended) assert.ok(flow.endedAt - flow.lastSeen === 7 * SECOND, `${flow.endedAt - flow.lastSeen}`)
  runtime.dispose()
})

test('a full table drops packets of new flows, and only those', () => {
  const ports = [1, 2, 3, 4, 5]
  const packets = [...ports, ...ports, ...ports].map((port) => udp(port))
  const { flows, dropReasons, outputs, statistics } = runPackets(monitor, packets, { limits: { flows: 3 } })
  assert.equal(flows.length, 3)
  assert.deepEqual(dropReasons, { 'flow-table-full': 6 })
  assert.equal(outputs.length, 9)
  assert.equal(statistics.flowsEvicted, 0)
})

test('a full table makes room: closed flows go first, then unanswered ones, then the longest idle', () => {
  const policy = { whenFull: 'evict' } as const
  const closed = new TcpConversation({ clientPort: 1 }).open().close().packets
  const unanswered = [{ frame: buildFrame({ source: '10.0.0.3', tcp: { flags: 'S' } }), time: TEST_START_US + SECOND }]
  const idle = [{ frame: udp(1), time: TEST_START_US + 2 * SECOND }, { frame: udp(2), time: TEST_START_US + 3 * SECOND }]
  const more = [11, 12, 13, 14].map((port, i) => ({ frame: udp(port), time: TEST_START_US + (4 + i) * SECOND }))
  for (const batch of [1, 32]) {
    const runtime = new TestRuntime(recorder(), { policy, limits: { flows: 4 }, batch })
    runtime.feedAll([...closed, ...unanswered, ...idle])
    const order: string[] = []
    for (const packet of more) {
      runtime.feed(packet)
      runtime.flush()
      order.push(`${runtime.ended.at(-1)?.tuple.sourcePort} ${runtime.ended.at(-1)?.end}`)
    }
    assert.deepEqual(order, ['1 closed', '1024 expired', '1 expired', '2 expired'])
    assert.equal(runtime.engine.statistics.flowsEvicted, 4)
    assert.equal(runtime.engine.table.size, 4)
    assert.equal(runtime.outputs.length, closed.length + 7)
    runtime.finish()
    assert.equal(runtime.records.filter((r) => r.event === 'ended').length, 8)
    assert.equal(runtime.conservationFault, '')
    runtime.dispose()
  }
})

test('many more flows than room, in one batch', () => {
  const random = new Random(9)
  for (const whenFull of ['drop', 'evict'] as const) {
    const runtime = new TestRuntime([monitor, recorder()], { policy: { whenFull }, limits: { flows: 5 } })
    for (let i = 0; i < 2000; i++) runtime.feed(udp(random.between(1, 40)))
    runtime.finish()
    const { statistics, inUse } = runtime.result()
    assert.equal(runtime.conservationFault, '')
    assert.equal(statistics.flowsCreated, statistics.flowsEnded)
    assert.equal(whenFull === 'evict' ? statistics.forwarded : statistics.flowsCreated, whenFull === 'evict' ? 2000 : 5)
    assert.equal(runtime.ended.reduce((sum, f) => sum + f.packets, 0), statistics.forwarded)
    assert.deepEqual(inUse, { flows: 0, extents: 0, packets: 0, buffered: 0 })
    runtime.dispose()
  }
})

test('frames that are not IP pass or are dropped by policy; malformed ones and our own EtherType never pass', () => {
  const arp = buildFrame({ etherType: 0x0806 })
  const own = buildFrame({ etherType: 0x88b5 })
  const short = udp(1).subarray(0, 30)
  for (const nonIp of ['pass', 'drop'] as const) {
    const { outputs, dropReasons, flows } = runPackets(monitor, [arp, own, short, arp], { policy: { nonIp } })
    assert.equal(outputs.length, nonIp === 'pass' ? 2 : 0)
    assert.equal(flows.length, 0)
    assert.deepEqual(dropReasons,
      { 'own-ethertype': 1, 'malformed-ipv4': 1, ...nonIp === 'drop' ? { 'non-ip': 2 } : {} })
  }
})

// -- ICMP errors and fragments -------------------------------------------------------------------------------------------

test('an ICMP error belongs to the flow that it quotes, and goes towards the quoted packet\'s source', () => {
  const kinds = defineNf({
    name: 'kinds', version: 1, records: { saw: { related: bool, direction: u8, protocol: u8 } },
    create: (_config, { records: { saw: record } }) => ({
      processPacket(packet) {
        record.begin()
        record.related = packet.isRelated
        record.direction = packet.direction
        record.protocol = packet.protocol
        record.commit()
        return Verdict.Forward
      },
    }),
  })
  const cases: [FrameOptions, FrameOptions, number][] = [
    [{ udp: { sourcePort: 7 } }, { icmp: { type: 3, code: 3 } }, 17],
    [{ tcp: { sourcePort: 7 } }, { icmp: { type: 11 } }, 6],
    [{ icmp: { rest: 0x12340001 } }, { icmp: { type: 3 } }, 1],
    [{ protocol: 47 }, { icmp: { type: 3 } }, 47],
    [{ source: '2001:db8::1', udp: { sourcePort: 7 } }, { icmp: { type: 1 } }, 17],
    [{ source: '2001:db8::1', extensions: [{ type: 0 }], tcp: { sourcePort: 7 } }, { icmp: { type: 2 } }, 6],
  ]
  for (const [sent, error, protocol] of cases) {
    const isIpv6 = sent.source !== undefined
    const from = isIpv6 ? '2001:db8::99' : '10.9.9.9'
    const to = sent.source ?? '10.0.0.1'
    const quote = buildPacket(sent)
    const there = buildFrame(sent)
    const answer = buildFrame({ ...error, source: from, destination: to, icmp: { ...error.icmp, quote } })
    const { flows, records } = runPackets(kinds, [there, answer])
    assert.equal(flows.length, 1)
    assert.equal(flows[0].tuple.protocol, protocol)
    assert.deepEqual(records.map((r) => r.fields), [
      { related: false, direction: 0, protocol: isIpv6 && protocol === 1 ? 58 : protocol },
      { related: true, direction: 1, protocol: isIpv6 ? 58 : 1 },
    ])
    // About the answer's own packet: towards the other side.
    const about = buildPacket(isIpv6
      ? { ...sent, source: '2001:db8::2', destination: sent.source, tcp: sent.tcp && { sourcePort: 80, destinationPort: 7 },
        udp: sent.udp && { sourcePort: 53, destinationPort: 7 } }
      : { ...sent, source: '10.0.0.2', destination: '10.0.0.1', tcp: sent.tcp && { sourcePort: 80, destinationPort: 7 },
        udp: sent.udp && { sourcePort: 53, destinationPort: 7 } })
    const other = buildFrame({ ...error, source: from, destination: isIpv6 ? '2001:db8::2' : '10.0.0.2',
      icmp: { ...error.icmp, quote: about } })
    assert.deepEqual(runPackets(kinds, [there, other]).records.map((r) => r.fields.direction), [0, 0])
  }
})

test('an ICMP error about no flow, or with half a quote, is a flow by its own addresses', () => {
  const quote = buildPacket({ udp: { sourcePort: 7 } })
  const error = (bytes: Uint8Array): Uint8Array =>
    buildFrame({ source: '10.0.0.2', destination: '10.0.0.1', icmp: { type: 3, quote: bytes } })
  for (const bytes of [quote, quote.subarray(0, 19), quote.subarray(0, 22), new Uint8Array(0)]) {
    const { flows, statistics } = runPackets(monitor, [error(bytes), error(bytes)])
    assert.equal(flows.length, 1)
    assert.deepEqual([flows[0].tuple.protocol, flows[0].tuple.sourcePort, flows[0].tuple.destinationPort], [1, 0, 0])
    assert.equal(flows[0].tuple.source, '10.0.0.2')
    assert.equal(statistics.flowsIcmp, 1)
  }
  // The quoted flow begins later: from then on errors are its own.
  const { flows } = runPackets(monitor, [error(quote), udp(7), error(quote)])
  assert.deepEqual(flows.map((f) => [f.tuple.protocol, f.packets]).toSorted(), [[1, 1], [17, 2]])
})

test('fragments follow their first one: to its flow, behind it, in whatever order they come', () => {
  const options: FrameOptions = { udp: { sourcePort: 7, destinationPort: 53, payload: 'a'.repeat(24) + 'b'.repeat(32) + 'c'.repeat(10) },
    identification: 77 }
  const [first, second, third] = buildFragments(options, 32)
  const next = udp(7, 'next')
  const orders: [Uint8Array[], string][] = [
    [[first, second, third, next], 'aa bb cc ne'], [[second, first, next, third], 'aa bb ne cc'],
    [[third, second, first, next], 'aa cc bb ne'], [[next, third, first, second, next], 'ne aa cc bb ne'],
  ]
  for (const batch of [1, 7, 32]) {
    for (const [frames, expected] of orders) {
      const { flows, records, outputs, inUse } = runPackets(recorder(), frames, { batch })
      assert.equal(flows.length, 1)
      assert.equal(flows[0].packets, frames.length)
      assert.equal(outputs.length, frames.length)
      assert.equal(saw({ records }).map((p) => p.slice(0, 2)).join(' '), expected, `batches of ${batch}`)
      assert.deepEqual(inUse, { flows: 0, extents: 0, packets: 0, buffered: 0 })
      assert.ok(flows[0].lastSeen >= flows[0].firstSeen)
    }
  }
})

test('fragments whose first one never comes are dropped when their time is up', () => {
  const [, second, third] = buildFragments({ udp: { payload: 'x'.repeat(80) } }, 32)
  const runtime = new TestRuntime(monitor, { timeouts: { fragment: 30 } })
  // The clock of an engine starts with its first flow.
  runtime.feedAll([udp(9), second, third])
  runtime.flush()
  assert.equal(runtime.engine.buffered, 2)
  runtime.advanceTo(runtime.time + 29 * SECOND)
  assert.equal(runtime.engine.buffered, 2)
  runtime.advanceTo(runtime.time + 2 * SECOND)
  assert.equal(runtime.engine.buffered, 0)
  assert.deepEqual(runtime.result().dropReasons, { 'fragment-timeout': 2 })
  assert.equal(runtime.conservationFault, '')
  runtime.finish()
  runtime.dispose()
  // Or when all is over.
  assert.deepEqual(runPackets(monitor, [udp(9), second, third]).dropReasons, { 'fragment-timeout': 2 })
  assert.deepEqual(runPackets(monitor, [second, third]).dropReasons, { 'fragment-timeout': 2 })
})

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
    for (const nfs of [[silly], [silly, monitor], [monitor, silly]]) {
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
  const { outputs, flows } = runPackets(monitor, [
    { frame: packet, linkType: 101, wireLength: 500, port: 4, time: TEST_START_US + 17 }, { frame: udp(5) },
  ])
  assert.equal(flows.length, 1)
  assert.deepEqual([outputs[0].wireLength, outputs[0].port, outputs[0].time], [500, 4, TEST_START_US + 17])
  assert.deepEqual(outputs[0].frame, packet)
  assert.equal(flows[0].bytes, 500 + 43)
})

test('the kernels and their plain twins give the same', () => {
  for (const trace of syntheticTraces(21).slice(0, 2)) {
    const [a, b] = [true, false].map((wasm) => {
      const { outputs, flows, records } = runPackets([monitor, recorder()], trace.packets, { wasm })
      return outcomeOf(outputs, flows, records)
    })
    assert.equal(firstDifference(a, b), '')
  }
})
