/**
 * Fuzzing of the HTTP reader: exchanges of odd messages, damaged or not, over a TCP connection that is cut at any byte. However
 * the bytes come (whole, in bits, repeated, out of order within a flight), the same messages are reported, as long as they are
 * messages: behind bytes that are none, the reader finds its way at the start of a segment. And the kernels agree with their
 * twins.
 */

import type { Random } from '../../base/random.ts'
import http from '../../nfs/http/http.ts'
import { buildFrame, payloadBytes } from '../packet-builder.ts'
import { TestRuntime, type TestPacket, type TestRuntimeOptions } from '../test-runtime.ts'
import { mustEqual, type FuzzTarget } from './fuzz-target.ts'

/** Bytes that one side sends before the other answers. */
interface Flight {
  readonly fromClient: boolean
  readonly bytes: Uint8Array
}

const methods = ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'CONNECT', 'PATCH', 'PROPFIND', 'M-SEARCH', 'get', 'G=T', '']
const targets = ['/', '/a?b=c', '*', 'http://h.example:8080/x', 'h.example:443', `/${'u'.repeat(300)}`, '', '/ /', '\t']
const statuses = ['200 OK', '204 No Content', '304 Not Modified', '100 Continue', '103 Early Hints', '101 Switching Protocols',
  '404', '500 ', '99 No', '1000 No', '2OO OK']
const headers = ['Host: h.example', 'host:h2.example ', 'Content-Length: 0', 'Content-Length: 5', 'Content-Length: 5, 5',
  'Content-Length: +5', 'Content-Length: 99999999999999999999', 'Transfer-Encoding: chunked', 'Transfer-Encoding: gzip, chunked',
  'Transfer-Encoding : chunked', 'Connection: close', 'Connection: Upgrade', 'Upgrade: websocket', 'Upgrade: h2c',
  'Expect: 100-continue', 'X: a\r\n folded', ': empty', 'no colon', `X-Long: ${'v'.repeat(2000)}`, 'X: \u0000\u0001']
const bodies = ['', '', 'hello', '5\r\nhello\r\n0\r\n\r\n', '5;x=y\r\nhello\r\n0\r\nT: v\r\n\r\n', 'ffffffffffffffff\r\n',
  'zz\r\n', 'GET / HTTP/1.1\r\n\r\n', '\r\n']

function message(random: Random, isRequest: boolean): string {
  const version = random.chance(0.9) ? 'HTTP/1.1' : random.pick(['HTTP/1.0', 'HTTP/0.9', 'HTTP/2.0', 'HTP/1.1'])
  const usual = random.chance(0.8)
  const first = isRequest
    ? `${usual ? random.pick(methods.slice(0, 8)) : random.pick(methods)} ${random.pick(usual ? targets.slice(0, 6) : targets)} ${
      version}`
    : `${version} ${random.pick(usual ? statuses.slice(0, 6) : statuses)}`
  const fields = Array.from({ length: random.below(5) }, () => random.pick(headers))
  const end = random.chance(0.95) ? '\r\n' : '\n'
  return `${[first, ...fields].join(end)}${end}${end}${random.pick(bodies)}`
}

function exchange(random: Random): Flight[] {
  const flights = Array.from({ length: random.between(1, 8) }, (_, index): Flight => {
    const fromClient = index % 2 === 0
    const bytes = payloadBytes(Array.from({ length: random.between(1, 3) }, () => message(random, fromClient)).join(''))
    return { fromClient, bytes }
  })
  for (let changes = random.chance(0.5) ? random.below(4) : 0; changes > 0; changes--) {
    const { bytes } = random.pick(flights)
    bytes[random.below(bytes.length)] = random.pick([0, 10, 13, 32, 58, 0x80, random.below(256)])
  }
  return flights
}

/** The flights as frames of one connection. Without random numbers: each flight in whole segments, in order. */
function frames(flights: readonly Flight[], random?: Random): TestPacket[] {
  const next = [1000, 5000]
  const packets: TestPacket[] = []
  const send = (own: number, flags: string, offset: number, payload: Uint8Array): void => {
    packets.push({ frame: buildFrame({
      source: `10.0.0.${1 + own}`, destination: `10.0.0.${2 - own}`,
      tcp: { sourcePort: own === 0 ? 40000 : 80, destinationPort: own === 0 ? 80 : 40000, flags, payload,
        sequence: (next[own] as number) + offset, acknowledgement: next[1 - own] as number },
    }) })
  }
  const none = new Uint8Array(0)
  send(0, 'S', -1, none)
  send(1, 'SA', -1, none)
  for (const { fromClient, bytes } of flights) {
    const own = fromClient ? 0 : 1
    const segments: [number, number][] = []
    for (let at = 0; at < bytes.length;) {
      const length = random === undefined ? 1460 : random.pick([1, random.between(1, 20), random.between(1, 500), 1460])
      segments.push([at, Math.min(bytes.length, at + length)])
      at += length
    }
    if (random?.chance(0.4)) {
      const repeated = random.pick(segments)
      segments.splice(random.below(segments.length), 0, repeated, [repeated[0], Math.min(bytes.length, repeated[1] + 30)])
      if (random.chance(0.5)) random.shuffle(segments)
    }
    for (const [from, to] of segments) send(own, 'PA', from, bytes.subarray(from, to))
    next[own] = (next[own] as number) + bytes.length
  }
  send(0, 'FA', 0, none)
  send(1, 'FA', 0, none)
  return packets
}

interface Reading {
  readonly messages: unknown
  readonly requests: number
  readonly responses: number
  readonly badMessages: number
}

/** The messages of each direction in order, and what the state says in the end. */
function read(packets: readonly TestPacket[], options: TestRuntimeOptions): Reading {
  const runtime = new TestRuntime(http, options)
  runtime.feedAll(packets)
  runtime.finish()
  const { counters, errors, inUse, flows } = runtime.result()
  mustEqual(errors.map(({ error }) => String(error)), [], 'errors')
  mustEqual([inUse.extents, inUse.packets], [0, 0], 'what is in use at the end')
  const { badMessages } = counters.http
  const messages = ['request', 'response'].map((kind) => runtime.records
    .filter(({ event }) => event === kind).map(({ fields, tuple }) => [tuple.sourcePort, fields]))
  const [requests, responses] = [flows[0]?.state.http.requests, flows[0]?.state.http.responses]
  runtime.dispose()
  return { messages, requests, responses, badMessages }
}

export const httpMessages: FuzzTarget = {
  name: 'http',
  about: 'HTTP over TCP: the same messages however the bytes are cut, repeated and reordered, with kernels and without',
  rounds: 150,
  round(random) {
    const flights = exchange(random)
    const whole = frames(flights)
    const expected = read(whole, { garbage: 1 })
    mustEqual(read(whole, { garbage: 2, wasm: false }), expected, 'without kernels')
    if (expected.badMessages > 0) return
    mustEqual(read(frames(flights, random), { garbage: 3, batch: random.between(1, 32), wasm: random.chance(0.5) }), expected,
      'cut another way')
  },
}
