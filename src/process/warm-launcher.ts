/**
 * Warm launcher: starts processes of nodes like another launcher, but has one in stock that has loaded everything already and waits to be
 * told which node it is. Loading is most of what the start of a node takes, and a killed switch stands still for as long.
 *
 *     nfactor spare ── loads, says so at descriptor 3 ──▶ waits at its standard input
 *          │ its launcher has ended                          │ a line: kind, file, log
 *          ▼                                                 ▼
 *         ends                                           is that node; its output goes into the node's log
 *
 * One is made some time after the last start, so that it takes no core from nodes that begin. A spare that dies is made again later; while
 * there is none, processes start as they do without; but what is started beside others that work waits for the next spare, for a while: several
 * that start at once, as when a machine is lost, would take the cores from those that work just when these have most to do.
 */

import { spawn, type ChildProcess } from 'node:child_process'
import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { NodeConfig } from './node-config.ts'
import { childEnvironment, endOf, programArguments, type LaunchedNode, type NodeEnd, type NodeLauncher } from './node-launcher.ts'
import { beginYielding, yieldingEnvironment } from './start-priority.ts'

/** What a spare process is told. */
export interface SpareOrder {
  readonly kind: NodeConfig['kind']
  readonly file: string
  readonly log: string
}

/** The descriptor at which a spare process says that it has loaded. */
export const READY_FD = 3

/** Nothing has been started for so long before a spare is made. */
const REST_MS = 1_500
/** So long a process that yields waits for a spare. */
const SPARE_MS = 8_000
const LOOK_MS = 20
/** Who keeps a spare does so at least this often. */
const KEPT_MS = 1_000
/** After one that has died by itself. */
const FAILED_MS = 10_000

interface Spare {
  readonly child: ChildProcess
  readonly ended: Promise<NodeEnd>
  isReady: boolean
  log: string
}

export class WarmLauncher implements NodeLauncher {
  readonly name = 'process'
  readonly #launcher: NodeLauncher
  readonly #restMs: number
  readonly #spawn: () => ChildProcess
  #spare: Spare | undefined
  #dueAt: number
  #keptAt = -Infinity

  constructor(launcher: NodeLauncher, restMs = REST_MS, spawnOne = spawnSpare) {
    this.#launcher = launcher
    this.#restMs = restMs
    this.#spawn = spawnOne
    this.#dueAt = performance.now() + restMs
  }

  /** Whether the next start will be a quick one. */
  get isWarm(): boolean {
    return this.#spare?.isReady === true
  }

  /** Somebody sees to it that there will be a spare. */
  get #isKept(): boolean {
    return performance.now() - this.#keptAt < KEPT_MS && process.platform === 'linux'
  }

  async launch(kind: NodeConfig['kind'], file: string, log: string, yields = false): Promise<LaunchedNode> {
    const end = performance.now() + SPARE_MS
    while (yields && !this.isWarm && this.#isKept && performance.now() < end) await sleep(LOOK_MS)
    this.#dueAt = performance.now() + this.#restMs
    const spare = this.#spare
    if (spare?.isReady !== true) return await this.#launcher.launch(kind, file, log, yields)
    this.#spare = undefined
    const { child, ended } = spare
    spare.log = log
    child.stdin?.end(`${JSON.stringify({ kind, file, log } satisfies SpareOrder)}\n`)
    return { pid: child.pid ?? 0, ended, kill: (signal) => { child.kill(signal) } }
  }

  /** To be called again and again by whoever may have to start something: makes a spare when it is time to. */
  keepWarm(): void {
    this.#keptAt = performance.now()
    if (this.#spare !== undefined || performance.now() < this.#dueAt || process.platform !== 'linux') return
    const child = this.#tryToSpawn()
    if (child?.pid === undefined) {
      // Descriptors, memory or processes have run out. Who starts something meanwhile says so, or finds that there are some again.
      child?.on('error', () => undefined)
      this.#dueAt = performance.now() + FAILED_MS
      return
    }
    beginYielding(child.pid)
    const spare: Spare = { child, isReady: false, log: '', ended: endOf(child, () => spare.log) }
    this.#spare = spare
    child.stdin?.on('error', () => undefined)
    const ready = child.stdio[READY_FD] as Socket
    ready.on('error', () => undefined).once('data', () => { spare.isReady = true })
    // Whoever has it in stock may end: then so does it.
    for (const one of [child, child.stdin as Socket, ready]) one.unref()
    void spare.ended.then(() => {
      if (this.#spare !== spare) return
      this.#spare = undefined
      this.#dueAt = performance.now() + FAILED_MS
    })
  }

  #tryToSpawn(): ChildProcess | undefined {
    try {
      return this.#spawn()
    } catch {
      return undefined
    }
  }

  /** Lets the spare end, as it does by itself when this process has ended. Says how it has. */
  async close(): Promise<NodeEnd | undefined> {
    this.#dueAt = Infinity
    this.#spare?.child.stdin?.end()
    return await this.#spare?.ended
  }
}

function spawnSpare(): ChildProcess {
  return spawn(process.execPath, [...programArguments, 'spare'], {
    stdio: ['pipe', 'ignore', 'ignore', 'pipe'], detached: true, env: { ...childEnvironment(), ...yieldingEnvironment() } })
}
