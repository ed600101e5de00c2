/**
 * HTTP/1.x message heads (RFC 9112): is this one, where are its parts, what do its fields mean.
 *
 * A head is parsed in one pass over bytes that lie in the arena, into offsets and flags; nothing is copied or
 * allocated. The scan itself is a kernel (src/memory/kernels/http-head-twin.ts says exactly what it recognises); this
 * file gives its numbers names. A head that came in pieces is parsed again from its start when more bytes are there:
 *
 *     parse ──▶ Incomplete ──more bytes──▶ parse again
 *         ├───▶ Complete     same parts, whatever follows
 *         └───▶ Invalid      not HTTP, whatever follows
 *
 * The caller limits the length of a head by the bytes it is willing to hold.
 */

import type { Arena } from '../../memory/arena.ts'
import * as layout from '../../memory/kernels/http-head-block.ts'
import { httpMethodNames } from '../../memory/kernels/http-tables.ts'
import type { Kernels } from '../../memory/kernels/kernels.ts'

// PERF: an imported constant is read from memory at every use; one of this module becomes part of the code (bench
// http-head).
const {
  AT_ANOMALIES, AT_ATTRIBUTES, AT_AUTHORITY, AT_AUTHORITY_LENGTH, AT_CONTENT_LENGTH, AT_HEAD_END, AT_HOST,
  AT_HOST_LENGTH, AT_INVALID_REASON, AT_KIND, AT_METHOD, AT_METHOD_ID, AT_METHOD_LENGTH, AT_REASON, AT_REASON_LENGTH,
  AT_START, AT_STATUS, AT_URI, AT_URI_LENGTH, AT_VERSION_MAJOR, AT_VERSION_MINOR, BAD_CONTENT_LENGTH, BARE_CR, BARE_LF,
  CHUNKED, CHUNKED_NOT_FINAL, CONFLICTING_CONTENT_LENGTH, CONNECTION_CLOSE, CONNECTION_KEEP_ALIVE, CONNECTION_UPGRADE,
  CONTROL_BYTE, DUPLICATE_CONTENT_LENGTH, DUPLICATE_HOST, EXPECT_CONTINUE, FIELD_NAME_SPACE, HEAD_BLOCK_BYTES,
  HEAD_COMPLETE, HEAD_INCOMPLETE, HEAD_INVALID, HAS_TRANSFER_ENCODING, INVALID_METHOD, INVALID_NOT_RESPONSE,
  INVALID_STATUS, INVALID_TARGET, INVALID_VERSION, KIND_EITHER, KIND_REQUEST, KIND_RESPONSE, LENGTH_AND_ENCODING,
  MALFORMED_FIELD, NO_VERSION, OBS_FOLD, ODD_VERSION, OTHER_CODING, START_LINE_SPACE, STATUS_SUFFIX, TARGET_SPACE,
  UPGRADE_H2C, UPGRADE_OTHER, UPGRADE_WEBSOCKET,
} = layout

/** Kinds of message, as bits: what to look for, and what was found. */
export const MessageKind = { Request: KIND_REQUEST, Response: KIND_RESPONSE, Either: KIND_EITHER } as const

/** Answers of {@link HeadParser.parse} and {@link HeadParser.detect}. */
export const HeadResult = { Complete: HEAD_COMPLETE, Incomplete: HEAD_INCOMPLETE, Invalid: HEAD_INVALID } as const

/** What the Upgrade fields offer, as bits. */
export const Upgrade = { None: 0, WebSocket: UPGRADE_WEBSOCKET, H2c: UPGRADE_H2C, Other: UPGRADE_OTHER } as const

/** Numbers of the known methods, by name. Any other token is number 0. */
export const Method = Object.fromEntries(httpMethodNames.map((name, id) => [name, id]).slice(1)) as {
  readonly [K in Exclude<(typeof httpMethodNames)[number], ''>]: number
}

/** Names of the known methods, by number. */
export const methodNames: readonly string[] = httpMethodNames

/** What a head has that a strict sender would not send, as bits. */
export const Anomaly = {
  'bare-lf': BARE_LF,
  'bare-cr': BARE_CR,
  'control-byte': CONTROL_BYTE,
  'folded-field': OBS_FOLD,
  'space-in-field-name': FIELD_NAME_SPACE,
  'malformed-field': MALFORMED_FIELD,
  'bad-content-length': BAD_CONTENT_LENGTH,
  'duplicate-content-length': DUPLICATE_CONTENT_LENGTH,
  'conflicting-content-length': CONFLICTING_CONTENT_LENGTH,
  'length-and-encoding': LENGTH_AND_ENCODING,
  'chunked-not-final': CHUNKED_NOT_FINAL,
  'duplicate-host': DUPLICATE_HOST,
  'start-line-space': START_LINE_SPACE,
  'target-space': TARGET_SPACE,
  'odd-version': ODD_VERSION,
  'no-version': NO_VERSION,
  'status-suffix': STATUS_SUFFIX,
} as const

export type AnomalyName = keyof typeof Anomaly

/** Names of the anomalies in a bit set, in the order of {@link Anomaly}. Allocates. */
export function anomalyNames(anomalies: number): AnomalyName[] {
  return (Object.keys(Anomaly) as AnomalyName[]).filter((name) => (anomalies & Anomaly[name]) !== 0)
}

/** Why a start line was refused, by {@link HeadParser.invalidReason}. */
export const invalidReasons: Readonly<Record<number, string>> = {
  [INVALID_METHOD]: 'the line does not begin with a method and a space',
  [INVALID_TARGET]: 'no request target, or a control byte in it',
  [INVALID_VERSION]: 'no HTTP version where one must be',
  [INVALID_STATUS]: 'the status is not three digits',
  [INVALID_NOT_RESPONSE]: 'a response does not begin with HTTP/',
}

/**
 * Parser of message heads. Its fields describe the head of the last call of `parse`, until the next one; offsets are
 * arena offsets and 0 where the part is not there. Not allocating.
 */
export interface HeadParser {
  /**
   * Parses one head at [offset, end).
   *
   * @param kind of {@link MessageKind}
   * @returns of {@link HeadResult}: after Complete all fields are set, after Invalid only `invalidReason`
   */
  parse(offset: number, end: number, kind: number): number
  /**
   * Whether these bytes, the first of a stream, begin an HTTP message: Complete if they hold a whole start line of
   * HTTP, Invalid if they cannot (TLS, SSH and other binary protocols by their first bytes), Incomplete if it is too
   * early to say. Leaves the fields alone.
   */
  detect(offset: number, end: number): number
  /** First byte of the body. */
  readonly headEnd: number
  readonly kind: number
  /** First byte of the start line, after empty lines that were skipped. */
  readonly startOffset: number
  /** Of {@link Method}; 0 for one that is not in the table. `PRI` of version 2.0 opens HTTP/2 (RFC 9113 §3.4). */
  readonly methodId: number
  readonly methodOffset: number
  readonly methodLength: number
  readonly uriOffset: number
  readonly uriLength: number
  readonly versionMajor: number
  readonly versionMinor: number
  readonly status: number
  readonly reasonOffset: number
  readonly reasonLength: number
  /**
   * Value of the first Host field, trimmed; offset 0 if there is none. This is what tshark reports as `http.host`,
   * while RFC 9112 §3.2.2 has a server prefer the authority of a target in absolute form, which is kept beside it.
   */
  readonly hostOffset: number
  readonly hostLength: number
  /** Host and port of a target in absolute form, or the target of a CONNECT; offset 0 if it has another form. */
  readonly authorityOffset: number
  readonly authorityLength: number
  /** Value of Content-Length; -1 if there is none or it is malformed. Of conflicting values, the first. */
  readonly contentLength: number
  /** The final transfer coding is chunked. */
  readonly chunked: boolean
  /** There is a Transfer-Encoding field. */
  readonly transferEncoding: boolean
  /** There is a transfer coding other than chunked and identity. */
  readonly otherCoding: boolean
  /** Connection: close. */
  readonly connectionClose: boolean
  /** Connection: keep-alive. */
  readonly keepAlive: boolean
  /** Whether the sender means to go on after this message: by version and Connection field (RFC 9112 §9.3). */
  readonly persistent: boolean
  /** Connection: upgrade. */
  readonly connectionUpgrade: boolean
  /** Of {@link Upgrade}; to count only together with `connectionUpgrade` (RFC 9110 §7.8). */
  readonly upgrade: number
  /** Expect: 100-continue. */
  readonly expectContinue: boolean
  /** Of {@link Anomaly}. */
  readonly anomalies: number
  /** Of {@link invalidReasons}. */
  readonly invalidReason: number
}

/**
 * A head parser over an arena. Takes 256 bytes of it.
 */
export function createHeadParser(arena: Arena, kernels: Kernels): HeadParser {
  const { i32, f64 } = arena
  const block = arena.allocate('http head result', 2 * HEAD_BLOCK_BYTES, 64)
  const scratch = block + HEAD_BLOCK_BYTES
  const word = block >> 2
  const { parseHttpHead, detectHttp } = kernels
  const UPGRADES = UPGRADE_WEBSOCKET | UPGRADE_H2C | UPGRADE_OTHER
  const attribute = (bit: number): boolean => (i32[word + (AT_ATTRIBUTES >> 2)] & bit) !== 0
  // PERF: getters on a prototype are inlined; the same getters on an object literal cost 8 ns each (bench http-head).
  class Parser implements HeadParser {
    parse(offset: number, end: number, kind: number): number { return parseHttpHead(offset, end, kind, block) }
    detect(offset: number, end: number): number { return detectHttp(offset, end, scratch) }
    get headEnd(): number { return i32[word + (AT_HEAD_END >> 2)] }
    get kind(): number { return i32[word + (AT_KIND >> 2)] }
    get startOffset(): number { return i32[word + (AT_START >> 2)] }
    get methodId(): number { return i32[word + (AT_METHOD_ID >> 2)] }
    get methodOffset(): number { return i32[word + (AT_METHOD >> 2)] }
    get methodLength(): number { return i32[word + (AT_METHOD_LENGTH >> 2)] }
    get uriOffset(): number { return i32[word + (AT_URI >> 2)] }
    get uriLength(): number { return i32[word + (AT_URI_LENGTH >> 2)] }
    get versionMajor(): number { return i32[word + (AT_VERSION_MAJOR >> 2)] }
    get versionMinor(): number { return i32[word + (AT_VERSION_MINOR >> 2)] }
    get status(): number { return i32[word + (AT_STATUS >> 2)] }
    get reasonOffset(): number { return i32[word + (AT_REASON >> 2)] }
    get reasonLength(): number { return i32[word + (AT_REASON_LENGTH >> 2)] }
    get hostOffset(): number { return i32[word + (AT_HOST >> 2)] }
    get hostLength(): number { return i32[word + (AT_HOST_LENGTH >> 2)] }
    get authorityOffset(): number { return i32[word + (AT_AUTHORITY >> 2)] }
    get authorityLength(): number { return i32[word + (AT_AUTHORITY_LENGTH >> 2)] }
    get contentLength(): number { return f64[(block + AT_CONTENT_LENGTH) >> 3] }
    get chunked(): boolean { return attribute(CHUNKED) }
    get transferEncoding(): boolean { return attribute(HAS_TRANSFER_ENCODING) }
    get otherCoding(): boolean { return attribute(OTHER_CODING) }
    get connectionClose(): boolean { return attribute(CONNECTION_CLOSE) }
    get keepAlive(): boolean { return attribute(CONNECTION_KEEP_ALIVE) }
    get persistent(): boolean {
      if (attribute(CONNECTION_CLOSE)) return false
      const major = i32[word + (AT_VERSION_MAJOR >> 2)]
      if (major > 1 || (major === 1 && i32[word + (AT_VERSION_MINOR >> 2)] > 0)) return true
      return major === 1 && attribute(CONNECTION_KEEP_ALIVE)
    }
    get connectionUpgrade(): boolean { return attribute(CONNECTION_UPGRADE) }
    get upgrade(): number { return i32[word + (AT_ATTRIBUTES >> 2)] & UPGRADES }
    get expectContinue(): boolean { return attribute(EXPECT_CONTINUE) }
    get anomalies(): number { return i32[word + (AT_ANOMALIES >> 2)] }
    get invalidReason(): number { return i32[word + (AT_INVALID_REASON >> 2)] }
  }
  return new Parser()
}
