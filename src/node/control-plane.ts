/**
 * Control plane: a node's control port, with a control session to every other node of the configuration.
 */

import type { TimeUs } from '../base/clock.ts'
import type { Arena } from '../memory/arena.ts'
import { Descriptor, DESCRIPTOR_BYTES, DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import type { PacketPool } from '../packet/packet-pool.ts'
import type { Port } from '../packet/port.ts'
import { ETHERNET_BYTES } from '../wire/ethernet.ts'
import { FrameHeader, Stream } from '../transport/frame-header.ts'
import type { MessageChannel } from '../transport/message-channel.ts'
import { Session, type SessionSizes } from '../transport/session.ts'

export type { SessionSizes } from '../transport/session.ts'

const BATCH = 32

export interface ControlPlaneOptions {
  readonly arena: Arena
  readonly clusterId: number
  readonly self: number
  readonly selfIncarnation: number
  readonly port: Port
  readonly sessions?: Partial<SessionSizes>
  onMessage(peer: number, offset: number, bytes: number): void
}

export type ControlPlane = ReturnType<typeof createControlPlane>

export function createControlPlane(options: ControlPlaneOptions) {
  const { arena, clusterId, self, selfIncarnation, port } = options
  const { i32, u16 } = arena
  const descriptors = arena.allocate('control batch', BATCH * DESCRIPTOR_BYTES) >> 2
  /** Sessions by peer; those whose peer is gone stay for its next life. */
  const sessions = new Map<number, Session>()
  const list: Session[] = []
  const statistics = { unknownPeer: 0 }
  let lastNow: TimeUs = 0

  /** The nodes that there are, each in the life that is meant. */
  function setPeers(peers: readonly { readonly id: number; readonly incarnation: number }[]): void {
    for (const session of list) {
      if (!peers.some(({ id }) => id === session.peer)) session.setPeer(0)
    }
    for (const { id, incarnation } of peers) {
      let session = sessions.get(id)
      if (session === undefined) {
        session = new Session({ arena, clusterId, self, selfIncarnation, peer: id, stream: Stream.control, sizes: options.sessions,
          onMessage: (offset, bytes) => { options.onMessage(id, offset, bytes) } })
        sessions.set(id, session)
        list.push(session)
      }
      session.setPeer(incarnation)
    }
  }

  function channel(peer: number): MessageChannel | null {
    const session = sessions.get(peer)
    return session === undefined || session.peerIncarnation === 0 ? null : session
  }

  /** Handles at most `budget` frames. True when there may be more. */
  function receive(pool: PacketPool, budget: number, now: TimeUs): boolean {
    lastNow = now
    for (let left = budget; left > 0;) {
      const count = port.receive(pool, descriptors, Math.min(left, BATCH))
      if (count === 0) return false
      left -= count
      for (let index = 0; index < count; index++) {
        const d = descriptors + index * DESCRIPTOR_WORDS
        const at = i32[d + Descriptor.frame] + ETHERNET_BYTES
        const bytes = i32[d + Descriptor.length] - ETHERNET_BYTES
        const session = bytes < FrameHeader.session ? undefined : sessions.get(u16[(at + FrameHeader.source) >> 1])
        if (session === undefined) statistics.unknownPeer++
        else session.receive(at, bytes, port, now)
        pool.give(i32[d + Descriptor.slot])
      }
    }
    return true
  }

  function transmit(now: TimeUs): void {
    lastNow = now
    for (let i = 0; i < list.length; i++) (list[i] as Session).transmit(port, now)
  }

  function nextDue(): TimeUs {
    let due = Infinity
    for (let i = 0; i < list.length; i++) {
      const session = list[i] as Session
      due = Math.min(due, session.isBlocked ? Math.max(session.nextDue(), lastNow + 50) : session.nextDue())
    }
    return due
  }

  return {
    setPeers, channel, receive, transmit, nextDue, statistics,
    /** When the last valid frame came from a peer; 0 for none. */
    lastHeard: (peer: number): TimeUs => sessions.get(peer)?.lastHeard ?? 0,
    /** The session to a peer, for statistics. */
    session: (peer: number): Session | undefined => sessions.get(peer),
    /** Ids of peers that have not answered for a while although something waits for them. */
    silentPeers: (now: TimeUs): number[] => list.filter((session) => session.isSilent(now)).map((session) => session.peer),
  }
}
