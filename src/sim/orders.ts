/**
 * Orders: what those who run a cluster tell its runtimes in a simulation, at random times: to move flows, to drain, to be removed.
 */

import type { RuntimeNode } from '../node/runtime-node.ts'
import type { SwitchNode } from '../node/switch-node.ts'
import type { SimNode, Simulation } from './simulation.ts'

export class Orders {
  readonly #simulation: Simulation
  #isOn = false

  constructor(simulation: Simulation) {
    this.#simulation = simulation
  }

  start(): void {
    this.#isOn = true
    const { random, queue } = this.#simulation
    // While nothing has been placed there yet, a runtime is empty at once, but for what is on its way.
    if (random.chance(0.5)) queue.after(random.below(4000), () => { this.#removeWhilePlaced() })
    this.#next()
  }

  /** Removes a runtime, rather an idle one, at a moment when a home is about to place a flow. */
  #removeWhilePlaced(): void {
    const { queue, random, watches } = this.#simulation
    const remove = (): void => {
      if (!watches.delete(watch)) return
      const runtimes = this.#simulation.liveRuntimes()
      const idle = runtimes.filter(({ node }) => node?.flows().next().done === true)
      this.#drain(random.pick(idle.length > 0 ? idle : runtimes), true)
    }
    const watch = ({ isSwitch, node }: SimNode): void => {
      if (isSwitch && node !== null && node.openSteps.asking > 0) queue.after(random.below(10), remove)
    }
    watches.add(watch)
    queue.after(4000, remove)
  }

  stop(): void {
    this.#isOn = false
  }

  #next(): void {
    const simulation = this.#simulation
    const { random, queue } = simulation
    queue.after(200 + random.below(3000), () => {
      if (!this.#isOn) return
      const runtimes = simulation.liveRuntimes()
      if (runtimes.length > 1) {
        const source = random.pick(runtimes)
        const target = random.pick(simulation.config.runtimes)
        if (random.chance(0.03)) this.#stopPlacing()
        else if (random.chance(0.08)) this.#drain(source, random.chance(0.6))
        else if (random.chance(0.03)) this.#removeWhilePlaced()
        else this.#move(source, target.id, 1 + random.below(12))
        simulation.wake(source)
      }
      this.#next()
    })
  }

  #move(source: SimNode, target: number, number: number): void {
    this.#simulation.watch.ordered(source, target, number)
    ;(source.node as RuntimeNode).setMigrationTarget(target, number)
  }

  /** All runtimes drain at once for a while, so that new flows have to wait. */
  #stopPlacing(): void {
    const simulation = this.#simulation
    const { queue, random } = simulation
    const set = (on: boolean): void => {
      for (const one of simulation.liveRuntimes()) {
        (one.node as RuntimeNode).setDraining(on, queue.now + one.skewUs)
        simulation.wake(one)
      }
    }
    set(true)
    queue.after(1000 + random.below(4000), () => { set(false) })
  }

  /**
   * Drains a runtime; when it is empty it is removed, at once, or used again, as it is after a while in any case. The configuration says so,
   * sooner or later.
   */
  #drain(one: SimNode | undefined, isRemoved: boolean): void {
    if (one === undefined) return
    const node = one.node as RuntimeNode
    const { queue, random, watches, ledger } = this.#simulation
    const withinUs = random.pick([5, 20])
    const end = queue.now + 20_000
    node.setDraining(true, queue.now + one.skewUs)
    ledger.replaced++
    this.#listDraining(one, true)
    let nextOrder = queue.now + 1000
    let isOver = false
    const stopLooking = (): void => {
      isOver = true
      watches.delete(watch)
    }
    const look = (): void => {
      if (isOver) return
      if (one.node !== node) return stopLooking()
      if (node.isEmpty && !one.isPaused) {
        this.#checkEmpty(one)
        if (isRemoved) {
          stopLooking()
          return this.#retire(one, node)
        }
      } else if (queue.now >= nextOrder) {
        nextOrder = queue.now + 1000
        const target = random.pick(this.#simulation.liveRuntimes())
        if (target !== undefined && target !== one) node.setMigrationTarget(target.id, 1000)
      }
      if (node.isEmpty || queue.now > end) {
        stopLooking()
        node.setDraining(false, queue.now + one.skewUs)
        this.#listDraining(one, false)
        this.#simulation.wake(one)
      }
    }
    // Now and then, to order moves; at once behind the turn in which it has become empty, if that is its end.
    const lookOften = (): void => {
      look()
      if (!isOver) queue.after(1000, lookOften)
    }
    const watch = (turned: SimNode): void => { if (turned === one && node.isEmpty) queue.after(random.below(withinUs), look) }
    if (isRemoved && random.chance(2 / 3)) watches.add(watch)
    queue.after(1000, lookOften)
    this.#simulation.wake(one)
  }

  #listDraining(one: SimNode, isDraining: boolean): void {
    const { config } = this.#simulation
    if (!config.runtimes.some(({ id, incarnation }) => id === one.id && incarnation === one.incarnation)) return
    this.#simulation.publish({ ...config,
      runtimes: config.runtimes.map((entry) => (entry.id === one.id ? { ...entry, isDraining } : entry)) })
  }

  /** Every switch has said that it places nothing there: no entry may name it, nor may a FlowOpen be on its way. */
  #checkEmpty(one: SimNode): void {
    const { nodes, network, ledger } = this.#simulation
    const placed = nodes.filter((other) => other.isSwitch && other.node !== null)
      .flatMap((other) => [...(other.node as SwitchNode).flows()]).find((flow) => flow.owner === one.id && flow.phase === 'active')
    if (placed !== undefined && network.isReliable) {
      ledger.violate('state', `runtime ${one.id} calls itself empty while flow ${placed.flow} is placed there`)
    }
  }

  /** A runtime that calls itself empty ends, in order: the switches hear of it when they have had all that it sent. */
  #retire(one: SimNode, node: RuntimeNode): void {
    const simulation = this.#simulation
    const { network, queue, random } = simulation
    const { buffered } = node.packets
    if (buffered !== 0) simulation.ledger.violate('pools', `runtime ${one.id} calls itself empty and has ${buffered} packets`)
    one.isRetired = true
    simulation.end(one, node)
    const leave = (): void => {
      if (network.isBusyFrom(one.id)) return queue.after(50, leave)
      simulation.reconfigure(one.id, false)
      queue.after(2000 + random.below(10_000), () => {
        simulation.reconfigure(one.id, true)
        network.stopped(one.id)
        simulation.start(one)
      })
    }
    leave()
  }
}
