/**
 * Flow tuples as text, the key by which the harness compares flows of different tools.
 *
 * A tuple is the protocol and both endpoints, the lesser endpoint first, so that both directions give the same text:
 *
 *     tcp 10.0.0.1:80 10.0.0.9:4000
 *     udp [2001:db8:0:0:0:0:0:1]:53 [2001:db8:0:0:0:0:0:2]:4000
 *
 * Addresses are brought into one form first, because tools abbreviate IPv6 in different ways (RFC 5952 is not
 * followed by all): IPv4 dotted, IPv6 as eight hexadecimal groups without leading zeroes and without `::`.
 */

/** IP protocol numbers that have a name in tuples; others appear as their number. */
const protocolNames = new Map<number, string>([
  [1, 'icmp'], [2, 'igmp'], [6, 'tcp'], [17, 'udp'], [47, 'gre'], [58, 'icmpv6'], [132, 'sctp'],
])

/** The name of a protocol, from a number, a name or the text of a number. */
export function protocolName(protocol: number | string): string {
  if (typeof protocol === 'number') return protocolNames.get(protocol) ?? String(protocol)
  const text = protocol.toLowerCase()
  if (/^\d+$/.test(text)) return protocolName(Number(text))
  return text === 'ipv6-icmp' || text === 'icmp6' ? 'icmpv6' : text
}

/** An address in the form of this module; text that is no address comes back as it is. */
export function canonicalAddress(address: string): string {
  if (!address.includes(':')) return address
  let text = address.toLowerCase().replace(/%.*$/, '').replace(/^\[|\]$/g, '')
  const dotted = /^(.*:)(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(text)
  if (dotted !== null) {
    const high = Number(dotted[2]) * 256 + Number(dotted[3])
    const low = Number(dotted[4]) * 256 + Number(dotted[5])
    text = `${dotted[1]}${high.toString(16)}:${low.toString(16)}`
  }
  const [head = '', tail] = text.split('::') as [string, string?]
  const headGroups = head === '' ? [] : head.split(':')
  const tailGroups = tail === undefined || tail === '' ? [] : tail.split(':')
  const missing = tail === undefined ? 0 : 8 - headGroups.length - tailGroups.length
  const groups = [...headGroups, ...new Array<string>(Math.max(0, missing)).fill('0'), ...tailGroups]
  return groups.map(group => Number.parseInt(group, 16).toString(16)).join(':')
}

/** One endpoint as text. */
export function endpointText(address: string, port: number): string {
  const canonical = canonicalAddress(address)
  return canonical.includes(':') ? `[${canonical}]:${port}` : `${canonical}:${port}`
}

/** The tuple of a flow: the same text for both directions. */
export function flowTuple(
  protocol: number | string, a: string, aPort: number, b: string, bPort: number,
): string {
  const first = endpointText(a, aPort)
  const second = endpointText(b, bPort)
  return first < second
    ? `${protocolName(protocol)} ${first} ${second}`
    : `${protocolName(protocol)} ${second} ${first}`
}

/** The tuple with its direction: `tcp SOURCE > DESTINATION`. */
export function directedTuple(
  protocol: number | string, source: string, sourcePort: number, destination: string, destinationPort: number,
): string {
  return `${protocolName(protocol)} ${endpointText(source, sourcePort)} > ${endpointText(destination, destinationPort)}`
}
