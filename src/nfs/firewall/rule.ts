/**
 * A firewall rule in normal form: what `rule-config.ts` makes of a configuration, and what rule sets are built from.
 *
 * A rule constrains source and destination address, source and destination port, protocol, VLAN and direction. In each
 * field `null` stands for anything, and a list matches if one of its entries does. Rules are ordered, first match wins.
 *
 * - A rule that names an address matches that address family only; one without addresses matches both.
 * - A rule that names a port matches only protocols that have ports (see {@link protocolHasPorts}).
 */

import { prefixMask } from '../../wire/address-text.ts'

/** What a rule does with the flow that it matches. */
export const RuleAction = { Accept: 0, Drop: 1, Reset: 2 } as const
export type RuleAction = (typeof RuleAction)[keyof typeof RuleAction]

/** An address prefix as signed 32-bit big-endian words, zero beyond `length`; IPv4 uses `word0` only. */
export interface AddressPrefix {
  readonly version: 4 | 6
  readonly word0: number
  readonly word1: number
  readonly word2: number
  readonly word3: number
  /** Significant bits: 0-32 for IPv4, 0-128 for IPv6. */
  readonly length: number
}

/** The whole numbers from `low` to `high`, both included. */
export interface NumberRange {
  readonly low: number
  readonly high: number
}

export interface Rule {
  /** For people; empty if the rule has none. */
  readonly name: string
  readonly action: RuleAction
  readonly sources: readonly AddressPrefix[] | null
  readonly destinations: readonly AddressPrefix[] | null
  /** 0-65535. */
  readonly sourcePorts: readonly NumberRange[] | null
  /** 0-65535. */
  readonly destinationPorts: readonly NumberRange[] | null
  /** IP protocol numbers, 0-255. */
  readonly protocols: readonly number[] | null
  /** 0-4095, or -1 for a packet without a tag. */
  readonly vlans: readonly NumberRange[] | null
  /** The side that the flow's opening packet came from: 0 ingress, 1 egress. */
  readonly direction: 0 | 1 | null
}

/** Protocols with ports where TCP has them: TCP, UDP, DCCP, SCTP, UDP-Lite. */
export const portProtocols: readonly number[] = [6, 17, 33, 132, 136]

export function protocolHasPorts(protocol: number): boolean {
  return protocol === 6 || protocol === 17 || protocol === 33 || protocol === 132 || protocol === 136
}

/** Whether a rule can match a packet of this address family. */
export function ruleHasFamily(rule: Rule, version: 4 | 6): boolean {
  return listHasFamily(rule.sources, version) && listHasFamily(rule.destinations, version)
}

function listHasFamily(list: readonly AddressPrefix[] | null, version: 4 | 6): boolean {
  return list === null || list.some((prefix) => prefix.version === version)
}

/** Word `level` (0-3) of the prefix. */
export function prefixWord(prefix: AddressPrefix, level: number): number {
  if (level === 0) return prefix.word0
  if (level === 1) return prefix.word1
  return level === 2 ? prefix.word2 : prefix.word3
}

/** Whether every address of `inner` is in `outer`. */
export function prefixCovers(outer: AddressPrefix, inner: AddressPrefix): boolean {
  if (outer.version !== inner.version || outer.length > inner.length) return false
  for (let level = 0; level < 4; level++) {
    const difference = prefixWord(outer, level) ^ prefixWord(inner, level)
    if ((difference & prefixMask(outer.length, level)) !== 0) return false
  }
  return true
}
