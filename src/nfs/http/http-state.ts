/**
 * The flow state of the `http` NF: 56 bytes, and two kinds of extents.
 *
 *     side     where one direction's stream is in its messages, 20 bytes; one for each direction
 *     last     the last request and response: an extent, made by the first message. PERF: only ever written, so that it costs no
 *              cache miss to wait for (bench engine, 100,000 flows)
 *     pending  segments that came too early, and `head`, the beginning of a message head or chunk line that is not
 *              complete yet: chains of extents, empty most of the time
 */

import {
  chain, enumeration, inExtent, i32, internal, pair, struct, text, u16, u32, u8, type StateOf,
} from '../../nf/index.ts'
import { tcpStream } from '../../flow/tcp-stream.ts'

/** Blocks of 496 bytes that a message head or chunk line may fill before it is complete: about 31 KB. */
export const HEAD_BLOCKS = 64
/** Blocks for segments that came too early, per direction: about 63 KB. */
export const PENDING_BLOCKS = 128
/** Requests on one connection that may wait for their responses (pipelining) and still be paired with them. */
export const OUTSTANDING_MAX = 14

/** Where a side is. */
export const phase = enumeration(
  /** Nothing seen yet. */
  'start',
  /** A message head is expected. */
  'head',
  /** In a body of known length. */
  'body',
  /** A chunk's size line is expected. */
  'chunk-size',
  /** In a chunk's data, or the line end behind it. */
  'chunk-data',
  /** After the last chunk. */
  'trailer',
  /** In a body that ends with the connection. */
  'until-close',
  /** The connection is used for something else from here on (CONNECT, Upgrade). */
  'tunnel',
  /** Where messages begin is not known: looking for one at the start of each segment. */
  'lost',
  /** Not HTTP. */
  'other',
)

export const Phase = phase.values

/** One direction. */
export const side = struct({
  stream: internal(tcpStream(PENDING_BLOCKS)),
  head: internal(chain({ blocks: HEAD_BLOCKS })),
  /** Bytes left of the body or chunk: low 31 bits ... PERF: signed, so that it never becomes a double. */
  remaining: internal(i32),
  /** ... and the bits above. */
  remainingHigh: internal(u16),
  phase,
  flags: internal(u8),
})

export type Side = StateOf<typeof side>

/** Flags of a side. */
export const SideFlag = {
  /** The stream is known from its first byte. */
  synchronised: 1,
  /** The last byte kept in `head` was LF, or the CR after it. */
  afterLf: 2,
  afterLfCr: 4,
  /** A FIN was seen: its acknowledgement is one more than that of the data. */
  finished: 8,
} as const

export const last = struct({
  status: u16,
  method: text(24),
  host: text(128),
  uri: text(256),
})

/** What a response needs to know of its request (RFC 9112 §6.3), 2 bits. */
export const RequestKind = { plain: 0, head: 1, connect: 2 } as const

export type Last = StateOf<typeof last>

export const httpState = struct({
  requests: u32,
  responses: u32,
  /**
   * Requests that wait for a response: their number, 4 bits, and above it two bits of {@link RequestKind} each, oldest lowest.
   */
  outstanding: internal(i32),
  sides: pair(side),
  last: inExtent(last, { flat: true }),
})

export type HttpState = StateOf<typeof httpState>
