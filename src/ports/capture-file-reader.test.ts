import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { closeSync, createWriteStream, mkdtempSync, openSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { CodedError } from '../base/coded-error.ts'
import { Random } from '../base/random.ts'
import { CaptureRecorder } from '../wire/capture-recorder.ts'
import { PcapWriter } from '../wire/pcap.ts'
import { openCaptureReader } from './capture-file-reader.ts'
import type { CaptureEnding } from './capture-file-reader.ts'

const folder = mkdtempSync(join(tmpdir(), 'nfactor-capture-reader-'))
after(() => rmSync(folder, { recursive: true }))

/** A capture of `count` packets of 100 bytes, which can be compressed to about a half. */
function makeCapture(count: number): Buffer {
  const random = new Random(5)
  const bytes = new Uint8Array(100)
  const parts: Buffer[] = []
  const writer = new PcapWriter({ write: (bytes, n) => void parts.push(Buffer.from(bytes.subarray(0, n))) })
  writer.interfaceAdded(0, 1, 0, true)
  for (let i = 0; i < count; i++) {
    random.fill(bytes)
    writer.packet(bytes.map(byte => byte & 15), 0, 100, 100, i, 0, 0)
  }
  writer.flush()
  return Buffer.concat(parts)
}

function save(name: string, bytes: Uint8Array | string): string {
  const path = join(folder, name)
  writeFileSync(path, bytes)
  return path
}

interface Read {
  readonly count: number
  readonly ending: CaptureEnding
}

async function readFile(path: string): Promise<Read> {
  let count = 0
  const reader = await openCaptureReader(path)
  const ending = await reader.readInto({
    packet(_bytes, _offset, _captured, _original, seconds) {
      if (seconds === count) count++
    },
  })
  return { count, ending }
}

async function codedError(promise: Promise<unknown>): Promise<CodedError> {
  try {
    await promise
  } catch (error) {
    assert.ok(error instanceof CodedError, String(error))
    return error
  }
  assert.fail('there should be an error')
}

const complete: CaptureEnding = { state: 'complete', reason: '', format: 'pcap' }
// Some chunks long.
const large = makeCapture(9000)
const small = makeCapture(40)

test('a plain file is read whole, with its progress', async () => {
  const path = save('large.pcap', large)
  const reader = await openCaptureReader(path)
  assert.equal(reader.totalBytes, large.length)
  assert.equal(reader.name, path)
  const capture = new CaptureRecorder()
  const progress: number[] = []
  assert.deepEqual(await reader.readInto(capture, () => void progress.push(reader.positionBytes)), complete)
  assert.equal(capture.packets.length, 9000)
  assert.deepEqual(capture.packets.map(p => p.seconds), Array.from({ length: 9000 }, (_, i) => i))
  assert.ok(progress.length > 3)
  assert.deepEqual(progress, progress.toSorted((a, b) => a - b))
  assert.equal(progress.at(-1), large.length)
  assert.equal(reader.isCompressed, false)
})

test('a compressed file is told by its bytes, not by its name', async () => {
  const compressed = gzipSync(large)
  const reader = await openCaptureReader(save('compressed.pcap', compressed))
  let count = 0
  assert.deepEqual(await reader.readInto({ packet: () => void count++ }), complete)
  assert.equal(count, 9000)
  assert.equal(reader.isCompressed, true)
  assert.equal(reader.totalBytes, compressed.length)
  assert.equal(reader.positionBytes, compressed.length)
  assert.deepEqual(await readFile(save('plain.pcap.gz', large)), { count: 9000, ending: complete })
})

test('gzip members may follow one another, and zero bytes may follow them', async () => {
  const members: Buffer[] = []
  for (let at = 0; at < large.length; at += 70_001) members.push(gzipSync(large.subarray(at, at + 70_001)))
  members.splice(3, 0, gzipSync(''))
  assert.deepEqual(await readFile(save('members.gz', Buffer.concat(members))), { count: 9000, ending: complete })
  const padded = Buffer.concat([gzipSync(small), Buffer.alloc(100_000)])
  assert.deepEqual(await readFile(save('padded.gz', padded)), { count: 40, ending: complete })
})

test('a compressed file that is cut off anywhere gives what is there, and a warning', async () => {
  const compressed = gzipSync(small)
  let before = 0
  for (let length = 200; length < compressed.length; length += 97) {
    const { count, ending } = await readFile(save('cut.gz', compressed.subarray(0, length)))
    assert.equal(ending.state, 'truncated')
    assert.equal(ending.reason, `the compressed file is cut off after ${length} bytes`)
    assert.ok(count >= before)
    before = count
  }
  assert.ok(before > 30)
  // In the trailer: all packets are there.
  const trailer = await readFile(save('cut.gz', compressed.subarray(0, -3)))
  assert.deepEqual([trailer.count, trailer.ending.state], [40, 'truncated'])
  const first = await codedError(readFile(save('cut.gz', compressed.subarray(0, 12))))
  assert.equal(first.code, 'NF_CAPTURE_FORMAT')
  assert.match(first.message, /compressed with gzip, but the compressed file is cut off after 12 bytes/)
})

test('damaged compression, and something else behind it, give almost all of what is in front', async () => {
  const compressed = gzipSync(large)
  const damaged = Buffer.from(compressed)
  damaged.fill(0xff, compressed.length >> 1, (compressed.length >> 1) + 5000)
  const inTheMiddle = await readFile(save('damaged.gz', damaged))
  assert.equal(inTheMiddle.ending.state, 'damaged')
  assert.ok(inTheMiddle.count > 4200 && inTheMiddle.count < 4600, String(inTheMiddle.count))
  const behind = await readFile(save('garbage.gz', Buffer.concat([compressed, Buffer.from('something else')])))
  assert.equal(behind.ending.state, 'damaged')
  assert.match(behind.ending.reason, /the compressed data are damaged after about \d+ bytes \(.+\)/)
  assert.ok(behind.count > 8700, String(behind.count))
})

test('a capture that breaks off is no error', async () => {
  const cut = await readFile(save('cut.pcap', small.subarray(0, -5)))
  assert.equal(cut.count, 39)
  assert.deepEqual(cut.ending, {
    state: 'truncated', format: 'pcap',
    reason: `the capture ends in the middle of the last record, at byte ${24 + 39 * 116}`,
  })
  const damaged = Buffer.from(small)
  damaged.writeUInt32LE(0xffffffff, 24 + 10 * 116 + 8)
  const broken = await readFile(save('damaged.pcap', damaged))
  assert.equal(broken.count, 10)
  assert.deepEqual(broken.ending, {
    state: 'damaged', format: 'pcap',
    reason: `a packet claims 4294967295 captured bytes, at byte ${24 + 10 * 116 + 8}`,
  })
  const compressed = await readFile(save('damaged.pcap.gz', gzipSync(damaged)))
  assert.match(compressed.ending.reason, /at byte \d+ of the decompressed capture$/)
})

test('behind damage nothing is read any more', async () => {
  const damaged = Buffer.from(large)
  damaged.writeUInt32LE(0xffffffff, 24 + 8)
  const reader = await openCaptureReader(save('damaged.pcap', damaged))
  assert.equal((await reader.readInto(new CaptureRecorder())).state, 'damaged')
  assert.ok(reader.positionBytes < large.length)
})

test('files that are no captures are errors that say what, where and how to mend it', async () => {
  const cases: [string, CodedError['code'], RegExp][] = [
    [join(folder, 'missing.pcap'), 'NF_FILE_NOT_FOUND', /missing\.pcap does not exist/],
    [join(save('file', 'x'), 'below'), 'NF_FILE_NOT_FOUND', /does not exist/],
    [folder, 'NF_FILE_UNREADABLE', /is a directory/],
    ['/proc/self/mem', 'NF_FILE_UNREADABLE', /\/proc\/self\/mem cannot be read: EIO/],
    [save('empty.pcap', ''), 'NF_CAPTURE_EMPTY', /empty\.pcap is empty/],
    [save('empty.gz', gzipSync('')), 'NF_CAPTURE_EMPTY', /is empty once decompressed/],
    ['/dev/null', 'NF_CAPTURE_EMPTY', /\/dev\/null is empty/],
    [save('text', 'rules:\n  - allow'), 'NF_CAPTURE_FORMAT', /it looks like text that begins with "rules:/],
    ['/dev/zero', 'NF_CAPTURE_FORMAT', /\/dev\/zero is not .* it looks like nothing but zero bytes/],
    [save('escape', '\x1fA'), 'NF_CAPTURE_FORMAT', /it looks like unknown data that begins with 1f 41/],
    [save('one', 'r'), 'NF_CAPTURE_FORMAT', /it looks like text/],
    [save('text.gz', gzipSync('rules:')), 'NF_CAPTURE_FORMAT', /inside of its gzip compression: it looks like text/],
    [process.execPath, 'NF_CAPTURE_FORMAT', /it looks like an ELF program/],
    [save('header', small.subarray(0, 20)), 'NF_CAPTURE_FORMAT', /begins like a capture, but the capture ends in/],
    [save('version', Buffer.from('d4c3b2a10900', 'hex').toString('latin1') + 'x'.repeat(30)), 'NF_CAPTURE_FORMAT', /./],
  ]
  const openBefore = readdirSync('/proc/self/fd').length
  for (const [path, code, message] of cases) {
    const error = await codedError(readFile(path))
    assert.equal(error.code, code, error.message)
    assert.match(error.message, message)
    assert.ok(!error.message.endsWith('.'))
    if (path !== '/proc/self/mem') assert.notEqual(error.mend, '')
  }
  assert.equal(readdirSync('/proc/self/fd').length, openBefore)
})

test('a file without permission', { skip: process.getuid?.() === 0 ? 'root may read everything' : false }, async () => {
  const path = save('secret.pcap', small)
  spawnSync('chmod', ['000', path])
  assert.equal((await codedError(readFile(path))).code, 'NF_FILE_UNREADABLE')
})

test('what the sink throws closes the file', async () => {
  const openBefore = readdirSync('/proc/self/fd').length
  const reader = await openCaptureReader(save('large.pcap', large))
  await assert.rejects(reader.readInto({ packet: () => { throw new Error('no more') } }), /no more/)
  assert.equal(readdirSync('/proc/self/fd').length, openBefore)
})

test('the reading can be stopped', async () => {
  for (const bytes of [large, gzipSync(large)]) {
    const stop = new AbortController()
    const reader = await openCaptureReader(save('large.pcap', bytes), stop.signal)
    let count = 0
    const ending = await reader.readInto({ packet: () => void count++ }, () => stop.abort())
    assert.equal(ending.state, 'aborted')
    assert.ok(count > 0 && count < 9000, String(count))
  }
  const reader = await openCaptureReader(save('large.pcap', large), AbortSignal.abort())
  assert.deepEqual(await reader.readInto(new CaptureRecorder()),
    { state: 'aborted', reason: 'the reading was stopped', format: undefined })
})

test('others get their turn between chunks', async () => {
  const reader = await openCaptureReader(save('large.pcap', large))
  let count = 0
  let turns = 0
  await reader.readInto({ packet: () => void count++ }, async () => {
    const before = count
    for (let i = 0; i < 20; i++) await new Promise(resolve => setImmediate(resolve))
    assert.equal(count, before)
    turns++
  })
  assert.equal(count, 9000)
  assert.ok(turns > 3)
})

test('a named pipe is read as its writer writes, and can be given up while there is none', async () => {
  const path = join(folder, 'pipe')
  assert.equal(spawnSync('mkfifo', [path]).status, 0)
  const stop = new AbortController()
  const idle = await openCaptureReader(path, stop.signal)
  const stopped = idle.readInto(new CaptureRecorder())
  setImmediate(() => stop.abort())
  assert.equal((await stopped).state, 'aborted')

  const reader = await openCaptureReader(path)
  assert.equal(reader.totalBytes, undefined)
  let count = 0
  const ended = reader.readInto({ packet: () => void count++ })
  createWriteStream(path).end(gzipSync(large))
  assert.deepEqual(await ended, complete)
  assert.equal(count, 9000)
})

/** Reads standard input in a process of its own, and prints what came of it. */
const script = `
  import { openCaptureReader } from ${JSON.stringify(new URL('./capture-file-reader.ts', import.meta.url).href)}
  let count = 0
  const stop = new AbortController()
  const reader = await openCaptureReader('-', stop.signal)
  process.on('SIGTERM', () => stop.abort())
  const work = reader.readInto({ packet() { if (count++ === 0) process.stderr.write('first') } })
  await work.then(
    ending => console.log(JSON.stringify([reader.name, reader.totalBytes, count, ending.state])),
    error => console.log(JSON.stringify([error.code, error.message])),
  )`
const nodeArguments = ['--input-type=module', '--disable-warning=ExperimentalWarning', '-e', script]

test('standard input: a pipe, plain or compressed, a file, nothing', () => {
  const run = (input: Buffer): unknown =>
    JSON.parse(spawnSync(process.execPath, nodeArguments, { input, encoding: 'utf8' }).stdout)
  assert.deepEqual(run(large), ['standard input', null, 9000, 'complete'])
  assert.deepEqual(run(gzipSync(large)), ['standard input', null, 9000, 'complete'])
  assert.deepEqual(run(Buffer.alloc(0)), ['NF_CAPTURE_EMPTY', 'standard input is empty'])
  const fd = openSync(save('large.pcap', large), 'r')
  const fromFile = spawnSync(process.execPath, nodeArguments, { stdio: [fd, 'pipe', 'ignore'], encoding: 'utf8' })
  closeSync(fd)
  assert.deepEqual(JSON.parse(fromFile.stdout), ['standard input', large.length, 9000, 'complete'])
})

test('standard input can be given up while its writer is silent', async () => {
  const child = spawn(process.execPath, nodeArguments, { stdio: ['pipe', 'pipe', 'pipe'] })
  let output = ''
  child.stdout.on('data', chunk => { output += String(chunk) })
  const exited = new Promise(resolve => child.on('exit', resolve))
  child.stderr.once('data', () => child.kill('SIGTERM'))
  child.stdin.write(small.subarray(0, 1))
  child.stdin.write(small.subarray(1, 1000))
  assert.equal(await exited, 0)
  assert.deepEqual(JSON.parse(output), ['standard input', null, 8, 'aborted'])
})
