/**
 * Cluster folder: where the processes of one cluster on this machine meet. Sockets, node files, logs; for its owner alone (mode 700,
 * files 600), and removed when the cluster ends.
 *
 *     supervisor.sock        whoever holds the cluster    1.json, 1.log, 1.sock      node 1: its file, what it printed, its commands
 *     cluster.json           what the cluster is          control-1                  node 1 on the control network
 *     run-1.json ...         versions of the chain        link-1-11, bypass-1-2      links
 *     store.db               the controllers' store       controller-1.json, .log, .sock
 *     pair-11-12             link on the control network
 *     events.jsonl           what has happened            processes/                 what has been started
 *     note-5                 what life 5 is running       quarantine-11.pcap         packets of flows that have killed a runtime
 *     token                  who shows it may call        1.api, controller-1.api    the public API of each
 */

import { chmodSync, existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir, userInfo } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { CodedError } from '../base/coded-error.ts'
import { systemClock } from '../ports/system-clock.ts'
import { fileUnwritable } from './file-unwritable.ts'

/** Longest path of a socket in the folder, and what the system allows. */
const LONGEST_NAME = '/controller-7.api.new'
const SOCKET_PATH_MAX = 107
/** Pids of Linux are below. */
const PID_LIMIT = 2 ** 22
const WRITABLE_BY_ALL = 0o002
const STICKY = 0o1000

export interface ProcessEntry {
  readonly kind: 'supervisor' | 'controller' | 'switch' | 'runtime'
  readonly id: number
  readonly name: string
  /** Of runtimes; 0 for others. */
  readonly incarnation: number
  /** Milliseconds since the Unix epoch. */
  readonly startedAt: number
  readonly pid: number
  /** When the process began, in the kernel's ticks since boot: with it, a pid names one process for ever. */
  readonly startTicks: number
  /** Numbers of the cores that it may use; all without. */
  readonly cpus?: readonly number[]
}

export class ClusterFolder {
  readonly path: string

  constructor(path: string) {
    this.path = path
  }

  /** That of a cluster by its name: in NFACTOR_DIR, else in the user's runtime folder, else in a temporary one of the user's. */
  static ofCluster(name: string): ClusterFolder {
    const { NFACTOR_DIR, XDG_RUNTIME_DIR } = process.env
    const base = NFACTOR_DIR || (XDG_RUNTIME_DIR ? join(XDG_RUNTIME_DIR, 'nfactor') : join(tmpdir(), `nfactor-${userInfo().uid}`))
    const path = resolve(base, name)
    if (Buffer.byteLength(path) + LONGEST_NAME.length > SOCKET_PATH_MAX) {
      throw new CodedError('NF_CONFIG_INVALID', `the cluster's folder ${path} has a path too long for sockets`,
        'Name a shorter one in the environment variable NFACTOR_DIR')
    }
    return new ClusterFolder(path)
  }

  /** @throws CodedError `NF_FILE_UNWRITABLE`, also for a folder that belongs to somebody else */
  create(): void {
    this.createBase()
    this.#make(() => {
      mkdirSync(this.path, { recursive: true, mode: 0o700 })
      const stats = lstatSync(this.path)
      if (!stats.isDirectory() || stats.uid !== userInfo().uid) throw new Error('it belongs to somebody else')
      chmodSync(this.path, 0o700)
    })
  }

  /**
   * Makes the folder that it is in, if there is none. One that is there may be for other things too, and stays as it is; but who could put
   * another folder in the place of ours would have the sockets and the token.
   *
   * @throws CodedError `NF_FILE_UNWRITABLE`
   */
  createBase(): void {
    this.#make(() => {
      const base = dirname(this.path)
      mkdirSync(base, { recursive: true, mode: 0o700 })
      const { uid, mode } = statSync(base)
      if (uid !== userInfo().uid && uid !== 0) throw new Error(`${base} belongs to somebody else`)
      if ((mode & WRITABLE_BY_ALL) !== 0 && (mode & STICKY) === 0) throw new Error(`anybody can change what is in ${base}`)
    })
  }

  #make(act: () => void): void {
    try {
      act()
    } catch (cause) {
      throw new CodedError('NF_FILE_UNWRITABLE', `the cluster's folder ${this.path} cannot be made: ${(cause as Error).message}`,
        'Name another one in the environment variable NFACTOR_DIR', { cause })
    }
  }

  clear(): void {
    rmSync(this.path, { recursive: true, force: true })
  }

  /** It, or what is beside it. */
  get isThere(): boolean {
    return [this.path, this.detachedLog, this.lockFile].some((path) => existsSync(path))
  }

  /** Removes everything in it but one file. */
  clearBut(path: string): void {
    const others = this.#namesIn(this.path).map((name) => join(this.path, name)).filter((one) => one !== path)
    for (const one of others) rmSync(one, { recursive: true, force: true })
  }

  /** With what a supervisor without terminal has printed. */
  remove(): void {
    this.clear()
    rmSync(this.detachedLog, { force: true })
  }

  get supervisorSocket(): string {
    return join(this.path, 'supervisor.sock')
  }

  get eventsFile(): string {
    return join(this.path, 'events.jsonl')
  }

  get clusterFile(): string {
    return join(this.path, 'cluster.json')
  }

  get storeFile(): string {
    return join(this.path, 'store.db')
  }

  /** The highest term in which processes were started or ended. */
  get termFile(): string {
    return join(this.path, 'term')
  }

  get #processes(): string {
    return join(this.path, 'processes')
  }

  /** What runtimes run, by version of the chain. */
  runFile(version: number): string {
    return join(this.path, `run-${version}.json`)
  }

  controllerFile(id: number): string {
    return join(this.path, `controller-${id}.json`)
  }

  controllerLog(id: number): string {
    return join(this.path, `controller-${id}.log`)
  }

  controllerSocket(id: number): string {
    return join(this.path, `controller-${id}.sock`)
  }

  controllerApi(id: number): string {
    return join(this.path, `controller-${id}.api`)
  }

  /** Where a controller's door hands on who has come by TCP. */
  controllerTcp(id: number): string {
    return join(this.path, `controller-${id}.tcp`)
  }

  nodeApi(id: number): string {
    return join(this.path, `${id}.api`)
  }

  get tokenFile(): string {
    return join(this.path, 'token')
  }

  /** Nodes that have, or had, a socket for commands. */
  nodeIds(): number[] {
    return this.#namesIn(this.path).flatMap((name) => /^(\d+)\.sock$/.exec(name)?.[1] ?? []).map(Number)
  }

  /** Controllers that were ever started. */
  controllerIds(): number[] {
    return this.#namesIn(this.path).flatMap((name) => /^controller-(\d+)\.json$/.exec(name)?.[1] ?? []).map(Number)
  }

  #namesIn(path: string): string[] {
    try {
      return readdirSync(path)
    } catch {
      return []
    }
  }

  /** What a supervisor prints that has no terminal: beside the folder, which it makes itself. */
  get detachedLog(): string {
    return `${this.path}.log`
  }

  /** Whose holder may make and remove the folder: beside it, for that. */
  get lockFile(): string {
    return `${this.path}.lock`
  }

  nodeFile(id: number): string {
    return join(this.path, `${id}.json`)
  }

  nodeLog(id: number): string {
    return join(this.path, `${id}.log`)
  }

  /** What a life of a runtime is running at this moment. */
  noteFile(incarnation: number): string {
    return join(this.path, `note-${incarnation}`)
  }

  /** Packets of quarantined flows. */
  quarantineFile(id: number): string {
    return join(this.path, `quarantine-${id}.pcap`)
  }

  nodeSocket(id: number): string {
    return join(this.path, `${id}.sock`)
  }

  linkSocket(switchId: number, runtime: number): string {
    return join(this.path, `link-${switchId}-${runtime}`)
  }

  /** A link of the control network between two nodes that talk much. */
  controlLinkSocket(one: number, other: number): string {
    return join(this.path, `pair-${Math.min(one, other)}-${Math.max(one, other)}`)
  }

  bypassSocket(one: number, other: number): string {
    return join(this.path, `bypass-${Math.min(one, other)}-${Math.max(one, other)}`)
  }

  /**
   * Writes a file whole or not at all, whoever else writes it.
   *
   * @throws CodedError `NF_FILE_UNWRITABLE`
   */
  write(path: string, text: string): void {
    const beside = `${path}.${process.pid}.new`
    try {
      writeFileSync(beside, text, { mode: 0o600 })
      renameSync(beside, path)
    } catch (error) {
      rmSync(beside, { force: true })
      throw fileUnwritable(path, error)
    }
  }

  /**
   * Claims the start of one life for the caller: false if somebody has claimed it before, or a later life of the same node. What is written
   * then names the process. What is noted of former lives that are over goes: a cluster may run for years.
   */
  claimLife(name: string, incarnation: number): boolean {
    const fileOf = (life: number): string => join(this.#processes, `${name}-${life}.json`)
    const former = this.#namesIn(this.#processes).filter((one) => one.startsWith(`${name}-`))
      .flatMap((one) => /^(\d+)\.json$/.exec(one.slice(name.length + 1))?.[1] ?? []).map(Number)
    if (former.some((life) => life >= incarnation)) return false
    try {
      mkdirSync(this.#processes, { recursive: true, mode: 0o700 })
      writeFileSync(fileOf(incarnation), '', { flag: 'wx', mode: 0o600 })
    } catch {
      return false
    }
    for (const life of former) {
      const entry = entryIn(fileOf(life))
      // One that has only been claimed is being started, or nobody ever will.
      if (entry !== undefined && !isRunning(entry)) rmSync(fileOf(life), { force: true })
    }
    return true
  }

  /**
   * Notes a process that has been started; one of the same name and incarnation is over.
   *
   * @throws CodedError `NF_FILE_UNWRITABLE`
   */
  noteProcess(entry: ProcessEntry): void {
    mkdirSync(this.#processes, { recursive: true, mode: 0o700 })
    this.write(join(this.#processes, `${entry.name}-${entry.incarnation}.json`), `${JSON.stringify(entry)}\n`)
  }

  /** All that was started for this cluster, whoever did, and is alive. */
  livingProcesses(): ProcessEntry[] {
    return this.#namesIn(this.#processes).filter((name) => name.endsWith('.json'))
      .flatMap((name) => entryIn(join(this.#processes, name)) ?? []).filter(isRunning)
  }
}

/** What a file notes of a process; undefined if it was claimed, and not started yet. */
function entryIn(file: string): ProcessEntry | undefined {
  try {
    const entry = JSON.parse(readFileSync(file, 'utf8')) as ProcessEntry | null
    return Number.isInteger(entry?.pid) && Number.isInteger(entry?.startTicks) ? entry as ProcessEntry : undefined
  } catch {
    return undefined
  }
}

/** One number for the process of a node: processes of different machines may have the same pid. */
export function processKey({ id, pid }: { readonly id: number, readonly pid: number }): number {
  return id * PID_LIMIT + pid
}

/** When a process that is started now has been, by a clock that nobody sets. */
export function startTime(): number {
  return Math.round(systemClock.now() / 1000)
}

/** How long ago a process was started, ms. */
export function ageOf({ startedAt }: Pick<ProcessEntry, 'startedAt'>): number {
  // The clock may have been set since another process has noted it.
  return Math.max(0, startTime() - startedAt)
}

/** Whether a process that was noted is alive. */
export function isRunning({ pid, startTicks }: ProcessEntry): boolean {
  return startTicks !== 0 && startTicksOf(pid) === startTicks
}

/** Signals a process that was noted; false if it is not there any more. */
export function signalProcess(entry: ProcessEntry, signal: NodeJS.Signals): boolean {
  if (!isRunning(entry)) return false
  try {
    return process.kill(entry.pid, signal)
  } catch (error) {
    // It has ended since we looked.
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false
    throw error
  }
}

/** When a process began, in ticks since boot; 0 if there is none. */
export function startTicksOf(pid: number): number {
  const fields = statOf(pid)
  return fields === undefined || fields[0] === 'Z' ? 0 : Number(fields[19])
}

/** True for a process that a signal or a debugger has stopped: it does nothing until it is let go on. */
export function isStopped({ pid, startTicks }: ProcessEntry): boolean {
  const fields = statOf(pid)
  return fields !== undefined && Number(fields[19]) === startTicks && (fields[0] === 'T' || fields[0] === 't')
}

/** What the kernel says of a process, from its state on. */
function statOf(pid: number): string[] | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
    // The name of the program, in parentheses, may hold anything.
    return text.slice(text.lastIndexOf(')') + 2).split(' ')
  } catch {
    return undefined
  }
}
