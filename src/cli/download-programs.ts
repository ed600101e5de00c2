/**
 * A web server and its clients, as programs for other network namespaces: downloads of noise in an even stream, whose digest both ends
 * know. For the demonstration and for tests.
 */

import { spawn, type ChildProcess } from 'node:child_process'

/** Port of the server. */
export const WEB_PORT = 8000

const CHUNK_BYTES = 256 * 1024

/** Serves `/noise?bytes=N&pause=MS`: N bytes in chunks, MS milliseconds between them, their SHA-256 in a trailer. Says `ready` first. */
export const serverProgram = `
const { createServer } = require('node:http')
const { createHash, randomBytes } = require('node:crypto')
createServer((request, response) => {
  const url = new URL(request.url, 'http://x')
  let left = Number(url.searchParams.get('bytes'))
  const hash = createHash('sha256')
  response.writeHead(200, { 'Trailer': 'digest' })
  const next = () => {
    const chunk = randomBytes(Math.min(left, ${CHUNK_BYTES}))
    left -= chunk.length
    hash.update(chunk)
    response.write(chunk)
    if (left > 0) return setTimeout(next, Number(url.searchParams.get('pause')))
    response.addTrailers({ digest: hash.digest('hex') })
    response.end()
  }
  next()
}).listen(${WEB_PORT}, () => { console.log('ready') })`

/** Arguments: host, connections, bytes, pause. Prints a {@link Download} as a line of JSON for each connection when it is over. */
export const clientProgram = `
const { get } = require('node:http')
const { createHash } = require('node:crypto')
const [host, connections, bytes, pause] = process.argv.slice(1)
for (let i = 0; i < Number(connections); i++) {
  const hash = createHash('sha256')
  let received = 0, last = performance.now(), stall = 0
  const fail = (error) => { console.log(JSON.stringify({ received, error: String(error.code || error.message) })) }
  get({ host, port: ${WEB_PORT}, path: '/noise?bytes=' + bytes + '&pause=' + pause, agent: false }, (response) => {
    response.on('data', (chunk) => {
      const now = performance.now()
      stall = Math.max(stall, now - last)
      last = now
      received += chunk.length
      hash.update(chunk)
    })
    response.on('error', fail)
    response.on('end', () => { console.log(JSON.stringify({ received, same: response.trailers.digest === hash.digest('hex'), stall })) })
  }).on('error', fail)
}`

/** Both end when the process that has started them does. */
const END_WITH_PARENT = 'process.stdin.on("end", () => { process.exit(1) }).resume().unref();'

/**
 * Starts one of them in a network namespace, and in a session of its own: as if it ran on another machine, where it takes no core from who
 * started it. Linux shares cores by session, and some versions give one too much whose processes wake each other (docs/operations.md).
 */
export function startProgram(namespace: string, program: string, ...args: string[]): ChildProcess {
  return spawn('ip', ['netns', 'exec', namespace, process.execPath, '-e', END_WITH_PARENT + program, ...args],
    { stdio: ['pipe', 'pipe', 'inherit'], detached: true })
}

/** How a download went. */
export interface Download {
  readonly received: number
  /** What came is what was sent. */
  readonly same?: boolean
  /** The longest time without data, milliseconds. */
  readonly stall?: number
  readonly error?: string
}

/** Reads what a client has printed. */
export function parseDownloads(text: string): Download[] {
  return text.trim().split('\n').filter((line) => line !== '').map((line) => JSON.parse(line) as Download)
}
