/**
 * Link port: a port with something outside behind it, which comes and goes. What every such port has besides sending and
 * receiving.
 *
 * Who polls a port calls `receive`, then `send` for what leaves, then `flush`, and now and then `maintain`. Before it sleeps it
 * calls `arm`, and sleeps only if that says so, on the descriptors that `waitDescriptors` lists; then `disarm`.
 */

import type { TimeUs } from '../base/clock.ts'
import type { Arena } from '../memory/arena.ts'
import type { Port } from '../packet/port.ts'

export interface LinkPort extends Port {
  readonly name: string
  /** True while frames can go through. */
  readonly isUp: boolean
  readonly statistics: PortStatistics
  /** Bytes of the longest frame that can be sent. A longer one is refused and counted, whatever room there is. */
  readonly frameBytesMax: number
  /** Makes the port ready; it is up once what it needs is there. Throws a CodedError `NF_PORT_...`. */
  open(): void
  /** Ends everything outside of this process. What was sent and not taken by then is lost. May be opened again. */
  close(): void
  /**
   * Frames given to `send` before are on their way now; without it, they are at the latest with the next `receive`, `arm` or
   * batch of 32. Hot: once per turn.
   */
  flush(): void
  /** When `maintain` is to try again what it tries by the clock; Infinity, or nothing, while there is no such thing. Sleeps end by then. */
  readonly retryDue?: TimeUs
  /** Connects, notices that the other end has gone, reads counters of the kernel: every few milliseconds, and when a wait brought no frame. */
  maintain(now: TimeUs): void
  /** Asks to be woken for the next frame. False if there is one already: do not sleep. */
  arm(): boolean
  /** No more waking. */
  disarm(): void
  /**
   * Adds to `list` the descriptors that become readable when there is something to do. They stay the port's, which may close them in
   * `maintain` and `close`. What a port tries again by the clock (connecting, finding an interface) it does in `maintain`.
   */
  waitDescriptors(list: number[]): void
}

/** What a port at a network interface is told. */
export interface InterfacePortOptions {
  readonly arena: Arena
  /** Name of the port; that of the interface unless told. */
  readonly name?: string
  readonly interface: string
  /** Network namespace that the interface is in: a name that `ip netns` knows, or a path. This thread's own unless told. */
  readonly namespace?: string
  /**
   * Where the interface leads: `outside` (unless told), where nobody may speak as NFactor, or `inside`, to other nodes. From outside
   * frames of NFactor's own EtherType are dropped and counted.
   */
  readonly leads?: 'outside' | 'inside'
}

/** What has happened at a port since it was made. Every frame that did not go through is in one of the counts. */
export class PortStatistics {
  /** Frames received into slots, and their bytes. */
  rxFrames = 0
  rxBytes = 0
  /** Frames that broke the rules of the link: descriptors that point nowhere, headers that make no sense. */
  rxInvalid = 0
  /** Frames of NFactor's own EtherType from where nobody may send such. */
  rxForeign = 0
  /** Frames too long for any slot, or for the ring that they came by. */
  rxOversize = 0
  /** Frames that found no room before we came to fetch them, as far as the kernel tells. */
  rxMissed = 0
  /** Frames taken by `send` or `sendReserved`, and their bytes. */
  txFrames = 0
  txBytes = 0
  /** Frames refused because there was no room, or nobody at the other end. */
  txFull = 0
  /** Frames refused because of their length. */
  txOversize = 0
  /** Frames taken and then not consumed, when the other end went away; those taken back are not counted. */
  txLost = 0
  /** How often the link came up. */
  connections = 0
}

/**
 * How a frame that stands for several keeps the size that it is to be cut to: a number of 16 bits right before the frame, bytes of
 * payload per segment, 0 when it is to be cut to what fits the way out. It means something for TCP frames only that are longer than
 * an Ethernet frame of ordinary size.
 */
export const SEGMENT_BYTES_OFFSET = -2
/** Frames up to this length are what they seem. */
export const PLAIN_FRAME_BYTES = 1518
