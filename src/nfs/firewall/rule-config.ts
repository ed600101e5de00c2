/**
 * Firewall rules as people write them: the schema of the configuration, and the way from there to `Rule`.
 *
 * A rule is an object, or one line of text:
 *
 *     { action: accept, protocol: tcp, source: 10.0.0.0/8, destination: 192.0.2.1, destinationPort: [80, 443] }
 *     "accept tcp from 10.0.0.0/8 to 192.0.2.1 port 80,443 vlan 7 in name web"
 *
 *     line     = action [ protocol ] { "from" end | "to" end | "vlan" list | "in" | "out" } [ "name" rest of the line ]
 *     end      = address [ "port" list ] | "port" list
 *     action   = "accept" | "drop" | "reset"
 *     protocol, address, list = what the object's fields take, several with commas between them
 *
 * What is left out is any. Every complaint names the rule by index and name, the field, and what is allowed there. A
 * rule that could never match (ports with ICMP, IPv4 with IPv6) is refused too: its author believes that it does
 * something.
 */

import { z } from 'zod'
import { CodedError } from '../../base/coded-error.ts'
import { protocolHasPorts, RuleAction, type AddressPrefix, type NumberRange, type Rule } from './rule.ts'
import { prefixMask, readIpv4, readIpv6 } from '../../wire/address-text.ts'
import { RULES_MAX } from './rule-set.ts'

const actionOf = { accept: RuleAction.Accept, drop: RuleAction.Drop, reset: RuleAction.Reset } as const

const protocolOf: Readonly<Record<string, number>> = {
  icmp: 1, igmp: 2, tcp: 6, udp: 17, dccp: 33, gre: 47, esp: 50, ah: 51, icmpv6: 58, sctp: 132, udplite: 136,
}

const directionOf = { in: 0, out: 1, any: null } as const

/** What each field takes; complaints end with it. */
const allowed = {
  action: 'accept, drop or reset',
  source: 'any, an IPv4 or IPv6 address, a network like 10.0.0.0/8 or 2001:db8::/32, or a list of them',
  port: 'any, a number 0-65535, a range like 1024-65535, or a list of them',
  protocol: `any, ${Object.keys(protocolOf).join(', ')}, a number 0-255, or a list of them`,
  vlan: 'any, none, a number 1-4094, a range like 100-199, or a list of them',
  direction: 'in (from the ingress side), out (from the egress side) or any',
  name: 'a text',
} as const

const oneOrMore = <T extends z.ZodType>(one: T) => z.union([one, z.array(one)])
const numberOrText = z.union([z.number(), z.string()])

const ruleObjectSchema = z.strictObject({
  action: z.enum(['accept', 'drop', 'reset']).describe('What becomes of the flow'),
  name: z.string().optional().describe('For people: shown in messages and records'),
  source: oneOrMore(z.string()).optional().describe(`Who opened the flow: ${allowed.source}`),
  destination: oneOrMore(z.string()).optional().describe(`Whom the flow was opened to: ${allowed.source}`),
  sourcePort: oneOrMore(numberOrText).optional().describe(allowed.port),
  destinationPort: oneOrMore(numberOrText).optional().describe(allowed.port),
  protocol: oneOrMore(numberOrText).optional().describe(allowed.protocol),
  vlan: oneOrMore(numberOrText).optional().describe(allowed.vlan),
  direction: z.enum(['in', 'out', 'any']).optional().describe(`Side that opened the flow: ${allowed.direction}`),
})

/** A rule as an object of the configuration. */
export type RuleObject = z.output<typeof ruleObjectSchema>

/** A rule of the configuration: an object, or a line of text. */
export type RuleConfig = string | RuleObject

/** Schema of a verdict for flows: `accept`, `drop` or `reset`. */
export const ruleActionSchema = z.enum(['accept', 'drop', 'reset'])

/** Schema of an ordered rule list. What it lets pass, {@link parseRules} takes. */
export const rulesSchema = z.preprocess((value, context) => {
  if (!Array.isArray(value)) return value
  for (const { path, message } of readRules(value).complaints) {
    context.addIssue({ code: 'custom', path, message, input: value })
  }
  return value
}, z.array(z.union([z.string(), ruleObjectSchema])).max(RULES_MAX))

/** The number of an action that {@link ruleActionSchema} let pass. */
export function parseRuleAction(action: z.output<typeof ruleActionSchema>): RuleAction {
  return actionOf[action]
}

/**
 * The rules in normal form, in the same order.
 *
 * @throws CodedError `NF_CONFIG_INVALID` with the first complaint; never for what {@link rulesSchema} let pass
 */
export function parseRules(configs: readonly RuleConfig[]): Rule[] {
  const { rules, complaints } = readRules(configs)
  if (complaints.length > 0) throw new CodedError('NF_CONFIG_INVALID', complaints[0].message)
  return rules
}

interface Complaint {
  /** Index of the rule, and the field of an object. */
  readonly path: Array<string | number>
  readonly message: string
}

/** Takes a complaint about a field; `field` is empty for the rule as a whole. */
type Complain = (field: string, what: string) => void

function readRules(configs: readonly unknown[]): { rules: Rule[], complaints: Complaint[] } {
  const rules: Rule[] = []
  const complaints: Complaint[] = []
  configs.forEach((config, index) => {
    const before = complaints.length
    let name = ''
    const complain: Complain = (field, what) => {
      const which = `rules[${index}]${name === '' ? '' : ` "${name}"`}`
      const path = field === '' || typeof config === 'string' ? [index] : [index, field]
      complaints.push({ path, message: `${which}: ${field === '' ? '' : `${field}: `}${what}` })
    }
    let fields: Readonly<Record<string, unknown>> | null = null
    if (typeof config === 'string') {
      const nameAt = /\sname\s+(.*)$/.exec(config)
      if (nameAt !== null) name = nameAt[1].trim()
      fields = readLine(nameAt === null ? config : config.slice(0, nameAt.index), complain)
    } else if (typeof config === 'object' && config !== null && !Array.isArray(config)) {
      fields = config as Readonly<Record<string, unknown>>
      if (typeof fields.name === 'string') name = fields.name
    } else complain('', `${show(config)} is not a rule; allowed: an object, or a line like "accept tcp to port 80"`)
    if (fields === null) return
    const rule = readFields(fields, name, complain)
    if (complaints.length === before) complainIfNeverMatching(rule, complain)
    if (complaints.length === before) rules.push(rule)
  })
  return { rules, complaints }
}

/** The fields of a line without its name. */
function readLine(line: string, complain: Complain): Record<string, unknown> | null {
  const words = line.trim().replace(/\s*,\s*/g, ',').split(/\s+/)
  const isKeyword = (word: string | undefined): boolean =>
    word === undefined || /^(from|to|port|vlan|in|out)$/.test(word)
  const fields: Record<string, unknown> = { action: words[0] }
  let i = 1
  const take = (field: string, after: string): void => {
    if (field in fields) complain(field, `given twice: "${after}" stands in the line again`)
    else if (isKeyword(words[i])) complain(field, `nothing follows "${after}"`)
    else fields[field] = words[i].split(',')
    i++
  }
  if (!isKeyword(words[i])) take('protocol', words[0])
  while (i < words.length) {
    const keyword = words[i++]
    if (keyword === 'from' || keyword === 'to') {
      const field = keyword === 'from' ? 'source' : 'destination'
      if (words[i] !== 'port') take(field, keyword)
      if (words[i] === 'port') {
        i++
        take(`${field}Port`, 'port')
      }
    } else if (keyword === 'vlan') take('vlan', 'vlan')
    else if ((keyword === 'in' || keyword === 'out') && !('direction' in fields)) fields.direction = keyword
    else {
      complain('', `"${keyword}" cannot stand here; allowed: ` +
        'ACTION [PROTOCOL] [from ADDRESS port PORT] [to ADDRESS port PORT] [vlan VLAN] [in | out] [name NAME]')
      return null
    }
  }
  for (const [field, value] of Object.entries(fields)) {
    if (Array.isArray(value) && value.length === 1) fields[field] = value[0]
  }
  return fields
}

function readFields(fields: Readonly<Record<string, unknown>>, name: string, complain: Complain): Rule {
  for (const field of Object.keys(fields)) {
    if (!Object.hasOwn(ruleObjectSchema.shape, field)) {
      complain(field, `there is no such field; allowed: ${Object.keys(ruleObjectSchema.shape).join(', ')}`)
    }
  }
  const read = <T extends object | number>(field: string, what: string, one: ReadOne<T>): T[] | null =>
    readList(fields[field], one, (wrong) => complain(field, `${wrong}; allowed: ${what}`))
  const choice = <T>(field: string, value: unknown, choices: Readonly<Record<string, T>>, what: string): T | null => {
    if (typeof value === 'string' && Object.hasOwn(choices, value)) return choices[value]
    complain(field, `${value === undefined ? 'missing' : `${show(value)} is not valid`}; allowed: ${what}`)
    return null
  }
  if (fields.name !== undefined && typeof fields.name !== 'string') {
    complain('name', `${show(fields.name)} is not valid; allowed: ${allowed.name}`)
  }
  return {
    name,
    action: choice('action', fields.action, actionOf, allowed.action) ?? RuleAction.Drop,
    sources: read('source', allowed.source, readPrefix),
    destinations: read('destination', allowed.source, readPrefix),
    sourcePorts: read('sourcePort', allowed.port, (value) => readRange(value, 0, 65_535)),
    destinationPorts: read('destinationPort', allowed.port, (value) => readRange(value, 0, 65_535)),
    protocols: read('protocol', allowed.protocol, readProtocol),
    vlans: read('vlan', allowed.vlan, (value) => value === 'none' ? { low: -1, high: -1 } : readRange(value, 1, 4094)),
    direction: fields.direction === undefined ? null :
      choice('direction', fields.direction, directionOf, allowed.direction),
  }
}

/** Refuses what is valid field by field but matches no packet. */
function complainIfNeverMatching(rule: Rule, complain: Complain): void {
  const versions = [4, 6].filter((version) => [rule.sources, rule.destinations].every((list) =>
    list === null || list.some((prefix) => prefix.version === version)))
  if (versions.length === 0) {
    complain('destination', 'source and destination have no address family in common; ' +
      'allowed: IPv4 with IPv4, IPv6 with IPv6')
  }
  const portField = rule.sourcePorts !== null ? 'sourcePort' : rule.destinationPorts !== null ? 'destinationPort' : ''
  for (const protocol of rule.protocols ?? []) {
    if (portField !== '' && !protocolHasPorts(protocol)) {
      complain(portField, `protocol ${nameOfProtocol(protocol)} has no ports; ` +
        'allowed: ports with tcp, udp, sctp, dccp, udplite')
    }
    if ((protocol === 1 && versions.join() === '6') || (protocol === 58 && versions.join() === '4')) {
      complain('protocol', `${nameOfProtocol(protocol)} does not occur with IPv${versions[0]} addresses; ` +
        'allowed: icmp with IPv4, icmpv6 with IPv6')
    }
  }
}

function nameOfProtocol(protocol: number): string {
  return Object.keys(protocolOf).find((name) => protocolOf[name] === protocol) ?? String(protocol)
}

/** Reads one entry of a field: the result, or what is wrong with it, to stand behind the entry. */
type ReadOne<T extends object | number> = (value: unknown) => T | string

const NOT_VALID = ' is not valid'

/** `null` for any, otherwise a list's good entries. */
function readList<T extends object | number>(
  value: unknown, one: ReadOne<T>, complain: (wrong: string) => void,
): T[] | null {
  if (value === undefined || value === 'any') return null
  if (Array.isArray(value) && value.length === 0) complain('an empty list matches nothing')
  const list: T[] = []
  for (const entry of Array.isArray(value) ? value : [value]) {
    const read = entry === 'any' ? ' cannot stand in a list' : one(entry)
    if (typeof read === 'string') complain(show(entry) + read)
    else list.push(read)
  }
  return list
}

function show(value: unknown): string {
  return JSON.stringify(value) ?? String(value)
}

function readProtocol(value: unknown): number | string {
  const name = typeof value === 'string' ? value.toLowerCase() : ''
  return Object.hasOwn(protocolOf, name) ? protocolOf[name] : readNumber(value, 0, 255) ?? NOT_VALID
}

function readNumber(value: unknown, low: number, high: number): number | null {
  const number = typeof value === 'string' && /^[0-9]{1,5}$/.test(value) ? Number(value) : value
  return typeof number === 'number' && Number.isInteger(number) && number >= low && number <= high ? number : null
}

/** A number, or `low-high`. */
function readRange(value: unknown, low: number, high: number): NumberRange | string {
  const ends = typeof value === 'string' ? value.split('-') : [value]
  const first = readNumber(ends[0], low, high)
  const last = ends.length === 1 ? first : readNumber(ends[1], low, high)
  if (ends.length > 2 || first === null || last === null) return NOT_VALID
  return first > last ? ' runs backwards' : { low: first, high: last }
}

/** An address or a network. */
function readPrefix(value: unknown): AddressPrefix | string {
  if (typeof value !== 'string') return NOT_VALID
  const [text, lengthText, ...more] = value.split('/')
  const version = text.includes(':') ? 6 : 4
  const bits = version === 6 ? 128 : 32
  const words = version === 6 ? readIpv6(text) : readIpv4(text)
  const length = lengthText === undefined ? bits : readNumber(lengthText, 0, bits)
  if (words === null || length === null || more.length > 0) return NOT_VALID
  const [word0, word1 = 0, word2 = 0, word3 = 0] = words
  const prefix: AddressPrefix = { version, word0, word1, word2, word3, length }
  const isClear = words.every((word, level) => (word & ~prefixMask(length, level)) === 0)
  return isClear ? prefix : ` has bits set behind its first ${length}`
}
