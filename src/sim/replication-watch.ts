/**
 * Replication watch: what a simulation can see of replication only over time, or from what nodes say to each other.
 *
 *     replica   while no fault is at work, a flow without a replica gets one soon; of many flows with a replica that are ordered to
 *               move some do
 *     answer    a runtime that is asked to take a flow answers
 *     async     while no fault is at work, a replica does not stay behind its flow by more packets than may be; so many of its state a flow may
 *               lose with its owner (the ledger counts those), and those on their way
 */

import type { Arena } from '../memory/arena.ts'
import { PrepareFlow, PrepareFlowReplica, PrepareFlowReply } from '../messages/migration.ts'
import type { RuntimeNode } from '../node/runtime-node.ts'
import { keptProgress, seenOf } from './chain-checks.ts'
import type { FaultKind } from './fault-kinds.ts'
import type { Progress } from './ledger.ts'
import { ReadingWatch } from './reading-watch.ts'
import type { SimNode, Simulation } from './simulation.ts'

/** In `async`: packets between two copies of a record. */
export const REPLICATE_EVERY = 3
/** Packets of its state that a flow may lose in `async`. */
const ASYNC_LOSS = REPLICATE_EVERY - 1
/** Faults under which a record is under way no longer than it takes. */
const prompt: readonly FaultKind[] = ['crash', 'skew', 'restart', 'link-delay']
const LOOK_US = 2000
/** How many times of looking nothing has been wrong when all that was under way before has come. */
const CALM_LOOKS = 5
/**
 * How long a flow may be without a replica while nothing is wrong: longer than a session that has measured nothing yet waits (20 ms) before it
 * sends again what was lost just before.
 */
const UNPROTECTED_US = 25_000
/** As many times of looking as that: a replica may be behind so long. */
const BEHIND_LOOKS = 12
/** Flows with a replica that are ordered to move, of which some would. */
const GUARDED_ORDERS = 50

export class ReplicationWatch {
  readonly #simulation: Simulation
  /** What targets were asked and sources have heard, by their incarnations. */
  readonly #questions = new Map<string, { asked: number; answered: number; readonly target: number }>()
  /** Flows with a replica that were ordered to move, and moves of such flows that were begun. */
  #ordered = 0
  #begun = 0
  #isOn = false
  /** Times of looking since something was wrong. */
  #calm = 0
  /** In `async`: how far flows had come when they were looked at last, and the time before, by id and by owner's incarnation. */
  #progress = new Map<string, Progress>()
  #before = new Map<string, Progress>()
  /** What a replica has yet to have, and how often it has been looked for. */
  #behind = new Map<string, { readonly due: Progress; readonly looks: number }>()

  readonly #reading: ReadingWatch

  constructor(simulation: Simulation) {
    this.#simulation = simulation
    this.#reading = new ReadingWatch(simulation)
  }

  start(): void {
    const { options } = this.#simulation
    if (options.replication === 'none') return
    this.#isOn = true
    this.#look(new Map())
  }

  stop(): void {
    this.#isOn = false
  }

  /** A runtime is ordered to move so many flows. */
  ordered({ id, node }: SimNode, target: number, number: number): void {
    const { flows, replicaOf } = node as RuntimeNode
    if (target === id || !this.#simulation.liveRuntimes().some((one) => one.id === target)) return
    const guarded = [...flows()].filter(({ flow, phase }) => phase === 'active' && replicaOf(flow) !== 0).length
    this.#ordered += Math.min(number, guarded)
  }

  /** A node is about to handle a message. */
  message({ id, incarnation, config }: SimNode, peer: number, { u8, u32 }: Arena, at: number): void {
    const isAnswer = u8[at] === PrepareFlowReply.type
    if (!isAnswer && u8[at] !== PrepareFlow.type) return
    if (!isAnswer && u32[(at + PrepareFlowReplica) >> 2] !== 0) this.#begun++
    const other = config?.runtimes.find((entry) => entry.id === peer)?.incarnation ?? 0
    const pair = isAnswer ? `${incarnation} ${other}` : `${other} ${incarnation}`
    const count = this.#questions.get(pair) ?? { asked: 0, answered: 0, target: isAnswer ? peer : id }
    if (isAnswer) count.answered++
    else count.asked++
    this.#questions.set(pair, count)
  }

  /** True while no fault is at work that nodes have not heard of. */
  get #isCalm(): boolean {
    const { config, network, nodes } = this.#simulation
    const entries = [...config.switches, ...config.runtimes]
    const isThere = ({ id }: SimNode): boolean => entries.some((entry) => entry.id === id && entry.incarnation !== 0)
    return network.isReliable && !network.isFull &&
      nodes.every((one) => !one.isPaused && one.slowUs === 0 && (one.node !== null || !isThere(one)))
  }

  /** Flows at runtimes that could have a replica, have none, and are about to get none. */
  #unprotected(): Set<string> {
    const live = this.#simulation.liveRuntimes()
    const found = new Set<string>()
    for (const { id, node } of live) {
      const { flows, replicaOf, anomalies, keepers, openSteps } = node as RuntimeNode
      const isUnderWay = openSteps.securing !== 0 || openSteps.claiming !== 0 || anomalies['too-large-to-replicate'] !== undefined
      if (isUnderWay || !live.some((other) => keepers.includes(other.id))) continue
      for (const { flow, phase } of flows()) {
        const keeper = live.find((other) => other.id === replicaOf(flow))?.node as RuntimeNode | undefined
        if (phase === 'active' && keeper?.keepsReplica(flow) !== true) found.add(`flow ${flow} at runtime ${id}`)
      }
    }
    return found
  }

  /** In `async`: the packets of its state that a flow may lose if its owner dies now. */
  lossMax({ incarnation }: RuntimeNode, flow: number): number {
    const { options, ledger } = this.#simulation
    if (options.replication !== 'async') return Infinity
    if (options.faults.every((kind) => prompt.includes(kind))) return ASYNC_LOSS
    const now = ledger.progressOf(flow, incarnation)
    const before = this.#before.get(`${flow} ${incarnation}`)
    // What has been processed since may be on its way.
    const isKnown = this.#calm >= CALM_LOOKS && this.#isCalm && before !== undefined && before.state === now?.state
    return isKnown ? ASYNC_LOSS + now.count - before.count : Infinity
  }

  /**
   * True for a runtime that has heard another since nothing is wrong. Where a fault has lasted, what waits is sent again after a time-out that
   * has been backed off, unless the other one is heard.
   */
  #hasHeard(node: RuntimeNode, { id }: SimNode): boolean {
    const word = node.peerWords(this.#simulation.queue.now).find(({ peer }) => peer === id)
    return word !== undefined && word.heardAgoUs < this.#calm * LOOK_US
  }

  /** In `async`: replicas come to have what their flows had seen some time ago, but for the packets that may be. */
  #lookBehind(): void {
    const { ledger } = this.#simulation
    const live = this.#simulation.liveRuntimes()
    const progress = new Map<string, Progress>()
    const behind = new Map<string, { readonly due: Progress; readonly looks: number }>()
    for (const { id, incarnation, node } of live) {
      const { flows, replicaOf } = node as RuntimeNode
      for (const { flow, phase } of flows()) {
        const now = ledger.progressOf(flow, incarnation)
        const keeper = live.find((other) => other.id === replicaOf(flow))
        if (now === null || keeper === undefined || phase !== 'active') continue
        if (!this.#hasHeard(node as RuntimeNode, keeper)) continue
        const name = `${flow} ${incarnation}`
        progress.set(name, now)
        const { due, looks } = this.#behind.get(name) ?? { due: now, looks: 0 }
        const seen = seenOf(due.state, keptProgress(keeper, flow))
        if (seen + ASYNC_LOSS >= due.count || seen < 0 || due.state !== now.state) continue
        behind.set(name, { due, looks: looks + 1 })
        if (looks !== BEHIND_LOOKS) continue
        ledger.violate('async', `flow id ${flow} at runtime ${id} had seen ${due.count} packets some time ago, its replica at ` +
          `runtime ${keeper.id} has seen ${seen}`)
      }
    }
    this.#before = this.#progress
    this.#progress = progress
    this.#behind = this.#calm >= CALM_LOOKS ? behind : new Map()
  }

  #look(since: ReadonlyMap<string, number>): void {
    if (!this.#isOn) return
    const { queue, ledger } = this.#simulation
    const next = new Map<string, number>()
    this.#calm = this.#isCalm ? this.#calm + 1 : 0
    if (this.#simulation.options.replication === 'async') this.#lookBehind()
    else this.#reading.look()
    if (this.#isCalm) for (const flow of this.#unprotected()) next.set(flow, since.get(flow) ?? queue.now)
    for (const [flow, first] of next) {
      if (queue.now - first < UNPROTECTED_US) continue
      return ledger.violate('replica', `${flow} has had no replica for ${(queue.now - first) / 1000} ms`)
    }
    queue.after(LOOK_US, () => { this.#look(next) })
  }

  checkEnd(): void {
    const { nodes, ledger } = this.#simulation
    for (const [pair, { asked, answered, target }] of this.#questions) {
      const isThere = pair.split(' ').every((life) => nodes.some(({ node }) => node?.incarnation === Number(life)))
      if (!isThere || asked <= answered) continue
      ledger.violate('answer', `runtime ${target} was asked ${asked} times to take a flow and answered ${answered} times`)
    }
    if (this.#ordered > GUARDED_ORDERS && this.#begun === 0) {
      ledger.violate('replica', `of ${this.#ordered} flows with a replica that were ordered to move none has`)
    }
  }
}
