/**
 * Link types: what a captured packet begins with, as the numbers that pcap and pcapng files carry (the registry of
 * draft-ietf-opsawg-pcaplinktype), and the way from there to layer 3.
 *
 * {@link linkPayload} answers with one integer, so that nothing is allocated per packet:
 *
 *     31            16 15             0
 *     +---------------+---------------+
 *     |   EtherType   | header length |     0 = unknown: too short, or nothing that has an EtherType
 *     +---------------+---------------+
 *
 * Whatever announces an EtherType (Linux cooked, Ethernet) has it passed on as it stands: IP, a VLAN tag, ARP. Layer 3
 * of a VLAN tag begins with the tag's control information, just as it does behind an Ethernet header.
 */

/** The link types that NFactor reads, by their numbers in capture files. */
export const LinkType = {
  /** BSD loopback: the address family in the byte order of the machine that captured. */
  Null: 0,
  Ethernet: 1,
  /** PPP, with or without its HDLC-like address and control bytes (RFC 1661, RFC 1662). */
  Ppp: 9,
  /** Raw IPv4 or IPv6; 14 is the same as written on OpenBSD, 101 the number meant for files. */
  RawDlt: 12,
  RawOpenBsd: 14,
  /** PPP in HDLC-like framing (RFC 1662), or Cisco HDLC behind it (RFC 1547 §4.3.1). */
  PppSerial: 50,
  Raw: 101,
  /** OpenBSD loopback: the address family in network byte order. */
  Loop: 108,
  /** Linux cooked capture, version 1: what the device `any` gives. */
  LinuxSll: 113,
  Ipv4: 228,
  Ipv6: 229,
  /** Linux cooked capture, version 2: the same with an interface index. */
  LinuxSll2: 276,
} as const

/** What {@link linkPayload} answers when it cannot tell where layer 3 starts. */
export const LINK_PAYLOAD_UNKNOWN = 0

const ETHER_TYPE_IPV4 = 0x0800
const ETHER_TYPE_IPV6 = 0x86dd
const ETHER_TYPE_MPLS = 0x8847
/** Numbers below are lengths of IEEE 802.3 frames or Linux's own names for things without an EtherType. */
const ETHER_TYPE_MIN = 0x0600

const ETHERNET_HEADER_LENGTH = 14
const LOOPBACK_HEADER_LENGTH = 4
const SLL_HEADER_LENGTH = 16
const SLL_OFFSET_ARPHRD = 2
const SLL_OFFSET_PROTOCOL = 14
const SLL2_HEADER_LENGTH = 20
const SLL2_OFFSET_PROTOCOL = 0
const SLL2_OFFSET_ARPHRD = 8

const names = new Map<number, string>([
  [LinkType.Null, 'BSD loopback'],
  [LinkType.Ethernet, 'Ethernet'],
  [LinkType.Ppp, 'PPP'],
  [LinkType.RawDlt, 'raw IP'],
  [LinkType.RawOpenBsd, 'raw IP'],
  [LinkType.PppSerial, 'PPP in HDLC framing'],
  [LinkType.Raw, 'raw IP'],
  [LinkType.Loop, 'OpenBSD loopback'],
  [LinkType.LinuxSll, 'Linux cooked v1'],
  [LinkType.Ipv4, 'raw IPv4'],
  [LinkType.Ipv6, 'raw IPv6'],
  [LinkType.LinuxSll2, 'Linux cooked v2'],
  [6, 'Token Ring'],
  [7, 'ARCNET'],
  [8, 'SLIP'],
  [10, 'FDDI'],
  [51, 'PPPoE without Ethernet'],
  [100, 'ATM'],
  [104, 'Cisco HDLC'],
  [105, 'IEEE 802.11 Wi-Fi'],
  [107, 'Frame Relay'],
  [117, 'OpenBSD pflog'],
  [127, 'IEEE 802.11 Wi-Fi with radiotap'],
  [187, 'Bluetooth'],
  [189, 'Linux USB'],
  [195, 'IEEE 802.15.4'],
  [201, 'Bluetooth'],
  [220, 'Linux USB'],
  [227, 'CAN bus'],
  [239, 'Linux netfilter log'],
  [249, 'USBPcap'],
  [252, 'Wireshark upper PDU'],
  [253, 'Linux netlink'],
])

const supported = new Set<number>(Object.values(LinkType))

/** The name of a link type for people; a number without a name is given as `link type N`. Allocates. */
export function linkTypeName(linkType: number): string {
  return names.get(linkType) ?? `link type ${linkType}`
}

/** True if {@link linkPayload} knows the link type. */
export function isSupportedLinkType(linkType: number): boolean {
  return supported.has(linkType)
}

/** The EtherType in an answer of {@link linkPayload}; 0 if unknown. */
export function payloadEtherType(payload: number): number {
  return payload >>> 16
}

/** The bytes in front of layer 3 in an answer of {@link linkPayload}. */
export function payloadHeaderLength(payload: number): number {
  return payload & 0xffff
}

/**
 * Finds layer 3 in the packet `bytes[offset..offset + length)`.
 *
 * Hot, allocates nothing and reads no byte outside the packet. The answer is unpacked by {@link payloadEtherType} and
 * {@link payloadHeaderLength}; it is {@link LINK_PAYLOAD_UNKNOWN} for a packet that is too short, for a link type that
 * is not supported, and for one that carries nothing with an EtherType.
 */
export function linkPayload(bytes: Uint8Array, offset: number, length: number, linkType: number): number {
  switch (linkType) {
    case LinkType.Ethernet:
      if (length < ETHERNET_HEADER_LENGTH) return LINK_PAYLOAD_UNKNOWN
      return announced(bytes, offset + 12, ETHERNET_HEADER_LENGTH)
    case LinkType.RawDlt:
    case LinkType.RawOpenBsd:
    case LinkType.Raw:
      return rawPayload(bytes, offset, length)
    case LinkType.Ipv4:
    case LinkType.Ipv6: {
      const etherType = linkType === LinkType.Ipv4 ? ETHER_TYPE_IPV4 : ETHER_TYPE_IPV6
      const payload = rawPayload(bytes, offset, length)
      return payloadEtherType(payload) === etherType ? payload : LINK_PAYLOAD_UNKNOWN
    }
    case LinkType.Null:
    case LinkType.Loop:
      return loopbackPayload(bytes, offset, length)
    case LinkType.Ppp:
    case LinkType.PppSerial:
      return pppPayload(bytes, offset, length)
    case LinkType.LinuxSll:
      if (length < SLL_HEADER_LENGTH || !hasEtherType(bytes, offset + SLL_OFFSET_ARPHRD)) return LINK_PAYLOAD_UNKNOWN
      return announced(bytes, offset + SLL_OFFSET_PROTOCOL, SLL_HEADER_LENGTH)
    case LinkType.LinuxSll2:
      if (length < SLL2_HEADER_LENGTH || !hasEtherType(bytes, offset + SLL2_OFFSET_ARPHRD)) return LINK_PAYLOAD_UNKNOWN
      return announced(bytes, offset + SLL2_OFFSET_PROTOCOL, SLL2_HEADER_LENGTH)
    default:
      return LINK_PAYLOAD_UNKNOWN
  }
}

function pack(etherType: number, headerLength: number): number {
  return (etherType << 16) | headerLength
}

/** The EtherType that stands at `at`. */
function announced(bytes: Uint8Array, at: number, headerLength: number): number {
  const etherType = ((bytes[at] as number) << 8) | (bytes[at + 1] as number)
  return etherType < ETHER_TYPE_MIN ? LINK_PAYLOAD_UNKNOWN : pack(etherType, headerLength)
}

/** Layer 3 comes first: its version says what it is. */
function rawPayload(bytes: Uint8Array, offset: number, length: number): number {
  if (length < 1) return LINK_PAYLOAD_UNKNOWN
  const version = (bytes[offset] as number) >>> 4
  if (version === 4) return pack(ETHER_TYPE_IPV4, 0)
  if (version === 6) return pack(ETHER_TYPE_IPV6, 0)
  return LINK_PAYLOAD_UNKNOWN
}

/** Four bytes of address family. The file does not say whose byte order they have, so both are accepted. */
function loopbackPayload(bytes: Uint8Array, offset: number, length: number): number {
  if (length < LOOPBACK_HEADER_LENGTH) return LINK_PAYLOAD_UNKNOWN
  const first = bytes[offset] as number
  const last = bytes[offset + 3] as number
  if (bytes[offset + 1] !== 0 || bytes[offset + 2] !== 0 || (first !== 0 && last !== 0)) return LINK_PAYLOAD_UNKNOWN
  switch (first | last) {
    case 2:
      return pack(ETHER_TYPE_IPV4, LOOPBACK_HEADER_LENGTH)
    case 10: // AF_INET6 on Linux; then NetBSD and OpenBSD, FreeBSD, macOS
    case 24:
    case 28:
    case 30:
      return pack(ETHER_TYPE_IPV6, LOOPBACK_HEADER_LENGTH)
    default:
      return LINK_PAYLOAD_UNKNOWN
  }
}

/** RFC 1661 §2 and §6.5 (protocol field of one byte if that byte is odd), RFC 1662 §3.1 (address and control). */
function pppPayload(bytes: Uint8Array, offset: number, length: number): number {
  let at = 0
  if (length >= 2) {
    const address = bytes[offset] as number
    const control = bytes[offset + 1] as number
    if (address === 0xff && control === 0x03) at = 2
    else if ((address === 0x0f || address === 0x8f) && control === 0x00) {
      return length < 4 ? LINK_PAYLOAD_UNKNOWN : announced(bytes, offset + 2, 4) // Cisco HDLC
    }
  }
  if (at >= length) return LINK_PAYLOAD_UNKNOWN
  let protocol = bytes[offset + at] as number
  at++
  if ((protocol & 1) === 0) {
    if (at >= length) return LINK_PAYLOAD_UNKNOWN
    protocol = (protocol << 8) | (bytes[offset + at] as number)
    at++
  }
  switch (protocol) {
    case 0x0021:
      return pack(ETHER_TYPE_IPV4, at)
    case 0x0057:
      return pack(ETHER_TYPE_IPV6, at)
    case 0x0281:
      return pack(ETHER_TYPE_MPLS, at)
    default:
      return LINK_PAYLOAD_UNKNOWN
  }
}

/** False for the Linux device types whose cooked header has something else than an EtherType in its protocol field. */
function hasEtherType(bytes: Uint8Array, at: number): boolean {
  const deviceType = ((bytes[at] as number) << 8) | (bytes[at + 1] as number)
  // Three kinds of 802.11 monitor devices, then netlink.
  return deviceType !== 801 && deviceType !== 802 && deviceType !== 803 && deviceType !== 824
}
