/**
 * `nfactor up` and `nfactor down`: a cluster of processes on this machine, from one file.
 */

import { spawn } from 'node:child_process'
import { closeSync, openSync, readFileSync, rmSync } from 'node:fs'
import { resolve } from 'node:path'
import { CodedError } from '../base/coded-error.ts'
import { readCluster, type ClusterSpec } from '../process/cluster-file.ts'
import { ClusterFolder } from '../process/cluster-folder.ts'
import { childEnvironment, programArguments } from '../process/node-launcher.ts'
import { ClusterClient } from '../process/cluster-client.ts'
import { callOnce } from '../process/line-rpc.ts'
import type { ClusterStatus } from '../process/operator.ts'
import { endCluster, lockOf, printedError, runCluster } from '../process/supervisor.ts'
import { ExitStatus } from './exit-status.ts'

export interface UpCommandOptions {
  readonly name?: string
  readonly runtimes?: number
  readonly set?: readonly string[]
  readonly detach?: boolean
  readonly json?: boolean
}

/** Longer than a supervisor waits, with an image that it may have to make before. */
const READY_MS = 120_000

export async function upCommand(file: string | undefined, options: UpCommandOptions): Promise<number> {
  const given = await readCluster(file, options.set ?? [])
  const spec: ClusterSpec = { ...given, ...options.name !== undefined && { name: options.name },
    ...options.runtimes !== undefined && { runtimes: options.runtimes } }
  const folder = ClusterFolder.ofCluster(spec.name)
  process.umask(0o077)
  if (options.detach === true) return await detach(file, spec, folder, options)
  const stop = new AbortController()
  let status: number = ExitStatus.ok
  const signals = [['SIGINT', ExitStatus.interrupted], ['SIGTERM', ExitStatus.terminated], ['SIGHUP', ExitStatus.terminated]] as const
  for (const [signal, code] of signals) {
    process.on(signal, () => {
      status = code
      stop.abort()
    })
  }
  const began = performance.now()
  await runCluster({
    spec, folder, signal: stop.signal,
    onReady: (client) => {
      const ms = performance.now() - began
      client.status().then((report) => { print(report, ms, options.json === true, '; Ctrl-C ends it') }, (error: unknown) => {
        // It has been ready, and a controller may have died since: that is no reason to end it all.
        process.stderr.write(`warning ${error instanceof CodedError ? error.toLine() : String(error)}\n`)
      })
    },
  })
  rmSync(folder.detachedLog, { force: true })
  return status
}

function print(status: ClusterStatus, ms: number, isJson: boolean, mend: string): void {
  if (isJson) {
    process.stdout.write(`${JSON.stringify({ ...status, readyMs: Math.round(ms) })}\n`)
    return
  }
  const nodes = status.nodes.map(({ name }) => name).join(', ')
  const late = status.nodes.filter(({ state }) => state !== 'ready').map(({ name }) => name)
  const state = status.isReady ? `is ready after ${Math.round(ms)} ms` : `is taken up again, not ready (${late.join(', ') || 'controllers'})`
  process.stdout.write(`cluster ${status.name} ${state}: ${nodes} (chain ${status.chain.join(', ')})${mend}\n`)
}

/** The same in a process of its own, until that is ready. */
async function detach(file: string | undefined, spec: ClusterSpec, folder: ClusterFolder, options: UpCommandOptions): Promise<number> {
  const began = performance.now()
  // The new supervisor makes the folder anew; what it says before that, it says here.
  const log = folder.detachedLog
  // One that runs keeps its own.
  lockOf({ spec, folder }).release()
  const output = openSync(log, 'w', 0o600)
  const args = [...programArguments, 'up', ...file === undefined ? [] : [resolve(file)], '--name', spec.name,
    '--runtimes', String(spec.runtimes), ...(options.set ?? []).flatMap((one) => ['--set', one])]
  const child = spawn(process.execPath, args, { stdio: ['ignore', output, output], detached: true, env: childEnvironment() })
  closeSync(output)
  let ended: number | null | undefined
  child.on('error', () => { ended = 1 })
  child.on('exit', (code) => { ended = code })
  while (performance.now() - began < READY_MS) {
    if (ended !== undefined) {
      const said = readFileSync(log, 'utf8')
      rmSync(log, { force: true })
      throw failureOf(said)
    }
    const supervisor = await callOnce<{ pid: number, isReady: boolean }>(folder.supervisorSocket, 'Status').catch(() => undefined)
    if (supervisor?.pid === child.pid && supervisor?.isReady === true) {
      const status = await new ClusterClient(spec.name, folder).status()
      child.unref()
      const mend = `; nfactor down${spec.name === 'default' ? '' : ` --name ${spec.name}`} ends it`
      print(status, performance.now() - began, options.json === true, mend)
      return ExitStatus.ok
    }
    await new Promise((next) => { setTimeout(next, 20) })
  }
  child.kill('SIGTERM')
  throw new CodedError('NF_CLUSTER_START', `cluster ${spec.name} is not ready after ${READY_MS / 1000} s`, `See ${log}`)
}

function failureOf(log: string): CodedError {
  return printedError(log) ?? new CodedError('NF_CLUSTER_START', `the supervisor has ended: ${log.trim().split('\n').at(-1) ?? ''}`)
}

export async function downCommand(options: { readonly name: string, readonly json?: boolean }): Promise<number> {
  const { killed } = await endCluster(options.name, ClusterFolder.ofCluster(options.name))
  process.stdout.write(options.json === true ? `${JSON.stringify({ name: options.name, killed })}\n`
    : `cluster ${options.name} has ended${killed > 0 ? `; ${killed} processes had to be killed` : ''}\n`)
  return ExitStatus.ok
}
