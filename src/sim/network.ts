/**
 * Simulated network: data links between switches and runtimes, the control network between all nodes, and what is outside. Which faults
 * are on is set by the fault injector; each frame that one strikes is reported to it.
 */

import type { Arena } from '../memory/arena.ts'
import { EtherType, ETHERNET_TYPE } from '../wire/ethernet.ts'
import { checkReleased } from './chain-checks.ts'
import type { FaultKind } from './fault-kinds.ts'
import { hasTrailer, trailerId } from './trailer.ts'
import { SimPort, SimRing, SimRingReader, SimRingWriter, type Outlet } from './sim-port.ts'
import type { Simulation } from './simulation.ts'

/** Chances, per frame, of faults that are on. */
export interface NetworkFaults {
  loss: number
  duplication: number
  reordering: number
  delay: number
  corruption: number
  'link-loss': number
  'link-delay': number
  'link-duplication': number
  'link-reordering': number
}

const LINK_CAPACITY = 1024
/** Room of a link under the fault `full`: just above what a runtime wants to see before it reads. */
const LINK_CAPACITY_FULL = 340
const CONTROL_CAPACITY = 4096
/** How long a switch may not see that a runtime has gone. */
const DOWN_US = 3000

/** A data link in one direction. */
interface Link extends Outlet {
  readonly from: number
  readonly to: number
  lastAt: number
  /** What was sent in a former life of the node at its end does not arrive. */
  life: number
  /** A frame that was sent in a life arrives. */
  readonly arrive: (frame: Uint8Array, life: number) => void
  /** Where what the reader has not given back can be taken back. */
  readonly ring: SimRing | null
}

/** A number for the life of the node at the end of a link, and for the connection. */
const lifeOf = ({ life, ring }: Link): number => life + (ring?.connection ?? 0) * 2 ** 20

interface Control extends Outlet {
  readonly arrive: (frame: Uint8Array) => void
}

/** One name for two nodes. */
const pairOf = (from: number, to: number): number => from * 256 + to

/** The packet that this frame is, 0 for a message, also for one in which a packet goes back. */
function packetId(frame: Uint8Array): number {
  const isMessage = (frame[ETHERNET_TYPE] << 8 | frame[ETHERNET_TYPE + 1]) === EtherType.nfactor
  return isMessage || !hasTrailer(frame) ? 0 : trailerId(frame, frame.length)
}

export class SimNetwork {
  readonly faults: NetworkFaults = {
    loss: 0, duplication: 0, reordering: 0, delay: 0, corruption: 0, 'link-loss': 0, 'link-delay': 0,
    'link-duplication': 0, 'link-reordering': 0,
  }
  /** Nodes that do not hear others, as pairs. */
  readonly cut = new Set<number>()
  onStrike: (kind: FaultKind) => void = () => undefined
  /**
   * How often a packet was released once more, although a link was to bring what had been released of it. That may come behind the last word
   * of who released it: then the switch does not count it as released, a change of replica releases it again, and what comes late is dropped.
   */
  releasedAgain = 0
  /** Packets that runtimes have released and that links bring late. */
  readonly #late = new Set<number>()
  /** By packet: how often it was released, less the copies of it that links have brought to runtimes. */
  readonly #released = new Map<number, number>()
  readonly #simulation: Simulation
  readonly #links = new Map<number, Link>()
  readonly #controls = new Map<number, Control>()
  #capacity = LINK_CAPACITY
  #full = false

  constructor(simulation: Simulation) {
    this.#simulation = simulation
  }

  /** True while nothing is lost or delayed beyond what is ordinary. */
  get isReliable(): boolean {
    return this.cut.size === 0 && Object.values(this.faults).every((chance) => chance === 0)
  }

  get isFull(): boolean {
    return this.#full
  }

  set isFull(full: boolean) {
    this.#full = full
    this.#capacity = full ? LINK_CAPACITY_FULL : LINK_CAPACITY
    for (const link of this.#links.values()) link.capacity = this.#capacity
  }

  /** The link from one node to another. */
  link(from: number, to: number): Link {
    let link = this.#links.get(pairOf(from, to))
    if (link === undefined) {
      const ring = this.#simulation.options.takesBack && from < to
        ? new SimRing(SimNetwork.isPacket, (frame, isAgain) => { this.#simulation.ledger.takenBack(frame, isAgain) },
          (frames) => { this.#simulation.ledger.givenBack(frames, SimNetwork.isPacket) }) : null
      const made: Link = { from, to, load: 0, capacity: this.#capacity, lastAt: 0, life: 0, ring,
        send: (frame) => { this.#sendOnLink(made, frame) }, arrive: (frame, life) => { this.#arriveOnLink(made, frame, life) } }
      // What is kept takes room.
      if (ring !== null) Object.defineProperty(made, 'load', { get: () => ring.kept.length, set: () => undefined })
      link = made
      this.#links.set(pairOf(from, to), link)
    }
    return link
  }

  /** The port of a node to another one. */
  port(arena: Arena, from: number, to: number): SimPort {
    const outlet = this.link(from, to)
    const { ring } = from < to ? outlet : this.link(to, from)
    if (ring === null) return new SimPort(arena, outlet)
    return from > to ? new SimRingReader(arena, outlet, ring)
      : new SimRingWriter(arena, outlet, ring, (frame) => { this.#simulation.ledger.lose(frame) })
  }

  /** A switch begins: what its former life has sent cannot be taken back any more. */
  restarted(id: number): void {
    for (const { from, ring } of this.#links.values()) {
      if (ring === null || from !== id) continue
      for (const frame of ring.restart()) this.#simulation.ledger.lose(frame)
    }
  }

  /** Packets that were taken back although a runtime that is dead had received them. */
  get again(): number {
    return this.#links.values().reduce((sum, { ring }) => sum + (ring?.again ?? 0), 0)
  }

  #sendOnLink(link: Link, frame: Uint8Array): void {
    const { random, queue, ledger } = this.#simulation
    const id = packetId(frame)
    const isReleased = link.from >= 10 && id !== 0
    if (link.from >= 10) checkReleased(this.#simulation, link.from, frame)
    if (isReleased && this.#countReleased(id, 1) > 1 && this.#late.has(id)) this.releasedAgain++
    link.ring?.push(frame)
    if (link.ring?.isDead === true) return
    if (this.faults['link-loss'] > 0 && random.chance(this.faults['link-loss'])) {
      ledger.lose(frame)
      this.onStrike('link-loss')
      return
    }
    if (this.#full && link.load > 8) this.onStrike('full')
    let latency = 2 + random.below(10)
    if (this.faults['link-delay'] > 0 && random.chance(this.faults['link-delay'])) {
      latency += random.below(3000)
      this.onStrike('link-delay')
    }
    let at = Math.max(link.lastAt, queue.now + latency)
    if (this.faults['link-reordering'] > 0 && random.chance(this.faults['link-reordering'])) {
      // Those behind it do not wait for it.
      at += 1 + random.below(300)
      this.onStrike('link-reordering')
      if (isReleased) this.#late.add(id)
    } else {
      link.lastAt = at
    }
    this.#deliverOnLink(link, frame, at)
    if (this.faults['link-duplication'] > 0 && random.chance(this.faults['link-duplication'])) {
      ledger.duplicate(frame)
      if (link.to >= 10) this.#countReleased(id, -1)
      this.onStrike('link-duplication')
      this.#deliverOnLink(link, frame.slice(), at + random.below(100))
    }
  }

  #countReleased(id: number, by: number): number {
    const count = (this.#released.get(id) ?? 0) + by
    this.#released.set(id, count)
    return count
  }

  #deliverOnLink(link: Link, frame: Uint8Array, at: number): void {
    link.load++
    this.#simulation.queue.at(at, link.arrive, frame, lifeOf(link))
  }

  #arriveOnLink(link: Link, frame: Uint8Array, life: number): void {
    const simulation = this.#simulation
    const { from, to } = link
    const one = simulation.find(to)
    const port = one.links.get(from)
    if (lifeOf(link) !== life || one.node === null || port === undefined) {
      if (link.ring !== null) return
      if (link.life === life) link.load--
      simulation.lose(one, frame)
      return
    }
    simulation.trace.frame(simulation.queue.now, from, to, frame)
    port.arrive(frame, link)
    simulation.wake(one)
  }

  /** Where a control frame goes: the node that its destination address ends with. */
  control(from: number, frame: Uint8Array): Outlet {
    const to = frame[5] as number
    let outlet = this.#controls.get(pairOf(from, to))
    if (outlet === undefined) {
      const made: Control = { load: 0, capacity: CONTROL_CAPACITY, send: (sent) => { this.#sendControl(made, from, to, sent) },
        arrive: (sent) => { this.#arriveOnControl(from, to, sent) } }
      outlet = made
      this.#controls.set(pairOf(from, to), outlet)
    }
    return outlet
  }

  #sendControl(control: Control, from: number, to: number, frame: Uint8Array): void {
    const { random } = this.#simulation
    const { faults } = this
    if (this.cut.size > 0 && this.cut.has(pairOf(from, to))) {
      this.onStrike('partition')
      return
    }
    if (faults.loss > 0 && random.chance(faults.loss)) {
      this.onStrike('loss')
      return
    }
    let latency = 10 + random.below(40)
    if (faults.delay > 0 && random.chance(faults.delay)) {
      latency += random.below(6000)
      this.onStrike('delay')
    }
    if (faults.reordering > 0 && random.chance(faults.reordering)) {
      latency += random.below(400)
      this.onStrike('reordering')
    }
    if (faults.corruption > 0 && random.chance(faults.corruption)) {
      frame[random.below(frame.length)] ^= 1 << random.below(8)
      this.onStrike('corruption')
    }
    this.#deliverControl(control, frame, latency)
    if (faults.duplication > 0 && random.chance(faults.duplication)) {
      this.onStrike('duplication')
      this.#deliverControl(control, frame, latency + random.below(1000))
    }
  }

  #deliverControl({ arrive }: Control, frame: Uint8Array, latency: number): void {
    const { queue } = this.#simulation
    queue.at(queue.now + latency, arrive, frame)
  }

  #arriveOnControl(from: number, to: number, frame: Uint8Array): void {
    const simulation = this.#simulation
    const one = simulation.find(to)
    if (one === undefined || one.node === null || one.control === null) return
    simulation.trace.frame(simulation.queue.now, from, to, frame)
    one.control.arrive(frame)
    simulation.wake(one)
  }

  /** What leaves a switch towards clients or servers. */
  outside(id: number): Outlet {
    return {
      load: 0, capacity: 1e9,
      send: (frame) => {
        this.#simulation.trace.packet(this.#simulation.queue.now, 'out', id, frame)
        this.#simulation.ledger.leave(frame, id - 1)
        if (id === 2) this.#simulation.workload.heard(frame)
      },
    }
  }

  /** True while frames that a node has sent on data links have not been read at the other end. */
  isBusyFrom(id: number): boolean {
    for (const { from, ring, load } of this.#links.values()) {
      if (from === id && (ring === null ? load > 0 : ring.sent > ring.received)) return true
    }
    return false
  }

  /** A node is gone: what is on its way to it is lost, what it has sent still arrives. */
  stopped(id: number): void {
    for (const link of this.#links.values()) {
      if (link.to !== id) continue
      link.life++
      link.load = 0
      const { ring } = link
      if (ring === null) continue
      for (const frame of ring.readerWent()) this.#simulation.ledger.lose(frame)
      if (!ring.isDead) continue
      const { connection } = ring
      // Then the switch sees that nobody is there.
      this.#simulation.queue.after(this.#simulation.random.below(DOWN_US), () => { if (ring.connection === connection) ring.isDown = true })
    }
  }

  /** True for a frame that carries a packet of the workload. */
  static isPacket(frame: Uint8Array): boolean {
    return hasTrailer(frame)
  }
}
