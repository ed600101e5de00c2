/**
 * Alias home: grants translated tuples as alias keys of flows, by compare-and-set at the tuple's home switch. PROTOCOL 5.
 *
 * A claim is granted when the tuple is free and every other switch has the alias too, so that the first packet that uses it is
 * answered to the right flow wherever the answer comes in. While this switch learns after a restart claims wait: a tuple that looks free may
 * be that of a flow which has yet to be announced.
 */

import { planted } from '../base/planted-bugs.ts'
import { flowKeysEqual } from '../flow/flow-key.ts'
import { KEY_WORDS } from '../flow/flow-record.ts'
import { AliasRefusal, BindAlias, BindAliasReply, ClaimAliasReply } from '../messages/aliasing.ts'
import { AnnounceFlow } from '../messages/announcing.ts'
import type { SwitchEntry } from '../messages/cluster-config.ts'
import { MACS_BYTES, MessageField } from '../messages/message.ts'
import type { MessageChannel } from '../transport/message-channel.ts'
import { begin, writeEntryKey, writeKey, type SwitchContext } from './switch-context.ts'
import { Entry } from './switch-table.ts'

interface Claim {
  readonly flow: number
  readonly runtime: number
  readonly key: Int32Array
  readonly macs: Uint8Array
  /** Switches, by incarnation, that have been told of the alias, and those of them that have yet to say that they have it. */
  readonly told: Set<number>
  readonly pending: Set<number>
}

/** A claim that came while this switch did not know yet which tuples flows have. */
interface WaitingClaim {
  readonly runtime: number
  readonly key: Int32Array
  readonly macs: Uint8Array
}

/** An alias that came before its flow was known here, or while another flow that is about to end still has the key. */
interface EarlyAlias {
  readonly flow: number
  /** The home that waits for our word; 0 when nobody does. */
  readonly from: number
  readonly key: Int32Array
  readonly macs: Uint8Array
}

const ALIAS_BYTES = (KEY_WORDS + 1) * 4

export class AliasHome {
  readonly #context: SwitchContext
  readonly #switches: () => readonly SwitchEntry[]
  readonly #replace: (entry: number, then: () => void) => void
  readonly #claims = new Map<number, Claim>()
  /** By flow. */
  readonly #waiting = new Map<number, WaitingClaim>()
  readonly #isLearning: () => boolean
  #early: EarlyAlias[] = []
  readonly #key: number
  readonly #macs: number

  /**
   * @param switches those of the configuration
   * @param isLearning true until every runtime has announced its flows; then comes `learnt`
   * @param replace removes an entry, does `then`, and steers anew what the entry held
   */
  constructor(context: SwitchContext, switches: () => readonly SwitchEntry[], isLearning: () => boolean,
      replace: (entry: number, then: () => void) => void) {
    this.#context = context
    this.#switches = switches
    this.#isLearning = isLearning
    this.#replace = replace
    this.#key = context.arena.allocate('alias: key', 64) >> 2
    this.#macs = context.arena.allocate('alias: addresses', 16)
  }

  /** A runtime wants a tuple for one of its flows. */
  claim(runtime: number, at: number, flow: number): void {
    const { arena: { i32, u8 }, limits } = this.#context
    const key = (at + MessageField.key) >> 2
    const macs = at + MessageField.macs
    if (!this.#isLearning()) return this.#decide(runtime, flow, key, macs)
    if (this.#waiting.size >= limits.claims && !this.#waiting.has(flow)) return this.#answer(runtime, flow, key, macs, AliasRefusal.tableFull)
    this.#waiting.set(flow, { runtime, key: i32.slice(key, key + KEY_WORDS), macs: u8.slice(macs, macs + MACS_BYTES) })
  }

  /** Every flow that there is has been announced, with its aliases. */
  learnt(): void {
    for (const [flow, { runtime, key, macs }] of this.#waiting) {
      this.#context.arena.i32.set(key, this.#key)
      this.#context.arena.u8.set(macs, this.#macs)
      this.#decide(runtime, flow, this.#key, this.#macs)
    }
    this.#waiting.clear()
  }

  #decide(runtime: number, flow: number, key: number, macs: number): void {
    const context = this.#context
    const { arena, table } = context
    const main = table.findFlow(flow)
    const taken = table.find(key, context.hashOf(key))
    if (main === 0) return this.#answer(runtime, flow, key, macs, AliasRefusal.unknownFlow)
    if (taken !== 0 && table.mainOf(taken) !== main && !planted['alias-granted-twice']) {
      return this.#answer(runtime, flow, key, macs, AliasRefusal.taken)
    }
    const isFull = this.#claims.size >= context.limits.claims && !this.#claims.has(flow)
    if (isFull || (taken === 0 && !this.#add(main, key, macs))) {
      return this.#answer(runtime, flow, key, macs, AliasRefusal.tableFull)
    }
    const others = this.#others()
    const claim: Claim = { flow, runtime, key: arena.i32.slice(key, key + KEY_WORDS), macs: arena.u8.slice(macs, macs + MACS_BYTES),
      told: new Set(others.map(({ incarnation }) => incarnation)),
      pending: new Set(others.map(({ incarnation }) => incarnation)) }
    if (!this.#claims.has(flow)) context.step('claiming', 1)
    this.#claims.set(flow, claim)
    for (const { id } of others) this.#tell(id, claim)
    if (planted['alias-before-bound']) claim.pending.clear()
    this.#grant(claim)
  }

  /** The other switches that are up. */
  #others(): SwitchEntry[] {
    return this.#switches().filter(({ id, incarnation }) => id !== this.#context.self && incarnation !== 0)
  }

  #add(main: number, key: number, macs: number): boolean {
    const context = this.#context
    const { arena, table } = context
    const entry = table.add(key, context.hashOf(key))
    if (entry === 0) return false
    arena.u8.copyWithin(entry + Entry.macs, macs, macs + MACS_BYTES)
    table.link(entry, main)
    return true
  }

  #tell(switchId: number, { flow, key, macs }: Claim): void {
    const context = this.#context
    const { arena } = context
    const channel = context.control(switchId)
    const at = begin(context, channel, BindAlias, flow, 0)
    if (at === 0) return
    arena.i32.set(key, (at + MessageField.key) >> 2)
    arena.u8.set(macs, at + MessageField.macs)
    ;(channel as MessageChannel).commit()
  }

  /** A switch asks who serves a key that is an alias: it has not heard, or has come back since. */
  remind(switchId: number, alias: number): void {
    const context = this.#context
    const channel = context.control(switchId)
    const flow = context.arena.f64[(context.table.mainOf(alias) + Entry.flow) >> 3]
    const at = begin(context, channel, BindAlias, flow, 0)
    if (at === 0) return
    writeEntryKey(context, at, alias)
    ;(channel as MessageChannel).commit()
  }

  #answer(runtime: number, flow: number, key: number, macs: number, refusal: number): void {
    const context = this.#context
    const channel = context.control(runtime)
    const at = begin(context, channel, ClaimAliasReply, flow, 0, 0, refusal)
    if (at === 0) return
    writeKey(context, at, key, macs)
    ;(channel as MessageChannel).commit()
  }

  #grant(claim: Claim): void {
    if (claim.pending.size > 0) return
    this.#claims.delete(claim.flow)
    this.#context.step('claiming', -1)
    this.#context.arena.i32.set(claim.key, this.#key)
    this.#context.arena.u8.set(claim.macs, this.#macs)
    this.#answer(claim.runtime, claim.flow, this.#key, this.#macs, AliasRefusal.none)
  }

  /** The home of an alias has granted it. */
  bind(from: number, at: number, flow: number): void {
    const key = (at + MessageField.key) >> 2
    const main = this.#context.table.findFlow(flow)
    if (main === 0) this.#keepEarly(from, flow, key, at + MessageField.macs)
    else this.#take(from, flow, main, key, at + MessageField.macs)
  }

  #keepEarly(from: number, flow: number, key: number, macs: number): void {
    const { arena, anomaly } = this.#context
    const words = arena.i32.slice(key, key + KEY_WORDS)
    this.#early = this.#early.filter((early) => early.flow !== flow || early.key.some((word, index) => word !== words[index]))
    if (this.#early.length >= this.#context.limits.earlyAliases) {
      this.#early.shift()
      anomaly('early-alias-limit')
    }
    this.#early.push({ flow, from, key: words, macs: arena.u8.slice(macs, macs + MACS_BYTES) })
  }

  #take(from: number, flow: number, main: number, key: number, macs: number): void {
    const context = this.#context
    const { arena, table } = context
    const found = table.find(key, context.hashOf(key))
    const isHere = found !== 0 && table.mainOf(found) === main
    if (found !== 0 && !isHere) {
      const isMain = table.mainOf(found) === found
      const known = arena.f64[(found + Entry.flow) >> 3]
      // Its home knows of no other flow with this key, so that one ends here too, as soon as its FlowClosed has come.
      if (!isMain || (known !== 0 && known !== flow)) return this.#keepEarly(from, flow, key, macs)
      // Packets came for the key before the flow had it.
      this.#replace(found, () => { if (!this.#add(main, key, macs)) context.anomaly('flow-table-full') })
    } else if (!isHere && !this.#add(main, key, macs)) {
      context.anomaly('flow-table-full')
    }
    const channel = context.control(from)
    const at = begin(context, channel, BindAliasReply, flow, 0)
    if (at === 0) return
    writeKey(context, at, key, macs)
    ;(channel as MessageChannel).commit()
  }

  /** Another switch has the alias with the key at a word index. */
  bound(switchId: number, flow: number, key: number): void {
    const claim = this.#claims.get(flow)
    const incarnation = this.#switches().find(({ id }) => id === switchId)?.incarnation
    if (claim === undefined || incarnation === undefined || !flowKeysEqual(this.#context.arena.i32, key, this.#keyOf(claim)) ||
        !claim.pending.delete(incarnation)) return this.#context.anomaly('late-alias-reply')
    this.#grant(claim)
  }

  #keyOf({ key }: Claim): number {
    this.#context.arena.i32.set(key, this.#key)
    return this.#key
  }

  /** A flow is known here now: aliases that came early are taken. */
  flowKnown(flow: number, entry: number): void {
    if (this.#early.length === 0) return
    const mine = this.#early.filter((early) => early.flow === flow)
    this.#early = this.#early.filter((early) => early.flow !== flow)
    for (const { from, key, macs } of mine) {
      this.#context.arena.i32.set(key, this.#key)
      this.#context.arena.u8.set(macs, this.#macs)
      this.#take(from, flow, entry, this.#key, this.#macs)
    }
  }

  /** A flow has ended: what was open about its alias is over, and others may take the keys that it had. */
  flowEnded(flow: number): void {
    if (this.#claims.delete(flow)) this.#context.step('claiming', -1)
    this.#waiting.delete(flow)
    if (this.#early.length === 0) return
    this.#early = this.#early.filter((early) => early.flow !== flow)
    for (const waiting of new Set(this.#early.map((early) => early.flow))) {
      const main = this.#context.table.findFlow(waiting)
      if (main !== 0) this.flowKnown(waiting, main)
    }
  }

  /** The aliases behind an AnnounceFlow. */
  announced(at: number, bytes: number, entry: number): void {
    const context = this.#context
    const { arena } = context
    for (let alias = at + AnnounceFlow.bytes; alias + ALIAS_BYTES <= at + bytes; alias += ALIAS_BYTES) {
      const key = alias >> 2
      const found = context.table.find(key, context.hashOf(key))
      if (context.table.mainOf(found) === entry) continue
      const flip = arena.i32[key + KEY_WORDS] !== 0
      for (let byte = 0; byte < MACS_BYTES; byte++) {
        arena.u8[this.#macs + byte] = arena.u8[entry + Entry.macs + (flip ? (byte + 6) % MACS_BYTES : byte)]
      }
      // The key may have become a flow's while nobody knew better: when that one ends it is the alias again.
      if (found !== 0) this.#keepEarly(0, arena.f64[(entry + Entry.flow) >> 3], key, this.#macs)
      else if (!this.#add(entry, key, this.#macs)) context.anomaly('flow-table-full')
    }
  }

  /** Switches have gone or come: those that are gone need not answer, new ones must. */
  configure(): void {
    const others = this.#others()
    for (const [flow, { runtime }] of this.#waiting) if (this.#context.control(runtime) === null) this.#waiting.delete(flow)
    for (const claim of [...this.#claims.values()]) {
      for (const incarnation of [...claim.pending]) {
        if (others.some((entry) => entry.incarnation === incarnation)) continue
        claim.pending.delete(incarnation)
      }
      // One that came while the claim was open may have been told of the flow without it.
      for (const { id, incarnation } of others) {
        if (claim.told.has(incarnation)) continue
        claim.told.add(incarnation)
        claim.pending.add(incarnation)
        this.#tell(id, claim)
      }
      if (this.#context.control(claim.runtime) === null) {
        this.#claims.delete(claim.flow)
        this.#context.step('claiming', -1)
      } else {
        this.#grant(claim)
      }
    }
  }
}
