/**
 * Supervisor: begins a cluster on this machine, holds its controllers up, and ends everything. It is on the way of nothing: the
 * controllers start the nodes and bring back those that die, and go on without it.
 *
 *     up ─▶ cluster.json, run-1.json ─▶ controllers ─▶ (they found the cluster, start the nodes) ─▶ ready
 *     a controller dies ─▶ back-off ─▶ the next life of it
 *     down ─▶ controllers end first, so that nothing is started again; then the nodes, with what is in them going out
 *
 * Where nodes or controllers of an earlier supervisor are alive, and the file is the same, it takes them up again; what goes wrong then is
 * told, and ends nothing that was there.
 */

import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { CodedError, errorCodes, type ErrorCode } from '../base/coded-error.ts'
import { Random } from '../base/random.ts'
import { readAccessToken, readLongToken } from '../rpc/access-token.ts'
import { checkApi } from './api-address.ts'
import { ClusterClient, notRunning } from './cluster-client.ts'
import { endContainersOf, prepareContainers } from './cluster-containers.ts'
import type { ClusterSpec } from './cluster-file.ts'
import { isRunning, signalProcess, startTicksOf, startTime, type ClusterFolder, type ProcessEntry } from './cluster-folder.ts'
import { ClusterLock } from './cluster-lock.ts'
import { machineAddresses, type ClusterIdentity } from './cluster-members.ts'
import { areGone, END_MS, endProcesses, KILL_MS } from './end-processes.ts'
import { EventLog } from './event-log.ts'
import { callOnce, LineRpcServer, type LineRpcClient } from './line-rpc.ts'
import { openMachine, type MachineAddress } from './machine-connection.ts'
import { cpusOfCluster } from './node-cpus.ts'
import { launchProcess, startError, type LaunchedProcess } from './node-launcher.ts'

export interface SupervisorOptions {
  readonly spec: ClusterSpec
  readonly folder: ClusterFolder
  /** Called when the cluster is ready. */
  readonly onReady?: (client: ClusterClient) => void
  /** Ends the cluster. */
  readonly signal?: AbortSignal
  /** So long it has until it is ready; one that is taken up again goes on without being so. */
  readonly readyMs?: number
}

const READY_MS = 30_000
const READY_POLL_MS = 20
const BACKOFF_MS = 100
const BACKOFF_MS_MAX = 10_000
const STEADY_MS = 30_000
const BOUND_EVENTS_MS = 60_000
/** How long another machine has to end its nodes. */
const MACHINE_END_MS = 6_000

/**
 * Runs a cluster until it is told to end; nothing is left of it afterwards.
 *
 * @throws CodedError `NF_CLUSTER_RUNNING`, or why it cannot be started
 */
export async function runCluster(options: SupervisorOptions): Promise<void> {
  const lock = lockOf(options)
  try {
    await supervise(options)
  } finally {
    lock.release()
  }
}

/** @throws CodedError `NF_CLUSTER_RUNNING` where somebody else holds the cluster, or is about to */
export function lockOf({ spec: { name }, folder }: Pick<SupervisorOptions, 'spec' | 'folder'>): ClusterLock {
  const lock = ClusterLock.take(folder)
  if (lock !== undefined) return lock
  const { length } = folder.livingProcesses()
  throw new CodedError('NF_CLUSTER_RUNNING', length > 0 ? `cluster ${name} has ${length} processes running` : `cluster ${name} is being started`,
    endFirst(name))
}

function endFirst(name: string): string {
  return `End it first: nfactor down --name ${name}`
}

async function supervise(options: SupervisorOptions): Promise<void> {
  const { spec, folder, signal } = options
  const isAdopted = await prepare(spec, folder)
  const supervisor = new Supervisor(options)
  const down = Promise.withResolvers<void>()
  const end = (): void => { down.resolve() }
  signal?.addEventListener('abort', end)
  if (signal?.aborted === true) end()
  const rpc = new LineRpcServer(folder.supervisorSocket, {
    Status: () => ({ pid: process.pid, isReady: supervisor.isReady }),
    Down: () => { setImmediate(end) },
  })
  let hasFailed = true
  try {
    await rpc.open()
    // Those that are there hold theirs already.
    if (!isAdopted) await checkApi(spec)
    if (!isAdopted) await eachMachine(readIdentity(folder), folder, () => Promise.resolve(), (error) => { throw error })
    if (signal?.aborted !== true) await Promise.race([supervisor.start(isAdopted), down.promise])
    if (supervisor.isReady && signal?.aborted !== true) {
      options.onReady?.(supervisor.client)
      await down.promise
    }
    hasFailed = false
  } finally {
    signal?.removeEventListener('abort', end)
    const isLeft = hasFailed && isAdopted
    if (isLeft) supervisor.leave()
    else await supervisor.stop()
    rpc.close()
    if (!isLeft) folder.clear()
  }
}

/** Makes the folder, unless the cluster is there. True if it is, without a supervisor. */
async function prepare(spec: ClusterSpec, folder: ClusterFolder): Promise<boolean> {
  const living = folder.livingProcesses()
  const mend = endFirst(spec.name)
  const token = spec.token === undefined ? undefined : readLongToken(resolve(spec.folder, spec.token), 'Write one: openssl rand -hex 32')
  if (living.length === 0) {
    const cpus = cpusOfCluster(spec)
    const image = await prepareContainers(spec, folder)
    folder.clear()
    folder.create()
    const identity: ClusterIdentity = { spec, cpus, ...image !== undefined && { image },
      // Two clusters may meet on one network; which ones, nobody knows beforehand.
      clusterId: 1 + new Random((Date.now() ^ (process.pid << 12)) >>> 0).below(0xfffffffe) }
    folder.write(folder.clusterFile, `${JSON.stringify(identity)}\n`)
    folder.write(folder.runFile(1), `${JSON.stringify(spec.run)}\n`)
    if (token !== undefined) folder.write(folder.tokenFile, `${token}\n`)
    return false
  }
  if (living.some(({ kind }) => kind === 'supervisor')) {
    throw new CodedError('NF_CLUSTER_RUNNING', `cluster ${spec.name} has ${living.length} processes running`, mend)
  }
  const { spec: former } = readIdentity(folder)
  if (!isDeepStrictEqual(former, JSON.parse(JSON.stringify(spec)))) {
    throw new CodedError('NF_CLUSTER_RUNNING', `cluster ${spec.name} is running with another configuration, and without a supervisor`, mend)
  }
  return true
}

export function readIdentity(folder: ClusterFolder): ClusterIdentity {
  const identity = identityOf(folder)
  if (identity === undefined) throw new CodedError('NF_FILE_UNREADABLE', `${folder.clusterFile} does not say what the cluster is`)
  return identity
}

function identityOf(folder: ClusterFolder): ClusterIdentity | undefined {
  try {
    const identity = JSON.parse(readFileSync(folder.clusterFile, 'utf8')) as ClusterIdentity
    return isIdentity(identity) ? identity : undefined
  } catch {
    return undefined
  }
}

/** We have written it; but it is a file, which people can reach. */
function isIdentity({ clusterId, spec }: ClusterIdentity): boolean {
  return Number.isInteger(clusterId) && typeof spec.name === 'string' && typeof spec.folder === 'string' &&
    Array.isArray(spec.machines) && Array.isArray(spec.chain) && typeof spec.ingress.type === 'string'
}

/** What a controller's process is started with. */
export interface ControllerConfig {
  readonly kind: 'controller'
  readonly id: number
  readonly name: string
  readonly folder: string
}

/** Does something with the agent of every other machine; a machine that cannot be reached, or refuses, is told of. */
async function eachMachine({ spec, clusterId }: ClusterIdentity, folder: ClusterFolder, task: (agent: LineRpcClient) => Promise<void>,
    onFault: (error: CodedError) => void): Promise<void> {
  if (spec.machines.length === 0) return
  const tell = (error: unknown): void => {
    if (!(error instanceof CodedError)) throw error
    onFault(error)
  }
  let token = ''
  let addresses: MachineAddress[] = []
  try {
    token = readAccessToken(folder.tokenFile)
    addresses = machineAddresses(spec)
  } catch (error) {
    // Files of token and authorities may be gone.
    return tell(error)
  }
  await Promise.all(addresses.map(async (address) => {
    try {
      const agent = await openMachine(address, token, clusterId)
      await task(agent).finally(() => { agent.close() })
    } catch (error) {
      tell(error)
    }
  }))
}

/** Ends the controllers of a cluster, then its nodes, here and on all machines. Returns how many processes had to be killed. */
async function endEverything(folder: ClusterFolder): Promise<number> {
  let killed = 0
  const identity = identityOf(folder)
  if (identity !== undefined && identity.spec.machines.length > 0) {
    killed += await endProcesses(folder, ['controller'])
    await eachMachine(identity, folder, async (agent) => {
      killed += (await agent.call<{ killed: number }>('End', {}, MACHINE_END_MS)).killed
    }, (error) => { process.stderr.write(`warning ${error.toLine()}. What runs there is not ended\n`) })
  }
  return killed + await endProcesses(folder)
}

class Supervisor {
  readonly client: ClusterClient
  isReady = false
  readonly #options: SupervisorOptions
  readonly #events: EventLog
  readonly #timers = new Set<NodeJS.Timeout>()
  #isEnding = false
  #failure: CodedError | undefined

  constructor(options: SupervisorOptions) {
    this.#options = options
    this.#events = new EventLog(options.folder.eventsFile)
    this.client = new ClusterClient(options.spec.name, options.folder)
  }

  /**
   * Starts the controllers, and waits until the cluster is ready; if it was there before, for a while.
   *
   * @throws CodedError when one that was not there cannot be
   */
  async start(isAdopted: boolean): Promise<void> {
    const { spec, folder, readyMs = READY_MS } = this.#options
    const began = performance.now()
    this.#note('supervisor', 0, process.pid)
    this.#events.add(isAdopted ? 'cluster-adopted' : 'cluster-starting', `cluster ${spec.name} ${isAdopted ? 'is taken up again' : 'starts'}`)
    this.#timers.add(setInterval(() => { this.#events.bound() }, BOUND_EVENTS_MS))
    const there = folder.livingProcesses().filter(({ kind }) => kind === 'controller')
    for (let id = 1; id <= spec.controllers; id++) {
      const found = there.find((entry) => entry.id === id)
      if (found === undefined) this.#begin(id, BACKOFF_MS)
      else this.#follow(found)
    }
    for (;;) {
      if (this.#isEnding) return
      if (this.#failure !== undefined && !isAdopted) throw this.#failure
      const status = await this.client.status().catch(() => undefined)
      if (status?.isReady === true) break
      if (!isAdopted && status?.failure != null) {
        const { code, message } = status.failure
        throw new CodedError(code as ErrorCode, message)
      }
      if (performance.now() - began > readyMs) {
        const late = status?.nodes.find(({ state }) => state !== 'ready')
        const error = new CodedError('NF_CLUSTER_START', `${late?.name ?? 'the controller'} is not ready after ${readyMs / 1000} s`,
          'Are its interfaces up?')
        if (!isAdopted) throw error
        process.stderr.write(`warning ${error.toLine()} The cluster is kept as it was found\n`)
        this.isReady = true
        return
      }
      await sleep(READY_POLL_MS)
    }
    this.isReady = true
    this.#events.add('cluster-ready', `cluster ${spec.name} is ready`, { ms: Math.round(performance.now() - began) })
  }

  #note(kind: 'supervisor' | 'controller', id: number, pid: number): void {
    this.#options.folder.noteProcess({ kind, id, name: id === 0 ? kind : `${kind}-${id}`, incarnation: 0, startedAt: startTime(), pid,
      startTicks: startTicksOf(pid) })
  }

  #begin(id: number, delayMs: number): void {
    const { folder } = this.#options
    const name = `controller-${id}`
    const file = folder.controllerFile(id)
    const startedAt = performance.now()
    let launched: LaunchedProcess
    try {
      folder.write(file, `${JSON.stringify({ kind: 'controller', id, name, folder: folder.path } satisfies ControllerConfig)}\n`)
      launched = launchProcess('controller', file, folder.controllerLog(id))
    } catch (error) {
      // A full disk, or no descriptors: it may be better the next time.
      const fault = error instanceof CodedError ? error : new CodedError('NF_CLUSTER_START', `${name} cannot be started: ${String(error)}`)
      if (!this.isReady) this.#failure ??= fault
      process.stderr.write(`warning ${fault.toLine()}\n`)
      return this.#again(id, delayMs)
    }
    void launched.ended.then((end) => {
      if (this.#isEnding) return
      if (!this.isReady) this.#failure ??= startError(name, end)
      this.#events.add('controller-died', `${name} ended ${end.signal === null ? `with status ${end.status}` : `by ${end.signal}`}`,
        { controller: name, ...end.signal === null && { output: end.lastLines.slice(-2000) } })
      this.#again(id, performance.now() - startedAt > STEADY_MS ? BACKOFF_MS : delayMs)
    })
    try {
      this.#note('controller', id, launched.pid)
    } catch (error) {
      // Who takes the cluster up, or ends it, would not know of it.
      process.stderr.write(`warning ${(error as Error).message}\n`)
      launched.kill('SIGKILL')
    }
  }

  #again(id: number, delayMs: number): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer)
      this.#begin(id, Math.min(BACKOFF_MS_MAX, delayMs * 2))
    }, delayMs)
    this.#timers.add(timer)
  }

  /** A controller that somebody else has started: it is looked at now and then. */
  #follow(entry: ProcessEntry): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer)
      if (isRunning(entry)) this.#follow(entry)
      else this.#begin(entry.id, BACKOFF_MS)
    }, BACKOFF_MS)
    this.#timers.add(timer)
  }

  /** Lets everything go on without it. */
  leave(): void {
    this.#isEnding = true
    for (const timer of this.#timers) clearTimeout(timer)
  }

  /** Ends everything. */
  async stop(): Promise<void> {
    this.#isEnding = true
    for (const timer of this.#timers) clearTimeout(timer)
    await endEverything(this.#options.folder)
    await endContainersOf(this.#options.spec, this.#options.folder)
    this.#events.add('cluster-ended', `cluster ${this.#options.spec.name} has ended`)
  }
}

/** Ends a cluster, with its supervisor or, where that is gone, without. Returns how many processes had to be killed. */
export async function endCluster(name: string, folder: ClusterFolder): Promise<{ readonly killed: number }> {
  const living = folder.livingProcesses()
  const hasAnswered = await callOnce(folder.supervisorSocket, 'Down').then(() => true, () => false)
  if (!hasAnswered && living.length === 0) {
    if (folder.isThere) removeUnlessHeld(folder)
    throw notRunning(name, 0)
  }
  if (hasAnswered && await areGone(living, 2 * (END_MS + KILL_MS) + MACHINE_END_MS)) return { killed: 0 }
  const supervisors = living.filter((entry) => entry.kind === 'supervisor' && signalProcess(entry, 'SIGKILL'))
  const killed = supervisors.length + await endEverything(folder)
  const identity = identityOf(folder)
  if (identity !== undefined) await endContainersOf(identity.spec, folder)
  removeUnlessHeld(folder)
  return { killed }
}

/** Removes what is left of a cluster, unless somebody is about to start it again. */
function removeUnlessHeld(folder: ClusterFolder): void {
  const lock = ClusterLock.take(folder)
  if (lock === undefined) return
  folder.remove()
  lock.release()
}

/** An error that another process has printed. */
export function printedError(text: string): CodedError | undefined {
  const match = /^error (NF_[A-Z_]+): (.*)$/m.exec(text)
  return match !== null && Object.hasOwn(errorCodes, match[1]) ? new CodedError(match[1] as ErrorCode, match[2]) : undefined
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => { setTimeout(resolve, ms) })
}
