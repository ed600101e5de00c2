/**
 * Flow record: the memory of one flow actor, a fixed-size block from a slab.
 *
 *     line 0    0 tag       vlan outer 12 bits │ inner 12 bits │ IP version 8 bits
 *               4 ports     port of a << 16 │ port of b
 *               8 protocol  IP protocol 8 bits │ PPPoE session 16 bits << 8
 *              12 address a (4 words; IPv4 uses the first), 28 address b
 *              44 phase u8, flags u8, opener u8, tcp u8
 *              48 last seen f64
 *              56 hash i32, 60 idle timeout u32 (ms)
 *     line 1   64 packets f64, 72 bytes f64, 80 first seen f64
 *              88 timing wheel: next, previous, deadline
 *             100 held packets: first slot, 104 last slot
 *             108 epoch u32, 112 bypassed NFs u16, 114 held count u16, 116 flow id (double word)
 *             124 outputs: switch that forward packets leave to u8, reverse packets u8, 126 replica u16
 *            128 state of the first NF, of the second, ... each at its alignment
 *
 * The flow key is canonical: the endpoint with the smaller (address, port), compared as unsigned big-endian numbers, is a.
 * Both directions of a connection are one key plus a direction bit. Words 0-10 of the record are the key, in the order of
 * the descriptor's key words, so that comparing and copying keys is comparing and copying words.
 */

/** Byte offsets within a flow record. */
export const FlowRecord = {
  tag: 0,
  ports: 4,
  protocol: 8,
  addressA: 12,
  addressB: 28,
  phase: 44,
  flags: 45,
  opener: 46,
  tcp: 47,
  lastSeen: 48,
  hash: 56,
  idleTimeoutMs: 60,
  packets: 64,
  bytes: 72,
  firstSeen: 80,
  wheelNext: 88,
  wheelPrevious: 92,
  wheelDeadline: 96,
  heldFirst: 100,
  heldLast: 104,
  epoch: 108,
  bypass: 112,
  heldCount: 114,
  idLow: 116,
  idHigh: 120,
  outputs: 124,
  replica: 126,
  state: 128,
} as const

/** Words of the flow key at the start of a record. */
export const KEY_WORDS = 11

/** Phases of a flow actor. */
export const FlowPhase = {
  free: 0,
  /** The flow runs on the fast path. */
  active: 1,
  /** TCP has ended (RST, or FIN in both directions); the record stays for the time-wait. */
  lingering: 2,
} as const

/** Flags of a flow; any set flag takes the flow off the fast path. */
export const FlowFlag = {
  /** An NF failed on this flow and the policy is to drop its packets. */
  dropAll: 1,
  /** Some NFs are bypassed for this flow (the `bypass` bits). */
  bypass: 2,
  /** A packet of it may have killed a runtime: it runs off the fast path, where that would be noted. */
  careful: 4,
  /** Its packets go to the manager, its timers stand still. */
  paused: 8,
  /** A packet of it has killed a runtime: nothing of it is run. */
  poisoned: 16,
} as const

/** What of a TCP connection's life the engine itself has seen, bits of the record's `tcp` byte. */
export const TcpLife = {
  finFromA: 1,
  finFromB: 2,
  reset: 4,
  synSeen: 8,
  /** The opener's peer has answered. */
  answered: 16,
  /** The flow began with a SYN that has not been answered. */
  opening: 32,
  /** It is counted among those (opening-list.ts). */
  listed: 64,
} as const

/** Version 4 or 6, from the key's first word. */
export const keyVersion = (tag: number): number => tag >>> 24
/** Outer VLAN id, 0 for none. */
export const keyVlanOuter = (tag: number): number => tag & 0xfff
/** Inner VLAN id of a double-tagged frame, 0 for none. */
export const keyVlanInner = (tag: number): number => (tag >>> 12) & 0xfff
