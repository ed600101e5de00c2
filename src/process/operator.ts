/**
 * Operator: what people can ask of a cluster, at the controller that leads. Lists and statuses come from the nodes; everything that changes
 * the cluster becomes an intent in the store first.
 */

import { rmSync } from 'node:fs'
import { CodedError } from '../base/coded-error.ts'
import type { RuntimeView, SwitchView } from '../controller/cluster-view.ts'
import type { CommandResult } from '../node/cluster-node.ts'
import { answers, type ControllerProcess } from './controller-process.ts'
import { ageOf } from './cluster-folder.ts'
import { machineNameOf } from './cluster-members.ts'
import type { FlowList, ListedFlow, ListedReplica } from './flow-list.ts'
import type { RpcMethods } from './line-rpc.ts'
import { nearestName } from './nearest-name.ts'
import type { LauncherName } from './node-launcher.ts'
import type { NodeStatus, NodeWorkload } from './node-status.ts'

/**
 *     starting ─▶ ready ─▶ down                 its process has ended, another is on its way
 *                   └────▶ silent ─▶ ready      it lives and does not answer
 */
export type NodeState = 'starting' | 'ready' | 'silent' | 'down'

export interface NodeOfCluster {
  readonly kind: 'switch' | 'runtime'
  readonly id: number
  readonly name: string
  readonly incarnation: number
  readonly state: NodeState
  readonly isDraining: boolean
  /** Lives before this one that this controller has started. */
  readonly restarts: number
  readonly pid: number
  /** Name of the machine that it is on; empty where there is but one. */
  readonly machine: string
  /** From when it was started, with its container, to when it was ready. */
  readonly bootMs: number
  /** Numbers of the cores that its process may use; empty: all. */
  readonly cpus: readonly number[]
  /** Version of the chain; 0 for switches. */
  readonly chainVersion: number
  /** Share of time at work (0 to 1), packets per second, over the last heartbeats. */
  readonly busy: number
  readonly packetsPerSecond: number
  readonly workload: NodeWorkload | undefined
  readonly status: NodeStatus | undefined
}

export interface MachineOfCluster {
  readonly name: string
  readonly isUp: boolean
  readonly runtimes: number
  readonly runtimesMax: number
}

export interface ClusterStatus {
  readonly name: string
  readonly chain: readonly string[]
  readonly folder: string
  /** What the nodes are: processes, or containers. */
  readonly launcher: LauncherName
  readonly uptimeSeconds: number
  readonly configVersion: number
  readonly isReady: boolean
  readonly leader: string
  readonly term: number
  /** Version of the chain that new runtimes get. */
  readonly chainVersion: number
  readonly desired: number
  readonly isAutomatic: boolean
  readonly update: UpdateState | null
  readonly nodes: readonly NodeOfCluster[]
  /** None where there is but one. */
  readonly machines: readonly MachineOfCluster[]
  /** Why a node could not be started. */
  readonly failure: { readonly code: string, readonly message: string } | null
}

export interface DrainResult {
  readonly node: string
  readonly flowsBefore: number
  readonly seconds: number
}

/** An update under way, or the last one. */
export interface UpdateState {
  readonly to: number
  readonly phase: string
  /** How many batches of flows have moved and proved well. */
  readonly stage: number
  /** Why it paused; empty if it did not. */
  readonly reason: string
}

export interface UpdateResult {
  readonly version: number
  readonly phase: string
  readonly reason: string
  readonly seconds: number
}

/** A flow of the list, with the name of where it lives. */
export interface ClusterFlow extends ListedFlow {
  readonly node: string
  /** What its replicas know, when states are wanted and there are any. */
  readonly replicas?: readonly (Omit<ListedReplica, 'flow'> & { readonly node: string })[]
}

const FLOWS_MAX = 100_000
/** Replicas that a runtime is asked for at once: a request has bounds. */
const REPLICAS_MAX = 10_000
const POLL_MS = 20
const DRAIN_MS = 30_000
const UPDATE_MS = 600_000
const ASK_MS = 1_000
const WATCHES: readonly string[] = ['StartWatch', 'TakeWatch', 'StopWatch']
const SIGNALS: readonly string[] = ['SIGKILL', 'SIGTERM', 'SIGSTOP', 'SIGCONT', 'SIGINT', 'SIGABRT']

type AnyNodeView = SwitchView | RuntimeView

interface ListedNode {
  /** Undefined while it is being started. */
  readonly view: AnyNodeView | undefined
  readonly id: number
  readonly incarnation: number
}

export function operatorMethods(host: ControllerProcess): RpcMethods {
  const operator = new Operator(host)
  const text = (value: unknown): string => typeof value === 'string' ? value : ''
  const whole = (value: unknown, otherwise: number): number => Number.isSafeInteger(value) ? value as number : otherwise
  return {
    Status: () => operator.status(),
    Leader: () => ({ leader: host.leader, isLeader: host.isLeader }),
    Flows: ({ filter, limit, state, node }) =>
      operator.flows(text(filter), Math.min(FLOWS_MAX, whole(limit, 1000)), state === true, node ?? undefined),
    Migrate: ({ from, to, number }) => operator.migrate(from, to, number === undefined ? undefined : whole(number, 0)),
    Drain: ({ node, on, remove }) => operator.drain(node, on !== false, remove === true),
    Scale: ({ runtimes, isAutomatic }) => operator.scale(runtimes, isAutomatic),
    Update: (params) => operator.update(params),
    Kill: ({ node, signal = 'SIGKILL' }) => operator.kill(node, text(signal)),
    Watch: ({ node, method, params }) => operator.watch(node, text(method), params),
    Events: ({ after, limit }) => ({ events: host.events.since(whole(after, 0), whole(limit, 1000)) }),
  }
}

class Operator {
  readonly #host: ControllerProcess

  constructor(host: ControllerProcess) {
    this.#host = host
  }

  /** All nodes: those of the configuration, and those that are being started. */
  #nodes(): ListedNode[] {
    const { switches, runtimes, starting } = this.#host.leaderView()
    const sorted = [...runtimes.map((view) => ({ view, id: view.id, incarnation: view.incarnation })),
      ...starting.map(({ runtime: { id, incarnation } }) => ({ view: undefined, id, incarnation }))].toSorted((a, b) => a.id - b.id)
    return [...switches.map((view) => ({ view, id: view.id, incarnation: view.incarnation })), ...sorted]
  }

  /** @throws CodedError `NF_CLUSTER` for a node that there is not */
  #node(node: unknown): AnyNodeView {
    const wanted = String(node)
    const views = this.#nodes().flatMap(({ view }) => view ?? [])
    const found = views.find(({ id }) => this.#host.nameOf(id) === wanted || String(id) === wanted)
    if (found !== undefined) return found
    const names = views.map(({ id }) => this.#host.nameOf(id))
    const near = nearestName(wanted, names)
    throw new CodedError('NF_CLUSTER', `there is no node ${JSON.stringify(wanted)}`,
      `${near === undefined ? '' : `Did you mean ${near}? `}The nodes are ${names.join(', ')}`)
  }

  #runtime(node: unknown): RuntimeView & { readonly name: string } {
    const found = this.#node(node)
    const name = this.#host.nameOf(found.id)
    if ('chain' in found) return { ...found, name }
    throw new CodedError('NF_CLUSTER', `${name} is a switch`, 'Name a runtime')
  }

  #ask<T>({ id }: { readonly id: number }, method: string, params: Record<string, unknown> = {}, timeoutMs?: number): Promise<T> {
    return this.#host.connections.call<T>(id, this.#host.nameOf(id), method, params, timeoutMs)
  }

  async status(): Promise<ClusterStatus> {
    const host = this.#host
    const { spec } = host.identity
    const { scale, rollout, cluster, fences } = host.leaderView()
    const nodes = await Promise.all(this.#nodes().map((one) => this.#nodeStatus(one)))
    const isSettled = scale.starting.length === 0 && cluster.config.runtimes.length >= scale.desired &&
      fences.every(({ isRecovered }) => isRecovered)
    const ages = host.launcher.processes().map(ageOf)
    return {
      name: spec.name, chain: spec.chain, folder: host.folder.path, launcher: spec.launcher,
      uptimeSeconds: Math.round(Math.max(0, ...ages) / 1000),
      configVersion: cluster.config.version, leader: host.name, term: host.term, chainVersion: scale.chain,
      desired: scale.desired, isAutomatic: scale.isAutomatic,
      isReady: isSettled && nodes.every(({ state }) => state === 'ready'),
      update: rollout === undefined ? null : stateOf(rollout),
      nodes,
      machines: host.launcher.machines().map(({ isUp, runtimesMax }, index) => {
        const { name } = spec.machines[index]
        return { name, isUp, runtimesMax, runtimes: nodes.filter(({ kind, machine }) => kind === 'runtime' && machine === name).length }
      }),
      failure: host.startFailure === undefined ? null : { code: host.startFailure.code, message: host.startFailure.message },
    }
  }

  async #nodeStatus({ view, id, incarnation }: ListedNode): Promise<NodeOfCluster> {
    const host = this.#host
    const entry = host.processOf({ id, incarnation })
    const name = host.nameOf(id)
    const bootMs = entry === undefined ? 0 : host.bootMs(entry)
    const isThere = view !== undefined && answers(view)
    const status = isThere ? await this.#ask<NodeStatus>({ id }, 'GetStatus', {}, ASK_MS).catch(() => undefined) : undefined
    const state = view === undefined ? 'starting' : incarnation === 0 || view.hasEnded ? 'down' : !isThere || status === undefined
      ? bootMs > 0 ? 'silent' : 'starting' : status.isReady && status.incarnation === incarnation ? 'ready' : 'starting'
    const report = view?.report?.kind === 'runtime' ? view.report : undefined
    const isRuntime = view !== undefined && 'chain' in view
    return {
      kind: view === undefined || isRuntime ? 'runtime' : 'switch', id, name, incarnation, state, isDraining: isRuntime && view.isDraining,
      restarts: Math.max(0, host.launcher.startsOf(name) - 1), pid: entry?.pid ?? 0,
      machine: machineNameOf(host.identity.spec, id), bootMs,
      cpus: entry?.cpus ?? [],
      chainVersion: isRuntime ? view.chain : 0, busy: (report?.busyPerMille ?? 0) / 1000,
      packetsPerSecond: Math.round(report?.packetsPerSecond ?? 0), workload: status?.workload, status,
    }
  }

  /** The flows that live on runtimes, or all that one node knows of. */
  async flows(filter: string, limit: number, isStateWanted: boolean, node?: unknown): Promise<{ total: number, flows: ClusterFlow[] }> {
    const asked = node === undefined ? this.#host.leaderView().runtimes.filter(answers) : [this.#node(node)]
    const lists = await Promise.all(asked.map(async ({ id }) => ({
      name: this.#host.nameOf(id),
      // A runtime may die while it is asked: its flows are elsewhere, or will be.
      list: await this.#ask<FlowList>({ id }, 'ListFlows', { filter, limit, state: isStateWanted }).catch((error: unknown): FlowList => {
        if (node === undefined && error instanceof CodedError && error.code === 'NF_NODE_GONE') return { total: 0, flows: [] }
        throw error
      }),
    })))
    const flows: ClusterFlow[] = lists.flatMap(({ name, list }) => list.flows.map((flow) => ({ ...flow, node: name }))).slice(0, limit)
    const total = lists.reduce((sum, { list }) => sum + list.total, 0)
    return { total, flows: isStateWanted && flows.length > 0 ? await this.#besideReplicas(flows) : flows }
  }

  /** The flows, with what their replicas know of them. */
  async #besideReplicas(flows: readonly ClusterFlow[]): Promise<ClusterFlow[]> {
    const wanted = flows.map(({ flow }) => flow)
    const pieces = Array.from({ length: Math.ceil(wanted.length / REPLICAS_MAX) }, (_, i) =>
      wanted.slice(i * REPLICAS_MAX, (i + 1) * REPLICAS_MAX))
    const lists = await Promise.all(this.#host.leaderView().runtimes.filter(answers).map(async ({ id }) => {
      const kept: ListedReplica[] = []
      for (const piece of pieces) kept.push(...await this.#ask<ListedReplica[]>({ id }, 'ListReplicas', { flows: piece }).catch(() => []))
      return kept.map((replica) => ({ node: this.#host.nameOf(id), ...replica }))
    }))
    const byFlow = Map.groupBy(lists.flat(), ({ flow }) => flow)
    return flows.map((one) => {
      const replicas = byFlow.get(one.flow)?.map(({ flow: _, ...replica }) => replica)
      return replicas === undefined ? one : { ...one, replicas }
    })
  }

  /** Orders a runtime to move flows to another one; they move one after another, at once. */
  async migrate(from: unknown, to: unknown, number?: number): Promise<{ from: string, to: string, number: number }> {
    const [source, target] = [this.#runtime(from), this.#runtime(to)]
    const wanted = number ?? (await this.#ask<NodeStatus>(source, 'GetStatus')).workload.flows
    if (wanted === 0) return { from: source.name, to: target.name, number: 0 }
    const { accepted, code } = await this.#ask<CommandResult>(source, 'SetMigrationTarget', { target: target.id, number: wanted })
    if (!accepted) throw new CodedError('NF_CLUSTER', `${source.name} cannot move ${wanted} flows to ${target.name}: ${code}`)
    this.#host.events.add('migration-ordered', `${wanted} flows of ${source.name} are to move to ${target.name}`,
      { node: source.name, target: target.name, number: wanted })
    return { from: source.name, to: target.name, number: wanted }
  }

  /**
   * Takes a runtime out of service: it gets no new flows, and those that it has move to the others. Ends when none is left.
   *
   * @param on false: it gets flows again
   * @param isRemoved it ends when it is empty, and there is to be one runtime fewer
   */
  async drain(node: unknown, on: boolean, isRemoved: boolean): Promise<DrainResult> {
    const { name, id, incarnation } = this.#runtime(node)
    const began = performance.now()
    const seconds = (): number => Math.round(performance.now() - began) / 1000
    const { workload: { flows: flowsBefore } } = await this.#ask<NodeStatus>({ id }, 'GetStatus')
    if (!on) {
      await this.#host.intend({ kind: 'undrain', incarnation })
      return { node: name, flowsBefore, seconds: seconds() }
    }
    await this.#host.intend({ kind: 'drain', incarnation, isEnded: isRemoved })
    for (;;) {
      const { runtimes, fences } = this.#host.leaderView()
      const one = runtimes.find((runtime) => runtime.incarnation === incarnation)
      if (one === undefined) {
        const reason = fences.find((fence) => fence.incarnation === incarnation)?.reason
        if (reason === 'drained') break
        throw new CodedError('NF_NODE_GONE', `${name} has died while it was drained`)
      }
      if (!one.isDraining) throw new CodedError('NF_CLUSTER', `the draining of ${name} was called off`)
      if (!isRemoved && one.report?.isEmpty === true && one.report.flows === 0) break
      if (performance.now() - began > DRAIN_MS) {
        throw new CodedError('NF_CLUSTER', `${name} still has ${one.report?.flows ?? 0} flows after ${DRAIN_MS / 1000} s`,
          'It goes on; nfactor drain --undo calls it off')
      }
      await sleep(POLL_MS)
    }
    return { node: name, flowsBefore, seconds: seconds() }
  }

  /** How many runtimes there are to be, or that the load decides. */
  async scale(runtimes: unknown, isAutomatic: unknown): Promise<{ desired: number, isAutomatic: boolean }> {
    const host = this.#host
    if (isAutomatic === true) {
      await host.intend({ kind: 'automatic', isAutomatic: true })
    } else {
      await host.intend({ kind: 'automatic', isAutomatic: false })
      await host.intend({ kind: 'scale', desired: Number(runtimes) })
    }
    const { scale } = host.leaderView()
    return { desired: scale.desired, isAutomatic: scale.isAutomatic }
  }

  /**
   * Begins an update to another version of the chain, or steers the one under way. Returns when it has ended, or pauses; what is not to be
   * awaited returns when it is decided.
   */
  async update({ action = 'begin', run, isReversible, onFailure, isAwaited }: Readonly<Record<string, unknown>>):
      Promise<UpdateResult | UpdateState> {
    const host = this.#host
    const began = performance.now()
    if (action === 'begin') await this.#begin(run, isReversible === true, onFailure === 'roll-back' ? 'roll-back' : 'pause')
    else if (action === 'pause' || action === 'resume' || action === 'roll-back') await host.intend({ kind: action })
    else throw new CodedError('NF_USAGE', `there is no action ${String(action)}`, 'There are begin, pause, resume, roll-back')
    for (;;) {
      const { rollout } = host.leaderView()
      const seconds = Math.round(performance.now() - began) / 1000
      if (rollout === undefined) throw new CodedError('NF_INTERNAL', 'an update has begun, and there is none')
      if (isAwaited === false) return stateOf(rollout)
      const { phase, reason, to: version } = rollout
      if (phase !== 'rolling' && phase !== 'rolling-back') {
        const why = reason.endsWith('do not start') && host.startFailure !== undefined ? `: ${host.startFailure.message}` : ''
        return { version, phase, reason: `${reason}${why}`, seconds }
      }
      if (seconds * 1000 > UPDATE_MS) {
        throw new CodedError('NF_CLUSTER', `the update has not ended for ${seconds} s`, 'It goes on: see nfactor status')
      }
      await sleep(POLL_MS)
    }
  }

  async #begin(run: unknown, isReversible: boolean, onFailure: 'pause' | 'roll-back'): Promise<void> {
    const host = this.#host
    const { scale, rollout } = host.leaderView()
    const to = Math.max(scale.chain, rollout?.to ?? 0) + 1
    const file = host.folder.runFile(to)
    host.folder.write(file, `${JSON.stringify(run)}\n`)
    try {
      await host.intend({ kind: 'roll-out', to, isReversible, onFailure })
    } catch (error) {
      if (host.view()?.rollout?.to !== to) rmSync(file, { force: true })
      throw error
    }
  }

  /** Captures and traces at a node that the caller does not reach himself, for it is on another machine. */
  watch(node: unknown, method: string, params: unknown): Promise<unknown> {
    if (!WATCHES.includes(method)) throw new CodedError('NF_USAGE', `there is no method ${JSON.stringify(method)} of watches`)
    return this.#ask(this.#node(node), method, typeof params === 'object' && params !== null ? { ...params } : {})
  }

  /** Sends a signal to a node's process: for tests of what follows. */
  kill(node: unknown, signal: string): { node: string, pid: number, signal: string } {
    if (!SIGNALS.includes(signal)) {
      throw new CodedError('NF_USAGE', `${signal} is no signal that a node gets`, `There are ${SIGNALS.join(', ')}`)
    }
    const found = this.#node(node)
    const name = this.#host.nameOf(found.id)
    const entry = this.#host.processOf(found)
    const { pid = 0 } = entry ?? {}
    this.#host.events.add('node-killed', `${name} gets ${signal}`, { node: name, pid, signal })
    const isSent = entry !== undefined && this.#host.launcher.kill(entry, signal as NodeJS.Signals)
    if (!isSent) throw new CodedError('NF_NODE_GONE', `${name} is not running`)
    return { node: name, pid, signal }
  }
}

function stateOf({ to, phase, stage, reason }: UpdateState): UpdateState {
  return { to, phase, stage, reason }
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => { setTimeout(resolve, ms) })
}
