/**
 * Flows that do not fit: with more state than a message between runtimes holds, or more aliases than their target has room for. They
 * cannot move, and must come to no harm by being told to.
 */

import { test } from 'node:test'
import assert from 'node:assert/strict'
import http from '../nfs/http/http.ts'
import { AliasClaim, bool, chain, defineNf, struct, u16, u32, Verdict } from '../nf/index.ts'
import { buildFrame } from '../testing/index.ts'
import type { TrafficPacket } from './capture-traffic.ts'
import { ManualCluster } from './manual-cluster.ts'
import { runMovingCluster } from './moving-cluster.ts'
import { movedDifference } from './moving-outcome.ts'

/** Keeps what it sees, up to 31 KB: in a manual cluster a message has 12,000 bytes at most. */
const log = defineNf({
  name: 'log', version: 1, flowState: struct({ packets: u32, log: chain({ blocks: 64 }) }),
  create: () => ({
    processPacket(packet, state) {
      state.packets++
      state.log.append(packet.payloadOffset, packet.payloadLength)
      return Verdict.Forward
    },
  }),
})

const frame = (n: number): Uint8Array => buildFrame({ source: '10.0.0.1', destination: '10.0.0.2',
  udp: { sourcePort: 7, destinationPort: 53, payload: `${n} `.padEnd(1000, '.') } })

// The runtime ends: "a message is not too long for its session".
test('a flow that is too large for a message stays, and goes on without a pause', () => {
  const cluster = new ManualCluster({ chain: () => [{ definition: log, config: {} }] })
  cluster.turn(10)
  for (let n = 0; n < 16; n++) {
    cluster.inject('ingress', frame(n))
    cluster.turn(2)
  }
  const from = [11, 12].find((id) => [...cluster.runtime(id).flows()].length > 0) as number
  cluster.runtime(from).setMigrationTarget(from === 11 ? 12 : 11, 1)
  cluster.turn(2)
  for (let n = 16; n < 32; n++) {
    cluster.inject('ingress', frame(n))
    cluster.turn(3)
    assert.equal(cluster.left.egress.length, n + 1, 'no packet waits for a move that cannot be')
  }
  assert.equal(cluster.runtime(from).moves.out.completed, 0)
  assert.deepEqual([...cluster.runtime(from).flows()].map(({ phase }) => phase), ['active'])
  cluster.dispose()
})

/** A connection with a long head on each side that is not complete, and behind a hole many segments that have come too early. */
function unfinished(): TrafficPacket[] {
  const traffic: TrafficPacket[] = []
  const next = [101, 501]
  const send = (side: 0 | 1, payload: string, flags = 16): void => {
    const ends = side === 0 ? { source: '10.0.0.1', destination: '10.0.0.2' } : { source: '10.0.0.2', destination: '10.0.0.1' }
    const ports = side === 0 ? { sourcePort: 1000, destinationPort: 80 } : { sourcePort: 80, destinationPort: 1000 }
    const sequence = flags === 16 ? next[side] : (next[side] as number) - 1
    const acknowledgement = side === 0 ? 501 : 101
    traffic.push({ time: traffic.length * 100, side, flow: 'one',
      frame: buildFrame({ ...ends, tcp: { ...ports, sequence, acknowledgement, flags, payload } }) })
    next[side] = (next[side] as number) + payload.length
  }
  send(0, '', 2)
  send(1, '', 18)
  send(0, 'GET / HTTP/1.1\r\n')
  send(1, 'HTTP/1.1 200 OK\r\n')
  for (let i = 0; i < 8; i++) for (const side of [0, 1] as const) send(side, `x${i}: `.padEnd(1298, 'y').concat('\r\n'))
  next[0] = (next[0] as number) + 100
  next[1] = (next[1] as number) + 100
  for (let i = 0; i < 40; i++) for (const side of [0, 1] as const) send(side, 'z'.repeat(1300))
  return traffic
}

// With messages of the ordinary length: the http function may keep 190 KB for a flow, a message has 131,064 bytes.
test('a connection whose state is larger than any message comes to no harm', () => {
  const run = (movesPerCent: number) => runMovingCluster({ traffic: unfinished(), seed: 1, movesPerCent,
    chain: () => [{ definition: http, config: http.config?.parse({}) }] })
  assert.equal(movedDifference(run(0), run(60)), '')
})

/** Sends what comes from the opener from another port, and takes answers there. */
const renamer = defineNf({
  name: 'renamer', version: 1, flowState: struct({ original: u16, port: u16, granted: bool }),
  create: (_config, context) => ({
    processPacket(packet, state) {
      if (packet.direction !== 0) {
        if (packet.destinationPort === state.port) packet.destinationPort = state.original
        return Verdict.Forward
      }
      if (!state.granted) {
        if (context.held.count > 0) return Verdict.Hold
        state.original = packet.sourcePort
        state.port = state.original + 10_000
        packet.sourcePort = state.port
        const answer = context.alias.claim(packet)
        packet.sourcePort = state.original
        if (answer === AliasClaim.pending) return Verdict.Hold
        state.granted = answer === AliasClaim.granted
      }
      if (state.granted) packet.sourcePort = state.port
      return Verdict.Forward
    },
    aliasClaimed(state, granted) {
      state.granted = granted
      context.held.retry()
    },
  }),
})

// The target takes the flow and forgets the alias: answers to it come back as `no-owner` in the end.
test('a runtime without room for a flow\'s aliases does not take it', () => {
  const cluster = new ManualCluster({ chain: () => [{ definition: renamer, config: {} }], limits: { aliases: 4 } })
  cluster.turn(10)
  const ports = [1, 2, 3, 4, 5, 6, 7, 8]
  for (const port of ports) {
    cluster.inject('ingress', buildFrame({ source: '10.0.0.1', destination: '10.0.0.2',
      udp: { sourcePort: port, destinationPort: 53, payload: 'question' } }))
    cluster.turn(10)
  }
  assert.deepEqual([11, 12].map((id) => cluster.runtime(id).engine.aliases.size), [4, 4])
  cluster.runtime(11).setMigrationTarget(12, 1)
  cluster.turn(20)
  for (const port of ports) {
    cluster.inject('egress', buildFrame({ source: '10.0.0.2', destination: '10.0.0.1',
      udp: { sourcePort: 53, destinationPort: port + 10_000, payload: 'answer' } }))
  }
  cluster.turn(100)
  assert.deepEqual([11, 12].map((id) => cluster.runtime(id).dropReasons()), [{}, {}])
  assert.equal(cluster.left.ingress.length, ports.length, 'every answer finds its flow')
  assert.deepEqual([cluster.runtime(11).moves.out.completed, cluster.runtime(11).moves.out.refused], [0, 1])
  cluster.dispose()
})
