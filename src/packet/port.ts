/**
 * Port: where frames enter and leave a node. Links, external interfaces and control ports are all ports; what is behind one
 * (a shared-memory ring, a raw socket, the simulator) its user cannot tell.
 *
 * A port copies: `receive` puts each frame into a slot of the caller's pool, `send` copies a frame out of the arena. It never
 * waits. Some of its room is reserved for NFactor's own messages, so that data cannot starve them (PROTOCOL 26).
 */

import type { PacketPool } from './packet-pool.ts'

/**
 * A port whose memory outlives the other end: what that one has not given back can be taken back by its sender. Positions count the frames
 * of a connection from 1, the same on both sides.
 */
export interface TakeBackPort extends Port {
  readonly isUp: boolean
  /** How many connections there have been. */
  readonly connection: number
  /** The last frame received, and the last one sent, on this connection. */
  readonly receivedPosition: number
  readonly sentPosition: number
  /** True when so much has been received and not given back that the link is nearly full. */
  readonly isCrowded: boolean
  /** Gives back all frames up to a position. */
  release(position: number): void
  /** Cuts the link for good: for an end that has been declared dead and may not be. */
  sever(): void
  /** True when the link has ended and what was sent has not been taken back, nor given up. */
  readonly canTakeBack: boolean
  /** Returns the position of the first frame that `takeBack` will give. */
  beginTakeBack(): number
  readonly takeBackLeft: number
  /** Like `receive`; 0 when there are no more, or no slots. */
  takeBack(pool: PacketPool, descriptors: number, max: number): number
  /** What has not been taken back by now is given up, and the link can come up again. */
  endTakeBack(): void
}

export interface Port {
  /**
   * Takes at most `max` frames, oldest first. Each lies in a slot of `pool` afterwards, and its descriptor (at word index
   * `descriptors`, then every `DESCRIPTOR_WORDS`) has `frame`, `length`, `wireLength`, `slot` and `linkType`. Frames for which
   * the pool has no slot stay where they are. Hot.
   *
   * @returns how many
   */
  receive(pool: PacketPool, descriptors: number, max: number): number
  /** Copies a data frame out; false when there is no room but the reserve. Hot. */
  send(frame: number, length: number): boolean
  /** The same for a frame of NFactor's own, which may use the reserve. */
  sendReserved(frame: number, length: number): boolean
  /** True where frames wait without being lost, as in a file: a switch takes from it only what it can pass on at once. */
  readonly isPatient?: boolean
  /** Data frames that `send` would take now, if none is longer than `bufferBytes`. */
  readonly room: number
  /** A longer frame takes as much room as pieces of this length would; where it is not told, each takes as much as any other. */
  readonly bufferBytes?: number
  /** The longest frame that reaches a node now; ordinary ones do where this is not told. It may change from turn to turn. */
  frameBytesTo?(node: number): number
}
