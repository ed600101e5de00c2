/**
 * Holds the HTTP events of a run against what is expected of the capture.
 *
 * Per direction of a connection, the events must be a selection of the permitted messages in their order, and must
 * contain every required one. That is stricter than comparing multisets over the capture: an event on the wrong flow,
 * in the wrong direction, out of order, twice, or with another method, host, URI or status is a deviation.
 */

import { messageKey } from './justified-differences.ts'
import type { ReferenceMessage } from './reference-http.ts'
import type { RunMessage } from './run-output.ts'

/** What a capture must and may yield. */
export interface MessageBounds {
  readonly required: readonly ReferenceMessage[]
  readonly permitted: readonly ReferenceMessage[]
}

/** All deviations of a run's HTTP events, one line each; empty when there are none. */
export function compareMessages(
  capture: string, messages: readonly RunMessage[], expected: MessageBounds,
): string[] {
  const problems: string[] = []
  const required = new Set(expected.required)
  const permitted = groupByDirection(expected.permitted)
  const actual = groupByDirection(messages)
  for (const direction of new Set([...permitted.keys(), ...actual.keys()])) {
    const wanted = permitted.get(direction) ?? []
    problems.push(...alignDirection(direction, actual.get(direction) ?? [], wanted, required))
  }
  return problems.map(problem => `${capture}: ${problem}`)
}

/** Walks through both lists at once: every event takes the next permitted message that equals it. */
function alignDirection(
  direction: string, events: readonly RunMessage[], wanted: readonly ReferenceMessage[],
  required: ReadonlySet<ReferenceMessage>,
): string[] {
  const problems: string[] = []
  let next = 0
  for (const event of events) {
    const key = messageKey(direction, event)
    const found = wanted.findIndex((message, index) => index >= next && isSame(message, event))
    if (found < 0) {
      const nearby = wanted[next]
      const expected = nearby === undefined ? 'nothing more' : describe(direction, nearby)
      problems.push(`unexpected: ${key} HTTP/${event.version}, where ${expected} was due`)
      continue
    }
    for (const message of wanted.slice(next, found)) {
      if (required.has(message)) problems.push(`missing: ${describe(direction, message)}`)
    }
    next = found + 1
  }
  for (const message of wanted.slice(next)) {
    if (required.has(message)) problems.push(`missing: ${describe(direction, message)}`)
  }
  return problems
}

function isSame(message: ReferenceMessage, event: RunMessage): boolean {
  if (message.kind === 'request' && message.version === '' && event.kind === 'request' && event.host === '') {
    // A request line without a version is a simple request, which has no fields and so no host (RFC 1945 §4.1). Other
    // tools read on, and show one.
    return message.method === event.method && message.uri === event.uri
  }
  if (messageKey('', message) !== messageKey('', event)) return false
  // A start line without a valid version has no version to compare.
  return !/^HTTP\/1\.[01]$/.test(message.version) || message.version === `HTTP/${event.version}`
}

function describe(direction: string, message: ReferenceMessage): string {
  return `${messageKey(direction, message)} ${message.version}`
}

function groupByDirection<T extends { readonly directed: string }>(items: readonly T[]): Map<string, T[]> {
  const groups = new Map<string, T[]>()
  for (const item of items) {
    const group = groups.get(item.directed)
    if (group === undefined) groups.set(item.directed, [item])
    else group.push(item)
  }
  return groups
}
