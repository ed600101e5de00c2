/**
 * Node process: a runtime or a switch as a process. It opens its ports, waits for the first cluster configuration that knows it, and
 * runs the node until it is told to end.
 *
 *     start ─▶ ports open, commands answered ─▶ NotifyClusterConfig with this life in it ─▶ node made, executor runs
 *                                                                                          │
 *         exit 0 ◀─ Shutdown, SIGTERM, SIGINT: what is inside goes out first ◀─────────────┤
 *         exit 70 ◀─ a broken invariant: at once, with a report ◀──────────────────────────┤
 *         exit 75 ◀─ a configuration without this life: fenced, at once ◀──────────────────┘
 *
 * Crash-only: nothing is kept on disk, and what a process leaves behind (sockets) the next life takes over.
 *
 * Commands, named as in the paper's table 2: GetStatus, PollWorkload, NotifyClusterConfig, SetMigrationTarget, Drain, ListFlows,
 * Shutdown; people and programs give them over Connect (`api-door.ts`). Controllers use two others, `Report` and `Command`:
 * `controller/node-commands.ts`. A switch that was started without an incarnation answers `Report` with a hello until it is given one.
 */

import { randomUUID } from 'node:crypto'
import { rmSync } from 'node:fs'
import { assert } from '../base/assert.ts'
import { CodedError } from '../base/coded-error.ts'
import type { IdleTimeouts } from '../base/limits.ts'
import { machineOf } from '../controller/machines.ts'
import type { Hello, NodeCommand, Report } from '../controller/node-commands.ts'
import { KEY_WORDS } from '../flow/flow-record.ts'
import { Arena } from '../memory/arena.ts'
import type { ClusterConfig } from '../messages/cluster-config.ts'
import type { CommandResult } from '../node/cluster-node.ts'
import { longSessionSizes } from '../node/control-plane.ts'
import { createRuntimeNode, type RuntimeNode } from '../node/runtime-node.ts'
import { createSwitchNode, type SwitchNode } from '../node/switch-node.ts'
import type { LinkPort } from '../ports/link-port.ts'
import { waitForPorts } from '../ports/port-waiter.ts'
import { systemClock } from '../ports/system-clock.ts'
import { placementPolicies } from '../vswitch/placement/index.ts'
import { ApiDoor } from './api-door.ts'
import { ClusterFolder, startTicksOf } from './cluster-folder.ts'
import { ControlNetwork } from './control-network.ts'
import { checkAgainst } from './config-problem.ts'
import { Executor } from './executor.ts'
import { createExternalPort, type ExternalPort } from './external-port.ts'
import { listFlows, listReplicas } from './flow-list.ts'
import { LineRpcServer, type RpcParams } from './line-rpc.ts'
import { MachineLink } from './machine-link.ts'
import { monotonicUs } from './monotonic-clock.ts'
import { clusterConfigSchema, FIRST_RUNTIME_ID, type NodeConfig, type RuntimeConfig, type SwitchConfig } from './node-config.ts'
import { NODE_FAILED } from './node-launcher.ts'
import { NodeLink } from './node-link.ts'
import { NodeReporter } from './node-reporter.ts'
import { NodeWatcher } from './node-watcher.ts'
import { openProgressNote } from './progress-note.ts'
import { QuarantineCapture } from './quarantine-capture.ts'
import type { NodeStatus, NodeWorkload } from './node-status.ts'
import { configError, resolveRunConfig, type RunConfig } from './run-config.ts'
import { PauseWatch, pauseText } from './pause-watch.ts'
import { endYielding } from './start-priority.ts'

/** Exit statuses that a supervisor knows. */
export const NodeExit = { ended: 0, failed: NODE_FAILED, defect: 70, fenced: 75 } as const

/** How long an orderly shutdown lets packets go out. */
const DRAIN_MS = 500
const FLOWS_MAX = 100_000
/** How long a node waits for its links before it begins without, and how often it looks. */
const LINK_MS = 2_000
const LINK_POLL_MS = 2
/** Who is fenced says that it has stood still, if it has for so long, µs. */
const PAUSE_US = 100_000

/** The answer to `Report`. */
export type ReportAnswer = { readonly hello: Hello } | { readonly report: Report }

/** Links between processes lose nothing while both live, but one that waits for its core may be silent for some milliseconds. */
const SESSIONS = { timeoutUsMin: 20_000 }

export class NodeProcess {
  readonly #config: NodeConfig
  readonly #onDefect: (report: string) => void
  readonly #folder: ClusterFolder
  readonly #arena = new Arena()
  readonly #control: ControlNetwork
  readonly #links = new Map<number, NodeLink | MachineLink>()
  readonly #rpc: LineRpcServer
  readonly #api: ApiDoor
  readonly #reporter = new NodeReporter()
  readonly #watcher = new NodeWatcher({
    arena: this.#arena,
    name: () => this.#config.name,
    node: () => this.#node,
    ports: () => [
      ...this.#external === undefined ? [] : [{ kind: 'external', peer: 0, port: this.#external.port } as const],
      ...[...this.#links].map(([peer, port]) => ({ kind: 'link', peer, port } as const)),
      ...this.#bypass === undefined ? [] : [{ kind: 'bypass', peer: 0, port: this.#bypass } as const],
    ],
  })
  /** Tells this process from others of the same node. */
  readonly #nonce = randomUUID()
  #incarnation: number
  readonly #pauses = new PauseWatch()
  /** Told before the runtime was there. */
  readonly #quarantined: RpcParams[] = []
  #bypass: NodeLink | undefined
  #external: ExternalPort | undefined
  #run: RunConfig | undefined
  #runtime: RuntimeNode | undefined
  #switch: SwitchNode | undefined
  #executor: Executor | undefined
  #cluster: ClusterConfig | undefined
  #isBeginning = false
  #isDraining = false
  #isFenced = false
  #isStopped = false
  readonly #ended = Promise.withResolvers<number>()

  /** @param onDefect called with a report when the node has broken an invariant: the process is to end at once */
  constructor(config: NodeConfig, onDefect: (report: string) => void) {
    this.#config = config
    this.#incarnation = config.incarnation ?? 0
    this.#onDefect = onDefect
    this.#folder = new ClusterFolder(config.folder)
    const isFar = (node: number): boolean => this.#isFar(node)
    this.#control = new ControlNetwork({ arena: this.#arena, folder: this.#folder, node: config.id,
      ...config.network !== undefined && { far: { port: this.#machineLink('control between machines', 0), isFar } } })
    this.#rpc = new LineRpcServer(this.#folder.nodeSocket(config.id), {
      GetStatus: () => this.#status(),
      PollWorkload: () => this.#workload(),
      NotifyClusterConfig: (params) => this.#notifyClusterConfig(params),
      Report: ({ controller }) => this.#report(String(controller)),
      Quarantine: (params) => this.#quarantine(params),
      Command: ({ command }) => this.#command(command as NodeCommand),
      SetMigrationTarget: (params) => this.#setMigrationTarget(params),
      Drain: (params) => this.#drain(params),
      ListFlows: (params) => this.#listFlows(params),
      ListReplicas: ({ flows }) => (this.#runtime === undefined ? [] : listReplicas(this.#runtime, flows as number[])),
      ...this.#watcher.methods,
      Shutdown: () => { setImmediate(() => { this.stop() }) },
    })
    const { id, name, folder } = config
    this.#api = new ApiDoor({ kind: 'node', id, name, folder }, this.#folder.nodeApi(id))
  }

  /**
   * Runs until the end.
   *
   * @returns the exit status
   * @throws CodedError for what is wrong with configuration, ports or network functions
   */
  async run(): Promise<number> {
    const config = this.#config
    this.#pauses.start()
    try {
      if (config.kind === 'runtime') {
        const { config: run, problems } = await resolveRunConfig({ file: config.run, folder: config.nfFolder })
        if (run === undefined) throw configError(problems, config.run)
        this.#run = run
      } else {
        this.#external = await createExternalPort(this.#arena, config.external, config.externalFolder)
        if (this.#external.warning !== undefined) process.stderr.write(`${this.#external.warning}\n`)
        this.#external.port.open()
        if (config.bypass !== undefined) {
          const role = config.id < config.bypass ? 'server' : 'client'
          this.#bypass = new NodeLink({ arena: this.#arena, name: 'bypass', socket: this.#folder.bypassSocket(config.id, config.bypass), role })
          this.#bypass.open()
        }
      }
      this.#control.open()
      await this.#rpc.open()
      await this.#api.open()
      return await this.#ended.promise
    } finally {
      this.#pauses.close()
      this.#rpc.close()
      for (const port of this.#ports()) await port.close()
      // Who comes to this end was not kept from it by a packet.
      if (config.kind === 'runtime') rmSync(this.#folder.noteFile(this.#incarnation), { force: true })
      // Who is fenced is waited for by the next life.
      await this.#api.close(this.#isFenced ? 0 : undefined)
    }
  }

  /** Ends in good order: what is inside goes out first. */
  stop(): void {
    this.#isStopped = true
    if (this.#executor === undefined) this.#ended.resolve(NodeExit.ended)
    else this.#executor.stop(DRAIN_MS)
  }

  /** What there is to say about this process when it fails: a line of JSON. */
  report(error: unknown): string {
    const { kind, id, name } = this.#config
    const node = this.#node
    return JSON.stringify({
      node: { kind, id, name, incarnation: this.#incarnation }, error: error instanceof Error ? error.stack : String(error),
      configVersion: this.#cluster?.version ?? 0, packets: node?.packets, dropReasons: node?.dropReasons(), openSteps: node?.openSteps,
      anomalies: node?.anomalies, slotsUsed: node?.slotsUsed,
    })
  }

  get #node(): RuntimeNode | SwitchNode | undefined {
    return this.#runtime ?? this.#switch
  }

  #ports(): LinkPort[] {
    const others = [this.#external?.port, this.#bypass].filter((port) => port !== undefined)
    return [this.#control, ...this.#links.values(), ...others]
  }

  // -- Commands ------------------------------------------------------------------------------------------------------

  #notifyClusterConfig(params: RpcParams): CommandResult {
    const { data, problems: [problem] } = checkAgainst(clusterConfigSchema, params.config)
    if (problem !== undefined) throw new CodedError(problem.code, problem.message, problem.mend)
    return this.#configure(data as ClusterConfig)
  }

  /** A configuration: of this cluster, and newer than what there is. */
  #configure(next: ClusterConfig): CommandResult {
    const { kind, id, clusterId } = this.#config
    const incarnation = this.#incarnation
    if (next.clusterId !== clusterId) return { accepted: false, code: 'NF_OTHER_CLUSTER' }
    if (next.version <= (this.#cluster?.version ?? 0)) return { accepted: false, code: 'NF_CONFIG_OLD' }
    const entries = kind === 'runtime' ? next.runtimes : next.switches
    if (!entries.some((entry) => entry.id === id && entry.incarnation === incarnation)) {
      // Whoever is fenced must not go on: others may have taken its flows over.
      if (this.#cluster !== undefined) this.#fence()
      return { accepted: false, code: 'NF_FENCED' }
    }
    this.#cluster = next
    this.#attachLinks(next)
    this.#node?.notifyClusterConfig(next, systemClock.now())
    this.#followDraining()
    if (!this.#isBeginning) {
      this.#isBeginning = true
      this.#begin().catch((error: unknown) => { this.#ended.reject(error) })
    }
    this.#executor?.wake()
    return { accepted: true, code: '' }
  }

  // -- Controllers ---------------------------------------------------------------------------------------------------

  #report(controller: string): ReportAnswer {
    const { id, kind } = this.#config
    if (this.#incarnation === 0) return { hello: { node: id, nonce: this.#nonce } }
    // A runtime that is not in the configuration yet is ready to be in it: its chain is loaded, its ports are open.
    const isReady = kind === 'runtime' && (this.#cluster === undefined || this.#isLinked)
    const node = {
      runtime: this.#runtime, switch: this.#switch, statistics: this.#executor?.statistics,
      external: this.#external?.port.statistics, links: this.#links,
      takePause: () => this.#pauses.take(controller),
    }
    return { report: this.#reporter.report(controller, kind, id, this.#incarnation, node, isReady, systemClock.now()) }
  }

  #command(command: NodeCommand): CommandResult {
    const verdict = this.#reporter.judge(command)
    if (verdict === 'lower-term') return { accepted: false, code: 'NF_TERM_OLD' }
    if (verdict !== 'take') return { accepted: false, code: verdict === 'older' ? 'NF_COMMAND_OLD' : 'NF_COMMAND_REPEATED' }
    switch (command.kind) {
      case 'configure':
        return this.#configure(command.config)
      case 'move': {
        const runtime = this.#asRuntime()
        this.#reporter.beginOrder(runtime)
        const result = runtime.setMigrationTarget(command.target, command.flows, command.share)
        this.#executor?.wake()
        return result
      }
      case 'welcome':
        if (this.#incarnation === 0 && command.nonce === this.#nonce) this.#incarnation = command.incarnation
        return { accepted: true, code: '' }
      case 'set-replicas':
      case 'recover':
      case 'grant-block':
        // Runtimes choose replicas and promote them by the configuration itself: what is said here is so already.
        return { accepted: true, code: '' }
    }
  }

  /** A runtime that the configuration drains says when it is empty. */
  #followDraining(): void {
    const isDraining = this.#cluster?.runtimes.find(({ id }) => id === this.#config.id)?.isDraining ?? false
    if (this.#runtime === undefined || isDraining === this.#isDraining) return
    this.#isDraining = isDraining
    this.#runtime.setDraining(isDraining, systemClock.now())
  }

  /** Flows that may have been a runtime's end. Whoever tells it is the controller: the keys are as a note had them. */
  #quarantine(params: RpcParams): CommandResult {
    const { keys } = params
    const areKeys = Array.isArray(keys) && keys.every((key) => Array.isArray(key) && key.length === KEY_WORDS && key.every(Number.isInteger))
    if (!areKeys) throw new CodedError('NF_CONFIG_INVALID', `keys must be lists of ${KEY_WORDS} words`)
    if (this.#runtime === undefined) this.#quarantined.push(params)
    else this.#runtime.quarantine((keys as number[][]).map((key) => Int32Array.from(key)), systemClock.now(), params.isSuspect === true)
    return { accepted: true, code: '' }
  }

  #fence(): void {
    this.#isFenced = true
    const pause = this.#pauses.recent()
    const why = pause.us < PAUSE_US ? '' : `; it has stood still for ${pauseText(pause)}`
    process.stderr.write(`${this.#config.name} (incarnation ${this.#incarnation}) has been fenced${why}\n`)
    setImmediate(() => { this.#executor?.stop(0) })
  }

  /** True for a node on another machine. */
  #isFar(node: number): boolean {
    const { network } = this.#config
    return network !== undefined && machineOf(node, FIRST_RUNTIME_ID, network.machines) !== network.machine
  }

  #machineLink(name: string, link: number): MachineLink {
    const { id, clusterId, network } = this.#config
    assert(network !== undefined, 'nodes on other machines are reached over a network')
    const { interface: interfaceName, namespace } = network
    return new MachineLink({ arena: this.#arena, name, clusterId, interface: interfaceName, namespace, node: id, link })
  }

  /** Links to nodes that have none yet. Those of nodes that have gone stay: their next life comes in by the same one. */
  #attachLinks(next: ClusterConfig): void {
    const { kind, id } = this.#config
    const isSwitch = kind === 'switch'
    for (const { id: peer } of isSwitch ? next.runtimes : next.switches) {
      if (this.#links.has(peer)) continue
      const socket = isSwitch ? this.#folder.linkSocket(id, peer) : this.#folder.linkSocket(peer, id)
      const name = `link ${id}-${peer}`
      const link = this.#isFar(peer) ? this.#machineLink(name, peer)
        : new NodeLink({ arena: this.#arena, name, socket, role: isSwitch ? 'server' : 'client', keepsUnconsumed: isSwitch,
          isReleaseManual: this.#config.kind === 'runtime' && this.#config.replication === 'commit' })
      link.open()
      this.#links.set(peer, link)
      this.#node?.attachLink(peer, link)
      this.#executor?.addPort(link)
    }
  }

  /**
   * Makes the node once its links are up, or have had time to be: before, nobody hears of this life, and nobody sends packets to it that
   * have no way to go.
   */
  async #begin(): Promise<void> {
    for (const end = performance.now() + LINK_MS; performance.now() < end && !this.#isFenced && !this.#isStopped;) {
      for (const port of this.#ports()) port.maintain(systemClock.now())
      const down = [...this.#links.values(), ...this.#bypass === undefined ? [] : [this.#bypass]].filter(({ isUp }) => !isUp)
      if (down.length === 0) break
      await waitForPorts(down, LINK_POLL_MS)
      // Commands come in between.
      await new Promise((resolve) => { setImmediate(resolve) })
    }
    if (this.#isFenced || this.#isStopped) return this.#ended.resolve(this.#isFenced ? NodeExit.fenced : NodeExit.ended)
    const config = this.#config
    const cluster = this.#cluster
    assert(cluster !== undefined, 'a node begins with a configuration')
    if (config.kind === 'runtime') {
      this.#runtime = this.#makeRuntime(config, cluster)
      for (const params of this.#quarantined.splice(0)) this.#quarantine(params)
    } else {
      this.#switch = this.#makeSwitch(config, cluster)
    }
    const node = this.#node
    assert(node !== undefined, 'a node has been made')
    this.#followDraining()
    endYielding()
    const executor = this.#executor = new Executor({ node, ports: this.#ports() })
    executor.run().then(() => { this.#ended.resolve(this.#isFenced ? NodeExit.fenced : NodeExit.ended) },
      (error: unknown) => { this.#onDefect(this.report(error)) })
  }

  /** It is there, and all links to nodes of the configuration are up. */
  get #isLinked(): boolean {
    if (this.#node === undefined || this.#cluster === undefined) return false
    const { switches, runtimes } = this.#cluster
    const peers = this.#config.kind === 'switch' ? runtimes : switches.filter(({ incarnation }) => incarnation !== 0)
    const isBypassed = switches.some(({ id, incarnation }) => id !== this.#config.id && incarnation === 0)
    return peers.every(({ id }) => this.#links.get(id)?.isUp === true) && (isBypassed || this.#bypass?.isUp !== false)
  }

  #makeRuntime({ id, clusterId, seed, replication, replicas }: RuntimeConfig, config: ClusterConfig): RuntimeNode {
    const run = this.#run
    assert(run !== undefined, 'the chain has been loaded')
    const capture = new QuarantineCapture(this.#folder.quarantineFile(id))
    return createRuntimeNode({
      inProgress: openProgressNote(this.#arena, this.#folder.noteFile(this.#incarnation)),
      arena: this.#arena, id, incarnation: this.#incarnation, clusterId, seed, config, chain: run.chain, limits: run.limits,
      onMessage: (peer, _inBand, at) => { this.#watcher.message(peer, at) },
      timeouts: run.timeouts satisfies IdleTimeouts, policy: run.policy, replication, replicas, isApart: (runtime) => this.#isFar(runtime),
      ports: { control: this.#control, links: this.#links }, sessions: SESSIONS, controlSessions: { ...longSessionSizes, ...SESSIONS },
      events: {
        quarantined: (frame, length) => { capture.add(this.#arena.u8.slice(frame, frame + length), systemClock.now()) },
        nfFailed: (nf, error) => {
          process.stderr.write(`network function ${nf} failed: ${error instanceof Error ? error.stack ?? '' : String(error)}\n`)
        },
      },
    })
  }

  #makeSwitch({ id, clusterId, seed, placement, limits }: SwitchConfig, config: ClusterConfig): SwitchNode {
    const external = this.#external
    assert(external !== undefined, 'the external port has been opened')
    return createSwitchNode({
      arena: this.#arena, id, incarnation: this.#incarnation, clusterId, seed, config, policy: placementPolicies[placement](),
      limits: defined(limits),
      sessions: SESSIONS,
      onMessage: (peer, _inBand, at) => { this.#watcher.message(peer, at) },
      ports: { external: external.port, control: this.#control, links: this.#links, bypass: this.#bypass },
    })
  }

  /** The answer says when the order was given, by the clock of the machine: moves are timed from there. */
  #setMigrationTarget({ target, number }: RpcParams): CommandResult & { readonly atUs?: number } {
    const atUs = monotonicUs()
    const result = this.#asRuntime().setMigrationTarget(Number(target), Number(number))
    this.#executor?.wake()
    return result.accepted ? { ...result, atUs } : result
  }

  #drain({ on }: RpcParams): CommandResult {
    const result = this.#asRuntime().setDraining(on !== false, systemClock.now())
    this.#executor?.wake()
    return result
  }

  #asRuntime(): RuntimeNode {
    if (this.#runtime !== undefined) return this.#runtime
    throw new CodedError('NF_CLUSTER', `${this.#config.name} is no runtime, or has no configuration yet`)
  }

  #listFlows({ filter, limit, state, flow }: RpcParams): unknown {
    if (this.#node === undefined) return { total: 0, flows: [] }
    return listFlows(this.#arena, this.#node, {
      filter: typeof filter === 'string' ? filter : '', isStateWanted: state === true,
      limit: Math.min(FLOWS_MAX, typeof limit === 'number' ? limit : 1000), ...typeof flow === 'number' && { flow },
    })
  }

  #workload(): NodeWorkload {
    const { statistics } = this.#executor ?? {}
    const packets = this.#node?.packets
    return {
      busyUs: statistics?.busyUs ?? 0, asleepUs: statistics?.asleepUs ?? 0, timeUs: systemClock.now(),
      received: packets?.received ?? 0, forwarded: packets?.forwarded ?? 0, dropped: packets?.dropped ?? 0, buffered: packets?.buffered ?? 0,
      emitted: packets?.emitted ?? 0, takenOver: packets?.takenOver ?? 0, handedOver: packets?.handedOver ?? 0,
      memoryBytes: process.memoryUsage.rss(),
      flows: this.#runtime?.engine.slab.used ?? this.#switch?.entries ?? 0,
      replicas: this.#runtime?.replicas ?? 0,
      isEmpty: this.#runtime?.isEmpty ?? false,
    }
  }

  #status(): NodeStatus {
    const { kind, id, name } = this.#config
    const node = this.#node
    const links = [...this.#links].map(([peer, link]) => ({ peer, isUp: link.isUp, lastEnd: link.lastEnd, ...link.statistics }))
    const { port: external, how, router } = this.#external ?? {}
    return {
      kind, id, name, incarnation: this.#incarnation, pid: process.pid, startTicks: startTicksOf(process.pid),
      ...this.#config.kind === 'runtime' && { chainVersion: this.#config.chainVersion },
      configVersion: this.#cluster?.version ?? 0,
      isReady: this.#isLinked && external?.isUp !== false && (node?.openSteps.announcing ?? 0) === 0,
      workload: this.#workload(),
      dropReasons: node?.dropReasons() ?? {}, anomalies: { ...node?.anomalies },
      openSteps: Object.fromEntries(Object.entries(node?.openSteps ?? {}).filter(([, count]) => count > 0)),
      links,
      ...external !== undefined && {
        external: { name: external.name, isUp: external.isUp, ...how !== undefined && { how: how() }, ...external.statistics,
          ...router !== undefined && { router: router() } },
      },
      ...this.#external?.traffic !== undefined && { traffic: this.#external.traffic() },
      control: {
        ...node?.sessionTotals(), txFull: this.#control.statistics.txFull, datagrams: this.#control.datagrams.txFrames,
        links: this.#control.links.map(({ name, isUp, lastEnd, statistics }) => ({ name, isUp, lastEnd, ...statistics })),
      },
      ...this.#runtime !== undefined && {
        moves: structuredClone(this.#runtime.moves) as unknown as Record<string, unknown>,
        replication: { held: this.#runtime.replicas, unprotected: this.#runtime.unprotected, degraded: this.#runtime.degraded,
          ...structuredClone(this.#runtime.replication) },
      },
    }
  }
}

/** Without what is undefined. */
function defined<T extends object>(value: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(value).filter(([, one]) => one !== undefined)) as never
}
