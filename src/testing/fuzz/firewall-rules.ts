/**
 * Fuzzing of the firewall's configuration: no text and no object makes the schema throw; what it lets pass becomes rules, and
 * the classification structure made of them finds what a walk through the list finds.
 */

import type { Random } from '../../base/random.ts'
import { LinearRuleSet } from '../../nfs/firewall/linear-rule-set.ts'
import { disturbPacket, PACKET_WORDS, writePacket } from '../../nfs/firewall/random-rules.ts'
import { parseRules, rulesSchema } from '../../nfs/firewall/rule-config.ts'
import { ruleHasFamily } from '../../nfs/firewall/rule.ts'
import { RuleSet } from '../../nfs/firewall/rule-set.ts'
import { mustEqual, type FuzzTarget } from './fuzz-target.ts'

const words = ['accept', 'drop', 'reset', 'tcp', 'udp', 'icmp', '47', 'any', 'from', 'to', 'port', 'vlan', 'in', 'out', 'name',
  '10.0.0.0/8', '192.0.2.1', '0.0.0.0/0', '2001:db8::/32', '::1', '::ffff:10.0.0.1', '80', '443,8080', '1024-65535', '9-1',
  '65536', '-1', 'none', '/', ',', '', '10.0.0.256', '1::2::3', '999999999999', 'é', '\u0000', '__proto__']
const fields = ['action', 'name', 'source', 'destination', 'sourcePort', 'destinationPort', 'protocol', 'vlan', 'direction',
  'colour', '__proto__']
const oddities = [null, true, -1, 0.5, NaN, 1e99, [], {}, [[]]]

/** A rule that is right more often than not. */
function ruleLine(random: Random): string {
  const good = [random.pick(words.slice(0, 3)), random.pick(['', 'tcp', 'udp', 'tcp,udp']),
    random.pick(['', 'from 10.0.0.0/8', 'from 2001:db8::/32', 'from port 1024-65535']),
    random.pick(['', 'to 192.0.2.1', 'to port 80,443', 'to 10.0.0.0/16 port 22']), random.pick(['', 'in', 'out', 'vlan 7'])]
  for (let changes = random.below(3); changes > 0; changes--) good.splice(random.below(good.length + 1), 1, random.pick(words))
  return good.filter((word) => word !== '' || random.chance(0.05)).join(' ')
}

function ruleObject(random: Random): Record<string, unknown> {
  const value = (): unknown => random.chance(0.9) ? random.pick(words) : random.pick(oddities)
  const rule: Record<string, unknown> = { action: random.pick(words.slice(0, 3)) }
  for (let count = random.below(4); count > 0; count--) {
    rule[random.pick(fields)] = random.chance(0.3) ? [value(), value()] : value()
  }
  return rule
}

function match(set: RuleSet | LinearRuleSet, packet: Int32Array): number {
  return set.match(...[...packet] as unknown as Parameters<RuleSet['match']>)
}

export const firewallRules: FuzzTarget = {
  name: 'firewall-rules',
  about: 'rules as people write them: none makes the schema throw, and both rule sets agree on those that it takes',
  rounds: 200,
  round(random) {
    const configs = Array.from({ length: random.between(1, 6) }, (): unknown =>
      random.chance(0.6) ? ruleLine(random) : random.chance(0.95) ? ruleObject(random) : random.pick(oddities))
    rulesSchema.safeParse(random.chance(0.02) ? random.pick(oddities) : configs)
    const taken = configs.filter((config) => rulesSchema.safeParse([config]).success)
    const checked = rulesSchema.safeParse(taken)
    if (!checked.success) throw new Error(`rules that are good alone are not good together: ${JSON.stringify(taken)}`)
    const rules = parseRules(checked.data)
    mustEqual(rules.length, taken.length, 'number of rules')
    const ruleSet = new RuleSet(rules)
    const linear = new LinearRuleSet(rules)
    const packet = new Int32Array(PACKET_WORDS)
    for (const rule of rules) {
      const version = ruleHasFamily(rule, 4) ? 4 : 6
      writePacket(random, rule, version, packet, 0)
      if (random.chance(0.5)) disturbPacket(random, packet, 0)
      mustEqual(match(ruleSet, packet), match(linear, packet), `${JSON.stringify(taken)}, packet ${packet.join(' ')}`)
    }
  },
}
