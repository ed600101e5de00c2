/**
 * Port: where frames enter and leave a node. Links, external interfaces and control ports are all ports; what is behind one
 * (a shared-memory ring, a raw socket, the simulator) its user cannot tell.
 *
 * A port copies: `receive` puts each frame into a slot of the caller's pool, `send` copies a frame out of the arena. It never
 * waits. Some of its room is reserved for NFactor's own messages, so that data cannot starve them (PROTOCOL 26).
 */

import type { PacketPool } from './packet-pool.ts'

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
  /** Data frames that `send` would take now. */
  readonly room: number
  /** The longest frame that reaches a node now; ordinary ones do where this is not told. It may change from turn to turn. */
  frameBytesTo?(node: number): number
}
