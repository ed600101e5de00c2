/**
 * Cluster folder: where the processes of one cluster on this machine meet. Sockets, node files, logs; for its owner alone (mode 700,
 * files 600), and removed when the cluster ends.
 *
 *     supervisor.sock        commands of people           1.json, 1.log, 1.sock      node 1: its file, what it printed, its commands
 *     processes.json         what has been started        control-1                  node 1 on the control network
 *     events.jsonl           what has happened            link-1-11, bypass-1-2      links
 *                                                         pair-11-12                 link on the control network
 */

import { chmodSync, lstatSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir, userInfo } from 'node:os'
import { join, resolve } from 'node:path'
import { CodedError } from '../base/coded-error.ts'

/** Longest path of a socket in the folder, and what the system allows. */
const LONGEST_NAME = '/link-255-255'
const SOCKET_PATH_MAX = 107

export interface ProcessEntry {
  readonly name: string
  readonly pid: number
  /** When the process began, in the kernel's ticks since boot: with it, a pid names one process for ever. */
  readonly startTicks: number
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
    try {
      mkdirSync(this.path, { recursive: true, mode: 0o700 })
      const stats = lstatSync(this.path)
      if (!stats.isDirectory() || stats.uid !== userInfo().uid) throw new Error('it belongs to somebody else')
      chmodSync(this.path, 0o700)
    } catch (cause) {
      throw new CodedError('NF_FILE_UNWRITABLE', `the cluster's folder ${this.path} cannot be made: ${(cause as Error).message}`,
        'Name another one in the environment variable NFACTOR_DIR', { cause })
    }
  }

  clear(): void {
    rmSync(this.path, { recursive: true, force: true })
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

  get runFile(): string {
    return join(this.path, 'run.json')
  }

  /** What a supervisor prints that has no terminal: beside the folder, which it makes itself. */
  get detachedLog(): string {
    return `${this.path}.log`
  }

  nodeFile(id: number): string {
    return join(this.path, `${id}.json`)
  }

  nodeLog(id: number): string {
    return join(this.path, `${id}.log`)
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

  /** Writes a file whole or not at all. */
  write(path: string, text: string): void {
    writeFileSync(`${path}.new`, text, { mode: 0o600 })
    renameSync(`${path}.new`, path)
  }

  writeProcesses(entries: readonly ProcessEntry[]): void {
    this.write(join(this.path, 'processes.json'), `${JSON.stringify(entries)}\n`)
  }

  /** What was started by the last supervisor and is alive still. */
  livingProcesses(): ProcessEntry[] {
    try {
      const entries = JSON.parse(readFileSync(join(this.path, 'processes.json'), 'utf8')) as ProcessEntry[]
      return entries.filter(({ pid, startTicks }) => startTicksOf(pid) === startTicks)
    } catch {
      return []
    }
  }
}

/** When a process began, in ticks since boot; 0 if there is none. */
export function startTicksOf(pid: number): number {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
    // The name of the program, in parentheses, may hold anything.
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
    return fields[0] === 'Z' ? 0 : Number(fields[19])
  } catch {
    return 0
  }
}
