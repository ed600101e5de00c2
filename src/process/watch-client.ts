/**
 * Watch client: begins captures or traces at nodes of a cluster, takes what they have seen until it is enough, and ends them. It speaks to
 * the nodes themselves, so that copies of packets do not go through the controllers; to those on other machines through a controller, which
 * has a connection to their agent.
 */

import { CodedError } from '../base/coded-error.ts'
import type { ClusterClient } from './cluster-client.ts'
import { LineRpcClient, type RpcParams } from './line-rpc.ts'
import { nearestName } from './nearest-name.ts'
import type { NodeClient } from './node-connections.ts'
import type { ClusterStatus, NodeOfCluster } from './operator.ts'

/** Between two looks at a node. */
const POLL_MS = 50

export interface StartedWatch {
  readonly node: NodeOfCluster
  readonly ports: readonly { readonly kind: string, readonly peer: number }[]
  /** Set once the node is gone, or has nothing more to say. */
  isOver: boolean
}

interface Started extends StartedWatch {
  readonly watch: number
  readonly client: Pick<NodeClient, 'call' | 'close'>
}

export class WatchClient {
  readonly nodes: readonly NodeOfCluster[]
  readonly #cluster: ClusterClient
  /** Name of the machine that we are on; empty where there is but one. */
  readonly #machine: string
  readonly #started: Started[] = []

  private constructor(cluster: ClusterClient, { nodes, machines }: ClusterStatus) {
    this.#cluster = cluster
    this.nodes = nodes
    this.#machine = machines[0]?.name ?? ''
  }

  static async open(cluster: ClusterClient): Promise<WatchClient> {
    return new WatchClient(cluster, await cluster.status())
  }

  /** @throws CodedError `NF_CLUSTER` for a node that there is not */
  nodeNamed(wanted: string): NodeOfCluster {
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

  async start(node: NodeOfCluster, params: RpcParams): Promise<StartedWatch> {
    const client = node.machine === this.#machine ? await LineRpcClient.connect(this.#cluster.folder.nodeSocket(node.id))
      : this.#throughController(node)
    try {
      const started = { node, client, isOver: false, ...await client.call<Pick<Started, 'watch' | 'ports'>>('StartWatch', params) }
      this.#started.push(started)
      return started
    } catch (error) {
      client.close()
      throw error
    }
  }

  #throughController({ id }: NodeOfCluster): Started['client'] {
    return {
      call: (method, params, timeoutMs) => this.#cluster.call('Watch', { node: id, method, params }, timeoutMs),
      close: () => undefined,
    }
  }

  /** Takes from all nodes until `take` says that it is enough, the time is over, the caller aborts, or no node has more. */
  async run<T extends { readonly isOver: boolean }>(seconds: number, signal: AbortSignal,
      take: (watch: StartedWatch, taken: T) => void, isEnough: () => boolean): Promise<void> {
    const end = performance.now() + seconds * 1000
    for (let isLast = false; !isLast;) {
      await new Promise((resolve) => { setTimeout(resolve, Math.max(0, Math.min(POLL_MS, end - performance.now()))) })
      isLast = performance.now() >= end || signal.aborted
      await Promise.all(this.#started.map(async (started) => {
        if (started.isOver) return
        const taken = await started.client.call<T>('TakeWatch', { watch: started.watch }).catch((error: unknown) => {
          // A node may die while it is watched: the others go on.
          if (error instanceof CodedError && (error.code === 'NF_NODE_GONE' || error.code === 'NF_CLUSTER')) return undefined
          throw error
        })
        started.isOver = taken?.isOver ?? true
        if (taken !== undefined) take(started, taken)
      }))
      if (isEnough() || this.#started.every(({ isOver }) => isOver)) return
    }
  }

  async close(): Promise<void> {
    await Promise.all(this.#started.map(async ({ client, watch }) => {
      await client.call('StopWatch', { watch }).catch(() => undefined)
      client.close()
    }))
  }
}
