/**
 * Supervisor service: a supervisor that takes commands at the cluster's socket, from the folder's making to its removal. Also what is
 * left when a supervisor is killed: its nodes go on, and `endLeftovers` ends them.
 *
 * Methods: Status, Flows, Migrate, Drain, Kill, Events, Down.
 */

import { CodedError } from '../base/coded-error.ts'
import type { ClusterSpec } from './cluster-file.ts'
import type { ClusterDecider } from './cluster-decider.ts'
import { startTicksOf, type ClusterFolder, type ProcessEntry } from './cluster-folder.ts'
import { callOnce, LineRpcServer } from './line-rpc.ts'
import { processLauncher, type NodeLauncher } from './node-launcher.ts'
import { Supervisor } from './supervisor.ts'

export interface ServiceOptions {
  readonly spec: ClusterSpec
  readonly folder: ClusterFolder
  readonly launcher?: NodeLauncher
  readonly deciders?: readonly ClusterDecider[]
  /** Called when the cluster is ready. */
  readonly onReady?: (supervisor: Supervisor) => void
  /** Ends the cluster. */
  readonly signal?: AbortSignal
}

const LEFTOVER_MS = 2_000
const FLOWS_MAX = 100_000
const SIGNALS: readonly string[] = ['SIGKILL', 'SIGTERM', 'SIGSTOP', 'SIGCONT', 'SIGINT', 'SIGABRT']

/**
 * Runs a cluster until it is told to end; nothing is left of it afterwards.
 *
 * @throws CodedError `NF_CLUSTER_RUNNING`, or why it cannot be started
 */
export async function runCluster(options: ServiceOptions): Promise<void> {
  const { spec, folder, signal, launcher = processLauncher, deciders } = options
  const living = folder.livingProcesses()
  if (living.length > 0) {
    throw new CodedError('NF_CLUSTER_RUNNING', `cluster ${spec.name} has ${living.length} processes running`,
      `End it first: nfactor down --name ${spec.name}`)
  }
  folder.clear()
  folder.create()
  const down = Promise.withResolvers<void>()
  const end = (): void => { down.resolve() }
  signal?.addEventListener('abort', end)
  const supervisor = new Supervisor({ spec, folder, launcher, deciders })
  const rpc = new LineRpcServer(folder.supervisorSocket, methodsOf(supervisor, end))
  try {
    await rpc.open()
    await supervisor.start()
    options.onReady?.(supervisor)
    if (signal?.aborted !== true) await down.promise
    await supervisor.stop()
  } finally {
    signal?.removeEventListener('abort', end)
    rpc.close()
    folder.clear()
  }
}

function methodsOf(supervisor: Supervisor, end: () => void): ConstructorParameters<typeof LineRpcServer>[1] {
  const text = (value: unknown): string => typeof value === 'string' ? value : ''
  const whole = (value: unknown, otherwise: number): number => Number.isSafeInteger(value) ? value as number : otherwise
  return {
    Status: () => supervisor.status(),
    Flows: ({ filter, limit, state, node }) =>
      supervisor.flows(text(filter), Math.min(FLOWS_MAX, whole(limit, 1000)), state === true, node ?? undefined),
    Migrate: ({ from, to, number }) => supervisor.migrate(from, to, number === undefined ? undefined : whole(number, 0)),
    Drain: ({ node, on, remove }) => supervisor.drain(node, on !== false, remove === true),
    Kill: ({ node, signal = 'SIGKILL' }) => {
      if (!SIGNALS.includes(text(signal))) {
        throw new CodedError('NF_USAGE', `${text(signal)} is no signal that a node gets`, `There are ${SIGNALS.join(', ')}`)
      }
      return supervisor.kill(node, text(signal) as NodeJS.Signals)
    },
    Events: ({ after, limit }) => ({ events: supervisor.events.since(whole(after, 0), whole(limit, 1000)) }),
    Down: () => { setImmediate(end) },
  }
}

/** Ends a cluster, with its supervisor or, where that is gone, without. Returns how many processes had to be killed. */
export async function endCluster(name: string, folder: ClusterFolder): Promise<{ readonly killed: number }> {
  const living = folder.livingProcesses()
  const hasAnswered = await callOnce(folder.supervisorSocket, 'Down').then(() => true, () => false)
  if (!hasAnswered && living.length === 0) {
    folder.remove()
    throw notRunning(name)
  }
  if (hasAnswered && await areGone(living, 10_000)) return { killed: 0 }
  for (const { pid } of living.filter(isAlive)) process.kill(pid, 'SIGTERM')
  await areGone(living, LEFTOVER_MS)
  const stubborn = living.filter(isAlive)
  for (const { pid } of stubborn) process.kill(pid, 'SIGKILL')
  await areGone(living, LEFTOVER_MS)
  folder.remove()
  return { killed: stubborn.length }
}

/** One command to a cluster's supervisor. */
export async function callCluster<T>(name: string, folder: ClusterFolder, method: string, params: Record<string, unknown> = {},
    timeoutMs?: number): Promise<T> {
  try {
    return await callOnce<T>(folder.supervisorSocket, method, params, timeoutMs)
  } catch (error) {
    const isGone = error instanceof CodedError && error.code === 'NF_NODE_GONE' && error.message.startsWith('nobody answers')
    if (isGone) throw notRunning(name, folder)
    throw error
  }
}

function notRunning(name: string, folder?: ClusterFolder): CodedError {
  const left = folder?.livingProcesses().length ?? 0
  return left > 0
    ? new CodedError('NF_CLUSTER_NOT_RUNNING', `the supervisor of cluster ${name} is gone, ${left} of its processes are not`,
      `End them: nfactor down --name ${name}`)
    : new CodedError('NF_CLUSTER_NOT_RUNNING', `no cluster ${name} is running`, 'Start one: nfactor up')
}

const isAlive = ({ pid, startTicks }: ProcessEntry): boolean => startTicksOf(pid) === startTicks

async function areGone(processes: readonly ProcessEntry[], patienceMs: number): Promise<boolean> {
  const end = performance.now() + patienceMs
  while (processes.some(isAlive)) {
    if (performance.now() > end) return false
    await new Promise((resolve) => { setTimeout(resolve, 10) })
  }
  return true
}
