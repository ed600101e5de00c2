/** draft */
import { Random } from '../../base/random.ts'
import { RuleAction, type AddressPrefix, type NumberRange, type Rule } from './rule.ts'

export type RuleProfile = 'access' | 'firewall' | 'chain'

const services = [22, 25, 53, 80, 110, 123, 143, 161, 179, 389, 443, 445, 465, 514, 587, 636, 993, 995, 1433, 1521,
  1723, 3128, 3306, 3389, 5060, 5432, 5900, 6379, 8080, 8443, 9090, 9200]
const spans: NumberRange[] = [{ low: 1024, high: 65535 }, { low: 0, high: 1023 }, { low: 6000, high: 6063 },
  { low: 32768, high: 60999 }, { low: 16384, high: 32767 }, { low: 49152, high: 65535 }]

export const PACKET_WORDS = 14

export function randomRules(random: Random, count: number, profile: RuleProfile, versions: readonly (4 | 6)[]): Rule[] {
  const sites = Array.from({ length: Math.max(4, count >> 5) }, () => site(random))
  const rules: Rule[] = []
  const address = (version: 4 | 6, anyShare: number): AddressPrefix[] | null => {
    if (random.chance(anyShare)) return null
    const one = (): AddressPrefix => prefix(random, version, sites[Math.floor(random.fraction() ** 2 * sites.length)]!, profile)
    const n = random.chance(0.08) ? random.between(2, 5) : 1
    return Array.from({ length: n }, one)
  }
  const share = profile === 'access' ? [0.35, 0.03, 0.97, 0.3] : profile === 'firewall' ? [0.25, 0.2, 0.8, 0.25] : [0.05, 0.05, 0.6, 0.4]
  for (let i = 0; i < count; i++) {
    const version = random.pick(versions)
    let protocol = random.chance(0.1) ? null : random.chance(0.08) ? [version === 4 ? 1 : 58] : random.chance(0.7) ? [6] : random.chance(0.9) ? [17] : [6, 17]
    const ports = protocol === null || protocol[0] === 6 || protocol[0] === 17
    rules.push({
      name: '', action: random.pick([RuleAction.Accept, RuleAction.Drop, RuleAction.Reset]),
      sources: address(version, share[0]!), destinations: address(version, share[1]!),
      sourcePorts: ports ? portList(random, share[2]!) : null,
      destinationPorts: ports ? portList(random, share[3]!) : null,
      protocols: protocol,
      vlans: random.chance(0.9) ? null : [{ low: random.between(1, 20), high: 0 }].map((v) => ({ low: v.low, high: v.low })),
      direction: random.chance(0.75) ? null : random.pick([0, 1] as const),
    })
    const rule = rules[i]!
    // no rule without any address and any port: nothing behind it would count
    if (rule.sources === null && rule.destinations === null && (rule.destinationPorts === null || rule.destinationPorts[0]!.high - rule.destinationPorts[0]!.low > 100)) { rules.pop(); i-- }
  }
  return rules
}

function portList(random: Random, anyShare: number): NumberRange[] | null {
  if (random.chance(anyShare)) return null
  const one = (): NumberRange => {
    const kind = random.fraction()
    if (kind < 0.65) { const p = random.pick(services); return { low: p, high: p } }
    if (kind < 0.8) return random.pick(spans)
    if (kind < 0.9) { const p = random.between(1, 65535); return { low: p, high: p } }
    const low = random.between(1024, 65000); return { low, high: Math.min(65535, low + random.between(1, 200)) }
  }
  return random.chance(0.15) ? [one(), one(), one()] : [one()]
}

interface Site { w0: number; w1: number; v4: number }
function site(random: Random): Site {
  const private10 = random.chance(0.5)
  return {
    v4: private10 ? (10 << 24) | (random.int32() & 0xfff000) : random.chance(0.2) ? (0xc0a80000 | (random.int32() & 0xf000)) : random.int32() & 0xfffff000,
    w0: random.chance(0.5) ? 0x20010db8 : 0x20000000 | (random.int32() & 0x0fffffff),
    w1: random.int32() & 0xffff0000,
  }
}

function prefix(random: Random, version: 4 | 6, at: Site, profile: RuleProfile): AddressPrefix {
  const kind = random.fraction()
  if (version === 4) {
    const length = kind < 0.04 ? random.between(8, 15) : kind < 0.12 ? random.between(16, 23) : kind < 0.4 ? 24 : kind < 0.55 ? random.between(25, 31) : 32
    return { version, word0: ((at.v4 | (random.int32() & 0xfff)) & ~(length === 32 ? 0 : 0xffffffff >>> length)) , word1: 0, word2: 0, word3: 0, length }
  }
  const length = kind < 0.04 ? random.between(20, 40) : kind < 0.14 ? 48 : kind < 0.24 ? 56 : kind < 0.55 ? 64 : kind < 0.6 ? random.between(65, 127) : 128
  const mask = (l: number): number => l <= 0 ? 0 : l >= 32 ? -1 : ~(0xffffffff >>> l)
  return { version, word0: at.w0 & mask(length), word1: (at.w1 | random.below(256)) & mask(length - 32), word2: (random.chance(0.7) ? 0 : random.int32()) & mask(length - 64), word3: random.between(1, 500) & mask(length - 96), length }
}

/** Writes packet: inside `rule` */
export function packetFor(random: Random, rule: Rule, version: 4 | 6, out: Int32Array, at: number): void {
  const addr = (list: readonly AddressPrefix[] | null, o: number): void => {
    const own = list?.filter((p) => p.version === version) ?? []
    const p = own.length === 0 ? null : random.pick(own)
    const length = p?.length ?? 0
    const ws = p === null ? [0, 0, 0, 0] : [p.word0, p.word1, p.word2, p.word3]
    for (let k = 0; k < 4; k++) {
      const l = length - 32 * k
      const m = l <= 0 ? 0 : l >= 32 ? -1 : ~(0xffffffff >>> l)
      out[at + o + k] = version === 4 && k > 0 ? 0 : ws[k]! | (random.int32() & ~m)
    }
    if (p === null && version === 6) out[at + o] = 0x20000000 | (random.int32() & 0xfffffff)
  }
  out[at] = version
  addr(rule.sources, 1)
  addr(rule.destinations, 5)
  const num = (list: readonly NumberRange[] | null, low: number, high: number): number => {
    const r = list === null ? { low, high } : random.pick(list)
    return random.between(r.low, r.high)
  }
  out[at + 9] = num(rule.sourcePorts, 1024, 65535)
  out[at + 10] = rule.destinationPorts === null ? random.pick(services) : num(rule.destinationPorts, 0, 65535)
  out[at + 11] = rule.protocols === null ? random.pick([6, 17]) : random.pick(rule.protocols)
  out[at + 12] = rule.vlans === null ? (random.chance(0.7) ? -1 : random.between(1, 20)) : num(rule.vlans, 0, 0)
  out[at + 13] = rule.direction ?? random.below(2)
}
