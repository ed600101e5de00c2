/** Bounds of securing, at one runtime node whose peers are played: of flows at once, and of what waits for them. docs/limits.md lists them. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { flowIdOf } from '../messages/cluster-config.ts'
import { StopPlacing } from '../messages/announcing.ts'
import { AnnounceChain, BufferedPacket, Go } from '../messages/migration.ts'
import { FlowOpen } from '../messages/placement.ts'
import { AdoptFlowReply, AskFlowReply, MovingFlow, MovingFlowReply } from '../messages/replication.ts'
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
