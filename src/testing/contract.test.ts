import { test } from 'node:test'
import assert from 'node:assert/strict'
import { builtInNfs } from '../nfs/index.ts'
import { array, bool, chain, defineNf, inExtent, struct, text, time, u32, u8, Verdict, z } from '../nf/index.ts'
import type { AnyNfDefinition } from '../nf/definition.ts'
import { buildFrame, runContractSuite, syntheticTraces, TcpConversation, type ContractOptions } from './index.ts'

/** Configurations that make a built-in do something on the synthetic traces. */
const configs: Record<string, unknown[]> = {
  http: [{}, { overlap: 'last' }],
  firewall: [{}, {
    rules: ['accept tcp to port 80,443', 'drop udp from 10.2.0.2', 'reset tcp to port 22', 'accept icmp'], default: 'reset',
    tracking: { invalid: 'drop', midStream: 'drop' },
  }],
}

for (const [name, load] of Object.entries(builtInNfs)) {
  for (const config of configs[name] ?? [{}]) {
    test(`${name} keeps the contract (${JSON.stringify(config)})`, async () => {
      const { default: definition } = await load()
      const report = await runContractSuite(definition, { config, seed: 7 })
      assert.deepEqual(report.checks.filter((check) => !check.ok), [])
      assert.equal(report.ok, true)
    })
  }
}

/** Enough for functions that break the contract on most packets. */
const few: ContractOptions = {
  builtIn: false, traces: syntheticTraces(1).filter((trace) => trace.name === 'web' || trace.name === 'datagrams'),
}

async function failures(definition: AnyNfDefinition, options: ContractOptions = few): Promise<string[]> {
  const report = await runContractSuite(definition, options)
  assert.equal(report.ok, report.checks.every((check) => check.ok))
  assert.equal(report.nf, definition.name)
  return report.checks.filter((check) => !check.ok).map((check) => check.check)
}

const counting = struct({ packets: u32 })

test('an NF that holds, releases by timer, emits, draws and keeps extents keeps the contract', async () => {
  const shy = defineNf({
    name: 'shy', version: 1,
    flowState: struct({ waits: bool, since: time, seen: array(u8, 4), log: chain({ blocks: 4 }),
      more: inExtent(struct({ n: u32 })) }),
    counters: { held: 'packets held' },
    dropReasons: { boring: 'drawn' },
    records: { released: { count: u32, why: text(8) } },
    create: (_config, context) => ({
      processPacket(packet, state) {
        state.seen.add(packet.direction)
        state.log.append(packet.payloadOffset, Math.min(packet.payloadLength, 20))
        const more = state.more.create()
        if (more !== null) more.n++
        if ((context.random() & 31) === 0) return context.drop.boring
        if ((context.random() & 15) === 0 && context.emit.copy(packet) !== null) context.emit.send(packet.direction)
        if (context.held.count >= 5) context.held.release(2)
        if ((context.random() & 3) !== 0) return Verdict.Forward
        if (!context.timer.isSet) context.timer.set(2500)
        state.waits = true
        state.since = context.now
        context.counters.held++
        return Verdict.Hold
      },
      timerFired(state) {
        state.waits = false
        const { released } = context.records
        released.begin()
        released.count = context.held.count
        released.why.write('timer')
        released.commit()
        context.held.release()
      },
    }),
  })
  const report = await runContractSuite(shy, { seed: 3 })
  assert.deepEqual(report.checks.filter((check) => !check.ok), [])
})

test('state in a closure is found', async () => {
  let total = 0
  const shared = defineNf({
    name: 'closure', version: 1, flowState: counting,
    create: () => ({
      processPacket(_packet, state) {
        state.packets = ++total
        return Verdict.Forward
      },
    }),
  })
  assert.ok((await failures(shared)).includes('repeatable'))

  const perInstance = defineNf({
    name: 'instance', version: 1, flowState: counting,
    create: () => {
      let mine = 0
      return {
        processPacket(_packet, state) {
          state.packets = ++mine
          return Verdict.Forward
        },
      }
    },
  })
  assert.deepEqual(await failures(perInstance), ['moved', 'flows apart'])

  const perFlow = defineNf({
    name: 'per-flow', version: 1, flowState: counting,
    create: () => {
      const flows = new Map<number, number>()
      return {
        allocateFlowState(state) { flows.set(state.o, 0) },
        deallocateFlowState(state) { flows.delete(state.o) },
        processPacket(_packet, state) {
          const count = (flows.get(state.o) ?? 0) + 1
          flows.set(state.o, count)
          state.packets = count
          return Verdict.Forward
        },
      }
    },
  })
  assert.ok((await failures(perFlow)).includes('moved'))
})

test('a function that declares what its flows share is not asked to keep them apart', async () => {
  const shares = defineNf({
    name: 'shares', version: 1, flowState: counting, sharedState: () => ({ next: 0 }),
    create: (_config, { shared }) => ({
      allocateFlowState(state) { state.packets = ++shared.next },
      processPacket: () => Verdict.Forward,
    }),
  })
  const report = await runContractSuite(shares, few)
  assert.deepEqual(report.checks.filter((check) => !check.ok), [])
  assert.match(report.checks.find((check) => check.check === 'flows apart')?.detail ?? '', /left out/)
})

test('an NF that throws on some packets is found, with the error and the trace', async () => {
  const fragile = defineNf({
    name: 'fragile', version: 1,
    create: () => ({
      processPacket(packet) {
        if (packet.payloadLength > 1000 && packet.payloadByte(0) === 0x41) throw new RangeError('too much')
        return Verdict.Forward
      },
    }),
  })
  const packets = new TcpConversation({ clientPort: 7 }).open().client('A'.repeat(1200)).close().packets
  const report = await runContractSuite(fragile, { traces: [{ name: 'long', packets }], builtIn: false })
  const failed = report.checks.filter((check) => !check.ok)
  assert.deepEqual(failed.map((check) => check.check), ['never throws'])
  assert.match(failed[0].detail, /"long": RangeError: too much/)
  assert.deepEqual(await failures(fragile), [])
})

test('nonsense for a verdict, and throwing at the end of a flow, count as throwing', async () => {
  const nonsense = defineNf({ name: 'nonsense', version: 1, create: () => ({ processPacket: () => 99999 }) })
  assert.ok((await failures(nonsense)).includes('never throws'))
  const late = defineNf({
    name: 'late', version: 1,
    create: () => ({ processPacket: () => Verdict.Forward, deallocateFlowState() { throw new Error('late') } }),
  })
  assert.ok((await failures(late)).includes('never throws'))
})

test('extents that are taken and forgotten are found', async () => {
  const forgetful = defineNf({
    name: 'forgetful', version: 1, flowState: struct({ log: chain({ blocks: 2 }) }),
    create: () => ({
      processPacket(packet, state) {
        state.log.append(packet.payloadOffset, Math.min(packet.payloadLength, 30))
        if (packet.payloadLength === 90) state.log.head = 0
        return Verdict.Forward
      },
    }),
  })
  assert.deepEqual(await failures(forgetful), ['nothing left'])
  const outside = defineNf({
    name: 'outside', version: 1,
    create: (_config, { extents }) => ({
      allocateFlowState() { extents.take() },
      processPacket: () => Verdict.Forward,
    }),
  })
  assert.deepEqual(await failures(outside), ['nothing left'])
})

test('a clock or chance of its own is found', async () => {
  let ticks = 0
  const clock = defineNf({
    name: 'clock', version: 1, flowState: struct({ at: time }),
    create: () => ({
      allocateFlowState(state) { state.at = ++ticks },
      processPacket: () => Verdict.Forward,
    }),
  })
  assert.ok((await failures(clock)).includes('repeatable'))
})

test('reading outside the packet is found', async () => {
  const peeping = defineNf({
    name: 'peeping', version: 1, flowState: struct({ beyond: u32 }),
    create: (_config, { arena }) => ({
      processPacket(packet, state) {
        state.beyond = state.beyond * 31 + arena.u8[packet.frameOffset + packet.frameLength + 3]
        return Verdict.Forward
      },
    }),
  })
  assert.ok((await failures(peeping)).includes('frames only'))
})

test('state that a snapshot does not carry is found: offsets into the arena', async () => {
  const pointer = defineNf({
    name: 'pointer', version: 1, flowState: struct({ block: u32, n: u32 }),
    create: (_config, { extents, arena }) => ({
      allocateFlowState(state) { state.block = extents.take() },
      deallocateFlowState(state) { extents.give(state.block) },
      flowMovedOut(state) { extents.give(state.block) },
      flowMovedIn(state) { state.block = extents.take() },
      processPacket(_packet, state) {
        state.n = ++arena.i32[extents.dataOffset(state.block) >> 2]
        return Verdict.Forward
      },
    }),
  })
  const found = await failures(pointer)
  assert.ok(found.includes('moved'), found.join())
})

test('a suite that cannot even start reports so', async () => {
  const broken = defineNf({ name: 'broken', version: 1, create: () => { throw new Error('no') } })
  const report = await runContractSuite(broken, few)
  assert.equal(report.ok, false)
  assert.match(report.checks[0].detail, /stopped: Error: no/)
  const picky = defineNf({ name: 'picky', version: 1, config: z.strictObject({ a: z.number() }),
    create: () => ({ processPacket: () => Verdict.Forward }) })
  assert.equal((await runContractSuite(picky, few)).ok, false)
  assert.equal((await runContractSuite(picky, { ...few, config: { a: 1 } })).ok, true)
})

test('traces may come without times, and the seed decides', async () => {
  const plain = defineNf({ name: 'plain', version: 1, flowState: counting, create: () => ({
    processPacket(_packet, state) { state.packets++; return Verdict.Forward } }) })
  const packets = [1, 2, 3].map((port) => ({ frame: buildFrame({ udp: { sourcePort: port } }) }))
  const report = await runContractSuite(plain, { traces: [{ name: 'three', packets }], builtIn: false, seed: 5 })
  assert.deepEqual(report.checks.filter((check) => !check.ok), [])
  assert.ok(report.checks.every((check) => check.seed === 5))
})
