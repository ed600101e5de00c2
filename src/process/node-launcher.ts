/**
 * Node launcher: how controllers and supervisors start processes. Here as children on this machine; `container-launcher.ts` is another one.
 */

import { spawn, type ChildProcess } from 'node:child_process'
import { closeSync, fstatSync, openSync, readSync, renameSync, statSync } from 'node:fs'
import { extname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { CodedError, errorCodes, type ErrorCode } from '../base/coded-error.ts'
import { HELPER_FLAGS } from './helper-threads.ts'
import type { NodeConfig } from './node-config.ts'
import { beginYielding, yieldingEnvironment } from './start-priority.ts'

export interface LaunchedNode {
  readonly pid: number
  /** When the process has ended, and how, where that is known. Never rejects. */
  readonly ended: Promise<NodeEnd | undefined>
  kill(signal: NodeJS.Signals): void
}

/** Status of a node that could not begin: its last line says why. */
export const NODE_FAILED = 1

export interface NodeEnd {
  readonly status: number | null
  readonly signal: NodeJS.Signals | null
  /** The end of what it printed. */
  readonly lastLines: string
}

export type LauncherName = 'process' | 'container'

export interface NodeLauncher {
  readonly name: LauncherName
  /**
   * Starts a node. It is there when the promise is kept; a start that fails rejects with the reason.
   *
   * @param file where the configuration of the process is
   * @param log where its output goes
   * @param yields whether nodes that work go first until it does, where processes can (start-priority.ts)
   */
  launch(kind: NodeConfig['kind'], file: string, log: string, yields?: boolean): Promise<LaunchedNode>
  /**
   * Looks for nodes that were started for this cluster and are not noted in its folder, because their launcher has died meanwhile: notes
   * them, or ends them where they have no place. To be called now and then.
   */
  sweep?(): Promise<void>
  /** Called again and again by the controller that leads, which may have to start something at any moment. */
  keepWarm?(): void
}

/** A process of ours, which is there at once. */
export interface LaunchedProcess extends LaunchedNode {
  readonly ended: Promise<NodeEnd>
}

/** The program that this process runs: TypeScript in a source tree, JavaScript in a package. */
export const programPath = fileURLToPath(new URL(`../cli/main${extname(import.meta.filename)}`, import.meta.url))

/** What Node is given to run it as a process of a cluster; command and arguments of ours follow. */
export const programArguments: readonly string[] = [...HELPER_FLAGS, programPath]

const LAST_BYTES = 8192
/** A log that is longer is put aside when the next life begins. */
const LOG_BYTES_MAX = 16 << 20

/** What processes do not get for what they have done themselves. */
export const EXTERNAL_SIGNALS: readonly NodeJS.Signals[] = ['SIGKILL', 'SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT']

/** Where Node keeps what it has compiled, so that the next process starts in half the time; where that cannot be written it does without. */
const compileCache = fileURLToPath(new URL('../../node_modules/.cache/nfactor', import.meta.url))

/** What is in the environment for a process of ours: nothing that tests put there. */
export function childEnvironment(): NodeJS.ProcessEnv {
  const { NODE_TEST_CONTEXT: _, ...environment } = process.env
  return { NODE_COMPILE_CACHE: compileCache, ...environment }
}

/** Starts a child of this process, a process group of its own: a terminal's Ctrl-C is for the supervisor alone. */
export function launchProcess(kind: NodeConfig['kind'] | 'controller', file: string, log: string, yields = false): LaunchedProcess {
  const output = openLog(log)
  const child = spawn(process.execPath, [...programArguments, kind, file], {
    stdio: ['ignore', output, output], detached: true, env: { ...childEnvironment(), ...yields && yieldingEnvironment() },
  })
  closeSync(output)
  if (yields && child.pid !== undefined) beginYielding(child.pid)
  // Whoever has started it may end without it.
  child.unref()
  return {
    pid: child.pid ?? 0,
    ended: endOf(child, () => log),
    kill: (signal) => { child.kill(signal) },
  }
}

export const processLauncher: NodeLauncher = {
  name: 'process',
  // What this throws is the promise's reason.
  launch: async (kind, file, log, yields) => launchProcess(kind, file, log, yields),
}

/** How a process of ours ends. */
export function endOf(child: ChildProcess, log: () => string): Promise<NodeEnd> {
  return new Promise((resolve) => {
    child.on('error', (error) => { resolve({ status: null, signal: null, lastLines: error.message }) })
    child.on('exit', (status, signal) => { resolve({ status, signal, lastLines: lastLinesOf(log()) }) })
  })
}

/** Opens a log, which goes on over all lives of a node; what is longer than 16 MiB becomes `.old`, in place of what was that. */
export function openLog(log: string): number {
  try {
    if (statSync(log).size > LOG_BYTES_MAX) renameSync(log, `${log}.old`)
  } catch {
    // There is none yet.
  }
  return openSync(log, 'a', 0o600)
}

/** The end of a log, which may be long: what network functions print is there, over all lives. */
export function lastLinesOf(log: string): string {
  try {
    const file = openSync(log, 'r')
    try {
      const bytes = Buffer.alloc(LAST_BYTES)
      const length = readSync(file, bytes, 0, LAST_BYTES, Math.max(0, fstatSync(file).size - LAST_BYTES))
      return bytes.toString('utf8', 0, length).trim()
    } finally {
      closeSync(file)
    }
  } catch {
    return ''
  }
}

/** What the process said before it ended, as an error of ours. */
export function startError(name: string, end: NodeEnd): CodedError {
  const line = end.lastLines.split('\n').findLast((one) => /^error NF_[A-Z_]+: /.test(one))
  const match = line === undefined ? null : /^error (NF_[A-Z_]+): (.*)$/.exec(line)
  if (match !== null && Object.hasOwn(errorCodes, match[1])) return new CodedError(match[1] as ErrorCode, `${name}: ${match[2]}`)
  const how = end.signal === null ? `with status ${end.status}` : `by ${end.signal}`
  return new CodedError('NF_CLUSTER_START', `${name} ended ${how} before it was ready: ${end.lastLines.split('\n').at(-1) ?? ''}`)
}
