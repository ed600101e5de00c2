/**
 * IPv6 header and extension headers, RFC 8200.
 *
 *      0  version 4 │ traffic class 8 │ flow label 20      4  payload length    6  next header    7  hop limit
 *      8  source                                          24  destination      40  extension headers ...
 *
 * Extension headers: next header u8, length u8 (units of 8 bytes beyond the first 8; of 4 bytes, plus 2, in the
 * authentication header), body. Fragment header: next header, reserved, offset 13 │ reserved 2 │ more 1, identification u32.
 */

import { IpProtocol } from './ipv4.ts'

export const IPV6_BYTES = 40
export const IPV6_PAYLOAD_LENGTH = 4
export const IPV6_NEXT_HEADER = 6
export const IPV6_HOP_LIMIT = 7
export const IPV6_SOURCE = 8
export const IPV6_DESTINATION = 24
export const IPV6_FRAGMENT_BYTES = 8
export const IPV6_FRAGMENT_OFFSET = 2
export const IPV6_FRAGMENT_IDENTIFICATION = 4
/** Extension headers that a packet may have before it is taken for hostile. */
export const IPV6_EXTENSIONS_MAX = 16

/** True for extension headers that have the common form and may be walked over. */
export function isIpv6Extension(nextHeader: number): boolean {
  switch (nextHeader) {
    case 0: case 43: case 51: case 60: case 135: case 139: case 140: return true
    default: return false
  }
}

/** The identification of a fragment whose IPv6 header begins at `network`, in a frame that ends at `end`; 0 if it is none. */
export function ipv6Identification(view: DataView, network: number, end: number): number {
  let next = view.getUint8(network + IPV6_NEXT_HEADER)
  for (let at = network + IPV6_BYTES; at + IPV6_FRAGMENT_BYTES <= end;) {
    // An atomic fragment (offset 0, no more) is a whole packet (RFC 6946), and may have another in it.
    if (next === IpProtocol.fragment && (view.getUint16(at + IPV6_FRAGMENT_OFFSET) & 0xfff9) !== 0) {
      return view.getInt32(at + IPV6_FRAGMENT_IDENTIFICATION)
    }
    const length = view.getUint8(at + 1)
    const bytes = next === IpProtocol.fragment ? 8 : next === IpProtocol.authentication ? (length + 2) << 2 : (length + 1) << 3
    next = view.getUint8(at)
    at += bytes
  }
  return 0
}
