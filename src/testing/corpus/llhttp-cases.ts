/**
 * The test cases of llhttp, Node's HTTP parser, as TCP conversations with expected events.
 *
 * A case is a run of bytes with the parser callbacks they must cause. Here one side says those bytes and the other
 * side says what makes them a plausible conversation: requests before responses, responses after requests, a 101 or
 * 200 where a request asks to leave HTTP. What must be reported follows from the callbacks alone: a message is
 * reported at the end of its head, which is llhttp's `headers complete`.
 *
 * llhttp is strict and NFactor watches: it may go on where llhttp refuses, so a case can be
 *
 *  - `exact`: no error, no lenient flag: these messages, and no others;
 *  - `atLeast`: llhttp stops (an error, or HTTP/2's preface): the messages before that, and then as the watcher likes;
 *  - `atMost`: the case needs a lenient flag, or speaks no HTTP/1: any first part of these messages.
 */

import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { suiteFolder } from './corpus-location.ts'
import type { Turn } from './tcp-conversation.ts'

/** One message of a case's subject side. */
export interface LlhttpMessage {
  readonly kind: 'request' | 'response'
  readonly method: string
  readonly uri: string
  readonly status: number
}

export interface LlhttpCase {
  readonly id: string
  readonly turns: readonly Turn[]
  /** The side that says the case's bytes. */
  readonly subject: Turn['from']
  readonly messages: readonly LlhttpMessage[]
  readonly demand: 'exact' | 'atLeast' | 'atMost'
}

interface CaseLine {
  readonly id: string
  readonly meta: { readonly type: string, readonly skipBody?: boolean }
  readonly input_base64: string
  readonly expected: readonly string[]
  readonly error: boolean
}

const plainTypes = new Set(['request', 'response', 'request-finish', 'response-finish'])
const pauseCode = 'reason="Pause on'

/** All cases; empty without a corpus. */
export function llhttpCases(): LlhttpCase[] {
  const path = join(suiteFolder('llhttp'), 'cases.jsonl')
  if (!existsSync(path)) return []
  const lines = readFileSync(path, 'utf8').split('\n').filter(line => line !== '')
  return lines.map(line => toCase(JSON.parse(line) as CaseLine))
}

/** Judges the messages that were reported for a case's subject side: a line on what is wrong, or null. */
export function judgeLlhttpCase(subject: LlhttpCase, reported: readonly LlhttpMessage[]): string | null {
  const expected = subject.messages.map(messageText)
  const actual = reported.map(messageText)
  const shared = actual.slice(0, expected.length)
  const agrees = shared.every((text, index) => text === expected[index])
  const isRight = agrees
    && (subject.demand === 'atLeast' || actual.length <= expected.length)
    && (subject.demand === 'atMost' || actual.length >= expected.length)
  return isRight ? null : `${subject.id}: ${subject.demand} [${expected.join(', ')}], but got [${actual.join(', ')}]`
}

function messageText(message: LlhttpMessage): string {
  return message.kind === 'request' ? `${message.method} ${message.uri}` : String(message.status)
}

function toCase(line: CaseLine): LlhttpCase {
  const input = new Uint8Array(Buffer.from(line.input_base64, 'base64'))
  const isRequest = line.meta.type.startsWith('request')
  const messages = completedHeads(line.expected, isRequest)
  const isLeaving = line.expected.some(entry => entry.includes(pauseCode))
  const isForeign = line.expected.some(entry => /span\[protocol\]="(?!HTTP)/.test(entry))
    || line.expected.some(entry => /span\[version\]="(?!1\.[01]")/.test(entry))
  // A body that llhttp is told to skip has no counterpart in a stream of bytes.
  const isPlain = plainTypes.has(line.meta.type) && line.meta.skipBody !== true && !isForeign
  return {
    id: line.id,
    subject: isRequest ? 'client' : 'server',
    turns: isRequest ? requestTurns(input, messages, leavingOffset(line)) : responseTurns(input, messages, isLeaving),
    messages,
    demand: line.error || (isLeaving && messages.length === 0) ? 'atLeast' : isPlain ? 'exact' : 'atMost',
  }
}

function completedHeads(expected: readonly string[], isRequest: boolean): LlhttpMessage[] {
  const messages: LlhttpMessage[] = []
  let method = ''
  let uri = ''
  for (const entry of expected) {
    const span = /len=\d+ span\[(\w+)\]="(.*)"$/.exec(entry)
    const text = span === null ? '' : unescapeSpan(span[2] as string)
    if (entry.endsWith('message begin')) [method, uri] = ['', '']
    if (span?.[1] === 'method') method += text
    if (span?.[1] === 'url') uri += text
    const status = /headers complete(?:.* status=(\d+))?/.exec(entry)
    if (status === null) continue
    messages.push(isRequest
      ? { kind: 'request', method, uri, status: 0 }
      : { kind: 'response', method: '', uri: '', status: Number(status[1]) })
  }
  return messages
}

function unescapeSpan(text: string): string {
  return text.replace(/\\"/g, '"').replace(/\\\\/g, '\\')
}

/** Where the bytes of another protocol begin, behind a request that asks to leave HTTP; -1 when none does. */
function leavingOffset(line: CaseLine): number {
  const entry = line.expected.find(candidate => candidate.includes(pauseCode))
  const offset = /^off=(\d+)/.exec(entry ?? '')
  return offset === null ? -1 : Number(offset[1])
}

function requestTurns(input: Uint8Array, messages: readonly LlhttpMessage[], leaving: number): Turn[] {
  const end = leaving < 0 ? input.length : Math.min(leaving, input.length)
  const turns: Turn[] = [{ from: 'client', bytes: input.subarray(0, end) }]
  messages.forEach((message, index) => {
    const isLast = index === messages.length - 1
    const answer = leaving >= 0 && isLast ? leavingAnswer(message) : 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n'
    turns.push({ from: 'server', bytes: new Uint8Array(Buffer.from(answer, 'latin1')) })
  })
  if (end < input.length) turns.push({ from: 'client', bytes: input.subarray(end) })
  return turns
}

function leavingAnswer(request: LlhttpMessage): string {
  return request.method === 'CONNECT'
    ? 'HTTP/1.1 200 Connection established\r\n\r\n'
    : 'HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n'
}

function responseTurns(input: Uint8Array, messages: readonly LlhttpMessage[], isLeaving: boolean): Turn[] {
  const finals = messages.filter(message => message.status >= 200).length
  const request = isLeaving
    ? 'GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n'
    : 'GET / HTTP/1.1\r\nHost: a\r\n\r\n'
  return [
    { from: 'client', bytes: new Uint8Array(Buffer.from(request.repeat(Math.max(1, finals)), 'latin1')) },
    { from: 'server', bytes: input },
  ]
}
