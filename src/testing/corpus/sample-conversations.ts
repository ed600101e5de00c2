/**
 * Conversations with what HTTP/1 has to offer, for tests that must run without the corpus: keep-alive, pipelining,
 * bodies by length, by chunks and up to the close, interim answers, answers without a body, an upgrade, and bytes that
 * are no HTTP at all.
 */

import type { Turn } from './tcp-conversation.ts'

/** The conversations; the same every time. */
export function sampleConversations(): Turn[][] {
  return [
    talk(
      'GET /plain HTTP/1.1\r\nHost: a.example\r\n\r\n',
      'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello',
      'POST /form HTTP/1.1\r\nHost: a.example\r\nContent-Length: 12\r\n\r\nGET / HTTP/1',
      'HTTP/1.1 204 No Content\r\nContent-Length: 99\r\n\r\n',
      'HEAD /long HTTP/1.1\r\nHost: a.example\r\n\r\n',
      'HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n',
      'GET /cached HTTP/1.1\r\nHost: a.example\r\n\r\n',
      'HTTP/1.1 304 Not Modified\r\nContent-Length: 70\r\n\r\n',
    ),
    talk(
      'GET /1 HTTP/1.1\r\nHost: b.example\r\n\r\nGET /2?x=%20y HTTP/1.1\r\nHost: b.example\r\n\r\n'
      + 'PUT /3 HTTP/1.1\r\nHost: b.example\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\nTrailer: x\r\n\r\n'
      + 'GET /4 HTTP/1.1\r\nHost: b.example\r\n\r\n',
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1b;name="v"\r\nHTTP/1.1 500 not a response\r\n0\r\n\r\n'
      + 'HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok'
      + `HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\n${'x'.repeat(3000)}`,
    ),
    talk(
      'POST /upload HTTP/1.1\r\nHost: c.example\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n',
      'HTTP/1.1 100 Continue\r\n\r\n',
      'data',
      'HTTP/1.1 103 Early Hints\r\nLink: </s.css>\r\n\r\nHTTP/1.0 200 OK\r\n\r\nuntil the end',
    ),
    talk(
      'GET /socket HTTP/1.1\r\nHost: d.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n',
      'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n',
      'GET /not-http HTTP/1.1\r\n\r\n',
      'HTTP/1.1 200 not HTTP\r\n\r\n',
    ),
    talk('\x16\x03\x01 no HTTP here\r\n\r\n', '\x16\x03\x03 nor here\r\n\r\n'),
    talk(
      `OPTIONS * HTTP/1.1\nHost: e.example\n\n\r\nGET /${'p'.repeat(500)} HTTP/1.0\r\nHost:\r\n\r\n`,
      'HTTP/1.1 200 OK\nContent-Length: 0\n\nHTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n',
    ),
  ]
}

function talk(...texts: readonly string[]): Turn[] {
  return texts.map((text, index) => ({
    from: index % 2 === 0 ? 'client' : 'server', bytes: new Uint8Array(Buffer.from(text, 'latin1')),
  }))
}
