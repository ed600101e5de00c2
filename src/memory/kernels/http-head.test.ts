/**
 * The WebAssembly head scan against its plain TypeScript twin: the same answer and the same result block for any bytes,
 * at any place of the arena, whatever lies behind them; and what every scan promises about longer and shorter inputs.
 */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Random } from '../../base/random.ts'
import { Arena } from '../arena.ts'
import {
  AT_AUTHORITY, AT_HEAD_END, AT_HOST, AT_INVALID_REASON, AT_KIND, AT_METHOD, AT_REASON, AT_START, AT_URI,
  HEAD_BLOCK_BYTES, HEAD_COMPLETE, HEAD_INCOMPLETE, HEAD_INVALID, KIND_EITHER,
  KIND_REQUEST, KIND_RESPONSE,
} from './http-head-block.ts'
import { loadKernels } from './kernels.ts'

const arena = new Arena(1 << 20)
const kernel = loadKernels(arena)
const twin = loadKernels(arena, { wasm: false })
const kernelBlock = arena.allocate('kernel', HEAD_BLOCK_BYTES)
const twinBlock = arena.allocate('twin', HEAD_BLOCK_BYTES)
const middle = arena.allocate('input', 16384)
const { u8, i32 } = arena

test('the kernels run here', () => {
  assert.ok(kernel.wasm)
  assert.ok(!twin.wasm)
})

const heads = [
  'GET / HTTP/1.1\r\nHost: example.com\r\n\r\n',
  'GET /index.html?a=b&c=d HTTP/1.1\r\nHost: www.example.com:8080\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n',
  'POST /upload HTTP/1.1\r\nhost:a\r\nCONTENT-LENGTH: 42\r\nExpect: 100-continue\r\nAccept: text/plain\r\n\r\nbody',
  'POST / HTTP/1.0\r\nContent-Length: 5, 5\r\nContent-Length: 5\r\nConnection: Keep-Alive\r\n\r\nhello',
  'PUT / HTTP/1.1\r\nTransfer-Encoding: a,\tchunked\r\nConnection: close\r\nContent-Length: 9007199254740991\r\n\r\n',
  'GET /chat HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket, h2c, foo\r\n\r\n',
  'CONNECT proxy.example.com:443 HTTP/1.1\r\nHost: proxy.example.com:443\r\n\r\n',
  'GET http://user@example.com:80/path?x#y HTTP/1.1\nHost: other\nFoo: a\n b\n\tc\n\n',
  'OPTIONS * HTTP/1.1\r\nHost : spaced\r\nNo colon here\r\n: empty\r\nX-A-Very-Long-Field-Name-Indeed: yes\r\n\r\n',
  '\r\n\r\nPUT / HTTP/1.1\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n',
  'HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Length: 1234\r\nConnection: keep-alive\r\n\r\n<html>',
  'HTTP/1.0 404 Not Found\r\nTransfer-Encoding: chunked\r\nContent-Length: 12\r\nContent-Length: 13\r\n\r\n',
  'HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n', 'HTTP/1.1 204\r\n\r\n',
  'HTTP/1.1 200OK\n\n',
  'HTTP/1.1  200   Fine  \r\n leading fold\r\nConnection:\r\n close\r\n\r\n', 'GET /old\r\nHost: x\r\n\r\n',
  'GET /  \n',
  'GET /a b  c HTTP/1.1 \r\n\r\n', 'GET / HTTP/1.\r\n\r\n', 'BITS_POST /x\r\nA: b\r\n\r\n',
  'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
  'M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\n\r\n',
  'frobnicate /x HTTP/1.1\r\nExpect: 100-Continue \r\n\r\n',
  `GET /${'long/'.repeat(40)} HTTP/1.1\r\nCookie: ${'x'.repeat(300)}\r\nHost: ${'h'.repeat(70)}\r\n\r\n`,
  `PUT / HTTP/1.1\r\n${'X-Sixteen-Bytes-: 1\r\nContent-Type:\r\nHots:\r\nUpgrape:\r\nConnectors:\r\n'.repeat(3)}\r\n`,
  `${'M'.repeat(32)} / HTTP/1.1\r\n\r\n`, `${'M'.repeat(33)} / HTTP/1.1\r\n\r\n`,
  'SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', 'EHLO mail.example.com\r\n',
  '+OK ready\r\n',
]
/** What is worth putting into a head: single bytes and pieces. */
const pieces = [
  '\r', '\n', '\r\n', '\r\n\r\n', '\n\n', '\n\r\n', ' ', '\t', ':', ',', '\0', '\x01', '\x0b', '\x1f', '\x7f', '\x80',
  '\xff', '0', '9', '/', '-',
  'H', 'HTTP/1.1', ' HTTP/1.1\r\n', 'Host:', 'host: a', 'Content-Length: 7', '\r\nContent-Length: 7',
  '\r\nTransfer-Encoding: chunked',
  'Content\rLength: 3\r\n', 'keep\ralive', 'close', 'chunked', 'Transfer-Encoding : chunked\r\n', '\r\n ', '\r\n\t',
  '99999999999999999999',
  '\r\nContent-Length: 9007199254740991\r\n', '\r\nContent-Length: 9007199254740992\r\n', 'close\x0b', ', close',
]

/** Places the text so that it ends at `end`, with `behind` after it as far as there is memory. */
function place(text: string, end: number, behind: string): void {
  const at = end - text.length
  for (let i = 0; i < text.length; i++) u8[at + i] = text.charCodeAt(i)
  for (let i = 0; i < behind.length && end + i < u8.length; i++) u8[end + i] = behind.charCodeAt(i)
}

function show(block: number): string {
  return [...i32.subarray(block >> 2, (block >> 2) + HEAD_BLOCK_BYTES / 4)].join(' ')
}

/** Scans with both, holds them equal, and returns the answer. */
function scanBoth(at: number, end: number, kind: number): number {
  const answer = twin.parseHttpHead(at, end, kind, twinBlock)
  const other = kernel.parseHttpHead(at, end, kind, kernelBlock)
  const text = (): string => JSON.stringify(Buffer.from(u8.slice(at, end)).toString('latin1'))
  assert.equal(other, answer, text())
  if (answer === HEAD_COMPLETE) assert.equal(show(kernelBlock), show(twinBlock), text())
  if (answer === HEAD_INVALID) {
    assert.equal(i32[(kernelBlock + AT_INVALID_REASON) >> 2], i32[(twinBlock + AT_INVALID_REASON) >> 2], text())
  }
  return answer
}

function mutate(random: Random, text: string): string {
  for (let n = random.below(6); n > 0; n--) {
    const at = random.below(text.length + 1)
    const cut = random.chance(0.5) ? 0 : random.between(1, random.chance(0.8) ? 3 : 40)
    const piece = random.chance(0.15) ? '' : random.chance(0.15) ? random.pick(heads) : random.pick(pieces)
    text = text.slice(0, at) + piece + text.slice(at + cut)
  }
  return random.chance(0.25) ? text.slice(0, random.below(text.length + 1)) : text
}

for (const seed of [1, 2, 3, 4]) {
  test(`kernel and twin agree on damaged heads (seed ${seed})`, () => {
    const random = new Random(seed)
    const answers = new Map<number, number>()
    for (let round = 0; round < 15000; round++) {
      const text = mutate(random, random.pick(heads))
      // Half of the inputs end where the memory ends, so that a stray read traps.
      const end = random.chance(0.5) ? u8.length : middle + text.length + random.below(64)
      place(text, end, random.pick(pieces) + random.pick(heads))
      const kind = random.pick([KIND_REQUEST, KIND_RESPONSE, KIND_EITHER, KIND_EITHER])
      const answer = scanBoth(end - text.length, end, kind)
      answers.set(answer, (answers.get(answer) ?? 0) + 1)
      assert.equal(
        kernel.detectHttp(end - text.length, end, kernelBlock), twin.detectHttp(end - text.length, end, twinBlock),
        text,
      )
    }
    for (const answer of [HEAD_COMPLETE, HEAD_INCOMPLETE, HEAD_INVALID]) assert.ok((answers.get(answer) ?? 0) > 1500)
  })
}

test('kernel and twin agree on any bytes', () => {
  const letter = fc.constantFrom(...'\r\n\t :,/HTTP1.0GET')
  const byte = fc.oneof(letter, fc.integer({ min: 0, max: 255 }).map((c) => String.fromCharCode(c)))
  fc.assert(
    fc.property(fc.array(byte, { maxLength: 150 }), fc.constantFrom('', ...heads), fc.nat(1), (bytes, head, last) => {
      const text = head.slice(0, head.indexOf('\n') + 1) + bytes.join('')
      const end = last === 1 ? u8.length : middle + text.length
      place(text, end, '\n\r\n\r\n: ')
      scanBoth(end - text.length, end, KIND_EITHER)
    }),
    { seed: 7, numRuns: 3000 },
  )
})

test('the answer changes once, from incomplete, as bytes come in; and stays, with the same parts', () => {
  const random = new Random(5)
  for (let round = 0; round < 400; round++) {
    const text = round < heads.length ? heads[round] : mutate(random, random.pick(heads))
    const at = round % 2 === 0 ? u8.length - text.length : middle
    // What is behind the end must not matter: it is the rest of the text, which would complete the head.
    place(text, at + text.length, '')
    let answer = HEAD_INCOMPLETE
    let parts = ''
    for (let length = 0; length <= text.length; length++) {
      const next = scanBoth(at, at + length, KIND_EITHER)
      const detected = twin.detectHttp(at, at + length, kernelBlock)
      if (next === HEAD_COMPLETE) {
        assert.equal(detected, HEAD_COMPLETE)
        assert.ok(i32[(twinBlock + AT_HEAD_END) >> 2] <= at + length)
        if (answer === HEAD_INCOMPLETE) {
          parts = show(twinBlock)
          // The last byte was needed: a head is complete exactly at its end.
          assert.equal(i32[(twinBlock + AT_HEAD_END) >> 2], at + length, JSON.stringify(text))
        }
      } else assert.equal(next === HEAD_INVALID, detected === HEAD_INVALID)
      if (answer !== HEAD_INCOMPLETE) {
        assert.equal(next, answer, JSON.stringify(text.slice(0, length)))
        if (next === HEAD_COMPLETE) assert.equal(show(twinBlock), parts)
      }
      answer = next
    }
  }
})

test('parts do not depend on where in the arena the head lies', () => {
  const offsetFields = [AT_HEAD_END, AT_START, AT_METHOD, AT_URI, AT_REASON, AT_HOST, AT_AUTHORITY]
  for (const text of heads) {
    const results = new Set<string>()
    for (let shift = 0; shift < 70; shift++) {
      const at = middle + shift
      place(text, at + text.length, '\n\n')
      const answer = scanBoth(at, at + text.length, KIND_EITHER)
      if (answer !== HEAD_COMPLETE) continue
      const words = [...i32.subarray(twinBlock >> 2, (twinBlock + HEAD_BLOCK_BYTES) >> 2)]
      for (const field of offsetFields) if (words[field >> 2] !== 0) words[field >> 2] -= shift
      results.add(words.join(' '))
    }
    assert.ok(results.size <= 1, text)
  }
})

test('a response alone is not taken for a request, nor the reverse', () => {
  const response = 'HTTP/1.1 200 OK\r\n\r\n'
  place(response, middle + response.length, '')
  assert.equal(scanBoth(middle, middle + response.length, KIND_REQUEST), HEAD_INVALID)
  assert.equal(scanBoth(middle, middle + response.length, KIND_RESPONSE), HEAD_COMPLETE)
  assert.equal(i32[(twinBlock + AT_KIND) >> 2], KIND_RESPONSE)
  const request = 'GET / HTTP/1.1\r\n\r\n'
  place(request, middle + request.length, '')
  assert.equal(scanBoth(middle, middle + request.length, KIND_RESPONSE), HEAD_INVALID)
  assert.equal(scanBoth(middle, middle + request.length, KIND_EITHER), HEAD_COMPLETE)
  assert.equal(i32[(twinBlock + AT_KIND) >> 2], KIND_REQUEST)
})
