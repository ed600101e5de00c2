/**
 * Commands to a running cluster: status, flows, migrate, drain, scale, kill, events.
 */

import { CodedError } from '../base/coded-error.ts'
import { ClusterFolder } from '../process/cluster-folder.ts'
import { ClusterClient } from '../process/cluster-client.ts'
import type { ClusterStatus } from '../process/operator.ts'
import { ExitStatus } from './exit-status.ts'
import { bytesText, countOf, countText } from './number-text.ts'
import { tableLines } from './text-table.ts'

export interface ClusterCommandOptions {
  readonly name: string
  readonly json?: boolean
}

const WATCH_MS = 1000
const FOLLOW_MS = 250

export function clusterOf({ name }: ClusterCommandOptions): ClusterClient {
  return new ClusterClient(name, ClusterFolder.ofCluster(name))
}

export function print(options: ClusterCommandOptions, value: unknown, lines: readonly string[]): number {
  process.stdout.write(options.json === true ? `${JSON.stringify(value)}\n` : lines.map((line) => `${line}\n`).join(''))
  return ExitStatus.ok
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => { setTimeout(resolve, ms) })

export async function statusCommand(options: ClusterCommandOptions & { readonly watch?: boolean }): Promise<number> {
  if (options.watch !== true) {
    const status = await clusterOf(options).status()
    return print(options, status, statusLines(status))
  }
  for (;;) {
    const status = await clusterOf(options).status()
    if (options.json !== true) process.stdout.write('\x1b[H\x1b[2J')
    print(options, status, statusLines(status))
    await sleep(WATCH_MS)
  }
}

/** What external ports have lost or refused, in words. */
const portLosses = [['rxMissed', 'missed: they found no room before we came'], ['rxForeign', 'not let in: NFactor\'s own kind, from outside'],
  ['rxOversize', 'too long to be taken'], ['rxInvalid', 'damaged'], ['txOversize', 'too long to be sent']] as const

function statusLines(status: ClusterStatus): string[] {
  // Only where somebody has asked for certain ones.
  const isPinned = status.nodes.some(({ cpus }) => cpus.length > 0)
  const head = ['NODE', 'STATE', 'LIFE', 'PID', 'BUSY', 'PACKETS/S', 'RECEIVED', 'DROPPED', 'FLOWS', 'RESTARTS', ...isPinned ? ['CORES'] : []]
  const rows = status.nodes.map((node) => [
    node.name, node.isDraining ? `${node.state}, draining` : node.state, String(node.incarnation), node.pid === 0 ? '' : String(node.pid),
    `${Math.round(node.busy * 100)}%`, countText(node.packetsPerSecond), countText(node.workload?.received ?? 0),
    countText(node.workload?.dropped ?? 0), countText(node.workload?.flows ?? 0), String(node.restarts),
    ...isPinned ? [node.cpus.join(',')] : []])
  const hasMachines = status.machines.length > 0
  if (hasMachines) {
    head.splice(1, 0, 'MACHINE')
    for (const [index, { machine }] of status.nodes.entries()) rows[index].splice(1, 0, machine)
  }
  const lost = status.machines.filter(({ isUp }) => !isUp).map(({ name }) => `  machine ${name} does not answer`)
  const right = { align: 'right' } as const
  const drops = status.nodes.flatMap(({ name, status: own }) => Object.entries(own?.dropReasons ?? {}).map(([reason, count]) =>
    `  ${name}: ${countText(count)} dropped, ${reason}`))
  const bare = status.nodes.flatMap(({ name, status: own }) => ((own?.replication?.unprotected ?? 0) === 0 ? [] :
    [`  ${name}: ${countOf(own?.replication?.unprotected ?? 0, 'flow')} without a replica`]))
  const ways = status.nodes.flatMap(({ name, status: own }) => (own?.external?.how === undefined ? [] :
    [`  ${name}: ${own.external.how} (${own.external.name})`]))
  const ports = status.nodes.flatMap(({ name, status: own }) => portLosses.flatMap(([key, text]) => {
    const count = own?.external?.[key] ?? 0
    return count > 0 ? [`  ${name}: ${countText(count)} ${text} (${own?.external?.name})`] : []
  }))
  return [`cluster ${status.name}, ${status.isReady ? 'ready' : 'not ready'}, up ${status.uptimeSeconds} s, ` +
    `configuration ${status.configVersion}, chain ${status.chain.join(', ')}`,
  ...tableLines([head, ...rows], [{}, ...hasMachines ? [{}] : [], {}, right, right, right, right, right, right, right, right, right]),
  ...lost, ...ways, ...bare, ...drops, ...ports]
}

export async function flowsCommand(filter: readonly string[],
    options: ClusterCommandOptions & { readonly limit: number, readonly state?: boolean, readonly node?: string }): Promise<number> {
  const { limit, state = false, node } = options
  const list = await clusterOf(options).flows(filter.join(' '), limit, state, node)
  const rows = list.flows.map((flow) => [flow.node, flow.protocol, flow.a, flow.b, flow.phase, String(flow.epoch),
    flow.packets === undefined ? '' : countText(flow.packets), flow.bytes === undefined ? '' : bytesText(flow.bytes)])
  const right = { align: 'right' } as const
  const lines = tableLines([['NODE', 'PROTOCOL', 'A', 'B', 'PHASE', 'EPOCH', 'PACKETS', 'BYTES'], ...rows],
    [{}, {}, {}, {}, {}, right, right, right])
  const stateLines = state ? list.flows.flatMap((flow) => [
    `${flow.a} ${flow.b} ${JSON.stringify(flow.state)}`,
    ...(flow.replicas ?? []).map((kept) => `  at its replica ${kept.node}, ${countOf(kept.packets, 'packet')}: ${JSON.stringify(kept.state)}`),
  ]) : []
  const shown = list.total > list.flows.length ? `, ${list.flows.length} shown` : ''
  return print(options, list, [...lines, ...stateLines, `${countOf(list.total, 'flow')}${shown}`])
}

export async function migrateCommand(from: string, to: string, options: ClusterCommandOptions & { readonly number?: number }): Promise<number> {
  const result = await clusterOf(options).migrate(from, to, options.number)
  return print(options, result, [`${countOf(result.number, 'flow')} of ${result.from} ordered to ${result.to}`])
}

export async function drainCommand(node: string,
    options: ClusterCommandOptions & { readonly undo?: boolean, readonly remove?: boolean }): Promise<number> {
  const { undo = false, remove = false } = options
  const result = await clusterOf(options).drain(node, !undo, remove)
  const empty = `${result.node} is empty: ${countOf(result.flowsBefore, 'flow')} left it in ${result.seconds} s`
  const text = undo ? `${result.node} gets flows again` : `${empty}${remove ? '; it has left the cluster' : ''}`
  return print(options, result, [text])
}

export async function scaleCommand(runtimes: string, options: ClusterCommandOptions): Promise<number> {
  const number = Number(runtimes)
  if (runtimes !== 'auto' && !(Number.isInteger(number) && number > 0)) {
    throw new CodedError('NF_USAGE', `${JSON.stringify(runtimes)} is no number of runtimes`, 'Say a number from 1 on, or auto')
  }
  const result = await clusterOf(options).scale(runtimes === 'auto' ? 'auto' : number)
  const text = result.isAutomatic ? `as many runtimes as the load demands, ${result.desired} now` : countOf(result.desired, 'runtime')
  return print(options, result, [text])
}

export async function killCommand(node: string, options: ClusterCommandOptions & { readonly signal: string }): Promise<number> {
  const result = await clusterOf(options).kill(node, options.signal)
  return print(options, result, [`${result.node} (process ${result.pid}) got ${result.signal}`])
}

export async function eventsCommand(options: ClusterCommandOptions & { readonly follow?: boolean }): Promise<number> {
  let after = 0
  do {
    const events = await clusterOf(options).events(after)
    for (const event of events) {
      process.stdout.write(options.json === true ? `${JSON.stringify(event)}\n` : `${event.time}  ${event.event.padEnd(18)}  ${event.text}\n`)
      after = event.number
    }
    if (options.follow === true) await sleep(FOLLOW_MS)
  } while (options.follow === true)
  return ExitStatus.ok
}
