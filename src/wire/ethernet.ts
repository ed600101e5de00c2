/**
 * Ethernet II frames, VLAN tags and PPPoE sessions: everything between the start of a frame and its layer-3 header.
 * IEEE 802.3, IEEE 802.1Q (C-tags, S-tags), RFC 2516.
 *
 *     │ destination 6 │ source 6 │ [tpid 2, tci 2]* │ EtherType 2 │ [PPPoE 6, PPP 2] │ layer 3 ...
 */

export const ETHERNET_DESTINATION = 0
export const ETHERNET_SOURCE = 6
export const ETHERNET_TYPE = 12
export const ETHERNET_BYTES = 14
export const VLAN_TAG_BYTES = 4
/** PPPoE header (6 bytes) and the PPP protocol field (2 bytes). */
export const PPPOE_BYTES = 8

export const EtherType = {
  ipv4: 0x0800,
  arp: 0x0806,
  vlan: 0x8100,
  ipv6: 0x86dd,
  serviceVlan: 0x88a8,
  /** Used for outer tags before 802.1ad. */
  oldServiceVlan: 0x9100,
  pppoeSession: 0x8864,
  /** NFactor's own messages: IEEE 802 local experimental EtherType 1. */
  nfactor: 0x88b5,
} as const

/** NFactor's own EtherType as it stands in a frame, read as one little-endian number of 16 bits. */
export const NFACTOR_TYPE_WORD = (EtherType.nfactor >> 8) | ((EtherType.nfactor & 255) << 8)

/** PPP protocol numbers (RFC 1661, RFC 5072). */
export const PppProtocol = { ipv4: 0x0021, ipv6: 0x0057 } as const

/** True for the EtherTypes of VLAN tags. */
export function isVlanTag(etherType: number): boolean {
  return etherType === 0x8100 || etherType === 0x88a8 || etherType === 0x9100
}
