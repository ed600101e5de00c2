/**
 * `nfactor bench transport`: messages per second one way between two sessions.
 *
 *     node bench/transport/main.ts [--quick] [--runs N] [--json FILE]
 *
 * Two sessions in one arena, with memory ports between them: a message is written, goes into a frame, into the port's ring, into
 * a slot, and is read by the handler; acknowledgements come back. A turn is a burst of messages and one `transmit`, as in a
 * node. Beside it, in turns with it, the least that any transport could do: the message is written, copied once and read. Medians
 * of several runs; the ratio to the copy is what compares between machines.
 */

import { writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { CodedError } from '../../src/base/coded-error.ts'
import { runBenchProgram } from '../../src/cli/bench-program.ts'
import { setEngineFlags } from '../../src/process/engine-flags.ts'
import { Arena } from '../../src/memory/arena.ts'
import { Descriptor, DESCRIPTOR_BYTES, DESCRIPTOR_WORDS } from '../../src/packet/descriptor.ts'
import { PacketPool } from '../../src/packet/packet-pool.ts'
import { Stream } from '../../src/transport/frame-header.ts'
import { createMemoryPorts } from '../../src/transport/memory-port.ts'
import { Session } from '../../src/transport/session.ts'

const SIZES = [64, 256, 1024]
/** Messages between two `transmit`. */
const BURST = 32

const HELP = `nfactor bench transport [--quick] [--runs N] [--json FILE]

Messages per second one way between two sessions in one process, beside a plain copy of the same messages.`

const arena = new Arena(16 << 20)
const { i32, u8 } = arena

/** Writes a message of `bytes` bytes: every word once. */
function write(at: number, bytes: number, number: number): void {
  for (let word = at >> 2, end = (at + bytes) >> 2; word < end; word++) i32[word] = number
}

function createSessions() {
  const pool = new PacketPool(arena, 512, 0)
  const ports = createMemoryPorts(arena, { frames: 256, reserved: 32, frameBytes: 1514 })
  const descriptors = arena.allocate('batch', 32 * DESCRIPTOR_BYTES) >> 2
  let received = 0
  let sum = 0
  const sizes = { sendBytes: 131_072, ringBytes: 524_288 }
  const sessions = [0, 1].map((index) => {
    const session = new Session({ arena, clusterId: 1, self: index + 1, selfIncarnation: index + 1, peer: 2 - index,
      stream: Stream.control, sizes,
      onMessage: (offset, bytes) => {
        received++
        sum = (sum + i32[offset >> 2] + i32[(offset + bytes - 4) >> 2]) | 0
      } })
    session.setPeer(2 - index)
    return session
  }) as [Session, Session]
  let now = 1000

  function turn(index: 0 | 1): void {
    for (;;) {
      const count = ports[index].receive(pool, descriptors, 32)
      for (let i = 0; i < count; i++) {
        const d = descriptors + i * DESCRIPTOR_WORDS
        sessions[index].receive(i32[d + Descriptor.frame] + 14, i32[d + Descriptor.length] - 14, now)
        pool.give(i32[d + Descriptor.slot])
      }
      if (count < 32) break
    }
    sessions[index].transmit(ports[index], now)
  }

  return (bytes: number, count: number): number => {
    received = sum = 0
    for (let sent = 0; sent < count || received < count;) {
      now += 10
      for (let burst = 0; burst < BURST && sent < count; burst++) {
        const at = sessions[0].begin(bytes)
        if (at === 0) break
        write(at, bytes, sent++)
        sessions[0].commit()
      }
      turn(0)
      turn(1)
    }
    const { retransmitted, corrupted } = sessions[0].statistics
    if (retransmitted + corrupted > 0) throw new Error('frames were lost between memory ports')
    return sum
  }
}

function createCopy() {
  const ring = 524_288
  const from = arena.allocate('from', ring)
  const to = arena.allocate('to', ring)
  return (bytes: number, count: number): number => {
    let sum = 0
    for (let sent = 0; sent < count;) {
      const first = sent
      for (let burst = 0; burst < BURST && sent < count; burst++) {
        const place = (sent * bytes) & (ring - 1)
        write(from + place, bytes, sent++)
        u8.copyWithin(to + place, from + place, from + place + bytes)
      }
      for (let read = first; read < sent; read++) {
        const at = to + ((read * bytes) & (ring - 1))
        sum = (sum + i32[at >> 2] + i32[(at + bytes - 4) >> 2]) | 0
      }
    }
    return sum
  }
}

function measure(run: (bytes: number, count: number) => number, bytes: number, messages: number): { ns: number; sum: number } {
  const start = process.hrtime.bigint()
  const sum = run(bytes, messages)
  return { ns: Number(process.hrtime.bigint() - start) / messages, sum }
}

const median = (list: number[]): number => list.toSorted((a, b) => a - b)[list.length >> 1] as number

export async function main(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({ args: [...args], options: {
    quick: { type: 'boolean', default: false }, runs: { type: 'string' }, json: { type: 'string' }, help: { type: 'boolean', default: false },
  } })
  if (values.help) {
    console.log(HELP)
    return 0
  }
  const runs = Number(values.runs ?? (values.quick ? 3 : 9))
  const messages = values.quick ? 200_000 : 1_000_000
  if (!(runs >= 1)) throw new CodedError('NF_USAGE', 'bench transport: --runs takes a number from 1')
  setEngineFlags()
  const overSessions = createSessions()
  const copying = createCopy()
  for (const bytes of SIZES) for (const run of [overSessions, copying]) run(bytes, 50_000)

  console.log(`${cpus()[0]?.model ?? 'unknown CPU'}, Node ${process.version}; median of ${runs} runs of ${
    messages.toLocaleString('en')} messages (lowest to highest)\n`)
  console.log('  bytes    messages/s     ns per message        copy   ratio')
  const rows = SIZES.map((bytes) => {
    const transport: number[] = []
    const copy: number[] = []
    for (let run = 0; run < runs; run++) {
      const a = measure(overSessions, bytes, messages)
      const b = measure(copying, bytes, messages)
      if (a.sum !== b.sum) throw new Error('what arrived is not what was sent')
      transport.push(a.ns)
      copy.push(b.ns)
    }
    const ns = median(transport)
    const row = { bytes, ns, low: Math.min(...transport), high: Math.max(...transport), messagesPerSecond: 1e9 / ns,
      copyNs: median(copy), ratio: ns / median(copy) }
    console.log(`${String(bytes).padStart(7)}${Math.round(row.messagesPerSecond).toLocaleString('en').padStart(14)}${
      ns.toFixed(0).padStart(8)} (${row.low.toFixed(0)} to ${row.high.toFixed(0)})`.padEnd(46) +
      `${row.copyNs.toFixed(0)} ns`.padStart(6) + row.ratio.toFixed(1).padStart(8))
    return row
  })

  const start = process.hrtime.bigint()
  const CREATED = 200
  for (let i = 0; i < CREATED; i++) {
    new Session({ arena, clusterId: 1, self: 1, selfIncarnation: 1, peer: 2, stream: Stream.control,
      sizes: { sendBytes: 4096, ringBytes: 16_384, messageBytesMax: 2048 }, onMessage: () => {} })
  }
  const createdUs = Number(process.hrtime.bigint() - start) / CREATED / 1000
  console.log(`\nmaking a small session takes ${createdUs.toFixed(1)} µs`)

  if (values.json !== undefined) {
    const result = { node: process.version, cpu: cpus()[0]?.model, runs, messages, rows, createdUs }
    writeFileSync(values.json, `${JSON.stringify(result, null, 1)}\n`)
    console.log(`written to ${values.json}`)
  }
  return 0
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await runBenchProgram(main)
