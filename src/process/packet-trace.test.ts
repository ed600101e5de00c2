/**
 * The way of packets out of the events of several nodes; what recorders keep when nobody takes it; and that a port which was watched is what
 * it was before.
 */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Arena } from '../memory/arena.ts'
import { createMemoryPorts } from '../transport/memory-port.ts'
import { compileFrameWords, frameIdentity } from '../ports/frame-words.ts'
import { watchPort } from '../ports/port-watch.ts'
import { buildFrame } from '../testing/packet-builder.ts'
import { FrameRecorder } from './frame-recorder.ts'
import { PacketTrace } from './packet-trace.ts'
import type { TraceEvent } from './trace-recorder.ts'

const udp = { sourcePort: 7, destinationPort: 80, payload: 'abc' }
const frame = buildFrame({ udp })

test('words pick frames as they pick flows', () => {
  const cases: [string, boolean][] = [
    ['', true], ['udp', true], ['tcp', false], ['10.0.0.', true], ['udp 10.0.0.1:7', true], ['10.0.0.1:80', false],
    ['host 10.0.0.2', true],
    ['host 10.0.0.22', false], ['port 80 and udp', true], ['port 8', false], ['not tcp', true], ['not host 10.0.0.1', false], ['UDP', true],
  ]
  for (const [words, fits] of cases) assert.equal(compileFrameWords(words.split(' '))(frame, 0, frame.length), fits, words)
  for (const words of [['host'], ['host', 'x'], ['port', '99999'], ['not']]) {
    assert.throws(() => compileFrameWords(words), /filter/)
  }
})

test('a packet keeps its identity over hops, and another one has another', () => {
  const id = frameIdentity(frame, 0, frame.length)
  assert.match(id, /^udp 10\.0\.0\.1:7 10\.0\.0\.2:80 #[0-9a-f]{8}$/)
  const hop = Uint8Array.from(frame)
  hop.fill(9, 0, 12) // Ethernet addresses
  hop[22] = 3 // time to live
  hop[24] = 0xff // header checksum
  assert.equal(frameIdentity(hop, 0, hop.length), id)
  // In a slot nobody knows where the frame ends.
  assert.equal(frameIdentity(Uint8Array.of(...frame, ...new Uint8Array(500).fill(7)), 0, frame.length + 500), id)
  for (const other of [{ ...udp, payload: 'abd' }, { ...udp, payload: 'abcd' }, { ...udp, sourcePort: 8 }]) {
    const bytes = buildFrame({ udp: other })
    assert.notEqual(frameIdentity(bytes, 0, bytes.length), id)
  }
})

test('a recorder keeps what its bounds allow, and counts the rest', () => {
  const arena = new Arena(32 << 20)
  const at = arena.allocate('frame', 2000)
  const port = (packets: number, bytes: number): [FrameRecorder, (length: number) => void] => {
    const recorder = new FrameRecorder(arena, () => true, packets, bytes)
    const watch = recorder.portWatch(0)
    return [recorder, (length) => { watch.received(at, length, 64) }]
  }
  const [few, seeFew] = port(3, 1e9)
  for (let i = 0; i < 5; i++) seeFew(100)
  assert.deepEqual([few.take().frames.length, few.take().isOver], [3, true])
  const [small, seeSmall] = port(100, 250)
  for (let i = 0; i < 5; i++) seeSmall(100)
  assert.deepEqual([small.take().frames.length, small.take().isOver], [2, true])
  const [slow, seeSlow] = port(1e6, 1e9)
  for (let i = 0; i < 5000; i++) seeSlow(1000)
  const taken = slow.take()
  assert.deepEqual([taken.frames.length, taken.lost, taken.isOver], [4194, 806, false])
  seeSlow(1000)
  slow.dropped(64, 'hold-limit')
  assert.deepEqual(slow.take().frames.map(({ comment }) => comment), ['dropped: hold-limit'])
})

test('a port that is not watched any more is what it was', () => {
  const arena = new Arena(32 << 20)
  const at = arena.allocate('frame', 64)
  const [port] = createMemoryPorts(arena, { frames: 8, frameBytes: 128, reserved: 2 })
  const seen: string[] = []
  const watch = (name: string) => watchPort(arena, port, {
    received: () => undefined, sending: () => { seen.push(`${name} sending`) }, refused: () => { seen.push(`${name} refused`) },
  })
  const before = Object.keys(port)
  const { send } = port
  const [endA, endB] = [watch('a'), watch('b')]
  assert.notEqual(port.send, send)
  assert.equal(port.send(at, 64), true)
  endA()
  while (port.send(at, 64)) seen.push('sent')
  endB()
  endB()
  assert.deepEqual(seen.slice(0, 3), ['a sending', 'b sending', 'b sending'])
  assert.equal(seen.at(-1), 'b refused')
  assert.deepEqual(Object.keys(port), before)
  assert.equal(port.send, send)
})

test('packets that are alike stay apart; what came in too early is not shown', () => {
  const trace = new PacketTrace(2)
  const port = { text: '', macs: '' }
  const at = (time: number, node: number, event: object): void => { trace.add(node, [{ time, id: 'x', ...event } as TraceEvent]) }
  for (const start of [0, 10, 20, 30]) {
    at(start, 1, { at: 'in', port: 'external', peer: 0, ...port })
    at(start + 1, 1, { at: 'out', port: 'link', peer: 11, ...port })
  }
  for (const time of [33, 43, 53]) {
    at(time, 11, { at: 'in', port: 'link', peer: 1, ...port })
    at(time + 1, 11, { at: 'chain', verdict: time === 53 ? 'drop' : 'forward', reason: '', steps: [], flow: 5, epoch: 1, emitted: 0 })
    if (time !== 53) at(time + 2, 2, { at: 'out', port: 'external', peer: 0, ...port })
  }
  trace.since = 5
  assert.deepEqual(trace.packets().map(({ start, end, flow, hops }) => [start, end, flow, hops.map(({ time }) => time)]),
    [[10, 'sent', 5, [10, 11, 43, 44, 45]], [20, 'dropped', 5, [20, 21, 53, 54]]])
  at(60, 11, { at: 'message', peer: 12, name: 'Go', flow: 5, epoch: 2 })
  assert.deepEqual([trace.messages(new Set([5])).length, trace.messages(new Set([6])).length], [1, 0])
})
