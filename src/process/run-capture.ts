/**
 * Runs a capture through a chain, in this process: what `nfactor run` does, and what tests call.
 *
 *     capture ─▶ driver ─▶ engine ─▶ capture of what was forwarded
 *                             ├───▶ a line per flow as it ends
 *                             └───▶ a line per record of an NF
 *
 * Output files are created when the capture has proved to be one (a wrong name leaves older outputs alone), and are
 * whole whatever happens: also after an error they hold everything up to it. The report conserves packets: received +
 * emitted = forwarded + dropped + buffered, and buffered is 0 at the end.
 */

import { statSync } from 'node:fs'
import { resolve } from 'node:path'
import { AssertionError } from '../base/assert.ts'
import { CodedError } from '../base/coded-error.ts'
import { defaultLimits, defaultTimeouts, type EngineLimits, type IdleTimeouts } from '../base/limits.ts'
import { Arena } from '../memory/arena.ts'
import type { ChainMember, ChainNf } from '../nf/chain.ts'
import { openCaptureReader, type CaptureEnding, type CaptureFileReader } from '../ports/capture-file-reader.ts'
import {
  createEngine, defaultPolicy, type Engine, type EngineEvents, type EnginePolicy, type FlowEnd,
} from '../runtime/engine.ts'
import type { CaptureFormat } from '../wire/capture-decoder.ts'
import type { CaptureSink } from '../wire/capture-sink.ts'
import { isSupportedLinkType, linkTypeName } from '../wire/link-type.ts'
import { createCaptureDriver, type CaptureDriver } from './capture-driver.ts'
import { ForwardedCapture } from './forwarded-capture.ts'
import { LineFile } from './line-file.ts'
import { eventLine, flowLine, type EventLine, type FlowLine } from './run-lines.ts'

export interface RunCaptureOptions {
  /** A pcap or pcapng file, plain or compressed with gzip, or `-` for standard input. */
  readonly capture: string
  readonly chain: readonly ChainMember[]
  /** What differs from the defaults. */
  readonly limits?: Partial<EngineLimits>
  readonly timeouts?: Partial<IdleTimeouts>
  readonly policy?: Partial<EnginePolicy>
  /** Secret of the flow hash, and what NFs draw from; 1 unless told. The same seed gives the same run. */
  readonly seed?: number
  /** File for the packets that leave: pcapng if its name says so or if there are several link types, else pcap. */
  readonly out?: string
  /** File, or function, for a line per flow as it ends. */
  readonly flows?: string | ((flow: FlowLine) => void)
  /** File, or function, for a line per record of an NF. */
  readonly events?: string | ((event: EventLine) => void)
  /** Files that must not be written over, besides the capture. */
  readonly inputs?: readonly string[]
  /** Ends the run early, with all outputs complete. */
  readonly signal?: AbortSignal
  /** Called after each chunk of the capture. */
  readonly onProgress?: (progress: RunProgress) => void
  /** An NF threw for the first time. */
  readonly onNfFailed?: (nf: string, error: unknown) => void
}

/** How far a run is. */
export interface RunProgress {
  readonly packets: number
  readonly positionBytes: number
  /** Undefined for a pipe. */
  readonly totalBytes: number | undefined
}

/** What a run found: the document of `--json`. */
export interface RunReport {
  readonly capture: {
    readonly name: string
    readonly format: CaptureFormat | undefined
    /** `complete`, or why not all of it was read. */
    readonly state: CaptureEnding['state']
    readonly reason: string
    /** Seconds from the first packet to the last. */
    readonly seconds: number
  }
  readonly packets: {
    readonly received: number
    readonly forwarded: number
    readonly dropped: number
    /** Made by NFs. */
    readonly emitted: number
    /** Kept when the run ended: none. */
    readonly buffered: number
  }
  /** Reasons with at least one packet. */
  readonly dropReasons: Readonly<Record<string, number>>
  readonly bytes: { readonly received: number; readonly forwarded: number }
  readonly flows: {
    readonly created: number
    readonly tcp: number
    readonly udp: number
    readonly icmp: number
    readonly other: number
    /** How they ended. */
    readonly expired: number
    readonly closed: number
    readonly finished: number
    /** How many of them were ended early to make room. */
    readonly evicted: number
  }
  /** Every counter of every NF. */
  readonly nfs: Readonly<Record<string, Readonly<Record<string, number>>>>
  readonly records: { readonly made: number; readonly lost: number }
  /** How often an NF threw. */
  readonly nfErrors: number
  readonly warnings: readonly string[]
  readonly elapsedSeconds: number
  readonly packetsPerSecond: number
}

export interface RunResult {
  readonly report: RunReport
  readonly chain: readonly ChainNf[]
}

/**
 * @throws CodedError for what is wrong with the capture, the outputs, the limits or an NF; what was written is intact
 */
export async function runCapture(options: RunCaptureOptions): Promise<RunResult> {
  const { signal } = options
  const ends: Record<FlowEnd, number> = { expired: 0, closed: 0, finished: 0 }
  const reader = await openCaptureReader(options.capture, signal)
  const outputs = new RunOutputs(options)
  let engine: Engine
  let driver: CaptureDriver
  try {
    const timeouts = { ...defaultTimeouts, ...options.timeouts }
    engine = makeEngine(options, timeouts, {
      flowEnded(record, end) {
        ends[end]++
        // Ending flows may make records without end.
        if (engine.records.count > 0) driver.drainRecords()
        outputs.flowEnded?.(flowLine(engine, record, end))
      },
      ...options.onNfFailed !== undefined && { nfFailed: options.onNfFailed },
    })
    const takeEvent = outputs.eventMade
    driver = createCaptureDriver({
      engine, timeouts,
      ...options.out !== undefined && { output: outputs },
      ...takeEvent !== undefined && { takeRecord: (record) => takeEvent(eventLine(engine, record)) },
    })
  } catch (error) {
    await reader.close()
    throw error
  }
  const isLive = reader.totalBytes === undefined
  const start = process.hrtime.bigint()
  let ending: CaptureEnding
  try {
    ending = await reader.readInto(runSink(driver, outputs), () => {
      driver.chunkDone()
      if (isLive) {
        driver.flush()
        outputs.flush()
      }
      options.onProgress?.(progressOf(reader, driver))
    })
    outputs.open()
    driver.finish()
    outputs.close()
  } catch (error) {
    outputs.abandon()
    throw error
  }
  const elapsedSeconds = Number(process.hrtime.bigint() - start) / 1e9
  const report = makeReport(reader.name, ending, engine, driver, outputs, ends, elapsedSeconds)
  return { report, chain: engine.chain.nfs }
}

function progressOf(reader: CaptureFileReader, driver: CaptureDriver): RunProgress {
  return { packets: driver.packetCount, positionBytes: reader.positionBytes, totalBytes: reader.totalBytes }
}

function makeEngine(options: RunCaptureOptions, timeouts: IdleTimeouts, events: EngineEvents): Engine {
  try {
    return createEngine({
      arena: new Arena(),
      chain: options.chain,
      limits: { ...defaultLimits, ...options.limits },
      timeouts,
      policy: { ...defaultPolicy, ...options.policy },
      seed: options.seed ?? 1,
      events,
    })
  } catch (error) {
    if (error instanceof CodedError) throw error
    // What is not an operating error comes out of an NF's own code, or is a rule of the SDK that it breaks.
    const names = options.chain.map((member) => member.definition.name).join(', ')
    const text = error instanceof Error ? error.message : String(error)
    const where = error instanceof Error && !(error instanceof AssertionError) ? placeOf(error) : ''
    throw new CodedError('NF_NF_INVALID', `the chain (${names}) cannot be made: ${text}${where}`, '', { cause: error })
  }
}

/** Where an error was thrown, as ` (file:line:column)`. */
function placeOf(error: Error): string {
  const place = /\(?file:\/\/(\/[^\s)]+:\d+:\d+)\)?/.exec(error.stack ?? '')?.[1]
  return place === undefined ? '' : ` (${decodeURI(place)})`
}

/** Stands before the driver until the first packet, when what the capture holds is known. */
function runSink(driver: CaptureDriver, outputs: RunOutputs): CaptureSink {
  const sink: CaptureSink = {
    interfaceAdded(index, linkType, snapLength, nanosecondResolution) {
      driver.interfaceAdded(index, linkType)
      outputs.interfaceAdded(index, linkType, snapLength, nanosecondResolution)
    },
    packet(...first) {
      if (![...outputs.linkTypes].some(isSupportedLinkType)) {
        const names = [...outputs.linkTypes].map(linkTypeName).join(', ')
        throw new CodedError('NF_CAPTURE_LINK_TYPE', `the capture holds ${names}, which NFactor cannot read`,
          'Capture on an Ethernet interface, or on "any"')
      }
      outputs.open()
      sink.packet = driver.packet
      driver.packet(...first)
    },
  }
  return sink
}

/** Where a run's results go. */
class RunOutputs implements CaptureSink {
  /** Undefined when nobody wants to know. */
  readonly flowEnded: ((flow: FlowLine) => void) | undefined
  readonly eventMade: ((event: EventLine) => void) | undefined
  /** Link types of the capture's interfaces. */
  readonly linkTypes = new Set<number>()
  readonly #options: RunCaptureOptions
  readonly #interfaces: [number, number, number, boolean][] = []
  #isOpen = false
  #capture: ForwardedCapture | undefined
  #flows: LineFile | undefined
  #events: LineFile | undefined

  constructor(options: RunCaptureOptions) {
    this.#options = options
    const { flows, events } = options
    this.flowEnded = typeof flows === 'string' ? (flow) => this.#flows?.write(JSON.stringify(flow)) : flows
    this.eventMade = typeof events === 'string' ? (event) => this.#events?.write(JSON.stringify(event)) : events
  }

  /** Creates the files, once. */
  open(): void {
    if (this.#isOpen) return
    this.#isOpen = true
    const { out, flows, events, capture, inputs = [] } = this.#options
    const read = [capture, ...inputs].filter((path) => path !== '-')
    const written = [out, flows, events].filter((path) => typeof path === 'string')
    written.forEach((path, index) => refuseSameFile(path, read, written.slice(0, index)))
    if (out !== undefined) {
      this.#capture = new ForwardedCapture(out, this.#interfaces, read)
    }
    if (typeof flows === 'string') this.#flows = new LineFile(flows)
    if (typeof events === 'string') this.#events = new LineFile(events)
  }

  interfaceAdded(index: number, linkType: number, snapLength: number, nanosecondResolution: boolean): void {
    this.linkTypes.add(linkType)
    this.#interfaces.push([index, linkType, snapLength, nanosecondResolution])
    this.#capture?.interfaceAdded(index, linkType, snapLength, nanosecondResolution)
  }

  packet(
    bytes: Uint8Array, offset: number, capturedLength: number, originalLength: number,
    seconds: number, nanoseconds: number, interfaceIndex: number,
  ): void {
    this.#capture?.packet(bytes, offset, capturedLength, originalLength, seconds, nanoseconds, interfaceIndex)
  }

  flush(): void {
    this.#capture?.flush()
    this.#flows?.flush()
    this.#events?.flush()
  }

  close(): void {
    this.#capture?.close()
    this.#flows?.close()
    this.#events?.close()
  }

  /** Closes everything without complaint: something went wrong already. */
  abandon(): void {
    try {
      this.#capture?.close()
    } catch {
      // The error that led here is the one to report.
    }
    this.#flows?.abandon()
    this.#events?.abandon()
  }
}

/** A file that is read must not be written over, and one file does not take two outputs. */
function refuseSameFile(path: string, read: readonly string[], written: readonly string[]): void {
  const target = identityOf(path)
  if (written.some((other) => resolve(other) === resolve(path) || (target !== '' && identityOf(other) === target))) {
    throw new CodedError('NF_USAGE', `${path} cannot take two outputs`, 'Give each output a file of its own')
  }
  if (target !== '' && read.some((other) => identityOf(other) === target)) {
    throw new CodedError('NF_FILE_UNWRITABLE', `${path} is a file that is being read`, 'Write to another file')
  }
}

/** Device and number of a regular file; empty for what does not exist or is no file. */
function identityOf(path: string): string {
  try {
    const stats = statSync(path)
    return stats.isFile() ? `${stats.dev}:${stats.ino}` : ''
  } catch {
    return ''
  }
}

function makeReport(
  name: string, ending: CaptureEnding, engine: Engine, driver: CaptureDriver, outputs: RunOutputs,
  ends: Readonly<Record<FlowEnd, number>>, elapsedSeconds: number,
): RunReport {
  const { statistics, chain, records } = engine
  const refused = Object.entries(driver.refused)
  const refusedCount = refused.reduce((sum, [, packets]) => sum + packets, 0)
  const received = statistics.received + refusedCount
  const drops = chain.dropReasons.map((reason, index) => [reason, engine.dropCounts[index] as number] as const)
  return {
    capture: {
      name, format: ending.format, state: ending.state, reason: ending.reason,
      seconds: (driver.lastTime - driver.firstTime) / 1e6,
    },
    packets: {
      received,
      forwarded: statistics.forwarded,
      dropped: statistics.dropped + refusedCount,
      emitted: statistics.emitted,
      buffered: engine.buffered,
    },
    dropReasons: Object.fromEntries([...drops, ...refused].filter(([, packets]) => packets > 0)),
    bytes: { received: statistics.bytesReceived + driver.refusedBytes, forwarded: statistics.bytesForwarded },
    flows: {
      created: statistics.flowsCreated, tcp: statistics.flowsTcp, udp: statistics.flowsUdp,
      icmp: statistics.flowsIcmp, other: statistics.flowsOther, ...ends, evicted: statistics.flowsEvicted,
    },
    nfs: Object.fromEntries(chain.nfs.map((nf) => [nf.name, countersOf(nf)])),
    records: { made: records.made, lost: records.lost },
    nfErrors: statistics.nfErrors,
    warnings: warningsOf(ending, engine, driver, outputs),
    elapsedSeconds,
    packetsPerSecond: elapsedSeconds > 0 ? Math.round(received / elapsedSeconds) : 0,
  }
}

function countersOf(nf: ChainNf): Record<string, number> {
  const names = Object.keys(nf.definition.counters ?? {})
  return Object.fromEntries(names.map((name) => [name, nf.counters[name] as number]))
}

function warningsOf(ending: CaptureEnding, engine: Engine, driver: CaptureDriver, outputs: RunOutputs): string[] {
  const warnings: string[] = []
  if (ending.state === 'truncated' || ending.state === 'damaged') {
    warnings.push(`${ending.reason}; everything before that was processed`)
  }
  for (const linkType of outputs.linkTypes) {
    if (!isSupportedLinkType(linkType)) {
      warnings.push(`packets of type ${linkTypeName(linkType)} cannot be read and were treated as not IP`)
    }
  }
  if (driver.wrongTimestamps > 0) {
    warnings.push(`${driver.wrongTimestamps} timestamps were more than a day off; ` +
      'the time of the packet before was taken')
  }
  if (driver.clockResets > 0) {
    warnings.push(`the capture's clock went back by more than a day ${driver.clockResets} times; ` +
      'times after that are counted on from where they were')
  }
  if (engine.records.lost > 0) {
    warnings.push(`${engine.records.lost} events found no room; raise limits.recordBytes`)
  }
  return warnings
}
