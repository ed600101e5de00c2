/**
 * ICMP (RFC 792) and ICMPv6 (RFC 4443): type u8, code u8, checksum u16, rest of header 4 bytes, body.
 * An error's body quotes the packet that caused it, from its IP header on. An echo has an identifier in bytes 4-5.
 */

export const ICMP_BYTES = 8
export const ICMP_TYPE = 0
export const ICMP_CHECKSUM = 2
export const ICMP_IDENTIFIER = 4

/** True for ICMP types whose body quotes a packet: unreachable, source quench, redirect, time exceeded, parameter problem. */
export function isIcmpError(type: number): boolean {
  return type === 3 || type === 4 || type === 5 || type === 11 || type === 12
}

/** ICMPv6 errors are the types below 128 (RFC 4443 §2.1). */
export function isIcmpv6Error(type: number): boolean {
  return type >= 1 && type < 128
}

/** Echo, timestamp, information and address mask messages carry an identifier that both directions share. */
export function hasIcmpIdentifier(type: number): boolean {
  return type === 0 || type === 8 || (type >= 13 && type <= 18)
}

export function hasIcmpv6Identifier(type: number): boolean {
  return type === 128 || type === 129
}
