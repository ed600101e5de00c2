/**
 * `node bench/traffic/main.ts [--quick] [--runs N] [--json FILE]`: packets per second of processor time of the
 * traffic generator, alone and with everything given straight to its sink.
 *
 * The generator makes frames in slots of a pool, batches of 32, as for a data plane; then the slots are given back. Beside it, in
 * turns with it, the least that any generator could do: a frame made beforehand is copied into a slot. Medians of several runs;
 * the ratio to the copy is what compares between machines. Each measurement has a process of its own, for V8 compiles a closure for
 * what it is bound to only while it is the only one.
 */

import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { readBenchOptions, runsOf } from '../../src/cli/bench-program.ts'
import { Arena } from '../../src/memory/arena.ts'
import { loadKernels } from '../../src/memory/kernels/kernels.ts'
import { Descriptor, DESCRIPTOR_BYTES, DESCRIPTOR_WORDS } from '../../src/packet/descriptor.ts'
import { PacketPool, SLOT_FRAME_OFFSET } from '../../src/packet/packet-pool.ts'
import { createTraffic } from '../../src/ports/traffic/traffic-generator.ts'
import type { TrafficOptions } from '../../src/ports/traffic/traffic-options.ts'

const USAGE = 'node bench/traffic/main.ts [--quick] [--runs N] [--json FILE]'
const { values, runs } = readBenchOptions(USAGE, {
  quick: { type: 'boolean', default: false }, runs: { type: 'string' }, json: { type: 'string' },
  // For the processes that measure.
  case: { type: 'string' }, sink: { type: 'boolean', default: false },
}, (given) => ({ values: given, runs: runsOf(given.runs, given.quick ? 3 : 9) }))
const packets = values.quick ? 300_000 : 1_000_000

const tcp = { tcpShare: 1, requestPackets: 4, replyPackets: 4, turns: 10 }
const cases: Record<string, Omit<TrafficOptions, 'arena' | 'seed'>> = {
  '60 bytes, UDP, 1,000 flows': { flows: 1000 },
  '60 bytes, UDP, 1,000,000 flows': { flows: 1_000_000 },
  '70 bytes, TCP both ways, 10,000 flows at once': { flows: 10_000, ...tcp },
  'IMIX, half TCP, 10,000 flows': { flows: 10_000, sizes: 'imix', ...tcp, tcpShare: 0.5 },
  '1,514 bytes, UDP, 1,000 flows': { flows: 1000, sizes: 1514 },
}

interface Row {
  readonly name: string
  readonly packetsPerSecond: number
  readonly withSink: number
  readonly copy: number
}

const median = (list: readonly number[]): number => [...list].sort((a, b) => a - b)[list.length >> 1]

/** Packets per second of one run, by the processor time of this thread: what else runs on the machine disturbs that less. */
function rate(turn: () => number): number {
  const start = process.threadCpuUsage()
  let count = 0
  while (count < packets) count += turn()
  const { user, system } = process.threadCpuUsage(start)
  return count / (user + system) * 1e6
}

/** Medians of packets per second: of the generator, with or without its sink, and of the copy. */
function measure(options: Omit<TrafficOptions, 'arena' | 'seed'>, isSunk: boolean): [number, number] {
  const arena = new Arena(64 << 20)
  const { i32 } = arena
  const { copy } = loadKernels(arena)
  const pool = new PacketPool(arena, 1024, 4)
  const descriptors = arena.allocate('batch', 32 * DESCRIPTOR_BYTES) >> 2
  const frame = arena.allocate('frame', 2048) + 2
  const length = typeof options.sizes === 'number' ? options.sizes : 60
  const traffic = createTraffic({ arena, seed: 1, ...options })

  const trafficTurn = (): number => {
    let count = 0
    for (const side of [0, 1] as const) {
      const came = traffic.ports[side].receive(pool, descriptors, 32)
      for (let d = descriptors; d < descriptors + came * DESCRIPTOR_WORDS; d += DESCRIPTOR_WORDS) {
        if (isSunk) traffic.ports[1 - side].send(i32[d + Descriptor.frame], i32[d + Descriptor.length])
        pool.give(i32[d + Descriptor.slot])
      }
      count += came
    }
    return count
  }
  const copyTurn = (): number => {
    for (let i = 0; i < 32; i++) {
      const slot = pool.take(length)
      copy(slot + SLOT_FRAME_OFFSET, frame, length)
      pool.give(slot)
    }
    return 32
  }
  rate(trafficTurn)
  rate(copyTurn)
  const rates: [number[], number[]] = [[], []]
  for (let run = 0; run < runs; run++) {
    rates[0].push(rate(trafficTurn))
    rates[1].push(rate(copyTurn))
  }
  const { received, lost, corrupted, foreign } = traffic.sink.totals
  if (isSunk && (received !== traffic.sent.packets || lost + corrupted + foreign > 0)) {
    throw new Error('the sink disagrees with the generator')
  }
  return [median(rates[0]), median(rates[1])]
}

if (values.case !== undefined) {
  console.log(JSON.stringify(measure(cases[values.case], values.sink)))
  process.exit()
}

const rows = Object.keys(cases).map((name): Row => {
  const [alone, sunk] = [[], ['--sink']].map((more) => JSON.parse(execFileSync(process.execPath, [import.meta.filename, '--case', name,
    '--runs', `${runs}`, ...values.quick ? ['--quick'] : [], ...more], { encoding: 'utf8' })) as [number, number])
  return { name, packetsPerSecond: alone[0], withSink: sunk[0], copy: alone[1] }
})
const mega = (value: number): string => (value / 1e6).toFixed(2).padStart(8)
console.log(`Mpackets per second of processor time, medians of ${runs} runs; Node ${process.version}, ` +
  `${cpus()[0]?.model ?? 'unknown processor'}\n`)
console.log(`${''.padEnd(48)}generator  with sink  copy alone  generator : copy`)
for (const row of rows) {
  console.log(`${row.name.padEnd(48)} ${mega(row.packetsPerSecond)}   ${mega(row.withSink)}    ${mega(row.copy)}  ` +
    `${(row.packetsPerSecond / row.copy).toFixed(2).padStart(16)}`)
}
if (values.json !== undefined) {
  const report = { bench: 'traffic', node: process.version, processor: cpus()[0]?.model, runs, rows }
  writeFileSync(values.json, `${JSON.stringify(report, null, 2)}\n`)
}
