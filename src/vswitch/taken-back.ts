/**
 * Taken back: packets that a dead runtime had not given back, by flow, until it is known who goes on with them. PROTOCOL 20.
 *
 *     claimed by who has the flow now ─▶ those that its record does not cover go there, ahead of all that is held
 *     claimed by nobody: its owner was the dead one ─▶ a new flow, or dropped where they may have left already;
 *                        it lives elsewhere, or has ended ─▶ the dead one had consumed them
 */

import { setBounded } from '../base/bounded.ts'
import { planted } from '../base/planted-bugs.ts'
import { flowKeysEqual } from '../flow/flow-key.ts'
import { KEY_WORDS } from '../flow/flow-record.ts'
import { Descriptor } from '../packet/descriptor.ts'
import { prependHeld, takeHeld } from './held-list.ts'
import type { SwitchContext } from './switch-context.ts'
import { Entry, EntryFlag } from './switch-table.ts'

interface Packets {
  readonly runtime: number
  readonly incarnation: number
  /** Those beyond this position were sent when the flow had come back from a target. */
  readonly back: number
  /** Those up to this position were sent before the flow came there last; all, if it came when they had been taken back. */
  last: number
  /** Slots and their positions, in turn. */
  readonly slots: number[]
}

/** A flow whose key another one had, at a runtime that may have died: the packets on the link to that one are the newer flow's. */
interface Heir {
  readonly runtime: number
  readonly incarnation: number
  /** Those up to this position were sent before the flow before came there. */
  readonly first: number
  /** What the flow before had been sent cannot have left. */
  readonly isFresh: boolean
  /** That runtime is about to be called dead, or to be known to live: packets wait for that, so that they keep their order. */
  readonly waits: boolean
  /** Keys of the aliases that the flow before had. They have gone with it. */
  readonly aliases: readonly Int32Array[]
}

/** Heirs that are kept; the oldest goes first. */
const HEIRS_MAX = 1024
/** Notes of when flows came to a runtime, and left, that are kept: as many as a link can hold frames. */
const NOTES_MAX = 4096

export class TakenBack {
  readonly counts = { taken: 0, covered: 0 }
  readonly #context: SwitchContext
  readonly #givesBackLate: (runtime: number) => boolean
  readonly #flows = new Map<number, Packets[]>()
  /** By runtime: flows that came there lately, and how far its link was then; negative: came back, 0: left. Two numbers each, in a ring. */
  readonly #notes = new Map<number, { readonly words: Float64Array; next: number }>()

  /** By the newer flow: of the flow before it, and of those before that one, the oldest first; the last of each life of a runtime. */
  readonly #heirs = new Map<number, readonly Heir[]>()

  /** @param givesBackLate true for runtimes that leave in their links what they have processed, until others know of it */
  constructor(context: SwitchContext, givesBackLate: (runtime: number) => boolean) {
    this.#context = context
    this.#givesBackLate = givesBackLate
  }

  get isEmpty(): boolean {
    return this.#flows.size === 0
  }

  /**
   * Packets of a flow go to a runtime from now on: what its link has of the same key is of another flow, or of another time.
   *
   * @param isBack it was on its way to a target, which may have some packets of it that come between; said of who goes on for the dead, too,
   *   behind what was sent there ahead of those
   */
  cameTo(runtime: number, incarnation: number, flow: number, position: number, isBack: boolean): void {
    const packets = this.#flows.get(flow)?.find((one) => one.runtime === runtime && one.incarnation === incarnation)
    // Who sends it there has not heard of that death yet: nothing of it can have come there any more.
    if (packets !== undefined) packets.last = Infinity
    else if (position !== 0) this.#note(runtime, flow, isBack ? -position : position)
  }

  /** They go elsewhere. */
  left(runtime: number, flow: number): void {
    if (runtime !== 0) this.#note(runtime, flow, 0)
  }

  #note(runtime: number, flow: number, position: number): void {
    let notes = this.#notes.get(runtime)
    if (notes === undefined) this.#notes.set(runtime, notes = { words: new Float64Array(NOTES_MAX * 2), next: 0 })
    notes.words[notes.next * 2] = flow
    notes.words[notes.next * 2 + 1] = position
    notes.next = (notes.next + 1) % NOTES_MAX
  }

  /** Positions are those of a new connection from now on. */
  forgetNotes(runtime: number): void {
    this.#notes.delete(runtime)
  }

  /** When a flow came to live at a runtime; when it came back there from a target that it did not move to; the last of both. */
  #since(runtime: number, flow: number): { readonly first: number; readonly back: number; readonly last: number } {
    const notes = this.#notes.get(runtime)
    let first = 0
    let back = Infinity
    let last = 0
    for (let i = 0, at = notes?.next ?? 0; notes !== undefined && i < NOTES_MAX; i++, at = (at + 1) % NOTES_MAX) {
      if (notes.words[at * 2] !== flow) continue
      const position = notes.words[at * 2 + 1] as number
      back = position < 0 ? -position : Infinity
      if (position > 0) first = position
      if (position !== 0) last = Math.abs(position)
    }
    return { first, back, last }
  }

  /** True while packets of a flow have been taken back and are not claimed. */
  has(flow: number): boolean {
    return this.#flows.has(flow)
  }

  /** The same of a flow that may be the heir of the one that lived there. */
  #sinceOf(runtime: number, incarnation: number, flow: number): { readonly first: number; readonly back: number; readonly last: number } {
    const since = this.#since(runtime, flow)
    const heirs = since.last === 0 ? this.#heirs.get(flow) : undefined
    const heir = heirs?.find((one) => one.runtime === runtime && one.incarnation === incarnation)
    return heir === undefined ? since : { ...since, first: heir.first }
  }

  /** True for a position on the link to a runtime ahead of which an entry's flow came there: what is before it was not sent as part of that. */
  cameAhead(runtime: number, incarnation: number, entry: number, position: number): boolean {
    return position > this.#sinceOf(runtime, incarnation, this.#context.arena.f64[(entry + Entry.flow) >> 3] as number).first
  }

  /** The heir of the flow that had an alias with this key (a word index) there, 0 if there is none. */
  #heirByAlias(runtime: number, incarnation: number, key: number): number {
    const { i32 } = this.#context.arena
    for (const [flow, heirs] of this.#heirs) {
      const heir = heirs.find((one) => one.runtime === runtime && one.incarnation === incarnation)
      if (heir?.aliases.some((alias) => flowKeysEqual(i32, key, 0, alias)) === true) return flow
    }
    return 0
  }

  /** A packet in a slot, from the link of a runtime that is dead. `entry` is its flow's, 0 for none. */
  add(runtime: number, incarnation: number, entry: number, slot: number, position: number): void {
    const { u16, f64 } = this.#context.arena
    const known = entry === 0 ? 0 : f64[(entry + Entry.flow) >> 3] as number
    const isOfDead = entry !== 0 && u16[(entry + Entry.owner) >> 1] === runtime
    // The key may be nobody's by now, or another flow's alias: who gets it from the heir knows where it belongs.
    const flow = isOfDead ? known : this.#heirByAlias(runtime, incarnation, (slot >> 2) + Descriptor.key) || known
    const { first, back, last } = this.#sinceOf(runtime, incarnation, flow)
    if (flow === 0 || position <= first) {
      this.counts.covered++
      this.#context.giveSlot(slot)
      return
    }
    this.counts.taken++
    this.#context.held++
    this.#context.countForwarded(-1)
    const lists = this.#flows.get(flow) ?? []
    let packets = lists.find((one) => one.runtime === runtime && one.incarnation === incarnation)
    if (packets === undefined) lists.push(packets = { runtime, incarnation, back, last, slots: [] })
    packets.slots.push(slot, position)
    this.#flows.set(flow, lists)
  }

  /** @param waits whether it will be known soon if the owner of the flow before is dead */
  succeeded(entry: number, by: number, waits: boolean): void {
    const { u8, u16, u32, i32, f64 } = this.#context.arena
    const runtime = u16[(entry + Entry.owner) >> 1] as number
    const { first } = this.#since(runtime, f64[(entry + Entry.flow) >> 3] as number)
    const aliases: Int32Array[] = []
    for (let at = i32[(entry + Entry.nextAlias) >> 2] as number; at !== 0; at = i32[(at + Entry.nextAlias) >> 2] as number) {
      aliases.push(i32.slice(at >> 2, (at >> 2) + KEY_WORDS))
    }
    const incarnation = u32[(entry + Entry.ownerIncarnation) >> 2] as number
    this.#addHeirs(by, [{ runtime, incarnation, first, waits, aliases, isFresh: ((u8[entry + Entry.flags] as number) & EntryFlag.fresh) !== 0 }])
  }

  #addHeirs(by: number, heirs: readonly Heir[]): void {
    const before = (this.#heirs.get(by) ?? [])
      .filter((old) => !heirs.some(({ runtime, incarnation }) => old.runtime === runtime && old.incarnation === incarnation))
    setBounded(this.#heirs, by, [...before, ...heirs], HEIRS_MAX)
  }

  /**
   * Another flow has the key of one that was an heir itself, before it is known who has died: it is the heir now, of what has been taken back
   * already, too.
   */
  passedOn(flow: number, by: number): void {
    const heirs = this.#heirs.get(flow)
    if (heirs === undefined) return
    this.#heirs.delete(flow)
    this.#addHeirs(by, heirs)
    const isOfHeirs = (one: Packets): boolean =>
      heirs.some(({ runtime, incarnation }) => one.runtime === runtime && one.incarnation === incarnation)
    const lists = this.#flows.get(flow) ?? []
    const passed = lists.filter(isOfHeirs)
    if (passed.length === 0) return
    this.#flows.set(by, [...this.#flows.get(by) ?? [], ...passed])
    if (passed.length === lists.length) this.#flows.delete(flow)
    else this.#flows.set(flow, lists.filter((one) => !isOfHeirs(one)))
  }

  /** True for a flow whose packets are held until it is known whether there are some ahead of them. */
  waits(flow: number): boolean {
    return this.#heirs.get(flow)?.some(({ waits }) => waits) === true
  }

  /** There is a newer configuration: heirs of the dead get what was taken back for them, ahead of the rest. `flush` sends it on. */
  inherit(isFenced: (runtime: number, incarnation: number) => boolean, flush: (entry: number) => void): void {
    for (const [flow, heirs] of this.#heirs) {
      const left = heirs.filter(({ runtime, incarnation }) => !isFenced(runtime, incarnation))
      if (left.length === 0) this.#heirs.delete(flow)
      else this.#heirs.set(flow, left.map((heir) => ({ ...heir, waits: false })))
      const entry = this.#context.table.findFlow(flow)
      let isHeir = false
      // What the older ones were sent comes ahead of what the newer ones were.
      for (const { runtime, incarnation, isFresh } of heirs.toReversed()) {
        const packets = entry === 0 || !isFenced(runtime, incarnation) ? undefined : this.#take(entry, runtime, incarnation)
        if (packets === undefined) continue
        isHeir = true
        if (isFresh || !this.#givesBackLate(runtime)) this.#hold(entry, packets, 0)
        else this.#dropAll(packets, 'no-replica')
      }
      if (isHeir) flush(entry)
    }
  }

  #covered(slot: number): void {
    this.counts.covered++
    this.counts.taken--
    this.#context.held--
    this.#context.countForwarded(1)
    this.#context.giveSlot(slot)
  }

  /**
   * Who goes on with a flow in the place of a dead runtime: what the record does not cover is held at its entry, ahead of the rest.
   *
   * @param covered null: it has come back from the dead, who never had it: what was sent there before is in its record
   * @param ahead takes what comes before all that a target of the flow may have buffered, and is not held then
   */
  claim(entry: number, runtime: number, incarnation: number, covered: number | null, ahead?: (slot: number) => void): void {
    const packets = this.#take(entry, runtime, incarnation)
    if (packets !== undefined) this.#hold(entry, packets, covered ?? packets.last, ahead)
  }

  /** What was taken back of an entry's flow from one life of a runtime, which is not kept here any more. */
  #take(entry: number, runtime: number, incarnation: number): Packets | undefined {
    const flow = this.#context.arena.f64[(entry + Entry.flow) >> 3] as number
    const lists = this.#flows.get(flow) ?? []
    const index = lists.findIndex((one) => one.runtime === runtime && one.incarnation === incarnation)
    if (index < 0) return undefined
    const [packets] = lists.splice(index, 1)
    if (lists.length === 0) this.#flows.delete(flow)
    return packets
  }

  #hold(entry: number, { slots, back }: Packets, covered: number, ahead?: (slot: number) => void): void {
    const first: number[] = []
    for (let i = 0; i < slots.length; i += 2) {
      if ((slots[i + 1] as number) <= covered || planted['take-back-skipped']) this.#covered(slots[i] as number)
      else if (ahead !== undefined && (slots[i + 1] as number) <= back) {
        this.#context.held--
        ahead(slots[i] as number)
      } else first.push(slots[i] as number)
    }
    if (planted['take-back-order']) first.unshift(...this.#takeHeld(entry))
    prependHeld(this.#context, entry, first)
  }

  #takeHeld(entry: number): number[] {
    const slots: number[] = []
    for (let slot = takeHeld(this.#context, entry); slot !== 0; slot = this.#context.arena.i32[(slot >> 2) + Descriptor.nextHeld] as number) {
      slots.push(slot)
    }
    this.#context.held += slots.length
    return slots
  }

  /**
   * Nobody will claim a flow of the dead any more: what was taken back of it opens a new one, with what is held. Not so when it may have
   * left already, and nobody knows how much of it.
   */
  orphaned(entry: number): void {
    const { arena } = this.#context
    const flow = arena.f64[(entry + Entry.flow) >> 3] as number
    const isFresh = (arena.u8[entry + Entry.flags] & EntryFlag.fresh) !== 0 || planted['take-back-unclaimed']
    const lists = this.#flows.get(flow) ?? []
    this.#flows.delete(flow)
    for (const packets of lists.toReversed()) {
      if (isFresh || !this.#givesBackLate(packets.runtime)) this.#hold(entry, packets, 0)
      else this.#dropAll(packets, 'no-replica')
    }
  }

  #dropAll({ slots }: Packets, reason: string): void {
    for (let i = 0; i < slots.length; i += 2) {
      this.#context.held--
      this.#context.drop(slots[i] as number, reason)
    }
  }

  /**
   * Everything has been said of those that are fenced: flows that nobody has claimed live on elsewhere, with what they were sent. What was taken
   * back from one of which only its heirs have told us waits.
   */
  settle(isFenced: (runtime: number, incarnation: number) => boolean): void {
    for (const [flow, lists] of this.#flows) {
      const left = lists.filter(({ runtime, incarnation }) => !isFenced(runtime, incarnation))
      if (left.length === lists.length) continue
      for (const packets of lists) {
        if (left.includes(packets)) continue
        for (let i = 0; i < packets.slots.length; i += 2) this.#covered(packets.slots[i] as number)
      }
      if (left.length === 0) this.#flows.delete(flow)
      else this.#flows.set(flow, left)
    }
  }

  /** A flow goes on anew where it was to move: what was sent to its dead source is from before. */
  drop(entry: number, runtime: number, incarnation: number): void {
    const packets = this.#take(entry, runtime, incarnation)
    if (packets !== undefined) this.#dropAll(packets, 'source-fenced')
  }
}
