/**
 * Releasing: whose packets of a flow a switch accepts, and the change from one runtime to the next. PROTOCOL 9. The releaser stays until
 * its `Drained` has come, which may be ahead of the re-pointing; then the owner is told `Go`.
 */

import { setBounded } from '../base/bounded.ts'
import { Go, GoReleased } from '../messages/migration.ts'
import type { MessageChannel } from '../transport/message-channel.ts'
import type { RuntimeLives } from './runtime-lives.ts'
import { begin, sendHead, type SwitchContext } from './switch-context.ts'
import { Entry, EntryFlag } from './switch-table.ts'

/** Last words about unknown flows that are kept; the oldest goes first. */
const EARLY_MAX = 1024

export class Releasing {
  readonly #context: SwitchContext
  readonly #lives: RuntimeLives
  /** Last words about flows that are not known here, or beside the one that an entry notes: the last of each runtime. */
  readonly #early = new Map<number, Map<number, number>>()

  /** Owners that are not known yet and wait for our word about flows that have no entry here. */
  #later: { readonly owner: number; readonly incarnation: number; readonly flow: number; readonly epoch: number }[] = []

  /** By flow: the epoch at which an owner was told so. The opener's in-band word of before may come later. */
  readonly #without = new Map<number, number>()

  constructor(context: SwitchContext, lives: RuntimeLives) {
    this.#context = context
    this.#lives = lives
  }

  /** A last word about a flow that is not known here: after a restart it may come ahead of who announces the flow. */
  #keepEarly(runtime: number, flow: number, epoch: number): void {
    this.#context.anomaly('unknown-flow')
    this.#keep(runtime, flow, epoch)
  }

  #keep(runtime: number, flow: number, epoch: number): void {
    const words = this.#early.get(flow) ?? new Map<number, number>()
    words.set(runtime, epoch)
    if (setBounded(this.#early, flow, words, EARLY_MAX)) this.#context.anomaly('early-drained-limit')
  }

  #hasDrained(entry: number, releaser: number): boolean {
    const { u16, u32, f64 } = this.#context.arena
    if (u16[(entry + Entry.drainedBy) >> 1] === releaser && this.#isLast(entry, u32[(entry + Entry.drainedEpoch) >> 2])) return true
    const early = this.#early.size === 0 ? undefined : this.#early.get(f64[(entry + Entry.flow) >> 3])
    return this.#isLast(entry, early?.get(releaser))
  }

  /** True when a runtime has said at this epoch that it has sent its last packet of an entry's flow. */
  hasSaid(entry: number, runtime: number, epoch: number): boolean {
    const { u16, u32, f64 } = this.#context.arena
    if (u16[(entry + Entry.drainedBy) >> 1] === runtime && u32[(entry + Entry.drainedEpoch) >> 2] === epoch) return true
    return this.#early.get(f64[(entry + Entry.flow) >> 3])?.get(runtime) === epoch
  }

  /** The entry goes, for its flow has ended at this epoch; but a replica that did not hear so may be about to go on with it. */
  outlives(entry: number, epoch: number): void {
    const { u16, u32, f64 } = this.#context.arena
    const said = u32[(entry + Entry.drainedEpoch) >> 2]
    if (said > epoch + 1) this.#keep(u16[(entry + Entry.drainedBy) >> 1], f64[(entry + Entry.flow) >> 3], said)
  }

  /**
   * True for the epoch of a last word that ends what the releaser began. It may be that of a change which was never carried out, for the
   * next one was heard of ahead of that word: who was to release in between never did.
   */
  #isLast(entry: number, epoch: number | undefined): boolean {
    const { u16, u32 } = this.#context.arena
    const now = u32[(entry + Entry.epoch) >> 2]
    if (epoch === undefined || epoch > now) return false
    const later = (epoch - u16[(entry + Entry.releaserSince) >> 1]) & 0xffff
    return later > 0 && later < 0x8000
  }

  /** @param since the epoch at which it has become the releaser: a last word of it is of a later one */
  set(entry: number, releaser: number, since: number): void {
    const { u16 } = this.#context.arena
    u16[(entry + Entry.releaser) >> 1] = releaser
    u16[(entry + Entry.releaserSince) >> 1] = since
  }

  /** Who is to release the flow's frames when the one who does now has sent its last: a replica, or with 0 the owner. */
  setNext(entry: number, replica: number, incarnation: number): void {
    const { u16 } = this.#context.arena
    const life = incarnation & 0xffff
    const releaser = u16[(entry + Entry.releaser) >> 1]
    const isOfEntry = releaser !== 0 && releaser === u16[(entry + Entry.nextReleaser) >> 1]
    // Who has released so far, in a life that is over, has nothing more to say.
    if (isOfEntry && !this.#lives.isLife(releaser, u16[(entry + Entry.releaserLife) >> 1])) u16[(entry + Entry.releaser) >> 1] = 0
    u16[(entry + Entry.nextReleaser) >> 1] = replica
    u16[(entry + Entry.releaserLife) >> 1] = life
  }

  /** True while the releaser of an entry's flow is to send its last packet. */
  awaitsDrained(entry: number): boolean {
    return (this.#context.arena.u8[entry + Entry.flags] & EntryFlag.awaitsDrained) !== 0
  }

  /** The entry goes, or becomes another flow's. */
  forget(entry: number): void {
    if (!this.awaitsDrained(entry)) return
    this.#context.step('drained', -1)
    this.#context.arena.u8[entry + Entry.flags] &= ~EntryFlag.awaitsDrained
  }

  /**
   * Lets the owner release packets, now or when the releaser before has sent its last.
   *
   * @param isNew the releaser is another than the dead one before, whose frames have been counted so far
   * @param hasDrained its releaser has just sent its last
   */
  release(entry: number, isNew = false, hasDrained = false): void {
    const context = this.#context
    const { arena } = context
    const owner = arena.u16[(entry + Entry.owner) >> 1]
    const releaser = arena.u16[(entry + Entry.releaser) >> 1]
    const next = arena.u16[(entry + Entry.nextReleaser) >> 1] || owner
    const awaits = !(releaser === next || hasDrained || this.#hasDrained(entry, releaser) || !this.#lives.has(releaser))
    const awaited = this.awaitsDrained(entry)
    if (awaits !== awaited) context.step('drained', awaits ? 1 : -1)
    if (awaits) {
      arena.u8[entry + Entry.flags] |= EntryFlag.awaitsDrained
      return
    }
    arena.u8[entry + Entry.flags] &= ~EntryFlag.awaitsDrained
    const incarnation = arena.u32[(entry + Entry.ownerIncarnation) >> 2]
    const isOver = this.#lives.isFenced(owner, incarnation) ||
      (next !== owner && !this.#lives.isLife(next, arena.u16[(entry + Entry.releaserLife) >> 1]))
    this.set(entry, isOver ? 0 : next, arena.u32[(entry + Entry.epoch) >> 2])
    this.go(entry)
    // What a replica had released is still to be told to an owner that takes the flow back before it is released by another replica.
    if ((next !== releaser || isNew) && next !== owner) arena.u32[(entry + Entry.released) >> 2] = 0
  }

  /** Tells the owner that this switch accepts its packets. */
  go(entry: number): void {
    const { arena } = this.#context
    const channel = this.#context.control(arena.u16[(entry + Entry.owner) >> 1])
    const at = begin(this.#context, channel, Go, arena.f64[(entry + Entry.flow) >> 3], arena.u32[(entry + Entry.epoch) >> 2])
    if (at === 0) return
    arena.u32[(at + GoReleased) >> 2] = arena.u32[(entry + Entry.released) >> 2]
    ;(channel as MessageChannel).commit()
  }

  /** Tells the owner of a flow without an entry here that this switch has nothing to wait for; later, if it does not know that one yet. */
  goWithout(owner: number, incarnation: number, flow: number, epoch: number): void {
    const context = this.#context
    const channel = context.control(owner)
    setBounded(this.#without, flow, epoch, EARLY_MAX)
    if (channel !== null) return sendHead(context, channel, Go, flow, epoch)
    if (this.#later.length >= EARLY_MAX) {
      this.#later.shift()
      context.anomaly('late-go-limit')
    }
    this.#later.push({ owner, incarnation, flow, epoch })
  }

  /** True for word of a flow that is older than what was answered when it could have no entry here. */
  isOld(flow: number, epoch: number): boolean {
    return epoch < (this.#without.get(flow) ?? 0)
  }

  configured(): void {
    const ready = this.#later.filter(({ owner, incarnation }) => this.#lives.isLive(owner, incarnation))
    this.#later = this.#later.filter((one) => !ready.includes(one) && !this.#lives.isFenced(one.owner, one.incarnation))
    for (const { owner, flow, epoch } of ready) sendHead(this.#context, this.#context.control(owner), Go, flow, epoch)
  }

  /** In-band: an owner that released its flow itself has ended it at this epoch. Somebody else may have gone on with it. */
  closed(runtime: number, flow: number, epoch: number): void {
    const entry = this.#context.table.findFlow(flow)
    if (entry !== 0 && (this.#context.arena.u32[(entry + Entry.epoch) >> 2] as number) > epoch) this.drained(runtime, flow, epoch + 1)
  }

  /** In-band: a runtime has sent its last packet of a flow before the change of releaser at this epoch. */
  drained(runtime: number, flow: number, epoch: number): void {
    const context = this.#context
    const { arena } = context
    const entry = context.table.findFlow(flow)
    if (entry === 0) return this.#keepEarly(runtime, flow, epoch)
    const note = arena.u32[(entry + Entry.drainedEpoch) >> 2]
    const isOfOne = arena.u16[(entry + Entry.releaser) >> 1] === runtime
    if (this.awaitsDrained(entry) && isOfOne && this.#isLast(entry, epoch)) return this.release(entry, false, true)
    // Of two at one epoch, the releaser's is the one that may be needed.
    const isOfReleaser = arena.u16[(entry + Entry.drainedBy) >> 1] === arena.u16[(entry + Entry.releaser) >> 1]
    if (epoch < note) return isOfOne ? this.#keep(runtime, flow, epoch) : undefined
    if (epoch === note && isOfReleaser && !isOfOne) return this.#keep(runtime, flow, epoch)
    // While nobody is known to release, it may be either's that is waited for in the end.
    const by = arena.u16[(entry + Entry.drainedBy) >> 1]
    if (epoch === note && by !== 0 && by !== runtime) this.#keep(by, flow, epoch)
    arena.u32[(entry + Entry.drainedEpoch) >> 2] = epoch
    arena.u16[(entry + Entry.drainedBy) >> 1] = runtime
  }
}
