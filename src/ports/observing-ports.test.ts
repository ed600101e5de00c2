import { after, test } from 'node:test'
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ManualClock } from '../base/clock.ts'
import { Arena } from '../memory/arena.ts'
import { DESCRIPTOR_BYTES, DESCRIPTOR_WORDS, Descriptor } from '../packet/descriptor.ts'
import { PacketPool } from '../packet/packet-pool.ts'
import { buildFrame, buildFragments } from '../testing/packet-builder.ts'
import { createMemoryPorts } from '../transport/memory-port.ts'
import { CaptureRecorder } from '../wire/capture-recorder.ts'
import { openCaptureReader } from './capture-file-reader.ts'
import { CapturePort } from './capture-port.ts'
import { FaultPort } from './fault-port.ts'
import { compileFlowFilter, summariseFrame, type FlowFilter } from './frame-summary.ts'
import { createMemoryPortPair } from './memory-port-pair.ts'
import { portContract } from './port-contract.ts'
import { TracePort } from './trace-port.ts'
import type { InnerPort } from './wrapper-port.ts'

const folder = mkdtempSync(join(tmpdir(), 'nfactor-observing-'))
after(() => { rmSync(folder, { recursive: true }) })
const arena = new Arena(32 << 20)

const tcp = buildFrame({
  source: '10.0.0.1', destination: '10.0.0.2', tcp: { sourcePort: 7, destinationPort: 80, flags: 'SA', sequence: 5, payload: 'abc' },
})
const back = buildFrame({ source: '10.0.0.2', destination: '10.0.0.1', tcp: { sourcePort: 80, destinationPort: 7 } })
const udp = buildFrame({ vlans: [100, 7], source: '2001:db8::1', destination: '::ffff:192.0.2.1', udp: { sourcePort: 53, destinationPort: 9 } })
const icmp = buildFrame({ icmp: { type: 8 } })
const [fragment, later] = buildFragments({ udp: { sourcePort: 1, destinationPort: 2, payload: new Uint8Array(3000) } }, 1400)
const extended = buildFrame({
  source: '2001:db8::1', extensions: [{ type: 0 }, { type: 60 }], tcp: { sourcePort: 7, destinationPort: 80, flags: 'R' },
})

test('a frame in one line', () => {
  const lines: [Uint8Array, string][] = [
    [tcp, '10.0.0.1:7 > 10.0.0.2:80 tcp SA seq 5 ack 0 data 3'],
    [udp, 'vlan 100, vlan 7, [2001:db8::1]:53 > [::ffff:192.0.2.1]:9 udp data 0'],
    [icmp, '10.0.0.1 > 10.0.0.2 icmp'],
    [fragment, '10.0.0.1:1 > 10.0.0.2:2 udp fragment data 1392'],
    [later, '10.0.0.1 > 10.0.0.2 udp fragment'],
    [extended, '[2001:db8::1]:7 > [2001:db8::2]:80 tcp R seq 0 ack 0 data 0'],
    [buildFrame({ etherType: 0x88b5 }), 'NFactor message'],
    [buildFrame({ etherType: 0x0806 }), 'arp'],
    [buildFrame({ etherType: 0x0042 }), 'EtherType 0x0042'],
    [tcp.subarray(0, 20), 'IPv4, malformed'],
    [tcp.subarray(0, 40), '10.0.0.1 > 10.0.0.2 tcp'],
    [tcp.subarray(0, 9), '9 bytes, too short for Ethernet'],
  ]
  for (const [frame, line] of lines) assert.equal(summariseFrame(frame, 0, frame.length), line)
})

test('no bytes make the summary or a filter fail', () => {
  const matches = compileFlowFilter({ protocol: 'tcp', port: 80 })
  for (const frame of [tcp, udp, icmp, fragment, later, extended]) {
    for (let length = 0; length <= Math.min(frame.length, 120); length++) {
      const cut = frame.slice(0, length)
      matches(cut, 0, length)
      assert.ok(summariseFrame(cut, 0, length).length > 0)
    }
    for (let at = 0; at < Math.min(frame.length, 80); at++) {
      const changed = frame.slice()
      changed[at] = 255
      matches(changed, 0, changed.length)
      assert.ok(summariseFrame(changed, 0, changed.length).length > 0)
    }
  }
})

test('filters pick flows, both ways', () => {
  const all = { tcp, back, udp, icmp, fragment, later, extended, arp: buildFrame({ etherType: 0x0806 }) }
  const cases: [FlowFilter, (keyof typeof all)[]][] = [
    [{}, ['tcp', 'back', 'udp', 'icmp', 'fragment', 'later', 'extended', 'arp']],
    [{ protocol: 'tcp' }, ['tcp', 'back', 'extended']], [{ protocol: 17 }, ['udp', 'fragment', 'later']],
    [{ protocol: 'icmp' }, ['icmp']], [{ port: 80 }, ['tcp', 'back', 'extended']],
    [{ address: '10.0.0.1', port: 80 }, []], [{ address: '10.0.0.1', port: 7 }, ['tcp', 'back']],
    [{ address: '10.0.0.1', peerPort: 80 }, ['tcp', 'back']], [{ address: '10.0.0.2', peerAddress: '10.0.0.2' }, []],
    [{ address: '2001:DB8:0::1' }, ['udp', 'extended']], [{ address: '::ffff:192.0.2.1', port: 9, peerPort: 53 }, ['udp']],
    [{ address: '10.0.0.1', peerAddress: '10.0.0.2', protocol: 'udp' }, ['fragment', 'later']], [{ port: 1 }, ['fragment']],
  ]
  for (const [filter, expected] of cases) {
    const matches = compileFlowFilter(filter)
    assert.deepEqual(Object.entries(all).filter(([, frame]) => matches(frame, 0, frame.length)).map(([name]) => name), expected,
      JSON.stringify(filter))
  }
  for (const filter of [{ port: 70_000 }, { peerPort: -2 }, { address: '10.0.0' }, { peerAddress: 'fe80::1%eth0' }, { protocol: 256 }]) {
    assert.throws(() => compileFlowFilter(filter), { name: 'CodedError', code: 'NF_CONFIG_INVALID' })
  }
})

/** A memory link; the test's frames can be sent through what is put around its near end, or come in there. */
function link(wrap: (inner: InnerPort) => InnerPort) {
  arena.reset()
  const [near, far] = createMemoryPorts(arena, { frames: 8, reserved: 2, frameBytes: 2000 })
  const pool = new PacketPool(arena, 16, 1)
  const descriptors = arena.allocate('batch', 32 * DESCRIPTOR_BYTES) >> 2
  const scratch = arena.allocate('scratch', 4096) + 2
  const port = wrap(near)
  const put = (frame: Uint8Array): [number, number] => {
    arena.u8.set(frame, scratch)
    return [scratch, frame.length]
  }
  const take = (from: InnerPort): Uint8Array[] => Array.from({ length: from.receive(pool, descriptors, 32) }, (_, index) => {
    const d = descriptors + index * DESCRIPTOR_WORDS
    const at = arena.i32[d + Descriptor.frame]
    pool.give(arena.i32[d + Descriptor.slot])
    return arena.u8.slice(at, at + arena.i32[d + Descriptor.length])
  })
  return {
    send: (frame: Uint8Array) => port.send(...put(frame)), sendReserved: (frame: Uint8Array) => port.sendReserved(...put(frame)),
    comeIn: (frame: Uint8Array) => far.send(...put(frame)), receive: () => take(port), arrived: () => take(far),
  }
}

test('the trace port remembers the last frames', () => {
  const clock = new ManualClock(1000)
  let trace!: TracePort
  const one = link((inner) => trace = new TracePort({ arena, inner, frames: 4, clock }))
  assert.ok(one.send(tcp))
  clock.advanceBy(5)
  assert.ok(one.comeIn(back))
  assert.deepEqual(one.receive(), [back])
  assert.ok(one.sendReserved(fragment))
  assert.deepEqual(trace.entries().map(({ time, direction, length, summary }) => [time, direction, length, summary]), [
    [1000, 'out', tcp.length, '10.0.0.1:7 > 10.0.0.2:80 tcp SA seq 5 ack 0 data 3'],
    [1005, 'in', back.length, '10.0.0.2:80 > 10.0.0.1:7 tcp A seq 0 ack 0 data 0'],
    [1005, 'out', fragment.length, '10.0.0.1:1 > 10.0.0.2:2 udp fragment data 86'],
  ])
  assert.deepEqual(trace.entries()[0].bytes, tcp)
  assert.deepEqual(trace.entries()[2].bytes, fragment.slice(0, 128))
  for (let i = 0; i < 4; i++) one.send(icmp)
  assert.equal(one.send(udp), false)
  assert.deepEqual(trace.entries().map(({ direction }) => direction), ['out', 'out', 'out', 'refused'])
  assert.equal(trace.count, 8)
  trace.setFilter({ protocol: 'udp' })
  trace.forget()
  one.arrived()
  for (const frame of [tcp, udp, icmp]) one.send(frame)
  assert.deepEqual(trace.entries().map(({ summary }) => summary), [summariseFrame(udp, 0, udp.length)])
  assert.throws(() => link((inner) => new TracePort({ arena, inner, frames: 0 })), { name: 'CodedError', code: 'NF_CONFIG_INVALID' })
})

async function packetsOf(path: string): Promise<CaptureRecorder['packets']> {
  const recorder = new CaptureRecorder()
  const ending = await (await openCaptureReader(path)).readInto(recorder)
  assert.equal(ending.state, 'complete')
  return recorder.packets
}

test('the capture port writes what passes, up to its bounds', async () => {
  const clock = new ManualClock(2_000_000.25)
  let capture!: CapturePort
  const path = join(folder, 'both.pcapng')
  const one = link((inner) => capture = new CapturePort({ arena, inner, path, clock, framesMax: 3, snapBytes: 60 }))
  one.send(tcp)
  one.comeIn(fragment)
  one.receive()
  clock.advanceBy(1_500_000)
  one.sendReserved(icmp)
  assert.ok(capture.isOver)
  assert.ok(one.send(icmp))
  assert.deepEqual((await packetsOf(path)).map((p) => [p.bytes.length, p.originalLength, p.seconds, p.nanoseconds, p.interfaceIndex]), [
    [57, 57, 2, 250, 1], [60, fragment.length, 2, 250, 0], [42, 42, 3, 500_000_250, 1],
  ])

  const filtered = join(folder, 'filtered.pcap')
  const two = link((inner) => capture = new CapturePort({ arena, inner, path: filtered, clock, bytesMax: 120, filter: { port: 80 } }))
  for (const frame of [tcp, icmp, back, tcp]) assert.ok(two.send(frame))
  assert.ok(capture.isOver)
  assert.equal(capture.frames, 2)
  assert.equal((await packetsOf(filtered)).length, 2)
  assert.deepEqual(two.arrived(), [tcp, icmp, back, tcp])
})

test('a frame that is refused is not in the capture; what is buffered can be read after a while', async () => {
  const path = join(folder, 'refused.pcap')
  let capture!: CapturePort
  const one = link((inner) => capture = new CapturePort({ arena, inner, path }))
  for (let i = 0; i < 7; i++) assert.equal(one.send(icmp), i < 6)
  capture.maintain(2e6)
  assert.equal((await packetsOf(path)).length, 6)
  capture.close()
  capture.close()
  assert.equal(capture.problem, undefined)
})

test('a full disk ends the capture, not the traffic', () => {
  const full = join(folder, 'full.pcap')
  symlinkSync('/dev/full', full)
  let capture!: CapturePort
  const one = link((inner) => capture = new CapturePort({ arena, inner, path: full }))
  assert.ok(one.send(icmp))
  capture.maintain(2e6)
  assert.equal(capture.problem?.code, 'NF_FILE_UNWRITABLE')
  assert.ok(capture.isOver)
  assert.ok(one.send(icmp))
  assert.deepEqual(one.arrived(), [icmp, icmp])
  capture.close()
})

test('a capture that cannot be begun says why', () => {
  link((inner) => {
    const cases: [object, string][] = [[{ path: join(folder, 'none', 'x.pcap') }, 'NF_FILE_UNWRITABLE'],
      [{ path: join(folder, 'x') }, 'NF_USAGE'], [{ path: join(folder, 'x.pcap'), framesMax: 0 }, 'NF_CONFIG_INVALID'],
      [{ path: join(folder, 'x.pcap'), filter: { port: -5 } }, 'NF_CONFIG_INVALID']]
    for (const [options, code] of cases) {
      assert.throws(() => new CapturePort({ arena, inner, path: '', ...options }), { name: 'CodedError', code })
    }
    return inner
  })
})

let captures = 0
for (const [name, check] of Object.entries(portContract)) {
  test(`fault, trace and capture ports in a stack: ${name}`, () => {
    check(createMemoryPortPair((inner, own) => new FaultPort({
      arena: own, seed: 1,
      inner: new TracePort({ arena: own, inner: new CapturePort({ arena: own, inner, path: join(folder, `${captures++}.pcapng`) }) }),
    })))
  })
}
