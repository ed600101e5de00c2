/**
 * Controller: watches the nodes, and brings the cluster to where it should be. Paper §5.3. It is never on the path of a packet, nor of a
 * flow's move.
 *
 *     reports, ends ─▶ detector ─┐
 *                                ├─▶ view ─▶ deciders ─▶ one transaction at a time ─▶ store
 *     store ─▶ mirror ───────────┘     │
 *                                      └─▶ commands, processes: what the store says and reports do not show yet
 *
 * Every controller watches and keeps the mirror; only the leader decides and commands. It is crash-only: what it decides is in
 * the store before anything follows from it, and everything that follows is brought about from there, again and again until
 * it is seen. So it may die at any moment, and another goes on; there is nothing to shut down or to hand over. What is
 * kept in memory (averages, since when something lasts) only makes a new leader wait a little longer.
 *
 * All time is passed in. `poll` is to be called every few milliseconds, reports as they come.
 */

import type { TimeUs } from '../base/clock.ts'
import type { Side } from '../messages/cluster-config.ts'
import { autoscale, defaultAutoscalerLimits, type AutoscalerLimits, type AutoscalerMemory } from './autoscaler.ts'
import { REPORT_US, totalDemandOf, viewOf, type ClusterView, type HeardReport, type Observations } from './cluster-view.ts'
import { CommandSender, openFences } from './command-sender.ts'
import { defaultDetectorLimits, FailureDetector, type DetectorLimits, type Judgement } from './failure-detector.ts'
import { plantedInControl as planted } from './control-bugs.ts'
import { decideFencing, defaultFencingLimits, fence, recoveryState, type FencingLimits, type FencingMemory } from './fencing.ts'
import { decideMoves, defaultMoveLimits, type MoveLimits, type MoveMemory, type MoveOrder } from './flow-moves.ts'
import { carryOutIntent, type Intent, type IntentRefusal } from './intents.ts'
import type { Launcher } from './launcher.ts'
import { defaultLeadershipLimits, Leadership, type LeadershipLimits } from './leadership.ts'
import { silentMachineOf } from './machines.ts'
import type { Hello, NodeLinks, Report } from './node-commands.ts'
import { leaseBlocks, type BlockMemory } from './port-blocks.ts'
import { assignReplicas, FAN_OUT, sameLists } from './replica-assignment.ts'
import { decideRollout, defaultRolloutLimits, type RolloutLimits, type RolloutMemory } from './rollout.ts'
import { carryOutStep, decideScaling, defaultScalingLimits, hasRoom, isHeld, type ScalingLimits } from './scaling.ts'
import { Draft, StateMirror } from './state-mirror.ts'
import type { Store, StoreAnswer, StoreRequest } from './store.ts'

export interface ControllerLimits {
  readonly detector: DetectorLimits
  readonly fencing: FencingLimits
  readonly leadership: LeadershipLimits
  readonly autoscaler: AutoscalerLimits
  readonly moves: MoveLimits
  readonly rollout: RolloutLimits
  readonly scaling: ScalingLimits
  readonly fanOut: number
  /** Blocks of each shared pool. */
  readonly pools: Readonly<Record<string, number>>
  /** A leader that hears no node, or only few that hear the rest, gives way after so long, µs. */
  readonly cutOffUs: number
}

export const defaultControllerLimits: ControllerLimits = {
  detector: defaultDetectorLimits, fencing: defaultFencingLimits, leadership: defaultLeadershipLimits, autoscaler: defaultAutoscalerLimits,
  moves: defaultMoveLimits, rollout: defaultRolloutLimits, scaling: defaultScalingLimits, fanOut: FAN_OUT, pools: {}, cutOffUs: 5e6,
}

/** What the cluster is, for the first leader ever. */
export interface Founding {
  readonly clusterId: number
  readonly switches: readonly { readonly id: number; readonly side: Side; readonly isHome: boolean }[]
  readonly desired: number
  readonly isAutomatic: boolean
  readonly chain: number
}

export interface ControllerOptions {
  readonly name: string
  /** Unique to this life of the controller's process: chosen at random by its host. */
  readonly life: string
  readonly founding: Founding
  readonly limits?: Partial<ControllerLimits>
  /** For people: what has been decided. */
  readonly onEvent?: (event: { readonly at: TimeUs; readonly term: number; readonly what: string }) => void
  readonly onIntent?: (id: number, outcome: 'done' | IntentRefusal) => void
}

/** An answer to a transaction is awaited for so long, µs. */
const PATIENCE_US = 1e6
/** When the store has refused to carry one out (its disk is full, say), before the next, µs. */
const RETRY_US = 200_000
/** A hello is repeated until it is answered; one that is older may be that of a process that is gone. */
const HELLO_US = 2e6
const LAUNCHER_US = 250_000
/** Recovered fences that are remembered, and so many more before some are forgotten, in one transaction: stores bound what one may change. */
const FENCES_MAX = 256
const FORGOTTEN_AT_ONCE = 64

export class Controller {
  readonly #options: ControllerOptions
  readonly #limits: ControllerLimits
  readonly #store: Store
  readonly #launcher: Launcher
  readonly #sender: CommandSender
  readonly #detector: FailureDetector
  readonly #mirror: StateMirror
  readonly #leadership: Leadership
  #lastId = 0
  #term = 0

  // What was heard.
  readonly #reports = new Map<number, HeardReport>()
  readonly #ended = new Set<number>()
  readonly #hellos = new Map<number, { readonly hello: Hello; readonly at: TimeUs }>()

  // The transaction under way.
  #pendingId = 0
  #pendingAt: TimeUs = 0
  #pendingIs = ''
  #awaited = 0
  /** What was not carried out, as far as is known, when it was tried last; and when the next may be. */
  #failedIs = ''
  #retryAt: TimeUs = 0

  // Of this term only.
  #fencing: FencingMemory = new Map()
  #scaling: AutoscalerMemory | null = null
  #moves: MoveMemory = new Map()
  #rollout: RolloutMemory | null = null
  #blocks: BlockMemory = new Map()
  readonly #intents: { readonly id: number; readonly intent: Intent }[] = []
  #launcherAt: TimeUs = 0
  #cutOffSince: TimeUs = Infinity

  constructor(options: ControllerOptions, store: Store, links: NodeLinks, launcher: Launcher) {
    this.#options = options
    this.#limits = { ...defaultControllerLimits, ...options.limits }
    this.#store = store
    this.#launcher = launcher
    this.#sender = new CommandSender(links)
    this.#detector = new FailureDetector(this.#limits.detector)
    const nextId = (): number => ++this.#lastId
    this.#mirror = new StateMirror(nextId)
    this.#leadership = new Leadership(options.name, options.life, this.#mirror, nextId, this.#limits.leadership)
  }

  /** The term that it leads in; 0: it does not. */
  get term(): number {
    return this.#term
  }

  /** What it sees now, leader or not; undefined before the cluster has been founded. */
  view(now: TimeUs): ClusterView | undefined {
    return viewOf(this.#mirror, this.#observed(this.#detector.judge(now)), this.#term, now)
  }

  #observed(judgements: readonly Judgement[]): Observations {
    return { judgements, reports: this.#reports, ended: this.#ended, machines: this.#launcher.machines?.() ?? [] }
  }

  /** Who leads, as the store has it; empty if nobody does. */
  get leader(): string {
    return this.#mirror.get('leader')?.name ?? ''
  }

  /** Gives up its lease, so that another need not wait for its end. */
  resign(now: TimeUs): void {
    this.#leadership.resign(now, (request) => { this.#store.submit(request, now) })
  }

  /** Reports go to every controller. */
  receive(report: Report, now: TimeUs): void {
    const { node, incarnation, pausedUs, words } = report
    this.#detector.heartbeat(node, incarnation, pausedUs, words, now)
    this.#reports.set(incarnation, { report, at: now })
  }

  /** A sign of life from the transport. */
  heard(node: number, incarnation: number, now: TimeUs): void {
    this.#detector.heard(node, incarnation, now)
  }

  /** A switch's process asks for an incarnation, and again until it is welcome. */
  hello(hello: Hello, now: TimeUs): void {
    this.#hellos.set(hello.node, { hello, at: now })
  }

  /** Whoever started a process says that it is gone. */
  ended(node: number, incarnation: number): void {
    this.#ended.add(incarnation)
    this.#detector.ended(node, incarnation)
  }

  /** Asks for something; `onIntent` tells what came of it, under the number returned. */
  operate(intent: Intent): number {
    const id = ++this.#lastId
    this.#intents.push({ id, intent })
    return id
  }

  poll(now: TimeUs): void {
    const submit = (request: StoreRequest): void => { this.#store.submit(request, now) }
    this.#detector.tick(now)
    for (let answer = this.#store.poll(now); answer !== undefined; answer = this.#store.poll(now)) {
      if (!this.#mirror.receive(answer, submit) && !this.#leadership.receive(answer)) this.#take(answer, now)
    }
    this.#mirror.poll(now, submit)
    this.#leadership.poll(now, submit)
    if (this.#pendingId !== 0 && now - this.#pendingAt > PATIENCE_US) {
      this.#pendingId = 0
      this.#failedIs = this.#pendingIs
      this.#mirror.refresh()
    }
    // What has certainly been carried out is not to be seen: the watch has died.
    const isUnseen = this.#mirror.isFresh && this.#mirror.revision < this.#awaited
    if (this.#pendingId === 0 && isUnseen && now - this.#pendingAt > PATIENCE_US) this.#mirror.refresh()
    this.#watch(now)
    const term = this.#leadership.term(now)
    if (term !== this.#term) this.#turn(term, now)
    if (term === 0) {
      for (const { id } of this.#intents.splice(0)) this.#options.onIntent?.(id, 'not-leader')
      return
    }
    this.#giveWay(now, submit)
    this.#lead(term, now)
  }

  #turn(term: number, now: TimeUs): void {
    this.#term = term
    this.#fencing = new Map()
    this.#scaling = null
    this.#moves = new Map()
    this.#rollout = null
    this.#blocks = new Map()
    this.#launcherAt = 0
    this.#sender.reset()
    this.#tell(now, term === 0 ? 'no longer leads' : 'leads')
  }

  #tell(at: TimeUs, what: string): void {
    this.#options.onEvent?.({ at, term: this.#term, what })
  }

  /** Watches what the store says is there; forgets what is not. */
  #watch(now: TimeUs): void {
    const cluster = this.#mirror.get('cluster')
    if (cluster === undefined) return
    const { switches, runtimes } = cluster.config
    this.#detector.watch([...switches, ...runtimes], now)
    for (const node of this.#detector.late(now)) {
      this.#detector.learn(node.id, node.incarnation, this.#launcher.isStopped?.(node) === true,
        silentMachineOf(this.#launcher.machines?.() ?? [], node.id, this.#limits.scaling.firstId))
    }
    for (const [incarnation, { at }] of this.#reports) if (now - at > 60e6) this.#reports.delete(incarnation)
  }

  #giveWay(now: TimeUs, submit: (request: StoreRequest) => void): void {
    this.#cutOffSince = this.#detector.isCutOff(now) ? Math.min(this.#cutOffSince, now) : Infinity
    if (now - this.#cutOffSince < this.#limits.cutOffUs) return
    this.#cutOffSince = Infinity
    this.#tell(now, 'hears too little, and gives way')
    this.#leadership.resign(now, submit)
  }

  #take(answer: StoreAnswer, now: TimeUs): void {
    if (answer.id !== this.#pendingId) return
    this.#pendingId = 0
    if (answer.kind === 'failed') this.#retryAt = now + RETRY_US
    const isDone = answer.kind === 'transacted' && answer.isDone
    this.#failedIs = isDone ? '' : this.#pendingIs
    if (isDone) this.#awaited = answer.revision
    else this.#mirror.refresh()
  }

  /** True while what the mirror shows is the last that has been decided, as far as anyone knows. */
  get #isReady(): boolean {
    return this.#mirror.isFresh && this.#pendingId === 0 && this.#mirror.revision >= this.#awaited
  }

  #lead(term: number, now: TimeUs): void {
    const mirror = this.#mirror
    const observed = this.#observed(this.#detector.judge(now))
    const view = viewOf(mirror, observed, term, now)
    if (view === undefined) {
      if (this.#isReady) this.#commit(this.#found(now), now)
      return
    }
    // Memories go on in every round, transactions only from a state that is known to be the last.
    const draft = this.#decide(view)
    if (this.#isReady && draft !== null) this.#commit(draft, now)
    const { orders, memory } = decideMoves(view, this.#moves, this.#rollout, this.#limits.moves)
    this.#moves = memory
    this.#bringAbout(view, orders)
  }

  #commit(draft: Draft, now: TimeUs): void {
    if (now < this.#retryAt) return
    this.#pendingId = ++this.#lastId
    this.#pendingAt = now
    this.#pendingIs = draft.reason
    if (this.#pendingIs !== this.#failedIs) this.#tell(now, this.#pendingIs)
    this.#store.submit(draft.toRequest(this.#pendingId), now)
  }

  #draft(reason: string): Draft {
    return new Draft(this.#mirror, reason)
  }

  #found(now: TimeUs): Draft {
    const { clusterId, switches, desired, isAutomatic, chain } = this.#options.founding
    return this.#draft('founds the cluster')
      .put('cluster', '', { generation: 0, incarnation: 0, chains: {}, config: {
        version: 1, clusterId, runtimes: [], switches: switches.map((one) => ({ ...one, incarnation: 0 })) } })
      .put('scale', '', { desired, isAutomatic, decision: 1, decidedAt: now, chain, starting: [], held: [], leaving: [] })
      .put('replicas', '', { version: 0, of: {} })
  }

  /** The most urgent transaction, if any. */
  #decide(view: ClusterView): Draft | null {
    const { fenced, memory } = decideFencing(view, this.#fencing, this.#limits.fencing)
    this.#fencing = memory
    const scaled = this.#autoscale(view)
    const { rollout, memory: rolled } = decideRollout(view, this.#rollout, this.#limits.rollout, hasRoom(view, this.#limits.scaling))
    this.#rollout = rolled
    const { leased, memory: unused } = leaseBlocks(view, this.#blocks, this.#limits.pools)
    this.#blocks = unused
    if (fenced.length > 0) {
      return fence(this.#draft(`fences ${fenced.map(({ node, incarnation, reason }) => `${node} (life ${incarnation}, ${reason})`).join(', ')}`),
        view, fenced)
    }
    const hello = this.#welcome(view)
    if (hello !== null) return hello
    const intent = this.#intend(view)
    if (intent !== null) return intent
    const step = decideScaling(view, this.#limits.scaling)
    if (step !== null) return carryOutStep(this.#draft(`runtimes: ${step.kind}`), view, step)
    if (rollout !== null) {
      const draft = this.#draft(`rollout: ${rollout.phase}, stage ${rollout.stage}${rollout.reason === '' ? '' : `: ${rollout.reason}`}`)
        .put('rollout', '', rollout)
      return rollout.phase === 'done' ? draft.put('scale', '', { ...view.scale, chain: rollout.to }) : draft
    }
    const lists = assignReplicas(view.cluster.config.runtimes, view.replicas.of, this.#limits.fanOut)
    if (!sameLists(lists, view.replicas.of)) {
      return this.#draft('assigns replicas').put('replicas', '', { version: view.replicas.version + 1, of: lists })
    }
    if (openFences(view).length > 0 && recoveryState(view).isRecovered) return this.#recovered(view)
    const forgotten = this.#forget(view)
    if (forgotten !== null) return forgotten
    if (leased.length > 0) {
      const draft = this.#draft(`leases ${leased.length} blocks`)
      for (const { pool, number, incarnation } of leased) draft.put('block', `${pool}/${number}`, { incarnation })
      return draft
    }
    return scaled
  }

  #autoscale(view: ClusterView): Draft | null {
    const { scale, runtimes, starting, rollout, now } = view
    // A new leader does not know the load before every runtime has reported, and that of one that is silent nobody knows.
    if (!scale.isAutomatic || runtimes.some(({ report }) => report === null)) return null
    const isBusy = starting.length > 0 || runtimes.some((one) => one.isDraining && !isHeld(view, one)) || openFences(view).length > 0 ||
      rollout?.phase === 'rolling' || rollout?.phase === 'rolling-back' || rollout?.phase === 'paused' ||
      // Where there is no room for more than there are, nothing is under way: what is wanted in vain may be less again.
      (runtimes.length + starting.length < scale.desired && hasRoom(view, this.#limits.scaling))
    const demand = totalDemandOf(view)
    const { decision, memory } = autoscale(
      { now, demand, desired: scale.desired, decidedAt: scale.decidedAt, isBusy }, this.#scaling, this.#limits.autoscaler)
    this.#scaling = memory
    return decision === null ? null : this.#draft(`scales from ${scale.desired} to ${decision.desired}: ${decision.reason}`)
      .put('scale', '', { ...scale, desired: decision.desired, decision: scale.decision + 1, decidedAt: now })
  }

  /** Gives a switch that has come its incarnation; its former one is fenced. */
  #welcome(view: ClusterView): Draft | null {
    const { cluster, term, now } = view
    for (const [node, { hello: { nonce }, at }] of this.#hellos) {
      const entry = cluster.config.switches.find(({ id }) => id === node)
      const life = this.#mirror.get('life', `${node}`)
      // One that was fenced before it was welcome gets another life; one that has lived comes with another nonce.
      const isWelcome = entry !== undefined && life?.nonce === nonce && entry.incarnation === life.incarnation
      if (entry === undefined || isWelcome || now - at > HELLO_US) {
        this.#hellos.delete(node)
        if (isWelcome) this.#sender.welcome(node, nonce, life.incarnation, term, now)
        continue
      }
      const incarnation = cluster.incarnation + 1
      const draft = this.#draft(`gives switch ${node} life ${incarnation}`).put('life', node, { nonce, incarnation })
      if (entry.incarnation !== 0) {
        draft.put('fence', entry.incarnation, { node, incarnation: entry.incarnation, generation: cluster.generation + 1, term, chain: 0,
          reason: 'replaced', isRecovered: false })
      }
      return draft.put('cluster', '', { ...cluster, incarnation, generation: cluster.generation + (entry.incarnation === 0 ? 0 : 1),
        config: { ...cluster.config, version: cluster.config.version + 1,
          switches: cluster.config.switches.map((one) => (one.id === node ? { ...one, incarnation } : one)) } })
    }
    return null
  }

  #intend(view: ClusterView): Draft | null {
    for (let first = this.#intents[0]; first !== undefined; first = this.#intents[0]) {
      const { id, intent } = first
      const outcome = carryOutIntent(intent, view, this.#limits.autoscaler, this.#draft(`as ordered: ${intent.kind}`))
      if (outcome instanceof Draft) return outcome
      if (!this.#isReady) return null
      this.#intents.shift()
      this.#options.onIntent?.(id, outcome)
    }
    return null
  }

  /** Marks what has been recovered. */
  #recovered(view: ClusterView): Draft {
    const draft = this.#draft('has recovered what was fenced')
    for (const one of openFences(view)) draft.put('fence', one.incarnation, { ...one, isRecovered: true })
    return draft
  }

  /** Forgets what was recovered long ago: that of runtimes which were drained, or did not start, was from the beginning. */
  #forget({ fences }: ClusterView): Draft | null {
    if (fences.length < FENCES_MAX + FORGOTTEN_AT_ONCE) return null
    const recovered = fences.filter(({ isRecovered }) => isRecovered)
    if (recovered.length < FENCES_MAX + FORGOTTEN_AT_ONCE) return null
    const draft = this.#draft('forgets what was fenced long ago')
    for (const { incarnation } of recovered.sort((a, b) => a.incarnation - b.incarnation).slice(0, FORGOTTEN_AT_ONCE)) {
      draft.remove('fence', incarnation)
    }
    return draft
  }

  /** Nodes and processes: what the store says, and is not so yet. */
  #bringAbout(view: ClusterView, orders: readonly MoveOrder[]): void {
    const { now, term, cluster, runtimes, switches, starting } = view
    const known = new Set([...runtimes, ...switches].map(({ incarnation }) => incarnation))
    for (const { runtime } of starting) known.add(runtime.incarnation)
    const lost = [...this.#reports.values()].filter(({ at }) => now - at <= REPORT_US).map(({ report }) => report)
      .filter(({ incarnation }) => !known.has(incarnation) && incarnation <= cluster.incarnation)
    for (const incarnation of this.#ended) if (!known.has(incarnation)) this.#ended.delete(incarnation)
    this.#sender.send(view, lost, orders)
    if (now - this.#launcherAt < LAUNCHER_US) return
    this.#launcherAt = now
    const running = this.#launcher.running()
    for (const { runtime: { id, incarnation, chain } } of starting) {
      if (!running.some((one) => one.incarnation === incarnation)) this.#launcher.startRuntime(term, { id, incarnation, chain })
    }
    for (const { id, incarnation } of running) {
      if (planted.orphans) break
      if (!known.has(incarnation) && incarnation <= cluster.incarnation) this.#launcher.stopRuntime(term, { id, incarnation })
    }
  }
}
