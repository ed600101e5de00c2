/**
 * Cluster client: commands to a running cluster, from whoever is on the same machine. It asks one controller after another until one leads,
 * and waits a little for one that is being elected. One that does not answer at once, because it is stopped or hangs, does not get the
 * command: nobody could say later whether it will carry it out.
 */

import { CodedError } from '../base/coded-error.ts'
import type { ClusterFolder } from './cluster-folder.ts'
import type { ClusterEvent } from './event-log.ts'
import { LineRpcClient, type RpcParams } from './line-rpc.ts'
import type { ClusterFlow, ClusterStatus, DrainResult, UpdateResult } from './operator.ts'

/** A cluster in which nobody leads is asked again for so long: a leader's lease may have to end first. */
const ELECTION_MS = 8_000
const RETRY_MS = 50
/** A controller that takes longer to say that it is there is passed over. */
const ANSWER_MS = 1_000
const DRAIN_CALL_MS = 40_000
const UPDATE_CALL_MS = 700_000

export class ClusterClient {
  readonly name: string
  readonly folder: ClusterFolder

  constructor(name: string, folder: ClusterFolder) {
    this.name = name
    this.folder = folder
  }

  status(): Promise<ClusterStatus> {
    return this.call<ClusterStatus>('Status')
  }

  flows(filter = '', limit = 1000, state = false, node?: string): Promise<{ total: number, flows: ClusterFlow[] }> {
    return this.call('Flows', { filter, limit, state, node })
  }

  migrate(from: string | number, to: string | number, number?: number): Promise<{ from: string, to: string, number: number }> {
    return this.call('Migrate', { from, to, number })
  }

  drain(node: string, on = true, remove = false): Promise<DrainResult> {
    return this.call<DrainResult>('Drain', { node, on, remove }, DRAIN_CALL_MS)
  }

  scale(runtimes: number | 'auto'): Promise<{ desired: number, isAutomatic: boolean }> {
    return this.call('Scale', runtimes === 'auto' ? { isAutomatic: true } : { runtimes })
  }

  update(params: RpcParams): Promise<UpdateResult> {
    return this.call<UpdateResult>('Update', params, UPDATE_CALL_MS)
  }

  kill(node: string, signal = 'SIGKILL'): Promise<{ node: string, pid: number, signal: string }> {
    return this.call('Kill', { node, signal })
  }

  async events(after = 0): Promise<ClusterEvent[]> {
    return (await this.call<{ events: ClusterEvent[] }>('Events', { after })).events
  }

  /** @throws CodedError `NF_CLUSTER_NOT_RUNNING`, or what the leading controller says */
  async call<T>(method: string, params: RpcParams = {}, timeoutMs?: number): Promise<T> {
    for (const end = performance.now() + ELECTION_MS; ;) {
      let last: CodedError | undefined
      for (const id of this.folder.controllerIds()) {
        try {
          return await this.#callOne<T>(id, method, params, timeoutMs)
        } catch (error) {
          if (!isElsewhere(error)) throw error
          last = error
        }
      }
      const living = this.folder.livingProcesses()
      if (!living.some(({ kind }) => kind === 'controller' || kind === 'supervisor')) throw notRunning(this.name, living.length)
      if (performance.now() > end) throw last ?? new CodedError('NF_CLUSTER', `no controller of cluster ${this.name} answers`, 'See its logs')
      await new Promise((resolve) => { setTimeout(resolve, RETRY_MS) })
    }
  }

  async #callOne<T>(id: number, method: string, params: RpcParams, timeoutMs: number | undefined): Promise<T> {
    const client = await LineRpcClient.connect(this.folder.controllerSocket(id))
    try {
      await client.call('Leader', {}, ANSWER_MS).catch((cause: unknown) => {
        throw new CodedError('NF_NODE_GONE', `nobody answers at ${client.path}`, 'If its process is stopped, let it go on or kill it', { cause })
      })
      return await client.call<T>(method, params, timeoutMs)
    } finally {
      client.close()
    }
  }
}

/** Whether another controller, or the same one a little later, may know better. */
function isElsewhere(error: unknown): error is CodedError {
  return error instanceof CodedError && (error.code === 'NF_NOT_LEADER' ||
    (error.code === 'NF_NODE_GONE' && /^nobody answers|has closed the connection$/.test(error.message)))
}

export function notRunning(name: string, left: number): CodedError {
  const option = name === 'default' ? '' : ` --name ${name}`
  return left > 0
    ? new CodedError('NF_CLUSTER_NOT_RUNNING', `the controllers of cluster ${name} are gone, ${left} of its processes are not`,
      `Take it up again: nfactor up with its file; or end it: nfactor down${option}`)
    : new CodedError('NF_CLUSTER_NOT_RUNNING', `no cluster ${name} is running`, 'Start one: nfactor up')
}
