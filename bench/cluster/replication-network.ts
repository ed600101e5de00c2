/**
 * What replication costs real programs: two network namespaces joined by a cluster of processes on this machine, and between them ping and
 * iperf3. A round has a cluster of its own for each mode, one after the other, so that what the machine does besides hits all of them.
 */

import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { clusterSchema, specOf } from '../../src/process/cluster-file.ts'
import { ClusterFolder } from '../../src/process/cluster-folder.ts'
import { DemoNetwork } from '../../src/process/demo-network.ts'
import { resolveRunConfig, type RunConfig } from '../../src/process/run-config.ts'
import type { ClusterClient } from '../../src/process/cluster-client.ts'
import { runCluster } from '../../src/process/supervisor.ts'
import type { Mode } from './replication-memory.ts'

export interface NetworkResult {
  /** Round trips of pings, a few milliseconds apart: median and 90th percentile, milliseconds. */
  readonly ping: number
  readonly pingP90: number
  /** TCP with one connection, and with several, Gbit/s. */
  readonly one: number
  readonly several: number
  /** Frames of control sessions sent again, and refused by a full port, while TCP went through. */
  readonly retransmitted: number
  readonly refused: number
}

export const CONNECTIONS = 8
const PINGS = 300
const PING_INTERVAL_S = 0.003
const WARM_UP_S = 1

/** Why it cannot be measured here; empty if it can. */
export function networkObstacle(): string {
  const missing = ['iperf3', 'ping'].find((program) => spawnSync(program, ['--version']).error !== undefined)
  return missing === undefined ? DemoNetwork.obstacle() : `${missing} is not installed`
}

/** One round in one mode: pings, then TCP for so many seconds with one connection, and as long with several. */
export async function measureNetwork(mode: Mode, seconds: number): Promise<NetworkResult> {
  const network = new DemoNetwork()
  const home = mkdtempSync(join(tmpdir(), 'nfactor-bench-'))
  const stop = new AbortController()
  try {
    const content = clusterSchema.parse({
      name: 'bench', chain: ['monitor', 'firewall', 'http'], runtimes: 2, replication: mode, limits: { flows: 65_536 },
      ingress: { type: 'af-packet', interface: 'in', namespace: network.middle },
      egress: { type: 'af-packet', interface: 'out', namespace: network.middle },
    })
    const { config } = await resolveRunConfig({ chain: content.chain as string[] })
    const ready = Promise.withResolvers<ClusterClient>()
    const running = runCluster({ spec: specOf(content, config as RunConfig, undefined), folder: new ClusterFolder(join(home, 'c')),
      signal: stop.signal, onReady: ready.resolve })
    try {
      const cluster = await Promise.race([ready.promise, running.then(() => { throw new Error('the cluster has ended') })])
      return await measure(network, cluster, seconds)
    } finally {
      stop.abort()
      await running
    }
  } finally {
    network.close()
    rmSync(home, { recursive: true, force: true })
  }
}

async function measure(network: DemoNetwork, cluster: ClusterClient, seconds: number): Promise<NetworkResult> {
  await iperf(network, WARM_UP_S, 1)
  const text = await run(network.client, 'ping', '-c', String(PINGS), '-i', String(PING_INTERVAL_S), network.serverAddress)
  const times = [...text.matchAll(/ time=([\d.]+) ms/g)].map(([, ms]) => Number(ms)).toSorted((a, b) => a - b)
  if (times.length < PINGS * 0.9) throw new Error(`${times.length} of ${PINGS} pings have been answered`)
  const before = await controlCounts(cluster)
  const one = await iperf(network, seconds, 1)
  const several = await iperf(network, seconds, CONNECTIONS)
  const after = await controlCounts(cluster)
  return {
    ping: times[times.length >> 1] as number, pingP90: times[Math.floor(times.length * 0.9)] as number, one, several,
    retransmitted: after.retransmitted - before.retransmitted, refused: after.refused - before.refused,
  }
}

/** TCP from client to server, Gbit/s received. */
async function iperf(network: DemoNetwork, seconds: number, connections: number): Promise<number> {
  const server = spawn('ip', ['netns', 'exec', network.server, 'iperf3', '-s', '-1', '--forceflush'], { stdio: ['ignore', 'pipe', 'inherit'] })
  try {
    await new Promise((resolve) => { server.stdout.once('data', resolve) })
    const text = await run(network.client, 'iperf3', '-c', network.serverAddress, '-t', String(seconds), '-P', String(connections), '-J')
    const { end, error } = JSON.parse(text) as { error?: string, end: { sum_received?: { bits_per_second: number } } }
    if (end.sum_received === undefined) throw new Error(`iperf3: ${error ?? 'no result'}`)
    return end.sum_received.bits_per_second / 1e9
  } finally {
    server.kill('SIGKILL')
  }
}

async function controlCounts(cluster: ClusterClient): Promise<{ retransmitted: number, refused: number }> {
  const { nodes } = await cluster.status()
  const sum = (name: string): number => nodes.reduce((total, { status }) => total + Number(status?.control[name] ?? 0), 0)
  return { retransmitted: sum('retransmitted'), refused: sum('txFull') }
}

async function run(namespace: string, ...command: string[]): Promise<string> {
  const child = spawn('ip', ['netns', 'exec', namespace, ...command], { stdio: ['ignore', 'pipe', 'inherit'], timeout: 120_000 })
  let text = ''
  child.stdout.setEncoding('utf8').on('data', (part: string) => { text += part })
  await new Promise((resolve) => { child.on('close', resolve) })
  return text
}
