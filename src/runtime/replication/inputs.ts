/**
 * Inputs: how far this runtime has come on the links from switches, and what it may give back there. PROTOCOL 20.
 *
 * In `commit` a frame stays in its link until what it has changed is known elsewhere, so that the switch can take it back should we die.
 * Every record that goes to a replica says how far each link had been consumed: what lies behind that is in the record, whatever its
 * flow. Giving back needs no count per packet: now and then, when nothing is set aside here, it is noted how far the links are and where
 * the sessions' streams end; when every peer has handled its stream up to there, the links are given back up to there.
 *
 *     link:     given back ≤ noted ≤ consumed ≤ sent
 *     session:               noted            ≤ committed       given back := noted, once handled ≥ noted
 */

import type { MessageChannel } from '../../transport/message-channel.ts'

/** What there is to know of a link; positions count its frames from 1. */
export interface InputLink {
  /** True when what is not given back can be taken back by its sender. */
  readonly canRelease: boolean
  /** The last frame that has been handed over. */
  readonly position: number
  /** Which connection that is: positions begin anew with each. */
  readonly connection: number
  /** Which life of the switch has sent that, the lower half of its incarnation. */
  readonly senderLife: number
  /** True when what has not been given back nearly fills it. */
  readonly isCrowded: boolean
  release(position: number): void
}

interface Source {
  readonly link: InputLink
  connection: number
  noted: number
  released: number
}

/** Words per link in {@link Inputs.words}: id of the switch and the lower half of its incarnation; position. */
export const INPUT_WORDS = 2

export class Inputs {
  /** How far each link has been consumed. PERF: copied into every step. */
  words: Int32Array = new Int32Array(0)
  /** Frames that were given back before what they have changed was known elsewhere, for want of room. */
  early = 0
  readonly #sources: Source[] = []
  readonly #switches: number[] = []
  readonly #channels: MessageChannel[] = []
  readonly #positions: number[] = []
  #isNoted = false
  /** False: frames are given back as soon as they have been consumed. */
  readonly #commits: boolean
  /** Frames of a link that are kept at most while something is set aside. */
  readonly #keptMax: number

  constructor(commits: boolean, keptMax: number) {
    this.#commits = commits
    this.#keptMax = keptMax
  }

  /** A link; its number. */
  add(switchId: number, link: InputLink): number {
    this.#sources.push({ link, connection: link.connection, noted: 0, released: 0 })
    this.#switches.push(switchId)
    const words = new Int32Array(this.#sources.length * INPUT_WORDS)
    words.set(this.words)
    words[words.length - INPUT_WORDS] = switchId
    this.words = words
    return this.#sources.length - 1
  }

  /**
   * What has been handed over by a link has been processed. Which life of the switch has sent it, it says itself: configurations may tell of
   * that one later, or of the next one before anything has come from there. Hot: once per batch.
   */
  consumed(index: number): void {
    const { link } = this.#sources[index] as Source
    if (!link.canRelease) return
    this.words[index * INPUT_WORDS] = (this.#switches[index] as number) | link.senderLife << 16
    this.words[index * INPUT_WORDS + 1] = link.position
    if (!this.#commits) link.release(link.position)
  }

  /** Peers are gone or have come: what was noted of their sessions means nothing any more. */
  forget(): void {
    this.#isNoted = false
  }

  /**
   * Gives back what is known elsewhere. Once per turn.
   *
   * @param isClean nothing is set aside here, and all that has changed is in the sessions
   */
  tick(isClean: boolean, channels: () => Iterable<MessageChannel>): void {
    if (!this.#commits) return
    this.#bound()
    if (this.#isNoted) {
      for (let i = 0; i < this.#channels.length; i++) {
        if ((this.#channels[i] as MessageChannel).hasReached?.(this.#positions[i] as number) === false) return
      }
      this.#isNoted = false
      for (const source of this.#sources) {
        if (source.connection !== source.link.connection || source.noted <= source.released) continue
        source.link.release(source.noted)
        source.released = source.noted
      }
    }
    if (!this.#isBehind(isClean)) return
    for (const source of this.#sources) source.noted = source.link.canRelease ? source.link.position : 0
    this.#channels.length = 0
    this.#positions.length = 0
    for (const channel of channels()) {
      this.#channels.push(channel)
      this.#positions.push(channel.position ?? 0)
    }
    this.#isNoted = true
  }

  /** A link must not fill up: what is to come is worth more than what may never be wanted back. */
  #bound(): void {
    for (const source of this.#sources) {
      const { link } = source
      if (!link.canRelease || !link.isCrowded || source.connection !== link.connection) continue
      this.early += link.position - source.released
      source.released = link.position
      link.release(source.released)
    }
  }

  /** True when there is something to be given back, and it can be noted now. */
  #isBehind(isClean: boolean): boolean {
    let isAny = false
    for (const source of this.#sources) {
      const { link } = source
      if (!link.canRelease) continue
      if (source.connection !== link.connection) {
        source.connection = link.connection
        source.released = 0
      }
      const kept = link.position - source.released
      if (kept > 0 && (isClean || kept > this.#keptMax)) isAny = true
    }
    return isAny
  }
}

/** How far the record says a switch's link has been consumed; 0 when it says nothing of this life of the switch. */
export function coveredBy(inputs: Int32Array | null, switchId: number, incarnation: number): number {
  if (inputs === null) return 0
  const name = switchId | (incarnation & 0xffff) << 16
  for (let i = 0; i < inputs.length; i += INPUT_WORDS) if (inputs[i] === name) return inputs[i + 1] as number
  return 0
}
