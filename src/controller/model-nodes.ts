/**
 * Models of a runtime and of a switch as controllers see them, for the control simulation: they judge commands as real nodes do, follow
 * them after a while, and report. Flows are fluid: they come and end by themselves, weigh all the same, and lie on runtimes in numbers.
 */

import type { TimeUs } from '../base/clock.ts'
import type { ControlSimulation } from './control-simulation.ts'
import type { PeerWord } from './failure-detector.ts'
import { judgeCommand, noCommands, type CommandMemory, type NodeCommand } from './node-commands.ts'

const STEP_US = 20_000
/** Flows that are one runtime's worth of load. */
const FLOWS_PER_RUNTIME = 1000
/** How long a flow lives, on average, µs. */
const FLOW_US = 20e6
/** How long flows that are recovered have something in the blocks of the dead. */
const BLOCK_USE_US = 8e6
/** The busy fraction of a runtime that loses packets for want of a core. */
const SHARED_BUSY = 0.3
/** Flows that leave a runtime in one step. */
const MOVES_PER_STEP = 100

export abstract class ModelNode {
  readonly inbox: { readonly at: TimeUs; readonly command: NodeCommand }[] = []
  readonly id: number
  incarnation: number
  isAlive = true
  pausedUntil: TimeUs = 0
  protected memory: CommandMemory = noCommands
  protected readonly world: ControlSimulation
  protected config: Extract<NodeCommand, { kind: 'configure' }>['config'] | null = null
  #reportAt: TimeUs = 0
  #steppedAt: TimeUs = 0
  #paused = 0
  readonly #heardAt = new Map<number, TimeUs>()

  constructor(world: ControlSimulation, id: number, incarnation: number) {
    this.world = world
    this.id = id
    this.incarnation = incarnation
    this.#steppedAt = world.now
  }

  get configVersion(): number {
    return this.memory.configVersion
  }

  protected get generation(): number {
    return this.memory.generation
  }

  step(): void {
    const { now } = this.world
    this.#paused = Math.max(this.#paused, now - this.#steppedAt - STEP_US)
    this.#steppedAt = now
    const due = this.inbox.filter(({ at }) => at <= now)
    this.inbox.splice(0, Infinity, ...this.inbox.filter(({ at }) => at > now))
    for (const { command } of due) {
      const { term } = this.memory
      const { verdict, memory } = judgeCommand(this.memory, command)
      if (verdict === 'lower-term') this.world.counts.refusedTerms++
      else if (command.term < term) this.world.violate(`node ${this.id} took term ${command.term} after ${term}`)
      this.memory = memory
      if (verdict !== 'take') continue
      if (command.kind === 'configure') {
        this.world.checkTaken(command.config)
        if (command.config.version < (this.config?.version ?? 0)) this.world.violate(`node ${this.id} went back to ${command.config.version}`)
        this.config = command.config
      }
      this.take(command)
    }
    this.work()
    if (now < this.#reportAt || this.incarnation === 0) return
    this.#reportAt = now + this.world.limits.detector.heartbeatUs
    this.report(this.#paused, this.#words())
    this.#paused = 0
  }

  #words(): PeerWord[] {
    const { now, nodes } = this.world
    const words: PeerWord[] = []
    for (const { id, incarnation } of [...this.config?.switches ?? [], ...this.config?.runtimes ?? []]) {
      if (id === this.id || incarnation === 0) continue
      const peer = nodes.get(nodes.has(`switch ${id}`) ? `switch ${id}` : `runtime ${incarnation}`)
      if (peer?.incarnation === incarnation && peer.isAlive && now >= peer.pausedUntil && !this.world.isCut(id, this.id)) {
        this.#heardAt.set(incarnation, now)
      }
      const heardAgoUs = now - (this.#heardAt.get(incarnation) ?? now)
      words.push({ peer: id, heardAgoUs, owedUs: heardAgoUs > 100_000 ? heardAgoUs : 0 })
    }
    return words
  }

  protected abstract take(command: NodeCommand): void
  protected abstract work(): void
  protected abstract report(pausedUs: number, words: PeerWord[]): void
}

export class ModelSwitch extends ModelNode {
  #nonce = ''
  #helloAt: TimeUs = 0
  #lives = 0

  constructor(world: ControlSimulation, id: number) {
    super(world, id, 0)
    this.#renew()
  }

  /** Another process, or the same one that has dropped all it knew. */
  #renew(): void {
    this.incarnation = 0
    this.#nonce = `${this.id}-${++this.#lives}-${this.world.random.int32()}`
    this.memory = { ...noCommands, term: this.memory.term }
    this.config = null
  }

  /** Its process dies and comes back at once, knowing nothing. */
  restart(): void {
    this.memory = noCommands
    this.#renew()
  }

  protected override take(command: NodeCommand): void {
    // The first life that it is given; should that be over already, the configuration says so.
    if (command.kind === 'welcome' && command.nonce === this.#nonce && this.incarnation === 0) this.incarnation = command.incarnation
    if (command.kind !== 'configure' || this.incarnation === 0) return
    const entry = command.config.switches.find(({ id }) => id === this.id)
    // The configuration in which it was given its life may be the first that it sees; none before can be.
    if (entry?.incarnation !== this.incarnation) this.#renew()
  }

  protected override work(): void {
    if (this.incarnation !== 0 || this.world.now < this.#helloAt) return
    this.#helloAt = this.world.now + 300_000
    const hello = { node: this.id, nonce: this.#nonce }
    this.world.tell(this, (controller, now) => { controller.hello(hello, now) })
  }

  protected override report(pausedUs: number, words: PeerWord[]): void {
    const { id: node, incarnation, configVersion, generation, world } = this
    const refused = world.areCoresShared && node === 1 ? world.runtimes().flatMap((one) => one.refused) : []
    this.world.tell(this, (controller, now) => {
      controller.receive({ kind: 'switch', node, incarnation, pausedUs, words, configVersion, generation, refused, missed: world.missed }, now)
    })
  }
}

export class ModelRuntime extends ModelNode {
  readonly chain: number
  flows = 0
  /** Failures of its network functions per second. */
  nfErrors = 0
  readonly #readyAt: TimeUs
  #part = 0
  #recovered = 0
  #order = { number: 0, open: 0, moved: 0, refused: 0, target: 0 }
  #wasConfigured = false
  #emptySince: TimeUs = Infinity
  readonly #blocks = new Set<string>()
  /** Blocks of the dead in which flows that have been recovered here have something, and how long. */
  readonly #inherited = new Map<string, TimeUs>()

  constructor(world: ControlSimulation, id: number, incarnation: number, chain: number) {
    super(world, id, incarnation)
    this.chain = chain
    this.#readyAt = world.now + 300_000 + world.random.below(1e6)
  }

  get isConfigured(): boolean {
    return this.config?.runtimes.some(({ incarnation }) => incarnation === this.incarnation) ?? false
  }

  get blocks(): ReadonlySet<string> {
    return this.#blocks
  }

  /** Blocks in which its flows have something. */
  get blocksInUse(): string[] {
    return [...this.#blocks, ...[...this.#inherited].filter(([, until]) => this.world.now < until).map(([key]) => key)]
  }

  /** What switches have for it and its links no room. */
  get refused(): readonly { readonly runtime: number; readonly share: number }[] {
    const share = 1 - Math.min(1, FLOWS_PER_RUNTIME / this.flows)
    return share === 0 ? [] : [{ runtime: this.id, share }]
  }

  get #isDraining(): boolean {
    return this.config?.runtimes.some(({ incarnation, isDraining }) => incarnation === this.incarnation && isDraining) ?? false
  }

  protected override take(command: NodeCommand): void {
    switch (command.kind) {
      case 'configure':
        if (this.isConfigured) this.#wasConfigured = true
        // Fenced: it drops everything, and waits for its end.
        else if (this.#wasConfigured) {
          this.flows = 0
          this.world.leaveBlocks(this)
          this.#inherited.clear()
        }
        break
      case 'recover':
        this.#recovered = Math.max(this.#recovered, command.generation)
        for (const key of this.world.takeBlocks()) this.#inherited.set(key, this.world.now + BLOCK_USE_US)
        break
      case 'move':
        this.#order = { number: command.order, open: Math.min(command.flows, this.flows), moved: 0, refused: 0, target: command.target }
        break
      case 'grant-block':
        this.world.checkBlock(this, `${command.pool}/${command.block}`)
        this.#blocks.add(`${command.pool}/${command.block}`)
        break
    }
  }

  /** Whether it can take a flow. */
  get #takesFlows(): boolean {
    return this.isAlive && this.isConfigured && !this.#isDraining && this.world.now >= this.pausedUntil
  }

  protected override work(): void {
    const { world } = this
    // New flows come to those that take them, in equal shares; old ones end.
    const taking = world.runtimes().filter((one) => one.#takesFlows)
    this.#part += this.#takesFlows ? (world.demand * FLOWS_PER_RUNTIME / taking.length) * (STEP_US / FLOW_US) : 0
    this.#part -= this.flows * (STEP_US / FLOW_US)
    const whole = Math.trunc(this.#part)
    this.flows = Math.max(0, this.flows + whole)
    this.#part -= whole
    if (this.flows > 0 && this.#isDraining && world.random.chance(0.05)) this.flows = Math.max(0, this.flows - 1)
    const order = this.#order
    const moving = Math.min(order.open, MOVES_PER_STEP)
    if (moving > 0) {
      order.open -= moving
      const target = taking.find(({ id }) => id === order.target)
      const moved = target === undefined || target === this ? 0 : Math.min(moving, this.flows)
      this.flows -= moved
      if (target !== undefined) target.flows += moved
      order.moved += moved
      order.refused += moving - moved
    }
    this.#emptySince = this.#isDraining && this.flows === 0 ? Math.min(this.#emptySince, world.now) : Infinity
  }

  protected override report(pausedUs: number, words: PeerWord[]): void {
    const { id: node, incarnation, configVersion, generation, flows, world } = this
    const load = flows / FLOWS_PER_RUNTIME
    const { number, open, moved, refused } = this.#order
    const report = {
      kind: 'runtime', node, incarnation, pausedUs, words, configVersion, generation, isReady: world.now >= this.#readyAt,
      // Without a core it does not even know what it has to do.
      busyPerMille: Math.round(Math.min(world.areCoresShared ? SHARED_BUSY : 1, load) * 1000), flows,
      packetsPerSecond: 1e6 * Math.min(1, load), dropsPerSecond: world.areCoresShared ? 0 : 1e6 * Math.max(0, load - 1),
      queueDepth: 0, nfErrorsPerSecond: this.nfErrors,
      replicasVersion: this.memory.replicasVersion, recovered: this.#recovered, order: { number, open, moved, refused },
      isEmpty: world.now - this.#emptySince > 100_000, blocksInUse: this.blocksInUse,
      blocksWanted: this.#blocks.size < 2 ? [{ pool: 'ports', held: this.#blocks.size }] : [],
    } as const
    world.tell(this, (controller, now) => { controller.receive(report, now) })
  }
}
