/**
 * TCP header, RFC 9293 §3.1.
 *
 *      0  source port      2  destination port      4  sequence number      8  acknowledgement number
 *     12  data offset 4 │ reserved 4    13  flags    14  window    16  checksum    18  urgent pointer    20  options ...
 */

export const TCP_BYTES_MIN = 20
export const TCP_SOURCE_PORT = 0
export const TCP_DESTINATION_PORT = 2
export const TCP_SEQUENCE = 4
export const TCP_ACKNOWLEDGEMENT = 8
export const TCP_DATA_OFFSET = 12
export const TCP_FLAGS = 13
export const TCP_WINDOW = 14
export const TCP_CHECKSUM = 16
export const TCP_URGENT = 18

export const TcpFlag = { fin: 1, syn: 2, rst: 4, psh: 8, ack: 16, urg: 32, ece: 64, cwr: 128 } as const

export const TcpOption = { end: 0, noOperation: 1, maximumSegmentSize: 2, windowScale: 3, sackPermitted: 4, sack: 5,
  timestamps: 8, mptcp: 30, fastOpen: 34 } as const

/** Signed distance from `b` to `a` in sequence space: positive when `a` comes after `b` (RFC 9293 §3.4). */
export function sequenceDistance(a: number, b: number): number {
  return (a - b) | 0
}
