/**
 * http, in AssemblyScript: what `processPacket` in http.ts does itself. See fast-path.as.ts.
 *
 *     state    12 sides, 20 bytes each:  0 next │ 4 pending │ 8 head │ 12 remaining │ 16 remainingHigh u16, phase u8, flags u8
 */

const TRANSPORT: usize = 12
const PAYLOAD_LENGTH: usize = 20
const SEQUENCE: usize = 116
const RELATED: i32 = 1 << 20

const SIDES: i32 = 12
const SIDE_BYTES: i32 = 20
const PHASE_BITS: i32 = 0xff0000
const BODY_BITS: i32 = 0xffffff
const HEAD: i32 = 1 << 16
const BODY: i32 = 2 << 16
const OTHER: i32 = 9 << 16
const SYN: i32 = 0x200
/** FIN, SYN and ACK, and ACK alone, in the meta word. */
const CONTROL: i32 = 0x1300
const ONLY_ACK: i32 = 0x1000

/** True if the packet goes on; false, with nothing changed, if http.ts must see it. */
// @ts-ignore: decorator
@inline
export function http(d: i32, meta: i32, direction: i32, state: i32): bool {
  if ((meta & 255) != 6 || (meta & RELATED) != 0) return true
  const own = state + SIDES + direction * SIDE_BYTES
  const other = state + SIDES + SIDE_BYTES - direction * SIDE_BYTES
  const status = load<i32>(own, 16)
  if ((status & PHASE_BITS) == OTHER && (meta & SYN) == 0) return true
  const transport = load<i32>(d, TRANSPORT)
  if ((meta & CONTROL) != ONLY_ACK || transport == 0) return false
  if (<i32>bswap(load<u32>(transport, 8)) - load<i32>(other) > 0) return false
  const length = load<i32>(d, PAYLOAD_LENGTH)
  const next = load<i32>(own)
  const left = load<i32>(own, 12) - length
  const amiss = ((status & BODY_BITS) ^ BODY) | (left >> 31) | (next ^ load<i32>(d, SEQUENCE)) | load<i32>(own, 4)
  if ((amiss & -<i32>(length != 0)) != 0) return false
  // Without branches: whether a segment has data is as good as random, and without data this changes nothing.
  store<i32>(own, next + length)
  store<i32>(own, left, 12)
  store<i32>(own, select<i32>((status & ~PHASE_BITS) | HEAD, status, <i32>(left == 0) & <i32>(length != 0)), 16)
  return true
}
