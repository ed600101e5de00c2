/**
 * Capture files against the programs that everybody uses: what NFactor writes, Wireshark and tcpdump read in the
 * same way, and what Wireshark writes, NFactor reads.
 */

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { Random } from '../base/random.ts'
import { CaptureRecorder } from '../wire/capture-recorder.ts'
import { LinkType } from '../wire/link-type.ts'
import { openCaptureReader } from './capture-file-reader.ts'
import { CaptureFileWriter } from './capture-file-writer.ts'

const folder = mkdtempSync(join(tmpdir(), 'nfactor-capture-programs-'))
after(() => rmSync(folder, { recursive: true }))

function skipWithout(...programs: string[]): { skip: string | false } {
  const missing = programs.filter(program => spawnSync(program, ['--version']).error !== undefined)
  return { skip: missing.length > 0 && `${missing.join(', ')} not installed` }
}

function run(program: string, ...args: string[]): string {
  const { status, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8', maxBuffer: 1 << 26 })
  assert.equal(status, 0, `${program}: ${stderr}`)
  return stdout
}

function makeCapture(count: number, linkTypes: readonly number[], nanoseconds: boolean): CaptureRecorder {
  const random = new Random(8)
  const capture = new CaptureRecorder()
  linkTypes.forEach((linkType, i) => capture.interfaceAdded(i, linkType, 262_144, nanoseconds))
  for (let i = 0; i < count; i++) {
    const length = random.between(20, 600)
    const bytes = random.fill(new Uint8Array(length))
    const time = nanoseconds ? random.below(1e9) : random.below(1e6) * 1000
    capture.packet(bytes, 0, length, length + random.below(9), 1_700_000_000 + i, time, i % linkTypes.length)
  }
  return capture
}

/** A line per packet, as tshark prints it. */
function lines(capture: CaptureRecorder): string[] {
  return capture.packets.map(p =>
    [`${p.seconds}.${String(p.nanoseconds).padStart(9, '0')}`, p.bytes.length, p.originalLength].join('\t'))
}

async function readBack(path: string): Promise<CaptureRecorder> {
  const capture = new CaptureRecorder()
  assert.equal((await (await openCaptureReader(path)).readInto(capture)).state, 'complete')
  return capture
}

function write(name: string, capture: CaptureRecorder): string {
  const path = join(folder, name)
  const writer = new CaptureFileWriter(path)
  capture.replay(writer)
  writer.close()
  return path
}

test('tshark reads what is written', skipWithout('tshark'), () => {
  for (const nanoseconds of [true, false]) {
    for (const [name, linkTypes] of [
      ['a.pcap', [LinkType.Ethernet]], ['b.pcapng', [LinkType.Ethernet, LinkType.Raw, LinkType.LinuxSll2]],
      ['c.pcapng.gz', [LinkType.LinuxSll]], ['d.pcap.gz', [LinkType.Null]],
    ] as const) {
      // More than one block, so that the compressed files have more than one gzip member.
      const capture = makeCapture(1500, linkTypes, nanoseconds)
      const path = write(name, capture)
      const fields = ['frame.time_epoch', 'frame.cap_len', 'frame.len'].flatMap(field => ['-e', field])
      const printed = run('tshark', '-n', '-r', path, '-T', 'fields', '-E', 'occurrence=f', ...fields)
      assert.deepEqual(printed.trimEnd().split('\n'), lines(capture), name)
    }
  }
})

test('capinfos finds the file in order', skipWithout('capinfos'), () => {
  const capture = makeCapture(700, [LinkType.Ethernet, LinkType.Raw], true)
  const report = run('capinfos', '-t', '-E', '-c', '-M', write('e.pcapng', capture))
  assert.match(report, /pcapng\n/)
  assert.match(report, /Ethernet \(350\)/)
  assert.match(report, /Raw IP \(350\)/)
  assert.match(report, /Number of packets:\s+700\n/)
})

test('tcpdump reads what is written', skipWithout('tcpdump'), () => {
  for (const name of ['f.pcap', 'f.pcapng']) {
    const capture = makeCapture(300, [LinkType.Raw], true)
    const path = write(name, capture)
    const printed = run('tcpdump', '-r', path, '-n', '-q', '-tt', '--nano')
    const times = printed.split('\n').flatMap(line => /^\d+\.\d{9}/.exec(line) ?? [])
    assert.deepEqual(times, lines(capture).map(line => line.split('\t')[0]))
  }
})

test('what editcap writes is read, in all its pcap variants', skipWithout('editcap'), async () => {
  const capture = makeCapture(200, [LinkType.Ethernet], true)
  const path = write('g.pcapng', capture)
  const microseconds = new CaptureRecorder()
  capture.replay({
    packet: (bytes, offset, captured, original, seconds, nanoseconds, index) => {
      const whole = nanoseconds - nanoseconds % 1000
      microseconds.packet(bytes, offset, captured, original, seconds, whole, index)
    },
  })
  for (const [format, expected] of [
    ['pcapng', capture], ['nsecpcap', capture], ['pcap', microseconds], ['modpcap', microseconds],
  ] as const) {
    const converted = join(folder, `converted.${format}`)
    run('editcap', '-F', format, path, converted)
    const back = await readBack(converted)
    assert.deepEqual(back.packets, expected.packets, format)
    assert.equal(back.interfaces[0]?.linkType, LinkType.Ethernet)
  }
  const several = write('h.pcapng', makeCapture(200, [LinkType.Ethernet, LinkType.LinuxSll2, LinkType.Raw], true))
  const converted = join(folder, 'several.pcapng')
  run('editcap', '-F', 'pcapng', several, converted)
  assert.deepEqual((await readBack(converted)).packets, (await readBack(several)).packets)
})
