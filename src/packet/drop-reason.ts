/**
 * Why a packet was dropped. A closed table: every drop has one of these reasons or one declared by a network function, and
 * every reason is counted. Numbers are internal; names are stable and appear in summaries, metrics and logs.
 */

/** The engine's own reasons, in order of their numbers, each with what it means. */
export const engineDropReasons = {
  'malformed-link': 'the frame is too short for its link-layer header',
  'malformed-ipv4': 'the IPv4 header has a wrong version or length, or does not fit the frame',
  'malformed-ipv6': 'the IPv6 header or an extension header does not fit the frame, or there are too many',
  'malformed-tcp': 'the TCP header is cut short or has an impossible data offset',
  'malformed-udp': 'the UDP header is cut short or its length is impossible',
  'malformed-icmp': 'the ICMP header is cut short',
  'malformed-fragment': 'a fragment overlaps the header of the first one, is empty or goes beyond 65,535 bytes',
  'fragment-limit': 'no room to keep a fragment that came before its first one',
  'fragment-timeout': 'the first fragment never came',
  'non-ip': 'not IP, and the policy is to drop such frames',
  'own-ethertype': 'a frame with the EtherType of NFactor itself came from outside',
  'flow-table-full': 'the limit on flows is reached',
  'nf-error': 'a network function threw on this packet, or had thrown on this flow and the policy is to drop',
  'hold-limit': 'a network function held more packets than the limit allows',
  'hold-ended': 'a held packet whose flow ended before it was released',
  'emit-limit': 'a network function emitted more packets at once than the limit allows',
  'quarantined': 'a packet of this flow has killed a runtime: none of it is run any more',
} as const

export type EngineDropReason = keyof typeof engineDropReasons

/** Number of each engine reason. Reasons of network functions follow. */
export const DropReason = Object.fromEntries(Object.keys(engineDropReasons).map((name, index) => [name, index])) as {
  readonly [K in EngineDropReason]: number
}

export const ENGINE_DROP_REASONS = Object.keys(engineDropReasons).length
