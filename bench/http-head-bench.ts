/**
 * Time per HTTP head: the plain TypeScript scan, the WebAssembly kernel, and a scan in C with memchr (gcc -O3, its own
 * process), on the same heads in one run. `node bench/http-head-bench.ts`
 *
 * Each size has 64 different heads from a fixed seed, so that branch predictors do not learn one head by heart. Before
 * any time counts, all three print the same digest of everything they found. Medians; the ratio is the claim.
 */

import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { fileURLToPath } from 'node:url'
import { Random } from '../src/base/random.ts'
import { Arena } from '../src/memory/arena.ts'
import {
  AT_ATTRIBUTES, AT_CONTENT_LENGTH, AT_HEAD_END, AT_HOST, AT_HOST_LENGTH, AT_KIND, AT_METHOD_ID, AT_REASON_LENGTH,
  AT_STATUS, AT_URI_LENGTH, AT_VERSION_MAJOR, AT_VERSION_MINOR, HEAD_BLOCK_BYTES,
} from '../src/memory/kernels/http-head-block.ts'
import { type Kernels, loadKernels } from '../src/memory/kernels/kernels.ts'
import { createHeadParser, MessageKind } from '../src/nfs/http/head.ts'

const HEADS = 64
const SAMPLES = 31

const word = (random: Random, low: number, high: number): string => {
  let text = ''
  for (let n = random.between(low, high); n > 0; n--) text += random.pick([...'abcdefghijklmnopqrstuvwxyz0123456789'])
  return text
}
const agent = 'Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0'
const date = 'Tue, 01 Jul 2025 10:20:30 GMT'

/** Fills up with ordinary fields, in random order, to about `bytes`. */
function compose(random: Random, start: string, needed: string[], fill: string[], bytes: number): string {
  const fields = [...needed]
  let length = start.length + 4
  for (const field of fields) length += field.length + 2
  for (const field of fill) {
    if (length + field.length > bytes) continue
    fields.push(field)
    length += field.length + 2
  }
  if (bytes - length > 20) fields.push(`Cookie: ${word(random, bytes - length - 14, bytes - length - 6)}`)
  return `${[start, ...random.shuffle(fields)].join('\r\n')}\r\n\r\n`
}

function request(random: Random, bytes: number): string {
  const method = random.pick(['GET', 'GET', 'GET', 'GET', 'POST', 'HEAD'])
  const host = `Host: ${word(random, 3, 12)}.example.${random.pick(['com', 'org', 'net'])}`
  const needed = method === 'POST' ? [host, `Content-Length: ${random.below(100000)}`] : [host]
  const path = random.chance(0.3) ? '/' : `/${word(random, 2, 10)}/${word(random, 2, bytes < 200 ? 8 : 24)}.html`
  const fill = bytes < 200
    ? [`User-Agent: curl/8.${random.below(20)}.0`, 'Accept: */*']
    : [
        `User-Agent: ${agent}`, 'Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8',
        'Accept-Language: en-US,en;q=0.5', 'Accept-Encoding: gzip, deflate, br', 'Connection: keep-alive',
        `Referer: https://www.example.com/${word(random, 4, 30)}`, 'Upgrade-Insecure-Requests: 1',
        'Sec-Fetch-Dest: document',
        'Sec-Fetch-Mode: navigate', 'Sec-Fetch-Site: same-origin', 'Priority: u=0, i', 'Cache-Control: max-age=0',
        'DNT: 1',
        `If-None-Match: "${word(random, 8, 32)}"`, `If-Modified-Since: ${date}`,
        `X-Request-Id: ${word(random, 32, 32)}`,
      ]
  return compose(random, `${method} ${path} HTTP/1.1`, needed, fill, bytes)
}

function response(random: Random, bytes: number): string {
  const status = random.pick([
    '200 OK', '200 OK', '200 OK', '304 Not Modified', '404 Not Found', '302 Moved Temporarily',
  ])
  const framing = random.chance(0.7) ? `Content-Length: ${random.below(1000000)}` : 'Transfer-Encoding: chunked'
  return compose(random, `HTTP/1.1 ${status}`, [framing], [
    'Server: nginx/1.26.1', `Date: ${date}`, 'Content-Type: text/html; charset=utf-8', `Last-Modified: ${date}`,
    random.chance(0.7) ? 'Connection: keep-alive' : 'Connection: close', `ETag: "${word(random, 8, 20)}"`,
    'Accept-Ranges: bytes', 'Vary: Accept-Encoding', 'Cache-Control: public, max-age=3600', `X-Cache: HIT`,
    'X-Content-Type-Options: nosniff', 'Strict-Transport-Security: max-age=63072000',
    `Set-Cookie: id=${word(random, 16, 32)}`,
  ], bytes)
}

const random = new Random(20240611)
const cases = [
  { name: 'request 120 B', heads: Array.from({ length: HEADS }, () => request(random, 120)) },
  { name: 'request 400 B', heads: Array.from({ length: HEADS }, () => request(random, 400)) },
  { name: 'request 900 B', heads: Array.from({ length: HEADS }, () => request(random, 900)) },
  { name: 'response 350 B', heads: Array.from({ length: HEADS }, () => response(random, 350)) },
]

const arena = new Arena(4 << 20)
const variants: [string, Kernels][] =
  [['TypeScript', loadKernels(arena, { wasm: false })], ['WebAssembly', loadKernels(arena)]]
const parsers = variants.map(([, kernels]) => createHeadParser(arena, kernels))
const block = arena.allocate('bench block', HEAD_BLOCK_BYTES)

function place(heads: readonly string[]): Int32Array {
  const index = new Int32Array(1 + 2 * heads.length)
  index[0] = heads.length
  heads.forEach((head, i) => {
    const at = arena.allocate('bench head', head.length + 4, 2)
    for (let j = 0; j < head.length; j++) arena.u8[at + j] = head.charCodeAt(j)
    index[1 + 2 * i] = at
    index[2 + 2 * i] = head.length
  })
  return index
}

function digestOf(kernels: Kernels, index: Int32Array): number {
  const { i32, f64 } = arena
  let digest = 0
  for (let i = 0; i < index[0]; i++) {
    const at = index[1 + 2 * i]
    const result = kernels.parseHttpHead(at, at + index[2 + 2 * i], MessageKind.Either, block)
    const field = (offset: number): number => i32[(block + offset) >> 2]
    const values = [
      result, field(AT_HEAD_END) - at, field(AT_KIND), field(AT_METHOD_ID), field(AT_URI_LENGTH),
      field(AT_VERSION_MAJOR),
      field(AT_VERSION_MINOR), field(AT_STATUS), field(AT_REASON_LENGTH),
      field(AT_HOST) === 0 ? 0 : field(AT_HOST) - at,
      field(AT_HOST_LENGTH), field(AT_ATTRIBUTES), f64[(block + AT_CONTENT_LENGTH) >> 3],
    ]
    for (const value of values) digest = (Math.imul(digest, 31) + value) | 0
  }
  return digest >>> 0
}

// One loop per variant, so that each call site sees one parser.
const loops = parsers.map((parser) =>
  new Function('parser', 'index', 'rounds', `
    let sum = 0
    for (let r = 0; r < rounds; r++) {
      for (let i = 1; i < index.length; i += 2) {
        const at = index[i]
        sum = (sum + parser.parse(at, at + index[i + 1], 3) + parser.headEnd - at + parser.hostLength) | 0
      }
    }
    return sum`).bind(null, parser) as (index: Int32Array, rounds: number) => number)

/** Compiles the C twin; '' without a compiler. */
function compileTwin(folder: string): string {
  const binary = join(folder, 'http-head-twin')
  try {
    const source = fileURLToPath(new URL('http-head-twin.c', import.meta.url))
    execFileSync('gcc', ['-O3', '-o', binary, source], { stdio: 'pipe' })
    return binary
  } catch {
    return ''
  }
}

/** Runs the C twin over the heads that `index` lists. */
function runTwin(binary: string, folder: string, index: Int32Array, rounds: number): [digest: number, ns: number] {
  const first = index[1]
  const last = index[index.length - 2] + index[index.length - 1]
  const shifted = index.map((value, i) => (i % 2 === 1 ? value - first + index.length * 4 : value))
  const file = join(folder, 'heads')
  writeFileSync(file, Buffer.concat([Buffer.from(shifted.buffer), Buffer.from(arena.u8.slice(first, last))]))
  const [digest, time] = execFileSync(binary, [file, String(rounds), String(SAMPLES)]).toString().split(' ').map(Number)
  return [digest, time]
}

const folder = mkdtempSync(join(tmpdir(), 'nfactor-bench-'))
try {
  const twin = compileTwin(folder)
  if (twin === '') console.log('no gcc: without the C column')
  const median = (times: number[]): number => times.sort((a, b) => a - b)[times.length >> 1]
  console.log(`ns per head, median of ${SAMPLES} | ${HEADS} heads each, average bytes`)
  console.log('case            bytes  TypeScript  WebAssembly        C   TS/C  Wasm/C')
  for (const { name, heads } of cases) {
    const bytes = heads.reduce((sum, head) => sum + head.length, 0) / heads.length
    const index = place(heads)
    const digests = variants.map(([, kernels]) => digestOf(kernels, index))
    const rounds = Math.ceil(2e6 / (bytes * HEADS))
    for (let i = 0; i < 40; i++) for (const loop of loops) loop(index, rounds)
    const times: number[][] = loops.map(() => [])
    for (let sample = 0; sample < SAMPLES; sample++) {
      loops.forEach((loop, i) => {
        const start = performance.now()
        loop(index, rounds)
        times[i].push(((performance.now() - start) * 1e6) / rounds / HEADS)
      })
    }
    const [ts, wasm] = times.map(median)
    const [digest, c] = twin === '' ? [digests[0], NaN] : runTwin(twin, folder, index, rounds)
    if (digests[0] !== digests[1] || digests[0] !== digest) {
      throw new Error(`${name}: digests differ: ${[...digests, digest]}`)
    }
    console.log(
      `${name.padEnd(14)} ${bytes.toFixed(0).padStart(6)} ${ts.toFixed(1).padStart(11)} ` +
      `${wasm.toFixed(1).padStart(12)} ${c.toFixed(1).padStart(8)} ` +
      `${(ts / c).toFixed(2).padStart(6)} ${(wasm / c).toFixed(2).padStart(7)}`,
    )
  }
} finally {
  rmSync(folder, { recursive: true })
}
