/**
 * IPv4 header, RFC 791. Offsets are from the header's first byte; multi-byte fields are big-endian.
 *
 *      0  version 4 │ header length 4     1  DSCP, ECN      2  total length
 *      4  identification                  6  flags 3 │ fragment offset 13 (units of 8 bytes)
 *      8  TTL           9  protocol      10  header checksum
 *     12  source       16  destination   20  options ...
 */

export const IPV4_BYTES_MIN = 20
export const IPV4_DSCP = 1
export const IPV4_TOTAL_LENGTH = 2
export const IPV4_IDENTIFICATION = 4
export const IPV4_FRAGMENT = 6
export const IPV4_TTL = 8
export const IPV4_PROTOCOL = 9
export const IPV4_CHECKSUM = 10
export const IPV4_SOURCE = 12
export const IPV4_DESTINATION = 16

/** "More fragments" in the fragment field. */
export const IPV4_MORE_FRAGMENTS = 0x2000
/** Fragment offset in the fragment field, in units of 8 bytes. */
export const IPV4_OFFSET_MASK = 0x1fff

/** IP protocol numbers that NFactor knows by name. */
export const IpProtocol = {
  hopByHop: 0,
  icmp: 1,
  igmp: 2,
  ipip: 4,
  tcp: 6,
  udp: 17,
  dccp: 33,
  ipv6: 41,
  routing: 43,
  fragment: 44,
  gre: 47,
  esp: 50,
  authentication: 51,
  icmpv6: 58,
  noNext: 59,
  destinationOptions: 60,
  sctp: 132,
  mobility: 135,
  udpLite: 136,
  hip: 139,
  shim6: 140,
} as const

const names: Record<number, string> = {
  1: 'icmp', 2: 'igmp', 4: 'ipip', 6: 'tcp', 17: 'udp', 33: 'dccp', 41: 'ipv6', 47: 'gre', 50: 'esp', 51: 'ah',
  58: 'icmpv6', 132: 'sctp', 136: 'udplite',
}

/** Name of an IP protocol, or its number as text. */
export function ipProtocolName(protocol: number): string {
  return names[protocol] ?? `${protocol}`
}
