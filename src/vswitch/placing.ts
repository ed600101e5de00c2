/**
 * Placing: who serves a flow that nobody has, or of which this switch does not know who does. PROTOCOL 1, 2. The home of its key places it at a
 * runtime, which is told in-band ahead of the first packet; another switch asks the home.
 *
 *     unknown key ── home: place ─────────────────────────▶ active, FlowOpen to its owner
 *           │ another switch: ask                             ▲
 *           └──▶ asking ── PlaceFlowReply ────────────────────┘
 */

import { planted } from '../base/planted-bugs.ts'
import { flowIdOf, type SwitchEntry } from '../messages/cluster-config.ts'
import { homeSwitchOf, sharedKeyHash } from '../messages/home-switch.ts'
import { MessageField } from '../messages/message.ts'
import {
  FlowOpen, PlaceFlow, PlaceFlowQuestion, PlaceFlowReplyOwnerIncarnation, PlaceFlowReplyQuestion, PlaceRefusal,
} from '../messages/placement.ts'
import type { MessageChannel } from '../transport/message-channel.ts'
import type { EntryStates } from './entry-states.ts'
import type { PlacementPolicy } from './placement/placement-policy.ts'
import type { Releasing } from './releasing.ts'
import type { RuntimeLives } from './runtime-lives.ts'
import { begin, isActive, writeEntryKey, type SwitchContext } from './switch-context.ts'
import { Entry, EntryFlag, EntryPhase } from './switch-table.ts'

export interface PlacingHost {
  readonly lives: RuntimeLives
  readonly states: EntryStates
  readonly releasing: Releasing
  /** Sends on what an entry has held. */
  flush(entry: number): void
}

export class Placing {
  /** Those of the configuration. */
  switches: readonly SwitchEntry[] = []
  readonly #context: SwitchContext
  readonly #policy: PlacementPolicy
  readonly #lives: RuntimeLives
  readonly #states: EntryStates
  readonly #releasing: Releasing
  readonly #flush: (entry: number) => void
  /** Flows placed in this life. */
  #counter = 0
  #lastQuestion = 0

  constructor(context: SwitchContext, policy: PlacementPolicy, { lives, states, releasing, flush }: PlacingHost) {
    this.#context = context
    this.#policy = policy
    this.#lives = lives
    this.#states = states
    this.#releasing = releasing
    this.#flush = flush
  }

  /** The switch whose word it is who serves the key at a word index. */
  homeOf(key: number): number {
    return homeSwitchOf(this.#context.arena.i32, key, this.switches)
  }

  isHomeOf(key: number): boolean {
    return planted['switch-places-itself'] || this.homeOf(key) === this.#context.self
  }

  /** Finds somebody to serve a flow that has an entry and no owner: places it, or asks its home. */
  serve(entry: number): void {
    if (this.isHomeOf(entry >> 2)) this.place(entry)
    else this.#ask(entry, this.homeOf(entry >> 2))
  }

  /** True for a runtime that can be told of a flow now. One that does not keep up with what it is told gets no more of them. */
  #canOpenAt(runtime: number): boolean {
    const channel = this.#context.inBand(runtime)
    return channel !== null && channel.isStrained !== true
  }

  /** The home places a flow. */
  place(entry: number): void {
    const context = this.#context
    const { arena } = context
    const candidates = this.#lives.list.filter((runtime) => !runtime.isDraining && !runtime.isStopped &&
      (runtime.hasAnnounced || planted['relearn-at-once']) && this.#canOpenAt(runtime.id))
    if (candidates.length === 0) return this.#states.wait(entry, EntryPhase.placing)
    if (this.#counter >= context.limits.flowIds) {
      // Only a new life has new ones.
      context.anomaly('flow-ids-spent')
      return this.#states.wait(entry, EntryPhase.placing)
    }
    const chosen = candidates[this.#policy.choose(candidates, sharedKeyHash(arena.i32, entry >> 2))]
    if (chosen === undefined) {
      context.anomaly('placement-policy')
      return this.#states.wait(entry, EntryPhase.placing)
    }
    chosen.placed++
    this.#states.setFlow(entry, flowIdOf(context.incarnation, ++this.#counter))
    this.#states.own(entry, chosen.id, chosen.incarnation, 1)
    this.#releasing.set(entry, chosen.id, 1)
    arena.u8[entry + Entry.flags] |= EntryFlag.fresh
    this.open(entry)
  }

  /** Tells the owner, in-band, that the flow's packets follow. */
  open(entry: number): void {
    const context = this.#context
    const { arena } = context
    const owner = arena.u16[(entry + Entry.owner) >> 1]
    const channel = context.inBand(owner)
    const at = !this.#canOpenAt(owner) ? 0
      : begin(context, channel, FlowOpen, arena.f64[(entry + Entry.flow) >> 3], arena.u32[(entry + Entry.epoch) >> 2])
    if (at === 0) {
      this.#states.unopened.add(entry)
      // Packets ahead of it would come back, each behind others that are sent meanwhile.
      if (arena.u8[entry + Entry.phase] === EntryPhase.active) this.#states.stall(entry)
      return
    }
    this.#states.unopened.delete(entry)
    arena.u16[(at + MessageField.node) >> 1] = this.homeOf(entry >> 2)
    writeEntryKey(context, at, entry)
    ;(channel as MessageChannel).commit()
  }

  #ask(entry: number, home: number): void {
    const context = this.#context
    const channel = context.control(home)
    if (channel?.isStrained === true) return this.#states.wait(entry, EntryPhase.placing)
    this.#states.wait(entry, EntryPhase.asking)
    const at = begin(context, channel, PlaceFlow, 0, 0)
    if (at === 0) return
    const { u32 } = context.arena
    u32[(at + PlaceFlowQuestion) >> 2] = u32[(entry + Entry.question) >> 2] = ++this.#lastQuestion >>> 0
    writeEntryKey(context, at, entry)
    ;(channel as MessageChannel).commit()
  }

  /** The home's answer. */
  answered(at: number): void {
    const context = this.#context
    const { arena, table } = context
    const key = (at + MessageField.key) >> 2
    const entry = table.find(key, context.hashOf(key))
    const isAnswer = entry !== 0 && arena.u8[entry + Entry.phase] === EntryPhase.asking &&
      arena.u32[(entry + Entry.question) >> 2] === arena.u32[(at + PlaceFlowReplyQuestion) >> 2]
    if (!isAnswer) return context.anomaly('late-placement')
    if (arena.u8[at + MessageField.code] !== PlaceRefusal.none) {
      this.#states.remove(entry, 'flow-table-full')
      return
    }
    const owner = arena.u16[(at + MessageField.node) >> 1]
    const incarnation = arena.u32[(at + PlaceFlowReplyOwnerIncarnation) >> 2]
    // It is asked again when the owner keeps up, and where it has died since and all has been said of that: nobody will claim the flow.
    const isTooLate = this.#lives.isFenced(owner, incarnation) && this.#lives.haveApplied
    if (context.inBand(owner)?.isStrained === true || isTooLate) return this.#states.wait(entry, EntryPhase.placing)
    this.#states.setFlow(entry, arena.f64[(at + MessageField.flow) >> 3])
    const epoch: number = arena.u32[(at + MessageField.epoch) >> 2]
    this.#states.own(entry, owner, incarnation, epoch)
    this.#releasing.set(entry, this.#lives.unlessFenced(owner, incarnation), epoch)
    if (epoch > 1) arena.u8[entry + Entry.flags] |= EntryFlag.hearsay
    if (!isActive(this.#context, entry)) return
    this.open(entry)
    this.#flush(entry)
  }
}
