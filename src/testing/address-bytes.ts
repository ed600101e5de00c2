/**
 * IP and MAC addresses from text to bytes, for tests: `10.0.0.1`, `2001:db8::1`, `::ffff:192.0.2.1` (RFC 4291 §2.2),
 * `02:00:00:00:00:01`. A text that is not an address throws a RangeError, so that a slip in a test does not pass unseen.
 */

/** The 4 or 16 bytes of an IP address. */
export function addressBytes(text: string): Uint8Array {
  return text.includes(':') ? ipv6Bytes(text) : ipv4Bytes(text)
}

function ipv4Bytes(text: string): Uint8Array {
  const parts = text.split('.')
  if (parts.length !== 4 || parts.some((part) => !/^\d{1,3}$/.test(part) || Number(part) > 255)) wrong(text)
  return Uint8Array.from(parts, Number)
}

function ipv6Bytes(text: string): Uint8Array {
  let groups = text
  const dotted = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(text)
  if (dotted !== null) {
    const [a, b, c, d] = ipv4Bytes(dotted[2]) as unknown as [number, number, number, number]
    groups = `${dotted[1]}${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`
  }
  const halves = groups.split('::')
  if (halves.length > 2) wrong(text)
  const parse = (half: string): number[] => half === '' ? [] : half.split(':').map((group) => {
    if (!/^[0-9a-f]{1,4}$/i.test(group)) wrong(text)
    return Number.parseInt(group, 16)
  })
  const before = parse(halves[0])
  const after = halves.length === 2 ? parse(halves[1]) : []
  const missing = 8 - before.length - after.length
  if (halves.length === 2 ? missing < 1 : missing !== 0) wrong(text)
  const words = [...before, ...new Array<number>(missing).fill(0), ...after]
  return Uint8Array.from(words.flatMap((word) => [word >>> 8, word & 255]))
}

/** The 6 bytes of a MAC address. */
export function macBytes(text: string): Uint8Array {
  const parts = text.split(/[:-]/)
  if (parts.length !== 6 || parts.some((part) => !/^[0-9a-f]{1,2}$/i.test(part))) wrong(text)
  return Uint8Array.from(parts, (part) => Number.parseInt(part, 16))
}

function wrong(text: string): never {
  throw new RangeError(`${JSON.stringify(text)} is not an address`)
}
