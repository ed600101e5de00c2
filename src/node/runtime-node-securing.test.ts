/** Bounds of securing, at one runtime node whose peers are played: of flows at once, and of what waits for them. docs/limits.md lists them. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { flowIdOf } from '../messages/cluster-config.ts'
import { StopPlacing } from '../messages/announcing.ts'
import { MessageField } from '../messages/message.ts'
import {
  AbortFlowReply, AbortFlowSwitches, AnnounceChain, BufferedPacket, Go, PrepareFlow, PrepareFlowLayout, PrepareFlowReplica,
  PrepareFlowReplicaIncarnation, RerouteFlowBuffersAt, RerouteFlowReply, RerouteMark,
} from '../messages/migration.ts'
import { FlowOpen } from '../messages/placement.ts'
import {
  AdoptFlow, AdoptFlowBuffersAt, AdoptFlowLayout, AdoptFlowReply, AdoptKind, AskFlow, AskFlowReply, MovingFlow, MovingFlowReply,
  YieldFlow,
} from '../messages/replication.ts'
import { defineNf, struct, text, Verdict } from '../nf/index.ts'
import { frameOf, RuntimeAmongScripts, type RuntimeAmongScriptsOptions } from '../sim/runtime-among-scripts.ts'
import { sideCounter } from '../testing/index.ts'

const idOf = (number: number): number => flowIdOf(101, number)
const flowsTo = (last: number): number[] => Array.from({ length: last }, (_, index) => index + 1)

function among(options: Partial<RuntimeAmongScriptsOptions> = {}): RuntimeAmongScripts {
  return new RuntimeAmongScripts({ chain: [{ definition: sideCounter(), config: {} }], replication: 'commit', ...options })
}

/** Runtimes that can keep replicas from now on. */
function announce(one: RuntimeAmongScripts, ...ids: number[]): void {
  for (const id of ids) one.say(id, AnnounceChain, { tail: new TextEncoder().encode(JSON.stringify(one.node.engine.layout)) })
}

/** Flows open at the node, a packet each; runtime 12 keeps their replicas, if it can. */
function open(one: RuntimeAmongScripts, numbers: readonly number[]): void {
  for (const number of numbers) {
    one.sayInBand(1, FlowOpen, { flow: idOf(number), epoch: 1, node: 1, key: number }).packet(1, frameOf(number)).turn(2)
  }
  if (one.take().some((line) => line.startsWith('AdoptFlow 12'))) {
    for (const number of numbers) one.say(12, AdoptFlowReply, { flow: idOf(number), epoch: 1 }).turn()
  }
  one.turn(2).take()
}

/** A flow that is secured has its replica, and the switches have heard so. */
function finish(one: RuntimeAmongScripts, number: number, at: number, epoch = 2): void {
  one.say(at, AdoptFlowReply, { flow: idOf(number), epoch }).turn(2)
  for (const id of [1, 2]) one.say(id, Go, { flow: idOf(number), epoch })
  one.turn(2)
}

function without(one: RuntimeAmongScripts, dead: number): void {
  one.configure({ runtimes: one.config.runtimes.filter(({ id }) => id !== dead) })
}

test('packets of a flow that is secured are bounded per flow and in total; those that wait run when it has a replica', () => {
  const one = among({ runtimeLimits: { bufferedPerFlow: 3, buffered: 5 } })
  announce(one, 12)
  one.turn(2)
  open(one, [1, 2, 3])
  announce(one, 13)
  one.turn(2)
  without(one, 12)
  one.turn(3)
  assert.equal(one.node.openSteps.securing, 3)
  for (let n = 0; n < 5; n++) one.packet(1, frameOf(1))
  one.turn()
  assert.deepEqual([one.node.dropReasons(), one.node.packets.buffered], [{ 'secure-buffer': 2 }, 3])
  for (const number of [2, 3]) for (let n = 0; n < 2; n++) one.packet(2, frameOf(number))
  one.turn()
  assert.deepEqual([one.node.dropReasons(), one.node.packets.buffered], [{ 'secure-buffer': 4 }, 5])
  one.take()
  finish(one, 1, 13)
  assert.deepEqual([one.take().filter((line) => line.startsWith('CommitStep')), one.node.packets.buffered], [['CommitStep 13'], 2])
  // What the bound has kept out was the others' room for a moment, and is theirs again.
  one.packet(1, frameOf(3)).turn()
  for (const number of [2, 3]) finish(one, number, 13)
  assert.deepEqual([one.node.dropReasons(), one.node.packets.buffered, one.node.openSteps.securing], [{ 'secure-buffer': 4 }, 0, 0])
})

test('packets that a target hands to who goes on for the dead source are bounded, too', () => {
  // A whole flow, as an owner sends it.
  const owner = among()
  announce(owner, 12)
  owner.turn(2)
  open(owner, [1])
  const one = among({ runtimeLimits: { buffered: 3 } })
  announce(one, 13)
  one.raw(12, false, owner.said.get('AdoptFlow') as Uint8Array).turn(2)
  one.say(12, MovingFlow, { flow: idOf(1), epoch: 2, node: 13 }).turn(2).take()
  without(one, 12)
  assert.ok(one.turn(2).take().includes('AskFlow 13'))
  one.say(13, AskFlowReply, { flow: idOf(1), epoch: 1, code: 2 })
  one.turn(3)
  assert.deepEqual([one.node.replication.replicas.promoted, one.node.openSteps.securing], [1, 1])
  for (let n = 0; n < 5; n++) one.say(13, BufferedPacket, { flow: idOf(1), epoch: 2, node: 1, tail: frameOf(1) })
  one.turn(2)
  assert.deepEqual([one.node.dropReasons(), one.node.packets.buffered], [{ 'secure-buffer': 2 }, 3])
})

/**
 * Runtime 12 has died in the middle of a move to 13. That one and 14, in the order of `answers`, say that they have the flow prepared, 14 by an
 * older move; or they have said so unasked.
 */
function answeredByTwo(one: RuntimeAmongScripts, adopt: () => void, answers: readonly number[],
    isToldFirst = false): void {
  one.configure({ runtimes: [...one.config.runtimes, { id: 14, incarnation: 114, isDraining: false }] })
  one.restart(14, 114)
  one.turn(5)
  adopt()
  one.say(12, MovingFlow, { flow: idOf(1), epoch: 2, node: 13 }).turn(2).take()
  without(one, 12)
  const asked = one.turn(2).take().filter((line) => line.startsWith('AskFlow'))
  assert.deepEqual(asked, ['AskFlow 13', 'AskFlow 14'])
  const epochs = new Map([[13, 2], [14, 1]])
  if (isToldFirst) {
    for (const [id, epoch] of epochs) {
      one.say(id, YieldFlow, { flow: idOf(1), epoch, code: 1 })
      assert.ok(one.turn(2).take().includes(`YieldFlow ${id} code 2`))
    }
  }
  for (const id of answers) {
    one.say(id, AskFlowReply, { flow: idOf(1), epoch: isToldFirst ? 2 : epochs.get(id), code: isToldFirst ? 0 : 2 }).turn(2)
  }
}

const view = (one: RuntimeAmongScripts, name: string): DataView => new DataView(one.said.get(name)?.slice().buffer as ArrayBuffer)

for (const [what, answers, isFenced] of [['the newest of which answers first', [13, 14], false],
  ['the newest of which answers last', [14, 13], false], ['one of which dies', [13, 14], true]] as const) {
  test(`who goes on for the dead source fetches from all targets and waits for all, ${what}`, () => {
    const saw: string[] = []
    const chain = [{ config: {}, definition: defineNf({ name: 'witness', version: 1, flowState: struct({ word: text(8) }), create: () => ({
      processPacket(packet, state) {
        state.word.copyFrom(packet.payloadOffset, packet.payloadLength)
        saw.push(state.word.toString())
        return Verdict.Forward
      } }) }) }]
    const owner = among({ chain })
    announce(owner, 12)
    owner.turn(2)
    open(owner, [1])
    const one = among({ chain })
    announce(one, 13)
    answeredByTwo(one, () => { one.raw(12, false, owner.said.get('AdoptFlow') as Uint8Array).turn(2) }, answers)
    assert.equal(one.node.openSteps.securing, 1)
    const epoch = view(one, 'AdoptFlow 13').getUint32(MessageField.epoch, true)
    const said = { flow: idOf(1), epoch }
    assert.equal(view(one, 'AdoptFlow 13').getUint32(AdoptFlowBuffersAt, true), 13)
    one.take()
    one.say(13, AdoptFlowReply, said).turn(2)
    const aborted = (): string[] => one.take().filter((line) => line.startsWith('AbortFlow')).sort()
    const markers = (id: number): number[] => [0, 1, 2].map((i) => view(one, `AbortFlow ${id}`).getUint8(AbortFlowSwitches + i))
    assert.deepEqual(aborted(), ['AbortFlow 13', 'AbortFlow 14'])
    for (const id of [1, 2]) assert.equal(view(one, `RerouteFlow ${id}`).getUint32(RerouteFlowBuffersAt, true), 13)
    // Switches have been told of the newest alone: the other would wait for their words for ever.
    assert.deepEqual([markers(13), markers(14)], [[1, 2, 0], [0, 0, 0]])
    for (const id of [13, 14]) assert.equal(view(one, `AbortFlow ${id}`).getUint32(MessageField.epoch, true), epoch)
    one.sayInBand(1, RerouteFlowReply, said).turn(2)
    assert.deepEqual([aborted(), markers(13)], [['AbortFlow 13'], [2, 0, 0]])

    saw.length = 0
    for (const id of [1, 2]) one.sayInBand(id, RerouteFlowReply, { ...said, code: RerouteMark.begin })
    one.packet(1, frameOf(1, 'back'))
    for (const id of [1, 2]) one.sayInBand(id, RerouteFlowReply, { ...said, code: RerouteMark.end }).say(id, Go, said)
    one.packet(1, frameOf(1, 'new')).turn(2)
    for (const [id, payload] of [[13, 'a1'], [14, 'b1'], [13, 'a2'], [14, 'b2']] as const) {
      one.say(id, BufferedPacket, { ...said, node: 1, tail: frameOf(1, payload) }).turn()
    }
    const [first, last] = answers
    // Twice, as one does that has been asked again.
    for (let n = 0; n < 2; n++) one.say(first, AbortFlowReply, said).turn(2)
    assert.deepEqual([saw, one.node.openSteps.securing, one.node.packets.buffered], [[], 1, 6], 'the other is waited for')
    // One that asks whether it need wait for us hears so.
    one.take()
    one.say(last, YieldFlow, { flow: idOf(1), epoch: 1 }).turn(2)
    assert.deepEqual(one.take(), [`YieldFlow ${last} code 2`])
    if (isFenced) without(one, last)
    else one.say(last, AbortFlowReply, said)
    one.turn(2)
    assert.deepEqual([saw, one.node.openSteps.securing], [['back', 'a1', 'b1', 'a2', 'b2', 'new'], 0])
    assert.deepEqual([one.node.packets.buffered, one.node.dropReasons()], [0, {}])
  })
}

test('a flow that cannot go on for its dead source has ended for all targets, each at the epoch of its own move', () => {
  for (const [answers, isToldFirst] of [[[13, 14], false], [[14, 13], false], [[14, 13], true]] as const) {
    const one = among()
    // This copy is no record.
    answeredByTwo(one, () => {
      one.say(12, AdoptFlow, { flow: idOf(1), epoch: 1, node: 1, key: 1, code: AdoptKind.settled, tail: new Uint8Array(64),
        words: { [AdoptFlowLayout]: one.node.engine.layoutHash } }).turn(2)
    }, answers, isToldFirst)
    one.turn(2)
    assert.equal(one.node.anomalies['promotion-failed'], 1)
    assert.deepEqual(one.take().filter((line) => line.startsWith('AbortFlow')).sort(), ['AbortFlow 13 code 1', 'AbortFlow 14 code 1'])
    assert.deepEqual([13, 14].map((id) => view(one, `AbortFlow ${id}`).getUint32(MessageField.epoch, true)), [2, 1])
  }
})

test('a target that is asked for what it buffers says by which move it does, however late the question', () => {
  const one = among()
  const incarnation = one.config.runtimes.find(({ id }) => id === 13)?.incarnation ?? 0
  one.say(12, PrepareFlow, { flow: idOf(1), epoch: 2, key: 1, words: { [PrepareFlowLayout]: one.node.engine.layoutHash, [PrepareFlowReplica]: 13,
    [PrepareFlowReplicaIncarnation]: incarnation } }).turn(2)
  without(one, 12)
  // Of a flow that has gone on since, and whose next owner has died in the middle of a move to another.
  one.turn(2).say(13, AskFlow, { flow: idOf(1), epoch: 20, key: 1 }).turn(2)
  assert.ok(one.take().includes('AskFlowReply 13 code 2'))
  assert.equal(view(one, 'AskFlowReply 13').getUint32(MessageField.epoch, true), 2)
  // One that has nothing of it says that of the epoch that it was asked about.
  one.say(13, AskFlow, { flow: idOf(2), epoch: 20, key: 2 }).turn(2)
  assert.ok(one.take().includes('AskFlowReply 13'))
  assert.equal(view(one, 'AskFlowReply 13').getUint32(MessageField.epoch, true), 20)
})

test('a switch that comes back hears of a flow that goes on for the dead when that is claimed, and then that it knows all', () => {
  const owner = among()
  announce(owner, 12)
  owner.turn(2)
  open(owner, [1])
  const one = among()
  announce(one, 13)
  one.raw(12, false, owner.said.get('AdoptFlow') as Uint8Array).turn(2)
  without(one, 12)
  one.turn()
  one.restart(2, 202)
  one.turn(5)
  const lines = (): string[] => one.take().filter((line) => /(AnnounceFlow|AnnounceDone|RerouteFlow) 2/.test(line))
  assert.deepEqual([one.node.openSteps.securing, lines()], [1, []])
  one.say(13, AdoptFlowReply, { flow: idOf(1), epoch: 10 }).turn(5)
  assert.deepEqual(lines(), ['RerouteFlow 2 code 2', 'AnnounceDone 2'])
})

for (const [what, keeper, begins] of [['without a replica', 12, [16, 16, 16, 16]], ['whose keeper drains', 13, [16, 16, 16, 16]],
  ['whose keeper has died', 13, [64, 36]]] as const) {
  test(`some flows are secured in a turn, and so many at once, and the rest follows: those ${what}`, () => {
    const one = among({ limits: { flows: 128, packets: 512 }, runtimeLimits: { absentFlows: 128, buffered: 512 } })
    const isDraining = what === 'whose keeper drains'
    const hasDied = what === 'whose keeper has died'
    if (isDraining || hasDied) announce(one, 12)
    one.turn(2)
    open(one, flowsTo(100))
    // How many are begun by each poll of the node that begins any.
    const begun: number[] = []
    const poll = one.node.poll.bind(one.node)
    Object.assign(one.node, { poll: (now: number): boolean => {
      const before = one.node.openSteps.securing as number
      const isMore = poll(now)
      if (one.node.openSteps.securing as number > before) begun.push(one.node.openSteps.securing as number - before)
      return isMore
    } })
    announce(one, keeper)
    if (isDraining) one.say(12, StopPlacing, { code: 1 })
    if (hasDied) without(one, 12)
    one.turn(50)
    const atOnce = begins.reduce((sum, count) => sum + count, 0)
    assert.deepEqual([begun, one.node.openSteps.securing], [begins, atOnce])
    for (const number of flowsTo(100)) {
      if (isDraining) one.say(12, MovingFlowReply, { flow: idOf(number), epoch: 2, node: 11 }).turn(2)
      finish(one, number, keeper)
      assert.equal(one.node.openSteps.securing, Math.min(atOnce, 100 - number), 'another one follows')
    }
    assert.deepEqual(flowsTo(100).filter((number) => one.node.replicaOf(idOf(number)) !== keeper), [])
    assert.equal(one.node.unprotected, 0)
  })
}
