/**
 * Runtime context: what the parts of a runtime's coordinator share. The node builds it; closing, moving and announcing flows are
 * files of their own that meet only here.
 */

import type { TimeUs } from '../base/clock.ts'
import type { Arena } from '../memory/arena.ts'
import { loadFrameBytes } from '../memory/kernels/frame-bytes.ts'
import { FlowRecord } from '../flow/flow-record.ts'
import { KeyBlock, type KeyTable } from '../flow/key-table.ts'
import { copyFlowKey } from '../flow/flow-key.ts'
import { flowIdOf } from '../messages/cluster-config.ts'
import { FlowClosed } from '../messages/closing.ts'
import { copyMacs, HEAD_BYTES, MessageField, type MessageKind } from '../messages/message.ts'
import { Drained } from '../messages/migration.ts'
import { Bind, BindOwnerIncarnation, BindReleaser, BindReleaserIncarnation } from '../messages/placement.ts'
import { Descriptor } from '../packet/descriptor.ts'
import type { Parser } from '../packet/parse.ts'
import type { PacketQueue } from '../packet/packet-queue.ts'
import type { MessageChannel } from '../transport/message-channel.ts'
import type { Engine } from './engine.ts'
import type { PeerSwitches } from './peer-switches.ts'
import type { FlowWeights } from './flow-weights.ts'
import type { Inputs } from './replication/inputs.ts'

/** Kinds of blocks in the table of absent flows. */
export const AbsentKind = {
  /** A switch has placed it here; its first packet makes the actor. */
  opening: 1,
  /** It is on its way here; its packets are buffered. */
  prepared: 2,
  /** It is claimed as an alias of a flow here; packets are held until the home has answered. */
  claimed: 3,
} as const

/** Byte offsets in a block of the table of absent flows, behind the key block's own. */
export const AbsentBlock = { macs: 64, switch: 76, since: 80 } as const
export const ABSENT_OWN_BYTES = 24

/** Bytes kept for each flow beside its record: Ethernet addresses, and when it came here or was last asked to go. */
export const COMPANION_BYTES = 24
export const COMPANION_MOVED_MS = 12
/** The runtime that keeps the flow's replica, u16, 0 for none. */
export const COMPANION_REPLICA = 16

export interface RuntimeLimits {
  /** Flows opening here or on their way here, at once. */
  readonly absentFlows: number
  /** Moves away from here under way at once, at most; how many there are adapts. */
  readonly movesOut: number
  /** Flows closing at once. */
  readonly closings: number
  /** Alias keys being claimed at once. */
  readonly claims: number
  /** Alias keys of one flow: they have to fit a message. */
  readonly aliasesPerFlow: number
  /** Orders to move flows that are not done with. */
  readonly orders: number
  /** Flows of other runtimes whose replicas are kept here. */
  readonly replicas: number
  /** Packets buffered for one flow that moves. */
  readonly bufferedPerFlow: number
  /** The same, of all flows. */
  readonly buffered: number
  /** Frames of a link that are kept for their sender at most while something is set aside here. */
  readonly unreleased: number
  /** Outputs at replicas, or on their way there, that have not been acknowledged: with as many, or half of the slots, nothing is read. */
  readonly unacknowledged: number
}

export const defaultRuntimeLimits: RuntimeLimits = {
  absentFlows: 16_384, movesOut: 1024, closings: 1024, claims: 1024, aliasesPerFlow: 64, orders: 64, replicas: 1_000_000,
  bufferedPerFlow: 512, buffered: 8192, unreleased: 2048, unacknowledged: 1_000_000,
}

export interface RuntimeTimes {
  /** How long a step of a move may take before the move is called off, microseconds. */
  readonly moveTimeoutUs: number
  /** How long a flow stays after it came, at least. */
  readonly residenceUs: number
  /** How long an opening waits for its first packet. */
  readonly openingTimeoutUs: number
  /** Between reports of the workload. */
  readonly workloadUs: number
  /** After how long without an acknowledgement, while too much waits, a replica is slow. */
  readonly slowReplicaUs: number
}

export const defaultRuntimeTimes: RuntimeTimes = {
  moveTimeoutUs: 500_000, residenceUs: 100_000, openingTimeoutUs: 10_000_000, workloadUs: 100_000, slowReplicaUs: 1_000_000,
}

export interface RuntimeContext {
  readonly arena: Arena
  readonly engine: Engine
  readonly self: number
  readonly incarnation: number
  readonly limits: RuntimeLimits
  readonly times: RuntimeTimes
  readonly switches: PeerSwitches
  readonly inputs: Inputs
  readonly weights: FlowWeights
  /** The last life of each runtime that is over. */
  readonly ended: Map<number, number>
  readonly absent: KeyTable
  /** Arena offset of the companion bytes of flow record 0. */
  readonly companions: number
  /** Version of the configuration. */
  configVersion: number
  /** Time of this turn. */
  now: TimeUs
  /** Packets in queues of flows that move. */
  buffered: number
  control(peer: number): MessageChannel | null
  inBand(switchId: number): MessageChannel | null
  /** Sends now what there is to say in-band, not at the end of the turn: that we may die in it is not to undo it. */
  publish(switchId: number): void
  /** True when a node has been heard from in its present life, so that it knows ours. */
  hasHeard(peer: number): boolean
  /** True when every link has been read to its end since a time. */
  hasRead(since: number): boolean
  /** True when the packet in descriptor `d` was sent by the present life of its switch. */
  isOfPresentSwitch(d: number): boolean
  /** The number of a packet of this batch among the frames of its link; 0 when that is not known. */
  positionOf(d: number): number
  /**
   * Runs the packets of queues, in order, and sends what comes of them; what goes to replicas goes behind the last one. Not within a batch.
   */
  run(...queues: PacketQueue[]): void
  /** Sends what network functions have put out without a packet. Not within a batch. */
  flush(): void
  /** Counts a packet that ends here, and gives its slot back. */
  drop(slot: number, reason: string): void
  /** True while a session's reserve is more than half used: nothing new is begun then. */
  isStrained(): boolean
  /** Counts something odd that was ignored. */
  anomaly(what: string): void
  /** Packets that came in, and went out, inside messages. */
  countTakenOver(packets: number): void
  countHandedOver(packets: number): void
  /** Adds to the count of open steps of a phase. */
  step(phase: string, by: 1 | -1): void
}

/** The id of the flow at a record. */
export function flowOf({ arena }: RuntimeContext, record: number): number {
  return flowIdOf(arena.u32[(record + FlowRecord.idHigh) >> 2], arena.u32[(record + FlowRecord.idLow) >> 2])
}

export function setFlow({ arena }: RuntimeContext, record: number, flow: number, epoch: number): void {
  arena.u32[(record + FlowRecord.idHigh) >> 2] = Math.floor(flow / 4294967296)
  arena.u32[(record + FlowRecord.idLow) >> 2] = flow % 4294967296
  arena.u32[(record + FlowRecord.epoch) >> 2] = epoch
}

export function epochOf({ arena }: RuntimeContext, record: number): number {
  return arena.u32[(record + FlowRecord.epoch) >> 2]
}

/** Arena offset of what is kept beside a flow record. */
export function companionOf(context: RuntimeContext, record: number): number {
  return context.companions + context.engine.slab.indexOf(record) * COMPANION_BYTES
}

/** True when a message of this kind is longer than its channel takes. */
export function isTooLong(channel: MessageChannel | null, kind: MessageKind, tailBytes: number): boolean {
  return kind.bytes + tailBytes > (channel?.messageBytesMax ?? Infinity)
}

/**
 * A new message with its head filled in: its offset, to be completed and committed; 0 when there is no peer or no room, or it is too
 * long for any room.
 */
export function begin({ arena, anomaly }: RuntimeContext, channel: MessageChannel | null, kind: MessageKind, flow: number, epoch: number,
    reserved: boolean, tailBytes = 0): number {
  if (channel === null) return 0
  if (isTooLong(channel, kind, tailBytes)) {
    anomaly('message-too-long')
    return 0
  }
  const at = channel.begin(kind.bytes + tailBytes, reserved)
  if (at === 0) return 0
  arena.u8[at + MessageField.type] = kind.type
  arena.u32[(at + MessageField.epoch) >> 2] = epoch
  arena.f64[(at + MessageField.flow) >> 3] = flow
  return at
}

/** Fills in key and Ethernet addresses from a flow record. */
export function writeKey(context: RuntimeContext, at: number, record: number): void {
  writeKeyFrom(context, at, record >> 2, companionOf(context, record))
}

export function writeKeyFrom({ arena }: RuntimeContext, at: number, key: number, macs: number): void {
  copyFlowKey(arena.i32, key, (at + MessageField.key) >> 2)
  copyMacs(arena, macs, at + MessageField.macs)
}

/** Sends a message that is no more than its head. */
export function sendHead(context: RuntimeContext, channel: MessageChannel | null, kind: MessageKind, flow: number, epoch: number,
    code = 0, node = 0): void {
  const at = begin(context, channel, kind, flow, epoch, true)
  if (at === 0) return
  context.arena.u8[at + MessageField.code] = code
  context.arena.u16[(at + MessageField.node) >> 1] = node
  ;(channel as MessageChannel).commit()
}

/** Begins the word of who serves a flow and who releases its frames, each in its life. Key and `commit` are the caller's; 0 without room. */
export function beginBind(context: RuntimeContext, channel: MessageChannel | null, flow: number, epoch: number,
    owner: number, ownerIncarnation: number, releaser: number, releaserIncarnation: number): number {
  const at = begin(context, channel, Bind, flow, epoch, true)
  if (at === 0) return 0
  const { u16, u32 } = context.arena
  u16[(at + MessageField.node) >> 1] = owner
  u32[(at + BindOwnerIncarnation) >> 2] = ownerIncarnation
  u16[(at + BindReleaser) >> 1] = releaser
  u32[(at + BindReleaserIncarnation) >> 2] = releaserIncarnation
  return at
}

/** In-band to every switch: the last frame of a flow that this node releases before `epoch` is ahead of this. PROTOCOL 9. */
export function sayDrained(context: RuntimeContext, flow: number, epoch: number): void {
  for (const id of context.switches.idsIn(context.switches.all)) sendHead(context, context.inBand(id), Drained, flow, epoch)
}

/**
 * A flow that we claimed has ended, or lives on elsewhere: switches that took our word for it hear so. Its key is at a word index.
 *
 * @param code of FlowClosed
 */
export function sayClosed(context: RuntimeContext, flow: number, epoch: number, code: number, key: number, macs: number): void {
  for (const id of context.switches.idsIn(context.switches.all)) {
    const channel = context.control(id)
    const at = begin(context, channel, FlowClosed, flow, epoch, true)
    if (at === 0) continue
    context.arena.u8[at + MessageField.code] = code
    writeKeyFrom(context, at, key, macs)
    ;(channel as MessageChannel).commit()
  }
}

/** Sends a frame inside a message; false when there is no room, or so little that it is to be kept for replies. */
export function sendFrame(context: RuntimeContext, channel: MessageChannel | null, kind: MessageKind, flow: number, epoch: number,
    frame: number, length: number, reserved: boolean, code = 0, node = 0): boolean {
  if (channel?.isStrained === true) return false
  const at = begin(context, channel, kind, flow, epoch, reserved, length)
  if (at === 0) return false
  context.arena.u8[at + MessageField.code] = code
  context.arena.u16[(at + MessageField.node) >> 1] = node
  loadFrameBytes(context.arena).copyBytes(at + HEAD_BYTES, frame, length)
  ;(channel as MessageChannel).commit()
  return true
}

/**
 * True if the flow that an ICMP error quotes is to be here, although it is not. An error does not open it, and goes back to its switch; in
 * the end that one makes it a flow of its own, and then it is that one's packet, or it would go back for ever.
 */
export function expectsQuoted({ arena, absent, engine }: RuntimeContext, d: number, parser: Parser): boolean {
  const { i32, u8 } = arena
  const block = absent.find(d + Descriptor.key, i32[d + Descriptor.hash] as number)
  if (block === 0) return false
  if (u8[block + KeyBlock.kind] !== AbsentKind.opening) return true
  parser.useOwnKey(d)
  const isOwn = absent.find(d + Descriptor.key, i32[d + Descriptor.hash] as number) !== 0 || engine.findFlow(d) !== 0
  if (!isOwn) parser.parse(d)
  return !isOwn
}
