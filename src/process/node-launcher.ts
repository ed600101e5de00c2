/**
 * Node launcher: how a supervisor starts the processes of nodes. Here as children on this machine; containers can be another one.
 */

import { spawn } from 'node:child_process'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { extname } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { NodeConfig } from './node-config.ts'

export interface LaunchedNode {
  readonly pid: number
  /** When the process has ended, and how. Never rejects. */
  readonly ended: Promise<NodeEnd>
  kill(signal: NodeJS.Signals): void
}

export interface NodeEnd {
  readonly status: number | null
  readonly signal: NodeJS.Signals | null
  /** The end of what it printed. */
  readonly lastLines: string
}

export interface NodeLauncher {
  /** @param file where the node's configuration is, @param log where its output goes */
  launch(kind: NodeConfig['kind'], file: string, log: string): LaunchedNode
}

/** The program that this process runs: TypeScript in a source tree, JavaScript in a package. */
export const programPath = fileURLToPath(new URL(`../cli/main${extname(import.meta.filename)}`, import.meta.url))

const LAST_BYTES = 8192

/** What is in the environment for a process of ours: nothing that tests put there. */
export function childEnvironment(): NodeJS.ProcessEnv {
  const { NODE_TEST_CONTEXT: _, ...environment } = process.env
  return environment
}

/** Children of this process, each a process group of its own: a terminal's Ctrl-C is for the supervisor alone. */
export const processLauncher: NodeLauncher = {
  launch(kind, file, log) {
    const output = openSync(log, 'a', 0o600)
    const child = spawn(process.execPath, [programPath, kind, file], {
      stdio: ['ignore', output, output], detached: true, env: childEnvironment(),
    })
    closeSync(output)
    const ended = new Promise<NodeEnd>((resolve) => {
      child.on('error', (error) => { resolve({ status: null, signal: null, lastLines: error.message }) })
      child.on('exit', (status, signal) => { resolve({ status, signal, lastLines: lastLinesOf(log) }) })
    })
    return {
      pid: child.pid ?? 0,
      ended,
      kill: (signal) => { child.kill(signal) },
    }
  },
}

function lastLinesOf(log: string): string {
  try {
    return readFileSync(log, 'utf8').slice(-LAST_BYTES).trim()
  } catch {
    return ''
  }
}
