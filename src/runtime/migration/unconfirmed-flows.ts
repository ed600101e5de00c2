/**
 * Unconfirmed flows: those that have come here and whose source may not have heard so. They neither leave nor end, for the source may yet
 * take them back: until its session has acknowledged the answer, or it is fenced.
 */

import type { MessageChannel } from '../../transport/message-channel.ts'

interface Unconfirmed {
  readonly flow: number
  readonly source: number
  /** Behind the answer in the stream to the source; Infinity while there is none. */
  readonly position: number
}

export class UnconfirmedFlows {
  readonly #flows = new Map<number, Unconfirmed>()

  get size(): number {
    return this.#flows.size
  }

  has(flow: number): boolean {
    return this.#flows.has(flow)
  }

  /** A flow has come. @param position behind the answer to its source, once that has been said */
  add(flow: number, source: number, position = Infinity): void {
    this.#flows.set(flow, { flow, source, position })
  }

  delete(flow: number): void {
    this.#flows.delete(flow)
  }

  /** Calls back for those whose source knows by now. It may delete them. PERF: many may wait, and each is looked at in each turn. */
  forEachHeard(channelTo: (source: number) => MessageChannel | null, visit: (flow: number) => void): void {
    for (const { flow, source, position } of this.#flows.values()) {
      if (position !== Infinity && channelTo(source)?.hasReached?.(position) !== false) visit(flow)
    }
  }

  forEachOf(fenced: number, visit: (flow: number) => void): void {
    for (const { flow, source } of this.#flows.values()) if (source === fenced) visit(flow)
  }
}
