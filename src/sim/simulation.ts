/**
 * Simulation: a whole cluster under one seed. The nodes are those of production (node/runtime-node.ts, node/switch-node.ts); time,
 * wires, clocks and chance are simulated; faults strike while packets flow; checkers watch every turn (ledger.ts).
 *
 *     phase 1  start: every runtime has announced itself
 *     phase 2  packets, commands and faults
 *     phase 3  healed: packets go on, everything that was begun must end within a bound
 *     phase 4  quiet: every flow expires, and nothing may be left
 */

import { AssertionError } from '../base/assert.ts'
import { defaultLimits, defaultTimeouts } from '../base/limits.ts'
import { Random } from '../base/random.ts'
import { Arena } from '../memory/arena.ts'
import { FlowClosed } from '../messages/closing.ts'
import { MessageField } from '../messages/message.ts'
import type { ClusterConfig, RuntimeEntry, SwitchEntry } from '../messages/cluster-config.ts'
import type { ChainMember } from '../nf/chain.ts'
import { createRuntimeNode, type RuntimeNode } from '../node/runtime-node.ts'
import { createSwitchNode, type SwitchNode } from '../node/switch-node.ts'
import { IN_PROGRESS_BYTES, InProgress } from '../runtime/in-progress.ts'
import type { ReplicationMode } from '../runtime/replication/protection.ts'
import { placementPolicies, type PlacementPolicyName } from '../vswitch/placement/index.ts'
import { degraded } from './chain-checks.ts'
import { EventQueue, type Alarm } from './event-queue.ts'
import { FaultInjector } from './fault-injector.ts'
import { dropsOfCopies, looseOrder, losslessFaults, permittedDrops, unsettledSteps, type FaultKind } from './fault-kinds.ts'
import { Ledger, type Checker, type StateLost } from './ledger.ts'
import { SimNetwork } from './network.ts'
import { REPLICATE_EVERY, ReplicationWatch } from './replication-watch.ts'
import { Orders } from './orders.ts'
import { Poisoned, probe, type ProbePlace } from './probe.ts'
import { SimPort } from './sim-port.ts'
import { SimTrace } from './sim-trace.ts'
import { hasTrailer, trailerId } from './trailer.ts'
import { translating } from './translating.ts'
import { flowNumberOf, Workload, type Sent } from './workload.ts'

export interface SimulationOptions {
  readonly seed: number
  readonly runtimes?: number
  readonly flows?: number
  readonly faults?: readonly FaultKind[]
  readonly policy?: PlacementPolicyName
  /** Whether flows have replicas. */
  readonly replication?: ReplicationMode
  /** Machines that runtimes are on in turn, and that replicas are kept apart on. */
  readonly machines?: number
  /** How many they have then: 1, or 2. */
  readonly replicas?: number
  /** Packets per flow, at most. */
  readonly packets?: number
  /** Whether switches can take back what a dead runtime had not given back; where links keep their order unless told. */
  readonly takesBack?: boolean
  /** Number of a flow whose life is recorded message by message. */
  readonly follow?: number
}

export interface SimulationResult {
  readonly seed: number
  /** True when a fault struck an open protocol step. */
  readonly counted: boolean
  readonly violations: readonly { readonly seed: number; readonly checker: Checker; readonly detail: string }[]
  /** True when runtimes died, and no packet might be lost for that. */
  readonly losesNothing: boolean
  /** How often a fault struck while a step of that phase was open: phase, fault, strikes. */
  readonly phases: Readonly<Record<string, Readonly<Partial<Record<FaultKind, number>>>>>
  /** Hash of everything that happened. */
  readonly hash: string
  readonly packets: { readonly sent: number; readonly left: number; readonly lost: number; readonly dropped: number }
  readonly moves: { readonly completed: number; readonly refused: number; readonly aborted: number; readonly takenBack: number }
  /** What `async` has cost: state lost with owners, and packets that left again; null in the other modes. */
  readonly async: StateLost & { readonly repeated: number } | null
  readonly simulatedMs: number
  readonly events: number
  /** Lines about the flow that was followed. */
  readonly story: readonly string[]
}

/** A node and what is around it. */
export interface SimNode {
  readonly id: number
  readonly isSwitch: boolean
  incarnation: number
  node: RuntimeNode | SwitchNode | null
  arena: Arena | null
  control: SimPort | null
  external: SimPort | null
  links: Map<number, SimPort>
  /** What outlives it: whose packet it was running. */
  readonly note: Int32Array
  isPaused: boolean
  /** It called itself empty and was taken out of the cluster; what comes for it now should not. */
  isRetired: boolean
  /** Its next turn. */
  readonly turn: Alarm
  /** Added to every turn's delay. */
  slowUs: number
  /** The configuration that it knows. */
  config: ClusterConfig | null
  /** Its clock: simulated time and this. */
  skewUs: number
}

export const SESSIONS = { frameBytes: 1514, sendBytes: 4096, ringBytes: 16_384, messageBytesMax: 4000 }
const START_US = 20_000
/** Turns of a flow, when flows begin, and for how long there are faults, at least. Shorter runs find more per second: docs/evaluation.md. */
const TURNS = 12
const SPREAD_US = 30_000
const FAULTS_US = 40_000
const IDLE_S = 0.03
const CONVERGENCE_US = 4_000_000
const QUIET_US = 350_000
/** Drops of network functions, and of connections that end while packets are held. */
const ORDINARY_DROPS = new Set(['probe-unwanted', 'translating-stray', 'translating-no-port', 'hold-ended', 'first-fragment-dropped'])
/** Those that cost no packet whose fate is not known otherwise. */
const dropsOfOthers = new Set([...ORDINARY_DROPS, ...dropsOfCopies].filter((reason) => reason !== 'hold-ended'))
const EVENTS_MAX = 20_000_000
const arenas = new Map<number, Arena[]>()

export class Simulation {
  readonly random: Random
  readonly queue = new EventQueue()
  readonly nodes: SimNode[] = []
  readonly #byId: SimNode[] = []
  readonly ledger: Ledger
  readonly network: SimNetwork
  readonly trace: SimTrace
  readonly options: Required<Omit<SimulationOptions, 'follow'>>
  config: ClusterConfig
  /** The configuration of the start: all nodes that there can be. */
  readonly #first: ClusterConfig
  #incarnations = 0
  #events = 0
  readonly #faults: FaultInjector
  readonly #orders: Orders
  readonly workload: Workload
  readonly #arenaBytes: number
  /** How long a node takes at most to come to what there is for it: the longer, the more comes together. */
  readonly #turnUs: number
  /** Called behind each turn, by those who wait for what only a turn brings about. */
  readonly watches = new Set<(one: SimNode) => void>()
  /** Frames too short for a flow's record now and then, so that it travels in pieces. */
  readonly #sessions: typeof SESSIONS
  readonly #used: Arena[] = []
  readonly #quarantined: (readonly Int32Array[])[] = []
  /** Counts of nodes that are gone. */
  readonly #gone = { dropped: 0, inside: 0, handedOver: 0, takenOver: 0, covered: 0, heldLost: 0 }
  readonly #dropReasons = new Map<string, number>()
  readonly watch = new ReplicationWatch(this)
  guardedOrders = 0
  /** Nothing has happened that may cost a packet without a word: links can take back, and runtimes have died one after the other. */
  #losesNothing: boolean
  /** By flow: who had its replica when its owner died last. */
  readonly #keepers = new Map<number, SimNode>()
  /** No node has died while another was out of order. */
  #diedApart = true

  constructor(options: SimulationOptions) {
    const random = new Random(options.seed)
    const { seed, runtimes = 4, flows = 50, faults = [], policy = random.pick(['round-robin', 'least-loaded', 'rendezvous'] as const),
      packets = TURNS, replication = 'none', machines = 1, replicas = 1, takesBack = seed % 4 !== 3 } = options
    const isOrdered = !faults.some((kind) => looseOrder.includes(kind))
    this.options = { seed, runtimes, flows, faults, policy, packets, replication, machines, replicas, takesBack: takesBack && isOrdered }
    this.random = random
    this.#turnUs = random.pick([6, 40, 160])
    this.#sessions = { ...SESSIONS, frameBytes: random.pick([1514, 1514, 256]) }
    this.trace = new SimTrace(options.follow ?? 0)
    this.#arenaBytes = 2 ** Math.ceil(Math.log2(3 * 2 ** 20 + flows * 2500 + runtimes * 65_536))
    const switches: SwitchEntry[] = [1, 2].map((id) =>
      ({ id, incarnation: ++this.#incarnations, side: id === 1 ? 'ingress' : 'egress', isHome: id === 1 || random.chance(0.3) }))
    const entries: RuntimeEntry[] = Array.from({ length: runtimes }, (_, i) =>
      ({ id: 11 + i, incarnation: ++this.#incarnations, isDraining: false }))
    this.config = this.#first = { version: 1, clusterId: 7, switches, runtimes: entries }
    this.workload = new Workload(random, { flows, packetsMax: packets, spreadUs: SPREAD_US, silenceUs: IDLE_S * 1e6 })
    this.ledger = new Ledger(this.workload.packetsMax, !faults.some((kind) => looseOrder.includes(kind)), replication === 'commit')
    this.ledger.survives = replication === 'commit' && replicas > 1 && this.ledger.isOrdered &&
      !faults.some((kind) => kind === 'crash' || kind === 'poison' || kind === 'restart')
    this.ledger.mayRepeat = replication === 'async' ||
      (replication === 'commit' && faults.some((kind) => kind === 'restart' || looseOrder.includes(kind)))
    this.#losesNothing = this.options.takesBack && replication === 'commit' && faults.every((kind) => losslessFaults.has(kind))
    this.network = new SimNetwork(this)
    for (const { id } of [...switches, ...entries]) {
      const one: SimNode = { id, isSwitch: id < 10, incarnation: 0, node: null, arena: null, control: null, external: null, links: new Map(),
        note: new Int32Array(IN_PROGRESS_BYTES >> 2), isPaused: false, isRetired: false, slowUs: 0, config: null, skewUs: 0,
        turn: this.queue.alarm(() => { this.#turn(one) }) }
      this.nodes.push(one)
      this.#byId[id] = one
    }
    this.#faults = new FaultInjector(this)
    this.#orders = new Orders(this)
  }

  // -- Nodes ---------------------------------------------------------------------------------------------------------

  find(id: number): SimNode {
    return this.#byId[id] as SimNode
  }

  /** Starts a node in the life that the configuration names. */
  start(one: SimNode): void {
    const arena = arenas.get(this.#arenaBytes)?.pop() ?? new Arena(this.#arenaBytes)
    this.#used.push(arena)
    one.arena = arena
    one.isRetired = false
    one.control = new SimPort(arena, (frame) => this.network.control(one.id, frame))
    const { config } = this
    one.config = config
    const { flows } = this.options
    one.links = new Map(this.nodes.filter((other) => other.isSwitch !== one.isSwitch)
      .map((other) => [other.id, this.network.port(arena, one.id, other.id)]))
    if (one.isSwitch) this.network.restarted(one.id)
    const { links } = one
    const seed = this.random.int32()
    const onMessage = (peer: number, inBand: boolean, at: number): void => {
      this.trace.message(this.queue.now, peer, one.id, inBand, arena, at)
      this.watch.message(one, peer, arena, at)
      const hasEnded = arena.u8[at] === FlowClosed.type && arena.u8[at + MessageField.code] !== 0
      if (hasEnded) this.ledger.ended(arena.f64[(at + MessageField.flow) >> 3])
    }
    const common = { arena, id: one.id, clusterId: config.clusterId, seed, config, sessions: this.#sessions, onMessage, wasm: false }
    if (one.isSwitch) {
      one.incarnation = (config.switches.find(({ id }) => id === one.id) as SwitchEntry).incarnation
      one.external = new SimPort(arena, this.network.outside(one.id))
      one.node = createSwitchNode({
        ...common, incarnation: one.incarnation, policy: placementPolicies[this.options.policy](),
        limits: { entries: flows * 3 + 64, packets: 256, largePackets: 1, held: 160, heldPerFlow: 64 },
        times: { holdUs: 200_000, sweepUs: 2000, silenceUs: 2500 },
        ports: { external: one.external, control: one.control, links },
      })
    } else {
      one.incarnation = (config.runtimes.find(({ id }) => id === one.id) as RuntimeEntry).incarnation
      const { incarnation } = one
      const place: ProbePlace = (state) => {
        const node = one.node as RuntimeNode
        const record = state - node.engine.chain.nfs[1].stateOffset
        return { runtime: one.id, incarnation, flowId: node.flowOf(record), epoch: node.epochOf(record) }
      }
      one.node = createRuntimeNode({
        ...common, incarnation: one.incarnation, inProgress: new InProgress(one.note), chain: this.#chain(place), reusesCode: true,
        replication: this.options.replication, replicas: this.options.replicas, replicateEvery: REPLICATE_EVERY,
        isApart: (runtime) => (runtime - one.id) % this.options.machines !== 0,
        limits: { ...defaultLimits, flows: flows * 2 + 64, packets: 320, largePackets: 1, extentBytes: 65_536, recordBytes: 65_536,
          aliases: flows + 16, fragmentedDatagrams: 64, fragmentsHeld: 64 },
        timeouts: { ...defaultTimeouts, tcpOpening: IDLE_S, tcp: IDLE_S, tcpClosed: IDLE_S / 2, udp: IDLE_S, icmp: IDLE_S, other: IDLE_S,
          fragment: 0.05 },
        runtimeLimits: { absentFlows: flows * 2 + 64, buffered: 160, bufferedPerFlow: 64, closings: 64, movesOut: 64, unreleased: 128,
          unacknowledged: 12 },
        runtimeTimes: { moveTimeoutUs: 4000, residenceUs: 500, openingTimeoutUs: 20_000, workloadUs: 40_000, slowReplicaUs: 1000 },
        ports: { control: one.control, links },
      })
    }
    this.#tellQuarantined(one)
    this.plan(one, this.queue.now + 1)
  }

  /** Every runtime is told, those to come too. */
  quarantine(keys: readonly Int32Array[]): void {
    this.#quarantined.push(keys)
    for (const one of this.nodes) this.#tellQuarantined(one, keys)
  }

  #tellQuarantined(one: SimNode, ...lists: (readonly Int32Array[])[]): void {
    if (one.isSwitch || one.node === null) return
    const all = lists.length === 0 ? this.#quarantined : lists
    for (const keys of all) (one.node as RuntimeNode).quarantine(keys, this.queue.now + one.skewUs)
  }

  #chain(place: ProbePlace): ChainMember[] {
    const definition = probe({ ledger: this.ledger, place, dropOneIn: 37, holdOneIn: 23, reconsiderOneIn: 19 })
    const { flows } = this.options
    return [{ definition: translating(this.ledger, Math.max(3, flows >> 3)), config: {} }, { definition, config: {} }]
  }

  /** Plans a node's next turn, no later than this. */
  plan(one: SimNode, at: number): void {
    if (one.node === null || one.isPaused || at >= one.turn.at) return
    this.queue.set(one.turn, at)
  }

  /** Something has come for a node. */
  wake(one: SimNode): void {
    this.plan(one, this.queue.now + 1 + this.random.below(this.#turnUs) + one.slowUs)
  }

  #turn(one: SimNode): void {
    const { node } = one
    if (node === null || one.isPaused) return
    const { now } = this.queue
    this.trace.turn(now, one.id)
    let isMore: boolean
    try {
      isMore = node.poll(now + one.skewUs)
    } catch (error) {
      this.#died(one, error)
      return
    }
    const { received, emitted, takenOver, forwarded, dropped, buffered, handedOver } = node.packets
    if (received + emitted + takenOver !== forwarded + dropped + buffered + handedOver) {
      this.ledger.violate('conservation', `node ${one.id}: ${JSON.stringify(node.packets)}`)
    }
    const due = isMore ? now + 1 + one.slowUs : Math.max(now + 1 + one.slowUs, node.nextDue() - one.skewUs)
    if (due < Infinity) this.plan(one, due)
    if (this.watches.size > 0) for (const watch of this.watches) watch(one)
  }

  /** A node has died of what it did. */
  #died(one: SimNode, error: unknown): void {
    if (error instanceof Poisoned) return this.#faults.poisoned(one, error.flow)
    if (!(error instanceof AssertionError)) throw error
    this.ledger.violate('invariant', `node ${one.id}: ${error.message}`)
    this.stop(one)
  }

  /** Ends a node without a word. */
  stop(one: SimNode): void {
    const { node } = one
    if (node === null) return
    this.ledger.crashes++
    if (!this.#isAlone(one)) this.#losesNothing = this.#diedApart = false
    if (node.kind === 'runtime') {
      this.#countAbandoned(one, node)
      this.#countOrphans(node)
    }
    this.end(one, node)
    this.network.stopped(one.id)
  }

  /** Flows whose owners died before, and whose replicas die with this runtime ahead of their promotion. */
  #countAbandoned(one: SimNode, node: RuntimeNode): void {
    for (const [flow, keeper] of this.#keepers) {
      if (keeper === one && node.keepsReplica(flow)) this.ledger.abandoned(flow)
    }
  }

  /** What a runtime leaves that others keep replicas of goes on. */
  #countOrphans(node: RuntimeNode): void {
    for (const { flow } of node.flows()) {
      if (node.isExposed(flow)) this.ledger.exposed(flow)
      if (node.isAlone(flow)) this.ledger.abandoned(flow)
      if (node.isBare(flow)) this.ledger.bereft(flow)
      if (this.options.replication === 'async') this.ledger.setBack(flow)
      const keeper = this.nodes.find(({ id }) => id === node.replicaOf(flow))
      if (keeper?.node?.kind !== 'runtime' || !keeper.node.keepsReplica(flow)) continue
      this.#keepers.set(flow, keeper)
      this.ledger.orphaned(flow, this.watch.lossMax(node, flow))
    }
  }

  /** True when nothing else is out of order as a node dies: every other is there, and has no recovery or failing move under way. */
  #isAlone(one: SimNode): boolean {
    const areThere = this.config.runtimes.length === this.#first.runtimes.length && this.nodes.every(({ node }) => node !== null)
    return areThere && this.nodes.every(({ node }) => unsettledSteps.every((phase) => (node?.openSteps[phase] ?? 0) === 0)) && one.node !== null
  }

  /** A node is here no more. */
  end(one: SimNode, node: RuntimeNode | SwitchNode): void {
    this.#countGone(one, node)
    one.node = null
    this.queue.set(one.turn, Infinity)
    one.isPaused = false
    for (const port of [one.control, one.external, ...one.links.values()]) for (const frame of port?.lose() ?? []) this.lose(one, frame)
  }

  /** A frame finds no node where it comes to. */
  lose(one: SimNode, frame: Uint8Array): void {
    if (one.isRetired && this.ledger.isOrdered && hasTrailer(frame)) {
      const id = trailerId(frame, frame.length)
      this.ledger.violate('state', `packet ${id} comes to runtime ${one.id}, which called itself empty and was removed`)
    }
    this.ledger.lose(frame)
  }

  #countGone(one: SimNode, node: RuntimeNode | SwitchNode): void {
    const { received, emitted, forwarded, dropped, handedOver, takenOver } = node.packets
    this.#gone.dropped += dropped
    // In the middle of a turn some are neither here nor there.
    this.#gone.inside += received + emitted + takenOver - forwarded - dropped - handedOver
    this.#gone.handedOver += handedOver
    this.#gone.takenOver += takenOver
    this.#addDrops(node)
    this.#gone.inside += node.pendingFrames
    if (node.kind === 'switch') this.#gone.covered += node.takenBack.covered
    else this.#gone.heldLost += node.moves.out.heldLost
  }

  #addDrops(node: RuntimeNode | SwitchNode): void {
    for (const [reason, count] of Object.entries(node.dropReasons())) {
      this.#dropReasons.set(reason, (this.#dropReasons.get(reason) ?? 0) + count)
    }
  }

  // -- The controller's part: perfect, but for delays ----------------------------------------------------------------

  /** A configuration without a node, or with it in another life; told to every other node after a while. */
  reconfigure(id: number, isThere: boolean): void {
    const incarnation = isThere ? ++this.#incarnations : 0
    const change = <T extends SwitchEntry | RuntimeEntry>(entries: readonly T[], first: readonly T[]): T[] =>
      first.flatMap((entry) => (entry.id !== id ? entries.filter((one) => one.id === entry.id)
        // A switch that is down keeps its place, so that flow keys keep their homes.
        : isThere || id < 10 ? [{ ...entry, incarnation }] : []))
    this.publish({ ...this.config, switches: change(this.config.switches, this.#first.switches),
      runtimes: change(this.config.runtimes, this.#first.runtimes) })
  }

  publish(config: ClusterConfig): void {
    this.config = { ...config, version: this.config.version + 1 }
    const published = this.config
    for (const one of this.nodes) {
      const { node } = one
      if (node === null) continue
      this.queue.after(20 + this.random.below(600), () => {
        if (one.node !== node) return
        const before = one.config
        if (published.version > (before?.version ?? 0)) one.config = published
        try {
          node.notifyClusterConfig(published, this.queue.now + one.skewUs)
        } catch (error) {
          this.#died(one, error)
          return
        }
        if (before !== null) this.#checkPublished(one, before)
        this.wake(one)
      })
    }
  }

  /** What a runtime had put into its link before a switch hears that it is fenced counts: it has been read by now (PROTOCOL 18). */
  #checkPublished(one: SimNode, before: ClusterConfig): void {
    if (!one.isSwitch || one.config === null) return
    for (const { id, incarnation } of before.runtimes) {
      const waiting = one.links.get(id)?.waiting ?? 0
      if (waiting === 0 || one.config.runtimes.some((entry) => entry.id === id && entry.incarnation === incarnation)) continue
      this.ledger.violate('published', `switch ${one.id} hears that runtime ${id}.${incarnation} is fenced and has not read ${waiting} frames`)
    }
  }

  /** Runtimes that are there and in the configuration. */
  liveRuntimes(): SimNode[] {
    return this.nodes.filter((one) => !one.isSwitch && one.node !== null &&
      this.config.runtimes.some(({ id, incarnation }) => id === one.id && incarnation === one.incarnation))
  }

  // -- The run -------------------------------------------------------------------------------------------------------

  run(): SimulationResult {
    const { queue, random } = this
    for (const one of this.nodes) this.start(one)
    this.#until(START_US)
    let active = 0
    this.workload.start(
      (us, turn) => {
        active++
        queue.after(us, () => {
          active--
          turn()
        })
      },
      (sent) => { this.#come(sent) })
    this.#orders.start()
    this.#faults.start()
    this.watch.start()
    const faultsEnd = START_US + FAULTS_US + random.below(FAULTS_US)
    this.#until(faultsEnd)
    this.#faults.heal()
    this.#orders.stop()
    while (active > 0 && this.#until(queue.now + 5000));
    this.#converge()
    this.watch.stop()
    this.#until(queue.now + QUIET_US)
    this.#checkEnd()
    return this.#result()
  }

  /** A packet comes from outside. */
  #come({ side, frame, id }: Sent): void {
    const one = this.find(side + 1)
    this.ledger.send(id)
    this.trace.packet(this.queue.now, 'in', one.id, frame)
    if (one.external === null || one.node === null) return this.ledger.lose(frame)
    one.external.arrive(frame)
    this.wake(one)
  }

  /** A packet comes that its runtime will die of, of some flow or of this one again; the flow's number, 0 if there was none. */
  poison(again = 0): number {
    return this.workload.poison((sent) => { this.#come(sent) }, again)
  }

  /** Lets time pass; false when nothing can happen any more or there have been too many events. */
  #until(time: number): boolean {
    while (this.queue.step(time)) {
      if (++this.#events > EVENTS_MAX) {
        this.ledger.violate('convergence', 'the run takes too many events')
        return false
      }
    }
    return true
  }

  /** Steps that are open, by phase, as `phase at node`. */
  #openSteps(): string[] {
    return this.nodes.flatMap((one) => Object.entries(one.node?.openSteps ?? {})
      .filter(([phase, count]) => count !== 0 && phase !== 'draining').map(([phase, count]) => `${phase} at ${one.id}: ${count}`))
      .concat(degraded(this))
  }

  #converge(): void {
    const end = this.queue.now + CONVERGENCE_US
    while (this.queue.now < end) {
      this.#until(this.queue.now + 2000)
      if (this.#openSteps().filter((step) => !step.startsWith('opening') && !step.startsWith('closing')).length === 0) return
    }
    this.ledger.violate('convergence', `after ${CONVERGENCE_US / 1e6} s still open: ${this.#openSteps().join(', ')}`)
  }

  #checkEnd(): void {
    const { ledger } = this
    let dropped = this.#gone.dropped
    let inside = this.#gone.inside
    let handedOver = this.#gone.handedOver
    let takenOver = this.#gone.takenOver
    let emitted = 0
    let { covered, heldLost } = this.#gone
    for (const one of this.nodes) {
      const { node } = one
      if (node === null) continue
      const { packets } = node
      dropped += packets.dropped
      handedOver += packets.handedOver
      takenOver += packets.takenOver
      emitted += packets.emitted
      inside += packets.buffered
      if (node.kind === 'switch') covered += node.takenBack.covered
      else heldLost += node.moves.out.heldLost
      this.#addDrops(node)
      const left = [...node.flows()]
      if (left.length > 0) {
        const some = left.slice(0, 3).map(({ flow, epoch, phase, owner, key }) =>
          `number ${flowNumberOf((one.arena as Arena).i32, key)} (id ${flow}) ${phase} at epoch ${epoch}, owner ${owner}`)
        ledger.violate('pools', `node ${one.id} has ${left.length} flows at the end: ${some.join('; ')}`)
      }
      // A policy always chooses one of the runtimes that it is given.
      if ((node.anomalies['placement-policy'] ?? 0) > 0) ledger.violate('anomaly', `the policy of node ${one.id} chose no runtime`)
      if (node.slotsUsed !== packets.buffered) {
        ledger.violate('pools', `node ${one.id} uses ${node.slotsUsed} packet slots at the end, ${packets.buffered} packets are buffered`)
      }
      const open = Object.entries(node.openSteps).filter(([phase, count]) => count !== 0 && phase !== 'draining')
      if (open.length > 0) ledger.violate('convergence', `node ${one.id} at the end: ${JSON.stringify(Object.fromEntries(open))}`)
    }
    this.watch.checkEnd()
    // What a switch has taken back can be lost with the switch.
    if (this.#losesNothing || (this.options.takesBack && this.#diedApart && !this.options.faults.includes('restart'))) {
      ledger.checkNothingLost(!this.#losesNothing, this.#dropReasons, dropsOfOthers, heldLost)
    }
    const permitted = permittedDrops(this.options.faults)
    for (const reason of this.#dropReasons.keys()) {
      // A new connection on the ports of one that lingers ends that one, with what it holds.
      if (!permitted.has(reason) && !ORDINARY_DROPS.has(reason)) ledger.violate('drops', `packets were dropped as ${reason}`)
    }
    const broken = [...ledger.broken()]
    // Of packets that were dropped nobody knows which; what was for a switch that is down is lost with it.
    const hasDropped = this.options.faults.includes('restart') || [...this.#dropReasons.keys()].some((reason) => !ORDINARY_DROPS.has(reason))
    if (broken.length > 0 && ledger.isOrdered && !hasDropped) {
      ledger.violate('commit', `the state that goes on has seen packets that have not left: ${broken.slice(0, 3).join(', ')}`)
    }
    // Packets in messages are lost only with a node.
    const inMessages = handedOver - takenOver
    // Of packets that were taken back and had been processed, those that are not covered by a record are here again.
    const again = this.network.again - covered
    const missing = ledger.sent + ledger.duplicated + again + emitted - ledger.left - ledger.lost - dropped - inside
    const isOdd = ledger.crashes === 0 && (inMessages > 0 || inMessages < -ledger.rests - this.network.releasedAgain)
    if (ledger.repeated === 0 && (missing !== inMessages || isOdd)) {
      ledger.violate('loss', `${ledger.sent} packets came, ${ledger.left} left, ${ledger.lost} were lost by faults, ${dropped} dropped, ` +
        `${inside} were in crashed nodes, ${inMessages} in their messages: ${missing - inMessages} are not accounted for` +
        ` (such as ${[...ledger.unaccounted()].slice(0, 3).join(', ')})`)
    }
  }

  #result(): SimulationResult {
    const { seed } = this.options
    const moves = { completed: 0, refused: 0, aborted: 0, takenBack: 0 }
    let dropped = this.#gone.dropped
    for (const one of this.nodes) {
      dropped += one.node?.packets.dropped ?? 0
      if (one.isSwitch || one.node === null) continue
      const { out } = (one.node as RuntimeNode).moves
      moves.completed += out.completed
      moves.refused += out.refused
      moves.aborted += out.aborted
      moves.takenBack += out.takenBack
    }
    const { ledger } = this
    const losesNothing = this.#losesNothing && ledger.crashes > 0
    for (const arena of this.#used) {
      arena.reset()
      const pool = arenas.get(this.#arenaBytes)
      if (pool === undefined) arenas.set(this.#arenaBytes, [arena])
      else pool.push(arena)
    }
    return {
      seed, losesNothing, counted: this.#faults.counted, phases: this.#faults.phases, hash: this.trace.hash, moves, events: this.#events,
      violations: ledger.violations.map((violation) => ({ seed, ...violation })),
      packets: { sent: ledger.sent, left: ledger.left, lost: ledger.lost, dropped },
      async: this.options.replication === 'async' ? { ...ledger.stateLost, repeated: ledger.repeated } : null,
      simulatedMs: Math.round(this.queue.now / 1000), story: this.trace.story,
    }
  }
}

/** Runs one seed. */
export function simulate(options: SimulationOptions): SimulationResult {
  return new Simulation(options).run()
}
