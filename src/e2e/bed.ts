/**
 * The bed of an end-to-end test: a client, a server, a cluster between them, each in a namespace of its own, and no other way.
 *
 *     client: curl, ssh, iperf3, DNS ... ─ veth ─ ingress ═ runtimes ═ egress ─ veth ─ server: nginx, sshd, iperf3, DNS ...
 */

import assert from 'node:assert/strict'
import type { ChildProcess } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { TestCluster } from '../cli/test-cluster.ts'
import { TestMachines } from '../cli/test-machines.ts'
import { ClusterFolder } from '../process/cluster-folder.ts'
import type { PortStatistics } from '../ports/link-port.ts'
import { TestNetwork } from '../ports/test-network.ts'
import { Port, type ClientPlan, type Outcome } from './outcome.ts'
import { startServices, type Services } from './services.ts'
import { spawnApart } from './spawn-apart.ts'

export interface ClusterWish {
  readonly chain?: string
  /** Further lines of the cluster file. */
  readonly more?: string
  readonly runtimes?: number
  readonly replication?: 'none' | 'async' | 'commit'
}

export interface BedWish extends ClusterWish {
  /** Names of files in the cluster's folder, and what is in them. */
  readonly files?: Readonly<Record<string, string>>
  /** A bridge in the place of the cluster: what the programs see without us. */
  readonly isBridged?: boolean
  /** How many machines; the first has switches and controllers, and runtimes are on all of them. */
  readonly machines?: number
}

export interface Report {
  readonly outcomes: readonly Outcome[]
  /** How long the client's own process stood still at most: no stall is known better than that. */
  readonly ownPauseMs: number
}

const HOSTS = ['10.79.0.2', 'fd79::2'] as const
/** Connections that are begun one behind the other are all open. */
const SETTLE_MS = 1500
const STOP_MS = 90_000
/** A stall that is a failure, whatever the fault. While the client itself stood still so did others: that counts four times. */
const STALL_MS = 1000
/** Of each program, the longest. */
const STALLS_TOLD = 5

export class Bed {
  readonly cluster: TestCluster
  readonly network: TestNetwork
  readonly services: Services
  /** Of a cluster on several. */
  readonly machines: TestMachines | undefined
  readonly #client: string
  readonly #middle: string
  readonly #children: Set<ChildProcess>
  #isClustered = false

  private constructor(cluster: TestCluster, network: TestNetwork, services: Services, client: string, middle: string,
    children: Set<ChildProcess>, machines: TestMachines | undefined) {
    this.cluster = cluster
    this.machines = machines
    this.network = network
    this.services = services
    this.#client = client
    this.#middle = middle
    this.#children = children
  }

  /** Makes it for a test; it goes when the test ends. */
  static async make(context: TestContext, wish: BedWish): Promise<Bed> {
    const network = new TestNetwork()
    const [client, middle, server] = [network.addNamespace(), network.addNamespace(), network.addNamespace()]
    const cluster = new TestCluster('e2e', wish.machines === undefined ? undefined : middle)
    const machines = wish.machines === undefined ? undefined : new TestMachines(network, cluster, 'e2e', middle, wish.machines)
    const folder = mkdtempSync(join(tmpdir(), 'nfactor-e2e-'))
    const children = new Set<ChildProcess>()
    let services: Services | undefined
    context.after(async () => {
      for (const child of children) child.kill('SIGTERM')
      await services?.close()
      cluster.close()
      machines?.close()
      network.close()
      rmSync(folder, { recursive: true, force: true })
    })
    network.addVeth(client, 'c0', middle, 'in')
    network.addVeth(server, 's0', middle, 'out')
    network.addAddresses(client, 'c0', '10.79.0.1/24', 'fd79::1/64')
    network.addAddresses(server, 's0', '10.79.0.2/24', 'fd79::2/64')
    services = await startServices(server, folder, HOSTS)
    const bed = new Bed(cluster, network, services, client, middle, children, machines)
    if (wish.isBridged === true) {
      network.run(middle, 'ip', 'link', 'add', 'bridge', 'type', 'bridge')
      for (const port of ['in', 'out']) network.run(middle, 'ip', 'link', 'set', port, 'master', 'bridge')
      network.run(middle, 'ip', 'link', 'set', 'bridge', 'up')
      return bed
    }
    for (const [name, text] of Object.entries(wish.files ?? {})) cluster.write(name, text)
    for (let index = 1; index < (wish.machines ?? 0); index++) await machines?.start(index)
    cluster.must('up', cluster.write('cluster.yaml', bed.clusterFile(wish)), '--detach')
    bed.#isClustered = true
    return bed
  }

  clusterFile({ chain = '[monitor, firewall, http]', more = '', runtimes = 3, replication = 'none' }: ClusterWish): string {
    return `
name: e2e
chain: ${chain}
ingress: { type: af-packet, interface: in, namespace: ${this.#middle} }
egress: { type: af-packet, interface: out, namespace: ${this.#middle} }
runtimes: ${runtimes}
replication: ${replication}
limits: { flows: 65536 }
${this.machines?.lines() ?? ''}
${more}`
  }

  /**
   * Runs the client's programs, and `fault` while they work. Nothing may have gone wrong for any of them; the cluster is ready afterwards.
   */
  async under(context: TestContext, load: Partial<ClientPlan>, fault: () => Promise<void>): Promise<Report> {
    const { files, keyFile } = this.services
    const plan: ClientPlan = {
      hosts: HOSTS, downloads: 200, keepAlive: 10, webSockets: 6, streams: 4, iperfSeconds: 20, keyFile, files, ...load }
    const child = spawnApart('ip', ['netns', 'exec', this.#client, process.execPath, join(import.meta.dirname, 'peer-client.ts'),
      JSON.stringify(plan)], { stdio: ['pipe', 'pipe', 'inherit'] })
    this.#children.add(child)
    let output = ''
    child.stdout?.setEncoding('utf8').on('data', (part: string) => { output += part })
    const ended = new Promise<number | null>((resolve) => { child.on('close', resolve) })
    if (this.#isClustered) await this.cluster.until('all programs have flows', async () => (await this.cluster.flows('tcp')).length >=
      plan.downloads * 0.9 + plan.keepAlive + plan.webSockets, 20_000)
    await sleep(SETTLE_MS)
    child.stdin?.write('measure\n')
    const measured = Date.now()
    await fault()
    child.stdin?.end()
    const late = setTimeout(() => { child.kill('SIGTERM') }, STOP_MS)
    const status = await ended
    clearTimeout(late)
    this.#children.delete(child)
    assert.equal(status, 0, 'the client\'s programs end')
    context.diagnostic(await this.#timeline(measured))
    const report = JSON.parse(output.slice(output.indexOf('{'))) as Report
    for (const { program, complete, connections, stallMs, stalls, openMs, lost, duplicates } of report.outcomes) {
      const long = stalls.toSorted(([, a], [, b]) => b - a).slice(0, STALLS_TOLD).map(([at, ms]) => `; ${ms} ms from ${at} ms on`)
      context.diagnostic(`${program}: ${complete} complete over ${connections} connections; longest stall ${stallMs} ms, ` +
        `to open ${openMs} ms; ${lost} lost, ${duplicates} twice${long.join('')}`)
    }
    context.diagnostic(`longest stall ${longestStall(report)} ms; the client itself stood still for ${report.ownPauseMs} ms`)
    if (this.#isClustered) context.diagnostic(`lost in the cluster: ${await this.#losses()}`)
    assert.deepEqual(report.outcomes.flatMap(({ program, faults }) => faults.map((text) => `${program}: ${text}`)), [])
    for (const { program, complete, duplicates } of report.outcomes) {
      assert.ok(complete > 0, `${program} has done something`)
      assert.equal(duplicates, 0, `${program}: duplicates`)
    }
    assert.ok(longestStall(report) < STALL_MS + 4 * report.ownPauseMs, `a stall of ${longestStall(report)} ms`)
    if (this.#isClustered) await this.ready()
    return report
  }

  /** What has happened to the cluster since then, with times. */
  async #timeline(since: number): Promise<string> {
    if (!this.#isClustered) return 'no cluster'
    return (await this.cluster.events()).filter(({ time }) => Date.parse(time) >= since)
      .map(({ time, text }) => `${Date.parse(time) - since} ms ${text}`).join('; ')
  }

  /** Many small datagrams for some seconds: they cost more than as many bytes of TCP. What of them is lost does not matter. */
  async load(seconds: number): Promise<void> {
    const iperf = spawnApart('ip', ['netns', 'exec', this.#client,
      'iperf3', '-c', HOSTS[0], '-p', `${Port.iperf + 4}`, '-t', `${seconds}`, '-u', '-b', '20M', '-l', '100', '-P', '2'], { stdio: 'ignore' })
    this.#children.add(iperf)
    const status = await new Promise((resolve) => { iperf.on('close', resolve) })
    this.#children.delete(iperf)
    assert.equal(status, 0, 'iperf3')
  }

  /** What nodes and their ports had to drop. */
  async #losses(): Promise<string> {
    return (await this.cluster.status()).nodes.map(({ name, busy, status }) => {
      const counts: Record<string, number> = { ...status?.dropReasons }
      const ports = [{ ...status?.external, peer: 'outside' }, ...status?.links ?? []] as ({ peer: unknown } & Partial<PortStatistics>)[]
      for (const { peer, rxMissed = 0, txFull = 0, txLost = 0, rxInvalid = 0 } of ports) {
        for (const [what, count] of Object.entries({ rxMissed, txFull, txLost, rxInvalid })) counts[`${peer} ${what}`] = count
      }
      return `${name} (busy ${busy}) ${JSON.stringify(Object.fromEntries(Object.entries(counts).filter(([, count]) => count > 0)))}`
    }).join('; ')
  }

  async ready(): Promise<void> {
    await this.cluster.until('the cluster is ready', async () => (await this.cluster.status()).isReady, 15_000)
  }

  /** Names of the runtimes, the one with most flows first. */
  async runtimes(): Promise<string[]> {
    return (await this.cluster.status()).nodes.filter(({ kind }) => kind === 'runtime')
      .toSorted((a, b) => (b.workload?.flows ?? 0) - (a.workload?.flows ?? 0)).map(({ name }) => name)
  }

  /** Kills a node and waits until another life has its place, and everything is ready. Returns the incarnation that is gone. */
  async kill(node: string, signal = 'SIGKILL'): Promise<number> {
    const { incarnation, pid } = await this.node(node)
    process.kill(pid, signal)
    await this.cluster.until(`${node} is replaced`, async () => {
      const { isReady, nodes } = await this.cluster.status()
      return isReady && nodes.every((one) => one.incarnation !== incarnation)
    }, 15_000)
    return incarnation
  }

  async node(name: string): Promise<{ readonly incarnation: number, readonly pid: number }> {
    const found = (await this.cluster.status()).nodes.find((one) => one.name === name)
    assert.ok(found !== undefined && found.pid > 0, name)
    return found
  }

  pidOf(name: string): number {
    const pid = new ClusterFolder(this.cluster.runFolder).livingProcesses().find((entry) => entry.name === name)?.pid
    assert.ok(pid !== undefined, name)
    return pid
  }
}

/** Of all programs, milliseconds. */
export function longestStall({ outcomes }: Report): number {
  return Math.max(...outcomes.map(({ stallMs }) => stallMs))
}
