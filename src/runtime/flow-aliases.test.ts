import { test } from 'node:test'
import assert from 'node:assert/strict'
import { buildFragments, buildFrame, layersOf, recorder, runPackets, saw, sideCounter, TestRuntime, translator } from '../testing/index.ts'

const there = (port: number, payload: string): Uint8Array =>
  buildFrame({ source: '10.0.0.1', destination: '10.0.0.2', udp: { sourcePort: port, destinationPort: 53, payload } })
const back = (port: number, payload: string): Uint8Array =>
  buildFrame({ source: '10.0.0.2', destination: '10.0.0.1', udp: { sourcePort: 53, destinationPort: port, payload } })
const ports = (frame: Uint8Array): [number, number] => {
  const { transport } = layersOf(frame)
  return [(frame[transport] << 8) | frame[transport + 1], (frame[transport + 2] << 8) | frame[transport + 3]]
}

test('translated packets come back to their flow, in the right direction', () => {
  for (const wasm of [true, false]) {
    const runtime = new TestRuntime([sideCounter(), translator(), recorder()], { wasm })
    runtime.feed(there(7, 'a'))
    runtime.feed(there(8, 'b'))
    runtime.flush()
    const translated = runtime.outputs.map(({ frame }) => ports(frame)[0])
    assert.equal(new Set(translated).size, 2)
    assert.ok(translated.every((port) => port >= 20_000))
    runtime.feed(back(translated[1] as number, 'B'))
    runtime.feed(back(translated[0] as number, 'A'))
    runtime.feed(there(7, 'aa'))
    runtime.finish()
    const { outputs, flows, inUse } = runtime.result()
    assert.deepEqual(outputs.slice(2).map(({ frame }) => ports(frame)), [[53, 8], [53, 7], [translated[0], 53]])
    assert.deepEqual(flows.map((flow) => flow.state.counter).sort((x, y) => y.forward - x.forward),
      [{ forward: 2, reverse: 1 }, { forward: 1, reverse: 1 }])
    assert.deepEqual(saw(runtime.result()), ['a', 'b', 'B', 'A', 'aa'])
    assert.equal(runtime.engine.aliases.size, 0)
    assert.equal(inUse.flows, 0)
    runtime.dispose()
  }
})

test('a flow that begins with a fragment is translated as any other one', () => {
  const datagram = buildFragments({ source: '10.0.0.1', destination: '10.0.0.2', identification: 1,
    udp: { sourcePort: 7, destinationPort: 53, payload: 'x'.repeat(100) } }, 48)
  const { outputs, dropReasons } = runPackets([translator(), recorder()], datagram)
  assert.deepEqual(dropReasons, {})
  assert.equal(outputs.length, datagram.length)
  assert.ok((ports(outputs[0].frame)[0] as number) >= 20_000)
  assert.deepEqual(outputs.slice(1).map(({ frame }) => frame), datagram.slice(1))
})

test('an alias that another flow has is refused; a flow may have it when the other has ended', () => {
  const chain = [{ definition: translator(), config: { first: 20_000, ports: 1, attempts: 2 } }]
  const { outputs, dropReasons, counters } = runPackets(chain, [there(7, 'a'), there(8, 'b'), there(7, 'c')])
  assert.deepEqual(outputs.map(({ frame }) => ports(frame)[0]), [20_000, 20_000])
  assert.deepEqual(dropReasons, { 'translator-no-port': 1 })
  assert.deepEqual(counters.translator, { claimed: 0, refused: 2 })
  const runtime = new TestRuntime(chain, { timeouts: { udp: 1 } })
  runtime.feed(there(7, 'a'))
  runtime.advanceTo(runtime.time + 2e6)
  runtime.feed(there(8, 'b'))
  runtime.flush()
  assert.deepEqual(runtime.outputs.map(({ frame }) => ports(frame)[0]), [20_000, 20_000])
  runtime.dispose()
})

test('the table of aliases is bounded', () => {
  const frames = Array.from({ length: 5 }, (_, i) => there(i + 1, 'x'))
  const { outputs, dropReasons } = runPackets(translator(), frames, { limits: { aliases: 3 } })
  assert.equal(outputs.length, 3)
  assert.deepEqual(dropReasons, { 'translator-no-port': 2 })
})
