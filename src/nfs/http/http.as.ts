/**
 * http, in AssemblyScript: what `processPacket` in http.ts does itself, and messages whose head is whole in one segment and
 * whose body, if any, has a known length and fills at least the rest of it. See fast-path.as.ts.
 *
 *     state        0 requests │ 4 responses │ 8 outstanding │ 12, 32 sides │ 52 last
 *     side         0 next │ 4 pending │ 8 head │ 12 remaining │ 16 remainingHigh u16, phase u8, flags u8
 *     last         16 status u16 │ 18 method │ 44 host │ 174 uri: length u16, text
 *     parameters   0 tables │ 4 end of the records │ 8, 12 kind and limit of requests │ 16, 20 of responses │ 64 head block
 *     record       see nf/record-buffer.ts
 */

import {
  AT_ANOMALIES, AT_ATTRIBUTES, AT_CONTENT_LENGTH, AT_HEAD_END, AT_HOST, AT_HOST_LENGTH, AT_KIND, AT_METHOD, AT_METHOD_ID,
  AT_METHOD_LENGTH, AT_STATUS, AT_URI, AT_URI_LENGTH, AT_VERSION_MAJOR, AT_VERSION_MINOR, CONFLICTING_CONTENT_LENGTH,
  HAS_TRANSFER_ENCODING, HEAD_COMPLETE, KIND_EITHER, KIND_REQUEST, METHOD_CONNECT, METHOD_HEAD,
} from '../../memory/kernels/http-head-block'
import { parseHttpHead, setHttpTables } from '../../memory/kernels/http-head.as'

const TRANSPORT: usize = 12
const PAYLOAD_LENGTH: usize = 20
const SEQUENCE: usize = 116
const PAYLOAD: usize = 16
const TIME: usize = 40
const RELATED: i32 = 1 << 20

const SIDES: i32 = 12
const SIDE_BYTES: i32 = 20
const PHASE_BITS: i32 = 0xff0000
const BODY_BITS: i32 = 0xffffff
const HEAD: i32 = 1 << 16
const BODY: i32 = 2 << 16
const OTHER: i32 = 9 << 16
/** FIN, SYN and ACK, and ACK alone, in the meta word. */
const CONTROL: i32 = 0x1300
const ONLY_ACK: i32 = 0x1000
const METHOD_PRI: i32 = 10
const OUTSTANDING_MAX: i32 = 14
/** What the last message's texts hold. */
const METHOD_MAX: i32 = 24
const HOST_MAX: i32 = 128
const URI_MAX: i32 = 256
const OPENER: usize = 46
const KEY_BYTES: i32 = 44
const RECORD_HEADER: i32 = 64
/** `HTTP/1.0`; the last byte is the minor version. */
const HTTP_1: i64 = 0x302e312f50545448

/** True if the packet goes on; false, with nothing changed, if http.ts must see it. */
// @ts-ignore: decorator
@inline
export function http(d: i32, record: i32, meta: i32, direction: i32, state: i32, counters: i32, parameters: i32): bool {
  if ((meta & 255) != 6 || (meta & RELATED) != 0) return true
  const own = state + SIDES + direction * SIDE_BYTES
  const other = state + SIDES + SIDE_BYTES - direction * SIDE_BYTES
  const status = load<i32>(own, 16)
  const transport = load<i32>(d, TRANSPORT)
  // Without branches: whether a connection is HTTP, and whether a segment has data, is as good as random. Where one is not HTTP
  // or has no data, what is written at the end is what was there. Segments with SYN do not come here.
  const read = -<i32>((status & PHASE_BITS) != OTHER)
  const isAhead = <i32>bswap(load<u32>(transport, 8)) - load<i32>(other) > 0
  if (((((meta & CONTROL) ^ ONLY_ACK) | <i32>(transport == 0) | <i32>isAhead) & read) != 0) return false
  const length = load<i32>(d, PAYLOAD_LENGTH) & read
  const next = load<i32>(own)
  const left = load<i32>(own, 12) - length
  const amiss = ((status & BODY_BITS) ^ BODY) | (left >> 31) | (next ^ load<i32>(d, SEQUENCE)) | load<i32>(own, 4)
  if ((amiss & -<i32>(length != 0)) != 0) {
    const elsewhere = ((status & BODY_BITS) ^ HEAD) | (next ^ load<i32>(d, SEQUENCE)) | load<i32>(own, 4) | load<i32>(own, 8)
    return elsewhere == 0 && message(d, record, direction, state, own, length, counters, parameters)
  }
  store<i32>(own, next + length)
  store<i32>(own, left, 12)
  store<i32>(own, select<i32>((status & ~PHASE_BITS) | HEAD, status, <i32>(left == 0) & <i32>(length != 0)), 16)
  return true
}

/** A segment that begins with a whole head. False, with nothing changed, if it is one for http.ts. */
function message(d: i32, record: i32, direction: i32, state: i32, own: i32, length: i32, counters: i32, parameters: i32): bool {
  const block = parameters + 64
  const payload = load<i32>(d, PAYLOAD)
  setHttpTables(load<i32>(parameters))
  if (parseHttpHead(payload, payload + length, KIND_EITHER, block) != HEAD_COMPLETE) return false
  const isRequest = load<i32>(block, AT_KIND) == KIND_REQUEST
  const rest = payload + length - load<i32>(block, AT_HEAD_END)
  const stated = load<f64>(block, AT_CONTENT_LENGTH)
  const minor = load<i32>(block, AT_VERSION_MINOR)
  const last = load<i32>(state, 52)
  if ((load<i32>(block, AT_ATTRIBUTES) & HAS_TRANSFER_ENCODING) != 0 || stated > 0x7fffffff || (stated < 0 && !isRequest) ||
    (load<i32>(block, AT_ANOMALIES) & CONFLICTING_CONTENT_LENGTH) != 0 || load<i32>(block, AT_VERSION_MAJOR) != 1 ||
    (minor & ~1) != 0 || last == 0) return false
  const body = stated > 0 ? <i32>stated : 0
  if (body < rest) return false
  const outstanding = load<i32>(state, 8)
  const count = outstanding & 15
  const cursor = load<i32>(parameters, 4)
  const at = load<i32>(cursor)
  const fromB = direction ^ <i32>load<u8>(record, OPENER)
  if (isRequest) {
    const id = load<i32>(block, AT_METHOD_ID)
    const method = load<i32>(block, AT_METHOD_LENGTH)
    const host = load<i32>(block, AT_HOST_LENGTH)
    const uri = load<i32>(block, AT_URI_LENGTH)
    if (id == METHOD_HEAD || id == METHOD_CONNECT || id == METHOD_PRI || method > METHOD_MAX || host > HOST_MAX ||
      uri > URI_MAX || at > load<i32>(parameters, 12)) return false
    store<i32>(state, load<i32>(state) + 1)
    store<i32>(state, outstanding + <i32>(count < OUTSTANDING_MAX), 8)
    store<f64>(counters, load<f64>(counters) + 1)
    let end = at + RECORD_HEADER + 4 * 8
    end = text(at + RECORD_HEADER, end, load<i32>(block, AT_METHOD), method, last + 18)
    end = text(at + RECORD_HEADER + 8, end, load<i32>(block, AT_HOST), host, last + 44)
    end = text(at + RECORD_HEADER + 16, end, load<i32>(block, AT_URI), uri, last + 174)
    end = version(at + RECORD_HEADER + 24, end, minor)
    commit(d, record, fromB, at, end, load<i32>(parameters, 8), cursor)
  } else {
    const status = load<i32>(block, AT_STATUS)
    if (status < 200 || status == 204 || status == 304 || (count != 0 && (outstanding & 0x30) != 0) ||
      at > load<i32>(parameters, 20)) return false
    store<i32>(state, load<i32>(state, 4) + 1, 4)
    if (count != 0) store<i32>(state, ((outstanding >>> 6) << 4) | (count - 1), 8)
    store<f64>(counters, load<f64>(counters, 8) + 1, 8)
    store<f64>(at, <f64>status, RECORD_HEADER)
    const end = version(at + RECORD_HEADER + 8, at + RECORD_HEADER + 2 * 8, minor)
    commit(d, record, fromB, at, end, load<i32>(parameters, 16), cursor)
    store<u16>(last, <u16>status, 16)
  }
  store<i32>(own, load<i32>(own) + length)
  store<i32>(own, body - rest, 12)
  store<i32>(own, (load<i32>(own, 16) & ~BODY_BITS) | (body == rest ? HEAD : BODY), 16)
  return true
}

/** Notes a text in the record's field at `field`, and in the last message's at `last`. Returns the record's end behind it. */
function text(field: i32, end: i32, from: i32, length: i32, last: i32): i32 {
  store<i32>(field, end)
  store<i32>(field, length, 4)
  store<u16>(last, <u16>length)
  let i = 0
  for (; i + 16 <= length; i += 16) {
    const part = v128.load(from + i)
    v128.store(end + i, part)
    v128.store(last + i, part, 2)
  }
  for (; i < length; i++) {
    const byte = load<u8>(from + i)
    store<u8>(end + i, byte)
    store<u8>(last + i, byte, 2)
  }
  return end + length
}

// @ts-ignore: decorator
@inline
function version(field: i32, end: i32, minor: i32): i32 {
  store<i32>(field, end)
  store<i32>(field, 8, 4)
  store<i64>(end, HTTP_1 | (<i64>minor << 56))
  return end + 8
}

/** Writes the record's header, and hands it over. */
// @ts-ignore: decorator
@inline
function commit(d: i32, record: i32, fromB: i32, at: i32, end: i32, which: i32, cursor: i32): void {
  store<i32>(at, end - at)
  store<i32>(at, which, 4)
  store<f64>(at, load<f64>(d, TIME), 8)
  v128.store(at, v128.load(record), 16)
  v128.store(at, v128.load(record, 16), 32)
  store<i64>(at, load<i64>(record, 32), 48)
  store<i32>(at, load<i32>(record, KEY_BYTES - 4), 56)
  store<i32>(at, fromB, 60)
  store<i32>(cursor, (end + 7) & ~7)
  store<i32>(cursor, load<i32>(cursor, 4) + 1, 4)
  store<f64>(cursor, load<f64>(cursor, 8) + 1, 8)
}
