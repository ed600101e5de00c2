/**
 * Capture driver: feeds captured packets to an engine and takes what leaves. A capture is played as fast as it can be
 * read; time is that of its timestamps.
 *
 *     packet ─▶ time ─▶ slot ─▶ batch of 32 ─▶ engine.process ─▶ output, records
 *                 └─ something is due before it: batch first, then engine.advance
 *
 * Results do not depend on how packets fall into batches. Whatever is due at a packet's time has happened when the
 * packet is processed: before a packet that reaches `deadline` the batch is processed and the engine is taken from one
 * due time to the next. The deadline also covers what the batch itself may make due: an idle timeout cannot end within
 * the shortest timeout, and a chain whose NFs have timers gets batches that lie within one tick of the engine's wheel.
 *
 * Time, microseconds, never goes back:
 *
 *     earlier than the packet before       taken for the same time as that one
 *     more than a day off, one packet      a bad timestamp: taken for the time of the packet before
 *     more than a day off, and the next    forward: a real gap, time moves on; back: the clock was set, or two captures
 *     packet agrees within a day           were put together: time goes on from where it was, by the new clock's steps
 *
 * So a packet a day off waits for the next one to say what it is. The descriptor keeps the timestamp as captured.
 */

import type { IdleTimeouts } from '../base/limits.ts'
import type { TimeUs } from '../base/clock.ts'
import { loadKernels } from '../memory/kernels/kernels.ts'
import type { DecodedRecord } from '../nf/record-buffer.ts'
import { Descriptor, DESCRIPTOR_WORDS } from '../packet/descriptor.ts'
import { FRAME_BYTES_MAX, SLOT_FRAME_OFFSET } from '../packet/packet-pool.ts'
import type { Engine } from '../runtime/engine.ts'
import type { CaptureSink } from '../wire/capture-sink.ts'

// PERF: module constants fold, imported ones do not (see packet/descriptor.ts).
const FRAME = Descriptor.frame
const LENGTH = Descriptor.length
const TIME = Descriptor.time
const WIRE_LENGTH = Descriptor.wireLength
const SLOT = Descriptor.slot
const SECONDS = Descriptor.seconds
const NANOSECONDS = Descriptor.nanoseconds
const PORT = Descriptor.port
const LINK_TYPE = Descriptor.linkType
const WORDS = DESCRIPTOR_WORDS
const FRAME_OFFSET = SLOT_FRAME_OFFSET

const DAY_US = 86_400e6
/** The engine's wheel counts in these, with 32 bits: it is not taken further at once than {@link LEAP_US}. */
const TICK_US = 1000
const LEAP_US = 2 ** 30 * TICK_US
/** Times from here on (the year 2255) are not exact to a fraction of a microsecond, and are taken for damage. */
const TIME_MAX_US = 2 ** 53
/** Room for a chunk of a capture as the reader hands it on. */
const STAGE_BYTES = 512 * 1024
/** A batch has no more payload than this, so that the records made of it find room in the record buffer. */
const BATCH_BYTES_MAX = 64 * 1024
/** Flows and timers handled between two looks at what they gave. */
const ADVANCE_BUDGET = 1024

/** Why the driver itself drops packets, each with what it means. */
export const driverDropReasons = {
  'frame-too-long': 'the frame is longer than any packet slot',
  'no-packet-slot': 'all packet slots are taken, by packets that network functions hold',
} as const

export interface CaptureDriverOptions {
  readonly engine: Engine
  readonly timeouts: IdleTimeouts
  /** Takes the packets that leave. */
  readonly output?: CaptureSink
  /** Takes the records of the NFs. */
  readonly takeRecord?: (record: DecodedRecord) => void
}

export interface CaptureDriver extends CaptureSink {
  interfaceAdded(index: number, linkType: number): void
  /** What was read before may change: to be called whenever the array that packets lie in is used for other bytes. */
  chunkDone(): void
  /** Processes what there is without waiting for a whole batch. */
  flush(): void
  /** Hands over the records made so far. May be called from the engine's events. */
  drainRecords(): void
  /** Processes the rest and ends every flow. */
  finish(): void
  /** Packets the driver refused, by reason; the engine has not seen them. */
  readonly refused: Record<keyof typeof driverDropReasons, number>
  readonly refusedBytes: number
  /** Packets taken, refused ones included. */
  readonly packetCount: number
  /** Time of the first and the last packet, as the engine saw it; 0 if there was none. */
  readonly firstTime: TimeUs
  readonly lastTime: TimeUs
  /** Packets whose timestamp was not believed. */
  readonly wrongTimestamps: number
  /** How often the capture's clock was found to have been set back. */
  readonly clockResets: number
}

export function createCaptureDriver({ engine, timeouts, output, takeRecord }: CaptureDriverOptions): CaptureDriver {
  const { arena, pool, records, batchPackets, process, advance, nextDue, clearOutput, outputs } = engine
  const { i32, u8, f64 } = arena
  const { copy } = loadKernels(arena)
  const stage = arena.allocate('capture chunk', STAGE_BYTES)
  const base = engine.descriptor(0)
  const linkTypes: number[] = []
  const hasTimers = engine.chain.nfs.some((nf) => nf.timerOffset !== 0)
  const spanMaxUs = Math.min(DAY_US, ...Object.values(timeouts).map((seconds) => seconds * 1e6))
  const advanceBudget = hasTimers ? 1 : ADVANCE_BUDGET
  const refused = { 'frame-too-long': 0, 'no-packet-slot': 0 }

  let refusedBytes = 0
  let packetCount = 0
  /** Descriptors filled. */
  let count = 0
  let batchBytes = 0
  /** The bytes that lie in the stage. */
  let staged: Uint8Array | null = null
  let firstTime = 0
  /** Time of the last packet; -1 before the first. */
  let clock = -1
  /** What is added to captured times, a whole number. */
  let shift = 0
  /** The first packet at or after this time finds the batch processed. */
  let deadline = Infinity
  /** Where the engine's time and its ticks start; -1 while it has seen no flow. */
  let epoch = -1
  /** Captured time of descriptor 0, while it waits for the next packet; else -1. */
  let doubtful = -1
  let wrongTimestamps = 0
  let clockResets = 0

  function packet(
    bytes: Uint8Array, offset: number, capturedLength: number, originalLength: number,
    seconds: number, nanoseconds: number, interfaceIndex: number,
  ): void {
    const captured = seconds * 1e6 + nanoseconds / 1e3
    let time = captured + shift
    const step = time - clock
    // PERF: one comparison for the usual case.
    if (!(step >= 0 && step <= DAY_US) || doubtful >= 0) time = judge(captured)
    clock = time
    if (time >= deadline) passTime(time)
    packetCount++
    let slot = pool.take(capturedLength)
    if (slot === 0) {
      slot = makeRoom(capturedLength, originalLength)
      if (slot === 0) return
    }
    if (bytes !== staged) stageBytes(bytes)
    if (staged !== null) copy(slot + FRAME_OFFSET, stage + offset, capturedLength)
    else u8.set(bytes.subarray(offset, offset + capturedLength), slot + FRAME_OFFSET)
    const d = base + count * WORDS
    i32[d + FRAME] = slot + FRAME_OFFSET
    i32[d + LENGTH] = capturedLength
    i32[d + WIRE_LENGTH] = originalLength > capturedLength ? originalLength : capturedLength
    i32[d + SLOT] = slot
    i32[d + SECONDS] = seconds
    i32[d + NANOSECONDS] = nanoseconds
    i32[d + PORT] = interfaceIndex
    i32[d + LINK_TYPE] = linkTypes[interfaceIndex] as number
    f64[(d + TIME) >> 1] = time
    if (count === 0) limitSpan(time)
    count++
    batchBytes += capturedLength
    if (count === batchPackets || batchBytes >= BATCH_BYTES_MAX) {
      if (doubtful < 0) flush()
    }
  }

  function stageBytes(bytes: Uint8Array): void {
    if (bytes.length > STAGE_BYTES) {
      staged = null
      return
    }
    u8.set(bytes, stage)
    staged = bytes
  }

  /** A batch may not last longer than it takes for something to become due because of it. */
  function limitSpan(time: TimeUs): void {
    let end = time + spanMaxUs
    if (hasTimers) end = epoch < 0 ? time : epoch + (Math.floor((time - epoch) / TICK_US) + 1) * TICK_US
    if (end < deadline) deadline = end
  }

  /** A slot for a frame that found none; 0 if the frame is refused. */
  function makeRoom(capturedLength: number, originalLength: number): number {
    let slot = 0
    if (capturedLength <= FRAME_BYTES_MAX) {
      flush()
      slot = pool.take(capturedLength)
    }
    if (slot === 0) {
      refused[capturedLength > FRAME_BYTES_MAX ? 'frame-too-long' : 'no-packet-slot']++
      refusedBytes += Math.max(capturedLength, originalLength)
    }
    return slot
  }

  // -- Time ----------------------------------------------------------------------------------------------------------

  /** The time of a packet that is not simply a little later than the one before. */
  function judge(captured: TimeUs): TimeUs {
    if (clock < 0) {
      firstTime = captured < TIME_MAX_US ? captured : 0
      return firstTime
    }
    if (doubtful >= 0) settle(captured)
    const time = captured + shift
    if (time >= clock && time - clock <= DAY_US) return time
    if (clock - time <= DAY_US && time < clock) return clock
    // A batch of its own, from which it can still be given another time.
    flush()
    doubtful = captured
    return clock
  }

  /** Says what the waiting packet's timestamp is worth, now that the next one is known, or that there is none (NaN). */
  function settle(next: TimeUs): void {
    const captured = doubtful
    doubtful = -1
    if (count === 0) return // it was refused
    if (!(Math.abs(next - captured) <= DAY_US && captured < TIME_MAX_US)) {
      wrongTimestamps++
      return
    }
    if (captured + shift > clock) {
      clock = captured + shift
      while (epoch >= 0 && clock - engine.now > LEAP_US) leap()
      goTo(clock)
      f64[(base + TIME) >> 1] = clock
    } else {
      clockResets++
      shift += Math.ceil(clock - (captured + shift))
    }
    deadline = nextDue()
    limitSpan(clock)
  }

  /** Everything that is due up to `time`, the batch first. */
  function passTime(time: TimeUs): void {
    if (doubtful >= 0) return
    flush()
    goTo(time)
    deadline = nextDue()
  }

  /** Takes the engine from one due time to the next, so that each thing happens at its own. */
  function goTo(time: TimeUs): void {
    for (;;) {
      const due = nextDue()
      if (due > time) return
      const done = advance(due, advanceBudget)
      deliver()
      if (done && nextDue() === due) {
        // A due time that rounding put before its own tick.
        while (!advance(time, advanceBudget)) deliver()
        deliver()
        return
      }
    }
  }

  function leap(): void {
    const time = engine.now + LEAP_US
    goTo(time)
    while (!advance(time, advanceBudget)) deliver()
    deliver()
  }

  // -- Engine --------------------------------------------------------------------------------------------------------

  function flush(): void {
    if (doubtful >= 0 || count === 0) return
    advance(f64[(base + TIME) >> 1] as number) // nothing is due: only for the engine to know the time
    engine.batchCount = count
    count = 0
    batchBytes = 0
    process()
    deliver()
    deadline = nextDue()
    // The engine's time starts in the batch that opens the first flow.
    if (epoch < 0 && deadline !== Infinity) epoch = engine.now
  }

  function deliver(): void {
    const leaving = engine.outputCount
    if (leaving > 0) {
      if (output !== undefined) for (let i = 0; i < leaving; i++) send(i32[outputs + i] as number)
      clearOutput()
    }
    if (records.count > 0) drainRecords()
  }

  function send(d: number): void {
    const length = i32[d + LENGTH] as number
    const wireLength = i32[d + WIRE_LENGTH] as number
    output?.packet(u8, i32[d + FRAME] as number, length, wireLength > length ? wireLength : length,
      (i32[d + SECONDS] as number) >>> 0, i32[d + NANOSECONDS] as number, i32[d + PORT] as number)
  }

  function drainRecords(): void {
    if (takeRecord !== undefined) records.drain(takeRecord)
    else records.clear()
  }

  return {
    refused,
    interfaceAdded(index, linkType) { linkTypes[index] = linkType },
    packet,
    chunkDone() { staged = null },
    flush,
    drainRecords,
    finish() {
      if (doubtful >= 0) settle(NaN)
      flush()
      if (clock >= 0) {
        goTo(clock)
        advance(clock)
      }
      engine.finish()
      deliver()
    },
    get refusedBytes() { return refusedBytes },
    get packetCount() { return packetCount },
    get firstTime() { return firstTime },
    get lastTime() { return clock < 0 ? 0 : clock },
    get wrongTimestamps() { return wrongTimestamps },
    get clockResets() { return clockResets },
  }
}
