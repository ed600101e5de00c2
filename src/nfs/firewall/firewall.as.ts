/**
 * firewall, in AssemblyScript: packets of accepted flows that are not TCP or not tracked, and the segments of established
 * connections that `makeTrackEstablished` in tcp-tracking.ts takes. See fast-path.as.ts.
 *
 *     state    0 verdict u8, tcp u8, rule u16 │ 4 forward, 16 reverse: end, acknowledged, window │ 30 scales u8
 */

const FRAME_LENGTH: usize = 4
const TRANSPORT: usize = 12
const PAYLOAD_LENGTH: usize = 20
const WIRE_LENGTH: usize = 92
const SEQUENCE: usize = 116
const RELATED: i32 = 1 << 20

const ACCEPT: i32 = 1
const ESTABLISHED: i32 = 5
/** FIN, SYN, RST and ACK, and ACK alone, in the meta word. */
const CONTROL: i32 = 0x1700
const ONLY_ACK: i32 = 0x1000
const SIDE_BYTES: i32 = 12
const ACK_SLACK: i32 = 66000

/** True if the packet goes on; false, with nothing changed, if firewall.ts must see it. */
// @ts-ignore: decorator
@inline
export function firewall(d: i32, meta: i32, direction: i32, state: i32, tracks: i32): bool {
  const status = <i32>load<u16>(state)
  if ((status & 255) != ACCEPT) return false
  if ((meta & 255) != 6 || tracks == 0 || (meta & RELATED) != 0) return true
  const transport = load<i32>(d, TRANSPORT)
  if (status != (ACCEPT | (ESTABLISHED << 8)) || (meta & CONTROL) != ONLY_ACK || transport == 0 ||
    load<i32>(d, FRAME_LENGTH) < load<i32>(d, WIRE_LENGTH)) return false
  const sequence = load<i32>(d, SEQUENCE)
  const acknowledgement = <i32>bswap(load<u32>(transport, 8))
  const sender = state + direction * SIDE_BYTES
  const receiver = state + SIDE_BYTES - direction * SIDE_BYTES
  const receiverWindow = load<i32>(receiver, 12)
  if (sequence - load<i32>(receiver, 8) - receiverWindow > 0) return false
  const end = load<i32>(sender, 4)
  const ahead = sequence + load<i32>(d, PAYLOAD_LENGTH) - end
  if (ahead + receiverWindow < 0) return false
  if (acknowledgement - load<i32>(receiver, 4) > 0) return false
  const senderWindow = load<i32>(sender, 12)
  const acknowledged = load<i32>(sender, 8)
  const fresh = acknowledgement - acknowledged
  if (fresh < -ACK_SLACK && fresh < -senderWindow) return false
  // Without branches: whether a segment has data is as good as random.
  store<i32>(sender, end + (ahead & ~(ahead >> 31)), 4)
  store<i32>(sender, acknowledged + (fresh & ~(fresh >> 31)), 8)
  const scaled = <i32>bswap(load<u16>(transport, 14)) << ((<i32>load<u8>(state, 30) >>> (direction << 2)) & 15)
  if (scaled > senderWindow) store<i32>(sender, scaled, 12)
  return true
}
