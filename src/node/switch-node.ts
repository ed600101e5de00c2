/**
 * Switch node: a virtual switch with its external port, a link to every runtime and a control port, in one `poll`. Paper §5.2,
 * §6.1.
 *
 * The data path is that of a runtime without the chain: receive a batch, parse, hash and find all entries (one kernel call), then per
 * packet: from outside to its owner's link, from a runtime out, Ethernet addresses rewritten or restored. Later fragments and ICMP errors go
 * with their flow. What is not that simple goes to the VirtualSwitch. A full link or port is a counted drop.
 */

import type { TimeUs } from '../base/clock.ts'
import { defaultTimeouts } from '../base/limits.ts'
import { planted } from '../base/planted-bugs.ts'
import { Random } from '../base/random.ts'
import { KEY_WORDS } from '../flow/flow-record.ts'
import { flowKeysEqual } from '../flow/flow-key.ts'
import type { Arena } from '../memory/arena.ts'
import { isClusterConfig, type ClusterConfig } from '../messages/cluster-config.ts'
import { MessageField } from '../messages/message.ts'
import { ReturnPacket } from '../messages/placement.ts'
import { Descriptor, DESCRIPTOR_BYTES, DESCRIPTOR_WORDS, Meta } from '../packet/descriptor.ts'
import { DropReason, engineDropReasons } from '../packet/drop-reason.ts'
import { FragmentOutcome, FragmentTracker } from '../packet/fragment-tracker.ts'
import { loadClassifyKernel, UNPARSED } from '../packet/kernels/classify.ts'
import { describeFrame, PacketPool, SLOT_FRAME_OFFSET } from '../packet/packet-pool.ts'
import type { PacketWatch } from '../packet/packet-watch.ts'
import { createParser, dropReasonOf, ParseResult } from '../packet/parse.ts'
import type { Port } from '../packet/port.ts'
import type { PlacementPolicy } from '../vswitch/placement/placement-policy.ts'
import {
  defaultSwitchLimits, defaultSwitchTimes, type SwitchContext, type SwitchLimits, type SwitchTimes,
} from '../vswitch/switch-context.ts'
import { Entry, EntryFlag, EntryPhase, SwitchTable } from '../vswitch/switch-table.ts'
import { VirtualSwitch } from '../vswitch/virtual-switch.ts'
import type { ClusterNode, MessageObserver, NodeFlow, PacketCounts } from './cluster-node.ts'
import { createControlPlane, type SessionSizes } from './control-plane.ts'
import { DataLink, isMarkedOwnKey } from './data-link.ts'
import { FairShares } from './fair-share.ts'
import { TakingBack } from './taking-back.ts'

export interface SwitchNodeOptions {
  readonly arena: Arena
  readonly id: number
  readonly incarnation: number
  readonly clusterId: number
  readonly limits?: Partial<SwitchLimits>
  readonly times?: Partial<SwitchTimes>
  readonly sessions?: Partial<SessionSizes>
  readonly policy: PlacementPolicy
  readonly seed: number
  readonly config: ClusterConfig
  readonly ports: {
    readonly external: Port
    readonly control: Port
    readonly links: ReadonlyMap<number, Port>
    /** To the switch on the other side: for frames that are not IP. Without it they are dropped. */
    readonly bypass?: Port
  }
  /** Sees every message before it is handled: for transcripts and traces. */
  readonly onMessage?: MessageObserver
  readonly wasm?: boolean
}

const BATCH = 32
/** Frames that one turn takes from one port at most, and batches, which in-band messages end. */
const FRAMES_PER_PORT = 128
const BATCHES_PER_LINK = 64
/** Frames and batches that are still taken from a runtime that is fenced: more than its link holds. One that lives may go on sending. */
const FENCED_FRAMES_MAX = 16_384
/** Room in a link for a frame of a port that can wait: that of the longest segment, and of what is said of a new flow. */
const PATIENT_ROOM = 34
const CONTROL_FRAMES = 64
const LINES = 2
const LEAVING_MAX = 64
const STEPS = ['asking', 'closing', 'orphaned', 'placing', 'learning', 'relearning', 'drained', 'claiming']
const FRAGMENT_LIMITS = { fragmentedDatagrams: 1024, fragmentsHeld: 256, fragmentsHeldPerDatagram: 64 }
/** Where a packet comes from: the external port or the bypass; else the id of a runtime. */
const OUTSIDE = 0

// PERF: module constants fold, imported ones do not (see packet/descriptor.ts).
const RECORD = Descriptor.record
const RESULT = Descriptor.result
const HASH = Descriptor.hash
const KEY = Descriptor.key
const SLOT = Descriptor.slot
const META = Descriptor.meta
const SWITCH = Descriptor.switch
const FRAME = Descriptor.frame
const LENGTH = Descriptor.length
const E_PHASE = Entry.phase
const E_OWNER = Entry.owner
const E_RELEASER = Entry.releaser
const E_MACS = Entry.macs
const ACTIVE = EntryPhase.active

export type SwitchNode = ReturnType<typeof createSwitchNode>

export function createSwitchNode(options: SwitchNodeOptions) {
  const { arena, id, incarnation, clusterId, ports } = options
  const { i32, u8, u16, u32, f64 } = arena
  const limits = { ...defaultSwitchLimits, ...options.limits }
  const openSteps: Record<string, number> = Object.fromEntries(STEPS.map((name) => [name, 0]))
  const anomalies: Record<string, number> = {}
  const drops: Record<string, number> = {}
  const own = { received: 0, forwarded: 0, dropped: 0, takenOver: 0, handedOver: 0 }

  const random = new Random(options.seed)
  const hashSeed = random.int32()
  const parser = createParser(arena, hashSeed)
  const kernel = (options.wasm ?? true) ? loadClassifyKernel(arena) : null
  const pool = new PacketPool(arena, limits.packets, limits.largePackets)
  const descriptors = arena.allocate('switch batch', BATCH * DESCRIPTOR_BYTES) >> 2
  const single = arena.allocate('switch packet', DESCRIPTOR_BYTES) >> 2
  const sink = arena.allocate('touch', 64)
  const table = new SwitchTable(arena, limits.entries)
  const fragments = new FragmentTracker(arena, FRAGMENT_LIMITS, defaultTimeouts.fragment * 1e6)
  const { base: tableBase, shift: tableShift } = table.table

  const control = createControlPlane({
    arena, clusterId, self: id, selfIncarnation: incarnation, port: ports.control, sessions: options.sessions,
    onMessage: (peer, at, bytes) => {
      options.onMessage?.(peer, false, at, bytes)
      virtualSwitch.onControl(peer, at, bytes)
    },
  })
  const links: { id: number; link: DataLink }[] = []
  /** By runtime id. PERF: an array, looked up per packet. */
  const linkOf: (DataLink | null)[] = new Array<DataLink | null>(256).fill(null)
  const refusedTo = new Float64Array(256)
  const shares = new FairShares()

  function attachLink(runtime: number, port: Port): void {
    const link = new DataLink({
      arena, clusterId, self: id, selfIncarnation: incarnation, peer: runtime, port, sessions: options.sessions,
      isSwitch: true, silenceUs: context.times.silenceUs,
      onRefused: () => {
        own.received++
        drop(0, 'former-life')
      },
      onMessage: (at, bytes) => {
        options.onMessage?.(runtime, true, at, bytes)
        if (virtualSwitch.isReturnedPacket(at, bytes)) {
          takingBack.returned(runtime, u32[(at + MessageField.epoch) >> 2])
          takeReturned(at, bytes)
        } else virtualSwitch.onInBand(runtime, at, bytes)
      },
    })
    linkOf[runtime] = link
    links.push({ id: runtime, link })
    shares.attach(runtime, link, () => virtualSwitch.givesBackLate(runtime))
  }

  const context: SwitchContext = {
    arena, self: id, incarnation, limits, table,
    times: { ...defaultSwitchTimes, ...options.times },
    now: 0,
    held: 0,
    watch: null,
    control: (peer) => control.channel(peer),
    inBand: (runtime) => {
      const link = linkOf[runtime]
      // What a runtime that does not know us yet would not hear in-band, data would overtake.
      return link === null || link === undefined || link.session.peerIncarnation === 0 || control.lastHeard(runtime) === 0 ? null
        : link.channel
    },
    toRuntime, toExternal, restoreAddresses, drop,
    giveSlot: (slot) => { pool.give(slot) },
    isScarce: (slot) => pool.isLarge(slot) && pool.availableLarge * 2 < limits.largePackets,
    anomaly: (what) => { anomalies[what] = (anomalies[what] ?? 0) + 1 },
    step: (phase, by) => { openSteps[phase] += by },
    hashOf(key) {
      i32.copyWithin(single + KEY, key, key + KEY_WORDS)
      return parser.hashKey(single)
    },
    useOwnKey: (d) => { parser.useOwnKey(d) },
    hasRoomTo: (runtime) => {
      const link = linkOf[runtime]
      return link === null || link === undefined || (context.inBand(runtime) !== null && !link.isWaiting && link.room > 0)
    },
    isDown: (runtime) => linkOf[runtime]?.isDown === true,
    positionTo: (runtime) => linkOf[runtime]?.sentPosition ?? 0,
    takeBack: (runtime, life) => {
      const link = linkOf[runtime]
      if (link === null || link === undefined || link.isCut || !link.canRelease) return
      takingBack.takeBack(runtime, link, life)
      link.isCut = true
    },
    countForwarded: (packets) => { own.forwarded += packets },
    countTakenOver: (packets) => { own.takenOver += packets },
    countHandedOver: (packets) => { own.handedOver += packets },
  }
  const virtualSwitch = new VirtualSwitch(context, options.policy)
  const takingBack = new TakingBack({ context, virtualSwitch, pool, parser, fragments, descriptors, find })
  let config: ClusterConfig | null = null
  for (const [runtime, port] of ports.links) attachLink(runtime, port)

  // -- Packets -------------------------------------------------------------------------------------------------------

  function drop(slot: number, reason: string): void {
    drops[reason] = (drops[reason] ?? 0) + 1
    own.dropped++
    if (slot === 0) return
    context.watch?.dropped(slot, reason)
    pool.give(slot)
  }

  /**
   * Packets of the batch for runtimes leave together at its end, so that the `FlowOpen`s of many new flows share a frame ahead of
   * them, and the runtime's batches are not cut at each.
   */
  const leaving = new Int32Array(LEAVING_MAX * 2)
  let leavingCount = 0
  let isInBatch = false

  function toRuntime(d: number, runtime: number): void {
    if (!isInBatch) return sendToRuntime(d, runtime)
    if (leavingCount === LEAVING_MAX) flushLeaving()
    leaving[leavingCount * 2] = d
    leaving[leavingCount * 2 + 1] = runtime
    leavingCount++
  }

  function flushLeaving(): void {
    for (let i = 0; i < leavingCount; i++) sendToRuntime(leaving[i * 2], leaving[i * 2 + 1])
    leavingCount = 0
  }

  function sendToRuntime(d: number, runtime: number): void {
    const link = linkOf[runtime] as DataLink | null
    if (link !== null && link.send(i32[d + FRAME], i32[d + LENGTH])) {
      own.forwarded++
      pool.give(i32[d + SLOT])
    } else if (link?.isWaiting === true) {
      virtualSwitch.unsent(d)
    } else {
      refusedTo[runtime]++
      shares.refused(runtime, i32[d + LENGTH])
      drop(i32[d + SLOT], 'link-full')
    }
  }

  /** A packet from outside for the owner of its flow, unless that flow has had more than its share of a link that is filling up. */
  function toOwner(d: number, runtime: number): void {
    if (shares.admits(runtime, i32[d + HASH], i32[d + LENGTH])) return toRuntime(d, runtime)
    refusedTo[runtime]++
    drop(i32[d + SLOT], 'over-share')
  }

  /** Gives a packet the addresses of its flow: as they are from endpoint a to b, exchanged from b to a. */
  function restoreAddresses(d: number, at: number): void {
    const frame = i32[d + FRAME] >> 1
    const macs = at >> 1
    const turn = (i32[d + META] & Meta.fromB) === 0 ? 0 : 3
    u16[frame] = u16[macs + turn]
    u16[frame + 1] = u16[macs + turn + 1]
    u16[frame + 2] = u16[macs + turn + 2]
    u16[frame + 3] = u16[macs + 3 - turn]
    u16[frame + 4] = u16[macs + 4 - turn]
    u16[frame + 5] = u16[macs + 5 - turn]
  }

  /** Sends a packet out with the flow's addresses. */
  function toExternal(d: number, entry: number): void {
    restoreAddresses(d, entry + E_MACS)
    send(ports.external, d, 'port-full')
  }

  function send(port: Port, d: number, reason: string): void {
    if (port.send(i32[d + FRAME], i32[d + LENGTH])) {
      own.forwarded++
      pool.give(i32[d + SLOT])
    } else {
      drop(i32[d + SLOT], reason)
    }
  }

  /** Parses a batch and finds its entries. The record words are exact, or 0 where it takes a closer look. */
  function classify(count: number): void {
    const end = descriptors + count * DESCRIPTOR_WORDS
    if (kernel !== null) {
      const left = kernel(descriptors << 2, count, hashSeed, tableBase << 2, tableShift, LINES, sink, context.now, 0, 0)
      if (left === 0) return
      for (let d = descriptors; d < end; d += DESCRIPTOR_WORDS) if (i32[d + RESULT] === UNPARSED) parse(d)
      return
    }
    for (let d = descriptors; d < end; d += DESCRIPTOR_WORDS) {
      f64[(d + Descriptor.time) >> 1] = context.now
      i32[d + Descriptor.wireLength] = i32[d + LENGTH]
      parse(d)
    }
  }

  function parse(d: number): void {
    parser.parse(d)
    i32[d + RECORD] = 0
  }

  function runBatch(count: number, from: number): void {
    classify(count)
    const end = descriptors + count * DESCRIPTOR_WORDS
    isInBatch = true
    for (let d = descriptors; d < end; d += DESCRIPTOR_WORDS) {
      i32[d + SWITCH] = from
      if (i32[d + RESULT] === 0) packet(d, from)
      else special(d, i32[d + RESULT], from)
    }
    isInBatch = false
    if (leavingCount > 0) flushLeaving()
  }

  function packet(d: number, from: number): void {
    let shown = i32[d + RECORD]
    // An entry before in the batch may have gone, and its block become another's.
    if (shown === 0 || !flowKeysEqual(i32, d + KEY, shown >> 2)) shown = find(d)
    if (shown === 0) {
      if (from === OUTSIDE) virtualSwitch.unknown(d)
      else virtualSwitch.unknownFromRuntime(d)
      return
    }
    const entry = (u8[shown + Entry.flags] & EntryFlag.alias) === 0 ? shown : table.mainOf(shown)
    if (from === OUTSIDE) {
      if (u8[entry + E_PHASE] === ACTIVE) toOwner(d, u16[(entry + E_OWNER) >> 1])
      else virtualSwitch.packet(entry, d)
    } else if (u16[(entry + E_RELEASER) >> 1] === from) {
      u32[(entry + Entry.released) >> 2]++
      toExternal(d, shown)
    } else if ((i32[d + META] & Meta.related) !== 0) {
      // An ICMP error may have been a flow of its own where it came in.
      parser.useOwnKey(d)
      i32[d + RECORD] = 0
      packet(d, from)
    } else {
      virtualSwitch.fromRuntime(entry, shown, d, from)
    }
  }

  function find(d: number): number {
    let entry = table.find(d + KEY, i32[d + HASH])
    if (entry === 0 && (i32[d + META] & Meta.related) !== 0) {
      parser.useOwnKey(d)
      entry = table.find(d + KEY, i32[d + HASH])
    }
    return entry
  }

  /** Fragments, ICMP errors, what is not IP, what is malformed. */
  function special(d: number, result: number, from: number): void {
    switch (result) {
      case ParseResult.related:
        // A flow of its own where it ran, it is counted as such, whatever is known here of the one that it quotes.
        if (from !== OUTSIDE && isMarkedOwnKey(u16, i32[d + FRAME])) parser.useOwnKey(d)
        return packet(d, from)
      case ParseResult.firstFragment: {
        let held = fragments.first(d)
        packet(d, from)
        while (held !== 0) {
          const slot = held
          held = i32[(slot >> 2) + Descriptor.nextHeld]
          laterFragment(slot >> 2, i32[(slot >> 2) + SWITCH])
        }
        return
      }
      case ParseResult.laterFragment:
        laterFragment(d, from)
        return
      case ParseResult.pass:
        passBy(d, from)
        return
      default:
        drop(i32[d + SLOT], reasonName(dropReasonOf(result)))
    }
  }

  function laterFragment(d: number, from: number): void {
    switch (fragments.later(d)) {
      case FragmentOutcome.flow:
        i32[d + RECORD] = 0
        return packet(d, from)
      case FragmentOutcome.held: return
      case FragmentOutcome.malformed: return drop(i32[d + SLOT], 'malformed-fragment')
      default: drop(i32[d + SLOT], 'fragment-limit')
    }
  }

  /** Frames that are not IP go around the chain. */
  function passBy(d: number, from: number): void {
    if (from !== OUTSIDE) send(ports.external, d, 'port-full')
    else if (ports.bypass === undefined) drop(i32[d + SLOT], 'non-ip')
    else send(ports.bypass, d, 'link-full')
  }

  function takeReturned(at: number, bytes: number): void {
    const length = bytes - ReturnPacket.bytes
    const slot = pool.take(length)
    own.takenOver++
    if (slot === 0) return drop(0, 'no-slot')
    const d = slot >> 2
    i32.fill(0, d, d + DESCRIPTOR_WORDS)
    u8.copyWithin(slot + SLOT_FRAME_OFFSET, at + ReturnPacket.bytes, at + bytes)
    describeFrame(i32, d, slot, length)
    f64[(d + Descriptor.time) >> 1] = context.now
    let result = parser.parse(d)
    if (result === ParseResult.firstFragment) result = ParseResult.flow
    if (result === ParseResult.laterFragment) {
      const outcome = fragments.later(d)
      if (outcome === FragmentOutcome.held) return
      if (outcome === FragmentOutcome.flow) result = ParseResult.flow
    }
    if (result !== ParseResult.flow && result !== ParseResult.related) return drop(slot, 'no-owner')
    virtualSwitch.returned(d)
  }

  function expireFragments(): void {
    for (;;) {
      const expired = fragments.expire(context.now)
      if (expired === 0) return
      for (let slot = expired; slot > 0;) {
        const next = i32[(slot >> 2) + Descriptor.nextHeld]
        drop(slot, 'fragment-timeout')
        slot = next
      }
    }
  }

  // -- The node ------------------------------------------------------------------------------------------------------

  /** How many packets, whosever they are, could be passed on now: none while some wait for who serves their flow. */
  function roomForAll(): number {
    let room = context.held > 0 ? 0 : ports.bypass?.room ?? Infinity
    for (let i = 0; i < links.length; i++) room = Math.min(room, (links[i] as (typeof links)[number]).link.room)
    return Math.min(BATCH, Math.floor(room / PATIENT_ROOM))
  }

  function receivePort(port: Port): boolean {
    for (let frames = 0; frames < FRAMES_PER_PORT; frames += BATCH) {
      const count = port.receive(pool, descriptors, port.isPatient === true ? roomForAll() : BATCH)
      if (count === 0) return false
      own.received += count
      if (port !== ports.bypass) runBatch(count, OUTSIDE)
      else for (let i = 0; i < count; i++) send(ports.external, descriptors + i * DESCRIPTOR_WORDS, 'port-full')
    }
    return true
  }

  function receiveLinks(): boolean {
    let isMore = false
    for (let i = 0; i < links.length; i++) {
      const { id: runtime, link } = links[i] as (typeof links)[number]
      if (receiveLink(runtime, link, BATCHES_PER_LINK, FRAMES_PER_PORT)) isMore = true
    }
    return isMore
  }

  /** Reads a link within bounds; true when there may be more. */
  function receiveLink(runtime: number, link: DataLink, batchesMax: number, framesMax: number): boolean {
    let isEmpty = false
    for (let batch = 0, frames = 0; batch < batchesMax && frames < framesMax; batch++) {
      link.deliver(context.now)
      const count = link.receive(pool, descriptors, BATCH)
      if (count === 0) {
        if (link.hasPending) continue
        isEmpty = true
        break
      }
      frames += count
      own.received += count
      runBatch(count, runtime)
    }
    link.deliver(context.now)
    return !isEmpty || link.hasPending
  }

  function poll(now: TimeUs): boolean {
    context.now = now
    let isMore = control.receive(CONTROL_FRAMES, now)
    if (receiveLinks()) isMore = true
    // What comes from a port that can wait is never more than the links take.
    if (ports.external.isPatient !== true) shares.turn(now)
    if (receivePort(ports.external)) isMore = true
    if (ports.bypass !== undefined && receivePort(ports.bypass)) isMore = true
    expireFragments()
    virtualSwitch.tick()
    for (let i = 0; i < links.length; i++) {
      const { link } = links[i] as (typeof links)[number]
      link.transmit(now)
      link.letGo(now)
    }
    control.transmit(now)
    return isMore
  }

  function nextDue(): TimeUs {
    let due = Math.min(control.nextDue(), virtualSwitch.nextDue(), fragments.nextExpiry())
    for (let i = 0; i < links.length; i++) due = Math.min(due, (links[i] as (typeof links)[number]).link.nextDue())
    return due
  }

  function notifyClusterConfig(next: ClusterConfig, now: TimeUs): boolean {
    if (next.clusterId !== clusterId || (config !== null && next.version <= config.version) || !isClusterConfig(next)) return false
    if (!next.switches.some((entry) => entry.id === id && entry.incarnation === incarnation)) return false
    context.now = now
    config = next
    control.setPeers([...next.switches, ...next.runtimes].filter((entry) => entry.id !== id))
    for (const { id: runtime, link } of links) {
      const life = next.runtimes.find((entry) => entry.id === runtime)?.incarnation ?? 0
      // What a runtime has published before it is fenced counts: whose replica it was has been told that it is out (PROTOCOL 13, 18).
      const before = link.session.peerIncarnation
      if (before !== 0 && life !== before && !planted['published-refused']) receiveLink(runtime, link, FENCED_FRAMES_MAX, FENCED_FRAMES_MAX)
      const { isCut } = link
      // An end that has gone before its next life is meant here is not that one, even if we have not looked since, and soon hear the next.
      if (before === 0) link.letGo(now)
      link.setPeer(life)
      if (before !== 0 && life !== before && !isCut) takingBack.takeBack(runtime, link, before)
    }
    virtualSwitch.configure(next)
    return true
  }
  notifyClusterConfig(options.config, 0)

  const counts: PacketCounts = { received: 0, emitted: 0, forwarded: 0, dropped: 0, buffered: 0, handedOver: 0, takenOver: 0 }
  function packets(): PacketCounts {
    Object.assign(counts, own)
    counts.buffered = context.held + fragments.held
    return counts
  }

  function* flows(): Generator<NodeFlow> {
    for (const entry of table.entries()) {
      const flow = f64[(entry + Entry.flow) >> 3]
      yield { flow, epoch: u32[(entry + Entry.epoch) >> 2], phase: PHASE_NAMES[u8[entry + E_PHASE]] ?? '', key: entry >> 2,
        owner: u16[(entry + E_OWNER) >> 1] }
    }
  }

  const node = {
    kind: 'switch', id, incarnation,
    poll, nextDue, notifyClusterConfig, attachLink,
    watchPackets: (watch: PacketWatch | null): void => { context.watch = watch },
    get packets() { return packets() },
    dropReasons: () => ({ ...drops }),
    /** Packets for which the link to a runtime had no room, by the runtime's id. */
    refusedTo: refusedTo as Readonly<Record<number, number>>,
    /** What the control sessions have counted. */
    sessionTotals: control.totals,
    openSteps, anomalies, flows,
    peerWords: control.words,
    /** Entries in the table, aliases included. */
    get entries() { return table.size },
    get pendingFrames() { return links.reduce((sum, { link }) => sum + link.pending, 0) },
    /** Packets that were taken back from links of the dead and sent on, and that had been consumed. */
    takenBack: virtualSwitch.takenBack.counts,
    get slotsUsed() { return pool.used },
  } as const
  return node satisfies ClusterNode
}

const PHASE_NAMES = ['', 'active', 'asking', 'closing', 'orphaned', 'placing', 'learning', 'stalled']

const reasonNames = Object.keys(engineDropReasons)
function reasonName(reason: number): string {
  return reasonNames[reason] ?? reasonNames[DropReason['malformed-link']] ?? ''
}
