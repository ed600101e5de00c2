import assert from 'node:assert/strict'
import { test } from 'node:test'
import { buildFrame, runPackets, TcpConversation } from '../../testing/index.ts'
import monitor from './monitor.ts'

test('packets, bytes and flags by direction, sizes, and the flow\'s duration', () => {
  const { packets } = new TcpConversation({ acknowledge: false }).open()
    .client('hello').server('hi').server('x'.repeat(100)).close()
  const { flows, counters, outputs } = runPackets(monitor, packets)
  const lengths = packets.map(({ frame }) => frame.length)
  const bytes = (from: string): number => packets.filter(({ frame }) => frame[29] === Number(from))
    .reduce((sum, { frame }) => sum + frame.length, 0)
  assert.deepEqual(flows.map(({ state }) => state['monitor']), [{
    packets: [5, 4], bytes: [bytes('1'), bytes('2')], lengthMin: Math.min(...lengths), lengthMax: Math.max(...lengths),
    // Forward FIN, SYN, PSH, ACK; reverse the same.
    tcpFlags: [0x1b, 0x1b],
  }])
  assert.deepEqual(counters['monitor'], { packets: 9, bytes: lengths.reduce((sum, length) => sum + length, 0) })
  assert.equal(outputs.length, 9)
  assert.equal((flows[0]?.lastSeen as number) - (flows[0]?.firstSeen as number), 8000)
})

test('a packet longer than its field', () => {
  const frame = buildFrame({ udp: { payload: 'x' } })
  const { flows } = runPackets(monitor, [{ frame, wireLength: 70_000 }, { frame, wireLength: 65_530 }])
  const { bytes, lengthMin, lengthMax } = flows[0]?.state['monitor'] ?? {}
  assert.deepEqual([bytes, lengthMin, lengthMax], [[135_530, 0], 65_530, 65_535])
})
