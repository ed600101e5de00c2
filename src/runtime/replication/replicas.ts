/**
 * Replicas: the flows of other runtimes whose records are kept here, and in `commit` whose frames are released here. Paper §5.4.2;
 * PROTOCOL 11-15, 18, 19; docs/protocol.md, "Replication".
 *
 *     AdoptFlow ─▶ kept ── CommitStep: stored, its frames leave ──▶ kept ── ForgetFlow ─▶ (gone)
 *                   │ the owner is fenced
 *                   ├─ it was not moving ──▶ promoted: the flow is ours, and gets a replica of its own
 *                   └─ it was ──▶ asking ── AskFlowReply of every runtime ──▶ promoted, or (gone): it lives on at its target
 *
 * A step is one message, so it is stored whole or not at all; frames that found no room in it came ahead and wait for it.
 *
 * With two replicas the first keeps each step's frames until the tail has released them, as an owner would (steps.ts). When the owner dies
 * the first is promoted, and what it keeps leaves again if it has not left. The tail waits for the first; where that is dead, or has no
 * copy, it asks every runtime before it promotes itself, for the chain may have been replaced.
 */

import { CodedError } from '../../base/coded-error.ts'
import { planted } from '../../base/planted-bugs.ts'
import { KEY_WORDS } from '../../flow/flow-record.ts'
import { MACS_BYTES, MessageField } from '../../messages/message.ts'
import { AbortFlow } from '../../messages/migration.ts'
import {
  AdoptFlow, AdoptFlowAliases, AdoptFlowBuffersAt, AdoptFlowFormer, AdoptFlowFormerIncarnation, AdoptFlowInputs, AdoptFlowLayout, AdoptKind,
  AdoptFlowReply, AdoptMember, AdoptRefusal, AskFlow, AskFlowConfigVersion, AskFlowReply, CommitStep, CommitStepFrames, CommitStepInputs,
  CommitStepSnapshotBytes, HurryFlow, MovingFlowReply, padded, ReleasePacket, RetireKind,
} from '../../messages/replication.ts'
import { Descriptor } from '../../packet/descriptor.ts'
import { PacketQueue } from '../../packet/packet-queue.ts'
import type { MessageChannel } from '../../transport/message-channel.ts'
import { NOBODY, withTarget } from './buffering.ts'
import { INPUT_WORDS } from './inputs.ts'
import { ALIAS_BYTES } from '../alias-claims.ts'
import { begin, beginBind, sayDrained, sendHead, type RuntimeContext } from '../runtime-context.ts'
import { HandingOn } from './handing-on.ts'
import type { Question } from './question.ts'
import { guardOf, placeIn, type Replica } from './replica.ts'
import type { ReplicasHost } from './replicas-host.ts'
import { sendRetire } from './retiring.ts'

/** Flows that go on in a turn, a millisecond or two; and how many switches need not have heard of yet, unless they hear of none. */
const PROMOTED_PER_TURN = 64
const SECURED_AT_ONCE = 1024
const STALLED_US = 5000

export class Replicas {
  readonly counts = { adopted: 0, refused: 0, steps: 0, released: 0, promoted: 0, forgotten: 0 }
  readonly handingOn: HandingOn
  readonly #context: RuntimeContext
  readonly #host: ReplicasHost
  readonly #replicas = new Map<number, Replica>()
  /** Replicas whose owners are fenced and that are still to be promoted. */
  readonly #orphans = new Set<Replica>()
  /** Those of them that packets wait for. */
  readonly #hurried = new Set<Replica>()
  /** Flows that had been secured when that was looked at last, and when there was one more. */
  #secured = 0
  #securedAt = 0
  /** Owners that have moved a flow to whom it is kept for now, and may die before they ask for our last word of their time. */
  readonly #replaced = new Map<number, { readonly owner: number; readonly epoch: number }>()
  /** Last words that wait for a configuration with the switches that they are for. */
  #retiring: { readonly flow: number; readonly epoch: number; readonly configVersion: number }[] = []
  /** Questions of other replicas that wait for a configuration. */
  #questions: Question[] = []
  /** Replicas about which other runtimes have been asked. */
  #asking = 0
  /** Tails that are to ask who goes on with the flow. */
  readonly #toAsk = new Set<Replica>()

  constructor(context: RuntimeContext, host: ReplicasHost) {
    this.#context = context
    this.#host = host
    this.handingOn = new HandingOn(context, () => host.steps())
  }

  get size(): number {
    return this.#replicas.size
  }

  /** True while flows of a fenced owner are still to be taken over, or asked about. */
  get isRecovering(): boolean {
    return this.#orphans.size > 0 || this.#asking > 0 || this.#toAsk.size > 0
  }

  get(flow: number): Replica | undefined {
    return this.#replicas.get(flow)
  }

  has(flow: number): boolean {
    return this.#replicas.has(flow)
  }

  /** The flow as it is kept here: what its owner has told of last. Null for one that is not kept. */
  kept(flow: number): { readonly epoch: number, readonly owner: number, readonly snapshot: Uint8Array } | null {
    const replica = this.#replicas.get(flow)
    if (replica === undefined) return null
    const { epoch, owner, words, snapshotBytes } = replica
    return { epoch, owner, snapshot: new Uint8Array(words.buffer, words.byteOffset, snapshotBytes) }
  }

  /**
   * A target whose source is dead buffers packets of a flow: true if that is kept here, and goes on here should its owner be dead.
   *
   * @param epoch of the move to there
   * @param isAny any copy of one who is dead goes on; an owner that lives and has not heard of the target needs nothing of it
   */
  goesOn(flow: number, target: number, epoch: number, isAny: boolean): boolean {
    const replica = this.#replicas.get(flow)
    if (replica === undefined) return false
    const isDead = this.#host.incarnationOf(replica.owner) !== replica.ownerIncarnation
    const isKnown = replica.movingTo === target || replica.buffersAt.some((one) => one.target === target)
    if (!isKnown && !(isAny && isDead)) return false
    replica.buffersAt = withTarget(replica.buffersAt, target, epoch)
    return true
  }

  // -- Messages of the owner -----------------------------------------------------------------------------------------

  adopt(owner: number, at: number, bytes: number): void {
    const context = this.#context
    const { arena } = context
    const message = arena.u8[at] === AdoptMember.type ? AdoptMember : AdoptFlow
    const aliasBytes = arena.u32[(at + AdoptFlowAliases) >> 2] * ALIAS_BYTES
    const inputBytes = arena.u32[(at + AdoptFlowInputs) >> 2]
    if (message.bytes + inputBytes + aliasBytes > bytes || inputBytes % (INPUT_WORDS * 4) !== 0) return context.anomaly('malformed-message')
    const flow = arena.f64[(at + MessageField.flow) >> 3]
    const epoch = arena.u32[(at + MessageField.epoch) >> 2]
    const refusal = this.#refusal(owner, at, flow, epoch)
    const inputs = at + message.bytes
    const tail = inputs + inputBytes
    if (arena.u8[at + MessageField.code] === AdoptKind.aliases) {
      const known = this.#replicas.get(flow)
      if (known?.owner === owner && refusal === AdoptRefusal.none) known.aliases = arena.i32.slice(tail >> 2, (tail + aliasBytes) >> 2)
      return
    }
    if (refusal === AdoptRefusal.none) {
      const before = this.#replicas.get(flow)
      const isGiven = before?.movingTo === owner && !this.#isOrphaned(before)
      if (before !== undefined) {
        // Its owner of before may be dead already, and never say so.
        if (this.#isOrphaned(before)) sayDrained(context, flow, before.movingEpoch)
        else if (before.owner !== owner && !before.isWaiting) this.#replaced.set(flow, { owner: before.owner, epoch: before.movingEpoch })
        this.#drop(before)
      }
      const key = (at + MessageField.key) >> 2
      const buffersAt = arena.u32[(at + AdoptFlowBuffersAt) >> 2]
      const replica: Replica = {
        flow, epoch, owner, ownerIncarnation: this.#host.incarnationOf(owner), key: arena.i32.slice(key, key + KEY_WORDS),
        macs: arena.u8.slice(at + MessageField.macs, at + MessageField.macs + MACS_BYTES),
        inputs: arena.i32.slice(inputs >> 2, tail >> 2),
        aliases: arena.i32.slice(tail >> 2, (tail + aliasBytes) >> 2),
        words: arena.i32.slice((tail + aliasBytes) >> 2, (at + bytes + 7 & ~7) >> 2), snapshotBytes: at + bytes - tail - aliasBytes,
        releases: arena.u16[(at + MessageField.node) >> 1] !== 0,
        pending: new PacketQueue(arena), isTentative: arena.u8[at + MessageField.code] === AdoptKind.tentative, movingTo: 0,
        movingEpoch: epoch, asking: null, buffersAt: buffersAt === 0 ? NOBODY : [{ target: buffersAt, epoch }],
        former: arena.u32[(at + AdoptFlowFormer) >> 2], formerIncarnation: arena.u32[(at + AdoptFlowFormerIncarnation) >> 2],
        generation: epoch, place: message === AdoptMember ? placeIn(context, at) : null, guard: null, outputs: 0, isFull: false,
        isWaiting: false, isAskingOne: false, isHurried: false, hasAsked: false, before: null,
      }
      if (isGiven && replica.isTentative) replica.before = before
      if (replica.place !== null && replica.place.successor !== 0) replica.guard = guardOf(replica, replica.place)
      this.#replicas.set(flow, replica)
      this.counts.adopted++
      if (replica.releases && arena.u8[at + MessageField.code] === AdoptKind.opening) this.#bind(replica)
    } else {
      this.counts.refused++
    }
    sendHead(context, context.control(owner), AdoptFlowReply, flow, epoch, refusal)
  }

  #refusal(owner: number, at: number, flow: number, epoch: number): number {
    const { arena, engine, limits } = this.#context
    const before = this.#replicas.get(flow)
    if (arena.i32[(at + AdoptFlowLayout) >> 2] !== engine.layoutHash) return AdoptRefusal.otherChain
    const key = (at + MessageField.key) >> 2
    if (this.#host.owns(arena.i32.subarray(key, key + KEY_WORDS), flow, 0)) return AdoptRefusal.itself
    if (before !== undefined && before.epoch > epoch) return AdoptRefusal.stale
    if (before === undefined && this.#replicas.size >= limits.replicas) return AdoptRefusal.noRoom
    return owner === this.#context.self ? AdoptRefusal.itself : AdoptRefusal.none
  }

  /** Every switch hears, ahead of the first frame, that the frames of this flow come from here. */
  #bind({ flow, epoch, owner, ownerIncarnation, key, macs }: Replica): void {
    const context = this.#context
    for (const id of context.switches.idsIn(context.switches.all)) {
      const channel = context.inBand(id)
      const at = beginBind(context, channel, flow, epoch, owner, ownerIncarnation, context.self, context.incarnation)
      if (at === 0) continue
      writeKeptKey(context, at, key, macs)
      ;(channel as MessageChannel).commit()
    }
  }

  /** Steps come from the owner, or from the predecessor. */
  #find(sender: number, flow: number, epoch: number): Replica | null {
    const replica = this.#replicas.get(flow)
    if (replica === undefined || sender !== (replica.place?.predecessor || replica.owner) || epoch < replica.epoch) {
      this.#context.anomaly('unknown-replica')
      return null
    }
    replica.epoch = epoch
    return replica
  }

  /** An output of the next step. */
  releasePacket(owner: number, at: number, bytes: number, flow: number, epoch: number): void {
    const context = this.#context
    const replica = this.#find(owner, flow, epoch)
    if (replica?.isFull === true) return
    context.countTakenOver(1)
    const length = bytes - ReleasePacket.bytes
    const switchId = context.arena.u16[(at + MessageField.node) >> 1]
    const isKept = replica?.pending.pushFrame(context.arena, context.engine.pool, at + ReleasePacket.bytes, length, switchId) === true
    if (isKept) context.buffered++
    else if (replica !== null && replica.guard !== null) {
      // Its owner keeps it.
      context.countHandedOver(1)
      this.handingOn.fill(replica)
    } else context.drop(0, replica === null ? 'unknown-replica' : 'no-slot')
  }

  step(owner: number, at: number, bytes: number, flow: number, epoch: number): void {
    const context = this.#context
    const { arena } = context
    const { i32, u32 } = arena
    const frames = u32[(at + CommitStepFrames) >> 2]
    const snapshotBytes = u32[(at + CommitStepSnapshotBytes) >> 2]
    const inputBytes = u32[(at + CommitStepInputs) >> 2]
    const tail = at + CommitStep.bytes + inputBytes
    if (inputBytes % (INPUT_WORDS * 4) !== 0) return context.anomaly('malformed-message')
    if (!this.#isWhole(tail + padded(snapshotBytes), frames, at + bytes)) return context.anomaly('malformed-message')
    const replica = this.#find(owner, flow, epoch)
    // Its owner keeps the step, and is to find another chain.
    if (replica?.isFull === true) return
    const isHandedOn = replica !== null && replica.guard !== null
    if (isHandedOn && !this.handingOn.hasSlots(tail + padded(snapshotBytes), frames)) return this.handingOn.fill(replica)
    context.countTakenOver(frames)
    if (replica === null) {
      for (let i = 0; i < frames; i++) context.drop(0, 'unknown-replica')
      return
    }
    // Its owner goes on only when that is done.
    replica.former = 0
    replica.buffersAt = NOBODY
    // PERF: views of the arena, to copy with `set`, would be most of what a step leaves for the garbage collector.
    const { words } = replica
    const wordsBefore = planted['tail-releases-early'] && replica.guard !== null ? words.slice() : null
    const from = tail >> 2
    if (words.length << 2 !== padded(snapshotBytes)) replica.words = i32.slice(from, from + (padded(snapshotBytes) >> 2))
    else if (!planted['step-not-stored']) for (let word = 0; word < words.length; word++) words[word] = i32[from + word]
    replica.snapshotBytes = snapshotBytes
    const { inputs } = replica
    if (inputs.length << 2 !== inputBytes) replica.inputs = i32.slice((tail - inputBytes) >> 2, from)
    else for (let word = 0, first = from - inputs.length; word < inputs.length; word++) inputs[word] = i32[first + word]
    this.counts.steps++
    if (replica.guard !== null) {
      this.handingOn.handOn(replica, replica.guard, tail + padded(snapshotBytes), frames)
      if (wordsBefore?.length !== replica.words.length) return
      // Planted bug: the step goes on, and is not stored here.
      this.#host.steps().tick()
      replica.words = wordsBefore
      return
    }
    this.#releasePending(replica)
    for (let frame = tail + padded(snapshotBytes), i = 0; i < frames; i++) {
      const length = u32[frame >> 2]
      this.#host.release(u32[(frame + 4) >> 2], frame + 8, length)
      this.counts.released++
      frame += 8 + padded(length)
    }
  }

  /** True if the frames of a step end where its message does. */
  #isWhole(frame: number, frames: number, end: number): boolean {
    const { u32 } = this.#context.arena
    for (let i = 0; i < frames; i++) {
      if (frame + 8 > end) return false
      frame += 8 + padded(u32[frame >> 2])
    }
    return frame === end
  }

  #releasePending({ pending }: Replica): void {
    const context = this.#context
    const { i32 } = context.arena
    for (let slot = pending.shift(); slot !== 0; slot = pending.shift()) {
      const d = slot >> 2
      context.buffered--
      this.#host.release(i32[d + Descriptor.switch], i32[d + Descriptor.frame], i32[d + Descriptor.length])
      context.engine.pool.give(slot)
      this.counts.released++
    }
  }

  /** @param kind a RetireKind */
  retire(owner: number, flow: number, epoch: number, configVersion: number, kind: number): void {
    this.#replaced.delete(flow)
    const replica = this.#replicas.get(flow)
    const isOurs = replica?.owner === owner || (replica?.place?.predecessor === owner && replica.generation <= epoch)
    if (replica !== undefined && isOurs) {
      const isLast = kind === RetireKind.last || (kind === RetireKind.ofTarget && replica.isTentative)
      if (isLast) this.#drop(replica)
      if (kind === RetireKind.ofTarget && replica.before !== null) this.#giveBack(replica, replica.before.owner)
    } else if (replica !== undefined && replica.epoch < epoch && kind !== RetireKind.ofTarget) {
      // Who says so has taken the flow over from the owner that we know, and may have given it on before it is asked: this copy is old.
      if (replica.asking !== null) sayDrained(this.#context, flow, replica.movingEpoch)
      this.#drop(replica)
      if (kind === RetireKind.stays) this.#giveBack(replica, owner)
    } else {
      // Another owner's replica of it may be here by now: what this one had to release is out all the same.
      this.#context.anomaly('unknown-replica')
    }
    if (configVersion <= this.#context.configVersion) sayDrained(this.#context, flow, epoch)
    else this.#retiring.push({ flow, epoch, configVersion })
  }

  /** The target of a move has died. Its source has the flow again, and what we kept for that one is its replica, or one of them. */
  #giveBack({ flow, before }: Replica, source: number): void {
    if (before === null || before.owner !== source || this.#host.incarnationOf(source) !== before.ownerIncarnation) return
    const { place } = before
    // What it kept for its tail that one had before the flow could move.
    if (place !== null && place.successor !== 0) {
      before.guard = guardOf(before, place)
      before.guard.isDead = this.#host.incarnationOf(place.successor) !== place.successorIncarnation
    }
    this.#replicas.set(flow, before)
  }

  /** A new configuration: its switches may be waiting for a word. */
  configured(): void {
    const ready = this.#retiring.filter(({ configVersion }) => configVersion <= this.#context.configVersion)
    this.#retiring = this.#retiring.filter((one) => !ready.includes(one))
    for (const { flow, epoch } of ready) sayDrained(this.#context, flow, epoch)
    const questions = this.#questions
    this.#questions = []
    for (const question of questions) this.#reply(question)
  }

  /** Its owner is dead, and it has not been promoted yet. */
  #isOrphaned(replica: Replica): boolean {
    return replica.asking !== null || this.#orphans.has(replica) || this.#toAsk.has(replica)
  }

  /** @param epoch whoever's it is, a copy of an epoch below is old */
  forget(owner: number, flow: number, epoch: number): void {
    const replica = this.#replicas.get(flow)
    // The predecessor goes on with the flow, without us, once its owner has died.
    const isOurs = replica?.owner === owner || (replica?.place?.predecessor === owner && this.#host.incarnationOf(replica.owner) === 0)
    if (replica === undefined || (!isOurs && replica.epoch >= epoch)) {
      if (this.#replaced.get(flow)?.owner === owner) this.#replaced.delete(flow)
      if (replica?.before?.owner === owner) replica.before = null
      return
    }
    if (!isOurs && this.#isOrphaned(replica)) sayDrained(this.#context, flow, replica.movingEpoch)
    this.counts.forgotten++
    this.#drop(replica)
  }

  /** The flow itself lives here now: whatever becomes of its owner, this copy is old. */
  owned(flow: number): void {
    const replica = this.#replicas.get(flow)
    if (replica !== undefined) this.#drop(replica)
  }

  #drop(replica: Replica): void {
    const context = this.#context
    for (let slot = replica.pending.shift(); slot !== 0; slot = replica.pending.shift()) {
      context.buffered--
      context.drop(slot, 'step-incomplete')
    }
    this.#replicas.delete(replica.flow)
    this.#orphans.delete(replica)
    this.#hurried.delete(replica)
    this.#toAsk.delete(replica)
    this.handingOn.forget(replica)
    if (replica.asking === null) return
    context.step('askingOwner', -1)
    this.#asking--
  }

  moving(owner: number, flow: number, epoch: number, target: number, isAnsweredAnyway: boolean): void {
    const context = this.#context
    const replica = this.#replicas.get(flow)
    if (replica === undefined || replica.owner !== owner) {
      if (isAnsweredAnyway) sendHead(context, context.control(owner), MovingFlowReply, flow, epoch, 0, target)
      return context.anomaly('unknown-replica')
    }
    // Whatever was changed before has been, unless this is of an attempt to change a chain that was given up.
    if (!isAnsweredAnyway) replica.former = 0
    replica.movingTo = target
    replica.movingEpoch = epoch
    sendHead(context, context.control(owner), MovingFlowReply, flow, epoch, 0, target)
  }

  // -- The owner has died --------------------------------------------------------------------------------------------

  /** A runtime is fenced: its flows go on here, unless they may live at the target of a move. */
  fenced(runtime: number): void {
    for (const [flow, { owner, epoch }] of this.#replaced) {
      if (owner !== runtime) continue
      this.#replaced.delete(flow)
      sayDrained(this.#context, flow, epoch)
    }
    for (const replica of [...this.#replicas.values()]) {
      if (replica.guard?.replica === runtime) replica.guard.isDead = true
      if (replica.asking !== null && !replica.isAskingOne) {
        // It may have given the flow on, to one that has answered already.
        replica.asking.delete(runtime)
        this.#ask(replica, 0)
      } else if (replica.asking !== null) this.#answered(replica, runtime, 0)
      else if (replica.place !== null && replica.place.predecessor !== 0) {
        if (replica.owner === runtime || (replica.isWaiting && replica.place.predecessor === runtime)) this.#toAsk.add(replica)
      } else if (replica.owner === runtime) {
        if ((replica.movingTo === 0 && !replica.isTentative) || planted['promote-unasked']) this.#orphan(replica)
        else this.#ask(replica)
      }
    }
    this.work()
  }

  /** The predecessor of a tail, if it lives. */
  #predecessorOf({ place }: Replica): number {
    if (place === null || place.predecessor === 0) return 0
    return this.#host.incarnationOf(place.predecessor) === place.predecessorIncarnation ? place.predecessor : 0
  }

  /** Asks who goes on with a flow: every runtime, but a tail first its predecessor, unless that has answered already. */
  #ask(replica: Replica, predecessor = this.#predecessorOf(replica)): void {
    const context = this.#context
    const before = replica.asking
    if (before === null) {
      this.#asking++
      context.step('askingOwner', 1)
    }
    replica.isWaiting = false
    replica.hasAsked = true
    replica.isAskingOne = predecessor !== 0
    const asked = predecessor === 0 ? [...this.#host.runtimes()] : [predecessor]
    replica.asking = new Map(asked.map((id) => [id, (before?.get(id) ?? 0) + 1]))
    for (const id of asked) {
      const channel = context.control(id)
      const at = begin(context, channel, AskFlow, replica.flow, replica.movingEpoch, true)
      if (at === 0) continue
      context.arena.u32[(at + AskFlowConfigVersion) >> 2] = context.configVersion
      if (replica.place !== null) context.arena.u16[(at + MessageField.node) >> 1] = replica.generation & 0xffff
      writeKeptKey(context, at, replica.key, replica.macs)
      ;(channel as MessageChannel).commit()
    }
    this.#answered(replica, 0, 0)
  }

  answer(runtime: number, flow: number, epoch: number, code: number): void {
    const replica = this.#replicas.get(flow)
    if (replica === undefined || replica.asking === null) this.#context.anomaly('late-owner-reply')
    else this.#answered(replica, runtime, code, epoch)
  }

  #answered(replica: Replica, runtime: number, code: number, epoch = 0): void {
    const { asking } = replica
    if (asking === null) return
    const count = asking.get(runtime) ?? 0
    if (code === 2) replica.buffersAt = withTarget(replica.buffersAt, runtime, epoch)
    if (count > 1 && code !== 1 && code !== 3) {
      // What counts is its answer to the last question.
      asking.set(runtime, count - 1)
      return
    }
    asking.delete(runtime)
    if (code === 1) {
      // It lives on at its target: what we have released of it has been all.
      sayDrained(this.#context, replica.flow, replica.movingEpoch)
      // A target's chain ends; its tail may be one of the source's.
      const kind = replica.isTentative ? RetireKind.ofTarget : RetireKind.last
      if (replica.guard !== null) sendRetire(this.#context, replica.guard.replica, replica.flow, replica.movingEpoch, kind)
      this.#drop(replica)
      this.#giveBack(replica, runtime)
    } else if (code === 3) {
      this.#endAsking(replica)
      replica.isWaiting = true
    } else if (asking.size === 0) {
      this.#endAsking(replica)
      if (replica.isAskingOne) return this.#ask(replica, 0)
      this.#orphan(replica)
      this.work()
    }
  }

  #endAsking(replica: Replica): void {
    replica.asking = null
    this.#asking--
    this.#context.step('askingOwner', -1)
  }

  /** Another replica asks who has a flow. */
  asked(from: number, at: number, flow: number, epoch: number): void {
    const { i32, u8, u16, u32 } = this.#context.arena
    const key = (at + MessageField.key) >> 2
    this.#reply({ from, flow, epoch, configVersion: u32[(at + AskFlowConfigVersion) >> 2], key: i32.slice(key, key + KEY_WORDS),
      generation: u16[(at + MessageField.node) >> 1], isTarget: u8[at + MessageField.code] === 1 })
  }

  /** Answers, as soon as nothing comes any more from the owner that is dead. */
  #reply(question: Question): void {
    const context = this.#context
    const { from, flow, epoch, configVersion, key, generation, isTarget } = question
    if (configVersion > context.configVersion) {
      this.#questions.push(question)
      return
    }
    const replica = this.#replicas.get(flow)
    if (isTarget) {
      const code = this.#host.owns(key, flow, 0) || this.#host.gaveOn(flow, epoch) ? 1 : replica !== undefined ? 2 : 0
      // Its owner may have named us to switches as who releases, and have died before we heard of it.
      if (code === 0) sayDrained(context, flow, epoch + 1)
      return sendHead(context, context.control(from), AskFlowReply, flow, epoch, code, configVersion & 0xffff)
    }
    const place = replica !== undefined && (replica.generation & 0xffff) === generation ? replica.place : null
    if (place?.successor === from || this.#host.isSecuring(flow, from, generation)) {
      return sendHead(context, context.control(from), AskFlowReply, flow, epoch, 3)
    }
    const isBehind = place?.predecessor === from
    const isCovered = replica !== undefined && replica.owner !== from && replica.epoch >= epoch && !isBehind
    const isHere = isCovered || this.#host.owns(key, flow, epoch) || this.#host.gaveOn(flow, epoch)
    const buffered = isHere ? 0 : this.#host.yields(flow, from)
    sendHead(context, context.control(from), AskFlowReply, flow, buffered || epoch, isHere ? 1 : buffered !== 0 ? 2 : 0)
  }

  /** Packets of a flow wait at a switch, for its owner is dead, though we may not have heard so. A tail leaves the flow to its predecessor. */
  hurry(flow: number, epoch: number): void {
    const context = this.#context
    const replica = this.#replicas.get(flow)
    if (replica === undefined) return
    const predecessor = this.#predecessorOf(replica)
    if (predecessor !== 0) return sendHead(context, context.control(predecessor), HurryFlow, flow, epoch)
    replica.isHurried = true
    if (this.#orphans.has(replica)) this.#hurried.add(replica)
  }

  /** It is to be promoted. */
  #orphan(replica: Replica): void {
    this.#orphans.add(replica)
    if (replica.isHurried) this.#hurried.add(replica)
  }

  /** Promotes what there is room for: first what packets wait for, and others not far ahead of what switches have heard. */
  work(): void {
    const context = this.#context
    for (const replica of this.#toAsk) {
      if (context.isStrained()) return
      this.#toAsk.delete(replica)
      this.#ask(replica)
    }
    this.#promote(this.#hurried)
    const secured = this.#host.secured()
    if (secured !== this.#secured) this.#securedAt = context.now
    this.#secured = secured
    if (this.#host.securing() < SECURED_AT_ONCE || context.now - this.#securedAt > STALLED_US) this.#promote(this.#orphans)
  }

  #promote(replicas: ReadonlySet<Replica>): void {
    const context = this.#context
    let left = PROMOTED_PER_TURN
    for (const replica of replicas) {
      if (left === 0 || context.isStrained()) return
      if (this.#host.isContested(replica.key)) continue
      left--
      const { guard } = replica
      // What is kept for the tail goes with the flow.
      replica.guard = planted['promote-skips-held'] ? guard : null
      this.#drop(replica)
      this.counts.promoted++
      try {
        this.#host.promote(replica, guard)
      } catch (error) {
        if (!(error instanceof CodedError)) throw error
        context.anomaly('promotion-failed')
        if (guard !== null) {
          sendRetire(context, guard.replica, replica.flow, replica.movingEpoch, RetireKind.last)
          replica.guard = guard
          this.#drop(replica)
        }
        // Its key is another flow's here: it has ended, and whoever waits for its record need not.
        sayDrained(context, replica.flow, replica.movingEpoch)
        for (const { target, epoch } of replica.buffersAt) sendHead(context, context.control(target), AbortFlow, replica.flow, epoch, 1)
      }
    }
  }
}

/** Writes a key and addresses that are kept on the heap. */
function writeKeptKey({ arena }: RuntimeContext, at: number, key: Int32Array, macs: Uint8Array): void {
  arena.i32.set(key, (at + MessageField.key) >> 2)
  arena.u8.set(macs, at + MessageField.macs)
}
