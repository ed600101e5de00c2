import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { runPackets, TcpConversation, type RunPacketsOptions, type TestPacket, type TestResult } from '../../testing/index.ts'
import http from './http.ts'

const run = (packets: readonly TestPacket[], options: RunPacketsOptions = {}): TestResult => runPackets(http, packets, options)

/** Messages in order: requests as `METHOD host uri`, responses as their status. */
const messages = ({ records }: TestResult): (string | number)[] => records.map(({ event, fields }) =>
  event === 'request' ? `${fields['method']} ${fields['host']} ${fields['uri']}` : Number(fields['status']))

/** What was counted, without zeroes, requests and responses left out. */
const oddities = ({ counters }: TestResult): Record<string, number> => Object.fromEntries(Object.entries(counters['http'] ?? {})
  .filter(([name, count]) => count !== 0 && name !== 'requests' && name !== 'responses'))

const get = (uri: string, more = ''): string => `GET ${uri} HTTP/1.1\r\nHost: h.example\r\n${more}\r\n`
const ok = (body = ''): string => `HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${body}`

/** A connection on which the sides speak in turn, the client first. */
function speak(...turns: readonly string[]): TcpConversation {
  const conversation = new TcpConversation().open()
  turns.forEach((text, index) => (index % 2 === 0 ? conversation.client(text) : conversation.server(text)))
  return conversation
}

describe('messages', () => {
  test('a request and its response, in records, counters and state', () => {
    const result = run(speak(get('/x?y'), ok('hello')).close().packets)
    assert.deepEqual(result.records.map(({ event, fields }) => [event, fields]), [
      ['request', { method: 'GET', host: 'h.example', uri: '/x?y', version: 'HTTP/1.1' }],
      ['response', { status: 200, version: 'HTTP/1.1' }],
    ])
    assert.deepEqual(result.records.map(({ tuple }) => tuple.source), ['10.0.0.1', '10.0.0.2'], 'in the sense of the message')
    const { requests, responses, method, host, uri, status } = result.flows[0]?.state['http'] ?? {}
    assert.deepEqual([requests, responses, method, host, uri, status], [1, 1, 'GET', 'h.example', '/x?y', 200])
    assert.equal(result.outputs.length, result.statistics.received)
  })

  test('the state keeps the last message, its URI cut', () => {
    const result = run(speak(get('/a'), ok(), get(`/${'b'.repeat(300)}`), 'HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n').packets)
    const { uri, status } = result.flows[0]?.state['http'] ?? {}
    assert.deepEqual([uri.length, uri.slice(0, 3), status], [256, '/bb', 404])
    assert.equal(String(result.records[2]?.fields['uri']).length, 301)
  })

  test('segments may be cut at any byte', () => {
    const chunked = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\nA\r\n0123456789\r\n0\r\nT: v\r\n\r\n'
    const expected = ['GET h.example /1', 'GET h.example /2', 200, 200]
    for (let segmentBytes = 1; segmentBytes < 120; segmentBytes++) {
      const conversation = new TcpConversation({ segmentBytes }).open()
      conversation.client(get('/1') + get('/2')).server(chunked + ok('x'))
      const result = run(conversation.close().packets)
      assert.deepEqual(messages(result), expected, `segments of ${segmentBytes}`)
      assert.deepEqual(oddities(result), {})
      assert.equal(result.inUse.extents, 0)
    }
  })

  test('keep-alive and pipelining; HEAD, 1xx, 204 and 304 have no body', () => {
    const head = 'HEAD /h HTTP/1.1\r\nHost: h\r\n\r\n'
    const post = 'POST /p HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n'
    const result = run(speak(
      head + get('/a') + get('/b'),
      'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n' +
        'HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n',
      post, 'HTTP/1.1 100 Continue\r\n\r\n', 'abc', 'HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n' + ok('done'), get('/c'), ok(),
    ).packets)
    assert.deepEqual(messages(result), ['HEAD h /h', 'GET h.example /a', 'GET h.example /b', 200, 204, 304, 'POST h /p', 100, 103,
      200, 'GET h.example /c', 200])
    assert.deepEqual(oddities(result), {})
  })

  test('a body without a length lasts until the end', () => {
    const result = run(speak(get('/'), `HTTP/1.0 200 OK\r\n\r\n${ok('not a message')}`).close('server').packets)
    assert.deepEqual(messages(result), ['GET h.example /', 200])
  })

  test('what follows an upgrade or CONNECT is no HTTP', () => {
    const inside = get('/inside')
    const switching = 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n'
    for (const [first, second, expected] of [
      [get('/ws', 'Connection: Upgrade\r\nUpgrade: websocket\r\n'), switching, ['GET h.example /ws', 101]],
      [get('/', 'Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n'), switching, ['GET h.example /', 101]],
      ['CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n', 'HTTP/1.1 200 OK\r\n\r\n', ['CONNECT h:443 h:443', 200]],
    ] as const) {
      const result = run(speak(first, second + ok(), inside, ok()).packets)
      assert.deepEqual(messages(result), expected)
      assert.deepEqual(oddities(result), { upgrades: 1 })
    }
    const refused = run(speak('CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n', 'HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n',
      inside, ok()).packets)
    assert.deepEqual(messages(refused), ['CONNECT h:443 h:443', 403, 'GET h.example /inside', 200])
    const http2 = run(speak('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', ok()).packets)
    assert.deepEqual(messages(http2), [], 'HTTP/2 from the start')
  })

  test('what is not HTTP costs nothing', () => {
    const result = run(speak('SSH-2.0-OpenSSH\r\n', 'SSH-2.0-OpenSSH\r\n', get('/')).packets, { finish: false })
    assert.deepEqual([messages(result), oddities(result), result.inUse.extents], [[], {}, 0])
  })

  test('a connection whose beginning was not seen', () => {
    const { packets } = speak(get('/a'), ok('x'.repeat(2000)), get('/b'), ok())
    assert.deepEqual(messages(run(packets.slice(3))), ['GET h.example /a', 200, 'GET h.example /b', 200])
    const inBody = run(packets.slice(7))
    assert.deepEqual(messages(inBody), ['GET h.example /b', 200], 'from the midst of a body')
  })
})

describe('the stream', () => {
  const text = get('/one') + get('/two')

  test('segments that repeat, and come in any order', () => {
    const conversation = new TcpConversation().open()
    for (const at of [40, 80, 20, 60, 0, 40, 0]) conversation.resend('client', at, text.slice(at, at + 20))
    const result = run(conversation.packets)
    assert.deepEqual(messages(result), ['GET h.example /one', 'GET h.example /two'])
    assert.equal(result.inUse.extents, 0)
  })

  test('where segments disagree about a byte, the first or the last one counts, as configured', () => {
    for (const [overlap, uri] of [['first', '/one'], ['last', '/two']] as const) {
      const conversation = new TcpConversation().open()
      // Both come before the start of the message.
      conversation.resend('client', 4, get('/one').slice(4)).resend('client', 4, get('/two').slice(4)).resend('client', 0, 'GET ')
      assert.deepEqual(messages(run(conversation.packets, { config: { overlap } })), [`GET h.example ${uri}`], overlap)
    }
  })

  /** The client's stream without the segments at these places; the server acknowledges it all. */
  function withHoles(stream: string, segmentBytes: number, lost: readonly number[]): TestPacket[] {
    const conversation = new TcpConversation({ segmentBytes }).open()
    const start = conversation.packets.length
    conversation.client(stream)
    return conversation.packets.filter((_, index) => !lost.includes((index - start) / 2))
  }

  test('after a loss, reading goes on at the next message', () => {
    const size = get('/1').length
    const result = run(withHoles([1, 2, 3, 4].map((n) => get(`/${n}`)).join(''), size, [1]))
    assert.deepEqual(messages(result), ['GET h.example /1', 'GET h.example /3', 'GET h.example /4'])
    assert.deepEqual(oddities(result), { gaps: 1 })
  })

  test('a loss within a body of known length loses nothing', () => {
    const post = 'POST / HTTP/1.1\r\nHost: h.example\r\nContent-Length: 500\r\n\r\n'
    const result = run(withHoles(post + 'x'.repeat(500) + get('/next'), 100, [2, 3]))
    assert.deepEqual(messages(result), ['POST h.example /', 'GET h.example /next'])
    assert.deepEqual(oddities(result), {})
  })

  test('bytes that are no message: counted, and the next message is found', () => {
    const result = run(speak(get('/a'), ok(), 'what?\r\n\r\n', ok(), get('/b'), ok()).packets)
    assert.deepEqual(messages(result), ['GET h.example /a', 200, 200, 'GET h.example /b', 200])
    assert.deepEqual(oddities(result), { badMessages: 1 })
  })
})

describe('memory is bounded', () => {
  test('a head of more than 31 KB is passed over', () => {
    const long = get('/long', `X: ${'x'.repeat(40_000)}\r\n`)
    const result = run(speak(long, ok(), get('/next'), ok()).packets)
    assert.deepEqual(messages(result), [200, 'GET h.example /next', 200])
    assert.deepEqual(oddities(result), { oversizedHeads: 1 })
    const fits = run(speak(get('/', `X: ${'x'.repeat(30_000)}\r\n`)).packets)
    assert.deepEqual(messages(fits), ['GET h.example /'])
  })

  test('early segments are kept up to 63 KB; beyond it the hole is given up', () => {
    const conversation = new TcpConversation().open()
    const body = 'x'.repeat(1400)
    for (let n = 1; n <= 60; n++) conversation.resend('client', n * 1400, body)
    const runtime = run(conversation.packets, { finish: false })
    assert.equal(runtime.counters['http']?.['gaps'], 1)
    assert.ok(runtime.inUse.extents <= 128 + 1, `${runtime.inUse.extents} extents`)
  })

  test('without extents messages are counted and recorded all the same, heads in pieces are not kept', () => {
    const conversations = [1, 2, 3, 4].map((n) => new TcpConversation({ clientPort: 4000 + n }).open())
    // Four connections wait for the rest of a head of 3 KB, of which two find room.
    for (const conversation of conversations) conversation.client(get('/big', `X: ${'x'.repeat(3000)}\r\n`).slice(0, -2))
    for (const conversation of conversations) conversation.client('\r\n').client(get('/small'))
    const packets = conversations.flatMap((conversation) => conversation.packets).sort((a, b) => a.time - b.time)
    const result = run(packets, { limits: { extentBytes: 8192 } })
    assert.equal(result.errors.length, 0)
    assert.ok((result.counters['http']?.['noRoom'] as number) > 0)
    assert.equal(messages(result).filter((message) => message === 'GET h.example /small').length, 4)
    assert.equal(result.inUse.extents, 0)
  })
})
