import { test } from 'node:test'
import assert from 'node:assert/strict'
import { CodedError } from '../base/coded-error.ts'
import { Random } from '../base/random.ts'
import { chain, defineNf, inExtent, struct, text, time, u16, u32, u64, Verdict } from '../nf/index.ts'
import type { Struct } from '../memory/struct.ts'
import { readSnapshot } from './flow-snapshot.ts'
import type { AnyNfDefinition } from '../nf/definition.ts'
import {
  buildFragments, buildFrame, gate, payloads, recorder, saw, sideCounter, TcpConversation, TEST_START_US, TestRuntime, type TestRuntimeOptions,
} from '../testing/index.ts'

const SECOND = 1e6
const udp = (payload: string, sourcePort = 1): Uint8Array => buildFrame({ udp: { sourcePort, destinationPort: 53, payload } })

/** Has something of every kind in its state. */
const rich: AnyNfDefinition = defineNf({
  name: 'rich', version: 3,
  flowState: struct({
    packets: u64, opened: time, log: chain({ blocks: 8 }), last: inExtent(struct({ payload: text(50), number: u16 })),
    name: text(11),
    more: chain({ blocks: 2 }),
  }),
  records: { life: { what: text(20), packets: u32 }, fired: {} },
  create: (_config, context) => {
    const say = (what: string, packets: number): void => {
      context.records.life.begin()
      context.records.life.what.write(what)
      context.records.life.packets = packets
      context.records.life.commit()
    }
    return {
      allocateFlowState(state) {
        state.opened = context.now
        say('allocate', state.packets)
      },
      deallocateFlowState(state) { say('deallocate', state.packets) },
      flowMovedIn(state) { say('in', state.packets) },
      flowMovedOut(state) { say('out', state.packets) },
      processPacket(packet, state) {
        state.packets++
        state.log.append(packet.payloadOffset, packet.payloadLength)
        const last = state.last.create()
        if (last !== null) {
          last.payload.copyFrom(packet.payloadOffset, packet.payloadLength)
          last.number = state.packets
        }
        if (packet.payloadByte(0) === 0x74) context.timer.set(30 * SECOND)
        return Verdict.Forward
      },
      timerFired() {
        context.records.fired.begin()
        context.records.fired.commit()
      },
    }
  },
})

const life = (runtime: TestRuntime): string[] => runtime.records.filter((r) => r.event === 'life')
  .map((r) => `${String(r.fields.what)} ${String(r.fields.packets)}`)

/** A runtime with one flow that has extents, held packets and a timer. */
function filled(options: TestRuntimeOptions = {}): TestRuntime {
  const runtime = new TestRuntime([rich, gate(), recorder()], options)
  runtime.feedAll(['timer', 'hold1', 'a'.repeat(700), 'hold2', 'b'].map((payload) => udp(payload)))
  runtime.flush()
  return runtime
}

/** What an import could have changed. */
function inventory(runtime: TestRuntime): unknown {
  const { engine } = runtime
  return {
    flows: engine.slab.used, table: engine.table.size, extents: engine.extents.used, packets: engine.pool.used,
    buffered: engine.buffered, due: engine.nextDue(), ...engine.statistics,
  }
}

function assertRefused(runtime: TestRuntime, snapshot: Uint8Array, code: string, what = ''): void {
  const before = inventory(runtime)
  assert.throws(() => runtime.engine.importFlow(snapshot, runtime.engine.now),
    (error) => error instanceof CodedError && error.code === code, what)
  assert.deepEqual(inventory(runtime), before, what)
}

test('a flow that moves takes everything with it', () => {
  const source = filled()
  const target = new TestRuntime([rich, gate(), recorder()], { seed: 77 })
  const [before] = source.result().flows
  const now = source.time
  target.importFlows(source.exportFlows(true), now)
  assert.deepEqual(target.result().flows.map(({ endedAt: _, ...f }) => f), [(({ endedAt: _, ...f }) => f)(before)])
  assert.equal(target.engine.buffered, 2)
  assert.deepEqual(source.result().inUse, { flows: 0, extents: 0, packets: 0, buffered: 0 })
  assert.deepEqual([source.engine.statistics.handedOver, target.engine.statistics.takenOver], [2, 2])
  target.feed(udp('go'))
  target.flush()
  assert.deepEqual(payloads(target.outputs), ['hold1', 'hold2', 'go'])
  assert.deepEqual(target.outputs.map((o) => o.time - TEST_START_US), [1000, 3000, 5000])
  assert.deepEqual(saw(target), ['hold1', 'hold2', 'go'])
  target.advanceTo(now + 31 * SECOND)
  assert.deepEqual(target.records.filter((r) => r.event === 'fired').map((r) => r.time - TEST_START_US), [30 * SECOND])
  target.finish()
  source.finish()
  assert.deepEqual([...life(source), ...life(target)], ['allocate 0', 'out 5', 'in 5', 'deallocate 6'])
  assert.equal(source.conservationFault + target.conservationFault, '')
  assert.deepEqual(target.result().inUse, { flows: 0, extents: 0, packets: 0, buffered: 0 })
  assert.equal(target.ended[0].state.rich.log, 5 + 5 + 700 + 5 + 1 + 2)
  assert.deepEqual(target.ended[0].state.rich.last, { payload: 'go', number: 6 })
  source.dispose()
  target.dispose()
})

test('exporting alone changes nothing, and says the same each time', () => {
  const runtime = filled()
  const before = [inventory(runtime), runtime.result().flows]
  const [record] = [...runtime.engine.flows()]
  const first = runtime.engine.exportFlow(record)
  assert.deepEqual(runtime.engine.exportFlow(record), first)
  assert.deepEqual([inventory(runtime), runtime.result().flows], before)
  runtime.feed(udp('go'))
  runtime.flush()
  assert.equal(payloads(runtime.outputs).length, 6)
  runtime.finish()
  runtime.dispose()
})

test('a snapshot is looked at without becoming a flow', () => {
  const source = filled()
  const keeper = new TestRuntime([rich, gate(), recorder()], { seed: 77 })
  const { engine } = keeper
  const [{ state: expected }] = source.result().flows
  const [snapshot] = source.exportFlows(false)
  const block = engine.slab.take()
  const before = inventory(keeper)
  const look = (bytes: Uint8Array): unknown => readSnapshot(engine, engine.layoutHash, bytes, block, (record) =>
    (rich.flowState as Struct<any>).decode(engine, record + engine.chain.nfs[0].stateOffset))
  assert.deepEqual(look(snapshot), expected.rich)
  assert.ok((expected.rich as { last: unknown }).last !== null)
  for (const at of [9, 40, snapshot.length - 1]) {
    const damaged = snapshot.slice()
    damaged[at] ^= 1
    assert.throws(() => look(damaged), { code: 'NF_SNAPSHOT' })
  }
  assert.throws(() => readSnapshot(engine, engine.layoutHash ^ 1, snapshot, block, () => 0), { code: 'NF_SNAPSHOT' })
  assert.throws(() => readSnapshot(engine, engine.layoutHash, snapshot, block, () => { throw new Error('mine') }), /mine/)
  assert.deepEqual(inventory(keeper), before)
  engine.slab.give(block)
  keeper.finish()
  source.finish()
  keeper.dispose()
  source.dispose()
})

test('a flow that moves to another clock has its times moved; what is left of its timers stays', () => {
  for (const shift of [-1e9, 5_000_000_000_000]) {
    const source = filled({ timeouts: { udp: 100 } })
    source.advanceTo(source.time + 10 * SECOND)
    const target = new TestRuntime([rich, gate(), recorder()], { timeouts: { udp: 100 } })
    const now = source.time + shift
    const [before] = source.result().flows
    target.importFlows(source.exportFlows(true), now)
    const [after] = target.result().flows
    assert.equal(after.firstSeen, before.firstSeen + shift)
    assert.equal(after.lastSeen, before.lastSeen + shift)
    assert.equal(after.state.rich.opened, before.state.rich.opened + shift / 1e6)
    target.advanceTo(now + 200 * SECOND)
    assert.deepEqual(target.records.filter((r) => r.event === 'fired').map((r) => r.time - now), [(30 - 10) * SECOND - 4000])
    assert.deepEqual(target.ended.map((f) => [f.end, f.endedAt - now]), [['expired', 90 * SECOND]])
    source.dispose()
    target.dispose()
  }
})

test('TCP goes on as it was: directions, a closed connection lingers, a half-closed one can close', () => {
  const { packets } = new TcpConversation().open().client('abc').close()
  for (let cut = 1; cut < packets.length; cut++) {
    const source = new TestRuntime(sideCounter())
    const target = new TestRuntime(sideCounter(), { seed: 5 })
    source.feedAll(packets.slice(0, cut))
    source.flush()
    target.importFlows(source.exportFlows(true), source.time)
    target.feedAll(packets.slice(cut))
    target.advanceTo(target.time + 121 * SECOND)
    assert.deepEqual(target.ended.map((f) => [f.end, f.packets, f.state.counter]),
      [['closed', 8, { forward: 5, reverse: 3 }]], `cut ${cut}`)
    source.dispose()
    target.dispose()
  }
})

test('damage anywhere is noticed, and nothing is installed', () => {
  const source = filled()
  const target = filled()
  const [snapshot] = source.exportFlows(true)
  target.exportFlows(true)
  const random = new Random(3)
  for (let at = 0; at < snapshot.length; at++) {
    const damaged = snapshot.slice()
    damaged[at] ^= 1 << random.below(8)
    assertRefused(target, damaged, 'NF_SNAPSHOT', `bit of byte ${at}`)
  }
  for (let length = 0; length < snapshot.length; length += length < 64 ? 1 : 13) {
    assertRefused(target, snapshot.subarray(0, length), 'NF_SNAPSHOT', `cut to ${length}`)
  }
  assertRefused(target, Uint8Array.from([...snapshot, 0]), 'NF_SNAPSHOT')
  for (let i = 0; i < 200; i++) assertRefused(target, random.fill(new Uint8Array(random.below(2000))), 'NF_SNAPSHOT')
  // Several damages at once, swapped words, a zeroed stretch.
  for (let i = 0; i < 500; i++) {
    const damaged = snapshot.slice()
    const from = random.below(damaged.length - 8)
    if (i % 3 === 0) damaged.fill(0, from, from + random.between(1, 100))
    else if (i % 3 === 1) damaged.copyWithin(from, random.below(damaged.length - 8), random.between(8, damaged.length))
    else for (let n = 0; n < 5; n++) damaged[random.below(damaged.length)] = random.int32()
    if (damaged.every((byte, at) => byte === snapshot[at])) continue
    assertRefused(target, damaged, 'NF_SNAPSHOT', `round ${i}`)
  }
  // It lies at any place of a larger buffer, and is still good.
  const shifted = new Uint8Array(snapshot.length + 3)
  shifted.set(snapshot, 3)
  target.importFlows([shifted.subarray(3)], target.time)
  assert.equal(target.engine.table.size, 1)
  source.dispose()
  target.dispose()
})

test('a flow that is there already is refused', () => {
  const source = filled()
  const [snapshot] = source.exportFlows(false)
  const target = new TestRuntime([rich, gate(), recorder()])
  target.importFlows([snapshot], source.time)
  assertRefused(target, snapshot, 'NF_SNAPSHOT')
  assertRefused(source, snapshot, 'NF_SNAPSHOT')
  assert.equal(target.conservationFault, '')
  source.dispose()
  target.dispose()
})

test('without room a flow is refused, and nothing is installed', () => {
  const source = filled()
  const [snapshot] = source.exportFlows(true)
  const limits: [TestRuntimeOptions['limits'], string[]][] = [
    [{ flows: 1 }, ['x']], [{ extentBytes: 1024 }, []], [{ packets: 1, largePackets: 0 }, []],
  ]
  for (const [limit, fill] of limits) {
    const target = new TestRuntime([rich, gate(), recorder()], { limits: limit })
    target.feedAll(fill.map((payload) => udp(payload, 99)))
    target.flush()
    assertRefused(target, snapshot, 'NF_LIMIT', JSON.stringify(limit))
    target.dispose()
  }
  source.dispose()
})

test('another chain refuses it', () => {
  const source = filled()
  const [snapshot] = source.exportFlows(true)
  for (const nfs of [[rich], [rich, gate()], [gate(), rich, recorder()], [rich, gate('other'), recorder()]]) {
    const target = new TestRuntime(nfs)
    assertRefused(target, snapshot, 'NF_SNAPSHOT')
    assert.throws(() => target.engine.importFlow(snapshot, 0, source.engine.layout), { code: 'NF_SNAPSHOT' })
    target.dispose()
  }
  source.dispose()
})

test('a newer version of a function takes over the state through its upgrade', () => {
  const oldState = struct({ packets: u32, since: time, log: chain({ blocks: 4 }) })
  const old = defineNf({
    name: 'counts', version: 1, flowState: oldState,
    create: (_config, { now: _now, ...context }) => ({
      processPacket(packet, state) {
        if (state.packets++ === 0) state.since = context.flow.firstSeen
        state.log.append(packet.payloadOffset, packet.payloadLength)
        return Verdict.Forward
      },
    }),
  })
  const newer = (from: number): AnyNfDefinition => defineNf({
    name: 'counts', version: 2, flowState: struct({ since: time, twice: u64 }),
    upgrades: [{ from, flowState: oldState, upgrade: (before, now) => {
      now.since = before.since
      now.twice = before.packets * 2
    } }],
    create: () => ({
      processPacket(_packet, state) {
        state.twice += 2
        return Verdict.Forward
      },
    }),
  })
  const source = new TestRuntime([sideCounter(), old, recorder()])
  source.feedAll([udp('a'), udp('b'), udp('c')])
  source.flush()
  const [snapshot] = source.exportFlows(true)
  const target = new TestRuntime([sideCounter(), newer(1), recorder()])
  const now = source.time + 5 * SECOND
  target.engine.importFlow(snapshot, now, source.engine.layout)
  target.feed({ frame: udp('d'), time: now })
  const [flow] = target.result().flows
  assert.deepEqual(flow.state, {
    counter: { forward: 4, reverse: 0 }, counts: { since: (TEST_START_US + 5 * SECOND) / 1e6, twice: 8 },
    recorder: { packets: 4 },
  })
  target.finish()
  assert.deepEqual(target.result().inUse, { flows: 0, extents: 0, packets: 0, buffered: 0 }, 'the old extents are not installed')
  // No upgrade from that version, or no layout to read it by.
  const stranger = new TestRuntime([sideCounter(), newer(7), recorder()])
  assert.throws(() => stranger.engine.importFlow(snapshot, now, source.engine.layout), { code: 'NF_SNAPSHOT' })
  assertRefused(stranger, snapshot, 'NF_SNAPSHOT')
  for (const runtime of [source, target, stranger]) runtime.dispose()
})

test('many flows move to and fro at random, under traffic', () => {
  const random = new Random(8)
  const options = { limits: { flows: 200, extentBytes: 2 ** 20 } }
  const runtimes = [1, 2, 3].map((seed) => new TestRuntime([rich, gate(), recorder()], { ...options, seed, batch: seed * 8 }))
  const owner = new Array<number>(100).fill(0)
  const sent = new Array<number>(100).fill(0)
  let now = TEST_START_US
  for (let round = 0; round < 300; round++) {
    now += 1000
    for (let i = 0; i < 10; i++) {
      const flow = random.below(100)
      const payload = random.pick(['a', 'hold', 'go', 'timer', 'x'.repeat(300)])
      runtimes[owner[flow]].feed({ frame: udp(payload, flow + 1), time: now })
      sent[flow]++
    }
    for (const runtime of runtimes) runtime.advanceTo(now)
    const from = random.below(3)
    const to = (from + random.between(1, 2)) % 3
    const { engine } = runtimes[from]
    for (const record of [...engine.flows()]) {
      if (!random.chance(0.1)) continue
      const { sourcePort } = runtimes[from].describeFlow(record, 'open').tuple
      const snapshot = engine.exportFlow(record)
      engine.removeFlow(record)
      runtimes[to].importFlows([snapshot], now)
      owner[sourcePort - 1] = to
    }
  }
  for (const runtime of runtimes) {
    runtime.finish()
    assert.equal(runtime.conservationFault, '')
    assert.deepEqual(runtime.result().inUse, { flows: 0, extents: 0, packets: 0, buffered: 0 })
  }
  const ended = runtimes.flatMap((runtime) => runtime.ended)
  assert.equal(ended.length, sent.filter((count) => count > 0).length)
  for (const flow of ended) {
    assert.equal(flow.state.rich.packets, sent[flow.tuple.sourcePort - 1])
    assert.equal(flow.packets, sent[flow.tuple.sourcePort - 1])
  }
  for (const runtime of runtimes) runtime.dispose()
})

test('a flow that moves amid a fragmented datagram takes along which fragments are still to come', () => {
  for (const tcp of [false, true]) {
    const payload = 'a'.repeat(60) + 'b'.repeat(64)
    const [first, second, third] = buildFragments(tcp
      ? { tcp: { sourcePort: 7, destinationPort: 80, sequence: 1000, payload }, identification: 5 }
      : { udp: { sourcePort: 7, destinationPort: 53, payload }, identification: 5 }, 48)
    const source = new TestRuntime(recorder())
    const target = new TestRuntime(recorder())
    source.feed(first as Uint8Array)
    source.feed(second as Uint8Array)
    source.flush()
    target.importFlows(source.exportFlows(true), source.time)
    target.feed({ frame: third as Uint8Array, time: source.time + 1000 })
    const { flows, inUse } = target.result()
    assert.deepEqual([flows.length, flows[0]?.packets, inUse.buffered], [1, 3, 0])
    source.dispose()
    target.dispose()
  }
})

test('fragments that come to a flow\'s new place before it does are run when it comes', () => {
  for (const tcp of [false, true]) {
    const payload = 'a'.repeat(60) + 'b'.repeat(64)
    const [first, second, third] = buildFragments(tcp
      ? { tcp: { sourcePort: 7, destinationPort: 80, sequence: 1000, payload }, identification: 5 }
      : { udp: { sourcePort: 7, destinationPort: 53, payload }, identification: 5 }, 48)
    const source = new TestRuntime(recorder())
    const target = new TestRuntime(recorder())
    source.feed(first as Uint8Array)
    source.flush()
    target.feed({ frame: second as Uint8Array, time: source.time })
    target.flush()
    assert.equal(target.result().inUse.buffered, 1)
    target.importFlows(source.exportFlows(true), source.time)
    assert.equal(target.conservationFault, '')
    target.feed({ frame: third as Uint8Array, time: source.time + 1000 })
    const { flows, inUse, outputs } = target.result()
    assert.deepEqual([flows.length, flows[0]?.packets, inUse.buffered], [1, 3, 0])
    assert.deepEqual(outputs.map(({ frame }) => frame), [second, third])
    assert.equal(target.conservationFault, '')
    source.dispose()
    target.dispose()
  }
})
