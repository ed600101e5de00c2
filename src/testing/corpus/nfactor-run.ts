/**
 * Runs `nfactor run` on a capture in a process of its own, and reads what it says.
 *
 * Every run has its own temporary folder for the output files, which is gone afterwards, and a time limit, after which
 * the process is killed and the run counts as failed.
 */

import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { decodeCapture, type CapturedFrame } from './capture-frames.ts'
import { parseRunOutput, type RunOutput } from './run-output.ts'

/** One run, as a test asks for it. */
export interface RunOrder {
  /** Path of the capture file. */
  readonly capture: string
  /** Also take what leaves the chain, as frames. */
  readonly wantsFrames?: boolean
}

/** A run's outputs; `frames` when they were asked for. */
export interface RunResult extends RunOutput {
  readonly frames: readonly CapturedFrame[]
}

/** Performs a run: through the command line here, or in any other way that gives the same outputs. */
export type Runner = (order: RunOrder) => Promise<RunResult>

const CHAIN = 'monitor,firewall,http'
const TIMEOUT_MS = 30_000
const commandPath = fileURLToPath(new URL('../../cli/main.ts', import.meta.url))

/** A reason to skip a test that needs the command, or false when it is there. */
export function commandMissing(): string | false {
  return existsSync(commandPath) ? false : 'src/cli/main.ts does not exist: nothing to run captures with'
}

/**
 * Runs captures through the command line.
 *
 * @param path the command's main module
 * @param timeoutMs how long one run may take
 */
export function commandRunner(path = commandPath, timeoutMs = TIMEOUT_MS): Runner {
  return async order => {
    const folder = await mkdtemp(join(tmpdir(), 'nfactor-corpus-'))
    try {
      const flowsPath = join(folder, 'flows.jsonl')
      const eventsPath = join(folder, 'events.jsonl')
      const framesPath = join(folder, 'out.pcap')
      const document = await runNode(timeoutMs, [
        path, 'run', order.capture, '--chain', CHAIN, '--json', '--flows', flowsPath, '--events', eventsPath,
        ...(order.wantsFrames === true ? ['--out', framesPath] : []),
      ])
      const output = parseRunOutput(document, await readFile(flowsPath, 'utf8'), await readFile(eventsPath, 'utf8'))
      const frames = order.wantsFrames === true ? decodeCapture(await readFile(framesPath)) : []
      return { ...output, frames }
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  }
}

/** What the command prints; rejects when it fails or is killed. */
function runNode(timeoutMs: number, args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'], timeout: timeoutMs })
    const output: Buffer[] = []
    const complaints: Buffer[] = []
    child.stdout.on('data', (data: Buffer) => output.push(data))
    child.stderr.on('data', (data: Buffer) => complaints.push(data))
    child.on('error', reject)
    child.on('close', (code, signal) => {
      const complaint = Buffer.concat(complaints).toString('utf8')
      if (code === 0) resolve(Buffer.concat(output).toString('utf8'))
      else reject(new Error(`nfactor run ended with ${signal ?? `exit status ${code}`}: ${complaint.slice(0, 2000)}`))
    })
  })
}
