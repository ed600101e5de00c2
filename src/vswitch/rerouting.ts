/**
 * Rerouting: a flow's packets go to another owner. Paper §6.2; PROTOCOL 7-9, 19, 20; docs/protocol.md, "Moving" and "Replication". The sender is
 * the source of a move, a source that takes a flow back, or who goes on for a dead owner.
 *
 *     RerouteFlow ─▶ the entry has the new owner; ══RerouteFlowReply══▶ the old one, behind the last packet that went there;
 *                    Go ─▶ the new one, when who has released the flow's frames so far has sent its last
 */

import { planted } from '../base/planted-bugs.ts'
import { MessageField } from '../messages/message.ts'
import {
  Go, RerouteFlowBuffersAt, RerouteFlowCovered, RerouteFlowDead, RerouteFlowDeadIncarnation, RerouteFlowMarks, RerouteFlowOwnerIncarnation,
  RerouteFlowReleaser, RerouteFlowReleaserIncarnation, RerouteFlowReleaserNow, RerouteFlowReleaserNowIncarnation, RerouteFlowReply, RerouteMark,
} from '../messages/migration.ts'
import type { AliasHome } from './alias-home.ts'
import type { EntryStates } from './entry-states.ts'
import type { Questions } from './questions.ts'
import type { Releasing } from './releasing.ts'
import type { RuntimeLives } from './runtime-lives.ts'
import { isHearsay, sendHead, type SwitchContext } from './switch-context.ts'
import { Entry, EntryFlag, EntryPhase } from './switch-table.ts'
import type { TakenBack } from './taken-back.ts'

export interface ReroutingHost {
  readonly lives: RuntimeLives
  readonly states: EntryStates
  readonly releasing: Releasing
  readonly takenBack: TakenBack
  readonly aliases: AliasHome
  readonly questions: Questions
  /** Sends on what an entry has held. */
  flush(entry: number): void
}

export class Rerouting {
  readonly #context: SwitchContext
  readonly #host: ReroutingHost

  constructor(context: SwitchContext, host: ReroutingHost) {
    this.#context = context
    this.#host = host
  }

  /** RerouteFlow. */
  reroute(sender: number, at: number, flow: number, epoch: number): void {
    const context = this.#context
    const { arena, table } = context
    const { lives, states, releasing, takenBack, aliases } = this.#host
    const key = (at + MessageField.key) >> 2
    const found = table.mainOf(table.find(key, context.hashOf(key)))
    const owner = arena.u16[(at + MessageField.node) >> 1]
    const incarnation = arena.u32[(at + RerouteFlowOwnerIncarnation) >> 2]
    const isKnown = found !== 0 && arena.f64[(found + Entry.flow) >> 3] === flow
    const wasHearsay = isKnown && isHearsay(context, found)
    if (isKnown && !wasHearsay && arena.u32[(found + Entry.epoch) >> 2] === epoch && arena.u16[(found + Entry.owner) >> 1] === owner) {
      // Said again, after our restart: what was to be learnt has been announced.
      this.#answerReroute(sender, sender, flow, epoch)
      if (!releasing.awaitsDrained(found)) releasing.go(found)
      this.#mark(sender, at, flow, epoch)
      return
    }
    const entry = states.entryFor(at, key, flow, epoch)
    if (entry === 0) {
      // Who takes it over from the dead does not know that it has ended: its key is a newer flow's.
      const hasEnded = found !== 0 && arena.f64[(found + Entry.flow) >> 3] > flow && arena.u8[at + MessageField.code] === 2
      // Its key is another flow's here, or there is no room: nothing was sent to anybody, and nobody may wait for us.
      if (!isKnown && !hasEnded) {
        this.#answerReroute(sender, sender, flow, epoch)
        releasing.goWithout(owner, incarnation, flow, epoch)
        this.#mark(sender, at, flow, epoch)
      } else if (arena.u8[at + MessageField.code] !== 0) {
        // Who takes it over from the dead comes too late: it lives on elsewhere, or has ended.
        sendHead(context, context.control(owner), Go, flow, epoch, 0, hasEnded ? 2 : 1)
      }
      return
    }
    const dead = arena.u32[(at + RerouteFlowDead) >> 2]
    const deadIncarnation = arena.u32[(at + RerouteFlowDeadIncarnation) >> 2]
    // We have not heard of that death yet: what is in the link of the dead comes ahead of what is to come.
    if (dead !== 0 && lives.isLive(dead, deadIncarnation)) context.takeBack(dead, deadIncarnation)
    const previous = isKnown && !wasHearsay ? arena.u16[(entry + Entry.owner) >> 1] : 0
    const previousIncarnation = arena.u32[(entry + Entry.ownerIncarnation) >> 2]
    if (wasHearsay && arena.u16[(entry + Entry.releaser) >> 1] === owner) releasing.set(entry, 0, epoch - 1)
    states.setFlow(entry, flow)
    arena.u8[entry + Entry.flags] &= ~(EntryFlag.fresh | EntryFlag.hearsay)
    // The owner has it without its state, so without its aliases.
    if (arena.u8[at + MessageField.code] === 1) {
      table.removeAliases(entry)
      aliases.flowEnded(flow)
    }
    // The replica's own word may be on its way here: it has released what there was, and its owner nothing.
    const now = lives.unlessFenced(arena.u32[(at + RerouteFlowReleaserNow) >> 2], arena.u32[(at + RerouteFlowReleaserNowIncarnation) >> 2])
    const isOfOwner = isKnown && arena.u8[at + MessageField.code] !== 2 && arena.u16[(entry + Entry.releaser) >> 1] === previous
    if (now !== 0 && isOfOwner) releasing.set(entry, now, epoch - 1)
    // A replica that is dead has nothing more to send, and the owner never had.
    const isReplicaDead = now === 0 && arena.u32[(at + RerouteFlowReleaserNow) >> 2] !== 0
    const releaser = arena.u32[(at + RerouteFlowReleaser) >> 2]
    releasing.setNext(entry, releaser, arena.u32[(at + RerouteFlowReleaserIncarnation) >> 2])
    const hadNone = arena.u16[(entry + Entry.releaser) >> 1] === 0
    if (!isKnown || hadNone) {
      // Whoever releases its frames until the change may have some on their way here, before which it was to have been heard of.
      releasing.set(entry, now || (owner === sender || isReplicaDead ? releaser || owner : sender), epoch - 1)
    }
    // A source that takes back what it was giving away; who goes on for the dead says so.
    states.own(entry, owner, incarnation, epoch, owner === sender && arena.u8[at + MessageField.code] === 0)
    // The target of a dead owner's move gives back what it buffers when it has read all that it was sent, whoever was the owner since.
    const target = arena.u8[at + MessageField.code] === 2 ? arena.u32[(at + RerouteFlowBuffersAt) >> 2] as number : previous
    const isThere = target === previous ? lives.isLive(target, previousIncarnation) : lives.has(target)
    this.#answerReroute(isThere ? target : sender, sender, flow, epoch)
    const isNewReplica = hadNone && releaser !== 0 && lives.isLife(releaser, arena.u16[(entry + Entry.releaserLife) >> 1])
    releasing.release(entry, isNewReplica)
    if (dead !== 0) this.#mark(sender, at, flow, epoch, RerouteMark.begin)
    if (dead !== 0 && arena.u8[at + MessageField.code] === 1) takenBack.drop(entry, dead, deadIncarnation)
    else if (dead !== 0) {
      // What cannot go there now is held, ahead of what waits already: whoever goes on may have died since.
      const isMarked = arena.u32[(at + RerouteFlowMarks) >> 2] !== 0 && arena.u8[entry + Entry.phase] === EntryPhase.active &&
        context.hasRoomTo(owner)
      const covered = arena.u8[at + MessageField.code] === 0 ? null : arena.u32[(at + RerouteFlowCovered) >> 2] as number
      takenBack.claim(entry, dead, deadIncarnation, covered,
        isMarked ? (slot) => { context.toRuntime(slot >> 2, owner) } : undefined)
    }
    this.#mark(sender, at, flow, epoch)
    // Should the owner die before it has fetched what the target has: what it is sent from now on is from behind that.
    if (arena.u32[(at + RerouteFlowMarks) >> 2] !== 0) takenBack.cameTo(owner, incarnation, flow, context.positionTo(owner), true)
    this.#host.flush(entry)
    if (!isKnown) aliases.flowKnown(flow, entry)
    this.#host.questions.askAgain()
  }

  /** In-band, ahead of what was taken back or behind it: the sender waits for it. */
  #mark(sender: number, at: number, flow: number, epoch: number, mark: number = RerouteMark.end): void {
    const context = this.#context
    if (context.arena.u32[(at + RerouteFlowMarks) >> 2] !== 0) sendHead(context, context.inBand(sender), RerouteFlowReply, flow, epoch, 0, mark)
  }

  /** In-band, behind the last packet that went to the owner before. */
  #answerReroute(before: number, sender: number, flow: number, epoch: number): void {
    const context = this.#context
    const channel = planted['barrier-out-of-band'] ? context.control(before) : context.inBand(before) ?? context.inBand(sender)
    sendHead(context, channel, RerouteFlowReply, flow, epoch)
  }
}
