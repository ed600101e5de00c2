/**
 * Manual cluster: two switches and a few runtimes whose every turn and every message is in the hands of a test. It is what transcripts
 * are made with: what is sent lies on a wire until it is let through, so that a message can be held back, lost, or overtaken.
 *
 *     clients ─▶ switch 1 (ingress, home) ═ links ═ runtimes 11, 12 ... ═ links ═ switch 2 (egress) ─▶ servers
 *
 * Unlike the simulator it has no chance in it: nodes take turns in order of their ids.
 */

import { Random } from '../base/random.ts'
import { defaultLimits, defaultTimeouts, type EngineLimits, type IdleTimeouts } from '../base/limits.ts'
import { Arena } from '../memory/arena.ts'
import type { ClusterConfig } from '../messages/cluster-config.ts'
import { messageKind } from '../messages/message.ts'
import type { ChainMember } from '../nf/chain.ts'
import { createRuntimeNode, type RuntimeNode } from '../node/runtime-node.ts'
import { createSwitchNode, type SwitchNode } from '../node/switch-node.ts'
import type { ReplicationMode } from '../runtime/replication/protection.ts'
import type { RuntimeTimes } from '../runtime/runtime-context.ts'
import { SimPort, type Outlet } from './sim-port.ts'
import { roundRobin } from '../vswitch/placement/round-robin.ts'

/** One direction of a link, or of the control network between two nodes. */
export interface Wire {
  readonly from: number
  readonly to: number
  readonly kind: 'link' | 'control' | 'external'
  readonly frames: Uint8Array[]
  /** While set, what is sent stays here. */
  isHeld: boolean
  /** Frames from now on that are lost. */
  lose: number
}

export interface LoggedMessage {
  readonly time: number
  readonly from: number
  readonly to: number
  readonly inBand: boolean
  readonly name: string
  readonly fields: Record<string, unknown>
}

const SESSION_SIZES = { frameBytes: 1514, sendBytes: 16_384, ringBytes: 65_536, messageBytesMax: 12_000 }
const LIMITS: EngineLimits = {
  ...defaultLimits, flows: 256, packets: 1024, largePackets: 1, extentBytes: 262_144, recordBytes: 65_536, aliases: 64,
  fragmentedDatagrams: 64, fragmentsHeld: 64,
}
const ARENA_BYTES = 16 * 2 ** 20
const arenas: Arena[] = []

/** An outlet that always has room. */
const endless = (send: (frame: Uint8Array) => void): Outlet => ({ load: 0, capacity: Infinity, send })

export interface ManualClusterOptions {
  readonly runtimes?: number
  /** The chain of each runtime, made anew for each; by runtime id. */
  readonly chain: (runtime: number) => readonly ChainMember[]
  readonly timeouts?: Partial<IdleTimeouts>
  readonly times?: Partial<RuntimeTimes>
  readonly limits?: Partial<EngineLimits>
  readonly replication?: ReplicationMode
  readonly replicas?: number
}

export class ManualCluster {
  now = 1_000_000
  readonly messages: LoggedMessage[] = []
  /** What has left at each side, in order. */
  readonly left: { ingress: Uint8Array[]; egress: Uint8Array[] } = { ingress: [], egress: [] }
  readonly wires: Wire[] = []
  readonly nodes = new Map<number, RuntimeNode | SwitchNode>()
  config: ClusterConfig
  readonly #options: ManualClusterOptions
  readonly #ports = new Map<string, SimPort>()
  readonly #arenas: Arena[] = []
  readonly #random = new Random(1)
  #incarnation = 0

  constructor(options: ManualClusterOptions) {
    this.#options = options
    const runtimes = Array.from({ length: options.runtimes ?? 2 }, (_, i) => 11 + i)
    this.config = {
      version: 1, clusterId: 1,
      switches: [
        { id: 1, incarnation: ++this.#incarnation, side: 'ingress', isHome: true },
        { id: 2, incarnation: ++this.#incarnation, side: 'egress', isHome: false },
      ],
      runtimes: runtimes.map((id) => ({ id, incarnation: ++this.#incarnation, isDraining: false })),
    }
    for (const { id } of [...this.config.switches, ...this.config.runtimes]) this.start(id)
  }

  /** Starts a node in the life that the configuration names. */
  start(id: number): void {
    const arena = arenas.pop() ?? new Arena(ARENA_BYTES)
    this.#arenas.push(arena)
    const seed = this.#random.int32()
    const onMessage = (peer: number, inBand: boolean, at: number): void => { this.#log(arena, peer, id, inBand, at) }
    const { config } = this
    const peers = [...config.switches, ...config.runtimes].map((entry) => entry.id).filter((peer) => peer !== id)
    const control = this.#port(arena, id, 'control', peers)
    const entry = config.switches.find((one) => one.id === id)
    if (entry !== undefined) {
      const links = new Map(config.runtimes.map((runtime) => [runtime.id, this.#port(arena, id, 'link', [runtime.id])]))
      this.nodes.set(id, createSwitchNode({
        arena, id, incarnation: entry.incarnation, clusterId: 1, policy: roundRobin(), seed, config, sessions: SESSION_SIZES,
        limits: { entries: 256, packets: 512, largePackets: 1 }, wasm: false, onMessage,
        ports: { external: this.#external(arena, id, entry.side), control, links },
      }))
      return
    }
    const links = new Map(config.switches.map((one) => [one.id, this.#port(arena, id, 'link', [one.id])]))
    const { incarnation } = config.runtimes.find((one) => one.id === id) as ClusterConfig['runtimes'][number]
    this.nodes.set(id, createRuntimeNode({
      arena, id, incarnation, clusterId: 1, chain: this.#options.chain(id), seed, config, sessions: SESSION_SIZES,
      limits: { ...LIMITS, ...this.#options.limits }, timeouts: { ...defaultTimeouts, ...this.#options.timeouts },
      runtimeLimits: { absentFlows: 256, buffered: 512 }, wasm: false, onMessage,
      runtimeTimes: { residenceUs: 0, workloadUs: 1e12, moveTimeoutUs: 50_000, ...this.#options.times },
      ports: { control, links }, replication: this.#options.replication, replicas: this.#options.replicas,
    }))
  }

  #wire(from: number, to: number, kind: Wire['kind']): Wire {
    let wire = this.wires.find((one) => one.from === from && one.to === to && one.kind === kind)
    if (wire === undefined) {
      wire = { from, to, kind, frames: [], isHeld: false, lose: 0 }
      this.wires.push(wire)
    }
    return wire
  }

  #port(arena: Arena, id: number, kind: Wire['kind'], peers: readonly number[]): SimPort {
    const port = new SimPort(arena, endless((frame) => {
      // The last byte of the destination address is the node.
      const wire = this.#wire(id, frame[5] as number, kind)
      if (wire.lose > 0) wire.lose--
      else wire.frames.push(frame)
    }))
    for (const peer of peers) this.#ports.set(`${kind} ${peer} ${id}`, port)
    return port
  }

  #external(arena: Arena, id: number, side: 'ingress' | 'egress'): SimPort {
    const port = new SimPort(arena, endless((frame) => { this.left[side].push(frame) }))
    this.#ports.set(`external 0 ${id}`, port)
    return port
  }

  #log(arena: Arena, from: number, to: number, inBand: boolean, at: number): void {
    const kind = messageKind(arena.u8[at] as number)
    if (kind === undefined) return
    const fields = kind.schema.decode({ arena }, at) as Record<string, unknown>
    this.messages.push({ time: this.now, from, to, inBand, name: kind.name, fields })
  }

  runtime(id: number): RuntimeNode {
    return this.nodes.get(id) as RuntimeNode
  }

  switch(id: number): SwitchNode {
    return this.nodes.get(id) as SwitchNode
  }

  wire(from: number, to: number, kind: Wire['kind'] = 'control'): Wire {
    return this.#wire(from, to, kind)
  }

  /** A packet comes in from outside. */
  inject(side: 'ingress' | 'egress', frame: Uint8Array): void {
    (this.#ports.get(`external 0 ${side === 'ingress' ? 1 : 2}`) as SimPort).arrive(frame)
  }

  /** Lets through what lies on the wires that are not held. */
  deliver(): void {
    for (const wire of this.wires) {
      if (wire.isHeld) continue
      const port = this.nodes.has(wire.to) ? this.#ports.get(`${wire.kind} ${wire.from} ${wire.to}`) : undefined
      const frames = wire.frames.splice(0)
      for (const frame of frames) port?.arrive(frame)
    }
  }

  /** So many turns of every node, `us` microseconds apart. */
  turn(turns = 1, us = 100): this {
    for (let i = 0; i < turns; i++) {
      this.now += us
      this.deliver()
      for (const [, node] of [...this.nodes].sort(([a], [b]) => a - b)) node.poll(this.now)
    }
    return this
  }

  /** A node ends without a word. */
  kill(id: number): void {
    this.nodes.delete(id)
    for (const [name, port] of this.#ports) if (name.endsWith(` ${id}`)) port.lose()
    for (const wire of this.wires) if (wire.to === id) wire.frames.length = 0
  }

  /** Tells every node a new configuration; without `ids` in it, or with them in a new life. */
  fence(ids: number | readonly number[], isBack: boolean): void {
    const fenced = [ids].flat()
    const change = <T extends { id: number; incarnation: number }>(entries: readonly T[]): T[] =>
      entries.filter(({ id }) => isBack || !fenced.includes(id))
        .map((entry) => (fenced.includes(entry.id) ? { ...entry, incarnation: ++this.#incarnation } : entry))
    this.config = { ...this.config, version: this.config.version + 1, switches: change(this.config.switches),
      runtimes: change(this.config.runtimes) }
    if (isBack) for (const id of fenced) this.start(id)
    for (const [node, it] of this.nodes) if (!fenced.includes(node)) it.notifyClusterConfig(this.config, this.now)
  }

  dispose(): void {
    for (const arena of this.#arenas) {
      arena.reset()
      arenas.push(arena)
    }
  }
}
