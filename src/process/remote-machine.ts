/**
 * Remote machine: another machine of the cluster, seen from one controller: its processes as its agent (machine-agent.ts) tells of them, and
 * connections to its nodes, all over one TCP connection, which is made again whenever it has ended.
 *
 * A machine that does not answer is not a machine whose nodes are dead: those are judged by their silence, as all nodes are. What is known of
 * its processes stays until it answers again.
 */

import { readFileSync, writeFileSync } from 'node:fs'
import { CodedError } from '../base/coded-error.ts'
import type { Launched } from '../controller/launcher.ts'
import { startTime, type ClusterFolder, type ProcessEntry } from './cluster-folder.ts'
import type { RuntimeMember } from './cluster-members.ts'
import type { LineRpcClient, RpcParams } from './line-rpc.ts'
import type { MachineState } from './machine-agent.ts'
import { openMachine, type MachineAddress } from './machine-connection.ts'
import type { NodeClient, NodePlace } from './node-connections.ts'
import type { NodeEnd } from './node-launcher.ts'
import type { NodeStatus } from './node-status.ts'

export interface RemoteMachineOptions {
  readonly address: MachineAddress
  readonly token: string
  readonly clusterId: number
  /** That of this controller: where notes of lives that have ended go. */
  readonly folder: ClusterFolder
  /** An agent that has not answered for so long is not there, ms. Default 1000. */
  readonly answerMs?: number
  runtime(id: number, incarnation: number, chain: number): RuntimeMember
  onStarted(entry: ProcessEntry): void
  onEnded(entry: ProcessEntry, end: NodeEnd | undefined): void
  /** It answers, or does not any more. */
  onChange(isUp: boolean, why: string): void
}

const POLL_MS = 50
const ANSWER_MS = 1_000
const RETRY_MS = 500
/** So long without an answer says something together with the silence of a node there. */
const SILENT_MS = 150
/** What a call takes on its way, on top of what the node may take. */
const WAY_MS = 500
const CALL_MS = 10_000

export class RemoteMachine implements NodePlace {
  readonly name: string
  readonly #options: RemoteMachineOptions
  #agent: LineRpcClient | undefined
  #isConnecting = false
  #isPolling = false
  #polledAt = 0
  #isOpen = true
  #isTried = false
  #dueAt = 0
  #life = ''
  #ended = 0
  #nodes: readonly number[] = []
  readonly #known = new Map<number, ProcessEntry>()
  readonly #clients = new Set<RemoteNodeClient>()
  /** Lives whose start is on its way. */
  readonly #starting = new Set<number>()
  readonly #starts = new Map<string, number>()
  /** Why a start has failed, the last time. */
  #fault = ''

  constructor(options: RemoteMachineOptions) {
    this.#options = options
    this.name = options.address.name
  }

  /** It answers; at the beginning, until it has been tried. */
  get isUp(): boolean {
    return this.#agent !== undefined || !this.#isTried
  }

  /** It does not answer, or has not for a while: it need not be gone. */
  get isSilent(): boolean {
    return this.#agent === undefined ? this.#isTried : this.#isPolling && performance.now() - this.#polledAt > SILENT_MS
  }

  /** The processes of its runtimes, by pid there. */
  get processes(): ReadonlyMap<number, ProcessEntry> {
    return this.#known
  }

  /** To be called every few milliseconds. */
  tick(): void {
    const now = performance.now()
    if (now < this.#dueAt || !this.#isOpen) return
    if (this.#agent === undefined) {
      if (!this.#isConnecting) void this.#connect()
    } else if (!this.#isPolling) {
      this.#dueAt = now + POLL_MS
      void this.#poll(this.#agent)
    }
  }

  close(): void {
    this.#isOpen = false
    this.#agent?.close()
  }

  // -- The agent -----------------------------------------------------------------------------------------------------

  async #connect(): Promise<void> {
    this.#isConnecting = true
    const { address, token, clusterId } = this.#options
    try {
      const agent = await openMachine(address, token, clusterId)
      if (!this.#isOpen) return agent.close()
      agent.onClose = () => { this.#lose(agent, 'the connection has ended') }
      // What is there is known before anything is started.
      await this.#poll(agent, true)
    } catch (error) {
      if (!(error instanceof CodedError)) throw error
      this.#options.onChange(false, error.message)
    } finally {
      this.#isConnecting = false
      this.#isTried = true
      this.#dueAt = this.#agent === undefined ? performance.now() + RETRY_MS : 0
    }
  }

  async #poll(agent: LineRpcClient, isFirst = false): Promise<void> {
    this.#isPolling = true
    this.#polledAt = performance.now()
    try {
      const state = await agent.call<MachineState>('Poll', { after: this.#ended }, this.#options.answerMs ?? ANSWER_MS)
      this.#take(state)
      if (!isFirst || !agent.isOpen) return
      this.#agent = agent
      this.#options.onChange(true, '')
    } catch (error) {
      agent.close()
      // It was never up, which somebody may be waiting for.
      if (isFirst) this.#options.onChange(false, (error as Error).message)
      this.#lose(agent, (error as Error).message)
    } finally {
      this.#isPolling = false
    }
  }

  #lose(agent: LineRpcClient, why: string): void {
    if (this.#agent !== agent) return
    this.#agent = undefined
    this.#dueAt = performance.now() + RETRY_MS
    this.#nodes = []
    for (const client of [...this.#clients]) client.lose()
    this.#options.onChange(false, why)
  }

  #take({ life, processes, nodes, ended, ends }: MachineState): void {
    const isSameLife = life === this.#life
    this.#life = life
    this.#ended = ended
    this.#nodes = nodes
    for (const entry of processes) if (!this.#known.has(entry.pid)) this.#known.set(entry.pid, { ...entry, startedAt: startTime() })
    for (const entry of [...this.#known.values()]) {
      if (processes.some(({ pid, startTicks }) => pid === entry.pid && startTicks === entry.startTicks)) continue
      this.#known.delete(entry.pid)
      const known = isSameLife ? ends.find((one) => one.entry.pid === entry.pid && one.entry.incarnation === entry.incarnation) : undefined
      if (known !== undefined && known.note !== '') this.#keepNote(entry, known.note)
      this.#options.onEnded(entry, known?.end)
    }
  }

  #keepNote({ incarnation }: ProcessEntry, note: string): void {
    try {
      writeFileSync(this.#options.folder.noteFile(incarnation), Buffer.from(note, 'base64'), { mode: 0o600 })
    } catch {
      // Nothing is known of what it was running then.
    }
  }

  // -- Processes -----------------------------------------------------------------------------------------------------

  startsOf(name: string): number {
    return this.#starts.get(name) ?? 0
  }

  running(): Launched[] {
    return [...this.#known.values()].map(({ id, incarnation }) => ({ id, incarnation }))
  }

  startRuntime(term: number, { id, incarnation, chain }: Launched & { readonly chain: number }): void {
    const agent = this.#agent
    if (agent === undefined || this.#starting.has(incarnation)) return
    this.#starting.add(incarnation)
    const { folder, runtime, onStarted } = this.#options
    let run: unknown
    try {
      run = JSON.parse(readFileSync(folder.runFile(chain), 'utf8'))
    } catch {
      // It is being written; the controller asks again.
      this.#starting.delete(incarnation)
      return
    }
    agent.call<{ entry: ProcessEntry | null }>('Start', { term, member: runtime(id, incarnation, chain), run }).then(({ entry }) => {
      if (entry === null) return
      this.#starts.set(entry.name, this.startsOf(entry.name) + 1)
      this.#known.set(entry.pid, { ...entry, startedAt: startTime() })
      onStarted(entry)
    }, (error: unknown) => {
      const fault = error instanceof Error ? error.message : String(error)
      // It is tried again and again.
      if (agent.isOpen && fault !== this.#fault) process.stderr.write(`warning machine ${this.name}: ${fault}\n`)
      this.#fault = fault
    }).finally(() => { this.#starting.delete(incarnation) })
  }

  stopRuntime(term: number, { incarnation }: Launched): void {
    this.#agent?.call('Stop', { term, incarnation }).catch(() => undefined)
  }

  kill(pid: number, signal: NodeJS.Signals): boolean {
    if (this.#agent === undefined || !this.#known.has(pid)) return false
    this.#agent.call('Kill', { pid, signal }).catch(() => undefined)
    return true
  }

  // -- Nodes ---------------------------------------------------------------------------------------------------------

  nodeIds(): readonly number[] {
    return this.#nodes
  }

  processOf({ pid }: Pick<NodeStatus, 'pid'>): number {
    return pid
  }

  async connect(id: number): Promise<NodeClient> {
    const agent = this.#agent
    if (agent === undefined) throw new CodedError('NF_NODE_GONE', `machine ${this.name} does not answer`)
    const { channel } = await agent.call<{ channel: number }>('Connect', { node: id })
    const client = new RemoteNodeClient(agent, channel, (own) => { this.#clients.delete(own) })
    this.#clients.add(client)
    return client
  }
}

/** A connection to a node through its machine's agent. */
class RemoteNodeClient implements NodeClient {
  onClose: (() => void) | undefined
  readonly #agent: LineRpcClient
  readonly #channel: number
  readonly #onOver: (client: RemoteNodeClient) => void
  #isOver = false

  constructor(agent: LineRpcClient, channel: number, onOver: (client: RemoteNodeClient) => void) {
    this.#agent = agent
    this.#channel = channel
    this.#onOver = onOver
  }

  async call<T>(method: string, params: RpcParams = {}, timeoutMs = CALL_MS): Promise<T> {
    try {
      return await this.#agent.call<T>('Call', { channel: this.#channel, method, params, timeoutMs }, timeoutMs + WAY_MS)
    } catch (error) {
      if (error instanceof CodedError && error.code === 'NF_NODE_GONE' && /closed the connection$/.test(error.message)) this.lose()
      throw error
    }
  }

  close(): void {
    if (this.#isOver) return
    this.#agent.call('Disconnect', { channel: this.#channel }).catch(() => undefined)
    this.lose()
  }

  lose(): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#onOver(this)
    this.onClose?.()
  }
}
