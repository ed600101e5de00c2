/**
 * Entry states: what becomes of an entry of the switch table. Which phase it is in, whose key it has, who owns its flow, and what holds packets
 * until something happens. The states are those of docs/protocol.md; what brings them about is said by those who call.
 */

import { planted } from '../base/planted-bugs.ts'
import { Descriptor } from '../packet/descriptor.ts'
import type { Addresses } from './addresses.ts'
import type { AliasHome } from './alias-home.ts'
import type { Endings } from './endings.ts'
import { takeHeld } from './held-list.ts'
import type { Releasing } from './releasing.ts'
import type { RuntimeLives } from './runtime-lives.ts'
import type { SwitchContext } from './switch-context.ts'
import { Entry, EntryFlag, EntryPhase } from './switch-table.ts'
import type { TakenBack } from './taken-back.ts'

export interface EntryStatesHost {
  readonly lives: RuntimeLives
  readonly addresses: Addresses
  readonly takenBack: TakenBack
  readonly aliases: AliasHome
  readonly releasing: Releasing
  readonly endings: Endings
  /** A packet that an entry held goes by its key's entry as it is now. */
  steer(d: number): void
}

/** The name under which an entry in this phase counts as an open step. */
const STEP_OF: readonly (string | undefined)[] = [
  undefined, undefined, 'asking', 'closing', 'orphaned', 'placing', 'learning', undefined,
]

export class EntryStates {
  /** Entries whose packets are held, but for those that close. */
  readonly waiting = new Set<number>()
  /** Entries whose owner is to be told of them when it can be; they are stalled until then. */
  readonly unopened = new Set<number>()
  /** Entries that hold packets until there is room on the way to their owner. */
  readonly stalled = new Set<number>()
  readonly #context: SwitchContext
  readonly #host: EntryStatesHost

  constructor(context: SwitchContext, host: EntryStatesHost) {
    this.#context = context
    this.#host = host
  }

  /** The entry for what a message says of a flow, made if need be; 0 if something newer is known of its key or of it, or without room. */
  entryFor(at: number, key: number, flow: number, epoch: number): number {
    const context = this.#context
    const { arena, table } = context
    const hash = context.hashOf(key)
    const found = table.find(key, hash)
    const entry = table.mainOf(found)
    if (entry !== found) {
      context.anomaly('key-is-alias')
      return 0
    }
    if (entry !== 0) {
      const known = arena.f64[(entry + Entry.flow) >> 3]
      if (known > flow || (known === flow && epoch < arena.u32[(entry + Entry.epoch) >> 2] && !planted['stale-epoch'])) {
        context.anomaly('stale-epoch')
        return 0
      }
      if (this.#host.addresses.isExpected(entry)) this.#host.addresses.hear(entry, at)
      return entry
    }
    const made = table.add(key, hash)
    if (made === 0) {
      context.anomaly('flow-table-full')
      return 0
    }
    this.#host.addresses.hear(made, at)
    arena.f64[(made + Entry.since) >> 3] = context.now
    return made
  }

  /** Its packets are held until this phase ends. */
  wait(entry: number, phase: number): void {
    this.setPhase(entry, phase)
    this.waiting.add(entry)
  }

  setPhase(entry: number, phase: number): void {
    const { arena, step } = this.#context
    if (arena.u8[entry + Entry.phase] === EntryPhase.stalled) this.stalled.delete(entry)
    if (phase !== EntryPhase.closing) this.#host.endings.forget(entry)
    const before = STEP_OF[arena.u8[entry + Entry.phase]]
    const after = STEP_OF[phase]
    if (before !== undefined) step(before, -1)
    if (after !== undefined) step(after, 1)
    arena.u8[entry + Entry.phase] = phase
    arena.u8[entry + Entry.flags] &= ~EntryFlag.hurried
  }

  /** The entry's key is a flow's; what belongs to the flow that had it before, which has ended, goes. */
  setFlow(entry: number, flow: number): void {
    const { arena, table } = this.#context
    const before = arena.f64[(entry + Entry.flow) >> 3]
    if (before === flow) return
    if (before !== 0) this.#host.takenBack.passedOn(before, flow)
    if (before !== 0 && arena.u8[entry + Entry.phase] !== EntryPhase.closing) this.#inherit(entry, flow)
    // Its owner waits for nobody here any more.
    if (this.#host.releasing.awaitsDrained(entry)) this.#host.releasing.go(entry)
    this.#host.releasing.forget(entry)
    table.setFlow(entry, flow)
    arena.u8[entry + Entry.flags] &= ~EntryFlag.fresh
    arena.u16[(entry + Entry.owner) >> 1] = 0
    if (before !== 0) this.#host.aliases.flowEnded(before)
  }

  /**
   * Another flow has an entry's key, and the one before was not closed: it has died with its owner. Had anybody gone on with it, what was
   * taken back of it would have been claimed: now it is the new one's.
   */
  #inherit(entry: number, by: number): void {
    const context = this.#context
    const { lives, takenBack } = this.#host
    const owner = context.arena.u16[(entry + Entry.owner) >> 1]
    const incarnation = context.arena.u32[(entry + Entry.ownerIncarnation) >> 2]
    // We have not heard of that death yet.
    if (lives.isLive(owner, incarnation) && context.isDown(owner)) context.takeBack(owner, incarnation)
    if (!lives.isLive(owner, incarnation) || context.isDown(owner)) takenBack.orphaned(entry)
    else takenBack.succeeded(entry, by, lives.isBehind)
  }

  /** The flow has an owner: its packets go there, unless that one is not there (yet, or any more). */
  own(entry: number, owner: number, incarnation: number, epoch: number, isBack = false): void {
    const { arena } = this.#context
    const { lives, takenBack } = this.#host
    const before = arena.u16[(entry + Entry.owner) >> 1]
    if (before !== owner || arena.u32[(entry + Entry.ownerIncarnation) >> 2] !== incarnation) {
      const flow = arena.f64[(entry + Entry.flow) >> 3]
      takenBack.left(before, flow)
      takenBack.cameTo(owner, incarnation, flow, this.#context.positionTo(owner), isBack)
    }
    arena.u16[(entry + Entry.owner) >> 1] = owner
    arena.u32[(entry + Entry.ownerIncarnation) >> 2] = incarnation
    arena.u32[(entry + Entry.epoch) >> 2] = epoch
    arena.u16[(entry + Entry.returns) >> 1] = 0
    this.waiting.delete(entry)
    this.unopened.delete(entry)
    const waits = takenBack.waits(arena.f64[(entry + Entry.flow) >> 3])
    if (lives.isLive(owner, incarnation) && !waits) this.activate(entry)
    else this.wait(entry, EntryPhase.orphaned)
  }

  /** Its packets go to its owner, as soon as that one has been heard from: what is to be said of them in-band they would overtake. */
  activate(entry: number): void {
    this.setPhase(entry, EntryPhase.active)
    if (this.#context.inBand(this.#context.arena.u16[(entry + Entry.owner) >> 1]) === null) this.stall(entry)
  }

  /** What its packets go to is not ready for them. */
  stall(entry: number): void {
    this.setPhase(entry, EntryPhase.stalled)
    this.stalled.add(entry)
  }

  /** Removes an entry and does `then`; what it holds is dropped for a reason, or with none steered anew. */
  remove(entry: number, reason: string, then?: () => void): void {
    const context = this.#context
    const { i32 } = context.arena
    this.#host.releasing.forget(entry)
    this.setPhase(entry, 0)
    this.waiting.delete(entry)
    this.unopened.delete(entry)
    let slot = takeHeld(context, entry)
    const flow = context.arena.f64[(entry + Entry.flow) >> 3]
    context.table.remove(entry)
    if (then !== undefined) then()
    else this.#host.aliases.flowEnded(flow)
    while (slot !== 0) {
      const d = slot >> 2
      slot = i32[d + Descriptor.nextHeld]
      if (reason !== '') context.drop(i32[d + Descriptor.slot], reason)
      else if (i32[d + Descriptor.switch] !== 0) context.drop(i32[d + Descriptor.slot], 'not-releaser')
      else this.#host.steer(d)
    }
  }
}
