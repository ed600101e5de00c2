/**
 * Adoption: the message by which an owner gives a runtime a replica of a flow, whole. PROTOCOL 15, 16.
 */

import { KEY_WORDS } from '../../flow/flow-record.ts'
import { MessageField } from '../../messages/message.ts'
import {
  AdoptFlow, AdoptFlowAliases, AdoptFlowBuffersAt, AdoptFlowFormer, AdoptFlowFormerIncarnation, AdoptFlowInputs, AdoptFlowLayout, AdoptMember,
  AdoptMemberPredecessor, AdoptMemberPredecessorIncarnation, AdoptMemberSuccessor, AdoptMemberSuccessorIncarnation, ForgetFlow,
} from '../../messages/replication.ts'
import type { MessageChannel } from '../../transport/message-channel.ts'
import { ALIAS_BYTES, ALIAS_WORDS, aliasCount } from '../alias-claims.ts'
import { begin, epochOf, flowOf, isTooLong, sendHead, writeKey, type RuntimeContext } from '../runtime-context.ts'
import type { ProtectionHost } from './protection-host.ts'

export interface Adoption {
  /** An AdoptKind. */
  readonly kind: number
  /** The replica releases the flow's frames from now on. */
  readonly releases: boolean
  /** The runtime whose replica this one replaces, 0 for none. */
  readonly former: number
  readonly formerIncarnation: number
  /** The target of a move of the owner before that buffers packets of the flow, 0 for none. */
  readonly buffersAt: number
  /** Its neighbours in a chain of two; null where it is the only replica. */
  readonly place: ChainPlace | null
  /** How far links had been consumed when the record was what it is. */
  readonly inputs: Int32Array
}

/** A replica's neighbours in its chain, 0 for none. The first replica has a successor, the tail a predecessor. */
export interface ChainPlace {
  readonly successor: number
  readonly successorIncarnation: number
  readonly predecessor: number
  readonly predecessorIncarnation: number
}

/** True for a flow that is larger than a message to a runtime may be: it can have no replica there while it is. */
export function isTooLargeToAdopt(context: RuntimeContext, record: number, replica: number, isMember = false): boolean {
  const kind = isMember ? AdoptMember : AdoptFlow
  return isTooLong(context.control(replica), kind, context.inputs.words.length * 4 + aliasCount(context, record) * ALIAS_BYTES +
    context.engine.exportBytes(record))
}

/** Sends the whole flow to a runtime; false when there is no room, or the flow is larger than any. */
export function sendAdoption(context: RuntimeContext, record: number, replica: number, adoption: Adoption): boolean {
  const { engine, arena } = context
  const channel = context.control(replica)
  const { place } = adoption
  const kind = place === null ? AdoptFlow : AdoptMember
  const aliases: Int32Array[] = []
  if (engine.aliases.size > 0) {
    for (const block of engine.aliases.of(record)) {
      const alias = new Int32Array(ALIAS_WORDS)
      alias.set(arena.i32.subarray(block >> 2, (block >> 2) + KEY_WORDS))
      alias[KEY_WORDS] = engine.aliases.isFlipped(block) ? 1 : 0
      aliases.push(alias)
    }
  }
  const { inputs } = adoption
  const bytes = inputs.length * 4 + aliases.length * ALIAS_BYTES + engine.exportBytes(record)
  if (isTooLong(channel, kind, bytes)) return false
  const at = begin(context, channel, kind, flowOf(context, record), epochOf(context, record), false, bytes)
  if (at === 0) return false
  arena.u8[at + MessageField.code] = adoption.kind
  arena.u16[(at + MessageField.node) >> 1] = adoption.releases ? 1 : 0
  arena.u32[(at + AdoptFlowFormer) >> 2] = adoption.former
  arena.u32[(at + AdoptFlowFormerIncarnation) >> 2] = adoption.formerIncarnation
  arena.u32[(at + AdoptFlowBuffersAt) >> 2] = adoption.buffersAt
  arena.u32[(at + AdoptFlowAliases) >> 2] = aliases.length
  arena.i32[(at + AdoptFlowLayout) >> 2] = engine.layoutHash
  if (place !== null) {
    arena.u32[(at + AdoptMemberSuccessor) >> 2] = place.successor
    arena.u32[(at + AdoptMemberSuccessorIncarnation) >> 2] = place.successorIncarnation
    arena.u32[(at + AdoptMemberPredecessor) >> 2] = place.predecessor
    arena.u32[(at + AdoptMemberPredecessorIncarnation) >> 2] = place.predecessorIncarnation
  }
  writeKey(context, at, record)
  arena.u32[(at + AdoptFlowInputs) >> 2] = inputs.length * 4
  let to = at + kind.bytes
  arena.i32.set(inputs, to >> 2)
  to += inputs.length * 4
  for (const alias of aliases) {
    arena.i32.set(alias, to >> 2)
    to += ALIAS_WORDS * 4
  }
  arena.u8.set(engine.exportFlow(record), to)
  ;(channel as MessageChannel).commit()
  return true
}

/** Sends the whole flow to a runtime that is to be a member of a chain; false when there is no room. */
export function adoptAt(context: RuntimeContext, host: ProtectionHost, record: number, chain: readonly number[], index: number, kind: number,
    { former = 0, inputs = context.inputs.words, buffersAt = 0 } = {}): boolean {
  const formerIncarnation = former === 0 ? 0 : host.incarnationOf(former)
  const at = (id: number | undefined): readonly [number, number] => (id === undefined ? [0, 0] : [id, host.incarnationOf(id)])
  const [successor, successorIncarnation] = at(chain[index + 1])
  const [predecessor, predecessorIncarnation] = at(chain[index - 1])
  const place = chain.length === 1 ? null : { successor, successorIncarnation, predecessor, predecessorIncarnation }
  const releases = host.mode === 'commit' && successor === 0
  return sendAdoption(context, record, chain[index] as number, { kind, releases, former, formerIncarnation, place, inputs, buffersAt })
}

/** The same to all of a chain; to none when there is no room for all. */
export function adoptAll(context: RuntimeContext, host: ProtectionHost, record: number, chain: readonly number[], kind: number,
    inputs = context.inputs.words): boolean {
  for (const index of chain.keys()) {
    if (adoptAt(context, host, record, chain, index, kind, { inputs })) continue
    forgetAt(context, chain.slice(0, index), flowOf(context, record))
    return false
  }
  return true
}

/** Runtimes that have a copy of a flow need it no more. */
export function forgetAt(context: RuntimeContext, runtimes: Iterable<number>, flow: number): void {
  for (const id of runtimes) sendHead(context, context.control(id), ForgetFlow, flow, 0)
}
