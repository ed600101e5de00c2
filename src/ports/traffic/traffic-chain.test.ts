/** The generator's flows through real network functions: they find nothing amiss, and the sink finds nothing missing. */

import { test } from 'node:test'
import assert from 'node:assert/strict'
import { ManualClock } from '../../base/clock.ts'
import { Arena } from '../../memory/arena.ts'
import firewall from '../../nfs/firewall/firewall.ts'
import monitor from '../../nfs/monitor/monitor.ts'
import { Descriptor, DESCRIPTOR_BYTES, DESCRIPTOR_WORDS } from '../../packet/descriptor.ts'
import { PacketPool } from '../../packet/packet-pool.ts'
import { runPackets } from '../../testing/run-packets.ts'
import { createTraffic } from './traffic-generator.ts'

for (const isClosedLoop of [false, true]) {
  test(`a firewall that trusts nobody passes all traffic, ${isClosedLoop ? 'in a closed loop' : 'both sides freely'}`, () => {
    const arena = new Arena(16 << 20)
    const clock = new ManualClock(1e15)
    const pool = new PacketPool(arena, 64, 1)
    const descriptors = arena.allocate('batch', 32 * DESCRIPTOR_BYTES) >> 2
    const traffic = createTraffic({
      arena, seed: 3, clock, flows: 30, tcpShare: 0.7, ipv6Share: 0.4, requestPackets: 12, replyPackets: 7, turns: 3, sizes: 'imix',
      isClosedLoop,
    })
    const packets: { frame: Uint8Array, time: number }[] = []
    for (let round = 0; round < 400; round++) {
      if (round === 100) traffic.drain()
      for (const side of [0, 1] as const) {
        const count = traffic.ports[side].receive(pool, descriptors, 32)
        for (let d = descriptors; d < descriptors + count * DESCRIPTOR_WORDS; d += DESCRIPTOR_WORDS) {
          const [frame, length] = [arena.i32[d + Descriptor.frame], arena.i32[d + Descriptor.length]]
          packets.push({ frame: arena.u8.slice(frame, frame + length), time: clock.now() })
          traffic.ports[1 - side].send(frame, length)
          pool.give(arena.i32[d + Descriptor.slot])
        }
      }
      clock.advanceBy(100)
    }
    assert.equal(traffic.openFlows, 0)
    assert.ok(packets.length > 2000 && traffic.sent.ended > 30, `${packets.length} packets, ${traffic.sent.ended} flows`)
    const { outputs, flows } = runPackets([
      monitor, { definition: firewall, config: { tracking: { midStream: 'drop', invalid: 'drop', windowCheck: true } } },
    ], packets)
    assert.equal(outputs.length, packets.length)
    assert.equal(flows.length, traffic.sent.ended)
    const states = new Set(flows.filter(({ tuple }) => tuple.protocol === 6).map(({ state }) => state.firewall.tcp))
    assert.deepEqual([...states], ['time-wait'])
  })
}
