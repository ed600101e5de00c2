import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { CodedError } from '../../base/coded-error.ts'
import { Random } from '../../base/random.ts'
import { LinearRuleSet } from './linear-rule-set.ts'
import { disturbPacket, PACKET_WORDS, randomRules, ruleKinds, writePacket } from './random-rules.ts'
import { prefixWord, RuleAction, type AddressPrefix, type NumberRange, type Rule } from './rule.ts'
import { prefixMask } from '../../wire/address-text.ts'
import { RuleSet } from './rule-set.ts'

const anything: Rule = {
  name: '', action: RuleAction.Drop, sources: null, destinations: null, sourcePorts: null, destinationPorts: null,
  protocols: null, vlans: null, direction: null,
}

function matchPacket(set: RuleSet | LinearRuleSet, packets: ArrayLike<number>, at = 0): number {
  return set.match(packets[at] as 4 | 6, packets[at + 1], packets[at + 2], packets[at + 3], packets[at + 4],
    packets[at + 5], packets[at + 6], packets[at + 7], packets[at + 8], packets[at + 9], packets[at + 10],
    packets[at + 11], packets[at + 12], packets[at + 13] as 0 | 1)
}

function assertSame(rules: readonly Rule[], packets: Int32Array, what: string): Map<number, number> {
  const ruleSet = new RuleSet(rules)
  const linear = new LinearRuleSet(rules)
  const counts = new Map<number, number>()
  for (let at = 0; at < packets.length; at += PACKET_WORDS) {
    const expected = matchPacket(linear, packets, at)
    const found = matchPacket(ruleSet, packets, at)
    if (found !== expected) {
      assert.equal(found, expected, `${what}, packet ${packets.subarray(at, at + PACKET_WORDS).join(' ')}`)
    }
    counts.set(found, (counts.get(found) ?? 0) + 1)
  }
  return counts
}

function ipv4(a: number, b: number, c: number, d: number, length = 32): AddressPrefix {
  const word0 = (a << 24) | (b << 16) | (c << 8) | d
  return { version: 4, word0, word1: 0, word2: 0, word3: 0, length }
}

function ipv6(word0: number, word1: number, word2: number, word3: number, length = 128): AddressPrefix {
  return { version: 6, word0: word0 | 0, word1: word1 | 0, word2: word2 | 0, word3: word3 | 0, length }
}

const one = (value: number): NumberRange => ({ low: value, high: value })

interface PacketFields {
  source?: AddressPrefix
  destination?: AddressPrefix
  sourcePort?: number
  destinationPort?: number
  protocol?: number
  vlan?: number
  direction?: 0 | 1
}

function packet(fields: PacketFields): number[] {
  const source = fields.source ?? ipv4(10, 0, 0, 1)
  const destination = fields.destination ?? (source.version === 4 ? ipv4(192, 0, 2, 1) : ipv6(0x20010db8, 0, 0, 1))
  return [
    source.version, source.word0, source.word1, source.word2, source.word3, destination.word0, destination.word1,
    destination.word2, destination.word3, fields.sourcePort ?? 40_000, fields.destinationPort ?? 80,
    fields.protocol ?? 6, fields.vlan ?? -1, fields.direction ?? 0,
  ]
}

for (const Set of [RuleSet, LinearRuleSet]) {
  describe(`${Set.name}, by hand`, () => {
    const check = (rule: Partial<Rule>, fields: PacketFields, expected: boolean): void => {
      const set = new Set([{ ...anything, ...rule }])
      assert.equal(matchPacket(set, packet(fields)), expected ? 0 : -1, JSON.stringify({ rule, fields }))
    }

    test('no rule matches nothing, a rule without constraints everything', () => {
      assert.equal(matchPacket(new Set([]), packet({})), -1)
      assert.equal(matchPacket(new Set([]), packet({ source: ipv6(1, 2, 3, 4) })), -1)
      check({}, {}, true)
      check({}, { source: ipv6(-1, -1, -1, -1), protocol: 255, vlan: 4095, direction: 1 }, true)
    })

    test('the first of several matching rules wins', () => {
      const host = { ...anything, sources: [ipv4(10, 0, 0, 1)] }
      const network = { ...anything, sources: [ipv4(10, 0, 0, 0, 8)] }
      assert.equal(matchPacket(new Set([network, host]), packet({})), 0)
      assert.equal(matchPacket(new Set([host, network]), packet({})), 0)
      assert.equal(matchPacket(new Set([host, network]), packet({ source: ipv4(10, 0, 0, 2) })), 1)
    })

    test('addresses compare as unsigned numbers, at both ends of a prefix', () => {
      const upper = { sources: [ipv4(128, 0, 0, 0, 1)] }
      check(upper, { source: ipv4(127, 255, 255, 255) }, false)
      check(upper, { source: ipv4(128, 0, 0, 0) }, true)
      check(upper, { source: ipv4(255, 255, 255, 255) }, true)
      check({ destinations: [ipv4(0, 0, 0, 0, 1)] }, { destination: ipv4(128, 0, 0, 0) }, false)
      check({ destinations: [ipv4(255, 255, 255, 255)] }, { destination: ipv4(255, 255, 255, 255) }, true)
      check({ destinations: [ipv4(255, 255, 255, 255)] }, { destination: ipv4(255, 255, 255, 254) }, false)
      const middle = { sources: [ipv6(0x20010db8, 0, 0x80000000, 0, 65)] }
      check(middle, { source: ipv6(0x20010db8, 0, 0x80000000, 0) }, true)
      check(middle, { source: ipv6(0x20010db8, 0, -1, -1) }, true)
      check(middle, { source: ipv6(0x20010db8, 0, 0x7fffffff, -1) }, false)
      check(middle, { source: ipv6(0x20010db8, 1, 0x80000000, 0) }, false)
      check({ sources: [ipv6(-1, -1, -1, -1)] }, { source: ipv6(-1, -1, -1, -1) }, true)
      check({ sources: [ipv6(-1, -1, -1, -1)] }, { source: ipv6(-1, -1, -1, -2) }, false)
    })

    test('an address constrains the family', () => {
      check({ sources: [ipv4(0, 0, 0, 0, 0)] }, { source: ipv4(1, 2, 3, 4) }, true)
      check({ sources: [ipv4(0, 0, 0, 0, 0)] }, { source: ipv6(0, 0, 0, 1) }, false)
      check({ destinations: [ipv6(0, 0, 0, 0, 0)] }, {}, false)
      check({ destinations: [ipv6(0, 0, 0, 0, 0)] }, { source: ipv6(0, 0, 0, 1) }, true)
      const both = { sources: [ipv4(10, 0, 0, 0, 8), ipv6(0x20010db8, 0, 0, 0, 32)] }
      check(both, {}, true)
      check(both, { source: ipv6(0x20010db8, 7, 7, 7) }, true)
      check({ ...both, destinations: [ipv4(0, 0, 0, 0, 0)] }, { source: ipv6(0x20010db8, 7, 7, 7) }, false)
    })

    test('a port constrains the protocol', () => {
      for (const protocol of [6, 17, 33, 132, 136]) check({ destinationPorts: [one(80)] }, { protocol }, true)
      for (const protocol of [0, 1, 2, 47, 50, 58, 255]) check({ destinationPorts: [one(80)] }, { protocol }, false)
      check({ sourcePorts: [{ low: 0, high: 65_535 }] }, { protocol: 1 }, false)
      check({ sourcePorts: [one(40_000)], protocols: [1, 6] }, { protocol: 1 }, false)
      check({ sourcePorts: [one(40_000)], protocols: [1, 6] }, { protocol: 6 }, true)
      check({ protocols: [1] }, { protocol: 1, sourcePort: 0, destinationPort: 0 }, true)
    })

    test('port ranges include both ends', () => {
      const rule = { destinationPorts: [{ low: 1000, high: 1999 }, one(65_535)] }
      for (const [destinationPort, expected] of [
        [999, false], [1000, true], [1999, true], [2000, false], [65_534, false], [65_535, true], [0, false],
      ] as const) check(rule, { destinationPort }, expected)
    })

    test('VLAN: none, one, some', () => {
      check({ vlans: [one(-1)] }, { vlan: -1 }, true)
      check({ vlans: [one(-1)] }, { vlan: 0 }, false)
      check({ vlans: [one(7)] }, { vlan: -1 }, false)
      check({ vlans: [one(-1), { low: 7, high: 4095 }] }, { vlan: 4095 }, true)
      check({ vlans: [one(-1), { low: 7, high: 4095 }] }, { vlan: 6 }, false)
    })

    test('direction', () => {
      check({ direction: 0 }, { direction: 0 }, true)
      check({ direction: 0 }, { direction: 1 }, false)
      check({ direction: 1 }, { direction: 1 }, true)
      check({ direction: 1, protocols: [47] }, { direction: 1, protocol: 47 }, true)
      check({ direction: 1, protocols: [47] }, { direction: 0, protocol: 47 }, false)
    })
  })
}

/** Rules over so few values that they overlap, nest and touch all the time, at the edges of the number lines too. */
class SmallUniverse {
  readonly #random: Random
  readonly #words: readonly number[]

  constructor(random: Random) {
    this.#random = random
    this.#words = [0, -1, 0x7fffffff, 0x80000000 | 0, 0x0a000000, 0x0a000001, random.int32(), random.int32()]
  }

  word(): number {
    const random = this.#random
    return random.pick(this.#words) ^ (random.chance(0.5) ? 0 : 1 << random.below(32))
  }

  port(): number {
    return this.#random.pick([0, 1, 2, 255, 256, 257, 32_767, 32_768, 65_534, 65_535])
  }

  vlan(): number {
    return this.#random.pick([-1, 0, 1, 2, 254, 255, 256, 4094, 4095])
  }

  list<T>(anyChance: number, one: () => T): T[] | null {
    if (this.#random.chance(anyChance)) return null
    return Array.from({ length: this.#random.chance(0.6) ? 1 : this.#random.between(2, 6) }, one)
  }

  range(value: () => number): NumberRange {
    const ends = [value(), value()].sort((a, b) => a - b)
    return this.#random.chance(0.5) ? { low: ends[0], high: ends[0] } : { low: ends[0], high: ends[1] }
  }

  prefix(versions: ReadonlyArray<4 | 6>): AddressPrefix {
    const random = this.#random
    const version = random.pick(versions)
    const length = random.chance(0.3) ? random.pick([0, 1, 8, 31, 32]) : random.between(0, version === 4 ? 32 : 128)
    const word = (level: number): number =>
      version === 4 && level > 0 ? 0 : this.word() & prefixMask(length, level)
    return { version, word0: word(0), word1: word(1), word2: word(2), word3: word(3), length }
  }

  rule(): Rule {
    const random = this.#random
    const versions = random.pick([[4], [6], [4, 6]] as const)
    const anyChance = random.pick([0.1, 0.5, 0.8])
    return {
      ...anything,
      sources: this.list(anyChance, () => this.prefix(versions)),
      destinations: this.list(anyChance, () => this.prefix(versions)),
      sourcePorts: this.list(anyChance, () => this.range(() => this.port())),
      destinationPorts: this.list(anyChance, () => this.range(() => this.port())),
      protocols: this.list(anyChance, () => random.pick([0, 1, 6, 17, 58, 132, 255])),
      vlans: this.list(Math.max(0.5, anyChance), () => this.range(() => this.vlan())),
      direction: random.pick([null, null, 0, 1]),
    }
  }

  /** Half anything, half at the edge of what some rule covers. */
  packets(rules: readonly Rule[], count: number): Int32Array {
    const random = this.#random
    const packets = new Int32Array(count * PACKET_WORDS)
    const address = (list: readonly AddressPrefix[] | null | undefined, version: 4 | 6): number[] => {
      const own = list?.filter((prefix) => prefix.version === version) ?? []
      const prefix = own.length > 0 ? random.pick(own) : this.prefix([version])
      const fill = random.pick([0, -1, this.word()])
      const words = [0, 1, 2, 3].map((level) =>
        version === 4 && level > 0 ? 0 : prefixWord(prefix, level) | (fill & ~prefixMask(prefix.length, level)))
      if (random.chance(0.2)) {
        const level = version === 4 ? 0 : random.below(4)
        words[level] = (words[level] + random.pick([-1, 1])) | 0
      }
      return words
    }
    const number = (ranges: readonly NumberRange[] | null | undefined, low: number, high: number, any: number) => {
      if (!ranges) return any
      const range = random.pick(ranges)
      const value = random.pick([range.low - 1, range.low, range.low, range.high, range.high + 1])
      return Math.max(low, Math.min(high, value))
    }
    for (let at = 0; at < packets.length; at += PACKET_WORDS) {
      const version = random.pick([4, 6] as const)
      const rule = rules.length > 0 && random.chance(0.7) ? random.pick(rules) : undefined
      packets.set([
        version, ...address(rule?.sources, version), ...address(rule?.destinations, version),
        number(rule?.sourcePorts, 0, 65_535, this.port()), number(rule?.destinationPorts, 0, 65_535, this.port()),
        random.pick(rule?.protocols ?? [0, 1, 6, 17, 58, 132, 255]), number(rule?.vlans, -1, 4095, this.vlan()),
        rule?.direction ?? random.below(2),
      ], at)
    }
    return packets
  }
}

describe('RuleSet finds what the list walk finds', () => {
  test('in small universes, from no rule to some blocks of them', () => {
    const found = { first: 0, later: 0, none: 0 }
    for (const count of [0, 1, 2, 3, 31, 32, 33, 64, 127, 128, 129, 160, 500, 1024, 1025, 2200]) {
      for (let seed = 1; seed <= (count < 500 ? 6 : 1); seed++) {
        const universe = new SmallUniverse(new Random(seed * 10_000 + count))
        const rules = Array.from({ length: count }, () => universe.rule())
        const counts = assertSame(rules, universe.packets(rules, 400), `${count} rules, seed ${seed}`)
        for (const [rule, times] of counts) found[rule < 0 ? 'none' : rule === 0 ? 'first' : 'later'] += times
      }
    }
    for (const [where, times] of Object.entries(found)) assert.ok(times > 1000, `${where} only ${times} times`)
  })

  test('with narrow rules only, so that late ones are found, too', () => {
    for (let seed = 1; seed <= 3; seed++) {
      const random = new Random(seed)
      const universe = new SmallUniverse(random)
      const rules = Array.from({ length: 1500 }, (): Rule => ({
        ...universe.rule(), sourcePorts: [one(random.below(2000))], protocols: [6],
      }))
      const counts = assertSame(rules, universe.packets(rules, 3000), `seed ${seed}`)
      assert.ok([...counts.keys()].some((rule) => rule > 1200))
    }
  })

  test('when the better of two matches stands in a later block', () => {
    // Bits are grouped by the dimension that a rule is narrow in: sources, destinations, then ports.
    const rules = Array.from({ length: 3072 }, (_, index): Rule => {
      if (index >= 2048) return { ...anything, destinations: [ipv4(10, 1, index >> 8, index & 255)] }
      if (index >= 1 && index <= 1024) return { ...anything, destinationPorts: [one(index)] }
      return { ...anything, sources: [ipv4(10, 0, index >> 8, index & 255)] }
    })
    const set = new RuleSet(rules)
    const source = ipv4(10, 0, 1500 >> 8, 1500 & 255)
    const destination = ipv4(10, 1, 2500 >> 8, 2500 & 255)
    assert.equal(matchPacket(set, packet({ source, destination, destinationPort: 5 })), 5)
    assert.equal(matchPacket(set, packet({ source, destination, destinationPort: 5000 })), 1500)
    assert.equal(matchPacket(set, packet({ source, destination, destinationPort: 5, protocol: 1 })), 1500)
    assert.equal(matchPacket(set, packet({ destination, destinationPort: 5000 })), 2500)
  })

  test('with lists so long that few rules have interval tables', () => {
    for (const version of [4, 6] as const) {
      const random = new Random(version)
      const universe = new SmallUniverse(random)
      const rules = Array.from({ length: 5 }, (): Rule => ({
        ...anything,
        sources: Array.from({ length: 700 }, () => ({
          version, word0: random.below(40) << 24, word1: 0, word2: version === 6 ? random.below(9) : 0,
          word3: version === 6 ? random.int32() : 0, length: version === 6 ? 128 : 32,
        })).map((prefix) => version === 4 ? { ...prefix, word0: prefix.word0 | random.below(5000) } : prefix),
        destinations: [universe.prefix([version])],
      }))
      const counts = assertSame(rules, universe.packets(rules, 4000), `IPv${version}`)
      assert.ok(counts.size >= 4, `only ${counts.size} different results`)
    }
  })

  for (const kind of ruleKinds) {
    test(`with 10,000 ${kind} rules of both families`, () => {
      const random = new Random(10_000)
      const rules = randomRules(random, 10_000, kind, [4, 6])
      const packets = new Int32Array((kind === 'firewall' ? 20_000 : 3000) * PACKET_WORDS)
      for (let at = 0; at < packets.length; at += PACKET_WORDS) {
        const rule = random.pick(rules)
        const version = (rule.sources ?? rule.destinations)?.[0].version ?? random.pick([4, 6])
        writePacket(random, rule, version, packets, at)
        while (random.chance(0.4)) disturbPacket(random, packets, at)
      }
      const counts = assertSame(rules, packets, kind)
      assert.ok((counts.get(-1) ?? 0) > 150, 'some packets match nothing')
      assert.ok(counts.size > 800, 'many different rules match')
    })
  }
})

describe('RuleSet stays small', () => {
  const ranges = (count: number): Rule[] => {
    const random = new Random(count)
    return Array.from({ length: count }, () => {
      const low = random.below(30_000)
      return { ...anything, destinationPorts: [{ low, high: low + random.below(30_000) }] }
    })
  }

  test('memory follows the number of rules, not its square, when everything overlaps', () => {
    const bytes = [2048, 4096, 8192].map((count) => new RuleSet(ranges(count)).memoryBytes)
    for (let i = 1; i < bytes.length; i++) assert.ok(bytes[i] < bytes[i - 1] * 3, `${bytes.join(', ')} bytes`)
  })

  test('equal parts are stored once: under 700 bytes per realistic rule', () => {
    for (const kind of ruleKinds) {
      const bytes = new RuleSet(randomRules(new Random(5), 5000, kind, [4])).memoryBytes
      assert.ok(bytes < 5000 * 700, `${kind}: ${bytes} bytes`)
    }
  })

  test('a set that would exceed the memory allowed is refused', () => {
    assert.throws(() => new RuleSet(ranges(4096), 1024 * 1024), (error) =>
      error instanceof CodedError && error.code === 'NF_LIMIT' && error.message.includes('1 MiB'))
  })

  test('match does not allocate', () => {
    const random = new Random(3)
    const rules = randomRules(random, 2000, 'firewall', [4, 6])
    const set = new RuleSet(rules)
    const packets = new Int32Array(500 * PACKET_WORDS)
    for (let at = 0; at < packets.length; at += PACKET_WORDS) {
      const rule = random.pick(rules)
      writePacket(random, rule, (rule.sources ?? rule.destinations)?.[0].version ?? 4, packets, at)
    }
    const run = (times: number): void => {
      for (let i = 0; i < times; i++) {
        for (let at = 0; at < packets.length; at += PACKET_WORDS) matchPacket(set, packets, at)
      }
    }
    run(100)
    const before = process.memoryUsage().heapUsed
    run(200)
    const perMatch = (process.memoryUsage().heapUsed - before) / (200 * 500)
    assert.ok(perMatch < 4, `${perMatch} bytes per match`)
  })
})
