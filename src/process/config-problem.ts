/**
 * What is wrong with a configuration, in words: from the issues of a schema to sentences that name the key, say what
 * was found and what is allowed, and guess what was meant.
 */

import { z } from 'zod'
import type { ErrorCode } from '../base/coded-error.ts'
import type { ConfigPath } from './config-document.ts'
import { nearestName } from './nearest-name.ts'

export interface ConfigProblem {
  readonly code: ErrorCode
  readonly path: ConfigPath
  /** The key is wrong, not its value. */
  readonly atKey: boolean
  readonly message: string
  readonly mend: string
}

/** The problems of a value that does not fit its schema, and the value as the schema gives it when there are none. */
export function checkAgainst(schema: z.ZodType, value: unknown):
    { readonly data: unknown; readonly problems: ConfigProblem[] } {
  const result = schema.safeParse(value, { reportInput: true })
  if (result.success) return { data: result.data, problems: [] }
  return { data: undefined, problems: result.error.issues.flatMap((issue) => problemsOf(issue, schema, [])) }
}

type Issue = z.core.$ZodIssue

function problemsOf(issue: Issue, schema: z.ZodType, base: ConfigPath): ConfigProblem[] {
  const path = [...base, ...issue.path.map((step) => typeof step === 'symbol' ? String(step) : step)]
  const name = pathText(path)
  const problem = (message: string, mend = ''): ConfigProblem[] =>
    [{ code: 'NF_CONFIG_INVALID', path, atKey: false, message, mend }]
  switch (issue.code) {
    case 'unrecognized_keys': {
      const allowed = keysAt(schema, path)
      return issue.keys.map((key) => ({
        code: 'NF_CONFIG_INVALID', path: [...path, key], atKey: true,
        message: `there is no key ${JSON.stringify(key)}${path.length === 0 ? '' : ` in ${name}`}`,
        mend: allowed.length === 0 ? 'No keys are allowed there'
          : `${meant(key, allowed)}Allowed are ${allowed.join(', ')}`,
      }))
    }
    case 'invalid_type':
      return issue.input === undefined
        ? problem(`${name} is missing`, `It must be ${typeName(issue.expected)}`)
        : problem(`${name} must be ${typeName(issue.expected)}, not ${valueText(issue.input)}`)
    case 'invalid_value': {
      const allowed = issue.values.map(String)
      return problem(`${name} must be ${listText(allowed)}, not ${valueText(issue.input)}`,
        meant(String(issue.input), allowed).trim())
    }
    case 'too_small':
      return problem(`${name} must ${bound('at least', issue.origin, issue.minimum, issue.inclusive)}`, found(issue))
    case 'too_big':
      return problem(`${name} must ${bound('at most', issue.origin, issue.maximum, issue.inclusive)}`, found(issue))
    case 'invalid_union':
      return unionProblems(issue, schema, path) ?? problem(`${name} is not valid: ${issue.message}`, found(issue))
    default:
      // Some authors begin their messages with the key.
      return issue.code === 'custom' && name.startsWith(issue.message.split(':')[0] as string)
        ? problem(issue.message) : problem(`${name}: ${issue.message}`, found(issue))
  }
}

/** The problems in the branch that was most likely meant, or one about all of them. */
function unionProblems(
  issue: Issue & { code: 'invalid_union' }, schema: z.ZodType, path: ConfigPath,
): ConfigProblem[] | undefined {
  const branches: readonly (readonly Issue[])[] = issue.errors
  if (branches.length === 0) return undefined
  const wrongType = branches.map((issues) => issues.find((one) => one.path.length === 0 && one.code === 'invalid_type'))
  const fitting = branches.filter((_, index) => wrongType[index] === undefined)
  if (fitting.length === 0) {
    const types = wrongType.map((one) => typeName((one as { expected: string }).expected))
    return [{
      code: 'NF_CONFIG_INVALID', path, atKey: false, mend: '',
      message: `${pathText(path)} must be ${listText([...new Set(types)])}, not ${valueText(issue.input)}`,
    }]
  }
  const fewest = fitting.reduce((best, issues) => issues.length < best.length ? issues : best)
  return fewest.flatMap((one) => problemsOf(one, schema, path))
}

/** Keys that the schema knows in the mapping at `path`. */
function keysAt(schema: z.ZodType, path: ConfigPath): string[] {
  type Json = { [key: string]: unknown }
  const root = z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' }) as Json
  const spread = (node: Json): Json[] => {
    const reference = typeof node.$ref === 'string' ? /^#\/\$defs\/(.+)$/.exec(node.$ref)?.[1] : undefined
    if (reference !== undefined) return spread((root.$defs as Record<string, Json>)[reference] ?? {})
    const branches = [node.anyOf, node.oneOf, node.allOf].flatMap((list) => (list as Json[] | undefined) ?? [])
    return [node, ...branches.flatMap(spread)]
  }
  let nodes = spread(root)
  for (const step of path) {
    nodes = nodes.flatMap((node) => {
      const next = typeof step === 'number'
        ? (node.prefixItems as Json[] | undefined)?.[step] ?? node.items
        : (node.properties as Record<string, Json> | undefined)?.[step] ?? node.additionalProperties
      return typeof next === 'object' && next !== null ? spread(next as Json) : []
    })
  }
  return [...new Set(nodes.flatMap((node) => Object.keys((node.properties as Json | undefined) ?? {})))]
    .filter((key) => !key.startsWith('$'))
}

/** `a.b[0].c`; the whole document is `the configuration`. */
export function pathText(path: ConfigPath): string {
  if (path.length === 0) return 'the configuration'
  return path.map((step, index) => typeof step === 'number' ? `[${step}]` : index === 0 ? step : `.${step}`).join('')
}

/** A guess what was meant, with a space behind it; empty if there is none. */
export function meant(typed: string, names: readonly string[]): string {
  const near = nearestName(typed, names)
  return near === undefined ? '' : `Did you mean ${near}? `
}

function typeName(expected: string): string {
  switch (expected) {
    case 'int': return 'a whole number'
    case 'number': return 'a number'
    case 'string': return 'text'
    case 'boolean': return 'true or false'
    case 'object':
    case 'record': return 'a mapping (key: value)'
    case 'array': return 'a list'
    default: return expected
  }
}

/** What was found, short enough for one line. */
function valueText(value: unknown): string {
  if (value === null || value === undefined) return 'empty'
  if (Array.isArray(value)) return 'a list'
  if (typeof value === 'object') return 'a mapping'
  const text = JSON.stringify(value) ?? String(value)
  return text.length <= 40 ? text : `${text.slice(0, 37)}..."`
}

function found(issue: Issue): string {
  return issue.input === undefined || typeof issue.input === 'object' ? '' : `It is ${valueText(issue.input)}`
}

function bound(least: string, origin: string, limit: number | bigint, inclusive: boolean | undefined): string {
  const more = least === 'at least' ? 'more than' : 'less than'
  const amount = `${inclusive === false ? more : least} ${limit.toLocaleString('en-US')}`
  if (origin === 'string') return `have ${amount} characters`
  if (origin === 'array' || origin === 'set' || origin === 'map') return `have ${amount} entries`
  return `be ${amount}`
}

function listText(items: readonly string[]): string {
  return items.length <= 1 ? items.join('') : `${items.slice(0, -1).join(', ')} or ${items.at(-1)}`
}
