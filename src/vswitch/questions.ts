/**
 * Questions of other switches: who serves a key whose home this switch is. PROTOCOL 1. An answer may have to wait: while this switch
 * learns after a restart, while there is no runtime to place the flow at, while the flow that has the key ends.
 */

import type { TimeUs } from '../base/clock.ts'
import { MACS_BYTES } from '../messages/message.ts'
import { PlaceFlowReply, PlaceFlowReplyOwnerIncarnation, PlaceFlowReplyQuestion, PlaceRefusal } from '../messages/placement.ts'
import type { MessageChannel } from '../transport/message-channel.ts'
import { begin, writeKey, type SwitchContext } from './switch-context.ts'
import { Entry, EntryPhase } from './switch-table.ts'

interface Question {
  readonly from: number
  /** Its number there. */
  readonly number: number
  readonly since: TimeUs
  readonly key: Int32Array
  readonly macs: Uint8Array
}

export interface QuestionsHost {
  readonly isLearning: boolean
  /** Places the flow of an entry. */
  place(entry: number): void
  /** Tells a switch of an alias. */
  remind(switchId: number, alias: number): void
}

export class Questions {
  readonly #context: SwitchContext
  readonly #host: QuestionsHost
  #questions: Question[] = []
  readonly #scratchKey: number
  readonly #scratchMacs: number

  constructor(context: SwitchContext, host: QuestionsHost) {
    this.#context = context
    this.#host = host
    this.#scratchKey = context.arena.allocate('switch: key', 64) >> 2
    this.#scratchMacs = context.arena.allocate('switch: addresses', 16)
  }

  /** How many wait. */
  get size(): number {
    return this.#questions.length
  }

  /** Another switch asks who serves a key. */
  ask(from: number, key: number, macs: number, number: number, since: TimeUs, isAgain = false): void {
    const context = this.#context
    const { arena, table } = context
    const hash = context.hashOf(key)
    const found = table.find(key, hash)
    let entry = table.mainOf(found)
    // Should the flow be ending, who asks will not take its alias any more: then there is an answer when it has gone.
    if (entry !== found && !isAgain) this.#host.remind(from, found)
    if (entry === 0 && !this.#host.isLearning) {
      entry = table.add(key, hash)
      if (entry === 0) return this.#answer(from, key, number, 0, PlaceRefusal.tableFull)
      arena.u8.copyWithin(entry + Entry.macs, macs, macs + MACS_BYTES)
      arena.f64[(entry + Entry.since) >> 3] = context.now
      this.#host.place(entry)
    }
    if (entry !== 0 && (found === 0 || entry === found) && arena.u8[entry + Entry.phase] === EntryPhase.active) {
      return this.#answer(from, key, number, entry, PlaceRefusal.none)
    }
    if (this.#questions.length >= context.limits.questions) return this.#answer(from, key, number, 0, PlaceRefusal.tableFull)
    this.#questions.push({ from, number, since, key: arena.i32.slice(key, key + 11), macs: arena.u8.slice(macs, macs + MACS_BYTES) })
  }

  #answer(from: number, key: number, number: number, entry: number, refusal: number): void {
    const context = this.#context
    const { arena } = context
    const channel = context.control(from)
    const at = begin(context, channel, PlaceFlowReply, entry === 0 ? 0 : arena.f64[(entry + Entry.flow) >> 3],
      entry === 0 ? 0 : arena.u32[(entry + Entry.epoch) >> 2], entry === 0 ? 0 : arena.u16[(entry + Entry.owner) >> 1], refusal)
    if (at === 0) return
    writeKey(context, at, key, entry === 0 ? this.#scratchMacs : entry + Entry.macs)
    arena.u32[(at + PlaceFlowReplyQuestion) >> 2] = number
    arena.u32[(at + PlaceFlowReplyOwnerIncarnation) >> 2] = entry === 0 ? 0 : arena.u32[(entry + Entry.ownerIncarnation) >> 2]
    ;(channel as MessageChannel).commit()
  }

  /** Questions that waited are asked again: the entries they are about may be ready. */
  askAgain(): void {
    if (this.#questions.length === 0) return
    const { arena } = this.#context
    const questions = this.#questions
    this.#questions = []
    for (const { from, number, key, macs, since } of questions) {
      arena.i32.set(key, this.#scratchKey)
      arena.u8.set(macs, this.#scratchMacs)
      if (this.#context.control(from) !== null) this.ask(from, this.#scratchKey, this.#scratchMacs, number, since, true)
    }
  }

  /** A switch knows the alias that it had asked about. */
  forget(from: number, key: number): void {
    if (this.#questions.length === 0) return
    const { i32 } = this.#context.arena
    this.#questions = this.#questions.filter((question) => question.from !== from ||
      question.key.some((word, index) => word !== i32[key + index]))
  }

  /** Gives up on those older than `holdUs`: who asked has given up by now, and asks again if need be. */
  expire(): void {
    const { now, times, anomaly } = this.#context
    if (!this.#questions.some(({ since }) => now - since > times.holdUs)) return
    this.#questions = this.#questions.filter(({ since }) => now - since <= times.holdUs)
    anomaly('question-timeout')
  }
}
