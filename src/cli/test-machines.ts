/**
 * Machines for tests of clusters: namespaces that a bridge joins, each with an interface `link0`; on all but the first an agent.
 */

import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { ClusterFolder, type ProcessEntry } from '../process/cluster-folder.ts'
import type { TestNetwork } from '../ports/test-network.ts'
import type { TestCluster } from './test-cluster.ts'

interface Machine {
  readonly name: string
  readonly namespace: string
  readonly folder: ClusterFolder
  agent: ChildProcess | undefined
}

const NAMES = ['one', 'two', 'three']
const READY_MS = 30_000

export class TestMachines {
  readonly #network: TestNetwork
  readonly #cluster: TestCluster
  readonly #hub: string
  readonly #machines: Machine[]

  /** @param first namespace of the first machine, where `nfactor up` is to run */
  constructor(network: TestNetwork, cluster: TestCluster, clusterName: string, first: string, count = 2) {
    this.#network = network
    this.#cluster = cluster
    this.#hub = network.addNamespace()
    network.run(this.#hub, 'ip', 'link', 'add', 'bridge', 'type', 'bridge')
    network.run(this.#hub, 'ip', 'link', 'set', 'bridge', 'up')
    cluster.write('token.txt', randomBytes(32).toString('hex'))
    this.#machines = NAMES.slice(0, count).map((name, index) => {
      const namespace = index === 0 ? first : network.addNamespace()
      const folder = new ClusterFolder(join(cluster.folder, name, `${clusterName}.machine`))
      cluster.write(`${name}.yaml`, `{ cluster: ${clusterName}, host: ${addressOf(index)}, clear: true, token: token.txt }`)
      return { name, namespace, folder, agent: undefined }
    })
    for (const index of this.#machines.keys()) this.plug(index)
  }

  /** Lines of the cluster file. */
  lines(runtimes: readonly number[] = []): string {
    const machines = this.#machines.map(({ name }, index) => `  - { name: ${name}, interface: link0${runtimes[index] === undefined ? ''
      : `, runtimes: ${runtimes[index]}`}${index === 0 ? '' : `, agent: { host: ${addressOf(index)}, clear: true }`} }`)
    return ['token: token.txt', 'machines:', ...machines].join('\n')
  }

  /** Joins a machine to the bridge. */
  plug(index: number): void {
    const { name, namespace } = this.#machines[index] as Machine
    this.#network.addVeth(namespace, 'link0', this.#hub, name)
    this.#network.run(this.#hub, 'ip', 'link', 'set', name, 'master', 'bridge')
    this.#network.addAddresses(namespace, 'link0', `${addressOf(index)}/24`)
  }

  /** Starts the agent of a machine, and waits until it listens. */
  async start(index: number): Promise<void> {
    const machine = this.#machines[index] as Machine
    const [, ...program] = this.#cluster.program('machine', join(this.#cluster.folder, `${machine.name}.yaml`))
    const child = spawn('ip', ['netns', 'exec', machine.namespace, process.execPath, ...program], {
      env: { ...this.#cluster.environment, NFACTOR_DIR: join(this.#cluster.folder, machine.name) }, stdio: ['ignore', 'pipe', 'inherit'] })
    machine.agent = child
    const late = setTimeout(() => { child.kill('SIGKILL') }, READY_MS)
    try {
      const ended = once(child, 'exit').then(() => { throw new Error(`the agent of ${machine.name} has ended`) })
      await Promise.race([once(child.stdout, 'data'), ended])
      ended.catch(() => undefined)
    } finally {
      clearTimeout(late)
    }
  }

  /** The processes of a machine's nodes. */
  processes(index: number): ProcessEntry[] {
    return (this.#machines[index] as Machine).folder.livingProcesses()
  }

  /** The agent alone dies; the nodes that it has started go on. */
  killAgent(index: number): void {
    this.#machines[index]?.agent?.kill('SIGKILL')
  }

  /** Takes a machine's cable out of the bridge, or puts it in again. */
  setCable(index: number, isIn: boolean): void {
    this.#network.run(this.#hub, 'ip', 'link', 'set', (this.#machines[index] as Machine).name, isIn ? 'up' : 'down')
  }

  /** The machine is gone: its agent, its nodes, its place at the bridge. */
  lose(index: number): void {
    const { agent, name } = this.#machines[index] as Machine
    for (const { pid } of this.processes(index)) process.kill(pid, 'SIGKILL')
    agent?.kill('SIGKILL')
    this.#network.run(this.#hub, 'ip', 'link', 'del', name)
  }

  close(): void {
    for (const [index, { agent }] of this.#machines.entries()) {
      agent?.kill('SIGKILL')
      for (const { pid } of this.processes(index)) process.kill(pid, 'SIGKILL')
    }
  }
}

function addressOf(index: number): string {
  return `10.78.0.${index + 1}`
}
