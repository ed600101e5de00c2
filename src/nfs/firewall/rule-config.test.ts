import assert from 'node:assert/strict'
import { BlockList, isIPv4, isIPv6 } from 'node:net'
import { describe, test } from 'node:test'
import { z } from 'zod'
import { CodedError } from '../../base/coded-error.ts'
import { Random } from '../../base/random.ts'
import { parseRuleAction, parseRules, rulesSchema, type RuleConfig } from './rule-config.ts'
import { RuleAction, type Rule } from './rule.ts'
import { RuleSet } from './rule-set.ts'

const anything: Omit<Rule, 'action'> = {
  name: '', sources: null, destinations: null, sourcePorts: null, destinationPorts: null, protocols: null, vlans: null,
  direction: null,
}

const ports = (...list: Array<[number, number]>): Array<{ low: number, high: number }> =>
  list.map(([low, high]) => ({ low, high }))

function only(config: RuleConfig): Rule {
  const rules = parseRules(rulesSchema.parse([config]))
  assert.equal(rules.length, 1)
  return rules[0]
}

describe('a rule as an object', () => {
  test('only an action: everything else is any', () => {
    assert.deepEqual(only({ action: 'accept' }), { ...anything, action: RuleAction.Accept })
    assert.deepEqual(only({ action: 'drop' }), { ...anything, action: RuleAction.Drop })
    assert.deepEqual(only({ action: 'reset' }), { ...anything, action: RuleAction.Reset })
    assert.equal(parseRuleAction('reset'), RuleAction.Reset)
    const any = { source: 'any', destination: 'any', sourcePort: 'any', destinationPort: 'any', protocol: 'any' }
    assert.deepEqual(only({ action: 'drop', ...any, vlan: 'any', direction: 'any' }),
      { ...anything, action: RuleAction.Drop })
  })

  test('every field', () => {
    assert.deepEqual(only({
      action: 'reset', name: 'web', source: ['10.0.0.0/8', '2001:db8::/32'], destination: '192.0.2.1',
      sourcePort: '0-65535', destinationPort: [80, '443', '8000-8099'], protocol: ['tcp', 17, '132'],
      vlan: ['none', 7, '100-199'], direction: 'out',
    }), {
      name: 'web', action: RuleAction.Reset,
      sources: [
        { version: 4, word0: 0x0a000000, word1: 0, word2: 0, word3: 0, length: 8 },
        { version: 6, word0: 0x20010db8, word1: 0, word2: 0, word3: 0, length: 32 },
      ],
      destinations: [{ version: 4, word0: 0xc0000201 | 0, word1: 0, word2: 0, word3: 0, length: 32 }],
      sourcePorts: ports([0, 65_535]), destinationPorts: ports([80, 80], [443, 443], [8000, 8099]),
      protocols: [6, 17, 132], vlans: ports([-1, -1], [7, 7], [100, 199]), direction: 1,
    })
  })

  test('addresses in every notation', () => {
    const word = (source: string): number[] => {
      const [prefix] = only({ action: 'drop', source }).sources ?? []
      return [prefix.version, prefix.word0, prefix.word1, prefix.word2, prefix.word3, prefix.length]
    }
    assert.deepEqual(word('255.255.255.255'), [4, -1, 0, 0, 0, 32])
    assert.deepEqual(word('0.0.0.0/0'), [4, 0, 0, 0, 0, 0])
    assert.deepEqual(word('::'), [6, 0, 0, 0, 0, 128])
    assert.deepEqual(word('::/0'), [6, 0, 0, 0, 0, 0])
    assert.deepEqual(word('1::'), [6, 0x10000, 0, 0, 0, 128])
    assert.deepEqual(word('::ffff:192.0.2.1'), [6, 0, 0, 0xffff, 0xc0000201 | 0, 128])
    assert.deepEqual(word('1:2:3:4:5:6:7:8'), [6, 0x10002, 0x30004, 0x50006, 0x70008, 128])
    assert.deepEqual(word('FE80::A:a/127'), [6, 0xfe800000 | 0, 0, 0, 0xa000a, 127])
  })
})

describe('a rule as a line', () => {
  const lines: Array<[string, RuleConfig]> = [
    ['drop', { action: 'drop' }],
    ['accept tcp from 10.0.0.0/8 to 192.0.2.1 port 80,443 vlan 7 in', {
      action: 'accept', protocol: 'tcp', source: '10.0.0.0/8', destination: '192.0.2.1', destinationPort: [80, 443],
      vlan: 7, direction: 'in',
    }],
    ['reset udp,sctp to port 1-5 out', {
      action: 'reset', protocol: ['udp', 'sctp'], destinationPort: '1-5', direction: 'out',
    }],
    ['  accept   any  from any port 53 to 2001:db8::/32 , ::1', {
      action: 'accept', sourcePort: 53, destination: ['2001:db8::/32', '::1'],
    }],
    ['accept out vlan none,4094 to ::1 name a rule from in to out', {
      action: 'accept', direction: 'out', vlan: ['none', 4094], destination: '::1', name: 'a rule from in to out',
    }],
    ['drop 47', { action: 'drop', protocol: 47 }],
  ]
  for (const [line, object] of lines) {
    test(line.trim(), () => assert.deepEqual(only(line), only(object)))
  }
})

describe('complaints name the rule, the field and what is allowed', () => {
  const cases: Array<[unknown, Array<string | number>, RegExp]> = [
    [{ name: 'web' }, ['action'], /^rules\[1\] "web": action: missing; allowed: accept, drop or reset$/],
    [{ action: 'deny', name: 'web' }, ['action'], /^rules\[1\] "web": action: "deny" is not valid; allowed: acc/],
    [{ action: 'drop', dport: 80 }, ['dport'], /^rules\[1\]: dport: there is no such field; allowed: action, name, /],
    [{ action: 'drop', name: 5 }, ['name'], /name: 5 is not valid; allowed: a text/],
    [{ action: 'drop', source: '10.0.0.1/8' }, ['source'], /source: "10.0.0.1\/8" has bits set behind its first 8/],
    [{ action: 'drop', source: '010.0.0.1' }, ['source'], /source: "010.0.0.1" is not valid; allowed: any, an IPv4/],
    [{ action: 'drop', source: '10.0.0.0/33' }, ['source'], /"10.0.0.0\/33" is not valid/],
    [{ action: 'drop', source: '10.0.0.0/8/8' }, ['source'], /"10.0.0.0\/8\/8" is not valid/],
    [{ action: 'drop', source: '10.0.0.256' }, ['source'], /"10.0.0.256" is not valid/],
    [{ action: 'drop', source: '1:2:3:4:5:6:7::8' }, ['source'], /is not valid/],
    [{ action: 'drop', source: [] }, ['source'], /source: an empty list matches nothing; allowed/],
    [{ action: 'drop', source: null }, ['source'], /source: null is not valid/],
    [{ action: 'drop', destination: ['::1', 'any'] }, ['destination'], /destination: "any" cannot stand in a list/],
    [{ action: 'drop', destinationPort: 65_536 }, ['destinationPort'], /65536 is not valid; allowed: any, a number/],
    [{ action: 'drop', destinationPort: 80.5 }, ['destinationPort'], /80.5 is not valid/],
    [{ action: 'drop', sourcePort: '443-80' }, ['sourcePort'], /sourcePort: "443-80" runs backwards; allowed/],
    [{ action: 'drop', sourcePort: '1-2-3' }, ['sourcePort'], /"1-2-3" is not valid/],
    [{ action: 'drop', protocol: 'http' }, ['protocol'], /protocol: "http" is not valid; allowed: any, icmp, .*0-255/],
    [{ action: 'drop', protocol: 256 }, ['protocol'], /256 is not valid/],
    [{ action: 'drop', protocol: 'constructor' }, ['protocol'], /"constructor" is not valid/],
    [{ action: 'drop', vlan: 0 }, ['vlan'], /vlan: 0 is not valid; allowed: any, none, a number 1-4094/],
    [{ action: 'drop', vlan: 4095 }, ['vlan'], /4095 is not valid/],
    [{ action: 'drop', direction: 'up' }, ['direction'], /direction: "up" is not valid; allowed: in \(from the ing/],
    [{ action: 'drop', source: '10.0.0.1', destination: '::1' }, ['destination'], /no address family in common/],
    [{ action: 'drop', protocol: ['tcp', 'icmp'], sourcePort: 80 }, ['sourcePort'], /protocol icmp has no ports/],
    [{ action: 'drop', protocol: 'icmp', source: '::1' }, ['protocol'], /icmp does not occur with IPv6 addresses/],
    [{ action: 'drop', protocol: 'icmpv6', source: '10.0.0.1' }, ['protocol'], /icmpv6 does not occur with IPv4/],
    [7, [], /^rules\[1\]: 7 is not a rule; allowed: an object, or a line like/],
    [null, [], /null is not a rule/],
    ['', [], /^rules\[1\]: action: "" is not valid; allowed: accept/],
    ['acept tcp name web', [], /^rules\[1\] "web": action: "acept" is not valid; allowed: accept, drop or reset$/],
    ['accept output', [], /protocol: "output" is not valid/],
    ['accept tcp from', [], /source: nothing follows "from"/],
    ['accept from to ::1', [], /source: nothing follows "from"/],
    ['accept to ::1 to ::2', [], /destination: given twice/],
    ['accept tcp udp', [], /"udp" cannot stand here; allowed: ACTION \[PROTOCOL\]/],
    ['accept in out', [], /"out" cannot stand here/],
    ['accept port 80', [], /"port" cannot stand here/],
    ['accept to port 80-', [], /destinationPort: "80-" is not valid; allowed: any, a number 0-65535/],
    ['accept icmp to port 80', [], /destinationPort: protocol icmp has no ports/],
  ]
  for (const [config, path, message] of cases) {
    test(JSON.stringify(config), () => {
      const schema = z.object({ rules: rulesSchema })
      const result = schema.safeParse({ rules: ['accept', config] })
      assert.equal(result.success, false)
      assert.deepEqual(result.error?.issues[0].path, ['rules', 1, ...path])
      assert.match(result.error?.issues[0].message ?? '', message)
      assert.throws(() => parseRules(['accept', config as RuleConfig]), (error) =>
        error instanceof CodedError && error.code === 'NF_CONFIG_INVALID' && message.test(error.message))
    })
  }

  test('every mistake is told, not just the first', () => {
    const result = rulesSchema.safeParse(['acept', { action: 'drop', vlan: 0, source: '1', sourcePort: ['x', 1, 'y'] }])
    const paths = result.error?.issues.map(({ path }) => path.join('.'))
    assert.deepEqual(paths, ['0', '1.source', '1.sourcePort', '1.sourcePort', '1.vlan'])
  })

  test('what is no list at all', () => {
    assert.equal(rulesSchema.safeParse('accept').success, false)
    assert.equal(rulesSchema.safeParse(undefined).success, false)
  })
})

test('the schema describes itself for editors and can be defaulted', () => {
  const schema = z.object({ rules: rulesSchema.default([]) })
  assert.deepEqual(schema.parse({}), { rules: [] })
  const text = JSON.stringify(z.toJSONSchema(schema, { io: 'input' }))
  for (const word of ['"destinationPort"', '"enum":["accept","drop","reset"]', 'a network like 10.0.0.0/8']) {
    assert.ok(text.includes(word), word)
  }
})

describe('against the address functions of Node.js', () => {
  test('the same texts are addresses', () => {
    const random = new Random(1)
    const starts = [
      '192.0.2.1', '10.255.0.99', '::', '::1', '1::8', '2001:db8::1', '1:2:3:4:5:6:7:8', '::ffff:1.2.3.4',
      '1:2:3:4:5:6:7.8.9.10',
    ]
    const count = { valid: 0, invalid: 0 }
    for (let i = 0; i < 20_000; i++) {
      const text = [...random.pick(starts)]
      for (let n = random.below(4); n > 0; n--) {
        const added = random.chance(0.7) ? [random.pick([...'0125:.af'])] : []
        text.splice(random.below(text.length + 1), random.below(3), ...added)
      }
      const source = text.join('')
      const expected = isIPv4(source) || isIPv6(source)
      count[expected ? 'valid' : 'invalid']++
      assert.equal(rulesSchema.safeParse([{ action: 'drop', source }]).success, expected, source)
    }
    assert.ok(count.valid > 3000 && count.invalid > 3000, JSON.stringify(count))
  })

  test('the same addresses are in a network', () => {
    const random = new Random(2)
    const text = (version: 4 | 6, words: readonly number[]): string => version === 4
      ? [24, 16, 8, 0].map((shift) => (words[0] >>> shift) & 255).join('.')
      : words.flatMap((word) => [(word >>> 16).toString(16), (word & 0xffff).toString(16)]).join(':')
    let hits = 0
    for (let i = 0; i < 600; i++) {
      const version = random.pick([4, 6] as const)
      const bits = version === 4 ? 32 : 128
      const length = random.between(0, bits)
      const address = Array.from({ length: bits / 32 }, () => random.int32())
      const network = address.map((word, level) => {
        const kept = Math.max(0, Math.min(32, length - level * 32))
        return kept === 0 ? 0 : (word >> (32 - kept)) << (32 - kept)
      })
      if (random.chance(0.6)) address[random.below(bits / 32)] ^= 1 << random.below(32)
      const list = new BlockList()
      list.addSubnet(text(version, network), length, version === 4 ? 'ipv4' : 'ipv6')
      const set = new RuleSet(parseRules([`drop from ${text(version, network)}/${length}`]))
      const [word0, word1 = 0, word2 = 0, word3 = 0] = address
      const found = set.match(version, word0, word1, word2, word3, 0, 0, 0, 0, 0, 0, 47, -1, 0) === 0
      assert.equal(found, list.check(text(version, address), version === 4 ? 'ipv4' : 'ipv6'),
        `${text(version, address)} in ${text(version, network)}/${length}`)
      if (found) hits++
    }
    assert.ok(hits > 150 && hits < 550, `${hits} hits`)
  })
})
