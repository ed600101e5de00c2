/**
 * The head parser against the test suite of llhttp, the parser of Node.js, as far as it concerns heads: every message
 * that llhttp begins is parsed here from its first byte, and must give the head that llhttp gives, or no head where
 * llhttp reports an error inside the head.
 *
 * Where the two differ, the table below says what comes out here, and why. It must be complete and hold no entry too
 * many.
 */

import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { Arena } from '../../memory/arena.ts'
import { loadKernels } from '../../memory/kernels/kernels.ts'
import { anomalyNames, createHeadParser, HeadResult, MessageKind, Upgrade, type HeadParser } from './head.ts'

const corpus = process.env.NFACTOR_CORPUS
const file = corpus === undefined ? '' : join(corpus, 'suites/llhttp/cases.jsonl')
const skip = corpus === undefined ? 'NFACTOR_CORPUS is not set' : existsSync(file) ? false : `${file} is missing`

interface Case {
  id: string
  title: string
  meta: { type: string }
  input_base64: string
  expected: string[]
}

/** One message as llhttp reports it; `head` is empty if an error or the end of the input came first. */
interface Message {
  begin: number
  head: Record<string, string | number | boolean>
  error: boolean
}

// llhttp's flags.
const KEEP_ALIVE = 0x1
const CLOSE = 0x2
const CONNECTION_UPGRADE = 0x4
const CHUNKED = 0x8
const UPGRADE = 0x10
const CONTENT_LENGTH = 0x20
const TRANSFER_ENCODING = 0x200

function messagesOf(events: readonly string[]): Message[] {
  const messages: Message[] = []
  let spans: Record<string, string> = {}
  let open = false
  for (const event of events) {
    const offset = Number(/^off=(\d+)/.exec(event)?.[1])
    if (/message begin$/.test(event)) {
      messages.push({ begin: offset, head: {}, error: false })
      spans = {}
      open = true
      continue
    }
    const message = messages.at(-1)
    if (message === undefined || !open) continue
    const span = /span\[(\w+)\]="(.*)"$/.exec(event)
    if (span !== null) spans[span[1]] = (spans[span[1]] ?? '') + span[2]
    const complete =
      /headers complete (?:method=\d+ |status=(\d+) )v=(\d)\/(\d) flags=([0-9a-f]+) content_length=(\d+)/.exec(event)
    if (complete !== null) {
      const flags = parseInt(complete[4], 16)
      message.head = {
        end: offset,
        ...(complete[1] === undefined
          ? { method: spans.method, uri: spans.url ?? '' }
          : { status: Number(complete[1]) }),
        version: `${complete[2]}.${complete[3]}`,
        keepAlive: (flags & KEEP_ALIVE) !== 0,
        close: (flags & CLOSE) !== 0,
        connectionUpgrade: (flags & CONNECTION_UPGRADE) !== 0,
        upgrade: (flags & UPGRADE) !== 0,
        chunked: (flags & CHUNKED) !== 0,
        transferEncoding: (flags & TRANSFER_ENCODING) !== 0,
        contentLength: (flags & CONTENT_LENGTH) !== 0 ? Number(complete[5]) : -1,
      }
      open = false
    }
    if (/ error code=/.test(event)) {
      message.error = true
      open = false
    }
  }
  return messages
}

function ours(parser: HeadParser, arena: Arena, at: number): Message['head'] {
  const text = (offset: number, length: number): string =>
    Buffer.from(arena.u8.slice(offset, offset + length)).toString('latin1')
  return {
    end: parser.headEnd - at,
    ...(parser.kind === MessageKind.Request
      ? { method: text(parser.methodOffset, parser.methodLength), uri: text(parser.uriOffset, parser.uriLength) }
      : { status: parser.status }),
    version: `${parser.versionMajor}.${parser.versionMinor}`,
    keepAlive: parser.keepAlive,
    close: parser.connectionClose,
    connectionUpgrade: parser.connectionUpgrade,
    upgrade: parser.upgrade !== Upgrade.None,
    chunked: parser.chunked,
    transferEncoding: parser.transferEncoding,
    contentLength: parser.contentLength,
  }
}

const FIELD = 'a damaged field does not undo the head: receivers differ, and an observer reports what it saw'
const LENGTH = 'an unusable length is an anomaly of a head whose end is certain'
const BARE_CR = 'a CR that no LF follows ends no line here; llhttp refuses it, or when lenient takes it for a line end'
const BARE_LF = 'LF alone ends a line, which RFC 9112 §2.2 allows a recipient'
const FOLD = 'folded lines are let pass: RFC 9112 §5.2 lets a proxy unfold them'
const CODING = 'what to do with such a body is for the reader of bodies to decide'
const EARLY = 'the input ends inside the head, and nothing in it so far is beyond repair'
const RTSP = 'RTSP is not HTTP'

/** What comes out here where llhttp says something else, by case and message, and why. */
const differences: Record<string, [outcome: string, reason: string]> = {
  'request/content-length#24.0': ['incomplete', EARLY],
  'request/content-length#26.0': ['complete space-in-field-name', FIELD],
  'request/content-length#32.0': ['complete bad-content-length', LENGTH],
  'request/content-length#34.0': ['complete bad-content-length', LENGTH],
  'request/content-length#38.0': ['incomplete', BARE_CR],
  'request/invalid#46.0': ['complete bare-cr', BARE_CR],
  'request/invalid#48.0': ['incomplete', BARE_CR],
  'request/invalid#50.0': ['complete bare-cr', BARE_CR],
  'request/invalid#52.0': ['complete', 'the letters of a field name are not checked'],
  'request/invalid#54.0': ['complete malformed-field', FIELD],
  'request/invalid#56.0': ['complete folded-field malformed-field', FIELD],
  'request/invalid#58.0': ['complete bare-cr control-byte malformed-field', FIELD],
  'request/invalid#60.0': ['incomplete', EARLY],
  'request/invalid#62.0': ['complete bare-lf', BARE_LF],
  'request/invalid#64.0': ['complete folded-field', FOLD],
  'request/lenient-header-value-relaxed#68.0': ['complete bare-lf', BARE_LF],
  'request/lenient-header-value-relaxed#70.0': ['incomplete', EARLY],
  'request/lenient-headers#74.0': ['complete bare-cr', BARE_CR],
  'request/method#88.0': ['invalid', RTSP],
  'request/method#90.0': ['complete', 'the preface of HTTP/2, known by its method; llhttp checks what follows, too'],
  'request/transfer-encoding#136.0': ['complete length-and-encoding', CODING],
  'request/transfer-encoding#138.0': ['complete length-and-encoding', CODING],
  'request/transfer-encoding#140.0': ['complete chunked-not-final', CODING],
  'response/connection#166.0': ['complete', 'Proxy-Connection never was a standard field (RFC 9112 appendix C.2.2)'],
  'response/invalid#196.0': ['complete bare-cr', BARE_CR],
  'response/invalid#198.0': ['complete bare-cr', BARE_CR],
  'response/invalid#200.0': ['incomplete', EARLY],
  'response/invalid#204.0': ['complete bare-lf', BARE_LF],
  'response/invalid#206.0': ['complete bare-lf', BARE_LF],
  'response/sample#222.0': ['invalid', RTSP],
  'response/sample#236.0': ['complete space-in-field-name', FIELD],
}

for (const wasm of [false, true]) {
  test(`heads of the llhttp suite (${wasm ? 'WebAssembly' : 'TypeScript'})`, { skip }, () => {
    const arena = new Arena(1 << 20)
    const parser = createHeadParser(arena, loadKernels(arena, { wasm }))
    const at = arena.allocate('input', 65536)
    const found: Record<string, string> = {}
    let compared = 0
    for (const line of readFileSync(file, 'utf8').trim().split('\n')) {
      const { id, meta, input_base64, expected } = JSON.parse(line) as Case
      const input = Buffer.from(input_base64, 'base64')
      arena.u8.set(input, at)
      const kind = meta.type.startsWith('response') ? MessageKind.Response : MessageKind.Request
      messagesOf(expected).forEach((message, i) => {
        compared++
        const result = parser.parse(at + message.begin, at + input.length, kind)
        const complete = result === HeadResult.Complete
        const llhttp = message.head.end !== undefined ? message.head : message.error ? 'invalid' : 'incomplete'
        const here = complete ? ours(parser, arena, at) : result === HeadResult.Invalid ? 'invalid' : 'incomplete'
        try {
          assert.deepEqual(here, llhttp)
        } catch {
          found[`${id}.${i}`] = complete ? ['complete', ...anomalyNames(parser.anomalies)].join(' ') : String(here)
        }
      })
    }
    assert.deepEqual(found, Object.fromEntries(Object.entries(differences).map(([id, [outcome]]) => [id, outcome])))
    assert.ok(compared > 100)
  })
}
