/** A runtime node with replicas at two peers that are played, one of which takes nothing any more. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { flowIdOf } from '../messages/cluster-config.ts'
import { AbortFlowReply, AnnounceChain, Go, PrepareFlowReply, RerouteFlowReply } from '../messages/migration.ts'
import { FlowOpen } from '../messages/placement.ts'
import { AdoptFlowReply, MovingFlowReply, StepsHeld, StepsHeldOutputs } from '../messages/replication.ts'
import { frameOf, RuntimeAmongScripts } from '../sim/runtime-among-scripts.ts'
import { sideCounter } from '../testing/index.ts'

const FLOWS = 10
const FLOW = flowIdOf(101, 1)

/** Ten flows, each with a replica, or the first of two, at 12 or at 13, in turn. */
function guarding(replicas = 1): RuntimeAmongScripts {
  const one = new RuntimeAmongScripts({ chain: [{ definition: sideCounter(), config: {} }], replication: 'commit', limits: { packets: 64 },
    times: { slowReplicaUs: 5000 }, replicas })
  const tail = new TextEncoder().encode(JSON.stringify(one.node.engine.layout))
  for (const id of [12, 13]) one.say(id, AnnounceChain, { tail })
  one.turn(2)
  for (let number = 1; number <= FLOWS; number++) {
    one.sayInBand(1, FlowOpen, { flow: flowIdOf(101, number), epoch: 1, node: 1, key: number }).turn().packet(1, frameOf(number)).turn(3)
    for (const id of [12, 13]) one.say(id, AdoptFlowReply, { flow: flowIdOf(101, number), epoch: 1 })
    one.turn(2)
  }
  one.take()
  return one
}

/** A packet of each flow; how many steps go to each replica. */
function round(one: RuntimeAmongScripts, turns = 5): { 12: number; 13: number } {
  for (let number = 1; number <= FLOWS; number++) one.packet(1, frameOf(number))
  const said = one.turn(turns).take()
  return { 12: said.filter((line) => line === 'CommitStep 12').length, 13: said.filter((line) => line === 'CommitStep 13').length }
}

/** Runtime 13 takes nothing, until the packets that wait for it have stopped the node for longer than it may be slow. */
function slow(one: RuntimeAmongScripts): void {
  one.silent.add(13)
  for (let i = 0; i < 20; i++) round(one, 1)
  assert.deepEqual([round(one, 1), one.node.dropReasons()], [{ 12: 0, 13: 0 }, {}], 'nothing is read while too much waits')
  one.turn(100).take()
  assert.ok((one.node.dropReasons()['replica-slow'] ?? 0) > 0)
}

test('a replica that takes nothing stops all flows for a while, and then its own alone, until it goes on', () => {
  const one = guarding()
  assert.deepEqual(round(one), { 12: 5, 13: 5 })
  slow(one)
  const dropped = one.node.dropReasons()['replica-slow'] as number
  assert.deepEqual(round(one), { 12: 5, 13: 0 })
  assert.equal(one.node.dropReasons()['replica-slow'], dropped + 5)
  one.silent.delete(13)
  one.turn(200).take()
  assert.equal(one.node.keptOutputs, 0)
  assert.deepEqual(round(one), { 12: 5, 13: 5 })
  assert.equal(one.node.dropReasons()['replica-slow'], dropped + 5)
})

test('flows of a slow replica that is fenced get another one and go on', () => {
  const one = guarding()
  slow(one)
  const dropped = one.node.dropReasons()
  one.configure({ runtimes: one.config.runtimes.filter(({ id }) => id !== 13) })
  one.turn(3)
  const guarded = [2, 4, 6, 8, 10].map((number) => flowIdOf(101, number))
  for (const flow of guarded) one.say(12, AdoptFlowReply, { flow, epoch: 2 })
  one.turn(3)
  for (const flow of guarded) for (const id of [1, 2]) one.sayInBand(id, RerouteFlowReply, { flow, epoch: 2 }).say(id, Go, { flow, epoch: 2 })
  one.turn(10).take()
  assert.deepEqual([round(one)[12], one.node.dropReasons()], [FLOWS, dropped])
})

test('a slow replica gets no more flows', () => {
  const one = guarding()
  slow(one)
  for (let number = 11; number <= 14; number++) {
    one.sayInBand(1, FlowOpen, { flow: flowIdOf(101, number), epoch: 1, node: 1, key: number }).turn().packet(1, frameOf(number)).turn(3)
  }
  assert.deepEqual(one.take().filter((line) => line.startsWith('AdoptFlow')), Array(4).fill('AdoptFlow 12 code 1'))
})

test('a flow that is to have two replicas keeps the one that it has while the only other one is slow, and gets the second afterwards', () => {
  const one = guarding(2)
  for (const number of [1, 3, 5, 7, 9]) one.say(12, StepsHeld, { flow: flowIdOf(101, number), epoch: 1, words: { [StepsHeldOutputs]: 1 } })
  one.turn().silent.add(13)
  // Those of which 13 is the first.
  for (let i = 0; i < 20; i++) for (const number of [2, 4, 6, 8, 10]) one.packet(1, frameOf(number)).turn(1)
  one.turn(100)
  assert.ok((one.node.dropReasons()['replica-slow'] ?? 0) > 0)
  const flow = flowIdOf(101, 11)
  one.sayInBand(1, FlowOpen, { flow, epoch: 1, node: 1, key: 11 }).turn().packet(1, frameOf(11)).turn(3)
  assert.deepEqual(one.take().filter((line) => line.startsWith('Adopt')), ['AdoptFlow 12 code 1'])
  one.say(12, AdoptFlowReply, { flow, epoch: 1 }).turn(100)
  assert.deepEqual(one.take().filter((line) => /MovingFlow|Adopt|RerouteFlow/.test(line)), [], 'it is not secured with the same one again')
  assert.equal(one.node.replicaOf(flow), 12)
  one.silent.delete(13)
  one.turn(300).say(13, StepsHeld, { flow: flowIdOf(101, 2), epoch: 1, words: { [StepsHeldOutputs]: 2 } }).take()
  assert.ok(one.turn(10).take().includes('MovingFlow 12 code 1'))
})

test('a flow goes on whose replica has had nothing to acknowledge yet, while the only one that has had takes nothing', () => {
  const one = new RuntimeAmongScripts({ chain: [{ definition: sideCounter(), config: {} }], replication: 'commit', limits: { packets: 64 },
    times: { slowReplicaUs: 5000 } })
  const tail = new TextEncoder().encode(JSON.stringify(one.node.engine.layout))
  const open = (number: number): void => {
    one.sayInBand(1, FlowOpen, { flow: flowIdOf(101, number), epoch: 1, node: 1, key: number }).turn().packet(1, frameOf(number)).turn(3)
  }
  // Its first packet left when there was no replica to be had.
  open(1)
  one.say(12, AnnounceChain, { tail }).turn(3)
  one.say(12, AdoptFlowReply, { flow: FLOW, epoch: 2 }).turn(3)
  for (const id of [1, 2]) one.sayInBand(id, RerouteFlowReply, { flow: FLOW, epoch: 2 }).say(id, Go, { flow: FLOW, epoch: 2 })
  one.say(13, AnnounceChain, { tail }).turn(3)
  open(2)
  one.say(13, AdoptFlowReply, { flow: flowIdOf(101, 2), epoch: 1 }).turn(3)
  assert.deepEqual([FLOW, flowIdOf(101, 2)].map((flow) => one.node.replicaOf(flow)), [12, 13])
  one.silent.add(13)
  for (let packet = 0; packet < 60; packet++) one.packet(1, frameOf(2)).turn(1, 10)
  one.take()
  one.packet(1, frameOf(1)).turn(10, 10)
  assert.ok(!one.take().includes('CommitStep 12'), 'nothing is read while too much waits')
  one.turn(100)
  assert.ok(one.take().includes('CommitStep 12'))
  assert.ok((one.node.dropReasons()['replica-slow'] ?? 0) > 0)
})

/** A flow with a replica at 12, which may have died since, whose move to 13 is called off, for no switch has answered. */
function goingBack(isFenced: boolean, packets?: number): RuntimeAmongScripts {
  const one = new RuntimeAmongScripts({ chain: [{ definition: sideCounter(), config: {} }], replication: 'commit',
    limits: packets === undefined ? {} : { packets }, times: { slowReplicaUs: 5000, moveTimeoutUs: 5000 },
    runtimeLimits: { unacknowledged: 12 } })
  const tail = new TextEncoder().encode(JSON.stringify(one.node.engine.layout))
  one.say(12, AnnounceChain, { tail }).turn(2)
  one.sayInBand(1, FlowOpen, { flow: FLOW, epoch: 1, node: 1, key: 1 }).packet(1, frameOf(1)).turn(3)
  one.say(12, AdoptFlowReply, { flow: FLOW, epoch: 1 }).say(13, AnnounceChain, { tail }).turn(3)
  one.node.setMigrationTarget(13, 1)
  one.turn(2).say(13, PrepareFlowReply, { flow: FLOW, epoch: 2 }).turn(2).say(12, MovingFlowReply, { flow: FLOW, epoch: 2, node: 13 }).turn(3)
  if (isFenced) one.configure({ runtimes: one.config.runtimes.filter(({ id }) => id !== 12) })
  one.turn(3, 5000)
  assert.equal(one.node.openSteps.aborting, 1)
  for (let packet = 0; packet < 40; packet++) one.packet(1, frameOf(1)).turn(1, 10)
  return one
}

/** All that the move waits for comes, behind those packets. */
function goneBack(one: RuntimeAmongScripts): void {
  for (const id of [1, 2]) one.sayInBand(id, RerouteFlowReply, { flow: FLOW, epoch: 2 })
  one.turn(20, 1000).say(13, AbortFlowReply, { flow: FLOW, epoch: 3 })
  assert.equal(one.turn(3).node.packets.received, 41)
  assert.equal(one.node.openSteps.aborting, 0)
}

test('outputs of a flow whose move is called off wait until that has ended, and do not keep what it waits for from being read', () => {
  for (const isFenced of [false, true]) {
    const one = goingBack(isFenced)
    assert.equal(one.node.packets.received, 41)
    goneBack(one)
    assert.deepEqual([one.node.openSteps.securing, one.node.dropReasons()], [isFenced ? 1 : 0, {}])
  }
})

test('where they take half of the packet slots nothing is read, until their replica, which is dead, is slow', () => {
  const one = goingBack(true, 48)
  const { received } = one.node.packets
  assert.ok(received < 30, `${received} have been read`)
  goneBack(one)
  assert.equal(one.node.openSteps.securing, 1)
})
