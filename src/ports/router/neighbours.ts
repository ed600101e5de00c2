/**
 * Neighbours of a router port: which Ethernet address an IP address of the same network has, and the frames that wait to know it.
 *
 *     a frame for it ─▶ asked ── it answers ─▶ known ── unheard for 30 s, and used ─▶ asked again, and used meanwhile
 *                         └─ 3 questions, a second apart, without an answer ─▶ (gone, with what waited for it)
 *
 * RFC 826, RFC 4861 §7 (with fewer states: who is known is used until he does not answer). Finding one allocates nothing.
 */

import type { TimeUs } from '../../base/clock.ts'
import type { IpAddress } from './ip-words.ts'

export interface Neighbour {
  readonly address: IpAddress
  /** Null until it has answered. */
  mac: Uint8Array | null
  /** When it was heard of last. */
  heardAt: TimeUs
  /** Questions since then, and when the last one was asked. */
  questions: number
  askedAt: TimeUs
  /** A frame has gone to it since it was heard of. */
  isUsed: boolean
  /** Frames that wait, each with what belongs before it. */
  readonly waiting: Uint8Array[]
}

/** How many there may be, and how many of them that have not answered. */
export const NEIGHBOURS_MAX = 1024
export const UNKNOWN_MAX = 256
/** Frames that wait for one, and for all. */
export const WAITING_MAX = 4
export const WAITING_ALL_MAX = 256
const SLOTS = 4096
const HEARD_US = 30_000_000
/** Who is neither heard of nor sent anything for so long is forgotten. */
const FORGOTTEN_US = 300_000_000
const QUESTION_US = 1_000_000
const QUESTIONS_MAX = 3

export class Neighbours {
  /** Of each slot: number of an entry plus one, 0 for none. */
  readonly #slots = new Int16Array(SLOTS)
  readonly #words = new Int32Array(NEIGHBOURS_MAX * 5)
  readonly #entries: Neighbour[] = []
  #waiting = 0
  #unknown = 0

  get size(): number {
    return this.#entries.length
  }

  /** Frames that wait for all of them. */
  get waiting(): number {
    return this.#waiting
  }

  /** The neighbour with an address, or null. Hot. */
  find(version: number, w0: number, w1: number, w2: number, w3: number): Neighbour | null {
    const words = this.#words
    const slots = this.#slots
    for (let slot = hashOf(version, w0, w1, w2, w3); ; slot = (slot + 1) & (SLOTS - 1)) {
      const entry = slots[slot]
      if (entry === 0) return null
      const at = (entry - 1) * 5
      if (words[at] === version && words[at + 1] === w0 && words[at + 2] === w1 && words[at + 3] === w2 && words[at + 4] === w3) {
        return this.#entries[entry - 1]
      }
    }
  }

  /** The same for an address, made if there is none. Null when there is no room: nobody that is known goes for one that may not be there. */
  get({ version, words }: IpAddress, now: TimeUs): Neighbour | null {
    const [w0, w1 = 0, w2 = 0, w3 = 0] = words
    const found = this.find(version, w0, w1, w2, w3)
    if (found !== null) return found
    if (this.#entries.length >= NEIGHBOURS_MAX || this.#unknown >= UNKNOWN_MAX) return null
    const neighbour: Neighbour = {
      address: { version, words }, mac: null, heardAt: now, questions: 0, askedAt: -Infinity, isUsed: true, waiting: [],
    }
    this.#entries.push(neighbour)
    this.#unknown++
    this.#place(this.#entries.length - 1)
    return neighbour
  }

  /** True if the frame is kept until the neighbour is known. */
  wait(neighbour: Neighbour, frame: Uint8Array): boolean {
    if (neighbour.waiting.length >= WAITING_MAX || this.#waiting >= WAITING_ALL_MAX) return false
    neighbour.waiting.push(frame)
    this.#waiting++
    return true
  }

  /** A neighbour has said which Ethernet address it has. Returns what has waited for that. */
  heard(neighbour: Neighbour, mac: Uint8Array, now: TimeUs): Uint8Array[] {
    if (neighbour.mac === null) this.#unknown--
    neighbour.mac = mac
    neighbour.heardAt = now
    neighbour.questions = 0
    neighbour.isUsed = false
    const frames = neighbour.waiting.splice(0)
    this.#waiting -= frames.length
    return frames
  }

  /**
   * Asks again whom there is a question for, and gives up who does not answer.
   *
   * @returns how many frames have waited in vain
   */
  work(now: TimeUs, ask: (neighbour: Neighbour) => void): number {
    let lost = 0
    for (const neighbour of [...this.#entries]) {
      if (neighbour.mac !== null && now - neighbour.heardAt > FORGOTTEN_US && !neighbour.isUsed) {
        lost += this.#remove(neighbour)
        continue
      }
      const isDoubtful = neighbour.mac === null || neighbour.questions > 0 || (neighbour.isUsed && now - neighbour.heardAt > HEARD_US)
      if (!isDoubtful || now - neighbour.askedAt < QUESTION_US) continue
      if (neighbour.questions >= QUESTIONS_MAX) lost += this.#remove(neighbour)
      else this.asked(neighbour, now, ask)
    }
    return lost
  }

  asked(neighbour: Neighbour, now: TimeUs, ask: (neighbour: Neighbour) => void): void {
    neighbour.questions++
    neighbour.askedAt = now
    ask(neighbour)
  }

  #remove(neighbour: Neighbour): number {
    if (neighbour.mac === null) this.#unknown--
    this.#entries.splice(this.#entries.indexOf(neighbour), 1)
    this.#slots.fill(0)
    for (let entry = 0; entry < this.#entries.length; entry++) this.#place(entry)
    this.#waiting -= neighbour.waiting.length
    return neighbour.waiting.length
  }

  #place(entry: number): void {
    const { version, words: [w0, w1 = 0, w2 = 0, w3 = 0] } = this.#entries[entry].address
    this.#words.set([version, w0, w1, w2, w3], entry * 5)
    let slot = hashOf(version, w0, w1, w2, w3)
    while (this.#slots[slot] !== 0) slot = (slot + 1) & (SLOTS - 1)
    this.#slots[slot] = entry + 1
  }
}

function hashOf(version: number, w0: number, w1: number, w2: number, w3: number): number {
  let hash = Math.imul(w0 ^ version, 0x9e3779b1) ^ Math.imul(w1, 0x85ebca6b) ^ Math.imul(w2, 0xc2b2ae35) ^ Math.imul(w3, 0x27d4eb2f)
  hash ^= hash >>> 15
  return Math.imul(hash, 0x2c1b3c6d) >>> 20
}
