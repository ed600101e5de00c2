import { test } from 'node:test'
import assert from 'node:assert/strict'
import { Random } from '../base/random.ts'
import { hashKey4 } from '../flow/flow-hash.ts'
import { bool, chain, defineNf, struct, u32, u8, Verdict } from '../nf/index.ts'
import type { AnyNfDefinition } from '../nf/definition.ts'
import {
  buildFragments, buildFrame, buildPacket, gate, recorder, runPackets, saw, sideCounter, syntheticTraces, TcpConversation,
  TEST_START_US,
  TestRuntime, type FrameOptions, type TestPacket, type TestRuntimeOptions,
} from '../testing/index.ts'
import { firstDifference, outcomeOf } from '../testing/run-outcome.ts'

const SECOND = 1e6
/** A UDP datagram from 10.0.0.1 to 10.0.0.2, or back. */
const udp = (sourcePort: number, payload = 'x'): Uint8Array => buildFrame({ udp: { sourcePort, destinationPort: 53, payload } })
const udpBack = (port: number, payload = 'y'): Uint8Array =>
  buildFrame({ source: '10.0.0.2', destination: '10.0.0.1', udp: { sourcePort: 53, destinationPort: port, payload } })

const counter = sideCounter()

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
          const runtime = new TestRuntime([counter, busy, recorder()], {
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
  const { statistics, dropReasons } = runPackets(counter, packets)
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
    const { flows } = runPackets(counter,
      new TcpConversation({ client, server }).open().client('abc').server('defgh').close().packets)
    assert.equal(flows.length, 1)
    assert.equal(flows[0].tuple.source, client)
    assert.equal(flows[0].tuple.sourcePort, 40000)
    assert.equal(flows[0].tuple.destinationPort, 80)
    assert.equal(flows[0].packets, 10)
    assert.deepEqual([flows[0].state.counter.forward, flows[0].state.counter.reverse], [6, 4])
  }
})

test('a SYN+ACK that is seen first comes from the side that did not open the flow', () => {
  const { packets } = new TcpConversation().open().client('abc')
  const { flows } = runPackets(counter, packets.slice(1))
  assert.equal(flows[0].tuple.source, '10.0.0.1')
  assert.deepEqual([flows[0].state.counter.forward, flows[0].state.counter.reverse], [2, 2])
})

test('equal addresses: the ports tell the directions; equal ports too: one flow all the same', () => {
  const there = buildFrame({ source: '10.0.0.1', destination: '10.0.0.1', udp: { sourcePort: 5, destinationPort: 6 } })
  const back = buildFrame({ source: '10.0.0.1', destination: '10.0.0.1', udp: { sourcePort: 6, destinationPort: 5 } })
  const { flows } = runPackets(counter, [there, back, there])
  assert.equal(flows.length, 1)
  assert.deepEqual([flows[0].state.counter.forward, flows[0].state.counter.reverse], [2, 1])
  const same = buildFrame({ source: '10.0.0.1', destination: '10.0.0.1', udp: { sourcePort: 5, destinationPort: 5 } })
  assert.equal(runPackets(counter, [same, same]).flows[0].state.counter.forward, 2)
})

test('whatever is in the key keeps flows apart', () => {
  const options: FrameOptions[] = [
    {}, { vlans: [1] }, { vlans: [2] }, { vlans: [1, 2] }, { vlans: [2, 1] }, { pppoe: 1 }, { pppoe: 2 },
    { vlans: [1], pppoe: 1 },
    { source: '10.0.0.3' }, { destination: '10.0.0.3' }, { source: '::a00:1', destination: '::a00:2' },
    { source: '::ffff:10.0.0.1', destination: '::ffff:10.0.0.2' }, { source: 'a00:1::', destination: 'a00:2::' },
  ]
  const frames = options.flatMap((o) => [
    buildFrame({ ...o, udp: { sourcePort: 1, destinationPort: 2 } }), buildFrame({ ...o,
      udp: { sourcePort: 1, destinationPort: 3 } }),
    buildFrame({ ...o, tcp: { sourcePort: 1, destinationPort: 2 } }), buildFrame({ ...o, protocol: 50 }),
  ])
  for (const batch of [1, 32]) assert.equal(runPackets(counter, [...frames, ...frames], { batch }).flows.length, frames.length)
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
    const runtime = new TestRuntime(counter, { timeouts })
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
  const half = new TestRuntime(counter, { timeouts })
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
    const { flows } = runPackets([counter, recorder()], [...oldPackets, late, synAck, ...again], { batch })
    assert.deepEqual(flows.map((f) => [f.end, f.packets, f.state.recorder.packets]),
      [['closed', oldPackets.length + 2, oldPackets.length + 2], ['finished', 5, 5]])
    assert.equal(flows[0].lastSeen, synAck.time)
    assert.equal(flows[0].bytes, [...oldPackets, late, synAck].reduce((sum, p) => sum + p.frame.length, 0))
    assert.equal(flows[1].firstSeen, again[0].time)
  }
  // From the other side: the new flow's directions follow its own SYN.
  const back = new TcpConversation({ client: '10.0.0.2', server: '10.0.0.1', clientPort: 80, serverPort: 40000,
    startUs: old.timeUs + 1000 }).open().packets
  const { flows } = runPackets(counter, [...oldPackets, ...back])
  assert.deepEqual(flows.map((f) => f.tuple.source), ['10.0.0.1', '10.0.0.2'])
  // A SYN on a connection that is open is a packet of it.
  assert.equal(runPackets(counter, [...oldPackets.slice(0, 4), ...again]).flows.length, 1)
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
    const { flows } = runPackets(counter, [0, 1, 2].map((i) => ({ frame: udp(1),
      time: TEST_START_US + (i > 1 ? gap : i * 0) * SECOND })),
      { timeouts })
    assert.equal(flows.length, count)
  }
})

test('a million milliseconds of flows: each expires at its own time', () => {
  const random = new Random(5)
  const runtime = new TestRuntime(counter, { timeouts: { udp: 7 }, limits: { flows: 300 } })
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
  const { flows, dropReasons, outputs, statistics } = runPackets(counter, packets, { limits: { flows: 3 } })
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

test('SYNs that nobody answers are bounded: the one that has waited longest goes, and nothing else', () => {
  const syn = (port: number): Uint8Array => buildFrame({ source: '10.0.0.3', tcp: { sourcePort: port, flags: 'S' } })
  const honest = new TcpConversation({ clientPort: 1 }).open().packets
  const [begun, answer] = new TcpConversation({ clientPort: 2 }).open().packets
  // Seen from its middle on: a SYN that somebody forges does not make an opening of it.
  const middle = [buildFrame({ source: '10.0.0.4', tcp: { flags: 'A' } }), buildFrame({ source: '10.0.0.4', tcp: { flags: 'S' } })]
  for (const batch of [1, 32]) {
    const runtime = new TestRuntime(recorder(), { limits: { flows: 4096, unanswered: 64 }, batch })
    runtime.feedAll([...honest.map(({ frame }) => frame), ...middle])
    for (let port = 1; port <= 1000; port++) runtime.feed(syn(port))
    runtime.feed(begun.frame)
    for (let port = 1001; port <= 1030; port++) runtime.feed(syn(port))
    runtime.feed(answer.frame)
    for (let port = 1031; port <= 3000; port++) runtime.feed(syn(port))
    // A SYN that is sent again does not wait anew.
    runtime.feed(syn(2937))
    runtime.feed(syn(3001))
    runtime.flush()
    assert.deepEqual(runtime.ended.map(({ tuple, end }) => `${tuple.sourcePort} ${end}`),
      Array.from({ length: 2937 }, (_, i) => `${i + 1} expired`))
    assert.equal(runtime.engine.table.size, 64 + 3)
    assert.equal(runtime.engine.statistics.flowsEvicted, 2937)
    assert.equal(runtime.conservationFault, '')
    runtime.finish()
    runtime.dispose()
  }
})

test('an opening that has moved is counted where it is, and can be ended there', () => {
  const options = { limits: { unanswered: 4 } }
  const syn = (port: number): Uint8Array => buildFrame({ tcp: { sourcePort: port, flags: 'S' } })
  const [source, target] = [new TestRuntime(recorder(), options), new TestRuntime(recorder(), options)]
  for (const port of [1, 2, 3, 4]) source.feed(syn(port))
  target.importFlows(source.exportFlows(true), TEST_START_US)
  for (const port of [5, 6, 7, 8]) source.feed(syn(port))
  source.flush()
  assert.deepEqual([source.engine.table.size, source.engine.statistics.flowsEvicted], [4, 0])
  for (const port of [9, 10]) target.feed(syn(port))
  target.flush()
  assert.deepEqual(target.ended.map(({ tuple }) => tuple.sourcePort), [1, 2])
  for (const runtime of [source, target]) {
    runtime.finish()
    runtime.dispose()
  }
})

test('many more flows than room, in one batch', () => {
  const random = new Random(9)
  for (const whenFull of ['drop', 'evict'] as const) {
    const runtime = new TestRuntime([counter, recorder()], { policy: { whenFull }, limits: { flows: 5 } })
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
    const { outputs, dropReasons, flows } = runPackets(counter, [arp, own, short, arp], { policy: { nonIp } })
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
    const { flows, statistics } = runPackets(counter, [error(bytes), error(bytes)])
    assert.equal(flows.length, 1)
    assert.deepEqual([flows[0].tuple.protocol, flows[0].tuple.sourcePort, flows[0].tuple.destinationPort], [1, 0, 0])
    assert.equal(flows[0].tuple.source, '10.0.0.2')
    assert.equal(statistics.flowsIcmp, 1)
  }
  // The quoted flow begins later: from then on errors are its own.
  const { flows } = runPackets(counter, [error(quote), udp(7), error(quote)])
  assert.deepEqual(flows.map((f) => [f.tuple.protocol, f.packets]).toSorted(), [[1, 1], [17, 2]])
})

test('fragments follow their first one: to its flow, behind it, in whatever order they come', () => {
  const options: FrameOptions = { udp: { sourcePort: 7, destinationPort: 53,
    payload: 'a'.repeat(24) + 'b'.repeat(32) + 'c'.repeat(10) },
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
  const runtime = new TestRuntime(counter, { timeouts: { fragment: 30 } })
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
  assert.deepEqual(runPackets(counter, [udp(9), second, third]).dropReasons, { 'fragment-timeout': 2 })
  assert.deepEqual(runPackets(counter, [second, third]).dropReasons, { 'fragment-timeout': 2 })
})

test('of a datagram whose first fragment a flow has dropped, in whatever way, the rest is known as such', () => {
  const ways: [payload: string, ending: readonly string[], isDropped: boolean, options?: TestRuntimeOptions][] = [
    ['refuse ', [], true], ['fail ', [], true, { policy: { nfError: 'bypass' } }], ['hold ', ['drop'], true],
    ['hold ', [], true, { limits: { heldPerFlow: 0 } }], ['hold ', ['end'], true], ['hold ', ['move', 'drop'], true],
    ['pass ', [], false], ['hold ', ['go'], false], ['hold ', ['late'], false],
  ]
  const unwatched = { running() {}, dropped() {}, held() {}, stepped() {} }
  for (const addresses of [{}, { source: '2001:db8::1', destination: '2001:db8::2' }]) {
    for (const [payload, ending, isDropped, options] of ways) {
      const ports = { sourcePort: 7, destinationPort: 53 }
      const fragmentsOf = (word: string): Uint8Array[] =>
        buildFragments({ ...addresses, udp: { ...ports, payload: word.padEnd(80, '.') }, identification: 77 }, 48)
      const [first, second] = fragmentsOf(payload)
      const runtimes = [0, 1].map(() => new TestRuntime([gate()], { batch: 1, timeouts: { fragment: 30 }, ...options }))
      let runtime = runtimes[0] as TestRuntime
      runtime.feed(first)
      for (const step of ending) {
        if (step === 'end') for (const record of runtime.engine.flows()) runtime.engine.endFlow(record)
        else if (step === 'move') {
          runtimes[1].importFlows(runtime.exportFlows(true), runtime.time + 60 * SECOND)
          runtime = runtimes[1]
        } else if (step === 'late') {
          runtime.advanceTo(runtime.time + 31 * SECOND)
          runtime.feed(fragmentsOf('pass ')[0])
          runtime.feed(buildFrame({ ...addresses, udp: { ...ports, payload: 'drop' } }))
        } else runtime.feed(buildFrame({ ...addresses, udp: { ...ports, payload: step } }))
      }
      const found: boolean[] = []
      runtime.engine.watchPackets({ ...unwatched, ran: (d) => { found.push(runtime.engine.isRestOfDropped(d)) } })
      runtime.feed(second)
      assert.deepEqual(found, [isDropped], `${payload} ${ending.join()}`)
      runtime.engine.watchPackets(null)
      for (const one of runtimes) {
        one.finish()
        assert.equal(one.conservationFault, '')
        one.dispose()
      }
    }
  }
})

test('a datagram that is forgotten while its fragments are handed out waits again', () => {
  const [[first, second], [other]] = [1, 2].map((identification) =>
    buildFragments({ udp: { payload: 'x'.repeat(50) }, identification }, 32))
  const runtime = new TestRuntime(counter, { limits: { fragmentedDatagrams: 1 } })
  runtime.feedAll([second, first, other])
  runtime.flush()
  assert.equal(runtime.engine.buffered, 1)
  runtime.finish()
  assert.deepEqual(runtime.result().dropReasons, { 'fragment-timeout': 1 })
  assert.deepEqual([runtime.conservationFault, runtime.result().inUse.packets], ['', 0])
  runtime.dispose()
})

test('the kernels and their plain twins give the same', () => {
  for (const trace of syntheticTraces(21).slice(0, 2)) {
    const [a, b] = [true, false].map((wasm) => {
      const { outputs, flows, records } = runPackets([counter, recorder()], trace.packets, { wasm })
      return outcomeOf(outputs, flows, records)
    })
    assert.equal(firstDifference(a, b), '')
  }
})
