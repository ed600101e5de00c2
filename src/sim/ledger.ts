/**
 * Ledger and checkers: every packet that the simulator sends is accounted for, and what network functions see is held against what
 * they should. PROTOCOL, "Checked in every simulation step".
 *
 *     exactly-once   a packet leaves once, at the far side
 *     addresses      a packet leaves with the Ethernet addresses that it came with
 *     order          packets of one side of a flow leave in the order they came; in `async` those since its owner died last
 *     one-owner      one runtime processes a flow in an epoch; epochs and flow ids do not go back
 *     state          a flow's state has seen exactly the packets that were processed, in order, also after moves
 *     alias          a translated packet finds its flow while that lives; no tuple belongs to two flows
 *     commit         in `commit`: a flow's state has seen every packet that has left, and survives its owner; what the state that goes on has
 *                    seen leaves; with two replicas a packet leaves when both have that state, and no state is lost while two runtimes at
 *                    most die at once
 *     async          in `async`: a flow loses no more packets of its state with its owner than may be
 *     replica        when all is healed, every flow has a replica again; flows with a replica move
 *     answer         a target that is asked to take a flow says whether it does
 *     poison         a flow kills one runtime at most
 *     anomaly        nobody reports what only a bug can cause
 *     verdict        what a network function drops does not leave
 *     loss           each packet that did not leave is lost by a fault, dropped with a count, or in a node that crashed
 *     drops          packets are dropped only for reasons that the faults permit
 *     conservation   per node and turn: received + emitted + taken over = forwarded + dropped + buffered + handed over
 *     pools          at the end nothing is left: no entries, records, packets
 *     convergence    when all is healed, everything that was begun ends in time
 */

import { AssertionError } from '../base/assert.ts'
import { ERROR_FLOWS, hasOwnAddresses, hasTrailer, trailerFlow, trailerId, trailerSequence, trailerSide } from './trailer.ts'

export type Checker = 'exactly-once' | 'addresses' | 'order' | 'one-owner' | 'state' | 'verdict' | 'loss' | 'drops' | 'conservation' | 'pools' |
  'convergence' | 'invariant' | 'alias' | 'anomaly' | 'commit' | 'async' | 'replica' | 'answer' | 'poison' | 'published' | 'share'

export interface Violation {
  readonly checker: Checker
  readonly detail: string
}

/** States of flows in a run: what a network function notes of its own. */
const STATES_MAX = 0xffff

/** What has become of the last copy of a packet. */
const Fate = { none: 0, left: 1, lost: 2, refused: 3 } as const

/** A state of a flow, from its beginning on. A connection on the ports of one that ends begins another in the same flow. */
interface FlowState {
  readonly number: number
  /** Packets that the flow's states before had seen. */
  readonly base: number
  /** How many packets it had seen with the last of those that have left. */
  left: number
  /** The packets that it has seen, by their count. */
  readonly seen: number[]
  /** An older one goes on in its place, after a crash. */
  isLost: boolean
}

/** Which state a flow has, and how many packets that has seen. */
export interface Progress {
  readonly state: number
  readonly count: number
}

/** Flows that have gone on without packets that their state had seen, those packets, and the most of one flow. */
export interface StateLost {
  flows: number
  packets: number
  most: number
}

/** What is known of one life of a flow. */
interface FlowLife {
  /** Number of the flow whose packets it processes. */
  readonly flow: number
  /** Incarnation of the runtime that processed it last, and at which epoch. */
  owner: number
  epoch: number
  /** Its states, the one that it has now last. */
  readonly states: FlowState[]
  /** Packets processed since its state was new. */
  processed: number
  /** Crashes that had happened when it was processed last. */
  crashes: number
  /** Crashes that had happened when its owner died and left a replica; 0: that was not so. */
  survives: number
  /** Its owner has died while it had no replica but one that was yet to hear what had left. */
  isExposed: boolean
  /** Its owner and the replica have died: whatever copy is left of before a move may go on, or none. */
  isAbandoned: boolean
  /** In `async`: packets of its state that it may have lost then. */
  lossMax: number
  /** Its network functions have been told that it has ended. */
  hasEnded: boolean
}

export interface ProcessedPacket {
  readonly id: number
  readonly runtime: number
  readonly incarnation: number
  readonly flowId: number
  readonly epoch: number
  /** What the flow's state says after this packet: which one it is, and how many packets it has seen. */
  readonly state: number
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
  /** Packets that left again although once should have been enough, where that is permitted. */
  repeated = 0
  readonly stateLost: StateLost = { flows: 0, packets: 0, most: 0 }
  /** True where that is permitted: links lose or double frames, or a switch forgets what it has accepted. */
  mayRepeat = false
  /** Runtimes that were to become empty: others have kept replicas in their place since. */
  replaced = 0
  /** Packets that were taken back from links whose readers had not had them, and that nobody has had since. */
  readonly #takenBack = new Set<number>()
  /** By packet id: the state that a dropped packet was part of, of those that were taken back from their dead reader. */
  readonly #undone = new Map<number, number>()
  /** Copies of packets made by faults of links. */
  duplicated = 0
  /** By packet id: copies whose fate is not known, and the fate of the last one that had one. */
  readonly #copies: Uint8Array
  readonly #fates: Uint8Array
  readonly #lives = new Map<number, FlowLife>()
  /** Translated ports that flows have. */
  readonly #claims = new Map<number, { flow: number; crashes: number }>()
  readonly #newest = new Map<number, number>()
  /** Last sequence number that has left, by flow and side. */
  readonly #lastLeft = new Map<number, number>()
  /** By flow: the runtime that has died of a packet of it. */
  readonly #killed = new Map<number, number>()
  #limit = 20

  /** True when nothing may leave whose effect a crash can undo. */
  readonly #commits: boolean
  /** By packet id: the life that processed it, the state that has seen it, and how many packets that had seen with it. */
  readonly #processedBy: Float64Array
  readonly #processedIn: Uint16Array
  readonly #processedAs: Uint32Array
  /** All states, by number. 0 is none: what network functions have in a flow that they have not begun. */
  readonly #states: FlowState[] = [{ number: 0, base: 0, left: 0, seen: [], isLost: false }]
  /** By packet id: 1 for those that a state has seen which has gone on after a crash, so that they must leave; 2: need not; 3: was held. */
  readonly #promised: Uint8Array
  /** Packets that were held in a state of which there was no copy, and that has died with its owner. */
  readonly #bereft = new Set<number>()
  /** Flows that ended in order. */
  readonly #ended = new Set<number>()
  /** True where no state may be lost, for no more runtimes die at once than there are replicas. */
  survives = false

  constructor(packets: number, isOrdered: boolean, commits = false) {
    this.#commits = commits
    this.#promised = new Uint8Array(commits ? packets + 1 : 0)
    this.#processedBy = new Float64Array(commits ? packets + 1 : 0)
    this.#processedAs = new Uint32Array(commits ? packets + 1 : 0)
    this.#processedIn = new Uint16Array(commits ? packets + 1 : 0)
    this.#copies = new Uint8Array(packets + 1)
    this.#fates = new Uint8Array(packets + 1)
    this.isOrdered = isOrdered
  }

  violate(checker: Checker, detail: string): void {
    if (this.#limit-- > 0) this.violations.push({ checker, detail })
  }

  send(id: number): void {
    this.sent++
    this.#copies[id] = 1
  }

  /** A frame has left, at the side of clients (0) or of servers (1), if that matters. */
  leave(frame: Uint8Array, at = -1): void {
    if (!hasTrailer(frame)) return
    const end = frame.length
    const id = trailerId(frame, end)
    const flow = trailerFlow(frame, end)
    const side = trailerSide(frame, end)
    const sequence = trailerSequence(frame, end)
    const violate = (checker: Checker, how: string): void => {
      this.violate(checker, `packet ${id} of flow ${flow}, side ${side}, number ${sequence} ${how}`)
    }
    if (side === at) violate('exactly-once', 'has left at the side that it came from')
    // An ICMP error may be part of a flow of all errors between its hosts, with the addresses of the first.
    if (flow < ERROR_FLOWS && !hasOwnAddresses(frame, flow, side)) {
      violate('addresses', `has left with addresses ${Buffer.from(frame.subarray(0, 12)).toString('hex')}`)
    }
    if (this.#copies[id] > 0 || this.#isUndone(id)) this.left++
    // Where a link cannot tell what it has carried, what a dead replica may have released is released again (PROTOCOL 20).
    else if (this.mayRepeat && this.crashes + this.replaced > 0) {
      this.repeated++
      return
    }
    else if (this.#fates[id] === Fate.refused) violate('verdict', 'was dropped by a network function and has left')
    else violate('exactly-once', this.#fates[id] === Fate.lost ? 'was lost and has left' : 'has left twice')
    this.#settle(id, Fate.left)
    const state = this.#commits ? this.#states[this.#processedIn[id]] : undefined
    if (state !== undefined) {
      state.left = Math.max(state.left, this.#processedAs[id])
      if (state.isLost && this.isOrdered) violate('commit', 'has left, and the state that goes on has not seen it')
    }
    const key = flow * 2 + side
    const last = this.#lastLeft.get(key) ?? 0
    // An ICMP error is a flow of its own while the flow that it is about is not known.
    if (sequence <= last && this.isOrdered && flow < ERROR_FLOWS) violate('order', `has left behind number ${last}`)
    this.#lastLeft.set(key, Math.max(last, sequence))
  }

  /** A runtime has died of a packet of a flow. */
  poisoned(flow: number, runtime: number): void {
    const before = this.#killed.get(flow)
    if (before !== undefined) this.violate('poison', `flow ${flow} has killed runtime ${before}, and now runtime ${runtime}`)
    this.#killed.set(flow, runtime)
  }

  /** A fault makes another copy of a packet. */
  duplicate(frame: Uint8Array): void {
    if (!hasTrailer(frame)) return
    this.duplicated++
    this.#copies[trailerId(frame, frame.length)]++
  }

  #settle(id: number, fate: number): void {
    if (this.#copies[id] > 0) this.#copies[id]--
    this.#fates[id] = fate
  }

  /** A packet of ours is lost by a fault. */
  lose(frame: Uint8Array): void {
    if (!hasTrailer(frame)) return
    this.lost++
    this.#settle(trailerId(frame, frame.length), Fate.lost)
  }

  /** A network function drops a packet. */
  refuse(id: number): void {
    this.refused++
    this.#settle(id, Fate.refused)
  }

  /** A flow has been granted a translated port. */
  claim(port: number, flow: number): void {
    const claim = this.#claims.get(port)
    if (claim !== undefined && claim.flow !== flow && claim.crashes === this.crashes) {
      this.violate('alias', `flow ${flow} is granted port ${port}, which flow ${claim.flow} has`)
    }
    this.#claims.set(port, { flow, crashes: this.crashes })
  }

  /** The flow that has a translated port has ended. */
  unclaim(port: number): void {
    this.#claims.delete(port)
  }

  /** A packet to a translated port has come to a flow that does not have it. */
  stray(flow: number, id: number, port: number): void {
    const claim = this.#claims.get(port)
    if (claim?.flow === flow && claim.crashes === this.crashes && this.isOrdered) {
      this.violate('alias', `packet ${id} of flow ${flow} to port ${port} does not find its flow`)
    }
    this.refuse(id)
  }

  /** A flow's state is new. Returns the number that it is to know itself by. */
  began(flowId: number): number {
    const life = this.#lives.get(flowId)
    const before = life?.states.at(-1)
    // One that is opened again on the ports of one that lingers has ended before.
    const isOpenedAnew = life !== undefined && !this.#ended.has(flowId) && life.crashes !== this.crashes
    if (this.survives && isOpenedAnew && this.#hasLeft(flowId)) {
      this.violate('commit', `flow ${life.flow} (id ${flowId}) begins anew after a crash`)
    }
    const base = (before?.base ?? 0) + (life?.processed ?? 0)
    const state: FlowState = { number: this.#states.length, base, left: 0, seen: [], isLost: false }
    if (state.number > STATES_MAX) throw new AssertionError(`a run has more than ${STATES_MAX} states of flows`)
    this.#states.push(state)
    this.#ended.delete(flowId)
    if (life !== undefined) {
      this.#checkSurvival(life, flowId)
      life.states.push(state)
      life.processed = 0
      life.hasEnded = false
    }
    return state.number
  }

  /** A packet has left that the state which a flow has now has seen. */
  #hasLeft(flowId: number): boolean {
    return (this.#lives.get(flowId)?.states.at(-1)?.left ?? 0) > 0
  }

  /** A flow's state is let go: it has ended. */
  ended(flowId: number): void {
    const life = this.#lives.get(flowId)
    if (life !== undefined) life.hasEnded = true
    this.#ended.add(flowId)
  }

  /** A flow's owner has died, and a replica of it lives. In `async` it may have lost so many packets of its state. */
  orphaned(flowId: number, lossMax = Infinity): void {
    const life = this.#lives.get(flowId)
    if (life === undefined) return
    life.survives = this.crashes
    life.lossMax = lossMax
  }

  /** In `async` the state that goes on may hold packets from before some that have left already: order begins anew with it. */
  setBack(flowId: number): void {
    const flow = this.#lives.get(flowId)?.flow ?? 0
    for (const side of [0, 1]) this.#lastLeft.delete(flow * 2 + side)
  }

  /** A flow's owner has died when all who had kept the flow before were dead: what has left of that state nobody knows. */
  exposed(flowId: number): void {
    const life = this.#lives.get(flowId)
    if (life !== undefined) this.#expose(life)
  }

  /** What had not left may have been lost with its owner, whether a packet comes that is to be seen behind it or not. */
  #expose(life: FlowLife): void {
    life.isExposed = true
    for (const { seen } of life.states) for (const id of seen) if (this.#promised[id] === 1) this.#promised[id] = 2
  }

  /** A flow's replica has died before it could go on for its owner, which is dead, too; or its owner before it had another. */
  abandoned(flowId: number): void {
    const life = this.#lives.get(flowId)
    if (life === undefined) return
    this.#expose(life)
    life.isAbandoned = true
  }

  /** A flow has died with its owner, for nobody else had a copy: what its network functions held is gone with its state. */
  bereft(flowId: number): void {
    for (const { seen } of this.#lives.get(flowId)?.states ?? []) for (const id of seen) if (this.#promised[id] === 3) this.#bereft.add(id)
  }

  /** A flow begins anew: in `commit` its state may be gone only if it has ended, or its replica has died, too; or it has killed its owner. */
  #checkSurvival(life: FlowLife, flowId: number): void {
    const mustSurvive = life.survives === this.crashes && this.#hasLeft(flowId)
    if (!this.#commits || life.hasEnded || !mustSurvive || this.#killed.has(life.flow)) return
    this.violate('commit', `flow ${life.flow} begins anew although a replica of it as id ${flowId}, epoch ${life.epoch}, lived`)
  }

  /** A network function keeps a packet for later. */
  hold(id: number): void {
    if (this.#commits) this.#promised[id] = 3
  }

  /** The flow whose state a packet is part of, which state that is, and how many packets it has seen with this one; null for none. */
  effectOf(frame: Uint8Array): { readonly flowId: number; readonly state: number; readonly count: number } | null {
    if (!this.#commits || !this.isOrdered || !hasTrailer(frame)) return null
    const id = trailerId(frame, frame.length)
    const flowId = this.#processedBy[id]
    return flowId === 0 ? null : { flowId, state: this.#processedIn[id], count: this.#processedAs[id] }
  }

  /** A packet is in the state that its flow has now. */
  #sees({ seen }: FlowState, id: number, count: number, life: FlowLife): void {
    if (life.crashes !== this.crashes) {
      const promise = life.isExposed ? 2 : 1
      for (const one of seen.slice(0, count)) if (one !== undefined && this.#promised[one] < promise) this.#promised[one] = promise
      life.isExposed = false
    }
    seen.length = count
    seen[count] = id
  }

  /** An older state of a flow goes on: those that began behind it are gone. */
  #goBack(life: FlowLife, to: FlowState, violate: (checker: Checker, how: string) => void): void {
    const { states } = life
    for (let last = states.at(-1); last !== undefined && last.number > to.number; last = states.at(-1)) {
      last.isLost = true
      const isKept = last.left > 0 && this.#commits && this.isOrdered && !life.isAbandoned
      if (isKept) violate('commit', ': its state began before one that has seen what has left')
      states.pop()
    }
    if (states.at(-1) !== to) states.push(to)
  }

  /** Packets that must have left and have not, with their flows. */
  *broken(): Generator<string> {
    for (let id = 1; id < this.#promised.length; id++) {
      // The rest of a datagram whose first fragment was dropped finds no flow at the far switch.
      if (this.#promised[id] !== 1 || this.#copies[id] === 0 || this.#fates[id - 1] === Fate.refused) continue
      yield `packet ${id} of flow ${this.#lives.get(this.#processedBy[id])?.flow} (id ${this.#processedBy[id]})`
    }
  }

  /** A network function has processed a packet. */
  processed(flow: number, side: number, sequence: number, packet: ProcessedPacket): void {
    const { flowId, incarnation, epoch, count, before, runtime, id } = packet
    const state = this.#states[packet.state]
    const violate = (checker: Checker, how: string): void => {
      this.violate(checker, `flow ${flow} (id ${flowId}) at runtime ${runtime}.${incarnation}, epoch ${epoch}${how}`)
    }
    if (state.number === 0) return violate('state', ' has a state that its network functions have not begun')
    const newest = this.#newest.get(flow) ?? 0
    if (this.survives && newest !== 0 && flowId > newest && this.#hasLeft(newest) && !this.#ended.has(newest)) {
      violate('commit', ` begins although it has not ended as id ${newest}`)
    }
    if (flowId < newest) violate('one-owner', ` processes a packet although it lives as id ${newest}`)
    else this.#newest.set(flow, flowId)
    const older = flowId > newest ? this.#lives.get(newest) : undefined
    if (older !== undefined) this.#checkSurvival(older, newest)
    let life = this.#lives.get(flowId)
    if (life === undefined) {
      life = { flow, owner: incarnation, epoch, states: [state], processed: 0, crashes: this.crashes, survives: 0, isExposed: false,
        isAbandoned: false, lossMax: Infinity, hasEnded: false }
      this.#lives.set(flowId, life)
    }
    if (epoch < life.epoch || (epoch === life.epoch && incarnation !== life.owner)) {
      violate('one-owner', ` processes a packet after runtime ${life.owner} did at epoch ${life.epoch}`)
    }
    if (life.flow !== flow) violate('alias', ` processes a packet although it is flow ${life.flow}`)
    if (this.#commits) {
      if (life.isAbandoned) state.left = Math.min(state.left, count - 1)
      const { left } = state
      if (count <= left) violate('commit', `: its state has seen ${count} packets, what has left had seen ${left}`)
      this.#sees(state, id, count, life)
      // Copies that a link has made cannot be told apart: the first counts.
      const isCopy = !this.isOrdered && this.#processedIn[id] === state.number && this.#processedAs[id] > 0
      this.#processedAs[id] = isCopy ? Math.min(count, this.#processedAs[id]) : count
      this.#processedBy[id] = flowId
      this.#processedIn[id] = state.number
    }
    life.owner = incarnation
    life.epoch = epoch
    life.processed++
    const last = life.states.at(-1) ?? state
    if (count !== life.processed || state !== last) {
      // After a crash an older state may go on.
      if (life.crashes === this.crashes) {
        violate('state', `: its state has seen ${count} packets, ${life.processed} were processed`)
      }
      const lost = last.base + life.processed - state.base - count
      this.#goBack(life, state, violate)
      if (lost > 0) this.#loseState(lost)
      if (lost > life.lossMax && life.survives === this.crashes) violate('async', `: its state has lost ${lost} packets`)
      life.processed = count
    }
    life.crashes = this.crashes
    life.isAbandoned = false
    if (sequence <= before && this.isOrdered) {
      violate('state', `: number ${sequence} of side ${side} comes behind number ${before}`)
    }
  }

  /** A packet is taken back; the dead runtime had received it, or not. */
  takenBack(frame: Uint8Array, isAgain: boolean): void {
    const id = trailerId(frame, frame.length)
    if (!isAgain) this.#takenBack.add(id)
    else if (this.#fates[id] === Fate.refused) this.#undone.set(id, this.#processedIn[id] ?? 0)
  }

  /** Whoever was given packets after they had been taken back has them now, and may lose them by its own death. */
  givenBack(frames: readonly Uint8Array[], isPacket: (frame: Uint8Array) => boolean): void {
    if (this.#takenBack.size === 0) return
    for (const frame of frames) if (isPacket(frame)) this.#takenBack.delete(trailerId(frame, frame.length))
  }

  /** True, once, for a packet that a network function had dropped as part of a state which died with its runtime, and that another has seen. */
  #isUndone(id: number): boolean {
    const state = this.#undone.get(id)
    return state !== undefined && (!this.#commits || state !== this.#processedIn[id]) && this.#undone.delete(id)
  }

  /** Packets that nobody accounts for: all, or those alone that were taken back. */
  #gone(onlyTakenBack: boolean): number[] {
    // The rest of a datagram whose first fragment was dropped finds no flow at the far switch.
    return [...this.unaccounted()].filter((id) => (!onlyTakenBack || this.#takenBack.has(id)) && this.#fates[id - 1] !== Fate.refused &&
      !this.#bereft.has(id))
  }

  /**
   * What a crash leaves in links and in the dead is not lost: whatever did not leave has been dropped, and told so.
   *
   * @param onlyTakenBack what the dead had received may be lost with them
   * @param drops counts of all nodes, by reason; those for the reasons in `others` have cost no packet that counts here
   * @param given how many packets were lost with the targets that they were on their way to with their flows
   */
  checkNothingLost(onlyTakenBack: boolean, drops: ReadonlyMap<string, number>, others: ReadonlySet<string>, given: number): void {
    const unaccounted = this.#gone(onlyTakenBack)
    let dropped = given
    for (const [reason, count] of drops) if (!others.has(reason)) dropped += count
    if (unaccounted.length <= dropped) return
    this.violate('loss', `although links take back, ${unaccounted.length} packets are gone, ${dropped} of them dropped` +
      ` (such as ${unaccounted.slice(0, 3).join(', ')})`)
  }

  /**
   * Fragments that wait at the far switch for a first one that a network function has dropped. Whose they are it does not know, so nor that
   * they have been released: a change of replica releases them again.
   */
  get rests(): number {
    let count = 0
    for (const id of this.unaccounted()) if (this.#fates[id - 1] === Fate.refused) count++
    return count
  }

  #loseState(packets: number): void {
    const { stateLost } = this
    stateLost.flows++
    stateLost.packets += packets
    stateLost.most = Math.max(stateLost.most, packets)
  }

  /** The state that a flow has, and how many packets it has seen; null for a flow that this life has not processed. */
  progressOf(flowId: number, owner: number): Progress | null {
    const life = this.#lives.get(flowId)
    const state = life?.states.at(-1)
    return life === undefined || state === undefined || life.owner !== owner ? null : { state: state.number, count: life.processed }
  }

  /** The first packets that nobody accounts for, for people. */
  *unaccounted(): Generator<number> {
    for (let id = 1; id < this.#copies.length; id++) if (this.#copies[id] > 0) yield id
  }
}
