/**
 * monitor, in AssemblyScript: what `processPacket` in monitor.ts does to the state and the counters. See fast-path.as.ts.
 *
 *     state    0 packets, 2 doubles │ 16 bytes, 2 doubles │ 32 lengthMin u16, lengthMax u16 │ 36 tcpFlags, 2 bytes
 */

const WIRE_LENGTH: usize = 92

// @ts-ignore: decorator
@inline
export function monitor(d: i32, meta: i32, direction: i32, state: i32, counters: i32): void {
  const length = load<i32>(d, WIRE_LENGTH)
  const bytes = <f64>length
  const side = state + (direction << 3)
  store<f64>(side, load<f64>(side) + 1)
  store<f64>(side, load<f64>(side, 16) + bytes, 16)
  if (length < <i32>load<u16>(state, 32)) store<u16>(state, <u16>length, 32)
  if (length > <i32>load<u16>(state, 34)) store<u16>(state, <u16>(length < 65535 ? length : 65535), 34)
  store<u8>(state + direction, load<u8>(state + direction, 36) | <u8>(meta >>> 8), 36)
  store<f64>(counters, load<f64>(counters) + 1)
  store<f64>(counters, load<f64>(counters, 8) + bytes, 8)
}
