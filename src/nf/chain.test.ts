import { test } from 'node:test'
import assert from 'node:assert/strict'
import { FlowRecord } from '../flow/flow-record.ts'
import { engineDropReasons } from '../packet/drop-reason.ts'
import { buildFrame, runPackets, sideCounter, TestRuntime } from '../testing/index.ts'
import { CHAIN_NFS_MAX } from './chain.ts'
import type { AnyNfDefinition } from './definition.ts'
import { array, bool, defineNf, enumeration, struct, text, time, u16, u32, u64, u8, Verdict, z } from './index.ts'

const frame = buildFrame({ udp: { payload: 'x' } })

const withState = (name: string, flowState: ReturnType<typeof struct<any>> | undefined,
  hasTimer = false): AnyNfDefinition => defineNf({
  name, version: 1, flowState,
  create: () => ({ processPacket: () => Verdict.Forward, ...(hasTimer ? { timerFired() {} } : {}) }),
})

function chainOf(nfs: readonly AnyNfDefinition[]) {
  const runtime = new TestRuntime(nfs)
  const { chain } = runtime.engine
  runtime.dispose()
  return chain
}

test('states lie behind the header of the record, in order, each at its alignment, timers where they are wanted', () => {
  const nfs = [
    withState('one', struct({ a: u8 })), withState('two', undefined), withState('three', struct({ a: u64, b: u8 }), true),
    withState('four', struct({ a: u16 })), withState('five', struct({ a: u32 }), true),
    withState('six', struct({ a: u8, b: text(100) })),
  ]
  const chain = chainOf(nfs)
  let end: number = FlowRecord.state
  chain.nfs.forEach((nf, i) => {
    const { alignment = 1, bytes = 0 } = nfs[i].flowState ?? {}
    if (nf.timerOffset !== 0) {
      assert.ok(nf.timerOffset >= end && nf.timerOffset % 8 === 0)
      end = nf.timerOffset + 8
    }
    assert.equal(nf.timerOffset !== 0, i === 2 || i === 4)
    assert.ok(nf.stateOffset >= end && nf.stateOffset % alignment === 0)
    assert.equal(nf.stateBytes, bytes)
    end = nf.stateOffset + bytes
  })
  assert.ok(chain.recordBytes >= end && chain.recordBytes % 64 === 0 && chain.recordBytes < end + 64)
})

test('an empty chain forwards everything', () => {
  const { outputs, flows } = runPackets([], [frame, frame])
  assert.deepEqual([outputs.length, flows.length, flows[0].packets], [2, 1, 2])
})

test('the same function twice has a state and counters of its own, and a number', () => {
  const counts = defineNf({
    name: 'counts', version: 1, flowState: struct({ n: u32 }), counters: { seen: 'packets' }, dropReasons: { everySecond: 'x' },
    config: z.strictObject({ step: z.number().default(1) }),
    create: (config, { counters, drop }) => ({
      processPacket(_packet, state) {
        counters.seen++
        state.n += config.step
        return state.n === 4 ? drop.everySecond : Verdict.Forward
      },
    }),
  })
  const { flows, counters, dropReasons } = runPackets([counts, { definition: counts, config: { step: 2 } }, counts],
    [frame, frame, frame])
  assert.deepEqual(flows[0].state, { counts: { n: 3 }, 'counts-2': { n: 6 }, 'counts-3': { n: 2 } })
  assert.deepEqual(counters, { counts: { seen: 3 }, 'counts-2': { seen: 3 }, 'counts-3': { seen: 2 } })
  assert.deepEqual(dropReasons, { 'counts-2-every-second': 1 })
})

test('drop reasons of the chain stand behind those of the engine', () => {
  const drops = (name: string): AnyNfDefinition => defineNf({ name, version: 1, dropReasons: { tooBig: 'a', 'not-nice': 'b' },
    create: () => ({ processPacket: () => Verdict.Forward }) })
  assert.deepEqual(chainOf([drops('x'), drops('y')]).dropReasons,
    [...Object.keys(engineDropReasons), 'x-too-big', 'x-not-nice', 'y-too-big', 'y-not-nice'])
})

test('the fingerprint names what flows must agree in to be exchanged', () => {
  const chains = [
    [withState('a', struct({ n: u8 }))], [withState('b', struct({ n: u8 }))], [withState('a', struct({ n: u16 }))],
    [withState('a', struct({ n: u8 }), true)], [{ ...withState('a', struct({ n: u8 })), version: 2 }],
    [withState('a', struct({ n: u8 })), withState('b', undefined)],
    [withState('b', undefined), withState('a', struct({ n: u8 }))],
  ]
  assert.equal(new Set(chains.map((nfs) => chainOf(nfs).fingerprint)).size, chains.length)
  assert.equal(chainOf(chains[0]).fingerprint, chainOf([withState('a', struct({ n: u8 }))]).fingerprint)
})

test('sixteen functions fit a chain, and no more', () => {
  const nfs = Array.from({ length: CHAIN_NFS_MAX }, (_, i) => sideCounter(`n${i}`))
  const { flows } = runPackets(nfs, [frame])
  assert.ok(Object.values(flows[0].state).every((state) => state.forward === 1))
  assert.throws(() => new TestRuntime([...nfs, sideCounter('one-more')]), { code: 'NF_CONFIG_INVALID' })
})

test('a bypassed function is left out wherever it stands', () => {
  const fails = defineNf({ name: 'fails', version: 1, create: () => ({ processPacket() { throw new Error('always') } }) })
  for (let at = 0; at < 3; at++) {
    const nfs = [sideCounter('a'), sideCounter('b')]
    nfs.splice(at, 0, fails)
    const { flows, outputs } = runPackets(nfs, [frame, frame, frame], { policy: { nfError: 'bypass' } })
    assert.equal(outputs.length, 2)
    assert.deepEqual(nfs.filter((nf) => nf !== fails).map((nf) => flows[0].state[nf.name].forward),
      [at > 0 ? 3 : 2, at > 1 ? 3 : 2])
  }
})

test('create must return what it promises', () => {
  for (const made of [undefined, {}, { processPacket: 1 }]) {
    const empty = defineNf({ name: 'empty', version: 1, create: () => made as never })
    assert.throws(() => new TestRuntime(empty), { code: 'NF_NF_INVALID' })
  }
})

test('records may be made from plain values', () => {
  const says = defineNf({
    name: 'says', version: 1, records: { word: { text: text(8), n: u32, ok: bool, kind: enumeration('a', 'b'), when: time } },
    create: (_config, context) => ({
      processPacket() {
        context.record('word', { text: 'longer than eight', n: 7, ok: true, kind: 'b' })
        context.record('word', {})
        return Verdict.Forward
      },
    }),
  })
  assert.deepEqual(runPackets(says, [frame]).records.map((r) => r.fields), [
    { text: 'longer t', n: 7, ok: true, kind: 'b', when: 0 }, { text: '', n: 0, ok: false, kind: 'a', when: 0 },
  ])
  for (const [event, values] of [['other', {}], ['word', { other: 1 }]] as const) {
    const wrong = defineNf({ name: 'wrong', version: 1, records: { word: { n: u32 } },
      create: (_config, context) => ({
        processPacket() {
          context.record(event as 'word', values as {})
          return Verdict.Forward
        },
      }) })
    assert.match(String(runPackets(wrong, [frame]).errors[0].error), /TypeError/)
  }
})

test('shared state is made once, from the configuration, and seen by all flows', () => {
  let made = 0
  const shares = defineNf({
    name: 'shares', version: 1, config: z.strictObject({ first: z.number().default(5) }), flowState: struct({ n: u32 }),
    sharedState: (config: { first: number }) => { made++; return { next: config.first } },
    create: (_config, { shared }) => ({
      allocateFlowState(state) { state.n = shared.next++ },
      processPacket: () => Verdict.Forward,
    }),
  })
  const { flows } = runPackets(shares, [1, 2, 3].map((sourcePort) => buildFrame({ udp: { sourcePort } })))
  assert.deepEqual([flows.map((f) => f.state.shares.n), made], [[5, 6, 7], 1])
})

test('an index outside an array is a failure of the function, not of the engine', () => {
  const out = defineNf({ name: 'out', version: 1, flowState: struct({ list: array(u8, 2) }),
    create: () => ({ processPacket(_packet, state) { state.list.add(2); return Verdict.Forward } }) })
  const { errors, dropReasons } = runPackets(out, [frame])
  assert.match(String(errors[0].error), /RangeError: index 2/)
  assert.deepEqual(dropReasons, { 'nf-error': 1 })
})
