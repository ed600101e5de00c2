import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { CodedError, type ErrorCode } from '../base/coded-error.ts'
import { defineNf, struct, u32, Verdict } from '../nf/index.ts'
import type { AnyNfDefinition } from '../nf/definition.ts'
import { openCaptureReader } from '../ports/capture-file-reader.ts'
import { FRAME_BYTES_MAX } from '../packet/packet-pool.ts'
import { buildFrame } from '../testing/packet-builder.ts'
import { CaptureRecorder } from '../wire/capture-recorder.ts'
import { runCapture, type RunCaptureOptions, type RunReport } from './run-capture.ts'
import { captureBytes, webPackets, type SamplePacket } from './sample-capture.ts'

const folder = mkdtempSync(join(tmpdir(), 'nfactor-run-capture-'))
after(() => rmSync(folder, { recursive: true }))

/** Counts, reports every packet, keeps a count per flow, and drops what is marked. */
const counting = defineNf({
  name: 'counting',
  version: 1,
  flowState: struct({ packets: u32 }),
  counters: { packets: 'packets seen', flows: 'flows seen' },
  dropReasons: { marked: 'the packet is marked' },
  records: { seen: { number: u32 } },
  create: (_config, { counters, drop, records }) => ({
    allocateFlowState() {
      counters.flows++
    },
    processPacket(packet, state) {
      counters.packets++
      state.packets++
      records.seen.begin()
      records.seen.number = state.packets
      records.seen.commit()
      return packet.payloadLength === 8 ? drop.marked : Verdict.Forward
    },
  }),
})

let files = 0

function file(bytes: Uint8Array, name = `${files++}.pcap`): string {
  const path = join(folder, name)
  writeFileSync(path, bytes)
  return path
}

function fresh(name: string): string {
  return join(folder, `${files++}-${name}`)
}

async function run(packets: readonly SamplePacket[] | string, options: Partial<RunCaptureOptions> = {},
  nf: AnyNfDefinition = counting): Promise<RunReport> {
  const capture = typeof packets === 'string' ? packets : file(captureBytes(packets))
  const { report } = await runCapture({ capture, chain: [{ definition: nf, config: {} }], ...options })
  const { received, emitted, forwarded, dropped, buffered } = report.packets
  assert.equal(received + emitted, forwarded + dropped + buffered)
  assert.equal(buffered, 0)
  assert.equal(Object.values(report.dropReasons).reduce((sum, count) => sum + count, 0), dropped)
  return report
}

function lines(path: string): any[] {
  const text = readFileSync(path, 'utf8')
  assert.ok(text === '' || text.endsWith('\n'))
  return text.split('\n').slice(0, -1).map((line) => JSON.parse(line) as unknown)
}

async function readBack(path: string): Promise<CaptureRecorder> {
  const capture = new CaptureRecorder()
  assert.equal((await (await openCaptureReader(path)).readInto(capture)).state, 'complete')
  return capture
}

async function fails(code: ErrorCode, action: Promise<unknown>): Promise<CodedError> {
  const error = await action.then(() => undefined, (reason: unknown) => reason)
  assert.ok(error instanceof CodedError, `should fail with ${code}, not ${String(error)}`)
  assert.equal(error.code, code, error.message)
  return error
}

test('the report counts what happened', async () => {
  const packets = webPackets()
  const report = await run(packets)
  const bytes = packets.reduce((sum, { frame }) => sum + frame.length, 0)
  const marked = packets.filter(({ frame }) => Buffer.from(frame).includes('question'))
  assert.equal(marked.length, 1)
  assert.deepEqual(report.packets, { received: 12, forwarded: 11, dropped: 1, emitted: 0, buffered: 0 })
  assert.deepEqual(report.dropReasons, { 'counting-marked': 1 })
  assert.deepEqual(report.bytes, { received: bytes, forwarded: bytes - (marked[0] as SamplePacket).frame.length })
  assert.deepEqual(report.flows,
    { created: 2, tcp: 1, udp: 1, icmp: 0, other: 0, expired: 0, closed: 1, finished: 1, evicted: 0 })
  assert.deepEqual(report.nfs, { counting: { packets: 12, flows: 2 } })
  assert.deepEqual(report.records, { made: 12, lost: 0 })
  assert.deepEqual(report.warnings, [])
  assert.equal(report.nfErrors, 0)
  assert.ok(report.elapsedSeconds > 0)
  assert.equal(report.packetsPerSecond, Math.round(12 / report.elapsedSeconds))
  assert.deepEqual({ ...report.capture, name: '', seconds: 0 },
    { name: '', format: 'pcap', state: 'complete', reason: '', seconds: 0 })
  assert.ok(Math.abs(report.capture.seconds - 0.009) < 0.003, `${report.capture.seconds}`)
})

test('what leaves is a capture of the same packets with the same times', async () => {
  const packets = webPackets().map((packet, index) =>
    ({ ...packet, wireLength: packet.frame.length + (index === 3 ? 100 : 0) }))
  for (const [name, nanoseconds] of [['a.pcap', true], ['b.pcapng', true], ['c.pcap.gz', false]] as const) {
    const out = fresh(name)
    await run(file(captureBytes(packets, { nanoseconds })), { out })
    const { packets: left } = await readBack(out)
    const kept = packets.filter(({ frame }) => !Buffer.from(frame).includes('question'))
    assert.deepEqual(left.map((packet) => Buffer.from(packet.bytes)), kept.map(({ frame }) => Buffer.from(frame)))
    assert.deepEqual(left.map((packet) => packet.originalLength), kept.map((packet) => packet.wireLength))
    assert.deepEqual(left.map((packet) => packet.seconds * 1e9 + packet.nanoseconds),
      kept.map(({ time }) => nanoseconds ? time * 1000 : Math.floor(time) * 1000))
  }
})

test('emitted packets leave too, behind the packet that they were made at', async () => {
  const echo = defineNf({
    name: 'echo',
    version: 1,
    create: (_config, { emit }) => ({
      processPacket(packet) {
        if (emit.copy(packet) !== null) emit.send(packet.direction)
        return Verdict.Forward
      },
    }),
  })
  const out = fresh('out.pcap')
  const report = await run(webPackets(), { out }, echo)
  assert.deepEqual(report.packets, { received: 12, forwarded: 24, dropped: 0, emitted: 12, buffered: 0 })
  const { packets } = await readBack(out)
  assert.equal(packets.length, 24)
  const times = packets.map((packet) => packet.seconds * 1e9 + packet.nanoseconds)
  assert.deepEqual(times, times.toSorted((a, b) => a - b))
})

test('every flow is a line as it ends', async () => {
  const flows = fresh('flows')
  const packets = webPackets()
  await run(file(captureBytes(packets, { nanoseconds: true })), { flows })
  const bytesOf = (protocol: number): number =>
    packets.filter(({ frame }) => frame[23] === protocol).reduce((sum, { frame }) => sum + frame.length, 0)
  assert.deepEqual(lines(flows), [
    {
      key: { vlan: 0, protocol: 'tcp', a: { address: '10.0.0.1', port: 40000 }, b: { address: '10.0.0.2', port: 80 } },
      opener: 'a', packets: 10, bytes: bytesOf(6), firstSeen: 1_700_000_000, lastSeen: 1_700_000_000.009,
      end: 'closed', state: { counting: { packets: 10 } },
    },
    {
      key: { vlan: 0, protocol: 'udp', a: { address: '10.0.0.1', port: 5353 }, b: { address: '10.0.0.53', port: 53 } },
      opener: 'a', packets: 2, bytes: bytesOf(17), firstSeen: 1_700_000_000_003_000.25 / 1e6,
      lastSeen: 1_700_000_000_003_100.5 / 1e6, end: 'finished', state: { counting: { packets: 2 } },
    },
  ])
})

test('keys of tagged and IPv6 flows are whole, and the opener may be endpoint b', async () => {
  const flows = fresh('flows')
  const ends = { source: '2001:db8::9', destination: '2001:db8::1' }
  await run([
    { frame: buildFrame({ ...ends, vlans: [7, 42], udp: { sourcePort: 9, destinationPort: 1 } }), time: 1e6 },
    { frame: buildFrame({ ...ends, pppoe: 3, icmp: { type: 128, rest: 5 << 16 } }), time: 2e6 },
    { frame: buildFrame({ protocol: 253, payload: 'x' }), time: 3e6 },
  ], { flows })
  const [tagged, session, other] = lines(flows)
  assert.deepEqual(tagged.key, {
    vlan: 7, vlanInner: 42, protocol: 'udp',
    a: { address: '2001:db8::1', port: 1 }, b: { address: '2001:db8::9', port: 9 },
  })
  assert.equal(tagged.opener, 'b')
  assert.equal(session.key.pppoeSession, 3)
  assert.equal(session.key.protocol, 'icmpv6')
  assert.equal(other.key.protocol, '253')
  assert.deepEqual(Object.keys(other.key), ['vlan', 'protocol', 'a', 'b'])
})

test('every record is a line with its source first', async () => {
  const events = fresh('events')
  await run(webPackets(), { events })
  const all = lines(events)
  assert.equal(all.length, 12)
  assert.deepEqual(all[0], {
    nf: 'counting', event: 'seen', time: 1_700_000_000,
    flow: {
      protocol: 'tcp', source: '10.0.0.1', sourcePort: 40000, destination: '10.0.0.2', destinationPort: 80, vlan: 0,
    },
    number: 1,
  })
  assert.deepEqual(all[1].flow,
    { protocol: 'tcp', source: '10.0.0.2', sourcePort: 80, destination: '10.0.0.1', destinationPort: 40000, vlan: 0 })
})

test('a field that is called like one of every line keeps both', async () => {
  const clashing = defineNf({
    name: 'clashing', version: 1, records: { seen: { time: u32, nf: u32 } },
    create: (_config, context) => ({
      processPacket() {
        context.record('seen', { time: 5, nf: 6 })
        return Verdict.Forward
      },
    }),
  })
  const events: unknown[] = []
  await run(webPackets().slice(0, 1), { events: (event) => events.push(event) }, clashing)
  const [event] = events as [Record<string, unknown>]
  assert.deepEqual([event['nf'], event['time'], event['nf_'], event['time_']], ['clashing', 1_700_000_000, 6, 5])
})

test('many flows that end at once lose no record', async () => {
  const last = defineNf({
    name: 'last', version: 1, records: { end: { number: u32 } },
    create: (_config, context) => ({
      processPacket: () => Verdict.Forward,
      deallocateFlowState: () => context.record('end', { number: 1 }),
    }),
  })
  const packets = Array.from({ length: 3000 }, (_, i) =>
    ({ frame: buildFrame({ udp: { sourcePort: i } }), time: 1e6 + i }))
  const expiring = [...packets, { frame: buildFrame({ udp: { sourcePort: 1 } }), time: 400e6 }]
  for (const [sent, expected] of [[packets, 3000], [expiring, 3001]] as const) {
    let events = 0
    const report = await run(sent, { limits: { recordBytes: 65536 }, events: () => events++ }, last)
    assert.deepEqual(report.records, { made: expected, lost: 0 })
    assert.equal(events, expected)
  }
})

test('a capture that breaks off is processed up to there', async () => {
  const bytes = captureBytes(webPackets())
  const flows = fresh('flows')
  const report = await run(file(bytes.subarray(0, bytes.length - 20)), { flows })
  assert.equal(report.packets.received, 11)
  assert.equal(report.capture.state, 'truncated')
  assert.equal(report.warnings.length, 1)
  assert.match(report.warnings[0] as string, /ends in the middle of the last record/)
  assert.equal(lines(flows).length, 2)
})

test('a compressed capture is one like any other', async () => {
  assert.equal((await run(file(gzipSync(captureBytes(webPackets()))))).packets.received, 12)
})

test('damage in the middle is a warning, with everything before it', async () => {
  const bytes = captureBytes(webPackets())
  bytes.writeUInt32LE(0x7fffffff, bytes.length - (webPackets().at(-1) as SamplePacket).frame.length - 8)
  const report = await run(file(bytes))
  assert.equal(report.packets.received, 11)
  assert.equal(report.capture.state, 'damaged')
})

test('bad captures: a code each, and outputs of before stay as they were', async () => {
  const out = fresh('out.pcap')
  writeFileSync(out, 'of before')
  const bad: [ErrorCode, string][] = [
    ['NF_FILE_NOT_FOUND', join(folder, 'missing.pcap')],
    ['NF_FILE_UNREADABLE', folder],
    ['NF_CAPTURE_EMPTY', file(new Uint8Array(0))],
    ['NF_CAPTURE_FORMAT', file(Buffer.from('no capture, but a text that is long enough to be one'))],
    ['NF_CAPTURE_LINK_TYPE', file(captureBytes(webPackets(), { linkTypes: [127] }))],
  ]
  for (const [code, path] of bad) await fails(code, run(path, { out, flows: out }))
  assert.equal(readFileSync(out, 'utf8'), 'of before')
})

test('outputs that cannot be written', async () => {
  const capture = file(captureBytes(webPackets()))
  const before = readFileSync(capture)
  const missing = join(folder, 'no', 'folder')
  await fails('NF_FILE_UNWRITABLE', run(capture, { out: join(missing, 'out.pcap') }))
  await fails('NF_FILE_UNWRITABLE', run(capture, { flows: join(missing, 'flows') }))
  await fails('NF_FILE_UNWRITABLE', run(capture, { out: capture }))
  await fails('NF_FILE_UNWRITABLE', run(capture, { events: capture }))
  const config = file(Buffer.from('chain: [monitor]'), 'config.yaml')
  await fails('NF_FILE_UNWRITABLE', run(capture, { events: config, inputs: [config] }))
  const both = fresh('both')
  await fails('NF_USAGE', run(capture, { flows: both, events: `${folder}/./${both.slice(folder.length + 1)}` }))
  assert.deepEqual(readFileSync(capture), before)
  assert.ok(!existsSync(both))
})

test('an output that fails in the middle leaves the others whole', async (t) => {
  if (!existsSync('/dev/full')) return t.skip('needs /dev/full')
  const flows = fresh('flows')
  const packets = Array.from({ length: 3000 }, (_, i) =>
    ({ frame: buildFrame({ udp: { sourcePort: i % 9, payload: new Uint8Array(200) } }), time: 1e6 + i * 1e6 }))
  const error = await fails('NF_FILE_UNWRITABLE', run(packets, { out: '/dev/full', flows, timeouts: { udp: 5 } }))
  assert.match(error.message, /the disk is full/)
  assert.ok(lines(flows).length > 500)
})

test('several link types make a pcapng file, also when the second one comes late', async () => {
  const ethernet = webPackets().slice(0, 3)
  const raw = ethernet.map(({ frame, time }) => ({ frame: frame.subarray(14), time: time + 50_000, port: 1 }))
  const packets = [...ethernet, ...raw]
  const together = file(captureBytes(packets, { format: 'pcapng', linkTypes: [1, 101] }))
  // Two sections one after the other: the second link type is not known when the first packets leave.
  const late = file(Buffer.concat([
    captureBytes(ethernet, { format: 'pcapng' }),
    captureBytes(raw.map(({ frame, time }) => ({ frame, time })),
      { format: 'pcapng', linkTypes: [101], nanoseconds: true }),
  ]))
  for (const capture of [together, late]) {
    const out = fresh('out.pcap')
    await run(capture, { out })
    const left = await readBack(out)
    assert.deepEqual(left.packets.map((packet) => Buffer.from(packet.bytes)),
      packets.map(({ frame }) => Buffer.from(frame)))
    assert.deepEqual(left.packets.map((packet) => left.interfaces[packet.interfaceIndex]?.linkType),
      [1, 1, 1, 101, 101, 101])
    assert.deepEqual(left.packets.map((packet) => packet.seconds * 1e6 + packet.nanoseconds / 1e3),
      packets.map(({ time }) => time))
  }
})

test('timestamps keep their nanoseconds also when only a later section has them', async () => {
  // More than a batch, so that some have left when the finer ones come.
  const packets = [0, 1, 2, 3].flatMap((round) =>
    webPackets().map(({ frame, time }) => ({ frame, time: time + round * 20_000 })))
  const finer = packets.map(({ frame, time }) => ({ frame, time: time + 100_000.25 }))
  const out = fresh('out.pcap')
  await run(file(Buffer.concat([
    captureBytes(packets.map(({ frame, time }) => ({ frame, time: Math.floor(time) })), { format: 'pcapng' }),
    captureBytes(finer, { format: 'pcapng', nanoseconds: true }),
  ])), { out }, defineNf({ name: 'pass', version: 1, create: () => ({ processPacket: () => Verdict.Forward }) }))
  const left = await readBack(out)
  assert.deepEqual(left.packets.map((packet) => packet.seconds * 1e6 + packet.nanoseconds / 1e3),
    [...packets.map(({ time }) => Math.floor(time)), ...finer.map(({ time }) => time)])
})

test('a link type that cannot be read, beside one that can, is a warning', async () => {
  const packets = webPackets().map((packet, index) => ({ ...packet, port: index % 2 }))
  const report = await run(file(captureBytes(packets, { format: 'pcapng', linkTypes: [1, 127] })))
  assert.equal(report.packets.received, 12)
  assert.equal(report.nfs['counting']?.packets, 6)
  assert.match(report.warnings.join(), /radiotap cannot be read/)
})

test('a frame that no slot can hold is dropped with a reason of its own', async () => {
  const long = new Uint8Array(FRAME_BYTES_MAX + 1)
  const [first] = webPackets() as [SamplePacket]
  long.set(first.frame)
  const report = await run([first, { ...first, frame: long }])
  assert.deepEqual(report.dropReasons, { 'frame-too-long': 1 })
  assert.equal(report.bytes.received, first.frame.length + long.length)
})

test('an NF that throws is reported once, and the run goes on', async () => {
  const failing = defineNf({
    name: 'failing', version: 1,
    create: () => ({
      processPacket(packet) {
        if (packet.protocol === 17) throw new Error('no UDP, please')
        return Verdict.Forward
      },
    }),
  })
  const reports: unknown[] = []
  const report = await run(webPackets(), { onNfFailed: (...args) => reports.push(args) }, failing)
  assert.deepEqual(report.dropReasons, { 'nf-error': 2 })
  assert.equal(report.nfErrors, 1)
  assert.equal(reports.length, 1)
  const [name, error] = reports[0] as [string, Error]
  assert.equal(name, 'failing')
  assert.equal(error.message, 'no UDP, please')
  const bypassed = await run(webPackets(), { policy: { nfError: 'bypass' } }, failing)
  assert.deepEqual(bypassed.dropReasons, { 'nf-error': 1 })
})

test('a chain that cannot be made says which and why', async () => {
  const broken = defineNf({ name: 'broken', version: 1, create: () => { throw new Error('cannot be made') } })
  const error = await fails('NF_NF_INVALID', run(webPackets(), {}, broken))
  assert.match(error.message, /broken.*cannot be made.*run-capture\.test\.ts:\d+/)
  const empty = defineNf({ name: 'empty', version: 1, create: () => ({}) as never })
  await fails('NF_NF_INVALID', run(webPackets(), {}, empty))
})

test('limits that the machine cannot meet', async () => {
  assert.match((await fails('NF_LIMIT', run(webPackets(), { limits: { flows: 2 ** 26 } }))).mend, /Lower the limits/)
})

test('a signal ends the run early, with all outputs whole', async () => {
  const packets = Array.from({ length: 5000 }, (_, i) =>
    ({ frame: buildFrame({ udp: { sourcePort: i % 9, payload: new Uint8Array(500) } }), time: 1e6 + i }))
  const capture = file(captureBytes(packets))
  const [out, flows] = [fresh('out.pcap'), fresh('flows')]
  const stop = new AbortController()
  const report = await run(capture, { out, flows, signal: stop.signal, onProgress: () => stop.abort() })
  assert.equal(report.capture.state, 'aborted')
  assert.ok(report.packets.received > 0 && report.packets.received < 5000, `${report.packets.received}`)
  assert.equal((await readBack(out)).packets.length, report.packets.forwarded)
  assert.equal(lines(flows).reduce((sum, flow) => sum + (flow.packets as number), 0), report.packets.received)
})

test('the same run gives the same, twice', async () => {
  const first = await run(webPackets())
  const second = await run(webPackets())
  const timeless = ({ elapsedSeconds: _, packetsPerSecond: __, capture: ___, ...rest }: RunReport) => rest
  assert.deepEqual(timeless(second), timeless(first))
})
