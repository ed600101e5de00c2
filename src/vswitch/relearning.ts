/**
 * Relearning: a switch that has come (back) knows nothing, and takes no flow for a new one before every runtime has announced its own, those
 * included that somebody who has died has left. PROTOCOL 21. What is announced later it takes as well.
 *
 *     unknown key ──▶ learning ── AnnounceFlow ──▶ active; nobody announces it ──▶ unknown
 */

import { planted } from '../base/planted-bugs.ts'
import {
  AnnouncedPhase, AnnounceFlowOwnerIncarnation, AnnounceFlowReleaser, AnnounceFlowReleaserIncarnation,
} from '../messages/announcing.ts'
import { MessageField } from '../messages/message.ts'
import type { Addresses } from './addresses.ts'
import type { AliasHome } from './alias-home.ts'
import type { EntryStates } from './entry-states.ts'
import type { Placing } from './placing.ts'
import type { Questions } from './questions.ts'
import type { Releasing } from './releasing.ts'
import type { RuntimeLives } from './runtime-lives.ts'
import { isActive, type SwitchContext } from './switch-context.ts'
import { Entry, EntryFlag, EntryPhase } from './switch-table.ts'
import type { TakenBack } from './taken-back.ts'

export interface RelearningHost {
  readonly lives: RuntimeLives
  readonly addresses: Addresses
  readonly takenBack: TakenBack
  readonly aliases: AliasHome
  readonly states: EntryStates
  readonly releasing: Releasing
  readonly questions: Questions
  readonly placing: Placing
  /** Sends on what an entry has held. */
  flush(entry: number): void
}

export class Relearning {
  readonly #context: SwitchContext
  readonly #host: RelearningHost
  /** Until every runtime has announced its flows. */
  #isLearning = true
  /** The last configuration that fenced a runtime: we know all flows when each of the others has done with what that one left. */
  #recoveredIn = 0

  constructor(context: SwitchContext, host: RelearningHost) {
    this.#context = context
    this.#host = host
    context.step('relearning', 1)
  }

  get isLearning(): boolean {
    return this.#isLearning
  }

  /** A configuration has fenced a runtime. */
  fenced(version: number): void {
    this.#recoveredIn = version
  }

  /** AnnounceFlow. */
  announced(sender: number, at: number, bytes: number, flow: number, epoch: number, phase: number): void {
    const context = this.#context
    const { arena, table } = context
    const { lives, states, releasing, takenBack, aliases, addresses } = this.#host
    const key = (at + MessageField.key) >> 2
    const entry = states.entryFor(at, key, flow, epoch)
    const owner = arena.u16[(at + MessageField.node) >> 1]
    const incarnation = arena.u32[(at + AnnounceFlowOwnerIncarnation) >> 2]
    // As in RerouteFlow: whoever waits for our word about a flow that can have no entry here would wait for ever.
    if (entry === 0 && phase !== AnnouncedPhase.owned && table.findFlow(flow) === 0) releasing.goWithout(owner, incarnation, flow, epoch)
    if (entry === 0) return
    const isNew = arena.f64[(entry + Entry.flow) >> 3] !== flow || arena.u32[(entry + Entry.epoch) >> 2] !== epoch
    if (isNew) {
      addresses.hear(entry, at)
      states.setFlow(entry, flow)
      arena.u8[entry + Entry.flags] &= ~EntryFlag.hearsay
      const life = arena.u32[(at + AnnounceFlowReleaserIncarnation) >> 2]
      const named = arena.u32[(at + AnnounceFlowReleaser) >> 2]
      const releaser = lives.unlessFenced(named, life)
      releasing.setNext(entry, releaser, life)
      // A replica that has died since has nothing more to send, and the owner never had.
      releasing.set(entry, named !== 0 ? releaser : lives.unlessFenced(owner, incarnation), epoch)
      states.own(entry, owner, incarnation, epoch)
      // What was taken back comes ahead of what is held, and its claim is on its way.
      if (takenBack.has(flow) && isActive(this.#context, entry)) states.wait(entry, EntryPhase.orphaned)
      this.#host.flush(entry)
      aliases.flowKnown(flow, entry)
      // It may have ended there by now, before we were known: then it ends here as an opening does.
      if (phase === AnnouncedPhase.handedOver && isActive(this.#context, entry)) this.#host.placing.open(entry)
    }
    aliases.announced(at, bytes, entry)
    if (phase !== AnnouncedPhase.owned && !releasing.awaitsDrained(entry)) releasing.go(entry)
    if (sender !== owner && phase === AnnouncedPhase.owned) context.anomaly('announced-for-another')
  }

  /** AnnounceDone. */
  announceDone(runtime: number): void {
    const state = this.#host.lives.get(runtime)
    if (state === undefined) return
    state.hasAnnounced = true
    this.check()
  }

  /** Learning ends when every runtime has announced all, and has done with those who have died before. */
  check(): void {
    const context = this.#context
    if (!this.#isLearning || this.#host.placing.switches.length === 0) return
    const recoveredIn = planted['relearn-unrecovered'] ? 0 : this.#recoveredIn
    if (this.#host.lives.list.some(({ hasAnnounced, applied }) => !hasAnnounced || applied < recoveredIn)) return
    this.#isLearning = false
    context.step('relearning', -1)
    for (const entry of [...this.#host.states.waiting]) {
      if (context.arena.u8[entry + Entry.phase] === EntryPhase.learning) this.#host.states.remove(entry, '')
    }
    this.#host.aliases.learnt()
    this.#host.questions.askAgain()
  }
}
