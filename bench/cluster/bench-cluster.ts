/**
 * Bench cluster: two switches and two runtimes with the standard chain in one process, joined by memory links, taking turns as fast as
 * they can.
 */

import { defaultLimits, defaultTimeouts } from '../../src/base/limits.ts'
import { Arena } from '../../src/memory/arena.ts'
import type { ClusterConfig } from '../../src/messages/cluster-config.ts'
import firewall from '../../src/nfs/firewall/firewall.ts'
import http from '../../src/nfs/http/http.ts'
import monitor from '../../src/nfs/monitor/monitor.ts'
import type { AnyNfDefinition } from '../../src/nf/definition.ts'
import { longSessionSizes } from '../../src/node/control-plane.ts'
import { createRuntimeNode, type RuntimeNode } from '../../src/node/runtime-node.ts'
import { createSwitchNode, type SwitchNode } from '../../src/node/switch-node.ts'
import { PacketPool, SLOT_FRAME_OFFSET } from '../../src/packet/packet-pool.ts'
import type { ReplicationMode } from '../../src/runtime/replication/protection.ts'
import { buildFrame } from '../../src/testing/packet-builder.ts'
import { roundRobin } from '../../src/vswitch/placement/round-robin.ts'
import { MemoryHub, memoryLink, type MemoryPort } from './memory-link.ts'

const INGRESS = 1
const EGRESS = 2
const CONTROL_SLOTS = 512

export class BenchCluster {
  readonly runtimes: [RuntimeNode, RuntimeNode]
  readonly switches: [SwitchNode, SwitchNode]
  /** Messages that have been handled. */
  messages = 0
  now = 1_000_000
  /** Packets that have come out. */
  left = 0
  readonly #config: ClusterConfig
  #isAlone = false
  readonly #client: MemoryPort
  readonly #server: MemoryPort
  readonly #outside: Arena
  readonly #pool: PacketPool
  readonly #descriptors: number

  /** @param udpTimeout seconds after which an idle flow ends */
  constructor(flows: number, udpTimeout = 1e6, replication: ReplicationMode = 'none') {
    const config: ClusterConfig = this.#config = {
      version: 1, clusterId: 1,
      switches: [{ id: INGRESS, incarnation: 1, side: 'ingress', isHome: true },
        { id: EGRESS, incarnation: 2, side: 'egress', isHome: false }],
      runtimes: [{ id: 11, incarnation: 3, isDraining: false }, { id: 12, incarnation: 4, isDraining: false }],
    }
    const hub = new MemoryHub()
    const arenas = new Map([INGRESS, EGRESS, 11, 12].map((id) =>
      [id, new Arena((id > 10 ? 700 : 120) * flows * 2 + 96 * 2 ** 20)]))
    this.#outside = new Arena(32 * 2 ** 20)
    this.#pool = new PacketPool(this.#outside, 2048, 1)
    this.#descriptors = this.#outside.allocate('descriptors', 32 * 128) >> 2
    const links = new Map<string, MemoryPort>()
    for (const one of [INGRESS, EGRESS]) {
      for (const runtime of [11, 12]) {
        const [a, b] = memoryLink(arenas.get(one) as Arena, arenas.get(runtime) as Arena, 4096)
        links.set(`${one} ${runtime}`, a)
        links.set(`${runtime} ${one}`, b)
      }
    }
    const [inside, client] = memoryLink(arenas.get(INGRESS) as Arena, this.#outside, 4096)
    const [insideServer, server] = memoryLink(arenas.get(EGRESS) as Arena, this.#outside, 4096)
    this.#client = client
    this.#server = server
    const onMessage = (): void => { this.messages++ }
    this.switches = [INGRESS, EGRESS].map((id, index) => createSwitchNode({
      arena: arenas.get(id) as Arena, id, incarnation: index + 1, clusterId: 1, policy: roundRobin(), seed: id, config, onMessage,
      limits: { entries: flows + 16 },
      ports: {
        external: index === 0 ? inside : insideServer, control: hub.attach(id, arenas.get(id) as Arena, CONTROL_SLOTS),
        links: new Map([11, 12].map((runtime) => [runtime, links.get(`${id} ${runtime}`) as MemoryPort])),
      },
    })) as unknown as [SwitchNode, SwitchNode]
    this.runtimes = [11, 12].map((id, index) => createRuntimeNode({
      arena: arenas.get(id) as Arena, id, incarnation: index + 3, clusterId: 1, seed: id, config, onMessage,
      chain: [monitor, firewall, http].map((definition) => ({ definition: definition as AnyNfDefinition,
        config: (definition as AnyNfDefinition).config?.parse({}) })),
      replication, controlSessions: longSessionSizes,
      limits: { ...defaultLimits, flows: flows + 16, packets: 8192, largePackets: 1, extentBytes: 2 ** 24, recordBytes: 2 ** 20 },
      timeouts: { ...defaultTimeouts, udp: udpTimeout },
      runtimeTimes: { residenceUs: 0, workloadUs: 1e12, moveTimeoutUs: 60e6 },
      ports: { control: hub.attach(id, arenas.get(id) as Arena, CONTROL_SLOTS),
        links: new Map([INGRESS, EGRESS].map((one) => [one, links.get(`${id} ${one}`) as MemoryPort])) },
    })) as unknown as [RuntimeNode, RuntimeNode]
    for (let i = 0; i < 200; i++) this.turn()
  }

  turn(): void {
    this.now += 20
    this.switches[0].poll(this.now)
    this.runtimes[0].poll(this.now)
    if (!this.#isAlone) this.runtimes[1].poll(this.now)
    this.switches[1].poll(this.now)
  }

  #drainOutside(): void {
    for (const port of [this.#client, this.#server]) {
      for (;;) {
        const count = port.receive(this.#pool, this.#descriptors, 32)
        if (count === 0) break
        this.left += count
        for (let i = 0; i < count; i++) this.#pool.give(this.#outside.i32[this.#descriptors + i * 32 + 24] as number)
      }
    }
  }

  /** Opens flows with one packet each, all at the first runtime. */
  openFlows(flows: number): void {
    this.runtimes[1].setDraining(true, this.now)
    for (let i = 0; i < 20; i++) this.turn()
    this.arrive(0, flows)
    this.runtimes[1].setDraining(false, this.now)
    for (let i = 0; i < 20; i++) this.turn()
    if (this.runtimes[0].engine.table.size !== flows) {
      throw new Error(`${this.runtimes[0].engine.table.size} of ${flows} flows opened: ` +
        JSON.stringify([this.switches[0].dropReasons(), this.runtimes[0].dropReasons(), this.switches[0].anomalies]))
    }
  }

  /** One packet of each of so many flows, from this number on. */
  arrive(first: number, flows: number): void {
    this.pass(first, flows)
    for (let i = 0; i < 100; i++) this.turn()
    this.#drainOutside()
  }

  /** The same, without a rest behind them. */
  pass(first: number, flows: number): void {
    const { u8 } = this.#outside
    const template = buildFrame({ source: '10.0.0.1', destination: '10.1.0.1',
      udp: { sourcePort: 1000, destinationPort: 53, payload: 'x'.repeat(22) } })
    const slot = this.#pool.take(template.length)
    const frame = slot + SLOT_FRAME_OFFSET
    for (let flow = first; flow < first + flows; flow++) {
      u8.set(template, frame)
      u8[frame + 27] = flow >> 16
      u8[frame + 28] = flow >> 8
      u8[frame + 29] = flow
      this.#client.send(frame, template.length)
      if (flow % 256 !== 255) continue
      for (let i = 0; i < 12; i++) this.turn()
      this.#drainOutside()
    }
    this.#pool.give(slot)
  }

  /**
   * The second runtime is dead: it has no more turns, and the others hear that it is fenced. The first one takes its flows over.
   *
   * @returns the CPU time until all flows live there and no step of a protocol is open, microseconds
   */
  recover(flows: number): number {
    this.#isAlone = true
    const [survivor] = this.runtimes
    const config: ClusterConfig = { ...this.#config, version: 2, runtimes: this.#config.runtimes.filter(({ id }) => id === survivor.id) }
    const started = process.cpuUsage()
    for (const node of [survivor, ...this.switches]) node.notifyClusterConfig(config, this.now)
    const isOver = (): boolean => survivor.engine.table.size === flows &&
      [survivor, ...this.switches].every(({ openSteps }) => Object.values(openSteps).every((count) => count === 0))
    for (let turns = 0; !isOver(); turns++) {
      this.turn()
      if (turns > 1e5) throw new Error(`${survivor.engine.table.size} of ${flows} flows are there: ${JSON.stringify(survivor.openSteps)}`)
    }
    const { user, system } = process.cpuUsage(started)
    return user + system
  }

  /** Time passes until no flow is left. */
  empty(): void {
    const size = (): number => this.switches[0].entries + this.switches[1].entries +
      this.runtimes[0].engine.table.size + this.runtimes[1].engine.table.size
    for (let turns = 0; size() > 0; turns++) {
      this.turn()
      if (turns > 1e6) throw new Error(`${size()} entries and records are left`)
    }
    this.#drainOutside()
  }

  /** Moves all flows of one runtime to the other. Returns the CPU time that it took, microseconds. */
  move(source: RuntimeNode, target: RuntimeNode, flows: number): number {
    // An order passes over flows whose former source has not acknowledged that they have come.
    for (let turns = 0; turns < 200; turns++) this.turn()
    const done = source.moves.out.completed + flows
    const started = process.cpuUsage()
    source.setMigrationTarget(target.id, flows)
    for (let turns = 0; source.moves.out.completed < done; turns++) {
      this.turn()
      if (turns > 1e5) throw new Error(`${done - source.moves.out.completed} flows have not moved`)
    }
    const { user, system } = process.cpuUsage(started)
    return user + system
  }

  check(flows: number): void {
    const sizes = this.runtimes.map((runtime) => runtime.engine.table.size)
    if (sizes[0] + sizes[1] !== flows) throw new Error(`${sizes.join(' + ')} flows of ${flows} are left`)
  }
}
