/**
 * Message channel: where a protocol puts its messages for one peer. Behind it is a session (session.ts), control or in-band.
 *
 * A message is written in place: `begin` gives room in the arena, the caller fills it, `commit` sends it. Nothing else may happen
 * on the channel in between. Requests use ordinary room and are tried again later when there is none. Replies, and whatever must
 * go out for the peer to make progress, use the reserve: it is sized so that it always suffices, because a session allows its
 * peer no new requests while half of its reserve is in use (PROTOCOL 25). Who takes on work that ends in messages to other nodes
 * than the one that asked, looks at `isStrained` first.
 */

export interface MessageChannel {
  /**
   * Room for a message of `bytes` bytes, zeroed, 8-aligned; 0 when there is none.
   *
   * @param reserved true for a reply: there is room unless the peer is gone or has long been silent
   */
  begin(bytes: number, reserved?: boolean): number
  /** Sends the message that `begin` gave room for. */
  commit(): void
  /** Where the stream of messages ends now, to be asked about by {@link hasReached}. */
  readonly position?: number
  /** True when the peer has handled everything that was committed before `position` was read; the peer's life must be the same. */
  hasReached?(position: number): boolean
  /** The longest message that there can be; none is too long when it is not told. */
  readonly messageBytesMax?: number
  /** True while more than half of the reserve is in use: now is no time for work that would need more of it. */
  readonly isStrained?: boolean
}
