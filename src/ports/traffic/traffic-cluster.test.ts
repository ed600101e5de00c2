/**
 * The generator's traffic through a whole cluster in one process: two switches, two runtimes, links and control network of memory.
 * The sink is a checker that knows nothing of protocols.
 *
 *     port 0 ─ switch 1 ═ links ═ runtimes 11, 12 ═ links ═ switch 2 ─ port 1
 */

import { test } from 'node:test'
import assert from 'node:assert/strict'
import { ManualClock } from '../../base/clock.ts'
import { defaultLimits, defaultTimeouts } from '../../base/limits.ts'
import { Arena } from '../../memory/arena.ts'
import type { ClusterConfig } from '../../messages/cluster-config.ts'
import firewall from '../../nfs/firewall/firewall.ts'
import monitor from '../../nfs/monitor/monitor.ts'
import { createRuntimeNode, type RuntimeNode } from '../../node/runtime-node.ts'
import { createSwitchNode, type SwitchNode } from '../../node/switch-node.ts'
import { Descriptor, DESCRIPTOR_WORDS } from '../../packet/descriptor.ts'
import { SLOT_FRAME_OFFSET, type PacketPool } from '../../packet/packet-pool.ts'
import type { Port } from '../../packet/port.ts'
import { createMemoryPorts } from '../../transport/memory-port.ts'
import { roundRobin } from '../../vswitch/placement/round-robin.ts'
import { FaultPort, type FaultRates } from '../fault-port.ts'
import { createTraffic, type Traffic } from './traffic-generator.ts'
import type { TrafficOptions } from './traffic-options.ts'

const SESSIONS = { frameBytes: 1514, sendBytes: 32_768, ringBytes: 131_072, messageBytesMax: 12_000 }
const CONFIG: ClusterConfig = {
  version: 1, clusterId: 1,
  switches: [{ id: 1, incarnation: 1, side: 'ingress', isHome: true }, { id: 2, incarnation: 2, side: 'egress', isHome: false }],
  runtimes: [11, 12].map((id) => ({ id, incarnation: id, isDraining: false })),
}
const IDS = [...CONFIG.switches, ...CONFIG.runtimes].map(({ id }) => id)

/** The control network: a frame goes to the node that its destination address ends with. */
class ControlPort implements Port {
  static readonly inboxes = new Map<number, Uint8Array[]>()
  readonly room = 1000
  readonly #arena: Arena
  readonly #inbox: Uint8Array[] = []

  constructor(arena: Arena, id: number) {
    this.#arena = arena
    ControlPort.inboxes.set(id, this.#inbox)
  }

  receive(pool: PacketPool, descriptors: number, max: number): number {
    const { i32, u8 } = this.#arena
    let count = 0
    for (; count < max && this.#inbox.length > 0; count++) {
      const slot = pool.take((this.#inbox[0] as Uint8Array).length)
      if (slot === 0) break
      const frame = this.#inbox.shift() as Uint8Array
      u8.set(frame, slot + SLOT_FRAME_OFFSET)
      const d = descriptors + count * DESCRIPTOR_WORDS
      i32[d + Descriptor.frame] = slot + SLOT_FRAME_OFFSET
      i32[d + Descriptor.length] = i32[d + Descriptor.wireLength] = frame.length
      i32[d + Descriptor.slot] = slot
      i32[d + Descriptor.linkType] = 1
    }
    return count
  }

  send(frame: number, length: number): boolean {
    ControlPort.inboxes.get(this.#arena.u8[frame + 5])?.push(this.#arena.u8.slice(frame, frame + length))
    return true
  }

  sendReserved(frame: number, length: number): boolean {
    return this.send(frame, length)
  }
}

interface Cluster {
  readonly traffic: Traffic
  readonly runtimes: RuntimeNode[]
  readonly switches: SwitchNode[]
  readonly faults: FaultPort[]
  run(turns: number): void
}

/** @param faults what goes wrong between the servers and switch 2 */
function createCluster(options: Partial<TrafficOptions>, faults: FaultRates = {}): Cluster {
  const arena = new Arena(192 << 20)
  const clock = new ManualClock(1e15)
  const traffic = createTraffic({ arena, seed: 1, flows: 60, clock, ...options })
  const links = new Map<string, Port>()
  for (const one of [1, 2]) {
    for (const other of [11, 12]) {
      const [near, far] = createMemoryPorts(arena, { frames: 1024, reserved: 64, frameBytes: 2000 })
      links.set(`${one} ${other}`, near)
      links.set(`${other} ${one}`, far)
    }
  }
  const control = new Map(IDS.map((id) => [id, new ControlPort(arena, id)]))
  const faulty = new FaultPort({ arena, inner: traffic.ports[1], seed: 5, clock, in: faults, out: faults })
  const portsOf = (id: number, peers: number[]) => ({
    control: control.get(id) as Port, links: new Map(peers.map((peer) => [peer, links.get(`${id} ${peer}`) as Port])),
  })
  const switches = CONFIG.switches.map(({ id, incarnation }) => createSwitchNode({
    arena, id, incarnation, clusterId: 1, policy: roundRobin(), seed: id, config: CONFIG, sessions: SESSIONS,
    limits: { entries: 4096, packets: 1024, largePackets: 1 },
    ports: { external: id === 1 ? traffic.ports[0] : faulty, ...portsOf(id, [11, 12]) },
  }))
  const runtimes = CONFIG.runtimes.map(({ id, incarnation }) => createRuntimeNode({
    arena, id, incarnation, clusterId: 1, seed: id, config: CONFIG, sessions: SESSIONS,
    chain: [{ definition: monitor, config: {} },
      { definition: firewall, config: firewall.config?.parse({ tracking: { midStream: 'drop', invalid: 'drop' } }) }],
    limits: { ...defaultLimits, flows: 4096, packets: 2048, largePackets: 1, extentBytes: 262_144, recordBytes: 262_144, aliases: 64,
      fragmentedDatagrams: 64, fragmentsHeld: 64 },
    timeouts: { ...defaultTimeouts, tcpClosed: 0.05, udp: 0.2 }, runtimeTimes: { residenceUs: 0 },
    ports: portsOf(id, [1, 2]),
  }))
  return {
    traffic, runtimes, switches, faults: [faulty],
    run(turns) {
      for (let turn = 0; turn < turns; turn++) {
        for (const node of [...switches, ...runtimes]) node.poll(clock.now())
        clock.advanceBy(20)
      }
    },
  }
}

const flowsOf = (cluster: Cluster): number[] => cluster.runtimes.map((node) => [...node.flows()].length)

test('traffic passes a cluster, and flows that move lose, double and reorder nothing', () => {
  const cluster = createCluster({
    sizes: 'imix', tcpShare: 0.6, ipv6Share: 0.3, requestPackets: 3, replyPackets: 4, turns: 15, isClosedLoop: true,
    packetsPerSecond: 300_000, arrivals: 'poisson',
  })
  const { traffic, runtimes, run } = cluster
  run(300)
  assert.ok(flowsOf(cluster).every((count) => count >= 20), `${flowsOf(cluster)} flows`)
  let moved = 0
  for (let round = 0; round < 6; round++) {
    const source = round % 2
    runtimes[source].setMigrationTarget(runtimes[1 - source].id, 25)
    run(300)
    moved += runtimes.flatMap((node) => [...node.flows()]).filter(({ epoch }) => epoch > 1).length
  }
  traffic.drain()
  run(3000)
  const { sent, sink } = traffic
  assert.equal(traffic.openFlows, 0)
  assert.ok(sent.packets > 10_000, `${sent.packets} packets`)
  assert.deepEqual({ ...sink.totals, bytes: 0 }, { received: sent.packets, frames: sent.packets, bytes: 0, lost: 0, duplicated: 0,
    reordered: 0, corrupted: 0, stale: 0, foreign: 0, unreadable: 0, astray: 0 })
  assert.ok(moved > 50, `${moved} flows had moved`)
  assert.ok(sink.latency.maxUs < 100_000)
})

test('what a bad link does to traffic through a cluster is found to the packet', () => {
  const cluster = createCluster({ sizes: 'imix', ipv6Share: 0.5, replyPackets: 1, packetsPerSecond: 200_000, packets: 8000 },
    { loss: 0.02, duplication: 0.03, delay: 0.05, delayUs: [20, 60] })
  const { traffic, runtimes, faults: [faulty], run } = cluster
  run(500)
  runtimes[0].setMigrationTarget(12, 20)
  run(2000)
  const { sent, sink } = traffic
  const [into, out] = [faulty.counts(0), faulty.counts(1)]
  assert.equal(sent.packets, 8000)
  assert.ok(into.lost > 30 && out.lost > 30 && into.duplicated > 50 && out.duplicated > 50)
  const { received, duplicated, reordered, corrupted, stale, foreign, astray } = sink.totals
  assert.deepEqual({ received, duplicated, reordered, corrupted, stale, foreign, astray }, {
    received: 8000 - into.lost - out.lost, duplicated: into.duplicated + out.duplicated, reordered: 0, corrupted: 0, stale: 0, foreign: 0,
    astray: 0,
  })
})
