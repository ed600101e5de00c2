/**
 * Bed of the bench on real links: the load (links-load.ts), and what it sends through: runtimes as processes, or testpmd. Everything is a
 * child of this process in a folder of its own, and gone when the bed is closed.
 */

import { fork, spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { CodedError } from '../../src/base/coded-error.ts'
import type { ClusterConfig } from '../../src/messages/cluster-config.ts'
import { LineRpcClient } from '../../src/process/line-rpc.ts'
import { childEnvironment, programArguments } from '../../src/process/node-launcher.ts'
import type { NodeStatus } from '../../src/process/node-status.ts'
import type { LoadCommand, LoadOptions, LoadStatus } from './links-messages.ts'

const CLUSTER = 7
const FIRST_RUNTIME = 11
const READY_MS = 30_000
const ANSWER_MS = 120_000
/** Flows are opened as fast as they are, but with few on their way, so that none is lost however slow the machine is. */
const OPENING_RATE = 1_000_000
const OPENING_WINDOW = 256

export interface BedOptions {
  readonly flows: number
  readonly isTcp: boolean
  readonly chain: readonly string[]
  /** Runtimes; none: testpmd is in the seat, if there is one at all. */
  readonly runtimes: number
  readonly replication?: 'none' | 'async' | 'commit'
  /** Load and seat have a core of their own each; without, the kernel decides. */
  readonly isPinned: boolean
  /** More options of Node for the runtimes. */
  readonly nodeOptions?: readonly string[]
}

/** Cores of the load and of the seat, where they have one each. */
const LOAD_CORE = 1
const SEAT_CORE = 0

/** A process, with the end of what it has printed. */
interface Running {
  readonly child: ChildProcess
  readonly startedAt: number
  output: string
}

/** Why testpmd cannot be the baseline here; empty if it can. */
export function testpmdObstacle(): string {
  if (spawnSync('dpdk-testpmd', ['--version']).error !== undefined) return 'dpdk-testpmd is not installed'
  return process.getuid?.() === 0 ? '' : 'dpdk-testpmd needs root here'
}

/** Why nothing can be measured here; empty if it can. */
export function linksObstacle(): string {
  if (process.platform !== 'linux') return 'memif links need Linux'
  return spawnSync('taskset', ['--version']).error === undefined ? '' : 'taskset (util-linux) is not installed'
}

export class LinksBed {
  readonly folder = mkdtempSync(join(tmpdir(), 'nfl-'))
  readonly runtimes: Running[] = []
  readonly #options: BedOptions
  readonly #load: ChildProcess
  readonly #processes = new Set<ChildProcess>()
  readonly #clients: LineRpcClient[] = []
  readonly #waiting = new Map<number, { resolve(value: unknown): void, reject(error: Error): void }>()
  #config: ClusterConfig
  #count = 0
  #isClosed = false

  private constructor(options: BedOptions) {
    this.#options = options
    const ids = Array.from({ length: options.runtimes }, (_, index) => FIRST_RUNTIME + index)
    this.#config = {
      version: 1, clusterId: CLUSTER,
      switches: [{ id: 1, incarnation: 1, side: 'ingress', isHome: true }, { id: 2, incarnation: 2, side: 'egress', isHome: false }],
      runtimes: ids.map((id, index) => ({ id, incarnation: 3 + index, isDraining: false })),
    }
    const load: LoadOptions = { folder: this.folder, clusterId: CLUSTER, runtimes: ids, flows: options.flows, isTcp: options.isTcp }
    const child = this.#load = fork(join(import.meta.dirname, 'links-load.ts'), [JSON.stringify(load)], { env: childEnvironment() })
    this.#watch(child)
    if (options.isPinned) pin(child, LOAD_CORE)
    child.on('message', ({ id, result, error }: { id: number, result?: unknown, error?: string }) => {
      const waiting = this.#waiting.get(id)
      this.#waiting.delete(id)
      if (error === undefined) waiting?.resolve(result)
      else waiting?.reject(new Error(`load: ${error}`))
    })
    child.on('exit', (status, signal) => {
      if (this.#isClosed) return
      for (const { reject } of this.#waiting.values()) reject(new Error(`the load has ended: ${status ?? signal}`))
    })
  }

  /** Starts everything, and waits until the links are up and runtimes are ready. */
  static async open(options: BedOptions): Promise<LinksBed> {
    const bed = new LinksBed(options)
    try {
      // The load listens; testpmd connects when it starts, or not at all.
      await bed.load({ what: 'status' })
      if (options.runtimes > 0) await bed.#startRuntimes()
      else bed.#startTestpmd()
      await bed.until('links', async () => (await bed.load<LoadStatus>({ what: 'status' })).isUp)
      return bed
    } catch (error) {
      bed.close()
      throw error
    }
  }

  close(): void {
    this.#isClosed = true
    for (const client of this.#clients) client.close()
    for (const child of this.#processes) child.kill('SIGKILL')
    this.#processes.clear()
    rmSync(this.folder, { recursive: true, force: true })
    rmSync(`/var/run/dpdk/${this.#prefix}`, { recursive: true, force: true })
  }

  get #prefix(): string {
    return `nfl${process.pid}`
  }

  #watch(child: ChildProcess): void {
    this.#processes.add(child)
    child.on('exit', () => { this.#processes.delete(child) })
  }

  // -- Processes -----------------------------------------------------------------------------------------------------

  async #startRuntimes(): Promise<void> {
    const { chain, flows, replication = 'none', nodeOptions = [], isPinned } = this.#options
    const run = join(this.folder, 'run.json')
    writeFileSync(run, JSON.stringify({ chain, limits: { flows: flows * 2 + 64 } }))
    for (const { id, incarnation } of this.#config.runtimes) {
      const file = join(this.folder, `${id}.json`)
      writeFileSync(file, JSON.stringify({ kind: 'runtime', id, name: `runtime-${id - FIRST_RUNTIME + 1}`, incarnation, clusterId: CLUSTER,
        folder: this.folder, run, replication }))
      const child = spawn(process.execPath, [...nodeOptions, ...programArguments, 'runtime', file],
        { stdio: ['ignore', 'pipe', 'pipe'], env: childEnvironment() })
      this.#watch(child)
      if (isPinned) pin(child, SEAT_CORE)
      const running: Running = { child, startedAt: performance.now(), output: '' }
      for (const stream of [child.stdout, child.stderr]) {
        stream.setEncoding('utf8').on('data', (text: string) => { running.output = (running.output + text).slice(-200_000) })
      }
      this.runtimes.push(running)
    }
    for (const { id } of this.#config.runtimes) {
      let client: LineRpcClient | undefined
      await this.until(`runtime ${id}`, async () => {
        client = await LineRpcClient.connect(join(this.folder, `${id}.sock`)).catch(() => undefined)
        return client !== undefined
      })
      this.#clients.push(client as LineRpcClient)
    }
    await this.configure({})
    await this.until('runtimes', async () => (await this.statuses()).every(({ isReady }) => isReady))
    // Switches place nothing before every runtime has announced what it has.
    await this.until('switches', async () => (await this.load<LoadStatus>({ what: 'status' })).openSteps === 0)
  }

  #startTestpmd(): void {
    const memif = (index: number, name: string): string =>
      `--vdev=net_memif${index},role=client,id=0,socket=${join(this.folder, name)},socket-abstract=no,rsize=12,bsize=2112`
    const child = spawn('dpdk-testpmd', [
      '--lcores', `0@${LOAD_CORE},1@${SEAT_CORE}`, '--no-huge', '-m', '512', '--no-pci', '--no-telemetry', '--file-prefix', this.#prefix,
      memif(0, 'west'), memif(1, 'east'), '--', '--forward-mode=macswap', '--port-topology=paired', '--no-mlockall', '--no-flush-rx',
      '--total-num-mbufs=32768', '--nb-cores=1', '--rxd=4096', '--txd=4096',
    ], { stdio: ['pipe', 'pipe', 'pipe'] })
    this.#watch(child)
    const running: Running = { child, startedAt: performance.now(), output: '' }
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => { running.output = (running.output + text).slice(-20_000) })
    }
    this.runtimes.push(running)
  }

  // -- Saying ----------------------------------------------------------------------------------------------------------

  load<T = void>(command: LoadCommand): Promise<T> {
    const id = ++this.#count
    return new Promise<unknown>((resolve, reject) => {
      const timer = setTimeout(() => { reject(new Error(`the load has not done in time: ${command.what}`)) }, ANSWER_MS)
      this.#waiting.set(id, {
        resolve: (value) => { clearTimeout(timer); resolve(value) }, reject: (error) => { clearTimeout(timer); reject(error) },
      })
      this.#load.send({ id, command })
    }) as Promise<T>
  }

  /** Asks a runtime, by index. */
  ask<T>(runtime: number, method: string, params: Record<string, unknown> = {}): Promise<T> {
    return (this.#clients[runtime] as LineRpcClient).call<T>(method, params, READY_MS)
  }

  idOf(runtime: number): number {
    return FIRST_RUNTIME + runtime
  }

  statuses(): Promise<NodeStatus[]> {
    return Promise.all(this.#clients.filter(({ isOpen }) => isOpen).map((client) => client.call<NodeStatus>('GetStatus', {}, READY_MS)))
  }

  /** A newer configuration for everybody: without a runtime that is fenced. */
  async configure({ without }: { readonly without?: number }): Promise<void> {
    const runtimes = this.#config.runtimes.filter(({ id }) => without === undefined || id !== this.idOf(without))
    this.#config = { ...this.#config, version: this.#config.version + 1, runtimes }
    const config = this.#config
    const told = this.#clients.filter((_, index) => config.runtimes.some(({ id }) => id === this.idOf(index)))
      .map((client) => client.call('NotifyClusterConfig', { config }, READY_MS))
    await Promise.all([...told, this.load({ what: 'configure', config })])
  }

  /** Waits for something to become true. */
  async until(what: string, isTrue: () => Promise<boolean>, ms = READY_MS, everyMs = 20): Promise<void> {
    for (const end = performance.now() + ms; !(await isTrue());) {
      const broken = this.runtimes.find(({ child }) => child.exitCode !== null)
      if (broken !== undefined || performance.now() > end) {
        const outputs = this.runtimes.map(({ output }) => output.slice(-1500)).join('\n')
        throw new CodedError('NF_BENCH', `${what}: not within ${ms / 1000} s. ${outputs}`, 'Run it again on a machine with less to do')
      }
      await new Promise((resolve) => { setTimeout(resolve, everyMs) })
    }
  }

  /** The runtimes' lives. */
  get lives(): readonly { readonly id: number, readonly incarnation: number }[] {
    return this.#config.runtimes
  }

  /** Everything here stands still, so that others can be measured. */
  freeze(): void {
    for (const child of this.#processes) child.kill('SIGSTOP')
  }

  thaw(): void {
    for (const child of this.#processes) child.kill('SIGCONT')
  }

  /** Ends a runtime in good order. Returns all that it has printed, and when it was started, by `performance.now`. */
  async endRuntime(runtime: number): Promise<{ readonly output: string, readonly startedAt: number }> {
    const running = this.runtimes[runtime] as Running
    const gone = new Promise((resolve) => { running.child.once('close', resolve) })
    running.child.kill('SIGTERM')
    await gone
    return running
  }

  /** CPU time of all processes so far, microseconds. */
  cpuUs(): number {
    return [this.#load, ...this.runtimes.map(({ child }) => child)].reduce((sum, { pid }) => sum + cpuUsOf(pid ?? 0), 0)
  }

  /** Opens all flows through the switches, at the first runtime alone. */
  async openFlows(): Promise<void> {
    const { flows, isTcp, runtimes } = this.#options
    for (let other = 1; other < runtimes; other++) await this.ask(other, 'Drain', { on: true })
    // It is empty when the switches have said that they place nothing there any more.
    await this.until('the others are drained', async () => (await this.statuses()).slice(1).every(({ workload }) => workload.isEmpty), 10_000, 5)
    await this.load({ what: 'send', packetsPerSecond: OPENING_RATE, window: OPENING_WINDOW })
    // A TCP flow is past its handshake when its sides have sent a few packets each.
    const packets = flows * (isTcp ? 7 : 1)
    await this.until('flows open', async () => (await this.load<LoadStatus>({ what: 'status' })).sent >= packets, 90_000, 50)
    await this.load({ what: 'settle' })
    for (let other = 1; other < runtimes; other++) await this.ask(other, 'Drain', { on: false })
    const { totals, drops } = await this.load<LoadStatus>({ what: 'status' })
    const [first] = await this.statuses()
    if (totals.lost > 0 || (first?.workload.flows ?? 0) !== flows) {
      throw new CodedError('NF_BENCH', `${first?.workload.flows} of ${flows} flows are open, ${totals.lost} packets lost: ` +
        JSON.stringify([drops, first?.dropReasons]), 'Run it again on a machine with less to do')
    }
  }
}

function pin({ pid }: ChildProcess, core: number): void {
  spawnSync('taskset', ['-a', '-cp', String(core), String(pid)])
}

/** Time on a core of all threads of a process, as the scheduler counts it; 0 when it is gone. */
function cpuUsOf(pid: number): number {
  try {
    return readdirSync(`/proc/${pid}/task`).reduce((sum, thread) =>
      sum + Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0]) / 1000, 0)
  } catch {
    return 0
  }
}
