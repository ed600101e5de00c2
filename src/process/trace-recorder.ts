/**
 * Trace recorder: what one node does with the packets that a trace is about, as events, until somebody takes them. Times are of the
 * machine's monotonic clock, which all processes of a cluster share, so that the events of all nodes fall into one order.
 */

import type { Arena } from '../memory/arena.ts'
import { FlowRecord } from '../flow/flow-record.ts'
import { Descriptor } from '../packet/descriptor.ts'
import { SLOT_FRAME_OFFSET } from '../packet/packet-pool.ts'
import type { PacketWatch } from '../packet/packet-watch.ts'
import type { RuntimeNode } from '../node/runtime-node.ts'
import type { SwitchNode } from '../node/switch-node.ts'
import { summariseFrame, type FramePredicate } from '../ports/frame-summary.ts'
import { frameIdentity } from '../ports/frame-words.ts'
import type { PortWatch } from '../ports/port-watch.ts'
import { monotonicUs } from './monotonic-clock.ts'
import type { WatchedPort } from './node-watcher.ts'

/** Events that wait to be taken; what comes on top is lost to the trace. */
const EVENTS_MAX = 16_384
/** Identities that a network function has changed and that are followed. */
const FOLLOWED_MAX = 1024
/** IP says where a packet ends; a frame in a slot is no longer than this. */
const FRAME_BYTES = 66_000

/** What a network function did: its counters that have risen, by how much. */
export interface NfStep {
  readonly nf: string
  readonly verdict: 'forward' | 'drop' | 'hold' | 'bypassed'
  readonly counters: Readonly<Record<string, number>>
}

interface EventHead {
  /** Microseconds of the monotonic clock. */
  readonly time: number
  /** Which packet; empty for a message. */
  readonly id: string
}

export type TraceEvent = EventHead & (
  | { readonly at: 'in' | 'out' | 'refused', readonly port: WatchedPort['kind'], readonly peer: number, readonly text: string
    readonly macs: string, readonly length: number
    /** First bytes of the frame in base64, if they are wanted. */
    readonly head?: string }
  | { readonly at: 'chain', readonly verdict: 'forward' | 'drop' | 'hold' | 'taken', readonly reason: string, readonly steps: readonly NfStep[]
    readonly flow: number, readonly epoch: number, readonly emitted: number, readonly becomes?: string }
  | { readonly at: 'drop', readonly reason: string }
  | { readonly at: 'held', readonly phase: string }
  | { readonly at: 'step', readonly replica: number }
  | { readonly at: 'message', readonly peer: number, readonly name: string, readonly flow: number, readonly epoch: number })

export interface TraceTaken {
  readonly events: readonly TraceEvent[]
  /** Events that found no room since the trace began. */
  readonly lost: number
  readonly isOver: boolean
}

/** Phases of a switch entry whose packets are held, by number. */
const HELD_PHASES = ['', 'active', 'asking', 'closing', 'orphaned', 'placing', 'learning']

export class TraceRecorder implements PacketWatch {
  readonly #arena: Arena
  readonly #runtime: RuntimeNode | undefined
  readonly #wants: FramePredicate
  readonly #headBytes: number
  #events: TraceEvent[] = []
  #lost = 0
  readonly #followed = new Set<string>()
  /** Before the chain runs the packet at hand; empty for one that is not traced. */
  #id = ''
  #time = 0
  #drops: Float64Array = new Float64Array()
  #outputs = 0
  #taken = 0
  #emitted = 0
  #counters: Record<string, number>[] = []

  /** @param headBytes so many bytes of each frame are in its events */
  constructor(arena: Arena, node: RuntimeNode | SwitchNode, wants: FramePredicate, headBytes = 0) {
    this.#headBytes = headBytes
    this.#arena = arena
    this.#runtime = node.kind === 'runtime' ? node : undefined
    this.#wants = wants
  }

  portWatch(_index: number, { kind: port, peer }: WatchedPort): PortWatch {
    const note = (at: 'in' | 'out' | 'refused', frame: number, length: number): void => {
      const id = this.#identityOf(frame, length)
      if (id === '') return
      const { u8 } = this.#arena
      const head = Math.min(length, this.#headBytes)
      this.#add({
        time: monotonicUs(), id, at, port, peer, text: summariseFrame(u8, frame, length), macs: macsOf(u8, frame), length,
        ...head > 0 && { head: Buffer.from(u8.subarray(frame, frame + head)).toString('base64') },
      })
    }
    return {
      received: (frame, length) => { note('in', frame, length) },
      sending: (frame, length) => { note('out', frame, length) },
      refused: (frame, length) => { note('refused', frame, length) },
    }
  }

  running(d: number): void {
    const { i32 } = this.#arena
    const { engine } = this.#runtime as RuntimeNode
    this.#id = this.#identityOf(i32[d + Descriptor.frame] as number, i32[d + Descriptor.length] as number)
    if (this.#id === '') return
    this.#drops = engine.dropCounts.slice()
    this.#outputs = engine.outputCount
    this.#taken = engine.statistics.taken
    this.#emitted = engine.statistics.emitted
    this.#counters = this.#countersNow()
    this.#time = monotonicUs()
  }

  ran(d: number): void {
    if (this.#id === '') return
    const { i32, u16 } = this.#arena
    const runtime = this.#runtime as RuntimeNode
    const { engine } = runtime
    const { nfs, dropReasons } = engine.chain
    const reasonIndex = engine.dropCounts.findIndex((count, i) => count > (this.#drops[i] as number))
    const reason = reasonIndex < 0 ? '' : dropReasons[reasonIndex] as string
    let isForwarded = false
    for (let i = this.#outputs; i < engine.outputCount; i++) if (engine.output(i) === d) isForwarded = true
    const verdict = isForwarded ? 'forward' : reason !== '' ? 'drop' : engine.statistics.taken > this.#taken ? 'taken' : 'hold'
    const record = verdict === 'taken' ? 0 : i32[d + Descriptor.record] as number
    const counters = this.#countersNow()
    const stopped = verdict === 'drop' ? nfs.findIndex(({ name }) => reason.startsWith(`${name}-`)) : nfs.length
    const holder = verdict === 'hold' ? i32[((i32[d + Descriptor.slot] as number) >> 2) + Descriptor.nf] as number : -1
    const bypass = record === 0 ? 0 : u16[(record + FlowRecord.bypass) >> 1] as number
    const steps: NfStep[] = []
    for (let i = 0; i < nfs.length && record !== 0; i++) {
      const own = counters[i] as Record<string, number>
      const risen = Object.fromEntries(Object.keys(own).map((key) => [key, (own[key] as number) - (this.#counters[i]?.[key] ?? 0)])
        .filter(([, by]) => by !== 0)) as Record<string, number>
      // A reason that is the engine's own names no network function: which one ran last is not known then.
      if (stopped < 0) break
      const isLast = i === stopped || i === holder
      const done = isLast ? (i === holder ? 'hold' : 'drop') : (bypass & (1 << i)) !== 0 ? 'bypassed' : 'forward'
      steps.push({ nf: nfs[i]?.name ?? '', verdict: done, counters: risen })
      if (isLast) break
    }
    const after = isForwarded
      ? frameIdentity(this.#arena.u8, i32[d + Descriptor.frame] as number, i32[d + Descriptor.length] as number) : this.#id
    if (after !== this.#id && this.#followed.size < FOLLOWED_MAX) this.#followed.add(after)
    this.#add({
      time: this.#time, id: this.#id, at: 'chain', verdict, reason, steps, emitted: engine.statistics.emitted - this.#emitted,
      flow: record === 0 ? 0 : runtime.flowOf(record), epoch: record === 0 ? 0 : runtime.epochOf(record),
      ...after !== this.#id && { becomes: after },
    })
  }

  dropped(slot: number, reason: string): void {
    const id = this.#identityOf(slot + SLOT_FRAME_OFFSET, FRAME_BYTES)
    if (id !== '') this.#add({ time: monotonicUs(), id, at: 'drop', reason })
  }

  held(slot: number, phase: number): void {
    const id = this.#identityOf(slot + SLOT_FRAME_OFFSET, FRAME_BYTES)
    if (id !== '') this.#add({ time: monotonicUs(), id, at: 'held', phase: HELD_PHASES[phase] ?? '' })
  }

  stepped(d: number, replica: number): void {
    const { i32 } = this.#arena
    const id = this.#identityOf(i32[d + Descriptor.frame] as number, i32[d + Descriptor.length] as number)
    if (id !== '') this.#add({ time: monotonicUs(), id, at: 'step', replica })
  }

  message(peer: number, name: string, flow: number, epoch: number): void {
    this.#add({ time: monotonicUs(), id: '', at: 'message', peer, name, flow, epoch })
  }

  take(): TraceTaken {
    const events = this.#events
    this.#events = []
    return { events, lost: this.#lost, isOver: false }
  }

  #add(event: TraceEvent): void {
    if (this.#events.length < EVENTS_MAX) this.#events.push(event)
    else this.#lost++
  }

  /** Empty for a packet that nobody asks about. */
  #identityOf(frame: number, length: number): string {
    const { u8 } = this.#arena
    const isWanted = this.#wants(u8, frame, length)
    if (!isWanted && this.#followed.size === 0) return ''
    const id = frameIdentity(u8, frame, length)
    return isWanted || this.#followed.has(id) ? id : ''
  }

  #countersNow(): Record<string, number>[] {
    return (this.#runtime as RuntimeNode).engine.chain.nfs.map(({ definition, counters }) =>
      Object.fromEntries(Object.keys(definition.counters ?? {}).map((key) => [key, counters[key] as number])))
  }
}

function macsOf(u8: Uint8Array, frame: number): string {
  const mac = (at: number): string => Array.from(u8.subarray(at, at + 6), (byte) => byte.toString(16).padStart(2, '0')).join(':')
  return `${mac(frame + 6)} > ${mac(frame)}`
}
