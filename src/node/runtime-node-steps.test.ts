/** Steps of a runtime node, and when there is none: a record must not say that packets were consumed which are not in it. PROTOCOL 12, 20. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ClaimAliasReply } from '../messages/aliasing.ts'
import { flowIdOf } from '../messages/cluster-config.ts'
import { AnnounceChain, Go } from '../messages/migration.ts'
import { FlowOpen } from '../messages/placement.ts'
import { AdoptFlowReply } from '../messages/replication.ts'
import { defineNf, struct, u32, Verdict } from '../nf/index.ts'
import { frameOf, RuntimeAmongScripts, type RuntimeAmongScriptsOptions } from '../sim/runtime-among-scripts.ts'
import { sideCounter, translator } from '../testing/index.ts'

const idOf = (number: number): number => flowIdOf(101, number)

function among(options: Partial<RuntimeAmongScriptsOptions> = {}, ...keepers: number[]): RuntimeAmongScripts {
  const one = new RuntimeAmongScripts({ chain: [{ definition: sideCounter(), config: {} }], replication: 'commit', ...options })
  announce(one, ...keepers)
  one.turn(2).take()
  return one
}

function announce(one: RuntimeAmongScripts, ...ids: number[]): void {
  for (const id of ids) one.say(id, AnnounceChain, { tail: new TextEncoder().encode(JSON.stringify(one.node.engine.layout)) })
}

const open = (one: RuntimeAmongScripts, number: number): RuntimeAmongScripts =>
  one.sayInBand(1, FlowOpen, { flow: idOf(number), epoch: 1, node: 1, key: number }).packet(1, frameOf(number)).turn(2)

const steps = (one: RuntimeAmongScripts): string[] => one.take().filter((line) => line.startsWith('CommitStep'))

test('what was set aside for longer than a batch is one step: the link has been read beyond all of it', () => {
  const one = among({ runtimeLimits: { bufferedPerFlow: 64 } }, 12)
  open(one, 1)
  one.say(12, AdoptFlowReply, { flow: idOf(1), epoch: 1 }).turn(2)
  announce(one, 13)
  one.turn(2)
  one.configure({ runtimes: one.config.runtimes.filter(({ id }) => id !== 12) })
  one.turn(3)
  for (let n = 0; n < 50; n++) one.packet(1, frameOf(1))
  one.turn(3).say(13, AdoptFlowReply, { flow: idOf(1), epoch: 2 }).turn(2).take()
  assert.equal(one.node.packets.buffered, 50)
  for (const id of [1, 2]) one.say(id, Go, { flow: idOf(1), epoch: 2 })
  one.turn(3)
  assert.deepEqual([steps(one), one.node.packets.buffered], [['CommitStep 13'], 0])
})

test('a packet that is held is a step, also where another flow lets one go in the same batch', () => {
  const holder = defineNf({
    name: 'holder', version: 1, flowState: struct({ packets: u32 }),
    create: (_config, { held }) => ({
      processPacket(_packet, state) {
        held.release()
        return ++state.packets % 2 === 0 ? Verdict.Hold : Verdict.Forward
      },
    }),
  })
  const one = among({ chain: [{ definition: holder, config: {} }] }, 12)
  for (const number of [1, 2]) {
    open(one, number)
    one.say(12, AdoptFlowReply, { flow: idOf(number), epoch: 1 }).turn(2)
  }
  one.packet(1, frameOf(1)).turn(2).take()
  // That of the first goes out, with the one that was held; that of the second is held.
  one.packet(1, frameOf(1)).packet(1, frameOf(2)).turn(3)
  assert.deepEqual([steps(one), one.node.engine.heldPackets], [['CommitStep 12', 'CommitStep 12'], 1])
})

test('while a claim of an alias is open no step of the flow goes, for its packets are to come again should we die', () => {
  const definition = translator()
  const one = among({ chain: [{ definition, config: definition.config?.parse({}) ?? {} }] }, 12)
  open(one, 1)
  one.say(12, AdoptFlowReply, { flow: idOf(1), epoch: 1 }).turn(2)
  const claim = one.said.get('ClaimAlias') as Uint8Array
  assert.deepEqual([steps(one), one.node.openSteps.claiming], [[], 1])
  const answer = claim.slice(0, ClaimAliasReply.bytes)
  answer[0] = ClaimAliasReply.type
  one.raw(1, false, answer).turn(2)
  const said = one.take().filter((line) => /Adopt|CommitStep/.test(line))
  assert.deepEqual([said, one.node.openSteps.claiming], [['AdoptFlow 12 code 3', 'CommitStep 12'], 0])
})
