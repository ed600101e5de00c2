/**
 * Fault injector: what goes wrong, when, and what it hit. Every kind that is on happens in spells of random length at random times; a
 * strike is noted together with the protocol steps that are open at that moment, so that the table "protocol phase x fault kind" shows
 * what has been tried.
 */

import type { RuntimeNode } from '../node/runtime-node.ts'
import { readInProgress } from '../runtime/in-progress.ts'
import type { FaultKind } from './fault-kinds.ts'
import { huntsLearners, protocolPhases } from './simulation-report.ts'
import type { NetworkFaults } from './network.ts'
import type { SimNode, Simulation } from './simulation.ts'

/** Steps that are open so rarely that faults wait for them. */
const RARE_PHASES = ['handing', 'takingBack', 'takingBack', 'takingBack', 'orphaned', 'placing']
/** How long a fault waits for a step to be open. */
const PATIENCE_US = 24_000
/** Strikes of one kind that are looked at closely in one run; the rest is more of the same. */
const NOTED_MAX = 400

export class FaultInjector {
  /** True when a fault struck an open step. */
  counted = false
  readonly phases: Record<string, Partial<Record<FaultKind, number>>> = {}
  readonly #simulation: Simulation
  readonly #noted = new Map<FaultKind, number>()
  #isOn = false
  /** Every eighth seed hunts the rarest step: a flow goes on where it was prepared, for its source has died. */
  readonly #huntsHeirs: boolean
  /** How often switches end, too, when a runtime does. */
  readonly #crashesBoth: number

  constructor(simulation: Simulation) {
    this.#huntsHeirs = simulation.options.seed % 8 === 2
    this.#crashesBoth = huntsLearners(simulation.options.seed) ? 0.8 : 0.2
    this.#simulation = simulation
    simulation.network.onStrike = (kind) => { this.#strike(kind) }
  }

  #strike(kind: FaultKind): void {
    const noted = (this.#noted.get(kind) ?? 0) + 1
    this.#noted.set(kind, noted)
    if (noted > NOTED_MAX) return
    for (const { node } of this.#simulation.nodes) {
      if (node === null) continue
      const { openSteps } = node
      for (const phase in openSteps) {
        if (openSteps[phase] === 0) continue
        this.counted = true
        const row = this.phases[phase] ??= {}
        row[kind] = (row[kind] ?? 0) + 1
      }
    }
  }

  start(): void {
    this.#isOn = true
    for (const kind of this.#simulation.options.faults) this.#spells(kind)
  }

  /** Spells of one kind until all is healed. */
  #spells(kind: FaultKind): void {
    const { random, queue } = this.#simulation
    queue.after(random.below(25_000), () => {
      const isOfLinks = kind.startsWith('link-')
      const isAmbush = kind !== 'crash' && this.#simulation.options.faults.includes('crash') &&
        random.chance(this.#huntsHeirs ? 0.8 : isOfLinks ? 0.3 : 0.15)
      const begin = (): void => {
        if (!this.#isOn) return
        const end = isAmbush && isOfLinks ? this.#chance(kind as keyof NetworkFaults, 0.5) : this.#begin(kind)
        queue.after(isAmbush && isOfLinks ? 1500 : 2000 + random.below(20_000), () => {
          end()
          if (this.#isOn) this.#spells(kind)
        })
      }
      // A step so short and rare that a fault must be ready for it.
      if (isAmbush) return this.#when('inheriting', 40_000, begin, 20)
      if (this.#huntsHeirs) return this.#when('rerouting', PATIENCE_US, begin)
      // Every fourth seed hunts a rare step: a record is handed over to a runtime that dies.
      const isHunt = this.#simulation.options.seed % 4 === 0
      // Packets that are overtaken matter where flows are being re-pointed.
      if (kind === 'link-reordering' && random.chance(0.7)) this.#when('rerouting', PATIENCE_US, begin)
      else if (isHunt) this.#when(kind === 'crash' ? 'handing' : 'takingBack', PATIENCE_US, begin)
      else if (random.chance(0.4)) begin()
      else this.#when(random.chance(0.6) ? random.pick(RARE_PHASES) : random.pick(protocolPhases), PATIENCE_US, begin)
    })
  }

  /** Waits until a step is open somewhere, but not for ever. It is looked for up to `withinUs` behind a turn that leaves it open. */
  #when(phase: string, patienceUs: number, begin: () => void, withinUs = 60): void {
    if (this.#isOpen(phase)) return begin()
    const { queue, random, watches } = this.#simulation
    let isAboutToLook = false
    const watch = ({ node }: SimNode): void => {
      if (isAboutToLook || node === null || !(node.openSteps[phase] > 0)) return
      isAboutToLook = true
      queue.after(random.below(withinUs), () => {
        isAboutToLook = false
        if (this.#isOpen(phase)) end()
      })
    }
    const end = (): void => { if (watches.delete(watch)) begin() }
    watches.add(watch)
    queue.after(patienceUs, end)
  }

  /** True while a step is open anywhere. */
  #isOpen(phase: string): boolean {
    const { nodes } = this.#simulation
    for (let i = 0; i < nodes.length; i++) {
      const open = nodes[i].node?.openSteps[phase]
      if (open !== undefined && open > 0) return true
    }
    return false
  }

  /** A runtime, rather one that something is on its way to. */
  #someRuntime(): SimNode {
    const { random, nodes } = this.#simulation
    const runtimes = nodes.filter((one) => !one.isSwitch)
    const phase = this.#huntsHeirs ? 'rerouting' : 'prepared'
    const prepared = runtimes.filter(({ node }) => (node?.openSteps[phase] ?? 0) > 0)
    return random.pick(prepared.length > 0 && random.chance(0.7) ? prepared : runtimes)
  }

  /** Begins a spell; returns what ends it. */
  #begin(kind: FaultKind): () => void {
    const { random, network, nodes } = this.#simulation
    switch (kind) {
      case 'loss': return this.#chance(kind, random.pick([0.02, 0.1, 0.4]))
      case 'duplication': return this.#chance(kind, random.pick([0.1, 0.5]))
      case 'reordering': return this.#chance(kind, random.pick([0.1, 0.5]))
      case 'delay': return this.#chance(kind, random.pick([0.05, 0.3]))
      case 'corruption': return this.#chance(kind, random.pick([0.05, 0.2]))
      case 'link-loss': return this.#chance(kind, random.pick([0.005, 0.03]))
      case 'link-duplication': return this.#chance(kind, random.pick([0.01, 0.1]))
      case 'link-reordering': return this.#chance(kind, random.pick([0.02, 0.2, 0.5]))
      case 'link-delay': return this.#chance(kind, random.pick([0.01, 0.1]))
      case 'partition': return this.#partition()
      case 'crash':
        if (random.chance(0.4) && this.#cutOff()) return () => undefined
        if (this.#simulation.options.faults.includes('restart') && random.chance(this.#crashesBoth)) return this.#crashBoth()
        return this.#crash(this.#someRuntime(), kind)
      case 'crash-pair': return this.#crashPair()
      case 'poison': return this.#poison()
      case 'restart': return this.#crash(random.pick(nodes.filter((one) => one.isSwitch)), kind)
      case 'pause': return this.#pause(random.pick(nodes))
      case 'slow': return this.#slow(random.pick(nodes))
      case 'skew':
        this.#strike(kind)
        random.pick(nodes).skewUs += random.below(20_000)
        return () => undefined
      case 'full':
        network.isFull = true
        this.#strike(kind)
        return () => { network.isFull = false }
    }
  }

  #chance(kind: keyof NetworkFaults, chance: number): () => void {
    const { faults } = this.#simulation.network
    faults[kind] = chance
    return () => { faults[kind] = 0 }
  }

  #partition(): () => void {
    const { random, network, nodes } = this.#simulation
    const some = nodes.filter(() => random.chance(0.4)).map(({ id }) => id)
    const others = nodes.map(({ id }) => id).filter((id) => !some.includes(id))
    const bothWays = random.chance(0.6)
    const cut = some.flatMap((a) => others.flatMap((b) => (bothWays ? [a * 256 + b, b * 256 + a] : [a * 256 + b])))
    for (const pair of cut) network.cut.add(pair)
    return () => { for (const pair of cut) network.cut.delete(pair) }
  }

  /** A runtime to which a record was just handed can no longer tell its source so; a while later it dies. False if there is none. */
  #cutOff(): boolean {
    const { random, network, nodes, queue, options } = this.#simulation
    if (!options.faults.includes('partition')) return false
    const handing = nodes.flatMap(({ id, node }) => (node === null ? [] : [...node.flows()]
      .filter(({ phase }) => phase === 'handing').map(({ owner }) => ({ source: id, target: owner }))))
    if (handing.length === 0) return false
    const { source, target } = random.pick(handing)
    const pair = target * 256 + source
    network.cut.add(pair)
    queue.after(1000 + random.below(8000), () => {
      network.cut.delete(pair)
      if (this.#isOn) this.#crash(this.#simulation.find(target), 'crash')
    })
    return true
  }

  /** Two runtimes end at the same moment, while every flow has its replicas; they are fenced at once, or one after the other. */
  #crashPair(): () => void {
    const simulation = this.#simulation
    const { random } = simulation
    const live = simulation.liveRuntimes()
    const isWhole = live.length >= simulation.options.runtimes && live.every(({ node }) => (node as RuntimeNode).degraded === 0) &&
      simulation.nodes.every(({ node }) => ['securing', 'askingOwner', 'inheriting'].every((phase) => (node?.openSteps[phase] ?? 0) === 0))
    if (!isWhole || simulation.options.replicas < 2) return () => undefined
    const first = random.pick(live)
    const second = random.pick(live.filter((one) => one !== first))
    this.#crash(first, 'crash-pair')
    this.#crash(second, 'crash-pair')
    return () => undefined
  }

  /** A sender sends a packet that its runtime dies of, and sends it again. */
  #poison(): () => void {
    const simulation = this.#simulation
    const { random, queue } = simulation
    const flow = simulation.poison()
    for (let again = 0, us = 0; flow !== 0 && again < 3; again++) {
      us += 200 + random.below(9000)
      queue.after(us, () => { if (this.#isOn) simulation.poison(flow) })
    }
    return () => undefined
  }

  /** A runtime has died of a packet; who looks after it reads what it was at, and tells the others ahead of the news that it is dead. */
  poisoned(one: SimNode, flow: number): void {
    const simulation = this.#simulation
    simulation.ledger.poisoned(flow, one.id)
    const keys = readInProgress(one.note)
    this.#crash(one, 'poison', () => { simulation.quarantine(keys) })
  }

  /**
   * A node ends; it is fenced after a while, and later it is back in another life, or both at once.
   *
   * @param inform done before anybody hears of it
   * @param afterUs when a runtime is fenced, and a switch is back; by chance unless told
   */
  #crash(one: SimNode, kind: FaultKind, inform: () => void = () => undefined, afterUs?: number): () => void {
    const simulation = this.#simulation
    const { random, queue } = simulation
    const { config } = simulation
    const isThere = [...config.switches, ...config.runtimes].some(({ id, incarnation }) => id === one.id && incarnation === one.incarnation)
    if (one.node === null || !isThere) return () => undefined
    this.#strike(kind)
    simulation.stop(one)
    const back = (): void => {
      simulation.reconfigure(one.id, true)
      simulation.start(one)
    }
    if (!one.isSwitch && random.chance(0.3)) this.#when('inheriting', 7200, () => { this.#crashHeir(kind) })
    const isKnownFirst = !one.isSwitch || (afterUs === undefined && random.chance(0.4))
    queue.after(afterUs ?? 500 + random.below(4000), () => {
      inform()
      if (!isKnownFirst) return back()
      simulation.reconfigure(one.id, false)
      queue.after(500 + random.below(10_000), back)
    })
    return () => undefined
  }

  /**
   * Switches end, and when they are back a runtime does: they learn all flows anew while those of the runtime are recovered. Who has its
   * replicas may be busy then, and late to say so.
   */
  #crashBoth(): () => void {
    const { random, nodes, queue, options } = this.#simulation
    const us = 300 + random.below(1500)
    for (const one of nodes) {
      if (one.isSwitch && random.chance(0.7)) this.#crash(one, 'restart', undefined, random.chance(0.8) ? us + random.below(400) : undefined)
    }
    queue.after(us, () => {
      if (!this.#isOn) return
      const fencedAfterUs = 400 + random.below(1200)
      this.#crash(this.#someRuntime(), 'crash', undefined, fencedAfterUs)
      if (!options.faults.includes('pause') || random.chance(0.2)) return
      queue.after(Math.max(0, fencedAfterUs - random.below(300)), () => {
        const live = this.#simulation.liveRuntimes()
        if (this.#isOn && live.length > 0) queue.after(3000 + random.below(7000), this.#pause(random.pick(live)))
      })
    })
    return () => undefined
  }

  /** A runtime dies that is taking over what one that died had prepared there. */
  #crashHeir(kind: FaultKind): void {
    const heir = this.#simulation.nodes.find(({ node }) => (node?.openSteps.inheriting ?? 0) > 0)
    if (heir !== undefined && this.#isOn) this.#crash(heir, kind)
  }

  #pause(one: SimNode): () => void {
    const simulation = this.#simulation
    if (one.node === null || one.isPaused) return () => undefined
    this.#strike('pause')
    const { node } = one
    one.isPaused = true
    simulation.queue.set(one.turn, Infinity)
    return () => {
      if (one.node !== node) return
      one.isPaused = false
      simulation.wake(one)
    }
  }

  #slow(one: SimNode): () => void {
    this.#strike('slow')
    one.slowUs = 100 + this.#simulation.random.below(900)
    return () => { one.slowUs = 0 }
  }

  /** No more faults; those that are on end by themselves soon. */
  heal(): void {
    const { network, nodes } = this.#simulation
    this.#isOn = false
    for (const kind of Object.keys(network.faults) as (keyof NetworkFaults)[]) network.faults[kind] = 0
    network.cut.clear()
    network.isFull = false
    for (const one of nodes) {
      one.slowUs = 0
      if (!one.isPaused) continue
      one.isPaused = false
      this.#simulation.wake(one)
    }
  }
}
