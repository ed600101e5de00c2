/**
 * An etcd cluster of its own for a test: members on loopback ports, data in a folder that goes with it.
 */

import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { mkdtempSync, openSync, closeSync, readFileSync, rmSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { EtcdStore, type EtcdStoreOptions } from '../etcd-store.ts'

const hasEtcd = spawnSync('etcd', ['--version']).status === 0

/** Why tests with etcd are left out; false: they are not. */
export const noEtcd = hasEtcd ? false : 'etcd is not installed (apt-get install etcd-server)'

interface Member {
  readonly args: readonly string[]
  readonly endpoint: string
  readonly log: string
  process?: ChildProcess
}

export interface EtcdServersOptions {
  readonly members?: number
  readonly args?: readonly string[]
  /** It waits for the disk, as in earnest. */
  readonly isDurable?: boolean
  /** How to reach it, besides endpoints; `https` if there is TLS. */
  readonly access?: Omit<EtcdStoreOptions, 'endpoints'>
}

export class EtcdServers {
  readonly #members: readonly Member[]
  readonly #folder: string
  readonly #access: Omit<EtcdStoreOptions, 'endpoints'>

  private constructor(members: readonly Member[], folder: string, access: Omit<EtcdStoreOptions, 'endpoints'>) {
    this.#members = members
    this.#folder = folder
    this.#access = access
  }

  /** Started, and ready to serve. */
  static async start({ members: count = 1, args = [], isDurable = false, access = {} }: EtcdServersOptions = {}): Promise<EtcdServers> {
    const folder = mkdtempSync(join(tmpdir(), 'nfactor-etcd-'))
    const ports = await freePorts(2 * count)
    const peer = (index: number): string => `http://127.0.0.1:${ports[2 * index + 1]}`
    const initial = Array.from({ length: count }, (_, index) => `m${index}=${peer(index)}`).join(',')
    const members = Array.from({ length: count }, (_, index): Member => {
      const endpoint = `${access.tls === undefined ? 'http' : 'https'}://127.0.0.1:${ports[2 * index]}`
      return {
        endpoint, log: join(folder, `m${index}.log`),
        args: ['--name', `m${index}`, '--data-dir', join(folder, `m${index}`), '--listen-client-urls', endpoint,
          '--advertise-client-urls', endpoint, '--listen-peer-urls', peer(index), '--initial-advertise-peer-urls', peer(index),
          '--initial-cluster', initial, ...isDurable ? [] : ['--unsafe-no-fsync'], ...args],
      }
    })
    const servers = new EtcdServers(members, folder, access)
    try {
      for (const index of members.keys()) servers.run(index)
      await servers.ready()
      return servers
    } catch (error) {
      await servers.close()
      throw error
    }
  }

  get endpoints(): string[] {
    return this.#members.map(({ endpoint }) => endpoint)
  }

  run(index: number): void {
    const member = this.#members[index] as Member
    const log = openSync(member.log, 'a')
    member.process = spawn('etcd', member.args, { stdio: ['ignore', log, log] })
    closeSync(log)
  }

  async ready(): Promise<void> {
    for (const { endpoint, log } of this.#members) {
      try {
        await (await EtcdStore.open({ ...this.#access, endpoints: [endpoint], openMs: 20_000 })).close()
      } catch (error) {
        throw new Error(`etcd does not start: ${readFileSync(log, 'utf8').slice(-2000)}`, { cause: error })
      }
    }
  }

  signal(index: number, signal: NodeJS.Signals): void {
    this.#members[index]?.process?.kill(signal)
  }

  async kill(index: number): Promise<void> {
    const process = this.#members[index]?.process
    if (process === undefined || process.exitCode !== null || process.signalCode !== null) return
    const exited = new Promise((resolve) => process.once('exit', resolve))
    process.kill('SIGKILL')
    await exited
  }

  async close(): Promise<void> {
    for (const index of this.#members.keys()) await this.kill(index)
    rmSync(this.#folder, { recursive: true, force: true })
  }
}

/** Free a moment ago, each another. */
export async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(Array.from({ length: count }, () => new Promise<ReturnType<typeof createServer>>((resolve) => {
    const server = createServer()
    server.listen(0, '127.0.0.1', () => { resolve(server) })
  })))
  const ports = servers.map((server) => (server.address() as AddressInfo).port)
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))))
  return ports
}

/** A call that no store makes. */
export async function callEtcd(endpoint: string, path: string, body: unknown): Promise<unknown> {
  const response = await fetch(new URL(path, endpoint), { method: 'POST', body: JSON.stringify(body) })
  if (!response.ok) throw new Error(`${path}: ${await response.text()}`)
  return response.json()
}

