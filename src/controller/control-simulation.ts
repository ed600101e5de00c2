/**
 * Control simulation: controllers over a bad store and a bad network, with models of nodes and of the launcher, in simulated time under
 * one seed. Controllers die within any of their actions. What must never be is checked as it happens:
 *
 *   versions   every version of the configuration is one configuration, and each is one more than the one before
 *   fenced     a life that has left the configuration, or was fenced, never comes into it (again)
 *   terms      one acting leader per term; no node takes a command of a lower term than it has seen; nobody writes but the
 *              controller that was elected last
 *   scale      decisions are numbered without gap; nothing is started beyond what is wanted; no life is started twice
 *   drain      a runtime that is drained has no flow when it leaves
 *
 * Models are of what controllers see: reports and the effect of commands. Flows are numbers here; the cluster's own simulator has
 * the real ones.
 */

import type { TimeUs } from '../base/clock.ts'
import { Random } from '../base/random.ts'
import { Controller, type ControllerLimits, type ControllerOptions, defaultControllerLimits } from './controller.ts'
import { decodeDocument, type ClusterDocument, type ScaleDocument } from './cluster-state.ts'
import type { ClusterConfig } from '../messages/cluster-config.ts'
import { FaultyStore, noStoreFaults } from './faulty-store.ts'
import type { Launched, Launcher } from './launcher.ts'
import { MemoryStore, type StoreStep } from './memory-store.ts'
import { ModelRuntime, ModelSwitch, type ModelNode } from './model-nodes.ts'
import type { NodeCommand } from './node-commands.ts'

export const STEP_US = 20_000

/** Controllers that are quicker than in life, so that much happens in little time. */
export const quickLimits: ControllerLimits = {
  ...defaultControllerLimits,
  detector: { ...defaultControllerLimits.detector, heartbeatUs: 60_000, tickUs: STEP_US },
  fencing: { massUs: 1e6, partitionedUs: 5e6, lastingUs: 1e6 },
  autoscaler: { ...defaultControllerLimits.autoscaler, runtimesMax: 6, peakUs: 8e6, outPauseUs: 3e6, inAfterOutUs: 6e6, inPauseUs: 4e6 },
  rollout: { ...defaultControllerLimits.rollout, bakeUs: 1e6 },
  scaling: { ...defaultControllerLimits.scaling, startUs: 6e6 },
  cutOffUs: 2e6,
  pools: { ports: 12 },
}

class Killed extends Error {}

interface Host {
  readonly name: string
  controller: Controller | null
  life: string
  store: FaultyStore
  pausedUntil: TimeUs
  /** Its clock goes at a tenth of its speed until then, and is behind from then on. */
  clockSlowUntil: TimeUs
  behindUs: number
  /** How far its clock has always been ahead. */
  readonly aheadUs: number
  restartAt: TimeUs
  /** It dies at this many actions from now. */
  actionsLeft: number
  readonly inbox: { readonly at: TimeUs; readonly deliver: (controller: Controller, now: TimeUs) => void }[]
}

export class ControlSimulation {
  readonly random: Random
  readonly store = new MemoryStore()
  readonly hosts: Host[] = []
  readonly nodes = new Map<string, ModelNode>()
  readonly violations: string[] = []
  now: TimeUs = 1e6
  /** In runtimes' worth. */
  demand = 1.5
  /** Runtimes lack cores: what is too much for them stays in their links, and they say that they have little to do. */
  areCoresShared = false
  /** The share of what comes that interfaces lose. */
  missed = 0
  /** Chance that a message between controllers and nodes is lost. */
  loss = 0
  /** Pairs that do not hear each other, as `a|b`: names of controllers and numbers of nodes. */
  readonly cut = new Set<string>()
  readonly limits: ControllerLimits
  readonly events: string[] = []
  readonly outcomes: string[] = []
  readonly counts = { leaders: 0, kills: 0, fenced: 0, started: 0, drained: 0, decisions: 0, refusedTerms: 0, configs: 0 }
  readonly #configs = new Map<number, string>()
  readonly #leaders = new Map<number, string>()
  readonly #gone = new Set<number>()
  readonly #living = new Set<number>()
  readonly #launched = new Set<number>()
  /** Who was elected last, and whose request the store is carrying out. */
  #elected = ''
  #writer = ''
  #launcherTerm = 0
  #lives = 0
  #version = 0
  #decision = 0
  #starting = new Set<number>()
  readonly #leftBlocks = new Set<string>()

  constructor(seed: number, limits: ControllerLimits = quickLimits, controllers = 3, desired = 2, isAutomatic = true) {
    this.random = new Random(seed)
    this.limits = limits
    this.store.onStep = (step) => { this.#check(step) }
    const founding = { clusterId: 7, desired, isAutomatic, chain: 1, switches: [
      { id: 1, side: 'ingress' as const, isHome: true }, { id: 2, side: 'egress' as const, isHome: false }] }
    for (let i = 0; i < controllers; i++) {
      const host: Host = { name: 'abc'[i] ?? `${i}`, controller: null, life: '', store: new FaultyStore(this.store.connect(), this.random),
        pausedUntil: 0, clockSlowUntil: 0, behindUs: 0, aheadUs: [0, 400e6, 7e6][i] ?? 0, restartAt: 0, actionsLeft: Infinity, inbox: [] }
      this.hosts.push(host)
      this.#start(host, founding)
    }
    for (const id of [1, 2]) this.nodes.set(`switch ${id}`, new ModelSwitch(this, id))
    this.#founding = founding
  }

  readonly #founding: ControllerOptions['founding']

  violate(what: string): void {
    this.violations.push(`at ${(this.now / 1e6).toFixed(2)} s: ${what}`)
  }

  // -- Controllers -----------------------------------------------------------------------------------------------------

  #start(host: Host, founding: ControllerOptions['founding']): void {
    const life = `${host.name}${++this.#lives}`
    host.life = life
    const connection = this.store.connect()
    host.store = new FaultyStore({
      submit: (request, now) => {
        this.#writer = request.kind === 'transact' ? life : ''
        connection.submit(request, now)
        this.#writer = ''
      },
      poll: (now) => connection.poll(now),
    }, this.random, host.store.faults)
    host.actionsLeft = Infinity
    host.inbox.length = 0
    const act = (): void => { if (--host.actionsLeft <= 0) throw new Killed() }
    const { store } = host
    // It may die before an action, or right after it.
    const guarded = <A extends unknown[]>(action: (...args: A) => void) => (...args: A): void => {
      act()
      action(...args)
      act()
    }
    host.controller = new Controller({ name: host.name, life, founding, limits: this.limits,
      onEvent: ({ at, term, what }) => { this.events.push(`${(at / 1e6).toFixed(2)} ${life} term ${term}: ${what}`) },
      onIntent: (_id, outcome) => { this.outcomes.push(outcome) } },
    { submit: guarded((request) => { store.submit(request, this.now) }), poll: () => store.poll(this.now) },
    { send: guarded((node, incarnation, command) => { this.#send(host, node, incarnation, command) }) },
    this.#launcher(host, guarded))
  }

  kill(host: Host): void {
    if (host.controller === null) return
    this.counts.kills++
    host.controller = null
    host.restartAt = this.now + this.random.below(4e6)
  }

  leader(): Controller | undefined {
    return this.hosts.find(({ controller }) => controller !== null && controller.term !== 0)?.controller ?? undefined
  }

  #launcher(host: Host, guarded: <A extends unknown[]>(action: (...args: A) => void) => (...args: A) => void): Launcher {
    const accepts = (term: number): boolean => {
      if (term < this.#launcherTerm) {
        this.counts.refusedTerms++
        return false
      }
      this.#launcherTerm = term
      return true
    }
    return {
      startRuntime: guarded((term: number, { id, incarnation, chain }: Launched & { chain: number }) => {
        if (!accepts(term) || this.#launched.has(incarnation)) return
        this.#launched.add(incarnation)
        this.counts.started++
        if (!this.#starting.has(incarnation)) this.violate(`life ${incarnation} is started, and nobody has decided it (${host.life})`)
        this.nodes.set(`runtime ${incarnation}`, new ModelRuntime(this, id, incarnation, chain))
      }),
      stopRuntime: guarded((term: number, { incarnation }: Launched) => {
        if (!accepts(term)) return
        const one = this.nodes.get(`runtime ${incarnation}`)
        if (one instanceof ModelRuntime) this.end(one)
      }),
      running: () => [...this.nodes.values()].filter((one) => one instanceof ModelRuntime && one.isAlive)
        .map(({ id, incarnation }) => ({ id, incarnation })),
    }
  }

  // -- Nodes -----------------------------------------------------------------------------------------------------------

  runtimes(): ModelRuntime[] {
    return [...this.nodes.values()].filter((one) => one instanceof ModelRuntime && one.isAlive) as ModelRuntime[]
  }

  /** A process ends; whoever started it tells every controller that it reaches. */
  end(one: ModelNode, isTold = true): void {
    if (!one.isAlive) return
    one.isAlive = false
    if (isTold) this.tell(one, (controller) => { controller.ended(one.id, one.incarnation) })
    if (!(one instanceof ModelRuntime)) return
    this.nodes.delete(`runtime ${one.incarnation}`)
    this.leaveBlocks(one)
  }

  /** The flows of a runtime that is gone have something in blocks: whoever recovers flows next has those. */
  leaveBlocks(one: ModelRuntime): void {
    for (const key of one.blocksInUse) this.#leftBlocks.add(key)
  }

  takeBlocks(): readonly string[] {
    const taken = [...this.#leftBlocks]
    this.#leftBlocks.clear()
    return taken
  }

  /** A runtime gets a block: no other that is in the configuration may have flows with something in it. */
  checkBlock(one: ModelRuntime, key: string): void {
    this.#leftBlocks.delete(key)
    const there = new Set((this.document('cluster') as ClusterDocument).config.runtimes.map(({ incarnation }) => incarnation))
    if (!there.has(one.incarnation)) return
    const other = this.runtimes().find((other) => other !== one && there.has(other.incarnation) && other.blocksInUse.includes(key))
    if (other !== undefined) this.violate(`life ${one.incarnation} gets block ${key}, which flows of life ${other.incarnation} use`)
  }

  isCut(a: string | number, b: string | number): boolean {
    return this.cut.has(`${a}|${b}`) || this.cut.has(`${b}|${a}`)
  }

  /** From a node to every controller. */
  tell(from: ModelNode, deliver: (controller: Controller, now: TimeUs) => void): void {
    for (const host of this.hosts) {
      if (host.controller === null || this.isCut(host.name, from.id) || this.random.chance(this.loss)) continue
      host.inbox.push({ at: this.#arrival(), deliver })
    }
  }

  #send(host: Host, node: number, incarnation: number, command: NodeCommand): void {
    const known = this.#leaders.get(command.term)
    if (known !== undefined && known !== host.life) this.violate(`${known} and ${host.life} command in term ${command.term}`)
    if (known === undefined) this.counts.leaders++
    this.#leaders.set(command.term, host.life)
    if (this.isCut(host.name, node) || this.random.chance(this.loss)) return
    for (const one of this.nodes.values()) {
      if (one.id === node && one.isAlive && (incarnation === 0 || one.incarnation === incarnation)) {
        one.inbox.push({ at: this.#arrival(), command })
      }
    }
  }

  /** Messages overtake each other now and then. */
  #arrival(): TimeUs {
    return this.now + this.random.below((this.random.chance(0.05) ? 15 : 2) * STEP_US)
  }

  // -- Time ------------------------------------------------------------------------------------------------------------

  step(): void {
    this.now += STEP_US
    const { now } = this
    for (const one of [...this.nodes.values()]) if (one.isAlive && now >= one.pausedUntil) one.step()
    for (const host of this.hosts) {
      host.store.pass(now)
      if (host.controller === null) {
        if (now >= host.restartAt) this.#start(host, this.#founding)
        continue
      }
      if (now < host.clockSlowUntil) host.behindUs += STEP_US * 0.9
      if (now < host.pausedUntil) continue
      const clock = now - host.behindUs + host.aheadUs
      const due = host.inbox.filter(({ at }) => at <= now)
      host.inbox.splice(0, Infinity, ...host.inbox.filter(({ at }) => at > now))
      for (const { deliver } of due) deliver(host.controller, clock)
      try {
        host.controller.poll(clock)
      } catch (error) {
        if (!(error instanceof Killed)) throw error
        this.kill(host)
      }
    }
  }

  run(us: number): void {
    for (const end = this.now + us; this.now < end;) this.step()
  }

  /** Ends all faults. */
  heal(): void {
    this.loss = 0
    this.cut.clear()
    for (const host of this.hosts) {
      host.pausedUntil = host.clockSlowUntil = host.behindUs = 0
      host.actionsLeft = Infinity
      host.store.faults = { ...noStoreFaults }
    }
    for (const one of this.nodes.values()) one.pausedUntil = 0
  }

  document<K extends 'cluster' | 'scale' | 'rollout'>(kind: K): ReturnType<typeof decodeDocument<K>> | undefined {
    const entry = this.store.entry(kind)
    return entry === undefined ? undefined : decodeDocument(kind, kind, entry.value)
  }

  // -- Checks ----------------------------------------------------------------------------------------------------------

  #check({ changes }: StoreStep): void {
    let cluster: ClusterDocument | undefined
    let scale: ScaleDocument | undefined
    for (const { key, value } of changes) {
      if (value === null) continue
      if (key === 'leader') this.#elected = decodeDocument('leader', key, value).life
      if (key === 'cluster') cluster = decodeDocument('cluster', key, value)
      if (key === 'scale') scale = decodeDocument('scale', key, value)
      if (key.startsWith('fence/')) {
        const { incarnation, reason, isRecovered } = decodeDocument('fence', key, value)
        if (!this.#gone.has(incarnation)) this.counts.fenced++
        this.#gone.add(incarnation)
        if (reason === 'drained' && isRecovered) this.#checkDrained(incarnation)
      }
    }
    // The end of a lease is the store's own doing.
    if (this.#writer !== '' && this.#writer !== this.#elected) this.violate(`${this.#writer} writes, ${this.#elected} was elected`)
    if (cluster !== undefined) this.#checkConfig(cluster)
    if (scale !== undefined) this.#checkScale(scale)
  }

  #checkDrained(incarnation: number): void {
    this.counts.drained++
    const one = this.nodes.get(`runtime ${incarnation}`)
    if (one instanceof ModelRuntime && one.flows > 0) this.violate(`life ${incarnation} is removed with ${one.flows} flows`)
  }

  #checkConfig({ config }: ClusterDocument): void {
    const text = JSON.stringify(config)
    const known = this.#configs.get(config.version)
    if (known !== undefined && known !== text) this.violate(`two configurations with version ${config.version}`)
    this.#configs.set(config.version, text)
    if (config.version < this.#version || config.version > this.#version + 1) this.violate(`version ${config.version} after ${this.#version}`)
    this.#version = config.version
    this.counts.configs = config.version
    const there = new Set([...config.switches, ...config.runtimes].map(({ incarnation }) => incarnation))
    for (const incarnation of this.#living) if (!there.has(incarnation)) this.#gone.add(incarnation)
    for (const incarnation of there) {
      if (incarnation === 0) continue
      if (this.#gone.has(incarnation)) this.violate(`life ${incarnation} was gone and is in version ${config.version}`)
      this.#living.add(incarnation)
    }
  }

  #checkScale(scale: ScaleDocument): void {
    if (scale.decision !== this.#decision && scale.decision !== this.#decision + 1) {
      this.violate(`decision ${scale.decision} after ${this.#decision}`)
    }
    this.#decision = scale.decision
    this.counts.decisions = scale.decision
    const more = scale.starting.filter(({ incarnation }) => !this.#starting.has(incarnation))
    this.#starting = new Set(scale.starting.map(({ incarnation }) => incarnation))
    if (more.length === 0) return
    const { config } = this.document('cluster') as ClusterDocument
    const serving = config.runtimes.filter(({ isDraining }) => !isDraining).length
    const rollout = this.document('rollout')
    const surge = rollout?.phase === 'rolling' || rollout?.phase === 'rolling-back' ? 1 : 0
    if (more.length > 1 || serving + scale.starting.length > scale.desired + surge) {
      this.violate(`${scale.starting.length} starting and ${serving} serving, ${scale.desired} wanted`)
    }
  }

  /** A node has taken a configuration: it must be the one of this version. */
  checkTaken(config: ClusterConfig): void {
    if (this.#configs.get(config.version) === JSON.stringify(config)) return
    this.violate(`a configuration of version ${config.version} that is not the store's`)
  }

  /** Fenced, and its flows not yet recovered. */
  #isOpen(incarnation: number): boolean {
    const key = `fence/${incarnation}`
    const entry = this.store.entry(key)
    return entry !== undefined && !decodeDocument('fence', key, entry.value).isRecovered
  }

  /** What is not yet as it should be when all is quiet. */
  unsettled(): string[] {
    const cluster = this.document('cluster')
    const scale = this.document('scale')
    if (cluster === undefined || scale === undefined) return ['nothing has been founded']
    const { config } = cluster
    const wrong: string[] = []
    const leaders = this.hosts.filter(({ controller }) => controller !== null && controller.term !== 0)
    if (leaders.length !== 1) wrong.push(`${leaders.length} leaders`)
    if (scale.starting.length > 0) wrong.push(`starting ${scale.starting.map(({ id }) => id).join()}`)
    // A rollout that pauses keeps the one that it has more.
    const more = this.document('rollout')?.phase === 'paused' ? 1 : 0
    const drained = config.runtimes.filter(({ isDraining }) => isDraining)
    const held = drained.filter(({ incarnation }) => scale.held.includes(incarnation)).length
    const wanted = Math.max(scale.desired, held + 1)
    if (config.runtimes.length < wanted || config.runtimes.length > wanted + more) {
      wrong.push(`${config.runtimes.length} runtimes, ${scale.desired} wanted, ${held} held`)
    }
    const open = [...this.#gone].filter((incarnation) => this.#isOpen(incarnation))
    if (open.length > 0) wrong.push(`not recovered: ${open.join()}`)
    if (drained.length > held) wrong.push('draining')
    if (config.switches.some(({ incarnation }) => incarnation === 0)) wrong.push('a switch is missing')
    const processes = this.runtimes().map(({ incarnation }) => incarnation).sort().join()
    const meant = config.runtimes.map(({ incarnation }) => incarnation).sort().join()
    if (processes !== meant) wrong.push(`processes ${processes}, configured ${meant}`)
    for (const one of this.nodes.values()) {
      if (one.configVersion !== config.version) wrong.push(`node ${one.id} has version ${one.configVersion}, not ${config.version}`)
    }
    return wrong
  }
}
