/**
 * Node connections: those of a controller to the nodes of its cluster. It finds them by their sockets, on this machine and on others, whoever
 * has started them; asks each for a report once per heartbeat; and carries commands there. Nothing is promised: what is lost is said again.
 */

import { setBounded } from '../base/bounded.ts'
import type { CommandResult } from '../node/cluster-node.ts'
import { CodedError } from '../base/coded-error.ts'
import type { Hello, NodeCommand, NodeLinks, Report } from '../controller/node-commands.ts'
import { processKey, type ClusterFolder } from './cluster-folder.ts'
import { LineRpcClient, type RpcParams } from './line-rpc.ts'
import type { ReportAnswer } from './node-process.ts'
import type { NodeStatus } from './node-status.ts'

/** A connection to the process of a node. */
export interface NodeClient {
  /** Called once when it ends. */
  onClose: (() => void) | undefined
  call<T>(method: string, params?: RpcParams, timeoutMs?: number): Promise<T>
  close(): void
}

/** A machine, seen from a controller: the nodes that have a socket there. */
export interface NodePlace {
  nodeIds(): readonly number[]
  /** @throws CodedError `NF_NODE_GONE` when nobody listens */
  connect(id: number): Promise<NodeClient>
  /** Process id of a node that answers, as its launcher knows it; undefined while that is not known. */
  processOf(status: Pick<NodeStatus, 'id' | 'pid' | 'startTicks'>): number | undefined
}

export interface NodeConnectionsOptions {
  readonly places: readonly NodePlace[]
  readonly controller: string
  onReport(report: Report): void
  onHello(hello: Hello): void
}

/** A node whose process answers. */
export interface ConnectedNode {
  readonly id: number
  readonly kind: NodeStatus['kind']
  readonly pid: number
  incarnation: number
}

interface Peer extends ConnectedNode {
  readonly client: NodeClient
  isAsked: boolean
}

const SCAN_MS = 4
/** Processes of which it is known which life they are, or were; the one that was noted first is forgotten, and noted again if it answers. */
const LIVES_MAX = 1024
/** A socket at which somebody is expected to answer who does not is left alone for so long. */
const ANSWER_MS = 2_000

/**
 * The nodes of this machine.
 *
 * @param areContained a process in a container has a number of its own there; the note about it tells the one outside
 */
export function localPlace(folder: ClusterFolder, areContained: boolean): NodePlace {
  return {
    nodeIds: () => folder.nodeIds(),
    connect: (id) => LineRpcClient.connect(folder.nodeSocket(id)),
    processOf: ({ id, pid, startTicks }) => (areContained
      ? folder.livingProcesses().find((entry) => entry.id === id && entry.startTicks === startTicks)?.pid : pid),
  }
}

export class NodeConnections implements NodeLinks {
  readonly #options: NodeConnectionsOptions
  readonly #peers = new Map<number, Peer>()
  readonly #connecting = new Set<number>()
  /** Incarnations by `processKey`, also of processes that are gone. */
  readonly #lives = new Map<number, number>()
  #scanAt = 0
  #isOpen = true

  constructor(options: NodeConnectionsOptions) {
    this.#options = options
  }

  node(id: number): ConnectedNode | undefined {
    return this.#peers.get(id)
  }

  /** Which life this process of a node is, or was; 0 if it has none, or has never answered. */
  incarnationOf(process: { readonly id: number, readonly pid: number }): number {
    return this.#lives.get(processKey(process)) ?? 0
  }

  /** @throws CodedError `NF_NODE_GONE`, or what the node says */
  async call<T>(id: number, name: string, method: string, params: RpcParams = {}, timeoutMs?: number): Promise<T> {
    const peer = this.#peers.get(id)
    if (peer === undefined) throw new CodedError('NF_NODE_GONE', `${name} does not answer`)
    return await peer.client.call<T>(method, params, timeoutMs)
  }

  send(node: number, incarnation: number, command: NodeCommand): void | false {
    const peer = this.#peers.get(node)
    if (peer === undefined || (incarnation !== 0 && peer.incarnation !== incarnation)) return false
    // What it says next is waited for.
    const isNews = command.kind === 'welcome' || command.kind === 'configure'
    peer.client.call<CommandResult>('Command', { command }).then(() => { if (isNews && !peer.isAsked) void this.#ask(peer) }, () => undefined)
  }

  /** Tells a runtime of flows that it is to run with care, or not at all. False: it is not there yet. */
  quarantine(id: number, incarnation: number, keys: readonly (readonly number[])[], isSuspect: boolean): void | false {
    const peer = this.#peers.get(id)
    if (peer?.incarnation !== incarnation) return false
    peer.client.call('Quarantine', { keys, isSuspect }).catch(() => undefined)
  }

  /** Looks for nodes that have come. */
  look(): void {
    const now = performance.now()
    if (now < this.#scanAt) return
    this.#scanAt = now + SCAN_MS
    for (const place of this.#options.places) {
      for (const id of place.nodeIds()) if (!this.#peers.has(id) && !this.#connecting.has(id)) void this.#connect(place, id)
    }
  }

  /** To be called once per heartbeat. */
  tick(): void {
    this.look()
    for (const peer of this.#peers.values()) if (!peer.isAsked) void this.#ask(peer)
  }

  close(): void {
    this.#isOpen = false
    for (const { client } of this.#peers.values()) client.close()
  }

  async #connect(place: NodePlace, id: number): Promise<void> {
    this.#connecting.add(id)
    try {
      const client = await place.connect(id)
      const status = await client.call<NodeStatus>('GetStatus', {}, ANSWER_MS).catch(() => undefined)
      const pid = status?.id === id ? place.processOf(status) : undefined
      if (status === undefined || pid === undefined || !this.#isOpen) return client.close()
      const { kind, incarnation } = status
      const peer: Peer = { id, kind, pid, incarnation, client, isAsked: false }
      client.onClose = () => { if (this.#peers.get(id) === peer) this.#peers.delete(id) }
      this.#peers.set(id, peer)
      this.#setLife(peer, incarnation)
      void this.#ask(peer)
    } catch {
      // Nobody is there yet, or any more.
    } finally {
      this.#connecting.delete(id)
    }
  }

  #setLife(peer: Peer, incarnation: number): void {
    peer.incarnation = incarnation
    const key = processKey(peer)
    if (incarnation === 0 || this.#lives.get(key) === incarnation) return
    setBounded(this.#lives, key, incarnation, LIVES_MAX)
  }

  async #ask(peer: Peer): Promise<void> {
    peer.isAsked = true
    try {
      const answer = await peer.client.call<ReportAnswer>('Report', { controller: this.#options.controller }, 60_000)
      if ('hello' in answer) return this.#options.onHello(answer.hello)
      this.#setLife(peer, answer.report.incarnation)
      this.#options.onReport(answer.report)
    } catch {
      // It will be asked again, if it is there.
    } finally {
      peer.isAsked = false
    }
  }
}
