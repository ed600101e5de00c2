/**
 * UDP header, RFC 768: source port, destination port, length (header included), checksum (0: none, IPv4 only).
 */

export const UDP_BYTES = 8
export const UDP_SOURCE_PORT = 0
export const UDP_DESTINATION_PORT = 2
export const UDP_LENGTH = 4
export const UDP_CHECKSUM = 6
