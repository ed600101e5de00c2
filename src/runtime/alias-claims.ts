/**
 * Alias claims: a network function wants a translated tuple for its flow, and the tuple's home switch decides. PROTOCOL 5.
 *
 * One claim per flow at a time; the flow neither moves nor is a move of it begun before the answer, and a move under way is called
 * off, so that what moves always has all its aliases. When a home comes back from a restart the claim is made again. Packets to the
 * tuple that come before the answer are held: sent back to their switch they would come again in any order. Replicas have the flow as of
 * before the packet that claims, until the answer: should its owner die meanwhile, that packet comes again, and claims again.
 */

import { AliasClaim } from '../nf/definition.ts'
import { AliasRefusal, ClaimAlias } from '../messages/aliasing.ts'
import { AnnouncedPhase, AnnounceFlow, AnnounceFlowOwnerIncarnation } from '../messages/announcing.ts'
import { MACS_BYTES, MessageField } from '../messages/message.ts'
import { copyFlowKey } from '../flow/flow-key.ts'
import { KEY_WORDS } from '../flow/flow-record.ts'
import { KeyBlock } from '../flow/key-table.ts'
import { Descriptor } from '../packet/descriptor.ts'
import { PacketQueue } from '../packet/packet-queue.ts'
import type { MessageChannel } from '../transport/message-channel.ts'
import { AbsentKind, begin, companionOf, epochOf, flowOf, type RuntimeContext, writeKey } from './runtime-context.ts'

/** Words of an alias in the tail of a message: the key, and whether its endpoint a is the flow's endpoint b. */
export const ALIAS_WORDS = KEY_WORDS + 1
export const ALIAS_BYTES = ALIAS_WORDS * 4

interface Claim {
  readonly flow: number
  readonly record: number
  readonly nf: number
  readonly home: number
  readonly flip: boolean
  readonly key: Int32Array
  /** Block in the table of absent flows, 0 if there was no room, and the packets held for it. */
  readonly block: number
  readonly queue: PacketQueue
}

export class AliasClaims {
  readonly #context: RuntimeContext
  readonly #homeOf: (key: number) => number
  readonly #hashOf: (key: number) => number
  readonly #claims = new Map<number, Claim>()

  /**
   * @param homeOf id of the home switch of the key at a word index, 0 if there is none
   * @param hashOf hash of that key in the table of absent flows
   */
  constructor(context: RuntimeContext, homeOf: (key: number) => number, hashOf: (key: number) => number) {
    this.#context = context
    this.#homeOf = homeOf
    this.#hashOf = hashOf
  }

  get size(): number {
    return this.#claims.size
  }

  has(flow: number): boolean {
    return this.#claims.has(flow)
  }

  /** Claims the key in descriptor `d`. Runs within batches. Returns an `AliasClaim`. */
  claim(record: number, d: number, flip: boolean, nf: number): number {
    const context = this.#context
    const { i32 } = context.arena
    const flow = flowOf(context, record)
    const home = this.#homeOf(d + Descriptor.key)
    if (home === 0 || this.#claims.has(flow) || this.#claims.size >= context.limits.claims ||
        aliasCount(context, record) >= context.limits.aliasesPerFlow) return AliasClaim.refused
    const scratch = d + Descriptor.key
    const key = new Int32Array(KEY_WORDS)
    copyFlowKey(i32, scratch, scratch)
    key.set(i32.subarray(scratch, scratch + KEY_WORDS))
    const claim: Claim = { flow, record, nf, home, flip, key, block: this.#addBlock(scratch, flow), queue: new PacketQueue(context.arena) }
    this.#claims.set(flow, claim)
    context.step('claiming', 1)
    this.#send(claim)
    return AliasClaim.pending
  }

  /** Notes that packets with the key at a word index are to be held. */
  #addBlock(key: number, flow: number): number {
    const { absent, arena } = this.#context
    const hash = this.#hashOf(key)
    if (absent.find(key, hash) !== 0) return 0
    const block = absent.add(key, hash)
    if (block === 0) return 0
    arena.u8[block + KeyBlock.kind] = AbsentKind.claimed
    arena.f64[(block + KeyBlock.flow) >> 3] = flow
    return block
  }

  /** Holds a packet to a tuple that is being claimed. */
  take(flow: number, d: number): void {
    const context = this.#context
    const { queue } = this.#claims.get(flow) as Claim
    if (queue.count >= context.limits.bufferedPerFlow || context.buffered >= context.limits.buffered) {
      return context.drop(context.arena.i32[d + Descriptor.slot], 'alias-buffer')
    }
    queue.push(d)
    context.buffered++
  }

  #send({ flow, record, home, flip, key }: Claim): void {
    const context = this.#context
    const { arena } = context
    const channel = context.control(home)
    const at = begin(context, channel, ClaimAlias, flow, epochOf(context, record), true)
    if (at === 0) return
    const macs = companionOf(context, record)
    arena.i32.set(key, (at + MessageField.key) >> 2)
    for (let byte = 0; byte < MACS_BYTES; byte++) {
      arena.u8[at + MessageField.macs + byte] = arena.u8[macs + (flip ? (byte + 6) % MACS_BYTES : byte)]
    }
    ;(channel as MessageChannel).commit()
  }

  /** The home's word. */
  reply(at: number, granted: (record: number) => void): void {
    const context = this.#context
    const { arena, engine } = context
    const claim = this.#claims.get(arena.f64[(at + MessageField.flow) >> 3])
    const key = (at + MessageField.key) >> 2
    if (claim === undefined || claim.key.some((word, index) => word !== arena.i32[key + index])) {
      return context.anomaly('late-alias-reply')
    }
    this.#end(claim)
    const isGranted = arena.u8[at + MessageField.code] === AliasRefusal.none && engine.addAlias(claim.record, key, claim.flip)
    if (isGranted) granted(claim.record)
    this.#answered(claim, isGranted)
  }

  #answered({ record, nf, queue }: Claim, granted: boolean): void {
    const context = this.#context
    context.engine.aliasAnswered(record, nf, granted)
    context.buffered -= queue.count
    context.run(queue)
  }

  #end(claim: Claim): void {
    this.#claims.delete(claim.flow)
    const { absent, arena } = this.#context
    // It may have become that of a flow on its way here that has the tuple.
    const isOurs = claim.block !== 0 && arena.u8[claim.block + KeyBlock.kind] === AbsentKind.claimed &&
      arena.f64[(claim.block + KeyBlock.flow) >> 3] === claim.flow
    if (isOurs) absent.remove(claim.block)
    this.#context.step('claiming', -1)
  }

  /** Claims whose home is not among the switches any more are refused. */
  refuseWithout(switches: readonly { readonly id: number }[]): void {
    for (const claim of [...this.#claims.values()]) {
      if (switches.some(({ id }) => id === claim.home)) continue
      this.#end(claim)
      this.#answered(claim, false)
    }
  }

  /** A home has come back knowing nothing. */
  repeatTo(switchId: number): void {
    for (const claim of this.#claims.values()) if (claim.home === switchId) this.#send(claim)
  }
}

/** How many aliases a flow has. */
export function aliasCount({ engine }: RuntimeContext, record: number): number {
  let count = 0
  if (engine.aliases.size > 0) for (const _ of engine.aliases.of(record)) count++
  return count
}

/** Writes a flow's aliases behind a message. */
export function writeAliases({ arena, engine }: RuntimeContext, at: number, record: number): void {
  if (engine.aliases.size === 0) return
  for (const block of engine.aliases.of(record)) {
    copyFlowKey(arena.i32, block >> 2, at >> 2)
    arena.u32[(at >> 2) + KEY_WORDS] = engine.aliases.isFlipped(block) ? 1 : 0
    at += ALIAS_BYTES
  }
}

/**
 * Tells a switch of the aliases of a flow that has come here from the dead, behind RerouteFlow: it may have come back since, and know the flow
 * by that alone. The home of a tuple would grant it to another flow.
 */
export function announceAliases(context: RuntimeContext, switchId: number, record: number, epoch: number): void {
  const count = aliasCount(context, record)
  if (count === 0) return
  const { arena, self, incarnation } = context
  const channel = context.control(switchId)
  const at = begin(context, channel, AnnounceFlow, flowOf(context, record), epoch, true, count * ALIAS_BYTES)
  if (at === 0) return context.anomaly('alias-not-announced')
  arena.u8[at + MessageField.code] = AnnouncedPhase.owned
  arena.u16[(at + MessageField.node) >> 1] = self
  arena.u32[(at + AnnounceFlowOwnerIncarnation) >> 2] = incarnation
  writeKey(context, at, record)
  writeAliases(context, at + AnnounceFlow.bytes, record)
  ;(channel as MessageChannel).commit()
}
