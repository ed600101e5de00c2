/**
 * Flow set-up and end: every packet opens a flow, and as many flows expire, with a steady number alive. One process, one line
 * of JSON.
 *
 * Time passes by one microsecond per packet; the idle timeout is as many microseconds as flows shall be alive. Expiry runs after
 * each batch with a budget, as a node's poll loop does it. The time of every batch (with its share of expiry) is kept.
 */

import { performance } from 'node:perf_hooks'
import { setEngineFlags } from '../../src/process/engine-flags.ts'

setEngineFlags()

export interface ChurnResult {
  readonly flows: number
  /** Nanoseconds per new flow, the end of another included. */
  readonly perFlow: number
  /** Microseconds per batch of 32. */
  readonly p50: number
  readonly p999: number
  readonly max: number
  readonly alive: number
}

const { flows } = JSON.parse(process.argv[2] as string) as { flows: number }
const { Arena } = await import('../../src/memory/arena.ts')
const { Descriptor } = await import('../../src/packet/descriptor.ts')
const { adviseHugePages } = await import('../../src/ports/huge-pages.ts')
const { createEngine, defaultPolicy } = await import('../../src/runtime/engine.ts')
const { defaultTimeouts } = await import('../../src/base/limits.ts')
const { chainMembers } = await import('./variants.ts')

const arena = new Arena()
adviseHugePages(arena)
const engine = createEngine({
  arena,
  chain: await chainMembers('chain'),
  limits: { flows: Math.ceil(flows * 1.3), unanswered: flows, packets: 64, largePackets: 1, extentBytes: 1 << 20, recordBytes: 1 << 20,
    heldPerFlow: 1, aliases: 1, fragmentedDatagrams: 64, fragmentsHeld: 64, fragmentsHeldPerDatagram: 8 },
  timeouts: { ...defaultTimeouts, udp: flows / 1e6 },
  policy: defaultPolicy,
  seed: 1,
})
const { i32, u8, f64, view } = arena
const frames = arena.allocate('churn frames', 32 * 2048, 64)
for (let i = 0; i < 32; i++) {
  const frame = frames + i * 2048 + 2
  view.setUint16(frame + 12, 0x0800)
  u8[frame + 14] = 0x45
  view.setUint16(frame + 16, 46)
  u8[frame + 22] = 64
  u8[frame + 23] = 17
  view.setUint16(frame + 38, 26)
  const d = engine.descriptor(i)
  i32[d + Descriptor.frame] = frame
  i32[d + Descriptor.length] = 60
  i32[d + Descriptor.wireLength] = 60
  i32[d + Descriptor.linkType] = 1
  i32[d + Descriptor.slot] = 0
}
let made = 0
const start = 1.7e15

function batch(): number {
  const now = start + made
  for (let i = 0; i < 32; i++) {
    const frame = frames + i * 2048 + 2
    view.setInt32(frame + 26, 0x0a000000 + (made & 0xffffff))
    view.setInt32(frame + 30, 0x64400000 + (made >>> 24))
    view.setInt32(frame + 34, 0x04000035 + ((made & 0x3ff) << 16))
    f64[(engine.descriptor(i) + Descriptor.time) >> 1] = now
    made++
  }
  const before = performance.now()
  engine.batchCount = 32
  engine.process()
  engine.clearOutput()
  engine.advance(now, 128)
  return (performance.now() - before) * 1000
}

const warm = Math.ceil(flows * 3 / 32)
for (let i = 0; i < warm; i++) batch()
const samples = new Float64Array(Math.ceil(Math.max(flows * 4, 2_000_000) / 32))
for (let i = 0; i < samples.length; i++) samples[i] = batch()
const sum = samples.reduce((a, b) => a + b, 0)
samples.sort()
const result: ChurnResult = {
  flows,
  perFlow: sum * 1000 / (samples.length * 32),
  p50: samples[samples.length >> 1] as number,
  p999: samples[Math.floor(samples.length * 0.999)] as number,
  max: samples.at(-1) as number,
  alive: engine.table.size,
}
process.stdout.write(`${JSON.stringify(result)}\n`)
