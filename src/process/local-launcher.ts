/**
 * Local launcher: starts and ends the processes of a cluster's nodes on this machine, in containers or not, for whichever controller leads.
 *
 * What has been started stands in the cluster's folder, a file per life, so that every controller sees the same processes, whoever started
 * them, and a controller that was killed leaves nothing that its successor does not know. A life of a runtime is started once: the
 * file is made by one alone. The highest term in which anybody has acted stands there too: a lower one is refused.
 *
 * Waits are counted by a clock that nobody sets: the time of day may go back by hours.
 *
 *     a process dies ─▶ the next at once; while they die young, after 0.1 s, 0.2 s ... 10 s
 *     a life that is fenced ─▶ it hears of that and ends by itself, or after GRACE_MS is killed; after HANDOVER_MS when its next life waits
 */

import { readFileSync } from 'node:fs'
import { CodedError } from '../base/coded-error.ts'
import type { Launched, Launcher } from '../controller/launcher.ts'
import { acceptsTerm } from '../controller/node-commands.ts'
import { ageOf, isRunning, signalProcess, startTicksOf, startTime, type ClusterFolder, type ProcessEntry } from './cluster-folder.ts'
import type { MemberConfig, RuntimeMember, SwitchMember } from './cluster-members.ts'
import { cpusOfNode } from './node-cpus.ts'
import { NODE_FAILED, type LaunchedNode, type NodeEnd, type NodeLauncher } from './node-launcher.ts'

export interface LocalLauncherOptions {
  readonly folder: ClusterFolder
  readonly launcher: NodeLauncher
  readonly switches: readonly SwitchMember[]
  /** Numbers of the cores that nodes may use; all without. */
  readonly cpus?: readonly number[]
  runtime(id: number, incarnation: number, chain: number): RuntimeMember
  onStarted(entry: ProcessEntry): void
  /** `end`: how, if this process had started it. What could not be started at all has pid 0. */
  onEnded(entry: ProcessEntry, end: NodeEnd | undefined): void
}

const GRACE_MS = 2_000
/** The same where its next life is to start, which needs its sockets. */
const HANDOVER_MS = 250
const BACKOFF_MS = 100
const BACKOFF_MS_MAX = 10_000
/** A process that has been up for so long is started again without delay when it dies. */
const STEADY_MS = 30_000
/** Behind the start of a cluster. */
const SERVICE_MS = 5_000
/** How often the folder is read for processes that others have started. */
const SCAN_MS = 200
/** How often the launcher looks for what is noted nowhere. */
const SWEEP_MS = 5_000

export class LocalLauncher implements Launcher {
  readonly #options: LocalLauncherOptions
  readonly #known = new Map<number, ProcessEntry>()
  /** Those that this process has started: it hears of their ends, and how. */
  readonly #own = new Set<number>()
  /** By name of a switch, or `runtime` for all of them. */
  readonly #backoff = new Map<string, { delayMs: number, dueAt: number }>()
  readonly #stopAt = new Map<number, number>()
  readonly #starts = new Map<string, number>()
  /** What is being started and not there yet. */
  readonly #starting = new Set<Pick<ProcessEntry, 'kind' | 'id' | 'incarnation' | 'cpus'>>()
  #warning = ''
  #scanAt = 0
  #sweepAt = 0

  constructor(options: LocalLauncherOptions) {
    this.#options = options
  }

  /** The processes that are there, by pid. */
  get processes(): ReadonlyMap<number, ProcessEntry> {
    return this.#known
  }

  /** The process of this life of a runtime. */
  processOfRuntime(incarnation: number): ProcessEntry | undefined {
    return [...this.#known.values()].find((one) => one.kind === 'runtime' && one.incarnation === incarnation)
  }

  /** How often a node of this name has been started by this controller. */
  startsOf(name: string): number {
    return this.#starts.get(name) ?? 0
  }

  startRuntime(term: number, { id, incarnation, chain }: Launched & { readonly chain: number }): void {
    if (!this.#isDue('runtime') || !this.#accepts(term)) return
    if (this.#isHeld(id, incarnation)) return
    const member = this.#options.runtime(id, incarnation, chain)
    if (this.#options.folder.claimLife(member.name, incarnation)) this.#start(member, incarnation)
  }

  /** An earlier life of this node, which is fenced, has its sockets still: it may be in a packet for ever, and is given little time. */
  #isHeld(id: number, incarnation: number): boolean {
    let isHeld = false
    for (const entry of this.#known.values()) {
      if (entry.kind !== 'runtime' || entry.id !== id || entry.incarnation >= incarnation) continue
      isHeld = true
      if (this.#isEnd(entry.pid, HANDOVER_MS)) this.kill(entry.pid, 'SIGKILL')
    }
    return isHeld
  }

  stopRuntime(term: number, { incarnation }: Launched): void {
    for (const entry of this.#known.values()) {
      if (entry.kind === 'runtime' && entry.incarnation === incarnation) this.stop(term, entry)
    }
  }

  /** Ends a process that has no place in the cluster any more. */
  stop(term: number, { pid }: ProcessEntry): void {
    if (this.#isEnd(pid, GRACE_MS) && this.#accepts(term)) this.kill(pid, 'SIGKILL')
  }

  /** Starts the switches that have no process. */
  startSwitches(term: number): void {
    for (const member of this.#options.switches) {
      const isThere = [...this.#known.values(), ...this.#starting].some(({ kind, id }) => kind === 'switch' && id === member.id)
      if (!isThere && this.#isDue(member.name) && this.#accepts(term)) this.#start(member, 0)
    }
  }

  running(): readonly Launched[] {
    return [...this.#known.values(), ...this.#starting].filter(({ kind }) => kind === 'runtime')
      .map(({ id, incarnation }) => ({ id, incarnation }))
  }

  /** Signals one of the processes; false if there is none of this pid. */
  kill(pid: number, signal: NodeJS.Signals): boolean {
    const entry = this.#known.get(pid)
    return entry !== undefined && signalProcess(entry, signal)
  }

  /** To be called by the controller that leads, again and again. */
  keepWarm(): void {
    this.#options.launcher.keepWarm?.()
  }

  /** Whether a process has had so long to end by itself since it was first asked; the shortest such time counts. */
  #isEnd(pid: number, graceMs: number): boolean {
    const now = performance.now()
    const at = Math.min(now + graceMs, this.#stopAt.get(pid) ?? Infinity)
    this.#stopAt.set(pid, at)
    return now >= at
  }

  /** To be called every few milliseconds: notices ends, and what others have started. */
  tick(): void {
    const now = performance.now()
    if (now >= this.#scanAt) {
      this.#scanAt = now + SCAN_MS
      for (const entry of this.#options.folder.livingProcesses()) {
        if (entry.kind === 'runtime' || entry.kind === 'switch') this.#known.set(entry.pid, entry)
      }
    }
    if (now >= this.#sweepAt) {
      this.#sweepAt = now + SWEEP_MS
      // What the engine does not tell now it may tell the next time.
      void this.#options.launcher.sweep?.().catch(() => undefined)
    }
    for (const entry of [...this.#known.values()]) if (!this.#own.has(entry.pid) && !isRunning(entry)) this.#ended(entry, undefined)
  }

  /** Some runtime has been up for a while, and may have packets to process. */
  get #isInService(): boolean {
    for (const entry of this.#known.values()) if (entry.kind === 'runtime' && ageOf(entry) > SERVICE_MS) return true
    return false
  }

  #ended(entry: ProcessEntry, end: NodeEnd | undefined): void {
    if (!this.#known.delete(entry.pid)) return
    this.#stopAt.delete(entry.pid)
    this.#own.delete(entry.pid)
    this.#over(entry, end)
  }

  /** A life is over, or has never begun: the next one may have to wait. */
  #over(entry: ProcessEntry, end: NodeEnd | undefined): void {
    const key = entry.kind === 'runtime' ? 'runtime' : entry.name
    const wasSteady = ageOf(entry) > STEADY_MS
    const before = this.#backoff.get(key)?.delayMs
    const delayMs = wasSteady || before === undefined ? 0 : Math.min(BACKOFF_MS_MAX, Math.max(BACKOFF_MS, before * 2))
    this.#backoff.set(key, { delayMs, dueAt: performance.now() + delayMs })
    this.#options.onEnded(entry, end)
  }

  #isDue(key: string): boolean {
    return performance.now() >= (this.#backoff.get(key)?.dueAt ?? 0)
  }

  #accepts(term: number): boolean {
    const { folder } = this.#options
    let highest = 0
    try {
      highest = Number(readFileSync(folder.termFile, 'utf8'))
    } catch {
      // Nobody has acted yet.
    }
    if (!acceptsTerm(highest, term)) return false
    try {
      if (term !== highest) folder.write(folder.termFile, `${term}`)
      return true
    } catch (error) {
      // Who has led before would not know that he is over.
      this.#warn(error)
      return false
    }
  }

  #start(member: MemberConfig, incarnation: number): void {
    const { folder, cpus: all = [] } = this.#options
    const { id, kind, name } = member
    const taken = [...this.#known.values(), ...this.#starting].map(({ cpus }) => cpus)
    const cpus = all.length === 0 ? {} : { cpus: cpusOfNode(all, taken) }
    const begun = { kind, id, name, incarnation, startedAt: startTime(), ...cpus }
    this.#starts.set(name, this.startsOf(name) + 1)
    this.#starting.add(begun)
    this.#launch(member, cpus).then((launched) => {
      this.#starting.delete(begun)
      const entry: ProcessEntry = { ...begun, pid: launched.pid, startTicks: startTicksOf(launched.pid) }
      this.#options.onStarted(entry)
      // One that has ended meanwhile had a number that nobody knows.
      if (entry.startTicks === 0) return void launched.ended.then((end) => { this.#over({ ...entry, pid: 0 }, end) })
      this.#known.set(entry.pid, entry)
      this.#own.add(entry.pid)
      void launched.ended.then((end) => { this.#ended(entry, end) })
      try {
        folder.noteProcess(entry)
      } catch (error) {
        // Nobody else would know of it, and start another one beside it.
        this.#warn(error)
        launched.kill('SIGKILL')
      }
    }, (error: unknown) => {
      this.#starting.delete(begun)
      const line = error instanceof CodedError ? error.toLine() : `NF_INTERNAL: ${String(error)}`
      this.#over({ ...begun, pid: 0, startTicks: 0 }, { status: NODE_FAILED, signal: null, lastLines: `error ${line}` })
    })
  }

  async #launch(member: MemberConfig, cpus: Pick<ProcessEntry, 'cpus'>): Promise<LaunchedNode> {
    const { folder, launcher } = this.#options
    const { id, kind } = member
    const file = folder.nodeFile(id)
    const yields = kind === 'runtime' && this.#isInService
    folder.write(file, `${JSON.stringify({ ...member, ...cpus })}\n`)
    return await launcher.launch(kind, file, folder.nodeLog(id), yields)
  }

  /** Says the same once. */
  #warn(error: unknown): void {
    const line = error instanceof CodedError ? error.toLine() : String(error)
    if (line !== this.#warning) process.stderr.write(`warning ${line}\n`)
    this.#warning = line
  }
}
