/**
 * Moving cluster: real switch and runtime nodes on links without faults, with traffic going through while flows are moved. Run with the
 * same traffic and without moves it says what was to come out.
 *
 *     clients ─▶ switch 1 (ingress, home) ═ links ═ runtimes 11, 12, 13 ═ links ═ switch 2 (egress) ─▶ servers
 *
 * Links are FIFO and take some microseconds, now and then some hundred; messages of the control network take 10 to 50, some of them a
 * few thousand, and overtake each other and the data. How packets fall into batches is left to chance.
 *
 * Order. With one switch both directions share a link to each runtime, so all packets of a flow have one order, and a move must keep
 * it. With two switches nobody promises an order between the directions. There is none to be kept either, unless one packet is the
 * answer to another, and then that other one has left before; so a packet waits here until those of its flow that came before it
 * from the other side have left, or so much time has gone by that they have been dropped or are held.
 */

import { AssertionError } from '../base/assert.ts'
import { defaultLimits, defaultTimeouts, type IdleTimeouts } from '../base/limits.ts'
import { Random } from '../base/random.ts'
import { Arena } from '../memory/arena.ts'
import type { ClusterConfig, RuntimeEntry } from '../messages/cluster-config.ts'
import { MessageField } from '../messages/message.ts'
import { InstallFlow } from '../messages/migration.ts'
import type { ChainMember } from '../nf/chain.ts'
import { createRuntimeNode, type RuntimeNode } from '../node/runtime-node.ts'
import { createSwitchNode, type SwitchNode } from '../node/switch-node.ts'
import type { ReplicationMode } from '../runtime/replication/protection.ts'
import { roundRobin } from '../vswitch/placement/round-robin.ts'
import { FlowNames, type TrafficPacket } from './capture-traffic.ts'
import { EventQueue } from './event-queue.ts'
import { addCounters, append, flowText, keyText, recordText, sameBytes, type MovingOutcome } from './moving-outcome.ts'
import { SimPort, SimRing, SimRingReader, SimRingWriter, type Outlet } from './sim-port.ts'

export interface MovingClusterOptions {
  readonly traffic: readonly TrafficPacket[]
  /** The chain of a runtime, made anew for each. */
  readonly chain: (runtime: number) => readonly ChainMember[]
  readonly seed: number
  readonly switches?: 1 | 2
  /** How many packets in a hundred are followed by an order to move flows; 0: nothing moves. */
  readonly movesPerCent?: number
  readonly timeouts?: Partial<IdleTimeouts>
  /** How long a step of a move may take. When that is about as long as messages take, many moves are called off and undone. */
  readonly moveTimeoutUs?: number
  readonly wasm?: boolean
  /** Whether flows have replicas; `none` unless told. */
  readonly replication?: ReplicationMode
  /**
   * Numbers of packets at which a runtime that has flows ends without a word, as soon as all that it was given has been processed and
   * replicated, and the switches know so at once: nothing is lost then but what was only there. It is back in another life soon.
   */
  readonly crashes?: readonly number[]
  /**
   * They end at once, whatever they are at, as soon as every flow has its replica: what they have said is on its way, what they have read and
   * not stored is taken back out of the links.
   */
  readonly isAbrupt?: boolean
}

interface ClusterNodeEntry {
  readonly id: number
  readonly incarnation: number
  readonly node: RuntimeNode | SwitchNode
  readonly ports: Map<string, SimPort>
  /** Frames on their way here, and from here, on data links. */
  coming: number
  readonly sent: Set<() => void>
  turnAt: number
}

interface FlowLine {
  readonly waiting: TrafficPacket[]
  /** Frames that have gone in and not come out. */
  inside: Uint8Array[]
  side: number
  sentAt: number
}

const START_US = 2_000_000
const RUNTIMES = [11, 12, 13]
const SESSIONS = { frameBytes: 1514, sendBytes: 131_072, ringBytes: 524_288 }
const ARENA_BYTES = 24 * 2 ** 20
/** A packet that has not left by then is not going to before another one comes. */
const PATIENCE_US = 80_000
const HOURS_US = 6 * 3600e6
/** Events that are enough for all flows to end, once the traffic is over, at most. */
const EVENTS_TO_END = 100_000
/** Three quarters of a link's ring, as processes have them: what is given back before that is lost with its runtime. */
const CROWDED = 3072
/** How often a crash looks whether nothing is inside, and how long it takes until the others hear of it, and until it is back. */
const LOOK_US = 15
const LOOKS_MAX = 2000
const TELL_US = 900
const BACK_US = 6000
/** How long until a switch sees that nobody reads a link any more. */
const DOWN_US = 500
const arenas: Arena[] = []

/** Runs traffic through a cluster, to the end of the last flow. */
export function runMovingCluster(options: MovingClusterOptions): MovingOutcome {
  return new MovingCluster(options).run()
}

class MovingCluster {
  readonly #options: MovingClusterOptions
  readonly #random: Random
  readonly #queue = new EventQueue()
  readonly #nodes = new Map<number, ClusterNodeEntry>()
  readonly #arenas: Arena[] = []
  readonly #lines = new Map<string, FlowLine>()
  readonly #names = new FlowNames()
  readonly #outputs = new Map<string, Uint8Array[]>()
  readonly #records = new Map<string, string[]>()
  readonly #flows = new Map<string, string[]>()
  readonly #faults: string[] = []
  readonly #lastOnLink = new Map<string, number>()
  /** What links from switches to runtimes keep, by `switch runtime`, where runtimes end abruptly. */
  readonly #rings = new Map<string, SimRing>()
  /** Counts of runtimes that are gone. */
  readonly #gone = { drops: {} as Record<string, number>, counters: {} as Record<string, number> }
  #config: ClusterConfig
  #incarnations = 100
  #crashes = 0
  #left: number
  #laden = 0
  #events = 0

  constructor(options: MovingClusterOptions) {
    this.#options = options
    this.#random = new Random(options.seed)
    this.#left = options.traffic.length
    const sides = ['ingress', 'egress'] as const
    const switches = sides.slice(0, options.switches ?? 1).map((side, i) => ({ id: i + 1, incarnation: i + 1, side, isHome: i === 0 }))
    const config: ClusterConfig = { version: 1, clusterId: 1, switches,
      runtimes: RUNTIMES.map((id) => ({ id, incarnation: id, isDraining: false })) }
    this.#config = config
    for (const { id } of switches) this.#startSwitch(id, config)
    for (const id of RUNTIMES) this.#startRuntime(id, config)
  }

  // -- Nodes ---------------------------------------------------------------------------------------------------------

  #arena(): Arena {
    const arena = arenas.pop() ?? new Arena(ARENA_BYTES)
    this.#arenas.push(arena)
    return arena
  }

  #startSwitch(id: number, config: ClusterConfig): void {
    const arena = this.#arena()
    const ports = this.#ports(arena, id, RUNTIMES)
    const external = new SimPort(arena, this.#outlet((frame) => { this.#leave(id, frame) }))
    ports.set('external 0', external)
    const node = createSwitchNode({
      arena, id, incarnation: id, clusterId: 1, policy: roundRobin(), seed: id, config, sessions: SESSIONS,
      limits: { entries: 4096, packets: 1024, largePackets: 128, held: 1024, heldPerFlow: 512 }, wasm: this.#options.wasm ?? false,
      ports: { external, control: ports.get('control 0') as SimPort, links: this.#linksOf(ports, RUNTIMES) },
    })
    this.#nodes.set(id, { id, incarnation: id, node, ports, coming: 0, sent: new Set(), turnAt: Infinity })
  }

  #startRuntime(id: number, config: ClusterConfig): void {
    const arena = this.#arena()
    const { incarnation } = config.runtimes.find((one) => one.id === id) as RuntimeEntry
    const switches = config.switches.map((one) => one.id)
    const ports = this.#ports(arena, id, switches)
    const node: RuntimeNode = createRuntimeNode({
      arena, id, incarnation, clusterId: 1, chain: this.#options.chain(id), seed: id, config, sessions: SESSIONS,
      replication: this.#options.replication,
      limits: { ...defaultLimits, flows: 4096, packets: 2048, largePackets: 64, heldPerFlow: 512, extentBytes: 3 * 2 ** 20, recordBytes: 131_072,
        aliases: 4096, fragmentedDatagrams: 1024, fragmentsHeld: 512 },
      timeouts: { ...defaultTimeouts, ...this.#options.timeouts }, wasm: this.#options.wasm ?? false,
      runtimeLimits: { absentFlows: 4096, buffered: 1536, bufferedPerFlow: 1024 },
      runtimeTimes: { residenceUs: 0, workloadUs: 1e15, moveTimeoutUs: this.#options.moveTimeoutUs ?? 500_000 },
      ports: { control: ports.get('control 0') as SimPort, links: this.#linksOf(ports, switches) },
      onMessage: (_peer, _inBand, at, bytes) => {
        const { recordBytes } = node.engine.chain
        // A snapshot without anything has its head, the record, and a count for each kind of extents.
        if (arena.u8[at + MessageField.type] === InstallFlow.type && bytes > InstallFlow.bytes + recordBytes + 128) this.#laden++
      },
      events: {
        flowEnded: (record, end) => { append(this.#flows, keyText(arena.i32, record >> 2), flowText(node.engine, record, end)) },
        nfFailed: (nf, error) => { this.#faults.push(`${nf} failed at runtime ${id}: ${String(error)}`) },
      },
      onRecord: (record) => { append(this.#records, keyText(arena.i32, record.key), recordText(node.engine, record)) },
    })
    this.#nodes.set(id, { id, incarnation, node, ports, coming: 0, sent: new Set(), turnAt: Infinity })
  }

  // -- Crashes -------------------------------------------------------------------------------------------------------

  /** Ends a runtime that has flows as soon as nothing is inside that is nowhere else. */
  #crash(looks = LOOKS_MAX, id = 0): void {
    if (this.#options.isAbrupt === true) return this.#crashAbruptly(looks)
    if (looks === 0 || this.#config.runtimes.length < RUNTIMES.length) return
    const having = RUNTIMES.filter((one) => this.#runtime(one).engine.table.size > 0)
    const chosen = id !== 0 || having.length === 0 ? id : this.#random.pick(having)
    if (chosen === 0 || !this.#isQuiet(this.#nodes.get(chosen) as ClusterNodeEntry)) {
      this.#queue.after(LOOK_US, () => { this.#crash(looks - 1, chosen) })
      return
    }
    this.#end(this.#nodes.get(chosen) as ClusterNodeEntry)
    this.#fence(chosen)
  }

  /** Ends a runtime that has flows in the middle of whatever it does; one failure is outlived, then the next. */
  #crashAbruptly(looks: number): void {
    const runtimes = this.#nodes.values().filter(({ node }) => node.kind === 'runtime').map(({ node }) => node as RuntimeNode).toArray()
    const isWhole = runtimes.length === RUNTIMES.length && this.#config.runtimes.length === RUNTIMES.length && runtimes.every((one) =>
      one.degraded === 0 && ['securing', 'askingOwner'].every((step) => one.openSteps[step] === 0) &&
      one.flows().every(({ flow }) => !one.isExposed(flow)))
    const having = isWhole ? RUNTIMES.filter((id) => this.#runtime(id).engine.table.size > 0) : []
    if (having.length === 0) {
      if (looks > 0) this.#queue.after(LOOK_US, () => { this.#crashAbruptly(looks - 1) })
      return
    }
    const chosen = this.#random.pick(having)
    this.#end(this.#nodes.get(chosen) as ClusterNodeEntry)
    for (const [name, ring] of this.#rings) {
      if (!name.endsWith(` ${chosen}`)) continue
      ring.readerWent()
      this.#queue.after(this.#random.below(DOWN_US), () => { ring.isDown ||= ring.isDead })
    }
    this.#queue.after(this.#random.below(BACK_US), () => { this.#fence(chosen) })
  }

  /** Tells all that a runtime is dead, and starts it anew. */
  #fence(chosen: number): void {
    this.#crashes++
    this.#reconfigure({ ...this.#config, runtimes: this.#config.runtimes.filter((one) => one.id !== chosen) })
    this.#queue.after(TELL_US + this.#random.below(BACK_US), () => {
      const incarnation = ++this.#incarnations
      const runtimes = [...this.#config.runtimes, { id: chosen, incarnation, isDraining: false }]
      this.#reconfigure({ ...this.#config, runtimes: runtimes.toSorted((a, b) => a.id - b.id) })
      this.#startRuntime(chosen, this.#config)
      this.#wake(this.#nodes.get(chosen) as ClusterNodeEntry)
    })
  }

  /** Nothing is under way there, and every flow has its replica: one failure is outlived, then the next. */
  #isQuiet({ coming, node, ports }: ClusterNodeEntry): boolean {
    const areSettled = this.#nodes.values().every((one) => one.node.kind === 'switch' || one.node.isSettled)
    if (node.kind === 'switch' || !areSettled || coming > 0 || node.pendingFrames > 0) return false
    if ([...ports].some(([name, port]) => name.startsWith('link') && port.waiting > 0)) return false
    return node.packets.buffered === node.engine.heldPackets && node.movesOpen === 0 && node.openSteps['securing'] === 0 &&
      node.openSteps['claiming'] === 0
  }

  #end({ id, node, sent }: ClusterNodeEntry): void {
    // What is in a ring is there for the other side at once.
    for (const arrive of [...sent]) arrive()
    this.#nodes.delete(id)
    const runtime = node as RuntimeNode
    for (const [reason, count] of Object.entries(runtime.dropReasons())) this.#gone.drops[reason] = (this.#gone.drops[reason] ?? 0) + count
    addCounters(runtime.engine, this.#gone.counters)
  }

  /** Switches hear it at once, runtimes a while later. */
  #reconfigure(config: ClusterConfig): void {
    const next = this.#config = { ...config, version: this.#config.version + 1 }
    for (const entry of this.#nodes.values()) {
      const tell = (): void => {
        if (this.#nodes.get(entry.id) !== entry) return
        entry.node.notifyClusterConfig(next, this.#queue.now)
        this.#wake(entry)
      }
      if (entry.node.kind === 'switch' && this.#options.isAbrupt !== true) tell()
      else this.#queue.after(this.#random.below(TELL_US), tell)
    }
  }

  #ports(arena: Arena, id: number, peers: readonly number[]): Map<string, SimPort> {
    const ports = new Map<string, SimPort>()
    ports.set('control 0', new SimPort(arena, this.#outlet((frame) => {
      const latency = this.#random.chance(0.15) ? this.#random.below(2500) : 10 + this.#random.below(40)
      this.#deliver(frame[5] as number, 'control 0', frame, this.#queue.now + latency)
    })))
    for (const peer of peers) {
      const name = `${id} ${peer}`
      const ring = this.#ringOf(id, peer)
      const outlet = this.#outlet((frame) => {
        if (id < peer) ring?.push(frame)
        if (id < peer && ring?.isDead === true) return
        const latency = this.#random.chance(0.1) ? this.#random.below(600) : 2 + this.#random.below(10)
        const at = Math.max(this.#lastOnLink.get(name) ?? 0, this.#queue.now + latency)
        this.#lastOnLink.set(name, at)
        this.#deliver(peer, `link ${id}`, frame, at, this.#nodes.get(id)?.sent)
      })
      ports.set(`link ${peer}`, ring === null ? new SimPort(arena, outlet)
        : id < peer ? new SimRingWriter(arena, outlet, ring, () => undefined) : new SimRingReader(arena, outlet, ring, CROWDED))
    }
    return ports
  }

  /** What the link from a switch to a runtime keeps; null where nothing is taken back. */
  #ringOf(id: number, peer: number): SimRing | null {
    if (this.#options.isAbrupt !== true) return null
    const name = `${Math.min(id, peer)} ${Math.max(id, peer)}`
    let ring = this.#rings.get(name)
    if (ring === undefined) this.#rings.set(name, ring = new SimRing(() => true, () => undefined, () => undefined))
    return ring
  }

  #linksOf(ports: Map<string, SimPort>, peers: readonly number[]): Map<number, SimPort> {
    return new Map(peers.map((peer) => [peer, ports.get(`link ${peer}`) as SimPort]))
  }

  /** An outlet that always has room. */
  #outlet(send: (frame: Uint8Array) => void): Outlet {
    return { load: 0, capacity: Infinity, send }
  }

  #deliver(to: number, port: string, frame: Uint8Array, at: number, sent?: Set<() => void>): void {
    const entry = this.#nodes.get(to)
    if (entry === undefined) return
    if (sent !== undefined) entry.coming++
    let isThere = false
    const arrive = (): void => {
      if (isThere) return
      isThere = true
      sent?.delete(arrive)
      if (sent !== undefined) entry.coming--
      if (this.#nodes.get(to) !== entry) return
      ;(entry.ports.get(port) as SimPort).arrive(frame)
      this.#wake(entry)
    }
    sent?.add(arrive)
    this.#queue.at(at, arrive)
  }

  #wake(entry: ClusterNodeEntry): void {
    this.#plan(entry, this.#queue.now + 1 + this.#random.below(6))
  }

  #plan(entry: ClusterNodeEntry, at: number): void {
    if (at >= entry.turnAt) return
    entry.turnAt = at
    this.#queue.at(at, () => { if (entry.turnAt === at) this.#turn(entry) })
  }

  #turn(entry: ClusterNodeEntry): void {
    entry.turnAt = Infinity
    if (this.#nodes.get(entry.id) !== entry) return
    const { now } = this.#queue
    const isMore = entry.node.poll(now)
    const due = isMore ? now + 1 : Math.max(now + 1, entry.node.nextDue())
    if (due < Infinity) this.#plan(entry, due)
  }

  // -- Traffic -------------------------------------------------------------------------------------------------------

  #come(packet: TrafficPacket): void {
    if (this.#options.switches !== 2) return this.#inject(packet)
    let line = this.#lines.get(packet.flow)
    if (line === undefined) this.#lines.set(packet.flow, line = { waiting: [], inside: [], side: 0, sentAt: 0 })
    line.waiting.push(packet)
    this.#goOn(line)
  }

  /** Injects the packets of a flow that need not wait. */
  #goOn(line: FlowLine): void {
    const { now } = this.#queue
    for (let next = line.waiting[0]; next !== undefined; next = line.waiting[0]) {
      if (line.inside.length > 0 && line.side !== next.side) {
        if (now < line.sentAt + PATIENCE_US) {
          this.#queue.at(line.sentAt + PATIENCE_US, () => { this.#goOn(line) })
          return
        }
        line.inside = []
      }
      line.waiting.shift()
      line.side = next.side
      line.sentAt = now
      line.inside.push(next.frame)
      this.#inject(next)
    }
  }

  #inject({ side, frame }: TrafficPacket): void {
    if (this.#options.crashes?.includes(this.#options.traffic.length - this.#left) === true) this.#crash()
    this.#left--
    const entry = this.#nodes.get(this.#options.switches === 2 ? side + 1 : 1) as ClusterNodeEntry
    ;(entry.ports.get('external 0') as SimPort).arrive(frame)
    this.#wake(entry)
    if (this.#random.chance((this.#options.movesPerCent ?? 0) / 100)) this.#queue.after(this.#random.below(600), () => { this.#move() })
  }

  #leave(id: number, frame: Uint8Array): void {
    const { flow, isError } = this.#names.name({ timeUs: 0, bytes: frame, wireLength: frame.length, linkType: 1 })
    // While it is not known at a runtime what flow it is about it is a flow of its own.
    append(this.#outputs, `switch ${id}, ${flow}${isError && this.#options.replication !== undefined ? ', errors' : ''}`, frame)
    const line = this.#lines.get(flow)
    if (line === undefined) return
    const index = line.inside.findIndex((one) => sameBytes(one, frame, 12))
    if (index < 0) return
    line.inside.splice(index, 1)
    if (line.inside.length === 0) this.#queue.after(1, () => { this.#goOn(line) })
  }

  /** Orders a runtime that has flows to move some of them. */
  #move(): void {
    const random = this.#random
    const having = RUNTIMES.filter((id) => this.#runtime(id).engine.table.size > 0)
    if (having.length === 0) return
    const source = random.pick(having)
    const target = random.pick(RUNTIMES.filter((id) => id !== source))
    this.#runtime(source).setMigrationTarget(target, random.pick([1, 1, 3, 100]))
    this.#wake(this.#nodes.get(source) as ClusterNodeEntry)
  }

  #runtime(id: number): RuntimeNode {
    return (this.#nodes.get(id) as ClusterNodeEntry).node as RuntimeNode
  }

  // -- The run -------------------------------------------------------------------------------------------------------

  run(): MovingOutcome {
    const queue = this.#queue
    queue.now = START_US - 100_000
    for (const entry of this.#nodes.values()) this.#plan(entry, queue.now + entry.id)
    for (const packet of this.#options.traffic) queue.at(START_US + packet.time, () => { this.#come(packet) })
    const end = START_US + (this.#options.traffic.at(-1)?.time ?? 0) + HOURS_US
    try {
      while (this.#left > 0 && this.#step(end));
      for (const until = queue.now + PATIENCE_US * 4; this.#step(until););
      const most = this.#events + EVENTS_TO_END
      while (this.#events < most && this.#hasFlows() && this.#step(end));
      this.#inspect()
    } catch (error) {
      if (!(error instanceof AssertionError)) throw error
      this.#faults.push(`an invariant broke: ${error.message}`)
    }
    const outcome = this.#outcome()
    for (const arena of this.#arenas) {
      arena.reset()
      arenas.push(arena)
    }
    return outcome
  }

  #step(until: number): boolean {
    this.#events++
    return this.#queue.step(until)
  }

  #hasFlows(): boolean {
    return this.#nodes.values().some(({ node }) => (node.kind === 'switch' ? node.entries > 0 : node.engine.table.size > 0))
  }

  /** At the end nothing may be left in any node. */
  #inspect(): void {
    let inMessages = 0
    for (const { id, node } of this.#nodes.values()) {
      const { received, emitted, takenOver, forwarded, dropped, buffered, handedOver } = node.packets
      inMessages += handedOver - takenOver
      if (received + emitted + takenOver !== forwarded + dropped + buffered + handedOver) {
        this.#faults.push(`node ${id} does not conserve packets: ${JSON.stringify(node.packets)}`)
      }
      const flows = [...node.flows()].length
      if (flows > 0) this.#faults.push(`node ${id} has ${flows} flows at the end`)
      if (buffered > 0 || node.slotsUsed > 0) this.#faults.push(`node ${id} keeps ${buffered} packets, ${node.slotsUsed} slots at the end`)
      const open = Object.entries(node.openSteps).filter(([, count]) => count !== 0)
      if (open.length > 0) this.#faults.push(`node ${id} has open steps at the end: ${JSON.stringify(open)}`)
      if (node.kind === 'runtime' && node.engine.extents.used > 0) {
        this.#faults.push(`runtime ${id} has ${node.engine.extents.used} extents at the end`)
      }
    }
    if (inMessages !== 0 && this.#crashes === 0) this.#faults.push(`${inMessages} packets went into messages and never came out`)
  }

  #outcome(): MovingOutcome {
    const drops = { ...this.#gone.drops }
    const counters = { ...this.#gone.counters }
    const moves = { completed: 0, refused: 0, aborted: 0, takenBack: 0, cancelled: 0, laden: this.#laden }
    for (const { node } of this.#nodes.values()) {
      for (const [reason, count] of Object.entries(node.dropReasons())) drops[reason] = (drops[reason] ?? 0) + count
      if (node.kind !== 'runtime') continue
      addCounters(node.engine, counters)
      for (const what of ['completed', 'refused', 'aborted', 'takenBack', 'cancelled'] as const) moves[what] += node.moves.out[what]
    }
    return { outputs: this.#outputs, records: this.#records, flows: this.#flows, drops, counters, moves, crashes: this.#crashes,
      faults: this.#faults, events: this.#events }
  }
}
