/**
 * Ledger and checkers: every packet that the simulator sends is accounted for, and what network functions see is held against what
 * they should. PROTOCOL, "Checked in every simulation step".
 *
 *     exactly-once   a packet leaves once at the far side
 *     order          packets of one side of a flow leave in the order they came
 *     one-owner      one runtime processes a flow in an epoch; epochs and flow ids do not go back
 *     state          a flow's state has seen exactly the packets that were processed, in order, also after moves
 *     verdict        what a network function drops does not leave
 *     loss           each packet that did not leave is lost by a fault, dropped with a count, or in a node that crashed
 *     drops          packets are dropped only for reasons that the faults permit
 *     conservation   per node and turn: received + emitted + taken over = forwarded + dropped + buffered + handed over
 *     pools          at the end nothing is left: no entries, records, packets
 *     convergence    when all is healed, everything that was begun ends in time
 */

import { ERROR_FLOWS, hasTrailer, trailerFlow, trailerId, trailerSequence, trailerSide } from './trailer.ts'

export type Checker = 'exactly-once' | 'order' | 'one-owner' | 'state' | 'verdict' | 'loss' | 'drops' | 'conservation' | 'pools' |
  'convergence' | 'invariant'

export interface Violation {
  readonly checker: Checker
  readonly detail: string
}

const Status = { unknown: 0, sent: 1, left: 2, lost: 3, refused: 4 } as const

/** What is known of one life of a flow. */
interface FlowLife {
  /** Incarnation of the runtime that processed it last, and at which epoch. */
  owner: number
  epoch: number
  /** Packets processed since its state was new. */
  processed: number
  /** Crashes that had happened when it was processed last. */
  crashes: number
}

export interface ProcessedPacket {
  readonly runtime: number
  readonly incarnation: number
  readonly flowId: number
  readonly epoch: number
  /** What the flow's state says after this packet. */
  readonly count: number
  /** The last sequence number of this side before this packet, by the flow's state. */
  readonly before: number
}

export class Ledger {
  readonly violations: Violation[] = []
  sent = 0
  left = 0
  /** Packets lost by faults of links and at nodes that were not there. */
  lost = 0
  /** Packets that a network function has dropped. */
  refused = 0
  /** Crashes of runtimes or switches so far. */
  crashes = 0
  /** False where data links lose or reorder: order and continuity are not promised there. */
  readonly isOrdered: boolean
  readonly #status: Uint8Array
  readonly #lives = new Map<number, FlowLife>()
  readonly #newest = new Map<number, number>()
  /** Last sequence number that has left, by flow and side. */
  readonly #lastLeft = new Map<number, number>()
  #limit = 20

  constructor(packets: number, isOrdered: boolean) {
    this.#status = new Uint8Array(packets + 1)
    this.isOrdered = isOrdered
  }

  violate(checker: Checker, detail: string): void {
    if (this.#limit-- > 0) this.violations.push({ checker, detail })
  }

  send(id: number): void {
    this.sent++
    this.#status[id] = Status.sent
  }

  /** A frame has left at the far side. */
  leave(frame: Uint8Array): void {
    if (!hasTrailer(frame)) return
    const end = frame.length
    const id = trailerId(frame, end)
    const flow = trailerFlow(frame, end)
    const side = trailerSide(frame, end)
    const sequence = trailerSequence(frame, end)
    const what = `packet ${id} of flow ${flow}, side ${side}, number ${sequence}`
    switch (this.#status[id]) {
      case Status.left:
        this.violate('exactly-once', `${what} has left twice`)
        break
      case Status.refused:
        this.violate('verdict', `${what} was dropped by a network function and has left`)
        break
      case Status.lost:
        this.violate('exactly-once', `${what} was lost and has left`)
        break
      default:
        this.left++
    }
    this.#status[id] = Status.left
    const key = flow * 2 + side
    const last = this.#lastLeft.get(key) ?? 0
    // An ICMP error is a flow of its own while the flow that it is about is not known.
    if (sequence <= last && this.isOrdered && flow < ERROR_FLOWS) this.violate('order', `${what} has left behind number ${last}`)
    this.#lastLeft.set(key, Math.max(last, sequence))
  }

  /** A packet of ours is lost by a fault. */
  lose(frame: Uint8Array): void {
    if (!hasTrailer(frame)) return
    this.lost++
    this.#status[trailerId(frame, frame.length)] = Status.lost
  }

  /** A network function drops a packet. */
  refuse(id: number): void {
    this.refused++
    this.#status[id] = Status.refused
  }

  /** A flow's state is new. */
  began(flowId: number): void {
    const life = this.#lives.get(flowId)
    if (life !== undefined) life.processed = 0
  }

  /** A network function has processed a packet. */
  processed(flow: number, side: number, sequence: number, packet: ProcessedPacket): void {
    const { flowId, incarnation, epoch, count, before, runtime } = packet
    const where = `flow ${flow} (id ${flowId}) at runtime ${runtime}.${incarnation}, epoch ${epoch}`
    const newest = this.#newest.get(flow) ?? 0
    if (flowId < newest) this.violate('one-owner', `${where} processes a packet although it lives as id ${newest}`)
    else this.#newest.set(flow, flowId)
    let life = this.#lives.get(flowId)
    if (life === undefined) {
      life = { owner: incarnation, epoch, processed: 0, crashes: this.crashes }
      this.#lives.set(flowId, life)
    }
    if (epoch < life.epoch || (epoch === life.epoch && incarnation !== life.owner)) {
      this.violate('one-owner', `${where} processes a packet after runtime ${life.owner} did at epoch ${life.epoch}`)
    }
    life.owner = incarnation
    life.epoch = epoch
    life.processed++
    if (count !== life.processed) {
      // After a crash an older state may go on.
      if (life.crashes === this.crashes) {
        this.violate('state', `${where}: its state has seen ${count} packets, ${life.processed} were processed`)
      }
      life.processed = count
    }
    life.crashes = this.crashes
    if (sequence <= before && this.isOrdered) {
      this.violate('state', `${where}: number ${sequence} of side ${side} comes behind number ${before}`)
    }
  }

  /** The first packets that nobody accounts for, for people. */
  *unaccounted(): Generator<number> {
    for (let id = 1; id < this.#status.length; id++) if (this.#status[id] === Status.sent) yield id
  }
}
