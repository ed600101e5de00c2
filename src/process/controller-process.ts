/**
 * Controller process: watches the nodes of a cluster on this machine, brings the cluster to where it should be, and takes the commands of
 * people. What it decides and how is `src/controller`; here are its store, its connections to the nodes, the launcher, and a clock.
 *
 *     nodes ◀─ Report, Command ─ connections ─▶ controller ◀─▶ store (SQLite in the folder, or etcd)
 *                                                  │
 *     processes of nodes ◀───── local launcher ◀───┘──▶ observer ─▶ events
 *
 * Crash-only: it may be killed at any moment. Nodes go on without it; the next one, or another that stands by, finds the nodes by their
 * sockets, and what was decided in the store.
 */

import { randomUUID } from 'node:crypto'
import { CodedError, type ErrorCode } from '../base/coded-error.ts'
import { defaultAutoscalerLimits, type AutoscalerLimits } from '../controller/autoscaler.ts'
import { Controller, defaultControllerLimits, type ControllerLimits } from '../controller/controller.ts'
import { isReachable, type ClusterView, type RuntimeView, type SwitchView } from '../controller/cluster-view.ts'
import type { Intent, IntentRefusal } from '../controller/intents.ts'
import type { Store } from '../controller/store.ts'
import { systemClock } from '../ports/system-clock.ts'
import { keepAccessToken } from '../rpc/access-token.ts'
import { apiTcp, apiTls } from './api-address.ts'
import { ApiDoor } from './api-door.ts'
import type { ClusterSpec } from './cluster-file.ts'
import { ClusterLauncher } from './cluster-launcher.ts'
import { ageOf, processKey, type ClusterFolder, type ProcessEntry } from './cluster-folder.ts'
import { foundingOf, machineAddresses, runtimeMember, runtimeName, switchMembers, type ClusterIdentity } from './cluster-members.ts'
import { ClusterObserver } from './cluster-observer.ts'
import { EventLog } from './event-log.ts'
import { LineRpcServer } from './line-rpc.ts'
import { LocalLauncher } from './local-launcher.ts'
import { startError, type NodeEnd, type NodeLauncher } from './node-launcher.ts'
import { FIRST_RUNTIME_ID } from './node-config.ts'
import { NodeExit } from './node-process.ts'
import { localPlace, NodeConnections } from './node-connections.ts'
import { operatorMethods } from './operator.ts'
import { RemoteMachine } from './remote-machine.ts'
import { QuarantineKeeper } from './quarantine-keeper.ts'
import { EtcdStore } from './stores/etcd-store.ts'
import { SqliteStore } from './stores/sqlite-store.ts'

export interface ControllerProcessOptions {
  readonly id: number
  readonly name: string
  readonly folder: ClusterFolder
  readonly identity: ClusterIdentity
  readonly launcher: NodeLauncher
}

const POLL_MS = 10
const HEARTBEAT_MS = 50
/** In between, while something has just happened that others wait for. */
const HURRY_MS = 2
/** For so long after the end of a process, the start of one, and the word of one that it is there. */
const ENDED_MS = 300
const STARTED_MS = 600
const HELLO_MS = 100
/** An intent that is not carried out for so long is not going to be. */
const INTENT_MS = 10_000
const FAN_OUT = 255
const BEGIN_MS = 10_000
/** How often a controller tries to listen where it could not. */
const API_RETRY_MS = 1_000

/** What an intent that was refused means to people. */
const REFUSALS: Readonly<Record<IntentRefusal, readonly [ErrorCode, string, string]>> = {
  'not-leader': ['NF_NOT_LEADER', 'this controller does not lead', 'Ask another one'],
  'out-of-limits': ['NF_CLUSTER', 'that is out of the cluster\'s limits', 'The keys scale.min and scale.max set them'],
  'rollout-under-way': ['NF_CLUSTER', 'an update is under way', 'Wait for its end, or roll it back: nfactor update --roll-back'],
  'no-rollout': ['NF_CLUSTER', 'no update is under way', ''],
  'same-version': ['NF_CLUSTER', 'the cluster has that version', ''],
  'unknown-node': ['NF_CLUSTER', 'that node has left the cluster meanwhile', 'See nfactor status'],
  'last-runtime': ['NF_CLUSTER', 'there is no other runtime for its flows', 'Add one first: nfactor scale'],
}

export class ControllerProcess {
  readonly id: number
  readonly name: string
  readonly folder: ClusterFolder
  readonly identity: ClusterIdentity
  readonly events: EventLog
  readonly connections: NodeConnections
  readonly launcher: ClusterLauncher
  /** Why a node could not be started, the last time it was tried. */
  startFailure: CodedError | undefined
  readonly #store: Store & { close(): unknown }
  readonly #rpc: LineRpcServer
  readonly #observer: ClusterObserver
  readonly #quarantines: QuarantineKeeper
  readonly #life = randomUUID()
  readonly #beganAt = performance.now()
  readonly #intents = new Map<number, (outcome: 'done' | IntentRefusal) => void>()
  readonly #bootMs = new Map<number, number>()
  /** Machines that have answered, or not, the last time. */
  readonly #machines = new Map<string, boolean>()
  readonly #ended = Promise.withResolvers<number>()
  readonly #api: ApiDoor
  #isEnding = false
  #apiTimer: NodeJS.Timeout | undefined
  #apiProblem = ''
  readonly #controller: Controller
  #term = 0
  /** Until when turns follow closer upon each other. */
  #hurryUntil = 0
  #pollTimer: NodeJS.Timeout | undefined

  private constructor(options: ControllerProcessOptions, store: Store & { close(): unknown }) {
    const { id, name, folder, identity, launcher } = options
    this.id = id
    this.name = name
    this.folder = folder
    this.identity = identity
    this.#store = store
    this.events = new EventLog(folder.eventsFile)
    const { spec, clusterId } = identity
    const processes = {
      runtime: (node: number, incarnation: number, chain: number) => runtimeMember(identity, folder, node, incarnation, chain),
      onStarted: (entry: ProcessEntry) => { this.#started(entry) },
      onEnded: (entry: ProcessEntry, end: NodeEnd | undefined) => { this.#processEnded(entry, end) },
    }
    const local = new LocalLauncher({ folder, launcher, switches: switchMembers(identity, folder), cpus: identity.cpus, ...processes })
    const token = spec.machines.length > 0 ? keepAccessToken(folder.tokenFile) : ''
    const remote = machineAddresses(spec).map((address) => new RemoteMachine({ address, token, clusterId, folder, ...processes,
      onChange: (isUp, why) => { this.#machineChanged(address.name, isUp, why) } }))
    this.launcher = new ClusterLauncher(local, remote, spec.machines.map(({ runtimes }) => runtimes))
    this.connections = new NodeConnections({
      places: [localPlace(folder, launcher.name !== 'process'), ...remote], controller: name,
      onReport: (report) => {
        this.#controller.receive(report, systemClock.now())
        if (this.#term !== 0) this.#observer.reported(report)
      },
      onHello: (hello) => {
        this.#hurry(HELLO_MS)
        if (this.#mayBegin()) this.#controller.hello(hello, systemClock.now())
      },
    })
    this.#observer = new ClusterObserver((event, text, fields) => { this.events.add(event, text, fields) },
      (node) => this.nameOf(node), (node) => this.#bootMsOf(node))
    this.#quarantines = new QuarantineKeeper({
      folder, links: this.connections,
      quarantine: (node, incarnation, keys, isSuspect) => this.connections.quarantine(node, incarnation, keys, isSuspect),
      // What a process on another machine does nobody sees here, while it lives.
      processOf: (incarnation) => local.processOfRuntime(incarnation),
      onQuarantined: (text, fields) => { this.events.add('flow-quarantined', text, fields) },
    })
    this.#controller = new Controller({
      name, life: this.#life, founding: foundingOf(identity), limits: limitsOf(identity),
      onIntent: (intent, outcome) => {
        this.#intents.get(intent)?.(outcome)
        this.#intents.delete(intent)
      },
    }, store, this.#quarantines, this.launcher)
    this.#rpc = new LineRpcServer(folder.controllerSocket(id), operatorMethods(this))
    this.#api = new ApiDoor({ kind: 'controller', id, name, folder: folder.path, cluster: identity.spec.name }, folder.controllerApi(id))
  }

  /** @throws CodedError when its store or its socket cannot be had */
  static async open(options: ControllerProcessOptions): Promise<ControllerProcess> {
    const { spec: { etcd, name } } = options.identity
    const store = etcd === undefined ? await SqliteStore.open(options.folder.storeFile)
      : await EtcdStore.open({ endpoints: etcd.endpoints, prefix: etcd.prefix ?? `nfactor/${name}/` })
    return new ControllerProcess(options, store)
  }

  /** Runs until it is told to end. Its nodes go on. */
  async run(): Promise<number> {
    let heartbeat: NodeJS.Timeout | undefined
    await this.#rpc.open()
    try {
      await this.#api.open()
      await this.#openTcp()
      this.#pollSoon(POLL_MS)
      heartbeat = setInterval(() => { this.connections.tick() }, HEARTBEAT_MS)
      return await this.#ended.promise
    } finally {
      this.#isEnding = true
      clearTimeout(this.#pollTimer)
      clearInterval(heartbeat)
      clearTimeout(this.#apiTimer)
      this.#controller.resign(systemClock.now())
      await this.#api.close()
      this.#rpc.close()
      this.connections.close()
      this.launcher.close()
      await this.#store.close()
    }
  }

  stop(): void {
    this.#ended.resolve(NodeExit.ended)
  }

  /**
   * Opens the public API at TCP. Where that cannot be now, this says so and tries again: a cluster is not left without a controller for
   * that. `nfactor up` has seen to it that all is well at the beginning.
   */
  async #openTcp(): Promise<void> {
    const { id, name, folder, identity: { spec: { api, folder: specFolder } } } = this
    if (api === undefined || this.#isEnding) return
    try {
      await this.#api.openTcp(apiTcp(api, id),
        { path: folder.controllerTcp(id), token: keepAccessToken(folder.tokenFile), tls: await apiTls(api, specFolder) })
      if (this.#apiProblem !== '') this.events.add('api-open', `${name} can be called at TCP`, { controller: name })
    } catch (error) {
      if (!(error instanceof CodedError)) throw error
      if (error.message !== this.#apiProblem) {
        process.stderr.write(`warning ${error.toLine()}\n`)
        this.events.add('api-closed', `${name} cannot be called at TCP: ${error.message}`, { controller: name, code: error.code })
      }
      this.#apiProblem = error.message
      this.#apiTimer = setTimeout(() => { void this.#openTcp() }, API_RETRY_MS)
    }
  }

  // -- For the operator ----------------------------------------------------------------------------------------------

  get isLeader(): boolean {
    return this.#term !== 0
  }

  get term(): number {
    return this.#term
  }

  /** Name of the controller that leads, as far as this one knows. */
  get leader(): string {
    return this.#controller.leader ?? ''
  }

  /** @throws CodedError `NF_NOT_LEADER` where it does not lead, or does not know the cluster yet */
  leaderView(): ClusterView {
    const view = this.isLeader ? this.view() : undefined
    if (view === undefined) {
      throw new CodedError('NF_NOT_LEADER', `${this.name} does not lead`, `Ask ${this.leader === '' ? 'another controller' : this.leader}`)
    }
    return view
  }

  view(): ClusterView | undefined {
    return this.#controller.view(systemClock.now())
  }

  /** Asks for something, and waits until it stands in the store. @throws CodedError why not */
  async intend(intent: Intent): Promise<void> {
    if (!this.isLeader) throw refusalOf('not-leader')
    const id = this.#controller.operate(intent)
    const outcome = await new Promise<'done' | IntentRefusal | undefined>((resolve) => {
      const timer = setTimeout(() => {
        this.#intents.delete(id)
        resolve(undefined)
      }, INTENT_MS)
      this.#intents.set(id, (value) => {
        clearTimeout(timer)
        resolve(value)
      })
    })
    if (outcome === undefined) {
      throw new CodedError('NF_CLUSTER', `nothing has come of ${intent.kind} for ${INTENT_MS / 1000} s`, 'Is the store there?')
    }
    if (outcome !== 'done') throw refusalOf(outcome)
  }

  nameOf(id: number): string {
    if (id >= FIRST_RUNTIME_ID) return runtimeName(id)
    return switchMembers(this.identity, this.folder).find((one) => one.id === id)?.name ?? `node ${id}`
  }

  /** The process of a node that there is now. */
  processOf({ id, incarnation }: Pick<SwitchView | RuntimeView, 'id' | 'incarnation'>): ProcessEntry | undefined {
    const node = this.connections.node(id)
    const entry = node?.incarnation === incarnation ? this.launcher.processOf(node) : undefined
    return entry ?? this.launcher.processOfRuntime(incarnation)
  }

  bootMs(process: { readonly id: number, readonly pid: number }): number {
    return this.#bootMs.get(processKey(process)) ?? 0
  }

  // -- Turns ---------------------------------------------------------------------------------------------------------

  #pollSoon(ms: number): void {
    clearTimeout(this.#pollTimer)
    if (this.#isEnding) return
    this.#pollTimer = setTimeout(() => {
      this.#pollSoon(performance.now() < this.#hurryUntil ? HURRY_MS : POLL_MS)
      this.#poll()
    }, ms)
  }

  /** Others wait for what comes next: turns follow closer upon each other for a while. */
  #hurry(ms: number): void {
    this.#hurryUntil = Math.max(this.#hurryUntil, performance.now() + ms)
    this.#pollSoon(0)
  }

  #poll(): void {
    const controller = this.#controller
    const now = systemClock.now()
    this.launcher.tick()
    // Who has been started is awaited.
    if (this.launcher.processes().some(({ id }) => this.connections.node(id) === undefined)) this.connections.look()
    controller.poll(now)
    const { term } = controller
    if (term !== this.#term) {
      this.#term = term
      if (term !== 0) {
        this.#observer.begin()
        this.events.add('leader', `${this.name} leads, in term ${term}`, { controller: this.name, term })
      }
    }
    if (term === 0) return
    this.launcher.startSwitches(term)
    this.launcher.keepWarm()
    const view = controller.view(now)
    if (view === undefined) return
    this.#endStrangers(view, term)
    this.#observer.observe(view)
  }

  /**
   * Whether switches may be let in. The first ones wait for the first runtimes, so that these share the first flows; but not for ever.
   */
  #mayBegin(): boolean {
    const view = this.view()
    if (view === undefined || view.fences.length > 0 || view.switches.some(({ incarnation }) => incarnation !== 0)) return true
    return view.runtimes.length >= view.scale.desired || performance.now() - this.#beganAt > BEGIN_MS
  }

  /** Switches whose life is over: they have been told, and may not be able to hear. */
  #endStrangers({ switches, cluster }: ClusterView, term: number): void {
    for (const entry of this.launcher.processes()) {
      if (entry.kind !== 'switch') continue
      const incarnation = this.connections.incarnationOf(entry)
      const isMeant = incarnation === 0 || incarnation > cluster.incarnation || switches.some((one) => one.incarnation === incarnation)
      if (!isMeant) this.launcher.stopSwitch(term, entry)
    }
  }

  #machineChanged(machine: string, isUp: boolean, why: string): void {
    if (this.#machines.get(machine) === isUp) return
    this.#machines.set(machine, isUp)
    const text = isUp ? `machine ${machine} answers` : `machine ${machine} does not answer: ${why}`
    this.events.add(isUp ? 'machine-answers' : 'machine-silent', text, { machine, controller: this.name })
  }

  #started(entry: ProcessEntry): void {
    this.#hurry(STARTED_MS)
    const { name: node, incarnation, pid } = entry
    const { launcher } = this.identity.spec
    this.events.add('node-started', `${node} starts${incarnation === 0 ? '' : ` as incarnation ${incarnation}`}` +
      `${launcher === 'container' ? ' in a container' : ''}`, { node, incarnation, pid, launcher })
  }

  #processEnded(entry: ProcessEntry, end: NodeEnd | undefined): void {
    this.#hurry(ENDED_MS)
    const { id, name: node, pid } = entry
    const incarnation = entry.incarnation || this.connections.incarnationOf(entry)
    if (end !== undefined) this.#quarantines.ended(incarnation, end)
    if (incarnation !== 0) this.#controller.ended(id, incarnation)
    this.#bootMs.delete(processKey(entry))
    // The end of a process that nobody waits for any more is no news.
    if (end?.status === NodeExit.ended || end?.status === NodeExit.fenced || !this.isLeader) return
    const how = end === undefined ? '' : end.signal === null ? ` with status ${end.status}` : ` by ${end.signal}`
    const isDefect = end?.status === NodeExit.defect
    if (end?.status === NodeExit.failed) this.startFailure = startError(node, end)
    // What never was a process has not ended.
    const what = pid === 0 && this.startFailure !== undefined ? ` could not be started: ${this.startFailure.toLine()}` : ` ended${how}`
    this.events.add(isDefect ? 'node-defect' : 'node-died', `${node}${incarnation === 0 ? '' : ` (incarnation ${incarnation})`}${what}`, {
      node, incarnation, pid, status: end?.status ?? null, signal: end?.signal ?? null,
      ...end?.signal === null && { output: end.lastLines.slice(-2000) } })
  }

  #bootMsOf(id: number): number {
    const node = this.connections.node(id)
    const entry = node === undefined ? undefined : this.launcher.processOf(node)
    if (entry === undefined) return 0
    const ms = ageOf(entry)
    this.#bootMs.set(processKey(entry), ms)
    return ms
  }
}

/** All times follow the pause, all loads high and low, so that the defaults of the file are the autoscaler's own. */
function autoscalerOf(scale: ClusterSpec['scale']): AutoscalerLimits {
  if (scale === undefined) return { ...defaultAutoscalerLimits, runtimesMax: 64 }
  const { min, max, high, low, pause } = scale
  const pauseUs = pause * 1e6
  return {
    ...defaultAutoscalerLimits, runtimesMin: min, runtimesMax: max, high, low, target: low + (high - low) / 4,
    slowUs: Math.min(defaultAutoscalerLimits.slowUs, pauseUs / 3), peakUs: 4 * pauseUs, outPauseUs: pauseUs / 6, inAfterOutUs: 2 * pauseUs,
    inPauseUs: pauseUs,
  }
}

export function limitsOf({ spec: { patience, scale } }: ClusterIdentity): Partial<ControllerLimits> {
  const { detector, leadership, scaling, rollout } = defaultControllerLimits
  const pauseUs = patience * 1e6
  return {
    detector: { ...detector, heartbeatUs: HEARTBEAT_MS * 1000, tickUs: 4 * POLL_MS * 1000, pauseUs, stoppedUs: pauseUs / 5,
      machineUs: Math.max(3000 * HEARTBEAT_MS, pauseUs * 2 / 5), pauseUsMax: Math.max(2 * pauseUs, detector.pauseUsMax) },
    leadership: { ...leadership, leaseUs: 1.5e6, renewUs: 300_000 },
    autoscaler: autoscalerOf(scale),
    rollout: { ...rollout, bakeUs: 2e6 },
    scaling: { ...scaling, firstId: FIRST_RUNTIME_ID },
    // Runtimes give their flows to all others in turn.
    fanOut: FAN_OUT,
  }
}

function refusalOf(refusal: IntentRefusal): CodedError {
  const [code, message, mend] = REFUSALS[refusal]
  return new CodedError(code, message, mend)
}

/** Whether the process of a node is there and answers. */
export function answers(one: SwitchView | RuntimeView): boolean {
  return isReachable(one) && one.report !== null
}
