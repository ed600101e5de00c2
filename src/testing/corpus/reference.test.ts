import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { decodeCapture, encodePcap, type CapturedFrame } from './capture-frames.ts'
import { canonicalAddress, directedTuple, flowTuple, protocolName } from './flow-tuple.ts'
import { FragmentAssembly } from './fragment-assembly.ts'
import { FrameCensus } from './frame-census.ts'
import { dissectFrame } from './frame-dissection.ts'
import { findMessages, type ReferenceMessage } from './reference-http.ts'
import { reassembleStreams } from './reference-streams.ts'
import { captureConversations, cutWhole, type Turn } from './tcp-conversation.ts'

function turn(from: Turn['from'], text: string): Turn {
  return { from, bytes: new Uint8Array(Buffer.from(text, 'latin1')) }
}

/** A short text for a message: certain ones plain, others with a question mark. */
function brief(message: ReferenceMessage): string {
  const what = message.kind === 'request' ? `${message.method} ${message.uri}` : String(message.status)
  return message.isCertain ? what : `${what}?`
}

/** The messages of one conversation, after its frames went through `edit`. */
function messagesOf(turns: readonly Turn[], edit: (frames: CapturedFrame[]) => CapturedFrame[] = f => f): string[] {
  return findMessages(edit(captureConversations([turns], cutWhole))).map(brief)
}

/** Drops the frame whose payload starts with `text`. */
function without(text: string): (frames: CapturedFrame[]) => CapturedFrame[] {
  return frames => frames.filter(frame => !Buffer.from(frame.bytes.subarray(54)).toString('latin1').startsWith(text))
}

describe('the reference for HTTP', () => {
  const request = turn('client', 'GET / HTTP/1.1\r\nHost: a\r\n\r\n')

  test('a body of known length carries over a hole', () => {
    const turns = [
      request, turn('server', 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n'), turn('server', 'lost bytes'),
      request, turn('server', 'HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n'),
    ]
    assert.deepEqual(messagesOf(turns, without('lost')), ['GET /', 'GET /', '200', '404'])
  })

  test('behind a lost head the next start line counts, but cannot be demanded', () => {
    const turns = [
      request, turn('server', 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n'), turn('server', 'body'),
      request, turn('server', 'HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n'),
    ]
    assert.deepEqual(messagesOf(turns, without('HTTP/1.1 200')), ['GET /', 'GET /', '404?'])
  })

  test('a malformed request line does not hide the response', () => {
    const turns = [turn('client', 'GET /\r\n\r\n'), turn('server', 'HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n')]
    assert.deepEqual(messagesOf(turns), ['GET /?', '400'])
  })

  test('contradicting lengths end what is certain; equal ones do not', () => {
    const body = 'ok'
    const answer = (lengths: string): Turn => turn('server', `HTTP/1.1 200 OK\r\n${lengths}\r\n\r\n${body}`)
    const last = turn('server', 'HTTP/1.1 204 No\r\n\r\n')
    const lengthsOf = (lengths: string): string[] => messagesOf([request, answer(lengths), request, last]).slice(2)
    assert.deepEqual(lengthsOf('Content-Length: 2\r\nContent-Length: 2'), ['200', '204'])
    assert.deepEqual(lengthsOf('Content-Length: 2\r\nContent-Length: 3'), ['200', '204?'])
    assert.deepEqual(lengthsOf('Transfer-Encoding: gzip\r\nContent-Length: 2'), ['200'])
  })

  test('HTTP ends with a switch of protocols and with a tunnel', () => {
    const after = [turn('client', 'GET /x HTTP/1.1\r\n\r\n'), turn('server', 'HTTP/1.1 200 OK\r\n\r\n')]
    const upgrade = turn('client', 'GET /up HTTP/1.1\r\nUpgrade: b\r\n\r\n')
    assert.deepEqual(messagesOf([upgrade, turn('server', 'HTTP/1.1 101 Go\r\n\r\n'), ...after]), ['GET /up', '101'])
    const connect = turn('client', 'CONNECT a:1 HTTP/1.1\r\n\r\n')
    assert.deepEqual(messagesOf([connect, turn('server', 'HTTP/1.1 200 OK\r\n\r\n'), ...after]), ['CONNECT a:1', '200'])
  })

  test('a capture may start in mid-connection, with either side', () => {
    const turns = [request, turn('server', 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n')]
    assert.deepEqual(messagesOf([...turns, ...turns], frames => frames.slice(4)), ['GET /', '200', '200'])
  })
})

describe('the reference for streams', () => {
  test('the first bytes stay, holes are told, another SYN starts another connection', () => {
    const texts = ['good', 'more', 'end']
    const frames = captureConversations([texts.map(text => turn('client', text))], cutWhole)
    const [good, more, end] = texts.map(text =>
      frames.findIndex(frame => Buffer.from(frame.bytes.subarray(54)).toString('latin1') === text)) as number[]
    const first = frames[good as number] as CapturedFrame
    const evil = { ...first, bytes: first.bytes.slice() }
    evil.bytes.set(Buffer.from('evil'), 54)
    const edited = frames.toSpliced(end as number, 0, evil).toSpliced(more as number, 1)
    const [connection, ...others] = reassembleStreams([...edited, ...edited])
    assert.deepEqual(others, [])
    const stream = connection?.streams[0]
    assert.equal(Buffer.from(stream?.bytes ?? []).toString('latin1'), 'good\0\0\0\0end')
    assert.deepEqual(stream?.holes, [{ start: 4, end: 8 }])
    const again = frames.map(frame => ({ ...frame, bytes: frame.bytes.slice() }))
    again[0]?.bytes.set([1, 2, 3, 4], 38)
    assert.equal(reassembleStreams([...frames, ...again]).length, 2)
  })
})

describe('captures, addresses and fragments', () => {
  test('a capture is read back as it was written, gzipped too', () => {
    const frames = captureConversations([[turn('client', 'x')]], cutWhole)
    assert.deepEqual(decodeCapture(encodePcap(frames)), frames)
    assert.deepEqual(decodeCapture(new Uint8Array(gzipSync(encodePcap(frames)))), frames)
    assert.throws(() => decodeCapture(new Uint8Array(24)), /not a capture file/)
  })

  test('addresses have one form', () => {
    assert.equal(canonicalAddress('2001:DB8::1'), '2001:db8:0:0:0:0:0:1')
    assert.equal(canonicalAddress('::'), '0:0:0:0:0:0:0:0')
    assert.equal(canonicalAddress('::ffff:1.2.3.4'), '0:0:0:0:0:ffff:102:304')
    assert.equal(canonicalAddress('fe80::0001%eth0'), 'fe80:0:0:0:0:0:0:1')
    assert.equal(flowTuple(6, '10.0.0.2', 80, '10.0.0.1', 9), flowTuple('TCP', '10.0.0.1', 9, '10.0.0.2', 80))
    assert.equal(directedTuple('6', '::1', 1, '::2', 2), 'tcp [0:0:0:0:0:0:0:1]:1 > [0:0:0:0:0:0:0:2]:2')
    assert.equal(protocolName('ipv6-icmp'), 'icmpv6')
  })

  test('fragments belong to the flow of their first fragment, and make a whole in any order', () => {
    const payload = turn('client', 'GET /in-fragments HTTP/1.1\r\nHost: a\r\n\r\n'.padEnd(400, '\n'))
    const frames = captureConversations([[payload]], cutWhole)
    const index = frames.findIndex(frame => frame.bytes.length > 400)
    const pieces = fragment(frames[index] as CapturedFrame, 104)
    const tuple = new FrameCensus(frames).entries.keys().next().value ?? ''
    const counts = (order: CapturedFrame[]): unknown => {
      const entry = new FrameCensus(frames.toSpliced(index, 1, ...order)).entries.get(tuple)
      return entry === undefined ? null : [entry.datagrams, entry.frames, entry.earlyFragments]
    }
    assert.equal(pieces.length, 5)
    assert.deepEqual(counts(pieces), [frames.length, frames.length + 4, 0])
    assert.deepEqual(counts(pieces.toReversed()), [frames.length, frames.length, 4])
    assert.deepEqual(counts(pieces.slice(0, 3)), [frames.length - 1, frames.length + 2, 0])
    const assembly = new FragmentAssembly()
    const whole = pieces.toReversed().map(piece => assembly.add(dissectFrame(piece)!)).find(result => result !== null)
    assert.deepEqual(whole?.payload, dissectFrame(frames[index] as CapturedFrame)?.payload)
    assert.deepEqual(findMessages([...frames.slice(0, index), ...pieces]).map(brief), ['GET /in-fragments'])
  })
})

/** Cuts an Ethernet and IPv4 frame into fragments of `size` payload bytes. */
function fragment(frame: CapturedFrame, size: number): CapturedFrame[] {
  const payload = frame.bytes.subarray(34)
  const pieces: CapturedFrame[] = []
  for (let offset = 0; offset < payload.length; offset += size) {
    const part = payload.subarray(offset, offset + size)
    const bytes = new Uint8Array(34 + part.length)
    bytes.set(frame.bytes.subarray(0, 34))
    bytes.set(part, 34)
    const view = new DataView(bytes.buffer)
    view.setUint16(16, 20 + part.length)
    view.setUint16(18, 77)
    view.setUint16(20, offset / 8 | (offset + size < payload.length ? 0x2000 : 0))
    pieces.push({ ...frame, bytes, wireLength: bytes.length })
  }
  return pieces
}
