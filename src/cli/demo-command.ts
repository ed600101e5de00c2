/**
 * `nfactor demo`: a cluster on this machine, shown at work. A client downloads from a server through it, each in a network namespace of
 * its own: as root, or as root of a user namespace that this makes for itself. Where neither is allowed a generator sends to a sink.
 * Meanwhile flows move, a runtime is drained, a network function is updated, the cluster grows and shrinks; a switch, a runtime and the
 * leading controller are killed. It ends by itself, with exit status 0 only if every promise held:
 *
 *     downloads are whole, no connection is reset             (generator: no packet lost, doubled, reordered until something is killed)
 *     flows go on where their replicas are, and under a new version of a network function with what was known of them
 *     what is killed is replaced, and new connections work
 *
 * Every packet leaves only when a replica at another runtime has the state that it made (replication `commit`), so that a runtime that is
 * killed takes nothing with it.
 */

import { spawn, type ChildProcess } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { CodedError } from '../base/coded-error.ts'
import { clusterSchema, specOf, type ClusterSpec } from '../process/cluster-file.ts'
import { ClusterFolder } from '../process/cluster-folder.ts'
import { DemoNetwork } from '../process/demo-network.ts'
import { resolveRunConfig, type RunConfig } from '../process/run-config.ts'
import type { ClusterClient } from '../process/cluster-client.ts'
import { programPath } from '../process/node-launcher.ts'
import type { ClusterStatus } from '../process/operator.ts'
import { runCluster } from '../process/supervisor.ts'
import { clientProgram, parseDownloads, serverProgram, startProgram, type Download } from './download-programs.ts'
import { flowSizeAfter, flowSizeBefore } from './demo-nfs.ts'
import { ExitStatus } from './exit-status.ts'
import { bytesText, countOf, countText } from './number-text.ts'

export interface DemoCommandOptions {
  readonly json?: boolean
  /** The cluster goes on when all has been shown, until it is ended. */
  readonly stay?: boolean
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
const NAME = 'demo'

export async function demoCommand(options: DemoCommandOptions): Promise<number> {
  const namespaces = DemoNetwork.ownNamespaces()
  if (namespaces !== undefined) return await runInside(namespaces, options)
  const demo = new Demo(options.json === true, options.stay === true)
  try {
    return await demo.run()
  } finally {
    demo.close()
  }
}

/** Runs the same in namespaces of its own, as their root. */
async function runInside([command, ...first]: readonly string[], { json, stay }: DemoCommandOptions): Promise<number> {
  const flags = [...json === true ? ['--json'] : [], ...stay === true ? ['--stay'] : []]
  const child = spawn(command, [...first, process.execPath, programPath, 'demo', ...flags], { stdio: 'inherit' })
  // A terminal tells both; others tell this one alone.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => { child.kill(signal) })
  return await new Promise((resolve) => {
    child.on('error', () => { resolve(ExitStatus.failed) })
    child.on('exit', (status) => { resolve(status ?? ExitStatus.failed) })
  })
}

class Demo {
  readonly #isJson: boolean
  readonly #isStaying: boolean
  readonly #began = performance.now()
  readonly #home = mkdtempSync(join(tmpdir(), 'nfactor-demo-'))
  readonly #children = new Set<ChildProcess>()
  readonly #promises: Kept[] = []
  readonly #timings: Record<string, number> = {}
  #network: DemoNetwork | undefined

  constructor(isJson: boolean, isStaying: boolean) {
    this.#isJson = isJson
    this.#isStaying = isStaying
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
    const running = runCluster({ spec, folder: new ClusterFolder(join(this.#home, NAME)), signal: stop.signal, onReady: ready.resolve })
    const cluster = await Promise.race([ready.promise, running.then(() => undefined)])
    if (cluster === undefined) return ExitStatus.interrupted
    try {
      const show = this.#network === undefined ? this.#showGenerator(cluster) : this.#showDownloads(cluster, this.#network)
      await Promise.race([show, running])
      if (stop.signal.aborted) return ExitStatus.interrupted
      if (this.#isStaying) await this.#stay(running)
    } finally {
      stop.abort()
      await running
    }
    return this.#verdict()
  }

  async #spec(): Promise<ClusterSpec> {
    const { middle } = this.#network ?? {}
    const content = clusterSchema.parse({
      name: NAME, chain: this.#chain('flow-size-1.ts', flowSizeBefore), runtimes: 3, replication: 'commit', controllers: 2,
      limits: { flows: 65_536 },
      ingress: middle === undefined ? { type: 'generator', packetsPerSecond: 5000 } : { type: 'af-packet', interface: 'in', namespace: middle },
      egress: middle === undefined ? { type: 'sink' } : { type: 'af-packet', interface: 'out', namespace: middle },
    })
    const { config } = await resolveRunConfig({ chain: content.chain as string[] })
    return specOf(content, config as RunConfig, undefined)
  }

  /** The chain with a network function of the demo's own. */
  #chain(file: string, text: string): string[] {
    const path = join(this.#home, file)
    writeFileSync(path, text)
    return ['monitor', 'firewall', 'http', path]
  }

  /** Until somebody ends it. */
  async #stay(running: Promise<void>): Promise<void> {
    this.#verdict()
    this.#say(`the cluster goes on until Ctrl-C. To look around, in another terminal:
         export NFACTOR_DIR=${this.#home}
         npx nfactor status --name ${NAME}          npx nfactor flows --state --name ${NAME}
         npx nfactor events --name ${NAME}          npx nfactor kill runtime-2 --name ${NAME}`)
    if (this.#network !== undefined) {
      const { client, serverAddress } = this.#network
      const enter = isInUserNamespace() ? `nsenter --preserve-credentials --user --net --mount --target ${process.pid} ` : ''
      this.#say(`traffic: ${enter}ip netns exec ${client} curl http://${serverAddress}:8000/1000000 | wc -c`)
    }
    await running
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
    // What is lost of a connection's first second TCP sends again after a second, whatever is behind it.
    await sleep(500)
    await this.#killAndWait(cluster, 'egress')
    downloads = await going
    this.#timings['longest stall while a switch was dead'] = stall(downloads)
    this.#promise(`all downloads whole behind a switch that was killed, longest stall ${stall(downloads)} ms`, whole(downloads))

    this.#say('the same again, and the runtime that serves most of it is killed')
    going = this.#download(network, DOWNLOAD_BYTES, PAUSE_MS)
    await this.#until('flows', async () => (await cluster.flows('tcp', 100)).total >= CONNECTIONS)
    await sleep(500)
    await this.#killAndWait(cluster, await this.#busiest(cluster))
    downloads = await going
    this.#timings['longest stall when a runtime was killed'] = stall(downloads)
    this.#promise(`all downloads whole although their runtime was killed, longest stall ${stall(downloads)} ms`, whole(downloads))
    downloads = await this.#download(network, 1_000_000, 1)
    this.#promise('new connections work after a runtime was killed', downloads.length > 0 && downloads.every(({ same }) => same === true))

    this.#say('the same again, while a network function is replaced by a new version that keeps more of each flow')
    going = this.#download(network, DOWNLOAD_BYTES, 2 * PAUSE_MS)
    await this.#until('flows', async () => (await cluster.flows('tcp', 100)).total >= CONNECTIONS)
    await this.#update(cluster)
    downloads = await going
    this.#timings['longest stall while a network function was updated'] = stall(downloads)
    this.#promise(`all downloads whole under two versions, longest stall ${stall(downloads)} ms`, whole(downloads))

    this.#say('the same again, while the leading controller is killed and the cluster grows and shrinks')
    going = this.#download(network, DOWNLOAD_BYTES, PAUSE_MS)
    await this.#until('flows', async () => (await cluster.flows('tcp', 100)).total >= CONNECTIONS)
    await this.#killLeader(cluster)
    await this.#scale(cluster)
    downloads = await going
    this.#promise(`all downloads whole, longest stall ${stall(downloads)} ms`, whole(downloads))
    if (!this.#isStaying) server.kill('SIGKILL')
  }

  async #showGenerator(cluster: ClusterClient): Promise<void> {
    await this.#sayReady(cluster)
    await this.#until('flows', async () => (await cluster.flows('udp', 1000)).total >= 100)
    await this.#moveAndDrain(cluster)
    await this.#update(cluster)
    await this.#killLeader(cluster)
    await this.#scale(cluster)
    const { received, lost, duplicated, reordered, corrupted } = trafficOf(await cluster.status())
    this.#promise(`${countText(received)} packets, ${lost} lost, ${duplicated} doubled, ${reordered} out of order`,
      received > 0 && lost + duplicated + reordered + corrupted === 0)
    await this.#killAndWait(cluster, 'egress')
    await this.#killAndWait(cluster, await this.#busiest(cluster))
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
      // What begins meanwhile may begin there: hosts ask for routers by themselves.
      const moving = new Set((await cluster.flows('', 10_000)).flows.filter(({ node }) => node === from).map(({ flow }) => flow))
      await cluster.migrate(from, to)
      await this.#until('all flows have moved', async () =>
        (await cluster.flows('', 10_000)).flows.every(({ flow, node }) => node !== from || !moving.has(flow)))
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

  async #busiest(cluster: ClusterClient): Promise<string> {
    const runtimes = (await cluster.status()).nodes.filter(({ kind }) => kind === 'runtime')
    const [{ name }] = runtimes.toSorted((a, b) => (b.workload?.flows ?? 0) - (a.workload?.flows ?? 0))
    return name
  }

  async #update(cluster: ClusterClient): Promise<void> {
    const before = new Map((await cluster.flows('', 10_000)).flows.map(({ flow, packets = 0 }) => [flow, packets]))
    const result = await this.#timed('network function updated', () => cluster.update({
      action: 'begin', run: { chain: this.#chain('flow-size-2.ts', flowSizeAfter), limits: { flows: 65_536 } } }))
    const after = (await cluster.flows('', 10_000, true)).flows.filter(({ flow }) => before.has(flow))
    const knows = after.every(({ flow, packets = 0, state }) => {
      const own = state?.['flow-size'] as { packets: number, bytes?: number } | undefined
      return packets >= (before.get(flow) ?? Infinity) && own?.bytes !== undefined && own.packets >= packets - 1
    })
    this.#promise(`all runtimes run version ${result.version} of the chain after ${result.seconds} s, and ${countOf(after.length, 'flow')} ` +
      'that lived through it are counted from their first packet', result.phase === 'done' && knows)
  }

  async #killLeader(cluster: ClusterClient): Promise<void> {
    const { leader, term } = await cluster.status()
    const { pid } = new ClusterFolder(join(this.#home, NAME)).livingProcesses().find(({ name }) => name === leader) ?? {}
    if (pid === undefined) throw new CodedError('NF_CLUSTER', `${leader} leads, and has no process`)
    await this.#timed('another controller leads after SIGKILL', async () => {
      process.kill(pid, 'SIGKILL')
      await this.#until('another controller leads', async () => (await cluster.status()).term > term)
    })
    this.#say(`${leader}, which led, is killed with SIGKILL; ${(await cluster.status()).leader} leads after ` +
      `${this.#timings['another controller leads after SIGKILL']} ms`)
  }

  async #scale(cluster: ClusterClient): Promise<void> {
    for (const wanted of [4, 2]) {
      await this.#timed(`${wanted} runtimes`, async () => {
        await cluster.scale(wanted)
        await this.#until(`${wanted} runtimes`, async () => {
          const { isReady, nodes } = await cluster.status()
          return isReady && nodes.filter(({ kind }) => kind === 'runtime').length === wanted
        })
      })
      this.#say(`${wanted} runtimes are wanted, and there after ${this.#timings[`${wanted} runtimes`]} ms`)
    }
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

  #start(namespace: string, program: string, ...args: string[]): ChildProcess {
    const child = startProgram(namespace, program, ...args)
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
      if (performance.now() > end) throw new CodedError('NF_CLUSTER', `the demonstration waits in vain: ${what}`)
      await sleep(10)
    }
  }
}

/** Root of a user namespace is somebody else outside. */
function isInUserNamespace(): boolean {
  return !/^\s*0\s+0\s+4294967295$/m.test(readFileSync('/proc/self/uid_map', 'utf8'))
}

function trafficOf(status: ClusterStatus): Record<'received' | 'lost' | 'duplicated' | 'reordered' | 'corrupted', number> {
  return status.nodes.find(({ name }) => name === 'egress')?.status?.traffic as ReturnType<typeof trafficOf>
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => { setTimeout(resolve, ms) })
}
