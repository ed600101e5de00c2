/**
 * Seeded rule sets and packets for tests and benches of rule sets, shaped like the three seed families of ClassBench
 * (Taylor and Turner, INFOCOM 2005):
 *
 * - `acl`: access lists; destinations are specific, source ports open, a third of the sources any
 * - `firewall`: many wildcards in both addresses, port ranges on both sides
 * - `ipc`: both addresses specific, fewer ports
 *
 * Addresses cluster in sites, a few of them popular, and nest: hosts in subnets in networks. Some rules have lists,
 * name a VLAN or a direction. No rule is so wide that all behind it would be dead.
 */

import type { Random } from '../../base/random.ts'
import { RuleAction, type AddressPrefix, type NumberRange, type Rule } from './rule.ts'
import { prefixMask } from '../../wire/address-text.ts'

export type RuleKind = 'acl' | 'firewall' | 'ipc'

export const ruleKinds: readonly RuleKind[] = ['acl', 'firewall', 'ipc']

/** Words of one packet: the arguments of `RuleSet.match` in their order. */
export const PACKET_WORDS = 14

/** How often a field is any. */
const anyShares = {
  acl: { source: 0.35, destination: 0.03, sourcePort: 0.97, destinationPort: 0.3 },
  firewall: { source: 0.25, destination: 0.2, sourcePort: 0.8, destinationPort: 0.25 },
  ipc: { source: 0.05, destination: 0.05, sourcePort: 0.6, destinationPort: 0.4 },
} as const

const services = [
  22, 25, 53, 80, 110, 123, 143, 161, 179, 389, 443, 445, 465, 514, 587, 636, 993, 995, 1433, 1521, 1723, 3128, 3306,
  3389, 5060, 5432, 5900, 6379, 8080, 8443, 9090, 9200,
]

const commonRanges: readonly NumberRange[] = [
  { low: 0, high: 1023 }, { low: 1024, high: 65_535 }, { low: 6000, high: 6063 }, { low: 16_384, high: 32_767 },
  { low: 32_768, high: 60_999 }, { low: 49_152, high: 65_535 },
]

const VLANS = 20

interface Site {
  readonly ipv4: number
  readonly ipv6Word0: number
  readonly ipv6Word1: number
}

/** `count` rules, each of one of the address families given. */
export function randomRules(random: Random, count: number, kind: RuleKind, versions: ReadonlyArray<4 | 6>): Rule[] {
  const sites = Array.from({ length: Math.max(4, count >> 5) }, () => randomSite(random))
  const any = anyShares[kind]
  const addresses = (version: 4 | 6, anyShare: number): AddressPrefix[] | null => {
    if (random.chance(anyShare)) return null
    const one = (): AddressPrefix =>
      randomPrefix(random, version, sites[Math.floor(random.fraction() ** 2 * sites.length)])
    return Array.from({ length: random.chance(0.08) ? random.between(2, 5) : 1 }, one)
  }
  const rules: Rule[] = []
  while (rules.length < count) {
    const version = random.pick(versions)
    const protocols = randomProtocols(random, version)
    const hasPorts = protocols === null || protocols[0] === 6 || protocols[0] === 17
    const vlan = random.between(1, VLANS)
    const rule: Rule = {
      name: '',
      action: random.pick(Object.values(RuleAction)),
      sources: addresses(version, any.source),
      destinations: addresses(version, any.destination),
      sourcePorts: hasPorts ? randomPorts(random, any.sourcePort) : null,
      destinationPorts: hasPorts ? randomPorts(random, any.destinationPort) : null,
      protocols,
      vlans: random.chance(0.9) ? null : [{ low: vlan, high: vlan }],
      direction: random.chance(0.75) ? null : random.pick([0, 1]),
    }
    const isWide = rule.sources === null && rule.destinations === null &&
      (rule.destinationPorts === null || rule.destinationPorts.some(({ low, high }) => high - low > 500))
    if (!isWide) rules.push(rule)
  }
  return rules
}

/**
 * Writes a packet that the rule matches (though an earlier rule may, too): {@link PACKET_WORDS} words from `at` on.
 *
 * @param version one that the rule can match
 */
export function writePacket(random: Random, rule: Rule, version: 4 | 6, packets: Int32Array, at: number): void {
  packets[at] = version
  writeAddress(random, rule.sources, version, packets, at + 1)
  writeAddress(random, rule.destinations, version, packets, at + 5)
  packets[at + 9] = numberIn(random, rule.sourcePorts ?? [{ low: 1024, high: 65_535 }])
  packets[at + 10] = rule.destinationPorts === null ? random.pick(services) : numberIn(random, rule.destinationPorts)
  packets[at + 11] = random.pick(rule.protocols ?? [6, 17])
  packets[at + 12] = rule.vlans !== null ? numberIn(random, rule.vlans) : random.chance(0.7) ? -1
    : random.between(1, VLANS)
  packets[at + 13] = rule.direction ?? random.below(2)
}

/** Changes one field of a packet, as a near miss. */
export function disturbPacket(random: Random, packets: Int32Array, at: number): void {
  const field = random.below(6)
  if (field < 2) packets[at + 1 + field * 4] ^= 1 << random.below(32)
  else if (field === 2) packets[at + 10] = random.below(65_536)
  else if (field === 3) packets[at + 11] = random.pick([1, 6, 17, 47, 58])
  else if (field === 4) packets[at + 12] = random.between(-1, VLANS)
  else if (packets[at] === 6) packets[at + 2 + random.below(3)] ^= 1 << random.below(32)
}

function randomSite(random: Random): Site {
  const network = random.int32()
  const isPrivate = random.chance(0.6)
  return {
    ipv4: !isPrivate ? network & 0xfffff000 : random.chance(0.8) ? 0x0a000000 | (network & 0xfff000)
      : 0xc0a80000 | (network & 0xf000),
    ipv6Word0: random.chance(0.5) ? 0x20010db8 : 0x20000000 | (random.int32() & 0x0fffffff),
    ipv6Word1: random.int32() & 0xffff0000,
  }
}

function randomPrefix(random: Random, version: 4 | 6, site: Site): AddressPrefix {
  const kind = random.fraction()
  let length = 0
  let words: number[] = []
  if (version === 4) {
    length = kind < 0.04 ? random.between(8, 15) : kind < 0.12 ? random.between(16, 23) : kind < 0.4 ? 24
      : kind < 0.55 ? random.between(25, 31) : 32
    words = [site.ipv4 | random.below(4096), 0, 0, 0]
  } else {
    length = kind < 0.04 ? random.between(20, 40) : kind < 0.14 ? 48 : kind < 0.24 ? 56 : kind < 0.55 ? 64
      : kind < 0.6 ? random.between(65, 127) : 128
    const word2 = random.chance(0.7) ? 0 : random.int32()
    words = [site.ipv6Word0, site.ipv6Word1 | random.below(256), word2, random.between(1, 500)]
  }
  const masked = words.map((word, level) => word & prefixMask(length, level))
  return { version, word0: masked[0], word1: masked[1], word2: masked[2], word3: masked[3], length }
}

function randomProtocols(random: Random, version: 4 | 6): number[] | null {
  const kind = random.fraction()
  if (kind < 0.1) return null
  if (kind < 0.17) return [version === 4 ? 1 : 58]
  if (kind < 0.75) return [6]
  return kind < 0.97 ? [17] : [6, 17]
}

function randomPorts(random: Random, anyShare: number): NumberRange[] | null {
  if (random.chance(anyShare)) return null
  const one = (): NumberRange => {
    const kind = random.fraction()
    if (kind >= 0.65 && kind < 0.8) return random.pick(commonRanges)
    const low = kind < 0.65 ? random.pick(services) : random.between(1, 65_000)
    return { low, high: kind < 0.9 ? low : low + random.between(1, 200) }
  }
  return Array.from({ length: random.chance(0.15) ? 3 : 1 }, one)
}

function writeAddress(
  random: Random, list: readonly AddressPrefix[] | null, version: 4 | 6, packets: Int32Array, at: number,
): void {
  const own = list?.filter((prefix) => prefix.version === version) ?? []
  const prefix = own.length > 0 ? random.pick(own) : null
  const words = prefix === null ? [0x20000000, 0, 0, 0] : [prefix.word0, prefix.word1, prefix.word2, prefix.word3]
  const length = prefix?.length ?? (version === 6 ? 4 : 0)
  for (let level = 0; level < 4; level++) {
    const fixed = prefixMask(length, level)
    packets[at + level] = version === 4 && level > 0 ? 0 : (words[level] & fixed) | (random.int32() & ~fixed)
  }
}

function numberIn(random: Random, list: readonly NumberRange[]): number {
  const { low, high } = random.pick(list)
  return random.between(low, high)
}
