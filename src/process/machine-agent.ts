/**
 * Machine agent: one for each further machine of a cluster. It holds a folder there, in which that machine's runtimes meet, starts and ends
 * their processes on the word of the controllers, as the local launcher does on theirs, and carries line RPC between controllers and
 * nodes. It decides nothing.
 *
 *     controllers ─ TCP, a connection each ─▶ agent ─▶ local launcher ─▶ processes of runtimes
 *                                               └───▶ N.sock of each: Report, Command, GetStatus ...
 *
 * Crash-only: its nodes go on without it, and its next life finds them in the folder. Ended in good order it ends them. Methods, for who has
 * proved that he has the token (machine-connection.ts): Poll, Start, Stop, Kill, Connect, Call, Disconnect, End.
 */

import { readFileSync, rmSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { createServer as createTlsServer } from 'node:tls'
import { randomUUID } from 'node:crypto'
import { CodedError } from '../base/coded-error.ts'
import { readLongToken } from '../rpc/access-token.ts'
import { resolve } from 'node:path'
import { serverTls } from './api-address.ts'
import { ClusterFolder, type ProcessEntry } from './cluster-folder.ts'
import { checkAgainst } from './config-problem.ts'
import { answerLines, LineRpcClient, LineRpcServer, type RpcMethods, type RpcParams } from './line-rpc.ts'
import { LocalLauncher } from './local-launcher.ts'
import type { MachineConfig } from './machine-config.ts'
import { isProof, newNonce, PROOF_MS, proofOf } from './machine-connection.ts'
import { nodeConfigSchema, type RuntimeConfig } from './node-config.ts'
import type { NodeEnd, NodeLauncher } from './node-launcher.ts'
import { endProcesses } from './end-processes.ts'

/** A process that has ended, as controllers hear of it. */
export interface MachineEnd {
  readonly entry: ProcessEntry
  readonly end: NodeEnd | undefined
  /** What it was running: the note's file, in base64; empty if there was none. */
  readonly note: string
}

export interface MachineState {
  /** Of the agent's process: with another one, numbers begin anew. */
  readonly life: string
  readonly processes: readonly ProcessEntry[]
  /** Nodes that have a socket. */
  readonly nodes: readonly number[]
  /** How many processes have ended, and those since the number asked for. */
  readonly ended: number
  readonly ends: readonly MachineEnd[]
}

export interface MachineAgentLimits {
  readonly connections: number
  /** Connections to nodes, of one controller. */
  readonly channels: number
  /** Ends of processes that are remembered. */
  readonly ends: number
  /** How long everything up to the proof may take, ms. */
  readonly proofMs: number
}

const defaultLimits: MachineAgentLimits = { connections: 64, channels: 256, ends: 256, proofMs: PROOF_MS }
const TICK_MS = 20
/** A cluster whose controllers have been here so lately is there. */
const ALIVE_MS = 10_000

export class MachineAgent {
  readonly #config: MachineConfig
  readonly #folder: ClusterFolder
  readonly #token: string
  readonly #launch: NodeLauncher
  readonly #limits: MachineAgentLimits
  readonly #life = randomUUID()
  readonly #sockets = new Set<Socket>()
  readonly #members = new Map<number, RuntimeConfig>()
  readonly #ends: MachineEnd[] = []
  readonly #stopped = Promise.withResolvers<void>()
  #ended = 0
  /** Who waits for a life that is being started; null when it could not be. */
  readonly #starting = new Map<number, (entry: ProcessEntry | null) => void>()
  #launcher: LocalLauncher
  #clusterId = 0
  #heardAt = -Infinity
  /** A cluster is being ended: nothing is started. */
  #ending: Promise<number> | undefined

  /** @throws CodedError for what is wrong with the token's file */
  constructor(config: MachineConfig, launcher: NodeLauncher, limits: Partial<MachineAgentLimits> = {}) {
    this.#config = config
    this.#launch = launcher
    this.#limits = { ...defaultLimits, ...limits }
    // Not that of a cluster whose controllers are on this machine.
    this.#folder = ClusterFolder.ofCluster(`${config.cluster}.machine`)
    this.#token = readLongToken(resolve(config.folder, config.token), 'Write one: openssl rand -hex 32')
    this.#launcher = this.#makeLauncher()
  }

  /**
   * Runs until it is told to end, and ends its nodes then.
   *
   * @throws CodedError `NF_PORT_BUSY`, `NF_PORT_FAILED`, and for what is wrong with folder and certificate
   */
  async run(onReady: () => void): Promise<void> {
    this.#folder.create()
    this.#clusterId = this.#readClusterId()
    // Two agents in one folder would start the same lives.
    const lock = new LineRpcServer(this.#folder.supervisorSocket, {})
    await lock.open()
    let server: Server | undefined
    let timer: NodeJS.Timeout | undefined
    try {
      server = await this.#listen()
      timer = setInterval(() => { this.#launcher.tick() }, TICK_MS)
      onReady()
      await this.#stopped.promise
      clearInterval(timer)
      server.close()
      for (const socket of this.#sockets) socket.destroy()
      await endProcesses(this.#folder)
    } finally {
      clearInterval(timer)
      server?.close()
      lock.close()
      // Where it could not listen, nodes of a former life stay for the next one.
      if (this.#folder.livingProcesses().length === 0) this.#folder.clear()
    }
  }

  stop(): void {
    this.#stopped.resolve()
  }

  async #listen(): Promise<Server> {
    const { host, port, tls, folder } = this.#config
    const take = (socket: Socket): void => { this.#serve(socket) }
    let server: Server
    if (tls === undefined) {
      server = createServer({ noDelay: true }, take)
    } else {
      const { certificate, key, clientAuthority } = await serverTls(tls, folder, 'tls')
      const isAsked = clientAuthority !== undefined
      server = createTlsServer({ cert: certificate, key, ca: clientAuthority, requestCert: isAsked, rejectUnauthorized: isAsked,
        minVersion: 'TLSv1.2', handshakeTimeout: this.#limits.proofMs, noDelay: true }, take)
    }
    server.maxConnections = this.#limits.connections
    await new Promise<void>((done, reject) => {
      server.once('error', (cause: NodeJS.ErrnoException) => {
        const code = cause.code === 'EADDRINUSE' ? 'NF_PORT_BUSY' : 'NF_PORT_FAILED'
        reject(new CodedError(code, `cannot listen at ${host}:${port}: ${cause.message}`, 'The keys host and port of the file say where',
          { cause }))
      })
      server.listen({ host, port }, done)
    })
    server.removeAllListeners('error').on('error', () => undefined)
    return server
  }

  // -- Connections ---------------------------------------------------------------------------------------------------

  #serve(socket: Socket): void {
    const agentNonce = newNonce()
    const channels = new Map<number, LineRpcClient>()
    let isProved = false
    let channelCount = 0
    let connecting = 0
    const timer = setTimeout(() => { socket.destroy() }, this.#limits.proofMs)
    this.#sockets.add(socket)
    socket.on('close', () => {
      clearTimeout(timer)
      this.#sockets.delete(socket)
      for (const client of channels.values()) client.close()
    })
    const guarded: RpcMethods = {
      Poll: ({ after }) => this.#state(Number(after)),
      Start: (params) => this.#start(params),
      Stop: ({ term, incarnation }) => { this.#launcher.stopRuntime(Number(term), { id: 0, incarnation: Number(incarnation) }) },
      Kill: ({ pid, signal }) => ({ isDone: this.#launcher.kill(Number(pid), signal as NodeJS.Signals) }),
      End: async () => ({ killed: await this.#end() }),
      Connect: async ({ node }) => {
        const most = this.#limits.channels
        if (channels.size + connecting >= most) throw new CodedError('NF_RPC_LIMIT', `there are ${most} connections to nodes already`)
        connecting++
        const client = await LineRpcClient.connect(this.#folder.nodeSocket(Number(node))).finally(() => { connecting-- })
        const channel = ++channelCount
        channels.set(channel, client)
        client.onClose = () => { channels.delete(channel) }
        // Who asked may have gone meanwhile, and nobody else closes it.
        if (socket.destroyed) client.close()
        return { channel }
      },
      Call: ({ channel, method, params, timeoutMs }) => {
        const client = channels.get(Number(channel))
        if (client === undefined) throw new CodedError('NF_NODE_GONE', 'the node has closed the connection')
        return client.call(String(method), params as RpcParams, typeof timeoutMs === 'number' ? timeoutMs : undefined)
      },
      Disconnect: ({ channel }) => { channels.get(Number(channel))?.close() },
    }
    const methods: Record<string, (params: RpcParams) => unknown> = {
      Hello: () => ({ nonce: agentNonce }),
      Prove: async ({ nonce, proof, clusterId }) => {
        const own = String(nonce)
        if (!isProof(proof, proofOf('controller', this.#token, own, agentNonce))) {
          setImmediate(() => { socket.end() })
          throw new CodedError('NF_RPC_TOKEN', `machine at ${this.#config.host}:${this.#config.port} has another token than this cluster`,
            'Give both the same token file')
        }
        await this.#admit(Number(clusterId))
        clearTimeout(timer)
        isProved = true
        return { proof: proofOf('agent', this.#token, own, agentNonce) }
      },
    }
    for (const [name, method] of Object.entries(guarded)) {
      methods[name] = (params) => {
        if (!isProved) throw new CodedError('NF_RPC_TOKEN', 'prove first that you have the token')
        this.#heardAt = performance.now()
        return method(params)
      }
    }
    answerLines(socket, methods)
  }

  /** Takes the controllers of a cluster; what is left of another one ends, unless its controllers are there. */
  async #admit(clusterId: number): Promise<void> {
    const isWhole = Number.isInteger(clusterId) && clusterId > 0
    if (!isWhole) throw new CodedError('NF_USAGE', 'a cluster has a number')
    if (clusterId !== this.#clusterId) {
      if (performance.now() - this.#heardAt < ALIVE_MS && this.#folder.livingProcesses().length > 0) {
        throw new CodedError('NF_MACHINE', `the machine runs another cluster named ${this.#config.cluster}`, 'End that one first: nfactor down')
      }
      await this.#end()
      this.#folder.write(this.#folder.clusterFile, `${JSON.stringify({ clusterId })}\n`)
      this.#clusterId = clusterId
    }
    this.#heardAt = performance.now()
  }

  #readClusterId(): number {
    try {
      return Number((JSON.parse(readFileSync(this.#folder.clusterFile, 'utf8')) as { clusterId: unknown }).clusterId)
    } catch {
      return 0
    }
  }

  // -- Processes -----------------------------------------------------------------------------------------------------

  #makeLauncher(): LocalLauncher {
    return new LocalLauncher({
      folder: this.#folder, launcher: this.#launch, switches: [],
      runtime: (_id, incarnation) => this.#members.get(incarnation) as RuntimeConfig,
      onStarted: (entry) => { this.#starting.get(entry.incarnation)?.(entry) },
      onEnded: (entry, end) => {
        this.#starting.get(entry.incarnation)?.(null)
        this.#note(entry, end)
      },
    })
  }

  #note(entry: ProcessEntry, end: NodeEnd | undefined): void {
    const path = this.#folder.noteFile(entry.incarnation)
    let note = ''
    try {
      note = readFileSync(path).toString('base64')
      rmSync(path, { force: true })
    } catch {
      // It ended in good order.
    }
    this.#ended++
    this.#ends.push({ entry, end, note })
    if (this.#ends.length > this.#limits.ends) this.#ends.shift()
  }

  #state(after: number): MachineState {
    const news = Math.max(0, Math.min(this.#ends.length, this.#ended - after))
    return {
      life: this.#life, processes: [...this.#launcher.processes.values()], nodes: this.#folder.nodeIds(), ended: this.#ended,
      ends: news > 0 ? this.#ends.slice(-news) : [],
    }
  }

  /** Starts a life of a runtime, as it would be on the controllers' machine but for the folders, which are ours. */
  async #start({ term, member, run }: RpcParams): Promise<{ entry: ProcessEntry | null }> {
    const { data, problems: [problem] } = checkAgainst(nodeConfigSchema, member)
    if (problem !== undefined) throw new CodedError(problem.code, problem.message, problem.mend)
    const config = data as RuntimeConfig
    if (config.kind !== 'runtime' || config.clusterId !== this.#clusterId) {
      throw new CodedError('NF_MACHINE', 'only runtimes of the cluster are started here')
    }
    if (this.#ending !== undefined) throw new CodedError('NF_MACHINE', 'the machine is ending its nodes')
    const { id, incarnation, chainVersion: chain } = config
    const folder = this.#folder
    folder.write(folder.runFile(chain), `${JSON.stringify(run)}\n`)
    this.#members.clear()
    this.#members.set(incarnation, { ...config, folder: folder.path, run: folder.runFile(chain), nfFolder: this.#config.nfFolder })
    const isThere = (): boolean => this.#launcher.running().some((one) => one.incarnation === incarnation)
    const wasThere = isThere()
    this.#launcher.startRuntime(Number(term), { id, incarnation, chain })
    // A life that has begun before, of a term that is over, or too early after the last death.
    if (wasThere || !isThere()) return { entry: null }
    const { promise, resolve } = Promise.withResolvers<ProcessEntry | null>()
    this.#starting.set(incarnation, resolve)
    return { entry: await promise.finally(() => { this.#starting.delete(incarnation) }) }
  }

  /** Ends all nodes, and forgets the cluster. Returns how many had to be killed. */
  #end(): Promise<number> {
    return this.#ending ??= endProcesses(this.#folder).then((killed) => {
      const lock = this.#folder.supervisorSocket
      this.#folder.clearBut(lock)
      this.#launcher = this.#makeLauncher()
      this.#ends.length = 0
      this.#clusterId = 0
      return killed
    }).finally(() => { this.#ending = undefined })
  }
}
