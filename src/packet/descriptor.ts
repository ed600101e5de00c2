/**
 * Packet descriptor: what is known of a packet in a batch, 32 words in the arena.
 *
 * Whoever receives a packet fills `frame` to `linkType`; the parser fills the rest. Descriptors of a batch lie side by
 * side and stay in the first-level cache; a packet that is held takes its descriptor along in its slot's headroom.
 *
 *     word 0 frame, 1 length ... 10 time (double) ... 12-22 flow key (see flow/flow-record.ts) ... 31
 *
 * PERF: bind these to module constants where they are used per packet (`const FRAME = Descriptor.frame`): a property of
 * an imported object is not folded by the compiler (bench engine, chain).
 */

/** Word numbers within a descriptor. */
export const Descriptor = {
  /** Arena offset of the frame's first byte. */
  frame: 0,
  /** Bytes of the frame that are in memory. */
  length: 1,
  /** Arena offset of the layer-3 header. */
  network: 2,
  /** Arena offset of the layer-4 header; 0 when this packet has none (a later fragment, unknown protocol). */
  transport: 3,
  /** Arena offset of the payload: after the TCP or UDP header, or after the last header known. */
  payload: 4,
  /** Bytes of payload in memory, link padding excluded. */
  payloadLength: 5,
  /** Bit field, see {@link Meta}. */
  meta: 6,
  /** What the parser made of it, see parse.ts. */
  result: 7,
  /** Hash of the flow key. */
  hash: 8,
  /** Arena offset of the flow record, once known; else 0. */
  record: 9,
  /** Time of arrival, a double over words 10 and 11: microseconds since the Unix epoch. */
  time: 10,
  /** The flow key, 11 words. */
  key: 12,
  /** Length of the frame on the wire; more than `length` only in captures that cut packets short. */
  wireLength: 23,
  /** Pool slot that holds the frame; 0 if it does not lie in a pool. */
  slot: 24,
  /** Time of arrival as captured: whole seconds (unsigned) ... */
  seconds: 25,
  /** In a cluster, which has no use for that: id of the switch that it came from. */
  switch: 25,
  /** ... and nanoseconds. */
  nanoseconds: 26,
  /** In a cluster: the packet's number in the order of arrival, while it is set aside; 0 when that is not known. */
  arrival: 26,
  /** Where it came from: a port or capture interface number. */
  port: 27,
  /** Link type of that port (LINKTYPE_ number; 1 is Ethernet). */
  linkType: 28,
  /** TCP sequence number of the first payload byte's segment; for a later fragment derived from the first fragment. */
  sequence: 29,
  /** Next held packet of the same list (a slot offset), while held. */
  nextHeld: 30,
  /** Which NF holds it, while held; which NF emitted it, if one did. */
  nf: 31,
} as const

export const DESCRIPTOR_WORDS = 32
export const DESCRIPTOR_BYTES = DESCRIPTOR_WORDS * 4

/** Bits of the meta word. Bits 0-7: IP protocol (after extension headers). Bits 8-15: TCP flags. */
export const Meta = {
  /** The source is endpoint b of the canonical flow key. */
  fromB: 1 << 16,
  ipv6: 1 << 17,
  /** Any fragment of an IP datagram. */
  fragment: 1 << 18,
  /** A fragment other than the first: it has no layer-4 header of its own. */
  laterFragment: 1 << 19,
  /** An ICMP error that was put into the flow it quotes. */
  related: 1 << 20,
  /** The packet was made by a network function. */
  emitted: 1 << 21,
  /** The capture did not keep the whole packet. */
  cut: 1 << 22,
  /** An ICMP error that is a flow of its own, for the one that it quotes is not known. */
  ownKey: 1 << 23,
} as const
