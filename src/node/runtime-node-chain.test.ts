/** A member of a chain of two replicas at one runtime node whose peers are played: the first, the tail, and what they do when others die. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { flowIdOf } from '../messages/cluster-config.ts'
import {
  AdoptFlowLayout, AdoptFlowReply, AdoptKind, AdoptMember, AdoptMemberPredecessor, AdoptMemberPredecessorIncarnation, AdoptMemberSuccessor,
  AdoptMemberSuccessorIncarnation, AdoptRefusal, AskFlow, AskFlowReply, CommitStep, CommitStepFrames, CommitStepSnapshotBytes, MovingFlow,
  StepsHeld, StepsHeldOutputs,
} from '../messages/replication.ts'
import { AnnounceChain } from '../messages/migration.ts'
import { FlowOpen } from '../messages/placement.ts'
import { frameOf, RuntimeAmongScripts, type RuntimeAmongScriptsOptions } from '../sim/runtime-among-scripts.ts'
import { sideCounter } from '../testing/index.ts'

const flow = flowIdOf(101, 1)
const FRAME_BYTES = 60
const SNAPSHOT_BYTES = 64

function among(options: Partial<RuntimeAmongScriptsOptions> = {}): RuntimeAmongScripts {
  return new RuntimeAmongScripts({ chain: [{ definition: sideCounter(), config: {} }], replication: 'commit', replicas: 2, ...options })
}

/** The node becomes a member of the chain of runtime 12's flow: the first, before runtime 13, or the tail behind it. */
function join(one: RuntimeAmongScripts, place: 'first' | 'tail', epoch = 1): string[] {
  const [id, life] = place === 'first' ? [AdoptMemberSuccessor, AdoptMemberSuccessorIncarnation]
    : [AdoptMemberPredecessor, AdoptMemberPredecessorIncarnation]
  one.say(12, AdoptMember, { flow, epoch, key: 1, node: place === 'tail' ? 1 : 0, code: AdoptKind.settled, tail: new Uint8Array(SNAPSHOT_BYTES),
    words: { [AdoptFlowLayout]: one.node.engine.layoutHash, [id]: 13, [life]: 113 } })
  return one.turn(2).take()
}

/** A step with one frame for switch 1. */
function step(one: RuntimeAmongScripts, from: number, epoch = 1): void {
  const tail = new Uint8Array(SNAPSHOT_BYTES + 8 + 64)
  new DataView(tail.buffer).setUint32(SNAPSHOT_BYTES, FRAME_BYTES, true)
  new DataView(tail.buffer).setUint32(SNAPSHOT_BYTES + 4, 1, true)
  one.say(from, CommitStep, { flow, epoch, words: { [CommitStepSnapshotBytes]: SNAPSHOT_BYTES, [CommitStepFrames]: 1 }, tail })
}

const heldIn = (one: RuntimeAmongScripts): number => {
  const bytes = one.said.get('StepsHeld') as Uint8Array
  return new DataView(bytes.buffer).getUint32(StepsHeldOutputs, true)
}

test('the first hands a step on, keeps it until the tail has it, and then tells the owner', () => {
  const one = among()
  assert.deepEqual(join(one, 'first'), ['AdoptFlowReply 12'])
  one.silent.add(13)
  step(one, 12)
  assert.deepEqual(one.turn(3).take(), [])
  assert.equal(one.node.keptOutputs, 1)
  one.silent.delete(13)
  assert.deepEqual(one.turn(60, 5000).take(), ['CommitStep 13', 'StepsHeld 12'])
  assert.deepEqual([heldIn(one), one.node.keptOutputs], [1, 0])
})

test('a tail takes steps from its predecessor alone, of its generation, and releases them', () => {
  const one = among()
  join(one, 'tail', 5)
  step(one, 12, 5)
  step(one, 13, 4)
  assert.deepEqual(one.turn(2).take(), [])
  assert.deepEqual(one.node.dropReasons(), { 'unknown-replica': 2 })
  step(one, 13, 5)
  assert.deepEqual(one.turn(2).take(), ['packet out 1'])
})

test('a first without slots for a step takes no more of them, and says so when the tail has those before', () => {
  const one = among({ limits: { packets: 48 } })
  join(one, 'first')
  one.silent.add(13)
  for (let n = 0; n < 60; n++) {
    step(one, 12)
    one.turn()
  }
  const kept = one.node.slotsUsed
  assert.ok(kept > 0 && kept <= 48, `${kept} slots`)
  assert.deepEqual(one.take(), ['StepsHeld 12'], 'it has none of them, and says so')
  one.silent.delete(13)
  const said = one.turn(100, 5000).take()
  assert.ok(said.includes(`AdoptFlowReply 12 code ${AdoptRefusal.noRoom}`))
  assert.deepEqual([heldIn(one), one.node.slotsUsed], [kept, 0])
  step(one, 12)
  assert.deepEqual(one.turn(3).take(), [])
})

test('a tail whose owner dies waits for the first; when that one is dead, too, it asks the others', () => {
  const one = among()
  const withoutOwner = one.config.runtimes.filter(({ id }) => id !== 12)
  const empty = [{ id: 14, incarnation: 114, isDraining: false }]
  one.configure({ runtimes: [...one.config.runtimes, ...empty] })
  join(one, 'tail')
  one.configure({ runtimes: [...withoutOwner, ...empty] })
  assert.deepEqual(one.turn(2).take().filter((word) => word.startsWith('AskFlow')), ['AskFlow 13'])
  one.say(13, AskFlowReply, { flow, epoch: 1, code: 3 })
  one.turn(2)
  assert.deepEqual([one.node.replicas, one.node.openSteps.askingOwner], [1, 0])
  // Runtime 14 has not answered.
  one.configure({ runtimes: [one.config.runtimes[0], ...empty] })
  one.turn(2)
  assert.deepEqual([one.node.replicas, one.node.openSteps.askingOwner], [1, 1])
})

test('the first of a chain answers for its tail, and not of another generation', () => {
  const one = among()
  join(one, 'first', 3)
  for (const node of [3, 2]) {
    one.say(13, AskFlow, { flow, epoch: 3, key: 1, node })
    assert.deepEqual(one.turn(2).take(), [`AskFlowReply 13 code ${node === 3 ? 3 : 1}`])
  }
})

test('one that is to be replaced says so even if it has no replica, where it is asked to', () => {
  const one = among()
  one.say(12, MovingFlow, { flow, epoch: 2, node: 12 })
  assert.deepEqual(one.turn(2).take(), [])
  one.say(12, MovingFlow, { flow, epoch: 2, node: 12, code: 1 })
  assert.deepEqual(one.turn(2).take(), ['MovingFlowReply 12'])
})

test('an owner sends nothing before both have the flow, and keeps what it has sent until it hears that the tail has it', () => {
  const one = among()
  const tail = new TextEncoder().encode(JSON.stringify(one.node.engine.layout))
  for (const id of [12, 13]) one.say(id, AnnounceChain, { tail })
  one.turn(2).sayInBand(1, FlowOpen, { flow, epoch: 1, node: 1, key: 1 }).packet(1, frameOf(1)).turn(3)
  assert.deepEqual(one.take().filter((word) => word.startsWith('Adopt')).sort(), ['AdoptMember 12 code 1', 'AdoptMember 13 code 1'])
  one.say(12, AdoptFlowReply, { flow, epoch: 1 })
  assert.deepEqual(one.turn(3).take(), [])
  one.say(13, AdoptFlowReply, { flow, epoch: 1 })
  assert.deepEqual(one.turn(3).take(), ['CommitStep 12'])
  assert.equal(one.node.keptOutputs, 1)
  one.say(12, StepsHeld, { flow, epoch: 2, words: { [StepsHeldOutputs]: 1 } }).turn(2)
  assert.equal(one.node.keptOutputs, 1, 'of another generation')
  one.say(12, StepsHeld, { flow, epoch: 1, words: { [StepsHeldOutputs]: 1 } }).turn(2)
  assert.equal(one.node.keptOutputs, 0)
  one.say(12, AdoptFlowReply, { flow, epoch: 1, code: AdoptRefusal.noRoom })
  assert.deepEqual(one.turn(3).take().sort(), ['MovingFlow 12 code 1', 'MovingFlow 13 code 1'], 'it takes no more: another chain')
})
