/** An engine that is watched does what it does unwatched; and the bounds of watches, each reached. */

import assert from 'node:assert/strict'
import { mock, test } from 'node:test'
import { Arena } from '../memory/arena.ts'
import firewall from '../nfs/firewall/firewall.ts'
import http from '../nfs/http/http.ts'
import monitor from '../nfs/monitor/monitor.ts'
import type { RuntimeNode } from '../node/runtime-node.ts'
import { Descriptor, DESCRIPTOR_BYTES } from '../packet/descriptor.ts'
import { buildFrame } from '../testing/packet-builder.ts'
import { firstDifference, outcomeOf, type Outcome } from '../testing/run-outcome.ts'
import { syntheticTraces } from '../testing/synthetic-traces.ts'
import { TestRuntime, type TestPacket } from '../testing/test-runtime.ts'
import { createMemoryPorts } from '../transport/memory-port.ts'
import { FrameRecorder, type CaptureTaken } from './frame-recorder.ts'
import { NodeWatcher } from './node-watcher.ts'
import { PacketTrace } from './packet-trace.ts'
import { TraceRecorder, type TraceTaken } from './trace-recorder.ts'

/** What a recorder knows of a node. */
const asNode = (engine: TestRuntime['engine']): RuntimeNode => ({ kind: 'runtime', engine, flowOf: () => 1, epochOf: () => 1 }) as never

function run(packets: readonly TestPacket[], watched: 'trace' | 'capture' | ''): { outcome: Outcome, counts: unknown, seen: number } {
  const chain = [{ definition: monitor, config: {} },
    { definition: firewall, config: firewall.config?.parse({ rules: ['drop to port 443', 'reset to port 22'] }) },
    { definition: http, config: http.config?.parse({}) }]
  const runtime = new TestRuntime(chain as never, { batch: 32 })
  const { engine } = runtime
  const recorder = watched === 'trace' ? new TraceRecorder(engine.arena, asNode(engine), () => true)
    : new FrameRecorder(engine.arena, () => true, 1e9, 1e12, asNode(engine))
  let seen = 0
  if (watched !== '') {
    engine.watchPackets({
      dropped: (slot, reason) => { recorder.dropped(slot, reason) }, held: () => undefined, stepped: () => undefined,
      running: (d) => { recorder.running(d) },
      ran: (d) => {
        recorder.ran(d)
        seen++
      },
    })
  }
  runtime.feedAll(packets)
  runtime.finish()
  const { errors, dropReasons, inUse } = runtime.result()
  assert.deepEqual([errors, runtime.conservationFault], [[], ''])
  const outcome = outcomeOf(runtime.outputs, runtime.ended, runtime.records)
  runtime.dispose()
  return { outcome, counts: { dropReasons, inUse }, seen }
}

test('an engine does the same while it is traced or captured, and every packet is seen', () => {
  for (const { name, packets } of syntheticTraces(11)) {
    const alone = run(packets, '')
    for (const watched of ['trace', 'capture'] as const) {
      const found = run(packets, watched)
      assert.equal(firstDifference(alone.outcome, found.outcome), '', `${name}, ${watched}`)
      assert.deepEqual(found.counts, alone.counts, `${name}, ${watched}`)
      assert.ok(found.seen === packets.length, `${name}: ${found.seen} of ${packets.length} packets`)
    }
  }
})

test('events that nobody takes are bounded, in a node and over all', () => {
  const recorder = new TraceRecorder(new Arena(1 << 20), { kind: 'switch' } as never, () => true)
  for (let i = 0; i < 16_384 + 7; i++) recorder.message(11, 'Go', i, 1)
  const { events, lost } = recorder.take()
  assert.deepEqual([events.length, lost], [16_384, 7])
  recorder.message(11, 'Go', 1, 1)
  assert.deepEqual([recorder.take().events.length, recorder.take().lost], [1, 7])
  const trace = new PacketTrace(1)
  for (let i = 0; i < 13; i++) trace.add(1, events)
  assert.equal(trace.lost, 13 * 16_384 - 200_000)
  assert.equal(trace.messages(new Set([5])).length, 13)
})

test('packets that a network function has changed are followed, a bounded number of them', () => {
  const arena = new Arena(4 << 20)
  const at = arena.allocate('frame', 128)
  const d = arena.allocate('descriptor', DESCRIPTOR_BYTES) >> 2
  const engine = { dropCounts: new Float64Array(1), outputCount: 0, output: () => d, statistics: { taken: 0, emitted: 0 },
    chain: { nfs: [], dropReasons: ['no-owner'] } }
  const frameFrom = (sourcePort: number, i: number): number => {
    const frame = buildFrame({ udp: { sourcePort, destinationPort: 53, payload: `packet ${i}` } })
    arena.u8.set(frame, at)
    arena.i32[d + Descriptor.frame] = at
    return arena.i32[d + Descriptor.length] = frame.length
  }
  // Asked for are those from port 1000; the network function makes it 2000.
  const isAsked = (u8: Uint8Array, frame: number): boolean => (u8[frame + 34] as number) * 256 + (u8[frame + 35] as number) === 1000
  const recorder = new TraceRecorder(arena, asNode(engine as never), isAsked)
  const watch = recorder.portWatch(0, { kind: 'link', peer: 1 } as never)
  for (let i = 0; i < 1024 + 7; i++) {
    engine.outputCount = 0
    frameFrom(1000, i)
    recorder.running(d)
    const length = frameFrom(2000, i)
    engine.outputCount = 1
    recorder.ran(d)
    watch.sending?.(at, length)
  }
  const { events } = recorder.take()
  assert.deepEqual(['chain', 'out'].map((what) => events.filter((event) => event.at === what).length), [1024 + 7, 1024])
})

test('watches of a node are bounded, and end when nobody takes', (context) => {
  mock.timers.enable({ apis: ['setTimeout'] })
  context.after(() => { mock.timers.reset() })
  const arena = new Arena(32 << 20)
  const at = arena.allocate('frame', 64)
  const frame = buildFrame({ udp: {} })
  arena.u8.set(frame, at)
  const [port] = createMemoryPorts(arena, { frames: 64, frameBytes: 128, reserved: 2 })
  let watching: unknown = null
  const node = { kind: 'switch', watchPackets: (watch: unknown) => { watching = watch } }
  const { methods } = new NodeWatcher({
    arena, name: () => 'ingress', node: () => node as never, ports: () => [{ kind: 'external', peer: 0, port }] })
  const call = <T>(method: string, params: Record<string, unknown>): T => methods[method]?.(params) as T
  const begin = (kind: string): number => call<{ watch: number }>('StartWatch', { kind, packets: 100, bytes: 1e6 }).watch
  const { send } = port
  const watches = Array.from({ length: 8 }, (_, i) => begin(i % 2 === 0 ? 'capture' : 'trace'))
  assert.throws(() => begin('trace'), { code: 'NF_CLUSTER', message: 'ingress has 8 captures and traces already' })
  port.send(at, frame.length)
  mock.timers.tick(4_000)
  const [capture, trace] = watches
  assert.equal(call<CaptureTaken>('TakeWatch', { watch: capture }).frames.length, 1)
  assert.equal(call<TraceTaken>('TakeWatch', { watch: trace }).events.length, 1)
  // Six have not been taken from for five seconds.
  mock.timers.tick(1_001)
  for (const watch of watches.slice(2)) assert.throws(() => call('TakeWatch', { watch }), { code: 'NF_CLUSTER' })
  begin('trace')
  for (const watch of [capture, trace]) call('TakeWatch', { watch })
  mock.timers.tick(5_001)
  for (const watch of [capture, trace]) assert.throws(() => call('TakeWatch', { watch }), { code: 'NF_CLUSTER' })
  assert.equal(watching, null)
  assert.equal(port.send, send, 'the port is what it was')
})
