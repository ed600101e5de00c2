/**
 * Runtime node: an engine, a coordinator, a link to every switch and a control port, in one `poll`. Paper §5.1, §6.1.
 *
 * A turn runs the stages round-robin, each with its budget: control messages; per link a few batches of data frames and the in-band
 * messages between them, in their order; what the coordinator has to do; time; and what is to be sent. Data is read only while
 * the output links have room for what may come of a batch, so that overload is felt at the external ports (PROTOCOL 25).
 */

import type { TimeUs } from '../base/clock.ts'
import type { EngineLimits, IdleTimeouts } from '../base/limits.ts'
import { BATCH_EXTRA_PACKETS, BATCH_PACKETS } from '../base/limits.ts'
import { FlowFlag, FlowPhase, FlowRecord } from '../flow/flow-record.ts'
import { KeyBlock, KeyTable } from '../flow/key-table.ts'
import type { Arena } from '../memory/arena.ts'
import { isClusterConfig, type ClusterConfig } from '../messages/cluster-config.ts'
import type { ChainMember } from '../nf/chain.ts'
import type { ClusterView } from '../nf/definition.ts'
import type { DecodedRecord } from '../nf/record-buffer.ts'
import { Descriptor, DESCRIPTOR_WORDS, Meta } from '../packet/descriptor.ts'
import type { PacketWatch } from '../packet/packet-watch.ts'
import type { PacketQueue } from '../packet/packet-queue.ts'
import type { Port } from '../packet/port.ts'
import { FlowWeights } from '../runtime/flow-weights.ts'
import { createEngine, defaultPolicy, type EngineEvents, type EnginePolicy } from '../runtime/engine.ts'
import type { InProgress } from '../runtime/in-progress.ts'
import { Coordinator } from '../runtime/coordinator.ts'
import { PeerSwitches } from '../runtime/peer-switches.ts'
import {
  ABSENT_OWN_BYTES, AbsentKind, COMPANION_BYTES, COMPANION_REPLICA, companionOf, defaultRuntimeLimits, defaultRuntimeTimes, epochOf, flowOf,
  type RuntimeContext, type RuntimeLimits, type RuntimeTimes,
} from '../runtime/runtime-context.ts'
import { Inputs } from '../runtime/replication/inputs.ts'
import type { ReplicationMode } from '../runtime/replication/protection.ts'
import type { ClusterNode, CommandResult, MessageObserver, NodeFlow, PacketCounts } from './cluster-node.ts'
import { createControlPlane, type SessionSizes } from './control-plane.ts'
import { DataLink, markOwnKey } from './data-link.ts'

export interface RuntimeNodeOptions {
  readonly arena: Arena
  readonly id: number
  readonly incarnation: number
  readonly clusterId: number
  readonly chain: readonly ChainMember[]
  readonly limits: EngineLimits
  readonly timeouts: IdleTimeouts
  readonly policy?: EnginePolicy
  readonly runtimeLimits?: Partial<RuntimeLimits>
  readonly runtimeTimes?: Partial<RuntimeTimes>
  readonly sessions?: Partial<SessionSizes>
  /** Of control sessions, where they are to be other than in-band ones. */
  readonly controlSessions?: Partial<SessionSizes>
  readonly seed: number
  /** Whether flows have replicas at other runtimes; `none` unless told. */
  readonly replication?: ReplicationMode
  /** Which runtimes are on other machines: those keep our flows' replicas, if there are any. */
  readonly isApart?: (runtime: number) => boolean
  /** How many replicas a flow is to have then, at different runtimes: 1, unless told, or 2. */
  readonly replicas?: number
  /** In `async`: outputs of a flow between two copies of its record; 16 unless told. */
  readonly replicateEvery?: number
  readonly config: ClusterConfig
  readonly ports: { readonly control: Port; readonly links: ReadonlyMap<number, Port> }
  readonly events?: EngineEvents
  /** Where it is noted whose packet is about to run: memory that outlives the process (PROTOCOL 22). */
  readonly inProgress?: InProgress
  /** Takes the records that network functions make. */
  readonly onRecord?: (record: DecodedRecord) => void
  /** Sees every message before it is handled: for transcripts and traces. */
  readonly onMessage?: MessageObserver
  readonly wasm?: boolean
  /** See `EngineOptions.reusesCode`. */
  readonly reusesCode?: boolean
}

/** Frames that one turn takes from one link at most, so that no link starves another; and batches, which in-band messages end. */
const FRAMES_PER_LINK = 128
const BATCHES_PER_LINK = 64
const CONTROL_FRAMES = 64
const EXPIRY_STEPS = 256
/** Flows asked for their `migrationTarget` per turn after the cluster has changed. */
const RECONSIDERED_PER_TURN = 64

const STEPS = ['opening', 'closing', 'preparing', 'cancelling', 'rerouting', 'handing', 'aborting', 'takingBack', 'prepared', 'waiting',
  'returning', 'inheriting', 'securing', 'askingOwner', 'announcing', 'draining', 'claiming']

export type RuntimeNode = ReturnType<typeof createRuntimeNode>

export function createRuntimeNode(options: RuntimeNodeOptions) {
  const { arena, id, incarnation, clusterId, ports } = options
  const { i32, u8, u16 } = arena
  const replicates = (options.replication ?? 'none') !== 'none'
  const openSteps: Record<string, number> = Object.fromEntries(STEPS.map((name) => [name, 0]))
  const anomalies: Record<string, number> = {}
  const drops: Record<string, number> = {}
  /** What the node itself counts; the engine counts the rest. */
  const own = { received: 0, forwarded: 0, dropped: 0, takenOver: 0, handedOver: 0 }
  let coordinator: Coordinator | null = null
  let config: ClusterConfig | null = null

  const engine = createEngine({
    arena, chain: options.chain, limits: options.limits, timeouts: options.timeouts, policy: options.policy ?? defaultPolicy,
    seed: options.seed, wasm: options.wasm, reusesCode: options.reusesCode, events: options.events, inProgress: options.inProgress,
    manager: {
      unknown: (d) => (coordinator as Coordinator).manager.unknown(d),
      expects: (d, parser) => (coordinator as Coordinator).manager.expects(d, parser),
      opened: (record, d) => { (coordinator as Coordinator).manager.opened(record, d) },
      begun: (record) => { (coordinator as Coordinator).manager.begun?.(record) },
      idle: (record) => { (coordinator as Coordinator).manager.idle(record) },
      paused: (d, record) => (coordinator as Coordinator).manager.paused(d, record),
      claimAlias: (record, d, flip, nf) => (coordinator as Coordinator).manager.claimAlias(record, d, flip, nf),
      rang: (record) => { if (replicates) (coordinator as Coordinator).protection.steps.changed(record) },
    },
  })
  const { pool } = engine

  const control = createControlPlane({
    arena, clusterId, self: id, selfIncarnation: incarnation, port: ports.control,
    sessions: options.controlSessions ?? options.sessions,
    onMessage: (peer, at, bytes) => {
      options.onMessage?.(peer, false, at, bytes)
      ;(coordinator as Coordinator).onControl(peer, at, bytes)
    },
  })
  const links = new Map<number, DataLink>()
  const limits = { ...defaultRuntimeLimits, ...options.runtimeLimits }
  const inputs = new Inputs(options.replication === 'commit', limits.unreleased)
  const linkList: { id: number; link: DataLink; emptiedAt: number }[] = []

  function attachLink(switchId: number, port: Port): void {
    const link = new DataLink({
      arena, clusterId, self: id, selfIncarnation: incarnation, peer: switchId, port, sessions: options.sessions,
      isSwitch: false,
      onRefused: () => {
        own.received++
        drop(0, 'former-life')
      },
      onMessage: (at, bytes) => {
        options.onMessage?.(switchId, true, at, bytes)
        ;(coordinator as Coordinator).onInBand(switchId, at, bytes)
      },
    })
    links.set(switchId, link)
    linkList.push({ id: switchId, link, emptiedAt: 0 })
    inputs.add(switchId, link)
  }
  for (const [switchId, port] of ports.links) attachLink(switchId, port)

  const context: RuntimeContext = {
    arena, engine, self: id, incarnation, limits,
    times: { ...defaultRuntimeTimes, ...options.runtimeTimes },
    switches: new PeerSwitches(),
    inputs, weights: new FlowWeights(), ended: new Map(),
    absent: new KeyTable(arena, 'absent flows', limits.absentFlows, ABSENT_OWN_BYTES),
    companions: arena.allocate('flow companions', options.limits.flows * COMPANION_BYTES),
    configVersion: 0,
    now: 0,
    buffered: 0,
    control: (peer) => control.channel(peer),
    inBand: (switchId) => {
      const link = links.get(switchId)
      return link !== undefined && context.switches.bitOf(switchId) !== 0 ? link.channel : null
    },
    publish: (switchId) => links.get(switchId)?.transmit(context.now),
    hasHeard: (peer) => control.lastHeard(peer) !== 0,
    hasRead: (since) => linkList.every(({ emptiedAt }) => emptiedAt > since),
    isOfPresentSwitch: (d) => links.get(i32[d + Descriptor.switch])?.isOfPeer(i32[d + Descriptor.frame]) === true,
    positionOf: (d) => {
      const index = (d - engine.descriptor(0)) / DESCRIPTOR_WORDS
      return batchFirst !== 0 && index >= 0 && index < BATCH_PACKETS ? batchFirst + index : 0
    },
    run,
    flush: () => {
      sendOutput()
      takeRecords()
    },
    drop,
    isStrained: () => control.isStrained || linkList.some(({ link }) => link.session.isStrained),
    anomaly: (what) => { anomalies[what] = (anomalies[what] ?? 0) + 1 },
    countTakenOver: (packets) => { own.takenOver += packets },
    countHandedOver: (packets) => { own.handedOver += packets },
    step: (phase, by) => { openSteps[phase] += by },
  }
  coordinator = new Coordinator(context, { replication: options.replication ?? 'none', every: options.replicateEvery ?? 16,
    isApart: options.isApart, replicas: options.replicas ?? 1, release: sendTo })
  const { outgoing } = coordinator
  let view: ClusterView = { version: 0, runtimes: [], self: id }
  /** Slab index of the next flow to be asked where it wants to live; -1 when none is. */
  let reconsiderHand = -1
  let watch: PacketWatch | null = null
  /** Position of the first packet of the batch on its link; 0 for a batch that comes from elsewhere. */
  let batchFirst = 0
  let turns = 0
  let busyTurns = 0
  /** Something has come in this turn. */
  let hasWorked = false

  function drop(slot: number, reason: string): void {
    drops[reason] = (drops[reason] ?? 0) + 1
    own.dropped++
    if (slot === 0) return
    watch?.dropped(slot, reason)
    pool.give(slot)
  }

  // -- Packets -------------------------------------------------------------------------------------------------------

  /** Sends what has come of a batch: each packet to the switch that its direction leaves by. */
  function sendOutput(): void {
    const count = engine.outputCount
    const { protection } = coordinator as Coordinator
    for (let index = 0; index < count; index++) {
      const d = i32[engine.outputs + index]
      const record = i32[d + Descriptor.record]
      let target: number
      if (record === 0) {
        target = context.switches.across(i32[d + Descriptor.switch], 0)
      } else {
        const meta = i32[d + Descriptor.meta]
        // It would wait in vain at the switch, which could not count it as its flow's.
        if ((meta & Meta.laterFragment) !== 0 && engine.isRestOfDropped(d)) {
          if (replicates) protection.steps.changed(record)
          drop(0, 'first-fragment-dropped')
          continue
        }
        if ((meta & Meta.ownKey) !== 0) markOwnKey(u16, i32[d + Descriptor.frame])
        const direction = ((meta >>> 16) & 1) ^ u8[record + FlowRecord.opener]
        target = u8[record + FlowRecord.outputs + direction]
      }
      const isGuarded = replicates && record !== 0 && u16[(companionOf(context, record) + COMPANION_REPLICA) >> 1] !== 0
      if (isGuarded && protection.steps.collect(record, d, target)) {
        watch?.stepped(d, u16[(companionOf(context, record) + COMPANION_REPLICA) >> 1])
        continue
      }
      sendTo(target, i32[d + Descriptor.frame], i32[d + Descriptor.length])
    }
    protection.steps.commitSteps()
    engine.clearOutput()
  }

  function sendTo(target: number, frame: number, length: number): void {
    for (let i = 0; i < linkList.length; i++) {
      const entry = linkList[i] as (typeof linkList)[number]
      if (entry.id !== target) continue
      if (entry.link.send(frame, length)) own.forwarded++
      else drop(0, 'link-full')
      return
    }
    drop(0, 'no-link')
  }

  /** @param source number of the link that the batch comes from, -1 for none */
  function runBatch(source: number): void {
    const count = engine.batchCount
    const { statistics, holds, statistics: { emitted, dropped } } = engine
    engine.process(context.now)
    context.weights.look(context, count)
    batchFirst = 0
    if (source >= 0) inputs.consumed(source)
    // What was not forwarded has changed states all the same. Where one is held another one may be released.
    const isSilent = replicates && (engine.outputCount !== count || engine.holds !== holds || statistics.emitted !== emitted ||
      statistics.dropped !== dropped)
    if (isSilent) (coordinator as Coordinator).protection.steps.touch(engine.descriptor(0), count, engine.outputs, engine.outputCount)
    sendOutput()
    if (engine.reconsidered.length > 0) reconsider()
    takeRecords()
  }

  function takeRecords(): void {
    if (options.onRecord === undefined) engine.records.clear()
    else engine.records.drain(options.onRecord)
  }

  /** Sends what there is, and runs packets that were set aside; replicas hear of all of them at once. */
  function run(...queues: PacketQueue[]): void {
    (coordinator as Coordinator).protection.steps.gather(() => {
      context.flush()
      for (const queue of queues) runQueue(queue)
    })
  }

  function runQueue(queue: PacketQueue): void {
    let count = 0
    for (let slot = queue.shift(); slot !== 0; slot = queue.shift()) {
      const d = engine.descriptor(count++)
      i32.copyWithin(d, slot >> 2, (slot >> 2) + DESCRIPTOR_WORDS)
      i32[d + Descriptor.port] = context.switches.isEgress(i32[d + Descriptor.switch])
      if (count < BATCH_PACKETS) continue
      engine.batchCount = count
      count = 0
      runBatch(-1)
    }
    if (count === 0) return
    engine.batchCount = count
    runBatch(-1)
  }

  /** True while every link has room for all that a batch may send there. */
  function hasRoom(): boolean {
    if (!(coordinator as Coordinator).protection.hasRoom) return false
    for (let i = 0; i < linkList.length; i++) {
      if ((linkList[i] as (typeof linkList)[number]).link.room < BATCH_PACKETS + BATCH_EXTRA_PACKETS) return false
    }
    return true
  }

  /**
   * True while what opens on other links would be more than a switch keeps up with being told: it must be heard, what it has to say of that
   * included, and nobody else.
   */
  function mustWait(link: DataLink): boolean {
    if (link.session.isStrained) return false
    for (let i = 0; i < linkList.length; i++) if ((linkList[i] as (typeof linkList)[number]).link.session.isStrained) return true
    return false
  }

  /** A few batches from each link. True when there may be more. */
  function receive(): boolean {
    let isMore = false
    for (let i = 0; i < linkList.length; i++) {
      const { id: from, link } = linkList[i] as (typeof linkList)[number]
      let isEmpty = false
      for (let batch = 0, frames = 0; batch < BATCHES_PER_LINK && frames < FRAMES_PER_LINK; batch++) {
        if (link.deliver(context.now)) hasWorked = true
        if (!hasRoom() || mustWait(link)) break
        const count = link.receive(pool, engine.descriptor(0), BATCH_PACKETS)
        if (count === 0) {
          if (link.hasPending) continue
          isEmpty = true
          break
        }
        hasWorked = true
        frames += count
        const side = context.switches.isEgress(from)
        for (let index = 0; index < count; index++) {
          i32[engine.descriptor(index) + Descriptor.port] = side
          i32[engine.descriptor(index) + Descriptor.switch] = from
        }
        own.received += count
        engine.batchCount = count
        batchFirst = link.firstPosition
        runBatch(i)
      }
      if (link.deliver(context.now)) hasWorked = true
      if (!isEmpty || link.hasPending) isMore = true
      else (linkList[i] as (typeof linkList)[number]).emptiedAt = context.now
    }
    return isMore
  }

  // -- Where flows want to live --------------------------------------------------------------------------------------

  function ask(record: number): void {
    const target = engine.migrationTargetOf(record, view)
    if (target !== null && target !== id && control.channel(target) !== null) outgoing.start(record, target)
  }

  function reconsider(): void {
    for (const record of engine.reconsidered) if (u8[record + FlowRecord.phase] !== FlowPhase.free) ask(record)
    engine.reconsidered.length = 0
  }

  function reconsiderAll(): void {
    for (let looked = 0; looked < RECONSIDERED_PER_TURN && reconsiderHand >= 0; looked++) {
      if (reconsiderHand >= engine.slab.highWater) {
        reconsiderHand = -1
        return
      }
      const index = reconsiderHand++
      if (engine.slab.isTaken(index)) ask(engine.slab.offsetOf(index))
    }
  }

  // -- The node ------------------------------------------------------------------------------------------------------

  function poll(now: TimeUs): boolean {
    context.now = now
    hasWorked = false
    let isMore = control.receive(CONTROL_FRAMES, now)
    if (receive()) isMore = true
    if (!engine.advance(now, EXPIRY_STEPS)) isMore = true
    sendOutput()
    if (engine.reconsidered.length > 0) reconsider()
    takeRecords()
    if (reconsiderHand >= 0) reconsiderAll()
    turns++
    if (isMore || hasWorked) busyTurns++
    ;(coordinator as Coordinator).tick({
      busyPerMille: Math.round(busyTurns * 1000 / turns), packets: own.received, drops: own.dropped + engine.statistics.dropped,
      queueDepth: context.buffered,
    })
    for (let i = 0; i < linkList.length; i++) (linkList[i] as (typeof linkList)[number]).link.transmit(now)
    control.transmit(now)
    return isMore || reconsiderHand >= 0
  }

  function nextDue(): TimeUs {
    let due = Math.min(engine.nextDue(), control.nextDue(), (coordinator as Coordinator).nextDue())
    for (let i = 0; i < linkList.length; i++) due = Math.min(due, (linkList[i] as (typeof linkList)[number]).link.nextDue())
    return due
  }

  function notifyClusterConfig(next: ClusterConfig, now: TimeUs): boolean {
    if (next.clusterId !== clusterId || (config !== null && next.version <= config.version) || !isClusterConfig(next)) return false
    if (!next.runtimes.some((entry) => entry.id === id && entry.incarnation === incarnation)) return false
    context.now = now
    context.configVersion = next.version
    config = next
    control.setPeers([...next.switches, ...next.runtimes].filter((entry) => entry.id !== id))
    for (const { id: switchId, link } of linkList) {
      link.setPeer(next.switches.find((entry) => entry.id === switchId)?.incarnation ?? 0)
    }
    ;(coordinator as Coordinator).configure(next)
    view = { version: next.version, self: id,
      runtimes: next.runtimes.filter((entry) => !entry.isDraining).map((entry) => ({ id: entry.id, load: 0, flows: 0 })) }
    if (engine.choosesTargets) reconsiderHand = 0
    return true
  }
  notifyClusterConfig(options.config, 0)

  const accepted: CommandResult = { accepted: true, code: '' }
  const refused = (code: string): CommandResult => ({ accepted: false, code })

  /** Moves flows to another runtime, so many or such a share of the load: `MoveOrders.give`. Refused with a code and nothing changed. */
  function setMigrationTarget(target: number, number: number, share = 0): CommandResult {
    const code = outgoing.orders.give(target, number, share, config)
    return code === '' ? accepted : refused(code)
  }

  /** Gets no new flows, or gets them again. Those that there are stay until they are moved or end. */
  function setDraining(on: boolean, now: TimeUs): CommandResult {
    context.now = now
    ;(coordinator as Coordinator).setDraining(on)
    return accepted
  }

  /**
   * Flows that a runtime which has died was running, as `readInProgress` tells: of one alone no packet is run here any more, of several each
   * with care. To be told to every runtime before the configuration that fences the dead one, and to those that start later.
   *
   * @param isSuspect it is not certain that one of these has been its end
   */
  function quarantine(keys: readonly Int32Array[], now: TimeUs, isSuspect = keys.length > 1): void {
    for (const key of keys) engine.quarantine(key, isSuspect, now)
  }

  function watchPackets(next: PacketWatch | null): void {
    watch = next
    engine.watchPackets(next)
  }

  const counts: PacketCounts = { received: 0, emitted: 0, forwarded: 0, dropped: 0, buffered: 0, handedOver: 0, takenOver: 0 }
  function packets(): PacketCounts {
    const { statistics } = engine
    counts.received = own.received
    counts.emitted = statistics.emitted
    counts.forwarded = own.forwarded
    counts.dropped = own.dropped + statistics.dropped
    counts.buffered = engine.buffered + context.buffered
    counts.handedOver = own.handedOver + statistics.handedOver
    counts.takenOver = own.takenOver + statistics.takenOver
    return counts
  }

  function dropReasons(): Record<string, number> {
    const reasons: Record<string, number> = { ...drops }
    engine.dropCounts.forEach((count, index) => {
      const name = engine.chain.dropReasons[index] as string
      if (count > 0) reasons[name] = (reasons[name] ?? 0) + count
    })
    return reasons
  }

  function* flows(): Generator<NodeFlow> {
    const { moves } = outgoing
    const { incoming, closings } = coordinator as Coordinator
    for (const record of engine.flows()) {
      const flow = flowOf(context, record)
      const move = moves.get(flow)
      const phase = move?.state ?? incoming.moves.get(flow)?.state ?? (closings.has(flow) ? 'closing' : 'active')
      yield { flow, epoch: epochOf(context, record), phase, key: record >> 2,
        owner: move?.state === 'handing' ? move.target : id }
    }
    for (const move of incoming.moves.values()) {
      if (move.block !== 0) yield { flow: move.flow, epoch: move.epoch, phase: move.state, owner: move.source, key: move.block >> 2 }
    }
    for (const block of context.absent.blocks()) {
      if (arena.u8[block + KeyBlock.kind] !== AbsentKind.opening) continue
      const flow = arena.f64[(block + KeyBlock.flow) >> 3]
      yield { flow, epoch: arena.u32[(block + KeyBlock.epoch) >> 2], phase: 'opening', owner: id, key: block >> 2 }
    }
  }

  const node = {
    kind: 'runtime', id, incarnation, engine,
    poll, nextDue, notifyClusterConfig, attachLink, setMigrationTarget, setDraining, quarantine, watchPackets,
    get packets() { return packets() },
    dropReasons,
    /** What the control sessions have counted. */
    sessionTotals: control.totals,
    openSteps, anomalies, flows,
    peerWords: control.words,
    /** Moves out that are ordered or under way. */
    get movesOpen() { return outgoing.orders.flows + outgoing.moves.size },
    /** True when a draining runtime may be let go. */
    get isEmpty() { return (coordinator as Coordinator).isEmpty },
    get pendingFrames() { return linkList.reduce((sum, { link }) => sum + link.pending, 0) },
    get slotsUsed() { return pool.used },
    /** Outputs that have gone to replicas which have not acknowledged them: their slots are in use. */
    get keptOutputs() { return (coordinator as Coordinator).protection.steps.kept },
    /** True when all that has come here has been processed, and is known to whoever keeps replicas. */
    get isSettled() {
      const { protection, isHeard } = coordinator as Coordinator
      return !protection.isWaiting && isHeard && context.buffered === 0
    },
    /** Counts of moves out, in and of closings. */
    replication: { guards: coordinator.protection.counts, replicas: coordinator.replicas.counts, lead: coordinator.protection.steps.lead },
    /** A flow of another runtime as its replica here has it, or null. */
    keptReplica: (flow: number) => (coordinator as Coordinator).replicas.kept(flow),
    replicates,
    /** Flows here that no replica covers now. */
    get unprotected() { return (coordinator as Coordinator).protection.unprotected },
    /** Flows of other runtimes whose replicas are here. */
    get replicas() { return (coordinator as Coordinator).replicas.size },
    /** What is kept here of another runtime's flow: for checkers. */
    keptRecord: (flow: number) => (coordinator as Coordinator).replicas.get(flow),
    /** Flows here with fewer replicas than they are to have. */
    get degraded() {
      const { protection, incoming } = coordinator as Coordinator
      let count = protection.degraded
      if (replicates) for (const { flow, state } of incoming.moves.values()) if (state === 'waiting' && !protection.isCovered(flow)) count++
      return count
    },
    moves: { out: outgoing.counts, refusals: outgoing.refusals, in: coordinator.incoming.counts, closings: coordinator.closings.counts },
    /** Epoch of the flow at a record: for checkers. */
    epochOf: (record: number) => epochOf(context, record),
    flowOf: (record: number) => flowOf(context, record),
    /** Runtimes that may keep replicas of flows here; the one that keeps a flow's, 0 for none; whether a replica of a flow is kept here. */
    get keepers() { return (coordinator as Coordinator).keepers },
    replicaOf: (flow: number) => (coordinator as Coordinator).protection.replicaOf(flow),
    isExposed: (flow: number) => (coordinator as Coordinator).protection.isExposed(flow),
    isBare: (flow: number) => (coordinator as Coordinator).protection.isBare(flow),
    isAlone: (flow: number) => (coordinator as Coordinator).protection.isAlone(flow),
    keepsReplica: (flow: number) => (coordinator as Coordinator).replicas.has(flow),
    isPaused: (record: number) => (u8[record + FlowRecord.flags] & FlowFlag.paused) !== 0,
  } as const
  return node satisfies ClusterNode
}
