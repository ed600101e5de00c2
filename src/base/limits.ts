/**
 * Limits: every bound of the engine in one place, with the value used unless the configuration says otherwise. Memory for
 * them is address space, reserved at start and touched only as it is used.
 */

export interface EngineLimits {
  /** Flows at once. */
  readonly flows: number
  /** TCP flows at once whose SYN nobody has answered: with more, the one that has waited longest ends. */
  readonly unanswered: number
  /** Packet slots for ordinary frames (2 KiB each). */
  readonly packets: number
  /** Packet slots for segments of up to 64 KiB (72 KiB each). */
  readonly largePackets: number
  /** Bytes of extents (variable-size flow state) in total. */
  readonly extentBytes: number
  /** Bytes of records waiting for the host to take them. */
  readonly recordBytes: number
  /** Packets that network functions may hold per flow. */
  readonly heldPerFlow: number
  /** Alias keys of translated flows. */
  readonly aliases: number
  /** Fragmented datagrams tracked at once. */
  readonly fragmentedDatagrams: number
  /** Fragments kept because they came before their first one, in total. */
  readonly fragmentsHeld: number
  /** The same, per datagram. */
  readonly fragmentsHeldPerDatagram: number
}

export const defaultLimits: EngineLimits = {
  flows: 1_000_000,
  unanswered: 65_536,
  packets: 16_384,
  largePackets: 1024,
  extentBytes: 256 * 1024 * 1024,
  recordBytes: 1024 * 1024,
  heldPerFlow: 64,
  aliases: 65_536,
  fragmentedDatagrams: 4096,
  fragmentsHeld: 1024,
  fragmentsHeldPerDatagram: 64,
}

/** How long a flow may be idle before it ends, seconds. */
export interface IdleTimeouts {
  /** TCP before the handshake is answered (RFC 5382 REQ-5: at least 4 minutes). */
  readonly tcpOpening: number
  /** TCP after that (RFC 5382 REQ-5: at least 2 hours 4 minutes). */
  readonly tcp: number
  /** TCP after RST or FIN in both directions: the time-wait (RFC 9293 §3.6.1: twice the maximum segment lifetime). */
  readonly tcpClosed: number
  /** RFC 4787 REQ-5: 5 minutes or more. */
  readonly udp: number
  /** RFC 5508 REQ-1: at least 60 seconds. */
  readonly icmp: number
  /** Other IP protocols. */
  readonly other: number
  /** Fragments of one datagram (RFC 8200 §4.5: 60 seconds). */
  readonly fragment: number
}

export const defaultTimeouts: IdleTimeouts = {
  tcpOpening: 240, tcp: 7440, tcpClosed: 120, udp: 300, icmp: 60, other: 300, fragment: 60,
}

/** Packets in a batch. */
export const BATCH_PACKETS = 32
/** Packets that may leave a batch beyond those that came in: emitted by NFs, released after being held. */
export const BATCH_EXTRA_PACKETS = 256
