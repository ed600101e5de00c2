/**
 * Commands, reports, events and status are the same objects after their way through the protocol, JSON or binary.
 */

import { create, fromBinary, fromJsonString, toBinary, toJsonString } from '@bufbuild/protobuf'
import type { DescMessage, MessageInitShape, MessageShape } from '@bufbuild/protobuf'
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Hello, NodeCommand, Report } from '../controller/node-commands.ts'
import { PortStatistics } from '../ports/link-port.ts'
import { ClusterEventSchema } from './generated/nfactor/v1/controller_pb.ts'
import { NodeCommandSchema, NodeReportSchema, NodeStatusSchema, NotifyClusterConfigRequestSchema } from './generated/nfactor/v1/node_pb.ts'
import { commandMessage, commandOf, eventMessage, eventOf, reportMessage, reportOf } from './node-messages.ts'
import { plainOf, structOf } from './plain-message.ts'

/** What arrives of a message. */
function bothWays<T extends DescMessage>(schema: T, init: MessageInitShape<T>): MessageShape<T>[] {
  const message = create(schema, init)
  return [fromBinary(schema, toBinary(schema, message)), fromJsonString(schema, toJsonString(schema, message))]
}

const config = {
  version: 3, clusterId: 0xffffffff, switches: [{ id: 1, incarnation: 0, side: 'ingress' as const, isHome: true }],
  runtimes: [{ id: 11, incarnation: 2 ** 21 - 1, isDraining: false }],
}
const life = { node: 11, incarnation: 5, generation: 0 }

test('commands', () => {
  const commands: NodeCommand[] = [
    { kind: 'configure', term: 2, config, generation: 0, fenced: [life] },
    { kind: 'set-replicas', term: 2, version: 4, replicas: [12, 13] },
    { kind: 'recover', term: 2, generation: 1, dead: [life, life] },
    { kind: 'move', term: 2, order: 1, target: 12, flows: 100 },
    { kind: 'welcome', term: 0, nonce: 'x', incarnation: 7 },
    { kind: 'grant-block', term: 2, pool: 'nat', block: 0 },
  ]
  for (const command of commands) {
    for (const message of bothWays(NodeCommandSchema, commandMessage(command))) assert.deepEqual(commandOf(message), command)
  }
  assert.equal(commandOf(create(NodeCommandSchema, { term: 1 })), undefined)
})

test('reports', () => {
  const words = [{ peer: 1, heardAgoUs: Infinity, owedUs: 0 }]
  const common = { node: 11, incarnation: 3, pausedUs: 1.5, words, configVersion: 3, generation: 2 }
  const reports: (Report | Hello)[] = [
    { kind: 'runtime', ...common, isReady: true, busyPerMille: 12.5, flows: 2 ** 33, packetsPerSecond: 1e6, dropsPerSecond: 0, queueDepth: 1,
      nfErrorsPerSecond: 0.25, replicasVersion: 1, recovered: 2, order: { number: 1, open: 0, moved: 5, refused: 0 }, isEmpty: false,
      blocksInUse: ['nat/1'], blocksWanted: [{ pool: 'nat', held: 0 }] },
    { kind: 'switch', ...common },
    { node: 1, nonce: 'abc' },
  ]
  for (const report of reports) {
    for (const message of bothWays(NodeReportSchema, reportMessage(report))) assert.deepEqual(reportOf(message), report)
  }
  assert.equal(reportOf(create(NodeReportSchema, {})), undefined)
})

test('events', () => {
  const event = { number: 1, time: '2026-01-01T00:00:00.000Z', event: 'node-died', node: 'runtime-1', text: 'it ended', status: 70, signal: null,
    output: ['a', { b: true }] }
  for (const message of bothWays(ClusterEventSchema, eventMessage(event))) assert.deepEqual(eventOf(message), event)
  const { node: _, ...without } = event
  for (const message of bothWays(ClusterEventSchema, eventMessage(without))) assert.deepEqual(eventOf(message), without)
})

test('configurations and status, as those have them that know nothing of protobuf', () => {
  for (const message of bothWays(NotifyClusterConfigRequestSchema, { config })) assert.deepEqual(plainOf(message), { config })
  const status = {
    kind: 'switch', id: 1, name: 'ingress', incarnation: 2, pid: 2 ** 22, configVersion: 1, isReady: true,
    workload: {
      busyUs: 1, asleepUs: 2, timeUs: 2 ** 53 - 1, received: 0, forwarded: 0, dropped: 0, buffered: 0, flows: 1, replicas: 0, isEmpty: true },
    dropReasons: { 'link-full': 2 ** 40 }, anomalies: {}, openSteps: { moving: 1 },
    links: [{ peer: 11, name: '', isUp: true, lastEnd: '', ...new PortStatistics() }],
    external: { name: 'tap', isUp: true, lastEnd: '', ...new PortStatistics(), rxFrames: 9 },
    moves: structOf({ completed: 3, left: undefined, nested: { a: [1, 'x', null] } }),
  }
  for (const message of bothWays(NodeStatusSchema, status)) {
    assert.deepEqual(plainOf(message), { ...status, moves: { completed: 3, nested: { a: [1, 'x', null] } } })
  }
  // Every count of a port has its field.
  const fields = NodeStatusSchema.field.external.message?.fields.map(({ localName }) => localName) ?? []
  assert.deepEqual(Object.keys(new PortStatistics()).filter((key) => !fields.includes(key)), [])
})
