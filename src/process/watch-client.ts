/**
 * Watch client: begins captures or traces at nodes of a cluster, takes what they have seen until it is enough, and ends them. It speaks to
 * the nodes themselves, so that copies of packets do not go through the controllers; to those on other machines through a controller, which
 * has a connection to their agent.
 */

import { CodedError } from '../base/coded-error.ts'
import type { ClusterClient } from './cluster-client.ts'
import type { ClusterFolder } from './cluster-folder.ts'
import { LineRpcClient, type RpcParams } from './line-rpc.ts'
import { monotonicUs } from './monotonic-clock.ts'
import { nearestName } from './nearest-name.ts'
import type { NodeClient } from './node-connections.ts'

/** Between two looks at a node. */
const POLL_MS = 50
/** A node that takes longer is watched no more: the others, which are asked with it, forget who does not ask them for five seconds. */
const TAKE_MS = 2_000
const STOP_MS = 500

export interface WatchableNode {
  readonly kind: string
  readonly id: number
  readonly name: string
  /** Name of its machine; empty where there is but one. */
  readonly machine: string
  /** It has begun, as far as is known. */
  readonly isReady: boolean
}

/** What one look at all nodes has brought; undefined from one that is gone. */
export interface WatchRound<T> {
  /** When it began, by the monotonic clock. */
  readonly begunUs: number
  readonly taken: readonly { readonly watch: StartedWatch, readonly taken: T | undefined }[]
  readonly isLast: boolean
}

export interface StartedWatch {
  readonly node: WatchableNode
  readonly ports: readonly { readonly kind: string, readonly peer: number }[]
  /** Set once the node is gone, or has nothing more to say. */
  isOver: boolean
}

interface Started extends StartedWatch {
  readonly watch: number
  readonly client: Pick<NodeClient, 'call' | 'close'>
}

export class WatchClient {
  readonly nodes: readonly WatchableNode[]
  readonly #folder: ClusterFolder
  /** Whom to ask for nodes on other machines. */
  readonly #cluster: ClusterClient | undefined
  /** Name of the machine that we are on; empty where there is but one. */
  readonly #machine: string
  readonly #started: Started[] = []

  private constructor(folder: ClusterFolder, nodes: readonly WatchableNode[], machine = '', cluster?: ClusterClient) {
    this.#folder = folder
    this.#machine = machine
    this.#cluster = cluster
    this.nodes = nodes
  }

  /** For all nodes of a cluster, as its controllers know them. */
  static async open(cluster: ClusterClient): Promise<WatchClient> {
    const { nodes, machines } = await cluster.status()
    return new WatchClient(cluster.folder, nodes.map(({ kind, id, name, machine, state }) =>
      ({ kind, id, name, machine, isReady: state === 'ready' })), machines[0]?.name, cluster)
  }

  /** For those that live on this machine, whether there are controllers or not. */
  static among(folder: ClusterFolder): WatchClient {
    const nodes = folder.livingProcesses().filter(({ kind }) => kind === 'runtime' || kind === 'switch')
    return new WatchClient(folder, nodes.map(({ kind, id, name }) => ({ kind, id, name, machine: '', isReady: true })))
  }

  /** @throws CodedError `NF_CLUSTER` for a node that there is not */
  nodeNamed(wanted: string): WatchableNode {
    const found = this.nodes.find(({ name, id }) => name === wanted || String(id) === wanted)
    if (found !== undefined) return found
    const names = this.nodes.map(({ name }) => name)
    const near = nearestName(wanted, names)
    throw new CodedError('NF_CLUSTER', `there is no node ${JSON.stringify(wanted)}`,
      `${near === undefined ? '' : `Did you mean ${near}? `}The nodes are ${names.join(', ')}`)
  }

  nameOf(id: number): string {
    return this.nodes.find((node) => node.id === id)?.name ?? `node ${id}`
  }

  async start(node: WatchableNode, params: RpcParams): Promise<StartedWatch> {
    const client = node.machine === this.#machine || this.#cluster === undefined
      ? await LineRpcClient.connect(this.#folder.nodeSocket(node.id)) : throughController(this.#cluster, node.id)
    try {
      const started = { node, client, isOver: false, ...await client.call<Pick<Started, 'watch' | 'ports'>>('StartWatch', params) }
      this.#started.push(started)
      return started
    } catch (error) {
      client.close()
      throw error
    }
  }

  /** Takes from all nodes until `take` says that it is enough, the time is over, the caller aborts, or no node has more. */
  async run<T extends { readonly isOver: boolean }>(seconds: number, signal: AbortSignal,
      take: (watch: StartedWatch, taken: T) => void, isEnough: () => boolean): Promise<void> {
    for await (const round of this.rounds<T>(seconds, signal)) {
      for (const { watch, taken } of round.taken) if (taken !== undefined) take(watch, taken)
      if (isEnough()) return
    }
  }

  /** Takes from all nodes, again and again, until the time is over, the caller aborts, or no node has more. */
  async *rounds<T extends { readonly isOver: boolean }>(seconds: number, signal: AbortSignal): AsyncGenerator<WatchRound<T>> {
    const end = performance.now() + seconds * 1000
    for (let isLast = false; !isLast;) {
      await new Promise((resolve) => { setTimeout(resolve, Math.max(0, Math.min(POLL_MS, end - performance.now()))) })
      const begunUs = monotonicUs()
      const open = this.#started.filter(({ isOver }) => !isOver)
      const taken = await Promise.all(open.map(async (started) => {
        const taken = await started.client.call<T>('TakeWatch', { watch: started.watch }, TAKE_MS).catch((error: unknown) => {
          // A node may die, or be stopped, while it is watched: the others go on.
          if (error instanceof CodedError && (error.code === 'NF_NODE_GONE' || error.code === 'NF_CLUSTER')) return undefined
          throw error
        })
        started.isOver = taken?.isOver ?? true
        return { watch: started, taken }
      }))
      isLast = performance.now() >= end || signal.aborted || this.#started.every(({ isOver }) => isOver)
      yield { begunUs, taken, isLast }
    }
  }

  async close(): Promise<void> {
    await Promise.all(this.#started.map(async ({ client, watch }) => {
      await client.call('StopWatch', { watch }, STOP_MS).catch(() => undefined)
      client.close()
    }))
  }
}

function throughController(cluster: ClusterClient, id: number): Started['client'] {
  return {
    call: (method, params, timeoutMs) => cluster.call('Watch', { node: id, method, params }, timeoutMs),
    close: () => undefined,
  }
}
