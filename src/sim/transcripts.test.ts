/**
 * Transcripts: real exchanges of the cluster protocols, as text in testdata/transcripts. A test compares; to write them anew after
 * a change that is meant:
 *
 *     NFACTOR_UPDATE=1 node --test src/sim/transcripts.test.ts
 */

import { test } from 'node:test'
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { planted } from '../base/planted-bugs.ts'
import { buildFrame, sideCounter, translator } from '../testing/index.ts'
import { Transcript } from './transcript.ts'
import type { ManualCluster } from './manual-cluster.ts'

const folder = new URL('../../testdata/transcripts/', import.meta.url)
const there = (payload: string, port = 7): Uint8Array =>
  buildFrame({ source: '10.0.0.1', destination: '10.0.0.2', udp: { sourcePort: port, destinationPort: 53, payload } })
const back = (payload: string, port = 7): Uint8Array =>
  buildFrame({ source: '10.0.0.2', destination: '10.0.0.1', udp: { sourcePort: 53, destinationPort: port, payload } })
const chain = () => [{ definition: sideCounter(), config: {} }]

/** The runtime that has the flow, and the other one. */
function placed(cluster: ManualCluster): [number, number] {
  const owner = [11, 12].find((id) => [...cluster.runtime(id).flows()].length > 0) as number
  return [owner, owner === 11 ? 12 : 11]
}

/** A flow with a packet each way. */
function openFlow(t: Transcript): [number, number] {
  t.inject('ingress', there('one'))
  t.turn(5)
  t.inject('egress', back('ONE'))
  t.turn(5)
  return placed(t.cluster)
}

function check(name: string, t: Transcript, after?: (cluster: ManualCluster) => void): void {
  const text = t.text()
  const file = new URL(`${name}.txt`, folder)
  if (process.env.NFACTOR_UPDATE !== undefined) writeFileSync(file, text)
  after?.(t.cluster)
  t.cluster.dispose()
  assert.equal(text, readFileSync(file, 'utf8'))
}

const owners = (cluster: ManualCluster): string[] => [11, 12].flatMap((id) => (cluster.nodes.has(id)
  ? [...cluster.runtime(id).flows()].map(({ phase, epoch }) => `${id} ${phase} ${epoch}`) : []))

test('opening', () => {
  const t = new Transcript('A flow opens', `
    Paper §5.2, PROTOCOL 1, 2, 4. The first packet of a flow comes to its home switch, which places the flow and tells the runtime ahead of
    the packet. The runtime makes the actor and tells the other switch ahead of what leaves. The answer finds the same actor.`, { chain })
  openFlow(t)
  check('opening', t, (cluster) => { assert.equal(owners(cluster).length, 1) })
})

test('opening from the other side, and from both at once', () => {
  const t = new Transcript('A flow opens from the servers\' side, another from both sides at once', `
    PROTOCOL 1. A switch that is not a flow's home holds the packets and asks. When both switches see a new flow at the same time, the
    home places it once, and both open it at the same runtime.`, { chain })
  t.say('A server speaks first.')
  t.inject('egress', back('ONE'))
  t.turn(6)
  t.say('Client and server speak at the same time.')
  t.inject('ingress', there('two', 8))
  t.inject('egress', back('TWO', 8))
  t.turn(6)
  check('opening-from-both-sides', t, (cluster) => { assert.equal(owners(cluster).length, 2) })
})

test('move', () => {
  const t = new Transcript('A move', `
    Paper §5.4.1, PROTOCOL 7, 9. Three request-responses: the target prepares, every switch re-points and sends its word behind its last
    packet, the record goes over. The source's Drained behind its last packet lets each switch say Go to the new owner.`, { chain })
  const [source, target] = openFlow(t)
  t.say(`Runtime ${source} is told to move one flow to runtime ${target}, while packets go on coming.`)
  t.cluster.runtime(source).setMigrationTarget(target, 1)
  for (const word of ['two', 'three', 'four', 'five', 'six']) {
    t.inject('ingress', there(word))
    t.inject('egress', back(word.toUpperCase()))
    t.turn(1)
  }
  t.turn(6)
  check('move', t, (cluster) => {
    assert.deepEqual(owners(cluster), [`${target} active 2`])
    assert.equal(cluster.left.egress.length, 6)
    assert.equal(cluster.left.ingress.length, 6)
  })
})

test('refused by the target', () => {
  const t = new Transcript('A move that the target refuses', `
    Refusal is a normal outcome: the target has no room, the flow stays where it is and is as it was.`, { chain, limits: { flows: 1 } })
  openFlow(t)
  t.inject('ingress', there('other', 9))
  t.turn(5)
  t.cluster.runtime(11).setMigrationTarget(12, 1)
  t.turn(4)
  t.inject('ingress', there('two'))
  t.turn(4)
  check('move-refused', t, (cluster) => { assert.deepEqual(owners(cluster), ['11 active 1', '12 active 1']) })
})

test('time-out while preparing', () => {
  const t = new Transcript('A target that does not answer PrepareFlow in time', `
    PROTOCOL 7: before the record is sent the source may call a move off. No switch has been told yet. The flow may move again when the
    target has answered.`, { chain })
  const [source, target] = openFlow(t)
  t.cluster.wire(target, source).isHeld = true
  t.cluster.runtime(source).setMigrationTarget(target, 1)
  t.turn(4)
  t.say('The answer is late.')
  t.turn(2, 30_000)
  t.say('It comes, and the target\'s word that it has forgotten the flow.')
  t.cluster.wire(target, source).isHeld = false
  t.turn(6)
  t.inject('ingress', there('two'))
  t.turn(4)
  check('move-timeout-preparing', t, (cluster) => { assert.deepEqual(owners(cluster), [`${source} active 1`]) })
})

test('abort after one switch was re-pointed', () => {
  const t = new Transcript('A move that is called off after one switch was re-pointed', `
    PROTOCOL 8: an abort behind step 2 is a move back at the next epoch. The target returns what it has buffered; the source runs that
    first, then what it has held.`, { chain })
  const [source, target] = openFlow(t)
  t.say('Switch 2 does not hear of the move.')
  t.cluster.wire(source, 2).isHeld = true
  t.cluster.runtime(source).setMigrationTarget(target, 1)
  t.turn(4)
  t.say('Packets from the client go to the target, which buffers them.')
  t.inject('ingress', there('two'))
  t.inject('egress', back('TWO'))
  t.turn(3)
  t.say('The source gives up waiting for switch 2.')
  t.turn(2, 30_000)
  t.inject('ingress', there('three'))
  t.turn(4)
  t.say('Switch 2 hears of both, one after the other.')
  t.cluster.wire(source, 2).isHeld = false
  t.turn(8)
  t.inject('ingress', there('four'))
  t.inject('egress', back('FOUR'))
  t.turn(5)
  check('move-aborted', t, (cluster) => {
    assert.deepEqual(owners(cluster), [`${source} active 3`])
    assert.equal(cluster.left.egress.length, 4)
    assert.equal(cluster.left.ingress.length, 3)
  })
})

test('lost last answer', () => {
  const t = new Transcript('The answer to the record is late', `
    PROTOCOL 7: sending the record is the commit point. No timer gives the flow back; the target serves it all the while, and there is
    one owner.`, { chain })
  const [source, target] = openFlow(t)
  t.cluster.runtime(source).setMigrationTarget(target, 1)
  t.turn(5)
  t.cluster.wire(target, source).isHeld = true
  t.inject('ingress', there('two'))
  t.turn(4)
  t.say('Time passes. The source waits; the target serves.')
  t.turn(3, 60_000)
  t.inject('ingress', there('three'))
  t.turn(4)
  t.cluster.wire(target, source).isHeld = false
  t.turn(6)
  check('move-late-answer', t, (cluster) => {
    assert.deepEqual(owners(cluster), [`${target} active 2`])
    assert.equal(cluster.left.egress.length, 3)
  })
})

test('target fenced behind the commit point', () => {
  const t = new Transcript('The target dies with the record', `
    PROTOCOL 7, 18: only the target's fencing gives the flow back. The source still has the record, and takes the flow back at the next
    epoch.`, { chain })
  const [source, target] = openFlow(t)
  t.cluster.wire(target, source).isHeld = true
  t.cluster.wire(source, target).isHeld = false
  t.cluster.runtime(source).setMigrationTarget(target, 1)
  t.turn(1)
  t.cluster.wire(target, source).isHeld = false
  t.turn(2)
  t.cluster.wire(source, target).isHeld = true
  t.turn(4)
  t.say(`Runtime ${target} dies; a packet comes before anybody knows.`)
  t.cluster.kill(target)
  t.inject('ingress', there('two'))
  t.turn(3)
  t.say('It is fenced.')
  t.cluster.fence(target, false)
  t.turn(6)
  t.inject('ingress', there('three'))
  t.turn(5)
  check('move-target-dies', t, (cluster) => { assert.deepEqual(owners(cluster), [`${source} active 3`]) })
})

test('close races with a late packet', () => {
  const t = new Transcript('A close races with a late packet', `
    PROTOCOL 3: a flow ends behind the last packet of every switch. A packet that comes meanwhile cancels the close; the flow goes on with
    its state. When nothing comes, it ends everywhere.`, { chain, timeouts: { udp: 0.05 } })
  openFlow(t)
  t.say('The flow is idle. A packet is under way while the switches are asked.')
  t.turn(4, 12_000)
  t.inject('ingress', there('two'))
  t.turn(1, 2100)
  t.turn(6)
  t.say('Nothing comes any more.')
  t.turn(4, 30_000)
  t.turn(5)
  t.say('The next packet opens another flow.')
  t.inject('ingress', there('three'))
  t.turn(5)
  check('close-races-with-packet', t, (cluster) => { assert.equal(owners(cluster).length, 1) })
})

test('switch restart in the middle of a move', () => {
  const t = new Transcript('A switch dies and comes back in the middle of a move', `
    PROTOCOL 21. The switch has answered RerouteFlow and dies before Drained. In its next life it holds unknown packets until every runtime
    has announced its flows, the one on its way among them.`, { chain })
  const [source, target] = openFlow(t)
  t.cluster.wire(source, target).isHeld = false
  t.cluster.wire(source, 2).isHeld = true
  t.cluster.runtime(source).setMigrationTarget(target, 1)
  t.turn(5)
  t.say('Switch 1 has answered; switch 2 has not heard yet. Switch 1 dies.')
  t.cluster.kill(1)
  t.turn(2)
  t.say('It is back, and a packet comes at once.')
  t.cluster.fence(1, true)
  t.inject('ingress', there('two'))
  t.turn(6)
  t.cluster.wire(source, 2).isHeld = false
  t.turn(10)
  t.inject('ingress', there('three'))
  t.inject('egress', back('THREE'))
  t.turn(5)
  check('switch-restart-in-move', t, (cluster) => {
    assert.deepEqual(owners(cluster), [`${target} active 2`])
    assert.equal(cluster.left.egress.length, 3)
  })
})

test('alias', () => {
  const t = new Transcript('A translated flow claims an alias key', `
    PROTOCOL 5. A network function gives the flow another source port. The tuple's home grants it when every switch knows it; until then
    the packet is held. The answer to the translated port finds the flow, also after a move.`,
  { chain: () => [{ definition: translator(), config: { first: 20_000, ports: 1, attempts: 4 } }] })
  t.inject('ingress', there('one'))
  t.turn(6)
  t.inject('egress', back('ONE', 20_000))
  t.turn(4)
  const [source, target] = placed(t.cluster)
  t.say('The flow moves, and its alias with it.')
  t.cluster.runtime(source).setMigrationTarget(target, 1)
  t.turn(8)
  t.inject('egress', back('TWO', 20_000))
  t.turn(4)
  t.say('Another flow wants the same port, and is refused until there is none left to try.')
  t.inject('ingress', there('other', 8))
  t.turn(16)
  check('alias', t, (cluster) => {
    assert.equal(cluster.left.egress.length, 1)
    assert.equal(cluster.left.ingress.length, 2)
  })
})

test('the transcripts are of the protocols without planted bugs', () => {
  assert.ok(Object.values(planted).every((isOn) => !isOn))
})
