/**
 * Transcripts of flows with two replicas, in testdata/transcripts. They are written anew like the others (transcripts.test.ts), and each
 * says what has left in the end.
 */

import { test } from 'node:test'
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { buildFrame, sideCounter } from '../testing/index.ts'
import type { ManualCluster } from './manual-cluster.ts'
import { Transcript } from './transcript.ts'

const folder = new URL('../../testdata/transcripts/', import.meta.url)
const there = (payload: string): Uint8Array =>
  buildFrame({ source: '10.0.0.1', destination: '10.0.0.2', udp: { sourcePort: 7, destinationPort: 53, payload } })

/** The only owner that there is. */
function ownerOf(cluster: ManualCluster): { id: number; flow: number } {
  const owners = [...cluster.nodes.values()].flatMap((node) => (node.kind === 'runtime'
    ? [...node.flows()].map(({ flow }) => ({ id: node.id, flow })) : []))
  assert.equal(owners.length, 1)
  return owners[0]
}

interface Chain {
  readonly owner: number
  readonly first: number
  readonly tail: number
}

/** Opens a flow with a packet; then `scene` happens, and another packet comes. All of `left` must have left, once and in order. */
function scene(name: string, title: string, about: string, left: readonly string[], happens: (t: Transcript, chain: Chain) => void): void {
  test(title, () => {
    const t = new Transcript(title, about, { chain: () => [{ definition: sideCounter(), config: {} }], runtimes: 4, replication: 'commit',
      replicas: 2 })
    t.inject('ingress', there('one'))
    t.turn(7)
    const { id: owner, flow } = ownerOf(t.cluster)
    const first = [...t.cluster.nodes.values()].find((node) => node.kind === 'runtime' && (node.keptRecord(flow)?.place?.successor ?? 0) !== 0)
    const tail = [...t.cluster.nodes.values()].find((node) => node.kind === 'runtime' && (node.keptRecord(flow)?.place?.predecessor ?? 0) !== 0)
    happens(t, { owner, first: first?.id ?? 0, tail: tail?.id ?? 0 })
    t.inject('ingress', there('last'))
    t.turn(8)
    const text = t.text()
    const file = new URL(`${name}.txt`, folder)
    if (process.env.NFACTOR_UPDATE !== undefined) writeFileSync(file, text)
    const packets = t.cluster.left.egress.map((frame) => /one|two|three|last/.exec(new TextDecoder('latin1').decode(frame))?.[0])
    ownerOf(t.cluster)
    t.cluster.dispose()
    assert.deepEqual(packets, left)
    assert.equal(text, readFileSync(file, 'utf8'))
  })
}

/** These die at once, and are fenced when all else has happened that can. */
function die(t: Transcript, ...ids: number[]): void {
  for (const id of ids) t.cluster.kill(id)
  t.turn(3)
  t.say(ids.length === 1 ? 'It is fenced.' : 'They are fenced.')
  t.cluster.fence(ids, false)
  t.turn(24)
}

scene('chain', 'A step goes through a chain of two replicas', `
  PROTOCOL 12-14. The owner sends the first replica the step, which stores it and hands it on; the tail stores it, and the packet leaves from
  there. What the tail has the first tells the owner, which keeps the packet until then.`, ['one', 'two', 'last'], (t, { first, tail }) => {
  t.say(`The next packet. Runtime ${first} is the first replica, runtime ${tail} the tail.`)
  t.inject('ingress', there('two'))
  t.turn(7)
})

scene('chain-owner-dies', 'The owner of a chain dies, and a step has not come to the tail', `
  PROTOCOL 14: the first replica is promoted, and what it holds leaves, as much of it as no switch has had.`, ['one', 'two', 'last'],
(t, { owner, first, tail }) => {
  t.say(`A step does not get from runtime ${first} to the tail, runtime ${tail}; then runtime ${owner} dies.`)
  t.cluster.wire(first, tail).isHeld = true
  t.inject('ingress', there('two'))
  t.turn(3)
  t.cluster.kill(owner)
  t.cluster.wire(first, tail).frames.length = 0
  t.cluster.wire(first, tail).isHeld = false
  die(t, owner)
})

scene('chain-first-dies', 'The first replica of a chain dies with a step', `
  PROTOCOL 14: the owner gives the flow a new chain. The tail before, which lives, says with Drained how far it has come, and what it never had
  leaves again.`, ['one', 'two', 'last'], (t, { first, tail }) => {
  t.say(`A step does not get from runtime ${first} to the tail, runtime ${tail}; then runtime ${first} dies.`)
  t.cluster.wire(first, tail).isHeld = true
  t.inject('ingress', there('two'))
  t.turn(3)
  die(t, first)
})

scene('chain-tail-dies', 'The tail of a chain dies with a step that has left', `
  PROTOCOL 14: the owner gives the flow a new chain. The switches say how many frames they have accepted from the dead, so nothing leaves
  twice.`, ['one', 'two', 'last'], (t, { first, tail }) => {
  t.say(`A step leaves from the tail, runtime ${tail}, which dies before runtime ${first} hears so.`)
  t.cluster.wire(tail, first).isHeld = true
  t.inject('ingress', there('two'))
  t.turn(5)
  die(t, tail)
})

scene('chain-two-die', 'The owner and the first replica of a chain die at once', `
  PROTOCOL 14, 18: the tail has every step that has left. It asks every other runtime, for the chain may have been replaced, and is promoted.`,
['one', 'two', 'last'], (t, { owner, first }) => {
  t.inject('ingress', there('two'))
  t.turn(7)
  t.say(`Runtimes ${owner} and ${first} die.`)
  die(t, owner, first)
})
