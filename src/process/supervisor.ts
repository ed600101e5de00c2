/**
 * Supervisor: starts the processes of one cluster on this machine, tells each which others there are, starts those again that end, and
 * takes commands. It is on the way of no packet: without it flows go on.
 *
 *     incarnations: one counter; every life of every node takes the next
 *     configuration: made anew, with the next version, whenever a node comes, goes, or begins to drain; sent to all
 *
 *     a process ends ─▶ fenced: a configuration without this life ─▶ back-off ─▶ next life ─▶ configuration with it
 *
 * Who decides more than that (when a node is dead that lives, how many there should be) is plugged in as a {@link ClusterDecider}.
 */

import { CodedError } from '../base/coded-error.ts'
import { Random } from '../base/random.ts'
import type { ClusterConfig } from '../messages/cluster-config.ts'
import type { CommandResult } from '../node/cluster-node.ts'
import type { ClusterCommand, ClusterDecider, ClusterView } from './cluster-decider.ts'
import type { ClusterSpec } from './cluster-file.ts'
import { startTicksOf, type ClusterFolder } from './cluster-folder.ts'
import { EventLog } from './event-log.ts'
import type { FlowList, ListedFlow } from './flow-list.ts'
import { Member, type MemberConfig } from './member.ts'
import { nearestName } from './nearest-name.ts'
import { NodeExit } from './node-process.ts'
import type { NodeEnd, NodeLauncher } from './node-launcher.ts'
import type { NodeStatus } from './node-status.ts'

export interface SupervisorOptions {
  readonly spec: ClusterSpec
  readonly folder: ClusterFolder
  readonly launcher: NodeLauncher
  readonly deciders?: readonly ClusterDecider[]
}

export interface ClusterStatus {
  readonly name: string
  readonly chain: readonly string[]
  readonly folder: string
  readonly pid: number
  readonly uptimeSeconds: number
  readonly configVersion: number
  readonly isReady: boolean
  readonly nodes: readonly (Omit<ReturnType<Member['view']>, never> & {
    readonly pid: number, readonly bootMs: number, readonly status: NodeStatus | undefined })[]
}

export interface DrainResult {
  readonly node: string
  readonly flowsBefore: number
  readonly seconds: number
}

/** A flow of the list, with the name of where it lives. */
export type ClusterFlow = ListedFlow & { readonly node: string }

const POLL_MS = 500
const READY_POLL_MS = 20
const READY_MS = 20_000
const BACKOFF_MS = 100
const BACKOFF_MS_MAX = 10_000
/** A node that has been up for so long is started again without delay when it dies. */
const STEADY_MS = 30_000
const SHUTDOWN_MS = 3_000
const DRAIN_POLL_MS = 50
const DRAIN_MS = 30_000
const EGRESS_ID = 2
const FIRST_RUNTIME_ID = 11

export class Supervisor {
  readonly events: EventLog
  readonly #options: SupervisorOptions
  readonly #members: Member[]
  readonly #clusterId: number
  readonly #beganMs = performance.now()
  #incarnations = 0
  #version = 0
  #isEnding = false
  #timer: NodeJS.Timeout | undefined
  readonly #restarts = new Map<Member, { delayMs: number, timer: NodeJS.Timeout | undefined }>()

  constructor(options: SupervisorOptions) {
    this.#options = options
    this.events = new EventLog(options.folder.eventsFile)
    // Two clusters may meet on one network; which ones, nobody knows beforehand.
    this.#clusterId = 1 + new Random((Date.now() ^ (process.pid << 12)) >>> 0).below(0xfffffffe)
    this.#members = this.#memberConfigs().map((config) => new Member(config, options.folder, options.launcher))
  }

  #memberConfigs(): MemberConfig[] {
    const { spec, folder } = this.#options
    const common = { clusterId: this.#clusterId, folder: folder.path }
    const switches = [{ id: 1, name: 'ingress', external: spec.ingress }]
    if (spec.egress !== undefined) switches.push({ id: EGRESS_ID, name: 'egress', external: spec.egress })
    return [
      ...switches.map((own): MemberConfig => ({
        kind: 'switch', ...common, ...own, seed: own.id, externalFolder: spec.folder, placement: spec.placement, limits: {},
        ...switches.length > 1 && { bypass: own.id === 1 ? EGRESS_ID : 1 },
      })),
      ...Array.from({ length: spec.runtimes }, (_, index): MemberConfig => ({
        kind: 'runtime', ...common, id: FIRST_RUNTIME_ID + index, name: `runtime-${index + 1}`, seed: FIRST_RUNTIME_ID + index,
        run: folder.runFile, nfFolder: spec.folder, replication: spec.replication,
      })),
    ]
  }

  // -- Beginning and end ---------------------------------------------------------------------------------------------

  /**
   * Starts all nodes and waits until the cluster is ready.
   *
   * @throws CodedError when one of them cannot be started; nothing is left then
   */
  async start(): Promise<void> {
    const { folder, spec } = this.#options
    folder.write(folder.runFile, `${JSON.stringify(spec.run)}\n`)
    this.events.add('cluster-starting', `cluster ${spec.name} of ${this.#members.length} nodes starts`)
    try {
      await Promise.all(this.#members.map((member) => this.#begin(member)))
      this.#publish()
      await this.#untilReady()
    } catch (error) {
      await this.stop()
      throw error
    }
    this.events.add('cluster-ready', `cluster ${spec.name} is ready`, { ms: Math.round(performance.now() - this.#beganMs) })
    this.#timer = setInterval(() => { void this.#look() }, POLL_MS)
  }

  async #untilReady(): Promise<void> {
    const end = performance.now() + READY_MS
    for (;;) {
      await Promise.all(this.#members.map((member) => this.#poll(member)))
      if (this.#members.every(({ state }) => state === 'ready')) return
      const late = this.#members.find(({ state }) => state !== 'ready')
      if (late?.isAlive === false) throw new CodedError('NF_CLUSTER_START', `${late.name} has ended before the cluster was ready`)
      if (performance.now() > end) {
        throw new CodedError('NF_CLUSTER_START', `${late?.name} is not ready after ${READY_MS / 1000} s`, 'Are its interfaces up?')
      }
      await sleep(READY_POLL_MS)
    }
  }

  /** Ends all nodes, in good order where they let us. */
  async stop(): Promise<void> {
    this.#isEnding = true
    clearInterval(this.#timer)
    for (const { timer } of this.#restarts.values()) clearTimeout(timer)
    const alive = this.#members.filter(({ isAlive }) => isAlive)
    const kill = setTimeout(() => { for (const member of alive) member.kill('SIGKILL') }, SHUTDOWN_MS)
    await Promise.all(alive.map(async (member) => {
      await member.call('Shutdown', {}, SHUTDOWN_MS).catch(() => { member.kill('SIGKILL') })
      await member.ended()
    }))
    clearTimeout(kill)
    this.events.add('cluster-ended', `cluster ${this.#options.spec.name} has ended`)
  }

  async #begin(member: Member): Promise<void> {
    member.onEnded = (end) => { this.#ended(member, end) }
    const incarnation = ++this.#incarnations
    const starting = member.start(incarnation)
    this.#noteProcesses()
    this.events.add('node-started', `${member.name} starts as incarnation ${incarnation}`, { node: member.name, incarnation, pid: member.pid })
    await starting
    if (member.incarnation === incarnation && member.isAlive) member.isListed = true
  }

  #noteProcesses(): void {
    const alive = this.#members.filter(({ isAlive }) => isAlive)
    this.#options.folder.writeProcesses([{ name: 'supervisor', pid: process.pid, startTicks: startTicksOf(process.pid) },
      ...alive.map(({ name, pid }) => ({ name, pid, startTicks: startTicksOf(pid) }))])
  }

  #ended(member: Member, end: NodeEnd): void {
    if (this.#isEnding) return
    const wasReady = member.state === 'ready' || member.state === 'silent'
    const { incarnation } = member
    const isRemoved = member.state === 'removed'
    const how = end.signal === null ? `with status ${end.status}` : `by ${end.signal}`
    const what = end.status === NodeExit.defect ? 'node-defect' : end.status === NodeExit.fenced ? 'node-fenced' : 'node-died'
    if (!isRemoved) {
      member.state = 'down'
      this.events.add(what, `${member.name} (incarnation ${incarnation}) ended ${how}`, {
        node: member.name, incarnation, status: end.status, signal: end.signal,
        ...end.status !== 0 && end.signal === null && { output: end.lastLines.slice(-2000) } })
    }
    this.#noteProcesses()
    if (member.isListed) {
      member.isListed = false
      this.#publish()
    }
    // Before the cluster was ready for the first time, an end is a failure to start.
    if (isRemoved || (!wasReady && this.#timer === undefined)) return
    this.#restart(member, wasReady && performance.now() - member.startedMs > STEADY_MS)
  }

  #restart(member: Member, wasSteady: boolean): void {
    const before = this.#restarts.get(member)?.delayMs
    const delayMs = wasSteady || before === undefined ? BACKOFF_MS : Math.min(BACKOFF_MS_MAX, before * 2)
    const timer = setTimeout(() => {
      if (this.#isEnding) return
      member.restarts++
      this.#begin(member).then(() => { if (member.isListed) this.#publish() }, (error: unknown) => {
        // If it has ended, the next life is on its way already.
        this.events.add('node-failed', `${member.name} cannot be started: ${error instanceof Error ? error.message : String(error)}`,
          { node: member.name })
      })
    }, delayMs)
    this.#restarts.set(member, { delayMs, timer })
  }

  // -- Configuration -------------------------------------------------------------------------------------------------

  #publish(): void {
    const config: ClusterConfig = {
      version: ++this.#version, clusterId: this.#clusterId,
      switches: this.#members.filter(({ isSwitch }) => isSwitch).map(({ id, incarnation, isListed }) => ({
        id, incarnation: isListed ? incarnation : 0, side: id === EGRESS_ID ? 'egress' : 'ingress', isHome: id === 1,
      })),
      runtimes: this.#members.filter((member) => !member.isSwitch && member.isListed)
        .map(({ id, incarnation, isDraining }) => ({ id, incarnation, isDraining })),
    }
    for (const member of this.#members) {
      if (!member.isListed) continue
      member.call<CommandResult>('NotifyClusterConfig', { config }).then(({ accepted, code }) => {
        // A newer one may have been there first.
        if (!accepted && code !== 'NF_CONFIG_OLD') {
          this.events.add('config-refused', `${member.name} refuses configuration ${config.version}: ${code}`, { node: member.name, code })
        }
      }, () => undefined)
    }
  }

  // -- Looking -------------------------------------------------------------------------------------------------------

  async #poll(member: Member): Promise<void> {
    const wasSilent = member.state === 'silent'
    const news = await member.poll()
    if (news === 'ready') {
      const { name: node, incarnation, bootMs: ms } = member
      if (wasSilent) this.events.add('node-answers', `${node} answers again`, { node, incarnation })
      else this.events.add('node-ready', `${node} is ready after ${ms} ms`, { node, incarnation, ms })
    } else if (news === 'silent') {
      this.events.add('node-silent', `${member.name} does not answer`, { node: member.name })
    }
  }

  async #look(): Promise<void> {
    await Promise.all(this.#members.map((member) => this.#poll(member)))
    if (this.#isEnding) return
    for (const decider of this.#options.deciders ?? []) {
      for (const command of decider.decide(this.#view())) await this.#execute(decider.name, command)
    }
  }

  #view(): ClusterView {
    return { time: Date.now(), configVersion: this.#version, members: this.#members.map((member) => member.view()) }
  }

  async #execute(who: string, command: ClusterCommand): Promise<void> {
    try {
      if (command.command === 'migrate') await this.migrate(command.from, command.to, command.number)
      else if (command.command === 'drain') void this.drain(command.node, command.on).catch(() => undefined)
      else this.kill(command.node, 'SIGKILL')
    } catch (error) {
      this.events.add('command-failed', `${who}: ${error instanceof Error ? error.message : String(error)}`, { command })
    }
  }

  // -- Commands ------------------------------------------------------------------------------------------------------

  /** @throws CodedError `NF_CLUSTER` for a node that there is not */
  member(node: unknown): Member {
    const text = String(node)
    const member = this.#members.find(({ id, name }) => name === text || String(id) === text)
    if (member !== undefined) return member
    const names = this.#members.map(({ name }) => name)
    const near = nearestName(text, names)
    throw new CodedError('NF_CLUSTER', `there is no node ${JSON.stringify(text)}`,
      `${near === undefined ? '' : `Did you mean ${near}? `}The nodes are ${names.join(', ')}`)
  }

  #runtime(node: unknown): Member {
    const member = this.member(node)
    if (!member.isSwitch) return member
    throw new CodedError('NF_CLUSTER', `${member.name} is a switch`, 'Name a runtime')
  }

  async status(): Promise<ClusterStatus> {
    const { spec, folder } = this.#options
    await Promise.all(this.#members.map((member) => this.#poll(member)))
    const nodes = this.#members.map((member) => ({ ...member.view(), pid: member.pid, bootMs: member.bootMs, status: member.status }))
    return {
      name: spec.name, chain: spec.chain, folder: folder.path, pid: process.pid, configVersion: this.#version,
      uptimeSeconds: Math.round((performance.now() - this.#beganMs) / 1000),
      isReady: this.#timer !== undefined && nodes.every(({ state }) => state === 'ready' || state === 'removed'), nodes,
    }
  }

  /** The flows that live on runtimes. */
  async flows(filter: string, limit: number, isStateWanted: boolean, node?: unknown):
      Promise<{ total: number, flows: ClusterFlow[] }> {
    const members = node === undefined ? this.#members.filter((member) => !member.isSwitch && member.isAlive) : [this.member(node)]
    const lists = await Promise.all(members.map(async (member) => ({
      name: member.name,
      // A runtime may die while it is asked: its flows are elsewhere, or will be.
      list: await member.call<FlowList>('ListFlows', { filter, limit, state: isStateWanted }).catch((error: unknown): FlowList => {
        if (node === undefined && error instanceof CodedError && error.code === 'NF_NODE_GONE') return { total: 0, flows: [] }
        throw error
      }),
    })))
    const flows = lists.flatMap(({ name, list }) => list.flows.map((flow) => ({ ...flow, node: name })))
    return { total: lists.reduce((sum, { list }) => sum + list.total, 0), flows: flows.slice(0, limit) }
  }

  /** Orders a runtime to move flows to another one; they move one after another, at once. */
  async migrate(from: unknown, to: unknown, number?: number): Promise<{ from: string, to: string, number: number }> {
    const [source, target] = [this.#runtime(from), this.#runtime(to)]
    const wanted = number ?? (await source.call<NodeStatus>('GetStatus')).workload.flows
    if (wanted === 0) return { from: source.name, to: target.name, number: 0 }
    const { accepted, code } = await source.call<CommandResult>('SetMigrationTarget', { target: target.id, number: wanted })
    if (!accepted) throw new CodedError('NF_CLUSTER', `${source.name} cannot move ${wanted} flows to ${target.name}: ${code}`)
    this.events.add('migration-ordered', `${wanted} flows of ${source.name} are to move to ${target.name}`,
      { node: source.name, target: target.name, number: wanted })
    return { from: source.name, to: target.name, number: wanted }
  }

  /**
   * Takes a runtime out of service: it gets no new flows, and those that it has move to the others. Ends when none is left.
   *
   * @param on false: it gets flows again
   * @param isRemoved it is ended when it is empty, and not started again
   */
  async drain(node: unknown, on = true, isRemoved = false): Promise<DrainResult> {
    const member = this.#runtime(node)
    const others = (): Member[] => this.#members.filter((one) => !one.isSwitch && one !== member && one.isListed && !one.isDraining)
    if (on && others().length === 0) throw new CodedError('NF_CLUSTER', `there is no other runtime for the flows of ${member.name}`)
    const began = performance.now()
    const { workload: { flows: flowsBefore } } = await member.call<NodeStatus>('GetStatus')
    member.isDraining = on
    this.#publish()
    await member.call<CommandResult>('Drain', { on })
    this.events.add(on ? 'draining' : 'drain-ended', `${member.name} ${on ? 'is to become empty' : 'gets flows again'}`, { node: member.name })
    const seconds = (): number => Math.round(performance.now() - began) / 1000
    if (!on) return { node: member.name, flowsBefore, seconds: seconds() }
    const { incarnation } = member
    for (;;) {
      const status = await member.call<NodeStatus>('GetStatus')
      const { isEmpty, flows, replicas } = status.workload
      if (isEmpty) break
      if (member.incarnation !== incarnation) throw new CodedError('NF_NODE_GONE', `${member.name} has died while it was drained`)
      if (!member.isDraining) throw new CodedError('NF_CLUSTER', `the draining of ${member.name} was called off`)
      if (performance.now() - began > DRAIN_MS) {
        throw new CodedError('NF_CLUSTER', `${member.name} still has ${flows} flows and ${replicas} replicas after ${DRAIN_MS / 1000} s`)
      }
      await this.#moveAway(member, others(), status)
      await sleep(DRAIN_POLL_MS)
    }
    this.events.add('drained', `${member.name} is empty: ${flowsBefore} flows in ${seconds()} s`,
      { node: member.name, flows: flowsBefore, seconds: seconds() })
    if (isRemoved) await this.#remove(member)
    return { node: member.name, flowsBefore, seconds: seconds() }
  }

  /** Orders all flows of a draining runtime to the others, unless it is at that already. */
  async #moveAway(member: Member, others: readonly Member[], { workload: { flows }, openSteps }: NodeStatus): Promise<void> {
    const isMoving = ['preparing', 'rerouting', 'handing'].some((step) => (openSteps[step] ?? 0) > 0)
    if (flows === 0 || isMoving || others.length === 0) return
    const share = Math.ceil(flows / others.length)
    for (const { id } of others) await member.call<CommandResult>('SetMigrationTarget', { target: id, number: share })
  }

  async #remove(member: Member): Promise<void> {
    member.state = 'removed'
    member.isListed = false
    await member.call('Shutdown').catch(() => { member.kill('SIGKILL') })
    await member.ended()
    this.#publish()
    this.events.add('node-removed', `${member.name} has left the cluster`, { node: member.name })
  }

  /** Sends a signal to a node's process: for tests of what follows. */
  kill(node: unknown, signal: NodeJS.Signals): { node: string, pid: number, signal: string } {
    const member = this.member(node)
    const { pid } = member
    if (!member.isAlive) throw new CodedError('NF_NODE_GONE', `${member.name} is not running`)
    this.events.add('node-killed', `${member.name} gets ${signal}`, { node: member.name, pid, signal })
    member.kill(signal)
    return { node: member.name, pid, signal }
  }
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => { setTimeout(resolve, ms) })
}
