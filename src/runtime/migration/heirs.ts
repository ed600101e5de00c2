/**
 * Heirs: who goes on with a flow that was on its way here, when its source is dead and whoever kept its replica is, too. PROTOCOL 11, 19.
 *
 *     the replica's runtime has died ─▶ asking ── AskFlowReply of every runtime: nobody has it ─▶ it goes on here, without its state
 *                                          └── somebody has it, or a copy ─▶ that one fetches what is buffered here, by AbortFlow
 *
 * The replica's runtime may have been promoted, and have given the flow on, before it died. Should another runtime die meanwhile, which may
 * have done the same, all are asked anew.
 */

import { MessageField } from '../../messages/message.ts'
import { AskFlow, AskFlowConfigVersion } from '../../messages/replication.ts'
import type { MessageChannel } from '../../transport/message-channel.ts'
import { begin, writeKeyFrom, type RuntimeContext } from '../runtime-context.ts'

export class Heirs {
  readonly #context: RuntimeContext
  readonly #runtimes: () => Iterable<number>
  /** By flow: the configuration of the question, those who have not answered it, and those who have a copy. */
  readonly #asked = new Map<number, { readonly version: number; readonly left: Set<number>; readonly copies: number[] }>()

  constructor(context: RuntimeContext, runtimes: () => Iterable<number>) {
    this.#context = context
    this.#runtimes = runtimes
  }

  get isAsking(): boolean {
    return this.#asked.size > 0
  }

  has(flow: number): boolean {
    return this.#asked.has(flow)
  }

  forget(flow: number): void {
    this.#asked.delete(flow)
  }

  /** Asks every runtime for a flow whose key is at a word index. False if there is none to be asked. */
  ask(flow: number, epoch: number, key: number, macs: number): boolean {
    const context = this.#context
    const left = new Set(this.#runtimes())
    this.#asked.delete(flow)
    if (left.size === 0) return false
    this.#asked.set(flow, { version: context.configVersion, left, copies: [] })
    for (const id of left) {
      const channel = context.control(id)
      const at = begin(context, channel, AskFlow, flow, epoch, true)
      if (at === 0) continue
      context.arena.u8[at + MessageField.code] = 1
      context.arena.u32[(at + AskFlowConfigVersion) >> 2] = context.configVersion
      writeKeyFrom(context, at, key, macs)
      ;(channel as MessageChannel).commit()
    }
    return true
  }

  /**
   * An answer to the question of a configuration, by the lower 16 bits of its version: who has the flow, or else copies of it, nobody
   * perhaps, as soon as that is known; undefined if not, null for an answer that comes too late.
   *
   * @param code of AskFlowReply
   */
  answered(runtime: number, flow: number, version: number, code: number): readonly number[] | undefined | null {
    const asked = this.#asked.get(flow)
    if (asked === undefined || (asked.version & 0xffff) !== version || !asked.left.delete(runtime)) return null
    if (code === 2) asked.copies.push(runtime)
    if (code !== 1 && asked.left.size > 0) return undefined
    this.#asked.delete(flow)
    return code === 1 ? [runtime] : asked.copies
  }
}
