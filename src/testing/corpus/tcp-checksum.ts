/**
 * Checksums of frames that the harness makes or alters: the IPv4 header's (RFC 791) and TCP's (RFC 9293 §3.1) over
 * IPv4 and IPv6, both the internet checksum of RFC 1071.
 */

/** Writes the checksum of the IPv4 header at `ip`. */
export function setIpv4Checksum(frame: Uint8Array, ip: number): void {
  const headerLength = ((frame[ip] as number) & 15) * 4
  writeUint16(frame, ip + 10, 0)
  writeUint16(frame, ip + 10, foldChecksum(sumWords(frame, ip, ip + headerLength)))
}

/** Writes the checksum of the TCP segment that runs from `tcp` to the end of the frame, in the datagram at `ip`. */
export function setTcpChecksum(frame: Uint8Array, ip: number, tcp: number): void {
  const addresses = (frame[ip] as number) >> 4 === 4 ? [12, 20] as const : [8, 40] as const
  writeUint16(frame, tcp + 16, 0)
  const pseudoHeader = sumWords(frame, ip + addresses[0], ip + addresses[1]) + 6 + frame.length - tcp
  writeUint16(frame, tcp + 16, foldChecksum(pseudoHeader + sumWords(frame, tcp, frame.length)))
}

function sumWords(bytes: Uint8Array, from: number, to: number): number {
  let sum = 0
  for (let i = from; i < to; i += 2) sum += ((bytes[i] as number) << 8) | (i + 1 < to ? bytes[i + 1] as number : 0)
  return sum
}

function foldChecksum(sum: number): number {
  let folded = sum
  while (folded > 0xffff) folded = (folded & 0xffff) + Math.floor(folded / 0x10000)
  return ~folded & 0xffff
}

function writeUint16(bytes: Uint8Array, offset: number, value: number): void {
  bytes[offset] = value >> 8
  bytes[offset + 1] = value
}
