/**
 * API services: what people and programs call over Connect, done by the private commands of a cluster's processes (`line-rpc.ts`). They run
 * in the API's thread (`api-thread.ts`), and know of the cluster what its folder and its processes say.
 *
 *     Controller ─▶ the controller that leads, whichever this one is; events from their file; the end from the supervisor
 *     Node ─▶ the node itself
 */

import type { MessageInitShape } from '@bufbuild/protobuf'
import { Worker } from 'node:worker_threads'
import { randomUUID } from 'node:crypto'
import { join, extname } from 'node:path'
import { rmSync } from 'node:fs'
import { CodedError, errorCodes, type ErrorCode } from '../base/coded-error.ts'
import type { CommandResult } from '../node/cluster-node.ts'
import { eventMessage } from '../rpc/event-message.ts'
import { Controller, type ClusterStatusSchema, type RollOut, type RolloutStateSchema } from '../rpc/generated/nfactor/v1/controller_pb.ts'
import { Node, type FlowListSchema, type ListedFlowSchema, type NodeStatusSchema } from '../rpc/generated/nfactor/v1/node_pb.ts'
import { plainOf } from '../rpc/plain-message.ts'
import { serve, type RpcService } from '../rpc/rpc-service.ts'
import type { ChainUpdate } from './chain-update.ts'
import { ClusterClient } from './cluster-client.ts'
import { ClusterFolder } from './cluster-folder.ts'
import { EventLog } from './event-log.ts'
import type { FlowList } from './flow-list.ts'
import { callOnce, LineRpcClient, type RpcParams } from './line-rpc.ts'
import type { NodeStatus, NodeWorkload } from './node-status.ts'
import type { ClusterStatus, UpdateState } from './operator.ts'
import { WatchClient, type WatchableNode } from './watch-client.ts'
import { captureStream, traceStream } from './watch-streams.ts'

/** Who an API speaks for. */
export type ApiOwner =
  | { readonly kind: 'controller', readonly id: number, readonly name: string, readonly folder: string, readonly cluster: string }
  | { readonly kind: 'node', readonly id: number, readonly name: string, readonly folder: string }

export interface Api {
  readonly services: readonly RpcService[]
  /** Whether the thread that does the work answers, and whether it can do its work. */
  isAlive(): Promise<boolean>
  isReady(): Promise<boolean>
}

const DRAIN_MS = 40_000
const CHECK_MS = 30_000
const HEALTH_MS = 1_000
/** Probes, which need no token, do not make a cluster work more often than so. */
const HEALTH_REST_MS = 500
const FOLLOW_MS = 100
const EVENTS_MAX = 10_000

type ClusterStatusInit = MessageInitShape<typeof ClusterStatusSchema>
type NodeStatusInit = MessageInitShape<typeof NodeStatusSchema>
type FlowListInit = MessageInitShape<typeof FlowListSchema>
type ListedFlowInit = MessageInitShape<typeof ListedFlowSchema>
type RolloutStateInit = MessageInitShape<typeof RolloutStateSchema>

export function apiOf(owner: ApiOwner): Api {
  return owner.kind === 'controller' ? controllerApi(owner) : nodeApi(owner)
}

function nodeApi({ id, name, folder }: Extract<ApiOwner, { kind: 'node' }>): Api {
  const line = new Line(new ClusterFolder(folder).nodeSocket(id))
  const status = (): Promise<NodeStatus> => line.call<NodeStatus>('GetStatus')
  const watched = (): { client: WatchClient, own: WatchableNode } => {
    const client = WatchClient.among(new ClusterFolder(folder))
    return { client, own: client.nodes.find((node) => node.id === id) ?? { kind: 'runtime', id, name, machine: '', isReady: true } }
  }
  return {
    isAlive: rarely(() => line.call('PollWorkload', {}, HEALTH_MS).then(() => true)),
    isReady: rarely(async () => (await line.call<NodeStatus>('GetStatus', {}, HEALTH_MS)).isReady),
    services: [serve(Node, {
      pollWorkload: () => line.call<NodeWorkload>('PollWorkload'),
      getStatus: async () => await status() as NodeStatusInit,
      notifyClusterConfig: ({ config }) =>
        line.call<CommandResult>('NotifyClusterConfig', { config: config === undefined ? undefined : plainOf(config) }),
      setMigrationTarget: ({ target, number }) => line.call<CommandResult>('SetMigrationTarget', { target, number }),
      drain: ({ on = true }) => line.call<CommandResult>('Drain', { on }),
      listFlows: async ({ filter, limit = 1000, state }) => await line.call<FlowList>('ListFlows', { filter, limit, state }) as FlowListInit,
      getFlow: async ({ flow }) => {
        const { flows: [found] } = await line.call<FlowList>('ListFlows', { flow, limit: 1, state: true })
        if (found !== undefined) return found as ListedFlowInit
        throw new CodedError('NF_CLUSTER', `${name} knows no flow ${flow}`, 'ListFlows has those that it knows')
      },
      tracePacket: (wish, { signal }) => {
        const { client, own } = watched()
        return traceStream(client, [own], wish, signal)
      },
      capture: (wish, { signal }) => {
        const { client, own } = watched()
        return captureStream(client, own, wish, signal)
      },
      shutdown: () => line.call<object>('Shutdown'),
    })],
  }
}

function controllerApi({ id, folder: path, cluster: name }: Extract<ApiOwner, { kind: 'controller' }>): Api {
  const folder = new ClusterFolder(path)
  const cluster = new ClusterClient(name, folder)
  const log = new EventLog(folder.eventsFile)
  const call = <T>(method: string, params?: RpcParams, timeoutMs?: number): Promise<T> =>
    cluster.call<T>(method, params, timeoutMs).catch(refuse)
  const steer = async (params: RpcParams): Promise<RolloutStateInit> => await call<UpdateState>('Update', { ...params, isAwaited: false })
  return {
    isAlive: rarely(() => callOnce(folder.controllerSocket(id), 'Leader', {}, HEALTH_MS).then(() => true)),
    isReady: rarely(() => inTime(cluster.status().then(({ isReady }) => isReady), HEALTH_MS)),
    services: [serve(Controller, {
      getCluster: async () => {
        const { update, failure, ...status } = await call<ClusterStatus>('Status')
        return { ...status, update: update ?? undefined, failure: failure ?? undefined } as ClusterStatusInit
      },
      listFlows: async ({ filter, limit = 1000, state, node }) => await call<FlowList>('Flows', { filter, limit, state, node }) as FlowListInit,
      events: async function* ({ after, limit = 1000, follow }, { signal }) {
        let last = after
        for (let most = Math.min(EVENTS_MAX, limit); ; most = EVENTS_MAX) {
          // Of none wanted the last one is still looked at, so that what follows comes behind it.
          for (const event of log.since(last, Math.max(1, most))) {
            last = event.number
            if (most > 0) yield eventMessage(event)
          }
          if (!follow || signal.aborted) return
          await new Promise<void>((resolve) => { setTimeout(resolve, FOLLOW_MS) })
        }
      },
      scale: ({ desired, isAutomatic }) => {
        if ((desired !== undefined) !== isAutomatic) return call('Scale', { runtimes: desired, isAutomatic })
        throw new CodedError('NF_USAGE', 'a scale is desired, or isAutomatic, not both and not neither')
      },
      migrate: ({ from, to, number }) => call('Migrate', { from, to, number }),
      drain: ({ node, on = true, remove }) => call('Drain', { node, on, remove }, DRAIN_MS),
      update: async ({ action: { case: action, value } }) => {
        switch (action) {
          case 'rollOut': return await steer({ action: 'begin', ...await rollOut(value, folder, cluster) })
          case 'rollBack': return await steer({ action: 'roll-back' })
          case 'pause': case 'resume': return await steer({ action })
          case undefined: throw new CodedError('NF_USAGE', 'an update is one of rollOut, pause, resume, rollBack')
        }
      },
      trace: async function* ({ node, trace }, { signal }) {
        const client = await WatchClient.open(cluster)
        const nodes = node === undefined ? client.nodes.filter(({ isReady }) => isReady) : [client.nodeNamed(node)]
        yield* traceStream(client, nodes, trace ?? {}, signal)
      },
      capture: async function* ({ node, capture }, { signal }) {
        const client = await WatchClient.open(cluster)
        yield* captureStream(client, client.nodeNamed(node), capture ?? {}, signal)
      },
      kill: ({ node, signal = 'SIGKILL' }) => call('Kill', { node, signal }),
      down: () => callOnce<object>(folder.supervisorSocket, 'Down').catch((error: unknown) => {
        if (!(error instanceof CodedError) || error.code !== 'NF_NODE_GONE') throw error
        throw new CodedError('NF_CLUSTER', `cluster ${name} has no supervisor that could end it`, `Use nfactor down --name ${name}`)
      }),
    })],
  }
}

/** What to say to the leader: the chain checked in a thread of its own, which ends, so that files of network functions are read anew. */
async function rollOut({ run, onFailure }: RollOut, folder: ClusterFolder, cluster: ClusterClient): Promise<RpcParams> {
  if (!['', 'pause', 'roll-back'].includes(onFailure)) {
    throw new CodedError('NF_USAGE', `onFailure is pause or roll-back, not ${JSON.stringify(onFailure)}`)
  }
  const { chainVersion } = await cluster.status().catch(refuse)
  const file = join(folder.path, `update-${randomUUID()}.json`)
  const { promise, resolve, reject } = Promise.withResolvers<ChainUpdate>()
  try {
    folder.write(file, JSON.stringify(run ?? {}))
    const thread = new Worker(new URL(`./chain-update-thread${extname(import.meta.filename)}`, import.meta.url),
      { workerData: { folder: folder.path, file, chainVersion } })
    thread.on('message', (answer: ChainUpdate | { code: ErrorCode, message: string, mend: string }) => {
      if ('run' in answer) return resolve(answer)
      // The file is ours alone: nobody else has seen it.
      const message = answer.message.split(file).map((part, index) => index === 0 ? part : part.replace(/^:\d+:\d+/, '')).join('run')
      reject(new CodedError(Object.hasOwn(errorCodes, answer.code) ? answer.code : 'NF_INTERNAL', message, answer.mend))
    })
    thread.on('error', reject)
    thread.on('exit', () => { reject(new CodedError('NF_CLUSTER', 'the new chain could not be checked', 'Try it: nfactor check')) })
    // A network function may do anything when it is loaded.
    const timer = setTimeout(() => { void thread.terminate() }, CHECK_MS)
    try {
      return { ...await promise, onFailure: onFailure || 'pause' }
    } finally {
      clearTimeout(timer)
    }
  } finally {
    rmSync(file, { force: true })
  }
}

/** One connection to a process, made when it is needed. */
class Line {
  readonly #path: string
  #client: Promise<LineRpcClient> | undefined

  constructor(path: string) {
    this.#path = path
  }

  async call<T>(method: string, params: RpcParams = {}, timeoutMs?: number): Promise<T> {
    const client = this.#client ??= LineRpcClient.connect(this.#path)
    const forget = (): void => { if (this.#client === client) this.#client = undefined }
    try {
      const line = await client
      line.onClose = forget
      return await line.call<T>(method, params, timeoutMs)
    } catch (error) {
      if (error instanceof CodedError && error.code === 'NF_NODE_GONE') forget()
      return refuse(error)
    }
  }
}

/** An error for others: of a defect, they do not get the stack that processes tell each other. */
function refuse(error: unknown): never {
  if (!(error instanceof CodedError) || error.code !== 'NF_INTERNAL') throw error
  throw new CodedError('NF_INTERNAL', error.message.split('\n', 1)[0], error.mend)
}

/** The same answer for all who ask within a short time; false where there is none. */
function rarely(ask: () => Promise<boolean>): () => Promise<boolean> {
  let answer: Promise<boolean> | undefined
  return () => {
    if (answer === undefined) {
      answer = ask().catch(() => false)
      void answer.then(() => { setTimeout(() => { answer = undefined }, HEALTH_REST_MS).unref() })
    }
    return answer
  }
}

function inTime(answer: Promise<boolean>, ms: number): Promise<boolean> {
  return Promise.race([answer, new Promise<boolean>((resolve) => { setTimeout(() => { resolve(false) }, ms).unref() })])
}
