/**
 * The obvious rule set: walk the list from the top, stop at the first match.
 *
 * It is the oracle that tests hold `RuleSet` against, and the baseline of its bench; so it is written to be fast too
 * (joining the comparisons of a line without branches was tried: slower). Every rule becomes one line of numbers per
 * combination of its list entries, as in iptables, and per address family:
 *
 *     index | protocol | source ports | destination ports | VLANs | direction | source | destination
 *             -1 any     low high       low high            low high  -1 any      mask value per address word
 *             -2 any with ports
 *
 * A rule with long lists becomes many lines: use this class for tests only.
 */

import {
  prefixWord, protocolHasPorts, type AddressPrefix, type NumberRange, type Rule,
} from './rule.ts'
import { prefixMask } from '../../wire/address-text.ts'

const IPV4_LINE_WORDS = 13
const IPV6_LINE_WORDS = 25
const ANY_PROTOCOL = -1
const ANY_PROTOCOL_WITH_PORTS = -2
const ANY_DIRECTION = -1

export class LinearRuleSet {
  /** Number of rules. */
  readonly count: number
  readonly memoryBytes: number
  readonly #ipv4: Int32Array
  readonly #ipv6: Int32Array

  constructor(rules: readonly Rule[]) {
    this.count = rules.length
    this.#ipv4 = makeLines(rules, 4)
    this.#ipv6 = makeLines(rules, 6)
    this.memoryBytes = this.#ipv4.byteLength + this.#ipv6.byteLength
  }

  /** As `RuleSet.match`. */
  match(
    version: 4 | 6,
    source0: number, source1: number, source2: number, source3: number,
    destination0: number, destination1: number, destination2: number, destination3: number,
    sourcePort: number, destinationPort: number, protocol: number, vlan: number, direction: 0 | 1,
  ): number {
    if (version === 4) {
      const lines = this.#ipv4
      for (let at = 0; at < lines.length; at += IPV4_LINE_WORDS) {
        if (((source0 ^ lines[at + 10]) & lines[at + 9]) === 0 &&
            ((destination0 ^ lines[at + 12]) & lines[at + 11]) === 0 &&
            lineMatches(lines, at, sourcePort, destinationPort, protocol, vlan, direction)) return lines[at]
      }
      return -1
    }
    const lines = this.#ipv6
    for (let at = 0; at < lines.length; at += IPV6_LINE_WORDS) {
      if (((source0 ^ lines[at + 10]) & lines[at + 9]) === 0 &&
          ((source1 ^ lines[at + 12]) & lines[at + 11]) === 0 &&
          ((source2 ^ lines[at + 14]) & lines[at + 13]) === 0 &&
          ((source3 ^ lines[at + 16]) & lines[at + 15]) === 0 &&
          ((destination0 ^ lines[at + 18]) & lines[at + 17]) === 0 &&
          ((destination1 ^ lines[at + 20]) & lines[at + 19]) === 0 &&
          ((destination2 ^ lines[at + 22]) & lines[at + 21]) === 0 &&
          ((destination3 ^ lines[at + 24]) & lines[at + 23]) === 0 &&
          lineMatches(lines, at, sourcePort, destinationPort, protocol, vlan, direction)) return lines[at]
    }
    return -1
  }
}

function lineMatches(
  lines: Int32Array, at: number, sourcePort: number, destinationPort: number, protocol: number, vlan: number,
  direction: number,
): boolean {
  const wanted = lines[at + 1]
  return (wanted === protocol || wanted === ANY_PROTOCOL ||
      (wanted === ANY_PROTOCOL_WITH_PORTS && protocolHasPorts(protocol))) &&
    sourcePort >= lines[at + 2] && sourcePort <= lines[at + 3] &&
    destinationPort >= lines[at + 4] && destinationPort <= lines[at + 5] &&
    vlan >= lines[at + 6] && vlan <= lines[at + 7] &&
    (lines[at + 8] === direction || lines[at + 8] === ANY_DIRECTION)
}

function makeLines(rules: readonly Rule[], version: 4 | 6): Int32Array {
  const anyAddress: AddressPrefix[] = [{ version, word0: 0, word1: 0, word2: 0, word3: 0, length: 0 }]
  const anyPort: NumberRange[] = [{ low: 0, high: 65_535 }]
  const anyVlan: NumberRange[] = [{ low: -1, high: 4095 }]
  const words: number[] = []
  const addAddress = (prefix: AddressPrefix): void => {
    for (let level = 0; level < (version === 4 ? 1 : 4); level++) {
      words.push(prefixMask(prefix.length, level), prefixWord(prefix, level))
    }
  }
  rules.forEach((rule, index) => {
    const namesPorts = rule.sourcePorts !== null || rule.destinationPorts !== null
    const any = namesPorts ? ANY_PROTOCOL_WITH_PORTS : ANY_PROTOCOL
    const protocols = rule.protocols?.filter((one) => !namesPorts || protocolHasPorts(one)) ?? [any]
    const sources = (rule.sources ?? anyAddress).filter((prefix) => prefix.version === version)
    const destinations = (rule.destinations ?? anyAddress).filter((prefix) => prefix.version === version)
    for (const source of sources) {
      for (const destination of destinations) {
        for (const from of rule.sourcePorts ?? anyPort) {
          for (const to of rule.destinationPorts ?? anyPort) {
            for (const vlans of rule.vlans ?? anyVlan) {
              for (const protocol of protocols) {
                words.push(index, protocol, from.low, from.high, to.low, to.high, vlans.low, vlans.high)
                words.push(rule.direction ?? ANY_DIRECTION)
                addAddress(source)
                addAddress(destination)
              }
            }
          }
        }
      }
    }
  })
  return Int32Array.from(words)
}
