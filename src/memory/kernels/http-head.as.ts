/**
 * The HTTP head scan in AssemblyScript with SIMD: one call per head. Its twin, http-head-twin.ts, says what is
 * recognised and why; the two are held equal by fuzzing. What differs is only how bytes are looked at:
 *
 *     GET / HTTP/1.1␍␊Host: a␍␊Accept: b␍␊␍␊
 *          ^                                     nextBlank, 16 bytes at a time, finds the end of the target
 *                     .......11.........1111     64 bytes at a time: a bit for every byte below 0x20
 *                     ^        ^                 16 bytes at each line start: the first ':' or byte <= 0x20
 *
 * In a proper head the only bytes below 0x20 are the CR LF that end lines, so walking the set bits visits every line
 * end and every anomaly at once. Only lines whose name has the length and the first letters of a known field are looked
 * at further.
 */

import {
  AT_ANOMALIES, AT_ATTRIBUTES, AT_AUTHORITY, AT_AUTHORITY_LENGTH, AT_CONTENT_LENGTH, AT_HEAD_END, AT_HOST,
  AT_HOST_LENGTH, AT_INVALID_REASON, AT_KIND, AT_METHOD, AT_METHOD_ID, AT_METHOD_LENGTH, AT_REASON, AT_REASON_LENGTH,
  AT_START, AT_STATUS, AT_URI, AT_URI_LENGTH, AT_VERSION_MAJOR, AT_VERSION_MINOR, BAD_CONTENT_LENGTH, BARE_CR, BARE_LF,
  CHUNKED, CHUNKED_NOT_FINAL, CONFLICTING_CONTENT_LENGTH, CONNECTION_CLOSE, CONNECTION_KEEP_ALIVE, CONNECTION_UPGRADE,
  CONTROL_BYTE, DUPLICATE_CONTENT_LENGTH, DUPLICATE_HOST, EXPECT_CONTINUE, FIELD_NAME_SLOTS, FIELD_NAME_SPACE,
  HAS_CONTENT_LENGTH, HAS_HOST, HAS_TRANSFER_ENCODING, HEAD_COMPLETE, HEAD_INCOMPLETE, HEAD_INVALID, INVALID_METHOD,
  INVALID_NOT_RESPONSE, INVALID_STATUS, INVALID_TARGET, INVALID_VERSION, KIND_REQUEST, KIND_RESPONSE,
  LENGTH_AND_ENCODING, MALFORMED_FIELD, METHOD_BYTES_MAX, METHOD_CONNECT, METHOD_GET, METHOD_HASH, METHOD_POST,
  METHOD_SLOTS, METHOD_SLOT_BYTES, METHOD_SLOT_SHIFT, NO_VERSION, OBS_FOLD, ODD_VERSION, OTHER_CODING, START_LINE_SPACE,
  STATUS_SUFFIX, TARGET_SPACE, UPGRADE_H2C, UPGRADE_OTHER, UPGRADE_WEBSOCKET,
} from './http-head-block'
import { memoryBytes } from './memory-bytes.as'

const HT: i32 = 0x09
const LF: i32 = 0x0a
const CR: i32 = 0x0d
const SP: i32 = 0x20
const COMMA: i32 = 0x2c
const SLASH: i32 = 0x2f
const COLON: i32 = 0x3a
const CRLF: i32 = 0x0a0d
/** SP, HT, CR and LF, a bit each. */
const BLANKS: u64 = 0x100002600

// Four letters as a little-endian word, lower case where compared without regard to case.
const HTTP_UPPER: i32 = 0x50545448
const GET_SPACE: i32 = 0x20544547
const POST_UPPER: i32 = 0x54534f50
const HTTP_1_1: u64 = 0x312e312f50545448
const TRAN: i32 = 0x6e617274

/** What parseStart returns for a head that has no fields. */
const NO_FIELDS: i32 = -2
/** Among anomalies: the empty line follows. */
const LAST_LINE: i32 = 1 << 30

// Lists of tokens.
const CODINGS: i32 = 0
const CONNECTION: i32 = 1
const UPGRADE: i32 = 2
const EXPECT: i32 = 3

let methods: i32 = 0
let names: i32 = 0
// PERF: V8 makes a constant vector anew at every use; one that it does not know to be constant stays in a register.
let controls: v128 = i64x2(0, 0)
let spaces: v128 = i64x2(0, 0)
let colons: v128 = i64x2(0, 0)

/** Where the tables of http-tables.ts are; to be called once, before all else. */
export function setHttpTables(tables: i32): void {
  methods = tables
  names = tables + METHOD_SLOTS * METHOD_SLOT_BYTES
  controls = i8x16.splat(0x1f)
  spaces = i8x16.splat(0x20)
  colons = i8x16.splat(0x3a)
}

// @ts-ignore: decorator
@inline
function byteAt(at: i32): i32 {
  return <i32>load<u8>(at)
}

// @ts-ignore: decorator
@inline
function word(at: i32): i32 {
  return load<i32>(at)
}

/** Four bytes in lower case. Turns CR into '-' too: a name with control bytes must not come here. */
// @ts-ignore: decorator
@inline
function lower(at: i32): i32 {
  return load<i32>(at) | 0x20202020
}

// @ts-ignore: decorator
@inline
function isBlank(c: i32): bool {
  return c <= SP && ((BLANKS >> <u64>c) & 1) != 0
}

// @ts-ignore: decorator
@inline
function isDigit(c: i32): bool {
  return <u32>(c - 0x30) < 10
}

/** tchar of RFC 9110 §5.6.2. */
// @ts-ignore: decorator
@inline
function isToken(c: i32): bool {
  const set: u64 = c < 64 ? 0x03ff6cfa00000000 : 0x57ffffffc7fffffe
  return c < 128 && ((set >> <u64>(c & 63)) & 1) != 0
}

// @ts-ignore: decorator
@inline
function mark(block: i32, at: i32, bits: i32): void {
  store<i32>(block + at, load<i32>(block + at) | bits)
}

// @ts-ignore: decorator
@inline
function invalid(block: i32, reason: i32): i32 {
  store<i32>(block, reason, AT_INVALID_REASON)
  return HEAD_INVALID
}

/** A bit for every byte below 0x20 of the 64 at `at`, as far as `end`; in scalar code where a vector might not fit. */
// @ts-ignore: decorator
@inline
function controls64(at: i32, end: i32, vector: bool, x: v128): u64 {
  let bits: u64 = 0
  if (vector) {
    const a = <u32>i8x16.bitmask(i8x16.le_u(v128.load(at), x))
    const b = <u32>i8x16.bitmask(i8x16.le_u(v128.load(at, 16), x))
    const c = <u32>i8x16.bitmask(i8x16.le_u(v128.load(at, 32), x))
    const d = <u32>i8x16.bitmask(i8x16.le_u(v128.load(at, 48), x))
    bits = <u64>(a | (b << 16)) | (<u64>(c | (d << 16)) << 32)
    const left = end - at
    if (left < 64) bits &= ((<u64>1) << <u64>left) - 1
  } else {
    for (let i = 0; i < 64 && at + i < end; i++) if (byteAt(at + i) < 0x20) bits |= (<u64>1) << <u64>i
  }
  return bits
}

/** The first byte <= 0x20 in [at, end), or `end`. */
// @ts-ignore: decorator
@inline
function nextBlank(at: i32, end: i32, memoryEnd: i32): i32 {
  const x = spaces
  const whole = min(end, memoryEnd - 15)
  for (; at < whole; at += 16) {
    const hits = i8x16.bitmask(i8x16.le_u(v128.load(at), x))
    if (hits != 0) return min(at + ctz(hits), end)
  }
  while (at < end && byteAt(at) > 0x20) at++
  return min(at, end)
}

/** See HttpHeadKernels in http-head-twin.ts. */
export function parseHttpHead(offset: i32, end: i32, kind: i32, block: i32): i32 {
  const fields = parseStart(offset, end, kind, block)
  if (fields <= 0) return fields == NO_FIELDS ? HEAD_COMPLETE : fields
  if (fields >= end) return HEAD_INCOMPLETE
  let anomalies = 0
  const c = byteAt(fields)
  if (c <= COLON) {
    if (c == LF) return finish(block, fields + 1, BARE_LF)
    if (c == CR) {
      if (fields + 1 >= end) return HEAD_INCOMPLETE
      if (byteAt(fields + 1) == LF) return finish(block, fields + 2, 0)
    }
    if (c == COLON) anomalies = MALFORMED_FIELD
  }
  return end <= memoryBytes() - 64
    ? parseFields(fields, end, block, anomalies, true)
    : parseFields(fields, end, block, anomalies, false)
}

/**
 * The field lines, of which there is at least one.
 *
 * Of a run of control bytes only the first is visited: most runs are the CR LF of a line. Whatever else was met, the
 * search is taken up again behind it.
 */
// @ts-ignore: decorator
@inline
function parseFields(lineStart: i32, end: i32, block: i32, anomalies: i32, vector: bool): i32 {
  const x1f = controls
  const x20 = spaces
  const x3a = colons
  const nameTable = names
  // The last byte cannot end a head without one before it, so every bit has a byte after it.
  const limit = end - 1
  let base = lineStart - 64
  let bits: u64 = 0
  let before: u64 = 0
  do {
    while (bits == 0) {
      base += 64
      if (base >= limit) return HEAD_INCOMPLETE
      const all = controls64(base, limit, vector, x1f)
      bits = all & ~((all << 1) | before)
      before = all >> 63
    }
    let at = base + <i32>ctz(bits)
    bits &= bits - 1
    if (<i32>load<u16>(at) == CRLF) at++
    else {
      const odd = byteAt(at)
      if (odd != LF) {
        if (odd == CR) anomalies |= BARE_CR
        else if (odd != HT) anomalies |= CONTROL_BYTE
        base = at - 63
        bits = before = 0
        continue
      }
      anomalies |= BARE_LF
    }
    // `at` is the LF of a line.
    const next = at + 1
    if (next >= end) return HEAD_INCOMPLETE
    const c = byteAt(next)
    if (c <= COLON) {
      if (c == LF) anomalies |= BARE_LF | LAST_LINE
      else if (c == COLON) anomalies |= MALFORMED_FIELD
      else if (c <= SP) {
        if (c == CR) {
          if (next + 1 >= end) return HEAD_INCOMPLETE
          if (byteAt(next + 1) == LF) anomalies |= LAST_LINE
        }
        base = next - 64
        bits = before = 0
        if (c == SP || c == HT) {
          anomalies |= OBS_FOLD
          continue
        }
      }
    }
    // The line [lineStart, at) is a field with all its continuations.
    if (vector) {
      const x = v128.load(lineStart)
      const length = ctz(i8x16.bitmask(v128.or(i8x16.eq(x, x3a), i8x16.le_u(x, x20))) | 0x10000)
      if (byteAt(lineStart + length) != COLON) anomalies |= otherField(lineStart, at, block, length == 16)
      else if ((i32x4.extract_lane(x, 0) | 0x20202020) == load<i32>(nameTable + (length << 2))) {
        knownField(lineStart, length, at, block)
      }
    } else anomalies |= otherField(lineStart, at, block, false)
    lineStart = next
  } while ((anomalies & LAST_LINE) == 0)
  return finish(block, lineStart + (byteAt(lineStart) == LF ? 1 : 2), anomalies & ~LAST_LINE)
}

/** Closes the results of a whole head. */
// @ts-ignore: decorator
@inline
function finish(block: i32, headEnd: i32, anomalies: i32): i32 {
  anomalies |= load<i32>(block, AT_ANOMALIES)
  const attributes = load<i32>(block, AT_ATTRIBUTES)
  if ((attributes & (HAS_CONTENT_LENGTH | HAS_TRANSFER_ENCODING)) == (HAS_CONTENT_LENGTH | HAS_TRANSFER_ENCODING)) {
    anomalies |= LENGTH_AND_ENCODING
  }
  if ((anomalies & BAD_CONTENT_LENGTH) != 0) store<f64>(block, -1, AT_CONTENT_LENGTH)
  store<i32>(block, anomalies, AT_ANOMALIES)
  store<i32>(block, headEnd, AT_HEAD_END)
  return HEAD_COMPLETE
}

/** See HttpHeadKernels in http-head-twin.ts. */
export function detectHttp(offset: i32, end: i32, block: i32): i32 {
  const started = parseStart(offset, end, KIND_REQUEST | KIND_RESPONSE, block)
  return started > 0 || started == NO_FIELDS ? HEAD_COMPLETE : started
}

/** The start line. Its parts go into the block; returns the offset after its LF, NO_FIELDS, or as parseHttpHead. */
function parseStart(offset: i32, end: i32, kind: i32, block: i32): i32 {
  const zero = i64x2.splat(0)
  v128.store(block, zero)
  v128.store(block, zero, 16)
  v128.store(block, zero, 32)
  v128.store(block, zero, 48)
  v128.store(block, zero, 64)
  store<f64>(block, -1, AT_CONTENT_LENGTH)
  let at = offset
  let c = 0
  for (; ; at++) {
    if (at >= end) return HEAD_INCOMPLETE
    c = byteAt(at)
    if (c != CR && c != LF) break
  }
  store<i32>(block, at, AT_START)
  if (c == 0x48 && (kind & KIND_RESPONSE) != 0) {
    if (at + 5 <= end) {
      if (word(at) == HTTP_UPPER && byteAt(at + 4) == SLASH) return parseStatusLine(at, end, block)
    } else {
      let shared = 1
      while (at + shared < end && ((HTTP_UPPER >>> (shared << 3)) & 0xff) == byteAt(at + shared)) shared++
      if (at + shared == end) return HEAD_INCOMPLETE
    }
  }
  if ((kind & KIND_REQUEST) == 0) return invalid(block, INVALID_NOT_RESPONSE)
  return parseRequestLine(at, end, block)
}

function parseStatusLine(start: i32, end: i32, block: i32): i32 {
  let anomalies = 0
  let at = start + 5
  if (at >= end) return HEAD_INCOMPLETE
  const major = byteAt(at) - 0x30
  if (<u32>major > 9) return invalid(block, INVALID_VERSION)
  if (++at >= end) return HEAD_INCOMPLETE
  if (byteAt(at) != 0x2e) return invalid(block, INVALID_VERSION)
  if (++at >= end) return HEAD_INCOMPLETE
  const minor = byteAt(at) - 0x30
  if (<u32>minor > 9) return invalid(block, INVALID_VERSION)
  if (major != 1 || minor > 1) anomalies = ODD_VERSION
  if (++at >= end) return HEAD_INCOMPLETE
  if (byteAt(at) != SP) return invalid(block, INVALID_VERSION)
  const space = at
  do {
    if (++at >= end) return HEAD_INCOMPLETE
  } while (byteAt(at) == SP)
  if (at != space + 1) anomalies |= START_LINE_SPACE
  let status = 0
  for (let i = 0; i < 3; i++, at++) {
    if (at >= end) return HEAD_INCOMPLETE
    const digit = byteAt(at) - 0x30
    if (<u32>digit > 9) return invalid(block, INVALID_STATUS)
    status = status * 10 + digit
  }
  if (at >= end) return HEAD_INCOMPLETE
  let c = byteAt(at)
  if (isDigit(c)) return invalid(block, INVALID_STATUS)
  if (!isBlank(c)) anomalies |= STATUS_SUFFIX
  let reason = at
  let reasonEnd = at
  for (; ; at++) {
    if (at >= end) return HEAD_INCOMPLETE
    c = byteAt(at)
    if (c > 0x20) {
      reasonEnd = at + 1
      continue
    }
    if (c == SP || c == HT) {
      if (reason == at) reason = at + 1
      continue
    }
    if (c == LF) {
      anomalies |= BARE_LF
      break
    }
    if (c == CR) {
      if (at + 1 >= end) return HEAD_INCOMPLETE
      if (byteAt(at + 1) == LF) {
        at++
        break
      }
      anomalies |= BARE_CR
    } else anomalies |= CONTROL_BYTE
    reasonEnd = at + 1
  }
  if (reasonEnd < reason) reasonEnd = reason
  store<i32>(block, KIND_RESPONSE, AT_KIND)
  store<i32>(block, major, AT_VERSION_MAJOR)
  store<i32>(block, minor, AT_VERSION_MINOR)
  store<i32>(block, status, AT_STATUS)
  store<i32>(block, reason, AT_REASON)
  store<i32>(block, reasonEnd - reason, AT_REASON_LENGTH)
  store<i32>(block, anomalies, AT_ANOMALIES)
  store<i32>(block, at + 1, AT_HEAD_END)
  return at + 1
}

function parseRequestLine(start: i32, end: i32, block: i32): i32 {
  const memoryEnd = memoryBytes()
  let at = start
  let method = 0
  if (start + 5 <= end) {
    const first = word(start)
    if (first == GET_SPACE) {
      method = METHOD_GET
      at = start + 3
    } else if (first == POST_UPPER && byteAt(start + 4) == SP) {
      method = METHOD_POST
      at = start + 4
    }
  }
  if (method == 0) {
    for (; ; at++) {
      if (at >= end) return HEAD_INCOMPLETE
      if (!isToken(byteAt(at))) break
      if (at - start >= METHOD_BYTES_MAX) return invalid(block, INVALID_METHOD)
    }
    if (at == start || byteAt(at) != SP) return invalid(block, INVALID_METHOD)
    method = methodId(start, at - start)
  }
  const methodLength = at - start
  let anomalies = 0
  do {
    if (++at >= end) return HEAD_INCOMPLETE
  } while (byteAt(at) == SP)
  if (at != start + methodLength + 1) anomalies = START_LINE_SPACE
  const uri = at
  let c = byteAt(uri)
  if (c <= 0x20) return invalid(block, INVALID_TARGET)

  let major = 1
  let minor = 1
  let uriEnd = nextBlank(uri + 1, end, memoryEnd)
  if (uriEnd + 11 <= end && byteAt(uriEnd) == SP && load<u64>(uriEnd + 1) == HTTP_1_1 &&
    <i32>load<u16>(uriEnd + 9) == CRLF) {
    at = uriEnd + 11
  } else {
    // Word by word, to the end of the line.
    let wordStart = uri
    let wordEnd = uriEnd
    let words = 1
    for (; ; words++) {
      if (wordEnd >= end) return HEAD_INCOMPLETE
      at = wordEnd
      while (at < end && byteAt(at) == SP) at++
      if (at >= end) return HEAD_INCOMPLETE
      c = byteAt(at)
      if (c <= 0x20) break
      if (at - wordEnd > 1) anomalies |= START_LINE_SPACE
      uriEnd = wordEnd
      wordStart = at
      wordEnd = nextBlank(at + 1, end, memoryEnd)
    }
    if (at != wordEnd) anomalies |= START_LINE_SPACE
    if (c == CR) {
      if (at + 1 >= end) return HEAD_INCOMPLETE
      at++
      c = byteAt(at)
    } else anomalies |= BARE_LF
    if (c != LF) return invalid(block, words > 1 ? INVALID_VERSION : INVALID_TARGET)
    at++
    if (words > 2) anomalies |= TARGET_SPACE
    if (words == 1) {
      // No version: HTTP/0.9 (RFC 1945 §4.1) knows GET alone; with another method it is a damaged request line.
      if (method == 0 || byteAt(uri) != SLASH) return invalid(block, INVALID_VERSION)
      anomalies |= NO_VERSION
      major = method == METHOD_GET ? 0 : 1
      minor = method == METHOD_GET ? 9 : 0
    } else {
      if (wordEnd - wordStart < 5 || word(wordStart) != HTTP_UPPER || byteAt(wordStart + 4) != SLASH) {
        return invalid(block, INVALID_VERSION)
      }
      if (wordEnd - wordStart == 8 && isDigit(byteAt(wordStart + 5)) && byteAt(wordStart + 6) == 0x2e &&
        isDigit(byteAt(wordStart + 7))) {
        major = byteAt(wordStart + 5) - 0x30
        minor = byteAt(wordStart + 7) - 0x30
        if (major != 1 || minor > 1) anomalies |= ODD_VERSION
      } else {
        if (method == 0) return invalid(block, INVALID_VERSION)
        anomalies |= ODD_VERSION
        minor = 0
      }
    }
  }
  store<i32>(block, KIND_REQUEST, AT_KIND)
  store<i32>(block, method, AT_METHOD_ID)
  store<i32>(block, start, AT_METHOD)
  store<i32>(block, methodLength, AT_METHOD_LENGTH)
  store<i32>(block, uri, AT_URI)
  store<i32>(block, uriEnd - uri, AT_URI_LENGTH)
  store<i32>(block, major, AT_VERSION_MAJOR)
  store<i32>(block, minor, AT_VERSION_MINOR)
  store<i32>(block, anomalies, AT_ANOMALIES)
  store<i32>(block, at, AT_HEAD_END)
  if (byteAt(uri) != SLASH) authority(method, uri, uriEnd, block)
  return major == 0 && (anomalies & NO_VERSION) != 0 ? NO_FIELDS : at
}

/** The number of a method, which a space follows; 0 if it is not in the table. */
function methodId(start: i32, length: i32): i32 {
  if (length < 3) return 0
  let slot = ((word(start) ^ length) * METHOD_HASH) >>> METHOD_SLOT_SHIFT
  let at = methods + slot * METHOD_SLOT_BYTES
  let id = word(at)
  while (id != 0) {
    if (word(at + 4) == length) {
      let i = 0
      while (i < length && byteAt(at + 8 + i) == byteAt(start + i)) i++
      if (i == length) return id
    }
    slot = (slot + 1) & (METHOD_SLOTS - 1)
    at = methods + slot * METHOD_SLOT_BYTES
    id = word(at)
  }
  return 0
}

/** Host and port in a target of absolute form, without user information, or a whole target of authority form. */
function authority(method: i32, uri: i32, uriEnd: i32, block: i32): void {
  let from = uri
  let to = uriEnd
  if (method != METHOD_CONNECT) {
    while (from < uriEnd && byteAt(from) != COLON && byteAt(from) != SLASH) from++
    if (from == uri || from + 3 > uriEnd) return
    if (byteAt(from) != COLON || byteAt(from + 1) != SLASH || byteAt(from + 2) != SLASH) return
    from += 3
    to = from
    for (let at = from; at < uriEnd; at++) {
      const c = byteAt(at)
      if (c == SLASH || c == 0x3f || c == 0x23) break
      to = at + 1
      if (c == 0x40) from = to
    }
  }
  store<i32>(block, from, AT_AUTHORITY)
  store<i32>(block, to - from, AT_AUTHORITY_LENGTH)
}

/** A line whose name is not followed by a colon at once, or is long. Returns the anomalies of its name. */
function otherField(start: i32, lineEnd: i32, block: i32, long: bool): i32 {
  if (long && lower(start) != TRAN) {
    const x = v128.load(start, 16)
    const stops = i8x16.bitmask(v128.or(i8x16.eq(x, colons), i8x16.le_u(x, spaces)))
    if (stops != 0 && byteAt(start + 16 + ctz(stops)) == COLON) return 0
  }
  let c = byteAt(start)
  if (c == SP || c == HT) return OBS_FOLD
  let at = start
  for (; at < lineEnd; at++) {
    c = byteAt(at)
    if (c == COLON || c == CR || c == LF) break
  }
  if (at == start || at == lineEnd || c != COLON) return MALFORMED_FIELD
  let nameEnd = at
  while (nameEnd > start && (byteAt(nameEnd - 1) == SP || byteAt(nameEnd - 1) == HT)) nameEnd--
  for (let i = start; i < nameEnd; i++) if (byteAt(i) <= SP) return FIELD_NAME_SPACE
  const length = nameEnd - start
  if (length >= 4 && length < FIELD_NAME_SLOTS && lower(start) == load<i32>(names + (length << 2))) {
    knownField(start, length, lineEnd, block)
  }
  return nameEnd == at ? 0 : FIELD_NAME_SPACE
}

/** A field whose name has the length and the first four letters of a known one. */
function knownField(start: i32, length: i32, lineEnd: i32, block: i32): void {
  let from = start + length
  let list = CONNECTION
  if (length == 14) {
    if (lower(start + 4) != 0x2d746e65 || lower(start + 8) != 0x676e656c || lower(start + 10) != 0x6874676e) return
  } else if (length == 10) {
    if (lower(start + 4) != 0x69746365 || lower(start + 6) != 0x6e6f6974) return
  } else if (length == 17) {
    if (lower(start + 4) != 0x72656673 || lower(start + 8) != 0x636e652d || lower(start + 12) != 0x6e69646f ||
      (byteAt(start + 16) | 0x20) != 0x67) return
    list = CODINGS
  } else if (length == 7) {
    if (lower(start + 3) != 0x65646172) return
    list = UPGRADE
  } else if (length == 6) {
    if (lower(start + 2) != 0x74636570) return
    list = EXPECT
  }
  while (byteAt(from) != COLON && from < lineEnd) from++
  from++
  let to = lineEnd
  while (to > from && isBlank(byteAt(to - 1))) to--
  while (from < to && isBlank(byteAt(from))) from++
  if (length == 4) {
    if ((load<i32>(block, AT_ATTRIBUTES) & HAS_HOST) != 0) mark(block, AT_ANOMALIES, DUPLICATE_HOST)
    else {
      mark(block, AT_ATTRIBUTES, HAS_HOST)
      store<i32>(block, from, AT_HOST)
      store<i32>(block, to - from, AT_HOST_LENGTH)
    }
  } else if (length == 14) contentLength(from, to, block)
  else {
    if (length == 17) mark(block, AT_ATTRIBUTES, HAS_TRANSFER_ENCODING)
    // Nearly always the value is one known element.
    if (listElement(list, from, to - from, block)) return
    // The elements of a comma-separated list; empty ones do not count (RFC 9110 §5.6.1).
    for (; ;) {
      while (from < to && (isBlank(byteAt(from)) || byteAt(from) == COMMA)) from++
      if (from >= to) return
      const element = from
      while (from < to && byteAt(from) != COMMA) from++
      let elementEnd = from
      while (elementEnd > element && isBlank(byteAt(elementEnd - 1))) elementEnd--
      if (!listElement(list, element, elementEnd - element, block)) otherElement(list, block)
    }
  }
}

function contentLength(from: i32, to: i32, block: i32): void {
  do {
    while (from < to && isBlank(byteAt(from))) from++
    if (from >= to || !isDigit(byteAt(from))) {
      mark(block, AT_ANOMALIES, BAD_CONTENT_LENGTH)
      return
    }
    let value: i64 = 0
    while (from < to && isDigit(byteAt(from))) {
      value = value * 10 + <i64>(byteAt(from) - 0x30)
      if (value > 9007199254740991) {
        mark(block, AT_ANOMALIES, BAD_CONTENT_LENGTH)
        return
      }
      from++
    }
    while (from < to && isBlank(byteAt(from))) from++
    if (from < to && byteAt(from) != COMMA) {
      mark(block, AT_ANOMALIES, BAD_CONTENT_LENGTH)
      return
    }
    if ((load<i32>(block, AT_ATTRIBUTES) & HAS_CONTENT_LENGTH) == 0) {
      mark(block, AT_ATTRIBUTES, HAS_CONTENT_LENGTH)
      store<f64>(block, <f64>value, AT_CONTENT_LENGTH)
    } else {
      mark(block, AT_ANOMALIES,
        <f64>value == load<f64>(block, AT_CONTENT_LENGTH) ? DUPLICATE_CONTENT_LENGTH : CONFLICTING_CONTENT_LENGTH)
    }
  } while (from++ < to)
}

/** Notes an element of a list if it is a known one. */
function listElement(list: i32, at: i32, length: i32, block: i32): bool {
  if (list == CONNECTION) {
    if (length == 5) {
      if (lower(at) != 0x736f6c63 || (byteAt(at + 4) | 0x20) != 0x65) return false
      mark(block, AT_ATTRIBUTES, CONNECTION_CLOSE)
      return true
    }
    if (length == 10) {
      if (lower(at) != 0x7065656b || byteAt(at + 4) != 0x2d) return false
      if (lower(at + 5) != 0x76696c61 || (byteAt(at + 9) | 0x20) != 0x65) return false
      mark(block, AT_ATTRIBUTES, CONNECTION_KEEP_ALIVE)
      return true
    }
    if (length != 7 || lower(at) != 0x72677075 || lower(at + 3) != 0x65646172) return false
    mark(block, AT_ATTRIBUTES, CONNECTION_UPGRADE)
    return true
  }
  if (list == CODINGS) {
    const chunked = (load<i32>(block, AT_ATTRIBUTES) & CHUNKED) != 0
    if (length == 7 && lower(at) == 0x6e756863 && lower(at + 3) == 0x64656b6e) {
      if (chunked) mark(block, AT_ANOMALIES, CHUNKED_NOT_FINAL)
      mark(block, AT_ATTRIBUTES, CHUNKED)
      return true
    }
    return !chunked && length == 8 && lower(at) == 0x6e656469 && lower(at + 4) == 0x79746974
  }
  if (list == UPGRADE) {
    if (length == 9 && lower(at) == 0x73626577 && lower(at + 4) == 0x656b636f && (byteAt(at + 8) | 0x20) == 0x74) {
      mark(block, AT_ATTRIBUTES, UPGRADE_WEBSOCKET)
      return true
    }
    if (length != 3 || (byteAt(at) | 0x20) != 0x68) return false
    if (byteAt(at + 1) != 0x32 || (byteAt(at + 2) | 0x20) != 0x63) return false
    mark(block, AT_ATTRIBUTES, UPGRADE_H2C)
    return true
  }
  // Expect: 100-continue
  if (length != 12 || word(at) != 0x2d303031 || lower(at + 4) != 0x746e6f63 || lower(at + 8) != 0x65756e69) return false
  mark(block, AT_ATTRIBUTES, EXPECT_CONTINUE)
  return true
}

/** Notes an element of a list that is not a known one. */
function otherElement(list: i32, block: i32): void {
  if (list == UPGRADE) mark(block, AT_ATTRIBUTES, UPGRADE_OTHER)
  else if (list == CODINGS) {
    mark(block, AT_ATTRIBUTES, OTHER_CODING)
    if ((load<i32>(block, AT_ATTRIBUTES) & CHUNKED) != 0) {
      store<i32>(block, load<i32>(block, AT_ATTRIBUTES) & ~CHUNKED, AT_ATTRIBUTES)
      mark(block, AT_ANOMALIES, CHUNKED_NOT_FINAL)
    }
  }
}
