/**
 * Runtime among scripts: a real runtime node whose switches and fellow runtimes are played by a test. What the test says travels over
 * real sessions and links; what the node says comes back as lines, in order. Nothing happens between turns.
 *
 *     test ── say, sayInBand, packet ─▶ sessions of the peers ═▶ node ═▶ log: `PrepareFlowReply 12 code 1`, `=Bind 2`, `packet out 2`
 */

import { assert } from '../base/assert.ts'
import { defaultLimits, defaultTimeouts, type EngineLimits, type IdleTimeouts } from '../base/limits.ts'
import { Arena } from '../memory/arena.ts'
import type { ClusterConfig } from '../messages/cluster-config.ts'
import { MessageField, messageKind, type MessageKind } from '../messages/message.ts'
import { KEY_WORDS } from '../flow/flow-record.ts'
import type { ChainMember } from '../nf/chain.ts'
import { createControlPlane, type ControlPlane } from '../node/control-plane.ts'
import { DataLink } from '../node/data-link.ts'
import { createRuntimeNode, type RuntimeNode } from '../node/runtime-node.ts'
import { Descriptor, DESCRIPTOR_BYTES, DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import { PacketPool, SLOT_FRAME_OFFSET } from '../packet/packet-pool.ts'
import { createParser } from '../packet/parse.ts'
import type { ReplicationMode } from '../runtime/replication/protection.ts'
import type { RuntimeLimits, RuntimeTimes } from '../runtime/runtime-context.ts'
import { buildFrame } from '../testing/index.ts'
import type { MessageChannel } from '../transport/message-channel.ts'
import { SimPort } from './sim-port.ts'

export const SELF = 11
const SESSIONS = { frameBytes: 1514, sendBytes: 16_384, ringBytes: 65_536, messageBytesMax: 12_000 }
const ENGINE_LIMITS: EngineLimits = {
  ...defaultLimits, flows: 64, packets: 256, largePackets: 1, extentBytes: 65_536, recordBytes: 65_536, aliases: 64,
  fragmentedDatagrams: 16, fragmentsHeld: 16,
}

/** What a scripted message says; the key is that of a flow by number, or of a frame. */
export interface Words {
  flow?: number
  epoch?: number
  node?: number
  code?: number
  key?: number | Uint8Array
  /** 32-bit fields by byte offset. */
  words?: Record<number, number>
  /** Bytes behind the message. */
  tail?: Uint8Array
}

export interface RuntimeAmongScriptsOptions {
  readonly chain: readonly ChainMember[]
  readonly limits?: Partial<EngineLimits>
  readonly runtimeLimits?: Partial<RuntimeLimits>
  readonly times?: Partial<RuntimeTimes>
  readonly timeouts?: Partial<IdleTimeouts>
  readonly replication?: ReplicationMode
  readonly isApart?: (runtime: number) => boolean
  readonly replicas?: number
}

/** The frame of a flow by number, from the clients' side. */
export function frameOf(number: number, payload = 'x'): Uint8Array {
  return buildFrame({ source: '10.0.0.1', destination: '10.0.0.2', udp: { sourcePort: 1000 + number, destinationPort: 53, payload } })
}

export class RuntimeAmongScripts {
  now = 1_000_000
  readonly node: RuntimeNode
  /** All that the node has said since `take`. `=` before a name means in-band. */
  log: string[] = []
  /** Switches that do nothing on their links, runtimes that do nothing on the control network. */
  readonly silent = new Set<number>()
  /** The last message of each name that the node has sent, as bytes; and with a peer behind the name, `AbortFlow 12`, to that one. */
  readonly said = new Map<string, Uint8Array>()
  config: ClusterConfig
  readonly #arena = new Arena(40 * 2 ** 20)
  readonly #control: SimPort
  readonly #pool: PacketPool
  readonly #planes = new Map<number, { plane: ControlPlane; port: SimPort }>()
  readonly #links = new Map<number, { link: DataLink; port: SimPort; node: SimPort }>()
  readonly #outlets = new Map<number, { capacity: number }>()
  readonly #parser
  readonly #d: number
  readonly #batch: number

  /** Switches 1 and 2, runtimes 11 (the node), 12 and 13. */
  constructor(options: RuntimeAmongScriptsOptions) {
    const arena = this.#arena
    this.config = {
      version: 1, clusterId: 1,
      switches: [{ id: 1, incarnation: 101, side: 'ingress', isHome: true }, { id: 2, incarnation: 102, side: 'egress', isHome: false }],
      runtimes: [SELF, 12, 13].map((id) => ({ id, incarnation: 100 + id, isDraining: false })),
    }
    this.#pool = new PacketPool(arena, 64, 1)
    this.#parser = createParser(arena, 1)
    this.#d = arena.allocate('script: packet', DESCRIPTOR_BYTES + 128) >> 2
    this.#batch = arena.allocate('script: batch', DESCRIPTOR_BYTES * 32) >> 2
    this.#control = new SimPort(arena, { load: 0, capacity: Infinity,
      send: (frame) => { this.#planes.get(frame[5] as number)?.port.arrive(frame) } })
    const links = new Map([1, 2].map((id) => [id, this.#makeLink(id)]))
    for (const { id, incarnation } of [...this.config.switches, ...this.config.runtimes]) {
      if (id !== SELF) this.#makePlane(id, incarnation)
    }
    this.node = createRuntimeNode({
      arena, id: SELF, incarnation: 100 + SELF, clusterId: 1, chain: options.chain, seed: 1, config: this.config, sessions: SESSIONS,
      limits: { ...ENGINE_LIMITS, ...options.limits }, timeouts: { ...defaultTimeouts, ...options.timeouts }, wasm: false,
      runtimeLimits: { absentFlows: 64, buffered: 64, bufferedPerFlow: 16, ...options.runtimeLimits },
      replication: options.replication, replicas: options.replicas, ...options.isApart !== undefined && { isApart: options.isApart },
      runtimeTimes: { residenceUs: 0, workloadUs: 1e12, ...options.times }, ports: { control: this.#control, links },
    })
    this.turn(5)
    this.log = []
  }

  /** A peer's end of the control network, in a life of it. */
  #makePlane(id: number, selfIncarnation: number): void {
    const port = new SimPort(this.#arena, { load: 0, capacity: Infinity, send: (frame) => { this.#control.arrive(frame) } })
    const plane = createControlPlane({ arena: this.#arena, clusterId: 1, self: id, selfIncarnation, port, sessions: SESSIONS,
      onMessage: (_peer, at, bytes) => { this.#note(id, '', at, bytes) } })
    plane.setPeers([{ id: SELF, incarnation: 100 + SELF }])
    this.#planes.set(id, { plane, port })
  }

  #makeLink(id: number): SimPort {
    const arena = this.#arena
    const outlet = { load: 0, capacity: Infinity, send: (frame: Uint8Array) => { port.arrive(frame) } }
    this.#outlets.set(id, outlet)
    const node: SimPort = new SimPort(arena, outlet)
    const port: SimPort = new SimPort(arena, { load: 0, capacity: Infinity, send: (frame) => { node.arrive(frame) } })
    this.#setLink(id, 100 + id, port, node)
    return node
  }

  /** A switch's end of a link, in a life of it. */
  #setLink(id: number, selfIncarnation: number, port: SimPort, node: SimPort): void {
    const link = new DataLink({ arena: this.#arena, clusterId: 1, self: id, selfIncarnation, peer: SELF, port, sessions: SESSIONS,
      isSwitch: true, onRefused: () => {}, onMessage: (at, bytes) => { this.#note(id, '=', at, bytes) } })
    link.setPeer(100 + SELF)
    this.#links.set(id, { link, port, node })
  }

  #note(peer: number, mark: string, at: number, bytes: number): void {
    const { u8 } = this.#arena
    const name = `${mark}${messageKind(u8[at] as number)?.name ?? '?'}`
    const code = u8[at + MessageField.code]
    for (const key of [name, `${name} ${peer}`]) this.said.set(key, u8.slice(at, at + bytes))
    this.log.push(`${name} ${peer}${code === 0 ? '' : ` code ${code}`}`)
  }

  /** Writes the key of a flow by number, or of a frame, to a word index. */
  #writeKey(of: number | Uint8Array, key: number): void {
    const { i32, u8 } = this.#arena
    const d = this.#d
    const frame = (d << 2) + DESCRIPTOR_BYTES + 2
    const bytes = typeof of === 'number' ? frameOf(of) : of
    u8.set(bytes, frame)
    i32.fill(0, d, d + DESCRIPTOR_WORDS)
    i32[d + Descriptor.frame] = frame
    i32[d + Descriptor.length] = i32[d + Descriptor.wireLength] = bytes.length
    i32[d + Descriptor.linkType] = 1
    this.#parser.parse(d)
    i32.copyWithin(key, d + Descriptor.key, d + Descriptor.key + KEY_WORDS)
  }

  #write(channel: MessageChannel, kind: MessageKind, said: Words): void {
    const { u8, u16, u32, f64 } = this.#arena
    const at = channel.begin(kind.bytes + (said.tail?.length ?? 0), true)
    assert(at !== 0, 'a script has room for its words')
    u8[at] = kind.type
    u8[at + MessageField.code] = said.code ?? 0
    u16[(at + MessageField.node) >> 1] = said.node ?? 0
    u32[(at + MessageField.epoch) >> 2] = said.epoch ?? 0
    f64[(at + MessageField.flow) >> 3] = said.flow ?? 0
    if (said.key !== undefined) this.#writeKey(said.key, (at + MessageField.key) >> 2)
    for (const [offset, value] of Object.entries(said.words ?? {})) u32[(at + Number(offset)) >> 2] = value
    if (said.tail !== undefined) u8.set(said.tail, at + kind.bytes)
    channel.commit()
  }

  #channel(peer: number, isInBand: boolean): MessageChannel {
    const channel = isInBand ? this.#links.get(peer)?.link.channel : this.#planes.get(peer)?.plane.channel(SELF)
    assert(channel !== undefined && channel !== null, 'a script speaks with the node')
    return channel
  }

  /** A peer says something on its control session. Takes effect at the next turn. */
  say(peer: number, kind: MessageKind, said: Words = {}): this {
    this.#write(this.#channel(peer, false), kind, said)
    return this
  }

  /** A switch says something in-band. */
  sayInBand(switchId: number, kind: MessageKind, said: Words = {}): this {
    this.#write(this.#channel(switchId, true), kind, said)
    return this
  }

  /** Any bytes as a message. */
  raw(peer: number, isInBand: boolean, bytes: Uint8Array): this {
    const channel = this.#channel(peer, isInBand)
    this.#arena.u8.set(bytes, channel.begin(bytes.length, true))
    channel.commit()
    return this
  }

  /** A switch sends a data frame. */
  packet(switchId: number, frame: Uint8Array): this {
    const slot = this.#pool.take(frame.length)
    this.#arena.u8.set(frame, slot + SLOT_FRAME_OFFSET)
    const { link } = this.#links.get(switchId) as { link: DataLink }
    assert(link.send(slot + SLOT_FRAME_OFFSET, frame.length), 'a script has room for its packets')
    this.#pool.give(slot)
    return this
  }

  /** The node's link to a switch has room for so many frames. */
  setRoom(switchId: number, frames: number): void {
    (this.#outlets.get(switchId) as { capacity: number }).capacity = frames
  }

  /** So many turns of all, `us` microseconds apart. */
  turn(turns = 1, us = 100): this {
    for (let i = 0; i < turns; i++) {
      this.now += us
      for (const [id, { plane }] of this.#planes) {
        if (id > SELF && this.silent.has(id)) continue
        plane.receive(1000, this.now)
        plane.transmit(this.now)
      }
      for (const [id, { link }] of this.#links) {
        if (this.silent.has(id)) continue
        link.deliver(this.now)
        for (let count = link.receive(this.#pool, this.#batch, 32); count > 0 || link.hasPending;
          count = link.receive(this.#pool, this.#batch, 32)) {
          for (let index = 0; index < count; index++) {
            this.#pool.give(this.#arena.i32[this.#batch + index * DESCRIPTOR_WORDS + Descriptor.slot])
            this.log.push(`packet out ${id}`)
          }
          link.deliver(this.now)
        }
        link.transmit(this.now)
      }
      let isMore = true
      for (let polls = 0; polls < 100 && isMore; polls++) isMore = this.node.poll(this.now)
      this.#check(isMore)
    }
    return this
  }

  #check(isMore: boolean): void {
    const { received, emitted, takenOver, forwarded, dropped, buffered, handedOver } = this.node.packets
    assert(received + emitted + takenOver === forwarded + dropped + buffered + handedOver, 'every packet is counted once')
    // Outputs that have gone to a replica are no packets of this node any more, and keep their slots until it has them.
    assert(isMore || this.node.slotsUsed === buffered + this.node.keptOutputs, 'slots are given back')
  }

  /** What the node has said since it was last asked. */
  take(): string[] {
    const { log } = this
    this.log = []
    return log
  }

  /** A node comes back in another life. */
  restart(peer: number, incarnation: number): void {
    this.#makePlane(peer, incarnation)
    const ends = this.#links.get(peer)
    if (ends !== undefined) this.#setLink(peer, incarnation, ends.port, ends.node)
    const changed = <T extends { readonly id: number }>(entry: T): T => (entry.id === peer ? { ...entry, incarnation } : entry)
    const { switches, runtimes } = this.config
    assert(this.configure({ switches: switches.map(changed), runtimes: runtimes.map(changed) }), 'the node takes the configuration')
  }

  /** Tells the node, and it alone, a configuration. */
  configure(change: Partial<ClusterConfig>): boolean {
    const next = { ...this.config, version: this.config.version + 1, ...change }
    if (!this.node.notifyClusterConfig(next, this.now)) return false
    this.config = next
    return true
  }
}
