/**
 * Endings: flows whose owner has ended them, while their last packets may still be on the link of the replica that releases them.
 * docs/protocol.md, "Closing". The entry stays, closing, until that one has said ══Drained at the next epoch, or is fenced.
 */

import { FlowClosedReleaserIncarnation } from '../messages/closing.ts'
import { MessageField } from '../messages/message.ts'
import type { Releasing } from './releasing.ts'
import type { RuntimeLives } from './runtime-lives.ts'
import type { SwitchContext } from './switch-context.ts'
import { Entry } from './switch-table.ts'

interface Ending {
  readonly epoch: number
  readonly releaser: number
  readonly incarnation: number
}

export class Endings {
  readonly #context: SwitchContext
  readonly #lives: RuntimeLives
  readonly #releasing: Releasing
  /** By entry. */
  readonly #endings = new Map<number, Ending>()
  readonly #remove: (entry: number) => void

  constructor(context: SwitchContext, lives: RuntimeLives, releasing: Releasing, remove: (entry: number) => void) {
    this.#context = context
    this.#lives = lives
    this.#releasing = releasing
    this.#remove = remove
  }

  has(entry: number): boolean {
    return this.#endings.has(entry)
  }

  /** FlowClosed: an entry's flow has ended. True if the entry is to stay for now; otherwise it is gone. */
  end(entry: number, at: number): boolean {
    const { u16, u32 } = this.#context.arena
    const epoch: number = u32[(at + MessageField.epoch) >> 2]
    const releaser: number = u16[(at + MessageField.node) >> 1]
    const incarnation: number = u32[(at + FlowClosedReleaserIncarnation) >> 2]
    if (releaser === 0 || this.#lives.isFenced(releaser, incarnation) || this.#releasing.hasSaid(entry, releaser, epoch + 1)) {
      this.#removeAt(entry, epoch)
      return false
    }
    this.#endings.set(entry, { epoch, releaser, incarnation })
    // Its word about the flow may be on its way here, ahead of the first of its packets.
    this.#releasing.set(entry, releaser, u32[(entry + Entry.epoch) >> 2])
    return true
  }

  #removeAt(entry: number, epoch: number): void {
    this.#releasing.outlives(entry, epoch)
    this.#remove(entry)
  }

  /** The entry is gone, or the flow goes on with another owner. */
  forget(entry: number): void {
    if (this.#endings.size > 0) this.#endings.delete(entry)
  }

  /** In-band: who releases a flow has sent the last of it. */
  drained(flow: number): void {
    if (this.#endings.size === 0) return
    const entry = this.#context.table.findFlow(flow)
    const ending = this.#endings.get(entry)
    if (ending !== undefined && this.#releasing.hasSaid(entry, ending.releaser, ending.epoch + 1)) this.#removeAt(entry, ending.epoch)
  }

  configured(): void {
    for (const [entry, { epoch, releaser, incarnation }] of this.#endings) {
      if (this.#lives.isFenced(releaser, incarnation)) this.#removeAt(entry, epoch)
    }
  }
}
