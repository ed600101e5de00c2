/** Every bound of a runtime node is reached, and what is said to it in error changes nothing. docs/limits.md lists them. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Random } from '../base/random.ts'
import { ClaimAlias, ClaimAliasReply } from '../messages/aliasing.ts'
import { AnnounceFlow } from '../messages/announcing.ts'
import { CloseFlowReply } from '../messages/closing.ts'
import { flowIdOf } from '../messages/cluster-config.ts'
import { MessageField, messageKinds, type MessageKind } from '../messages/message.ts'
import {
  AbortFlow, AbortFlowReply, AbortFlowSwitches, AnnounceChain, BufferedPacket, Go, InstallFlow, InstallFlowReply, MoveRefusal, PrepareFlow,
  PrepareFlowLayout, PrepareFlowReply, RerouteFlow, RerouteFlowReply,
} from '../messages/migration.ts'
import { FlowOpen } from '../messages/placement.ts'
import { AskFlow } from '../messages/replication.ts'
import { AliasClaim, defineNf, struct, u16, u32, Verdict } from '../nf/index.ts'
import { frameOf, RuntimeAmongScripts, SELF, type RuntimeAmongScriptsOptions, type Words } from '../sim/runtime-among-scripts.ts'
import { buildFrame, sideCounter } from '../testing/index.ts'

const idOf = (number: number): number => flowIdOf(101, number)
const ALIAS_BYTES = 48

function among(options: Partial<RuntimeAmongScriptsOptions> = {}): RuntimeAmongScripts {
  return new RuntimeAmongScripts({ chain: [{ definition: sideCounter(), config: {} }], ...options })
}

/** A flow opens at the node, with one packet. */
function open(one: RuntimeAmongScripts, ...numbers: number[]): void {
  for (const number of numbers) {
    one.sayInBand(1, FlowOpen, { flow: idOf(number), epoch: 1, node: 1, key: number }).packet(1, frameOf(number))
  }
  one.turn(2)
  one.take()
}

/** Runtime 12 wants to move a flow here. */
function prepare(one: RuntimeAmongScripts, number: number, more: Words = {}): string[] {
  one.say(12, PrepareFlow, { flow: idOf(number), epoch: 2, key: number, words: { [PrepareFlowLayout]: one.node.engine.layoutHash }, ...more })
  return one.turn(2).take()
}

const phases = (one: RuntimeAmongScripts): string[] =>
  [...one.node.flows()].map(({ flow, phase, epoch }) => `${flow % 2 ** 32} ${phase} ${epoch}`).sort()

/** A move of flow 1 to runtime 12, up to a state. */
function moveTo(one: RuntimeAmongScripts, state: 'rerouting' | 'handing'): void {
  open(one, 1)
  one.node.setMigrationTarget(12, 1)
  one.turn(2).say(12, PrepareFlowReply, { flow: idOf(1), epoch: 2 }).turn(2)
  if (state === 'rerouting') return
  for (const id of [1, 2]) one.sayInBand(id, RerouteFlowReply, { flow: idOf(1), epoch: 2 })
  one.turn(3)
  assert.deepEqual(phases(one), ['1 handing 1'])
  one.take()
}

// -- Flows that come -----------------------------------------------------------------------------------------------------

test('openings are bounded: beyond, packets go back to their switch', () => {
  const one = among({ runtimeLimits: { absentFlows: 2 } })
  for (const number of [1, 2, 3]) one.sayInBand(1, FlowOpen, { flow: idOf(number), epoch: 1, node: 1, key: number })
  one.turn()
  assert.deepEqual([one.node.anomalies, one.node.openSteps.opening], [{ 'no-room-to-open': 1 }, 2])
  for (const number of [1, 2, 3]) one.packet(1, frameOf(number))
  assert.deepEqual(one.turn(2).take().sort(), ['=Bind 2', '=Bind 2', '=ReturnPacket 1', 'packet out 2', 'packet out 2'])
})

test('an ICMP error about a flow that opens goes back to its switch, until that one makes it a flow of its own', () => {
  const one = among()
  const error = (quote: Uint8Array): Uint8Array => buildFrame({ source: '10.0.0.2', destination: '10.0.0.1', icmp: { type: 3, code: 1, quote } })
  const about = error(frameOf(1).subarray(14))
  one.sayInBand(1, FlowOpen, { flow: idOf(1), epoch: 1, node: 1, key: 1 }).packet(2, about)
  assert.deepEqual(one.turn(2).take(), ['=ReturnPacket 2'])
  // One with too little of a quote has its own key at once.
  one.sayInBand(2, FlowOpen, { flow: idOf(2), epoch: 1, node: 1, key: error(frameOf(1).subarray(14, 30)) }).packet(2, about)
  assert.deepEqual(one.turn(2).take(), ['=Bind 1', 'packet out 1'])
  one.packet(2, about)
  assert.deepEqual([one.turn(2).take(), phases(one).sort()], [['packet out 1'], ['1 opening 1', '2 active 1']])
})

test('an opening whose packet does not come ends everywhere', () => {
  const one = among({ times: { openingTimeoutUs: 100_000 } })
  one.sayInBand(1, FlowOpen, { flow: idOf(1), epoch: 1, node: 1, key: 1 })
  assert.deepEqual(one.turn(5, 10_000).take(), [])
  assert.deepEqual(one.turn(10, 10_000).take(), ['CloseFlow 1', 'CloseFlow 2'])
  for (const id of [1, 2]) one.sayInBand(id, CloseFlowReply, { flow: idOf(1), epoch: 1 })
  assert.deepEqual(one.turn(2).take(), ['FlowClosed 1 code 1', 'FlowClosed 2 code 1'])
  assert.deepEqual([phases(one), one.node.openSteps.opening], [[], 0])
})

test('an opening is replaced by that of a newer flow on its key, not by that of an older one', () => {
  const one = among()
  for (const number of [5, 6, 5]) one.sayInBand(1, FlowOpen, { flow: idOf(number), epoch: 1, node: 1, key: 1 })
  one.turn()
  assert.deepEqual([phases(one), one.node.anomalies], [['6 opening 1'], { 'opening-replaced': 1 }])
})

test('prepared flows are bounded to half of that, and by flow records and aliases', () => {
  const one = among({ runtimeLimits: { absentFlows: 4, aliasesPerFlow: 2 } })
  const tail = (aliases: number): Uint8Array => Uint8Array.from({ length: aliases * ALIAS_BYTES }, (_, i) => 1 + i % 200)
  assert.deepEqual(prepare(one, 9, { tail: tail(3) }), [`PrepareFlowReply 12 code ${MoveRefusal.tooLarge}`])
  assert.deepEqual(prepare(one, 1, { tail: tail(2) }), ['PrepareFlowReply 12'])
  assert.deepEqual(prepare(one, 2, { tail: tail(1) }), [`PrepareFlowReply 12 code ${MoveRefusal.noRoom}`])
  assert.deepEqual(prepare(one, 2), ['PrepareFlowReply 12'])
  assert.deepEqual(prepare(one, 3), [`PrepareFlowReply 12 code ${MoveRefusal.noRoom}`])
  assert.deepEqual(phases(one), ['1 prepared 2', '2 prepared 2'])
  const other = among({ limits: { flows: 2 } })
  open(other, 1)
  assert.deepEqual(prepare(other, 2), ['PrepareFlowReply 12'])
  assert.deepEqual(prepare(other, 3), [`PrepareFlowReply 12 code ${MoveRefusal.noRoom}`])
  assert.deepEqual(prepare(other, 1), [`PrepareFlowReply 12 code ${MoveRefusal.exists}`])
  assert.deepEqual(prepare(other, 2), [`PrepareFlowReply 12 code ${MoveRefusal.busy}`])
})

test('packets of flows that are on their way here are bounded per flow and in total', () => {
  const one = among({ runtimeLimits: { bufferedPerFlow: 3, buffered: 5 } })
  for (const number of [1, 2]) prepare(one, number)
  for (let i = 0; i < 4; i++) one.packet(1, frameOf(1))
  one.turn()
  assert.deepEqual([one.node.dropReasons(), one.node.packets.buffered], [{ 'move-buffer': 1 }, 3])
  for (let i = 0; i < 3; i++) one.packet(2, frameOf(2))
  one.turn()
  assert.deepEqual([one.node.dropReasons(), one.node.packets.buffered], [{ 'move-buffer': 2 }, 5])
})

test('an ICMP error about a flow on its way here goes back to its switch when the move is called off', () => {
  const one = among()
  prepare(one, 1)
  one.packet(2, buildFrame({ source: '10.0.0.2', destination: '10.0.0.1', icmp: { type: 3, code: 1, quote: frameOf(1).subarray(14) } })).turn()
  assert.deepEqual([one.node.packets.buffered, one.take()], [1, []])
  one.say(12, AbortFlow, { flow: idOf(1), epoch: 2 })
  assert.deepEqual(one.turn(2).take().sort(), ['=ReturnPacket 2', 'AbortFlowReply 12'])
  assert.deepEqual([one.node.dropReasons(), one.node.packets.buffered], [{}, 0])
})

test('a packet too long for a message does not go back with its flow', () => {
  const one = among()
  prepare(one, 1)
  one.packet(1, frameOf(1)).packet(1, frameOf(1, 'x'.repeat(13_000))).packet(1, frameOf(1)).turn()
  one.say(12, AbortFlow, { flow: idOf(1), epoch: 3 })
  assert.deepEqual(one.turn(2).take(), ['BufferedPacket 12', 'BufferedPacket 12', 'AbortFlowReply 12'])
  assert.deepEqual(one.node.dropReasons(), { 'message-too-long': 1 })
  one.packet(1, frameOf(7, 'x'.repeat(13_000))).turn()
  assert.deepEqual([one.node.dropReasons(), one.node.anomalies], [{ 'message-too-long': 1, 'no-owner': 1 }, { 'message-too-long': 1 }])
})

// -- Flows that go -------------------------------------------------------------------------------------------------------

test('moves at once are bounded, and so are orders', () => {
  const one = among({ runtimeLimits: { movesOut: 2, orders: 2 } })
  open(one, 1, 2, 3, 4, 5)
  const order = (): string => one.node.setMigrationTarget(12, 5).code
  assert.deepEqual([order(), order(), order()], ['', '', 'NF_MOVE_ORDERS'])
  assert.deepEqual(one.turn(5).take(), ['PrepareFlow 12', 'PrepareFlow 12'])
  one.say(12, PrepareFlowReply, { flow: idOf(1), epoch: 2, code: MoveRefusal.noRoom })
  one.say(12, PrepareFlowReply, { flow: idOf(2), epoch: 2, code: MoveRefusal.noRoom })
  assert.deepEqual(one.turn(5).take(), ['PrepareFlow 12'], 'after refusals half of it')
  assert.equal(one.node.openSteps.preparing, 1)
})

test('a flow that has just come, or has been refused elsewhere, is not moved for a while', () => {
  const one = among({ times: { residenceUs: 50_000 } })
  open(one, 1)
  one.node.setMigrationTarget(12, 1)
  one.turn(2).say(12, PrepareFlowReply, { flow: idOf(1), epoch: 2, code: MoveRefusal.noRoom }).turn(2)
  one.node.setMigrationTarget(12, 1)
  assert.deepEqual(one.turn(5).take(), ['PrepareFlow 12'])
  one.turn(1, 60_000)
  one.node.setMigrationTarget(12, 1)
  assert.deepEqual(one.turn(3).take(), ['PrepareFlow 12'])
})

test('packets that come back with a move that is off are bounded', () => {
  const one = among({ runtimeLimits: { buffered: 3 }, times: { moveTimeoutUs: 10_000 } })
  moveTo(one, 'rerouting')
  one.turn(1, 11_000).take()
  assert.deepEqual(one.turn().take(), ['RerouteFlow 1', 'RerouteFlow 2', 'AbortFlow 12'])
  for (let i = 0; i < 4; i++) {
    one.say(12, BufferedPacket, { flow: idOf(1), epoch: 3, node: 1, tail: frameOf(1) })
  }
  one.turn()
  assert.deepEqual([one.node.dropReasons(), one.node.packets.buffered], [{ 'move-buffer': 1 }, 3])
  for (const id of [1, 2]) one.sayInBand(id, RerouteFlowReply, { flow: idOf(1), epoch: 2 })
  one.say(12, AbortFlowReply, { flow: idOf(1), epoch: 3 })
  one.take()
  assert.deepEqual(one.turn(2).take(), ['packet out 2', 'packet out 2', 'packet out 2'])
  assert.deepEqual(phases(one), ['1 active 3'])
})

test('packets held while a flow is taken back are bounded; its timers fire as soon as it goes on', () => {
  const fired: number[] = []
  const ticker = defineNf({
    name: 'ticker', version: 1, flowState: struct({ packets: u32 }),
    create: (_config, context) => ({
      processPacket(_packet, state) {
        if (state.packets++ === 0) context.timer.set(5000)
        return Verdict.Forward
      },
      timerFired() { fired.push(one.now) },
    }),
  })
  const one = among({ chain: [{ definition: ticker, config: {} }], runtimeLimits: { bufferedPerFlow: 2 } })
  moveTo(one, 'handing')
  one.say(12, InstallFlowReply, { flow: idOf(1), epoch: 2, code: MoveRefusal.noRoom }).turn()
  for (let i = 0; i < 3; i++) one.packet(1, frameOf(1))
  one.turn()
  assert.deepEqual([one.node.dropReasons(), one.node.packets.buffered, phases(one)], [{ 'move-buffer': 1 }, 2, ['1 takingBack 3']])
  one.turn(20, 1000)
  assert.deepEqual(fired, [])
  for (const id of [1, 2]) one.say(id, Go, { flow: idOf(1), epoch: 3 })
  one.say(12, AbortFlowReply, { flow: idOf(1), epoch: 3 }).turn()
  const { now } = one
  one.turn(20, 200)
  assert.equal(fired.length, 1)
  assert.ok((fired[0] as number) - now <= 1000, `it fired ${(fired[0] as number) - now} us late`)
})

test('a straggler for which there is no message is dropped', () => {
  const one = among()
  moveTo(one, 'handing')
  one.packet(1, frameOf(1)).packet(1, frameOf(1, 'x'.repeat(13_000))).turn(2)
  assert.deepEqual([one.take(), one.node.dropReasons()], [['BufferedPacket 12 code 1'], { straggler: 1 }])
})

test('flows that were given on are remembered for copies that ask late, so many of them: the oldest is forgotten', () => {
  const one = among({ timeouts: { udp: 1e6 } })
  const giveOn = (first: number, last: number): void => {
    const numbers = Array.from({ length: last - first + 1 }, (_, index) => first + index)
    for (const number of numbers) {
      one.sayInBand(1, FlowOpen, { flow: idOf(number), epoch: 1, node: 1, key: number }).packet(1, frameOf(number))
    }
    one.turn()
    one.node.setMigrationTarget(12, numbers.length)
    one.turn()
    for (const number of numbers) one.say(12, PrepareFlowReply, { flow: idOf(number), epoch: 2 })
    one.turn()
    for (const number of numbers) for (const id of [1, 2]) one.sayInBand(id, RerouteFlowReply, { flow: idOf(number), epoch: 2 })
    one.turn(2)
    for (const number of numbers) one.say(12, InstallFlowReply, { flow: idOf(number), epoch: 2 })
    one.turn(2)
    assert.deepEqual(phases(one), [])
  }
  const ask = (number: number): string[] => {
    one.take()
    one.say(13, AskFlow, { flow: idOf(number), epoch: 1, key: number })
    return one.turn(2).take()
  }
  for (let first = 1; first <= 1024; first += 16) giveOn(first, first + 15)
  assert.deepEqual([ask(1), one.node.moves.out.completed], [['AskFlowReply 13 code 1'], 1024])
  giveOn(1025, 1025)
  assert.deepEqual([1, 2, 1025].map(ask), [['AskFlowReply 13'], ['AskFlowReply 13 code 1'], ['AskFlowReply 13 code 1']])
})

// -- Flows that end, aliases ---------------------------------------------------------------------------------------------

test('closings at once are bounded; the next flow waits for its turn', () => {
  const one = among({ runtimeLimits: { closings: 1 }, timeouts: { udp: 1 } })
  open(one, 1, 2)
  const close = (): string[] => one.turn(20, 100_000).take()
  assert.deepEqual(close(), ['CloseFlow 1', 'CloseFlow 2'])
  const [first = 0] = [...one.node.flows()].filter(({ phase }) => phase === 'closing').map(({ flow }) => flow)
  for (const id of [1, 2]) one.sayInBand(id, CloseFlowReply, { flow: first, epoch: 1 })
  assert.deepEqual(close().sort(), ['=FlowClosed 1 code 1', '=FlowClosed 2 code 1', 'CloseFlow 1', 'CloseFlow 2'])
  assert.equal(phases(one).length, 1)
})

/** Claims source port + 10,000, + 10,001 ... for each packet of a flow. */
const answers: number[] = []
const claimer = defineNf({
  name: 'claimer', version: 1, flowState: struct({ claimed: u16 }),
  create: (_config, context) => ({
    processPacket(packet, state) {
      const port = packet.sourcePort
      packet.sourcePort = port + 10_000 + state.claimed++
      const answer = context.alias.claim(packet)
      packet.sourcePort = port
      answers.push(answer)
      return Verdict.Forward
    },
    aliasClaimed() {},
  }),
})

function grant(one: RuntimeAmongScripts): void {
  const said = one.said.get('ClaimAlias') as Uint8Array
  const reply = said.slice(0, ClaimAliasReply.bytes)
  reply[MessageField.type] = ClaimAliasReply.type
  one.raw(1, false, reply).turn()
}

test('claims at once, aliases of a flow and packets that wait for a claim are bounded', () => {
  answers.length = 0
  const one = among({ chain: [{ definition: claimer, config: {} }], runtimeLimits: { claims: 1, aliasesPerFlow: 2, bufferedPerFlow: 2 } })
  open(one, 1, 2)
  assert.deepEqual(answers, [AliasClaim.pending, AliasClaim.refused])
  assert.equal(one.node.openSteps.claiming, 1)
  for (let i = 0; i < 3; i++) {
    one.packet(2, buildFrame({ source: '10.0.0.2', destination: '10.0.0.1', udp: { sourcePort: 53, destinationPort: 11_001 } }))
  }
  one.turn()
  assert.deepEqual([one.node.dropReasons(), one.node.packets.buffered], [{ 'alias-buffer': 1 }, 2])
  grant(one)
  for (let i = 0; i < 2; i++) {
    one.packet(1, frameOf(1)).turn(2)
    if (one.node.openSteps.claiming === 1) grant(one)
  }
  assert.equal(one.node.engine.aliases.size, 2)
  assert.equal(answers.at(-1), AliasClaim.refused)
})

// -- Turns ---------------------------------------------------------------------------------------------------------------

test('a turn takes a bounded number of frames from each link and of control messages', () => {
  const one = among({ limits: { packets: 512 } })
  for (let i = 0; i < 300; i++) one.packet(1, frameOf(i)).packet(2, frameOf(i))
  const before = one.node.packets.received
  assert.equal(one.node.poll(one.now), true)
  assert.equal(one.node.packets.received - before, 256)
})

test('no link is read while one has no room for all that may come of a batch', () => {
  const one = among()
  open(one, 1)
  one.setRoom(2, 287)
  for (let i = 0; i < 5; i++) one.packet(1, frameOf(1))
  one.turn(3)
  assert.deepEqual([one.node.packets.received, one.take()], [1, []])
  one.setRoom(2, 288)
  one.turn(2)
  assert.deepEqual([one.node.packets.received, one.node.dropReasons(), one.take().length], [6, {}, 5])
})

test('while a switch does not keep up with what it is told, others are not read, and nothing is lost', () => {
  const drop = defineNf({ name: 'drop', version: 1, flowState: struct({ packets: u32 }), dropReasons: { unwanted: 'not wanted' },
    create: (_config, context) => ({ processPacket: () => context.drop.unwanted }) })
  const one = among({ chain: [{ definition: drop, config: {} }], limits: { flows: 2048, packets: 512 },
    runtimeLimits: { absentFlows: 2048 } })
  open(one, 1)
  one.silent.add(2)
  for (let number = 2; number <= 1000; number++) {
    one.sayInBand(1, FlowOpen, { flow: idOf(number), epoch: 1, node: 1, key: number }).packet(1, frameOf(number))
    one.turn(1, 10)
  }
  const { received } = one.node.packets
  assert.ok(received > 300 && received < 700, `${received} packets were taken`)
  one.turn(20, 100)
  assert.equal(one.node.packets.received, received)
  one.silent.delete(2)
  one.turn(200, 100)
  assert.equal(one.node.packets.received, 1000)
  assert.equal(one.log.filter((line) => line === '=Bind 2').length, 999)
})

/** So many flows whose packets have not come. */
function openings(one: RuntimeAmongScripts, count: number): void {
  for (let number = 1; number <= count; number++) {
    one.sayInBand(1, FlowOpen, { flow: idOf(number), epoch: 1, node: 1, key: number })
    if (number % 20 === 0) one.turn()
  }
  one.turn()
}

const many = { runtimeLimits: { absentFlows: 2048 }, limits: { flows: 2048 } }

test('packets without an actor go back while their switch keeps up, and are dropped when it does not', () => {
  const one = among({ limits: { packets: 512 } })
  open(one, 1)
  one.packet(1, frameOf(2)).turn(2)
  one.silent.add(1)
  for (let number = 2; number < 102; number++) one.packet(1, frameOf(number, 'x'.repeat(1000)))
  one.turn()
  const dropped = one.node.dropReasons()['no-owner'] as number
  assert.ok(dropped > 50 && dropped < 70, `${dropped} were dropped`)
  one.silent.delete(1)
  assert.equal(one.turn(10).take().filter((line) => line === '=ReturnPacket 1').length, 1 + 100 - dropped)
})

test('a restarted switch is told of openings as it keeps up, however many there are', () => {
  const one = among(many)
  openings(one, 800)
  one.restart(1, 201)
  const said = one.turn(50).take().filter((line) => line.endsWith(' 1'))
  assert.equal(said.filter((line) => line === 'AnnounceFlow 1').length, 800)
  assert.equal(said.at(-1), 'AnnounceDone 1')
})

test('a restarted switch is not told that this is all while a link has yet to be read: flows may open in it', () => {
  const one = among(many)
  one.setRoom(2, 0)
  one.packet(2, frameOf(1)).sayInBand(2, FlowOpen, { flow: idOf(1), epoch: 1, node: 1, key: 1 }).packet(2, frameOf(1))
  one.restart(1, 201)
  assert.ok(!one.turn(50).take().includes('AnnounceDone 1'))
  one.setRoom(2, Infinity)
  assert.ok(one.turn(9).take().includes('AnnounceDone 1'))
  assert.equal([...one.node.flows()].length, 1)
})

test('flows of fenced sources are claimed as switches keep up, and then the configuration is applied', () => {
  const one = among(many)
  for (let number = 1; number <= 800; number++) {
    one.say(12 + number % 2, PrepareFlow, { flow: idOf(number), epoch: 2, key: number,
      words: { [PrepareFlowLayout]: one.node.engine.layoutHash } })
    if (number % 20 === 0) one.turn()
  }
  one.turn(2)
  one.take()
  one.configure({ runtimes: one.config.runtimes.filter(({ id }) => id === SELF) })
  const said = one.turn(50).take()
  for (const id of [1, 2]) {
    const mine = said.filter((line) => line.split(' ')[1] === `${id}`)
    assert.equal(mine.filter((line) => line === `RerouteFlow ${id} code 1`).length, 800)
    assert.equal(mine.at(-1), `ConfigApplied ${id}`)
  }
})

test('flows that may choose are asked some at a time; one that asks from a timer is asked too, once', () => {
  let asked = 0
  let isQuiet = true
  const restless = defineNf({
    name: 'restless', version: 1, flowState: struct({ packets: u32 }),
    create: (_config, context) => ({
      processPacket() {
        context.timer.set(2000)
        return Verdict.Forward
      },
      timerFired() { for (let i = 0; i < 1000; i++) context.reconsider() },
      migrationTarget() {
        asked++
        return isQuiet ? null : 12
      },
    }),
  })
  const one = among({ chain: [{ definition: restless, config: {} }], limits: { flows: 128 }, runtimeLimits: { absentFlows: 128 } })
  for (let number = 1; number <= 100; number++) open(one, number)
  one.turn(10, 1000)
  asked = 0
  one.configure({})
  one.node.poll(one.now)
  assert.equal(asked, 64)
  one.node.poll(one.now)
  assert.equal(asked, 100)
  open(one, 101)
  isQuiet = false
  asked = 0
  assert.ok(one.turn(5, 1000).take().includes('PrepareFlow 12'), 'no packet has come since')
  assert.equal(asked, 1)
})

// -- Commands that cannot be ---------------------------------------------------------------------------------------------

test('orders that contradict are refused with a code, and change nothing', () => {
  const one = among()
  one.configure({ runtimes: one.config.runtimes.map((entry) => ({ ...entry, isDraining: entry.id === 13 })) })
  open(one, 1)
  const order = (target: number, number = 1): string => one.node.setMigrationTarget(target, number).code
  assert.equal(order(SELF), 'NF_MOVE_SELF')
  assert.equal(order(99), 'NF_MOVE_UNKNOWN_RUNTIME')
  assert.equal(order(1), 'NF_MOVE_UNKNOWN_RUNTIME', 'a switch is no runtime')
  assert.equal(order(13), 'NF_MOVE_DRAINING')
  for (const number of [0, -1, 1.5, NaN, Infinity]) assert.equal(order(12, number), 'NF_MOVE_NUMBER')
  for (const share of [-0.1, 1.1, NaN]) assert.equal(one.node.setMigrationTarget(12, 1, share).code, 'NF_MOVE_SHARE')
  one.configure({ runtimes: one.config.runtimes.filter(({ id }) => id !== 12) })
  one.take()
  assert.equal(order(12), 'NF_MOVE_UNKNOWN_RUNTIME', 'a fenced one')
  assert.deepEqual([one.turn(5).take().filter((line) => !line.startsWith('ConfigApplied')), phases(one)], [[], ['1 active 1']])
  assert.equal(one.node.moves.out.started, 0)
})

test('without replication a flow whose target dies as it goes back is claimed at the switches, and gets no replica', () => {
  const one = among()
  for (const id of [12, 13]) one.say(id, AnnounceChain, { tail: new TextEncoder().encode(JSON.stringify(one.node.engine.layout)) })
  moveTo(one, 'rerouting')
  one.turn(3, 1_000_000)
  assert.deepEqual(phases(one), ['1 aborting 3'])
  one.take()
  one.configure({ runtimes: one.config.runtimes.filter(({ id }) => id !== 12) })
  for (const id of [1, 2]) one.sayInBand(id, RerouteFlowReply, { flow: idOf(1), epoch: 2 })
  const told = one.turn(3).take()
  assert.deepEqual(told.filter((line) => !line.startsWith('ConfigApplied')).sort(),
    ['=Drained 1', '=Drained 2', 'RerouteFlow 1', 'RerouteFlow 2'])
  for (const id of [1, 2]) {
    one.say(id, Go, { flow: idOf(1), epoch: 4 })
    for (const code of [2, 1]) one.sayInBand(id, RerouteFlowReply, { flow: idOf(1), epoch: 4, code })
  }
  assert.deepEqual(one.turn(5).take(), [])
  assert.deepEqual([phases(one), one.node.openSteps.securing, one.node.unprotected, one.node.degraded], [['1 active 4'], 0, 0, 0])
})

test('what was ordered before its target is fenced is forgotten', () => {
  const one = among({ runtimeLimits: { movesOut: 1 } })
  open(one, 1, 2)
  one.node.setMigrationTarget(12, 2)
  assert.deepEqual(one.turn(2).take(), ['PrepareFlow 12'])
  one.configure({ runtimes: one.config.runtimes.filter(({ id }) => id !== 12) })
  one.turn(5)
  assert.deepEqual([phases(one), one.node.moves.out.started], [['1 active 1', '2 active 1'], 1])
})

test('a target that is full refuses, and the flow stays as it was', () => {
  const one = among()
  open(one, 1)
  assert.equal(one.node.setMigrationTarget(12, 1).code, '')
  one.turn(2).say(12, PrepareFlowReply, { flow: idOf(1), epoch: 2, code: MoveRefusal.noRoom }).turn(2)
  assert.deepEqual([phases(one), one.node.moves.refusals, one.take()], [['1 active 1'], { noRoom: 1 }, ['PrepareFlow 12']])
})

test('draining twice is draining once; a draining runtime takes no flow', () => {
  const one = among()
  one.node.setDraining(true, one.now)
  one.node.setDraining(true, one.now)
  assert.deepEqual(one.turn(2).take(), ['StopPlacing 1 code 1', 'StopPlacing 2 code 1', 'StopPlacing 12 code 1', 'StopPlacing 13 code 1'])
  assert.deepEqual(prepare(one, 1), [`PrepareFlowReply 12 code ${MoveRefusal.draining}`])
  one.node.setDraining(false, one.now)
  one.node.setDraining(false, one.now)
  assert.deepEqual([one.turn(2).take(), one.node.openSteps.draining],
    [['StopPlacing 1', 'StopPlacing 2', 'StopPlacing 12', 'StopPlacing 13'], 0])
  assert.deepEqual(prepare(one, 1), ['PrepareFlowReply 12'])
})

test('a configuration that is old, of another cluster, without this runtime, or cannot be is refused', () => {
  const one = among()
  const { switches, runtimes, version } = one.config
  const entry = (id: number, incarnation = id) => ({ id, incarnation, side: 'egress' as const, isHome: false })
  assert.equal(one.configure({ version }), false)
  assert.equal(one.configure({ clusterId: 2 }), false)
  assert.equal(one.configure({ runtimes: runtimes.filter(({ id }) => id !== SELF) }), false)
  assert.equal(one.configure({ runtimes: runtimes.map((runtime) => ({ ...runtime, incarnation: 7 })) }), false)
  assert.equal(one.configure({ switches: Array.from({ length: 9 }, (_, i) => entry(i + 1)) }), false, 'too many switches')
  assert.equal(one.configure({ switches: [entry(12)] }), false, 'an id twice')
  for (const id of [0, -1, 1.5, 256]) assert.equal(one.configure({ switches: [entry(id, 5)] }), false, `id ${id}`)
  for (const incarnation of [-1, 0.5, 2 ** 21]) assert.equal(one.configure({ switches: [entry(1, incarnation)] }), false)
  assert.deepEqual(one.turn(2).take(), [])
  assert.equal(one.configure({ switches: [...switches] }), true)
})

// -- Messages that cannot be ---------------------------------------------------------------------------------------------

test('short, long, unknown, misplaced and stale messages are counted by reason and ignored', () => {
  const one = among()
  open(one, 1)
  for (const isInBand of [false, true]) {
    one.raw(1, isInBand, new Uint8Array(3))
    one.raw(1, isInBand, Uint8Array.of(200, ...new Uint8Array(15)))
    one.raw(1, isInBand, Uint8Array.of(Go.type, ...new Uint8Array(Go.bytes)))
    one.raw(1, isInBand, Uint8Array.of(FlowOpen.type, ...new Uint8Array(20)))
  }
  one.turn()
  const { anomalies } = one.node
  assert.deepEqual({ ...anomalies }, { 'malformed-message': 8 })
  one.sayInBand(1, PrepareFlow, { flow: 5 }).say(12, FlowOpen, { flow: 5 }).say(12, AnnounceFlow, { flow: 5 }).say(1, ClaimAlias).turn()
  assert.equal(anomalies['unexpected-message'], 4)
  const late: [MessageKind, boolean, string][] = [[PrepareFlowReply, false, 'late-move-reply'], [InstallFlowReply, false, 'late-move-reply'],
    [AbortFlowReply, false, 'late-abort-reply'], [Go, false, 'late-go'], [RerouteFlowReply, true, 'late-reroute-reply'],
    [CloseFlowReply, true, 'late-close-reply'], [ClaimAliasReply, false, 'late-alias-reply'], [InstallFlow, false, 'unexpected-record']]
  for (const [kind, isInBand, reason] of late) {
    const before = anomalies[reason] ?? 0
    const said = { flow: idOf(1), epoch: 7 }
    if (isInBand) one.sayInBand(1, kind, said)
    else one.say(12, kind, said)
    one.turn()
    assert.equal(anomalies[reason], before + 1, kind.name)
  }
  // A record that nobody waits for is the source's.
  assert.deepEqual([one.turn().take(), phases(one)], [[`InstallFlowReply 12 code ${MoveRefusal.unknown}`], ['1 active 1']])
})

test('a chain that cannot be, or cannot give its flows, is not taken for one that can', () => {
  const one = among()
  const { layout } = one.node.engine
  const announce = (value: unknown): string[] => {
    const text = typeof value === 'string' ? value : JSON.stringify(value)
    one.say(12, AnnounceChain, { tail: new TextEncoder().encode(text) }).turn()
    let hash = 0x811c9dc5
    for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
    return prepare(one, 1, { words: { [PrepareFlowLayout]: hash >>> 0 } })
  }
  const refusal = [`PrepareFlowReply 12 code ${MoveRefusal.otherChain}`]
  const [nf] = layout.nfs
  for (const value of ['{', 'null', '[]', '{"recordBytes":256}', { ...layout, nfs: [null] }, { ...layout, nfs: [{ ...nf, stateBytes: 1e9 }] },
    { ...layout, nfs: [{ ...nf, extents: [-4] }] }, { ...layout, recordBytes: 1e9 }]) {
    const before = one.node.anomalies['malformed-message'] ?? 0
    assert.deepEqual(announce(value), refusal)
    assert.equal(one.node.anomalies['malformed-message'], before + 1, JSON.stringify(value))
  }
  const { anomalies } = one.node
  const before = { ...anomalies }
  assert.deepEqual(announce({ ...layout, nfs: [{ ...nf, version: 7 }] }), refusal, 'there is no upgrade')
  assert.deepEqual(announce({ ...layout, nfs: [{ ...nf, name: 'other' }] }), refusal)
  assert.deepEqual(announce({ ...layout, nfs: [] }), refusal)
  assert.deepEqual(announce({ ...layout, nfs: [{ ...nf, stateBytes: 4 }] }), refusal, 'the version is ours, the size is not')
  assert.deepEqual(announce({ ...layout, recordBytes: layout.recordBytes + 64 }), ['PrepareFlowReply 12'])
  assert.deepEqual(anomalies, before)
})

test('a chain whose description is longer than a message is not told, and nothing waits for it', () => {
  const wide = defineNf({ name: 'wide', version: 1,
    flowState: struct(Object.fromEntries(Array.from({ length: 900 }, (_, i) => [`aFieldWithALongName${i}`, u32]))),
    create: () => ({ processPacket: () => Verdict.Forward }) })
  const one = among({ chain: [{ definition: wide, config: {} }] })
  assert.equal(one.node.anomalies['message-too-long'], 2)
  assert.ok(one.turn(5).node.nextDue() > one.now + 1000)
})

test('fuzz: whatever is said, every packet is accounted for, and the node goes on', () => {
  for (let seed = 1; seed <= 12; seed++) {
    const random = new Random(seed)
    const one = among({ limits: { flows: 12, packets: 128 }, times: { moveTimeoutUs: 20_000 }, timeouts: { udp: 1 },
      runtimeLimits: { absentFlows: 12, bufferedPerFlow: 4, buffered: 16, closings: 3, movesOut: 3 } })
    const kinds = messageKinds().filter(({ type }) => type !== AnnounceChain.type)
    for (let step = 0; step < 400; step++) {
      const number = 1 + random.below(8)
      const draw = random.below(10)
      if (draw < 3) one.packet(1 + random.below(2), frameOf(number))
      else if (draw === 3) one.sayInBand(1, FlowOpen, { flow: idOf(number), epoch: 1, node: 1, key: number })
      else if (draw === 4) one.node.setMigrationTarget(12 + random.below(2), 1)
      else {
        const kind = kinds[random.below(kinds.length)] as MessageKind
        const isKeyed = kind.bytes >= 72
        const said: Words = { flow: idOf(1 + random.below(9)), epoch: random.below(5), node: random.below(14), code: random.below(4),
          ...isKeyed ? { key: number } : {},
          words: kind === PrepareFlow ? { [PrepareFlowLayout]: one.node.engine.layoutHash } : {},
          ...kind.hasTail ? { tail: random.fill(new Uint8Array(random.below(80))) } : {} }
        if (random.chance(0.4)) one.sayInBand(1 + random.below(2), kind, said)
        else one.say([1, 2, 12, 13][random.below(4)] as number, kind, said)
      }
      one.turn(1, random.chance(0.02) ? 1_200_000 : 300)
    }
    assert.ok(Object.keys(one.node.anomalies).length > 4)
  }
})

test('AbortFlow may name switches that there are not', () => {
  const one = among()
  prepare(one, 1)
  one.say(12, AbortFlow, { flow: idOf(1), epoch: 3, words: { [AbortFlowSwitches]: 0x6363_6302 } })
  assert.deepEqual(one.turn(2).take(), [])
  one.sayInBand(2, RerouteFlowReply, { flow: idOf(1), epoch: 3 })
  assert.deepEqual(one.turn(2).take(), ['AbortFlowReply 12'])
  one.say(12, RerouteFlow, { flow: idOf(1) }).turn()
  assert.equal(one.node.anomalies['unexpected-message'], 1)
})
