/**
 * HTTP/1 messages of a whole capture, found off-line: the harness' second opinion beside tshark's.
 *
 * Works on {@link reassembleStreams}' output, where all bytes that the capture holds are in place. First all requests
 * of a connection, then all responses, because a response's body depends on its request's method (RFC 9112 §6.3) and
 * the end of HTTP on the request side depends on the response (101, or 2xx to CONNECT).
 *
 * Not every message can be demanded of an on-line parser. A message is `certain` when everything before it in its
 * direction is known and well-formed, so that any conforming parser reaches it: holes are fine inside a body of known
 * length. Behind other holes and behind malformed lines a parser must search for the next start line; what it finds
 * there is real, but how soon it finds it is its own affair. A message in a direction whose start was not captured is
 * certain as long as the first byte seen begins one.
 *
 * Line ends may be CRLF or bare LF (RFC 9112 §2.2). Obsolete line folding continues a field (§5.2).
 */

import type { CapturedFrame } from './capture-frames.ts'
import { reassembleStreams, type ReferenceConnection, type ReferenceStream } from './reference-streams.ts'

/** One HTTP/1 message head. */
export interface ReferenceMessage {
  readonly kind: 'request' | 'response'
  readonly tuple: string
  /** The direction in which the message travelled, as a directed tuple. */
  readonly directed: string
  readonly method: string
  readonly uri: string
  readonly host: string
  readonly status: number
  readonly version: string
  readonly isCertain: boolean
  /** The first bytes of its direction are in the capture. */
  readonly isFromStart: boolean
  /** Every field line is a token, a colon and a value without control characters (RFC 9110 §5.5, RFC 9112 §5). */
  readonly isHeadWellFormed: boolean
  /** The capture holds every byte of the body. */
  readonly isBodyCaptured: boolean
}

interface Head {
  readonly startLine: string
  readonly fields: readonly { readonly name: string, readonly value: string }[]
  /** Offset behind the empty line. */
  readonly end: number
  readonly isCertain: boolean
  readonly isWellFormed: boolean
}

type BodyEnd =
  | { readonly kind: 'at', readonly offset: number }
  /** The body runs to the connection's end. */
  | { readonly kind: 'close' }
  /** The body's end is not in the capture, or its framing is broken or lost in a hole. */
  | { readonly kind: 'lost', readonly from: number }

const requestLine = /^([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([^ ]+) (HTTP\/1\.[01])$/
/** What is recognisably meant as a request line, but is none: a version is missing or not one of HTTP/1. */
const brokenRequestLine = /^([A-Za-z][A-Za-z_-]*)(?: +([^ ]*))?(?: +(HTTP\/[\d.]*))?$/
const statusLine = /^(HTTP\/1\.[01]) (\d{3})(?: .*)?$/
/** A field line, or the continuation of one by obsolete folding. */
const fieldLine = /^(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:|[ \t])[\t\x20-\x7e\x80-\xff]*$/

type LineTest = (line: string) => boolean

const isRequestLine: LineTest = line => requestLine.test(line)
const isBrokenRequestLine: LineTest = line => brokenRequestLine.test(line)
const isStatusLine: LineTest = line => statusLine.test(line)

/** All HTTP/1 messages of a capture, connection by connection. */
export function findMessages(frames: readonly CapturedFrame[]): ReferenceMessage[] {
  return reassembleStreams(frames).flatMap(connectionMessages)
}

/** The HTTP/1 messages of one connection: requests first, then responses. */
export function connectionMessages(connection: ReferenceConnection): ReferenceMessage[] {
  const streams = connection.streams.filter(stream => stream.bytes.length > 0)
  const requestStream = streams.find(stream => startsWith(stream, isRequestLine))
    ?? streams.find(stream => startsWith(stream, isBrokenRequestLine) && !startsWith(stream, isStatusLine))
  const others = streams.filter(stream => stream !== requestStream)
  const responseStream = others.find(stream => startsWith(stream, isStatusLine))
    ?? (requestStream === undefined ? undefined : others[0])
  const requests = requestStream === undefined ? [] : parseRequests(connection.tuple, requestStream)
  if (responseStream === undefined) return requests.map(request => request.message)
  // In a capture that starts with a response, that response answers a request nobody saw.
  const isAnswerFirst = requestStream !== undefined && !responseStream.isStartKnown
    && responseStream.firstDataFrame < requestStream.firstDataFrame
  const { messages, requestsEnd } = parseResponses(connection.tuple, responseStream, requests, isAnswerFirst ? -1 : 0)
  return [...requests.slice(0, requestsEnd).map(request => request.message), ...messages]
}

interface ParsedRequest { readonly message: ReferenceMessage, readonly asksUpgrade: boolean }

function parseRequests(tuple: string, stream: ReferenceStream): ParsedRequest[] {
  const requests: ParsedRequest[] = []
  let offset = 0
  let isCertain = true
  for (;;) {
    const head = readHead(stream, offset, isCertain, isRequestLine, isBrokenRequestLine)
    if (head === null) return requests
    isCertain = head.isCertain
    const line = requestLine.exec(head.startLine)
    const broken = line === null ? brokenRequestLine.exec(head.startLine) : null
    if (line === null) isCertain = false
    if (line === null && (broken === null || broken[3]?.startsWith('HTTP/2') === true)) return requests
    const body = bodyEnd(stream, head, line === null ? 'none' : 'request')
    requests.push({
      message: {
        kind: 'request',
        tuple,
        directed: stream.directed,
        method: (line ?? broken)?.[1] ?? '',
        uri: (line ?? broken)?.[2] ?? '',
        host: fieldValue(head, 'host') ?? '',
        status: 0,
        version: (line ?? broken)?.[3] ?? '',
        isCertain,
        isFromStart: stream.isStartKnown,
        isHeadWellFormed: head.isWellFormed,
        isBodyCaptured: isCaptured(stream, head, body),
      },
      asksUpgrade: fieldValue(head, 'upgrade') !== null || line?.[1] === 'CONNECT',
    })
    if (body.kind === 'close') return requests
    if (body.kind === 'lost') isCertain = false
    offset = body.kind === 'at' ? body.offset : body.from
  }
}

function parseResponses(
  tuple: string, stream: ReferenceStream, requests: readonly ParsedRequest[], firstAnswered: number,
): { messages: ReferenceMessage[], requestsEnd: number } {
  const messages: ReferenceMessage[] = []
  let offset = 0
  let isCertain = true
  let answered = firstAnswered
  for (;;) {
    const head = readHead(stream, offset, isCertain, isStatusLine, isStatusLine)
    if (head === null) return { messages, requestsEnd: requests.length }
    isCertain = head.isCertain
    const line = statusLine.exec(head.startLine)
    if (line === null) return { messages, requestsEnd: requests.length }
    const status = Number(line[2])
    const request = answered < 0 ? undefined : requests[answered]
    const isSwitch = status === 101 || (request?.message.method === 'CONNECT' && status >= 200 && status < 300)
    const hasNoBody = status < 200 || status === 204 || status === 304 || request?.message.method === 'HEAD'
    const body = bodyEnd(stream, head, hasNoBody || isSwitch ? 'none' : 'response')
    messages.push({
      kind: 'response',
      tuple,
      directed: stream.directed,
      method: '',
      uri: '',
      host: '',
      status,
      version: line[1] as string,
      isCertain,
      isFromStart: stream.isStartKnown,
      isHeadWellFormed: head.isWellFormed,
      isBodyCaptured: isCaptured(stream, head, body),
    })
    if (isSwitch) return { messages, requestsEnd: answered + 1 }
    if (status >= 200) answered++
    if (body.kind === 'close') return { messages, requestsEnd: requests.length }
    if (body.kind === 'lost') isCertain = false
    offset = body.kind === 'at' ? body.offset : body.from
  }
}

/**
 * The message head at `offset`, behind blank lines; if there is none, the next one that begins with a segment.
 *
 * @param isStart recognises a start line wherever a search may find it
 * @param isStartHere recognises a start line at `offset` itself, where one is expected
 */
function readHead(
  stream: ReferenceStream, offset: number, isCertain: boolean, isStart: LineTest, isStartHere: LineTest,
): Head | null {
  const here = readHeadAt(stream, skipBlankLines(stream, offset), isCertain)
  if (here !== null && (isStart(here.startLine) || isStartHere(here.startLine))) return here
  for (const start of stream.segmentStarts) {
    if (start <= offset) continue
    const head = readHeadAt(stream, start, false)
    if (head !== null && isStart(head.startLine)) return head
  }
  return null
}

function readHeadAt(stream: ReferenceStream, offset: number, isCertain: boolean): Head | null {
  const lines: string[] = []
  let at = offset
  for (;;) {
    const line = readLine(stream, at)
    if (line === null) return null
    at = line.end
    if (line.text === '') break
    lines.push(line.text)
  }
  const fields: { name: string, value: string }[] = []
  for (const line of lines.slice(1)) {
    const last = fields.at(-1)
    const colon = line.indexOf(':')
    if (/^[ \t]/.test(line) && last !== undefined) {
      fields[fields.length - 1] = { name: last.name, value: `${last.value} ${line.trim()}`.trim() }
    } else if (colon > 0) {
      fields.push({ name: line.slice(0, colon).trim().toLowerCase(), value: line.slice(colon + 1).trim() })
    }
  }
  const isWellFormed = lines.slice(1).every(line => fieldLine.test(line))
  return { startLine: lines[0] ?? '', fields, end: at, isCertain, isWellFormed }
}

/** Where the body behind `head` ends (RFC 9112 §6.3). */
function bodyEnd(stream: ReferenceStream, head: Head, kind: 'request' | 'response' | 'none'): BodyEnd {
  if (kind === 'none') return { kind: 'at', offset: head.end }
  const codings = head.fields.filter(field => field.name === 'transfer-encoding').map(field => field.value).join(',')
  if (codings !== '') {
    const last = codings.split(',').at(-1)?.trim().toLowerCase()
    if (last === 'chunked') return chunkedEnd(stream, head.end)
    return kind === 'response' ? { kind: 'close' } : { kind: 'lost', from: head.end }
  }
  const lengths = new Set(head.fields
    .filter(field => field.name === 'content-length')
    .flatMap(field => field.value.split(',').map(value => value.trim())))
  if (lengths.size === 0) return kind === 'response' ? { kind: 'close' } : { kind: 'at', offset: head.end }
  const [length = ''] = lengths
  if (lengths.size > 1 || !/^\d+$/.test(length)) return { kind: 'lost', from: head.end }
  return { kind: 'at', offset: head.end + Number(length) }
}

function chunkedEnd(stream: ReferenceStream, start: number): BodyEnd {
  let at = start
  for (;;) {
    const line = readLine(stream, at)
    if (line === null) return afterHole(stream, at)
    const size = /^[ \t]*([0-9a-fA-F]+)[ \t]*(?:;.*)?$/.exec(line.text)
    if (size === null) return { kind: 'lost', from: at }
    const length = Number.parseInt(size[1] as string, 16)
    at = line.end
    if (length === 0) break
    at += length
    const end = readLine(stream, at)
    if (end === null) return afterHole(stream, at)
    if (end.text !== '') return { kind: 'lost', from: at }
    at = end.end
  }
  for (;;) {
    const line = readLine(stream, at)
    if (line === null) return afterHole(stream, at)
    at = line.end
    if (line.text === '') return { kind: 'at', offset: at }
  }
}

function isCaptured(stream: ReferenceStream, head: Head, body: BodyEnd): boolean {
  if (body.kind === 'lost') return false
  const end = body.kind === 'at' ? body.offset : stream.bytes.length
  return end <= stream.bytes.length && !stream.holes.some(hole => hole.start < end && hole.end > head.end)
}

/** A line that is not wholly there: lost in a hole, or behind the end of what was captured. */
function afterHole(stream: ReferenceStream, at: number): BodyEnd {
  const hole = stream.holes.find(candidate => candidate.end > at)
  return hole === undefined ? { kind: 'at', offset: stream.bytes.length + 1 } : { kind: 'lost', from: hole.end - 1 }
}

/** The line at `offset` and the offset behind it; null when a hole or the end of the capture comes first. */
function readLine(stream: ReferenceStream, offset: number): { text: string, end: number } | null {
  const feed = stream.bytes.indexOf(10, offset)
  if (feed < 0 || offset > stream.bytes.length) return null
  if (stream.holes.some(hole => hole.start <= feed && hole.end > offset)) return null
  const end = feed > offset && stream.bytes[feed - 1] === 13 ? feed - 1 : feed
  return { text: Buffer.from(stream.bytes.subarray(offset, end)).toString('latin1'), end: feed + 1 }
}

function skipBlankLines(stream: ReferenceStream, offset: number): number {
  let at = offset
  for (let line = readLine(stream, at); line !== null && line.text === ''; line = readLine(stream, at)) at = line.end
  return at
}

function startsWith(stream: ReferenceStream, test: LineTest): boolean {
  const line = readLine(stream, skipBlankLines(stream, 0))
  return line !== null && test(line.text)
}

function fieldValue(head: Head, name: string): string | null {
  return head.fields.find(field => field.name === name)?.value ?? null
}
