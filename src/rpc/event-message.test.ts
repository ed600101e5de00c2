/**
 * Events, configurations and status are the same objects after their way through the protocol, JSON or binary.
 */

import { create, fromBinary, fromJsonString, toBinary, toJsonString } from '@bufbuild/protobuf'
import type { DescMessage, MessageInitShape, MessageShape } from '@bufbuild/protobuf'
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PortStatistics } from '../ports/link-port.ts'
import { ClusterEventSchema } from './generated/nfactor/v1/controller_pb.ts'
import { NodeStatusSchema, NotifyClusterConfigRequestSchema } from './generated/nfactor/v1/node_pb.ts'
import { eventMessage, eventOf } from './event-message.ts'
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
    kind: 'switch', id: 1, name: 'ingress', incarnation: 2, pid: 2 ** 22, startTicks: 7, configVersion: 1, isReady: true,
    workload: {
      busyUs: 1, asleepUs: 2, timeUs: 2 ** 53 - 1, received: 0, forwarded: 0, dropped: 0, buffered: 0, flows: 1, replicas: 0, isEmpty: true,
      emitted: 3, takenOver: 2, handedOver: 1, memoryBytes: 2 ** 31 },
    dropReasons: { 'link-full': 2 ** 40 }, anomalies: {}, openSteps: { moving: 1 },
    links: [{ peer: 11, name: '', isUp: true, lastEnd: '', ...new PortStatistics(), router: {} }],
    external: { name: 'tap', isUp: true, lastEnd: '', ...new PortStatistics(), rxFrames: 9, router: { in: 3 } },
    moves: structOf({ completed: 3, left: undefined, nested: { a: [1, 'x', null] } }),
  }
  for (const message of bothWays(NodeStatusSchema, status)) {
    assert.deepEqual(plainOf(message), { ...status, moves: { completed: 3, nested: { a: [1, 'x', null] } } })
  }
  // Every count of a port has its field.
  const fields = NodeStatusSchema.field.external.message?.fields.map(({ localName }) => localName) ?? []
  assert.deepEqual(Object.keys(new PortStatistics()).filter((key) => !fields.includes(key)), [])
})
