/**
 * Node connections: those of a controller to the nodes of its cluster on this machine. It finds them by their sockets, whoever has started
 * them; asks each for a report once per heartbeat; and carries commands there. Nothing is promised: what is lost is said again.
 */

import type { CommandResult } from '../node/cluster-node.ts'
import { CodedError } from '../base/coded-error.ts'
import type { Hello, NodeCommand, NodeLinks, Report } from '../controller/node-commands.ts'
import type { ClusterFolder } from './cluster-folder.ts'
import { LineRpcClient, type RpcParams } from './line-rpc.ts'
import type { ReportAnswer } from './node-process.ts'
import type { NodeStatus } from './node-status.ts'

export interface NodeConnectionsOptions {
  readonly folder: ClusterFolder
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
  readonly client: LineRpcClient
  isAsked: boolean
}

const SCAN_MS = 10
const LIVES_MAX = 1024
/** A socket at which somebody is expected to answer who does not is left alone for so long. */
const ANSWER_MS = 2_000

export class NodeConnections implements NodeLinks {
  readonly #options: NodeConnectionsOptions
  readonly #peers = new Map<number, Peer>()
  readonly #connecting = new Set<number>()
  /** Incarnations by pid, also of processes that are gone. */
  readonly #lives = new Map<number, number>()
  #scanAt = 0
  #isOpen = true

  constructor(options: NodeConnectionsOptions) {
    this.#options = options
  }

  node(id: number): ConnectedNode | undefined {
    return this.#peers.get(id)
  }

  /** Which life this process is, or was; 0 if it has none, or has never answered. */
  incarnationOf(pid: number): number {
    return this.#lives.get(pid) ?? 0
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
    for (const id of this.#options.folder.nodeIds()) {
      if (!this.#peers.has(id) && !this.#connecting.has(id)) void this.#connect(id)
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

  async #connect(id: number): Promise<void> {
    this.#connecting.add(id)
    try {
      const client = await LineRpcClient.connect(this.#options.folder.nodeSocket(id))
      const status = await client.call<NodeStatus>('GetStatus', {}, ANSWER_MS).catch(() => undefined)
      if (status?.id !== id || !this.#isOpen) return client.close()
      const { kind, pid, incarnation } = status
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
    if (incarnation === 0 || this.#lives.get(peer.pid) === incarnation) return
    if (this.#lives.size >= LIVES_MAX) this.#lives.clear()
    this.#lives.set(peer.pid, incarnation)
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
