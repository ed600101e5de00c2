/**
 * Classify, in AssemblyScript: the first stages of a batch in one call. For every descriptor: touch the frame, parse and hash
 * it, touch its slot in the flow table, find the record, touch the record's lines, compare the key.
 *
 * It parses what nearly all packets are: Ethernet, IPv4 or IPv6 without options, extension headers, VLAN tags or fragments, TCP
 * or UDP, every length in order. Anything else is left to packet/parse.ts: its result word becomes UNPARSED and its hash is
 * made harmless. For the packets it does parse it writes what packet/parse.ts would (held equal by fuzzing), and the record
 * word is that of the flow with this very key, or 0 if the first entry with the same hash is not it.
 *
 * The numbers below are those of packet/descriptor.ts, flow/flow-record.ts, flow/flow-hash.ts and flow/flow-table.ts.
 */

/** Result of a packet that this kernel leaves to the parser. */
const UNPARSED: i32 = -1000

// Byte offsets in a descriptor.
const FRAME: usize = 0
const LENGTH: usize = 4
const NETWORK: usize = 8
const TRANSPORT: usize = 12
const PAYLOAD: usize = 16
const PAYLOAD_LENGTH: usize = 20
const META: usize = 24
const RESULT: usize = 28
const HASH: usize = 32
const RECORD: usize = 36
const TIME: usize = 40
const KEY: usize = 48
const WIRE_LENGTH: usize = 92
const LINK_TYPE: usize = 112
const SEQUENCE: usize = 116
const DESCRIPTOR_BYTES: i32 = 128

// In a flow record and in a hint.
const OPENER: usize = 46
const HINT_BYTES: i32 = 24

const FROM_B: i32 = 1 << 16
const IPV6: i32 = 1 << 17

const M1: i32 = 0x9e3779b1
const M2: i32 = 0x85ebca6b
const M3: i32 = 0xc2b2ae35

// @ts-ignore: decorator
@inline
function big16(at: i32, offset: i32): i32 {
  const x = <i32>load<u16>(at + offset)
  return ((x & 255) << 8) | (x >>> 8)
}

// @ts-ignore: decorator
@inline
function big32(at: i32, offset: i32): i32 {
  const x = load<u32>(at + offset)
  return <i32>(rotl(x & 0x00ff00ff, 24) | rotl(x & 0xff00ff00, 8))
}

// @ts-ignore: decorator
@inline
function finish(h: i32): i32 {
  h ^= h >>> 13
  h *= M3
  return h ^ (h >>> 16)
}

/** Writes where transport and payload are; returns the meta word without direction, or -1 for what the parser must see. */
// @ts-ignore: decorator
@inline
function transport(d: i32, at: i32, end: i32, protocol: i32): i32 {
  let payload: i32
  let meta = protocol
  if (protocol == 6) {
    payload = at + ((<i32>load<u8>(at, 12) >>> 4) << 2)
    if (payload < at + 20 || payload > end) return -1
    meta |= <i32>load<u8>(at, 13) << 8
    store<i32>(d, big32(at, 4), SEQUENCE)
  } else {
    if (end - at < 8 || big16(at, 4) != end - at) return -1
    payload = at + 8
  }
  store<i32>(d, at, TRANSPORT)
  store<i32>(d, payload, PAYLOAD)
  store<i32>(d, end - payload, PAYLOAD_LENGTH)
  return meta
}

/** Returns 0 when done, UNPARSED otherwise. */
// @ts-ignore: decorator
@inline
function parse(d: i32, seed: i32): i32 {
  const frame = load<i32>(d, FRAME)
  const length = load<i32>(d, LENGTH)
  if (length < 42 || load<i32>(d, LINK_TYPE) != 1) return UNPARSED
  const network = frame + 14
  const etherType = <i32>load<u16>(frame, 12)
  if (etherType == 0x0008) {
    const protocol = <i32>load<u8>(network, 9)
    const total = big16(network, 2)
    if (load<u8>(network) != 0x45 || (load<u16>(network, 6) & 0xff3f) != 0 || total > length - 14) return UNPARSED
    if (protocol == 6) {
      if (total < 40) return UNPARSED
    } else if (protocol != 17 || total < 28) {
      return UNPARSED
    }
    let meta = transport(d, network + 20, network + total, protocol)
    if (meta < 0) return UNPARSED
    // Source, destination, ports and what follows them, each with its bytes turned round.
    const words = i8x16.swizzle(v128.load(network, 12), i8x16(3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12))
    const source = i32x4.extract_lane(words, 0)
    const destination = i32x4.extract_lane(words, 1)
    const sent = i32x4.extract_lane(words, 2)
    // Without branches: which end is a is as good as random.
    const larger = <i32>(<u32>source > <u32>destination) |
      (<i32>(source == destination) & <i32>((sent >>> 16) > (sent & 0xffff)))
    const a = select<i32>(destination, source, larger)
    const b = select<i32>(source, destination, larger)
    const ports = rotl<i32>(sent, larger << 4)
    meta |= larger << 16
    const tag = 4 << 24
    store<i32>(d, network, NETWORK)
    store<i32>(d, meta, META)
    store<i32>(d, tag, KEY)
    store<i32>(d, ports, KEY + 4)
    store<i32>(d, protocol, KEY + 8)
    store<i32>(d, a, KEY + 12)
    store<i32>(d, b, KEY + 28)
    let h = (seed ^ a) * M1
    h = ((h ^ (h >>> 15)) + b) * M2
    h = ((h ^ (h >>> 13)) + ports) * M1
    h = ((h ^ (h >>> 15)) + (tag ^ (protocol * 0x01000193))) * M2
    store<i32>(d, finish(h), HASH)
    return 0
  }
  if (etherType != 0xdd86 || length < 62 || (load<u8>(network) & 0xf0) != 0x60) return UNPARSED
  const protocol = <i32>load<u8>(network, 6)
  const bytes = big16(network, 4)
  if (bytes > length - 54) return UNPARSED
  if (protocol == 6) {
    if (bytes < 20) return UNPARSED
  } else if (protocol != 17 || bytes < 8) {
    return UNPARSED
  }
  let meta = transport(d, network + 40, network + 40 + bytes, protocol)
  if (meta < 0) return UNPARSED
  meta |= IPV6
  let ports = big32(network, 40)
  let a = network + 8
  let b = network + 24
  let larger = false
  let same = true
  for (let i = 0; i < 16; i += 4) {
    const x = <u32>big32(network + i, 8)
    const y = <u32>big32(network + i, 24)
    if (x != y) {
      larger = x > y
      same = false
      break
    }
  }
  if (larger || (same && (ports >>> 16) > (ports & 0xffff))) {
    a = network + 24
    b = network + 8
    ports = rotl(ports, 16)
    meta |= FROM_B
  }
  const tag = 6 << 24
  store<i32>(d, network, NETWORK)
  store<i32>(d, meta, META)
  store<i32>(d, tag, KEY)
  store<i32>(d, ports, KEY + 4)
  store<i32>(d, protocol, KEY + 8)
  for (let i = 0; i < 16; i += 4) {
    store<i32>(d + i, big32(a + i, 0), KEY + 12)
    store<i32>(d + i, big32(b + i, 0), KEY + 28)
  }
  let h = (seed ^ load<i32>(d, KEY + 12)) * M1
  for (let i = 4; i < 11; i++) {
    h = ((h ^ (h >>> 15)) + load<i32>(d + (i << 2), KEY)) * ((i & 1) != 0 ? M1 : M2)
  }
  h = ((h ^ (h >>> 13)) + ports) * M1
  h = ((h ^ (h >>> 15)) + (tag ^ (protocol * 0x01000193))) * M2
  store<i32>(d, finish(h), HASH)
  return 0
}

/** Touches what a hint says for the packets of known flows that it is about. */
function follow(hint: i32, batch: i32, end: i32): i32 {
  const field = load<i32>(hint)
  const stride = load<i32>(hint, 4)
  const value = load<i32>(hint, 8)
  const payloadBytes = load<i32>(hint, 12)
  const extent = load<i32>(hint, 16)
  const extentBytes = load<i32>(hint, 20)
  let touched: i32 = 0
  for (let d = batch; d < end; d += DESCRIPTOR_BYTES) {
    const record = load<i32>(d, RECORD)
    const length = load<i32>(d, PAYLOAD_LENGTH)
    if (record == 0 || load<i32>(d, RESULT) != 0 || length <= 0) continue
    const direction = ((load<i32>(d, META) >>> 16) ^ <i32>load<u8>(record, OPENER)) & 1
    if (<i32>load<u8>(record + field + direction * stride) != value) continue
    const payload = load<i32>(d, PAYLOAD)
    const last = min(length, payloadBytes)
    for (let at = 0; at < last; at += 64) touched ^= <i32>load<u8>(payload + at)
    const block = extentBytes != 0 ? load<i32>(record + extent) : 0
    if (block != 0) for (let at = 0; at < extentBytes; at += 64) touched ^= load<i32>(block + at)
  }
  return touched
}

/**
 * @param batch offset of the first descriptor, `count` of them side by side
 * @param seed secret of the flow hash
 * @param table offset of the flow table's slot 0
 * @param shift home slot of a hash: `hash >>> shift`
 * @param lines cache lines of a flow record
 * @param sink offset of two words: one keeps the touching alive, the other receives the sum of the wire lengths
 * @param time when all of them arrived, whole on the wire as in memory; negative when the descriptors say so themselves
 * @param hints offset of `hintCount` hints about memory that packets will need, see nf/cache-hint.ts
 * @returns how many packets are left to the parser
 */
export function classify(batch: i32, count: i32, seed: i32, table: i32, shift: i32, lines: i32, sink: i32, time: f64,
    hints: i32, hintCount: i32): i32 {
  const end = batch + count * DESCRIPTOR_BYTES
  const mask = (1 << (32 - shift)) - 1
  let touched: i32 = 0
  let left = 0
  let bytes: i32 = 0
  for (let d = batch; d < end; d += DESCRIPTOR_BYTES) touched ^= <i32>load<u8>(load<i32>(d, FRAME), 14)
  for (let d = batch; d < end; d += DESCRIPTOR_BYTES) {
    if (time >= 0) {
      store<f64>(d, time, TIME)
      store<i32>(d, load<i32>(d, LENGTH), WIRE_LENGTH)
    }
    bytes += load<i32>(d, WIRE_LENGTH)
    const result = parse(d, seed)
    store<i32>(d, result, RESULT)
    left += <i32>(result != 0)
  }
  for (let d = batch; d < end; d += DESCRIPTOR_BYTES) {
    touched ^= load<i32>(table + ((load<i32>(d, HASH) >>> shift) << 3))
  }
  for (let d = batch; d < end; d += DESCRIPTOR_BYTES) {
    const hash = load<i32>(d, HASH)
    let slot = hash >>> shift
    let record: i32
    for (;;) {
      const at = table + (slot << 3)
      record = load<i32>(at, 4)
      if (record == 0 || load<i32>(at) == hash) break
      slot = (slot + 1) & mask
    }
    store<i32>(d, record, RECORD)
  }
  if (lines == 4) {
    for (let d = batch; d < end; d += DESCRIPTOR_BYTES) {
      const at = load<i32>(d, RECORD)
      touched ^= load<i32>(at) ^ load<i32>(at, 64) ^ load<i32>(at, 128) ^ load<i32>(at, 192)
    }
  } else {
    for (let d = batch; d < end; d += DESCRIPTOR_BYTES) {
      let at = load<i32>(d, RECORD)
      for (let line = 0; line < lines; line++, at += 64) touched ^= load<i32>(at)
    }
  }
  for (let d = batch; d < end; d += DESCRIPTOR_BYTES) {
    const record = load<i32>(d, RECORD)
    let differs = (load<i64>(record) ^ load<i64>(d, KEY)) | <i64>(load<i32>(record, 8) ^ load<i32>(d, KEY + 8)) |
      <i64>(load<i32>(record, 12) ^ load<i32>(d, KEY + 12)) | <i64>(load<i32>(record, 28) ^ load<i32>(d, KEY + 28))
    if ((load<i32>(d, META) & IPV6) != 0) {
      differs |= (load<i64>(record, 16) ^ load<i64>(d, KEY + 16)) | <i64>(load<i32>(record, 24) ^ load<i32>(d, KEY + 24)) |
        (load<i64>(record, 32) ^ load<i64>(d, KEY + 32)) | <i64>(load<i32>(record, 40) ^ load<i32>(d, KEY + 40))
    }
    if (differs != 0) store<i32>(d, 0, RECORD)
  }
  for (let i = 0; i < hintCount; i++) touched ^= follow(hints + i * HINT_BYTES, batch, end)
  store<i32>(sink, touched)
  store<i32>(sink, bytes, 4)
  return left
}
