/**
 * Flow transfer: flows leave an engine as bytes (flow-snapshot.ts), and come into it. The manager, where there is one, decides when; the flow
 * itself notices nothing but that its NFs hear `flowMovedOut` here and `flowMovedIn` there. What a flow holds, packets of NFs and fragments,
 * travels with it.
 */

import { assert } from '../base/assert.ts'
import { CodedError } from '../base/coded-error.ts'
import type { TimeUs } from '../base/clock.ts'
import { FlowFlag, FlowRecord, TcpLife } from '../flow/flow-record.ts'
import type { FlowTable } from '../flow/flow-table.ts'
import type { OpeningList } from '../flow/opening-list.ts'
import type { Slab } from '../memory/slab.ts'
import { Descriptor } from '../packet/descriptor.ts'
import { DropReason } from '../packet/drop-reason.ts'
import { FragmentOutcome } from '../packet/fragment-tracker.ts'
import type { PacketCursor } from '../packet/packet-view.ts'
import type { Parser } from '../packet/parse.ts'
import type { EngineStatistics } from './engine.ts'
import type { FlowTimers } from './flow-timers.ts'
import type { HeldPacketLists } from './held-packets.ts'
import type { NfCalls } from './nf-calls.ts'
import {
  checkSnapshot, installSnapshot, layoutHash, layoutOf, snapshotBytes, snapshotKey, takeSnapshot, writeSnapshot, type ChainLayout,
  type SnapshotParts,
} from './flow-snapshot.ts'

const { record: RECORD, time: TIME, key: KEY, hash: HASH, nextHeld: NEXT_HELD } = Descriptor

/** Parts of the engine whose flows they are, and what it does with them. */
export interface FlowTransferOptions extends SnapshotParts {
  readonly table: FlowTable
  readonly slab: Slab
  readonly timers: FlowTimers
  readonly openings: OpeningList
  readonly held: HeldPacketLists
  readonly calls: NfCalls
  readonly parser: Parser
  readonly packet: PacketCursor
  /** Descriptor that stands for "no packet". */
  readonly idleDescriptor: number
  readonly statistics: EngineStatistics
  readonly flowsMax: number
  /** True when a manager takes packets of flows that are paused. */
  readonly isManaged: boolean
  find(d: number): number
  useIdle(record: number): void
  /** A flow has come: it may be in quarantine. */
  applyQuarantine(record: number, now: TimeUs): void
  /** Gives back what a flow has here. */
  release(record: number): void
  /** A descriptor for a packet more in this batch, 0 if there is none. */
  takeExtra(): number
  actor(d: number): void
  drop(d: number, reason: number): void
  countOutput(): void
}

export function createFlowTransfer(options: FlowTransferOptions) {
  const { arena, pool, chain, fragments, table, slab, timers, openings, held, calls, parser, packet, idleDescriptor, statistics } = options
  const { i32, u8, f64 } = arena
  const layout = layoutOf(chain)
  const ownLayout = layoutHash(layout)
  const scratch = arena.allocate('state of an older version', 4096)

  /** The flow as bytes: see flow-snapshot.ts. The flow goes on. */
  function exportFlow(record: number): Uint8Array {
    return takeSnapshot(options, ownLayout, record, timers.now)
  }

  /** The same, written to a place in the arena that has room for `exportBytes`. */
  function exportFlowTo(record: number, to: number): void {
    writeSnapshot(options, ownLayout, record, timers.now, arena, to)
  }

  /** How many bytes `exportFlow` would give now. */
  function exportBytes(record: number): number {
    return snapshotBytes(options, record)
  }

  /** Forgets a flow that lives elsewhere now: its NFs hear `flowMovedOut`, not `deallocateFlowState`. */
  function removeFlow(record: number): void {
    options.useIdle(record)
    timers.isOff = true
    calls.each(record, 'flowMovedOut')
    timers.isOff = false
    giveHeldAway(record)
    options.release(record)
    packet.d = idleDescriptor
  }

  /** Packets that a flow holds went elsewhere with its snapshot, and are not here any more. */
  function giveHeldAway(record: number): void {
    held.takeAll(record, (slot) => {
      statistics.handedOver++
      pool.give(slot)
    })
  }

  /**
   * Installs a flow from bytes made by `exportFlow`, here or elsewhere. Its NFs hear `flowMovedIn`.
   *
   * @param from layout of the exporting chain (`engine.layout` there) when it may differ from this one's
   * @returns the flow's record
   * @throws CodedError `NF_SNAPSHOT` or `NF_LIMIT`, with nothing changed
   */
  function importFlow(snapshot: Uint8Array, now: TimeUs, from?: ChainLayout): number {
    timers.pass(now)
    if (table.size >= options.flowsMax) throw new CodedError('NF_LIMIT', 'no room for a flow that moves in')
    // Every engine has a hash secret of its own.
    const d = idleDescriptor
    const checked = checkSnapshot(snapshot)
    snapshotKey(checked, i32, d + KEY)
    const hash = parser.hashKey(d)
    i32[d + HASH] = hash
    if (options.find(d) !== 0) throw new CodedError('NF_SNAPSHOT', 'a flow snapshot is of a flow that is here already')
    const record = slab.take()
    assert(record !== 0, 'there are as many flow records as table entries')
    try {
      const installed = installSnapshot(options, ownLayout, checked, record, hash, now, from, scratch)
      early = installed.early
      held.count += installed.held.length
      statistics.takenOver += installed.held.length
    } catch (error) {
      slab.give(record)
      throw error
    }
    i32[(record + FlowRecord.hash) >> 2] = hash
    table.insert(hash, record)
    options.applyQuarantine(record, now)
    u8[record + FlowRecord.tcp] &= ~TcpLife.listed
    if ((u8[record + FlowRecord.tcp] & TcpLife.opening) !== 0) openings.add(record)
    timers.add(record, timers.due(record))
    options.useIdle(record)
    calls.each(record, 'flowMovedIn')
    packet.d = idleDescriptor
    if (!options.isManaged) runEarly(record)
    return record
  }

  /** Fragments that came before their flow was imported and are not run yet: lists of slots. */
  let early: readonly number[] = []

  /** Runs them, now that it is known whose they are; if the flow is paused the manager gets them. */
  function runEarly(record: number): void {
    for (const list of early) {
      for (let slot = list; slot !== 0;) {
        const d = slot >> 2
        slot = i32[d + NEXT_HELD]
        f64[(d + TIME) >> 1] = timers.now
        if (!options.isManaged && options.takeExtra() === 0) {
          options.drop(d, DropReason['fragment-limit'])
        } else if (fragments.later(d) === FragmentOutcome.flow) {
          i32[d + RECORD] = record
          options.actor(d)
        } else {
          options.drop(d, DropReason['malformed-fragment'])
        }
      }
    }
    early = []
    packet.d = idleDescriptor
    options.countOutput()
  }

  /**
   * Hands over fragments that wait for their first one and may be of the flow with this key (a word index), which was on its way here and
   * does not come: each with its descriptor in its slot.
   */
  function takeEarly(key: number, take: (d: number) => void): void {
    for (const list of fragments.takeWaitingOf(key)) {
      for (let slot = list; slot !== 0;) {
        const d = slot >> 2
        slot = i32[d + NEXT_HELD]
        statistics.taken++
        take(d)
      }
    }
  }

  /** Stops a flow: its packets go to the manager, its timers stand still. A manager that imports a flow pauses it at once. */
  function pauseFlow(record: number): void {
    u8[record + FlowRecord.flags] |= FlowFlag.paused
    if (early.length > 0) runEarly(record)
  }

  function resumeFlow(record: number): void {
    u8[record + FlowRecord.flags] &= ~FlowFlag.paused
    // A timer that came due meanwhile fires at once.
    timers.hasten(record, timers.due(record))
  }

  return {
    layout, layoutHash: ownLayout, exportFlow, exportFlowTo, exportBytes, removeFlow, importFlow, takeEarly, pauseFlow, resumeFlow, giveHeldAway,
  }
}
