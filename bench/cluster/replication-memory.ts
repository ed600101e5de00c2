/**
 * What replication costs in CPU time and memory, without processes: a bench cluster whose nodes take turns, joined by memory links.
 *
 *     packets    the same packets through clusters with `none`, `async` and `commit`; what the latter cost more, per packet
 *     hop        packet and record together, over one more of the same links: what any replication of each packet must cost
 *     memory     heap per flow that is guarded here and kept there
 *     recovery   CPU time per flow, from the configuration without its runtime until everything is settled
 */

import { Arena } from '../../src/memory/arena.ts'
import { Descriptor, DESCRIPTOR_BYTES, DESCRIPTOR_WORDS } from '../../src/packet/descriptor.ts'
import { PacketPool, SLOT_FRAME_OFFSET } from '../../src/packet/packet-pool.ts'
import type { ReplicationMode } from '../../src/runtime/replication/protection.ts'
import { BenchCluster } from './bench-cluster.ts'
import { memoryLink } from './memory-link.ts'

export const modes = ['none', 'async', 'commit'] as const satisfies readonly ReplicationMode[]
export type Mode = (typeof modes)[number]

/** Packets of one measurement: of every flow one, so that no batch has two of a flow. */
const PACKET_BYTES = 64

/** A cluster with flows open, each of which has sent some packets. */
export function openCluster(flows: number, mode: Mode): BenchCluster {
  const cluster = new BenchCluster(flows, 1e6, mode)
  cluster.arrive(0, flows)
  cluster.left = 0
  return cluster
}

/** CPU time per packet, nanoseconds: one packet of each flow goes through. */
export function passPackets(cluster: BenchCluster, flows: number): number {
  cluster.left = 0
  const started = process.cpuUsage()
  cluster.pass(0, flows)
  const { user, system } = process.cpuUsage(started)
  cluster.arrive(0, 0)
  if (cluster.left !== flows) throw new Error(`${cluster.left} of ${flows} packets have come out`)
  return (user + system) * 1000 / flows
}

/** Time per frame with a packet and a flow's record over one memory link, in bursts of a batch, nanoseconds. */
export function measureHop(recordBytes: number, frames: number): number {
  const length = PACKET_BYTES + recordBytes
  const arenas = [new Arena(64 << 20), new Arena(64 << 20)] as const
  const [there, here] = memoryLink(...arenas, 4096)
  const pools = arenas.map((arena) => new PacketPool(arena, 16_384, 1)) as [PacketPool, PacketPool]
  const descriptors = arenas[1].allocate('descriptors', 32 * DESCRIPTOR_BYTES) >> 2
  // Frames from slots all over the pool, as packets of many flows are.
  const slots = Array.from({ length: 8192 }, () => pools[0].take(length))
  let sum = 0
  const started = process.cpuUsage()
  for (let sent = 0; sent < frames;) {
    for (let i = 0; i < 32; i++, sent++) there.sendReserved((slots[sent & 8191] as number) + SLOT_FRAME_OFFSET, length)
    const count = here.receive(pools[1], descriptors, 32)
    for (let i = 0; i < count; i++) {
      const d = descriptors + i * DESCRIPTOR_WORDS
      sum += arenas[1].i32[d + Descriptor.length]
      pools[1].give(arenas[1].i32[d + Descriptor.slot])
    }
  }
  const { user, system } = process.cpuUsage(started)
  if (sum !== frames * length) throw new Error('frames are missing')
  return (user + system) * 1000 / frames
}

/** Bytes of a record as steps carry it. */
export function recordBytesOf(cluster: BenchCluster): number {
  const { engine } = cluster.runtimes[0]
  for (const record of engine.flows()) return engine.exportBytes(record)
  throw new Error('there is no flow')
}

/** Memory outside of the arenas for each flow that is guarded and kept, bytes. */
export function replicaBytes(flows: number, collect: () => void): number {
  const cluster = new BenchCluster(flows, 1e6, 'commit')
  const used = (): number => {
    collect()
    const { heapUsed, arrayBuffers } = process.memoryUsage()
    return heapUsed + arrayBuffers
  }
  const before = used()
  cluster.arrive(0, flows)
  const bytes = (used() - before) / flows
  if (cluster.runtimes[0].replicas + cluster.runtimes[1].replicas !== flows) throw new Error('not every flow has a replica')
  return bytes
}

/** CPU time per flow that goes on at its replica, microseconds. As many flows live at the runtime that stays, and lose their replicas. */
export function recoverFlows(flows: number): number {
  return openCluster(2 * flows, 'commit').recover(2 * flows) / flows
}
