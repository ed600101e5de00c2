/** What one turn of a runtime node takes at most, of each kind of work, and how many moves it has under way. docs/limits.md lists the bounds. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { flowIdOf } from '../messages/cluster-config.ts'
import { AnnounceFlow } from '../messages/announcing.ts'
import { AnnounceChain, InstallFlowReply, PrepareFlow, PrepareFlowLayout, PrepareFlowReply, RerouteFlowReply } from '../messages/migration.ts'
import { FlowOpen } from '../messages/placement.ts'
import { defineNf, struct, u32, Verdict } from '../nf/index.ts'
import { frameOf, RuntimeAmongScripts, type RuntimeAmongScriptsOptions } from '../sim/runtime-among-scripts.ts'
import { sideCounter } from '../testing/index.ts'

const idOf = (number: number): number => flowIdOf(101, number)
const flowsTo = (last: number): number[] => Array.from({ length: last }, (_, index) => index + 1)

function among(options: Partial<RuntimeAmongScriptsOptions> = {}): RuntimeAmongScripts {
  return new RuntimeAmongScripts({ chain: [{ definition: sideCounter(), config: {} }], ...options })
}

function open(one: RuntimeAmongScripts, numbers: readonly number[]): void {
  for (const number of numbers) {
    one.sayInBand(1, FlowOpen, { flow: idOf(number), epoch: 1, node: 1, key: number }).packet(1, frameOf(number)).turn()
  }
  one.turn(2).take()
}

/** A turn of all but the node, which comes to it later. */
function arrive(one: RuntimeAmongScripts): void {
  const { poll } = one.node
  Object.assign(one.node, { poll: () => false })
  one.turn()
  Object.assign(one.node, { poll })
}

test('a turn takes a bounded number of control frames; the rest waits in the port', () => {
  const one = among()
  // Each takes a frame of its own. A runtime has no use for them, and counts them.
  const counted = (): number => one.node.anomalies['unexpected-message'] ?? 0
  for (let n = 0; n < 30; n++) for (const id of [1, 2, 12, 13]) one.say(id, AnnounceFlow, { tail: new Uint8Array(1200) })
  arrive(one)
  assert.equal(one.node.poll(one.now), true)
  const first = counted()
  assert.ok(first > 40 && first <= 64, `${first}`)
  one.turn(3)
  assert.equal(counted(), 120)
})

test('a turn takes a bounded number of batches from a link, which in-band messages end', () => {
  const one = among()
  open(one, [1])
  for (let n = 0; n < 100; n++) one.sayInBand(1, FlowOpen, { flow: idOf(1), epoch: 1, node: 1, key: 1 }).packet(1, frameOf(1))
  const { received } = one.node.packets
  assert.equal(one.node.poll(one.now), true)
  const first = one.node.packets.received - received
  assert.ok(first >= 32 && first <= 64, `${first}`)
  one.turn()
  assert.equal(one.node.packets.received - received, 100)
})

test('a turn serves a bounded number of flows and timers that are due; the rest follows', () => {
  let fired = 0
  const ticker = defineNf({
    name: 'ticker', version: 1, flowState: struct({ packets: u32 }),
    create: (_config, context) => ({
      processPacket(_packet, state) {
        if (state.packets++ === 0) context.timer.set(1_000_000)
        return Verdict.Forward
      },
      timerFired() { fired++ },
    }),
  })
  const one = among({ chain: [{ definition: ticker, config: {} }], limits: { flows: 512, packets: 512 }, runtimeLimits: { absentFlows: 512 } })
  open(one, flowsTo(400))
  assert.equal(fired, 0)
  const polls: number[] = []
  for (let now = one.now + 2_000_000; fired < 400 && polls.length < 100;) {
    const before = fired
    one.node.poll(now)
    polls.push(fired - before)
  }
  assert.equal(fired, 400)
  assert.ok(Math.max(...polls) <= 256 && Math.max(...polls) > 100, `${polls}`)
})

/** A flow that is prepared elsewhere goes there. */
function complete(one: RuntimeAmongScripts, number: number): void {
  one.say(12, PrepareFlowReply, { flow: idOf(number), epoch: 2 }).turn()
  for (const id of [1, 2]) one.sayInBand(id, RerouteFlowReply, { flow: idOf(number), epoch: 2 })
  one.turn(2).say(12, InstallFlowReply, { flow: idOf(number), epoch: 2 }).turn(2)
}

test('moves away are 16 at first, and one more for each success, up to the bound', () => {
  const one = among({ runtimeLimits: { movesOut: 18 } })
  open(one, flowsTo(40))
  one.node.setMigrationTarget(12, 40)
  const under = (): number => one.node.moves.out.started - one.node.moves.out.completed
  one.turn(5)
  const seen = [under()]
  const prepared: number[] = []
  for (const number of [...one.node.flows()].filter(({ phase }) => phase === 'preparing').map(({ flow }) => flow % 2 ** 32).slice(0, 4)) {
    prepared.push(number)
    complete(one, number)
    seen.push(under())
  }
  assert.deepEqual([prepared.length, one.node.moves.out.completed, seen], [4, 4, [16, 17, 18, 18, 18]])
})

test('an order for a share of the load moves those flows that make it up: one of two heavy ones, and what is light with it', () => {
  for (const heavy of [[11, 12], [12]]) {
    const one = among({ limits: { packets: 512 } })
    open(one, flowsTo(14))
    for (let round = 0; round < 60; round++) {
      for (const number of heavy) for (let n = 0; n < 8; n++) one.packet(1, frameOf(number))
      one.packet(1, frameOf(1 + round % 10)).turn(2, 1000)
    }
    one.take()
    assert.ok(one.node.setMigrationTarget(12, 7, 0.5).accepted)
    one.turn(20, 1000)
    const moving = [...one.node.flows()].filter(({ phase }) => phase === 'preparing').map(({ flow }) => flow % 2 ** 32)
    const moved = heavy.filter((number) => moving.includes(number))
    if (heavy.length === 2) assert.ok(moved.length === 1 && moving.length <= 9, String(moving))
    // One that is all there is stays, and the others leave it.
    else assert.deepEqual([moved, moving.length], [[], 13])
    assert.equal(one.node.movesOpen, moving.length)
  }
})

test('an order for a share goes by the number where nobody is heavy, and spares nobody in orders by number alone', () => {
  const one = among({ limits: { packets: 512 } })
  open(one, flowsTo(14))
  const moving = (): number => [...one.node.flows()].filter(({ phase }) => phase === 'preparing').length
  one.node.setMigrationTarget(12, 4, 0.25)
  one.turn(20, 1000)
  assert.equal(moving(), 4)
  for (let round = 0; round < 60; round++) {
    for (let n = 0; n < 8; n++) one.packet(1, frameOf(12))
    one.turn(2, 1000)
  }
  one.node.setMigrationTarget(12, 10)
  one.turn(20, 1000)
  assert.equal(moving(), 14)
})

test('flows that come are bounded to half of those that may be absent, whatever room there is', () => {
  const one = among({ runtimeLimits: { absentFlows: 8 } })
  for (const number of flowsTo(6)) {
    one.say(12, PrepareFlow, { flow: idOf(number), epoch: 2, key: number, words: { [PrepareFlowLayout]: one.node.engine.layoutHash } })
  }
  assert.deepEqual(one.turn(3).take().map((line) => line.length > 'PrepareFlowReply 12'.length), [false, false, false, false, true, true])
  // The other half is for those that open.
  for (const number of [11, 12, 13, 14]) one.sayInBand(1, FlowOpen, { flow: idOf(number), epoch: 1, node: 1, key: number })
  assert.deepEqual([one.turn(2).node.openSteps.opening, one.node.anomalies], [4, {}])
})

test('long outputs that replicas have not acknowledged take half of the large slots, and no more packets are read', () => {
  const one = among({ replication: 'commit', limits: { packets: 1024, largePackets: 60 } })
  one.say(12, AnnounceChain, { tail: new TextEncoder().encode(JSON.stringify(one.node.engine.layout)) }).turn(2)
  open(one, [1])
  // It takes what it is sent, and never says that it has the flow.
  for (let n = 0; n < 60; n++) one.packet(1, frameOf(1, 'x'.repeat(3000))).turn(2, 5000)
  const { received, buffered } = one.node.packets
  const waiting = one.node.keptOutputs + buffered
  assert.ok(waiting >= 30 && waiting <= 30 + 32, `${waiting} wait`)
  assert.ok(received < 61, `${received} were read`)
  assert.deepEqual(one.node.dropReasons(), {})
})
