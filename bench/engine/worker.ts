/**
 * One measurement of the engine bench, in a process of its own: a variant, a number of flows, a distribution. Prints one line
 * of JSON. Started by main.ts.
 *
 * The trace makes a chunk of 4,096 packets (not timed), the variant runs it in batches of 32 (timed), and so on. A sample is the
 * time per packet of one chunk; the first third warms up and is left out. Filling the descriptors and reading the output is part
 * of the time, as a port would do it.
 */

import { memoryUsage } from 'node:process'
import { performance } from 'node:perf_hooks'
import { setEngineFlags } from '../../src/process/engine-flags.ts'
import type { Engine } from '../../src/runtime/engine.ts'
import type { VariantDigest } from './digest.ts'

setEngineFlags()

export interface WorkerOptions {
  readonly variant: string
  readonly flows: number
  readonly distribution: 'uniform' | 'zipf'
  readonly chunks: number
  readonly wasm: boolean
}

export interface WorkerResult extends WorkerOptions {
  /** Nanoseconds per packet. */
  readonly median: number
  readonly p10: number
  readonly p90: number
  /** Nanoseconds per packet while the flows were opened (three packets each), and per flow. */
  readonly opening: number
  readonly digest: VariantDigest
  readonly recordBytes: number
  readonly tableBytes: number
  /** Growth of the JavaScript heap per packet, bytes, after the warm-up; what the bench itself allocates included. */
  readonly allocated: number
  readonly scavenges: number
}

const options = JSON.parse(process.argv[2] as string) as WorkerOptions
const result = options.variant.startsWith('twin') ? await runTwin() : await runEngine()
process.stdout.write(`${JSON.stringify(result)}\n`)

async function runEngine(): Promise<WorkerResult> {
  const { Arena } = await import('../../src/memory/arena.ts')
  const { Descriptor } = await import('../../src/packet/descriptor.ts')
  const { adviseHugePages } = await import('../../src/ports/huge-pages.ts')
  const { SLOT_BYTES, Trace } = await import('./trace.ts')
  const { engineFor } = await import('./variants.ts')
  const { digestEngine, digestRecords } = await import('./engine-digest.ts')
  const arena = new Arena()
  if (process.env.NFACTOR_HUGE_PAGES !== '0') adviseHugePages(arena)
  const engine: Engine = await engineFor(arena, options)
  const trace = new Trace(arena, { flows: options.flows, distribution: options.distribution, seed: 20260101 })
  const { i32 } = arena
  const frame = Descriptor.frame
  const length = Descriptor.length
  const linkType = Descriptor.linkType
  const slot = Descriptor.slot
  const lengths = trace.lengths
  const { process: runBatch, clearOutput, outputs: output } = engine
  const descriptor0 = engine.descriptor(0)
  let now = 1.7e15
  const outputs = new Int32Array(trace.made + 8192)
  let outputCount = 0

  for (let i = 0; i < engine.batchPackets; i++) {
    i32[engine.descriptor(i) + linkType] = 1
    i32[engine.descriptor(i) + slot] = 0
  }

  function runChunk(count: number): number {
    let left = 0
    const start = performance.now()
    for (let first = 0; first < count; first += 32) {
      const packets = Math.min(32, count - first)
      now += packets * 0.1
      let d = descriptor0
      let at = trace.frame(first)
      for (let i = 0; i < packets; i++) {
        const bytes = i32[lengths + first + i]
        i32[d + frame] = at
        i32[d + length] = bytes
        d += 32
        at += SLOT_BYTES
      }
      engine.batchCount = packets
      const leaving = runBatch(now)
      for (let i = 0; i < leaving; i++) outputs[left++] = i32[i32[output + i] + frame]
      clearOutput()
    }
    outputCount = left
    return (performance.now() - start) * 1e6 / count
  }

  const state = { output: 0x811c9dc5 | 0, records: 0x811c9dc5 | 0 }
  const account = (): void => {
    for (let i = 0; i < outputCount; i++) {
      state.output = Math.imul(state.output ^ Math.floor((outputs[i] - trace.pool) / SLOT_BYTES), 0x01000193)
    }
    state.records = digestRecords(engine, state.records)
  }
  const opening: number[] = []
  for (let flow = 0; flow < options.flows;) {
    flow = trace.openNext(flow)
    opening.push(runChunk(trace.count))
    account()
  }
  const warm = Math.ceil(options.chunks / 3)
  const samples = new Float64Array(options.chunks - warm)
  let heapBefore = 0
  let measuredFrom = 0
  let measured = 0
  const { scavenges, stop } = countScavenges()
  for (let chunk = 0; chunk < options.chunks; chunk++) {
    trace.next()
    if (chunk === warm) {
      heapBefore = memoryUsage().heapUsed
      measuredFrom = performance.now()
    }
    const sample = runChunk(trace.count)
    if (chunk >= warm) {
      samples[chunk - warm] = sample
      measured += trace.count
    }
    account()
  }
  const allocated = Math.max(0, memoryUsage().heapUsed - heapBefore) / measured
  const measuredTo = performance.now()
  // The observer is told of collections between turns of the event loop only.
  await new Promise((resolve) => setTimeout(resolve, 50))
  stop()
  samples.sort()
  opening.sort((a, b) => a - b)
  return {
    ...options,
    ...quantiles(samples),
    opening: opening[opening.length >> 1] as number,
    digest: digestEngine(engine, state),
    recordBytes: engine.chain.recordBytes,
    tableBytes: engine.table.slots * 8,
    allocated,
    scavenges: scavenges(measuredFrom, measuredTo),
  }
}

/** Counts the garbage collections of a time. */
function countScavenges(): { scavenges: (from: number, to: number) => number; stop: () => void } {
  const starts: number[] = []
  const observer = new PerformanceObserver((list) => { for (const entry of list.getEntries()) starts.push(entry.startTime) })
  observer.observe({ entryTypes: ['gc'] })
  return {
    scavenges: (from, to) => starts.filter((start) => start >= from && start <= to).length,
    stop: () => observer.disconnect(),
  }
}

function quantiles(sorted: ArrayLike<number>): { median: number; p10: number; p90: number } {
  const at = (q: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] as number
  return { median: at(0.5), p10: at(0.1), p90: at(0.9) }
}

async function runTwin(): Promise<WorkerResult> {
  const { measureTwin } = await import('./twin.ts')
  return measureTwin(options)
}
