/**
 * Container engine for tests: a `dockerd` of the test's own, with everything that it keeps in a folder of the test's own, ended whatever
 * happens. It touches neither the network nor the firewall of the machine.
 */

import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ContainerEngine } from '../container-engine.ts'

const READY_MS = 30_000
const END_MS = 15_000

/** Why such tests cannot run here; false if they can, as far as one can tell without trying. */
export function engineSkip(): string | false {
  if (process.platform !== 'linux') return 'containers need Linux'
  if (process.getuid?.() !== 0) return 'a container engine needs root'
  return spawnSync('dockerd', ['--version']).status !== 0 && 'dockerd is not installed (scripts/install-debian.sh container)'
}

export class TestEngine {
  readonly folder = mkdtempSync(join(tmpdir(), 'nfactor-engine-'))
  readonly engine = new ContainerEngine(join(this.folder, 'engine.sock'))
  readonly #daemon: ChildProcess
  readonly #exit = (): void => { this.#cleanUp() }
  #hasEnded = false

  /** @param before what stands before the engine's command */
  private constructor(driver: string, before: readonly string[]) {
    const output = openSync(join(this.folder, 'log'), 'w')
    const [program, ...args] = [...before, 'dockerd', '--host', `unix://${this.engine.socket}`, '--data-root', join(this.folder, 'data'),
      '--exec-root', join(this.folder, 'exec'), '--pidfile', join(this.folder, 'pid'), '--storage-driver', driver,
      '--bridge=none', '--iptables=false', '--ip-forward=false']
    this.#daemon = spawn(program, args, { stdio: ['ignore', output, output] })
    closeSync(output)
    this.#daemon.on('exit', () => { this.#hasEnded = true })
    this.#daemon.on('error', () => { this.#hasEnded = true })
    process.on('exit', this.#exit)
  }

  /** Starts an engine; an error with the end of its log where it cannot be. */
  static async start(before: readonly string[] = []): Promise<TestEngine> {
    const problems: string[] = []
    // The quick way to keep layers needs a file system of the right kind.
    for (const driver of ['overlay2', 'vfs']) {
      const engine = new TestEngine(driver, before)
      for (const end = performance.now() + READY_MS; performance.now() < end && !engine.#hasEnded;) {
        if (await engine.engine.check().then(() => true, () => false)) return engine
        await sleep()
      }
      problems.push(`${driver}: ${readFileSync(join(engine.folder, 'log'), 'utf8').trim().split('\n').at(-1)}`)
      await engine.close()
    }
    throw new Error(`dockerd does not start here: ${problems.join('; ')}`)
  }

  async close(): Promise<void> {
    this.#daemon.kill('SIGTERM')
    for (const end = performance.now() + END_MS; performance.now() < end && !this.#hasEnded;) await sleep()
    process.off('exit', this.#exit)
    this.#cleanUp()
  }

  #cleanUp(): void {
    if (!this.#hasEnded) this.#daemon.kill('SIGKILL')
    try {
      process.kill(Number(readFileSync(join(this.folder, 'exec', 'containerd', 'containerd.pid'), 'utf8')), 'SIGKILL')
    } catch {
      // It has ended with the engine.
    }
    for (const [, path] of readFileSync('/proc/self/mounts', 'utf8').matchAll(/^\S+ (\S+)/gm)) {
      if (path.startsWith(`${this.folder}/`)) spawnSync('umount', ['-l', path])
    }
    rmSync(this.folder, { recursive: true, force: true })
  }
}

function sleep(): Promise<void> {
  return new Promise((next) => { setTimeout(next, 20) })
}
