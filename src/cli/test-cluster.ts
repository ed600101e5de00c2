/**
 * Clusters for tests: `nfactor` as people call it, in a folder of the test's own, ended whatever happens.
 */

import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { ClusterClient } from '../process/cluster-client.ts'
import { ClusterFolder } from '../process/cluster-folder.ts'
import type { ClusterEvent } from '../process/event-log.ts'
import type { ClusterFlow, ClusterStatus } from '../process/operator.ts'

const main = fileURLToPath(new URL('./main.ts', import.meta.url))

export interface Answer {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

export class TestCluster {
  readonly folder = mkdtempSync(join(tmpdir(), 'nfactor-cluster-'))
  readonly #environment: NodeJS.ProcessEnv
  readonly name: string
  readonly namespace: string | undefined
  readonly #exit = (): void => { this.close() }

  /** @param namespace network namespace in which `nfactor up` runs */
  constructor(name: string, namespace?: string) {
    this.name = name
    this.namespace = namespace
    const { NODE_TEST_CONTEXT: _, ...inherited } = process.env
    this.#environment = { ...inherited, NFACTOR_DIR: join(this.folder, 'run') }
    process.on('exit', this.#exit)
  }

  /** Writes a file into the test's folder; returns its path. */
  write(name: string, text: string): string {
    const path = join(this.folder, name)
    writeFileSync(path, text)
    return path
  }

  /** Calls `nfactor`. */
  call(...args: string[]): Answer {
    const [program = '', ...rest] = this.program(...args)
    const { status, stdout, stderr } = spawnSync(program, rest,
      { encoding: 'utf8', env: this.#environment, cwd: this.folder, timeout: 60_000 })
    return { status, stdout, stderr }
  }

  /** The command line of `nfactor` with these arguments. */
  program(...args: string[]): string[] {
    const inside = this.namespace !== undefined && args[0] === 'up' ? ['ip', 'netns', 'exec', this.namespace] : []
    return [...inside, process.execPath, main, ...args]
  }

  /** Calls it without standing still meanwhile. */
  async callSlowly(...args: string[]): Promise<Answer> {
    const child = spawn(process.execPath, [main, ...args], { env: this.#environment, cwd: this.folder, stdio: ['ignore', 'pipe', 'pipe'] })
    const output = { stdout: '', stderr: '' }
    for (const stream of ['stdout', 'stderr'] as const) {
      child[stream].setEncoding('utf8').on('data', (part: string) => { output[stream] += part })
    }
    const status = await new Promise<number | null>((resolve) => { child.on('close', resolve) })
    return { status, ...output }
  }

  /** `call` for this cluster; it must succeed. */
  must(command: string, ...args: string[]): string {
    const { status, stdout, stderr } = this.call(command, ...args, ...command === 'up' ? [] : ['--name', this.name])
    assert.equal(status, 0, `nfactor ${command} ${args.join(' ')}\n${stdout}${stderr}${this.#logs()}`)
    return stdout
  }

  /** What a program of the test's own needs to call `nfactor` for this cluster. */
  arguments(command: string, ...args: string[]): string[] {
    return [main, command, ...args, '--name', this.name]
  }

  get environment(): NodeJS.ProcessEnv {
    return this.#environment
  }

  get runFolder(): string {
    return join(this.folder, 'run', this.name)
  }

  /** A command to the controllers without a process in between. */
  ask<T>(method: string, params: Record<string, unknown> = {}): Promise<T> {
    return new ClusterClient(this.name, new ClusterFolder(this.runFolder)).call<T>(method, params, 40_000)
  }

  status(): Promise<ClusterStatus> {
    return this.ask<ClusterStatus>('Status')
  }

  async flows(filter: string): Promise<ClusterFlow[]> {
    return (await this.ask<{ flows: ClusterFlow[] }>('Flows', { filter })).flows
  }

  async events(): Promise<ClusterEvent[]> {
    return (await this.ask<{ events: ClusterEvent[] }>('Events')).events
  }

  /** Waits until something is so. */
  async until<T>(what: string, look: () => Promise<T | undefined | false>, patienceMs = 10_000): Promise<T> {
    for (const end = performance.now() + patienceMs; ;) {
      const found = await look()
      if (found !== undefined && found !== false) return found
      if (performance.now() > end) throw new Error(`not in ${patienceMs} ms: ${what}\n${await this.#account()}`)
      await new Promise((resolve) => { setTimeout(resolve, 20) })
    }
  }

  /** Waits until nothing is on its way between nodes: what each has sent on a link, the other end has received. */
  async untilArrived(patienceMs: number): Promise<ClusterStatus> {
    return await this.until('what was sent on links has arrived', async () => {
      const status = await this.status()
      const links = status.nodes.flatMap(({ id, status: own }) => (own?.links ?? []).map(({ peer, txFrames, rxFrames }) =>
        ({ id, peer, txFrames, rxFrames })))
      const hasArrived = links.every(({ id, peer, txFrames }) =>
        links.some((other) => other.id === peer && other.peer === id && other.rxFrames === txFrames))
      return links.length > 0 && hasArrived && status
    }, patienceMs)
  }

  async #account(): Promise<string> {
    const status = await this.status().catch(String)
    const events = (await this.events().catch(() => [])).slice(-20).map(({ event, text }) => `${event} ${text}`).join('\n')
    return `${JSON.stringify(status)}\n${events}\n${this.#logs()}`
  }

  #logs(): string {
    if (!existsSync(this.runFolder)) return ''
    return spawnSync('tail', ['-n', '5', ...readdirSync(this.runFolder).filter((name) => name.endsWith('.log'))
      .map((name) => join(this.runFolder, name))], { encoding: 'utf8' }).stdout
  }

  /** Ends what runs, and removes everything. */
  close(): void {
    process.off('exit', this.#exit)
    if (existsSync(this.runFolder)) this.call('down', '--name', this.name)
    rmSync(this.folder, { recursive: true, force: true })
  }
}
