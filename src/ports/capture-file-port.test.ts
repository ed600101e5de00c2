import { after, test } from 'node:test'
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ManualClock } from '../base/clock.ts'
import { Arena } from '../memory/arena.ts'
import { Descriptor, DESCRIPTOR_BYTES, DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import { PacketPool } from '../packet/packet-pool.ts'
import { CaptureRecorder } from '../wire/capture-recorder.ts'
import { openCaptureFilePort, type CaptureFilePort } from './capture-file-port.ts'
import { openCaptureReader } from './capture-file-reader.ts'
import { CaptureFileWriter } from './capture-file-writer.ts'

const folder = mkdtempSync(join(tmpdir(), 'nfactor-capture-port-'))
after(() => { rmSync(folder, { recursive: true }) })

const arena = new Arena(64 * 1024 * 1024)
const pool = new PacketPool(arena, 256, 4)
const descriptors = arena.allocate('descriptors', 32 * DESCRIPTOR_BYTES) >> 2

/** Writes packets of these lengths, one per `stepUs`; each starts with its number. */
function capture(name: string, lengths: readonly number[], stepUs: number): string {
  const path = join(folder, name)
  const writer = new CaptureFileWriter(path)
  writer.interfaceAdded(0, 1, 0, true)
  lengths.forEach((length, index) => {
    const bytes = new Uint8Array(length).fill(index & 255)
    writer.packet(bytes, 0, length, length, 1_000_000, index * stepUs * 1000, 0)
  })
  writer.close()
  return path
}

const turn = (): Promise<void> => new Promise((resolve) => { setImmediate(resolve) })

/** Takes what is due now: lengths of the frames. */
function take(port: CaptureFilePort): number[] {
  const lengths: number[] = []
  for (;;) {
    const count = port.receive(pool, descriptors, 32)
    if (count === 0) return lengths
    for (let i = 0; i < count; i++) {
      const d = descriptors + i * DESCRIPTOR_WORDS
      lengths.push(arena.i32[d + Descriptor.length])
      pool.give(arena.i32[d + Descriptor.slot])
    }
  }
}

async function takeAll(port: CaptureFilePort): Promise<number[]> {
  const lengths: number[] = []
  while (!port.isOver) {
    lengths.push(...take(port))
    await turn()
  }
  return lengths
}

test('a capture is played whole, over many chunks', async () => {
  const lengths = Array.from({ length: 3000 }, (_, index) => 14 + (index * 37) % 1400)
  for (const name of ['many.pcap', 'many.pcapng.gz']) {
    const port = await openCaptureFilePort({ arena, input: capture(name, lengths, 10) })
    assert.deepEqual(await takeAll(port), lengths)
    assert.equal(port.ending?.state, 'complete')
    assert.equal(port.statistics.rxFrames, 3000)
    await port.close()
  }
})

test('packets are due at their recorded distances, or at those of the given speed or rate', async () => {
  const input = capture('timed.pcap', [60, 61, 62, 63], 1000)
  const cases: [object, number[]][] = [[{ speed: 1 }, [1, 1, 2, 2, 3]], [{ speed: 2 }, [1, 2, 3, 4, 4]],
    [{ packetsPerSecond: 500 }, [1, 1, 1, 1, 2]], [{}, [4, 4, 4, 4, 4]]]
  for (const [options, expected] of cases) {
    const clock = new ManualClock(5e12)
    const port = await openCaptureFilePort({ arena, input, clock, ...options })
    const played = expected.map(() => {
      take(port)
      clock.advanceBy(500)
      return port.statistics.rxFrames
    })
    assert.deepEqual(played, expected, JSON.stringify(options))
    await port.close()
  }
})

test('without a free slot packets wait', async () => {
  const port = await openCaptureFilePort({ arena, input: capture('slots.pcap', [60, 61, 62], 1) })
  const slots = Array.from({ length: 256 + 4 - 2 }, () => pool.take(60))
  assert.equal(port.receive(pool, descriptors, 32), 2)
  for (let i = 0; i < 2; i++) pool.give(arena.i32[descriptors + i * DESCRIPTOR_WORDS + Descriptor.slot])
  assert.deepEqual(take(port), [62])
  for (const slot of slots) pool.give(slot)
  await port.close()
})

test('what is sent is written with its time', async () => {
  const output = join(folder, 'out.pcap')
  const clock = new ManualClock(1_700_000_000_000_000)
  const port = await openCaptureFilePort({ arena, output, clock })
  const frame = pool.take(100) + 130
  for (let i = 0; i < 3; i++) {
    arena.u8.fill(i, frame, frame + 100)
    assert.equal(i === 2 ? port.sendReserved(frame, 60 + i) : port.send(frame, 60 + i), true)
    clock.advanceBy(1_000_000.5)
  }
  assert.equal(port.send(frame, port.frameBytesMax + 1), false)
  assert.deepEqual([port.statistics.txFrames, port.statistics.txOversize], [3, 1])
  await port.close()
  pool.give(frame - 130)
  const recorder = new CaptureRecorder()
  await (await openCaptureReader(output)).readInto(recorder)
  assert.deepEqual(recorder.packets.map((p) => [p.bytes.length, p.bytes[5], p.seconds, p.nanoseconds]),
    [[60, 0, 1_700_000_000, 0], [61, 1, 1_700_000_001, 500], [62, 2, 1_700_000_002, 1000]])
})

test('a capture that breaks off is played up to there, and says so', async () => {
  const whole = capture('whole.pcap', [60, 60, 60], 1)
  const cut = join(folder, 'cut.pcap')
  writeFileSync(cut, readFileSync(whole).subarray(0, -10))
  const port = await openCaptureFilePort({ arena, input: cut })
  assert.equal((await takeAll(port)).length, 2)
  assert.equal(port.ending?.state, 'truncated')
  await port.close()
})

test('a port can be closed in the middle', async () => {
  const port = await openCaptureFilePort({ arena, input: capture('long.pcap', Array(5000).fill(1000), 1) })
  assert.ok(port.receive(pool, descriptors, 8) === 8)
  for (let i = 0; i < 8; i++) pool.give(arena.i32[descriptors + i * DESCRIPTOR_WORDS + Descriptor.slot])
  await port.close()
  await port.close()
})

test('a capture can come through a pipe, bit by bit', async () => {
  const path = join(folder, 'pipe')
  execFileSync('mkfifo', [path])
  const bytes = readFileSync(capture('piped.pcap', [60, 700, 61], 1))
  // Opened both ways, so that nobody waits for the other.
  const fd = openSync(path, 'r+')
  writeSync(fd, bytes, 0, 24)
  const port = await openCaptureFilePort({ arena, input: path })
  assert.deepEqual(take(port), [])
  const got: number[] = []
  for (const [from, to] of [[24, 100], [100, 101], [101, 500], [500, bytes.length]]) {
    writeSync(fd, bytes, from, to - from)
    await turn()
    got.push(...take(port))
  }
  for (const end = performance.now() + 10_000; got.length < 3 && performance.now() < end;) {
    await turn()
    got.push(...take(port))
  }
  assert.deepEqual(got, [60, 700, 61])
  assert.equal(port.isOver, false)
  assert.equal(port.arm(), false)
  await port.close()
  closeSync(fd)
})

test('a file that is there is not emptied for a capture that is none', async () => {
  const input = join(folder, 'none-at-all.pcap')
  writeFileSync(input, 'not a capture at all, only a few words\n')
  const output = capture('kept.pcap', [60], 1)
  const before = readFileSync(output)
  await assert.rejects(openCaptureFilePort({ arena, input, output }), { code: 'NF_CAPTURE_FORMAT' })
  assert.deepEqual(readFileSync(output), before)
})

test('errors have codes', async () => {
  const path = join(folder, 'text.pcap')
  writeFileSync(path, 'not a capture at all, only a few words\n')
  const empty = join(folder, 'empty.pcap')
  writeFileSync(empty, '')
  const input = capture('fine.pcap', [60], 1)
  const cases: [object, string][] = [[{ input: path }, 'NF_CAPTURE_FORMAT'], [{ input: empty }, 'NF_CAPTURE_EMPTY'],
    [{ input: join(folder, 'none.pcap') }, 'NF_FILE_NOT_FOUND'], [{ input, speed: 0 }, 'NF_CONFIG_INVALID'],
    [{ input, packetsPerSecond: -1 }, 'NF_CONFIG_INVALID'], [{ input, output: input }, 'NF_FILE_UNWRITABLE'],
    [{ input, output: join(folder, 'no format') }, 'NF_USAGE']]
  for (const [options, code] of cases) {
    await assert.rejects(openCaptureFilePort({ arena, ...options }), { name: 'CodedError', code })
  }
})
