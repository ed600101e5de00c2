/** Replication at one runtime node whose peers are played: what it takes and refuses, and its bounds. docs/limits.md lists them. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CloseFlowReply, FlowClosedReleaserIncarnation } from '../messages/closing.ts'
import { flowIdOf } from '../messages/cluster-config.ts'
import { StopPlacing } from '../messages/announcing.ts'
import { MessageField } from '../messages/message.ts'
import {
  AbortFlow, AbortFlowReply, AnnounceChain, Go, GoReleased, PrepareFlow, PrepareFlowLayout, PrepareFlowReplica, PrepareFlowReplicaIncarnation,
  PrepareFlowReply, RerouteFlowReply,
} from '../messages/migration.ts'
import { BindOwnerIncarnation, FlowOpen } from '../messages/placement.ts'
import {
  AdoptFlow, AdoptFlowAliases, AdoptFlowLayout, AdoptFlowReply, AdoptKind, AdoptRefusal, AskFlow, AskFlowConfigVersion, AskFlowReply, CommitStep,
  AdoptMember, AdoptMemberPredecessor, AdoptMemberPredecessorIncarnation, CommitStepFrames, CommitStepSnapshotBytes, ForgetFlow, HurryFlow,
  MovingFlow, MovingFlowReply, RetireFlow, RetireKind, YieldFlow,
} from '../messages/replication.ts'
import { frameOf, RuntimeAmongScripts, SELF, type RuntimeAmongScriptsOptions, type Words } from '../sim/runtime-among-scripts.ts'
import { sideCounter } from '../testing/index.ts'

const idOf = (number: number): number => flowIdOf(101, number)

function among(options: Partial<RuntimeAmongScriptsOptions> = {}): RuntimeAmongScripts {
  return new RuntimeAmongScripts({ chain: [{ definition: sideCounter(), config: {} }], replication: 'commit', ...options })
}

/** Runtime 12 wants a replica of a flow to be kept here. */
function adopt(one: RuntimeAmongScripts, number: number, more: Words = {}): string[] {
  one.say(12, AdoptFlow, { flow: idOf(number), epoch: 1, node: 1, key: number, code: AdoptKind.settled, tail: new Uint8Array(64), ...more,
    words: { [AdoptFlowLayout]: one.node.engine.layoutHash, ...more.words } })
  return one.turn(2).take()
}

/** The tail of a step: a snapshot of so many bytes, then frames for switch 1. */
function stepOf(snapshotBytes: number, ...lengths: number[]): { words: Record<number, number>; tail: Uint8Array } {
  const padded = (bytes: number): number => (bytes + 7) & ~7
  const tail = new Uint8Array(padded(snapshotBytes) + lengths.reduce((sum, length) => sum + 8 + padded(length), 0))
  const view = new DataView(tail.buffer)
  let at = padded(snapshotBytes)
  for (const length of lengths) {
    view.setUint32(at, length, true)
    view.setUint32(at + 4, 1, true)
    at += 8 + padded(length)
  }
  return { words: { [CommitStepSnapshotBytes]: snapshotBytes, [CommitStepFrames]: lengths.length }, tail }
}

const refused = (refusal: number): string[] => [`AdoptFlowReply 12 code ${refusal}`]

test('a replica is kept, releases its steps, says when it was the last, and is forgotten', () => {
  const one = among()
  assert.deepEqual(adopt(one, 1, { code: AdoptKind.opening }).sort(), ['=Bind 1', '=Bind 2', 'AdoptFlowReply 12'])
  const bind = one.said.get('=Bind')?.slice()
  assert.equal(new DataView(bind?.buffer as ArrayBuffer).getUint32(BindOwnerIncarnation, true), 112, 'the life that it is about')
  one.say(12, CommitStep, { flow: idOf(1), epoch: 1, ...stepOf(64, 60, 61) })
  assert.deepEqual(one.turn(2).take(), ['packet out 1', 'packet out 1'])
  one.say(12, RetireFlow, { flow: idOf(1), epoch: 2 })
  assert.deepEqual(one.turn(2).take(), ['=Drained 1', '=Drained 2'])
  assert.equal(one.node.replicas, 1)
  one.say(12, ForgetFlow, { flow: idOf(1) }).turn()
  assert.equal(one.node.replicas, 0)
})

test('replicas are bounded; one that makes no sense is refused with a reason, and changes nothing', () => {
  const one = among({ runtimeLimits: { replicas: 2 } })
  assert.deepEqual(adopt(one, 1, { words: { [AdoptFlowLayout]: 77 } }), refused(AdoptRefusal.otherChain))
  one.sayInBand(1, FlowOpen, { flow: idOf(9), epoch: 1, node: 1, key: 9 }).packet(1, frameOf(9)).turn(2).take()
  assert.deepEqual(adopt(one, 9), refused(AdoptRefusal.itself), 'it is our own flow')
  assert.deepEqual(adopt(one, 1, { epoch: 5 }), ['AdoptFlowReply 12'])
  assert.deepEqual(adopt(one, 1, { epoch: 4 }), refused(AdoptRefusal.stale))
  assert.deepEqual(adopt(one, 2), ['AdoptFlowReply 12'])
  assert.deepEqual(adopt(one, 3), refused(AdoptRefusal.noRoom))
  assert.deepEqual(adopt(one, 1, { epoch: 6 }), ['AdoptFlowReply 12'], 'one that is there may be renewed')
  assert.equal(one.node.replicas, 2)
})

test('steps and replicas whose parts are not in their message, or that nobody knows, are counted and ignored', () => {
  const one = among()
  adopt(one, 1)
  assert.deepEqual(adopt(one, 2, { words: { [AdoptFlowAliases]: 99 } }), [])
  const whole = stepOf(64, 60)
  const wrong = [
    { ...whole, words: { ...whole.words, [CommitStepFrames]: 2 } },
    { ...whole, words: { ...whole.words, [CommitStepFrames]: 0 } },
    { ...whole, words: { ...whole.words, [CommitStepSnapshotBytes]: 4000 } },
    { ...whole, tail: whole.tail.subarray(0, whole.tail.length - 8) },
  ]
  for (const step of wrong) one.say(12, CommitStep, { flow: idOf(1), epoch: 1, ...step })
  assert.deepEqual(one.turn(2).take(), [])
  assert.equal(one.node.anomalies['malformed-message'], 1 + wrong.length)
  one.say(12, CommitStep, { flow: idOf(7), epoch: 1, ...whole }).say(13, CommitStep, { flow: idOf(1), epoch: 1, ...whole })
  assert.deepEqual(one.turn(2).take(), [])
  assert.deepEqual(one.node.dropReasons(), { 'unknown-replica': 2 })
})

/** A flow is guarded by runtime 12, which then does nothing. */
function amongSilent(limits: RuntimeAmongScriptsOptions['limits']): RuntimeAmongScripts {
  const one = among({ limits })
  one.say(12, AnnounceChain, { tail: new TextEncoder().encode(JSON.stringify(one.node.engine.layout)) }).turn(2)
  one.sayInBand(1, FlowOpen, { flow: idOf(1), epoch: 1, node: 1, key: 1 }).packet(1, frameOf(1)).turn(3)
  assert.ok(one.take().includes('AdoptFlow 12 code 1'))
  one.silent.add(12)
  return one
}

test('replicas are kept on another machine, by turns, and on ours only where there is no other', () => {
  const guards = (isApart?: (runtime: number) => boolean): string[] => {
    const one = among({ ...isApart !== undefined && { isApart } })
    for (const id of [12, 13]) one.say(id, AnnounceChain, { tail: new TextEncoder().encode(JSON.stringify(one.node.engine.layout)) })
    one.turn(2)
    for (const flow of [1, 2, 3, 4]) {
      one.sayInBand(1, FlowOpen, { flow: idOf(flow), epoch: 1, node: 1, key: flow }).packet(1, frameOf(flow)).turn(3)
    }
    return one.take().filter((text) => text.startsWith('AdoptFlow '))
  }
  const by = (...runtimes: number[]): string[] => runtimes.map((id) => `AdoptFlow ${id} code 1`)
  assert.deepEqual(guards(), by(12, 13, 12, 13))
  assert.deepEqual(guards((id) => id === 13), by(13, 13, 13, 13))
  assert.deepEqual(guards(() => false), by(12, 13, 12, 13))
  assert.deepEqual(guards(() => true), by(12, 13, 12, 13))
})

test('a replica that is on our machine for want of others goes to another one when that has a runtime, and is told so first', () => {
  const one = among({ isApart: (id) => id === 13 })
  const announce = (id: number): void => {
    one.say(id, AnnounceChain, { tail: new TextEncoder().encode(JSON.stringify(one.node.engine.layout)) }).turn(2)
  }
  announce(12)
  one.sayInBand(1, FlowOpen, { flow: idOf(1), epoch: 1, node: 1, key: 1 }).packet(1, frameOf(1)).turn(3)
  assert.ok(one.take().includes('AdoptFlow 12 code 1'))
  one.say(12, AdoptFlowReply, { flow: idOf(1), epoch: 1 }).turn(3).take()
  announce(13)
  assert.deepEqual(one.turn(3).take().filter((text) => /MovingFlow|AdoptFlow /.test(text)), ['MovingFlow 12'])
  one.say(12, MovingFlowReply, { flow: idOf(1), epoch: 2 }).turn(3)
  assert.deepEqual(one.take().filter((text) => text.startsWith('AdoptFlow ')), ['AdoptFlow 13'])
})

test('a flow ends behind the last packet of the replica that releases its packets: switches hear whose word to wait for', () => {
  const one = among({ timeouts: { udp: 1 } })
  one.say(12, AnnounceChain, { tail: new TextEncoder().encode(JSON.stringify(one.node.engine.layout)) }).turn(2)
  one.sayInBand(1, FlowOpen, { flow: idOf(1), epoch: 1, node: 1, key: 1 }).packet(1, frameOf(1)).turn(3)
  one.say(12, AdoptFlowReply, { flow: idOf(1), epoch: 1 }).turn(3).take()
  assert.deepEqual(one.turn(20, 100_000).take(), ['CloseFlow 1', 'CloseFlow 2'])
  for (const id of [1, 2]) one.sayInBand(id, CloseFlowReply, { flow: idOf(1), epoch: 1 })
  assert.deepEqual(one.turn(3).take().sort(), ['=FlowClosed 1 code 1', '=FlowClosed 2 code 1', `RetireFlow 12 code ${RetireKind.last}`])
  const view = (name: string): DataView => new DataView(one.said.get(name)?.slice().buffer as ArrayBuffer)
  assert.equal(view('=FlowClosed').getUint16(MessageField.node, true), 12)
  assert.equal(view('=FlowClosed').getUint32(FlowClosedReleaserIncarnation, true), 112)
  assert.equal(view('RetireFlow').getUint32(MessageField.epoch, true), 2)
})

test('outputs that their replica does not take are bounded: then no more packets are read', () => {
  const one = amongSilent({ packets: 1024 })
  for (let n = 0; n < 1200; n++) {
    one.packet(1, frameOf(1))
    if (n % 16 === 0) one.turn()
  }
  one.turn(10)
  const { received, buffered } = one.node.packets
  assert.ok(buffered >= 256 && buffered < 256 + 64, `${buffered} wait`)
  assert.ok(received < 1201)
  one.silent.delete(12)
  one.turn(60, 5000)
  assert.ok(one.node.keptOutputs >= 512 && one.node.keptOutputs < 1024, 'nor while what it has not said to have fills half of the slots')
  assert.ok(one.node.packets.received < 1201)
  one.say(12, AdoptFlowReply, { flow: idOf(1), epoch: 1 }).turn(60, 5000)
  assert.equal(one.node.keptOutputs, 0)
  assert.equal(one.node.packets.received, 1201)
  assert.equal(one.node.packets.handedOver, 1201)
  assert.deepEqual(one.node.dropReasons(), {})
})

test('long outputs that their replica does not take are bounded by their bytes, and by half of the large slots', () => {
  const one = amongSilent({ largePackets: 300 })
  const frame = frameOf(1, 'x'.repeat(11_000))
  for (let n = 0; n < 400; n++) {
    one.packet(1, frame)
    if (n % 16 === 0) one.turn()
  }
  one.turn(10)
  const { received, buffered } = one.node.packets
  assert.ok(buffered * frame.length >= 1 << 20 && (buffered - 32) * frame.length < 1 << 20, `${buffered} wait`)
  assert.ok(received < 401)
  one.silent.delete(12)
  one.turn(200, 5000)
  assert.ok(one.node.keptOutputs >= 150 && one.node.keptOutputs < 290 && one.node.packets.received < 401, `${one.node.keptOutputs} are kept`)
  one.say(12, AdoptFlowReply, { flow: idOf(1), epoch: 1 }).turn(600, 5000)
  assert.deepEqual([one.node.keptOutputs, one.node.packets.received, one.node.packets.handedOver], [0, 401, 401])
  assert.deepEqual(one.node.dropReasons(), {})
})

/** A flow here with a replica at 12; 13 could keep it, too. */
function guarded(number = 1, options: Partial<RuntimeAmongScriptsOptions> = {}): RuntimeAmongScripts {
  const one = among(options)
  const tail = new TextEncoder().encode(JSON.stringify(one.node.engine.layout))
  one.say(12, AnnounceChain, { tail }).turn(2)
  one.sayInBand(1, FlowOpen, { flow: idOf(number), epoch: 1, node: 1, key: number }).packet(1, frameOf(number)).turn(3)
  one.say(12, AdoptFlowReply, { flow: idOf(number), epoch: 1 }).say(13, AnnounceChain, { tail }).turn(3).take()
  return one
}

test('a keeper that is to become empty hears that it is replaced, before another has the flow', () => {
  const one = guarded()
  one.say(12, StopPlacing, { code: 1 })
  assert.deepEqual(one.turn(3).take(), ['StopPlacingReply 12', 'MovingFlow 12'])
  one.say(12, MovingFlowReply, { flow: idOf(1), epoch: 2, node: 11 })
  assert.deepEqual(one.turn(3).take(), ['AdoptFlow 13'])
  one.say(13, AdoptFlowReply, { flow: idOf(1), epoch: 2 })
  assert.deepEqual(one.turn(3).take().sort(), ['RerouteFlow 1', 'RerouteFlow 2', 'RetireFlow 12'])
  for (const id of [1, 2]) one.say(id, Go, { flow: idOf(1), epoch: 2 })
  assert.deepEqual(one.turn(3).take(), ['ForgetFlow 12'])
  assert.equal(one.node.openSteps.securing, 0)
})

test('a keeper that is to become empty and stays after all keeps what it has; without another the flow goes on bare', () => {
  const one = guarded()
  one.say(12, StopPlacing, { code: 1 }).say(12, StopPlacing, { code: 0 })
  assert.deepEqual(one.turn(3).take(), ['StopPlacingReply 12'])
  one.say(13, StopPlacing, { code: 1 }).say(12, StopPlacing, { code: 1 })
  assert.deepEqual(one.turn(3).take().sort(),
    ['ForgetFlow 13', 'RerouteFlow 1', 'RerouteFlow 2', 'RetireFlow 12 code 1', 'StopPlacingReply 12', 'StopPlacingReply 13'])
})

test('a flow goes on bare when everybody has forgotten it: who had it before its last replica may not have heard so', () => {
  const one = guarded()
  one.say(12, StopPlacing, { code: 1 }).turn(3)
  one.say(12, MovingFlowReply, { flow: idOf(1), epoch: 2, node: 11 }).turn(3)
  one.say(13, AdoptFlowReply, { flow: idOf(1), epoch: 2 }).turn(3)
  one.silent.add(12)
  for (const id of [1, 2]) one.say(id, Go, { flow: idOf(1), epoch: 2 })
  one.turn(3).take()
  assert.deepEqual([one.node.openSteps.securing, one.node.replicaOf(idOf(1))], [0, 13])
  one.say(13, StopPlacing, { code: 1 })
  assert.deepEqual(one.turn(9).take(), ['StopPlacingReply 13'], 'its last replica stays')
  one.silent.delete(12)
  assert.deepEqual(one.turn(9, 5000).take().sort(), ['ForgetFlow 12', 'ForgetFlow 12', 'RerouteFlow 1', 'RerouteFlow 2', 'RetireFlow 13 code 1'])
  for (const id of [1, 2]) one.say(id, Go, { flow: idOf(1), epoch: 3 })
  one.turn(3)
  assert.deepEqual([one.node.openSteps.securing, one.node.unprotected], [0, 1])
})

test('a replica that target and source of a move share is the source\'s again when that one takes the flow back', () => {
  for (const end of ['taken back', 'said to be there', 'moved'] as const) {
    const one = among()
    const without = (...ids: number[]): void => { one.configure({ runtimes: one.config.runtimes.filter(({ id }) => !ids.includes(id)) }) }
    adopt(one, 1)
    one.say(12, MovingFlow, { flow: idOf(1), epoch: 2, node: 13 }).turn(2)
    one.say(12, RetireFlow, { flow: idOf(1), epoch: 2 }).turn(2).take()
    one.say(13, AdoptFlow, { flow: idOf(1), epoch: 2, node: 1, key: 1, code: AdoptKind.tentative, tail: new Uint8Array(64),
      words: { [AdoptFlowLayout]: one.node.engine.layoutHash } })
    assert.deepEqual(one.turn(2).take(), ['AdoptFlowReply 13'])
    if (end === 'taken back') one.say(12, RetireFlow, { flow: idOf(1), epoch: 3 }).turn(2)
    if (end === 'moved') one.say(12, ForgetFlow, { flow: idOf(1) }).turn(2)
    one.take()
    without(13)
    if (end !== 'taken back') {
      assert.ok(one.turn(2).take().includes('AskFlow 12'), end)
      one.say(12, AskFlowReply, { flow: idOf(1), epoch: 2, code: 1 }).turn(2)
    }
    assert.equal(one.node.replicas, end === 'moved' ? 0 : 1, end)
    without(12, 13)
    one.turn(2)
    assert.equal(one.node.replication.replicas.promoted, end === 'moved' ? 0 : 1, end)
  }
})

test('a copy is forgotten on the word of whoever has the flow at a higher epoch, without a replica', () => {
  const one = among()
  adopt(one, 1, { epoch: 5, code: AdoptKind.tentative })
  one.say(13, ForgetFlow, { flow: idOf(1), epoch: 5 }).turn()
  assert.equal(one.node.replicas, 1)
  one.configure({ runtimes: one.config.runtimes.filter(({ id }) => id !== 12) })
  assert.ok(one.turn(2).take().includes('AskFlow 13'))
  one.say(13, ForgetFlow, { flow: idOf(1), epoch: 7 })
  assert.deepEqual(one.turn(2).take().filter((line) => line.startsWith('=')), ['=Drained 1', '=Drained 2'])
  assert.deepEqual([one.node.replicas, one.node.openSteps.askingOwner], [0, 0])
})

test('a flow that packets wait for at a switch goes on ahead of others; a tail leaves it to the first of its chain', () => {
  const one = among()
  for (const number of [1, 2, 3, 4]) adopt(one, number)
  // The switch has heard of the death ahead of us; of flow 9 there is no replica here.
  one.say(1, HurryFlow, { flow: idOf(4), epoch: 1 }).say(2, HurryFlow, { flow: idOf(9), epoch: 1 })
  assert.deepEqual(one.turn(2).take(), [])
  one.configure({ runtimes: one.config.runtimes.filter(({ id }) => id !== 12) })
  one.turn(3)
  // These copies are no records, and each is given up in its turn: the last is not that of flow 4.
  const last = one.said.get('=Drained') as Uint8Array
  assert.equal(one.node.anomalies['promotion-failed'], 4)
  assert.equal(new DataView(last.buffer).getFloat64(MessageField.flow, true), idOf(3))
  const tail = among({ replicas: 2 })
  const incarnation = tail.config.runtimes.find(({ id }) => id === 13)?.incarnation ?? 0
  tail.say(12, AdoptMember, { flow: idOf(1), epoch: 1, node: 1, key: 1, code: AdoptKind.settled, tail: new Uint8Array(64),
    words: { [AdoptFlowLayout]: tail.node.engine.layoutHash, [AdoptMemberPredecessor]: 13, [AdoptMemberPredecessorIncarnation]: incarnation } })
  tail.turn(2).take()
  tail.say(1, HurryFlow, { flow: idOf(1), epoch: 1 })
  assert.deepEqual(tail.turn(2).take(), ['HurryFlow 13'])
})

test('flows of the dead go on 64 in a turn, the rest in the next', () => {
  const one = among()
  for (let number = 1; number <= 70; number++) adopt(one, number)
  assert.equal(one.node.replicas, 70)
  one.configure({ runtimes: one.config.runtimes.filter(({ id }) => id !== 12) })
  assert.equal(one.node.replicas, 6)
  one.turn()
  assert.equal(one.node.replicas, 0)
})

test('a replica that is retired for good is forgotten; questions wait for the configuration that they were asked under', () => {
  const one = among()
  adopt(one, 1)
  one.say(12, RetireFlow, { flow: idOf(1), epoch: 2, code: 1 })
  assert.deepEqual(one.turn(2).take(), ['=Drained 1', '=Drained 2'])
  assert.equal(one.node.replicas, 0)
  adopt(one, 2)
  one.say(13, AskFlow, { flow: idOf(2), epoch: 1, key: 2, words: { [AskFlowConfigVersion]: one.config.version + 1 } })
  assert.deepEqual(one.turn(2).take(), [])
  one.configure({})
  assert.ok(one.turn(2).take().includes('AskFlowReply 13 code 1'))
})

test('a Go of a move that was given up says nothing of what a dead replica has released', () => {
  const one = guarded()
  assert.ok(one.node.setMigrationTarget(13, 1))
  assert.deepEqual(one.turn(2).take(), ['PrepareFlow 13'])
  one.say(13, PrepareFlowReply, { flow: idOf(1), epoch: 2 })
  assert.deepEqual(one.turn(2).take(), ['MovingFlow 12'])
  one.say(12, MovingFlowReply, { flow: idOf(1), epoch: 2, node: 13 })
  assert.deepEqual(one.turn(3).take().sort(), ['RerouteFlow 1', 'RerouteFlow 2'])
  // Its replica takes a step, releases it, and dies before its owner hears so.
  one.silent.add(12)
  one.packet(1, frameOf(1)).turn(2)
  assert.equal(one.node.keptOutputs, 1)
  one.configure({ runtimes: one.config.runtimes.filter(({ id }) => id !== 12) })
  for (const id of [1, 2]) one.sayInBand(id, RerouteFlowReply, { flow: idOf(1), epoch: 2 })
  assert.ok(one.turn(3).take().includes('AbortFlow 13'))
  one.say(13, AbortFlowReply, { flow: idOf(1), epoch: 3 })
  assert.deepEqual(one.turn(3).take(), ['AdoptFlow 13'])
  for (const id of [1, 2]) one.say(id, Go, { flow: idOf(1), epoch: 3 })
  one.turn(2).say(13, AdoptFlowReply, { flow: idOf(1), epoch: 4 }).turn(3).take()
  for (const id of [1, 2]) one.say(id, Go, { flow: idOf(1), epoch: 4, words: { [GoReleased]: id === 2 ? 2 : 0 } })
  assert.deepEqual(one.turn(3).take(), [], 'the packet has left already')
  assert.deepEqual([one.node.openSteps.securing, one.node.keptOutputs], [0, 0])
})

test('what a replica has released is known from the Go of a move that was called off, too, where a switch knew first that it was dead', () => {
  const one = guarded()
  assert.ok(one.node.setMigrationTarget(13, 1))
  one.turn(2).say(13, PrepareFlowReply, { flow: idOf(1), epoch: 2 }).turn(2).say(12, MovingFlowReply, { flow: idOf(1), epoch: 2, node: 13 })
  assert.ok(one.turn(3).take().includes('RerouteFlow 2'))
  // Its replica takes a step, releases it, and dies. A switch hears so, and of the next change, ahead of the owner.
  one.silent.add(12)
  one.packet(1, frameOf(1)).turn(2)
  for (const id of [1, 2]) one.sayInBand(id, RerouteFlowReply, { flow: idOf(1), epoch: 2 })
  assert.equal(one.turn(5).node.keptOutputs, 1)
  one.turn(3, 1_000_000)
  assert.ok(one.take().includes('AbortFlow 13'))
  for (const id of [1, 2]) one.say(id, Go, { flow: idOf(1), epoch: 3, words: { [GoReleased]: id === 2 ? 2 : 0 } })
  one.say(13, AbortFlowReply, { flow: idOf(1), epoch: 3 }).turn(3)
  one.configure({ runtimes: one.config.runtimes.filter(({ id }) => id !== 12) })
  assert.ok(one.turn(3).take().includes('AdoptFlow 13'))
  one.say(13, AdoptFlowReply, { flow: idOf(1), epoch: 4 }).turn(3).take()
  for (const id of [1, 2]) one.say(id, Go, { flow: idOf(1), epoch: 4 })
  assert.deepEqual(one.turn(3).take(), [], 'the packet has left already')
  assert.deepEqual([one.node.openSteps.securing, one.node.keptOutputs], [0, 0])
})

test('a flow whose closing was cancelled gets another replica before every switch has answered', () => {
  const one = guarded(1, { timeouts: { udp: 1 } })
  one.turn(30, 100_000)
  assert.equal(one.node.openSteps.closing, 1)
  one.packet(1, frameOf(1)).turn(2)
  one.configure({ runtimes: one.config.runtimes.filter(({ id }) => id !== 12) })
  assert.ok(one.turn(3).take().includes('AdoptFlow 13'))
  assert.equal(one.node.openSteps.closing, 1, 'their answers are behind what is not read while too much waits for the dead one')
})

test('in async the record goes to the replica every few outputs; what is ahead of it is counted, and what is overdue', () => {
  const one = among({ replication: 'async' })
  const tail = new TextEncoder().encode(JSON.stringify(one.node.engine.layout))
  one.say(12, AnnounceChain, { tail }).turn(2)
  one.sayInBand(1, FlowOpen, { flow: idOf(1), epoch: 1, node: 1, key: 1 })
  const { lead } = one.node.replication
  const send = (packets: number): number => {
    one.take()
    for (let n = 0; n < packets; n++) one.packet(1, frameOf(1)).turn(2)
    return one.take().filter((line) => line.startsWith('CommitStep 12')).length
  }
  assert.deepEqual([send(15), lead.ahead, lead.overdue], [0, 15, 0])
  assert.deepEqual([send(1), lead.ahead, lead.overdue], [1, 0, 0], 'one in sixteen')
  one.silent.add(12)
  for (let n = 0; n < 3000 && lead.overdue === 0; n++) send(1)
  assert.equal(lead.overdue, 1, 'the session to the replica is full')
  assert.equal(lead.ahead, 17)
  one.configure({ runtimes: one.config.runtimes.filter(({ id }) => id !== 12) })
  one.turn(3)
  for (const id of [1, 2]) one.say(id, Go, { flow: idOf(1), epoch: 2 })
  one.turn(2)
  assert.deepEqual([one.node.openSteps.securing, lead.ahead], [0, 0], 'nobody keeps it')
})

test('in async a flow goes on without a replica when the one that lives has heard that it is replaced', () => {
  const one = among({ replication: 'async' })
  const tail = new TextEncoder().encode(JSON.stringify(one.node.engine.layout))
  one.say(12, AnnounceChain, { tail }).turn(2)
  one.sayInBand(1, FlowOpen, { flow: idOf(1), epoch: 1, node: 1, key: 1 }).packet(1, frameOf(1)).turn(3)
  one.say(12, AdoptFlowReply, { flow: idOf(1), epoch: 1 }).turn(3).take()
  one.say(12, StopPlacing, { code: 1 })
  assert.deepEqual(one.turn(3).take(), ['StopPlacingReply 12', 'MovingFlow 12 code 1'])
  one.say(12, MovingFlowReply, { flow: idOf(1), epoch: 2, node: 11 })
  const said = one.turn(3).take()
  assert.ok(said.includes('RerouteFlow 1') && said.includes('RetireFlow 12 code 1'), said.join())
  for (const id of [1, 2]) one.say(id, Go, { flow: idOf(1), epoch: 2 })
  one.turn(3)
  assert.deepEqual([one.node.openSteps.securing, one.node.unprotected], [0, 1])
})

test('in async a flow whose replica has died and that gets no other runs on, and is told as unprotected until it has one', () => {
  const one = among({ replication: 'async' })
  const tail = new TextEncoder().encode(JSON.stringify(one.node.engine.layout))
  one.say(12, AnnounceChain, { tail }).turn(2)
  one.sayInBand(1, FlowOpen, { flow: idOf(1), epoch: 1, node: 1, key: 1 }).packet(1, frameOf(1)).turn(3)
  one.say(12, AdoptFlowReply, { flow: idOf(1), epoch: 1 }).turn(2).take()
  assert.deepEqual([one.node.unprotected, one.node.replicaOf(idOf(1))], [0, 12])
  one.configure({ runtimes: one.config.runtimes.filter(({ id }) => id !== 12) })
  assert.equal(one.node.unprotected, 1)
  one.turn(3)
  for (const id of [1, 2]) one.say(id, Go, { flow: idOf(1), epoch: 2 })
  one.turn(2).take()
  one.packet(1, frameOf(1)).turn(2)
  assert.ok(one.take().includes('packet out 2'))
  assert.deepEqual([one.node.unprotected, one.node.replicaOf(idOf(1)), one.node.replication.guards.bare], [1, 0, 1])
  one.say(13, AnnounceChain, { tail }).turn(3)
  one.say(13, AdoptFlowReply, { flow: idOf(1), epoch: 3 }).turn(3)
  for (const id of [1, 2]) one.say(id, Go, { flow: idOf(1), epoch: 3 })
  one.turn(3)
  assert.deepEqual([one.node.unprotected, one.node.replicaOf(idOf(1))], [0, 13])
})

test('a replica that another has taken over from hears so, and does not ask and promote itself in vain', () => {
  const one = among()
  adopt(one, 1)
  one.say(12, MovingFlow, { flow: idOf(1), epoch: 2, node: 12 })
  assert.deepEqual(one.turn(2).take(), ['MovingFlowReply 12'])
  one.configure({ runtimes: one.config.runtimes.filter(({ id }) => id !== 12) })
  assert.ok(one.turn(2).take().includes('AskFlow 13'))
  // Which has gone on with the flow, and given it away since.
  one.say(13, RetireFlow, { flow: idOf(1), epoch: 10 }).say(13, AskFlowReply, { flow: idOf(1), epoch: 2 })
  assert.deepEqual(one.turn(3).take().sort(), ['=Drained 1', '=Drained 1', '=Drained 2', '=Drained 2',
    'ConfigApplied 1 code 1', 'ConfigApplied 2 code 1'])
  assert.deepEqual([one.node.replicas, one.node.replication.replicas.promoted, one.node.openSteps.askingOwner], [0, 0, 0])
})

test('a target whose flow is to go on at its replica has not done with the dead source before that one has asked for it', () => {
  for (const knows of [true, false]) {
    const one = among()
    one.say(12, AnnounceChain, { tail: new TextEncoder().encode(JSON.stringify(one.node.engine.layout)) })
    one.say(12, PrepareFlow, { flow: idOf(1), epoch: 2, key: 1,
      words: { [PrepareFlowLayout]: one.node.engine.layoutHash, [PrepareFlowReplica]: 13,
        [PrepareFlowReplicaIncarnation]: one.config.runtimes.find(({ id }) => id === 13)?.incarnation ?? 0 } })
    assert.deepEqual(one.turn(2).take(), ['PrepareFlowReply 12'])
    one.configure({ runtimes: one.config.runtimes.filter(({ id }) => id !== 12) })
    assert.deepEqual(one.turn(5).take(), ['YieldFlow 13'])
    one.say(13, AbortFlow, { flow: idOf(1), epoch: knows ? 12 : 2 })
    if (knows) {
      assert.deepEqual(one.turn(3).take().sort(), ['=Drained 1', '=Drained 2', 'AbortFlowReply 13', 'ConfigApplied 1 code 1',
        'ConfigApplied 2 code 1'])
      continue
    }
    // It has never had the flow, and nobody else has: what is buffered here opens it anew, before others may.
    assert.deepEqual(one.turn(3).take(), ['AskFlow 13 code 1'])
    one.say(13, AskFlowReply, { flow: idOf(1), epoch: 2, node: one.config.version })
    const told = one.turn(3).take()
    for (const id of [1, 2]) assert.ok(told.indexOf(`RerouteFlow ${id} code 1`) < told.indexOf(`ConfigApplied ${id} code 1`))
    assert.deepEqual([told.length, one.node.openSteps.inheriting], [4, 1])
  }
})

test('a target whose source has died does not take the next life of the replica\'s runtime for the replica', () => {
  const one = among()
  const incarnationOf = (id: number): number => one.config.runtimes.find((entry) => entry.id === id)?.incarnation ?? 0
  one.say(12, PrepareFlow, { flow: idOf(1), epoch: 2, key: 1, words: { [PrepareFlowLayout]: one.node.engine.layoutHash,
    [PrepareFlowReplica]: 13, [PrepareFlowReplicaIncarnation]: incarnationOf(13) } })
  assert.deepEqual(one.turn(2).take(), ['PrepareFlowReply 12'])
  one.restart(13, incarnationOf(13) + 100)
  one.turn(2).take()
  one.configure({ runtimes: one.config.runtimes.filter(({ id }) => id !== 12) })
  assert.deepEqual(one.turn(2).take(), ['AskFlow 13 code 1'], 'nothing is applied before it is known who goes on')
  one.say(13, AskFlowReply, { flow: idOf(1), epoch: 2, node: one.config.version })
  assert.deepEqual(one.turn(2).take(),
    ['RerouteFlow 1 code 1', 'ConfigApplied 1 code 1', 'RerouteFlow 2 code 1', 'ConfigApplied 2 code 1'])
})

test('a target whose source has died says that it releases nothing, in whatever mode: a switch may have taken it for the releaser', () => {
  for (const replication of ['none', 'commit'] as const) {
    const one = among({ replication })
    const replica = one.config.runtimes.find(({ id }) => id === 13)
    one.say(12, PrepareFlow, { flow: idOf(1), epoch: 2, key: 1, words: { [PrepareFlowLayout]: one.node.engine.layoutHash,
      [PrepareFlowReplica]: 13, [PrepareFlowReplicaIncarnation]: replica?.incarnation ?? 0 } })
    one.turn(2).take()
    one.configure({ runtimes: one.config.runtimes.filter(({ id }) => id !== 12) })
    assert.ok(one.turn(2).take().includes('YieldFlow 13'))
    one.say(13, AbortFlow, { flow: idOf(1), epoch: 18 })
    assert.deepEqual(one.turn(2).take().filter((text) => text.startsWith('=')), ['=Drained 1', '=Drained 2'])
  }
})

test('a target says that it has applied the death of its source when the replica has said that it goes on', () => {
  const one = among()
  const replica = one.config.runtimes.find(({ id }) => id === 13)
  one.say(12, PrepareFlow, { flow: idOf(1), epoch: 2, key: 1, words: { [PrepareFlowLayout]: one.node.engine.layoutHash,
    [PrepareFlowReplica]: 13, [PrepareFlowReplicaIncarnation]: replica?.incarnation ?? 0 } })
  one.turn(2).take()
  one.configure({ runtimes: one.config.runtimes.filter(({ id }) => id !== 12) })
  assert.deepEqual(one.turn(2).take(), ['YieldFlow 13'])
  one.say(13, YieldFlow, { flow: idOf(1), epoch: 2, code: 2 })
  assert.deepEqual(one.turn(2).take(), ['ConfigApplied 1 code 1', 'ConfigApplied 2 code 1'])
})

test('a flow that has come runs when its source and the runtime that it was to have a replica at die at once', () => {
  const source = among({ replication: 'none' })
  source.sayInBand(1, FlowOpen, { flow: idOf(1), epoch: 1, node: 1, key: 1 }).packet(1, frameOf(1)).turn(2)
  source.node.setMigrationTarget(13, 1)
  source.turn(2).say(13, PrepareFlowReply, { flow: idOf(1), epoch: 2 }).turn(2)
  for (const id of [1, 2]) source.sayInBand(id, RerouteFlowReply, { flow: idOf(1), epoch: 2 })
  source.turn(3)
  const record = source.said.get('InstallFlow')
  assert.ok(record !== undefined)
  const one = among()
  for (const id of [12, 13]) one.say(id, AnnounceChain, { tail: new TextEncoder().encode(JSON.stringify(source.node.engine.layout)) })
  one.say(13, PrepareFlow, { flow: idOf(1), epoch: 2, key: 1, words: { [PrepareFlowLayout]: source.node.engine.layoutHash } })
  assert.deepEqual(one.turn(2).take(), ['PrepareFlowReply 13'])
  one.raw(13, false, record)
  for (const id of [1, 2]) one.say(id, Go, { flow: idOf(1), epoch: 2 })
  assert.ok(one.turn(2).take().includes('AdoptFlow 12 code 2'))
  assert.equal(one.node.openSteps.waiting, 1)
  one.configure({ runtimes: one.config.runtimes.filter(({ id }) => id === SELF) })
  one.turn(3)
  const flows = [...one.node.flows()].map(({ flow, phase, epoch }) => ({ flow, phase, epoch }))
  assert.deepEqual(flows, [{ flow: idOf(1), phase: 'active', epoch: 3 }])
  assert.equal(one.node.openSteps.waiting, 0)
})
