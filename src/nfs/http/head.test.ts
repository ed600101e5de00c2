import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Random } from '../../base/random.ts'
import { Arena } from '../../memory/arena.ts'
import { loadKernels } from '../../memory/kernels/kernels.ts'
import {
  type AnomalyName, anomalyNames, createHeadParser, HeadResult, invalidReasons, MessageKind, Method, methodNames,
  Upgrade,
} from './head.ts'

interface Parsed {
  result: number
  method?: string
  methodId?: number
  uri?: string
  version?: string
  status?: number
  reason?: string
  host?: string | null
  authority?: string | null
  headEnd?: number
  start?: number
  contentLength?: number
  /** Names of the boolean fields that are true. */
  says?: string[]
  upgrade?: number
  anomalies?: AnomalyName[]
  invalid?: string
}

function harness(wasm: boolean) {
  const arena = new Arena(1 << 20)
  const parser = createHeadParser(arena, loadKernels(arena, { wasm }))
  const input = arena.allocate('input', 65536)
  const put = (text: string): number => {
    arena.u8.set(Buffer.from(text, 'latin1'), input)
    return input + text.length
  }
  const text = (offset: number, length: number): string =>
    Buffer.from(arena.u8.slice(offset, offset + length)).toString('latin1')
  const parse = (bytes: string, kind: number = MessageKind.Either): Parsed => {
    const result = parser.parse(input, put(bytes), kind)
    if (result === HeadResult.Invalid) return { result, invalid: invalidReasons[parser.invalidReason] }
    if (result === HeadResult.Incomplete) return { result }
    const flags = [
      'chunked', 'transferEncoding', 'otherCoding', 'connectionClose', 'keepAlive', 'persistent', 'connectionUpgrade',
      'expectContinue',
    ] as const
    return {
      result,
      ...(parser.kind === MessageKind.Request
        ? {
            method: text(parser.methodOffset, parser.methodLength), methodId: parser.methodId,
            uri: text(parser.uriOffset, parser.uriLength),
          }
        : { status: parser.status, reason: text(parser.reasonOffset, parser.reasonLength) }),
      version: `${parser.versionMajor}.${parser.versionMinor}`,
      host: parser.hostOffset === 0 ? null : text(parser.hostOffset, parser.hostLength),
      authority: parser.authorityOffset === 0 ? null : text(parser.authorityOffset, parser.authorityLength),
      headEnd: parser.headEnd - input,
      start: parser.startOffset - input,
      contentLength: parser.contentLength,
      says: flags.filter((flag) => parser[flag]),
      upgrade: parser.upgrade,
      anomalies: anomalyNames(parser.anomalies),
    }
  }
  const detect = (bytes: string): number => parser.detect(input, put(bytes))
  return { parser, parse, detect }
}

const OK = 'HTTP/1.1 200 OK\r\n'
const GET = 'GET / HTTP/1.1\r\n'

for (const wasm of [false, true]) {
  const { parser, parse, detect } = harness(wasm)
  /** The parts named in `expected`, of the head `bytes`. */
  const check = (bytes: string, expected: Partial<Parsed>): void => {
    const parsed = parse(bytes) as unknown as Record<string, unknown>
    const seen = Object.fromEntries(Object.keys(expected).map((key) => [key, parsed[key]]))
    assert.deepEqual(seen, expected, JSON.stringify(bytes))
  }
  const say = (fields: string): string[] | undefined => parse(`${GET}${fields}\r\n\r\n`).says
  const anomalies = (bytes: string): AnomalyName[] | undefined => parse(bytes).anomalies
  const name = (what: string): string => `${what} (${wasm ? 'WebAssembly' : 'TypeScript'})`

  test(name('a request'), () => {
    assert.deepEqual(parse('GET /a?b=c HTTP/1.1\r\nHost: example.com:8080\r\nAccept: */*\r\n\r\nrest'), {
      result: HeadResult.Complete, method: 'GET', methodId: Method.GET, uri: '/a?b=c', version: '1.1',
      host: 'example.com:8080',
      authority: null, headEnd: 60, start: 0, contentLength: -1, says: ['persistent'], upgrade: Upgrade.None,
      anomalies: [],
    })
  })

  test(name('a response'), () => {
    assert.deepEqual(parse('HTTP/1.0 404 Not  Found\r\nContent-Length: 12\r\nConnection: Keep-Alive\r\n\r\n'), {
      result: HeadResult.Complete, status: 404, reason: 'Not  Found', version: '1.0', host: null, authority: null,
      headEnd: 71,
      start: 0, contentLength: 12, says: ['keepAlive', 'persistent'], upgrade: Upgrade.None, anomalies: [],
    })
  })

  test(name('every known method has its number, any other token none'), () => {
    methodNames.slice(1).forEach((method, i) => check(`${method} / HTTP/1.1\r\n\r\n`, { method, methodId: i + 1 }))
    for (const method of ['get', 'GE', 'GETS', 'P', 'POS', 'POSTS', 'PUTT', 'X!#$%&\'*+-.^_`|~0', 'M'.repeat(32)]) {
      check(`${method} / HTTP/1.1\r\n\r\n`, { method, methodId: 0 })
    }
    assert.equal(Method.PATCH, methodNames.indexOf('PATCH'))
  })

  test(name('what is no request line'), () => {
    const cases: [string, string][] = [
      ['G@T / HTTP/1.1\r\n', 'method'], [' GET / HTTP/1.1\r\n', 'method'], [`${'M'.repeat(33)} /`, 'method'],
      ['GET\r\n', 'method'],
      ['GET \r\n', 'target'], ['GET /\x01 HTTP/1.1\r\n', 'target'], ['GET /\tHTTP/1.1\r\n', 'target'],
      ['GET / \rHTTP/1.1\r\n', 'target'],
      ['GET / HTTP/1.1\rX', 'version'], ['GET / HTTP/1.1\t\r\n', 'version'], ['GET / http/1.1\r\n', 'version'],
      ['OPTIONS * RTSP/1.0\r\n', 'version'], ['INVITE sip:a@b SIP/2.0\r\n', 'version'],
      ['USER anonymous\r\n', 'version'],
      ['X / HTTP/1.\r\n', 'version'], ['X /\r\n', 'version'], ['GET x\r\n', 'version'], ['GET / a b\r\n', 'version'],
      ['GET HTTP/1.1\r\n', 'version'], ['get /\r\n', 'version'], ['GET / HTTP1.1\r\n', 'version'],
    ]
    for (const [bytes, word] of cases) {
      const parsed = parse(bytes)
      assert.equal(parsed.result, HeadResult.Invalid, JSON.stringify(bytes))
      assert.match(parsed.invalid ?? '', new RegExp(word), JSON.stringify(bytes))
    }
  })

  test(name('what is no status line'), () => {
    for (const version of ['01.1 200', '1.01 200', '1 200', '1.1\t200', 'x.1 200', '1,1 200']) {
      assert.match(parse(`HTTP/${version} OK`).invalid ?? '', /version/, version)
    }
    for (const bytes of ['HTTP/1.1 20 OK', 'HTTP/1.1 2000 OK', 'HTTP/1.1 OK', 'HTTP/1.1 \r\n']) {
      assert.match(parse(bytes).invalid ?? '', /status/, bytes)
    }
    assert.match(parse('RTSP/1.0 200 OK\r\n\r\n', MessageKind.Response).invalid ?? '', /HTTP\//)
    assert.match(parse('GET / HTTP/1.1\r\n\r\n', MessageKind.Response).invalid ?? '', /HTTP\//)
    assert.equal(parse('HTTP/1.1 200 OK\r\n\r\n', MessageKind.Request).result, HeadResult.Invalid)
    assert.equal(parse('HTT', MessageKind.Response).result, HeadResult.Incomplete)
    assert.equal(parse('HTX', MessageKind.Response).result, HeadResult.Invalid)
    check('HTTP /x HTTP/1.1\r\n\r\n', { method: 'HTTP', uri: '/x' })
  })

  test(name('loose status lines'), () => {
    check('HTTP/1.1 200\r\n\r\n', { status: 200, reason: '', anomalies: [] })
    check('HTTP/1.1 200 \r\n\r\n', { status: 200, reason: '', anomalies: [] })
    check('HTTP/1.1 200OK\r\n\r\n', { status: 200, reason: 'OK', anomalies: ['status-suffix'] })
    check('HTTP/1.1   200  OK \t\r\n\r\n', { status: 200, reason: 'OK', anomalies: ['start-line-space'] })
    check('HTTP/1.1 200 O\rK\r\n\r\n', { status: 200, reason: 'O\rK', anomalies: ['bare-cr'] })
    check('HTTP/1.1 200 O\0K\r\n\r\n', { status: 200, reason: 'O\0K', anomalies: ['control-byte'] })
    check('HTTP/1.1 200 O\tK\n\n', { status: 200, reason: 'O\tK', anomalies: ['bare-lf'] })
    check('HTTP/2.0 200 OK\r\n\r\n', { version: '2.0', anomalies: ['odd-version'] })
    check('HTTP/0.9 000 OK\r\n\r\n', { version: '0.9', status: 0, anomalies: ['odd-version'] })
  })

  test(name('loose request lines'), () => {
    check('GET  /a   HTTP/1.1  \r\n\r\n', { uri: '/a', version: '1.1', anomalies: ['start-line-space'] })
    check('GET /a b HTTP/1.0\r\n\r\n', { uri: '/a b', version: '1.0', anomalies: ['target-space'] })
    check('GET /a HTTP/1.1 HTTP/1.0\r\n\r\n', { uri: '/a HTTP/1.1', version: '1.0', anomalies: ['target-space'] })
    check('GET / HTTP/1.\r\n\r\n', { uri: '/', version: '1.0', anomalies: ['odd-version'] })
    check('X / HTTP/5.6\r\n\r\n', { uri: '/', version: '5.6', anomalies: ['odd-version'] })
    check('POST /HTTP/1.1\r\nHost: a\r\n\r\n', { uri: '/HTTP/1.1', version: '1.0', host: 'a' })
    check('POST /HTTP/1.1\r\nHost: a\r\n\r\n', { anomalies: ['no-version'] })
    check('GET /\xc3\xa4 HTTP/1.1\n\n', { uri: '/\xc3\xa4', headEnd: 18, anomalies: ['bare-lf'] })
    check('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', { methodId: Method.PRI, version: '2.0', headEnd: 18 })
  })

  test(name('HTTP/0.9: one line'), () => {
    check('GET /x\r\n', { uri: '/x', version: '0.9', headEnd: 8, says: [], anomalies: ['no-version'] })
    check('GET /x\r\nHost: a\r\n\r\n', { uri: '/x', host: null, headEnd: 8 })
    check('GET /x \n', { uri: '/x', headEnd: 8, anomalies: ['bare-lf', 'start-line-space', 'no-version'] })
    assert.equal(parse('GET /x').result, HeadResult.Incomplete)
  })

  test(name('empty lines before the start line'), () => {
    check('\r\n\n\r\nGET / HTTP/1.1\r\n\r\n', { start: 5, headEnd: 23, method: 'GET', anomalies: [] })
    check('\r\nHTTP/1.1 200 OK\r\n\r\n', { start: 2, status: 200 })
    assert.equal(parse('\r\n\r\n').result, HeadResult.Incomplete)
  })

  test(name('the end of the head'), () => {
    for (const [end, found] of [
      ['\r\n\r\n', []], ['\n\n', ['bare-lf']], ['\r\n\n', ['bare-lf']], ['\n\r\n', ['bare-lf']],
    ] as [string, AnomalyName[]][]) {
      check(`GET / HTTP/1.1${end}X`, { headEnd: 14 + end.length, anomalies: found })
      check(`${GET}A: b${end}X`, { headEnd: 20 + end.length, anomalies: found })
    }
    for (const bytes of [`${GET}A: b\r\n\r`, `${GET}A: b\r\n \r\n`, `${GET}A: b\r\n\r\r\n`, `${GET}\rX\n`]) {
      assert.equal(parse(bytes).result, HeadResult.Incomplete, JSON.stringify(bytes))
    }
  })

  test(name('Host'), () => {
    check(`${GET}HOST:\t a.example \t\r\n\r\n`, { host: 'a.example' })
    check(`${GET}host:\r\n\r\n`, { host: '', anomalies: [] })
    check(`${GET}Host: a\r\nHost: b\r\n\r\n`, { host: 'a', anomalies: ['duplicate-host'] })
    check(`${GET}X-Host: a\r\nHos: b\r\nHosts: c\r\nHost2: d\r\n\r\n`, { host: null })
    check(`${GET}Host:\r\n a.example\r\n\r\n`, { host: 'a.example', anomalies: ['folded-field'] })
    check(`${GET}Host \t: a\r\n\r\n`, { host: 'a', anomalies: ['space-in-field-name'] })
  })

  test(name('the authority of a target, beside Host'), () => {
    check('GET http://u:p@a.example:80/x HTTP/1.1\r\nHost: b\r\n\r\n', { host: 'b', authority: 'a.example:80' })
    check('GET HTTPS://a.example?q HTTP/1.1\r\n\r\n', { authority: 'a.example' })
    check('GET http://a#b HTTP/1.1\r\n\r\n', { authority: 'a' })
    check('GET http:// HTTP/1.1\r\n\r\n', { authority: '' })
    check('CONNECT a.example:443 HTTP/1.1\r\n\r\n', { authority: 'a.example:443' })
    for (const uri of ['/http://a/', '*', 'a.example:443', 'x/http://a', '://a', 'mailto:b']) {
      check(`GET ${uri} HTTP/1.1\r\n\r\n`, { uri, authority: null })
    }
  })

  test(name('Content-Length'), () => {
    const cases: [string, number, AnomalyName[]][] = [
      ['Content-Length: 0', 0, []], ['content-length:0042', 42, []], ['CONTENT-LENGTH: \t7 \t', 7, []],
      ['Content-Length: 9007199254740991', 9007199254740991, []],
      ['Content-Length: 5, 5', 5, ['duplicate-content-length']],
      ['Content-Length: 5\r\nContent-Length: 05', 5, ['duplicate-content-length']],
      ['Content-Length: 5\r\nContent-Length: 6', 5, ['conflicting-content-length']],
      ['Content-Length: 5,6,5', 5, ['duplicate-content-length', 'conflicting-content-length']],
      ['Content-Length: 1\r\nTransfer-Encoding: chunked', 1, ['length-and-encoding']],
    ]
    for (const [fields, contentLength, found] of cases) {
      check(`${GET}${fields}\r\n\r\n`, { contentLength, anomalies: found })
    }
    for (const value of [
      '', '-1', '+1', '4 2', '0x10', '1e3', '5,', ',5', '5;5', '1\x0b', '9007199254740992', '9'.repeat(400), '5, x',
    ]) {
      check(`${GET}Content-Length: ${value}\r\n\r\n`, { contentLength: -1 })
      assert.ok(anomalies(`${GET}Content-Length: ${value}\r\n\r\n`)?.includes('bad-content-length'), value)
    }
    check(`${GET}Content-Length: 5\r\nContent-Length: x\r\n\r\n`, {
      contentLength: -1, anomalies: ['bad-content-length'],
    })
    check(`${GET}Content\rLength: 5\r\nContent_Length: 6\r\nXontent-Length: 7\r\n\r\n`, { contentLength: -1 })
  })

  test(name('Transfer-Encoding'), () => {
    const coding = (fields: string): string[] | undefined => say(fields)?.filter((flag) => flag !== 'persistent')
    assert.deepEqual(coding('Transfer-Encoding: Chunked'), ['chunked', 'transferEncoding'])
    assert.deepEqual(coding('TRANSFER-ENCODING: gzip, chunked'), ['chunked', 'transferEncoding', 'otherCoding'])
    assert.deepEqual(
      coding('Transfer-Encoding: gzip\r\ntransfer-encoding: chunked'), ['chunked', 'transferEncoding', 'otherCoding'])
    assert.deepEqual(coding('Transfer-Encoding: identity'), ['transferEncoding'])
    assert.deepEqual(coding('Transfer-Encoding: identity, , chunked,'), ['chunked', 'transferEncoding'])
    assert.deepEqual(coding('Transfer-Encoding:'), ['transferEncoding'])
    for (const value of [
      'chunkedchunked', 'xchunked', 'chunked;a=b', '"chunked"', 'chunked\x0b', 'chunked\r\n abc', 'chunke',
    ]) {
      assert.deepEqual(coding(`Transfer-Encoding: ${value}`), ['transferEncoding', 'otherCoding'], value)
    }
    for (const value of ['chunked, gzip', 'chunked, identity', 'chunked\r\nTransfer-Encoding: x']) {
      assert.deepEqual(coding(`Transfer-Encoding: ${value}`), ['transferEncoding', 'otherCoding'], value)
      assert.deepEqual(anomalies(`${OK}Transfer-Encoding: ${value}\r\n\r\n`), ['chunked-not-final'])
    }
    check(`${OK}Transfer-Encoding: chunked, chunked\r\n\r\n`, { anomalies: ['chunked-not-final'] })
    assert.deepEqual(coding('Transfer-Encodinx: chunked\r\nTransfer_Encoding: chunked'), [])
  })

  test(name('Connection, Upgrade, Expect'), () => {
    assert.deepEqual(say('Connection: close'), ['connectionClose'])
    assert.deepEqual(say('CONNECTION: TE,Close ,x'), ['connectionClose'])
    assert.deepEqual(say('Connection: Keep-Alive'), ['keepAlive', 'persistent'])
    assert.deepEqual(say('Connection: keep-alive\r\nConnection: close'), ['connectionClose', 'keepAlive'])
    assert.deepEqual(say('Connection: a,\r\n upgrade, ,KEEP-ALIVE'), ['keepAlive', 'persistent', 'connectionUpgrade'])
    assert.deepEqual(say('Connection: closed, xclose, keep_alive, keep-aliv, upgrad'), ['persistent'])
    assert.deepEqual(say('Proxy-Connection: close'), ['persistent'])
    assert.deepEqual(parse('GET / HTTP/1.0\r\n\r\n').says, [])
    assert.deepEqual(parse('GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n').says, ['keepAlive', 'persistent'])
    assert.deepEqual(say('Expect: 100-Continue'), ['persistent', 'expectContinue'])
    assert.deepEqual(say('Expect: 100-continues\r\nExpec: 100-continue'), ['persistent'])
    const upgrade = (value: string): number | undefined => parse(`${GET}Upgrade: ${value}\r\n\r\n`).upgrade
    assert.equal(upgrade('WebSocket'), Upgrade.WebSocket)
    assert.equal(upgrade('h2c'), Upgrade.H2c)
    assert.equal(upgrade('HTTP/2.0, H2C, websockets'), Upgrade.H2c | Upgrade.Other)
    assert.equal(upgrade(''), Upgrade.None)
    assert.deepEqual(say('Upgrade: h2c'), ['persistent'])
  })

  test(name('anomalies of lines'), () => {
    const cases: [string, AnomalyName[]][] = [
      ['A: b\0c', ['control-byte']], ['A: b\x1f', ['control-byte']], ['A:\tb\tc', []], ['A: b\x7f\x80\xff', []],
      ['A: b\rc', ['bare-cr']], ['A: b\nB: c', ['bare-lf']], ['A: b\r\n\tc', ['folded-field']],
      ['A B: c', ['space-in-field-name']], ['A : c', ['space-in-field-name']],
      ['A-Name-Of-16-Byte : c', ['space-in-field-name']],
      ['no colon', ['malformed-field']], ['x', ['malformed-field']], [': a', ['malformed-field']],
      [':', ['malformed-field']],
      ['::', ['malformed-field']], ['a-very-long-line-without-any-colon-at-all', ['malformed-field']],
      ['A-Long-Name-Of-More-Than-32-Bytes-Is-Fine: a', []], ['A::b', []], ['\rA: b', ['bare-cr', 'malformed-field']],
    ]
    for (const [line, found] of cases) {
      // As the first, a middle and the last line.
      assert.deepEqual(anomalies(`${GET}${line}\r\n\r\n`), found, JSON.stringify(line))
      assert.deepEqual(anomalies(`${OK}Server: x\r\n${line}\r\nDate: y\r\n\r\n`), found, JSON.stringify(line))
    }
    check(`${GET} Content-Length: 5\r\nHost: a\r\n\r\n`, { contentLength: -1, host: 'a', anomalies: ['folded-field'] })
    check(`${GET}A: b\r\n Content-Length: 5\r\n\tHost: x\r\nHost: a\r\n\r\n`, { contentLength: -1, host: 'a' })
    check(`${GET}name\r\n : value\r\n\r\n`, { anomalies: ['folded-field', 'malformed-field'] })
  })

  test(name('nothing remains of the head before'), () => {
    parse(`${GET}Host: a\r\nContent-Length: 5\r\nConnection: close\r\nUpgrade: x\r\nA\r\n\r\n`)
    check(`${OK}\r\n`, { host: null, contentLength: -1, says: ['persistent'], upgrade: 0, anomalies: [] })
    assert.equal(parser.methodLength + parser.uriLength, 0)
    check(`${GET}\r\n`, { anomalies: [], host: null })
    assert.equal(parser.status + parser.reasonLength, 0)
  })

  test(name('detection of HTTP by content'), () => {
    parse(`${OK}Content-Length: 5\r\n\r\n`)
    for (const yes of [
      'GET / HTTP/1.1\r\n', '\r\nPOST /a HTTP/1.0\n', 'HTTP/1.1 200 OK\r\nServer', 'GET /old\r\n', 'x y HTTP/1.1\r\n',
    ]) {
      assert.equal(detect(yes), HeadResult.Complete, JSON.stringify(yes))
    }
    for (const early of [
      '', 'G', 'GET', 'GET ', 'GET /', 'GET / HTTP/1.1\r', 'H', 'HTTP/', 'HTTP/1.1 200 O', '\r\n', 'SSH-2.0-OpenSSH',
    ]) {
      assert.equal(detect(early), HeadResult.Incomplete, JSON.stringify(early))
    }
    const random = new Random(3)
    const binary = Array.from({ length: 200 }, () => String.fromCharCode(random.below(256))).join('')
    for (const no of [
      '\x16\x03\x01', '\x16', 'SSH-2.0-OpenSSH_9.2\r\n', 'SSH-2.0-dropbear x\r\n', '220 mail ESMTP\r\n', 'EHLO a\r\n',
      '* OK IMAP\r\n',
      '+OK\r\n', '{"jsonrpc":', '\0\0\0\x2a', 'RTSP/1.0 200 OK\r\n', 'HTTP/1.1 2x', binary, 'BitTorrent protocol\x13',
      '\x80\x2e\x01',
    ]) {
      assert.equal(detect(no), HeadResult.Invalid, JSON.stringify(no))
    }
    assert.equal(parser.contentLength, 5, 'detection leaves the results alone')
  })

  test(name('random proper heads say what they were made from'), () => {
    const random = new Random(11)
    const anyCase = (text: string): string =>
      [...text].map((c) => (random.chance(0.5) ? c.toUpperCase() : c.toLowerCase())).join('')
    const letters = [...'abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-_']
    const token = (low: number, high: number): string =>
      Array.from({ length: random.between(low, high) }, () => random.pick(letters)).join('')
    for (let round = 0; round < 1500; round++) {
      const host = random.chance(0.7) ? `${token(1, 40)}.${token(2, 5)}` : null
      const length = random.chance(0.4) ? random.below(2 ** 31) : -1
      const codings =
        length === -1 && random.chance(0.4) ? random.pick([['chunked'], ['gzip', 'chunked'], ['gzip']]) : []
      const tokens = random.shuffle(['close', 'keep-alive', 'upgrade', 'x', 'te']).slice(0, random.below(4))
      const fields: [string, string][] = []
      if (host !== null) fields.push(['host', host])
      if (length !== -1) fields.push(['content-length', String(length)])
      if (codings.length > 0) {
        fields.push(['transfer-encoding', codings.map(anyCase).join(random.pick([',', ', ', ' ,\t']))])
      }
      if (tokens.length > 0) fields.push(['connection', tokens.map(anyCase).join(random.pick([',', ', ']))])
      for (let n = random.below(12); n > 0; n--) {
        fields.push([`x${token(1, 30)}`, `${token(0, 60)} ${token(0, 60)}:${token(1, 9)}`])
      }
      random.shuffle(fields)
      const start = random.chance(0.5)
        ? `${random.pick(['GET', 'POST', 'FOO'])} /${token(0, 90)} HTTP/1.1`
        : `HTTP/1.1 200 ${token(0, 30)}`
      const lines = fields.map(([key, value]) =>
        `${anyCase(key)}:${random.pick(['', ' ', '\t', '  '])}${value}${random.pick(['', ' '])}`)
      const bytes = `${[start, ...lines].join('\r\n')}\r\n\r\n`
      const said = [
        codings.at(-1) === 'chunked' && 'chunked', codings.length > 0 && 'transferEncoding',
        codings.includes('gzip') && 'otherCoding',
        tokens.includes('close') && 'connectionClose', tokens.includes('keep-alive') && 'keepAlive',
        !tokens.includes('close') && 'persistent', tokens.includes('upgrade') && 'connectionUpgrade',
      ].filter((flag): flag is string => flag !== false)
      check(`${bytes}${token(0, 20)}`, {
        result: HeadResult.Complete, headEnd: bytes.length, host, contentLength: length, says: said, anomalies: [],
        ...(start.startsWith('HTTP') ? { reason: start.slice(13) } : { uri: start.split(' ')[1] }),
      })
    }
  })
}
