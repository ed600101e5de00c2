/**
 * Member: one node of a supervised cluster, over all its lives. It starts the process, keeps the connection for commands, polls it, and
 * tells when it has ended; what follows from that is the supervisor's to say.
 */

import { CodedError, errorCodes, type ErrorCode } from '../base/coded-error.ts'
import { INCARNATION_LIMIT } from '../messages/cluster-config.ts'
import type { MemberState, MemberView } from './cluster-decider.ts'
import type { ClusterFolder } from './cluster-folder.ts'
import { LineRpcClient, type RpcParams } from './line-rpc.ts'
import type { NodeConfig } from './node-config.ts'
import type { LaunchedNode, NodeEnd, NodeLauncher } from './node-launcher.ts'
import type { NodeStatus, NodeWorkload } from './node-status.ts'

/** What a member is in every life. */
export type MemberConfig = NodeConfig extends infer C ? C extends NodeConfig ? Omit<C, 'incarnation'> : never : never

/** How long a process may take until it answers, and how often it is tried. */
const ANSWER_MS = 15_000
const CONNECT_MS = 10
/** A poll that is not answered for so long makes a member silent. */
const SILENT_MS = 2_000

export class Member {
  readonly config: MemberConfig
  state: MemberState = 'starting'
  incarnation = 0
  isDraining = false
  /** This life is in the cluster's configuration. */
  isListed = false
  restarts = 0
  startedMs = 0
  /** From the start of the process until it was ready, milliseconds; 0 before. */
  bootMs = 0
  status: NodeStatus | undefined
  busy = 0
  packetsPerSecond = 0
  /** Called when the process of the present life has ended. */
  onEnded: (end: NodeEnd) => void = () => {}
  readonly #folder: ClusterFolder
  readonly #launcher: NodeLauncher
  #process: LaunchedNode | undefined
  #client: LineRpcClient | undefined
  #polling: Promise<unknown> | undefined

  constructor(config: MemberConfig, folder: ClusterFolder, launcher: NodeLauncher) {
    this.config = config
    this.#folder = folder
    this.#launcher = launcher
  }

  get id(): number {
    return this.config.id
  }

  get name(): string {
    return this.config.name
  }

  get isSwitch(): boolean {
    return this.config.kind === 'switch'
  }

  get pid(): number {
    return this.#process?.pid ?? 0
  }

  /** True while there is a process. */
  get isAlive(): boolean {
    return this.#process !== undefined
  }

  /**
   * Starts a new life, and waits until its process answers.
   *
   * @throws CodedError when it ends before, or does not answer
   */
  async start(incarnation: number): Promise<void> {
    if (incarnation >= INCARNATION_LIMIT) throw new CodedError('NF_CLUSTER', 'this cluster has used up its incarnations', 'Start it anew')
    this.incarnation = incarnation
    this.state = 'starting'
    this.status = undefined
    this.bootMs = 0
    this.startedMs = performance.now()
    const file = this.#folder.nodeFile(this.id)
    this.#folder.write(file, `${JSON.stringify({ ...this.config, incarnation })}\n`)
    const launched = this.#process = this.#launcher.launch(this.config.kind, file, this.#folder.nodeLog(this.id))
    let end: NodeEnd | undefined
    void launched.ended.then((value) => {
      end = value
      this.#process = undefined
      this.#client?.close()
      this.#client = undefined
      this.onEnded(value)
    })
    while (end === undefined && performance.now() - this.startedMs < ANSWER_MS) {
      const client = await LineRpcClient.connect(this.#folder.nodeSocket(this.id)).catch(() => undefined)
      if (client !== undefined) {
        // A socket that somebody else left answers nothing.
        const status = await client.call<NodeStatus>('GetStatus', {}, ANSWER_MS).catch(() => undefined)
        if (status?.pid === launched.pid) {
          this.#client = client
          return
        }
        client.close()
      }
      await new Promise((resolve) => { setTimeout(resolve, CONNECT_MS) })
    }
    if (end !== undefined) throw startError(this.name, end)
    this.kill('SIGKILL')
    throw new CodedError('NF_CLUSTER_START', `${this.name} has not answered for ${ANSWER_MS} ms`)
  }

  kill(signal: NodeJS.Signals): void {
    this.#process?.kill(signal)
  }

  /** When the process has ended. */
  async ended(): Promise<void> {
    await this.#process?.ended
  }

  /** @throws CodedError `NF_NODE_GONE`, or what the node says */
  async call<T>(method: string, params: RpcParams = {}, timeoutMs?: number): Promise<T> {
    if (this.#client === undefined) throw new CodedError('NF_NODE_GONE', `${this.name} is not running`)
    return await this.#client.call<T>(method, params, timeoutMs)
  }

  /**
   * Asks the node how it is. One question at a time: who asks meanwhile gets the same answer, and no news.
   *
   * @returns what the node has become, if that is news
   */
  async poll(): Promise<'ready' | 'silent' | undefined> {
    if (this.#polling !== undefined) {
      await this.#polling
      return undefined
    }
    const polling = this.#polling = this.#ask()
    try {
      return await polling
    } finally {
      this.#polling = undefined
    }
  }

  async #ask(): Promise<'ready' | 'silent' | undefined> {
    const { incarnation } = this
    const before = this.status?.workload
    let status: NodeStatus
    try {
      status = await this.call<NodeStatus>('GetStatus', {}, SILENT_MS)
    } catch {
      if (this.incarnation !== incarnation || !this.isAlive || this.state !== 'ready') return undefined
      this.state = 'silent'
      return 'silent'
    }
    if (this.incarnation !== incarnation || !this.isAlive) return undefined
    this.status = status
    if (before !== undefined) this.#rate(before, status.workload)
    if (this.state === 'silent') {
      this.state = 'ready'
      return 'ready'
    }
    if (!status.isReady || this.state !== 'starting') return undefined
    this.state = 'ready'
    this.bootMs = Math.round(performance.now() - this.startedMs)
    return 'ready'
  }

  #rate(before: NodeWorkload, now: NodeWorkload): void {
    const timeUs = now.timeUs - before.timeUs
    // Polls that follow each other closely would give rates of nothing.
    if (timeUs < 1000) return
    this.busy = Math.min(1, (now.busyUs - before.busyUs) / timeUs)
    this.packetsPerSecond = Math.round((now.received - before.received) * 1e6 / timeUs)
  }

  view(): MemberView {
    const { config: { kind, id, name }, incarnation, state, isDraining, restarts, status, busy, packetsPerSecond } = this
    return { kind, id, name, incarnation, state, isDraining, restarts, workload: status?.workload, busy, packetsPerSecond }
  }
}

/** What the process said before it ended, as an error of ours. */
function startError(name: string, end: NodeEnd): CodedError {
  const line = end.lastLines.split('\n').findLast((one) => /^error NF_[A-Z_]+: /.test(one))
  const match = line === undefined ? null : /^error (NF_[A-Z_]+): (.*)$/.exec(line)
  if (match !== null && Object.hasOwn(errorCodes, match[1])) return new CodedError(match[1] as ErrorCode, `${name}: ${match[2]}`)
  const how = end.signal === null ? `with status ${end.status}` : `by ${end.signal}`
  return new CodedError('NF_CLUSTER_START', `${name} ended ${how} before it was ready: ${end.lastLines.split('\n').at(-1) ?? ''}`)
}
