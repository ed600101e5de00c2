/**
 * Incoming moves: the target's side of migration. Paper §5.4.1, PROTOCOL 7-9; the states are those of docs/protocol.md.
 *
 *     prepared ──InstallFlow──▶ waiting ──Go from every switch──▶ (an ordinary flow)
 *         │ AbortFlow                 prepared or returning, source fenced ──▶ inheriting ──Go from every switch──▶ (an opening)
 *         ▼
 *     returning ──the switches' in-band words──▶ buffered packets go back ──▶ (gone)
 *
 * Packets that come before the flow runs are buffered in order. A prepared flow is forgotten on the source's word or its fencing,
 * never by time. When the source dies the flow goes on here, without its state.
 */

import { CodedError } from '../../base/coded-error.ts'
import { planted } from '../../base/planted-bugs.ts'
import { FlowRecord, KEY_WORDS } from '../../flow/flow-record.ts'
import { flowKeysEqual } from '../../flow/flow-key.ts'
import { KeyBlock } from '../../flow/key-table.ts'
import { SWITCHES_MAX } from '../../messages/cluster-config.ts'
import { YieldFlow } from '../../messages/replication.ts'
import { copyMacs, MessageField } from '../../messages/message.ts'
import {
  AbortFlowReply, AbortFlowSwitches, BufferedPacket, InstallFlow, InstallFlowConfigVersion, InstallFlowReply, InstallFlowSwitches,
  MoveRefusal, PrepareFlow, PrepareFlowLayout, PrepareFlowReplica, PrepareFlowReplicaIncarnation, PrepareFlowReply,
  PrepareFlowSecondIncarnation, RerouteFlow, RerouteFlowDead, RerouteFlowDeadIncarnation, RerouteFlowOwnerIncarnation,
} from '../../messages/migration.ts'
import { Descriptor } from '../../packet/descriptor.ts'
import { PacketQueue } from '../../packet/packet-queue.ts'
import type { MessageChannel } from '../../transport/message-channel.ts'
import type { ChainLayout } from '../flow-snapshot.ts'
import type { Protection } from '../replication/protection.ts'
import { ALIAS_BYTES, ALIAS_WORDS } from '../alias-claims.ts'
import {
  AbsentBlock, AbsentKind, begin, COMPANION_MOVED_MS, COMPANION_REPLICA, companionOf, isTooLong, sayClosed, sayDrained, sendFrame, sendHead,
  setFlow, writeKeyFrom,
  type RuntimeContext,
} from '../runtime-context.ts'
import { Heirs } from './heirs.ts'
import { replicasIn, type IncomingMove, type IncomingState } from './incoming-move.ts'
import { MessageCopy } from './message-copy.ts'
import { UnconfirmedFlows } from './unconfirmed-flows.ts'

export interface IncomingHost {
  isDraining(): boolean
  /** Tells a switch of a flow. */
  announce(record: number, switchId: number): void
  /** The record of a key here, 0 if there is none. */
  recordOf(key: number): number
  /** Hash of a key, as in the table of absent flows. */
  hashOf(key: number): number
  /** The layout with this hash that a runtime has told, if it has and the chain can take flows from it. */
  layoutOf(source: number, hash: number): ChainLayout | null | undefined
  /** A flow is ours now. */
  installed(flow: number): void
  /** True for a flow whose replica is kept here. */
  hasReplica(flow: number): boolean
  /** True for a runtime of the configuration, in this life. */
  isThere(runtime: number, incarnation: number): boolean
  /** The other runtimes that there are. */
  runtimes(): Iterable<number>
}

export class IncomingMoves {
  readonly moves = new Map<number, IncomingMove>()
  readonly counts = { prepared: 0, installed: 0, refused: 0, returned: 0 }
  readonly #context: RuntimeContext
  readonly #host: IncomingHost
  readonly #scratchKey: number
  readonly #unconfirmed = new UnconfirmedFlows()
  readonly #copy: MessageCopy
  /** Moves whose record is installed: they are flows of the engine already. */
  #waiting = 0
  /** Moves of which a switch is to be told yet. */
  #untold = 0
  /** Moves whose buffer is on its way back and waits for room. */
  #returning: IncomingMove[] = []
  readonly #protection: Protection
  readonly #heirs: Heirs
  /** Flows that a replica has been told to go on with, and has not said that it does: it may know nothing of them. */
  readonly #unheard = new Set<number>()

  constructor(context: RuntimeContext, host: IncomingHost, protection: Protection) {
    this.#context = context
    this.#protection = protection
    this.#host = host
    this.#heirs = new Heirs(context, () => host.runtimes())
    this.#copy = new MessageCopy(context.arena)
    this.#scratchKey = context.arena.allocate('incoming alias', KEY_WORDS * 4) >> 2
  }

  get isIdle(): boolean {
    return this.moves.size === 0
  }

  /** True while something here waits for room or for an acknowledgement. */
  get isWaiting(): boolean {
    return this.#returning.length > 0 || this.#unconfirmed.size > 0 || this.#untold > 0
  }

  /** True for a flow that is on its way here, or has come and whose source may not know yet. */
  has(flow: number): boolean {
    return this.moves.has(flow) || this.#unconfirmed.has(flow)
  }

  // -- Messages of the source ----------------------------------------------------------------------------------------

  prepare(source: number, at: number, bytes: number): void {
    const context = this.#context
    const { arena } = context
    const flow = arena.f64[(at + MessageField.flow) >> 3]
    const epoch = arena.u32[(at + MessageField.epoch) >> 2]
    const refusal = this.#refusal(source, at, bytes, flow)
    if (refusal === MoveRefusal.none) {
      const key = (at + MessageField.key) >> 2
      const block = this.#add(key, flow, epoch)
      copyMacs(arena, at + MessageField.macs, block + AbsentBlock.macs)
      const words = (at + PrepareFlow.bytes) >> 2
      const aliases = arena.i32.slice(words, words + Math.floor((bytes - PrepareFlow.bytes) / ALIAS_BYTES) * ALIAS_WORDS)
      const aliasBlocks: number[] = []
      for (let i = 0; i < aliases.length; i += ALIAS_WORDS) {
        const aliasBlock = this.#add(words + i, flow, epoch)
        if (aliasBlock !== 0) aliasBlocks.push(aliasBlock)
      }
      this.moves.set(flow, {
        flow, epoch, source, dead: { runtime: 0, incarnation: 0 }, heir: 0, yields: false,
        replicas: replicasIn(arena.u32[(at + PrepareFlowReplica) >> 2]),
        replicaLives: [arena.u32[(at + PrepareFlowReplicaIncarnation) >> 2], arena.u32[(at + PrepareFlowSecondIncarnation) >> 2]],
        layout: arena.i32[(at + PrepareFlowLayout) >> 2], state: 'prepared', block, record: 0, gone: 0,
        named: [], version: 0, awaited: 0, marked: 0, untold: 0, since: context.now,
        inputs: context.inputs.words.slice(), queue: new PacketQueue(arena), aliases, aliasBlocks,
      })
      context.step('prepared', 1)
      this.counts.prepared++
    } else {
      this.counts.refused++
      if (planted['refusal-unanswered']) return
    }
    sendHead(context, context.control(source), PrepareFlowReply, flow, epoch, refusal)
  }

  /** Notes that packets with this key (a word index) are of a flow on its way here; 0 when there is no room. */
  #add(key: number, flow: number, epoch: number): number {
    const { absent, arena } = this.#context
    const hash = this.#host.hashOf(key)
    const found = absent.find(key, hash)
    // A tuple that is another flow's is claimed here in vain.
    if (found !== 0 && arena.u8[found + KeyBlock.kind] !== AbsentKind.claimed) return 0
    const block = found !== 0 ? found : absent.add(key, hash)
    if (block === 0) return 0
    arena.u8[block + KeyBlock.kind] = AbsentKind.prepared
    arena.f64[(block + KeyBlock.flow) >> 3] = flow
    arena.u32[(block + KeyBlock.epoch) >> 2] = epoch
    return block
  }

  /** The blocks are no longer needed. */
  #removeBlocks(move: IncomingMove): void {
    if (move.block !== 0) this.#context.absent.remove(move.block)
    for (const block of move.aliasBlocks) this.#context.absent.remove(block)
    move.block = 0
    move.aliasBlocks.length = 0
  }

  #refusal(source: number, at: number, bytes: number, flow: number): number {
    const { absent, engine, arena, limits } = this.#context
    if (this.#host.isDraining()) return MoveRefusal.draining
    if (this.moves.has(flow)) return MoveRefusal.busy
    if (this.#host.layoutOf(source, arena.i32[(at + PrepareFlowLayout) >> 2]) === undefined) return MoveRefusal.otherChain
    const key = (at + MessageField.key) >> 2
    if (this.#host.recordOf(key) !== 0 || absent.find(key, this.#host.hashOf(key)) !== 0) return MoveRefusal.exists
    const promised = this.moves.size - this.#waiting
    let aliases = (bytes - PrepareFlow.bytes) / ALIAS_BYTES
    if (aliases > limits.aliasesPerFlow) return MoveRefusal.tooLarge
    if (absent.available < 1 + aliases) return MoveRefusal.noRoom
    if (aliases > 0) for (const move of this.moves.values()) if (move.record === 0) aliases += move.aliases.length / ALIAS_WORDS
    if (aliases > engine.aliases.available) return MoveRefusal.noRoom
    if (engine.table.size + promised >= engine.limits.flows || promised >= limits.absentFlows >> 1 ||
        engine.extents.available === 0) return MoveRefusal.noRoom
    return MoveRefusal.none
  }

  install(source: number, at: number, bytes: number): void {
    const context = this.#context
    const { arena, engine } = context
    const flow = arena.f64[(at + MessageField.flow) >> 3]
    const epoch = arena.u32[(at + MessageField.epoch) >> 2]
    const move = this.moves.get(flow)
    if (move === undefined || move.source !== source || move.epoch !== epoch || move.state !== 'prepared' || move.yields) {
      context.anomaly('unexpected-record')
      // The source must learn that the flow is still its own, unless it is here already.
      if (move === undefined || move.state === 'prepared') {
        sendHead(context, context.control(source), InstallFlowReply, flow, epoch, MoveRefusal.unknown)
      }
      return
    }
    // Parts of messages may be overwritten while the record is installed.
    const snapshot = this.#copy.take(at + InstallFlow.bytes, bytes - InstallFlow.bytes)
    let record: number
    try {
      record = engine.importFlow(snapshot, context.now, this.#host.layoutOf(source, move.layout) ?? undefined)
    } catch (error) {
      if (!(error instanceof CodedError)) throw error
      this.counts.refused++
      // We release nothing: the switches need not wait for us when the flow goes back.
      sayDrained(context, flow, epoch + 1)
      sendHead(context, context.control(source), InstallFlowReply, flow, epoch,
        error.code === 'NF_LIMIT' ? MoveRefusal.noRoom : MoveRefusal.damaged)
      return
    }
    setFlow(context, record, flow, epoch)
    const companion = companionOf(context, record)
    copyMacs(arena, move.block + AbsentBlock.macs, companion)
    arena.u32[(companion + COMPANION_MOVED_MS) >> 2] = (context.now / 1000) >>> 0 || 1
    arena.u16[(companion + COMPANION_REPLICA) >> 1] = 0
    engine.pauseFlow(record)
    this.#removeBlocks(move)
    move.record = record
    this.#installAliases(move)
    for (let i = 0, to = at + InstallFlowSwitches; i < SWITCHES_MAX; i++) if (arena.u8[to + i] !== 0) move.named.push(arena.u8[to + i])
    move.version = arena.u32[(at + InstallFlowConfigVersion) >> 2]
    this.#become(move, 'waiting')
    this.#waiting++
    this.counts.installed++
    this.#host.installed(flow)
    // Switches that the source did not know of, in their present life, hear of the flow from us.
    for (const id of context.switches.idsIn(context.switches.all)) {
      if (!move.named.includes(id) || context.switches.isNewerThan(move.version, id)) this.#host.announce(record, id)
    }
    this.#unconfirmed.add(flow, source)
    this.#protection.adoptEarly(record, source, move.inputs, () => { this.#confirm(source, flow, epoch) })
    this.#begin(move)
  }

  /** Tells the source that the flow is here, and, if there is one to be had, has a replica. */
  #confirm(source: number, flow: number, epoch: number): void {
    const context = this.#context
    const channel = context.control(source)
    sendHead(context, channel, InstallFlowReply, flow, epoch)
    if (channel?.position === undefined || planted['moved-on-early']) this.#unconfirmed.delete(flow)
    else this.#unconfirmed.add(flow, source, channel.position)
  }

  /** The source cannot take the flow back any more. */
  #confirmed(flow: number): void {
    this.#unconfirmed.delete(flow)
    const move = this.moves.get(flow)
    if (move !== undefined) this.#begin(move)
  }

  #installAliases({ record, aliases }: IncomingMove): void {
    const { arena, engine } = this.#context
    for (let i = 0; i < aliases.length; i += ALIAS_WORDS) {
      arena.i32.set(aliases.subarray(i, i + KEY_WORDS), this.#scratchKey)
      engine.addAlias(record, this.#scratchKey, aliases[i + KEY_WORDS] !== 0)
    }
  }

  abort(source: number, at: number): void {
    const context = this.#context
    const { arena } = context
    const flow = arena.f64[(at + MessageField.flow) >> 3]
    const epoch = arena.u32[(at + MessageField.epoch) >> 2]
    const move = this.moves.get(flow)
    const isHeir = move?.yields === true && move.state !== 'inheriting'
    if (isHeir) this.#unheard.delete(flow)
    if (isHeir && epoch !== move.epoch) {
      // Its word is the source's; what switches said at another epoch does not count.
      move.source = move.heir = source
      this.#heirs.forget(flow)
      if (epoch > move.epoch + 1) {
        move.epoch = epoch - 1
        move.marked = 0
      }
    }
    if (move === undefined || (move.source !== source && !isHeir) || move.state === 'waiting' || move.state === 'inheriting' ||
        (epoch !== move.epoch && epoch !== move.epoch + 1)) {
      if (move !== undefined) context.anomaly('unexpected-abort')
      sendHead(context, context.control(source), AbortFlowReply, flow, epoch)
      return
    }
    if (epoch === move.epoch) {
      // Called off before any switch was told; or whoever was to have its replica knows nothing of it.
      const hasEnded = arena.u8[at + MessageField.code] !== 0
      if (isHeir && !hasEnded) return this.#askWho(move)
      // What has come nevertheless, such as an ICMP error about the flow that was a flow of its own, goes back to its switch.
      const strays = new PacketQueue(arena)
      if (!hasEnded) strays.takeAll(move.queue)
      context.buffered -= strays.count
      this.#forget(move, 'source-fenced')
      context.run(strays)
      sendHead(context, context.control(source), AbortFlowReply, flow, epoch)
      return
    }
    let awaited = 0
    for (let i = 0; i < SWITCHES_MAX; i++) awaited |= context.switches.bitOf(arena.u8[at + AbortFlowSwitches + i])
    move.awaited = awaited
    if (move.state !== 'returning') {
      this.#become(move, 'returning')
      this.#returning.push(move)
    }
    // Where the source, or the flow's replica, is dead, a switch may take us for the one who releases.
    if (this.#protection.isOn || move.yields) sayDrained(context, flow, epoch)
    this.#giveBack(move)
  }

  // -- Messages of the switches --------------------------------------------------------------------------------------

  /** A switch has sent its last packet here: the flow goes back. */
  rerouteReply(switchId: number, flow: number, epoch: number): void {
    const move = this.moves.get(flow)
    if (move?.state === 'inheriting') return
    // Ahead of the replica's own word.
    if (move !== undefined && move.yields && epoch > move.epoch + 1) {
      move.epoch = epoch - 1
      move.marked = 0
    }
    if (move === undefined || epoch !== move.epoch + 1) return this.#context.anomaly('late-reroute-reply')
    move.marked |= this.#context.switches.bitOf(switchId)
    this.#giveBack(move)
  }

  go(switchId: number, flow: number, epoch: number): boolean {
    const move = this.moves.get(flow)
    if (move === undefined || epoch !== move.epoch) return false
    move.gone |= this.#context.switches.bitOf(switchId)
    this.#begin(move)
    return true
  }

  /** Runs an installed flow's buffer once every switch accepts what comes of it. */
  #begin(move: IncomingMove): void {
    const context = this.#context
    if (move.state !== 'waiting' && move.state !== 'inheriting') return
    // A source with a newer configuration knows better which switches there are.
    const isKnown = move.version <= context.configVersion
    const missing = move.named.some((id) => (context.switches.bitOf(id) & ~move.gone) !== 0)
    // In the state that it has now, a replica of the flow must be the only one: the source takes nothing back any more.
    if (move.state === 'waiting' && this.#protection.isOn && this.#unconfirmed.has(move.flow)) return
    if ((!isKnown || missing) && !planted['release-without-go']) return
    context.step(move.state, -1)
    this.#mustTell(move, 0)
    this.moves.delete(move.flow)
    if (move.state === 'waiting') this.#waiting--
    if (move.state === 'waiting' && this.#protection.isOn && !planted['bare-after-move']) {
      return this.#protection.securings.secure(move.record, move.queue, { inputs: move.inputs })
    }
    context.buffered -= move.queue.count
    if (move.state === 'inheriting') this.#open(move)
    else context.engine.resumeFlow(move.record)
    context.run(move.queue)
  }

  /** Its first packet makes the actor, as for any opening. To its translated tuples there is no translation any more. */
  #open(move: IncomingMove): void {
    const { arena, now, step } = this.#context
    const { block, queue } = move
    const own = new PacketQueue(arena)
    for (let slot = queue.shift(); slot !== 0; slot = queue.shift()) {
      if (flowKeysEqual(arena.i32, (slot >> 2) + Descriptor.key, block >> 2)) own.push(slot >> 2)
      else this.#context.drop(slot, 'source-fenced')
    }
    queue.takeAll(own)
    arena.u8[block + KeyBlock.kind] = AbsentKind.opening
    arena.u32[(block + KeyBlock.epoch) >> 2] = move.epoch
    arena.i32[(block + AbsentBlock.switch) >> 2] = 0
    arena.f64[(block + AbsentBlock.since) >> 3] = now
    step('opening', 1)
  }

  #become(move: IncomingMove, state: IncomingState): void {
    this.#context.step(move.state, -1)
    this.#context.step(state, 1)
    move.state = state
  }

  /** Sends the buffer back when every switch has sent its last packet here; goes on later when there is no room. */
  #giveBack(move: IncomingMove): void {
    if (move.state !== 'returning' || (move.awaited & ~move.marked) !== 0) return
    const context = this.#context
    const { i32 } = context.arena
    const channel = context.control(move.source)
    // Fragments that wait here for their first one, too.
    for (const block of [move.block, ...move.aliasBlocks]) {
      context.engine.takeEarly(block >> 2, (early) => {
        move.queue.push(early)
        context.buffered++
      })
    }
    while (move.queue.first !== 0) {
      const d = move.queue.first >> 2
      if (isTooLong(channel, BufferedPacket, i32[d + Descriptor.length])) {
        context.buffered--
        context.drop(move.queue.shift(), 'message-too-long')
        continue
      }
      if (!sendFrame(context, channel, BufferedPacket, move.flow, move.epoch + 1, i32[d + Descriptor.frame],
        i32[d + Descriptor.length], false, 0, i32[d + Descriptor.switch])) return
      context.engine.pool.give(move.queue.shift())
      context.buffered--
      context.countHandedOver(1)
      this.counts.returned++
    }
    this.#forget(move, '')
    sendHead(context, channel, AbortFlowReply, move.flow, move.epoch + 1)
  }

  /** Forgets a flow that is not coming. What it has buffered is dropped. */
  #forget(move: IncomingMove, reason: string): void {
    const context = this.#context
    for (let slot = move.queue.shift(); slot !== 0; slot = move.queue.shift()) {
      context.buffered--
      context.drop(slot, reason)
    }
    this.#removeBlocks(move)
    this.#mustTell(move, 0)
    context.step(move.state, -1)
    this.moves.delete(move.flow)
    this.#unheard.delete(move.flow)
    this.#heirs.forget(move.flow)
    this.#returning = this.#returning.filter((other) => other !== move)
  }

  // -- Packets -------------------------------------------------------------------------------------------------------

  /** Buffers a packet of a flow that does not run yet. */
  take(flow: number, d: number): void {
    const context = this.#context
    const move = this.moves.get(flow) as IncomingMove
    if (move.queue.count >= context.limits.bufferedPerFlow || context.buffered >= context.limits.buffered) {
      context.drop(context.arena.i32[d + Descriptor.slot], 'move-buffer')
      return
    }
    move.queue.push(d)
    context.buffered++
  }

  // -- Time, configuration -------------------------------------------------------------------------------------------

  tick(): void {
    if (this.#returning.length > 0) for (const move of [...this.#returning]) this.#giveBack(move)
    if (this.#untold > 0) for (const move of this.moves.values()) this.#inherit(move)
    if (this.#unconfirmed.size > 0) this.#unconfirmed.forEachHeard(this.#context.control, (flow) => { this.#confirmed(flow) })
    if (!planted['target-forgets']) return
    for (const move of [...this.moves.values()]) {
      if (move.state === 'prepared' && this.#context.now - move.since > this.#context.times.moveTimeoutUs) {
        this.#forget(move, 'move-cancelled')
      }
    }
  }

  /** A runtime is fenced: the record of what is prepared does not come, and the flow goes on here with a new one (PROTOCOL 19). */
  fenced(source: number): void {
    this.#unconfirmed.forEachOf(source, (flow) => { this.#confirmed(flow) })
    for (const move of [...this.moves.values()]) {
      const isSource = move.source === source
      const isHeir = move.yields && move.heir === source
      const isAsking = this.#heirs.has(move.flow)
      if ((!isSource && !isHeir && !isAsking) || (move.state !== 'prepared' && move.state !== 'returning')) continue
      if (isSource) move.dead = { runtime: source, incarnation: this.#context.ended.get(source) ?? 0 }
      const { self } = this.#context
      // With one replica it is that one that is dead, whatever its next life is.
      const others = isAsking || (isHeir && move.replicas.length === 1) ? [] : move.replicas
      const isThere = (id: number, index: number): boolean => (id === self ? this.#host.hasReplica(move.flow)
        : id !== source && this.#host.isThere(id, move.replicaLives[index] as number))
      const heir = others.find(isThere) ?? 0
      if (heir === 0) {
        this.#askWho(move)
        continue
      }
      move.yields = true
      move.heir = heir
      this.#heirs.forget(move.flow)
      // The flow goes on at its replica; when that is here, it is about to be the flow itself.
      if (move.state === 'returning') this.#become(move, 'prepared')
      this.#returning = this.#returning.filter((other) => other !== move)
      if (heir === self) this.#unheard.delete(move.flow)
      else this.#unheard.add(move.flow)
      if (heir !== self) sendHead(this.#context, this.#context.control(heir), YieldFlow, move.flow, move.epoch)
    }
  }

  /** The replica of a flow goes on with it. */
  heirGoesOn(flow: number): void {
    this.#unheard.delete(flow)
  }

  /** Whoever was to go on with the flow is dead, or knows nothing of it. */
  #askWho(move: IncomingMove): void {
    move.yields = true
    move.heir = 0
    this.#unheard.delete(move.flow)
    if (move.state === 'returning') this.#become(move, 'prepared')
    this.#returning = this.#returning.filter((other) => other !== move)
    const { flow, epoch, block } = move
    // A copy of before the source had it may be asking for it, though the source had no replica.
    if (!this.#protection.isOn || !this.#heirs.ask(flow, epoch, block >> 2, block + AbsentBlock.macs)) this.#foundNobody(move)
  }

  #foundNobody(move: IncomingMove): void {
    if (this.#host.hasReplica(move.flow)) move.heir = this.#context.self
    else this.#startInheriting(move)
  }

  /** A runtime has the flow, or a copy of it, or not. False if that was not asked here. */
  answered(runtime: number, flow: number, version: number, code: number): boolean {
    const move = this.moves.get(flow)
    const heirs = this.#heirs.answered(runtime, flow, version, code)
    if (move === undefined || heirs === null) return false
    for (const id of heirs ?? []) sendHead(this.#context, this.#context.control(id), YieldFlow, flow, move.epoch, 1)
    move.heir = heirs?.[0] ?? 0
    if (heirs?.length === 0) this.#foundNobody(move)
    return true
  }

  /** The flow goes on here, without its state. */
  #startInheriting(move: IncomingMove): void {
    const { absent, switches, configVersion } = this.#context
    this.#become(move, 'inheriting')
    this.#returning = this.#returning.filter((other) => other !== move)
    for (const block of move.aliasBlocks) absent.remove(block)
    move.aliasBlocks.length = 0
    // Above what the source may have told any switch.
    move.epoch += 2
    move.gone = 0
    move.named = [...switches.idsIn(switches.all)]
    move.version = configVersion
    this.#mustTell(move, switches.all)
    this.#inherit(move)
  }

  /** A switch knows better: a flow that we would inherit lives on elsewhere, or has ended. */
  superseded(flow: number, epoch: number, hasEnded: boolean): boolean {
    const move = this.moves.get(flow)
    if (move?.state !== 'inheriting' || move.epoch !== epoch) return false
    // A switch that took our word may take us for who releases until whoever has the flow claims it there.
    sayDrained(this.#context, flow, epoch + 1)
    sayClosed(this.#context, flow, epoch, hasEnded ? 1 : 2, move.block >> 2, move.block + AbsentBlock.macs)
    this.#forget(move, 'source-fenced')
    return true
  }

  /** True while a switch is to be told of a flow that is ours now. */
  isUntold(switchId: number): boolean {
    if (this.#heirs.isAsking || this.#unheard.size > 0) return true
    if (this.#untold === 0) return false
    const bit = this.#context.switches.bitOf(switchId)
    for (const move of this.moves.values()) if ((move.untold & bit) !== 0) return true
    return false
  }

  #mustTell(move: IncomingMove, mask: number): void {
    if (move.untold === 0 && mask !== 0) this.#untold++
    else if (move.untold !== 0 && mask === 0) this.#untold--
    move.untold = mask
  }

  /** Tells switches that a flow is ours now, and that its state, its aliases too, is gone: those whose sessions keep up. */
  #inherit(move: IncomingMove): void {
    const context = this.#context
    const { arena } = context
    for (const id of context.switches.idsIn(move.untold)) {
      const channel = context.control(id)
      if (channel?.isStrained === true) continue
      this.#mustTell(move, move.untold & ~context.switches.bitOf(id))
      const at = begin(context, channel, RerouteFlow, move.flow, move.epoch, true)
      if (at === 0) continue
      arena.u8[at + MessageField.code] = 1
      arena.u16[(at + MessageField.node) >> 1] = context.self
      arena.u32[(at + RerouteFlowOwnerIncarnation) >> 2] = context.incarnation
      arena.u32[(at + RerouteFlowDead) >> 2] = move.dead.runtime
      arena.u32[(at + RerouteFlowDeadIncarnation) >> 2] = move.dead.incarnation
      writeKeyFrom(context, at, move.block >> 2, move.block + AbsentBlock.macs)
      ;(channel as MessageChannel).commit()
    }
  }

  /** A flow that was on its way here is here now, for its replica was: what was buffered for it, null for nothing. */
  takeOver(flow: number): PacketQueue | null {
    const move = this.moves.get(flow)
    if (move === undefined || move.record !== 0) return null
    const queue = new PacketQueue(this.#context.arena)
    queue.takeAll(move.queue)
    this.#forget(move, '')
    return queue
  }

  /** A replica asks for a flow whose owner was moving it here: if it is not installed its record is refused from now on. The epoch, or 0. */
  yields(flow: number, replica: number): number {
    const move = this.moves.get(flow)
    if (move === undefined || (move.state !== 'prepared' && move.state !== 'returning')) return 0
    if (!move.yields && !move.replicas.includes(replica)) return 0
    move.yields = true
    if (!this.#heirs.has(flow)) move.heir = replica
    return move.epoch
  }

  /** A switch has come back knowing nothing: what it was to do is said again. */
  repeatTo(switchId: number): void {
    for (const move of this.moves.values()) {
      if (move.state !== 'inheriting') continue
      move.gone &= ~this.#context.switches.bitOf(switchId)
      if (!move.named.includes(switchId)) move.named.push(switchId)
      this.#mustTell(move, move.untold | this.#context.switches.bitOf(switchId))
      this.#inherit(move)
    }
  }

  /** True while a flow is prepared that was before `time`: it may have been announced by nobody yet. */
  hasPreparedBefore(time: number): boolean {
    for (const move of this.moves.values()) if (move.state === 'prepared' && move.since <= time) return true
    return false
  }

  /** The configuration has changed: switches in `mask` are gone. */
  configured(mask: number): void {
    for (const move of [...this.moves.values()]) {
      move.awaited &= ~mask
      move.gone &= ~mask
      this.#mustTell(move, move.untold & ~mask)
      this.#begin(move)
      this.#giveBack(move)
    }
  }

  /** Key of a flow on its way here: a word index. */
  keyOf(move: IncomingMove): number {
    return (move.record !== 0 ? move.record + FlowRecord.tag : move.block) >> 2
  }
}
