import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { gunzipSync } from 'node:zlib'
import { CodedError } from '../base/coded-error.ts'
import { Random } from '../base/random.ts'
import { CaptureParser } from '../wire/capture-parser.ts'
import { CaptureRecorder } from '../wire/capture-recorder.ts'
import { LinkType } from '../wire/link-type.ts'
import { openCaptureReader } from './capture-file-reader.ts'
import { CaptureFileWriter } from './capture-file-writer.ts'

const folder = mkdtempSync(join(tmpdir(), 'nfactor-capture-writer-'))
after(() => rmSync(folder, { recursive: true }))

function makeCapture(count: number): CaptureRecorder {
  const random = new Random(6)
  const capture = new CaptureRecorder()
  capture.interfaceAdded(0, LinkType.Raw, 2000, true)
  for (let i = 0; i < count; i++) {
    const length = random.below(1500)
    capture.packet(random.fill(new Uint8Array(length)), 0, length, length + 1, 1_700_000_000 + i, random.below(1e9), 0)
  }
  return capture
}

async function readBack(path: string): Promise<CaptureRecorder> {
  const capture = new CaptureRecorder()
  assert.equal((await (await openCaptureReader(path)).readInto(capture)).state, 'complete')
  return capture
}

function codedError(action: () => unknown): CodedError {
  try {
    action()
  } catch (error) {
    assert.ok(error instanceof CodedError, String(error))
    assert.notEqual(error.mend, '')
    return error
  }
  assert.fail('there should be an error')
}

for (const name of ['a.pcap', 'a.pcapng', 'a.pcap.gz', 'a.PCAPNG.GZ']) {
  test(`${name} says how it is written`, async () => {
    const path = join(folder, name)
    const capture = makeCapture(2000)
    const writer = new CaptureFileWriter(path)
    capture.replay(writer)
    assert.equal(writer.packetCount, 2000)
    writer.close()
    writer.close()
    assert.equal(writer.format, /ng/i.test(name) ? 'pcapng' : 'pcap')
    assert.equal(writer.isCompressed, /gz/i.test(name))
    const bytes = readFileSync(path)
    assert.equal(writer.lengthBytes, bytes.length)
    if (writer.isCompressed) assert.ok(gunzipSync(bytes).length > 1e6)
    const back = await readBack(path)
    assert.deepEqual(back.packets, capture.packets)
    assert.deepEqual(back.interfaces, capture.interfaces)
  })
}

test('a file is a valid capture after every flush, and without any packet', async () => {
  const path = join(folder, 'flushed.pcapng')
  const writer = new CaptureFileWriter(path)
  writer.flush()
  assert.equal((await readBack(path)).packets.length, 0)
  const capture = makeCapture(20)
  capture.replay(writer)
  writer.flush()
  assert.equal((await readBack(path)).packets.length, 20)
  writer.close()
})

test('packets after the closing are ignored', async () => {
  const path = join(folder, 'closed.pcap')
  const writer = new CaptureFileWriter(path)
  const capture = makeCapture(3)
  capture.replay(writer)
  writer.close()
  writer.packet(new Uint8Array(9), 0, 9, 9, 0, 0, 0)
  writer.flush()
  assert.equal((await readBack(path)).packets.length, 3)
})

test('the format may be given apart from the name', () => {
  const path = join(folder, 'trace.bin')
  const writer = new CaptureFileWriter(path, { format: 'pcapng' })
  writer.close()
  assert.equal(readFileSync(path).readUInt32BE(0), 0x0a0d0d0a)
  const error = codedError(() => new CaptureFileWriter(path))
  assert.equal(error.code, 'NF_USAGE')
  assert.match(error.message, /trace\.bin does not say in which format/)
})

test('what cannot be written is an error that says why', () => {
  mkdirSync(join(folder, 'folder.pcap'))
  writeFileSync(join(folder, 'file'), '')
  const cases: [string, RegExp][] = [
    [join(folder, 'nowhere', 'a.pcap'), /nowhere\/a\.pcap cannot be written: its folder does not exist/],
    [join(folder, 'file', 'a.pcap'), /what should be its folder is a file/],
    [join(folder, 'folder.pcap'), /it is a directory/],
  ]
  for (const [path, message] of cases) {
    const error = codedError(() => new CaptureFileWriter(path))
    assert.equal(error.code, 'NF_FILE_UNWRITABLE')
    assert.match(error.message, message)
  }
})

test('a file that is being read is not written over', () => {
  const path = join(folder, 'input.pcap')
  writeFileSync(path, 'precious')
  const same = `${folder}/../${folder.split('/').at(-1) as string}/input.pcap`
  const error = codedError(() => new CaptureFileWriter(same, { inputs: ['-', 'missing', path] }))
  assert.equal(error.code, 'NF_FILE_UNWRITABLE')
  assert.match(error.message, /is the file that is being read/)
  assert.equal(readFileSync(path, 'latin1'), 'precious')
})

test('a full disk is an error, once', () => {
  const openBefore = readdirSync('/proc/self/fd').length
  const capture = makeCapture(2000)
  const writer = new CaptureFileWriter('/dev/full', { format: 'pcap' })
  const error = codedError(() => capture.replay(writer))
  assert.equal(error.code, 'NF_FILE_UNWRITABLE')
  assert.match(error.message, /\/dev\/full cannot be written: the disk is full/)
  writer.packet(new Uint8Array(9), 0, 9, 9, 0, 0, 0)
  writer.close()
  assert.equal(readdirSync('/proc/self/fd').length, openBefore)
  const short = new CaptureFileWriter('/dev/full', { format: 'pcapng' })
  assert.match(codedError(() => short.close()).message, /the disk is full/)
  assert.equal(readdirSync('/proc/self/fd').length, openBefore)
})

for (const name of ['limited.pcap', 'limited.pcapng.gz']) {
  test(`${name}: a file that may not grow further is a valid capture of what was written before`, async () => {
    const path = join(folder, name)
    const script = `
      import { CaptureFileWriter } from ${JSON.stringify(new URL('./capture-file-writer.ts', import.meta.url).href)}
      const writer = new CaptureFileWriter(${JSON.stringify(path)})
      writer.interfaceAdded(0, 1, 0, true)
      let state = 1
      const bytes = new Uint8Array(1000)
      try {
        for (let i = 0; i < 3000; i++) {
          for (let j = 0; j < bytes.length; j++) bytes[j] = (state = Math.imul(state, 1664525) + 1013904223 | 0) >>> 24
          writer.packet(bytes, 0, 1000, 1000, i, 0, 0)
        }
      } catch (error) {
        console.log(error.code, error.message)
      }`
    // 600 KiB: between two blocks.
    const limited = 'trap "" XFSZ; ulimit -f 600; exec "$0" --input-type=module -e "$1"'
    const { stdout } = spawnSync('bash', ['-c', limited, process.execPath, script], { encoding: 'utf8' })
    assert.match(stdout, /^NF_FILE_UNWRITABLE .*limited.* cannot be written: the file has become too large/)
    const { packets } = await readBack(path)
    // The packets are random bytes, so compression gains nothing.
    assert.ok(packets.length > 480 && packets.length < 620, String(packets.length))
    assert.deepEqual(packets.map(p => p.seconds), Array.from(packets, (_, i) => i))
  })
}

test('a pcap file refuses a second link type, and keeps what it has', async () => {
  const path = join(folder, 'two.pcap')
  const writer = new CaptureFileWriter(path)
  writer.interfaceAdded(0, LinkType.Ethernet, 0, false)
  writer.interfaceAdded(1, LinkType.Raw, 0, false)
  writer.packet(new Uint8Array(9), 0, 9, 9, 0, 0, 0)
  const error = codedError(() => writer.packet(new Uint8Array(9), 0, 9, 9, 0, 0, 1))
  assert.equal(error.code, 'NF_CAPTURE_LINK_TYPE')
  assert.equal((await readBack(path)).packets.length, 1)
})

test('a parser whose sink is a writer converts', async () => {
  const from = join(folder, 'from.pcap')
  const source = new CaptureFileWriter(from)
  const capture = makeCapture(100)
  capture.replay(source)
  source.close()
  const to = join(folder, 'to.pcapng')
  const writer = new CaptureFileWriter(to)
  const parser = new CaptureParser(writer)
  parser.push(readFileSync(from))
  writer.close()
  assert.deepEqual((await readBack(to)).packets, capture.packets)
})
