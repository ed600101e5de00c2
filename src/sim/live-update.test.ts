/**
 * Live update through moves: runtimes whose chains have a network function in different versions. What a runtime tells others of its
 * chain (AnnounceChain) is all that a target needs to take over flows of the older version through the newer one's `upgrade`; a flow
 * that the target cannot take stays where it is, as it was.
 */

import { test } from 'node:test'
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { ChainMember } from '../nf/chain.ts'
import type { AnyNfDefinition } from '../nf/definition.ts'
import { chain, defineNf, struct, text, time, u16, u32, u64, Verdict } from '../nf/index.ts'
import { FlowRecord } from '../flow/flow-record.ts'
import { decodeCapture } from '../testing/corpus/capture-frames.ts'
import { buildFrame, layersOf } from '../testing/index.ts'
import { trafficOf } from './capture-traffic.ts'
import { ManualCluster } from './manual-cluster.ts'
import { runMovingCluster } from './moving-cluster.ts'
import { movedDifference } from './moving-outcome.ts'

const before = struct({ packets: u32, since: time, lastWord: text(8), log: chain({ blocks: 4 }) })

/** Counts packets, in one word. */
const versionOne = defineNf({
  name: 'tally', version: 1, flowState: before,
  create: (_config, { flow }) => ({
    processPacket(packet, state) {
      if (state.packets++ === 0) state.since = flow.firstSeen
      state.lastWord.copyFrom(packet.payloadOffset, packet.payloadLength)
      state.log.append(packet.payloadOffset, Math.min(packet.payloadLength, 16))
      return Verdict.Forward
    },
  }),
})

/** Counts packets of each direction; those that an older version has counted apart. */
function versionTwo(upgradesFrom: number): AnyNfDefinition {
  return defineNf({
    name: 'tally', version: 2,
    flowState: struct({ lastWord: text(12), older: u64, forward: u32, reverse: u32, since: time, marks: u16 }),
    upgrades: [{ from: upgradesFrom, flowState: before, upgrade(old, now) {
      now.older = old['packets']
      now.since = old['since']
      now.lastWord.write(String(old['lastWord']))
      now.marks = 7
    } }],
    create: (_config, { flow }) => ({
      processPacket(packet, state) {
        if (state.since === 0) state.since = flow.firstSeen
        if (packet.direction === 0) state.forward++
        else state.reverse++
        state.lastWord.copyFrom(packet.payloadOffset, packet.payloadLength)
        return Verdict.Forward
      },
    }),
  })
}

const member = (definition: AnyNfDefinition): ChainMember[] => [{ definition, config: {} }]
const there = (n: number): Uint8Array =>
  buildFrame({ source: '10.0.0.1', destination: '10.0.0.2', udp: { sourcePort: 7, destinationPort: 53, payload: `there ${n}` } })
const back = (n: number): Uint8Array =>
  buildFrame({ source: '10.0.0.2', destination: '10.0.0.1', udp: { sourcePort: 53, destinationPort: 7, payload: `back ${n}` } })
const payloads = (frames: readonly Uint8Array[]): string[] => frames.map((frame) => {
  const { transport, end } = layersOf(frame)
  return String.fromCharCode(...frame.subarray(transport + 8, end))
})

/** The only flow's state at a runtime, or null. */
function stateAt(cluster: ManualCluster, id: number): Record<string, unknown> | null {
  const { engine } = cluster.runtime(id)
  const [record] = [...engine.flows()]
  const nf = engine.chain.nfs[0]
  return record === undefined || nf === undefined ? null
    : nf.definition.flowState.decode({ arena: engine.arena, extents: engine.extents }, record + nf.stateOffset)
}

/** A cluster whose first flow is at a runtime with `source`, the other runtime having `target`. */
function clusterOf(source: AnyNfDefinition, target: AnyNfDefinition): { cluster: ManualCluster; from: number; to: number } {
  for (const from of [11, 12]) {
    const cluster = new ManualCluster({ chain: (id) => member(id === from ? source : target) })
    cluster.turn(10)
    cluster.inject('ingress', there(1))
    cluster.turn(5)
    if (stateAt(cluster, from) !== null) return { cluster, from, to: from === 11 ? 12 : 11 }
    cluster.dispose()
  }
  throw new Error('the first flow goes to neither runtime')
}

/** Orders the flow to move while packets come from both sides; 20 of them in all. */
function moveUnderTraffic(cluster: ManualCluster, from: number, to: number): void {
  cluster.inject('egress', back(1))
  cluster.turn(5)
  assert.deepEqual(cluster.runtime(from).setMigrationTarget(to, 1), { accepted: true, code: '' })
  for (let n = 2; n <= 10; n++) {
    cluster.inject('ingress', there(n))
    cluster.inject('egress', back(n))
    cluster.turn(1)
  }
  cluster.turn(20)
  const numbers = Array.from({ length: 10 }, (_, i) => i + 1)
  assert.deepEqual(payloads(cluster.left.egress), numbers.map((n) => `there ${n}`))
  assert.deepEqual(payloads(cluster.left.ingress), numbers.map((n) => `back ${n}`))
}

test('a flow that moves to a runtime with a newer version goes on there with its state upgraded', () => {
  const { cluster, from, to } = clusterOf(versionOne, versionTwo(1))
  assert.ok(cluster.messages.some((m) => m.name === 'AnnounceChain' && m.from === from && m.to === to))
  const { since } = stateAt(cluster, from) as { since: number }
  moveUnderTraffic(cluster, from, to)
  assert.equal(stateAt(cluster, from), null)
  const state = stateAt(cluster, to) as Record<string, number>
  assert.equal(state['marks'], 7)
  // Clocks differ between runtimes: for the state no time passes while it is on its way.
  assert.ok(Math.abs((state['since'] as number) - since) < 0.001)
  assert.equal(state['lastWord'], 'back 10')
  const { older = 0, forward = 0, reverse = 0 } = state
  assert.equal(older + forward + reverse, 20, 'each packet is counted by one of the versions')
  assert.ok(older >= 2 && forward > 0 && reverse > 0, JSON.stringify(state))
  assert.deepEqual([cluster.runtime(from).moves.out.completed, cluster.runtime(to).engine.extents.used,
    cluster.runtime(from).engine.extents.used], [1, 0, 0], 'extents of the older version are freed')
  cluster.dispose()
})

for (const [what, source, target] of [
  ['the newer version upgrades from another version', versionOne, versionTwo(5)],
  ['the target has the older version', versionTwo(1), versionOne],
  ['the target has another function', versionOne, { ...versionTwo(1), name: 'other' }],
] as const) {
  test(`a flow that its target cannot take stays as it was: ${what}`, () => {
    const { cluster, from, to } = clusterOf(source, target)
    moveUnderTraffic(cluster, from, to)
    const state = stateAt(cluster, from) as Record<string, number>
    const { packets = 0, forward = 0, reverse = 0, older } = state
    assert.deepEqual([packets + forward + reverse, older ?? 0, state['lastWord']], [20, 0, 'back 10'])
    const { engine, moves } = cluster.runtime(from)
    const [record] = [...engine.flows()]
    assert.equal(engine.arena.f64[((record as number) + FlowRecord.packets) >> 3], 20)
    assert.deepEqual([moves.out.completed, moves.refusals], [0, { otherChain: 1 }])
    assert.ok(!cluster.messages.some(({ name }) => name === 'RerouteFlow'), 'refused before anything is said to a switch')
    assert.deepEqual([stateAt(cluster, to), cluster.runtime(to).engine.extents.used, cluster.runtime(to).slotsUsed], [null, 0, 0])
    // It may go on to be moved: the refusal has left nothing behind.
    moveAgain(cluster, from, to)
    cluster.dispose()
  })
}

function moveAgain(cluster: ManualCluster, from: number, to: number): void {
  cluster.runtime(from).setMigrationTarget(to, 1)
  cluster.turn(20)
  assert.equal(cluster.runtime(from).moves.out.refused, 2)
  cluster.inject('ingress', there(11))
  cluster.turn(5)
  assert.equal(payloads(cluster.left.egress).at(-1), 'there 11')
  for (const id of [1, 2]) {
    assert.deepEqual([...cluster.switch(id).flows()].map(({ owner, phase }) => [owner, phase]), [[from, 'active']])
  }
}

test('captures go through a cluster in which one runtime after another is updated', () => {
  const file = join(import.meta.dirname, '../../examples/captures/web.pcap.gz')
  const traffic = trafficOf(decodeCapture(new Uint8Array(readFileSync(file))), { gapUsMin: 40, gapUsMax: 250 }, 400)
  const run = (seed: number, movesPerCent: number) => runMovingCluster({ traffic, seed, movesPerCent, switches: 2,
    chain: (id) => member(id === 11 ? versionOne : versionTwo(1)) })
  const [still, moved] = [run(0, 0), run(3, 60)]
  // States differ: in which version a flow ends is what moves are about.
  const without = { flows: new Map<string, string[]>(), faults: [] }
  assert.equal(movedDifference({ ...still, ...without }, { ...moved, ...without }), '')
  assert.deepEqual([still.faults, moved.faults], [[], []])
  assert.ok(moved.moves.completed > 20 && moved.moves.refused > 0, JSON.stringify(moved.moves))
  for (const [key, lines] of moved.flows) {
    for (const line of lines) {
      const [, packets = '', state = ''] = /(\d+) packets.*?(\{.*\})$/.exec(line) ?? []
      const tally = (JSON.parse(state) as { tally: Record<string, number> }).tally
      const { packets: one = 0, older = 0, forward = 0, reverse = 0 } = tally
      assert.equal(one + older + forward + reverse, Number(packets), `${key}: ${line}`)
    }
  }
})
