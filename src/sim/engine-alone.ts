/**
 * Engine alone: traffic through one engine, packet by packet at the times at which it comes. What a cluster without moves is to give too,
 * but for the Ethernet addresses, which switches restore.
 */

import { defaultLimits, defaultTimeouts } from '../base/limits.ts'
import { Arena } from '../memory/arena.ts'
import { Descriptor } from '../packet/descriptor.ts'
import { SLOT_FRAME_OFFSET } from '../packet/packet-pool.ts'
import type { ChainMember } from '../nf/chain.ts'
import { createEngine, defaultPolicy, type Engine } from '../runtime/engine.ts'
import { FlowNames, type TrafficPacket } from './capture-traffic.ts'
import { addCounters, append, flowText, keyText, recordText, type MovingOutcome } from './moving-outcome.ts'

const START_US = 2_000_000
const ARENA_BYTES = 24 * 2 ** 20
const arenas: Arena[] = []

export function runEngineAlone(traffic: readonly TrafficPacket[], chain: readonly ChainMember[]): MovingOutcome {
  const arena = arenas.pop() ?? new Arena(ARENA_BYTES)
  const outputs = new Map<string, Uint8Array[]>()
  const records = new Map<string, string[]>()
  const flows = new Map<string, string[]>()
  const faults: string[] = []
  const names = new FlowNames()
  const engine: Engine = createEngine({
    arena, chain, seed: 1, wasm: false, timeouts: defaultTimeouts, policy: { ...defaultPolicy, nonIp: 'drop' },
    limits: { ...defaultLimits, flows: 4096, packets: 2048, largePackets: 32, extentBytes: 3 * 2 ** 20, recordBytes: 131_072,
      aliases: 4096, fragmentedDatagrams: 1024, fragmentsHeld: 512 },
    events: {
      flowEnded: (record, end) => { append(flows, keyText(arena.i32, record >> 2), flowText(engine, record, end)) },
      nfFailed: (nf, error) => { faults.push(`${nf} failed: ${String(error)}`) },
    },
  })
  const { i32, u8, f64 } = arena
  const deliver = (): void => {
    for (let index = 0; index < engine.outputCount; index++) {
      const d = engine.output(index)
      const frame = u8.slice(i32[d + Descriptor.frame], i32[d + Descriptor.frame] + i32[d + Descriptor.length])
      const { flow } = names.name({ timeUs: 0, bytes: frame, wireLength: frame.length, linkType: 1 })
      append(outputs, `switch 1, ${flow}`, frame)
    }
    engine.clearOutput()
    engine.records.drain((record) => { append(records, keyText(i32, record.key), recordText(engine, record)) })
  }
  const advance = (until: number): void => {
    for (let due = engine.nextDue(); due <= until; due = engine.nextDue()) {
      engine.advance(Math.max(due, engine.now + 1))
      deliver()
    }
    engine.advance(until)
    deliver()
  }
  for (const { time, frame } of traffic) {
    const now = START_US + time
    advance(now)
    const slot = engine.pool.take(frame.length)
    const d = engine.descriptor(0)
    u8.set(frame, slot + SLOT_FRAME_OFFSET)
    i32[d + Descriptor.frame] = slot + SLOT_FRAME_OFFSET
    i32[d + Descriptor.length] = i32[d + Descriptor.wireLength] = frame.length
    i32[d + Descriptor.slot] = slot
    i32[d + Descriptor.linkType] = 1
    i32[d + Descriptor.port] = 0
    f64[(d + Descriptor.time) >> 1] = now
    engine.batchCount = 1
    engine.process()
    deliver()
  }
  while (engine.table.size > 0) advance(engine.nextDue())
  const drops: Record<string, number> = {}
  engine.dropCounts.forEach((count, index) => { if (count > 0) drops[engine.chain.dropReasons[index] as string] = count })
  const counters: Record<string, number> = {}
  addCounters(engine, counters)
  arena.reset()
  arenas.push(arena)
  return { outputs, records, flows, drops, counters, faults, events: 0,
    moves: { completed: 0, refused: 0, aborted: 0, takenBack: 0, cancelled: 0, laden: 0 } }
}
