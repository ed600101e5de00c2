/**
 * Time per match of the firewall's rule set against the list walk: `node bench/rule-set-bench.ts`
 *
 * Realistic sets of three kinds (see `random-rules.ts`) in four sizes, for IPv4 and IPv6, each with packets that match
 * early (first tenth of the rules), late (last tenth) or not at all; then sets made to be hard. 1,024 different packets
 * per figure from a fixed seed, so that branch predictors do not learn them by heart (the long lists are timed on the
 * first 64 of them). Before any time counts, both variants must give the same digest of the rules found for all.
 * Medians; the ratio is the claim, nanoseconds are information and include the loop and the call.
 */

import assert from 'node:assert/strict'
import { performance } from 'node:perf_hooks'
import { setEngineFlags } from '../src/process/engine-flags.ts'
import { Random } from '../src/base/random.ts'
import { LinearRuleSet } from '../src/nfs/firewall/linear-rule-set.ts'
import {
  disturbPacket, PACKET_WORDS, randomRules, ruleKinds, writePacket,
} from '../src/nfs/firewall/random-rules.ts'
import { RuleSet } from '../src/nfs/firewall/rule-set.ts'
import { RuleAction, type AddressPrefix, type NumberRange, type Rule } from '../src/nfs/firewall/rule.ts'
import { prefixMask } from '../src/wire/address-text.ts'

const PACKETS = 1024
const LONG_LIST_PACKETS = 64
const SAMPLES = 15
const SAMPLE_NS_MIN = 400_000

// PERF: one loop per class, so that each call site sees one shape.
function runRuleSet(set: RuleSet, packets: Int32Array): number {
  let digest = 0
  for (let at = 0; at < packets.length; at += PACKET_WORDS) {
    const rule = set.match(packets[at] as 4 | 6, packets[at + 1], packets[at + 2], packets[at + 3], packets[at + 4],
      packets[at + 5], packets[at + 6], packets[at + 7], packets[at + 8], packets[at + 9], packets[at + 10],
      packets[at + 11], packets[at + 12], packets[at + 13] as 0 | 1)
    digest = (Math.imul(digest, 31) + rule) | 0
  }
  return digest
}

function runLinearRuleSet(set: LinearRuleSet, packets: Int32Array): number {
  let digest = 0
  for (let at = 0; at < packets.length; at += PACKET_WORDS) {
    const rule = set.match(packets[at] as 4 | 6, packets[at + 1], packets[at + 2], packets[at + 3], packets[at + 4],
      packets[at + 5], packets[at + 6], packets[at + 7], packets[at + 8], packets[at + 9], packets[at + 10],
      packets[at + 11], packets[at + 12], packets[at + 13] as 0 | 1)
    digest = (Math.imul(digest, 31) + rule) | 0
  }
  return digest
}

interface Result {
  readonly ruleSetNs: number
  readonly linearNs: number
}

/** Medians of both, sampled in turns. */
function compare(ruleSet: RuleSet, linear: LinearRuleSet, packets: Int32Array): Result {
  assert.equal(runRuleSet(ruleSet, packets), runLinearRuleSet(linear, packets), 'the variants disagree')
  const fewer = linear.count > 1000 ? packets.subarray(0, LONG_LIST_PACKETS * PACKET_WORDS) : packets
  const runs = [() => runRuleSet(ruleSet, packets), () => runLinearRuleSet(linear, fewer)]
  const packetCounts = [packets.length / PACKET_WORDS, fewer.length / PACKET_WORDS]
  const repeats = runs.map((run) => {
    run()
    const start = performance.now()
    run()
    return Math.ceil(SAMPLE_NS_MIN / ((performance.now() - start) * 1e6))
  })
  const times: number[][] = [[], []]
  for (let sample = 0; sample < SAMPLES; sample++) {
    runs.forEach((run, which) => {
      const start = performance.now()
      for (let i = 0; i < repeats[which]; i++) run()
      times[which].push((performance.now() - start) * 1e6 / repeats[which] / packetCounts[which])
    })
  }
  const [ruleSetNs, linearNs] = times.map((list) => list.sort((a, b) => a - b)[SAMPLES >> 1])
  return { ruleSetNs, linearNs }
}

/** Packets whose first match lies in `low..high` (-1: none). */
function packetsMatching(
  random: Random, rules: readonly Rule[], set: RuleSet, version: 4 | 6, low: number, high: number,
): Int32Array {
  const packets = new Int32Array(PACKETS * PACKET_WORDS)
  for (let at = 0; at < packets.length;) {
    writePacket(random, low < 0 ? random.pick(rules) : rules[random.between(low, high)], version, packets, at)
    while (low < 0 && random.chance(0.7)) disturbPacket(random, packets, at)
    const one = packets.subarray(at, at + PACKET_WORDS)
    const found = set.match(one[0] as 4 | 6, one[1], one[2], one[3], one[4], one[5], one[6], one[7], one[8], one[9],
      one[10], one[11], one[12], one[13] as 0 | 1)
    if (found >= low && found <= high) at += PACKET_WORDS
  }
  return packets
}

function show({ ruleSetNs, linearNs }: Result): string {
  return `${(linearNs / ruleSetNs).toFixed(1).padStart(7)} (${ruleSetNs.toFixed(0).padStart(4)} ns)`
}

function benchRealisticSets(): void {
  console.log('List walk / rule set, and time of the rule set, by where the packet matches')
  console.log('kind      family  rules          early           late           none     build      memory')
  for (const kind of ruleKinds) {
    for (const version of [4, 6] as const) {
      for (const count of [10, 50, 1000, 10_000]) {
        const random = new Random(count + version)
        const rules = randomRules(random, count, kind, [version])
        const start = performance.now()
        const ruleSet = new RuleSet(rules)
        const buildMs = performance.now() - start
        const linear = new LinearRuleSet(rules)
        const tenth = Math.ceil(count / 10)
        const cells = [[0, tenth - 1], [count - tenth, count - 1], [-1, -1]].map(([low, high]) =>
          show(compare(ruleSet, linear, packetsMatching(random, rules, ruleSet, version, low, high))))
        console.log(`${kind.padEnd(10)}IPv${version}  ${String(count).padStart(7)}${cells.join('')}` +
          `${buildMs.toFixed(0).padStart(6)} ms${(ruleSet.memoryBytes / 1024).toFixed(0).padStart(8)} KiB`)
      }
    }
  }
}

const anything: Rule = {
  name: '', action: RuleAction.Drop, sources: null, destinations: null, sourcePorts: null, destinationPorts: null,
  protocols: null, vlans: null, direction: null,
}

function prefix(word: number, length: number): AddressPrefix[] {
  return [{ version: 4, word0: word & prefixMask(length, 0), word1: 0, word2: 0, word3: 0, length }]
}

function rangeOf(random: Random, width: number): NumberRange[] {
  const low = random.below(65_536 - width)
  return [{ low, high: low + random.below(width) }]
}

/** Sets that break one or the other classifier, by rule index. */
const hardSets: Readonly<Record<string, (random: Random, index: number) => Rule>> = {
  'any source, nested destinations': (random) => ({
    ...anything, destinations: prefix(random.int32(), random.between(1, 32)), destinationPorts: rangeOf(random, 500),
  }),
  'small ranges in both ports': (random) => ({
    ...anything, sourcePorts: rangeOf(random, 500), destinationPorts: rangeOf(random, 500),
  }),
  'large ranges in both ports': (random) => ({
    ...anything, sourcePorts: rangeOf(random, 30_000), destinationPorts: rangeOf(random, 30_000),
  }),
  'lines that cross': (_, index) => index % 2 === 0
    ? { ...anything, sourcePorts: [{ low: index * 6, high: index * 6 }] }
    : { ...anything, destinationPorts: [{ low: index * 6, high: index * 6 }] },
  'wide everywhere, never matching': (_, index) => [
    { ...anything, sources: prefix(0x80000000, 1) },
    { ...anything, destinations: prefix(0x80000000, 1) },
    { ...anything, sourcePorts: [{ low: 32_768, high: 65_535 }] },
    { ...anything, destinationPorts: [{ low: 32_768, high: 65_535 }] },
  ][index % 4],
  'every rule matches': () => anything,
}

function benchHardSets(): void {
  console.log('\n10,000 IPv4 rules made to be hard')
  for (const [name, makeRule] of Object.entries(hardSets)) {
    const random = new Random(1)
    const rules = Array.from({ length: 10_000 }, (_, index) => makeRule(random, index))
    const start = performance.now()
    const ruleSet = new RuleSet(rules)
    const buildMs = performance.now() - start
    const packets = new Int32Array(PACKETS * PACKET_WORDS)
    for (let at = 0; at < packets.length; at += PACKET_WORDS) {
      writePacket(random, random.pick(rules), 4, packets, at)
      if (name !== 'wide everywhere, never matching') continue
      packets[at + 1] &= 0x7fffffff
      packets[at + 5] &= 0x7fffffff
      packets[at + 9] &= 0x7fff
      packets[at + 10] &= 0x7fff
    }
    console.log(`${name.padEnd(34)}${show(compare(ruleSet, new LinearRuleSet(rules), packets))}` +
      `${buildMs.toFixed(0).padStart(6)} ms${(ruleSet.memoryBytes / 1024).toFixed(0).padStart(8)} KiB`)
  }
}

// As the runtime does, before anything is compiled.
setEngineFlags()
benchRealisticSets()
benchHardSets()
