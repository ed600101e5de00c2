/**
 * The HTTP/1.x head scan in plain TypeScript: the fallback where WebAssembly SIMD is missing, and the oracle for the
 * kernel http-head.as.ts, which is the same code but for the way bytes are looked at.
 *
 * One pass over the head finds the parts of the start line and the fields that decide framing, persistence and host, as
 * offsets into the arena, and notes every anomaly. Nothing is copied or allocated. What is recognised (RFC 9112 unless
 * said otherwise) leans to what real peers send, and says so in the anomalies:
 *
 * - Empty lines before the start line are skipped (§2.2); any line may end in LF alone.
 * - Request line: token SP target SP HTTP/d.d. More spaces are let pass; spaces inside the target belong to it. After a
 *   known method the version may be damaged (`HTTP/1.`) or, if the target begins with `/`, missing; `GET /x` is an
 *   HTTP/0.9 request, complete at the end of its line (RFC 1945 §4.1), whatever follows.
 * - Status line: HTTP/d.d SP 3DIGIT, then a reason, nothing, or rubbish (`200OK`, as curl and tshark take it).
 * - The head ends at the first empty line: LF LF or LF CR LF. A CR elsewhere is an ordinary byte.
 * - A line that begins with SP or HT continues the field before it (§5.2); before the first field it is skipped (§2.2).
 * - White space before the colon does not hide a known field (§5.1 wants a 400; here it is an anomaly).
 * - Content-Length may be repeated, also in a list, if all values are equal (§6.3); more than 2^53 - 1 is malformed.
 * - Transfer-Encoding fields add up. `identity` (RFC 2616 §3.6) counts as nothing.
 *
 * The bytes may lie in memory that another process writes to: every loop is bounded by the range it was given, so that
 * bytes that change under the scan can make its results worthless, never make it run away.
 */

import type { Arena } from '../arena.ts'
import * as layout from './http-head-block.ts'

// PERF: an imported constant is read from memory at every use; one of this module becomes part of the code (bench
// http-head).
const {
  AT_ANOMALIES, AT_ATTRIBUTES, AT_AUTHORITY, AT_AUTHORITY_LENGTH, AT_CONTENT_LENGTH, AT_HEAD_END, AT_HOST,
  AT_HOST_LENGTH, AT_INVALID_REASON, AT_KIND, AT_METHOD, AT_METHOD_ID, AT_METHOD_LENGTH, AT_REASON, AT_REASON_LENGTH,
  AT_START, AT_STATUS, AT_URI, AT_URI_LENGTH, AT_VERSION_MAJOR, AT_VERSION_MINOR, BAD_CONTENT_LENGTH, BARE_CR, BARE_LF,
  CHUNKED, CHUNKED_NOT_FINAL, CONFLICTING_CONTENT_LENGTH, CONNECTION_CLOSE, CONNECTION_KEEP_ALIVE, CONNECTION_UPGRADE,
  CONTROL_BYTE, DUPLICATE_CONTENT_LENGTH, DUPLICATE_HOST, EXPECT_CONTINUE, FIELD_NAME_SLOTS, FIELD_NAME_SPACE,
  HAS_CONTENT_LENGTH, HAS_HOST, HAS_TRANSFER_ENCODING, HEAD_COMPLETE, HEAD_INCOMPLETE, HEAD_INVALID, INVALID_METHOD,
  INVALID_NOT_RESPONSE, INVALID_STATUS, INVALID_TARGET, INVALID_VERSION, KIND_EITHER, KIND_REQUEST, KIND_RESPONSE,
  LENGTH_AND_ENCODING, MALFORMED_FIELD, METHOD_BYTES_MAX, METHOD_CONNECT, METHOD_GET, METHOD_HASH, METHOD_POST,
  METHOD_SLOTS, METHOD_SLOT_BYTES, METHOD_SLOT_SHIFT, NO_VERSION, OBS_FOLD, ODD_VERSION, OTHER_CODING, START_LINE_SPACE,
  STATUS_SUFFIX, TARGET_SPACE, UPGRADE_H2C, UPGRADE_OTHER, UPGRADE_WEBSOCKET,
} = layout

export interface HttpHeadKernels {
  /**
   * Scans the message head at [offset, end).
   *
   * @param kind KIND_REQUEST, KIND_RESPONSE or KIND_EITHER
   * @param block HEAD_BLOCK_BYTES of the arena, 64-byte aligned, for the results: parts of the head after
   *   HEAD_COMPLETE, AT_INVALID_REASON after HEAD_INVALID, nothing after HEAD_INCOMPLETE
   * @returns HEAD_COMPLETE, HEAD_INCOMPLETE (more bytes are needed to tell) or HEAD_INVALID (no continuation can be
   *   HTTP); what is not incomplete stays as it is whatever bytes follow
   */
  parseHttpHead(offset: number, end: number, kind: number, block: number): number
  /**
   * Scans the start line alone, of either kind. Same answers; `block` is scratch.
   */
  detectHttp(offset: number, end: number, block: number): number
}

const HT = 0x09
const LF = 0x0a
const CR = 0x0d
const SP = 0x20
const DOT = 0x2e
const COMMA = 0x2c
const SLASH = 0x2f
const COLON = 0x3a

/** Four letters as a little-endian word. */
function letters(text: string): number {
  return text.charCodeAt(0) | (text.charCodeAt(1) << 8) | (text.charCodeAt(2) << 16) | (text.charCodeAt(3) << 24)
}

const HTTP_UPPER = letters('HTTP')
const GET_SPACE = letters('GET ')
const POST_UPPER = letters('POST')
const VERSION_1_1 = letters('/1.1')
const [ENT_, LENG, NGTH] = [letters('ent-'), letters('leng'), letters('ngth')]
const [ECTI, TION, UPGR, RADE] = [letters('ecti'), letters('tion'), letters('upgr'), letters('rade')]
const [PECT, CONT, _100_, INUE] = [letters('pect'), letters('cont'), letters('100-'), letters('inue')]
const [SFER, _ENC, ODIN, DING] = [letters('sfer'), letters('-enc'), letters('odin'), letters('ding')]
const [CHUN, NKED, IDEN, TITY] = [letters('chun'), letters('nked'), letters('iden'), letters('tity')]
const [CLOS, KEEP, ALIV] = [letters('clos'), letters('keep'), letters('aliv')]
const [WEBS, OCKE] = [letters('webs'), letters('ocke')]
/** What parseStart returns for a head that has no fields. */
const NO_FIELDS = -2

// Lists of tokens.
const CODINGS = 0
const CONNECTION = 1
const UPGRADE = 2
const EXPECT = 3

function isBlank(c: number): boolean {
  return c === SP || c === HT || c === CR || c === LF
}

function isDigit(c: number): boolean {
  return c >= 0x30 && c <= 0x39
}

/**
 * @param tables what http-tables.ts has written
 */
export function createHttpHeadTwin(arena: Arena, tables: number): HttpHeadKernels {
  const { u8, i32, f64, view } = arena
  const names = (tables + METHOD_SLOTS * METHOD_SLOT_BYTES) >> 2
  // tchar of RFC 9110 §5.6.2.
  const token = new Uint8Array(256)
  const tokenLetters = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
  for (let i = 0; i < tokenLetters.length; i++) token[tokenLetters.charCodeAt(i)] = 1

  /** Four bytes in lower case. Turns CR into '-' too: a name with control bytes must not come here. */
  const lower = (at: number): number => view.getInt32(at, true) | 0x20202020

  const mark = (word: number, bits: number): void => {
    i32[word] |= bits
  }

  const invalid = (block: number, reason: number): number => {
    i32[(block >> 2) + (AT_INVALID_REASON >> 2)] = reason
    return HEAD_INVALID
  }

  // The searches below look at aligned words, as scan-twin.ts explains; `(x - n * 0x01010101) & ~x & 0x80808080` has a
  // bit for every byte below n.

  /** The first byte below 0x20 in [at, end), or `end`. */
  const nextControl = (at: number, end: number): number => {
    if (at >= end) return end
    let word = at >> 2
    const last = (end - 1) >> 2
    let x = i32[word] | ((1 << ((at & 3) << 3)) - 1)
    let hits = (x - 0x20202020) & ~x & 0x80808080
    while (hits === 0) {
      if (word === last) return end
      x = i32[++word]
      hits = (x - 0x20202020) & ~x & 0x80808080
    }
    const found = (word << 2) + ((31 - Math.clz32(hits & -hits)) >> 3)
    return found < end ? found : end
  }

  /** The first byte <= 0x20 in [at, end), or `end`. */
  const nextBlank = (at: number, end: number): number => {
    if (at >= end) return end
    let word = at >> 2
    const last = (end - 1) >> 2
    let x = i32[word] | ((1 << ((at & 3) << 3)) - 1)
    let hits = (x - 0x21212121) & ~x & 0x80808080
    while (hits === 0) {
      if (word === last) return end
      x = i32[++word]
      hits = (x - 0x21212121) & ~x & 0x80808080
    }
    const found = (word << 2) + ((31 - Math.clz32(hits & -hits)) >> 3)
    return found < end ? found : end
  }

  /** The first colon or byte <= 0x20 in [at, end), which is not empty, or `end` (or a byte or two behind it). */
  const nextStop = (at: number, end: number): number => {
    let word = at >> 2
    const last = (end - 1) >> 2
    let x = i32[word] | ((1 << ((at & 3) << 3)) - 1)
    let y = x ^ 0x3a3a3a3a
    let hits = (((x - 0x21212121) & ~x) | ((y - 0x01010101) & ~y)) & 0x80808080
    while (hits === 0) {
      if (word === last) return end
      x = i32[++word]
      y = x ^ 0x3a3a3a3a
      hits = (((x - 0x21212121) & ~x) | ((y - 0x01010101) & ~y)) & 0x80808080
    }
    return (word << 2) + ((31 - Math.clz32(hits & -hits)) >> 3)
  }

  const parseHttpHead = (offset: number, end: number, kind: number, block: number): number => {
    let lineStart = parseStart(offset, end, kind, block)
    if (lineStart <= 0) return lineStart === NO_FIELDS ? HEAD_COMPLETE : lineStart
    if (lineStart >= end) return HEAD_INCOMPLETE
    let anomalies = 0
    let headEnd = 0
    let c = u8[lineStart]
    if (c === LF) {
      anomalies = BARE_LF
      headEnd = lineStart + 1
    } else if (c === CR) {
      if (lineStart + 1 >= end) return HEAD_INCOMPLETE
      if (u8[lineStart + 1] === LF) headEnd = lineStart + 2
    }
    let from = lineStart
    while (headEnd === 0) {
      let at = nextControl(from, end)
      if (at + 1 >= end) return HEAD_INCOMPLETE
      from = at + 1
      c = u8[at]
      if (c === CR && u8[from] === LF) {
        at = from++
      } else if (c === LF) {
        anomalies |= BARE_LF
      } else {
        if (c === CR) anomalies |= BARE_CR
        else if (c !== HT) anomalies |= CONTROL_BYTE
        continue
      }
      // `at` is the LF of a line.
      if (from >= end) return HEAD_INCOMPLETE
      c = u8[from]
      if (c <= SP) {
        if (c === SP || c === HT) {
          anomalies |= OBS_FOLD
          continue
        }
        if (c === LF) {
          anomalies |= BARE_LF
          headEnd = from + 1
        } else if (c === CR) {
          if (from + 1 >= end) return HEAD_INCOMPLETE
          if (u8[from + 1] === LF) headEnd = from + 2
        }
      }
      // The line [lineStart, at) is a field with all its continuations.
      const name = nextStop(lineStart, from)
      const length = name - lineStart
      if (length === 0 || u8[name] !== COLON) anomalies |= oddField(lineStart, at, block)
      else if (length < FIELD_NAME_SLOTS && lower(lineStart) === i32[names + length]) {
        knownField(lineStart, length, at, block)
      }
      lineStart = from
    }
    anomalies |= i32[(block >> 2) + (AT_ANOMALIES >> 2)]
    const attributes = i32[(block >> 2) + (AT_ATTRIBUTES >> 2)]
    if ((attributes & HAS_CONTENT_LENGTH) !== 0 && (attributes & HAS_TRANSFER_ENCODING) !== 0) {
      anomalies |= LENGTH_AND_ENCODING
    }
    if ((anomalies & BAD_CONTENT_LENGTH) !== 0) f64[(block >> 3) + (AT_CONTENT_LENGTH >> 3)] = -1
    i32[(block >> 2) + (AT_ANOMALIES >> 2)] = anomalies
    i32[(block >> 2) + (AT_HEAD_END >> 2)] = headEnd
    return HEAD_COMPLETE
  }

  const detectHttp = (offset: number, end: number, block: number): number => {
    const fields = parseStart(offset, end, KIND_EITHER, block)
    return fields > 0 || fields === NO_FIELDS ? HEAD_COMPLETE : fields
  }

  /** The start line. Its parts go into the block; returns the offset after its LF, NO_FIELDS, or as parseHttpHead. */
  const parseStart = (offset: number, end: number, kind: number, block: number): number => {
    const first = block >> 3
    f64[first] = 0
    f64[first + 1] = 0
    f64[first + 2] = 0
    f64[first + 3] = 0
    f64[first + 4] = 0
    f64[first + 5] = 0
    f64[first + 6] = 0
    f64[first + 7] = 0
    f64[first + 8] = 0
    f64[first + 9] = 0
    f64[first + (AT_CONTENT_LENGTH >> 3)] = -1
    let at = offset
    let c = 0
    for (; ; at++) {
      if (at >= end) return HEAD_INCOMPLETE
      c = u8[at]
      if (c !== CR && c !== LF) break
    }
    i32[(block >> 2) + (AT_START >> 2)] = at
    if (c === 0x48 && (kind & KIND_RESPONSE) !== 0) {
      if (at + 5 <= end) {
        if (view.getInt32(at, true) === HTTP_UPPER && u8[at + 4] === SLASH) return parseStatusLine(at, end, block)
      } else {
        let shared = 1
        while (at + shared < end && ((HTTP_UPPER >>> (shared << 3)) & 0xff) === u8[at + shared]) shared++
        if (at + shared === end) return HEAD_INCOMPLETE
      }
    }
    if ((kind & KIND_REQUEST) === 0) return invalid(block, INVALID_NOT_RESPONSE)
    return parseRequestLine(at, end, block)
  }

  const parseStatusLine = (start: number, end: number, block: number): number => {
    let anomalies = 0
    let at = start + 5
    if (at >= end) return HEAD_INCOMPLETE
    const major = u8[at] - 0x30
    if (major < 0 || major > 9) return invalid(block, INVALID_VERSION)
    if (++at >= end) return HEAD_INCOMPLETE
    if (u8[at] !== DOT) return invalid(block, INVALID_VERSION)
    if (++at >= end) return HEAD_INCOMPLETE
    const minor = u8[at] - 0x30
    if (minor < 0 || minor > 9) return invalid(block, INVALID_VERSION)
    if (major !== 1 || minor > 1) anomalies = ODD_VERSION
    if (++at >= end) return HEAD_INCOMPLETE
    if (u8[at] !== SP) return invalid(block, INVALID_VERSION)
    const space = at
    do {
      if (++at >= end) return HEAD_INCOMPLETE
    } while (u8[at] === SP)
    if (at !== space + 1) anomalies |= START_LINE_SPACE
    let status = 0
    for (let i = 0; i < 3; i++, at++) {
      if (at >= end) return HEAD_INCOMPLETE
      const digit = u8[at] - 0x30
      if (digit < 0 || digit > 9) return invalid(block, INVALID_STATUS)
      status = status * 10 + digit
    }
    if (at >= end) return HEAD_INCOMPLETE
    let c = u8[at]
    if (isDigit(c)) return invalid(block, INVALID_STATUS)
    if (!isBlank(c)) anomalies |= STATUS_SUFFIX
    let reason = at
    let reasonEnd = at
    for (; ; at++) {
      if (at >= end) return HEAD_INCOMPLETE
      c = u8[at]
      if (c > 0x20) {
        reasonEnd = at + 1
        continue
      }
      if (c === SP || c === HT) {
        if (reason === at) reason = at + 1
        continue
      }
      if (c === LF) {
        anomalies |= BARE_LF
        break
      }
      if (c === CR) {
        if (at + 1 >= end) return HEAD_INCOMPLETE
        if (u8[at + 1] === LF) {
          at++
          break
        }
        anomalies |= BARE_CR
      } else anomalies |= CONTROL_BYTE
      reasonEnd = at + 1
    }
    if (reasonEnd < reason) reasonEnd = reason
    i32[(block >> 2) + (AT_KIND >> 2)] = KIND_RESPONSE
    i32[(block >> 2) + (AT_VERSION_MAJOR >> 2)] = major
    i32[(block >> 2) + (AT_VERSION_MINOR >> 2)] = minor
    i32[(block >> 2) + (AT_STATUS >> 2)] = status
    i32[(block >> 2) + (AT_REASON >> 2)] = reason
    i32[(block >> 2) + (AT_REASON_LENGTH >> 2)] = reasonEnd - reason
    i32[(block >> 2) + (AT_ANOMALIES >> 2)] = anomalies
    i32[(block >> 2) + (AT_HEAD_END >> 2)] = at + 1
    return at + 1
  }

  const parseRequestLine = (start: number, end: number, block: number): number => {
    let at = start
    let method = 0
    if (start + 5 <= end) {
      const first = view.getInt32(start, true)
      if (first === GET_SPACE) {
        method = METHOD_GET
        at = start + 3
      } else if (first === POST_UPPER && u8[start + 4] === SP) {
        method = METHOD_POST
        at = start + 4
      }
    }
    if (method === 0) {
      for (; ; at++) {
        if (at >= end) return HEAD_INCOMPLETE
        if (token[u8[at]] === 0) break
        if (at - start >= METHOD_BYTES_MAX) return invalid(block, INVALID_METHOD)
      }
      if (at === start || u8[at] !== SP) return invalid(block, INVALID_METHOD)
      method = methodId(start, at - start)
    }
    const methodLength = at - start
    let anomalies = 0
    do {
      if (++at >= end) return HEAD_INCOMPLETE
    } while (u8[at] === SP)
    if (at !== start + methodLength + 1) anomalies = START_LINE_SPACE
    const uri = at
    let c = u8[uri]
    if (c <= 0x20) return invalid(block, INVALID_TARGET)

    let major = 1
    let minor = 1
    let uriEnd = nextBlank(uri + 1, end)
    if (uriEnd + 11 <= end && u8[uriEnd] === SP && view.getInt32(uriEnd + 1, true) === HTTP_UPPER &&
      view.getInt32(uriEnd + 5, true) === VERSION_1_1 && u8[uriEnd + 9] === CR && u8[uriEnd + 10] === LF) {
      at = uriEnd + 11
    } else {
      // Word by word, to the end of the line.
      let wordStart = uri
      let wordEnd = uriEnd
      let words = 1
      for (; ; words++) {
        if (wordEnd >= end) return HEAD_INCOMPLETE
        at = wordEnd
        while (at < end && u8[at] === SP) at++
        if (at >= end) return HEAD_INCOMPLETE
        c = u8[at]
        if (c <= 0x20) break
        if (at - wordEnd > 1) anomalies |= START_LINE_SPACE
        uriEnd = wordEnd
        wordStart = at
        wordEnd = nextBlank(at + 1, end)
      }
      if (at !== wordEnd) anomalies |= START_LINE_SPACE
      if (c === CR) {
        if (at + 1 >= end) return HEAD_INCOMPLETE
        at++
        c = u8[at]
      } else anomalies |= BARE_LF
      if (c !== LF) return invalid(block, words > 1 ? INVALID_VERSION : INVALID_TARGET)
      at++
      if (words > 2) anomalies |= TARGET_SPACE
      if (words === 1) {
        // No version: HTTP/0.9 (RFC 1945 §4.1) knows GET alone; with another method it is a damaged request line.
        if (method === 0 || u8[uri] !== SLASH) return invalid(block, INVALID_VERSION)
        anomalies |= NO_VERSION
        major = method === METHOD_GET ? 0 : 1
        minor = method === METHOD_GET ? 9 : 0
      } else {
        if (wordEnd - wordStart < 5 || view.getInt32(wordStart, true) !== HTTP_UPPER || u8[wordStart + 4] !== SLASH) {
          return invalid(block, INVALID_VERSION)
        }
        if (wordEnd - wordStart === 8 && isDigit(u8[wordStart + 5]) && u8[wordStart + 6] === DOT &&
          isDigit(u8[wordStart + 7])) {
          major = u8[wordStart + 5] - 0x30
          minor = u8[wordStart + 7] - 0x30
          if (major !== 1 || minor > 1) anomalies |= ODD_VERSION
        } else {
          if (method === 0) return invalid(block, INVALID_VERSION)
          anomalies |= ODD_VERSION
          minor = 0
        }
      }
    }
    i32[(block >> 2) + (AT_KIND >> 2)] = KIND_REQUEST
    i32[(block >> 2) + (AT_METHOD_ID >> 2)] = method
    i32[(block >> 2) + (AT_METHOD >> 2)] = start
    i32[(block >> 2) + (AT_METHOD_LENGTH >> 2)] = methodLength
    i32[(block >> 2) + (AT_URI >> 2)] = uri
    i32[(block >> 2) + (AT_URI_LENGTH >> 2)] = uriEnd - uri
    i32[(block >> 2) + (AT_VERSION_MAJOR >> 2)] = major
    i32[(block >> 2) + (AT_VERSION_MINOR >> 2)] = minor
    i32[(block >> 2) + (AT_ANOMALIES >> 2)] = anomalies
    i32[(block >> 2) + (AT_HEAD_END >> 2)] = at
    if (u8[uri] !== SLASH) authority(method, uri, uriEnd, block)
    return major === 0 && (anomalies & NO_VERSION) !== 0 ? NO_FIELDS : at
  }

  /** The number of a method, which a space follows; 0 if it is not in the table. */
  const methodId = (start: number, length: number): number => {
    if (length < 3) return 0
    let slot = Math.imul(view.getInt32(start, true) ^ length, METHOD_HASH) >>> METHOD_SLOT_SHIFT
    for (;;) {
      const at = tables + slot * METHOD_SLOT_BYTES
      const id = i32[at >> 2]
      if (id === 0) return 0
      if (i32[(at + 4) >> 2] === length) {
        let i = 0
        while (i < length && u8[at + 8 + i] === u8[start + i]) i++
        if (i === length) return id
      }
      slot = (slot + 1) & (METHOD_SLOTS - 1)
    }
  }

  /** Host and port in a target of absolute form, without user information, or a whole target of authority form. */
  const authority = (method: number, uri: number, uriEnd: number, block: number): void => {
    let from = uri
    let to = uriEnd
    if (method !== METHOD_CONNECT) {
      while (from < uriEnd && u8[from] !== COLON && u8[from] !== SLASH) from++
      if (from === uri || from + 3 > uriEnd) return
      if (u8[from] !== COLON || u8[from + 1] !== SLASH || u8[from + 2] !== SLASH) return
      from += 3
      to = from
      for (let at = from; at < uriEnd; at++) {
        const c = u8[at]
        if (c === SLASH || c === 0x3f || c === 0x23) break
        to = at + 1
        if (c === 0x40) from = to
      }
    }
    i32[(block >> 2) + (AT_AUTHORITY >> 2)] = from
    i32[(block >> 2) + (AT_AUTHORITY_LENGTH >> 2)] = to - from
  }

  /** A line whose name is not followed by a colon at once. Returns the anomalies of its name. */
  const oddField = (start: number, lineEnd: number, block: number): number => {
    let c = u8[start]
    if (c === SP || c === HT) return OBS_FOLD
    let at = start
    for (; at < lineEnd; at++) {
      c = u8[at]
      if (c === COLON || c === CR || c === LF) break
    }
    if (at === start || at === lineEnd || c !== COLON) return MALFORMED_FIELD
    let nameEnd = at
    while (nameEnd > start && (u8[nameEnd - 1] === SP || u8[nameEnd - 1] === HT)) nameEnd--
    for (let i = start; i < nameEnd; i++) if (u8[i] <= SP) return FIELD_NAME_SPACE
    const length = nameEnd - start
    if (length >= 4 && length < FIELD_NAME_SLOTS && lower(start) === i32[names + length]) {
      knownField(start, length, lineEnd, block)
    }
    return nameEnd === at ? 0 : FIELD_NAME_SPACE
  }

  /** A field whose name has the length and the first four letters of a known one. */
  const knownField = (start: number, length: number, lineEnd: number, block: number): void => {
    let from = start + length
    let list = CONNECTION
    if (length === 14) {
      if (lower(start + 4) !== ENT_ || lower(start + 8) !== LENG || lower(start + 10) !== NGTH) return
    } else if (length === 10) {
      if (lower(start + 4) !== ECTI || lower(start + 6) !== TION) return
    } else if (length === 17) {
      if (lower(start + 4) !== SFER || lower(start + 8) !== _ENC) return
      if (lower(start + 12) !== ODIN || lower(start + 13) !== DING) return
      list = CODINGS
    } else if (length === 7) {
      if (lower(start + 3) !== RADE) return
      list = UPGRADE
    } else if (length === 6) {
      if (lower(start + 2) !== PECT) return
      list = EXPECT
    }
    while (u8[from] !== COLON && from < lineEnd) from++
    from++
    let to = lineEnd
    while (to > from && isBlank(u8[to - 1])) to--
    while (from < to && isBlank(u8[from])) from++
    if (length === 4) {
      if ((i32[(block >> 2) + (AT_ATTRIBUTES >> 2)] & HAS_HOST) !== 0) {
        mark((block >> 2) + (AT_ANOMALIES >> 2), DUPLICATE_HOST)
      } else {
        mark((block >> 2) + (AT_ATTRIBUTES >> 2), HAS_HOST)
        i32[(block >> 2) + (AT_HOST >> 2)] = from
        i32[(block >> 2) + (AT_HOST_LENGTH >> 2)] = to - from
      }
    } else if (length === 14) contentLength(from, to, block)
    else {
      if (length === 17) mark((block >> 2) + (AT_ATTRIBUTES >> 2), HAS_TRANSFER_ENCODING)
      // Nearly always the value is one known element.
      if (listElement(list, from, to - from, block)) return
      // The elements of a comma-separated list; empty ones do not count (RFC 9110 §5.6.1).
      for (;;) {
        while (from < to && (isBlank(u8[from]) || u8[from] === COMMA)) from++
        if (from >= to) return
        const element = from
        while (from < to && u8[from] !== COMMA) from++
        let elementEnd = from
        while (elementEnd > element && isBlank(u8[elementEnd - 1])) elementEnd--
        if (!listElement(list, element, elementEnd - element, block)) otherElement(list, block)
      }
    }
  }

  const contentLength = (from: number, to: number, block: number): void => {
    do {
      while (from < to && isBlank(u8[from])) from++
      if (from >= to || !isDigit(u8[from])) {
        mark((block >> 2) + (AT_ANOMALIES >> 2), BAD_CONTENT_LENGTH)
        return
      }
      let value = 0
      while (from < to && isDigit(u8[from])) {
        value = value * 10 + (u8[from] - 0x30)
        if (value > Number.MAX_SAFE_INTEGER) {
          mark((block >> 2) + (AT_ANOMALIES >> 2), BAD_CONTENT_LENGTH)
          return
        }
        from++
      }
      while (from < to && isBlank(u8[from])) from++
      if (from < to && u8[from] !== COMMA) {
        mark((block >> 2) + (AT_ANOMALIES >> 2), BAD_CONTENT_LENGTH)
        return
      }
      if ((i32[(block >> 2) + (AT_ATTRIBUTES >> 2)] & HAS_CONTENT_LENGTH) === 0) {
        mark((block >> 2) + (AT_ATTRIBUTES >> 2), HAS_CONTENT_LENGTH)
        f64[(block >> 3) + (AT_CONTENT_LENGTH >> 3)] = value
      } else {
        const same = value === f64[(block >> 3) + (AT_CONTENT_LENGTH >> 3)]
        mark((block >> 2) + (AT_ANOMALIES >> 2), same ? DUPLICATE_CONTENT_LENGTH : CONFLICTING_CONTENT_LENGTH)
      }
    } while (from++ < to)
  }

  /** Notes an element of a list if it is a known one. */
  const listElement = (list: number, at: number, length: number, block: number): boolean => {
    const attributes = (block >> 2) + (AT_ATTRIBUTES >> 2)
    if (list === CONNECTION) {
      if (length === 5) {
        if (lower(at) !== CLOS || (u8[at + 4] | 0x20) !== 0x65) return false
        mark(attributes, CONNECTION_CLOSE)
        return true
      }
      if (length === 10) {
        if (lower(at) !== KEEP || u8[at + 4] !== 0x2d) return false
        if (lower(at + 5) !== ALIV || (u8[at + 9] | 0x20) !== 0x65) return false
        mark(attributes, CONNECTION_KEEP_ALIVE)
        return true
      }
      if (length !== 7 || lower(at) !== UPGR || lower(at + 3) !== RADE) return false
      mark(attributes, CONNECTION_UPGRADE)
      return true
    }
    if (list === CODINGS) {
      const chunked = (i32[attributes] & CHUNKED) !== 0
      if (length === 7 && lower(at) === CHUN && lower(at + 3) === NKED) {
        if (chunked) mark((block >> 2) + (AT_ANOMALIES >> 2), CHUNKED_NOT_FINAL)
        mark(attributes, CHUNKED)
        return true
      }
      return !chunked && length === 8 && lower(at) === IDEN && lower(at + 4) === TITY
    }
    if (list === UPGRADE) {
      if (length === 9 && lower(at) === WEBS && lower(at + 4) === OCKE && (u8[at + 8] | 0x20) === 0x74) {
        mark(attributes, UPGRADE_WEBSOCKET)
        return true
      }
      if (length !== 3 || (u8[at] | 0x20) !== 0x68 || u8[at + 1] !== 0x32 || (u8[at + 2] | 0x20) !== 0x63) return false
      mark(attributes, UPGRADE_H2C)
      return true
    }
    // Expect: 100-continue
    if (length !== 12 || view.getInt32(at, true) !== _100_) return false
    if (lower(at + 4) !== CONT || lower(at + 8) !== INUE) return false
    mark(attributes, EXPECT_CONTINUE)
    return true
  }

  /** Notes an element of a list that is not a known one. */
  const otherElement = (list: number, block: number): void => {
    const attributes = (block >> 2) + (AT_ATTRIBUTES >> 2)
    if (list === UPGRADE) mark(attributes, UPGRADE_OTHER)
    else if (list === CODINGS) {
      mark(attributes, OTHER_CODING)
      if ((i32[attributes] & CHUNKED) !== 0) {
        i32[attributes] &= ~CHUNKED
        mark((block >> 2) + (AT_ANOMALIES >> 2), CHUNKED_NOT_FINAL)
      }
    }
  }

  return { parseHttpHead, detectHttp }
}
