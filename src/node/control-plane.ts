/**
 * Control plane: a node's control port, with a control session to every other node of the configuration.
 */

import type { TimeUs } from '../base/clock.ts'
import type { PeerWord } from '../controller/failure-detector.ts'
import type { Arena } from '../memory/arena.ts'
import { Descriptor, DESCRIPTOR_BYTES, DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import { PacketPool } from '../packet/packet-pool.ts'
import type { Port } from '../packet/port.ts'
import { EtherType, ETHERNET_BYTES, ETHERNET_TYPE } from '../wire/ethernet.ts'
import { FrameHeader, Stream } from '../transport/frame-header.ts'
import type { MessageChannel } from '../transport/message-channel.ts'
import { Session, type SessionSizes } from '../transport/session.ts'
import { createSessionStatistics, type SessionStatistics } from '../transport/session-statistics.ts'

export type { SessionSizes } from '../transport/session.ts'

export interface ControlPlaneOptions {
  readonly arena: Arena
  readonly clusterId: number
  readonly self: number
  readonly selfIncarnation: number
  readonly port: Port
  readonly sessions?: Partial<SessionSizes>
  onMessage(peer: number, offset: number, bytes: number): void
}

/** Frames taken at once, and long ones, where the port carries such. */
const SLOTS = 16
const LONG_SLOTS = 4

/**
 * Sizes of sessions between runtimes where their port carries long frames. Packets of up to 64 KiB go between them with their flows' records:
 * frames that hold most of one, and room for many on their way: the other runtime may wait for its core for 25 ms, and when all flows go on
 * at once after a death, what has waited for them is a megabyte.
 */
export const longSessionSizes: SessionSizes = {
  frameBytes: 1514, longFrameBytes: 65_024, sendBytes: 655_360, ringBytes: 2_097_152, messageBytesMax: 131_064,
}

export type ControlPlane = ReturnType<typeof createControlPlane>

export function createControlPlane(options: ControlPlaneOptions) {
  const { arena, clusterId, self, selfIncarnation, port } = options
  const { i32, u8, u16 } = arena
  const descriptors = arena.allocate('control plane: batch', SLOTS * DESCRIPTOR_BYTES) >> 2
  /** Slots of its own: packets that wait for a message may be in all those that the node has for packets. */
  const pool = new PacketPool(arena, SLOTS, port.frameBytesTo === undefined ? 0 : LONG_SLOTS)
  /** Sessions by peer. Those whose peer is gone stay, for its next life or for another peer. */
  const sessions = new Map<number, Session>()
  const list: Session[] = []
  /** Frames that belong to no session: not of ours at all, or from a node that there is not. */
  const statistics = { otherFrames: 0, unknownPeer: 0 }

  /** The nodes that there are, each in the life that is meant. */
  function setPeers(peers: readonly { readonly id: number; readonly incarnation: number }[]): void {
    for (const session of list) {
      if (!peers.some(({ id }) => id === session.peer)) session.setPeer(0)
    }
    for (const { id, incarnation } of peers) sessionFor(id).setPeer(incarnation)
  }

  function sessionFor(id: number): Session {
    let session = sessions.get(id)
    if (session !== undefined) return session
    session = list.find(({ peerIncarnation }) => peerIncarnation === 0)
    if (session === undefined) {
      session = new Session({ arena, clusterId, self, selfIncarnation, peer: id, stream: Stream.control, sizes: options.sessions,
        onMessage: (offset, bytes, peer) => { options.onMessage(peer, offset, bytes) } })
      list.push(session)
    } else {
      sessions.delete(session.peer)
      session.setAddress(id)
    }
    sessions.set(id, session)
    return session
  }

  function channel(peer: number): MessageChannel | null {
    const session = sessions.get(peer)
    return session === undefined || session.peerIncarnation === 0 ? null : session
  }

  /** Handles at most `budget` frames. True when there may be more. */
  function receive(budget: number, now: TimeUs): boolean {
    for (let left = budget; left > 0;) {
      const wanted = Math.min(left, SLOTS)
      const count = port.receive(pool, descriptors, wanted)
      left -= count
      for (let index = 0; index < count; index++) {
        const d = descriptors + index * DESCRIPTOR_WORDS
        const slot = i32[d + Descriptor.slot]
        take(i32[d + Descriptor.frame], i32[d + Descriptor.length] - ETHERNET_BYTES, now)
        pool.give(slot)
      }
      // What is long may not have found a slot.
      if (count < (port.frameBytesTo === undefined ? wanted : Math.min(wanted, LONG_SLOTS))) return false
    }
    return true
  }

  function take(frame: number, bytes: number, now: TimeUs): void {
    const at = frame + ETHERNET_BYTES
    const type = frame + ETHERNET_TYPE
    if (bytes < FrameHeader.session || u8[type] !== EtherType.nfactor >> 8 || u8[type + 1] !== (EtherType.nfactor & 255)) {
      statistics.otherFrames++
      return
    }
    const session = sessions.get(u16[(at + FrameHeader.source) >> 1])
    if (session === undefined) statistics.unknownPeer++
    else session.receive(at, bytes, now)
  }

  /** Sends what is due on every session: once at the end of a turn. */
  function transmit(now: TimeUs): void {
    for (let i = 0; i < list.length; i++) (list[i] as Session).transmit(port, now)
  }

  /** When there is something to send if nothing comes; -Infinity for at once. */
  function nextDue(): TimeUs {
    let due = Infinity
    for (let i = 0; i < list.length; i++) due = Math.min(due, (list[i] as Session).nextDue())
    return due
  }

  return {
    setPeers, channel, receive, transmit, nextDue, statistics,
    /** When the last valid frame came from a peer in its present life; 0 for none. */
    lastHeard: (peer: number): TimeUs => sessions.get(peer)?.lastHeard ?? 0,
    /** The session to a peer, for statistics. */
    session: (peer: number): Session | undefined => sessions.get(peer),
    /** Counts of all sessions together, and the longest of their round trips now. */
    totals(): SessionStatistics & { roundTripUs: number } {
      const totals = createSessionStatistics()
      for (const { statistics } of list) {
        for (const name of Object.keys(totals) as (keyof SessionStatistics)[]) totals[name] += statistics[name]
      }
      return { ...totals, roundTripUs: Math.round(Math.max(0, ...list.map((session) => session.roundTripUs))) }
    },
    /** True while any session's reserve is more than half used. */
    get isStrained() { return list.some((session) => session.isStrained) },
    /** What it has heard of each peer of the configuration: for failure detectors. */
    words: (now: TimeUs): PeerWord[] => list.filter((session) => session.peerIncarnation !== 0 && session.lastHeard !== 0)
      .map((session) => {
        const heardAgoUs = Math.max(0, now - session.lastHeard)
        return { peer: session.peer, heardAgoUs, owedUs: session.isSilent ? heardAgoUs : 0 }
      }),
    /** Ids of peers that have not answered for a while although something waits for them. */
    silentPeers: (): number[] => list.filter((session) => session.isSilent).map((session) => session.peer),
  }
}
