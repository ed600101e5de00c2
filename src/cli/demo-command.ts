/**
 * `nfactor demo`: a cluster on this machine, shown at work. As root a client downloads from a server through it, each in a network
 * namespace of its own; elsewhere a generator sends to a sink. Meanwhile flows move, a runtime is drained, a switch and a runtime are
 * killed. It ends by itself, with exit status 0 only if every promise held:
 *
 *     downloads are whole, no connection is reset             (generator: no packet lost, doubled, reordered until something is killed)
 *     flows go on where their replicas are
 *     what is killed comes back, and new connections work
 *
 * Every packet leaves only when a replica at another runtime has the state that it made (replication `commit`), so that a runtime that is
 * killed takes nothing with it.
 */

import { spawn, type ChildProcess } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { clusterSchema, specOf, type ClusterSpec } from '../process/cluster-file.ts'
import { ClusterFolder } from '../process/cluster-folder.ts'
import { DemoNetwork } from '../process/demo-network.ts'
import { resolveRunConfig, type RunConfig } from '../process/run-config.ts'
import type { ClusterClient } from '../process/cluster-client.ts'
import type { ClusterStatus } from '../process/operator.ts'
import { runCluster } from '../process/supervisor.ts'
import { clientProgram, parseDownloads, serverProgram, type Download } from './download-programs.ts'
import { ExitStatus } from './exit-status.ts'
import { bytesText, countOf, countText } from './number-text.ts'

export interface DemoCommandOptions {
  readonly json?: boolean
}

interface Kept {
  readonly promise: string
  readonly held: boolean
}

const CONNECTIONS = 4
const DOWNLOAD_BYTES = 30_000_000
const PAUSE_MS = 45
const MOVES = 6
const PATIENCE_MS = 20_000

export async function demoCommand(options: DemoCommandOptions): Promise<number> {
  const demo = new Demo(options.json === true)
  try {
    return await demo.run()
  } finally {
    demo.close()
  }
}

class Demo {
  readonly #isJson: boolean
  readonly #began = performance.now()
  readonly #home = mkdtempSync(join(tmpdir(), 'nfactor-demo-'))
  readonly #children = new Set<ChildProcess>()
  readonly #promises: Kept[] = []
  readonly #timings: Record<string, number> = {}
  #network: DemoNetwork | undefined

  constructor(isJson: boolean) {
    this.#isJson = isJson
  }

  close(): void {
    for (const child of this.#children) child.kill('SIGKILL')
    this.#network?.close()
    rmSync(this.#home, { recursive: true, force: true })
  }

  async run(): Promise<number> {
    const obstacle = DemoNetwork.obstacle()
    if (obstacle === '') {
      this.#network = new DemoNetwork()
      this.#say('a client and a server, each in a network namespace; between them a cluster, and no other way')
    } else {
      this.#say(`a generator and a sink, a cluster between them (no real programs: ${obstacle})`)
    }
    const spec = await this.#spec()
    const stop = new AbortController()
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => { stop.abort() })
    const ready = Promise.withResolvers<ClusterClient>()
    process.umask(0o077)
    const running = runCluster({ spec, folder: new ClusterFolder(join(this.#home, 'c')), signal: stop.signal, onReady: ready.resolve })
    const cluster = await Promise.race([ready.promise, running.then(() => undefined)])
    if (cluster === undefined) return ExitStatus.interrupted
    try {
      const show = this.#network === undefined ? this.#showGenerator(cluster) : this.#showDownloads(cluster, this.#network)
      await Promise.race([show, running])
      if (stop.signal.aborted) return ExitStatus.interrupted
    } finally {
      stop.abort()
      await running
    }
    return this.#verdict()
  }

  async #spec(): Promise<ClusterSpec> {
    const { middle } = this.#network ?? {}
    const content = clusterSchema.parse({
      name: 'demo', chain: ['monitor', 'firewall', 'http'], runtimes: 3, replication: 'commit', limits: { flows: 65_536 },
      ingress: middle === undefined ? { type: 'generator', packetsPerSecond: 5000 } : { type: 'af-packet', interface: 'in', namespace: middle },
      egress: middle === undefined ? { type: 'sink' } : { type: 'af-packet', interface: 'out', namespace: middle },
    })
    const { config } = await resolveRunConfig({ chain: content.chain as string[] })
    return specOf(content, config as RunConfig, undefined)
  }

  // -- Telling -------------------------------------------------------------------------------------------------------

  #say(text: string): void {
    const seconds = ((performance.now() - this.#began) / 1000).toFixed(1).padStart(5)
    if (!this.#isJson) process.stdout.write(`${seconds} s  ${text}\n`)
  }

  #promise(promise: string, held: boolean): void {
    this.#promises.push({ promise, held })
    this.#say(`${held ? 'kept' : 'BROKEN'}: ${promise}`)
  }

  /** Does something and notes how long it took. */
  async #timed<T>(name: string, action: () => Promise<T>): Promise<T> {
    const began = performance.now()
    const result = await action()
    this.#timings[name] = Math.round(performance.now() - began)
    return result
  }

  #verdict(): number {
    const isKept = this.#promises.every(({ held }) => held)
    if (this.#isJson) process.stdout.write(`${JSON.stringify({ held: isKept, promises: this.#promises, timingsMs: this.#timings })}\n`)
    else this.#say(isKept ? 'every promise held. For a cluster of your own: nfactor up --detach, nfactor status' : 'NOT every promise held')
    return isKept ? ExitStatus.ok : ExitStatus.failed
  }

  // -- What is shown -------------------------------------------------------------------------------------------------

  async #showDownloads(cluster: ClusterClient, network: DemoNetwork): Promise<void> {
    await this.#sayReady(cluster)
    const server = this.#start(network.server, serverProgram)
    await new Promise((resolve) => { server.stdout?.once('data', resolve) })
    const whole = (downloads: readonly Download[]): boolean =>
      downloads.length > 0 && downloads.every(({ same, received }) => same === true && received === DOWNLOAD_BYTES)
    const stall = (downloads: readonly Download[]): number => Math.round(Math.max(...downloads.map((one) => one.stall ?? 0)))

    this.#say(`the client begins ${countOf(CONNECTIONS, 'download')} of ${bytesText(DOWNLOAD_BYTES)}`)
    let going = this.#download(network, DOWNLOAD_BYTES, PAUSE_MS)
    await this.#until('flows', async () => (await cluster.flows('tcp', 100)).total >= CONNECTIONS)
    await this.#moveAndDrain(cluster)
    let downloads = await going
    this.#timings['longest stall while flows moved'] = stall(downloads)
    this.#promise(`all downloads whole, no connection reset, longest stall ${stall(downloads)} ms`, whole(downloads))

    this.#say('the same again, and a switch is killed')
    going = this.#download(network, DOWNLOAD_BYTES, PAUSE_MS)
    await this.#until('flows', async () => (await cluster.flows('tcp', 100)).total >= CONNECTIONS)
    await this.#killAndWait(cluster, 'egress')
    downloads = await going
    this.#timings['longest stall while a switch was dead'] = stall(downloads)
    this.#promise(`all downloads whole behind a switch that was killed, longest stall ${stall(downloads)} ms`, whole(downloads))

    this.#say('the same again, and the runtime that serves most of it is killed')
    going = this.#download(network, DOWNLOAD_BYTES, PAUSE_MS)
    await this.#until('flows', async () => (await cluster.flows('tcp', 100)).total >= CONNECTIONS)
    await sleep(500)
    const { nodes } = await cluster.status()
    const busiest = nodes.filter(({ kind }) => kind === 'runtime').toSorted((a, b) => (b.workload?.flows ?? 0) - (a.workload?.flows ?? 0))[0]
    await this.#killAndWait(cluster, busiest.name)
    downloads = await going
    this.#timings['longest stall when a runtime was killed'] = stall(downloads)
    this.#promise(`all downloads whole although their runtime was killed, longest stall ${stall(downloads)} ms`, whole(downloads))
    downloads = await this.#download(network, 1_000_000, 1)
    this.#promise('new connections work after a runtime was killed', downloads.length > 0 && downloads.every(({ same }) => same === true))
    server.kill('SIGKILL')
  }

  async #showGenerator(cluster: ClusterClient): Promise<void> {
    await this.#sayReady(cluster)
    await this.#until('flows', async () => (await cluster.flows('udp', 1000)).total >= 100)
    await this.#moveAndDrain(cluster)
    const { received, lost, duplicated, reordered, corrupted } = trafficOf(await cluster.status())
    this.#promise(`${countText(received)} packets, ${lost} lost, ${duplicated} doubled, ${reordered} out of order`,
      received > 0 && lost + duplicated + reordered + corrupted === 0)
    await this.#killAndWait(cluster, 'egress')
    await this.#killAndWait(cluster, 'runtime-1')
    const before = trafficOf(await cluster.status()).received
    await sleep(1000)
    this.#promise('packets pass after a switch and a runtime were killed', trafficOf(await cluster.status()).received > before + 2000)
  }

  async #sayReady(cluster: ClusterClient): Promise<void> {
    const { nodes, chain } = await cluster.status()
    for (const { name, bootMs } of nodes) this.#timings[`${name} from start to ready`] = bootMs
    this.#say(`the cluster is ready: ${nodes.map(({ name, bootMs }) => `${name} after ${bootMs} ms`).join(', ')}; chain ${chain.join(', ')}`)
  }

  async #moveAndDrain(cluster: ClusterClient): Promise<void> {
    const names = ['runtime-1', 'runtime-2'] as const
    const took: number[] = []
    for (let move = 0; move < MOVES; move++) {
      const [from, to] = move % 2 === 0 ? names : names.toReversed()
      const began = performance.now()
      await cluster.migrate(from, to)
      await this.#until('all flows have moved', async () => (await cluster.flows('', 10_000)).flows.every(({ node }) => node !== from))
      took.push(performance.now() - began)
      await sleep(120)
    }
    this.#timings['all flows moved, longest'] = Math.round(Math.max(...took))
    this.#say(`all flows have moved ${MOVES} times between the runtimes, in ${took.map((ms) => `${Math.round(ms)}`).join(', ')} ms`)
    const { flowsBefore, seconds } = await cluster.drain('runtime-1')
    this.#timings['runtime drained'] = Math.round(seconds * 1000)
    this.#say(`runtime-1 is drained: ${countOf(flowsBefore, 'flow')} left it in ${Math.round(seconds * 1000)} ms`)
    await cluster.drain('runtime-1', false)
  }

  async #killAndWait(cluster: ClusterClient, node: string): Promise<void> {
    await this.#timed(`${node} ready again after SIGKILL`, async () => {
      const incarnation = (await cluster.status()).nodes.find(({ name }) => name === node)?.incarnation
      const { pid } = await cluster.kill(node)
      this.#say(`${node} (process ${pid}) is killed with SIGKILL`)
      await this.#until(`${node} is replaced`, async () => {
        const { isReady, nodes } = await cluster.status()
        return isReady && nodes.every((one) => one.incarnation !== incarnation)
      })
    })
    this.#say(`${node} is replaced after ${this.#timings[`${node} ready again after SIGKILL`]} ms, by another life`)
  }

  // -- Programs ------------------------------------------------------------------------------------------------------

  #start(namespace: string, ...args: string[]): ChildProcess {
    const child = spawn('ip', ['netns', 'exec', namespace, process.execPath, '-e', ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
    this.#children.add(child)
    child.on('close', () => { this.#children.delete(child) })
    return child
  }

  async #download(network: DemoNetwork, bytes: number, pauseMs: number): Promise<Download[]> {
    const child = this.#start(network.client, clientProgram, network.serverAddress, String(CONNECTIONS), String(bytes), String(pauseMs))
    let text = ''
    child.stdout?.setEncoding('utf8').on('data', (part: string) => { text += part })
    await new Promise((resolve) => { child.on('close', resolve) })
    return parseDownloads(text)
  }

  async #until(what: string, look: () => Promise<boolean>): Promise<void> {
    for (const end = performance.now() + PATIENCE_MS; !await look();) {
      if (performance.now() > end) throw new Error(`the demonstration waits in vain: ${what}`)
      await sleep(10)
    }
  }
}

function trafficOf(status: ClusterStatus): Record<'received' | 'lost' | 'duplicated' | 'reordered' | 'corrupted', number> {
  return status.nodes.find(({ name }) => name === 'egress')?.status?.traffic as ReturnType<typeof trafficOf>
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => { setTimeout(resolve, ms) })
}
