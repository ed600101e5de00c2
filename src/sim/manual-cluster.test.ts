import { test } from 'node:test'
import assert from 'node:assert/strict'
import { buildFrame, layersOf, sideCounter } from '../testing/index.ts'
import { ManualCluster } from './manual-cluster.ts'

const there = (n: number, port = 7): Uint8Array =>
  buildFrame({ source: '10.0.0.1', destination: '10.0.0.2', udp: { sourcePort: port, destinationPort: 53, payload: `there ${n}` } })
const back = (n: number, port = 7): Uint8Array =>
  buildFrame({ source: '10.0.0.2', destination: '10.0.0.1', udp: { sourcePort: 53, destinationPort: port, payload: `back ${n}` } })
const payloads = (frames: readonly Uint8Array[]): string[] => frames.map((frame) => {
  const { transport, end } = layersOf(frame)
  return String.fromCharCode(...frame.subarray(transport + 8, end))
})
const chain = () => [{ definition: sideCounter(), config: {} }]

test('a flow opens, is served in both directions, moves with its state, and closes', () => {
  const cluster = new ManualCluster({ chain, timeouts: { udp: 1 } })
  cluster.turn(10)
  cluster.inject('ingress', there(1))
  cluster.turn(5)
  cluster.inject('egress', back(1))
  cluster.turn(5)
  assert.deepEqual(payloads(cluster.left.egress), ['there 1'])
  assert.deepEqual(payloads(cluster.left.ingress), ['back 1'])
  assert.deepEqual([...cluster.left.egress[0] as Uint8Array], [...there(1)], 'the frame is as it was, addresses too')
  const source = [11, 12].find((id) => [...cluster.runtime(id).flows()].length > 0) as number
  const target = source === 11 ? 12 : 11
  assert.deepEqual(cluster.runtime(source).setMigrationTarget(target, 1), { accepted: true, code: '' })
  for (let n = 2; n < 30; n++) {
    cluster.inject('ingress', there(n))
    cluster.inject('egress', back(n))
    cluster.turn(1)
  }
  cluster.turn(10)
  assert.deepEqual(payloads(cluster.left.egress), Array.from({ length: 29 }, (_, i) => `there ${i + 1}`))
  assert.deepEqual(payloads(cluster.left.ingress), Array.from({ length: 29 }, (_, i) => `back ${i + 1}`))
  assert.deepEqual([...cluster.runtime(source).flows()].length, 0)
  assert.deepEqual([...cluster.runtime(target).flows()].map(({ phase, epoch }) => [phase, epoch]), [['active', 2]])
  assert.equal(cluster.runtime(source).moves.out.completed, 1)
  cluster.turn(50, 100_000)
  for (const id of [1, 2]) assert.equal(cluster.switch(id).entries, 0)
  assert.equal([...cluster.runtime(target).flows()].length, 0)
  cluster.dispose()
})
